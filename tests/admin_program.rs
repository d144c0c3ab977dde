//! The program on the EAL, asked by its own subcommands while it works.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::traffic::{self, Mix};

const FLOWS: u64 = 100;

/// The program as it runs. A test that fails leaves none behind.
struct Program {
    child: Child,
    folder: tempfile::TempDir,
}

impl Program {
    /// A capture of 100 flows again and again, through a firewall.
    fn start(name: &str) -> Program {
        let folder = tempfile::tempdir().expect("a folder");
        let mix = Mix { flows: FLOWS as u32, ..Mix::default() };
        traffic::pcap::write(&folder.path().join("in.pcap"), &mix, 1000).expect("a capture");
        let text = "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nextra_buffers = 2000\n[[port]]\n\
             device = \"net_pcap0,rx_pcap=in.pcap,infinite_rx=1\"\nqueues = 1\n\
             [tunnel]\nmax_return = \"unlimited\"\n[management]\nsocket = \"admin.sock\"\n\
             [[stage]]\nuse = \"acl\"\ndefault = \"allow\"\n\
             [[stage.rule]]\naction = \"deny\"\nprotocol = \"udp\"\nsource_port = 1\ncomment = \"nobody\"\n"
            .to_owned();
        std::fs::write(folder.path().join("edge.toml"), text).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["run", "edge.toml", "--stats-interval", "0s"])
            .env("SLUICEGATE_EAL__FILE_PREFIX", common::prefix(name))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut program = Program { child, folder };
        let begun = Instant::now();
        while !ask(program.folder.path(), &["status", "--of", "edge.toml"]).status.success() {
            assert!(program.child.try_wait().expect("a child").is_none(), "it ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "it is never ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        program
    }

    fn ask(&self, args: &[&str]) -> Output {
        ask(self.folder.path(), args)
    }

    /// What it says, which must be good.
    fn text(&self, args: &[&str]) -> String {
        let output = self.ask(args);
        let [out, error] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
        assert!(output.status.success(), "{args:?}: {out}{error}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(args)).expect("JSON")
    }

    /// The error of a command that must fail with this code.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.ask(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn end(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()));
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn ask(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate")).args(args).current_dir(folder).output().expect("it starts")
}

#[test]
fn a_running_program_is_asked() {
    let program = Program::start("asked");
    let status = program.text(&["status", "--socket", "admin.sock"]);
    for part in ["state    ready", "of edge.toml: acl", "flows    100 of", "net_pcap0", "events   0 lost"] {
        assert!(status.contains(part), "{part} in\n{status}");
    }
    let status = program.json(&["status", "--of", "edge.toml", "--json"]);
    assert_eq!(status["program"]["pid"], program.child.id());
    std::thread::sleep(Duration::from_millis(2200));
    let status = program.json(&["status", "--of", "edge.toml", "--json"]);
    assert!(status["workers"][0]["rate"]["received_per_s"].as_f64() > Some(100.0), "{status}");
    assert!(status["workers"][0]["rate"]["busy_ratio"].as_f64() > Some(0.0), "{status}");

    let flows = program.json(&["flows", "--of", "edge.toml", "--json", "--sort", "bytes", "--limit", "7"]);
    assert_eq!((flows["flows"].as_array().map(Vec::len), &flows["matching"]), (Some(7), &FLOWS.into()));
    let first = &flows["flows"][0];
    let source = format!("src={}", first["source"].as_str().expect("an address"));
    let port = format!("sport={}", first["source_port"]);
    let found = program.json(&["flows", "--of", "edge.toml", "--json", &source, &port]);
    let ids: Vec<&Value> =
        found["flows"].as_array().expect("flows").iter().map(|flow| &flow["flow_id"]).collect();
    assert!(ids.contains(&&first["flow_id"]), "{found}");
    assert!(program.text(&["flows", "--of", "edge.toml", &source]).contains("of "));
    assert!(program.text(&["flows", "--of", "edge.toml", "--count"]).contains("tenant default"));
    let wrong = program.fails(2, &["flows", "--of", "edge.toml", "verdict=settled", "port=99999"]);
    assert!(wrong.contains("\n  verdict=settled port=99999\n                       ^^^^^\n"), "{wrong}");
    assert!(program.fails(2, &["flows", "--of", "edge.toml", "--flush"]).contains("--yes"));
    assert!(program.text(&["flows", "--of", "edge.toml", "--flush", "--yes"]).contains("100 flows end"));

    // The worker obeys when it comes to it.
    let begun = std::time::Instant::now();
    let stats = loop {
        let stats = program.text(&["stats", "--of", "edge.toml", "flows"]);
        if stats.contains("flows.ended_flushed") || begun.elapsed() > Duration::from_secs(20) {
            break stats;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(stats.contains("flows.ended_flushed") && !stats.contains("pool."), "{stats}");
    let stats = program.json(&["stats", "--of", "edge.toml", "--json"]);
    assert!(stats["flows"]["ended_flushed"].as_u64() >= Some(1), "{stats}");

    let level = |more: &[&str]| program.text(&[&["level", "--of", "edge.toml"], more].concat());
    assert_eq!(level(&[]), "info\n");
    assert_eq!(level(&["debug"]), "debug, which was info\n");
    assert_eq!(level(&["debug"]), "debug\n");
    assert_eq!(level(&[]), "debug\n");
    assert!(program.fails(2, &["level", "loud", "--of", "edge.toml"]).contains("is not one of error, warn"));
    assert_eq!(level(&[]), "debug\n");
    program.end();
}

/// A capture by the program's own subcommand, read by capinfos and tshark.
#[test]
fn frames_are_captured_from_a_running_program() {
    let program = Program::start("captured");
    let said =
        program.text(&["capture", "--of", "edge.toml", "-w", "a.pcapng", "-c", "500", "--rate", "100000"]);
    assert!(said.contains("bytes in a.pcapng"), "{said}");
    let tool = |name: &str, args: &[&str]| {
        let output = Command::new(name).args(args).current_dir(program.folder.path()).output().expect(name);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let infos = tool("capinfos", &["-M", "a.pcapng"]);
    assert!(infos.contains("pcapng") && infos.contains("Number of packets:   500"), "{infos}");
    let fields = ["-r", "a.pcapng", "-T", "fields", "-e", "frame.comment", "-e", "geneve.vni"];
    let lines = tool("tshark", &fields);
    assert!(
        lines.lines().count() == 500 && lines.lines().all(|line| line.starts_with("home, flow ")),
        "{lines}"
    );
    let wrong = program.fails(2, &["capture", "--of", "edge.toml", "-w", "b.pcapng", "fate=lost"]);
    assert!(wrong.contains("fate=lost") && wrong.contains("^^^^"), "{wrong}");
    program.end();
}

/// A running program explains its flow, and a capture is explained without one, packet by packet.
#[test]
fn flows_and_captures_are_explained() {
    let program = Program::start("explained");
    let flows = program.json(&["flows", "--of", "edge.toml", "--json", "--limit", "1"]);
    let flow = &flows["flows"][0];
    let end = |address: &str, port: &str| match flow[address].as_str().expect("an address") {
        v6 if v6.contains(':') => format!("[{v6}]:{}", flow[port]),
        v4 => format!("{v4}:{}", flow[port]),
    };
    let (from, to) = (end("source", "source_port"), end("destination", "destination_port"));
    let said = program.text(&["explain", "--of", "edge.toml", &flow["protocol"].to_string(), &from, &to]);
    for part in [
        "owned by worker 0",
        "acl: settled: it lets the flow pass; its rules say allow, by default allow",
        "originator: to node",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let traced = program.text(&["explain", "edge.toml", "--pcap", "in.pcap", "--json"]);
    let packets: Vec<Value> = traced.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(packets.len(), 1000);
    let first = &packets[0];
    assert_eq!(
        (&first["verdict"], &first["went_back"][0]),
        (&"home".into(), &"as it came, its envelope turned around".into())
    );
    let stage = &first["stages"][0];
    assert_eq!((&stage["said"], &stage["counted"][0]), (&"lets it pass".into(), &"default allow".into()));
    assert!(stage["cycles"].as_u64() > Some(0), "{stage}");
    assert_eq!(packets[999]["stages"][0]["said"], "not asked", "the flow is settled by then");
    let denied = ["explain", "edge.toml", "--pcap", "in.pcap", "--set", "stage[0].default=deny"];
    let text = program.text(&denied);
    assert!(text.contains("drops it: default deny (") && !text.contains("went back"), "{}", &text[..400]);
    assert!(program.fails(2, &["explain", "tcp", "--of", "edge.toml"]).contains("name protocol"));
    program.end();
}

/// What is said to somebody who asks nobody, or at the wrong door.
#[test]
fn whoever_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = |args: &[&str]| {
        let output = ask(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(says(&["status", "--socket", "none.sock"]).contains("there is no such socket"));
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale.sock")).expect("a socket"));
    assert!(says(&["stats", "--socket", "stale.sock"]).contains("nobody listens"));
    assert!(says(&["flows", "--of", "none.toml"]).contains("none.toml"));
    std::fs::write(folder.path().join("off.toml"), "[management]\nsocket = \"off\"\n").expect("a file");
    assert!(says(&["flows", "--of", "off.toml"]).contains("management.socket is off"));
}
