//! Prefixes as ranges that do not overlap, in order, searched by halves. What IPv6 prefixes are kept as.
//!
//! `rte_fib6` would answer in fewer steps, but sets a table of 1 kB aside for each byte of each prefix behind the first three: 5 GB for a million
//! of /64, before it knows how many of them are the same. Here a prefix takes at most two ends of 20 bytes, whatever its length, and of a
//! million a search asks 21, the first of which are always in the cache. It is asked once for a flow.

use super::entry::{Address, Entry, Lists};

/// The innermost prefix ends: behind it is what is around it.
fn close<A: Address>(around: &mut Vec<(A, Lists)>, put: &mut impl FnMut(A, Lists)) {
    let ended = around.pop().map(|(last, _)| last);
    if let Some(last) = ended.filter(|last| *last != A::MAX) {
        put(last.next(), around.last().map_or(0, |(_, lists)| *lists));
    }
}

/// Ranges of addresses, each up to where the next begins.
#[derive(Debug)]
pub struct Ranges<A> {
    starts: Box<[A]>,
    lists: Box<[Lists]>,
}

impl<A: Address> Ranges<A> {
    /// The ranges of these prefixes, which are as [`super::entry::nested`] leaves them.
    pub fn new(nested: &[Entry<A>]) -> Self {
        let mut ranges: Vec<(A, Lists)> = Vec::new();
        let mut put = |start: A, lists: Lists| {
            match ranges.last_mut() {
                Some(last) if last.0 == start => last.1 = lists,
                _ => ranges.push((start, lists)),
            }
            if let [.., before, last] = ranges.as_slice()
                && before.1 == last.1
            {
                ranges.pop();
            }
        };
        let mut around: Vec<(A, Lists)> = Vec::new();
        for entry in nested {
            while around.last().is_some_and(|(last, _)| *last < entry.first) {
                close(&mut around, &mut put);
            }
            put(entry.first, entry.lists);
            around.push((entry.first.last(entry.len), entry.lists));
        }
        while !around.is_empty() {
            close(&mut around, &mut put);
        }
        let (starts, lists): (Vec<A>, Vec<Lists>) = ranges.into_iter().unzip();
        Ranges { starts: starts.into(), lists: lists.into() }
    }

    /// The lists that have the address.
    #[inline(always)]
    pub fn lists(&self, address: A) -> Lists {
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).and_then(|n| self.lists.get(n)).copied().unwrap_or(0)
    }

    /// Bytes of it.
    #[cfg(feature = "dpdk")]
    pub fn bytes(&self) -> u64 {
        (size_of_val(&*self.starts) + size_of_val(&*self.lists)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_and_nest_up_to_both_ends_of_the_space() {
        let all = [
            Entry { first: 0u32, len: 8, lists: 1 },
            Entry { first: 0, len: 9, lists: 3 },
            Entry { first: 0x0100_0000, len: 8, lists: 1 },
            Entry { first: 0xff00_0000, len: 8, lists: 1 },
            Entry { first: 0xffff_0000, len: 16, lists: 5 },
        ];
        let ranges = Ranges::new(&all);
        for (address, lists) in [
            (0, 3),
            (0x007f_ffff, 3),
            (0x0080_0000, 1),
            (0x01ff_ffff, 1),
            (0x0200_0000, 0),
            (0xfeff_ffff, 0),
            (0xff00_0000, 1),
            (0xfffe_ffff, 1),
            (0xffff_0000, 5),
            (u32::MAX, 5),
        ] {
            assert_eq!(ranges.lists(address), lists, "{address:x}");
        }
        // Neighbours with the same lists are one range.
        assert_eq!(ranges.starts.len(), 5);
        assert_eq!(Ranges::<u128>::new(&[]).lists(7), 0);
    }
}
