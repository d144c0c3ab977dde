//! Packets as a load balancer sends them: an inner packet, and the envelope around it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{FRAGMENT, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, sum};

/// TTL of inner packets.
const INNER_TTL: u8 = 64;

/// The two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends.
    pub from: SocketAddr,
    /// Who is meant.
    pub to: SocketAddr,
}

impl Ends {
    /// The other direction.
    pub fn turned(self) -> Self {
        Ends { from: self.to, to: self.from }
    }
}

/// A TCP segment without options.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// ACK.
pub const ACK: u8 = 16;

/// A UDP datagram in an IP packet.
pub fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    for word in [ends.from.port(), ends.to.port(), (8 + payload.len()) as u16, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    let whole = transport_sum(ends.from.ip(), ends.to.ip(), UDP, &datagram);
    put(&mut datagram, 6, if whole == 0 { 0xffff } else { whole });
    ip(ends.from.ip(), ends.to.ip(), UDP, &datagram)
}

/// A TCP segment in an IP packet.
pub fn tcp(ends: Ends, segment: Segment<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + segment.payload.len());
    bytes.extend(ends.from.port().to_be_bytes());
    bytes.extend(ends.to.port().to_be_bytes());
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgment.to_be_bytes());
    bytes.extend([5 << 4, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(segment.payload);
    let whole = transport_sum(ends.from.ip(), ends.to.ip(), TCP, &bytes);
    put(&mut bytes, 16, whole);
    ip(ends.from.ip(), ends.to.ip(), TCP, &bytes)
}

/// An echo request or reply, of the family of its addresses.
pub fn echo(ends: Ends, request: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    let kind = match (ends.from.is_ipv4(), request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    icmp(ends.from.ip(), ends.to.ip(), [kind, 0], u32::from(id) << 16 | 1, payload)
}

/// An ICMP message: type and code, the word behind the checksum, and what follows (for an error: the packet that it is about).
pub fn icmp(from: IpAddr, to: IpAddr, kind: [u8; 2], word: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind[0], kind[1], 0, 0];
    bytes.extend(word.to_be_bytes());
    bytes.extend(payload);
    let (protocol, whole) = match from {
        IpAddr::V4(_) => (ICMP, !sum(&[&bytes])),
        IpAddr::V6(_) => (ICMPV6, transport_sum(from, to, ICMPV6, &bytes)),
    };
    put(&mut bytes, 2, whole);
    ip(from, to, protocol, &bytes)
}

/// Any IP packet. IPv4 has DF set; both addresses have to be of one family.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, INNER_TTL, protocol, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            let total = packet.len() as u16;
            put(&mut packet, 2, total);
            header_sum(&mut packet);
            packet
        }
        (from, to) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, INNER_TTL]);
            packet.extend(sixteen(from));
            packet.extend(sixteen(to));
            packet.extend(payload);
            packet
        }
    }
}

/// A packet in fragments that carry `size` bytes of its payload each, the last one less; `size` is a multiple of 8.
pub fn pieces(packet: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let v4 = packet.first().is_some_and(|b| b >> 4 == 4);
    let (header, payload) = packet.split_at(if v4 { 20 } else { 40 });
    let count = payload.len().div_ceil(size);
    let piece = |(n, bytes): (usize, &[u8])| {
        let (offset, more) = (n * size, n + 1 < count);
        let mut piece = header.to_vec();
        if v4 {
            put(&mut piece, 4, id);
            put(&mut piece, 6, (offset / 8) as u16 | if more { 0x2000 } else { 0 });
            piece.extend(bytes);
            let total = piece.len() as u16;
            put(&mut piece, 2, total);
            header_sum(&mut piece);
        } else {
            let upper = std::mem::replace(&mut piece[6], FRAGMENT);
            piece.extend([upper, 0]);
            piece.extend((offset as u16 | u16::from(more)).to_be_bytes());
            piece.extend([0, 0]);
            piece.extend(id.to_be_bytes());
            piece.extend(bytes);
            let len = (piece.len() - 40) as u16;
            put(&mut piece, 4, len);
        }
        piece
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

/// One option of an envelope. Its data is a multiple of four bytes, at most 124.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelOption {
    /// Option class.
    pub class: u16,
    /// Option type, critical bit (0x80) included.
    pub kind: u8,
    /// The three R bits, which a receiver ignores.
    pub reserved: u8,
    /// Its value.
    pub data: Vec<u8>,
}

impl TunnelOption {
    /// An option without reserved bits.
    pub fn new(class: u16, kind: u8, data: &[u8]) -> Self {
        TunnelOption { class, kind, reserved: 0, data: data.to_vec() }
    }
}

/// Everything around an inner packet. The fields say what a right packet says, unless they are set otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The load balancer's node.
    pub node: Ipv4Addr,
    /// The appliance.
    pub appliance: Ipv4Addr,
    /// Outer UDP source port.
    pub source_port: u16,
    /// Outer UDP destination port.
    pub port: u16,
    /// TTL of the outer header.
    pub ttl: u8,
    /// With a UDP checksum; without, it is zero.
    pub checksum: bool,
    /// GENEVE's second byte: O is 0x80, C is 0x40.
    pub flags: u8,
    /// The protocol type; `None` for what the inner packet is.
    pub protocol: Option<u16>,
    /// The VNI, and the reserved byte behind it.
    pub vni: (u32, u8),
    /// The options, in their order; at most 252 bytes in all.
    pub options: Vec<TunnelOption>,
}

impl Envelope {
    /// The outer packet around this one, both checksums right.
    pub fn packet(&self, inner: &[u8]) -> Vec<u8> {
        let mut options = Vec::new();
        for option in &self.options {
            options.extend(option.class.to_be_bytes());
            options.extend([option.kind, option.reserved << 5 | (option.data.len() / 4) as u8]);
            options.extend(&option.data);
        }
        let protocol = self.protocol.unwrap_or(match inner.first().map_or(0, |b| b >> 4) {
            6 => IPV6,
            _ => IPV4,
        });
        let mut datagram = Vec::with_capacity(16 + options.len() + inner.len());
        datagram.extend(self.source_port.to_be_bytes());
        datagram.extend(self.port.to_be_bytes());
        datagram.extend(((16 + options.len() + inner.len()) as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend([(options.len() / 4) as u8, self.flags]);
        datagram.extend(protocol.to_be_bytes());
        datagram.extend((self.vni.0 << 8 | u32::from(self.vni.1)).to_be_bytes());
        datagram.extend(options);
        datagram.extend(inner);
        // As AWS sends it: TOS 0, id 0, DF clear.
        let total = (20 + datagram.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0, 0, self.ttl, UDP, 0, 0]);
        packet.extend(self.node.octets());
        packet.extend(self.appliance.octets());
        packet.extend(datagram);
        header_sum(&mut packet);
        if self.checksum {
            udp_sum(&mut packet);
        }
        packet
    }
}

/// Writes 16 bits, in network order.
pub fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// Makes the header checksum of an IPv4 packet without options right.
pub fn header_sum(packet: &mut [u8]) {
    put(packet, 10, 0);
    let whole = !sum(&[&packet[..20]]);
    put(packet, 10, whole);
}

/// Makes the checksum of a UDP datagram in an IPv4 packet without options right, for all bytes that are there.
pub fn udp_sum(packet: &mut [u8]) {
    put(packet, 26, 0);
    let (from, to) = (four(&packet[12..16]), four(&packet[16..20]));
    let whole = transport_sum(from, to, UDP, &packet[20..]);
    put(packet, 26, if whole == 0 { 0xffff } else { whole });
}

fn four(bytes: &[u8]) -> IpAddr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The checksum of a transport header and what follows, with its pseudo header.
fn transport_sum(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let tail = [0, protocol];
    let len = (bytes.len() as u32).to_be_bytes();
    !match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&[&from.octets(), &to.octets(), &tail, &len, bytes]),
        (from, to) => sum(&[&sixteen(from), &sixteen(to), &tail, &len, bytes]),
    }
}
