//! What the transport protocols have in common: their numbers, their ports, their shortest headers.

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP (RFC 4340).
pub const DCCP: u8 = 33;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP (RFC 9260).
pub const SCTP: u8 = 132;
/// UDP-Lite (RFC 3828).
pub const UDP_LITE: u8 = 136;

/// Bytes of the shortest header of a protocol that starts with two ports; `None` for protocols without ports.
#[inline(always)]
pub const fn header_len(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(super::tcp::HEADER_LEN),
        UDP | UDP_LITE => Some(super::udp::HEADER_LEN),
        SCTP | DCCP => Some(12),
        _ => None,
    }
}

/// Source and destination port, which all of these protocols have in their first four bytes.
#[inline(always)]
pub fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
