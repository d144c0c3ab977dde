//! Answers as `tests/golden/answers.py` writes them.

use std::collections::BTreeMap;

use super::golden::bytes;

/// A frame, what is asked about it, and the frame of our own that goes home.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub name: String,
    pub why: String,
    /// `reset-sender`, `reset-receiver [NEXT]`, `prohibited`, `too-big MTU`.
    pub ask: String,
    pub settings: BTreeMap<String, String>,
    /// Node, port and cookie of the newest envelope of the direction in which the answer travels.
    pub seen: Option<([u8; 4], u16, u32)>,
    pub frame: Vec<u8>,
    /// `None`: there is no answer.
    pub back: Option<Vec<u8>>,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let text = include_str!("../golden/answers.txt");
    let cases: Vec<Case> = text.split("\n\n").skip(1).map(case).collect();
    let made = cases.iter().filter(|case| case.back.is_some()).count();
    assert!(cases.len() > 150 && made > 90, "only {} cases, {made} of them answers, were read", cases.len());
    cases
}

fn case(block: &str) -> Case {
    let mut case = Case::default();
    let mut ended = false;
    for line in block.lines() {
        assert!(!ended, "{block}");
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        match key {
            "case" => case.name = value.into(),
            "why" => case.why = value.into(),
            "ask" => case.ask = value.into(),
            "with" => {
                let pairs = value.split(' ').map(|pair| pair.split_once('=').expect("key=value"));
                case.settings = pairs.map(|(k, v)| (k.into(), v.into())).collect();
            }
            "seen" => {
                let mut words = value.split(' ');
                let mut word = || words.next().expect("a word");
                let node: std::net::Ipv4Addr = word().parse().expect("an address");
                let port = word().parse().expect("a port");
                let cookie = u32::from_str_radix(word(), 16).expect("a cookie");
                case.seen = Some((node.octets(), port, cookie));
            }
            "in" => case.frame = bytes(value),
            "out" => (case.back, ended) = (Some(bytes(value)), true),
            "none" => ended = true,
            _ => panic!("{block}: what is {key:?}?"),
        }
    }
    assert!(ended && !case.name.is_empty() && !case.why.is_empty() && !case.frame.is_empty(), "{block}");
    case
}
