//! The built program and two network namespaces: what live tests share. Needs root.
#![cfg(all(feature = "dpdk", feature = "program"))]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::skipped;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program, and what it says.
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Running { child, lines }
    }

    /// The next line of this event.
    pub fn line(&mut self, event: &str) -> serde_json::Value {
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

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        // `ip netns exec` became the program: the process is the same.
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
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
pub struct Namespaces {
    pub near: String,
    pub far: String,
}

impl Namespaces {
    /// For this test; it says so if there can be none.
    pub fn new(test: &str) -> Option<Self> {
        let id = std::process::id();
        let names = Namespaces { near: format!("sluice-near-{id}"), far: format!("sluice-far-{id}") };
        let (near, far) = (names.near.as_str(), names.far.as_str());
        if let Err(why) = ip(&["netns", "add", near]).and_then(|()| ip(&["netns", "add", far])) {
            skipped(test, &format!("it needs root and iproute2 to make network namespaces ({why})"));
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

/// Runs `ip`.
pub fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
