//! Any bytes as a filter of flows, events or packets; see `mgmt::admin::filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate::mgmt::admin::filter::arbitrary_input(bytes));
