//! What names in rules mean: those of lists of addresses and of ports, and of tenants.
//!
//! ```toml
//! [stage.addresses]
//! servers = ["10.0.1.0/24", "10.0.2.7", "2001:db8:1::/64"]
//!
//! [stage.ports]
//! web = "80|443|8000-8099"
//! ```
//!
//! A rule that names several addresses on a side becomes a rule for each pair of them, all with its place, its counter and its number ([`Rule`](super::rule::Rule)); those
//! it names are put together first, so that no packet matches two of them.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::rule::{self, Mistake, Ranges, quoted};
use crate::config::{Problem, Settings};

/// Most entries of all groups of a stage.
const MOST_ENTRIES: usize = 30_000;
const LONGEST_NAME: usize = 64;

/// The groups of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    addresses: BTreeMap<String, Vec<IpNet>>,
    ports: BTreeMap<String, Ranges>,
    /// In the order of their numbers, if they are known.
    tenants: Option<Vec<String>>,
}

impl Groups {
    /// Reads the tables `addresses` and `ports` of a stage.
    pub fn read(
        settings: &Settings<'_>,
        addresses: &BTreeMap<String, Vec<String>>,
        ports: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let tenants = settings.tenant_names().map(<[String]>::to_vec);
        let mut groups = Groups { tenants, ..Groups::default() };
        let mut left = MOST_ENTRIES;
        for (name, entries) in addresses {
            let place = format!("addresses.{name}");
            check_name(settings, &place, name, problems);
            if entries.is_empty() {
                problems.push(settings.problem(&place, "is empty", "a rule with it would match nothing"));
            }
            if entries.len() > left {
                let what = format!("the groups of one stage have at most {MOST_ENTRIES} entries");
                problems.push(settings.problem(&place, what, "join prefixes, or use the stage blocklist"));
                return groups;
            }
            left -= entries.len();
            let mut nets = Vec::with_capacity(entries.len());
            for (n, entry) in entries.iter().enumerate() {
                match rule::net("source", entry) {
                    Ok(Some(net)) => nets.push(net),
                    Ok(None) => {
                        let what = format!("{} is every address", quoted(entry));
                        let remedy = "leave the column of the rule blank instead";
                        problems.push(settings.problem(&format!("{place}[{n}]"), what, remedy));
                    }
                    Err(Mistake { what, remedy, .. }) => {
                        problems.push(settings.problem(&format!("{place}[{n}]"), what, remedy));
                    }
                }
            }
            groups.addresses.insert(name.clone(), nets);
        }
        for (name, text) in ports {
            let place = format!("ports.{name}");
            check_name(settings, &place, name, problems);
            match rule::ports("source_port", text, &Groups::default()) {
                Ok(ranges) if ranges.is_empty() => {
                    problems.push(settings.problem(&place, "is every port, or none", "write 80|443"));
                }
                Ok(ranges) => _ = groups.ports.insert(name.clone(), ranges),
                Err(Mistake { what, remedy, .. }) => problems.push(settings.problem(&place, what, remedy)),
            }
        }
        groups
    }

    /// The addresses of that name.
    pub fn addresses(&self, name: &str) -> Option<&[IpNet]> {
        self.addresses.get(name).map(Vec::as_slice)
    }

    /// The ports of that name.
    pub fn ports(&self, name: &str) -> Option<&[(u16, u16)]> {
        self.ports.get(name).map(Vec::as_slice)
    }

    /// The number of the tenant of that name; where nobody knows the tenants, that of the first. Or what to do about the name.
    pub fn tenant(&self, name: &str) -> Result<u16, String> {
        let Some(tenants) = &self.tenants else { return Ok(0) };
        let found = tenants.iter().position(|tenant| tenant == name);
        found.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| {
            let nearest = tenants.iter().min_by_key(|tenant| strsim::levenshtein(tenant, name));
            match nearest.filter(|nearest| strsim::levenshtein(nearest, name) <= 3) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => "tenants are in [[tenant]] tables, or in their own file".into(),
            }
        })
    }

    /// What to say of a word that is no group of addresses, or none of ports.
    pub fn known(&self, word: &str, of_addresses: bool) -> Option<String> {
        let addresses = self.addresses.keys().filter(|_| of_addresses);
        let names: Vec<&str> =
            addresses.chain(self.ports.keys().filter(|_| !of_addresses)).map(String::as_str).collect();
        let nearest = names.iter().min_by_key(|name| strsim::levenshtein(name, word))?;
        match strsim::levenshtein(nearest, word) {
            0..=3 => Some(format!("did you mean the group {nearest}?")),
            _ => Some(format!(
                "the groups are {}",
                names.iter().take(20).copied().collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

/// A name that is nothing else in a rule.
fn check_name(settings: &Settings<'_>, place: &str, name: &str, problems: &mut Vec<Problem>) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    if !begins || name.len() > LONGEST_NAME || !name.bytes().all(plain) || name.eq_ignore_ascii_case("any") {
        let what = format!("{} cannot be the name of a group", quoted(name));
        let remedy =
            format!("use up to {LONGEST_NAME} letters, digits, `-` or `_`, a letter first, and not \"any\"");
        problems.push(settings.problem(place, what, remedy));
    }
}
