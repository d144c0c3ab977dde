//! What the path promises for any frame, as code: one fate, counted once; every buffer back; home only by the rules, and then
//! unchanged but for the addresses.
//!
//! [`frame`] sends one frame through all six hops of a worker on a soft port, under an empty pipeline, and asks an [`oracle`]
//! that shares no code with the path what should have become of it. Some scenes follow flows, under all that `[flow]` can say of packets:
//! what decap lets in may find its end there, or wait, and the ends may be told; those answers must be let in by the oracle. The property test and the fuzz target `path_frame` call
//! it; it panics when a promise is broken. [`answer`] is the same for packets that we make ourselves (`path_answer`). Compiled for
//! tests and fuzzing only.

pub(in crate::path) mod answers;
mod oracle;
#[cfg(test)]
pub(in crate::path) mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clock, Decap, Lane, Pipeline, Respond, Track, Worker, WorkerCounters};
use crate::config::{self, Machine, Options, Overrides};
use crate::dpdk::soft::{self, Setup, Wire};
use crate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use crate::flow::{FlowsShared, Seed};
use crate::packet::DropReason;
use crate::stage::{Backend, WorkerId};
pub use answers::answer;
use oracle::{Checksums, Cloud, Opinion, Rules};

/// Bytes in front of the frame that choose the [`Scene`].
pub const CHOICES: usize = 2;
/// Longest frame: what a port of MTU 9001 carries, with a tag.
const LONGEST: usize = 9001 + 18;
/// How much later each frame comes than the one before, and how long a fragment waits at most, in nanoseconds.
const STEP: u64 = 20_000_000;
const PATIENCE: u64 = 200_000_000;
/// What the golden frames assume.
const NODES: &str = "10.254.11.0/24";
const OURS: &str = "10.254.11.102";

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It came back, as it should look.
    Home,
    /// It is the host stack's.
    Punted,
    /// It was dropped for this reason.
    Dropped(DropReason),
}

/// Two bytes that choose a scene, then a frame. Returns what became of the frame; panics if that breaks a promise.
pub fn frame(bytes: &[u8]) -> Fate {
    thread_local! {
        /// A worker for each scene, made when it is first asked for and kept: its state of earlier frames is part of the test.
        static RIGS: RefCell<HashMap<u16, Rig>> = RefCell::default();
    }
    let (choices, frame) = bytes.split_first_chunk::<CHOICES>().unwrap_or((&[0; CHOICES], &[]));
    let scene = Scene::chosen(*choices);
    let mut sent = frame[..frame.len().min(LONGEST)].to_vec();
    oracle::repair(&mut sent, scene.repair_lengths, scene.repair_header, scene.repair_datagram);
    RIGS.with_borrow_mut(|rigs| {
        let rig = rigs.entry(scene.key()).or_insert_with(|| Rig::new(&scene));
        let judged = rig.send(&sent).and_then(|(fate, back)| scene.judge(&sent, fate, back).map(|()| fate));
        judged.and_then(|fate| scene.judge_answers(&rig.answers).map(|()| fate)).unwrap_or_else(|broken| {
            let hex: String = choices.iter().chain(&sent).map(|b| format!("{b:02x}")).collect();
            panic!("{broken}\n{scene:?}\ninput, repaired: {hex}")
        })
    })
}

/// A configuration of the tunnel and a kind of driver; and whether to mend the lengths and checksums that a mutation broke, without
/// which few frames would get further than the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scene {
    cloud: Cloud,
    verify: &'static str,
    sources: bool,
    addresses: bool,
    max_return: Option<u16>,
    driver_verifies: bool,
    repair_lengths: bool,
    repair_header: bool,
    repair_datagram: bool,
    /// What `[flow]` says of packets; `None`: flows are not followed.
    flows: Option<Following>,
}

/// A table of `[flow]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Following {
    check: &'static str,
    pickup: &'static str,
    hold: u16,
    orphans: &'static str,
}

impl Following {
    fn chosen(number: u8) -> Option<Following> {
        let (check, hold, orphans) = match number & 3 {
            0 => return None,
            1 => ("off", 0, "drop"),
            2 => ("log", 64, "forward"),
            _ => ("drop", 2, "drop"),
        };
        let pickup = ["policy", "allow", "drop", "reset"][usize::from(number >> 2 & 3)];
        Some(Following { check, pickup, hold, orphans })
    }

    fn table(&self) -> String {
        let Following { check, pickup, hold, orphans } = self;
        format!(
            "[flow]\ntracking = true\ncapacity = 1024\nwindow_check = {check:?}\npickup = {pickup:?}\nfragments = {{ hold = {hold}, \
             orphans = {orphans:?} }}\n"
        )
    }
}

impl Scene {
    fn chosen([first, second]: [u8; CHOICES]) -> Scene {
        Scene {
            cloud: [Cloud::Aws, Cloud::Tencent, Cloud::Google, Cloud::Plain][usize::from(first & 3)],
            verify: ["auto", "always", "never", "always"][usize::from(first >> 2 & 3)],
            sources: first & 0x10 == 0,
            addresses: first & 0x20 == 0,
            max_return: [None, Some(576), Some(1400), Some(u16::MAX)][usize::from(first >> 6)],
            repair_header: second & 1 == 0,
            repair_datagram: second & 2 == 0,
            driver_verifies: second & 4 != 0,
            repair_lengths: second & 8 != 0,
            flows: Following::chosen(second >> 4),
        }
    }

    /// The same for all scenes that differ in repairs only.
    fn key(&self) -> u16 {
        let flags = [self.sources, self.addresses, self.driver_verifies];
        let flags = flags.iter().fold(0, |all, flag| all << 1 | u16::from(*flag));
        let verify = match self.verify {
            "auto" => 0,
            "always" => 1,
            _ => 2,
        };
        let limit = match self.max_return {
            None => 0,
            Some(576) => 1,
            Some(1400) => 2,
            Some(_) => 3,
        };
        let number = |flows: Following| {
            let check = ["off", "log", "drop"].iter().position(|word| *word == flows.check).unwrap_or(0);
            let pickup = ["policy", "allow", "drop", "reset"].iter().position(|word| *word == flows.pickup);
            1 + (check << 2 | pickup.unwrap_or(0)) as u16
        };
        self.flows.map_or(0, number) << 9 | flags << 6 | verify << 4 | limit << 2 | self.cloud as u16
    }

    /// The `[tunnel]` table of this scene, and that of `[flow]`.
    fn table(&self) -> String {
        let list = |is: bool, item: &str| if is { format!("[{item:?}]") } else { "[]".into() };
        let mut table = format!(
            "[tunnel]\nprofile = {:?}\nverify_checksum = {:?}\nallowed_sources = {}\naddresses = {}\n",
            format!("{:?}", self.cloud).to_lowercase(),
            self.verify,
            list(self.sources, NODES),
            list(self.addresses, OURS),
        );
        if let Some(bytes) = self.max_return {
            table += &format!("max_return = {bytes}\n");
        }
        table + &self.flows.map_or(String::new(), |flows| flows.table())
    }

    fn rules(&self) -> Rules {
        // The figure of the load balancer's guide; the others publish none.
        let published = if self.cloud == Cloud::Aws { 8500 } else { u16::MAX };
        let checksums = match (self.verify, self.driver_verifies) {
            ("never", _) | ("auto", false) => Checksums::Ignored,
            (_, true) => Checksums::ByDriver,
            _ => Checksums::Verified,
        };
        Rules {
            cloud: self.cloud,
            checksums,
            sources: self.sources.then_some([10, 254, 11]),
            ours: self.addresses.then_some([10, 254, 11, 102]),
            max_return: self.max_return.unwrap_or(published).into(),
        }
    }

    /// Holds the fate of a frame against the oracle's opinion, and what came back against what was sent.
    fn judge(&self, sent: &[u8], fate: Fate, back: Option<&[u8]>) -> Result<(), String> {
        let opinion = oracle::opinion(&self.rules(), sent);
        // Only what decap has let in may find its end there, and only for reasons that this scene gives it.
        let by_track = match (fate, self.flows) {
            (Fate::Dropped(DropReason::TcpInvalid), Some(flows)) => flows.check == "drop",
            (Fate::Dropped(DropReason::Pickup), Some(flows)) => matches!(flows.pickup, "drop" | "reset"),
            (Fate::Dropped(DropReason::FragmentOrphan), Some(flows)) => flows.orphans == "drop",
            _ => false,
        };
        let agree = match opinion {
            Opinion::Home => fate == Fate::Home || by_track,
            Opinion::Punt => fate == Fate::Punted,
            // What is too big to go home is let in first.
            Opinion::Drop(_) => matches!(fate, Fate::Dropped(reason) if reason.hop() != "track" || by_track),
            Opinion::Open => fate != Fate::Punted,
        };
        if !agree {
            return Err(format!("the path: {fate:?}; the oracle: {opinion:?}"));
        }
        match back {
            Some(back) if back != oracle::turned(sent) => {
                let hex: String = back.iter().map(|b| format!("{b:02x}")).collect();
                Err(format!("it came home as something else: {hex}"))
            }
            _ => Ok(()),
        }
    }
}

impl Scene {
    /// What we make ourselves goes back by the same rules: turned around, it must be let in.
    fn judge_answers(&self, answers: &[Vec<u8>]) -> Result<(), String> {
        for answer in answers {
            let opinion = oracle::opinion(&self.rules(), &oracle::turned(answer));
            if !matches!(opinion, Opinion::Home | Opinion::Open) {
                let hex: String = answer.iter().map(|b| format!("{b:02x}")).collect();
                return Err(format!("an answer: {opinion:?}: {hex}"));
            }
        }
        Ok(())
    }
}

/// One worker over one soft port, polled by hand.
struct Rig {
    worker: Worker,
    wire: Wire,
    pool: Mempool,
    _port: RunningPort,
    hand: Arc<AtomicU64>,
    back: Vec<u8>,
    /// Frames that were made in answer to the last.
    answers: Vec<Vec<u8>>,
}

impl Rig {
    fn new(scene: &Scene) -> Rig {
        let machine = Machine { cpus: vec![0], worth: 1 };
        let options = Options { need_ports: false, machine, kinds: &[], files: false };
        let plan =
            config::load_text("scene.toml", &scene.table(), Path::new("/"), &Overrides::default(), &options)
                .expect("a scene is a configuration");
        let pool = PoolConfig { name: "frames".into(), buffers: 8, data_room: 9728, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let (port, wire) = soft::Port::with(Setup { checksums: scene.driver_verifies, ..Setup::default() });
        let config = PortConfig { mtu: 9001, ..PortConfig::default() };
        let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
        let pipeline = Pipeline::build(&plan, Backend::Soft).expect("no stages build");
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, 0));
        // Whatever the tunnel lets in, the flow engine sees, too; without stages it drops nothing.
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(0));
        let track = shared.map(|shared| Track::of(&plan, &shared, None, &counters));
        let (clock, hand) = Clock::manual();
        let respond = Respond::of(&plan, &pool);
        let worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel),
            pipeline.make(WorkerId(0)),
            plan.burst,
            plan.idle,
            clock,
            counters,
        )
        .with_flows(track)
        .with_answers(respond);
        Rig { worker, wire, pool, _port: port, hand, back: Vec::new(), answers: Vec::new() }
    }

    /// Sends one frame through: its only fate and what came back, or what does not add up.
    fn send(&mut self, frame: &[u8]) -> Result<(Fate, Option<&[u8]>), String> {
        // Received, sent, punted, made here, then a row for each reason.
        let rows = |worker: &Worker| {
            let now = worker.counters().snapshot();
            let first = [now.received, now.sent, now.punted, now.answers.made()];
            let mut rows = first.into_iter().chain(now.drops);
            std::array::from_fn::<_, { 4 + DropReason::ALL.len() }, _>(|_| rows.next().unwrap_or(0))
        };
        let before = rows(&self.worker);
        self.wire.send_copy(frame);
        self.hand.fetch_add(STEP, Ordering::Relaxed);
        let polled = self.worker.poll();
        if self.worker.counters().held.get() > 0 {
            // A fragment that waits: nothing comes that it waits for.
            self.hand.fetch_add(PATIENCE, Ordering::Relaxed);
            self.worker.poll();
        }
        let mut after = rows(&self.worker);
        after.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
        let [received, sent, punted, made, dropped @ ..] = after;
        // Frames of our own are sent last.
        let came = sent > made && self.wire.receive_into(&mut self.back);
        self.answers.clear();
        self.answers.extend(std::iter::from_fn(|| self.wire.receive()));

        if (self.pool.available(), self.wire.counts().waiting) != (self.pool.capacity(), 0) {
            return Err(format!("{} buffers of {} are back", self.pool.available(), self.pool.capacity()));
        }
        let ledger = self.worker.counters().snapshot().ledger();
        if polled != 1 || received != 1 || !ledger.balances() || ledger.held != 0 {
            return Err(format!("{polled} polled, {ledger}"));
        }
        if sent - made + punted + dropped.iter().sum::<u64>() != 1
            || came != (sent == made + 1)
            || self.answers.len() as u64 != made
        {
            return Err(format!(
                "sent {sent}, punted {punted}, made {made}, dropped {dropped:?}, came back: {came}, {} answers",
                self.answers.len()
            ));
        }
        let reason = DropReason::ALL.iter().zip(dropped).find(|(_, n)| *n == 1);
        Ok(match (reason, came) {
            (Some((reason, _)), _) => (Fate::Dropped(*reason), None),
            (None, true) => (Fate::Home, Some(&self.back)),
            (None, false) => (Fate::Punted, None),
        })
    }
}
