//! Any bytes as a DNS message, and as a TCP stream of them.
#![no_main]

use sluicegate::stages::dns::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::messages(bytes));
