//! The longest of many IPv4 prefixes, by `rte_fib` (DIR24_8): one access to memory for each address, or two if it lies in a prefix longer than 24 bits.
//!
//! Routes are put in once ([`Fib::build`], a second for a million); after that the table never changes, and any number of threads may ask it at
//! once. It lives in EAL memory: 64 MB, 1 kB for each /24 that has longer prefixes in it, and what DPDK keeps of the routes themselves.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys as sys;

use super::eal::Eal;
use super::{Errno, Error};

/// Largest answer: DIR24_8 with words of 32 bits keeps one of them for itself.
pub const MOST: u32 = u32::MAX >> 1;

/// Addresses that are asked at a time.
const CHUNK: usize = 64;

/// The table of the first 24 bits.
const FIRST: u64 = 4 << 24;
/// One of the tables of the last 8.
const LAST: u64 = 4 << 8;
/// What is kept of a route, measured: two nodes of a tree, each an object of a mempool with its place in the ring.
const ROUTE: u64 = 2 * 208;
/// Pools, rings and what allocation wastes at page boundaries.
const BESIDE: u64 = 8 << 20;

/// A prefix and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix, in host order; bits behind its length are zero.
    pub prefix: u32,
    /// Bits of it, 1 to 32.
    pub len: u8,
    /// What [`Fib::lookup`] answers, up to [`MOST`].
    pub answer: u32,
}

/// Prefixes, to be asked.
#[derive(Debug)]
pub struct Fib {
    /// Keeps the memory that it lives in (S4).
    _eal: Eal,
    fib: NonNull<sys::rte_fib>,
}

// SAFETY: after `build` nothing changes the table; lookups only read it, and freeing is not bound to a thread.
unsafe impl Send for Fib {}
// SAFETY: as above; DPDK documents concurrent lookups.
unsafe impl Sync for Fib {}

/// An upper estimate of the EAL memory that so many routes need, of which some lie in `longer` different /24 and are longer than that.
pub fn memory(routes: u64, longer: u64) -> u64 {
    if routes == 0 { 0 } else { FIRST + (longer + 2) * LAST + routes * ROUTE + BESIDE }
}

/// How many /24 have prefixes in them that are longer. Routes come in the order of their prefixes.
pub fn longer(routes: impl Iterator<Item = (u32, u8)>) -> u64 {
    let (mut last, mut count) = (None, 0);
    for (prefix, _) in routes.filter(|(_, len)| *len > 24) {
        if last != Some(prefix >> 8) {
            (last, count) = (Some(prefix >> 8), count + 1);
        }
    }
    count
}

impl Fib {
    /// A table of these routes, in the order of their prefixes, each once; `default` is the answer for addresses in none of them.
    ///
    /// Fails without an EAL, and, with a remedy, if its memory does not suffice.
    pub fn build(routes: &[Route], default: u32) -> Result<Self, Error> {
        let fits = |route: &Route| (1..=32).contains(&route.len) && route.answer <= MOST;
        if default > MOST || !routes.iter().all(fits) {
            let what = "a prefix without bits, or an answer that is too large";
            return Err(Error::refused(what, "this is a mistake in the program"));
        }
        let fib = Self::create(routes, default)?;
        for Route { prefix, len, answer } in routes {
            // SAFETY: the table is alive and only ours.
            let code = unsafe { sys::rte_fib_add(fib.fib.as_ptr(), *prefix, *len, u64::from(*answer)) };
            if code != 0 {
                return Err(failed(Errno::from_return(code), routes.len(), "put a prefix into"));
            }
        }
        Ok(fib)
    }

    fn create(routes: &[Route], default: u32) -> Result<Self, Error> {
        let eal = Eal::running().ok_or_else(|| {
            Error::refused(
                "rte_fib needs a running EAL",
                "start it first; without one prefixes can be tried in turn",
            )
        })?;
        // A name that exists would give us an error; of it and "MP_" DPDK makes the name of a mempool, which has 25 characters.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("sg-fib-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap_or_default(); // has no NUL
        let longer = longer(routes.iter().map(|route| (route.prefix, route.len)));
        let mut conf = sys::rte_fib_conf {
            type_: sys::RTE_FIB_DIR24_8,
            default_nh: default.into(),
            max_routes: i32::try_from(routes.len() + 1).unwrap_or(i32::MAX),
            ..Default::default()
        };
        conf.__bindgen_anon_1.dir24_8.nh_sz = sys::RTE_FIB_DIR24_8_4B;
        // One is DPDK's own.
        conf.__bindgen_anon_1.dir24_8.num_tbl8 = u32::try_from(longer + 2).unwrap_or(u32::MAX);
        // SAFETY: the EAL runs; name and configuration live through the call, which copies them.
        let fib = unsafe { sys::rte_fib_create(name.as_ptr(), sys::SG_SOCKET_ANY, &mut conf) };
        match NonNull::new(fib) {
            Some(fib) => Ok(Fib { _eal: eal, fib }),
            // SAFETY: reads the calling thread's errno.
            None => Err(failed(Errno(unsafe { sys::sg_errno() }), routes.len(), "make")),
        }
    }

    /// The answers for addresses in host order. Addresses and answers that have no counterpart are left alone.
    #[inline]
    pub fn lookup(&self, addresses: &[u32], answers: &mut [u32]) {
        for (addresses, answers) in addresses.chunks(CHUNK).zip(answers.chunks_mut(CHUNK)) {
            let count = addresses.len().min(answers.len());
            let (mut ips, mut found) = ([0u32; CHUNK], [0u64; CHUNK]);
            for (ip, address) in ips.iter_mut().zip(addresses) {
                *ip = *address;
            }
            // SAFETY: the table is alive and nobody changes it; both arrays hold `count` numbers and more.
            let code = unsafe {
                sys::rte_fib_lookup_bulk(
                    self.fib.as_ptr(),
                    ips.as_mut_ptr(),
                    found.as_mut_ptr(),
                    count as i32, // at most CHUNK
                )
            };
            // It refuses only a table or arrays that are not there.
            debug_assert_eq!(code, 0);
            for (answer, found) in answers.iter_mut().zip(found) {
                *answer = found as u32; // at most MOST
            }
        }
    }
}

impl Drop for Fib {
    fn drop(&mut self) {
        // SAFETY: made by `create`, freed once; the EAL still runs (`_eal`, S4).
        unsafe { sys::rte_fib_free(self.fib.as_ptr()) }
    }
}

fn failed(errno: Errno, routes: usize, action: &str) -> Error {
    let error = Error::call(format!("{action} a table of {routes} prefixes"), errno);
    if matches!(errno.0, libc::ENOMEM | libc::ENOSPC) {
        error.with_remedy("raise memory_mb under [eal]")
    } else {
        error
    }
}
