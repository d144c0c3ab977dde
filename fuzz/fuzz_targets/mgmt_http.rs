//! Requests of health checks, in pieces of any size; see `mgmt::http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sluicegate::mgmt::http::arbitrary_input(bytes);
});
