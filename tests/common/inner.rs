//! Inner packets as a test wants them, and the envelope that a gateway load balancer gives them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use sluicegate::traffic::{Envelope, Identity};

/// One end.
pub type End = (IpAddr, u16);

/// An IPv4 end.
pub fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> End {
    (Ipv4Addr::new(a, b, c, d).into(), port)
}

/// An IPv6 end.
pub fn v6(address: &str, port: u16) -> End {
    (address.parse::<Ipv6Addr>().unwrap().into(), port)
}

fn ip((from, to): (IpAddr, IpAddr)) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    }
}

/// A UDP packet.
pub fn udp(from: End, to: End, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ip((from.0, to.0)).udp(from.1, to.1).write(&mut out, payload).unwrap();
    out
}

/// A TCP segment. `flags` is a word of S, A, F, R, P, U (the last byte is urgent).
pub fn tcp(from: End, to: End, flags: &str, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut step = ip((from.0, to.0)).tcp(from.1, to.1, seq, 65535);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(ack),
            'F' => step.fin(),
            'R' => step.rst(),
            'P' => step.psh(),
            'U' => step.urg(payload.len() as u16),
            other => panic!("{other}"),
        };
    }
    let mut out = Vec::new();
    step.write(&mut out, payload).unwrap();
    out
}

/// What a load balancer sends: this packet, under this cookie and outer port.
pub fn wrap(inner: &[u8], cookie: u32, port: u16) -> Vec<u8> {
    Envelope::default().wrap_as(inner, Identity { port, cookie }).expect("a packet that can be wrapped")
}

/// The same from another endpoint.
pub fn wrap_from(endpoint: u64, inner: &[u8], cookie: u32, port: u16) -> Vec<u8> {
    let envelope = Envelope { endpoint, ..Envelope::default() };
    envelope.wrap_as(inner, Identity { port, cookie }).expect("a packet that can be wrapped")
}

/// A UDP packet of 64 bytes of payload in three fragments.
pub fn pieces(whole: &[u8], id: u16) -> [Vec<u8>; 3] {
    [(0, 24), (24, 48), (48, 72)].map(|(from, to)| {
        let mut piece = whole[..20].to_vec();
        piece.extend(&whole[20 + from..20 + to]);
        let more = if to < 72 { 0x2000 } else { 0 };
        piece[2..4].copy_from_slice(&(20 + (to - from) as u16).to_be_bytes());
        piece[4..6].copy_from_slice(&id.to_be_bytes());
        piece[6..8].copy_from_slice(&((from / 8) as u16 | more).to_be_bytes());
        let sum = etherparse::Ipv4Header::from_slice(&piece).unwrap().0.calc_header_checksum();
        piece[10..12].copy_from_slice(&sum.to_be_bytes());
        piece
    })
}

/// ICMP port unreachable about a packet.
pub fn unreachable(from: End, to: End, about: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from.0, to.0) else { panic!("IPv4") };
    let mut out = Vec::new();
    PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut out, &about[..28])
        .unwrap();
    out
}
