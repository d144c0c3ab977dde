//! Who may reach the host stack, asked of arbitrary frames; see `path::guests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sluicegate::path::arbitrary_guest(bytes);
});
