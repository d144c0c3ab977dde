//! `[stream]`: how much of TCP is read, what it may take, and what happens to what cannot be read.

use std::time::Duration;

use super::check::Check;
use super::flow::range;
use super::{Conflict, Overlap, StreamPlan, schema};

/// The whole plan.
pub(super) fn check(check: &mut Check<'_>, given: &schema::Stream, tenants: usize) -> StreamPlan {
    let default = StreamPlan::default();
    let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let memory = check.range("stream.memory_mb", given.memory_mb, (default.memory >> 20) as u32, 1, 1 << 16);
    let per_flow = check.range("stream.flow_kb", given.flow_kb, default.per_flow >> 10, 4, 1 << 14);
    let percent = "stream.tenant_percent";
    let tenant_percent = check.range(percent, given.tenant_percent, default.tenant_percent, 1, 100);
    let depth = check.range("stream.depth_kb", given.depth_kb, default.depth >> 10, 1, 1 << 18);
    let wait = range(check, "stream.wait", given.wait, default.wait, 10 * ms, 60 * second);
    let gap_time = range(check, "stream.gap_time", given.gap_time, default.gap_time, Duration::ZERO, wait);
    let hold = check.range("stream.hold", given.hold, default.hold, 0, 1 << 14);
    let hold_time = range(check, "stream.hold_time", given.hold_time, default.hold_time, ms, 10 * second);
    let conflict = match (given.overlap, given.conflict) {
        (Overlap::Last, Some(Conflict::Drop)) => {
            let what = "is \"drop\", but stream.overlap is \"last\": a copy that differs would have to pass to count";
            check.problem(
                "stream.conflict",
                what,
                "leave stream.overlap at \"first\", or let conflicts pass",
            );
            Conflict::Drop
        }
        (Overlap::Last, None) => Conflict::Pass,
        (_, given) => given.unwrap_or(default.conflict),
    };
    StreamPlan {
        memory: u64::from(memory) << 20,
        per_flow: per_flow << 10,
        tenant_percent,
        tenants,
        depth: depth << 10,
        overlap: given.overlap,
        conflict,
        compare: given.compare.unwrap_or(default.compare),
        urgent: given.urgent,
        wait,
        gap_time,
        hold,
        hold_time,
    }
}
