//! `sluicegate stages`: what pipelines can be made of, and every way a packet can die.

use clap::Args;

use super::{Failure, OK, Outcome, show};
use crate::packet::DropReason;
use crate::stage::StageKind;
use crate::stages;

/// List the stages, or explain one.
#[derive(Debug, Args)]
pub struct Stages {
    /// A stage (`acl`), or `drops` for all drop reasons
    name: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Stages {
    pub(super) fn run(self) -> Outcome {
        let text = match self.name.as_deref() {
            None => list(self.json),
            Some("drops") => drops(self.json),
            Some(name) => explain(stages::find(name).ok_or_else(|| unknown(name))?, self.json),
        };
        show::print(format_args!("{}\n", text.trim_end()))?;
        Ok(OK)
    }
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = stages::all().iter().map(|k| k.name).collect();
    Failure::Other(format!("no stage is called {name:?}; there are: {}", names.join(", ")))
}

fn list(json: bool) -> String {
    if json {
        let all: Vec<_> = stages::all().iter().map(|k| describe(k)).collect();
        return serde_json::Value::Array(all).to_string();
    }
    let mut table = show::table(&["stage", "what it does"]);
    for kind in stages::all() {
        table.add_row([kind.name, kind.summary]);
    }
    format!(
        "{table}\n`sluicegate stages NAME` explains one, `sluicegate stages drops` lists all drop reasons."
    )
}

fn explain(kind: &StageKind, json: bool) -> String {
    if json {
        return describe(kind).to_string();
    }
    let mut text = format!(
        "{}: {}\n\n{}\n\nExample:\n\n{}\n\nDrop reasons:\n\n",
        kind.name,
        kind.summary,
        kind.help.trim(),
        kind.example.trim()
    );
    for (reason, help) in kind.reasons {
        text += &format!("  {}.{reason:<20} {help}\n", kind.name);
    }
    text
}

fn describe(kind: &StageKind) -> serde_json::Value {
    let reasons: Vec<_> =
        kind.reasons.iter().map(|(name, help)| serde_json::json!({ "name": name, "help": help })).collect();
    serde_json::json!({
        "name": kind.name, "summary": kind.summary, "help": kind.help, "example": kind.example, "reasons": reasons,
    })
}

fn drops(json: bool) -> String {
    let framework = DropReason::ALL.iter().map(|r| (r.label().to_owned(), r.hop(), r.help()));
    let of_stages = stages::all().iter().flat_map(|kind| {
        kind.reasons.iter().map(|(name, help)| (format!("{}.{name}", kind.name), "inspect", *help))
    });
    let all = framework.chain(of_stages);
    if json {
        let rows: Vec<_> = all
            .map(|(label, hop, help)| serde_json::json!({ "label": label, "hop": hop, "help": help }))
            .collect();
        return serde_json::Value::Array(rows).to_string();
    }
    let mut table = show::table(&["reason", "hop", "meaning"]);
    for (label, hop, help) in all {
        table.add_row([label.as_str(), hop, help]);
    }
    table.to_string()
}
