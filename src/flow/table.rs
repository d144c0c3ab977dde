//! Where a worker finds its flows: cache-line buckets with tags, entries beside them.
//!
//! A bucket is a line with eight places: a tag of 16 hash bits and the number of an entry. A flow lives in its first bucket, or, if
//! that was full, in its second; the first counts how many it sent away, so that nobody looks in a second bucket without need. If
//! both are full, somebody in one of them moves to his other bucket. At the load for which buckets are dealt (two thirds) three
//! flows in a hundred live in their second bucket, and a flow for which no place can be made is a matter of billions.
//!
//! Capacity is fixed; nothing is allocated after [`Table::new`]. Unused entries are chained through their own links.
//! The table knows nothing of time, tenants or protocols.

use std::sync::Arc;

use super::key::{Key, Seed};
use super::line::{Birth, Entries, Entry, Life, Lines, NOBODY};

/// Places of a bucket.
const WAYS: usize = 8;
/// Places for each entry: three for two.
const PLACES: (usize, usize) = (3, 2);

/// Bytes of buckets for each entry.
pub(super) const BUCKET_SHARE: usize = size_of::<Bucket>() * PLACES.0 / PLACES.1 / WAYS;

const fn buckets(entries: usize) -> usize {
    (entries * PLACES.0 / PLACES.1).div_ceil(WAYS)
}

#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    /// 0: free.
    tags: [u16; WAYS],
    entries: [u32; WAYS],
    /// Flows whose first bucket this is and that live in their second.
    away: u32,
}

#[allow(clippy::indexing_slicing, reason = "ways are masked: below WAYS, which is a power of two")]
impl Bucket {
    fn new() -> Self {
        Bucket { tags: [0; WAYS], entries: [NOBODY; WAYS], away: 0 }
    }

    /// Places with this tag, a bit each.
    #[inline(always)]
    fn matching(&self, tag: u16) -> u32 {
        crate::dpdk::matching(&self.tags, tag)
    }

    #[inline(always)]
    fn entry(&self, way: u32) -> u32 {
        // `way` comes from `matching` and is below WAYS; the mask spares the check.
        self.entries[way as usize & (WAYS - 1)]
    }

    fn put(&mut self, tag: u16, entry: u32) -> bool {
        let free = self.matching(0);
        if free == 0 {
            return false;
        }
        let way = free.trailing_zeros() as usize & (WAYS - 1);
        self.tags[way] = tag;
        self.entries[way] = entry;
        true
    }

    fn take(&mut self, entry: u32) -> bool {
        let Some(way) = self.entries.iter().position(|&e| e == entry) else { return false };
        self.tags[way & (WAYS - 1)] = 0;
        self.entries[way & (WAYS - 1)] = NOBODY;
        true
    }
}

/// Why a flow was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Every entry is in use.
    Entries,
    /// Both buckets are full and nobody in them can move.
    Buckets,
}

/// All buckets.
#[derive(Debug)]
struct Buckets(Box<[Bucket]>);

/// Where a flow is looked for: its first bucket, and the tag that it has there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spot {
    pub bucket: u32,
    pub tag: u16,
}

/// The lowest bits of the hash, and never 0. The first bucket's number comes from the upper half; the second's from the upper end of the
/// lower half, which has bits in common with the tag in tables of more than 2^16 buckets: nine differ at least.
#[inline(always)]
fn tag(hash: u64) -> u16 {
    hash as u16 | 1
}

impl Buckets {
    #[inline(always)]
    fn first(&self, hash: u64) -> usize {
        ((hash >> 32).wrapping_mul(self.0.len() as u64) >> 32) as usize
    }

    #[inline(always)]
    fn second(&self, hash: u64) -> usize {
        let other = ((hash & 0xffff_ffff).wrapping_mul(self.0.len() as u64) >> 32) as usize;
        // The same bucket twice would be no choice.
        if other != self.first(hash) {
            other
        } else if other + 1 < self.0.len() {
            other + 1
        } else {
            0
        }
    }

    #[inline(always)]
    fn get(&self, bucket: usize) -> Option<&Bucket> {
        self.0.get(bucket)
    }

    fn put(&mut self, bucket: usize, tag: u16, entry: u32) -> bool {
        self.0.get_mut(bucket).is_some_and(|b| b.put(tag, entry))
    }

    fn take(&mut self, bucket: usize, entry: u32) -> bool {
        self.0.get_mut(bucket).is_some_and(|b| b.take(entry))
    }

    fn sent_away(&mut self, bucket: usize, change: i32) {
        if let Some(bucket) = self.0.get_mut(bucket) {
            bucket.away = bucket.away.wrapping_add_signed(change);
        }
    }

    fn place(&mut self, hash: u64, entry: u32, hash_of: impl Fn(u32) -> Option<u64>) -> bool {
        let (tag, first, second) = (tag(hash), self.first(hash), self.second(hash));
        if self.put(first, tag, entry) {
            return true;
        }
        if self.put(second, tag, entry) {
            self.sent_away(first, 1);
            return true;
        }
        if self.make_room(first, &hash_of) {
            return self.put(first, tag, entry);
        }
        let placed = self.make_room(second, &hash_of) && self.put(second, tag, entry);
        if placed {
            self.sent_away(first, 1);
        }
        placed
    }

    /// Would [`Self::place`] find a place?
    #[cold]
    fn has_place(&self, hash: u64, hash_of: impl Fn(u32) -> Option<u64>) -> bool {
        let is_open = |bucket: usize| self.get(bucket).is_some_and(|b| b.matching(0) != 0);
        let can_move = |bucket: usize| {
            let other = |hash| {
                let (first, second) = (self.first(hash), self.second(hash));
                if bucket == first { second } else { first }
            };
            let mut entries = self.get(bucket).into_iter().flat_map(|b| b.entries);
            entries.any(|entry| hash_of(entry).is_some_and(|hash| is_open(other(hash))))
        };
        let both = [self.first(hash), self.second(hash)];
        both.into_iter().any(is_open) || both.into_iter().any(can_move)
    }

    /// Somebody in a full bucket moves to his other one.
    #[cold]
    fn make_room(&mut self, bucket: usize, hash_of: impl Fn(u32) -> Option<u64>) -> bool {
        let Some(entries) = self.get(bucket).map(|b| b.entries) else { return false };
        for entry in entries {
            let Some(hash) = hash_of(entry) else { continue };
            let (first, second) = (self.first(hash), self.second(hash));
            let other = if bucket == first { second } else { first };
            if self.put(other, tag(hash), entry) {
                self.sent_away(first, if bucket == first { 1 } else { -1 });
                return self.take(bucket, entry);
            }
        }
        false
    }

    fn remove(&mut self, hash: u64, entry: u32) {
        let first = self.first(hash);
        if !self.take(first, entry) && self.take(self.second(hash), entry) {
            self.sent_away(first, -1);
        }
    }
}

/// Buckets and entries as slices: what a loop keeps in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guesser<'a> {
    buckets: &'a [Bucket],
    lines: Entries<'a>,
}

impl Guesser<'_> {
    /// Pass 2: the entry that it probably is, its lines asked for; [`NOBODY`] if the first bucket has none.
    #[inline(always)]
    pub fn guess(self, spot: Spot) -> u32 {
        let Some(bucket) = self.buckets.get(spot.bucket as usize) else { return NOBODY };
        let found = bucket.matching(spot.tag);
        if found == 0 {
            return NOBODY;
        }
        let entry = bucket.entry(found.trailing_zeros());
        self.lines.prefetch(entry);
        entry
    }

    /// The same for whoever needs no more than the key: one line is asked for.
    #[inline(always)]
    pub fn glance(self, spot: Spot) -> u32 {
        let Some(bucket) = self.buckets.get(spot.bucket as usize) else { return NOBODY };
        let found = bucket.matching(spot.tag);
        if found == 0 {
            return NOBODY;
        }
        let entry = bucket.entry(found.trailing_zeros());
        self.lines.prefetch_head(entry);
        entry
    }
}

/// The table of one worker.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Buckets,
    lines: Arc<Lines>,
    seed: Seed,
    /// First of the chain of entries that were used before.
    unused: u32,
    /// Entries from here on were never used.
    fresh: u32,
    live: u32,
}

impl Table {
    pub fn new(entries: usize, seed: Seed) -> Self {
        Table {
            buckets: Buckets(crate::dpdk::huge(buckets(entries), Bucket::new)),
            lines: Arc::new(Lines::new(entries)),
            seed,
            unused: NOBODY,
            fresh: 0,
            live: 0,
        }
    }

    #[inline(always)]
    pub fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// Flows in it.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Entries below this have been used.
    #[inline(always)]
    pub fn reach(&self) -> u32 {
        self.fresh
    }

    #[inline(always)]
    pub fn hash(&self, key: &Key) -> u64 {
        self.seed.hash(key)
    }

    /// The seed of the hash.
    #[inline(always)]
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// What pass 2 reads, for a loop of its own.
    #[inline(always)]
    pub fn guesser(&self) -> Guesser<'_> {
        Guesser { buckets: &self.buckets.0, lines: self.lines.entries() }
    }

    /// Where to look first for a flow of this hash.
    #[inline(always)]
    pub fn spot(&self, hash: u64) -> Spot {
        Spot { bucket: self.buckets.first(hash) as u32, tag: tag(hash) }
    }

    /// Pass 1 of a batch: asks the cache for the first bucket.
    #[inline(always)]
    pub fn prefetch(&self, spot: Spot) {
        crate::dpdk::prefetch_nth::<1, _>(&self.buckets.0, spot.bucket as usize);
    }

    /// Pass 3: the guess, if it is the flow.
    #[inline(always)]
    pub fn verify(&self, guess: u32, key: &Key) -> Option<Entry<'_>> {
        self.lines.get(guess).filter(|entry| entry.is(key))
    }

    #[inline(always)]
    pub fn entry(&self, entry: u32) -> Option<Entry<'_>> {
        self.lines.get(entry)
    }

    /// The whole search, for what pass 3 did not settle.
    pub fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let (tag, first) = (tag(hash), self.buckets.get(self.buckets.first(hash))?);
        self.find_in(first, tag, key).or_else(|| {
            let second = self.buckets.get(self.buckets.second(hash)).filter(|_| first.away > 0)?;
            self.find_in(second, tag, key)
        })
    }

    fn find_in(&self, bucket: &Bucket, tag: u16, key: &Key) -> Option<u32> {
        let mut found = bucket.matching(tag);
        while found != 0 {
            let entry = bucket.entry(found.trailing_zeros());
            if self.verify(entry, key).is_some() {
                return Some(entry);
            }
            found &= found - 1;
        }
        None
    }

    /// Puts a flow in that is not there.
    pub fn insert(&mut self, hash: u64, key: &Key, life: Life, birth: Birth) -> Result<u32, Full> {
        let Table { buckets, lines, seed, unused, fresh, .. } = self;
        let entry = if *unused != NOBODY { *unused } else { *fresh };
        let line = lines.get(entry).ok_or(Full::Entries)?;
        if !buckets.place(hash, entry, |other| Some(seed.hash(&Key::of_entry(lines.get(other)?)))) {
            return Err(Full::Buckets);
        }
        if *unused == NOBODY {
            *fresh += 1;
            lines.reach_to(*fresh);
        } else {
            *unused = line.links().1;
        }
        line.set_links((NOBODY, NOBODY));
        line.open(key, life, birth);
        self.live += 1;
        Ok(entry)
    }

    /// Would a flow of this hash find a place in its buckets?
    pub fn has_place(&self, hash: u64) -> bool {
        let Table { buckets, lines, seed, .. } = self;
        buckets.has_place(hash, |other| Some(seed.hash(&Key::of_entry(lines.get(other)?))))
    }

    /// Takes a flow out. False if the entry holds none.
    pub fn remove(&mut self, entry: u32) -> bool {
        let Some(line) = self.lines.get(entry) else { return false };
        let key = Key::of_entry(line);
        if !key.is_used() {
            return false;
        }
        self.buckets.remove(self.seed.hash(&key), entry);
        line.close();
        line.set_links((NOBODY, self.unused));
        self.unused = entry;
        self.live -= 1;
        true
    }
}

#[cfg(all(test, not(loom)))]
impl Table {
    /// Where a flow of this hash may live.
    pub fn both_buckets(&self, hash: u64) -> (usize, usize) {
        (self.buckets.first(hash), self.buckets.second(hash))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
