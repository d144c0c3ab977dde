//! Any bytes as what an appliance sends back to the judge.
#![no_main]

use sluicegate::conform::frames::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::packet(bytes));
