//! The built program on a kernel interface: two network namespaces, a veth pair between them, `sluicegate run` over
//! `net_af_packet` in one, and golden frames from the other. Needs root; says so when it does not run.
//!
//! The far end is this test again, in the other namespace, over an AF_PACKET port of its own: it compares every answer
//! byte for byte and in order. The frames are complete as they are sent, so unfinished checksums of veth (see
//! `pipelines/veth.toml`) do not arise; the pair's offloads are turned off all the same, as an operator would.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sluicegate::config::Machine;
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::{BURST, Burst, PortConfig};
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};

use common::golden::{Case, groups};
use common::{assert_nothing_left, pool_config, prefix, skipped};

const TEST: &str = "live_frames_through_a_veth_pair";
/// Set in the far end.
const FAR_END: &str = "SLUICEGATE_TEST_FAR_END";
/// Frames in flight: well below any ring between the two.
const AT_ONCE: usize = 16;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn live_frames_through_a_veth_pair() {
    if std::env::var_os(FAR_END).is_some() {
        return far_end();
    }
    let Some(namespaces) = Namespaces::new() else { return };
    let (table, cases) = live_cases();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("live.toml");
    let own = prefix("live");
    let text = format!(
        "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{own}\"\n\
         [[port]]\ndevice = \"net_af_packet0,iface=near\"\nqueues = 1\nmtu = 1500\n{table}"
    );
    std::fs::write(&file, text).expect("a file");

    let mut program = Command::new("ip");
    program.args(["netns", "exec", &namespaces.near, env!("CARGO_BIN_EXE_sluicegate"), "run"]).arg(&file);
    let mut program = Running::start(program.args(["--json", "--stats-interval", "0s"]));
    let started = program.line("started");
    assert_eq!(started["ports"][0]["driver"], "net_af_packet", "{started}");

    let this = std::env::current_exe().expect("this program");
    let far = Command::new("ip")
        .args(["netns", "exec", &namespaces.far])
        .arg(this)
        .args(["--exact", TEST, "--nocapture"])
        .env(FAR_END, "1")
        .output()
        .expect("the far end starts");
    let said = [far.stdout, far.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();

    program.signal("TERM");
    let stopped = program.line("stopped");
    let status = program.wait();
    assert!(
        far.status.success() && said.contains("1 passed"),
        "the far end:\n{said}\nthe program: {stopped}"
    );
    assert_eq!(status.code(), Some(0), "{stopped}");
    let count = |verdict: &str| cases.iter().filter(|c| c.verdict.starts_with(verdict)).count() as u64;
    let ledger = &stopped["ledger"];
    assert_eq!(ledger["received"], cases.len() as u64, "{stopped}");
    assert_eq!(ledger["sent"], count("home"), "{stopped}");
    assert_eq!(ledger["punted"], count("punted"), "{stopped}");
    assert_eq!(ledger["dropped"], count("dropped"), "{stopped}");
    assert_eq!((&stopped["balances"], &stopped["buffers_out"]), (&true.into(), &0.into()), "{stopped}");
    drop(namespaces);
    assert_nothing_left(&own);
    assert_nothing_left(&prefix("far"));
}

/// Golden frames of the default configuration that a kernel interface of MTU 1500 delivers as they were sent. The kernel keeps
/// VLAN tags outside the frame, sends nothing shorter than an Ethernet header, and puts outer fragments together itself
/// (`net_af_packet` asks for that: PACKET_FANOUT_FLAG_DEFRAG).
fn live_cases() -> (String, Vec<Case>) {
    let (table, mut cases) = groups().swap_remove(0);
    cases.retain(|c| {
        let (tagged, fragment) =
            (c.frame.get(12..14) == Some(&[0x81, 0]), c.verdict == "dropped outer_fragment");
        (15..=1514).contains(&c.frame.len()) && !tagged && !fragment
    });
    assert!(cases.len() > 150, "{}", cases.len());
    (table, cases)
}

/// Sends every case and compares what comes back.
fn far_end() {
    let (_, cases) = live_cases();
    let cpu = Machine::here().cpus.last().copied().unwrap_or(0);
    let plan = EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 64,
        file_prefix: prefix("far"),
        lcores: vec![LcorePlan { lcore: 0, cpu }],
        args: vec![],
    };
    let device = "net_af_packet0,iface=far";
    let eal = Eal::init(&plan, &[device.to_owned()]).expect("DPDK starts");
    let pool = eal.pool(&pool_config(256)).expect("a pool");
    let port = eal::Port::open(&eal, device).expect("the port opens");
    let (port, mut queues) = port.start(&PortConfig::default(), &pool).expect("the port starts");
    let mut burst = Burst::new();
    for group in cases.chunks(AT_ONCE) {
        for case in group {
            let mut frame = pool.alloc().expect("a buffer");
            assert!(frame.write(&case.frame));
            burst.push(frame).expect("room");
        }
        let deadline = Instant::now() + PATIENCE;
        while !burst.is_empty() {
            queues[0].tx.send(&mut burst);
            assert!(Instant::now() < deadline, "frames could not be sent");
        }
        let home: Vec<&Case> = group.iter().filter(|c| c.verdict == "home").collect();
        let mut back = Vec::new();
        while back.len() < home.len() {
            queues[0].rx.receive(&mut burst, BURST);
            back.extend(burst.drain().map(|frame| frame.data().to_vec()));
            assert!(Instant::now() < deadline, "{} of {} came back", back.len(), home.len());
            std::thread::sleep(Duration::from_micros(100));
        }
        for (case, back) in home.into_iter().zip(&back) {
            assert_eq!(*back, case.back, "{}: {}", case.name, case.why);
        }
    }
    // What is dropped or punted stays away.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(queues[0].rx.receive(&mut burst, BURST), 0, "a frame too many came back");
    drop(port.stop(queues).expect("the port stops"));
}

/// The program, and what it says.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Running { child, lines }
    }

    /// The next line of this event.
    fn line(&mut self, event: &str) -> serde_json::Value {
        for line in self.lines.by_ref() {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            if line["event"] == event {
                return line;
            }
        }
        let mut error = String::new();
        let stderr = self.child.stderr.take();
        stderr.map(|mut e| e.read_to_string(&mut error)).transpose().expect("text");
        panic!("the program ended before {event:?}: {error}");
    }

    fn signal(&self, name: &str) {
        // `ip netns exec` became the program: the process is the same.
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(status.success());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the program") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failure is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two namespaces with the ends `near` and `far` of a veth pair, removed on every way out.
struct Namespaces {
    near: String,
    far: String,
}

impl Namespaces {
    fn new() -> Option<Self> {
        let id = std::process::id();
        let names = Namespaces { near: format!("sluice-near-{id}"), far: format!("sluice-far-{id}") };
        let (near, far) = (names.near.as_str(), names.far.as_str());
        if let Err(why) = ip(&["netns", "add", near]).and_then(|()| ip(&["netns", "add", far])) {
            skipped(TEST, &format!("it needs root and iproute2 to make network namespaces ({why})"));
            return None;
        }
        let pair =
            ["link", "add", "near", "netns", near, "type", "veth", "peer", "name", "far", "netns", far];
        ip(&pair).expect("a veth pair");
        for (namespace, end) in [(near, "near"), (far, "far")] {
            // Without IPv6 the kernel sends nothing of its own.
            let quiet = "net.ipv6.conf.all.disable_ipv6=1";
            ip(&["netns", "exec", namespace, "sysctl", "-qw", quiet]).expect("IPv6 is turned off");
            ip(&["netns", "exec", namespace, "ethtool", "-K", end, "tx", "off"])
                .expect("offloads are turned off");
            ip(&["-n", namespace, "link", "set", end, "up"]).expect("the link comes up");
        }
        Some(names)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
