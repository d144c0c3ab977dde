use proptest::prelude::*;

use super::frame::{Body, Side, Step};
use super::head::{Asked, Sign, answer, request};
use crate::stages::places::Places;

/// Heads of a stream of requests, and how it ended.
fn heads(stream: &[u8], cut: usize, places: &mut Places) -> (Vec<Vec<u8>>, &'static str) {
    let (mut side, mut found) = (Side::default(), Vec::new());
    for mut part in stream.chunks(cut.max(1)) {
        loop {
            let body = match side.take(&mut part, places, 0) {
                Step::Over => break,
                Step::End => continue,
                Step::Head(head) => {
                    found.push(head.to_vec());
                    request(head).map_or(Body::Opaque, |request| request.body)
                }
                Step::TooLong => return (found, "too long"),
                Step::Lost => return (found, "lost"),
                Step::Broken => return (found, "broken"),
            };
            side.body(body);
        }
    }
    let end = if side.is_in_head() { "in head" } else { "" };
    side.stop(places);
    (found, end)
}

const PIPELINE: &[u8] = b"\r\nPOST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 16\r\n\r\nGET / HTTP/1.1\r\nPOST /b HTTP/1.1\r\nHost: b\r\n\
Transfer-Encoding: gzip, chunked\r\n\r\n1b;x=\"y\"\r\nGET /no HTTP/1.1\r\nHost: n\n\n\r\n0\r\nTrailer: x\r\n\r\nGET /c HTTP/1.0\n\nGET /d HTTP/1.1\r\nHost: d\r\n\r\n";

#[test]
fn pipelined_requests_and_bodies_are_told_apart_however_they_are_cut() {
    for cut in 1..=PIPELINE.len() {
        let mut places = Places::new(2, 400);
        let (found, end) = heads(PIPELINE, cut, &mut places);
        let targets: Vec<&[u8]> = found.iter().map(|head| request(head).unwrap().target).collect();
        assert_eq!(targets, [&b"/a"[..], b"/b", b"/c", b"/d"], "{cut}");
        assert_eq!((end, places.used()), ("", 0), "{cut}");
    }
}

#[test]
fn heads_without_end_are_too_long() {
    for cut in [1, 7, 5000] {
        let mut places = Places::new(1, 512);
        let stream = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 4000]].concat();
        assert_eq!(heads(&stream, cut, &mut places).1, "too long");
        assert_eq!(places.used(), 0);
    }
}

#[test]
fn the_oldest_half_sent_head_makes_room() {
    let mut places = Places::new(4, 512);
    let mut sides = [Side::default(); 6];
    for (now, side) in (0..).zip(&mut sides) {
        assert_eq!(side.take(&mut &b"GET / HT"[..], &mut places, now), Step::Over);
    }
    assert_eq!((places.given_up, places.used()), (2, 4));
    assert_eq!(sides[0].take(&mut &b"TP/1.1\r\n\r\n"[..], &mut places, 9), Step::Lost);
    assert_eq!(sides[0].take(&mut &b"GET / HTTP/1.1\r\n\r\n"[..], &mut places, 9), Step::Over);
    let last = sides[5].take(&mut &b"TP/1.1\r\n\r\n"[..], &mut places, 9);
    assert_eq!(last, Step::Head(b"GET / HTTP/1.1\r\n\r\n"));
}

#[test]
fn chunks_that_lie_are_broken() {
    for chunk in ["x\r\n", "\r\n", "-1\r\n", "2\r\nabc\r\n", "1234567890abcdef0\r\n"] {
        let stream = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(heads(stream.as_bytes(), 3, &mut Places::new(1, 512)).1, "broken", "{chunk:?}");
    }
}

#[test]
fn heads_that_contradict_themselves_have_signs() {
    for (head, host, body, sign) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some("a"), Body::None, Sign::HOSTS),
        ("GET / HTTP/1.1\r\n\r\n", None, Body::None, Sign::NO_HOST),
        ("GET / HTTP/1.0\r\n\r\n", None, Body::None, Sign(0)),
        ("GET http://u@b:80/x HTTP/1.1\r\nHost: a\r\n\r\n", Some("u@b:80"), Body::None, Sign::HOSTS),
        ("GET http://A HTTP/1.1\r\nHost: a\r\n\r\n", Some("A"), Body::None, Sign(0)),
        ("GET /?u=http://b HTTP/1.1\r\nHost: a\r\n\r\n", Some("a"), Body::None, Sign(0)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some("a"),
            Body::Chunked,
            Sign::BOTH_LENGTHS,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            Some("a"),
            Body::Length(5),
            Sign::LENGTH,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Some("a"), Body::Length(5), Sign(0)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Some("a"), Body::None, Sign::LENGTH),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            Some("a"),
            Body::UntilEnd,
            Sign::CODING,
        ),
    ] {
        let read = request(head.as_bytes()).expect(head);
        assert_eq!((read.host, read.body, read.signs), (host.map(str::as_bytes), body, sign), "{head}");
        assert_eq!(read.signs.has(sign), sign != Sign::default(), "{head}");
    }
    let spaced = request(b"GET  /x y  HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!((spaced.target, spaced.written), (&b"/x y"[..], &b""[..]));
}

#[test]
fn what_follows_an_answer_depends_on_what_it_answers() {
    let of = |status: u16| format!("HTTP/1.1 {status} x\r\nContent-Length: 9\r\n\r\n");
    for (status, asked, body) in [
        (200, Asked::Body, Body::Length(9)),
        (200, Asked::Head, Body::None),
        (200, Asked::Connect, Body::Opaque),
        (407, Asked::Connect, Body::Length(9)),
        (100, Asked::Body, Body::None),
        (101, Asked::Body, Body::Opaque),
        (204, Asked::Body, Body::None),
        (304, Asked::Body, Body::None),
    ] {
        let text = of(status);
        let read = answer(text.as_bytes()).expect("an answer");
        assert_eq!(read.body_for(asked), body, "{status} {asked:?}");
        assert_eq!(read.is_interim(), status == 100);
    }
    assert_eq!(answer(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().body_for(Asked::Body), Body::UntilEnd);
}

proptest! {
    /// Any bytes, behind and in front of what is HTTP, and damaged: the fuzz target's promises.
    #[test]
    fn any_bytes_keep_the_promises(
        from in 0..PIPELINE.len(),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in any::<proptest::sample::Index>(),
        cut in any::<u8>(),
    ) {
        let mut stream = vec![cut];
        stream.extend(&PIPELINE[from..]);
        let at = 1 + at.index(stream.len());
        stream.splice(at..at, noise);
        super::arbitrary_input::messages(&stream);
    }

    /// Heads of which parts are odd: ours and `httparse` read alike what that one takes.
    #[test]
    fn heads_of_odd_parts_keep_the_promises(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..14),
        begin in proptest::sample::select(vec!["", "GET / HTTP/1.1\r\n", "POST http://a.example/x?y HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n"]),
    ) {
        super::arbitrary_input::messages(format!("\u{3}{begin}{}\r\n\r\n", parts.concat()).as_bytes());
    }
}

const PARTS: &[&str] = &[
    "GET",
    " ",
    "  ",
    "\t",
    "/",
    "/x/../y",
    "*",
    "http://h:80/p",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "\r\n",
    "\n",
    "\r",
    "Host",
    "Host: a\r\n",
    "Host: b:80\r\n",
    ":",
    ": ",
    " :",
    "Content-Length: 3\r\n",
    "Content-Length: +3\r\n",
    "Transfer-Encoding",
    "Transfer-Encoding: chunked\r\n",
    "chunked",
    "X: y\r\n",
    " folded\r\n",
    "\u{0}",
    "\u{b}",
    "é",
    "%41",
    "3\r\nabc\r\n",
    "0\r\n",
    "abc",
];
