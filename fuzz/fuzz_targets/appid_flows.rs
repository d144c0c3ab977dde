//! Any bytes as both directions of a connection, cut anyhow, and as datagrams: what is it, and does it change over to TLS?
#![no_main]

use sluicegate::stages::appid::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::flows(bytes));
