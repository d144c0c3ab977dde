//! Up to 64 frames on their way through one poll.

use arrayvec::ArrayVec;

use super::Mbuf;

/// Most frames that one poll handles: as many as a mask of 64 bits can name.
pub const BURST: usize = 64;

/// A fixed-capacity vector of frames. Dropping it frees them.
#[derive(Debug, Default)]
pub struct Burst(pub(super) ArrayVec<Mbuf, BURST>);

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without frames.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Room left.
    pub fn room(&self) -> usize {
        self.0.remaining_capacity()
    }

    /// Adds a frame; gives it back if there is no room.
    pub fn push(&mut self, frame: Mbuf) -> Result<(), Mbuf> {
        self.0.try_push(frame).map_err(|full| full.element())
    }

    /// The frames.
    #[inline(always)]
    pub fn as_slice(&self) -> &[Mbuf] {
        &self.0
    }

    /// The frames, to be changed in place.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        &mut self.0
    }

    /// Takes the frames out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Mbuf> + '_ {
        self.0.drain(..)
    }

    /// Frees every frame, in bulk where the pool can.
    pub fn free(&mut self) {
        super::mempool::free_bulk(&mut self.0);
    }

    /// Keeps the frames whose bit is set in `keep`, in order; the others move to `rest`, in order.
    ///
    /// `rest` must be empty; bits past the end are ignored.
    pub fn split(&mut self, keep: u64, rest: &mut Burst) {
        debug_assert!(rest.is_empty());
        let all = u64::MAX.checked_shr(64 - self.len() as u32).unwrap_or(0);
        if keep & all == all {
            return;
        }
        let mut kept: ArrayVec<Mbuf, BURST> = ArrayVec::new();
        for (i, frame) in self.0.drain(..).enumerate() {
            // Capacity: both hold BURST, and together they get at most BURST.
            let to = if keep >> i & 1 == 1 { &mut kept } else { &mut rest.0 };
            if let Err(full) = to.try_push(frame) {
                drop(full.element());
            }
        }
        self.0 = kept;
    }

    /// Drops every chained frame (S6). Says how many there were, and how many bytes the others have, which keep their order.
    #[inline]
    pub fn drop_chained(&mut self) -> (usize, u64) {
        // Without an early exit: chains are what a wrong data room brings, never one among many good frames.
        let look = |(odd, bytes), f: &Mbuf| (odd | (f.segments() ^ 1), bytes + f.len() as u64);
        let (odd, bytes) = self.0.iter().fold((0, 0), look);
        if odd == 0 {
            return (0, bytes);
        }
        let before = self.0.len();
        self.0.retain(|f| f.segments() == 1);
        (before - self.0.len(), self.0.iter().map(|f| f.len() as u64).sum())
    }
}
