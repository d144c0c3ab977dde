//! `sluicegate doctor`: is this machine, and what runs on it, as it should be?

use std::path::PathBuf;

use clap::Args;

use super::instance::Instance;
use super::{FAILED, Failure, OK, Outcome, show};
use crate::config::{self, Machine, Options, Overrides};
use crate::doctor::{Level, Run, examine};
use crate::mgmt::control::{self, Command};

/// Check the machine, and the instance that runs on it.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The pipeline file: its ports, lcores and memory are compared with the machine, and its instance is asked, if it runs
    file: Option<PathBuf>,
    /// Values over the file's: `--set port[0].mtu=9001`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the instance takes commands: its management.socket
    #[arg(long, value_name = "PATH", env = "SLUICEGATE_MANAGEMENT__SOCKET")]
    socket: Option<PathBuf>,
    /// Do not ask any instance
    #[arg(long, conflicts_with = "socket")]
    no_run: bool,
    /// Warnings count, too
    #[arg(long)]
    strict: bool,
    /// Another machine's files: the folder above its /sys and /proc
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Outcome {
        let plan = match &self.file {
            None => None,
            Some(file) => {
                let options = Options { machine: Machine::here(), ..Options::default() };
                Some(config::load(file, &Overrides::here(&self.set), &options)?)
            }
        };
        let run = if self.no_run { None } else { self.ask()? };
        let found = examine(&self.root, plan.as_ref(), run.as_ref());
        let worst = found.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
        let is_good = worst < if self.strict { Level::Warning } else { Level::Bad };
        if self.json {
            let asked = run.is_some();
            let all =
                serde_json::json!({ "version": 1, "ok": is_good, "instance": asked, "findings": found });
            show::print(format_args!("{all}\n"))?;
        } else {
            for finding in &found {
                show::print(format_args!(
                    "{:<8} {:<16} {}\n",
                    finding.level.word(),
                    finding.check,
                    finding.found
                ))?;
                if let Some(remedy) = &finding.remedy {
                    show::print(format_args!("{:<25} -> {remedy}\n", ""))?;
                }
            }
            let count = |level| found.iter().filter(|finding| finding.level == level).count();
            let (bad, warnings, unknown) = (count(Level::Bad), count(Level::Warning), count(Level::Unknown));
            let asked = if run.is_some() { "" } else { "; no instance was asked" };
            show::print(format_args!("{bad} bad, {warnings} warnings, {unknown} unknown{asked}\n"))?;
        }
        Ok(if is_good { OK } else { FAILED })
    }

    /// What the instance says of itself. One that is named has to answer; otherwise there may be none.
    fn ask(&self) -> Result<Option<Run>, Failure> {
        let is_named = self.socket.is_some();
        let Ok(client) = Instance::named(self.file.clone(), self.socket.clone()).client() else {
            return Ok(None);
        };
        let answer = match client.post("command", &[], &control::request(Command::Facts)) {
            Ok(answer) => answer,
            Err(error) if is_named => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let facts = serde_json::from_value(answer["facts"].clone());
        facts
            .map(Some)
            .map_err(|error| Failure::Other(format!("{error}; the instance is of another version")))
    }
}
