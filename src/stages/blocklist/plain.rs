//! The reference: every length of prefix in turn. Plain and obviously right.
//!
//! It serves builds and replays without DPDK, and what is compiled is tested against it.

use std::collections::HashMap;

use super::entry::{Address, Entries, Entry, Lists};

/// All entries.
#[derive(Debug)]
pub struct Plain {
    v4: Family<u32>,
    v6: Family<u128>,
}

/// Those of one family, by the lengths that there are.
#[derive(Debug)]
struct Family<A>(Vec<(u8, HashMap<A, Lists>)>);

impl Plain {
    /// Entries, to be asked.
    pub fn new(entries: &Entries) -> Self {
        Plain { v4: Family::new(&entries.v4), v6: Family::new(&entries.v6) }
    }

    /// The lists that have an IPv4 address.
    pub fn v4(&self, address: u32) -> Lists {
        self.v4.lists(address)
    }

    /// The lists that have an IPv6 address.
    pub fn v6(&self, address: u128) -> Lists {
        self.v6.lists(address)
    }
}

impl<A: Address + std::hash::Hash> Family<A> {
    fn new(entries: &[Entry<A>]) -> Self {
        let mut lengths: Vec<HashMap<A, Lists>> = vec![HashMap::new(); usize::from(A::BITS) + 1];
        for Entry { first, len, lists } in entries {
            if let Some(prefixes) = lengths.get_mut(usize::from(*len)) {
                *prefixes.entry(*first).or_default() |= lists;
            }
        }
        let lengths = (0..=A::BITS).zip(lengths);
        Family(lengths.filter(|(_, prefixes)| !prefixes.is_empty()).collect())
    }

    fn lists(&self, address: A) -> Lists {
        let of = |(len, prefixes): &(u8, HashMap<A, Lists>)| prefixes.get(&address.first(*len)).copied();
        self.0.iter().filter_map(of).fold(0, |all, lists| all | lists)
    }
}
