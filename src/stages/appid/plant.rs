//! Control systems: DNP3 (IEEE 1815), Modbus over TCP, EtherNet/IP.

use super::fit::{Fit, No, NotYet, is, like, u16_at, u32_at, u32_le_at, whole};

/// DNP3, either side, over TCP or in a datagram: the header of its link layer has a checksum.
pub fn dnp3(bytes: &[u8]) -> Fit {
    match bytes {
        [5, 0x64, len @ 5..=255, rest @ ..] => match rest {
            [control, d, e, s, t, low, high, ..] => {
                is(checksum(&[5, 0x64, *len, *control, *d, *e, *s, *t]) == u16::from_le_bytes([*low, *high]))
            }
            _ => NotYet,
        },
        [5, 0x64] | [5] | [] => NotYet,
        _ => No,
    }
}

/// The same as a datagram.
pub fn dnp3_datagram(bytes: &[u8]) -> Fit {
    whole(dnp3(bytes))
}

/// CRC-16/DNP.
fn checksum(bytes: &[u8]) -> u16 {
    let crc = bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa6bc } else { crc >> 1 })
    });
    !crc
}

/// Modbus, either side: number, protocol 0, a length of few bytes, a unit and a function. Both must say so.
pub fn modbus(bytes: &[u8]) -> Fit {
    let Some(len) = u16_at(bytes, 4) else {
        let zero = bytes.get(2..).unwrap_or(&[]).iter().all(|b| *b == 0);
        return if zero { NotYet } else { No };
    };
    if u16_at(bytes, 2) != Some(0) || !(2..=254).contains(&len) {
        return No;
    }
    match bytes.get(7) {
        None => NotYet,
        Some(1..=6) => like(len >= 3),
        Some(function) => like(matches!(function, 7..=24 | 43 | 0x81..=0x98 | 0xab)),
    }
}

/// EtherNet/IP, either side: a command, a length, no status, no options (CIP volume 2 section 2-3).
pub fn enip(bytes: &[u8]) -> Fit {
    let Some([low, high]) = bytes.get(..2) else { return NotYet };
    let command = u16::from_le_bytes([*low, *high]);
    if !matches!(command, 0x04 | 0x63..=0x66 | 0x6f | 0x70) {
        return No;
    }
    // A list is asked for without a session.
    if command != 0x65 && command < 0x66 && bytes.iter().skip(4).take(4).any(|b| *b != 0) {
        return No;
    }
    match (bytes.get(2..4), u32_at(bytes, 8), u32_at(bytes, 20)) {
        (Some([low, high]), _, _) if u16::from_le_bytes([*low, *high]) > 600 => No,
        (_, Some(1..), _) => No,
        (_, _, Some(1..)) => No,
        // To register asks for version 1.
        (_, _, Some(0)) if command == 0x65 => match u32_le_at(bytes, 24) {
            None => NotYet,
            Some(version) => is(version == 1),
        },
        (_, _, Some(0)) => like(true),
        _ => NotYet,
    }
}

/// The same as a datagram.
pub fn enip_datagram(bytes: &[u8]) -> Fit {
    whole(enip(bytes))
}
