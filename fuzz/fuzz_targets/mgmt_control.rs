//! Any bytes as a request on the control socket: a command or a refusal that can be said in one line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate::mgmt::control::arbitrary_input(bytes));
