//! IPv6 (RFC 8200) and a bounded walk over its extension headers.
//!
//! Promises a version of 6, a fixed header that is all there, and a payload length within the bytes given; bytes behind it
//! are out of sight. Jumbograms (RFC 2675) are not known: their payload length of zero is taken at its word.
//!
//! The walk is separate ([`Ipv6::upper`]) because most packets have no extension header. It goes through hop-by-hop
//! options, routing, fragment, destination options and AH, in any order (RFC 8200 section 4.1 asks receivers to be liberal
//! about it, and a hop-by-hop header that is not the first is the endpoint's business), and stops at everything else: ESP,
//! no-next-header, upper-layer protocols, and behind the fragment header of a later fragment.

use std::net::Ipv6Addr;

use super::Malformed;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Extension headers that the walk goes through. The five kinds that exist, and one of them twice, make six.
pub const MAX_EXTENSIONS: usize = 8;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Encapsulating security payload: what follows is not readable.
pub const ESP: u8 = 50;
/// Authentication header.
pub const AH: u8 = 51;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination options.
pub const DESTINATION: u8 = 60;

/// A checked IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

/// What stands behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper<'a> {
    /// Protocol of [`Self::payload`]. In a later fragment: what the fragment header says, even if that is an extension header.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the IPv6 header.
    pub offset: usize,
    /// The bytes, up to the payload length.
    pub payload: &'a [u8],
    /// The fragment header, if there is one. Offset 0 without more: an atomic fragment (RFC 6946), as good as none.
    pub fragment: Option<Fragment>,
}

/// The fields of a fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the bytes behind the fragment header lie in the fragmentable part, in bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
    /// Bytes behind the fragment header.
    pub len: usize,
}

impl<'a> Ipv6<'a> {
    /// A packet from its version nibble on; bytes behind its payload length are ignored.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if header[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let Some(payload) = rest.get(..len) else { return Err(Malformed::Length) };
        Ok(Ipv6 { header, payload })
    }

    /// The start of a packet that an ICMP error quotes: the payload is what there is of it.
    pub fn new_quoted(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if header[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        Ok(Ipv6 { header, payload: rest.get(..len).unwrap_or(rest) })
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// Flow label, 20 bits.
    #[inline(always)]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// Bytes behind the fixed header.
    #[inline(always)]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Protocol of the first byte behind the fixed header.
    #[inline(always)]
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Hop limit.
    #[inline(always)]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Ipv6Addr {
        self.header.as_chunks::<8>().0.get(1..3).map_or(Ipv6Addr::UNSPECIFIED, address)
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Ipv6Addr {
        self.header.as_chunks::<8>().0.get(3..5).map_or(Ipv6Addr::UNSPECIFIED, address)
    }

    /// What follows the fixed header, extension headers included, up to the payload length.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Walks over the extension headers.
    pub fn upper(&self) -> Result<Upper<'a>, Malformed> {
        let mut next = self.next_header();
        let mut rest = self.payload;
        let mut fragment = None;
        for _ in 0..=MAX_EXTENSIONS {
            let here = next;
            let len = match here {
                HOP_BY_HOP | ROUTING | DESTINATION => match *rest {
                    [_, len, ..] => usize::from(len) * 8 + 8,
                    _ => return Err(Malformed::Extension),
                },
                // AH counts in words of four bytes, less two, and its fixed part has three (RFC 4302 section 2.2).
                AH => match *rest {
                    [_, len @ 1..=255, ..] => usize::from(len) * 4 + 8,
                    _ => return Err(Malformed::Extension),
                },
                FRAGMENT => 8,
                _ => {
                    let offset = HEADER_LEN + (self.payload.len() - rest.len());
                    return Ok(Upper { protocol: here, offset, payload: rest, fragment });
                }
            };
            let Some((header, behind)) = rest.split_at_checked(len) else { return Err(Malformed::Extension) };
            let [following, _, offset_high, offset_low, i0, i1, i2, i3, ..] = *header else {
                return Err(Malformed::Extension);
            };
            next = following;
            rest = behind;
            if here != FRAGMENT {
                continue;
            }
            if fragment.is_some() {
                // A fragment of a fragment: nobody sends it, and it hides what the second one speaks of.
                return Err(Malformed::Extension);
            }
            let word = u16::from_be_bytes([offset_high, offset_low]);
            let id = u32::from_be_bytes([i0, i1, i2, i3]);
            let found = Fragment { offset: word & 0xfff8, more: word & 1 != 0, id, len: rest.len() };
            fragment = Some(found);
            if found.offset != 0 {
                let offset = HEADER_LEN + (self.payload.len() - rest.len());
                return Ok(Upper { protocol: next, offset, payload: rest, fragment });
            }
        }
        Err(Malformed::Extension)
    }
}

fn address(halves: &[[u8; 8]]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (to, from) in octets.as_chunks_mut::<8>().0.iter_mut().zip(halves) {
        *to = *from;
    }
    Ipv6Addr::from(octets)
}

/// A fixed header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label; the upper 12 bits are not sent.
    pub flow_label: u32,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// Protocol of the first byte behind the fixed header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Fields {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        out[..4].copy_from_slice(&first.to_be_bytes());
        out[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..].copy_from_slice(&self.destination.octets());
        out
    }
}
