//! Where workers run: on EAL lcores, or on ordinary threads.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::WorkerPlan;
use crate::dpdk::{Error, QueuePair};
use crate::path::{Lane, Lend, Stop, Worker};
use crate::stage::Backend;

/// Whoever has lanes and works until told to stop.
pub(super) trait Work: Send + 'static {
    /// Works.
    fn run(&mut self, stop: &Stop);
    /// Its mailbox for lanes, if it lends any.
    fn take_lend(&mut self) -> Option<Box<Lend>> {
        None
    }
    /// Gives the lanes back.
    fn into_lanes(self) -> Vec<Lane>;
}

impl Work for Worker {
    fn run(&mut self, stop: &Stop) {
        Worker::run(self, stop);
    }

    fn take_lend(&mut self) -> Option<Box<Lend>> {
        Worker::take_lend(self)
    }

    fn into_lanes(self) -> Vec<Lane> {
        Worker::into_lanes(self)
    }
}

impl Work for crate::gateway::Worker {
    fn run(&mut self, stop: &Stop) {
        crate::gateway::Worker::run(self, stop);
    }

    fn into_lanes(self) -> Vec<Lane> {
        crate::gateway::Worker::into_lanes(self)
    }
}

/// What carries the workers.
#[derive(Debug)]
pub enum Host {
    /// Ordinary threads, soft ports.
    Threads,
    /// EAL lcores.
    #[cfg(feature = "dpdk")]
    Eal(crate::dpdk::eal::Eal),
}

impl Host {
    /// What drivers want done once a second, on the lcore that started the ports.
    pub(super) fn tick(&self) -> Result<(), Error> {
        match self {
            Host::Threads => Ok(()),
            #[cfg(feature = "dpdk")]
            Host::Eal(eal) => eal.tick(),
        }
    }

    /// What stages are built on.
    pub fn backend(&self) -> Backend {
        match self {
            Host::Threads => Backend::Soft,
            #[cfg(feature = "dpdk")]
            Host::Eal(_) => Backend::Eal,
        }
    }

    /// Launches the worker; if that fails its lanes come back with the error.
    pub(super) fn launch<W: Work>(
        &self,
        plan: &WorkerPlan,
        worker: W,
        stop: Stop,
    ) -> Result<Handle, (Error, Vec<Lane>)> {
        let waiting = Arc::new(Mutex::new(Some(worker)));
        let taken = waiting.clone();
        let work = move || {
            let worker = taken.lock().take();
            worker.map_or_else(Ended::default, |worker| work(worker, &stop))
        };
        let launched = match self {
            Host::Threads => thread::Builder::new()
                .name(format!("worker-{}", plan.id.0))
                .spawn(work)
                .map(Handle::Thread)
                .map_err(|e| no_thread(plan, &e)),
            #[cfg(feature = "dpdk")]
            Host::Eal(eal) => eal.launch(plan.lcore.lcore, work).map(Handle::Lcore),
        };
        launched.map_err(|error| {
            let worker = waiting.lock().take();
            (error, worker.map_or_else(Vec::new, W::into_lanes))
        })
    }
}

fn no_thread(plan: &WorkerPlan, error: &std::io::Error) -> Error {
    Error::refused(format!("worker {}: no thread: {error}", plan.id.0), "raise the limit of processes")
}

/// A worker's life. Whatever ends it, the lanes come back: without them their ports could not be stopped.
fn work<W: Work>(mut worker: W, stop: &Stop) -> Ended {
    let panic = catch_unwind(AssertUnwindSafe(|| worker.run(stop))).err().map(message);
    let lend = worker.take_lend();
    Ended { lanes: worker.into_lanes(), lend, panic }
}

/// What a worker leaves.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// All its lanes.
    pub lanes: Vec<Lane>,
    /// Where lanes may be that it did not come to take.
    pub lend: Option<Box<Lend>>,
    /// What it panicked with.
    pub panic: Option<String>,
}

impl Ended {
    /// The queue pairs of its lanes, and those that were on their way to it.
    pub fn pairs(self) -> impl Iterator<Item = QueuePair> {
        let unread = self.lend.map(|mut lend| lend.unread()).unwrap_or_default();
        self.lanes.into_iter().map(|Lane(pair)| pair).chain(unread)
    }
}

/// A launched worker.
pub(super) enum Handle {
    Thread(thread::JoinHandle<Ended>),
    #[cfg(feature = "dpdk")]
    Lcore(crate::dpdk::eal::Lcore<Ended>),
}

impl Handle {
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Handle::Thread(thread) => thread.is_finished(),
            #[cfg(feature = "dpdk")]
            Handle::Lcore(lcore) => lcore.is_finished(),
        }
    }

    /// Waits for it, but not longer than that. A worker that is left behind keeps what it holds (the EAL too), so nothing goes away under it.
    pub(super) fn join_by(self, deadline: Instant) -> Option<Ended> {
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Some(self.join())
    }

    /// Waits for it.
    fn join(self) -> Ended {
        let ended = match self {
            Handle::Thread(thread) => thread.join().map_err(message),
            #[cfg(feature = "dpdk")]
            Handle::Lcore(lcore) => lcore.join().map_err(|panicked| panicked.message),
        };
        ended.unwrap_or_else(|panic| Ended { panic: Some(panic), ..Ended::default() })
    }
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_ended() { "ended" } else { "running" })
    }
}
