//! `sluicegate reload`: asks a running instance to load its configuration anew.

use std::path::PathBuf;

use clap::Args;

use super::instance::Instance;
use super::{FAILED, OK, Outcome, show};
use crate::mgmt::admin::client::Error;
use crate::mgmt::control::{self, Command};

/// Ask a running instance to load its configuration anew.
#[derive(Debug, Args)]
pub struct Reload {
    /// The pipeline file with which it was started, to find its socket; the only instance if there is neither this nor --socket
    file: Option<PathBuf>,
    /// Where it takes commands: its management.socket
    #[arg(long, value_name = "PATH", env = "SLUICEGATE_MANAGEMENT__SOCKET", conflicts_with = "file")]
    socket: Option<PathBuf>,
    /// Its answer as JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> Outcome {
        let client = Instance::named(self.file, self.socket).client()?;
        let answer = match client.post("command", &[], &control::request(Command::Reload)) {
            Err(Error::Refused { answer, .. }) => answer,
            other => other?,
        };
        let is_good = answer["ok"] == true;
        if self.json {
            show::print(format_args!("{answer}\n"))?;
        } else {
            match (answer["lines"].as_array(), answer["text"].as_str()) {
                (Some(lines), _) => {
                    for line in lines {
                        show::print(format_args!("{}\n", line.as_str().unwrap_or_default()))?;
                    }
                }
                (None, Some(text)) => show::error(text),
                (None, None) => {
                    show::error("the answer has another shape: the instance is of another version")
                }
            }
        }
        Ok(if is_good { OK } else { FAILED })
    }
}
