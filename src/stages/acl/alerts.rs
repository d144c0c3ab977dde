//! Alerts of `log` rules: gathered while a batch is judged, told when it is known what became of its packets.

use arrayvec::ArrayVec;

use super::rule::{Action, Rule};
use super::set::RuleSet;
use crate::dpdk::BURST;
use crate::event::{Alert, Signature, Type};
use crate::packet::{Batch, FlowFlags, Mask};
use crate::stage::Cx;

/// Rules that one packet can match beside the one that decides.
const FOR_A_PACKET: usize = 16;

/// What there is to tell of one batch.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    wanted: bool,
    matched: ArrayVec<(u8, u32), { FOR_A_PACKET * BURST }>,
    turned: Mask,
}

impl Alerts {
    /// A batch begins.
    #[inline(always)]
    pub fn begin(&mut self, cx: &Cx<'_>) {
        self.wanted = cx.wants(Type::Alert);
    }

    /// A rule that lets the search go on matched.
    #[inline(always)]
    pub fn matched(&mut self, slot: usize, rule: usize, rules: &[Rule]) {
        if self.wanted && rules.get(rule).is_some_and(|rule| rule.action == Action::Log) {
            let _ = self.matched.try_push((slot as u8, rule as u32)); // what is too much is counted with the rule
        }
    }

    /// The flow of the slot is about to be turned round.
    #[inline(always)]
    pub fn turned(&mut self, slot: usize) {
        self.turned.insert(slot);
    }

    /// All packets of the batch that asked have their answers.
    #[inline(always)]
    pub fn tell(&mut self, batch: &Batch, cx: &mut Cx<'_>) {
        for (slot, rule) in self.matched.drain(..) {
            let slot = usize::from(slot);
            let mut meta = *batch.meta(slot);
            if self.turned.has(slot) {
                meta.flow_flags.0 ^= FlowFlags::REPLY;
            }
            cx.emit(&meta, batch.inner(slot), Alert { rule, blocked: !batch.live().has(slot) });
        }
        self.turned = Mask::NONE;
    }
}

/// What rules are called in records: by their comment, or else by their place.
pub(super) fn signatures(set: &RuleSet) -> Vec<Signature> {
    let signature = |n: usize, rule: &Rule| Signature {
        signature: if rule.comment.is_empty() { rule.label() } else { rule.comment.clone() },
        signature_id: id(n, rule),
        rev: 1,
        category: String::new(),
        severity: rule.severity,
    };
    let written = set.written().enumerate();
    let parts = written.filter_map(|(n, part)| Some((n, set.rules().get(part)?)));
    parts.flat_map(|(n, part)| part.iter().map(move |rule| signature(n, rule))).collect()
}

/// The number of a rule's alerts: its own, or its place.
fn id(n: usize, rule: &Rule) -> u32 {
    rule.id.unwrap_or(n as u32 + 1)
}

/// A log rule that has the number of an earlier one.
pub(super) fn same_id(set: &RuleSet) -> Option<(&Rule, &Rule, u32)> {
    let mut seen = std::collections::HashMap::new();
    let written = set.written().filter_map(|part| set.rules().get(part.start)).enumerate();
    let logs = written.filter(|(_, rule)| rule.action == Action::Log);
    logs.map(|(n, rule)| (id(n, rule), rule))
        .find_map(|(id, rule)| seen.insert(id, rule).map(|other| (rule, other, id)))
}
