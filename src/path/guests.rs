//! Who may reach the host stack: asked of each punted frame before it is copied.
//!
//! ARP, and IP packets of those sources that the plan names or that share a port's subnet. Everything else that is punted goes
//! nowhere. The frame is anybody's: whatever cannot be read is refused, and nothing here can panic or loops over what a frame claims.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::{IpNet, Ipv4Net};

use crate::wire::eth::{self, Eth};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::udp::Udp;

/// IP protocol UDP.
const UDP: u8 = 17;
/// Ports of DHCP: server, client.
const DHCP: [u16; 2] = [67, 68];

/// Sources that are let in. Clones share what is learned.
#[derive(Clone, Debug)]
pub struct Guests {
    /// Nobody is refused.
    everybody: bool,
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
    /// Subnets of ports that learn theirs by DHCP: port, and network above mask; a mask of zero is none.
    learned: Arc<[(u16, AtomicU64)]>,
}

/// What a frame is, to whoever asks who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Let in; the number is the same for frames of the same source.
    Known(u64),
    /// Not one of the sources.
    Stranger,
    /// Neither ARP nor an IP packet that can be read.
    Other,
}

impl Guests {
    /// These sources; `None` is everybody. `dhcp` names the ports that ask for their addresses.
    pub fn new(sources: Option<&[IpNet]>, dhcp: &[u16]) -> Self {
        let v4 = sources.into_iter().flatten().filter_map(|net| match net {
            IpNet::V4(net) => Some((net.network().to_bits(), net.netmask().to_bits())),
            IpNet::V6(_) => None,
        });
        let v6 = sources.into_iter().flatten().filter_map(|net| match net {
            IpNet::V6(net) => Some((net.network().to_bits(), net.netmask().to_bits())),
            IpNet::V4(_) => None,
        });
        let learned = dhcp.iter().map(|&port| (port, AtomicU64::new(0))).collect();
        Guests { everybody: sources.is_none(), v4: v4.collect(), v6: v6.collect(), learned }
    }

    /// A port has its subnet now, or lost it.
    pub fn learn(&self, port: u16, subnet: Option<Ipv4Net>) {
        let word = subnet
            .map_or(0, |net| u64::from(net.network().to_bits()) << 32 | u64::from(net.netmask().to_bits()));
        if let Some((_, place)) = self.learned.iter().find(|(own, _)| *own == port) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Who sends this frame, that came in on this port?
    pub fn look(&self, port: u16, frame: &[u8]) -> Guest {
        let Ok(eth) = Eth::new_checked(frame) else { return Guest::Other };
        match eth.ethertype() {
            eth::ARP => {
                let [a, b, c, d, e, f] = eth.source();
                Guest::Known(u64::from_be_bytes([1, 0, a, b, c, d, e, f]))
            }
            eth::IPV4 => match Ipv4::new_checked(eth.payload()) {
                Ok(ip) if self.has_v4(port, ip.source()) || self.is_dhcp(port, &ip) => {
                    Guest::Known(u64::from(ip.source().to_bits()))
                }
                Ok(_) => Guest::Stranger,
                Err(_) => Guest::Other,
            },
            eth::IPV6 => match Ipv6::new_checked(eth.payload()) {
                Ok(ip) if self.has_v6(ip.source()) => {
                    let bits = ip.source().to_bits();
                    Guest::Known((bits >> 64) as u64 ^ bits as u64)
                }
                Ok(_) => Guest::Stranger,
                Err(_) => Guest::Other,
            },
            _ if self.everybody => {
                let [a, b, c, d, e, f] = eth.source();
                Guest::Known(u64::from_be_bytes([1, 0, a, b, c, d, e, f]))
            }
            _ => Guest::Other,
        }
    }

    /// May this address come in by this port?
    pub fn has(&self, port: u16, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(source) => self.has_v4(port, source),
            IpAddr::V6(source) => self.has_v6(source),
        }
    }

    fn has_v4(&self, port: u16, source: Ipv4Addr) -> bool {
        let bits = source.to_bits();
        let learned = || {
            self.learned.iter().any(|(own, word)| {
                let word = word.load(Ordering::Relaxed);
                let (network, mask) = ((word >> 32) as u32, word as u32);
                *own == port && mask != 0 && bits & mask == network
            })
        };
        self.everybody || self.v4.iter().any(|(network, mask)| bits & mask == *network) || learned()
    }

    fn has_v6(&self, source: Ipv6Addr) -> bool {
        let bits = source.to_bits();
        self.everybody || self.v6.iter().any(|(network, mask)| bits & mask == *network)
    }

    /// An answer of a DHCP server to a port that asks: it may come from anywhere (a relay's server).
    fn is_dhcp(&self, port: u16, ip: &Ipv4<'_>) -> bool {
        self.learned.iter().any(|(own, _)| *own == port)
            && ip.protocol() == UDP
            && !ip.is_fragment()
            && Udp::new_checked(ip.payload())
                .is_ok_and(|udp| [udp.source_port(), udp.destination_port()] == DHCP)
    }
}

/// One case of the fuzz target `mgmt_guests` and of the property test: whoever is let in is one whom an independent reading of the
/// frame finds among the sources.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    let nets: Vec<IpNet> =
        ["10.0.8.0/24", "10.0.9.7/32", "fe80::/10"].iter().map(|n| n.parse().unwrap()).collect();
    let guests = Guests::new(Some(&nets), &[1]);
    for port in [0, 1] {
        let known = matches!(guests.look(port, bytes), Guest::Known(_));
        assert!(matches!(Guests::new(None, &[]).look(port, bytes), Guest::Known(_)) || !known);
        // Read by hand, without the crate's parsers.
        let tag = if bytes.get(12..14) == Some(&[0x81, 0]) { 4 } else { 0 };
        let kind = bytes.get(12 + tag..14 + tag);
        let ip = bytes.get(14 + tag..).unwrap_or(&[]);
        if !known {
            continue;
        }
        match kind.unwrap() {
            [0x08, 0x06] => {}
            [0x08, 0x00] => {
                let source = &ip[12..16];
                let dhcp = port == 1 && ip[9] == 17;
                assert!(source[..3] == [10, 0, 8] || source == [10, 0, 9, 7] || dhcp, "{source:?}");
            }
            [0x86, 0xdd] => assert!(ip[8] == 0xfe && ip[9] & 0xc0 == 0x80),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(source: [u8; 4], protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(source);
        frame.extend([255; 4]);
        ports.iter().for_each(|port| frame.extend(port.to_be_bytes()));
        frame.extend([0, 8, 0, 0]);
        frame
    }

    #[test]
    fn sources_are_those_of_the_plan_and_of_subnets_that_are_learned() {
        let net: IpNet = "10.0.8.0/24".parse().unwrap();
        let guests = Guests::new(Some(&[net]), &[3]);
        let known = |port, source| matches!(guests.look(port, &v4(source, 6, [1, 2])), Guest::Known(_));
        assert!(known(0, [10, 0, 8, 255]) && !known(0, [10, 0, 9, 0]));
        guests.learn(3, Some("10.0.9.20/28".parse().unwrap()));
        guests.clone().learn(4, Some("10.0.10.1/24".parse().unwrap()));
        assert!(known(3, [10, 0, 9, 17]) && !known(3, [10, 0, 9, 32]), "its subnet, to the bit");
        assert!(!known(0, [10, 0, 9, 17]) && !known(4, [10, 0, 10, 1]), "on the port that asked, only");
        guests.learn(3, None);
        assert!(!known(3, [10, 0, 9, 17]));
        assert!(guests.has(0, [10, 0, 8, 1].into()) && !guests.has(0, [9, 0, 8, 1].into()));
    }

    #[test]
    fn servers_of_dhcp_come_in_where_somebody_asks() {
        let guests = Guests::new(Some(&[]), &[1]);
        for (port, protocol, ports, known) in [
            (1, 17, [67, 68], true),
            (0, 17, [67, 68], false),
            (1, 17, [68, 67], false),
            (1, 6, [67, 68], false),
        ] {
            let found = guests.look(port, &v4([9, 9, 9, 9], protocol, ports));
            assert_eq!(matches!(found, Guest::Known(_)), known, "{port} {protocol} {ports:?}");
        }
    }

    #[test]
    fn frames_of_other_kinds_are_a_taps_only() {
        let lldp = [&[2; 12][..], &[0x88, 0xcc, 0]].concat();
        assert_eq!(Guests::new(Some(&[]), &[]).look(0, &lldp), Guest::Other);
        assert!(matches!(Guests::new(None, &[]).look(0, &lldp), Guest::Known(_)));
        assert_eq!(Guests::new(None, &[]).look(0, &lldp[..13]), Guest::Other);
    }

    proptest! {
        #[test]
        fn nobody_comes_in_who_may_not(
            kind in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), Just([0x81, 0x00]), any::<[u8; 2]>()],
            source in prop_oneof![Just([10u8, 0, 8]), Just([10, 0, 9]), Just([0xfe, 0x80, 0])],
            mut rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if rest.len() > 16 && kind == [0x08, 0x00] {
                rest[0] = 0x45;
                rest[2..4].copy_from_slice(&[0, 24]);
                rest[12..15].copy_from_slice(&source);
            }
            if rest.len() > 41 && kind == [0x86, 0xdd] {
                rest[0] = 0x60;
                rest[4..6].fill(0);
                rest[8..11].copy_from_slice(&source);
            }
            arbitrary_input(&[&[2; 12][..], &kind, &rest].concat());
        }
    }
}
