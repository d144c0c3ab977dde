//! Pools of DPDK. They live as long as the EAL (S4).

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use arrayvec::ArrayVec;
use dpdk_sys::rte_mempool;

use super::{Eal, c_string};
use crate::dpdk::raw::{HEADER, HEADROOM, Header};
use crate::dpdk::{BURST, Errno, Error, Mbuf, PoolConfig};

/// A pool as DPDK names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw(NonNull<rte_mempool>);

// SAFETY: an rte_mempool may be used by any thread: its ring or stack takes several producers and consumers.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    /// Every buffer is in it.
    pub(super) fn is_full(&self) -> bool {
        // SAFETY: S4.
        unsafe {
            dpdk_sys::rte_mempool_avail_count(self.0.as_ptr()) == dpdk_sys::sg_mempool_size(self.0.as_ptr())
        }
    }
}

/// A pool of DPDK. Clones are handles to the same pool.
#[derive(Clone, Debug)]
pub struct EalPool {
    raw: Raw,
    eal: Eal,
}

pub(super) fn create(eal: &Eal, config: &PoolConfig) -> Result<EalPool, Error> {
    let action =
        || format!("make pool {} ({} buffers of {} B)", config.name, config.buffers, config.data_room);
    let limit = dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE.min(config.buffers / 3 * 2);
    if config.cache > limit {
        return Err(Error::refused(
            format!("{}: a cache of {} buffers per lcore is too large", action(), config.cache),
            format!(
                "at most {limit} (DPDK: {} and two thirds of the pool)",
                dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE
            ),
        ));
    }
    let Some(room) = config.data_room.checked_add(HEADROOM as u16) else {
        let most = u16::MAX as usize - HEADROOM;
        return Err(Error::refused(
            format!("{}: the buffers are too large", action()),
            format!("at most {most} B"),
        ));
    };
    let name = c_string(&config.name, "pool name")?;
    let node = config.numa.map_or(dpdk_sys::SG_SOCKET_ANY, |node| node as c_int);
    let pool = last_in_first_out(&name, config, room, node).unwrap_or_else(|| {
        // SAFETY: a C string and numbers; DPDK checks them.
        unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), config.buffers, config.cache, 0, room, node)
        }
    });
    let Some(pool) = NonNull::new(pool) else {
        // SAFETY: plain read of a thread-local.
        let errno = Errno(unsafe { dpdk_sys::sg_errno() });
        let error = Error::call(action(), errno);
        return Err(if errno.0 == libc::ENOMEM {
            let mb = eal.memory().mb;
            error.with_remedy(format!(
                "it needs about {} MB and the EAL has {mb} MB in all: raise [eal] memory_mb, or ask for fewer or \
                 smaller buffers",
                bytes(config).div_ceil(1 << 20)
            ))
        } else {
            error
        });
    };
    let raw = Raw(pool);
    eal.0.pools.lock().push(raw);
    Ok(EalPool { raw, eal: eal.clone() })
}

/// A pool whose free buffers lie in a stack: what was given back last is taken first, so its lines are still in somebody's cache. In a ring, DPDK's
/// default, every buffer of the pool goes round where one worker receives what another gives back. None if DPDK has no such driver here
/// (`librte_mempool_stack`), or was told which to use (`--mbuf-pool-ops-name`).
fn last_in_first_out(name: &CStr, config: &PoolConfig, room: u16, node: c_int) -> Option<*mut rte_mempool> {
    // SAFETY: reads a memzone, which an initialised EAL may or may not have.
    if !unsafe { dpdk_sys::rte_mbuf_user_mempool_ops() }.is_null() {
        return None;
    }
    let (name, buffers, cache) = (name.as_ptr(), config.buffers, config.cache);
    // SAFETY: C strings and numbers; DPDK checks them.
    let pool = unsafe {
        dpdk_sys::rte_pktmbuf_pool_create_by_ops(name, buffers, cache, 0, room, node, c"stack".as_ptr())
    };
    // SAFETY: plain read of a thread-local.
    let unknown = pool.is_null() && unsafe { dpdk_sys::sg_errno() } == libc::EINVAL;
    (!unknown).then_some(pool)
}

/// What a pool takes: for each buffer DPDK's object header of one line, the mbuf, headroom and room, in whole lines.
fn bytes(config: &PoolConfig) -> u64 {
    let object = 64 + (HEADER + HEADROOM + config.data_room as usize).next_multiple_of(64) as u64;
    // The ring of free objects, and the header of the pool with one cache per possible lcore.
    let ring = u64::from(config.buffers).next_power_of_two() * 8;
    u64::from(config.buffers) * object + ring + 2 * 1024 * 1024
}

impl EalPool {
    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.0.as_ptr()
    }

    /// The EAL it belongs to.
    pub fn eal(&self) -> &Eal {
        &self.eal
    }

    #[inline]
    pub(in crate::dpdk) fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: S4, the pool is alive.
        let header = NonNull::new(unsafe { dpdk_sys::sg_pktmbuf_alloc(self.as_ptr()) })?;
        // SAFETY: S1; S2, DPDK's memory was zeroed by the kernel and rte_pktmbuf_alloc reset the fields; S3, just taken
        // out of the pool.
        Some(unsafe { Mbuf::from_raw(header.cast::<Header>()) })
    }

    pub(in crate::dpdk) fn capacity(&self) -> u32 {
        // SAFETY: S4.
        unsafe { dpdk_sys::sg_mempool_size(self.as_ptr()) }
    }

    pub(in crate::dpdk) fn available(&self) -> u32 {
        // SAFETY: S4.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    pub(in crate::dpdk) fn data_room(&self) -> u16 {
        // SAFETY: S4. DPDK's figure includes the headroom that `create` added.
        unsafe { dpdk_sys::sg_pktmbuf_data_room(self.as_ptr()) - HEADROOM as u16 }
    }
}

/// Returns one buffer to its pool.
///
/// # Safety
/// The caller owns the buffer (S3), does not use it again, and it is of an EAL pool.
#[inline]
pub(in crate::dpdk) unsafe fn free(header: NonNull<Header>) {
    // SAFETY: the caller's promise, and S4.
    unsafe { dpdk_sys::sg_pktmbuf_free(header.as_ptr().cast()) }
}

/// Returns buffers of EAL pools, in bulk where they are of the same one.
#[inline]
pub(in crate::dpdk) fn free_bulk(frames: &mut ArrayVec<Mbuf, BURST>) {
    let count = frames.len();
    // SAFETY: S3, the vector owns them; its length is zero before they are freed, so nobody frees them again. `Mbuf` is
    // a transparent pointer. The caller has seen that none is soft.
    unsafe {
        frames.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(frames.as_mut_ptr().cast(), count as u32);
    }
}
