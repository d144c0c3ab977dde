//! What a `[[stage]]` of this kind says.

use std::sync::Arc;

use serde::Deserialize;

use super::rules::Rules;
use crate::config::{self, Problem};
use crate::stages::names;

pub(super) const EXAMPLE: &str = r#"[[stage]]
use = "tls"
deny_below = "1.2"
deny_names = [".ads.example", "tracker.example"]
"#;

pub(super) const HELP: &str = r#"deny_below       lowest version that may be spoken: ssl3, 1.0, 1.1, 1.2 or 1.3; none by default.
                 A client that offers nothing as new is denied at its hello, a server that
                 chooses an older one at its own.
report_below     tells of flows that speak an older version, by an alert for each, and lets them
                 pass: ssl3, 1.0, 1.1, 1.2 or 1.3; none by default
deny_names       server names (SNI) that are denied: "www.example.com", or ".example.com" for
                 all names below it
deny_names_file  a file of such names, one a line; lines that start with # are comments
allow_names      if given, no other names may pass; hellos without a name go by unnamed
allow_names_file a file of these
unnamed          hellos without a server name: pass (default) or deny
deny_ja3         JA3 fingerprints that are denied, 32 hexadecimal digits each
deny_ja3_file    a file of these, one a line; lines that start with # are comments, and of a
                 line with commas the first column counts, as abuse.ch's lists have it
deny_ja4         JA4 fingerprints, 36 characters each
deny_ja4_file    a file of these, likewise
malformed        handshakes that break the rules of TLS: pass (default; they are counted) or deny
action           reject (default): both ends are told by a RST; drop
hold             true: a frame that begins a hello waits until the hello is whole, so that one
                 that is denied never arrives. Default: true if something can be denied
sessions         handshakes that each worker reads at a time, 1 to 65535, default 4096; beyond
                 that the oldest is let go
memory_kb        memory of each worker for hellos that come in pieces, 64 to 1048576, default 8192

Read are the hellos of TLS over TCP, at the first byte or behind what is said in plain text
(STARTTLS), and of DTLS over UDP. Searched are the first 4096 bytes of each direction; of clients,
where they can be denied, all up to stream.depth_kb, and of UDP every datagram. What cannot be
read goes by on_unread of the stage: gaps, hellos of more than 128 kB, or of which a part is in
fragments of IP, one that may lie behind the depth (the client has said nothing but lines of
text, and no HTTP, or has begun one), and a server's hello to a client that nobody heard.
"#;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) rules: Arc<Rules>,
    pub(super) hold: bool,
    pub(super) drops: bool,
    pub(super) sessions: u16,
    pub(super) memory: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Passes {
    #[default]
    Pass,
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    #[default]
    Reject,
    Drop,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    deny_below: Option<String>,
    report_below: Option<String>,
    deny_names: Vec<String>,
    deny_names_file: Option<String>,
    allow_names: Option<Vec<String>>,
    allow_names_file: Option<String>,
    unnamed: Passes,
    deny_ja3: Vec<String>,
    deny_ja3_file: Option<String>,
    deny_ja4: Vec<String>,
    deny_ja4_file: Option<String>,
    malformed: Passes,
    action: Action,
    hold: Option<bool>,
    sessions: Option<u32>,
    memory_kb: Option<u32>,
}

impl Settings {
    /// Reads and checks them.
    pub fn read(settings: &config::Settings<'_>) -> Result<Settings, Vec<Problem>> {
        let table: Table = settings.read()?;
        let mut problems = Vec::new();
        let mut version = |key: &str, word: Option<&str>| match word? {
            "ssl3" => Some(1),
            "1.0" => Some(2),
            "1.1" => Some(3),
            "1.2" => Some(4),
            "1.3" => Some(5),
            word => {
                let what = format!("{word:?} is no version");
                problems.push(settings.problem(key, what, "write ssl3, 1.0, 1.1, 1.2 or 1.3"));
                None
            }
        };
        let lowest = version("deny_below", table.deny_below.as_deref());
        let reported = version("report_below", table.report_below.as_deref());
        let mut names = |key: &str, list: &[String], file: Option<&str>| {
            names::read(settings, key, list, file, &mut problems)
        };
        let deny = names("deny_names", &table.deny_names, table.deny_names_file.as_deref());
        let given = table.allow_names.is_some() || table.allow_names_file.is_some();
        let list = table.allow_names.as_deref().unwrap_or(&[]);
        let allow = given.then(|| names("allow_names", list, table.allow_names_file.as_deref()));
        let mut rules = Rules {
            lowest,
            reported,
            deny,
            allow,
            deny_unnamed: table.unnamed == Passes::Deny,
            deny_malformed: table.malformed == Passes::Deny,
            ..Rules::default()
        };
        let (ja3, ja4) = (&mut rules.deny_ja3, &mut rules.deny_ja4);
        let lists = (table.deny_ja3.as_slice(), table.deny_ja3_file.as_deref());
        fingerprints(settings, "deny_ja3", lists, &mut problems, |text| {
            ja3.insert(hash(text).ok_or("is not a JA3: it has 32 hexadecimal digits")?);
            Ok(())
        });
        let lists = (table.deny_ja4.as_slice(), table.deny_ja4_file.as_deref());
        fingerprints(settings, "deny_ja4", lists, &mut problems, |text| {
            let whole = <[u8; 36]>::try_from(text.as_bytes()).ok();
            let known = whole.filter(|ja4| ja4.get(10) == Some(&b'_') && ja4.get(23) == Some(&b'_'));
            ja4.insert(known.ok_or("is not a JA4: it looks like t13d1516h2_8daaf6152771_e5627efa2ab1")?);
            Ok(())
        });
        let mut range = |key: &str, given: Option<u32>, default: u32, least: u32, most: u32| match given {
            Some(n) if n < least || n > most => {
                problems.push(settings.problem(key, format!("{n} is not between {least} and {most}"), ""));
                default
            }
            given => given.unwrap_or(default),
        };
        let sessions = range("sessions", table.sessions, 4096, 1, u16::MAX.into()) as u16;
        let memory_kb = range("memory_kb", table.memory_kb, 8192, 64, 1 << 20);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Settings {
            hold: table.hold.unwrap_or(rules.ask_clients() || rules.deny_malformed),
            drops: table.action == Action::Drop,
            sessions,
            memory: memory_kb as usize * 1024,
            rules: Arc::new(rules),
        })
    }
}

/// Fingerprints of a list and of a file.
fn fingerprints(
    settings: &config::Settings<'_>,
    key: &str,
    (list, file): (&[String], Option<&str>),
    problems: &mut Vec<Problem>,
    mut add: impl FnMut(&str) -> Result<(), &'static str>,
) {
    for (i, text) in list.iter().enumerate() {
        if let Err(wrong) = add(text) {
            problems.push(settings.problem(&format!("{key}[{i}]"), format!("{text:?} {wrong}"), ""));
        }
    }
    if let Some(file) = file {
        let first = |line: &str| line.split(',').next().unwrap_or(line).trim().trim_matches('"').to_owned();
        names::read_lines(settings, &format!("{key}_file"), file, problems, |line| add(&first(line)));
    }
}

fn hash(text: &str) -> Option<[u8; 16]> {
    let mut hash = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(hash)
}
