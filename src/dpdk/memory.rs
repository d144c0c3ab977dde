//! Large tables, and asking the cache for their lines.

/// `n` values in one piece, on huge pages if the kernel gives them to who asks (`transparent_hugepage` = madvise or always).
/// Everything is written here, so nothing faults later.
pub fn huge<T>(n: usize, mut value: impl FnMut() -> T) -> Box<[T]> {
    let mut table: Vec<T> = Vec::with_capacity(n);
    advise(table.spare_capacity_mut());
    table.extend((0..n).map(|_| value()));
    table.into_boxed_slice()
}

/// Asks for huge pages under memory that holds nothing yet. Small tables gain nothing and are left alone.
fn advise<T>(room: &mut [std::mem::MaybeUninit<T>]) {
    const HUGE: usize = 2 << 20;
    let (start, bytes) = (room.as_mut_ptr().addr(), std::mem::size_of_val(room));
    if bytes < 2 * HUGE {
        return;
    }
    let first = start.next_multiple_of(4096);
    // SAFETY: the range lies inside memory that `room` borrows exclusively. The advice changes the size of its pages, not what is in it.
    unsafe {
        libc::madvise(
            room.as_mut_ptr().cast::<u8>().add(first - start).cast(),
            bytes - (first - start),
            libc::MADV_HUGEPAGE,
        );
    }
}

/// Asks the cache for the line on which a value starts. No effect on any answer.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetch has no architectural effect, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
