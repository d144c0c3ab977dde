//! Flow events as JSON, in the shape of Suricata's EVE log.
//!
//! A flow that ended is a record of the type `flow`, with the names and words of Suricata 7 (`output-json-flow.c`,
//! <https://docs.suricata.io/en/suricata-7.0.16/output/eve/eve-json-format.html>), so that what reads those reads ours; a flow that
//! began is a `flow_start`, which Suricata does not have. Ours are the keys `tenant`, `endpoint`, `worker`, `picked_up`, and within
//! `flow` the keys `ended` (the exact word for why), `verdict` and `drop_reason`. Bytes are those of inner packets.
//!
//! Workers give the milliseconds of their clock, which wrap; whoever reads says what time it is ([`Moment`]), on both clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::event::{End, FlowEvent, What};
use super::view::{Names, Standing};
use crate::config::{Plan, endpoint_name};
use crate::path::Clock;

/// What time it is, on the workers' clock and on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds of the workers' clock, wrapping.
    pub clock: u32,
    /// The same moment, since 1970.
    pub wall: Duration,
}

impl Moment {
    /// Now.
    pub fn now(clock: &Clock) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { clock: (clock.now() / 1_000_000) as u32, wall }
    }

    /// When the worker's clock showed this, at most 49 days ago.
    fn wall(&self, at: u32) -> SystemTime {
        let before = self.clock.wrapping_sub(at);
        // An event may be a little younger than our look at the clock.
        let wall = match before.cast_signed() {
            ahead @ -60_000..0 => self.wall + Duration::from_millis(u64::from(ahead.unsigned_abs())),
            _ => self.wall.saturating_sub(Duration::from_millis(before.into())),
        };
        UNIX_EPOCH + wall
    }
}

/// Makes records of events.
#[derive(Debug)]
pub struct Eve {
    names: Names,
}

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
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
    alerted: bool,
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

/// `2026-11-23T08:46:53.123000+0000`.
#[derive(Clone, Copy, Debug)]
struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = humantime::format_rfc3339_micros(self.0).to_string();
        to.collect_str(&format_args!("{}+0000", text.trim_end_matches('Z')))
    }
}

/// The word, or three digits.
#[derive(Clone, Copy, Debug)]
struct Protocol(u8);

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match protocol(self.0) {
            Some(word) => to.serialize_str(word),
            None => to.collect_str(&format_args!("{:03}", self.0)),
        }
    }
}

/// The word for a protocol, as Suricata writes it.
pub fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "ICMP",
        2 => "IGMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "IPv6-ICMP",
        132 => "SCTP",
        _ => return None,
    })
}

impl Eve {
    /// For the events of this plan's workers.
    pub fn of(plan: &Plan) -> Self {
        Eve { names: Names::of(plan) }
    }

    /// The flow's endpoint, unless the scope is a tenant's.
    pub fn endpoint(&self, event: &FlowEvent) -> Option<String> {
        self.names.endpoint(&event.key).map(endpoint_name)
    }

    /// Name of the flow's tenant.
    pub fn tenant(&self, event: &FlowEvent) -> &str {
        self.names.tenant(event.tenant)
    }

    /// Why the flow's packets are dropped, if they are.
    pub fn reason(&self, event: &FlowEvent) -> Option<&str> {
        event.condemned.map(|id| self.names.reason(id))
    }

    /// What the stages have made of the flow.
    pub fn standing(&self, event: &FlowEvent) -> Standing {
        self.names.standing(event.condemned.is_some(), event.settled)
    }

    /// The record of an event.
    pub fn record(&self, event: &FlowEvent, now: Moment) -> Record<'_> {
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
            alerted: false,
            action: event.condemned.map(|_| "drop"),
            ended,
            verdict: self.standing(event),
            drop_reason: self.reason(event),
        };
        Record {
            timestamp: Time(now.wall(event.at)),
            flow_id: event.flow_id(),
            event_type: if ended.is_some() { "flow" } else { "flow_start" },
            src_ip: tuple.source,
            src_port: ports.then_some(tuple.source_port),
            dest_ip: tuple.destination,
            dest_port: ports.then_some(tuple.destination_port),
            proto: Protocol(tuple.protocol),
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

#[cfg(all(test, not(loom)))]
mod tests;
