//! The hand-built frames of the corpus, and its real captures in an envelope. `SLUICEGATE_CORPUS` names the folder.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sluicegate::dpdk::PoolConfig;
use sluicegate::dpdk::soft::pcap::{Error, Link, Reader};
use sluicegate::traffic::{self, Envelope};

use common::{Fate, Rig, TUNNEL, plan, skipped};

/// What `malformed.json` says of a frame.
#[derive(Deserialize)]
struct Expectation {
    n: usize,
    case: String,
    /// `forward`, `drop` or `punt`.
    expect: String,
    /// The class of a drop.
    #[serde(default)]
    reason: String,
    /// Answers that are as good: a verdict, or `drop:CLASS`.
    #[serde(default)]
    also_ok: Vec<String>,
    /// The standards leave it open: shown, never held against anyone.
    #[serde(default)]
    policy: bool,
    frame_len: usize,
    /// What a forwarded frame carries, byte for byte.
    geneve_header_hex: Option<String>,
    /// UDP ports of a returned frame.
    returned_udp: Option<[u16; 2]>,
}

#[derive(Deserialize)]
struct File {
    packets: Vec<Expectation>,
}

/// How an answer compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Expected,
    AlsoOk,
    Policy,
    Wrong,
}

/// Every hand-built frame meets the fate that the corpus states.
#[test]
fn malformed_frames_of_the_corpus() {
    let Some(corpus) = corpus("malformed_frames_of_the_corpus") else { return };
    let text = std::fs::read_to_string(corpus.join("malformed.json")).expect("malformed.json");
    let expectations = serde_json::from_str::<File>(&text).expect("malformed.json").packets;
    let mut frames = Reader::open(&corpus.join("malformed.pcap")).expect("malformed.pcap");
    let mut rig = Rig::new(&plan(&format!("{TUNNEL}verify_checksum = \"always\"\nmax_return = 8500\n")));
    let mut families: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    let (mut wrong, mut open) = (String::new(), String::new());
    for expectation in &expectations {
        let Expectation { n, case, expect, reason, .. } = expectation;
        let frame = frames.next().expect("a capture").expect("as many frames as expectations").bytes.to_vec();
        assert_eq!(frame.len(), expectation.frame_len, "frame {n}");
        let fate = rig.fate(&frame);
        let mark = expectation.compare(&frame, &fate);
        let family = case.split('/').next().unwrap_or(case).to_owned();
        families.entry(family).or_default()[mark as usize] += 1;
        let line = format!("{n:4} {case}: expected {expect} {reason}, found {fate:?}\n");
        match mark {
            Mark::Wrong => wrong += &line,
            Mark::Policy => open += &line,
            Mark::Expected | Mark::AlsoOk => {}
        }
    }
    assert!(frames.next().expect("a capture").is_none(), "more frames than expectations");
    let mut table = String::from("family      frames  as expected  also right  left open  wrong\n");
    for (family, marks) in &families {
        let [expected, also, policy, wrong] = marks;
        let all: usize = marks.iter().sum();
        writeln!(table, "{family:10} {all:7} {expected:12} {also:11} {policy:10} {wrong:6}")
            .expect("a string");
    }
    common::say(&format!("{table}left open by the standards, and answered otherwise:\n{open}"));
    assert!(wrong.is_empty(), "{wrong}");
}

impl Expectation {
    fn compare(&self, frame: &[u8], fate: &Fate) -> Mark {
        let (verdict, label) = match fate {
            Fate::Home(back) => {
                if !self.is_right_answer(frame, back) {
                    return Mark::Wrong;
                }
                ("forward", "")
            }
            Fate::Punted => ("punt", ""),
            Fate::Dropped(label) => ("drop", label.as_str()),
            Fate::Lost(_) => return Mark::Wrong,
        };
        let as_good = |answer: &String| match answer.split_once(':') {
            Some((other, class)) => other == verdict && classes(class).contains(&label),
            None => answer == verdict,
        };
        if self.expect == verdict && (verdict != "drop" || classes(&self.reason).contains(&label)) {
            Mark::Expected
        } else if self.also_ok.iter().any(as_good) {
            Mark::AlsoOk
        } else if self.policy {
            Mark::Policy
        } else {
            Mark::Wrong
        }
    }

    /// The frame with its addresses swapped and nothing else, as far as the corpus says what that is.
    fn is_right_answer(&self, frame: &[u8], back: &[u8]) -> bool {
        let mut swapped = frame.to_vec();
        let outer = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
        swapped[..12].rotate_left(6);
        swapped[outer + 12..outer + 20].rotate_left(4);
        let udp = outer + usize::from(frame[outer] & 15) * 4;
        let ports = self.returned_udp.is_none_or(|[source, destination]| {
            back[udp..udp + 2] == source.to_be_bytes() && back[udp + 2..udp + 4] == destination.to_be_bytes()
        });
        let header = self.geneve_header_hex.as_ref().is_none_or(|hex| {
            let found: String =
                back[udp + 8..].iter().take(hex.len() / 2).map(|b| format!("{b:02x}")).collect();
            found == *hex
        });
        back == swapped && ports && header
    }
}

/// Our labels for a class of the corpus. Classes of frames that are punted here have none.
fn classes(class: &str) -> &'static [&'static str] {
    match class {
        "outer_truncated" => &["outer_truncated"],
        "outer_ip_header" => &["outer_header"],
        "outer_ip_checksum" => &["outer_checksum"],
        "outer_fragment" => &["outer_fragment"],
        "outer_source" => &["foreign_source"],
        "outer_udp_length" => &["udp_length"],
        "outer_udp_checksum" => &["udp_checksum"],
        "geneve_truncated" | "geneve_options_truncated" => &["geneve_truncated"],
        "geneve_version" => &["geneve_version"],
        "geneve_control" => &["geneve_control"],
        "geneve_protocol" => &["geneve_protocol"],
        "geneve_tlv" | "geneve_tlv_overrun" => &["option_overrun"],
        "geneve_unknown_critical" => &["option_critical"],
        "aws_tlv_missing" => &["option_missing"],
        "aws_tlv_length" => &["option_length"],
        "aws_tlv_duplicate" => &["option_duplicate"],
        "inner_version" => &["inner_version"],
        "inner_l3" => &["inner_version", "inner_truncated", "inner_header", "inner_length"],
        "inner_l3_truncated" => &["inner_truncated"],
        "inner_l3_header" => &["inner_header"],
        "inner_l3_length" => &["inner_length"],
        "inner_ext" => &["inner_extension"],
        "inner_fragment" => &["inner_fragment"],
        "inner_l4_truncated" | "inner_l4_header" | "inner_l4_length" => &["inner_transport"],
        "inner_oversize" => &["too_big"],
        _ => &[],
    }
}

/// Every packet of the captures comes home in its envelope, byte for byte, or is dropped for a reason that a look at the packet
/// confirms.
#[test]
fn captures_of_the_corpus_come_home() {
    let Some(corpus) = corpus("captures_of_the_corpus_come_home") else { return };
    // Captures above segmentation offload hold packets of any size.
    let pool = PoolConfig { data_room: u16::MAX, ..common::pool_config(64) };
    let plan = plan(&format!("{TUNNEL}verify_checksum = \"always\"\nmax_return = 8500\n"));
    let mut rig = Rig::with_pool(&plan, &pool);
    let envelope = Envelope::default();
    let (mut captures, mut foreign, mut packets, mut home) = (0, 0, 0, 0);
    let mut drops: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for file in captures_in(&corpus.join("pcap")) {
        captures += 1;
        let mut reader = match Reader::open(&file) {
            Ok(reader) => reader,
            // Neither Ethernet nor raw IP (cooked captures): refused by name.
            Err(Error::Foreign { .. }) => {
                foreign += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        while let Some(captured) = reader.next().expect("a capture of the corpus") {
            let inner = match captured.link {
                Link::Ethernet => traffic::inner_packet(captured.bytes),
                Link::RawIp => Some(captured.bytes),
            };
            let Some(frame) = inner.and_then(|inner| traffic::wrap(inner, &envelope)) else { continue };
            packets += 1;
            match rig.fate(&frame) {
                Fate::Home(back) => {
                    home += 1;
                    let mut swapped = frame;
                    swapped[..12].rotate_left(6);
                    swapped[26..34].rotate_left(4);
                    assert!(back == swapped, "{} packet {packets}", file.display());
                }
                Fate::Dropped(reason) => {
                    let place = format!("{} packet {packets}", file.display());
                    assert!(confirmed(&reason, inner.unwrap_or(&[])), "{place}: {reason}");
                    drops.entry(reason).or_insert((0, place)).0 += 1;
                }
                other => panic!("{} packet {packets}: {other:?}", file.display()),
            }
        }
    }
    let mut summary =
        format!("{captures} captures ({foreign} of another link type), {packets} packets, {home} home\n");
    for (reason, (n, first)) in &drops {
        writeln!(summary, "{n:7} {reason}, first {first}").expect("a string");
    }
    common::say(&summary);
    assert!(captures > 200 && packets > 10_000, "{summary}");
    assert_eq!(home + drops.values().map(|(n, _)| n).sum::<u64>(), packets);
}

/// Does another parser find the fault too?
fn confirmed(reason: &str, inner: &[u8]) -> bool {
    use etherparse::{IpSlice, TransportSlice};
    let ip = IpSlice::from_slice(inner);
    match (reason, ip) {
        ("too_big", _) => inner.len() > 8500,
        // A fragment header inside a fragment header: an evasion (suricata-verify, ipv6-malformed-fragments).
        ("inner_extension", _) if inner.get(6) == Some(&44) && inner.get(40) == Some(&44) => true,
        (
            "inner_header" | "inner_length" | "inner_truncated" | "inner_version" | "inner_extension",
            found,
        ) => found.is_err(),
        ("inner_transport", Ok(_)) => {
            // Strict slicing: fails for a cut header, a wrong data offset, a wrong UDP length.
            etherparse::SlicedPacket::from_ip(inner).map_or(true, |packet| match packet.transport {
                Some(TransportSlice::Udp(udp)) => {
                    usize::from(udp.length()) > udp.slice().len() || udp.length() < 8
                }
                _ => false,
            })
        }
        ("inner_fragment", Ok(ip)) => ip.is_fragmenting_payload(),
        _ => false,
    }
}

fn captures_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the corpus").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(captures_in(&path));
        } else if path.extension().is_some_and(|e| e == "pcap") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn corpus(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICEGATE_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        skipped(test, "SLUICEGATE_CORPUS does not name the folder of the corpus");
    }
    folder
}
