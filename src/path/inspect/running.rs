//! One stage at work on one worker: it is shown a batch, what it did is counted, and a panic of its stays here.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Built;
use crate::config::{Mode, OnError};
use crate::dpdk::cycles;
use crate::event::{Emitter, Limit};
use crate::packet::{Batch, DropReason, Mask};
use crate::path::counters::{StageCounters, TenantCounters};
use crate::path::samples::CYCLES;
use crate::stage::{Cx, Make, Stage};
use crate::stream::Reassembly;

/// One running stage; `None` while it could not be made anew.
pub struct Running {
    pub(super) stage: Option<Box<dyn Stage>>,
    pub(super) built: Built,
    pub(super) counters: Arc<StageCounters>,
    /// Of what it would do in shadow mode, so many are told.
    pub(super) told: Limit,
}

impl Running {
    pub(super) fn new(stage: Option<Box<dyn Stage>>, built: &Built, counters: Arc<StageCounters>) -> Self {
        Running { stage, built: built.clone(), counters, told: Limit::default() }
    }

    /// False if it panicked: nothing is settled then.
    #[inline(always)]
    pub(super) fn run(
        &mut self,
        batch: &mut Batch,
        streams: Option<&Reassembly>,
        now: u64,
        make: &Make,
        (events, timed): (&mut Emitter, bool),
    ) -> bool {
        if self.built.mode == Mode::Shadow {
            return self.run_in_shadow(batch, streams, now, make, (events, timed));
        }
        let before = batch.open();
        let completed = self.look(batch, streams, now, make, (events, timed));
        let counters = &self.counters;
        counters.seen.add(before.count() as u64);
        let left = before.without(batch.open());
        if !left.is_empty() {
            let dropped = left.without(batch.live());
            counters.dropped.add(dropped.count() as u64);
            counters.forwarded.add((left & batch.live()).count() as u64);
        }
        if !counters.tenants.is_empty() {
            count_by_tenant(batch, before, left, &counters.tenants);
        }
        completed
    }

    /// The stage itself.
    #[inline(always)]
    pub(super) fn look(
        &mut self,
        batch: &mut Batch,
        streams: Option<&Reassembly>,
        now: u64,
        make: &Make,
        (events, timed): (&mut Emitter, bool),
    ) -> bool {
        let shown = if timed { batch.open().count() as u64 } else { 0 };
        let begun = if timed { cycles() } else { 0 };
        let cx = Cx::new(now, make.worker, &self.built.reasons);
        let cx = cx.with_streams(streams, self.built.on_unread).with_events(self.built.number, events);
        let mut cx = cx.in_shadow(self.built.mode == Mode::Shadow);
        // The batch stays consistent whatever a stage does to it, so unwinding out of one leaves nothing half done.
        let outcome = self.stage.as_mut().and_then(|stage| contained(|| stage.run(batch, &mut cx)));
        if timed {
            observe(&self.counters, cycles().wrapping_sub(begun), shown);
        }
        if outcome.is_none() {
            self.recover(batch, make);
        }
        outcome.is_some()
    }

    /// Calls the stage outside of a batch.
    pub(super) fn call(
        &mut self,
        now: u64,
        make: &Make,
        events: &mut Emitter,
        what: impl Fn(&mut dyn Stage, &mut Cx<'_>),
    ) {
        let Running { stage: Some(stage), built, .. } = self else { return };
        let cx = Cx::new(now, make.worker, &built.reasons).with_events(built.number, events);
        let mut cx = cx.in_shadow(built.mode == Mode::Shadow);
        if contained(|| what(&mut **stage, &mut cx)).is_none() {
            self.renew(make);
        }
    }

    #[cold]
    fn recover(&mut self, batch: &mut Batch, make: &Make) {
        self.renew(make);
        batch.take_settling();
        batch.take_naming();
        batch.take_holding();
        if self.built.on_error == OnError::Drop {
            batch.drop_all(batch.open(), DropReason::StagePanic);
        }
    }

    /// The old stage may panic once more as it goes, and the new one as it comes.
    #[cold]
    fn renew(&mut self, make: &Make) {
        self.counters.panics.add(1);
        contained(|| self.stage = None);
        self.stage = contained(|| self.built.shared.make(make));
    }
}

/// How long a stage took, shared out over the packets that it was shown: one observation for each batch.
#[cold]
fn observe(counters: &StageCounters, cycles: u64, packets: u64) {
    counters.cycles.observe(&CYCLES, cycles / packets.max(1), 1);
}

/// What became of the packets that a stage was shown (`before`; `left` are not open any more), by tenant. A loop over packets, where
/// there are tenants to tell apart; packets of settled flows do not come here.
#[inline(never)]
pub(super) fn count_by_tenant(batch: &Batch, before: Mask, left: Mask, tenants: &[TenantCounters]) {
    let others = tenants.len().saturating_sub(1);
    let of = |slot| tenants.get(usize::from(batch.meta(slot).tenant).min(others));
    for tenant in before.into_iter().filter_map(of) {
        tenant.seen.add(1);
    }
    for tenant in (left & batch.live()).into_iter().filter_map(of) {
        tenant.forwarded.add(1);
    }
    for tenant in left.without(batch.live()).into_iter().filter_map(of) {
        tenant.dropped.add(1);
    }
}

/// Runs what may panic; `None` if it did. The panic ends here even if its payload panics as it goes.
#[inline(always)]
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(bury).ok()
}

#[cold]
fn bury(payload: Box<dyn Any + Send>) {
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(worse);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.built.name)
    }
}
