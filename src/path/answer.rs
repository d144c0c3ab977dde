//! Answers to packets that may not pass: made in buffers of their own, in the tunnel, and never too many.
//!
//! Not a hop: inspect and encap ask for an answer where a verdict or a size calls for one, and tx sends it with everything
//! else. The packet that is answered is neither changed nor decided here.
//!
//! Promises: no more than `rate` answers per second and worker (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f), so that nobody can
//! make us send what he pays for with one packet each; no answer larger than the load balancer takes back; every request
//! counted as exactly one of made, rate limited, not answerable, no buffer. Reads no clock and allocates buffers only.
//!
//! The pool: an `rte_mempool` may be asked by any thread. On a worker's lcore a buffer comes from that lcore's cache, tens of cycles; the
//! caches of the ports' pool are sized for whole bursts, so that pool is the one to give.

use super::counters::Counter;
use crate::dpdk::{Burst, Mempool};
use crate::flow::{Envelope, Home, head_len, seal};
use crate::packet::Meta;
use crate::wire::answer::{self, Offending};
use crate::wire::geneve::Profile;

/// What a nanosecond clock counts in a second.
const SECOND: u64 = 1_000_000_000;
/// Longest outer IP packet of ours: what any port carries, whatever the options.
const LONGEST_OUTER: usize = 1500;

/// What to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A TCP reset for the sender.
    ResetSender,
    /// A TCP reset for the receiver, with the sequence number that it expects next if anybody knows it.
    ResetReceiver {
        /// See [`answer::reset_to_receiver`].
        next_sequence: Option<u32>,
    },
    /// ICMP: administratively prohibited, for the sender.
    Prohibited,
    /// ICMP: packet too big, for the sender.
    TooBig {
        /// Largest inner packet that would get through.
        mtu: u16,
    },
}

impl Answer {
    /// Does it travel against the packet that it answers?
    pub fn is_back(self) -> bool {
        !matches!(self, Answer::ResetReceiver { .. })
    }

    /// Bytes that it takes at most.
    fn most(self, packet: usize, v6: bool) -> usize {
        // IP and ICMP headers in front of the quote.
        let (headers, most) = if v6 { (48, answer::MAX_V6) } else { (28, answer::MAX_V4) };
        match self {
            Answer::ResetSender | Answer::ResetReceiver { .. } => answer::MAX_RESET,
            Answer::Prohibited | Answer::TooBig { .. } => most.min(packet + headers),
        }
    }

    fn write(self, offending: &Offending<'_>, out: &mut [u8]) -> Option<usize> {
        match self {
            Answer::ResetSender => answer::reset_to_sender(offending, out),
            Answer::ResetReceiver { next_sequence } => {
                answer::reset_to_receiver(offending, next_sequence, out)
            }
            Answer::Prohibited => answer::prohibited(offending, out),
            Answer::TooBig { mtu } => answer::too_big(offending, mtu, out),
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a made answer is one more frame for tx"]
pub enum Outcome {
    /// The answer is the last frame of the burst.
    Made,
    /// There were too many already.
    RateLimited,
    /// The packet is one that gets no such answer.
    NotAnswerable,
    /// The pool is empty, or the burst full.
    NoBuffer,
}

/// The newest envelopes of a flow, as far as they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of the direction in which the packet travels.
    pub on: Option<Envelope>,
    /// Of the other direction.
    pub back: Option<Envelope>,
}

/// One answer that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to say.
    pub what: Answer,
    /// The frame that it is about, as decap let it in.
    pub frame: &'a [u8],
    /// What decap found in it.
    pub meta: &'a Meta,
    /// What its flow remembers.
    pub seen: Seen,
}

/// What one worker's answers came to. One writer, like all counters of a worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct AnswerCounters {
    /// TCP resets made, to either side.
    pub resets: Counter,
    /// "Administratively prohibited" made.
    pub prohibited: Counter,
    /// "Packet too big" made.
    pub too_big: Counter,
    /// Requests beyond the rate.
    pub rate_limited: Counter,
    /// Requests about packets that get no such answer.
    pub not_answerable: Counter,
    /// Requests for which there was no buffer.
    pub no_buffer: Counter,
}

/// [`AnswerCounters`] at one moment. The fields mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct AnswerSnapshot {
    pub resets: u64,
    pub prohibited: u64,
    pub too_big: u64,
    pub rate_limited: u64,
    pub not_answerable: u64,
    pub no_buffer: u64,
}

impl AnswerSnapshot {
    /// Frames that were made here: they are sent without having been received.
    pub fn made(&self) -> u64 {
        self.resets + self.prohibited + self.too_big
    }
}

impl AnswerCounters {
    /// The values now.
    pub fn snapshot(&self) -> AnswerSnapshot {
        AnswerSnapshot {
            resets: self.resets.get(),
            prohibited: self.prohibited.get(),
            too_big: self.too_big.get(),
            rate_limited: self.rate_limited.get(),
            not_answerable: self.not_answerable.get(),
            no_buffer: self.no_buffer.get(),
        }
    }

    /// Frames that were made here: they are sent without having been received.
    pub fn made(&self) -> u64 {
        self.resets.get() + self.prohibited.get() + self.too_big.get()
    }

    #[inline]
    fn count(&self, what: Answer, outcome: Outcome) {
        let counter = match (outcome, what) {
            (Outcome::Made, Answer::ResetSender | Answer::ResetReceiver { .. }) => &self.resets,
            (Outcome::Made, Answer::Prohibited) => &self.prohibited,
            (Outcome::Made, Answer::TooBig { .. }) => &self.too_big,
            (Outcome::RateLimited, _) => &self.rate_limited,
            (Outcome::NotAnswerable, _) => &self.not_answerable,
            (Outcome::NoBuffer, _) => &self.no_buffer,
        };
        counter.add(1);
    }
}

/// One worker's answers: where its buffers come from and how many it may send.
#[derive(Debug)]
pub struct Answers {
    pool: Mempool,
    profile: &'static Profile,
    max_return: usize,
    bucket: Bucket,
}

impl Answers {
    /// Answers under this profile, none larger than `max_return`, at most `rate` per second (0: none) and a tenth of that at once.
    pub fn new(pool: Mempool, profile: &'static Profile, max_return: u16, rate: u32) -> Self {
        Answers { pool, profile, max_return: max_return.into(), bucket: Bucket::new(rate) }
    }

    /// Goes on with the rate of those that were in force until now.
    pub(super) fn take_over(&mut self, others: &Answers) {
        self.bucket.take_over(&others.bucket);
    }

    /// Makes one answer and appends it to `out`. `now` is in nanoseconds and does not go back.
    #[cold]
    #[inline(never)]
    pub fn answer(
        &mut self,
        now: u64,
        request: &Request<'_>,
        out: &mut Burst,
        counters: &AnswerCounters,
    ) -> Outcome {
        let outcome = self.make(now, request, out);
        counters.count(request.what, outcome);
        outcome
    }

    /// Cheap questions first: a flood of what gets no answer costs no buffer, and what cannot be made costs no rate.
    fn make(&mut self, now: u64, request: &Request<'_>, out: &mut Burst) -> Outcome {
        let Request { what, frame, meta, seen } = *request;
        let Some(offending) = offending(frame, meta).filter(Offending::may_be_answered) else {
            return Outcome::NotAnswerable;
        };
        if !self.bucket.has_one(now) {
            return Outcome::RateLimited;
        }
        if out.room() == 0 {
            return Outcome::NoBuffer;
        }
        let Some(mut made) = self.pool.alloc() else { return Outcome::NoBuffer };
        let head = head_len(meta);
        let most = what
            .most(offending.packet.len(), meta.is_ipv6())
            .min(self.max_return)
            .min((LONGEST_OUTER + usize::from(meta.outer)).saturating_sub(head))
            .min(made.tailroom().saturating_sub(head));
        let home = match what.is_back() {
            true => Home::back(meta, seen.back, self.profile),
            false => Home::on(meta, seen.on),
        };
        let Some(room) = made.append(head + most) else { return Outcome::NoBuffer };
        let Some(len) = room.get_mut(head..).and_then(|inner| what.write(&offending, inner)) else {
            return Outcome::NotAnswerable;
        };
        made.truncate(head + len);
        if seal(made.data_mut(), frame, meta, self.profile, home).is_none() {
            return Outcome::NotAnswerable;
        }
        match out.push(made) {
            Ok(()) => {
                self.bucket.take();
                Outcome::Made
            }
            Err(_) => Outcome::NoBuffer,
        }
    }
}

/// The inner packet of a frame that decap let in.
fn offending<'a>(frame: &'a [u8], meta: &Meta) -> Option<Offending<'a>> {
    let inner = usize::from(meta.inner);
    Some(Offending {
        packet: frame.get(inner..inner + usize::from(meta.inner_len))?,
        transport: usize::from(meta.transport).saturating_sub(inner),
        protocol: meta.protocol,
        flags: meta.flags,
    })
}

/// A token bucket, counted in packets times nanoseconds per second, so that no rate is rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: u64,
    most: u64,
    level: u64,
    at: u64,
}

impl Bucket {
    /// Full: a tenth of a second's worth, and one at least.
    pub(super) fn new(rate: u32) -> Self {
        let most = if rate == 0 { 0 } else { u64::from(rate / 10).max(1) * SECOND };
        Bucket { rate: rate.into(), most, level: most, at: 0 }
    }

    pub(super) fn has_one(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.at).saturating_mul(self.rate);
        self.level = self.level.saturating_add(earned).min(self.most);
        self.at = self.at.max(now);
        self.level >= SECOND
    }

    /// Goes on from what the other has left: whoever changes buckets has earned nothing by it.
    pub(super) fn take_over(&mut self, other: &Bucket) {
        (self.level, self.at) = (other.level.min(self.most), other.at);
    }

    pub(super) fn take(&mut self) {
        self.level = self.level.saturating_sub(SECOND);
    }
}

#[cfg(test)]
mod tests;
