//! Captures of generated traffic, for net_pcap, for replay and for other people's tools.

use std::path::Path;
use std::sync::Arc;

use super::{Generator, MAX_FRAME, Mix, Traffic};
use crate::dpdk::soft::pcap::{Error, Writer};

/// Nanoseconds of the first frame (one second after 1970 began, so that no tool takes it for "no time").
const START: u64 = 1_000_000_000;
/// Nanoseconds between two frames.
const STEP: u64 = 1_000;

/// Writes the first `frames` frames of a mix: in flow order, one of each flow per lap, a microsecond apart.
pub fn write(path: &Path, mix: &Mix, frames: u64) -> Result<(), Error> {
    let mut generator = Generator::new(Arc::new(Traffic::new(mix)));
    let mut writer = Writer::create(path)?;
    let mut frame = vec![0; MAX_FRAME];
    for n in 0..frames {
        let len = generator.next(&mut frame).map_or(0, |sent| sent.len);
        writer.write(START + n * STEP, frame.get(..len).unwrap_or(&[]))?;
    }
    writer.finish().map(drop)
}
