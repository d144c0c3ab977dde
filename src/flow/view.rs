//! Flows as the management side sees them: counted, found, listed and flushed, while the workers go on.
//!
//! A view reads the entries that workers write (`line.rs`); no worker waits for it, or notices. So a list is no picture of one moment: each
//! flow in it is as it was when its entry was read, a flow that began or ended meanwhile may be in it or not, and the packets of a flow
//! may be one ahead of its bytes. An entry that changes hands while it is read is read again, a bounded number of times; then it is left out and
//! counted ([`FlowView::torn`]).
//!
//! The buckets of a table are the worker's alone. Whatever is asked here walks over all entries that were ever used, two lines each: about a
//! tenth of a second for a million flows (measured: 63 to 105 ms, on a busy machine). Only [`FlowView::live`] costs nothing.

mod filter;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Serialize, Serializer};

pub use filter::{Filter, Standing};

use super::command::Command;
use super::engine::Flows;
use super::event::flow_id;
use super::line::{Life, Lines, Record};
use super::{Envelope, Key, Tuple, state};
use crate::config::{Plan, Scope};
use crate::packet::{ReasonId, ReasonTable};
use crate::path::Clock;
use crate::stage::WorkerId;

/// How often an entry is read that changes hands meanwhile: opening a flow takes its worker less than one reading.
const TRIES: usize = 8;

/// What one worker shows of its flows, and where it takes commands.
#[derive(Debug)]
pub struct Shown {
    worker: WorkerId,
    lines: Arc<Lines>,
    live: Arc<[AtomicU32]>,
    commands: Mutex<rtrb::Producer<Command>>,
}

impl Flows {
    /// The part of a view that is this worker's. Whoever was given one before cannot command any more.
    pub fn show(&mut self) -> Shown {
        let (lines, live) = self.shown();
        Shown { worker: self.worker(), lines, live, commands: Mutex::new(self.commander()) }
    }
}

/// All flows of a running plan, from outside. Clones share what they see.
#[derive(Clone, Debug)]
pub struct FlowView {
    workers: Arc<[Shown]>,
    names: Arc<Names>,
    /// The same of the plan that is in force: stages and reasons can become others.
    newest: Arc<RwLock<Arc<Names>>>,
    clock: Clock,
    torn: Arc<AtomicU64>,
}

/// What numbers in entries stand for.
#[derive(Debug)]
pub(crate) struct Names {
    tenants: Vec<String>,
    reasons: ReasonTable,
    scope: Scope,
    /// The bits of a flow with which every stage is done.
    stages: u16,
}

impl Names {
    pub fn of(plan: &Plan) -> Self {
        Names {
            tenants: plan.flow.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
            reasons: plan.reasons.clone(),
            scope: plan.flow.scope,
            stages: u16::MAX.checked_shr(16u32.saturating_sub(plan.stages.len() as u32)).unwrap_or(0),
        }
    }

    pub fn tenant(&self, number: u16) -> &str {
        self.tenants.get(usize::from(number)).map_or("unknown", String::as_str)
    }

    pub fn reason(&self, id: ReasonId) -> &str {
        self.reasons.label(id)
    }

    /// The endpoint of a flow. Where the scope is a tenant's, a flow has no single one.
    pub fn endpoint(&self, key: &Key) -> Option<u64> {
        (self.scope == Scope::Endpoint).then_some(key.scope())
    }

    fn of_record(&self, record: &Record) -> Standing {
        self.standing(record.life.has(Life::CONDEMNED), record.life.settled())
    }

    /// `settled`: stages that are done with a flow.
    pub fn standing(&self, condemned: bool, settled: u16) -> Standing {
        if condemned {
            Standing::Condemned
        } else if settled & self.stages == self.stages {
            Standing::Settled
        } else {
            Standing::Undecided
        }
    }
}

/// One flow, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveFlow {
    /// Its number, as events have it.
    pub flow_id: u64,
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Within what its addresses mean something: the number of its endpoint, or of its tenant (`flow.scope`).
    #[serde(skip)]
    pub scope: u64,
    /// Its endpoint, unless the scope is a tenant's.
    #[serde(serialize_with = "endpoint")]
    pub endpoint: Option<u64>,
    /// Name of its tenant.
    pub tenant: String,
    /// The ends, as the originator sees them.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// Of TCP, or "first" and "established".
    pub state: &'static str,
    /// Milliseconds since it began.
    pub age_ms: u32,
    /// Milliseconds since its last packet.
    pub idle_ms: u32,
    /// Packets of the originator, and of the responder.
    pub packets: [u64; 2],
    /// Inner bytes likewise.
    pub bytes: [u64; 2],
    /// What it speaks, if a stage has found that out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_proto: Option<&'static str>,
    /// What it spoke before it changed over to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_proto_orig: Option<&'static str>,
    /// What the stages have made of it.
    pub verdict: Standing,
    /// Why its packets are dropped, if they are.
    pub reason: Option<String>,
    /// A TCP connection that was there before we were: who opened it is a guess.
    pub picked_up: bool,
    /// Newest envelope of the originator's packets, and of the responder's.
    pub envelopes: [Option<Envelope>; 2],
}

fn endpoint<S: Serializer>(id: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    id.map(crate::config::endpoint_name).serialize(to)
}

/// A flow, and what lists do not say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The flow.
    pub flow: LiveFlow,
    /// Stages that are done with it: bit n for the n-th. While workers come to another plan, it may be of the one before.
    pub settled: u16,
    /// The stage that sends it home past those behind.
    pub sent_home_by: Option<u16>,
    /// Some of its packets come to other workers.
    pub misaligned: bool,
}

/// What flows are sorted by, most of it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Bytes of both directions.
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Time since it began.
    Age,
    /// Time since its last packet.
    Idle,
}

impl Order {
    fn of(self, record: &Record, now: u32) -> u64 {
        let [(packets, bytes), (packets_back, bytes_back)] = record.counts;
        match self {
            Order::Bytes => bytes.saturating_add(bytes_back),
            Order::Packets => packets.saturating_add(packets_back),
            Order::Age => since(record.birth.created, now).into(),
            Order::Idle => since(record.life.seen(), now).into(),
        }
    }
}

/// A list of flows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Picture {
    /// Those that were asked for, by worker and entry.
    pub flows: Vec<LiveFlow>,
    /// There are more than the limit allowed.
    pub more: bool,
}

/// How many flows there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All.
    pub flows: u64,
    /// By tenant; those without any are left out.
    pub tenants: BTreeMap<String, u64>,
    /// By state, likewise.
    pub states: BTreeMap<&'static str, u64>,
    /// By what stages made of them, likewise.
    pub verdicts: BTreeMap<Standing, u64>,
}

/// What a flush began. Flows end when their worker has got to it, mostly within milliseconds; `ended_flushed` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flushed {
    /// Flows whose worker was asked to end them.
    pub asked: u64,
    /// Flows for which the ring had no room: flush again.
    pub left: u64,
}

impl FlowView {
    /// A view over these workers' flows. `clock` is the workers' own.
    pub fn new(plan: &Plan, workers: Vec<Shown>, clock: Clock) -> Self {
        let names = Arc::new(Names::of(plan));
        let newest = Arc::new(RwLock::new(names.clone()));
        FlowView { workers: workers.into(), names, newest, clock, torn: Arc::default() }
    }

    /// Number of a tenant, as filters want it.
    pub fn tenant(&self, name: &str) -> Option<u16> {
        self.names.tenants.iter().position(|own| own == name).map(|n| n as u16)
    }

    /// Entries that each worker has.
    pub fn capacity(&self) -> impl Iterator<Item = (WorkerId, usize)> {
        self.workers.iter().map(|shown| (shown.worker, shown.lines.len()))
    }

    /// Flows of each tenant on each worker, without looking at them.
    pub fn live(&self) -> impl Iterator<Item = (WorkerId, &str, u32)> {
        self.workers.iter().flat_map(|shown| {
            let tenants = self.names.tenants.iter().zip(shown.live.iter());
            tenants.map(|(name, live)| (shown.worker, name.as_str(), live.load(Ordering::Relaxed)))
        })
    }

    /// The same by the numbers of tenants.
    pub fn live_by_number(&self) -> impl Iterator<Item = (WorkerId, usize, u32)> {
        self.workers.iter().flat_map(|shown| {
            let live = shown.live.iter().enumerate();
            live.map(|(tenant, live)| (shown.worker, tenant, live.load(Ordering::Relaxed)))
        })
    }

    /// Entries that were left out, because they changed hands each time they were read.
    pub fn torn(&self) -> u64 {
        self.torn.load(Ordering::Relaxed)
    }

    /// How many flows the filter takes.
    pub fn count(&self, filter: &Filter) -> Count {
        let mut count = Count::default();
        let mut tenants: BTreeMap<u16, u64> = BTreeMap::new();
        let names = self.newest();
        for (_, _, record) in self.matching(filter) {
            count.flows += 1;
            *tenants.entry(record.birth.tenant).or_default() += 1;
            *count.states.entry(state::name(record.life.state())).or_default() += 1;
            *count.verdicts.entry(names.of_record(&record)).or_default() += 1;
        }
        count.tenants =
            tenants.into_iter().map(|(n, flows)| (self.names.tenant(n).to_owned(), flows)).collect();
        count
    }

    /// The flows between these ends, named in either order: one of each scope that uses them, and for a moment two where a
    /// worker has lost its flow to another one.
    pub fn find(&self, scope: Option<u64>, tuple: &Tuple) -> Vec<LiveFlow> {
        self.iter(&Filter { scope, tuple: Some(*tuple), ..Filter::default() }).collect()
    }

    /// The same, with what else is known of them.
    pub fn details(&self, scope: Option<u64>, tuple: &Tuple) -> Vec<Detail> {
        let filter = Filter { scope, tuple: Some(*tuple), ..Filter::default() };
        let now = self.now();
        let detail = |(shown, entry, record): (&Shown, u32, Record)| {
            let Record { life, birth, .. } = &record;
            let sent_home = life.has(Life::FORWARDED) && !life.has(Life::CONDEMNED);
            Detail {
                flow: self.flow(shown, entry, &record, now),
                settled: life.settled(),
                sent_home_by: birth.condemned.checked_sub(1).filter(|_| sent_home),
                misaligned: life.has(Life::MISALIGNED),
            }
        };
        self.matching(&filter).map(detail).collect()
    }

    /// Every flow that the filter takes.
    pub fn iter<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = LiveFlow> + 'a {
        let now = self.now();
        self.matching(filter).map(move |(shown, entry, record)| self.flow(shown, entry, &record, now))
    }

    /// The first flows that the filter takes.
    pub fn snapshot(&self, limit: usize, filter: &Filter) -> Picture {
        let mut all = self.iter(filter);
        Picture { flows: all.by_ref().take(limit).collect(), more: all.next().is_some() }
    }

    /// The first flows that the filter takes, or, in an order, those with the most of it; and how many it takes in all. What is kept
    /// meanwhile is bounded by the limit.
    pub fn top(&self, limit: usize, filter: &Filter, order: Option<Order>) -> (Picture, u64) {
        let (now, mut all) = (self.now(), 0);
        let mut kept: Vec<(u64, &Shown, u32, Record)> = Vec::new();
        for (shown, entry, record) in self.matching(filter) {
            all += 1;
            let Some(order) = order else {
                if kept.len() < limit {
                    kept.push((0, shown, entry, record));
                }
                continue;
            };
            kept.push((order.of(&record, now), shown, entry, record));
            if kept.len() >= 2 * limit.max(512) {
                kept.select_nth_unstable_by_key(limit, |(much, ..)| Reverse(*much));
                kept.truncate(limit);
            }
        }
        kept.sort_by_key(|(much, ..)| Reverse(*much));
        kept.truncate(limit);
        let flows =
            kept.iter().map(|(_, shown, entry, record)| self.flow(shown, *entry, record, now)).collect();
        (Picture { flows, more: all > limit as u64 }, all)
    }

    /// Ends all flows that the filter takes, as far as the workers' rings have room for commands.
    pub fn flush(&self, filter: &Filter) -> Flushed {
        let mut flushed = Flushed::default();
        for (shown, entry, record) in self.matching(filter) {
            match shown.commands.lock().push(Command { entry, version: record.version }) {
                Ok(()) => flushed.asked += 1,
                Err(_) => flushed.left += 1,
            }
        }
        flushed
    }

    /// Stages and reasons are those of this plan from now on. While workers come to it, what is said of a flow's verdict may be what the
    /// plan before made of it.
    pub(crate) fn rename(&self, plan: &Plan) {
        *self.newest.write() = Arc::new(Names::of(plan));
    }

    fn newest(&self) -> Arc<Names> {
        self.newest.read().clone()
    }

    fn now(&self) -> u32 {
        (self.clock.now() / 1_000_000) as u32
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a Shown, u32, Record)> + 'a {
        let (now, wanted, names) = (self.now(), filter.prepared(), self.newest());
        self.workers
            .iter()
            .flat_map(|shown| (0..shown.lines.reach()).map(move |entry| (shown, entry)))
            .filter_map(move |(shown, entry)| Some((shown, entry, self.read(shown, entry)?)))
            .filter(move |(_, _, record)| wanted.takes(record, &names, now))
    }

    fn read(&self, shown: &Shown, entry: u32) -> Option<Record> {
        let entry = shown.lines.get(entry)?;
        for _ in 0..TRIES {
            if let Ok(record) = entry.read() {
                return record;
            }
            std::hint::spin_loop();
        }
        self.torn.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn flow(&self, shown: &Shown, entry: u32, record: &Record, now: u32) -> LiveFlow {
        let Record { key, life, birth, outer, counts, spoken, .. } = record;
        let (app_proto, app_proto_orig) = spoken.words();
        let names = self.newest();
        let [(packets, bytes), (packets_back, bytes_back)] = *counts;
        let reason = birth.reason(*life).map(|id| names.reason(id).to_owned());
        LiveFlow {
            flow_id: flow_id(shown.worker, (entry, record.version)),
            worker: shown.worker,
            scope: key.scope(),
            endpoint: self.names.endpoint(key),
            tenant: self.names.tenant(birth.tenant).to_owned(),
            tuple: key.tuple(life.has(Life::FROM_HIGH)),
            state: state::name(life.state()),
            age_ms: since(birth.created, now),
            idle_ms: since(life.seen(), now),
            packets: [packets, packets_back],
            bytes: [bytes, bytes_back],
            app_proto,
            app_proto_orig,
            verdict: names.of_record(record),
            reason,
            picked_up: life.has(Life::PICKED_UP),
            envelopes: *outer,
        }
    }
}

/// Milliseconds from then to now. Workers go on while they are looked at: what is a little later than now is now.
fn since(then: u32, now: u32) -> u32 {
    const A_LITTLE: u32 = 60_000;
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX - A_LITTLE { 0 } else { passed }
}

#[cfg(all(test, not(loom)))]
mod tests;
