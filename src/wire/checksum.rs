//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Ones' complement addition does not care about the order of bytes as long as every word is turned the same way (RFC 1071
//! section 2 B), so the sum runs over wide words in the machine's order and is turned once at the end.
//!
//! A *sum* is not complemented and fits 16 bits; a *checksum* is what stands in a header.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Sum of the 16-bit big-endian words of `bytes`, an odd last byte padded with zero; folded to at most 16 bits.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // Two 32-bit halves per word, each in a 64-bit accumulator: no carry is lost below 32 GiB, and the loop vectorizes.
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut low, mut high) = (0u64, 0u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        low += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        low += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u32::from(u16::from_be(fold(low + high)))
}

/// Adds the carries back until 16 bits are left.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum of what was summed: fold, then complement.
#[inline(always)]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum after the summed words changed from `before` to `after` (RFC 1624, equation 3).
#[inline]
pub fn update(checksum: u16, before: u32, after: u32) -> u16 {
    let before = !fold(before.into());
    finish(u64::from(!checksum) + u64::from(before) + u64::from(after))
}

/// Sum of the IPv4 pseudo header (RFC 768, RFC 9293 section 3.1).
#[inline(always)]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    let halves = |a: Ipv4Addr| u64::from(a.to_bits() >> 16) + u64::from(a.to_bits() & 0xffff);
    fold(halves(source) + halves(destination) + u64::from(protocol) + u64::from(length)).into()
}

/// Sum of the IPv6 pseudo header (RFC 8200 section 8.1).
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u32) -> u32 {
    let addresses = sum(&source.octets()) + sum(&destination.octets());
    fold(u64::from(addresses) + u64::from(protocol) + u64::from(length)).into()
}

/// The checksum for a UDP datagram over IPv4 whose checksum field holds zero; never zero, which would mean "none" (RFC 768).
pub fn udp_v4(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> u16 {
    let pseudo = pseudo_v4(source, destination, 17, datagram.len() as u16);
    match finish(u64::from(pseudo) + u64::from(sum(datagram))) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// Is the checksum of a UDP datagram (header and payload, as long as its length field says) right? Zero means "none" and is
/// right over IPv4 (RFC 768). A datagram shorter than its header is wrong.
#[inline]
pub fn verify_udp_v4(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> bool {
    let Some(header) = datagram.first_chunk::<8>() else { return false };
    if header[6] == 0 && header[7] == 0 {
        return true;
    }
    let pseudo = pseudo_v4(source, destination, 17, datagram.len() as u16);
    fold(u64::from(pseudo) + u64::from(sum(datagram))) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 1 in its own words, one 16-bit word at a time.
    fn reference(bytes: &[u8]) -> u32 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
            total = (total & 0xffff) + (total >> 16);
        }
        total
    }

    #[test]
    fn rfc_1071_example() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum to 2ddf0, folded ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(finish(u64::from(sum(&bytes))), 0x220d);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: HC = dd2f, a 16-bit field goes from 5555 to 3285, and the answer is 0000 (RFC 1141 said ffff).
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_datagram_summed_by_hand_is_right_and_a_flipped_bit_is_not() {
        // Pseudo header and datagram by hand: 10.0.0.1 -> 10.0.0.2, ports 1 -> 2, length 10, payload 0x0304.
        // Sum: 0a00+0001+0a00+0002+0011+000a + 0001+0002+000a+0304 = 172f, complement e8d0.
        let mut datagram = [0, 1, 0, 2, 0, 10, 0xe8, 0xd0, 3, 4];
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert!(verify_udp_v4(a, b, &datagram));
        assert!(verify_udp_v4(b, a, &datagram), "swapping addresses changes nothing");
        datagram[9] ^= 1;
        assert!(!verify_udp_v4(a, b, &datagram));
        datagram[6..8].fill(0);
        assert!(verify_udp_v4(a, b, &datagram), "zero means none");
        assert!(!verify_udp_v4(a, b, &datagram[..7]));
        assert_eq!(udp_v4(a, b, &[0, 1, 0, 2, 0, 10, 0, 0, 3, 4]), 0xe8d0);
    }

    proptest! {
        #[test]
        fn sum_agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..300), skip in 0usize..8) {
            let bytes = bytes.get(skip..).unwrap_or(&[]);
            prop_assert_eq!(sum(bytes), reference(bytes));
        }

        #[test]
        fn update_agrees_with_summing_again(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..64),
            at in 0usize..32,
            new in any::<[u8; 2]>(),
        ) {
            let at = (at % (bytes.len() / 2)) * 2;
            // A constant word keeps the data from being all zero, where two checksums are equally right.
            bytes.extend([1, 1]);
            if bytes.len() % 2 == 1 { bytes.push(0) }
            let old = finish(u64::from(sum(&bytes)));
            let before = sum(&bytes[at..at + 2]);
            bytes[at..at + 2].copy_from_slice(&new);
            let after = sum(&bytes[at..at + 2]);
            let total = u64::from(sum(&bytes)) + u64::from(update(old, before, after));
            prop_assert_eq!(fold(total), 0xffff);
        }

        #[test]
        fn pseudo_headers_agree_with_their_bytes(
            s4 in any::<[u8; 4]>(), d4 in any::<[u8; 4]>(),
            s6 in any::<[u8; 16]>(), d6 in any::<[u8; 16]>(),
            protocol in any::<u8>(), length in any::<u16>(),
        ) {
            let [h, l] = length.to_be_bytes();
            let v4 = [&s4[..], &d4[..], &[0, protocol, h, l]].concat();
            prop_assert_eq!(pseudo_v4(s4.into(), d4.into(), protocol, length), reference(&v4));
            let v6 = [&s6[..], &d6[..], &[0, 0, h, l, 0, 0, 0, protocol]].concat();
            prop_assert_eq!(pseudo_v6(s6.into(), d6.into(), protocol, length.into()), reference(&v6));
        }
    }
}
