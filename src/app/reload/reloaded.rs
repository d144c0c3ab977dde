//! What became of a reload: as a value, as lines for people, as a record of the event stream.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

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
}

impl Reloaded {
    /// Is the plan that was asked for in force?
    pub fn is_good(&self) -> bool {
        !matches!(self, Reloaded::Refused { .. })
    }

    /// For people, line by line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Reloaded::Unchanged => vec!["reload: nothing has changed".into()],
            Reloaded::Refused { problems, restart } => {
                let needs = restart.iter().map(|changed| format!("{changed} needs a restart"));
                let all = problems.iter().cloned().chain(needs);
                all.chain(["reload: refused; nothing has changed".into()]).collect()
            }
            Reloaded::Done { stages, changed, warnings, took_ms, behind } => {
                let mut lines: Vec<String> =
                    warnings.iter().map(|warning| format!("warning: {warning}")).collect();
                let Differences { added, changed: other, moved, removed, kept } = stages;
                for (what, names) in
                    [("new", added), ("changed", other), ("moved", moved), ("removed", removed)]
                {
                    if !names.is_empty() {
                        lines.push(format!("stages {what}: {}", names.join(", ")));
                    }
                }
                lines.extend(changed.iter().map(ToString::to_string));
                lines.extend(behind.iter().cloned());
                lines.push(format!("reload: done in {took_ms} ms; {kept} stages as they were"));
                lines
            }
        }
    }
}

impl Reloaded {
    /// The record of it in the event stream. `policy`: the hash of the plan in force before, and after.
    pub fn record(&self, asked_by: &str, policy: (&str, &str), took: Duration, at: SystemTime) -> Value {
        let mut reload = serde_json::to_value(self).unwrap_or_default(); // plain data: it cannot fail
        if let Some(fields) = reload.as_object_mut() {
            for list in ["problems", "restart", "changed", "warnings"] {
                let Some(Value::Array(list_of)) = fields.get_mut(list) else { continue };
                let more = list_of.len().saturating_sub(MOST_TOLD);
                list_of.truncate(MOST_TOLD);
                if more > 0 {
                    fields.insert(format!("{list}_left_out"), more.into());
                }
            }
            fields.insert("asked_by".into(), asked_by.into());
            fields.insert("policy_before".into(), policy.0.into());
            fields.insert("policy_after".into(), policy.1.into());
            fields.insert("took_ms".into(), json!(took.as_millis() as u64));
        }
        record_of(Type::Reload, at, reload)
    }
}
