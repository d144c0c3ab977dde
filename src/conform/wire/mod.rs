//! Ways to an appliance: outer IPv4 packets go there, and what comes back is passed on as it came.
//!
//! [`Kernel`] uses raw sockets of the kernel, which routes and asks for neighbours; [`Ethernet`] does that itself over anything that
//! carries frames ([`Link`]): a port of DPDK ([`PortLink`]), or the far end of a soft port in tests.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

pub mod kernel;
pub mod ethernet;
pub mod port;

pub use ethernet::{Ethernet, Link};
pub use kernel::Kernel;
pub use port::PortLink;

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// The way takes no packets of that length.
    TooLong,
    /// There was no room for it now.
    Full,
}

/// A health check: connections that are opened and left alone, then one more that says something and reads the answer.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// TCP port.
    pub port: u16,
    /// Connections that are open meanwhile.
    pub beside: usize,
    /// What is said; `None`: the connection is only made.
    pub request: Option<&'a str>,
    /// How long all of it may take.
    pub wait: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The connection was made, and as much came back (nothing if nothing was said).
    Answer(Vec<u8>),
    /// The connection was refused, or reset.
    Refused,
    /// No answer to the SYN.
    Silent,
    /// The connection was made, and no answer came to what was said.
    Hangs,
}

/// Most bytes of an answer that are read.
const ANSWER: usize = 4096;

/// A way to an appliance.
pub trait Wire {
    /// Our address: the load balancer's node, as the appliance sees it.
    fn us(&self) -> Ipv4Addr;

    /// The appliance's.
    fn appliance(&self) -> Ipv4Addr;

    /// Outer IPv4 header checksums go out as they are; otherwise something on the way makes them right.
    fn keeps_header(&self) -> bool;

    /// Sends an outer IPv4 packet.
    fn send(&mut self, packet: &[u8]) -> io::Result<Sent>;

    /// The next outer IPv4 packet that is tunnel traffic or the appliance's; `None` if there was none in that time, or none can come any more.
    fn receive(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>>;

    /// A health check.
    fn ask(&mut self, ask: Ask<'_>) -> io::Result<Asked>;
}
