//! Where workers run: on EAL lcores, or on ordinary threads.

use std::fmt;
use std::thread;

use crate::config::WorkerPlan;
use crate::dpdk::Error;
use crate::path::Lane;
use crate::stage::Backend;

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
    /// What stages are built on.
    pub fn backend(&self) -> Backend {
        match self {
            Host::Threads => Backend::Soft,
            #[cfg(feature = "dpdk")]
            Host::Eal(_) => Backend::Eal,
        }
    }

    pub(super) fn launch(
        &self,
        worker: &WorkerPlan,
        work: impl FnOnce() -> Vec<Lane> + Send + 'static,
    ) -> Result<Handle, Error> {
        match self {
            Host::Threads => {
                let name = format!("worker-{}", worker.id.0);
                let thread = thread::Builder::new().name(name).spawn(work).map_err(|e| {
                    Error::refused(
                        format!("worker {}: no thread: {e}", worker.id.0),
                        "raise the limit of processes",
                    )
                })?;
                Ok(Handle::Thread(thread))
            }
            #[cfg(feature = "dpdk")]
            Host::Eal(eal) => eal.launch(worker.lcore.lcore, work).map(Handle::Lcore),
        }
    }
}

/// A launched worker; it gives its lanes back.
pub(super) enum Handle {
    Thread(thread::JoinHandle<Vec<Lane>>),
    #[cfg(feature = "dpdk")]
    Lcore(crate::dpdk::eal::Lcore<Vec<Lane>>),
}

impl Handle {
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Handle::Thread(thread) => thread.is_finished(),
            #[cfg(feature = "dpdk")]
            Handle::Lcore(lcore) => lcore.is_finished(),
        }
    }

    /// Waits for it; the error is what it panicked with.
    pub(super) fn join(self) -> Result<Vec<Lane>, String> {
        match self {
            Handle::Thread(thread) => thread.join().map_err(|panic| {
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                text.or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".into())
            }),
            #[cfg(feature = "dpdk")]
            Handle::Lcore(lcore) => lcore.join().map_err(|panicked| panicked.message),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_ended() { "ended" } else { "running" })
    }
}
