//! What a worker counts, and the ledger that must balance.
//!
//! Counters have one writer, the worker, and any number of readers: an add is a relaxed load and store, no locked
//! instruction. A reader sees each counter move forward; only a stopped worker's counters are exact as a set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use super::answer::{AnswerCounters, AnswerSnapshot};
use super::heartbeat::Heartbeat;
use super::punt::{PuntCounters, PuntSnapshot};
use super::samples::{Buckets, Samples};
use crate::event::{EventCounters, EventSnapshot};
use crate::flow::{FlowCounters, FlowSnapshot};
use crate::packet::{ReasonId, ReasonTable};
use crate::stage::WorkerId;
use crate::stream::{StreamCounters, StreamSnapshot};

/// Counters on two cache lines, which are fetched together.
const LINE: usize = 16;
/// Reasons that can come by reloads: a stage that is new has some of its own.
const MORE_REASONS: usize = 1024;

/// One counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call it.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Says what it is now, for one that goes up and down; only the owning worker may call it.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything one worker counts. Starts on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// The worker.
    pub worker: WorkerId,
    /// Frames taken from receive queues, chained ones included.
    pub received: Counter,
    /// Bytes of those, chained ones left out.
    pub received_bytes: Counter,
    /// Frames the transmit queues took.
    pub sent: Counter,
    /// Bytes of those.
    pub sent_bytes: Counter,
    /// Frames that are not tunnel traffic and belong to the host stack.
    pub punted: Counter,
    /// Frames passed although the driver could not say whether their outer UDP checksum is right.
    pub checksum_unknown: Counter,
    /// Frames whose inner packet a stage changed.
    pub edited: Counter,
    /// Polls that found frames.
    pub busy_polls: Counter,
    /// Polls that found none.
    pub idle_polls: Counter,
    /// Cycles spent in polls that found frames.
    pub busy_cycles: Counter,
    /// Frames dropped, by [`ReasonId`].
    pub drops: Drops,
    /// What became of flows.
    pub flows: Arc<FlowCounters>,
    /// What became of events.
    pub events: Arc<EventCounters>,
    /// What was made here.
    pub answers: AnswerCounters,
    /// Fragments that wait for their first; goes up and down.
    pub held: Counter,
    /// Where it is.
    pub place: Heartbeat,
    /// What became of frames for the host stack.
    pub punt: PuntCounters,
    /// What streams came to.
    pub streams: Arc<StreamCounters>,
    /// Frames that wait for a stage's decision; goes up and down.
    pub held_for_stages: Counter,
    /// Blocks of the streams' memory on loan; goes up and down.
    pub stream_blocks: Counter,
    /// Blocks of the streams' memory.
    pub stream_room: Counter,
    /// What polls that were timed came to.
    pub samples: Samples,
    /// What came by each of its queues, in the order of its lanes.
    pub queues: Box<[QueueCounters]>,
    /// What each stage did. The management side's: a worker's stages have theirs at hand.
    stages: Mutex<Stages>,
}

/// What one receive queue brought. On a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct QueueCounters {
    /// DPDK's number of the port.
    pub port: u16,
    /// Number of the queue.
    pub queue: u16,
    /// Frames taken from it, chained ones included.
    pub received: Counter,
    /// Polls that found as many frames as they asked for: more may have waited.
    pub full_polls: Counter,
    /// Frames that its transmit queue took, but for those made here.
    pub sent: Counter,
    /// Frames that its transmit queue did not take.
    pub tx_full: Counter,
}

impl QueueCounters {
    /// What became of the frames of a batch that went to its transmit queue.
    #[inline(always)]
    pub(super) fn count(&self, taken: Taken) {
        self.sent.add(taken.sent.into());
        if taken.full > 0 {
            self.tx_full.add(taken.full.into());
        }
    }
}

/// What a transmit queue took of a batch, and what not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub sent: u32,
    pub full: u32,
}

/// One counter per reason, on cache lines of their own.
#[derive(Debug)]
pub struct Drops {
    lines: Box<[Line]>,
    reasons: AtomicUsize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([Counter; LINE]);

impl Drops {
    fn new(reasons: usize) -> Self {
        let room = reasons + MORE_REASONS;
        Drops { lines: (0..room.div_ceil(LINE)).map(|_| Line::default()).collect(), reasons: reasons.into() }
    }

    #[inline(always)]
    fn get(&self, reason: usize) -> Option<&Counter> {
        self.lines.get(reason / LINE)?.0.get(reason % LINE)
    }

    fn iter(&self) -> impl Iterator<Item = &Counter> {
        self.lines.iter().flat_map(|line| &line.0).take(self.reasons.load(Ordering::Relaxed))
    }
}

/// Stages whose counters are kept by name. Beyond that, the oldest that no pipeline has goes: whoever renames his stages with every reload costs no
/// more memory for it.
const MOST_NAMES: usize = 64;

/// Counters of the stages that the worker has had, by name, and those of its pipeline among them, in its order.
#[derive(Debug, Default)]
struct Stages {
    all: Vec<(String, Arc<StageCounters>)>,
    shown: Vec<Arc<StageCounters>>,
    /// Tenants that each counts for.
    tenants: usize,
    /// Panics of those that were let go.
    panics: u64,
}

/// What one stage did on one worker. On a cache line of its own: the heap may put another worker's next to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StageCounters {
    /// Packets it was shown.
    pub seen: Counter,
    /// Packets it sent home past the remaining stages.
    pub forwarded: Counter,
    /// Packets it dropped.
    pub dropped: Counter,
    /// Packets that it would have dropped, in shadow mode.
    pub would_drop: Counter,
    /// Packets that it would have sent home past the remaining stages, in shadow mode.
    pub would_send_home: Counter,
    /// Batches in which it panicked.
    pub panics: Counter,
    /// Cycles for each packet of the batches that were timed.
    pub cycles: Buckets,
    /// The same by tenant; empty where there is only one. The last place is that of all tenants that have none of their own.
    pub tenants: Box<[TenantCounters]>,
}

impl StageCounters {
    /// All zero, with places for so many tenants.
    fn of(tenants: usize) -> Self {
        StageCounters {
            tenants: (0..tenants).map(|_| TenantCounters::default()).collect(),
            ..StageCounters::default()
        }
    }
}

/// What one stage did to one tenant's packets.
#[derive(Debug, Default)]
pub struct TenantCounters {
    /// As in [`StageCounters`].
    pub seen: Counter,
    /// As in [`StageCounters`].
    pub forwarded: Counter,
    /// As in [`StageCounters`].
    pub dropped: Counter,
}

impl WorkerCounters {
    /// All zero, for a plan with these reasons and so many stages.
    pub fn new(worker: WorkerId, reasons: &ReasonTable, stages: usize) -> Self {
        let zero = Counter::default;
        WorkerCounters {
            worker,
            received: zero(),
            received_bytes: zero(),
            sent: zero(),
            sent_bytes: zero(),
            punted: zero(),
            checksum_unknown: zero(),
            edited: zero(),
            busy_polls: zero(),
            idle_polls: zero(),
            busy_cycles: zero(),
            drops: Drops::new(reasons.len()),
            flows: Arc::default(),
            events: Arc::default(),
            answers: AnswerCounters::default(),
            held: zero(),
            place: Heartbeat::default(),
            punt: PuntCounters::default(),
            streams: Arc::default(),
            held_for_stages: zero(),
            stream_blocks: zero(),
            stream_room: zero(),
            samples: Samples::default(),
            queues: Box::default(),
            stages: Mutex::new(Stages {
                all: Vec::new(),
                shown: (0..stages).map(|_| Arc::new(StageCounters::default())).collect(),
                tenants: 0,
                panics: 0,
            }),
        }
    }

    /// The same, with a counter for each of these queues (port and queue).
    pub fn with_queues(mut self, queues: impl Iterator<Item = (u16, u16)>) -> Self {
        let of = |(port, queue)| QueueCounters {
            port,
            queue,
            received: Counter::default(),
            full_polls: Counter::default(),
            sent: Counter::default(),
            tx_full: Counter::default(),
        };
        self.queues = queues.map(of).collect();
        self
    }

    /// The same, with stages counting for so many tenants each: the first ones by themselves, and all others together in the last place.
    /// One or none: not by tenant.
    pub fn with_tenants(mut self, places: usize) -> Self {
        let places = if places > 1 { places } else { 0 };
        let Stages { shown, tenants, .. } = self.stages.get_mut();
        *tenants = places;
        shown.iter_mut().for_each(|stage| *stage = Arc::new(StageCounters::of(places)));
        self
    }

    /// What each stage did, in pipeline order.
    pub fn stages(&self) -> Vec<Arc<StageCounters>> {
        self.stages.lock().shown.clone()
    }

    /// What the stages of these names did. A plan that is in force already may have others, or have them elsewhere.
    pub fn stages_named(&self, names: &[String]) -> Vec<Arc<StageCounters>> {
        if self.stages.lock().all.is_empty() {
            return self.stages(); // nobody has named them
        }
        names.iter().map(|name| self.stage(name)).collect()
    }

    /// Panics of all stages that the worker has had: never less than before.
    pub fn panics(&self) -> u64 {
        let Stages { all, shown, panics, .. } = &*self.stages.lock();
        let unnamed = shown.iter().filter(|_| all.is_empty());
        let each = all.iter().map(|(_, counters)| counters).chain(unnamed);
        panics + each.map(|counters| counters.panics.get()).sum::<u64>()
    }

    /// The counters of the stage of this name: those that it had before, if there was one.
    pub fn stage(&self, name: &str) -> Arc<StageCounters> {
        let Stages { all, tenants, panics, .. } = &mut *self.stages.lock();
        let known = all.iter().find(|(known, _)| known == name);
        if let Some((_, counters)) = known {
            return counters.clone();
        }
        let is_left = |(_, counters): &(String, Arc<StageCounters>)| Arc::strong_count(counters) == 1;
        if all.len() >= MOST_NAMES
            && let Some(oldest) = all.iter().position(is_left)
        {
            *panics += all.remove(oldest).1.panics.get();
        }
        let counters = Arc::new(StageCounters::of(*tenants));
        all.push((name.to_owned(), counters.clone()));
        counters
    }

    /// These are the stages now, in pipeline order, and the plan has so many reasons.
    pub fn show(&self, stages: &[&str], reasons: usize) {
        let shown = stages.iter().map(|name| self.stage(name)).collect();
        self.stages.lock().shown = shown;
        self.drops.reasons.store(reasons.min(self.most_reasons()), Ordering::Relaxed);
    }

    /// Reasons that can be counted.
    pub fn most_reasons(&self) -> usize {
        self.drops.lines.len() * LINE
    }

    /// The counters of the first pipeline, in its order; from now on they have names.
    pub(super) fn name_stages(&self, names: &[&str]) -> Vec<Arc<StageCounters>> {
        let Stages { all, shown, tenants, .. } = &mut *self.stages.lock();
        if all.is_empty() {
            shown.resize_with(names.len(), || Arc::new(StageCounters::of(*tenants)));
            *all = names.iter().map(|name| (*name).to_owned()).zip(shown.iter().cloned()).collect();
        }
        shown.clone()
    }

    /// Counts drops of one reason.
    #[inline(always)]
    pub fn drop(&self, reason: ReasonId, n: u64) {
        if let Some(counter) = self.drops.get(reason.0 as usize) {
            counter.add(n);
        }
    }

    /// Drops of one reason so far.
    pub fn dropped(&self, reason: ReasonId) -> u64 {
        self.drops.get(usize::from(reason.0)).map_or(0, Counter::get)
    }

    /// The values now.
    pub fn snapshot(&self) -> WorkerSnapshot {
        WorkerSnapshot {
            worker: self.worker,
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
            sent: self.sent.get(),
            sent_bytes: self.sent_bytes.get(),
            punted: self.punted.get(),
            checksum_unknown: self.checksum_unknown.get(),
            edited: self.edited.get(),
            busy_polls: self.busy_polls.get(),
            idle_polls: self.idle_polls.get(),
            busy_cycles: self.busy_cycles.get(),
            drops: self.drops.iter().map(Counter::get).collect(),
            flows: self.flows.snapshot(),
            events: self.events.snapshot(),
            answers: self.answers.snapshot(),
            held: self.held.get(),
            punt: self.punt.snapshot(),
            streams: self.streams.snapshot(),
            held_for_stages: self.held_for_stages.get(),
            stages: self
                .stages()
                .iter()
                .map(|s| StageSnapshot {
                    seen: s.seen.get(),
                    forwarded: s.forwarded.get(),
                    dropped: s.dropped.get(),
                    would_drop: s.would_drop.get(),
                    would_send_home: s.would_send_home.get(),
                    panics: s.panics.get(),
                })
                .collect(),
        }
    }
}

/// [`WorkerCounters`] at one moment. The fields mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct WorkerSnapshot {
    pub worker: WorkerId,
    pub received: u64,
    pub received_bytes: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub punted: u64,
    pub checksum_unknown: u64,
    pub edited: u64,
    pub busy_polls: u64,
    pub idle_polls: u64,
    pub busy_cycles: u64,
    pub drops: Vec<u64>,
    pub flows: FlowSnapshot,
    pub events: EventSnapshot,
    pub answers: AnswerSnapshot,
    pub held: u64,
    pub punt: PuntSnapshot,
    pub streams: StreamSnapshot,
    pub held_for_stages: u64,
    pub stages: Vec<StageSnapshot>,
}

/// [`StageCounters`] at one moment. The fields mean the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct StageSnapshot {
    pub seen: u64,
    pub forwarded: u64,
    pub dropped: u64,
    pub would_drop: u64,
    pub would_send_home: u64,
    pub panics: u64,
}

impl StageSnapshot {
    /// The same and another worker's.
    #[must_use]
    pub fn plus(&self, other: &StageSnapshot) -> StageSnapshot {
        StageSnapshot {
            seen: self.seen + other.seen,
            forwarded: self.forwarded + other.forwarded,
            dropped: self.dropped + other.dropped,
            would_drop: self.would_drop + other.would_drop,
            would_send_home: self.would_send_home + other.would_send_home,
            panics: self.panics + other.panics,
        }
    }

    /// Packets that went on to the next stage. While the worker runs its counters are read one after the other, and those
    /// read later may be ahead: then this is less than it will be, never more.
    pub fn passed_on(&self) -> u64 {
        self.seen.saturating_sub(self.forwarded).saturating_sub(self.dropped)
    }
}

impl WorkerSnapshot {
    /// Frames dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// The worker's side of the ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            received: self.received,
            handed_in: self.flows.handed_in,
            made: self.answers.made() + self.punt.replies,
            sent: self.sent,
            handed_out: self.flows.handed_out,
            punted: self.punted,
            dropped: self.dropped(),
            held: self.held + self.held_for_stages,
        }
    }
}

/// Where every frame came from, and where it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Frames taken from receive queues.
    pub received: u64,
    /// Frames taken from other workers.
    pub handed_in: u64,
    /// Frames made here.
    pub made: u64,
    /// Frames the transmit queues took.
    pub sent: u64,
    /// Frames given to other workers.
    pub handed_out: u64,
    /// Frames for the host stack.
    pub punted: u64,
    /// Frames dropped for any reason.
    pub dropped: u64,
    /// Frames that wait: fragments for their first, others for a stage.
    pub held: u64,
}

impl Ledger {
    /// received + handed in + made = sent + handed out + punted + dropped + held.
    pub fn balances(&self) -> bool {
        self.received + self.handed_in + self.made
            == self.sent + self.handed_out + self.punted + self.dropped + self.held
    }

    /// Frames on their way between workers, if this is the sum over all of them and they stand still.
    pub fn in_the_rings(&self) -> u64 {
        self.handed_out.saturating_sub(self.handed_in)
    }
}

impl std::ops::Add for Ledger {
    type Output = Ledger;
    fn add(self, other: Ledger) -> Ledger {
        Ledger {
            received: self.received + other.received,
            handed_in: self.handed_in + other.handed_in,
            made: self.made + other.made,
            sent: self.sent + other.sent,
            handed_out: self.handed_out + other.handed_out,
            punted: self.punted + other.punted,
            dropped: self.dropped + other.dropped,
            held: self.held + other.held,
        }
    }
}

impl std::iter::Sum for Ledger {
    fn sum<I: Iterator<Item = Ledger>>(ledgers: I) -> Ledger {
        ledgers.fold(Ledger::default(), |a, b| a + b)
    }
}

impl std::fmt::Display for Ledger {
    /// Rows that flows alone bring are left out where they are zero.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ledger { received, handed_in, made, sent, handed_out, punted, dropped, held } = *self;
        write!(f, "received {received}")?;
        for (name, n) in [("handed in", handed_in), ("made here", made)] {
            if n > 0 {
                write!(f, " + {name} {n}")?;
            }
        }
        write!(f, " = sent {sent}")?;
        if handed_out > 0 {
            write!(f, " + handed out {handed_out}")?;
        }
        write!(f, " + punted {punted} + dropped {dropped}")?;
        if held > 0 {
            write!(f, " + held {held}")?;
        }
        write!(f, ": {}", if self.balances() { "balances" } else { "DOES NOT BALANCE" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_no_cache_line() {
        let mut reasons = ReasonTable::framework();
        reasons.add("stage", &[("one", ""), ("two", "")]);
        let workers: Vec<_> = (0..4).map(|n| WorkerCounters::new(WorkerId(n), &reasons, 2)).collect();
        let lines = |worker: &WorkerCounters| -> Vec<usize> {
            let own = std::ptr::from_ref(worker).addr();
            let drops = worker.drops.iter().map(|c| std::ptr::from_ref(c).addr());
            let own_stages = worker.stages();
            let stages = own_stages.iter().map(|s| Arc::as_ptr(s).addr());
            let mut lines: Vec<_> = [own].into_iter().chain(drops).chain(stages).map(|a| a / 128).collect();
            lines.dedup();
            lines
        };
        let mut all: Vec<_> = workers.iter().flat_map(lines).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        // A line that is a worker's is so to its end.
        assert_eq!(
            (align_of::<WorkerCounters>(), align_of::<StageCounters>(), align_of::<Line>()),
            (128, 128, 128)
        );
    }

    #[test]
    fn a_snapshot_of_a_running_worker_never_counts_below_zero() {
        let stage =
            |seen, forwarded, dropped| StageSnapshot { seen, forwarded, dropped, ..StageSnapshot::default() };
        assert_eq!(stage(10, 3, 2).passed_on(), 5);
        assert_eq!(stage(32, 0, 64).passed_on(), 0, "the worker dropped a batch between two reads");
    }

    #[test]
    fn stages_that_are_renamed_again_and_again_are_forgotten() {
        let counters = WorkerCounters::new(WorkerId(0), &ReasonTable::framework(), 0);
        let kept = counters.stage("kept");
        for n in 0..1_000_u64 {
            let name = format!("stage {n}");
            counters.show(&["kept", &name], 0);
            counters.stage(&name).panics.add(1);
            assert_eq!(counters.panics(), n + 1);
        }
        assert!(counters.stages.lock().all.len() <= MOST_NAMES);
        assert!(Arc::ptr_eq(&kept, &counters.stage("kept")));
        assert_eq!(counters.stage("stage 999").panics.get(), 1, "back at once, it goes on");
        assert_eq!(counters.stage("stage 0").panics.get(), 0, "back after many others, it begins anew");
        assert_eq!(counters.panics(), 1_000);
    }

    #[test]
    fn every_reason_has_its_counter() {
        let reasons = ReasonTable::framework();
        let counters = WorkerCounters::new(WorkerId(0), &reasons, 0);
        for (id, _, _) in reasons.iter() {
            counters.drop(id, u64::from(id.0) + 1);
        }
        counters.drop(ReasonId(u16::MAX), 1);
        let drops = counters.snapshot().drops;
        assert_eq!(drops, (1..=reasons.len() as u64).collect::<Vec<_>>());
    }
}
