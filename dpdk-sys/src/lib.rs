//! Bindings to the installed DPDK.
