use super::*;
use crate::wire::eth;
use proptest::prelude::*;

/// An IPv4 packet.
fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, head: &[u8], fragment: u16) -> Vec<u8> {
    let len = 20 + head.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(head);
    packet
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut head = source.to_be_bytes().to_vec();
    head.extend(destination.to_be_bytes());
    head.extend([0, 16, 0, 0]);
    head.extend([0; 8]);
    head
}

fn v6(source: u128, destination: u128, protocol: u8, head: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((head.len() as u16).to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend(head);
    packet
}

fn key(stickiness: Stickiness, packet: &[u8]) -> Option<Balanced> {
    let ethertype = if packet[0] >> 4 == 6 { eth::IPV6 } else { eth::IPV4 };
    let inner = Inner::parse(packet, ethertype).expect("a packet");
    stickiness.key(7, &inner, packet)
}

const ALL: [Stickiness; 3] = [Stickiness::FiveTuple, Stickiness::ThreeTuple, Stickiness::TwoTuple];
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

#[test]
fn each_stickiness_looks_at_its_part_of_the_tuple() {
    let one = v4(A, B, 17, &udp(1000, 53), 0);
    let other_port = v4(A, B, 17, &udp(1001, 53), 0);
    let other_protocol = v4(A, B, 132, &[&udp(1000, 53)[..], &[0; 8]].concat(), 0);
    let other_address = v4(A, [10, 0, 0, 3], 17, &udp(1000, 53), 0);
    let same = |s: Stickiness, other: &[u8]| key(s, &one).unwrap().key == key(s, other).unwrap().key;
    assert_eq!(ALL.map(|s| same(s, &other_port)), [false, true, true]);
    assert_eq!(ALL.map(|s| same(s, &other_protocol)), [false, false, true]);
    assert_eq!(ALL.map(|s| same(s, &other_address)), [false, false, false]);
}

#[test]
fn pieces_of_one_datagram_go_together() {
    let first = v4(A, B, 17, &udp(1000, 53), 0x2000);
    let later = v4(A, B, 17, &[9; 16], 0x0002);
    for stickiness in ALL {
        assert_eq!(key(stickiness, &first), key(stickiness, &later), "{stickiness:?}");
    }
}

/// "Port unreachable" of B, or of a router that nobody knows: it belongs to A's datagram, and travels towards A.
#[test]
fn an_error_belongs_to_the_flow_that_it_quotes() {
    let asked = v4(A, B, 17, &udp(1000, 53), 0);
    for from in [B, [192, 0, 2, 1]] {
        let error = v4(from, A, 1, &[&[3, 3, 0, 0, 0, 0, 0, 0], &asked[..28]].concat(), 0);
        for stickiness in ALL {
            let (asked, error) = (key(stickiness, &asked).unwrap(), key(stickiness, &error).unwrap());
            assert_eq!((asked.key, asked.related), (error.key, false), "{stickiness:?}");
            assert_eq!((error.from_high, error.related), (!asked.from_high, true));
        }
    }
    let (a, b) = (0xfd00_u128 << 112 | 1, 0xfd00_u128 << 112 | 2);
    let asked = v6(a, b, 17, &udp(1000, 53));
    let error = v6(b, a, 58, &[&[1, 4, 0, 0, 0, 0, 0, 0], &asked[..48]].concat());
    for stickiness in ALL {
        assert_eq!(key(stickiness, &asked).unwrap().key, key(stickiness, &error).unwrap().key);
    }
    let cut_off = v4(B, A, 1, &[&[3, 3, 0, 0, 0, 0, 0, 0], &asked[..20]].concat(), 0);
    assert_eq!(key(Stickiness::FiveTuple, &cut_off), None, "it quotes nothing that one could follow");
}

#[test]
fn echoes_with_their_replies() {
    let echo = |from, to, kind, id: u16| {
        v4(from, to, 1, &[&[kind, 0, 0, 0], &id.to_be_bytes()[..], &[0, 1]].concat(), 0)
    };
    let (request, reply) = (echo(A, B, 8, 77), echo(B, A, 0, 77));
    let (a, b) = (key(Stickiness::FiveTuple, &request).unwrap(), key(Stickiness::FiveTuple, &reply).unwrap());
    assert_eq!(a.key, b.key);
    assert_ne!(a.from_high, b.from_high);
    assert_ne!(a.key, key(Stickiness::FiveTuple, &echo(A, B, 8, 78)).unwrap().key);
}

proptest! {
    /// Both directions have one key and one hash, and know which of them they are; endpoints have keys of their own, and one hash.
    #[test]
    fn both_directions_meet(
        a in any::<u128>(), b in any::<u128>(), ports in any::<(u16, u16)>(), ipv6 in any::<bool>(), n in 0usize..3
    ) {
        prop_assume!(a as u32 != b as u32);
        let stickiness = ALL[n];
        let packet = |a: u128, b: u128, ports: (u16, u16)| {
            let head = udp(ports.0, ports.1);
            if ipv6 { v6(a, b, 17, &head) } else { v4((a as u32).to_be_bytes(), (b as u32).to_be_bytes(), 17, &head, 0) }
        };
        let there = packet(a, b, ports);
        let back = packet(b, a, (ports.1, ports.0));
        let (x, y) = (key(stickiness, &there).unwrap(), key(stickiness, &back).unwrap());
        prop_assert_eq!(x.key, y.key);
        prop_assert_ne!(x.from_high, y.from_high);
        let seed = balance_seed(0);
        prop_assert_eq!(x.hash(&seed), y.hash(&seed));
        let inner = Inner::parse(&there, if ipv6 { eth::IPV6 } else { eth::IPV4 }).unwrap();
        let elsewhere = stickiness.key(8, &inner, &there).unwrap();
        prop_assert_ne!(elsewhere.key, x.key);
        prop_assert_eq!(elsewhere.hash(&seed), x.hash(&seed));
    }

    /// Any bytes that pass for a packet have a key or none, and no panic.
    #[test]
    fn any_packet_has_a_key_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>(), n in 0usize..3) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let ethertype = if v6 { eth::IPV6 } else { eth::IPV4 };
        if let Ok(inner) = Inner::parse(&bytes, ethertype) {
            let _ = ALL[n].key(1, &inner, &bytes);
        }
    }
}

/// What a program of its own (Python, from the definitions of key, seed and fold) says of 10.0.0.1:1000 -> 10.0.0.2:53, UDP, seed 0.
const FIXED: u64 = 0x1eb8_e978_34ad_e30f;

/// The hash is a promise to other gateways, of other releases too.
#[test]
fn the_hash_of_a_tuple_is_fixed() {
    let one = key(Stickiness::FiveTuple, &v4(A, B, 17, &udp(1000, 53), 0)).unwrap();
    assert_eq!(one.hash(&balance_seed(0)), FIXED);
}
