//! What a gateway remembers of flows: whose a flow is, under which cookie, and what Ethernet header its packets had in either direction.
//!
//! The index of [`crate::flow`] finds a flow's number; what is remembered lies under it, one cache line each. A flow ends when nothing came from a
//! leg for too long:
//!
//! | flow | after |
//! |---|---|
//! | no target has given back any of its packets | 30 s, as with AWS |
//! | TCP that is over: a FIN each way, or a RST | 30 s |
//! | TCP | `flow.tcp_idle` |
//! | other | `flow.other_idle` |
//!
//! A sweep of bounded steps takes them out; whoever looks a flow up does not wait for that. When the table is full, flows of which only one
//! direction was seen make room, oldest first as far as a short search sees. Established ones stay.

use std::sync::Arc;

use super::legs::{Header, LegId};
use super::targets::TargetId;
use crate::dpdk::prefetch_nth;
use crate::flow::{FlowCounters, Index, Key, Seed, Spot};
use crate::wire::tcp;

/// How long a flow is remembered that no target has answered for, and one that is over, in milliseconds.
const UNANSWERED: u32 = 30_000;
const OVER: u32 = 30_000;
/// The whole table is swept in so many steps of a millisecond each.
const ROUND: u32 = 4096;
/// Entries looked at in one step, at most.
const MOST_STEPS: u32 = 256;
/// A search for room looks at so many entries at most, and takes the oldest of so many that could go.
const SEARCH: u32 = 64;
const CANDIDATES: u32 = 8;

/// After how long flows are forgotten, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// TCP.
    pub tcp: u32,
    /// Everything else.
    pub other: u32,
}

/// Facts of a flow that are yes or no.
mod flag {
    /// The higher end of the key opened it.
    pub const FROM_HIGH: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 2;
    /// A target has given back a packet.
    pub const ANSWERED: u8 = 4;
    /// A FIN came back of the lower end; of the higher, the bit above.
    pub const FIN: u8 = 8;
    pub const BOTH_FINS: u8 = 24;
    /// A RST came back.
    pub const RESET: u8 = 32;
}

/// What is remembered of one flow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    /// When a leg last had a packet of it, in milliseconds.
    seen: u32,
    /// Its cookie.
    pub cookie: u32,
    /// Whose it is.
    pub target: u16,
    /// Outer source port.
    pub source_port: u16,
    /// Number of its endpoint.
    pub endpoint: u16,
    flags: u8,
    /// By which leg packets of the lower and of the higher end came in: 1 or 2, and 0 where none came yet.
    sides: [u8; 2],
    /// And under which header.
    headers: [Header; 2],
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    #[inline(always)]
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Does a packet of this end travel against the one that opened the flow?
    #[inline(always)]
    pub fn is_reply(&self, from_high: bool) -> bool {
        self.has(flag::FROM_HIGH) != from_high
    }

    /// Is it a connection that is over?
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.has(flag::RESET) || self.flags & flag::BOTH_FINS == flag::BOTH_FINS
    }

    /// How long it may be idle.
    #[inline(always)]
    fn limit(&self, idle: Idle) -> u32 {
        let longest = if self.has(flag::TCP) { idle.tcp } else { idle.other };
        if !self.has(flag::ANSWERED) {
            longest.min(UNANSWERED)
        } else if self.is_over() {
            longest.min(OVER)
        } else {
            longest
        }
    }

    #[inline(always)]
    fn is_expired(&self, now: u32, idle: Idle) -> bool {
        now.wrapping_sub(self.seen) > self.limit(idle)
    }

    /// A leg has a packet of it.
    #[inline(always)]
    pub fn note(&mut self, now: u32, from_high: bool, side: u8, header: Header, is_tcp: bool) {
        self.seen = now;
        self.flags |= if is_tcp { flag::TCP } else { 0 };
        self.note_related(from_high, side, header);
    }

    /// A leg has an ICMP error about it, which keeps it no longer. Whoever sent that need not be who sends the flow's packets, but it leaves as it came in;
    /// the next packet of the flow says again how those do.
    #[inline(always)]
    pub fn note_related(&mut self, from_high: bool, side: u8, header: Header) {
        let end = usize::from(from_high);
        if let (Some(place), Some(known)) = (self.sides.get_mut(end), self.headers.get_mut(end)) {
            *place = side + 1;
            *known = header;
        }
    }

    /// A target gives back a packet with these TCP flags (0 where they mean nothing).
    #[inline(always)]
    pub fn answered(&mut self, from_high: bool, tcp_flags: u8) {
        let mut flags = self.flags | flag::ANSWERED;
        if tcp_flags & (tcp::FIN | tcp::RST) != 0 {
            flags |= if tcp_flags & tcp::RST != 0 { flag::RESET } else { flag::FIN << u8::from(from_high) };
        }
        self.flags = flags;
    }

    /// By which leg a packet of this end leaves, and under which header: that of the last that came in, by the other leg; if none came in yet, the one
    /// of the other end turned around, where that came in.
    #[inline(always)]
    pub fn way_out(&self, from_high: bool) -> (LegId, Header) {
        let [low, high] = self.sides;
        let [low_header, high_header] = self.headers;
        let (own, other) = if from_high {
            ((high, high_header), (low, low_header))
        } else {
            ((low, low_header), (high, high_header))
        };
        match own {
            (0, _) => (LegId::new(self.endpoint, other.0.wrapping_sub(1)), other.1.turned()),
            (side, header) => (LegId::new(self.endpoint, side.wrapping_sub(1) ^ 1), header),
        }
    }
}

/// Who opens a flow.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub target: TargetId,
    pub source_port: u16,
    pub endpoint: u16,
    pub from_high: bool,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing came for too long, or it was over.
    Idle,
    /// It made room.
    Evicted,
    /// Its tuple was taken into use again.
    Renewed,
}

/// The flows of one worker.
#[derive(Debug)]
pub struct Flows {
    index: Index,
    slots: Box<[Slot]>,
    idle: Idle,
    /// Next to be swept, and when that was last done.
    hand: u32,
    swept: u32,
    /// Cookies are words of a keyed hash over a count: nobody can tell the next from those before.
    secret: Seed,
    issued: u64,
    counters: Arc<FlowCounters>,
}

impl Flows {
    /// Room for so many flows. Allocates, and never again.
    pub fn new(entries: usize, idle: Idle, seed: Seed, secret: Seed, counters: Arc<FlowCounters>) -> Self {
        Flows {
            index: Index::new(entries, seed),
            slots: crate::dpdk::huge(entries, Slot::default),
            idle,
            hand: 0,
            swept: 0,
            secret,
            issued: 0,
            counters,
        }
    }

    /// Pass 1.
    #[inline(always)]
    pub(super) fn ask(&self, key: &Key) -> (u64, Spot) {
        let hash = self.index.hash(key);
        (hash, self.index.ask(hash))
    }

    /// Pass 2: the flow that it probably is, asked for.
    #[inline(always)]
    pub(super) fn guess(&self, spot: Spot) -> Option<u32> {
        let guess = self.index.guess(spot)?;
        prefetch_nth::<1, _>(&self.slots, guess as usize);
        Some(guess)
    }

    /// Pass 3: the flow, whether it has expired or not.
    #[inline(always)]
    pub fn find(&self, guess: Option<u32>, hash: u64, key: &Key) -> Option<u32> {
        self.index.settle(guess, hash, key)
    }

    /// What is remembered under a number.
    #[inline(always)]
    pub fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)
    }

    /// Has nothing come for too long?
    #[inline(always)]
    pub fn is_expired(&self, number: u32, now: u32) -> bool {
        self.slots.get(number as usize).is_none_or(|slot| slot.is_expired(now, self.idle))
    }

    /// A flow that is not there begins. `None` if there is no room, and nobody makes any.
    pub fn open(&mut self, hash: u64, key: &Key, opening: Opening, now: u32) -> Option<u32> {
        let number = self.index.insert(hash, key).or_else(|| {
            let found = self.make_room(now).then(|| self.index.insert(hash, key)).flatten();
            if found.is_none() {
                self.counters.refused_full.add(1);
            }
            found
        })?;
        let was = self.slots.get(number as usize).map_or(0, |slot| slot.cookie);
        let cookie = self.cookie(was);
        let Opening { target, source_port, endpoint, from_high } = opening;
        let flags = if from_high { flag::FROM_HIGH } else { 0 };
        let slot = self.slots.get_mut(number as usize)?;
        *slot = Slot { seen: now, cookie, target: target.0, source_port, endpoint, flags, ..Slot::default() };
        self.counters.opened.add(1);
        Some(number)
    }

    /// A flow is another target's from now on, under another cookie.
    pub fn give(&mut self, number: u32, target: TargetId) {
        let was = self.slots.get(number as usize).map_or(0, |slot| slot.cookie);
        let cookie = self.cookie(was);
        if let Some(slot) = self.slots.get_mut(number as usize) {
            (slot.target, slot.cookie) = (target.0, cookie);
            slot.flags &= !flag::ANSWERED;
        }
    }

    /// A cookie that is not this one, in the bits that all profiles send.
    fn cookie(&mut self, not: u32) -> u32 {
        loop {
            self.issued = self.issued.wrapping_add(1);
            let cookie = self.secret.words([self.issued, 0, 1]) as u32;
            if (cookie ^ not) << 3 != 0 {
                return cookie;
            }
        }
    }

    /// A flow is forgotten.
    pub fn end(&mut self, number: u32, how: End) {
        if !self.index.remove(number) {
            return;
        }
        let slot = self.slots.get(number as usize).copied().unwrap_or_default();
        let counter = match how {
            End::Renewed => &self.counters.incarnations,
            End::Evicted => &self.counters.ended_evicted,
            End::Idle if slot.has(flag::RESET) => &self.counters.ended_reset,
            End::Idle if slot.is_over() => &self.counters.ended_closed,
            End::Idle => &self.counters.ended_idle,
        };
        counter.add(1);
    }

    /// Forgets some of those whose time is over: a bounded number, and all within a few seconds.
    pub fn sweep(&mut self, now: u32) {
        let passed = now.wrapping_sub(self.swept);
        if passed == 0 {
            return;
        }
        self.swept = now;
        let steps = (self.index.reach() / ROUND + 1).saturating_mul(passed).min(MOST_STEPS);
        for _ in 0..steps {
            let number = self.step();
            if self.index.is_used(number) && self.is_expired(number, now) {
                self.end(number, End::Idle);
            }
        }
    }

    #[inline(always)]
    fn step(&mut self) -> u32 {
        let number = self.hand;
        self.hand = if number + 1 < self.index.reach() { number + 1 } else { 0 };
        number
    }

    /// Forgets one that has expired, is over, or was seen in one direction only, if it finds one.
    #[cold]
    fn make_room(&mut self, now: u32) -> bool {
        let mut oldest: Option<(u32, u32)> = None;
        let mut candidates = 0;
        for _ in 0..SEARCH {
            if candidates == CANDIDATES {
                break;
            }
            let number = self.step();
            let Some(slot) = self.slots.get(number as usize) else { continue };
            if !self.index.is_used(number) {
                continue;
            }
            if slot.is_expired(now, self.idle) {
                self.end(number, End::Idle);
                return true;
            }
            let age = now.wrapping_sub(slot.seen);
            let [low, high] = slot.sides;
            if slot.is_over() || low == 0 || high == 0 {
                candidates += 1;
                if oldest.is_none_or(|(_, other)| age > other) {
                    oldest = Some((number, age));
                }
            }
        }
        if let Some((number, _)) = oldest {
            self.end(number, End::Evicted);
        }
        oldest.is_some()
    }
}

#[cfg(test)]
mod tests;
