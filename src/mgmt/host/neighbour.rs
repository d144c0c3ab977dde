//! Whoever sends to us is a neighbour whose MAC address we know: it stands in the frame.
//!
//! smoltcp asks by ARP before it answers, once a second for all neighbours together. So one packet from an address that does not exist
//! would hold up the answer to a load balancer's node for a second, and a flood of them for as long as it goes on; and after a restart
//! nobody is known, while the others still know us. Here an ARP reply is made of each IPv4 frame that wants an answer, for smoltcp to
//! learn from before it reads the frame: the sender's own address, or the gateway's where the sender is behind it. That is what a host
//! may learn from any ARP packet, so it makes nothing believed that was not before.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpAddress, IpCidr};

use crate::wire::eth::{self, Eth};
use crate::wire::ipv4::Ipv4;

/// Ethernet, and ARP for Ethernet and IPv4 (RFC 826).
const LEN: usize = 14 + 28;

/// An ARP reply to us from whoever the answer to this frame goes to. `None` if it is no IPv4 frame to one of our addresses.
pub(super) fn arp(frame: &[u8], own: &[IpCidr], gateway: Option<Ipv4Addr>) -> Option<[u8; LEN]> {
    let eth =
        Eth::new_checked(frame).ok().filter(|eth| eth.ethertype() == eth::IPV4 && eth.vlan().is_none())?;
    let ip = Ipv4::new_checked(eth.payload()).ok()?;
    let (source, destination) = (ip.source(), ip.destination());
    let ours = own.iter().find(|cidr| cidr.address() == IpAddress::Ipv4(destination))?;
    let next = if ours.contains_addr(&IpAddress::Ipv4(source)) { source } else { gateway? };
    let (us, sender) = (eth.destination(), eth.source());
    let mut reply = [0; LEN];
    let parts: [&[u8]; 7] = [
        &us,
        &sender,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2],
        &sender,
        &next.octets(),
        &us,
        &destination.octets(),
    ];
    let bytes = parts.into_iter().flatten();
    reply.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Ipv4Cidr};

    fn frame(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut frame =
            vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 0x08, 0x00, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0];
        frame.extend(source);
        frame.extend(destination);
        frame
    }

    #[test]
    fn the_sender_is_learned_or_the_gateway_in_front_of_it() {
        let own = [IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Addr::new(10, 0, 8, 20), 24))];
        let gateway = Some(Ipv4Addr::new(10, 0, 8, 1));
        let learned = |source, gateway| {
            let reply = arp(&frame(source, [10, 0, 8, 20]), &own, gateway)?;
            let packet = ArpPacket::new_checked(&reply[14..]).unwrap();
            let ArpRepr::EthernetIpv4 {
                operation,
                source_hardware_addr,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = ArpRepr::parse(&packet).unwrap()
            else {
                panic!("not ARP for IPv4")
            };
            assert_eq!((operation, target_protocol_addr), (ArpOperation::Reply, Ipv4Addr::new(10, 0, 8, 20)));
            assert_eq!(source_hardware_addr, EthernetAddress([2, 0, 0, 0, 9, 9]));
            Some(source_protocol_addr.octets())
        };
        assert_eq!(learned([10, 0, 8, 60], gateway), Some([10, 0, 8, 60]));
        assert_eq!(learned([10, 0, 9, 60], gateway), Some([10, 0, 8, 1]));
        assert_eq!(learned([10, 0, 9, 60], None), None);
        assert_eq!(arp(&frame([10, 0, 8, 60], [10, 0, 8, 21]), &own, gateway), None, "not to us");
        let whole = frame([10, 0, 8, 60], [10, 0, 8, 20]);
        assert!((0..whole.len()).all(|len| arp(&whole[..len], &own, gateway).is_none()), "cut short");
    }
}
