//! The program on the EAL, scraped while it works: a real driver, real sockets, curl.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::promtool::promtool;

/// The program on the EAL, scraped while it works through a capture: a real driver's counters are there beside ours, and it ends as it should.
#[test]
fn the_program_is_scraped_on_the_eal() {
    let folder = tempfile::tempdir().expect("a folder");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    use sluicegate::traffic::{self, Mix};
    const FRAMES: usize = 3000;
    traffic::pcap::write(
        &folder.path().join("in.pcap"),
        &Mix { flows: 100, ..Mix::default() },
        FRAMES as u64,
    )
    .expect("a capture");
    let text = format!(
        "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nlcores = [0]\n[[port]]\n\
         device = \"net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap\"\nqueues = 1\n\
         [tunnel]\nmax_return = \"unlimited\"\n[flow]\ntracking = true\n[management]\nlisten = \"{free}\"\n\
         [[stage]]\nuse = \"count\"\n"
    );
    std::fs::write(folder.path().join("edge.toml"), text).expect("a file");
    let mut program = Program(Some(
        Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["run", "edge.toml", "--stats-interval", "0s"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    ));
    let begun = Instant::now();
    let page = loop {
        let curl = Command::new("curl")
            .args(["-s", "--fail", "--max-time", "5"])
            .arg(format!("http://{free}/metrics"))
            .output();
        let curl = curl.expect("curl");
        let page = String::from_utf8(curl.stdout).expect("text");
        let all = format!("sluicegate_received_packets_total{{worker=\"0\"}} {FRAMES}\n");
        // All frames may be through before the first look at the workers.
        let ready = "sluicegate_health_state{state=\"ready\"} 1\n";
        if curl.status.success() && page.contains(&all) && page.contains(ready) {
            break page;
        }
        if begun.elapsed() > Duration::from_secs(30) || program.has_ended() {
            panic!("{page}\n{}", program.kill());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let value = |series: &str| -> f64 {
        let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} in\n{page}")).parse().expect("a number")
    };
    let all = FRAMES as f64;
    for (series, expected) in [
        ("sluicegate_port_received_packets_total{port=\"0\"}", all),
        ("sluicegate_port_xstats{port=\"0\",name=\"rx_good_packets\"}", all),
        ("sluicegate_port_xstats{port=\"0\",name=\"rx_q0_packets\"}", all),
        ("sluicegate_queue_received_packets_total{port=\"0\",queue=\"0\"}", all),
        ("sluicegate_port_info{port=\"0\",device=\"net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap\"}", 1.0),
        ("sluicegate_health_state{state=\"ready\"}", 1.0),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    let polls = value("sluicegate_timed_polls_total");
    assert!(polls >= 1.0 && value("sluicegate_residence_seconds_count") >= polls);
    let mean = value("sluicegate_residence_seconds_sum") / value("sluicegate_residence_seconds_count");
    assert!(mean > 0.0 && mean < 0.05, "{mean} s");
    promtool(&["check", "metrics"], Some(&page));
    program.end("-TERM");
}

/// The program as it runs. A test that fails leaves none behind.
struct Program(Option<Child>);

impl Program {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it has not been waited for")
    }

    fn has_ended(&mut self) -> bool {
        self.child().try_wait().expect("a child").is_some()
    }

    /// Ends it, and returns what it said.
    fn kill(&mut self) -> String {
        let _ = self.child().kill();
        let output = self.0.take().map(|child| child.wait_with_output().expect("its end"));
        output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default()
    }

    /// Asks it to end, which it does well.
    fn end(mut self, signal: &str) {
        let asked = Command::new("kill").args([signal, &self.child().id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()));
        let output = self.0.take().map(|child| child.wait_with_output().expect("its end")).expect("a child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = (child.kill(), child.wait());
        }
    }
}

/// The demo's traffic through the EAL as Prometheus would see it: while it runs, rates and times are there.
#[test]
fn the_demo_shows_its_figures() {
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let mut program = Program(Some(
        Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args([
                "demo",
                "--seconds",
                "30",
                "--pps",
                "5000",
                "--json",
                "--set",
                "eal.memory=no-huge",
                "--set",
            ])
            .arg(format!("management.listen={free}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    ));
    let begun = Instant::now();
    loop {
        let url = format!("http://{free}/metrics");
        let curl =
            Command::new("curl").args(["-s", "--fail", "--max-time", "5", &url]).output().expect("curl");
        let page = String::from_utf8(curl.stdout).expect("text");
        let above = |series: &str, least: f64| {
            let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value.and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value > least)
        };
        let alive = page.contains("sluicegate_health_state{state=\"ready\"} 1\n")
            && above("sluicegate_received_packets_total{worker=\"0\"}", 1000.0)
            && above("sluicegate_worker_busy_ratio{worker=\"0\"}", 0.0)
            && above("sluicegate_worker_cycles_per_packet{worker=\"0\"}", 50.0)
            && above("sluicegate_residence_seconds_count", 0.0)
            && above("sluicegate_residence_seconds_sum", 0.0)
            && above("sluicegate_flow_opened_total", 0.0);
        if alive || begun.elapsed() > Duration::from_secs(25) || program.has_ended() {
            assert!(alive, "{page}");
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    program.end("-INT");
}
