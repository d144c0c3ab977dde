//! All formats against any bytes, against an independent parser (etherparse), and against real and hand-built traffic.

mod corpus;

use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4HeaderSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice,
    TcpOptionElement, TcpSlice, UdpSlice,
};
use proptest::prelude::*;

use super::arbitrary_input;
use super::icmp::{Family, Icmp};
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::tcp::{self, Tcp};
use super::udp::Udp;
use super::{Malformed, transport};

/// Both parsers say the same of an IPv4 packet, and of what it carries.
fn agree_v4(bytes: &[u8]) {
    let ours = Ipv4::new_checked(bytes);
    // etherparse judges the total length only together with an authentication header: judged here by its own fields.
    let theirs = Ipv4HeaderSlice::from_slice(bytes).ok();
    let theirs = theirs.filter(|t| {
        let total = usize::from(t.total_len());
        total >= t.slice().len() && total <= bytes.len()
    });
    assert_eq!(ours.is_ok(), theirs.is_some(), "{ours:?} {theirs:?} {bytes:02x?}");
    let (Ok(ours), Some(theirs)) = (ours, theirs) else { return };
    assert_eq!(ours.header_len(), theirs.slice().len());
    assert_eq!(ours.tos(), theirs.dcp().value() << 2 | theirs.ecn().value());
    assert_eq!(ours.total_len(), theirs.total_len());
    assert_eq!(ours.id(), theirs.identification());
    assert_eq!(ours.dont_fragment(), theirs.dont_fragment());
    assert_eq!(ours.more_fragments(), theirs.more_fragments());
    assert_eq!(ours.fragment_offset(), theirs.fragments_offset().byte_offset());
    assert_eq!(ours.is_fragment(), theirs.is_fragmenting_payload());
    assert_eq!((ours.ttl(), ours.protocol()), (theirs.ttl(), theirs.protocol().0));
    assert_eq!((ours.source(), ours.destination()), (theirs.source_addr(), theirs.destination_addr()));
    assert_eq!(ours.options(), theirs.options());
    assert_eq!(ours.header_checksum(), theirs.header_checksum());
    // Their checksum of the rest is ours, or the other of the two zeros.
    let right = theirs.to_header().calc_header_checksum();
    let reserved = bytes.get(6).is_some_and(|b| b & 0x80 != 0);
    if !reserved {
        let same = |a: u16, b: u16| a == b || (a, b) == (0xffff, 0) || (a, b) == (0, 0xffff);
        assert_eq!(ours.header_checksum_ok(), same(ours.header_checksum(), right));
    }
    agree_transport(ours.protocol(), ours.payload());
}

/// Both parsers say the same of an IPv6 packet, its extension headers, and of what it carries.
fn agree_v6(bytes: &[u8]) {
    let ours = Ipv6::new_checked(bytes);
    let theirs = Ipv6HeaderSlice::from_slice(bytes).ok();
    let theirs = theirs.filter(|t| 40 + usize::from(t.payload_length()) <= bytes.len());
    assert_eq!(ours.is_ok(), theirs.is_some(), "{ours:?} {theirs:?} {bytes:02x?}");
    let (Ok(ours), Some(theirs)) = (ours, theirs) else { return };
    assert_eq!(ours.traffic_class(), theirs.traffic_class());
    assert_eq!(ours.flow_label(), theirs.flow_label().value());
    assert_eq!((ours.next_header(), ours.hop_limit()), (theirs.next_header().0, theirs.hop_limit()));
    assert_eq!((ours.source(), ours.destination()), (theirs.source_addr(), theirs.destination_addr()));

    let upper = ours.upper();
    let theirs = Ipv6ExtensionsSlice::from_slice(IpNumber(ours.next_header()), ours.payload());
    match (upper, theirs) {
        // They read on into the data of a later fragment.
        (Ok(upper), _) if upper.fragment.is_some_and(|f| f.offset != 0) => {}
        (Ok(upper), Ok((extensions, protocol, rest))) => {
            assert_eq!((upper.protocol, upper.payload), (protocol.0, rest));
            assert_eq!(upper.offset, 40 + extensions.slice().len());
            let whole = upper.fragment.is_none_or(|f| f.offset == 0 && !f.more);
            assert_eq!(extensions.is_fragmenting_payload(), !whole);
            agree_transport(upper.protocol, upper.payload);
        }
        // A hop-by-hop header that is not the first is an error to them.
        (Ok(_), Err(etherparse::err::ipv6_exts::HeaderSliceError::Content(error))) => {
            assert_eq!(error, etherparse::err::ipv6_exts::HeaderError::HopByHopNotAtStart);
        }
        // Our bounds: eight headers of at least eight bytes, one fragment header.
        (Err(Malformed::Extension), Ok((extensions, _, _))) => {
            let headers = extensions.clone().into_iter();
            let fragments =
                headers.clone().filter(|h| matches!(h, etherparse::Ipv6ExtensionSlice::Fragment(_)));
            assert!(headers.count() > super::ipv6::MAX_EXTENSIONS || fragments.count() > 1);
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} {theirs:?} {bytes:02x?}"),
    }
}

fn agree_transport(protocol: u8, bytes: &[u8]) {
    match protocol {
        transport::TCP => agree_tcp(bytes),
        transport::UDP => agree_udp(bytes),
        transport::ICMP => {
            let ours = Icmp::new_checked(Family::V4, bytes);
            // They want eight bytes where we are content with four.
            if let Ok(theirs) = Icmpv4Slice::from_slice(bytes) {
                let ours = ours.unwrap();
                assert_eq!(
                    (ours.kind(), ours.code(), ours.checksum()),
                    (theirs.type_u8(), theirs.code_u8(), theirs.checksum())
                );
                assert_eq!(ours.parameter(), Some(theirs.bytes5to8()));
                use etherparse::Icmpv4Type::*;
                let echo = match theirs.icmp_type() {
                    EchoRequest(echo) | EchoReply(echo) => Some(echo.id),
                    _ => None,
                };
                // They take an echo with a code other than 0 for something unknown.
                assert!(ours.echo_id() == echo || ours.code() != 0);
            }
        }
        transport::ICMPV6 => {
            let ours = Icmp::new_checked(Family::V6, bytes);
            if let Ok(theirs) = Icmpv6Slice::from_slice(bytes) {
                let ours = ours.unwrap();
                assert_eq!(
                    (ours.kind(), ours.code(), ours.checksum()),
                    (theirs.type_u8(), theirs.code_u8(), theirs.checksum())
                );
                assert_eq!(ours.parameter(), Some(theirs.bytes5to8()));
                use etherparse::Icmpv6Type::*;
                let echo = match theirs.icmp_type() {
                    EchoRequest(echo) | EchoReply(echo) => Some(echo.id),
                    _ => None,
                };
                assert!(ours.echo_id() == echo || ours.code() != 0);
            }
        }
        _ => {}
    }
}

fn agree_udp(bytes: &[u8]) {
    let ours = Udp::new_checked(bytes);
    let theirs = UdpSlice::from_slice(bytes);
    if theirs.as_ref().is_ok_and(|t| t.length() == 0) {
        // They read a length of zero as "up to the end" (RFC 2675); in a tunnel of at most 64 KiB it is a lie.
        assert_eq!(ours.err(), Some(Malformed::Header));
        return;
    }
    assert_eq!(ours.is_ok(), theirs.is_ok());
    let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return };
    assert_eq!(
        (ours.source_port(), ours.destination_port()),
        (theirs.source_port(), theirs.destination_port())
    );
    assert_eq!((ours.len(), ours.checksum()), (theirs.length(), theirs.checksum()));
    assert_eq!(ours.payload(), theirs.payload());
}

fn agree_tcp(bytes: &[u8]) {
    let ours = Tcp::new_checked(bytes);
    let theirs = TcpSlice::from_slice(bytes);
    assert_eq!(ours.is_ok(), theirs.is_ok());
    let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return };
    assert_eq!(
        (ours.source_port(), ours.destination_port()),
        (theirs.source_port(), theirs.destination_port())
    );
    assert_eq!(ours.sequence(), theirs.sequence_number());
    assert_eq!(ours.acknowledgment(), theirs.acknowledgment_number());
    assert_eq!((ours.window(), ours.urgent()), (theirs.window_size(), theirs.urgent_pointer()));
    assert_eq!(ours.checksum(), theirs.checksum());
    let flags = [
        (theirs.fin(), tcp::FIN),
        (theirs.syn(), tcp::SYN),
        (theirs.rst(), tcp::RST),
        (theirs.psh(), tcp::PSH),
        (theirs.ack(), tcp::ACK),
        (theirs.urg(), tcp::URG),
        (theirs.ece(), tcp::ECE),
        (theirs.cwr(), tcp::CWR),
    ];
    assert_eq!(ours.flags(), flags.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum::<u8>());
    assert_eq!(ours.payload(), theirs.payload());
    // They stop at kinds that they do not know: compare up to there.
    let mut options = ours.options();
    for theirs in theirs.options_iterator() {
        let Ok(theirs) = theirs else { return };
        let expected = match theirs {
            TcpOptionElement::Noop => continue,
            TcpOptionElement::MaximumSegmentSize(v) => (2, v.to_be_bytes().to_vec()),
            TcpOptionElement::WindowScale(v) => (3, vec![v]),
            TcpOptionElement::SelectiveAcknowledgementPermitted => (4, vec![]),
            TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                let blocks = std::iter::once(first).chain(more.into_iter().flatten());
                (5, blocks.flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect())
            }
            TcpOptionElement::Timestamp(a, b) => (8, [a.to_be_bytes(), b.to_be_bytes()].concat()),
        };
        let ours = options.next().expect("as many options as theirs").expect("as good as theirs");
        assert_eq!((ours.kind, ours.data.to_vec()), expected);
    }
    assert_eq!(options.next(), None);
}

/// An IP packet of either version around a transport payload, with lengths that are right, then a few bytes broken.
fn ip_packet() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60)];
    let upper = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(59), any::<u8>()];
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        tcp_segment(),
        proptest::collection::vec(any::<u8>(), 8..40).prop_map(|mut udp| {
            udp[4] = 0;
            udp[5] = udp.len() as u8;
            udp
        }),
    ];
    let breaks = proptest::collection::vec((0usize..120, any::<u8>()), 0..4);
    let v4 = (0usize..11, any::<u16>(), any::<bool>());
    let v6 = proptest::collection::vec((extension, any::<[u8; 7]>()), 0..10);
    (any::<bool>(), v4, v6, upper, payload, breaks, 0usize..100, any::<[u8; 16]>()).prop_map(
        |(is_v6, (options, fragment, whole), extensions, upper, payload, breaks, cut, address)| {
            let mut packet = if is_v6 {
                v6_packet(&extensions, upper, &payload, address)
            } else {
                v4_packet(options, if whole { 0x4000 } else { fragment }, upper, &payload, address)
            };
            for (at, value) in breaks {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            if cut < 20 {
                packet.truncate(packet.len().saturating_sub(cut));
            }
            packet
        },
    )
}

fn tcp_segment() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![1u8]),
        any::<[u8; 2]>().prop_map(|v| vec![2, 4, v[0], v[1]]),
        any::<u8>().prop_map(|v| vec![3, 3, v]),
        Just(vec![4, 2]),
        any::<[u8; 8]>().prop_map(|v| [&[5, 10][..], &v].concat()),
        any::<[u8; 8]>().prop_map(|v| [&[8, 10][..], &v].concat()),
        proptest::collection::vec(any::<u8>(), 1..6),
    ];
    (any::<[u8; 20]>(), proptest::collection::vec(option, 0..5), 0usize..20).prop_map(
        |(header, options, data)| {
            let mut options = options.concat();
            options.truncate(40);
            options.resize(options.len().next_multiple_of(4), 0);
            let mut out = header.to_vec();
            out[12] = ((5 + options.len() / 4) as u8) << 4 | header[12] & 0x0f;
            out.extend(options);
            out.resize(out.len() + data, 0x5a);
            out
        },
    )
}

fn v4_packet(options: usize, fragment: u16, protocol: u8, payload: &[u8], address: [u8; 16]) -> Vec<u8> {
    let mut out = vec![0x40 | (5 + options) as u8, address[0], 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    out.extend(&address[..8]);
    out.resize(20 + options * 4, 1);
    out.extend(payload);
    let len = out.len() as u16;
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out[6..8].copy_from_slice(&fragment.to_be_bytes());
    let header_len = 20 + options * 4;
    let checksum = super::checksum::finish(super::checksum::sum(&out[..header_len]).into());
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
    out
}

fn v6_packet(extensions: &[(u8, [u8; 7])], upper: u8, payload: &[u8], address: [u8; 16]) -> Vec<u8> {
    let mut chain = Vec::new();
    let nexts = extensions.iter().map(|e| e.0).skip(1).chain([upper]);
    for ((kind, bytes), next) in extensions.iter().zip(nexts) {
        let mut header = [&[next][..], bytes].concat();
        match kind {
            44 if bytes[6] % 2 == 0 => header[2..4].fill(0),
            44 => {}
            51 => {
                header[1] = 1 + bytes[0] % 3;
                header.resize(8 + usize::from(header[1]) * 4, 7);
            }
            _ => {
                header[1] = bytes[0] % 3;
                header.resize(8 + usize::from(header[1]) * 8, 7);
            }
        }
        chain.extend(header);
    }
    let len = (chain.len() + payload.len()) as u16;
    let mut out = vec![0x60 | address[0] & 0x0f, address[1], address[2], address[3]];
    out.extend(len.to_be_bytes());
    out.extend([extensions.first().map_or(upper, |e| e.0), 64]);
    out.extend(address);
    out.extend(address.map(|b| !b));
    out.extend(chain);
    out.extend(payload);
    out
}

/// A GENEVE packet that is nearly right: options of any profile or none, in any order, a few bytes broken.
fn geneve_packet() -> impl Strategy<Value = Vec<u8>> {
    let class = prop_oneof![Just(0x0108u16), Just(0x0167), Just(0x0132), any::<u16>()];
    let data = prop_oneof![Just(8usize), Just(4), Just(16), (0usize..32).prop_map(|w| w * 4)];
    let option = (class, prop_oneof![1u8..=3, any::<u8>()], data, any::<[u8; 4]>());
    let breaks = proptest::collection::vec((0usize..60, any::<u8>()), 0..3);
    (proptest::collection::vec(option, 0..5), breaks, proptest::collection::vec(any::<u8>(), 0..60)).prop_map(
        |(options, breaks, payload)| {
            let mut block = Vec::new();
            for (class, kind, len, fill) in options {
                block.extend(class.to_be_bytes());
                block.extend([kind, fill[0] & 0xe0 | (len / 4) as u8]);
                block.extend(std::iter::repeat_n(fill, len / 4).flatten());
            }
            block.truncate(252);
            let mut out = vec![(block.len() / 4) as u8, 0, 8, 0, 0, 0, 9, 0];
            out.extend(block);
            out.extend(payload);
            for (at, value) in breaks {
                if let Some(byte) = out.get_mut(at) {
                    *byte = value;
                }
            }
            out
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        arbitrary_input::eth(&bytes);
        arbitrary_input::ipv4(&bytes);
        arbitrary_input::ipv6(&bytes);
        arbitrary_input::tcp(&bytes);
        arbitrary_input::udp(&bytes);
        arbitrary_input::icmp(Family::V4, &bytes);
        arbitrary_input::icmp(Family::V6, &bytes);
        arbitrary_input::geneve(&bytes);
        arbitrary_input::inner(&bytes);
    }

    #[test]
    fn packets_that_are_nearly_right(packet in ip_packet(), tag in proptest::option::of(any::<[u8; 2]>())) {
        arbitrary_input::ipv4(&packet);
        arbitrary_input::ipv6(&packet);
        arbitrary_input::inner(&packet);
        let mut frame = vec![2; 12];
        if let Some(tag) = tag {
            frame.extend([0x81, 0x00]);
            frame.extend(tag);
        }
        frame.extend(if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(&packet);
        arbitrary_input::eth(&frame);
    }

    #[test]
    fn tunnels_that_are_nearly_right(packet in geneve_packet()) {
        arbitrary_input::geneve(&packet);
    }

    #[test]
    fn both_parsers_agree(packet in ip_packet()) {
        agree_v4(&packet);
        agree_v6(&packet);
    }

    #[test]
    fn both_parsers_agree_on_transport_headers(segment in tcp_segment(), cut in 0usize..120) {
        let segment = &segment[..segment.len().min(cut)];
        for protocol in [transport::TCP, transport::UDP, transport::ICMP, transport::ICMPV6] {
            agree_transport(protocol, segment);
        }
    }
}
