//! Any segments in any order, through the TCP state machine under every setting.
#![no_main]

use sluicegate::flow::tcp::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::segments(bytes));
