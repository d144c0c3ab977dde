//! The program with the stage in it: it lists it, checks its settings, and runs it on frames.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sluicegate::dpdk::soft::pcap::Writer;
use sluicegate::traffic::{Envelope, wrap};

const PIPELINE: &str =
    "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n\n[[stage]]\nuse = \"quota\"\nkilobytes = 1\n";

fn program(arguments: &[&str], folder: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_custom-stage");
    Command::new(program).args(arguments).current_dir(folder).output().expect("it starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A UDP datagram of so many bytes, headers included, from this port, or to it.
fn datagram(len: u16, port: u16, reply: bool) -> Vec<u8> {
    let mut packet = vec![0; usize::from(len)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    (packet[8], packet[9]) = (64, 17);
    let ends = [([10, 1, 0, 5], port), ([10, 2, 0, 9], 53)];
    let [(source, from), (destination, to)] = if reply { [ends[1], ends[0]] } else { ends };
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet[20..22].copy_from_slice(&from.to_be_bytes());
    packet[22..24].copy_from_slice(&to.to_be_bytes());
    packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
    packet
}

#[test]
fn the_program_knows_the_stage() {
    let folder = tempfile::tempdir().expect("a folder");
    let listed = program(&["stages"], folder.path());
    assert!(text(&listed.stdout).contains("drops flows that have carried too much"), "{listed:?}");
    assert!(text(&listed.stdout).contains("acl"), "beside those that come with it");
    std::fs::write(folder.path().join("edge.toml"), PIPELINE.replace("= 1", "= 0")).expect("a file");
    let refused = program(&["replay", "edge.toml", "--in", "none.pcap"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("0 would drop everything"), "{refused:?}");
}

#[test]
fn flows_that_carried_too_much_are_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("edge.toml"), PIPELINE).expect("a file");
    let mut capture = Writer::create(&folder.path().join("in.pcap")).expect("a file");
    let mut packets = 0;
    let mut send = |len: u16, port: u16, reply: bool| {
        let frame = wrap(&datagram(len, port, reply), &Envelope::default()).expect("not too long");
        packets += 1;
        capture.write(packets * 1_000_000, &frame).expect("it is written");
    };
    // 1000 bytes both ways together, and a byte more; another flow; what comes then of both.
    for (len, port, reply) in
        [(500, 1, false), (500, 1, true), (29, 1, false), (400, 2, false), (28, 1, true), (28, 2, false)]
    {
        send(len, port, reply);
    }
    capture.finish().expect("it is written");
    let ran = program(&["replay", "edge.toml", "--in", "in.pcap", "--packets", "--json"], folder.path());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let said: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let verdicts = ["home", "home", "dropped: quota.spent", "home", "dropped: flow_condemned", "home"];
    let verdicts: Vec<String> = (1..).zip(verdicts).map(|(n, verdict)| format!("{n}: {verdict}")).collect();
    assert_eq!(said["packets"], serde_json::json!(verdicts), "{said}");
    // The same through DPDK's driver for captures.
    let device = "port[0].device=net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap";
    let own = ["eal.memory=no-huge", "eal.idle=backoff", "eal.file_prefix=sluicegate-test-custom-stage"];
    let mut run = vec!["run", "edge.toml", "--duration", "1s", "--json", "--set", device];
    run.extend(own.iter().flat_map(|set| ["--set", set]));
    let ran = program(&run, folder.path());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let last = text(&ran.stdout).lines().last().expect("a report");
    let said: Value = serde_json::from_str(last).expect("JSON");
    // All in one batch: what settles a flow holds from the next one on, and the stage drops each packet itself.
    assert_eq!(said["drops"], serde_json::json!([{ "reason": "quota.spent", "packets": 2 }]), "{said}");
    assert_eq!((&said["ledger"]["sent"], &said["balances"]), (&4.into(), &true.into()));
}
