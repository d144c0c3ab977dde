//! An encoder and a decoder of the judge's own, from the outer IPv4 header inwards. Nothing of `crate::wire` is used here: an error that
//! both had in common would go unseen.
//!
//! [`make`] writes packets, right ones and wrong ones; [`read`] takes apart what strangers send back, and never panics. Headers: RFC 791, 768,
//! 8926; inner packets: RFC 791, 8200, 9293, 768, 792, 4443.

pub mod make;
pub mod read;

#[cfg(any(test, fuzzing))]
pub mod arbitrary_input;

/// IP protocols.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const GRE: u8 = 47;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;
/// The fragment header of IPv6.
const FRAGMENT: u8 = 44;

/// Bytes of the outer headers without options: IPv4, UDP, GENEVE.
pub const OUTER: usize = 20 + 8 + 8;

/// Protocol types of GENEVE: EtherTypes.
pub const IPV4: u16 = 0x0800;
/// See [`IPV4`].
pub const IPV6: u16 = 0x86dd;

/// One's complement sum over 16-bit words (RFC 1071), not complemented. An odd byte at the end counts as if a zero followed.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    let mut bytes = parts.iter().copied().flatten();
    while let Some(high) = bytes.next() {
        let low = bytes.next().copied().unwrap_or(0);
        total += u64::from(u16::from_be_bytes([*high, low]));
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}
