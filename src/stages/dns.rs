//! DNS: who asks for what, what is answered, and who may.
//!
//! ```toml
//! [[stage]]
//! use = "dns"
//! default = "allow"                 # what no rule decides on: allow | deny | reject
//! malformed = "pass"                # what breaks the rules of DNS: pass | deny
//! ports = [53]                      # and what looks like DNS on other ports:
//! detect = true
//! on_unread = "pass"                # gaps, no room, fragments of queries: pass | drop
//!
//! [[stage.rule]]
//! action = "deny"                   # allow | deny | reject | log
//! names = [".ads.example", "tracker.example"]
//! # names_file = "names.txt"        # one name a line
//! # types = ["NULL", "TXT", 65]
//! comment = "ads"
//!
//! [stage.tunnel]
//! action = "report"                 # off | report | deny
//! names_per_minute = 200            # different ones below one domain, of one client
//! ```
//!
//! Reads queries and answers: each UDP datagram, and TCP however it is cut into segments, with any number of messages in flight. Every message is
//! decided on by itself. Of UDP, a message that is denied is dropped and the next one asked again, so that a flow that speaks DNS is never settled; of TCP, where
//! nothing can be taken out, the connection ends. Over TCP a question is decided on as soon as it has come, which is before its server can answer; the frame
//! with its beginning waits until then (`hold`), unless it ends another message that may pass: then the far end may see a beginning, never all of it.
//!
//! Tells: a `dns` record of each query and answer; an alert for each `log` rule that a query matches; an anomaly for what is malformed, and for names that
//! look like a tunnel (`tunnel`; docs/events.md).
//!
//! Promises: facts do not depend on the order in which segments came, nor on how they were cut. A message whose counts and lengths lie, or whose names
//! loop, is read as far as it goes, counted as malformed, and passes unless `malformed = "deny"` or its first question may not. Memory is fixed: places for TCP messages
//! (`messages`, `message_bytes`), a table for tunnels; nothing is allocated but for records that somebody wants. A connection on a listed port that
//! sends eight malformed messages in a row is no more read, and goes by `on_unread` if something can be denied.
//!
//! IPv6 is read as IPv4 is, behind whatever extension headers. Not read: what is in later fragments (a query's go by `on_unread`; of an answer the question stands in the first), DNS in TLS, HTTPS or QUIC.
//!
//! The parser is ours (`message`), not a crate's: it allocates nothing, is held to the lints of the packet path, and walks each name once; `domain` is what it
//! is tested against.

mod message;
mod words;
pub(super) mod shape;
mod gather;
mod rules;
mod tunnel;
mod event;
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

pub use judge::{Counts, Records, Tell, Told};
pub use message::{Header, Message, Name, Question, Record, State};
pub use settings::Settings;

use crate::config;
use crate::dpdk::Error;
use crate::event::Signature;
use crate::packet::{InnerFlags, Meta, Verdict, View};
use crate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
    WorkerId,
};
use crate::stages::places::{self, Places};
use crate::stream::{End, Spot};
use crate::wire::transport;
use gather::{PREFIX, Side, Step};
use judge::{Denial, Judge};

/// Datagrams of a flow on a port that is not listed that are looked at before it counts as none of DNS.
const TRIES: u8 = 3;
/// Malformed messages of a direction, one after the other, after which a connection is not read any more.
const MOST_BAD: u8 = 8;
/// Bytes of a UDP header.
const UDP: usize = 8;

/// The kind `dns`.
pub const KIND: StageKind = StageKind {
    name: "dns",
    summary: "DNS queries and answers: names, types, outcomes, tunnels; denies by them",
    help: settings::HELP,
    example: settings::EXAMPLE,
    reasons: &[
        ("denied", "A question that a rule denies or rejects."),
        (
            "default_deny",
            "A question that no rule decides on, or none that can be read, and the default is no allow.",
        ),
        ("tunnel", "A name that looks like it carries data, where tunnel.action is deny."),
        ("malformed", "A message that breaks the rules of DNS, where malformed is deny."),
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

    fn judges_each_datagram(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<Flow>::BYTES
    }

    fn denies_by_default(&self) -> bool {
        self.rules.denies_by_default()
    }

    fn warnings(&self) -> Vec<String> {
        let list = &self.rules.list;
        let all = list.iter().position(|rule| {
            rule.action != rules::Action::Log && rule.names.is_none() && rule.kinds.is_none()
        });
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
        Box::new(PerStream(Dns::new(&self.settings, make, counts, Records)))
    }

    fn report(&self) -> Vec<(String, String)> {
        let rules = &self.settings.rules;
        let names: usize = rules.list.iter().filter_map(|rule| rule.names.as_ref()).map(|n| n.len()).sum();
        vec![
            ("rules".into(), rules.list.len().to_string()),
            ("names".into(), names.to_string()),
            ("default".into(), rules.default.word().into()),
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
    /// It speaks DNS, as its port or its shape says.
    known: bool,
    /// Datagrams that looked like something else.
    misses: u8,
    /// Queries so far.
    queries: u32,
    /// Why its packets are dropped.
    denied: Option<Denial>,
}

/// One direction of a TCP connection.
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    side: Side,
    /// Its first message has begun as one.
    begun: bool,
    /// The message at hand has been decided on.
    decided: bool,
    /// A frame waits for a decision.
    waits: bool,
    /// Malformed messages, one after the other.
    bad: u8,
}

/// Where DNS is looked for.
#[derive(Debug)]
struct Ports {
    listed: Vec<u16>,
    detect: bool,
}

impl Ports {
    /// Is one of a packet's ports listed?
    fn have(&self, meta: &Meta) -> bool {
        self.listed.contains(&meta.destination_port) || self.listed.contains(&meta.source_port)
    }

    /// Are flows between ports that are not listed looked at all the same?
    fn are_looked_at(&self, meta: &Meta) -> bool {
        let alike = |port| shape::LOOK_ALIKES.contains(&port);
        self.detect && !alike(meta.destination_port) && !alike(meta.source_port)
    }
}

/// The running stage.
#[derive(Debug)]
pub struct Dns<T> {
    ports: Ports,
    hold: bool,
    can_deny: bool,
    flows: PerFlow<Flow>,
    places: Places,
    judge: Judge<T>,
}

/// What came of a piece of a stream.
enum Came {
    /// Read as far as it goes.
    Read {
        decided: bool,
    },
    Denied(Denial),
    /// The connection cannot be read.
    Unread,
    /// It is something else.
    Other,
}

impl<T: Tell> Dns<T> {
    /// For one worker; `tell` hears of every message.
    pub fn new(settings: &Settings, make: &Make, counts: Arc<Counts>, tell: T) -> Self {
        Dns {
            ports: Ports { listed: settings.ports.clone(), detect: settings.detect },
            hold: settings.hold,
            can_deny: settings.can_deny(),
            flows: PerFlow::new(make),
            places: Places::new(settings.messages, PREFIX + settings.message_bytes),
            judge: Judge::new(settings, counts, tell),
        }
    }

    /// What cannot be read: only where something can be denied does it matter.
    fn unread(&self, cx: &Cx<'_>) -> Verdict {
        self.judge.counts.unread.add(1);
        if self.can_deny { cx.unread() } else { Verdict::Next }
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
        let Flow { sides, known, queries, .. } = flow;
        let Some(direction) = sides.get_mut(usize::from(spot.reply)) else { return Came::Other };
        // On a listed port, from its beginning on, a connection is what it should be. A direction whose first bytes another stage was shown (a reload)
        // may be in the middle of a message: it has to look like a beginning.
        let missed = spot.from_syn && spot.offset > 0 && !direction.begun && !direction.side.is_open();
        if !missed && (*known || (listed && spot.from_syn)) {
            (direction.begun, *known) = (true, true);
        }
        let (mut decided, most) = (false, self.places.size() - PREFIX);
        loop {
            let step = direction.side.take(&mut bytes, &mut self.places, cx.now);
            if !direction.begun {
                match shape::begins(&step, listed, most) {
                    Some(true) => (direction.begun, *known) = (true, true),
                    Some(false) if listed => return Came::Unread,
                    Some(false) => return Came::Other,
                    None => {}
                }
            }
            let (message, whole) = match step {
                Step::Over => break,
                Step::Part(part) if direction.begun && !direction.decided => {
                    match part.get(PREFIX..).and_then(Message::questions_of) {
                        Some(message) if message.state != State::Cut => (message, None),
                        _ => continue,
                    }
                }
                Step::Part(_) => continue,
                Step::Lost => {
                    if !std::mem::take(&mut direction.decided) && self.can_deny {
                        return Came::Unread;
                    }
                    self.judge.counts.unread.add(1);
                    continue;
                }
                Step::Whole(bytes, len) => match Message::read(bytes) {
                    Some(message) => (message, Some(bytes.len() < usize::from(len))),
                    None => {
                        direction.bad += 1;
                        direction.decided = false;
                        if let Some(denial) = self.judge.garbage(!spot.reply, packet, cx) {
                            return Came::Denied(denial);
                        }
                        if direction.bad >= MOST_BAD {
                            return Came::Unread;
                        }
                        continue;
                    }
                },
            };
            if !std::mem::replace(&mut direction.decided, true) {
                decided = true;
                if let Some(denial) = self.judge.decide(&message, !spot.reply, packet, cx) {
                    self.judge.told(&message, (*queries).into(), true, packet, cx);
                    return Came::Denied(denial);
                }
            }
            let Some(is_cut) = whole else { continue };
            direction.decided = false;
            let tx = *queries;
            *queries = queries.wrapping_add(u32::from(!message.header.is_answer()));
            let is_bad = message.question.is_none() && message.state == State::Broken;
            direction.bad = if is_bad { direction.bad + 1 } else { 0 };
            if let Some(denial) = self.judge.finish(&message, is_cut, tx.into(), packet, cx) {
                return Came::Denied(denial);
            }
            if direction.bad >= MOST_BAD {
                return Came::Unread;
            }
        }
        Came::Read { decided }
    }

    /// Nothing more of a connection is read.
    fn leave(&mut self, packet: &View<'_>, denied: Option<Denial>, cx: &mut Cx<'_>) {
        if let Some(flow) = self.flows.of(packet.meta()) {
            flow.sides.iter_mut().for_each(|direction| direction.side.clear(&mut self.places));
            flow.denied = denied;
        }
        cx.settle();
    }
}

impl<T: Tell> StreamInspect for Dns<T> {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let meta = packet.meta();
        let listed = self.ports.have(meta);
        let Some(flow) = self.flows.of(meta) else { return Verdict::Next };
        if let Some(denial) = flow.denied {
            cx.settle();
            return denial.verdict(cx);
        }
        if !listed && !flow.known && !self.ports.are_looked_at(meta) {
            cx.settle();
            return Verdict::Next;
        }
        let given_up = self.places.given_up;
        let came = self.read(bytes, (spot, listed), packet, cx);
        if self.places.given_up != given_up {
            self.judge.counts.given_up.add(self.places.given_up - given_up);
            places::tell_given_up("dns_given_up", packet, cx);
        }
        let decided = match came {
            Came::Read { decided } => decided,
            Came::Denied(denial) => {
                self.leave(packet, Some(denial), cx);
                return denial.verdict(cx);
            }
            Came::Unread => {
                self.leave(packet, None, cx);
                return self.unread(cx);
            }
            Came::Other => {
                self.leave(packet, None, cx);
                return Verdict::Next;
            }
        };
        let Some(flow) = self.flows.of(meta) else { return Verdict::Next };
        let Some(direction) = flow.sides.get_mut(usize::from(spot.reply)) else { return Verdict::Next };
        let open = direction.side.is_open() && direction.begun && !direction.decided;
        // What waited may go if its message was decided on, and then the beginning of the next cannot wait: it is in the same frame, or behind it.
        direction.waits = self.hold && open && !(direction.waits && decided);
        if direction.waits { Verdict::Hold } else { Verdict::Next }
    }

    fn gap(&mut self, _: u32, _: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        // Where the next message begins nobody knows.
        self.judge.counts.unread.add(1);
        self.leave(packet, None, cx);
        Verdict::Next
    }

    fn end(&mut self, why: End, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(flow) = self.flows.of(packet.meta()) else { return Verdict::Next };
        if why == End::Depth && flow.known {
            self.leave(packet, None, cx);
            return self.unread(cx);
        }
        if let Some(direction) = flow.sides.get_mut(usize::from(spot.reply)) {
            direction.side.clear(&mut self.places);
        }
        Verdict::Next
    }

    fn other(&mut self, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let meta = packet.meta();
        if meta.protocol != transport::UDP {
            cx.settle();
            return Verdict::Next;
        }
        let mut flow = self.flows.of(meta);
        if meta.flags.has(InnerFlags::LATER_FRAGMENT) {
            let is_query = flow.is_some_and(|flow| flow.known) && !meta.is_reply();
            return if is_query { self.unread(cx) } else { Verdict::Next };
        }
        let udp = packet.transport();
        let Some(len) = udp.get(4..6).and_then(|len| len.first_chunk()) else { return Verdict::Next };
        let len = usize::from(u16::from_be_bytes(*len)).clamp(UDP, udp.len().max(UDP));
        let datagram = udp.get(UDP..len).unwrap_or(&[]);
        let read = Message::read(datagram);
        let is_known = flow.as_ref().is_some_and(|flow| flow.known);
        if !is_known && !self.ports.have(meta) {
            let looked_at = self.ports.are_looked_at(meta);
            let is_dns =
                looked_at && read.as_ref().is_some_and(|message| shape::is_dns(message, datagram.len()));
            if !is_dns {
                let misses = flow.map_or(0, |flow| {
                    flow.misses = flow.misses.saturating_add(1);
                    flow.misses
                });
                if !looked_at || misses >= TRIES {
                    cx.settle();
                }
                return Verdict::Next;
            }
        }
        let mut tx = 0;
        if let Some(flow) = &mut flow {
            (flow.known, tx) = (true, flow.queries);
            let is_query = read.as_ref().is_some_and(|message| !message.header.is_answer());
            flow.queries = flow.queries.wrapping_add(is_query.into());
        }
        let to_server = !meta.is_reply();
        let is_cut = meta.flags.has(InnerFlags::FIRST_FRAGMENT);
        let denial = match &read {
            None if is_cut => return self.unread(cx),
            None => self.judge.garbage(to_server, packet, cx),
            Some(message) if is_cut && message.question.is_none() && message.state == State::Cut => {
                return self.unread(cx);
            }
            Some(message) => match self.judge.decide(message, to_server, packet, cx) {
                Some(denial) => {
                    self.judge.told(message, tx.into(), true, packet, cx);
                    Some(denial)
                }
                None => self.judge.finish(message, is_cut, tx.into(), packet, cx),
            },
        };
        // The flow goes on: the next message may be another's.
        denial.map_or(Verdict::Next, |denial| denial.verdict(cx))
    }
}
