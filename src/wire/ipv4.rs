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
    // Words of any size give the same sum, in either byte order (RFC 1071 section 2): here of 64 bits, with the carries added at the
    // other end. The sum of the 16-bit words is 0xffff if and only if this one is a multiple of that and not zero, since 2^16 is 1
    // modulo 0xffff. Multiples of an odd number are those that its inverse (modulo 2^64) takes to the quotient, which is small.
    const QUOTIENTS: u64 = u64::MAX / 0xffff;
    const INVERSE: u64 = QUOTIENTS.wrapping_neg(); // 0xffff * QUOTIENTS is -1
    let (Some(a), Some(b), Some(c)) = (header.first_chunk(), header[8..].first_chunk(), header.last_chunk())
    else {
        return false;
    };
    let add = |sum: u64, word: u64| {
        let (sum, carry) = sum.overflowing_add(word);
        sum.wrapping_add(carry.into())
    };
    let sum = add(add(u64::from_ne_bytes(*a), u64::from_ne_bytes(*b)), u32::from_ne_bytes(*c).into());
    sum.wrapping_mul(INVERSE).wrapping_sub(1) < QUOTIENTS
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// As RFC 1071 section 4.1 has it: 16 bits at a time.
    fn plain(header: &[u8; HEADER_LEN]) -> bool {
        let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = (sum >> 16) + (sum & 0xffff);
        (sum >> 16) + (sum & 0xffff) == 0xffff
    }

    /// Sums that carry out of every word, right and one off.
    #[test]
    fn wide_words_have_the_same_sum() {
        let mut words = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut right = 0;
        for n in 0..200_000u32 {
            let mut header = [0u8; HEADER_LEN];
            words.fill_bytes(&mut header);
            // Many bytes at the ends of their range, where carries are.
            for byte in &mut header {
                if n % 3 > 0 && *byte < 0xc0 {
                    *byte = if *byte & 1 == 0 { 0 } else { 0xff };
                }
            }
            if n % 2 == 0 {
                (header[10], header[11]) = (0, 0);
                let sum = checksum::finish(checksum::sum(&header).into());
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            right += u32::from(plain(&header));
            assert_eq!(header_sum_ok(&header), plain(&header), "{header:02x?}");
            header[11] ^= 1;
            assert_eq!(header_sum_ok(&header), plain(&header), "{header:02x?}");
        }
        assert!(right > 90_000, "{right}");
        for end in [0x00, 0xff] {
            assert_eq!(header_sum_ok(&[end; HEADER_LEN]), plain(&[end; HEADER_LEN]), "{end}");
        }
    }
}
