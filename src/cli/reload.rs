//! `sluicegate reload`: asks a running instance to load its configuration anew.

use std::path::PathBuf;

use clap::Args;

use super::instance::Instance;
use super::{FAILED, Failure, OK, Outcome, show};
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
    /// Load this file as a candidate beside what is in force, which stays as it is: `sluicegate shadow` tells what would be different
    #[arg(long, value_name = "CANDIDATE")]
    shadow: Option<PathBuf>,
    /// Its answer as JSON
    #[arg(long)]
    json: bool,
}

/// What a candidate would do, and what becomes of it.
#[derive(Debug, Args)]
pub struct Shadow {
    /// The pipeline file with which the instance was started; the only instance if there is neither this nor --socket
    file: Option<PathBuf>,
    /// Where it takes commands: its management.socket
    #[arg(long, value_name = "PATH", env = "SLUICEGATE_MANAGEMENT__SOCKET", conflicts_with = "file")]
    socket: Option<PathBuf>,
    /// Put the candidate in force, as a reload does
    #[arg(long, conflicts_with = "cancel")]
    promote: bool,
    /// Let the candidate go
    #[arg(long)]
    cancel: bool,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

impl Shadow {
    pub(super) fn run(self) -> Outcome {
        let command = match (self.promote, self.cancel) {
            (true, _) => Command::Promote,
            (_, true) => Command::CancelShadow,
            _ => Command::ShadowStatus,
        };
        ask(self.socket, self.file, command, self.json)
    }
}

impl Reload {
    pub(super) fn run(self) -> Outcome {
        let command = match self.shadow {
            None => Command::Reload,
            // The instance may run in another folder.
            Some(file) => Command::Shadow {
                file: std::path::absolute(&file)
                    .map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?,
            },
        };
        ask(self.socket, self.file, command, self.json)
    }
}

/// Asks the instance, and says what it answers.
fn ask(socket: Option<PathBuf>, file: Option<PathBuf>, command: Command, json: bool) -> Outcome {
    let client = Instance::named(file, socket).client()?;
    let answer = match client.post("command", &[], &control::request(command)) {
        Err(Error::Refused { answer, .. }) => answer,
        other => other?,
    };
    let is_good = answer["ok"] == true;
    if json {
        show::print(format_args!("{answer}\n"))?;
    } else {
        match (answer["lines"].as_array(), answer["text"].as_str()) {
            (Some(lines), _) => {
                for line in lines {
                    show::print(format_args!("{}\n", line.as_str().unwrap_or_default()))?;
                }
            }
            (None, Some(text)) => show::error(text),
            (None, None) => show::error("the answer has another shape: the instance is of another version"),
        }
    }
    Ok(if is_good { OK } else { FAILED })
}
