//! Bindings to the installed DPDK: an allow-list of what `sluicegate` uses, and the shim of inline functions (`sg_*`).
//!
//! Nothing here is safe, checked or stable; `sluicegate::dpdk` is. `struct rte_mbuf` is opaque on purpose: its fields
//! change names between releases, their offsets do not, and `shim.c` asserts the offsets.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, missing_docs)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated from C")]

/// Opaque: see the crate's documentation.
#[repr(C)]
pub struct rte_mbuf {
    _private: [u8; 0],
}

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
