//! Asking the cache for a line before it is needed. No effect on any answer.

/// Asks for the cache line in which `it` begins.
#[inline(always)]
pub fn prefetch_line<T>(it: &T) {
    prefetch(std::ptr::from_ref(it).cast());
}

/// Asks for the first lines of one value of many, without looking whether there is such a one.
#[inline(always)]
pub fn prefetch_nth<const LINES: usize, T>(values: &[T], n: usize) {
    for line in 0..LINES {
        prefetch(values.as_ptr().wrapping_add(n).cast::<u8>().wrapping_add(64 * line));
    }
}

/// Asks for the cache line in which `it` begins, in order to write to it: nobody else keeps a copy.
#[inline(always)]
pub fn prefetch_line_to_write<T>(it: &T) {
    prefetch_to_write(std::ptr::from_ref(it).cast());
}

#[inline(always)]
pub(super) fn prefetch_to_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetch has no architectural effect, whatever the address; a CPU that does not know this one does nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetch has no architectural effect, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
