//! A checked configuration: what will run, where, and how much memory it takes.

mod flow;
mod stream;
mod management;
mod events;
mod gateway;
mod metrics;

use std::net::Ipv4Addr;

pub use events::{EventsPlan, Format, ReportPlan, Rotation, SinkPlan, To};
pub use flow::{
    FLOW_BYTES, FlowPlan, Fragments, Orphans, Pickup, Scope, TenantPlan, UnknownEndpoint, WhenFull,
    WindowCheck,
};
pub use gateway::{EndpointPlan, Failover, GatewayPlan, LegPlan, TargetPlan};
use ipnet::Ipv4Net;
pub use management::{
    AddressV4, Cause, ControlSocket, DrainPlan, Group, HealthPlan, HostKind, HostPlan, ManagementPlan,
    PortAddress, Token, WhenFailed,
};
pub use metrics::MetricsPlan;
pub use stream::{Conflict, Overlap, StreamPlan, Urgent};

use crate::dpdk::{EalPlan, LcorePlan, PoolConfig, PortConfig};
use crate::flow::refit::OnReload;
use crate::packet::{ReasonId, ReasonTable};
use crate::stage::{Parsed, StageKind, WorkerId};
use crate::wire::geneve::Profile;

/// Everything that a run needs to know. Made only by checking a configuration.
#[derive(Debug)]
pub struct Plan {
    /// The file it was read from, for messages.
    pub file: String,
    /// The EAL.
    pub eal: EalPlan,
    /// Ports in the order of the file.
    pub ports: Vec<PortPlan>,
    /// Workers in order of their ids.
    pub workers: Vec<WorkerPlan>,
    /// The pool of all ports.
    pub pool: PoolPlan,
    /// What was asked for where the rest of the plan shows what came of it.
    pub asked: Asked,
    /// How the EAL's memory came about, in words and figures, for `check`.
    pub memory_formula: String,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Frames that a worker asks for at a time, 1 to 64.
    pub burst: usize,
    /// What is remembered of flows, and for whom.
    pub flow: FlowPlan,
    /// How TCP streams are read.
    pub stream: StreamPlan,
    /// Who answers for the ports, and what.
    pub management: ManagementPlan,
    /// What is told, and to whom.
    pub events: EventsPlan,
    /// How many figures are exported.
    pub metrics: MetricsPlan,
    /// The pipeline in order.
    pub stages: Vec<StagePlan>,
    /// All drop reasons: the framework's, then those of the stages.
    pub reasons: ReasonTable,
    /// A hash of what decides about packets: the same on appliances that treat them alike. 16 hexadecimal digits.
    pub policy: String,
    /// Settings that the environment or the command line gave: path, and where from.
    pub overrides: Vec<(String, String)>,
    /// What is allowed but probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// The pipeline of who names none: stages that name none are part of it.
pub const DEFAULT_PIPELINE: &str = "default";
/// The pipeline without stages.
pub const NO_PIPELINE: &str = "none";

impl Plan {
    /// By number of a tenant, a bit for each stage that is not part of its pipeline. Empty where all stages are for everybody.
    pub fn foreign(&self) -> Box<[u16]> {
        let of = |tenant: &TenantPlan| {
            let stages = self.stages.iter().enumerate().take(crate::stage::MOST_STAGES);
            let is_foreign = |stage: &StagePlan| !stage.pipelines.contains(&tenant.pipeline);
            stages.fold(0, |bits, (n, stage)| bits | u16::from(is_foreign(stage)) << n)
        };
        let foreign: Box<[u16]> = self.flow.tenants.iter().map(of).collect();
        if foreign.iter().all(|stages| *stages == 0) { Box::default() } else { foreign }
    }

    /// Takes over the ids of reasons that a running plan has: its stages' reasons keep their numbers and counters, and others come behind.
    pub fn join_reasons(&mut self, running: &ReasonTable) {
        let mut joined = running.clone();
        let ids = joined.join(&self.reasons);
        let of = |id: &mut ReasonId| *id = ids.get(usize::from(id.0)).copied().unwrap_or(*id);
        self.stages.iter_mut().flat_map(|stage| &mut stage.reasons).for_each(of);
        let EventsPlan { drop, anomaly, .. } = &mut self.events;
        drop.reasons.iter_mut().chain(&mut anomaly.reasons).for_each(of);
        self.reasons = joined;
    }

    /// Does any stage read streams?
    pub fn reads_streams(&self) -> bool {
        self.stages.iter().any(|stage| stage.parsed.wants_streams())
    }
}

/// Values as they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `eal.memory_mb`; `None` for auto.
    pub memory_mb: Option<u32>,
    /// `eal.extra_buffers`.
    pub extra_buffers: u32,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// PCI address (`0000:00:06.0`) or vdev (`net_af_packet0,iface=eth1`).
    pub device: String,
    /// Queue pairs asked for.
    pub queues: QueueCount,
    /// `None`: the largest that the device allows, up to 9001.
    pub mtu: Option<u16>,
    /// The rest; `queues` and `mtu` in it are filled in when the port is opened.
    pub config: PortConfig,
}

/// How many queue pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueCount {
    /// One for each worker, as far as the device goes.
    Auto,
    /// Exactly so many.
    Exactly(u16),
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerPlan {
    /// Its number.
    pub id: WorkerId,
    /// Where it runs.
    pub lcore: LcorePlan,
}

/// The pool of all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// What to make.
    pub config: PoolConfig,
    /// How the number of buffers came about, in words and figures, for `check`.
    pub formula: String,
}

/// The tunnel: what is ours, and what to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Option classes, types and lengths.
    pub profile: &'static Profile,
    /// UDP destination port, 6081 (RFC 8926 section 3.3).
    pub port: u16,
    /// Outer sources that are accepted: the load balancer's subnets. Empty accepts every host (and `check` warns).
    pub allowed_sources: Vec<Ipv4Net>,
    /// Our outer addresses; frames to others are punted. Empty accepts every unicast destination.
    pub addresses: Vec<Ipv4Addr>,
    /// Outer UDP checksum.
    pub verify_checksum: VerifyChecksum,
    /// Largest inner packet that the load balancer takes back, in bytes.
    pub max_return: u16,
}

/// What to do about the outer UDP checksum. A checksum of zero is "none" and always accepted over IPv4 (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyChecksum {
    /// Trust the driver's GOOD, drop its BAD, pass and count UNKNOWN.
    #[default]
    Auto,
    /// As auto, but compute it where the driver does not know.
    Always,
    /// Pass everything.
    Never,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Poll again: lowest latency, one CPU each.
    #[default]
    Spin,
    /// Pause, then yield, then sleep up to 100 us: for shared CPUs.
    Backoff,
}

/// One stage of the pipeline.
#[derive(Debug)]
pub struct StagePlan {
    /// Its name in metrics and tables: the kind, or `name = "..."`.
    pub name: String,
    /// Its kind.
    pub kind: &'static StageKind,
    /// Its settings.
    pub parsed: Box<dyn Parsed>,
    /// Ids of its reasons.
    pub reasons: Vec<ReasonId>,
    /// Names of the pipelines that it is part of, at least one.
    pub pipelines: Vec<String>,
    /// Whether what it decides has an effect.
    pub mode: Mode,
    /// What happens to a batch in which it panicked.
    pub on_error: OnError,
    /// What becomes of TCP that it should read and cannot, if it reads streams.
    pub on_unread: OnError,
    /// What flows from before mean to it after a reload that changed it, if its table says so.
    pub on_reload: Option<OnReload>,
    /// SHA-256 of its kind, its settings and `on_unread`, and of what the files say that they name.
    pub mark: [u8; 32],
    /// Its settings in the order of their names, shortened for people.
    pub settings: Vec<(String, String)>,
    /// Its settings and the digests of the files they name, as they go into [`Plan::policy`].
    pub(super) policy: serde_json::Value,
}

/// Whether what a stage decides has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It is counted and told what the stage would do, and nothing comes of it.
    Shadow,
}

/// What happens to a batch in which a stage panicked. The stage is made anew in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The packets it had not decided on are dropped as `stage_panic`. Fail closed.
    #[default]
    #[serde(alias = "closed")]
    Drop,
    /// They go on to the next stage. Fail open.
    #[serde(alias = "open")]
    Pass,
}

impl OnError {
    /// The default of `on_unread`: what cannot be read passes.
    pub(crate) fn pass() -> Self {
        OnError::Pass
    }
}
