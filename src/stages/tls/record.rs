//! Hellos out of one direction of a TLS connection: records and handshake messages, however they are cut (RFC 8446 section 5.1).
//!
//! Bytes come in any pieces. A hello that lies whole in one piece is read there; otherwise its bytes are gathered, as many as have come and no
//! more than [`LONGEST`], whatever it claims. Nothing else is kept: other messages are passed over by their length.
//!
//! *Where it begins.* At the first byte, or behind what another protocol said in plain text before (STARTTLS, CONNECT): the first place, within
//! [`SEARCHED`] bytes, where a record with a hello could begin, by what six of its bytes have to be; versions may be any, as receivers have to
//! take them (RFC 8446 section 5.1). *Where it ends.* At application data, at what is no record, or when whoever reads has enough; whoever does not
//! believe that searches on.

use memchr::memchr;

use super::hello::{CLIENT_HELLO, OLD_RETRY, SERVER_HELLO};

/// Longest hello that is read: what OpenSSL takes of a client (`CLIENT_HELLO_MAX_LENGTH`).
pub const LONGEST: usize = 131_396;
/// Bytes in front of TLS that are searched.
pub const SEARCHED: u32 = 4096;
/// A record header.
const HEADER: usize = 5;
/// Record header, handshake header, version: what tells a hello.
const PATTERN: usize = 11;
/// Longest record: 2^14 bytes, and 2048 more before TLS 1.3 (RFC 5246 section 6.2.3).
const LONGEST_RECORD: usize = (1 << 14) + 2048;

const CHANGE_CIPHER: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

/// Looks for the beginning of TLS in one direction. Small: every flow has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seek {
    head: [u8; PATTERN],
    have: u8,
    searched: u16,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Nothing so far. True: the last bytes could be the beginning.
    Open(bool),
    /// There is none.
    Over,
    /// Here it begins: with these bytes, and what follows from that place on.
    Found([u8; PATTERN], usize),
}

impl Seek {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Sought {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if u32::from(self.searched) > SEARCHED {
                return Sought::Over;
            }
            if self.have == 0 {
                let next = memchr(HANDSHAKE, rest).unwrap_or(rest.len());
                self.pass(next);
                at += next;
                if next == rest.len() {
                    break;
                }
                // What lies whole here is looked at where it lies.
                if u32::from(self.searched) <= SEARCHED
                    && let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<PATTERN>())
                {
                    if could_be(head) {
                        return Sought::Found(*head, at + PATTERN);
                    }
                    self.pass(1);
                    at += 1;
                    continue;
                }
                (self.head[0], self.have) = (HANDSHAKE, 1);
                at += 1;
                continue;
            }
            // Byte by byte: there are eleven.
            if let (Some(place), Some(byte)) = (self.head.get_mut(usize::from(self.have)), rest.first()) {
                *place = *byte;
            }
            self.have += 1;
            at += 1;
            // Where it cannot become a hello any more, the next place where one could begin is tried.
            while self.have > 0 && !could_be(self.head.get(..usize::from(self.have)).unwrap_or(&[])) {
                let held = self.head.get(1..usize::from(self.have)).unwrap_or(&[]);
                let next = held.iter().position(|b| *b == HANDSHAKE).unwrap_or(held.len()) + 1;
                self.head.copy_within(next.min(PATTERN).., 0);
                self.have -= next as u8;
                self.pass(next);
            }
            if usize::from(self.have) == PATTERN {
                self.have = 0;
                return Sought::Found(self.head, at);
            }
        }
        if u32::from(self.searched) > SEARCHED { Sought::Over } else { Sought::Open(self.have > 0) }
    }

    /// Takes the next bytes, and searches however much has been searched before.
    pub fn take_all(&mut self, bytes: &[u8]) -> Sought {
        let (mut from, mut last) = (0, Sought::Open(self.have > 0));
        for part in bytes.chunks(SEARCHED as usize) {
            self.searched = 0;
            match self.take(part) {
                Sought::Found(head, at) => return Sought::Found(head, from + at),
                sought => last = sought,
            }
            from += part.len();
        }
        last
    }

    /// Behind a place that was found: others could begin in it.
    pub fn behind(&mut self, head: &[u8; PATTERN]) {
        self.take(head.get(1..).unwrap_or(&[]));
    }

    /// Bytes that are no TLS.
    fn pass(&mut self, bytes: usize) {
        self.searched = self.searched.saturating_add(bytes.min(usize::from(u16::MAX)) as u16);
    }
}

/// One direction, from the first byte of TLS on.
#[derive(Debug, Default)]
pub struct Side {
    done: bool,
    head: [u8; HEADER],
    have: u8,
    /// Of the record: its type, and bytes to come.
    kind: u8,
    left: u16,
    /// Bytes of a message that is passed over.
    skip: u32,
    /// The cipher has changed: what follows is not to be read, unless it is another hello.
    changed: bool,
    /// A message that has not come whole, with its header.
    message: Vec<u8>,
}

/// How a direction stands behind some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is under way.
    Open,
    /// More has to come.
    Begun,
    /// No hello will come.
    Done,
    /// It began as TLS and broke its rules.
    Malformed,
    /// There is no memory for its hello.
    NoRoom,
    /// It announces a hello that is longer than any that is read.
    TooLong,
}

/// A hello that has come whole: its type, and its body.
pub type Found<'a> = (u8, &'a [u8]);

impl Side {
    /// As new; what it has allocated stays.
    pub fn clear(&mut self) {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        if message.capacity() > 4096 {
            message = Vec::new();
        }
        *self = Side { message, ..Side::default() };
    }

    /// Bytes that it has allocated.
    pub fn allocated(&self) -> usize {
        self.message.capacity()
    }

    /// Takes the next bytes; `found` gets every hello in them and says whether it has enough. `room` bytes may be allocated.
    pub fn take(&mut self, bytes: &[u8], room: usize, found: &mut impl FnMut(Found<'_>) -> bool) -> Standing {
        if self.done {
            return Standing::Done;
        }
        match self.records(bytes, room, found) {
            Ok(()) => Standing::Begun,
            Err(standing) => {
                self.done = true;
                self.message.clear();
                standing
            }
        }
    }

    /// One record, or a part of one.
    fn records(
        &mut self,
        mut bytes: &[u8],
        room: usize,
        found: &mut impl FnMut(Found<'_>) -> bool,
    ) -> Result<(), Standing> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let have = usize::from(self.have);
                let n = (HEADER - have).min(bytes.len());
                let (new, rest) = bytes.split_at(n);
                if let Some(place) = self.head.get_mut(have..have + n) {
                    place.copy_from_slice(new);
                }
                self.have += n as u8;
                bytes = rest;
                if usize::from(self.have) < HEADER {
                    break;
                }
                self.have = 0;
                let [kind, major, _, high, low] = self.head;
                let len = u16::from_be_bytes([high, low]);
                if kind == DATA {
                    return Err(Standing::Done);
                }
                if !matches!(kind, CHANGE_CIPHER | ALERT | HANDSHAKE | HEARTBEAT)
                    || (major != 3 && major != 0x7f)
                    || usize::from(len) > LONGEST_RECORD
                {
                    return Err(if self.changed { Standing::Done } else { Standing::Malformed });
                }
                (self.kind, self.left) = (kind, len);
                self.changed |= kind == CHANGE_CIPHER;
                continue;
            }
            let (part, rest) = bytes.split_at(usize::from(self.left).min(bytes.len()));
            self.left -= part.len() as u16;
            bytes = rest;
            if self.kind == HANDSHAKE {
                self.handshake(part, room, found)?;
            }
        }
        Ok(())
    }

    fn handshake(
        &mut self,
        mut part: &[u8],
        room: usize,
        found: &mut impl FnMut(Found<'_>) -> bool,
    ) -> Result<(), Standing> {
        while !part.is_empty() {
            if self.skip > 0 {
                let n = part.len().min(self.skip as usize);
                self.skip -= n as u32;
                part = part.get(n..).unwrap_or(&[]);
                continue;
            }
            // What is there of the message: gathered before, or here.
            if self.message.is_empty()
                && let Some((head, body)) = part.split_first_chunk::<4>()
            {
                let (kind, len) = self.header(*head)?;
                if !is_hello(kind) {
                    self.skip = len as u32;
                    part = body;
                    continue;
                }
                if let Some((body, rest)) = body.split_at_checked(len) {
                    part = rest;
                    if found((kind, body)) {
                        return Err(Standing::Done);
                    }
                    continue;
                }
            }
            let known = self.message.first_chunk::<4>().copied();
            let want = match known {
                None => 4,
                Some(head) => 4 + self.header(head)?.1,
            };
            let n = (want - self.message.len()).min(part.len());
            let (new, rest) = part.split_at(n);
            if self.message.capacity() < self.message.len() + n && room < 2 * (self.message.len() + n) {
                return Err(Standing::NoRoom);
            }
            self.message.extend_from_slice(new);
            part = rest;
            let Some((head, body)) = self.message.split_first_chunk::<4>() else { continue };
            let (kind, len) = self.header(*head)?;
            if !is_hello(kind) {
                self.skip = len as u32;
                self.message.clear();
            } else if body.len() == len {
                let enough = found((kind, body));
                self.message.clear();
                if enough {
                    return Err(Standing::Done);
                }
            }
        }
        Ok(())
    }

    /// Type and length of a message.
    fn header(&self, [kind, high, middle, low]: [u8; 4]) -> Result<(u8, usize), Standing> {
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        // Behind a change of cipher everything but another hello in the clear is noise.
        if self.changed && !is_hello(kind) {
            return Err(Standing::Done);
        }
        if is_hello(kind) && len > LONGEST {
            return Err(if self.changed { Standing::Done } else { Standing::TooLong });
        }
        Ok((kind, len))
    }
}

fn is_hello(kind: u8) -> bool {
    matches!(kind, CLIENT_HELLO | SERVER_HELLO | OLD_RETRY)
}

/// Could a record with a hello begin with these bytes?
fn could_be(head: &[u8]) -> bool {
    // Behind the end of a short record the next one begins, which says nothing.
    let end = head
        .get(3..5)
        .and_then(|len| len.first_chunk())
        .map_or(PATTERN, |len| HEADER + usize::from(u16::from_be_bytes(*len)));
    end > HEADER
        && head.iter().take(end).enumerate().all(|(at, byte)| match (at, *byte) {
            (0, byte) => byte == HANDSHAKE,
            (1, byte) => byte == 3,
            (3, byte) => usize::from(byte) <= LONGEST_RECORD >> 8,
            (5, byte) => is_hello(byte),
            (6, byte) => usize::from(byte) <= LONGEST >> 16,
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(len: usize) -> Vec<u8> {
        let mut message = vec![1, 0, (len >> 8) as u8, len as u8, 3, 3];
        message.extend((0..len - 2).map(|n| n as u8));
        message
    }

    fn records(message: &[u8], cut: usize) -> Vec<u8> {
        message.chunks(cut).flat_map(|part| [&[22, 3, 1, 0, part.len() as u8][..], part].concat()).collect()
    }

    fn read(stream: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let (mut seek, mut side, mut all) = (Seek::default(), None::<Side>, Vec::new());
        for part in stream.chunks(cut) {
            let mut found = |(kind, body): Found<'_>| {
                all.push([&[kind][..], body].concat());
                false
            };
            match &mut side {
                Some(side) => drop(side.take(part, 1 << 20, &mut found)),
                None => {
                    if let Sought::Found(head, at) = seek.take(part) {
                        let side = side.insert(Side::default());
                        side.take(&head, 1 << 20, &mut found);
                        side.take(&part[at..], 1 << 20, &mut found);
                    }
                }
            }
        }
        all
    }

    #[test]
    fn a_hello_is_found_however_it_is_cut() {
        let message = hello(180);
        for record in [200, 100, 12, 11, 6, 2, 1] {
            for front in [&b""[..], b"220 ready\r\nSTARTTLS\r\n\x16\x03", &[22; 30]] {
                let stream = [front, &records(&message, record)].concat();
                for cut in [1, 2, 3, 7, 50, 500] {
                    let found = read(&stream, cut);
                    assert_eq!(found.len(), 1, "{record} {cut} {}", front.len());
                    assert_eq!(found[0][1..], message[4..], "{record} {cut}");
                }
            }
        }
    }

    /// Record versions mean nothing (RFC 8446 section 5.1), and servers forgive others (OpenSSL takes any).
    #[test]
    fn versions_are_as_they_may_be() {
        for (record, legacy) in [(0, 3), (4, 3), (5, 3), (0xff, 3), (1, 4), (1, 0), (1, 0xff), (1, 0x7f)] {
            let mut stream = records(&hello(60), 70);
            (stream[2], stream[9]) = (record, legacy);
            assert_eq!(read(&stream, 7).len(), 1, "{record} {legacy}");
        }
    }

    #[test]
    fn a_hello_that_is_too_long_is_no_mistake() {
        for (len, standing) in [(LONGEST, Standing::Begun), (LONGEST + 1, Standing::TooLong)] {
            let [_, high, middle, low] = (len as u32).to_be_bytes();
            let stream = [22, 3, 1, 0x40, 0, 1, high, middle, low, 3, 3];
            assert!(matches!(Seek::default().take(&stream), Sought::Found(..)));
            assert_eq!(Side::default().take(&stream, 1 << 20, &mut |_| true), standing, "{len}");
        }
    }

    #[test]
    fn a_search_need_not_end() {
        let stream = [vec![b'x'; 9000], records(&hello(60), 70)].concat();
        for cut in [1, 5, 4095, 4096, 4097, 10_000] {
            let (mut bounded, mut seek, mut found) = (Seek::default(), Seek::default(), None);
            let mut from = 0;
            for part in stream.chunks(cut) {
                assert!(!matches!(bounded.take(part), Sought::Found(..)));
                if let (None, Sought::Found(_, at)) = (found, seek.take_all(part)) {
                    found = Some(from + at);
                }
                from += part.len();
            }
            assert_eq!(found, Some(9000 + PATTERN), "{cut}");
        }
        // In the middle of one that was found another one can begin.
        let mut seek = Seek::default();
        let outer = [22, 3, 1, 22, 3, 1, 0, 60, 1, 0, 56];
        assert!(matches!(seek.take_all(&outer), Sought::Found(..)));
        seek.behind(&outer);
        assert!(matches!(seek.take_all(&[3, 3, 9, 9]), Sought::Found(_, 3)));
    }

    #[test]
    fn what_is_no_tls_is_let_go() {
        let text = vec![b'x'; 5000];
        assert_eq!(Seek::default().take(&text), Sought::Over);
        assert_eq!(Seek::default().take(&text[..100]), Sought::Open(false));
        assert_eq!(Seek::default().take(b"x\x16\x03"), Sought::Open(true));
        let broken = [records(&hello(20), 100), vec![9; 50]].concat();
        let mut side = Side::default();
        assert_eq!(side.take(&broken, 0, &mut |_| false), Standing::Malformed);
        assert_eq!(side.take(b"more", 0, &mut |_| false), Standing::Done);
    }

    #[test]
    fn claims_cost_nothing() {
        let mut side = Side::default();
        // 64 kB are announced, 100 bytes come.
        let stream = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff, 3, 3][..], &[7; 100]].concat();
        assert_eq!(side.take(&stream, 1 << 20, &mut |_| true), Standing::Begun);
        assert!(side.allocated() < 300, "{}", side.allocated());
        assert_eq!(Side::default().take(&stream, 100, &mut |_| true), Standing::NoRoom);
    }
}
