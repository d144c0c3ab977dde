//! Health over DPDK: `net_ring` ports, registered lcores, a client with a TCP of its own on the far end. What each fault does within two
//! seconds, and what a check sees of it.
#![cfg(feature = "dpdk")]

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicegate::App;
use sluicegate::app::{Host, RunningApp};
use sluicegate::config::{Cause, Idle, WorkerPlan};
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::{BURST, Burst, LcorePlan, Memory, Mempool, PortConfig, QueuePair, RunningPort};
use sluicegate::mgmt::State;
use sluicegate::packet::{Packet, Verdict};
use sluicegate::path::Clock;
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerPacket, Shared, Stage, StageKind, WorkerId};

use common::client::{Came, Client, Line, PATIENCE, turn, until};
use common::{alone, inner, pool_config, prefix};

/// A stage that hangs for a packet that says so, as long as it is to.
static HANGS: StageKind = StageKind {
    name: "hangs",
    summary: "",
    help: "",
    example: "",
    reasons: &[],
    parse: |_| Ok(Box::new(Hangs)),
};
static HANG: AtomicBool = AtomicBool::new(true);

#[derive(Clone, Copy, Debug)]
struct Hangs;

impl Inspect for Hangs {
    fn inspect(&mut self, packet: &mut Packet<'_>, _: &mut Cx<'_>) -> Verdict {
        while packet.inner().ends_with(b"hang") && HANG.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Verdict::Next
    }
}

impl Parsed for Hangs {
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(Hangs))
    }
}

impl Shared for Hangs {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(Hangs))
    }
}

/// The far end of the rings: whoever sends chooses the queue that it comes in by.
#[derive(Clone)]
struct Far(Rc<RefCell<Lanes>>);

struct Lanes {
    lanes: Vec<QueuePair>,
    pool: Mempool,
    came: VecDeque<Vec<u8>>,
    /// Where the client's frames go.
    queue: usize,
}

impl Far {
    fn send_to(&self, queue: usize, frame: &[u8]) {
        let Lanes { lanes, pool, .. } = &mut *self.0.borrow_mut();
        let mut buffer = pool.alloc().expect("a buffer");
        assert!(buffer.write(frame));
        let mut burst = Burst::new();
        burst.push(buffer).expect("room");
        lanes[queue].tx.send(&mut burst);
    }
}

impl Line for Far {
    fn send(&mut self, frame: Vec<u8>) {
        let queue = self.0.borrow().queue;
        self.send_to(queue, &frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let Lanes { lanes, came, .. } = &mut *self.0.borrow_mut();
        for lane in lanes {
            let mut burst = Burst::new();
            lane.rx.receive(&mut burst, BURST);
            came.extend(burst.drain().map(|frame| frame.data().to_vec()));
        }
        came.pop_front()
    }
}

struct Lab {
    app: RunningApp,
    client: Client,
    far: Far,
    port: RunningPort,
    /// The appliance's.
    pool: Mempool,
}

fn lab(test: &str, workers: u16, extra: &str) -> Lab {
    let text = format!(
        "[[port]]\ndevice = \"net_null0\"\naddress = \"10.254.11.102/24\"\n{}\n{extra}",
        common::TUNNEL
    );
    let mut plan = common::plan_with(&text, &[&HANGS]);
    let cpu = plan.workers[0].lcore.cpu;
    let lcore = |n: u16| LcorePlan { lcore: u32::from(n) + 1, cpu };
    plan.idle = Idle::Backoff;
    plan.workers = (0..workers).map(|n| WorkerPlan { id: WorkerId(n), lcore: lcore(n) }).collect();
    plan.eal.memory = Memory::NoHuge;
    plan.eal.memory_mb = 256;
    plan.eal.file_prefix = prefix(test);
    plan.eal.lcores = std::iter::once(LcorePlan { lcore: 0, cpu }).chain((0..workers).map(lcore)).collect();
    let eal = Eal::init(&plan.eal, &[]).expect("DPDK starts");
    let mut own = pool_config(512);
    own.name = "far".into();
    let (pool, own) = (eal.pool(&pool_config(512)).expect("a pool"), eal.pool(&own).expect("a pool"));
    let (far, near) = eal::cross_connect(&eal, "far", "near", workers, 256).expect("two ports");
    let config = PortConfig { mtu: own.data_room() - 32, queues: workers, ..PortConfig::default() };
    let (port, lanes) = far.start(&config, &own).expect("the far port starts");
    let app = App::new(plan).start_on(Host::Eal(eal), vec![near], pool.clone(), Clock::cycles());
    let app = app.expect("it starts");
    let queue = usize::from(workers) - 1;
    let far = Far(Rc::new(RefCell::new(Lanes { lanes, pool: own, came: VecDeque::new(), queue })));
    let client = Client::new(far.clone(), [10, 254, 11, 60], [10, 254, 11, 102]);
    let mut lab = Lab { app, client, far, port, pool };
    until("it is ready", &mut lab.app, &mut lab.client, |app| {
        app.health().is_some_and(|h| h.state == State::Ready)
    });
    lab
}

impl Lab {
    fn end(mut self) {
        // What is still on its way (the end of a connection) arrives first: nobody takes it out of a ring afterwards.
        let own = self.far.0.borrow().pool.clone();
        until("all has arrived", &mut self.app, &mut self.client, |_| own.available() == own.capacity());
        drop(own);
        let Lab { app, client, far, port, pool } = self;
        drop((client, pool));
        let report = app.stop();
        assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
        let lanes = Rc::into_inner(far.0).expect("nobody else has it").into_inner().lanes;
        port.stop(lanes).expect("the far port stops");
    }
}

fn state(app: &RunningApp) -> State {
    app.health().expect("health").state
}

fn causes(app: &RunningApp) -> Vec<Cause> {
    app.health().expect("health").reasons.iter().map(|reason| reason.cause).collect()
}

fn datagram(n: u8, payload: &[u8]) -> Vec<u8> {
    let (client, server) = (inner::v4(10, 1, 0, n, 40_000), inner::v4(10, 2, 0, 9, 53));
    inner::wrap(&inner::udp(client, server, payload), 7, 60_001)
}

const STUCK: &str = "a_worker_that_hangs_is_named_within_two_seconds_over_dpdk";

#[test]
fn a_worker_that_hangs_is_named_within_two_seconds_over_dpdk() {
    alone(STUCK, || {
        let extra = "[flow]\ntracking = true\n[management.health]\nhold = \"1s\"\n\
                     [[stage]]\nuse = \"hangs\"\nname = \"molasses\"\n";
        let mut lab = lab(STUCK, 2, extra);
        assert_eq!(lab.client.get(&mut lab.app, 80, "/").code(), Some(200));
        let hung = |lab: &mut Lab, n: u8| {
            HANG.store(true, Ordering::Relaxed);
            lab.far.send_to(0, &datagram(n, b"first"));
            until("the flow is there", &mut lab.app, &mut lab.client, |app| {
                app.snapshot().workers[0].flows.opened == u64::from(n)
            });
            lab.far.send_to(0, &datagram(n, b"hang"));
            let began = Instant::now();
            until("it fails", &mut lab.app, &mut lab.client, |app| state(app) == State::Failed);
            let took = began.elapsed();
            assert_eq!(causes(&lab.app), [Cause::WorkerStuck]);
            let text = lab.app.health().expect("health").reasons[0].text.clone();
            assert!(
                text.starts_with("worker 0 has not polled for")
                    && text.ends_with("it is in inspect, stage 0 \"molasses\""),
                "{text}"
            );
            assert_eq!(lab.client.get(&mut lab.app, 80, "/"), Came::Refused, "a check by the other queue");
            // Its flow goes on with the worker that lives.
            lab.client.cable.tunnel.clear();
            lab.far.send_to(1, &datagram(n, b"goes on"));
            let deadline = Instant::now() + PATIENCE;
            while lab.client.cable.tunnel.is_empty() {
                turn(&mut lab.app, &mut lab.client);
                assert!(Instant::now() < deadline, "the other worker does not take over");
            }
            assert!(lab.client.cable.tunnel[0].ends_with(b"goes on"));
            HANG.store(false, Ordering::Relaxed);
            until("it recovers", &mut lab.app, &mut lab.client, |app| state(app) == State::Ready);
            assert_eq!(lab.client.get(&mut lab.app, 80, "/").code(), Some(200));
            took
        };
        in_time(|n| hung(&mut lab, n));
        lab.end();
    });
}

/// Within two seconds, in one of three times: a machine that has other things to do takes a second for itself at any moment.
fn in_time(mut once: impl FnMut(u8) -> Duration) {
    let took: Vec<Duration> =
        (1..=3).map(&mut once).take_while(|took| *took >= Duration::from_secs(2)).collect();
    assert!(took.len() < 3, "{took:?}");
}

const LEFT: &str = "a_worker_that_hangs_for_good_is_left_behind_over_dpdk";

/// The program ends, says which worker kept it, and touches nothing that this one may still use.
#[test]
fn a_worker_that_hangs_for_good_is_left_behind_over_dpdk() {
    alone(LEFT, || {
        let mut lab = lab(LEFT, 2, "[[stage]]\nuse = \"hangs\"\nname = \"molasses\"\n");
        lab.far.send_to(0, &datagram(1, b"hang"));
        until("it fails", &mut lab.app, &mut lab.client, |app| state(app) == State::Failed);
        let Lab { app, .. } = lab;
        let report = app.stop();
        assert!(!report.is_clean());
        let [worker, port] = &report.failures[..] else { panic!("{:?}", report.failures) };
        assert!(
            worker
                .starts_with("worker 0 has not stopped within 10 s: it is in inspect, stage 0 \"molasses\""),
            "{worker}"
        );
        assert!(port.contains("queue"), "{port}");
        // DPDK's runtime folder stays, as after a kill; the next start under that prefix takes it over.
        std::fs::remove_dir_all(format!("/var/run/dpdk/{}", prefix(LEFT))).expect("DPDK's folder");
    });
}

const EMPTY: &str = "an_empty_pool_is_named_over_dpdk";

/// Somebody keeps all buffers of the mempool. Checks are not answered then, as there is nothing to answer with, and the reason is known.
#[test]
fn an_empty_pool_is_named_over_dpdk() {
    alone(EMPTY, || {
        let extra = "[management.health]\npool_after = \"1s\"\nhold = \"0s\"\nwhen_failed = \"503\"\n";
        let mut lab = lab(EMPTY, 1, extra);
        assert_eq!(lab.client.get(&mut lab.app, 80, "/").code(), Some(200));
        let empty = |lab: &mut Lab| {
            let mut kept: Vec<_> = std::iter::from_fn(|| lab.pool.alloc()).collect();
            let (began, pool) = (Instant::now(), lab.pool.clone());
            until("it fails", &mut lab.app, &mut lab.client, |app| {
                // What lay in a worker's cache comes back when it polls.
                kept.extend(std::iter::from_fn(|| pool.alloc()));
                state(app) == State::Failed
            });
            let took = began.elapsed();
            assert_eq!(causes(&lab.app), [Cause::PoolEmpty]);
            drop(kept);
            until("it recovers", &mut lab.app, &mut lab.client, |app| state(app).is_fit());
            assert_eq!(lab.client.get(&mut lab.app, 80, "/").code(), Some(200));
            took
        };
        in_time(|_| empty(&mut lab));
        lab.end();
    });
}

const DRAIN: &str = "a_drain_fails_health_within_two_seconds_over_dpdk";

#[test]
fn a_drain_fails_health_within_two_seconds_over_dpdk() {
    alone(DRAIN, || {
        let mut lab = lab(DRAIN, 1, "[flow]\ntracking = true\n");
        lab.far.send_to(0, &datagram(1, b"first"));
        until("the flow is there", &mut lab.app, &mut lab.client, |app| {
            app.snapshot().workers[0].flows.opened == 1
        });
        lab.app.drain();
        let began = Instant::now();
        until("it drains", &mut lab.app, &mut lab.client, |app| causes(app) == [Cause::Draining]);
        assert_eq!(lab.client.get(&mut lab.app, 80, "/"), Came::Refused);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        lab.client.cable.tunnel.clear();
        lab.far.send_to(0, &datagram(1, b"goes on"));
        let deadline = Instant::now() + PATIENCE;
        while lab.client.cable.tunnel.is_empty() {
            turn(&mut lab.app, &mut lab.client);
            assert!(Instant::now() < deadline, "existing flows are served");
        }
        lab.end();
    });
}
