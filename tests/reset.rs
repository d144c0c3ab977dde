//! A port is reset while the program runs: over soft ports, whose device asks for it when it is told to.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::inner::{self, End, tcp, v4};
use common::team::Team;
use common::{TUNNEL, pool_config};
use sluicegate::App;
use sluicegate::app::{Host, Resets, RunningApp};
use sluicegate::config::{Cause, Plan, PortPlan, QueueCount, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool, PortConfig, PortStats, QueuePair, RssConfig};
use sluicegate::flow::Filter;
use sluicegate::mgmt::{Round, State};
use sluicegate::packet::{DropReason, Packet, Verdict};
use sluicegate::path::{Clock, lend};
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerPacket, Shared, Stage, StageKind, WorkerId};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Flows of each port.
const FLOWS: usize = 24;

/// TCP that nobody saw begin does not pass: a flow that were forgotten would be noticed.
const FLOW: &str = "[flow]\ntracking = true\npickup = \"drop\"\nwindow_check = \"drop\"\ncapacity = 4096\n\
                    [management.health]\nhold = \"1s\"\n";

/// Two workers, each with a queue of both ports.
fn plan(extra: &str, kinds: &[&'static StageKind]) -> Plan {
    let mut plan = common::plan_with(&format!("{TUNNEL}\n{FLOW}\n{extra}"), kinds);
    let cpu = plan.workers[0].lcore.cpu;
    plan.idle = sluicegate::config::Idle::Backoff;
    let worker = |n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } };
    plan.workers = (0..2).map(worker).collect();
    // Neither key nor table is what a port has by itself.
    let rss = RssConfig { key: Some((1..=40).collect()), reta: Some(vec![1, 0, 0]) };
    let config = PortConfig { promiscuous: true, rss, ..PortConfig::default() };
    let port = |n| PortPlan {
        device: format!("soft{n}"),
        queues: QueueCount::Exactly(2),
        mtu: Some(3000),
        config: config.clone(),
    };
    plan.ports = (0..2).map(port).collect();
    plan
}

struct Lab {
    app: RunningApp,
    wires: [Wire; 2],
    pool: Mempool,
}

fn lab(extra: &str, kinds: &[&'static StageKind]) -> Lab {
    let pool = Mempool::soft(&pool_config(512));
    let port = |id: u16| {
        soft::Port::with(Setup { id, name: format!("soft{id}"), max_queues: 2, ..Setup::default() })
    };
    let ((a, wire), (b, other)) = (port(0), port(1));
    let app = App::new(plan(extra, kinds)).start_on(Host::Threads, vec![a, b], pool.clone(), Clock::cycles());
    let mut lab = Lab { app: app.expect("it starts"), wires: [wire, other], pool };
    lab.until("it is ready", |lab| lab.state() == State::Ready);
    lab
}

impl Lab {
    fn state(&self) -> State {
        self.app.health().expect("health").state
    }

    fn reasons(&self) -> Vec<(Cause, String)> {
        let reasons = &self.app.health().expect("health").reasons;
        reasons.iter().map(|reason| (reason.cause, reason.text.clone())).collect()
    }

    fn turn(&mut self) -> Round {
        let round = self.app.manage();
        std::thread::yield_now();
        round
    }

    /// Turns until it is so, and gives back what was said.
    fn until(&mut self, what: &str, mut so: impl FnMut(&mut Lab) -> bool) -> Vec<String> {
        let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
        while !so(self) {
            said.extend(self.turn().said);
            assert!(
                Instant::now() < deadline,
                "{what}: {:?}, {said:?}, {:?}",
                self.app.health(),
                self.app.snapshot()
            );
        }
        said
    }

    fn resets(&self, port: usize) -> Resets {
        self.app.ports()[port].resets()
    }

    fn opened(&self) -> u64 {
        self.app.snapshot().workers.iter().map(|worker| worker.flows.opened).sum()
    }

    fn dropped(&self) -> u64 {
        self.app.snapshot().workers.iter().map(|worker| worker.dropped()).sum()
    }

    fn end(self) -> sluicegate::app::Report {
        let report = self.app.stop();
        assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
        assert_eq!(self.pool.available(), self.pool.capacity());
        for wire in &self.wires {
            assert!(wire.counts().balances(), "{:?}", wire.counts());
        }
        report
    }
}

/// Established connections of one port.
struct Talk {
    ends: Vec<[End; 2]>,
    sequence: Vec<u32>,
    sent: u64,
    port: u8,
}

impl Talk {
    /// Shakes hands; each packet comes home before the next is sent.
    fn begin(lab: &mut Lab, port: u8) -> Talk {
        let end = |n: usize| [v4(10, port, 0, n as u8, 40_000), v4(192, 0, 2, 1, 443)];
        let mut talk =
            Talk { ends: (0..FLOWS).map(end).collect(), sequence: vec![1001; FLOWS], sent: 0, port };
        for (flags, reply, seq, ack) in
            [("S", false, 1000, 0), ("SA", true, 5000, 1001), ("A", false, 1001, 5001)]
        {
            for n in 0..FLOWS {
                talk.send(lab, n, reply, flags, (seq, ack), &[]);
            }
            talk.all_home(lab);
        }
        talk
    }

    fn send(
        &mut self,
        lab: &Lab,
        n: usize,
        reply: bool,
        flags: &str,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) {
        let [from, to] = self.ends[n];
        let (from, to) = if reply { (to, from) } else { (from, to) };
        // Replies of every other flow come in by another queue, mostly.
        let outer = 60_000 + 37 * n as u16 + if reply && n % 2 == 1 { 1000 } else { 0 };
        let frame = inner::wrap(&tcp(from, to, flags, seq, ack, payload), n as u32, outer);
        lab.wires[usize::from(self.port)].send(frame);
        self.sent += 1;
    }

    /// Some data from each client, and then an answer; all of it comes home. An answer that overtook what it answers, by another queue, would be nobody's.
    fn data(&mut self, lab: &mut Lab) {
        for n in 0..FLOWS {
            self.send(lab, n, false, "PA", (self.sequence[n], 5001), b"hello");
            self.sequence[n] += 5;
        }
        self.all_home(lab);
        for n in 0..FLOWS {
            self.send(lab, n, true, "A", (5001, self.sequence[n]), b"");
        }
        self.all_home(lab);
    }

    /// Waits until everything that was sent has come home.
    fn all_home(&mut self, lab: &mut Lab) {
        let port = usize::from(self.port);
        let mut home = 0;
        lab.until("all is home", |lab| {
            while lab.wires[port].receive().is_some() {
                home += 1;
            }
            home >= self.sent
        });
        assert_eq!(home, self.sent);
        self.sent = 0;
    }
}

/// Each field is at least what it was.
fn grows(before: &PortStats, now: &PortStats) {
    let fields = |s: &PortStats| {
        [
            s.rx_packets,
            s.tx_packets,
            s.rx_bytes,
            s.tx_bytes,
            s.rx_missed,
            s.rx_no_buffer,
            s.rx_errors,
            s.tx_errors,
        ]
    };
    assert!(fields(before).iter().zip(fields(now)).all(|(before, now)| *before <= now), "{before:?} {now:?}");
}

/// Traffic before, during and after; two workers, each with a queue of both ports. What comes by the other port does not notice. Flows stay, none is opened
/// again; the port is configured as it was; its counters go on; everything is accounted for.
#[test]
fn a_port_is_reset_and_its_flows_go_on() {
    let mut lab = lab("", &[]);
    let (mut other, mut own) = (Talk::begin(&mut lab, 0), Talk::begin(&mut lab, 1));
    own.data(&mut lab);
    let facts = lab.app.ports()[1].facts().clone();
    let flows = lab.app.flows().expect("flows").iter(&Filter::default()).count();
    assert_eq!((flows, lab.opened(), lab.dropped()), (2 * FLOWS, 2 * FLOWS as u64, 0));
    assert_eq!(facts.rss.key, Some((1..=40).collect::<Vec<u8>>()));

    for round in 1..=2 {
        lab.wires[1].want_reset();
        let (mut failed, mut stats) = (false, lab.app.ports()[1].stats());
        let said = lab.until("it is reset", |lab| {
            // By the other port all comes home, during all of it; and what waits for the port itself may be lost, and is counted.
            other.data(lab);
            lab.wires[1].send(inner::wrap(
                &inner::udp(v4(10, 9, 9, 9, 1), v4(10, 9, 9, 8, 2), b"x"),
                9,
                60_009,
            ));
            let now = lab.app.ports()[1].stats();
            grows(&stats, &now);
            stats = now;
            failed |= lab.state() == State::Failed;
            lab.resets(1).done == round
        });
        assert!(failed, "health says so meanwhile");
        let _ = said; // what was said while others came home is not in it
        assert_eq!(lab.wires[1].resets(), round);
        assert_eq!(lab.app.ports()[1].facts(), &facts, "key, table, MTU as they were");
        // The datagrams are one flow more.
        while lab.wires[1].counts().waiting > 0 {
            lab.turn();
        }
        lab.until("the workers are done", |lab| {
            lab.wires[1].counts().delivered + lab.wires[0].counts().delivered
                == lab.app.snapshot().ledger().sent + lab.dropped()
        });
        while lab.wires[1].receive().is_some() {}
        own.data(&mut lab);
        lab.until("it is well", |lab| lab.state() == State::Ready);
    }
    assert!(lab.opened() <= 2 * FLOWS as u64 + 1, "no flow was opened again: {}", lab.opened());
    assert_eq!(lab.dropped(), 0);
    assert_eq!((lab.resets(0), lab.resets(1)), (Resets::default(), Resets { done: 2, failed: 0 }));
    let [_, wire] = lab.wires.clone();
    let report = lab.end();
    let counts = wire.counts();
    let stats = report.snapshot.ports[1].stats;
    assert_eq!((stats.rx_packets, stats.tx_packets), (counts.delivered, counts.taken), "over three lives");
}

/// What a device asks for and what became of it is said, once each.
#[test]
fn what_happens_is_said() {
    let mut lab = lab("", &[]);
    assert!(!lab.app.reset_port(7), "there is no such port");
    assert!(lab.app.reset_port(1));
    let said = lab.until("it is reset", |lab| lab.resets(1).done == 1);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], "port 1 (soft1): the device asks for a reset and passes nothing until then");
    assert!(said[1].starts_with("port 1 (soft1): reset and started again, "), "{said:?}");
    lab.until("it is well", |lab| lab.state() == State::Ready);
    lab.end();
}

/// Both ports at once, whose letters go to the same workers.
#[test]
fn two_ports_are_reset_at_once() {
    let mut lab = lab("", &[]);
    let (mut a, mut b) = (Talk::begin(&mut lab, 0), Talk::begin(&mut lab, 1));
    lab.wires.iter().for_each(Wire::want_reset);
    lab.until("both are reset", |lab| lab.resets(0).done + lab.resets(1).done == 2);
    for talk in [&mut a, &mut b] {
        talk.data(&mut lab);
    }
    assert_eq!((lab.opened(), lab.dropped()), (2 * FLOWS as u64, 0));
    lab.end();
}

/// A reset or a start that fails is tried again, later each time; health says why, and recovers.
#[test]
fn what_fails_is_tried_again() {
    let mut lab = lab("", &[]);
    let (mut other, mut own) = (Talk::begin(&mut lab, 0), Talk::begin(&mut lab, 1));
    lab.wires[1].refuse(1, 1);
    lab.wires[1].want_reset();
    let mut why = Vec::new();
    let said = lab.until("it is reset", |lab| {
        why.extend(lab.reasons());
        lab.resets(1) == Resets { done: 1, failed: 2 }
    });
    why.dedup();
    let has = |texts: &[String], what: &str| texts.iter().any(|text| text.contains(what));
    let texts: Vec<String> = why.iter().map(|(_, text)| text.clone()).collect();
    assert!(why.iter().all(|(cause, _)| *cause == Cause::DeviceReset), "{why:?}");
    assert!(has(&texts, "port 1 could not be reset, and passes nothing: reset soft1 failed: "), "{texts:?}");
    assert!(has(&texts, "start soft1 failed: ") && has(&texts, "attempt 2 follows"), "{texts:?}");
    assert!(
        has(&said, "attempt 1 to reset it failed: reset soft1") && has(&said, "the next one is in 1 s"),
        "{said:?}"
    );
    assert!(
        has(&said, "attempt 2 to reset it failed: start soft1") && has(&said, "the next one is in 2 s"),
        "{said:?}"
    );
    lab.until("it is well", |lab| lab.state() == State::Ready);
    for talk in [&mut other, &mut own] {
        talk.data(&mut lab);
    }
    assert_eq!((lab.opened(), lab.dropped()), (2 * FLOWS as u64, 0));
    lab.end();
}

/// A frame that would leave by a port which is being reset is counted, whoever brings it; the flow stays, and the next one leaves.
#[test]
fn a_parcel_for_a_port_that_is_away_is_counted() {
    let mut team = Team::new(2, "", 64);
    let (letters, mut end) = lend();
    let owner = team.workers.remove(1).with_lend(letters);
    team.workers.push(owner);
    let datagram = || inner::wrap(&inner::udp(v4(10, 1, 0, 1, 1), v4(10, 2, 0, 1, 2), b"x"), 7, 60_001);
    let all_to = |team: &Team, queue| (0..128).for_each(|entry| assert!(team.wire.redirect(entry, queue)));
    let arrives = |team: &mut Team| {
        team.wire.send(datagram());
        team.settle();
        team.wire.receive().is_some()
    };
    all_to(&team, 1);
    assert!(arrives(&mut team));
    all_to(&team, 0);
    assert!(arrives(&mut team), "handed over");
    end.send(vec![QueuePair::away(0, 1)]).expect("room");
    assert!(!arrives(&mut team));
    let own = end.take_back().expect("its lane");
    assert!(own.len() == 1 && !own[0].is_away());
    let now = &team.snapshots()[1];
    assert_eq!((now.drops[DropReason::PortReset as usize], now.dropped(), now.flows.opened), (1, 1, 1));
    assert_eq!(now.drops[DropReason::TxFull as usize], 0);
    end.send(own).expect("room");
    assert!(arrives(&mut team));
    assert!(end.take_back().is_some_and(|pairs| pairs.len() == 1 && pairs[0].is_away()));
    assert_eq!((team.flows().opened, team.ledger().dropped), (1, 1));
}

// A stage that hangs when it is told to.

static HANG: AtomicBool = AtomicBool::new(false);
static HANGS: StageKind = StageKind {
    name: "hangs",
    summary: "waits",
    help: "",
    example: "",
    reasons: &[],
    parse: |_| Ok(Box::new(Hangs)),
};

#[derive(Debug)]
struct Hangs;

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

impl Inspect for Hangs {
    fn inspect(&mut self, packet: &mut Packet<'_>, _: &mut Cx<'_>) -> Verdict {
        while packet.inner().ends_with(b"hang") && HANG.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Verdict::Next
    }
}

/// A worker that hangs keeps its lanes: it is named, and the reset comes when it lives again.
#[test]
fn a_reset_waits_for_a_worker_that_hangs_and_names_it() {
    let mut lab = lab("[management]\n[[stage]]\nuse = \"hangs\"\nname = \"molasses\"\n", &[&HANGS]);
    HANG.store(true, Ordering::Relaxed);
    lab.wires[0].send(inner::wrap(&inner::udp(v4(10, 1, 0, 1, 1), v4(10, 2, 0, 1, 2), b"hang"), 7, 60_001));
    lab.until("it hangs", |lab| lab.reasons().iter().any(|(cause, _)| *cause == Cause::WorkerStuck));
    lab.wires[1].want_reset();
    let named =
        |text: &str| text.contains("waits for worker") && text.contains("inspect, stage 0 \"molasses\"");
    let mut said = lab.until("it is named", |lab| {
        lab.reasons().iter().any(|(cause, text)| *cause == Cause::DeviceReset && named(text))
    });
    assert_eq!(said.iter().filter(|text| named(text)).count(), 1, "{said:?}");
    assert_eq!((lab.wires[1].resets(), lab.resets(1)), (0, Resets::default()));
    HANG.store(false, Ordering::Relaxed);
    said = lab.until("it is reset", |lab| lab.resets(1).done == 1);
    assert!(!said.iter().any(|text| named(text)), "once: {said:?}");
    lab.until("it is well", |lab| lab.state() == State::Ready);
    lab.end();
}

/// Whoever stops in the middle of it gets everything back: lanes on their way to workers and from them, ports on their thread, stopped or started.
#[test]
fn a_stop_in_the_middle_gives_everything_back() {
    for turns in 0..60 {
        let mut lab = lab("", &[]);
        if turns % 3 == 0 {
            lab.wires[1].refuse(1, 0);
        }
        if turns % 2 == 0 {
            lab.wires[0].want_reset();
        }
        lab.wires[1].want_reset();
        lab.until("it has begun", |lab| lab.state() == State::Failed);
        for _ in 0..turns / 2 {
            lab.turn();
            std::thread::sleep(Duration::from_micros(50));
        }
        lab.end();
    }
}
