//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Sum of the 16-bit big-endian words of `bytes`, an odd last byte padded with zero; folded to at most 16 bits.
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut total: u64 = words.iter().map(|w| u64::from(u16::from_be_bytes(*w))).sum();
    total += rest.first().map_or(0, |b| u64::from(*b) << 8);
    fold(total)
}

fn fold(mut total: u64) -> u32 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u32
}

/// The checksum after the summed words changed from `before` to `after` (RFC 1624, equation 3).
pub fn update(checksum: u16, before: u32, after: u32) -> u16 {
    let total =
        u64::from(!checksum) + u64::from(!(fold(before.into()) as u16)) + u64::from(fold(after.into()));
    !(fold(total) as u16)
}
