//! Streams of a batch for the stages that read them, and the frames that wait for what these decide.
//!
//! In front of the first such stage every open TCP segment is taken into [`Reassembly`], unless all of them are done with its flow. Behind the
//! pipeline what was read is given back, and what a stage holds leaves the batch: turned around by encap already, so that it can go out, or go
//! to its pool, whenever the decision comes. A frame that may go leaves before the batch that brought the decision.
//!
//! Of each direction one frame waits at most, the first that brought undecided bytes: the receiver cannot read past what it lacks, so those behind it
//! may pass. What cannot be held (no room, or it was held for too long before) goes by the `on_unread` of the stages that wanted it.
//!
//! May drop: [`DropReason::StreamConflict`], [`DropReason::StreamUnread`], [`DropReason::HeldAgain`]; what waits goes for the reason for which
//! the stage dropped a later packet.

use super::settle::Settle;
use crate::config::{StreamPlan, Urgent};
use crate::dpdk::{BURST, Burst, Mbuf, TxQueue};
use crate::event::{About, Anomaly, AnomalyKind, Emitter};
use crate::packet::{Batch, DropReason, FlowSlot, InnerFlags, Mask, Meta, ReasonId};
use crate::path::counters::WorkerCounters;
use crate::path::tx;
use crate::stage::{MOST_STAGES, Make, PerFlow};
use crate::stream::{Of, Reassembly, Segment, Sizes, Terms};
use crate::wire::tcp::{self, Tcp};
use crate::wire::{checksum, transport};

/// Segments of a connection that come before a hole in it is a gap.
const GAP_SEGMENTS: u8 = 8;

/// What a plan says of streams.
#[derive(Clone, Debug)]
pub(in crate::path) struct Setup {
    pub plan: StreamPlan,
    pub tenants: usize,
    /// Stages that read streams, a bit each; those of them whose verdicts count; and those that drop what cannot be read.
    pub readers: u16,
    pub active: u16,
    pub closed: u16,
}

/// What is held of one flow, and for whom. Directions: of the originator, of the responder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    /// Stages that have not decided, a bit each.
    undecided: [u16; 2],
    /// Stages that are done with the flow.
    settled: u16,
    /// Place of the frame that waits, plus one.
    waits: [u16; 2],
    /// The reason for which its packets are dropped, plus one.
    doom: u16,
    /// It was held for too long: never again.
    spent: bool,
    /// Of the pipeline for whose stages the bits stand.
    generation: u16,
}

/// Bytes that holds take for each flow.
pub const HOLD_BYTES: u64 = PerFlow::<Hold>::BYTES;

#[derive(Debug)]
struct Waiting {
    frame: Mbuf,
    meta: Meta,
    lane: u8,
    until: u64,
    /// Numbers of its bytes.
    bytes: (u32, u32),
    /// Some stage that waits for it drops what it could not read.
    closed: bool,
}

/// What is held of each flow, under the pipeline in force.
#[derive(Debug)]
struct Holds {
    places: PerFlow<Hold>,
    /// Counts changes of the pipeline.
    generation: u16,
}

impl Holds {
    /// Of a packet's flow. Bits of an earlier pipeline say nothing any more: [`Streams::change`] has seen to what waits.
    #[inline(always)]
    fn of(&mut self, meta: &Meta) -> Option<&mut Hold> {
        let hold = self.places.of(meta)?;
        if hold.generation != self.generation {
            (hold.generation, hold.settled, hold.undecided) = (self.generation, 0, [0; 2]);
        }
        Some(hold)
    }

    fn left_by(&mut self, meta: &Meta) -> Option<&mut Hold> {
        self.places.left_by(meta)
    }
}

/// Where readers of streams go.
#[derive(Clone, Copy, Debug)]
pub(in crate::path) struct Moves {
    /// Those that read now, those of them whose verdicts count, and those that drop what cannot be read.
    pub readers: u16,
    pub active: u16,
    pub closed: u16,
    /// Bytes of each direction that they are shown.
    pub depth: u32,
    /// The bit of a stage that stays, by where it stood.
    pub to: [u16; MOST_STAGES],
    /// Flows from before are dropped.
    pub cut: bool,
}

impl Moves {
    fn of(&self, bits: u16) -> u16 {
        let moved = self.to.iter().enumerate().map(|(n, to)| if bits >> n & 1 != 0 { *to } else { 0 });
        moved.fold(0, |all, bit| all | bit)
    }
}

/// One worker's streams.
#[derive(Debug)]
pub(in crate::path) struct Streams {
    readers: u16,
    active: u16,
    closed: u16,
    urgent: Urgent,
    hold_time: u64,
    reassembly: Reassembly,
    holds: Holds,
    waiting: Box<[Option<Waiting>]>,
    free: Vec<u16>,
    /// Nothing is overdue before.
    due: u64,
    /// Frames that may go.
    out: Vec<(u8, Mbuf)>,
    /// Slots of the batch whose segments were taken, and those that stages want held.
    taken: Mask,
    wanted: Mask,
    /// Slots of which stages said something that their flows have to remember, and whether one of these ended its flow.
    noted: Mask,
    doomed: bool,
    /// No stage has wanted anything held so far: of no flow is anything undecided, so what is held of it need not be looked at.
    calm: bool,
}

impl Streams {
    pub fn new(setup: &Setup, make: &Make) -> Self {
        let plan = &setup.plan;
        let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let terms = Terms {
            depth: plan.depth,
            reach: plan.per_flow.max(1 << 16),
            patience: millis(plan.gap_time),
            gap_segments: GAP_SEGMENTS,
            wait: millis(plan.wait),
            last_wins: plan.overlap == crate::config::Overlap::Last,
            refuse_conflicts: plan.conflict == crate::config::Conflict::Drop,
            compare: plan.compare,
        };
        let sizes = Sizes {
            flows: make.flows,
            slab: plan.memory,
            flow: plan.per_flow.into(),
            tenant: plan.per_tenant(),
            tenants: setup.tenants,
            slots: BURST,
        };
        let frames = plan.hold.min(u32::from(u16::MAX) - 1) as u16;
        Streams {
            readers: setup.readers,
            active: setup.active,
            closed: setup.closed,
            urgent: plan.urgent,
            hold_time: plan.hold_time.as_nanos().try_into().unwrap_or(u64::MAX),
            reassembly: Reassembly::new(terms, &sizes),
            holds: Holds { places: PerFlow::new(make), generation: 0 },
            waiting: (0..frames).map(|_| None).collect(),
            free: (0..frames).rev().collect(),
            due: u64::MAX,
            out: Vec::with_capacity(2 * usize::from(frames)),
            taken: Mask::NONE,
            wanted: Mask::NONE,
            noted: Mask::NONE,
            doomed: false,
            calm: true,
        }
    }

    /// Other stages read streams now, or the same in other places. Frames that wait go on waiting for stages that stay; for those that do not they
    /// may go, or are dropped with their flows.
    pub fn change(&mut self, moves: &Moves, counters: &WorkerCounters) {
        (self.readers, self.active, self.closed) = (moves.readers, moves.active, moves.closed);
        self.reassembly.show(moves.depth);
        self.holds.generation = self.holds.generation.wrapping_add(1);
        for place in 0..self.waiting.len() {
            let Some(Some(waiting)) = self.waiting.get_mut(place) else { continue };
            let mut undecided = 0;
            let generation = self.holds.generation;
            if let Some(hold) = self.holds.places.left_by(&waiting.meta) {
                if hold.generation != generation {
                    hold.generation = generation;
                    hold.settled = moves.of(hold.settled);
                    hold.undecided = hold.undecided.map(|bits| moves.of(bits));
                }
                let direction = usize::from(waiting.meta.is_reply());
                undecided = hold.undecided.get(direction).copied().unwrap_or(0);
                if undecided == 0
                    && let Some(waits) = hold.waits.get_mut(direction)
                {
                    *waits = 0;
                }
            }
            waiting.closed = undecided & self.closed != 0;
            if undecided == 0
                && let Some(waiting) = self.waiting.get_mut(place).and_then(Option::take)
            {
                self.free.push(place as u16);
                let drop = moves.cut.then_some(ReasonId::from(DropReason::OnReload));
                self.leave(waiting, drop, counters);
            }
        }
    }

    /// Is the n-th stage the first that reads streams?
    #[inline(always)]
    pub fn begin_before(&self, n: usize) -> bool {
        self.readers.trailing_zeros() as usize == n
    }

    /// The batch's streams, if the n-th stage reads any.
    #[inline(always)]
    pub fn for_stage(&self, n: usize) -> Option<&Reassembly> {
        (self.readers >> n & 1 != 0).then_some(&self.reassembly)
    }

    /// Slots of the batch that stages want held.
    pub fn wanted(&self) -> Mask {
        self.wanted
    }

    /// A batch begins; it may end before any stage reads it.
    #[inline(always)]
    pub fn begin(&mut self) {
        (self.taken, self.wanted, self.noted, self.doomed) = (Mask::NONE, Mask::NONE, Mask::NONE, false);
    }

    /// Takes the open segments of the batch.
    #[inline(never)]
    pub fn take<F: Settle>(
        &mut self,
        batch: &mut Batch,
        flows: Option<&F>,
        now: u64,
        counters: &WorkerCounters,
        events: &mut Emitter,
    ) {
        self.reassembly.begin();
        for slot in batch.open() {
            let meta = batch.meta(slot);
            if meta.protocol != transport::TCP || meta.settled & self.readers == self.readers {
                continue;
            }
            if meta.tcp_flags & tcp::URG != 0 {
                self.urgent(slot, batch, counters);
            }
            if let Some(reason) = self.take_one(slot, batch, flows, now, counters, events) {
                batch.drop_slot(slot, reason);
            }
        }
    }

    /// A receiver may take one byte of what has an urgent pointer out of its stream (RFC 6093 section 3), so that it reads something else than
    /// stages do. Without the flag it takes all of it in its place.
    #[cold]
    fn urgent(&mut self, slot: usize, batch: &mut Batch, counters: &WorkerCounters) {
        counters.streams.urgent.add(1);
        let meta = batch.meta(slot);
        // Not for stages whose verdicts do not count.
        let matters = meta.settled & self.active != self.active;
        match self.urgent {
            Urgent::Inline if matters => {
                let at = usize::from(meta.transport.saturating_sub(meta.inner));
                if let Some(mut packet) = batch.packet(slot)
                    && let Some(plain) = packet.transport().first_chunk::<20>().map(without_urgent)
                {
                    packet.patch(at + 12, plain.get(12..).unwrap_or(&[]));
                }
            }
            Urgent::Unread => self.reassembly.cannot_read(slot),
            Urgent::Inline | Urgent::Pass => {}
        }
    }

    fn take_one<F: Settle>(
        &mut self,
        slot: usize,
        batch: &Batch,
        flows: Option<&F>,
        now: u64,
        counters: &WorkerCounters,
        events: &mut Emitter,
    ) -> Option<DropReason> {
        let meta = batch.meta(slot);
        let pieces = InnerFlags::FIRST_FRAGMENT | InnerFlags::LATER_FRAGMENT;
        let entry = meta.flow.entry().filter(|_| meta.flags.0 & pieces == 0);
        let tcp = Tcp::new_checked(batch.view(slot).transport()).ok();
        let (Some(entry), Some(tcp)) = (entry, tcp) else {
            counters.streams.unreadable.add(1);
            self.reassembly.cannot_read(slot);
            return None;
        };
        let (flags, payload) = (tcp.flags(), tcp.payload());
        let segment = Segment {
            sequence: tcp.sequence(),
            syn: flags & tcp::SYN != 0,
            fin: flags & tcp::FIN != 0,
            acknowledgment: (flags & tcp::ACK != 0).then(|| tcp.acknowledgment()),
            payload,
        };
        let of = Of { entry, incarnation: meta.incarnation, tenant: meta.tenant, reply: meta.is_reply() };
        if flags & tcp::RST != 0 {
            if flows.is_some_and(|flows| flows.is_reset(meta)) {
                self.reassembly.reset(slot, of);
                self.taken.insert(slot);
            }
            return None;
        }
        if !payload.is_empty() && self.is_held(meta, segment.sequence, payload.len()) {
            return Some(DropReason::HeldAgain);
        }
        let taken = self.reassembly.take(slot, of, &segment, (now / 1_000_000) as u32, &counters.streams);
        self.taken.insert(slot);
        // Only for a stage whose verdict counts, and that is still reading.
        let refused = taken.refused && meta.settled & self.active != self.active;
        if taken.conflict && !refused {
            // What is refused is told with the drops.
            let event = DropReason::StreamConflict.label();
            let about = || About::packet(meta, batch.inner(slot), counters.worker);
            let anomaly = Anomaly { kind: AnomalyKind::Stream, event, reason: None, skipped: 0 };
            events.emit(now, about, anomaly.into());
        }
        if taken.gap {
            let about = || About::packet(meta, batch.inner(slot), counters.worker);
            let anomaly =
                Anomaly { kind: AnomalyKind::Stream, event: "stream_gap", reason: None, skipped: 0 };
            events.emit(now, about, anomaly.into());
        }
        refused.then_some(DropReason::StreamConflict)
    }

    /// Does it share a number with the frame that waits?
    fn is_held(&mut self, meta: &Meta, sequence: u32, len: usize) -> bool {
        if self.free.len() == self.waiting.len() {
            // nothing waits
            return false;
        }
        let Some(hold) = self.holds.of(meta) else { return false };
        let place = hold.waits.get(usize::from(meta.is_reply())).copied().unwrap_or(0);
        let waiting = place.checked_sub(1).and_then(|place| self.waiting.get(usize::from(place))?.as_ref());
        waiting.is_some_and(|waiting| {
            let (first, end) = waiting.bytes;
            let before = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
            before(sequence, end) && before(first, sequence.wrapping_add(len as u32))
        })
    }

    /// The n-th stage has seen `shown`: what it said of streams.
    #[inline(never)]
    pub fn decided(&mut self, batch: &mut Batch, n: usize, shown: Mask, settling: Mask) {
        let holding = batch.take_holding();
        let bit = 1u16 << n;
        let mut slots = shown & self.taken;
        self.calm &= (slots & holding).is_empty();
        if self.calm && !self.doomed {
            slots = slots & (settling | shown.without(batch.live()));
        }
        self.noted = self.noted | slots;
        for slot in slots {
            let meta = *batch.meta(slot);
            let Some(hold) = self.holds.of(&meta) else { continue };
            if hold.doom != 0 {
                // An earlier packet of the batch has ended it.
                if batch.live().has(slot) {
                    batch.drop_slot(slot, ReasonId(hold.doom - 1));
                }
                continue;
            }
            if !batch.live().has(slot) {
                // Without `settle` it says something of this packet alone, and of what waits for it.
                let ends = settling.has(slot) || hold.undecided != [0; 2];
                hold.doom = if ends { batch.reason(slot).0 + 1 } else { 0 };
                hold.undecided = [0; 2];
                self.doomed |= ends;
            } else if settling.has(slot) {
                hold.settled |= if batch.open().has(slot) { bit } else { self.readers };
                hold.undecided.iter_mut().for_each(|undecided| *undecided &= !bit);
            } else if self.reassembly.has_pieces(slot) {
                for (undecided, asked) in hold.undecided.iter_mut().zip(self.reassembly.directions(slot)) {
                    *undecided &= if asked { !bit } else { u16::MAX };
                }
                if holding.has(slot)
                    && self.reassembly.brings(slot)
                    && let Some(undecided) = hold.undecided.get_mut(usize::from(meta.is_reply()))
                {
                    *undecided |= bit;
                    self.wanted.insert(slot);
                }
            }
        }
    }

    /// The pipeline is done with the batch: holds are made and ended, what nobody needs any more is given back.
    #[inline(never)]
    pub fn finish<F: Settle>(
        &mut self,
        batch: &mut Batch,
        mut flows: Option<&mut F>,
        counters: &WorkerCounters,
    ) {
        let mut doomed = Mask::NONE;
        for slot in self.taken {
            if self.calm
                && !self.noted.has(slot)
                && batch.meta(slot).flow.entry().is_some_and(|entry| !self.reassembly.is_over(entry))
            {
                continue; // nothing was said of it, and it goes on
            }
            let meta = *batch.meta(slot);
            let (Some(entry), Some(hold)) = (meta.flow.entry(), self.holds.of(&meta)) else { continue };
            let mut hold = *hold;
            if hold.doom != 0 {
                let reason = ReasonId(hold.doom - 1);
                if self.wanted.has(slot) && batch.live().has(slot) {
                    batch.drop_slot(slot, reason);
                }
                self.end(&mut hold, [true; 2], Some(reason), counters);
                hold.settled |= self.readers;
                doomed.insert(slot);
            } else {
                let over = self.reassembly.is_over(entry);
                if over && let Some(flows) = flows.as_deref_mut().filter(|flows| flows.holds(&meta)) {
                    flows.settle(meta.flow, self.readers);
                    (hold.settled, hold.undecided) = (hold.settled | self.readers, [0; 2]);
                }
                let decided = hold.undecided.map(|undecided| undecided == 0);
                self.end(&mut hold, decided, None, counters);
            }
            if (meta.settled | hold.settled) & self.readers == self.readers {
                self.reassembly.forget(entry);
            }
            if let Some(place) = self.holds.of(&meta) {
                *place = hold;
            }
        }
        for slot in doomed {
            if let Some(hold) = self.holds.of(batch.meta(slot)) {
                hold.doom = 0; // what follows meets the flow, which is condemned
            }
        }
        self.reassembly.finish();
        self.wanted = self.wanted & batch.live();
        if !self.wanted.is_empty() {
            self.refuse(batch, flows, counters);
        }
    }

    /// What wants to wait and cannot: no room, or it has waited long enough. What is left in `wanted` waits.
    fn refuse<F: Settle>(&mut self, batch: &mut Batch, mut flows: Option<&mut F>, counters: &WorkerCounters) {
        let mut room = self.free.len();
        let mut waits = Mask::NONE;
        let mut first: [Option<(FlowSlot, bool)>; BURST] = [None; BURST];
        for slot in self.wanted {
            let meta = *batch.meta(slot);
            let Some(hold) = self.holds.of(&meta) else { continue };
            let direction = usize::from(meta.is_reply());
            let undecided = hold.undecided.get(direction).copied().unwrap_or(0);
            let known = Some((meta.flow, meta.is_reply()));
            // Decided by now, or behind one that waits.
            let waits_already = hold.waits.get(direction).is_some_and(|place| *place != 0);
            if undecided == 0 || waits_already || first.contains(&known) {
                continue;
            }
            if room > 0 && !hold.spent {
                room -= 1;
                waits.insert(slot);
                if let Some(place) = first.get_mut(slot) {
                    *place = known;
                }
                continue;
            }
            counters.streams.held_refused.add(1);
            hold.undecided = [0; 2];
            if undecided & self.closed != 0 {
                batch.drop_slot(slot, DropReason::StreamUnread);
                if let Some(flows) = flows.as_deref_mut().filter(|flows| flows.holds(&meta)) {
                    flows.condemn(meta.flow, DropReason::StreamUnread.into(), false);
                }
            }
        }
        self.wanted = waits;
    }

    /// Behind encap: slots that are to wait leave the batch, and what has waited and may go by this lane goes before it.
    #[inline(never)]
    pub fn before_tx(
        &mut self,
        batch: &mut Batch,
        queue: &mut TxQueue,
        lane: u8,
        burst: &mut Burst,
        counters: &WorkerCounters,
    ) {
        batch.park(self.wanted & batch.live());
        if !self.out.is_empty() {
            self.take_out(Some(lane), burst, counters);
            tx::made(queue, burst, counters);
        }
    }

    /// The frame of a slot that is to wait.
    pub fn hold(
        &mut self,
        slot: usize,
        frame: Mbuf,
        batch: &Batch,
        (lane, now): (u8, u64),
        counters: &WorkerCounters,
    ) -> Result<(), Mbuf> {
        if !self.wanted.has(slot) {
            return Err(frame);
        }
        let meta = *batch.meta(slot);
        let direction = usize::from(meta.is_reply());
        let bytes = bytes_of(&frame, &meta);
        let Some(hold) = self.holds.of(&meta) else { return Err(frame) };
        let (Some(undecided), Some(waits)) =
            (hold.undecided.get(direction).copied(), hold.waits.get_mut(direction))
        else {
            return Err(frame);
        };
        let Some(place) = self.free.pop() else { return Err(frame) };
        let until = now.saturating_add(self.hold_time);
        let closed = undecided & self.closed != 0;
        if let Some(free) = self.waiting.get_mut(usize::from(place)) {
            *free = Some(Waiting { frame, meta, lane, until, bytes, closed });
        }
        *waits = place + 1;
        self.due = self.due.min(until);
        counters.streams.held.add(1);
        self.show(counters);
        Ok(())
    }

    /// Ends holds of these directions: the frames go, or are dropped for a reason.
    fn end(
        &mut self,
        hold: &mut Hold,
        directions: [bool; 2],
        drop: Option<ReasonId>,
        counters: &WorkerCounters,
    ) {
        for (waits, ends) in hold.waits.iter_mut().zip(directions) {
            if ends
                && let Some(place) = std::mem::take(waits).checked_sub(1)
                && let Some(waiting) = self.waiting.get_mut(usize::from(place)).and_then(Option::take)
            {
                self.free.push(place);
                self.leave(waiting, drop, counters);
            }
        }
    }

    fn leave(&mut self, waiting: Waiting, drop: Option<ReasonId>, counters: &WorkerCounters) {
        match drop {
            Some(reason) => counters.drop(reason, 1), // and freed
            None => self.out.push((waiting.lane, waiting.frame)),
        }
        self.show(counters);
    }

    fn show(&self, counters: &WorkerCounters) {
        let waiting = self.waiting.len() - self.free.len() + self.out.len();
        counters.held_for_stages.set(waiting as u64);
    }

    /// Frames that may go.
    #[inline(always)]
    pub fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Fills a burst with frames that may go by a lane; all of one lane if none is given. Says which.
    pub fn take_out(&mut self, lane: Option<u8>, burst: &mut Burst, counters: &WorkerCounters) -> Option<u8> {
        let lane = lane.or_else(|| self.out.first().map(|(lane, _)| *lane))?;
        let mut n = 0;
        while let Some((its, _)) = self.out.get(n) {
            if *its != lane || burst.room() == 0 {
                n += 1;
                continue;
            }
            let (_, frame) = self.out.remove(n); // in order; there are few
            let _ = burst.push(frame);
        }
        self.show(counters);
        Some(lane)
    }

    /// Between batches: holds that last too long end, blocks that were lent for too long are taken back. `last`: all holds.
    pub fn housekeeping<F: Settle>(
        &mut self,
        mut flows: Option<&mut F>,
        now: u64,
        last: bool,
        counters: &WorkerCounters,
    ) {
        self.reassembly.sweep((now / 1_000_000) as u32, &counters.streams);
        let (used, all) = self.reassembly.blocks();
        counters.stream_blocks.set(used.into());
        counters.stream_room.set(all.into());
        if now < self.due && !last {
            return;
        }
        self.due = u64::MAX;
        for place in 0..self.waiting.len() {
            let Some(slot) = self.waiting.get_mut(place) else { break };
            match slot {
                Some(waiting) if waiting.until > now && !last => self.due = self.due.min(waiting.until),
                Some(_) => {}
                None => continue,
            }
            let overdue = slot.take_if(|waiting| waiting.until <= now || last);
            let Some(waiting) = overdue else { continue };
            self.free.push(place as u16);
            counters.streams.held_overdue.add(1);
            let reason = waiting.closed.then_some(ReasonId::from(DropReason::StreamUnread));
            if let Some(hold) = self.holds.left_by(&waiting.meta) {
                hold.waits.iter_mut().filter(|p| **p == place as u16 + 1).for_each(|p| *p = 0);
                (hold.undecided, hold.spent) = ([0; 2], true);
            }
            let flows = flows.as_deref_mut().filter(|flows| flows.holds(&waiting.meta));
            if let (Some(flows), Some(reason)) = (flows, reason) {
                flows.condemn(waiting.meta.flow, reason, false);
            }
            self.leave(waiting, reason, counters);
        }
    }
}

/// The header with neither URG nor urgent pointer, and the checksum that it has then (RFC 1624).
fn without_urgent(header: &[u8; 20]) -> [u8; 20] {
    let mut plain = *header;
    (plain[13], plain[18], plain[19]) = (header[13] & !tcp::URG, 0, 0);
    let words = |header: &[u8; 20]| checksum::sum(&header[12..14]) + checksum::sum(&header[18..20]);
    let old = u16::from_be_bytes([header[16], header[17]]);
    let new = checksum::update(old, words(header), words(&plain)).to_be_bytes();
    (plain[16], plain[17]) = (new[0], new[1]);
    plain
}

/// Numbers of a segment's bytes.
fn bytes_of(frame: &Mbuf, meta: &Meta) -> (u32, u32) {
    let start = usize::from(meta.transport);
    let transport = frame.data().get(start..start + usize::from(meta.transport_len)).unwrap_or(&[]);
    let Ok(tcp) = Tcp::new_checked(transport) else { return (0, 0) };
    let syn = u32::from(tcp.flags() & tcp::SYN != 0);
    let first = tcp.sequence().wrapping_add(syn);
    (first, first.wrapping_add(tcp.payload().len() as u32))
}
