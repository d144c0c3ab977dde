//! What a `[[stage]]` of this kind says.

use std::sync::Arc;

use serde::Deserialize;

use super::gather::PREFIX;
use super::rules::{Action, Rule, Rules};
use super::tunnel::{Signs, Watch};
use super::words;
use crate::config::{self, Problem};
use crate::stages::names::{self, Names};
use crate::stages::places::Places;

/// Rules of one stage. Each is asked in turn, so they are few; names belong into sets.
const MOST_RULES: usize = 256;
/// Ports that are listed, at most.
const MOST_PORTS: usize = 16;
/// Of whom names are not suspicious: addresses that are looked up by number.
const EXCEPT: [&str; 2] = [".in-addr.arpa", ".ip6.arpa"];

pub(super) const EXAMPLE: &str = r#"[[stage]]
use = "dns"

[[stage.rule]]
action = "deny"
names = [".ads.example", "tracker.example"]
comment = "ads"

[[stage.rule]]
action = "log"
types = ["NULL", "AXFR"]
"#;

pub(super) const HELP: &str = r#"rule       [[stage.rule]] tables, asked in order of each question:
  action     allow | deny | reject: the search ends. deny drops the packet; reject also tells
             its sender: UDP by ICMP, so that a resolver does not wait. Over TCP either ends
             the connection (deny: in silence; reject: by a RST to both ends).
             log makes an alert record (docs/events.md), and the search goes on.
  names      "www.example.com", or ".example.com" for all names below it (not itself); any
             if missing
  names_file a file of such names, one a line; lines that start with # are comments
  types      "TXT", "TYPE65" or 65; any if missing. ANY is a type like the others
  comment    shown beside the rule's counter, and the signature of its alerts
  id         signature_id of its alerts; its place, from 1, if missing
  severity   of its alerts, 1 (worst) to 255, default 3
default    what happens to questions that no rule decides on: allow (default) | deny | reject
malformed  messages that break the rules of DNS: pass (default; counted and told) or deny
ports      on which DNS is spoken, UDP and TCP, up to 16, default [53]
detect     true (default): flows on other ports are read as well if what they begin with looks
           like DNS. NetBIOS, mDNS and LLMNR (ports 137, 5353, 5355) only if they are listed.
hold       true: over TCP, a frame with the beginning of a question waits until all of that has
           come. Default: true if something can be denied
messages   TCP messages in pieces that each worker gathers at a time, 1 to 65535, default 512;
           beyond that the oldest is passed over and goes by on_unread
message_bytes  bytes that are kept of each, 512 to 65535, default 4096; the rest is not read
tunnel     [stage.tunnel]: signs that names carry data; 0 turns one off
  action         report (default): an anomaly record; deny: it is dropped as well; off
  name_bytes     a name of so many bytes, default 150
  label_bytes    a label of so many, default 60
  entropy        bits for each byte in front of the domain, default 4.5, if there are at least
  entropy_bytes  so many bytes, default 80
  names_per_minute  different names below one domain that one client asks for, default 200;
                 up to 500. A forwarder is one client: raise it, or except its domains
  except         names that are not looked at, as in rules;
                 default [".in-addr.arpa", ".ip6.arpa"]
  except_file    a file of these
  sources        pairs of client and domain that each worker counts, 16 to 1048576,
                 default 4096, 48 bytes each

Every message is decided on by itself, queries and answers alike; a UDP flow is never settled
while it speaks DNS. Read are: UDP datagrams, and of one in fragments the first; TCP, message
by message, up to stream.depth_kb of each direction. What cannot be read (fragments of
queries, gaps, no room, what is behind the depth where something can be denied) goes by
on_unread of the stage. DNS in TLS, HTTPS and QUIC is not seen.
"#;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) rules: Arc<Rules>,
    pub(super) ports: Vec<u16>,
    pub(super) detect: bool,
    pub(super) hold: bool,
    pub(super) messages: u16,
    pub(super) message_bytes: usize,
    pub(super) tunnel: Option<Arc<Signs>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Passes {
    #[default]
    Pass,
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tunnel {
    Off,
    #[default]
    Report,
    Deny,
}

/// A type by name or number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Kind {
    Number(u16),
    Word(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleTable {
    action: Option<Action>,
    names: Option<Vec<String>>,
    names_file: Option<String>,
    types: Option<Vec<Kind>>,
    comment: String,
    id: Option<u32>,
    severity: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TunnelTable {
    action: Tunnel,
    name_bytes: Option<u32>,
    label_bytes: Option<u32>,
    entropy: Option<f64>,
    entropy_bytes: Option<u32>,
    names_per_minute: Option<u32>,
    except: Option<Vec<String>>,
    except_file: Option<String>,
    sources: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    rule: Vec<RuleTable>,
    default: Option<Action>,
    malformed: Passes,
    ports: Option<Vec<u16>>,
    detect: Option<bool>,
    hold: Option<bool>,
    messages: Option<u32>,
    message_bytes: Option<u32>,
    tunnel: TunnelTable,
}

/// Signs as they are unless the settings say otherwise.
pub(super) fn default_signs() -> Signs {
    let mut except = Names::default();
    for name in EXCEPT {
        let _ = except.add(name);
    }
    Signs {
        name_bytes: 150,
        label_bytes: 60,
        entropy: 4.5,
        entropy_bytes: 80,
        names_per_minute: 200,
        except,
        sources: 4096,
        denies: false,
    }
}

impl Settings {
    /// Reads and checks them.
    pub fn read(settings: &config::Settings<'_>) -> Result<Settings, Vec<Problem>> {
        let table: Table = settings.read()?;
        let mut problems = Vec::new();
        if table.rule.len() > MOST_RULES {
            let what = format!("{} rules are more than {MOST_RULES}", table.rule.len());
            problems.push(settings.problem("rule", what, "put names into sets (names, names_file)"));
        }
        let rules = table.rule.iter().enumerate();
        let list: Vec<Rule> =
            rules.filter_map(|(n, table)| rule(settings, n, table, &mut problems)).collect();
        if let Some((n, other, id)) = same_id(&table.rule) {
            let what = format!("{id} is the id of rule[{other}] as well");
            let remedy = "give each log rule an id of its own; one without has its place, from 1";
            problems.push(settings.problem(&format!("rule[{n}].id"), what, remedy));
        }
        let default = table.default.unwrap_or(Action::Allow);
        if default == Action::Log {
            problems.push(settings.problem(
                "default",
                "\"log\" decides nothing",
                "write allow, deny or reject",
            ));
        }
        let ports = table.ports.unwrap_or_else(|| vec![53]);
        if ports.is_empty() || ports.len() > MOST_PORTS || ports.contains(&0) {
            let what = format!("{ports:?} are not 1 to {MOST_PORTS} ports");
            problems.push(settings.problem("ports", what, "ports go from 1 to 65535"));
        }
        let tunnel = signs(settings, &table.tunnel, &mut problems);
        let mut range = |key: &str, given: Option<u32>, default: u32, least: u32, most: u32| {
            within(settings, key, given.unwrap_or(default), least, most, &mut problems)
        };
        let messages = range("messages", table.messages, 512, 1, u16::MAX.into()) as u16;
        let message_bytes = range("message_bytes", table.message_bytes, 4096, 512, u16::MAX.into()) as usize;
        if !problems.is_empty() {
            return Err(problems);
        }
        let rules = Rules { list, default, deny_malformed: table.malformed == Passes::Deny };
        let can_deny = rules.can_deny() || tunnel.as_ref().is_some_and(|signs| signs.denies);
        Ok(Settings {
            ports,
            detect: table.detect.unwrap_or(true),
            hold: table.hold.unwrap_or(can_deny),
            messages,
            message_bytes,
            tunnel: tunnel.map(Arc::new),
            rules: Arc::new(rules),
        })
    }

    /// Bytes that each worker takes beside what it keeps of flows.
    pub(super) fn memory(&self) -> usize {
        let tunnel = self.tunnel.as_ref().map_or(0, |signs| Watch::memory(signs));
        Places::memory(self.messages, PREFIX + self.message_bytes) + tunnel
    }

    /// Can a message be denied?
    pub(super) fn can_deny(&self) -> bool {
        self.rules.can_deny() || self.tunnel.as_ref().is_some_and(|signs| signs.denies)
    }
}

/// A log rule that has the number of an earlier one.
fn same_id(rules: &[RuleTable]) -> Option<(usize, usize, u32)> {
    let logs = rules.iter().enumerate().filter(|(_, rule)| rule.action == Some(Action::Log));
    let ids: Vec<(usize, u32)> = logs.map(|(n, rule)| (n, rule.id.unwrap_or(n as u32 + 1))).collect();
    ids.iter().enumerate().find_map(|(at, (n, id))| {
        let (other, _) = ids.get(..at)?.iter().find(|(_, other)| other == id)?;
        Some((*n, *other, *id))
    })
}

fn within(
    settings: &config::Settings<'_>,
    key: &str,
    given: u32,
    least: u32,
    most: u32,
    problems: &mut Vec<Problem>,
) -> u32 {
    if given < least || given > most {
        problems.push(settings.problem(key, format!("{given} is not between {least} and {most}"), ""));
    }
    given.clamp(least, most)
}

fn rule(
    settings: &config::Settings<'_>,
    n: usize,
    table: &RuleTable,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let place = |key: &str| format!("rule[{n}].{key}");
    let given = table.names.is_some() || table.names_file.is_some();
    let list = table.names.as_deref().unwrap_or(&[]);
    let names = names::read(settings, &place("names"), list, table.names_file.as_deref(), problems);
    if given && names.is_empty() {
        problems.push(settings.problem(&place("names"), "names nothing", "leave it out to mean any name"));
    }
    let kinds = table.types.as_ref().map(|words| {
        let read = |(at, word): (usize, &Kind)| match word {
            Kind::Number(number) => Some(*number),
            Kind::Word(word) => words::kind_named(word).or_else(|| {
                let remedy = "write a mnemonic such as TXT, TYPE65, or a number up to 65535";
                let what = format!("{word:?} is no type of record");
                problems.push(settings.problem(&place(&format!("types[{at}]")), what, remedy));
                None
            }),
        };
        let mut kinds: Vec<u16> = words.iter().enumerate().filter_map(read).collect();
        kinds.sort_unstable();
        kinds
    });
    if table.types.as_ref().is_some_and(Vec::is_empty) {
        problems.push(settings.problem(&place("types"), "names nothing", "leave it out to mean any type"));
    }
    if table.severity == Some(0) {
        problems.push(settings.problem(&place("severity"), "0 is not between 1 and 255", "1 is worst"));
    }
    let Some(action) = table.action else {
        problems.push(settings.problem(&place("action"), "is missing", "write allow, deny, reject or log"));
        return None;
    };
    Some(Rule {
        action,
        names: given.then_some(names),
        kinds,
        comment: table.comment.clone(),
        id: table.id,
        severity: table.severity.unwrap_or(3),
    })
}

fn signs(settings: &config::Settings<'_>, table: &TunnelTable, problems: &mut Vec<Problem>) -> Option<Signs> {
    let plain = default_signs();
    let given = table.except.is_some() || table.except_file.is_some();
    let list = table.except.as_deref().unwrap_or(&[]);
    let except = names::read(settings, "tunnel.except", list, table.except_file.as_deref(), problems);
    let entropy = table.entropy.unwrap_or(plain.entropy);
    if !(0.0..=8.0).contains(&entropy) {
        problems.push(settings.problem("tunnel.entropy", format!("{entropy} is not between 0 and 8"), ""));
    }
    let mut range = |key: &str, given: Option<u32>, default: u32, least: u32, most: u32| {
        within(settings, &format!("tunnel.{key}"), given.unwrap_or(default), least, most, problems)
    };
    let signs = Signs {
        name_bytes: range("name_bytes", table.name_bytes, plain.name_bytes, 0, 255),
        label_bytes: range("label_bytes", table.label_bytes, plain.label_bytes, 0, 63),
        entropy,
        entropy_bytes: range("entropy_bytes", table.entropy_bytes, plain.entropy_bytes, 0, 255),
        names_per_minute: range("names_per_minute", table.names_per_minute, plain.names_per_minute, 0, 500),
        except: if given { except } else { plain.except },
        sources: range("sources", table.sources, plain.sources, 16, 1 << 20),
        denies: table.action == Tunnel::Deny,
    };
    (table.action != Tunnel::Off).then_some(signs)
}
