//! One direction of a connection: which number comes next, what has come already, and what is given on because of it.

use super::slab::{List, Loan, Part, Slab, ahead};
use super::{End, Terms};

/// Its numbers are known.
const BEGUN: u8 = 1;
/// It was begun without its SYN: there may have been bytes before.
const MIDDLE: u8 = 1 << 1;
/// `fin` is the number of its FIN.
const FINISHED: u8 = 1 << 2;
/// Its FIN was given on.
const ENDED: u8 = 1 << 3;
/// Nobody gets more of it.
const DONE: u8 = 1 << 4;
/// What waited was given up: the next segment goes on wherever it is.
const GAVE_UP: u8 = 1 << 5;
/// A hole in it was acknowledged, at `hole`.
const HOLE: u8 = 1 << 6;

/// An acknowledgment that is this far ahead of the one before is of another connection.
const FAR: i32 = 1 << 24;

/// A direction: one for each of a worker's flows, twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Half {
    /// The next number that nobody has got.
    next: u32,
    /// The other side has acknowledged what is before.
    acked: u32,
    /// Bytes given on, holes included.
    given: u32,
    fin: u32,
    /// Milliseconds.
    hole: u32,
    pub list: List,
    marks: u8,
    /// Segments of the connection since then.
    since_hole: u8,
}

/// A segment, as far as streams are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Sequence number, of the SYN if it has one.
    pub sequence: u32,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// What it acknowledges, if anything.
    pub acknowledgment: Option<u32>,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What a segment was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// It differs from bytes that were seen before.
    pub conflict: bool,
    /// Nothing of it was taken, because of that.
    pub refused: bool,
    /// Bytes of it could not be stored: no block for them, or too far ahead. Or they were read before, their receiver may still take them, and there
    /// is nothing left to compare them with.
    pub unread: bool,
    /// Bytes of it were read, and no copy of them is kept to be compared with what may be sent again.
    pub uncompared: bool,
    /// It set a gap free, in either direction.
    pub gap: bool,
    /// All of it is old.
    pub old: bool,
    /// It waits for others.
    pub waits: bool,
}

/// What is given on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Bytes of the segment at hand.
    Segment { from: u16, len: u16 },
    /// Bytes of the slab.
    Stored(Part),
    /// Bytes that nobody has seen.
    Gap { len: u32 },
    /// It is over.
    End(End),
}

/// Where it goes, in bounded number.
pub(super) trait Out {
    fn has_room(&self) -> bool;
    fn push(&mut self, what: What, offset: u32, whole: bool);
}

impl Half {
    /// Nobody gets more of it.
    pub fn is_over(&self) -> bool {
        self.marks & (DONE | ENDED) != 0
    }

    /// And nothing of it has to be compared any more: its receiver has what was given on.
    pub fn is_past(&self, terms: &Terms) -> bool {
        self.is_over() && !(terms.compare && ahead(self.acked, self.next) < 0)
    }

    /// Bytes that have passed, given on or not.
    pub fn passed(&self) -> u32 {
        self.given
    }

    pub fn is_begun(&self) -> bool {
        self.marks & BEGUN != 0
    }

    fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn begin(&mut self, slab: &mut Slab, next: u32, mark: u8) {
        slab.clear(&mut self.list);
        *self = Half { next, acked: next, marks: BEGUN | mark, ..Half::default() };
    }

    /// An acknowledgment that began it may have overtaken what its sender said before. (A single byte is more likely to ask whether anybody is
    /// still there: RFC 9293 section 3.8.4.)
    fn begin_before(&mut self, at: u32, terms: &Terms) {
        let before = ahead(self.next, at);
        if before > 0 && before.unsigned_abs() <= terms.reach && !self.has(DONE) {
            self.acked = if self.acked == self.next { at } else { self.acked };
            self.next = at;
        }
    }

    /// A segment of this direction.
    pub fn take(
        &mut self,
        slab: &mut Slab,
        segment: &Segment<'_>,
        terms: &Terms,
        loan: &Loan,
        out: &mut impl Out,
    ) -> Taken {
        let mut taken = Taken::default();
        let (mut at, payload) = (segment.sequence, segment.payload);
        if segment.syn {
            at = at.wrapping_add(1);
            // A SYN with another number counts as long as nothing else of this direction does.
            if !self.is_begun() || (self.given == 0 && self.next != at && !self.has(DONE)) {
                self.begin(slab, at, 0);
            }
        } else if !self.is_begun() {
            self.begin(slab, at, MIDDLE);
        } else if self.has(MIDDLE) && self.given == 0 && payload.len() > 1 {
            self.begin_before(at, terms);
        }
        if self.has(DONE) {
            self.given = self.given.saturating_add(payload.len() as u32);
            // What was read before counts until its receiver has it.
            return if ahead(at, self.next) < 0 { self.again(slab, at, payload, terms) } else { taken };
        }
        let end = at.wrapping_add(payload.len() as u32);
        if !payload.is_empty() {
            // What comes behind its FIN shows that the FIN was not its end.
            if self.has(FINISHED) && ahead(end, self.fin) > 0 {
                self.marks &= !(FINISHED | ENDED);
            }
            taken = self.payload(slab, at, payload, terms, loan, out);
            if taken.refused {
                return taken;
            }
        }
        if segment.fin && !self.has(FINISHED) {
            self.fin = end;
            self.marks |= FINISHED;
        }
        self.go_on(slab, terms, loan.now, out);
        taken
    }

    /// What is asked of numbers that were seen before: are they as they were? Of those that stages have read and their receiver has not
    /// acknowledged there has to be a copy, or nobody can say what it will get.
    #[inline(always)]
    fn again(&self, slab: &Slab, at: u32, payload: &[u8], terms: &Terms) -> Taken {
        let mut taken = Taken::default();
        if !self.list.ends_before(at) && slab.differs(&self.list, at, payload) {
            taken.conflict = true;
            taken.refused = terms.refuse_conflicts;
        }
        if ahead(at, self.next) < 0 && terms.compare && !taken.refused {
            let end = at.wrapping_add(payload.len() as u32);
            let to = if ahead(end, self.next) > 0 { self.next } else { end };
            let from = if ahead(self.acked, at) > 0 { self.acked } else { at };
            let len = ahead(to, from);
            taken.unread = len > 0 && !slab.all(&self.list, from, len.unsigned_abs() as usize);
        }
        taken
    }

    fn payload(
        &mut self,
        slab: &mut Slab,
        mut at: u32,
        mut payload: &[u8],
        terms: &Terms,
        loan: &Loan,
        out: &mut impl Out,
    ) -> Taken {
        let mut taken = self.again(slab, at, payload, terms);
        if taken.refused {
            return taken;
        }
        let end = at.wrapping_add(payload.len() as u32);
        if ahead(end, self.next) <= 0 {
            taken.old = true;
            return taken;
        }
        if self.has(GAVE_UP) {
            self.marks &= !GAVE_UP;
            if ahead(at, self.next) > 0 && out.has_room() {
                self.skip_to(at, out);
            }
        }
        let renew = terms.last_wins.then_some(self.next);
        let depth = terms.depth.saturating_sub(self.given) as usize;
        if ahead(at, self.next) > 0 {
            let distance = ahead(at, self.next).unsigned_abs() as usize;
            // Nobody needs what lies behind the depth.
            payload = payload.get(..depth.saturating_sub(distance).min(payload.len())).unwrap_or(&[]);
            let near = (terms.reach as usize).saturating_sub(distance).min(payload.len());
            let part = payload.get(..near).unwrap_or(&[]);
            let stored = part.is_empty() || slab.put(&mut self.list, at, part, renew, loan);
            taken.unread |= !stored || near < payload.len();
            taken.waits = true;
            return taken;
        }
        let old = ahead(self.next, at).unsigned_abs() as usize;
        (at, payload) = (self.next, payload.get(old..).unwrap_or(&[]));
        payload = payload.get(..depth.min(payload.len())).unwrap_or(&[]);
        if payload.is_empty() {
            return taken;
        }
        // Where it meets bytes that wait, both go through the slab, which knows who wins.
        let through = !self.list.ends_before(at)
            && slab.any(&self.list, at, payload.len())
            && slab.put(&mut self.list, at, payload, renew, loan);
        if !through && out.has_room() {
            if terms.compare {
                let kept = slab.has_plenty() && slab.put(&mut self.list, at, payload, renew, loan);
                taken.uncompared = !kept;
            }
            let (from, len) = (old as u16, payload.len() as u16);
            self.give(What::Segment { from, len }, payload.len() as u32, out);
        }
        taken
    }

    fn give(&mut self, what: What, len: u32, out: &mut impl Out) {
        out.push(what, self.given, !self.has(MIDDLE));
        self.next = self.next.wrapping_add(len);
        self.given = self.given.saturating_add(len);
        self.marks &= !HOLE;
    }

    fn skip_to(&mut self, to: u32, out: &mut impl Out) {
        let len = to.wrapping_sub(self.next);
        self.give(What::Gap { len }, len, out);
    }

    /// The other side acknowledges.
    pub fn acknowledge(&mut self, number: u32) {
        if self.is_begun() && (1..=FAR).contains(&ahead(number, self.acked)) {
            self.acked = number;
        }
    }

    /// The SYN|ACK says which SYN counts.
    pub fn acknowledge_syn(&mut self, slab: &mut Slab, number: u32) {
        if self.given == 0 && self.next != number && !self.has(DONE) {
            self.begin(slab, number, 0);
        }
    }

    /// Gives on what can be: bytes that wait and whose turn it is, a hole that will not be filled, the end.
    pub fn go_on(&mut self, slab: &Slab, terms: &Terms, now: u32, out: &mut impl Out) {
        while out.has_room() && !self.is_over() {
            if self.given >= terms.depth {
                self.marks |= DONE;
                out.push(What::End(End::Depth), self.given, !self.has(MIDDLE));
                break;
            }
            let waits = !self.list.ends_before(self.next);
            if waits && let Some(mut part) = slab.run(&self.list, self.next) {
                let depth = terms.depth - self.given;
                part.len = part.len.min(depth.min(u32::from(u16::MAX)) as u16);
                self.give(What::Stored(part), part.len.into(), out);
                continue;
            }
            if self.has(FINISHED) && self.next == self.fin {
                self.marks |= ENDED;
                out.push(What::End(End::Finished), self.given, !self.has(MIDDLE));
                break;
            }
            let fin = self.has(FINISHED).then_some(self.fin);
            let first = if waits { slab.first(&self.list, self.next) } else { None };
            let Some(beyond) = first.or(fin) else { break };
            // Only what its receiver says it has, and its sender has gone beyond, will never come; and not at once: the acknowledgment may
            // have overtaken it on its way to us.
            if ahead(beyond, self.next) <= 0 || ahead(self.acked, beyond) < 0 {
                break;
            }
            if !self.has(HOLE) {
                (self.hole, self.marks, self.since_hole) = (now, self.marks | HOLE, 0);
            }
            self.since_hole = self.since_hole.saturating_add(1);
            if now.wrapping_sub(self.hole) < terms.patience || self.since_hole <= terms.gap_segments {
                break;
            }
            self.skip_to(beyond, out);
        }
    }

    /// It was reset.
    pub fn reset(&mut self, out: &mut impl Out) {
        if self.is_begun() && !self.is_over() && out.has_room() {
            out.push(What::End(End::Reset), self.given, !self.has(MIDDLE));
            self.marks |= DONE;
            self.acked = self.next; // nobody takes anything any more
        }
    }

    /// Gives back what nobody needs any more: what was given on and is not kept to be compared.
    pub fn trim(&mut self, slab: &mut Slab, terms: &Terms) {
        if self.list.is_empty() {
            return;
        }
        let kept = terms.compare && ahead(self.acked, self.next) < 0;
        // Behind a FIN there may wait what shows that it was none.
        if self.is_over() && !kept && (self.has(DONE) || self.list.ends_before(self.next)) {
            slab.clear(&mut self.list);
            return;
        }
        slab.trim(&mut self.list, if kept { self.acked } else { self.next });
    }

    /// Gives back all of it: it has waited for too long. True if bytes are lost by that.
    pub fn give_up(&mut self, slab: &mut Slab) -> bool {
        let lost = slab.first(&self.list, self.next).is_some();
        slab.clear(&mut self.list);
        self.marks |= if lost { GAVE_UP } else { 0 };
        lost
    }
}
