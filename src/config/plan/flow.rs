//! The flow engine's part of a plan: how much is remembered, for how long, for whom, and what happens when it does not fit.
//!
//! `Default` is what a file without `[flow]` and `[[tenant]]` means for one worker, except that nothing is tracked before a
//! stage wants it. Figures "per worker" are worked out from those of the process, which are what a person writes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Flows of a process unless told otherwise: what Linux' connection tracking takes on a machine with more than 4 GB
/// (Documentation/networking/nf_conntrack-sysctl.rst).
const CAPACITY: u32 = 1 << 18;
/// No table is smaller: what it would save is less than the pages it lies on.
const LEAST_PER_WORKER: u32 = 1 << 10;

pub use crate::flow::FLOW_BYTES;

/// The flow engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPlan {
    /// Flows are followed. False: every packet is looked at by itself, as if it were alone.
    pub tracking: bool,
    /// Flows of the process, 2^10 to 2^26.
    pub capacity: u32,
    /// Flows of one worker: its part of the capacity and a quarter more, since no hash deals evenly. One worker: all.
    pub per_worker: u32,
    /// Bytes that running stages keep of each flow, beside [`FLOW_BYTES`].
    pub stage_bytes: u64,
    /// Addresses mean the same within one of these.
    pub scope: Scope,
    /// Idle time of a TCP connection, set to what the load balancer uses: 60 s to 6000 s.
    pub tcp_idle: Duration,
    /// Idle time of everything else.
    pub other_idle: Duration,
    /// How much longer than the load balancer a flow is remembered: its timer must run out first.
    pub margin: Duration,
    /// Idle time of a TCP connection whose handshake is not complete.
    pub half_open: Duration,
    /// Idle time of a TCP connection that both sides have finished.
    pub closing: Duration,
    /// Time after a valid RST.
    pub reset: Duration,
    /// Idle time of a flow that a stage drops.
    pub denied: Duration,
    /// What becomes of a new flow that finds no room.
    pub when_full: WhenFull,
    /// What becomes of a TCP connection that is first seen in the middle.
    pub pickup: Pickup,
    /// What is said of TCP segments outside the window.
    pub window_check: WindowCheck,
    /// Inner fragments.
    pub fragments: Fragments,
    /// Parcels that wait in one hand-off ring; there is one from each worker to each other. A power of two.
    pub handoff_ring: u32,
    /// Flow events that wait in one worker's ring. A power of two.
    pub events_ring: u32,
    /// Packets that one worker makes itself (RST, ICMP) in a second, at most.
    pub answers_per_s: u32,
    /// A tenant's number is its place here. The first is "default": the endpoints that nobody claims.
    pub tenants: Vec<TenantPlan>,
    /// What becomes of packets of an endpoint that nobody claims.
    pub unknown_endpoint: UnknownEndpoint,
}

/// A customer, or a part of one: endpoints with a share of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPlan {
    /// Its name, a label of metrics.
    pub name: String,
    /// Its endpoints' ids, ascending, each in one tenant only.
    pub endpoints: Vec<u64>,
    /// Flows of one worker that are kept for it. The sum over all tenants is at most [`FlowPlan::per_worker`]; flows beyond
    /// their tenant's share live in what no share covers.
    pub guaranteed: u32,
    /// Flows of one worker that it may have, at least 1, at most what the guarantees of the others leave.
    pub ceiling: u32,
    /// New flows in a second, of the process; `None`: as many as come.
    pub new_flows_per_s: Option<u32>,
    /// Name of the pipeline that its packets pass.
    pub pipeline: String,
}

/// Inner fragments: those behind the first have no ports and belong to the flow of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Frames of one worker that wait for a first fragment; 0: none waits.
    pub hold: u32,
    /// How long they wait at most.
    pub hold_time: Duration,
    /// How long a first fragment is remembered.
    pub lifetime: Duration,
    /// First fragments that the process remembers.
    pub entries: u32,
    /// What becomes of fragments whose first never came.
    pub orphans: Orphans,
}

/// Within what addresses are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One endpoint of the load balancer: other endpoints may use the same addresses.
    #[default]
    Endpoint,
    /// All endpoints of a tenant, for paths that leave by one zone and return by another.
    Tenant,
}

/// A new flow, and no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The stages decide packet by packet, and nothing is remembered.
    #[default]
    Stateless,
    /// Dropped.
    Drop,
    /// Goes home without having been looked at.
    Forward,
}

/// A TCP connection whose first packet is not a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Pickup {
    /// Taken up if the rules allow it in either orientation.
    #[default]
    Policy,
    /// Taken up; no stage is shown it.
    Allow,
    /// Dropped.
    Drop,
    /// Dropped, and its sender gets a RST.
    Reset,
}

/// A TCP segment outside the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WindowCheck {
    /// Nobody looks.
    #[default]
    Off,
    /// It is counted and passes.
    Log,
    /// It is counted and dropped.
    Drop,
}

/// A fragment whose first never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Orphans {
    /// Dropped: without ports no rule can be asked.
    #[default]
    Drop,
    /// Goes home: its receiver cannot put the packet together without the first fragment.
    Forward,
}

/// A packet of an endpoint that no tenant claims, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownEndpoint {
    /// It is the first tenant's.
    #[default]
    Default,
    /// Dropped.
    Drop,
}

impl FlowPlan {
    /// The default plan for another number of flows and workers; one tenant has everything.
    pub fn sized(capacity: u32, workers: usize) -> Self {
        let per_worker = per_worker(capacity, workers);
        let everyone = TenantPlan {
            name: "default".into(),
            endpoints: Vec::new(),
            guaranteed: per_worker,
            ceiling: per_worker,
            new_flows_per_s: None,
            pipeline: super::DEFAULT_PIPELINE.into(),
        };
        FlowPlan {
            tracking: false,
            capacity,
            per_worker,
            stage_bytes: 0,
            scope: Scope::default(),
            tcp_idle: Duration::from_secs(350),
            other_idle: Duration::from_secs(120),
            margin: Duration::from_secs(5),
            // A SYN is sent again after 1, 2, 4, 8 and 16 s (RFC 6298 section 5.5): this spans all of these gaps.
            half_open: Duration::from_secs(20),
            // The same for a last FIN whose ACK was lost.
            closing: Duration::from_secs(20),
            reset: Duration::from_secs(2),
            denied: Duration::from_secs(10),
            when_full: WhenFull::default(),
            pickup: Pickup::default(),
            window_check: WindowCheck::default(),
            fragments: Fragments::default(),
            handoff_ring: 1024,
            events_ring: 8192,
            // Linux makes as many ICMP messages (icmp_msgs_per_sec).
            answers_per_s: 1000,
            tenants: vec![everyone],
            unknown_endpoint: UnknownEndpoint::default(),
        }
    }
}

impl Default for FlowPlan {
    fn default() -> Self {
        FlowPlan::sized(CAPACITY, 1)
    }
}

impl Default for TenantPlan {
    /// The tenant of the default plan: it has everything.
    fn default() -> Self {
        TenantPlan {
            name: "default".into(),
            endpoints: Vec::new(),
            guaranteed: CAPACITY,
            ceiling: CAPACITY,
            new_flows_per_s: None,
            pipeline: super::DEFAULT_PIPELINE.into(),
        }
    }
}

impl Default for Fragments {
    fn default() -> Self {
        Fragments {
            hold: 64,
            hold_time: Duration::from_millis(200),
            lifetime: Duration::from_secs(4),
            entries: 4096,
            orphans: Orphans::default(),
        }
    }
}

/// One worker's part of a capacity.
pub(in crate::config) fn per_worker(capacity: u32, workers: usize) -> u32 {
    let part = match workers as u64 {
        0 | 1 => u64::from(capacity),
        workers => (u64::from(capacity) * 5).div_ceil(workers * 4),
    };
    (part as u32).max(LEAST_PER_WORKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_its_part_and_a_quarter() {
        for (capacity, workers, expected) in [
            (1_000_000, 1, 1_000_000),
            (1_000_000, 2, 625_000),
            (1_000_000, 3, 416_667),
            (1_000_000, 8, 156_250),
            (1 << 26, 1, 1 << 26),
            (1 << 26, 127, 660_521),
            (1 << 10, 64, 1 << 10),
        ] {
            assert_eq!(per_worker(capacity, workers), expected, "{capacity} / {workers}");
        }
        let plan = FlowPlan::sized(1_000_000, 2);
        assert_eq!((plan.tenants[0].guaranteed, plan.tenants[0].ceiling), (625_000, 625_000));
        assert_eq!(FlowPlan::default().tenants[0], TenantPlan::default());
    }
}
