//! A set of slots of a batch: one bit each.

/// Slots of a batch, at most 64.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Mask(pub u64);

impl Mask {
    /// No slot.
    pub const NONE: Mask = Mask(0);

    /// The first `n` slots (`n` at most 64).
    #[inline(always)]
    pub fn first(n: usize) -> Self {
        Mask(u64::MAX.checked_shr(64u32.saturating_sub(n as u32)).unwrap_or(0))
    }

    /// One slot.
    #[inline(always)]
    pub fn one(slot: usize) -> Self {
        Mask(1 << (slot & 63))
    }

    /// Is the slot in the set?
    #[inline(always)]
    pub fn has(self, slot: usize) -> bool {
        self.0 >> (slot & 63) & 1 == 1
    }

    /// Adds a slot.
    #[inline(always)]
    pub fn insert(&mut self, slot: usize) {
        self.0 |= 1 << (slot & 63);
    }

    /// Takes a slot out.
    #[inline(always)]
    pub fn remove(&mut self, slot: usize) {
        self.0 &= !(1 << (slot & 63));
    }

    /// How many slots.
    #[inline(always)]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// True without slots.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Slots that are here and not in `other`.
    #[inline(always)]
    pub fn without(self, other: Mask) -> Mask {
        Mask(self.0 & !other.0)
    }

    /// Without its first slot. Two instructions, where [`Self::remove`] takes four.
    #[inline(always)]
    pub fn rest(self) -> Mask {
        Mask(self.0 & self.0.wrapping_sub(1))
    }

    /// The slots in order.
    #[inline(always)]
    pub fn iter(self) -> Slots {
        Slots(self.0)
    }
}

impl std::ops::BitAnd for Mask {
    type Output = Mask;
    #[inline(always)]
    fn bitand(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }
}

impl std::ops::BitOr for Mask {
    type Output = Mask;
    #[inline(always)]
    fn bitor(self, other: Mask) -> Mask {
        Mask(self.0 | other.0)
    }
}

impl IntoIterator for Mask {
    type Item = usize;
    type IntoIter = Slots;
    #[inline(always)]
    fn into_iter(self) -> Slots {
        self.iter()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The slots of a [`Mask`], in order.
#[derive(Clone, Debug)]
pub struct Slots(u64);

impl Iterator for Slots {
    type Item = usize;
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_covers_the_ends() {
        assert_eq!([Mask::first(0).0, Mask::first(1).0, Mask::first(64).0], [0, 1, u64::MAX]);
    }

    #[test]
    fn slots_come_in_order() {
        let mask = Mask::one(63) | Mask::one(0) | Mask::one(7);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 7, 63]);
        assert_eq!(mask.without(Mask::one(7)).count(), 2);
    }
}
