//! Ports without hardware and without C: frames go in and come out through a [`Wire`].

pub mod pcap;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::port::{LinkStatus, PortConfig, PortFacts, PortStats, QueuePair, RssFacts};
use super::{Burst, Error, Mempool};

/// The far end of a soft port.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<Cable>>);

#[derive(Debug, Default)]
struct Cable {
    to_port: VecDeque<Vec<u8>>,
    from_port: VecDeque<Vec<u8>>,
    stats: PortStats,
}

impl Wire {
    /// Puts a frame on the wire towards the port.
    pub fn send(&self, frame: Vec<u8>) {
        self.0.lock().to_port.push_back(frame);
    }

    /// Takes the oldest frame that the port has sent.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.0.lock().from_port.pop_front()
    }
}

/// A soft port that is not running.
#[derive(Debug)]
pub struct Port {
    wire: Wire,
}

impl Port {
    /// A port and the far end of its wire.
    pub fn new() -> (super::Port, Wire) {
        let wire = Wire::default();
        (super::Port::Soft(Port { wire: wire.clone() }), wire)
    }

    pub(super) fn start(
        self,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(RunningPort, Vec<QueuePair>), Error> {
        let facts = PortFacts {
            device: "soft0".into(),
            driver: "soft".into(),
            id: 0,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: config.mtu,
            numa: None,
            queues: 1,
            max_queues: 1,
            rx_descriptors: config.rx_descriptors,
            tx_descriptors: config.tx_descriptors,
            rss: RssFacts::default(),
            rx_ip_checksum: false,
            rx_udp_checksum: false,
            tx_ip_checksum: false,
            tx_udp_checksum: false,
            notes: Vec::new(),
        };
        let queues = vec![QueuePair {
            queue: 0,
            port: 0,
            rx: super::RxQueue::Soft(RxQueue { wire: self.wire.clone(), pool: pool.clone() }),
            tx: super::TxQueue::Soft(TxQueue { wire: self.wire.clone() }),
        }];
        Ok((RunningPort { wire: self.wire, facts }, queues))
    }
}

/// A soft port that is running.
#[derive(Debug)]
pub struct RunningPort {
    wire: Wire,
    facts: PortFacts,
}

impl RunningPort {
    pub(super) fn facts(&self) -> &PortFacts {
        &self.facts
    }

    pub(super) fn stats(&self) -> PortStats {
        self.wire.0.lock().stats
    }

    pub(super) fn link(&self) -> LinkStatus {
        LinkStatus { up: true, speed_mbps: None }
    }

    pub(super) fn stop(self, _queues: Vec<QueuePair>) -> Port {
        Port { wire: self.wire }
    }
}

/// Receive side.
#[derive(Debug)]
pub struct RxQueue {
    wire: Wire,
    pool: Mempool,
}

impl RxQueue {
    pub(super) fn receive(&mut self, burst: &mut Burst, room: usize) -> usize {
        let mut cable = self.wire.0.lock();
        let mut n = 0;
        while n < room.min(burst.room()) {
            let Some(bytes) = cable.to_port.pop_front() else { break };
            let Some(mut frame) = self.pool.alloc() else {
                cable.stats.rx_no_buffer += 1;
                break;
            };
            if !frame.write(&bytes) || burst.push(frame).is_err() {
                cable.stats.rx_errors += 1;
                continue;
            }
            cable.stats.rx_packets += 1;
            n += 1;
        }
        n
    }
}

/// Transmit side.
#[derive(Debug)]
pub struct TxQueue {
    wire: Wire,
}

impl TxQueue {
    pub(super) fn send(&mut self, burst: &mut Burst) -> usize {
        let mut cable = self.wire.0.lock();
        let mut n = 0;
        for frame in burst.drain() {
            cable.from_port.push_back(frame.data().to_vec());
            cable.stats.tx_packets += 1;
            n += 1;
        }
        n
    }
}
