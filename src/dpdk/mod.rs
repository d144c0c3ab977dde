//! The fence: buffers, bursts, queues, ports and classifiers. All unsafe code of the crate is here.
//!
//! Every type has two bodies: one over DPDK (feature `dpdk`) and one on the heap ([`soft`]), with the same names
//! and the same mbuf layout. Which body is meant is decided once, when a port or a pool is made; after that it is a
//! match per burst, never per packet.
//!
//! # Invariants that the SAFETY notes refer to
//!
//! - **S1 layout**: [`raw::Header`] is the layout of `struct rte_mbuf` for the fields it names. `dpdk-sys` asserts
//!   every offset in C against the installed headers; soft pools allocate the same layout.
//! - **S2 buffer**: for a live mbuf `buf_addr .. buf_addr + buf_len` is one allocation, initialised, owned by the
//!   mbuf, and `data_off + data_len <= buf_len`. Every function here that changes an offset keeps this true.
//! - **S3 sole owner**: a [`Mbuf`] is the only handle to its buffer. There is no `Clone`; queues take buffers out of
//!   the burst they send; `Drop` returns the buffer to its pool exactly once.
//! - **S4 pools outlive buffers**: a soft pool counts the buffers that are out and lives until the last is back; an
//!   EAL pool lives as long as the EAL, which lives until no handle to it, and none of its buffers, is left.
//! - **S5 one poller**: a queue handle is `Send`, not `Sync`, not `Clone`, is given out once by [`Port::start`] and
//!   taken back by stop: nobody else polls that queue, and nobody polls a stopped port.
//! - **S6 one segment**: received chains are dropped at once, whole, by [`Burst::drop_chained`]; every other function may
//!   assume `nb_segs == 1`.
//!
//! Of a driver this trusts what DPDK documents: a received mbuf has one reference, nobody else's, and its data lies
//! inside its buffer. Both hold for the frames' first owner; nothing here makes a second.

mod error;
mod plan;
mod prefetch;
pub mod raw;
mod mempool;
mod mbuf;
mod burst;
mod clock;
mod affinity;
pub mod privileges;
mod memory;
pub mod port;
mod queue;
#[cfg(feature = "dpdk")]
pub mod acl;
#[cfg(feature = "dpdk")]
pub mod fib;
pub mod soft;
#[cfg(feature = "dpdk")]
pub mod eal;

pub use affinity::run_on;
pub use burst::{BURST, Burst};
pub use clock::{cycles, cycles_per_second};
pub use error::{Errno, Error};
pub use mbuf::{Checksum, Mbuf};
pub use memory::{Pattern, huge, matching};
pub use mempool::{Mempool, PoolConfig};
pub use plan::{EalPlan, LcorePlan, Memory};
pub use port::{
    LinkStatus, Port, PortConfig, PortEvents, PortFacts, PortStats, QueuePair, RssConfig, RunningPort,
    StartError, StopError,
};
pub use prefetch::{prefetch_line, prefetch_line_to_write, prefetch_nth};
pub use queue::{RxQueue, TxQueue};

/// Name and version of the DPDK that this program runs on, if it was built with one.
pub fn library() -> Option<String> {
    #[cfg(feature = "dpdk")]
    return Some(eal::version());
    #[cfg(not(feature = "dpdk"))]
    None
}
