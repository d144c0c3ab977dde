//! A rule file of the stage `acl`, and what is found in its rules.
#![no_main]

use sluicegate::stages::acl::csv;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| csv::arbitrary_input(bytes));
