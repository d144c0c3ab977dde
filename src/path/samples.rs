//! What some polls are asked beside their work: how many cycles each stage took, and how long frames were here.
//!
//! One busy poll in [`EVERY`] is timed; the others pay a count-down for it, and a compare for each stage. Workers count into buckets,
//! so nothing is ever lost and memory is fixed; each bucket keeps the sum of what fell into it, so that sums are right as well.
//! One writer, the worker; any number of readers.

use super::Counter;

/// Busy polls of queues from one that is timed to the next. A prime: what happens every so many polls is not met each time, or never.
pub const EVERY: u32 = 1021;
/// The first that is timed: caches are warm then.
const FIRST: u32 = 17;

/// Upper ends of the buckets for cycles of a stage for each packet.
pub const CYCLES: [u64; 14] = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536, 262_144];
/// Upper ends of the buckets for the time in the appliance, in nanoseconds.
pub const TIMES: [u64; 14] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    20_000_000,
    100_000_000,
];
/// Buckets: one for each upper end, and one for what is above all of them.
const BUCKETS: usize = 15;

/// Counts by bucket.
#[derive(Debug, Default)]
pub struct Buckets([Bucket; BUCKETS]);

#[derive(Debug, Default)]
struct Bucket {
    count: Counter,
    sum: Counter,
}

impl Buckets {
    /// `n` observations of the same value. The value falls into the first bucket whose upper end is not below it (`le` in Prometheus).
    pub fn observe(&self, ends: &[u64; 14], value: u64, n: u64) {
        let place = ends.iter().take_while(|end| **end < value).count();
        if let Some(bucket) = self.0.get(place) {
            bucket.count.add(n);
            bucket.sum.add(value.saturating_mul(n));
        }
    }

    /// Count and sum of each bucket so far. The worker goes on meanwhile: a sum may be ahead of its count.
    pub fn read(&self) -> [(u64, u64); 15] {
        self.0.each_ref().map(|bucket| (bucket.count.get(), bucket.sum.get()))
    }
}

/// What one worker's timed polls came to, but for its stages', which lie beside their counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Samples {
    /// Polls that were timed.
    pub polls: Counter,
    /// Nanoseconds from the moment a frame was asked for until the port had it again, dropped frames included.
    pub times: Buckets,
}

/// Counts down to the next poll that is timed.
#[derive(Debug)]
pub struct Countdown(u32);

impl Default for Countdown {
    fn default() -> Self {
        Countdown(FIRST)
    }
}

impl Countdown {
    /// The next busy poll is timed.
    pub fn next() -> Self {
        Countdown(1)
    }

    /// A busy poll begins: is it to be timed?
    #[inline(always)]
    pub fn is_due(&mut self) -> bool {
        self.0 = self.0.wrapping_sub(1);
        if self.0 == 0 {
            self.0 = EVERY;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_in_order_and_belong_to_their_bucket() {
        for ends in [CYCLES, TIMES] {
            assert!(ends.is_sorted_by(|a, b| a < b));
            let buckets = Buckets::default();
            for (n, end) in (1..).zip(ends) {
                buckets.observe(&ends, end, n);
                buckets.observe(&ends, end + 1, 100);
            }
            buckets.observe(&ends, 0, 5);
            let read = buckets.read();
            assert_eq!(read[0], (1 + 5, ends[0]));
            assert_eq!(read[1], (2 + 100, 2 * ends[1] + 100 * (ends[0] + 1)));
            assert_eq!(read[14], (100, 100 * (ends[13] + 1)), "above all ends");
            buckets.observe(&ends, u64::MAX, 2);
            assert_eq!(buckets.read()[14].0, 102, "no value is too large");
        }
    }

    #[test]
    fn one_poll_in_so_many_is_timed() {
        let mut countdown = Countdown::default();
        let timed: Vec<u32> = (1..=3 * EVERY).filter(|_| countdown.is_due()).collect();
        assert_eq!(timed, [FIRST, FIRST + EVERY, FIRST + 2 * EVERY]);
    }
}
