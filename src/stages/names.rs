//! Names that rules of several stages speak of: each as it is, or with everything below it; in the settings, or a file of them.

use std::collections::HashSet;
use std::path::Path;

use crate::config::{Problem, Settings};

/// Longest file of names: a million names of thirty bytes.
pub const MOST_BYTES: u64 = 32 << 20;

/// Names, each as it is or with everything below it.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: HashSet<Box<[u8]>>,
    below: HashSet<Box<[u8]>>,
}

impl Names {
    /// Adds a name: `www.example.com`, or `.example.com` (or `*.example.com`) for all names below. What is wrong with it, if anything.
    pub fn add(&mut self, name: &str) -> Result<(), &'static str> {
        let (set, name) = match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            Some(rest) => (&mut self.below, rest),
            None => (&mut self.exact, name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || name.len() > 253 {
            return Err("is no name of 1 to 253 characters");
        }
        if name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b == b'*') {
            return Err("has a character that no name has");
        }
        set.insert(name.into_bytes().into());
        Ok(())
    }

    /// Names in it.
    pub fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// None in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Is the name in it? Case and a dot at the end do not matter.
    pub fn has(&self, name: &[u8]) -> bool {
        let mut lower = [0; 255];
        let name = name.strip_suffix(b".").unwrap_or(name);
        let Some(lower) = lower.get_mut(..name.len()) else { return false };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.has_lower(lower)
    }

    /// The same for a name in small letters, without a dot at the end.
    pub fn has_lower(&self, name: &[u8]) -> bool {
        if self.exact.contains(name) {
            return true;
        }
        if self.below.is_empty() {
            return false;
        }
        let mut rest = name;
        while let Some(dot) = rest.iter().position(|b| *b == b'.') {
            rest = rest.get(dot + 1..).unwrap_or(&[]);
            if self.below.contains(rest) {
                return true;
            }
        }
        false
    }
}

/// Names of a list and of a file, which stand in the settings under `key` and `key` with `_file` behind it. What is wrong with them goes to `problems`.
pub fn read(
    settings: &Settings<'_>,
    key: &str,
    list: &[String],
    file: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Names {
    let mut names = Names::default();
    for (i, name) in list.iter().enumerate() {
        if let Err(wrong) = names.add(name) {
            problems.push(settings.problem(&format!("{key}[{i}]"), format!("{name:?} {wrong}"), ""));
        }
    }
    if let Some(file) = file {
        read_lines(settings, &format!("{key}_file"), file, problems, |line| names.add(line));
    }
    names
}

/// Lines of a file that stands in the settings under `key`, but for empty ones and comments (`#`); `add` says what is wrong with one.
pub fn read_lines(
    settings: &Settings<'_>,
    key: &str,
    file: &str,
    problems: &mut Vec<Problem>,
    add: impl FnMut(&str) -> Result<(), &'static str>,
) {
    match settings.read_file(Path::new(&settings.path(file)), MOST_BYTES + 1) {
        Ok(bytes) if bytes.len() as u64 > MOST_BYTES => {
            let what = format!("{file} is longer than {} MB", MOST_BYTES >> 20);
            problems.push(settings.problem(key, what, ""));
        }
        Ok(bytes) => problems.extend(add_lines(add, &bytes, file, key, settings)),
        Err(error) => {
            let what = format!("cannot read {file}: {error}");
            problems.push(settings.problem(key, what, "paths start at the folder of the configuration file"));
        }
    }
}

fn add_lines(
    mut add: impl FnMut(&str) -> Result<(), &'static str>,
    bytes: &[u8],
    file: &str,
    key: &str,
    settings: &Settings<'_>,
) -> Vec<Problem> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).enumerate();
    let named = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let wrong = named.filter_map(|(n, line)| {
        let wrong = add(line).err()?;
        Some(settings.problem(key, format!("{file}:{}: {line:?} {wrong}", n + 1), ""))
    });
    wrong.take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_all_below() {
        let mut names = Names::default();
        for name in ["Exact.example", ".example.com", "*.example.org"] {
            names.add(name).unwrap();
        }
        for (name, is_in) in [
            ("exact.example", true),
            ("EXACT.example.", true),
            ("www.exact.example", false),
            ("www.example.com", true),
            ("a.b.example.org", true),
            ("example.com", false),
            ("badexample.com", false),
            ("", false),
        ] {
            assert_eq!(names.has(name.as_bytes()), is_in, "{name}");
        }
        assert!(!names.has(&[b'a'; 300]));
        assert!(names.add("a b").is_err() && names.add(".").is_err() && names.add("x.*.y").is_err());
    }
}
