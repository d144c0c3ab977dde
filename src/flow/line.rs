//! What is known of one flow: two cache lines that one worker writes and everybody may read.
//!
//! Word by word, each an atomic that the owner loads and stores relaxed (plain moves on every machine that matters):
//!
//! | word | first line: who, where to, until when | second line: how much |
//! |---|---|---|
//! | 0 | scope | packets of the originator; above them what the flow speaks |
//! | 1 | lower end, protocol, family | its bytes |
//! | 2 | higher end | packets of the responder; above them what it spoke before |
//! | 3 | envelope of the originator: cookie, node | its bytes |
//! | 4 | envelope of the responder | TCP: both directions' sequence numbers |
//! | 5 | outer ports of both, version | TCP |
//! | 6 | last seen, settled stages, state, flags | TCP |
//! | 7 | created, reason of a drop, tenant | neighbours on a list |
//!
//! Numbers of packets have 56 bits, so that to count one more costs what it did, and a protocol's number 8.
//!
//! Both lines lie side by side: one bound to check, one page to find. IPv6 addresses are in an array of their own. An established packet
//! over IPv4 touches both lines and nothing else.
//!
//! **Readers.** The owner never waits. Before an entry changes hands (opened, closed) its version becomes odd, afterwards even
//! again and two further; a release fence keeps the writes in between behind the first, a release store before the last. A reader takes the version
//! (acquire), copies, puts an acquire fence and looks at the version again: unchanged and even, all words belong to one flow.
//! Between those two moments a flow's words move one by one (a packet may be counted before its bytes are): each is exact, no
//! set of them is. Whatever else is written to the word with the version must be written by [`keeping`]: a relaxed store there would
//! show a reader the version without what it stands for. `models.rs` checks exactly this.

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use super::{Envelope, Key};
use crate::packet::{ReasonId, Spoken};

/// The flow in an entry becomes another, or none. `write` returns the upper half of the word that has the version.
#[inline(always)]
fn change(word: &AtomicU64, write: impl FnOnce() -> u32) {
    let was = word.load(Ordering::Relaxed);
    let version = was as u32;
    word.store(was >> 32 << 32 | u64::from(version.wrapping_add(1)), Ordering::Relaxed);
    fence(Ordering::Release);
    let upper = write();
    word.store(u64::from(upper) << 32 | u64::from(version.wrapping_add(2)), Ordering::Release);
}

/// The upper half of that word changes, and the flow stays.
#[inline(always)]
fn keeping(word: &AtomicU64, upper: impl FnOnce(u32) -> u32) {
    let was = word.load(Ordering::Relaxed);
    let upper = upper((was >> 32) as u32);
    word.store(u64::from(upper) << 32 | was & 0xffff_ffff, Ordering::Release);
}

/// A copy of words that belong to one version, and that version; `None` if it changed meanwhile.
fn unchanged<T>(word: &AtomicU64, copy: impl FnOnce() -> T) -> Option<(u32, T)> {
    let before = word.load(Ordering::Acquire) as u32;
    if before & 1 != 0 {
        return None;
    }
    let copy = copy();
    fence(Ordering::Acquire);
    (word.load(Ordering::Relaxed) as u32 == before).then_some((before, copy))
}

/// Eight words on a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line([AtomicU64; 8]);

#[allow(clippy::indexing_slicing, reason = "words have numbers below eight, which the compiler sees")]
impl Line {
    fn zero() -> Self {
        Line(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    #[allow(clippy::indexing_slicing, reason = "a constant below 8; the compiler sees it, the lint does not")]
    #[inline(always)]
    fn get<const WORD: usize>(&self) -> u64 {
        self.0[WORD].load(Ordering::Relaxed)
    }

    #[allow(clippy::indexing_slicing, reason = "likewise")]
    #[inline(always)]
    fn set<const WORD: usize>(&self, value: u64) {
        self.0[WORD].store(value, Ordering::Relaxed);
    }

    /// A word whose number depends on the direction: `word` for the originator, `word + step` for the responder. All are below
    /// eight; the mask spares the check.
    #[inline(always)]
    fn of(&self, word: usize, step: usize, reply: bool) -> &AtomicU64 {
        &self.0[(word + step * usize::from(reply)) & 7]
    }
}

/// Both lines of a flow.
#[derive(Debug)]
#[repr(C, align(128))]
struct Pair {
    head: Line,
    tail: Line,
}

/// The addresses of an IPv6 flow.
#[derive(Debug)]
#[repr(align(32))]
pub(super) struct Wide([AtomicU64; 4]);

/// All entries of a worker. The worker writes, anybody reads.
#[derive(Debug)]
pub(super) struct Lines {
    pairs: Box<[Pair]>,
    wide: Box<[Wide]>,
    /// Entries below this have been used.
    reach: AtomicU32,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    head: &'a Line,
    tail: &'a Line,
    /// Where its addresses are, for those who need them.
    lines: &'a Lines,
    number: u32,
}

/// Bytes of an entry in these arrays.
pub(super) const ENTRY_BYTES: usize = 64 + 64 + 32;

/// Words that change with every packet, read together: last seen in milliseconds, settled stages, state, flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(u64);

impl Life {
    pub const FROM_HIGH: u8 = 1;
    pub const PICKED_UP: u8 = 2;
    /// The directory does not know it.
    pub const UNCLAIMED: u8 = 4;
    /// A stage drops all its packets.
    pub const CONDEMNED: u8 = 8;
    /// And its ends are told.
    pub const REJECTED: u8 = 16;
    /// Some of its packets come to other workers.
    pub const MISALIGNED: u8 = 32;
    /// A stage has sent it home past those behind: which one, is in [`Birth::condemned`].
    pub const FORWARDED: u8 = 64;
    /// Its mask is that of the pipeline in force, or of the one before (`refit.rs`): which of both says [`Flows`](super::Flows).
    pub const GENERATION: u8 = 128;

    #[inline(always)]
    pub fn new(seen: u32, state: u8, flags: u8) -> Self {
        Life(u64::from(seen) | u64::from(state) << 48 | u64::from(flags) << 56)
    }

    #[inline(always)]
    pub fn seen(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub fn settled(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        (self.0 >> 48) as u8
    }

    #[inline(always)]
    pub fn flags(self) -> u8 {
        (self.0 >> 56) as u8
    }

    #[inline(always)]
    pub fn has(self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    /// Its state and generation, as a number that no state has if its packets are dropped.
    #[inline(always)]
    pub fn course(self) -> u16 {
        (self.0 >> 48) as u16 & (0xff | ((Self::CONDEMNED | Self::GENERATION) as u16) << 8)
    }

    /// Does a packet travel against the originator, which the higher end has sent (1) or has not (0)?
    #[inline(always)]
    pub fn is_reply(self, from_high: u8) -> bool {
        (self.flags() ^ from_high) & Self::FROM_HIGH != 0
    }

    #[inline(always)]
    pub fn at(self, seen: u32) -> Self {
        Life(self.0 >> 32 << 32 | u64::from(seen))
    }

    #[inline(always)]
    pub fn in_state(self, state: u8) -> Self {
        Life(self.0 & !(0xff << 48) | u64::from(state) << 48)
    }

    #[inline(always)]
    pub fn with(self, flag: u8) -> Self {
        Life(self.0 | u64::from(flag) << 56)
    }

    pub fn without(self, flag: u8) -> Self {
        Life(self.0 & !(u64::from(flag) << 56))
    }

    #[inline(always)]
    pub fn turned(self) -> Self {
        Life(self.0 ^ u64::from(Self::FROM_HIGH) << 56)
    }

    #[inline(always)]
    pub fn settle(self, stages: u16) -> Self {
        Life(self.0 | u64::from(stages) << 32)
    }

    /// No stage is done with it.
    pub fn unsettled(self) -> Self {
        Life(self.0 & !(0xffff << 32))
    }
}

/// When it was opened, why it is dropped (or goes home), whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    /// Milliseconds.
    pub created: u32,
    /// Of a condemned flow: the reason's id, plus 1. Of one that was sent home: the number of the stage that did, plus 1; 0 if track did.
    pub condemned: u16,
    pub tenant: u16,
}

impl Birth {
    /// Why a flow with this life is dropped, if it is.
    pub fn reason(self, life: Life) -> Option<ReasonId> {
        let id = self.condemned.checked_sub(1).filter(|_| life.has(Life::CONDEMNED));
        id.map(ReasonId)
    }
}

/// Cookie and node in one word.
#[inline(always)]
fn word_of(envelope: &Envelope) -> u64 {
    u64::from(envelope.cookie) << 32 | u64::from(u32::from_ne_bytes(envelope.node))
}

/// What a packet's envelope was to those before it in its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    Same,
    /// None was known.
    First,
    Another,
}

/// Bits of a number of packets, and where a protocol's begins.
const APP: u32 = 56;
const PACKETS: u64 = (1 << APP) - 1;

/// Neighbours on a list, by entry number.
pub(super) const NOBODY: u32 = u32::MAX;

impl Lines {
    pub fn new(entries: usize) -> Self {
        Lines {
            pairs: crate::dpdk::huge(entries, || Pair { head: Line::zero(), tail: Line::zero() }),
            wide: crate::dpdk::huge(entries, || Wide(std::array::from_fn(|_| AtomicU64::new(0)))),
            reach: AtomicU32::new(0),
        }
    }

    /// Entries below this have been used; readers look no further.
    #[inline(always)]
    pub fn reach(&self) -> u32 {
        self.reach.load(Ordering::Relaxed)
    }

    /// One more is in use.
    pub fn reach_to(&self, reach: u32) {
        self.reach.store(reach, Ordering::Relaxed);
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    #[inline(always)]
    pub fn get(&self, entry: u32) -> Option<Entry<'_>> {
        self.entries().get(entry)
    }

    /// For a loop that looks at many: where they are is read once.
    #[inline(always)]
    pub fn entries(&self) -> Entries<'_> {
        Entries { pairs: &self.pairs, lines: self }
    }
}

/// The entries, for a loop that looks at many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries<'a> {
    pairs: &'a [Pair],
    lines: &'a Lines,
}

impl<'a> Entries<'a> {
    #[inline(always)]
    pub fn get(self, entry: u32) -> Option<Entry<'a>> {
        let Pair { head, tail } = self.pairs.get(entry as usize)?;
        Some(Entry { head, tail, lines: self.lines, number: entry })
    }

    /// Asks the cache for the first line of an entry.
    #[inline(always)]
    pub fn prefetch_head(self, entry: u32) {
        crate::dpdk::prefetch_nth::<1, _>(self.pairs, entry as usize);
    }

    /// Asks the cache for both lines of an entry.
    #[inline(always)]
    pub fn prefetch(self, entry: u32) {
        crate::dpdk::prefetch_nth::<2, _>(self.pairs, entry as usize);
    }
}

impl Entry<'_> {
    /// Its number.
    #[inline(always)]
    pub fn number(self) -> u32 {
        self.number
    }

    /// Is it this flow?
    #[inline(always)]
    pub fn is(self, key: &Key) -> bool {
        self.has_words(key.words) && (!key.is_ipv6() || self.addresses() == key.addresses)
    }

    /// Are the words of its key these?
    #[inline(always)]
    pub fn has_words(self, [scope, low, high]: [u64; 3]) -> bool {
        self.head.get::<0>() ^ scope | self.head.get::<1>() ^ low | self.head.get::<2>() ^ high == 0
    }

    #[inline(always)]
    pub fn key(self) -> [u64; 3] {
        [self.head.get::<0>(), self.head.get::<1>(), self.head.get::<2>()]
    }

    #[inline(always)]
    pub fn addresses(self) -> [u64; 4] {
        let Some(Wide(words)) = self.lines.wide.get(self.number as usize) else { return [0; 4] };
        words.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// Does it hold a flow?
    #[inline(always)]
    pub fn is_used(self) -> bool {
        self.head.get::<1>() != 0
    }

    /// Even: at rest. Another number for each flow that the entry holds.
    #[inline(always)]
    pub fn version(self) -> u32 {
        self.head.get::<5>() as u32
    }

    /// The entry becomes this flow's.
    pub fn open(self, key: &Key, life: Life, birth: Birth) {
        let [scope, low, high] = key.words;
        change(&self.head.0[5], || {
            self.head.set::<0>(scope);
            self.head.set::<1>(low);
            self.head.set::<2>(high);
            self.head.set::<3>(0);
            self.head.set::<4>(0);
            self.set_life(life);
            self.set_birth(birth);
            self.tail.set::<0>(0);
            self.tail.set::<1>(0);
            self.tail.set::<2>(0);
            self.tail.set::<3>(0);
            self.set_tcp([0; 3]);
            if let Some(wide) = self.lines.wide.get(self.number as usize).filter(|_| key.is_ipv6()) {
                for (word, value) in wide.0.iter().zip(key.addresses) {
                    word.store(value, Ordering::Relaxed);
                }
            }
            0
        });
    }

    /// The entry is nobody's again.
    pub fn close(self) {
        change(&self.head.0[5], || {
            self.head.set::<1>(0);
            0
        });
    }

    #[inline(always)]
    pub fn life(self) -> Life {
        Life(self.head.get::<6>())
    }

    #[inline(always)]
    pub fn set_life(self, life: Life) {
        self.head.set::<6>(life.0);
    }

    #[inline(always)]
    pub fn birth(self) -> Birth {
        let word = self.head.get::<7>();
        Birth { created: word as u32, condemned: (word >> 32) as u16, tenant: (word >> 48) as u16 }
    }

    #[inline(always)]
    pub fn tenant(self) -> u16 {
        (self.head.get::<7>() >> 48) as u16
    }

    pub fn set_birth(self, birth: Birth) {
        let word =
            u64::from(birth.created) | u64::from(birth.condemned) << 32 | u64::from(birth.tenant) << 48;
        self.head.set::<7>(word);
    }

    /// Remembers the envelope of a direction (0: of the originator's packets).
    #[inline(always)]
    pub fn refresh(self, reply: bool, outer: Envelope) -> Refresh {
        let differs = word_of(&outer) != self.head.of(3, 1, reply).load(Ordering::Relaxed)
            || self.port(reply) != outer.port;
        if differs { self.remember(reply, outer) } else { Refresh::Same }
    }

    /// Does the packet come in the envelope of this direction?
    #[inline(always)]
    pub fn is_from(self, reply: bool, meta: &crate::packet::Meta) -> bool {
        let outer = Envelope::of(meta);
        word_of(&outer) == self.head.of(3, 1, reply).load(Ordering::Relaxed) && self.port(reply) == outer.port
    }

    #[inline(always)]
    fn port(self, reply: bool) -> u16 {
        (self.head.get::<5>() >> if reply { 48 } else { 32 }) as u16
    }

    #[cold]
    #[inline(never)]
    fn remember(self, reply: bool, outer: Envelope) -> Refresh {
        let known = self.outer(reply).is_some();
        let shift = if reply { 16 } else { 0 };
        keeping(&self.head.0[5], |ports| ports & !(0xffff << shift) | u32::from(outer.port) << shift);
        if reply {
            self.head.set::<4>(word_of(&outer));
        } else {
            self.head.set::<3>(word_of(&outer));
        }
        if known { Refresh::Another } else { Refresh::First }
    }

    /// Nothing is known of a direction's envelope any more.
    pub fn forget(self, reply: bool) {
        self.remember(reply, Envelope::default());
    }

    /// The newest envelope of a direction, if one was seen.
    pub fn outer(self, reply: bool) -> Option<Envelope> {
        let word = if reply { self.head.get::<4>() } else { self.head.get::<3>() };
        let port = (self.head.get::<5>() >> if reply { 48 } else { 32 }) as u16;
        let outer = Envelope { node: (word as u32).to_ne_bytes(), port, cookie: (word >> 32) as u32 };
        (outer != Envelope::default()).then_some(outer)
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn count(self, reply: bool, bytes: u64) {
        for (word, n) in [(0, 1), (1, bytes)] {
            let count = self.tail.of(word, 2, reply);
            count.store(count.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Packets and bytes of the originator, then of the responder.
    pub fn counts(self) -> [(u64, u64); 2] {
        let packets = |word: u64| word & PACKETS;
        [
            (packets(self.tail.get::<0>()), self.tail.get::<1>()),
            (packets(self.tail.get::<2>()), self.tail.get::<3>()),
        ]
    }

    /// What the flow speaks.
    #[inline(always)]
    pub fn spoken(self) -> Spoken {
        let number = |word: u64| (word >> APP) as u8;
        Spoken { app: number(self.tail.get::<0>()), before: number(self.tail.get::<2>()) }
    }

    pub fn set_spoken(self, spoken: Spoken) {
        let [(packets, _), (packets_back, _)] = self.counts();
        self.tail.set::<0>(packets | u64::from(spoken.app) << APP);
        self.tail.set::<2>(packets_back | u64::from(spoken.before) << APP);
    }

    /// Originator and responder change places: counters and envelopes follow.
    pub fn turn(self) {
        let ([(packets_o, bytes_o), (packets_r, bytes_r)], spoken) = (self.counts(), self.spoken());
        self.tail.set::<0>(packets_r);
        self.tail.set::<1>(bytes_r);
        self.tail.set::<2>(packets_o);
        self.tail.set::<3>(bytes_o);
        self.set_spoken(spoken);
        let (a, b) = (self.head.get::<3>(), self.head.get::<4>());
        self.head.set::<3>(b);
        self.head.set::<4>(a);
        keeping(&self.head.0[5], |ports| ports.rotate_left(16));
        self.set_life(self.life().turned());
    }

    #[inline(always)]
    pub fn tcp(self) -> [u64; 3] {
        [self.tail.get::<4>(), self.tail.get::<5>(), self.tail.get::<6>()]
    }

    #[inline(always)]
    pub fn set_tcp(self, words: [u64; 3]) {
        self.tail.set::<4>(words[0]);
        self.tail.set::<5>(words[1]);
        self.tail.set::<6>(words[2]);
    }

    /// The entries in front of it and behind it on a list.
    pub fn links(self) -> (u32, u32) {
        let word = self.tail.get::<7>();
        (word as u32, (word >> 32) as u32)
    }

    pub fn set_links(self, (before, after): (u32, u32)) {
        self.tail.set::<7>(u64::from(before) | u64::from(after) << 32);
    }

    /// All words of the flow in it, if it holds one. For any thread.
    pub fn read(self) -> Result<Option<Record>, Torn> {
        let copy = || Record {
            version: 0,
            key: Key::of_entry(self),
            life: self.life(),
            birth: self.birth(),
            outer: [self.outer(false), self.outer(true)],
            spoken: self.spoken(),
            counts: self.counts(),
        };
        let (version, record) = unchanged(&self.head.0[5], copy).ok_or(Torn)?;
        Ok(record.key.is_used().then_some(Record { version, ..record }))
    }
}

/// The entry changed hands while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// A flow at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub version: u32,
    pub key: Key,
    pub life: Life,
    pub birth: Birth,
    pub outer: [Option<Envelope>; 2],
    pub spoken: Spoken,
    pub counts: [(u64, u64); 2],
}

#[cfg(loom)]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
