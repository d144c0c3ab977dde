//! Arbitrary frames through all six hops, under every profile and setting; see `path::arbitrary_input`.
#![no_main]

use sluicegate::path::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    arbitrary_input::frame(bytes);
});
