//! The mbuf header as memory: the fields we touch, at the offsets that `dpdk-sys` asserts in C (S1).
//!
//! DPDK renames and regroups the C fields between releases (22.11 has them plain, 24.11 inside anonymous unions), but
//! their offsets are ABI. Reading them through this view costs a load, where an accessor in C would cost a call.

use std::ffi::c_void;

/// Bytes of an mbuf header: two cache lines (`sizeof(struct rte_mbuf)`).
pub const HEADER: usize = 128;
/// Free bytes kept in front of the frame (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: usize = 128;

/// `struct rte_mbuf`, the fields we use. Names are DPDK's.
#[repr(C, align(64))]
pub struct Header {
    /// Start of the buffer (headroom included).
    pub buf_addr: *mut u8,
    /// IO address of the buffer.
    pub buf_iova: u64,
    /// Bytes from `buf_addr` to the frame.
    pub data_off: u16,
    /// Reference count; 1 for every mbuf of ours.
    pub refcnt: u16,
    /// Segments in the chain; 1 for every mbuf of ours.
    pub nb_segs: u16,
    /// Port it was received on.
    pub port: u16,
    /// Offload flags, `RTE_MBUF_F_*`.
    pub ol_flags: u64,
    /// Packet type as the driver saw it.
    pub packet_type: u32,
    /// Bytes of the frame over all segments.
    pub pkt_len: u32,
    /// Bytes of the frame in this segment.
    pub data_len: u16,
    /// Stripped VLAN tag.
    pub vlan_tci: u16,
    /// RSS hash, valid if `RX_RSS_HASH` is set.
    pub rss: u32,
    hash_high: u32,
    /// Stripped outer VLAN tag.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer (headroom included).
    pub buf_len: u16,
    /// The pool it came from; soft pools are marked by [`SOFT`].
    pub pool: *mut c_void,
    /// Next segment.
    pub next: *mut Header,
    /// Header lengths for transmit offloads.
    pub tx_offload: u64,
    rest: [u64; 6],
}

/// Low bit of `pool`: the buffer belongs to a soft pool. Pools are aligned to cache lines, so the bit is free.
pub const SOFT: usize = 1;

/// `RTE_MBUF_F_RX_RSS_HASH`.
pub const RX_RSS_HASH: u64 = 1 << 1;
/// `RTE_MBUF_F_RX_L4_CKSUM_BAD`.
pub const RX_L4_CKSUM_BAD: u64 = 1 << 3;
/// `RTE_MBUF_F_RX_IP_CKSUM_BAD`.
pub const RX_IP_CKSUM_BAD: u64 = 1 << 4;
/// `RTE_MBUF_F_RX_IP_CKSUM_GOOD`.
pub const RX_IP_CKSUM_GOOD: u64 = 1 << 7;
/// `RTE_MBUF_F_RX_L4_CKSUM_GOOD`.
pub const RX_L4_CKSUM_GOOD: u64 = 1 << 8;

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Header>() == HEADER && align_of::<Header>() == 64);
    assert!(offset_of!(Header, buf_iova) == 8 && offset_of!(Header, data_off) == 16);
    assert!(offset_of!(Header, ol_flags) == 24 && offset_of!(Header, packet_type) == 32);
    assert!(offset_of!(Header, pkt_len) == 36 && offset_of!(Header, data_len) == 40);
    assert!(offset_of!(Header, rss) == 44 && offset_of!(Header, buf_len) == 54);
    assert!(offset_of!(Header, pool) == 56 && offset_of!(Header, next) == 64);
    assert!(offset_of!(Header, tx_offload) == 72);
};
