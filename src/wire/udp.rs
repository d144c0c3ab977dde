//! UDP (RFC 768).
//!
//! Promises a header that is all there and a length between 8 and the bytes given; bytes behind it are out of sight. The
//! checksum needs the IP addresses: [`super::checksum::verify_udp_v4`]. In the first fragment of a larger datagram the
//! length is beyond the bytes by right; such callers read the ports with [`super::transport::ports`].

use super::Malformed;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A checked UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// A datagram from its source port on; bytes behind its length are ignored.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let Some(len) = usize::from(u16::from_be_bytes([header[4], header[5]])).checked_sub(HEADER_LEN)
        else {
            return Err(Malformed::Header);
        };
        let Some(payload) = rest.get(..len) else { return Err(Malformed::Length) };
        Ok(Udp { header, payload })
    }

    /// Source port.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Bytes of the datagram, header included.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Is there no payload?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The checksum as it stands; 0 means none.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// What follows the header, up to the length.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Bytes of the datagram, header included.
    pub len: u16,
    /// Checksum; 0 for none, or to be filled in when the payload is known ([`super::checksum::udp_v4`]).
    pub checksum: u16,
}

impl Fields {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let [a, b] = self.source_port.to_be_bytes();
        let [c, d] = self.destination_port.to_be_bytes();
        let [e, f] = self.len.to_be_bytes();
        let [g, h] = self.checksum.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}
