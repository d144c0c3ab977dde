//! Is this appliance fit for traffic? A pure state machine: what was seen goes in, a state with its reasons comes out.
//!
//! ```text
//! starting --all workers poll--> ready <--> degraded
//!                                  |  ^         |
//!                                  v  |hold     v
//!                          draining  failed <---+
//! ```
//!
//! It fails only for what another appliance would do better ([`Cause::fails`]), and for what the plan adds. Anything else that is wrong
//! degrades: still fit, with a reason. Bad news counts at once (each cause has its own patience first); good news counts when all has been
//! well for [`HealthPlan::hold`], so a state does not flap. Time in which nobody looked is not held against anyone: an observation that comes
//! late counts for half a second at most.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Cause, HealthPlan};
use crate::path::Place;

/// Most time that one observation accounts for.
const LONGEST: Duration = Duration::from_millis(500);
/// How long a link may be down, and a queue take nothing.
const LINK_AFTER: Duration = Duration::from_millis(500);
const TX_AFTER: Duration = Duration::from_secs(1);
/// Drivers are asked for their counters once a second: what they counted last holds until they are asked again.
const COUNTERS: Duration = Duration::from_millis(1250);

/// The state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not all workers have polled yet.
    #[default]
    Starting,
    /// All is well.
    Ready,
    /// Fit, and something is wrong.
    Degraded,
    /// No new flows, please.
    Draining,
    /// Not fit.
    Failed,
}

impl State {
    /// All, as figures are published.
    pub const ALL: [State; 5] =
        [State::Starting, State::Ready, State::Degraded, State::Draining, State::Failed];

    /// Should a load balancer send new flows?
    pub const fn is_fit(self) -> bool {
        matches!(self, State::Ready | State::Degraded)
    }

    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Degraded => "degraded",
            State::Draining => "draining",
            State::Failed => "failed",
        }
    }
}

/// What was seen at one moment. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Since some moment, the same for all observations.
    pub at: Duration,
    /// A pipeline is in force.
    pub policy: bool,
    /// Why the newest policy could not be loaded.
    pub reload_failed: Option<String>,
    /// New flows are not wanted, and why.
    pub draining: Option<String>,
    /// Each worker.
    pub workers: Vec<WorkerSeen>,
    /// Each port.
    pub ports: Vec<PortSeen>,
    /// Buffers that could be had.
    pub pool_available: u32,
    /// Batches in which stages panicked.
    pub stage_panics: u64,
}

/// A worker at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its number.
    pub id: u16,
    /// Its thread has ended.
    pub ended: bool,
    /// Polls.
    pub polls: u64,
    /// Where it was.
    pub place: Place,
    /// Frames that its transmit queues did not take.
    pub tx_full: u64,
    /// Each of its queues.
    pub queues: Vec<QueueSeen>,
}

/// A transmit queue at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSeen {
    /// Number of its port.
    pub port: u16,
    /// Its number.
    pub queue: u16,
    /// Frames that it took.
    pub sent: u64,
    /// Frames that it did not take.
    pub tx_full: u64,
}

/// A port at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSeen {
    /// Its number.
    pub id: u16,
    /// Carrier.
    pub link_up: bool,
    /// It asked for a reset and has not come back from it: what is to be said of that.
    pub reset: Option<String>,
    /// Frames lost because its ring was full.
    pub missed: u64,
    /// Frames lost for want of a buffer.
    pub no_buffer: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What kind of thing.
    pub cause: Cause,
    /// In words.
    pub text: String,
}

/// The state with its reasons: what is told to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// What is wrong now, worst first; while a bad state is held, what was wrong last.
    pub reasons: Vec<Reason>,
    /// All is well again, but not for long enough.
    pub recovering: bool,
    /// When the state began.
    pub since: Duration,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Flip {
    /// As an event.
    pub fn record(&self, at: std::time::SystemTime) -> serde_json::Value {
        let health = serde_json::json!({ "from": self.from, "to": self.to, "reasons": self.reasons });
        crate::event::record_of(crate::event::Type::Health, at, health)
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Health {
    plan: HealthPlan,
    /// Names of the stages.
    stages: Vec<String>,
    before: Option<Observation>,
    workers: Vec<WorkerPast>,
    ports: Vec<Duration>,
    pool_empty: Duration,
    /// Frames were lost for want of a buffer, as far as the drivers' counters are known.
    starved_until: Duration,
    /// How long there has been no failing reason, and no reason at all.
    sound: Duration,
    well: Duration,
    status: Status,
}

#[derive(Clone, Debug, Default)]
struct WorkerPast {
    still: Duration,
    /// Of each of its queues.
    tx_stuck: Vec<Duration>,
}

impl Health {
    /// Before anything was seen.
    pub fn new(plan: HealthPlan, stages: Vec<String>) -> Self {
        let status =
            Status { state: State::Starting, reasons: Vec::new(), recovering: false, since: Duration::ZERO };
        Health {
            plan,
            stages,
            before: None,
            workers: Vec::new(),
            ports: Vec::new(),
            pool_empty: Duration::ZERO,
            starved_until: Duration::ZERO,
            sound: Duration::ZERO,
            well: Duration::ZERO,
            status,
        }
    }

    /// Goes on by another plan, with other stages.
    pub fn change(&mut self, plan: HealthPlan, stages: Vec<String>) {
        (self.plan, self.stages) = (plan, stages);
    }

    /// What is to be told.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Workers that stand still for too long: their numbers.
    pub fn stuck(&self) -> impl Iterator<Item = u16> {
        let seen = self.before.iter().flat_map(|seen| &seen.workers).zip(&self.workers);
        seen.filter(|(seen, past)| !seen.ended && past.still >= self.plan.stuck_after)
            .map(|(seen, _)| seen.id)
    }

    /// Takes in what was seen, and says if that changes the state. Workers and ports are the same ones, in the same order, each time.
    pub fn observe(&mut self, seen: Observation) -> Option<Flip> {
        let passed = self.before.as_ref().map_or(Duration::ZERO, |before| seen.at.saturating_sub(before.at));
        let passed = passed.min(LONGEST);
        self.account(&seen, passed);
        let mut reasons = self.reasons(&seen);
        reasons.sort_by_key(|reason| reason.cause);
        let fails = |reason: &Reason| {
            reason.cause != Cause::Draining
                && (reason.cause.fails() || self.plan.fail_on.contains(&reason.cause))
        };
        let failing = reasons.iter().any(fails);
        let draining = seen.draining.is_some();
        let wrong = reasons.iter().any(|reason| reason.cause != Cause::Draining);
        self.sound = if failing { Duration::ZERO } else { self.sound + passed };
        self.well = if wrong { Duration::ZERO } else { self.well + passed };
        let started = seen.policy && seen.workers.iter().all(|worker| worker.polls > 0 || worker.ended);
        let from = self.status.state;
        let hold = self.plan.hold;
        let to = match from {
            _ if failing && started => State::Failed,
            State::Starting if !started => State::Starting,
            State::Failed if self.sound < hold => State::Failed,
            _ if draining => State::Draining,
            State::Degraded | State::Failed if self.well < hold => State::Degraded,
            _ if wrong => State::Degraded,
            _ => State::Ready,
        };
        let held = match to {
            State::Failed => !failing,
            State::Degraded => !wrong,
            _ => false,
        };
        if held && reasons.iter().all(|reason| reason.cause == Cause::Draining) {
            // Those of the last bad moment stay, so that whoever asks learns why it is held.
            reasons = std::mem::take(&mut self.status.reasons);
        }
        let at = seen.at;
        self.before = Some(seen);
        let since = if from == to { self.status.since } else { at };
        self.status = Status { state: to, reasons, recovering: held, since };
        (from != to).then(|| Flip { from, to, reasons: self.status.reasons.clone() })
    }

    /// How long has what lasted?
    fn account(&mut self, seen: &Observation, passed: Duration) {
        self.workers.resize(seen.workers.len(), WorkerPast::default());
        self.ports.resize(seen.ports.len(), Duration::ZERO);
        let Some(before) = &self.before else { return };
        for ((past, now), old) in self.workers.iter_mut().zip(&seen.workers).zip(&before.workers) {
            past.still = if now.polls == old.polls { past.still + passed } else { Duration::ZERO };
            past.tx_stuck.resize(now.queues.len(), Duration::ZERO);
            for ((stuck, now), old) in past.tx_stuck.iter_mut().zip(&now.queues).zip(&old.queues) {
                *stuck = match (now.sent > old.sent, now.tx_full > old.tx_full) {
                    (true, _) => Duration::ZERO,
                    (false, true) => *stuck + passed,
                    // Nothing to send says little: a queue that was stuck is given the benefit of the doubt, slowly.
                    (false, false) => stuck.saturating_sub(passed / 8),
                };
            }
        }
        for (down, now) in self.ports.iter_mut().zip(&seen.ports) {
            *down = if now.link_up { Duration::ZERO } else { *down + passed };
        }
        let starved = seen.ports.iter().zip(&before.ports).any(|(now, old)| now.no_buffer > old.no_buffer);
        if starved {
            self.starved_until = seen.at + COUNTERS;
        }
        let empty = seen.pool_available == 0 || seen.at < self.starved_until;
        self.pool_empty = if empty { self.pool_empty + passed } else { Duration::ZERO };
    }

    fn reasons(&self, seen: &Observation) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut say = |cause, text: String| reasons.push(Reason { cause, text });
        if !seen.policy {
            say(Cause::NoPolicy, "no policy has been loaded yet".into());
        }
        for (now, past) in seen.workers.iter().zip(&self.workers) {
            if now.ended {
                say(Cause::WorkerEnded, format!("worker {} has ended by itself", now.id));
            } else if past.still >= self.plan.stuck_after {
                let (still, place) = (past.still.as_secs_f64(), self.place(now.place));
                say(
                    Cause::WorkerStuck,
                    format!("worker {} has not polled for {still:.1} s; it is in {place}", now.id),
                );
            }
            for (queue, stuck) in
                now.queues.iter().zip(&past.tx_stuck).filter(|(_, stuck)| **stuck >= TX_AFTER)
            {
                let QueueSeen { port, queue, .. } = queue;
                let stuck = stuck.as_secs_f64();
                say(
                    Cause::TxStuck,
                    format!(
                        "transmit queue {queue} of port {port} (worker {}) has taken no frame for {stuck:.1} s",
                        now.id
                    ),
                );
            }
        }
        for (now, down) in seen.ports.iter().zip(&self.ports) {
            if *down >= LINK_AFTER {
                say(Cause::LinkDown, format!("the link of port {} is down", now.id));
            }
            if let Some(text) = &now.reset {
                say(Cause::DeviceReset, text.clone());
            }
        }
        let empty = self.pool_empty.as_secs_f64();
        if self.pool_empty >= self.plan.pool_after {
            say(Cause::PoolEmpty, format!("the pool has had no buffer for {empty:.1} s"));
        } else if self.pool_empty > Duration::ZERO {
            say(Cause::PoolLow, format!("the pool has no buffer, for {empty:.1} s now"));
        }
        if let Some(why) = &seen.draining {
            say(Cause::Draining, why.clone());
        }
        if let Some(why) = &seen.reload_failed {
            say(Cause::ReloadFailed, format!("the newest policy could not be loaded: {why}"));
        }
        self.losses(seen, &mut say);
        reasons
    }

    /// What was lost since the last look.
    fn losses(&self, seen: &Observation, say: &mut impl FnMut(Cause, String)) {
        let Some(before) = &self.before else { return };
        let missed: u64 = seen
            .ports
            .iter()
            .zip(&before.ports)
            .map(|(now, old)| now.missed.saturating_sub(old.missed))
            .sum();
        let full: u64 = seen
            .workers
            .iter()
            .zip(&before.workers)
            .map(|(now, old)| now.tx_full.saturating_sub(old.tx_full))
            .sum();
        if missed + full > 0 {
            let text = format!(
                "frames are lost: {missed} found a receive ring full, {full} a transmit queue, since the last look"
            );
            say(Cause::Overload, text);
        }
        let panics = seen.stage_panics.saturating_sub(before.stage_panics);
        if panics > 0 {
            say(Cause::StagePanics, format!("stages panicked in {panics} batches since the last look"));
        }
    }

    fn place(&self, place: Place) -> String {
        match place {
            Place::Inspect(n) => match self.stages.get(n) {
                Some(name) => format!("inspect, stage {n} {name:?}"),
                None => place.to_string(),
            },
            place => place.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
