//! Who may not speak TLS: by version, name and fingerprint.

use std::collections::HashSet;

use super::facts::{Client, Server, rank};

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
        if self.exact.contains(&*lower) {
            return true;
        }
        let mut rest = &*lower;
        while let Some(dot) = rest.iter().position(|b| *b == b'.') {
            rest = rest.get(dot + 1..).unwrap_or(&[]);
            if self.below.contains(rest) {
                return true;
            }
        }
        false
    }
}

/// Why a handshake may not go on. In the order of the kind's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Older than `deny_below`.
    Version,
    /// A name that is denied, or not allowed.
    Name,
    /// No name.
    Unnamed,
    /// A fingerprint that is denied.
    Fingerprint,
    /// It breaks the rules of TLS.
    Malformed,
}

/// What a plan says.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Lowest rank of a version that may be spoken.
    pub lowest: Option<u8>,
    pub deny: Names,
    /// Nothing else may pass, if it is there.
    pub allow: Option<Names>,
    pub deny_unnamed: bool,
    pub deny_ja3: HashSet<[u8; 16]>,
    pub deny_ja4: HashSet<[u8; 36]>,
    pub deny_malformed: bool,
}

impl Rules {
    /// Can a ClientHello be denied?
    pub fn ask_clients(&self) -> bool {
        self.lowest.is_some()
            || !self.deny.is_empty()
            || self.allow.is_some()
            || self.deny_unnamed
            || !self.deny_ja3.is_empty()
            || !self.deny_ja4.is_empty()
    }

    /// Of a client.
    pub fn client(&self, client: &Client) -> Option<Why> {
        if self.is_too_old(client.highest) {
            return Some(Why::Version);
        }
        match client.sni.as_deref().filter(|name| !name.is_empty()) {
            None if self.deny_unnamed => return Some(Why::Unnamed),
            Some(name) if self.deny.has(name) => return Some(Why::Name),
            Some(name) if self.allow.as_ref().is_some_and(|allow| !allow.has(name)) => {
                return Some(Why::Name);
            }
            _ => {}
        }
        let (ja3, ja4) = client.fingerprints.as_ref()?;
        let known = self.deny_ja3.contains(&ja3.hash) || self.deny_ja4.contains(ja4);
        known.then_some(Why::Fingerprint)
    }

    /// Of a server.
    pub fn server(&self, server: &Server) -> Option<Why> {
        self.is_too_old(server.version).then_some(Why::Version)
    }

    fn is_too_old(&self, version: u16) -> bool {
        self.lowest.is_some_and(|lowest| rank(version).is_some_and(|rank| rank < lowest))
    }
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
