//! Capabilities, taken away from every thread of the process.
//!
//! The kernel keeps them by thread, and a thread can only change its own; most of ours are not ours to start (the EAL's). So each is sent a signal
//! whose handler gives them up, as libpsx does, until `/proc` says that nobody has any left. There is no way back.

use std::fs;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Capabilities that a kernel can have.
const MOST: u64 = 63;
/// Looks at all threads before it is given up: each may have to come out of a system call first.
const ROUNDS: u32 = 500;
const NAP: Duration = Duration::from_millis(2);
/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// A bit for each that stays. Written before the first signal is sent.
static KEEP: AtomicU64 = AtomicU64::new(0);

/// What may stay, by the kernel's numbers (capability.h).
pub mod capability {
    /// Interfaces: up, down, promiscuous.
    pub const NET_ADMIN: u64 = 1 << 12;
    /// Memory that is locked beyond the limit: DMA.
    pub const IPC_LOCK: u64 = 1 << 14;
    /// Programs of the kernel's packet path.
    pub const BPF: u64 = 1 << 39;
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// All threads keep these capabilities, as far as they have them, and nobody in this process ever gets others or more rights by starting a
/// program (`no_new_privs`). Returns how many threads there are.
///
/// # Errors
///
/// In one sentence, if there is a thread that does not give them up.
pub fn keep_only(keep: u64) -> Result<usize, String> {
    KEEP.store(keep, Ordering::SeqCst);
    let signal = libc::SIGRTMAX() - 1;
    // SAFETY: an all-zero action is valid; the handler calls system calls only, and saves errno.
    let installed = unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = give_up_on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, null_mut())
    };
    if installed != 0 {
        return Err(format!("signal {signal}: {}", std::io::Error::last_os_error()));
    }
    give_up();
    let process = std::process::id() as i32;
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        let threads = threads()?;
        left = threads.iter().filter(|thread| has_more(thread, keep)).cloned().collect();
        if left.is_empty() {
            return Ok(threads.len());
        }
        for thread in left.iter().filter_map(|thread| thread.parse::<i32>().ok()) {
            // SAFETY: no memory is involved; a thread that is gone is an error that does not matter.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
        }
        std::thread::sleep(NAP);
    }
    let name = |thread: &String| fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok();
    let names: Vec<String> = left.iter().filter_map(name).map(|name| name.trim().to_owned()).collect();
    Err(format!("threads that do not give up their capabilities: {}", names.join(", ")))
}

fn threads() -> Result<Vec<String>, String> {
    let entries = fs::read_dir("/proc/self/task").map_err(|error| format!("/proc/self/task: {error}"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Has a thread more than these? One that is gone has not.
fn has_more(thread: &str, keep: u64) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/self/task/{thread}/status")) else { return false };
    let value = |name: &str| {
        let text = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let has = ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"]
        .into_iter()
        .filter_map(value)
        .fold(0, |all, one| all | one);
    has & !keep != 0 || value("NoNewPrivs:") == Some(0)
}

extern "C" fn give_up_on_signal(_: libc::c_int) {
    // SAFETY: this thread's errno, which whoever was interrupted may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    give_up();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// For the calling thread. Nothing but system calls: it runs in a signal handler. What the kernel refuses stays, and is seen by [`has_more`].
fn give_up() {
    let keep = KEEP.load(Ordering::SeqCst);
    let (mut header, mut data) = (Header { version: VERSION, pid: 0 }, [Data::default(); 2]);
    // SAFETY: header and data have the layout of `capget(2)` in its third version, and outlive the calls; prctl takes numbers.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for capability in (0..=MOST).filter(|capability| keep >> capability & 1 == 0) {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        if libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) != 0 {
            return;
        }
        let words = [keep as u32, (keep >> 32) as u32];
        for (data, keep) in data.iter_mut().zip(words) {
            data.permitted &= keep;
            data.effective = data.permitted;
            data.inheritable = 0;
        }
        libc::syscall(libc::SYS_capset, &header, data.as_ptr());
    }
}
