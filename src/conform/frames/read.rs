//! What came back, taken apart. Any bytes may come: nothing here panics, and every length is checked.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, sum};

/// A checksum that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// It is zero: there is none.
    None,
    /// Right.
    Good,
    /// Wrong.
    Bad,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenOption<'a> {
    /// Option class.
    pub class: u16,
    /// Option type, critical bit included.
    pub kind: u8,
    /// The three R bits.
    pub reserved: u8,
    /// Its value.
    pub data: &'a [u8],
}

/// An outer packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// The outer header checksum is right.
    pub header_ok: bool,
    /// It is a fragment, or the first of some.
    pub fragment: bool,
    /// TTL.
    pub ttl: u8,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub port: u16,
    /// UDP checksum.
    pub checksum: Sum,
    /// GENEVE's version.
    pub version: u8,
    /// GENEVE's second byte: O, C, reserved bits.
    pub flags: u8,
    /// Protocol type.
    pub protocol: u16,
    /// VNI.
    pub vni: u32,
    /// The options, in their order.
    pub options: Vec<SeenOption<'a>>,
    /// Behind them.
    pub inner: &'a [u8],
}

/// Reads an outer packet, or says what keeps it from being one.
pub fn outer(packet: &[u8]) -> Result<Seen<'_>, &'static str> {
    let header = packet.first_chunk::<20>().ok_or("it ends inside the outer IPv4 header")?;
    let header_len = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err("the outer packet is not IPv4");
    }
    let total = usize::from(word(header, 2));
    let whole = packet.get(..total).ok_or("the outer total length is more than came")?;
    let (ip, datagram) =
        whole.split_at_checked(header_len).ok_or("the outer header is longer than its packet")?;
    if header[9] != UDP {
        return Err("the outer packet is not UDP");
    }
    let udp = datagram.first_chunk::<8>().ok_or("it ends inside the UDP header")?;
    let len = usize::from(word(udp, 4));
    let fragment = word(header, 6) & 0x3fff != 0;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    let datagram = datagram.get(..len).ok_or("the UDP length is more than its packet holds")?;
    let checksum = match word(udp, 6) {
        0 => Sum::None,
        _ if transport_ok(source.into(), destination.into(), UDP, datagram) => Sum::Good,
        _ => Sum::Bad,
    };
    let geneve = datagram.get(8..).unwrap_or_default();
    let base = geneve.first_chunk::<8>().ok_or("it ends inside the GENEVE header")?;
    let options_len = usize::from(base[0] & 0x3f) * 4;
    let (block, inner) = geneve
        .get(8..)
        .and_then(|behind| behind.split_at_checked(options_len))
        .ok_or("the GENEVE options are longer than the packet")?;
    Ok(Seen {
        source,
        destination,
        header_ok: sum(&[ip]) == 0xffff,
        fragment,
        ttl: header[8],
        source_port: word(udp, 0),
        port: word(udp, 2),
        checksum,
        version: base[0] >> 6,
        flags: base[1],
        protocol: word(base, 2),
        vni: u32::from_be_bytes([0, base[4], base[5], base[6]]),
        options: options(block)?,
        inner,
    })
}

/// At most 63 of them, since each is four bytes or more.
fn options(mut block: &[u8]) -> Result<Vec<SeenOption<'_>>, &'static str> {
    let mut found = Vec::new();
    while !block.is_empty() {
        let (&[high, low, kind, len], behind) =
            block.split_first_chunk::<4>().ok_or("a GENEVE option is cut short")?;
        let (data, behind) = behind
            .split_at_checked(usize::from(len & 0x1f) * 4)
            .ok_or("a GENEVE option is longer than all options together")?;
        found.push(SeenOption { class: u16::from_be_bytes([high, low]), kind, reserved: len >> 5, data });
        block = behind;
    }
    Ok(found)
}

/// An inner packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// The protocol behind the IP header (and an IPv6 fragment header is one).
    pub protocol: u8,
    /// A later fragment: it has no transport header.
    pub later: bool,
    /// Source and destination port, of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// The IPv4 header checksum is right (IPv6 has none).
    pub header_ok: bool,
    /// The checksum of TCP, UDP, ICMP is right, as far as it can be told: not of fragments.
    pub transport_ok: bool,
    /// Behind the IP header.
    pub payload: &'a [u8],
    /// Bytes behind the end of the packet.
    pub trailing: usize,
}

/// Reads an inner packet, or says what is wrong with it.
pub fn inner(packet: &[u8], protocol_type: u16) -> Result<Inner<'_>, &'static str> {
    match protocol_type {
        IPV4 => inner_v4(packet),
        IPV6 => inner_v6(packet),
        _ => Err("the protocol type is neither IPv4 nor IPv6"),
    }
}

fn inner_v4(packet: &[u8]) -> Result<Inner<'_>, &'static str> {
    let header = packet.first_chunk::<20>().ok_or("it ends inside the inner IPv4 header")?;
    let header_len = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err("the inner packet is not IPv4");
    }
    let whole =
        packet.get(..usize::from(word(header, 2))).ok_or("the inner total length is more than came")?;
    let (ip, payload) =
        whole.split_at_checked(header_len).ok_or("the inner header is longer than its packet")?;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let place = word(header, 6);
    let seen = Inner {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol: header[9],
        later: place & 0x1fff != 0,
        ports: None,
        header_ok: sum(&[ip]) == 0xffff,
        transport_ok: true,
        payload,
        trailing: packet.len() - whole.len(),
    };
    Ok(with_transport(seen, place & 0x3fff != 0))
}

fn inner_v6(packet: &[u8]) -> Result<Inner<'_>, &'static str> {
    let (header, behind) = packet.split_first_chunk::<40>().ok_or("it ends inside the inner IPv6 header")?;
    if header[0] >> 4 != 6 {
        return Err("the inner packet is not IPv6");
    }
    let payload =
        behind.get(..usize::from(word(header, 4))).ok_or("the inner payload length is more than came")?;
    let address = |at: usize| {
        let bytes = header.get(at..at + 16).and_then(|bytes| bytes.first_chunk::<16>()).copied();
        Ipv6Addr::from(bytes.unwrap_or_default())
    };
    let seen = Inner {
        source: address(8).into(),
        destination: address(24).into(),
        protocol: header[6],
        later: false,
        ports: None,
        header_ok: true,
        transport_ok: true,
        payload,
        trailing: behind.len() - payload.len(),
    };
    Ok(with_transport(seen, false))
}

fn with_transport(mut seen: Inner<'_>, fragment: bool) -> Inner<'_> {
    let ports = matches!(seen.protocol, TCP | UDP) && !seen.later;
    if let (true, Some(&[a, b, c, d])) = (ports, seen.payload.first_chunk::<4>()) {
        seen.ports = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
    }
    seen.transport_ok = fragment
        || match seen.protocol {
            ICMP => sum(&[seen.payload]) == 0xffff,
            // Without a checksum over IPv4.
            UDP if seen.source.is_ipv4() && seen.payload.get(6..8) == Some(&[0, 0]) => true,
            TCP | UDP | ICMPV6 => transport_ok(seen.source, seen.destination, seen.protocol, seen.payload),
            _ => true,
        };
    seen
}

fn transport_ok(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> bool {
    let (tail, len) = ([0, protocol], (bytes.len() as u32).to_be_bytes());
    0xffff
        == match (from, to) {
            (IpAddr::V4(a), IpAddr::V4(b)) => sum(&[&a.octets(), &b.octets(), &tail, &len, bytes]),
            (IpAddr::V6(a), IpAddr::V6(b)) => sum(&[&a.octets(), &b.octets(), &tail, &len, bytes]),
            _ => 0,
        }
}

/// The packet without what a router or a translator changes: hop limit, addresses, ports, checksums. The rest is to stay as it was.
pub fn masked(packet: &[u8]) -> Vec<u8> {
    let mut masked = packet.to_vec();
    let mut wipe = |from: usize, to: usize| {
        if let Some(bytes) = masked.get_mut(from..to) {
            bytes.fill(0);
        }
    };
    let first = packet.first().copied().unwrap_or(0);
    let (protocol, at) = if first >> 4 == 6 {
        wipe(7, 40);
        (packet.get(6), 40)
    } else {
        wipe(8, 9);
        wipe(10, 20);
        (packet.get(9), usize::from(first & 15) * 4)
    };
    match protocol.copied() {
        Some(TCP) => {
            wipe(at, at + 4);
            wipe(at + 16, at + 18);
        }
        Some(UDP) => {
            wipe(at, at + 4);
            wipe(at + 6, at + 8);
        }
        _ => {}
    }
    masked
}

/// 16 bits of a header, in network order; 0 behind its end.
fn word(header: &[u8], at: usize) -> u16 {
    header.get(at..).and_then(|bytes| bytes.first_chunk::<2>()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}
