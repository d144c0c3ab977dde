//! What protocol stages read, in the shape of Suricata 7's EVE log: bodies of `tls`, `http`, `dns` and `ssh`.
//!
//! Everything in them was sent by somebody: texts and lists have a bound ([`Text`], [`LONGEST_TEXT`], [`LONGEST_LIST`]), and what is not
//! UTF-8 becomes so when it is taken over. Keys and their forms are those of `output-json-tls.c`, `output-json-http.c`,
//! `rust/src/dns/log.rs` and `output-json-ssh.c`; keys that Suricata 7 does not have say so.

use std::fmt;

use serde::Serialize;

/// Bytes of a text; what is longer is cut at a character.
pub const LONGEST_TEXT: usize = 2048;
/// Values of a list; the rest is left out.
pub const LONGEST_LIST: usize = 64;

/// A text of bounded length.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(Box<str>);

impl Text {
    /// Of bytes that somebody sent.
    pub fn new(bytes: &[u8]) -> Self {
        let cut = bytes.get(..LONGEST_TEXT).unwrap_or(bytes);
        let cut = match std::str::from_utf8(cut) {
            Err(error) if bytes.len() > cut.len() && error.error_len().is_none() => {
                cut.get(..error.valid_up_to()).unwrap_or(cut) // a character at the cut
            }
            _ => cut,
        };
        Text(String::from_utf8_lossy(cut).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::new(text.as_bytes())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A list of bounded length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T> List<T> {
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a value, if there is room.
    pub fn push(&mut self, value: T) {
        if self.0.len() < LONGEST_LIST {
            self.0.push(value);
        }
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        List(values.into_iter().take(LONGEST_LIST).collect())
    }
}

/// A fingerprint: its hash, and what that was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fingerprint {
    /// MD5, 32 hexadecimal digits.
    pub hash: Text,
    /// The text that was hashed.
    pub string: Text,
}

/// `tls`. Certificates are not read: `subject`, `issuerdn`, `serial` and the like are never there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// Server name, of the ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Text>,
    /// Negotiated: `SSLv3`, `TLSv1`, `TLS 1.1`, `TLS 1.2`, `TLS 1.3`, and ours: `DTLS 1.2`; the client's highest where no server has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Text>,
    /// The protocol that was left for TLS (STARTTLS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_proto: Option<Text>,
    /// Of the ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja3: Option<Fingerprint>,
    /// Of the ServerHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja3s: Option<Fingerprint>,
    /// JA4 of the ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<Text>,
    /// ALPN that the client offers.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub client_alpns: List<Text>,
    /// ALPN that the server chose.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub server_alpns: List<Text>,
    /// Ours: the cipher suite, as four hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher: Option<Text>,
    /// Ours: the client's highest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<Text>,
    /// Ours: the ClientHello has the extension encrypted_client_hello, so that the name above is the outer one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ech: bool,
}

/// `http`: one request and, if it was seen, its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Http {
    /// Host, without the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Text>,
    /// Port that the Host header names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_port: Option<u16>,
    /// As the request line has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Text>,
    /// Header User-Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_user_agent: Option<Text>,
    /// Header Content-Type of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_content_type: Option<Text>,
    /// Header Referer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_refer: Option<Text>,
    /// Method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<Text>,
    /// `HTTP/1.1` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Text>,
    /// Of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Header Location of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Text>,
    /// Bytes of the answer's body.
    pub length: u64,
}

/// `dns`, version 2: a query, or an answer with everything in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// 2, of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u8>,
    /// `query` or `answer`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The message's.
    pub id: u16,
    /// The header's second word in four hexadecimal digits, of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Text>,
    /// QR, of an answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub qr: bool,
    /// AA.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aa: bool,
    /// TC.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tc: bool,
    /// RD, of an answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rd: bool,
    /// RA.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ra: bool,
    /// Operation.
    pub opcode: u8,
    /// The name that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rrname: Option<Text>,
    /// The type that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rrtype: Option<Text>,
    /// Outcome, of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<Text>,
    /// Number of the transaction within the flow, of a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_id: Option<u64>,
    /// Records of the answer section.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub answers: List<DnsRecord>,
    /// The same by type: the values alone.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub grouped: std::collections::BTreeMap<Box<str>, List<DnsValue>>,
    /// Records of the authority section.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub authorities: List<DnsRecord>,
}

/// One record of a DNS answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsRecord {
    /// Its name.
    pub rrname: Text,
    /// Its type.
    pub rrtype: Text,
    /// Seconds.
    pub ttl: u32,
    /// Its value, where it has a form in text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdata: Option<Text>,
    /// The value of a SOA record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soa: Option<Soa>,
    /// Of an SRV record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srv: Option<Srv>,
    /// Of an SSHFP record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sshfp: Option<Sshfp>,
}

/// The value of a record, as `grouped` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum DnsValue {
    /// An address, a name, a text.
    Text(Text),
    /// SOA.
    Soa(Soa),
    /// SRV.
    Srv(Srv),
    /// SSHFP.
    Sshfp(Sshfp),
}

/// Who is in charge of a zone, and for how long its records may be kept (RFC 1035 section 3.3.13).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Soa {
    /// The server from which the zone comes.
    pub mname: Text,
    /// Whom to write to.
    pub rname: Text,
    /// Version of the zone.
    pub serial: u32,
    /// Seconds.
    pub refresh: u32,
    /// Seconds.
    pub retry: u32,
    /// Seconds.
    pub expire: u32,
    /// Seconds for which "there is no such name" may be kept.
    pub minimum: u32,
}

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Srv {
    /// The lowest is tried first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its host.
    pub name: Text,
}

/// Fingerprint of a host's SSH key (RFC 4255).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sshfp {
    /// Hexadecimal, with colons.
    pub fingerprint: Text,
    /// Number of the key's algorithm.
    pub algo: u8,
    /// Number of the fingerprint's.
    #[serde(rename = "type")]
    pub kind: u8,
}

/// `ssh`: who speaks which version of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ssh {
    /// The originator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SshEnd>,
    /// The responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<SshEnd>,
}

/// One end of an SSH connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SshEnd {
    /// Of the protocol: `2.0`.
    pub proto_version: Text,
    /// Of the program.
    pub software_version: Text,
    /// HASSH of its key exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hassh: Option<Fingerprint>,
}

#[cfg(test)]
mod tests;
