//! A whole network on one machine: a client, a gateway, appliances and a server, with real packets between them.
//!
//! ```text
//!  client                    gateway                       server          each box is a network namespace
//!  +--------+     veth     +---------------------+     veth     +--------+
//!  | kernel |==============| to-client to-server |==============| kernel |
//!  +--------+              |   gateway (DPDK)    |              +--------+
//!                          |         gw          |
//!                          +---------||----------+
//!                                fabric: a bridge
//!                           ||                 ||
//!                     app-1 (DPDK)       app-2 (DPDK) ...
//! ```
//!
//! Client and server are kernels with addresses of one subnet, so what goes between them is what goes between any two hosts: ARP, ND, TCP, fragments.
//! The gateway and the appliances are the program itself, each a process with ports over `net_af_packet`.
//!
//! Promises: nothing is made outside of namespaces whose names have the lab's in them, and of a folder below [`FOLDER`]; what is made is
//! written down before it is made, so that whoever comes next clears it away, whatever happened to the lab; a process is ended only if its
//! start time is the one that was written down, or if it carries the lab's mark in its environment, and a namespace is removed only if it is the
//! one that the lab made.

pub mod command;
pub mod files;
pub mod layout;
pub mod process;
pub mod state;
pub mod network;
pub mod scenario;
pub mod play;
pub mod report;
pub mod probe;

use std::path::{Path, PathBuf};

pub use layout::{Shape, Way};
pub use network::Lab;

/// Where labs write down what they have made.
pub const FOLDER: &str = "/run/sluicegate/lab";
/// In the environment of every process of a lab, with the lab's name.
pub const MARK: &str = "SLUICEGATE_LAB";
/// Longest name of a lab.
const LONGEST: usize = 20;

/// Why a lab does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error("a lab makes network namespaces, for which one has to be root; run it with sudo")]
    NotRoot,
    /// Not a name.
    #[error("{0:?} is no name for a lab: take 1 to 20 small letters, digits and `-`")]
    Name(String),
    /// A program that is needed is not there.
    #[error("{program}: there is no such program here; install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// What has it on Debian.
        package: &'static str,
    },
    /// A program did not do what it was asked for.
    #[error("`{command}` failed: {said}")]
    Command {
        /// All of it.
        command: String,
        /// What it said.
        said: String,
    },
    /// Somebody else has a lab of that name.
    #[error("lab {name:?} is being used by process {pid}; end that, or take another --name")]
    InUse {
        /// The lab.
        name: String,
        /// Who has it.
        pid: u32,
    },
    /// It is there already.
    #[error("lab {0:?} is up; `sluicegate lab down --name {0}` takes it down, or take another --name")]
    IsUp(String),
    /// It is not there.
    #[error("there is no lab {0:?}; `sluicegate lab up --name {0}` makes one")]
    Absent(String),
    /// There is something of that name which we have not made.
    #[error(
        "network namespace {0} is there, and no lab made it; `ip netns del {0}` if nobody needs it, or take another --name"
    )]
    Foreign(String),
    /// A file.
    #[error("{path}: {what}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A process ended, or did not become ready.
    #[error("{name} {what}{}", tail(.said))]
    Process {
        /// Which.
        name: String,
        /// What it did.
        what: String,
        /// The last that it said.
        said: String,
    },
    /// An instance said no.
    #[error("{name}: {what}")]
    Refused {
        /// Which.
        name: String,
        /// What it said.
        what: String,
    },
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

fn tail(said: &str) -> String {
    match said.trim_end() {
        "" => String::new(),
        said => format!("; it said last:\n{said}"),
    }
}

impl Error {
    /// Something with a file.
    pub fn file(path: &Path, what: impl std::fmt::Display) -> Error {
        Error::File { path: path.display().to_string(), what: what.to_string() }
    }
}

/// The name of a lab: part of names of namespaces and folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// A name, if it is one.
    pub fn new(text: &str) -> Result<Name, Error> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name =
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('-');
        is_name.then(|| Name(text.to_owned())).ok_or_else(|| Error::Name(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it writes down what it has made.
    pub fn state(&self) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.json", self.0))
    }

    /// Its folder: files of its processes, sockets, logs.
    pub fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }
}

/// Refuses whoever is not root.
pub fn need_root() -> Result<(), Error> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Error::NotRoot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_other_names() {
        for name in ["lab", "a", "test-12", "0123456789-123456789"] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
        for wrong in ["", "-a", "A", "a/b", "..", "a b", "ä", "0123456789-1234567890"] {
            assert!(matches!(Name::new(wrong), Err(Error::Name(_))), "{wrong}");
        }
    }
}
