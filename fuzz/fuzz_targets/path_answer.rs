//! Packets that we make ourselves, asked for about arbitrary inner packets; see `path::arbitrary_input`.
#![no_main]

use sluicegate::path::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    arbitrary_input::answer(bytes);
});
