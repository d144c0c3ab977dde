//! A gateway's worker: one lcore with a lane of each port, run to completion.
//!
//! It is a loop of its own and not the six hops, because frames change ports: a batch comes in by one lane and may leave by several. Receiving, decap,
//! sending, counters and the ledger are those of the hops.

use std::sync::Arc;

use super::forward::{Fate, Forward};
use super::legs::Legs;
use super::mail::Inbox;
use crate::config::Idle;
use crate::dpdk::{Burst, cycles};
use crate::packet::Batch;
use crate::path::worker::back_off;
use crate::path::{Clock, Decap, Lane, Place, Punt, Stop, WorkerCounters, decap, rx, tx};

/// What comes in by a lane.
#[derive(Clone, Debug)]
pub enum Role {
    /// Frames of legs.
    Legs(Legs),
    /// Frames of targets.
    Targets,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    lanes: Vec<Lane>,
    roles: Vec<Role>,
    /// The lane of targets.
    targets: usize,
    decap: Decap,
    forward: Forward,
    batch: Batch,
    /// What leaves by each lane; empty between two batches.
    out: Vec<Burst>,
    dead: Burst,
    burst: usize,
    idle: Idle,
    clock: Clock,
    counters: Arc<WorkerCounters>,
    punt: Option<Box<Punt>>,
    inbox: Option<Inbox>,
}

impl Worker {
    /// A worker that polls these lanes, in the order in which [`Forward`] numbers them. It allocates everything it will ever need.
    pub fn new(
        (lanes, roles): (Vec<Lane>, Vec<Role>),
        decap: Decap,
        forward: Forward,
        (burst, idle): (usize, Idle),
        clock: Clock,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let out = lanes.iter().map(|_| Burst::new()).collect();
        let (batch, dead) = (Batch::new(), Burst::new());
        let (punt, inbox) = (None, None);
        let targets = roles.iter().position(|role| matches!(role, Role::Targets)).unwrap_or(0);
        Worker {
            lanes,
            roles,
            targets,
            decap,
            forward,
            batch,
            out,
            dead,
            burst,
            idle,
            clock,
            counters,
            punt,
            inbox,
        }
    }

    /// The same, with a way to the host stack for what comes to the targets' port and is not tunnel traffic.
    pub fn with_punt(self, punt: Option<Punt>) -> Self {
        Worker { punt: punt.map(Box::new), ..self }
    }

    /// The same, with a mailbox for news of targets.
    pub fn with_inbox(self, inbox: Inbox) -> Self {
        Worker { inbox: Some(inbox), ..self }
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// One round over all lanes. Returns the frames found.
    pub fn poll(&mut self) -> usize {
        self.poll_from(cycles()).0
    }

    #[inline(always)]
    fn poll_from(&mut self, mut start: u64) -> (usize, u64) {
        let mut found = 0;
        if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.is_due()) {
            let forward = &mut self.forward;
            inbox.take(|news| forward.swap(news));
        }
        for lane in 0..self.lanes.len() {
            if lane == self.targets {
                continue;
            }
            // The targets' port brings as much as all legs together: it is asked after each of them.
            for lane in [lane, self.targets] {
                let now = self.clock.at(start);
                let frames = self.receive(lane, now);
                if frames == 0 {
                    continue;
                }
                found += frames;
                let end = cycles();
                self.counters.busy_polls.add(1);
                self.counters.busy_cycles.add(end.wrapping_sub(start));
                start = end;
            }
        }
        if let Some(punt) = self.punt.as_mut().filter(|punt| punt.has_replies()) {
            found += punt.send(&mut self.lanes, &mut self.dead, &self.counters);
        }
        self.forward.sweep(millis(self.clock.at(start)));
        self.counters.place.at(Place::Rx);
        if found == 0 {
            self.counters.idle_polls.add(1);
        }
        (found, start)
    }

    /// One batch of one lane.
    #[inline(always)]
    fn receive(&mut self, lane: usize, now: u64) -> usize {
        let Worker { lanes, roles, decap, forward, batch, burst, counters, .. } = self;
        let (Some(Lane(queues)), Some(role)) = (lanes.get_mut(lane), roles.get(lane)) else { return 0 };
        let found = rx::run(&mut queues.rx, *burst, batch, counters);
        if found == 0 {
            return 0;
        }
        if let Some(queue) = counters.queues.get(lane) {
            queue.received.add(found as u64);
            queue.full_polls.add(u64::from(found == *burst));
        }
        let port = queues.port;
        match role {
            Role::Legs(legs) => {
                counters.place.at(Place::Track);
                let (frames, _) = batch.slots_mut();
                forward.from_legs(legs, frames, millis(now));
            }
            Role::Targets => {
                counters.place.at(Place::Decap);
                decap::run(decap, batch, counters);
                counters.place.at(Place::Track);
                for slot in batch.dropped() {
                    forward.decide(slot, Fate::Drop(batch.reason(slot)));
                }
                for slot in batch.punted() {
                    forward.decide(slot, Fate::Punt);
                }
                let live = batch.live();
                let (frames, metas) = batch.slots_mut();
                forward.from_targets(frames, metas, live, millis(now));
            }
        }
        self.send(port, now);
        found
    }

    /// Every frame of the batch goes where it is to go, and is counted.
    #[inline(always)]
    fn send(&mut self, port: u16, now: u64) {
        let Worker { lanes, forward, batch, out, dead, punt, .. } = self;
        let counters: &WorkerCounters = &self.counters;
        counters.place.at(Place::Tx);
        let fates = forward.fates();
        let len = batch.frames.len();
        // Mostly all go the same way.
        let first = fates.first().copied().unwrap_or(Fate::Punt);
        if let Fate::Lane(lane) = first
            && fates.iter().take(len).all(|fate| *fate == first)
            && let Some(Lane(queues)) = lanes.get_mut(usize::from(lane))
        {
            tx::send(&mut queues.tx, &mut batch.frames, counters);
            return;
        }
        for (frame, fate) in batch.frames.drain().zip(fates) {
            let gone = match fate {
                Fate::Lane(lane) => match out.get_mut(usize::from(*lane)) {
                    Some(burst) => burst,
                    None => &mut *dead, // no such lane: a fault of the plan's, which tests would find by the ledger
                },
                Fate::Drop(reason) => {
                    counters.drop(*reason, 1);
                    &mut *dead
                }
                Fate::Punt => {
                    counters.punted.add(1);
                    if let Some(punt) = punt {
                        punt.offer(port, frame.data(), now, &counters.punt);
                    }
                    &mut *dead
                }
            };
            // There is room: a batch has no more frames than a burst.
            drop(gone.push(frame));
        }
        dead.free();
        for (burst, Lane(queues)) in out.iter_mut().zip(lanes) {
            if !burst.is_empty() {
                tx::send(&mut queues.tx, burst, counters);
            }
        }
    }

    /// Polls until asked to stop; nothing is held then.
    pub fn run(&mut self, stop: &Stop) {
        let (mut empty, mut start) = (0u32, cycles());
        while !stop.asked() {
            let (found, end) = self.poll_from(start);
            if found > 0 {
                (empty, start) = (0, end);
                continue;
            }
            empty = empty.wrapping_add(1);
            if self.idle == Idle::Backoff {
                back_off(empty);
            }
            start = cycles();
        }
    }

    /// Gives the lanes back.
    pub fn into_lanes(self) -> Vec<Lane> {
        self.lanes
    }
}

/// Milliseconds, which wrap after seven weeks: only differences are asked for.
#[inline(always)]
fn millis(now: u64) -> u32 {
    (now / 1_000_000) as u32
}
