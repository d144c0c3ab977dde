//! `sluicegate demo`: a load balancer's traffic through a real vdev, the whole path and a firewall, checked byte for byte.
//!
//! ```text
//! generator -> net_ring port A ==> net_ring port B -> worker: six hops -> port B ==> port A -> checker
//! ```
//!
//! The generator runs on the management lcore, the workers on theirs. It keeps a bounded number of frames on their way, so that
//! nothing is lost for want of room: what is missing at the end was lost by us.

mod flows;
mod screen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::interrupt::Interrupt;
use super::show::say;
use super::{FAILED, Failure, OK, Outcome, show};
use crate::app::{App, Host, Report as Account, RunningApp};
use crate::config::{self, Options, Overrides};
use crate::dpdk::eal::{self, Eal};
use crate::dpdk::{Burst, Mempool, PoolConfig, PortConfig, QueuePair};
use crate::path::Clock;
use crate::traffic::{self, Checker, Envelope, Flow, Generator, MAX_FRAME, Mix, Report, Traffic};
use screen::Screen;

/// The pipeline that the demo runs when no other is given.
const PIPELINE: &str = include_str!("../../pipelines/demo.toml");
/// What a file's values are replaced by.
const OURS: [&str; 4] = [
    "port[0].device=net_null0",
    "port[0].queues=1",
    "eal.idle=backoff",
    "tunnel.allowed_sources=[\"10.254.0.0/16\"]",
];
/// Slots of each ring between the two ports.
const RING: u32 = 4096;
/// Most frames on their way that are expected back: what fits into the rings with room to spare.
const WINDOW: u64 = 2048;
/// Bytes for a frame of the source's: the longest of an IMIX in its envelope, and a ring per queue beside it in memory.
const ROOM: u16 = 2048;
const OWN_MB: u32 = 24;
/// Flows of the traffic unless told otherwise.
const FLOWS: u32 = 8192;
/// Frames at a time.
const BURST: usize = 32;
/// How long the last frames may take, on a machine with other work.
const LAST: Duration = Duration::from_secs(10);

/// Make traffic, send it through a real vdev and a firewall, check every frame that returns.
#[derive(Debug, Args)]
pub struct Demo {
    /// A pipeline file to run instead of the embedded one; its port and `tunnel.allowed_sources` are replaced by the demo's. What it drops is not
    /// known beforehand: whatever comes back is checked, and the rest must be accounted for
    file: Option<PathBuf>,
    /// How long
    #[arg(long, default_value_t = 10, value_name = "N")]
    seconds: u64,
    /// Packets per second at most; 0 for as many as go
    #[arg(long, default_value_t = 0, value_name = "N")]
    pps: u64,
    /// Show flows: their figures, and which have carried most; with N, make so many (8192 otherwise)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(traffic::MAX_FLOWS)))]
    flows: Option<Option<u32>>,
    /// Seed of the traffic: the same seed makes the same frames
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Set one value of the pipeline, e.g. --set eal.memory=no-huge (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Print the embedded pipeline and stop
    #[arg(long)]
    show_pipeline: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(super) fn run(self) -> Outcome {
        if self.show_pipeline {
            return show::print(PIPELINE).map(|()| OK);
        }
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        let options = Options { need_ports: false, ..Options::default() };
        let mut plan = match &self.file {
            None => config::load_text(
                "demo.toml",
                PIPELINE,
                Path::new(""),
                &Overrides::here(&self.set),
                &options,
            )?,
            Some(file) => {
                let own = OURS.iter().map(|set| (*set).to_owned());
                let sets: Vec<String> = own.chain(self.set.iter().cloned()).collect();
                config::load(file, &Overrides::here(&sets), &options)?
            }
        };
        if plan.ports.len() > 1 {
            let what = format!("the demo has one port, and {} names {}", plan.file, plan.ports.len());
            return Err(Failure::Other(what + "; give it a file with one [[port]], or none"));
        }
        // The source frames as AWS does; `plain` takes any options, the other profiles want their own.
        let profile = plan.tunnel.profile.name;
        if !["aws", "plain"].contains(&profile) {
            let what = format!(
                "the demo's frames have the envelope of AWS, which the profile {profile} does not take"
            );
            return Err(Failure::Other(what + "; leave tunnel.profile at aws, or set plain"));
        }
        let envelope = Envelope { port: plan.tunnel.port, ..Envelope::default() };
        let foreign = self.file.is_some();
        let mix =
            Mix { seed: self.seed, flows: self.flows.flatten().unwrap_or(FLOWS), envelope, ..Mix::default() };
        // Flows that are denied do not go on, in the source's mind: there are none where nobody knows which that are.
        let mix = Mix { denied_percent: if foreign { 0 } else { mix.denied_percent }, ..mix };
        let traffic = Arc::new(Traffic::new(&mix));
        let checker = Checker::new(traffic.clone(), |flow: &Flow| foreign || !flow.denied);

        // The source has a pool of its own, beside what the plan asks for.
        let own = PoolConfig { name: "demo".into(), data_room: ROOM, ..plan.pool.config.clone() };
        let own = PoolConfig { buffers: 2 * RING - 1, ..own };
        plan.eal.memory_mb += OWN_MB;
        let eal = Eal::init(&plan.eal, &[])?;
        let pool = eal.pool(&plan.pool.config)?;
        let own = eal.pool(&own)?;
        let (near, far) = eal::cross_connect(&eal, "demo", "appliance", 1, RING)?;
        let config = PortConfig { mtu: ROOM - 22, ..PortConfig::default() };
        let (near, mut lanes) = near.start(&config, &own)?;
        let lane = lanes.pop().ok_or_else(|| Failure::Other("the demo's port gave no queue".into()))?;
        let mut app = App::new(plan).start_on(Host::Eal(eal), vec![far], pool, Clock::cycles())?;
        show::started(&app, self.json);
        if !self.json {
            let denied = match foreign {
                true => String::new(),
                false => format!(", {} % to services that the firewall denies", mix.denied_percent),
            };
            let Mix { flows, tcp_percent, ipv6_percent, .. } = mix;
            say!("traffic  {flows} flows, {tcp_percent} % TCP, {ipv6_percent} % IPv6{denied}\n");
        }
        let denied = (0..mix.flows).map(|n| !foreign && traffic.flow(n).denied).collect();
        let mut loop_ = Loop::new(Generator::new(traffic), checker, denied, lane, own);
        loop_.answers = foreign.then_some(0);
        let waited = self.drive(&mut loop_, &mut app, &interrupt);
        let Loop { generator, checker, lane, answers, .. } = loop_;
        let sent = generator.sent();
        let found = checker.finish(sent);
        let top = self.flows.and_then(|_| flows::Top::of(&app));
        let account = app.stop();
        let stopped = near.stop(vec![lane]).map_err(|e| Failure::Dpdk(e.error));
        stopped?;
        self.verdict(&account, &found, (sent, answers), waited, top)
    }

    /// Sends and receives until the time is over, then until the last frame is back.
    fn drive(&self, loop_: &mut Loop, app: &mut RunningApp, interrupt: &Interrupt) -> bool {
        let begin = Instant::now();
        let end = begin.checked_add(Duration::from_secs(self.seconds));
        let mut screen = Screen::new(self.json, self.flows.is_some());
        let mut idle = 0u32;
        loop {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) || interrupt.asked() || app.worker_ended() {
                break;
            }
            let due = match self.pps {
                0 => u64::MAX,
                pps => ((now - begin).as_secs_f64() * pps as f64) as u64,
            };
            // One look at the clock, and at what was dropped, for several bursts.
            loop_.look(app);
            let mut moved = 0;
            for _ in 0..16 {
                moved += loop_.send(due);
                moved += loop_.receive();
            }
            idle = if moved == 0 { idle + 1 } else { 0 };
            if idle > 4 {
                std::thread::yield_now();
            }
            // Whoever sets management.listen gets health and figures; what is said of ports does not belong on the screen.
            let _round = app.manage();
            screen.update(app, loop_.generator.sent(), loop_.checker.report());
        }
        let last = Instant::now() + LAST;
        while loop_.waiting() && Instant::now() < last {
            loop_.look(app);
            loop_.flush();
            loop_.receive();
            std::thread::yield_now();
        }
        // Denied frames never return: the worker has seen them when it has counted them.
        while app.snapshot().ledger().received < loop_.handed && Instant::now() < last {
            std::thread::yield_now();
        }
        screen.done();
        !loop_.waiting()
    }

    fn verdict(
        &self,
        account: &Account,
        found: &Report,
        (sent, answers): (u64, Option<u64>),
        complete: bool,
        top: Option<flows::Top>,
    ) -> Outcome {
        // With a file, what did not come back was dropped, and what was made has come; not one more or less.
        let ledger = account.snapshot.ledger();
        let (missing, answered) = match answers {
            None => (found.missing, 0),
            Some(answers) => (found.missing.abs_diff(ledger.dropped), answers.abs_diff(ledger.made)),
        };
        let errors = found.wrong() + answered + missing + u64::from(!complete && missing == 0);
        let clean = errors == 0 && found.reordered == 0 && account.is_clean() && account.buffers_out == 0;
        show::report(account, self.json);
        if let Some(top) = top {
            top.show(self.json);
        }
        if self.json {
            say!(
                "{}",
                json!({ "event": "checked", "sent": sent, "answers": answers, "errors": errors, "found": found })
            );
        } else {
            print_found(found, sent, answers);
            let word = if clean { "PASS" } else { "FAIL" };
            say!("{word}: {errors} checker errors, ledger {}", balance(account));
        }
        Ok(if clean { OK } else { FAILED })
    }
}

fn balance(account: &Account) -> &'static str {
    if account.snapshot.ledger().balances() { "balances" } else { "does not balance" }
}

fn print_found(found: &Report, sent: u64, answers: Option<u64>) {
    let missing = if answers.is_some() { "8 did not return" } else { "8 missing" };
    let mut lines = BTreeMap::from([
        ("1 sent", sent),
        ("2 returned, every byte right", found.good),
        ("3 reordered within a flow", found.reordered),
        ("4 duplicates", found.duplicates),
        ("5 changed", found.changed),
        ("6 returned although denied", found.not_denied),
        ("7 never sent", found.unknown),
        (missing, found.missing),
    ]);
    lines.extend(answers.map(|answers| ("9 resets and ICMP errors in answer", answers)));
    let mut table = show::table(&["checker", "frames"]);
    show::align_right(&mut table, &[1]);
    for (what, n) in lines {
        table.add_row([&what[2..], &show::grouped(n)]);
    }
    say!("{table}");
    for example in &found.examples {
        show::error(format_args!("{}: {}\n  {}", example.kind, example.sentence, example.hex));
    }
}

/// Is a frame in an envelope of ours an ICMP error or a reset? The source sends neither.
fn is_answer(frame: &[u8]) -> bool {
    let inner = frame.get(traffic::ENVELOPE..).unwrap_or_default();
    let byte = |at: usize| inner.get(at).copied().unwrap_or(0);
    let (protocol, header) = if byte(0) >> 4 == 6 { (byte(6), 40) } else { (byte(9), 20) };
    match protocol {
        1 | 58 => true,
        6 => byte(header + 13) & 4 != 0,
        _ => false,
    }
}

/// Generator, checker and the port between them.
struct Loop {
    generator: Generator,
    checker: Checker,
    lane: QueuePair,
    pool: Mempool,
    out: Burst,
    back: Burst,
    frame: Box<[u8; MAX_FRAME]>,
    /// Frames that the port took.
    handed: u64,
    /// Frames that the port took and that must come back.
    expected: u64,
    denied: Vec<bool>,
    /// Of those, frames that the appliance dropped, where that is not known beforehand.
    dropped: u64,
    /// Resets and ICMP errors that came back, where there may be some: nothing like them is sent.
    answers: Option<u64>,
}

impl Loop {
    fn new(
        generator: Generator,
        checker: Checker,
        denied: Vec<bool>,
        lane: QueuePair,
        pool: Mempool,
    ) -> Self {
        let (out, back, frame) = (Burst::new(), Burst::new(), Box::new([0; MAX_FRAME]));
        Loop {
            generator,
            checker,
            lane,
            pool,
            out,
            back,
            frame,
            handed: 0,
            expected: 0,
            denied,
            dropped: 0,
            answers: None,
        }
    }

    fn waiting(&self) -> bool {
        !self.out.is_empty() || self.on_their_way() > 0
    }

    fn on_their_way(&self) -> u64 {
        self.expected.saturating_sub(self.dropped + self.checker.report().returned)
    }

    /// What the appliance dropped so far, if that is not known beforehand.
    fn look(&mut self, app: &RunningApp) {
        if self.answers.is_some() {
            self.dropped = app.snapshot().ledger().dropped;
        }
    }

    /// Makes and sends up to a burst, as far as window and rate allow.
    fn send(&mut self, due: u64) -> usize {
        if self.on_their_way() < WINDOW && self.generator.sent() < due {
            while self.out.len() < BURST {
                let Some(mut mbuf) = self.pool.alloc() else { break };
                let Some(sent) = self.generator.next(&mut self.frame[..]) else { break };
                // The pool's data room holds the largest frame of the mix, so this cannot fail.
                mbuf.write(&self.frame[..sent.len]);
                self.expected += u64::from(!self.denied.get(sent.flow as usize).copied().unwrap_or(false));
                if self.out.push(mbuf).is_err() {
                    break;
                }
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> usize {
        if self.out.is_empty() {
            return 0;
        }
        let taken = self.lane.tx.send(&mut self.out);
        self.handed += taken as u64;
        taken
    }

    fn receive(&mut self) -> usize {
        let n = self.lane.rx.receive(&mut self.back, BURST);
        for mbuf in self.back.as_slice() {
            match &mut self.answers {
                Some(answers) if is_answer(mbuf.data()) => *answers += 1,
                _ => _ = self.checker.check(mbuf.data()),
            }
        }
        self.back.free();
        n
    }
}
