//! Commands on a unix socket: one line of JSON asks, one line answers.
//!
//! ```text
//! {"version":1,"command":"reload"}
//! {"version":1,"ok":true,"outcome":"done","stages":{...},...}
//! {"version":1,"ok":false,"error":"busy","text":"a reload is under way"}
//! ```
//!
//! A thread for each connection, at most eight of them, so that no client can hold up the management side or another client; what is asked goes to the
//! management loop through a bounded channel. Only the user whom the program runs as, and root, are answered: the socket's mode is 0600, and the
//! kernel is asked who it is that connects. A request has at most [`LONGEST`] bytes and three seconds to arrive.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::Reloaded;
use crate::config::ControlSocket;
use crate::dpdk::{self, Error};

/// The version that requests and answers have.
pub const VERSION: u32 = 1;
/// Bytes of a request.
pub const LONGEST: usize = 4096;
const CONNECTIONS: usize = 8;
/// For a request to arrive, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a command may take: tens of thousands of rules take a while to build.
const LONGEST_COMMAND: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read: thousands of mistakes in a rule file.
const MOST_ANSWERED: u64 = 64 << 20;
/// From one look for connections to the next.
const NAP: Duration = Duration::from_millis(20);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Load the configuration anew.
    Reload,
    /// Load a candidate beside it.
    Shadow {
        /// Its file, from the root of the file system.
        file: PathBuf,
    },
    /// What has the candidate come to?
    ShadowStatus,
    /// Put the candidate in force.
    Promote,
    /// Let the candidate go.
    CancelShadow,
    /// What `doctor` wants to know of ports and queues.
    Facts,
}

/// What is answered to a command that was obeyed.
#[derive(Debug)]
enum Answer {
    Reloaded(Reloaded),
    Facts(Value),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    version: u32,
    command: Command,
}

/// Why a request is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word for programs.
    pub error: &'static str,
    /// One sentence for people.
    pub text: String,
}

impl Refusal {
    fn new(error: &'static str, text: impl Into<String>) -> Self {
        Refusal { error, text: text.into() }
    }

    fn to_json(&self) -> Value {
        json!({ "version": VERSION, "ok": false, "error": self.error, "text": self.text })
    }
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<Command, Refusal> {
    if line.len() > LONGEST {
        return Err(Refusal::new("too-long", format!("a request has at most {LONGEST} bytes")));
    }
    let refused = |error: serde_json::Error| Refusal::new("bad-request", format!("not a request: {error}"));
    // The version first: what another one looks like is not known.
    let value: Value = serde_json::from_slice(line).map_err(refused)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(other) => {
            return Err(Refusal::new("version", format!("version {other} is not spoken here; {VERSION} is")));
        }
        None => return Err(Refusal::new("bad-request", "\"version\" is missing")),
    }
    serde_json::from_value::<Request>(value).map(|request| request.command).map_err(refused)
}

/// A request as a client writes it, with its line end.
pub fn request(command: Command) -> String {
    let request = serde_json::to_string(&Request { version: VERSION, command });
    request.unwrap_or_default() + "\n" // plain data: it cannot fail
}

/// What became of a command, as it is answered.
pub fn answer(outcome: &Result<Reloaded, Refusal>) -> Value {
    match outcome {
        Err(refusal) => refusal.to_json(),
        Ok(reloaded) => {
            let mut answer = serde_json::to_value(reloaded).unwrap_or_default(); // likewise
            if let Some(fields) = answer.as_object_mut() {
                fields.insert("version".into(), VERSION.into());
                fields.insert("ok".into(), reloaded.is_good().into());
                fields.insert("lines".into(), reloaded.lines().into());
            }
            answer
        }
    }
}

fn reply(outcome: Result<Answer, Refusal>) -> Value {
    match outcome {
        Ok(Answer::Reloaded(reloaded)) => answer(&Ok(reloaded)),
        Ok(Answer::Facts(facts)) => json!({ "version": VERSION, "ok": true, "facts": facts }),
        Err(refusal) => refusal.to_json(),
    }
}

/// A command that waits for what becomes of it.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub command: Command,
    /// By whom: the user and the process at the other end.
    pub by: String,
    answer: Sender<Result<Answer, Refusal>>,
}

impl Asked {
    /// Says what became of it.
    pub fn answer(self, outcome: Result<Reloaded, Refusal>) {
        let _ = self.answer.try_send(outcome.map(Answer::Reloaded)); // whoever asked may be gone
    }

    /// Gives the facts.
    pub fn tell(self, facts: Value) {
        let _ = self.answer.try_send(Ok(Answer::Facts(facts))); // likewise
    }

    /// Something else is under way.
    pub fn is_busy(self, text: String) {
        self.answer(Err(Refusal::new("busy", text)));
    }

    /// There is nothing of that kind.
    pub fn is_absent(self, text: &str) {
        self.answer(Err(Refusal::new("none", text)));
    }
}

/// The socket at work.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    asked: Receiver<Asked>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Opens the socket of a plan. An error where nobody said where it should be is a note: there are no commands then.
    pub fn open(plan: &ControlSocket, cpus: &[u32]) -> Result<Option<Self>, Result<Error, String>> {
        match plan {
            ControlSocket::Off => Ok(None),
            ControlSocket::At(path) => Control::at(path, cpus).map(Some).map_err(|error| {
                Ok(Error::refused(
                    format!("management.socket = {}: {error}", path.display()),
                    "choose another path, or write \"off\"",
                ))
            }),
            ControlSocket::Usual(path) => {
                if let Some(folder) = path.parent() {
                    let _ = fs::create_dir(folder); // if it cannot be, the next step says so
                }
                let note = |error| Err(format!("no commands: {}: {error}", path.display()));
                Control::at(path, cpus).map(Some).map_err(note)
            }
        }
    }

    fn at(path: &Path, cpus: &[u32]) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        // Whoever connects before this is asked who he is all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let (ask, asked) = bounded(CONNECTIONS);
        let stop = Arc::<AtomicBool>::default();
        let (stopped, cpus) = (stop.clone(), cpus.to_vec());
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            dpdk::run_on(&cpus);
            listen(&listener, &ask, &stopped);
        })?;
        Ok(Control { path: path.to_owned(), asked, stop, thread: Some(thread) })
    }

    /// The next command, if there is one.
    pub fn asked(&self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it holds nothing
        }
        let _ = fs::remove_file(&self.path); // somebody may have done so
    }
}

/// A socket on which nobody listens any more makes room. Anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let taken = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    if !metadata.file_type().is_socket() {
        return Err(taken("there is a file of that name"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(taken("another instance listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn listen(listener: &UnixListener, ask: &Sender<Asked>, stop: &Arc<AtomicBool>) {
    let open = Arc::<AtomicUsize>::default();
    while !stop.load(Ordering::Acquire) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(NAP);
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS {
            refuse(&stream, &Refusal::new("busy", "there are too many connections"));
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (ask, mine) = (ask.clone(), open.clone());
        let serve = move || {
            serve(&stream, &ask);
            mine.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("control".into()).spawn(serve).is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn refuse(stream: &UnixStream, refusal: &Refusal) {
    let _ = stream.set_nonblocking(true);
    let _ = writeln!(&*stream, "{}", refusal.to_json()); // whoever does not read, does not know
}

/// One connection: one request.
fn serve(stream: &UnixStream, ask: &Sender<Asked>) {
    let prepared = stream.set_nonblocking(false).and_then(|()| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))
    });
    if prepared.is_err() {
        return;
    }
    let outcome = may_ask(stream).and_then(|by| Ok((read(stream)?, by))).and_then(|(command, by)| {
        let (answer, answered) = bounded(1);
        let busy = |_| Refusal::new("busy", "too much is asked at once");
        ask.try_send(Asked { command, by, answer }).map_err(busy)?;
        let late = |_| Refusal::new("late", "no answer; the log of the program may know more");
        answered.recv_timeout(LONGEST_COMMAND).map_err(late)?
    });
    let _ = writeln!(&*stream, "{}", reply(outcome)); // the client may be gone
}

/// Who is it?
fn may_ask(stream: &UnixStream) -> Result<String, Refusal> {
    let own = rustix::process::geteuid();
    let peer = rustix::net::sockopt::socket_peercred(stream);
    match peer {
        Ok(peer) if peer.uid == own || peer.uid.is_root() => {
            Ok(format!("socket, uid {}, pid {}", peer.uid.as_raw(), peer.pid.as_raw_nonzero()))
        }
        Ok(_) => Err(Refusal::new("not-allowed", "only root and the user of the program may ask")),
        Err(error) => Err(Refusal::new("not-allowed", format!("nobody knows who asks: {error}"))),
    }
}

/// One line, as long as it may be and as late as it may come.
fn read(stream: &UnixStream) -> Result<Command, Refusal> {
    let begun = std::time::Instant::now();
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(512, stream.take(LONGEST as u64 + 1));
    loop {
        let bad = |error: io::Error| Refusal::new("bad-request", format!("no request came: {error}"));
        let part = reader.fill_buf().map_err(bad)?;
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(part.len(), |end| end + 1);
        line.extend_from_slice(part.get(..end.unwrap_or(taken)).unwrap_or(&[]));
        reader.consume(taken);
        if end.is_some() || taken == 0 || line.len() > LONGEST {
            return parse(&line);
        }
        if begun.elapsed() > PATIENCE {
            return Err(Refusal::new("bad-request", "the request takes too long"));
        }
    }
}

/// Asks a program, and returns its answer.
pub fn ask(path: &Path, command: Command) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(LONGEST_COMMAND + PATIENCE))?;
    stream.write_all(request(command).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST_ANSWERED)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// One case of the fuzz target `mgmt_control`: any bytes are a command or a refusal that can be said in one line.
#[doc(hidden)]
pub fn arbitrary_input(bytes: &[u8]) {
    match parse(bytes) {
        Ok(command) => {
            assert!(bytes.len() <= LONGEST);
            assert_eq!(parse(request(command.clone()).trim_end().as_bytes()), Ok(command));
        }
        Err(refusal) => {
            let said = answer(&Err(refusal)).to_string();
            assert!(said.starts_with('{') && !said.contains('\n') && said.len() < 2 * LONGEST, "{said}");
        }
    }
}

#[cfg(test)]
mod tests;
