//! Letters of one port: who has been written to, who has answered, and who is late.

use std::time::{Duration, Instant};

use super::super::Launched;
use super::super::manage::whereabouts;
use super::super::ports::AppPort;
use super::Around;
use crate::dpdk::QueuePair;
use crate::path::{LendEnd, Letter};

/// How long a worker may take to give or to take lanes before it is named.
const PATIENCE: Duration = Duration::from_secs(2);

/// Workers that a port's letters go to, by their place.
#[derive(Debug)]
pub(super) struct Letters {
    unsent: Vec<usize>,
    awaited: Vec<usize>,
    begun: Instant,
    /// Those that are late have been named.
    pub named: bool,
}

impl Letters {
    /// To all workers that have queues of the port.
    pub fn to(port: &AppPort, workers: &[Launched]) -> Self {
        let has = |&n: &usize| {
            workers.get(n).is_some_and(|worker| queues_of(worker, port.facts().id).next().is_some())
        };
        Letters {
            unsent: (0..workers.len()).filter(has).collect(),
            awaited: Vec::new(),
            begun: Instant::now(),
            named: false,
        }
    }

    /// Sends what can be sent, and takes in what has come.
    pub fn round(
        &mut self,
        ends: &mut [LendEnd],
        workers: &[Launched],
        mut letter: impl FnMut(&Launched) -> Letter,
        came: &mut Vec<QueuePair>,
    ) {
        let Letters { unsent, awaited, .. } = self;
        unsent.retain(|&n| {
            let (Some(end), Some(worker)) = (ends.get_mut(n), workers.get(n)) else { return false };
            // Another port's may be there; and nobody reads what is sent to a worker that has ended.
            if end.is_out() || worker.handle.has_ended() {
                return true;
            }
            if let Err(pairs) = end.send(letter(worker)) {
                came.extend(pairs); // it cannot be: nothing is out
            }
            awaited.push(n);
            false
        });
        awaited.retain(|&n| match ends.get_mut(n).and_then(LendEnd::take_back) {
            Some(pairs) => {
                came.extend(pairs);
                false
            }
            None => true,
        });
    }

    pub fn is_over(&self) -> bool {
        self.unsent.is_empty() && self.awaited.is_empty()
    }

    /// Has it taken too long? Said once.
    pub fn late(&mut self, now: Instant) -> bool {
        let late = !self.named && now - self.begun > PATIENCE;
        self.named |= late;
        late
    }

    /// Who is waited for, and where they are.
    pub fn whom(&self, around: &Around<'_>) -> String {
        let one = |&n: &usize| {
            let worker = around.workers.get(n)?;
            let id = worker.counters.worker.0;
            Some(match worker.handle.has_ended() {
                true => format!("worker {id}, which has ended"),
                false => format!("worker {id}, which is in {}", whereabouts(&worker.counters, around.plan)),
            })
        };
        self.unsent.iter().chain(&self.awaited).filter_map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Numbers of the queues that the worker has of the port.
pub(super) fn queues_of(worker: &Launched, port: u16) -> impl Iterator<Item = u16> {
    worker.counters.queues.iter().filter(move |queue| queue.port == port).map(|queue| queue.queue)
}
