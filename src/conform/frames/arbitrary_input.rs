//! What the decoder promises for any bytes, as code. The property test and the fuzz target `conform_read` call the same function.

use super::read::{Sum, inner, masked, outer};

/// Any bytes as what came back from an appliance.
pub fn packet(bytes: &[u8]) {
    for protocol in [super::IPV4, super::IPV6, 0x6558] {
        if let Ok(seen) = inner(bytes, protocol) {
            assert!(seen.payload.len() + seen.trailing < bytes.len());
            assert!(seen.ports.is_none() || seen.payload.len() >= 4);
            assert_eq!(seen.source.is_ipv4(), seen.destination.is_ipv4());
        }
    }
    let other = masked(bytes);
    assert_eq!(other.len(), bytes.len());
    assert_eq!(masked(&other).len(), bytes.len());
    let Ok(seen) = outer(bytes) else { return };
    assert!(seen.version < 4 && seen.vni < 1 << 24 && seen.options.len() <= 63);
    let options: usize = seen.options.iter().map(|option| 4 + option.data.len()).sum();
    assert!(options <= 252 && super::OUTER + options + seen.inner.len() <= bytes.len());
    assert!(seen.options.iter().all(|option| option.data.len() % 4 == 0 && option.reserved < 8));
    // What is cut off at any place is no packet, or says so.
    let cut = bytes.len().min(20 + 8);
    assert!(outer(&bytes[..cut]).is_err());
    // One bit in the UDP payload changes a checksum that was right.
    if seen.checksum == Sum::Good && !seen.inner.is_empty() {
        let at = seen.inner.as_ptr() as usize - bytes.as_ptr() as usize;
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert_eq!(outer(&changed).map(|seen| seen.checksum), Ok(Sum::Bad));
    }
}
