//! A port of DPDK as a link: one queue pair, polled by whoever judges.

use std::time::Duration;

use super::Link;
use crate::dpdk::{BURST, Burst, Mempool, QueuePair};

/// How long nobody looks when nothing came: the appliance may need this CPU.
const PAUSE: Duration = Duration::from_micros(20);

/// A queue pair and the buffers for what is sent.
#[derive(Debug)]
pub struct PortLink {
    mac: [u8; 6],
    lane: QueuePair,
    pool: Mempool,
    came: Burst,
    /// Frames of the burst, the next one last.
    next: Vec<Vec<u8>>,
}

impl PortLink {
    /// A link over the only queue pair of a port with this address.
    pub fn new(mac: [u8; 6], lane: QueuePair, pool: Mempool) -> Self {
        PortLink { mac, lane, pool, came: Burst::new(), next: Vec::new() }
    }

    /// The queue pair, to stop the port with.
    pub fn into_lane(self) -> QueuePair {
        self.lane
    }
}

impl Link for PortLink {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> usize {
        usize::from(self.lane.mtu)
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        let Some(mut buffer) = self.pool.alloc() else { return false };
        let mut burst = Burst::new();
        let fits = buffer.write(frame) && burst.push(buffer).is_ok();
        fits && self.lane.tx.send(&mut burst) == 1
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        if self.next.is_empty() {
            self.lane.rx.receive(&mut self.came, BURST);
            self.next.extend(
                self.came.drain().filter(|frame| frame.segments() == 1).map(|frame| frame.data().to_vec()),
            );
            self.next.reverse();
        }
        self.next.pop()
    }

    fn idle(&mut self) {
        std::thread::sleep(PAUSE);
    }
}
