//! Which requests may pass.

use super::head::{Request, host_of};
use super::pattern::Pattern;
use super::target::{self, Target};
use crate::stages::names::Names;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Passes; the search ends.
    Allow,
    /// Ends the connection, in silence; the search ends.
    Deny,
    /// Ends the connection by a RST to both ends; the search ends.
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

    /// It does not pass.
    pub fn denies(self) -> bool {
        matches!(self, Action::Deny | Action::Reject)
    }
}

/// What a header has to be like.
#[derive(Clone, Debug)]
pub struct HeaderRule {
    /// In any case.
    pub name: Box<[u8]>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Any,
    Absent,
    /// In any case.
    Is(Box<[u8]>),
    Matches(Box<Pattern>),
}

impl HeaderRule {
    fn matches(&self, request: &Request<'_>) -> bool {
        let mut named = request.headers.filter(|header| header.name.eq_ignore_ascii_case(&self.name));
        match &self.value {
            Value::Any => named.next().is_some(),
            Value::Absent => named.next().is_none(),
            Value::Is(value) => named.any(|header| header.value.eq_ignore_ascii_case(value)),
            Value::Matches(pattern) => named.any(|header| pattern.is_in(header.value)),
        }
    }
}

/// One rule. All that it names must be so; what it leaves out is anything.
#[derive(Clone, Debug)]
pub struct Rule {
    pub action: Action,
    pub methods: Option<Vec<Box<[u8]>>>,
    pub hosts: Option<Names>,
    /// What paths begin with.
    pub paths: Option<Vec<Box<[u8]>>>,
    pub path: Option<Pattern>,
    pub query: Option<Pattern>,
    pub headers: Vec<HeaderRule>,
    pub comment: String,
    pub id: Option<u32>,
    pub severity: u8,
}

impl Rule {
    /// Does it speak of the request?
    fn matches(&self, request: &Request<'_>, target: &Target) -> bool {
        // Who allows something means it as every server reads it. Who denies it, or wants to be told, means it however it is written.
        let wary = self.action != Action::Allow;
        let is_method = |methods: &Vec<Box<[u8]>>| methods.iter().any(|m| **m == *request.method);
        let is_host = |hosts: &Names| {
            let is = |host: &[u8]| hosts.has(host_of(host).0);
            let other = request.other_host.is_some_and(is);
            match wary {
                true => other || request.host.is_some_and(is),
                false => request.other_host.is_none() && request.host.is_some_and(is),
            }
        };
        let (path, query) = target::split(request.target);
        let is_path = |starts: &Vec<Box<[u8]>>| {
            starts.iter().any(|start| target.path().starts_with(start) || (wary && path.starts_with(start)))
        };
        let is_in = |pattern: &Pattern, plain: &[u8], written: &[u8]| {
            pattern.is_in(plain) || (wary && pattern.is_in(written))
        };
        self.methods.as_ref().is_none_or(is_method)
            && self.hosts.as_ref().is_none_or(is_host)
            && self.paths.as_ref().is_none_or(is_path)
            && self.path.as_ref().is_none_or(|pattern| is_in(pattern, target.path(), path))
            && self.query.as_ref().is_none_or(|pattern| is_in(pattern, target.query(), query))
            && self.headers.iter().all(|header| header.matches(request))
    }

    /// It speaks of every request.
    pub fn is_for_all(&self) -> bool {
        let Rule { methods, hosts, paths, path, query, headers, .. } = self;
        methods.is_none()
            && hosts.is_none()
            && paths.is_none()
            && path.is_none()
            && query.is_none()
            && headers.is_empty()
    }

    /// It looks at targets.
    fn reads_target(&self) -> bool {
        self.paths.is_some() || self.path.is_some() || self.query.is_some()
    }

    /// `rule[2] deny (admin)`.
    pub fn label(&self, n: usize) -> String {
        let comment = if self.comment.is_empty() { String::new() } else { format!(" ({})", self.comment) };
        format!("rule[{n}] {}{comment}", self.action.word())
    }

    /// Bytes of its patterns.
    pub fn memory(&self) -> usize {
        let headers = self.headers.iter().map(|header| match &header.value {
            Value::Matches(pattern) => pattern.memory(),
            _ => 0,
        });
        [&self.path, &self.query].into_iter().flatten().map(Pattern::memory).chain(headers).sum()
    }
}

/// What a stage asks.
#[derive(Clone, Debug)]
pub struct Rules {
    pub list: Vec<Rule>,
    /// For what no rule decides.
    pub default: Action,
    pub deny_malformed: bool,
    pub deny_ambiguous: bool,
    pub deny_http2: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    /// The rule that decided; none: the default.
    pub rule: Option<usize>,
}

impl Rules {
    /// Can anything be denied?
    pub fn can_deny(&self) -> bool {
        self.deny_malformed
            || self.deny_ambiguous
            || self.deny_http2
            || self.default.denies()
            || self.list.iter().any(|rule| rule.action.denies())
    }

    /// Of a request; `logs` gets the number of every log rule in front of the one that decides.
    pub fn ask(&self, request: &Request<'_>, target: &mut Target, mut logs: impl FnMut(usize)) -> Decision {
        if self.list.iter().any(Rule::reads_target) {
            target.read(request.target);
        }
        for (n, rule) in self.list.iter().enumerate() {
            if !rule.matches(request, target) {
                continue;
            }
            if rule.action != Action::Log {
                return Decision { action: rule.action, rule: Some(n) };
            }
            logs(n);
        }
        Decision { action: self.default, rule: None }
    }
}
