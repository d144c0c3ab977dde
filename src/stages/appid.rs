//! What a flow speaks, on whatever port, and whether others can read it.
//!
//! ```toml
//! [[stage]]
//! use = "appid"
//! deny = ["bittorrent", "telnet"]   # protocols that may not be spoken
//! # allow = ["tls", "ssh", "dns"]   # no others may
//! # unknown = "deny"                # what nobody knows: pass | deny
//! plaintext = "report"              # what is not encrypted: off | report | deny
//! plaintext_allow = ["http"]
//! action = "reject"                 # reject | drop
//! on_unread = "pass"                # gaps, no flow: pass | drop
//! ```
//!
//! Looks at the first bytes of both directions of a TCP connection, in order and however they are cut, and at the first datagrams of other flows
//! (`recognise`), and is done with the flow then. One whose protocol can change over to TLS is followed until its client begins TLS, or says in the clear what TLS
//! would hide (`follow`); SSH until both sides have said what they are (`banners`).
//!
//! Tells: what a flow speaks, in its entry, from where flow records, lists and alerts of other stages have it (`app_proto`); an `ssh` record for each SSH connection;
//! an alert for each flow that is in the clear, where `plaintext` asks for that (docs/events.md).
//!
//! Promises: the answer does not depend on the order in which segments came, nor on how they were cut. Memory is fixed: a place for each flow, and places for
//! banners; nothing is allocated but for records that somebody wants. The packet that shows what may not be is dropped, those before it have passed: less than is
//! needed to speak a protocol, and of a login no more than its first word.
//!
//! Not read: what comes in later fragments, and what is said inside of HTTP (other than CONNECT), SOCKS and other tunnels.

mod fit;
mod web;
mod mail;
mod remote;
mod data;
mod secure;
mod names;
mod media;
mod plant;
mod table;
mod recognise;
mod follow;
mod banners;
mod rules;
mod counts;
mod tell;
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

pub use counts::Counts;
pub use settings::Settings;
pub use tell::{Records, Tell};

use crate::config;
use crate::dpdk::Error;
use crate::event::Signature;
use crate::packet::{App, FlowFlags, InnerFlags, Meta, Spoken, Verdict, View};
use crate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
    WorkerId,
};
use crate::stream::{End, Spot};
use crate::wire::transport;
use banners::{Banners, Ticket};
use follow::{Follow, Turn};
use recognise::{Answer, Datagrams, Ends, Heads};
use rules::{Plaintext, Rules, Why};

/// Bytes of a UDP header.
const UDP: usize = 8;

/// The kind `appid`.
pub const KIND: StageKind = StageKind {
    name: "appid",
    summary: "what flows speak, on whatever port, and what is not encrypted; denies by it",
    help: settings::HELP,
    example: settings::EXAMPLE,
    reasons: &[
        ("denied", "A protocol that deny names."),
        ("not_allowed", "A protocol that allow does not name."),
        ("unknown", "A flow of which nobody knows what it speaks, where unknown is deny."),
        ("plaintext", "A flow that is not encrypted, where plaintext is deny."),
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
        PerFlow::<Flow>::BYTES
    }

    fn judges_by_app(&self) -> bool {
        true
    }

    fn denies_by_default(&self) -> bool {
        self.rules.allow.is_some() || self.rules.deny_unknown
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
        Box::new(PerStream(Appid::new(&self.settings, make, counts, Records)))
    }

    fn report(&self) -> Vec<(String, String)> {
        let rules = &self.settings.rules;
        let words = |apps: crate::packet::Apps| {
            let words: Vec<&str> = apps.iter().map(App::word).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(" ") }
        };
        let plaintext = match rules.plaintext {
            Plaintext::Off => "off".into(),
            _ => words(rules.plain),
        };
        vec![
            ("denied".into(), words(rules.deny)),
            ("allowed".into(), rules.allow.map_or("all".into(), words)),
            ("plaintext".into(), plaintext),
        ]
    }

    /// A rule for each protocol that may be in the clear, under its number.
    fn signatures(&self) -> Vec<Signature> {
        let signature = |app: &App| Signature {
            signature: format!("unencrypted {}", app.word()),
            signature_id: *app as u32 + 1,
            rev: 1,
            category: "Unencrypted traffic".into(),
            severity: 3,
        };
        App::ALL.iter().map(signature).collect()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let all = self.counts.lock();
        counts::sums(all.iter().map(|(_, counts)| &**counts))
    }
}

/// What is kept of every flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    standing: Standing,
    spoken: Spoken,
    /// Why its packets are dropped.
    denied: Option<Why>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// Nobody knows yet what it speaks.
    Streams(Heads),
    Datagrams(Datagrams),
    /// It may change over to TLS.
    Follows(App, Follow),
    /// SSH.
    Banners(Ticket),
    Done,
}

impl Default for Standing {
    fn default() -> Self {
        Standing::Streams(Heads::default())
    }
}

/// Bytes of a direction that came with a packet.
type News<'a> = Option<(bool, &'a [u8])>;

/// The running stage.
#[derive(Debug)]
pub struct Appid<T> {
    rules: Arc<Rules>,
    drops: bool,
    datagrams: u8,
    depth: u32,
    flows: PerFlow<Flow>,
    banners: Banners,
    counts: Arc<Counts>,
    tell: T,
}

impl<T: Tell> Appid<T> {
    /// For one worker; `tell` hears of what is found out.
    pub fn new(settings: &Settings, make: &Make, counts: Arc<Counts>, tell: T) -> Self {
        Appid {
            rules: settings.rules.clone(),
            drops: settings.drops,
            datagrams: settings.datagrams,
            depth: settings.depth,
            flows: PerFlow::new(make),
            banners: Banners::new(settings.banners),
            counts,
            tell,
        }
    }

    /// What cannot be read: only where something can be denied does it matter.
    fn unread(&self, cx: &Cx<'_>) -> Verdict {
        if self.rules.can_deny() { cx.unread() } else { Verdict::Next }
    }

    /// The flow may not go on.
    fn verdict(&self, why: Why, cx: &mut Cx<'_>) -> Verdict {
        cx.settle();
        let reason = cx.reason(why as usize);
        if self.drops { Verdict::Drop(reason) } else { Verdict::Reject(reason) }
    }

    fn deny(&self, flow: &mut Flow, why: Why, cx: &mut Cx<'_>) -> Verdict {
        (flow.standing, flow.denied) = (Standing::Done, Some(why));
        self.verdict(why, cx)
    }

    fn done(flow: &mut Flow, cx: &mut Cx<'_>) -> Verdict {
        flow.standing = Standing::Done;
        cx.settle();
        Verdict::Next
    }

    /// What is known now of what a flow speaks. `heads`: what came before `news`, of TCP.
    fn heard(
        &mut self,
        flow: &mut Flow,
        answer: Answer,
        heads: Option<&Heads>,
        news: News<'_>,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Verdict {
        let app = match answer {
            Answer::NotYet => return Verdict::Next,
            Answer::Is(app) => app,
            Answer::No => App::Failed,
        };
        flow.spoken = Spoken::of(app);
        cx.speaks(flow.spoken);
        if let Some(count) = self.counts.flows.get(app as usize) {
            count.add(1);
        }
        self.tell.spoken(flow.spoken, packet, cx);
        let why = match app {
            App::Failed => self.rules.deny_unknown.then_some(Why::Unknown),
            app => self.rules.of(app),
        };
        if let Some(why) = why {
            return self.deny(flow, why, cx);
        }
        let Some(heads) = heads else { return self.said(flow, app, Turn::Plain, packet, cx) };
        let before = |reply: bool| {
            let new = news.filter(|(of, _)| *of == reply).map_or(&[][..], |(_, bytes)| bytes);
            (heads.before(reply, new.len()), new)
        };
        if app == App::Ssh {
            let Some(ticket) = self.banners.begin() else { return Self::done(flow, cx) };
            self.counts.given_up.add(std::mem::take(&mut self.banners.given_up));
            let mut over = false;
            for reply in [false, true] {
                let ((old, _), new) = before(reply);
                over = self.banners.take(ticket, reply, old) | self.banners.take(ticket, reply, new);
                if heads.has_ended(reply) {
                    over = self.banners.end(ticket, reply);
                }
            }
            flow.standing = Standing::Banners(ticket);
            return if over { self.end_banners(flow, ticket, packet, cx) } else { Verdict::Next };
        }
        let ((old, lost), new) = before(false);
        let begins = if old.is_empty() { new } else { old };
        let Some(mut follow) = Follow::of(app, begins) else {
            return self.said(flow, app, Turn::Plain, packet, cx);
        };
        let mut turn = follow.take(old);
        for step in [Step::Lost(lost), Step::New(new)] {
            if turn == Turn::Open {
                turn = match step {
                    Step::Lost(lost) => follow.lose(lost),
                    Step::New(new) => follow.take(new),
                };
            }
        }
        flow.standing = Standing::Follows(app, follow);
        self.said(flow, app, turn, packet, cx)
    }

    /// How a flow goes on whose protocol is known.
    fn said(&mut self, flow: &mut Flow, app: App, turn: Turn, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        match turn {
            Turn::Open => Verdict::Next,
            Turn::Over => Self::done(flow, cx),
            Turn::Encrypted => {
                flow.spoken = flow.spoken.became(App::Tls);
                cx.speaks(flow.spoken);
                self.counts.encrypted.add(1);
                self.tell.spoken(flow.spoken, packet, cx);
                Self::done(flow, cx)
            }
            Turn::Plain if self.rules.plain.has(app) => {
                let blocked = self.rules.plaintext == Plaintext::Deny;
                self.counts.plaintext.add(1);
                self.tell.plaintext(app, blocked, packet, cx);
                if blocked { self.deny(flow, Why::Plaintext, cx) } else { Self::done(flow, cx) }
            }
            Turn::Plain => Self::done(flow, cx),
        }
    }

    fn end_banners(
        &mut self,
        flow: &mut Flow,
        ticket: Ticket,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) -> Verdict {
        if let Some(lines) = self.banners.finish(ticket) {
            self.tell.ssh(lines, packet, cx);
        }
        Self::done(flow, cx)
    }

    /// A flow from before a reload, or from before this stage came: what it speaks was found out then, and stands in its entry.
    fn recall(&mut self, mut flow: Flow, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Verdict> {
        let (spoken, is_new) = (packet.meta().spoken, flow.spoken == Spoken::default());
        let app = spoken.app().filter(|_| is_new)?;
        flow.spoken = spoken;
        let why = match app {
            App::Failed => self.rules.deny_unknown.then_some(Why::Unknown),
            app => self.rules.of(app),
        };
        // What may change over to TLS yet gets the benefit of the doubt: nobody followed its commands until here.
        let is_plain = self.rules.plain.has(app) && Follow::of(app, b"").is_none();
        let why = why.or((is_plain && self.rules.plaintext == Plaintext::Deny).then_some(Why::Plaintext));
        let verdict = match why {
            Some(why) => self.deny(&mut flow, why, cx),
            None => Self::done(&mut flow, cx),
        };
        self.keep(packet, flow);
        Some(verdict)
    }

    fn keep(&mut self, packet: &View<'_>, flow: Flow) {
        if let Some(kept) = self.flows.of(packet.meta()) {
            *kept = flow;
        }
    }
}

/// What comes next of a client.
enum Step<'a> {
    Lost(u32),
    New(&'a [u8]),
}

/// Ports of a packet's flow, the originator's first.
fn ends(meta: &Meta) -> Ends {
    let (source, destination) = (meta.source_port, meta.destination_port);
    let ports = if meta.is_reply() { [destination, source] } else { [source, destination] };
    Ends { ports, is_guess: meta.flow_flags.has(FlowFlags::PICKED_UP) }
}

impl<T: Tell> StreamInspect for Appid<T> {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(mut flow) = self.flows.of(packet.meta()).copied() else { return self.unread(cx) };
        if let Some(why) = flow.denied {
            return self.verdict(why, cx);
        }
        if let Some(verdict) = self.recall(flow, packet, cx) {
            return verdict;
        }
        let verdict = match flow.standing {
            Standing::Streams(mut heads) => {
                let new = heads.take(spot.reply, bytes);
                let ends = ends(packet.meta());
                let mut answer = heads.answer(&ends);
                if answer == Answer::NotYet
                    && u64::from(spot.offset) + bytes.len() as u64 >= u64::from(self.depth)
                {
                    heads.give_up();
                    answer = heads.answer(&ends);
                }
                flow.standing = Standing::Streams(heads);
                self.heard(&mut flow, answer, Some(&heads), Some((spot.reply, new)), packet, cx)
            }
            Standing::Follows(app, mut follow) if !spot.reply => {
                let turn = follow.take(bytes);
                flow.standing = Standing::Follows(app, follow);
                self.said(&mut flow, app, turn, packet, cx)
            }
            Standing::Follows(..) => return Verdict::Next,
            Standing::Banners(ticket) => match self.banners.take(ticket, spot.reply, bytes) {
                true => self.end_banners(&mut flow, ticket, packet, cx),
                false => return Verdict::Next,
            },
            Standing::Done | Standing::Datagrams(_) => Self::done(&mut flow, cx),
        };
        self.keep(packet, flow);
        verdict
    }

    fn gap(&mut self, _: u32, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let Some(mut flow) = self.flows.of(packet.meta()).copied() else { return Verdict::Next };
        if let Standing::Follows(..) = flow.standing
            && !spot.reply
        {
            // What it said there nobody knows.
            let verdict = Self::done(&mut flow, cx);
            self.keep(packet, flow);
            return verdict;
        }
        self.ended(flow, spot.reply, packet, cx)
    }

    fn end(&mut self, _: End, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        match self.flows.of(packet.meta()).copied() {
            Some(flow) => self.ended(flow, spot.reply, packet, cx),
            None => Verdict::Next,
        }
    }

    fn other(&mut self, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let meta = packet.meta();
        if meta.protocol != transport::UDP {
            cx.settle();
            return Verdict::Next;
        }
        let Some(mut flow) = self.flows.of(meta).copied() else { return self.unread(cx) };
        if let Some(why) = flow.denied {
            return self.verdict(why, cx);
        }
        if let Some(verdict) = self.recall(flow, packet, cx) {
            return verdict;
        }
        let udp = packet.transport();
        let len = udp
            .get(4..6)
            .and_then(|len| len.first_chunk())
            .map_or(UDP, |len| u16::from_be_bytes(*len).into());
        let datagram = udp.get(UDP..len.min(udp.len())).unwrap_or(&[]);
        if datagram.is_empty() || meta.flags.has(InnerFlags::LATER_FRAGMENT) {
            return Verdict::Next;
        }
        let mut seen = match flow.standing {
            Standing::Datagrams(seen) => seen,
            Standing::Streams(_) => Datagrams::default(),
            _ => {
                cx.settle();
                return Verdict::Next;
            }
        };
        let answer = seen.take(meta.is_reply(), datagram, ends(meta).ports, self.datagrams);
        flow.standing = Standing::Datagrams(seen);
        let verdict = self.heard(&mut flow, answer, None, None, packet, cx);
        self.keep(packet, flow);
        verdict
    }
}

impl<T: Tell> Appid<T> {
    /// No more comes of a direction, or none that could be read.
    fn ended(&mut self, mut flow: Flow, reply: bool, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        if let Some(why) = flow.denied {
            return self.verdict(why, cx);
        }
        let verdict = match flow.standing {
            Standing::Streams(mut heads) => {
                heads.end(reply);
                flow.standing = Standing::Streams(heads);
                match heads.answer(&ends(packet.meta())) {
                    Answer::No if heads.are_empty() => Self::done(&mut flow, cx),
                    answer => self.heard(&mut flow, answer, Some(&heads), None, packet, cx),
                }
            }
            Standing::Follows(..) if !reply => Self::done(&mut flow, cx),
            Standing::Banners(ticket) => match self.banners.end(ticket, reply) {
                true => self.end_banners(&mut flow, ticket, packet, cx),
                false => Verdict::Next,
            },
            _ => Verdict::Next,
        };
        self.keep(packet, flow);
        verdict
    }
}
