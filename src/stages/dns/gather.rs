//! Messages out of one direction of a TCP connection: a length of two bytes, the message, the next length (RFC 1035 section 4.2.2, RFC 7766).
//!
//! A message that lies whole in the bytes at hand is read there. One that comes in pieces is gathered in one of the worker's places, which are made
//! at the start, all of one size: what is longer is cut, as its sender might have done. When they are all in use the oldest makes room; the message
//! that was there is passed over by its length, so that the ones behind it are still read. Nothing is allocated.

use crate::stages::places::{Places, Ticket};

/// Bytes of the length in front of a message.
pub const PREFIX: usize = 2;

/// One direction of a connection. Small: every flow has two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    ticket: Ticket,
    /// Bytes of the message at hand that came, its length included; 0 between messages.
    have: u32,
    /// What its length says, once that is there.
    len: u16,
}

/// What the next bytes of a direction came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// There are no more bytes: a message is under way, or not.
    Over,
    /// The message at hand, with its length, as far as it has come. More of it follows.
    Part(&'a [u8]),
    /// A message that has come to its end, as far as there was room for it, and how long it is.
    Whole(&'a [u8], u16),
    /// A message has come to its end that made room for another.
    Lost,
}

impl Side {
    /// Is a message under way?
    pub fn is_open(&self) -> bool {
        self.have > 0
    }

    /// Takes bytes, up to the end of a message, and leaves the rest in `bytes`.
    pub fn take<'a, 'b: 'a>(&mut self, bytes: &mut &'b [u8], places: &'a mut Places, now: u64) -> Step<'a> {
        let all = *bytes;
        if all.is_empty() {
            return Step::Over;
        }
        if self.have == 0
            && let Some((len, rest)) = all.split_first_chunk::<PREFIX>()
            && let Some((message, rest)) = rest.split_at_checked(u16::from_be_bytes(*len).into())
        {
            *bytes = rest;
            return Step::Whole(message, message.len() as u16);
        }
        if self.have == 0 {
            self.ticket = places.begin(now);
        }
        let mut taken = 0;
        while let Some(byte) = all.get(taken).filter(|_| self.have < PREFIX as u32) {
            self.len = self.len << 8 | u16::from(*byte);
            (self.have, taken) = (self.have + 1, taken + 1);
            places.add(self.ticket, &[*byte]);
        }
        let mut whole = false;
        if self.have >= PREFIX as u32 {
            let missing = (PREFIX as u32 + u32::from(self.len)).saturating_sub(self.have) as usize;
            let part = all.get(taken..).unwrap_or(&[]);
            let part = part.get(..missing).unwrap_or(part);
            places.add(self.ticket, part);
            (self.have, taken) = (self.have + part.len() as u32, taken + part.len());
            whole = part.len() == missing;
        }
        *bytes = all.get(taken..).unwrap_or(&[]);
        let (ticket, len) = (self.ticket, self.len);
        if whole {
            *self = Side::default();
            places.end(ticket);
        }
        match (places.left_in(ticket), whole) {
            (Some(kept), true) => Step::Whole(kept.get(PREFIX..).unwrap_or(&[]), len),
            (Some(kept), false) => Step::Part(kept),
            (None, true) => Step::Lost,
            (None, false) => Step::Over,
        }
    }

    /// The message under way is not to come to an end.
    pub fn clear(&mut self, places: &mut Places) {
        if places.left_in(self.ticket).is_some() {
            places.end(self.ticket);
        }
        *self = Side::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect()
    }

    fn read(stream: &[u8], cut: usize, places: &mut Places) -> Vec<Vec<u8>> {
        let (mut side, mut all) = (Side::default(), Vec::new());
        for mut part in stream.chunks(cut) {
            while !part.is_empty() {
                if let Step::Whole(message, _) = side.take(&mut part, places, 0) {
                    all.push(message.to_vec());
                }
            }
        }
        assert!(!side.is_open());
        all
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let messages: Vec<Vec<u8>> = [0, 1, 30, 300, 12, 0].map(|n| (0..n).map(|b| b as u8).collect()).into();
        let stream = stream(&messages);
        for cut in 1..stream.len() + 1 {
            let mut places = Places::new(2, PREFIX + 400);
            assert_eq!(read(&stream, cut, &mut places), messages, "{cut}");
            assert_eq!(places.used(), 0, "{cut}");
        }
    }

    #[test]
    fn what_is_longer_than_a_place_is_cut() {
        let messages = vec![vec![7; 100], vec![8; 10]];
        let found = read(&stream(&messages), 9, &mut Places::new(1, PREFIX + 40));
        assert_eq!(found, [vec![7; 40], vec![8; 10]]);
    }

    #[test]
    fn the_oldest_makes_room_and_its_stream_goes_on() {
        let mut places = Places::new(4, 64);
        let stream = stream(&[vec![1; 20], vec![2; 20]]);
        let mut sides = [Side::default(); 6];
        for (now, side) in (0..).zip(&mut sides) {
            let mut part = &stream[..10];
            assert!(matches!(side.take(&mut part, &mut places, now), Step::Part(_)));
        }
        assert_eq!((places.given_up, places.used()), (2, 4));
        let mut rest = &stream[10..];
        assert_eq!(sides[0].take(&mut rest, &mut places, 9), Step::Lost);
        assert_eq!(sides[0].take(&mut rest, &mut places, 9), Step::Whole(&[2; 20], 20));
        let mut rest = &stream[10..];
        assert_eq!(sides[5].take(&mut rest, &mut places, 9), Step::Whole(&[1; 20], 20));
        sides[4].clear(&mut places);
        assert_eq!(places.used(), 2);
    }
}
