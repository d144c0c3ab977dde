//! Which flow a packet belongs to.
//!
//! A key is a scope and the two ends of a conversation in an order of their own, so that both directions have the same key. Overlapping
//! addresses behind different endpoints are normal, hence the scope. What the ends are:
//!
//! | packet | end |
//! |---|---|
//! | TCP, UDP, SCTP, DCCP, UDP-Lite | address and port |
//! | ICMP echo and its reply | address and identifier (RFC 792, RFC 4443 section 4) |
//! | any other protocol | address |
//! | ICMP error | that of the packet it quotes ([`super::quoted`]) |
//! | later fragment | that of its first fragment ([`super::fragment`]) |
//!
//! The hash is keyed with a random seed: tuples are the attacker's to choose, the place in the table must not be. It is a
//! folded multiplication (as in wyhash): two or three multiplications, where SipHash costs ten cycles more.

use super::line::Entry;
use crate::packet::{InnerFlags, Meta};

/// Set in every key's second word, so that an empty entry is nobody's.
const USED: u64 = 1 << 24;
const IPV6: u64 = 1 << 25;
/// Where the protocol is.
const PROTOCOL: u32 = 16;

/// Scope, ends and protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Scope; lower end, protocol, family; higher end. An end is an IPv4 address (upper half) and port (lowest 16 bits), or for IPv6 the
    /// port alone.
    pub(super) words: [u64; 3],
    /// Of IPv6, the lower end's address and the higher's; zero for IPv4.
    pub(super) addresses: [u64; 4],
}

impl Key {
    /// The key of a packet that speaks for itself, and whether it was sent by the higher end. `None` if the frame ends before its
    /// addresses do, which decap does not let pass.
    #[inline(always)]
    pub fn of(scope: u64, meta: &Meta, frame: &[u8]) -> Option<(Key, bool)> {
        let inner = frame.get(usize::from(meta.inner)..)?;
        let ports = if meta.flags.has(InnerFlags::PORTS) {
            (meta.source_port, meta.destination_port)
        } else if meta.flags.has(InnerFlags::ICMP) {
            // The echo identifier, 0 for messages that have none.
            (meta.destination_port, meta.destination_port)
        } else {
            (0, 0)
        };
        Self::of_ends(scope, meta.is_ipv6(), meta.protocol, inner, ports)
    }

    /// The key of ends whose addresses are read from an IP header.
    #[inline(always)]
    pub(crate) fn of_ends(
        scope: u64,
        ipv6: bool,
        protocol: u8,
        header: &[u8],
        ports: (u16, u16),
    ) -> Option<(Key, bool)> {
        if ipv6 {
            return Self::of_v6(scope, protocol, header.get(8..)?.first_chunk()?, ports);
        }
        let (words, from_high) = Self::of_v4(scope, protocol, *header.get(12..)?.first_chunk()?, ports);
        Some((Key { words, addresses: [0; 4] }, from_high))
    }

    /// The words of a usual packet over IPv4, whose addresses decap has noted.
    #[inline(always)]
    pub(super) fn words_v4(scope: u64, meta: &Meta) -> ([u64; 3], bool) {
        Self::of_v4(scope, meta.protocol, meta.addresses, (meta.source_port, meta.destination_port))
    }

    /// Addresses go in as they stand in memory: any order of ends will do, as long as it is always the same.
    #[inline(always)]
    fn of_v4(scope: u64, protocol: u8, addresses: [u8; 8], ports: (u16, u16)) -> ([u64; 3], bool) {
        let both = u64::from_le_bytes(addresses);
        let source = both << 32 | u64::from(ports.0);
        let destination = both >> 32 << 32 | u64::from(ports.1);
        let (low, high) = (source.min(destination), source.max(destination));
        ([scope, low | u64::from(protocol) << PROTOCOL | USED, high], source > destination)
    }

    /// The key of these words; the addresses are IPv6's.
    pub(super) fn of_words(words: [u64; 3], addresses: [u64; 4]) -> Self {
        let addresses = if words[1] & IPV6 != 0 { addresses } else { [0; 4] };
        Key { words, addresses }
    }

    #[inline(never)]
    fn of_v6(scope: u64, protocol: u8, addresses: &[u8; 32], ports: (u16, u16)) -> Option<(Key, bool)> {
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let source = (u128::from_be_bytes(*source), ports.0);
        let destination = (u128::from_be_bytes(*destination.first_chunk()?), ports.1);
        let (low, high) = if source <= destination { (source, destination) } else { (destination, source) };
        let words = [scope, u64::from(low.1) | u64::from(protocol) << PROTOCOL | USED | IPV6, high.1.into()];
        let addresses = [(low.0 >> 64) as u64, low.0 as u64, (high.0 >> 64) as u64, high.0 as u64];
        Some((Key { words, addresses }, source > destination))
    }

    /// The key of an entry in the table.
    pub(super) fn of_entry(entry: Entry<'_>) -> Self {
        Self::of_words(entry.key(), entry.addresses())
    }

    /// The flow's key for a tuple that somebody names, in any order.
    pub fn of_tuple(scope: u64, tuple: &super::Tuple) -> Option<Self> {
        use std::net::IpAddr;
        let ports = (tuple.source_port, tuple.destination_port);
        let (ipv6, mut header) = (tuple.source.is_ipv6(), [0; 40]);
        match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.get_mut(12..16)?.copy_from_slice(&source.octets());
                header.get_mut(16..20)?.copy_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.get_mut(8..24)?.copy_from_slice(&source.octets());
                header.get_mut(24..40)?.copy_from_slice(&destination.octets());
            }
            _ => return None,
        }
        Self::of_ends(scope, ipv6, tuple.protocol, &header, ports).map(|(key, _)| key)
    }

    /// The ends as an originator sees them: `from_high` says that the higher end opened the flow.
    pub fn tuple(&self, from_high: bool) -> super::Tuple {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let [_, low, high] = self.words;
        let (low_port, high_port) = (low as u16, high as u16);
        let [a, b, c, d] = self.addresses;
        let (low_address, high_address) = if self.is_ipv6() {
            let wide = |high: u64, low: u64| Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
            (wide(a, b).into(), wide(c, d).into())
        } else {
            let four = |end: u64| Ipv4Addr::from(((end >> 32) as u32).to_le_bytes());
            (four(low).into(), four(high).into())
        };
        let protocol = self.protocol();
        if from_high {
            super::Tuple {
                source: high_address,
                destination: low_address,
                source_port: high_port,
                destination_port: low_port,
                protocol,
            }
        } else {
            super::Tuple {
                source: low_address,
                destination: high_address,
                source_port: low_port,
                destination_port: high_port,
                protocol,
            }
        }
    }

    /// The same ends and protocol, whatever the scopes?
    pub(super) fn same_ends(&self, other: &Key) -> bool {
        let ([_, low, high], [_, other_low, other_high]) = (self.words, other.words);
        low == other_low && high == other_high && self.addresses == other.addresses
    }

    /// The same ends and protocol in no scope.
    #[inline(always)]
    pub(crate) fn without_scope(mut self) -> Self {
        self.words[0] = 0;
        self
    }

    /// The scope.
    pub fn scope(&self) -> u64 {
        self.words[0]
    }

    /// IANA protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.words[1] >> PROTOCOL) as u8
    }

    /// IPv6; otherwise IPv4.
    #[inline(always)]
    pub fn is_ipv6(&self) -> bool {
        self.words[1] & IPV6 != 0
    }

    /// Is it anybody's?
    #[inline(always)]
    pub(super) fn is_used(&self) -> bool {
        self.words[1] & USED != 0
    }
}

/// The random key of the hash: one for all workers, since they find each other's flows by it.
#[derive(Clone, Copy)]
pub struct Seed([u64; 6]);

impl Seed {
    /// A seed from the operating system's randomness.
    pub fn random() -> Self {
        Seed(rand::random())
    }

    /// The same seed each time: tests and replays.
    pub fn fixed(n: u64) -> Self {
        let mut state = n;
        Seed(std::array::from_fn(|_| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// Hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &Key) -> u64 {
        let wide = if key.is_ipv6() { self.wide(&key.addresses) } else { 0 };
        self.mix(key.words, wide)
    }

    /// The same for a key over IPv4.
    #[inline(always)]
    pub(super) fn hash_v4(&self, words: [u64; 3]) -> u64 {
        self.mix(words, 0)
    }

    /// Hash of three words that are no flow's: addresses and tenants that stages keep something of.
    #[inline(always)]
    pub(crate) fn words(&self, words: [u64; 3]) -> u64 {
        self.mix(words, 0)
    }

    #[inline(always)]
    fn mix(&self, [scope, low, high]: [u64; 3], wide: u64) -> u64 {
        let [s0, s1, s2, ..] = self.0;
        fold(fold(low ^ s0, high ^ s1) ^ wide ^ scope, s2)
    }

    #[inline(never)]
    fn wide(&self, addresses: &[u64; 4]) -> u64 {
        let [s0, s1, s2, s3, s4, s5] = self.0;
        let [a, b, c, d] = *addresses;
        fold(fold(a ^ s3, b ^ s4) ^ s0, fold(c ^ s5, d ^ s1) ^ s2)
    }

    /// Hash of what a fragment is part of: two addresses in their order (IPv4: the upper words are zero), scope, protocol and
    /// identification.
    pub(super) fn datagram(&self, scope: u64, addresses: &[u64; 4], protocol: u8, id: u32) -> u64 {
        let [s0, s1, ..] = self.0;
        fold(self.wide(addresses) ^ scope ^ s1, (u64::from(protocol) << 32 | u64::from(id)) ^ s0)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// Both halves of the 128-bit product, mixed.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::flow::Tuple;

    fn tuple(source: &str, destination: &str, ports: (u16, u16)) -> Tuple {
        Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: ports.0,
            destination_port: ports.1,
            protocol: 6,
        }
    }

    #[test]
    fn both_directions_have_one_key_and_scopes_do_not_mix() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::2", "fd00::1"), ("10.0.0.1", "10.0.0.1")] {
            let there = Key::of_tuple(7, &tuple(a, b, (1000, 80))).unwrap();
            let back = Key::of_tuple(7, &tuple(b, a, (80, 1000))).unwrap();
            assert_eq!(there, back);
            assert_ne!(there, Key::of_tuple(8, &tuple(a, b, (1000, 80))).unwrap());
            assert_ne!(there, Key::of_tuple(7, &tuple(a, b, (1000, 81))).unwrap());
            let seed = Seed::fixed(1);
            assert_eq!(seed.hash(&there), seed.hash(&back));
            let (x, y) = (there.tuple(false), there.tuple(true));
            assert_eq!(x, y.reversed());
            assert!(x == tuple(a, b, (1000, 80)) || y == tuple(a, b, (1000, 80)));
        }
        assert_eq!(Key::of_tuple(0, &tuple("10.0.0.1", "::1", (1, 2))), None);
    }

    /// Neighbouring tuples, as scanners send them, spread over tags and buckets like random ones.
    #[test]
    fn neighbours_spread() {
        let seed = Seed::random();
        let mut buckets = vec![0u32; 1024];
        for n in 0..65536u32 {
            let t = Tuple {
                source: std::net::Ipv4Addr::from(0x0a00_0000 + (n >> 8)).into(),
                source_port: (n & 255) as u16,
                ..tuple("0.0.0.0", "10.1.0.1", (0, 443))
            };
            let hash = seed.hash(&Key::of_tuple(1, &t).unwrap());
            buckets[((u64::from(hash as u32) * 1024) >> 32) as usize] += 1;
        }
        // 64 expected in each; six standard deviations of a Poisson distribution are 48.
        assert!(buckets.iter().all(|&n| (16..=112).contains(&n)), "{:?}", buckets.iter().max());
    }
}
