//! What a check came to, in words for people and in labels for figures.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::answer::Fault;
use super::attempt::Finding;
use crate::config::span;

/// A check that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    Connected,
    Code(u16),
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is in another network, and there is no router.
    NoWay,
    /// Nobody says that this address is his.
    NoMac { neighbour: Ipv4Addr, after: Duration },
    /// The time is over.
    Late { after: Duration, wanted: Wanted, hint: Option<Hint> },
    /// A reset for an answer to SYN.
    Refused,
    /// A reset later.
    Reset(Wanted),
    /// The target closed the connection.
    Closed(Wanted),
    /// What came is no answer.
    Answer(Fault),
    /// An answer with a code that is not wanted.
    Code(u16),
    /// What the TLS library says.
    Tls(String),
    /// All ports of ours are in use.
    NoPort,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Syn,
    Handshake,
    Answer { begun: bool },
}

/// Why a connection may have had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Its MAC address is known from before, and it does not answer ARP any more.
    Silent(Ipv4Addr),
    /// ICMP "destination unreachable" came, with this code. Anybody can send that, so it is told and not believed.
    Unreachable(u8),
}

impl Reason {
    /// All labels, for figures.
    pub const KINDS: [&'static str; 10] =
        ["no_way", "no_mac", "timeout", "refused", "reset", "closed", "bad_answer", "code", "tls", "no_port"];

    /// The label.
    pub fn kind(&self) -> &'static str {
        let [no_way, no_mac, timeout, refused, reset, closed, bad_answer, code, tls, no_port] = Self::KINDS;
        match self {
            Reason::NoWay => no_way,
            Reason::NoMac { .. } => no_mac,
            Reason::Late { .. } => timeout,
            Reason::Refused => refused,
            Reason::Reset(_) => reset,
            Reason::Closed(_) => closed,
            Reason::Answer(_) => bad_answer,
            Reason::Code(_) => code,
            Reason::Tls(_) => tls,
            Reason::NoPort => no_port,
        }
    }
}

impl fmt::Display for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Good::Connected => f.write_str("connected"),
            Good::Code(code) => write!(f, "HTTP {code}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoWay => f.write_str("it is in another network, and no router to it is configured"),
            Reason::NoMac { neighbour, after } => {
                write!(f, "timed out after {}: nobody answers ARP for {neighbour}", span(*after))
            }
            Reason::Late { after, wanted, hint } => {
                write!(f, "timed out after {}: ", span(*after))?;
                f.write_str(match wanted {
                    Wanted::Syn => "no answer to SYN",
                    Wanted::Handshake => "connected, but the TLS handshake is not complete",
                    Wanted::Answer { begun: false } => "connected, but no answer came",
                    Wanted::Answer { begun: true } => "the answer is not complete",
                })?;
                match hint {
                    None => Ok(()),
                    Some(Hint::Silent(neighbour)) => write!(f, ", and nobody answers ARP for {neighbour}"),
                    Some(Hint::Unreachable(code)) => write!(f, "; ICMP says: {}", unreachable(*code)),
                }
            }
            Reason::Refused => f.write_str("connection refused"),
            Reason::Reset(wanted) => write!(f, "connection reset before {}", end(*wanted)),
            Reason::Closed(wanted) => write!(f, "connection closed before {}", end(*wanted)),
            Reason::Answer(fault) => fault.fmt(f),
            Reason::Code(code) => write!(f, "HTTP {code}"),
            Reason::Tls(what) => write!(f, "TLS: {what}"),
            Reason::NoPort => f.write_str("no local port is free"),
        }
    }
}

/// What a check came to.
pub(super) fn words(finding: &Finding) -> String {
    match finding {
        Ok((good, _)) => good.to_string(),
        Err(reason) => reason.to_string(),
    }
}

fn end(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Syn | Wanted::Handshake => "the TLS handshake was complete",
        Wanted::Answer { begun: false } => "an answer came",
        Wanted::Answer { begun: true } => "the answer was complete",
    }
}

/// Codes of "destination unreachable" (RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1).
fn unreachable(code: u8) -> &'static str {
    match code {
        0 | 6 | 11 => "network unreachable",
        1 | 7 | 8 | 12 => "host unreachable",
        2 => "protocol unreachable",
        3 => "port unreachable",
        4 => "fragmentation needed",
        9 | 10 | 13 => "administratively prohibited",
        _ => "unreachable",
    }
}
