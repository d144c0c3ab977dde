//! Where lines go: a thread for each sink, with a bounded queue in front of it.
//!
//! Nothing that happens to a sink ends it or the program: a full disk, a file that cannot be opened, a peer that goes away. Lines that
//! could not be written are counted by type, and what went wrong is said once in a while ([`Complaints`]). Lines are never torn: a file
//! is cut back to the last whole line, a connection is given up.

mod file;
mod socket;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::kind::{TYPES, Type};
use crate::config::{SinkPlan, To};
use crate::dpdk;
use file::LogFile;
use socket::Socket;

/// Batches that wait for a sink.
const QUEUE: usize = 32;
/// Bytes of a batch; one line may go beyond.
pub(super) const BATCH: usize = 64 << 10;
/// A sink looks whether its file is to be reopened or rotated as often as this.
const LOOK: Duration = Duration::from_millis(100);
/// The same trouble of a sink is said again after so long.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Things said that wait to be read.
const MOST_SAID: usize = 64;

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    /// How many of them are of which type.
    pub counts: [u32; TYPES],
}

/// What one sink did; written by its thread and the writer's.
#[derive(Debug, Default)]
struct Counts {
    written: [AtomicU64; TYPES],
    lost: [AtomicU64; TYPES],
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// What one sink did until now.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SinkSnapshot {
    /// Its name.
    pub name: String,
    /// Records written, by type.
    pub written: [u64; TYPES],
    /// Records that it was to have and did not get or could not write, by type.
    pub lost: [u64; TYPES],
    /// Bytes written.
    pub bytes: u64,
    /// Times that something went wrong.
    pub errors: u64,
}

impl SinkSnapshot {
    /// Records lost, of all types.
    pub fn all_lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Records of one type that were written.
    pub fn written_of(&self, kind: Type) -> u64 {
        self.written.get(kind as usize).copied().unwrap_or(0)
    }
}

impl Counts {
    fn add(to: &[AtomicU64; TYPES], counts: &[u32; TYPES]) {
        for (total, n) in to.iter().zip(counts) {
            total.fetch_add((*n).into(), Ordering::Relaxed);
        }
    }

    fn snapshot(&self, name: &str) -> SinkSnapshot {
        let values = |counts: &[AtomicU64; TYPES]| counts.each_ref().map(|n| n.load(Ordering::Relaxed));
        SinkSnapshot {
            name: name.to_owned(),
            written: values(&self.written),
            lost: values(&self.lost),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

/// What sinks have to say to a person.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Arc<Mutex<Vec<String>>>);

impl Complaints {
    fn say(&self, text: String) {
        let mut said = self.0.lock();
        if said.len() < MOST_SAID {
            said.push(text);
        }
    }

    /// What was said since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A sink at work, as the writer sees it.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    counts: Arc<Counts>,
    waiting: Receiver<Batch>,
    thread: thread::JoinHandle<()>,
}

/// The writer's end of a sink's queue.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Batch>,
    counts: Arc<Counts>,
}

impl Queue {
    /// Gives a batch to the sink, or counts it as lost. False if it was lost.
    pub fn give(&self, batch: Batch) -> bool {
        match self.sender.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                Counts::add(&self.counts.lost, &batch.counts);
                false
            }
        }
    }
}

impl Sink {
    /// Opens a sink and starts its thread. `reopen` counts how often files are to be opened anew.
    pub fn start(
        plan: &SinkPlan,
        reopen: Arc<AtomicU64>,
        complaints: Complaints,
        cpus: &[u32],
    ) -> io::Result<(Sink, Queue)> {
        let out = Out::open(&plan.to)?;
        let (sender, waiting) = bounded(QUEUE);
        let counts = Arc::<Counts>::default();
        let seen = reopen.load(Ordering::Relaxed);
        let work = Work {
            name: plan.name.clone(),
            out,
            counts: counts.clone(),
            complaints,
            reopen,
            seen,
            said: None,
            unsaid: 0,
        };
        let (queue, cpus) = (waiting.clone(), cpus.to_vec());
        let thread = thread::Builder::new().name(format!("ev-{}", plan.name)).spawn(move || {
            dpdk::run_on(&cpus);
            work.run(&queue);
        })?;
        let sink = Sink { name: plan.name.clone(), counts: counts.clone(), waiting, thread };
        Ok((sink, Queue { sender, counts }))
    }

    /// What it did until now.
    pub fn snapshot(&self) -> SinkSnapshot {
        self.counts.snapshot(&self.name)
    }

    /// Waits for the thread to write what is in its queue, whose other end is gone. Who hangs is left behind, and what
    /// waits for it is lost.
    pub fn finish(self, deadline: Instant) -> SinkSnapshot {
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if self.thread.is_finished() {
            let _ = self.thread.join();
        } else {
            for batch in self.waiting.try_iter() {
                Counts::add(&self.counts.lost, &batch.counts);
            }
        }
        self.counts.snapshot(&self.name)
    }
}

/// What is written to.
#[derive(Debug)]
enum Out {
    File(LogFile),
    Stdout(std::fs::File),
    Socket(Socket),
}

impl Out {
    fn open(to: &To) -> io::Result<Self> {
        Ok(match to {
            To::File { path, rotation } => Out::File(LogFile::open(path, *rotation)?),
            // A descriptor of our own: who prints must not wait for the lock of a sink that hangs.
            To::Stdout => Out::Stdout(io::stdout().as_fd().try_clone_to_owned()?.into()),
            To::Unix { path } => Out::Socket(Socket::new(path)),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Out::File(file) => file.write(bytes),
            Out::Stdout(file) => file.write_all(bytes),
            Out::Socket(socket) => socket.write(bytes),
        }
    }

    /// What is due without a line to write.
    fn idle(&mut self) -> io::Result<()> {
        match self {
            Out::File(file) => file.rotate_by_age(),
            _ => Ok(()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match self {
            Out::File(file) => file.reopen(),
            _ => Ok(()),
        }
    }
}

/// A sink's thread.
struct Work {
    name: String,
    out: Out,
    counts: Arc<Counts>,
    complaints: Complaints,
    reopen: Arc<AtomicU64>,
    seen: u64,
    /// When trouble was last said, and how often there was more since.
    said: Option<Instant>,
    unsaid: u64,
}

impl Work {
    fn run(mut self, queue: &Receiver<Batch>) {
        loop {
            let next = queue.recv_timeout(LOOK);
            let wanted = self.reopen.load(Ordering::Acquire);
            if wanted != self.seen {
                self.seen = wanted;
                let done = self.out.reopen();
                self.check(done);
            }
            match next {
                Ok(batch) => match self.out.write(&batch.bytes) {
                    Ok(()) => {
                        Counts::add(&self.counts.written, &batch.counts);
                        self.counts.bytes.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
                    }
                    failed => {
                        Counts::add(&self.counts.lost, &batch.counts);
                        self.check(failed);
                    }
                },
                Err(RecvTimeoutError::Timeout) => {
                    let done = self.out.idle();
                    self.check(done);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn check(&mut self, done: io::Result<()>) {
        let Err(error) = done else { return };
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        if self.said.is_some_and(|said| said.elapsed() < SAID_AGAIN) {
            self.unsaid += 1;
            return;
        }
        let more = match std::mem::take(&mut self.unsaid) {
            0 => String::new(),
            n => format!(", and {n} times more in the last while"),
        };
        self.said = Some(Instant::now());
        self.complaints
            .say(format!("event sink {}: {error}{more}; what it could not write is counted", self.name));
    }
}
