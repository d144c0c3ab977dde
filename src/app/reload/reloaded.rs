//! What became of a reload: as a value, as lines for people, as a record of the event stream.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::ShadowStatus;
use crate::config::reload::Changed;
use crate::event::Type;
use crate::event::record_of;
use crate::path::Differences;

/// Sentences of one kind in a record: a rule file can have thousands of mistakes, and the answer to whoever asked has them all.
const MOST_TOLD: usize = 20;

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Reloaded {
    /// The new plan is in force.
    Done {
        /// What became of the stages.
        stages: Differences,
        /// Other values that changed.
        changed: Vec<Changed>,
        /// What the plan warns of.
        warnings: Vec<String>,
        /// From the request until all workers had it.
        took_ms: u64,
        /// Workers that have not taken it yet, one sentence each.
        behind: Vec<String>,
    },
    /// There is nothing that changed.
    Unchanged,
    /// It cannot be: nothing has changed.
    Refused {
        /// Why, one sentence each.
        problems: Vec<String>,
        /// Values that a restart can change, and a reload cannot.
        restart: Vec<Changed>,
    },
    /// A candidate judges beside the plan, which stays as it is.
    Shadowed {
        /// The candidate's policy.
        policy: String,
        /// What would become of the stages.
        stages: Differences,
        /// Values that would change, and that are not judged.
        not_judged: Vec<Changed>,
        /// What the candidate's plan warns of.
        warnings: Vec<String>,
        /// Bytes that it takes beside its rule sets.
        bytes: u64,
        /// From the request until all workers had it.
        took_ms: u64,
        /// Workers that have not taken it yet, one sentence each.
        behind: Vec<String>,
    },
    /// The candidate is gone.
    Cancelled {
        /// From the request until no worker had it.
        took_ms: u64,
        /// Workers that still have it, one sentence each.
        behind: Vec<String>,
    },
    /// What the candidate has come to.
    Shadow(Box<ShadowStatus>),
}

impl Reloaded {
    /// Is the plan that was asked for in force?
    pub fn is_good(&self) -> bool {
        !matches!(self, Reloaded::Refused { .. })
    }

    /// The same, with how long it took and who has not come to it.
    pub(super) fn after(mut self, took: Duration, late: Vec<String>) -> Self {
        if let Reloaded::Done { took_ms, behind, .. }
        | Reloaded::Shadowed { took_ms, behind, .. }
        | Reloaded::Cancelled { took_ms, behind } = &mut self
        {
            (*took_ms, *behind) = (took.as_millis() as u64, late);
        }
        self
    }

    /// For people, line by line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Reloaded::Shadow(status) => status.lines(),
            Reloaded::Cancelled { took_ms, behind } => {
                let done = format!("shadow: the candidate is gone, in {took_ms} ms");
                behind.iter().cloned().chain([done]).collect()
            }
            Reloaded::Shadowed { policy, stages, not_judged, warnings, bytes, took_ms, behind } => {
                let mut lines: Vec<String> =
                    warnings.iter().map(|warning| format!("warning: {warning}")).collect();
                lines.extend(differences(stages));
                lines.extend(not_judged.iter().map(|changed| format!("not judged: {changed}")));
                lines.extend(behind.iter().cloned());
                let mb = bytes.div_ceil(1 << 20);
                lines.push(format!(
                    "shadow: policy {policy} judges beside the one in force, after {took_ms} ms; {mb} MB beside its rules"
                ));
                lines
            }
            Reloaded::Unchanged => vec!["reload: nothing has changed".into()],
            Reloaded::Refused { problems, restart } => {
                let needs = restart.iter().map(|changed| format!("{changed} needs a restart"));
                let all = problems.iter().cloned().chain(needs);
                all.chain(["reload: refused; nothing has changed".into()]).collect()
            }
            Reloaded::Done { stages, changed, warnings, took_ms, behind } => {
                let mut lines: Vec<String> =
                    warnings.iter().map(|warning| format!("warning: {warning}")).collect();
                let kept = stages.kept;
                lines.extend(differences(stages));
                lines.extend(changed.iter().map(ToString::to_string));
                lines.extend(behind.iter().cloned());
                lines.push(format!("reload: done in {took_ms} ms; {kept} stages as they were"));
                lines
            }
        }
    }
}

fn differences(stages: &Differences) -> impl Iterator<Item = String> {
    let Differences { added, changed, moved, removed, .. } = stages;
    let lists = [("new", added), ("changed", changed), ("moved", moved), ("removed", removed)];
    let some = lists.into_iter().filter(|(_, names)| !names.is_empty());
    some.map(|(what, names)| format!("stages {what}: {}", names.join(", ")))
}

impl Reloaded {
    /// The record of it in the event stream. `asked`: what for (`reload`, `shadow`, `promote`, `cancel`), and by whom. `policy`: the hash of the plan in force before, and after.
    pub fn record(&self, asked: (&str, &str), policy: (&str, &str), took: Duration, at: SystemTime) -> Value {
        let mut reload = serde_json::to_value(self).unwrap_or_default(); // plain data: it cannot fail
        if let Some(fields) = reload.as_object_mut() {
            for list in ["problems", "restart", "changed", "not_judged", "warnings"] {
                let Some(Value::Array(list_of)) = fields.get_mut(list) else { continue };
                let more = list_of.len().saturating_sub(MOST_TOLD);
                list_of.truncate(MOST_TOLD);
                if more > 0 {
                    fields.insert(format!("{list}_left_out"), more.into());
                }
            }
            fields.insert("asked_for".into(), asked.0.into());
            fields.insert("asked_by".into(), asked.1.into());
            fields.insert("policy_before".into(), policy.0.into());
            fields.insert("policy_after".into(), policy.1.into());
            fields.insert("took_ms".into(), json!(took.as_millis() as u64));
        }
        record_of(Type::Reload, at, reload)
    }
}
