//! Queues of an ethdev: one call into DPDK per burst.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Eal;
use crate::dpdk::Burst;

/// A receive queue of a running port.
#[derive(Debug)]
pub struct RxQueue {
    pub(super) port: u16,
    pub(super) queue: u16,
    _eal: Eal,
    _not_sync: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// Made by `Port::start` only, once per queue (S5).
    pub(super) fn new(eal: &Eal, port: u16, queue: u16) -> Self {
        RxQueue { port, queue, _eal: eal.clone(), _not_sync: PhantomData }
    }

    #[inline(always)]
    pub(in crate::dpdk) fn receive(&mut self, burst: &mut Burst, room: usize) -> usize {
        let old = burst.0.len();
        let count = room.min(burst.0.remaining_capacity());
        // SAFETY: S5, the port runs and nobody else polls the queue. DPDK writes at most `count` pointers into the spare
        // capacity, each a non-null mbuf (S1, S2) that is ours from now on (S3); `Mbuf` is a transparent pointer.
        unsafe {
            let spare = burst.0.as_mut_ptr().add(old).cast();
            let got = dpdk_sys::sg_rx_burst(self.port, self.queue, spare, count as u16) as usize;
            burst.0.set_len(old + got);
            got
        }
    }
}

/// A transmit queue of a running port.
#[derive(Debug)]
pub struct TxQueue {
    pub(super) port: u16,
    pub(super) queue: u16,
    _eal: Eal,
    _not_sync: PhantomData<Cell<()>>,
}

impl TxQueue {
    /// Made by `Port::start` only, once per queue (S5).
    pub(super) fn new(eal: &Eal, port: u16, queue: u16) -> Self {
        TxQueue { port, queue, _eal: eal.clone(), _not_sync: PhantomData }
    }

    #[inline(always)]
    pub(in crate::dpdk) fn send(&mut self, burst: &mut Burst) -> usize {
        let mut lost = 0;
        // A driver would free a soft buffer into a pool that is none. The header's line is warm: the path has written
        // the frame's length or flags there.
        if burst.0.iter().any(|frame| frame.is_soft()) {
            lost = drop_soft(burst);
        }
        let count = burst.0.len();
        // SAFETY: S5, the port runs and nobody else sends on the queue. The vector owns `count` buffers of EAL pools; the
        // driver takes the first `sent`, which leave the vector without being dropped (S3); the rest move to the front.
        unsafe {
            let frames = burst.0.as_mut_ptr();
            let sent = dpdk_sys::sg_tx_burst(self.port, self.queue, frames.cast(), count as u16) as usize;
            burst.0.set_len(0);
            if sent < count {
                std::ptr::copy(frames.add(sent), frames, count - sent);
                burst.0.set_len(count - sent);
            }
            sent + lost
        }
    }
}

/// Frees soft frames: a mistake of the caller, which loses them as a wire might.
#[cold]
fn drop_soft(burst: &mut Burst) -> usize {
    let before = burst.0.len();
    burst.0.retain(|frame| !frame.is_soft());
    before - burst.0.len()
}
