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

/// A bit for each of eight numbers that is this one. Seven instructions on x86-64, where a loop over them becomes thirty.
#[inline(always)]
pub fn matching(numbers: &[u16; 8], this: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE2, and a load that need not be aligned reads the 16 bytes of the array.
    unsafe {
        use std::arch::x86_64::*;
        let same = _mm_cmpeq_epi16(_mm_loadu_si128(numbers.as_ptr().cast()), _mm_set1_epi16(this as i16));
        _mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128())) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    numbers.iter().rev().fold(0, |found, &number| found << 1 | u32::from(number == this))
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
