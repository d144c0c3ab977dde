//! `sluicegate level`: how much a running instance logs.

use clap::Args;

use super::instance::Instance;
use super::{OK, Outcome, show};

/// How much a running instance logs.
#[derive(Debug, Args)]
pub struct Level {
    /// error, warn, info, debug or trace from now on; without it, what it is
    level: Option<String>,
    #[command(flatten)]
    instance: Instance,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Level {
    pub(super) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        let (answer, key) = match &self.level {
            Some(level) => (client.post("level", &[("to", level)], "")?, "level"),
            None => (client.get("status", &[])?, "log_level"),
        };
        let level = answer[key].as_str().unwrap_or("?");
        match (self.json, answer["before"].as_str()) {
            (true, _) => show::print(format_args!("{}\n", serde_json::json!({ "level": level })))?,
            (false, Some(before)) if before != level => {
                show::print(format_args!("{level}, which was {before}\n"))?
            }
            (false, _) => show::print(format_args!("{level}\n"))?,
        }
        Ok(OK)
    }
}
