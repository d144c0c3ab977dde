//! A soft port between two capture files: frames come from one, and what the port sends goes to the other.
//!
//! The driver of a replay steps through the capture and gives each frame's time to the workers as theirs, so the same
//! capture gives the same answer, however fast the machine is:
//!
//! ```text
//! while let Some(now) = replay.step(..)? { poll the workers at `now`; replay.collect()?; }
//! replay.finish()?
//! ```

use std::io::{Read, Write};

use super::pcap::{Error, Frame, Reader, Writer};
use super::{Port, Setup, Wire};

/// The far end of a port that lives on captures.
#[derive(Debug)]
pub struct Replay<R, W: Write> {
    wire: Wire,
    input: Reader<R>,
    output: Writer<W>,
    now: u64,
    put: Vec<u8>,
    got: Vec<u8>,
}

impl Port {
    /// A port whose frames come from `input`, and whose frames go to `output`.
    pub fn from_pcap<R: Read, W: Write>(
        setup: Setup,
        input: Reader<R>,
        output: Writer<W>,
    ) -> (super::super::Port, Replay<R, W>) {
        let (port, wire) = Port::with(setup);
        (port, Replay { wire, input, output, now: 0, put: Vec::new(), got: Vec::new() })
    }
}

impl<R: Read, W: Write> Replay<R, W> {
    /// Puts the next frame on the wire and says its time in nanoseconds since 1970; `None` at the end of the capture.
    ///
    /// `prepare` makes the frame that goes on the wire out of the captured one (by wrapping it, say), or says false to
    /// leave it out. Time never goes back: where the capture's does, it stands still.
    pub fn step(
        &mut self,
        mut prepare: impl FnMut(&Frame<'_>, &mut Vec<u8>) -> bool,
    ) -> Result<Option<u64>, Error> {
        let Some(frame) = self.input.next()? else {
            self.wire.flush();
            return Ok(None);
        };
        self.now = self.now.max(frame.time);
        self.put.clear();
        if prepare(&frame, &mut self.put) {
            self.wire.send_copy(&self.put);
        }
        Ok(Some(self.now))
    }

    /// Writes what the port has sent, at the time of the last step, and says how many frames that were.
    pub fn collect(&mut self) -> Result<u64, Error> {
        let mut frames = 0;
        while self.wire.receive_into(&mut self.got) {
            self.output.write(self.now, &self.got)?;
            frames += 1;
        }
        Ok(frames)
    }

    /// The wire, for its counts.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Writes what is left and gives the output back.
    pub fn finish(mut self) -> Result<W, Error> {
        self.collect()?;
        self.output.finish()
    }
}
