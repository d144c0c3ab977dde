//! Do bytes begin like HTTP/1?

use super::head::is_token;

/// Methods that nobody else's requests begin with; of others the line has to say that it is HTTP.
const METHODS: [&[u8]; 18] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"PATCH",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"MKCALENDAR",
    b"SEARCH",
];
/// Bytes of a method.
const LONGEST: usize = 32;
/// Bytes of a request line that are looked at for its version.
const LONGEST_LINE: usize = 8192;

/// The first bytes of a direction, or those behind something else: none if there are not enough of them to say.
pub fn begins(bytes: &[u8]) -> Option<bool> {
    let answer = b"HTTP/";
    if bytes.starts_with(answer) || answer.starts_with(bytes) {
        return (bytes.len() >= answer.len()).then_some(true);
    }
    let near = bytes.get(..LONGEST + 1).unwrap_or(bytes);
    let Some(end) = near.iter().position(|b| *b == b' ' || *b == b'\t') else {
        return (near.len() > LONGEST || !is_token(near)).then_some(false);
    };
    let method = bytes.get(..end).unwrap_or(&[]);
    let behind = bytes.get(end..).unwrap_or(&[]);
    let target = behind.iter().position(|b| *b != b' ' && *b != b'\t').and_then(|at| behind.get(at..));
    if !is_token(method) {
        return Some(false);
    }
    let known = METHODS.contains(&method);
    match target.and_then(|target| target.first()) {
        None if known => return None,
        Some(b'/' | b'*') if known => return Some(true),
        _ => {}
    }
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    // A line ends, or it is none.
    match memchr::memchr2(b'\n', 0, line).and_then(|at| line.get(..at + 1)) {
        Some(line) => Some(line.ends_with(b"\n") && memchr::memmem::find(line, b" HTTP/").is_some()),
        None => (line.len() >= LONGEST_LINE).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_told_from_others() {
        for (bytes, is) in [
            ("GET / HTTP/1.1\r\n", Some(true)),
            ("GET /", Some(true)),
            ("GET  /x", Some(true)),
            ("GET x", None),
            ("GET x\r\n", Some(false)),
            ("GET \r\n/", Some(false)),
            ("BREW \0 HTTP/1.1\r\n", Some(false)),
            ("GET", None),
            ("GET ", None),
            ("G", None),
            ("", None),
            ("H", None),
            ("HTTP/1.1 200 OK", Some(true)),
            ("BREW /pot HTTP/1.1\r\n", Some(true)),
            ("BREW /pot", None),
            ("PRI * HTTP/2.0\r\n", Some(true)),
            ("CONNECT a.example:443 HTTP/1.1\n", Some(true)),
            ("OPTIONS sip:a@b SIP/2.0\r\n", Some(false)),
            ("OPTIONS * RTSP/1.0\r\n", Some(false)),
            ("220 smtp.example ESMTP\r\n", Some(false)),
            ("SSH-2.0-OpenSSH_9.6\r\n", Some(false)),
            ("\u{16}\u{3}\u{1}", Some(false)),
            ("a001 LOGIN x y\r\n", Some(false)),
        ] {
            assert_eq!(begins(bytes.as_bytes()), is, "{bytes:?}");
        }
        assert_eq!(begins(&[b'A'; 100]), Some(false));
        assert_eq!(begins(&[b"BREW ".as_slice(), &[b'x'; 9000]].concat()), Some(false));
    }
}
