//! The built program as a person or a script meets it: replay with golden files, signals, the demo, completions.
#![cfg(feature = "program")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use sluicegate::traffic::{self, Envelope};

/// A firewall with a rule file, in a folder below: what its counters are called must not depend on where it is run.
const POLICY: &str = r#"[[port]]
device = "net_null0"

[tunnel]
allowed_sources = ["10.0.8.0/24"]

[[stage]]
use = "acl"
rules = "rules.csv"
"#;
const RULES: &str =
    "action,protocol,destination_port,comment\nallow,udp,53,name service\ndeny,tcp,23,telnet\n";

fn sluicegate(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(args).current_dir(folder).output().expect("the program starts")
}

/// The text of an output that must have ended with this code.
fn ended(output: &Output, code: i32) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    assert_eq!(output.status.code(), Some(code), "{out}{error}");
    out + &error
}

/// An inner IPv4/UDP datagram without payload.
fn datagram(port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 1, 1, 10, 2, 2, 2, 0x30, 0x39];
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    let sum: u32 = packet[..20].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A classic pcap file of these frames, a second apart.
fn capture(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file: Vec<u8> =
        [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, link].into_iter().flat_map(u32::to_le_bytes).collect();
    for (second, frame) in (0u32..).zip(frames) {
        let len = frame.len() as u32;
        file.extend([second, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        file.extend(frame);
    }
    file
}

/// A folder with `policy/edge.toml` and `a.pcap`: plain raw IP packets to the ports 53, 53 and 54.
fn bench() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy");
    std::fs::create_dir(&policy).expect("a folder");
    std::fs::write(policy.join("edge.toml"), POLICY).expect("a file");
    std::fs::write(policy.join("rules.csv"), RULES).expect("a file");
    let frames = [53, 53, 54].map(datagram);
    std::fs::write(folder.path().join("a.pcap"), capture(101, &frames)).expect("a file");
    folder
}

#[test]
fn a_golden_file_holds_everywhere_until_a_rule_changes() {
    let folder = bench();
    let root = folder.path();
    let replay = ["replay", "policy/edge.toml", "--in", "a.pcap", "--golden", "golden.json", "--packets"];
    ended(&sluicegate(root, &[&replay[..], &["--update"]].concat()), 0);
    let text = std::fs::read_to_string(root.join("golden.json")).expect("the golden file");
    assert!(text.contains(r#""label": "rules.csv:2 allow (name service)""#), "{text}");
    let golden: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let packets = serde_json::json!(["1: home", "2: home", "3: dropped: acl.default_deny"]);
    assert_eq!(golden["packets"], packets);

    ended(&sluicegate(root, &replay), 0);
    let elsewhere = ["replay", "edge.toml", "--in", "../a.pcap", "--golden", "../golden.json", "--packets"];
    ended(&sluicegate(&root.join("policy"), &elsewhere), 0);
    let absolute = root.join("policy/edge.toml");
    let from_afar = [&["replay", absolute.to_str().expect("UTF-8")], &replay[2..]].concat();
    ended(&sluicegate(root, &from_afar), 0);

    let text = ended(&sluicegate(root, &[&replay[..], &["--set", "stage[0].default=allow"]].concat()), 1);
    assert!(text.contains("the outcome differs from golden.json"), "{text}");
    let line = r#"packets[2]: expected "3: dropped: acl.default_deny", found "3: home""#;
    assert!(text.contains(line), "{text}");

    std::fs::write(root.join("golden.json"), "no JSON").expect("a file");
    assert!(ended(&sluicegate(root, &replay), 2).contains("make it anew with --update"));
    std::fs::remove_file(root.join("golden.json")).expect("the golden file");
    assert!(ended(&sluicegate(root, &replay), 2).contains("make it with --update"));
}

/// Two replays of one capture write the same bytes, and what they write are the same envelopes, swapped.
#[test]
fn a_replay_is_deterministic_and_sends_home() {
    let folder = bench();
    let envelope = Envelope { node: [10, 0, 8, 9].into(), ..Envelope::default() };
    let frame = traffic::wrap(&datagram(53), &envelope).expect("a frame");
    std::fs::write(folder.path().join("tunnel.pcap"), capture(1, std::slice::from_ref(&frame)))
        .expect("a file");
    let outs = ["one.pcap", "two.pcap"].map(|out| {
        let args =
            ["replay", "policy/edge.toml", "--in", "tunnel.pcap", "--out", out, "--wrap", "never", "--json"];
        let text = ended(&sluicegate(folder.path(), &args), 0);
        (text, std::fs::read(folder.path().join(out)).expect("the output"))
    });
    assert_eq!(outs[0], outs[1]);
    let home = &outs[0].1[40..];
    assert_eq!(home.len(), frame.len());
    assert_eq!((&home[..6], &home[6..12]), (&frame[6..12], &frame[..6]), "MAC addresses swapped");
    assert_eq!((&home[26..30], &home[30..34]), (&frame[30..34], &frame[26..30]), "outer addresses swapped");
    assert_eq!((&home[12..26], &home[34..]), (&frame[12..26], &frame[34..]), "and nothing else");
}

#[test]
fn completions_and_versions_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = ended(&sluicegate(folder.path(), &["completions", shell]), 0);
        assert!(text.contains("sluicegate") && text.contains("replay"), "{shell}");
    }
    for args in [&["version", "--json"][..], &["stages", "--json"], &["stages", "drops", "--json"]] {
        let output = sluicegate(folder.path(), args);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON");
    }
}

#[cfg(feature = "dpdk")]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn start(folder: &Path, prefix: &str, more: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args(["run", "policy/edge.toml", "--json", "--set", "eal.memory=no-huge"]).args(more);
        command.env("SLUICEGATE_EAL__FILE_PREFIX", prefix).env("SLUICEGATE_EAL__IDLE", "backoff");
        command.current_dir(folder).stdout(Stdio::piped()).spawn().expect("the program starts")
    }

    fn send(child: &Child, signal: &str) {
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    #[test]
    fn the_first_one_stops_cleanly_with_the_account() {
        let folder = bench();
        for signal in ["-INT", "-TERM"] {
            let prefix = common::prefix(&format!("signal{signal}"));
            let mut child = start(folder.path(), &prefix, &["--stats-interval", "0s"]);
            let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
            let started = lines.next().expect("a line").expect("text");
            assert!(started.contains("\"started\""), "{started}");
            send(&child, signal);
            // What became ready in between has its own line.
            let mut lines =
                lines.map(|line| line.expect("text")).skip_while(|line| line.contains("\"health\""));
            let stopped = lines.next().expect("the account");
            let account: serde_json::Value = serde_json::from_str(&stopped).expect("JSON");
            assert_eq!((&account["event"], &account["balances"]), (&"stopped".into(), &true.into()));
            assert_eq!(child.wait().expect("it ends").code(), Some(0));
            common::assert_nothing_left(&prefix);
        }
    }

    /// A candidate over DPDK: loaded from another folder than the program's, asked for, put in force; and one that is wrong.
    #[test]
    fn a_candidate_is_loaded_asked_for_and_put_in_force() {
        let folder = bench();
        let root = folder.path();
        let envelope = Envelope { node: [10, 0, 8, 9].into(), ..Envelope::default() };
        let frames = vec![traffic::wrap(&datagram(53), &envelope).expect("a frame"); 64];
        std::fs::write(root.join("tunnel.pcap"), capture(1, &frames)).expect("a file");
        let prefix = common::prefix("candidate");
        let device =
            format!("port[0].device=net_pcap0,rx_pcap={},infinite_rx=1", root.join("tunnel.pcap").display());
        let policy = std::fs::read_to_string(root.join("policy/edge.toml")).expect("the file");
        std::fs::write(
            root.join("policy/edge.toml"),
            format!("{policy}[management]\nsocket = \"control.sock\"\n"),
        )
        .expect("a file");
        let mut child = start(
            root,
            &prefix,
            &["--stats-interval", "0s", "--set", &device, "--set", "eal.extra_buffers=2000"],
        );
        let mut lines =
            BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        assert!(lines.next().expect("a line").contains("\"started\""));
        let ask = |args: &[&str], code| {
            ended(&sluicegate(root, &[args, &["--socket", "policy/control.sock"]].concat()), code)
        };
        assert!(ask(&["shadow"], 1).contains("no candidate is loaded"));
        let next = |rules: &str| {
            std::fs::write(root.join("policy/next.csv"), rules).expect("a file");
            let text =
                format!("{policy}[management]\nsocket = \"control.sock\"\n").replace("rules.csv", "next.csv");
            std::fs::write(root.join("policy/next.toml"), text).expect("a file");
        };
        next(&RULES.replace("allow", "alow"));
        let said = ask(&["reload", "--shadow", "policy/next.toml"], 1);
        assert!(said.contains("next.csv") && said.contains("alow"), "{said}");
        next(&RULES.replace("allow,udp,53", "deny,udp,53"));
        let said = ask(&["reload", "--shadow", "policy/next.toml"], 0);
        assert!(
            said.contains("stages changed: acl") && said.contains("judges beside the one in force"),
            "{said}"
        );
        std::thread::sleep(Duration::from_millis(700));
        let status: serde_json::Value = serde_json::from_str(&ask(&["shadow", "--json"], 0)).expect("JSON");
        assert_eq!((&status["ok"], &status["outcome"]), (&true.into(), &"shadow".into()), "{status}");
        assert_eq!(status["flows"]["would_drop"], 1, "one flow, that was there before: {status}");
        assert!(status["would_drop"]["acl.deny"].as_u64() > Some(0), "{status}");
        assert!(ask(&["shadow"], 0).contains("would drop "));
        // And the doctor asks the same instance.
        let found = sluicegate(root, &["doctor", "--socket", "policy/control.sock", "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
        assert_eq!(found["instance"], true, "{found}");
        let queues =
            found["findings"].as_array().expect("a list").iter().find(|one| one["check"] == "queues");
        assert!(queues.expect("the check")["found"].to_string().contains("net_pcap0"), "{found}");
        // Its file may be gone by now.
        std::fs::remove_file(root.join("policy/next.csv")).expect("a file");
        assert!(ask(&["shadow", "--promote"], 0).contains("stages changed: acl\n"));
        std::thread::sleep(Duration::from_millis(100));
        send(&child, "-INT");
        let stopped = lines.find(|line| line.contains("\"stopped\"")).expect("the account");
        let account: serde_json::Value = serde_json::from_str(&stopped).expect("JSON");
        assert_eq!(account["balances"], true, "{account}");
        assert!(account.to_string().contains("acl.deny"), "{account}");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        common::assert_nothing_left(&prefix);
    }

    /// The program over DPDK, with compiled rules and a capture that never ends: reloads by the socket and by SIGHUP, refused ones, and the account.
    #[test]
    fn reloads_are_obeyed_and_answered_while_packets_flow() {
        let folder = bench();
        let root = folder.path();
        let envelope = Envelope { node: [10, 0, 8, 9].into(), ..Envelope::default() };
        let frames: Vec<_> = (0..64)
            .map(|n| traffic::wrap(&datagram(53 + n % 2 * 300), &envelope).expect("a frame"))
            .collect();
        std::fs::write(root.join("tunnel.pcap"), capture(1, &frames)).expect("a file");
        let prefix = common::prefix("reloads");
        let rules = |more: &str| format!("{RULES}allow,udp,353,another\n{more}");
        let write = |text: &str| std::fs::write(root.join("policy/rules.csv"), text).expect("a file");
        write(&rules(""));
        let device =
            format!("port[0].device=net_pcap0,rx_pcap={},infinite_rx=1", root.join("tunnel.pcap").display());
        let policy = std::fs::read_to_string(root.join("policy/edge.toml")).expect("the file");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let listen = free.expect("a port");
        let policy = format!(
            "{policy}[management]\nsocket = \"control.sock\"\nlisten = \"{listen}\"\n[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\ntypes = [\"reload\"]\n"
        );
        std::fs::write(root.join("policy/edge.toml"), &policy).expect("a file");
        let more = ["--stats-interval", "0s", "--set", &device, "--set", "eal.extra_buffers=2000"];
        let mut child = start(root, &prefix, &more);
        let mut lines =
            BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        assert!(lines.next().expect("a line").contains("\"started\""));
        // All threads, the EAL's among them, have given up what they need no more; all that follows works without.
        let rights = common::confined(child.id());
        assert!(rights.len() > 3, "{rights:?}");
        for (name, capabilities, no_more, filtered) in &rights {
            assert_eq!((*capabilities, *no_more, *filtered), (0, 1, 2), "{name}: {rights:?}");
        }
        let reload = || sluicegate(root, &["reload", "policy/edge.toml"]);
        let mode = std::fs::metadata(root.join("policy/control.sock")).expect("a socket").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        assert_eq!(ended(&reload(), 0), "reload: nothing has changed\n");
        for n in 0..10 {
            write(&rules(&format!("deny,tcp,{},round\n", 1000 + n)));
            let said = ended(&reload(), 0);
            assert!(said.contains("stages changed: acl\n") && said.contains("reload: done in "), "{said}");
        }
        // Wrong rules, and what needs a restart: said as `check` says it, and nothing changes.
        write(&rules("alow,tcp,7,wrong\n"));
        let said = ended(&reload(), 1);
        let check = ended(&sluicegate(root, &["check", "policy/edge.toml"]), 2);
        let line = said.lines().next().expect("a line");
        assert!(
            line.contains("alow") && check.contains(line) && said.contains("nothing has changed"),
            "{said}{check}"
        );
        // Whoever checks is told, and sends packets all the same.
        let checked = || {
            let mut stream = std::net::TcpStream::connect(listen).expect("a connection");
            std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\n\r\n").expect("asked");
            std::io::read_to_string(stream).unwrap_or_default()
        };
        let begun = std::time::Instant::now();
        let answer = loop {
            let answer = checked();
            if answer.contains("reload-failed") || begun.elapsed() > Duration::from_secs(20) {
                break answer;
            }
        };
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"degraded\""), "{answer}");
        assert!(answer.contains("reload-failed") && answer.contains("alow"), "{answer}");
        write(&rules(""));
        std::fs::write(root.join("policy/edge.toml"), format!("{policy}[flow]\ncapacity = 2048\n"))
            .expect("a file");
        let said = ended(&reload(), 1);
        assert!(said.starts_with("flow.capacity: 262144 -> 2048 needs a restart\n"), "{said}");
        // SIGHUP does it without an answer, and a deny cuts flows that are there.
        std::fs::write(root.join("policy/edge.toml"), policy).expect("a file");
        write(&rules("").replace("allow,udp,353", "deny,udp,353"));
        send(&child, "-HUP");
        let mut reloads = Vec::new();
        while reloads.len() < 14 {
            let line: serde_json::Value = serde_json::from_str(&lines.next().expect("a line")).expect("JSON");
            if line["event"] == "reload" {
                reloads.push(line["outcome"].as_str().expect("a word").to_owned());
            }
        }
        let outcomes = |word: &str| reloads.iter().filter(|outcome| *outcome == word).count();
        assert_eq!((outcomes("unchanged"), outcomes("done"), outcomes("refused")), (1, 11, 2));
        std::thread::sleep(Duration::from_millis(100));
        send(&child, "-INT");
        let stopped = lines.find(|line| line.contains("\"stopped\"")).expect("the account");
        let account: serde_json::Value = serde_json::from_str(&stopped).expect("JSON");
        assert_eq!(account["balances"], true, "{account}");
        let text = account.to_string();
        assert!(text.contains("acl.deny") && !text.contains("acl.default_deny\":1"), "{text}");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert!(!root.join("policy/control.sock").exists());
        // Each has left a record: who asked, from which policy to which.
        let records = std::fs::read_to_string(root.join("policy/eve.json")).expect("records");
        let records: Vec<serde_json::Value> =
            records.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(records.len(), 14);
        let told = |n: usize, key: &str| records[n]["reload"][key].as_str().expect("text").to_owned();
        for (n, expected) in reloads.iter().enumerate() {
            let (outcome, by) = (told(n, "outcome"), told(n, "asked_by"));
            assert_eq!(outcome, *expected);
            assert!(if n == 13 { by == "SIGHUP" } else { by.starts_with("socket, uid ") }, "{by}");
            assert_eq!(told(n, "policy_before") != told(n, "policy_after"), outcome == "done", "{n}");
            assert!(n == 0 || told(n, "policy_before") == told(n - 1, "policy_after"));
        }
        assert!(records[11]["reload"]["problems"][0].to_string().contains("alow"));
        assert_eq!(records[12]["reload"]["restart"][0]["key"], "flow.capacity");
        assert!(ended(&reload(), 2).contains("is the program running"));
        common::assert_nothing_left(&prefix);
    }

    /// While thousands of rules compile there is nobody to stop cleanly: the second signal must not wait for them.
    #[test]
    fn the_second_one_stops_at_once() {
        let folder = bench();
        let rule = |n: u32| format!("deny,{},{},\n", ["tcp", "udp"][n as usize % 2], n % 65000 + 1);
        let rules: String = (0..20_000).map(rule).collect();
        let text = "action,protocol,destination_port,comment\n".to_owned() + &rules;
        std::fs::write(folder.path().join("policy/rules.csv"), text).expect("a file");
        let prefix = common::prefix("second_signal");
        let mut child = start(folder.path(), &prefix, &[]);
        let begin = Instant::now();
        while !catches_interrupts(&child) {
            assert!(begin.elapsed() < Duration::from_secs(60), "it never takes over the signals");
            std::thread::sleep(Duration::from_millis(2));
        }
        send(&child, "-INT");
        std::thread::sleep(Duration::from_millis(30));
        let (second, running) = (Instant::now(), child.try_wait().expect("a child").is_none());
        assert!(running, "the start was too quick to tell");
        send(&child, "-INT");
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
        assert!(second.elapsed() < Duration::from_millis(500), "{:?}", second.elapsed());
        // It cleaned nothing up, as asked.
        for base in ["/var/run/dpdk", "/tmp/dpdk"] {
            let _ = std::fs::remove_dir_all(Path::new(base).join(&prefix));
        }
    }

    /// Where SIGTERM drains, the second one stops cleanly and does not wait.
    #[test]
    fn a_second_one_ends_a_drain() {
        let folder = bench();
        let prefix = common::prefix("drain");
        let more = ["--stats-interval", "0s", "--set", "management.drain_on_sigterm=true"];
        let mut child = start(folder.path(), &prefix, &more);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut lines = lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"));
        let mut until = |what: &dyn Fn(&serde_json::Value) -> bool| {
            lines.by_ref().find(|line: &serde_json::Value| what(line)).expect("such a line")
        };
        until(&|line| line["event"] == "health" && line["to"] == "ready");
        send(&child, "-TERM");
        until(&|line| line["event"] == "health" && line["to"] == "draining");
        until(&|line| line["event"] == "drain" && line["drain"] == "going");
        send(&child, "-TERM");
        let account = until(&|line| line["event"] == "stopped");
        assert_eq!(account["balances"], true);
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        common::assert_nothing_left(&prefix);
    }

    /// Is SIGINT among the signals that the process has handlers for?
    fn catches_interrupts(child: &Child) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let bits = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits & 1 << (2 - 1) != 0)
    }
}

/// What `make run` shows, for a second: every frame checked, the ledger balanced, a line that says so.
#[cfg(feature = "dpdk")]
#[test]
fn the_demo_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = common::prefix("demo");
    let set = format!("eal.file_prefix={prefix}");
    let args = ["demo", "--seconds", "1", "--pps", "20000", "--set", "eal.memory=no-huge", "--set", &set];
    let text = ended(&sluicegate(folder.path(), &args), 0);
    let last = text.lines().last();
    assert_eq!(last, Some("PASS: 0 checker errors, ledger balances"), "{text}");
    let json = sluicegate(folder.path(), &[&args[..], &["--json"]].concat());
    ended(&json, 0);
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&json.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    assert_eq!(lines[0]["event"], "started");
    let checked = lines.last().expect("lines");
    assert_eq!((&checked["event"], &checked["errors"]), (&"checked".into(), &0.into()), "{checked}");
    let found = &checked["found"];
    let sum = found["good"].as_u64().zip(checked["sent"].as_u64());
    assert!(sum.is_some_and(|(good, sent)| good > 0 && good < sent && sent > 10_000), "{checked}");
    // Flows: as many as are asked for, those that carried most first.
    let json = sluicegate(folder.path(), &[&args[..], &["--json", "--flows", "64"]].concat());
    ended(&json, 0);
    let lines = String::from_utf8_lossy(&json.stdout).into_owned();
    let flows = lines.lines().find(|line| line.contains("\"event\":\"flows\"")).expect("a line of flows");
    let flows: serde_json::Value = serde_json::from_str(flows).expect("JSON");
    assert_eq!(flows["count"]["flows"], 64, "{flows}");
    let carried = |flow: &serde_json::Value| flow["bytes"][0].as_u64().zip(flow["bytes"][1].as_u64());
    let largest = flows["largest"].as_array().expect("a list");
    let bytes: Vec<u64> = largest.iter().filter_map(carried).map(|(a, b)| a + b).collect();
    assert!(bytes.len() == 10 && bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
    let text = ended(&sluicegate(folder.path(), &[&args[..], &["--flows"]].concat()), 0);
    assert!(text.contains("flows 8 192 live") || text.contains("8 192 flows, "), "{text}");
    // What is set over the pipeline is the source's too, or it says why not.
    for other in ["tunnel.profile=plain", "tunnel.port=7000"] {
        ended(&sluicegate(folder.path(), &[&args[..], &["--set", other]].concat()), 0);
    }
    let google = sluicegate(folder.path(), &["demo", "--set", "tunnel.profile=google"]);
    assert!(ended(&google, 2).contains("leave tunnel.profile at aws"));
    common::assert_nothing_left(&prefix);
}

/// systemd is told when it is ready, that it is alive, and that it stops.
#[cfg(feature = "dpdk")]
#[test]
fn systemd_is_told() {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    let folder = tempfile::tempdir().expect("a folder");
    let prefix = common::prefix("systemd");
    std::fs::write(
        folder.path().join("run.toml"),
        format!(
            "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{prefix}\"\n\
             [[port]]\ndevice = \"net_null0\"\nqueues = 1\n[tunnel]\nallowed_sources = [\"10.0.8.0/24\"]\n"
        ),
    )
    .expect("a file");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let mut program = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["run", "run.toml", "--stats-interval", "0s"])
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let next = || {
        let mut bytes = [0; 256];
        let n = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).trim().to_owned()
    };
    // Alive from the first round on; ready as soon as all workers poll.
    let mut heard = Vec::new();
    while heard.iter().filter(|said| *said == "WATCHDOG=1").count() < 3
        || !heard.contains(&"READY=1".to_owned())
    {
        heard.push(next());
    }
    let status = Command::new("kill").args(["-TERM", &program.id().to_string()]).status().expect("kill");
    assert!(status.success());
    while heard.last().is_none_or(|said| said != "STOPPING=1") {
        heard.push(next());
    }
    // Before it stops, which may take its time, and with a sign of life.
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(program.wait().expect("it ends").code(), Some(0));
    assert_eq!(heard.iter().filter(|said| *said == "READY=1").count(), 1, "{heard:?}");
    common::assert_nothing_left(&prefix);
}

/// Nobody is there: said in one sentence, and no success.
#[test]
fn health_of_nobody_is_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = ended(&sluicegate(folder.path(), &["health", "--address", "127.0.0.1:1"]), 2);
    assert!(said.contains("127.0.0.1:1: ") && said.contains("is it running"), "{said}");
}
