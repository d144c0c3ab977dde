//! Hop 6, tx: survivors out, the dead freed in bulk, everything counted.
//!
//! May drop: [`DropReason::TxFull`], [`DropReason::PortReset`]. Afterwards the batch is empty.

use super::counters::{Taken, WorkerCounters};
use crate::dpdk::{Burst, TxQueue};
use crate::packet::{Batch, DropReason, Mask};

/// Times a full queue is asked again before frames are dropped.
pub const RETRIES: usize = 16;

/// Sends the live slots and counts what became of all of them. Frames of other slots are in `dead` when `part` is called, in their
/// order; what it leaves there is freed.
#[inline(always)]
pub(super) fn run(
    queue: &mut TxQueue,
    batch: &mut Batch,
    dead: &mut Burst,
    counters: &WorkerCounters,
    part: impl FnOnce(&Batch, &mut Burst),
) -> Taken {
    let live = batch.live();
    let bytes = batch.bytes_home();
    if live != Mask::first(batch.len()) {
        bury(batch, dead, counters);
        part(batch, dead);
        dead.free();
    }
    let edited = batch.edited() & live;
    if !edited.is_empty() {
        counters.edited.add(edited.count() as u64);
    }
    let frames = &mut batch.frames;
    if frames.is_empty() {
        return Taken::default();
    }
    let offered = frames.len();
    let mut sent = queue.send(frames);
    if sent < offered {
        sent += retry(queue, frames);
    }
    counters.sent.add(sent as u64);
    let (mut lost_bytes, mut full) = (0, 0);
    if sent < offered {
        let (lost, why) = (offered - sent, lost_by(queue));
        lost_bytes = frames.as_slice().iter().map(|f| f.len() as u64).sum();
        counters.drop(why.into(), lost as u64);
        // A batch is a few dozen frames.
        full = if why == DropReason::TxFull { lost as u32 } else { 0 };
        frames.free();
    }
    counters.sent_bytes.add(bytes - lost_bytes);
    Taken { sent: sent as u32, full }
}

/// Sends frames of our own and counts them.
#[cold]
pub(super) fn made(queue: &mut TxQueue, frames: &mut Burst, counters: &WorkerCounters) {
    send(queue, frames, counters);
}

/// Sends all frames of a burst, or counts them as lost. Afterwards it is empty.
#[inline(always)]
pub(crate) fn send(queue: &mut TxQueue, frames: &mut Burst, counters: &WorkerCounters) {
    let (offered, bytes) = (frames.len(), frames.as_slice().iter().map(|f| f.len() as u64).sum::<u64>());
    let mut sent = queue.send(frames);
    if sent < offered {
        sent += retry(queue, frames);
    }
    let lost_bytes: u64 = frames.as_slice().iter().map(|f| f.len() as u64).sum();
    counters.sent.add(sent as u64);
    counters.sent_bytes.add(bytes - lost_bytes);
    if sent < offered {
        counters.drop(lost_by(queue).into(), (offered - sent) as u64);
        frames.free();
    }
}

/// Counts every slot that is not live, and takes the frames of those out.
#[cold]
fn bury(batch: &mut Batch, dead: &mut Burst, counters: &WorkerCounters) {
    counters.punted.add(batch.punted().count() as u64);
    for slot in batch.dropped() {
        counters.drop(batch.reason(slot), 1);
    }
    let live = batch.live();
    batch.frames.split(live.0, dead);
}

/// Why the queue did not take what is left.
#[cold]
fn lost_by(queue: &TxQueue) -> DropReason {
    if queue.is_away() { DropReason::PortReset } else { DropReason::TxFull }
}

#[cold]
fn retry(queue: &mut TxQueue, frames: &mut Burst) -> usize {
    let mut sent = 0;
    if queue.is_away() {
        return sent;
    }
    for _ in 0..RETRIES {
        std::hint::spin_loop();
        sent += queue.send(frames);
        if frames.is_empty() {
            break;
        }
    }
    sent
}
