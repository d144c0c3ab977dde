//! Protocols that encrypt: TLS (RFC 8446) and SSL, DTLS (RFC 9147), QUIC (RFC 9000, Google's before it), WireGuard, IKE (RFC 7296).

use super::fit::{Fit, Is, Like, No, NotYet, is, like, u16_at, u32_at};

const CHANGE: u8 = 20;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const DATA: u8 = 23;
/// Longest record of TLS with what encryption adds (RFC 5246 section 6.2.3).
const LONGEST_RECORD: u16 = (1 << 14) + 2048;

/// TLS, who asks: a ClientHello, in records of any size; or that of SSL 2.
pub fn tls_client(bytes: &[u8]) -> Fit {
    match bytes {
        [high @ 0x80..=0xff, ..] => old_hello(bytes, *high),
        _ => tls(bytes, 1),
    }
}

/// TLS, who answers: a ServerHello, or an alert.
pub fn tls_server(bytes: &[u8]) -> Fit {
    tls(bytes, 2)
}

fn tls(bytes: &[u8], message: u8) -> Fit {
    match bytes {
        [HANDSHAKE, 3, 0..=4, ..] => hello(bytes, message),
        [ALERT, 3, 0..=4, 0, 2, 1 | 2, what, ..] => is(*what <= 120),
        // In the middle of a connection, encrypted.
        [ALERT | DATA | CHANGE, 3, 1..=4, high, low, ..] => {
            let len = u16::from_be_bytes([*high, *low]);
            match bytes {
                [ALERT, _, _, 0, 2, ..] if bytes.len() < 7 => NotYet,
                _ => like((1..=LONGEST_RECORD).contains(&len)),
            }
        }
        [20..=23, 3, 0..=4, _] | [20..=23, 3, 0..=4] | [20..=23, 3] | [20..=23] | [] => NotYet,
        _ => No,
    }
}

/// TLS in the middle of a connection, encrypted: a record, for one that nobody saw begin.
pub fn tls_record(bytes: &[u8]) -> Fit {
    match bytes {
        [CHANGE, 3, 1..=3, 0, 1, 1, ..] => Is,
        // An alert of two bytes with what encryption adds; data with a checksum at least.
        [ALERT, 3, 1..=3, 0, len, _, ..] => is(matches!(len, 2 | 18..=80)),
        [DATA, 3, 1..=3, high, low, _, ..] => {
            is((17..=LONGEST_RECORD).contains(&u16::from_be_bytes([*high, *low])))
        }
        _ if bytes.len() < 6 => NotYet,
        _ => No,
    }
}

/// The first bytes of a hello, out of one record or out of several: its type, its length and its version.
fn hello(mut bytes: &[u8], message: u8) -> Fit {
    let (mut head, mut n) = ([0u8; 6], 0);
    while n < head.len() {
        let rest = match bytes {
            [HANDSHAKE, 3, 0..=4, _, _, rest @ ..] => rest,
            [HANDSHAKE, 3, 0..=4, ..] | [HANDSHAKE, 3] | [HANDSHAKE] | [] if bytes.len() < 5 => {
                return NotYet;
            }
            _ => return No,
        };
        let len = u16_at(bytes, 3).unwrap_or(0);
        if !(1..=LONGEST_RECORD).contains(&len) {
            return No;
        }
        let record = rest.get(..usize::from(len)).unwrap_or(rest);
        for (to, from) in head.iter_mut().skip(n).zip(record) {
            (*to, n) = (*from, n + 1);
        }
        bytes = rest.get(usize::from(len)..).unwrap_or(&[]);
        // Type, and a length that is a hello's: random, version and lists, or a name of any length (RFC 8446 section 4.1.2).
        if (n > 0 && head[0] != message) || (n > 1 && head[1] > 1) {
            return No;
        }
        if n < head.len() && bytes.is_empty() {
            return NotYet;
        }
    }
    let [_, _, high, low, major, minor] = head;
    let len = u16::from_be_bytes([high, low]);
    let known = major == 3 && minor <= 4 || matches!(major, 0x7f | 0xfb);
    is(known && (head[1] == 1 || len >= 38))
}

/// The hello of SSL 2 (RFC 5246 appendix E.2): ciphers of three bytes, no session or one of 16, a challenge of 16 to 32.
fn old_hello(bytes: &[u8], high: u8) -> Fit {
    let Some(head) = bytes.get(..11) else {
        let begins = match bytes {
            [_, _, kind, ..] if *kind != 1 => false,
            [_, _, _, major, ..] => matches!(major, 0 | 3),
            _ => true,
        };
        return if begins { NotYet } else { No };
    };
    let word = |at: usize| u16_at(head, at).unwrap_or(0);
    let (len, ciphers, session, challenge) = (word(0) & 0x7fff, word(5), word(7), word(9));
    let version = matches!(word(3), 0x0002 | 0x0300..=0x0303);
    let lengths = ciphers.is_multiple_of(3)
        && (3..512).contains(&ciphers)
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge)
        && len == 9 + ciphers + session + challenge;
    is(head.get(2) == Some(&1) && version && lengths && high & 0x40 == 0)
}

/// DTLS: a hello in epoch 0, or an alert; anything else in its records may be.
pub fn dtls(bytes: &[u8]) -> Fit {
    let [kind @ 20..=25, major, minor, e, p, .., high, low] = bytes.get(..13).unwrap_or(&[]) else {
        return No;
    };
    let version = matches!((major, minor), (0xfe, 0xff | 0xfd | 0xfc) | (1, 0));
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let Some(record) = bytes.get(13..13 + len).filter(|_| version && len > 0) else { return No };
    match (kind, [*e, *p], record) {
        (22, [0, 0], [1..=3, _, _, _, _, _, _, _, _, _, _, _, major, ..]) => is(matches!(major, 0xfe | 1)),
        (22, [0, 0], _) | (21, [0, 0], [1 | 2, _]) => Like,
        _ => like(*major == 0xfe),
    }
}

/// QUIC: a long header of a version that there is (RFC 9000 section 17.2, RFC 9369, drafts, Google's, Meta's), or a list of versions.
pub fn quic(bytes: &[u8]) -> Fit {
    match bytes {
        // Google's before it had a long header: a connection of 8 bytes, then the version (Q009 to Q043).
        [flags, _, _, _, _, _, _, _, _, b'Q', b'0', tens @ b'0'..=b'4', b'0'..=b'9', _, ..]
            if flags & 0xc9 == 0x09 =>
        {
            is(*tens <= b'4')
        }
        [0x80..=0xff, ..] => {
            let Some(version) = u32_at(bytes, 1) else { return No };
            // Two lengths of at most four bits each in one byte.
            let old = matches!(version, 0x5130_3434..=0x5130_3436 | 0x5130_3336..=0x5130_3339);
            if old {
                return is(bytes.len() > 20);
            }
            let lengths = connections(bytes.get(5..).unwrap_or(&[]));
            match (lengths, version) {
                // A list of versions, of which one at least is known and none is 0 (RFC 9000 section 17.2.1).
                (Some(rest), 0) => {
                    let (list, left) = rest.as_chunks::<4>();
                    let mut list = list.iter().map(|version| u32::from_be_bytes(*version));
                    let known = list.clone().any(is_version);
                    is(left.is_empty() && known && list.len() <= 32 && list.all(|version| version != 0))
                }
                (Some(rest), version) => is(is_version(version) && rest.len() > 4),
                _ => No,
            }
        }
        _ => No,
    }
}

/// Versions that there are, drafts, and those that have no meaning (RFC 9000 section 15).
fn is_version(version: u32) -> bool {
    matches!(
        version,
        1 | 0x6b33_43cf | 0x709a_50c4 | 0xff00_0001..=0xff00_0022 | 0xface_b000..=0xface_b01f
        | 0x5130_3433..=0x5130_3439 | 0x5130_3530 | 0x5430_3438..=0x5430_3439 | 0x5430_3530..=0x5430_3531
    ) || version & 0x0f0f_0f0f == 0x0a0a_0a0a
}

/// Behind the ids of both ends, of at most 20 bytes each.
fn connections(bytes: &[u8]) -> Option<&[u8]> {
    let (destination, rest) = bytes.split_first()?;
    let rest = rest.get(usize::from(*destination)..).filter(|_| *destination <= 20)?;
    let (source, rest) = rest.split_first()?;
    rest.get(usize::from(*source)..).filter(|_| *source <= 20)
}

/// WireGuard: messages of fixed length, three zero bytes in each. An initiation without cookie ends in 16 more of them; others need an answer.
pub fn wireguard(bytes: &[u8]) -> Fit {
    match (bytes, bytes.len()) {
        ([1, 0, 0, 0, ..], 148) => match bytes.last_chunk::<16>() {
            Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => Is,
            _ => Like,
        },
        ([2, 0, 0, 0, ..], 92) | ([3, 0, 0, 0, ..], 64) => Like,
        ([4, 0, 0, 0, ..], len) => like(len >= 32 && len.is_multiple_of(16)),
        _ => No,
    }
}

/// IKE, versions 1 and 2, behind the mark that UDP port 4500 has or without it (RFC 3948 section 2.2).
pub fn ike(bytes: &[u8]) -> Fit {
    let message = bytes.strip_prefix(&[0, 0, 0, 0]).unwrap_or(bytes);
    let Some(head) = message.get(..28) else { return No };
    let [i0, i1, i2, i3, i4, i5, i6, i7, ..] = head else { return No };
    let initiator = [i0, i1, i2, i3, i4, i5, i6, i7].iter().any(|b| **b != 0);
    let (next, version, exchange) = (head.get(16), head.get(17), head.get(18));
    let known =
        matches!((version, exchange), (Some(0x10), Some(1..=6 | 32 | 33)) | (Some(0x20), Some(34..=43)));
    let payload = matches!(next, Some(0..=21 | 33..=54 | 128..=137));
    is(initiator && known && payload && u32_at(head, 24).is_some_and(|len| len as usize == message.len()))
}
