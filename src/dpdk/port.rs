//! A port: stopped ([`Port`]) or running ([`RunningPort`]). The type says which, so nobody polls a stopped one.
//!
//! ```compile_fail
//! # fn f(mut queues: Vec<sluicegate::dpdk::QueuePair>, port: sluicegate::dpdk::RunningPort) {
//! let rx = &mut queues[0].rx;
//! let stopped = port.stop(queues); // takes the handles back: `rx` still borrows one
//! rx.receive(&mut sluicegate::dpdk::Burst::new(), 32);
//! # }
//! ```
//!
//! ```compile_fail
//! # fn f(queues: Vec<sluicegate::dpdk::QueuePair>) {
//! let two_pollers = queues[0].clone(); // a handle is given out once
//! # }
//! ```
//!
//! ```compile_fail
//! # fn f(queue: &sluicegate::dpdk::RxQueue) {
//! fn share<T: Sync>(_: &T) {}
//! share(queue); // one lcore per queue
//! # }
//! ```

use std::fmt;

use super::{Error, Mempool, RxQueue, TxQueue, soft};

/// How a port should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Queue pairs.
    pub queues: u16,
    /// Receive descriptors per queue; the driver's limits are applied.
    pub rx_descriptors: u16,
    /// Transmit descriptors per queue; the driver's limits are applied.
    pub tx_descriptors: u16,
    /// Largest IP packet in bytes (Ethernet header not included).
    pub mtu: u16,
    /// Receive every destination MAC address.
    pub promiscuous: bool,
    /// Receive every multicast address: neighbour discovery of IPv6 needs some.
    pub multicast: bool,
    /// Receive-side scaling of the outer header.
    pub rss: RssConfig,
}

impl Default for PortConfig {
    fn default() -> Self {
        let rss = RssConfig::default();
        PortConfig {
            queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            multicast: false,
            rss,
        }
    }
}

/// What is asked of receive-side scaling. A driver that cannot do it keeps its own; [`PortFacts`] tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssConfig {
    /// Toeplitz key; `None` leaves the driver's.
    pub key: Option<Vec<u8>>,
    /// Redirection table entry `i` = queue of hash `i` modulo the table's size; `None` spreads queues evenly.
    pub reta: Option<Vec<u16>>,
}

/// What is true of a running port, as read back from the driver.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PortFacts {
    /// Device as named by the user: a PCI address or a vdev.
    pub device: String,
    /// Driver, e.g. `net_ena`.
    pub driver: String,
    /// DPDK's port number.
    pub id: u16,
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// NUMA node, if the device has one.
    pub numa: Option<u32>,
    /// Queue pairs in use.
    pub queues: u16,
    /// Most receive queues the device offers.
    pub max_queues: u16,
    /// Receive descriptors per queue.
    pub rx_descriptors: u16,
    /// Transmit descriptors per queue.
    pub tx_descriptors: u16,
    /// RSS as it is in effect.
    pub rss: RssFacts,
    /// The driver verifies outer IPv4 header checksums.
    pub rx_ip_checksum: bool,
    /// The driver verifies outer UDP checksums.
    pub rx_udp_checksum: bool,
    /// The driver computes outer IPv4 header checksums.
    pub tx_ip_checksum: bool,
    /// The driver computes outer UDP checksums.
    pub tx_udp_checksum: bool,
    /// What was asked for and is not in effect, one sentence each.
    pub notes: Vec<String>,
}

/// Receive-side scaling in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RssFacts {
    /// Hash functions in effect, in DPDK's names (`ipv4-udp`); empty: no RSS, all frames arrive on queue 0.
    pub functions: Vec<String>,
    /// The key in effect, if the driver tells.
    pub key: Option<Vec<u8>>,
    /// Queue of each redirection table entry, if the driver tells.
    pub reta: Option<Vec<u16>>,
    /// The driver delivers the hash with each frame.
    pub hash_delivered: bool,
}

/// Link of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LinkStatus {
    /// Carrier.
    pub up: bool,
    /// Megabit per second; `None` if the driver does not say (virtual devices, ENA).
    pub speed_mbps: Option<u32>,
}

/// What a port's interrupts have said since they were last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PortEvents {
    /// The link went up or down: read [`RunningPort::link`].
    pub link_changed: bool,
    /// The device needs a reset: [`RunningPort::stop`], [`Port::reset`], [`Port::start`].
    pub reset_wanted: bool,
}

/// What the driver counted since the port started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because no descriptor was free (`imissed`): the workers were too slow.
    pub rx_missed: u64,
    /// Frames lost because the pool was empty (`rx_nombuf`).
    pub rx_no_buffer: u64,
    /// Frames received in error (`ierrors`).
    pub rx_errors: u64,
    /// Frames the device failed to send (`oerrors`).
    pub tx_errors: u64,
}

/// One receive and one transmit queue of the same number.
#[derive(Debug)]
pub struct QueuePair {
    /// Queue number.
    pub queue: u16,
    /// Port number.
    pub port: u16,
    /// Largest IP packet that the port takes, in bytes ([`PortFacts::mtu`]).
    pub mtu: u16,
    /// Receive side.
    pub rx: RxQueue,
    /// Transmit side.
    pub tx: TxQueue,
}

impl QueuePair {
    /// What a worker has in place of a pair while its port does not run: nothing comes by it, and it takes nothing.
    pub fn away(port: u16, queue: u16) -> Self {
        QueuePair { queue, port, mtu: u16::MAX, rx: RxQueue::Away, tx: TxQueue::Away }
    }

    /// Is it in the place of another?
    pub fn is_away(&self) -> bool {
        self.tx.is_away()
    }
}

/// A port that is not running.
#[derive(Debug)]
pub enum Port {
    /// On the heap.
    Soft(soft::Port),
    /// An ethdev.
    #[cfg(feature = "dpdk")]
    Eal(super::eal::Port),
}

/// A port that is running. Its queues are with the workers.
#[derive(Debug)]
pub enum RunningPort {
    /// On the heap.
    Soft(soft::RunningPort),
    /// An ethdev.
    #[cfg(feature = "dpdk")]
    Eal(super::eal::RunningPort),
}

/// A port that would not stop, with everything that was handed in.
pub struct StopError {
    /// Still running.
    pub port: RunningPort,
    /// The handles, given back.
    pub queues: Vec<QueuePair>,
    /// Why.
    pub error: Error,
}

impl fmt::Debug for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StopError({})", self.error)
    }
}

/// A port that would not start.
pub struct StartError {
    /// Stopped still.
    pub port: Port,
    /// Why.
    pub error: Error,
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartError({})", self.error)
    }
}

impl Port {
    /// Most queue pairs that the device offers.
    pub fn max_queues(&self) -> u16 {
        match self {
            Port::Soft(port) => port.max_queues(),
            #[cfg(feature = "dpdk")]
            Port::Eal(port) => port.max_queues(),
        }
    }

    /// Largest MTU that the device says it takes; the driver may still refuse it.
    pub fn max_mtu(&self) -> u16 {
        match self {
            Port::Soft(port) => port.max_mtu(),
            #[cfg(feature = "dpdk")]
            Port::Eal(port) => port.max_mtu(),
        }
    }

    /// Resets a device that asked for it ([`PortEvents::reset_wanted`]). It may take seconds, and afterwards the port knows nothing of how it was configured.
    /// False if the driver has no reset: then there is nothing better than to start it again.
    pub fn reset(&mut self) -> Result<bool, Error> {
        match self {
            Port::Soft(port) => port.reset(),
            #[cfg(feature = "dpdk")]
            Port::Eal(port) => port.reset(),
        }
    }

    /// Configures and starts the port; its queue pairs, in order, are given out once (S5).
    pub fn start(self, config: &PortConfig, pool: &Mempool) -> Result<(RunningPort, Vec<QueuePair>), Error> {
        self.try_start(config, pool).map_err(|refused| refused.error)
    }

    /// The same; if it fails the port comes back.
    pub fn try_start(
        self,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(RunningPort, Vec<QueuePair>), Box<StartError>> {
        match self {
            Port::Soft(port) => {
                port.start(config, pool).map(|(port, queues)| (RunningPort::Soft(port), queues))
            }
            #[cfg(feature = "dpdk")]
            Port::Eal(port) => {
                port.start(config, pool).map(|(port, queues)| (RunningPort::Eal(port), queues))
            }
        }
    }
}

impl RunningPort {
    /// What is in effect.
    pub fn facts(&self) -> &PortFacts {
        match self {
            RunningPort::Soft(port) => port.facts(),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.facts(),
        }
    }

    /// The driver's counters; all zero if it has none, or cannot tell.
    pub fn stats(&self) -> PortStats {
        self.try_stats().unwrap_or_default()
    }

    /// The driver's counters, if it can tell: a device that wants a reset may not.
    pub fn try_stats(&self) -> Option<PortStats> {
        match self {
            RunningPort::Soft(port) => Some(port.stats()),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.stats(),
        }
    }

    /// The driver's own counters by name; empty if it has none.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        match self {
            RunningPort::Soft(port) => port.xstats(),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.xstats(),
        }
    }

    /// The link, without waiting for it.
    pub fn link(&self) -> LinkStatus {
        match self {
            RunningPort::Soft(port) => port.link(),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.link(),
        }
    }

    /// What its interrupts have said; asking clears it.
    pub fn events(&self) -> PortEvents {
        match self {
            RunningPort::Soft(port) => port.events(),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.events(),
        }
    }

    /// As if its device had asked for a reset ([`PortEvents::reset_wanted`]).
    pub fn want_reset(&self) {
        match self {
            RunningPort::Soft(port) => port.want_reset(),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.want_reset(),
        }
    }

    /// Stops the port. Every queue pair that start gave out must be handed in.
    pub fn stop(self, queues: Vec<QueuePair>) -> Result<Port, Box<StopError>> {
        let (id, want) = (self.facts().id, self.facts().queues);
        let mut have: Vec<u16> = queues.iter().filter(|q| q.port == id).map(|q| q.queue).collect();
        have.sort_unstable();
        let away = queues.iter().any(QueuePair::is_away);
        if away || queues.len() != want as usize || !have.into_iter().eq(0..want) {
            let what =
                format!("port {id}: {} of its {want} queue pairs were handed in to stop it", queues.len());
            let error = Error::Refused { what, remedy: None };
            return Err(Box::new(StopError { port: self, queues, error }));
        }
        match self {
            RunningPort::Soft(port) => Ok(Port::Soft(port.stop(queues))),
            #[cfg(feature = "dpdk")]
            RunningPort::Eal(port) => port.stop(queues).map(Port::Eal),
        }
    }
}
