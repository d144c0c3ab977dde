//! What has been idle for too long ends, a bounded piece of work at a time; and at last everything.

use std::time::Duration;

use super::Flows;
use crate::event::Type;
use crate::flow::event::End;
use crate::flow::line::Life;
use crate::flow::state;

/// Every entry is looked at for its age once in this many milliseconds, unless there are very many.
const SWEEP: u64 = 1000;
/// Entries looked at in one poll, at most.
const MOST_AGED: u64 = 256;
/// And in a millisecond: a sweep of more than a million entries takes longer than a second (16 s for 2^24), rather than more than a
/// hundredth of a core.
const MOST_PER_MS: u64 = 1024;
/// How long the last events wait for room at a time.
const A_LITTLE: Duration = Duration::from_millis(1);

impl Flows {
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
        if self.events.is_none() || !self.asked.types().has(Type::Flow) {
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
