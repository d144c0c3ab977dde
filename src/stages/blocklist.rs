//! `blocklist`: addresses and prefixes that nobody is to talk to, from lists that others keep.
//!
//! ```toml
//! [[stage]]
//! use = "blocklist"
//! stateful = true                    # false: every packet asks
//!
//! [[stage.list]]
//! name = "ours"
//! action = "allow"                   # wins over all others
//! entries = ["198.51.100.0/24"]
//!
//! [[stage.list]]
//! name = "scanners"
//! action = "drop"                    # drop | reject | alert | allow
//! # file = "lists/drop.txt"          # a file, or a list of files, beside the entries
//! entries = ["192.0.2.0/24", "2001:db8:bad::/48"]
//! ```
//!
//! Place on the path: in front of `acl`, which then need not look at what is dropped here. Assumes that decap has checked the inner headers.
//! Promises: a flow is asked about once, by the addresses of both its ends, and the answer holds for its replies, its fragments and the ICMP errors
//! that speak of it, as in `acl` (`acl/flows.rs`); packets without a flow ask each for itself. Of a flow that is on a list whose action is
//! `allow` nothing else counts; else the first list that drops or rejects decides, and every list that has one of its ends counts it and tells of it.
//!
//! Addresses are looked up in a hash set, IPv4 prefixes by `rte_fib`, IPv6 prefixes among ranges (`compiled`); without DPDK each length is tried
//! in turn (`plain`). What is read is compiled off the packet path, once for all workers; a reload that finds a file with other content compiles
//! it again, and flows from before are asked about again.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use super::acl::counters::Workers;
use crate::dpdk::Error;
use crate::event::Signature;
use crate::flow::Tuple;
use crate::stage::{Backend, Judged, Make, Parsed, Shared, Stage, StageKind};

mod settings;
pub mod entry;
pub mod text;
pub mod plain;
#[cfg(any(test, feature = "dpdk"))]
mod addresses;
#[cfg(any(test, feature = "dpdk"))]
mod ranges;
#[cfg(feature = "dpdk")]
pub mod compiled;
mod running;
#[cfg(test)]
mod tests;

use entry::{Entries, Lists};
use plain::Plain;

const LISTED: usize = 0;
const REJECTED: usize = 1;

/// The kind `blocklist`.
pub const KIND: StageKind = StageKind {
    name: "blocklist",
    summary: "addresses and prefixes of lists: drops, rejects or reports the flows of both directions",
    help: HELP,
    example: EXAMPLE,
    reasons: &[
        ("listed", "An end of the flow is on a list whose action is drop."),
        ("rejected", "An end of the flow is on a list whose action is reject."),
    ],
    parse: settings::parse,
};

const HELP: &str = r##"stateful  true (default): a flow is asked about once, and the answer holds for its packets in
          both directions; turns flow tracking on
          false: every packet asks for itself
list      [[stage.list]] tables, in order; up to 31

A list:
  name       its name in counters, alerts and messages; required
  action     drop (default)
             reject   drop, and tell both ends: TCP by a reset each, anything else its sender
                      by ICMP "administratively prohibited"; at a limited rate
             alert    count and tell of it, and let it pass
             allow    let it pass, whatever the other lists say
  end        which end of a flow is looked up: any (default), source (who opened it) or
             destination
  entries    addresses, prefixes and ranges
  file       a file of them, or a list of files
  format     of the files: text (default): an entry a line, and behind "#", ";" or "//" what
             people say of it (Spamhaus DROP, FireHOL, Emerging Threats, Tor exits)
             csv: values, one of which is the entry (abuse.ch, DShield with separator = "\t")
             json: an object a line, one of whose keys has the entry (Spamhaus DROP as JSON)
  column     of csv: the name in the first line, or a number from 1 if no line names them;
             of json: the key
  separator  of csv: one character, "," (default), ";", "\t", ...
  bad_lines  refuse (default): a line that cannot be read is a mistake, and nothing changes
             skip: it is passed over, and check says how many there are
  alert      true: flows on it are told of, as alert records with the list's name; default
             true, and false for allow
  id         signature_id of its alerts; else its place among the lists, from 1
  severity   of its alerts, 1 (worst) to 255; default 3

An entry is 192.0.2.1, 192.0.2.0/24, 192.0.2.0/255.255.255.0, 192.0.2.1-192.0.2.9,
2001:db8::/32, ... Of all lists together there are up to 4,000,000.

A flow is asked about once. Which list is first says who decides, not which prefix is longer.
Each list counts the flows that have an end on it (packets, where there is no flow); while an
allow list has one, only allow lists count.

Memory: 11 bytes for an IPv4 address and 43 for one of IPv6; IPv4 prefixes take 64 MB of the
EAL's, 420 bytes each, and 1 kB for each /24 with longer ones in it; IPv6 prefixes 40 bytes.
check builds the lists and prints what they took. Twice as much is there while a reload builds
the next ones. If lists grow from reload to reload, give eal.memory_mb room for it.
"##;

const EXAMPLE: &str = r#"[[stage]]
use = "blocklist"

[[stage.list]]
name = "ours"
action = "allow"
entries = ["198.51.100.0/24"]

[[stage.list]]
name = "scanners"
entries = ["192.0.2.0/24", "203.0.113.7", "2001:db8:bad::/48"]
"#;

/// What becomes of a flow that is on a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    #[default]
    Drop,
    Reject,
    Alert,
    Allow,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Drop => "drop",
            Action::Reject => "reject",
            Action::Alert => "alert",
            Action::Allow => "allow",
        }
    }
}

/// Which end of a flow is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    #[default]
    Any,
    Source,
    Destination,
}

/// A list without its entries.
#[derive(Clone, Debug)]
struct List {
    name: String,
    action: Action,
    end: End,
    alert: bool,
    id: u32,
    severity: u8,
    /// Entries that it names.
    size: usize,
}

impl List {
    /// What its counter is called.
    fn label(&self) -> String {
        format!("{} {}", self.name, self.action.word())
    }
}

/// All lists, and which of them do what: a bit for each.
#[derive(Debug)]
struct AllLists {
    lists: Vec<List>,
    of_source: Lists,
    of_destination: Lists,
    allow: Lists,
    reject: Lists,
    /// Drop or reject.
    deny: Lists,
    alert: Lists,
}

impl AllLists {
    fn new(lists: Vec<List>) -> Self {
        let those = |which: &dyn Fn(&List) -> bool| {
            lists.iter().enumerate().filter(|(_, list)| which(list)).fold(0, |all, (n, _)| all | 1 << n)
        };
        AllLists {
            of_source: those(&|list| list.end != End::Destination),
            of_destination: those(&|list| list.end != End::Source),
            allow: those(&|list| list.action == Action::Allow),
            reject: those(&|list| list.action == Action::Reject),
            deny: those(&|list| matches!(list.action, Action::Drop | Action::Reject)),
            alert: those(&|list| list.alert),
            lists,
        }
    }

    /// What the lists of both ends come to.
    #[inline(always)]
    fn judge(&self, source: Lists, destination: Lists) -> Judgement {
        let on = source & self.of_source | destination & self.of_destination;
        let counted = if on & self.allow != 0 { on & self.allow } else { on };
        let denying = counted & self.deny;
        let decides = if denying != 0 { denying } else { counted };
        // The first is the lowest bit.
        let decided_by = (decides != 0).then(|| decides.trailing_zeros() as usize);
        let rejected = denying != 0 && decided_by.is_some_and(|n| self.reject >> n & 1 != 0);
        Judgement { counted, decided_by, denied: denying != 0, rejected }
    }
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judgement {
    /// Lists that count it.
    counted: Lists,
    /// The list that decides.
    decided_by: Option<usize>,
    denied: bool,
    rejected: bool,
}

/// The stage, parsed.
#[derive(Debug)]
struct Blocklist {
    entries: Arc<Entries>,
    lists: Arc<AllLists>,
    stateful: bool,
    warnings: Vec<String>,
}

impl Parsed for Blocklist {
    #[cfg(feature = "dpdk")]
    fn eal_memory(&self) -> u64 {
        compiled::memory(&self.entries)
    }

    fn wants_flows(&self) -> bool {
        self.stateful
    }

    fn settles(&self) -> bool {
        self.stateful
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn build(&self, backend: Backend) -> Result<Arc<dyn Shared>, Error> {
        let (lookup, facts) = match backend {
            Backend::Soft => {
                let facts = vec![("lookup".into(), "each length in turn".into())];
                (Lookup::Plain(Plain::new(&self.entries).into()), facts)
            }
            #[cfg(feature = "dpdk")]
            Backend::Eal => {
                let compiled = compiled::Compiled::build(&self.entries)?;
                let facts = compiled.report();
                (Lookup::Compiled(Arc::new(compiled)), facts)
            }
            #[cfg(not(feature = "dpdk"))]
            Backend::Eal => {
                return Err(Error::refused(
                    "this program is built without DPDK",
                    "build it with the feature dpdk",
                ));
            }
        };
        let (lists, stateful) = (self.lists.clone(), self.stateful);
        Ok(Arc::new(Built { lists, stateful, lookup, facts, workers: Mutex::default() }))
    }
}

/// What knows the lists of an address.
#[derive(Clone)]
enum Lookup {
    Plain(Arc<Plain>),
    #[cfg(feature = "dpdk")]
    Compiled(Arc<compiled::Compiled>),
}

impl Lookup {
    /// The lists that have each of these IPv4 addresses.
    #[inline(always)]
    fn v4(&self, addresses: &[u32], lists: &mut [Lists]) {
        match self {
            Lookup::Plain(plain) => {
                addresses.iter().zip(lists).for_each(|(address, lists)| *lists = plain.v4(*address));
            }
            #[cfg(feature = "dpdk")]
            Lookup::Compiled(compiled) => compiled.v4(addresses, lists),
        }
    }

    /// The same for IPv6.
    #[inline(always)]
    fn v6(&self, addresses: &[u128], lists: &mut [Lists]) {
        match self {
            Lookup::Plain(plain) => {
                addresses.iter().zip(lists).for_each(|(address, lists)| *lists = plain.v6(*address));
            }
            #[cfg(feature = "dpdk")]
            Lookup::Compiled(compiled) => compiled.v6(addresses, lists),
        }
    }

    fn of(&self, address: std::net::IpAddr) -> Lists {
        let mut lists = [0];
        match address {
            std::net::IpAddr::V4(address) => self.v4(&[address.to_bits()], &mut lists),
            std::net::IpAddr::V6(address) => self.v6(&[address.to_bits()], &mut lists),
        }
        let [lists] = lists;
        lists
    }
}

/// The stage, built: shared by all workers.
struct Built {
    lists: Arc<AllLists>,
    stateful: bool,
    lookup: Lookup,
    facts: Vec<(String, String)>,
    workers: Mutex<Workers>,
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let counters = self.workers.lock().of(make.worker, self.lists.lists.len() + 1);
        Box::new(running::Running::new(self.lookup.clone(), self.lists.clone(), self.stateful, counters))
    }

    fn report(&self) -> Vec<(String, String)> {
        let lists = self.lists.lists.iter();
        let row = |list: &List| (list.name.clone(), format!("{}, {} entries", list.action.word(), list.size));
        lists.map(row).chain(self.facts.iter().cloned()).collect()
    }

    fn signatures(&self) -> Vec<Signature> {
        let signature = |list: &List| Signature {
            signature: list.name.clone(),
            signature_id: list.id,
            rev: 1,
            category: String::new(),
            severity: list.severity,
        };
        self.lists.lists.iter().map(signature).collect()
    }

    fn judge(&self, ends: &Tuple) -> Option<Judged> {
        let (source, destination) = (self.lookup.of(ends.source), self.lookup.of(ends.destination));
        let found = self.lists.judge(source, destination);
        let lists = self.lists.lists.iter().enumerate();
        let also = lists.filter(|(n, _)| found.counted >> n & 1 != 0 && found.decided_by != Some(*n));
        let verdict = match found {
            Judgement { rejected: true, .. } => "reject",
            Judgement { denied: true, .. } => "drop",
            _ => "allow",
        };
        let rule = match found.decided_by.and_then(|n| self.lists.lists.get(n)) {
            Some(list) => list.label(),
            None => NOT_LISTED.to_owned(),
        };
        Some(Judged {
            verdict: verdict.to_owned(),
            rule: Some(rule),
            also: also.map(|(_, list)| list.label()).collect(),
        })
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let sums = self.workers.lock().sums(self.lists.lists.len() + 1);
        let labels = self.lists.lists.iter().map(List::label).chain([NOT_LISTED.to_owned()]);
        labels.zip(sums).collect()
    }
}

/// What is counted of flows that are on no list.
const NOT_LISTED: &str = "not listed";
