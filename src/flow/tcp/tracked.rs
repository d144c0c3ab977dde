//! What is remembered of both sides of a connection, in 24 bytes.

use super::Segment;
use crate::wire::tcp::SYN;

/// Sequence numbers, windows and marks of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    pub(super) originator: Half,
    pub(super) responder: Half,
}

/// One side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Half {
    /// The number behind the last that it has sent.
    pub(super) end: u32,
    /// The number behind the last that the other side has acknowledged. Before that: the first that it may acknowledge.
    pub(super) acked: u32,
    /// The largest window that it offered, before scaling.
    pub(super) window: u16,
    /// From the lowest bit: scale (4), marks (5), its part of the remembered number (7).
    pub(super) bits: u16,
}

/// It has sent something.
pub(super) const SEEN: u16 = 1 << 4;
/// The other side has acknowledged something of it, its SYN at least.
pub(super) const ACKED: u16 = 1 << 5;
/// It has sent a FIN; `end` is the number behind that.
pub(super) const FINISHED: u16 = 1 << 6;
/// It has sent a RST that was believed.
pub(super) const RESET: u16 = 1 << 7;
/// The remembered number is one of its own.
const REMEMBERED: u16 = 1 << 8;
const NUMBER_SHIFT: u32 = 9;
const NUMBER: u16 = 0x7f << NUMBER_SHIFT;

const SCALE: u16 = 0xf;
/// Nobody knows its scale, nor all that it has sent. In `SynSent`, of the originator: it offered none.
const UNKNOWN: u16 = 15;
/// What is at most between two numbers of one connection, where nothing better is known.
const HALF_SPACE: i32 = 1 << 30;
/// The least room for what is old: without it a small window would make strays of what was sent twice.
const NEAR: i32 = 0xffff;

/// How far `a` is ahead of `b`.
#[inline(always)]
pub(super) fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// The later of two numbers.
#[inline(always)]
pub(super) fn later(a: u32, b: u32) -> u32 {
    if ahead(b, a) > 0 { b } else { a }
}

/// Is `first <= number <= last`?
pub(super) fn between(first: u32, number: u32, last: u32) -> bool {
    ahead(number, first) >= 0 && ahead(number, last) <= 0
}

/// Bounds 1 and 2 of the module's list.
#[inline(always)]
pub(super) fn sequence_fits(sender: &Half, receiver: &Half, sequence: u32, end: u32) -> bool {
    // A window of zero is probed with one byte (RFC 9293 section 3.8.6.1).
    ahead(end, sender.acked) <= receiver.span().max(1) && ahead(sender.end, sequence) <= receiver.reach()
}

/// Bounds 3 and 4.
#[inline(always)]
pub(super) fn ack_fits(sender: &Half, receiver: &Half, acknowledgment: u32) -> bool {
    ahead(acknowledgment, receiver.end) <= 0 && ahead(receiver.acked, acknowledgment) <= sender.reach()
}

/// Bounds 3 and 4, of what a side has sent that was not followed from its first number on, or that nobody saw it send.
pub(super) fn ack_fits_loosely(sender: &Half, receiver: &Half, acknowledgment: u32) -> bool {
    let bound = if receiver.is_loose() || !receiver.has(SEEN) { HALF_SPACE } else { 0 };
    ahead(acknowledgment, receiver.end) <= bound && ahead(receiver.acked, acknowledgment) <= sender.reach()
}

impl Half {
    /// A side that has sent nothing yet of which only this is known: what the other side expects of it.
    fn expected(next: u32) -> Half {
        Half { end: next, acked: next, window: u16::MAX, bits: UNKNOWN }
    }

    /// A side's SYN or SYN|ACK. Its window is not scaled.
    fn synchronized(segment: &Segment) -> Half {
        let scale = segment.scale.map_or(UNKNOWN, u16::from);
        Half { end: segment.end(), acked: segment.first(), window: segment.window, bits: SEEN | scale }
    }

    /// A side's SYN|ACK alone: it offers a scale only if the SYN did (RFC 7323 section 2.2).
    pub(super) fn answering(segment: &Segment) -> Half {
        let mut half = Half::synchronized(segment);
        half.scale_by(segment.scale.unwrap_or(0).into());
        half
    }

    /// The largest window that it offered, in bytes; nearly 2^31 if that is not known.
    #[inline(always)]
    pub(super) fn span(&self) -> i32 {
        i32::from(self.window) << (self.bits & SCALE)
    }

    /// How old a number may be that its window has to do with. What was sent a round trip ago may arrive with what is sent now:
    /// two windows.
    #[inline(always)]
    fn reach(&self) -> i32 {
        self.span().saturating_add(self.span()) | NEAR
    }

    #[inline(always)]
    pub(super) fn has(&self, mark: u16) -> bool {
        self.bits & mark != 0
    }

    pub(super) fn set(&mut self, mark: u16) {
        self.bits |= mark;
    }

    pub(super) fn clear(&mut self, mark: u16) {
        self.bits &= !mark;
    }

    pub(super) fn is_loose(&self) -> bool {
        self.bits & SCALE == UNKNOWN
    }

    /// From here on its scale is unknown, and what it sends.
    pub(super) fn loosen(&mut self) {
        self.bits |= UNKNOWN;
        self.window = u16::MAX;
    }

    /// Its SYN is the one that was seen, or not much older than what was acknowledged last.
    pub(super) fn explains(&self, first: u32) -> bool {
        (0..=NEAR).contains(&ahead(self.acked, first))
    }

    /// Its FIN was seen, and acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.has(FINISHED) && self.acked == self.end
    }

    /// What a SYN that is sent again may add: data, or the option that another copy left out.
    pub(super) fn repeat(&mut self, segment: &Segment) {
        self.end = later(self.end, segment.end());
        self.window = self.window.max(segment.window);
        if let Some(scale) = segment.scale {
            self.bits = self.bits & !SCALE | u16::from(scale);
        }
    }

    /// What a segment of its offers. The window of a SYN is plain (RFC 7323 section 2.2).
    pub(super) fn widen(&mut self, segment: &Segment) {
        let shift = if segment.flags & SYN == 0 { 0 } else { self.bits & SCALE };
        self.window = self.window.max((u32::from(segment.window).div_ceil(1 << shift)) as u16);
    }

    /// The window of a SYN is plain; from now on its side's windows are scaled.
    fn scale_by(&mut self, scale: u16) {
        self.window = self.window.div_ceil(1 << scale);
        self.bits = self.bits & !SCALE | scale;
    }
}

impl Tracked {
    /// After a SYN.
    #[inline]
    pub(super) fn opened(segment: &Segment) -> Tracked {
        Tracked { originator: Half::synchronized(segment), responder: Half::expected(0) }
    }

    /// After the SYN of a side that takes no notice of what was before, while older numbers may still be answered.
    pub(super) fn reopened(segment: &Segment, older: u32) -> Tracked {
        let mut tracked = Tracked::opened(segment);
        tracked.remember(false, older);
        tracked
    }

    /// After a SYN|ACK whose SYN was not seen, or is no longer known.
    pub(super) fn answered(segment: &Segment) -> Tracked {
        let sender = Half::answering(segment);
        let mut receiver = Half::expected(segment.acknowledgment);
        receiver.set(ACKED);
        if segment.scale.is_none() {
            receiver.scale_by(0);
        }
        Tracked::arranged(segment.reply, sender, receiver)
    }

    /// After a segment from the middle.
    pub(super) fn picked_up(segment: &Segment) -> Tracked {
        let sender = Half { end: segment.end(), bits: SEEN | UNKNOWN, ..Half::expected(segment.sequence) };
        let receiver = Half { bits: ACKED | UNKNOWN, ..Half::expected(segment.acknowledgment) };
        Tracked::arranged(segment.reply, sender, receiver)
    }

    fn arranged(reply: bool, sender: Half, receiver: Half) -> Tracked {
        let (originator, responder) = if reply { (receiver, sender) } else { (sender, receiver) };
        Tracked { originator, responder }
    }

    /// The second side's SYN or SYN|ACK: scales count if both have offered one (RFC 7323 section 2.2).
    pub(super) fn synchronize(&mut self, segment: &Segment) {
        let (second, first) = self.sides(segment.reply);
        *second = Half::synchronized(segment);
        let both = !first.is_loose() && !second.is_loose();
        for half in [first, second] {
            half.scale_by(if both { half.bits & SCALE } else { 0 });
        }
    }

    /// Sender and receiver of a segment.
    #[inline(always)]
    pub(super) fn sides(&mut self, reply: bool) -> (&mut Half, &mut Half) {
        if reply {
            (&mut self.responder, &mut self.originator)
        } else {
            (&mut self.originator, &mut self.responder)
        }
    }

    /// Remembers one number of a side, by 14 bits. It takes the place of the one before.
    pub(super) fn remember(&mut self, reply: bool, number: u32) {
        let [low, high] = fold(number);
        self.originator.bits = self.originator.bits & !(NUMBER | REMEMBERED) | low;
        self.responder.bits = self.responder.bits & !(NUMBER | REMEMBERED) | high;
        self.sides(reply).0.set(REMEMBERED);
    }

    /// Nothing is remembered.
    pub(super) fn forget(&mut self) {
        self.originator.clear(REMEMBERED);
        self.responder.clear(REMEMBERED);
    }

    /// Is this the remembered number of that side?
    pub(super) fn remembers(&mut self, reply: bool, number: u32) -> bool {
        let [low, high] = fold(number);
        let (low, high) = (low ^ self.originator.bits, high ^ self.responder.bits);
        self.sides(reply).0.has(REMEMBERED) && (low | high) & NUMBER == 0
    }

    /// The next number that the receiver of a direction expects, as far as it has shown: what a RST made in place of the sender
    /// must carry to be believed, and what one made in place of the receiver acknowledges.
    #[inline]
    pub fn expected(&self, reply: bool) -> u32 {
        if reply { self.responder.acked } else { self.originator.acked }
    }

    /// The same connection, opened by the other side. What was remembered of a stray SYN is forgotten.
    pub fn turned(mut self) -> Tracked {
        self.forget();
        Tracked { originator: self.responder, responder: self.originator }
    }

    /// All of it, as it is kept in a table.
    #[inline(always)]
    pub fn pack(&self) -> [u64; 3] {
        let numbers = |half: &Half| u64::from(half.end) | u64::from(half.acked) << 32;
        let rest = |half: &Half| u64::from(half.window) | u64::from(half.bits) << 16;
        let (a, b) = (&self.originator, &self.responder);
        [numbers(a), numbers(b), rest(a) | rest(b) << 32]
    }

    /// The way back from [`Tracked::pack`].
    #[inline(always)]
    pub fn unpack([a, b, rest]: [u64; 3]) -> Tracked {
        let half = |numbers: u64, rest: u64| Half {
            end: numbers as u32,
            acked: (numbers >> 32) as u32,
            window: rest as u16,
            bits: (rest >> 16) as u16,
        };
        Tracked { originator: half(a, rest), responder: half(b, rest >> 32) }
    }
}

/// 14 bits of a number, as each side keeps half of them.
fn fold(number: u32) -> [u16; 2] {
    let bits = number ^ number >> 14 ^ number >> 28;
    [(bits & 0x7f) as u16, (bits >> 7 & 0x7f) as u16].map(|part| part << NUMBER_SHIFT)
}
