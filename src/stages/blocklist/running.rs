//! The stage on one worker: gather the ends of the flows that ask, look all of them up, decide. No allocation.

use std::sync::Arc;

use super::entry::Lists;
use super::{AllLists, Judgement, LISTED, Lookup, REJECTED};
use crate::dpdk::BURST;
use crate::event::{Alert, Type};
use crate::packet::{Batch, DropReason, Mask, Verdict};
use crate::stage::{Cx, Stage};
use crate::stages::acl::counters::Counters;
use crate::stages::acl::flows::Asking;

/// Both ends of flows of one family, source first.
struct Lane<A> {
    ends: [A; 2 * BURST],
    lists: [Lists; 2 * BURST],
    slots: [u8; BURST],
    len: usize,
}

impl<A: Copy + Default> Lane<A> {
    fn new() -> Self {
        Lane { ends: [A::default(); 2 * BURST], lists: [0; 2 * BURST], slots: [0; BURST], len: 0 }
    }

    #[inline(always)]
    fn push(&mut self, slot: usize, ends: [A; 2]) {
        let place = self.ends.as_chunks_mut().0.get_mut(self.len);
        if let (Some(place), Some(number)) = (place, self.slots.get_mut(self.len)) {
            (*place, *number) = (ends, slot as u8);
            self.len += 1;
        }
    }

    /// The ends, and the places for their lists.
    #[inline(always)]
    fn question(&mut self) -> (&[A], &mut [Lists]) {
        let ends = self.ends.get(..2 * self.len).unwrap_or_default();
        (ends, self.lists.get_mut(..2 * self.len).unwrap_or_default())
    }

    /// Slots, and the lists of source and destination.
    #[inline(always)]
    fn answers(&self) -> impl Iterator<Item = (usize, &[Lists; 2])> {
        self.slots.iter().take(self.len).map(|slot| (*slot).into()).zip(self.lists.as_chunks().0)
    }
}

/// The stage on one worker.
pub(super) struct Running {
    lookup: Lookup,
    lists: Arc<AllLists>,
    stateful: bool,
    counters: Arc<Counters>,
    asking: Asking,
    v4: Lane<u32>,
    v6: Lane<u128>,
}

impl Running {
    /// `counters` has one for each list, and then one for what is on none.
    pub fn new(lookup: Lookup, lists: Arc<AllLists>, stateful: bool, counters: Arc<Counters>) -> Self {
        let (v4, v6) = (Lane::new(), Lane::new());
        Running { lookup, lists, stateful, counters, asking: Asking::default(), v4, v6 }
    }

    /// Sorts the packets that ask by their family.
    #[inline(always)]
    fn gather(&mut self, batch: &mut Batch) {
        (self.v4.len, self.v6.len) = (0, 0);
        for slot in self.asking.asking() {
            let (meta, inner) = (batch.meta(slot), batch.inner(slot));
            let turned = self.asking.turns_round(batch, slot);
            if meta.is_ipv6() {
                if let Some(ends) = inner.get(8..).and_then(|rest| rest.first_chunk::<32>()) {
                    let (from, to) = ends.split_at(16);
                    let end = |end: &[u8]| end.first_chunk().copied().map_or(0, u128::from_be_bytes);
                    self.v6.push(slot, oriented([end(from), end(to)], turned));
                    continue;
                }
            } else if let Some(ends) = inner.get(12..).and_then(|rest| rest.first_chunk::<8>()) {
                let ends = u64::from_be_bytes(*ends);
                self.v4.push(slot, oriented([(ends >> 32) as u32, ends as u32], turned));
                continue;
            }
            batch.decide(slot, Verdict::Drop(DropReason::InnerTruncated.into()));
        }
    }
}

#[inline(always)]
fn oriented<A: Copy>([from, to]: [A; 2], turned: bool) -> [A; 2] {
    if turned { [to, from] } else { [from, to] }
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        self.asking.sort(batch, self.stateful);
        self.gather(batch);
        let Running { lookup, lists, counters, asking, v4, v6, .. } = self;
        if v4.len > 0 {
            let (ends, found) = v4.question();
            lookup.v4(ends, found);
        }
        if v6.len > 0 {
            let (ends, found) = v6.question();
            lookup.v6(ends, found);
        }
        for (slot, [source, destination]) in v4.answers().chain(v6.answers()) {
            let found = lists.judge(*source, *destination);
            decide(lists, counters, asking, found, slot, batch, cx);
        }
        asking.follow_up(batch);
    }
}

#[inline(always)]
fn decide(
    lists: &AllLists,
    counters: &Counters,
    asking: &Asking,
    found: Judgement,
    slot: usize,
    batch: &mut Batch,
    cx: &mut Cx<'_>,
) {
    let verdict = match found {
        Judgement { rejected: true, .. } => Verdict::Reject(cx.reason(REJECTED)),
        Judgement { denied: true, .. } => Verdict::Drop(cx.reason(LISTED)),
        _ => Verdict::Next,
    };
    if batch.asks_for_rules() {
        batch.note_rule(slot, found.decided_by.unwrap_or(lists.lists.len()));
    }
    asking.answer(batch, slot, verdict, None);
    if found.counted == 0 {
        return counters.add(lists.lists.len());
    }
    for list in Mask(found.counted.into()) {
        counters.add(list);
    }
    if found.counted & lists.alert != 0 && cx.wants(Type::Alert) {
        for list in Mask((found.counted & lists.alert).into()) {
            let alert = Alert { rule: list as u32, blocked: found.denied };
            cx.emit(batch.meta(slot), batch.inner(slot), alert);
        }
    }
}
