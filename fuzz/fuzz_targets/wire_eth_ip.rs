//! A frame from the wire: Ethernet, IPv4 or IPv6 with its extension headers, transport.
#![no_main]

use sluicegate::wire::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::eth(bytes));
