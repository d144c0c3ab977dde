//! Hop 4, inspect: the pipeline, stage by stage, over the open slots.
//!
//! The framework counts for the stages: what a stage forwarded or dropped is the difference of two masks. A panic is caught at
//! the batch: the stage is made anew, and its packets follow its `on_error`. A stage that cannot even be made anew is tried
//! again with every batch, whose packets follow `on_error` too.
//!
//! A stage is not shown packets of flows that it has settled; what it settles now is written to the flows when it is done
//! (`settle`). Where nothing is settled, both cost a compare for each stage. Packets of flows that all stages have settled do not come
//! here: track takes them out of the open ones.
//!
//! Stages that read streams find them in order (`streams`).
//!
//! May drop: [`DropReason::StagePanic`], what `streams` drops, and whatever the stages declare.

mod settle;
mod streams;
mod next;
mod beside;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Place;
use super::counters::{StageCounters, TenantCounters, WorkerCounters};
use super::samples::{CYCLES, Countdown};
use crate::config::{OnError, Plan, StagePlan};
use crate::dpdk::{Error, cycles};
use crate::event::Emitter;
use crate::flow::refit::OnReload;
use crate::packet::{Batch, DropReason, Mask, ReasonId};
use crate::stage::{Backend, Cx, MOST_STAGES, Make, Shared, Stage, WorkerId};
use crate::stream::Reassembly;
use beside::Beside;
pub use beside::{Candidate, Comparison, End, Example, Verdict};
pub use next::Differences;
pub(super) use next::Next;
pub(super) use settle::Settle;
pub use streams::HOLD_BYTES;
use streams::Setup;
pub(super) use streams::Streams;

/// The built pipeline of a plan: what all workers share.
#[derive(Clone)]
pub struct Pipeline {
    stages: Vec<Built>,
    /// Entries of a worker's flow table.
    flows: usize,
    streams: Option<Setup>,
    /// What is judged beside it.
    candidate: Option<Arc<Candidate>>,
}

#[derive(Clone)]
struct Built {
    name: String,
    /// Of its kind and settings: who has the same name and the same mark is the same stage.
    mark: [u8; 32],
    /// In events. Another one for each stage that was ever built, as far as there are numbers.
    number: u8,
    /// Reads streams.
    reads: bool,
    /// Its answer is given where connections from before are allowed.
    settles: bool,
    /// What flows from before mean to it when it has changed.
    on_reload: OnReload,
    /// Flows other than TCP are asked again, whatever becomes of connections.
    asks_datagrams: bool,
    shared: Arc<dyn Shared>,
    reasons: Arc<[ReasonId]>,
    on_error: OnError,
    on_unread: OnError,
}

impl Pipeline {
    /// Builds every stage of the plan. Takes as long as its rule sets take; not for the packet path.
    pub fn build(plan: &Plan, backend: Backend) -> Result<Self, Error> {
        let stages = plan.stages.iter().enumerate();
        let stages =
            stages.map(|(n, stage)| Built::new(stage, n as u8, backend)).collect::<Result<_, Error>>()?;
        Ok(Pipeline::of(plan, stages))
    }

    fn of(plan: &Plan, stages: Vec<Built>) -> Self {
        let flows = if plan.flow.tracking { plan.flow.per_worker as usize } else { 0 };
        let bits = |picked: &dyn Fn(&StagePlan) -> bool| {
            let stages = plan.stages.iter().enumerate().take(MOST_STAGES);
            stages.fold(0, |bits, (n, stage)| bits | u16::from(picked(stage)) << n)
        };
        let readers = bits(&|stage| stage.parsed.wants_streams());
        let streams = (readers != 0).then(|| Setup {
            plan: plan.stream.clone(),
            tenants: plan.flow.tenants.len(),
            readers,
            closed: readers & bits(&|stage| stage.on_unread == OnError::Drop),
        });
        Pipeline { stages, flows, streams, candidate: None }
    }

    /// Running stages for one worker.
    pub fn make(&self, worker: WorkerId) -> Inspect {
        let make = Make { worker, flows: self.flows };
        let run = |built: &Built| Running {
            stage: Some(built.shared.make(&make)),
            built: built.clone(),
            counters: Arc::default(),
        };
        let streams = self.streams.as_ref().map(|setup| Box::new(Streams::new(setup, &make)));
        let stages = self.stages.iter().map(run).collect();
        Inspect {
            make,
            stages,
            streams,
            events: Emitter::default(),
            countdown: Countdown::default(),
            timed: false,
            beside: None,
        }
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
    make: Make,
    stages: Vec<Running>,
    streams: Option<Box<Streams>>,
    events: Emitter,
    countdown: Countdown,
    /// The poll at hand is timed, so its stages are.
    timed: bool,
    /// A candidate, while one is loaded.
    beside: Option<Box<Beside>>,
}

/// One running stage; `None` while it could not be made anew.
pub struct Running {
    stage: Option<Box<dyn Stage>>,
    built: Built,
    counters: Arc<StageCounters>,
}

impl Inspect {
    /// Its stages count there.
    pub(super) fn count_in(&mut self, counters: &WorkerCounters) {
        let names: Vec<&str> = self.stages.iter().map(|running| running.built.name.as_str()).collect();
        let own = counters.name_stages(&names);
        self.stages.iter_mut().zip(own).for_each(|(running, own)| running.counters = own);
    }

    /// Shows the batch to every stage that still has something to look at. `flows` hears what the stages settle.
    #[inline(always)]
    pub(super) fn run<F: Settle>(
        &mut self,
        batch: &mut Batch,
        flows: Option<&mut F>,
        now: u64,
        counters: &WorkerCounters,
    ) {
        match self.beside {
            None => self.run_alone(batch, flows, now, counters),
            Some(_) => self.run_beside(batch, flows, now, counters),
        }
    }

    /// The same with a candidate, which is shown copies.
    #[inline(never)]
    fn run_beside<F: Settle>(
        &mut self,
        batch: &mut Batch,
        mut flows: Option<&mut F>,
        now: u64,
        counters: &WorkerCounters,
    ) {
        let Some(mut beside) = self.beside.take() else { return };
        beside.look(batch, flows.as_deref());
        self.run_alone(batch, flows.as_deref_mut(), now, counters);
        counters.place.at(Place::Beside);
        let held = self.streams.as_ref().map_or(Mask::NONE, |streams| streams.wanted());
        beside.judge(batch, flows, held, now);
        self.beside = Some(beside);
    }

    #[inline(always)]
    fn run_alone<F: Settle>(
        &mut self,
        batch: &mut Batch,
        mut flows: Option<&mut F>,
        now: u64,
        counters: &WorkerCounters,
    ) {
        if self.streams.is_some() {
            return self.run_with_streams(batch, flows, now, counters);
        }
        let settled = if flows.is_some() { settle::settled(batch) } else { Mask::NONE };
        let stages = self.stages.len();
        for (n, running) in self.stages.iter_mut().enumerate() {
            if batch.open().is_empty() {
                return;
            }
            let hidden = if settled.is_empty() { Mask::NONE } else { settle::hide(batch, settled, n) };
            let shown = batch.open();
            counters.place.at(Place::Inspect(n));
            if !shown.is_empty() && running.run(batch, None, now, &self.make, (&mut self.events, self.timed))
            {
                let (settling, turning) = batch.take_settling();
                if let Some(flows) = flows.as_deref_mut()
                    && !(settling | turning).is_empty()
                {
                    settle::write(batch, flows, n..stages, shown & settling, shown & turning);
                }
            }
            batch.show(hidden);
        }
    }

    /// The same where stages read streams. Apart, so that pipelines without such stages run what they ran before there were streams.
    #[inline(never)]
    fn run_with_streams<F: Settle>(
        &mut self,
        batch: &mut Batch,
        mut flows: Option<&mut F>,
        now: u64,
        counters: &WorkerCounters,
    ) {
        let Inspect { make, stages, streams: Some(streams), events, timed, .. } = self else { return };
        let settled = if flows.is_some() { settle::settled(batch) } else { Mask::NONE };
        let all = stages.len();
        streams.begin();
        let mut taken = false;
        for (n, running) in stages.iter_mut().enumerate() {
            if batch.open().is_empty() {
                break;
            }
            if streams.begin_before(n) {
                streams.take(batch, flows.as_deref(), now, counters, events);
                taken = true;
            }
            let hidden = if settled.is_empty() { Mask::NONE } else { settle::hide(batch, settled, n) };
            let shown = batch.open();
            let read = streams.for_stage(n);
            let reads = read.is_some();
            counters.place.at(Place::Inspect(n));
            if !shown.is_empty() && running.run(batch, read, now, make, (events, *timed)) {
                let (settling, turning) = batch.take_settling();
                if let Some(flows) = flows.as_deref_mut()
                    && !(settling | turning).is_empty()
                {
                    settle::write(batch, flows, n..all, shown & settling, shown & turning);
                }
                match reads {
                    true => streams.decided(batch, n, shown, settling),
                    false => drop(batch.take_holding()),
                }
            }
            batch.show(hidden);
        }
        if taken {
            streams.finish(batch, flows, counters);
        }
    }

    /// A busy poll begins. Is it one that is timed? Then [`Self::end_timed`] says when it is over.
    #[inline(always)]
    pub(super) fn is_timed(&mut self) -> bool {
        self.timed = self.countdown.is_due();
        self.timed
    }

    /// The next busy poll is one.
    pub(super) fn time_next(&mut self) {
        self.countdown = Countdown::next();
    }

    /// What comes until the next poll of a queue (other workers' packets, fragments) is not timed.
    pub(super) fn end_timed(&mut self) {
        self.timed = false;
    }

    /// Where events go.
    pub fn tell(&mut self, events: Emitter) {
        self.events = events;
    }

    /// Tells of what was dropped, if somebody wants to know.
    #[inline(always)]
    pub(super) fn tell_drops(&mut self, batch: &Batch, now: u64) {
        if self.events.tells_drops() {
            let dropped = batch.dropped();
            if !dropped.is_empty() {
                let Inspect { make, stages, events, .. } = self;
                let whose = |reason| stages.iter().find(|running| running.built.reasons.contains(&reason));
                let stage_of = |reason| whose(reason).map_or(u8::MAX, |running| running.built.number);
                events.drops(now, make.worker, batch, dropped, stage_of);
            }
        }
    }

    /// Streams and what waits for stages, if any stage reads streams.
    #[inline(always)]
    pub(super) fn streams(&mut self) -> Option<&mut Streams> {
        self.streams.as_deref_mut()
    }

    /// Lets every stage do housekeeping.
    pub(super) fn idle(&mut self, now: u64) {
        self.each(now, |stage, cx| stage.idle(cx));
        if let Some(beside) = &mut self.beside {
            beside.idle(now);
        }
    }

    /// Tells every stage that nothing more will come.
    pub(super) fn stop(&mut self, now: u64) {
        self.each(now, |stage, cx| stage.stop(cx));
        if let Some(beside) = &mut self.beside {
            beside.stop(now);
        }
    }

    fn each(&mut self, now: u64, what: impl Fn(&mut dyn Stage, &mut Cx<'_>)) {
        for running in &mut self.stages {
            running.call(now, &self.make, &mut self.events, &what);
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
    /// False if it panicked: nothing is settled then.
    #[inline(always)]
    fn run(
        &mut self,
        batch: &mut Batch,
        streams: Option<&Reassembly>,
        now: u64,
        make: &Make,
        (events, timed): (&mut Emitter, bool),
    ) -> bool {
        let before = batch.open();
        let begun = if timed { cycles() } else { 0 };
        let cx = Cx::new(now, make.worker, &self.built.reasons);
        let mut cx = cx.with_streams(streams, self.built.on_unread).with_events(self.built.number, events);
        // The batch stays consistent whatever a stage does to it, so unwinding out of one leaves nothing half done.
        let outcome = self.stage.as_mut().and_then(|stage| contained(|| stage.run(batch, &mut cx)));
        if timed {
            observe(&self.counters, cycles().wrapping_sub(begun), before.count() as u64);
        }
        if outcome.is_none() {
            self.recover(batch, make);
        }
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
        outcome.is_some()
    }

    /// Calls the stage outside of a batch.
    fn call(
        &mut self,
        now: u64,
        make: &Make,
        events: &mut Emitter,
        what: impl Fn(&mut dyn Stage, &mut Cx<'_>),
    ) {
        let Running { stage: Some(stage), built, .. } = self else { return };
        let mut cx = Cx::new(now, make.worker, &built.reasons).with_events(built.number, events);
        if contained(|| what(&mut **stage, &mut cx)).is_none() {
            self.renew(make);
        }
    }

    #[cold]
    fn recover(&mut self, batch: &mut Batch, make: &Make) {
        self.renew(make);
        batch.take_settling();
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
fn count_by_tenant(batch: &Batch, before: Mask, left: Mask, tenants: &[TenantCounters]) {
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
mod tests;
