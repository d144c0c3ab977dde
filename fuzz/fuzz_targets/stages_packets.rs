//! Arbitrary packets through a pipeline of all stages that look at packets; see `stages::arbitrary_input`.
#![no_main]

use sluicegate::stages::arbitrary_input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    arbitrary_input::packets(bytes);
});
