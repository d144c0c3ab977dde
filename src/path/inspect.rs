//! Hop 4, inspect: the pipeline, stage by stage, over the open slots.
//!
//! The framework counts for the stages: what a stage forwarded or dropped is the difference of two masks. A panic is caught at
//! the batch: the stage is made anew, and its packets follow its `on_error`.
//!
//! May drop: [`DropReason::StagePanic`], and whatever the stages declare.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::counters::{StageCounters, WorkerCounters};
use crate::config::{OnError, Plan};
use crate::dpdk::Error;
use crate::packet::{Batch, DropReason, ReasonId};
use crate::stage::{Backend, Cx, Shared, Stage, WorkerId};

/// The built pipeline of a plan: what all workers share.
#[derive(Clone)]
pub struct Pipeline {
    stages: Vec<Built>,
}

#[derive(Clone)]
struct Built {
    name: String,
    shared: Arc<dyn Shared>,
    reasons: Arc<[ReasonId]>,
    on_error: OnError,
}

impl Pipeline {
    /// Builds every stage of the plan. Takes as long as its rule sets take; not for the packet path.
    pub fn build(plan: &Plan, backend: Backend) -> Result<Self, Error> {
        let stages = plan.stages.iter().map(|stage| {
            Ok(Built {
                name: stage.name.clone(),
                shared: stage.parsed.build(backend)?,
                reasons: stage.reasons.clone().into(),
                on_error: stage.on_error,
            })
        });
        Ok(Pipeline { stages: stages.collect::<Result<_, Error>>()? })
    }

    /// Running stages for one worker.
    pub fn make(&self, worker: WorkerId) -> Inspect {
        let make = |built: &Built| Running { stage: built.shared.make(worker), built: built.clone() };
        Inspect { worker, stages: self.stages.iter().map(make).collect() }
    }

    /// Name and shared part of each stage, in order.
    pub fn stages(&self) -> impl Iterator<Item = (&str, &dyn Shared)> {
        self.stages.iter().map(|s| (s.name.as_str(), &*s.shared))
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.stages.iter().map(|s| &s.name)).finish()
    }
}

/// The running stages of one worker.
#[derive(Debug)]
pub struct Inspect {
    worker: WorkerId,
    stages: Vec<Running>,
}

/// One running stage.
pub struct Running {
    stage: Box<dyn Stage>,
    built: Built,
}

impl Inspect {
    /// Shows the batch to every stage that still has something to look at.
    #[inline(always)]
    pub(super) fn run(&mut self, batch: &mut Batch, now: u64, counters: &WorkerCounters) {
        for (running, counters) in self.stages.iter_mut().zip(&counters.stages) {
            if batch.open().is_empty() {
                return;
            }
            running.run(batch, now, self.worker, counters);
        }
    }

    /// Lets every stage do housekeeping.
    pub(super) fn idle(&mut self, now: u64) {
        for running in &mut self.stages {
            let mut cx = Cx { now, worker: self.worker, reasons: &running.built.reasons };
            if catch_unwind(AssertUnwindSafe(|| running.stage.idle(&mut cx))).is_err() {
                running.stage = running.built.shared.make(self.worker);
            }
        }
    }
}

impl Running {
    #[inline(always)]
    fn run(&mut self, batch: &mut Batch, now: u64, worker: WorkerId, counters: &StageCounters) {
        let before = batch.open();
        let mut cx = Cx { now, worker, reasons: &self.built.reasons };
        // The batch stays consistent whatever a stage does to it, so unwinding out of one leaves nothing half done.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.stage.run(batch, &mut cx)));
        if outcome.is_err() {
            self.recover(batch, worker, counters);
        }
        counters.seen.add(before.count() as u64);
        let left = before.without(batch.open());
        if !left.is_empty() {
            let dropped = left.without(batch.live());
            counters.dropped.add(dropped.count() as u64);
            counters.forwarded.add((left & batch.live()).count() as u64);
        }
    }

    #[cold]
    fn recover(&mut self, batch: &mut Batch, worker: WorkerId, counters: &StageCounters) {
        counters.panics.add(1);
        self.stage = self.built.shared.make(worker);
        if self.built.on_error == OnError::Drop {
            batch.drop_all(batch.open(), DropReason::StagePanic);
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.built.name)
    }
}
