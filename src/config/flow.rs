//! `[flow]`: how much is remembered, for how long, and what happens when it does not fit.

use std::time::Duration;

use super::check::Check;
use super::schema::{self, Span};
use super::{FlowPlan, Fragments, Mode, Pickup, StagePlan, TenantPlan, Tunnel, UnknownEndpoint, WhenFull};

/// Flows of a process.
const LEAST_FLOWS: u32 = 1 << 10;
const MOST_FLOWS: u32 = 1 << 26;
/// Idle times that the load balancer of AWS can be set to; its other timer, for all that is not TCP, is fixed.
const LEAST_IDLE: Duration = Duration::from_secs(60);
const MOST_IDLE: Duration = Duration::from_secs(6000);
const GWLB_OTHER_IDLE: Duration = Duration::from_secs(120);

/// What else the flow engine's plan depends on.
pub(super) struct Around<'a> {
    pub tunnel: Option<&'a Tunnel>,
    pub stages: &'a [StagePlan],
    /// A sink of events takes flows.
    pub told: bool,
}

/// The plan without its tenants: how many flows, for which workers.
pub(super) fn capacity(check: &mut Check<'_>, flow: &schema::Flow, workers: usize) -> FlowPlan {
    let default = FlowPlan::default().capacity;
    check.range("flow.capacity", flow.capacity, default, LEAST_FLOWS, MOST_FLOWS);
    // A number out of range is one mistake: shares of it are measured by the nearest that is allowed.
    FlowPlan::sized(flow.capacity.unwrap_or(default).clamp(LEAST_FLOWS, MOST_FLOWS), workers)
}

/// The whole plan.
pub(super) fn check(
    check: &mut Check<'_>,
    flow: &schema::Flow,
    sized: FlowPlan,
    tenants: Vec<TenantPlan>,
    unknown_endpoint: UnknownEndpoint,
    around: &Around<'_>,
) -> FlowPlan {
    let second = Duration::from_secs(1);
    let mut time = |key: &str, given: Option<Span>, default: Duration, least: Duration, most: Duration| {
        range(check, &format!("flow.{key}"), given, default, least, most)
    };
    let tcp_idle = time("tcp_idle", flow.tcp_idle, sized.tcp_idle, LEAST_IDLE, MOST_IDLE);
    let other_idle = time("other_idle", flow.other_idle, sized.other_idle, second, MOST_IDLE);
    let margin = time("margin", flow.margin, sized.margin, Duration::ZERO, 60 * second);
    let half_open = time("half_open", flow.half_open, sized.half_open, second, tcp_idle);
    let closing = time("closing", flow.closing, sized.closing, second, tcp_idle);
    let reset = time("reset", flow.reset, sized.reset, Duration::ZERO, 60 * second);
    let denied = time("denied", flow.denied, sized.denied, second, MOST_IDLE);
    let plan = FlowPlan {
        tracking: tracking(check, flow, tenants.len() > 1 || around.told, around.stages),
        stage_bytes: stage_bytes(around.stages),
        scope: flow.scope,
        tcp_idle,
        other_idle,
        margin,
        half_open,
        closing,
        reset,
        denied,
        when_full: flow.when_full,
        pickup: flow.pickup,
        window_check: flow.window_check,
        fragments: fragments(check, &flow.fragments),
        handoff_ring: power(check, "flow.handoff_ring", flow.handoff_ring, sized.handoff_ring, 64, 1 << 16),
        events_ring: power(check, "flow.events_ring", flow.events_ring, sized.events_ring, 64, 1 << 20),
        answers_per_s: check.range(
            "flow.answers_per_s",
            flow.answers_per_s,
            sized.answers_per_s,
            0,
            1_000_000,
        ),
        tenants,
        unknown_endpoint,
        ..sized
    };
    warnings(check, &plan, around);
    plan
}

/// What stages keep of a flow, and streams where they read any.
fn stage_bytes(stages: &[StagePlan]) -> u64 {
    let own: u64 = stages.iter().map(|stage| stage.parsed.flow_state_bytes()).sum();
    let reads = stages.iter().any(|stage| stage.parsed.wants_streams());
    own + if reads { crate::stream::FLOW_BYTES + crate::path::HOLD_BYTES } else { 0 }
}

/// Are flows followed? Where nobody asks for it, the table would only cost.
fn tracking(check: &mut Check<'_>, flow: &schema::Flow, others: bool, stages: &[StagePlan]) -> bool {
    let wants = stages
        .iter()
        .enumerate()
        .find(|(_, stage)| stage.parsed.wants_flows() || stage.parsed.wants_streams());
    match (flow.tracking.0, wants) {
        (Some(false), Some((i, stage))) => {
            let what = format!("is false, but stage[{i}] {:?} decides by flow", stage.name);
            check.problem("flow.tracking", what, "leave it at \"auto\", or make the stage stateless");
            false
        }
        (Some(on), _) => on,
        (None, wants) => wants.is_some() || others,
    }
}

fn fragments(check: &mut Check<'_>, given: &schema::Fragments) -> Fragments {
    let default = Fragments::default();
    let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let hold_time =
        range(check, "flow.fragments.hold_time", given.hold_time, default.hold_time, ms, 10 * second);
    let lifetime =
        range(check, "flow.fragments.lifetime", given.lifetime, default.lifetime, second, 60 * second);
    Fragments {
        hold: check.range("flow.fragments.hold", given.hold, default.hold, 0, 4096),
        hold_time,
        lifetime,
        entries: check.range("flow.fragments.entries", given.entries, default.entries, 64, 1 << 20),
        orphans: given.orphans,
    }
}

/// What is allowed and probably not meant.
fn warnings(check: &mut Check<'_>, plan: &FlowPlan, around: &Around<'_>) {
    if !plan.tracking {
        if plan.tenants.len() > 1 || plan.unknown_endpoint == UnknownEndpoint::Drop {
            let what = "flow.tracking is false: tenants have neither shares nor limits, and packets of unknown endpoints pass";
            check.warnings.push(what.into());
        }
        if around.told {
            check
                .warnings
                .push("flow.tracking is false: there are no flow records for [[events.sink]]".into());
        }
        return;
    }
    let denies = around
        .stages
        .iter()
        .enumerate()
        .find(|(_, stage)| stage.mode == Mode::Enforce && stage.parsed.denies_by_default());
    if let Some((i, stage)) = denies {
        if plan.when_full == WhenFull::Forward {
            check.warnings.push(format!(
                "flow.when_full = forward: while the table is full, new flows pass stage[{i}] {:?} by, which denies what no rule \
                 allows",
                stage.name
            ));
        }
        if plan.pickup == Pickup::Allow && stage.parsed.settles() {
            check.warnings.push(format!(
                "flow.pickup = allow: TCP that does not begin with a SYN passes stage[{i}] {:?} by, which denies what no rule allows",
                stage.name
            ));
        }
    }
    let aws = around.tunnel.is_some_and(|tunnel| tunnel.profile.name == "aws");
    if aws && plan.other_idle != GWLB_OTHER_IDLE {
        check.warnings.push(format!(
            "flow.other_idle = {}: a gateway load balancer of AWS forgets what is not TCP after {}, and that cannot be set",
            span(plan.other_idle),
            span(GWLB_OTHER_IDLE)
        ));
    }
}

/// A time in its range, or the default.
pub(super) fn range(
    check: &mut Check<'_>,
    place: &str,
    given: Option<Span>,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    match given {
        Some(Span(time)) if time < least || time > most => {
            let what = format!("{} is not between {} and {}", span(time), span(least), span(most));
            let remedy = match place {
                "flow.tcp_idle" => "give what the load balancer is set to, 350s unless changed",
                "flow.half_open" | "flow.closing" => "the end of this range is flow.tcp_idle",
                _ => "",
            };
            check.problem(place, what, remedy);
            default
        }
        Some(Span(time)) => time,
        None => default.min(most),
    }
}

/// A power of two in its range, or the default.
pub(super) fn power(
    check: &mut Check<'_>,
    place: &str,
    given: Option<u32>,
    default: u32,
    least: u32,
    most: u32,
) -> u32 {
    let n = check.range(place, given, default, least, most);
    if !n.is_power_of_two() {
        let above = n.next_power_of_two();
        check.problem(place, format!("{n} is not a power of two"), format!("write {} or {above}", above / 2));
    }
    n
}

/// A time as it could be written in the file, in one unit if it fits one.
pub(crate) fn span(time: Duration) -> String {
    let millis = time.as_millis();
    match (millis % 1000, time.subsec_nanos() % 1_000_000) {
        (0, 0) => format!("{}s", time.as_secs()),
        (_, 0) => format!("{millis}ms"),
        _ => humantime::format_duration(time).to_string(),
    }
}

#[cfg(test)]
mod tests;
