//! What becomes of one message: rules, signs, counters, alerts.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::head::{Answer, Request, Sign};
use super::rules::{Action, Decision, Rules};
use super::settings::Settings;
use super::target::Target;
use crate::event::{Alert, Anomaly, AnomalyKind};
use crate::packet::{Verdict, View};
use crate::path::Counter;
use crate::stage::Cx;

/// Log rules that one request can match.
const MOST_LOGS: usize = 16;

/// Why a message may not pass. In the order of the kind's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Denied,
    DefaultDeny,
    Ambiguous,
    Malformed,
    Http2,
}

/// A message may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub why: Why,
    /// Both ends are told.
    pub rejects: bool,
}

impl Denial {
    fn of(decision: Decision) -> Denial {
        let why = if decision.rule.is_some() { Why::Denied } else { Why::DefaultDeny };
        Denial { why, rejects: decision.action == Action::Reject }
    }

    /// The verdict on its packet.
    pub fn verdict(self, cx: &Cx<'_>) -> Verdict {
        let reason = cx.reason(self.why as usize);
        if self.rejects { Verdict::Reject(reason) } else { Verdict::Drop(reason) }
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Counts {
    requests: Counter,
    answers: Counter,
    /// Answers with a status of 400 and more.
    errors: Counter,
    http2: Counter,
    malformed: Counter,
    ambiguous: Counter,
    /// Connections on listed ports that speak something else.
    foreign: Counter,
    /// Heads, bodies and connections that could not be read.
    pub(super) unread: Counter,
    /// Heads in pieces that made room for others.
    pub(super) given_up: Counter,
    /// Requests that a rule spoke of; the last are those of the default.
    rules: Box<[Counter]>,
}

impl Counts {
    /// For a stage with these settings.
    pub fn new(settings: &Settings) -> Self {
        let rules = (0..settings.rules.list.len() + 1).map(|_| Counter::default()).collect();
        Counts { rules, ..Counts::default() }
    }

    /// All of them, with their names.
    pub(super) fn read(&self, settings: &Settings) -> Vec<(String, u64)> {
        let plain = [
            ("requests", &self.requests),
            ("answers", &self.answers),
            ("errors", &self.errors),
            ("HTTP/2", &self.http2),
            ("malformed", &self.malformed),
            ("ambiguous", &self.ambiguous),
            ("not HTTP", &self.foreign),
            ("unread", &self.unread),
            ("given up", &self.given_up),
        ];
        let plain = plain.into_iter().map(|(label, count)| (label.to_owned(), count.get()));
        let list = &settings.rules;
        let labels = list.list.iter().enumerate().map(|(n, rule)| rule.label(n));
        let labels = labels.chain([format!("default {}", list.default.word())]);
        plain.chain(labels.zip(self.rules.iter().map(Counter::get))).collect()
    }

    fn rule(&self, n: usize) {
        if let Some(count) = self.rules.get(n) {
            count.add(1);
        }
    }
}

/// The judge of one worker.
#[derive(Debug)]
pub struct Judge {
    rules: Arc<Rules>,
    target: Target,
    pub(super) counts: Arc<Counts>,
}

impl Judge {
    pub fn new(settings: &Settings, counts: Arc<Counts>) -> Self {
        Judge { rules: settings.rules.clone(), target: Target::with_room(settings.head_bytes), counts }
    }

    /// Asks the rules about a request.
    pub fn request(&mut self, request: &Request<'_>, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        self.counts.requests.add(1);
        let mut logs = ArrayVec::<usize, MOST_LOGS>::new();
        let decision = self.rules.ask(request, &mut self.target, |n| {
            self.counts.rule(n);
            let _ = logs.try_push(n); // what is too much is counted
        });
        self.counts.rule(decision.rule.unwrap_or(self.rules.list.len()));
        let by_rule = decision.action.denies().then(|| Denial::of(decision));
        let denial = self.signs(request.signs, packet, cx).or(by_rule);
        for rule in logs {
            let alert = Alert { rule: rule as u32, blocked: denial.is_some() };
            cx.emit(packet.meta(), packet.inner(), alert);
        }
        denial
    }

    /// An answer has come.
    pub fn answer(&mut self, answer: &Answer<'_>, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        self.counts.answers.add(1);
        self.counts.errors.add((answer.status >= 400).into());
        self.signs(answer.signs, packet, cx)
    }

    fn signs(&mut self, signs: Sign, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        let mut denial = None;
        if signs.is_ambiguous() {
            let hosts = signs.has(Sign::HOSTS);
            let event = if hosts { "http_ambiguous_host" } else { "http_ambiguous_length" };
            self.counts.ambiguous.add(1);
            denial = self.sign(event, Why::Ambiguous, self.rules.deny_ambiguous, packet, cx);
        }
        if signs.is_broken() {
            let broken = self.malformed("http_malformed", packet, cx);
            denial = denial.or(broken);
        }
        denial
    }

    /// Something breaks the rules of HTTP.
    pub fn malformed(&mut self, event: &'static str, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        self.counts.malformed.add(1);
        self.sign(event, Why::Malformed, self.rules.deny_malformed, packet, cx)
    }

    /// A connection on a listed port speaks something else.
    pub fn foreign(&mut self, asks: bool, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        self.counts.foreign.add(1);
        let denial = self.sign("http_not_spoken", Why::Malformed, self.rules.deny_malformed, packet, cx);
        let default = self.rules.default;
        denial.or((asks && default.denies()).then(|| Denial::of(Decision { action: default, rule: None })))
    }

    /// A connection goes on in HTTP/2.
    pub fn http2(&mut self) -> Option<Denial> {
        self.counts.http2.add(1);
        self.rules.deny_http2.then_some(Denial { why: Why::Http2, rejects: false })
    }

    fn sign(
        &self,
        event: &'static str,
        why: Why,
        denies: bool,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Denial> {
        let denial = denies.then_some(Denial { why, rejects: false });
        let reason = denial.map(|denial| cx.reason(denial.why as usize));
        let anomaly = Anomaly { kind: AnomalyKind::Applayer, event, reason, skipped: 0 };
        cx.emit(packet.meta(), packet.inner(), anomaly);
        denial
    }
}
