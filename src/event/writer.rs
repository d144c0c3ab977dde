//! The writer: an ordinary thread that empties the workers' rings, makes lines, and gives them to sinks.
//!
//! It never waits for a sink, and nobody waits for it. Records of one look are sorted by time; across looks, and between a worker's rings,
//! a record may be written a few milliseconds after a younger one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde_json::Value;

use super::eve::{Eve, Moment, Renamed};
use super::follow::Following;
use super::kind::{TYPES, Type, Types};
use super::rings::{Rings, Said};
use super::sink::{BATCH, Batch, Complaints, Queue, Sink, SinkSnapshot};
use super::vpc::FlowLog;
use crate::config::{EventsPlan, Format};
use crate::dpdk;
use crate::flow::What;
use crate::path::Clock;

/// How long the writer sleeps when there was nothing: a ring of 4096 takes 800,000 events a second meanwhile.
const NAP: Duration = Duration::from_millis(5);
/// And where there is nobody to write for, until somebody follows.
const LONG_NAP: Duration = Duration::from_millis(50);
/// Records of the management side that wait for the writer.
const TOLD: usize = 64;
/// How often it asks whether flow records are missing.
const ASK: Duration = Duration::from_secs(1);
/// How long sinks may take to write what is left when the program stops.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Makes lines of what was said.
#[derive(Debug)]
pub struct Lines {
    eve: Eve,
    log: FlowLog,
    json: Vec<u8>,
    text: String,
}

impl Lines {
    /// Lines in these names.
    pub fn new(eve: Eve, log: FlowLog) -> Self {
        Lines { eve, log, json: Vec::new(), text: String::new() }
    }

    /// Type and time of what was said.
    pub fn facts(said: &Said, now: Moment) -> (Type, SystemTime) {
        match said {
            Said::Flow(event) => {
                let kind = if event.what == What::Start { Type::FlowStart } else { Type::Flow };
                (kind, now.wall(event.at))
            }
            Said::Event(event) => (event.body.kind(), now.wall_of(event.at)),
            Said::Told(kind, _) => (*kind, std::time::UNIX_EPOCH + now.wall),
        }
    }

    /// The record as a line of JSON, with its end.
    pub fn json(&mut self, said: &Said, now: Moment) -> &[u8] {
        self.json.clear();
        line(&self.eve, said, now, &mut self.json);
        &self.json
    }

    /// The lines of AWS's flow log; none but for a flow that ended.
    pub fn flow_log(&mut self, said: &Said, now: Moment) -> &[u8] {
        self.text.clear();
        if let Said::Flow(event) = said
            && event.what != What::Start
        {
            self.eve.flow_log(&self.log, event, now, &mut self.text);
        }
        self.text.as_bytes()
    }
}

/// Writes a record as a line of JSON.
fn line(eve: &Eve, said: &Said, now: Moment, mut out: &mut Vec<u8>) {
    // Writing into a vector cannot fail, and keys are strings.
    let _ = match said {
        Said::Flow(event) => serde_json::to_writer(&mut out, &eve.flow(event, now)),
        Said::Event(event) => serde_json::to_writer(&mut out, &eve.record(event, now)),
        Said::Told(_, record) => serde_json::to_writer(&mut out, record),
    };
    out.push(b'\n');
}

/// One sink, as the writer's thread sees it.
struct Outlet {
    types: Types,
    format: Format,
    pending: Batch,
    queue: Queue,
    /// Flow records are missing since then.
    missing: Option<SystemTime>,
}

impl Outlet {
    fn add(&mut self, kind: Type, line: &[u8]) {
        self.pending.bytes.extend_from_slice(line);
        if let Some(count) = self.pending.counts.get_mut(kind as usize) {
            *count += 1;
        }
        if self.pending.bytes.len() >= BATCH {
            self.flush();
        }
    }

    /// Gives the sink what there is for it.
    fn flush(&mut self) {
        if self.pending.bytes.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.pending);
        if !self.queue.give(batch) && self.format == Format::VpcFlowLog {
            self.missing.get_or_insert_with(SystemTime::now);
        }
    }
}

/// The writer's thread.
struct Work {
    rings: Rings,
    told: Receiver<(Type, Box<Value>)>,
    lines: Lines,
    outlets: Vec<Outlet>,
    following: Arc<Following>,
    clock: Clock,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    reopen: Arc<AtomicU64>,
    lost: Box<dyn Fn() -> u64 + Send>,
    /// Flow records that were lost when it last asked, and when that was.
    known: (u64, Instant, SystemTime),
    found: Vec<(SystemTime, Type, Said)>,
    /// Names that are not in force yet.
    renamed: Arc<Mutex<Option<Renamed>>>,
}

impl Work {
    fn run(mut self) {
        loop {
            let last = self.stop.load(Ordering::Acquire);
            if self.asked.swap(false, Ordering::Relaxed) {
                self.reopen.fetch_add(1, Ordering::Release);
            }
            if let Some(names) = self.renamed.lock().take() {
                self.lines.eve.rename(names);
            }
            if self.look() {
                continue;
            }
            self.ask(last);
            self.outlets.iter_mut().for_each(Outlet::flush);
            if last {
                return;
            }
            let idle = self.outlets.is_empty() && !self.following.any();
            thread::sleep(if idle { LONG_NAP } else { NAP });
        }
    }

    /// One round over all rings. False if there was nothing in them.
    fn look(&mut self) -> bool {
        let Work { rings, found, .. } = self;
        // Read first: what is said is said at most a moment later.
        let now = Moment::now(&self.clock);
        let mut put = |said: Said| {
            let (kind, time) = Lines::facts(&said, now);
            found.push((time, kind, said));
        };
        rings.take(&mut put);
        self.told.try_iter().map(|(kind, record)| Said::Told(kind, record)).for_each(put);
        found.sort_by_key(|(time, ..)| *time);
        let any = !found.is_empty();
        for (_, kind, said) in self.found.drain(..) {
            let mut json: Option<Vec<u8>> = None;
            for outlet in self.outlets.iter_mut().filter(|outlet| outlet.types.has(kind)) {
                match outlet.format {
                    Format::Eve => {
                        let line = json.get_or_insert_with(|| self.lines.json(&said, now).to_vec());
                        outlet.add(kind, line);
                    }
                    Format::VpcFlowLog => outlet.add(kind, self.lines.flow_log(&said, now)),
                }
            }
            if self.following.wants(kind) {
                let eve = &self.lines.eve;
                let make = || {
                    let mut made = Vec::new();
                    line(eve, &said, now, &mut made);
                    made
                };
                self.following.tell(&eve.subject(&said, kind), &mut json, make);
            }
        }
        // Not only when there is nothing more: who follows a flood wants to see it.
        self.following.flush();
        any
    }

    /// Says in flow logs that records are missing.
    fn ask(&mut self, last: bool) {
        let (known, when, since) = self.known;
        if !last && when.elapsed() < ASK {
            return;
        }
        let (lost, now) = ((self.lost)(), SystemTime::now());
        self.known = (lost, Instant::now(), now);
        for outlet in self.outlets.iter_mut().filter(|outlet| outlet.format == Format::VpcFlowLog) {
            if lost > known {
                outlet.missing.get_or_insert(since);
            }
            if let Some(since) = outlet.missing.take() {
                let mut line = String::new();
                self.lines.log.skipped(since, now, &mut line);
                outlet.pending.bytes.extend_from_slice(line.as_bytes());
            }
        }
    }
}

/// What a writer is made of.
pub struct Parts {
    /// The workers' rings.
    pub rings: Rings,
    /// What makes lines.
    pub lines: Lines,
    /// The workers' clock.
    pub clock: Clock,
    /// CPUs that workers do not use; empty if there are none to be had.
    pub cpus: Vec<u32>,
    /// Set it, and files are opened anew.
    pub reopen: Arc<AtomicBool>,
    /// How many flow records workers have lost.
    pub lost: Box<dyn Fn() -> u64 + Send>,
    /// Who else gets lines.
    pub following: Arc<Following>,
}

/// The writer and its sinks at work.
#[derive(Debug)]
pub struct Writer {
    thread: thread::JoinHandle<()>,
    sinks: Vec<Sink>,
    told: Sender<(Type, Box<Value>)>,
    stop: Arc<AtomicBool>,
    complaints: Complaints,
    renamed: Arc<Mutex<Option<Renamed>>>,
}

impl Writer {
    /// Opens the sinks of a plan and starts to write.
    pub fn start(plan: &EventsPlan, parts: Parts) -> io::Result<Self> {
        let Parts { rings, lines, clock, cpus, reopen: asked, lost, following } = parts;
        let (complaints, reopen) = (Complaints::default(), Arc::<AtomicU64>::default());
        let (mut sinks, mut outlets) = (Vec::new(), Vec::new());
        for sink in &plan.sinks {
            let (running, queue) =
                Sink::start(sink, reopen.clone(), complaints.clone(), &cpus).map_err(|error| {
                    io::Error::new(error.kind(), format!("event sink {}: {error}", sink.name))
                })?;
            sinks.push(running);
            let (types, format) = (sink.types, sink.format);
            outlets.push(Outlet { types, format, pending: Batch::default(), queue, missing: None });
        }
        let (told, records) = bounded(TOLD);
        let (stop, renamed) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Option<Renamed>>>::default());
        let work = Work {
            rings,
            told: records,
            lines,
            outlets,
            following,
            clock,
            stop: stop.clone(),
            asked,
            reopen,
            lost,
            known: (0, Instant::now(), SystemTime::now()),
            found: Vec::new(),
            renamed: renamed.clone(),
        };
        let thread = thread::Builder::new().name("events".into()).spawn(move || {
            // Where workers have all CPUs, the writer takes its turn as any thread does.
            dpdk::run_on(&cpus);
            work.run();
        })?;
        Ok(Writer { thread, sinks, told, stop, complaints, renamed })
    }

    /// Records have these names from now on.
    pub(crate) fn rename(&self, names: Renamed) {
        *self.renamed.lock() = Some(names);
    }

    /// A record of the management side's. False if so many are still waiting that this one is lost.
    pub fn tell(&self, kind: Type, record: Value) -> bool {
        self.told.try_send((kind, Box::new(record))).is_ok()
    }

    /// What sinks did until now.
    pub fn snapshot(&self) -> Vec<SinkSnapshot> {
        self.sinks.iter().map(Sink::snapshot).collect()
    }

    /// What went wrong since the last call, one sentence each.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.take()
    }

    /// Writes what is left, as far as sinks take it within two seconds. The workers must have stopped.
    pub fn finish(self) -> (Vec<SinkSnapshot>, Vec<String>) {
        self.stop.store(true, Ordering::Release);
        let panicked = self.thread.join().is_err();
        let deadline = Instant::now() + LAST_WAIT;
        let done = self.sinks.into_iter().map(|sink| sink.finish(deadline)).collect();
        let mut said = self.complaints.take();
        if panicked {
            said.push("the event writer panicked; records are missing".into());
        }
        (done, said)
    }
}

/// Of all types, for those who sum.
pub(crate) fn by_type(counts: &[u64; TYPES]) -> impl Iterator<Item = (Type, u64)> + '_ {
    Type::ALL.iter().copied().zip(counts.iter().copied())
}

#[cfg(test)]
mod tests;
