//! What a capture makes a pipeline tell: EVE records in a file, in the order in which things happened.
//!
//! Rings are read after each packet, so that none is lost, and times are the capture's. Flows that live at the end are told as `shutdown`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use super::super::Failure;
use crate::app::{Snapshot, stats};
use crate::config::Plan;
use crate::event::{Emitter, Eve, EventCounters, Lines, Moment, Rings, Said, Stats, Type, Types, emitters};
use crate::flow::FlowEvent;
use crate::path::Pipeline;

/// The file, and what is on its way to it.
pub struct Told {
    rings: Rings,
    lines: Lines,
    name: String,
    file: BufWriter<File>,
    types: Types,
    /// The last packet's time.
    now: u64,
    failed: Option<std::io::Error>,
}

impl Told {
    /// A file for the records of a plan's only worker, and where that puts its events.
    pub fn new(
        plan: &Plan,
        pipeline: &Pipeline,
        path: &Path,
        counters: Arc<EventCounters>,
    ) -> Result<(Self, Emitter), Failure> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|error| Failure::Other(format!("{name}: {error}")))?;
        let mut rings = Rings::default();
        let events = &plan.events;
        let emitter = emitters(events, events.types, plan.reasons.len(), counters, &mut rings);
        let eve = Eve::of(plan).with_signatures(pipeline);
        let told = Told {
            rings,
            lines: Lines::new(eve, events.flow_log.clone()),
            name,
            file: BufWriter::new(file),
            types: events.types,
            now: 0,
            failed: None,
        };
        Ok((told, emitter))
    }

    /// Writes what the last poll, at that time, said beside flows.
    pub fn collect(&mut self, now: u64) {
        self.now = now;
        let mut said = Vec::new();
        while self.rings.take(|event| said.push(event)) {}
        for event in said {
            self.write(&event);
        }
    }

    /// Writes what was said of a flow.
    pub fn flow(&mut self, event: FlowEvent, now: u64) {
        self.now = now;
        let is_start = event.what == crate::flow::What::Start;
        if self.types.has(if is_start { Type::FlowStart } else { Type::Flow }) {
            self.write(&Said::Flow(event));
        }
    }

    fn write(&mut self, said: &Said) {
        let line = self.lines.json(said, Moment::of_capture(self.now));
        if let Err(error) = self.file.write_all(line) {
            self.failed.get_or_insert(error);
        }
    }

    /// The counters at the end, and what is still in memory.
    pub fn finish(mut self, plan: &Plan, snapshot: &Snapshot) -> Result<(), Failure> {
        if self.types.has(Type::Stats) {
            let record = stats(plan, snapshot).record(Stats::capture_time(self.now));
            self.write(&Said::Told(Type::Stats, Box::new(record)));
        }
        let done = self.failed.map_or_else(|| self.file.flush(), Err);
        done.map_err(|error| Failure::Other(format!("{}: {error}", self.name)))
    }
}
