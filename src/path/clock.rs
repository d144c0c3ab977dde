//! The clock of a worker: monotonic nanoseconds, read once per poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dpdk;

/// Where `now` comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The cycle counter.
    Cycles {
        /// Counter at time zero.
        start: u64,
        /// Nanoseconds per cycle, in units of 2^-32.
        scale: u64,
    },
    /// Set by somebody else: the timestamps of a capture, or a test.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Time since now, from the cycle counter.
    pub fn cycles() -> Self {
        let hz = dpdk::cycles_per_second().max(1);
        let scale = ((1_000_000_000u128 << 32) / u128::from(hz)) as u64;
        Clock::Cycles { start: dpdk::cycles(), scale }
    }

    /// A clock that stands at zero, and the hand that moves it.
    pub fn manual() -> (Self, Arc<AtomicU64>) {
        let hand = Arc::new(AtomicU64::new(0));
        (Clock::Manual(hand.clone()), hand)
    }

    /// Nanoseconds since the clock was made (cycles), or as set (manual).
    pub fn now(&self) -> u64 {
        self.at(dpdk::cycles())
    }

    /// The same for a cycle counter that was just read.
    #[inline(always)]
    pub fn at(&self, cycles: u64) -> u64 {
        match self {
            Clock::Cycles { start, scale } => {
                // Another CPU's counter may be a little behind the one that set the start.
                let spent = (cycles.wrapping_sub(*start) as i64).max(0) as u64;
                ((u128::from(spent) * u128::from(*scale)) >> 32) as u64
            }
            Clock::Manual(hand) => hand.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_is_behind_reads_zero() {
        let clock = Clock::Cycles { start: 1000, scale: 1 << 32 };
        assert_eq!([clock.at(999), clock.at(1000), clock.at(1003)], [0, 0, 3]);
    }

    #[test]
    fn cycles_run_at_about_the_speed_of_the_wall() {
        // Whoever loses its CPU between two readings sees any ratio: one try of several must be undisturbed. A wrong unit never is right.
        let tries: Vec<f64> = (0..10)
            .map(|_| {
                let (clock, wall) = (Clock::cycles(), std::time::Instant::now());
                std::thread::sleep(std::time::Duration::from_millis(20));
                clock.now() as f64 / wall.elapsed().as_nanos() as f64
            })
            .collect();
        assert!(tries.iter().any(|ratio| (0.9..1.1).contains(ratio)), "{tries:?}");
    }
}
