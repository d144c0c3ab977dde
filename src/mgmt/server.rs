//! The server on ordinary sockets of the kernel: on `management.listen` health for this machine, a container or systemd, `/metrics`, and what of the
//! admin API changes nothing; on `management.socket`, a unix socket, all of the admin API ([`super::admin`]).
//!
//! It runs on threads of its own, beside the workers and the main lcore: one accepts, and each connection has one until it is over.
//! Blocking threads, few of them, rather than an asynchronous runtime: there is one request in a second, an answer may take as long as its
//! reader, and nothing of it may ever be near the packets. What goes on and on (events, captures) is written by the connection's own thread,
//! and a reader who takes nothing of it is given up like any other.
//!
//! | | at most | beyond |
//! |---|---|---|
//! | a request | 2 KB, 32 headers | 431 |
//! | its body | 4 KB | 413 |
//! | until it is complete | 3 s | cut |
//! | until the answer, or a piece of one that goes on, is taken | 10 s | cut |
//! | connections | 16 | the oldest one that has not asked yet, or has its answer, goes; if all wait for theirs, 503 |
//!
//! Health is what the main lcore has said last. If it says nothing any more, that is the answer: who hangs is not alive.

mod socket;

use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
pub use socket::{Listener, Socket};

use super::admin::{Api, Request, Rights};
use super::health::Status;
use super::host::CheckCounts;
use super::http::{self, Asked, LONGEST, LONGEST_BODY, Method, Outcome, Read};
use crate::config::Token;
use crate::dpdk::{self, Error};

/// Connections at a time.
pub const CONNECTIONS: usize = 16;
/// For a request to be complete.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// For an answer to be taken.
pub const READING: Duration = Duration::from_secs(10);
/// For bytes that nobody asked for, behind an answer: closing at once would make the kernel take the answer back.
const LINGER: Duration = Duration::from_millis(500);
/// From one look at whether it is time to stop to the next.
const SLICE: Duration = Duration::from_millis(100);
/// The main lcore says how things are four times a second.
const STALE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// A connection's thread needs little.
const STACK: usize = 256 << 10;
/// What figures look like (Prometheus, "Exposition formats").
const FIGURES: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain";

/// Makes the page of figures. Called on a connection's thread.
pub type Page = Arc<dyn Fn() -> Arc<[u8]> + Send + Sync>;

/// What the main lcore says of health, for other threads.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    said: Mutex<(Status, Instant)>,
}

impl Board {
    /// `began`: the zero of the status' times.
    pub fn new(began: Instant, status: Status) -> Self {
        Board { began, said: Mutex::new((status, Instant::now())) }
    }

    /// Things are like this now.
    pub fn say(&self, status: &Status) {
        let mut said = self.said.lock();
        if said.0 != *status {
            said.0 = status.clone();
        }
        said.1 = Instant::now();
    }

    /// What health answers on a path, if it has one.
    fn answer(&self, path: &str) -> Option<(Outcome, &'static str, String)> {
        let (status, when) = self.said.lock().clone();
        let silent = when.elapsed();
        if silent < STALE {
            return http::by_path(path, &status, self.began.elapsed());
        }
        let text = format!("the management side has not moved for {} s", silent.as_secs());
        match path {
            "/healthz" => {
                let reason = json!({ "cause": "management-stuck", "text": text });
                let since = silent.as_secs();
                let body = json!({ "state": "failed", "fit": false, "since_s": since, "reasons": [reason], "recovering": false });
                Some((Outcome::Unfit, "application/json", format!("{body}\n")))
            }
            "/" | "/readyz" | "/livez" => Some((Outcome::Unfit, TEXT, format!("failed: {text}\n"))),
            _ => None,
        }
    }
}

/// Who answers what comes in by a listener.
pub trait Serve: Send + Sync {
    /// May whoever is at the other end ask anything? Who that is, as far as is known; or what is said to him.
    fn admits(&self, _socket: &Socket) -> Result<String, Reply> {
        Ok(String::new())
    }

    /// The answer to a request of somebody. Called on the connection's own thread: it may take its time.
    fn answer(&self, asked: &Asked<'_>, body: &[u8], who: &str) -> Reply;
}

/// An answer.
pub enum Reply {
    /// What it is, the kind of its body, and the body.
    Page(Outcome, &'static str, Arc<[u8]>),
    /// The kind of a body that goes on until somebody has had enough, and what writes it.
    Stream(&'static str, Box<dyn FnOnce(&mut Pipe<'_>) + Send>),
}

impl Reply {
    /// A page of text.
    pub fn text(outcome: Outcome, kind: &'static str, text: &str) -> Self {
        Reply::Page(outcome, kind, Arc::from(text.as_bytes()))
    }
}

/// The way to somebody who reads what goes on and on.
pub struct Pipe<'a> {
    shared: &'a Shared,
    socket: &'a mut Socket,
}

impl Pipe<'_> {
    /// Sends; false if the other side is gone or has taken nothing for too long, or if the program ends.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.shared.send(self.socket, bytes, Instant::now() + READING)
    }

    /// Waits so long for the other side to go; false if it is gone, or if the program ends.
    pub fn wait(&mut self, time: Duration) -> bool {
        let mut ignored = Vec::new();
        let end = Instant::now() + time;
        loop {
            match self.shared.more(self.socket, &mut ignored, end) {
                Came::Bytes => ignored.clear(), // nobody asked for them
                Came::Late => return true,
                Came::End => return false,
            }
        }
    }
}

/// What is answered on `management.listen`, and to whom.
pub struct Answers {
    /// Health, for everybody.
    pub board: Arc<Board>,
    /// Figures.
    pub page: Page,
    /// What must be shown for figures.
    pub token: Option<Token>,
    /// Without a token, figures are for this machine only.
    pub open: bool,
    /// What of the admin API changes nothing, if it is wanted here.
    pub api: Option<Arc<dyn Api>>,
}

impl Serve for Answers {
    fn answer(&self, asked: &Asked<'_>, body: &[u8], who: &str) -> Reply {
        let text = Reply::text;
        if asked.method == Method::Post {
            return text(Outcome::Method, TEXT, "GET or HEAD\n");
        }
        if let Some((outcome, kind, body)) = self.board.answer(asked.path) {
            return text(outcome, kind, &body);
        }
        let api = self.api.as_ref().filter(|_| asked.path.starts_with("/v1/"));
        if asked.path != "/metrics" && api.is_none() {
            return text(Outcome::NotFound, TEXT, "paths are /, /healthz, /readyz, /livez, /metrics\n");
        }
        match &self.token {
            Some(token) if !asked.token.is_some_and(|shown| token.is(shown)) => {
                return text(Outcome::Unauthorized, TEXT, "show the token: Authorization: Bearer ...\n");
            }
            None if !self.open => {
                let why = "other machines can reach this address: figures need management.token_file\n";
                return text(Outcome::Forbidden, TEXT, why);
            }
            _ => {}
        }
        if let Some(api) = api {
            return api.answer(&Request { asked, body, who, rights: Rights::Look });
        }
        let page = (self.page)();
        match page.is_empty() {
            true => text(Outcome::Unfit, TEXT, "no figures yet\n"),
            false => Reply::Page(Outcome::Fit, FIGURES, page),
        }
    }
}

/// What is answered on `management.health.listen`: health, and nothing else.
pub struct Checks(pub Arc<Board>);

impl Serve for Checks {
    fn answer(&self, asked: &Asked<'_>, _: &[u8], _: &str) -> Reply {
        if asked.method == Method::Post {
            return Reply::text(Outcome::Method, TEXT, "GET or HEAD\n");
        }
        match self.0.answer(asked.path) {
            Some((outcome, kind, body)) => Reply::text(outcome, kind, &body),
            None => Reply::text(Outcome::NotFound, TEXT, "paths are /, /healthz, /readyz, /livez\n"),
        }
    }
}

/// A listening socket, with the threads behind it.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    /// The socket, and whether it listens; of TCP only.
    socket: Option<(TcpListener, bool)>,
    shared: Arc<Shared>,
    /// Closing it wakes the one that accepts.
    wake: Option<PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    answers: Box<dyn Serve>,
    counts: Mutex<CheckCounts>,
    open: Mutex<Vec<Slot>>,
    /// Threads of connections that had to go, until they have.
    evicted: Mutex<Vec<JoinHandle<()>>>,
    stop: AtomicBool,
}

/// A connection that is open.
struct Slot {
    number: u64,
    stream: Socket,
    /// Its request is complete, and its answer under way.
    asked: bool,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} connections", self.open.lock().len())
    }
}

impl Server {
    /// Listens there, as `key` says, on threads that run on these CPUs.
    pub fn open(
        key: &str,
        address: SocketAddr,
        answers: Box<dyn Serve>,
        cpus: Vec<u32>,
    ) -> Result<Self, Error> {
        let refused = |error: std::io::Error| {
            Error::refused(
                format!("{key} = {address}: {error}"),
                "another program may have it: choose another port, or leave the setting out",
            )
        };
        let socket = TcpListener::bind(address).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let own = socket.try_clone().map_err(refused)?;
        let mut server = Server::on(Listener::Tcp(socket), answers, cpus).map_err(refused)?;
        (server.address, server.socket) = (Some(address), Some((own, true)));
        Ok(server)
    }

    /// Takes what comes in there, on threads that run on these CPUs.
    pub fn on(socket: Listener, answers: Box<dyn Serve>, cpus: Vec<u32>) -> std::io::Result<Self> {
        socket.set_nonblocking()?;
        let (woken, wake) = std::io::pipe()?;
        let shared = Arc::new(Shared {
            answers,
            counts: Mutex::default(),
            open: Mutex::default(),
            evicted: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let accept = shared.clone();
        let accepting = Builder::new().name("http".into()).spawn(move || {
            dpdk::run_on(&cpus);
            accept.accept(&socket, &woken);
        })?;
        Ok(Server { address: None, socket: None, shared, wake: Some(wake), accepting: Some(accepting) })
    }

    /// Takes connections from now on, or has the kernel refuse them, with a RST each. The address stays this socket's: another one could not
    /// have it once the program has given up its rights. (Linux: `shutdown` ends listening, `listen` begins it again.)
    pub fn listen(&mut self, on: bool) {
        let Some((socket, is_on)) = &mut self.socket else { return };
        if *is_on == on {
            return;
        }
        let done = match on {
            true => rustix::net::listen(&*socket, BACKLOG),
            false => rustix::net::shutdown(&*socket, rustix::net::Shutdown::Read),
        };
        if done.is_ok() {
            *is_on = on;
        }
    }

    /// Where it listens, if that is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What it has counted.
    pub fn counts(&self) -> CheckCounts {
        *self.shared.counts.lock()
    }
}

impl Server {
    /// Nobody is there any more when it returns.
    pub fn close(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake = None;
        let accepting = self.accepting.take().map(JoinHandle::join);
        drop(accepting); // a panic of its own would have been printed
        let open = std::mem::take(&mut *self.shared.open.lock());
        for mut slot in open {
            let _ = slot.stream.shutdown(Shutdown::Both); // it may be gone
            let _ = slot.thread.take().map(JoinHandle::join);
        }
        let evicted = std::mem::take(&mut *self.shared.evicted.lock());
        evicted.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, socket: &Listener, woken: &PipeReader) {
        let mut number = 0;
        while !self.stop.load(Ordering::Acquire) {
            let mut waiting = [PollFd::new(socket, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            let _ = poll(&mut waiting, None); // a signal: look again
            match socket.accept() {
                Ok(stream) => {
                    number += 1;
                    self.take(stream, number);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // Out of descriptors, say: the connection stays in the queue, and this must not spin.
                Err(_) => std::thread::sleep(SLICE),
            }
        }
    }

    /// Gives a connection its thread, if there is room for one.
    fn take(self: &Arc<Self>, stream: Socket, number: u64) {
        let began = Instant::now();
        let (Ok(()), Ok(other)) = (stream.set_nonblocking(false), stream.try_clone()) else { return };
        self.counts.lock().connections += 1;
        let mut open = self.open.lock();
        if open.len() >= CONNECTIONS {
            let Some(idle) = open.iter().position(|slot| !slot.asked) else {
                drop(open);
                let why = "too many connections; try again\n";
                return self.refuse(stream, why);
            };
            // Its thread finds the end of the stream.
            let gone = open.remove(idle);
            let _ = gone.stream.shutdown(Shutdown::Both);
            let mut evicted = self.evicted.lock();
            evicted.retain(|thread| !thread.is_finished());
            evicted.extend(gone.thread);
            drop(evicted);
            self.counts.lock().evicted += 1;
        }
        let shared = self.clone();
        let thread = Builder::new().name(format!("http-{number}")).stack_size(STACK).spawn(move || {
            shared.serve(stream, number, began);
            shared.open.lock().retain(|slot| slot.number != number);
        });
        match thread {
            // It waits for the lock that is held here before it takes itself off the list.
            Ok(thread) => open.push(Slot { number, stream: other, asked: false, thread: Some(thread) }),
            Err(_) => self.counts.lock().refused += 1,
        }
    }

    /// Without a thread, and without waiting.
    fn refuse(&self, mut stream: Socket, why: &str) {
        self.counts.lock().refused += 1;
        let mut bytes = http::head(Outcome::Unfit, TEXT, Some(why.len()));
        bytes.extend_from_slice(why.as_bytes());
        let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&bytes)); // it was refused already
    }

    fn serve(&self, mut stream: Socket, number: u64, began: Instant) {
        let mut input = Vec::new();
        let text = |outcome, why: &str| Reply::text(outcome, TEXT, why);
        let (reply, body_wanted) = loop {
            match self.more(&mut stream, &mut input, began + PATIENCE) {
                Came::Bytes => {}
                Came::End => {
                    self.counts.lock().connects_only += u64::from(input.is_empty());
                    return;
                }
                Came::Late => {
                    self.counts.lock().cut += 1;
                    return;
                }
            }
            match http::read(&input) {
                Read::More if input.len() >= LONGEST => break (text(Outcome::TooLarge, "too large\n"), true),
                Read::More => {}
                Read::Wrong(outcome, why, body) => break (text(outcome, why), body),
                Read::Asked(asked) if asked.body > LONGEST => {
                    break (text(Outcome::TooLarge, "too large\n"), asked.method != Method::Head);
                }
                Read::Asked(asked) => {
                    let Some(body) = input.get(asked.body..asked.body + asked.body_len) else { continue };
                    if let Some(slot) = self.open.lock().iter_mut().find(|slot| slot.number == number) {
                        slot.asked = true;
                    }
                    // Only now: who is refused before he has asked takes the end of the connection for its beginning.
                    let admitted = self.answers.admits(&stream);
                    let reply =
                        admitted.map(|who| self.answers.answer(&asked, body, &who)).unwrap_or_else(|no| no);
                    break (reply, asked.method != Method::Head);
                }
            }
        };
        let taken = match reply {
            Reply::Page(outcome, kind, body) => {
                self.counts.lock().request(outcome);
                let head = http::head(outcome, kind, Some(body.len()));
                let body = if body_wanted { &*body } else { &[] };
                let end = Instant::now() + READING;
                self.send(&mut stream, &head, end) && self.send(&mut stream, body, end)
            }
            Reply::Stream(kind, write) => {
                self.counts.lock().request(Outcome::Fit);
                let head = http::head(Outcome::Fit, kind, None);
                let begun = self.send(&mut stream, &head, Instant::now() + READING);
                if begun && body_wanted {
                    write(&mut Pipe { shared: self, socket: &mut stream });
                }
                begun
            }
        };
        if !taken {
            self.counts.lock().cut += 1;
            return;
        }
        let _ = stream.shutdown(Shutdown::Write); // it may be gone
        // Who has its answer makes room for others: else sixteen that do not close keep everybody out.
        if let Some(slot) = self.open.lock().iter_mut().find(|slot| slot.number == number) {
            slot.asked = false;
        }
        input.clear();
        let end = Instant::now() + LINGER;
        while let Came::Bytes = self.more(&mut stream, &mut input, end) {
            input.clear();
        }
    }

    /// Waits for more bytes; never has more than a request may have.
    fn more(&self, stream: &mut Socket, input: &mut Vec<u8>, end: Instant) -> Came {
        let mut bytes = [0; LONGEST];
        let room = (LONGEST + LONGEST_BODY).saturating_sub(input.len()).clamp(1, LONGEST);
        while !self.stop.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now()).min(SLICE);
            if left.is_zero() || stream.set_read_timeout(left).is_err() {
                return Came::Late;
            }
            match stream.read(bytes.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Came::End,
                Ok(n) => {
                    input.extend_from_slice(bytes.get(..n).unwrap_or_default());
                    return Came::Bytes;
                }
                Err(error) if is_patient(&error) => {}
                Err(_) => return Came::End,
            }
        }
        Came::End
    }

    /// False if the other side has not taken all of it in time, or is gone.
    fn send(&self, stream: &mut Socket, mut bytes: &[u8], end: Instant) -> bool {
        while !bytes.is_empty() && !self.stop.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now()).min(SLICE);
            if left.is_zero() || stream.set_write_timeout(left).is_err() {
                return false;
            }
            match stream.write(bytes) {
                Ok(0) => return false,
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if is_patient(&error) => {}
                Err(_) => return false,
            }
        }
        bytes.is_empty()
    }
}

/// What came of waiting.
enum Came {
    Bytes,
    End,
    Late,
}

fn is_patient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
