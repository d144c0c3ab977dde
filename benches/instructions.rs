//! Instructions per packet of the five hops: the regression gate.
//!
//! Unlike time, instructions do not depend on the neighbours. Each case runs under callgrind with two numbers of packets;
//! the difference of the two counts has no start-up in it. A case that only receives and sends on the same soft port
//! is subtracted, so what remains is the path.
//!
//! `cargo bench --bench instructions` compares with `benches/record/instructions.json` and fails beyond 2 %;
//! `-- --record` writes that file. Counts belong to a compiler: with another one than the recorded, the comparison is
//! shown and does not fail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to its reader")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use sluicegate::config::{self, Idle, Options, Overrides, Plan};
use sluicegate::dpdk::{Burst, Mempool, PoolConfig, PortConfig, QueuePair, soft};
use sluicegate::path::{Clock, Decap, Lane, Pipeline, Worker, WorkerCounters};
use sluicegate::stage::{Backend, WorkerId};
use sluicegate::traffic::{Generator, MAX_FRAME, Mix, Sizes, Traffic};

/// Largest change that passes.
const TOLERANCE: f64 = 0.02;
/// Frames per poll.
const BURST: usize = 32;
/// Polls of the two runs whose difference counts.
const POLLS: [usize; 2] = [64, 1088];

/// What is measured: a name, the pipeline behind the tunnel, the inner size, and whether frames carry an 802.1Q tag, which
/// sends them down the general walk of decap.
const CASES: [(&str, &str, u16, bool); 4] = [
    ("passthrough, 64 B", "", 64, false),
    ("passthrough, 1400 B", "", 1400, false),
    ("passthrough, 64 B, general walk", "", 64, true),
    ("one acl rule, 64 B", ONE_RULE, 64, false),
];

const TUNNEL: &str = "[tunnel]\nprofile = \"aws\"\nallowed_sources = [\"10.254.11.0/24\"]\n";
const ONE_RULE: &str = "[[stage]]\nuse = \"acl\"\n[[stage.rule]]\naction = \"allow\"\nprotocol = \"udp\"\n";

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
        _ => Err("use --record or nothing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("instructions: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn gate(record: bool) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/record/instructions.json");
    let mut found = Record { compiler: compiler()?, instructions: BTreeMap::new() };
    for (case, (name, ..)) in CASES.iter().enumerate() {
        let net = per_packet(case, "poll")? - per_packet(case, "port")?;
        found.instructions.insert((*name).to_owned(), (net * 10.0).round() / 10.0);
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
    println!("{:<34} {:>9} {:>9} {:>8}", "instructions per packet", "recorded", "found", "change");
    for (name, now) in &found.instructions {
        let Some(then) = recorded.instructions.get(name) else {
            beyond.push(format!("{name} has no record"));
            continue;
        };
        let change = now / then - 1.0;
        println!("{name:<34} {then:>9.1} {now:>9.1} {:>+7.1}%", change * 100.0);
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

/// Instructions per packet of one case; `what` is the path (`poll`) or the port alone (`port`).
fn per_packet(case: usize, what: &str) -> Result<f64, String> {
    let [few, many] = POLLS;
    let spent = callgrind(case, what, many)?.saturating_sub(callgrind(case, what, few)?);
    Ok(spent as f64 / ((many - few) * BURST) as f64)
}

fn callgrind(case: usize, what: &str, polls: usize) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["work", &format!("{what}:{case}"), &polls.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}; ci/deps.sh check installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, n)| n.trim());
    collected.and_then(|n| n.parse().ok()).filter(|_| output.status.success()).ok_or(said)
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
    let (_, stages, size, tagged) = CASES.get(case).ok_or("no such case")?;
    let plan = plan(stages)?;
    let (port, wire) = soft::Port::new();
    let pool = PoolConfig { name: "bench".into(), buffers: 256, data_room: 2048, cache: 0, numa: None };
    let started = port.start(&PortConfig::default(), &Mempool::soft(&pool)).map_err(|e| e.to_string())?;
    let (_running, mut lanes) = started;
    let lane = lanes.pop().ok_or("a soft port without queues")?;
    let frames = frames(*size, *tagged);

    let mut poll: Box<dyn FnMut() -> usize> = match what {
        "poll" => poll_worker(&plan, lane)?,
        _ => poll_port(lane),
    };
    let (mut home, mut frame) = (0, Vec::new());
    for round in 0..polls {
        for slot in 0..BURST {
            wire.send_copy(&frames[(round * BURST + slot) % frames.len()]);
        }
        poll();
        while wire.receive_into(&mut frame) {
            home += 1;
        }
    }
    if home == polls * BURST { Ok(()) } else { Err(format!("{home} of {} frames came home", polls * BURST)) }
}

fn poll_worker(plan: &Plan, lane: QueuePair) -> Result<Box<dyn FnMut() -> usize>, String> {
    let pipeline = Pipeline::build(plan, Backend::Soft).map_err(|e| e.to_string())?;
    let id = WorkerId(0);
    let counters = Arc::new(WorkerCounters::new(id, &plan.reasons, plan.stages.len()));
    let decap = Decap::new(plan.tunnel.clone());
    let lanes = vec![Lane(lane)];
    let mut worker =
        Worker::new(lanes, decap, pipeline.make(id), BURST, Idle::Spin, Clock::manual().0, counters);
    Ok(Box::new(move || worker.poll()))
}

fn poll_port(mut lane: QueuePair) -> Box<dyn FnMut() -> usize> {
    let mut burst = Burst::new();
    Box::new(move || {
        lane.rx.receive(&mut burst, BURST);
        lane.tx.send(&mut burst)
    })
}

fn plan(stages: &str) -> Result<Plan, String> {
    let options = Options { need_ports: false, ..Options::default() };
    config::load_text("bench", &format!("{TUNNEL}{stages}"), Path::new(""), &Overrides::default(), &options)
        .map_err(|problems| format!("{problems:?}"))
}

fn frames(size: u16, tagged: bool) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(Arc::new(Traffic::new(&Mix::bench(256, Sizes::Fixed(size)))));
    let mut buffer = vec![0; MAX_FRAME];
    let mut frame = || {
        let len = generator.next(&mut buffer).map_or(0, |sent| sent.len);
        let mut frame = buffer[..len].to_vec();
        if tagged {
            frame.splice(12..12, [0x81, 0, 0, 7]);
        }
        frame
    };
    (0..256).map(|_| frame()).collect()
}
