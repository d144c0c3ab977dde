//! The flows of one worker: opened, followed, settled, aged, ended.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::command::Commands;
use super::counters::FlowCounters;
use super::directory::{Claim, Directory, Seat};
use super::event::{End, FlowEvent, What};
use super::fragment::Fragments;
use super::key::{Key, Seed};
use super::line::{Birth, Entry, Life, Lines};
use super::rate::Rates;
use super::room::{Admission, Room, Share, Waiting};
use super::state::{self, Timeouts};
use super::table::{Full, Table};
use super::turned_away::TurnedAway;
use super::{Envelope, tcp};
use crate::config::FlowPlan;
use crate::packet::{FlowSlot, Meta, ReasonId};
use crate::stage::WorkerId;

/// Every entry is looked at for its age once in this many milliseconds, unless there are very many.
const SWEEP: u64 = 1000;
/// Entries looked at in one poll, at most.
const MOST_AGED: u64 = 256;
/// And in a millisecond: a sweep of more than a million entries takes longer than a second (16 s for 2^24), rather than more than a
/// hundredth of a core.
const MOST_PER_MS: u64 = 1024;
/// How long the last events wait for room at a time.
const A_LITTLE: Duration = Duration::from_millis(1);

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

/// A flow to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub key: Key,
    pub hash: u64,
    /// The higher end opens it.
    pub from_high: bool,
    pub tenant: u16,
    pub opening: Opening,
}

/// How a flow begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opening {
    Tcp { state: tcp::State, tracked: tcp::Tracked, picked_up: bool },
    Other,
}

impl Opening {
    fn state(&self) -> u8 {
        match self {
            Opening::Tcp { state, .. } => *state as u8,
            Opening::Other => state::FIRST,
        }
    }
}

/// What became of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It has an entry.
    Here(u32),
    /// Another worker owns it.
    Elsewhere(WorkerId),
    /// The same, and the packet has been handed over once already.
    Astray,
    /// There is no room.
    NoRoom,
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
    /// Flows that begin are told, too.
    tells_starts: bool,
    counters: Arc<FlowCounters>,
    pub(super) commands: Commands,
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
            tells_starts: true,
            counters,
            commands: Commands::default(),
            time: 0,
            now: 0,
            hand: 0,
            aged: 0,
            owed: 0,
        }
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

    /// From now on only the ends of flows are told.
    pub fn tell_ends_only(&mut self) {
        self.tells_starts = false;
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

    /// All packets of the flow are dropped from now on; with `reject` their ends are told each time.
    pub fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, reject: bool) {
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

    /// The newest envelopes of a flow: of the originator's packets and of the responder's.
    pub fn envelopes(&self, flow: FlowSlot) -> [Option<Envelope>; 2] {
        match flow.entry().and_then(|entry| self.table.entry(entry)) {
            Some(entry) => [entry.outer(false), entry.outer(true)],
            None => [None; 2],
        }
    }

    /// Which worker owns a flow that is not here, if it is not this one.
    #[cold]
    pub(crate) fn owner(&self, hash: u64) -> Option<WorkerId> {
        let (directory, _) = self.directory.as_ref()?;
        let owner = match directory.look(hash) {
            Some(owner) => Some(owner).filter(|&owner| owner != self.worker),
            None if directory.is_overfull(hash) => self.stand_in(hash),
            None => None,
        }?;
        self.counters.directory_hits.add(1);
        Some(owner)
    }

    /// Another worker that has this flow if the directory has no place for it.
    #[cold]
    fn stand_in(&self, hash: u64) -> Option<WorkerId> {
        let (directory, _) = self.directory.as_ref().filter(|_| self.stand_ins)?;
        directory.stand_in(hash).filter(|&other| other != self.worker)
    }

    /// A packet of the flow came to another worker.
    #[cold]
    pub(crate) fn misaligned(&mut self, flow: FlowSlot) {
        if let Some(entry) = flow.entry().and_then(|entry| self.table.entry(entry))
            && !entry.life().has(Life::MISALIGNED)
        {
            entry.set_life(entry.life().with(Life::MISALIGNED));
            self.counters.misaligned.add(1);
        }
    }

    /// Opens a flow that is not in the table, unless it belongs to another worker. `handed` packets are never handed on.
    #[inline(never)]
    pub(crate) fn open(&mut self, new: &Newcomer, handed: bool) -> Opened {
        let mut flags = if new.from_high { Life::FROM_HIGH } else { 0 };
        if let Some((directory, seat)) = &self.directory {
            if !handed
                && directory.is_overfull(new.hash)
                && let Some(other) = self.owner(new.hash)
            {
                return Opened::Elsewhere(other);
            }
            match directory.claim(new.hash, *seat, !self.stand_ins) {
                Claim::Owned(_) if handed => return Opened::Astray,
                Claim::Owned(owner) => {
                    self.counters.directory_hits.add(1);
                    return Opened::Elsewhere(owner);
                }
                Claim::Full => {
                    if let Some(other) = self.stand_in(new.hash).filter(|_| !handed) {
                        self.counters.directory_hits.add(1);
                        return Opened::Elsewhere(other);
                    }
                    self.counters.unclaimed.add(1);
                    flags |= Life::UNCLAIMED;
                }
                Claim::New | Claim::Evicting | Claim::Shared => {}
            }
        }
        let entry = self.admit(new, flags);
        match (entry, flags & Life::UNCLAIMED != 0) {
            (Some(_), true) => self.count_overflow(new.hash, true),
            (None, false) => self.release(new.hash),
            _ => {}
        }
        if let (None, Opening::Tcp { .. }) = (entry, new.opening) {
            self.turned_away.note(new.tenant, self.time + u64::from(self.timeouts.of_open_tcp()));
        }
        entry.map_or(Opened::NoRoom, Opened::Here)
    }

    /// A further packet of a flow in entry `number` that is half-open. A flood may have taken its claim: then it is claimed again, unless
    /// somebody else has done so by now, where the answer came in. That worker has the flow from now on; it is returned, and the
    /// entry here is gone. Packets that were `handed` over are never handed on, and so stay.
    #[inline(always)]
    pub(crate) fn moved(&mut self, number: u32, hash: u64, handed: bool) -> Option<WorkerId> {
        let (directory, seat) = self.directory.as_ref()?;
        // Where others can stand in, no claim is ever evicted.
        let half_open = !self.stand_ins && state::is_half_open(self.table.entry(number)?.life().state());
        if !half_open || directory.holds(hash, *seat) { None } else { self.claim_again(number, hash, handed) }
    }

    #[cold]
    fn claim_again(&mut self, number: u32, hash: u64, handed: bool) -> Option<WorkerId> {
        let (directory, seat) = self.directory.as_ref()?;
        let other = match directory.claim(hash, *seat, true) {
            Claim::New | Claim::Evicting | Claim::Shared => {
                self.set_unclaimed(number, hash, false);
                return None;
            }
            Claim::Owned(owner) => Some(owner),
            Claim::Full => None,
        };
        if let Some(other) = other.filter(|_| !handed) {
            self.counters.directory_hits.add(1);
            self.end(number, End::TakenOver);
            return Some(other);
        }
        self.set_unclaimed(number, hash, true);
        None
    }

    /// The directory may have a place by now for a flow that it had none for. Or others have agreed on somebody else; what is established stays
    /// here even so.
    #[cold]
    fn enter_late(&mut self, number: u32) {
        let Some((directory, seat)) = &self.directory else { return };
        let Some(line) = self.table.entry(number) else { return };
        let hash = self.table.hash(&Key::of_entry(line));
        let is_new = state::is_new(line.life().state());
        let others = match directory.claim(hash, *seat, is_new && !self.stand_ins) {
            Claim::New | Claim::Evicting | Claim::Shared => return self.set_unclaimed(number, hash, false),
            Claim::Owned(_) => true,
            Claim::Full => self.stand_in(hash).is_some(),
        };
        if others && is_new {
            self.end(number, End::TakenOver);
        }
    }

    /// Notes whether the directory knows a flow.
    #[cold]
    fn set_unclaimed(&self, number: u32, hash: u64, unclaimed: bool) {
        let Some(line) = self.table.entry(number) else { return };
        let life = line.life();
        if life.has(Life::UNCLAIMED) == unclaimed {
            return;
        }
        self.count_overflow(hash, unclaimed);
        if unclaimed {
            self.counters.unclaimed.add(1);
            line.set_life(life.with(Life::UNCLAIMED));
        } else {
            line.set_life(life.without(Life::UNCLAIMED));
        }
    }

    fn count_overflow(&self, hash: u64, more: bool) {
        if let Some((directory, _)) = &self.directory
            && self.stand_ins
        {
            directory.count_overflow(hash, more);
        }
    }

    fn admit(&mut self, new: &Newcomer, mut flags: u8) -> Option<u32> {
        // Asked twice: first for what costs least, last for what only those use up who come in.
        if !self.rates.has(new.tenant, self.time) {
            self.counters.refused_rate.add(1);
            return None;
        }
        let admission = self.room.ask(new.tenant);
        match admission {
            Admission::Yes => {}
            // Nobody goes for a flow that finds no place all the same.
            Admission::Instead(_) if !self.table.has_place(new.hash) => {
                self.counters.refused_crowded.add(1);
                return None;
            }
            Admission::Instead(_) => {}
            Admission::Full => {
                self.counters.refused_full.add(1);
                return None;
            }
        }
        if !self.rates.take(new.tenant, self.time) {
            self.counters.refused_rate.add(1);
            return None;
        }
        if let Admission::Instead(entry) = admission {
            self.make_room(entry);
        }
        if let Opening::Tcp { picked_up: true, .. } = new.opening {
            flags |= Life::PICKED_UP;
            self.counters.picked_up.add(1);
        }
        let life = Life::new(self.now, new.opening.state(), flags);
        let birth = Birth { created: self.now, condemned: 0, tenant: new.tenant };
        let entry = match self.table.insert(new.hash, &new.key, life, birth) {
            Ok(entry) => entry,
            Err(full) => {
                let counter = match full {
                    Full::Entries => &self.counters.refused_full,
                    Full::Buckets => &self.counters.refused_crowded,
                };
                counter.add(1);
                return None;
            }
        };
        self.room.enter(new.tenant);
        if let Some(list) = state::waiting(new.opening.state()) {
            self.room.wait(self.table.lines(), new.tenant, list, entry);
        }
        if let (Opening::Tcp { tracked, .. }, Some(line)) = (&new.opening, self.table.entry(entry)) {
            line.set_tcp(tracked.pack());
        }
        self.counters.opened.add(1);
        self.report(entry, What::Start);
        Some(entry)
    }

    /// A flow goes for another.
    fn make_room(&mut self, entry: u32) {
        let Some(line) = self.table.entry(entry) else { return };
        let (state, tenant) = (line.life().state(), line.tenant());
        let why = match state::waiting(state) {
            Some(Waiting::Over) => {
                self.counters.ended_early.add(1);
                state::end_of(state)
            }
            Some(Waiting::HalfOpen) => {
                self.turned_away.note(tenant, self.time + u64::from(self.timeouts.of(state, false)));
                End::Evicted
            }
            _ => End::Evicted,
        };
        self.end(entry, why);
    }

    /// May a TCP segment that nobody knows be of a connection of this tenant that found no room?
    #[cold]
    pub(crate) fn has_turned_away(&self, tenant: u16) -> bool {
        self.turned_away.may_be(tenant, self.time)
    }

    /// The state of a flow changes, and with it the list that it is on.
    pub(super) fn change_state(&mut self, entry: u32, to: u8) {
        let Some(line) = self.table.entry(entry) else { return };
        let (life, tenant) = (line.life(), line.birth().tenant);
        let (before, after) = (state::waiting(life.state()), state::waiting(to));
        let worth_more = before.is_some() && after.is_none_or(|after| Some(after) > before);
        if life.has(Life::CONDEMNED) && worth_more {
            return; // what is dropped is never worth more than what is not
        }
        line.set_life(life.in_state(to));
        if before == after {
            return;
        }
        if let Some(list) = before {
            self.room.answered(self.table.lines(), tenant, list, entry);
        }
        if let Some(list) = after {
            self.room.wait(self.table.lines(), tenant, list, entry);
            // Both ends may close with the segment that would have established it.
            let was_established = state::is_new(life.state()) && state::end_of(to) == End::Closed;
            if !was_established {
                return;
            }
        }
        if state::is_new(life.state()) {
            self.counters.established.add(1);
        }
        if let Some((directory, seat)) = &self.directory
            && !life.has(Life::UNCLAIMED)
        {
            let hash = self.table.hash(&Key::of_entry(line));
            // A flood may have taken the claim; then it is claimed anew, unless somebody else has done so by now.
            if !directory.confirm(hash, *seat) && !directory.claim(hash, *seat, false).is_mine() {
                self.set_unclaimed(entry, hash, true);
            }
        }
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, entry: u32, why: End) {
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

    fn release(&self, hash: u64) {
        if let Some((directory, seat)) = &self.directory {
            directory.release(hash, *seat);
        }
    }

    fn report(&mut self, entry: u32, what: What) {
        let Some(events) = &mut self.events else { return };
        if what == What::Start && !self.tells_starts {
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
            condemned: birth.condemned.checked_sub(1).map(ReasonId),
            counts: line.counts(),
        };
        if events.push(event).is_err() {
            self.counters.events_lost.add(1);
        }
    }

    /// Takes a new seat in the directory if the old one was taken away (this worker hung, and others took over): the flows that it still
    /// has may be others' by now, so it forgets them. Called once per poll.
    #[inline(always)]
    pub(crate) fn reseat(&mut self) {
        if let Some((directory, seat)) = &self.directory
            && !directory.seated(*seat)
        {
            self.start_over();
        }
    }

    #[cold]
    fn start_over(&mut self) {
        for entry in 0..self.table.reach() {
            self.end(entry, End::TakenOver);
        }
        if let Some((directory, seat)) = &mut self.directory
            && let Some(new) = directory.seat(self.worker)
        {
            *seat = new;
        }
    }

    /// Ends what has been idle for too long: a bounded piece of work, called once per poll. What is not done now is due at the next
    /// poll, and nothing is skipped.
    #[inline(always)]
    pub(crate) fn age(&mut self) {
        let passed = self.now.wrapping_sub(self.aged);
        if passed != 0 || self.owed >= SWEEP {
            self.sweep(passed);
        }
    }

    #[inline(never)]
    fn sweep(&mut self, passed: u32) {
        let reach = u64::from(self.table.reach());
        let lap = SWEEP.max(reach / MOST_PER_MS);
        // In entries times milliseconds; never more than one lap, however long nobody polled.
        let passed = u64::from(passed).min(lap);
        self.owed = (self.owed + passed * reach * SWEEP / lap).min(reach * SWEEP);
        self.aged = self.now;
        self.obey();
        let work = (self.owed / SWEEP).min(MOST_AGED);
        self.owed -= work * SWEEP;
        for _ in 0..work {
            let entry = if u64::from(self.hand) < reach { self.hand } else { 0 };
            self.hand = entry + 1;
            let Some(line) = self.table.entry(entry) else { continue };
            let life = line.life();
            let timeout = self.timeouts.of(life.state(), life.has(Life::CONDEMNED));
            if self.now.wrapping_sub(life.seen()) >= timeout && line.is_used() {
                self.end(entry, state::end_of(life.state()));
            } else if life.has(Life::UNCLAIMED) && line.is_used() {
                self.enter_late(entry);
            }
        }
        self.counters.swept.add(work);
    }

    /// Ends every flow, if somebody listens: the worker stops. Off the packet path: it waits for whoever reads the ring, `patience` in
    /// all.
    pub(crate) fn end_all(&mut self, patience: Duration) {
        if self.events.is_none() {
            return;
        }
        let mut left = patience;
        for entry in 0..self.table.reach() {
            while !left.is_zero() && self.events.as_ref().is_some_and(rtrb::Producer::is_full) {
                std::thread::sleep(A_LITTLE);
                left = left.saturating_sub(A_LITTLE);
            }
            self.end(entry, End::Stopped);
        }
    }

    /// The same for somebody who reads the ring on this thread: it is asked to after each flow.
    pub fn end_each(&mut self, mut read: impl FnMut()) {
        for entry in 0..self.table.reach() {
            self.end(entry, End::Stopped);
            read();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
