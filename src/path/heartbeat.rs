//! Where a worker is: one word that it stores, relaxed, as it goes from hop to hop and from stage to stage, a few times a batch and
//! never for a packet.
//!
//! Whether it lives is seen by the polls that it counts anyway (`busy_polls`, `idle_polls`). If those stand still, this names the place.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Place of the first stage; the others follow.
const STAGES: u32 = 16;

/// A place on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In a receive queue, or between two polls.
    Rx,
    /// Hop 2.
    Decap,
    /// Hop 3.
    Track,
    /// Hop 4, in the stage of this number.
    Inspect(usize),
    /// Hop 4, in the candidate beside the pipeline.
    Beside,
    /// Hop 5.
    Encap,
    /// Hop 6.
    Tx,
}

impl Place {
    /// The hop's name.
    pub fn hop(self) -> &'static str {
        match self {
            Place::Rx => "rx",
            Place::Decap => "decap",
            Place::Track => "track",
            Place::Inspect(_) => "inspect",
            Place::Beside => "inspect, the candidate",
            Place::Encap => "encap",
            Place::Tx => "tx",
        }
    }

    const fn word(self) -> u32 {
        match self {
            Place::Rx => 0,
            Place::Decap => 1,
            Place::Track => 2,
            Place::Encap => 3,
            Place::Tx => 4,
            Place::Beside => 5,
            Place::Inspect(stage) => STAGES + stage as u32,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Inspect(stage) => write!(f, "inspect, stage {stage}"),
            place => f.write_str(place.hop()),
        }
    }
}

/// One worker's place. One writer, any number of readers.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU32);

impl Heartbeat {
    /// The worker is there.
    #[inline(always)]
    pub fn at(&self, place: Place) {
        self.0.store(place.word(), Ordering::Relaxed);
    }

    /// Where it was when it last said so.
    pub fn place(&self) -> Place {
        match self.0.load(Ordering::Relaxed) {
            0 => Place::Rx,
            1 => Place::Decap,
            2 => Place::Track,
            3 => Place::Encap,
            4 => Place::Tx,
            5 => Place::Beside,
            word => Place::Inspect(word.saturating_sub(STAGES) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        use Place::*;
        let beat = Heartbeat::default();
        assert_eq!(beat.place(), Rx);
        for place in [Decap, Track, Inspect(0), Inspect(1), Inspect(511), Beside, Encap, Tx, Rx] {
            beat.at(place);
            assert_eq!(beat.place(), place);
        }
    }
}
