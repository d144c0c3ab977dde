//! What the configuration says to the hop: what of it can change while it runs.

use crate::config::{FlowPlan, Orphans, Pickup, Plan, UnknownEndpoint, WhenFull};
use crate::flow::Timeouts;
use crate::flow::tcp::WindowCheck;

/// What is done with packets that have no flow, or an odd one.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub when_full: WhenFull,
    pub pickup: Pickup,
    pub check: WindowCheck,
    pub unknown: UnknownEndpoint,
    pub orphans: Orphans,
    /// Fragments can wait.
    pub holds: bool,
    /// A bit for each stage.
    pub stages: u16,
    /// Those of them whose answer is given where connections from before are allowed.
    pub allowed: u16,
}

impl Policy {
    #[inline(always)]
    /// The scope of an endpoint that belongs to nobody.
    pub fn nobodys_scope(&self) -> u64 {
        if self.unknown == UnknownEndpoint::Drop { u64::MAX } else { 0 }
    }
}

/// What of the hop can change while it runs.
#[derive(Debug)]
pub struct Terms {
    pub policy: Policy,
    pub timeouts: Timeouts,
    /// Stages that are not for a tenant, by its number; empty where all are for everybody.
    pub foreign: Box<[u16]>,
    /// How long fragments wait.
    pub patience: u64,
}

impl Terms {
    /// Those of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut terms = Terms::new(&plan.flow, plan.stages.len());
        let settles = plan.stages.iter().enumerate().filter(|(_, stage)| stage.parsed.settles());
        terms.policy.allowed = settles.fold(0, |bits, (n, _)| bits | 1u16.checked_shl(n as u32).unwrap_or(0));
        terms.foreign = plan.foreign();
        terms
    }

    /// The same with a candidate beside the pipeline, which is done with a flow by the bit behind the stages'.
    pub fn beside(mut self, is_there: bool) -> Self {
        let stages = self.policy.stages;
        self.policy.stages |= if is_there { stages.wrapping_add(1) } else { 0 };
        self
    }

    /// Those of flows in front of so many stages.
    pub fn new(plan: &FlowPlan, stages: usize) -> Self {
        let policy = Policy {
            when_full: plan.when_full,
            pickup: plan.pickup,
            check: plan.window_check,
            unknown: plan.unknown_endpoint,
            orphans: plan.fragments.orphans,
            holds: plan.fragments.hold > 0,
            stages: u16::MAX.checked_shr(16u32.saturating_sub(stages as u32)).unwrap_or(0),
            allowed: 0,
        };
        let patience = plan.fragments.hold_time.as_nanos().try_into().unwrap_or(u64::MAX);
        Terms { policy, timeouts: Timeouts::new(plan), foreign: Box::default(), patience }
    }
}
