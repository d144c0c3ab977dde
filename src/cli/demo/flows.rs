//! What the demo says of flows, with `--flows`.

use serde_json::json;

use super::super::flows::{self, Row};
use super::super::show::{self, say};
use crate::app::{RunningApp, Snapshot};
use crate::flow::{Count, Filter, FlowView, LiveFlow};

/// Flows in the list at the end.
const TOP: usize = 10;

/// A line for the live table.
pub fn line(now: &Snapshot) -> String {
    let flows = flows::totals(now);
    let refused = flows.refused_full + flows.refused_rate + flows.refused_crowded;
    let [live, opened, established, refreshed, refused] =
        [flows.live(), flows.opened, flows.established, flows.refreshed, refused].map(show::grouped);
    format!(
        "flows {live} live, {opened} opened, {established} established, {refreshed} refreshed, {refused} refused"
    )
}

/// The flows that had carried most when the traffic ended, and how many there were.
pub struct Top {
    count: Count,
    flows: Vec<LiveFlow>,
}

impl Top {
    /// `None` if no flow is followed.
    pub fn of(app: &RunningApp) -> Option<Self> {
        let view = app.flows()?;
        Some(Top { count: view.count(&Filter::default()), flows: largest(view, TOP) })
    }

    pub fn show(self, json: bool) {
        if json {
            say!("{}", json!({ "event": "flows", "count": self.count, "largest": self.flows }));
            return;
        }
        let Top { count, flows } = self;
        let rows: Vec<Row> = flows.into_iter().map(Row::of_live).collect();
        say!("\n{} flows, {}; those that carried most:", show::grouped(count.flows), words(&count));
        flows::list(&rows);
    }
}

/// By state, and by what became of them.
fn words(count: &Count) -> String {
    let states = count.states.iter().map(|(state, n)| format!("{} {state}", show::grouped(*n)));
    let verdicts =
        count.verdicts.iter().map(|(verdict, n)| format!("{} {}", show::grouped(*n), verdict.word()));
    states.chain(verdicts).collect::<Vec<_>>().join(", ")
}

/// By bytes of both directions; of equal ones the first.
fn largest(view: &FlowView, most: usize) -> Vec<LiveFlow> {
    let all = Filter::default();
    let mut largest: Vec<LiveFlow> = Vec::with_capacity(most + 1);
    for flow in view.iter(&all) {
        let place = largest.partition_point(|other| bytes(other) >= bytes(&flow));
        if place < most {
            largest.insert(place, flow);
            largest.truncate(most);
        }
    }
    largest
}

fn bytes(flow: &LiveFlow) -> u64 {
    flow.bytes.iter().sum()
}
