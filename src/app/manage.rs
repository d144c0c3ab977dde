//! One round of the management side, over what the application has: workers, ports, pool, flows.

use std::time::{Duration, Instant, SystemTime};

use std::sync::Arc;

use super::ports::AppPort;
use super::reload::{InForce, Load, Reloaded, ShadowStatus, What};
use super::reset::Around;
use super::{Launched, RunningApp};
use crate::config::Plan;
use crate::event::Type;
use crate::mgmt::health::{PortSeen, QueueSeen, WorkerSeen};
use crate::mgmt::{Draining, Management, Observation, Round, Status};
use crate::packet::DropReason;
use crate::path::{Pipeline, Place, QueueCounters, WorkerCounters};
use crate::stage::WorkerId;

impl RunningApp {
    /// One round, to be called again and again by the thread that started the application: soon if it was busy, within a
    /// millisecond or so if not. It does not wait for anything.
    ///
    /// Frames for the host stack are answered in each round. Workers' heartbeats are looked at four times a second, and what
    /// [`Self::tick`] does is done once a second.
    pub fn manage(&mut self) -> Round {
        let Some(management) = &mut self.management else { return Round::default() };
        let at = management.at();
        let mut round = Round { busy: management.poll(at), ..Round::default() };
        let (look, tick) = (management.is_look_due(at), management.is_tick_due(at));
        round.reloaded = self.look_at_reload();
        if let Some(reloaded) = &round.reloaded {
            self.reloaded = Some((Instant::now(), reloaded.clone()));
        }
        self.show();
        round.said.extend(self.look_at_resets());
        if tick {
            self.look_at_ports(); // not more often than this
            self.pace.look(self.workers.iter().map(|worker| worker.counters.clone()));
            round.said.extend(self.tick().err().map(|error| error.to_string()));
        }
        if look {
            for record in self.reloads.examples(&self.pipeline, &self.clock) {
                self.tell(Type::Shadow, record);
            }
            round.said.extend(self.events());
            let seen = self.observe(at);
            let shared = self.shared.clone();
            if let Some(management) = &mut self.management {
                round.said.extend(management.said());
                let mut said = Vec::new();
                round.flip = management.observe(seen, |worker| {
                    if let Some(shared) = &shared {
                        shared.retire(WorkerId(worker));
                        said.push(format!("worker {worker} hangs: the others take over its flows"));
                    }
                });
                round.said.extend(said);
            }
            if let Some(flip) = &round.flip {
                self.tell(Type::Health, flip.record(SystemTime::now()));
            }
        }
        if tick {
            round.draining = self.look_at_drain(at);
        }
        round
    }

    /// Begins to load another plan; [`Round::reloaded`] says what became of it. `load` runs on a thread of its own, and may take as long as it likes.
    ///
    /// # Errors
    ///
    /// In one sentence, if there is a reload under way.
    pub fn reload(&mut self, load: Load) -> Result<(), String> {
        self.reload_for("the program", load)
    }

    /// The same for somebody who is named in the record of it.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn reload_for(&mut self, who: &str, load: Load) -> Result<(), String> {
        self.begin_reload(What::Reload, who, load)
    }

    /// Begins to load a candidate beside the plan in force: it judges the same packets, and nothing comes of it but counts, records and
    /// [`Self::shadow_status`]. It takes the place of another one, and goes with the next plan. [`Round::reloaded`] says what became of it.
    ///
    /// # Errors
    ///
    /// In one sentence, if there is a reload under way.
    pub fn shadow(&mut self, who: &str, load: Load) -> Result<(), String> {
        self.begin_reload(What::Shadow, who, load)
    }

    /// Begins to put the candidate in force, as a reload does, with what was loaded then, whatever its file says now.
    ///
    /// # Errors
    ///
    /// In one sentence, if there is none, or a reload is under way.
    pub fn promote(&mut self, who: &str) -> Result<(), String> {
        self.reloads.end_shadow(What::Promote, who.to_owned(), &self.plan)
    }

    /// Begins to let the candidate go.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn cancel_shadow(&mut self, who: &str) -> Result<(), String> {
        self.reloads.end_shadow(What::Cancel, who.to_owned(), &self.plan)
    }

    /// What the candidate has come to, if there is one.
    pub fn shadow_status(&self) -> Option<ShadowStatus> {
        self.reloads.shadow(|counters| format!("worker {} has not taken it", counters.worker.0))
    }

    fn begin_reload(&mut self, what: What, who: &str, load: Load) -> Result<(), String> {
        let machine = (self.host.backend(), &self.pool, &self.cpus[..]);
        self.reloads.begin((what, load, who.to_owned()), &self.plan, &self.pipeline, machine)
    }

    fn look_at_reload(&mut self) -> Option<Reloaded> {
        let plan = self.plan.clone();
        let place = |counters: &WorkerCounters| whereabouts(counters, &plan);
        let (in_force, outcome) = self.reloads.round(&self.pipeline, &self.plan, place);
        if let Some(InForce { plan, pipeline }) = in_force {
            self.put_in_force(plan, pipeline);
        }
        if let (Some(outcome), Some(told)) = (&outcome, self.reloads.told()) {
            let policy = (told.policy.as_str(), self.plan.policy.as_str());
            self.tell(
                Type::Reload,
                outcome.record((told.what.word(), &told.by), policy, told.took, SystemTime::now()),
            );
        }
        outcome
    }

    /// A record of the management side's, to whoever wants to know.
    pub(super) fn tell(&self, kind: Type, record: serde_json::Value) {
        if let Some(telling) = &self.telling {
            telling.record(kind, record);
        }
    }

    /// What the management side knows of the plan is the new one's. Workers come to it by themselves.
    fn put_in_force(&mut self, plan: Arc<Plan>, pipeline: Arc<Pipeline>) {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        for Launched { counters, .. } in &self.workers {
            counters.show(&names, plan.reasons.len());
        }
        if let Some(flows) = &self.flows {
            flows.rename(&plan);
        }
        if let Some(management) = &mut self.management {
            management.change(&plan.management, super::stage_names(&plan));
        }
        if let Some(telling) = &mut self.telling {
            telling.change(&plan, &pipeline);
        }
        let mut figure_names = super::figures::Names::of(&plan, &pipeline);
        // The program has not started anew.
        if let Some(before) = &self.names {
            figure_names.started = before.started;
        }
        self.names = Some(Arc::new(figure_names));
        (self.plan, self.pipeline) = (plan, pipeline);
    }

    /// New flows are not wanted from now on: health says so, and flows that are there are served. [`Round::draining`] tells
    /// how many are left, and when it is over.
    pub fn drain(&mut self) {
        if let Some(management) = &mut self.management {
            management.drain();
        }
    }

    /// The same, and it is over so long from now, flows or not; for one that has begun, this is another deadline.
    pub fn drain_within(&mut self, deadline: Duration) {
        if let Some(management) = &mut self.management {
            management.drain_within(deadline);
        }
    }

    /// How draining is: `state` (`going`, `done`, `deadline`), `flows` that are left, and times; null if nobody drains.
    pub fn draining(&self) -> serde_json::Value {
        self.management.as_ref().map(Management::drain_json).unwrap_or_default()
    }

    /// State of health, with reasons.
    pub fn health(&self) -> Option<&Status> {
        self.management.as_ref().map(Management::status)
    }

    /// The management side.
    pub fn management(&self) -> Option<&Management> {
        self.management.as_ref()
    }

    fn look_at_drain(&mut self, at: Duration) -> Option<Draining> {
        let flows = self.flows.as_ref().map(|view| view.live().map(|(_, _, live)| u64::from(live)).sum());
        let sent = |worker: &Launched| {
            // The worker goes on while its counters are read.
            worker.counters.sent.get().saturating_sub(worker.counters.punt.replies.get())
        };
        let sent = self.workers.iter().map(sent).sum();
        self.management.as_mut()?.look_at_drain(at, flows, sent)
    }

    /// What resets see of it.
    fn around(&self) -> Around<'_> {
        Around { workers: &self.workers, plan: &self.plan, pool: &self.pool, cpus: &self.cpus }
    }

    fn look_at_resets(&mut self) -> Vec<String> {
        let (mut ports, mut resets) = (std::mem::take(&mut self.ports), std::mem::take(&mut self.resets));
        let said = resets.round(&mut ports, &self.around());
        (self.ports, self.resets) = (ports, resets);
        said
    }

    fn observe(&self, at: Duration) -> Observation {
        let queue = |queue: &QueueCounters| QueueSeen {
            port: queue.port,
            queue: queue.queue,
            sent: queue.sent.get(),
            tx_full: queue.tx_full.get(),
        };
        let worker = |Launched { counters, handle }: &Launched| WorkerSeen {
            id: counters.worker.0,
            ended: handle.has_ended(),
            polls: counters.busy_polls.get() + counters.idle_polls.get(),
            place: counters.place.place(),
            tx_full: counters.dropped(DropReason::TxFull.into()),
            queues: counters.queues.iter().map(queue).collect(),
        };
        let reasons = self.resets.reasons(&self.ports, &self.around());
        let ports = self.ports.iter().zip(&self.port_stats).zip(reasons);
        let port = |((port, stats), reset): ((&AppPort, &crate::dpdk::PortStats), Option<String>)| PortSeen {
            id: port.facts().id,
            // The link of a port that does not run says nothing.
            link_up: port.running().is_none_or(|running| running.link().up),
            reset,
            missed: stats.rx_missed,
            no_buffer: stats.rx_no_buffer,
        };
        let panics = |Launched { counters, .. }: &Launched| counters.panics();
        Observation {
            at,
            policy: true,
            reload_failed: self.reloads.failed(),
            draining: None,
            workers: self.workers.iter().map(worker).collect(),
            ports: ports.map(port).collect(),
            pool_available: self.pool.available(),
            stage_panics: self.workers.iter().map(panics).sum(),
        }
    }
}

/// Where a worker is, for people.
pub(super) fn whereabouts(counters: &WorkerCounters, plan: &Plan) -> String {
    match counters.place.place() {
        Place::Inspect(n) => match plan.stages.get(n) {
            Some(stage) => format!("inspect, stage {n} {:?}", stage.name),
            None => format!("inspect, stage {n}"),
        },
        place => place.to_string(),
    }
}
