//! The entries as they are asked fast: addresses in a hash set, IPv4 prefixes in `rte_fib`, IPv6 prefixes as ranges.
//!
//! One answer has to tell all lists that have an address. So each prefix answers with the lists of those around it as well ([`nested`]), a bit for
//! each, and the longest one is all that has to be found.

use std::time::Instant;

use super::addresses::Addresses;
use super::entry::{Address, Entries, Entry, Lists, nested};
use super::ranges::Ranges;
use crate::dpdk::Error;
use crate::dpdk::acl::heap_in_use;
use crate::dpdk::fib::{self, Fib, Route};

/// An upper estimate of the EAL memory that the entries need.
pub fn memory(entries: &Entries) -> u64 {
    let prefixes = nested(prefixes(&entries.v4));
    let longer = fib::longer(prefixes.iter().map(|entry| (entry.first, entry.len)));
    fib::memory(prefixes.len() as u64, longer)
}

/// All entries, compiled.
#[derive(Debug)]
pub struct Compiled {
    v4: Addresses<u32>,
    v4_prefixes: Option<Fib>,
    v6: Addresses<u128>,
    v6_prefixes: Ranges<u128>,
    /// Prefixes that are searched, of both families.
    prefixes: [usize; 2],
    seconds: f64,
    eal: u64,
}

impl Compiled {
    /// Compiles the entries. The EAL must be up if there are IPv4 prefixes; a second for a million.
    pub fn build(entries: &Entries) -> Result<Self, Error> {
        let (start, before) = (Instant::now(), heap_in_use());
        let v4_nested = nested(prefixes(&entries.v4));
        let v6_nested = nested(prefixes(&entries.v6));
        // `rte_fib` has another name for a prefix without bits.
        let route = |entry: &Entry<u32>| {
            (entry.len > 0).then_some(Route { prefix: entry.first, len: entry.len, answer: entry.lists })
        };
        let routes: Vec<Route> = v4_nested.iter().filter_map(route).collect();
        let default = v4_nested.first().filter(|entry| entry.len == 0).map_or(0, |entry| entry.lists);
        let v4_prefixes = if v4_nested.is_empty() { None } else { Some(Fib::build(&routes, default)?) };
        let compiled = Compiled {
            v4: Addresses::new(&entries.v4),
            v4_prefixes,
            v6: Addresses::new(&entries.v6),
            v6_prefixes: Ranges::new(&v6_nested),
            prefixes: [v4_nested.len(), v6_nested.len()],
            seconds: 0.0,
            eal: heap_in_use().saturating_sub(before),
        };
        Ok(Compiled { seconds: start.elapsed().as_secs_f64(), ..compiled })
    }

    /// The lists that have each of these IPv4 addresses.
    #[inline(always)]
    pub fn v4(&self, addresses: &[u32], lists: &mut [Lists]) {
        match &self.v4_prefixes {
            Some(fib) => fib.lookup(addresses, lists),
            None => lists.fill(0),
        }
        for (address, lists) in addresses.iter().zip(lists) {
            *lists |= self.v4.lists(*address);
        }
    }

    /// The lists that have each of these IPv6 addresses.
    #[inline(always)]
    pub fn v6(&self, addresses: &[u128], lists: &mut [Lists]) {
        for (address, lists) in addresses.iter().zip(lists) {
            *lists = self.v6.lists(*address) | self.v6_prefixes.lists(*address);
        }
    }

    /// Bytes of the EAL's memory that it took.
    pub fn eal_bytes(&self) -> u64 {
        self.eal
    }

    /// What it took.
    pub fn report(&self) -> Vec<(String, String)> {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let own = self.v4.bytes() + self.v6.bytes() + self.v6_prefixes.bytes();
        let [v4, v6] = self.prefixes;
        vec![
            ("IPv4".into(), format!("{} addresses (hash), {v4} prefixes (rte_fib)", self.v4.len())),
            ("IPv6".into(), format!("{} addresses (hash), {v6} prefixes (ranges)", self.v6.len())),
            ("compiled in".into(), format!("{:.2} s", self.seconds)),
            ("memory".into(), format!("{}, and {} of the EAL's", mb(own), mb(self.eal))),
        ]
    }
}

fn prefixes<A: Address>(entries: &[Entry<A>]) -> impl Iterator<Item = Entry<A>> {
    entries.iter().copied().filter(|entry| !entry.is_address())
}
