//! Flows on the screen and as JSON: what became of all of them, and lists of them.

mod live;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

pub use live::Flows;

use super::show::{self, say};
use crate::app::Snapshot;
use crate::config::endpoint_name;
use crate::event::{Eve, protocol};
use crate::flow::{End, FlowEvent, FlowSnapshot, LiveFlow, Standing, Tuple};

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
    // How busy ageing was says nothing of flows.
    rows.retain(|(name, n, _)| *n > 0 && *name != "swept");
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
    /// Where its addresses mean something; none if that is a tenant.
    pub endpoint: Option<String>,
    pub tenant: String,
    pub state: &'static str,
    /// Milliseconds from the first flow's begin to this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u32>,
    /// Milliseconds from its first packet to its last.
    pub duration_ms: u32,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// What it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_proto: Option<&'static str>,
    /// What it spoke before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_proto_orig: Option<&'static str>,
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
            endpoint: eve.endpoint(event),
            tenant: eve.tenant(event).to_owned(),
            state: event.state,
            began_ms: None,
            duration_ms: event.seen.wrapping_sub(event.began),
            packets: event.counts.map(|(packets, _)| packets),
            bytes: event.counts.map(|(_, bytes)| bytes),
            app_proto: event.spoken.words().0,
            app_proto_orig: event.spoken.words().1,
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
            endpoint: flow.endpoint.map(endpoint_name),
            tenant: flow.tenant,
            state: flow.state,
            began_ms: None,
            duration_ms: flow.age_ms.saturating_sub(flow.idle_ms),
            packets: flow.packets,
            bytes: flow.bytes,
            app_proto: flow.app_proto,
            app_proto_orig: flow.app_proto_orig,
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

/// Header, cell, and whether it is a figure.
type Column = (&'static str, fn(&Row) -> String, bool);

/// A table of flows. What is the same for all of them has no column: endpoint, tenant, that they live.
pub fn list(rows: &[Row]) {
    let mut columns: Vec<Column> = vec![
        ("began", |row| row.began_ms.map_or_else(String::new, seconds), true),
        (
            "from",
            |row| Endpoint(row.tuple.source, row.tuple.source_port, row.tuple.protocol).to_string(),
            false,
        ),
        (
            "to",
            |row| Endpoint(row.tuple.destination, row.tuple.destination_port, row.tuple.protocol).to_string(),
            false,
        ),
        (
            "",
            |row| protocol(row.tuple.protocol).map_or_else(|| row.tuple.protocol.to_string(), str::to_owned),
            false,
        ),
        ("speaks", speaks, false),
        ("state", state, false),
        ("packets", |row| show::grouped(row.packets[0]), true),
        ("back", |row| show::grouped(row.packets[1]), true),
        ("bytes", |row| show::grouped(row.bytes[0]), true),
        ("back", |row| show::grouped(row.bytes[1]), true),
        ("lasted", |row| seconds(row.duration_ms), true),
        ("verdict", |row| row.reason.clone().unwrap_or_else(|| row.verdict.word().to_owned()), false),
        ("ended", |row| row.ended.map_or("", End::word).to_owned(), false),
        ("endpoint", |row| row.endpoint.clone().unwrap_or_default(), false),
        ("tenant", |row| row.tenant.clone(), false),
    ];
    let differ = |of: fn(&Row) -> String| rows.iter().skip(1).any(|row| of(row) != of(&rows[0]));
    columns.retain(|(name, of, _)| match *name {
        "began" | "ended" | "speaks" => rows.iter().any(|row| !of(row).is_empty()),
        "endpoint" | "tenant" => differ(*of),
        _ => true,
    });
    let mut table = show::table(&columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    let right: Vec<usize> = (0..columns.len()).filter(|&n| columns[n].2).collect();
    show::align_right(&mut table, &right);
    for row in rows {
        table.add_row(columns.iter().map(|(_, of, _)| of(row)));
    }
    say!("{table}");
}

/// `smtp, tls`: what it was, and what it is.
fn speaks(row: &Row) -> String {
    [row.app_proto_orig, row.app_proto].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn state(row: &Row) -> String {
    let more = if row.picked_up && row.state != "picked-up" { ", picked up" } else { "" };
    format!("{}{more}", row.state)
}

fn seconds(ms: u32) -> String {
    format!("{:.3} s", Duration::from_millis(ms.into()).as_secs_f64())
}
