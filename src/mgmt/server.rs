//! The server on an ordinary socket of the kernel (`management.listen`): health for this machine, a container or systemd, and `/metrics`.
//!
//! It runs on threads of its own, beside the workers and the main lcore: one accepts, and each connection has one until it is over.
//! Blocking threads, few of them, rather than an asynchronous runtime: there is one request in a second, an answer may take as long as its
//! reader, and nothing of it may ever be near the packets. Read-only.
//!
//! | | at most | beyond |
//! |---|---|---|
//! | a request | 2 KB, 32 headers | 431 |
//! | until it is complete | 3 s | cut |
//! | until the answer is taken | 10 s | cut |
//! | connections | 16 | the oldest one that has not asked yet, or has its answer, goes; if all wait for theirs, 503 |
//!
//! Health is what the main lcore has said last. If it says nothing any more, that is the answer: who hangs is not alive.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;

use super::health::Status;
use super::host::CheckCounts;
use super::http::{self, Asked, LONGEST, Outcome, Read};
use crate::config::Token;
use crate::dpdk::{self, Error};

/// Connections at a time.
pub const CONNECTIONS: usize = 16;
/// For a request to be complete.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// For an answer to be taken, from the moment the connection was made.
pub const READING: Duration = Duration::from_secs(10);
/// For bytes that nobody asked for, behind an answer: closing at once would make the kernel take the answer back.
const LINGER: Duration = Duration::from_millis(500);
/// From one look at whether it is time to stop to the next.
const SLICE: Duration = Duration::from_millis(100);
/// The main lcore says how things are four times a second.
const STALE: Duration = Duration::from_secs(5);
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

/// What is answered, and to whom.
pub struct Answers {
    /// Health, for everybody.
    pub board: Arc<Board>,
    /// Figures.
    pub page: Page,
    /// What must be shown for figures.
    pub token: Option<Token>,
    /// Without a token, figures are for this machine only.
    pub open: bool,
}

/// An answer: what it is, the kind of its body, and the body.
type Answer = (Outcome, &'static str, Arc<[u8]>);

impl Answers {
    fn answer(&self, asked: &Asked<'_>) -> Answer {
        let text = |outcome, kind, text: &str| (outcome, kind, Arc::from(text.as_bytes()));
        if let Some((outcome, kind, body)) = self.board.answer(asked.path) {
            return text(outcome, kind, &body);
        }
        if asked.path != "/metrics" {
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
        let page = (self.page)();
        match page.is_empty() {
            true => text(Outcome::Unfit, TEXT, "no figures yet\n"),
            false => (Outcome::Fit, FIGURES, page),
        }
    }
}

/// A listening socket, with the threads behind it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Closing it wakes the one that accepts.
    wake: Option<PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    answers: Answers,
    counts: Mutex<CheckCounts>,
    open: Mutex<Vec<Slot>>,
    stop: AtomicBool,
}

/// A connection that is open.
struct Slot {
    number: u64,
    stream: TcpStream,
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
    /// Listens there, on threads that run on these CPUs.
    pub fn open(address: SocketAddr, answers: Answers, cpus: Vec<u32>) -> Result<Self, Error> {
        let refused = |error: std::io::Error| {
            Error::refused(
                format!("management.listen = {address}: {error}"),
                "another program may have it: choose another port, or leave the setting out",
            )
        };
        let socket = TcpListener::bind(address).map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let (woken, wake) = std::io::pipe().map_err(refused)?;
        let shared = Arc::new(Shared {
            answers,
            counts: Mutex::default(),
            open: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let accept = shared.clone();
        let accepting = Builder::new().name("http".into()).spawn(move || {
            dpdk::run_on(&cpus);
            accept.accept(&socket, &woken);
        });
        Ok(Server { address, shared, wake: Some(wake), accepting: Some(accepting.map_err(refused)?) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted.
    pub fn counts(&self) -> CheckCounts {
        *self.shared.counts.lock()
    }
}

impl Drop for Server {
    /// Nobody is there any more when it returns.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake = None;
        let accepting = self.accepting.take().map(JoinHandle::join);
        drop(accepting); // a panic of its own would have been printed
        let open = std::mem::take(&mut *self.shared.open.lock());
        for mut slot in open {
            let _ = slot.stream.shutdown(Shutdown::Both); // it may be gone
            let _ = slot.thread.take().map(JoinHandle::join);
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, socket: &TcpListener, woken: &PipeReader) {
        let mut number = 0;
        while !self.stop.load(Ordering::Acquire) {
            let mut waiting = [PollFd::new(socket, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            let _ = poll(&mut waiting, None); // a signal: look again
            match socket.accept() {
                Ok((stream, _)) => {
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
    fn take(self: &Arc<Self>, stream: TcpStream, number: u64) {
        let began = Instant::now();
        let (Ok(()), Ok(other)) = (stream.set_nonblocking(false), stream.try_clone()) else { return };
        self.counts.lock().connections += 1;
        let mut open = self.open.lock();
        if open.len() >= CONNECTIONS {
            let Some(idle) = open.iter().position(|slot| !slot.asked) else {
                drop(open);
                return self.refuse(stream);
            };
            // Its thread finds the end of the stream.
            let _ = open.remove(idle).stream.shutdown(Shutdown::Both);
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
    fn refuse(&self, mut stream: TcpStream) {
        self.counts.lock().refused += 1;
        let body = "too many connections; try again\n";
        let mut bytes = http::head(Outcome::Unfit, TEXT, body.len());
        bytes.extend_from_slice(body.as_bytes());
        let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&bytes)); // it was refused already
    }

    fn serve(&self, mut stream: TcpStream, number: u64, began: Instant) {
        let mut input = Vec::new();
        let (outcome, kind, body, body_wanted) = loop {
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
                Read::More if input.len() >= LONGEST => {
                    break (Outcome::TooLarge, TEXT, Arc::from(&b"too large\n"[..]), true);
                }
                Read::More => {}
                Read::Wrong(outcome, why, body) => break (outcome, TEXT, Arc::from(why.as_bytes()), body),
                Read::Asked(asked) => {
                    if let Some(slot) = self.open.lock().iter_mut().find(|slot| slot.number == number) {
                        slot.asked = true;
                    }
                    let (outcome, kind, body) = self.answers.answer(&asked);
                    break (outcome, kind, body, !asked.head);
                }
            }
        };
        self.counts.lock().request(outcome);
        let head = http::head(outcome, kind, body.len());
        let body = if body_wanted { &*body } else { &[] };
        let end = began + READING;
        if !(self.send(&mut stream, &head, end) && self.send(&mut stream, body, end)) {
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
    fn more(&self, stream: &mut TcpStream, input: &mut Vec<u8>, end: Instant) -> Came {
        let mut bytes = [0; LONGEST];
        let room = LONGEST.saturating_sub(input.len()).max(1);
        while !self.stop.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now()).min(SLICE);
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
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
    fn send(&self, stream: &mut TcpStream, mut bytes: &[u8], end: Instant) -> bool {
        while !bytes.is_empty() && !self.stop.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now()).min(SLICE);
            if left.is_zero() || stream.set_write_timeout(Some(left)).is_err() {
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
