//! `sluicegate replay`: a capture through a pipeline, one frame a poll, the clock from the capture.
//!
//! The same plan, stages and hops as `run`, on soft ports and without an EAL: the same answer every time and everywhere. Frames
//! that are not in an envelope are wrapped as a load balancer would wrap them.

mod golden;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, ValueEnum};

use super::{ConfigArgs, FAILED, Failure, OK, Outcome, show};
use crate::app::Report;
use crate::config::{Idle, Plan};
use crate::dpdk::soft::{self, Wire, pcap};
use crate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use crate::packet::ReasonTable;
use crate::path::{Clock, Decap, Lane, Pipeline, Worker, WorkerCounters, WorkerSnapshot};
use crate::stage::{Backend, WorkerId};
use crate::traffic;

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
        show::warnings(&plan.warnings);
        let mut bench = Bench::new(plan)?;
        let fates = self.feed(&mut bench)?;
        let report = bench.report();
        let outcome = golden::outcome(&report, self.packets.then_some(fates.as_slice()));
        if self.json {
            anstream::println!("{outcome}");
        } else {
            self.print(&report, &fates);
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

    fn feed(&self, bench: &mut Bench) -> Result<Vec<Fate>, Failure> {
        let fail = |e: pcap::Error| Failure::Other(e.to_string());
        let mut reader = pcap::Reader::open(&self.input).map_err(fail)?;
        let mut writer = self.output.as_deref().map(pcap::Writer::create).transpose().map_err(fail)?;
        let mut fates = Vec::new();
        let mut number = 0;
        while let Some(frame) = reader.next().map_err(fail)? {
            number += 1;
            let wrapped = self.wrapped(&frame);
            let verdict = bench.packet(frame.time, wrapped.as_deref().unwrap_or(frame.bytes));
            if self.packets {
                fates.push(Fate { number, wrapped: wrapped.is_some(), verdict });
            }
            while let Some(home) = bench.wire.receive() {
                if let Some(writer) = &mut writer {
                    writer.write(frame.time, &home).map_err(fail)?;
                }
            }
        }
        if let Some(writer) = writer {
            writer.finish().map_err(fail)?;
        }
        Ok(fates)
    }

    /// The frame in an envelope, if it should get one and can.
    fn wrapped(&self, frame: &pcap::Frame<'_>) -> Option<Vec<u8>> {
        let inner = match (self.wrap, frame.link) {
            (Wrap::Never, _) => return None,
            (Wrap::Auto, pcap::Link::Ethernet) if traffic::is_tunnel(frame.bytes) => return None,
            (_, pcap::Link::Ethernet) => traffic::inner_packet(frame.bytes)?,
            (_, pcap::Link::RawIp) => frame.bytes,
        };
        traffic::wrap(inner, &traffic::Envelope::default())
    }

    fn print(&self, report: &Report, fates: &[Fate]) {
        if self.packets {
            let mut table = show::table(&["packet", "", "verdict"]);
            show::align_right(&mut table, &[0]);
            for fate in fates {
                let wrapped = if fate.wrapped { "wrapped" } else { "" };
                table.add_row([&fate.number.to_string(), wrapped, &fate.verdict]);
            }
            anstream::println!("{table}");
        }
        show::stages(report);
        rules(report);
        show::drops(report);
        anstream::println!("ledger: {}", report.snapshot.ledger());
    }
}

/// Counters of the stages' own: rules that were hit.
fn rules(report: &Report) {
    let mut table = show::table(&["stage", "rule", "packets"]);
    show::align_right(&mut table, &[2]);
    let mut any = false;
    for (name, counts) in report.names.iter().zip(&report.snapshot.stages) {
        for (label, n) in counts.iter().filter(|(_, n)| *n > 0) {
            any = true;
            table.add_row([name.as_str(), label, &show::grouped(*n)]);
        }
    }
    if any {
        anstream::println!("{table}");
    }
}

/// One worker on a soft port, polled by hand.
struct Bench {
    worker: Worker,
    wire: Wire,
    port: RunningPort,
    pool: Mempool,
    pipeline: Pipeline,
    hand: Arc<AtomicU64>,
    counters: Arc<WorkerCounters>,
    before: WorkerSnapshot,
    reasons: ReasonTable,
    names: Vec<String>,
}

impl Bench {
    fn new(plan: Plan) -> Result<Self, Failure> {
        let pipeline = Pipeline::build(&plan, Backend::Soft)?;
        let pool = Mempool::soft(&PoolConfig {
            name: "replay".into(),
            buffers: 256,
            // Captures may hold frames that offloads have merged: up to the largest IP packet.
            data_room: u16::MAX - 128,
            cache: 0,
            numa: None,
        });
        let (port, wire) = soft::Port::new();
        let (port, queues) =
            port.start(&PortConfig { mtu: u16::MAX - 256, ..PortConfig::default() }, &pool)?;
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, plan.stages.len()));
        let (clock, hand) = Clock::manual();
        let worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel.clone()),
            pipeline.make(WorkerId(0)),
            1,
            Idle::Spin,
            clock,
            counters.clone(),
        );
        let before = counters.snapshot();
        let names = plan.stages.iter().map(|s| s.name.clone()).collect();
        Ok(Bench { worker, wire, port, pool, pipeline, hand, counters, before, reasons: plan.reasons, names })
    }

    /// Sends one frame through all hops and says what became of it.
    fn packet(&mut self, now: u64, frame: &[u8]) -> String {
        self.hand.fetch_max(now, Ordering::Relaxed);
        self.wire.send(frame.to_vec());
        self.worker.poll();
        let after = self.counters.snapshot();
        let verdict = verdict(&self.before, &after, &self.reasons);
        self.before = after;
        verdict
    }

    fn report(self) -> Report {
        let snapshot = crate::app::Snapshot {
            elapsed: std::time::Duration::ZERO,
            workers: vec![self.counters.snapshot()],
            ports: Vec::new(),
            stages: self.pipeline.stages().map(|(_, shared)| shared.counts()).collect(),
        };
        let lanes = self.worker.into_lanes().into_iter().map(|Lane(pair)| pair).collect();
        let failures = self.port.stop(lanes).err().map(|e| e.error.to_string()).into_iter().collect();
        let buffers_out = self.pool.capacity() - self.pool.available();
        Report { snapshot, failures, buffers_out, reasons: self.reasons, names: self.names }
    }
}

/// The difference that one packet made.
fn verdict(before: &WorkerSnapshot, after: &WorkerSnapshot, reasons: &ReasonTable) -> String {
    if after.sent > before.sent {
        return "home".into();
    }
    if after.punted > before.punted {
        return "punted".into();
    }
    let dropped = reasons.iter().zip(before.drops.iter().zip(&after.drops)).find(|(_, (b, a))| a > b);
    dropped.map_or("lost before the path".into(), |((_, label, _), _)| format!("dropped: {label}"))
}
