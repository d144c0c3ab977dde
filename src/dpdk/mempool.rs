//! Where buffers come from and go back to.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::raw::{HEADER, HEADROOM, Header, SOFT};
use super::{BURST, Mbuf};

/// What a pool should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Name, unique in the process.
    pub name: String,
    /// Buffers.
    pub buffers: u32,
    /// Bytes for a frame in each buffer, headroom not included.
    pub data_room: u16,
    /// Buffers that each lcore may keep in its own cache.
    pub cache: u32,
    /// NUMA node, or `None` for any.
    pub numa: Option<u32>,
}

/// A pool of buffers of one size. Clones are handles to the same pool.
#[derive(Clone)]
pub enum Mempool {
    /// Buffers on the heap.
    Soft(SoftPool),
    /// An `rte_mempool`.
    #[cfg(feature = "dpdk")]
    Eal(super::eal::EalPool),
}

impl Mempool {
    /// A pool on the heap.
    pub fn soft(config: &PoolConfig) -> Self {
        Mempool::Soft(SoftPool::new(config))
    }

    /// One empty frame (headroom in front), or `None` when the pool is exhausted.
    pub fn alloc(&self) -> Option<Mbuf> {
        match self {
            Mempool::Soft(pool) => pool.alloc(),
            #[cfg(feature = "dpdk")]
            Mempool::Eal(pool) => pool.alloc(),
        }
    }

    /// Buffers in the pool, out ones included.
    pub fn capacity(&self) -> u32 {
        match self {
            Mempool::Soft(pool) => pool.0.count as u32,
            #[cfg(feature = "dpdk")]
            Mempool::Eal(pool) => pool.capacity(),
        }
    }

    /// Buffers that could be allocated now, lcore caches included. Exact only while nobody allocates or frees.
    pub fn available(&self) -> u32 {
        match self {
            Mempool::Soft(pool) => pool.0.free.len() as u32,
            #[cfg(feature = "dpdk")]
            Mempool::Eal(pool) => pool.available(),
        }
    }

    /// Bytes for a frame in each buffer, headroom not included.
    pub fn data_room(&self) -> u16 {
        match self {
            Mempool::Soft(pool) => pool.0.data_room,
            #[cfg(feature = "dpdk")]
            Mempool::Eal(pool) => pool.data_room(),
        }
    }
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mempool({} of {} x {} B)", self.available(), self.capacity(), self.data_room())
    }
}

/// A pool on the heap. It lives until the last handle and the last buffer are gone (S4).
#[derive(Clone)]
pub struct SoftPool(Arc<Inner>);

#[repr(align(64))]
struct Inner {
    slab: NonNull<u8>,
    layout: Layout,
    stride: usize,
    count: usize,
    data_room: u16,
    free: ArrayQueue<u32>,
}

// SAFETY: `slab` is only reached through buffers, each of which has one owner (S3); the free list is a thread-safe queue.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl SoftPool {
    fn new(config: &PoolConfig) -> Self {
        let data_room = config.data_room.min(u16::MAX - HEADROOM as u16);
        let count = config.buffers.max(1) as usize;
        let stride = (HEADER + HEADROOM + data_room as usize).next_multiple_of(64);
        let Ok(layout) = Layout::from_size_align(stride * count, 64) else {
            handle_alloc_error(Layout::new::<Header>())
        };
        // SAFETY: the size is not zero (count and stride are at least 1).
        let slab = unsafe { alloc_zeroed(layout) };
        let Some(slab) = NonNull::new(slab) else { handle_alloc_error(layout) };
        let free = ArrayQueue::new(count);
        for i in 0..count as u32 {
            let _ = free.push(i); // capacity is count
        }
        SoftPool(Arc::new(Inner { slab, layout, stride, count, data_room, free }))
    }

    fn alloc(&self) -> Option<Mbuf> {
        let index = self.0.free.pop()? as usize;
        // SAFETY: index < count, so the buffer lies inside the slab; stride and slab are 64-byte aligned.
        let header: NonNull<Header> = unsafe { self.0.slab.add(index * self.0.stride) }.cast();
        let inner = Arc::as_ptr(&self.0);
        // SAFETY: the buffer is free (popped from the list), so nobody else refers to it; all-zero bytes are a valid
        // Header, and the fields that S2 speaks of are set here. The strong count taken here is given back by `free`.
        unsafe {
            let h = &mut *header.as_ptr();
            h.buf_addr = header.as_ptr().cast::<u8>().add(HEADER);
            h.buf_len = HEADROOM as u16 + self.0.data_room;
            h.data_off = HEADROOM as u16;
            h.data_len = 0;
            h.pkt_len = 0;
            h.refcnt = 1;
            h.nb_segs = 1;
            h.port = u16::MAX;
            h.ol_flags = 0;
            h.packet_type = 0;
            h.tx_offload = 0;
            h.next = std::ptr::null_mut();
            h.pool = inner.map_addr(|a| a | SOFT).cast_mut().cast();
            Arc::increment_strong_count(inner);
            Some(Mbuf::from_raw(header))
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; every buffer holds a strong count, so none is out.
        unsafe { dealloc(self.slab.as_ptr(), self.layout) }
    }
}

/// Returns one buffer to its pool.
///
/// # Safety
/// The caller owns the buffer (S3) and does not use it again.
#[inline]
pub(super) unsafe fn free(header: NonNull<Header>) {
    // SAFETY: alive until it is back in its pool.
    let pool = unsafe { (*header.as_ptr()).pool };
    if pool.addr() & SOFT != 0 {
        // SAFETY: SOFT marks a pointer made by `SoftPool::alloc`, which took a strong count for this buffer.
        unsafe { free_soft(header, pool.map_addr(|a| a & !SOFT).cast::<Inner>()) }
    } else {
        #[cfg(feature = "dpdk")]
        // SAFETY: an unmarked pool is an rte_mempool; the caller owns the buffer.
        unsafe {
            super::eal::free(header)
        }
    }
}

/// # Safety
/// `inner` is the pool of `header`, and the caller owns the buffer.
unsafe fn free_soft(header: NonNull<Header>, inner: *const Inner) {
    // SAFETY: the strong count of this buffer keeps the pool alive until the decrement below.
    unsafe {
        let pool = &*inner;
        let index = (header.as_ptr().addr() - pool.slab.as_ptr().addr()) / pool.stride;
        let _ = pool.free.push(index as u32); // capacity is count, and this buffer was out
        Arc::decrement_strong_count(inner);
    }
}

/// Frees all frames of a burst, with one call into DPDK per run of EAL buffers.
pub(super) fn free_bulk(frames: &mut arrayvec::ArrayVec<Mbuf, BURST>) {
    #[cfg(feature = "dpdk")]
    if frames.first().is_some_and(|f| !f.is_soft()) && frames.iter().all(|f| !f.is_soft()) {
        super::eal::free_bulk(frames);
        return;
    }
    frames.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(buffers: u32) -> Mempool {
        Mempool::soft(&PoolConfig { name: "t".into(), buffers, data_room: 256, cache: 0, numa: None })
    }

    #[test]
    fn every_buffer_comes_back_once() {
        let pool = pool(3);
        let frames: Vec<_> = (0..3).map_while(|_| pool.alloc()).collect();
        assert_eq!((frames.len(), pool.available()), (3, 0));
        assert!(pool.alloc().is_none());
        drop(frames);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn a_buffer_outlives_its_pool_handle() {
        let pool = pool(1);
        let mut frame = pool.alloc().unwrap();
        drop(pool);
        assert!(frame.write(b"still here"));
        assert_eq!(frame.data(), b"still here");
    }

    #[test]
    fn frames_grow_and_shrink_within_their_room() {
        let pool = pool(1);
        let mut frame = pool.alloc().unwrap();
        assert!(!frame.write(&[0; 257]));
        assert!(frame.write(&[7; 250]));
        assert_eq!(frame.tailroom(), 6);
        assert!(frame.append(7).is_none());
        frame.append(6).unwrap().fill(9);
        assert_eq!(frame.data()[249..252], [7, 9, 9]);
        frame.truncate(10);
        frame.truncate(99);
        assert_eq!(frame.len(), 10);
    }

    #[test]
    fn frames_grow_and_shrink_at_their_front() {
        let pool = pool(1);
        let mut frame = pool.alloc().unwrap();
        assert!(frame.write(&[1, 2, 3, 4]));
        assert_eq!(frame.headroom(), HEADROOM);
        assert!(frame.prepend(HEADROOM + 1).is_none());
        assert_eq!((frame.data(), frame.headroom()), (&[1, 2, 3, 4][..], HEADROOM));
        frame.prepend(2).unwrap().copy_from_slice(&[8, 9]);
        assert_eq!((frame.data(), frame.headroom()), (&[8, 9, 1, 2, 3, 4][..], HEADROOM - 2));
        frame.cut_front(3);
        assert_eq!((frame.data(), frame.headroom()), (&[2, 3, 4][..], HEADROOM + 1));
        assert_eq!(frame.prepend(HEADROOM + 1).map(|bytes| bytes.len()), Some(HEADROOM + 1), "all of it");
        frame.cut_front(usize::MAX);
        assert!(frame.is_empty());
        let all = frame.headroom() + frame.tailroom();
        assert_eq!(all, HEADROOM + 256, "nothing is lost");
        assert_eq!(frame.prepend(frame.headroom()).map(|bytes| bytes.len()), Some(HEADROOM + 4));
    }

    #[test]
    fn chained_frames_are_dropped_whole() {
        let pool = pool(3);
        let mut burst = super::super::Burst::new();
        for i in 0..3u8 {
            let mut f = pool.alloc().unwrap();
            f.write(&[i]);
            f.set_segments(if i == 1 { 2 } else { 1 });
            burst.push(f).unwrap();
        }
        assert_eq!(burst.drop_chained().0, 1);
        assert_eq!(burst.as_slice().iter().map(|f| f.data()[0]).collect::<Vec<_>>(), [0, 2]);
    }
}
