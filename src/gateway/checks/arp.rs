//! ARP for IPv4 over Ethernet (RFC 826): packets to fields and back.

use std::net::Ipv4Addr;

use crate::wire::eth;

/// A MAC address.
pub type Mac = [u8; 6];

/// To everybody.
pub(super) const BROADCAST: Mac = [0xff; 6];
/// Hardware Ethernet, protocol IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
/// An ARP packet.
const LEN: usize = 28;

/// What an ARP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arp {
    /// It asks; else it answers.
    pub asks: bool,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads what follows an Ethernet header. `None` if it is nothing that hosts send each other.
    pub fn parse(bytes: &[u8]) -> Option<Arp> {
        let bytes = bytes.first_chunk::<LEN>()?;
        let (kind, rest) = bytes.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let target = *rest.first_chunk::<4>()?;
        let asks = match u16::from_be_bytes(*operation) {
            1 => true,
            2 => false,
            _ => return None,
        };
        // No host has the address of a group, or none.
        let is_host = sender_mac[0] & 1 == 0 && *sender_mac != [0; 6];
        (*kind == KIND && is_host).then_some(Arp {
            asks,
            sender_mac: *sender_mac,
            sender: Ipv4Addr::from(*sender),
            target_mac: *target_mac,
            target: Ipv4Addr::from(target),
        })
    }

    /// A frame with it, to this address.
    pub fn frame(&self, to: Mac) -> Vec<u8> {
        let operation = if self.asks { 1u16 } else { 2 };
        let mut frame = Vec::with_capacity(eth::HEADER_LEN + LEN);
        frame.extend(to);
        frame.extend(self.sender_mac);
        frame.extend(eth::ARP.to_be_bytes());
        frame.extend(KIND);
        frame.extend(operation.to_be_bytes());
        frame.extend(self.sender_mac);
        frame.extend(self.sender.octets());
        frame.extend(self.target_mac);
        frame.extend(self.target.octets());
        frame
    }
}

/// A MAC address as people write it.
pub(super) fn spelled(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame};

    proptest! {
        /// What is written is read, by smoltcp as well.
        #[test]
        fn frames_say_what_they_are_made_of(asks: bool, a: u32, b: u32, mut from: Mac, to: Mac) {
            from[0] = from[0] & 0xfe | 2;
            let arp = Arp { asks, sender_mac: from, sender: a.into(), target_mac: to, target: b.into() };
            let frame = arp.frame(BROADCAST);
            prop_assert_eq!(Arp::parse(&frame[14..]), Some(arp));
            let eth = EthernetFrame::new_checked(&frame[..]).unwrap();
            prop_assert!(eth.dst_addr().is_broadcast() && eth.src_addr() == EthernetAddress(from));
            let read = ArpRepr::parse(&ArpPacket::new_checked(eth.payload()).unwrap()).unwrap();
            let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_hardware_addr, target_protocol_addr } = read else {
                panic!("{read:?}")
            };
            prop_assert_eq!(operation, if asks { ArpOperation::Request } else { ArpOperation::Reply });
            prop_assert_eq!((source_hardware_addr.0, target_hardware_addr.0), (from, to));
            prop_assert_eq!((source_protocol_addr, target_protocol_addr), (a.into(), b.into()));
        }

        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(arp) = Arp::parse(&bytes) {
                prop_assert_eq!(&arp.frame(BROADCAST)[14..], &bytes[..LEN]);
            }
        }
    }

    #[test]
    fn what_no_host_sends_is_not_read() {
        let good = Arp {
            asks: false,
            sender_mac: [2, 0, 0, 0, 0, 9],
            sender: [10, 0, 1, 9].into(),
            target_mac: [2, 0, 0, 0, 0, 1],
            target: [10, 0, 1, 1].into(),
        };
        let bytes = good.frame(BROADCAST)[14..].to_vec();
        assert_eq!(Arp::parse(&bytes), Some(good));
        for (at, byte, why) in [
            (1, 6, "another network"),
            (2, 0x86, "another protocol"),
            (4, 8, "longer addresses"),
            (7, 3, "RARP"),
            (8, 3, "the MAC address of a group"),
        ] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(Arp::parse(&bytes), None, "{why}");
        }
        assert_eq!(Arp::parse(&bytes[..LEN - 1]), None);
        assert_eq!(spelled(good.sender_mac), "02:00:00:00:00:09");
    }
}
