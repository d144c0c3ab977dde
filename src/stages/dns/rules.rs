//! Which names and types may be asked for.

use super::message::Question;
use crate::stages::names::Names;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Passes; the search ends.
    Allow,
    /// Is dropped; the search ends.
    Deny,
    /// Is dropped, and its sender is told; the search ends.
    Reject,
    /// Is told of; the search goes on.
    Log,
}

impl Action {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
            Action::Log => "log",
        }
    }
}

/// One rule: a set of names and a set of types, of which a missing one is everything.
#[derive(Clone, Debug)]
pub struct Rule {
    pub action: Action,
    pub names: Option<Names>,
    /// In order.
    pub kinds: Option<Vec<u16>>,
    pub comment: String,
    pub id: Option<u32>,
    pub severity: u8,
}

impl Rule {
    /// Does it speak of the question? `lower` is its name in small letters.
    fn matches(&self, question: &Question, lower: &[u8]) -> bool {
        let kind = self.kinds.as_ref().is_none_or(|kinds| kinds.binary_search(&question.kind).is_ok());
        kind && self.names.as_ref().is_none_or(|names| {
            // A dot within a label would make one name look like another: it gets nobody through.
            (question.name.is_plain || self.action != Action::Allow) && names.has_lower(lower)
        })
    }

    /// `rule[2] deny (ads)`.
    pub fn label(&self, n: usize) -> String {
        let comment = if self.comment.is_empty() { String::new() } else { format!(" ({})", self.comment) };
        format!("rule[{n}] {}{comment}", self.action.word())
    }
}

/// What a stage asks.
#[derive(Clone, Debug)]
pub struct Rules {
    pub list: Vec<Rule>,
    /// For what no rule decides.
    pub default: Action,
    pub deny_malformed: bool,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    /// The rule that decided; none: the default.
    pub rule: Option<usize>,
}

impl Decision {
    /// It does not pass.
    pub fn denies(self) -> bool {
        matches!(self.action, Action::Deny | Action::Reject)
    }
}

impl Rules {
    /// Can a message be denied?
    pub fn can_deny(&self) -> bool {
        let denies = |action| matches!(action, Action::Deny | Action::Reject);
        self.deny_malformed || denies(self.default) || self.list.iter().any(|rule| denies(rule.action))
    }

    /// What does not pass unless a rule says so?
    pub fn denies_by_default(&self) -> bool {
        matches!(self.default, Action::Deny | Action::Reject)
    }

    /// What is said of what no rule speaks of.
    pub fn by_default(&self) -> Decision {
        Decision { action: self.default, rule: None }
    }

    /// Of a question; `logs` gets the number of every log rule in front of the one that decides.
    pub fn ask(&self, question: &Question, mut logs: impl FnMut(usize)) -> Decision {
        if self.list.is_empty() {
            return self.by_default();
        }
        let lower = question.name.lower();
        for (n, rule) in self.list.iter().enumerate() {
            if !rule.matches(question, lower.as_bytes()) {
                continue;
            }
            if rule.action != Action::Log {
                return Decision { action: rule.action, rule: Some(n) };
            }
            logs(n);
        }
        self.by_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::dns::message::Name;

    fn rule(action: Action, names: &[&str], kinds: &[u16]) -> Rule {
        let mut set = Names::default();
        names.iter().for_each(|name| set.add(name).unwrap());
        Rule {
            action,
            names: (!names.is_empty()).then_some(set),
            kinds: (!kinds.is_empty()).then(|| kinds.to_vec()),
            comment: String::new(),
            id: None,
            severity: 3,
        }
    }

    fn question(labels: &[&[u8]], kind: u16) -> Question {
        let mut wire: Vec<u8> = labels.iter().flat_map(|l| [&[l.len() as u8][..], l].concat()).collect();
        wire.push(0);
        Question { name: Name::read(&wire, 0).unwrap().0, kind, class: 1 }
    }

    #[test]
    fn the_first_rule_that_speaks_of_a_question_decides() {
        let rules = Rules {
            list: vec![
                rule(Action::Log, &[], &[16]),
                rule(Action::Allow, &[".good.example"], &[]),
                rule(Action::Deny, &[".example", "example"], &[]),
                rule(Action::Reject, &[], &[16, 99]),
            ],
            default: Action::Allow,
            deny_malformed: false,
        };
        for (labels, kind, action, rule, logged) in [
            (&[&b"www"[..], b"GOOD", b"example"][..], 1, Action::Allow, Some(1), 0),
            (&[b"www", b"bad", b"Example"], 1, Action::Deny, Some(2), 0),
            (&[b"Example"], 16, Action::Deny, Some(2), 1),
            (&[b"example", b"org"], 16, Action::Reject, Some(3), 1),
            (&[b"example", b"org"], 1, Action::Allow, None, 0),
            (&[], 1, Action::Allow, None, 0),
            // One label with a dot in it is not two.
            (&[b"x.good", b"example"], 1, Action::Deny, Some(2), 0),
        ] {
            let mut logs = 0;
            let decision = rules.ask(&question(labels, kind), |_| logs += 1);
            assert_eq!((decision, logs), (Decision { action, rule }, logged), "{labels:?} {kind}");
        }
    }
}
