//! Instructions per packet of the hops: the regression gate.
//!
//! Unlike time, instructions do not depend on the neighbours. Each case runs under callgrind with two numbers of packets;
//! the difference of the two counts has no start-up in it. A case that only receives and sends on the same soft port
//! is subtracted, so what remains is the path.
//!
//! `cargo bench --bench instructions` compares with `benches/record/instructions.json` and fails beyond 2 %;
//! `-- --record` writes that file, `-- --only TEXT` prints some. Counts belong to a compiler: with another one than the recorded, the comparison is
//! shown and does not fail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to its reader")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use sluicegate::config::{self, Idle, Options, Overrides, Plan};
use sluicegate::dpdk::{Burst, Mempool, PoolConfig, PortConfig, QueuePair, soft};
use sluicegate::flow::{Filter, FlowView, FlowsShared, Order, Seed};
use sluicegate::path::{Clock, Decap, Lane, Pipeline, Track, Worker, WorkerCounters};
use sluicegate::stage::{Backend, WorkerId};

#[allow(dead_code, reason = "the other bench writes it")]
#[path = "../peers/connections.rs"]
mod connections;
mod frames;

use connections::Open;
use frames::Frames;

/// Largest change that passes.
const TOLERANCE: f64 = 0.02;
/// Frames per poll.
const BURST: usize = 32;
/// Polls of the two runs whose difference counts.
const POLLS: [usize; 2] = [64, 1088];
/// Polls of a lap over the capture of connections, which is run once before anything is counted; then one lap more, or two.
const LAP_POLLS: usize = connections::FRAMES as usize / BURST;

/// What is measured.
struct Case {
    name: &'static str,
    /// The pipeline behind the tunnel.
    stages: &'static str,
    /// Length of the inner packets.
    size: u16,
    inner: Inner,
    /// Frames carry an 802.1Q tag, which sends them down the general walk of decap.
    tagged: bool,
    flows: Flows,
    /// Another thread reads all counters and lists all flows again and again, as the exporter, `top` and `flows` do once a second. The worker's
    /// instructions are counted, and must be those of the case before it.
    read: bool,
}

/// What the worker knows of flows.
#[derive(Clone, Copy, PartialEq)]
enum Flows {
    /// Nothing.
    Not,
    /// It follows them.
    Followed,
    /// And every stage is done with all of them.
    Settled,
    /// Some stage is done with none of them.
    Read,
    /// No stage is shown any of them: its stages are those of another tenant.
    Others,
}

/// What is inside, over what.
#[derive(Clone, Copy, PartialEq)]
enum Inner {
    Udp,
    Tcp,
    Udp6,
    /// The capture of the other bench, lap after lap: every SYN opens a flow.
    Connections,
    /// Connections that stay open.
    Open(Open),
}

impl Case {
    const fn new(name: &'static str, stages: &'static str, size: u16) -> Self {
        Case { name, stages, size, inner: Inner::Udp, tagged: false, flows: Flows::Not, read: false }
    }

    const fn settled(name: &'static str, inner: Inner) -> Self {
        Case { inner, flows: Flows::Settled, ..Case::new(name, ONE_RULE, 64) }
    }

    const fn connections(name: &'static str, stages: &'static str) -> Self {
        Case { inner: Inner::Connections, flows: Flows::Followed, ..Case::new(name, stages, 0) }
    }

    const fn open(name: &'static str, what: Open, stages: &'static str, size: u16, flows: Flows) -> Self {
        Case { inner: Inner::Open(what), flows, ..Case::new(name, stages, size) }
    }

    /// Polls before anything is counted.
    fn warm(&self) -> usize {
        if self.inner == Inner::Connections { LAP_POLLS } else { LAPS * FLOWS / BURST }
    }

    /// The time of a poll. Packets of connections come a microsecond apart; elsewhere time stands still behind the first laps.
    fn time(&self, round: usize) -> u64 {
        match self.inner {
            Inner::Connections => (round * BURST) as u64 * 1_000,
            _ => (round * BURST / FLOWS) as u64 * LAP,
        }
    }

    /// Polls of its two runs.
    fn polls(&self) -> [usize; 2] {
        if self.inner == Inner::Connections { [LAP_POLLS, 2 * LAP_POLLS] } else { POLLS }
    }
}

const CASES: [Case; 20] = [
    Case::new("passthrough, 64 B", "", 64),
    Case::new("passthrough, 1400 B", "", 1400),
    Case { tagged: true, ..Case::new("passthrough, 64 B, general walk", "", 64) },
    Case::new("one acl rule, 64 B", ONE_RULE, 64),
    Case { read: true, ..Case::new("one acl rule, 64 B, read meanwhile", ONE_RULE, 64) },
    Case::settled("settled flows, UDP, 64 B", Inner::Udp),
    Case { read: true, ..Case::settled("settled flows, UDP, 64 B, read meanwhile", Inner::Udp) },
    Case::settled("settled flows, TCP, 64 B", Inner::Tcp),
    Case::settled("settled flows, IPv6 UDP, 64 B", Inner::Udp6),
    Case::open(PLAIN_TLS, Open::Tls, "", 64, Flows::Settled),
    Case::open(SETTLED_TLS, Open::Tls, FOUR, 64, Flows::Settled),
    Case::open(OTHERS_TLS, Open::Tls, FOUR_OF_OTHERS, 64, Flows::Others),
    Case::open("http body, tracking", Open::Body, "", 1400, Flows::Followed),
    Case::open("http body, appid, tls, http, dns", Open::Body, FOUR, 1400, Flows::Read),
    Case::connections("connections, tracking", ""),
    Case::connections("connections, appid", "[[stage]]\nuse = \"appid\"\n"),
    Case::connections("connections, tls", "[[stage]]\nuse = \"tls\"\n"),
    Case::connections("connections, http", "[[stage]]\nuse = \"http\"\n"),
    Case::connections("connections, dns", "[[stage]]\nuse = \"dns\"\n"),
    Case::connections("connections, appid, tls, http, dns", FOUR),
];

/// Segments of TLS connections with which no stage has anything to do, and with which four are done.
const PLAIN_TLS: &str = "open TLS connections, tracking";
const SETTLED_TLS: &str = "open TLS connections, appid, tls, http, dns";
/// And where the four are another tenant's.
const OTHERS_TLS: &str = "open TLS connections, stages of other tenants";
/// What the settled flows of a plan with stages may cost, compared with one without.
const MOST_SETTLED: f64 = 1.1;
const FOUR: &str = "[[stage]]\nuse = \"appid\"\n[[stage]]\nuse = \"tls\"\n[[stage]]\nuse = \"http\"\n[[stage]]\nuse = \"dns\"\n";
const FOUR_OF_OTHERS: &str = "[[tenant]]\nname = \"other\"\nendpoints = [1]\npipeline = \"reads\"\n\
    [[stage]]\nuse = \"appid\"\npipelines = [\"reads\"]\n[[stage]]\nuse = \"tls\"\npipelines = [\"reads\"]\n\
    [[stage]]\nuse = \"http\"\npipelines = [\"reads\"]\n[[stage]]\nuse = \"dns\"\npipelines = [\"reads\"]\n";

const TUNNEL: &str = "[tunnel]\nprofile = \"aws\"\nallowed_sources = [\"10.254.11.0/24\"]\n[flow]\ncapacity = 1024\ntracking = ";
const ONE_RULE: &str =
    "[[stage]]\nuse = \"acl\"\ndefault = \"allow\"\n[[stage.rule]]\naction = \"allow\"\nprotocol = \"udp\"\n";
/// Flows of every case.
const FLOWS: usize = 256;
/// Packets of each flow before anything is counted, and the time between them: handshakes are over then, and what is said in one
/// direction only has been said for long enough to be a flow.
const LAPS: usize = 8;
const LAP: u64 = 300_000_000;

/// The recorded counts.
#[derive(Serialize, Deserialize)]
struct Record {
    /// `rustc --version`.
    compiler: String,
    /// Instructions per packet, net of the soft port.
    instructions: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["work", case, polls] => work(case, polls),
        [] => gate(false),
        ["--record"] => gate(true),
        ["--only", part] => only(part),
        _ => Err("use --record, --only TEXT or nothing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("instructions: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the cases whose names have that in them, for whoever works on them.
fn only(part: &str) -> Result<(), String> {
    for (case, Case { name, .. }) in CASES.iter().enumerate().filter(|(_, case)| case.name.contains(part)) {
        println!("{name:<46} {:>9.1}", net(case)?);
    }
    Ok(())
}

fn gate(record: bool) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/record/instructions.json");
    let mut found = Record { compiler: compiler()?, instructions: BTreeMap::new() };
    let mut before = 0.0;
    for (case, Case { name, read, .. }) in CASES.iter().enumerate() {
        let net = net(case)?;
        if *read && (net - before).abs() > 0.5 {
            return Err(format!("being read costs a worker instructions: {before:.1} -> {net:.1} a packet"));
        }
        before = net;
        found.instructions.insert((*name).to_owned(), (net * 10.0).round() / 10.0);
    }
    // Whatever was recorded: a settled flow costs hardly more than tracking does, and one whose tenant has no such stages no more than that.
    let of = |name: &str| found.instructions.get(name).copied().unwrap_or(0.0);
    for name in [SETTLED_TLS, OTHERS_TLS] {
        if of(name) > of(PLAIN_TLS) * MOST_SETTLED {
            return Err(format!("{name}: {:.1}, and tracking alone {:.1}", of(name), of(PLAIN_TLS)));
        }
    }
    if record {
        let text = serde_json::to_string_pretty(&found).map_err(|e| e.to_string())? + "\n";
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    compare(&found, &path)
}

fn compare(found: &Record, path: &PathBuf) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let recorded: Record = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut beyond = Vec::new();
    println!("{:<46} {:>9} {:>9} {:>8}", "instructions per packet", "recorded", "found", "change");
    for (name, now) in &found.instructions {
        let Some(then) = recorded.instructions.get(name) else {
            beyond.push(format!("{name} has no record"));
            continue;
        };
        let change = now / then - 1.0;
        println!("{name:<46} {then:>9.1} {now:>9.1} {:>+7.1}%", change * 100.0);
        // Fewer is a change too: a record that lies too high would let the next regression pass.
        if change.abs() > TOLERANCE {
            beyond.push(format!("{name}: {then} -> {now}"));
        }
    }
    if beyond.is_empty() {
        return Ok(());
    }
    let remedy = "if the change is meant, run: cargo bench --bench instructions -- --record";
    if recorded.compiler != found.compiler {
        println!(
            "recorded with {}, this is {}: not held against anyone; {remedy}",
            recorded.compiler, found.compiler
        );
        return Ok(());
    }
    Err(format!("beyond {:.0} %: {}; {remedy}", TOLERANCE * 100.0, beyond.join("; ")))
}

/// Instructions per packet of one case, without its port.
fn net(case: usize) -> Result<f64, String> {
    Ok(per_packet(case, "poll")? - per_packet(case, "port")?)
}

/// Instructions per packet of one case; `what` is the path (`poll`) or the port alone (`port`).
fn per_packet(case: usize, what: &str) -> Result<f64, String> {
    let [few, many] = CASES.get(case).map_or(POLLS, Case::polls);
    let spent = callgrind(case, what, many)?.saturating_sub(callgrind(case, what, few)?);
    Ok(spent as f64 / ((many - few) * BURST) as f64)
}

fn callgrind(case: usize, what: &str, polls: usize) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let read = CASES.get(case).is_some_and(|case| case.read);
    let file = match read {
        true => std::env::temp_dir().join(format!("sluicegate-callgrind-{}", std::process::id())),
        false => PathBuf::from("/dev/null"),
    };
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", if read { "--separate-threads=yes" } else { "--separate-threads=no" }])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(own)
        .args(["work", &format!("{what}:{case}"), &polls.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}; ci/deps.sh check installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if read && output.status.success() {
        return of_first_thread(&file);
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, n)| n.trim());
    collected.and_then(|n| n.parse().ok()).filter(|_| output.status.success()).ok_or(said)
}

/// Instructions of the thread that polls, out of the files that callgrind writes for each thread.
fn of_first_thread(file: &Path) -> Result<u64, String> {
    let of = |thread: u32| PathBuf::from(format!("{}-{thread:02}", file.display()));
    let text = std::fs::read_to_string(of(1)).map_err(|e| format!("{}: {e}", of(1).display()))?;
    for thread in (1..).take_while(|thread| of(*thread).exists()) {
        std::fs::remove_file(of(thread)).map_err(|e| e.to_string())?;
    }
    let _ = std::fs::remove_file(file); // there for some versions
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|n| n.trim().parse().ok()).ok_or_else(|| "callgrind gave no total".to_owned())
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output().map_err(|e| format!("rustc: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The child under callgrind: so many polls of 32 frames through one case, every frame checked to come back.
fn work(case: &str, polls: &str) -> Result<(), String> {
    let (what, case) = case.split_once(':').ok_or("no case")?;
    let case: usize = case.parse().map_err(|_| "no case")?;
    let polls: usize = polls.parse().map_err(|_| "no number of polls")?;
    let case = CASES.get(case).ok_or("no such case")?;
    let (port, wire) = soft::Port::new();
    let pool = PoolConfig { name: "bench".into(), buffers: 256, data_room: 2048, cache: 0, numa: None };
    let started = port.start(&PortConfig::default(), &Mempool::soft(&pool)).map_err(|e| e.to_string())?;
    let (_running, mut lanes) = started;
    let lane = lanes.pop().ok_or("a soft port without queues")?;
    let (mut frames, mut home, mut frame) = (Frames::of(case), 0, Vec::new());
    let mut exchange = |poll: &mut dyn FnMut() -> usize| {
        for _ in 0..BURST {
            wire.send_copy(frames.next());
        }
        poll();
        while wire.receive_into(&mut frame) {
            home += 1;
        }
    };
    let warm = case.warm();
    if what == "poll" {
        let (mut worker, hand, view) = worker(case, lane)?;
        for round in 0..warm {
            hand.store(case.time(round), Ordering::Relaxed);
            exchange(&mut || worker.poll());
        }
        let before = seen(&worker);
        let (counters, stop) = (worker.counters().clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            if case.read {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::black_box((counters.snapshot(), counters.samples.times.read()));
                        let list = |view: &FlowView| view.top(100, &Filter::default(), Some(Order::Bytes));
                        std::hint::black_box(view.as_ref().map(list));
                    }
                });
            }
            for round in warm..warm + polls {
                if case.inner == Inner::Connections {
                    hand.store(case.time(round), Ordering::Relaxed);
                }
                exchange(&mut || worker.poll());
            }
            stop.store(true, Ordering::Relaxed);
        });
        let (after, staged) = (seen(&worker), !case.stages.is_empty());
        let as_meant = match case.flows {
            Flows::Settled => (before > 0) == staged && after == before,
            Flows::Others => after == 0,
            Flows::Read => after - before >= (polls * BURST) as u64,
            _ => true,
        };
        if !as_meant {
            return Err(format!("{}: {before} looks, then {after}", case.name));
        }
    } else {
        let mut poll = poll_port(lane);
        for _ in 0..warm + polls {
            exchange(&mut poll);
        }
    }
    let want = (warm + polls) * BURST;
    if home == want { Ok(()) } else { Err(format!("{home} of {want} frames came home")) }
}

fn worker(case: &Case, lane: QueuePair) -> Result<(Worker, Arc<AtomicU64>, Option<FlowView>), String> {
    let plan = plan(case)?;
    let pipeline = Pipeline::build(&plan, Backend::Soft).map_err(|e| e.to_string())?;
    let id = WorkerId(0);
    let counters = WorkerCounters::new(id, &plan.reasons, plan.stages.len());
    let counters = Arc::new(counters.with_queues([(0, 0)].into_iter()));
    let decap = Decap::new(plan.tunnel.clone());
    let (clock, hand) = Clock::manual();
    let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(1)).filter(|_| case.flows != Flows::Not);
    let mut track = shared.map(|shared| Track::of(&plan, &shared, None, &counters));
    let shown = track.as_mut().map(|track| vec![track.flows().show()]);
    let view = shown.map(|shown| FlowView::new(&plan, shown, clock.clone()));
    let worker = Worker::new(vec![Lane(lane)], decap, pipeline.make(id), BURST, Idle::Spin, clock, counters);
    Ok((worker.with_flows(track), hand, view))
}

/// Packets that stages were shown.
fn seen(worker: &Worker) -> u64 {
    worker.counters().stages().iter().map(|stage| stage.seen.get()).sum()
}

fn poll_port(mut lane: QueuePair) -> Box<dyn FnMut() -> usize> {
    let mut burst = Burst::new();
    Box::new(move || {
        lane.rx.receive(&mut burst, BURST);
        lane.tx.send(&mut burst)
    })
}

fn plan(case: &Case) -> Result<Plan, String> {
    let options = Options { need_ports: false, ..Options::default() };
    let (tracking, stages) = (if case.flows == Flows::Not { "\"auto\"" } else { "true" }, case.stages);
    config::load_text(
        "bench",
        &format!("{TUNNEL}{tracking}\n{stages}"),
        Path::new(""),
        &Overrides::default(),
        &options,
    )
    .map_err(|problems| format!("{problems:?}"))
}
