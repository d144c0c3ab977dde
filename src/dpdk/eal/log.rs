//! DPDK's log: kept in a file without a name while it starts (for the error, if it fails), on stderr afterwards.

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

/// The log of a start.
pub(super) struct Capture(*mut libc::FILE);

impl Capture {
    /// From here on DPDK's lines are kept. If no file can be made they go where DPDK sends them.
    pub(super) fn start() -> Self {
        // SAFETY: no precondition; null on failure.
        let stream = unsafe { libc::tmpfile() };
        if !stream.is_null() {
            // SAFETY: an open stream, never closed: another thread of DPDK may be writing when it is replaced.
            unsafe { dpdk_sys::rte_openlog_stream(stream.cast()) };
        }
        Capture(stream)
    }

    /// Sends DPDK's lines to stderr again and returns those kept.
    pub(super) fn finish(self) -> Vec<String> {
        // SAFETY: duplicates a descriptor and makes a stream of it; a null stream means "DPDK's default" to DPDK.
        unsafe {
            let stderr = libc::fdopen(libc::dup(libc::STDERR_FILENO), c"w".as_ptr());
            if !stderr.is_null() {
                libc::setvbuf(stderr, std::ptr::null_mut(), libc::_IOLBF, 1024);
            }
            dpdk_sys::rte_openlog_stream(stderr.cast());
        }
        let mut kept = String::new();
        if !self.0.is_null() {
            // SAFETY: an open stream; the descriptor is a duplicate of its own.
            let copy = unsafe {
                libc::fflush(self.0);
                libc::rewind(self.0);
                libc::dup(libc::fileno(self.0))
            };
            if copy >= 0 {
                // SAFETY: just duplicated, owned by nobody else.
                let _ = unsafe { File::from_raw_fd(copy) }.read_to_string(&mut kept);
            }
        }
        kept.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect()
    }
}
