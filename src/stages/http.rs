//! HTTP/1: who asks whom for what, how it is answered, and who may.
//!
//! ```toml
//! [[stage]]
//! use = "http"
//! default = "allow"                 # what no rule decides on: allow | deny | reject
//! malformed = "pass"                # what breaks the rules of HTTP: pass | deny
//! ambiguous = "pass"                # what can be read in two ways (request smuggling): pass | deny
//! http2 = "pass"                    # HTTP/2 without TLS, which is not read: pass | deny
//! ports = [80, 8080]                # and what begins like HTTP on other ports:
//! detect = true
//! on_unread = "pass"                # gaps, no room, heads without end: pass | drop
//!
//! [[stage.rule]]
//! action = "deny"                   # allow | deny | reject | log
//! methods = ["POST", "PUT"]
//! hosts = [".example.com"]
//! # hosts_file = "hosts.txt"        # one name a line
//! paths = ["/admin"]
//! # path_regex = ['\.php$']
//! # query_regex = ["(?i)union.*select"]
//! # header = [{ name = "User-Agent", regex = ["(?i)curl|wget"] }]
//! comment = "admin"
//! ```
//!
//! Reads requests and answers of each connection, however they are cut into segments: one behind the other, pipelined, with bodies by length, in chunks or up to the
//! end, answered before they have come. Every request is decided on by itself, when its head has come; where something can be denied the frame with the
//! head's beginning waits until then (`hold`), unless it ends another head that may pass. What is denied ends the connection: a byte stream cannot lose a request.
//!
//! Answers are matched to requests, since an answer to HEAD has no body and one to CONNECT ends HTTP. Transfer-Encoding wins over Content-Length; the target's host wins
//! over headers', the first of these over others. Each of these contradictions is an anomaly, and denied where `ambiguous = "deny"`.
//!
//! Tells: an `http` record of each request with its answer; an alert for each `log` rule that a request matches; an anomaly for what is malformed,
//! ambiguous or too long (docs/events.md).
//!
//! Promises: facts do not depend on the order in which segments came, nor on how they were cut. Heads that break the rules are read as servers read them. Bodies are counted,
//! not copied. Memory is fixed: places for heads in pieces (`heads`, `head_bytes`), and for records (`requests`, `memory_kb`); nothing is allocated but for records that
//! somebody wants. Where reading was lost (a gap, damage, a connection that was there before) it goes on at the next segment that begins like a head.
//!
//! Not read: bodies, HTTP/2 and HTTP/3; a connection that goes on in HTTP/2 is told and counted, and settled.

mod shape;
mod frame;
mod head;
mod target;
mod pattern;
mod rules;
mod records;
mod settings;
mod judge;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must panic"
)]
pub mod arbitrary_input;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

pub use settings::Settings;

use crate::config;
use crate::dpdk::Error;
use crate::event::facts;
use crate::event::{Signature, Type};
use crate::packet::{Meta, Verdict, View};
use crate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
    WorkerId,
};
use crate::stages::places::{self, Places};
use crate::stream::{End, Spot};
use frame::{Body, Side, Step};
use head::{Answer, Asked, Request};
use judge::{Counts, Denial, Judge};
use records::{Records, Ticket};

/// The kind `http`.
pub const KIND: StageKind = StageKind {
    name: "http",
    summary: "HTTP/1 requests and answers: methods, hosts, paths, headers; denies by them",
    help: settings::HELP,
    example: settings::EXAMPLE,
    reasons: &[
        ("denied", "A request that a rule denies or rejects."),
        (
            "default_deny",
            "A request that no rule decides on, or what is no HTTP on a listed port, and the default is no allow.",
        ),
        ("ambiguous", "A message that can be read in two ways, where ambiguous is deny."),
        ("malformed", "A message that breaks the rules of HTTP, where malformed is deny."),
        ("http2", "HTTP/2, where http2 is deny."),
    ],
    parse,
};

fn parse(settings: &config::Settings<'_>) -> ParseResult {
    Ok(Box::new(Settings::read(settings)?))
}

impl Parsed for Settings {
    fn wants_streams(&self) -> bool {
        true
    }

    fn reads_whole_streams(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<Flow>::BYTES
    }

    fn denies_by_default(&self) -> bool {
        self.rules.default.denies()
    }

    fn warnings(&self) -> Vec<String> {
        let list = &self.rules.list;
        let all = list.iter().position(|rule| rule.action != rules::Action::Log && rule.is_for_all());
        let behind = all.filter(|all| all + 1 < list.len());
        behind
            .map(|all| format!("rule[{all}] decides on everything: no rule behind it is asked"))
            .into_iter()
            .collect()
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(Built { settings: self.clone(), counts: Mutex::default() }))
    }
}

/// What all workers share.
#[derive(Debug)]
struct Built {
    settings: Settings,
    counts: Mutex<Vec<(WorkerId, Arc<Counts>)>>,
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let mut all = self.counts.lock();
        let known = all.iter().find(|(worker, _)| *worker == make.worker).map(|(_, counts)| counts.clone());
        let counts = known.unwrap_or_else(|| {
            let counts = Arc::new(Counts::new(&self.settings));
            all.push((make.worker, counts.clone()));
            counts
        });
        Box::new(PerStream(Http::new(&self.settings, make, counts)))
    }

    fn report(&self) -> Vec<(String, String)> {
        let rules = &self.settings.rules;
        let hosts: usize = rules.list.iter().filter_map(|rule| rule.hosts.as_ref()).map(|n| n.len()).sum();
        let patterns: usize = rules.list.iter().map(rules::Rule::memory).sum();
        vec![
            ("rules".into(), rules.list.len().to_string()),
            ("hosts".into(), hosts.to_string()),
            ("default".into(), rules.default.word().into()),
            ("memory of patterns".into(), format!("{} kB", patterns.div_ceil(1024))),
            ("memory of a worker".into(), format!("{} kB", self.settings.memory() / 1024)),
        ]
    }

    fn signatures(&self) -> Vec<Signature> {
        let signature = |(n, rule): (usize, &rules::Rule)| Signature {
            signature: if rule.comment.is_empty() { rule.label(n) } else { rule.comment.clone() },
            signature_id: rule.id.unwrap_or(n as u32 + 1),
            rev: 1,
            category: String::new(),
            severity: rule.severity,
        };
        self.settings.rules.list.iter().enumerate().map(signature).collect()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let all = self.counts.lock();
        let mut sums: Vec<(String, u64)> = Vec::new();
        for (n, (label, _)) in Counts::new(&self.settings).read(&self.settings).into_iter().enumerate() {
            let of = |counts: &Counts| counts.read(&self.settings).get(n).map_or(0, |(_, count)| *count);
            sums.push((label, all.iter().map(|(_, counts)| of(counts)).sum()));
        }
        sums
    }
}

/// What is kept of every flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    sides: [Direction; 2],
    /// It speaks HTTP.
    known: bool,
    waiting: Waiting,
    ticket: Ticket,
    /// Why its packets are dropped.
    denied: Option<Denial>,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    side: Side,
    /// It has begun like HTTP.
    begun: bool,
    /// A frame waits for a decision.
    waits: bool,
    /// What it says are answers.
    answers: bool,
}

/// Requests that have not been answered: of each whether it was HEAD or CONNECT, the oldest in the lowest bit.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    count: u8,
    heads: u64,
    connects: u64,
    /// Answers that came before their requests: segments of the two directions may overtake each other.
    early: u8,
    /// Nobody knows any more which answer is whose.
    lost: bool,
}

impl Waiting {
    /// A request. True: it was answered before.
    fn ask(&mut self, asked: Asked) -> bool {
        if self.early > 0 {
            self.early -= 1;
            return true;
        }
        if u32::from(self.count) >= u64::BITS {
            self.lose();
        }
        if !self.lost {
            let bit = 1 << self.count;
            self.heads |= if asked == Asked::Head { bit } else { 0 };
            self.connects |= if asked == Asked::Connect { bit } else { 0 };
            self.count += 1;
        }
        false
    }

    /// What the next answer is to.
    fn next(&self) -> Asked {
        match (self.heads & 1, self.connects & 1) {
            (0, 0) => Asked::Body,
            (_, 0) => Asked::Head,
            _ => Asked::Connect,
        }
    }

    /// That one was answered. False: it had not come.
    fn answered(&mut self, whole: bool) -> bool {
        if self.count > 0 {
            (self.count, self.heads, self.connects) = (self.count - 1, self.heads >> 1, self.connects >> 1);
            return true;
        }
        self.early = self.early.saturating_add((whole && !self.lost).into());
        false
    }

    fn lose(&mut self) {
        *self = Waiting { lost: true, ..Waiting::default() };
    }
}

/// The running stage.
#[derive(Debug)]
pub struct Http {
    ports: Vec<u16>,
    detect: bool,
    hold: bool,
    flows: PerFlow<Flow>,
    places: Places,
    /// The time of the poll in which requests were last looked at for their age.
    looked: u64,
    desk: Desk,
}

/// What came of a piece of a stream.
enum Came {
    /// Read as far as it goes.
    Read,
    /// The same, and a head was decided on.
    Decided,
    Denied(Denial),
    /// What follows in this direction cannot be read.
    Unread,
    /// The connection goes on in something else.
    Other,
}

impl Http {
    fn new(settings: &Settings, make: &Make, counts: Arc<Counts>) -> Self {
        Http {
            ports: settings.ports.clone(),
            detect: settings.detect,
            hold: settings.hold,
            flows: PerFlow::new(make),
            places: Places::new(settings.heads, settings.head_bytes),
            looked: 0,
            desk: Desk {
                judge: Judge::new(settings, counts),
                records: Records::new(settings.requests, settings.memory),
                can_deny: settings.rules.can_deny(),
            },
        }
    }

    /// Is one of a packet's ports listed?
    fn is_listed(&self, meta: &Meta) -> bool {
        self.ports.contains(&meta.destination_port) || self.ports.contains(&meta.source_port)
    }

    /// The messages in the next bytes of a direction.
    fn read(
        &mut self,
        mut bytes: &[u8],
        (spot, listed): (&Spot, bool),
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Came {
        let Some(flow) = self.flows.of(packet.meta()) else { return Came::Other };
        let mut decided = false;
        loop {
            let own = flow.side(spot.reply);
            match own.side.take(&mut bytes, &mut self.places, cx.now) {
                Step::Over if own.begun || !own.side.is_in_head() => break,
                Step::Over => match shape::begins(own.side.begun(&self.places)) {
                    Some(false) => return self.desk.foreign(listed, spot, packet, cx),
                    Some(true) => {
                        (own.begun, flow.known) = (true, true);
                        break;
                    }
                    None => break,
                },
                Step::Head(head) => {
                    if !own.begun && shape::begins(head) != Some(true) {
                        return self.desk.foreign(listed, spot, packet, cx);
                    }
                    own.begun = true;
                    (flow.known, decided) = (true, true);
                    let came = self.desk.head(head, flow, spot, packet, cx);
                    if !matches!(came, Came::Read) {
                        return came;
                    }
                }
                Step::End if own.answers => {
                    let length = own.side.counted();
                    self.desk.records.end(flow.ticket, length, packet, cx);
                }
                Step::End => {}
                Step::TooLong if !own.begun => return self.desk.foreign(listed, spot, packet, cx),
                Step::TooLong => return self.desk.broken("http_head_too_long", packet, cx),
                Step::Lost => return Came::Unread,
                Step::Broken => return self.desk.broken("http_malformed", packet, cx),
            }
        }
        if decided { Came::Decided } else { Came::Read }
    }

    /// Nothing more of a connection is read.
    fn leave(&mut self, packet: &View<'_>, denied: Option<Denial>, cx: &mut Cx<'_>) {
        if let Some(flow) = self.flows.of(packet.meta()) {
            flow.sides.iter_mut().for_each(|direction| direction.side.stop(&mut self.places));
            flow.denied = denied;
            self.desk.records.close(flow.ticket, cx);
        }
        cx.settle();
    }

    /// A direction cannot be read from here on, unless it begins like a head again.
    fn unread(&mut self, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        self.desk.judge.counts.unread.add(1);
        let verdict = cx.unread();
        let Some(flow) = self.flows.of(packet.meta()) else { return Verdict::Next };
        // Rules are of requests: where these cannot be read, or nobody knows which they are.
        let matters = self.desk.can_deny && !flow.side(spot.reply).answers;
        if matters && verdict != Verdict::Next && (spot.from_syn || flow.known) {
            self.leave(packet, None, cx);
            return verdict;
        }
        flow.waiting.lose();
        self.desk.records.close(flow.ticket, cx);
        let own = flow.side(spot.reply);
        own.side.seek(&mut self.places);
        (own.begun, own.waits) = (false, false);
        Verdict::Next
    }
}

impl Flow {
    /// A direction.
    fn side(&mut self, reply: bool) -> &mut Direction {
        let [forth, back] = &mut self.sides;
        if reply { back } else { forth }
    }
}

/// What reads heads and decides: all of the stage but flows and places, so that a head can lie in one of these meanwhile.
#[derive(Debug)]
struct Desk {
    judge: Judge,
    records: Records,
    can_deny: bool,
}

impl Desk {
    /// A head has come.
    fn head(
        &mut self,
        head: &[u8],
        flow: &mut Flow,
        spot: &Spot,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Came {
        let own = flow.side(spot.reply);
        own.answers = head.starts_with(b"HTTP/");
        if own.answers {
            // Who opened a connection asks.
            let answer = head::answer(head).filter(|_| spot.reply || !spot.from_syn);
            own.answers = answer.is_some();
            return match answer {
                Some(answer) => self.answer(&answer, flow, spot, packet, cx),
                None => self.broken("http_malformed", packet, cx),
            };
        }
        match head::request(head) {
            Some(request) => self.request(&request, flow, spot, packet, cx),
            None => self.broken("http_malformed", packet, cx),
        }
    }

    fn request(
        &mut self,
        request: &Request<'_>,
        flow: &mut Flow,
        spot: &Spot,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Came {
        if request.is_http2() {
            return self.http2(packet, cx);
        }
        flow.side(spot.reply).side.body(request.body);
        let denial = self.judge.request(request, packet, cx);
        let asked = request.asked();
        let before = flow.waiting.ask(asked);
        if cx.wants(Type::Http) {
            let http = records::asked(request);
            if denial.is_some() {
                self.records.close(flow.ticket, cx); // what was asked before was asked before
            }
            match denial.is_some() || before {
                true => cx.emit(packet.meta(), packet.inner(), http),
                false => self.records.request(&mut flow.ticket, http, packet, cx),
            }
        }
        if let Some(denial) = denial {
            return Came::Denied(denial);
        }
        match asked {
            Asked::Connect if before => return Came::Other,
            Asked::Head if before && flow.side(!spot.reply).answers => {
                flow.side(!spot.reply).side.without_body();
            }
            _ => {}
        }
        // Where it ends nobody knows (RFC 9112 section 6.3).
        if request.body == Body::UntilEnd { Came::Unread } else { Came::Read }
    }

    fn answer(
        &mut self,
        answer: &Answer<'_>,
        flow: &mut Flow,
        spot: &Spot,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Came {
        let body = answer.body_for(flow.waiting.next());
        flow.side(spot.reply).side.body(body);
        let denial = self.judge.answer(answer, packet, cx);
        let wanted = cx.wants(Type::Http);
        if !answer.is_interim() {
            let matched = flow.waiting.answered(spot.from_syn);
            if wanted {
                self.records.answer(&mut flow.ticket, answer, matched, packet, cx);
                if matches!(body, Body::None | Body::Length(0) | Body::Opaque) {
                    self.records.end(flow.ticket, 0, packet, cx);
                }
            }
        }
        if let Some(denial) = denial {
            return Came::Denied(denial);
        }
        match body {
            Body::Opaque if answer.to_http2 => self.http2(packet, cx),
            Body::Opaque => Came::Other,
            // No further answer comes; what else is asked matters only to rules.
            Body::UntilEnd if !self.can_deny && !wanted => Came::Other,
            _ => Came::Read,
        }
    }

    /// The connection goes on in HTTP/2.
    fn http2(&mut self, packet: &View<'_>, cx: &mut Cx<'_>) -> Came {
        if cx.wants(Type::Http) {
            let http = facts::Http { protocol: Some("HTTP/2".into()), ..facts::Http::default() };
            cx.emit(packet.meta(), packet.inner(), Box::new(http));
        }
        self.judge.http2().map_or(Came::Other, Came::Denied)
    }

    /// Something that cannot be read: what follows is unread, unless it is denied.
    fn broken(&mut self, event: &'static str, packet: &View<'_>, cx: &mut Cx<'_>) -> Came {
        self.judge.malformed(event, packet, cx).map_or(Came::Unread, Came::Denied)
    }

    /// A direction begins with something else.
    fn foreign(&mut self, listed: bool, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Came {
        match (listed, spot.from_syn) {
            (false, _) => Came::Other,
            (true, false) => Came::Unread, // in the middle of something
            (true, true) => self.judge.foreign(!spot.reply, packet, cx).map_or(Came::Unread, Came::Denied),
        }
    }
}

impl StreamInspect for Http {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        if self.looked != cx.now {
            self.looked = cx.now;
            self.desk.records.expire(1, cx);
        }
        let meta = packet.meta();
        let listed = self.is_listed(meta);
        let Some(flow) = self.flows.of(meta) else { return Verdict::Next };
        if let Some(denial) = flow.denied {
            cx.settle();
            return denial.verdict(cx);
        }
        if !listed && !flow.known && !self.detect {
            cx.settle();
            return Verdict::Next;
        }
        let given_up = self.places.given_up;
        let came = self.read(bytes, (spot, listed), packet, cx);
        if self.places.given_up != given_up {
            self.desk.judge.counts.given_up.add(self.places.given_up - given_up);
            places::tell_given_up("http_given_up", packet, cx);
        }
        let decided = match came {
            Came::Read => false,
            Came::Decided => true,
            Came::Denied(denial) => {
                self.leave(packet, Some(denial), cx);
                return denial.verdict(cx);
            }
            Came::Unread => return self.unread(spot, packet, cx),
            Came::Other => {
                self.leave(packet, None, cx);
                return Verdict::Next;
            }
        };
        let Some(flow) = self.flows.of(meta) else { return Verdict::Next };
        let own = flow.side(spot.reply);
        let open = own.begun && own.side.is_in_head() && !own.answers;
        // What waited may go if its head was decided on, and then the beginning of the next cannot wait: it is in the same frame, or behind it.
        own.waits = self.hold && open && !(own.waits && decided);
        if own.waits { Verdict::Hold } else { Verdict::Next }
    }

    fn gap(&mut self, len: u32, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(flow) = self.flows.of(packet.meta()) else { return Verdict::Next };
        if flow.side(spot.reply).side.gap(len) {
            return Verdict::Next; // it was in a body
        }
        self.unread(spot, packet, cx)
    }

    fn end(&mut self, why: End, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(flow) = self.flows.of(packet.meta()) else { return Verdict::Next };
        if why == End::Depth && flow.known {
            return self.unread(spot, packet, cx);
        }
        let own = flow.side(spot.reply);
        let mut came = Came::Read;
        if own.begun && own.side.is_in_head() {
            // HTTP/0.9, or no more than a beginning: it is read as far as it goes.
            let begun = own.side.begun(&self.places);
            came = self.desk.head(begun, flow, spot, packet, cx);
        }
        let own = flow.side(spot.reply);
        let length = own.side.counted();
        if own.answers && own.side.is_in_body() {
            self.desk.records.end(flow.ticket, length, packet, cx);
        }
        if flow.side(spot.reply).answers || why == End::Reset {
            self.desk.records.close(flow.ticket, cx);
        }
        flow.side(spot.reply).side.stop(&mut self.places);
        if let Came::Denied(denial) = came {
            self.leave(packet, Some(denial), cx);
            return denial.verdict(cx);
        }
        Verdict::Next
    }

    fn idle(&mut self, cx: &mut Cx<'_>) {
        self.desk.records.expire(8, cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.desk.records.stop(cx);
    }

    fn other(&mut self, _: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        cx.settle();
        Verdict::Next
    }
}
