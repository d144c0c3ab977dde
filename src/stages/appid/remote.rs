//! Protocols that serve people and their files: SSH (RFC 4253), Telnet (RFC 854), RDP (MS-RDPBCGR), RFB (RFC 6143), SMB (MS-SMB, MS-SMB2), DCE/RPC (C706), SOCKS (RFC 1928),
//! NFS and other ONC RPC (RFC 5531).

use super::fit::{Fit, Is, Like, No, NotYet, begins, best, is, like, u16_at, u32_at, whole};

/// SSH, either side. A server may send other lines first (RFC 4253 section 4.2); its client's is enough then.
pub fn ssh(bytes: &[u8]) -> Fit {
    best([begins(bytes, b"SSH-2."), begins(bytes, b"SSH-1.")])
}

/// Telnet, either side: options negotiated from the first byte on.
pub fn telnet(bytes: &[u8]) -> Fit {
    // WILL, WON'T, DO, DON'T and an option; SB has one and more behind it.
    let is_command = |byte: u8| (0xfa..=0xfe).contains(&byte);
    let is_option = |byte: u8| byte <= 49 || byte == 0xff;
    match bytes {
        [] | [0xff] => NotYet,
        [0xff, command] => {
            if is_command(*command) {
                NotYet
            } else {
                No
            }
        }
        [0xff, command, option, rest @ ..] => match rest.first() {
            _ if !is_command(*command) || !is_option(*option) => No,
            // One alone may be anything that begins with these bytes.
            Some(0xff) => Is,
            _ => Like,
        },
        _ => No,
    }
}

/// TPKT (RFC 1006) with one message of X.224 in it: its length, and the code and what is behind it.
fn x224(bytes: &[u8]) -> Result<(u16, &[u8]), Fit> {
    match begins(bytes, &[3, 0]) {
        Is => {}
        fit => return Err(fit),
    }
    let len = u16_at(bytes, 2).ok_or(NotYet)?;
    let indicator = *bytes.get(4).ok_or(NotYet)?;
    if !(7..1024).contains(&len) || u16::from(indicator) + 5 > len {
        return Err(No);
    }
    Ok((len, bytes.get(5..).unwrap_or(&[])))
}

/// RDP, who asks: a connection request with a cookie or a list of ways to protect it (MS-RDPBCGR section 2.2.1.1), or with nothing.
pub fn rdp_client(bytes: &[u8]) -> Fit {
    let (len, rest) = match x224(bytes) {
        Ok(found) => found,
        Err(fit) => return fit,
    };
    match rest {
        [0xe0, 0, 0, _, _, 0] if len == 11 => Like,
        [0xe0, 0, 0, _, _, 0, more @ ..] => best([
            begins(more, b"Cookie: "),
            begins(more, b"tsv://"),
            begins(more, &[1, 0, 8, 0]),
            like(len == 11),
        ]),
        [0xe0, ..] | [] if rest.len() < 6 => NotYet,
        _ => No,
    }
}

/// RDP, who answers: a connection confirm, with what was chosen (section 2.2.1.2) or without.
pub fn rdp_server(bytes: &[u8]) -> Fit {
    let (len, rest) = match x224(bytes) {
        Ok(found) => found,
        Err(fit) => return fit,
    };
    match rest {
        [0xd0, 0, 0, _, _, 0, ..] if len == 11 => Like,
        [0xd0, 0, 0, _, _, 0, 2 | 3, _, 8, 0, ..] => Is,
        [0xd0, ..] | [] if rest.len() < 10 => NotYet,
        _ => No,
    }
}

/// ISO transport with the parameters that control systems have (TSAPs, RFC 905 section 13.3).
pub fn cotp(bytes: &[u8]) -> Fit {
    match x224(bytes) {
        Ok((12.., [0xe0 | 0xd0, _, _, _, _, _, 0xc0..=0xc2, ..])) => Is,
        Ok((12.., rest @ ([0xe0 | 0xd0, ..] | []))) if rest.len() < 7 => NotYet,
        Ok(_) => No,
        Err(fit) => fit,
    }
}

/// RFB, either side.
pub fn rfb(bytes: &[u8]) -> Fit {
    begins(bytes, b"RFB 00")
}

/// SMB, either side: in a NetBIOS session message (RFC 1002 section 4.3.1, MS-SMB2 section 2.1), plain, encrypted or compressed.
pub fn smb(bytes: &[u8]) -> Fit {
    let message = match bytes {
        [0 | 0x85, _, _, _, message @ ..] => message,
        [0 | 0x85, ..] | [] => return NotYet,
        _ => return No,
    };
    best([0xff, 0xfe, 0xfd, 0xfc].map(|first| begins(message, &[first, b'S', b'M', b'B'])))
}

/// DCE/RPC, either side: a bind and its answers (C706 section 12.6.4).
pub fn dcerpc(bytes: &[u8]) -> Fit {
    match bytes {
        [5, 0 | 1, kind, flags, order, 0, 0, 0, ..] => {
            let len = match order {
                0x10 => {
                    bytes.get(8..10).and_then(|len| len.first_chunk()).map(|len| u16::from_le_bytes(*len))
                }
                0 => u16_at(bytes, 8),
                _ => return No,
            };
            let known = matches!(kind, 0 | 2 | 3 | 11..=16) && flags & 0x80 == 0;
            match len {
                _ if !known => No,
                None => NotYet,
                Some(len) => is((16..=5840).contains(&len)),
            }
        }
        [5, ..] | [] if bytes.len() < 8 => NotYet,
        _ => No,
    }
}

/// DCE/RPC in a datagram (C706 section 12.5.2): its version, and a length that is right.
pub fn dcerpc_datagram(bytes: &[u8]) -> Fit {
    const HEADER: usize = 80;
    let [4, 0..=10, _, _, order @ (0 | 0x10), 0, ..] = bytes else { return No };
    let len = bytes.get(74..76).and_then(|len| len.first_chunk()).map(|len| match order {
        0x10 => u16::from_le_bytes(*len),
        _ => u16::from_be_bytes(*len),
    });
    is(len.is_some_and(|len| usize::from(len) + HEADER == bytes.len()))
}

/// SOCKS, who asks: methods (RFC 1928 section 3), or a connection of version 4.
pub fn socks_client(bytes: &[u8]) -> Fit {
    match bytes {
        [5, n @ 1..=8, methods @ ..] => {
            let of = methods.get(..usize::from(*n)).unwrap_or(methods);
            let known = of.iter().all(|method| *method <= 9 || *method >= 0x80);
            if !known {
                No
            } else if of.len() < usize::from(*n) {
                NotYet
            } else {
                Like
            }
        }
        [4, 1 | 2, _, _, a, b, c, d, ..] => like([*a, *b, *c, *d] != [0; 4]),
        [5] | [] => NotYet,
        [4, ..] if bytes.len() < 8 => NotYet,
        _ => No,
    }
}

/// SOCKS, who answers.
pub fn socks_server(bytes: &[u8]) -> Fit {
    match bytes {
        [5, 0..=9 | 0xff, ..] => Like,
        [0, 0x5a..=0x5d, ..] => Like,
        [5 | 0] | [] => NotYet,
        _ => No,
    }
}

const NFS: u32 = 100_003;

/// A call of RPC (RFC 5531 section 9), or an answer: the program that is called. An answer names none.
fn rpc_message(bytes: &[u8]) -> Result<Option<u32>, Fit> {
    let word = |n: usize| u32_at(bytes, 4 * n).ok_or(NotYet);
    match word(1)? {
        0 if word(2)? == 2 => {
            let (program, version) = (word(3)?, word(4)?);
            if (100_000..400_000).contains(&program) && version < 16 { Ok(Some(program)) } else { Err(No) }
        }
        // Accepted, and who says so with no more than 400 bytes.
        1 if word(2)? <= 1 && word(3)? < 16 && word(4)? <= 400 => Ok(None),
        _ => Err(No),
    }
}

fn rpc_of(bytes: &[u8], nfs: bool) -> Fit {
    match rpc_message(bytes) {
        Ok(Some(program)) => is((program == NFS) == nfs),
        Ok(None) => Like,
        Err(fit) => fit,
    }
}

/// The same behind the mark of a record (RFC 5531 section 11).
fn rpc_stream(bytes: &[u8], nfs: bool) -> Fit {
    match u32_at(bytes, 0) {
        Some(mark) if mark & 0x7fff_ffff > 1 << 21 || mark & 0x7fff_ffff < 24 => No,
        Some(_) => rpc_of(bytes.get(4..).unwrap_or(&[]), nfs),
        None => NotYet,
    }
}

/// NFS over TCP, either side.
pub fn nfs(bytes: &[u8]) -> Fit {
    rpc_stream(bytes, true)
}

/// Other RPC.
pub fn rpc(bytes: &[u8]) -> Fit {
    rpc_stream(bytes, false)
}

/// NFS in a datagram.
pub fn nfs_datagram(bytes: &[u8]) -> Fit {
    whole(rpc_of(bytes, true))
}

/// Other RPC in a datagram.
pub fn rpc_datagram(bytes: &[u8]) -> Fit {
    whole(rpc_of(bytes, false))
}

/// BGP (RFC 4271 section 4.1): its marker, and an OPEN.
pub fn bgp(bytes: &[u8]) -> Fit {
    match bytes.get(..19) {
        Some([marker @ .., _, _, kind]) => is(marker == [0xff; 16] && matches!(kind, 1 | 3 | 4)),
        None if bytes.iter().take(16).all(|b| *b == 0xff) => NotYet,
        _ => No,
    }
}
