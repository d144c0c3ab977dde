//! One check of one target: a connection, what is said on it, and what came of it.
//!
//! Whatever a target does, a check costs one socket with [`BUFFER`] bytes each way and at most [`MOST`] bytes that are looked at, and is over when its time
//! is. The handshake is always completed, and the connection ended by a reset, which leaves no state at the target.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::answer::{Answer, Fault, LONGEST};
use super::reason::{Good, Hint, Reason, Wanted};
use super::settings::{HealthCheck, Matcher, Protocol};
use super::tls::Tls;

/// Bytes of a socket's buffers. What is longer comes in pieces.
const BUFFER: usize = 4096;
/// The same where nothing is said.
const SMALL: usize = 256;
/// Bytes from a target that are looked at: an answer's head, and the certificates before it (RFC 8446 section 4.4.2 would have 16 MB, the TLS
/// library 64 kB).
const MOST: usize = LONGEST + (96 << 10);

/// A check that is under way.
#[derive(Debug)]
pub(super) struct Attempt {
    /// When it began.
    pub started: Duration,
    timeout: Duration,
    /// When its time is over.
    pub deadline: Duration,
    pub stage: Stage,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// It is not known where to send.
    Waiting,
    Talking(Box<Talk>),
    /// It could not begin.
    Failed(Reason),
}

/// What came of it, and how long it took from SYN on.
pub(super) type Finding = Result<(Good, Duration), Reason>;

impl Attempt {
    pub fn new(now: Duration, timeout: Duration) -> Self {
        Attempt { started: now, timeout, deadline: now + timeout, stage: Stage::Waiting }
    }

    /// What it has come to. `hop` is the neighbour whose MAC address it needs, `silent` the same if it does not answer.
    pub fn finding(
        &mut self,
        hop: Option<Ipv4Addr>,
        silent: Option<Ipv4Addr>,
        now: Duration,
    ) -> Option<Finding> {
        let (is_late, after) = (now >= self.deadline, self.timeout);
        match &mut self.stage {
            Stage::Failed(reason) => Some(Err(reason.clone())),
            Stage::Talking(talk) => {
                talk.finding.take().or_else(|| is_late.then(|| Err(talk.late(after, silent))))
            }
            Stage::Waiting => {
                let reason = hop.map_or(Reason::NoWay, |neighbour| Reason::NoMac { neighbour, after });
                is_late.then_some(Err(reason))
            }
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Talk {
    pub handle: SocketHandle,
    /// Our port.
    pub port: u16,
    since: Duration,
    is_open: bool,
    protocol: Protocol,
    request: Vec<u8>,
    sent: usize,
    answer: Answer,
    tls: Option<Tls>,
    taken: usize,
    /// What ICMP has said.
    pub unreachable: Option<u8>,
    finding: Option<Finding>,
}

impl Talk {
    /// Sends SYN.
    pub fn begin(
        settings: &HealthCheck,
        tls: &Result<Arc<ClientConfig>, String>,
        [own, target]: [Ipv4Addr; 2],
        port: u16,
        now: Duration,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) -> Result<Talk, Reason> {
        let protocol = settings.protocol;
        let request = if protocol == Protocol::Tcp { Vec::new() } else { request(settings, target) };
        let tls = match (protocol, tls) {
            (Protocol::Https, Ok(config)) => Some(Tls::new(config, target, &request).map_err(Reason::Tls)?),
            (Protocol::Https, Err(error)) => return Err(Reason::Tls(error.clone())),
            _ => None,
        };
        let bytes = if protocol == Protocol::Tcp { SMALL } else { BUFFER };
        let buffer = || SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let connected = socket.connect(iface.context(), (target, settings.port), (own, port));
        connected.map_err(|_| Reason::NoWay)?; // an address that no host has
        let handle = sockets.add(socket);
        Ok(Talk {
            handle,
            port,
            since: now,
            is_open: false,
            protocol,
            request,
            sent: 0,
            answer: Answer::default(),
            tls,
            taken: 0,
            unreachable: None,
            finding: None,
        })
    }

    /// Goes on, as far as what has come allows.
    pub fn go_on(&mut self, matcher: &Matcher, now: Duration, sockets: &mut SocketSet<'static>) {
        if self.finding.is_some() {
            return;
        }
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        let finding = match socket.state() {
            State::SynSent | State::SynReceived => None,
            State::Closed if !self.is_open => Some(Err(Reason::Refused)),
            state => {
                self.is_open = true;
                self.speak(socket, state)
            }
        };
        self.finding = finding.map(|finding| match finding {
            Ok(Good::Code(code)) if !matcher.takes(code) => Err(Reason::Code(code)),
            finding => finding.map(|good| (good, now.saturating_sub(self.since))),
        });
    }

    /// Reads, answers, and looks whether the other end is still there.
    fn speak(&mut self, socket: &mut Socket<'static>, state: State) -> Option<Result<Good, Reason>> {
        if self.protocol == Protocol::Tcp {
            return Some(Ok(Good::Connected));
        }
        let mut finding = None;
        while finding.is_none() && socket.can_recv() {
            let read = socket.recv(|bytes| {
                finding = self.take(bytes);
                (bytes.len(), ())
            });
            if read.is_err() {
                break;
            }
        }
        if finding.is_some() {
            return finding;
        }
        while socket.can_send() {
            let pending = match &self.tls {
                Some(tls) => tls.pending(),
                None => self.request.get(self.sent..).unwrap_or_default(),
            };
            let Some(n) = socket.send_slice(pending).ok().filter(|n| *n > 0) else { break };
            match &mut self.tls {
                Some(tls) => tls.sent(n),
                None => self.sent += n,
            }
        }
        match state {
            State::Closed => Some(Err(Reason::Reset(self.wanted()))),
            _ if !socket.may_recv() => Some(Err(Reason::Closed(self.wanted()))),
            _ => None,
        }
    }

    /// Takes bytes from the target.
    fn take(&mut self, bytes: &[u8]) -> Option<Result<Good, Reason>> {
        let Talk { answer, tls, taken, .. } = self;
        *taken += bytes.len();
        let mut result = None;
        match tls {
            None => result = answer.take(bytes),
            Some(tls) => {
                let taken = tls.take(bytes, |plain| result = result.or(answer.take(plain)));
                if let (Err(what), None) = (taken, result) {
                    return Some(Err(Reason::Tls(what)));
                }
            }
        }
        let result = result.or((*taken > MOST).then_some(Err(Fault::TooLong)));
        result.map(|result| result.map(Good::Code).map_err(Reason::Answer))
    }

    fn wanted(&self) -> Wanted {
        match &self.tls {
            _ if !self.is_open => Wanted::Syn,
            Some(tls) if tls.is_handshaking() => Wanted::Handshake,
            _ => Wanted::Answer { begun: self.answer.has_begun() },
        }
    }

    /// Its time is over.
    pub fn late(&self, after: Duration, silent: Option<Ipv4Addr>) -> Reason {
        let wanted = self.wanted();
        let silent = silent.filter(|_| wanted == Wanted::Syn).map(Hint::Silent);
        Reason::Late { after, wanted, hint: self.unreachable.map(Hint::Unreachable).or(silent) }
    }
}

/// What is asked.
fn request(settings: &HealthCheck, target: Ipv4Addr) -> Vec<u8> {
    let usual = if settings.protocol == Protocol::Https { 443 } else { 80 };
    let port = if settings.port == usual { String::new() } else { format!(":{}", settings.port) };
    format!(
        "GET {} HTTP/1.1\r\nHost: {target}{port}\r\nUser-Agent: Sluicegate-HealthChecker/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        settings.path,
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes()
}
