//! What leaves the path, as Wireshark sees it: GENEVE with the inner protocol behind it, right checksums, no errors. Skipped,
//! and says so, where tshark is not installed.
#![cfg(feature = "program")]

mod common;

use std::path::Path;
use std::process::Command;

use sluicegate::dpdk::soft::pcap::Writer;

use common::golden::groups;
use common::wild::WILD;
use common::{Fate, Rig, plan, plan_with, skipped};

/// Wireshark's severity "error".
const ERROR: u32 = 0x0080_0000;
/// Its word for a checksum that is right, and for one that is not there.
const GOOD: &str = "1";
const NONE: &str = "3";

/// One frame in Wireshark's eyes.
#[derive(Debug)]
struct Seen {
    protocols: String,
    /// Of the outer header.
    ip: String,
    udp: String,
    /// The worst of the whole frame.
    severity: u32,
    /// Of the inner TCP, ICMP or ICMPv6; that of a TCP segment which an ICMP error quotes stands in front.
    inside: String,
}

/// What tshark says of every frame of a capture; `None` if it is not installed.
fn seen(test: &str, capture: &Path) -> Option<Vec<Seen>> {
    let settings = match Command::new("tshark").args(["-G", "protocols"]).output() {
        Ok(protocols) => settings(&String::from_utf8_lossy(&protocols.stdout)),
        Err(error) => {
            skipped(test, &format!("tshark: {error}"));
            return None;
        }
    };
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", settings.path());
    command.arg("-r").arg(capture).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
    // The tunnel is known by its destination port, whatever Wireshark holds of the source port.
    command.args(["-d", "udp.port==6081,geneve"]);
    for setting in [
        "ip.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        "tcp.analyze_sequence_numbers:FALSE",
    ] {
        command.args(["-o", setting]);
    }
    for field in [
        "frame.protocols",
        "ip.checksum.status",
        "udp.checksum.status",
        "_ws.expert.severity",
        "tcp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ] {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let first = |i: usize| fields[i].split(',').next().unwrap_or_default().to_owned();
        let severity = fields[3].split(',').filter_map(|s| s.parse().ok()).max().unwrap_or(0);
        let inside = [4, 5, 6].map(first).concat();
        Seen { protocols: fields[0].to_owned(), ip: first(1), udp: first(2), severity, inside }
    };
    Some(text.lines().map(line).collect())
}

/// A folder of settings that leaves only the formats of the path: made-up payloads are no application's, and an
/// application's dissector would say so.
fn settings(protocols: &str) -> tempfile::TempDir {
    const OURS: [&str; 12] =
        ["frame", "eth", "ethertype", "vlan", "ip", "ipv6", "udp", "geneve", "tcp", "icmp", "icmpv6", "data"];
    let names = protocols.lines().filter_map(|line| line.split('\t').nth(2));
    let disabled: Vec<&str> = names.filter(|name| !OURS.contains(name)).collect();
    assert!(disabled.len() > 1000, "tshark -G protocols: {protocols:.200}");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("disabled_protos"), disabled.join("\n") + "\n").expect("settings");
    folder
}

/// Generated traffic through the program's own replay and a firewall.
#[test]
fn tshark_reads_what_a_replay_sends_home() {
    use sluicegate::dpdk::soft::pcap::Reader;
    use sluicegate::traffic::{self, Mix};

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    traffic::pcap::write(&input, &Mix { flows: 300, ..Mix::default() }, 3000).expect("a capture");
    let program = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["replay", "pipelines/demo.toml", "--in"])
        .arg(&input)
        .arg("--out")
        .arg(&output)
        .current_dir(root)
        .output()
        .expect("the program starts");
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    let Some(frames) = seen("tshark_reads_what_a_replay_sends_home", &output) else { return };
    assert!(frames.len() > 2000, "{} frames came home", frames.len());
    let (mut tcp6, mut udp4) = (0, 0);
    for frame in &frames {
        assert!(frame.protocols.starts_with("eth:ethertype:ip:udp:geneve:ip"), "{frame:?}");
        assert!(frame.ip == GOOD && frame.udp == GOOD && frame.severity < ERROR, "{frame:?}");
        tcp6 += u32::from(frame.protocols.contains("geneve:ipv6:tcp"));
        udp4 += u32::from(frame.protocols.contains("geneve:ip:udp"));
    }
    assert!(tcp6 > 100 && udp4 > 100, "{tcp6} TCP over IPv6, {udp4} UDP over IPv4");
    let mut reader = Reader::open(&output).expect("what was sent");
    assert_eq!(std::iter::from_fn(|| reader.next().expect("a capture").map(|_| ())).count(), frames.len());
}

/// Golden frames that come home, envelopes of every form: as they came, and edited at random. What is inside an edited packet
/// is the stage's, so there only the envelope is judged.
#[test]
fn tshark_finds_envelopes_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let wild = "[[stage]]\nuse = \"wild\"\nseed = 3\npatch = 40\nresize = 60\n";
    for (edited, stages) in [(false, ""), (true, wild)] {
        let capture = folder.path().join(format!("edited-{edited}.pcap"));
        let mut writer = Writer::create(&capture).expect("a capture");
        let mut names = Vec::new();
        for (table, cases) in groups() {
            let text = format!("{table}{stages}");
            let mut rig = Rig::new(&if edited { plan_with(&text, &[&WILD]) } else { plan(&text) });
            // Wireshark knows the tunnel by its port; checksums that are wrong on purpose come home as they came.
            for case in
                cases.iter().filter(|c| !c.name.contains("checksum-wrong") && !c.table().contains("16081"))
            {
                if let Fate::Home(back) = rig.fate(&case.frame) {
                    writer.write(names.len() as u64, &back).expect("a capture");
                    names.push(case.name.clone());
                }
            }
        }
        writer.finish().expect("a capture");
        let Some(frames) = seen("tshark_finds_envelopes_right", &capture) else { return };
        assert_eq!(frames.len(), names.len());
        assert!(frames.len() > 70, "{}", frames.len());
        for (frame, name) in frames.iter().zip(&names) {
            let protocols = frame.protocols.replace(":vlan:ethertype", "");
            assert!(protocols.starts_with("eth:ethertype:ip:udp:geneve"), "{name}: {frame:?}");
            assert_eq!(frame.ip, GOOD, "{name}: {frame:?}");
            let none = if name.starts_with("udp/checksum-zero") || name == "profile/google-tcp4" {
                NONE
            } else {
                GOOD
            };
            assert_eq!(frame.udp, none, "{name}: {frame:?}");
        }
    }
}

/// Every answer of ours, inside and out. They are scapy's frames; that ours are the same byte for byte is a test of `path::answer`.
#[test]
fn tshark_finds_answers_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("answers.pcap");
    let mut writer = Writer::create(&capture).expect("a capture");
    let mut cases = common::answers::cases();
    cases.retain(|case| case.back.is_some());
    for (number, case) in cases.iter().enumerate() {
        writer.write(number as u64, case.back.as_deref().unwrap_or(&[])).expect("a capture");
    }
    writer.finish().expect("a capture");
    let Some(frames) = seen("tshark_finds_answers_right", &capture) else { return };
    assert_eq!(frames.len(), cases.len());
    let (mut resets, mut errors) = (0, 0);
    for (frame, case) in frames.iter().zip(&cases) {
        let name = &case.name;
        let protocols = frame.protocols.replace(":vlan:ethertype", "");
        let Some(inner) = protocols.strip_prefix("eth:ethertype:ip:udp:geneve:") else {
            panic!("{name}: {frame:?}")
        };
        // The innermost is the quote's.
        resets += u32::from(inner == "ip:tcp" || inner == "ipv6:tcp");
        errors += u32::from(inner.starts_with("ip:icmp:ip") || inner.starts_with("ipv6:icmpv6:ipv6"));
        let zero = ["envelope/google", "envelope/zero"].iter().any(|start| name.starts_with(start));
        assert_eq!((frame.ip.as_str(), frame.udp.as_str()), (GOOD, if zero { NONE } else { GOOD }), "{name}");
        // Wireshark takes a quoted segment for a whole one and finds its checksum wrong.
        let quote = inner.contains("icmp") && inner.contains(":tcp");
        assert!(quote || frame.severity < ERROR, "{name}: {frame:?}");
        assert!(if quote { frame.inside.ends_with(GOOD) } else { frame.inside == GOOD }, "{name}: {frame:?}");
    }
    assert_eq!((resets + errors) as usize, cases.len(), "{resets} resets, {errors} errors");
}

/// What the judge of appliances sends, every profile and kind of inner packet.
#[test]
fn tshark_reads_what_the_judge_sends() {
    use sluicegate::conform::frames::make::{self, Ends, Envelope, Segment};
    use sluicegate::conform::profile::Profile;

    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("judge.pcap");
    let mut writer = Writer::create(&capture).expect("a capture");
    let mut expected = Vec::new();
    for v6 in [false, true] {
        let (from, to) = if v6 { ("[fd00:201::7]", "[fd00:202::9]") } else { ("10.201.0.7", "10.202.0.9") };
        let end = |host: &str, port: u16| format!("{host}:{port}").parse().expect("an address");
        let ends = Ends { from: end(from, 40_000), to: end(to, 5001) };
        let segment = Segment { flags: 0x18, sequence: 1, acknowledgment: 2, payload: b"odd" };
        let datagram = make::udp(ends, b"payload");
        let too_big = if v6 { [2, 0] } else { [3, 4] };
        let error = make::icmp(ends.to.ip(), ends.from.ip(), too_big, 1400, &datagram);
        let (ip, icmp) = if v6 { ("ipv6", "icmpv6") } else { ("ip", "icmp") };
        for (inner, layers) in [
            (make::tcp(ends, segment), "tcp".to_owned()),
            (datagram, "udp".to_owned()),
            (make::udp(ends, b""), "udp".to_owned()),
            (make::echo(ends, true, 7, b"ping"), icmp.to_owned()),
            (make::echo(ends.turned(), false, 7, b"ping"), icmp.to_owned()),
            (error, format!("{icmp}:{ip}:udp")),
        ] {
            for (profile, second) in Profile::ALL.into_iter().flat_map(|p| [(p, false), (p, true)]) {
                let envelope = Envelope {
                    node: [10, 254, 11, 60].into(),
                    appliance: [10, 254, 11, 102].into(),
                    source_port: 60_123,
                    port: 6081,
                    ttl: profile.ttl,
                    checksum: profile.checksum,
                    flags: 0,
                    protocol: None,
                    vni: (0, 0),
                    options: profile.options(u64::MAX / 3, 0xdead_beef, second),
                };
                let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
                let frame = [&head[..], &envelope.packet(&inner)].concat();
                writer.write(expected.len() as u64, &frame).expect("a capture");
                let checksum = if profile.checksum { GOOD } else { NONE };
                expected.push((format!("eth:ethertype:ip:udp:geneve:{ip}:{layers}"), checksum));
            }
        }
    }
    writer.finish().expect("a capture");
    let Some(frames) = seen("tshark_reads_what_the_judge_sends", &capture) else { return };
    assert_eq!(frames.len(), expected.len());
    for (frame, (protocols, checksum)) in frames.iter().zip(&expected) {
        let found = frame.protocols.trim_end_matches(":data");
        assert_eq!((found, frame.udp.as_str()), (protocols.as_str(), *checksum), "{frame:?}");
        assert!(frame.ip == GOOD && frame.severity < ERROR, "{frame:?}");
        assert!(["", GOOD].contains(&frame.inside.as_str()), "{frame:?}");
    }
}
