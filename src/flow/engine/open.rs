//! How a flow comes in: claimed, admitted, put into the table; and its way from one list of those that make room to another.

use super::Flows;
use crate::flow::directory::Claim;
use crate::flow::event::{End, What};
use crate::flow::key::Key;
use crate::flow::line::{Birth, Life};
use crate::flow::room::{Admission, Waiting};
use crate::flow::table::Full;
use crate::flow::{state, tcp};
use crate::stage::WorkerId;

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

impl Flows {
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

    fn admit(&mut self, new: &Newcomer, mut flags: u8) -> Option<u32> {
        flags |= self.generation;
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
    pub(in crate::flow) fn change_state(&mut self, entry: u32, to: u8) {
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
}
