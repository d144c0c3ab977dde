//! The table of one stage, with the origin of every value, as its kind reads it.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};
use serde::de::DeserializeOwned;

use super::source::origin_of;
use super::{Problem, value};

/// The settings of one `[[stage]]`: its table without the keys that are the framework's.
#[derive(Debug)]
pub struct Settings<'a> {
    pub(crate) value: &'a Value,
    /// `stage[2] "acl"`.
    pub(crate) place: String,
    /// Folder of the configuration file: relative paths in it start there.
    pub(crate) folder: &'a Path,
    /// Files may be opened ([`super::Options::files`]).
    pub(crate) files: bool,
    /// Digests of the files that were read, in that order.
    pub(super) read: RefCell<Vec<String>>,
}

impl Settings<'_> {
    /// Reads the settings into a type; unknown keys and wrong types become problems with place and origin.
    pub fn read<S: DeserializeOwned>(&self) -> Result<S, Vec<Problem>> {
        value::read(self.value, &self.place, super::schema::STAGE_KEYS)
    }

    /// A problem at a path below this stage's table (`rules[0].port`); its origin is looked up.
    pub fn problem(&self, below: &str, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        let place = match below {
            "" => self.place.clone(),
            below if self.place.ends_with('"') => format!("{}: {below}", self.place),
            below => format!("{}.{below}", self.place),
        };
        let origin = origin_of(find(self.value, below));
        Problem { origin, place, what: what.into(), remedy: remedy.into() }
    }

    /// A path of the settings, relative to the configuration file.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The first `most` bytes of a file that the settings name.
    pub fn read_file(&self, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
        if !self.files {
            return Err(std::io::Error::other("files are not read here"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
        self.read.borrow_mut().push(super::policy::digest(&bytes));
        Ok(bytes)
    }
}

/// The value at a path such as `rules[0].port`, or the innermost one on the way that is there.
pub(super) fn find<'a>(root: &'a Value, path: &str) -> &'a Value {
    let mut at = root;
    for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty())
    {
        let next = match &at.kind {
            ValueKind::Table(table) => table.get(step),
            ValueKind::Array(list) => step.parse().ok().and_then(|i: usize| list.get(i)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    at
}
