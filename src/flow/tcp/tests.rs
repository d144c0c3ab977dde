//! The state machine against the RFCs' figures and rules (`scenarios`), against two ends that know nothing of it (`model`), and
//! against real captures (`corpus`).

mod model;
mod corpus;

use proptest::prelude::*;

use super::*;
use crate::wire::tcp::{Fields, PSH, URG};

/// One line of `scenarios.txt`: who sends what, and the result.
fn line(text: &str) -> (bool, Segment, &str, &str) {
    let mut words = text.split_whitespace().peekable();
    let from_a = match words.next() {
        Some("A") => true,
        Some("B") => false,
        _ => panic!("{text}: no side"),
    };
    let flags = words.next().unwrap().chars().fold(0, |flags, letter| {
        flags
            | match letter {
                'S' => SYN,
                'A' => ACK,
                'F' => FIN,
                'R' => RST,
                'P' => PSH,
                'U' => URG,
                '-' => 0,
                _ => panic!("{text}: flag {letter}"),
            }
    });
    let mut number = || words.next_if(|w| w.bytes().all(|b| b.is_ascii_digit())).map(|w| w.parse().unwrap());
    let sequence = number().unwrap();
    let acknowledgment = number();
    assert_eq!(acknowledgment.is_some(), flags & ACK != 0, "{text}");
    let acknowledgment = acknowledgment.unwrap_or(0);
    let mut segment = Segment { flags, sequence, acknowledgment, window: 1000, ..Segment::default() };
    loop {
        let word = words.next().unwrap_or_else(|| panic!("{text}: no state"));
        match word.split_once('=') {
            Some(("len", n)) => segment.len = n.parse().unwrap(),
            Some(("win", n)) => segment.window = n.parse().unwrap(),
            Some(("ws", n)) => segment.scale = Some(n.parse().unwrap()),
            None if word == "cookie" => segment.new_cookie = true,
            None if word == "partial" => segment.partial = true,
            None => return (from_a, segment, word, words.next().unwrap_or("normal")),
            _ => panic!("{text}: {word}"),
        }
    }
}

fn name(what: What) -> &'static str {
    match what {
        What::Normal => "normal",
        What::Retransmit => "retransmit",
        What::Stray => "stray",
        What::OutOfWindow => "out-of-window",
        What::BadReset => "bad-reset",
        What::BadFlags => "bad-flags",
        What::NewIncarnation { .. } => "new",
    }
}

/// A segment as bytes, so that `Segment::read` is part of every scenario.
fn bytes(segment: &Segment) -> Vec<u8> {
    let mut bytes = Fields {
        source_port: 1,
        destination_port: 2,
        sequence: segment.sequence,
        acknowledgment: segment.acknowledgment,
        flags: segment.flags,
        window: segment.window,
        checksum: 0,
    }
    .emit()
    .to_vec();
    if let Some(scale) = segment.scale {
        bytes.extend([2, 4, 5, 180, 1, 3, 3, scale]);
        bytes[12] += 2 << 4;
    }
    bytes.resize(bytes.len() + segment.len as usize, 0xee);
    bytes
}

#[test]
fn scenarios() {
    let text = include_str!("tests/scenarios.txt");
    let mut wrong = Vec::new();
    let mut ran = 0;
    for scenario in text.split("\n= ").skip(1) {
        let (sentence, lines) = scenario.split_once('\n').unwrap();
        ran += 1;
        let mut check = WindowCheck::Drop;
        let mut middle = false;
        let mut reversed = false;
        let mut connection = None;
        for text in lines.lines().filter(|line| !line.trim().is_empty()) {
            match text {
                "check off" => check = WindowCheck::Off,
                "check log" => check = WindowCheck::Log,
                "check drop" => check = WindowCheck::Drop,
                "pickup" => middle = true,
                _ => {
                    let (from_a, mut segment, state, what) = line(text);
                    segment.reply = from_a == reversed;
                    if segment.len < 100_000 {
                        let Segment { new_cookie, partial, reply, .. } = segment;
                        segment = Segment { new_cookie, partial, ..Segment::read(&bytes(&segment), reply) };
                    }
                    let (outcome, tracked) = match connection {
                        Some((state, mut tracked)) => (step(state, &mut tracked, &segment, check), tracked),
                        None => {
                            let first = if middle { pick_up(&segment) } else { open(&segment) };
                            let (state, tracked) = first.unwrap_or_else(|| panic!("{sentence}: {text}"));
                            (Step { state, what: What::Normal }, tracked)
                        }
                    };
                    connection = Some((outcome.state, tracked));
                    reversed ^= matches!(outcome.what, What::NewIncarnation { reversed: true, .. });
                    if (outcome.state.name(), name(outcome.what)) != (state, what) {
                        wrong.push(format!("{sentence}:\n    {text}\n    {outcome:?}"));
                        break;
                    }
                }
            }
        }
    }
    assert!(ran > 50);
    assert!(wrong.is_empty(), "{} of {ran} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segments_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        arbitrary_input::segments(&bytes);
    }
}

/// Found by the fuzzer: data behind both FINs, with a right acknowledgment, brought a connection back from TIME-WAIT.
#[test]
fn nothing_comes_behind_a_fin() {
    let bytes = [
        1, 12, 2, 0, 10, 0, 0, 0, 0, 1, 18, 0, 10, 0, 0, 0, 0, 0, 16, 0, 10, 0, 0, 0, 0, 0, 17, 5, 1, 0, 12,
        0, 0, 1, 17, 9, 10, 4, 0, 0, 0, 248, 248, 248, 248, 242, 248, 248, 248, 248, 248, 248, 248, 248, 248,
        248, 248, 248, 248, 248, 105, 0, 200, 0, 248, 248, 248, 248, 58, 58, 0, 0, 10, 2, 117, 117, 117, 117,
        117, 117, 117, 80, 117, 117, 117, 117, 117, 117, 117, 117, 117, 117, 255, 189, 189, 189, 189, 189,
        189, 189, 189, 189, 189, 189, 10, 189, 189, 181, 189, 189, 189, 189, 189, 145, 145, 145, 145, 145,
        145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 145, 16, 0, 10, 0, 0, 0,
        0, 145, 145, 145, 145, 145, 24,
    ];
    arbitrary_input::segments(&bytes);
}
