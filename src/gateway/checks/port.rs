//! The port behind which targets are, as the management side has it: rings to and from workers.

use std::time::Duration;

use super::{Change, Checker, ROUND};
use crate::mgmt::{Device, Rings};
use crate::path::HostEnd;

/// The rings of all workers, and the port that is ours.
#[derive(Debug)]
pub struct TargetPort {
    id: u16,
    rings: Rings,
    device: Device,
    /// The ring that the last frame came by.
    via: usize,
}

impl TargetPort {
    /// The port of this number and MTU, at the ends of the workers' rings. Frames of other ports are not looked at.
    pub fn new(ends: Vec<HostEnd>, id: u16, mtu: u16) -> Self {
        TargetPort { id, rings: Rings::new(ends), device: Device::new(mtu), via: 0 }
    }

    /// One round of the checker over the rings. True if there was a frame, and what has changed.
    pub fn poll(&mut self, now: Duration, checker: &mut Checker) -> (bool, Vec<Change>) {
        let TargetPort { id, rings, device, via } = self;
        // What the checker has not looked at yet comes first, so it never piles up here.
        let busy = device.waiting() >= ROUND
            || rings.take(|port, frame, ring| {
                if port == *id {
                    *via = ring;
                    device.put(frame);
                }
            });
        let changes = checker.poll(now, device);
        device.drain(|frame| rings.give(*id, *via, frame));
        (busy, changes)
    }

    /// Frames that came, that were given to workers, and for which no ring had room.
    pub fn counts(&self) -> [u64; 3] {
        [self.rings.received, self.rings.sent, self.rings.no_room]
    }
}
