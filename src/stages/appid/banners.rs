//! The lines by which both ends of an SSH connection say what they are (RFC 4253 section 4.2), in places of fixed size: the oldest makes room.

/// Longest line, its end included.
const LONGEST: usize = 255;
/// Lines that a server may send before it.
const MOST_LINES: u8 = 16;

/// Where a connection's lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    place: u16,
    serial: u32,
}

/// Of one direction.
#[derive(Clone, Copy, Debug)]
struct Line {
    bytes: [u8; LONGEST],
    len: u8,
    lines: u8,
    /// No more is read of it.
    over: bool,
}

const EMPTY: Line = Line { bytes: [0; LONGEST], len: 0, lines: 0, over: false };

#[derive(Clone, Copy, Debug)]
struct Place {
    serial: u32,
    used: bool,
    lines: [Line; 2],
}

/// All of a worker.
#[derive(Debug)]
pub struct Banners {
    places: Box<[Place]>,
    hand: u16,
    /// Connections whose lines made room for others.
    pub given_up: u64,
}

impl Banners {
    /// Room for so many connections.
    pub fn new(count: u16) -> Self {
        let place = Place { serial: 0, used: false, lines: [EMPTY; 2] };
        Banners { places: vec![place; count.into()].into_boxed_slice(), hand: 0, given_up: 0 }
    }

    /// A place, whoever had it.
    pub fn begin(&mut self) -> Option<Ticket> {
        self.hand = if usize::from(self.hand) < self.places.len() { self.hand } else { 0 };
        let place = self.places.get_mut(usize::from(self.hand))?;
        self.given_up += u64::from(place.used);
        place.serial = place.serial.wrapping_add(1);
        place.used = true;
        place.lines = [EMPTY; 2];
        self.hand += 1;
        Some(Ticket { place: self.hand - 1, serial: place.serial })
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Place> {
        self.places
            .get_mut(usize::from(ticket.place))
            .filter(|place| place.used && place.serial == ticket.serial)
    }

    /// More of a direction. True if nothing more is read of either, or nothing is kept of it any more.
    pub fn take(&mut self, ticket: Ticket, reply: bool, bytes: &[u8]) -> bool {
        let Some(place) = self.get(ticket) else { return true };
        let [forth, back] = &mut place.lines;
        if reply {
            back.take(bytes)
        } else {
            forth.take(bytes)
        }
        place.lines.iter().all(|line| line.over)
    }

    /// A direction has ended. True as above.
    pub fn end(&mut self, ticket: Ticket, reply: bool) -> bool {
        let Some(place) = self.get(ticket) else { return true };
        let [forth, back] = &mut place.lines;
        if reply {
            back.over = true
        } else {
            forth.over = true
        }
        place.lines.iter().all(|line| line.over)
    }

    /// What both said, and the place is free: the originator's line and the responder's, without their ends.
    pub fn finish(&mut self, ticket: Ticket) -> Option<[Option<&[u8]>; 2]> {
        let place = self.get(ticket)?;
        place.used = false;
        let [forth, back] = &place.lines;
        Some([forth.line(), back.line()])
    }
}

impl Line {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.over {
                return;
            }
            if *byte == b'\n' {
                let ours = self.bytes.starts_with(b"SSH-");
                self.lines += 1;
                self.over = ours || self.lines >= MOST_LINES;
                self.len = if ours { self.len } else { 0 };
                continue;
            }
            match self.bytes.get_mut(usize::from(self.len)) {
                Some(place) => (*place, self.len) = (*byte, self.len + 1),
                None => self.over = true,
            }
        }
    }

    fn line(&self) -> Option<&[u8]> {
        let line = self.bytes.get(..usize::from(self.len))?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.starts_with(b"SSH-").then_some(line)
    }
}

/// Version of the protocol and name of the program, without what is said behind a blank: as Suricata 7 reads it (`rust/src/ssh/parser.rs`).
pub fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"SSH-")?;
    let dash = rest.iter().position(|b| *b == b'-')?;
    let (version, software) = (rest.get(..dash)?, rest.get(dash + 1..)?);
    let end = software.iter().position(|b| *b == b' ').unwrap_or(software.len());
    Some((version, software.get(..end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces_and_behind_others() {
        let mut banners = Banners::new(2);
        let ticket = banners.begin().unwrap();
        assert!(!banners.take(ticket, true, b"Welcome\r\nSSH-2.0-Op"));
        assert!(!banners.take(ticket, true, b"enSSH_9.6 Debian-1\r\n\0\0\x05"));
        assert!(banners.take(ticket, false, b"SSH-2.0-client\nmore"));
        let [client, server] = banners.finish(ticket).unwrap();
        assert_eq!(
            (client, server),
            (Some(&b"SSH-2.0-client"[..]), Some(&b"SSH-2.0-OpenSSH_9.6 Debian-1"[..]))
        );
        assert_eq!(parts(server.unwrap()), Some((&b"2.0"[..], &b"OpenSSH_9.6"[..])));
        assert_eq!(banners.finish(ticket), None);
    }

    #[test]
    fn the_oldest_makes_room_and_what_has_no_end_ends() {
        let mut banners = Banners::new(2);
        let all = [(); 3].map(|()| banners.begin().unwrap());
        assert_eq!(banners.given_up, 1);
        assert!(banners.take(all[0], false, b"SSH-2.0-x"), "nothing is kept of it");
        assert!(!banners.take(all[2], false, &[b'S'; 300]));
        assert!(banners.end(all[2], true));
        assert_eq!(banners.finish(all[2]), Some([None, None]));
        assert_eq!(Banners::new(0).begin(), None);
    }
}
