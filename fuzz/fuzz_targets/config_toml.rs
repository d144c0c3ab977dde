//! The text of a configuration file; behind a zero byte, what `--set` got.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate::config::arbitrary_input(bytes));
