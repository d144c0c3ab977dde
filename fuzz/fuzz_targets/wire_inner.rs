//! What follows a GENEVE header, as decap judges it.
#![no_main]

use sluicegate::wire::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::inner(bytes));
