//! The hops behind decap, for one batch: track -> inspect -> encap -> tx, and what they are made of on one worker.

use std::sync::Arc;

use super::counters::{Taken, WorkerCounters};
use super::samples::TIMES;
use super::track::Source;
use super::{Decap, Inspect, Lane, Lens, Mail, Mesh, Place, Punt, Respond, Track, encap, tx};
use crate::dpdk::{Burst, QueuePair};
use crate::flow::Flows;
use crate::packet::{Batch, DropReason};

/// One worker's hops, with the batch that goes through them.
#[derive(Debug)]
pub(super) struct Hops {
    pub decap: Decap,
    pub track: Option<Track>,
    pub inspect: Inspect,
    pub respond: Option<Respond>,
    pub punt: Option<Box<Punt>>,
    pub mail: Option<Box<Mail>>,
    pub lens: Option<Box<Lens>>,
    pub batch: Box<Batch>,
    dead: Box<Burst>,
    /// Frames of our own.
    made: Box<Burst>,
    /// Frames that have waited for a stage.
    released: Box<Burst>,
    pub counters: Arc<WorkerCounters>,
}

impl Hops {
    pub fn new(decap: Decap, mut inspect: Inspect, counters: Arc<WorkerCounters>) -> Self {
        inspect.count_in(&counters);
        let (batch, dead) = (Box::new(Batch::new()), Box::default());
        let (made, released) = (Box::default(), Box::default());
        let (track, respond, punt, mail, lens) = (None, None, None, None, None);
        Hops { decap, track, inspect, respond, punt, mail, lens, batch, dead, made, released, counters }
    }

    /// Takes the batch from decap to the port, and leaves it empty. Not inlined: decap's loop keeps the registers to itself.
    #[inline(never)]
    pub fn run(&mut self, queues: &mut QueuePair, source: Source, now: u64) -> Taken {
        match self.lens.as_ref().is_some_and(|lens| lens.is_on()) {
            true => self.run_captured(queues, source, now),
            false => self.through::<false>(queues, source, now),
        }
    }

    /// The same while a capture is on. Apart, so that no register is kept for what mostly is not there.
    #[cold]
    #[inline(never)]
    fn run_captured(&mut self, queues: &mut QueuePair, source: Source, now: u64) -> Taken {
        self.through::<true>(queues, source, now)
    }

    #[inline(always)]
    fn through<const CAPTURED: bool>(&mut self, queues: &mut QueuePair, source: Source, now: u64) -> Taken {
        let Hops {
            decap, track, inspect, respond, punt, lens, batch, dead, made, released, counters, ..
        } = self;
        let mut capture = if CAPTURED { lens.as_mut().and_then(|lens| lens.look()) } else { None };
        let mut quiet = decap.tunnel().max_return;
        if let Some(capture) = &mut capture {
            capture.begin(batch);
            quiet = 0; // who looks at a packet wants to know its flow
        }
        let port = u8::try_from(queues.port).unwrap_or(u8::MAX); // beyond 255 nothing is handed on: nobody reaches it
        if let Some(track) = track {
            counters.place.at(Place::Track);
            track.flows().begin(now);
            track.run(batch, source, port, quiet);
            if let Some(capture) = &mut capture {
                capture.tracked(batch);
            }
            inspect.run(batch, Some(track.flows()), now, counters);
        } else {
            inspect.run(batch, None::<&mut Flows>, now, counters);
        }
        counters.place.at(Place::Encap);
        let too_big = encap::run(decap.tunnel(), queues.mtu, batch);
        inspect.tell_drops(batch, now);
        if let Some(respond) = respond
            && !(too_big | batch.rejected()).is_empty()
        {
            let flows = track.as_mut().map(|track| &*track.flows());
            respond.run(now, batch, (too_big, queues.mtu), flows, made, &counters.answers);
        }
        if let Some(streams) = inspect.streams() {
            streams.before_tx(batch, &mut queues.tx, port, released, counters);
        }
        if let Some(capture) = &mut capture {
            capture.end(batch, made, queues.port, now, counters.worker);
        }
        let parting = !(batch.away() | batch.held()).is_empty();
        counters.place.at(Place::Tx);
        let id = queues.port;
        let taken = tx::run(&mut queues.tx, batch, dead, counters, |batch, dead| {
            if let Some(punt) = punt
                && !batch.punted().is_empty()
            {
                punt.copy(batch, dead, id, now, &counters.punt);
            }
            if let Some(track) = track
                && parting
            {
                track.part(batch, dead, inspect.streams(), port, now, counters);
            }
        });
        if !made.is_empty() {
            tx::made(&mut queues.tx, made, counters);
        }
        taken
    }

    /// A poll that was timed is over: its frames were here for so many nanoseconds.
    #[cold]
    pub fn timed(&mut self, time: u64, frames: usize) {
        self.inspect.end_timed();
        let samples = &self.counters.samples;
        samples.polls.add(1);
        samples.times.observe(&TIMES, time, frames as u64);
    }

    /// The same for a batch that goes home by the worker's own queue on that port.
    #[inline(always)]
    pub fn send_by(&mut self, lanes: &mut [Lane], port: u8, source: Source, now: u64) {
        match lanes.iter_mut().enumerate().find(|(_, Lane(queues))| queues.port == u16::from(port)) {
            Some((lane, Lane(queues))) => {
                let taken = self.run(queues, source, now);
                if let Some(queue) = self.counters.queues.get(lane) {
                    queue.count(taken);
                }
            }
            None => {
                // Nobody gives to a worker that has no queue on the port; counted all the same.
                let Hops { counters, batch, .. } = self;
                counters.as_ref().drop(DropReason::HandoffFull.into(), batch.len() as u64);
                batch.frames.free();
            }
        }
    }

    /// Sends what the host stack has for the worker's ports, and says how many replies there were.
    #[cold]
    pub fn reply(&mut self, lanes: &mut [Lane]) -> usize {
        let Hops { punt, made, counters, .. } = self;
        punt.as_mut().map_or(0, |punt| punt.send(lanes, made, counters))
    }

    /// Is there no room to give more away?
    #[inline(always)]
    pub fn held_up(&mut self, now: u64) -> bool {
        self.mesh().is_some_and(|mesh| mesh.holds_up(now))
    }

    /// Workers that may have something for this one.
    #[inline(always)]
    pub fn peers(&mut self) -> usize {
        self.mesh().map_or(0, |mesh| mesh.peers())
    }

    /// The way to the other workers, if there are any.
    #[inline(always)]
    pub fn mesh(&mut self) -> Option<&mut Mesh> {
        self.track.as_mut().and_then(Track::mesh)
    }

    /// Fills the batch with what a peer has, and says by which port that goes home.
    #[inline(always)]
    pub fn take(&mut self, peer: usize, burst: usize) -> Option<u8> {
        let mesh = self.track.as_mut().and_then(Track::mesh)?;
        let port = mesh.take(peer, &mut self.batch, burst)?;
        self.batch.begin();
        self.counters.flows.handed_in.add(self.batch.len() as u64);
        Some(port)
    }

    /// Fills the batch with fragments that need not wait any more.
    #[inline(always)]
    pub fn unhold(&mut self, now: u64, last: bool) -> Option<(u8, Source)> {
        let track = self.track.as_mut().filter(|track| track.holds())?;
        track.flows().begin(now);
        track.unhold(&mut self.batch, now, last, &self.counters)
    }

    /// What is due now and then, in bounded pieces.
    #[inline(always)]
    pub fn due(&mut self, now: u64) {
        if let Some(track) = &mut self.track {
            track.flows().begin(now);
            track.flows().reseat();
            track.flows().age();
        }
    }

    /// Is there another pipeline to begin with, or flows that do not know of it yet?
    #[inline(always)]
    pub fn is_change_due(&self) -> bool {
        self.mail.as_ref().is_some_and(|mail| mail.is_due())
    }

    /// Takes the next pipeline, if it has come, and tells a bounded number of flows.
    #[cold]
    pub fn change(&mut self, lanes: &mut [Lane], now: u64) {
        if let Some(track) = &mut self.track {
            track.flows().begin(now);
        }
        if let Some(mut change) = self.mail.as_mut().and_then(|mail| mail.begin()) {
            self.inspect.change(&mut change.next, now, &self.counters);
            self.streams_due(lanes, now, false); // what was let go
            self.inspect.part_with_streams(&mut change.next);
            if self.inspect.streams().is_none() {
                self.counters.stream_blocks.set(0);
                self.counters.stream_room.set(0);
            }
            self.batch.swap_rules(&mut change.rules);
            std::mem::swap(&mut self.decap, &mut change.decap);
            if let Some(respond) = &mut self.respond {
                std::mem::swap(respond, &mut change.respond);
                respond.take_over(&change.respond);
            }
            if let Some(track) = &mut self.track {
                track.change(&mut change.terms, change.refit.take());
            }
            if let Some(mail) = &mut self.mail {
                mail.go_on(change);
            }
            return; // frames have waited meanwhile
        }
        let flows = self.track.as_mut().map(Track::flows);
        let refitted = flows.map_or(Some(None), |flows| match flows.refit_some() {
            Some(refit) => Some(Some(refit)),
            None if flows.is_refitting() => None,
            None => Some(None),
        });
        if let (Some(refit), Some(mail)) = (refitted, &mut self.mail) {
            mail.finish(refit);
        }
    }

    /// Takes or gives back a capture where there are no batches to do it with.
    pub fn look_at_lens(&mut self) {
        if let Some(lens) = self.lens.as_mut().filter(|lens| lens.is_on()) {
            let _ = lens.look(); // there is no batch to look at
        }
    }

    /// What streams want done now and then; frames that have waited long enough for a stage go home. `last`: all that wait.
    #[inline(always)]
    pub fn streams_due(&mut self, lanes: &mut [Lane], now: u64, last: bool) {
        let Hops { track, inspect, counters, released, .. } = self;
        let Some(streams) = inspect.streams() else { return };
        streams.housekeeping(track.as_mut().map(Track::flows), now, last, counters);
        while streams.has_out() {
            let lane = streams.take_out(None, released, counters);
            let lane = lanes.iter_mut().find(|Lane(queues)| lane.map(u16::from) == Some(queues.port));
            match lane {
                Some(Lane(queues)) => tx::made(&mut queues.tx, released, counters),
                None => {
                    // It came in by a lane of this worker, so there is one.
                    counters.as_ref().drop(DropReason::TxFull.into(), released.len() as u64);
                    released.free();
                }
            }
        }
    }

    /// This worker gives nothing away any more. False if there is nobody to give to.
    pub fn stop_giving(&mut self) -> bool {
        let Some(track) = &mut self.track else { return false };
        track.hold_no_more();
        let Some(mesh) = track.mesh() else { return false };
        mesh.stop_giving();
        true
    }

    /// Nothing will come from other workers any more.
    pub fn is_over(&mut self) -> bool {
        self.mesh().is_none_or(|mesh| mesh.is_over())
    }
}
