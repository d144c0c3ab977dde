//! `sluicegate lab` over real namespaces: what it makes, what it removes however it ended, and what it leaves alone. Needs root; says so when it does not run.
#![cfg(feature = "program")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::skipped;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab's name for one test, taken down on every way out.
struct Name(String);

impl Name {
    /// It says so if there can be no lab.
    fn new(test: &str, short: &str) -> Option<Name> {
        let name = format!("t{}-{short}", std::process::id());
        let probe = format!("sluicegate-probe-{name}");
        let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output();
        let made = ip(&["netns", "add", &probe]);
        let _ = ip(&["netns", "del", &probe]);
        let is_root = made.is_ok_and(|output| output.status.success());
        let has_tools = Command::new("ethtool").arg("--version").output().is_ok();
        if !is_root || !has_tools {
            skipped(test, "it needs root, iproute2 and ethtool to make network namespaces");
            return None;
        }
        Some(Name(name))
    }

    /// A subcommand of `lab` for it.
    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.arg("lab").args(arguments).args(["--name", &self.0]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.lab(arguments).output().expect("it starts")
    }

    fn namespaces(&self) -> Vec<String> {
        let prefix = format!("sluicegate-lab-{}-", self.0);
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with(&prefix));
        names.sort();
        names
    }

    /// Processes with the lab's mark.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("SLUICEGATE_LAB={}", self.0);
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
    }

    fn state(&self) -> std::path::PathBuf {
        Path::new("/run/sluicegate/lab").join(format!("{}.json", self.0))
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.namespaces(), Vec::<String>::new());
        assert_eq!(self.processes(), Vec::<u32>::new());
        assert!(!self.state().exists());
        assert!(!Path::new("/run/sluicegate/lab").join(&self.0).exists());
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
        for namespace in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Interfaces of the namespace in which the test runs.
fn links() -> String {
    let output = Command::new("ip").args(["-o", "-br", "link"]).output().expect("ip");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lab_is_made_and_removed() {
    let Some(name) = Name::new("a_lab_is_made_and_removed", "up") else { return };
    let before = links();
    let up = name.run(&["up", "--wire"]);
    assert_eq!(up.status.code(), Some(0), "{}", said(&up));
    assert_eq!(links(), before, "nothing in the namespace where it was started");
    let prefix = format!("sluicegate-lab-{}-", name.0);
    assert_eq!(name.namespaces(), ["client", "fabric", "server"].map(|room| format!("{prefix}{room}")));
    let status = name.run(&["status", "--json"]);
    let value: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((status.status.code(), &value["whole"]), (Some(0), &true.into()), "{value}");
    assert_eq!(
        (&value["processes"][0]["name"], &value["processes"][0]["alive"]),
        (&"server".into(), &true.into())
    );
    // Over the wire.
    let ping = Command::new("ip")
        .args(["netns", "exec", &format!("{prefix}client"), "ping", "-c", "1", "-W", "20", "10.99.0.2"])
        .output()
        .expect("ping");
    assert_eq!(ping.status.code(), Some(0), "{}", said(&ping));
    let again = name.run(&["up", "--wire"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(said(&again).contains("is up; `sluicegate lab down"), "{}", said(&again));

    let pid = value["processes"][0]["pid"].as_u64().expect("a number").to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    until("its server is gone", || name.run(&["status"]).status.code() == Some(1));

    let down = name.run(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{}", said(&down));
    name.assert_nothing_left();
    let down = name.run(&["down"]);
    assert_eq!((down.status.code(), said(&down)), (Some(0), format!("there is no lab {:?}\n", name.0)));
    let status = name.run(&["status"]);
    assert_eq!(status.status.code(), Some(2));
    assert!(said(&status).contains("there is no lab"), "{}", said(&status));
    assert_eq!(links(), before);
}

/// A lab that waits.
fn waiting(name: &Name, folder: &tempfile::TempDir) -> Child {
    let text = "[lab]\nway = \"wire\"\n[[step]]\ntraffic = { connections = 5, datagrams = 5 }\n[[step]]\nwait = \"1h\"\n";
    let mut command = name.lab(&["run", &file(folder, text)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let begun = lines.map_while(Result::ok).any(|line| line.contains("ok  ") && line.contains("traffic"));
    assert!(begun, "its traffic has begun");
    child
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill").success());
}

/// Killed without a chance to clean up: the next one does.
#[test]
fn what_a_crash_leaves_is_cleared() {
    let Some(name) = Name::new("what_a_crash_leaves_is_cleared", "crash") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for next in ["down", "up"] {
        let mut child = waiting(&name, &folder);
        // While it is there nobody takes it away.
        for other in [&["down"] as &[&str], &["up", "--wire"]] {
            let output = name.run(other);
            assert_eq!(output.status.code(), Some(2));
            assert!(
                said(&output).contains(&format!("is being used by process {}", child.id())),
                "{}",
                said(&output)
            );
        }
        signal(&child, "KILL");
        child.wait().expect("it ends");
        assert_eq!(name.namespaces().len(), 3);
        assert!(!name.processes().is_empty(), "its server outlives it");
        let server = name.processes();
        let arguments: &[&str] = if next == "up" { &["up", "--wire"] } else { &["down"] };
        let output = name.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(!name.processes().iter().any(|pid| server.contains(pid)), "what was left is gone");
        assert_eq!(name.run(&["down"]).status.code(), Some(0));
        name.assert_nothing_left();
    }
}

#[test]
fn an_interrupt_takes_everything_down() {
    let Some(name) = Name::new("an_interrupt_takes_everything_down", "int") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for by in ["INT", "TERM"] {
        let mut child = waiting(&name, &folder);
        signal(&child, by);
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(1), "{by}: what did not come to its end did not hold");
        name.assert_nothing_left();
    }
}

/// What a lab did not make stays, whatever it is called.
#[test]
fn others_are_left_alone() {
    let Some(name) = Name::new("others_are_left_alone", "others") else { return };
    let foreign = format!("sluicegate-lab-{}-server", name.0);
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    ip(&["netns", "add", &foreign]);
    let up = name.run(&["up", "--wire"]);
    assert_eq!(up.status.code(), Some(2));
    assert!(
        said(&up).contains(&format!("network namespace {foreign} is there, and no lab made it")),
        "{}",
        said(&up)
    );
    assert_eq!(name.run(&["down"]).status.code(), Some(0));
    assert_eq!(name.namespaces(), std::slice::from_ref(&foreign));
    ip(&["netns", "del", &foreign]);

    // A process that has the number of one of the lab's, and a namespace that has the name of one.
    let mut sleep = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let up = name.run(&["up", "--wire"]);
    assert_eq!(up.status.code(), Some(0), "{}", said(&up));
    let mut state: Value =
        serde_json::from_slice(&std::fs::read(name.state()).expect("the state")).expect("JSON");
    state["processes"]
        .as_array_mut()
        .expect("a list")
        .push(serde_json::json!({ "name": "app-1", "pid": sleep.id(), "start": 1 }));
    std::fs::write(name.state(), state.to_string()).expect("the state");
    ip(&["netns", "del", &foreign]);
    ip(&["netns", "add", &foreign]);
    let down = name.run(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{}", said(&down));
    assert!(
        said(&down).contains(&format!("{foreign} is another one than the lab made, and stays")),
        "{}",
        said(&down)
    );
    assert_eq!(name.namespaces(), [foreign]);
    assert!(sleep.try_wait().expect("sleep").is_none(), "it lives");
    sleep.kill().expect("it lives");
    sleep.wait().expect("it ends");
}

/// Traffic over a bridge of the kernel: nothing is lost, and a report says so; what was expected and is not so fails.
#[test]
fn scenarios_are_played_and_judged() {
    let Some(name) = Name::new("scenarios_are_played_and_judged", "wire") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
about = "nothing in between"
[lab]
way = "wire"
[[step]]
traffic = { connections = 50, datagrams = 20, opens_per_s = 50, interval = "50ms", patience = "60s", datagram_patience = "60s" }
[[step]]
wait = "1s"
[[step]]
expect = { connections = 50, broken = 0, lost = 0, failed = 0, messages = ">= 50", opened = ">= 1" }
[[step]]
mark = "later"
[[step]]
wait = "300ms"
[[step]]
run = ["sh", "-c", "echo {server} {client6}; exit 3"]
in = "server"
exit = 3
output = "10.99.0.2 fd99::1"
[[step]]
run = ["no-such-program-here"]
optional = true
[[step]]
name = "cannot hold"
expect = { messages = 0 }
[[step]]
total = { broken = 0, lost = 0, failed = 0 }
"#;
    let output = name.run(&["run", &file(&folder, text), "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!((output.status.code(), &report["holds"]), (Some(1), &false.into()), "{report:#}");
    let outcomes: Vec<&str> =
        report["steps"].as_array().expect("a list").iter().filter_map(|s| s["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok", "ok", "ok", "ok", "left-out", "failed", "ok"], "{report:#}");
    let windows = report["windows"].as_array().expect("a list");
    assert_eq!(windows.len(), 2);
    assert_eq!((&windows[0]["window"], &windows[1]["window"]), (&"start".into(), &"later".into()));
    name.assert_nothing_left();

    // Without the step that cannot hold everything does.
    let text = text.replace("messages = 0", "messages = \">= 1\"");
    let output = name.run(&["run", &file(&folder, &text)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("everything held"), "{}", said(&output));
    assert!(said(&output).contains("left out, line 20: no-such-program-here"), "{}", said(&output));
    name.assert_nothing_left();
}

/// Mistakes are told before anything is made, to whoever is no root, too.
#[test]
fn a_scenario_that_is_wrong_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = Name(format!("t{}-wrong", std::process::id()));
    let path = file(&folder, "[[step]]\nkill = \"app-3\"\n[[step]]\nwait = \"soon\"\n");
    let output = name.run(&["run", &path]);
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    assert!(
        text.contains(":1: there is no \"app-3\"") && text.contains(":3: wait = \"soon\" is no time"),
        "{text}"
    );
    assert!(text.contains("2 mistakes in the scenario"), "{text}");
    name.assert_nothing_left();
    let output = name.run(&["run", &file(&folder, "[[step]]\nwait = \"1s\"\n"), "--check"]);
    assert_eq!((output.status.code(), said(&output)), (Some(0), "   1  wait 1s\n".to_owned()));
    let wrong = Name("No Name".into());
    let output = wrong.run(&["down"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("is no name for a lab"), "{}", said(&output));
}

/// A client and a server of the kernel, and between them the gateway and two appliances, all of them this program over DPDK: TCP, IPv6 and a checksum; then one
/// appliance dies, its flows suffer and the others' do not, and it comes back.
#[cfg(feature = "dpdk")]
#[test]
fn real_connections_pass_the_gateway_and_two_appliances() {
    let Some(name) = Name::new("real_connections_pass_the_gateway_and_two_appliances", "gw") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
[[step]]
run = ["sh", "-c", "curl -sS http://{server}/bytes/5M | sha256sum"]
output = "SUM"
[[step]]
run = ["sh", "-c", "curl -gsS http://[{server6}]/bytes/5M | sha256sum"]
output = "SUM"
[[step]]
traffic = { connections = 100, datagrams = 64, opens_per_s = 20, interval = "100ms", patience = "120s", datagram_patience = "5s" }
[[step]]
wait = "1s"
[[step]]
expect = { connections = 100, broken = 0, failed = 0 }
[[step]]
ask = "status"
of = "app-1"
at = "/workers/0/sent"
is = ">= 1"
[[step]]
ask = "status"
of = "app-2"
at = "/workers/0/sent"
is = ">= 1"
[[step]]
kill = "app-1"
[[step]]
wait = "1s"
[[step]]
start = "app-1"
[[step]]
mark = "later"
[[step]]
wait = "1s"
[[step]]
total = { broken = 0, failed = 0, lossy_flows = "1..63" }
"#;
    // What others say that these bytes are.
    let mut sum = String::new();
    for byte in sha2_of(5_000_000) {
        sum += &format!("{byte:02x}");
    }
    let output = name.run(&["run", &file(&folder, &text.replace("SUM", &sum)), "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!((output.status.code(), &report["holds"]), (Some(0), &true.into()), "{report:#}");
    let windows = report["windows"].as_array().expect("a list");
    let names: Vec<&str> = windows.iter().filter_map(|window| window["window"].as_str()).collect();
    assert_eq!(names, ["start", "kill app-1", "start app-1", "later"]);
    assert!(windows[1]["lost"].as_u64() > Some(0), "{report:#}");
    name.assert_nothing_left();
}

/// The SHA-256 of what the server gives, by way of the library.
#[cfg(feature = "dpdk")]
fn sha2_of(amount: u64) -> Vec<u8> {
    use sha2::Digest;

    let mut sum = sha2::Sha256::new();
    let taken: Result<(), std::convert::Infallible> = sluicegate::lab::probe::bytes_of(amount, |bytes| {
        sum.update(bytes);
        Ok(())
    });
    taken.expect("it cannot fail");
    sum.finalize().to_vec()
}
