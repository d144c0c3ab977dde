//! The stage over compiled rules: gather keys, classify, ask in reverse for flows that are denied, decide. No allocation, no scan of
//! rules.

use std::sync::Arc;

use super::Reasons;
use super::alerts::Alerts;
use super::compiled::{Answer, Compiled, Room, Tables, V4_KEY, V6_KEY, reversed, v4_key, v6_key};
use super::counters::Counters;
use super::flows::{self, Asking, Reverse};
use super::linear::{Key, shows_ports};
use super::rule::Action;
use super::set::RuleSet;
use crate::dpdk::BURST;
use crate::packet::{Batch, DropReason, Mask, Verdict};
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

    fn keys(&self) -> &[[u8; KEY]] {
        self.keys.get(..self.len).unwrap_or_default()
    }

    /// Slots and keys, where both are.
    fn iter(&self) -> impl Iterator<Item = (usize, &[u8; KEY])> {
        self.slots.iter().map(|&slot| slot.into()).zip(self.keys())
    }
}

/// The stage on one worker.
pub struct Running {
    rules: Arc<Compiled>,
    set: Arc<RuleSet>,
    stateful: bool,
    counters: Arc<Counters>,
    asking: Asking,
    alerts: Alerts,
    /// Full, then bare, then questions in reverse.
    v4: [Lane<V4_KEY>; 3],
    v6: [Lane<V6_KEY>; 3],
    room: Room,
}

impl Running {
    /// A stage over compiled rules; `counters` has one for each rule, and then one for the default.
    pub fn new(rules: Arc<Compiled>, set: Arc<RuleSet>, stateful: bool, counters: Arc<Counters>) -> Self {
        let (v4, v6) = ([Lane::EMPTY; 3], [Lane::EMPTY; 3]);
        let (asking, alerts, room) = (Asking::default(), Alerts::default(), Room::default());
        Running { rules, set, stateful, counters, asking, alerts, v4, v6, room }
    }

    /// Sorts the packets that ask into lanes: those of tenants of one class.
    #[inline(always)]
    fn gather(&mut self, batch: &mut Batch, class: usize, classes: usize) {
        for slot in self.asking.asking() {
            if classes > 1 && self.set.classes().of(batch.meta(slot).tenant) != class {
                continue;
            }
            let (meta, inner) = (batch.meta(slot), batch.inner(slot));
            let ports = (meta.source_port, meta.destination_port);
            let bare = usize::from(!shows_ports(meta));
            let turned = self.asking.turns_round(batch, slot);
            if meta.is_ipv6() {
                if let (Some(addresses), Some(lane)) = (chunk(inner, 8), self.v6.get_mut(bare)) {
                    lane.push(slot, oriented(v6_key(meta.protocol, addresses, ports), turned));
                    continue;
                }
            } else if let (Some(addresses), Some(lane)) = (chunk(inner, 12), self.v4.get_mut(bare)) {
                lane.push(slot, oriented(v4_key(meta.protocol, addresses, ports), turned));
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

#[inline(always)]
fn oriented<const KEY: usize>(key: [u8; KEY], turned: bool) -> [u8; KEY] {
    if turned { reversed(&key) } else { key }
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        self.alerts.begin(cx);
        self.asking.sort(batch, self.stateful);
        let reasons = Reasons::of(cx);
        let classes = self.set.classes().count();
        for class in 0..classes {
            self.gather(batch, class, classes);
            let Running { rules, set, counters, asking, alerts, v4, v6, room, .. } = self;
            let Some((v4_rules, v6_rules)) = rules.of(class) else { continue };
            let mut verdicts = Verdicts { reasons, counters, asking, alerts, set };
            let [full, bare, reverse] = v4;
            verdicts.judge(v4_rules.of(true), full, reverse, room, batch);
            verdicts.judge(v4_rules.of(false), bare, reverse, room, batch);
            let [full, bare, reverse] = v6;
            verdicts.judge(v6_rules.of(true), full, reverse, room, batch);
            verdicts.judge(v6_rules.of(false), bare, reverse, room, batch);
        }
        self.alerts.tell(batch, cx);
        self.asking.follow_up(batch);
    }
}

/// From answers to fates.
struct Verdicts<'a> {
    reasons: Reasons,
    counters: &'a Counters,
    asking: &'a Asking,
    alerts: &'a mut Alerts,
    set: &'a RuleSet,
}

/// Slots whose flows are allowed in reverse, by what they do about it.
#[derive(Default)]
struct Reversed {
    turn: Mask,
    leave: Mask,
}

impl Verdicts<'_> {
    #[inline(always)]
    fn judge<const KEY: usize>(
        &mut self,
        tables: &Tables<KEY>,
        lane: &mut Lane<KEY>,
        reverse: &mut Lane<KEY>,
        room: &mut Room,
        batch: &mut Batch,
    ) {
        if lane.len == 0 {
            return;
        }
        tables.decide(lane.keys(), &mut room.answers);
        let mut reversed = Reversed::default();
        if !self.asking.for_flow().is_empty() {
            reversed = self.ask_in_reverse(tables, lane, reverse, room, batch);
        }
        // Who asks counts once, in the orientation that decides.
        let (counters, alerts, rules) = (self.counters, &mut *self.alerts, self.set.rules());
        let slots = &lane.slots;
        tables.observe(lane.keys(), room, |n, rule| {
            counters.add(rule);
            alerts.matched(slots.get(n).copied().unwrap_or_default().into(), rule, rules);
        });
        for slot in reversed.turn {
            alerts.turned(slot);
        }
        if batch.asks_for_rules() {
            let default = self.set.rules().len();
            for ((slot, _), &answer) in lane.iter().zip(&room.answers) {
                batch.note_rule(slot, Answer(answer).rule().unwrap_or(default));
            }
        }
        for ((slot, _), &answer) in lane.iter().zip(&room.answers) {
            let rule = Answer(answer).rule();
            self.counters.add(rule.unwrap_or(self.set.rules().len()));
            let way = if reversed.turn.has(slot) {
                Some(Reverse::Turn)
            } else {
                reversed.leave.has(slot).then_some(Reverse::Leave)
            };
            let verdict = self.reasons.verdict(self.action(answer), rule.is_none());
            self.asking.answer(batch, slot, verdict, way);
        }
        lane.len = 0;
    }

    #[inline(always)]
    fn action(&self, answer: u32) -> Action {
        match Answer(answer).rule() {
            Some(_) => Answer(answer).action(),
            None => self.set.default_action(),
        }
    }

    /// The second question of flows that are denied ([`super::flows`]). A flow that is turned has its key and its answer in the lane afterwards.
    #[inline(never)]
    fn ask_in_reverse<const KEY: usize>(
        &self,
        tables: &Tables<KEY>,
        lane: &mut Lane<KEY>,
        reverse: &mut Lane<KEY>,
        room: &mut Room,
        batch: &Batch,
    ) -> Reversed {
        let mut out = Reversed::default();
        reverse.len = 0;
        for (n, ((slot, key), &answer)) in lane.iter().zip(&room.answers).enumerate() {
            if self.asking.for_flow().has(slot) && self.action(answer) != Action::Allow {
                reverse.push(n, reversed(key));
            }
        }
        if reverse.len == 0 {
            return out;
        }
        tables.decide(reverse.keys(), &mut room.reverse);
        for ((n, key), &answer) in reverse.iter().zip(&room.reverse) {
            let slot = lane.slots.get(n).copied().unwrap_or_default().into();
            if !self.allows_reverse(Answer(answer), slot, batch) {
                continue;
            }
            match flows::reverse(batch.meta(slot)) {
                Reverse::Turn => {
                    if let (Some(k), Some(a)) = (lane.keys.get_mut(n), room.answers.get_mut(n)) {
                        (*k, *a) = (*key, answer);
                        out.turn.insert(slot);
                    }
                }
                Reverse::Leave => out.leave.insert(slot),
            }
        }
        out
    }

    /// Is this the answer of a rule that allows, and would not match the other way round?
    fn allows_reverse(&self, answer: Answer, slot: usize, batch: &Batch) -> bool {
        let Some(rule) = answer.rule().and_then(|n| self.set.rules().get(n)) else { return false };
        let key = Key::of(batch.meta(slot), batch.inner(slot));
        let key = key.map(|key| if self.asking.turns_round(batch, slot) { key.reversed() } else { key });
        rule.action == Action::Allow && key.is_some_and(|key| !rule.matches_as_written(&key))
    }
}
