//! A port as smoltcp sees it: one frame at a time comes in, a bounded number waits to go out.

use std::collections::VecDeque;

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Frames that wait to go out; smoltcp asks again when there is room.
const WAITING: usize = 256;
/// Shortest frame that a device need send (IEEE 802.3 without the check sequence).
const SHORTEST: usize = 60;
/// Ethernet header.
const HEADER: usize = 14;

#[derive(Debug)]
pub(super) struct Device {
    mtu: usize,
    incoming: Option<Vec<u8>>,
    /// Memory of frames that have gone.
    spare: Vec<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device {
    pub fn new(mtu: u16) -> Self {
        Device {
            mtu: usize::from(mtu) + HEADER,
            incoming: None,
            spare: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// The next frame that [`phy::Device::receive`] finds. The caller gets other memory back.
    pub fn put(&mut self, frame: &mut Vec<u8>) {
        let other = self.spare.pop().unwrap_or_default();
        self.incoming = Some(std::mem::replace(frame, other));
    }

    /// What was sent.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(frame) = self.outgoing.pop_front() {
            each(&frame);
            keep(&mut self.spare, frame);
        }
    }
}

fn keep(spare: &mut Vec<Vec<u8>>, frame: Vec<u8>) {
    if spare.len() < WAITING {
        spare.push(frame);
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.take()?;
        // Without room for an answer there is no use in reading; who asked asks again.
        if self.outgoing.len() >= WAITING {
            keep(&mut self.spare, frame);
            return None;
        }
        let memory = self.spare.pop().unwrap_or_default();
        Some((Incoming(frame), Outgoing { memory, queue: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        if self.outgoing.len() >= WAITING {
            return None;
        }
        let memory = self.spare.pop().unwrap_or_default();
        Some(Outgoing { memory, queue: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

pub(super) struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct Outgoing<'a> {
    memory: Vec<u8>,
    queue: &'a mut VecDeque<Vec<u8>>,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let Outgoing { memory: mut frame, queue } = self;
        frame.clear();
        frame.resize(len, 0);
        let result = write(&mut frame);
        if len < SHORTEST {
            frame.resize(SHORTEST, 0);
        }
        queue.push_back(frame);
        result
    }
}
