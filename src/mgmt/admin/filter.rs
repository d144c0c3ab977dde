//! What somebody wants to see, in words: `tenant=payments address=10.1.0.0/16 port=443 state=established`.
//!
//! Terms are separated by blanks, and all of them must hold. The same language asks for flows, events and packets; each of these knows some of
//! the terms. What cannot be read is refused with its place, so that a person can be shown it.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{endpoint_name, endpoint_of, suggestion};
use crate::event::{Subject, Type, Types};
use crate::flow::{self, STATES, Standing};
use crate::packet::App;

/// Bytes of a filter: it must fit into the head of a request, each byte as three.
pub const LONGEST: usize = 512;

/// What must hold; the default takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of the tenant.
    pub tenant: Option<String>,
    /// Endpoint.
    pub endpoint: Option<u64>,
    /// IANA number.
    pub protocol: Option<u8>,
    /// One of the ends is here.
    pub address: Option<IpNet>,
    /// The source (of a flow: its originator) is here.
    pub source: Option<IpNet>,
    /// The destination is here.
    pub destination: Option<IpNet>,
    /// The port of one of the ends.
    pub port: Option<RangeInclusive<u16>>,
    /// The source's port.
    pub source_port: Option<RangeInclusive<u16>>,
    /// The destination's port.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// State of a flow.
    pub state: Option<&'static str>,
    /// What the stages have made of a flow.
    pub verdict: Option<Standing>,
    /// What a flow speaks.
    pub app: Option<App>,
    /// A flow is at least so old.
    pub age: Option<Duration>,
    /// A flow has had no packet for at least so long.
    pub idle: Option<Duration>,
    /// What became of a packet.
    pub fate: Option<Fate>,
    /// Why a packet was dropped.
    pub reason: Option<String>,
    /// Types of records.
    pub types: Option<Types>,
    /// Name of the stage that tells.
    pub stage: Option<String>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It went home.
    Home,
    /// It was dropped.
    Dropped,
    /// It is for the host stack.
    Punted,
    /// It waits.
    Held,
}

impl Fate {
    /// All.
    pub const ALL: [Fate; 4] = [Fate::Home, Fate::Dropped, Fate::Punted, Fate::Held];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Fate::Home => "home",
            Fate::Dropped => "dropped",
            Fate::Punted => "punted",
            Fate::Held => "held",
        }
    }
}

/// Terms that a filter of flows may have.
pub const OF_FLOWS: &[&str] = &[
    "tenant",
    "endpoint",
    "protocol",
    "address",
    "source",
    "destination",
    "port",
    "source-port",
    "destination-port",
    "state",
    "verdict",
    "app",
    "age",
    "idle",
];
/// Terms that a filter of packets may have.
pub const OF_PACKETS: &[&str] = &[
    "tenant",
    "endpoint",
    "protocol",
    "address",
    "source",
    "destination",
    "port",
    "source-port",
    "destination-port",
    "fate",
    "reason",
];

/// Terms that a filter of events may have.
pub const OF_EVENTS: &[&str] = &[
    "type",
    "stage",
    "tenant",
    "endpoint",
    "protocol",
    "address",
    "source",
    "destination",
    "port",
    "source-port",
    "destination-port",
    "reason",
];

/// Other names of terms, as other tools have them.
const ALIASES: [(&str, &str); 8] = [
    ("src", "source"),
    ("dst", "destination"),
    ("sport", "source-port"),
    ("dport", "destination-port"),
    ("proto", "protocol"),
    ("host", "address"),
    ("net", "address"),
    ("addr", "address"),
];
/// Protocols that have a word.
const PROTOCOLS: [(&str, u8); 6] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132), ("gre", 47)];

/// What is wrong with a filter, and where: a byte's place in it, and how many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Of the first byte.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// One sentence.
    pub what: String,
}

impl Filter {
    /// Reads a filter that may have these terms.
    pub fn parse(text: &str, terms: &[&'static str]) -> Result<Self, Wrong> {
        if text.len() > LONGEST {
            let what = format!("a filter has at most {LONGEST} bytes");
            let at = text.floor_char_boundary(LONGEST);
            return Err(Wrong { at, len: text.len() - at, what });
        }
        let mut filter = Filter::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in text.split_ascii_whitespace() {
            let at = word.as_ptr().addr() - text.as_ptr().addr();
            let wrong = |what: String| Wrong { at, len: word.len(), what };
            let Some((name, value)) = word.split_once('=') else {
                return Err(wrong(format!("{word:?} is no term: write it as port=443")));
            };
            let full = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, full)| full);
            let Some(term) = terms.iter().find(|term| **term == full) else {
                let near =
                    suggestion(name, terms).unwrap_or_else(|| format!("known are {}", terms.join(", ")));
                return Err(wrong(format!("there is no {name:?} here: {near}")));
            };
            if seen.contains(term) {
                return Err(wrong(format!("{term} is there twice")));
            }
            seen.push(term);
            let begin = at + name.len() + 1;
            let wrong = |what: String| Wrong { at: begin, len: value.len(), what };
            filter.set(term, value).map_err(wrong)?;
        }
        Ok(filter)
    }

    fn set(&mut self, term: &str, value: &str) -> Result<(), String> {
        match term {
            "tenant" => self.tenant = Some(name(value)?),
            "endpoint" => self.endpoint = Some(endpoint_of(value)?),
            "protocol" => self.protocol = Some(protocol(value)?),
            "address" => self.address = Some(net(value)?),
            "source" => self.source = Some(net(value)?),
            "destination" => self.destination = Some(net(value)?),
            "port" => self.port = Some(ports(value)?),
            "source-port" => self.source_port = Some(ports(value)?),
            "destination-port" => self.destination_port = Some(ports(value)?),
            "state" => self.state = Some(one_of(value, &STATES, |word| *word)?),
            "verdict" => self.verdict = Some(one_of(value, &Standing::ALL, |standing| standing.word())?),
            "app" => {
                let app = App::named(value);
                self.app = Some(app.ok_or_else(|| {
                    format!("{value:?} is nothing that flows speak: write tls, http or ssh")
                })?);
            }
            "age" => self.age = Some(time(value)?),
            "idle" => self.idle = Some(time(value)?),
            "fate" => self.fate = Some(one_of(value, &Fate::ALL, |fate| fate.word())?),
            "reason" => self.reason = Some(name(value)?),
            "type" => self.types = Some(types(value)?),
            "stage" => self.stage = Some(name(value)?),
            other => return Err(format!("{other:?} is not known")),
        }
        Ok(())
    }

    /// Is there nothing that must hold?
    pub fn is_all(&self) -> bool {
        *self == Filter::default()
    }

    /// As flows are asked for. `tenant`: the number of a tenant's name.
    pub fn of_flows(&self, tenant: impl Fn(&str) -> Option<u16>) -> Result<flow::Filter, String> {
        let number = match &self.tenant {
            Some(name) => Some(tenant(name).ok_or_else(|| format!("there is no tenant {name:?}"))?),
            None => None,
        };
        Ok(flow::Filter {
            scope: self.endpoint,
            tenant: number,
            tuple: None,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            address: self.address,
            source_port: self.source_port.clone(),
            destination_port: self.destination_port.clone(),
            port: self.port.clone(),
            state: self.state.map(str::to_owned),
            verdict: self.verdict,
            app: self.app,
            age: self.age.unwrap_or_default(),
            idle: self.idle.unwrap_or_default(),
        })
    }

    /// Does a packet between these ends, with these ports if it has any, have what is asked of ends?
    pub fn takes_ends(&self, source: (IpAddr, u16), destination: (IpAddr, u16), protocol: u8) -> bool {
        let net = |net: &Option<IpNet>, at: IpAddr| net.is_none_or(|net| net.contains(&at));
        let ports =
            |ports: &Option<RangeInclusive<u16>>, port| ports.as_ref().is_none_or(|p| p.contains(&port));
        self.protocol.is_none_or(|own| own == protocol)
            && net(&self.source, source.0)
            && net(&self.destination, destination.0)
            && (net(&self.address, source.0) || net(&self.address, destination.0))
            && ports(&self.source_port, source.1)
            && ports(&self.destination_port, destination.1)
            && (ports(&self.port, source.1) || ports(&self.port, destination.1))
    }

    /// Does an event have what is asked? One that has no ends, tenant, stage or reason is not among those of which one of these is asked.
    pub fn takes_event(&self, event: &Subject<'_>) -> bool {
        let is = |asked: &Option<String>, has: Option<&str>| {
            asked.as_ref().is_none_or(|asked| has == Some(asked.as_str()))
        };
        let ends = || match (event.ends, event.protocol) {
            (Some([source, destination]), Some(protocol)) => self.takes_ends(source, destination, protocol),
            _ => !self.asks_ends(),
        };
        self.types.is_none_or(|types| types.has(event.kind))
            && is(&self.stage, event.stage)
            && is(&self.tenant, event.tenant)
            && is(&self.reason, event.reason)
            && self.endpoint.is_none_or(|own| event.endpoint == Some(own))
            && ends()
    }

    /// Is anything asked of the ends?
    pub fn asks_ends(&self) -> bool {
        let nets = [&self.address, &self.source, &self.destination];
        let ports = [&self.port, &self.source_port, &self.destination_port];
        self.protocol.is_some() || nets.iter().any(|net| net.is_some()) || ports.iter().any(|p| p.is_some())
    }
}

impl fmt::Display for Filter {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |ports: &RangeInclusive<u16>| match ports.start() == ports.end() {
            true => ports.start().to_string(),
            false => format!("{}-{}", ports.start(), ports.end()),
        };
        let time = |time: &Duration| humantime::format_duration(*time).to_string().replace(' ', "");
        let terms = [
            self.tenant.as_ref().map(|name| format!("tenant={name}")),
            self.endpoint.map(|id| format!("endpoint={}", endpoint_name(id))),
            self.protocol.map(|number| format!("protocol={number}")),
            self.address.map(|net| format!("address={net}")),
            self.source.map(|net| format!("source={net}")),
            self.destination.map(|net| format!("destination={net}")),
            self.port.as_ref().map(|ports| format!("port={}", range(ports))),
            self.source_port.as_ref().map(|ports| format!("source-port={}", range(ports))),
            self.destination_port.as_ref().map(|ports| format!("destination-port={}", range(ports))),
            self.state.map(|state| format!("state={state}")),
            self.verdict.map(|verdict| format!("verdict={}", verdict.word())),
            self.app.map(|app| format!("app={}", app.word())),
            self.age.as_ref().map(|age| format!("age={}", time(age))),
            self.idle.as_ref().map(|idle| format!("idle={}", time(idle))),
            self.fate.map(|fate| format!("fate={}", fate.word())),
            self.reason.as_ref().map(|reason| format!("reason={reason}")),
            self.types
                .map(|types| format!("type={}", types.iter().map(Type::word).collect::<Vec<_>>().join(","))),
            self.stage.as_ref().map(|stage| format!("stage={stage}")),
        ];
        f.write_str(&terms.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl Wrong {
    /// With the place marked under the text, for a terminal.
    pub fn marked(&self, text: &str) -> String {
        let Wrong { at, len, what } = self;
        marked(text, *at, *len, what)
    }
}

/// A sentence about a place in a text, which is shown below and marked.
pub fn marked(text: &str, at: usize, len: usize, what: &str) -> String {
    let before = text.get(..at).unwrap_or(text).chars().count();
    let bad = text.get(at..at.saturating_add(len)).map_or(1, |bad| bad.chars().count()).max(1);
    format!("{what}\n  {text}\n  {:before$}{}", "", "^".repeat(bad))
}

fn name(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("a name is missing".into()) } else { Ok(value.to_owned()) }
}

/// A protocol by its word or number; why not, in a sentence.
pub fn protocol(value: &str) -> Result<u8, String> {
    let word = value.to_ascii_lowercase();
    let known = PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    known.or_else(|| number(value)).ok_or_else(|| {
        let words: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("{value:?} is no protocol: write {}, or a number up to 255", words.join(", "))
    })
}

fn net(value: &str) -> Result<IpNet, String> {
    let net = value.parse().ok().or_else(|| Some(IpNet::from(value.parse::<IpAddr>().ok()?)));
    net.map(|net: IpNet| net.trunc())
        .ok_or_else(|| format!("{value:?} is no address: write 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32"))
}

fn ports(value: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    match (number::<u16>(first), number::<u16>(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(format!("{value:?} ends before it begins")),
        _ => Err(format!("{value:?} is no port: write 443 or 8000-8999, up to 65535")),
    }
}

/// Digits only: what `parse` takes beside them, a sign, is no number here.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn types(value: &str) -> Result<Types, String> {
    let named = |word: &str| Type::named(word).filter(|kind| Type::PRODUCED.contains(kind));
    let wrong = |word: &str| {
        let known: Vec<&str> = Type::PRODUCED.iter().map(|kind| kind.word()).collect();
        let near = suggestion(word, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")));
        format!("{word:?} is no type of records: {near}")
    };
    value.split(',').map(|word| named(word).ok_or_else(|| wrong(word))).collect()
}

fn time(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value).map_err(|_| format!("{value:?} is no time: write 30s, 5m or 2h"))
}

fn one_of<T: Copy>(value: &str, all: &[T], word: impl Fn(&T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|one| word(one) == value).ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(word).collect();
        format!("{value:?} is not one of {}", words.join(", "))
    })
}

/// One case of the fuzz target `mgmt_filter` and of the property test: whatever comes is refused with a place that lies in it, or read; and what was
/// read is read again from what it is written as. The first byte says which terms there are.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let terms = [OF_FLOWS, OF_PACKETS, OF_EVENTS][usize::from(*kind) % 3];
    let text = String::from_utf8_lossy(bytes);
    match Filter::parse(&text, terms) {
        Ok(filter) => {
            let written = filter.to_string();
            assert_eq!(filter.is_all(), written.is_empty());
            if written.len() <= LONGEST {
                assert_eq!(Filter::parse(&written, terms).as_ref(), Ok(&filter), "{written}");
            }
            let end = (IpAddr::from([10, 1, 2, 3]), 443);
            assert!(filter.asks_ends() || filter.takes_ends(end, end, 6));
            let _ = filter.of_flows(|_| None);
        }
        Err(wrong) => {
            assert!(wrong.at + wrong.len <= text.len() && text.is_char_boundary(wrong.at), "{wrong:?}");
            assert!(wrong.marked(&text).contains('^'));
        }
    }
}

#[cfg(test)]
mod tests;
