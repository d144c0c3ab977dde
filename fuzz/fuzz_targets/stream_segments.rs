//! Any segments in any order through reassembly under every setting, beside a naive reference.
#![no_main]

use sluicegate::stream::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::segments(bytes));
