//! The payload of an IP packet; the first byte chooses the protocol.
#![no_main]

use sluicegate::wire::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let [protocol, bytes @ ..] = bytes {
        arbitrary_input::transport(*protocol, bytes);
    }
});
