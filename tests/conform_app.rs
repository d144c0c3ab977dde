//! The judge over Ethernet: its ARP, its TCP and its frames against a whole application on a soft port, health included.

mod common;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::pool_config;
use sluicegate::App;
use sluicegate::app::{Host, RunningApp};
use sluicegate::config::{Idle, WorkerPlan};
use sluicegate::conform::wire::{Ask, Asked, Ethernet, Link};
use sluicegate::conform::{Health, Report, Settings, Verdict, Wire, checks, judge};
use sluicegate::dpdk::soft::{self, Setup};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::mgmt::State;
use sluicegate::path::Clock;
use sluicegate::stage::WorkerId;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The far end of a soft port.
struct Far(soft::Wire);

impl Link for Far {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 9, 60]
    }

    fn mtu(&self) -> usize {
        9001
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.0.send_copy(frame);
        true
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.receive()
    }

    fn idle(&mut self) {
        std::thread::yield_now();
    }
}

/// An application that is ready, and the far end of its wire.
fn appliance(extra: &str) -> (RunningApp, soft::Wire) {
    let text = format!(
        "[[port]]\ndevice = \"net_null0\"\naddress = \"10.254.11.102/24\"\n{}verify_checksum = \"always\"\n\
         [flow]\ntracking = true\n{extra}",
        common::TUNNEL
    );
    let mut plan = common::plan(&text);
    plan.idle = Idle::Backoff;
    let cpu = plan.workers[0].lcore.cpu;
    plan.workers = vec![WorkerPlan { id: WorkerId(0), lcore: LcorePlan { lcore: 1, cpu } }];
    let (port, wire) = soft::Port::with(Setup::default());
    let pool = Mempool::soft(&pool_config(2048));
    let mut app =
        App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles()).expect("it starts");
    let began = std::time::Instant::now();
    while app.health().is_none_or(|health| health.state != State::Ready) {
        app.manage();
        std::thread::yield_now();
        assert!(began.elapsed() < PATIENCE, "{:?}", app.health());
    }
    (app, wire)
}

fn ethernet(wire: soft::Wire) -> std::io::Result<Ethernet<Far>> {
    let (us, appliance) = ("10.254.11.60/24".parse().expect("it"), [10, 254, 11, 102].into());
    Ethernet::open(Far(wire), us, appliance, (None, None), 6081, PATIENCE)
}

/// Runs this beside the application.
fn beside<T: Send>(app: &mut RunningApp, run: impl FnOnce() -> T + Send) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            over.store(true, Ordering::Release);
            found
        });
        while !over.load(Ordering::Acquire) {
            app.manage();
            std::thread::yield_now();
        }
        let found = running.join().expect("a thread");
        found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn failed(report: &Report) -> Vec<String> {
    let failed = report.found.iter().filter(|found| found.verdict != Verdict::Passed);
    failed.map(|found| format!("{}: {}", found.check.id, found.text)).collect()
}

fn settings() -> Settings {
    Settings { wait: PATIENCE, throughput: Duration::from_millis(120), ..Settings::default() }
}

#[test]
fn an_application_gets_full_marks_over_ethernet() {
    let (mut app, wire) = appliance("");
    let report = beside(&mut app, || {
        let mut way = ethernet(wire).expect("ARP is answered");
        let all: Vec<_> = checks::all().collect();
        judge(&mut way, &settings(), &all, &mut ()).expect("a judgement")
    });
    assert_eq!(failed(&report), [""; 0]);
    assert!(report.full_marks() && report.found.len() > 50, "{}", report.summary());
    let report = app.stop();
    assert!(report.is_clean() && report.snapshot.ledger().balances() && report.buffers_out == 0);
}

/// A drain: connections are refused, and only health fails.
#[test]
fn an_application_that_drains_fails_for_health_only() {
    let (mut app, wire) = appliance("[management]\ndrain_at_least = \"600s\"\ndrain_deadline = \"700s\"\n");
    app.drain();
    let began = std::time::Instant::now();
    while app.health().is_none_or(|health| health.state != State::Draining) {
        app.manage();
        assert!(began.elapsed() < PATIENCE);
    }
    let report = beside(&mut app, || {
        let mut way = ethernet(wire).expect("ARP is answered");
        let some: Vec<_> = checks::all()
            .filter(|check| check.id.starts_with("health.") || check.id == "envelope.returned")
            .collect();
        judge(&mut way, &settings(), &some, &mut ()).expect("a judgement")
    });
    assert_eq!(
        failed(&report),
        [
            "health.tcp: port 80 refuses connections",
            "health.http: it needs health.tcp, which did not pass",
            "health.several: it needs health.tcp, which did not pass"
        ]
    );
    assert!(app.stop().is_clean());
}

/// The ways of asking, and a path that there is not.
#[test]
fn health_is_asked_for_as_it_is_told() {
    let (mut app, wire) = appliance("");
    let (bare, missing) = beside(&mut app, || {
        let mut way = ethernet(wire).expect("ARP is answered");
        let bare = way.ask(Ask { port: 80, beside: 2, request: None, wait: PATIENCE }).expect("an answer");
        let health = Some(Health { port: 80, path: Some("/nowhere".into()) });
        let some: Vec<_> = checks::all().filter(|check| check.id.starts_with("health.http")).collect();
        let report =
            judge(&mut way, &Settings { health, ..settings() }, &some, &mut ()).expect("a judgement");
        (bare, failed(&report))
    });
    assert_eq!(bare, Asked::Answer(Vec::new()));
    assert_eq!(missing, ["health.http: the answer has the status 404"]);
    assert!(app.stop().is_clean());
}

/// Nobody is there.
#[test]
fn a_neighbour_that_is_not_there_is_named() {
    let (_, wire) = soft::Port::new();
    let (us, appliance) = ("10.254.11.60/24".parse().expect("it"), [10, 254, 11, 103].into());
    let error = Ethernet::open(Far(wire), us, appliance, (None, None), 6081, Duration::from_millis(50));
    let error = error.err().expect("nobody answers");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::HostUnreachable, "10.254.11.103 does not answer ARP on this link")
    );
}
