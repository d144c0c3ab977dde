//! What hosts need to live on a network: DNS (RFC 1035) with mDNS, LLMNR and NetBIOS (RFC 1002), DHCP (RFC 2131), NTP (RFC 5905), SNMP (RFC 3416), LDAP (RFC 4511), Kerberos (RFC 4120),
//! RADIUS (RFC 2865), syslog (RFC 5424, 3164), TFTP (RFC 1350).

use super::fit::{Fit, HEAD, Is, Like, No, NotYet, ber, best, either, is, like, need, u16_at, u32_at, whole};
use crate::stages::dns::{Header, Message, shape};

/// DNS in a datagram. Nothing in a message says that it is one, so its shape must do (`dns::shape`); what is not so plain needs an answer, or its port.
pub fn dns_datagram(bytes: &[u8]) -> Fit {
    let Some(message) = Message::read(bytes) else { return No };
    if netbios_name(bytes) {
        return No;
    }
    if shape::is_dns(&message, bytes.len()) {
        return Is;
    }
    let [questions, answers, ..] = message.header.counts;
    let plain =
        message.header.flags & 0x0040 == 0 && message.header.opcode() <= 5 && message.header.rcode() <= 10;
    like(plain && questions <= 16 && answers <= 512 && (questions > 0 || answers > 0))
}

/// DNS over TCP: a length, a header, and the first label of the question.
pub fn dns_stream(bytes: &[u8]) -> Fit {
    const PREFIX: usize = 2;
    const HEADER: usize = 12;
    let Some(len) = u16_at(bytes, 0) else { return NotYet };
    if len < 17 {
        return No;
    }
    let Some(head) = bytes.get(PREFIX..PREFIX + HEADER) else {
        // Opcode, Z, one question: as far as they are here.
        let masks = [(2, 0x78, 0), (3, 0x40, 0), (4, 0xff, 0), (5, 0xff, 1)];
        let fits = |(at, mask, value): (usize, u8, u8)| {
            bytes.get(PREFIX + at).is_none_or(|byte| byte & mask == value)
        };
        return if masks.into_iter().all(fits) { NotYet } else { No };
    };
    if !Header::read(head).is_some_and(|header| shape::is_header(&header)) {
        return No;
    }
    match bytes.get(PREFIX + HEADER..) {
        Some([len @ 1..=63, label @ ..]) => {
            let whole = label.get(..usize::from(*len));
            let plain = whole.unwrap_or(label).iter().all(u8::is_ascii_graphic);
            match (plain, whole.is_some() || bytes.len() >= HEAD) {
                (true, true) => Is,
                (true, false) => NotYet,
                (false, _) => No,
            }
        }
        Some([0, 0, 1..=255, 0, 1, ..]) => Is,
        Some([0, ..] | []) => NotYet,
        _ => No,
    }
}

/// A name of NetBIOS: 32 letters from A to P (RFC 1001 section 14.1).
fn netbios_label(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(32))
        && bytes.get(1..33).is_some_and(|label| label.iter().all(|b| (b'A'..=b'P').contains(b)))
}

/// A message of its name service.
fn netbios_name(bytes: &[u8]) -> bool {
    bytes.get(12..).is_some_and(netbios_label)
}

/// One whose name is damaged: its length is right, and the rest of the header.
fn damaged_name(bytes: &[u8]) -> bool {
    let begins = bytes.get(12..17).is_some_and(|label| {
        label.starts_with(&[32]) && label.iter().skip(1).all(|b| (b'A'..=b'P').contains(b))
    });
    begins && u16_at(bytes, 4).is_some_and(|questions| questions <= 1)
}

/// NetBIOS, names and datagrams.
pub fn netbios(bytes: &[u8]) -> Fit {
    if netbios_name(bytes) {
        return Is;
    }
    match bytes {
        [0x10..=0x16, 0..=0x0f, _, _, _, _, _, _, 0, 138, ..] => {
            let len = u16_at(bytes, 10).map(usize::from);
            // An error has no length; of the others the datagram may be a fragment.
            is(bytes.first() == Some(&0x13) || len.is_some_and(|len| len + 14 >= bytes.len()))
        }
        _ => like(damaged_name(bytes)),
    }
}

/// DHCP: its cookie (RFC 2131 section 3); BOOTP has none, but the same first fields and 300 bytes.
pub fn dhcp(bytes: &[u8]) -> Fit {
    match bytes {
        [1 | 2, 1..=40, 0..=16, 0..=16, ..] => match u32_at(bytes, 236) {
            Some(0x6382_5363) => Is,
            Some(_) => like(bytes.len() >= 300),
            None => No,
        },
        _ => No,
    }
}

/// NTP. A client that says nothing of itself but the time is that; whatever else is in the form needs an answer, or its port.
pub fn ntp(bytes: &[u8]) -> Fit {
    let Some((first, rest)) = bytes.split_first() else { return No };
    let (version, mode) = (first >> 3 & 7, first & 7);
    if !(1..=4).contains(&version) {
        return No;
    }
    match mode {
        1..=5 => {
            let plain = bytes.len() == 48
                || (bytes.len() > 48 && bytes.len() <= 512 && bytes.len().is_multiple_of(4));
            let stratum = rest.first().copied().unwrap_or(255);
            let silent = bytes.get(1..40).is_some_and(|fields| fields.iter().all(|b| *b == 0));
            match (plain, mode) {
                (false, _) => No,
                (true, 3) if silent && bytes.len() == 48 => Is,
                (true, _) => like(stratum <= 16),
            }
        }
        // Control (RFC 9327): the data's length.
        6 => like(
            u16_at(bytes, 10).is_some_and(|len| bytes.len() >= 12 + usize::from(len)) && bytes.len() <= 512,
        ),
        7 => like(
            bytes.len() >= 8 && rest.get(1).is_some_and(|implementation| matches!(implementation, 0 | 2 | 3)),
        ),
        _ => No,
    }
}

/// SNMP: a version, and a community or what version 3 has instead (RFC 3412 section 6).
pub fn snmp(bytes: &[u8]) -> Fit {
    let is_it = || {
        let (len, rest) = ber(bytes, 0x30)?;
        let (1, [version @ (0 | 1 | 3), rest @ ..]) = ber(rest, 2)? else { return Err(No) };
        if len > rest.len() + 3 {
            return Err(No); // more than the datagram
        }
        if *version == 3 {
            return ber(rest, 0x30).map(|_| Is);
        }
        let (community, rest) = ber(rest, 4)?;
        let pdu = rest.get(community).ok_or(No)?;
        Ok(is((0xa0..=0xa8).contains(pdu)))
    };
    whole(either(is_it()))
}

/// LDAP, either side, over TCP or in a datagram: a number, and an operation that begins as it should (RFC 4511 section 4).
pub fn ldap(bytes: &[u8]) -> Fit {
    either((|| {
        let (len, rest) = ber(bytes, 0x30)?;
        let (number, rest) = ber(rest, 2)?;
        if !(1..=4).contains(&number) || len < 5 {
            return Err(No);
        }
        let rest = need(rest.get(number..))?;
        let operation = *need(rest.first())?;
        let (len, body) = match ber(rest, operation) {
            Err(NotYet) if is_operation(operation) => return Err(NotYet),
            found => found?,
        };
        Ok(match operation {
            0x60 => is(matches!(need(body.get(..3))?, [2, 1, 2 | 3])),
            0x63 | 0x64 => is(*need(body.first())? == 4),
            0x77 => is(*need(body.first())? == 0x80),
            0x61 | 0x65 | 0x67 | 0x69 | 0x6b | 0x6d | 0x6f | 0x78 => is(need(body.get(..2))? == [10, 1]),
            0x42 => is(len == 0),
            0x4a | 0x66 | 0x68 | 0x6c | 0x6e | 0x50 | 0x73 | 0x79 => Like,
            _ => No,
        })
    })())
}

fn is_operation(tag: u8) -> bool {
    matches!(tag, 0x60..=0x6f | 0x42 | 0x4a | 0x50 | 0x73 | 0x77..=0x79)
}

/// LDAP without a connection (RFC 1798).
pub fn ldap_datagram(bytes: &[u8]) -> Fit {
    whole(ldap(bytes))
}

/// Kerberos: what kind of message, and that it is version 5 (RFC 4120 section 5.10), which comes first in each.
fn kerberos(bytes: &[u8]) -> Fit {
    either((|| {
        let tag = *need(bytes.first())?;
        let kind = match tag {
            0x6a..=0x6f | 0x74..=0x76 | 0x7e => tag & 0x1f,
            _ => return Err(No),
        };
        let (_, rest) = ber(bytes, tag)?;
        let (_, rest) = ber(rest, 0x30)?;
        let field = *need(rest.first())?;
        // The fields are numbered from 0, but those of a request from 1.
        if !matches!(field, 0xa0 | 0xa1) {
            return Err(No);
        }
        let (3, rest) = ber(rest, field)? else { return Err(No) };
        let version = need(rest.get(..3))?;
        Ok(is(version == [2, 1, 5] && (10..=30).contains(&kind)))
    })())
}

/// Kerberos over UDP.
pub fn krb5_datagram(bytes: &[u8]) -> Fit {
    whole(kerberos(bytes))
}

/// Kerberos over TCP, behind a length (RFC 4120 section 7.2.2).
pub fn krb5_stream(bytes: &[u8]) -> Fit {
    match u32_at(bytes, 0) {
        None if bytes.first().is_none_or(|high| *high == 0) => NotYet,
        Some(16..=0x00ff_ffff) => kerberos(bytes.get(4..).unwrap_or(&[])),
        _ => No,
    }
}

/// RADIUS: code, length, and attributes that fill it.
pub fn radius(bytes: &[u8]) -> Fit {
    let known = matches!(bytes.first(), Some(1..=5 | 11..=13 | 40..=45));
    let Some(len) = u16_at(bytes, 2).map(usize::from).filter(|len| known && *len <= bytes.len()) else {
        return No;
    };
    let Some(mut attributes) = bytes.get(20..len).filter(|_| bytes.len() <= len + 4) else { return No };
    let mut found = 0;
    while let [kind, len, ..] = attributes {
        match attributes.get(usize::from(*len)..) {
            Some(rest) if *len >= 2 && *kind != 0 => attributes = rest,
            _ => return No,
        }
        found += 1;
    }
    if !attributes.is_empty() {
        return No;
    }
    best([is(found >= 2), like(found > 0 || len == 20)])
}

/// Syslog: facility and severity in angle brackets, then a version, a date or text.
pub fn syslog(bytes: &[u8]) -> Fit {
    let Some((b'<', rest)) = bytes.split_first() else { return if bytes.is_empty() { NotYet } else { No } };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = rest.iter().take(digits.min(3)).fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    match rest.get(digits..) {
        Some([b'>', text @ ..]) if (1..=3).contains(&digits) => match text.first() {
            None => NotYet,
            // 23 facilities of 8 severities; some write more.
            Some(first) if first.is_ascii_graphic() || *first == b' ' => {
                if number <= 191 {
                    Is
                } else {
                    Like
                }
            }
            Some(_) => No,
        },
        Some([]) if digits <= 3 => NotYet,
        _ => No,
    }
}

/// The same as a datagram.
pub fn syslog_datagram(bytes: &[u8]) -> Fit {
    whole(syslog(bytes)).min(is(bytes.iter().take(64).all(|b| *b >= 0x20 || matches!(b, 0 | 9 | 10 | 13))))
}

/// TFTP: who asks for a file says its name and how it shall come. What follows comes from another port: blocks one way, their numbers the other.
pub fn tftp(bytes: &[u8]) -> Fit {
    let rest = match bytes {
        [0, 1 | 2, rest @ ..] => rest,
        [0, 3, number @ ..] => {
            return like(
                bytes.len() <= 516
                    && number.len() > 2
                    && u16_at(number, 0).is_some_and(|n| (1..=8).contains(&n)),
            );
        }
        [0, 4, high, low] => return like([*high, *low] <= [0, 8]),
        _ => return No,
    };
    let mut parts = rest.splitn(3, |b| *b == 0);
    let (name, mode, more) = (parts.next(), parts.next(), parts.next());
    let name = name.is_some_and(|name| !name.is_empty() && name.iter().all(|b| (0x20..0x7f).contains(b)));
    let modes = [&b"octet"[..], b"netascii", b"mail"];
    is(name
        && more.is_some()
        && mode.is_some_and(|mode| modes.iter().any(|known| mode.eq_ignore_ascii_case(known))))
}
