//! The state of all targets at one moment, as data: for the admin API, figures and `top`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use super::arp::spelled;
use super::neighbours::{ArpCounts, Neighbour};
use super::reason::words;
use super::{Checker, Row};
use crate::gateway::targets::State;

/// All targets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// In the order in which they were given.
    pub targets: Vec<TargetSnapshot>,
    /// Connections that are open, or on their way.
    pub connections: usize,
    /// ARP.
    pub arp: ArpCounts,
    /// Packets of ours that were not sent: it was not known where to, or the port had no room.
    pub lost: u64,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetSnapshot {
    /// Its address.
    pub address: Ipv4Addr,
    /// `initial`, `healthy` or `unhealthy`.
    pub state: State,
    /// Seconds since it is so.
    pub since_s: f64,
    /// What the last check came to, in words. Nothing before the first.
    pub reason: Option<String>,
    /// `ok`, or the label of the last failure.
    pub result: Option<&'static str>,
    /// Checks that are over.
    pub checks: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those by label; what never happened is not there.
    pub failures_by: BTreeMap<&'static str, u64>,
    /// How long the last successful check took, from SYN on, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Where its frames go.
    pub mac: Option<String>,
    /// That is configured.
    pub mac_fixed: bool,
    /// Seconds since its holder, or the router's, last said so.
    pub mac_confirmed_s: Option<f64>,
    /// Times that it became another.
    pub mac_changes: u64,
    /// Packets in which others claimed the address.
    pub mac_claims: u64,
}

impl Checker {
    /// How things stand.
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let hop = |row: &Row| {
            let hop = self.stand.next_hop(row.target.address).filter(|_| row.target.mac.is_none())?;
            self.neighbours.get(hop)
        };
        Snapshot {
            targets: self.rows.iter().map(|row| row.snapshot(hop(row), now)).collect(),
            connections: self.connections(),
            arp: self.neighbours.counts,
            lost: self.link.lost,
        }
    }
}

impl Row {
    fn snapshot(&self, hop: Option<&Neighbour>, now: Duration) -> TargetSnapshot {
        let confirmed = hop.filter(|hop| hop.mac.is_some()).map(|hop| now.saturating_sub(hop.confirmed));
        TargetSnapshot {
            address: self.target.address,
            state: self.health.state(),
            since_s: now.saturating_sub(self.health.since()).as_secs_f64(),
            reason: self.last.as_ref().map(words),
            result: self
                .last
                .as_ref()
                .map(|last| last.as_ref().map_or_else(|reason| reason.kind(), |_| "ok")),
            checks: self.checks,
            failures: self.failures,
            failures_by: self.failures_by.clone(),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            mac: self.told.map(spelled),
            mac_fixed: self.target.mac.is_some(),
            mac_confirmed_s: confirmed.map(|confirmed| confirmed.as_secs_f64()),
            mac_changes: hop.map_or(0, |hop| hop.changes),
            mac_claims: hop.map_or(0, |hop| hop.claims),
        }
    }
}

/// A state as it is written.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Initial => "initial",
        State::Healthy => "healthy",
        State::Unhealthy => "unhealthy",
        State::Draining => "draining",
    }
}
