//! Protocols whose requests look like HTTP's: HTTP/1 (RFC 9112), HTTP/2 (RFC 9113), RTSP (RFC 2326), SIP (RFC 3261), SSDP.
//!
//! What a request line asks for tells them apart: a path or an `http:` address, `rtsp:`, `sip:`; where it does not, the version behind it.

use super::fit::{Fit, Is, Like, No, NotYet, begins, begins_in_any_case, best, is, like};

/// Methods of HTTP: RFC 9110, WebDAV (RFC 4918, 3253, 5323), PATCH (RFC 5789), UPnP.
const HTTP: [&[u8]; 31] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"CONNECT",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"MKACTIVITY",
    b"CHECKOUT",
    b"MERGE",
    b"VERSION-CONTROL",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"NOTIFY",
    b"BPROPPATCH",
    b"POLL",
    b"PURGE",
    b"MKCALENDAR",
    b"RPC_IN_DATA",
    b"RPC_OUT_DATA",
];
/// Methods of SIP: RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086.
const SIP: [&[u8]; 14] = [
    b"INVITE",
    b"REGISTER",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"OPTIONS",
    b"SUBSCRIBE",
    b"NOTIFY",
    b"MESSAGE",
    b"PUBLISH",
    b"REFER",
    b"INFO",
    b"UPDATE",
    b"PRACK",
];
/// What a request of RTSP may ask for, RFC 2326 section 10.
const RTSP: [&[u8]; 11] = [
    b"OPTIONS",
    b"DESCRIBE",
    b"SETUP",
    b"PLAY",
    b"PAUSE",
    b"TEARDOWN",
    b"ANNOUNCE",
    b"RECORD",
    b"GET_PARAMETER",
    b"SET_PARAMETER",
    b"REDIRECT",
];
/// Longest word that is taken for a method.
const LONGEST_METHOD: usize = 20;

/// The method, and what is behind the blank that follows it; or how it stands without one.
fn method(bytes: &[u8]) -> Result<(&[u8], &[u8]), Fit> {
    let end = bytes.iter().take(LONGEST_METHOD + 1).position(|b| !is_token(*b));
    let Some(end) = end else {
        return Err(if bytes.len() > LONGEST_METHOD { No } else { NotYet });
    };
    let (method, rest) = bytes.split_at_checked(end).ok_or(No)?;
    match rest.split_first() {
        Some((b' ', rest)) if !method.is_empty() => Ok((method, rest)),
        _ => Err(No),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')
}

/// HTTP/1, who asks.
pub fn http_client(bytes: &[u8]) -> Fit {
    // Empty lines in front of a request are to be ignored (RFC 9112 section 2.2).
    let start = bytes.iter().take(4).take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let bytes = bytes.get(start..).unwrap_or(&[]);
    let (method, target) = match method(bytes) {
        Ok(parts) => parts,
        Err(fit) => return fit,
    };
    if !HTTP.contains(&method) {
        // Whatever method: a path, and the version behind it.
        let asks = begins(target, b"/");
        return if asks == Is { version(target) } else { asks.min(NotYet) };
    }
    if method == b"CONNECT" {
        return authority(target);
    }
    let addresses = [&b"http://"[..], b"https://", b"ws://", b"ftp://"];
    let address = best(addresses.iter().map(|address| begins_in_any_case(target, address)));
    let path = begins(target, b"/");
    if method == b"OPTIONS" || method == b"NOTIFY" || method == b"SUBSCRIBE" {
        // RTSP and SIP have the same methods.
        return best([path, address, begins(target, b"* HTTP/1")]);
    }
    match best([path, address]) {
        No => begins(target, b"?").max(other_target(target)),
        fit => fit,
    }
}

/// A target that is neither path nor address: what stands behind it decides.
fn other_target(target: &[u8]) -> Fit {
    match best([&b"rtsp:"[..], b"sip:", b"sips:"].map(|scheme| begins_in_any_case(target, scheme))) {
        Is => No,
        No if target.first().is_some_and(u8::is_ascii_graphic) => version(target).max(Like),
        No => No,
        fit => fit,
    }
}

/// What CONNECT asks for: a host and a port.
fn authority(target: &[u8]) -> Fit {
    const LONG_ENOUGH: usize = 20;
    let len = target.iter().take_while(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(b)).count();
    let host = target.get(..len).unwrap_or(&[]);
    let has_port = host.windows(2).any(|pair| matches!(pair, [b':', b'0'..=b'9']));
    match target.get(len) {
        _ if len > 0 && (has_port || len >= LONG_ENOUGH) => Is,
        None => NotYet,
        Some(next) => is(*next == b' ' && len > 0),
    }
}

/// Behind the first blank: the version, if it is here.
fn version(target: &[u8]) -> Fit {
    let end = target.iter().position(|b| *b == b' ' || b.is_ascii_control());
    match end.and_then(|end| target.get(end..)) {
        None => NotYet,
        Some([b' ', rest @ ..]) => begins(rest, b"HTTP/"),
        Some(_) => No,
    }
}

/// HTTP/1, who answers.
pub fn http_server(bytes: &[u8]) -> Fit {
    match begins(bytes, b"HTTP/1.") {
        No => best([begins(bytes, b"HTTP/0."), begins(bytes, b"ICY 200 ").at_most_like()]),
        fit => fit,
    }
}

/// HTTP/2 with prior knowledge: the preface (RFC 9113 section 3.4).
pub fn http2_client(bytes: &[u8]) -> Fit {
    begins(bytes, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
}

/// SETTINGS first: six bytes each, of stream 0.
pub fn http2_server(bytes: &[u8]) -> Fit {
    match bytes {
        [0, 0, len, 4, 0, 0, 0, 0, 0, ..] => like(len % 6 == 0 && *len <= 96),
        [0, 0, _, 4, ..] | [0, 0, _] | [0, 0] | [0] | [] if bytes.len() < 9 => NotYet,
        _ => No,
    }
}

/// RTSP, who asks.
pub fn rtsp_client(bytes: &[u8]) -> Fit {
    match method(bytes) {
        Ok((method, target)) if RTSP.contains(&method) => {
            best([begins_in_any_case(target, b"rtsp:"), begins(target, b"* RTSP/1")])
        }
        Ok(_) => No,
        Err(fit) => fit,
    }
}

/// RTSP, who answers.
pub fn rtsp_server(bytes: &[u8]) -> Fit {
    begins(bytes, b"RTSP/1.")
}

/// SIP, either side.
pub fn sip(bytes: &[u8]) -> Fit {
    let request = match method(bytes) {
        Ok((method, target)) if SIP.contains(&method) => {
            best([&b"sip:"[..], b"sips:", b"tel:"].map(|scheme| begins_in_any_case(target, scheme)))
        }
        Ok(_) => No,
        Err(fit) => fit,
    };
    best([request, begins(bytes, b"SIP/2.")])
}

/// SIP as a datagram.
pub fn sip_datagram(bytes: &[u8]) -> Fit {
    is(sip(bytes) == Is)
}

/// SSDP: HTTP's form in a datagram (UPnP Device Architecture section 1).
pub fn ssdp(bytes: &[u8]) -> Fit {
    let asks = best([begins(bytes, b"M-SEARCH * HTTP/1."), begins(bytes, b"NOTIFY * HTTP/1.")]);
    if asks == Is || begins(bytes, b"HTTP/1.1 200 OK\r\n") == Is {
        return if asks == Is { Is } else { Like };
    }
    No
}
