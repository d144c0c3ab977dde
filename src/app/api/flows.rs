//! Flows: found, counted, listed, flushed.

use serde_json::json;

use super::Here;
use super::query::Query;
use crate::flow::{Filter, FlowView, Order};
use crate::mgmt::admin::filter::OF_FLOWS;
use crate::mgmt::admin::page;
use crate::mgmt::control::Refusal;
use crate::mgmt::http::Outcome;
use crate::mgmt::server::Reply;

/// Flows in a list, unless somebody wants more or fewer, and the most that he gets.
const USUAL: u64 = 100;
const MOST: u64 = 10_000;

const ORDERS: [(&str, Order); 4] =
    [("bytes", Order::Bytes), ("packets", Order::Packets), ("age", Order::Age), ("idle", Order::Idle)];

/// The view, and the filter of a query.
fn asked<'a>(here: &'a Here, query: &mut Query<'_>) -> Result<(&'a FlowView, Filter), Refusal> {
    let none = "no flow is followed: set flow.tracking = true, or use a stage that asks for flows";
    let view = here.flows.as_ref().ok_or_else(|| Refusal::new("not-found", none))?;
    let filter = query.filter(OF_FLOWS)?;
    let filter =
        filter.of_flows(|name| view.tenant(name)).map_err(|text| Refusal::new("bad-request", text))?;
    Ok((view, filter))
}

/// The answer to `/v1/flows`.
pub(super) fn list(here: &Here, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let (view, filter) = asked(here, &mut query)?;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(USUAL) as usize;
    let order = query.word("sort", &ORDERS)?;
    query.done()?;
    let (picture, all) = view.top(limit, &filter, order);
    Ok(page(Outcome::Fit, true, json!({ "flows": picture.flows, "more": picture.more, "matching": all })))
}

/// The answer to `/v1/flows/count`.
pub(super) fn count(here: &Here, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let (view, filter) = asked(here, &mut query)?;
    query.done()?;
    Ok(page(Outcome::Fit, true, json!(view.count(&filter))))
}

/// The answer to `/v1/flows/flush`. An empty filter takes all flows; whoever asks has to say so.
pub(super) fn flush(here: &Here, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let all = query.word("all", &[("true", true), ("false", false)])?.unwrap_or(false);
    let is_all = query.peek("filter").is_none_or(|filter| filter.trim_ascii().is_empty());
    let (view, filter) = asked(here, &mut query)?;
    query.done()?;
    if is_all && !all {
        return Err(Refusal::new("bad-request", "without a filter this ends every flow: say so, all=true"));
    }
    Ok(page(Outcome::Fit, true, json!(view.flush(&filter))))
}
