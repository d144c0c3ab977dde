//! What a network card sees in a frame: the outer header, and whether its checksums are right.
//!
//! Written apart from [`crate::wire`] on purpose: a mistake there must not be hidden by the same mistake here.

use crate::dpdk::raw;
use crate::wire::checksum;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The outer IP header of a frame, as far as a card looks: at most one VLAN tag, no IPv6 extension headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outer<'a> {
    /// The IP header.
    pub header: &'a [u8],
    /// Source and destination address, one behind the other.
    pub addresses: &'a [u8],
    /// TCP or UDP header and payload as long as IP says; `None` for other protocols and for fragments.
    pub transport: Option<&'a [u8]>,
    protocol: u8,
}

impl<'a> Outer<'a> {
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let mut rest = frame.get(12..)?;
        if rest.starts_with(&[0x81, 0]) {
            rest = rest.get(4..)?;
        }
        match rest.first_chunk()? {
            [0x08, 0x00] => Self::ipv4(&rest[2..]),
            [0x86, 0xdd] => Self::ipv6(&rest[2..]),
            _ => None,
        }
    }

    fn ipv4(packet: &'a [u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<20>()?;
        let len = usize::from(fixed[0] & 15) * 4;
        if fixed[0] >> 4 != 4 || len < 20 {
            return None;
        }
        let header = packet.get(..len)?;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
        let protocol = fixed[9];
        let transport = packet.get(len..total).filter(|_| !fragment);
        let addresses = packet.get(12..20)?;
        Some(Outer { header, addresses, transport: ports(protocol, transport), protocol })
    }

    fn ipv6(packet: &'a [u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<40>()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let protocol = fixed[6];
        let transport = ports(protocol, packet.get(40..total));
        Some(Outer { header: packet.get(..40)?, addresses: packet.get(8..40)?, transport, protocol })
    }

    /// The `ol_flags` that tell what verifying found. What there is nothing to verify in stays unknown: IPv6 headers,
    /// fragments, UDP without a checksum.
    pub fn checksum_flags(&self) -> u64 {
        let ip = match self.addresses.len() {
            8 if checksum::sum(self.header) == 0xffff => raw::RX_IP_CKSUM_GOOD,
            8 => raw::RX_IP_CKSUM_BAD,
            _ => 0,
        };
        let l4 = match self.transport.map(|segment| self.summed(segment)) {
            None => 0,
            Some(segment) if self.protocol == UDP && segment.get(6..8) == Some(&[0, 0]) => 0,
            Some(segment) => {
                let len = segment.len() as u32;
                let pseudo = checksum::sum(self.addresses) + u32::from(self.protocol) + len;
                let total = pseudo + checksum::sum(segment);
                match total.is_multiple_of(0xffff) {
                    true => raw::RX_L4_CKSUM_GOOD,
                    false => raw::RX_L4_CKSUM_BAD,
                }
            }
        };
        ip | l4
    }

    /// What a transport checksum covers: a UDP datagram may end before its packet does.
    fn summed(&self, segment: &'a [u8]) -> &'a [u8] {
        match (self.protocol, segment) {
            (UDP, [_, _, _, _, high, low, ..]) => {
                segment.get(..u16::from_be_bytes([*high, *low]).into()).unwrap_or(segment)
            }
            _ => segment,
        }
    }
}

/// Only a segment that holds its own header.
fn ports(protocol: u8, segment: Option<&[u8]>) -> Option<&[u8]> {
    let least = match protocol {
        TCP => 20,
        UDP => 8,
        _ => return None,
    };
    segment.filter(|s| s.len() >= least)
}
