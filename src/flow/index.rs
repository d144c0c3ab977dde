//! The table as an index and nothing else: from keys to numbers of entries. What is known of a flow lies in an array of the caller's, under that
//! number ([`crate::gateway`]).
//!
//! A batch is looked up in three passes, as in [`super::lookup`]: ask for the bucket, guess the entry and ask for it, compare.

use super::key::{Key, Seed};
use super::line::{Birth, Life, NOBODY};
use super::table::{Spot, Table};

/// From keys to entries. Of fixed size; allocates when it is made, and never again.
#[derive(Debug)]
pub(crate) struct Index(Table);

impl Index {
    /// Room for so many flows.
    pub fn new(entries: usize, seed: Seed) -> Self {
        Index(Table::new(entries, seed))
    }

    /// Hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &Key) -> u64 {
        self.0.hash(key)
    }

    /// Pass 1: where to look, asked for.
    #[inline(always)]
    pub fn ask(&self, hash: u64) -> Spot {
        let spot = self.0.spot(hash);
        self.0.prefetch(spot);
        spot
    }

    /// Pass 2: the entry that it probably is, asked for; `None` if its first bucket has none.
    #[inline(always)]
    pub fn guess(&self, spot: Spot) -> Option<u32> {
        let guess = self.0.guesser().glance(spot);
        (guess != NOBODY).then_some(guess)
    }

    /// Pass 3: the flow's entry.
    #[inline(always)]
    pub fn settle(&self, guess: Option<u32>, hash: u64, key: &Key) -> Option<u32> {
        match guess {
            Some(entry) if self.0.verify(entry, key).is_some() => guess,
            _ => self.0.find(hash, key),
        }
    }

    /// Puts in a flow that is not there; `None` if there is no place for it.
    pub fn insert(&mut self, hash: u64, key: &Key) -> Option<u32> {
        let birth = Birth { created: 0, condemned: 0, tenant: 0 };
        self.0.insert(hash, key, Life::new(0, 0, 0), birth).ok()
    }

    /// Takes a flow out. False if the entry holds none.
    pub fn remove(&mut self, entry: u32) -> bool {
        self.0.remove(entry)
    }

    /// Does the entry hold a flow?
    #[inline(always)]
    pub fn is_used(&self, entry: u32) -> bool {
        self.0.entry(entry).is_some_and(|entry| entry.is_used())
    }

    /// Entries below this have been used.
    pub fn reach(&self) -> u32 {
        self.0.reach()
    }

    /// Flows in it.
    #[cfg(test)]
    pub fn live(&self) -> u32 {
        self.0.live()
    }
}
