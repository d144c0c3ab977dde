//! The rings between workers and the writer.

use std::sync::Arc;

use serde_json::Value;

use super::emit::{Emitter, EventCounters};
use super::kind::{TYPES, Type, Types};
use super::record::Event;
use crate::config::EventsPlan;
use crate::flow::FlowEvent;

/// Events that one look takes out of a ring, at most: no ring is left waiting while another one is emptied.
const AT_A_TIME: usize = 512;

/// Something that was said.
#[derive(Debug)]
pub enum Said {
    /// A flow began or ended.
    Flow(FlowEvent),
    /// Anything else that a worker tells.
    Event(Event),
    /// Counters.
    Told(Type, Box<Value>),
}

/// The reading ends, of all workers.
#[derive(Debug, Default)]
pub struct Rings {
    /// Of flow events, one for each worker.
    pub flows: Vec<rtrb::Consumer<FlowEvent>>,
    /// Of all others, one for each worker and type.
    pub events: Vec<rtrb::Consumer<Event>>,
}

impl Rings {
    /// Takes what is there, a bounded number from each ring. False if there was nothing.
    pub fn take(&mut self, mut each: impl FnMut(Said)) -> bool {
        let mut found = false;
        for ring in &mut self.flows {
            for event in std::iter::from_fn(|| ring.pop().ok()).take(AT_A_TIME) {
                found = true;
                each(Said::Flow(event));
            }
        }
        for ring in &mut self.events {
            for event in std::iter::from_fn(|| ring.pop().ok()).take(AT_A_TIME) {
                found = true;
                each(Said::Event(event));
            }
        }
        found
    }
}

/// A worker's emitter, with a ring for each type that is wanted; the reading ends go to `rings`.
pub fn emitters(
    plan: &EventsPlan,
    wanted: Types,
    reasons: usize,
    counters: Arc<EventCounters>,
    rings: &mut Rings,
) -> Emitter {
    let mut writing: [Option<rtrb::Producer<Event>>; TYPES] = Default::default();
    for kind in Type::IN_RINGS.iter().filter(|kind| wanted.has(**kind)) {
        let (writer, reader) = rtrb::RingBuffer::new(plan.ring as usize);
        if let Some(place) = writing.get_mut(*kind as usize) {
            *place = Some(writer);
            rings.events.push(reader);
        }
    }
    Emitter::new(plan, reasons, writing, counters)
}
