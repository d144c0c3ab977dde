//! Receive and transmit queues: one match per burst.

use super::{Burst, soft};

/// A receive queue. One poller (S5).
#[derive(Debug)]
pub enum RxQueue {
    /// Of a soft port.
    Soft(soft::RxQueue),
    /// Of an ethdev.
    #[cfg(feature = "dpdk")]
    Eal(super::eal::RxQueue),
    /// Of a port that does not run: nothing comes.
    Away,
}

impl RxQueue {
    /// Appends up to `room` frames (and no more than the burst has room for) and says how many.
    #[inline(always)]
    pub fn receive(&mut self, burst: &mut Burst, room: usize) -> usize {
        match self {
            RxQueue::Soft(queue) => queue.receive(burst, room),
            #[cfg(feature = "dpdk")]
            RxQueue::Eal(queue) => queue.receive(burst, room),
            RxQueue::Away => 0,
        }
    }
}

/// A transmit queue. One sender (S5).
#[derive(Debug)]
pub enum TxQueue {
    /// Of a soft port.
    Soft(soft::TxQueue),
    /// Of an ethdev.
    #[cfg(feature = "dpdk")]
    Eal(super::eal::TxQueue),
    /// Of a port that does not run: it takes nothing.
    Away,
}

impl TxQueue {
    /// Hands frames to the port from the front of the burst and says how many it took; those are gone from the
    /// burst, the rest stay in it, in order.
    #[inline(always)]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        match self {
            TxQueue::Soft(queue) => queue.send(burst),
            #[cfg(feature = "dpdk")]
            TxQueue::Eal(queue) => queue.send(burst),
            TxQueue::Away => 0,
        }
    }

    /// Does its port not run?
    pub fn is_away(&self) -> bool {
        matches!(self, TxQueue::Away)
    }
}
