//! The directory: which worker owns a flow. One table of 64-bit words that all workers share; no lock, no allocation after `new`.
//!
//! A worker asks only when its own table does not know a flow. Whoever claims first owns; everybody else hands packets over.
//! With one worker there is nothing to ask and no directory.
//!
//! # Life cycle of a claim
//!
//! - *New flow*: [`Directory::claim`] says `New` (or `Shared`) and the flow is created here; `Owned` and the packet goes to that
//!   worker. One [`Directory::release`] answers each `New` and each `Shared`, when the flow ends.
//! - *Claimed, then the table has no room*: release at once. Nobody else is told to come here for a flow that is not here.
//! - *Expiry while a hand-off is in flight*: the receiver does not know the flow and claims it, like any first packet. It never
//!   sends the packet on: if somebody else owns the flow by then, it treats the packet as under `Full`. Nothing bounces.
//! - *Two flows, one tag*: they only share an owner, and the word counts them. It empties when the last one is released.
//!   A count that reached its top sticks: the word stays until its owner is retired, rather than be released too early.
//! - *Full bucket*: `Full`; the flow has no claim, and the caller counts it. No release. All workers must agree on who has it all the same:
//!   [`Directory::stand_in`]. As long as one of these flows lives, whoever does not know a flow of that bucket asks there
//!   ([`Directory::is_overfull`]). Its owner asks for a place from time to time.
//! - *Half-open*, where not every worker can stand in for every other, as not all of them serve all ports: a claim for a flow that has shown one direction only may be evicted, by anybody who finds the bucket full; a
//!   firm one never. So a flood displaces other half-open flows at most. [`Directory::confirm`] makes it firm, and says so
//!   if the claim was lost meanwhile: then the flow is unclaimed, and its owner claims it again as if it were new. Until then
//!   its owner asks at each packet whether the claim is still there ([`Directory::holds`]), claims it again if not, and gives way
//!   to whoever was faster: a handshake whose claim goes in a flood is moved, not torn apart.
//! - *Hung owner*: [`Directory::retire`] ends the worker's [`Seat`]. All its words count as free from then on, without a walk over
//!   the table; what it still does with them fails. A worker that was retired finds out by [`Directory::seated`], once per
//!   poll; if it lives after all, it forgets its flows and takes a new seat.
//!
//! # Why there are never two owners
//!
//! A word holds a tag (36 bits of the flow's keyed hash), its owner's seat (worker and epoch), a share count and a state. The bucket,
//! one cache line, follows from other bits of the hash; a flow's word may be in any of its 8 places, and never moves.
//!
//! The danger is two workers that look for a tag at once, both find nothing, and take two different places. So a claim is made in
//! two steps. It *publishes* a tentative word in a place that is free; then comes a SeqCst fence; then it *looks* at all
//! other places again; and last it *confirms* by compare-and-swap from exactly its tentative word. Looking, it does this:
//! a held word of the same tag: take back the own one, that worker is the owner; a tentative one: the lower place
//! wins, so either take back the own one and start over, or *kill* the other by compare-and-swap to empty.
//!
//! Take two attempts `a` and `b` for one tag, in different places (one place holds one word). Their fences are ordered; say `a`'s is
//! first. Then all loads of `b` behind its fence see `a`'s published word or something later in that place (C++20 \[atomics.order\] 4,
//! \[atomics.fences\]): `a` tentative, held, or gone.
//! Gone: it was killed or taken back and can never confirm, or it was held and released before. Held: `b` takes itself back.
//! Tentative: either `b` takes itself back, or it kills `a` before it confirms; then `a`'s confirming swap fails, since only `a`'s own
//! worker ever writes that word. If the kill fails, `b` looks at what is there now, and it is one of the same cases. So not both are held
//! at once, whatever the other workers do. Which of two tentatives dies is of no weight for this: the rule about places is there so that
//! one of them survives, and a claimant that was patient for a while kills in any order (a rival may have been preempted by the kernel
//! between its two steps). A kill that hits a later attempt of the same worker in the same place only makes it start over.
//!
//! Words of a retired seat count as free for everybody who knows; who does not know yet follows them to the old owner, which is safe and
//! transient. Epochs only grow: a word once stale never counts again ([`Directory::retire`] sweeps before their 8 bits repeat).
//!
//! Eviction, release, confirmation and takeover each are one compare-and-swap from a word that was read, so of two that meet in
//! a word one fails and looks again. The loom models in `directory/models.rs` run the code below through these meetings.
//!
//! One thing is accepted: a worker whose half-open claim was evicted, and that has then claimed *another* flow with the same 36-bit tag
//! and bucket, cannot tell the two claims apart. The seed is random, so this cannot be provoked, and costs one flow its affinity.

use super::sync::{AtomicU32, AtomicU64, Ordering, fence, spin_loop};
use crate::dpdk::prefetch_line;
use crate::stage::WorkerId;

/// Words of a bucket: one cache line. Models need few, and every place costs them time.
const WORDS: usize = if cfg!(loom) { 2 } else { 8 };
/// Words per flow of the capacity. At full capacity 0.8 % of flows find their bucket full, at 70 % 0.1 % (Poisson).
const WORDS_PER_FLOW: usize = 2;
/// Bytes of the directory for each flow.
pub(super) const FLOW_SHARE: usize = WORDS_PER_FLOW * 8 + (WORDS_PER_FLOW * 4).div_ceil(WORDS);
/// Attempts of a claim before it gives up, and before it stops waiting for rivals. More than a few mean a preempted rival.
const TRIES: u32 = if cfg!(loom) { 12 } else { 64 };
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 32 };

/// Most workers that a directory can tell apart.
pub const MOST_WORKERS: usize = 1 << 10;

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The flow is the caller's.
    New,
    /// The same, and somebody's half-open claim had to go for it.
    Evicting,
    /// The flow is the caller's, as another live flow of it already has this tag.
    Shared,
    /// Another worker has it.
    Owned(WorkerId),
    /// No place in the bucket, or too many rivals: nobody owns it, process it here.
    Full,
}

impl Claim {
    /// Does the caller own the flow, and owe a release?
    #[inline(always)]
    pub fn is_mine(self) -> bool {
        matches!(self, Claim::New | Claim::Evicting | Claim::Shared)
    }
}

/// A worker's right to claim, until it is retired. Used by one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u64);

impl Seat {
    /// Whose it is.
    pub fn worker(self) -> WorkerId {
        Word(self.0).owner()
    }
}

/// One word: tag 36 | epoch 8 | owner 10 | count 8 | state 2. Zero is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word(u64);

const STATE: u64 = 0b11;
const TENTATIVE: u64 = 1;
const HALF_OPEN: u64 = 2;
const FIRM: u64 = 3;
/// One share, and the count at which it sticks.
const SHARE: u64 = 1 << 2;
const STUCK: u64 = 0xff * SHARE;
const OWNER_SHIFT: u32 = 10;
const EPOCH_SHIFT: u32 = 20;
const TAG_SHIFT: u32 = 28;
/// Owner and epoch.
const SEAT: u64 = (1 << TAG_SHIFT) - (1 << OWNER_SHIFT);
const TAG: u64 = !0 << TAG_SHIFT;

impl Word {
    const EMPTY: Word = Word(0);

    /// A first claim; the tag is the low end of the hash, the bucket follows from the high end.
    fn new(hash: u64, seat: Seat, state: u64) -> Self {
        Word(hash << TAG_SHIFT | seat.0 | SHARE | state)
    }

    fn with_state(self, state: u64) -> Self {
        Word(self.0 & !STATE | state)
    }

    /// One flow more; firm if either is.
    fn shared_with(self, other: Word) -> Self {
        let count = if self.0 & STUCK == STUCK { 0 } else { SHARE };
        Word((self.0 | other.0 & STATE) + count)
    }

    /// One flow less; empty without the last, unless the count is not known any more.
    fn with_one_less(self) -> Self {
        match self.0 & STUCK {
            STUCK => self,
            SHARE => Word::EMPTY,
            _ => Word(self.0 - SHARE),
        }
    }

    fn is(self, state: u64) -> bool {
        self.0 & STATE == state
    }

    fn is_held(self) -> bool {
        self.0 & STATE >= HALF_OPEN
    }

    fn same(self, other: Word, mask: u64) -> bool {
        (self.0 ^ other.0) & mask == 0
    }

    /// A claim of the same tag.
    fn rivals(self, other: Word) -> bool {
        self.same(other, TAG) && self != Word::EMPTY
    }

    fn owner(self) -> WorkerId {
        WorkerId((self.0 >> OWNER_SHIFT) as u16 & (MOST_WORKERS as u16 - 1))
    }

    fn epoch(self) -> u8 {
        (self.0 >> EPOCH_SHIFT) as u8
    }
}

#[repr(align(64))]
struct Bucket([AtomicU64; WORDS]);

impl Bucket {
    #[inline(always)]
    fn words(&self) -> impl Iterator<Item = (usize, &AtomicU64, Word)> {
        self.0.iter().enumerate().map(|(i, place)| (i, place, Word(place.load(Ordering::Acquire))))
    }
}

/// `Err` has what is there instead.
#[inline(always)]
fn swap(place: &AtomicU64, from: Word, to: Word) -> Result<(), Word> {
    let swapped = place.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
    swapped.map(drop).map_err(Word)
}

/// The worker has a seat that nobody has ended.
const SEATED: u32 = 1 << 31;

/// Who owns which flow; see the module.
pub struct Directory {
    buckets: Box<[Bucket]>,
    /// Of each bucket: flows that found no place and live with whoever stands in.
    overflow: Box<[AtomicU32]>,
    /// Of each worker: how often it was retired, and [`SEATED`]. The low 8 bits are its epoch.
    retired: Box<[AtomicU32]>,
}

impl Directory {
    /// A directory for that many flows and workers (at most [`MOST_WORKERS`]). All memory is touched, so that none of it is
    /// first mapped on the packet path.
    pub fn new(flows: usize, workers: usize) -> Self {
        let buckets = (flows * WORDS_PER_FLOW).div_ceil(WORDS).max(1);
        let bucket = |_| Bucket(std::array::from_fn(|_| AtomicU64::new(0)));
        let workers = workers.min(MOST_WORKERS);
        Directory {
            buckets: (0..buckets).map(bucket).collect(),
            overflow: (0..buckets).map(|_| AtomicU32::new(0)).collect(),
            retired: (0..workers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Bytes it takes.
    pub fn bytes(flows: usize) -> usize {
        (flows * WORDS_PER_FLOW).div_ceil(WORDS).max(1) * (size_of::<Bucket>() + size_of::<AtomicU32>())
    }

    /// The seat of a worker that starts; `None` for one that the directory was not made for.
    pub fn seat(&self, worker: WorkerId) -> Option<Seat> {
        let epoch = self.retired.get(worker.0 as usize)?.fetch_or(SEATED, Ordering::AcqRel) as u8;
        Some(Seat(u64::from(worker.0) << OWNER_SHIFT | u64::from(epoch) << EPOCH_SHIFT))
    }

    /// Is the seat still good? If not, the worker was retired, and other workers own what it owned.
    #[inline(always)]
    pub fn seated(&self, seat: Seat) -> bool {
        self.is_live(Word(seat.0))
    }

    /// Asks the cache for the bucket.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.bucket(hash) {
            prefetch_line(bucket);
        }
    }

    /// Asks for a flow that the caller does not know. `hash` is the flow's keyed 64-bit hash, `half_open` says that its claim
    /// may be evicted until [`Self::confirm`].
    pub fn claim(&self, hash: u64, me: Seat, half_open: bool) -> Claim {
        let Some(bucket) = self.bucket(hash) else { return Claim::Full };
        let want = Word::new(hash, me, if half_open { HALF_OPEN } else { FIRM });
        let mut evicted = false;
        for attempt in 0..TRIES {
            if let Some(claim) = self.attempt(bucket, want, attempt >= PATIENCE, &mut evicted) {
                return if claim == Claim::New && evicted { Claim::Evicting } else { claim };
            }
            spin_loop();
        }
        Claim::Full
    }

    /// A claim's steps; `None` if it met somebody and has to start over.
    #[inline(always)]
    fn attempt(&self, bucket: &Bucket, want: Word, force: bool, evicted: &mut bool) -> Option<Claim> {
        for (_, place, word) in bucket.words() {
            if !word.rivals(want) {
                continue;
            }
            if word.same(want, SEAT) && word.is_held() {
                return swap(place, word, word.shared_with(want)).is_ok().then_some(Claim::Shared);
            }
            if !self.is_live(word) {
                continue;
            }
            if word.is_held() {
                return Some(Claim::Owned(word.owner()));
            }
            if force {
                let _ = swap(place, word, Word::EMPTY); // whatever came of it, the next attempt sees it
            }
            return None;
        }

        let Some((index, mine, found)) = self.free_place(bucket, want) else {
            // Full, or a rival has just taken what was free.
            let full =
                bucket.words().all(|(_, _, word)| word.is(FIRM) && !word.rivals(want) && self.is_live(word));
            return full.then_some(Claim::Full);
        };
        let tentative = want.with_state(TENTATIVE);
        swap(mine, found, tentative).ok()?;
        *evicted |= found.is(HALF_OPEN) && self.is_live(found);
        fence(Ordering::SeqCst);

        for (i, place, mut word) in bucket.words() {
            while i != index && word.rivals(want) && self.is_live(word) {
                if !word.is_held() && (index < i || force) {
                    let Err(now) = swap(place, word, Word::EMPTY) else { break };
                    word = now;
                    continue;
                }
                let _ = swap(mine, tentative, Word::EMPTY); // gone already if the rival killed it
                return word.is_held().then(|| Claim::Owned(word.owner()));
            }
        }
        swap(mine, tentative, want).is_ok().then_some(Claim::New)
    }

    /// Where a new word may go: an empty place, one of a retired owner, or a half-open claim. Which of several half-open
    /// claims goes depends on the newcomer's hash, so that a flood finds no favourite.
    #[inline(always)]
    fn free_place<'a>(&self, bucket: &'a Bucket, want: Word) -> Option<(usize, &'a AtomicU64, Word)> {
        if let Some(empty) = bucket.words().find(|(_, _, word)| *word == Word::EMPTY) {
            return Some(empty);
        }
        let start = (want.0 >> TAG_SHIFT) as usize % WORDS;
        let others = bucket.words().filter_map(|(i, place, word)| {
            let rank = match word {
                _ if !self.is_live(word) => 0,
                _ if word.is(HALF_OPEN) => 1 + (i ^ start),
                _ => return None,
            };
            Some((rank, (i, place, word)))
        });
        others.min_by_key(|(rank, _)| *rank).map(|(_, free)| free)
    }

    /// The flow has shown both directions: nobody may evict its claim any more. False if somebody already has.
    #[inline(always)]
    pub fn confirm(&self, hash: u64, me: Seat) -> bool {
        self.change_own(hash, me, |word| word.with_state(FIRM))
    }

    /// A flow ended. The word empties with its last flow. Nothing happens if the claim was lost before.
    #[inline(always)]
    pub fn release(&self, hash: u64, me: Seat) {
        self.change_own(hash, me, Word::with_one_less);
    }

    /// Swaps the own held word of a flow; false if there is none.
    #[inline(always)]
    fn change_own(&self, hash: u64, me: Seat, change: impl Fn(Word) -> Word) -> bool {
        let Some(bucket) = self.bucket(hash) else { return false };
        let own = Word::new(hash, me, FIRM);
        for (_, place, mut word) in bucket.words() {
            // Only eviction and takeover change a word of ours, and they end it: this goes round once, or ends.
            while word.is_held() && word.same(own, TAG | SEAT) {
                let Err(now) = swap(place, word, change(word)) else { return true };
                word = now;
            }
        }
        false
    }

    /// Is the claim on a flow still there? A half-open one may have been evicted.
    #[inline(always)]
    pub fn holds(&self, hash: u64, me: Seat) -> bool {
        let own = Word::new(hash, me, FIRM);
        self.bucket(hash).is_some_and(|bucket| {
            bucket.words().any(|(_, _, word)| word.is_held() && word.same(own, TAG | SEAT))
        })
    }

    /// Who has a flow that finds no place: a worker that holds a seat, by the flow's hash, so that all agree.
    #[cold]
    pub fn stand_in(&self, hash: u64) -> Option<WorkerId> {
        let workers = self.retired.len();
        let first = (hash >> 32) as usize % workers.max(1);
        let seated =
            |n: &usize| self.retired.get(*n).is_some_and(|n| n.load(Ordering::Acquire) & SEATED != 0);
        (first..workers).chain(0..first).find(seated).map(|n| WorkerId(n as u16))
    }

    /// May the flow be one that found no place? While there are such flows of its bucket, a worker that knows neither it nor a claim on it
    /// leaves it to the one that stands in, even if there is a place by now.
    #[inline(always)]
    pub fn is_overfull(&self, hash: u64) -> bool {
        self.overflow(hash).is_some_and(|n| n.load(Ordering::Acquire) > 0)
    }

    /// A flow that found no place lives with whoever stands in for it, or does so no more.
    #[cold]
    pub fn count_overflow(&self, hash: u64, more: bool) {
        let Some(n) = self.overflow(hash) else { return };
        if more {
            n.fetch_add(1, Ordering::AcqRel)
        } else {
            n.fetch_sub(1, Ordering::AcqRel)
        };
    }

    #[inline(always)]
    fn overflow(&self, hash: u64) -> Option<&AtomicU32> {
        self.overflow.get(self.index(hash))
    }

    /// Who owns the flow at this moment.
    pub fn look(&self, hash: u64) -> Option<WorkerId> {
        let want = Word(hash << TAG_SHIFT);
        let held = |word: &Word| word.is_held() && word.same(want, TAG) && self.is_live(*word);
        self.bucket(hash)?.words().map(|(_, _, word)| word).find(held).map(Word::owner)
    }

    /// Ends a worker's seat: from now on its words are free for whoever claims them. For the watchdog; the worker need not know.
    /// Every 128th time for one worker it walks the table, since the epochs of old words would come back (twice per lap of the
    /// 8 bits: a hung worker may have woken and written with its old seat behind the first walk).
    pub fn retire(&self, worker: WorkerId) {
        let Some(retired) = self.retired.get(worker.0 as usize) else { return };
        if retired.load(Ordering::Acquire) % 128 == 127 {
            for (_, place, word) in self.buckets.iter().flat_map(Bucket::words) {
                if word != Word::EMPTY && word.owner() == worker {
                    let _ = swap(place, word, Word::EMPTY); // changed under our hands: then it is not old
                }
            }
        }
        // `Err` only if the closure says `None`.
        let _ = retired.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some((n + 1) & !SEATED));
    }

    /// Claims in the table, half-open and firm, by a walk. For onlookers.
    pub fn count(&self) -> (usize, usize) {
        let live = self.buckets.iter().flat_map(Bucket::words).filter(|(_, _, word)| self.is_live(*word));
        live.fold((0, 0), |(half_open, firm), (_, _, word)| {
            (half_open + usize::from(word.is(HALF_OPEN)), firm + usize::from(word.is(FIRM)))
        })
    }

    /// Fastrange: the high end of the hash, scaled to the number of buckets.
    #[inline(always)]
    fn index(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline(always)]
    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        self.buckets.get(self.index(hash))
    }

    /// Is the word's seat still good?
    #[inline(always)]
    fn is_live(&self, word: Word) -> bool {
        let retired = self.retired.get(usize::from(word.owner().0));
        retired.is_some_and(|n| n.load(Ordering::Acquire) as u8 == word.epoch())
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({} buckets, {} workers)", self.buckets.len(), self.retired.len())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(test)]
#[cfg(loom)]
mod models;
