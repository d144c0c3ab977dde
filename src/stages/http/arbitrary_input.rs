//! What the readers promise for any bytes, as code: property tests and the fuzz target `http_messages` call it; it panics when a promise is
//! broken. Compiled for tests and fuzzing only.

use super::frame::{Body, Side, Step};
use super::head::{self, Answer, Headers, Request, host_of};
use super::records;
use super::shape;
use super::target::{self, Target};
use crate::stages::places::Places;

/// Bytes of a place.
const ROOM: usize = 1024;

/// A byte that chooses how the rest is cut, then a direction of a connection: the same heads, bodies and end, whatever the cuts.
pub fn messages(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let mut places = Places::new(2, ROOM);
    let whole = read(stream, stream.len().max(1), &mut places);
    for cut in [usize::from(cut).max(1), 1] {
        assert_eq!(read(stream, cut, &mut places), whole, "cut into {cut} bytes");
        assert_eq!(places.used(), 0);
    }
    for message in &whole {
        if let Message::Head(head) = message {
            assert!(head.len() <= ROOM);
            one(head);
        }
    }
    one(stream);
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Head(Vec<u8>),
    /// Bytes of a body.
    End(u64),
    TooLong,
    Broken,
    /// In a head at the end, or in a body.
    Left(Vec<u8>, u64),
}

fn read(stream: &[u8], cut: usize, places: &mut Places) -> Vec<Message> {
    let (mut side, mut all) = (Side::default(), Vec::new());
    for mut part in stream.chunks(cut) {
        loop {
            match side.take(&mut part, places, 0) {
                Step::Over => break,
                Step::Head(head) => {
                    all.push(Message::Head(head.to_vec()));
                    let body = match head::request(head) {
                        Some(request) => request.body,
                        None => head::answer(head).map_or(Body::Opaque, |answer| answer.body),
                    };
                    side.body(body);
                }
                Step::End => all.push(Message::End(side.counted())),
                Step::TooLong => all.push(Message::TooLong),
                Step::Broken => all.push(Message::Broken),
                Step::Lost => panic!("there is room"),
            }
        }
    }
    let begun = side.begun(places).to_vec();
    all.push(Message::Left(begun, if side.is_in_body() { side.counted() } else { 0 }));
    side.stop(places);
    all
}

fn one(bytes: &[u8]) {
    // What is said of a beginning stays so.
    let said = shape::begins(bytes);
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        if let Some(before) = shape::begins(&bytes[..end]) {
            assert_eq!(Some(before), said, "{end} of {bytes:?}");
        }
    }
    if let Some(request) = head::request(bytes) {
        the_request(bytes, &request);
        httparse_agrees(bytes, &request);
    }
    if let Some(answer) = head::answer(bytes) {
        the_answer(&answer);
    }
}

fn the_request(bytes: &[u8], request: &Request<'_>) {
    assert!(head::is_token(request.method) && request.method.len() + request.target.len() < bytes.len());
    assert!(request.version.is_empty() || request.version.starts_with(b"HTTP/"));
    headers(request.headers);
    let mut target = Target::with_room(bytes.len());
    target.read(request.target);
    let path = target.path();
    assert!(path == b"*" || path.starts_with(b"/"), "{path:?}");
    assert!(!path.windows(2).any(|two| two == b"//") && !path.contains(&b'\\'));
    assert!(!path.split(|b| *b == b'/').any(|segment| matches!(segment, b"." | b"..")));
    let (path, query) = target::split(request.target);
    assert!(path.len() + query.len() <= request.target.len());
    for host in request.host.into_iter().chain(request.other_host) {
        assert!(host_of(host).0.len() <= host.len());
    }
    drop(serde_json::to_string(&*records::asked(request)).unwrap());
}

fn headers(headers: Headers<'_>) {
    for header in headers {
        let trimmed = header.value.trim_ascii();
        assert_eq!(header.value, trimmed);
        assert!(!header.name.contains(&b'\n') && !header.name.contains(&b':'));
    }
}

fn the_answer(answer: &Answer<'_>) {
    assert!(answer.status < 1000 && answer.version.starts_with(b"HTTP/"));
}

/// What `httparse` takes, it reads as we do; and nothing of it is odd but lengths and hosts.
fn httparse_agrees(bytes: &[u8], request: &Request<'_>) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Request::new(&mut headers);
    // It skips empty lines, which are not part of a head for us.
    if bytes.first().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
        return;
    }
    if !theirs.parse(bytes).is_ok_and(|status| status.is_complete()) {
        return;
    }
    assert_eq!(theirs.method.map(str::as_bytes), Some(request.method));
    assert_eq!(theirs.path.map(str::as_bytes), Some(request.target));
    assert_eq!(request.target, request.written);
    assert_eq!(request.version, if theirs.version == Some(1) { b"HTTP/1.1" } else { b"HTTP/1.0" });
    let ours: Vec<(&[u8], &[u8])> = request.headers.map(|header| (header.name, header.value)).collect();
    let theirs: Vec<(&[u8], &[u8])> =
        theirs.headers.iter().map(|header| (header.name.as_bytes(), header.value.trim_ascii())).collect();
    assert_eq!(ours, theirs);
    assert!(!request.signs.has(head::Sign::GRAMMAR) && !request.signs.has(head::Sign::COLON));
}
