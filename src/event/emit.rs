//! A worker's side: events into rings, drops and anomalies at a bounded rate.
//!
//! Packet path: nothing here waits, allocates or formats. What finds no room is counted and gone; an owned body goes with it.

use std::sync::Arc;

use super::kind::{Asked, TYPES, Type, Types};
use super::record::{About, Anomaly, AnomalyKind, Body, Drop, Event};
use crate::config::{EventsPlan, ReportPlan};
use crate::packet::{Batch, DropReason, Mask, Meta, ReasonId};
use crate::path::Counter;
use crate::stage::WorkerId;

const SECOND: u64 = 1_000_000_000;
/// What a dropped packet is told as.
const REPORTED: Types = Types::NONE.with(Type::Drop).with(Type::Anomaly);

/// One worker's counters of events: it alone adds, anybody reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EventCounters {
    /// Events that went into a ring, by type.
    pub emitted: [Counter; TYPES],
    /// Events that found their ring full.
    pub lost: [Counter; TYPES],
    /// Events that were not made, because there were many of their kind in that second.
    pub limited: [Counter; TYPES],
}

/// [`EventCounters`] at one moment, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct EventSnapshot {
    pub emitted: [u64; TYPES],
    pub lost: [u64; TYPES],
    pub limited: [u64; TYPES],
}

impl EventCounters {
    /// The values now.
    pub fn snapshot(&self) -> EventSnapshot {
        let values = |counters: &[Counter; TYPES]| counters.each_ref().map(Counter::get);
        EventSnapshot {
            emitted: values(&self.emitted),
            lost: values(&self.lost),
            limited: values(&self.limited),
        }
    }

    #[inline(always)]
    fn add(counters: &[Counter; TYPES], kind: Type) {
        if let Some(counter) = counters.get(kind as usize) {
            counter.add(1);
        }
    }
}

/// Where a worker's events go.
#[derive(Debug, Default)]
pub struct Emitter {
    /// What somebody wants to know; there is a ring for each of these.
    asked: Arc<Asked>,
    rings: [Option<rtrb::Producer<Event>>; TYPES],
    reports: Option<Reports>,
    /// Anomalies of packets that were not dropped for them, by their layer.
    noted: [Limit; 3],
    /// Of each, in a second.
    anomalies: u32,
    counters: Arc<EventCounters>,
}

/// Which drops are told, as what, and how many a second.
#[derive(Debug)]
pub(crate) struct Reports {
    reasons: Box<[Report]>,
    drops: u32,
    anomalies: u32,
}

/// One reason's.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    as_drop: Option<Limit>,
    as_anomaly: Option<(AnomalyKind, &'static str, Limit)>,
}

/// The first few of each second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limit {
    /// The second, on the worker's clock.
    second: u64,
    used: u32,
    skipped: u32,
}

impl Limit {
    /// One more: how many were skipped before it, or `None` if it is skipped as well.
    #[inline(always)]
    pub(crate) fn take(&mut self, now: u64, per_s: u32) -> Option<u32> {
        let second = now / SECOND;
        if second != self.second {
            (self.second, self.used) = (second, 0);
        }
        if self.used >= per_s {
            self.skipped = self.skipped.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.skipped))
    }
}

impl Reports {
    /// Of a plan that has so many reasons, as far as there are rings for the types: those that were `wanted` when the program started.
    pub(crate) fn of(plan: &EventsPlan, reasons: usize, wanted: Types) -> Option<Self> {
        let mut table = vec![Report::default(); reasons].into_boxed_slice();
        let mut each = |kind: Type, plan: &ReportPlan, set: &mut dyn FnMut(&mut Report, ReasonId)| {
            if wanted.has(kind) && plan.per_s > 0 {
                for id in &plan.reasons {
                    if let Some(report) = table.get_mut(usize::from(id.0)) {
                        set(report, *id);
                    }
                }
            }
        };
        each(Type::Drop, &plan.drop, &mut |report, _| report.as_drop = Some(Limit::default()));
        each(Type::Anomaly, &plan.anomaly, &mut |report, id| {
            let reason = DropReason::ALL.iter().find(|reason| ReasonId::from(**reason) == id);
            let kind = match reason {
                Some(DropReason::TcpInvalid | DropReason::Pickup | DropReason::StreamConflict) => {
                    AnomalyKind::Stream
                }
                Some(_) => AnomalyKind::Decode,
                None => AnomalyKind::Applayer,
            };
            report.as_anomaly = Some((kind, reason.map_or("", |reason| reason.label()), Limit::default()));
        });
        let any = table.iter().any(|report| report.as_drop.is_some() || report.as_anomaly.is_some());
        any.then_some(Reports { reasons: table, drops: plan.drop.per_s, anomalies: plan.anomaly.per_s })
    }
}

impl Emitter {
    /// For one worker, with the rings that were made for it. `reasons`: how many drop reasons the plan has.
    pub(super) fn new(
        plan: &EventsPlan,
        reasons: usize,
        rings: [Option<rtrb::Producer<Event>>; TYPES],
        counters: Arc<EventCounters>,
    ) -> Self {
        let is_there = |kind: &Type| rings.get(*kind as usize).is_some_and(Option::is_some);
        let wanted: Types = Type::IN_RINGS.iter().copied().filter(is_there).collect();
        let (noted, anomalies) = (Default::default(), plan.anomaly.per_s);
        let reports = Reports::of(plan, reasons, wanted);
        Emitter { asked: Arc::new(Asked::of(wanted)), rings, reports, noted, anomalies, counters }
    }

    /// The same, where not all that has a ring is wanted at all times.
    #[must_use]
    pub fn asked_by(self, asked: Arc<Asked>) -> Self {
        Emitter { asked, ..self }
    }

    /// Does anybody want events of this type? Whoever would have to allocate for one asks first.
    #[inline(always)]
    pub fn wants(&self, kind: Type) -> bool {
        self.asked.types().has(kind)
    }

    /// Tells of something, if anybody wants to know; of anomalies the first of each layer in a second.
    #[inline(always)]
    pub fn emit(&mut self, at: u64, about: impl FnOnce() -> About, mut body: Body) {
        if self.wants(body.kind()) && self.is_due(at, &mut body) {
            self.push(Event { at, about: about(), body });
        }
    }

    /// Are there not too many of its kind? An anomaly learns how many were skipped before it.
    #[inline(always)]
    fn is_due(&mut self, now: u64, body: &mut Body) -> bool {
        let Body::Anomaly(anomaly) = body else { return true };
        let limit = self.noted.get_mut(anomaly.kind as usize);
        match limit.and_then(|limit| limit.take(now, self.anomalies)) {
            Some(skipped) => {
                anomaly.skipped = skipped;
                true
            }
            None => {
                EventCounters::add(&self.counters.limited, Type::Anomaly);
                false
            }
        }
    }

    /// One of this type was not made, because there were many of its kind in that second.
    pub(crate) fn limited(&self, kind: Type) {
        if self.wants(kind) {
            EventCounters::add(&self.counters.limited, kind);
        }
    }

    fn push(&mut self, event: Event) {
        let kind = event.body.kind();
        let Some(Some(ring)) = self.rings.get_mut(kind as usize) else { return };
        match ring.push(event) {
            Ok(()) => EventCounters::add(&self.counters.emitted, kind),
            Err(_) => EventCounters::add(&self.counters.lost, kind),
        }
    }

    /// Tells other drops from now on; those that it told until now come back.
    pub(crate) fn report(&mut self, reports: &mut Option<Reports>) {
        std::mem::swap(&mut self.reports, reports);
        self.anomalies = self.reports.as_ref().map_or(self.anomalies, |reports| reports.anomalies);
    }

    /// Are drops told at all?
    #[inline(always)]
    pub(crate) fn tells_drops(&self) -> bool {
        self.reports.is_some() && !self.asked.types().within(REPORTED).is_empty()
    }

    /// Tells of packets that were dropped, as far as somebody wants to know and there are not too many of them.
    /// `stage_of` names the stage whose reason it is.
    #[inline(never)]
    pub(crate) fn drops(
        &mut self,
        now: u64,
        worker: WorkerId,
        batch: &Batch,
        dropped: Mask,
        stage_of: impl Fn(ReasonId) -> u8,
    ) {
        let asked = self.asked.types();
        for slot in dropped {
            let reason = batch.reason(slot);
            let Some(reports) = &mut self.reports else { return };
            let Some(report) = reports.reasons.get_mut(usize::from(reason.0)) else { continue };
            let (meta, inner, frame) = (batch.meta(slot), batch.inner(slot), batch.frame(slot));
            let as_drop = report.as_drop.as_mut().filter(|_| asked.has(Type::Drop));
            let limit = as_drop.map(|limit| limit.take(now, reports.drops));
            let told = match limit {
                Some(Some(skipped)) => Some(Drop::of(reason, skipped, meta, inner, frame)),
                Some(None) => {
                    EventCounters::add(&self.counters.limited, Type::Drop);
                    None
                }
                None => None,
            };
            let as_anomaly = report.as_anomaly.as_mut().filter(|_| asked.has(Type::Anomaly));
            let anomaly = as_anomaly.and_then(|(kind, event, limit)| {
                let skipped = limit.take(now, reports.anomalies);
                if skipped.is_none() {
                    EventCounters::add(&self.counters.limited, Type::Anomaly);
                }
                Some(Anomaly { kind: *kind, event, reason: Some(reason), skipped: skipped? })
            });
            if told.is_none() && anomaly.is_none() {
                continue;
            }
            let about = about(meta, inner, frame, worker).by(stage_of(reason));
            if let Some(drop) = told {
                self.push(Event { at: now, about, body: drop.into() });
            }
            if let Some(anomaly) = anomaly {
                self.push(Event { at: now, about, body: anomaly.into() });
            }
        }
    }
}

/// The inner packet's ends, or the outer's where there is no inner packet that could be read.
fn about(meta: &Meta, inner: &[u8], frame: &[u8], worker: WorkerId) -> About {
    match inner.is_empty() {
        true => About::frame(frame, worker),
        false => About::packet(meta, inner, worker),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_are_told_and_the_others_counted() {
        let mut limit = Limit::default();
        let taken: Vec<Option<u32>> = (0..5).map(|n| limit.take(n, 2)).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.take(SECOND - 1, 2), None);
        assert_eq!(limit.take(SECOND, 2), Some(4), "what was skipped is said with the next one");
        assert_eq!(limit.take(SECOND, 2), Some(0));
        assert_eq!(limit.take(7 * SECOND, 2), Some(0), "a second in which nothing came");
    }
}
