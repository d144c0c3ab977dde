//! Single addresses: a set of fixed size that is filled once, three quarters full, one access to memory for nearly every question.
//!
//! The place of an address comes from a hash under a random key, since whoever sends packets chooses the addresses that are asked for.

use super::entry::{Address, Entry, Lists};
use crate::flow::Seed;

/// Addresses and the lists that have them.
#[derive(Debug)]
pub struct Addresses<A> {
    seed: Seed,
    /// No lists: a place that is free.
    places: Box<[(A, Lists)]>,
}

impl<A: Address> Addresses<A> {
    /// A set of the entries that are addresses.
    pub fn new(entries: &[Entry<A>]) -> Self {
        let entries = || entries.iter().filter(|entry| entry.is_address());
        let count = entries().count();
        let places = if count == 0 { 0 } else { count + count / 3 + 1 };
        let mut set = Addresses { seed: Seed::random(), places: vec![(A::default(), 0); places].into() };
        for entry in entries() {
            let at = set.place(entry.first);
            if let Some(place) = at.and_then(|at| set.places.get_mut(at)) {
                *place = (entry.first, entry.lists);
            }
        }
        set
    }

    /// The lists that have the address.
    #[inline(always)]
    pub fn lists(&self, address: A) -> Lists {
        self.place(address).and_then(|at| self.places.get(at)).map_or(0, |(_, lists)| *lists)
    }

    /// Where the address is, or would be put.
    #[inline(always)]
    fn place(&self, address: A) -> Option<usize> {
        let [high, low] = address.words();
        let hash = self.seed.words([high, low, 0]);
        let start = ((u128::from(hash) * self.places.len() as u128) >> 64) as usize;
        let (front, back) = self.places.split_at_checked(start)?;
        let ours = |(other, lists): &(A, Lists)| *lists == 0 || *other == address;
        // A quarter of the places is free: the search ends.
        match back.iter().position(ours) {
            Some(n) => Some(start + n),
            None => front.iter().position(ours),
        }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.places.iter().filter(|(_, lists)| *lists != 0).count()
    }

    /// Bytes of the set.
    pub fn bytes(&self) -> u64 {
        size_of_val(&*self.places) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_found_and_no_other() {
        for count in [0u32, 1, 2, 3, 4, 1000] {
            let entries: Vec<Entry<u32>> =
                (0..count).map(|n| Entry { first: n * 7, len: 32, lists: 1 + n % 5 }).collect();
            let set = Addresses::new(&entries);
            assert_eq!(set.len(), count as usize);
            for n in 0..count * 7 + 10 {
                let expected = if n % 7 == 0 && n / 7 < count { 1 + n / 7 % 5 } else { 0 };
                assert_eq!(set.lists(n), expected, "{n} of {count}");
            }
        }
    }

    #[test]
    fn prefixes_are_no_addresses() {
        let set = Addresses::new(&[Entry { first: 5u128, len: 127, lists: 1 }]);
        assert_eq!((set.len(), set.lists(5), set.bytes()), (0, 0, 0));
    }

    /// Eleven bytes for an IPv4 address, and 43 for one of IPv6.
    #[test]
    fn the_set_is_compact() {
        let v4: Vec<Entry<u32>> = (0..3000).map(|n| Entry { first: n, len: 32, lists: 1 }).collect();
        assert_eq!(Addresses::new(&v4).bytes(), 4001 * 8);
        let v6: Vec<Entry<u128>> = (0..3000).map(|n| Entry { first: n, len: 128, lists: 1 }).collect();
        assert_eq!(Addresses::new(&v6).bytes(), 4001 * 32);
    }
}
