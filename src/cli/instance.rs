//! Which running instance is meant, and asking it.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::config::ControlSocket;
use crate::mgmt::admin::client::{Client, Error};
use crate::mgmt::admin::filter;

/// Where instances listen that were told nothing else.
const USUAL: &str = "/run/sluicegate";

/// A running instance.
#[derive(Debug, Args)]
pub struct Instance {
    /// Its socket (its management.socket); without this and without --of, the only one in /run/sluicegate
    #[arg(long, value_name = "PATH", env = "SLUICEGATE_MANAGEMENT__SOCKET", conflicts_with = "of")]
    socket: Option<PathBuf>,
    /// The pipeline file with which it was started, to find its socket
    #[arg(long, value_name = "FILE")]
    of: Option<PathBuf>,
}

impl Instance {
    /// By the file that somebody named, or by its socket.
    pub fn named(file: Option<PathBuf>, socket: Option<PathBuf>) -> Self {
        Instance { socket, of: file }
    }

    /// The way to it.
    pub fn client(&self) -> Result<Client, Failure> {
        let path = match (&self.socket, &self.of) {
            (Some(path), _) => path.clone(),
            (None, Some(file)) => of_file(file)?,
            (None, None) => only_one(Path::new(USUAL))?,
        };
        Ok(Client::new(&path))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error.to_string())
    }
}

/// What an instance says to a filter; the place of a mistake is marked.
pub fn refused(error: Error, filter: &str) -> Failure {
    if let Error::Refused { text, answer, .. } = &error
        && let (Some(at), Some(len)) = (answer["at"].as_u64(), answer["length"].as_u64())
    {
        return Failure::Other(filter::marked(filter, at as usize, len as usize, text));
    }
    error.into()
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

/// The only socket at which somebody listens. One that was killed has left its own behind.
fn only_one(folder: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    sockets.sort();
    let is_dead = |path: &PathBuf| {
        let refused = UnixStream::connect(path).err().map(|error| error.kind());
        refused == Some(ErrorKind::ConnectionRefused)
    };
    let (dead, alive): (Vec<PathBuf>, Vec<PathBuf>) = sockets.into_iter().partition(is_dead);
    let names = |paths: &[PathBuf]| {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    };
    match alive.as_slice() {
        [one] => Ok(one.clone()),
        [] if dead.is_empty() => Err(Failure::Other(format!(
            "no instance listens in {}; name its file, or --socket",
            folder.display()
        ))),
        [] => Err(Failure::Other(format!(
            "no instance runs; {} was left behind by one that was killed; name another one's file, or --socket",
            names(&dead)
        ))),
        many => {
            Err(Failure::Other(format!("there are several instances: {}; name one: --socket", names(many))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Sockets of instances that were killed are nobody's, and said to be that if there is no other.
    #[test]
    fn the_one_that_lives_is_found_among_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let said = |found: Result<PathBuf, Failure>| match found {
            Err(Failure::Other(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(said(only_one(folder.path())).starts_with("no instance listens in"));
        for name in ["a.sock", "c.sock"] {
            drop(UnixListener::bind(at(name)).unwrap());
        }
        let text = said(only_one(folder.path()));
        assert!(text.starts_with("no instance runs;") && text.contains("c.sock"), "{text}");
        let _alive = UnixListener::bind(at("b.sock")).unwrap();
        assert_eq!(only_one(folder.path()).unwrap(), at("b.sock"));
        let _another = UnixListener::bind(at("d.sock")).unwrap();
        let text = said(only_one(folder.path()));
        assert!(text.contains("several") && text.contains("d.sock") && !text.contains("a.sock"), "{text}");
    }
}
