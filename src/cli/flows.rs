//! Flows on the screen and as JSON: what became of all of them, and lists of them.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::show::{self, say};
use crate::app::Snapshot;
use crate::flow::{End, Eve, FlowEvent, FlowSnapshot, LiveFlow, Standing, Tuple, protocol};

/// Counters of flows over all workers.
pub fn totals(snapshot: &Snapshot) -> FlowSnapshot {
    snapshot.workers.iter().fold(FlowSnapshot::default(), |sum, worker| sum.plus(worker.flows))
}

/// What became of flows; nothing where none was followed.
pub fn account(snapshot: &Snapshot) {
    let flows = totals(snapshot);
    let mut table = show::table(&["flows", "number", "meaning"]);
    show::align_right(&mut table, &[1]);
    let mut rows: Vec<(&str, u64, &str)> =
        flows.values().zip(FlowSnapshot::HELP).map(|((name, n), (_, help))| (name, n, *help)).collect();
    rows.push(("live", flows.live(), "Flows that had not ended."));
    rows.retain(|(_, n, _)| *n > 0);
    if rows.is_empty() {
        return;
    }
    for (name, n, help) in rows {
        table.add_row([name, &show::grouped(n), help]);
    }
    say!("{table}");
}

/// The same as JSON; null where none was followed.
pub fn account_json(snapshot: &Snapshot) -> Value {
    let flows = totals(snapshot);
    if flows == FlowSnapshot::default() {
        return Value::Null;
    }
    let mut account = json!(flows);
    account["live"] = flows.live().into();
    account
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    #[serde(skip)]
    pub flow_id: u64,
    #[serde(flatten)]
    pub tuple: Tuple,
    pub tenant: String,
    pub state: &'static str,
    /// Milliseconds from the first flow's begin to this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u32>,
    /// Milliseconds from its first packet to its last.
    pub duration_ms: u32,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub verdict: Standing,
    pub reason: Option<String>,
    pub picked_up: bool,
    /// Why it ended; none: it lives.
    pub ended: Option<End>,
}

impl Row {
    /// A flow as an event tells of it.
    pub fn of_event(event: &FlowEvent, eve: &Eve) -> Self {
        let ended = match event.what {
            crate::flow::What::Start => None,
            crate::flow::What::End(why) => Some(why),
        };
        Row {
            flow_id: event.flow_id(),
            tuple: event.tuple(),
            tenant: eve.tenant(event).to_owned(),
            state: event.state,
            began_ms: None,
            duration_ms: event.seen.wrapping_sub(event.began),
            packets: event.counts.map(|(packets, _)| packets),
            bytes: event.counts.map(|(_, bytes)| bytes),
            verdict: eve.standing(event),
            reason: eve.reason(event).map(str::to_owned),
            picked_up: event.picked_up,
            ended,
        }
    }

    /// A flow that lives.
    pub fn of_live(flow: LiveFlow) -> Self {
        Row {
            flow_id: flow.flow_id,
            tuple: flow.tuple,
            tenant: flow.tenant,
            state: flow.state,
            began_ms: None,
            duration_ms: flow.age_ms.saturating_sub(flow.idle_ms),
            packets: flow.packets,
            bytes: flow.bytes,
            verdict: flow.verdict,
            reason: flow.reason,
            picked_up: flow.picked_up,
            ended: None,
        }
    }
}

/// An address and, where the protocol has it, what tells flows between the same addresses apart.
struct Endpoint(IpAddr, u16, u8);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint(address, port, protocol) = *self;
        match (address, protocol) {
            (IpAddr::V6(_), 6 | 17 | 132) => write!(f, "[{address}]:{port}"),
            (IpAddr::V4(_), 6 | 17 | 132) => write!(f, "{address}:{port}"),
            (_, 1 | 58) => write!(f, "{address} id {port}"),
            _ => write!(f, "{address}"),
        }
    }
}

/// A table of flows. The tenant has a column where there is more than one.
pub fn list(rows: &[Row]) {
    let tenants = rows.iter().any(|row| Some(&row.tenant) != rows.first().map(|first| &first.tenant));
    let began = rows.iter().any(|row| row.began_ms.is_some());
    let mut header =
        vec!["from", "to", "", "state", "packets", "back", "bytes", "back", "lasted", "verdict", "ended"];
    if began {
        header.insert(0, "began");
    }
    if tenants {
        header.push("tenant");
    }
    let mut table = show::table(&header);
    let first = usize::from(began);
    show::align_right(&mut table, &[first + 4, first + 5, first + 6, first + 7, first + 8]);
    if began {
        show::align_right(&mut table, &[0]);
    }
    for row in rows {
        let Tuple { source, destination, source_port, destination_port, protocol: number } = row.tuple;
        let verdict = row.reason.clone().unwrap_or_else(|| row.verdict.word().to_owned());
        let mut cells = vec![
            Endpoint(source, source_port, number).to_string(),
            Endpoint(destination, destination_port, number).to_string(),
            protocol(number).map_or_else(|| number.to_string(), str::to_owned),
            row.state.to_owned() + if row.picked_up && row.state != "picked-up" { ", picked up" } else { "" },
            show::grouped(row.packets[0]),
            show::grouped(row.packets[1]),
            show::grouped(row.bytes[0]),
            show::grouped(row.bytes[1]),
            seconds(row.duration_ms),
            verdict,
            row.ended.map_or("", End::word).to_owned(),
        ];
        if let Some(ms) = row.began_ms {
            cells.insert(0, seconds(ms));
        }
        if tenants {
            cells.push(row.tenant.clone());
        }
        table.add_row(cells);
    }
    say!("{table}");
}

fn seconds(ms: u32) -> String {
    format!("{:.3} s", Duration::from_millis(ms.into()).as_secs_f64())
}
