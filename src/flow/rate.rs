//! How many new flows a tenant may have in a second: one bucket for all workers, wherever the load balancer's ports send its packets.
//!
//! A bucket is one word, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): a flow that is let in moves
//! it on by its interval, one for which it would lie more than a tenth of a second ahead is refused. It is read before it is written, so a
//! tenant that floods costs the others nothing but reads of a line that nobody writes. Workers read their clocks once per poll, and not in the same
//! instant: whoever is behind sees a bucket that is a little emptier than it is.

use super::sync::{AtomicU64, Ordering};

/// Fractions of a nanosecond in which times are kept, so that a rate of a million comes out exactly. 64 bits of them are 36 years.
const FRACTION: u64 = 16;
const SECOND: u64 = 1_000_000_000 * FRACTION;
/// What may come at once.
const BURST: u64 = SECOND / 10;

#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    /// Between two flows; 0: as many as come.
    interval: u64,
    /// When it is full again.
    full: AtomicU64,
}

/// The buckets of all tenants.
#[derive(Debug)]
pub(crate) struct Rates(Box<[Bucket]>);

impl Rates {
    /// New flows in a second of each tenant; `None`: as many as come.
    pub fn new(per_s: impl Iterator<Item = Option<u32>>) -> Self {
        let interval = |n: Option<u32>| n.map_or(0, |n| SECOND / u64::from(n.max(1)));
        let bucket = |n| Bucket { interval: interval(n), full: AtomicU64::new(0) };
        Rates(per_s.map(bucket).collect())
    }

    /// Would [`Self::take`] let one in? `now` is in milliseconds.
    #[inline(always)]
    pub fn has(&self, tenant: u16, now: u64) -> bool {
        self.of(tenant).is_none_or(|bucket| {
            bucket.after(bucket.full.load(Ordering::Relaxed), now * (SECOND / 1000)).is_some()
        })
    }

    /// Lets one more in, or not.
    #[inline(always)]
    pub fn take(&self, tenant: u16, now: u64) -> bool {
        self.of(tenant).is_none_or(|bucket| {
            let after = |full| bucket.after(full, now * (SECOND / 1000));
            // Each time round another worker has let one in, and there are no more of these than the rate allows.
            bucket.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
        })
    }

    #[inline(always)]
    fn of(&self, tenant: u16) -> Option<&Bucket> {
        self.0.get(usize::from(tenant)).filter(|bucket| bucket.interval > 0)
    }
}

impl Bucket {
    /// When it is full again if one more comes now; `None` if that is too many. One comes at a time however long the interval.
    #[inline(always)]
    fn after(&self, full: u64, now: u64) -> Option<u64> {
        let after = full.max(now) + self.interval;
        (after <= now + BURST.max(self.interval)).then_some(after)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Flows that come in of so many tries in each of these milliseconds.
    fn admitted(rates: &Rates, times: impl Iterator<Item = u64>, tries: u32) -> u32 {
        times
            .map(|ms| (0..tries).map(|_| u32::from(rates.has(0, ms) && rates.take(0, ms))).sum::<u32>())
            .sum()
    }

    #[test]
    fn new_flows_are_limited_by_the_second() {
        for (rate, tries) in [(50, 3), (1, 1), (7, 2), (1_000_000, 2000), (300_000, 900)] {
            let rates = Rates::new([Some(rate)].into_iter());
            let (begin, burst) = (1u64 << 38, rate.div_ceil(10));
            let got = admitted(&rates, begin..begin + 10_000, tries);
            let want = 10 * rate + burst;
            assert!(got.abs_diff(want) <= 2 + want / 10_000, "{rate}/s: {got} of {want}");
            // Whoever has been silent for long has no more than a tenth of a second's worth at once.
            let got = admitted(&rates, std::iter::once(begin + 100_000_000), 2 * burst + 2);
            assert_eq!(got, burst, "{rate}/s");
        }
    }

    #[test]
    fn no_limit_and_no_tenant_limit_nothing() {
        let rates = Rates::new([None].into_iter());
        assert!((0..100_000).all(|_| rates.has(0, 5) && rates.take(0, 5) && rates.take(9, 5)));
    }

    #[test]
    fn clocks_that_do_not_agree_let_no_more_in() {
        let rates = Rates::new([Some(1000)].into_iter());
        // One is 3 ms behind the other.
        let got: u32 = (1000..2000)
            .map(|ms| (0..3).map(|n| u32::from(rates.take(0, ms - 3 * (n % 2)))).sum::<u32>())
            .sum();
        assert!((1090..=1101).contains(&got), "{got}");
    }
}

#[cfg(all(test, loom))]
mod models;
