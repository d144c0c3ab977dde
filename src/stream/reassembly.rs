//! One worker's streams: the two directions of each flow, the slab they share, and the pieces that a batch's segments set free.
//!
//! The batch's segments are taken one after the other ([`Reassembly::take`]); then stages read, slot by slot, the pieces that each set free
//! ([`Reassembly::pieces`]); then [`Reassembly::finish`] takes back what was read.

use super::half::{Half, Out, What};
use super::slab::{Limits, Loan, Owner, Slab};
use super::{End, Piece, PieceKind, Segment, Spot, StreamCounters, Taken, Terms};

/// Pieces that one segment may set free; more come with the next one of its flow.
const PIECES: usize = 8;
/// Blocks looked at for their age in one poll, at most.
const MOST_SWEPT: u32 = 64;

/// Bytes that streams take for each flow of a worker, beside the slab.
pub const FLOW_BYTES: u64 = size_of::<Place>() as u64;

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    incarnation: u32,
    tenant: u16,
    halves: [Half; 2],
}

#[derive(Clone, Copy, Debug)]
struct Item {
    what: What,
    spot: Spot,
}

/// The pieces of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    first: u16,
    len: u16,
    unread: bool,
}

/// Whose segment it is.
#[derive(Clone, Copy, Debug)]
pub struct Of {
    /// The flow's entry in its worker's table.
    pub entry: u32,
    /// Which of the flows that the entry has had.
    pub incarnation: u32,
    /// The tenant.
    pub tenant: u16,
    /// It travels against the packet that opened the flow.
    pub reply: bool,
}

/// Streams of one worker.
#[derive(Debug)]
pub struct Reassembly {
    terms: Terms,
    slab: Slab,
    places: Box<[Place]>,
    items: Vec<Item>,
    spans: Box<[Span]>,
    touched: Vec<u32>,
    /// When blocks were last looked at for their age, and what is owed, in blocks times milliseconds.
    swept: u32,
    owed: u64,
}

/// What is made at the start.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Flows of the worker.
    pub flows: usize,
    /// Bytes of the slab.
    pub slab: u64,
    /// Of these, bytes that one flow may have.
    pub flow: u64,
    /// And one tenant.
    pub tenant: u64,
    /// Tenants.
    pub tenants: usize,
    /// Slots of a batch.
    pub slots: usize,
}

struct Pieces<'a> {
    items: &'a mut Vec<Item>,
    room: usize,
    reply: bool,
}

impl Out for Pieces<'_> {
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.room > 0 && self.items.len() < self.items.capacity()
    }

    fn push(&mut self, what: What, offset: u32, from_syn: bool) {
        if self.has_room() {
            self.room -= 1;
            self.items.push(Item { what, spot: Spot { reply: self.reply, offset, from_syn } });
        }
    }
}

impl Reassembly {
    /// Everything it will ever need.
    pub fn new(terms: Terms, sizes: &Sizes) -> Self {
        let blocks = |bytes: u64| (bytes / super::BLOCK_BYTES as u64).clamp(1, u32::MAX as u64 / 2) as u32;
        let limits = Limits { flow: blocks(sizes.flow), tenant: blocks(sizes.tenant) };
        Reassembly {
            terms,
            slab: Slab::new(blocks(sizes.slab) as usize, sizes.tenants, limits),
            places: vec![Place::default(); sizes.flows].into(),
            items: Vec::with_capacity(sizes.slots * PIECES),
            spans: vec![Span::default(); sizes.slots].into(),
            touched: Vec::with_capacity(sizes.slots),
            swept: 0,
            owed: 0,
        }
    }

    /// From now on so many bytes of each direction are given on. A direction that has ended stays so.
    pub fn show(&mut self, depth: u32) {
        self.terms.depth = depth;
    }

    /// Blocks on loan, and all there are.
    pub fn blocks(&self) -> (u32, u32) {
        (self.slab.used(), self.slab.capacity())
    }

    /// A batch begins.
    pub fn begin(&mut self) {
        self.items.clear();
        self.touched.clear();
        self.spans.fill(Span::default());
    }

    /// Takes the segment in a slot. `now` in milliseconds.
    pub fn take(
        &mut self,
        slot: usize,
        of: Of,
        segment: &Segment<'_>,
        now: u32,
        counters: &StreamCounters,
    ) -> Taken {
        let Some(place) = self.places.get_mut(of.entry as usize) else { return Taken::default() };
        if place.incarnation != of.incarnation {
            place.halves.iter_mut().for_each(|half| self.slab.clear(&mut half.list));
            *place = Place { incarnation: of.incarnation, tenant: of.tenant, ..Place::default() };
        }
        let first = self.items.len();
        let out = &mut Pieces { items: &mut self.items, room: PIECES, reply: of.reply };
        let [forth, back] = &mut place.halves;
        let (own, other) = if of.reply { (back, forth) } else { (forth, back) };
        let owner = Owner { place: of.entry, reply: of.reply, tenant: place.tenant };
        let loan = Loan { owner, elsewhere: other.list.len.into(), now };
        let mut taken = own.take(&mut self.slab, segment, &self.terms, &loan, out);
        if let Some(number) = segment.acknowledgment
            && !taken.refused
        {
            if segment.syn {
                other.acknowledge_syn(&mut self.slab, number);
            }
            other.acknowledge(number);
            out.reply = !of.reply;
            other.go_on(&self.slab, &self.terms, now, out);
        }
        taken.gap = self.count(first, &taken, counters);
        if self.touched.len() < self.touched.capacity() {
            self.touched.push(of.entry);
        }
        self.remember(slot, first);
        if taken.unread {
            self.cannot_read(slot);
        }
        taken
    }

    /// The flow was reset by the segment in a slot.
    pub fn reset(&mut self, slot: usize, of: Of) {
        let Some(place) = self.places.get_mut(of.entry as usize) else { return };
        if place.incarnation != of.incarnation {
            return;
        }
        let first = self.items.len();
        for (reply, half) in [false, true].into_iter().zip(&mut place.halves) {
            half.reset(&mut Pieces { items: &mut self.items, room: 1, reply });
        }
        if self.touched.len() < self.touched.capacity() {
            self.touched.push(of.entry);
        }
        self.remember(slot, first);
    }

    fn remember(&mut self, slot: usize, first: usize) {
        if let Some(span) = self.spans.get_mut(slot) {
            (span.first, span.len) = (first as u16, (self.items.len() - first) as u16);
        }
    }

    /// There is something in a slot that will not be read.
    pub fn cannot_read(&mut self, slot: usize) {
        if let Some(span) = self.spans.get_mut(slot) {
            span.unread = true;
        }
    }

    /// Is there something in a slot that will not be read?
    #[inline(always)]
    pub fn is_unread(&self, slot: usize) -> bool {
        self.spans.get(slot).is_some_and(|span| span.unread)
    }

    /// True if a gap was among what was set free.
    fn count(&self, first: usize, taken: &Taken, counters: &StreamCounters) -> bool {
        let mut gap = false;
        counters.segments.add(1);
        if *taken != Taken::default() {
            counters.out_of_order.add(taken.waits.into());
            counters.old.add(taken.old.into());
            counters.conflicts.add(taken.conflict.into());
            counters.unread.add(taken.unread.into());
            counters.uncompared.add(taken.uncompared.into());
        }
        for item in self.items.get(first..).unwrap_or(&[]) {
            match item.what {
                What::Segment { len, .. } => counters.bytes.add(len.into()),
                What::Stored(part) => {
                    counters.bytes.add(part.len.into());
                    counters.copied_bytes.add(part.len.into());
                }
                What::Gap { len } => {
                    counters.gaps.add(1);
                    counters.gap_bytes.add(len.into());
                    gap = true;
                }
                What::End(End::Depth) => counters.depths.add(1),
                What::End(_) => {}
            }
        }
        gap
    }

    /// Did the segment in a slot set anything free?
    #[inline(always)]
    pub fn has_pieces(&self, slot: usize) -> bool {
        self.spans.get(slot).is_some_and(|span| span.len > 0)
    }

    /// Of which directions that was.
    pub fn directions(&self, slot: usize) -> [bool; 2] {
        let items = self.items(slot);
        [false, true].map(|reply| items.iter().any(|item| item.spot.reply == reply))
    }

    /// Did it set bytes of its own free?
    pub fn brings(&self, slot: usize) -> bool {
        self.items(slot).iter().any(|item| matches!(item.what, What::Segment { .. }))
    }

    fn items(&self, slot: usize) -> &[Item] {
        let Span { first, len, .. } = self.spans.get(slot).copied().unwrap_or_default();
        self.items.get(first.into()..usize::from(first) + usize::from(len)).unwrap_or(&[])
    }

    /// What the segment in a slot set free, in order; `payload` is the segment's.
    pub fn pieces<'a>(&'a self, slot: usize, payload: &'a [u8]) -> impl Iterator<Item = Piece<'a>> {
        self.items(slot).iter().map(move |item| {
            let what = match item.what {
                What::Segment { from, len } => {
                    let range = from.into()..usize::from(from) + usize::from(len);
                    PieceKind::Data(payload.get(range).unwrap_or(&[]))
                }
                What::Stored(part) => PieceKind::Data(self.slab.bytes(part)),
                What::Gap { len } => PieceKind::Gap(len),
                What::End(end) => PieceKind::End(end),
            };
            Piece { spot: item.spot, what }
        })
    }

    /// Nothing more can be read of a flow, nor compared: both directions are over, or one has run on far beyond its depth.
    pub fn is_over(&self, entry: u32) -> bool {
        self.places.get(entry as usize).is_some_and(|place| {
            let far = self.terms.depth.saturating_mul(4);
            let [forth, back] = &place.halves;
            (forth.is_past(&self.terms) && back.is_past(&self.terms))
                || forth.passed() >= far
                || back.passed() >= far
        })
    }

    /// All stages are done with a flow: what it has is given back.
    pub fn forget(&mut self, entry: u32) {
        if let Some(place) = self.places.get_mut(entry as usize) {
            place.halves.iter_mut().for_each(|half| self.slab.clear(&mut half.list));
            *place = Place::default();
        }
    }

    /// The batch was read.
    pub fn finish(&mut self) {
        for entry in &self.touched {
            if let Some(place) = self.places.get_mut(*entry as usize) {
                place.halves.iter_mut().for_each(|half| half.trim(&mut self.slab, &self.terms));
            }
        }
        self.touched.clear();
        self.items.clear();
        self.spans.fill(Span::default());
    }

    /// Takes back blocks that were lent for too long: a bounded piece of work, between batches.
    pub fn sweep(&mut self, now: u32, counters: &StreamCounters) {
        let passed = now.wrapping_sub(self.swept);
        if passed == 0 || self.slab.used() == 0 {
            self.swept = now;
            return;
        }
        self.swept = now;
        // Every block is looked at four times in the time that it may be lent.
        let lap = u64::from(self.terms.wait.max(4) / 4);
        let capacity = u64::from(self.slab.capacity());
        self.owed = (self.owed + u64::from(passed).min(lap) * capacity).min(lap * capacity);
        let work = (self.owed / lap).min(MOST_SWEPT.into());
        self.owed -= work * lap;
        let mut look_at = work as u32;
        while let Some(owner) = self.slab.overdue(now, self.terms.wait, &mut look_at) {
            let Some(place) = self.places.get_mut(owner.place as usize) else { continue };
            let [forth, back] = &mut place.halves;
            let half = if owner.reply { back } else { forth };
            if half.give_up(&mut self.slab) {
                counters.overdue.add(1);
            }
        }
    }
}
