//! Hellos out of datagrams: DTLS 1.0 to 1.3 (RFC 6347 section 4, RFC 9147 section 4), their messages cut into fragments that may come in any order.

use super::hello::{CLIENT_HELLO, SERVER_HELLO};
use super::record::{LONGEST, Standing};

/// A record header.
const RECORD: usize = 13;
/// A handshake header.
const MESSAGE: usize = 12;
/// Pieces of a message that have a hole between them, at most.
const MOST_PIECES: usize = 16;

const HANDSHAKE: u8 = 22;

/// Hellos of one side that come in fragments: two, since a second one may follow a cookie before the first is whole (RFC 6347 section 4.2.1).
#[derive(Debug, Default)]
pub struct Gathering {
    messages: [Message; 2],
    /// Fragments came that say different things of the same bytes; the first counts.
    pub differs: bool,
}

/// One of them.
#[derive(Debug, Default)]
struct Message {
    /// Type and number of the message.
    of: Option<(u8, u16)>,
    bytes: Vec<u8>,
    /// What has come: from, to; in order, none touches the next.
    pieces: Vec<(u32, u32)>,
}

/// Could a datagram be DTLS?
pub fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram, [20..=26, 0xfe, _, _, _, ..])
        || matches!(datagram, [20..=26, 0x01, 0x00, _, _, ..] if datagram.len() > RECORD)
}

/// Has it a record with a handshake message in it that can be read? It may be behind others.
pub fn has_handshake(mut datagram: &[u8]) -> bool {
    while let Some((head, rest)) = datagram.split_first_chunk::<RECORD>() {
        let [kind, _, _, epoch_high, epoch_low, .., high, low] = *head;
        if kind == HANDSHAKE && (epoch_high, epoch_low) == (0, 0) {
            return true;
        }
        datagram = rest.get(usize::from(u16::from_be_bytes([high, low]))..).unwrap_or(&[]);
    }
    false
}

impl Gathering {
    /// As new.
    pub fn clear(&mut self) {
        self.messages.iter_mut().for_each(Message::clear);
        self.differs = false;
    }

    /// A message has begun and is not whole.
    pub fn is_begun(&self) -> bool {
        self.messages.iter().any(|message| message.of.is_some())
    }

    /// Bytes that it has allocated.
    pub fn allocated(&self) -> usize {
        self.messages.iter().map(|message| message.bytes.capacity()).sum()
    }

    /// Takes one datagram of this side.
    pub fn take(
        &mut self,
        mut datagram: &[u8],
        room: usize,
        found: &mut impl FnMut((u8, &[u8])) -> bool,
    ) -> Standing {
        while let Some((head, rest)) = datagram.split_first_chunk::<RECORD>() {
            let [kind, _, _, epoch_high, epoch_low, .., high, low] = *head;
            let len = usize::from(u16::from_be_bytes([high, low]));
            let Some((record, rest)) = rest.split_at_checked(len) else { return Standing::Malformed };
            datagram = rest;
            // Behind epoch 0 all is encrypted. Data may overtake a hello.
            if kind != HANDSHAKE || (epoch_high, epoch_low) != (0, 0) {
                continue;
            }
            match self.messages(record, room, found) {
                Standing::Open | Standing::Begun => {}
                standing => return standing,
            }
        }
        if self.is_begun() { Standing::Begun } else { Standing::Open }
    }

    fn messages(
        &mut self,
        mut record: &[u8],
        room: usize,
        found: &mut impl FnMut((u8, &[u8])) -> bool,
    ) -> Standing {
        while let Some((head, rest)) = record.split_first_chunk::<MESSAGE>() {
            let [kind, l2, l1, l0, n1, n0, o2, o1, o0, f2, f1, f0] = *head;
            let number = |a, b, c| u32::from_be_bytes([0, a, b, c]);
            let (len, offset, part) = (number(l2, l1, l0), number(o2, o1, o0), number(f2, f1, f0));
            let Some((part, rest)) = rest.split_at_checked(part as usize) else { return Standing::Malformed };
            record = rest;
            let end = offset + part.len() as u32;
            if end > len {
                return Standing::Malformed;
            }
            if !matches!(kind, CLIENT_HELLO | SERVER_HELLO) {
                continue;
            }
            if len as usize > LONGEST {
                return Standing::TooLong;
            }
            if part.len() as u32 == len {
                if found((kind, part)) {
                    return Standing::Done;
                }
                continue;
            }
            let [even, odd] = &mut self.messages;
            let message = if n0 & 1 == 0 { even } else { odd };
            let of = (kind, u16::from_be_bytes([n1, n0]));
            if message.of != Some(of) || message.bytes.len() > len as usize {
                message.clear();
                message.of = Some(of);
            }
            if message.bytes.len() < end as usize {
                if message.bytes.capacity() < end as usize && room < 2 * end as usize {
                    return Standing::NoRoom;
                }
                message.bytes.resize(end as usize, 0);
            }
            self.differs |= message.write(offset, part);
            if !message.add(offset, end) {
                return Standing::Malformed;
            }
            if message.pieces.first() == Some(&(0, len)) {
                let enough = found((kind, &message.bytes));
                message.clear();
                if enough {
                    return Standing::Done;
                }
            }
        }
        Standing::Open
    }
}

impl Message {
    fn clear(&mut self) {
        self.of = None;
        self.pieces.clear();
        self.bytes.clear();
        if self.bytes.capacity() > 4096 {
            self.bytes = Vec::new();
        }
    }

    /// Writes a piece where nothing has come yet. True if something has, and says something else.
    fn write(&mut self, offset: u32, part: &[u8]) -> bool {
        let mut differs = false;
        let place = self.bytes.iter_mut().skip(offset as usize).zip(part);
        for (at, (old, new)) in (offset..).zip(place) {
            if self.pieces.iter().any(|&(from, to)| (from..to).contains(&at)) {
                differs |= old != new;
            } else {
                *old = *new;
            }
        }
        differs
    }

    /// Joins a piece to the others. False if there are too many.
    fn add(&mut self, mut from: u32, mut to: u32) -> bool {
        self.pieces.retain(|&(a, b)| {
            let touches = a <= to && from <= b;
            if touches {
                (from, to) = (from.min(a), to.max(b));
            }
            !touches
        });
        let at = self.pieces.partition_point(|&(a, _)| a < from);
        self.pieces.insert(at, (from, to));
        self.pieces.len() <= MOST_PIECES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_come_in_any_order() {
        let body: Vec<u8> = (0..100).collect();
        let fragment = |from: usize, to: usize| {
            let mut out = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, (12 + to - from) as u8];
            out.extend([1, 0, 0, 100, 0, 0, 0, 0, from as u8, 0, 0, (to - from) as u8]);
            out.extend(&body[from..to]);
            out
        };
        let parts = [fragment(0, 40), fragment(40, 70), fragment(60, 100)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let (mut side, mut all) = (Gathering::default(), Vec::new());
            for n in order {
                assert!(is_dtls(&parts[n]));
                side.take(&parts[n], 1 << 20, &mut |(_, body)| {
                    all.push(body.to_vec());
                    false
                });
            }
            assert_eq!(all, std::slice::from_ref(&body), "{order:?}");
        }
        // Of two copies the first counts, and that they differ is told.
        let (mut side, mut all) = (Gathering::default(), Vec::new());
        let mut other = fragment(40, 100);
        other[RECORD + MESSAGE + 5] ^= 1;
        for part in [&parts[1], &other, &parts[0]] {
            side.take(part, 1 << 20, &mut |(_, body)| {
                all.push(body.to_vec());
                false
            });
        }
        assert!(side.differs && all == std::slice::from_ref(&body));
        let mut future = parts[0].clone();
        future[2] = 0x11;
        assert!(is_dtls(&future) && has_handshake(&future));
        let mut data = [vec![23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 7, 7], parts[0].clone()].concat();
        assert!(has_handshake(&data));
        data[15] = 23;
        assert!(!has_handshake(&data) && !has_handshake(&data[..14]));
        let mut lies = parts[1].clone();
        lies[24] = 200;
        assert_eq!(Gathering::default().take(&lies, 1 << 20, &mut |_| true), Standing::Malformed);
        assert_eq!(Gathering::default().take(&parts[1], 10, &mut |_| true), Standing::NoRoom);
    }
}
