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

mod running;
mod shadow;
mod settle;
mod streams;
mod next;
mod beside;

use std::fmt;
use std::sync::Arc;

use super::Place;
use super::counters::WorkerCounters;
use super::samples::Countdown;
use crate::config::{Mode, OnError, Plan, StagePlan};
use crate::dpdk::Error;
use crate::event::Emitter;
use crate::flow::refit::OnReload;
use crate::packet::{Batch, Mask, ReasonId};
use crate::stage::{Backend, Cx, MOST_STAGES, Make, Shared, Stage, WorkerId};
use beside::Beside;
pub use beside::{Candidate, Comparison, End, Example, Verdict};
pub use next::Differences;
pub(super) use next::Next;
pub use running::Running;
use running::contained;
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
    /// Stages that are not for a tenant, by its number; empty where all are for everybody.
    foreign: Arc<[u16]>,
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
    /// Flows of which it is known what they speak are asked again, whatever becomes of others.
    asks_by_name: bool,
    shared: Arc<dyn Shared>,
    reasons: Arc<[ReasonId]>,
    on_error: OnError,
    on_unread: OnError,
    mode: Mode,
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
        let mut terms = plan.stream.clone();
        if plan.stages.iter().any(|stage| stage.parsed.reads_whole_streams()) {
            terms.depth = u32::MAX;
        }
        let streams = (readers != 0).then(|| Setup {
            plan: terms,
            tenants: plan.flow.tenants.len(),
            readers,
            active: readers & bits(&|stage| stage.mode == Mode::Enforce),
            closed: readers & bits(&|stage| stage.mode == Mode::Enforce && stage.on_unread == OnError::Drop),
        });
        Pipeline { stages, flows, streams, foreign: plan.foreign().into(), candidate: None }
    }

    /// Running stages for one worker.
    pub fn make(&self, worker: WorkerId) -> Inspect {
        let make = Make { worker, flows: self.flows };
        let run = |built: &Built| Running::new(Some(built.shared.make(&make)), built, Arc::default());
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

    /// Whether what the n-th stage decides has an effect.
    pub fn mode(&self, n: usize) -> Option<Mode> {
        Some(self.stages.get(n)?.mode)
    }

    /// Is the n-th stage for the tenant of this number?
    pub fn is_for(&self, n: usize, tenant: usize) -> bool {
        self.foreign.get(tenant).is_none_or(|stages| stages >> n.min(15) & 1 == 0)
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
                let naming = batch.take_naming();
                if let Some(flows) = flows.as_deref_mut()
                    && !(settling | turning | naming).is_empty()
                {
                    settle::write(batch, flows, n..stages, shown & settling, shown & turning);
                    settle::name(batch, flows, shown & naming);
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
                let naming = batch.take_naming();
                if let Some(flows) = flows.as_deref_mut()
                    && !(settling | turning | naming).is_empty()
                {
                    settle::write(batch, flows, n..all, shown & settling, shown & turning);
                    settle::name(batch, flows, shown & naming);
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

#[cfg(test)]
mod tests;
