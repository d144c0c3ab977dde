//! `sluicegate reload`: asks a running instance to load its configuration anew.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{FAILED, Failure, OK, Outcome, show};
use crate::config::ControlSocket;
use crate::mgmt::control::{self, Command};

/// Where instances listen that were told nothing else.
const USUAL: &str = "/run/sluicegate";

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
    let path = self::socket(socket, file)?;
    let failed = |error: std::io::Error| {
        Failure::Other(format!(
            "{}: {error}; is it running, as this user, and is that its management.socket?",
            path.display()
        ))
    };
    let answer = control::ask(&path, command).map_err(failed)?;
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

/// Where an instance takes commands.
pub(super) fn socket(socket: Option<PathBuf>, file: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match (socket, file) {
        (Some(path), _) => Ok(path),
        (None, Some(file)) => of_file(&file),
        (None, None) => only_one(Path::new(USUAL)),
    }
}

/// The socket of an instance with this file, even if there is a mistake in the rest of it.
fn of_file(file: &Path) -> Result<PathBuf, Failure> {
    let usual = || ControlSocket::usual(&file.display().to_string()).path().map(Path::to_owned);
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::Other(format!("{}: {error}; name the file of the instance, or --socket", file.display()))
    })?;
    let given = text.parse::<toml::Table>().ok().and_then(|table| {
        let path = table.get("management")?.get("socket")?.as_str()?.to_owned();
        Some(path)
    });
    match given.as_deref() {
        Some("off") => {
            Err(Failure::Other(format!("{}: management.socket is off; send SIGHUP instead", file.display())))
        }
        Some(path) => Ok(file.parent().unwrap_or(Path::new("")).join(path)),
        None => usual().ok_or_else(|| Failure::Other("name the --socket".into())),
    }
}

fn only_one(folder: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    sockets.sort();
    match sockets.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::Other(format!(
            "no instance listens in {}; name its file, or --socket",
            folder.display()
        ))),
        many => {
            let names: Vec<String> = many.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::Other(format!(
                "there are several instances: {}; name one: --socket",
                names.join(", ")
            )))
        }
    }
}
