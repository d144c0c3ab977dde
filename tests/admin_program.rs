//! The program on the EAL, asked by its own subcommands while it works.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::mgmt::admin::client::{Client, Stream};
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
        Program::with(name, "allow", "")
    }

    /// The same with another verdict on what no rule names, and more in its file.
    fn with(name: &str, default: &str, more: &str) -> Program {
        Program::on("net_pcap0,rx_pcap=in.pcap,infinite_rx=1", name, default, more)
    }

    /// The same on another device.
    fn on(device: &str, name: &str, default: &str, more: &str) -> Program {
        let folder = tempfile::tempdir().expect("a folder");
        let mix = Mix { flows: FLOWS as u32, ..Mix::default() };
        traffic::pcap::write(&folder.path().join("in.pcap"), &mix, 1000).expect("a capture");
        let text = format!(
            "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nextra_buffers = 2000\n[[port]]\n\
             device = \"{device}\"\nqueues = 1\n\
             [tunnel]\nmax_return = \"unlimited\"\n[management]\nsocket = \"admin.sock\"\n\
             {more}[[stage]]\nuse = \"acl\"\ndefault = \"{default}\"\n\
             [[stage.rule]]\naction = \"deny\"\nprotocol = \"udp\"\nsource_port = 1\ncomment = \"nobody\"\n"
        );
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

/// All dropped packets are told, as many as there are.
const TELL_ALL: &str = "[events.drop]\nreasons = [\"*\"]\nper_s = 1000000\n";

impl Program {
    /// A follower, and what it reads.
    fn follow(&self, filter: &str) -> Stream {
        let client = Client::new(&self.folder.path().join("admin.sock"));
        client.stream("events", &[("filter", filter)]).expect("it follows")
    }

    /// Drops that workers have told.
    fn told(&self) -> u64 {
        self.json(&["stats", "--of", "edge.toml", "--json"])["events"]["drop"]["emitted"]
            .as_u64()
            .expect("a number")
    }
}

fn follow<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["events", "--of", "edge.toml", "--follow"], more].concat()
}

fn next(stream: &mut Stream) -> Option<Value> {
    let mut line = String::new();
    (stream.read_line(&mut line).expect("a line") > 0).then(|| serde_json::from_str(&line).expect("JSON"))
}

/// Records are followed by the subcommand, without any sink; and while nobody follows, none is made.
#[test]
fn events_are_followed() {
    let program = Program::with("followed", "deny", TELL_ALL);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(program.told(), 0, "nobody follows");
    let lines = program.text(&follow(&["--type", "drop", "-c", "50", "--json"]));
    let drops: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let drops: Vec<&Value> = drops.iter().filter(|drop| drop["event_type"] != "missing").collect();
    assert!(drops.len() == 50 && drops.iter().all(|drop| drop["event_type"] == "drop"), "{lines}");
    let source = format!("src={}", drops[0]["src_ip"].as_str().expect("an address"));
    let text = program.text(&follow(&[&source, "type=drop", "-c", "3"]));
    let source = source.trim_start_matches("src=");
    let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with("...")).collect();
    assert!(shown.len() == 3 && shown.iter().all(|line| line.contains(source)), "{text}");
    // Flows are told as well, to whoever asks for them.
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| program.text(&follow(&["--type", "flow", "-c", "5"])));
        std::thread::sleep(Duration::from_millis(500));
        program.text(&["flows", "--of", "edge.toml", "--flush", "--yes"]);
        ended.join().expect("flows")
    });
    assert_eq!(ended.lines().filter(|line| line.contains("ended (flushed)")).count(), 5, "{ended}");
    let text = program.text(&["events", "--of", "edge.toml"]);
    assert!(text.contains("drop") && text.contains("0 follow; "), "{text}");
    // It was wanted a moment ago; now nothing is made any more.
    std::thread::sleep(Duration::from_millis(300));
    let before = program.told();
    std::thread::sleep(Duration::from_millis(300));
    assert!(before >= 53 && program.told() == before, "{before}");

    let wrong = program.fails(2, &follow(&["type=drop,allert"]));
    assert!(wrong.contains("did you mean \"alert\"?") && wrong.contains("^^^^"), "{wrong}");
    assert!(
        program.fails(2, &follow(&["--stage", "acll"])).contains("there is no stage \"acll\"; there are acl")
    );
    assert!(program.fails(2, &follow(&["--tenant", "nobody"])).contains("there is no tenant"));
    program.end();
}

/// Who does not read misses records and is told so; others miss nothing by it, and there is a bound to how many may follow.
#[test]
fn followers_are_bounded() {
    let program = Program::with("followers", "deny", TELL_ALL);
    let mut slow = program.follow("type=drop");
    let begun = Instant::now();
    let lost = |program: &Program| {
        program.json(&["stats", "--of", "edge.toml", "--json"])["followers"]["lost"]
            .as_u64()
            .expect("a number")
    };
    while lost(&program) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(9), "it has had everything");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Nobody else is held up by that.
    program.text(&["events", "--of", "edge.toml", "-f", "type=drop", "-c", "10"]);
    let missing = std::iter::from_fn(|| next(&mut slow)).find(|record| record["event_type"] == "missing");
    assert!(missing.expect("word of it")["missing"]["records"].as_u64() > Some(0));
    drop(slow);
    let there: Vec<Stream> = (0..8).map(|_| program.follow("type=alert")).collect();
    let none = program.fails(2, &["events", "--of", "edge.toml", "--follow"]);
    assert!(none.contains("8 follow already"), "{none}");
    assert!(program.text(&["events", "--of", "edge.toml"]).contains("8 follow; "), "others can still ask");
    drop(there);
    let begun = Instant::now();
    while !program.text(&["events", "--of", "edge.toml"]).contains("0 follow; ") {
        assert!(begun.elapsed() < Duration::from_secs(9), "they have gone");
        std::thread::sleep(Duration::from_millis(50));
    }
    program.end();
}

/// Who follows goes on after a reload, which is told, and hears the end.
#[test]
fn a_follower_sees_reloads_and_the_end() {
    let mut program = Program::with("follower-reloads", "allow", TELL_ALL);
    let path = program.folder.path().join("edge.toml");
    let mut stream = program.follow("type=reload,drop");
    let text = std::fs::read_to_string(&path).expect("the file").replace("\"allow\"", "\"deny\"");
    std::fs::write(&path, text.replace("use = \"acl\"", "use = \"acl\"\nname = \"other\"")).expect("written");
    program.text(&["reload", "edge.toml"]);
    let (mut reloaded, mut dropped) = (None, None);
    while reloaded.is_none() || dropped.is_none() {
        let record = next(&mut stream).expect("more");
        match record["event_type"].as_str() {
            Some("reload") => reloaded = Some(record),
            Some("drop") if record["stage"] == "other" => dropped = Some(record),
            _ => {}
        }
    }
    assert_eq!(reloaded.expect("a reload")["reload"]["outcome"], "done");
    assert_eq!(dropped.expect("a drop")["drop"]["reason"], "other.default_deny");
    drop(stream);
    let following = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["events", "--of", "edge.toml", "--follow", "type=alert"])
        .current_dir(program.folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let asked = Command::new("kill").args(["-TERM", &program.child.id().to_string()]).status();
    assert!(asked.is_ok_and(|status| status.success()));
    assert!(program.child.wait().expect("its end").success());
    let output = following.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the instance has ended"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// A program is asked to leave: it says how many flows are left, and ends at the deadline, which can be another one.
#[test]
fn a_program_is_drained() {
    let mut program = Program::with("drained", "allow", "");
    let asked = program.text(&["drain", "edge.toml", "--no-wait", "--deadline", "1h"]);
    assert!(asked.starts_with("draining: ") && asked.contains(" left, 1h to the deadline"), "{asked}");
    let begun = Instant::now();
    let status = loop {
        let status: Value =
            serde_json::from_slice(&program.ask(&["status", "--of", "edge.toml", "--json"]).stdout)
                .expect("JSON");
        if status["drain"]["flows"] == FLOWS && status["state"] == "draining" {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{status}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!((&status["fit"], &status["drain"]["state"]), (&false.into(), &"going".into()));
    assert!(status["drain"]["left_s"].as_f64() > Some(3500.0), "{status}");
    let text = String::from_utf8_lossy(&program.ask(&["status", "--of", "edge.toml"]).stdout).into_owned();
    assert!(text.contains("drain    draining: 100 flows left, "), "{text}");
    // Again: nothing is changed without a deadline, and with one it is that.
    let again: Value =
        serde_json::from_str(&program.text(&["drain", "edge.toml", "--no-wait", "--json"])).expect("JSON");
    assert!(again["left_s"].as_f64() > Some(3500.0), "{again}");
    assert!(program.fails(2, &["drain", "edge.toml", "--deadline", "2days"]).contains("at most a day"));
    let output = program.ask(&["drain", "edge.toml", "--deadline", "1s"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("draining: 100 flows left, 1s") && said.contains("; cut: 100 flows"), "{said}");
    assert!(program.child.wait().expect("its end").success());
    assert!(program.fails(2, &["drain", "edge.toml"]).contains("there is no such socket"));
}

/// Whoever waits for the end of a drain hears of another end.
#[test]
fn an_end_before_the_end_is_told() {
    let mut program = Program::with("undrained", "allow", "");
    let waiting = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["drain", "edge.toml"])
        .current_dir(program.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while program.ask(&["status", "--of", "edge.toml"]).status.success() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never drains");
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = Command::new("kill").args(["-TERM", &program.child.id().to_string()]).status();
    assert!(asked.is_ok_and(|status| status.success()));
    assert!(program.child.wait().expect("its end").success());
    let output = waiting.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ended before it was drained"));
}

/// When no flow is left it is over, and nothing was cut.
#[test]
fn a_drain_without_flows_is_done() {
    let more = "drain_at_least = \"1s\"\n";
    let mut program = Program::on("net_pcap0,rx_pcap=in.pcap", "done", "allow", more);
    let flows = || program.json(&["flows", "--of", "edge.toml", "--count", "--json"])["flows"].as_u64();
    let begun = Instant::now();
    while flows() != Some(FLOWS) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", flows());
        std::thread::sleep(Duration::from_millis(50));
    }
    program.text(&["flows", "--of", "edge.toml", "--flush", "--yes"]);
    let said = program.text(&["drain", "edge.toml"]);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("drained after ")), "{said}");
    assert!(program.child.wait().expect("its end").success());
}

/// One picture of a running program, as text: packets move, flows have rates, and each pane has its table.
#[test]
fn top_prints_a_picture() {
    let program = Program::start("top");
    let text = program.text(&["top", "--of", "edge.toml", "--once"]);
    assert_eq!(text.lines().count(), 24, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in
        ["ready", "edge.toml: acl", "received ", "events lost 0", "worker", "net_pcap0", "stage", "flow from"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let received = text.lines().find(|line| line.starts_with("received")).expect("a line");
    assert!(!received.contains("  0 pkt/s"), "{text}");
    for pane in ["workers", "ports", "stages", "drops", "flows", "tenants", "events"] {
        let text = program.text(&["top", "--of", "edge.toml", "--once", "--pane", pane, "--size", "200x50"]);
        assert_eq!(text.lines().count(), 50, "{text}");
        assert!(text.contains("flows 100 of"), "{text}");
    }
    assert!(program.fails(2, &["top", "--of", "edge.toml"]).contains("--once prints one picture"));
    assert!(
        program
            .fails(2, &["top", "--of", "edge.toml", "--once", "--size", "0x0"])
            .contains("write it as 80x24")
    );
    program.end();
}
