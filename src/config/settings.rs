//! The table of one stage, with the origin of every value, as its kind reads it.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::source::origin_of;
use super::value::known_here;
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
    /// Names of the tenants, in the order of their numbers; not there if the rest of the file could not be read.
    pub(crate) tenants: Option<&'a [String]>,
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

    /// The number of the tenant of that name, which stands below this stage's table. Numbers stay until a restart.
    pub fn tenant(&self, below: &str, name: &str) -> Result<u16, Problem> {
        let Some(tenants) = self.tenants else { return Ok(0) };
        let found = tenants.iter().position(|tenant| tenant == name);
        found.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| {
            let names: Vec<&str> = tenants.iter().map(String::as_str).collect();
            self.problem(below, format!("there is no tenant {name:?}"), known_here(name, &names))
        })
    }

    /// What tenants are called, in the order of their numbers; `None` if the rest of the file could not be read.
    pub fn tenant_names(&self) -> Option<&[String]> {
        self.tenants
    }

    /// How many tenants there are: their numbers are below that.
    pub fn tenants(&self) -> usize {
        self.tenants.map_or(1, <[String]>::len)
    }

    /// A path of the settings, relative to the configuration file.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The first `most` bytes of a file that the settings name. Files are read this way and no other: a reload knows by what was read whether the
    /// stage has changed.
    pub fn read_file(&self, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
        if !self.files {
            return Err(std::io::Error::other("files are not read here"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
        self.read.borrow_mut().push(super::policy::digest(&bytes));
        Ok(bytes)
    }

    /// What tells these settings from others: of the kind, the values, what `more` says, and the files that were read.
    pub(super) fn mark(&self, kind: &str, more: &str) -> [u8; 32] {
        let mut mark = Sha256::new();
        for word in [kind, more] {
            mark.update((word.len() as u64).to_le_bytes());
            mark.update(word);
        }
        digest(self.value, &mut mark);
        self.read.borrow().iter().for_each(|file| mark.update(file)); // all of one length
        mark.finalize().into()
    }
}

/// A value with everything below it, tables in the order of their keys.
fn digest(value: &Value, to: &mut Sha256) {
    let mut put = |kind: u8, bytes: &[u8]| {
        to.update([kind]);
        to.update((bytes.len() as u64).to_le_bytes());
        to.update(bytes);
    };
    match &value.kind {
        ValueKind::Table(table) => {
            put(b'{', &(table.len() as u64).to_le_bytes());
            let mut rows: Vec<_> = table.iter().collect();
            rows.sort_unstable_by_key(|(key, _)| key.as_str());
            for (key, value) in rows {
                to.update((key.len() as u64).to_le_bytes());
                to.update(key);
                digest(value, to);
            }
        }
        ValueKind::Array(list) => {
            put(b'[', &(list.len() as u64).to_le_bytes());
            list.iter().for_each(|value| digest(value, to));
        }
        ValueKind::Nil => put(b'-', &[]),
        ValueKind::Boolean(on) => put(b'b', &[u8::from(*on)]),
        ValueKind::Float(number) => put(b'f', &number.to_bits().to_le_bytes()),
        ValueKind::String(text) => put(b's', text.as_bytes()),
        number => put(b'n', number.to_string().as_bytes()),
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
