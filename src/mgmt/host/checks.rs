//! Connections of health checks on one port: a fixed number of sockets, and who must go when they are needed.
//!
//! There is always somebody listening. When the listeners run out, the sockets that others need least are taken back, the oldest
//! first, in this order: connections that are over and only remembered; half-open ones of hosts that have never completed a handshake;
//! those that have not said what they want within [`FAIR`]; those that do not read their answer; half-open ones of hosts that are known. So a flood
//! of SYNs costs the flood its connections, and not a load balancer's node that comes every few seconds; a flood of slow clients
//! costs the slow theirs.

use std::collections::BTreeMap;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpAddress;

use crate::mgmt::http::{Exchange, Outcome};

/// Connections at a time.
const SOCKETS: usize = 128;
/// Listeners that there should be before the next frame is looked at.
const LISTENERS: usize = 4;
/// Bytes of a socket's buffers. What is longer comes in pieces.
const BUFFER: usize = 1024;
/// A handshake, a request, an answer and a farewell take no longer than this each.
const PATIENCE: Duration = Duration::from_secs(3);
/// Hosts that are known, at most: a load balancer has few nodes.
const KNOWN: usize = 64;
/// Nobody who is quicker than this is sent away for another.
const FAIR: Duration = Duration::from_millis(250);

/// What became of connections and their requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// Connections whose handshake was completed.
    pub connections: u64,
    /// Connections that were closed by their client without a byte: checks that only connect.
    pub connects_only: u64,
    /// Requests by what they came to, in the order of [`CheckCounts::OUTCOMES`].
    pub requests: [u64; 11],
    /// Connections cut because their client was too slow.
    pub cut: u64,
    /// Connections, half-open or idle, that made room for others.
    pub evicted: u64,
    /// Connections that were refused, because there were too many at a time.
    pub refused: u64,
}

impl CheckCounts {
    /// What a request can come to.
    pub const OUTCOMES: [Outcome; 11] = [
        Outcome::Fit,
        Outcome::Unfit,
        Outcome::NotFound,
        Outcome::Method,
        Outcome::Bad,
        Outcome::TooLarge,
        Outcome::Unauthorized,
        Outcome::Forbidden,
        Outcome::Busy,
        Outcome::NoLength,
        Outcome::LongBody,
    ];

    /// The sum of two.
    pub fn plus(mut self, other: &CheckCounts) -> CheckCounts {
        self.connections += other.connections;
        self.connects_only += other.connects_only;
        self.requests.iter_mut().zip(other.requests).for_each(|(sum, n)| *sum += n);
        self.cut += other.cut;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self
    }

    /// Counts a request.
    pub fn request(&mut self, outcome: Outcome) {
        let places = Self::OUTCOMES.iter().zip(&mut self.requests);
        places.filter(|(which, _)| **which == outcome).for_each(|(_, n)| *n += 1);
    }
}

#[derive(Debug)]
pub(super) struct Checks {
    port: u16,
    connections: Vec<Connection>,
    /// Hosts that have completed a handshake, and when they last did.
    known: BTreeMap<IpAddress, Instant>,
    pub counts: CheckCounts,
}

#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    /// When it left `Listen`, then when its handshake was complete, then when it was closed.
    since: Instant,
    stage: Stage,
    exchange: Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Listening,
    HalfOpen,
    Open,
    Closing,
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

impl Checks {
    pub fn new(sockets: &mut SocketSet<'static>, port: u16) -> Self {
        let connection = |handle| Connection {
            handle,
            since: Instant::ZERO,
            stage: Stage::Listening,
            exchange: Exchange::default(),
        };
        let connections = (0..SOCKETS).map(|_| connection(sockets.add(socket()))).collect();
        Checks { port, connections, known: BTreeMap::new(), counts: CheckCounts::default() }
    }

    /// Connections that are neither listening nor over.
    pub fn open(&self, sockets: &SocketSet<'static>) -> usize {
        let of = |connection: &&Connection| sockets.get::<Socket<'_>>(connection.handle).is_active();
        self.connections.iter().filter(of).count()
    }

    /// Sees to it that somebody listens, if that is wanted.
    pub fn make_room(&mut self, now: Instant, sockets: &mut SocketSet<'static>, listen: bool) {
        if !listen {
            return;
        }
        let mut listening = 0;
        for connection in &mut self.connections {
            let socket = sockets.get::<Socket<'_>>(connection.handle);
            let over = socket.state() == State::Closed && socket.remote_endpoint().is_none();
            listening += usize::from(socket.is_listening() || over);
            if over {
                connection.listen(sockets, self.port);
            }
            if listening >= LISTENERS {
                return;
            }
        }
        while listening < LISTENERS
            && let Some((_, connection)) = self
                .connections
                .iter_mut()
                .filter_map(|connection| Some((connection.worth(now, sockets, &self.known)?, connection)))
                .min_by_key(|(worth, _)| *worth)
        {
            // Without a word: a reset would only add to a flood.
            self.counts.evicted += u64::from(sockets.get::<Socket<'_>>(connection.handle).is_open());
            connection.listen(sockets, self.port);
            listening += 1;
        }
    }

    /// Writes down what a frame has changed.
    pub fn note(&mut self, now: Instant, sockets: &SocketSet<'static>) {
        for connection in &mut self.connections {
            let state = sockets.get::<Socket<'_>>(connection.handle).state();
            match (connection.stage, state) {
                (Stage::Listening, State::Listen | State::Closed) => {}
                (Stage::Listening, State::SynReceived) => connection.enter(Stage::HalfOpen, now),
                (Stage::Listening | Stage::HalfOpen, state)
                    if state != State::SynReceived && state != State::Closed =>
                {
                    if state == State::Listen {
                        connection.enter(Stage::Listening, now); // a reset took the handshake back
                        continue;
                    }
                    self.counts.connections += 1;
                    connection.enter(Stage::Open, now);
                    if let Some(remote) = sockets.get::<Socket<'_>>(connection.handle).remote_endpoint() {
                        if self.known.len() >= KNOWN && !self.known.contains_key(&remote.addr) {
                            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(host, _)| *host);
                            oldest.map(|host| self.known.remove(&host));
                        }
                        self.known.insert(remote.addr, now);
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads, answers, closes, and cuts who is too slow. `take` feeds a request.
    pub fn serve(
        &mut self,
        now: Instant,
        sockets: &mut SocketSet<'static>,
        listen: bool,
        mut take: impl FnMut(&mut Exchange, &[u8]),
    ) {
        self.note(now, sockets);
        let Checks { port, connections, counts, .. } = self;
        for connection in connections {
            let socket = sockets.get_mut::<Socket<'_>>(connection.handle);
            match socket.state() {
                // It still has a peer if it was cut: the reset goes first.
                State::Closed if listen && socket.remote_endpoint().is_none() => {
                    connection.listen(sockets, *port)
                }
                State::Listen if !listen => socket.close(),
                State::Closed | State::Listen | State::TimeWait => {}
                _ => connection.serve(now, socket, counts, &mut take),
            }
        }
    }
}

impl Connection {
    /// Listens anew, on a socket of its own: smoltcp keeps beside the old one whose MAC address it waits for.
    fn listen(&mut self, sockets: &mut SocketSet<'static>, port: u16) {
        drop(sockets.remove(self.handle));
        let mut socket = socket();
        let _ = socket.listen(port); // fails for port 0 only, which no plan has
        self.handle = sockets.add(socket);
        self.stage = Stage::Listening;
        self.exchange = Exchange::default();
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        (self.stage, self.since) = (stage, now);
    }

    /// How much it would be missed: the smallest goes first; `None` if it stays in any case.
    fn worth(
        &self,
        now: Instant,
        sockets: &SocketSet<'static>,
        known: &BTreeMap<IpAddress, Instant>,
    ) -> Option<(u8, Instant)> {
        let socket = sockets.get::<Socket<'_>>(self.handle);
        let fair = now - self.since >= FAIR;
        let class = match (socket.state(), self.stage) {
            (State::Listen, _) => return None,
            (State::Closed | State::TimeWait, _) => 0,
            (State::SynReceived, _) => {
                let known = socket.remote_endpoint().is_some_and(|remote| known.contains_key(&remote.addr));
                if known { 4 } else { 1 }
            }
            (_, Stage::Open) if self.exchange.outcome().is_none() && fair => 2,
            (_, _) if fair => 3,
            _ => return None,
        };
        Some((class, self.since))
    }

    fn serve(
        &mut self,
        now: Instant,
        socket: &mut Socket<'static>,
        counts: &mut CheckCounts,
        take: &mut impl FnMut(&mut Exchange, &[u8]),
    ) {
        if self.stage == Stage::Open {
            let known = self.exchange.outcome();
            while socket.can_recv() {
                let read = socket.recv(|bytes| {
                    take(&mut self.exchange, bytes);
                    (bytes.len(), ())
                });
                if read.is_err() {
                    break;
                }
            }
            if let (None, Some(outcome)) = (known, self.exchange.outcome()) {
                counts.request(outcome);
            }
            let pending = self.exchange.pending();
            if !pending.is_empty()
                && let Ok(n) = socket.send_slice(pending)
            {
                self.exchange.sent(n);
            }
            let left = socket.state() == State::CloseWait && self.exchange.outcome().is_none();
            if left {
                counts.connects_only += u64::from(!self.exchange.has_begun());
            }
            if left || self.exchange.is_over() {
                socket.close();
                self.enter(Stage::Closing, now);
            }
        }
        if now - self.since >= PATIENCE {
            counts.cut += 1;
            socket.abort();
            self.enter(Stage::Closing, now);
        }
    }
}
