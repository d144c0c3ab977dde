//! The gateway as a program, over DPDK: a capture comes in by one leg, its only target is a ring that gives everything back, and what leaves by the
//! other leg is the capture again.
#![cfg(feature = "program")]

mod common;

use std::process::Command;

const BASE: &str = r#"
[eal]
memory = "no-huge"
idle = "backoff"

[[port]]
name = "wan"
device = "DEVICE0"
[[port]]
name = "lan"
device = "DEVICE1"
[[port]]
name = "targets"
device = "net_ring0"

[gateway]
port = "targets"
address = "10.0.8.2/24"

[flow]
capacity = 4096

[[endpoint]]
id = 7
legs = ["wan", "lan"]

# What is sent to oneself comes back from a target.
[[target]]
address = "10.0.8.2"
mac = "02:00:00:00:00:0b"
"#;

#[test]
fn check_knows_a_gateways_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    let check = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        let output = command.arg("check").arg(&file).args(more).output().expect("it starts");
        let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (output.status.code(), text)
    };
    let good = BASE.replace("DEVICE0", "net_null0").replace("DEVICE1", "net_null1");
    let (code, text) = check(&good, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(": a gateway") && text.contains("no mistakes"), "{text}");
    let (code, text) = check(&good, &["--json", "--set", "gateway.zone=a"]);
    assert_eq!(code, Some(0), "{text}");
    let plan: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(plan["plan"]["gateway"]["zone"], "a");
    let (code, text) = check(&good.replace("\"lan\"]", "\"lam\"]"), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("endpoint[0].legs[1]: there is no port \"lam\""), "{text}");
    assert!(text.contains("1 mistake in the configuration"), "{text}");
}

#[test]
fn a_gateway_without_a_file_says_so() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let output = command.arg("gateway").output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("<FILE>"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let output = command.args(["gateway", "not-there.toml"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such file"));
}

#[cfg(feature = "dpdk")]
#[test]
fn what_comes_in_by_one_leg_leaves_by_the_other() {
    use std::io::{BufRead, BufReader};

    use common::gateway::framed;
    use common::inner::{udp, v4, v6};
    use sluicegate::dpdk::soft::pcap::{Reader, Writer};

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // More flows than a burst has frames, of both families, and ARP among them.
    let frames: Vec<Vec<u8>> = (0..600u16)
        .map(|n| match n % 3 {
            0 => framed(
                1,
                2,
                None,
                &udp(v4(10, 1, (n >> 8) as u8, n as u8, 1000), v4(10, 2, 0, 2, 53), b"question"),
            ),
            1 => framed(1, 2, None, &udp(v6("fd00::1", n), v6("fd00::2", 53), &[7; 1200])),
            _ => {
                let mut arp = framed(1, 2, None, &[0x45; 46]);
                arp[12..14].copy_from_slice(&[8, 6]);
                arp
            }
        })
        .collect();
    let mut writer = Writer::create(&path("in.pcap")).expect("a capture");
    for (at, frame) in (0..).zip(&frames) {
        writer.write(at, frame).expect("written");
    }
    writer.finish().expect("written");
    // It brings nothing; what is sent goes into a file.
    Writer::create(&path("none.pcap")).expect("a capture").finish().expect("written");
    let leg = |n: u8, rx: &str, tx: &str| {
        format!("net_pcap{n},rx_pcap={},tx_pcap={}", path(rx).display(), path(tx).display())
    };
    let text = BASE
        .replace("DEVICE0", &leg(0, "in.pcap", "back.pcap"))
        .replace("DEVICE1", &leg(1, "none.pcap", "out.pcap"));
    std::fs::write(path("gateway.toml"), text).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .arg("gateway")
        .arg(path("gateway.toml"))
        .args(["--json", "--stats-interval", "50ms"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut last = serde_json::Value::Null;
    let mut asked = false;
    for line in lines {
        let line = line.expect("text");
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        // ARP passes once, packets twice.
        if value["event"] == "stats" && value["received"] == 1000 && !asked {
            asked = true;
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
        }
        last = value;
    }
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{last}");
    assert_eq!(last["event"], "stopped", "{last}");
    assert_eq!(last["balances"], true, "{last}");
    assert_eq!((&last["ledger"]["sent"], &last["ledger"]["dropped"]), (&1000.into(), &0.into()), "{last}");
    assert_eq!(last["flows"]["opened"], 400, "{last}");
    assert_eq!(last["buffers_out"], 0, "{last}");
    let mut reader = Reader::open(&path("out.pcap")).expect("a capture");
    let mut out = Vec::new();
    while let Some(frame) = reader.next().expect("a capture") {
        out.push(frame.bytes.to_vec());
    }
    // Those that pass by overtake those that go to the target.
    let (arp, packets): (Vec<_>, Vec<_>) = out.into_iter().partition(|frame| frame[12..14] == [8, 6]);
    let (arp_in, packets_in): (Vec<_>, Vec<_>) =
        frames.into_iter().partition(|frame| frame[12..14] == [8, 6]);
    assert_eq!(arp, arp_in);
    assert_eq!(packets, packets_in);
}
