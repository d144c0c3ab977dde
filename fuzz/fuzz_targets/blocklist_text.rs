//! A file of the stage `blocklist`: how it is to be read (1), then its text.
#![no_main]

use sluicegate::stages::blocklist::text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| text::arbitrary_input(bytes));
