//! Every frame is counted exactly once: random frames, random faults, random pipelines.

mod common;

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sluicegate::config::Plan;
use sluicegate::dpdk::soft::{self, Faults, Setup};
use sluicegate::dpdk::{Mempool, PortConfig};
use sluicegate::packet::{DropReason, ReasonTable};
use sluicegate::path::{Clock, Decap, Lane, Ledger, Pipeline, Stop, Worker, WorkerCounters, WorkerSnapshot};
use sluicegate::stage::{Backend, WorkerId};
use sluicegate::traffic::{Checker, Generator, MAX_FRAME, Mix, Traffic};

use common::golden::cases;
use common::wild::{self, Envelope, WILD, Wild};
use common::{Rig, TUNNEL, plan_with, pool_config};

/// Frames of every quality: as the load balancer sends them, golden, damaged, and noise.
struct Source {
    random: ChaCha8Rng,
    traffic: Generator,
    golden: Vec<Vec<u8>>,
}

impl Source {
    fn new(seed: u64) -> Self {
        let mix = Mix { seed, flows: 64, ..Mix::default() };
        let golden = cases().into_iter().map(|c| c.frame).filter(|f| f.len() < 1500).collect();
        let traffic = Generator::new(Arc::new(Traffic::new(&mix)));
        Source { random: ChaCha8Rng::seed_from_u64(seed), traffic, golden }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut frame = match self.random.random_range(0..4) {
            0 => self.golden[self.random.random_range(0..self.golden.len())].clone(),
            1 => {
                let mut noise = vec![0; self.random.random_range(0..200)];
                self.random.fill_bytes(&mut noise);
                noise
            }
            _ => {
                let mut frame = vec![0; MAX_FRAME];
                let len = self.traffic.next(&mut frame).map_or(0, |sent| sent.len);
                frame.truncate(len);
                frame
            }
        };
        for _ in 0..[0, 0, 0, 1, 8][self.random.random_range(0..5)] {
            if !frame.is_empty() {
                // Mostly in the headers: damage to payload changes nothing that anybody reads.
                let at = self.random.random_range(0..frame.len().min(140));
                frame[at] = self.random.random();
            }
        }
        frame
    }
}

fn pipeline() -> impl Strategy<Value = Vec<(Wild, bool)>> {
    let percent = prop_oneof![Just(0u32), 0u32..40];
    let stage = (
        any::<u32>(),
        percent.clone(),
        percent.clone(),
        percent.clone(),
        percent.clone(),
        percent,
        any::<bool>(),
    );
    let stage = stage.prop_map(|(seed, drop, forward, patch, resize, panic, pass)| {
        (Wild { seed: seed.into(), drop, forward, patch, resize, panic }, pass)
    });
    proptest::collection::vec(stage, 0..4)
}

fn faults() -> impl Strategy<Value = Faults> {
    let rate = || prop_oneof![2 => Just(0u32), 1 => 0u32..200_000];
    let inbound = (rate(), rate(), rate(), rate(), rate());
    (any::<u64>(), inbound, rate(), rate(), 0u32..40, rate()).prop_map(
        |(seed, inbound, pool_empty, tx_full, calls, tx_error)| {
            let (loss, duplicate, reorder, corrupt, truncate) = inbound;
            let tx_full_calls = calls;
            Faults {
                seed,
                loss,
                duplicate,
                reorder,
                corrupt,
                truncate,
                pool_empty,
                tx_full,
                tx_full_calls,
                tx_error,
            }
        },
    )
}

/// A plan with this tunnel and these stages; the flag says `on_error = "pass"`.
fn wild_plan(stages: &[(Wild, bool)], table: &str) -> Plan {
    let mut text = format!("{table}\n");
    for (i, (wild, pass)) in stages.iter().enumerate() {
        let Wild { seed, drop, forward, patch, resize, panic } = wild;
        let on_error = if *pass { "pass" } else { "drop" };
        text += &format!(
            "[[stage]]\nuse = \"wild\"\nname = \"wild{i}\"\non_error = \"{on_error}\"\nseed = {seed}\ndrop = {drop}\n\
             forward = {forward}\npatch = {patch}\nresize = {resize}\npanic = {panic}\n"
        );
    }
    plan_with(&text, &[&WILD])
}

/// What must be true of a worker's counters whenever it does not poll.
fn assert_adds_up(reasons: &ReasonTable, now: &WorkerSnapshot) {
    assert!(now.ledger().balances(), "{}", now.ledger());
    let framework = |reason: DropReason| now.drops[reason as usize];
    let by_hop =
        |hop: &str| -> u64 { DropReason::ALL.iter().filter(|r| r.hop() == hop).map(|r| framework(*r)).sum() };
    let own: u64 = now.drops[DropReason::ALL.len()..].iter().sum();
    assert_eq!(now.drops.len(), reasons.len());
    // Hop by hop: what leaves one enters the next.
    let mut live = now.received - by_hop("rx") - by_hop("decap") - now.punted;
    let at_stages: u64 = now.stages.iter().map(|s| s.dropped).sum();
    assert_eq!(at_stages, own + by_hop("inspect"), "drops of stages and drops by reason");
    // What is too big to go home is answered towards its sender.
    let made = now.answers.made();
    assert_eq!(now.sent, live + made - at_stages - by_hop("encap") - by_hop("tx"));
    for stage in &now.stages {
        assert_eq!(stage.seen, live, "each open packet is shown once");
        live -= stage.dropped + stage.forwarded;
    }
    assert!(now.edited <= now.sent + framework(DropReason::TxFull));
}

/// What must be true between a worker's counters and those of its port.
fn assert_port_agrees(rig: &Rig, now: &WorkerSnapshot) {
    let (wire, port) = (rig.wire.counts(), rig.port.stats());
    assert!(wire.balances(), "{wire:?}");
    assert_eq!((now.received, now.sent), (wire.delivered, wire.taken));
    assert_eq!(
        (port.rx_packets, port.rx_missed, port.rx_no_buffer),
        (wire.delivered, wire.missed, wire.no_buffer)
    );
    assert_eq!((port.tx_packets, port.tx_errors), (wire.taken - wire.tx_lost, wire.tx_lost));
    assert_eq!(port.rx_errors, wire.too_long);
    assert_eq!((now.received_bytes, now.sent_bytes >= port.tx_bytes), (port.rx_bytes, true));
}

fn assert_stages_content(pipeline: &Pipeline) {
    for (name, shared) in pipeline.stages() {
        let broken: Vec<String> =
            shared.report().into_iter().filter(|(k, _)| k == "broken").map(|(_, v)| v).collect();
        assert!(broken.is_empty(), "{name}: {}", broken.join("\n"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The ledger balances after every poll, whatever comes in, goes wrong, or is decided; no buffer leaks; what the driver
    /// lost is in the port's rows.
    #[test]
    fn the_ledger_balances_after_every_poll(
        seed in any::<u64>(),
        faults in faults(),
        stages in pipeline(),
        buffers in prop_oneof![Just(256u32), 1u32..64],
        rx_depth in prop_oneof![Just(None), (1usize..40).prop_map(Some)],
        tx_depth in prop_oneof![Just(None), (1usize..40).prop_map(Some)],
        checksums in any::<bool>(),
    ) {
        wild::quiet();
        let plan = wild_plan(&stages, TUNNEL);
        let setup = Setup { faults, rx_depth, tx_depth, checksums, ..Setup::default() };
        let mut rig = Rig::over(&plan, &pool_config(buffers), setup);
        let mut source = Source::new(seed);
        let mut step = ChaCha8Rng::seed_from_u64(seed ^ 1);
        for _ in 0..30 {
            for _ in 0..step.random_range(0..40) {
                rig.wire.send(source.next());
            }
            rig.worker.poll();
            let now = rig.settled();
            assert_adds_up(&rig.reasons, &now);
            assert_port_agrees(&rig, &now);
            // A far end that does not always listen: bounded rings fill up.
            if step.random_range(0..3) > 0 {
                while rig.wire.receive().is_some() {}
            }
        }
        rig.wire.flush();
        // Calls that find the pool exhausted lose a frame each, so this ends.
        for _ in 0..10_000 {
            if rig.wire.counts().waiting == 0 {
                break;
            }
            rig.worker.poll();
            while rig.wire.receive().is_some() {}
        }
        let end = rig.settled();
        assert_adds_up(&rig.reasons, &end);
        assert_port_agrees(&rig, &end);
        let wire = rig.wire.counts();
        prop_assert_eq!((wire.waiting, wire.held), (0, 0));
        assert_stages_content(&rig.pipeline);
    }

    /// After any sequence of edits both outer checksums, summed anew, are right or still zero, and the packet that comes home
    /// is the one that the edits describe.
    #[test]
    fn edits_keep_the_envelope_right(seed in 0u64..1 << 32, patch in 0u32..100, options in 0usize..3) {
        let stages = [(Wild { seed, patch, resize: 60, ..Wild::default() }, false)];
        // Every golden frame that comes home and whose outer checksum is right or none: tags, IP options, padding, odd
        // lengths, bytes behind.
        let (table, group) = common::golden::groups().swap_remove(options);
        let plan = wild_plan(&stages, &table);
        let mut rig = Rig::new(&plan);
        for case in group.iter().filter(|c| c.verdict == "home" && c.frame.len() < 3000) {
            let outer = if case.frame[12..14] == [0x81, 0] { 18 } else { 14 };
            let before = Envelope::of(&case.frame, outer);
            let common::Fate::Home(back) = rig.fate(&case.frame) else { continue };
            let after = Envelope::of(&back, outer);
            prop_assert!(after.lengths_agree, "{}", case.name);
            prop_assert_eq!(after.ip_error, 0xffff, "{}", case.name);
            prop_assert_eq!((after.udp_error, after.udp_is_none), (before.udp_error, before.udp_is_none), "{}", case.name);
            let (_, shared) = rig.pipeline.stages().next().expect("the stage");
            let (_, expected) = shared.report().into_iter().rfind(|(k, _)| k == "inner").expect("a packet");
            // IP header, UDP 8, GENEVE 8 and options.
            let header = usize::from(back[outer] & 15) * 4;
            let inner = outer + header + 16 + usize::from(back[outer + header + 8] & 63) * 4;
            prop_assert!(wild::hex(&back[inner..]).starts_with(&expected), "{}", case.name);
        }
        assert_stages_content(&rig.pipeline);
    }
}

/// A transmit ring that stays full: retried, then dropped under its own name, and the ledger still balances.
#[test]
fn tx_full_is_counted() {
    let plan = wild_plan(&[], TUNNEL);
    let mut rig = Rig::over(&plan, &pool_config(256), Setup { tx_depth: Some(10), ..Setup::default() });
    let frame = &cases()[0].frame;
    for _ in 0..25 {
        rig.wire.send(frame.clone());
    }
    assert_eq!(rig.worker.poll(), 25);
    let now = rig.settled();
    assert_eq!((now.sent, now.drops[DropReason::TxFull as usize], now.dropped()), (10, 15, 15));
    assert_adds_up(&rig.reasons, &now);
    // Bytes of frames that were not sent are not counted as sent.
    assert_eq!(now.sent_bytes, 10 * frame.len() as u64);
}

/// A panic drops what the stage had not decided on, or passes it, as `on_error` says; the stage is made anew and works on.
#[test]
fn stage_panic_follows_on_error() {
    wild::quiet();
    for pass in [false, true] {
        let always = Wild { panic: 100, ..Wild::default() };
        let mut rig = Rig::new(&wild_plan(&[(always, pass), (Wild::default(), false)], TUNNEL));
        let frame = &cases()[0].frame;
        for round in 1..=3 {
            for _ in 0..64 {
                rig.wire.send(frame.clone());
            }
            while rig.worker.poll() > 0 {}
            let now = rig.settled();
            assert_adds_up(&rig.reasons, &now);
            let batches = now.busy_polls;
            assert_eq!(now.stages[0].panics, batches, "every batch panicked and the next one was shown");
            let dropped = now.drops[DropReason::StagePanic as usize];
            assert_eq!(dropped > 0, !pass);
            assert_eq!((now.received, now.sent + dropped), (64 * round, 64 * round));
            assert_eq!(now.stages[1].seen, now.sent);
        }
    }
}

/// Four workers on threads, four queues each way, one wire: each worker's ledger balances, all of them make the wire's, and no
/// frame is lost, changed or overtaken within its flow.
#[test]
fn workers_on_threads_balance_and_keep_order() {
    const WORKERS: u16 = 4;
    const FRAMES: u64 = 20_000;
    let plan = wild_plan(&[(Wild::default(), false)], TUNNEL);
    let pool = Mempool::soft(&pool_config(512));
    let (port, wire) = soft::Port::new();
    let config = PortConfig { queues: WORKERS, mtu: 9001, ..PortConfig::default() };
    let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
    let pipeline = Pipeline::build(&plan, Backend::Soft).expect("stages build");
    let stop = Stop::default();
    let running: Vec<_> = queues
        .into_iter()
        .map(|pair| {
            let id = WorkerId(pair.queue);
            let counters = Arc::new(WorkerCounters::new(id, &plan.reasons, plan.stages.len()));
            let (decap, inspect) = (Decap::new(plan.tunnel.clone()), pipeline.make(id));
            let lanes = vec![Lane(pair)];
            let idle = sluicegate::config::Idle::Backoff;
            let mut worker =
                Worker::new(lanes, decap, inspect, plan.burst, idle, Clock::cycles(), counters.clone());
            let stop = stop.clone();
            let work = move || {
                worker.run(&stop);
                worker.into_lanes()
            };
            (counters, thread::spawn(work))
        })
        .collect();
    // A denied client repeats its SYN: the checker could not tell one from the next if they came back.
    let traffic = Arc::new(Traffic::new(&Mix { flows: 500, denied_percent: 0, ..Mix::default() }));
    let (mut generator, mut checker) = (Generator::new(traffic.clone()), Checker::new(traffic, |_| true));
    let (mut frame, mut back) = (vec![0; MAX_FRAME], Vec::new());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while checker.report().returned < FRAMES {
        if generator.sent() < FRAMES {
            let len = generator.next(&mut frame).map_or(0, |sent| sent.len);
            wire.send_copy(&frame[..len]);
        }
        while wire.receive_into(&mut back) {
            checker.check(&back);
        }
        assert!(std::time::Instant::now() < deadline, "{:?} of {FRAMES}", checker.report());
    }
    stop.ask();
    let (counters, handles): (Vec<_>, Vec<_>) = running.into_iter().unzip();
    let pairs =
        handles.into_iter().flat_map(|h| h.join().expect("a worker")).map(|Lane(pair)| pair).collect();
    port.stop(pairs).expect("the port stops");
    let snapshots: Vec<WorkerSnapshot> = counters.iter().map(|c| c.snapshot()).collect();
    for snapshot in &snapshots {
        assert_adds_up(&plan.reasons, snapshot);
        assert!(snapshot.received > FRAMES / 40, "RSS spreads flows: {} frames", snapshot.received);
    }
    let all: Ledger = snapshots.iter().map(WorkerSnapshot::ledger).sum();
    assert_eq!(all, Ledger { received: FRAMES, sent: FRAMES, ..Ledger::default() });
    let report = checker.finish(FRAMES);
    assert_eq!((report.good, report.reordered), (FRAMES, 0), "{report:?}");
    assert_eq!(pool.available(), pool.capacity());
}
