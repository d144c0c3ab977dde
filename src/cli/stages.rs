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
        match self.name.as_deref() {
            None => list(self.json),
            Some("drops") => drops(self.json),
            Some(name) => explain(stages::find(name).ok_or_else(|| unknown(name))?, self.json),
        }
        Ok(OK)
    }
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = stages::ALL.iter().map(|k| k.name).collect();
    Failure::Other(format!("no stage is called {name:?}; there are: {}", names.join(", ")))
}

fn list(json: bool) {
    if json {
        let all: Vec<_> = stages::ALL.iter().map(|k| describe(k)).collect();
        anstream::println!("{}", serde_json::Value::Array(all));
        return;
    }
    let mut table = show::table(&["stage", "what it does"]);
    for kind in stages::ALL {
        table.add_row([kind.name, kind.summary]);
    }
    anstream::println!(
        "{table}\n`sluicegate stages NAME` explains one, `sluicegate stages drops` lists all drop reasons."
    );
}

fn explain(kind: &StageKind, json: bool) {
    if json {
        anstream::println!("{}", describe(kind));
        return;
    }
    anstream::println!(
        "{}: {}\n\n{}\n\nExample:\n\n{}",
        kind.name,
        kind.summary,
        kind.help.trim(),
        kind.example.trim()
    );
    anstream::println!("\nDrop reasons:\n");
    for (reason, help) in kind.reasons {
        anstream::println!("  {}.{reason:<20} {help}", kind.name);
    }
}

fn describe(kind: &StageKind) -> serde_json::Value {
    let reasons: Vec<_> =
        kind.reasons.iter().map(|(name, help)| serde_json::json!({ "name": name, "help": help })).collect();
    serde_json::json!({
        "name": kind.name, "summary": kind.summary, "help": kind.help, "example": kind.example, "reasons": reasons,
    })
}

fn drops(json: bool) {
    let framework = DropReason::ALL.iter().map(|r| (r.label().to_owned(), r.hop(), r.help()));
    let of_stages = stages::ALL.iter().flat_map(|kind| {
        kind.reasons.iter().map(|(name, help)| (format!("{}.{name}", kind.name), "inspect", *help))
    });
    let all = framework.chain(of_stages);
    if json {
        let rows: Vec<_> = all
            .map(|(label, hop, help)| serde_json::json!({ "label": label, "hop": hop, "help": help }))
            .collect();
        anstream::println!("{}", serde_json::Value::Array(rows));
        return;
    }
    let mut table = show::table(&["reason", "hop", "meaning"]);
    for (label, hop, help) in all {
        table.add_row([label.as_str(), hop, help]);
    }
    anstream::println!("{table}");
}
