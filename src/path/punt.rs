//! The way to the host stack and back: not a hop, but what tx does with punted frames before it frees them, and what a poll does
//! with the stack's replies.
//!
//! An mbuf never leaves its worker: a punted frame is copied into a ring of bytes and freed where it was received, and a reply comes
//! back as bytes and gets an mbuf here. So a management thread that is not scheduled holds up no pool, and no queue has two senders.
//!
//! Promises: no allocation, lock or system call; at most `rate` frames a second are copied, and a quarter of that of one source, so that
//! a flood costs the tunnel little and one sender cannot keep out the others; at most [`REPLIES`] replies are sent in a poll. Every
//! punted frame is counted here once as copied, refused, rate limited or without room; every reply as sent on or without a buffer.

use super::answer::Bucket;
use super::counters::{Counter, WorkerCounters};
use super::frames::{FrameReader, FrameWriter, ring};
use super::guests::{Guest, Guests};
use super::{Lane, tx};
use crate::config::HostPlan;
use crate::dpdk::{BURST, Burst, Mempool};
use crate::packet::{Batch, Mask};
use crate::stage::WorkerId;

/// Bytes of each ring: some hundred small frames, or a dozen of the largest.
const RING: usize = 128 << 10;
/// Replies sent in one poll.
const REPLIES: usize = 16;
/// Sources share so many buckets by their hash.
const BUCKETS: usize = 64;
/// What a bucket may have of the whole rate: a quarter.
const SHARE: u32 = 4;

/// A worker's end.
#[derive(Debug)]
pub struct Punt {
    out: FrameWriter,
    back: FrameReader,
    pool: Mempool,
    guests: Guests,
    all: Bucket,
    sources: Box<[Bucket; BUCKETS]>,
    /// Makes it hard to guess who shares a bucket.
    key: u64,
}

/// The other end, for the host stack.
#[derive(Debug)]
pub struct HostEnd {
    /// The worker.
    pub worker: WorkerId,
    /// Ports on which it has a queue.
    pub ports: Vec<u16>,
    /// What it has punted.
    pub punted: FrameReader,
    /// What it is to send.
    pub replies: FrameWriter,
}

/// What became of punted frames, and of replies. One writer, like all counters of a worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PuntCounters {
    /// Frames copied to the host stack.
    pub copied: Counter,
    /// Frames of sources that may not reach it, or of no protocol that it speaks.
    pub refused: Counter,
    /// Frames beyond the rate.
    pub rate_limited: Counter,
    /// Frames for which the ring had no room.
    pub no_room: Counter,
    /// Replies that got a buffer and went on to the port.
    pub replies: Counter,
    /// Replies without: the pool was empty, the frame too long, or the worker has no queue on that port.
    pub no_buffer: Counter,
}

/// [`PuntCounters`] at one moment. The fields mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct PuntSnapshot {
    pub copied: u64,
    pub refused: u64,
    pub rate_limited: u64,
    pub no_room: u64,
    pub replies: u64,
    pub no_buffer: u64,
}

impl PuntCounters {
    /// The values now.
    pub fn snapshot(&self) -> PuntSnapshot {
        PuntSnapshot {
            copied: self.copied.get(),
            refused: self.refused.get(),
            rate_limited: self.rate_limited.get(),
            no_room: self.no_room.get(),
            replies: self.replies.get(),
            no_buffer: self.no_buffer.get(),
        }
    }
}

impl Punt {
    /// Both ends of one worker's way. `ports` are those on which it has a queue; buffers for replies come from the pool.
    pub fn of(
        plan: &HostPlan,
        guests: &Guests,
        pool: &Mempool,
        worker: WorkerId,
        ports: Vec<u16>,
    ) -> (Punt, HostEnd) {
        let ((out, punted), (replies, back)) = (ring(RING), ring(RING));
        let rate = plan.frames_per_s;
        let punt = Punt {
            out,
            back,
            pool: pool.clone(),
            guests: guests.clone(),
            all: Bucket::new(rate),
            sources: Box::new([Bucket::new(rate.div_ceil(SHARE)); BUCKETS]),
            key: rand::random(),
        };
        (punt, HostEnd { worker, ports, punted, replies })
    }

    /// Copies the punted slots; `gone` holds the frames of all slots that are not live, in order.
    #[cold]
    #[inline(never)]
    pub(super) fn copy(&mut self, batch: &Batch, gone: &Burst, port: u16, now: u64, counters: &PuntCounters) {
        let slots = Mask::first(BURST).without(batch.live());
        for (slot, frame) in slots.into_iter().zip(gone.as_slice()) {
            if batch.punted().has(slot) {
                let counter = self.one(port, frame.data(), now, counters);
                counter.add(1);
            }
        }
    }

    /// Copies one frame that was punted.
    #[cold]
    #[inline(never)]
    pub(crate) fn offer(&mut self, port: u16, frame: &[u8], now: u64, counters: &PuntCounters) {
        self.one(port, frame, now, counters).add(1);
    }

    fn one<'a>(&mut self, port: u16, frame: &[u8], now: u64, counters: &'a PuntCounters) -> &'a Counter {
        // Who may not come in uses up nobody's rate.
        let Guest::Known(source) = self.guests.look(port, frame) else { return &counters.refused };
        let bucket = ((source ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % BUCKETS;
        let Some(own) = self.sources.get_mut(bucket) else { return &counters.rate_limited };
        if !own.has_one(now) || !self.all.has_one(now) {
            return &counters.rate_limited;
        }
        if !self.out.write(port, frame) {
            return &counters.no_room;
        }
        own.take();
        self.all.take();
        &counters.copied
    }

    /// Has the host stack something to be sent?
    #[inline(always)]
    pub(crate) fn has_replies(&self) -> bool {
        !self.back.is_empty()
    }

    /// Sends what the host stack has for the port, a bounded number. Says how many were taken from the ring.
    #[cold]
    #[inline(never)]
    pub(crate) fn send(&mut self, lanes: &mut [Lane], made: &mut Burst, counters: &WorkerCounters) -> usize {
        let mut taken = 0;
        while taken < REPLIES
            && let Some((port, len)) = self.back.peek()
        {
            taken += 1;
            let lane = lanes.iter_mut().find(|Lane(queues)| queues.port == port);
            let frame = lane.as_ref().and_then(|_| self.pool.alloc());
            let Some((Lane(queues), mut frame)) = lane.zip(frame) else {
                self.back.take(&mut []);
                counters.punt.no_buffer.add(1);
                continue;
            };
            let took = match frame.append(len) {
                Some(room) => self.back.take(room),
                None => !self.back.take(&mut []),
            };
            if !took || made.push(frame).is_err() {
                counters.punt.no_buffer.add(1);
                continue;
            }
            counters.punt.replies.add(1);
            tx::made(&mut queues.tx, made, counters);
        }
        taken
    }
}
