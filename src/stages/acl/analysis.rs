//! What in a rule set is probably not meant: rules that can never apply, and rules that are there twice.
//!
//! Found: a rule whose every packet an earlier *single* deciding rule takes. Not found: a rule that only several
//! earlier rules together cover.
//!
//! Comparing all pairs would take minutes for 30,000 rules. Instead, earlier rules are kept by address pair; a rule is
//! looked up under each pair of prefix lengths that occurs, and there under its own protocols and ports and their "any" forms.
//! Only rules with wide ranges or lists of ports are compared one by one. The whole is bounded by [`MAX_STEPS`].

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use ipnet::{Ipv4Net, Ipv6Net};

use super::rule::{Nets, Rule};

/// Look-ups and comparisons after which the search ends.
pub const MAX_STEPS: u64 = 30_000_000;

/// How a rule is useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It says the same as the earlier rule.
    Duplicate,
    /// The earlier rule decides on every packet that it could match.
    Shadowed,
}

/// A rule that can go without a change to any packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is useless.
    pub fault: Fault,
    /// The rule.
    pub rule: usize,
    /// The earlier rule that makes it useless.
    pub by: usize,
}

/// What was found, and how far the search came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// In the order of the rules.
    pub list: Vec<Finding>,
    /// Rules that were looked at; fewer than there are if the search hit its bound.
    pub searched: usize,
}

/// Looks for duplicates and shadowed rules.
pub fn search(rules: &[Rule]) -> Findings {
    let mut list = Vec::new();
    let mut steps = 0;
    let mut deciding = Index::default();
    let mut observing: HashMap<_, usize> = HashMap::new();
    for (number, rule) in rules.iter().enumerate() {
        if steps > MAX_STEPS {
            return Findings { list, searched: number };
        }
        if let Some(by) = deciding.cover(rules, rule, &mut steps) {
            let same =
                rules.get(by).is_some_and(|other| other.action == rule.action && says(other) == says(rule));
            let fault = if same { Fault::Duplicate } else { Fault::Shadowed };
            list.push(Finding { fault, rule: number, by });
        }
        if rule.action.decides() {
            deciding.add(number, rule);
        } else if let Some(&by) = observing.get(&(rule.action, says(rule))) {
            list.push(Finding { fault: Fault::Duplicate, rule: number, by });
        } else {
            observing.insert((rule.action, says(rule)), number);
        }
    }
    Findings { list, searched: rules.len() }
}

type Ports<'a> = &'a [(u16, u16)];
type Transport<'a> = (&'a [u8], Ports<'a>, Ports<'a>, &'a [u16]);

fn transport(rule: &Rule) -> Transport<'_> {
    (&rule.protocols, &rule.source_ports, &rule.destination_ports, &rule.tenants)
}

fn says(rule: &Rule) -> (Nets, Transport<'_>) {
    (rule.nets, transport(rule))
}

/// Earlier rules by address pair.
#[derive(Default)]
struct Index<'a> {
    any: Bucket<'a>,
    v4: Family<'a, Ipv4Net>,
    v6: Family<'a, Ipv6Net>,
}

struct Family<'a, N> {
    /// Pairs of source and destination prefix lengths that occur.
    lengths: BTreeSet<(u8, u8)>,
    buckets: HashMap<(N, N), Bucket<'a>>,
}

impl<N> Default for Family<'_, N> {
    fn default() -> Self {
        Family { lengths: BTreeSet::new(), buckets: HashMap::new() }
    }
}

/// Earlier rules of one address pair.
#[derive(Default)]
struct Bucket<'a> {
    /// The first rule with exactly these protocols and ports.
    exact: HashMap<Transport<'a>, usize>,
    /// Rules that can cover others by more than an "any".
    wide: Vec<usize>,
}

impl<'a> Index<'a> {
    fn add(&mut self, number: usize, rule: &'a Rule) {
        match rule.nets {
            Nets::Any => self.any.add(number, rule),
            Nets::V4(s, d) => {
                self.v4.lengths.insert((s.prefix_len(), d.prefix_len()));
                self.v4.buckets.entry((s, d)).or_default().add(number, rule);
            }
            Nets::V6(s, d) => {
                self.v6.lengths.insert((s.prefix_len(), d.prefix_len()));
                self.v6.buckets.entry((s, d)).or_default().add(number, rule);
            }
        }
    }

    /// The earliest rule that covers this one.
    fn cover(&self, rules: &[Rule], rule: &Rule, steps: &mut u64) -> Option<usize> {
        let any = self.any.cover(rules, rule, steps);
        let family = match rule.nets {
            Nets::Any => None,
            Nets::V4(s, d) => {
                self.v4.cover((s.prefix_len(), d.prefix_len()), rules, rule, steps, |(sl, dl)| {
                    Some((Ipv4Net::new(s.addr(), sl).ok()?.trunc(), Ipv4Net::new(d.addr(), dl).ok()?.trunc()))
                })
            }
            Nets::V6(s, d) => {
                self.v6.cover((s.prefix_len(), d.prefix_len()), rules, rule, steps, |(sl, dl)| {
                    Some((Ipv6Net::new(s.addr(), sl).ok()?.trunc(), Ipv6Net::new(d.addr(), dl).ok()?.trunc()))
                })
            }
        };
        any.into_iter().chain(family).min()
    }
}

impl<N: Hash + Eq> Family<'_, N> {
    /// `wider` gives the pair of prefixes around the rule's addresses for a pair of lengths.
    fn cover(
        &self,
        own: (u8, u8),
        rules: &[Rule],
        rule: &Rule,
        steps: &mut u64,
        wider: impl Fn((u8, u8)) -> Option<(N, N)>,
    ) -> Option<usize> {
        let lengths = self.lengths.iter().take_while(|l| l.0 <= own.0).filter(|l| l.1 <= own.1);
        let mut first = None;
        for &pair in lengths {
            *steps += 1;
            if let Some(bucket) = wider(pair).and_then(|nets| self.buckets.get(&nets)) {
                first = first.into_iter().chain(bucket.cover(rules, rule, steps)).min();
            }
        }
        first
    }
}

impl<'a> Bucket<'a> {
    fn add(&mut self, number: usize, rule: &'a Rule) {
        self.exact.entry(transport(rule)).or_insert(number);
        let wide = |ranges: Ports<'_>| ranges.iter().any(|(low, high)| low < high) || ranges.len() > 1;
        if rule.protocols.len() > 1
            || rule.tenants.len() > 1
            || wide(&rule.source_ports)
            || wide(&rule.destination_ports)
        {
            self.wide.push(number);
        }
    }

    fn cover(&self, rules: &[Rule], rule: &Rule, steps: &mut u64) -> Option<usize> {
        let (protocols, source, destination, tenants) = transport(rule);
        let mut first = None;
        for p in [protocols, &[]] {
            for s in [source, &[]] {
                for d in [destination, &[]] {
                    let of = |t| self.exact.get(&(p, s, d, t)).copied();
                    first = first.into_iter().chain(of(tenants)).chain(of(&[])).min();
                }
            }
        }
        *steps += 16;
        for &other in &self.wide {
            if first.is_some_and(|first| first <= other) {
                break; // in order: nothing earlier follows
            }
            *steps += 1;
            if rules.get(other).is_some_and(|other| other.covers(rule)) {
                return Some(other);
            }
        }
        first
    }
}
