//! Bytes <-> fields: pure functions over slices, one file per format.

pub mod checksum;
pub mod geneve;
