//! What the path promises for any frame, as code: one fate, counted once; every buffer back; home only by the rules, and then
//! unchanged but for the addresses.
//!
//! [`frame`] sends one frame through all six hops of a worker on a soft port, under an empty pipeline, and asks an [`oracle`]
//! that shares no code with the path what should have become of it. The property test and the fuzz target `path_frame` call
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

use super::{Clock, Decap, Lane, Pipeline, Track, Worker, WorkerCounters};
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
        rig.send(&sent).and_then(|(fate, back)| scene.judge(&sent, fate, back).map(|()| fate)).unwrap_or_else(
            |broken| {
                let hex: String = choices.iter().chain(&sent).map(|b| format!("{b:02x}")).collect();
                panic!("{broken}\n{scene:?}\ninput, repaired: {hex}")
            },
        )
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
        flags << 6 | verify << 4 | limit << 2 | self.cloud as u16
    }

    /// The `[tunnel]` table of this scene.
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
        table
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
        let agree = match opinion {
            Opinion::Home => fate == Fate::Home,
            Opinion::Punt => fate == Fate::Punted,
            Opinion::Drop(_) => matches!(fate, Fate::Dropped(_)),
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

/// One worker over one soft port, polled by hand.
struct Rig {
    worker: Worker,
    wire: Wire,
    pool: Mempool,
    _port: RunningPort,
    back: Vec<u8>,
}

impl Rig {
    fn new(scene: &Scene) -> Rig {
        let machine = Machine { cpus: vec![0], worth: 1 };
        let options = Options { need_ports: false, machine, kinds: &[], files: false };
        let plan =
            config::load_text("scene.toml", &scene.table(), Path::new("/"), &Overrides::default(), &options)
                .expect("a scene is a configuration");
        let pool = PoolConfig { name: "frames".into(), buffers: 4, data_room: 9728, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let (port, wire) = soft::Port::with(Setup { checksums: scene.driver_verifies, ..Setup::default() });
        let config = PortConfig { mtu: 9001, ..PortConfig::default() };
        let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
        let pipeline = Pipeline::build(&plan, Backend::Soft).expect("no stages build");
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, 0));
        // Whatever the tunnel lets in, the flow engine sees, too; without stages it drops nothing.
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(0));
        let track = shared.map(|shared| Track::of(&plan, &shared, None, &counters));
        let worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel),
            pipeline.make(WorkerId(0)),
            plan.burst,
            plan.idle,
            Clock::manual().0,
            counters,
        )
        .with_flows(track);
        Rig { worker, wire, pool, _port: port, back: Vec::new() }
    }

    /// Sends one frame through: its only fate and what came back, or what does not add up.
    fn send(&mut self, frame: &[u8]) -> Result<(Fate, Option<&[u8]>), String> {
        // Received, sent, punted, then a row for each reason.
        let rows = |worker: &Worker| {
            let now = worker.counters().snapshot();
            let mut rows = [now.received, now.sent, now.punted].into_iter().chain(now.drops);
            std::array::from_fn::<_, { 3 + DropReason::ALL.len() }, _>(|_| rows.next().unwrap_or(0))
        };
        let before = rows(&self.worker);
        self.wire.send_copy(frame);
        let polled = self.worker.poll();
        let mut after = rows(&self.worker);
        after.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
        let [received, sent, punted, dropped @ ..] = after;
        let came = self.wire.receive_into(&mut self.back);

        if (self.pool.available(), self.wire.counts().waiting) != (self.pool.capacity(), 0) {
            return Err(format!("{} buffers of {} are back", self.pool.available(), self.pool.capacity()));
        }
        let ledger = self.worker.counters().snapshot().ledger();
        if polled != 1 || received != 1 || !ledger.balances() {
            return Err(format!("{polled} polled, {ledger}"));
        }
        if sent + punted + dropped.iter().sum::<u64>() != 1
            || came != (sent == 1)
            || self.wire.receive().is_some()
        {
            return Err(format!("sent {sent}, punted {punted}, dropped {dropped:?}, came back: {came}"));
        }
        let reason = DropReason::ALL.iter().zip(dropped).find(|(_, n)| *n == 1);
        Ok(match (reason, came) {
            (Some((reason, _)), _) => (Fate::Dropped(*reason), None),
            (None, true) => (Fate::Home, Some(&self.back)),
            (None, false) => (Fate::Punted, None),
        })
    }
}
