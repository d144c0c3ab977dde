//! Hit counters: one block per worker, one writer each, read by anyone at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stage::WorkerId;

/// The counters of one worker. Only that worker adds.
#[derive(Debug)]
pub struct Counters(Vec<Line>);

/// One cache line, so that no two workers' blocks share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

impl Counters {
    fn new(count: usize) -> Self {
        Counters((0..count.div_ceil(8)).map(|_| Line::default()).collect())
    }

    /// One packet more.
    #[inline(always)]
    pub fn add(&self, counter: usize) {
        if let Some(cell) = self.0.get(counter / 8).and_then(|line| line.0.get(counter % 8)) {
            // One writer: a plain load and store, no locked instruction.
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    fn read(&self, counter: usize) -> u64 {
        let cell = self.0.get(counter / 8).and_then(|line| line.0.get(counter % 8));
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// The blocks of all workers.
#[derive(Debug, Default)]
pub struct Workers(Vec<(WorkerId, Arc<Counters>)>);

impl Workers {
    /// The worker's block: a stage that is made anew (after a panic) counts on where the old one stopped.
    pub fn of(&mut self, worker: WorkerId, count: usize) -> Arc<Counters> {
        if let Some((_, counters)) = self.0.iter().find(|(id, _)| *id == worker) {
            return counters.clone();
        }
        let counters = Arc::new(Counters::new(count));
        self.0.push((worker, counters.clone()));
        counters
    }

    /// Sums over all workers.
    pub fn sums(&self, count: usize) -> Vec<u64> {
        (0..count).map(|n| self.sum(n)).collect()
    }

    /// The sum of one.
    pub fn sum(&self, counter: usize) -> u64 {
        self.0.iter().map(|(_, counters)| counters.read(counter)).sum()
    }
}
