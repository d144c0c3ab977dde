//! Pipelines by name: stages say which they are part of, tenants which is theirs.

use super::super::check::Check;
use super::super::value::known_here;
use super::super::{DEFAULT_PIPELINE, NO_PIPELINE, StagePlan};
use super::MOST_WARNINGS;
use super::claim::Claim;

/// A tenant's pipeline has stages, and a pipeline has tenants.
pub(super) fn known(check: &mut Check<'_>, claims: &[Claim], stages: &[StagePlan]) {
    let mut names: Vec<&str> = stages.iter().flat_map(|stage| &stage.pipelines).map(String::as_str).collect();
    names.extend([DEFAULT_PIPELINE, NO_PIPELINE]);
    names.sort_unstable();
    names.dedup();
    for (name, place) in claims.iter().filter_map(|claim| claim.pipeline.as_ref()) {
        if !names.contains(&name.as_str()) {
            let what = format!("no stage is part of a pipeline {name:?}");
            check.problems.push(place.problem(what, known_here(name, &names)));
        }
    }
    // Who says nothing has the default one, as the tenant of unknown endpoints has.
    let of = |claim: &'_ Claim| {
        claim.pipeline.as_ref().map_or(DEFAULT_PIPELINE.to_owned(), |(name, _)| name.clone())
    };
    let used: Vec<String> = claims.iter().map(of).collect();
    let unused = names.iter().filter(|name| **name != NO_PIPELINE && !used.iter().any(|used| used == *name));
    let has_stages =
        |name: &&&str| stages.iter().any(|stage| stage.pipelines.iter().any(|own| own == **name));
    for name in unused.filter(has_stages).take(MOST_WARNINGS) {
        check.warnings.push(format!("pipeline {name:?}: no tenant has it"));
    }
}
