//! Places in which messages are gathered that come in pieces: made at the start, all of one size, a fixed number for each worker.
//!
//! When they are all in use the oldest, roughly, makes room; whoever had it notices by its ticket. Nothing is allocated.

use crate::event::{Anomaly, AnomalyKind};
use crate::packet::View;
use crate::stage::Cx;

/// Tells that messages made room, with the packet that needed it: theirs are gone.
#[cold]
pub fn tell_given_up(event: &'static str, packet: &View<'_>, cx: &mut Cx<'_>) {
    let anomaly = Anomaly { kind: AnomalyKind::Applayer, event, reason: None, skipped: 0 };
    cx.emit(packet.meta(), packet.inner(), anomaly);
}

/// Where a message is being gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Plus one; 0: none.
    place: u16,
    serial: u32,
}

/// One message.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Changes whenever somebody else gets the place.
    serial: u32,
    used: bool,
    since: u64,
    len: u32,
}

/// The places of a worker.
#[derive(Debug)]
pub struct Places {
    all: Box<[Place]>,
    bytes: Box<[u8]>,
    size: usize,
    free: Vec<u16>,
    hand: usize,
    /// Messages that made room for others.
    pub given_up: u64,
}

impl Places {
    /// So many, each of so many bytes.
    pub fn new(count: u16, size: usize) -> Self {
        Places {
            all: (0..count).map(|_| Place::default()).collect(),
            bytes: vec![0; usize::from(count) * size].into(),
            size,
            free: (0..count).rev().collect(),
            hand: 0,
            given_up: 0,
        }
    }

    /// Bytes that so many places of that size take.
    pub fn memory(count: u16, size: usize) -> usize {
        usize::from(count) * (size + size_of::<Place>() + size_of::<u16>())
    }

    /// A place; if there is no free one, the oldest makes room.
    pub fn begin(&mut self, now: u64) -> Ticket {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.given_up += 1;
                self.oldest()
            }
        };
        let Some(of) = self.all.get_mut(usize::from(place)) else { return Ticket::default() };
        *of = Place { serial: of.serial.wrapping_add(1), used: true, since: now, len: 0 };
        Ticket { place: place + 1, serial: of.serial }
    }

    /// The oldest of a few that are looked at in turn.
    fn oldest(&mut self) -> u16 {
        const LOOK_AT: usize = 8;
        let (mut best, mut since) = (self.hand, u64::MAX);
        for _ in 0..LOOK_AT {
            self.hand = if self.hand + 1 < self.all.len() { self.hand + 1 } else { 0 };
            if let Some(place) = self.all.get(self.hand).filter(|place| place.since < since) {
                (best, since) = (self.hand, place.since);
            }
        }
        best as u16
    }

    fn get(&mut self, ticket: Ticket) -> Option<(usize, &mut Place)> {
        let at = usize::from(ticket.place.checked_sub(1)?);
        let place = self.all.get_mut(at).filter(|place| place.serial == ticket.serial)?;
        Some((at, place))
    }

    /// Adds bytes, as far as there is room for them.
    pub fn add(&mut self, ticket: Ticket, part: &[u8]) {
        let size = self.size;
        let Some((at, place)) = self.get(ticket) else { return };
        let from = place.len as usize;
        let n = part.len().min(size - from.min(size));
        place.len += n as u32;
        let start = at * size + from;
        if let (Some(to), Some(part)) = (self.bytes.get_mut(start..start + n), part.get(..n)) {
            to.copy_from_slice(part);
        }
    }

    /// What a ticket's message has come to, until somebody else gets the place.
    pub fn left_in(&self, ticket: Ticket) -> Option<&[u8]> {
        let at = usize::from(ticket.place.checked_sub(1)?);
        let place = self.all.get(at).filter(|place| place.serial == ticket.serial)?;
        self.bytes.get(at * self.size..at * self.size + place.len as usize)
    }

    /// The place is free again. What is in it stays until somebody else begins.
    pub fn end(&mut self, ticket: Ticket) {
        if let Some((at, place)) = self.get(ticket)
            && std::mem::take(&mut place.used)
        {
            self.free.push(at as u16);
        }
    }

    /// Bytes of a place.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Places that are in use.
    #[cfg(any(test, fuzzing))]
    pub fn used(&self) -> usize {
        self.all.iter().filter(|place| place.used).count()
    }
}
