//! Work on lcores: a closure goes to an idle lcore, its value comes back by a join handle.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Eal;
use crate::dpdk::{Errno, Error};

/// The closure panicked; the panic ended at the lcore's boundary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lcore {lcore} panicked: {message}")]
pub struct Panicked {
    /// DPDK's number.
    pub lcore: u32,
    /// The panic's message.
    pub message: String,
}

/// Work that was launched. Dropping it lets the work go on; its value is lost.
#[derive(Debug)]
pub struct Lcore<T> {
    lcore: u32,
    result: Receiver<Result<T, String>>,
    _eal: Eal,
}

struct Task<F, T> {
    work: F,
    result: SyncSender<Result<T, String>>,
    /// The EAL stays up while the work runs (S4).
    eal: Eal,
}

impl Eal {
    /// Lcores that [`Eal::launch`] can use: all but the main one.
    pub fn workers(&self) -> Vec<u32> {
        let enabled = |&lcore: &u32| {
            // SAFETY: any number is accepted.
            lcore != self.0.main_lcore && unsafe { dpdk_sys::rte_lcore_is_enabled(lcore) } == 1
        };
        (0..dpdk_sys::RTE_MAX_LCORE).filter(enabled).collect()
    }

    /// Runs `work` on an idle lcore.
    pub fn launch<T, F>(&self, lcore: u32, work: F) -> Result<Lcore<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let workers = self.workers();
        if !workers.contains(&lcore) {
            return Err(Error::refused(
                format!("lcore {lcore} cannot be given work: it is the main lcore or was not planned"),
                format!("worker lcores are {workers:?}"),
            ));
        }
        let (sender, result) = sync_channel(1);
        let task = Box::into_raw(Box::new(Task { work, result: sender, eal: self.clone() }));
        let _one_at_a_time = self.0.launching.lock();
        // SAFETY: `run::<F, T>` gets the pointer made of this very type, once. Closure and value are 'static and Send.
        let code = unsafe { dpdk_sys::rte_eal_remote_launch(Some(run::<F, T>), task.cast(), lcore) };
        if code != 0 {
            // SAFETY: the lcore did not take it, so it is still ours.
            drop(unsafe { Box::from_raw(task) });
            let error = Error::call(format!("launch on lcore {lcore}"), Errno::from_return(code));
            return Err(error.with_remedy("it is still at work: join it first"));
        }
        Ok(Lcore { lcore, result, _eal: self.clone() })
    }
}

/// # Safety
/// `task` is a `Box<Task<F, T>>` that is handed over.
unsafe extern "C" fn run<F: FnOnce() -> T, T>(task: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let Task { work, result, eal } = *unsafe { Box::from_raw(task.cast::<Task<F, T>>()) };
    let value = catch_unwind(AssertUnwindSafe(work)).map_err(message);
    // Nobody listens if the handle was dropped; then the value goes here, and a panic of its drop must not leave either.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(result.send(value))));
    // Last: the value may hold buffers, and their pools must not go while this lcore still puts one back (S4). `join`
    // waits for the return, so whoever joined can hold the last handle.
    drop(eal);
    0
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text =
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
    // A payload whose drop panics would leave through C.
    std::mem::forget(panic);
    text
}

impl<T> Lcore<T> {
    /// DPDK's number.
    pub fn id(&self) -> u32 {
        self.lcore
    }

    /// True once `join` would not wait.
    pub fn is_finished(&self) -> bool {
        // SAFETY: a planned lcore (checked by launch).
        unsafe { dpdk_sys::rte_eal_get_lcore_state(self.lcore) != dpdk_sys::RUNNING }
    }

    /// Waits for the value. Afterwards the lcore can be given work again.
    pub fn join(self) -> Result<T, Panicked> {
        let value = self.result.recv();
        // DPDK's wait spins, so it comes last, when there is next to nothing to wait for.
        // SAFETY: a planned lcore (checked by launch).
        unsafe { dpdk_sys::rte_eal_wait_lcore(self.lcore) };
        // The sender is only dropped unsent if the task never ran.
        let value = value.unwrap_or_else(|_| Err("its work was lost".into()));
        value.map_err(|message| Panicked { lcore: self.lcore, message })
    }
}
