//! What becomes of one message, wherever it came from: rules, signs of tunnels, counters, records.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::event;
use super::message::{Message, Question, State};
use super::rules::{Action, Decision, Rules};
use super::settings::Settings;
use super::tunnel::{Sign, Signs, Watch};
use crate::event::{Alert, Anomaly, AnomalyKind, Type};
use crate::packet::{Verdict, View};
use crate::path::Counter;
use crate::stage::Cx;

/// Log rules that one message can match.
const MOST_LOGS: usize = 16;

/// Why a message may not pass. In the order of the kind's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Denied,
    DefaultDeny,
    Tunnel,
    Malformed,
}

/// A message may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub why: Why,
    /// Its sender is told.
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
    queries: Counter,
    answers: Counter,
    no_such_name: Counter,
    malformed: Counter,
    signs: [Counter; 3],
    /// Questions of queries, and denied ones, that a rule spoke of; the last are those of the default.
    rules: Box<[Counter]>,
    /// Fragments, connections and messages that could not be read.
    pub(super) unread: Counter,
    /// TCP messages that made room for others.
    pub(super) given_up: Counter,
}

impl Counts {
    /// For a stage with these settings.
    pub fn new(settings: &Settings) -> Self {
        let rules = (0..settings.rules.list.len() + 1).map(|_| Counter::default()).collect();
        Counts { rules, ..Counts::default() }
    }

    /// All of them, with their names.
    pub(super) fn read(&self, settings: &Settings) -> Vec<(String, u64)> {
        let [length, entropy, rate] = &self.signs;
        let plain = [
            ("queries", &self.queries),
            ("answers", &self.answers),
            ("no such name", &self.no_such_name),
            ("malformed", &self.malformed),
            ("tunnel: length", length),
            ("tunnel: entropy", entropy),
            ("tunnel: rate", rate),
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

/// One message, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The message.
    pub message: &'a Message<'a>,
    /// Queries of its flow before it.
    pub tx: u64,
    /// It may not pass.
    pub denied: bool,
}

/// Who hears of messages.
pub trait Tell: Send {
    /// A message. `packet` is the one that brought its end.
    fn message(&mut self, told: &Told<'_>, packet: &View<'_>, cx: &mut Cx<'_>);

    /// A sign of a tunnel.
    fn sign(&mut self, _event: &'static str, _packet: &View<'_>) {}
}

/// Tells by events: a `dns` record of each question of a query, and of each answer.
#[derive(Clone, Copy, Debug)]
pub struct Records;

impl Tell for Records {
    fn message(&mut self, told: &Told<'_>, packet: &View<'_>, cx: &mut Cx<'_>) {
        if !cx.wants(Type::Dns) {
            return;
        }
        let (meta, inner) = (packet.meta(), packet.inner());
        if told.message.header.is_answer() {
            cx.emit(meta, inner, Box::new(event::answer(told.message)));
            return;
        }
        let mut questions = told.message.questions().peekable();
        if questions.peek().is_none() {
            cx.emit(meta, inner, Box::new(event::query(told.message, None, told.tx)));
        }
        for question in questions {
            cx.emit(meta, inner, Box::new(event::query(told.message, Some(&question), told.tx)));
        }
    }
}

/// The judge of one worker.
#[derive(Debug)]
pub struct Judge<T> {
    rules: Arc<Rules>,
    tunnel: Option<(Arc<Signs>, Watch)>,
    pub(super) counts: Arc<Counts>,
    teller: T,
}

impl<T: Tell> Judge<T> {
    pub fn new(settings: &Settings, counts: Arc<Counts>, teller: T) -> Self {
        let tunnel = settings.tunnel.as_ref().map(|signs| (signs.clone(), Watch::new(signs)));
        Judge { rules: settings.rules.clone(), tunnel, counts, teller }
    }

    /// Asks the rules about a message whose questions are there, once.
    pub fn decide(
        &mut self,
        message: &Message<'_>,
        to_server: bool,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Denial> {
        let is_query = !message.header.is_answer();
        let mut logs = ArrayVec::<usize, MOST_LOGS>::new();
        let (mut denied, mut first) = (None, None);
        for question in message.questions() {
            let decision = self.rules.ask(&question, |n| {
                if is_query {
                    self.counts.rule(n);
                    let _ = logs.try_push(n); // what is too much is counted
                }
            });
            if is_query || decision.denies() {
                self.counts.rule(decision.rule.unwrap_or(self.rules.list.len()));
            }
            if decision.denies() && denied.is_none() {
                denied = Some(Denial::of(decision));
            }
            first = first.or(Some((question, decision)));
        }
        // Who asks must show what for; an answer without a question asks for nothing.
        if first.is_none() && self.rules.denies_by_default() && (is_query || to_server) {
            self.counts.rule(self.rules.list.len());
            denied = Some(Denial::of(self.rules.by_default()));
        }
        if denied.is_none()
            && is_query
            && let Some((question, decision)) = &first
        {
            denied = self.look(question, *decision, packet, cx);
        }
        for rule in logs {
            let alert = Alert { rule: rule as u32, blocked: denied.is_some() };
            cx.emit(packet.meta(), packet.inner(), alert);
        }
        denied
    }

    /// Does a name look like a tunnel? Those that a rule allows by name do not.
    fn look(
        &mut self,
        question: &Question,
        decision: Decision,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Denial> {
        let (signs, watch) = self.tunnel.as_mut()?;
        let rule = decision.rule.and_then(|n| self.rules.list.get(n));
        if rule.is_some_and(|rule| rule.names.is_some()) {
            return None;
        }
        let client = (packet.meta().endpoint, packet.source());
        let seen = watch.look(signs, &question.name, client, cx.now)?;
        let [length, entropy, rate] = &self.counts.signs;
        match seen.sign {
            Sign::Length => length.add(1),
            Sign::Entropy => entropy.add(1),
            Sign::Rate => rate.add(1),
        }
        let denial = signs.denies.then_some(Denial { why: Why::Tunnel, rejects: false });
        if seen.is_news {
            let event = seen.sign.event();
            self.teller.sign(event, packet);
            anomaly(event, denial, packet, cx);
        }
        denial
    }

    /// A message that was decided on has come to its end. `is_cut`: not all of it is here, and that is not its fault.
    pub fn finish(
        &mut self,
        message: &Message<'_>,
        is_cut: bool,
        tx: u64,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Denial> {
        let is_whole = message.state == State::Whole || (message.state == State::Cut && is_cut);
        let denial = if is_whole { None } else { self.malformed(packet, cx) };
        self.told(message, tx, denial.is_some(), packet, cx);
        denial
    }

    /// Counts a message and tells of it.
    pub fn told(&mut self, message: &Message<'_>, tx: u64, denied: bool, packet: &View<'_>, cx: &mut Cx<'_>) {
        const NO_SUCH_NAME: u8 = 3;
        if message.header.is_answer() {
            self.counts.answers.add(1);
            self.counts.no_such_name.add((message.header.rcode() == NO_SUCH_NAME).into());
        } else {
            self.counts.queries.add(1);
        }
        self.teller.message(&Told { message, tx, denied }, packet, cx);
    }

    /// Bytes that have not even a header.
    pub fn garbage(&mut self, to_server: bool, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        let malformed = self.malformed(packet, cx);
        let by_default = (to_server && self.rules.denies_by_default()).then(|| self.rules.by_default());
        malformed.or(by_default.map(Denial::of))
    }

    fn malformed(&mut self, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Denial> {
        self.counts.malformed.add(1);
        let denial = self.rules.deny_malformed.then_some(Denial { why: Why::Malformed, rejects: false });
        anomaly("dns_malformed", denial, packet, cx);
        denial
    }
}

fn anomaly(event: &'static str, denial: Option<Denial>, packet: &View<'_>, cx: &mut Cx<'_>) {
    let reason = denial.map(|denial| cx.reason(denial.why as usize));
    let anomaly = Anomaly { kind: AnomalyKind::Applayer, event, reason, skipped: 0 };
    cx.emit(packet.meta(), packet.inner(), anomaly);
}
