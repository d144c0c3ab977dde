//! Names of targets: which addresses they have now, asked again and again on a thread of its own.
//!
//! The system's resolver is asked (files, DNS, whatever `nsswitch.conf` says), because it is what operators configure and debug. It does not tell how
//! long an answer holds, so all names are asked at one interval.
//!
//! Promises:
//! - What could not be asked changes nothing: a resolver that is down takes no target away. It is told once, and once again when it is back.
//! - An address has to be missing from [`MISSED`] answers in a row before it is gone: servers of many addresses give some of them at a time.
//! - At most [`MOST_NAMES`] names and [`MOST_ADDRESSES`] addresses of each; those beyond are left out, and that is told.
//! - Dropping [`Names`] waits for nobody: a question that is under way ends by itself.
//!
//! The resolver blocks, for as long as it is configured to; names are asked one after the other, so a slow one makes the others late, and no one else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};

/// Names of one gateway.
pub const MOST_NAMES: usize = 64;
/// Addresses of one name.
pub const MOST_ADDRESSES: usize = 64;
/// Answers without an address before it is gone.
pub const MISSED: u32 = 3;
/// How often names are asked, usually: as long as answers of cloud load balancers hold.
pub const EVERY: Duration = Duration::from_secs(60);
/// Not more often than this.
const LEAST: Duration = Duration::from_millis(100);
/// Characters of what a resolver says.
const LONGEST: usize = 160;

/// What has become known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameChange {
    /// It has other addresses than before. All three lists are sorted.
    Addresses {
        /// The name.
        name: String,
        /// Those that are new.
        added: Vec<IpAddr>,
        /// Those that are gone.
        removed: Vec<IpAddr>,
        /// All that it has now.
        all: Vec<IpAddr>,
    },
    /// It could not be asked; its addresses stay.
    Failed {
        /// The name.
        name: String,
        /// What the resolver says.
        why: String,
    },
    /// It can be asked again.
    Recovered {
        /// The name.
        name: String,
    },
    /// It has more addresses than are taken.
    TooMany {
        /// The name.
        name: String,
        /// How many an answer had.
        found: usize,
    },
}

impl fmt::Display for NameChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameChange::Addresses { name, added, removed, all } => {
                write!(f, "{name} has {} addresses:", all.len())?;
                added.iter().try_for_each(|address| write!(f, " +{address}"))?;
                removed.iter().try_for_each(|address| write!(f, " -{address}"))
            }
            NameChange::Failed { name, why } => {
                write!(f, "{name} cannot be resolved, its addresses stay as they are: {why}")
            }
            NameChange::Recovered { name } => write!(f, "{name} can be resolved again"),
            NameChange::TooMany { name, found } => {
                write!(f, "{name} has {found} addresses; {MOST_ADDRESSES} of them are taken")
            }
        }
    }
}

/// The thread, and what it has found.
#[derive(Debug)]
pub struct Names {
    changes: Receiver<NameChange>,
    /// Tells it which names there are; closed, that it is over.
    names: Sender<Vec<String>>,
}

impl Names {
    /// Asks the system's resolver for these names, at once and then every so often.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(names: Vec<String>, every: Duration) -> std::io::Result<Self> {
        Self::start_with(names, every, system)
    }

    /// The same with a resolver of the caller's.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start_with(
        names: Vec<String>,
        every: Duration,
        mut resolve: impl FnMut(&str) -> Result<Vec<IpAddr>, String> + Send + 'static,
    ) -> std::io::Result<Self> {
        // Whoever does not read what was found holds the thread up, and nothing else.
        let (tell, changes) = bounded(MOST_NAMES * 4);
        let (to_thread, orders) = unbounded();
        let _ = to_thread.send(names); // its other end is here
        let run = move || {
            let mut book = Book::default();
            let mut wait = Duration::ZERO;
            loop {
                match orders.recv_timeout(wait) {
                    Ok(names) => book.want(names),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                for name in book.names() {
                    // What is wanted may have changed while the resolver thought.
                    match orders.try_recv() {
                        Ok(names) => book.want(names),
                        Err(TryRecvError::Disconnected) => return,
                        Err(TryRecvError::Empty) => {}
                    }
                    if !book.has(&name) {
                        continue;
                    }
                    let answer = resolve(&name);
                    if book.note(&name, answer).into_iter().any(|change| tell.send(change).is_err()) {
                        return;
                    }
                }
                wait = every.max(LEAST);
            }
        };
        std::thread::Builder::new().name("names".into()).spawn(run)?;
        Ok(Names { changes, names: to_thread })
    }

    /// These are the names from now on; new ones are asked at once. Those that are gone are not told of any more.
    pub fn set(&self, names: Vec<String>) {
        let _ = self.names.send(names); // it lives as long as this does, or has ended by a panic of the resolver
    }

    /// What has become known since the last call.
    pub fn poll(&self) -> impl Iterator<Item = NameChange> + '_ {
        self.changes.try_iter()
    }
}

/// The system's resolver.
fn system(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// What is known of all names: answers in, changes out.
#[derive(Debug, Default)]
struct Book {
    names: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Addresses, and how many answers in a row have not had them.
    addresses: BTreeMap<IpAddr, u32>,
    has_failed: bool,
    has_too_many: bool,
}

impl Book {
    fn want(&mut self, names: Vec<String>) {
        let mut before = std::mem::take(&mut self.names);
        for name in names.into_iter().take(MOST_NAMES) {
            let known = before.remove(&name);
            if let Some(known) = known {
                self.names.insert(name, known);
            } else {
                self.names.entry(name).or_default();
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes an answer.
    fn note(&mut self, name: &str, answer: Result<Vec<IpAddr>, String>) -> Vec<NameChange> {
        let Some(known) = self.names.get_mut(name) else { return Vec::new() };
        let name = || name.to_owned();
        let mut changes = Vec::new();
        let mut found = match answer {
            Ok(found) if !found.is_empty() => found,
            failed => {
                if !std::mem::replace(&mut known.has_failed, true) {
                    let why = failed.err().unwrap_or_else(|| "it has no addresses".into());
                    changes
                        .push(NameChange::Failed { name: name(), why: why.chars().take(LONGEST).collect() });
                }
                return changes;
            }
        };
        if std::mem::replace(&mut known.has_failed, false) {
            changes.push(NameChange::Recovered { name: name() });
        }
        found.sort_unstable();
        found.dedup();
        let mut removed = Vec::new();
        known.addresses.retain(|address, missed| {
            *missed = if found.binary_search(address).is_ok() { 0 } else { *missed + 1 };
            let stays = *missed < MISSED;
            if !stays {
                removed.push(*address);
            }
            stays
        });
        let mut added = Vec::new();
        for address in &found {
            if known.addresses.len() < MOST_ADDRESSES && !known.addresses.contains_key(address) {
                known.addresses.insert(*address, 0);
                added.push(*address);
            }
        }
        let has_too_many = found.iter().any(|address| !known.addresses.contains_key(address));
        if has_too_many && !known.has_too_many {
            changes.push(NameChange::TooMany { name: name(), found: found.len() });
        }
        known.has_too_many = has_too_many;
        if !added.is_empty() || !removed.is_empty() {
            let all = known.addresses.keys().copied().collect();
            changes.push(NameChange::Addresses { name: name(), added, removed, all });
        }
        changes
    }
}

#[cfg(test)]
mod tests;
