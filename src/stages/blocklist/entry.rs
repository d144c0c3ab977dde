//! Entries of lists: a prefix of an address family, and which lists have it.

use ipnet::IpNet;

/// An address as a number.
pub trait Address: Copy + Ord + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Bits of it.
    const BITS: u8;
    /// The largest.
    const MAX: Self;
    /// The last address of the prefix of that length that begins here.
    fn last(self, len: u8) -> Self;
    /// The same without the bits behind the prefix.
    fn first(self, len: u8) -> Self;
    /// The one behind; of the largest, the smallest.
    fn next(self) -> Self;
    /// Two words, for a hash.
    fn words(self) -> [u64; 2];
}

macro_rules! address {
    ($number:ty, $words:expr) => {
        impl Address for $number {
            const BITS: u8 = <$number>::BITS as u8;
            const MAX: Self = <$number>::MAX;

            #[inline(always)]
            fn last(self, len: u8) -> Self {
                self | <$number>::MAX.checked_shr(len.into()).unwrap_or(0)
            }

            #[inline(always)]
            fn first(self, len: u8) -> Self {
                self & !<$number>::MAX.checked_shr(len.into()).unwrap_or(0)
            }

            #[inline(always)]
            fn next(self) -> Self {
                self.wrapping_add(1)
            }

            #[inline(always)]
            fn words(self) -> [u64; 2] {
                $words(self)
            }
        }
    };
}
address!(u32, |address| [u64::from(address), 0]);
address!(u128, |address| [(address >> 64) as u64, address as u64]);

/// A set of lists, a bit for each.
pub type Lists = u32;

/// Most lists of one stage: what `rte_fib` can answer has so many bits.
pub const MOST_LISTS: usize = 31;

/// A prefix, and the lists that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<A> {
    /// Its first address.
    pub first: A,
    /// Its length in bits.
    pub len: u8,
    /// Who has it.
    pub lists: Lists,
}

impl<A: Address> Entry<A> {
    /// Is it one address?
    pub fn is_address(&self) -> bool {
        self.len == A::BITS
    }
}

/// What all lists of a stage have, in order: by address, the shorter prefix first, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Of IPv4.
    pub v4: Vec<Entry<u32>>,
    /// Of IPv6.
    pub v6: Vec<Entry<u128>>,
}

impl Entries {
    /// Adds a prefix to a list.
    pub fn add(&mut self, net: IpNet, list: usize) {
        let lists = 1 << list;
        match net {
            IpNet::V4(net) => {
                self.v4.push(Entry { first: net.network().to_bits(), len: net.prefix_len(), lists })
            }
            IpNet::V6(net) => {
                self.v6.push(Entry { first: net.network().to_bits(), len: net.prefix_len(), lists })
            }
        }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// None of either family.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings them into the order that is promised.
    pub fn sort(&mut self) {
        sort(&mut self.v4);
        sort(&mut self.v6);
    }
}

fn sort<A: Address>(entries: &mut Vec<Entry<A>>) {
    entries.sort_unstable_by_key(|entry| (entry.first, entry.len));
    entries.dedup_by(|next, kept| {
        let same = (next.first, next.len) == (kept.first, kept.len);
        if same {
            kept.lists |= next.lists;
        }
        same
    });
    entries.shrink_to_fit();
}

/// Each of these prefixes with the lists of those around it as well, so that the longest that has an address tells all. What adds nothing to
/// those around it is left out.
pub fn nested<A: Address>(entries: impl Iterator<Item = Entry<A>>) -> Vec<Entry<A>> {
    let mut around: Vec<(A, Lists)> = Vec::new();
    let mut out = Vec::new();
    for Entry { first, len, lists } in entries {
        while around.last().is_some_and(|(last, _)| *last < first) {
            around.pop();
        }
        let outer = around.last().map_or(0, |(_, lists)| *lists);
        let lists = lists | outer;
        if lists != outer {
            around.push((first.last(len), lists));
            out.push(Entry { first, len, lists });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(net: &str, lists: Lists) -> Entry<u32> {
        let net: ipnet::Ipv4Net = net.parse().unwrap();
        Entry { first: net.addr().to_bits(), len: net.prefix_len(), lists }
    }

    #[test]
    fn prefixes_begin_and_end() {
        assert_eq!((0x0a01_0203u32.first(8), 0x0a00_0000u32.last(8)), (0x0a00_0000, 0x0aff_ffff));
        assert_eq!((7u32.first(0), 7u32.last(32), 7u128.first(0), 7u128.last(128)), (0, 7, 0, 7));
        assert_eq!((0u32.last(0), 0u128.last(0)), (u32::MAX, u128::MAX));
    }

    #[test]
    fn the_longest_prefix_tells_of_all_around_it() {
        let mut all = Entries::default();
        for (net, list) in
            [("10.1.0.0/16", 1), ("10.0.0.0/8", 0), ("10.1.2.0/24", 0), ("10.1.0.0/16", 2), ("11.0.0.0/8", 1)]
        {
            all.add(net.parse().unwrap(), list);
        }
        all.sort();
        let sorted = [
            entry("10.0.0.0/8", 0b001),
            entry("10.1.0.0/16", 0b110),
            entry("10.1.2.0/24", 0b001),
            entry("11.0.0.0/8", 0b010),
        ];
        assert_eq!(all.v4, sorted);
        let nested = nested(all.v4.into_iter());
        assert_eq!(
            nested,
            [entry("10.0.0.0/8", 0b001), entry("10.1.0.0/16", 0b111), entry("11.0.0.0/8", 0b010)]
        );
    }
}
