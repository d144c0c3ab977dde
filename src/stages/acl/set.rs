//! The rules of one stage, in order, as every classifier takes them.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Action, Rule};

/// Most rules of one stage.
pub const MAX_RULES: usize = 30_000;

/// Most rules of one stage that let the search go on.
pub const MAX_OBSERVERS: usize = 4_096;

/// Most layers of rules that let the search go on: what `rte_acl` can answer for one packet at a time.
pub const MAX_LAYERS: usize = 16;

/// Most sets of tenants for which rules differ: each has a classifier of its own.
pub const MAX_CLASSES: usize = 64;

/// Rules in order, and what happens to packets that none of them decides on.
///
/// Rules that let the search go on (log, count) are put into *layers*, such that no packet matches two rules of one
/// layer. A classifier that answers with one rule per layer then tells all that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    default: Action,
    layers: Vec<Vec<u32>>,
    classes: Classes,
}

/// Tenants for which the same rules are, by number: those that no rule names are class 0.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Classes {
    /// Of each tenant up to the last that is named.
    of: Vec<u8>,
    /// One tenant of each class but the first.
    one: Vec<u16>,
}

impl Classes {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.one.len() + 1
    }

    /// The class of a tenant.
    #[inline(always)]
    pub fn of(&self, tenant: u16) -> usize {
        self.of.get(usize::from(tenant)).copied().unwrap_or_default().into()
    }

    /// Is the rule for tenants of that class?
    pub fn takes(&self, class: usize, rule: &Rule) -> bool {
        match class.checked_sub(1).and_then(|n| self.one.get(n)) {
            Some(tenant) => rule.is_of(*tenant),
            None => rule.tenants.is_empty(),
        }
    }

    /// Tenants go together if every rule names all of them or none.
    fn new(rules: &[Rule]) -> Option<Self> {
        let mut named: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        // Each way in which rules name tenants counts once.
        let ways: BTreeSet<&[u16]> = rules.iter().map(|rule| rule.tenants.as_slice()).collect();
        for (way, tenants) in ways.iter().enumerate() {
            for tenant in *tenants {
                named.entry(*tenant).or_default().push(way as u32);
            }
        }
        let mut classes = Classes::default();
        let mut known: BTreeMap<&[u32], u8> = BTreeMap::new();
        classes.of = vec![0; named.last_key_value().map_or(0, |(last, _)| usize::from(*last) + 1)];
        for (tenant, ways) in &named {
            let next = known.len() + 1;
            let class = *known.entry(ways).or_insert(next.min(255) as u8);
            if known.len() > MAX_CLASSES {
                return None;
            }
            if usize::from(class) == next {
                classes.one.push(*tenant);
            }
            if let Some(place) = classes.of.get_mut(usize::from(*tenant)) {
                *place = class;
            }
        }
        Some(classes)
    }
}

/// A rule that cannot be part of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number, from 0.
    pub rule: usize,
    /// Why.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

impl RuleSet {
    /// Takes the rules in order; `default` is an action that decides.
    pub fn new(rules: Vec<Rule>, default: Action) -> Result<Self, Refused> {
        debug_assert!(default.decides());
        if rules.len() > MAX_RULES {
            let what = format!(
                "{} rules are more than the {MAX_RULES} that one stage takes, one for each pair of addresses",
                rules.len()
            );
            return Err(Refused { rule: MAX_RULES, what, remedy: "join rules, or use a second stage" });
        }
        let layers = layers(&rules)?;
        let Some(classes) = Classes::new(&rules) else {
            let rule = rules.iter().position(|rule| !rule.tenants.is_empty()).unwrap_or_default();
            let what = format!("rules name tenants in more than {MAX_CLASSES} ways");
            let remedy = "name the same tenants together, or give tenants pipelines with stages of their own";
            return Err(Refused { rule, what, remedy });
        };
        Ok(RuleSet { rules, default, layers, classes })
    }

    /// The rules in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The same as they were written: which of [`Self::rules`] are one, for several pairs of addresses. They follow each other.
    pub fn written(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let parts = self.rules.chunk_by(|one, next| one.written.is_some() && one.place == next.place);
        parts.scan(0, |at, part| {
            let first = std::mem::replace(at, *at + part.len());
            Some(first..*at)
        })
    }

    /// Tenants, by the rules that are for them.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// What happens to packets that no rule decides on.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// Numbers of the rules that let the search go on, by layer.
    pub fn layers(&self) -> &[Vec<u32>] {
        &self.layers
    }
}

/// Puts each rule that lets the search go on into the first layer where it overlaps with no other.
fn layers(rules: &[Rule]) -> Result<Vec<Vec<u32>>, Refused> {
    let mut layers: Vec<Vec<u32>> = Vec::new();
    let observers = || rules.iter().enumerate().filter(|(_, rule)| !rule.action.decides());
    if let Some((rule, _)) = observers().nth(MAX_OBSERVERS) {
        let what = format!("more than {MAX_OBSERVERS} log and count rules");
        return Err(Refused {
            rule,
            what,
            remedy: "use allow or deny rules where they do: those are counted too",
        });
    }
    for (number, rule) in observers() {
        let free = layers.iter().position(|layer| {
            !layer.iter().filter_map(|&n| rules.get(n as usize)).any(|other| other.overlaps(rule))
        });
        let layer = free.unwrap_or(layers.len());
        if layer == MAX_LAYERS {
            let what = format!("it overlaps with log and count rules in {MAX_LAYERS} layers in front of it");
            let remedy = "drop some of those rules, or move them to a second acl stage";
            return Err(Refused { rule: number, what, remedy });
        }
        match layers.get_mut(layer) {
            Some(layer) => layer.push(number as u32),
            None => layers.push(vec![number as u32]),
        }
    }
    Ok(layers)
}
