//! From a file to what can be put in force: read, checked, compared with what is in force, built. On the thread "plans".

use std::sync::Arc;

use super::{Load, Said};
use crate::config::reload::{Changed, changes};
use crate::config::{Machine, Plan};
use crate::path::{Candidate, Pipeline};
use crate::stage::Backend;

/// Where a plan comes from.
pub(super) enum Source {
    /// It is read.
    File(Load),
    /// It was a candidate, whose reasons are joined with those of the plan in force.
    Judged(Arc<Plan>),
}

pub(super) fn refused(why: impl Into<String>) -> Said {
    Said::Refused { problems: vec![why.into()], restart: Vec::new() }
}

/// Reads and checks. With other values than those of stages that change.
fn read(source: Source, running: &Plan, most_reasons: usize) -> Result<(Arc<Plan>, Vec<Changed>), Box<Said>> {
    let plan = match source {
        Source::Judged(plan) => plan,
        Source::File(load) => {
            let mut plan = load().map_err(|problems| {
                let problems = problems.iter().map(ToString::to_string).collect();
                Box::new(Said::Refused { problems, restart: Vec::new() })
            })?;
            plan.join_reasons(&running.reasons);
            Arc::new(plan)
        }
    };
    let (changed, restart) = changes(running, &plan);
    if !restart.is_empty() {
        return Err(Box::new(Said::Refused { problems: Vec::new(), restart }));
    }
    if plan.reasons.len() > most_reasons {
        return Err(Box::new(refused(format!(
            "stages have had {} reasons since the start, and there are counters for {most_reasons}; restart",
            plan.reasons.len()
        ))));
    }
    Ok((plan, changed))
}

/// The next plan.
pub(super) fn prepare(
    source: Source,
    running: &Arc<Plan>,
    pipeline: &Pipeline,
    backend: Backend,
    most_reasons: usize,
) -> Said {
    let (plan, changed) = match read(source, running, most_reasons) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let next = match pipeline.next(&plan, backend) {
        Ok(next) => next,
        Err(error) => return refused(error.to_string()),
    };
    let stages = next.differences(pipeline);
    if stages.is_none() && changed.is_empty() && next.is_the_same(pipeline) {
        return Said::Unchanged;
    }
    Said::Ready { plan, pipeline: Box::new(next), stages, changed }
}

/// A candidate beside the plan. Its stages are its own, all of them: what they count is not the others'.
pub(super) fn shadow(
    source: Source,
    running: &Arc<Plan>,
    pipeline: &Pipeline,
    backend: Backend,
    most_reasons: usize,
) -> Said {
    if !pipeline.has_room_beside() {
        return refused(
            "the pipeline in force has as many stages as there can be, and a candidate needs one place beside them",
        );
    }
    let (plan, not_judged) = match read(source, running, most_reasons) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let bytes = Candidate::bytes(&plan, running.workers.len());
    if let Some(why) = no_room(bytes, Machine::free_memory()) {
        return refused(why);
    }
    let built = match Pipeline::build(&plan, backend) {
        Ok(built) => built,
        Err(error) => return refused(error.to_string()),
    };
    let stages = built.would_differ(pipeline);
    Said::Shadowed { candidate: Arc::new(Candidate::new(plan, built)), bytes, stages, not_judged }
}

/// Why a candidate that takes so much is not loaded. An eighth of what is free is left to others.
fn no_room(bytes: u64, free: Option<u64>) -> Option<String> {
    let free = free.filter(|free| bytes > free / 8 * 7)?;
    let mb = |bytes: u64| bytes.div_ceil(1 << 20);
    Some(format!(
        "a candidate keeps {} MB of flows, streams and copies for all workers, and {} MB are free; lower flow.capacity, or \
         try it on another appliance",
        mb(bytes),
        mb(free)
    ))
}

#[cfg(test)]
mod tests {
    use super::no_room;

    #[test]
    fn a_candidate_that_does_not_fit_is_refused_with_both_figures() {
        assert_eq!(no_room(7 << 20, Some(8 << 20)), None);
        let why = no_room((7 << 20) + 1, Some(8 << 20)).expect("a reason");
        assert!(why.contains("keeps 8 MB") && why.contains("8 MB are free"), "{why}");
        assert_eq!(no_room(u64::MAX, None), None, "nobody knows");
    }
}
