//! Is this machine, and the instance that runs on it, what fast and faithful packet processing needs? Each check says what it found and, in one line,
//! what to do about it.
//!
//! Machines are read below a root directory (`/sys`, `/proc`), so tests have machines of their own; instances tell about themselves
//! ([`Run`]). What cannot be found out is said to be unknown, never good. Nothing is changed.

mod machine;
mod ports;
mod run;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Plan;
pub use run::{Port, Queue, Run};

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Something to know.
    Note,
    /// Nobody can say from here.
    Unknown,
    /// It costs speed, or will cost it.
    Warning,
    /// It does not work like this, or packets are lost.
    Bad,
}

impl Level {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Note => "note",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Bad => "bad",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of what.
    pub check: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do, in one line.
    pub remedy: Option<String>,
}

/// Every check, in the order in which they are printed.
pub const CHECKS: &[&str] = &[
    "dpdk",
    "hugepages",
    "iommu",
    "write-combining",
    "llq",
    "numa",
    "isolation",
    "clock",
    "mtu",
    "rss",
    "queues",
    "allowances",
];

/// Looks at the machine below a root, for a plan if there is one, and at a running instance if one answered.
pub fn examine(root: &Path, plan: Option<&Plan>, run: Option<&Run>) -> Vec<Finding> {
    let at = At(root.to_owned());
    let mut found = Findings(Vec::new());
    run::dpdk(&at, run, &mut found);
    machine::hugepages(&at, plan, run, &mut found);
    let devices = ports::devices(&at, plan, run);
    ports::iommu(&at, &devices, &mut found);
    ports::write_combining(&at, &devices, &mut found);
    ports::llq(&devices, &mut found);
    machine::numa(&at, plan, &devices, &mut found);
    machine::isolation(&at, plan, &mut found);
    machine::clock(&at, &mut found);
    ports::mtu(&at, plan, run, &mut found);
    run::rss(run, &mut found);
    run::queues(run, &mut found);
    run::allowances(run, &mut found);
    found.0
}

/// What was found until now.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, level: Level, found: impl Into<String>, remedy: &str) {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        self.0.push(Finding { check, level, found: found.into(), remedy });
    }

    fn good(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Level::Good, found, "");
    }
}

/// Files of a machine.
struct At(PathBuf);

impl At {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A file's text without white space around it.
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The last part of where a link leads.
    fn link(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}
