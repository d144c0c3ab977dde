//! What figures are made from, at one moment: counters that anybody may read, and what only the main lcore can tell.

use std::sync::Arc;
use std::time::SystemTime;

use crate::app::PortReport;
use crate::app::reload::Counts as ReloadCounts;
use crate::config::{FlowPlan, Plan};
use crate::event::{FollowSnapshot, SinkSnapshot};
use crate::flow::FlowView;
use crate::mgmt::ManagementSnapshot;
use crate::packet::ReasonTable;
use crate::path::{Pipeline, WorkerCounters};

/// What numbers stand for, as long as a plan is in force.
#[derive(Debug)]
pub(crate) struct Names {
    pub reasons: ReasonTable,
    pub stages: Vec<String>,
    pub tenants: Places,
    /// The built stages: they have counters of their own.
    pub pipeline: Pipeline,
    /// Hash of the policy.
    pub policy: String,
    pub started: SystemTime,
}

impl Names {
    pub fn of(plan: &Plan, pipeline: &Pipeline) -> Self {
        Names {
            reasons: plan.reasons.clone(),
            stages: plan.stages.iter().map(|stage| stage.name.clone()).collect(),
            tenants: Places::of(plan),
            pipeline: pipeline.clone(),
            policy: plan.policy.clone(),
            started: SystemTime::now(),
        }
    }
}

/// Labels of tenants: the first ones have their own, all others together have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places(Vec<String>);

/// The label of tenants that have none of their own.
const OTHER: &str = "other";

impl Places {
    pub fn of(plan: &Plan) -> Self {
        Places::new(&plan.flow, plan.metrics.max_tenants)
    }

    fn new(flow: &FlowPlan, most: usize) -> Self {
        // A packet that is looked at by itself has no tenant.
        let all = if flow.tracking { flow.tenants.len() } else { 1 };
        let own = if all <= most { all } else { most };
        let mut names: Vec<String> =
            flow.tenants.iter().take(own).map(|tenant| tenant.name.clone()).collect();
        if own < all {
            names.push(OTHER.into());
        }
        Places(names)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The labels.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The place of a tenant.
    pub fn place(&self, tenant: usize) -> usize {
        tenant.min(self.0.len().saturating_sub(1))
    }
}

/// Everything, at one moment. Made on the main lcore once a second: it copies what only that can see, and shares the rest.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub names: Arc<Names>,
    pub workers: Vec<Arc<WorkerCounters>>,
    pub ports: Vec<PortReport>,
    /// The drivers' own counters, in the order of `ports`.
    pub xstats: Vec<Vec<(String, u64)>>,
    pub management: Option<ManagementSnapshot>,
    pub sinks: Vec<SinkSnapshot>,
    /// What those who follow events came to.
    pub followers: FollowSnapshot,
    pub reloads: ReloadCounts,
    /// What candidates came to.
    pub judged: crate::app::reload::Totals,
    pub flows: Option<FlowView>,
    /// Buffers of the pool, and those that nobody holds.
    pub pool: (u32, u32),
}
