//! Golden frames through real DPDK: `net_pcap` reads them from a capture and writes what comes home into another.
#![cfg(feature = "dpdk")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicegate::config::Machine;
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::soft::pcap::{Reader, Writer};
use sluicegate::dpdk::{Burst, Mempool, PoolConfig, PortConfig};
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};
use sluicegate::packet::DropReason;
use sluicegate::path::{Answer, AnswerCounters, Answers, Outcome, Request, Seen};
use sluicegate::path::{Clock, Decap, Lane, Pipeline, Worker, WorkerCounters, WorkerSnapshot};
use sluicegate::stage::{Backend, WorkerId};
use sluicegate::wire::geneve::AWS;

use common::golden::groups;
use common::{TUNNEL, alone, plan, pool_config, prefix};

/// One port and one worker for each configuration, all in one process; the captures that come out hold the expected frames
/// and nothing else, in order.
#[test]
fn golden_frames_through_net_pcap() {
    alone("golden_frames_through_net_pcap", || {
        let folder = tempfile::tempdir().expect("a folder");
        let groups = groups();
        let files: Vec<Files> = (0..groups.len()).map(|i| Files::new(folder.path(), i)).collect();
        for (files, (_, cases)) in files.iter().zip(&groups) {
            write(&files.input, cases.iter().map(|c| c.frame.as_slice()));
        }
        let devices: Vec<String> = files.iter().map(|f| f.device.clone()).collect();
        let eal = start("golden_frames_through_net_pcap", &devices);
        let pool = eal.pool(&pool_config(512)).expect("a pool");
        for (files, (table, cases)) in files.iter().zip(&groups) {
            let counted = through(&eal, &pool, &files.device, 9001, table, cases.len());
            let expected = cases.iter().filter(|c| c.verdict == "home");
            let mut found = Reader::open(&files.output).expect("what was sent");
            for case in expected {
                let frame = found.next().expect("a capture").map(|f| f.bytes.to_vec());
                assert_eq!(frame.as_deref(), Some(case.back.as_slice()), "{}: {}", case.name, case.why);
            }
            assert!(found.next().expect("a capture").is_none(), "more frames than expected\n{table}");
            let count =
                |verdict: &str| cases.iter().filter(|c| c.verdict.starts_with(verdict)).count() as u64;
            let (punted, dropped) = (count("punted"), count("dropped"));
            assert_eq!((counted.punted, counted.dropped()), (punted, dropped), "{table}");
            for reason in DropReason::ALL {
                let expected = count(&format!("dropped {}", reason.label()));
                assert_eq!(counted.drops[*reason as usize], expected, "{reason} in\n{table}");
            }
        }
        assert_eq!(pool.available(), pool.capacity(), "buffers are out at the end");
    });
}

/// A worker's lcore takes buffers for answers from a pool that another thread made and frees to.
#[test]
fn answers_are_made_on_lcores() {
    alone("answers_are_made_on_lcores", || {
        let eal = start("answers_are_made_on_lcores", &[]);
        let pool = eal.pool(&PoolConfig { cache: 32, ..pool_config(255) }).expect("a pool");
        let theirs = pool.clone();
        let work = move || {
            let (frame, meta) = common::usual("sender/data-v4");
            let mut answers = Answers::new(theirs, &AWS, 8500, u32::MAX);
            let (mut out, counters) = (Burst::new(), AnswerCounters::default());
            let what = Answer::ResetSender;
            let request = Request { what, frame: &frame, meta: &meta, seen: Seen::default() };
            for _ in 0..100 {
                out.free();
                while out.room() > 0 {
                    assert_eq!(answers.answer(0, &request, &mut out, &counters), Outcome::Made);
                }
            }
            assert_eq!(counters.resets.get(), 6400);
            out
        };
        let mut out = eal.launch(1, work).expect("an idle lcore").join().expect("no panic");
        let cases = common::answers::cases();
        let case = cases.iter().find(|case| case.name == "sender/data-v4").expect("a golden case");
        assert!(out.as_slice().iter().all(|frame| Some(frame.data()) == case.back.as_deref()));
        assert_eq!((out.len(), pool.available()), (64, 255 - 64));
        out.free();
        assert_eq!(pool.available(), 255);
    });
}

/// A frame that the driver delivers in several segments is dropped whole, under its own name: `net_pcap` chains buffers when
/// one is too small.
#[test]
fn a_chained_frame_is_dropped_whole() {
    alone("a_chained_frame_is_dropped_whole", || {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::new(folder.path(), 0);
        let mut cases = common::golden::cases();
        let large = cases.iter().find(|c| c.name == "size/8500").expect("a large frame").clone();
        cases.retain(|c| c.name == "profile/aws-tcp4");
        let small = cases.pop().expect("a small frame");
        write(&files.input, [small.frame.as_slice(), &large.frame, &small.frame].into_iter());
        let eal = start("a_chained_frame_is_dropped_whole", std::slice::from_ref(&files.device));
        let pool = eal.pool(&PoolConfig { data_room: 2048, ..pool_config(64) }).expect("a pool");
        let counted = through(&eal, &pool, &files.device, 1500, TUNNEL, 3);
        assert_eq!(counted.drops[DropReason::Chained as usize], 1);
        assert_eq!((counted.received, counted.sent, counted.dropped()), (3, 2, 1));
        let mut found = Reader::open(&files.output).expect("what was sent");
        for _ in 0..2 {
            assert_eq!(found.next().expect("a capture").map(|f| f.bytes.to_vec()), Some(small.back.clone()));
        }
        assert!(found.next().expect("a capture").is_none());
        assert_eq!(pool.available(), pool.capacity(), "every segment went back");
    });
}

struct Files {
    input: PathBuf,
    output: PathBuf,
    device: String,
}

impl Files {
    fn new(folder: &Path, number: usize) -> Self {
        let (input, output) =
            (folder.join(format!("in{number}.pcap")), folder.join(format!("out{number}.pcap")));
        let device = format!("net_pcap{number},rx_pcap={},tx_pcap={}", input.display(), output.display());
        Files { input, output, device }
    }
}

fn write<'a>(path: &Path, frames: impl Iterator<Item = &'a [u8]>) {
    let mut writer = Writer::create(path).expect("a capture");
    for (n, frame) in frames.enumerate() {
        writer.write(n as u64 * 1000, frame).expect("a capture");
    }
    writer.finish().expect("a capture");
}

/// DPDK on ordinary pages. This thread is its main lcore, and polls.
fn start(test: &str, devices: &[String]) -> Eal {
    let cpu = Machine::here().cpus.first().copied().unwrap_or(0);
    let plan = EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 64,
        file_prefix: prefix(test),
        lcores: vec![LcorePlan { lcore: 0, cpu }, LcorePlan { lcore: 1, cpu }],
        args: vec![],
    };
    Eal::init(&plan, devices).expect("DPDK starts")
}

/// Polls the device until it has delivered so many frames, then closes it.
fn through(eal: &Eal, pool: &Mempool, device: &str, mtu: u16, table: &str, frames: usize) -> WorkerSnapshot {
    let plan = plan(table);
    let port = eal::Port::open(eal, device).expect("the port opens");
    let (port, queues) =
        port.start(&PortConfig { mtu, ..PortConfig::default() }, pool).expect("the port starts");
    let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, 0));
    let inspect = Pipeline::build(&plan, Backend::Eal).expect("no stages").make(WorkerId(0));
    let (clock, _) = Clock::manual();
    let lanes = queues.into_iter().map(Lane).collect();
    let decap = Decap::new(plan.tunnel.clone());
    let mut worker = Worker::new(lanes, decap, inspect, plan.burst, plan.idle, clock, counters.clone());
    let mut idle = 0;
    while counters.received.get() < frames as u64 {
        idle = if worker.poll() == 0 { idle + 1 } else { 0 };
        assert!(idle < 1000, "{} of {frames} frames came in", counters.received.get());
        assert!(counters.snapshot().ledger().balances());
    }
    assert_eq!(worker.poll(), 0, "the capture has ended");
    let pairs = worker.into_lanes().into_iter().map(|Lane(pair)| pair).collect();
    drop(port.stop(pairs).expect("the port stops"));
    counters.snapshot()
}
