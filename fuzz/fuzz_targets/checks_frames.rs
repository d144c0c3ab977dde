//! Frames that reach a gateway's health checks, and targets that answer them wildly; see `gateway::checks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sluicegate::gateway::checks::arbitrary_frames(bytes);
});
