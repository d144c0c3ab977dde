//! Answers of targets to health checks, in pieces of any size; see `gateway::checks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sluicegate::gateway::checks::arbitrary_answer(bytes);
});
