//! How streams are read, for people and programs.

use std::fmt;

use serde_json::{Value, json};

use super::row;
use crate::config::flow::span;
use crate::config::{Conflict, Overlap, StreamPlan, Urgent};

impl StreamPlan {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, workers: usize) -> fmt::Result {
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(f, "\nstreams: {} MB beside the EAL's memory", mb(self.memory * workers as u64))?;
        let (flow, tenant) = (self.per_flow >> 10, mb(self.per_tenant()));
        row(f, "worker", format!("{} MB; a flow at most {flow} kB, a tenant {tenant} MB", mb(self.memory)))?;
        row(f, "read", format!("the first {} kB of each direction", self.depth >> 10))?;
        let counts = match self.overlap {
            Overlap::First => "first",
            Overlap::Last => "last",
        };
        let differs = match self.conflict {
            Conflict::Drop => "dropped",
            Conflict::Pass => "counted",
        };
        let kept = if self.compare { "until acknowledged" } else { "while they wait" };
        row(
            f,
            "sent twice",
            format!("the {counts} copy counts, one that differs is {differs}; compared {kept}"),
        )?;
        let urgent = match self.urgent {
            Urgent::Inline => "made plain",
            Urgent::Unread => "cannot be read",
            Urgent::Pass => "passes",
        };
        row(f, "urgent", urgent.to_owned())?;
        row(
            f,
            "missing",
            format!("waited for {}; {} once acknowledged", span(self.wait), span(self.gap_time)),
        )?;
        row(f, "held", format!("{} frames of each worker for {}", self.hold, span(self.hold_time)))
    }

    /// As data. Names are those of the configuration file.
    pub(in crate::config) fn to_json(&self) -> Value {
        json!({
            "memory_mb": self.memory >> 20,
            "flow_kb": self.per_flow >> 10,
            "tenant_percent": self.tenant_percent,
            "depth_kb": self.depth >> 10,
            "overlap": self.overlap,
            "conflict": self.conflict,
            "compare": self.compare,
            "urgent": self.urgent,
            "wait": span(self.wait),
            "gap_time": span(self.gap_time),
            "hold": self.hold,
            "hold_time": span(self.hold_time),
        })
    }
}
