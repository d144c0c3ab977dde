//! The stage on one worker: handshakes followed packet by packet.

use std::sync::Arc;

use super::half_open::{HalfOpen, SPANS, counts};
use super::{
    ALARM, ALARMS, BEGUN, COMPLETED, HALF_OPEN, Inner, Limit, NO_BUCKET, NOT_OPENED, RATE, RESET, SYN_RATE,
    counter,
};
use crate::event::{Alert, Type};
use crate::flow::sync::Ordering;
use crate::packet::{Batch, FlowFlags, InnerFlags, Meta, ReasonId, Verdict};
use crate::stage::{Cx, PerFlow, Stage};
use crate::stages::acl::counters::Counters;
use crate::stages::buckets::{Bucket, Place, Table};
use crate::stages::whom::{Per, goes_back};
use crate::wire::transport::TCP;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How far an ACK may be ahead of the server's SYN: what a server may have sent before it (RFC 7413).
const AHEAD: u32 = 1 << 16;

/// What is kept of each flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshake {
    at: At,
    /// Limits that count it, a bit for each, and the span in which they do.
    counted: u8,
    span: u32,
    /// The numbers behind both SYNs.
    client: u32,
    server: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// No SYN has passed.
    #[default]
    Nothing,
    /// A SYN was dropped.
    Denied,
    /// A SYN has passed.
    Begun,
    /// The server's, too.
    Answered,
}

/// The stage on one worker.
pub(super) struct Running {
    inner: Arc<Inner>,
    flows: PerFlow<Handshake>,
    counters: Arc<Counters>,
}

impl Running {
    /// `counters` has those of the stage and of each limit.
    pub fn new(inner: Arc<Inner>, flows: PerFlow<Handshake>, counters: Arc<Counters>) -> Self {
        Running { inner, flows, counters }
    }
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        let now = self.inner.since.at(cx.now);
        // Spans begin far enough from zero, which is what words begin with.
        let span = (now / self.inner.span.max(1)) as u32 + SPANS as u32;
        for slot in batch.open() {
            let meta = batch.meta(slot);
            if meta.protocol != TCP {
                batch.settle(slot);
                continue;
            }
            // Errors say nothing of a handshake that its own packets do not say; later fragments nothing at all.
            if meta.flow_flags.has(FlowFlags::RELATED) || meta.flags.has(InnerFlags::LATER_FRAGMENT) {
                continue;
            }
            let Some(segment) = Segment::of(batch, slot) else { continue };
            let mut guard = Guard { inner: &self.inner, counters: &self.counters, now, span, slot };
            match self.flows.of(batch.meta(slot)) {
                Some(handshake) => guard.follow(handshake, segment, batch, cx),
                None if segment.opens() => guard.without_flow(batch, cx),
                None => {}
            }
        }
    }
}

/// What a handshake shows.
#[derive(Clone, Copy, Debug)]
struct Segment {
    flags: u8,
    sequence: u32,
    ack: u32,
    /// From the server.
    back: bool,
}

impl Segment {
    #[inline(always)]
    fn of(batch: &Batch, slot: usize) -> Option<Segment> {
        let meta: &Meta = batch.meta(slot);
        let header = batch.frame(slot).get(usize::from(meta.transport)..)?.first_chunk::<12>()?;
        let [_, _, _, _, a, b, c, d, e, f, g, h] = *header;
        let (sequence, ack) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        Some(Segment {
            flags: meta.tcp_flags & (FIN | SYN | RST | ACK),
            sequence,
            ack,
            back: goes_back(meta),
        })
    }

    #[inline(always)]
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A SYN and nothing that contradicts it.
    #[inline(always)]
    fn opens(&self) -> bool {
        self.flags == SYN
    }
}

/// What a limit says of a SYN.
enum Says {
    /// It may begin.
    Begin(Option<Place>),
    /// It is one too many, for the reason of that number.
    TooMany(usize, Option<Place>),
}

/// One packet.
struct Guard<'a> {
    inner: &'a Inner,
    counters: &'a Counters,
    now: u64,
    span: u32,
    slot: usize,
}

impl Guard<'_> {
    #[inline(always)]
    fn follow(&mut self, handshake: &mut Handshake, segment: Segment, batch: &mut Batch, cx: &mut Cx<'_>) {
        if segment.opens() && !segment.back {
            return self.syn(handshake, segment, batch, cx);
        }
        match handshake.at {
            At::Denied => batch.decide(self.slot, Verdict::Drop(cx.reason(NOT_OPENED))),
            At::Nothing => {
                // A connection from before: it is one if the other side speaks in it. A RST would be the answer to what is none.
                if segment.back && segment.has(ACK) && !segment.has(SYN | RST) {
                    batch.settle(self.slot);
                }
            }
            At::Begun | At::Answered => {
                if segment.has(RST) {
                    self.reset(handshake, segment, batch);
                } else if segment.has(SYN) && segment.back {
                    // Both SYNs at once have no ACK.
                    if !segment.has(ACK) || segment.ack == handshake.client {
                        handshake.at = At::Answered;
                        handshake.server = segment.sequence.wrapping_add(1);
                    }
                } else if segment.has(ACK)
                    && !segment.has(SYN)
                    && !segment.back
                    && handshake.at == At::Answered
                    && segment.ack.wrapping_sub(handshake.server) < AHEAD
                {
                    self.counters.add(COMPLETED);
                    self.release(handshake, batch);
                    batch.settle(self.slot);
                }
            }
        }
    }

    /// Asks all limits, unless it was let in and still counts.
    fn syn(&mut self, handshake: &mut Handshake, segment: Segment, batch: &mut Batch, cx: &mut Cx<'_>) {
        handshake.client = segment.sequence.wrapping_add(1);
        if matches!(handshake.at, At::Begun | At::Answered) && counts(handshake.span, self.span) {
            return;
        }
        let (mut counted, mut places) = (0u8, [None; super::MOST_LIMITS]);
        for (n, place) in (0..self.inner.limits.len()).zip(&mut places) {
            match self.ask(n, batch, cx) {
                Ok(found) => *place = found,
                Err(reason) => {
                    handshake.at = At::Denied;
                    if batch.asks_for_rules() {
                        batch.note_rule(self.slot, n);
                    }
                    return batch.decide(self.slot, Verdict::Drop(reason));
                }
            }
        }
        // Nobody is counted who does not get in.
        for (n, (limit, table)) in self.inner.limits.iter().zip(&self.inner.tables).enumerate() {
            let place = places.get(n).copied().flatten().filter(|_| limit.half_open.is_some());
            if let Some(place) = place {
                HalfOpen { table, place }.begin(self.span);
                counted |= 1 << n;
            }
        }
        (handshake.at, handshake.counted, handshake.span) = (At::Begun, counted, self.span);
        self.counters.add(BEGUN);
    }

    /// What one limit says: the entry that is to count, or the reason for which the SYN is dropped.
    #[inline(always)]
    fn ask(&mut self, n: usize, batch: &Batch, cx: &mut Cx<'_>) -> Result<Option<Place>, ReasonId> {
        let (Some(limit), Some(table)) = (self.inner.limits.get(n), self.inner.tables.get(n)) else {
            return Ok(None);
        };
        match self.says(limit, table, batch) {
            Says::Begin(place) => Ok(place),
            Says::TooMany(reason, place) => {
                self.counters.add(counter(n, reason));
                let blocks = limit.police && (reason != NO_BUCKET || limit.drop_when_full);
                if let Some(place) = place {
                    self.alarm(n, table, place, blocks, batch, cx);
                }
                if blocks { Err(cx.reason(reason)) } else { Ok(place) }
            }
        }
    }

    #[inline(always)]
    fn says(&self, limit: &Limit, table: &Table, batch: &Batch) -> Says {
        let (meta, inner) = (batch.meta(self.slot), batch.inner(self.slot));
        if !limit.only.has(meta, inner) {
            return Says::Begin(None);
        }
        let idle = |place| {
            let full = table.word(place, RATE).is_some_and(|word| Bucket(word).is_full(self.now));
            full && HalfOpen { table, place }.sum(self.span) == 0
        };
        let place = match limit.per {
            Per::All | Per::Flow => table.numbered_place(0),
            Per::Tenant => table.numbered_place(meta.tenant.into()),
            _ => limit.whom.name(meta, inner).and_then(|name| table.find(name, idle)),
        };
        let Some(place) = place else { return Says::TooMany(NO_BUCKET, None) };
        if let Some(most) = limit.half_open {
            let there = HalfOpen { table, place }.sum(self.span);
            if there >= most {
                return Says::TooMany(HALF_OPEN, Some(place));
            }
            // The alarm is over when it is clearly so, not with each that completes.
            if let Some(alarm) = table.word(place, ALARM).filter(|alarm| alarm.load(Ordering::Relaxed) != 0)
                && there < most / 4 * 3
            {
                alarm.store(0, Ordering::Relaxed);
            }
        }
        if let Some((rate, word)) = limit.rate.as_ref().zip(table.word(place, RATE))
            && Bucket(word).take(rate, self.now, &[1]) == 0
        {
            return Says::TooMany(SYN_RATE, Some(place));
        }
        Says::Begin(Some(place))
    }

    /// Tells that a limit is passed, unless one of the workers has told so a while ago.
    #[inline(never)]
    fn alarm(&self, n: usize, table: &Table, place: Place, blocked: bool, batch: &Batch, cx: &mut Cx<'_>) {
        let Some(word) = table.word(place, ALARM) else { return };
        let last = word.load(Ordering::Relaxed);
        // 0 is no alarm; the first nanosecond counts as the second.
        let now = self.now.max(1);
        let due = last == 0 || now >= last.saturating_add(self.inner.every);
        if due && word.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.counters.add(counter(n, ALARMS));
            if cx.wants(Type::Alert) {
                cx.emit(batch.meta(self.slot), batch.inner(self.slot), Alert { rule: n as u32, blocked });
            }
        }
    }

    /// A RST, if who gets it would believe it.
    fn reset(&self, handshake: &mut Handshake, segment: Segment, batch: &Batch) {
        let believed = match segment.back {
            false => segment.sequence == handshake.client,
            true if segment.has(ACK) => segment.ack == handshake.client,
            true => handshake.at == At::Answered && segment.sequence == handshake.server,
        };
        if believed {
            self.counters.add(RESET);
            self.release(handshake, batch);
            // Whoever begins anew between the same ends asks again.
            handshake.at = At::Nothing;
        }
    }

    /// It is half-open no longer.
    fn release(&self, handshake: &mut Handshake, batch: &Batch) {
        let (meta, inner) = (batch.meta(self.slot), batch.inner(self.slot));
        for (n, (limit, table)) in self.inner.limits.iter().zip(&self.inner.tables).enumerate() {
            if handshake.counted >> n & 1 == 0 {
                continue;
            }
            let place = match limit.per {
                Per::All | Per::Flow => table.numbered_place(0),
                Per::Tenant => table.numbered_place(meta.tenant.into()),
                _ => limit.whom.name(meta, inner).and_then(|name| table.known(name)),
            };
            if let Some(place) = place {
                HalfOpen { table, place }.end(handshake.span);
            }
        }
        handshake.counted = 0;
    }

    /// A SYN that nobody can follow keeps the limits, and is not counted as half-open.
    fn without_flow(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        for n in 0..self.inner.limits.len() {
            if let Err(reason) = self.ask(n, batch, cx) {
                return batch.decide(self.slot, Verdict::Drop(reason));
            }
        }
    }
}
