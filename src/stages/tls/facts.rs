//! What was read of a handshake, in a form that outlives its packets.

use super::fingerprint::{self, Over};
use super::hello::{ClientHello, OLD_RETRY, ServerHello};

/// Longest list of protocols that is kept, and longest name.
const MOST_PROTOCOLS: usize = 16;

/// A fingerprint and the text it was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// MD5 of the text.
    pub hash: [u8; 16],
    /// The text.
    pub text: String,
}

impl Fingerprint {
    /// Its hash as text.
    pub fn hex(&self) -> String {
        let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or('0');
        let mut hex = String::with_capacity(2 * self.hash.len());
        hex.extend(self.hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        hex
    }
}

/// What is made of a hello beyond what it takes to read it: hashes and copies cost more than all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Names, protocols and fingerprints, for somebody who is told.
    pub record: bool,
    /// Fingerprints of the client, for a rule.
    pub fingerprints: bool,
}

/// Of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// legacy_version.
    pub version: u16,
    /// The highest that it offers; unknown values left out.
    pub highest: u16,
    /// The highest published version (no draft) that it lists in supported_versions, if it lists any.
    pub listed: Option<u16>,
    /// All of it is here. If not, nobody wanted to be told when it was read: name, protocols and fingerprints are missing.
    pub whole: bool,
    /// The server's name; empty if the extension is there without one.
    pub sni: Option<Box<[u8]>>,
    /// Protocols that it offers (ALPN), the first sixteen.
    pub alpn: Vec<Box<[u8]>>,
    /// JA3 and JA4 (36 characters). None of a malformed hello: its lists are not what its sender has.
    pub fingerprints: Option<(Fingerprint, [u8; 36])>,
    /// It has an encrypted hello or name.
    pub ech: bool,
    /// Its lengths contradict each other: this is as far as they agree.
    pub malformed: bool,
}

/// Of a ServerHello or HelloRetryRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The version that both will speak.
    pub version: u16,
    /// The cipher suite.
    pub cipher: u16,
    /// The protocol that it chose (ALPN), where that is in the clear and somebody is told.
    pub alpn: Option<Box<[u8]>>,
    /// JA3S, if somebody is told.
    pub ja3s: Option<Fingerprint>,
    /// It asks for another ClientHello.
    pub is_retry: bool,
}

impl Client {
    pub(super) fn of(hello: &ClientHello<'_>, over: Over, wanted: Wanted) -> Client {
        let Wanted { record, fingerprints } = wanted;
        let fingerprints = ((record || fingerprints) && !hello.is_malformed).then(|| {
            let mut ja3 = String::with_capacity(512);
            fingerprint::ja3(hello, &mut ja3);
            let (hex, sorted) = (&mut String::with_capacity(512), &mut Vec::with_capacity(128));
            let ja4 = fingerprint::ja4(hello, over, hex, sorted);
            (Fingerprint { hash: fingerprint::md5(&ja3), text: ja3 }, ja4)
        });
        // Of a version and its drafts the version itself, which has the lower number.
        let highest =
            hello.versions().filter_map(|v| Some((rank(v)?, v))).max_by_key(|(rank, v)| (*rank, !v));
        Client {
            version: hello.version,
            highest: highest.map_or(hello.version, |(_, version)| version),
            listed: hello
                .versions()
                .filter(|v| is_published(*v))
                .filter_map(|v| Some((rank(v)?, v)))
                .max()
                .map(|(_, v)| v),
            whole: record,
            sni: hello.sni().filter(|_| record).map(Into::into),
            alpn: hello
                .extensions
                .alpn()
                .take_while(|_| record)
                .take(MOST_PROTOCOLS)
                .map(Into::into)
                .collect(),
            fingerprints,
            ech: hello.is_encrypted(),
            malformed: hello.is_malformed,
        }
    }

    /// JA3.
    pub fn ja3(&self) -> Option<&Fingerprint> {
        self.fingerprints.as_ref().map(|(ja3, _)| ja3)
    }

    /// JA4 as text.
    pub fn ja4(&self) -> Option<&str> {
        self.fingerprints.as_ref().and_then(|(_, ja4)| std::str::from_utf8(ja4).ok())
    }
}

impl Server {
    pub(super) fn of(hello: &ServerHello<'_>, wanted: Wanted) -> Server {
        let ja3s = wanted.record.then(|| {
            let mut text = String::with_capacity(64);
            fingerprint::ja3s(hello, &mut text);
            Fingerprint { hash: fingerprint::md5(&text), text }
        });
        Server {
            version: hello.negotiated(),
            cipher: hello.cipher,
            alpn: hello.extensions.alpn().next().filter(|_| wanted.record).map(Into::into),
            ja3s,
            is_retry: hello.is_retry,
        }
    }

    /// A HelloRetryRequest of a draft: it has a version and nothing else that is a ServerHello's.
    pub(super) fn is_old_retry(kind: u8) -> bool {
        kind == OLD_RETRY
    }
}

/// One handshake, as far as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Over datagrams.
    pub dtls: bool,
    /// What the client said.
    pub client: Option<&'a Client>,
    /// What the server said.
    pub server: Option<&'a Server>,
    /// It may not go on.
    pub denied: bool,
}

impl Facts<'_> {
    /// Somebody wanted to be told when the hellos were read, so all of them is here.
    pub fn are_whole(&self) -> bool {
        self.client.is_none_or(|client| client.whole)
            && self.server.is_none_or(|server| server.ja3s.is_some())
    }
}

/// How new a version is, DTLS beside TLS; `None` for a value that is no version.
pub fn rank(version: u16) -> Option<u8> {
    match version {
        0x0002 | 0x0200 => Some(0),
        0x0300 => Some(1),
        0x0301 => Some(2),
        0x0302 | 0xfeff => Some(3),
        0x0303 | 0xfefd => Some(4),
        // TLS 1.3, its drafts, those of Facebook, and DTLS 1.3.
        0x0304 | 0x7f00..=0x7fff | 0xfb00..=0xfbff | 0xfefc => Some(5),
        _ => None,
    }
}

/// Is it a version that an RFC has?
fn is_published(version: u16) -> bool {
    matches!(version, 0x0300..=0x0304 | 0xfeff | 0xfefd | 0xfefc)
}

/// A version as people write it.
pub fn version_name(version: u16) -> String {
    match version {
        0x0002 | 0x0200 => "SSL 2.0".into(),
        0x0300 => "SSL 3.0".into(),
        0x0301 => "TLS 1.0".into(),
        0x0302 => "TLS 1.1".into(),
        0x0303 => "TLS 1.2".into(),
        0x0304 => "TLS 1.3".into(),
        0xfeff => "DTLS 1.0".into(),
        0xfefd => "DTLS 1.2".into(),
        0xfefc => "DTLS 1.3".into(),
        0x7f00..=0x7fff => format!("TLS 1.3 (draft {})", version & 0xff),
        0xfb00..=0xfbff => format!("TLS 1.3 (Fizz draft {})", version & 0xff),
        other => format!("{other:#06x}"),
    }
}
