//! What following flows costs, by how many there are; how fast new ones are opened. What a second worker adds is in `peers`.
//!
//! No driver and no other program: frames are made one by one and go through a soft port, so that there can be 2^24 of them. What is
//! measured are the cycles that a worker spends in its polls, the soft port's share included. Beside each window of a worker that
//! follows flows lies one of a worker that does not; they differ by what flows cost. Each packet is of another flow than those
//! before it, in an order other than that in which they were opened, so neither caches nor hardware prefetch help.
//!
//! `cargo bench --bench flows` prints Markdown; `-- --record PATH` writes it too, `--most BITS` ends the curve earlier, and `--only
//! curve|new` picks a part.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to its reader")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate::config::{self, Idle, Options, Overrides, Plan};
use sluicegate::dpdk::{self, Mempool, PoolConfig, PortConfig, soft};
use sluicegate::flow::{Flows, FlowsShared, Seed};
use sluicegate::path::{Clock, Decap, Lane, Pipeline, Track, Worker, WorkerCounters};
use sluicegate::stage::{Backend, WorkerId};
use sluicegate::traffic::{ENVELOPE, Mix, Sizes, Traffic};

/// Frames per poll.
const BURST: usize = 32;
/// Polls in a millisecond of the workers' clock: ten million packets a second.
const POLLS_PER_MS: u64 = 312;
/// Windows of each side; medians count.
const ROUNDS: usize = 64;
/// Packets of a window: few, so that most windows see nothing of what else runs on the machine.
const WINDOW: u64 = 1 << 14;
/// Odd: times this, modulo a power of two, visits everything once in an order that no prefetcher follows.
const STRIDE: u64 = 0x9e37_79b1;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("flows: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut most, mut only, mut record) = (24, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--most" => {
                most = args.next().and_then(|n| n.parse().ok()).ok_or("--most needs a number of bits")?
            }
            "--only" => only = Some(args.next().ok_or("--only needs curve or new")?),
            "--record" => record = Some(args.next().ok_or("--record needs a path")?),
            other => return Err(format!("{other}: use --most BITS, --only PART or --record PATH")),
        }
    }
    let mut text = heading();
    for part in ["curve", "new"] {
        if only.as_ref().is_none_or(|only| only == part) {
            text += &match part {
                "curve" => curve(most)?,
                _ => new_flows()?,
            };
        }
    }
    println!("{text}");
    match record {
        Some(path) => std::fs::write(&path, text).map_err(|e| format!("{path}: {e}")),
        None => Ok(()),
    }
}

/// What must stand beside the numbers.
fn heading() -> String {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok().filter(|o| o.status.success());
        output.map_or_else(|| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("?", |l| l.trim_start_matches([' ', '\t', ':']));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "# Flows\n\n- CPU: {cpu}\n- kernel: {}\n- revision: {}\n- date: {}\n- load average at the start: {}\n- clock: TSC at {:.0} MHz; \"cycles\" are its ticks\n\
         - method: soft ports, 64-byte UDP over IPv4 in AWS's envelope, one acl rule that allows them, burst 32; {ROUNDS} windows of {WINDOW} \
         packets for each side, one after the other; medians. Cycles are those of whole polls, soft port included.\n\n",
        output("uname", &["-r"]),
        output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        output("date", &["-u", "+%F %H:%M UTC"]),
        load.split(' ').next().unwrap_or("?"),
        dpdk::cycles_per_second() as f64 / 1e6,
    )
}

fn curve(most: u32) -> Result<String, String> {
    let mut text = String::from(
        "## By number of flows\n\nAll settled. The table has room for a quarter more (`flow.capacity` = flows).\n\n\
         | flows | following | not following | difference | median of ratios | table MB | in huge pages MB |\n|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for bits in 10..=most {
        eprintln!("flows: 2^{bits}");
        let flows = 1u64 << bits;
        let plan = plan(flows)?;
        let backing = huge_pages();
        let mut following = Rig::new(&plan, true)?;
        let mut passing = Rig::new(&plan, false)?;
        following.settle(flows)?;
        let table = (u64::from(plan.flow.per_worker) * (128 + 32 + 12)) >> 20;
        let backing = huge_pages().saturating_sub(backing);
        let (mut own, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS as u64 {
            let order = |n: u64| (round * WINDOW + n).wrapping_mul(STRIDE) & (flows - 1);
            let (a, b) = (following.window(WINDOW, order), passing.window(WINDOW, order));
            if round > 0 {
                // The first finds caches as somebody else left them.
                own.push(a);
                others.push(b);
                ratios.push(b / a);
            }
        }
        following.verify_settled()?;
        let (own, others) = (median(own), median(others));
        let _ = writeln!(
            text,
            "| 2^{bits} | {own:.0} | {others:.0} | {:.0} | {:.2} | {table} | {backing} |",
            own - others,
            median(ratios)
        );
    }
    Ok(text + "\n")
}

fn new_flows() -> Result<String, String> {
    const ROOM: u64 = 1 << 20;
    let plan = plan(ROOM)?;
    let mut rig = Rig::new(&plan, true)?;
    let room = u64::from(plan.flow.per_worker);
    let mut next = 0;
    let mut open = |rig: &mut Rig, until: u64| {
        let mut windows = Vec::new();
        while next + WINDOW <= until {
            windows.push(rig.window(WINDOW, |n| next + n));
            next += WINDOW;
        }
        median(windows)
    };
    // In an empty table every line is touched for the first time; then all entries are taken, and each new flow takes one from an
    // unanswered one.
    let fresh = open(&mut rig, room);
    open(&mut rig, room + 16 * WINDOW);
    let evicting = open(&mut rig, room + 80 * WINDOW);
    let opened = rig.counters.flows.snapshot().opened;
    if opened != next {
        return Err(format!("{opened} of {next} packets opened a flow"));
    }
    let hz = dpdk::cycles_per_second() as f64;
    let line = |what: &str, cycles: f64| {
        let rate = hz / cycles / 1e6;
        format!("| {what} | {cycles:.0} | {rate:.2} | {} |\n", if rate >= 2.0 { "met" } else { "MISSED" })
    };
    Ok(format!(
        "## New flows\n\nEvery packet opens a flow, on one worker; at least 2 million a second are wanted.\n\n\
         | table of {room} | cycles | million a second | |\n|---|--:|--:|---|\n{}{}\n",
        line("filling", fresh),
        line("full: each takes the place of the oldest unanswered one", evicting)
    ))
}

/// A worker, the far end of its port, and a clock.
struct Rig {
    worker: Worker,
    counters: Arc<WorkerCounters>,
    wire: soft::Wire,
    hand: Arc<AtomicU64>,
    polls: u64,
    frame: Vec<u8>,
    back: Vec<u8>,
    // Kept until the worker is gone.
    _running: dpdk::RunningPort,
}

impl Rig {
    fn new(plan: &Plan, following: bool) -> Result<Rig, String> {
        let id = WorkerId(0);
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(1)).filter(|_| following);
        let shared = shared.as_ref();
        let (port, wire) = soft::Port::new();
        let pool = PoolConfig { name: "bench".into(), buffers: 256, data_room: 2048, cache: 0, numa: None };
        let started = port.start(&PortConfig::default(), &Mempool::soft(&pool)).map_err(|e| e.to_string())?;
        let (running, mut lanes) = started;
        let lane = lanes.pop().ok_or("a soft port without queues")?;
        // Without flows there is nothing to ask but rules, for every packet; that is another bench.
        let stages = shared.map_or(0, |_| plan.stages.len());
        let counters = Arc::new(WorkerCounters::new(id, &plan.reasons, stages));
        let (clock, hand) = Clock::manual();
        let bare = self::plan_of("", 0)?;
        let pipeline = Pipeline::build(if stages == 0 { &bare } else { plan }, Backend::Soft)
            .map_err(|e| e.to_string())?;
        let track = shared.map(|shared| {
            let flows = Flows::new(id, &plan.flow, shared, None, counters.flows.clone());
            Track::new(flows, &plan.flow, shared, None, stages)
        });
        let decap = Decap::new(plan.tunnel.clone());
        let worker = Worker::new(
            vec![Lane(lane)],
            decap,
            pipeline.make(id),
            BURST,
            Idle::Spin,
            clock,
            counters.clone(),
        )
        .with_flows(track);
        let mut frame = vec![0; 2048];
        let len = Traffic::new(&Mix::bench(1, Sizes::Fixed(64))).frame(0, 0, &mut frame).ok_or("no frame")?;
        frame.truncate(len);
        Ok(Rig { worker, counters, wire, hand, polls: 0, frame, back: Vec::new(), _running: running })
    }

    /// So many packets of flows in this order; returns cycles per packet.
    fn window(&mut self, packets: u64, order: impl Fn(u64) -> u64) -> f64 {
        let before = self.counters.busy_cycles.get();
        for poll in 0..packets / BURST as u64 {
            self.polls += 1;
            self.hand.store(self.polls / POLLS_PER_MS * 1_000_000, Ordering::Relaxed);
            for slot in 0..BURST as u64 {
                self.send(order(poll * BURST as u64 + slot));
            }
            self.worker.poll();
            while self.wire.receive_into(&mut self.back) {}
        }
        (self.counters.busy_cycles.get() - before) as f64 / packets as f64
    }

    /// A packet of flow `n`: address and port of its client, and a cookie, are its number.
    fn send(&mut self, n: u64) {
        let n = n as u32;
        let [high, a, b, c] = n.to_be_bytes();
        self.frame[ENVELOPE - 4..ENVELOPE].copy_from_slice(&n.to_be_bytes());
        self.frame[ENVELOPE + 12..ENVELOPE + 16].copy_from_slice(&[10, a, b, c]);
        self.frame[ENVELOPE + 20..ENVELOPE + 22].copy_from_slice(&[16, high]);
        self.wire.send_copy(&self.frame);
    }

    /// Opens flows and sees them again after more than a second: then they are established, and the stage is done with them.
    fn settle(&mut self, flows: u64) -> Result<(), String> {
        self.window(flows, |n| n);
        self.polls += 2000 * POLLS_PER_MS;
        self.window(flows, |n| n);
        let opened = self.counters.flows.snapshot().opened;
        if opened == flows { Ok(()) } else { Err(format!("{opened} of {flows} flows were opened")) }
    }

    /// Nobody came by later who was not known, and everything went home.
    fn verify_settled(&self) -> Result<(), String> {
        let now = self.counters.flows.snapshot();
        let seen: u64 = self.counters.stages().iter().map(|stage| stage.seen.get()).sum();
        let (received, sent) = (self.counters.received.get(), self.counters.sent.get());
        if seen == now.opened && received == sent {
            return Ok(());
        }
        Err(format!("not settled: {} opened, {seen} shown; {sent} of {received} home", now.opened))
    }
}

fn plan(flows: u64) -> Result<Plan, String> {
    plan_of(
        "[[stage]]\nuse = \"acl\"\ndefault = \"deny\"\n[[stage.rule]]\naction = \"allow\"\nprotocol = \"udp\"\n",
        flows,
    )
}

fn plan_of(stages: &str, flows: u64) -> Result<Plan, String> {
    let flows = flows.max(1024);
    let text = format!(
        "[tunnel]\nprofile = \"aws\"\nallowed_sources = [\"10.254.11.0/24\"]\n[flow]\ncapacity = {flows}\n{stages}"
    );
    let options = Options { need_ports: false, ..Options::default() };
    config::load_text("bench", &text, Path::new(""), &Overrides::default(), &options)
        .map_err(|p| format!("{p:?}"))
}

/// Megabytes of this process that the kernel has backed with huge pages, as /proc/self/smaps_rollup says.
fn huge_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) >> 10
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
