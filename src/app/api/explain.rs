//! `/v1/explain`: what becomes of the packets between two ends, and why.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::query::Query;
use super::{Here, Scene};
use crate::config::{endpoint_name, endpoint_of};
use crate::flow::{Detail, Tuple};
use crate::mgmt::admin::filter::protocol;
use crate::mgmt::admin::page;
use crate::mgmt::control::Refusal;
use crate::mgmt::http::Outcome;
use crate::mgmt::server::Reply;

/// The flows between these ends, stage by stage, and what stages that judge by ends alone say of a first packet.
pub(super) fn explain(here: &Here, scene: &Scene, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let tuple = tuple(&mut query)?;
    let bad = |text: String| Refusal::new("bad-request", text);
    let endpoint = query.take("endpoint").map(|word| endpoint_of(&word).map_err(bad)).transpose()?;
    query.done()?;
    let names = &scene.picture.names;
    let cycles = cycles(scene);
    let judged: Vec<Value> = names
        .pipeline
        .stages()
        .enumerate()
        .map(|(n, (name, shared))| {
            let (mode, cycles) = (names.pipeline.mode(n), cycles.get(n).copied().flatten());
            match shared.judge(&tuple) {
                Some(said) => {
                    json!({ "stage": name, "mode": mode, "says": said.verdict, "rule": said.rule, "also": said.also, "cycles": cycles })
                }
                None => json!({ "stage": name, "mode": mode, "says": null, "cycles": cycles }),
            }
        })
        .collect();
    let found = here.flows.as_ref().map(|view| view.details(endpoint, &tuple)).unwrap_or_default();
    let flows: Vec<Value> = found
        .iter()
        .map(|detail| {
            // The flow may have been opened the other way round: rules look at it as its originator does.
            let tenant = scene.plan.flow.tenants.iter().position(|tenant| tenant.name == detail.flow.tenant);
            let is_for = |n| tenant.is_none_or(|tenant| names.pipeline.is_for(n, tenant));
            let judged = names.pipeline.stages().map(|(_, shared)| shared.judge(&detail.flow.tuple));
            let stages = names.stages.iter().zip(judged).enumerate().map(|(n, (name, said))| {
                let rule = said.as_ref().and_then(|said| said.rule.clone());
                let reason = detail.flow.reason.as_deref().filter(|reason| is_of(name, reason));
                let is = match reason {
                    Some(_) => "settled: it drops the flow",
                    None => standing(detail, n, is_for(n)),
                };
                let cycles = cycles.get(n).copied().flatten();
                json!({ "stage": name, "is": is, "reason": reason, "rule": rule, "says": said.map(|said| said.verdict), "cycles": cycles })
            });
            let mut flow = json!(detail.flow);
            flow["stages"] = stages.collect();
            flow["goes_back"] = goes_back(detail);
            flow["several_workers"] = detail.misaligned.into();
            flow
        })
        .collect();
    let answer = json!({
        "tuple": tuple, "endpoint": endpoint.map(endpoint_name), "tracked": here.flows.is_some(), "flows": flows,
        "first_packet": judged,
    });
    Ok(page(Outcome::Fit, true, answer))
}

/// Cycles for each packet that a stage was shown, in the mean of the polls that were timed, by the number of the stage; none if it was shown none in them.
fn cycles(scene: &Scene) -> Vec<Option<u64>> {
    let names = &scene.picture.names.stages;
    let mut sums = vec![(0_u64, 0_u64); names.len()];
    for worker in &scene.picture.workers {
        for (sum, stage) in sums.iter_mut().zip(worker.stages_named(names)) {
            for (count, cycles) in stage.cycles.read() {
                *sum = (sum.0 + count, sum.1.saturating_add(cycles));
            }
        }
    }
    sums.into_iter().map(|(count, cycles)| cycles.checked_div(count)).collect()
}

/// Is a reason one of this stage's own? Its label begins with the stage's name.
fn is_of(stage: &str, reason: &str) -> bool {
    reason.strip_prefix(stage).is_some_and(|rest| rest.starts_with('.'))
}

/// What a stage is to the flow's packets.
fn standing(detail: &Detail, stage: usize, is_for: bool) -> &'static str {
    if !is_for {
        return "not asked: it is not in the tenant's pipeline";
    }
    let settled = detail.settled >> stage.min(15) & 1 != 0;
    match (detail.flow.reason.is_some(), detail.sent_home_by) {
        (true, _) => "not asked: the flow is dropped",
        (false, Some(by)) if usize::from(by) == stage => "settled: it sends the flow home",
        (false, Some(by)) if usize::from(by) < stage => "not asked: a stage in front sends the flow home",
        _ if settled => "settled: it lets the flow pass",
        _ => "looks at each packet",
    }
}

/// Under which envelope packets go back, by who sends them.
fn goes_back(detail: &Detail) -> Value {
    let [originator, responder] = detail.flow.envelopes;
    json!({ "originator": originator, "responder": responder })
}

fn tuple(query: &mut Query<'_>) -> Result<Tuple, Refusal> {
    let bad = |text: String| Refusal::new("bad-request", text);
    let missing = |name: &str| bad(format!("{name} is missing"));
    let number = query.take("protocol").ok_or_else(|| missing("protocol"))?;
    let protocol = protocol(&number).map_err(bad)?;
    let mut end = |name: &str| {
        let text = query.take(name).ok_or_else(|| missing(name))?;
        end(&text).ok_or_else(|| {
            bad(format!("{name}: {text:?} is no end: write 10.1.2.3:443, [2001:db8::1]:443 or 10.1.2.3"))
        })
    };
    let ((source, source_port), (destination, destination_port)) = (end("source")?, end("destination")?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(bad("source and destination are of two families".into()));
    }
    Ok(Tuple { source, destination, source_port, destination_port, protocol })
}

/// An address, and a port where there is one.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let socket = text.parse::<std::net::SocketAddr>().map(|at| (at.ip(), at.port()));
    socket.ok().or_else(|| Some((text.parse().ok()?, 0)))
}
