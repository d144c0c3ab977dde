//! TLS and DTLS: who speaks which version to whom, and who may.
//!
//! ```toml
//! [[stage]]
//! use = "tls"
//! deny_below = "1.2"                # ssl3 | 1.0 | 1.1 | 1.2 | 1.3
//! deny_names = [".ads.example", "tracker.example"]
//! # deny_names_file = "names.txt"   # one name a line
//! # allow_names = [".example.com"]  # nothing else may pass
//! # unnamed = "deny"                # hellos without a server name
//! # deny_ja3 = ["e7d705a3286e19ea42f587b344ee6865"]
//! # deny_ja4 = ["t13d1516h2_8daaf6152771_e5627efa2ab1"]
//! # malformed = "deny"              # what breaks the rules of TLS
//! action = "reject"                 # reject | drop
//! on_unread = "pass"                # gaps, no memory: pass | drop
//! ```
//!
//! Reads ClientHello and ServerHello of every TCP connection, at its first byte or behind what was said in plain text before (STARTTLS,
//! CONNECT), and of DTLS over UDP; however they are cut into segments, records, messages and fragments. With both it is done with the flow.
//! Where a rule can deny a hello, the frame that began it waits until the hello is whole (`hold`), so that the other side never sees one that is denied.
//!
//! Tells: a `tls` record for each flow when both hellos were read, or as far as it came; names, lists and fingerprints are made only if somebody wants that when a hello is
//! read (fingerprints also if a rule asks for them), and a handshake of which a part was not made is not told. An anomaly for a handshake that breaks the rules (docs/events.md).
//!
//! Promises: facts do not depend on the order in which segments came, nor on how they were cut. A ClientHello whose lengths contradict each other is read as far as they
//! agree, counted as malformed, and passes unless `malformed = "deny"`. Memory is bounded by `sessions` and `memory_kb`; beyond that the oldest handshake
//! that is under way is let go by `on_unread`. What is encrypted is not read: certificates, ALPN of TLS 1.3, names inside of ECH.
//!
//! The parser is ours (`hello`), not a crate's: it allocates nothing, and JA3 wants lists as they were sent; `tls-parser` is what it is tested against.

mod hello;
mod record;
mod datagram;
mod fingerprint;
mod facts;
mod rules;
mod session;
mod event;
mod settings;
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

pub use facts::{Client, Facts, Fingerprint, Server, Wanted, version_name};
pub use settings::Settings;

use crate::config;
use crate::dpdk::Error;
use crate::event::{Anomaly, AnomalyKind, Type};
use crate::packet::{Verdict, View};
use crate::path::Counter;
use crate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
    WorkerId,
};
use crate::stages::names::Names;
use crate::stream::{End, Spot};
use crate::wire::transport;
use fingerprint::Over;
use hello::{CLIENT_HELLO, ClientHello, ServerHello};
use record::{Seek, Sought, Standing};
use rules::{Rules, Why};
use session::{Session, Sessions, Ticket, of};

/// A handshake that has not come to an end by then is told as it is. Nanoseconds.
const PATIENCE: u64 = 10_000_000_000;
/// Datagrams of a flow that are looked at before it counts as none of DTLS (STUN may come first: RFC 5764 section 5.1.2).
const DATAGRAMS: u8 = 16;
/// And of one of DTLS whose hellos have not come.
const MORE_DATAGRAMS: u8 = 64;

/// The kind `tls`.
pub const KIND: StageKind = StageKind {
    name: "tls",
    summary: "TLS and DTLS hellos: versions, names, fingerprints; denies by them",
    help: settings::HELP,
    example: settings::EXAMPLE,
    reasons: &[
        ("version", "TLS older than deny_below."),
        ("name", "A server name that is denied, or is not among those allowed."),
        ("unnamed", "A hello without a server name, where unnamed is deny."),
        ("fingerprint", "A JA3 or JA4 that is denied."),
        ("malformed", "A handshake that breaks the rules of TLS, where malformed is deny."),
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

    fn settles(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<Place>::BYTES
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
            let counts = Arc::new(Counts::default());
            all.push((make.worker, counts.clone()));
            counts
        });
        Box::new(PerStream(Tls::new(&self.settings, make, counts, Records)))
    }

    fn report(&self) -> Vec<(String, String)> {
        let rules = &self.settings.rules;
        let allowed = rules.allow.as_ref().map_or(0, Names::len);
        vec![
            ("names denied".into(), rules.deny.len().to_string()),
            ("names allowed".into(), if rules.allow.is_some() { allowed.to_string() } else { "all".into() }),
            ("fingerprints denied".into(), (rules.deny_ja3.len() + rules.deny_ja4.len()).to_string()),
        ]
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let all = self.counts.lock();
        let sum = |pick: fn(&Counts) -> &Counter| all.iter().map(|(_, counts)| pick(counts).get()).sum();
        vec![
            ("ClientHello".into(), sum(|counts| &counts.clients)),
            ("ServerHello".into(), sum(|counts| &counts.servers)),
            ("handshakes".into(), sum(|counts| &counts.told)),
            ("malformed".into(), sum(|counts| &counts.malformed)),
            ("given up".into(), sum(|counts| &counts.given_up)),
            ("no room".into(), sum(|counts| &counts.no_room)),
        ]
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// ClientHellos read.
    clients: Counter,
    /// ServerHellos and HelloRetryRequests read.
    servers: Counter,
    /// Handshakes told.
    told: Counter,
    /// Handshakes that break the rules of TLS.
    malformed: Counter,
    /// Sessions that made room for others.
    given_up: Counter,
    /// Hellos for which there was no memory.
    no_room: Counter,
}

/// Who hears of handshakes.
pub trait Tell: Send {
    /// Does it want to be told? If not, what only it would need is not made ([`Facts::are_whole`]).
    fn wants(&self, _cx: &Cx<'_>) -> bool {
        true
    }

    /// A handshake, as far as it was seen. `packet` has addresses, ports and flow; of the bytes only the IP header is there.
    fn tell(&mut self, _facts: &Facts<'_>, _packet: &View<'_>, _cx: &mut Cx<'_>) {}

    /// The last hello of each side, when nothing more of the flow is read: once, however often a side had to say it again.
    fn sum(&mut self, _facts: &Facts<'_>, _packet: &View<'_>, _cx: &mut Cx<'_>) {}
}

/// Tells by events: a `tls` for each flow.
#[derive(Clone, Copy, Debug)]
pub struct Records;

impl Tell for Records {
    fn wants(&self, cx: &Cx<'_>) -> bool {
        cx.wants(Type::Tls)
    }

    fn sum(&mut self, facts: &Facts<'_>, packet: &View<'_>, cx: &mut Cx<'_>) {
        if cx.wants(Type::Tls) && facts.are_whole() {
            cx.emit(packet.meta(), packet.inner(), Box::new(event::of(facts)));
        }
    }
}

/// What is kept of every flow.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    ticket: Ticket,
    seek: [Seek; 2],
    /// Directions of which nothing more is read.
    over: [bool; 2],
    datagrams: u8,
    /// Why its packets are dropped.
    denied: Option<Why>,
}

/// The running stage.
#[derive(Debug)]
pub struct Tls<T> {
    rules: Arc<Rules>,
    /// Frames wait for the rest of a hello that they begin.
    hold: bool,
    drops: bool,
    places: PerFlow<Place>,
    sessions: Sessions,
    /// The time of the poll in which sessions were last looked at for their age.
    looked: u64,
    counts: Arc<Counts>,
    teller: Teller<T>,
}

#[derive(Debug)]
struct Teller<T>(T);

impl<T: Tell> Tls<T> {
    /// For one worker; `tell` hears of every handshake.
    pub fn new(settings: &Settings, make: &Make, counts: Arc<Counts>, tell: T) -> Self {
        Tls {
            rules: settings.rules.clone(),
            hold: settings.hold,
            drops: settings.drops,
            places: PerFlow::new(make),
            sessions: Sessions::new(settings.sessions, settings.memory),
            looked: 0,
            counts,
            teller: Teller(tell),
        }
    }

    /// The flow may not go on.
    fn deny(&mut self, why: Why, cx: &mut Cx<'_>) -> Verdict {
        cx.settle();
        let reason = cx.reason(why as usize);
        if self.drops { Verdict::Drop(reason) } else { Verdict::Reject(reason) }
    }

    /// What has to be made of hellos at this moment.
    fn wanted(&self, cx: &Cx<'_>) -> Wanted {
        Wanted { record: self.teller.0.wants(cx), fingerprints: self.rules.ask_fingerprints() }
    }

    /// A session for a flow; the oldest makes room.
    fn begin(&mut self, packet: &View<'_>, dtls: bool, cx: &mut Cx<'_>) -> Option<Ticket> {
        if let Some(ticket) = self.sessions.begin(packet, cx.now, dtls) {
            return Some(ticket);
        }
        let oldest = self.sessions.oldest()?;
        self.counts.given_up.add(1);
        self.close(oldest, cx);
        self.sessions.begin(packet, cx.now, dtls)
    }

    /// Tells what is left of a session and ends it.
    fn close(&mut self, ticket: Ticket, cx: &mut Cx<'_>) {
        if let Some(session) = self.sessions.get(ticket) {
            self.teller.tell(session, true, &self.counts, cx);
            if let Some(facts) = session.sum() {
                self.teller.0.sum(&facts, &session.packet(), cx);
            }
        }
        self.sessions.end(ticket);
    }

    /// Once in a poll.
    #[inline(always)]
    fn expire_one(&mut self, cx: &mut Cx<'_>) {
        if self.looked != cx.now {
            self.looked = cx.now;
            self.expire(1, cx);
        }
    }

    /// Handshakes that nobody finishes are told as they are.
    #[inline(never)]
    fn expire(&mut self, look_at: usize, cx: &mut Cx<'_>) {
        let before = cx.now.saturating_sub(PATIENCE);
        if let Some(ticket) = self.sessions.overdue(before, look_at) {
            self.close(ticket, cx);
        }
    }

    /// What a direction of a session came to, and the verdict on the packet.
    fn judge(
        &mut self,
        packet: &View<'_>,
        mut place: Place,
        reply: bool,
        heard: Heard,
        cx: &mut Cx<'_>,
    ) -> Verdict {
        let mut why = heard.why;
        match heard.standing {
            Standing::Malformed => {
                self.counts.malformed.add(1);
                why = why.or(self.rules.deny_malformed.then_some(Why::Malformed));
                over(&mut place, reply);
            }
            Standing::NoRoom => {
                self.counts.no_room.add(1);
                over(&mut place, reply);
                if let verdict @ Verdict::Drop(_) = cx.unread() {
                    self.close(place.ticket, cx);
                    self.keep(packet, place);
                    cx.settle();
                    return verdict;
                }
            }
            Standing::Done => over(&mut place, reply),
            Standing::Open | Standing::Begun => {}
        }
        let Some(session) = self.sessions.get(place.ticket) else { return Verdict::Next };
        session.denied = why.is_some();
        if std::mem::take(&mut session.malformed) || heard.standing == Standing::Malformed {
            let reason = why.filter(|why| *why == Why::Malformed).map(|why| cx.reason(why as usize));
            let anomaly = Anomaly { kind: AnomalyKind::Applayer, event: "tls_malformed", reason, skipped: 0 };
            cx.emit(packet.meta(), packet.inner(), anomaly);
        }
        self.teller.tell(session, why.is_some(), &self.counts, cx);
        let (complete, waits) = (session.is_complete(), !*of(&mut session.heard, reply));
        if let Some(why) = why {
            place.denied = Some(why);
            self.close(place.ticket, cx);
            self.keep(packet, place);
            return self.deny(why, cx);
        }
        if complete || place.over == [true; 2] {
            self.close(place.ticket, cx);
            place.over = [true; 2];
            self.keep(packet, place);
            cx.settle();
            return Verdict::Next;
        }
        self.keep(packet, place);
        let holds = self.hold && waits && heard.standing == Standing::Begun;
        if holds { Verdict::Hold } else { Verdict::Next }
    }

    fn keep(&mut self, packet: &View<'_>, place: Place) {
        if let Some(kept) = self.places.of(packet.meta()) {
            *kept = place;
        }
    }
}

fn over(place: &mut Place, reply: bool) {
    *of(&mut place.over, reply) = true;
}

impl<T: Tell> Teller<T> {
    /// Tells the handshakes of a session that are complete, or all of them.
    fn tell(&mut self, session: &mut Session, all: bool, counts: &Counts, cx: &mut Cx<'_>) {
        while let Some(n) = session.next(all) {
            counts.told.add(1);
            self.0.tell(&session.facts(n), &session.packet(), cx);
        }
    }
}

/// What bytes of a session came to.
struct Heard {
    standing: Standing,
    why: Option<Why>,
}

/// Reads a hello into its session. Says why it may not be, if so, and whether its side has nothing more to say; or that it is malformed.
fn hear(
    session: &mut Session,
    (kind, body): (u8, &[u8]),
    reply: bool,
    (rules, wanted): (&Rules, Wanted),
    counts: &Counts,
) -> Result<(Option<Why>, bool), hello::Malformed> {
    if kind == CLIENT_HELLO {
        let over = if session.dtls { Over::Datagrams } else { Over::Tcp };
        let hello = ClientHello::read(body, session.dtls)?;
        let client = Client::of(&hello, over, wanted);
        counts.clients.add(1);
        counts.malformed.add(client.malformed.into());
        session.malformed |= client.malformed;
        let malformed = (client.malformed && rules.deny_malformed).then_some(Why::Malformed);
        let why = rules.client(&hello, &client).or(malformed);
        session.client(client);
        session.hears(reply, false);
        return Ok((why, false)); // it may have to say it again
    }
    if Server::is_old_retry(kind) {
        session.hears(reply, true);
        return Ok((None, false));
    }
    let server = Server::of(&ServerHello::read(body)?, wanted);
    counts.servers.add(1);
    let why = rules.server(&server);
    let again = server.is_retry;
    session.hears(reply, again);
    session.server(server);
    Ok((why, !again))
}

impl<T: Tell> StreamInspect for Tls<T> {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        self.expire_one(cx);
        let Some(place) = self.places.of(packet.meta()) else { return Verdict::Next };
        if let Some(why) = place.denied {
            return self.deny(why, cx);
        }
        if *of(&mut place.over, spot.reply) {
            return Verdict::Next;
        }
        let mut place = *place;
        let (mut first, mut bytes) = (None, bytes);
        let reads =
            self.sessions.get(place.ticket).is_some_and(|session| *of(&mut session.reads, spot.reply));
        if !reads {
            if place.ticket.is_some() && self.sessions.get(place.ticket).is_none() {
                // It made room for another.
                cx.settle();
                return cx.unread();
            }
            match of(&mut place.seek, spot.reply).take(bytes) {
                Sought::Open(begun) => {
                    self.keep(packet, place);
                    return if begun && self.hold { Verdict::Hold } else { Verdict::Next };
                }
                Sought::Over => {
                    over(&mut place, spot.reply);
                    if place.over == [true; 2] {
                        self.close(place.ticket, cx);
                        cx.settle();
                    }
                    self.keep(packet, place);
                    return Verdict::Next;
                }
                Sought::Found(head, at) => {
                    if !place.ticket.is_some() {
                        match self.begin(packet, false, cx) {
                            Some(ticket) => place.ticket = ticket,
                            None => {
                                cx.settle();
                                return cx.unread();
                            }
                        }
                    }
                    // Most often all of it lies here.
                    match at.checked_sub(head.len()).and_then(|from| bytes.get(from..)) {
                        Some(from) => bytes = from,
                        None => (first, bytes) = (Some(head), bytes.get(at..).unwrap_or(&[])),
                    }
                }
            }
        }
        let room = self.sessions.room();
        let terms = (&*self.rules, self.wanted(cx));
        let counts = &*self.counts;
        let Some(session) = self.sessions.get(place.ticket) else { return Verdict::Next };
        *of(&mut session.reads, spot.reply) = true;
        let before = session.allocated();
        let mut records = std::mem::take(of(&mut session.sides, spot.reply));
        let (mut why, mut malformed) = (None, false);
        let mut found = |hello: (u8, &[u8])| match hear(session, hello, spot.reply, terms, counts) {
            Ok((denied, enough)) => {
                why = why.or(denied);
                why.is_some() || enough
            }
            Err(hello::Malformed) => {
                malformed = true;
                true
            }
        };
        let mut standing = Standing::Begun;
        for part in first.as_ref().map(|head| head.as_slice()).into_iter().chain([bytes]) {
            if standing == Standing::Begun && !part.is_empty() {
                standing = records.take(part, room, &mut found);
            }
        }
        if malformed {
            standing = Standing::Malformed;
        }
        *of(&mut session.sides, spot.reply) = records;
        let after = session.allocated();
        self.sessions.allocated = (self.sessions.allocated + after).saturating_sub(before);
        self.judge(packet, place, spot.reply, Heard { standing, why }, cx)
    }

    fn gap(&mut self, _: u32, _: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        if let Some(place) = self.places.of(packet.meta()).copied() {
            self.close(place.ticket, cx);
        }
        cx.settle();
        Verdict::Next
    }

    fn end(&mut self, _: End, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(place) = self.places.of(packet.meta()) else { return Verdict::Next };
        over(place, spot.reply);
        let place = *place;
        if place.over == [true; 2] {
            self.close(place.ticket, cx);
            cx.settle();
        }
        Verdict::Next
    }

    fn other(&mut self, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(mut place) = self.places.of(packet.meta()).copied() else { return Verdict::Next };
        if let Some(why) = place.denied {
            return self.deny(why, cx);
        }
        if packet.meta().protocol != transport::UDP {
            cx.settle();
            return Verdict::Next;
        }
        let Some(datagram) = packet.transport().get(8..) else { return Verdict::Next };
        if !datagram::is_dtls(datagram) {
            place.datagrams = place.datagrams.saturating_add(1);
            self.keep(packet, place);
            if place.datagrams >= DATAGRAMS {
                self.close(place.ticket, cx);
                cx.settle();
            }
            return Verdict::Next;
        }
        self.expire_one(cx);
        place.datagrams = place.datagrams.saturating_add(1);
        if place.datagrams > MORE_DATAGRAMS {
            self.close(place.ticket, cx);
            cx.settle();
            return Verdict::Next;
        }
        let reply = packet.meta().is_reply();
        if !place.ticket.is_some() {
            match self.begin(packet, true, cx) {
                Some(ticket) => place.ticket = ticket,
                None => return cx.unread(),
            }
        }
        let room = self.sessions.room();
        let terms = (&*self.rules, self.wanted(cx));
        let counts = &*self.counts;
        let Some(session) = self.sessions.get(place.ticket) else {
            cx.settle();
            return cx.unread();
        };
        let before = session.allocated();
        let mut gathering = std::mem::take(of(&mut session.gathering, reply));
        let (mut why, mut malformed) = (None, false);
        let mut standing =
            gathering.take(datagram, room, &mut |hello| match hear(session, hello, reply, terms, counts) {
                Ok((denied, enough)) => {
                    why = why.or(denied);
                    why.is_some() || enough
                }
                Err(hello::Malformed) => {
                    malformed = true;
                    true
                }
            });
        if malformed {
            standing = Standing::Malformed;
        }
        *of(&mut session.gathering, reply) = gathering;
        let after = session.allocated();
        self.sessions.allocated = (self.sessions.allocated + after).saturating_sub(before);
        self.judge(packet, place, reply, Heard { standing, why }, cx)
    }

    fn idle(&mut self, cx: &mut Cx<'_>) {
        self.expire(64, cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        while let Some(ticket) = self.sessions.oldest() {
            self.close(ticket, cx);
        }
    }
}
