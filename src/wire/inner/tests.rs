use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use DropReason::{
    InnerExtension, InnerFragment, InnerHeader, InnerLength, InnerTransport, InnerTruncated, InnerVersion,
};

const S4: [u8; 4] = [10, 0, 0, 1];
const D4: [u8; 4] = [192, 0, 2, 9];

/// A whole IPv4 packet by hand: protocol, DF/MF/offset field, IP payload.
fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    out.extend(S4);
    out.extend(D4);
    out.extend(payload);
    let len = out.len() as u16;
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out[6..8].copy_from_slice(&fragment.to_be_bytes());
    out
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    out.extend([0x20; 16]);
    out.extend([0x30; 16]);
    out.extend(payload);
    out[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    out
}

fn tcp_segment(offset_words: u8, flags: u8, more: usize) -> Vec<u8> {
    let mut out =
        vec![0x30, 0x39, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, offset_words << 4, flags, 0, 9, 0, 0, 0, 0];
    out.resize(20 + more, 1);
    out
}

fn udp_datagram(len: u16, data: usize) -> Vec<u8> {
    let mut out = vec![0x30, 0x39, 0x00, 0x35];
    out.extend(len.to_be_bytes());
    out.extend([0, 0]);
    out.resize(8 + data, 7);
    out
}

fn parse4(bytes: &[u8]) -> Result<Inner, DropReason> {
    Inner::parse(bytes, eth::IPV4)
}

fn parse6(bytes: &[u8]) -> Result<Inner, DropReason> {
    Inner::parse(bytes, eth::IPV6)
}

#[test]
fn facts_of_the_usual_packets() {
    let expected = Inner {
        len: 44,
        transport: 20,
        transport_len: 24,
        source_port: 12345,
        destination_port: 80,
        protocol: 6,
        tcp_flags: tcp::SYN,
        flags: InnerFlags(InnerFlags::PORTS),
    };
    assert_eq!(parse4(&v4(6, 0x4000, &tcp_segment(5, tcp::SYN, 4))), Ok(expected));
    let v6_expected =
        Inner { len: 64, transport: 40, flags: InnerFlags(InnerFlags::PORTS | InnerFlags::IPV6), ..expected };
    assert_eq!(parse6(&v6(6, &tcp_segment(5, tcp::SYN, 4))), Ok(v6_expected));
    let udp = Inner { transport_len: 24, destination_port: 53, protocol: 17, tcp_flags: 0, ..expected };
    assert_eq!(parse4(&v4(17, 0, &udp_datagram(24, 16))), Ok(udp));
    let trailing = [v4(17, 0, &udp_datagram(24, 16)), vec![0xee; 9]].concat();
    assert_eq!(parse4(&trailing), Ok(udp), "trailing bytes are ignored");
    assert_eq!(parse4(&v4(17, 0, &udp_datagram(9, 16))), Ok(udp), "a short UDP length is the endpoint's");
}

#[test]
fn options_do_not_hide_the_ports() {
    for words in 6..=15usize {
        let mut packet = v4(6, 0, &[]);
        packet[0] = 0x40 | words as u8;
        packet.resize(words * 4, 1);
        packet.extend(tcp_segment(5, tcp::ACK, 0));
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let inner = parse4(&packet).unwrap();
        assert_eq!(
            (inner.transport, inner.transport_len, inner.destination_port),
            (words as u16 * 4, 20, 80)
        );
    }
}

#[test]
fn icmp_of_both_families() {
    let inner = parse4(&v4(1, 0, &[8, 0, 0, 0, 0xab, 0xcd, 0, 1])).unwrap();
    assert_eq!(
        (inner.source_port, inner.destination_port, inner.flags.0),
        (0x0800, 0xabcd, InnerFlags::ICMP)
    );
    let inner = parse4(&v4(1, 0, &[3, 4, 0, 0, 0xab, 0xcd, 0, 1])).unwrap();
    assert_eq!((inner.source_port, inner.destination_port), (0x0304, 0), "only an echo has an identifier");
    let inner = parse4(&v4(1, 0, &[8, 0, 0, 0])).unwrap();
    assert_eq!((inner.source_port, inner.destination_port), (0x0800, 0), "four bytes are enough");
    assert_eq!(parse4(&v4(1, 0, &[8, 0, 0])), Err(InnerTransport));
    let inner = parse6(&v6(58, &[129, 0, 0, 0, 0xab, 0xcd, 0, 1])).unwrap();
    assert_eq!((inner.source_port, inner.destination_port), (0x8100, 0xabcd));
    assert_eq!(inner.flags.0, InnerFlags::ICMP | InnerFlags::IPV6);
    let inner = parse6(&v6(1, &[8, 0, 0, 0, 0xab, 0xcd, 0, 1])).unwrap();
    assert_eq!(inner.flags.0, InnerFlags::IPV6, "ICMP for IPv4 means nothing in IPv6");
}

#[test]
fn other_protocols_pass_with_what_they_have() {
    for (protocol, ports) in
        [(132, true), (33, true), (136, true), (47, false), (50, false), (253, false), (0, false)]
    {
        let inner = parse4(&v4(protocol, 0, &[0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!(inner.flags.has(InnerFlags::PORTS), ports, "{protocol}");
        assert_eq!((inner.source_port, inner.destination_port), if ports { (7, 9) } else { (0, 0) });
    }
    assert_eq!(parse4(&v4(253, 0, &[])).unwrap().transport_len, 0);
    assert_eq!(parse4(&v4(132, 0, &[0; 11])), Err(InnerTransport));
    assert_eq!(parse6(&v6(59, &[])).unwrap().protocol, 59);
}

#[test]
fn refused_headers_and_lengths() {
    let good = v4(17, 0, &udp_datagram(24, 16));
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    assert_eq!(parse4(&[]), Err(InnerTruncated));
    assert_eq!(parse4(&good[..19]), Err(InnerTruncated));
    assert_eq!(parse4(&good[..20]), Err(InnerLength));
    assert_eq!(parse4(&good[..43]), Err(InnerLength));
    assert_eq!(parse4(&with(0, 0x55)), Err(InnerVersion));
    assert_eq!(parse4(&with(0, 0x44)), Err(InnerHeader));
    assert_eq!(parse4(&with(3, 19)), Err(InnerHeader));
    assert_eq!(parse4(&with(3, 45)), Err(InnerLength));
    assert_eq!(parse4(&with(2, 255)), Err(InnerLength));
    let good = v6(17, &udp_datagram(24, 16));
    assert_eq!(parse4(&good), Err(InnerVersion));
    assert_eq!(parse6(&good[..39]), Err(InnerTruncated));
    assert_eq!(parse6(&good[..40]), Err(InnerLength));
    assert_eq!(parse6(&v4(17, 0, &udp_datagram(40, 32))), Err(InnerVersion));
    assert_eq!(Inner::parse(&good, eth::ARP), Err(DropReason::GeneveProtocol));
}

#[test]
fn refused_transport_headers() {
    for cut in 0..20 {
        assert_eq!(parse4(&v4(6, 0, &tcp_segment(5, 0, 0)[..cut])), Err(InnerTransport), "TCP cut at {cut}");
        assert_eq!(parse6(&v6(6, &tcp_segment(5, 0, 0)[..cut])), Err(InnerTransport), "TCP cut at {cut}");
    }
    for words in [0, 4, 6, 15] {
        assert_eq!(parse4(&v4(6, 0, &tcp_segment(words, 0, 0))), Err(InnerTransport), "data offset {words}");
        assert_eq!(parse6(&v6(6, &tcp_segment(words, 0, 0))), Err(InnerTransport), "data offset {words}");
    }
    assert!(parse4(&v4(6, 0, &tcp_segment(15, 0, 40))).is_ok());
    for len in [0, 3, 7, 13, 65535] {
        assert_eq!(parse4(&v4(17, 0, &udp_datagram(len, 4))), Err(InnerTransport), "UDP length {len}");
        assert_eq!(parse6(&v6(17, &udp_datagram(len, 4))), Err(InnerTransport), "UDP length {len}");
    }
    assert_eq!(parse4(&v4(17, 0, &[])), Err(InnerTransport));
}

#[test]
fn fragments_of_ipv4() {
    const MF: u16 = 0x2000;
    let first = parse4(&v4(17, MF, &udp_datagram(2000, 16))).unwrap();
    assert_eq!(first.flags.0, InnerFlags::PORTS | InnerFlags::FIRST_FRAGMENT);
    assert_eq!(
        first.destination_port, 53,
        "the length of the whole datagram is beyond this fragment by right"
    );
    let later = parse4(&v4(17, 3, &udp_datagram(0, 5))).unwrap();
    assert_eq!((later.flags.0, later.transport, later.transport_len), (InnerFlags::LATER_FRAGMENT, 0, 0));
    assert_eq!((later.source_port, later.destination_port, later.protocol), (0, 0, 17));
    assert!(parse4(&v4(17, 0x4000 | MF, &udp_datagram(2000, 16))).is_ok(), "DF and MF");
    assert_eq!(parse4(&v4(17, MF, &udp_datagram(2000, 17))), Err(InnerFragment), "not a multiple of 8");
    assert_eq!(parse4(&v4(6, MF, &tcp_segment(5, 0, 4)[..16])), Err(InnerFragment), "tiny first fragment");
    assert_eq!(parse4(&v4(6, MF, &tcp_segment(7, 0, 4))), Err(InnerFragment), "options in the next fragment");
    assert_eq!(parse4(&v4(6, 1, &tcp_segment(5, 0, 4))), Err(InnerFragment), "RFC 3128");
    assert!(parse4(&v4(17, 1, &tcp_segment(5, 0, 4))).is_ok(), "only TCP has its flags there");
    // The last byte of the largest packet: header 20 + offset + length = 65535.
    let offset = (65535 - 20 - 11) / 8;
    assert_eq!(20 + offset * 8 + 11, 65535);
    assert!(parse4(&v4(17, offset, &[0; 11])).is_ok());
    assert_eq!(parse4(&v4(17, offset, &[0; 12])), Err(InnerFragment), "one byte past it");
    assert_eq!(parse4(&v4(17, MF, &[])), Err(InnerFragment), "an empty first fragment hides its ports");
}

/// A fragment header: next header, offset in bytes, more.
fn fragment(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [next, 0, high, low, 0, 0, 0, 77]
}

#[test]
fn extension_headers_of_ipv6() {
    let datagram = udp_datagram(24, 16);
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain = [
        &options(60)[..],
        &options(43),
        &options(44),
        &fragment(51, 0, false),
        &[60, 4, 0, 0],
        &[0; 20],
        &options(17),
    ];
    let packet = v6(0, &[&chain.concat()[..], &datagram].concat());
    let inner = parse6(&packet).unwrap();
    assert_eq!((inner.protocol, inner.transport, inner.transport_len), (17, 40 + 64, 24));
    assert_eq!(inner.flags.0, InnerFlags::PORTS | InnerFlags::IPV6, "an atomic fragment is none");
    assert!(
        parse6(&v6(60, &[&options(0)[..], &options(17), &datagram].concat())).is_ok(),
        "hop-by-hop not first"
    );
    let eight = [options(60); 7].concat();
    assert!(parse6(&v6(60, &[&eight[..], &options(17), &datagram].concat())).is_ok());
    let nine = [options(60); 8].concat();
    assert_eq!(parse6(&v6(60, &[&nine[..], &options(17), &datagram].concat())), Err(InnerExtension));
    assert_eq!(parse6(&v6(60, &[17, 200, 1, 4, 0, 0, 0, 0])), Err(InnerExtension), "length beyond");
    assert_eq!(parse6(&v6(60, &[17])), Err(InnerExtension), "cut in the header");
    assert_eq!(parse6(&v6(60, &[])), Err(InnerExtension));
    assert_eq!(
        parse6(&v6(44, &[&fragment(44, 0, false)[..], &fragment(17, 0, false)].concat())),
        Err(InnerExtension)
    );
    let esp = parse6(&v6(60, &[&options(50)[..], &[9; 8]].concat())).unwrap();
    assert_eq!((esp.protocol, esp.transport, esp.flags.0), (50, 48, InnerFlags::IPV6));
}

#[test]
fn fragments_of_ipv6() {
    let piece = |next, offset, more, data: &[u8]| v6(44, &[&fragment(next, offset, more)[..], data].concat());
    let first = parse6(&piece(17, 0, true, &udp_datagram(2000, 16))).unwrap();
    assert_eq!(first.flags.0, InnerFlags::IPV6 | InnerFlags::PORTS | InnerFlags::FIRST_FRAGMENT);
    assert_eq!((first.transport, first.transport_len, first.source_port), (48, 24, 12345));
    let later = parse6(&piece(17, 24, false, &[1; 5])).unwrap();
    assert_eq!((later.flags.0, later.transport), (InnerFlags::IPV6 | InnerFlags::LATER_FRAGMENT, 0));
    assert_eq!(parse6(&piece(60, 24, false, &[1; 5])).unwrap().protocol, 60, "data, not an extension header");
    assert_eq!(parse6(&piece(17, 0, true, &udp_datagram(2000, 17))), Err(InnerFragment));
    assert_eq!(parse6(&piece(6, 0, true, &tcp_segment(5, 0, 0)[..16])), Err(InnerFragment));
    assert_eq!(parse6(&piece(6, 8, false, &[0; 12])), Err(InnerFragment));
    assert!(parse6(&piece(17, 65528, false, &[0; 7])).is_ok(), "65535 bytes of payload");
    assert_eq!(parse6(&piece(17, 65528, false, &[0; 8])), Err(InnerFragment));
    assert_eq!(
        parse6(&piece(60, 0, true, &[])),
        Err(InnerExtension),
        "RFC 7112: the chain goes on in the next one"
    );
}

proptest! {
    /// What the quick reading accepts, the views accept with the same facts; and nothing that the views accept as a usual packet
    /// escapes it.
    #[test]
    fn quick_and_careful_agree(
        is_v6 in any::<bool>(), is_tcp in any::<bool>(), data in 0usize..40, options in 0usize..4,
        breaks in proptest::collection::vec((0usize..64, any::<u8>()), 0..3),
        cut in 0usize..30,
    ) {
        let payload = vec![0x5a; data];
        let mut packet = Vec::new();
        let ip = if is_v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64)
        } else {
            PacketBuilder::ipv4(S4, D4, 64)
        };
        if is_tcp {
            let options = &[1u8; 40][..options * 4];
            ip.tcp(1111, 2222, 3, 4).syn().options_raw(options).unwrap().write(&mut packet, &payload).unwrap();
        } else {
            ip.udp(1111, 2222).write(&mut packet, &payload).unwrap();
        }
        let whole = breaks.is_empty() && cut >= 10;
        for (at, value) in breaks {
            if let Some(byte) = packet.get_mut(at) { *byte = value }
        }
        if cut < 10 {
            packet.truncate(packet.len() - cut.min(packet.len()));
        }
        let (quick, careful) =
            if is_v6 { (usual_v6(&packet), any_v6(&packet)) } else { (usual_v4(&packet, &PlainV4::NEW), any_v4(&packet)) };
        if let Some(quick) = quick {
            prop_assert_eq!(careful, Ok(quick));
        }
        if whole {
            prop_assert!(quick.is_some());
            let inner = quick.unwrap();
            prop_assert_eq!((inner.source_port, inner.destination_port), (1111, 2222));
            prop_assert_eq!(usize::from(inner.len), packet.len());
        }
    }
}
