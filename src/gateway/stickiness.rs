//! What goes together: the part of a packet's tuple that decides on its target.
//!
//! | stickiness | TCP, UDP, SCTP, ... | other protocols |
//! |---|---|---|
//! | 5-tuple (default) | addresses, protocol, ports | addresses, protocol (echo: and identifier) |
//! | 3-tuple | addresses, protocol | addresses, protocol |
//! | 2-tuple | addresses | addresses |
//!
//! It is also what the gateway calls a flow: 2- and 3-tuple exist for applications whose connections belong together (FTP, RDP), so the
//! second connection must find the target of the first even if targets have come or gone meanwhile.
//!
//! Both directions have the same key. An ICMP error belongs to the flow that it quotes. Fragments, the first included, go by 3-tuple under
//! 5-tuple stickiness: later ones have no ports, and what is put together again must meet in one place. So a flow's fragments may meet another
//! target than its whole packets do. AWS documents no rule.

use crate::flow::{Key, Seed, Tuple, quoted};
use crate::packet::{InnerFlags, Meta};
use crate::wire::inner::Inner;

const FRAGMENT: u8 = InnerFlags::FIRST_FRAGMENT | InnerFlags::LATER_FRAGMENT;

/// Which part of the tuple counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
pub enum Stickiness {
    /// Addresses, protocol, ports.
    #[default]
    #[serde(rename = "5-tuple")]
    FiveTuple,
    /// Addresses, protocol.
    #[serde(rename = "3-tuple")]
    ThreeTuple,
    /// Addresses.
    #[serde(rename = "2-tuple")]
    TwoTuple,
}

/// What a packet is balanced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// The flow, within its endpoint.
    pub key: Key,
    /// The packet was sent by the end that is the higher of the key's two.
    pub from_high: bool,
    /// It only tells of the flow: an ICMP error, which opens none.
    pub related: bool,
}

impl Stickiness {
    /// The key of an inner packet, which `inner` was read from. `None` for an ICMP error that quotes nothing one could follow.
    #[inline(always)]
    pub fn key(self, endpoint: u64, inner: &Inner, packet: &[u8]) -> Option<Balanced> {
        if inner.flags.has(InnerFlags::ICMP) {
            let meta = about(inner);
            if quoted::is_error(&meta) {
                return self.quoted(endpoint, &meta, packet);
            }
        }
        let fragment = inner.flags.has(FRAGMENT);
        let ports = match self {
            Stickiness::FiveTuple if !fragment && inner.flags.has(InnerFlags::PORTS) => {
                (inner.source_port, inner.destination_port)
            }
            Stickiness::FiveTuple if !fragment && inner.flags.has(InnerFlags::ICMP) => {
                (inner.destination_port, inner.destination_port)
            }
            _ => (0, 0),
        };
        let protocol = if self == Stickiness::TwoTuple { 0 } else { inner.protocol };
        let ipv6 = inner.flags.has(InnerFlags::IPV6);
        let (key, from_high) = Key::of_ends(endpoint, ipv6, protocol, packet, ports)?;
        Some(Balanced { key, from_high, related: false })
    }
}

impl Stickiness {
    /// An error travels against the packet that it quotes.
    #[cold]
    fn quoted(self, endpoint: u64, meta: &Meta, packet: &[u8]) -> Option<Balanced> {
        let (key, quoted_from_high) = quoted::key(endpoint, meta, packet)?;
        let tuple = self.narrow(key.tuple(quoted_from_high));
        let (header, ports) = (addresses(&tuple), (tuple.source_port, tuple.destination_port));
        let (key, from_high) =
            Key::of_ends(endpoint, tuple.source.is_ipv6(), tuple.protocol, &header, ports)?;
        Some(Balanced { key, from_high: !from_high, related: true })
    }

    /// The part of a tuple that counts.
    fn narrow(self, tuple: Tuple) -> Tuple {
        match self {
            Stickiness::FiveTuple => tuple,
            Stickiness::ThreeTuple => Tuple { source_port: 0, destination_port: 0, ..tuple },
            Stickiness::TwoTuple => Tuple { source_port: 0, destination_port: 0, protocol: 0, ..tuple },
        }
    }
}

/// What the flow engine reads of a packet that begins its frame.
#[cold]
fn about(inner: &Inner) -> Meta {
    Meta {
        protocol: inner.protocol,
        flags: inner.flags,
        inner_len: inner.len,
        transport: inner.transport,
        transport_len: inner.transport_len,
        source_port: inner.source_port,
        destination_port: inner.destination_port,
        ..Meta::default()
    }
}

/// An IP header with these addresses and nothing else.
fn addresses(tuple: &Tuple) -> [u8; 40] {
    use std::net::IpAddr;
    let mut header = [0; 40];
    let mut put = |at: usize, octets: &[u8]| {
        if let Some(place) = header.get_mut(at..at + octets.len()) {
            place.copy_from_slice(octets);
        }
    };
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(12, &source.octets());
            put(16, &destination.octets());
        }
        (source, destination) => {
            put(8, &wide(source).octets());
            put(24, &wide(destination).octets());
        }
    }
    header
}

fn wide(address: std::net::IpAddr) -> std::net::Ipv6Addr {
    match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
        std::net::IpAddr::V6(address) => address,
    }
}

/// The hash by which gateways balance. All of a fleet must have the same, hence a number from the configuration instead of a random one;
/// whoever keeps it secret keeps others from choosing tuples that all meet one target.
pub fn balance_seed(number: u64) -> Seed {
    Seed::fixed(number)
}

impl Balanced {
    /// The hash by which a flow is balanced, whatever its endpoint: one that leaves by one endpoint and returns by another meets one target.
    #[inline(always)]
    pub fn hash(&self, seed: &Seed) -> u64 {
        seed.hash(&self.key.without_scope())
    }
}

#[cfg(test)]
mod tests;
