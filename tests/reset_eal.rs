//! A port is reset over DPDK: `net_ring`, registered lcores, the event as a driver raises it. No virtual device has a reset of its own, so this is the way of drivers
//! without one: stop, configure, start.
#![cfg(feature = "dpdk")]

mod common;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::time::{Duration, Instant};

use common::inner::{self, tcp, v4};
use common::{TUNNEL, alone, pool_config, prefix};
use sluicegate::App;
use sluicegate::app::{Host, Resets, RunningApp};
use sluicegate::config::{Cause, Idle, WorkerPlan};
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::{BURST, Burst, LcorePlan, Memory, Mempool, PortConfig, QueuePair};
use sluicegate::mgmt::State;
use sluicegate::path::Clock;
use sluicegate::stage::WorkerId;

const TEST: &str = "a_device_that_asks_gets_its_reset_over_dpdk";
const PATIENCE: Duration = Duration::from_secs(60);
const FLOWS: u8 = 32;

/// Raises the event as a driver does it; false if this DPDK does not let anybody else do so.
#[allow(unsafe_code, reason = "functions of drivers, which no public header has")]
fn raise(device: &str) -> bool {
    type Find = unsafe extern "C" fn(*const c_char) -> *mut c_void;
    type Raise = unsafe extern "C" fn(*mut c_void, c_uint, *mut c_void) -> c_int;
    let symbol = |name: &CStr| {
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    let (Some(find), Some(raise)) =
        (symbol(c"rte_eth_dev_allocated"), symbol(c"rte_eth_dev_callback_process"))
    else {
        return false;
    };
    let name = CString::new(device).expect("no zero");
    // SAFETY: both have had these types since 17.11 (ethdev_driver.h); the device lives while its port is open.
    unsafe {
        let find: Find = std::mem::transmute(find);
        let raise: Raise = std::mem::transmute(raise);
        let device = find(name.as_ptr());
        !device.is_null() && raise(device, dpdk_sys::RTE_ETH_EVENT_INTR_RESET, std::ptr::null_mut()) == 0
    }
}

struct Far {
    lanes: Vec<QueuePair>,
    pool: Mempool,
}

impl Far {
    fn send(&mut self, queue: usize, frame: &[u8]) {
        let mut buffer = self.pool.alloc().expect("a buffer");
        assert!(buffer.write(frame));
        let mut burst = Burst::new();
        burst.push(buffer).expect("room");
        assert_eq!(self.lanes[queue].tx.send(&mut burst), 1);
    }

    fn receive(&mut self) -> u64 {
        let mut came = 0;
        for lane in &mut self.lanes {
            let mut burst = Burst::new();
            came += lane.rx.receive(&mut burst, BURST) as u64;
        }
        came
    }
}

fn until(app: &mut RunningApp, what: &str, mut so: impl FnMut(&mut RunningApp) -> bool) -> Vec<String> {
    let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
    while !so(app) {
        said.extend(app.manage().said);
        std::thread::yield_now();
        assert!(Instant::now() < deadline, "{what}: {:?}, {said:?}", app.health());
    }
    said
}

/// Packets of all flows, each by its queue, and all of them come home.
fn round(
    app: &mut RunningApp,
    far: &mut Far,
    reply: bool,
    flags: &str,
    (seq, ack): (u32, u32),
    payload: &[u8],
) {
    for n in 0..FLOWS {
        let (client, server) = (v4(10, 1, 0, n, 40_000), v4(192, 0, 2, 1, 443));
        let (from, to) = if reply { (server, client) } else { (client, server) };
        let inner = tcp(from, to, flags, seq, ack, payload);
        // Replies of every other flow come in by the other queue.
        let queue = usize::from(n % 2 + u8::from(reply && n % 4 < 2)) % 2;
        far.send(queue, &inner::wrap(&inner, n.into(), 60_000 + u16::from(n)));
    }
    let mut home = 0;
    until(app, "all is home", |_| {
        home += far.receive();
        home >= u64::from(FLOWS)
    });
}

#[test]
fn a_device_that_asks_gets_its_reset_over_dpdk() {
    alone(TEST, over_dpdk);
}

fn over_dpdk() {
    let text = format!(
        "{TUNNEL}\n[flow]\ntracking = true\npickup = \"drop\"\nwindow_check = \"drop\"\ncapacity = 4096\n[management.health]\nhold = \"1s\"\n"
    );
    let mut plan = common::plan(&text);
    let cpu = plan.workers[0].lcore.cpu;
    let lcore = |n: u16| LcorePlan { lcore: u32::from(n) + 1, cpu };
    plan.idle = Idle::Backoff;
    plan.workers = (0..2).map(|n| WorkerPlan { id: WorkerId(n), lcore: lcore(n) }).collect();
    plan.eal.memory = Memory::NoHuge;
    plan.eal.memory_mb = 256;
    plan.eal.file_prefix = prefix(TEST);
    plan.eal.lcores = std::iter::once(LcorePlan { lcore: 0, cpu }).chain((0..2).map(lcore)).collect();
    let eal = Eal::init(&plan.eal, &[]).expect("DPDK starts");
    let far_pool = sluicegate::dpdk::PoolConfig { name: "far".into(), ..pool_config(512) };
    let (pool, own) = (eal.pool(&pool_config(512)).expect("a pool"), eal.pool(&far_pool).expect("a pool"));
    let (far, near) = eal::cross_connect(&eal, "far", "near", 2, 256).expect("two ports");
    let config = PortConfig { mtu: own.data_room() - 32, queues: 2, ..PortConfig::default() };
    let (port, lanes) = far.start(&config, &own).expect("the far port starts");
    let mut far = Far { lanes, pool: own };
    let app = App::new(plan).start_on(Host::Eal(eal), vec![near], pool.clone(), Clock::cycles());
    let mut app = app.expect("it starts");
    until(&mut app, "it is ready", |app| app.health().is_some_and(|h| h.state == State::Ready));

    round(&mut app, &mut far, false, "S", (1000, 0), b"");
    round(&mut app, &mut far, true, "SA", (5000, 1001), b"");
    round(&mut app, &mut far, false, "A", (1001, 5001), b"");
    let facts = app.ports()[0].facts().clone();
    let mut stats = app.ports()[0].stats();
    for n in 0..3u32 {
        // The first time as a driver asks, if this DPDK can be made to; then as an operator does.
        if n > 0 || !raise("net_ring_near") {
            assert!(app.reset_port(facts.id));
        }
        until(&mut app, "it fails", |app| {
            app.health().is_some_and(|h| h.state == State::Failed && h.reasons[0].cause == Cause::DeviceReset)
        });
        let said = until(&mut app, "it is reset", |app| {
            let now = app.ports()[0].stats();
            assert!(
                now.rx_packets >= stats.rx_packets && now.tx_packets >= stats.tx_packets,
                "{stats:?} {now:?}"
            );
            stats = now;
            app.ports()[0].resets() == Resets { done: u64::from(n) + 1, failed: 0 }
        });
        assert!(
            said.iter().any(|text| text.contains("its driver has no reset; it was stopped and started")),
            "{said:?}"
        );
        assert_eq!(app.ports()[0].facts(), &facts);
        let at = (1001 + 5 * n, 5001);
        round(&mut app, &mut far, false, "PA", at, b"hello");
        round(&mut app, &mut far, true, "A", (5001, at.0 + 5), b"");
        until(&mut app, "it is well", |app| app.health().is_some_and(|h| h.state == State::Ready));
    }
    let sent = u64::from(FLOWS) * 9;
    drop((far.pool, pool));
    let report = app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
    let (flows, ledger) = (&report.snapshot.workers, report.snapshot.ledger());
    assert_eq!(
        flows.iter().map(|worker| worker.flows.opened).sum::<u64>(),
        u64::from(FLOWS),
        "none was opened again"
    );
    assert_eq!((ledger.received, ledger.sent, ledger.dropped), (sent, sent, 0));
    let stats = report.snapshot.ports[0].stats;
    assert_eq!((stats.rx_packets, stats.tx_packets), (sent, sent), "over four lives");
    port.stop(far.lanes).expect("the far port stops");
}
