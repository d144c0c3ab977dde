//! Hop 4, inspect: the pipeline, stage by stage, over the open slots.
//!
//! The framework counts for the stages: what a stage forwarded or dropped is the difference of two masks. A panic is caught at
//! the batch: the stage is made anew, and its packets follow its `on_error`. A stage that cannot even be made anew is tried
//! again with every batch, whose packets follow `on_error` too.
//!
//! May drop: [`DropReason::StagePanic`], and whatever the stages declare.

use std::any::Any;
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
        let make = |built: &Built| Running { stage: Some(built.shared.make(worker)), built: built.clone() };
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

/// One running stage; `None` while it could not be made anew.
pub struct Running {
    stage: Option<Box<dyn Stage>>,
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
    pub(super) fn idle(&mut self, now: u64, counters: &WorkerCounters) {
        for (running, counters) in self.stages.iter_mut().zip(&counters.stages) {
            let Running { stage: Some(stage), built } = running else { continue };
            let mut cx = Cx { now, worker: self.worker, reasons: &built.reasons };
            if contained(|| stage.idle(&mut cx)).is_none() {
                running.renew(self.worker, counters);
            }
        }
    }
}

impl Drop for Inspect {
    /// A stage's last panic stays here as well: the lanes of its worker are on their way home.
    fn drop(&mut self) {
        for running in &mut self.stages {
            contained(|| running.stage = None);
        }
    }
}

impl Running {
    #[inline(always)]
    fn run(&mut self, batch: &mut Batch, now: u64, worker: WorkerId, counters: &StageCounters) {
        let before = batch.open();
        let mut cx = Cx { now, worker, reasons: &self.built.reasons };
        // The batch stays consistent whatever a stage does to it, so unwinding out of one leaves nothing half done.
        let outcome = self.stage.as_mut().and_then(|stage| contained(|| stage.run(batch, &mut cx)));
        if outcome.is_none() {
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
        self.renew(worker, counters);
        if self.built.on_error == OnError::Drop {
            batch.drop_all(batch.open(), DropReason::StagePanic);
        }
    }

    /// The old stage may panic once more as it goes, and the new one as it comes.
    #[cold]
    fn renew(&mut self, worker: WorkerId, counters: &StageCounters) {
        counters.panics.add(1);
        contained(|| self.stage = None);
        self.stage = contained(|| self.built.shared.make(worker));
    }
}

/// Runs what may panic; `None` if it did. The panic ends here even if its payload panics as it goes.
#[inline(always)]
fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::dpdk::{Mempool, PoolConfig};
    use crate::packet::ReasonTable;

    /// Panics wherever it can: at work, at rest, as it goes, in its payload, and now and then as it is made.
    struct Hostile;
    struct Payload;
    struct Maker(AtomicU32);

    impl Drop for Hostile {
        fn drop(&mut self) {
            std::panic::panic_any(Payload);
        }
    }
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload goes");
        }
    }
    impl Stage for Hostile {
        fn run(&mut self, _: &mut Batch, _: &mut Cx<'_>) {
            std::panic::panic_any(Payload);
        }
        fn idle(&mut self, _: &mut Cx<'_>) {
            std::panic::panic_any(Payload);
        }
    }
    impl Shared for Maker {
        fn make(&self, _: WorkerId) -> Box<dyn Stage> {
            match self.0.fetch_add(1, Ordering::Relaxed) % 3 {
                1 => panic!("a stage is made"),
                _ => Box::new(Hostile),
            }
        }
    }

    #[test]
    fn no_panic_of_a_stage_reaches_the_worker() {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let built = Built {
            name: "hostile".into(),
            shared: Arc::new(Maker(AtomicU32::new(0))),
            reasons: [].into(),
            on_error: OnError::Drop,
        };
        let mut inspect = Pipeline { stages: vec![built] }.make(WorkerId(0));
        let counters = WorkerCounters::new(WorkerId(0), &ReasonTable::framework(), 1);
        let config = PoolConfig { name: "inspect".into(), buffers: 1, data_room: 64, cache: 0, numa: None };
        let pool = Mempool::soft(&config);
        for round in 1..=6 {
            let mut batch = Batch::new();
            batch.frames.push(pool.alloc().unwrap()).unwrap();
            batch.begin();
            inspect.run(&mut batch, 0, &counters);
            assert!(batch.live().is_empty(), "the policy holds although there is no stage");
            let counted = counters.snapshot().stages.swap_remove(0);
            assert_eq!((counted.seen, counted.dropped, counted.panics), (round, round, round));
        }
        inspect.idle(0, &counters);
        assert_eq!(counters.stages[0].panics.get(), 7);
        drop(inspect);
        std::panic::set_hook(shown);
    }
}
