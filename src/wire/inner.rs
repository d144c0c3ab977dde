//! The tunnelled packet: what decap needs to know of it, and whether it may pass.
//!
//! This is where the formats are composed and where a failed bound becomes a [`DropReason`]. The device is transparent, so it
//! refuses only what it cannot read for certain or what is built to be read in two ways: headers and lengths that
//! contradict each other, and fragments that hide their ports from a filter (RFC 1858, 3128, 7112). What an endpoint
//! can judge as well is the endpoint's: header and payload checksums, TTL, addresses, options, flags, unknown protocols.
//!
//! Nearly every packet is TCP or UDP in IPv4 without options or IPv6 without extension headers, and not a fragment. For
//! those, [`Inner::parse`] reads fixed offsets and compares a few lengths. Whatever does not fit goes, out of line,
//! through the views, which alone define what is right; that both say the same of a usual packet is a property test.

use crate::packet::{DropReason, InnerFlags};

use super::icmp::{Family, Icmp};
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::tcp::Tcp;
use super::{Malformed, eth, ipv4, ipv6, tcp, transport, udp};

/// Facts of a tunnelled packet. Offsets are in bytes from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Bytes of the packet as its IP header states them.
    pub len: u16,
    /// Where the transport header starts; 0 in a later fragment.
    pub transport: u16,
    /// Bytes from there to the end of the packet; 0 in a later fragment.
    pub transport_len: u16,
    /// Source port, or ICMP type (high byte) and code; see the flags.
    pub source_port: u16,
    /// Destination port, or the identifier of an ICMP echo.
    pub destination_port: u16,
    /// Protocol behind all IPv6 extension headers. In a later fragment: what its IP or fragment header says.
    pub protocol: u8,
    /// TCP flags, 0 for other protocols.
    pub tcp_flags: u8,
    /// Yes-or-no facts.
    pub flags: InnerFlags,
}

impl Inner {
    /// Reads what follows the GENEVE header, up to the end of the UDP payload. Bytes behind the packet's own length are ignored.
    #[inline(always)]
    pub fn parse(bytes: &[u8], ethertype: u16) -> Result<Inner, DropReason> {
        match Inner::usual(bytes, ethertype) {
            Some(inner) => Ok(inner),
            None => Inner::any(bytes, ethertype),
        }
    }

    /// The usual packet, or `None` for one that needs [`Self::any`]. A caller that handles both by itself keeps the facts of the
    /// usual one in registers.
    #[inline(always)]
    pub fn usual(bytes: &[u8], ethertype: u16) -> Option<Inner> {
        match ethertype {
            eth::IPV4 => usual_v4(bytes, &PlainV4::NEW),
            eth::IPV6 => usual_v6(bytes),
            _ => None,
        }
    }

    /// The same for what is known to be IPv4.
    #[inline(always)]
    pub fn usual_v4(bytes: &[u8], plain: &PlainV4) -> Option<Inner> {
        usual_v4(bytes, plain)
    }

    /// Any packet, through the views.
    #[cold]
    #[inline(never)]
    pub fn any(bytes: &[u8], ethertype: u16) -> Result<Inner, DropReason> {
        match ethertype {
            eth::IPV4 => any_v4(bytes),
            eth::IPV6 => any_v6(bytes),
            _ => Err(DropReason::GeneveProtocol),
        }
    }
}

/// How a plain IPv4 header begins: version 4, five words; no MF, no offset.
///
/// For whoever asks for every packet, and keeps it in memory: a constant mask is taken apart by the compiler, into a load for each byte that
/// it lets through. That is eleven instructions in place of four.
#[derive(Clone, Copy, Debug)]
pub struct PlainV4 {
    mask: u64,
    value: u64,
}

impl PlainV4 {
    /// The only one there is.
    pub const NEW: PlainV4 = PlainV4 {
        mask: u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]),
        value: u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]),
    };
}

/// TCP or UDP in IPv4 without options and fragments, or `None`.
#[inline(always)]
fn usual_v4(bytes: &[u8], plain: &PlainV4) -> Option<Inner> {
    const AT: usize = ipv4::HEADER_LEN;
    let h = bytes.first_chunk::<{ AT + udp::HEADER_LEN }>()?;
    let len = u16::from_be_bytes([h[2], h[3]]);
    let first = u64::from_ne_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]]);
    if first & plain.mask != plain.value || usize::from(len) > bytes.len() {
        return None;
    }
    // Each arm proves that the transport header fits, hence that the total length does not cut the IP header.
    let transport_len = len.checked_sub(AT as u16)?;
    let tcp_flags = match h[9] {
        transport::TCP => {
            let h = bytes.first_chunk::<{ AT + tcp::HEADER_LEN }>()?;
            let header_len = u16::from(h[AT + 12] >> 4) * 4;
            if header_len < tcp::HEADER_LEN as u16 || header_len > transport_len {
                return None;
            }
            h[AT + 13]
        }
        transport::UDP => {
            let udp_len = u16::from_be_bytes([h[AT + 4], h[AT + 5]]);
            if udp_len < udp::HEADER_LEN as u16 || udp_len > transport_len {
                return None;
            }
            0
        }
        _ => return None,
    };
    Some(Inner {
        len,
        transport: AT as u16,
        transport_len,
        source_port: u16::from_be_bytes([h[AT], h[AT + 1]]),
        destination_port: u16::from_be_bytes([h[AT + 2], h[AT + 3]]),
        protocol: h[9],
        tcp_flags,
        flags: InnerFlags(InnerFlags::PORTS),
    })
}

/// TCP or UDP right behind the fixed header of IPv6, or `None`.
#[inline(always)]
fn usual_v6(bytes: &[u8]) -> Option<Inner> {
    const AT: usize = ipv6::HEADER_LEN;
    let h = bytes.first_chunk::<{ AT + udp::HEADER_LEN }>()?;
    let transport_len = u16::from_be_bytes([h[4], h[5]]);
    let len = transport_len.checked_add(AT as u16)?;
    if h[0] >> 4 != 6 || usize::from(len) > bytes.len() {
        return None;
    }
    let tcp_flags = match h[6] {
        transport::TCP => {
            let h = bytes.first_chunk::<{ AT + tcp::HEADER_LEN }>()?;
            let header_len = u16::from(h[AT + 12] >> 4) * 4;
            if header_len < tcp::HEADER_LEN as u16 || header_len > transport_len {
                return None;
            }
            h[AT + 13]
        }
        transport::UDP => {
            let udp_len = u16::from_be_bytes([h[AT + 4], h[AT + 5]]);
            if udp_len < udp::HEADER_LEN as u16 || udp_len > transport_len {
                return None;
            }
            0
        }
        _ => return None,
    };
    Some(Inner {
        len,
        transport: AT as u16,
        transport_len,
        source_port: u16::from_be_bytes([h[AT], h[AT + 1]]),
        destination_port: u16::from_be_bytes([h[AT + 2], h[AT + 3]]),
        protocol: h[6],
        tcp_flags,
        flags: InnerFlags(InnerFlags::PORTS | InnerFlags::IPV6),
    })
}

fn any_v4(bytes: &[u8]) -> Result<Inner, DropReason> {
    let ip = Ipv4::new_checked(bytes).map_err(reason)?;
    let piece = Piece {
        offset: ip.fragment_offset().into(),
        more: ip.more_fragments(),
        len: ip.payload().len(),
        unfragmented: ip.header_len(),
    };
    judge(ip.total_len().into(), 0, ip.protocol(), ip.header_len(), ip.payload(), piece)
}

fn any_v6(bytes: &[u8]) -> Result<Inner, DropReason> {
    let ip = Ipv6::new_checked(bytes).map_err(reason)?;
    let upper = ip.upper().map_err(reason)?;
    let piece = match upper.fragment {
        Some(fragment) => Piece {
            offset: fragment.offset.into(),
            more: fragment.more,
            len: fragment.len,
            // The reassembled payload length counts the extension headers in front of the fragment header, not that itself.
            unfragmented: (ip.payload().len() - fragment.len).saturating_sub(8),
        },
        None => Piece { offset: 0, more: false, len: upper.payload.len(), unfragmented: 0 },
    };
    let len = ipv6::HEADER_LEN + ip.payload().len();
    judge(len, InnerFlags::IPV6, upper.protocol, upper.offset, upper.payload, piece)
}

/// What a packet says of its place in a larger one. A whole packet has offset 0 and no more.
struct Piece {
    offset: usize,
    more: bool,
    /// Bytes of the larger packet in this piece.
    len: usize,
    /// Bytes in front of the pieces that count for the length of the larger packet.
    unfragmented: usize,
}

fn judge(
    len: usize,
    family: u8,
    protocol: u8,
    at: usize,
    payload: &[u8],
    piece: Piece,
) -> Result<Inner, DropReason> {
    // Only an IPv6 packet can state more, and no outer packet can hold it.
    let len = u16::try_from(len).map_err(|_| DropReason::InnerLength)?;
    if piece.more && !piece.len.is_multiple_of(8) {
        return Err(DropReason::InnerFragment);
    }
    if piece.offset + piece.len + piece.unfragmented > usize::from(u16::MAX) {
        return Err(DropReason::InnerFragment);
    }
    let mut inner = Inner {
        len,
        transport: at as u16,
        transport_len: payload.len() as u16,
        source_port: 0,
        destination_port: 0,
        protocol,
        tcp_flags: 0,
        flags: InnerFlags(family),
    };
    if piece.offset != 0 {
        // Eight bytes in, a TCP fragment would overwrite flags that the first fragment showed (RFC 3128).
        if protocol == transport::TCP && piece.offset == 8 {
            return Err(DropReason::InnerFragment);
        }
        inner.flags.0 |= InnerFlags::LATER_FRAGMENT;
        (inner.transport, inner.transport_len) = (0, 0);
        return Ok(inner);
    }
    let cut_short = if piece.more {
        inner.flags.0 |= InnerFlags::FIRST_FRAGMENT;
        DropReason::InnerFragment
    } else {
        DropReason::InnerTransport
    };
    let icmp = match protocol {
        transport::ICMP if family == 0 => Some(Family::V4),
        transport::ICMPV6 if family != 0 => Some(Family::V6),
        _ => None,
    };
    if let Some(family) = icmp {
        let icmp = Icmp::new_checked(family, payload).map_err(|_| cut_short)?;
        inner.source_port = u16::from_be_bytes([icmp.kind(), icmp.code()]);
        inner.destination_port = icmp.echo_id().unwrap_or(0);
        inner.flags.0 |= InnerFlags::ICMP;
        return Ok(inner);
    }
    let Some(header_len) = transport::header_len(protocol) else { return Ok(inner) };
    if payload.len() < header_len {
        return Err(cut_short);
    }
    (inner.source_port, inner.destination_port) = transport::ports(payload).ok_or(cut_short)?;
    inner.flags.0 |= InnerFlags::PORTS;
    match protocol {
        transport::TCP => {
            inner.tcp_flags = Tcp::new_checked(payload)
                .map_err(|malformed| match malformed {
                    // In a first fragment the options may lie in the next: hidden from us, so refused (RFC 7112).
                    Malformed::Length => cut_short,
                    _ => DropReason::InnerTransport,
                })?
                .flags();
        }
        // The length of a fragmented datagram is that of the whole.
        transport::UDP => match udp::Udp::new_checked(payload) {
            Ok(_) => {}
            Err(Malformed::Length) if piece.more => {}
            Err(_) => return Err(DropReason::InnerTransport),
        },
        _ => {}
    }
    Ok(inner)
}

fn reason(malformed: Malformed) -> DropReason {
    match malformed {
        Malformed::Truncated => DropReason::InnerTruncated,
        Malformed::Version => DropReason::InnerVersion,
        Malformed::Header => DropReason::InnerHeader,
        Malformed::Length => DropReason::InnerLength,
        Malformed::Extension => DropReason::InnerExtension,
    }
}

#[cfg(test)]
mod tests;
