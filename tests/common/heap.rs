//! The system's allocator, keeping the sum of what is lent.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes on loan.
pub struct Heap(AtomicI64);

impl Heap {
    /// None so far.
    pub const fn new() -> Heap {
        Heap(AtomicI64::new(0))
    }

    /// Now.
    pub fn bytes(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn lent(&self, bytes: usize, given: bool) {
        self.0.fetch_add(if given { bytes as i64 } else { 0 }, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches one word and cannot allocate.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let given = unsafe { System.alloc(layout) };
        self.lent(layout.size(), !given.is_null());
        given
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let given = unsafe { System.alloc_zeroed(layout) };
        self.lent(layout.size(), !given.is_null());
        given
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let given = unsafe { System.realloc(old, layout, size) };
        if !given.is_null() {
            self.0.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        }
        given
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}
