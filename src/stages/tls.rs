//! TLS and DTLS: who speaks which version to whom, and who may.
//!
//! ```toml
//! [[stage]]
//! use = "tls"
//! deny_below = "1.2"                # ssl3 | 1.0 | 1.1 | 1.2 | 1.3
//! # report_below = "1.3"            # tells by an alert, and lets pass
//! deny_names = [".ads.example", "tracker.example"]
//! # deny_names_file = "names.txt"   # one name a line
//! # allow_names = [".example.com"]  # nothing else may pass
//! # unnamed = "deny"                # hellos without a server name
//! # deny_ja3 = ["e7d705a3286e19ea42f587b344ee6865"]
//! # deny_ja3_file = "ja3.csv"       # one a line, or the first column
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
//! read (fingerprints also if a rule asks for them), and a handshake of which a part was not made is not told. An alert for one that speaks an old version
//! (`report_below`); an anomaly for a handshake that breaks the rules, or was given up half sent (docs/events.md).
//!
//! Searches the first 4096 bytes of a direction for the beginning of TLS. Where a client can be denied it believes no client that no server has answered: it goes on
//! searching what he says, behind hellos that were read and within what he calls records, to the end of what is shown of the stream; and an answer to a
//! client that nobody heard goes by `on_unread`.
//!
//! Promises: facts do not depend on the order in which segments came, nor on how they were cut. A ClientHello whose lengths contradict each other is read as far as they
//! agree, counted as malformed, and passes unless `malformed = "deny"`. Memory is bounded by `sessions` and `memory_kb`; beyond that the oldest handshake
//! that is under way is let go by `on_unread`. What is encrypted is not read: certificates, ALPN of TLS 1.3, names inside of ECH.
//!
//! The parser is ours (`hello`), not a crate's: it allocates nothing, and JA3 wants lists as they were sent; `tls-parser` is what it is tested against.

pub(in crate::stages) mod hello;
pub(in crate::stages) mod record;
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
use crate::event::{Alert, Anomaly, AnomalyKind, Signature, Type};
use crate::packet::{FlowFlags, InnerFlags, Verdict, View};
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

/// How HTTP begins that does not become TLS.
const METHODS: [&[u8; 4]; 8] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"PATC", b"OPTI", b"DELE", b"PROP"];
/// Bytes of a datagram that show whether it is DTLS.
const SHOWS_DTLS: usize = 13;

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
            ("unread".into(), sum(|counts| &counts.unread)),
            ("no room".into(), sum(|counts| &counts.no_room)),
            ("chose SSL 3".into(), sum(|counts| &counts.versions[0])),
            ("chose 1.0".into(), sum(|counts| &counts.versions[1])),
            ("chose 1.1".into(), sum(|counts| &counts.versions[2])),
            ("chose 1.2".into(), sum(|counts| &counts.versions[3])),
            ("chose 1.3".into(), sum(|counts| &counts.versions[4])),
        ]
    }

    /// A rule for each version that may be too old, under its number.
    fn signatures(&self) -> Vec<Signature> {
        let signature = |(rank, name): (u32, &str)| Signature {
            signature: format!("{name} or older"),
            signature_id: rank,
            rev: 1,
            category: "Old version of TLS".into(),
            severity: 3,
        };
        let names = ["no version", "SSL 3", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"];
        let reported = self.settings.rules.reported.is_some();
        (0..).zip(names).filter(|_| reported).map(signature).collect()
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
    /// Versions that servers chose, DTLS beside TLS: SSL 3, 1.0, 1.1, 1.2, 1.3.
    versions: [Counter; 5],
    /// Handshakes that break the rules of TLS.
    malformed: Counter,
    /// Sessions that made room for others, and hellos of which the rest did not come in time.
    given_up: Counter,
    /// Hellos that nobody could read, or that nobody can say whether they were there: what `on_unread` was asked for.
    unread: Counter,
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
    /// Directions of which nothing more is read, and those in which a hello has begun.
    over: [bool; 2],
    reads: [bool; 2],
    /// What the client has said in front of TLS, where he can be denied.
    front: Front,
    datagrams: u8,
    /// Why its packets are dropped.
    denied: Option<Why>,
}

/// What a client says that is no TLS: commands, behind which it can begin, or something else.
#[derive(Clone, Copy, Debug, Default)]
struct Front {
    word: [u8; 4],
    have: u8,
    /// It is HTTP, or no text.
    other: bool,
}

impl Front {
    fn take(&mut self, bytes: &[u8]) {
        if self.other {
            return;
        }
        let room = self.word.iter_mut().skip(self.have.into());
        self.have += room.zip(bytes).map(|(to, from)| *to = *from).count() as u8;
        self.other = METHODS.iter().any(|method| **method == self.word)
            || !bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'));
    }
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
        self.give_up(oldest, cx);
        self.sessions.begin(packet, cx.now, dtls)
    }

    /// Tells what is left of a session and ends it.
    fn close(&mut self, ticket: Ticket, cx: &mut Cx<'_>) {
        if let Some(session) = self.sessions.get(ticket) {
            self.teller.tell(session, true, &self.counts, cx);
            if let Some(facts) = session.sum() {
                let spoken = facts.server.map(|server| server.version);
                let version = spoken.or(facts.client.map(|client| client.highest));
                if let Some(rank) = version.and_then(|version| self.rules.reports(version)) {
                    let (rule, blocked) = (rank.into(), facts.denied);
                    cx.emit(session.packet().meta(), session.packet().inner(), Alert { rule, blocked });
                }
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

    /// The same for one that is not finished.
    fn give_up(&mut self, ticket: Ticket, cx: &mut Cx<'_>) {
        self.counts.given_up.add(1);
        if let Some(session) = self.sessions.get(ticket) {
            let anomaly =
                Anomaly { kind: AnomalyKind::Applayer, event: "tls_given_up", reason: None, skipped: 0 };
            cx.emit(session.packet().meta(), session.packet().inner(), anomaly);
        }
        self.close(ticket, cx);
    }

    /// Handshakes that nobody finishes are told as they are.
    #[inline(never)]
    fn expire(&mut self, look_at: usize, cx: &mut Cx<'_>) {
        let before = cx.now.saturating_sub(PATIENCE);
        if let Some(ticket) = self.sessions.overdue(before, look_at) {
            match self.sessions.get(ticket).is_some_and(|session| session.is_half_sent()) {
                true => self.give_up(ticket, cx),
                false => self.close(ticket, cx),
            }
        }
    }

    /// Another hello begins; of a client whose last one nobody has answered it is the first that counts.
    fn supersede(&mut self, ticket: Ticket, reply: bool, cx: &mut Cx<'_>) {
        if let Some(session) = self.sessions.get(ticket)
            && !reply
            && session.is_unanswered()
        {
            self.teller.tell(session, true, &self.counts, cx);
            session.forget_clients();
        }
    }

    /// There is, or may be, a hello that cannot be read.
    fn unread(&mut self, packet: &View<'_>, place: Place, cx: &mut Cx<'_>) -> Verdict {
        self.counts.unread.add(1);
        let verdict = cx.unread();
        if let Verdict::Drop(_) = verdict {
            self.close(place.ticket, cx);
            self.keep(packet, place);
            cx.settle();
        }
        verdict
    }

    /// Can what a client says here be denied? Then what is said in front of it is searched to its end.
    fn asks(&self, packet: &View<'_>, reply: bool) -> bool {
        self.rules.ask_clients() && (!reply || packet.meta().flow_flags.has(FlowFlags::PICKED_UP))
    }

    /// What a direction of a session came to, and the verdict on the packet; none if the direction is to be searched for another beginning.
    fn judge(
        &mut self,
        packet: &View<'_>,
        place: &mut Place,
        reply: bool,
        heard: Heard,
        cx: &mut Cx<'_>,
    ) -> Option<Verdict> {
        let (mut why, mut again) = (heard.why, false);
        match heard.standing {
            // Who says something that looks like a hello to somebody who speaks no TLS can say one to whom does later (STARTTLS).
            Standing::Malformed => {
                self.counts.malformed.add(1);
                why = why.or(self.rules.deny_malformed.then_some(Why::Malformed));
                again = heard.searches;
            }
            Standing::Done => again = heard.searches && self.asks(packet, reply),
            Standing::NoRoom | Standing::TooLong => {
                self.counts.no_room.add((heard.standing == Standing::NoRoom).into());
                over(place, reply);
                if let verdict @ Verdict::Drop(_) = self.unread(packet, *place, cx) {
                    return Some(verdict);
                }
            }
            Standing::Open | Standing::Begun => {}
        }
        if !again && matches!(heard.standing, Standing::Malformed | Standing::Done) {
            over(place, reply);
        }
        let Some(session) = self.sessions.get(place.ticket) else { return Some(Verdict::Next) };
        session.denied = why.is_some();
        if std::mem::take(&mut session.malformed) || heard.standing == Standing::Malformed {
            let reason = why.filter(|why| *why == Why::Malformed).map(|why| cx.reason(why as usize));
            let anomaly = Anomaly { kind: AnomalyKind::Applayer, event: "tls_malformed", reason, skipped: 0 };
            cx.emit(packet.meta(), packet.inner(), anomaly);
        }
        self.teller.tell(session, why.is_some(), &self.counts, cx);
        let (complete, waits) = (session.is_complete(), !*of(&mut session.heard, reply));
        let (empty, alone) = (session.is_empty(), !session.is_empty() && !session.has_client());
        if let Some(why) = why {
            place.denied = Some(why);
            self.close(place.ticket, cx);
            self.keep(packet, *place);
            return Some(self.deny(why, cx));
        }
        // A server answers what nobody has heard.
        if alone
            && heard.from_syn
            && self.rules.ask_clients()
            && let verdict @ Verdict::Drop(_) = self.unread(packet, *place, cx)
        {
            return Some(verdict);
        }
        if complete || place.over == [true; 2] {
            self.close(place.ticket, cx);
            place.over = [true; 2];
            self.keep(packet, *place);
            cx.settle();
            return Some(Verdict::Next);
        }
        if again {
            self.sessions.restart(place.ticket, reply);
            *of(&mut place.reads, reply) = false;
            if empty && place.reads == [false; 2] {
                self.sessions.end(place.ticket);
                place.ticket = Ticket::default();
            }
            return None;
        }
        self.keep(packet, *place);
        let holds = self.hold && waits && heard.standing == Standing::Begun;
        Some(if holds { Verdict::Hold } else { Verdict::Next })
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

/// Searches a direction for the beginning of TLS: all of it, or what is usual.
fn search(place: &mut Place, reply: bool, bytes: &[u8], all: bool) -> Sought {
    let seek = of(&mut place.seek, reply);
    if all { seek.take_all(bytes) } else { seek.take(bytes) }
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
    /// Where it ends another beginning may be found.
    searches: bool,
    /// Its direction was seen from its SYN on.
    from_syn: bool,
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
    let rank = facts::rank(server.version).filter(|_| !again);
    if let Some(count) = rank.and_then(|rank| counts.versions.get(usize::from(rank).checked_sub(1)?)) {
        count.add(1);
    }
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
        let asks = self.asks(packet, spot.reply);
        if place.ticket.is_some() && self.sessions.get(place.ticket).is_none() {
            // It made room for another.
            if !asks || *of(&mut place.reads, spot.reply) {
                cx.settle();
                return self.unread(packet, place, cx);
            }
            (place.ticket, place.reads) = (Ticket::default(), [false; 2]);
        }
        let reads = *of(&mut place.reads, spot.reply);
        if asks && !reads {
            place.front.take(bytes);
        }
        let (mut first, mut bytes, mut rest) = (None, bytes, bytes);
        let mut sought = if reads { None } else { Some(search(&mut place, spot.reply, bytes, asks)) };
        loop {
            match sought {
                None => {}
                Some(Sought::Open(begun)) => {
                    self.keep(packet, place);
                    return if begun && self.hold { Verdict::Hold } else { Verdict::Next };
                }
                Some(Sought::Over) => {
                    over(&mut place, spot.reply);
                    if place.over == [true; 2] {
                        self.close(place.ticket, cx);
                        cx.settle();
                    }
                    self.keep(packet, place);
                    return Verdict::Next;
                }
                Some(Sought::Found(head, at)) => {
                    if !place.ticket.is_some() {
                        match self.begin(packet, false, cx) {
                            Some(ticket) => place.ticket = ticket,
                            None => {
                                cx.settle();
                                return self.unread(packet, place, cx);
                            }
                        }
                    }
                    // Most often all of it lies here.
                    let behind = rest.get(at..).unwrap_or(&[]);
                    (first, bytes) = match at.checked_sub(head.len()).and_then(|from| rest.get(from..)) {
                        Some(whole) => (None, whole),
                        None => (Some(head), behind),
                    };
                    rest = behind;
                    *of(&mut place.reads, spot.reply) = true;
                    of(&mut place.seek, spot.reply).behind(&head);
                    self.supersede(place.ticket, spot.reply, cx);
                }
            }
            let room = self.sessions.room();
            let terms = (&*self.rules, self.wanted(cx));
            let counts = &*self.counts;
            let Some(session) = self.sessions.get(place.ticket) else { return Verdict::Next };
            *of(&mut session.reads, spot.reply) = true;
            let had_heard = *of(&mut session.heard, spot.reply);
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
            // Where a client is believed only when a server has answered, another hello may be in what this one calls a record.
            let ends = matches!(standing, Standing::Malformed | Standing::Done);
            let inside =
                (asks || standing == Standing::Malformed).then(|| search(&mut place, spot.reply, rest, asks));
            let heard = Heard { standing, why, searches: true, from_syn: spot.from_syn };
            if let Some(verdict) = self.judge(packet, &mut place, spot.reply, heard, cx) {
                match inside {
                    // Not while a hello is under way: it is held until it is whole.
                    Some(Sought::Found(..)) if had_heard && verdict == Verdict::Next && !ends => {
                        self.sessions.restart(place.ticket, spot.reply);
                    }
                    _ => return verdict,
                }
            }
            (sought, first) = (inside, None);
        }
    }

    fn gap(&mut self, _: u32, _: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        if let Some(place) = self.places.of(packet.meta()).copied() {
            self.close(place.ticket, cx);
        }
        cx.settle();
        Verdict::Next
    }

    fn end(&mut self, why: End, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(place) = self.places.of(packet.meta()) else { return Verdict::Next };
        let reads = !std::mem::replace(of(&mut place.over, spot.reply), true);
        let place = *place;
        // What comes behind is not shown: the rest of a hello, or all of one behind nothing but commands.
        let (mut begun, mut heard) = (place.reads, false);
        if let Some(session) = self.sessions.get(place.ticket) {
            heard = *of(&mut session.heard, spot.reply);
        }
        let may_begin = self.asks(packet, spot.reply) && !place.front.other;
        if why == End::Depth
            && reads
            && (may_begin || *of(&mut begun, spot.reply))
            && !heard
            && let verdict @ Verdict::Drop(_) = self.unread(packet, place, cx)
        {
            return verdict;
        }
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
        let asks = self.rules.ask_clients();
        let is_dtls = datagram::is_dtls(datagram);
        if packet.meta().flags.has(InnerFlags::FIRST_FRAGMENT) && (is_dtls || datagram.len() < SHOWS_DTLS) {
            // The rest of it comes in packets that have no ports.
            if is_dtls || asks {
                self.counts.unread.add(1);
                return cx.unread();
            }
            return Verdict::Next;
        }
        // Where a client's hello can be denied, it may come as late as it likes.
        place.datagrams = place.datagrams.saturating_add(1);
        if !is_dtls {
            self.keep(packet, place);
            if place.datagrams >= DATAGRAMS && !asks {
                self.close(place.ticket, cx);
                cx.settle();
            }
            return Verdict::Next;
        }
        self.expire_one(cx);
        if place.datagrams > MORE_DATAGRAMS && !asks {
            self.close(place.ticket, cx);
            cx.settle();
            return Verdict::Next;
        }
        if asks && !datagram::has_handshake(datagram) {
            self.keep(packet, place);
            return Verdict::Next;
        }
        let reply = packet.meta().is_reply();
        if !place.ticket.is_some() {
            match self.begin(packet, true, cx) {
                Some(ticket) => place.ticket = ticket,
                None => {
                    self.counts.unread.add(1);
                    return cx.unread();
                }
            }
        }
        let room = self.sessions.room();
        let terms = (&*self.rules, self.wanted(cx));
        let counts = &*self.counts;
        let Some(session) = self.sessions.get(place.ticket) else {
            cx.settle();
            return self.unread(packet, place, cx);
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
        let differs = std::mem::take(&mut gathering.differs);
        *of(&mut session.gathering, reply) = gathering;
        let after = session.allocated();
        self.sessions.allocated = (self.sessions.allocated + after).saturating_sub(before);
        if differs && why.is_none() {
            // The first copy was read; its receiver may take the other.
            self.counts.malformed.add(1);
            why = self.rules.deny_malformed.then_some(Why::Malformed);
            let reason = why.map(|why| cx.reason(why as usize));
            let event = "tls_fragments_differ";
            let anomaly = Anomaly { kind: AnomalyKind::Applayer, event, reason, skipped: 0 };
            cx.emit(packet.meta(), packet.inner(), anomaly);
            if why.is_none()
                && let verdict @ Verdict::Drop(_) = self.unread(packet, place, cx)
            {
                return verdict;
            }
        }
        let heard = Heard { standing, why, searches: false, from_syn: false };
        self.judge(packet, &mut place, reply, heard, cx).unwrap_or(Verdict::Next)
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
