//! Any bytes as a direction of an HTTP/1 connection, and as one head.
#![no_main]

use sluicegate::stages::http::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::messages(bytes));
