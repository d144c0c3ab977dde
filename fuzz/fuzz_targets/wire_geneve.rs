//! A UDP payload on port 6081, under every profile.
#![no_main]

use sluicegate::wire::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::geneve(bytes));
