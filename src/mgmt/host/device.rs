//! A port as smoltcp sees it: frames are put in by whoever has them, and a bounded number waits to go out.

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
pub(crate) struct Device {
    medium: Medium,
    mtu: usize,
    /// As many as were put; who puts them bounds them.
    incoming: VecDeque<Vec<u8>>,
    /// Memory of frames that have gone.
    spare: Vec<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device {
    /// A port: Ethernet frames.
    pub fn new(mtu: u16) -> Self {
        Self::of(Medium::Ethernet, usize::from(mtu) + HEADER)
    }

    /// IP packets, for whoever makes frames of them.
    pub fn of_packets(mtu: u16) -> Self {
        Self::of(Medium::Ip, usize::from(mtu))
    }

    fn of(medium: Medium, mtu: usize) -> Self {
        Device { medium, mtu, incoming: VecDeque::new(), spare: Vec::new(), outgoing: VecDeque::new() }
    }

    /// A frame for [`phy::Device::receive`] to find, behind those that are there. The caller gets other memory back.
    pub fn put(&mut self, frame: &mut Vec<u8>) {
        let other = self.spare.pop().unwrap_or_default();
        self.incoming.push_back(std::mem::replace(frame, other));
    }

    /// Frames that nobody has looked at yet.
    pub fn waiting(&self) -> usize {
        self.incoming.len()
    }

    /// What was sent.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(frame) = self.outgoing.pop_front() {
            each(&frame);
            keep(&mut self.spare, frame);
        }
    }
}

impl Device {
    /// Bytes that a frame has at least.
    fn least(&self) -> usize {
        if self.medium == Medium::Ethernet { SHORTEST } else { 0 }
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
        let frame = self.incoming.pop_front()?;
        // Without room for an answer there is no use in reading; who asked asks again.
        if self.outgoing.len() >= WAITING {
            keep(&mut self.spare, frame);
            return None;
        }
        let memory = self.spare.pop().unwrap_or_default();
        let least = self.least();
        Some((Incoming(frame), Outgoing { memory, least, queue: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        if self.outgoing.len() >= WAITING {
            return None;
        }
        let memory = self.spare.pop().unwrap_or_default();
        let least = self.least();
        Some(Outgoing { memory, least, queue: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

pub(crate) struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(crate) struct Outgoing<'a> {
    memory: Vec<u8>,
    /// Bytes it has at least.
    least: usize,
    queue: &'a mut VecDeque<Vec<u8>>,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let Outgoing { memory: mut frame, least, queue } = self;
        frame.clear();
        frame.resize(len, 0);
        let result = write(&mut frame);
        if len < least {
            frame.resize(least, 0);
        }
        queue.push_back(frame);
        result
    }
}
