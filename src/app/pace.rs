//! How fast things go, from one second to the next.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::dpdk;
use crate::path::{WorkerCounters, WorkerSnapshot};

/// One worker in the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    /// Part of the time, 0 to 1, in polls that found frames.
    pub busy_ratio: f64,
    /// Frames from its queues, in a second.
    pub received_per_s: f64,
    /// Frames sent, in a second.
    pub sent_per_s: f64,
    /// Frames dropped, in a second.
    pub dropped_per_s: f64,
}

/// The rates of all workers, and what the next ones are counted from.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    before: Option<(Instant, Vec<WorkerSnapshot>)>,
    rates: Vec<Rate>,
}

impl Pace {
    /// Looks at the counters, about once a second.
    pub fn look(&mut self, workers: impl Iterator<Item = Arc<WorkerCounters>>) {
        let (now, at) = (workers.map(|counters| counters.snapshot()).collect::<Vec<_>>(), Instant::now());
        if let Some((when, before)) = &self.before {
            let time = (at - *when).as_secs_f64().max(1e-3);
            self.rates = before.iter().zip(&now).map(|(before, now)| rate(before, now, time)).collect();
        }
        self.before = Some((at, now));
    }

    /// In the order of the workers; none before two looks.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }
}

fn rate(before: &WorkerSnapshot, now: &WorkerSnapshot, time: f64) -> Rate {
    let per_s = |of: fn(&WorkerSnapshot) -> u64| of(now).saturating_sub(of(before)) as f64 / time;
    let cycles = dpdk::cycles_per_second().max(1) as f64;
    Rate {
        busy_ratio: (per_s(|worker| worker.busy_cycles) / cycles).min(1.0),
        received_per_s: per_s(|worker| worker.received),
        sent_per_s: per_s(|worker| worker.sent),
        dropped_per_s: per_s(WorkerSnapshot::dropped),
    }
}
