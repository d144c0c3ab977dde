//! Reloads of an application at work, on threads: under load, with a broken file, with a worker that hangs.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::App;
use sluicegate::app::{Host, Reloaded, RunningApp};
use sluicegate::config::{self, Idle, Machine, Options, Overrides, Plan, Problem, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::flow::{Filter, Standing};
use sluicegate::mgmt::State;
use sluicegate::packet::{Packet, Verdict};
use sluicegate::path::Clock;
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerPacket, Shared, Stage, StageKind, WorkerId};

use common::inner::{udp, v4, wrap};
use common::talk::{Came, Talk};
use common::{TUNNEL, pool_config, say};

const PATIENCE: Duration = Duration::from_secs(60);

#[global_allocator]
static HEAP: common::heap::Heap = common::heap::Heap::new();

/// A stage of the tests that waits in a packet to port 666 until it is told to go on.
static HANGS: StageKind = StageKind {
    name: "hangs",
    summary: "",
    help: "",
    example: "",
    reasons: &[],
    parse: |_| Ok(Box::new(Hangs)),
};
static GO_ON: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug)]
struct Hangs;

impl Inspect for Hangs {
    fn inspect(&mut self, packet: &mut Packet<'_>, _: &mut Cx<'_>) -> Verdict {
        while packet.meta().destination_port == 666 && !GO_ON.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
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

/// As it is before any thread is pinned.
static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::here);

/// A plan of two workers on threads, of this text behind what all have.
fn load(text: &str) -> Result<Plan, Vec<Problem>> {
    let text = format!(
        "{TUNNEL}\n[eal]\nidle = \"backoff\"\n[flow]\ntracking = true\nwindow_check = \"drop\"\ncapacity = 4096\n{text}"
    );
    let kinds: Vec<&'static StageKind> = sluicegate::stages::ALL.iter().copied().chain([&HANGS]).collect();
    let options = Options { need_ports: false, kinds: &kinds, machine: MACHINE.clone(), files: true };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = config::load_text("test.toml", &text, root, &Overrides::default(), &options)?;
    let cpu = plan.workers[0].lcore.cpu;
    plan.idle = Idle::Backoff;
    plan.workers = (0..2)
        .map(|n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } })
        .collect();
    Ok(plan)
}

struct House {
    app: RunningApp,
    wire: Wire,
}

impl House {
    fn new(text: &str) -> House {
        let (port, wire) = soft::Port::with(Setup { max_queues: 2, ..Setup::default() });
        let plan = load(text).unwrap();
        let pool = Mempool::soft(&pool_config(4096));
        let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
        House { app, wire }
    }

    fn ask(&mut self, text: &str) {
        let text = text.to_owned();
        self.app.reload(Box::new(move || load(&text))).expect("none is under way");
    }

    /// What became of a reload, while `meanwhile` goes on.
    fn wait(&mut self, mut meanwhile: impl FnMut(&Wire)) -> Reloaded {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE);
            if let Some(reloaded) = self.app.manage().reloaded {
                return reloaded;
            }
            meanwhile(&self.wire);
            std::thread::yield_now();
        }
    }

    fn reload(&mut self, text: &str) -> Reloaded {
        self.ask(text);
        self.wait(|_| ())
    }

    /// Rounds of the management side until it is so.
    fn until(&mut self, what: &str, mut so: impl FnMut(&RunningApp) -> bool) {
        let begun = Instant::now();
        while !so(&self.app) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn dropped(&self, label: &str) -> u64 {
        let drops = self.app.snapshot().drops();
        let id = self.app.plan().reasons.iter().find(|(_, other, _)| *other == label).expect("a reason").0;
        drops[usize::from(id.0)]
    }

    fn send(&self, flow: u8, port: u16) {
        self.wire.send(wrap(&udp(v4(10, 1, 0, flow, 40_000), v4(192, 0, 2, 1, port), b"x"), 7, 60_001));
    }

    fn counted(&self) -> u64 {
        let ledger = self.app.snapshot().ledger();
        ledger.sent + ledger.dropped
    }
}

fn is_done(reloaded: &Reloaded) -> bool {
    matches!(reloaded, Reloaded::Done { behind, .. } if behind.is_empty())
}

const WEB: &str = r#"
[[stage]]
use = "acl"
rule = [
    { action = "allow", protocol = "tcp", destination_port = 443 },
    { action = "allow", protocol = "udp", destination_port = 443 },
]
"#;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

fn collect(talk: &mut Talk, wire: &Wire, frame: &mut Vec<u8>) {
    while wire.receive_into(frame) {
        if let Came::Numbered { flow, reply, number, late } = talk.came(frame) {
            assert!(!late, "flow {flow}, reply {reply}: {number} was overtaken");
        }
    }
}

/// The issue's promise: 100 reloads, 1,000 established flows in both directions, half of them misaligned.
#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_break_no_flow() {
    const FLOWS: usize = 1000;
    const OUT: u64 = 600;
    // Where the server speaks first it is the originator.
    let rule = "\n    { action = \"allow\", protocol = \"udp\", source_port = 443 },\n]\n";
    let web = &WEB.replace("\n]\n", rule);
    let plans = [
        web.to_owned(),
        // Other rules with the same answers, other times, a stage in front.
        format!(
            "tcp_idle = \"400s\"\n[[stage]]\nuse = \"count\"\nby = \"direction\"\n{}",
            web.replace("destination_port = 443", "destination_port = \"443|80\"")
        ),
        // Moved, and a reader of streams that comes and goes.
        format!(
            "{web}\n[[stage]]\nuse = \"count\"\nby = \"direction\"\n[[stage]]\nuse = \"tls\"\ndeny_below = \"1.2\"\n"
        ),
        format!("[[stage]]\nuse = \"sample\"\none_in = 2\n{web}"),
    ];
    let mut house = House::new(&plans[0]);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut talk = Talk::new(FLOWS, &mut random, |entry| (entry % 2) as u16);
    let mut frame = Vec::new();
    let mut feed = |talk: &mut Talk, wire: &Wire| {
        collect(talk, wire, &mut frame);
        while talk.out() + 3 <= OUT {
            match talk.next(random.random_range(0..FLOWS), &mut random) {
                Some((packet, _)) => wire.send(packet),
                None => break,
            }
        }
    };
    // All handshakes first.
    let begun = Instant::now();
    while house.app.flows().unwrap().live().map(|(_, _, n)| n).sum::<u32>() < FLOWS as u32
        || talk.sent < 20_000
    {
        assert!(begun.elapsed() < PATIENCE);
        feed(&mut talk, &house.wire);
        house.app.manage();
    }
    // The least of some rounds, always with the same plan: what was let go may go back to the system later.
    let (mut memory, mut heap, mut worst, before) = ([u64::MAX; 2], [i64::MAX; 2], 0, talk.sent);
    for round in 1..=100 {
        house.ask(&plans[round % plans.len()]);
        let reloaded = house.wait(|wire| feed(&mut talk, wire));
        assert!(is_done(&reloaded), "{round}: {reloaded:?}");
        let Reloaded::Done { took_ms, .. } = reloaded else { unreachable!() };
        worst = worst.max(took_ms);
        let half = usize::from(round > 60);
        if round > 20 && round % plans.len() == 0 {
            memory[half] = resident().min(memory[half]);
            heap[half] = HEAP.bytes().min(heap[half]);
        }
    }
    let grown = memory[1].saturating_sub(memory[0]);
    let (during, begun) = (talk.sent - before, Instant::now());
    while talk.out() > 0 {
        let lost = || {
            house
                .app
                .plan()
                .reasons
                .iter()
                .map(|r| r.1.to_owned())
                .zip(house.app.snapshot().drops())
                .filter(|(_, n)| *n > 0)
                .collect::<Vec<_>>()
        };
        assert!(begun.elapsed() < PATIENCE / 3, "{} frames are lost: {:?}", talk.out(), lost());
        collect(&mut talk, &house.wire, &mut frame);
        house.app.manage();
    }
    let snapshot = house.app.snapshot();
    let opened: u64 = snapshot.workers.iter().map(|worker| worker.flows.opened).sum();
    assert_eq!((opened, snapshot.ledger().dropped), (FLOWS as u64, 0));
    assert_eq!((snapshot.ledger().received, snapshot.ledger().sent), (talk.sent, talk.sent));
    assert!(grown < 16 << 20, "{grown} bytes more after 40 reloads");
    // A pipeline that stayed, with what it has for each flow, would be this much every time.
    let lent = heap[1] - heap[0];
    assert!(lent < 256 << 10, "{lent} bytes more on loan after 40 reloads");
    say(&format!(
        "100 reloads, the slowest {worst} ms; {during} packets meanwhile; {grown} bytes of memory more, {lent} of them on loan"
    ));

    // And one that is denied now is cut, the others go on.
    let cut = format!(
        "[[stage]]\nuse = \"acl\"\nname = \"cut\"\ndefault = \"allow\"\nrule = [{{ action = \"deny\", source = \"10.0.0.7\" }}]\n{web}"
    );
    assert!(is_done(&house.reload(&cut)));
    let (mut random, begun) = (ChaCha8Rng::seed_from_u64(12), Instant::now());
    let before = house.counted();
    for flow in [7, 9, 7, 9, 7, 9] {
        house.wire.send(talk.next(flow, &mut random).expect("UDP").0);
    }
    while house.counted() < before + 6 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert_eq!(house.dropped("cut.deny") + house.dropped("flow_condemned"), 3);
    let condemned = Filter { verdict: Some(Standing::Condemned), ..Filter::default() };
    let seen: Vec<_> = house.app.flows().unwrap().iter(&condemned).collect();
    assert_eq!((seen.len(), seen[0].reason.as_deref()), (1, Some("cut.deny")));
    let report = house.app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
}

#[test]
fn a_broken_file_changes_nothing_and_a_good_one_heals() {
    let text = format!("{WEB}\n[management.health]\nhold = \"0s\"\n");
    let mut house = House::new(&text);
    house.until("ready", |app| app.health().is_some_and(|status| status.state == State::Ready));
    for flow in 1..=20 {
        house.send(flow, 443);
    }
    house.until("counted", |app| app.snapshot().ledger().sent == 20);
    let broken = [
        (text.replace("allow", "alow"), "alow"),
        (text.replace("use = \"acl\"", "use = \"acl\"\nrules = \"not/there.csv\""), "not/there.csv"),
        (format!("{text}\nnonsense = 1\n"), "nonsense"),
    ];
    for (n, (broken, word)) in broken.iter().enumerate() {
        let expected: Vec<String> = load(broken).unwrap_err().iter().map(ToString::to_string).collect();
        let reloaded = house.reload(broken);
        assert_eq!(reloaded, Reloaded::Refused { problems: expected.clone(), restart: Vec::new() });
        assert!(expected.iter().any(|line| line.contains(word)), "{expected:?}");
        house.until("degraded, and says why", |app| {
            let status = app.health().unwrap();
            assert!(status.state.is_fit());
            status.state == State::Degraded && status.reasons[0].text.contains(&expected[0])
        });
        // Flows and rules are what they were.
        for flow in 1..=20 {
            house.send(flow, 443);
        }
        house.until("counted", |app| app.snapshot().ledger().sent == 20 * (n as u64 + 2));
    }
    assert_eq!(house.app.snapshot().stage_totals()[0].seen, 20, "nobody was asked again");
    // What needs a restart is named, each with its values, and nothing of the rest is done.
    let other = text.replace(WEB, &WEB.replace("443", "444")).replace("hold =", "port = 81\nhold =");
    let reloaded = house.reload(&format!("handoff_ring = 2048\n{other}"));
    let Reloaded::Refused { problems, restart } = &reloaded else { panic!("{reloaded:?}") };
    assert!(problems.is_empty());
    let said: Vec<String> = restart.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["flow.handoff_ring: 1024 -> 2048", "management.health.port: 80 -> 81"]);
    assert!(reloaded.lines()[0].ends_with("1024 -> 2048 needs a restart"));
    // The same again is good, and does nothing; and so is something else.
    assert_eq!(house.reload(&text), Reloaded::Unchanged);
    house.until("ready", |app| app.health().is_some_and(|status| status.state == State::Ready));
    let stages = format!("{text}\n[[stage]]\nuse = \"count\"\n");
    let reloaded = house.reload(&format!("denied = \"20s\"\n{stages}"));
    let Reloaded::Done { stages, changed, .. } = &reloaded else { panic!("{reloaded:?}") };
    assert_eq!((stages.added.as_slice(), stages.kept), (&["count".to_owned()][..], 1));
    assert_eq!(changed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["flow.denied: 10s -> 20s"]);
    assert!(house.app.stop().is_clean());
}

#[test]
fn counters_go_on_by_name() {
    let mut house = House::new(WEB);
    for flow in 1..=20 {
        house.send(flow, 443);
        house.send(flow, 53);
    }
    house.until("counted", |app| app.snapshot().stage_totals()[0].seen == 40);
    let acl = WEB.replace("allow\", protocol = \"tcp\"", "deny\", protocol = \"tcp\"");
    assert!(is_done(&house.reload(&format!("[[stage]]\nuse = \"count\"\n{acl}"))));
    let now = house.app.snapshot();
    assert_eq!((now.stage_totals()[0].seen, now.stage_totals()[1].seen), (0, 40));
    assert_eq!(house.dropped("acl.default_deny"), 20);
    let hits = |house: &House| {
        let stages = house.app.snapshot().stages;
        stages.last().unwrap().iter().map(|(_, n)| *n).collect::<Vec<u64>>()
    };
    // The rule that is as it was has its hits, the one that is another begins at nothing.
    assert_eq!(hits(&house), [0, 20, 20]);
    house.send(1, 443);
    house.until("asked again", |app| app.snapshot().stage_totals()[1].seen == 41);
    assert_eq!(hits(&house), [0, 21, 20]);
    assert!(is_done(&house.reload(WEB)));
    assert_eq!(hits(&house), [0, 21, 20]);
    // A stage that was away for a while goes on where it was.
    assert!(is_done(&house.reload("[[stage]]\nuse = \"count\"\n")) && is_done(&house.reload(WEB)));
    assert_eq!(house.app.snapshot().stage_totals()[0].seen, 41);
    let report = house.app.stop();
    assert!(report.is_clean());
}

#[test]
fn a_worker_that_hangs_is_named_and_comes_to_the_newest_plan_when_it_lives_again() {
    /// Whatever happens, nobody waits for the worker.
    struct GoOn;
    impl Drop for GoOn {
        fn drop(&mut self) {
            GO_ON.store(true, Ordering::Relaxed);
        }
    }
    let mut house = House::new("[[stage]]\nuse = \"hangs\"\n");
    let _go_on = GoOn;
    house.send(1, 53);
    house.until("sent", |app| app.snapshot().ledger().sent == 1);
    house.send(1, 666);
    std::thread::sleep(Duration::from_millis(50));
    let first = house.reload(&format!("[[stage]]\nuse = \"hangs\"\n{WEB}"));
    let Reloaded::Done { behind, stages, .. } = &first else { panic!("{first:?}") };
    assert_eq!((behind.len(), stages.added.as_slice()), (1, &["acl".to_owned()][..]));
    let named = behind[0].ends_with("has not taken it yet: it is in inspect, stage 0 \"hangs\"");
    assert!(behind[0].starts_with("worker ") && named, "{behind:?}");
    // The others have it, and the next one is not held up.
    let second = house.reload(&format!("[[stage]]\nuse = \"count\"\n{}", WEB.replace("443", "53")));
    assert!(matches!(&second, Reloaded::Done { behind, .. } if behind.len() == 1), "{second:?}");
    GO_ON.store(true, Ordering::Relaxed);
    // By two steps at once: asked under the newest rules.
    let begun = Instant::now();
    house.until("the newest plan", |app| {
        app.snapshot().workers.iter().all(|worker| worker.busy_polls + worker.idle_polls > 0)
            && begun.elapsed() > Duration::from_millis(300)
    });
    for flow in 1..=40 {
        house.send(flow, 53);
        house.send(flow, 443);
    }
    house.until("counted", |app| app.snapshot().ledger().sent + app.snapshot().ledger().dropped == 82);
    assert_eq!(house.dropped("acl.default_deny"), 40);
    let report = house.app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
}
