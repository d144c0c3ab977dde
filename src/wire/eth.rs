//! Ethernet II with at most one 802.1Q tag.
//!
//! Promises the EtherType and the payload behind the tag. A second tag is not looked into: its EtherType (0x8100 or 0x88A8) is
//! what [`Eth::ethertype`] returns then. Length fields of 802.3 (below 0x0600) are returned as they are.

use super::Malformed;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;

/// A checked Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Eth<'a> {
    header: &'a [u8; HEADER_LEN],
    tag: Option<&'a [u8; 4]>,
    payload: &'a [u8],
}

impl<'a> Eth<'a> {
    /// A frame from its first byte on.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if u16::from_be_bytes([header[12], header[13]]) != VLAN {
            return Ok(Eth { header, tag: None, payload: rest });
        }
        let Some((tag, payload)) = rest.split_first_chunk::<4>() else { return Err(Malformed::Truncated) };
        Ok(Eth { header, tag: Some(tag), payload })
    }

    /// Destination MAC address.
    #[inline(always)]
    pub fn destination(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// Source MAC address.
    #[inline(always)]
    pub fn source(&self) -> [u8; 6] {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// EtherType behind the tag.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        match self.tag {
            None => u16::from_be_bytes([self.header[12], self.header[13]]),
            Some(tag) => u16::from_be_bytes([tag[2], tag[3]]),
        }
    }

    /// The 12-bit VLAN of the tag, if there is one.
    #[inline(always)]
    pub fn vlan(&self) -> Option<u16> {
        self.tag.map(|tag| u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff)
    }

    /// Bytes in front of the payload: 14 or 18.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        if self.tag.is_some() { HEADER_LEN + 4 } else { HEADER_LEN }
    }

    /// What follows the header, link padding included.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An untagged header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// EtherType.
    pub ethertype: u16,
}

impl Fields {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..6].copy_from_slice(&self.destination);
        out[6..12].copy_from_slice(&self.source);
        out[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        out
    }
}
