//! `sluicegate replay`: a capture through a pipeline, one frame a poll, the clock from the capture.
//!
//! The same plan, stages and hops as `run`, on soft ports and without an EAL: the same answer every time and everywhere. Frames
//! that are not in an envelope are wrapped as a load balancer would wrap them.

mod events;
mod flows;
mod golden;
pub mod trace;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::flows::Row;
use super::show::say;
use super::{ConfigArgs, FAILED, Failure, OK, Outcome, show};
use crate::app::{Report, Snapshot};
use crate::config::{Idle, Plan, Tunnel};
use crate::dpdk::soft::pcap::{self, Link};
use crate::dpdk::soft::{self, Setup};
use crate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use crate::flow::{FlowEvent, FlowsShared, Seed};
use crate::packet::ReasonTable;
use crate::path::{Clock, Decap, Lane, Pipeline, Respond, Track, Worker, WorkerCounters, WorkerSnapshot};
use crate::stage::{Backend, WorkerId};
use crate::traffic::{self, Envelope};

/// More flow events than one poll can make: two for its packet, one for each flow that it ages or flushes.
const RING: usize = 1024;

/// Send a capture through a pipeline.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    config: ConfigArgs,
    /// The capture to read: pcap or pcapng, Ethernet or raw IP
    #[arg(long = "in", value_name = "CAPTURE")]
    input: PathBuf,
    /// Where to write what goes home (pcap)
    #[arg(long = "out", value_name = "CAPTURE")]
    output: Option<PathBuf>,
    /// Which frames to put into a GENEVE envelope first
    #[arg(long, value_enum, default_value_t = Wrap::Auto)]
    wrap: Wrap,
    /// Compare the outcome with this file; exit code 1 and a diff if it differs
    #[arg(long, value_name = "JSON")]
    golden: Option<PathBuf>,
    /// Write the outcome to the golden file instead of comparing
    #[arg(long, requires = "golden")]
    update: bool,
    /// Show (and record in the golden file) the verdict of every single packet
    #[arg(long)]
    packets: bool,
    /// Show (and record in the golden file) all flows, those that ended on the way included
    #[arg(long)]
    flows: bool,
    /// Write what the pipeline tells as records in the shape of Suricata's EVE log, whatever sinks the configuration names
    #[arg(long, value_name = "JSONL")]
    events: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wrap {
    /// IP packets that do not go to the tunnel port
    Auto,
    /// Every IP packet, tunnel or not
    Always,
    /// None: the capture was taken at the appliance
    Never,
}

/// What became of one packet of the capture.
struct Fate {
    number: u64,
    wrapped: bool,
    verdict: String,
}

impl Replay {
    pub(super) fn run(self) -> Outcome {
        let plan = self.config.plan(false)?;
        self.keep_apart()?;
        show::warnings(&plan.warnings);
        if self.flows && !plan.flow.tracking {
            show::warnings([
                "--flows: no flow is followed; set flow.tracking=true, or use a stage that asks for flows",
            ]);
        }
        let mut bench = Bench::new(plan, &self)?;
        let fates = self.feed(&mut bench)?;
        let seen = bench.flows.take().map(flows::Seen::finish);
        let report = bench.finish()?;
        let outcome = golden::outcome(&report, self.packets.then_some(fates.as_slice()), seen.as_deref());
        if self.json {
            show::print(format_args!("{outcome}\n"))?;
        } else {
            self.print(&report, &fates, seen.as_deref())?;
        }
        let Some(file) = &self.golden else {
            return Ok(if report.is_clean() { OK } else { FAILED });
        };
        if self.update {
            golden::write(file, &outcome)?;
            return Ok(OK);
        }
        match golden::diff(file, &outcome)? {
            None => Ok(OK),
            Some(diff) => {
                show::error(format_args!("the outcome differs from {}:\n{diff}", file.display()));
                Ok(FAILED)
            }
        }
    }

    /// What is written must not be what is read: opening it for writing would empty it.
    fn keep_apart(&self) -> Result<(), Failure> {
        let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).ok();
        let same = |a: &Path, b: &Path| id(a).is_some_and(|a| id(b) == Some(a));
        let clash = |option: &str, written: &Path, read: &Path| {
            let (written, read) = (written.display(), read.display());
            Failure::Other(format!("{option} {written} would overwrite {read}; name another file"))
        };
        let golden = self.golden.as_deref().filter(|_| self.update);
        for (option, written) in
            [("--out", self.output.as_deref()), ("--golden", golden), ("--events", self.events.as_deref())]
        {
            let Some(written) = written else { continue };
            for read in [&self.input, &self.config.file] {
                if same(written, read) {
                    return Err(clash(option, written, read));
                }
            }
        }
        Ok(())
    }

    fn feed(&self, bench: &mut Bench) -> Result<Vec<Fate>, Failure> {
        let mut fates = Vec::new();
        let mut number = 0;
        loop {
            let mut wrapped = false;
            let prepare = |frame: &pcap::Frame<'_>, put: &mut Vec<u8>| {
                let envelope = self.envelope(frame, &bench.envelope);
                wrapped = envelope.is_some();
                put.extend_from_slice(envelope.as_deref().unwrap_or(frame.bytes));
                true
            };
            let Some(now) = bench.capture.step(prepare).map_err(unreadable)? else { return Ok(fates) };
            number += 1;
            let verdict = bench.packet(now)?;
            if self.packets {
                fates.push(Fate { number, wrapped, verdict });
            }
        }
    }

    /// The frame in an envelope, if it should get one and can.
    fn envelope(&self, frame: &pcap::Frame<'_>, envelope: &Envelope) -> Option<Vec<u8>> {
        let inner = match (self.wrap, frame.link) {
            (Wrap::Never, _) => return None,
            (Wrap::Auto, Link::Ethernet) if traffic::is_tunnel(frame.bytes, envelope.port) => return None,
            (_, Link::Ethernet) => traffic::inner_packet(frame.bytes)?,
            (_, Link::RawIp) => frame.bytes,
        };
        traffic::wrap(inner, envelope)
    }

    fn print(&self, report: &Report, fates: &[Fate], seen: Option<&[Row]>) -> Result<(), Failure> {
        if self.packets {
            let mut table = show::table(&["packet", "", "verdict"]);
            show::align_right(&mut table, &[0]);
            for fate in fates {
                let wrapped = if fate.wrapped { "wrapped" } else { "" };
                table.add_row([&fate.number.to_string(), wrapped, &fate.verdict]);
            }
            say!("{table}");
        }
        if let Some(rows) = seen.filter(|rows| !rows.is_empty()) {
            super::flows::list(rows);
        }
        show::stages(report);
        rules(report);
        show::drops(report);
        super::flows::account(&report.snapshot);
        show::print(format_args!("ledger: {}\n", report.snapshot.ledger()))
    }
}

/// Counters of the stages' own: rules that were hit.
fn rules(report: &Report) {
    let mut table = show::table(&["stage", "rule", "hits"]);
    show::align_right(&mut table, &[2]);
    let mut any = false;
    for (name, counts) in report.names.iter().zip(&report.snapshot.stages) {
        for (label, n) in counts.iter().filter(|(_, n)| *n > 0) {
            any = true;
            table.add_row([name.as_str(), label, &show::grouped(*n)]);
        }
    }
    if any {
        say!("{table}");
    }
}

/// One worker on a soft port between two captures, polled by hand.
struct Bench {
    worker: Worker,
    capture: soft::Replay<BufReader<File>, Box<dyn Write>>,
    port: RunningPort,
    pool: Mempool,
    pipeline: Pipeline,
    hand: Arc<AtomicU64>,
    counters: Arc<WorkerCounters>,
    before: WorkerSnapshot,
    plan: Plan,
    envelope: Envelope,
    said: Option<rtrb::Consumer<FlowEvent>>,
    flows: Option<flows::Seen>,
    told: Option<events::Told>,
    now: u64,
}

impl Bench {
    fn new(plan: Plan, asked: &Replay) -> Result<Self, Failure> {
        let pipeline = Pipeline::build(&plan, Backend::Soft)?;
        let pool = Mempool::soft(&PoolConfig {
            name: "replay".into(),
            buffers: 256 + plan.flow.fragments.hold + plan.stream.hold,
            // Captures may hold frames that offloads have merged: up to the largest IP packet.
            data_room: u16::MAX - 128,
            cache: 0,
            numa: None,
        });
        let input = pcap::Reader::open(&asked.input).map_err(unreadable)?;
        let output = writer(asked.output.as_deref())?;
        let (port, capture) = soft::Port::from_pcap(Setup::default(), input, output);
        let (port, queues) =
            port.start(&PortConfig { mtu: u16::MAX - 256, ..PortConfig::default() }, &pool)?;
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, plan.stages.len()));
        let (clock, hand) = Clock::manual();
        // The same seed each time: a replay is deterministic.
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(0));
        let track = shared.map(|shared| Track::of(&plan, &shared, None, &counters));
        let mut worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel.clone()),
            pipeline.make(WorkerId(0)),
            1,
            Idle::Spin,
            clock.clone(),
            counters.clone(),
        )
        .with_flows(track)
        .with_answers(Respond::of(&plan, &pool));
        let mut told = None;
        if let Some(path) = &asked.events {
            let (file, emitter) = events::Told::new(&plan, &pipeline, path, counters.events.clone())?;
            worker = worker.with_events(emitter);
            told = Some(file);
        }
        let listens = asked.flows || told.is_some();
        let said = worker.flows().filter(|_| listens).map(|flows| flows.listen(RING));
        let flows = worker.flows().filter(|_| asked.flows).map(|flows| flows::Seen::new(&plan, flows, clock));
        let (before, envelope) = (counters.snapshot(), envelope(&plan.tunnel));
        Ok(Bench {
            worker,
            capture,
            port,
            pool,
            pipeline,
            hand,
            counters,
            before,
            plan,
            envelope,
            said,
            flows,
            told,
            now: 0,
        })
    }

    /// Sends the frame that is on the wire through all hops and says what became of it.
    fn packet(&mut self, now: u64) -> Result<String, Failure> {
        self.hand.store(now, Ordering::Relaxed);
        self.worker.poll();
        self.now = now;
        self.listen();
        self.capture.collect().map_err(unreadable)?;
        let after = self.counters.snapshot();
        let verdict = verdict(&self.before, &after, &self.plan.reasons);
        self.before = after;
        Ok(verdict)
    }

    /// Reads what the last poll said.
    fn listen(&mut self) {
        let Bench { said, flows, told, now, .. } = self;
        if let Some(told) = told {
            told.collect(*now);
        }
        for event in said.iter_mut().flat_map(|said| std::iter::from_fn(|| said.pop().ok())) {
            flows.as_mut().into_iter().for_each(|flows| flows.hear(&event));
            told.as_mut().into_iter().for_each(|told| told.flow(event, *now));
        }
    }

    /// Writes what is left and accounts for everything.
    fn finish(mut self) -> Result<Report, Failure> {
        self.worker.finish(); // what waits goes
        self.listen();
        self.capture.collect().map_err(unreadable)?;
        self.capture.finish().map_err(unreadable)?;
        let snapshot = Snapshot {
            elapsed: Duration::ZERO,
            workers: vec![self.counters.snapshot()],
            ports: Vec::new(),
            stages: self.pipeline.stages().map(|(_, shared)| shared.counts()).collect(),
        };
        if let Some(mut told) = self.told.take() {
            // For the records; counters are those of a capture that goes on.
            if let (Some(flows), Some(said)) = (self.worker.flows(), &mut self.said) {
                flows.end_each(|| {
                    while let Ok(event) = said.pop() {
                        told.flow(event, self.now);
                    }
                });
            }
            told.finish(&self.plan, &snapshot)?;
        }
        let lanes = self.worker.into_lanes().into_iter().map(|Lane(pair)| pair).collect();
        let failures = self.port.stop(lanes).err().map(|e| e.error.to_string()).into_iter().collect();
        let buffers_out = self.pool.capacity() - self.pool.available();
        Ok(Report {
            snapshot,
            xstats: Vec::new(),
            failures,
            buffers_out,
            names: self.plan.stages.iter().map(|stage| stage.name.clone()).collect(),
            reasons: self.plan.reasons,
            sinks: Vec::new(),
            complaints: Vec::new(),
        })
    }
}

/// Where frames go home to: a capture, or nowhere.
fn writer(output: Option<&Path>) -> Result<pcap::Writer<Box<dyn Write>>, Failure> {
    let Some(path) = output else {
        return pcap::Writer::new("nowhere", Box::new(std::io::sink()) as Box<dyn Write>).map_err(unreadable);
    };
    let file = File::create(path).map_err(|e| Failure::Other(format!("{}: {e}", path.display())))?;
    let file = Box::new(BufWriter::new(file)) as Box<dyn Write>;
    pcap::Writer::new(path.display().to_string(), file).map_err(unreadable)
}

/// An envelope that the plan accepts: its profile, its port, one of its sources, one of its addresses.
fn envelope(tunnel: &Tunnel) -> Envelope {
    let usual = Envelope::default();
    let node = tunnel.allowed_sources.first().and_then(|net| net.hosts().next()).unwrap_or(usual.node);
    let appliance = tunnel.addresses.first().copied().unwrap_or(usual.appliance);
    Envelope { node, appliance, port: tunnel.port, profile: tunnel.profile, ..usual }
}

fn unreadable(error: pcap::Error) -> Failure {
    Failure::Other(error.to_string())
}

/// The difference that one packet made.
fn verdict(before: &WorkerSnapshot, after: &WorkerSnapshot, reasons: &ReasonTable) -> String {
    if after.held_for_stages > before.held_for_stages {
        return "held".into();
    }
    if after.sent - after.answers.made() > before.sent - before.answers.made() {
        return "home".into();
    }
    if after.punted > before.punted {
        return "punted".into();
    }
    if after.held > before.held {
        return "held".into();
    }
    let dropped = reasons.iter().zip(before.drops.iter().zip(&after.drops)).find(|(_, (b, a))| a > b);
    dropped.map_or("lost before the path".into(), |((_, label, _), _)| format!("dropped: {label}"))
}
