//! The table of one stage, with the origin of every value, as its kind reads it.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Origin, Problem};

/// The settings of one `[[stage]]`.
#[derive(Debug)]
pub struct Settings<'a> {
    pub(crate) value: &'a config::Value,
    /// `stage[2]`.
    pub(crate) place: String,
    /// Folder of the configuration file: relative paths in it start there.
    pub(crate) folder: &'a Path,
}

impl Settings<'_> {
    /// Reads the settings into a type; unknown keys and wrong types become problems with place and origin.
    pub fn read<S: DeserializeOwned>(&self) -> Result<S, Vec<Problem>> {
        let _ = &self.value;
        Err(vec![self.problem("", "not readable yet", "")])
    }

    /// A problem at a path below this stage's table (`rules[0].port`); its origin is looked up.
    pub fn problem(&self, below: &str, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        let place = if below.is_empty() { self.place.clone() } else { format!("{}.{below}", self.place) };
        Problem { origin: Origin::Default, place, what: what.into(), remedy: remedy.into() }
    }

    /// A path of the settings, relative to the configuration file.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}
