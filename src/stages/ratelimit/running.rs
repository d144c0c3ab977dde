//! The stage on one worker: each limit in turn looks at what is open, and takes what its packets cost out of buckets, a run of one bucket at a time.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{COUNTERS, Direction, Inner, Limit, NO_BUCKET, What};
use crate::dpdk::BURST;
use crate::event::{Alert, Type};
use crate::packet::{Batch, FlowFlags, FlowSlot, Mask, Meta, ReasonId, Verdict};
use crate::stage::{Cx, PerFlow, Stage};
use crate::stages::acl::counters::Counters;
use crate::stages::buckets::{Bucket, Place, Rate, Table};
use crate::stages::whom::{Per, goes_back};
use crate::wire::transport::TCP;

/// Words that are kept of each flow.
pub(super) const FLOW_WORDS: usize = 4;

/// Between two alerts of a limit.
const TELL_AGAIN: u64 = 1_000_000_000;

const SYN: u8 = 0x02;
/// FIN, SYN, RST, ACK.
const OPENING: u8 = 0x17;

/// The stage on one worker.
pub(super) struct Running {
    inner: Arc<Inner>,
    flows: Option<PerFlow<[u64; FLOW_WORDS]>>,
    counters: Arc<Counters>,
    /// When each limit may tell again.
    tell: Box<[u64]>,
}

impl Running {
    /// `counters` has [`COUNTERS`] for each limit.
    pub fn new(
        inner: Arc<Inner>,
        flows: Option<PerFlow<[u64; FLOW_WORDS]>>,
        counters: Arc<Counters>,
    ) -> Self {
        let tell = inner.limits.iter().map(|_| 0).collect();
        Running { inner, flows, counters, tell }
    }
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        let Running { inner, flows, counters, tell } = self;
        let now = inner.since.at(cx.now);
        if inner.settles {
            batch.open().into_iter().for_each(|slot| batch.settle(slot));
        }
        for (number, ((limit, table), tell)) in inner.limits.iter().zip(&inner.tables).zip(tell).enumerate() {
            let reason = cx.reason(limit.per as usize);
            let no_bucket = cx.reason(NO_BUCKET);
            let mut work = Work { limit, table, number, now, counters, reason, no_bucket, over: Mask::NONE };
            match (limit.per, flows.as_mut()) {
                (Per::Flow, Some(flows)) => work.each_flow(flows, batch),
                (Per::Flow, None) => {}
                _ => work.shared(batch),
            }
            if let Some(slot) =
                work.over.into_iter().next().filter(|_| *tell <= cx.now && cx.wants(Type::Alert))
            {
                *tell = cx.now + TELL_AGAIN;
                let alert = Alert { rule: number as u32, blocked: limit.police };
                cx.emit(batch.meta(slot), batch.inner(slot), alert);
            }
        }
    }
}

/// One limit at a batch.
struct Work<'a> {
    limit: &'a Limit,
    table: &'a Table,
    number: usize,
    now: u64,
    counters: &'a Counters,
    reason: ReasonId,
    no_bucket: ReasonId,
    /// Packets that were too many.
    over: Mask,
}

impl Work<'_> {
    /// Buckets that all workers share.
    #[inline(always)]
    fn shared(&mut self, batch: &mut Batch) {
        let mut run = Run { place: None, slots: ArrayVec::new(), costs: ArrayVec::new() };
        for (n, (what, rate)) in self.limit.rates.iter().enumerate() {
            for slot in batch.open() {
                let Some(pieces) = self.pieces(*what, batch, slot) else { continue };
                let place = match self.place(batch, slot) {
                    Some(place) => place,
                    None => {
                        // Counted once for a packet, not for each rate.
                        if n == 0 {
                            self.without_bucket(batch, slot);
                        }
                        continue;
                    }
                };
                if run.place != Some(place) {
                    self.take(&mut run, (n, *what), rate, batch);
                    run.place = Some(place);
                }
                // A batch has no more slots than that.
                let _ = (run.slots.try_push(slot as u8), run.costs.try_push(pieces));
            }
            self.take(&mut run, (n, *what), rate, batch);
            run.place = None;
            if *what == What::NewFlows && self.limit.police && !self.over.is_empty() {
                self.follow_up(batch);
            }
        }
    }

    /// More packets of flows that were one too many, in the same batch: what was settled holds from the next batch on.
    #[inline(never)]
    fn follow_up(&self, batch: &mut Batch) {
        let of = |batch: &Batch, slot: usize| (batch.meta(slot).flow, batch.meta(slot).incarnation);
        for slot in batch.open() {
            let meta = batch.meta(slot);
            if meta.flow == FlowSlot::NONE || opens(meta) {
                continue;
            }
            let flow = of(batch, slot);
            if self.over.into_iter().any(|other| of(batch, other) == flow) {
                batch.decide(slot, Verdict::Drop(self.reason));
            }
        }
    }

    /// What a packet is worth, if the limit looks at it.
    #[inline(always)]
    fn pieces(&self, what: What, batch: &Batch, slot: usize) -> Option<u32> {
        let meta = batch.meta(slot);
        let counts = match self.limit.direction {
            Direction::Both => true,
            Direction::ToServer => !goes_back(meta),
            Direction::ToClient => goes_back(meta),
        };
        let pieces = match what {
            What::Packets => 1,
            What::Bytes => u32::from(meta.inner_len),
            What::NewFlows if opens(meta) => 1,
            What::NewFlows => return None,
        };
        (counts && self.limit.only.has(meta, batch.inner(slot))).then_some(pieces)
    }

    #[inline(always)]
    fn place(&self, batch: &Batch, slot: usize) -> Option<Place> {
        match self.limit.per {
            Per::All | Per::Flow => self.table.numbered_place(0),
            Per::Tenant => self.table.numbered_place(batch.meta(slot).tenant.into()),
            Per::Source | Per::Destination | Per::Service => {
                let name = self.limit.whom.name(batch.meta(slot), batch.inner(slot))?;
                self.table.find(name, |place| {
                    let words = 0..self.limit.rates.len();
                    let full =
                        |word| self.table.word(place, word).is_some_and(|w| Bucket(w).is_full(self.now));
                    words.into_iter().all(full)
                })
            }
        }
    }

    /// Everything of a run is decided.
    #[inline(always)]
    fn take(&mut self, run: &mut Run, (n, what): (usize, What), rate: &Rate, batch: &mut Batch) {
        let word = run.place.and_then(|place| self.table.word(place, n));
        if let Some(word) = word.filter(|_| !run.slots.is_empty()) {
            let taken = Bucket(word).take(rate, self.now, &run.costs);
            for (n, slot) in run.slots.iter().enumerate() {
                if taken >> n & 1 == 0 {
                    self.too_many(what, batch, (*slot).into());
                }
            }
        }
        run.slots.clear();
        run.costs.clear();
    }

    /// Buckets that this worker alone has.
    #[inline(always)]
    fn each_flow(&mut self, flows: &mut PerFlow<[u64; FLOW_WORDS]>, batch: &mut Batch) {
        for slot in batch.open() {
            for (n, (what, rate)) in self.limit.rates.iter().enumerate() {
                let Some(pieces) = self.pieces(*what, batch, slot) else { continue };
                let words = flows.of(batch.meta(slot));
                let Some(full) = words.and_then(|words| words.get_mut(self.limit.of_flow + n)) else {
                    continue;
                };
                match rate.after(*full, self.now, pieces) {
                    Some(after) => *full = after,
                    None => {
                        self.too_many(*what, batch, slot);
                        break;
                    }
                }
            }
        }
    }

    #[inline(never)]
    fn too_many(&mut self, what: What, batch: &mut Batch, slot: usize) {
        self.counters.add(self.number * COUNTERS + what as usize);
        self.over.insert(slot);
        if self.limit.police {
            if batch.asks_for_rules() {
                batch.note_rule(slot, self.number);
            }
            batch.decide(slot, Verdict::Drop(self.reason));
            // What it sends next is no new flow, and has to be dropped for this.
            if what == What::NewFlows {
                batch.settle(slot);
            }
        }
    }

    #[inline(never)]
    fn without_bucket(&self, batch: &mut Batch, slot: usize) {
        self.counters.add(self.number * COUNTERS + What::ALL.len());
        if self.limit.drop_when_full && self.limit.police {
            batch.decide(slot, Verdict::Drop(self.no_bucket));
        }
    }
}

/// Packets one after the other that have one bucket.
struct Run {
    place: Option<Place>,
    slots: ArrayVec<u8, BURST>,
    costs: ArrayVec<u32, BURST>,
}

/// Does the packet open a flow? One that was there before us is not opened now.
#[inline(always)]
fn opens(meta: &Meta) -> bool {
    if meta.flow == FlowSlot::NONE {
        return meta.protocol == TCP && meta.tcp_flags & OPENING == SYN;
    }
    meta.flow_flags.has(FlowFlags::NEW) && !meta.flow_flags.has(FlowFlags::PICKED_UP | FlowFlags::RELATED)
}
