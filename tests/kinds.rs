//! Packets of every kind find their flow through all hops: what has no ports, what speaks another transport, errors and fragments of both
//! families. Expected bytes are etherparse's.

mod common;

use std::net::IpAddr;

use common::inner::{End, udp, v4, v6, wrap, wrap_from};
use common::{Fate, Rig, TUNNEL, plan};
use etherparse::{IpFragOffset, IpNumber, Ipv6FragmentHeader, Ipv6Header, PacketBuilder};

fn tracker(flow: &str) -> Rig {
    Rig::new(&plan(&format!("{TUNNEL}\n[flow]\ntracking = true\n{flow}")))
}

fn passes(rig: &mut Rig, frame: &[u8]) {
    let fate = rig.fate(frame);
    assert!(matches!(fate, Fate::Home(_)), "{fate:?}");
}

/// Any protocol over IP.
fn over_ip(from: End, to: End, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let step = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    };
    let mut out = Vec::new();
    step.write(&mut out, IpNumber(protocol), payload).unwrap();
    out
}

#[test]
fn without_ports_two_addresses_and_the_protocol_are_a_flow() {
    let pairs = [[v4(10, 1, 0, 5, 0), v4(10, 2, 0, 9, 0)], [v6("2001:db8::5", 0), v6("2001:db8:2::9", 0)]];
    // GRE (RFC 2784), ESP (RFC 4303), AH is a header of IPv6 and left out, OSPF, IP in IP, and a number that nobody has.
    let protocols = [47u8, 50, 89, 4, 253];
    let mut rig = tracker("");
    let mut flows = 0;
    for [a, b] in pairs {
        for protocol in protocols {
            flows += 1;
            // What looks like ports is none: it changes with every packet (RFC 4303: SPI, RFC 2784: flags).
            for n in 0..4u8 {
                let payload = [n; 24];
                let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
                passes(&mut rig, &wrap(&over_ip(from, to, protocol, &payload), 7, 60_001));
                let now = rig.settled().flows;
                assert_eq!(now.opened, flows, "protocol {protocol}, packet {n}");
                // The second packet is the answer.
                assert_eq!(now.established, if n == 0 { flows - 1 } else { flows });
            }
        }
    }
    // Another endpoint has addresses of its own.
    passes(&mut rig, &wrap_from(9, &over_ip(pairs[0][0], pairs[0][1], 47, &[0; 24]), 7, 60_001));
    assert_eq!((rig.settled().flows.opened, rig.settled().flows.stateless), (flows + 1, 0));
}

#[test]
fn sctp_dccp_and_udp_lite_have_ports() {
    let mut rig = tracker("");
    let (a, b) = (v4(10, 1, 0, 5, 0), v4(10, 2, 0, 9, 0));
    let mut flows = 0;
    for protocol in [132u8, 33, 136] {
        for client in [40_000u16, 40_001] {
            flows += 1;
            for n in 0..4u8 {
                let ports = if n % 2 == 0 { [client, 3868] } else { [3868, client] };
                // UDP-Lite's third field is the coverage, 0 for all of it (RFC 3828); DCCP's ninth byte the offset of data in words (RFC 4340).
                let mut payload = [0; 28];
                payload[..2].copy_from_slice(&ports[0].to_be_bytes());
                payload[2..4].copy_from_slice(&ports[1].to_be_bytes());
                payload[4] = if protocol == 33 { 4 } else { 0 };
                let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
                passes(&mut rig, &wrap(&over_ip(from, to, protocol, &payload), 7, 60_001));
                assert_eq!(rig.settled().flows.opened, flows, "protocol {protocol}, packet {n}");
            }
        }
    }
    assert_eq!((rig.settled().flows.established, rig.settled().flows.stateless), (flows, 0));
}

/// ICMPv6 about a packet: type and code as given, as much of the packet as there is (RFC 4443 section 3).
fn error6(from: End, to: End, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from.0, to.0) else { panic!("IPv6") };
    let mut out = Vec::new();
    PacketBuilder::ipv6(from.octets(), to.octets(), 64)
        .icmpv6_raw(kind, code, [0, 0, 5, 0])
        .write(&mut out, about)
        .unwrap();
    out
}

#[test]
fn icmpv6_errors_belong_to_the_flow_that_they_quote() {
    let (client, server, router) =
        (v6("2001:db8::5", 40_000), v6("2001:db8:2::9", 443), v6("2001:db8:f::1", 0));
    let mut rig = tracker("");
    passes(&mut rig, &wrap(&udp(client, server, &[1; 40]), 7, 60_001));
    let quoted = udp(client, server, &[2; 40]);
    // Unreachable, too big, time exceeded, parameter problem; by the server and by a router on the way.
    for (kind, code) in [(1, 4), (2, 0), (3, 0), (4, 1)] {
        for from in [server, router] {
            passes(&mut rig, &wrap(&error6(from, client, kind, code, &quoted), 9, 62_000));
        }
    }
    let now = rig.settled().flows;
    assert_eq!((now.opened, now.related, now.unrelated, now.established, now.refreshed), (1, 8, 0, 0, 0));
    // About the answer of the server, towards the server.
    passes(&mut rig, &wrap(&error6(client, server, 1, 4, &udp(server, client, &[3; 40])), 9, 62_000));
    // About a flow that nobody knows.
    passes(
        &mut rig,
        &wrap(&error6(server, client, 1, 4, &udp(client, (server.0, 444), &[2; 40])), 9, 62_000),
    );
    let now = rig.settled().flows;
    assert_eq!((now.opened, now.related, now.unrelated), (1, 9, 1));
}

/// Three pieces of an IPv6 packet (RFC 8200 section 4.5).
fn pieces6(whole: &[u8], id: u32) -> [Vec<u8>; 3] {
    let (header, payload) = Ipv6Header::from_slice(whole).unwrap();
    [(0, 24), (24, 48), (48, payload.len())].map(|(from, to)| {
        let fragment = Ipv6FragmentHeader::new(
            header.next_header,
            IpFragOffset::try_new(from as u16 / 8).unwrap(),
            to < payload.len(),
            id,
        );
        let header = Ipv6Header {
            payload_length: (8 + to - from) as u16,
            next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
            ..header.clone()
        };
        let mut out = Vec::new();
        header.write(&mut out).unwrap();
        out.extend(fragment.to_bytes());
        out.extend(&payload[from..to]);
        out
    })
}

#[test]
fn ipv6_fragments_belong_to_the_flow_of_their_first_in_any_order() {
    let (client, server) = (v6("2001:db8::5", 40_000), v6("2001:db8:2::9", 443));
    for (order, held) in [([0, 1, 2], 0), ([0, 2, 1], 0), ([1, 0, 2], 1), ([2, 1, 0], 2), ([1, 2, 0], 2)] {
        let mut rig = tracker("");
        passes(&mut rig, &wrap(&udp(server, client, &[1; 40]), 7, 60_001));
        let pieces = pieces6(&udp(client, server, &[9; 64]), 0xdead_beef);
        for n in order {
            rig.wire.send(wrap(&pieces[n], 9, 62_000));
            rig.worker.poll();
        }
        while rig.worker.poll() > 0 {}
        let now = rig.settled();
        assert_eq!((now.ledger().sent, now.ledger().dropped, now.ledger().held), (4, 0, 0), "{order:?}");
        let flows = now.flows;
        assert_eq!((flows.opened, flows.established, flows.stateless), (1, 1, 0), "{order:?}");
        assert_eq!(
            (flows.first_fragments, flows.later_fragments, flows.held_fragments),
            (1, 2, held),
            "{order:?}"
        );
        // Under another identification they are another datagram's.
        let [_, stray, _] = pieces6(&udp(client, server, &[9; 64]), 0xdead_bee0);
        rig.wire.send(wrap(&stray, 9, 62_000));
        rig.worker.poll();
        assert_eq!(rig.worker.counters().snapshot().ledger().held, 1);
    }
}
