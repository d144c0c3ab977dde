//! Whom a limit counts together, and which packets it looks at: what `ratelimit` and `synguard` share.
//!
//! Ends are those of the flow: the source is who opened it, in packets of both directions. A packet without a flow speaks for itself. An address is
//! one behind its endpoint, since inner networks overlap.

use serde::Deserialize;

use super::acl::linear::Key;
use super::acl::rule::{Mistake, Place, Rule, Words};
use super::buckets::Name;
use crate::config::{Problem, Settings};
use crate::packet::{FlowFlags, InnerFlags, Meta};

/// Whom a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Per {
    /// Each flow.
    Flow,
    /// All flows that an address, or a prefix, opened.
    Source,
    /// All flows to an address, or a prefix.
    Destination,
    /// All flows to an address and port, of one protocol.
    Service,
    /// All of a tenant.
    Tenant,
    /// All together.
    All,
}

impl Per {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Per::Flow => "flow",
            Per::Source => "source",
            Per::Destination => "destination",
            Per::Service => "service",
            Per::Tenant => "tenant",
            Per::All => "all",
        }
    }

    /// Are there so many of them that they have to be found by a hash?
    pub fn is_keyed(self) -> bool {
        matches!(self, Per::Source | Per::Destination | Per::Service)
    }
}

/// Does the packet travel towards who opened its flow? An ICMP error is its sender's.
#[inline(always)]
pub(super) fn goes_back(meta: &Meta) -> bool {
    meta.is_reply() && !meta.flow_flags.has(FlowFlags::RELATED)
}

/// Whom a limit counts together, by addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom {
    per: Per,
    v4: u32,
    v6: u128,
}

impl Whom {
    /// Addresses count together if so many of their first bits are the same.
    pub fn new(per: Per, prefix_v4: u8, prefix_v6: u8) -> Self {
        let behind = |len: u8| u32::MAX.checked_shr(len.into()).unwrap_or(0);
        let v6 = !u128::MAX.checked_shr(prefix_v6.into()).unwrap_or(0);
        Whom { per, v4: !behind(prefix_v4), v6 }
    }

    /// The name of who is counted with this packet, for those that have to be found by it; `None` if the packet ends inside its addresses.
    #[inline(always)]
    pub fn name(&self, meta: &Meta, inner: &[u8]) -> Option<Name> {
        let source = self.per == Per::Source;
        // The source's address is the sender's, unless the packet goes back.
        let first = source != goes_back(meta);
        let port = match self.per == Per::Service && meta.flags.has(InnerFlags::PORTS) {
            true if first => u64::from(meta.source_port) << 8 | u64::from(meta.protocol),
            true => u64::from(meta.destination_port) << 8 | u64::from(meta.protocol),
            false => 0,
        };
        if meta.is_ipv6() {
            let address = inner.get(if first { 8 } else { 24 }..)?.first_chunk::<16>()?;
            let address = u128::from_be_bytes(*address) & self.v6;
            return Some([meta.endpoint, port | 1 << 32, (address >> 64) as u64, address as u64]);
        }
        let address = inner.get(if first { 12 } else { 16 }..)?.first_chunk::<4>()?;
        Some([meta.endpoint, port, u64::from(u32::from_be_bytes(*address) & self.v4), 0])
    }
}

/// Which packets a limit looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Only {
    rule: Option<Rule>,
    tenant: Option<u16>,
}

/// The words of [`Only`] in a limit's table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnlyWords<'a> {
    pub tenant: Option<&'a str>,
    pub protocol: &'a str,
    pub source: &'a str,
    pub destination: &'a str,
    pub source_port: &'a str,
    pub destination_port: &'a str,
}

impl Only {
    /// Reads the words, which stand below `place` in the stage's table.
    pub fn parse(
        settings: &Settings<'_>,
        place: &str,
        words: &OnlyWords<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let OnlyWords { tenant, protocol, source, destination, source_port, destination_port } = *words;
        let tenant = tenant.and_then(|name| {
            let found = settings.tenant(&format!("{place}.tenant"), name);
            found.map_err(|wrong| problems.push(wrong)).ok()
        });
        let words = Words {
            action: "count",
            protocol,
            source,
            destination,
            source_port,
            destination_port,
            ..Words::default()
        };
        let any = [protocol, source, destination, source_port, destination_port].iter().all(|w| w.is_empty());
        if any {
            return Only { rule: None, tenant };
        }
        let rule = Rule::parse(&words, Place::Inline(0)).map_err(|wrong| {
            problems.extend(wrong.into_iter().map(|Mistake { column, what, remedy }| {
                settings.problem(&format!("{place}.{column}"), what, remedy)
            }));
        });
        Only { rule: rule.ok(), tenant }
    }

    /// Is the packet one of them?
    #[inline(always)]
    pub fn has(&self, meta: &Meta, inner: &[u8]) -> bool {
        self.tenant.is_none_or(|tenant| tenant == meta.tenant)
            && self.rule.as_ref().is_none_or(|rule| matches(rule, meta, inner))
    }
}

#[inline(never)]
fn matches(rule: &Rule, meta: &Meta, inner: &[u8]) -> bool {
    let Some(key) = Key::of(meta, inner) else { return false };
    rule.matches(&if goes_back(meta) { key.reversed() } else { key })
}

/// What every limit has to say of itself: a name that no other has.
pub(super) fn check_name<'a>(
    settings: &Settings<'_>,
    place: &str,
    name: &str,
    others: impl IntoIterator<Item = &'a str>,
    problems: &mut Vec<Problem>,
) {
    const LONGEST: usize = 64;
    if name.is_empty() || name.len() > LONGEST || name.contains(|c: char| c.is_control()) {
        let what = format!("a limit needs a name of 1 to {LONGEST} characters");
        problems.push(settings.problem(&format!("{place}.name"), what, "name = \"per source\""));
    } else if others.into_iter().any(|other| other == name) {
        let what = format!("{name:?} is the name of another limit");
        problems.push(settings.problem(&format!("{place}.name"), what, "give it another"));
    }
}

/// A time in the settings, in nanoseconds.
pub(super) fn span(
    settings: &Settings<'_>,
    place: &str,
    text: Option<&str>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Vec<Problem>,
) -> u64 {
    let Some(text) = text else { return default };
    let read = |text: &str| u64::try_from(humantime::parse_duration(text).ok()?.as_nanos()).ok();
    match read(text) {
        Some(time) if range.contains(&time) => time,
        _ => {
            let written =
                |ns: u64| humantime::format_duration(std::time::Duration::from_nanos(ns)).to_string();
            let (least, most) = (written(*range.start()), written(*range.end()));
            problems.push(settings.problem(
                place,
                format!("{text:?} is no time of {least} to {most}"),
                "write 100ms or 2s",
            ));
            default
        }
    }
}

/// A number in the settings.
pub(super) fn number(
    settings: &Settings<'_>,
    place: &str,
    given: Option<u64>,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Vec<Problem>,
) -> Option<u64> {
    let given = given?;
    if range.contains(&given) {
        return Some(given);
    }
    let what = format!("{given} is not between {} and {}", range.start(), range.end());
    problems.push(settings.problem(place, what, ""));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: [u8; 4], to: [u8; 4], flags: u8) -> (Meta, Vec<u8>) {
        let mut inner = vec![0; 20];
        inner[12..16].copy_from_slice(&from);
        inner[16..20].copy_from_slice(&to);
        let meta = Meta {
            endpoint: 7,
            protocol: 6,
            flags: InnerFlags(InnerFlags::PORTS),
            source_port: 1000,
            destination_port: 80,
            flow_flags: FlowFlags(flags),
            ..Meta::default()
        };
        (meta, inner)
    }

    /// The source is who opened the flow, in both directions; an ICMP error is its sender's.
    #[test]
    fn names_are_those_of_the_flow() {
        let name = |per, v4, from, to, flags| {
            let (meta, inner) = packet(from, to, flags);
            Whom::new(per, v4, 64).name(&meta, &inner).unwrap()
        };
        let (a, b) = ([10, 1, 2, 3], [10, 9, 9, 9]);
        let there = name(Per::Source, 32, a, b, 0);
        assert_eq!(there, [7, 0, 0x0a01_0203, 0]);
        assert_eq!(name(Per::Source, 32, b, a, FlowFlags::REPLY), there);
        assert_eq!(
            name(Per::Source, 32, b, a, FlowFlags::REPLY | FlowFlags::RELATED),
            [7, 0, 0x0a09_0909, 0]
        );
        assert_eq!(name(Per::Source, 16, a, b, 0), [7, 0, 0x0a01_0000, 0]);
        assert_eq!(name(Per::Destination, 32, a, b, 0), [7, 0, 0x0a09_0909, 0]);
        assert_eq!(name(Per::Service, 32, a, b, 0), [7, 80 << 8 | 6, 0x0a09_0909, 0]);
        assert_eq!(name(Per::Service, 32, b, a, FlowFlags::REPLY), [7, 1000 << 8 | 6, 0x0a09_0909, 0]);
    }

    #[test]
    fn an_address_of_ipv6_counts_with_its_prefix() {
        let mut inner = vec![0; 40];
        inner[8..24].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9]);
        let meta = Meta { flags: InnerFlags(InnerFlags::IPV6), ..Meta::default() };
        let whom = Whom::new(Per::Source, 32, 64);
        assert_eq!(whom.name(&meta, &inner), Some([0, 1 << 32, 0x2001_0db8_0001_0002, 0]));
        assert_eq!(whom.name(&meta, &inner[..20]), None);
    }
}
