//! Who may not speak TLS: by version, name and fingerprint.

use std::collections::HashSet;

use super::facts::{Client, Server, rank};
use super::hello::ClientHello;
use crate::stages::names::Names;

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
    /// And of one that is not told.
    pub reported: Option<u8>,
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
            || self.ask_fingerprints()
    }

    /// Does any rule go by fingerprints?
    pub fn ask_fingerprints(&self) -> bool {
        !self.deny_ja3.is_empty() || !self.deny_ja4.is_empty()
    }

    /// Of a client, by its hello and what was made of it.
    pub fn client(&self, hello: &ClientHello<'_>, client: &Client) -> Option<Why> {
        if self.is_too_old(client.highest) {
            return Some(Why::Version);
        }
        match hello.sni().filter(|name| !name.is_empty()) {
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

    /// The rank of a version that is to be told.
    pub fn reports(&self, version: u16) -> Option<u8> {
        let rank = rank(version)?;
        (rank < self.reported?).then_some(rank)
    }

    fn is_too_old(&self, version: u16) -> bool {
        self.lowest.is_some_and(|lowest| rank(version).is_some_and(|rank| rank < lowest))
    }
}
