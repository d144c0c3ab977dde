//! A worker: one lcore, its queues, its stages, run to completion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use super::counters::WorkerCounters;
use super::hops::Hops;
use super::track::Source;
use super::{Clock, Decap, Inspect, Lend, Lens, Mail, Place, Punt, Respond, Track, decap, rx};
use crate::config::Idle;
use crate::dpdk::{QueuePair, cycles};
use crate::event::Emitter;
use crate::flow::Flows;
use crate::stage::WorkerId;

/// Polls without a frame after which `backoff` yields, and after which it sleeps.
const YIELD_AFTER: u32 = 64;
const SLEEP_AFTER: u32 = 256;
/// Empty polls from one housekeeping of the stages to the next.
const HOUSEKEEPING: u32 = 64;
/// How long a worker that stops waits for others to stop giving.
const LAST_WAIT: Duration = Duration::from_millis(500);
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
    lend: Option<Box<Lend>>,
    hops: Hops,
    burst: usize,
    idle: Idle,
    clock: Clock,
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
        Worker { lanes, lend: None, hops: Hops::new(decap, inspect, counters), burst, idle, clock }
    }

    /// The same, following flows.
    pub fn with_flows(mut self, track: Option<Track>) -> Self {
        self.hops.track = track;
        self
    }

    /// The same, telling the ends of what it rejects.
    pub fn with_answers(mut self, respond: Respond) -> Self {
        self.hops.respond = Some(respond);
        self
    }

    /// The same, with a way to the host stack. Without, punted frames are counted and freed.
    pub fn with_punt(mut self, punt: Option<Punt>) -> Self {
        self.hops.punt = punt.map(Box::new);
        self
    }

    /// The same, with a place for captures.
    pub fn with_lens(mut self, lens: Lens) -> Self {
        self.hops.lens = Some(Box::new(lens));
        self
    }

    /// The same, telling of what happens.
    pub fn with_events(mut self, events: Emitter) -> Self {
        self.hops.inspect.tell(events);
        self
    }

    /// The same, with a mailbox for its next pipeline.
    pub fn with_mail(mut self, mail: Mail) -> Self {
        self.hops.mail = Some(Box::new(mail));
        self
    }

    /// The same, with a mailbox for its lanes.
    pub fn with_lend(mut self, lend: Lend) -> Self {
        self.lend = Some(Box::new(lend));
        self
    }

    /// The next poll that finds frames is timed, with its stages.
    pub fn time_next_poll(&mut self) {
        self.hops.inspect.time_next();
    }

    /// Its flows, if it follows any.
    pub fn flows(&mut self) -> Option<&mut Flows> {
        self.hops.track.as_mut().map(Track::flows)
    }

    /// Its number.
    pub fn id(&self) -> WorkerId {
        self.hops.counters.worker
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.hops.counters
    }

    /// One round: its own lanes, then the host stack's replies, then what other workers have for it and what is due. Returns the frames found.
    #[inline]
    pub fn poll(&mut self) -> usize {
        self.poll_from(cycles()).0
    }

    /// The same, when the counter of cycles stands there. Returns what it said last, too.
    #[inline(always)]
    fn poll_from(&mut self, mut start: u64) -> (usize, u64) {
        let Worker { lanes, lend, hops, burst, clock, .. } = self;
        let mut found = 0;
        if let Some(lend) = lend
            && lend.is_due()
        {
            lend.exchange(lanes);
        }
        if hops.is_change_due() {
            hops.change(lanes, clock.at(start));
        }
        if let Some(mesh) = hops.mesh() {
            mesh.ask_for_frames();
        }
        for (lane, Lane(queues)) in lanes.iter_mut().enumerate() {
            let now = clock.at(start);
            if hops.held_up(now) {
                break;
            }
            hops.counters.place.at(Place::Rx);
            let frames = rx::run(&mut queues.rx, *burst, &mut hops.batch, &hops.counters);
            if frames == 0 {
                continue;
            }
            found += frames;
            if let Some(queue) = hops.counters.queues.get(lane) {
                queue.received.add(frames as u64);
                queue.full_polls.add(u64::from(frames == *burst));
            }
            let timed = hops.inspect.is_timed();
            hops.counters.place.at(Place::Decap);
            decap::run(&mut hops.decap, &mut hops.batch, &hops.counters);
            let taken = hops.run(queues, Source::Queue, now);
            if let Some(queue) = hops.counters.queues.get(lane) {
                queue.count(taken);
            }
            // Where one lane ends the next begins: reading the counter takes as long as a quarter of a packet.
            let end = cycles();
            hops.counters.busy_polls.add(1);
            hops.counters.busy_cycles.add(end.wrapping_sub(start));
            if timed {
                hops.timed(clock.at(end).saturating_sub(now), frames);
            }
            start = end;
        }
        if hops.punt.as_ref().is_some_and(|punt| punt.has_replies()) {
            found += hops.reply(lanes);
        }
        if hops.track.is_some() {
            found += self.others(&mut start);
        }
        self.hops.counters.place.at(Place::Rx);
        if found == 0 {
            self.hops.counters.idle_polls.add(1);
        }
        (found, start)
    }

    /// What does not come from a queue: packets of other workers, fragments that have waited, and the ageing of flows.
    #[inline(always)]
    fn others(&mut self, start: &mut u64) -> usize {
        let Worker { lanes, hops, burst, clock, .. } = self;
        let now = clock.at(*start);
        let mut found = 0;
        for peer in 0..hops.peers() {
            // A burst for each burst of its own: a peer with as many queues may give as much.
            for _ in 0..lanes.len() {
                let Some(port) = hops.take(peer, *burst) else { break };
                let taken = hops.batch.len();
                hops.send_by(lanes, port, Source::Peer, now);
                found += taken;
                if taken < *burst {
                    break;
                }
            }
        }
        if let Some(mesh) = hops.mesh() {
            mesh.ask_for_parcels(*burst);
        }
        if let Some((port, source)) = hops.unhold(now, false) {
            hops.send_by(lanes, port, source, now);
        }
        if found > 0 {
            let end = cycles();
            hops.counters.busy_polls.add(1);
            hops.counters.busy_cycles.add(end.wrapping_sub(*start));
            *start = end;
        }
        hops.due(now);
        hops.streams_due(lanes, now, false);
        found
    }

    /// Polls until asked to stop; then nothing is held, and nothing is on its way to this worker.
    pub fn run(&mut self, stop: &Stop) {
        let (mut empty, mut start) = (0u32, cycles());
        while !stop.asked() {
            // Where a poll that found something ends, the next begins.
            let (found, end) = self.poll_from(start);
            if found > 0 {
                (empty, start) = (0, end);
                continue;
            }
            empty = empty.wrapping_add(1);
            if empty % HOUSEKEEPING == 1 {
                self.hops.inspect.idle(self.clock.now());
                self.hops.look_at_lens();
            }
            if self.idle == Idle::Backoff {
                back_off(empty);
            }
            start = cycles();
        }
        self.finish();
        if let Some(flows) = self.flows() {
            flows.end_all(LAST_WAIT);
        }
    }

    /// Fragments that wait go as those do for which there is nothing left to wait for, and what waits for stages as what has waited too
    /// long; what other workers still give is taken, until all
    /// of them have stopped giving. One that hangs is not waited for longer than half a second.
    pub fn finish(&mut self) {
        let Worker { lanes, hops, clock, .. } = self;
        while let Some((port, source)) = hops.unhold(clock.now(), true) {
            hops.send_by(lanes, port, source, clock.now());
        }
        if hops.stop_giving() {
            let begun = Instant::now();
            while !self.hops.is_over() && begun.elapsed() < LAST_WAIT {
                if self.others(&mut cycles()) == 0 {
                    std::thread::yield_now();
                }
            }
        }
        let Worker { lanes, hops, clock, .. } = self;
        hops.streams_due(lanes, clock.now(), true);
        hops.inspect.stop(clock.now());
    }

    /// Its mailbox for lanes, when it has ended: there may be a letter that it did not come to.
    pub fn take_lend(&mut self) -> Option<Box<Lend>> {
        self.lend.take()
    }

    /// Gives the lanes back.
    pub fn into_lanes(self) -> Vec<Lane> {
        self.lanes
    }
}

/// Pause, then yield, then sleep ever longer.
pub(crate) fn back_off(empty: u32) {
    match empty {
        0..YIELD_AFTER => std::hint::spin_loop(),
        YIELD_AFTER..SLEEP_AFTER => std::thread::yield_now(),
        _ => std::thread::sleep(
            LONGEST_SLEEP.min(Duration::from_micros(u64::from(empty - SLEEP_AFTER) / 4 + 1)),
        ),
    }
}
