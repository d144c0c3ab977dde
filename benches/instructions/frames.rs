//! The frames of a case, lap after lap.

use std::sync::Arc;

use sluicegate::traffic::{Generator, MAX_FRAME, Mix, Sizes, Tcp, Traffic};

use crate::connections;
use crate::{BURST, Case, FLOWS, Inner, LAPS, POLLS};

/// What it takes to make them is subtracted with the port.
pub struct Frames {
    source: Source,
    frame: Vec<u8>,
    tagged: bool,
}

enum Source {
    Made(Generator, Vec<u8>),
    /// Made before anything is counted.
    Kept(Vec<Vec<u8>>, usize),
}

impl Frames {
    pub fn of(case: &Case) -> Self {
        let mut mix = Mix::bench(FLOWS as u32, Sizes::Fixed(case.size));
        let mut made = |change: &dyn Fn(&mut Mix)| {
            change(&mut mix);
            Source::Made(Generator::new(Arc::new(Traffic::new(&mix))), vec![0; MAX_FRAME])
        };
        let source = match case.inner {
            Inner::Udp => made(&|_| {}),
            Inner::Tcp => made(&|mix| {
                (mix.tcp_percent, mix.both_directions) = (100, true);
                mix.tcp = Tcp::Connections { data: 1 << 20 };
            }),
            Inner::Udp6 => made(&|mix| mix.ipv6_percent = 100),
            Inner::Connections => Source::Kept(connections::frames().collect(), 0),
            Inner::Open(what) => {
                let packets = LAPS + POLLS[1] * BURST / FLOWS;
                let payload = usize::from(case.size) - 40;
                Source::Kept(connections::open(what, FLOWS as u32, packets, payload).collect(), 0)
            }
        };
        Frames { source, frame: Vec::new(), tagged: case.tagged }
    }

    pub fn next(&mut self) -> &[u8] {
        self.frame.clear();
        match &mut self.source {
            Source::Made(generator, buffer) => {
                let len = generator.next(buffer).map_or(0, |sent| sent.len);
                self.frame.extend_from_slice(&buffer[..len]);
            }
            Source::Kept(frames, at) => {
                self.frame.extend_from_slice(&frames[*at]);
                *at = (*at + 1) % frames.len();
            }
        }
        if self.tagged {
            self.frame.splice(12..12, [0x81, 0, 0, 7]);
        }
        &self.frame
    }
}
