//! IPv4 (RFC 791).
//!
//! Promises a version of 4, a header that is all there, and a total length between the header and the bytes given. Bytes
//! behind the total length (link padding, trailing garbage) are out of sight. The header checksum is not part of
//! `new_checked`: ask [`Ipv4::header_checksum_ok`] where it matters. Options are handed out as bytes; nobody here acts on them.

use std::net::Ipv4Addr;

use super::{Malformed, checksum};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// A checked IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// A packet from its version nibble on; bytes behind its total length are ignored.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if header[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < HEADER_LEN || total < header_len {
            return Err(Malformed::Header);
        }
        let Some((options, rest)) = rest.split_at_checked(header_len - HEADER_LEN) else {
            return Err(Malformed::Truncated);
        };
        let Some(payload) = rest.get(..total - header_len) else { return Err(Malformed::Length) };
        Ok(Ipv4 { header, options, payload })
    }

    /// The start of a packet that an ICMP error quotes: the payload is what there is of it.
    pub fn new_quoted(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if header[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < HEADER_LEN {
            return Err(Malformed::Header);
        }
        let Some((options, rest)) = rest.split_at_checked(header_len - HEADER_LEN) else {
            return Err(Malformed::Truncated);
        };
        // Some hosts quote the total length in another byte order or less the header: it only ever shortens.
        let payload = total.checked_sub(header_len).and_then(|len| rest.get(..len)).unwrap_or(rest);
        Ok(Ipv4 { header, options, payload })
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Bytes of the packet, header included.
    #[inline(always)]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Identification, the same in all fragments of a packet.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// DF.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// MF: more fragments follow.
    #[inline(always)]
    pub fn more_fragments(&self) -> bool {
        self.header[6] & 0x20 != 0
    }

    /// Where the payload lies in the whole packet, in bytes: 0 to 65528.
    #[inline(always)]
    pub fn fragment_offset(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]]) << 3
    }

    /// Is it a fragment: more follow, or it is not the first?
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.header[6], self.header[7]]) & 0x3fff != 0
    }

    /// Time to live.
    #[inline(always)]
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// Protocol of the payload (IANA).
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The checksum as it stands.
    #[inline(always)]
    pub fn header_checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[10], self.header[11]])
    }

    /// Is the header checksum right?
    #[inline(always)]
    pub fn header_checksum_ok(&self) -> bool {
        if self.options.is_empty() {
            return header_sum_ok(self.header);
        }
        let total = u64::from(checksum::sum(self.header)) + u64::from(checksum::sum(self.options));
        checksum::fold(total) == 0xffff
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[12], self.header[13], self.header[14], self.header[15])
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[16], self.header[17], self.header[18], self.header[19])
    }

    /// The options, 0 to 40 bytes.
    #[inline(always)]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// What follows the header, up to the total length.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Is the checksum of a header without options right?
#[inline(always)]
pub fn header_sum_ok(header: &[u8; HEADER_LEN]) -> bool {
    // Any word size gives the same sum, in either byte order (RFC 1071 section 2): five additions of 32 bits, folded thrice.
    let [a, b, c, d, e] = *header.as_chunks::<4>().0 else { return false };
    let wide = |word: [u8; 4]| u64::from(u32::from_ne_bytes(word));
    let sum = wide(a) + wide(b) + wide(c) + wide(d) + wide(e);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) + (sum & 0xffff) == 0xffff
}

/// A header without options to be written, not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of the packet, header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Fields {
    /// The header's bytes with a right checksum.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = 0x45;
        out[1] = self.tos;
        out[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        out[4..6].copy_from_slice(&self.id.to_be_bytes());
        out[6] = if self.dont_fragment { 0x40 } else { 0 };
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let checksum = checksum::finish(checksum::sum(&out).into());
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
        out
    }
}
