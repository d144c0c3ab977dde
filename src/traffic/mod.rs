//! The other side: traffic as a gateway load balancer sends it, and a check of what comes back.
//!
//! [`Traffic`] is a pure function from (flow, lap) to a frame, fixed by a [`Mix`] and its seed. [`Generator`] walks it
//! lap by lap; [`Checker`] finds out from a returned frame which one it must be, makes it again and compares every
//! byte. So neither keeps what was sent, both run at line rate, and a failure can be repeated from the seed.
//!
//! Frames have the layout of AWS GWLB: Ethernet / IPv4 (TTL 255, ID 0, DF clear) / UDP 60000..65535 -> 6081 with a
//! valid checksum / GENEVE with the three options / inner IP, no inner Ethernet. Endpoints share their inner
//! addresses, both directions of a flow share the outer port and the cookie, and a TCP connection that starts again
//! on old ports gets a new cookie.

mod envelope;
mod flow;
mod generator;
mod checker;
pub mod pcap;

pub use checker::{Checker, Example, Report};
pub use envelope::{ENVELOPE, Envelope, Identity, inner_packet, is_tunnel, wrap};
pub use flow::{DENIED_TCP, DENIED_UDP, Flow};
pub use generator::{Generator, Sent, Traffic};

/// Longest inner packet that is made: what the load balancer takes back.
pub const MAX_INNER: usize = 8500;
/// A buffer of this size holds every frame.
pub const MAX_FRAME: usize = ENVELOPE + MAX_INNER;
/// Most flows of one mix: their numbers have 20 bits of the cookie.
pub const MAX_FLOWS: u32 = 1 << 20;

/// What traffic to make. The same mix makes the same bytes on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Everything that looks random comes from it.
    pub seed: u64,
    /// Flows, 1 to [`MAX_FLOWS`].
    pub flows: u32,
    /// Share of TCP; the rest is UDP.
    pub tcp_percent: u8,
    /// Share of inner IPv6; the rest is IPv4. The outer header is always IPv4.
    pub ipv6_percent: u8,
    /// Share of flows to a service that a firewall is expected to deny: [`DENIED_TCP`], [`DENIED_UDP`].
    pub denied_percent: u8,
    /// Lengths of inner packets that carry data.
    pub sizes: Sizes,
    /// Endpoints, each with the same inner addresses.
    pub endpoints: u16,
    /// Load balancer nodes, each with an address of its own.
    pub nodes: u8,
    /// Data goes both ways; otherwise from client to server only.
    pub both_directions: bool,
    /// What becomes of a TCP flow.
    pub tcp: Tcp,
    /// Addresses of the first node and the first endpoint; others count up from there.
    pub envelope: Envelope,
}

impl Default for Mix {
    /// A thousand flows, mostly TCP over IPv4, in whole connections both ways, one in ten to a denied service.
    fn default() -> Self {
        Mix {
            seed: 1,
            flows: 1000,
            tcp_percent: 70,
            ipv6_percent: 30,
            denied_percent: 10,
            sizes: Sizes::Imix,
            endpoints: 4,
            nodes: 2,
            both_directions: true,
            tcp: Tcp::Connections { data: 64 },
            envelope: Envelope::default(),
        }
    }
}

impl Mix {
    /// For measuring: data only, from client to server, nothing denied, one endpoint and node, UDP over IPv4.
    pub fn bench(flows: u32, sizes: Sizes) -> Self {
        Mix {
            flows,
            sizes,
            tcp_percent: 0,
            ipv6_percent: 0,
            denied_percent: 0,
            endpoints: 1,
            nodes: 1,
            both_directions: false,
            tcp: Tcp::DataOnly,
            ..Mix::default()
        }
    }
}

/// Lengths of inner packets with data, IP header included. Too short for headers and a mark of four bytes means as
/// short as can be (32 bytes for UDP over IPv4, 64 for TCP over IPv6); too long means [`MAX_INNER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same.
    Fixed(u16),
    /// Seven of 64, four of 512 and one of 1400 bytes.
    Imix,
}

/// What becomes of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    /// Data for ever, as if the handshake was long ago.
    DataOnly,
    /// Handshake, so many segments with data, FIN from both sides; then again on the same ports.
    Connections {
        /// Segments with data in one connection, both directions together.
        data: u32,
    },
}

#[cfg(test)]
mod tests;
