//! Inner fragments: only the first one of a datagram has ports, and all of them belong to its flow (RFC 791 section 3.2, RFC 8200
//! section 4.5). We never put a datagram together; we remember for a short time which ports it had.
//!
//! [`Fragments`] is one map for all workers, since fragments have another outer tuple than their flow and may come in anywhere. The first
//! fragment writes its ports under the datagram's hash (scope, addresses, protocol, identification); later ones read them. Later ones
//! that come before it wait in [`Held`], a worker's own store, for a short time and within a budget, and are given up then:
//! what becomes of them is the caller's policy.
//!
//! - *Overlapping or duplicate first fragments*: the first wins, while it is remembered. A second one with other ports would let a sender
//!   choose after the fact which flow the rest belongs to. Two workers that see one each in the same instant may both write; readers
//!   agree on the one in the lower place from then on.
//! - *Refused first fragments* are remembered with the reason in place of their ports, so that the rest shares their fate. One that passes takes
//!   the place of a refused one of its name: otherwise anybody who can guess the name could have an honest datagram refused.
//! - *Bounds*: entries live for a fixed time. When a bucket is full, of the tenant with the most entries in it the oldest is replaced, and counted:
//!   a flood of first fragments forgets its own early, and those of others only if they have more than their part of a bucket. What belongs to a forgotten one
//!   goes the way of those whose first never came. Waiting places ([`Places`]) are dealt out likewise.
//!
//! # Why a reader never sees another datagram's ports
//!
//! An entry is two words that any worker writes without a lock: `ports, expiry` and `hash XOR (ports, expiry)` (after Hyatt and Mann, "A
//! lockless transposition table implementation for parallel search", 2002). A reader takes both, and believes them only if they XOR to
//! its own hash. Whatever writers do at the same time, words of different writes give another value: the
//! hashes are 64 bits of a keyed function, so a wrong pair passes with probability 2^-64. A mark for "being written" would leave an entry
//! dead for good where a writer stops half way, and a check before and after would not see that the entry was used for something else in
//! between. Two writers in one entry can leave a pair that nobody believes: a lost entry, replaced in its time.

use std::collections::VecDeque;

use super::handoff::Parcel;
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// How long a first fragment is remembered, unless configured. RFC 791 suggests 15 s for putting together, RFC 8200 allows 60: those hold up data; this
/// only has to outlast the reordering of one datagram, and every second is a second in which its identification must not be reused.
pub const LIFETIME_MS: u32 = 4000;
/// Datagrams remembered at once, unless configured: 64 kB.
pub const CAPACITY: usize = 4096;
/// Fragments that wait for their first on each worker, unless configured.
pub const HELD: usize = 64;
/// How long they wait, in nanoseconds, unless configured.
pub const HELD_NS: u64 = 200_000_000;

/// Entries of a bucket: three cache lines. With two tenants in it, each has four at least.
const ENTRIES: usize = if cfg!(loom) { 1 } else { 8 };

/// What a first fragment says of its datagram: its ports, or what stands for them (ICMP type and code, identifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

/// What is remembered of a first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It was let through, with these ports.
    Passed(Ports),
    /// It was dropped, for the reason of this number.
    Refused(u16),
}

/// What came of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Remembered.
    New,
    /// Remembered, and another datagram forgotten before its time.
    Replacing,
    /// Known before: the earlier ports stay.
    Known,
}

struct Entry {
    /// Source port 16 | destination port 16 | expiry 32 (ms); zero is empty.
    value: AtomicU64,
    /// The datagram's hash XOR the value; the complement of that if it was refused.
    check: AtomicU64,
    /// The tenant that wrote it last. Only who has to go depends on it, so it need not be of one piece with the others.
    tenant: AtomicU32,
}

impl Entry {
    /// The value if it is this datagram's, and whether that was refused.
    #[inline(always)]
    fn of(&self, hash: u64) -> Option<(u64, bool)> {
        let (value, check) = (self.value.load(Ordering::Acquire), self.check.load(Ordering::Acquire));
        let refused = value ^ check == !hash;
        (value != 0 && (refused || value ^ check == hash)).then_some((value, refused))
    }
}

#[repr(align(64))]
struct Bucket([Entry; ENTRIES]);

/// First fragments of all workers; see the module.
pub struct Fragments {
    buckets: Box<[Bucket]>,
    lifetime: u32,
    /// First fragments remembered so far: who waits for one looks again when this has changed, and not before. Written behind the entry.
    news: std::sync::atomic::AtomicU64,
}

impl Fragments {
    /// A map for that many datagrams, at least, each remembered for so many milliseconds.
    pub fn new(capacity: usize, lifetime: u32) -> Self {
        let entry =
            |_| Entry { value: AtomicU64::new(0), check: AtomicU64::new(0), tenant: AtomicU32::new(0) };
        let buckets = 0..capacity.div_ceil(ENTRIES).max(1);
        let buckets = buckets.map(|_| Bucket(std::array::from_fn(entry))).collect();
        Fragments { buckets, lifetime: lifetime.clamp(1, u32::MAX / 8), news: 0.into() }
    }

    /// Another number whenever a first fragment has been remembered.
    #[inline(always)]
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Milliseconds that a value has left, 0 if none. The writer's clock may be ahead of the reader's, hence twice the lifetime; time
    /// wraps after 49 days, and what is as old as that is not near now either.
    #[inline(always)]
    fn left(&self, value: u64, now_ms: u32) -> u32 {
        let left = (value as u32).wrapping_sub(now_ms);
        if value != 0 && left <= 2 * self.lifetime { left } else { 0 }
    }

    /// Remembers what became of a datagram's first fragment. `hash` is its keyed hash; `now_ms` may wrap, and differ a little between workers.
    #[inline]
    pub fn insert(&self, hash: u64, first: First, tenant: u16, now_ms: u32) -> Inserted {
        let Some(Bucket(entries)) = self.bucket(hash) else { return Inserted::Known };
        let (high, refused) = match first {
            First::Passed(Ports { source, destination }) => {
                (u64::from(source) << 48 | u64::from(destination) << 32, false)
            }
            First::Refused(reason) => (u64::from(reason) << 48, true),
        };
        let mut place = None;
        for entry in entries {
            match entry.of(hash).filter(|(value, _)| self.left(*value, now_ms) > 0) {
                Some((_, true)) if !refused => place = Some(entry),
                Some(_) => return Inserted::Known,
                None => {}
            }
        }
        let known = place.is_some();
        let Some(entry) = place.or_else(|| self.to_replace(entries, tenant, now_ms)) else {
            return Inserted::Known;
        };
        let value = (high | u64::from(now_ms.wrapping_add(self.lifetime))).max(1); // zero is empty: no ports, in one millisecond of 49 days
        let old = entry.value.swap(value, Ordering::AcqRel);
        entry.check.store(if refused { !(hash ^ value) } else { hash ^ value }, Ordering::Release);
        entry.tenant.store(tenant.into(), Ordering::Relaxed);
        self.news.fetch_add(1, Ordering::Release);
        if !known && self.left(old, now_ms) > 0 { Inserted::Replacing } else { Inserted::New }
    }

    /// An entry that nobody needs any more, or else the oldest of the tenant that has the most of them, the newcomer included.
    fn to_replace<'a>(&self, entries: &'a [Entry; ENTRIES], tenant: u16, now_ms: u32) -> Option<&'a Entry> {
        let left = |entry: &Entry| self.left(entry.value.load(Ordering::Relaxed), now_ms);
        let whose = entries.each_ref().map(|entry| entry.tenant.load(Ordering::Relaxed));
        let rank = |(entry, its): &(&Entry, u32)| {
            let left = left(entry);
            let among =
                whose.iter().filter(|other| *other == its).count() + usize::from(*its == u32::from(tenant));
            (if left == 0 { usize::MAX } else { among }, std::cmp::Reverse(left))
        };
        entries.iter().zip(whose).max_by_key(rank).map(|(entry, _)| entry)
    }

    /// What became of a datagram's first fragment, if that was seen.
    #[inline]
    pub fn find(&self, hash: u64, now_ms: u32) -> Option<First> {
        let Bucket(entries) = self.bucket(hash)?;
        let live = |entry: &Entry| entry.of(hash).filter(|(value, _)| self.left(*value, now_ms) > 0);
        let (value, refused) = entries.iter().find_map(live)?;
        let high = (value >> 48) as u16;
        Some(if refused {
            First::Refused(high)
        } else {
            First::Passed(Ports { source: high, destination: (value >> 32) as u16 })
        })
    }

    #[inline(always)]
    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        let index = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        self.buckets.get(index as usize)
    }
}

impl std::fmt::Debug for Fragments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fragments({} entries)", self.buckets.len() * ENTRIES)
    }
}

/// Places to wait in, and whose fragments are in them. A tenant may have as many as it leaves free: one that floods gets half of them, the
/// next one half of the rest, and there is always one for whoever has none yet. A tenant that is alone may have them all.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Box<[u32]>,
    free: u32,
}

impl Places {
    /// So many places for so many tenants.
    pub fn new(places: u32, tenants: usize) -> Self {
        Places { taken: vec![0; tenants].into(), free: places }
    }

    /// Takes a place, if the tenant may have another.
    #[inline]
    pub fn take(&mut self, tenant: u16) -> bool {
        let alone = self.taken.len() == 1;
        let Some(taken) = self.taken.get_mut(usize::from(tenant)) else { return false };
        if self.free == 0 || (*taken >= self.free && !alone) {
            return false;
        }
        *taken += 1;
        self.free -= 1;
        true
    }

    /// A fragment of the tenant waits no more.
    #[inline]
    pub fn give_back(&mut self, tenant: u16) {
        if let Some(taken) = self.taken.get_mut(usize::from(tenant)).filter(|taken| **taken > 0) {
            *taken -= 1;
            self.free += 1;
        }
    }
}

struct Waiting {
    parcel: Parcel,
    hash: u64,
    /// Given up from then on.
    until: u64,
}

/// Later fragments that came before their first: one worker's, in order of arrival. Part of what a worker holds in the ledger.
pub struct Held {
    /// Never longer than its first capacity.
    waiting: VecDeque<Waiting>,
    most: usize,
    patience: u64,
    /// [`Fragments::news`] of which nothing waiting here has more to learn.
    heard: Option<u64>,
}

impl Held {
    /// Room for so many frames, each for so many nanoseconds.
    pub fn new(most: usize, patience: u64) -> Self {
        Held { waiting: VecDeque::with_capacity(most), most, patience, heard: None }
    }

    /// Frames that come from now on wait for so long.
    pub fn swap_patience(&mut self, patience: &mut u64) {
        std::mem::swap(&mut self.patience, patience);
    }

    /// Frames in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True without frames.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a fragment wait for the first of its datagram; gives it back if the budget is used up.
    #[inline]
    #[allow(clippy::result_large_err, reason = "it is the parcel itself, and it comes back")]
    pub fn hold(&mut self, parcel: Parcel, hash: u64, now: u64) -> Result<(), Parcel> {
        if self.waiting.len() >= self.most {
            return Err(parcel);
        }
        self.waiting.push_back(Waiting { parcel, hash, until: now.saturating_add(self.patience) });
        Ok(())
    }

    /// Is there anything to do for [`Self::ready`]? Few packets make many wait, and every poll asks: so only if there is news, or the first
    /// of them has waited too long.
    #[inline(always)]
    pub fn is_due(&self, now: u64, news: u64) -> bool {
        self.waiting.front().is_some_and(|first| self.heard != Some(news) || now >= first.until)
    }

    /// Goes over the frames once, in order of arrival. `news` was read before. One whose first fragment is known by now is handed to `take` with what became of that,
    /// one that waited too long without. A frame that `take` gives back (no room, another lane) waits on. Says how many went.
    #[inline]
    pub fn ready(
        &mut self,
        now: u64,
        news: u64,
        known: impl Fn(u64) -> Option<First>,
        mut take: impl FnMut(Parcel, Option<First>) -> Option<Parcel>,
    ) -> usize {
        let before = self.waiting.len();
        let mut all = true;
        for _ in 0..before {
            let Some(Waiting { parcel, hash, until }) = self.waiting.pop_front() else { break };
            let first = known(hash);
            let back = if first.is_some() || now >= until {
                let back = take(parcel, first);
                all &= back.is_none();
                back
            } else {
                Some(parcel)
            };
            if let Some(parcel) = back {
                self.waiting.push_back(Waiting { parcel, hash, until }); // where one was just taken out
            }
        }
        self.heard = all.then_some(news);
        before - self.waiting.len()
    }

    /// Frees everything, and says how much that was.
    pub fn free(&mut self) -> usize {
        self.waiting.drain(..).count()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({} of {})", self.len(), self.most)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(loom)]
mod models;
