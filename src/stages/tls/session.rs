//! What is under way: one session for each handshake that is being read, out of a fixed number on each worker.
//!
//! A session begins with the first bytes that may be a hello and ends when both hellos were read, or when nothing more is to be expected. If there is none
//! left, the oldest ends: its flow is let go as one that cannot be read. So ten thousand hellos that were half sent take what a full set of sessions
//! takes, and hold nobody up for longer than the others take to come.

use super::datagram::Gathering;
use super::facts::{Client, Facts, Server};
use super::record::Side;
use crate::packet::{Meta, View};

/// Hellos of one side that are kept: one, and one more behind a HelloRetryRequest.
const HELLOS: usize = 2;
/// What is kept of a packet: its IP header, without options.
const HEAD: usize = 40;

/// One handshake.
#[derive(Debug)]
pub struct Session {
    /// Whose it is: changes whenever the session ends.
    pub serial: u32,
    used: bool,
    /// When it began, in nanoseconds.
    pub since: u64,
    pub dtls: bool,
    pub sides: [Side; 2],
    /// Sides in which TLS has begun, and such whose hello was heard.
    pub reads: [bool; 2],
    pub heard: [bool; 2],
    pub gathering: [Gathering; 2],
    clients: [Option<Client>; HELLOS],
    servers: [Option<Server>; HELLOS],
    told: usize,
    pub denied: bool,
    /// A hello was, and that was not told yet.
    pub malformed: bool,
    meta: Meta,
    head: [u8; HEAD],
}

impl Session {
    fn new() -> Self {
        Session {
            serial: 0,
            used: false,
            since: 0,
            dtls: false,
            sides: Default::default(),
            reads: [false; 2],
            heard: [false; 2],
            gathering: Default::default(),
            clients: [const { None }; HELLOS],
            servers: [const { None }; HELLOS],
            told: 0,
            denied: false,
            malformed: false,
            meta: Meta::default(),
            head: [0; HEAD],
        }
    }

    fn begin(&mut self, packet: &View<'_>, now: u64, dtls: bool) {
        self.used = true;
        self.since = now;
        self.dtls = dtls;
        let inner = packet.inner();
        let len = inner.len().min(HEAD);
        if let (Some(place), Some(head)) = (self.head.get_mut(..len), inner.get(..len)) {
            place.copy_from_slice(head);
        }
        self.meta =
            Meta { inner: 0, inner_len: len as u16, transport: 0, transport_len: 0, ..*packet.meta() };
    }

    /// Nobody's any more.
    fn end(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.used = false;
        self.sides.iter_mut().for_each(Side::clear);
        self.gathering.iter_mut().for_each(Gathering::clear);
        self.clients = [const { None }; HELLOS];
        self.servers = [const { None }; HELLOS];
        (self.told, self.denied, self.malformed) = (0, false, false);
        (self.reads, self.heard) = ([false; 2], [false; 2]);
    }

    /// The packet that it began with, as far as it is kept: its addresses and its facts.
    pub fn packet(&self) -> View<'_> {
        View::new(&self.head, &self.meta)
    }

    /// Bytes that it has allocated for messages.
    pub fn allocated(&self) -> usize {
        let sides: usize = self.sides.iter().map(Side::allocated).sum();
        sides + self.gathering.iter().map(Gathering::allocated).sum::<usize>()
    }

    /// A ClientHello. The same one again (a cookie was asked for) says nothing new.
    pub fn client(&mut self, client: Client) {
        if self.clients.iter().flatten().any(|known| *known == client)
            && !self.servers.iter().flatten().any(|s| s.is_retry)
        {
            return;
        }
        // Nobody sends a third.
        if let Some(place) = self.clients.iter_mut().find(|place| place.is_none()) {
            *place = Some(client);
        }
    }

    /// A ServerHello.
    pub fn server(&mut self, server: Server) {
        if let Some(place) = self.servers.iter_mut().find(|place| place.is_none()) {
            *place = Some(server);
        }
    }

    /// Has a client been heard?
    pub fn has_client(&self) -> bool {
        self.clients.iter().any(Option::is_some)
    }

    /// Has anybody?
    pub fn is_empty(&self) -> bool {
        !self.has_client() && self.servers.iter().all(Option::is_none)
    }

    /// A hello has begun and has not come whole.
    pub fn is_half_sent(&self) -> bool {
        self.reads.iter().zip(&self.heard).any(|(reads, heard)| *reads && !heard)
            || self.gathering.iter().any(Gathering::is_begun)
    }

    /// A client has been heard, and no server.
    pub fn is_unanswered(&self) -> bool {
        self.has_client() && self.servers.iter().all(Option::is_none)
    }

    /// What clients said counts no more.
    pub fn forget_clients(&mut self) {
        self.clients = [const { None }; HELLOS];
        self.told = 0;
    }

    /// The next handshake that was read and not told, if it is complete, or if `all` are to be told.
    pub fn next(&mut self, all: bool) -> Option<usize> {
        let n = self.told;
        let (client, server) = (self.clients.get(n)?.is_some(), self.servers.get(n)?.is_some());
        if (client && server) || (all && (client || server)) {
            self.told += 1;
            return Some(n);
        }
        None
    }

    /// The n-th handshake.
    pub fn facts(&self, n: usize) -> Facts<'_> {
        Facts {
            dtls: self.dtls,
            client: self.clients.get(n).and_then(Option::as_ref),
            server: self.servers.get(n).and_then(Option::as_ref),
            denied: self.denied,
        }
    }

    /// The last hello of each side, if there was any.
    pub fn sum(&self) -> Option<Facts<'_>> {
        let (client, server) = (self.clients.iter().flatten().last(), self.servers.iter().flatten().last());
        let any = client.is_some() || server.is_some();
        any.then_some(Facts { dtls: self.dtls, client, server, denied: self.denied })
    }

    /// Both sides have said what they will.
    pub fn is_complete(&self) -> bool {
        let last = self.servers.iter().position(|server| server.as_ref().is_some_and(|s| !s.is_retry));
        last.is_some_and(|last| self.clients.get(last).is_some_and(Option::is_some))
    }

    /// A side's hello was heard; one that asks for another makes both begin again.
    pub fn hears(&mut self, reply: bool, again: bool) {
        if again {
            self.heard = [false; 2];
        } else {
            *of(&mut self.heard, reply) = true;
        }
    }
}

/// The originator's of two, or the responder's.
pub fn of<T>([forth, back]: &mut [T; 2], reply: bool) -> &mut T {
    if reply { back } else { forth }
}

/// The sessions of a worker.
#[derive(Debug)]
pub struct Sessions {
    all: Box<[Session]>,
    free: Vec<u16>,
    /// The next to end if there is no other.
    hand: usize,
    /// Bytes allocated for messages, and the most.
    pub allocated: usize,
    most: usize,
}

/// Where a flow's session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Plus one; 0: none.
    place: u16,
    serial: u32,
}

impl Ticket {
    /// It had one.
    pub fn is_some(self) -> bool {
        self.place != 0
    }
}

impl Sessions {
    /// So many sessions, and so many bytes for messages.
    pub fn new(count: u16, most: usize) -> Self {
        let all: Box<[Session]> = (0..count).map(|_| Session::new()).collect();
        Sessions { free: (0..count).rev().collect(), all, hand: 0, allocated: 0, most }
    }

    /// Bytes that may still be allocated.
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.allocated)
    }

    /// A free session, if there is one.
    pub fn begin(&mut self, packet: &View<'_>, now: u64, dtls: bool) -> Option<Ticket> {
        let place = self.free.pop()?;
        let session = self.all.get_mut(usize::from(place))?;
        session.begin(packet, now, dtls);
        Some(Ticket { place: place + 1, serial: session.serial })
    }

    /// The one that a ticket is for; none if that has ended.
    pub fn get(&mut self, ticket: Ticket) -> Option<&mut Session> {
        let place = usize::from(ticket.place.checked_sub(1)?);
        self.all.get_mut(place).filter(|session| session.used && session.serial == ticket.serial)
    }

    /// A side begins anew.
    pub fn restart(&mut self, ticket: Ticket, reply: bool) {
        let Some(session) = self.get(ticket) else { return };
        let before = session.allocated();
        of(&mut session.sides, reply).clear();
        (*of(&mut session.reads, reply), *of(&mut session.heard, reply)) = (false, false);
        let after = session.allocated();
        self.allocated = (self.allocated + after).saturating_sub(before);
    }

    /// Ends a session.
    pub fn end(&mut self, ticket: Ticket) {
        let Some(session) = self.get(ticket) else { return };
        let before = session.allocated();
        session.end();
        let after = session.allocated();
        self.allocated = (self.allocated + after).saturating_sub(before);
        self.free.push(ticket.place - 1);
    }

    /// The oldest, roughly: they are gone over in turn.
    pub fn oldest(&mut self) -> Option<Ticket> {
        self.turn(|session| session.used, self.all.len())
    }

    /// One of a few that are looked at in turn which began before that moment.
    pub fn overdue(&mut self, before: u64, look_at: usize) -> Option<Ticket> {
        self.turn(|session| session.used && session.since < before, look_at)
    }

    fn turn(&mut self, is_it: impl Fn(&Session) -> bool, look_at: usize) -> Option<Ticket> {
        for _ in 0..look_at {
            self.hand = if self.hand < self.all.len() { self.hand } else { 0 };
            let session = self.all.get(self.hand)?;
            self.hand += 1;
            if is_it(session) {
                return Some(Ticket { place: self.hand as u16, serial: session.serial });
            }
        }
        None
    }
}
