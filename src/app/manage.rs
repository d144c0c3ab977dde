//! One round of the management side, over what the application has: workers, ports, pool, flows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Launched, RunningApp};
use crate::mgmt::health::{PortSeen, WorkerSeen};
use crate::mgmt::{Draining, Management, Observation, Round, Status};
use crate::packet::DropReason;
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
        if tick {
            // Asking a driver for its counters may mean asking the device: not more often than this.
            self.port_stats = self.ports.iter().map(crate::dpdk::RunningPort::stats).collect();
            round.said.extend(self.tick().err().map(|error| error.to_string()));
        }
        if look {
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
        }
        if tick {
            round.draining = self.look_at_drain(at);
        }
        round
    }

    /// New flows are not wanted from now on: health says so, and flows that are there are served. [`Round::draining`] tells
    /// how many are left, and when it is over.
    pub fn drain(&mut self) {
        if let Some(management) = &mut self.management {
            management.drain();
        }
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
            worker.counters.sent.get() - worker.counters.punt.replies.get().min(worker.counters.sent.get())
        };
        let sent = self.workers.iter().map(sent).sum();
        self.management.as_mut()?.look_at_drain(at, flows, sent)
    }

    fn observe(&self, at: Duration) -> Observation {
        let worker = |Launched { counters, handle }: &Launched| WorkerSeen {
            id: counters.worker.0,
            ended: handle.has_ended(),
            polls: counters.busy_polls.get() + counters.idle_polls.get(),
            place: counters.place.place(),
            sent: counters.sent.get(),
            tx_full: counters.dropped(DropReason::TxFull.into()),
        };
        let ports = self.ports.iter().zip(&self.port_stats).zip(&self.resets);
        let port =
            |((port, stats), reset): ((&crate::dpdk::RunningPort, _), &std::sync::atomic::AtomicBool)| {
                let stats: &crate::dpdk::PortStats = stats;
                PortSeen {
                    id: port.facts().id,
                    link_up: port.link().up,
                    reset_wanted: reset.load(Ordering::Relaxed),
                    missed: stats.rx_missed,
                    no_buffer: stats.rx_no_buffer,
                }
            };
        let panics = |Launched { counters, .. }: &Launched| {
            counters.stages.iter().map(|s| s.panics.get()).sum::<u64>()
        };
        Observation {
            at,
            policy: true,
            reload_failed: None,
            draining: None,
            workers: self.workers.iter().map(worker).collect(),
            ports: ports.map(port).collect(),
            pool_available: self.pool.available(),
            stage_panics: self.workers.iter().map(panics).sum(),
        }
    }
}
