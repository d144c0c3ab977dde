//! The reference: every rule in turn. Plain and obviously right, as slow as the rules are many.
//!
//! It serves builds and replays without DPDK, and every other classifier is tested against it.

use std::net::IpAddr;

use super::rule::Rule;
use crate::packet::{InnerFlags, Meta};

/// What rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// IANA number of the transport protocol.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Ports, or ICMP type and code and the echo identifier; `None` if the packet shows none.
    pub ports: Option<(u16, u16)>,
}

impl Key {
    /// The key of an inner packet; `None` if it ends inside its IP header.
    pub fn of(meta: &Meta, inner: &[u8]) -> Option<Self> {
        let (source, destination) = if meta.is_ipv6() {
            let [source, destination] =
                *inner.get(8..)?.first_chunk::<32>()?.as_chunks::<16>().0.first_chunk()?;
            (IpAddr::from(source), IpAddr::from(destination))
        } else {
            let [source, destination] =
                *inner.get(12..)?.first_chunk::<8>()?.as_chunks::<4>().0.first_chunk()?;
            (IpAddr::from(source), IpAddr::from(destination))
        };
        let ports = shows_ports(meta).then_some((meta.source_port, meta.destination_port));
        Some(Key { protocol: meta.protocol, source, destination, ports })
    }
}

/// Does the packet show ports or an ICMP type?
#[inline(always)]
pub fn shows_ports(meta: &Meta) -> bool {
    meta.flags.has(InnerFlags::PORTS | InnerFlags::ICMP)
}

/// The first rule that decides on the packet. Rules in front of it that match and let the search go on are told to `seen`.
pub fn search(rules: &[Rule], key: &Key, mut seen: impl FnMut(usize)) -> Option<usize> {
    for (number, rule) in rules.iter().enumerate() {
        if rule.matches(key) {
            if rule.action.decides() {
                return Some(number);
            }
            seen(number);
        }
    }
    None
}
