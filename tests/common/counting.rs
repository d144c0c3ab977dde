//! The process's allocator, counting what one thread asks of it. A file of its own, since a test that has it has no other: `#[path = "common/counting.rs"] mod counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting.
struct Counting;

/// What a thread asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Memory, or more of it.
    pub allocations: u64,
    /// To take it back.
    pub frees: u64,
    /// Bytes that were asked for.
    pub bytes: u64,
}

thread_local! {
    static COUNT: Cell<Option<Calls>> = const { Cell::new(None) };
}

fn count(add: impl FnOnce(&mut Calls)) {
    // A thread that is ending has no counter any more, and is not polling.
    let _ = COUNT.try_with(|count| {
        if let Some(mut calls) = count.get() {
            add(&mut calls);
            count.set(Some(calls));
        }
    });
}

fn took(bytes: usize) {
    count(|calls| (calls.allocations, calls.bytes) = (calls.allocations + 1, calls.bytes + bytes as u64));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a plain thread-local and cannot allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's contract is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(|calls| calls.frees += 1);
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is asked of the allocator while `work` runs on this thread.
pub fn during(work: impl FnOnce()) -> Calls {
    COUNT.set(Some(Calls::default()));
    work();
    COUNT.replace(None).unwrap_or_default()
}
