//! How a plan changes hands: a worker gets its next pipeline through a mailbox with one place, between two polls, and gives back by
//! another what it had before.
//!
//! ```text
//! management --Change: what comes--> [one place] --> worker: swaps, refits flows poll by poll
//!            <--Change: what was---- [one place] <-- when no flow is left of the pipeline before
//! ```
//!
//! Everything is made before it is sent, and dropped after it has come back, on an ordinary thread. The worker looks at one word in each poll,
//! swaps boxes, and allocates and frees nothing. A worker that hangs takes nothing, and nobody waits for it. The places are rings of `rtrb`:
//! nothing here is shared in any other way.

use super::counters::WorkerCounters;
use super::inspect::{Next, Pipeline};
use super::{Decap, Respond, track};
use crate::config::Plan;
use crate::dpdk::{BURST, Mempool};
use crate::event::Reports;
use crate::flow::refit::Refit;
use crate::packet::{NO_RULE, Rules};

/// What turns a worker's pipeline into the next one; when it comes back, what was there before.
pub struct Change {
    pub(super) next: Next,
    pub(super) decap: Decap,
    pub(super) respond: Respond,
    pub(super) terms: track::Terms,
    pub(super) refit: Option<Box<Refit>>,
    /// Where rules are noted, while a candidate is compared with.
    pub(super) rules: Option<Box<Rules>>,
}

impl Change {
    /// From the pipeline that a worker has to the one of `plan`. `counters` are the worker's. Takes as long as the new stages take to be
    /// made, and memory for what they keep of flows.
    pub fn new(
        before: &Pipeline,
        after: &Pipeline,
        plan: &Plan,
        pool: &Mempool,
        counters: &WorkerCounters,
    ) -> Self {
        let reports = Reports::of(&plan.events, plan.reasons.len(), plan.events.rings());
        Change {
            next: after.follow(before, reports, counters),
            decap: Decap::new(plan.tunnel.clone()),
            respond: Respond::of(plan, pool),
            terms: track::Terms::of(plan).beside(after.candidate().is_some()),
            rules: after.candidate().map(|_| Box::new([NO_RULE; BURST])),
            refit: plan.flow.tracking.then(|| Box::new(after.refit(before))),
        }
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Change")
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Mail {
    next: rtrb::Consumer<Box<Change>>,
    back: rtrb::Producer<Box<Change>>,
    /// In force, while flows are refitted.
    under_way: Option<Box<Change>>,
}

/// The management side's end.
#[derive(Debug)]
pub struct MailEnd {
    next: rtrb::Producer<Box<Change>>,
    back: rtrb::Consumer<Box<Change>>,
}

/// One worker's mailbox.
pub fn mailbox() -> (Mail, MailEnd) {
    let ((next, taken), (back, came)) = (rtrb::RingBuffer::new(1), rtrb::RingBuffer::new(1));
    (Mail { next: taken, back, under_way: None }, MailEnd { next, back: came })
}

impl MailEnd {
    /// Sends a change; it comes back if the one before has not been taken. One at a time: what the worker gives back ([`Self::take_back`]) comes first.
    pub fn send(&mut self, change: Box<Change>) -> Result<(), Box<Change>> {
        self.next.push(change).map_err(|rtrb::PushError::Full(change)| change)
    }

    /// What the worker had before the change, once it has taken it and all of its flows are refitted.
    pub fn take_back(&mut self) -> Option<Box<Change>> {
        self.back.pop().ok()
    }
}

impl Mail {
    /// Is there a change to begin or to go on with?
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        self.under_way.is_some() || !self.next.is_empty()
    }

    /// A change to begin.
    pub(super) fn begin(&mut self) -> Option<Box<Change>> {
        if self.under_way.is_some() { None } else { self.next.pop().ok() }
    }

    /// It has begun.
    pub(super) fn go_on(&mut self, change: Box<Change>) {
        self.under_way = Some(change);
    }

    /// It is through; `refit` is part of it. There is room: the other side sends nothing before it has taken this.
    pub(super) fn finish(&mut self, refit: Option<Box<Refit>>) {
        if let Some(mut change) = self.under_way.take() {
            change.refit = refit;
            if let Err(rtrb::PushError::Full(change)) = self.back.push(change) {
                self.under_way = Some(change);
            }
        }
    }
}
