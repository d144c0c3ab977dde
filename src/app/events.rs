//! The event writer of a running application: made with its workers, fed with counters, finished after them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::Snapshot;
use crate::config::{Machine, Plan};
use crate::dpdk::Error;
use crate::event::{
    Emitter, Eve, Following, Lines, Parts, Renamed, Rings, SinkSnapshot, StageStats, Stats, Type, Types,
    Writer, emitters,
};
use crate::flow::{Flows, Names};
use crate::path::{Clock, Pipeline, WorkerCounters};

/// What is needed before workers run, and given to the writer then.
#[derive(Debug)]
pub(super) struct Setup {
    /// Reading ends of the rings that were made.
    rings: Rings,
    counters: Vec<Arc<WorkerCounters>>,
    following: Arc<Following>,
}

impl Setup {
    /// For the workers of a plan.
    pub fn of(plan: &Plan) -> Self {
        let of_flows = Types::NONE.with(Type::Flow).with(Type::FlowStart);
        let open = if plan.flow.tracking { plan.events.follow } else { plan.events.follow.without(of_flows) };
        let following = Following::new(plan.events.wanted(), open);
        Setup { rings: Rings::default(), counters: Vec::new(), following }
    }

    /// Rings of one worker.
    pub fn worker(&mut self, plan: &Plan, counters: &Arc<WorkerCounters>) -> Emitter {
        self.counters.push(counters.clone());
        let (wanted, counters) = (plan.events.rings(), counters.events.clone());
        let emitter = emitters(&plan.events, wanted, plan.reasons.len(), counters, &mut self.rings);
        emitter.asked_by(self.following.asked())
    }

    /// And of its flows, if anybody can want them.
    pub fn flows(&mut self, plan: &Plan, flows: &mut Flows) {
        let wanted = plan.events.rings();
        if wanted.has(Type::Flow) || wanted.has(Type::FlowStart) {
            self.rings.flows.push(flows.listen(plan.flow.events_ring as usize));
            flows.asked_by(self.following.asked());
        }
    }

    /// Starts to write, if there is where to.
    pub fn start(
        self,
        plan: &Plan,
        pipeline: &Pipeline,
        clock: &Clock,
        cpus: Vec<u32>,
        reopen: Arc<AtomicBool>,
    ) -> Result<Option<Telling>, Error> {
        if plan.events.rings().is_empty() {
            return Ok(None);
        }
        let eve = Eve::of(plan).with_signatures(pipeline);
        let counters = self.counters;
        let lost = move || counters.iter().map(|counters| counters.flows.events_lost.get()).sum();
        let parts = Parts {
            rings: self.rings,
            lines: Lines::new(eve, plan.events.flow_log.clone()),
            clock: clock.clone(),
            cpus,
            reopen,
            lost: Box::new(lost),
            following: self.following.clone(),
        };
        let writer = Writer::start(&plan.events, parts)
            .map_err(|error| Error::refused(error.to_string(), "check the paths in [[events.sink]]"))?;
        let (every, next) = (plan.events.stats_every, Mutex::new(Instant::now()));
        Ok(Some(Telling { writer, following: self.following, every, next }))
    }
}

/// CPUs that this process may use and no worker of the plan has.
pub(super) fn spare_cpus(plan: &Plan) -> Vec<u32> {
    let taken = |cpu: &u32| plan.workers.iter().any(|worker| worker.lcore.cpu == *cpu);
    Machine::here().cpus.into_iter().filter(|cpu| !taken(cpu)).collect()
}

/// The writer, and when counters are due.
#[derive(Debug)]
pub(super) struct Telling {
    writer: Writer,
    following: Arc<Following>,
    every: Duration,
    next: Mutex<Instant>,
}

impl Telling {
    /// Names and times are those of another plan from now on.
    pub fn change(&mut self, plan: &Plan, pipeline: &Pipeline) {
        let stages = pipeline.numbers().zip(pipeline.stages());
        let stages = stages.map(|(number, (name, shared))| (number, name.to_owned(), shared.signatures()));
        self.writer.rename(Renamed { names: Names::of(plan), stages: stages.collect() });
        self.every = plan.events.stats_every;
    }

    /// Who follows.
    pub fn following(&self) -> &Arc<Following> {
        &self.following
    }

    /// Counters, if they are due and somebody wants them.
    pub fn tick(&self, plan: &Plan, snapshot: impl FnOnce() -> Snapshot) {
        let now = Instant::now();
        let mut next = self.next.lock();
        if *next > now || !self.counters_wanted() {
            return;
        }
        *next = now + self.every;
        self.tell(plan, &snapshot());
    }

    fn counters_wanted(&self) -> bool {
        self.following.asked().types().has(Type::Stats)
    }

    fn tell(&self, plan: &Plan, snapshot: &Snapshot) {
        self.writer.tell(Type::Stats, stats(plan, snapshot).record(SystemTime::now()));
    }

    /// A record of the management side's.
    pub fn record(&self, kind: Type, record: serde_json::Value) {
        self.writer.tell(kind, record);
    }

    /// What sinks did.
    pub fn snapshot(&self) -> Vec<SinkSnapshot> {
        self.writer.snapshot()
    }

    /// What went wrong.
    pub fn complaints(&self) -> Vec<String> {
        self.writer.complaints()
    }

    /// The last counters, and everything that is left. The workers have stopped.
    pub fn finish(self, plan: &Plan, snapshot: &Snapshot) -> (Vec<SinkSnapshot>, Vec<String>) {
        self.following.close();
        if self.counters_wanted() {
            self.tell(plan, snapshot);
        }
        self.writer.finish()
    }
}

/// Counters of a snapshot, as a record has them.
pub fn stats(plan: &Plan, snapshot: &Snapshot) -> Stats {
    let sum = |of: fn(&crate::path::WorkerSnapshot) -> u64| snapshot.workers.iter().map(of).sum::<u64>();
    let ports =
        |of: fn(&crate::dpdk::PortStats) -> u64| snapshot.ports.iter().map(|port| of(&port.stats)).sum();
    let flows = plan.flow.tracking.then(|| {
        let refused =
            |worker: &crate::path::WorkerSnapshot| worker.flows.refused_full + worker.flows.refused_crowded;
        (sum(|worker| worker.flows.opened), sum(|worker| worker.flows.live()), sum(refused))
    });
    let own = |n: usize| snapshot.stages.get(n).cloned().unwrap_or_default();
    let totals = snapshot.stage_totals();
    let stages = plan.stages.iter().zip(&totals).enumerate().map(|(n, (stage, total))| StageStats {
        name: stage.name.clone(),
        seen: total.seen,
        sent_home: total.forwarded,
        dropped: total.dropped,
        counts: own(n),
    });
    let lost = Type::ALL.iter().map(|kind| {
        let rings = snapshot.workers.iter().filter_map(|worker| worker.events.lost.get(*kind as usize));
        let flows = if *kind == Type::Flow { sum(|worker| worker.flows.events_lost) } else { 0 };
        (*kind, rings.sum::<u64>() + flows)
    });
    Stats {
        uptime: snapshot.elapsed,
        captured: (!snapshot.ports.is_empty()).then(|| ports(|stats| stats.rx_packets)),
        capture_drops: ports(|stats| stats.rx_missed + stats.rx_no_buffer),
        capture_errors: ports(|stats| stats.rx_errors),
        received: (sum(|worker| worker.received), sum(|worker| worker.received_bytes)),
        sent: sum(|worker| worker.sent),
        punted: sum(|worker| worker.punted),
        rejected: sum(|worker| worker.answers.resets + worker.answers.prohibited),
        drops: crate::event::labelled(&plan.reasons, &snapshot.drops()),
        flows,
        stages: stages.collect(),
        lost: lost.filter(|(_, n)| *n > 0).collect(),
    }
}
