//! The Environment Abstraction Layer: one per process, and the bodies of the fence over it.
//!
//! [`Eal::init`] refuses what it can see to be wrong (CPUs, hugepages) before DPDK is called, because DPDK can be
//! started once per process and a failed start cannot be repeated. The thread that calls it becomes the main lcore and
//! is pinned to its CPU; threads that it spawns later inherit that.
//!
//! An [`Eal`] is a handle; pools, ports and queues hold one each, so DPDK's memory stays until the last of them is gone
//! (S4). The last handle closes the ports, and, if it goes on the main lcore and every buffer is back in its pool, ends
//! DPDK. Otherwise the memory is left to the end of the process: a buffer that is still out must never dangle.
//! Files are removed in either case.

mod args;
mod device;
mod kernel;
mod lcore;
mod log;
mod memory;
mod pool;
mod port;
mod queue;
mod ring;
mod rss;

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Errno, Error, Mempool, PoolConfig};
use crate::dpdk::EalPlan;

pub use lcore::{Lcore, Panicked};
pub use memory::MemoryFacts;
pub(super) use pool::{EalPool, free, free_bulk};
pub use port::Port;
pub(super) use port::RunningPort;
pub(super) use queue::{RxQueue, TxQueue};
pub use ring::cross_connect;

/// Set by the first attempt: DPDK cannot be started twice in a process, not even after a failure.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The one that runs. DPDK itself is global: what needs it without being handed a handle asks here.
static RUNNING: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

/// DPDK, running. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Eal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryFacts,
    main_lcore: u32,
    said: Vec<String>,
    runtime: RuntimeDir,
    pools: Mutex<Vec<pool::Raw>>,
    rings: Mutex<Vec<ring::Raw>>,
    ports: Mutex<Vec<port::Slot>>,
    /// Taken to launch: DPDK's check that an lcore is idle and its start are two steps.
    launching: Mutex<()>,
}

impl Eal {
    /// Starts DPDK with these devices: PCI addresses and vdev strings, as in `[[port]] device`.
    ///
    /// A second call in a process is refused, whatever became of the first.
    pub fn init(plan: &EalPlan, devices: &[String]) -> Result<Eal, Error> {
        args::check_lcores(plan)?;
        let memory = memory::choose(plan)?;
        let args = args::build(plan, memory.mode, devices)?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::refused(
                "DPDK was already started in this process",
                "it can be started once per process: keep the first Eal, its clones are handles to it",
            ));
        }
        let log = log::Capture::start();
        let runtime = RuntimeDir::before(&plan.file_prefix);
        let code = start(args);
        let said = log.finish();
        if code < 0 {
            // SAFETY: plain read of a thread-local.
            let errno = Errno(unsafe { dpdk_sys::sg_errno() });
            runtime.remove();
            return Err(init_failed(errno, &said));
        }
        // SAFETY: the EAL is up.
        let main_lcore = unsafe { dpdk_sys::rte_get_main_lcore() };
        // A driver that needs timers has done this already, which is no error (EALREADY).
        // SAFETY: the EAL is up.
        unsafe { dpdk_sys::rte_timer_subsystem_init() };
        let eal = Eal(Arc::new(Inner {
            memory,
            main_lcore,
            said,
            runtime,
            pools: Mutex::default(),
            rings: Mutex::default(),
            ports: Mutex::default(),
            launching: Mutex::default(),
        }));
        *RUNNING.lock() = Arc::downgrade(&eal.0);
        Ok(eal)
    }

    /// A handle to the EAL that runs in this process, if there is one.
    pub fn running() -> Option<Eal> {
        RUNNING.lock().upgrade().map(Eal)
    }

    /// Where its memory comes from and what that costs.
    pub fn memory(&self) -> &MemoryFacts {
        &self.0.memory
    }

    /// Warnings of DPDK while it started.
    pub fn said(&self) -> &[String] {
        &self.0.said
    }

    /// DPDK's number of the lcore that called [`Eal::init`].
    pub fn main_lcore(&self) -> u32 {
        self.0.main_lcore
    }

    /// Makes a pool. It lives as long as the EAL.
    pub fn pool(&self, config: &PoolConfig) -> Result<Mempool, Error> {
        pool::create(self, config).map(Mempool::Eal)
    }

    /// Lets drivers do what they do once a second: without it ENA's watchdog never asks for a reset (ENA PMD guide,
    /// "rte_timer_manage"). To be called on the lcore that started the ports, since timers belong to lcores.
    pub fn tick(&self) -> Result<(), Error> {
        // SAFETY: initialised by `init`; a thread that is no lcore has no timers.
        match unsafe { dpdk_sys::rte_timer_manage() } {
            0 => Ok(()),
            code => Err(Error::call("run the timers of drivers", Errno::from_return(code))),
        }
    }

    /// Devices that DPDK has opened, by name.
    pub fn devices(&self) -> Vec<String> {
        device::names()
    }
}

/// DPDK's version, e.g. `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: a static string.
    unsafe { text(dpdk_sys::rte_version()) }
}

/// Cycles per second of the time stamp counter, once the EAL has measured it.
pub(super) fn tsc_hz() -> Option<u64> {
    // SAFETY: a plain read; 0 before the EAL is up.
    let hz = unsafe { dpdk_sys::rte_get_tsc_hz() };
    (hz > 0).then_some(hz)
}

/// `rte_eal_init` reorders the pointers and keeps the strings for the life of the process: both are leaked.
fn start(args: Vec<CString>) -> c_int {
    let count = args.len() as c_int;
    let mut pointers: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: `count` strings and a null after them, alive and writable for ever; called once (STARTED).
    unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) }
}

fn init_failed(errno: Errno, said: &[String]) -> Error {
    let error = Error::call("start DPDK (rte_eal_init)", errno);
    // What DPDK says of a virtual device whose name begins with no driver's.
    let no_driver = said.iter().any(|line| line.contains("parse device"));
    let said = tail(said);
    if said.is_empty() {
        return error;
    }
    let remedy = if no_driver {
        "; no driver has that name: [[port]] device is a PCI address, or a vdev such as net_af_packet0,iface=eth1"
    } else {
        ""
    };
    error.with_remedy(format!("DPDK says: {said}{remedy}"))
}

/// DPDK's last words. The very last line is often "Cannot probe devices"; the reason stands before it.
fn tail(said: &[String]) -> String {
    let start = said.len().saturating_sub(3);
    said.iter().skip(start).map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: plain read of a thread-local.
        let here = unsafe { dpdk_sys::sg_lcore_id() };
        for slot in self.ports.get_mut() {
            slot.close();
        }
        // SAFETY: no port, queue or pool handle is left, so nobody uses the rings.
        self.rings.get_mut().drain(..).for_each(|ring| unsafe { ring.free() });
        // Only a thread with an lcore number uses the caches of a pool, and DPDK counts an object as returned a moment
        // before it has written it there. Workers hold a handle while they run; so here, on the main lcore, nobody can
        // be in that moment.
        let quiet = here == self.main_lcore && self.pools.get_mut().iter().all(pool::Raw::is_full);
        if quiet {
            // SAFETY: S4, no handle is left and every buffer is back in its pool: nothing points into DPDK's memory.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
        self.runtime.remove();
    }
}

/// DPDK's directory for run-time files. `--no-shconf` keeps it empty, but it is made all the same.
#[derive(Debug)]
struct RuntimeDir {
    path: PathBuf,
    was_there: bool,
}

impl RuntimeDir {
    fn before(prefix: &str) -> Self {
        let path = Self::base().join(prefix);
        RuntimeDir { was_there: path.exists(), path }
    }

    /// As in DPDK: root has /var/run, others XDG_RUNTIME_DIR or /tmp.
    fn base() -> PathBuf {
        // SAFETY: no precondition.
        let root = unsafe { libc::getuid() } == 0;
        let parent = if root { None } else { std::env::var_os("XDG_RUNTIME_DIR") };
        let parent = parent.unwrap_or_else(|| if root { "/var/run".into() } else { "/tmp".into() });
        Path::new(&parent).join("dpdk")
    }

    /// Removes it if it was not there before; a failure leaves an empty directory and harms nobody. The one above it
    /// belongs to all processes that use DPDK and stays: another may be starting in it.
    fn remove(&self) {
        if !self.was_there {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A C string for DPDK; `what` names it in the error.
fn c_string(text: &str, what: &str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::Refused { what: format!("{what} {text:?} contains a zero byte"), remedy: None })
}

/// # Safety
/// `pointer` is null or a C string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
