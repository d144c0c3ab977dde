//! What happened: counters at one moment, and the account at the end.

use std::time::Duration;

use serde::Serialize;

use super::ports::{AppPort, Resets};
use crate::dpdk::{LinkStatus, PortStats, RunningPort};
use crate::event::SinkSnapshot;
use crate::packet::ReasonTable;
use crate::path::{Ledger, StageSnapshot, WorkerSnapshot};

/// Counters at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Since the workers were launched.
    #[serde(rename = "elapsed_ns", serialize_with = "nanos")]
    pub elapsed: Duration,
    /// Each worker.
    pub workers: Vec<WorkerSnapshot>,
    /// Each port.
    pub ports: Vec<PortReport>,
    /// Each stage's own counters (for example a rule's hits), in pipeline order.
    pub stages: Vec<Vec<(String, u64)>>,
}

/// One port's counters.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// DPDK's number.
    pub id: u16,
    /// Device as the user named it.
    pub device: String,
    /// Link.
    pub link: LinkStatus,
    /// What the driver counted; its losses are not the workers'.
    pub stats: PortStats,
    /// How often it was reset.
    pub resets: Resets,
}

impl PortReport {
    pub(super) fn new(port: &AppPort) -> Self {
        let facts = port.facts();
        let (link, stats, resets) = (port.link(), port.stats(), port.resets());
        PortReport { id: facts.id, device: facts.device.clone(), link, stats, resets }
    }

    /// The same of a port that nobody resets.
    pub(super) fn of(port: &RunningPort) -> Self {
        let (facts, link, stats) = (port.facts(), port.link(), port.stats());
        PortReport { id: facts.id, device: facts.device.clone(), link, stats, resets: Resets::default() }
    }
}

impl Snapshot {
    /// The ledger over all workers.
    pub fn ledger(&self) -> Ledger {
        self.workers.iter().map(WorkerSnapshot::ledger).sum()
    }

    /// Drops by reason over all workers.
    pub fn drops(&self) -> Vec<u64> {
        let longest = self.workers.iter().map(|w| w.drops.len()).max().unwrap_or(0);
        (0..longest).map(|i| self.workers.iter().filter_map(|w| w.drops.get(i)).sum()).collect()
    }

    /// What each stage did over all workers.
    pub fn stage_totals(&self) -> Vec<StageSnapshot> {
        let longest = self.workers.iter().map(|w| w.stages.len()).max().unwrap_or(0);
        let mut totals = vec![StageSnapshot::default(); longest];
        for worker in &self.workers {
            for (total, stage) in totals.iter_mut().zip(&worker.stages) {
                *total = total.plus(stage);
            }
        }
        totals
    }
}

/// The account at the end.
#[derive(Debug)]
pub struct Report {
    /// Final counters; exact, the workers have stopped.
    pub snapshot: Snapshot,
    /// The drivers' own counters (xstats) that are not zero, by port.
    pub xstats: Vec<(u16, Vec<(String, u64)>)>,
    /// What went wrong while stopping.
    pub failures: Vec<String>,
    /// Buffers that are not back in the pool: 0, unless a driver keeps frames of its own (`net_pcap` with `infinite_rx`).
    pub buffers_out: u32,
    /// Names of the reasons.
    pub reasons: ReasonTable,
    /// Names of the stages.
    pub names: Vec<String>,
    /// What the sinks of events did.
    pub sinks: Vec<SinkSnapshot>,
    /// What went wrong with them that nobody has been told yet.
    pub complaints: Vec<String>,
}

impl Report {
    /// Nothing failed, and every worker's ledger balances.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.snapshot.workers.iter().all(|w| w.ledger().balances())
    }

    /// Reasons that dropped anything: label, meaning, packets.
    pub fn drops(&self) -> Vec<(&str, &'static str, u64)> {
        let counts = self.snapshot.drops();
        let named =
            self.reasons.iter().map(|(id, label, help)| (label, help, counts.get(id.0 as usize).copied()));
        named.filter_map(|(label, help, n)| n.filter(|n| *n > 0).map(|n| (label, help, n))).collect()
    }
}

fn nanos<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(d.as_nanos() as u64)
}
