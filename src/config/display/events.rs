//! `[events]` in words and as data.

use std::fmt;

use serde_json::{Value, json};

use super::row;
use crate::config::flow::span;
use crate::config::{EventsPlan, Format, ReportPlan, SinkPlan, To};
use crate::event::{Event, Type, Types};
use crate::flow::FlowEvent;
use crate::packet::ReasonTable;

impl EventsPlan {
    /// Bytes of one worker's rings.
    fn ring_bytes(&self, flows: u32) -> u64 {
        let wanted = self.rings();
        let rings = Type::IN_RINGS.iter().filter(|kind| wanted.has(**kind)).count() as u64;
        let told = wanted.has(Type::Flow) || wanted.has(Type::FlowStart);
        rings * u64::from(self.ring) * size_of::<Event>() as u64
            + u64::from(told) * u64::from(flows) * size_of::<FlowEvent>() as u64
    }

    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, flow_ring: u32) -> fmt::Result {
        if self.rings().is_empty() {
            return Ok(());
        }
        let told = if self.sinks.is_empty() { "to those who follow".into() } else { words(self.wanted()) };
        writeln!(f, "\nevents: {told}")?;
        let follow = if self.follow.is_empty() { "nothing".into() } else { words(self.follow) };
        row(f, "follow", format!("{follow}; made only while somebody does"))?;
        if self.sinks.is_empty() {
            return Ok(());
        }
        let kb = self.ring_bytes(flow_ring).div_ceil(1 << 10);
        row(f, "rings", format!("{} events of a type, up to {kb} KB for each worker in all", self.ring))?;
        for (name, report) in [("drops", &self.drop), ("anomalies", &self.anomaly)] {
            let ReportPlan { reasons, per_s } = report;
            let n = reasons.len();
            row(f, name, format!("of {n} reasons, {per_s} of each a second and worker"))?;
        }
        row(f, "stats", format!("every {}", span(self.stats_every)))?;
        for sink in &self.sinks {
            row(f, &sink.name, describe(sink))?;
        }
        Ok(())
    }

    pub(super) fn to_json(&self, reasons: &ReasonTable) -> Value {
        let report = |plan: &ReportPlan| {
            let labels: Vec<&str> = plan.reasons.iter().map(|id| reasons.label(*id)).collect();
            json!({ "reasons": labels, "per_s": plan.per_s })
        };
        let sink = |sink: &SinkPlan| {
            let (to, path, rotation) = match &sink.to {
                To::File { path, rotation } => ("file", Some(path), Some(rotation)),
                To::Stdout => ("stdout", None, None),
                To::Unix { path } => ("unix", Some(path), None),
            };
            json!({
                "name": sink.name, "to": to, "path": path, "format": sink.format,
                "types": sink.types.iter().map(Type::word).collect::<Vec<_>>(),
                "rotate_mb": rotation.and_then(|r| r.size).map(|bytes| bytes >> 20),
                "rotate_every": rotation.and_then(|r| r.age).map(span),
                "keep": rotation.map(|r| r.keep),
            })
        };
        json!({
            "types": self.types.iter().map(Type::word).collect::<Vec<_>>(),
            "follow": self.follow.iter().map(Type::word).collect::<Vec<_>>(),
            "ring": self.ring,
            "stats_every": span(self.stats_every),
            "drop": report(&self.drop),
            "anomaly": report(&self.anomaly),
            "account": self.flow_log.account,
            "sink": self.sinks.iter().map(sink).collect::<Vec<_>>(),
        })
    }
}

fn words(types: Types) -> String {
    types.iter().map(Type::word).collect::<Vec<_>>().join(", ")
}

fn describe(sink: &SinkPlan) -> String {
    let format = match sink.format {
        Format::Eve => "",
        Format::VpcFlowLog => ", as VPC flow log",
    };
    let to = match &sink.to {
        To::Stdout => "standard output".to_owned(),
        To::Unix { path } => format!("socket {}", path.display()),
        To::File { path, rotation } => {
            let size = rotation.size.map(|bytes| format!("{} MB", bytes >> 20));
            let age = rotation.age.map(span);
            let when: Vec<String> = size.into_iter().chain(age).collect();
            format!("file {}, a new one after {}, {} kept", path.display(), when.join(" or "), rotation.keep)
        }
    };
    format!("{to}: {}{format}", words(sink.types))
}
