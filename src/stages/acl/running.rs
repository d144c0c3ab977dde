//! The stage over compiled rules: gather keys, classify, decide. No allocation, no scan of rules.

use std::sync::Arc;

use super::Reasons;
use super::compiled::{Answer, Compiled, Room, Tables, V4_KEY, V6_KEY, v4_key, v6_key};
use super::counters::Counters;
use super::linear::shows_ports;
use super::rule::Action;
use crate::dpdk::BURST;
use crate::packet::{Batch, DropReason, Verdict};
use crate::stage::{Cx, Stage};

/// Packets of one shape, gathered from a batch.
struct Lane<const KEY: usize> {
    keys: [[u8; KEY]; BURST],
    slots: [u8; BURST],
    len: usize,
}

impl<const KEY: usize> Lane<KEY> {
    const EMPTY: Self = Lane { keys: [[0; KEY]; BURST], slots: [0; BURST], len: 0 };

    #[inline(always)]
    fn push(&mut self, slot: usize, key: [u8; KEY]) {
        if let (Some(k), Some(s)) = (self.keys.get_mut(self.len), self.slots.get_mut(self.len)) {
            (*k, *s) = (key, slot as u8);
            self.len += 1;
        }
    }
}

/// The stage on one worker.
pub struct Running {
    rules: Arc<Compiled>,
    counters: Arc<Counters>,
    default: Action,
    /// Full, then bare.
    v4: [Lane<V4_KEY>; 2],
    v6: [Lane<V6_KEY>; 2],
    room: Room,
}

impl Running {
    /// A stage over compiled rules; `counters` has one for each rule, and then one for the default.
    pub fn new(rules: Arc<Compiled>, default: Action, counters: Arc<Counters>) -> Self {
        let (v4, v6) = ([Lane::EMPTY; 2], [Lane::EMPTY; 2]);
        Running { rules, counters, default, v4, v6, room: Room::default() }
    }

    /// Sorts the open packets into lanes.
    #[inline(always)]
    fn gather(&mut self, batch: &mut Batch) {
        for slot in batch.open() {
            let (meta, inner) = (batch.meta(slot), batch.inner(slot));
            let ports = (meta.source_port, meta.destination_port);
            let bare = usize::from(!shows_ports(meta));
            if meta.is_ipv6() {
                if let (Some(addresses), Some(lane)) = (chunk(inner, 8), self.v6.get_mut(bare)) {
                    lane.push(slot, v6_key(meta.protocol, addresses, ports));
                    continue;
                }
            } else if let (Some(addresses), Some(lane)) = (chunk(inner, 12), self.v4.get_mut(bare)) {
                lane.push(slot, v4_key(meta.protocol, addresses, ports));
                continue;
            }
            batch.decide(slot, Verdict::Drop(DropReason::InnerTruncated.into()));
        }
    }
}

#[inline(always)]
fn chunk<const N: usize>(inner: &[u8], at: usize) -> Option<&[u8; N]> {
    inner.get(at..)?.first_chunk()
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        self.gather(batch);
        let reasons = Reasons::of(cx);
        let Running { rules, counters, default, v4, v6, room } = self;
        let verdicts = Verdicts { reasons, counters, default: *default, default_counter: rules.rules };
        for (lane, shows_ports) in v4.iter_mut().zip([true, false]) {
            verdicts.judge(rules.v4.of(shows_ports), lane, room, batch);
        }
        for (lane, shows_ports) in v6.iter_mut().zip([true, false]) {
            verdicts.judge(rules.v6.of(shows_ports), lane, room, batch);
        }
    }
}

/// From answers to fates.
struct Verdicts<'a> {
    reasons: Reasons,
    counters: &'a Counters,
    default: Action,
    default_counter: usize,
}

impl Verdicts<'_> {
    #[inline(always)]
    fn judge<const KEY: usize>(
        &self,
        tables: &Tables<KEY>,
        lane: &mut Lane<KEY>,
        room: &mut Room,
        batch: &mut Batch,
    ) {
        let len = std::mem::take(&mut lane.len);
        if len == 0 {
            return;
        }
        tables.judge(lane.keys.get(..len).unwrap_or_default(), room, |_, rule| self.counters.add(rule));
        for (&slot, &answer) in lane.slots.iter().zip(&room.answers).take(len) {
            let answer = Answer(answer);
            let (counter, action) = match answer.rule() {
                Some(rule) => (rule, answer.action()),
                None => (self.default_counter, self.default),
            };
            self.counters.add(counter);
            batch.decide(slot.into(), self.reasons.verdict(action, counter == self.default_counter));
        }
    }
}
