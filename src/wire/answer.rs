//! Packets that we make ourselves: TCP resets, "administratively prohibited" and "packet too big", for IPv4 and IPv6.
//!
//! Each builder takes an inner packet that decap has let in, writes the answer to a slice and returns its length; `None` if there
//! is no answer, or no room for it. Nothing here knows of tunnels, flows or rates.
//!
//! *Who is never answered* ([`Offending::may_be_answered`]): a RST (RFC 9293 section 3.5.2), an ICMP error or redirect, a packet
//! to or from an address that is not one host's, a fragment other than the first, an IPv4 header whose checksum is wrong (RFC 1122
//! section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e). All that we make ourselves is among them or is taken by
//! the host it is for, so two appliances cannot answer each other. ICMP of an unknown type may be an error and is not answered.
//!
//! *Who an answer comes from*: we have no address in the inner network, since we are transparent and such networks overlap.
//! A reset speaks for the other end of its connection; an ICMP error comes from the destination of the packet, the one
//! address of which the sender knows and the way back is routed through us. Both are what the sender's own firewall lets in.
//!
//! *Headers*: TTL 64. IPv4 identification 0 with DF: never a fragment (RFC 6864). A reset keeps the DSCP of the packet and is not
//! ECN capable (RFC 3168 section 6.1.1); ICMP errors have precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
//! Flow label 0.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::InnerFlags;

use super::icmp::{self, Family, Icmp};
use super::inner::Inner;
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::tcp::{self, Tcp};
use super::{checksum, transport};

/// Largest IPv4 answer: what every host takes (RFC 1812 section 4.3.2.3).
pub const MAX_V4: usize = 576;
/// Largest IPv6 answer: what every link carries (RFC 4443 section 2.4 c).
pub const MAX_V6: usize = 1280;
/// Largest reset: IPv6 and TCP without options.
pub const MAX_RESET: usize = ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// Type, code, checksum, and the four bytes behind it.
const ICMP_LEN: usize = icmp::HEADER_LEN + 4;
/// Bytes of a packet's payload that an ICMP error quotes at least, if there are so many (RFC 792).
const LEAST_QUOTED: usize = 8;
const TTL: u8 = 64;
/// Precedence 6.
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// DSCP without ECN.
const DSCP: u8 = 0xfc;

/// The packet that is answered.
#[derive(Clone, Copy, Debug)]
pub struct Offending<'a> {
    /// The packet, as long as its IP header says.
    pub packet: &'a [u8],
    /// Where its transport header starts, 0 in a later fragment.
    pub transport: usize,
    /// Protocol behind all IPv6 extension headers.
    pub protocol: u8,
    /// Yes-or-no facts.
    pub flags: InnerFlags,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

impl<'a> Offending<'a> {
    /// A packet as [`Inner::parse`] found it in `bytes`.
    pub fn new(bytes: &'a [u8], inner: &Inner) -> Self {
        let packet = bytes.get(..inner.len.into()).unwrap_or(&[]);
        let Inner { transport, protocol, flags, .. } = *inner;
        Offending { packet, transport: transport.into(), protocol, flags }
    }

    /// Is it a packet that some answer is allowed to? See the module.
    pub fn may_be_answered(&self) -> bool {
        self.way().is_some()
    }

    /// The packet's own way, if it may be answered.
    fn way(&self) -> Option<Way> {
        if self.flags.has(InnerFlags::LATER_FRAGMENT) || self.ends_the_matter() {
            return None;
        }
        if self.flags.has(InnerFlags::IPV6) {
            let ip = Ipv6::new_checked(self.packet).ok()?;
            let (source, destination) = (ip.source(), ip.destination());
            let hosts = host_v6(source) && host_v6(destination) && source != destination;
            return hosts.then_some(Way::V6 { source, destination });
        }
        let ip = Ipv4::new_checked(self.packet).ok()?;
        let (source, destination) = (ip.source(), ip.destination());
        let hosts = host_v4(source) && host_v4(destination) && source != destination;
        (hosts && ip.header_checksum_ok()).then_some(Way::V4 { source, destination })
    }

    /// A reset, an ICMP error, or what may be one.
    fn ends_the_matter(&self) -> bool {
        if self.protocol == transport::TCP {
            return self.segment().is_none_or(|segment| segment.flags() & tcp::RST != 0);
        }
        if !self.flags.has(InnerFlags::ICMP) {
            return false;
        }
        let message = self.payload();
        if self.flags.has(InnerFlags::IPV6) {
            // Errors have types below 128; 137 is a redirect.
            return Icmp::new_checked(Family::V6, message).map_or(true, |m| m.is_error() || m.kind() == 137);
        }
        // Echo, router discovery, timestamp, information, mask, extended echo: the messages that are known not to be errors.
        Icmp::new_checked(Family::V4, message)
            .map_or(true, |m| !matches!(m.kind(), 0 | 8 | 9 | 10 | 13..=18 | 42 | 43))
    }

    fn segment(&self) -> Option<Tcp<'a>> {
        let tcp = self.protocol == transport::TCP && self.flags.has(InnerFlags::PORTS);
        Tcp::new_checked(self.payload()).ok().filter(|_| tcp)
    }

    /// From the transport header on.
    fn payload(&self) -> &'a [u8] {
        self.packet.get(self.transport..).unwrap_or(&[])
    }

    fn tos(&self) -> u8 {
        match self.packet {
            [first, second, ..] if self.flags.has(InnerFlags::IPV6) => first << 4 | second >> 4,
            [_, tos, ..] => *tos,
            _ => 0,
        }
    }
}

/// A reset for the sender of a segment, as if from the host that it was for (RFC 9293 section 3.5.2): it carries the number that the
/// sender expects next, which RFC 5961 section 3.2 asks for, or acknowledges the segment if there is no such number in it.
pub fn reset_to_sender(offending: &Offending<'_>, out: &mut [u8]) -> Option<usize> {
    let way = offending.way()?.turned();
    let segment = offending.segment()?;
    let flags = segment.flags();
    let (sequence, acknowledgment, flags) = match flags & tcp::ACK != 0 {
        true => (segment.acknowledgment(), 0, tcp::RST),
        false => {
            // Section 3.4: SYN and FIN take a number each. A fragment's length is what we see of it.
            let len = segment.payload().len() as u32
                + u32::from(flags & tcp::SYN != 0)
                + u32::from(flags & tcp::FIN != 0);
            (0, segment.sequence().wrapping_add(len), tcp::RST | tcp::ACK)
        }
    };
    let reset = tcp::Fields {
        source_port: segment.destination_port(),
        destination_port: segment.source_port(),
        sequence,
        acknowledgment,
        flags,
        window: 0,
        checksum: 0,
    };
    write_reset(way, offending.tos(), reset, out)
}

/// A reset for the receiver of a segment, as if from its sender and instead of the segment, which it must not get. RFC 5961
/// section 3.2 believes only the number that is expected next: the segment's own if it came in order, or `next_sequence` from
/// whoever knows better. An ACK is copied, which a receiver that has only sent a SYN insists on (RFC 9293 section 3.10.7.3).
///
/// There is none for a first SYN: its receiver has not seen it and knows of no connection.
pub fn reset_to_receiver(
    offending: &Offending<'_>,
    next_sequence: Option<u32>,
    out: &mut [u8],
) -> Option<usize> {
    let way = offending.way()?;
    let segment = offending.segment()?;
    let ack = segment.flags() & tcp::ACK;
    if next_sequence.is_none() && segment.flags() & tcp::SYN != 0 && ack == 0 {
        return None;
    }
    let reset = tcp::Fields {
        source_port: segment.source_port(),
        destination_port: segment.destination_port(),
        sequence: next_sequence.unwrap_or(segment.sequence()),
        acknowledgment: if ack != 0 { segment.acknowledgment() } else { 0 },
        flags: tcp::RST | ack,
        window: 0,
        checksum: 0,
    };
    write_reset(way, offending.tos(), reset, out)
}

/// "Communication administratively prohibited": ICMP type 3 code 13 (RFC 1812 section 5.2.7.1), ICMPv6 type 1 code 1 (RFC 4443
/// section 3.1).
pub fn prohibited(offending: &Offending<'_>, out: &mut [u8]) -> Option<usize> {
    let way = offending.way()?;
    let (kind, code) = match way {
        Way::V4 { .. } => (3, 13),
        Way::V6 { .. } => (1, 1),
    };
    write_error(way.turned(), kind, code, [0; 4], offending.packet, out)
}

/// "Packet too big", where `mtu` is the largest packet that would get through: ICMP type 3 code 4 (RFC 1191 section 4), ICMPv6 type 2
/// (RFC 4443 section 3.2).
///
/// An IPv4 packet without DF has no such answer: the message says that DF was set (RFC 792), and its sender counts on routers that
/// fragment. IPv6 hosts go down to 1280 bytes and no further (RFC 8201 section 4), so they are never told less.
pub fn too_big(offending: &Offending<'_>, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let way = offending.way()?;
    let (kind, code, mtu) = match way {
        Way::V4 { .. } => {
            Ipv4::new_checked(offending.packet).ok().filter(Ipv4::dont_fragment)?;
            (3, 4, mtu)
        }
        Way::V6 { .. } => (2, 0, mtu.max(MAX_V6 as u16)),
    };
    if offending.packet.len() <= usize::from(mtu) {
        return None;
    }
    write_error(way.turned(), kind, code, u32::from(mtu).to_be_bytes(), offending.packet, out)
}

impl Way {
    fn turned(self) -> Way {
        match self {
            Way::V4 { source, destination } => Way::V4 { source: destination, destination: source },
            Way::V6 { source, destination } => Way::V6 { source: destination, destination: source },
        }
    }

    fn header_len(self) -> usize {
        match self {
            Way::V4 { .. } => ipv4::HEADER_LEN,
            Way::V6 { .. } => ipv6::HEADER_LEN,
        }
    }

    /// Sum of the pseudo header.
    fn pseudo(self, protocol: u8, len: u16) -> u64 {
        match self {
            Way::V4 { source, destination } => checksum::pseudo_v4(source, destination, protocol, len),
            Way::V6 { source, destination } => checksum::pseudo_v6(source, destination, protocol, len.into()),
        }
        .into()
    }

    /// Writes the header in front of `len` bytes and returns what follows it.
    fn emit(self, tos: u8, protocol: u8, len: u16, out: &mut [u8]) -> Option<&mut [u8]> {
        let (header, rest) = out.split_at_mut_checked(self.header_len())?;
        match self {
            Way::V4 { source, destination } => header.copy_from_slice(
                &ipv4::Fields {
                    tos,
                    total_len: len.checked_add(ipv4::HEADER_LEN as u16)?,
                    id: 0,
                    dont_fragment: true,
                    ttl: TTL,
                    protocol,
                    source,
                    destination,
                }
                .emit(),
            ),
            Way::V6 { source, destination } => header.copy_from_slice(
                &ipv6::Fields {
                    traffic_class: tos,
                    flow_label: 0,
                    payload_len: len,
                    next_header: protocol,
                    hop_limit: TTL,
                    source,
                    destination,
                }
                .emit(),
            ),
        }
        rest.get_mut(..len.into())
    }
}

fn write_reset(way: Way, tos: u8, mut reset: tcp::Fields, out: &mut [u8]) -> Option<usize> {
    const LEN: u16 = tcp::HEADER_LEN as u16;
    let body = way.emit(tos & DSCP, transport::TCP, LEN, out)?;
    let sum = way.pseudo(transport::TCP, LEN) + u64::from(checksum::sum(&reset.emit()));
    reset.checksum = checksum::finish(sum);
    body.copy_from_slice(&reset.emit());
    Some(way.header_len() + tcp::HEADER_LEN)
}

/// An ICMP error that quotes as much of the packet as the family allows and `out` has room for.
fn write_error(
    way: Way,
    kind: u8,
    code: u8,
    parameter: [u8; 4],
    packet: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let (protocol, most) = match way {
        Way::V4 { .. } => (transport::ICMP, MAX_V4),
        Way::V6 { .. } => (transport::ICMPV6, MAX_V6),
    };
    let room = most.min(out.len()).checked_sub(way.header_len() + ICMP_LEN)?;
    let quote = packet.get(..room).unwrap_or(packet);
    // Less than this does not say which flow is meant. An IPv4 header may be longer than 20 bytes.
    let header_len = match way {
        Way::V4 { .. } => usize::from(packet.first()? & 0x0f) * 4,
        Way::V6 { .. } => ipv6::HEADER_LEN,
    };
    if quote.len() < packet.len().min(header_len + LEAST_QUOTED) {
        return None;
    }
    let len = (ICMP_LEN + quote.len()) as u16; // at most MAX_V6
    let body = way.emit(INTERNETWORK_CONTROL, protocol, len, out)?;
    let (header, rest) = body.split_first_chunk_mut::<ICMP_LEN>()?;
    let mut message = icmp::Fields { kind, code, checksum: 0, parameter };
    // Only ICMPv6 has a pseudo header (RFC 4443 section 2.3).
    let pseudo = if protocol == transport::ICMPV6 { way.pseudo(protocol, len) } else { 0 };
    let sum = u64::from(checksum::sum(&message.emit())) + u64::from(checksum::sum(quote));
    message.checksum = checksum::finish(pseudo + sum);
    *header = message.emit();
    rest.copy_from_slice(quote);
    Some(way.header_len() + usize::from(len))
}

/// May the address be one host's? Not: this network, loopback, multicast, reserved, limited broadcast (RFC 1122 section 3.2.1.3).
fn host_v4(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 1..=126 | 128..=223)
}

/// May the address be one host's? Not: unspecified, loopback, multicast.
fn host_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests;
