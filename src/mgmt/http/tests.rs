use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Cause;
use crate::mgmt::health::Reason;

fn ask(state: State, request: &str) -> (Option<Outcome>, String) {
    let mut exchange = Exchange::default();
    exchange.take(request.as_bytes(), &some_status(state), Duration::from_secs(9));
    (exchange.outcome(), String::from_utf8(exchange.pending().to_vec()).unwrap())
}

#[test]
fn paths_answer_as_the_state_is() {
    use State::*;
    for (path, fit, unfit) in [
        ("/", 200, 503),
        ("/readyz", 200, 503),
        ("/healthz", 200, 503),
        ("/healthz?verbose=1", 200, 503),
        ("http://10.0.8.20/healthz", 200, 503),
        ("http://10.0.8.20", 200, 503),
        ("/livez", 200, 200),
        ("/metrics", 404, 404),
        ("//", 404, 404),
    ] {
        for state in [Ready, Degraded, Starting, Draining, Failed] {
            let (outcome, answer) = ask(state, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let code = if matches!(state, Ready | Degraded) { fit } else { unfit };
            assert_eq!(outcome.map(Outcome::code), Some(code), "{path} {state:?}");
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
    }
}

#[test]
fn the_reason_is_named() {
    let reasons = vec![Reason { cause: Cause::WorkerStuck, text: "worker 1 \"hangs\"".into() }];
    let status = Status { state: State::Failed, reasons, recovering: false, since: Duration::from_secs(4) };
    let mut exchange = Exchange::default();
    exchange.take(b"GET /healthz HTTP/1.0\r\n\r\n", &status, Duration::from_secs(9));
    let answer = String::from_utf8(exchange.pending().to_vec()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Type: application/json"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "state": "failed", "fit": false, "since_s": 5, "recovering": false,
        "reasons": [{ "cause": "worker-stuck", "text": "worker 1 \"hangs\"" }],
    });
    assert_eq!(body, expected);
}

#[test]
fn what_is_no_check_is_told_so() {
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(3000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(40));
    for (request, code) in [
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Some(405)),
        ("DELETE /livez HTTP/1.1\r\n\r\n", Some(405)),
        ("GET / HTTP/2.0\r\n\r\n", Some(400)),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", Some(400)), // a TLS ClientHello
        ("GET  / HTTP/1.1\r\n\r\n", Some(400)),
        ("GET /\0 HTTP/1.1\r\n\r\n", Some(400)),
        (long.as_str(), Some(431)),
        (many.as_str(), Some(431)),
        ("GET / HTTP/1.1\r\nHost: x\r\n", None),
        ("", None),
    ] {
        let (outcome, answer) = ask(State::Ready, request);
        assert_eq!(outcome.map(Outcome::code), code, "{request:?}");
        assert_eq!(answer.is_empty(), code.is_none());
        assert_eq!(answer.contains("Allow: GET, HEAD"), code == Some(405));
    }
}

#[test]
fn head_has_no_body() {
    let (_, get) = ask(State::Ready, "GET / HTTP/1.1\r\n\r\n");
    let (outcome, head) = ask(State::Ready, "HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(outcome, Some(Outcome::Fit));
    assert_eq!(get, format!("{head}ready\n"), "the same but for the body");
}

proptest! {
    #[test]
    fn whatever_comes_gets_at_most_one_answer(
        cut in any::<u8>(),
        start in prop_oneof![Just("GET / HTTP/1.1\r\n"), Just("HEAD /healthz HTTP/1.0\r\n"), Just("PUT x"), Just("")],
        header in proptest::collection::vec(any::<u8>(), 0..3000),
        end in prop_oneof![Just("\r\n\r\n"), Just("\n\n"), Just("")],
    ) {
        arbitrary_input(&[&[cut], start.as_bytes(), &header, end.as_bytes()].concat());
    }
}
