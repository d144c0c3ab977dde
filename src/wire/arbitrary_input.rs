//! What the formats promise for any bytes, as code: every getter answers, and what it says hangs together.
//!
//! One function for each outside format. Property tests and the fuzz targets in `fuzz/` call the same functions; they panic when a
//! promise is broken. Compiled for tests and fuzzing only.

use crate::packet::InnerFlags;

use super::eth::{self, Eth};
use super::geneve::{self, Geneve, Profile};
use super::icmp::{self, Family, Icmp};
use super::inner::Inner;
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::tcp::{self, Tcp};
use super::udp::{self, Udp};
use super::{checksum, transport};

/// An Ethernet frame, and whatever is in it.
pub fn eth(bytes: &[u8]) {
    let Ok(frame) = Eth::new_checked(bytes) else {
        assert!(bytes.len() < eth::HEADER_LEN + 4);
        return;
    };
    assert_eq!(frame.header_len() + frame.payload().len(), bytes.len());
    let fields = eth::Fields {
        destination: frame.destination(),
        source: frame.source(),
        ethertype: frame.ethertype(),
    };
    let again = fields.emit();
    match frame.vlan() {
        None => assert_eq!(bytes.first_chunk(), Some(&again)),
        Some(vlan) => {
            assert!(vlan < 4096);
            assert_eq!(bytes.first_chunk::<12>(), again.first_chunk());
        }
    }
    match frame.ethertype() {
        eth::IPV4 => ipv4(frame.payload()),
        eth::IPV6 => ipv6(frame.payload()),
        _ => {}
    }
}

/// An IPv4 packet, and the transport header in it.
pub fn ipv4(bytes: &[u8]) {
    let Ok(ip) = Ipv4::new_checked(bytes) else { return };
    let total = usize::from(ip.total_len());
    assert!(total <= bytes.len() && (20..=60).contains(&ip.header_len()));
    assert_eq!(ip.header_len() + ip.payload().len(), total);
    assert_eq!(ip.is_fragment(), ip.more_fragments() || ip.fragment_offset() != 0);
    assert_eq!(ip.fragment_offset() % 8, 0);
    let header = bytes.get(..ip.header_len()).unwrap_or(&[]);
    assert_eq!(ip.header_checksum_ok(), checksum::sum(header) == 0xffff);
    let again = ipv4::Fields {
        tos: ip.tos(),
        total_len: ip.total_len(),
        id: ip.id(),
        dont_fragment: ip.dont_fragment(),
        ttl: ip.ttl(),
        protocol: ip.protocol(),
        source: ip.source(),
        destination: ip.destination(),
    }
    .emit();
    // What `Fields` cannot say: options, fragments, the reserved bit. 0 and ffff are the same checksum.
    let reserved = header.get(6).is_some_and(|b| b & 0x80 != 0);
    if ip.header_checksum_ok() && !ip.is_fragment() && !reserved && ip.options().is_empty() {
        assert!(header == again || ip.header_checksum() == 0xffff);
    }
    let emitted = Ipv4::new_checked(&again).map(|ip| ip.header_checksum_ok());
    assert!(emitted == Ok(true) || total > ipv4::HEADER_LEN);
    transport(ip.protocol(), ip.payload());
}

/// An IPv6 packet, its extension headers, and the transport header behind them.
pub fn ipv6(bytes: &[u8]) {
    let Ok(ip) = Ipv6::new_checked(bytes) else { return };
    assert_eq!(ip.payload().len(), usize::from(ip.payload_len()));
    assert!(ipv6::HEADER_LEN + ip.payload().len() <= bytes.len());
    let again = ipv6::Fields {
        traffic_class: ip.traffic_class(),
        flow_label: ip.flow_label(),
        payload_len: ip.payload_len(),
        next_header: ip.next_header(),
        hop_limit: ip.hop_limit(),
        source: ip.source(),
        destination: ip.destination(),
    };
    assert_eq!(bytes.first_chunk(), Some(&again.emit()));
    let Ok(upper) = ip.upper() else { return };
    assert_eq!(upper.offset + upper.payload.len(), ipv6::HEADER_LEN + ip.payload().len());
    assert_eq!(bytes.get(upper.offset..upper.offset + upper.payload.len()), Some(upper.payload));
    if let Some(fragment) = upper.fragment {
        assert!(fragment.offset % 8 == 0 && fragment.len >= upper.payload.len());
        assert!(fragment.offset == 0 || fragment.len == upper.payload.len());
    }
    transport(upper.protocol, upper.payload);
}

/// The payload of an IP packet.
pub fn transport(protocol: u8, bytes: &[u8]) {
    match protocol {
        transport::TCP => tcp(bytes),
        transport::UDP => udp(bytes),
        transport::ICMP => icmp(Family::V4, bytes),
        transport::ICMPV6 => icmp(Family::V6, bytes),
        _ => {}
    }
}

/// A TCP segment.
pub fn tcp(bytes: &[u8]) {
    let Ok(segment) = Tcp::new_checked(bytes) else { return };
    assert!((20..=60).contains(&segment.header_len()));
    assert_eq!(segment.header_len() + segment.payload().len(), bytes.len());
    assert_eq!(transport::ports(bytes), Some((segment.source_port(), segment.destination_port())));
    let options: Vec<_> = segment.options().collect();
    let space = segment.header_len() - tcp::HEADER_LEN;
    assert!(options.iter().flatten().map(|o| 2 + o.data.len()).sum::<usize>() <= space);
    assert!(options.iter().rev().skip(1).all(|o| o.is_ok()), "an error is the last item");
    let fields = tcp::Fields {
        source_port: segment.source_port(),
        destination_port: segment.destination_port(),
        sequence: segment.sequence(),
        acknowledgment: segment.acknowledgment(),
        flags: segment.flags(),
        window: segment.window(),
        checksum: segment.checksum(),
    };
    let again = fields.emit();
    let reserved = bytes.get(12).is_some_and(|b| b & 0x0f != 0);
    if space == 0 && segment.urgent() == 0 && !reserved {
        assert_eq!(bytes.first_chunk(), Some(&again));
    }
}

/// A UDP datagram.
pub fn udp(bytes: &[u8]) {
    let Ok(datagram) = Udp::new_checked(bytes) else { return };
    assert_eq!(udp::HEADER_LEN + datagram.payload().len(), usize::from(datagram.len()));
    assert_eq!(datagram.is_empty(), datagram.len() == 8);
    let again = udp::Fields {
        source_port: datagram.source_port(),
        destination_port: datagram.destination_port(),
        len: datagram.len(),
        checksum: datagram.checksum(),
    };
    assert_eq!(bytes.first_chunk(), Some(&again.emit()));
    let (here, there) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut copy = bytes.get(..datagram.len().into()).unwrap_or(&[]).to_vec();
    let set = |copy: &mut Vec<u8>, sum: u16| copy.splice(6..8, sum.to_be_bytes()).for_each(drop);
    set(&mut copy, 0);
    let right = checksum::udp_v4(here, there, &copy);
    set(&mut copy, right);
    assert!(right != 0 && checksum::verify_udp_v4(here, there, &copy));
    set(&mut copy, right ^ 0x0100);
    assert!(!checksum::verify_udp_v4(here, there, &copy) || right == 0x0100);
}

/// An ICMP or ICMPv6 message.
pub fn icmp(family: Family, bytes: &[u8]) {
    let Ok(message) = Icmp::new_checked(family, bytes) else {
        assert!(bytes.len() < icmp::HEADER_LEN);
        return;
    };
    assert_eq!(icmp::HEADER_LEN + message.rest().len(), bytes.len());
    assert!(message.echo_id().is_none() || !message.is_error());
    assert_eq!(message.quoted().is_some(), message.is_error() && bytes.len() >= 8);
    if let Some(parameter) = message.parameter() {
        let fields = icmp::Fields {
            kind: message.kind(),
            code: message.code(),
            checksum: message.checksum(),
            parameter,
        };
        assert_eq!(bytes.first_chunk(), Some(&fields.emit()));
    }
}

/// A UDP payload on port 6081, read under every profile.
pub fn geneve(bytes: &[u8]) {
    let Ok(packet) = Geneve::new_checked(bytes) else { return };
    assert!((8..=260).contains(&packet.header_len()) && packet.header_len() % 4 == 0);
    assert_eq!(packet.header_len() + packet.payload().len(), bytes.len());
    assert_eq!(packet.behind().len(), packet.options_bytes().len() + packet.payload().len());
    assert!(packet.vni() < 1 << 24);
    let fields = geneve::Fields {
        options_len: packet.options_bytes().len(),
        protocol: packet.protocol(),
        vni: packet.vni(),
    };
    if bytes.get(1) == Some(&0) && bytes.get(7) == Some(&0) {
        assert_eq!(bytes.first_chunk(), Some(&fields.emit()));
    }
    let options: Vec<_> = packet.options().collect();
    assert!(options.len() <= 63);
    assert!(options.iter().rev().skip(1).all(|o| o.is_ok()), "an error is the last item");
    let used: usize = options.iter().flatten().map(|o| 4 + o.data.len()).sum();
    assert!(options.iter().any(|o| o.is_err()) || used == packet.options_bytes().len());
    let unreserved = without_reserved_bits(bytes, &packet);
    let unreserved = Geneve::new_checked(&unreserved);
    for profile in Profile::ALL {
        let read = profile.read(&packet);
        let mut walked = profile.walk(packet.options_bytes());
        if let (geneve::Scope::Vni, Ok(found)) = (profile.scope, &mut walked) {
            found.endpoint = packet.vni().into();
        }
        assert_eq!(read, walked, "{}: the fixed shape and the walk disagree", profile.name);
        assert_eq!(unreserved.as_ref().map(|p| profile.read(p)), Ok(read), "reserved bits are ignored");
    }
}

fn without_reserved_bits(bytes: &[u8], packet: &Geneve<'_>) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    let mut clear = |at: usize, keep: u8| copy.iter_mut().skip(at).take(1).for_each(|b| *b &= keep);
    clear(1, 0xc0);
    clear(7, 0);
    let mut at = geneve::HEADER_LEN;
    for option in packet.options().flatten() {
        clear(at + 3, 0x1f);
        at += 4 + option.data.len();
    }
    copy
}

/// What follows a GENEVE header, under both protocol types.
pub fn inner(bytes: &[u8]) {
    for ethertype in [eth::IPV4, eth::IPV6] {
        let parsed = Inner::parse(bytes, ethertype);
        let Ok(inner) = parsed else { continue };
        let len = usize::from(inner.len);
        assert_eq!(inner.flags.has(InnerFlags::IPV6), ethertype == eth::IPV6);
        let packet = bytes.get(..len).expect("the packet lies within the bytes");
        assert_eq!(Inner::parse(packet, ethertype), parsed, "what lies behind the packet does not matter");
        let later = inner.flags.has(InnerFlags::LATER_FRAGMENT);
        assert!(
            !(later && inner.flags.has(InnerFlags::FIRST_FRAGMENT | InnerFlags::PORTS | InnerFlags::ICMP))
        );
        assert!(!(inner.flags.has(InnerFlags::PORTS) && inner.flags.has(InnerFlags::ICMP)));
        if later {
            assert_eq!((inner.transport, inner.transport_len), (0, 0));
        } else {
            assert_eq!(usize::from(inner.transport) + usize::from(inner.transport_len), len);
            assert!(inner.transport >= 20);
        }
        let body = packet.get(inner.transport.into()..).unwrap_or(&[]);
        if inner.flags.has(InnerFlags::PORTS) {
            assert_eq!(transport::ports(body), Some((inner.source_port, inner.destination_port)));
            assert!(transport::header_len(inner.protocol).is_some_and(|header| body.len() >= header));
            if inner.protocol == transport::TCP {
                assert_eq!(Tcp::new_checked(body).map(|t| t.flags()), Ok(inner.tcp_flags));
            }
        } else {
            assert_eq!(inner.tcp_flags, 0);
            assert!(later || transport::header_len(inner.protocol).is_none());
        }
    }
}
