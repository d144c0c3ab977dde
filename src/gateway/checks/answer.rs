//! Answers of targets over HTTP/1: bytes in, a status code out. Whose bytes they are, and how long one waits for them, this file does not know.
//!
//! Promises, whatever comes: at most [`LONGEST`] bytes are read, and each of them twice; at most [`HEADERS`] headers; no panic; and the result does
//! not depend on the pieces in which bytes come. The head has to come whole, since a target that dies within it is not well; of a body nothing
//! is read. A line that is no status line is told at once, without waiting for more. Headers are not judged: many an appliance has its own.

use std::fmt;

use httparse::{ParserConfig, Response, Status};

/// Bytes of an answer's head, at most, interim answers included.
pub const LONGEST: usize = 16 << 10;
/// Headers, at most.
pub const HEADERS: usize = 128;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin as an answer of HTTP/1.
    NotHttp,
    /// Its head goes on and on.
    TooLong,
    /// It has more headers than anybody needs.
    TooManyHeaders,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotHttp => f.write_str("not an answer of HTTP/1"),
            Fault::TooLong => write!(f, "HTTP: the answer's head is longer than {} kB", LONGEST >> 10),
            Fault::TooManyHeaders => write!(f, "HTTP: the answer has more than {HEADERS} headers"),
        }
    }
}

/// An answer that is on its way.
#[derive(Debug, Default)]
pub struct Answer {
    /// The head so far; of interim answers (RFC 9110 section 15.2) nothing is kept.
    head: Vec<u8>,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Bytes so far.
    taken: usize,
    result: Option<Result<u16, Fault>>,
}

impl Answer {
    /// More bytes. What is known once the answer is complete, or cannot become one; later bytes change nothing.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Result<u16, Fault>> {
        if self.result.is_some() {
            return self.result;
        }
        let room = LONGEST - self.taken;
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.taken += fits.len();
        self.head.extend_from_slice(fits);
        while self.result.is_none() && self.next_line() {}
        if self.result.is_none() && self.taken >= LONGEST {
            self.result = Some(Err(Fault::TooLong));
        }
        self.result
    }

    /// Has a byte come?
    pub fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// Looks at the next line. False if it is not complete.
    fn next_line(&mut self) -> bool {
        let Some(rest) = self.head.get(self.line..) else { return false };
        let Some(len) = memchr::memchr(b'\n', rest) else { return false };
        let is_empty = matches!(rest.get(..len), Some([] | [b'\r']));
        let end = self.line + len + 1;
        match (self.line == 0, is_empty) {
            // A line that a sloppy target sends before its answer (RFC 9112 section 2.2).
            (true, true) => drop(self.head.drain(..end)),
            (true, false) => {
                // It may say more than its first line does, but nothing else.
                let wrong = parse(self.head.get(..end)).err();
                self.result = wrong.map(Err);
                self.line = end;
            }
            (false, false) => self.line = end,
            (false, true) => match parse(self.head.get(..end)) {
                Ok(Some(100 | 102..=199)) => {
                    self.head.drain(..end);
                    self.line = 0;
                }
                Ok(Some(code)) => self.result = Some(Ok(code)),
                Ok(None) => self.result = Some(Err(Fault::NotHttp)), // what ends a head for us ends it for nobody else
                Err(fault) => self.result = Some(Err(fault)),
            },
        }
        true
    }
}

/// The code of a head, if it is complete.
fn parse(head: Option<&[u8]>) -> Result<Option<u16>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = Response::new(&mut headers);
    let mut config = ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .ignore_invalid_headers_in_responses(true);
    match config.parse_response(&mut response, head.unwrap_or_default()) {
        Ok(Status::Complete(_)) => Ok(response.code),
        Ok(Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooManyHeaders),
        Err(_) => Err(Fault::NotHttp),
    }
}

/// One case of the fuzz target `checks_answer` and of the property test: whatever comes, in whatever pieces, there is one result, soon enough, and
/// a code is one that stands in the bytes. The first byte says how they are cut.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut pieces) = (Answer::default(), Answer::default());
    let result = whole.take(bytes);
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        pieces.take(piece);
        assert!(pieces.head.len() <= LONGEST && pieces.taken <= LONGEST);
    }
    assert_eq!(result, pieces.result, "pieces make no difference");
    assert_eq!(pieces.take(b"HTTP/1.1 200 OK\r\n\r\n"), result.or(pieces.result), "what is said is said");
    match result {
        None => assert!(bytes.len() < LONGEST, "somebody who goes on and on is cut"),
        Some(Ok(code)) => {
            assert!((200..=999).contains(&code) || code < 100 || code == 101, "{code}");
            let text = format!(" {code:03}");
            assert!(bytes.windows(4).any(|window| window == text.as_bytes()), "{code} is nowhere");
            assert!(bytes.windows(7).any(|window| window == b"HTTP/1."));
        }
        Some(Err(_)) => assert!(bytes.contains(&b'\n') || bytes.len() >= LONGEST, "no line, no judgement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn result(bytes: &str) -> Option<Result<u16, Fault>> {
        Answer::default().take(bytes.as_bytes())
    }

    #[test]
    fn the_code_is_read_once_the_head_is_there() {
        for (bytes, code) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n", 503),
            ("HTTP/1.1 204\r\n\r\n", 204),
            ("HTTP/1.1 301 \r\nLocation: /\r\n\r\n", 301),
            ("HTTP/1.1 200 OK\n\n", 200),
            ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200),
            ("HTTP/1.1 200 OK\r\nno header at all\r\n\r\n", 200),
            ("HTTP/1.1 200 OK\r\nServer : spaced\r\nX: folded\r\n  on\r\n\r\n", 200),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\n\r\n",
                404,
            ),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101),
        ] {
            assert_eq!(result(bytes), Some(Ok(code)), "{bytes:?}");
            let body = bytes.ends_with("hello");
            let early = &bytes[..bytes.len() - if body { 6 } else { 1 }];
            assert_eq!(result(early), None, "{early:?}: not yet");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_at_its_first_line() {
        for bytes in [
            "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            "HTTP/2.0 200 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1 OK\r\n",
            "GET / HTTP/1.1\r\n",
            "\x15\x03\x01\x00\x02\x02\n",
        ] {
            assert_eq!(result(bytes), Some(Err(Fault::NotHttp)), "{bytes:?}");
        }
        assert_eq!(result("SSH-2.0-"), None, "its line may still become another");
    }

    #[test]
    fn heads_are_bounded() {
        let many = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert_eq!(result(&many(HEADERS)), Some(Ok(200)));
        assert_eq!(result(&many(HEADERS + 1)), Some(Err(Fault::TooManyHeaders)));
        let long = |len: usize| {
            let start = "HTTP/1.1 200 OK\r\nA: ";
            format!("{start}{}\r\n\r\n", "a".repeat(len - start.len() - 4))
        };
        assert_eq!(result(&long(LONGEST)), Some(Ok(200)));
        assert_eq!(result(&long(LONGEST + 1)), Some(Err(Fault::TooLong)));
        assert_eq!(result(&"a".repeat(LONGEST)), Some(Err(Fault::TooLong)), "a line without an end");
        assert_eq!(result(&"\r\n".repeat(LONGEST)), Some(Err(Fault::TooLong)), "nothing but empty lines");
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(LONGEST);
        assert_eq!(result(&interim), Some(Err(Fault::TooLong)), "one interim answer after another");
    }

    proptest! {
        #[test]
        fn whatever_comes_has_one_result(
            cut in any::<u8>(),
            start in prop_oneof![
                Just("HTTP/1.1 200 OK\r\n"), Just("\r\nHTTP/1.0 404 \n"), Just("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 2"), Just(""),
            ],
            header in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'a')], 0..60),
            ],
            end in prop_oneof![Just("\r\n\r\n"), Just("\n\n"), Just("\n\r\n"), Just("")],
        ) {
            arbitrary_input(&[&[cut], start.as_bytes(), &header, end.as_bytes()].concat());
        }

        #[test]
        fn a_good_answer_is_read_for_what_it_is(
            code in 200u16..600,
            reason in "[ -~]{0,40}",
            headers in proptest::collection::vec(("[A-Za-z-]{1,20}", "[!-~]{0,40}"), 0..20),
            body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {code} {reason}\r\n{headers}\r\n");
            prop_assert_eq!(Answer::default().take(&[head.as_bytes(), &body].concat()), Some(Ok(code)));
        }
    }
}
