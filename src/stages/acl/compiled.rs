//! The rules as `rte_acl` has them.
//!
//! Four classifiers at most, each for a batch of keys of one shape: IPv4 and IPv6, and for each of them *full* (all rules)
//! and *bare*: packets that show no ports see only the rules that name none. A bare classifier is built only if
//! it would differ. Rules that let the search go on are compiled apart, one category per layer
//! ([`RuleSet::layers`]); those behind the deciding rule do not count.
//!
//! Rules of some tenants: each set of tenants for which they differ ([`super::set::Classes`]) has classifiers of its own, with the rules that are for it.
//! So rules that name no tenant cost nothing more, and no key has to bear one.
//!
//! A key is protocol, three bytes of padding, source, destination, and the two ports, all in network order.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use super::cost::{self, SAMPLES};
use super::flows::answering_type;
use super::linear::Key;
use super::rule::{Action, Nets, Rule};
use super::set::{Classes, RuleSet};
use crate::dpdk::acl::{self, Acl, Entry, Field, Kind, MAX_CATEGORIES, MAX_PRIORITY};
use crate::dpdk::{BURST, Error};

pub(super) const V4_KEY: usize = 16;
const V4_FIELDS: usize = 5;
pub(super) const V6_KEY: usize = 40;
const V6_FIELDS: usize = 11;

const V4: [Field; V4_FIELDS] = [
    field(Kind::Bits, 1, 0, 0),
    field(Kind::Prefix, 4, 1, 4),
    field(Kind::Prefix, 4, 2, 8),
    field(Kind::Range, 2, 3, 12),
    field(Kind::Range, 2, 3, 14),
];

const V6: [Field; V6_FIELDS] = [
    field(Kind::Bits, 1, 0, 0),
    field(Kind::Prefix, 4, 1, 4),
    field(Kind::Prefix, 4, 2, 8),
    field(Kind::Prefix, 4, 3, 12),
    field(Kind::Prefix, 4, 4, 16),
    field(Kind::Prefix, 4, 5, 20),
    field(Kind::Prefix, 4, 6, 24),
    field(Kind::Prefix, 4, 7, 28),
    field(Kind::Prefix, 4, 8, 32),
    field(Kind::Range, 2, 9, 36),
    field(Kind::Range, 2, 9, 38),
];

/// Two numbers for each field; their meaning is the field's.
type Conditions<const FIELDS: usize> = [(u32, u32); FIELDS];

const fn field(kind: Kind, size: u8, group: u8, offset: u8) -> Field {
    Field { kind, size, group, offset }
}

/// EAL memory per entry: the most that was seen (30,000 rules with random prefixes on either side and exact ports) was 5.7 kB
/// for IPv4 and 1.9 kB for IPv6; tables of fewer rules took less per rule.
const ENTRY_BYTES: u64 = 6 << 10;
const CONTEXT_BYTES: u64 = 1 << 20;

/// An upper estimate of the EAL memory that the rules need.
pub fn memory(set: &RuleSet) -> u64 {
    let classes = set.classes().count();
    let entries = |applies: fn(&Nets) -> bool| {
        let rules = set.rules().iter().filter(|rule| applies(&rule.nets));
        let times =
            |rule: &Rule| (0..classes).filter(|class| set.classes().takes(*class, rule)).count() as u64;
        let each = |rule: &Rule| rule.entries() as u64 * if rule.reads_ports() { 1 } else { 2 };
        rules.map(|rule| each(rule) * times(rule)).sum::<u64>()
    };
    let v4 = entries(|nets| !matches!(nets, Nets::V6(..)));
    let v6 = entries(|nets| !matches!(nets, Nets::V4(..)));
    8 * classes as u64 * CONTEXT_BYTES + (v4 + v6) * ENTRY_BYTES
}

/// The rules, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// One for each class of tenants, like those of IPv6.
    v4: Vec<Family<V4_KEY>>,
    v6: Vec<Family<V6_KEY>>,
    seconds: f64,
    bytes: u64,
    cycles: Vec<(&'static str, u64)>,
}

/// The classifiers of an address family.
#[derive(Debug)]
pub(super) struct Family<const KEY: usize> {
    pub(super) full: Tables<KEY>,
    bare: Option<Tables<KEY>>,
}

/// The deciding rules, and those that let the search go on; absent without such rules.
#[derive(Debug)]
pub(super) struct Tables<const KEY: usize> {
    pub(super) deciding: Option<Acl<KEY>>,
    observing: Option<Acl<KEY>>,
}

impl Compiled {
    /// Compiles the rules. The EAL must be up; may take seconds.
    pub fn build(set: &RuleSet) -> Result<Self, Error> {
        let (start, before) = (Instant::now(), acl::heap_in_use());
        let classes = || 0..set.classes().count();
        let v4 =
            classes().map(|class| Family::build(&V4, set, class, v4_conditions)).collect::<Result<_, _>>()?;
        let v6 =
            classes().map(|class| Family::build(&V6, set, class, v6_conditions)).collect::<Result<_, _>>()?;
        let seconds = start.elapsed().as_secs_f64();
        let bytes = acl::heap_in_use().saturating_sub(before);
        let mut rules = Compiled { v4, v6, seconds, bytes, cycles: Vec::new() };
        rules.cycles = cost::measure(&rules, set);
        Ok(rules)
    }

    /// What compiling took and what a search costs.
    pub fn report(&self) -> Vec<(String, String)> {
        let v4 = self.v4.iter().find_map(|family| family.full.deciding.as_ref()).map(Acl::algorithm);
        let v6 = self.v6.iter().find_map(|family| family.full.deciding.as_ref()).map(Acl::algorithm);
        let algorithm = v4.or(v6).unwrap_or("no rules to search");
        let mut out = vec![
            ("classifier".into(), format!("rte_acl ({algorithm})")),
            ("compiled in".into(), format!("{:.2} s", self.seconds)),
            ("EAL memory".into(), format!("{:.1} MB", self.bytes as f64 / 1e6)),
        ];
        for (family, cycles) in &self.cycles {
            let name = format!("{family} self-test");
            out.push((
                name,
                format!("{cycles} cycles a packet (search only, {SAMPLES} random keys, half near rules)"),
            ));
        }
        out
    }

    /// The classifiers for tenants of a class.
    #[inline(always)]
    pub(super) fn of(&self, class: usize) -> Option<(&Family<V4_KEY>, &Family<V6_KEY>)> {
        self.v4.get(class).zip(self.v6.get(class))
    }

    /// For each key the deciding rule (from 0) and its action, and to `seen` the number of a key with each rule that
    /// matches it in front of the decision. `batch` keys of one shape are classified at a time.
    ///
    /// For tests and tools: it allocates.
    pub fn search(
        &self,
        classes: &Classes,
        keys: &[Key],
        batch: usize,
        mut seen: impl FnMut(usize, usize),
    ) -> Vec<Option<(usize, Action)>> {
        let mut out = vec![None; keys.len()];
        let shapes = (0..self.v4.len()).flat_map(|class| [(class, true), (class, false)]);
        for (class, shows_ports) in shapes {
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            let is_one = |key: &Key| key.ports.is_some() == shows_ports && classes.of(key.tenant) == class;
            for (number, key) in keys.iter().enumerate().filter(|(_, key)| is_one(key)) {
                let ports = key.ports.unwrap_or_default();
                match (key.source, key.destination) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
                        v4.push((number, v4_key(key.protocol, &addresses.to_be_bytes(), ports)));
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        let mut addresses = [0; 32];
                        addresses[..16].copy_from_slice(&source.octets());
                        addresses[16..].copy_from_slice(&destination.octets());
                        v6.push((number, v6_key(key.protocol, &addresses, ports)));
                    }
                    _ => {} // of no family, so of no rule
                }
            }
            let (Some(v4_rules), Some(v6_rules)) = (self.v4.get(class), self.v6.get(class)) else { continue };
            v4_rules.of(shows_ports).search(&v4, batch, &mut out, &mut seen);
            v6_rules.of(shows_ports).search(&v6, batch, &mut out, &mut seen);
        }
        out
    }
}

impl<const KEY: usize> Family<KEY> {
    fn build<const FIELDS: usize>(
        fields: &[Field; FIELDS],
        set: &RuleSet,
        class: usize,
        conditions: fn(&Rule) -> Vec<Conditions<FIELDS>>,
    ) -> Result<Self, Error> {
        let takes = |rule: &Rule| set.classes().takes(class, rule);
        let full = Tables::build(fields, set, conditions, &takes)?;
        let mut rules = set.rules().iter().filter(|rule| takes(rule));
        let differs = rules.any(|rule| rule.reads_ports() && !conditions(rule).is_empty());
        let bare = match differs {
            true => Some(Tables::build(fields, set, conditions, &|rule| takes(rule) && !rule.reads_ports())?),
            false => None,
        };
        Ok(Family { full, bare })
    }

    #[inline(always)]
    pub(super) fn of(&self, shows_ports: bool) -> &Tables<KEY> {
        match &self.bare {
            Some(bare) if !shows_ports => bare,
            _ => &self.full,
        }
    }
}

impl<const KEY: usize> Tables<KEY> {
    fn build<const FIELDS: usize>(
        fields: &[Field; FIELDS],
        set: &RuleSet,
        conditions: fn(&Rule) -> Vec<Conditions<FIELDS>>,
        takes: &dyn Fn(&Rule) -> bool,
    ) -> Result<Self, Error> {
        let entries = |number: usize, rule: &Rule, categories: u32| {
            let answer = Answer::of(number, rule.action);
            // Earlier rules win. MAX_RULES is far below MAX_PRIORITY.
            let priority = MAX_PRIORITY - number as u32;
            let entry = move |conditions| Entry { categories, priority, answer, conditions };
            conditions(rule).into_iter().map(entry)
        };
        let numbered = || set.rules().iter().enumerate().filter(|(_, rule)| takes(rule));
        let deciding: Vec<_> = numbered()
            .filter(|(_, rule)| rule.action.decides())
            .flat_map(|(number, rule)| entries(number, rule, 1))
            .collect();
        let mut observing = Vec::new();
        for (layer, numbers) in set.layers().iter().enumerate() {
            let rules = numbers.iter().filter_map(|&n| Some((n as usize, set.rules().get(n as usize)?)));
            let rules = rules.filter(|(_, rule)| takes(rule));
            observing.extend(rules.flat_map(|(number, rule)| entries(number, rule, 1 << layer)));
        }
        let categories = match set.layers().len() {
            0 | 1 => 1,
            layers => layers.next_multiple_of(4).min(MAX_CATEGORIES),
        };
        Ok(Tables {
            deciding: compile(fields, &deciding, 1)?,
            observing: compile(fields, &observing, categories)?,
        })
    }

    /// Searches a batch. Rules in front of the decision that let the search go on are told to `seen`, with the key's number.
    #[inline(always)]
    pub(super) fn judge(&self, keys: &[[u8; KEY]], room: &mut Room, seen: impl FnMut(usize, usize)) {
        self.decide(keys, &mut room.answers);
        self.observe(keys, room, seen);
    }

    /// The rule that decides on each key.
    #[inline(always)]
    pub(super) fn decide(&self, keys: &[[u8; KEY]], answers: &mut [u32; BURST]) {
        let answers = answers.get_mut(..keys.len()).unwrap_or_default();
        match &self.deciding {
            Some(acl) => acl.classify(keys, answers),
            None => answers.fill(0),
        }
    }

    /// Rules in front of the decision that let the search go on.
    #[inline(always)]
    pub(super) fn observe(&self, keys: &[[u8; KEY]], room: &mut Room, mut seen: impl FnMut(usize, usize)) {
        if let Some(acl) = &self.observing {
            let answers = room.answers.get(..keys.len()).unwrap_or_default();
            let width = acl.categories();
            let matched = room.matched.get_mut(..keys.len() * width).unwrap_or_default();
            acl.classify(keys, matched);
            for (number, (&answer, matched)) in answers.iter().zip(matched.chunks_exact(width)).enumerate() {
                for rule in matched.iter().filter_map(|&m| Answer(m).rule()) {
                    if Answer(answer).rule().is_none_or(|deciding| rule < deciding) {
                        seen(number, rule);
                    }
                }
            }
        }
    }

    fn search(
        &self,
        keys: &[(usize, [u8; KEY])],
        batch: usize,
        out: &mut [Option<(usize, Action)>],
        seen: &mut impl FnMut(usize, usize),
    ) {
        let mut room = Room::default();
        for keys in keys.chunks(batch.clamp(1, BURST)) {
            let bytes: Vec<[u8; KEY]> = keys.iter().map(|(_, key)| *key).collect();
            self.judge(&bytes, &mut room, |n, rule| {
                if let Some((number, _)) = keys.get(n) {
                    seen(*number, rule);
                }
            });
            for ((number, _), &answer) in keys.iter().zip(&room.answers) {
                let answer = Answer(answer);
                if let Some(place) = out.get_mut(*number) {
                    *place = answer.rule().map(|rule| (rule, answer.action()));
                }
            }
        }
    }
}

fn compile<const KEY: usize, const FIELDS: usize>(
    fields: &[Field; FIELDS],
    entries: &[Entry<FIELDS>],
    categories: usize,
) -> Result<Option<Acl<KEY>>, Error> {
    if entries.is_empty() { Ok(None) } else { Acl::build(fields, entries, categories).map(Some) }
}

/// What a classifier answers: rule number + 1 above two bits of action; 0 for no rule.
#[derive(Clone, Copy)]
pub(super) struct Answer(pub(super) u32);

impl Answer {
    fn of(rule: usize, action: Action) -> NonZeroU32 {
        let code = match action {
            Action::Allow | Action::Log | Action::Count => 0,
            Action::Deny => 1,
            Action::Reject => 2,
        };
        // 1 + 3 is one step of the rule number, so that rule 0 is not "no rule".
        NonZeroU32::MIN.saturating_add(((rule as u32) << 2 | code) + 3)
    }

    #[inline(always)]
    pub(super) fn rule(self) -> Option<usize> {
        (self.0 >> 2).checked_sub(1).map(|rule| rule as usize)
    }

    #[inline(always)]
    pub(super) fn action(self) -> Action {
        match self.0 & 3 {
            0 => Action::Allow,
            1 => Action::Deny,
            _ => Action::Reject,
        }
    }
}

fn v4_conditions(rule: &Rule) -> Vec<Conditions<V4_FIELDS>> {
    let (source, destination) = match rule.nets {
        Nets::Any => ((0, 0), (0, 0)),
        Nets::V4(s, d) => {
            ((s.addr().to_bits(), s.prefix_len().into()), (d.addr().to_bits(), d.prefix_len().into()))
        }
        Nets::V6(..) => return Vec::new(),
    };
    transports(rule).map(|(protocol, from, to)| [protocol, source, destination, from, to]).collect()
}

fn v6_conditions(rule: &Rule) -> Vec<Conditions<V6_FIELDS>> {
    let (source, destination) = match rule.nets {
        Nets::Any => ([(0, 0); 4], [(0, 0); 4]),
        Nets::V4(..) => return Vec::new(),
        Nets::V6(s, d) => {
            (words(s.addr().to_bits(), s.prefix_len()), words(d.addr().to_bits(), d.prefix_len()))
        }
    };
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    transports(rule).map(|(protocol, from, to)| [protocol, a, b, c, d, e, f, g, h, from, to]).collect()
}

/// A prefix of 128 bits as four of 32.
fn words(address: u128, length: u8) -> [(u32, u32); 4] {
    std::array::from_fn(|n| {
        let word = (address >> (96 - 32 * n)) as u32;
        (word, u32::from(length).saturating_sub(32 * n as u32).min(32))
    })
}

/// Every combination of the lists of a rule.
fn transports(rule: &Rule) -> impl Iterator<Item = ((u32, u32), (u32, u32), (u32, u32))> {
    let protocols: Vec<(u32, u32)> = match rule.protocols.as_slice() {
        [] => vec![(0, 0)],
        list => list.iter().map(|&protocol| (protocol.into(), 0xff)).collect(),
    };
    let ports = |ranges: &[(u16, u16)]| -> Vec<(u32, u32)> {
        match ranges {
            [] => vec![(0, u16::MAX.into())],
            list => list.iter().map(|&(low, high)| (low.into(), high.into())).collect(),
        }
    };
    let (from, to) = (ports(&rule.source_ports), ports(&rule.destination_ports));
    protocols.into_iter().flat_map(move |protocol| {
        let to = to.clone();
        from.clone()
            .into_iter()
            .flat_map(move |from| to.clone().into_iter().map(move |to| (protocol, from, to)))
    })
}

#[inline(always)]
pub(super) fn v4_key(protocol: u8, addresses: &[u8; 8], (from, to): (u16, u16)) -> [u8; V4_KEY] {
    let [a, b, c, d, e, f, g, h] = *addresses;
    let ([i, j], [k, l]) = (from.to_be_bytes(), to.to_be_bytes());
    [protocol, 0, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l]
}

#[inline(always)]
pub(super) fn v6_key(protocol: u8, addresses: &[u8; 32], (from, to): (u16, u16)) -> [u8; V6_KEY] {
    let mut key = [0; V6_KEY];
    key[0] = protocol;
    key[4..36].copy_from_slice(addresses);
    key[36..38].copy_from_slice(&from.to_be_bytes());
    key[38..40].copy_from_slice(&to.to_be_bytes());
    key
}

/// A key as [`Key::reversed`] has it.
#[inline(always)]
pub(super) fn reversed<const KEY: usize>(key: &[u8; KEY]) -> [u8; KEY] {
    let mut key = *key;
    let protocol = key.first().copied().unwrap_or_default();
    let (_, rest) = key.split_at_mut(4);
    let (addresses, ports) = rest.split_at_mut(KEY - 8);
    let (source, destination) = addresses.split_at_mut((KEY - 8) / 2);
    source.swap_with_slice(destination);
    match (protocol, ports.first_mut()) {
        (1 | 58, Some(icmp_type)) => *icmp_type = answering_type(protocol, *icmp_type),
        _ => ports.rotate_left(2),
    }
    key
}

/// Where answers arrive.
pub(super) struct Room {
    pub(super) answers: [u32; BURST],
    /// To questions in reverse.
    pub(super) reverse: [u32; BURST],
    matched: [u32; BURST * MAX_CATEGORIES],
}

impl Default for Room {
    fn default() -> Self {
        Room { answers: [0; BURST], reverse: [0; BURST], matched: [0; BURST * MAX_CATEGORIES] }
    }
}
