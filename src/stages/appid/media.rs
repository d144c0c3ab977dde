//! Real time, and peers: STUN and TURN (RFC 8489), RTP and RTCP (RFC 3550), BitTorrent with uTP, its trackers over UDP and its hash table (BEP 3, 5, 15, 29).

use super::fit::{Fit, Is, Like, No, NotYet, begins, best, is, like, u16_at, u32_at};

/// STUN's cookie (RFC 8489 section 5).
const COOKIE: u32 = 0x2112_a442;
/// Bytes of its header.
const STUN: usize = 20;

/// STUN in a datagram: the cookie and a length that is right. Without a cookie (RFC 3489) attributes must fill the message, and somebody must answer.
pub fn stun_datagram(bytes: &[u8]) -> Fit {
    let (Some(kind), Some(len), Some(cookie)) = (u16_at(bytes, 0), u16_at(bytes, 2), u32_at(bytes, 4)) else {
        return No;
    };
    if kind & 0xc000 != 0 || usize::from(len) + STUN != bytes.len() {
        return No;
    }
    if cookie == COOKIE {
        return is(len.is_multiple_of(4));
    }
    let known =
        matches!(kind, 0x0001 | 0x0101 | 0x0111 | 0x0002 | 0x0102 | 0x0112 | 0x0003 | 0x0103 | 0x0113);
    like(known && attributes(bytes.get(STUN..).unwrap_or(&[])))
}

/// Do attributes fill it?
fn attributes(mut bytes: &[u8]) -> bool {
    while let Some(len) = u16_at(bytes, 2) {
        let Some(rest) = bytes.get(4 + usize::from(len).next_multiple_of(4)..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

/// STUN over TCP, plain or behind a length (RFC 8489 section 6.2.2, RFC 4571).
pub fn stun_stream(bytes: &[u8]) -> Fit {
    let plain = |bytes: &[u8]| match (u16_at(bytes, 0), u16_at(bytes, 2)) {
        // Methods are numbered from 1 on, and few (section 18.2).
        (Some(kind), _) if kind & 0xfe00 != 0 || kind & 0xef == 0 => No,
        (_, Some(len)) if !len.is_multiple_of(4) || len > 2048 => No,
        (_, Some(_)) => begins(bytes.get(4..).unwrap_or(&[]), &COOKIE.to_be_bytes()),
        _ => NotYet,
    };
    let framed = match u16_at(bytes, 0) {
        Some(20..=1500) => plain(bytes.get(2..).unwrap_or(&[])),
        Some(_) => No,
        None => NotYet,
    };
    best([plain(bytes), framed])
}

/// RTP: version 2, a type that is in use, room for what the header names. Another packet of the same source has to follow ([`follows`]).
pub fn rtp(bytes: &[u8]) -> Fit {
    let [first @ 0x80..=0xbf, kind, ..] = bytes else { return No };
    let payload = kind & 0x7f;
    let head = 12 + 4 * usize::from(first & 15);
    like(matches!(payload, 0..=34 | 96..=127) && bytes.len() > head && u32_at(bytes, 8) != Some(0))
}

/// Does a packet of RTP come shortly after another one of the same source?
pub fn follows(before: &[u8; 12], bytes: &[u8]) -> bool {
    let (source, number) = (u32_at(bytes, 8), u16_at(bytes, 2));
    let ahead = number.zip(u16_at(before, 2)).map(|(now, before)| now.wrapping_sub(before));
    source == u32_at(before, 8) && matches!(ahead, Some(1..=32 | 0xffe0..=0xffff))
}

/// RTCP: a report first, and packets that fill the datagram.
pub fn rtcp(bytes: &[u8]) -> Fit {
    if !matches!(bytes, [0x80..=0xbf, 200 | 201, ..]) {
        return No;
    }
    let (mut rest, mut packets) = (bytes, 0);
    while let [0x80..=0xbf, 192..=223, ..] = rest {
        let Some(words) = u16_at(rest, 2) else { return No };
        let Some(behind) = rest.get(4 + 4 * usize::from(words)..) else { return No };
        (rest, packets) = (behind, packets + 1);
    }
    match (rest.len(), packets) {
        (0, 2..) => Is,
        (0 | 14, _) => Like, // encrypted reports have an index and a tag behind them (RFC 3711 section 3.4)
        _ => No,
    }
}

/// BitTorrent between peers, either side (BEP 3).
pub fn bittorrent(bytes: &[u8]) -> Fit {
    begins(bytes, b"\x13BitTorrent protocol")
}

/// In a datagram: uTP (BEP 29), a tracker's greeting (BEP 15), peers looked for on the local network (BEP 14).
pub fn bittorrent_datagram(bytes: &[u8]) -> Fit {
    match bytes {
        // Its number, the action "connect".
        [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, _, _, _, _] => return Is,
        [b'B', b'T', b'-', b'S', b'E', b'A', b'R', b'C', b'H', ..] => return Is,
        _ => {}
    }
    let Some(head @ &[first, extension, ..]) = bytes.first_chunk::<20>() else { return No };
    let (kind, version) = (first >> 4, first & 15);
    if version != 1 || kind > 4 || extension > 2 {
        return No;
    }
    let (window, number, answered) = (u32_at(head, 12), u16_at(head, 16), u16_at(head, 18));
    // Whoever opens begins at 1 and answers nothing; extensions are a list in the rest of it.
    let opens = number == Some(1) && answered == Some(0) && u32_at(head, 8) == Some(0);
    let extended = match (extension, bytes.get(20..22)) {
        (0, _) => true,
        (_, Some([next, len])) => *next <= 2 && *len >= 4 && bytes.len() >= 22 + usize::from(*len),
        _ => false,
    };
    let window = window.is_some_and(|window| window <= 1 << 26);
    match kind {
        4 => like(opens && extended),
        2 | 3 => like(window && extended && bytes.len() <= 64),
        _ => like(window && extended && u16_at(head, 2) != Some(0)),
    }
}

/// BitTorrent's hash table: a dictionary with a question, an answer or an error first (BEP 5).
pub fn dht(bytes: &[u8]) -> Fit {
    let starts = [&b"d1:ad2:id20:"[..], b"d1:rd2:id20:", b"d1:eli20", b"d2:ip6:", b"d2:ip4:", b"d1:ad"];
    best(starts.map(|start| is(bytes.starts_with(start))))
}
