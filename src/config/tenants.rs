//! `[[tenant]]` and `[tenants]`: whose an endpoint is, and what share of the table is theirs.
//!
//! ```text
//! [[tenant]] tables ──┐
//! lines of the file ──┴> claims, each with its places ──> one tenant per endpoint ──> shares ──> TenantPlan per worker
//! ```
//!
//! Shares are those of the process (`flow.capacity`); a worker gets the same part of its own table. Who names no guarantee gets an
//! even part of half of what the named ones leave; a ceiling is at most what the guarantees of the others leave, so that no
//! tenant can take what is another's. Alone, the first tenant, `default`, has everything.

mod claim;
mod file;
mod pipelines;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::check::Check;
use super::schema::{self, File};
use super::value::quoted;
use super::{DEFAULT_PIPELINE, FlowPlan, Origin, Problem, StagePlan, TenantPlan, UnknownEndpoint};
use crate::wire::geneve::{Profile, Scope};
use claim::{Claim, Place, Share};
pub(crate) use claim::{endpoint_of, spelled};

/// The tenant of endpoints that nobody claims.
const DEFAULT: &str = "default";
/// A tenant's number has 16 bits, and figures are kept for each.
const MOST_TENANTS: usize = 10_000;
/// Endpoints of all tenants.
const MOST_ENDPOINTS: usize = 100_000;
/// Mistakes after which reading stops.
const MOST_PROBLEMS: usize = 100;
/// Tenants that are warned of for the same thing.
const MOST_WARNINGS: usize = 20;
/// A name is a label of metrics and a column of tables.
const LONGEST_NAME: usize = 64;

/// The tenants in the order of their numbers, as the file has them.
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    /// What they are called.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|claim| claim.name.clone()).collect()
    }
}

/// Reads the tenants.
pub(super) fn claims(check: &mut Check<'_>, file: &File) -> Claims {
    let before = check.problems.len();
    let mut claims = claim::of_tables(check, &file.tenant);
    if let Some(name) = &file.tenants.file {
        claims.extend(file::read(check, name));
    }
    names(check, &claims);
    endpoints(check, &claims);
    if claims.len() > MOST_TENANTS {
        check.problem(
            "tenant",
            format!("these are {} tenants", claims.len()),
            format!("at most {MOST_TENANTS} can be"),
        );
    }
    let default = claims.iter().position(|claim| claim.name == DEFAULT);
    let default = default.map_or_else(|| Claim::new(DEFAULT, Place::nowhere()), |i| claims.remove(i));
    claims.insert(0, default);
    bound(check, before);
    Claims(claims)
}

/// Their shares, and what becomes of packets of nobody's endpoints.
pub(super) fn check(
    check: &mut Check<'_>,
    file: &File,
    Claims(claims): Claims,
    flow: &FlowPlan,
    profile: Option<&Profile>,
    stages: &[StagePlan],
) -> (Vec<TenantPlan>, UnknownEndpoint) {
    let before = check.problems.len();
    let unknown = file.tenants.unknown_endpoint;
    if unknown == UnknownEndpoint::Drop && claims.iter().all(|claim| claim.endpoints.is_empty()) {
        let remedy = "name endpoints in [[tenant]] or [tenants] file, or let the default tenant have them";
        check.problem("tenants.unknown_endpoint", "drops everything: no tenant has an endpoint", remedy);
    }
    pipelines::known(check, &claims, stages);
    warnings(check, &claims, profile);
    let plans = shares(check, &claims, flow, unknown);
    bound(check, before);
    (plans, unknown)
}

/// Every tenant has a name, and no other has it.
fn names(check: &mut Check<'_>, claims: &[Claim]) {
    let mut first: BTreeMap<&str, &Claim> = BTreeMap::new();
    for claim in claims {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let name = claim.name.as_str();
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
            let remedy = format!("use up to {LONGEST_NAME} letters, digits, `-`, `_` or `.`");
            check.problems.push(claim.place.problem(format!("{} cannot be a label", quoted(name)), remedy));
        }
        match first.entry(name) {
            Entry::Occupied(other) => {
                let what =
                    format!("{} is the name of another tenant already: {}", quoted(name), other.get().place);
                check
                    .problems
                    .push(claim.place.problem(what, "join the two, or give one of them another name"));
            }
            Entry::Vacant(free) => {
                free.insert(claim);
            }
        }
        if name == DEFAULT
            && let Some((_, place)) = claim.endpoints.first()
        {
            let what = "\"default\" has the endpoints that nobody names";
            check.problems.push(place.problem(what, "leave them out, or choose another name"));
        }
    }
}

/// Every endpoint has one tenant.
fn endpoints(check: &mut Check<'_>, claims: &[Claim]) {
    let mut owner: BTreeMap<u64, (&Claim, &Place)> = BTreeMap::new();
    for claim in claims {
        for (id, place) in &claim.endpoints {
            match owner.entry(*id) {
                Entry::Occupied(other) => {
                    let (other, first) = other.get();
                    let what =
                        format!("{} is {}'s already: {first}", claim::spelled(*id), quoted(&other.name));
                    let remedy = match other.name == claim.name {
                        true => "name it once",
                        false => "an endpoint has one tenant",
                    };
                    check.problems.push(place.problem(what, remedy));
                }
                Entry::Vacant(free) => {
                    free.insert((claim, place));
                }
            }
        }
    }
    let all: usize = claims.iter().map(|claim| claim.endpoints.len()).sum();
    if all > MOST_ENDPOINTS {
        check.problem(
            "tenant",
            format!("these are {all} endpoints"),
            format!("at most {MOST_ENDPOINTS} can be"),
        );
    }
}

/// Keeps a list that is wrong throughout from printing pages.
fn bound(check: &mut Check<'_>, before: usize) {
    if check.problems.len() > before + MOST_PROBLEMS {
        check.problems.truncate(before + MOST_PROBLEMS);
        check.problem("tenant", "too many mistakes to go on", "mend those above first");
    }
}

fn warnings(check: &mut Check<'_>, claims: &[Claim], profile: Option<&Profile>) {
    let named = |claim: &&Claim| claim.name != DEFAULT;
    for claim in claims.iter().filter(named).filter(|claim| claim.endpoints.is_empty()).take(MOST_WARNINGS) {
        check.warnings.push(format!("tenant {:?} has no endpoints: no packet is its", claim.name));
    }
    let Some(profile) = profile.filter(|profile| profile.scope == Scope::Vni) else { return };
    let wide = claims.iter().flat_map(|claim| &claim.endpoints).find(|(id, _)| *id >= 1 << 24);
    if let Some((id, place)) = wide {
        check.warnings.push(format!(
            "{place}: {} never arrives: with tunnel.profile = {:?} an endpoint is a VNI, a number of 24 bits",
            claim::spelled(*id),
            profile.name
        ));
    }
}

/// Guarantees and ceilings in flows of the process, and from these in flows of a worker.
fn shares(
    check: &mut Check<'_>,
    claims: &[Claim],
    flow: &FlowPlan,
    unknown: UnknownEndpoint,
) -> Vec<TenantPlan> {
    let capacity = u64::from(flow.capacity);
    let mut named = 0u64;
    let mut limits: Vec<(Option<u64>, Option<u64>)> = Vec::with_capacity(claims.len());
    for claim in claims {
        let guaranteed = part(check, claim.guaranteed.as_ref(), capacity);
        let ceiling = part(check, claim.flows.as_ref(), capacity);
        if let (Some(most), Some(kept), Some((_, place))) = (ceiling, guaranteed, &claim.guaranteed)
            && kept > most
        {
            let what = format!("{kept} flows are more than the {most} that the tenant may have");
            check.problems.push(place.problem(what, "lower it, or raise limits.flows"));
        }
        let fitted = named <= capacity;
        named += guaranteed.unwrap_or(0);
        if let Some((_, place)) = &claim.guaranteed
            && fitted
            && named > capacity
        {
            let what =
                format!("with this, guarantees add up to {named} flows, more than flow.capacity, {capacity}");
            check.problems.push(place.problem(what, "lower some of them, or raise flow.capacity"));
        }
        limits.push((guaranteed, ceiling));
    }
    // Nobody is the first tenant's where unknown endpoints are dropped: what it kept would be lost.
    let silent = |i: usize| i == 0 && unknown == UnknownEndpoint::Drop;
    let left = capacity.saturating_sub(named);
    let takers =
        limits.iter().enumerate().filter(|(i, (kept, _))| kept.is_none() && !silent(*i)).count() as u64;
    let even = if claims.len() == 1 { left } else { left / 2 / takers.max(1) };
    let kept: Vec<u64> = limits
        .iter()
        .enumerate()
        .map(|(i, (kept, most))| match kept {
            Some(kept) => *kept,
            None if silent(i) => 0,
            None => even.min(most.unwrap_or(capacity)),
        })
        .collect();
    let all: u64 = kept.iter().sum();
    let worker = u64::from(flow.per_worker);
    let mut warned = 0;
    let plan = |((claim, (_, most)), kept): ((&Claim, &(_, Option<u64>)), &u64)| {
        let left = capacity.saturating_sub(all - kept);
        if let Some(most) = most.filter(|most| *most > left)
            && check.problems.is_empty()
            && warned < MOST_WARNINGS
        {
            warned += 1;
            check.warnings.push(format!(
                "tenant {:?} may have {most} flows, but the guarantees of the others leave {left}",
                claim.name
            ));
        }
        let most = most.unwrap_or(left).min(left);
        let mut endpoints: Vec<u64> = claim.endpoints.iter().map(|(id, _)| *id).collect();
        endpoints.sort_unstable();
        // Guarantees round down and ceilings up: the sums hold in every worker as they do in the process.
        TenantPlan {
            name: claim.name.clone(),
            endpoints,
            guaranteed: (kept * worker / capacity) as u32,
            ceiling: (most * worker).div_ceil(capacity).min(worker) as u32,
            new_flows_per_s: claim.new_flows_per_s,
            pipeline: claim.pipeline.as_ref().map_or(DEFAULT_PIPELINE, |(name, _)| name.as_str()).to_owned(),
        }
    };
    claims.iter().zip(&limits).zip(&kept).map(plan).collect()
}

/// A share in flows of the process.
fn part(check: &mut Check<'_>, share: Option<&(Share, Place)>, capacity: u64) -> Option<u64> {
    let (share, place) = share?;
    match *share {
        Share::Percent(percent) => Some((capacity as f64 * percent / 100.0) as u64),
        Share::Flows(flows) if flows > capacity => {
            let what = format!("{flows} flows are more than flow.capacity, {capacity}");
            check.problems.push(place.problem(what, "lower it, or raise flow.capacity"));
            None
        }
        Share::Flows(flows) => Some(flows),
    }
}

#[cfg(test)]
mod tests;
