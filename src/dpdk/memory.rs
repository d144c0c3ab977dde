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

/// Bytes to be recognised: those under the mask have this value. `N` is a multiple of 16.
#[derive(Clone, Debug)]
#[repr(align(16))]
pub struct Pattern<const N: usize> {
    /// Bits that matter.
    pub mask: [u8; N],
    /// What they are; zero where the mask is.
    pub value: [u8; N],
}

impl<const N: usize> Pattern<N> {
    /// Do the bytes fit? Four instructions for 16 of them on x86-64, and one branch for all, where words are compared one by one.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn fits(&self, bytes: &[u8; N]) -> bool {
        use std::arch::x86_64::*;
        const { assert!(N.is_multiple_of(16)) };
        // SAFETY: every x86-64 has SSE2; loads that need not be aligned read 16 bytes at multiples of 16 below N, within all three arrays.
        unsafe {
            let load = |from: &[u8; N], at: usize| _mm_loadu_si128(from.as_ptr().add(at).cast());
            let mut differs = _mm_setzero_si128();
            for at in (0..N).step_by(16) {
                let masked = _mm_and_si128(load(bytes, at), load(&self.mask, at));
                differs = _mm_or_si128(differs, _mm_xor_si128(masked, load(&self.value, at)));
            }
            _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xffff
        }
    }

    /// Do the bytes fit?
    #[cfg(not(target_arch = "x86_64"))]
    pub fn fits(&self, bytes: &[u8; N]) -> bool {
        bytes.iter().zip(&self.mask).zip(&self.value).fold(0, |all, ((b, m), v)| all | (b & m ^ v)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bit of every byte, under a mask and outside of it.
    #[test]
    fn a_pattern_fits_what_its_mask_leaves() {
        let mut pattern = Pattern { mask: [0u8; 48], value: [0; 48] };
        let mut bytes = [0u8; 48];
        for (n, ((mask, value), byte)) in
            pattern.mask.iter_mut().zip(&mut pattern.value).zip(&mut bytes).enumerate()
        {
            *byte = (n as u8).wrapping_mul(37) ^ 0x5a;
            *mask = (n as u8).wrapping_mul(91) ^ 0x33;
            *value = *byte & *mask;
        }
        assert!(pattern.fits(&bytes));
        for bit in 0..48 * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(pattern.fits(&other), pattern.mask[bit / 8] >> (bit % 8) & 1 == 0, "bit {bit}");
        }
    }

    #[test]
    fn matching_finds_each_place() {
        for place in 0..8 {
            let mut numbers = [7u16; 8];
            numbers[place] = 0xfffe;
            assert_eq!(matching(&numbers, 0xfffe), 1 << place);
            assert_eq!(matching(&numbers, 7), 0xff & !(1 << place));
        }
    }
}
