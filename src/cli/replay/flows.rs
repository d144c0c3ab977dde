//! Which flows a capture holds, those that ended on the way included.
//!
//! They are listed in the order in which they began. What began and ended is known from events, which are read after each packet, so that
//! none is lost; what lives at the end is read from the table.

use std::collections::HashMap;

use super::super::flows::Row;
use crate::config::Plan;
use crate::event::Eve;
use crate::flow::{Filter, FlowEvent, FlowView, Flows, What};
use crate::path::Clock;

/// Everything that is said of flows.
pub struct Seen {
    view: FlowView,
    eve: Eve,
    rows: Vec<Row>,
    /// Rows of flows that live.
    places: HashMap<u64, usize>,
    /// When the first of them began, on the worker's clock.
    first: Option<u32>,
}

impl Seen {
    /// Listens to the flows of a plan's only worker.
    pub fn new(plan: &Plan, flows: &mut Flows, clock: Clock) -> Self {
        let view = FlowView::new(plan, vec![flows.show()], clock);
        Seen { view, eve: Eve::of(plan), rows: Vec::new(), places: HashMap::new(), first: None }
    }

    /// Hears of a flow.
    pub fn hear(&mut self, event: &FlowEvent) {
        let began = event.began.wrapping_sub(*self.first.get_or_insert(event.began));
        let row = Row { began_ms: Some(began), ..Row::of_event(event, &self.eve) };
        match event.what {
            What::Start => {
                self.places.insert(row.flow_id, self.rows.len());
                self.rows.push(row);
            }
            What::End(_) => self.update(row, true),
        }
    }

    /// All flows.
    pub fn finish(mut self) -> Vec<Row> {
        let view = self.view.clone();
        for flow in view.iter(&Filter::default()) {
            self.update(Row::of_live(flow), false);
        }
        self.rows
    }

    fn update(&mut self, row: Row, ended: bool) {
        let place =
            if ended { self.places.remove(&row.flow_id) } else { self.places.get(&row.flow_id).copied() };
        if let Some(old) = place.and_then(|place| self.rows.get_mut(place)) {
            let began_ms = old.began_ms;
            *old = Row { began_ms, ..row };
        }
    }
}
