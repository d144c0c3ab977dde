//! Requests over HTTP/1.x, and the answers to health checks: one request, one answer, and the connection is closed.
//!
//! Bytes of a connection go in, bytes of an answer come out; whose socket it is, this file does not know. A request is at most
//! [`LONGEST`] bytes with [`HEADERS`] headers; whatever is not a request is answered as such. Whether somebody is too slow is
//! decided by whoever holds the socket.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/`, `/readyz` | ready, degraded | otherwise |
//! | `/healthz` | the same, with the reasons as JSON | |
//! | `/livez` | always: whoever answers is alive | |
//!
//! [`super::server`] reads the same requests and has more to answer.

use serde_json::json;

#[cfg(any(test, fuzzing))]
use super::health::State;
use super::health::Status;

/// Bytes of a request, at most.
pub const LONGEST: usize = 2048;
/// Headers of a request, at most.
pub const HEADERS: usize = 32;
/// Bytes of a request's body, at most. Health checks have none.
pub const LONGEST_BODY: usize = 4096;

/// What is said to whoever wants something else.
const ONLY_GET: &str = "GET or HEAD\n";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered as the state is: 200.
    Fit,
    /// Answered as the state is: 503.
    Unfit,
    /// No such path: 404.
    NotFound,
    /// A method other than GET and HEAD: 405.
    Method,
    /// Not HTTP/1: 400.
    Bad,
    /// For those with the token only: 401.
    Unauthorized,
    /// For nobody, as it is configured: 403.
    Forbidden,
    /// Too long, or too many headers: 431.
    TooLarge,
    /// Something else is under way: 409.
    Busy,
    /// A body without a length: 411.
    NoLength,
    /// A body that is too long: 413.
    LongBody,
}

impl Outcome {
    /// Status code.
    pub const fn code(self) -> u16 {
        match self {
            Outcome::Fit => 200,
            Outcome::Unfit => 503,
            Outcome::NotFound => 404,
            Outcome::Method => 405,
            Outcome::Bad => 400,
            Outcome::Unauthorized => 401,
            Outcome::Forbidden => 403,
            Outcome::TooLarge => 431,
            Outcome::Busy => 409,
            Outcome::NoLength => 411,
            Outcome::LongBody => 413,
        }
    }

    const fn phrase(self) -> &'static str {
        match self {
            Outcome::Fit => "OK",
            Outcome::Unfit => "Service Unavailable",
            Outcome::NotFound => "Not Found",
            Outcome::Method => "Method Not Allowed",
            Outcome::Bad => "Bad Request",
            Outcome::Unauthorized => "Unauthorized",
            Outcome::Forbidden => "Forbidden",
            Outcome::TooLarge => "Request Header Fields Too Large",
            Outcome::Busy => "Conflict",
            Outcome::NoLength => "Length Required",
            Outcome::LongBody => "Content Too Large",
        }
    }
}

/// One connection's request and answer.
#[derive(Debug, Default)]
pub struct Exchange {
    input: Vec<u8>,
    answer: Option<(Outcome, Vec<u8>)>,
    sent: usize,
}

impl Exchange {
    /// More bytes of the request. Those behind its end are not looked at. `at` is now, on the clock of the status.
    pub fn take(&mut self, bytes: &[u8], status: &Status, at: std::time::Duration) {
        if self.answer.is_some() {
            return;
        }
        let room = LONGEST.saturating_sub(self.input.len());
        self.input.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.answer = answer(&self.input, status, at);
        if self.answer.is_none() && bytes.len() > room {
            self.answer =
                Some((Outcome::TooLarge, page(Outcome::TooLarge, "text/plain", "too large\n", true)));
        }
    }

    /// Has a byte come?
    pub fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// What the request came to, when it is complete.
    pub fn outcome(&self) -> Option<Outcome> {
        self.answer.as_ref().map(|(outcome, _)| *outcome)
    }

    /// Bytes to be sent.
    pub fn pending(&self) -> &[u8] {
        self.answer.as_ref().and_then(|(_, bytes)| bytes.get(self.sent..)).unwrap_or(&[])
    }

    /// So many of them were.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
    }

    /// The answer is sent.
    pub fn is_over(&self) -> bool {
        self.answer.as_ref().is_some_and(|(_, bytes)| self.sent >= bytes.len())
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Tell.
    Get,
    /// Tell, but for the body.
    Head,
    /// Change something.
    Post,
}

/// A request whose head has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// What is to be done.
    pub method: Method,
    /// The path, without a query and without the host of a whole URI.
    pub path: &'a str,
    /// What stands behind the question mark, as it came.
    pub query: &'a str,
    /// What was shown as `Authorization: Bearer ...`.
    pub token: Option<&'a [u8]>,
    /// Where its body begins in the bytes that were read.
    pub body: usize,
    /// Bytes of its body, [`LONGEST_BODY`] at most; only a POST has one.
    pub body_len: usize,
}

/// What bytes of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// There must be more of them.
    More,
    /// No request that gets what it asks for, and a line that says why; whether the answer may have a body.
    Wrong(Outcome, &'static str, bool),
    /// A request.
    Asked(Asked<'a>),
}

/// Reads a request. It is bounded by whoever gathers the bytes.
pub fn read(input: &[u8]) -> Read<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Partial) => Read::More,
        Ok(httparse::Status::Complete(body)) => {
            let method = match request.method {
                Some("GET") => Method::Get,
                Some("HEAD") => Method::Head,
                Some("POST") => Method::Post,
                _ => return Read::Wrong(Outcome::Method, ONLY_GET, true),
            };
            let target = request.path.unwrap_or_default().split('#').next().unwrap_or_default();
            // A proxy may send a whole URI (RFC 9112 section 3.2.2).
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let path = path
                .strip_prefix("http://")
                .map_or(path, |rest| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"));
            let token =
                request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"));
            let token = token.and_then(|header| bearer(header.value));
            let body_len = match (method, body_len(request.headers)) {
                (Method::Post, Ok(len)) => len,
                (Method::Post, Err((outcome, why))) => return Read::Wrong(outcome, why, true),
                _ => 0, // whatever comes behind the head is not looked at
            };
            Read::Asked(Asked { method, path, query, token, body, body_len })
        }
        Err(httparse::Error::TooManyHeaders) => {
            Read::Wrong(Outcome::TooLarge, "too many headers\n", request.method != Some("HEAD"))
        }
        Err(_) => Read::Wrong(Outcome::Bad, "not a request\n", request.method != Some("HEAD")),
    }
}

/// Bytes of the body that these headers speak of (RFC 9112 section 6.3). Bodies in chunks are not read.
fn body_len(headers: &[httparse::Header<'_>]) -> Result<usize, (Outcome, &'static str)> {
    let named = |name: &'static str| {
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    if named("transfer-encoding").next().is_some() {
        return Err((Outcome::NoLength, "say how long the body is: Content-Length\n"));
    }
    let mut lengths = named("content-length");
    let Some(first) = lengths.next() else { return Ok(0) };
    let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    if !is_number || lengths.any(|other| other != first) {
        return Err((Outcome::Bad, "that is no Content-Length\n"));
    }
    let len = std::str::from_utf8(first).ok().and_then(|text| text.parse().ok());
    len.filter(|len| *len <= LONGEST_BODY).ok_or((Outcome::LongBody, "the body is too long\n"))
}

/// The token of `Bearer TOKEN`; the scheme in letters of any size (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The answer to a request, if it is complete.
fn answer(input: &[u8], status: &Status, at: std::time::Duration) -> Option<(Outcome, Vec<u8>)> {
    let (outcome, kind, body, body_wanted) = match read(input) {
        Read::More => return None,
        Read::Wrong(outcome, why, body) => (outcome, "text/plain", why.to_owned(), body),
        Read::Asked(Asked { method: Method::Post, .. }) => {
            (Outcome::Method, "text/plain", ONLY_GET.to_owned(), true)
        }
        Read::Asked(asked) => {
            let found = by_path(asked.path, status, at);
            let (outcome, kind, body) = found.unwrap_or_else(|| {
                (Outcome::NotFound, "text/plain", "paths are /, /healthz, /readyz, /livez\n".to_owned())
            });
            (outcome, kind, body, asked.method != Method::Head)
        }
    };
    Some((outcome, page(outcome, kind, &body, body_wanted)))
}

/// What health says on that path, if it has one.
pub(super) fn by_path(
    path: &str,
    status: &Status,
    at: std::time::Duration,
) -> Option<(Outcome, &'static str, String)> {
    let fit = if status.state.is_fit() { Outcome::Fit } else { Outcome::Unfit };
    Some(match path {
        "/" | "/readyz" => (fit, "text/plain", format!("{}\n", status.state.name())),
        "/healthz" => (fit, "application/json", format!("{}\n", status.to_json(at))),
        "/livez" => (Outcome::Fit, "text/plain", "alive\n".to_owned()),
        _ => return None,
    })
}

fn page(outcome: Outcome, kind: &str, body: &str, body_wanted: bool) -> Vec<u8> {
    let mut page = head(outcome, kind, Some(body.len()));
    if body_wanted {
        page.extend_from_slice(body.as_bytes());
    }
    page
}

/// Everything in front of a body. One without a length goes on until the connection is closed.
pub(super) fn head(outcome: Outcome, kind: &str, length: Option<usize>) -> Vec<u8> {
    let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
    let more = match outcome {
        Outcome::Method => "Allow: GET, HEAD\r\n",
        Outcome::Unauthorized => "WWW-Authenticate: Bearer\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {kind}\r\n{length}Cache-Control: no-store\r\n{more}Connection: close\r\n\r\n",
        outcome.code(),
        outcome.phrase(),
    )
    .into_bytes()
}

impl Status {
    /// As data: what `/healthz` says.
    pub fn to_json(&self, at: std::time::Duration) -> serde_json::Value {
        json!({
            "state": self.state,
            "fit": self.state.is_fit(),
            "since_s": at.saturating_sub(self.since).as_secs(),
            "reasons": self.reasons,
            "recovering": self.recovering,
        })
    }
}

/// A status to try things on.
#[cfg(any(test, fuzzing))]
pub(crate) fn some_status(state: State) -> Status {
    Status { state, reasons: Vec::new(), recovering: false, since: std::time::Duration::ZERO }
}

/// One case of the fuzz target `mgmt_http` and of the property test: whatever comes, in whatever pieces, there is at most one answer, it is
/// well formed, and the pieces do not change it. The first byte says how it is cut.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let state = State::ALL[usize::from(*cut) % 5];
    let status = some_status(state);
    let now = std::time::Duration::from_secs(7);
    let (mut whole, mut pieces) = (Exchange::default(), Exchange::default());
    whole.take(bytes, &status, now);
    if let Read::Asked(Asked { method, path, query, token, body, body_len }) = read(bytes) {
        assert!(path.len() + query.len() + token.map_or(0, <[u8]>::len) <= bytes.len());
        assert!(body <= bytes.len() && body_len <= LONGEST_BODY && (body_len == 0 || method == Method::Post));
    }
    for piece in bytes.chunks(usize::from(cut / 5).max(1)) {
        pieces.take(piece, &status, now);
    }
    // A mistake may be seen before the rest has come, so the pieces know at least as much.
    assert!(whole.outcome().is_none() || pieces.outcome().is_some());
    assert!(whole.outcome().is_some() || bytes.len() <= LONGEST, "somebody who goes on and on is answered");
    let Some(outcome) = pieces.outcome() else { return };
    let answer = pieces.pending().to_vec();
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(&answer).unwrap() else { panic!("{answer:?}") };
    assert_eq!(response.code, Some(outcome.code()));
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name == name);
        std::str::from_utf8(found.unwrap().value).unwrap().to_owned()
    };
    assert_eq!(header("Connection"), "close");
    let body = answer.len() - head;
    assert!(body == 0 || header("Content-Length") == body.to_string());
    if outcome == Outcome::Unfit {
        assert!(!state.is_fit());
    }
    pieces.sent(answer.len());
    assert!(pieces.is_over() && pieces.pending().is_empty());
    pieces.take(bytes, &status, now);
    assert!(pieces.is_over(), "one request, one answer");
}

#[cfg(test)]
mod tests;
