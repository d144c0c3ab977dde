//! `sluicegate replay --flows`: the flows of a capture, held to what a person works out from it.
#![cfg(feature = "program")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use common::inner::{tcp, udp, v4, v6};

const POLICY: &str = r#"[[port]]
device = "net_null0"

[tunnel]
allowed_sources = ["10.0.8.0/24"]

[[stage]]
use = "acl"
default = "deny"

[[stage.rule]]
action = "allow"
protocol = "tcp|udp"
destination_port = "53|443"
"#;

/// A classic pcap file of raw IP packets, each with its time in milliseconds.
fn capture(packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 101]);
    for (ms, packet) in packets {
        let (at, len) = (1_700_000_000_000 + u64::from(*ms), packet.len() as u32);
        file.extend(words(&[(at / 1000) as u32, (at % 1000) as u32 * 1000, len, len]));
        file.extend(packet);
    }
    file
}

/// A connection that is reset, a question with its answer, and what the rules deny.
fn packets() -> Vec<(u32, Vec<u8>)> {
    let (client, server) = (v4(10, 1, 0, 5, 40_000), v4(10, 2, 0, 9, 443));
    let (asks, answers) = (v6("fd00::5", 5353), v6("fd00::1", 53));
    let denied = (v4(10, 1, 0, 5, 7), v4(10, 2, 0, 9, 54));
    vec![
        (0, tcp(client, server, "S", 100, 0, &[])),
        (10, tcp(server, client, "SA", 500, 101, &[])),
        (20, tcp(client, server, "A", 101, 501, &[])),
        (30, tcp(client, server, "PA", 101, 501, &[7; 10])),
        (1000, udp(asks, answers, b"where")),
        (1005, udp(answers, asks, &[1; 100])),
        (2000, udp(denied.0, denied.1, &[])),
        (2500, udp(denied.0, denied.1, &[])),
        (3000, tcp(client, server, "R", 111, 0, &[])),
        // A connection that was reset is forgotten after 2 s, a flow that is denied after 10 s without a packet.
        (5500, udp(asks, answers, b"where")),
        (13_000, udp(asks, answers, b"where")),
    ]
}

fn replay(more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("edge.toml"), POLICY).expect("a file");
    std::fs::write(folder.path().join("a.pcap"), capture(&packets())).expect("a file");
    run(folder.path(), more)
}

fn run(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["replay", "edge.toml", "--in", "a.pcap"]).args(more).current_dir(folder);
    command.output().expect("the program starts")
}

fn text(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    assert_eq!(output.status.code(), Some(0), "{out}{error}");
    out + &error
}

/// Bytes are those of IP packets: 40 for a TCP segment without data, 28 (IPv4) and 48 (IPv6) for an empty datagram.
#[test]
fn flows_are_what_a_person_finds_in_the_capture() {
    let found: Value = serde_json::from_str(&text(&replay(&["--flows", "--json"]))).expect("JSON");
    let expected = json!([
        {
            "source": "10.1.0.5", "source_port": 40000, "destination": "10.2.0.9", "destination_port": 443, "protocol": 6,
            "endpoint": "vpce-00123456789abcdef", "tenant": "default", "state": "reset", "began_ms": 0, "duration_ms": 3000, "packets": [4, 1], "bytes": [170, 40],
            "verdict": "settled", "reason": null, "picked_up": false, "ended": "reset",
        },
        {
            "source": "fd00::5", "source_port": 5353, "destination": "fd00::1", "destination_port": 53, "protocol": 17,
            "endpoint": "vpce-00123456789abcdef", "tenant": "default", "state": "established", "began_ms": 1000, "duration_ms": 12000,
            "packets": [3, 1], "bytes": [159, 148],
            "verdict": "settled", "reason": null, "picked_up": false, "ended": null,
        },
        {
            "source": "10.1.0.5", "source_port": 7, "destination": "10.2.0.9", "destination_port": 54, "protocol": 17,
            "endpoint": "vpce-00123456789abcdef", "tenant": "default", "state": "first", "began_ms": 2000, "duration_ms": 500, "packets": [2, 0], "bytes": [56, 0],
            "verdict": "condemned", "reason": "acl.default_deny", "picked_up": false, "ended": "idle",
        },
    ]);
    assert_eq!(found["flows"], expected);
    let counters = &found["flow_counters"];
    for (name, n) in [
        ("opened", 3),
        ("established", 2),
        ("ended_reset", 1),
        ("ended_idle", 1),
        ("condemned", 1),
        ("live", 1),
    ] {
        assert_eq!(counters[name], n, "{name}");
    }
}

/// The same as a table, twice the same, and only where it is asked for.
#[test]
fn the_table_of_flows_is_the_same_each_time() {
    let (one, two) = (text(&replay(&["--flows"])), text(&replay(&["--flows"])));
    assert_eq!(one, two);
    let line = |start: &str| {
        let line = one.lines().find(|line| line.contains(start)).unwrap_or_else(|| panic!("{start}\n{one}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line(":40000"),
        "0.000 s 10.1.0.5:40000 10.2.0.9:443 TCP reset 4 1 170 40 3.000 s settled reset"
    );
    assert_eq!(
        line("fd00"),
        "1.000 s [fd00::5]:5353 [fd00::1]:53 UDP established 3 1 159 148 12.000 s settled"
    );
    assert_eq!(
        line(":54"),
        "2.000 s 10.1.0.5:7 10.2.0.9:54 UDP first 2 0 56 0 0.500 s acl.default_deny idle"
    );
    assert_eq!(line("live"), "live 1 Flows that had not ended.");
    assert!(!text(&replay(&[])).contains("fd00::5"));
}

/// Flows are part of a golden file that was made with them.
#[test]
fn a_golden_file_can_hold_flows() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("edge.toml"), POLICY).expect("a file");
    std::fs::write(folder.path().join("a.pcap"), capture(&packets())).expect("a file");
    let golden = ["--flows", "--golden", "golden.json"];
    text(&run(folder.path(), &[&golden[..], &["--update"]].concat()));
    text(&run(folder.path(), &golden));
    let changed = run(folder.path(), &[&golden[..], &["--set", "flow.denied=20s"]].concat());
    assert_eq!(changed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&changed.stderr);
    assert!(said.contains("flows[2].ended: expected \"idle\", found null"), "{said}");
}

/// Without flows there are none, and that is said.
#[test]
fn no_flows_no_table() {
    let found = text(&replay(&["--flows", "--set", "stage[0].stateful=false"]));
    assert!(found.contains("no flow is followed"), "{found}");
    assert!(!found.contains("fd00::5"), "{found}");
}
