//! The record of a flow.

use serde::Serialize;

use super::{Eve, Moment, Protocol, Time};
use crate::flow::{End, FlowEvent, Standing, What};

/// A flow began or ended.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRecord<'a> {
    timestamp: Time,
    flow_id: u64,
    event_type: &'static str,
    src_ip: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    dest_ip: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    proto: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_proto: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_proto_orig: Option<&'static str>,
    flow: Flow<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    worker: u16,
    picked_up: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Flow<'a> {
    pkts_toserver: u64,
    pkts_toclient: u64,
    bytes_toserver: u64,
    bytes_toclient: u64,
    start: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<End>,
    verdict: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_reason: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize)]
struct Tcp {
    state: &'static str,
}

impl Eve {
    /// The record of a flow's event.
    pub fn flow(&self, event: &FlowEvent, now: Moment) -> FlowRecord<'_> {
        let tuple = event.tuple();
        let ended = match event.what {
            What::Start => None,
            What::End(why) => Some(why),
        };
        let [(packets, bytes), (packets_back, bytes_back)] = event.counts;
        let ports = matches!(tuple.protocol, 6 | 17 | 132);
        let flow = Flow {
            pkts_toserver: packets,
            pkts_toclient: packets_back,
            bytes_toserver: bytes,
            bytes_toclient: bytes_back,
            start: Time(now.wall(event.began)),
            end: ended.map(|_| Time(now.wall(event.seen))),
            age: ended.map(|_| u64::from(event.seen.wrapping_sub(event.began)) / 1000),
            state: state(event.state),
            reason: ended.map(reason),
            action: event.condemned.map(|_| "drop"),
            ended,
            verdict: self.standing(event),
            drop_reason: self.reason(event),
        };
        let (app_proto, app_proto_orig) = event.spoken.words();
        FlowRecord {
            timestamp: Time(now.wall(event.at)),
            flow_id: event.flow_id(),
            event_type: if ended.is_some() { "flow" } else { "flow_start" },
            src_ip: tuple.source,
            src_port: ports.then_some(tuple.source_port),
            dest_ip: tuple.destination,
            dest_port: ports.then_some(tuple.destination_port),
            proto: Protocol(tuple.protocol),
            app_proto,
            app_proto_orig,
            flow,
            tcp: (tuple.protocol == 6).then(|| Tcp { state: tcp_state(event.state) }),
            tenant: self.tenant(event),
            endpoint: self.endpoint(event),
            worker: event.worker.0,
            picked_up: event.picked_up,
        }
    }
}

/// Suricata has three words.
fn state(ours: &str) -> &'static str {
    match ours {
        "syn-sent" | "syn-received" | "picked-up" | "first" => "new",
        "fin-sent" | "closing" | "time-wait" | "reset" => "closed",
        _ => "established",
    }
}

/// Suricata's word for the state of a connection, where we know as much.
fn tcp_state(ours: &'static str) -> &'static str {
    match ours {
        "syn-sent" => "syn_sent",
        "syn-received" => "syn_recv",
        "fin-sent" => "fin_wait1",
        "closing" => "closing",
        "time-wait" => "time_wait",
        "reset" => "closed",
        "picked-up" | "established" => "established",
        _ => "none",
    }
}

/// And four for this.
fn reason(why: End) -> &'static str {
    match why {
        End::Idle | End::Closed | End::Reset => "timeout",
        End::Replaced => "tcp_reuse",
        End::Evicted | End::Flushed | End::TakenOver => "forced",
        End::Stopped => "shutdown",
    }
}
