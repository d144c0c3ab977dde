//! The flows of one worker: opened, followed, settled, aged, ended.

mod open;
mod own;
mod age;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::command::Commands;
use super::counters::FlowCounters;
use super::directory::{Directory, Seat};
use super::event::{End, FlowEvent, What};
use super::fragment::Fragments;
use super::key::{Key, Seed};
use super::line::{Birth, Entry, Life, Lines};
use super::rate::Rates;
use super::refit::Refitting;
use super::room::{Room, Share};
use super::state::{self, Timeouts};
use super::table::Table;
use super::turned_away::TurnedAway;
use super::{Envelope, tcp};
use crate::config::FlowPlan;
use crate::event::{Asked, Type, Types};
use crate::packet::{FlowSlot, Meta, ReasonId, Spoken};
use crate::stage::WorkerId;

pub(crate) use open::{Newcomer, Opened, Opening};

/// What all workers share of the flow engine.
#[derive(Clone, Debug)]
pub struct FlowsShared {
    /// The hash key.
    pub seed: Seed,
    /// Who owns what; none for a single worker.
    pub directory: Option<Arc<Directory>>,
    /// First fragments.
    pub fragments: Arc<Fragments>,
    /// New flows of each tenant.
    pub(crate) rates: Arc<Rates>,
    /// Who may still come that found no room.
    pub(crate) turned_away: Arc<TurnedAway>,
}

impl FlowsShared {
    /// What so many workers share under this plan; `None` if it follows no flows.
    pub fn of(plan: &FlowPlan, workers: usize, seed: Seed) -> Option<Self> {
        let directory = || Arc::new(Directory::new(plan.capacity as usize, workers));
        let lifetime = plan.fragments.lifetime.as_millis().try_into().unwrap_or(u32::MAX);
        let fragments = || Arc::new(Fragments::new(plan.fragments.entries as usize, lifetime));
        plan.tracking.then(|| FlowsShared {
            seed,
            directory: (workers > 1).then(directory),
            fragments: fragments(),
            rates: Arc::new(Rates::new(plan.tenants.iter().map(|t| t.new_flows_per_s))),
            turned_away: Arc::new(TurnedAway::new(plan.tenants.len())),
        })
    }
}

impl FlowsShared {
    /// For a watchdog: this worker hangs. Others take over its flows as their packets come; it finds out if it lives after all.
    pub fn retire(&self, worker: WorkerId) {
        if let Some(directory) = &self.directory {
            directory.retire(worker);
        }
    }
}

/// One worker's flows.
#[derive(Debug)]
pub struct Flows {
    worker: WorkerId,
    table: Table,
    room: Room,
    rates: Arc<Rates>,
    turned_away: Arc<TurnedAway>,
    pub(super) timeouts: Timeouts,
    directory: Option<(Arc<Directory>, Seat)>,
    /// Any worker can have a flow for which the directory has no place.
    stand_ins: bool,
    events: Option<rtrb::Producer<FlowEvent>>,
    /// What somebody wants to hear at this moment.
    asked: Arc<Asked>,
    counters: Arc<FlowCounters>,
    pub(super) commands: Commands,
    /// Of the flows whose masks are those of the pipeline in force, as the flag of [`Life`]; and the others' way to it.
    pub(super) generation: u8,
    pub(super) refitting: Refitting,
    /// Milliseconds of this poll, and their lower half.
    time: u64,
    now: u32,
    /// Where ageing goes on, when it was last done, and what is still to do.
    hand: u32,
    aged: u32,
    owed: u64,
}

impl Flows {
    /// An empty table for one worker. Everything it will ever need is allocated here.
    pub fn new(
        worker: WorkerId,
        plan: &FlowPlan,
        shared: &FlowsShared,
        events: Option<rtrb::Producer<FlowEvent>>,
        counters: Arc<FlowCounters>,
    ) -> Self {
        let shares: Vec<Share> =
            plan.tenants.iter().map(|t| Share { guaranteed: t.guaranteed, ceiling: t.ceiling }).collect();
        let seat = |directory: &Arc<Directory>| Some((directory.clone(), directory.seat(worker)?));
        Flows {
            worker,
            table: Table::new(plan.per_worker as usize, shared.seed),
            room: Room::new(plan.per_worker, &shares),
            rates: shared.rates.clone(),
            turned_away: shared.turned_away.clone(),
            timeouts: Timeouts::new(plan),
            directory: shared.directory.as_ref().and_then(seat),
            stand_ins: false,
            events,
            asked: Arc::new(Asked::of(Types::ALL)),
            counters,
            commands: Commands::default(),
            generation: 0,
            refitting: Refitting::default(),
            time: 0,
            now: 0,
            hand: 0,
            aged: 0,
            owed: 0,
        }
    }

    /// Flows live by other times from now on; those until now come back.
    pub(crate) fn swap_timeouts(&mut self, timeouts: &mut Timeouts) {
        std::mem::swap(&mut self.timeouts, timeouts);
    }

    /// Packets that come in anywhere can be given to any worker: then all agree on one for flows that have no place in the directory, and
    /// nobody's claim has to be evicted for another. Otherwise such flows live where they were first seen.
    pub(crate) fn with_stand_ins(mut self, reachable: bool) -> Self {
        self.stand_ins = reachable;
        self
    }

    /// The worker.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    #[inline(always)]
    pub(crate) fn counters(&self) -> &FlowCounters {
        &self.counters
    }

    #[inline(always)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Hash of a key.
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        self.table.hash(key)
    }

    /// The entry of a flow, by a search of its own.
    pub(crate) fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        self.table.find(hash, key)
    }

    /// What other threads may read: the entries, and how many flows each tenant has.
    pub(super) fn shown(&self) -> (Arc<Lines>, Arc<[AtomicU32]>) {
        (self.table.lines().clone(), self.room.shown())
    }

    /// Somebody wants to hear of flows that begin and end: a ring for so many events, a power of two.
    pub fn listen(&mut self, ring: usize) -> rtrb::Consumer<FlowEvent> {
        let (events, listener) = rtrb::RingBuffer::new(ring);
        self.events = Some(events);
        listener
    }

    /// Not all that is told of flows is wanted at all times.
    pub fn asked_by(&mut self, asked: Arc<Asked>) {
        self.asked = asked;
    }

    /// Flows in the table.
    pub fn live(&self) -> u32 {
        self.table.live()
    }

    /// Milliseconds of this poll.
    #[inline(always)]
    pub fn now(&self) -> u32 {
        self.now
    }

    /// A poll begins. `now` in nanoseconds.
    #[inline(always)]
    pub(crate) fn begin(&mut self, now: u64) {
        // The counter of another CPU, or the next packet of a capture, may be a little behind: time stands still then.
        self.time = self.time.max(now / 1_000_000);
        self.now = self.time as u32;
    }

    #[inline(always)]
    pub(super) fn entry(&self, entry: u32) -> Option<Entry<'_>> {
        self.table.entry(entry)
    }

    /// Is the flow that track found for a packet still in its entry? A later packet of the same batch may have ended it.
    #[inline(always)]
    pub fn holds(&self, meta: &Meta) -> bool {
        let entry = meta.flow.entry().and_then(|entry| self.table.entry(entry));
        entry.is_some_and(|entry| entry.version() == meta.incarnation)
    }

    /// Is the packet's flow a TCP connection that was reset?
    pub fn is_reset(&self, meta: &Meta) -> bool {
        let entry = meta.flow.entry().and_then(|entry| self.table.entry(entry));
        entry.is_some_and(|entry| state::tcp(entry.life().state()) == Some(tcp::State::Reset))
    }

    /// Stages are done with a flow.
    #[inline(always)]
    pub fn settle(&mut self, flow: FlowSlot, stages: u16) {
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry)) {
            entry.set_life(entry.life().settle(stages));
        }
    }

    /// The stage of that number sends a flow home: `stages`, its own and all behind it, are done with it. None: track has allowed it without a question.
    pub(crate) fn forward(&mut self, flow: FlowSlot, stages: u16, by: Option<usize>) {
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry)) {
            let life = entry.life().settle(stages);
            if life.has(Life::CONDEMNED) {
                return entry.set_life(life); // by another packet of the batch
            }
            entry.set_birth(Birth { condemned: by.map_or(0, |by| by as u16 + 1), ..entry.birth() });
            entry.set_life(life.with(Life::FORWARDED));
        }
    }

    /// All packets of the flow are dropped from now on; with `reject` their ends are told each time.
    pub fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, reject: bool) {
        if let Some(number) = flow.entry() {
            self.refit(number); // what has waited for long may be from before a change
        }
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry)) {
            entry.set_birth(Birth { condemned: reason.0 + 1, ..entry.birth() });
            let flags = if reject { Life::CONDEMNED | Life::REJECTED } else { Life::CONDEMNED };
            entry.set_life(entry.life().with(flags));
        }
    }

    /// The other side opened the flow.
    pub fn turn(&mut self, flow: FlowSlot) {
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry)) {
            entry.turn();
            entry.set_tcp(tcp::Tracked::unpack(entry.tcp()).turned().pack());
        }
    }

    /// What a flow speaks.
    pub fn name(&mut self, flow: FlowSlot, spoken: Spoken) {
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry)) {
            entry.set_spoken(spoken);
        }
    }

    /// The newest envelopes of a flow: of the originator's packets and of the responder's.
    pub fn envelopes(&self, flow: FlowSlot) -> [Option<Envelope>; 2] {
        match flow.entry().and_then(|entry| self.table.entry(entry)) {
            Some(entry) => [entry.outer(false), entry.outer(true)],
            None => [None; 2],
        }
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, entry: u32, why: End) {
        self.refit(entry);
        let Some(line) = self.table.entry(entry) else { return };
        let key = Key::of_entry(line);
        if !key.is_used() {
            return;
        }
        let (life, birth) = (line.life(), line.birth());
        self.report(entry, What::End(why));
        if let Some(list) = state::waiting(life.state()) {
            self.room.answered(self.table.lines(), birth.tenant, list, entry);
        }
        if life.has(Life::UNCLAIMED) {
            self.count_overflow(self.table.hash(&key), false);
        } else {
            self.release(self.table.hash(&key));
        }
        self.table.remove(entry);
        self.room.leave(birth.tenant);
        let counter = match why {
            End::Idle => &self.counters.ended_idle,
            End::Closed => &self.counters.ended_closed,
            End::Reset => &self.counters.ended_reset,
            End::Replaced => &self.counters.incarnations,
            End::Evicted => &self.counters.ended_evicted,
            End::Flushed => &self.counters.ended_flushed,
            End::TakenOver => &self.counters.ended_taken_over,
            End::Stopped => &self.counters.ended_stopped,
        };
        counter.add(1);
    }

    fn report(&mut self, entry: u32, what: What) {
        let Some(events) = &mut self.events else { return };
        let kind = if what == What::Start { Type::FlowStart } else { Type::Flow };
        if !self.asked.types().has(kind) {
            return;
        }
        let Some(line) = self.table.entry(entry) else { return };
        let (life, birth) = (line.life(), line.birth());
        let event = FlowEvent {
            what,
            worker: self.worker,
            at: self.now,
            began: birth.created,
            seen: life.seen(),
            key: Key::of_entry(line),
            place: (entry, line.version()),
            from_high: life.has(Life::FROM_HIGH),
            picked_up: life.has(Life::PICKED_UP),
            state: state::name(life.state()),
            tenant: birth.tenant,
            settled: life.settled(),
            condemned: birth.reason(life),
            spoken: line.spoken(),
            counts: line.counts(),
        };
        if events.push(event).is_err() {
            self.counters.events_lost.add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
