//! Looks at what comes back: every byte, and that nothing is lost, doubled, out of order or should not be there.

use std::fmt::Write;
use std::sync::Arc;

use super::{Flow, MAX_FRAME, Traffic};

/// Laps that a flow remembers as seen, counted back from the newest.
const WINDOW: u64 = 64;

/// Compares returned frames with those that were sent.
#[derive(Debug)]
pub struct Checker {
    traffic: Arc<Traffic>,
    flows: Vec<Seen>,
    expected: Box<[u8]>,
    report: Report,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    allowed: bool,
    /// One past the newest lap.
    next: u64,
    /// Bit `n`: lap `next - 1 - n` was seen.
    window: u64,
}

/// What was found. The ways to be wrong do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Frames looked at.
    pub returned: u64,
    /// Frames that came back as they must, for the first time.
    pub good: u64,
    /// Frames of the good ones that a later frame of their flow had overtaken.
    pub reordered: u64,
    /// Frames that had come back before.
    pub duplicates: u64,
    /// Frames with a byte that is not as it was sent.
    pub changed: u64,
    /// Frames of a flow that must not come back.
    pub not_denied: u64,
    /// Frames that were never sent.
    pub unknown: u64,
    /// Frames that should have come back by now and did not. Only [`Checker::finish`] knows.
    pub missing: u64,
    /// The first of each kind.
    pub examples: Vec<Example>,
}

/// One frame that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Example {
    /// Name of the counter in [`Report`].
    pub kind: &'static str,
    /// What is wrong with it.
    pub sentence: String,
    /// Its first 160 bytes.
    pub hex: String,
}

impl Report {
    /// Frames that are wrong in any way but [`Self::reordered`] and [`Self::missing`].
    pub fn wrong(&self) -> u64 {
        self.duplicates + self.changed + self.not_denied + self.unknown
    }
}

impl Checker {
    /// A checker for all flows of the traffic. `allowed` says which come back: usually `|flow| !flow.denied`.
    pub fn new(traffic: Arc<Traffic>, allowed: impl Fn(&Flow) -> bool) -> Self {
        let seen = |n| Seen { allowed: allowed(&traffic.flow(n)), next: 0, window: 0 };
        let flows = (0..traffic.mix().flows).map(seen).collect();
        let expected = vec![0; MAX_FRAME].into_boxed_slice();
        Checker { traffic, flows, expected, report: Report::default() }
    }

    /// Looks at one returned frame. True if it is as it must be.
    pub fn check(&mut self, frame: &[u8]) -> bool {
        self.report.returned += 1;
        let near = |flow: u32| self.flows.get(flow as usize).map_or(0, |f| f.next);
        let Some((number, lap)) = self.traffic.identify(frame, near) else {
            return self.wrong("unknown", frame, |_| "its cookie belongs to no flow".into());
        };
        let Some(seen) = self.flows.get(number as usize).copied() else { return false };
        if !seen.allowed {
            return self
                .wrong("not_denied", frame, |t| format!("it should be denied: {}", name(&t.flow(number))));
        }
        let Some(lap) = lap else {
            return self
                .wrong("unknown", frame, |t| format!("no such frame was sent by {}", name(&t.flow(number))));
        };
        let len = self.traffic.frame(number, lap, &mut self.expected).unwrap_or(0);
        let expected = self.expected.get_mut(..len).unwrap_or_default();
        swap_ends(expected);
        if expected != frame {
            let sentence = difference(expected, frame);
            return self
                .wrong("changed", frame, |t| format!("{sentence}; lap {lap} of {}", name(&t.flow(number))));
        }
        let Some(seen) = self.flows.get_mut(number as usize) else { return false };
        match seen.note(lap) {
            Arrival::InOrder => {}
            Arrival::Late => self.report.reordered += 1,
            Arrival::Again => {
                return self.wrong("duplicates", frame, |t| {
                    format!("lap {lap} came back twice: {}", name(&t.flow(number)))
                });
            }
        }
        self.report.good += 1;
        true
    }

    /// What was found so far; nothing is missing yet.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What was found in all, after `sent` frames ([`super::Generator::sent`]) had time to come back.
    pub fn finish(mut self, sent: u64) -> Report {
        let allowed = |n: u64| self.flows.iter().take(n as usize).filter(|f| f.allowed).count() as u64;
        let flows = self.flows.len() as u64;
        let due = sent / flows * allowed(flows) + allowed(sent % flows);
        self.report.missing = due.saturating_sub(self.report.good + self.report.changed);
        self.report
    }

    #[cold]
    fn wrong(&mut self, kind: &'static str, frame: &[u8], say: impl FnOnce(&Traffic) -> String) -> bool {
        let count = match kind {
            "duplicates" => &mut self.report.duplicates,
            "changed" => &mut self.report.changed,
            "not_denied" => &mut self.report.not_denied,
            _ => &mut self.report.unknown,
        };
        *count += 1;
        if *count == 1 {
            let sentence = say(&self.traffic);
            let hex = frame.iter().take(160).fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
                text
            });
            self.report.examples.push(Example { kind, sentence, hex });
        }
        false
    }
}

enum Arrival {
    InOrder,
    Late,
    Again,
}

impl Seen {
    fn note(&mut self, lap: u64) -> Arrival {
        if lap >= self.next {
            let ahead = lap + 1 - self.next;
            self.window = if ahead < WINDOW { self.window << ahead } else { 0 } | 1;
            self.next = lap + 1;
            return Arrival::InOrder;
        }
        let back = self.next - 1 - lap;
        if back >= WINDOW {
            return Arrival::Late; // too old to know whether it came before
        }
        let bit = 1 << back;
        let again = self.window & bit != 0;
        self.window |= bit;
        if again { Arrival::Again } else { Arrival::Late }
    }
}

/// What a load balancer expects of a frame that nobody edited: MACs and outer addresses swapped.
fn swap_ends(frame: &mut [u8]) {
    for (at, width) in [(0, 6), (26, 4)] {
        if let Some(both) = frame.get_mut(at..at + 2 * width) {
            let (a, b) = both.split_at_mut(width);
            a.swap_with_slice(b);
        }
    }
}

fn difference(expected: &[u8], frame: &[u8]) -> String {
    match expected.iter().zip(frame).position(|(a, b)| a != b) {
        Some(at) => {
            let (a, b) = (expected[at], frame[at]);
            format!("byte {at} ({}) is {b:02x} and must be {a:02x}", place(at))
        }
        None => format!("it has {} bytes and must have {}", frame.len(), expected.len()),
    }
}

fn place(at: usize) -> &'static str {
    match at {
        0..6 => "destination MAC",
        6..12 => "source MAC",
        12..14 => "EtherType",
        24..26 => "outer IP checksum",
        26..30 => "outer source",
        30..34 => "outer destination",
        14..34 => "outer IP header",
        40..42 => "outer UDP checksum",
        34..42 => "outer UDP header",
        42..50 => "GENEVE header",
        50..78 => "GENEVE options",
        78..82 => "flow cookie",
        _ => "inner packet",
    }
}

fn name(flow: &Flow) -> String {
    let protocol = if flow.protocol == 6 { "TCP" } else { "UDP" };
    format!(
        "flow {}, {protocol} {} port {} -> {} port {}",
        flow.number, flow.client, flow.client_port, flow.server, flow.server_port
    )
}
