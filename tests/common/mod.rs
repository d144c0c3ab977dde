//! What tests from outside share: plans from text, a worker polled by hand, golden cases.
#![allow(dead_code, reason = "every test takes what it needs")]

pub mod answers;
pub mod client;
pub mod capture;
pub mod dns;
pub mod gateway;
pub mod golden;
pub mod heap;
pub mod inner;
pub mod hello;
pub mod netns;
pub mod promtool;
pub mod talk;
pub mod team;
pub mod wild;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate::config::{self, Options, Overrides, Plan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use sluicegate::event::{Rings, Type, emitters};
use sluicegate::flow::{FlowsShared, Seed};
use sluicegate::packet::{Meta, ReasonId, ReasonTable};
use sluicegate::path::{
    Candidate, Change, Clock, Decap, Lane, MailEnd, Pipeline, Punt, Respond, Track, Worker, WorkerCounters,
    WorkerSnapshot, mailbox,
};
use sluicegate::stage::{Backend, StageKind, WorkerId};
use sluicegate::stages;
use sluicegate::wire::geneve::{AWS, Geneve};
use sluicegate::wire::inner::Inner;

/// The tunnel that golden frames and the corpus assume.
pub const TUNNEL: &str = r#"
[tunnel]
allowed_sources = ["10.254.11.0/24"]
addresses = ["10.254.11.102"]
"#;

/// A plan from the text of a configuration, with stages of the crate and of the test.
pub fn plan_with(text: &str, kinds: &[&'static StageKind]) -> Plan {
    let kinds: Vec<&'static StageKind> = stages::ALL.iter().chain(kinds).copied().collect();
    let options = Options { need_ports: false, kinds: &kinds, ..Options::default() };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    config::load_text("test.toml", text, root, &Overrides::default(), &options).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}\nin\n{text}", lines.join("\n"))
    })
}

/// A plan from the text of a configuration.
pub fn plan(text: &str) -> Plan {
    plan_with(text, &[])
}

/// A golden frame of AWS's usual form, with what decap finds in it.
pub fn usual(name: &str) -> (Vec<u8>, Meta) {
    let cases = answers::cases();
    let frame = cases.into_iter().find(|case| case.name == name).expect("a golden case").frame;
    let geneve = Geneve::new_checked(&frame[42..]).expect("GENEVE");
    let found = AWS.read(&geneve).expect("AWS's options");
    let at = 42 + geneve.header_len() as u16;
    let inner = Inner::parse(geneve.payload(), geneve.protocol()).expect("an inner packet");
    let meta = Meta {
        endpoint: found.endpoint,
        cookie: found.cookie,
        outer: 14,
        outer_header_len: 20,
        protocol: inner.protocol,
        flags: inner.flags,
        inner: at,
        inner_len: inner.len,
        transport: at + inner.transport,
        transport_len: inner.transport_len,
        source_port: inner.source_port,
        destination_port: inner.destination_port,
        tcp_flags: inner.tcp_flags,
        outer_source_port: u16::from_be_bytes([frame[34], frame[35]]),
        node: [frame[26], frame[27], frame[28], frame[29]],
        ..Meta::default()
    };
    (frame, meta)
}

/// Makes a plan tell of anomalies.
pub const ANOMALIES: &str = "[events]\ntypes = [\"anomaly\"]\n[[events.sink]]\nto = \"stdout\"\n";

/// What became of a frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Fate {
    /// It came back, as these bytes.
    Home(Vec<u8>),
    /// It is the host stack's.
    Punted,
    /// It was dropped for the reason of this label.
    Dropped(String),
    /// It vanished, or was counted more than once: a fault of the path.
    Lost(String),
}

impl std::fmt::Debug for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate::Home(bytes) => {
                write!(f, "home {} B ", bytes.len())?;
                bytes.iter().take(160).try_for_each(|b| write!(f, "{b:02x}"))
            }
            Fate::Punted => f.write_str("punted"),
            Fate::Dropped(reason) => write!(f, "dropped {reason}"),
            Fate::Lost(how) => write!(f, "LOST: {how}"),
        }
    }
}

/// One worker over one soft port, polled by hand, under a clock that stands still.
#[derive(Debug)]
pub struct Rig {
    pub worker: Worker,
    pub wire: Wire,
    pub pool: Mempool,
    pub port: RunningPort,
    pub pipeline: Pipeline,
    pub reasons: ReasonTable,
    /// Frames that were made in answer to the last.
    pub answers: Vec<Vec<u8>>,
    /// What the worker tells, where the plan has a sink for it.
    pub rings: Rings,
    mail: MailEnd,
    hand: Arc<AtomicU64>,
}

impl Rig {
    /// A rig for a plan; room for the largest frame that a port of MTU 9001 carries.
    pub fn new(plan: &Plan) -> Rig {
        Rig::with_pool(plan, &pool_config(256))
    }

    /// The same with a pool of its own.
    pub fn with_pool(plan: &Plan, pool: &PoolConfig) -> Rig {
        Rig::over(plan, pool, Setup::default())
    }

    /// The same over a port that misbehaves as it is told to.
    pub fn over(plan: &Plan, pool: &PoolConfig, setup: Setup) -> Rig {
        let pool = Mempool::soft(pool);
        let (port, wire) = soft::Port::with(setup);
        let config = PortConfig { mtu: pool.data_room() - 32, ..PortConfig::default() };
        let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
        let (clock, hand) = Clock::manual();
        let counters = WorkerCounters::new(WorkerId(0), &plan.reasons, plan.stages.len());
        let tenants = if plan.flow.tracking { plan.flow.tenants.len() } else { 1 };
        let counters = Arc::new(counters.with_queues([(0, 0)].into_iter()).with_tenants(tenants));
        let pipeline = Pipeline::build(plan, Backend::Soft).expect("stages build");
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(1));
        let track = shared.map(|shared| Track::of(plan, &shared, None, &counters));
        let (mut rings, wanted) = (Rings::default(), plan.events.wanted());
        let telling = emitters(&plan.events, wanted, plan.reasons.len(), counters.events.clone(), &mut rings);
        let mut worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel.clone()),
            pipeline.make(WorkerId(0)),
            plan.burst,
            plan.idle,
            clock,
            counters,
        )
        .with_flows(track)
        .with_events(telling)
        .with_answers(Respond::of(plan, &pool));
        let (mail_of_worker, mail) = mailbox();
        worker = worker.with_mail(mail_of_worker);
        let told = wanted.has(Type::Flow) || wanted.has(Type::FlowStart);
        if let Some(flows) = worker.flows().filter(|_| told) {
            rings.flows.push(flows.listen(plan.flow.events_ring as usize));
        }
        let (reasons, answers) = (plan.reasons.clone(), Vec::new());
        Rig { worker, wire, pool, port, pipeline, reasons, answers, rings, mail, hand }
    }

    /// The same with a way to a host stack, or without.
    pub fn with_punt(mut self, punt: Option<Punt>) -> Rig {
        self.worker = self.worker.with_punt(punt);
        self
    }

    /// Another plan: what was until now comes back when every flow knows.
    pub fn reload(&mut self, plan: &Plan) {
        self.send(plan);
        while !self.is_back() {
            self.worker.poll();
        }
    }

    /// The same without waiting for that.
    pub fn send(&mut self, plan: &Plan) {
        let next = self.pipeline.next(plan, Backend::Soft).expect("stages build");
        let counters = self.worker.counters().clone();
        let change = Change::new(&self.pipeline, &next, plan, &self.pool, &counters);
        self.mail.send(Box::new(change)).expect("a free place");
        self.pipeline = next;
        self.reasons = plan.reasons.clone();
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        counters.show(&names, plan.reasons.len());
    }

    /// A candidate beside the plan in force, which is this one.
    pub fn beside(&mut self, plan: &Plan, mut candidate: Plan) -> Arc<Candidate> {
        candidate.join_reasons(&self.reasons);
        let built = Pipeline::build(&candidate, Backend::Soft).expect("stages build");
        let candidate = Arc::new(Candidate::new(Arc::new(candidate), built));
        let next = self.pipeline.beside(Some(candidate.clone()));
        let change = Change::new(&self.pipeline, &next, plan, &self.pool, self.worker.counters());
        self.mail.send(Box::new(change)).expect("a free place");
        self.pipeline = next;
        while !self.is_back() {
            self.worker.poll();
        }
        candidate
    }

    /// Has what was until then come back?
    pub fn is_back(&mut self) -> bool {
        self.mail.take_back().is_some()
    }

    /// Sets the clock, in nanoseconds.
    pub fn set_clock(&self, now: u64) {
        self.hand.store(now, Ordering::Relaxed);
    }

    /// Counters now; the ledger must balance and no buffer may be out between polls.
    pub fn settled(&self) -> WorkerSnapshot {
        let now = self.worker.counters().snapshot();
        assert!(now.ledger().balances(), "{}", now.ledger());
        let held = (now.held + now.held_for_stages) as u32; // what waits
        assert_eq!(self.pool.available() + held, self.pool.capacity(), "buffers are out between polls");
        now
    }

    /// Anomalies that the worker has told, or has told of that there were more, of a plan with [`ANOMALIES`]; all have this name.
    pub fn anomalies(&mut self, name: &str) -> u64 {
        while self.rings.take(|event| assert!(format!("{event:?}").contains(name), "{event:?}")) {}
        let events = self.settled().events;
        events.emitted[Type::Anomaly as usize] + events.limited[Type::Anomaly as usize]
    }

    /// Sends one frame through and says what became of it.
    pub fn fate(&mut self, frame: &[u8]) -> Fate {
        let before = self.settled();
        self.wire.send(frame.to_vec());
        let received = self.worker.poll();
        let after = self.settled();
        let made = (after.answers.made() - before.answers.made()) as usize;
        let mut home: Vec<Vec<u8>> = std::iter::from_fn(|| self.wire.receive()).collect();
        // Frames of our own are sent last.
        self.answers = home.split_off(home.len().saturating_sub(made));
        let mut home = home.into_iter();
        let back = home.next();
        if let Some(more) = home.next() {
            return Fate::Lost(format!("two frames came back, the second of {} bytes", more.len()));
        }
        if received != 1 || after.received != before.received + 1 {
            return Fate::Lost(format!("{received} frames received"));
        }
        let punted = after.punted - before.punted;
        let dropped: Vec<String> = dropped(&self.reasons, &before, &after);
        match (back, punted, dropped.as_slice()) {
            (Some(bytes), 0, []) => Fate::Home(bytes),
            (None, 1, []) => Fate::Punted,
            (None, 0, [reason]) => Fate::Dropped(reason.clone()),
            (back, punted, dropped) => {
                Fate::Lost(format!("back {:?}, punted {punted}, dropped {dropped:?}", back.map(|b| b.len())))
            }
        }
    }
}

/// Buffers for the largest frame of a port with MTU 9001, and every frame of the corpus.
pub fn pool_config(buffers: u32) -> PoolConfig {
    PoolConfig { name: "test".into(), buffers, data_room: 9728, cache: 0, numa: None }
}

/// Labels of the reasons that were counted between two moments, each as often as it was.
pub fn dropped(reasons: &ReasonTable, before: &WorkerSnapshot, after: &WorkerSnapshot) -> Vec<String> {
    let rise = before.drops.iter().zip(&after.drops).enumerate();
    rise.flat_map(|(i, (a, b))| {
        let label = reasons.label(ReasonId(i as u16)).to_owned();
        std::iter::repeat_n(label, (b - a) as usize)
    })
    .collect()
}

/// What each thread of a process may do: its name, capabilities, `no_new_privs` and mode of seccomp.
pub fn rights(process: u32) -> Vec<(String, u64, u64, u64)> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    let of = |entry: std::fs::DirEntry| {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
        let status = read("status")?;
        let text = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let has = ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"];
        let has = has.iter().filter_map(|name| u64::from_str_radix(text(name)?, 16).ok());
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        Some((
            read("comm")?.trim().to_owned(),
            has.fold(0, |all, one| all | one),
            number("NoNewPrivs:")?,
            number("Seccomp:")?,
        ))
    };
    entries.filter_map(of).collect()
}

/// The same, when all threads have given up what they may: at most a few seconds after the start.
pub fn confined(process: u32) -> Vec<(String, u64, u64, u64)> {
    let begun = std::time::Instant::now();
    loop {
        let rights = rights(process);
        if rights.iter().all(|(.., filtered)| *filtered == 2) || begun.elapsed().as_secs() > 10 {
            return rights;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Says that something was not tested, and why.
pub fn skipped(what: &str, why: &str) {
    say(&format!("SKIPPED {what}: {why}"));
}

/// Writes to standard error, past the capture of the print macros: nextest shows it, and a person should see it.
pub fn say(text: &str) {
    use std::io::Write;
    std::io::stderr().lock().write_all(format!("\n{text}\n").as_bytes()).expect("standard error");
}

/// Runs `body` in a process of its own, for what can be done once per process only (DPDK's start), and checks that
/// nothing is left in DPDK's folders. `test` is the name of the calling test.
#[cfg(feature = "dpdk")]
pub fn alone(test: &str, body: fn()) {
    const INSIDE: &str = "SLUICEGATE_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .expect("this program starts");
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{test} in its own process:\n{text}");
    assert_nothing_left(&prefix(test));
}

/// The EAL's file prefix of a test.
pub fn prefix(test: &str) -> String {
    format!("sluicegate-test-{}-{test}", env!("CARGO_CRATE_NAME"))
}

/// No runtime folder of DPDK and no hugepage file has this prefix.
pub fn assert_nothing_left(prefix: &str) {
    for folder in ["/var/run/dpdk", "/tmp/dpdk", "/dev/hugepages"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let left: Vec<_> = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}
