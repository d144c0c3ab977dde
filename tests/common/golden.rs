//! Golden cases as `tests/golden/make.py` writes them.

use std::collections::BTreeMap;

/// One frame, what becomes of it and why.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub name: String,
    pub why: String,
    /// `home`, `punted` or `dropped LABEL`.
    pub verdict: String,
    /// Keys of `[tunnel]` that differ from the default.
    pub settings: BTreeMap<String, String>,
    pub frame: Vec<u8>,
    pub back: Vec<u8>,
}

/// All cases, in the order of the packet's way.
pub fn cases() -> Vec<Case> {
    let text = include_str!("../golden/frames.txt");
    let blocks = text.split("\n\n").skip(1);
    let cases: Vec<Case> = blocks.map(case).collect();
    assert!(cases.len() > 200, "only {} golden cases were read", cases.len());
    cases
}

/// The cases that share a configuration, under its `[tunnel]` table; groups and cases in the order of the file.
pub fn groups() -> Vec<(String, Vec<Case>)> {
    let mut groups: Vec<(String, Vec<Case>)> = Vec::new();
    for case in cases() {
        let table = case.table();
        match groups.iter_mut().find(|(t, _)| *t == table) {
            Some((_, cases)) => cases.push(case),
            None => groups.push((table, vec![case])),
        }
    }
    groups
}

fn case(block: &str) -> Case {
    let mut case = Case::default();
    for line in block.lines() {
        let (key, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        match key {
            "case" => case.name = value.into(),
            "why" => case.why = value.into(),
            "verdict" => case.verdict = value.into(),
            "with" => {
                let pairs = value.split(' ').map(|pair| pair.split_once('=').expect("key=value"));
                case.settings = pairs.map(|(k, v)| (k.into(), v.into())).collect();
            }
            "in" => case.frame = bytes(value),
            "out" => case.back = bytes(value),
            _ => panic!("{block}: what is {key:?}?"),
        }
    }
    let complete = !case.name.is_empty() && !case.why.is_empty() && !case.frame.is_empty();
    assert!(complete && (case.verdict != "home") == case.back.is_empty(), "{block}");
    case
}

impl Case {
    /// The `[tunnel]` table of its configuration.
    pub fn table(&self) -> String {
        let mut settings: BTreeMap<&str, &str> =
            [("allowed_sources", "10.254.11.0/24"), ("addresses", "10.254.11.102")].into();
        settings.extend(self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let mut table = String::from("[tunnel]\n");
        for (key, value) in settings {
            let value = match key {
                "allowed_sources" | "addresses" => {
                    let items: Vec<&str> = value.split(',').filter(|item| !item.is_empty()).collect();
                    format!("{items:?}")
                }
                _ if value.parse::<u32>().is_ok() => value.into(),
                _ => format!("{value:?}"),
            };
            table += &format!("{key} = {value}\n");
        }
        table
    }
}

/// Hex in words; `42*100` is a byte repeated.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split(' ') {
        match word.split_once('*') {
            Some((byte, times)) => out.extend(vec![hex(byte)[0]; times.parse().expect("a count")]),
            None => out.extend(hex(word)),
        }
    }
    out
}

fn hex(word: &str) -> Vec<u8> {
    assert!(word.len().is_multiple_of(2), "{word}");
    (0..word.len()).step_by(2).map(|i| u8::from_str_radix(&word[i..i + 2], 16).expect("hex")).collect()
}
