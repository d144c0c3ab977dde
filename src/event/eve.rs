//! Events as JSON, in the shape of Suricata's EVE log.
//!
//! A flow that ended is a record of the type `flow`, with the names and words of Suricata 7 (`output-json-flow.c`,
//! <https://docs.suricata.io/en/suricata-7.0.16/output/eve/eve-json-format.html>), so that what reads those reads ours; a flow that
//! began is a `flow_start`, which Suricata does not have. Ours are the keys `tenant`, `endpoint`, `worker`, `picked_up`, and within
//! `flow` the keys `ended` (the exact word for why), `verdict` and `drop_reason`. Bytes are those of inner packets.
//!
//! Of other types the keys on top are Suricata's, and `tenant`, `endpoint`, `worker`, `stage` and `outer` ours; ends are the originator's
//! first where the flow is known, and `direction` says how the packet travelled. What a type has below its own key is in docs/events.md.
//!
//! Workers give the time of their clock (flows in milliseconds, which wrap); whoever reads says what time it is ([`Moment`]), on both clocks.

mod flow;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::follow::Subject;
use super::kind::Type;
use super::record::{About, Alert, Anomaly, Body, Drop, Event, Signature, WouldDrop};
use super::rings::Said;
use super::vpc::{Direction, FlowLog};
use crate::config::{Plan, endpoint_name};
use crate::flow::{FlowEvent, Names, Standing};
use crate::path::{Clock, Pipeline};
pub use flow::FlowRecord;

/// What time it is, on the workers' clock and on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds of the workers' clock.
    pub clock: u64,
    /// The same moment, since 1970.
    pub wall: Duration,
}

impl Moment {
    /// Now.
    pub fn now(clock: &Clock) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { clock: clock.now(), wall }
    }

    /// The moment of a capture, whose clock shows the wall's time.
    pub fn of_capture(nanos: u64) -> Self {
        Moment { clock: nanos, wall: Duration::from_nanos(nanos) }
    }

    /// When the worker's clock showed these milliseconds, at most 49 days ago.
    pub(super) fn wall(&self, at: u32) -> SystemTime {
        let before = ((self.clock / 1_000_000) as u32).wrapping_sub(at);
        // An event may be a little younger than our look at the clock.
        let wall = match before.cast_signed() {
            ahead @ -60_000..0 => self.wall + Duration::from_millis(u64::from(ahead.unsigned_abs())),
            _ => self.wall.saturating_sub(Duration::from_millis(before.into())),
        };
        UNIX_EPOCH + wall
    }

    /// When the worker's clock showed these nanoseconds.
    pub(crate) fn wall_of(&self, at: u64) -> SystemTime {
        let wall = match self.clock.checked_sub(at) {
            Some(before) => self.wall.saturating_sub(Duration::from_nanos(before)),
            None => self.wall + Duration::from_nanos(at - self.clock),
        };
        UNIX_EPOCH + wall
    }
}

/// Makes records of events.
#[derive(Debug)]
pub struct Eve {
    names: Names,
    /// Name of each stage, and what its rules are called.
    stages: Vec<(String, Vec<Signature>)>,
}

/// What numbers stand for after a reload.
#[derive(Debug)]
pub(crate) struct Renamed {
    pub names: Names,
    /// Number, name and rules of each stage.
    pub stages: Vec<(u8, String, Vec<Signature>)>,
}

/// `2026-11-23T08:46:53.123000+0000`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = humantime::format_rfc3339_micros(self.0).to_string();
        to.collect_str(&format_args!("{}+0000", text.trim_end_matches('Z')))
    }
}

/// The word, or three digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol(u8);

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

/// The number of a protocol as [`Protocol`] writes it.
fn numbered(word: &str) -> Option<u8> {
    (0..=u8::MAX).find(|number| protocol(*number) == Some(word)).or_else(|| word.parse().ok())
}

impl Eve {
    /// For the events of this plan's workers.
    pub fn of(plan: &Plan) -> Self {
        let stages = plan.stages.iter().map(|stage| (stage.name.clone(), Vec::new())).collect();
        Eve { names: Names::of(plan), stages }
    }

    /// The same, knowing what the rules of these stages are called.
    #[must_use]
    pub fn with_signatures(mut self, pipeline: &Pipeline) -> Self {
        for ((_, signatures), (_, shared)) in self.stages.iter_mut().zip(pipeline.stages()) {
            *signatures = shared.signatures();
        }
        self
    }

    /// Takes over the names of another plan. Numbers of stages that are no more keep theirs: there may be events of them on their way.
    pub(crate) fn rename(&mut self, Renamed { names, stages }: Renamed) {
        self.names = names;
        for (number, name, signatures) in stages {
            let number = usize::from(number);
            if self.stages.len() <= number {
                self.stages.resize_with(number + 1, Default::default);
            }
            if let Some(stage) = self.stages.get_mut(number) {
                *stage = (name, signatures);
            }
        }
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

    /// The record of any other event.
    pub fn record<'a>(&'a self, event: &'a Event, now: Moment) -> Record<'a> {
        Record { eve: self, event, time: now.wall_of(event.at) }
    }

    /// What is known of something that was said, for who chooses.
    pub(super) fn subject<'a>(&'a self, said: &'a Said, kind: Type) -> Subject<'a> {
        match said {
            Said::Flow(event) => {
                let tuple = event.tuple();
                let ends = [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)];
                Subject {
                    kind,
                    ends: Some(ends),
                    protocol: Some(tuple.protocol),
                    tenant: Some(self.tenant(event)),
                    endpoint: self.names.endpoint(&event.key),
                    stage: None,
                    reason: self.reason(event),
                }
            }
            Said::Event(event) => {
                let about = &event.about;
                let name = |number: usize| self.stages.get(number).map(|(name, _)| name.as_str());
                let reason = match &event.body {
                    Body::Drop(drop) => Some(drop.reason),
                    Body::Anomaly(anomaly) => anomaly.reason,
                    Body::WouldDrop(would) => Some(would.reason),
                    _ => None,
                };
                Subject {
                    kind,
                    ends: about.ends().map(|ends| ends.map(|(address, port)| (address, port.unwrap_or(0)))),
                    protocol: about.protocol(),
                    tenant: about.tenant().map(|number| self.names.tenant(number)),
                    endpoint: about.endpoint(),
                    stage: about.stage().and_then(name),
                    reason: reason.map(|id| self.names.reason(id)),
                }
            }
            Said::Told(_, record) => told(record, kind),
        }
    }

    /// The lines of a flow log: one for each direction that had packets.
    pub(super) fn flow_log(&self, log: &FlowLog, event: &FlowEvent, now: Moment, out: &mut String) {
        let (tuple, times) = (event.tuple(), (now.wall(event.began), now.wall(event.seen)));
        let endpoint = self.endpoint(event);
        let interface = endpoint.as_deref().unwrap_or_else(|| self.tenant(event));
        for (tuple, (packets, bytes)) in [tuple, tuple.reversed()].into_iter().zip(event.counts) {
            if packets == 0 {
                continue;
            }
            let direction = Direction {
                source: tuple.source,
                destination: tuple.destination,
                ports: (tuple.source_port, tuple.destination_port),
                protocol: tuple.protocol,
                packets,
                bytes,
            };
            log.line(interface, &direction, times, event.condemned.is_none(), out);
        }
    }

    fn signature(&self, about: &About, alert: &Alert) -> Option<&Signature> {
        let (_, signatures) = self.stages.get(about.stage()?)?;
        signatures.get(alert.rule as usize)
    }
}

/// The same of a record that the management side has made: those of a candidate's differences are of packets.
fn told(record: &serde_json::Value, kind: Type) -> Subject<'_> {
    let end = |address: &str, port: &str| {
        let address = record.get(address)?.as_str()?.parse().ok()?;
        Some((address, record.get(port).and_then(serde_json::Value::as_u64).unwrap_or(0) as u16))
    };
    let word = |key: &str| record.get(key).and_then(serde_json::Value::as_str);
    let ends = end("src_ip", "src_port").zip(end("dest_ip", "dest_port")).map(|(from, to)| [from, to]);
    Subject {
        kind,
        ends,
        protocol: word("proto").and_then(numbered),
        tenant: word("tenant"),
        endpoint: word("endpoint").and_then(|text| crate::config::endpoint_of(text).ok()),
        stage: None,
        reason: None,
    }
}

/// One line of the log, of any type but flows and stats.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    eve: &'a Eve,
    event: &'a Event,
    time: SystemTime,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Record { eve, event, time } = *self;
        let about = &event.about;
        let mut map = to.serialize_map(None)?;
        let kind = event.body.kind().word();
        map.serialize_entry("timestamp", &Time(time))?;
        if let Some(flow_id) = about.flow_id() {
            map.serialize_entry("flow_id", &flow_id)?;
        }
        map.serialize_entry("event_type", kind)?;
        if let Some(ends) = about.ends() {
            for ((address, port), (ip_key, port_key)) in
                ends.into_iter().zip([("src_ip", "src_port"), ("dest_ip", "dest_port")])
            {
                map.serialize_entry(ip_key, &address)?;
                if let Some(port) = port {
                    map.serialize_entry(port_key, &port)?;
                }
            }
        }
        if let Some(number) = about.protocol() {
            map.serialize_entry("proto", &Protocol(number))?;
        }
        if let Some((icmp_type, code)) = about.icmp() {
            map.serialize_entry("icmp_type", &icmp_type)?;
            map.serialize_entry("icmp_code", &code)?;
        }
        if let Some(direction) = about.direction() {
            map.serialize_entry("direction", direction)?;
        }
        let (app_proto, app_proto_orig) = about.spoken().words();
        for (key, word) in [("app_proto", app_proto), ("app_proto_orig", app_proto_orig)] {
            if let Some(word) = word.filter(|_| kind == "alert") {
                map.serialize_entry(key, word)?;
            }
        }
        match &event.body {
            Body::Alert(alert) => map.serialize_entry(kind, &eve.alert(about, alert))?,
            Body::Drop(drop) => map.serialize_entry(kind, &eve.drop(drop))?,
            Body::Anomaly(anomaly) => map.serialize_entry(kind, &eve.anomaly(anomaly))?,
            Body::Tls(tls) => map.serialize_entry(kind, tls)?,
            Body::Http(http) => map.serialize_entry(kind, http)?,
            Body::Dns(dns) => map.serialize_entry(kind, dns)?,
            Body::Ssh(ssh) => map.serialize_entry(kind, ssh)?,
            Body::WouldDrop(WouldDrop { reason, skipped }) => {
                let reason = eve.names.reason(*reason);
                let would = json!({ "difference": "would_drop", "reason": reason, "skipped": skipped });
                map.serialize_entry(kind, &would)?;
            }
        }
        if let Some(tenant) = about.tenant() {
            map.serialize_entry("tenant", eve.names.tenant(tenant))?;
        }
        if let Some(endpoint) = about.endpoint() {
            map.serialize_entry("endpoint", &endpoint_name(endpoint))?;
        }
        if let Some((name, _)) = about.stage().and_then(|stage| eve.stages.get(stage)) {
            map.serialize_entry("stage", name)?;
        }
        map.serialize_entry("worker", &about.worker())?;
        if let Some([(source, from), (destination, to)]) = about.outer() {
            let mut outer = serde_json::Map::new();
            for (key, value) in [
                ("src_ip", Some(json!(source))),
                ("src_port", from.map(|port| json!(port))),
                ("dest_ip", Some(json!(destination))),
                ("dest_port", to.map(|port| json!(port))),
            ] {
                outer.extend(value.map(|value| (key.to_owned(), value)));
            }
            map.serialize_entry("outer", &outer)?;
        }
        map.end()
    }
}

/// The keys on top of a record that say what it is about, for one that is not made by a worker.
pub(crate) fn about_json(about: &About, plan: &Plan) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    let mut put =
        |key: &str, value: Option<serde_json::Value>| map.extend(value.map(|v| (key.to_owned(), v)));
    put("flow_id", about.flow_id().map(|id| json!(id)));
    if let Some([(source, from), (destination, to)]) = about.ends() {
        put("src_ip", Some(json!(source)));
        put("src_port", from.map(|port| json!(port)));
        put("dest_ip", Some(json!(destination)));
        put("dest_port", to.map(|port| json!(port)));
    }
    put("proto", about.protocol().map(|number| json!(Protocol(number))));
    put("direction", about.direction().map(|word| json!(word)));
    let tenant = about.tenant().and_then(|number| plan.flow.tenants.get(usize::from(number)));
    put("tenant", tenant.map(|tenant| json!(tenant.name)));
    put("endpoint", about.endpoint().map(|endpoint| json!(endpoint_name(endpoint))));
    put("worker", Some(json!(about.worker())));
    map.into()
}

impl Eve {
    fn alert(&self, about: &About, alert: &Alert) -> serde_json::Value {
        let action = if alert.blocked { "blocked" } else { "allowed" };
        let Some(known) = self.signature(about, alert) else {
            return json!({ "action": action, "gid": 1, "signature_id": alert.rule + 1, "rev": 1,
                "signature": "", "category": "", "severity": 3 });
        };
        json!({ "action": action, "gid": 1, "signature_id": known.signature_id, "rev": known.rev,
            "signature": known.signature, "category": known.category, "severity": known.severity })
    }

    fn drop(&self, drop: &Drop) -> serde_json::Value {
        let mut out = serde_json::Map::new();
        let mut put = |key: &str, value: serde_json::Value| out.insert(key.to_owned(), value);
        put("len", drop.len.into());
        put("tos", drop.tos.into());
        put("ttl", drop.ttl.into());
        drop.ip_id.map(|ip_id| put("ipid", ip_id.into()));
        if let Some(tcp) = drop.tcp {
            put("tcpseq", tcp.sequence.into());
            put("tcpack", tcp.ack.into());
            put("tcpwin", tcp.window.into());
            for (bit, name) in ["fin", "syn", "rst", "psh", "ack", "urg"].into_iter().enumerate() {
                put(name, (tcp.flags >> bit & 1 != 0).into());
            }
            put("tcpurgp", tcp.urgent.into());
        }
        put("reason", self.names.reason(drop.reason).into());
        put("skipped", drop.skipped.into());
        out.into()
    }

    fn anomaly(&self, anomaly: &Anomaly) -> serde_json::Value {
        let reason = anomaly.reason.map(|reason| self.names.reason(reason));
        let event = if anomaly.event.is_empty() { reason.unwrap_or_default() } else { anomaly.event };
        let mut out = json!({ "type": anomaly.kind.word(), "event": event, "dropped": reason.is_some() });
        if let (true, Some(out)) = (anomaly.skipped > 0, out.as_object_mut()) {
            out.insert("skipped".into(), anomaly.skipped.into());
        }
        out
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
