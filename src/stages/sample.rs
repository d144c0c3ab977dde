//! `sample`: one flow (or packet) of so many goes on to the stages behind; the others go home without having been seen by them.
//!
//! ```toml
//! [[stage]]
//! use = "sample"
//! one_in = 100
//! of = "flows"                       # flows | packets
//! ```
//!
//! Place on the path: in front of stages that are too dear for all traffic, or that are being tried. Never in front of stages that
//! protect: what is not sampled passes them by, and `check` warns of it.
//!
//! Flows are sampled by a hash of their ends under a key of the process, so that both directions, and all workers, agree, and nobody can choose
//! ends that are never sampled. A flow is decided on once and settled; a packet without a flow is taken as its ends say.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde::Deserialize;

use crate::config::Settings;
use crate::dpdk::Error;
use crate::packet::{Batch, InnerFlags, Meta};
use crate::stage::{Backend, Cx, Make, ParseResult, Parsed, Shared, Stage, StageKind};

/// Most that `one_in` may be.
const MOST: u32 = 1_000_000;

/// The kind `sample`.
pub const KIND: StageKind = StageKind {
    name: "sample",
    summary: "shows one flow or packet of so many to the stages behind it",
    help: HELP,
    example: EXAMPLE,
    reasons: &[],
    parse,
};

const HELP: &str = r#"one_in  one of so many goes on, 1 to 1000000; required
of      flows (default): by a keyed hash of the flow's ends, so that both directions go
        the same way; turns flow tracking on, and each flow costs the stage one look
        packets: every one_in-th packet of each worker

What is not sampled goes home at once: the stages behind it do not see it, whatever they
would have decided. Not for use in front of a stage that protects. How much was sampled is
what stages behind it have seen.
"#;

const EXAMPLE: &str = r#"[[stage]]
use = "sample"
one_in = 100
"#;

/// The keys of the stage's table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    one_in: Option<u32>,
    of: Of,
}

/// What is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Of {
    #[default]
    Flows,
    Packets,
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let Table { one_in, of } = settings.read()?;
    match one_in {
        Some(one_in) if (1..=MOST).contains(&one_in) => Ok(Box::new(Sample { one_in, of })),
        Some(n) => Err(vec![settings.problem("one_in", format!("{n} is not between 1 and {MOST}"), "")]),
        None => {
            Err(vec![settings.problem("", "\"one_in\" is missing", "say which share goes on: one_in = 100")])
        }
    }
}

/// The stage, parsed.
#[derive(Clone, Copy, Debug)]
struct Sample {
    one_in: u32,
    of: Of,
}

impl Parsed for Sample {
    fn wants_flows(&self) -> bool {
        self.of == Of::Flows
    }

    fn passes_by(&self) -> bool {
        self.one_in > 1
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(Built { sample: *self, key: RandomState::new().hash_one(0) }))
    }
}

/// The stage, built: shared by all workers.
struct Built {
    sample: Sample,
    /// Of this process.
    key: u64,
}

impl Shared for Built {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        let Sample { one_in, of } = self.sample;
        match of {
            Of::Flows => Box::new(Flows { one_in, key: self.key }),
            Of::Packets => Box::new(Packets { one_in, left: 0 }),
        }
    }
}

/// Samples flows.
struct Flows {
    one_in: u32,
    key: u64,
}

impl Stage for Flows {
    fn run(&mut self, batch: &mut Batch, _: &mut Cx<'_>) {
        for slot in batch.open() {
            let hash = hash(self.key, batch.meta(slot), batch.inner(slot));
            if !hash.is_multiple_of(u64::from(self.one_in)) {
                batch.decide(slot, crate::packet::Verdict::Forward);
            }
            batch.settle(slot);
        }
    }
}

/// A hash of scope, protocol and both ends, the same for both directions: ends are mixed each for itself, and added. A keyed mixer
/// (the finalizer of MurmurHash3) over the words of an end; what it protects is which flows are looked at, not a table.
fn hash(key: u64, meta: &Meta, inner: &[u8]) -> u64 {
    let ports =
        if meta.flags.has(InnerFlags::PORTS) { (meta.source_port, meta.destination_port) } else { (0, 0) };
    let (at, len) = if meta.is_ipv6() { (8, 16) } else { (12, 4) };
    let end = |at: usize, port: u16| {
        let address = inner.get(at..at + len).unwrap_or_default();
        let words =
            address.chunks(4).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        words.fold(mix(key ^ u64::from(port)), |sum, word| mix(sum ^ word))
    };
    let ends = end(at, ports.0).wrapping_add(end(at + len, ports.1));
    mix(mix(ends ^ meta.endpoint) ^ u64::from(meta.protocol) ^ key.rotate_left(32))
}

fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// Samples packets.
struct Packets {
    one_in: u32,
    /// Packets until the next one is taken.
    left: u32,
}

impl Stage for Packets {
    fn run(&mut self, batch: &mut Batch, _: &mut Cx<'_>) {
        for slot in batch.open() {
            if self.left == 0 {
                self.left = self.one_in;
            } else {
                batch.decide(slot, crate::packet::Verdict::Forward);
            }
            self.left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_stage;
    use std::path::Path;

    fn parsed(text: &str) -> Result<Box<dyn Parsed>, String> {
        parse_stage(&KIND, text, Path::new("")).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn settings_are_read() {
        let flows = parsed("one_in = 100").unwrap();
        let packets = parsed("one_in = 2\nof = \"packets\"").unwrap();
        assert!(flows.wants_flows() && flows.passes_by() && !packets.wants_flows());
        assert!(!parsed("one_in = 1").unwrap().passes_by() && parsed("one_in = 1000000").is_ok());
        assert!(parsed("").unwrap_err().contains("\"one_in\" is missing"));
        for n in ["0", "1000001"] {
            assert!(parsed(&format!("one_in = {n}")).unwrap_err().contains("is not between 1 and 1000000"));
        }
        assert!(parsed("one_in = 2\nof = \"bytes\"").unwrap_err().contains("bytes"));
    }

    fn packet(n: u32, reply: bool, v6: bool) -> (Meta, Vec<u8>) {
        let (a, b) = (n.to_be_bytes(), [10, 2, 0, 9]);
        let (a, b) = if reply { (b, a) } else { (a, b) };
        let mut inner = vec![0; if v6 { 40 } else { 20 }];
        let (from, to) = if v6 { (20, 36) } else { (12, 16) };
        inner[from..from + 4].copy_from_slice(&a);
        inner[to..to + 4].copy_from_slice(&b);
        let (source_port, destination_port) = if reply { (443, 999) } else { (999, 443) };
        let flags = InnerFlags(InnerFlags::PORTS | if v6 { InnerFlags::IPV6 } else { 0 });
        (Meta { protocol: 6, flags, source_port, destination_port, ..Meta::default() }, inner)
    }

    /// Both directions agree, and the share is about what was asked for (five standard deviations of a binomial).
    #[test]
    fn flows_are_sampled_evenly_and_whole() {
        for (v6, key) in [(false, 1), (true, 2)] {
            let mut sampled = 0;
            for n in 0..10_000 {
                let hashes = [false, true].map(|reply| {
                    let (meta, inner) = packet(n, reply, v6);
                    hash(key, &meta, &inner)
                });
                assert_eq!(hashes[0], hashes[1], "{n}");
                sampled += u32::from(hashes[0].is_multiple_of(10));
            }
            assert!((850..=1150).contains(&sampled), "{sampled}");
        }
        // Another key, other flows.
        let (meta, inner) = packet(1, false, false);
        assert_ne!(hash(1, &meta, &inner), hash(2, &meta, &inner));
    }
}
