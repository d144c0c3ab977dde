//! Sessions of a gateway: frames of legs and of targets, returns that are right or tampered with, time, health; see `gateway::arbitrary_input`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sluicegate::gateway::arbitrary_input::session(bytes);
});
