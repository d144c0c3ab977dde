//! What a gateway is to do, checked.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Idle, PoolPlan, PortPlan, VerifyChecksum, WorkerPlan};
use crate::dpdk::EalPlan;
use crate::gateway::checks::HealthCheck;
use crate::gateway::{NonIp, Stickiness, UnknownTcp};
use crate::wire::geneve::Profile;

/// What becomes of flows whose target is unhealthy, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failover {
    /// They stay with it, as with AWS by default.
    #[default]
    NoRebalance,
    /// They move to others.
    Rebalance,
}

/// A gateway.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// The file, as the user named it.
    pub file: String,
    /// What the EAL is asked for.
    pub eal: EalPlan,
    /// The ports, in the order of the file; a worker's lanes have the same.
    pub ports: Vec<PortPlan>,
    /// What they are called.
    pub names: Vec<String>,
    /// The worker.
    pub workers: Vec<WorkerPlan>,
    /// Buffers.
    pub pool: PoolPlan,
    /// How the EAL's memory came about.
    pub memory_formula: String,
    /// What a worker does while there is nothing to do.
    pub idle: Idle,
    /// Frames that a poll asks for.
    pub burst: usize,
    /// Options of the envelope.
    pub profile: &'static Profile,
    /// UDP port on which targets listen.
    pub udp_port: u16,
    /// Envelopes have a UDP checksum.
    pub checksum: bool,
    /// Are those of what comes back verified?
    pub verify_checksum: VerifyChecksum,
    /// The port on which targets are, by its number in [`Self::ports`].
    pub targets_port: usize,
    /// The gateway's own address there.
    pub address: Ipv4Net,
    /// Who leads to targets outside of that subnet.
    pub router: Option<Ipv4Addr>,
    /// Where the gateway stands.
    pub zone: String,
    /// Targets of other zones get flows, too.
    pub cross_zone: bool,
    /// What belongs together.
    pub stickiness: Stickiness,
    /// Slots of the Maglev table.
    pub table: u32,
    /// Of the hash by which gateways choose: the same on all.
    pub seed: u64,
    /// Frames of legs that are neither IP nor ARP.
    pub non_ip: NonIp,
    /// Flows of targets that are unhealthy or gone.
    pub failover: Failover,
    /// How long a target that is taken out keeps its flows.
    pub deregistration_delay: Duration,
    /// Flows that are remembered.
    pub capacity: u32,
    /// How long, where they are TCP.
    pub tcp_idle: Duration,
    /// And where they are not.
    pub other_idle: Duration,
    /// TCP of flows that are not.
    pub unknown_tcp: UnknownTcp,
    /// The endpoints.
    pub endpoints: Vec<EndpointPlan>,
    /// The targets.
    pub targets: Vec<TargetPlan>,
    /// How they are checked; without, they are healthy as soon as it is known where they are.
    pub health_check: Option<HealthCheck>,
    /// Values from outside the file.
    pub overrides: Vec<(String, String)>,
    /// What is allowed and may be a mistake.
    pub warnings: Vec<String>,
}

/// An endpoint: two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// Its id in envelopes.
    pub id: u64,
    /// Its legs.
    pub legs: [LegPlan; 2],
}

/// A port, or a VLAN of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegPlan {
    /// Number of the port.
    pub port: usize,
    /// The VLAN.
    pub vlan: Option<u16>,
}

/// An appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address, if it is given: then it is not asked for, and the target counts as healthy from the start.
    pub mac: Option<[u8; 6]>,
    /// Where it stands.
    pub zone: String,
    /// Its share of new flows.
    pub weight: u32,
}
