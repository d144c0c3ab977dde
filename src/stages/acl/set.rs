//! The rules of one stage, in order, as every classifier takes them.

use super::rule::{Action, Rule};

/// Most rules of one stage.
pub const MAX_RULES: usize = 30_000;

/// Most rules of one stage that let the search go on.
pub const MAX_OBSERVERS: usize = 4_096;

/// Most layers of rules that let the search go on: what `rte_acl` can answer for one packet at a time.
pub const MAX_LAYERS: usize = 16;

/// Rules in order, and what happens to packets that none of them decides on.
///
/// Rules that let the search go on (log, count) are put into *layers*, such that no packet matches two rules of one
/// layer. A classifier that answers with one rule per layer then tells all that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    default: Action,
    layers: Vec<Vec<u32>>,
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
        Ok(RuleSet { rules, default, layers })
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
