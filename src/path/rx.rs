//! Hop 1, rx: a queue -> a batch of at most 64 frames, prefetched.
//!
//! May drop: [`DropReason::Chained`]. Every frame that leaves this hop has one segment (S6 of the fence).

use super::counters::WorkerCounters;
use crate::dpdk::RxQueue;
use crate::packet::{Batch, DropReason};

/// Frames whose headers are asked for ahead of decap; the rest follow while decap works on these.
const AHEAD: usize = 8;

/// Fills the (empty) batch from the queue and says how many frames came, those that died here included.
#[inline(always)]
pub(crate) fn run(queue: &mut RxQueue, burst: usize, batch: &mut Batch, counters: &WorkerCounters) -> usize {
    let n = queue.receive(&mut batch.frames, burst);
    if n == 0 {
        return 0;
    }
    counters.received.add(n as u64);
    let (chained, bytes) = batch.frames.drop_chained();
    batch.weigh(bytes);
    counters.received_bytes.add(bytes);
    if chained > 0 {
        counters.drop(DropReason::Chained.into(), chained as u64);
    }
    for frame in batch.frames.as_slice().iter().take(AHEAD) {
        frame.prefetch();
    }
    batch.begin();
    n
}

/// How far ahead of the current slot decap should prefetch.
pub(super) const fn ahead() -> usize {
    AHEAD
}
