//! Token buckets that workers share, and tables of them, for stages that limit rates.
//!
//! A bucket is one word: the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371, as [`crate::flow`] has it for the new
//! flows of tenants). What is let in moves that time on by what it costs; what would move it further ahead of now than the burst is refused. So over
//! any time T no more than rate x T + burst is let in, and whoever asks for more gets all but one piece of it. Workers read their clocks once a
//! poll, and not in the same instant: where they are d apart, it is rate x (T + d) + burst.
//!
//! **Several workers.** All that a worker's batch has for one bucket in a row ([`Bucket::take`]) is decided in one step: the word is read once, and
//! written once if anything is let in. Each time the write fails another worker has let something in, and there is no more of that than the rate
//! allows. A flood that is refused costs the others nothing but reads.
//!
//! **Tables** have a fixed number of buckets, four to a set; which set comes from a hash of who is limited under a random key. The hash, of 64 bits, is all that
//! is kept of whose a bucket is. A bucket that is full says nothing that an unused one would not, so it goes to whoever asks first, and nothing is lost
//! by that. If no bucket of the set is full there is none for a newcomer ([`Table::find`]): the stage says what becomes of it. Whoever is limited to
//! r pieces a second and sends one has a bucket for 1/r seconds: a flood from addresses that never come back needs rate-of-flood / r buckets at a time.
//!
//! Two workers may race for a bucket that is full: one takes it over while the other, which had found it before, still charges it. One batch is then charged to
//! somebody else. Two may also give one newcomer a bucket each; from then on all find the same one, and the other is full soon.

use crate::flow::Seed;
use crate::flow::sync::{AtomicU64, Ordering};

/// Parts of a nanosecond in which times are kept, so that a byte at 100 Gbit/s (five of them) comes out within 0.4 %. 64 bits of them are nine years.
const FRACTION: u64 = 64;
/// A second.
pub(crate) const SECOND: u64 = time(1_000_000_000);
/// Costs are kept with so many bits more.
const SHIFT: u32 = 16;

/// Buckets of a set.
const WAYS: usize = 4;
/// Words of a line of the cache.
const LINE: usize = 8;

/// A time in nanoseconds, in these parts.
pub(crate) const fn time(nanoseconds: u64) -> u64 {
    nanoseconds.saturating_mul(FRACTION)
}

/// Nanoseconds of a worker's clock since a stage saw its first packet, in parts. A capture's clock does not begin at zero.
#[derive(Debug)]
pub(crate) struct Since(AtomicU64);

impl Since {
    /// Nobody has seen anything.
    pub fn new() -> Self {
        Since(AtomicU64::new(u64::MAX))
    }

    /// The time since then; of a worker whose clock is behind that of the first, zero.
    #[inline(always)]
    pub fn at(&self, now: u64) -> u64 {
        let first = match self.0.load(Ordering::Relaxed) {
            u64::MAX => match self.0.compare_exchange(u64::MAX, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => now,
                Err(first) => first,
            },
            first => first,
        };
        now.saturating_sub(first).saturating_mul(FRACTION)
    }
}

/// How fast a bucket fills, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Of one piece, shifted.
    cost: u64,
    burst: u64,
}

impl Rate {
    /// So many pieces in a second; what comes in `burst` nanoseconds may come at once.
    pub fn new(per_s: u64, burst: u64) -> Self {
        let cost = (u128::from(SECOND) << SHIFT).div_ceil(u128::from(per_s.max(1)));
        // Costs are rounded up, each by less than one part: so many pieces as fill the burst exactly still fit.
        let burst = burst.saturating_mul(FRACTION).saturating_add(FRACTION);
        Rate { cost: cost.min(u64::MAX.into()) as u64, burst }
    }

    /// What so many pieces cost.
    #[inline(always)]
    fn of(&self, pieces: u32) -> u64 {
        let cost = (u128::from(self.cost) * u128::from(pieces)).div_ceil(1 << SHIFT); // up: never more than the rate
        cost.min((u64::MAX / 4).into()) as u64
    }

    /// When a bucket will be full again if so many pieces come now; `None` if that is too many. Of what is larger than the burst one comes at a
    /// time.
    #[inline(always)]
    pub fn after(&self, full: u64, now: u64, pieces: u32) -> Option<u64> {
        let cost = self.of(pieces);
        let after = full.max(now).saturating_add(cost);
        (after <= now.saturating_add(self.burst.max(cost))).then_some(after)
    }
}

/// A bucket that workers share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'a>(pub &'a AtomicU64);

impl Bucket<'_> {
    /// Lets in what the rate allows of these, in their order: a bit for each that is.
    #[inline(always)]
    pub fn take(self, rate: &Rate, now: u64, pieces: &[u32]) -> u64 {
        let mut full = self.0.load(Ordering::Relaxed);
        loop {
            let (mut then, mut taken) = (full, 0);
            for (n, pieces) in pieces.iter().enumerate() {
                if let Some(after) = rate.after(then, now, *pieces) {
                    (then, taken) = (after, taken | 1 << n);
                }
            }
            if taken == 0 {
                return 0;
            }
            match self.0.compare_exchange(full, then, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(other) => full = other,
            }
        }
    }

    /// Is it full?
    #[inline(always)]
    pub fn is_full(self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

/// Who is limited.
pub(crate) type Name = [u64; 4];

/// Words that begin at a line of the cache.
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

/// Where the words of one entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    first: usize,
    step: usize,
}

/// A fixed number of entries, each of some words.
pub(crate) struct Table {
    lines: Box<[Line]>,
    seed: Seed,
    /// Words of an entry.
    words: usize,
    /// Words from one set to the next; 0 where entries are found by their number.
    stride: usize,
    sets: usize,
}

impl Table {
    /// So many entries at least, found by who they are.
    pub fn keyed(entries: usize, words: usize) -> Self {
        let stride = (WAYS * (1 + words)).next_multiple_of(LINE);
        let sets = entries.div_ceil(WAYS).max(1);
        Table { lines: lines(sets * stride / LINE), seed: Seed::random(), words, stride, sets }
    }

    /// So many entries, found by their number.
    pub fn numbered(entries: usize, words: usize) -> Self {
        let each = words.div_ceil(LINE);
        Table { lines: lines(entries * each), seed: Seed::fixed(0), words, stride: 0, sets: entries }
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        size_of_val(&*self.lines) as u64
    }

    /// The entry of whoever has these words for a name: theirs, or one that `idle` says nobody would miss. `None` if there is no such.
    #[inline(always)]
    pub fn find(&self, name: Name, idle: impl Fn(Place) -> bool) -> Option<Place> {
        let (hash, set) = self.set(name);
        let place = |way: usize| Place { first: set + WAYS + way, step: WAYS };
        let mut unused = false;
        for way in 0..WAYS {
            match self.at(set + way)?.load(Ordering::Relaxed) {
                tag if tag == hash => return Some(place(way)),
                tag => unused |= tag == 0,
            }
        }
        for way in 0..WAYS {
            let tag = self.at(set + way)?;
            let other = tag.load(Ordering::Relaxed);
            // One that nobody has had comes first: then those who come back find their own.
            if other != hash && (other != 0 && (unused || !idle(place(way)))) {
                continue;
            }
            match tag.compare_exchange(other, hash, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(place(way)),
                // Another worker was faster, for the same or for somebody else.
                Err(now) if now == hash => return Some(place(way)),
                Err(_) => unused = false,
            }
        }
        None
    }

    /// The hash of a name, and where its set begins.
    #[inline(always)]
    fn set(&self, [a, b, c, d]: Name) -> (u64, usize) {
        let hash = self.seed.words([a, self.seed.words([b, c, d]), 0]) | 1; // 0 is nobody
        (hash, ((u128::from(hash) * self.sets as u128) >> 64) as usize * self.stride)
    }

    /// The entry of whoever has these words for a name, if there is one.
    #[inline(always)]
    pub fn known(&self, name: Name) -> Option<Place> {
        let (hash, set) = self.set(name);
        let way = (0..WAYS)
            .find(|way| self.at(set + way).is_some_and(|tag| tag.load(Ordering::Relaxed) == hash))?;
        Some(Place { first: set + WAYS + way, step: WAYS })
    }

    /// The entry of that number.
    #[inline(always)]
    pub fn numbered_place(&self, number: usize) -> Option<Place> {
        let each = self.words.div_ceil(LINE) * LINE;
        (number < self.sets).then_some(Place { first: number * each, step: 1 })
    }

    /// A word of an entry.
    #[inline(always)]
    pub fn word(&self, place: Place, word: usize) -> Option<&AtomicU64> {
        self.at(place.first + word * place.step)
    }

    #[inline(always)]
    fn at(&self, word: usize) -> Option<&AtomicU64> {
        self.lines.get(word / LINE)?.0.get(word % LINE)
    }
}

fn lines(count: usize) -> Box<[Line]> {
    (0..count).map(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))).collect()
}

#[cfg(all(test, loom))]
mod models;

#[cfg(all(test, not(loom)))]
mod tests;
