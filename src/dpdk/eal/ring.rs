//! Two ports back to back: DPDK's `net_ring` driver over rings of ours.

use std::ptr::NonNull;

use dpdk_sys::{rte_mbuf, rte_ring};

use super::{Eal, c_string, port};
use crate::dpdk::{Errno, Error, Port};

/// A ring as DPDK names it.
#[derive(Debug)]
pub(super) struct Raw(NonNull<rte_ring>);

// SAFETY: only freed through this handle; its users are the ports, each end of which has one poller (S5).
unsafe impl Send for Raw {}

impl Raw {
    /// Frees the frames in it, and the ring.
    ///
    /// # Safety
    /// Nobody uses the ring.
    pub(super) unsafe fn free(self) {
        let mut objects = [std::ptr::null_mut(); 64];
        loop {
            // SAFETY: room for as many pointers as are asked for; the caller is the only user.
            let n = unsafe {
                dpdk_sys::sg_ring_dequeue(self.0.as_ptr(), objects.as_mut_ptr(), objects.len() as u32)
            };
            if n == 0 {
                break;
            }
            // SAFETY: net_ring puts mbufs in, and whoever takes one out owns it (S3).
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(objects.as_mut_ptr().cast::<*mut rte_mbuf>(), n) };
        }
        // SAFETY: empty and without users.
        unsafe { dpdk_sys::rte_ring_free(self.0.as_ptr()) };
    }
}

/// Two stopped ports of `queues` queue pairs each: what one sends on queue `i` the other receives on queue `i`.
///
/// Each direction of a queue holds `depth` frames (rounded up to a power of two, less one). Buffers are handed over, not
/// copied. Names are at most 8 bytes, so that the names of rings stay within DPDK's limit.
pub fn cross_connect(eal: &Eal, a: &str, b: &str, queues: u16, depth: u32) -> Result<(Port, Port), Error> {
    let mut there = Vec::with_capacity(queues.into());
    let mut back = Vec::with_capacity(queues.into());
    for queue in 0..queues {
        there.push(ring(eal, &format!("{a}_{b}_{queue}"), depth)?);
        back.push(ring(eal, &format!("{b}_{a}_{queue}"), depth)?);
    }
    Ok((from_rings(eal, a, &back, &there)?, from_rings(eal, b, &there, &back)?))
}

fn ring(eal: &Eal, name: &str, depth: u32) -> Result<*mut rte_ring, Error> {
    let c_name = c_string(name, "ring name")?;
    let flags = dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ;
    // SAFETY: a C string and numbers; DPDK checks them.
    let ring = unsafe {
        dpdk_sys::rte_ring_create(
            c_name.as_ptr(),
            depth.max(2).next_power_of_two(),
            dpdk_sys::SG_SOCKET_ANY,
            flags,
        )
    };
    let Some(ring) = NonNull::new(ring) else {
        // SAFETY: plain read of a thread-local.
        let errno = Errno(unsafe { dpdk_sys::sg_errno() });
        return Err(Error::call(format!("make ring {name} for {depth} frames"), errno));
    };
    eal.0.rings.lock().push(Raw(ring));
    Ok(ring.as_ptr())
}

fn from_rings(eal: &Eal, name: &str, rx: &[*mut rte_ring], tx: &[*mut rte_ring]) -> Result<Port, Error> {
    let c_name = c_string(name, "port name")?;
    // SAFETY: a C string and arrays of live rings with their lengths, which DPDK copies. The rings live until no port
    // is left (drop of the EAL).
    let id = unsafe {
        dpdk_sys::rte_eth_from_rings(
            c_name.as_ptr(),
            rx.as_ptr(),
            rx.len() as u32,
            tx.as_ptr(),
            tx.len() as u32,
            0,
        )
    };
    let Ok(id) = u16::try_from(id) else {
        // SAFETY: plain read of a thread-local.
        let errno = Errno(unsafe { dpdk_sys::sg_errno() });
        return Err(Error::call(format!("make port {name} of rings"), errno));
    };
    port::adopt(eal, id, &format!("net_ring_{name}")).map(Port::Eal)
}
