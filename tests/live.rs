//! The built program on a kernel interface: two network namespaces, a veth pair between them, `sluicegate run` over
//! `net_af_packet` in one, and golden frames from the other. Needs root; says so when it does not run.
//!
//! The far end is this test again, in the other namespace, over an AF_PACKET port of its own: it compares every answer
//! byte for byte and in order. The frames are complete as they are sent, so unfinished checksums of veth (see
//! `pipelines/veth.toml`) do not arise; the pair's offloads are turned off all the same, as an operator would.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use sluicegate::config::Machine;
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::{BURST, Burst, PortConfig};
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};

use common::golden::{Case, groups};
use common::netns::{Namespaces, PATIENCE, Running};
use common::{assert_nothing_left, pool_config, prefix};

const TEST: &str = "live_frames_through_a_veth_pair";
/// Set in the far end.
const FAR_END: &str = "SLUICEGATE_TEST_FAR_END";
/// Frames in flight: well below any ring between the two.
const AT_ONCE: usize = 16;

#[test]
fn live_frames_through_a_veth_pair() {
    if std::env::var_os(FAR_END).is_some() {
        return far_end();
    }
    let Some(namespaces) = Namespaces::new(TEST) else { return };
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

    // The kernel's interface is to be left as it was, and nothing else: the raw socket is open.
    for (name, capabilities, no_more, filtered) in common::confined(program.id()) {
        assert_eq!((capabilities, no_more, filtered), (1 << 12, 1, 2), "{name}");
    }
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
