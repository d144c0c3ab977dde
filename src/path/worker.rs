//! A worker: one lcore, its queues, its stages, run to completion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::counters::WorkerCounters;
use super::track::Source;
use super::{Clock, Decap, Inspect, Respond, Track, decap, encap, rx, tx};
use crate::config::Idle;
use crate::dpdk::{Burst, QueuePair, cycles};
use crate::flow::Flows;
use crate::packet::Batch;
use crate::stage::WorkerId;

/// Polls without a frame after which `backoff` yields, and after which it sleeps.
const YIELD_AFTER: u32 = 64;
const SLEEP_AFTER: u32 = 256;
/// Empty polls from one housekeeping of the stages to the next.
const HOUSEKEEPING: u32 = 64;
/// Longest sleep of `backoff`.
const LONGEST_SLEEP: Duration = Duration::from_micros(100);

/// A queue pair that a worker polls: what comes in on it goes out on it.
#[derive(Debug)]
pub struct Lane(pub QueuePair);

/// Asks workers to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<CachePadded<AtomicBool>>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has anybody asked?
    #[inline(always)]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    lanes: Vec<Lane>,
    decap: Decap,
    track: Option<Track>,
    inspect: Inspect,
    respond: Option<Respond>,
    batch: Box<Batch>,
    dead: Box<Burst>,
    /// Frames of our own.
    made: Box<Burst>,
    burst: usize,
    idle: Idle,
    clock: Clock,
    counters: Arc<WorkerCounters>,
}

impl Worker {
    /// A worker that polls these lanes. It allocates everything it will ever need.
    pub fn new(
        lanes: Vec<Lane>,
        decap: Decap,
        inspect: Inspect,
        burst: usize,
        idle: Idle,
        clock: Clock,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let (batch, dead, made) = (Box::new(Batch::new()), Box::default(), Box::default());
        Worker {
            lanes,
            decap,
            track: None,
            inspect,
            respond: None,
            batch,
            dead,
            made,
            burst,
            idle,
            clock,
            counters,
        }
    }

    /// The same, following flows.
    pub fn with_flows(self, track: Option<Track>) -> Self {
        Worker { track, ..self }
    }

    /// The same, telling the ends of what it rejects.
    pub fn with_answers(self, respond: Respond) -> Self {
        Worker { respond: Some(respond), ..self }
    }

    /// Its flows, if it follows any.
    pub fn flows(&mut self) -> Option<&mut Flows> {
        self.track.as_mut().map(Track::flows)
    }

    /// Its number.
    pub fn id(&self) -> WorkerId {
        self.counters.worker
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// One round over its lanes: six hops each. Returns the frames received.
    #[inline]
    pub fn poll(&mut self) -> usize {
        let Worker {
            lanes, decap, track, inspect, respond, batch, dead, made, burst, clock, counters, ..
        } = self;
        let mut received = 0;
        for Lane(queues) in lanes {
            let start = cycles();
            let frames = rx::run(&mut queues.rx, *burst, batch, counters);
            if frames == 0 {
                continue;
            }
            received += frames;
            decap::run(decap, batch, counters);
            let now = clock.at(start);
            if let Some(track) = track {
                track.flows().begin(now);
                track.run(batch, Source::Queue);
                inspect.run(batch, Some(track.flows()), now, counters);
            } else {
                inspect.run(batch, None::<&mut Flows>, now, counters);
            }
            let too_big = encap::run(decap.tunnel(), queues.mtu, batch);
            if let Some(respond) = respond
                && !(too_big | batch.rejected()).is_empty()
            {
                let flows = track.as_mut().map(|track| &*track.flows());
                respond.run(now, batch, too_big, queues.mtu, flows, made, &counters.answers);
            }
            tx::run(&mut queues.tx, batch, dead, counters);
            if !made.is_empty() {
                tx::made(&mut queues.tx, made, counters);
            }
            counters.busy_polls.add(1);
            counters.busy_cycles.add(cycles().wrapping_sub(start));
        }
        if let Some(track) = track {
            if received == 0 {
                track.flows().begin(clock.now());
            }
            track.flows().age();
        }
        if received == 0 {
            counters.idle_polls.add(1);
        }
        received
    }

    /// Polls until asked to stop. Nothing is held between polls, so nothing is lost.
    pub fn run(&mut self, stop: &Stop) {
        let mut empty: u32 = 0;
        while !stop.asked() {
            if self.poll() > 0 {
                empty = 0;
                continue;
            }
            empty = empty.wrapping_add(1);
            if empty % HOUSEKEEPING == 1 {
                self.inspect.idle(self.clock.now(), &self.counters);
            }
            if self.idle == Idle::Backoff {
                back_off(empty);
            }
        }
        if let Some(flows) = self.flows() {
            flows.end_all();
        }
    }

    /// Gives the lanes back.
    pub fn into_lanes(self) -> Vec<Lane> {
        self.lanes
    }
}

/// Pause, then yield, then sleep ever longer.
fn back_off(empty: u32) {
    match empty {
        0..YIELD_AFTER => std::hint::spin_loop(),
        YIELD_AFTER..SLEEP_AFTER => std::thread::yield_now(),
        _ => std::thread::sleep(
            LONGEST_SLEEP.min(Duration::from_micros(u64::from(empty - SLEEP_AFTER) / 4 + 1)),
        ),
    }
}
