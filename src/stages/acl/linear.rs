//! The reference: every rule in turn. Plain and obviously right, as slow as the rules are many.
//!
//! It serves builds and replays without DPDK, and every other classifier is tested against it.

use std::net::IpAddr;
use std::sync::Arc;

use super::Reasons;
use super::alerts::Alerts;
use super::counters::Counters;
use super::flows::{self, Asking, Reverse};
use super::rule::{Action, Rule};
use super::set::RuleSet;
use crate::flow::Tuple;
use crate::packet::{Batch, DropReason, InnerFlags, Meta, Verdict};
use crate::stage::{Cx, Stage};

/// What rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// IANA number of the transport protocol.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Ports, or ICMP type and code and the echo identifier; `None` if the packet shows none.
    pub ports: Option<(u16, u16)>,
    /// Number of the tenant.
    pub tenant: u16,
}

impl Key {
    /// The key of an inner packet; `None` if it ends inside its IP header.
    pub fn of(meta: &Meta, inner: &[u8]) -> Option<Self> {
        let (source, destination) = if meta.is_ipv6() {
            let [source, destination] =
                *inner.get(8..)?.first_chunk::<32>()?.as_chunks::<16>().0.first_chunk()?;
            (IpAddr::from(source), IpAddr::from(destination))
        } else {
            let [source, destination] =
                *inner.get(12..)?.first_chunk::<8>()?.as_chunks::<4>().0.first_chunk()?;
            (IpAddr::from(source), IpAddr::from(destination))
        };
        let ports = shows_ports(meta).then_some((meta.source_port, meta.destination_port));
        Some(Key { protocol: meta.protocol, source, destination, ports, tenant: meta.tenant })
    }

    /// The key of the first packet between these ends, of the default tenant. One of ICMP is an echo request; the identifier is the port's.
    pub fn of_ends(ends: &Tuple) -> Self {
        let Tuple { source, destination, source_port, destination_port, protocol } = *ends;
        let echo = |icmp_type: u8| Some((u16::from_be_bytes([icmp_type, 0]), source_port));
        let ports = match protocol {
            6 | 17 | 132 => Some((source_port, destination_port)),
            1 => echo(8),
            58 => echo(128),
            _ => None,
        };
        Key { protocol, source, destination, ports, tenant: 0 }
    }

    /// The key of an answer to this packet. An answer to an ICMP echo bears the same identifier, and the type that answers it.
    pub fn reversed(&self) -> Self {
        let ports = self.ports.map(|(from, to)| match self.protocol {
            1 | 58 => {
                let [icmp_type, code] = from.to_be_bytes();
                (u16::from_be_bytes([flows::answering_type(self.protocol, icmp_type), code]), to)
            }
            _ => (to, from),
        });
        Key { source: self.destination, destination: self.source, ports, ..*self }
    }
}

/// Does the packet show ports or an ICMP type?
#[inline(always)]
pub fn shows_ports(meta: &Meta) -> bool {
    meta.flags.has(InnerFlags::PORTS | InnerFlags::ICMP)
}

/// The first rule that decides on the packet. Rules in front of it that match and let the search go on are told to `seen`.
pub fn search(rules: &[Rule], key: &Key, mut seen: impl FnMut(usize)) -> Option<usize> {
    for (number, rule) in rules.iter().enumerate() {
        if rule.matches(key) {
            if rule.action.decides() {
                return Some(number);
            }
            seen(number);
        }
    }
    None
}

/// For a flow that is denied as its key stands: the rule that allows the reverse, and says that the other side opens such flows (`flows.rs`).
pub fn allows_reverse(rules: &[Rule], key: &Key) -> Option<usize> {
    let number = search(rules, &key.reversed(), |_| ())?;
    rules.get(number).filter(|rule| rule.action == Action::Allow && !rule.matches_as_written(key))?;
    Some(number)
}

/// The stage on one worker, rules tried in turn.
#[derive(Debug)]
pub(super) struct Linear {
    set: Arc<RuleSet>,
    stateful: bool,
    counters: Arc<Counters>,
    asking: Asking,
    alerts: Alerts,
}

impl Linear {
    /// `counters` has one for each rule, and then one for the default.
    pub fn new(set: Arc<RuleSet>, stateful: bool, counters: Arc<Counters>) -> Self {
        Linear { set, stateful, counters, asking: Asking::default(), alerts: Alerts::default() }
    }
}

impl Stage for Linear {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        let Linear { set, stateful, counters, asking, alerts } = self;
        let rules = set.rules();
        let reasons = Reasons::of(cx);
        alerts.begin(cx);
        asking.sort(batch, *stateful);
        for slot in asking.asking() {
            let Some(key) = Key::of(batch.meta(slot), batch.inner(slot)) else {
                batch.decide(slot, Verdict::Drop(DropReason::InnerTruncated.into()));
                continue;
            };
            let action = |number: Option<usize>| {
                number.and_then(|n| rules.get(n)).map_or(set.default_action(), |rule| rule.action)
            };
            let mut seen = |rule| {
                counters.add(rule);
                alerts.matched(slot, rule, rules);
            };
            let (number, reverse);
            if asking.for_flow().has(slot) {
                let mut key = if asking.turns_round(batch, slot) { key.reversed() } else { key };
                (number, reverse) = ask(set, &mut key, batch.meta(slot));
                // A flow counts once, in the orientation that decides.
                search(rules, &key, &mut seen);
            } else {
                (number, reverse) = (search(rules, &key, &mut seen), None);
            }
            counters.add(number.unwrap_or(rules.len()));
            if batch.asks_for_rules() {
                batch.note_rule(slot, number.unwrap_or(rules.len()));
            }
            if reverse == Some(Reverse::Turn) {
                alerts.turned(slot);
            }
            asking.answer(batch, slot, reasons.verdict(action(number), number.is_none()), reverse);
        }
        alerts.tell(batch, cx);
        asking.follow_up(batch);
    }
}

/// A flow's question, and in reverse if it is denied. Where the flow is to be turned, so is its key.
fn ask(set: &RuleSet, key: &mut Key, meta: &Meta) -> (Option<usize>, Option<Reverse>) {
    let number = search(set.rules(), key, |_| ());
    let action = number.and_then(|n| set.rules().get(n)).map_or(set.default_action(), |rule| rule.action);
    let other = if action == Action::Allow { None } else { allows_reverse(set.rules(), key) };
    let Some(other) = other else { return (number, None) };
    match flows::reverse(meta) {
        Reverse::Turn => {
            *key = key.reversed();
            (Some(other), Some(Reverse::Turn))
        }
        Reverse::Leave => (number, Some(Reverse::Leave)),
    }
}
