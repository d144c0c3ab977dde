//! Whose a flow is, as far as one worker has to do with it: what it asks of the directory, and what it tells it.

use super::Flows;
use crate::flow::directory::Claim;
use crate::flow::event::End;
use crate::flow::key::Key;
use crate::flow::line::Life;
use crate::flow::state;
use crate::packet::FlowSlot;
use crate::stage::WorkerId;

impl Flows {
    /// Are there other workers?
    #[inline(always)]
    pub(in crate::flow) fn shares(&self) -> bool {
        self.directory.is_some()
    }

    /// Asks the cache for what [`Self::owner`] will look at.
    pub(in crate::flow) fn prefetch_owner(&self, hash: u64) {
        if let Some((directory, _)) = &self.directory {
            directory.prefetch(hash);
        }
    }

    /// Which worker owns a flow that is not here, if it is not this one.
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
    pub(super) fn stand_in(&self, hash: u64) -> Option<WorkerId> {
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
    pub(super) fn enter_late(&mut self, number: u32) {
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
    pub(super) fn set_unclaimed(&self, number: u32, hash: u64, unclaimed: bool) {
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

    pub(super) fn count_overflow(&self, hash: u64, more: bool) {
        if let Some((directory, _)) = &self.directory
            && self.stand_ins
        {
            directory.count_overflow(hash, more);
        }
    }

    pub(super) fn release(&self, hash: u64) {
        if let Some((directory, seat)) = &self.directory {
            directory.release(hash, *seat);
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
}
