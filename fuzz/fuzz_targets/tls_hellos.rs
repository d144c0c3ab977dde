//! Any bytes as a TLS stream, as hellos and as DTLS datagrams.
#![no_main]

use sluicegate::stages::tls::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arbitrary_input::hellos(bytes));
