//! A stage with `mode = "shadow"`: it looks, counts and tells like any other, and nothing comes of it.
//!
//! The stage runs on the batch itself, since a copy would cost more than the stage. What it decided is then taken back: its masks are put as they
//! were, changes of packets were refused while it ran ([`Batch::seal`]), a flow that it settles is settled for this stage alone, as passed.
//! So of a flow that it would have dropped it is shown the packet that decides, and no more: counts are of decisions.
//! Streams do not drop for its sake either (`active` in `streams`).

use super::running::Running;
use crate::event::{Emitter, WouldDrop};
use crate::packet::{Batch, Mask};
use crate::stage::Make;
use crate::stream::Reassembly;

/// Decisions of a stage that are told in a second, on one worker.
const TOLD_PER_S: u32 = 10;

impl Running {
    #[inline(never)]
    pub(super) fn run_in_shadow(
        &mut self,
        batch: &mut Batch,
        streams: Option<&Reassembly>,
        now: u64,
        make: &Make,
        (events, timed): (&mut Emitter, bool),
    ) -> bool {
        let shown = batch.open();
        let mut rules = None;
        batch.swap_rules(&mut rules);
        batch.seal(true);
        let completed = self.look(batch, streams, now, make, (&mut *events, timed));
        batch.seal(false);
        batch.swap_rules(&mut rules);
        let left = shown.without(batch.open());
        let dropped = left.without(batch.live());
        self.counters.seen.add(shown.count() as u64);
        self.counters.would_drop.add(dropped.count() as u64);
        self.counters.would_send_home.add((left & batch.live()).count() as u64);
        batch.take_back(shown);
        if !self.counters.tenants.is_empty() {
            super::running::count_by_tenant(batch, shown, Mask::NONE, &self.counters.tenants);
        }
        for slot in dropped {
            let Some(skipped) = self.told.take(now, TOLD_PER_S) else {
                events.limited(crate::event::Type::Shadow);
                continue;
            };
            let reason = batch.reason(slot);
            let about = || {
                let about = crate::event::About::packet(batch.meta(slot), batch.inner(slot), make.worker);
                about.by(self.built.number)
            };
            events.emit(now, about, WouldDrop { reason, skipped }.into());
        }
        completed
    }
}
