//! What is wrong with a configuration, where, and what to do.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file; lines and columns count from 1. Line 0 is the whole file.
    File {
        /// The file as the user named it.
        file: String,
        /// Line.
        line: u32,
        /// Column; 0 if only the line is known.
        column: u32,
    },
    /// An environment variable.
    Environment(String),
    /// `--set`, as written.
    CommandLine(String),
    /// Not set by anyone: a default, or something that is missing.
    Default,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// Path of the value: `stage[2].rules[0].port`; empty for the whole file.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub remedy: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line: 0, .. } => f.write_str(file),
            Origin::File { file, line, column: 0 } => write!(f, "{file}:{line}"),
            Origin::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::CommandLine(text) => write!(f, "--set {text}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => {}
            origin => write!(f, "{origin}: ")?,
        }
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
