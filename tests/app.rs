//! The application over ports that a test made: who gets which queue, and what is left when a start fails half way.

mod common;

use sluicegate::App;
use sluicegate::app::Host;
use sluicegate::config::{Plan, PortPlan, QueueCount, WorkerPlan};
use sluicegate::dpdk::LcorePlan;
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{Mempool, Port, PortConfig};
use sluicegate::flow::{End, Filter, Flushed, What};
use sluicegate::path::Clock;
use sluicegate::stage::WorkerId;

use common::golden::cases;
use common::{TUNNEL, pool_config};

/// A plan with so many workers, worker `n` on lcore `n + 1`.
fn plan(workers: u16) -> Plan {
    let mut plan = common::plan(TUNNEL);
    let cpu = plan.workers[0].lcore.cpu;
    plan.idle = sluicegate::config::Idle::Backoff;
    plan.workers = (0..workers)
        .map(|n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } })
        .collect();
    plan
}

fn soft_port(id: u16, max_queues: u16) -> (Port, Wire) {
    soft::Port::with(Setup { id, name: format!("soft{id}"), max_queues, ..Setup::default() })
}

fn asks(device: &str, queues: QueueCount) -> PortPlan {
    PortPlan { device: device.into(), queues, mtu: None, config: PortConfig::default() }
}

/// With one queue each, the second port's goes to the second worker.
#[test]
fn no_worker_is_idle_while_another_has_two_queues() {
    let pool = Mempool::soft(&pool_config(256));
    let ((a, a_wire), (b, b_wire)) = (soft_port(0, 1), soft_port(1, 1));
    let app = App::new(plan(2)).start_on(Host::Threads, vec![a, b], pool, Clock::cycles()).unwrap();
    assert_eq!(app.notes().count(), 0);
    for wire in [&a_wire, &b_wire] {
        wire.send(cases()[0].frame.clone());
        while wire.counts().taken == 0 {
            std::thread::yield_now();
        }
    }
    let report = app.stop();
    assert!(report.is_clean(), "{:?}", report.failures);
    assert_eq!(report.snapshot.workers.iter().map(|w| w.sent).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(report.buffers_out, 0);
}

/// "auto" asks a soft port for what it has, and no more.
#[test]
fn auto_takes_the_queues_and_the_mtu_that_a_soft_port_has() {
    let (port, _wire) = soft_port(0, 2);
    assert_eq!((port.max_queues(), port.max_mtu()), (2, u16::MAX - 128 - 18));
    let mut plan = plan(3);
    plan.ports = vec![asks("soft0", QueueCount::Auto)];
    let pool = Mempool::soft(&pool_config(256));
    let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
    assert_eq!((app.ports()[0].facts().queues, app.ports()[0].facts().mtu), (2, 9001));
    assert!(
        app.notes()
            .eq([String::from("worker 2 has no queue: the ports have fewer queues than there are workers")])
    );
    assert!(app.stop().is_clean());
}

/// What a port's interrupts say is said once.
#[test]
fn events_of_ports_are_passed_on_once() {
    let pool = Mempool::soft(&pool_config(256));
    let ((a, _a_wire), (b, wire)) = (soft_port(0, 1), soft_port(1, 1));
    let app = App::new(plan(1)).start_on(Host::Threads, vec![a, b], pool, Clock::cycles()).unwrap();
    assert!(app.events().is_empty());
    wire.set_link(true);
    assert!(app.events().is_empty(), "it was up");
    wire.set_link(false);
    wire.want_reset();
    let said = app.events();
    assert_eq!((said.len(), said[0].as_str()), (2, "port 1 (soft1): link down"));
    assert!(said[1].starts_with("port 1 (soft1): the device asks for a reset"), "{said:?}");
    assert!(app.events().is_empty());
    assert!(app.stop().is_clean());
}

/// A plan that follows flows, on one worker.
fn following() -> Plan {
    let mut plan =
        common::plan(&format!("{TUNNEL}\n[flow]\ntracking = true\ncapacity = 1024\nevents_ring = 64\n"));
    plan.idle = sluicegate::config::Idle::Backoff;
    plan
}

fn datagram(n: u8) -> Vec<u8> {
    let (client, server) = (common::inner::v4(10, 1, 0, n, 40_000), common::inner::v4(10, 2, 0, 9, 53));
    common::inner::wrap(&common::inner::udp(client, server, b"where"), n.into(), 60_001)
}

/// Waits until it is so, or for too long.
fn wait(what: &str, so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed().as_secs() < 10, "{what}");
        std::thread::yield_now();
    }
}

/// Flows of a running application are seen, found and flushed from this thread, and whoever listens hears of each.
#[test]
fn flows_are_seen_and_ended_from_outside() {
    let pool = Mempool::soft(&pool_config(256));
    let (port, wire) = soft_port(0, 1);
    let app = App::new(following()).with_flow_events();
    let mut app = app.start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
    let mut events = app.flow_events();
    assert_eq!((events.len(), app.flow_events().len()), (1, 0), "one ring, given away once");
    for n in [1, 2, 3, 1] {
        wire.send(datagram(n));
    }
    let view = app.flows().expect("flows").clone();
    wait("three flows", || app.snapshot().ledger().sent == 4);
    let count = view.count(&Filter::default());
    assert_eq!((count.flows, count.states["first"]), (3, 3));
    assert_eq!(
        view.live().map(|(_, tenant, n)| (tenant.to_owned(), n)).collect::<Vec<_>>(),
        [("default".into(), 3)]
    );
    let first = Filter { source: Some("10.1.0.1/32".parse().unwrap()), ..Filter::default() };
    let found = view.snapshot(10, &first).flows;
    assert_eq!((found.len(), found[0].packets, found[0].bytes), (1, [2, 0], [66, 0]));
    assert_eq!(view.flush(&first), Flushed { asked: 1, left: 0 });
    wait("a flush", || view.count(&Filter::default()).flows == 2);
    let report = app.stop();
    assert!(report.is_clean(), "{:?}", report.failures);
    let flows = report.snapshot.workers[0].flows;
    assert_eq!((flows.opened, flows.ended_flushed, flows.ended_stopped, flows.live()), (3, 1, 2, 0));
    let said: Vec<What> = std::iter::from_fn(|| events[0].pop().ok()).map(|event| event.what).collect();
    let [flushed, stopped] = [End::Flushed, End::Stopped].map(What::End);
    assert_eq!(said, [What::Start, What::Start, What::Start, flushed, stopped, stopped]);
}

/// Nobody listens: no ring, and flows are left as they are at the end.
#[test]
fn without_a_listener_nothing_is_said() {
    let pool = Mempool::soft(&pool_config(256));
    let (port, wire) = soft_port(0, 1);
    let mut app = App::new(following()).start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
    assert!(app.flow_events().is_empty());
    wire.send(datagram(1));
    wait("a packet", || app.snapshot().ledger().sent == 1);
    let flows = app.stop().snapshot.workers[0].flows;
    assert_eq!((flows.opened, flows.ended_stopped, flows.events_lost, flows.live()), (1, 0, 0, 1));
}

/// An application that is dropped has stopped: nobody polls its ports.
#[test]
fn dropping_it_stops_it() {
    let pool = Mempool::soft(&pool_config(256));
    let (port, wire) = soft_port(0, 1);
    let app = App::new(plan(1)).start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
    drop(app);
    wire.send(cases()[0].frame.clone());
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((wire.counts().delivered, wire.counts().waiting), (0, 1));
}

/// The first port is stopped again when the second refuses to start.
#[test]
fn a_port_that_refuses_leaves_no_other_running() {
    let pool = Mempool::soft(&pool_config(256));
    let ((a, wire), (b, _)) = (soft_port(0, 1), soft_port(1, 1));
    let mut plan = plan(1);
    plan.ports = vec![asks("soft0", QueueCount::Auto), asks("soft1", QueueCount::Exactly(2))];
    wire.send(cases()[0].frame.clone());
    let error = App::new(plan).start_on(Host::Threads, vec![a, b], pool, Clock::cycles()).unwrap_err();
    assert!(error.to_string().starts_with("soft1: 2 queues asked for, it has 1"), "{error}");
    assert_eq!(wire.counts().stopped, 1, "what was in its ring went when it stopped");
}

/// A worker that cannot be launched takes those down that were: their lcores are idle and their ports closed.
#[cfg(feature = "dpdk")]
#[test]
fn a_launch_that_fails_leaves_nothing_at_work() {
    common::alone("a_launch_that_fails_leaves_nothing_at_work", || {
        use sluicegate::dpdk::PoolConfig;
        use sluicegate::dpdk::eal::{Eal, Port};
        use sluicegate::dpdk::{EalPlan, Memory};

        let plan = plan(3);
        let cpu = plan.workers[0].lcore.cpu;
        let eal = EalPlan {
            memory: Memory::NoHuge,
            memory_mb: 64,
            file_prefix: common::prefix("a_launch_that_fails_leaves_nothing_at_work"),
            lcores: vec![LcorePlan { lcore: 0, cpu }, LcorePlan { lcore: 1, cpu }],
            args: vec![],
        };
        let eal = Eal::init(&eal, &["net_null0".into()]).unwrap();
        let pool = PoolConfig { name: "app".into(), buffers: 1023, data_room: 2048, cache: 0, numa: None };
        let pool = eal.pool(&pool).unwrap();
        let port = Port::open(&eal, "net_null0").unwrap();
        let host = Host::Eal(eal.clone());
        let error = App::new(plan).start_on(host, vec![port], pool.clone(), Clock::cycles()).unwrap_err();
        assert!(error.to_string().starts_with("lcore 2 cannot be given work"), "{error}");
        assert_eq!(pool.available(), pool.capacity());
        assert_eq!(eal.launch(1, || 7).unwrap().join(), Ok(7), "lcore 1 is idle");
        Port::open(&eal, "net_null0").unwrap();
    });
}
