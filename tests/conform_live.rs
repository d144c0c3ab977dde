//! The program judges the program: `sluicegate conform` in one namespace, by raw sockets of the kernel and by a port of DPDK, `sluicegate run`
//! on `net_af_packet` in the other. Needs root; says so when it does not run.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::path::Path;
use std::process::Command;

use common::netns::{Namespaces, Running, ip};
use common::{assert_nothing_left, prefix};
use serde_json::Value;

const APPLIANCE: &str = "10.254.11.102";
/// Frames of an `af_packet` device that holds jumbo frames.
const JUMBO: &str = "framesz=9216,blocksz=36864,framecnt=256";

/// Jumbo frames on the veth pair. `net_af_packet` of DPDK 22.11 says that it takes none, and sets the interface to 1500; frames of this size hold
/// them all the same.
fn jumbo(namespaces: &Namespaces) {
    for (namespace, end) in [(&namespaces.near, "near"), (&namespaces.far, "far")] {
        ip(&["-n", namespace, "link", "set", end, "mtu", "9001"]).expect("jumbo frames");
    }
}

/// Two namespaces, and an address at the far end.
fn namespaces(test: &str) -> Option<Namespaces> {
    let namespaces = Namespaces::new(test)?;
    ip(&["-n", &namespaces.far, "address", "add", "10.254.11.60/24", "dev", "far"]).expect("an address");
    Some(namespaces)
}

fn start(namespaces: &Namespaces, folder: &Path, own: &str) -> Running {
    let file = folder.join("live.toml");
    let text = format!(
        "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{own}\"\n\
         [[port]]\ndevice = \"net_af_packet0,iface=near,{JUMBO}\"\nqueues = 1\nmtu = 9001\n\
         address = \"{APPLIANCE}/24\"\n{}verify_checksum = \"always\"\n[flow]\ntracking = true\n",
        common::TUNNEL
    );
    std::fs::write(&file, text).expect("a file");
    let mut program = Command::new("ip");
    program.args(["netns", "exec", &namespaces.near, env!("CARGO_BIN_EXE_sluicegate"), "run"]).arg(&file);
    let mut program = Running::start(program.args(["--json", "--stats-interval", "0s"]));
    assert_eq!(program.line("started")["ports"][0]["driver"], "net_af_packet");
    assert_eq!(program.line("health")["to"], "ready");
    program
}

/// Exit code, standard output, standard error of `conform` in the far namespace.
fn conform(namespaces: &Namespaces, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.far, env!("CARGO_BIN_EXE_sluicegate"), "conform"])
        .args(["--target", APPLIANCE, "--throughput-time", "600ms"])
        .args(if args.contains(&"--wait") { &[][..] } else { &["--wait", "20s"] })
        .args(args)
        .output()
        .expect("it starts");
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (output.status.code(), out, err)
}

fn not_passed(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks").iter();
    let failed = checks.filter(|check| check["verdict"] != "passed");
    failed.map(|check| format!("{}: {}", check["id"], check["text"])).collect()
}

#[test]
fn the_program_gets_full_marks_from_itself() {
    const TEST: &str = "the_program_gets_full_marks_from_itself";
    let Some(namespaces) = namespaces(TEST) else { return };
    let (folder, own) = (tempfile::tempdir().expect("a folder"), prefix("conform"));
    let mut program = start(&namespaces, folder.path(), &own);

    jumbo(&namespaces);

    // By sockets: the kernel writes outer header checksums, so one check cannot be judged.
    let xml = folder.path().join("report.xml");
    let xml = xml.to_str().expect("a path");
    let (code, out, err) = conform(&namespaces, &["--json", "--junit", xml]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let why = "\"malformed.ip-checksum\": \"the kernel on this side makes outer header checksums right: judge it over a --port\"";
    assert_eq!(not_passed(&report), [why], "{err}");
    assert_eq!((code, &report["passes"], &report["full_marks"]), (Some(0), &true.into(), &false.into()));
    let text = std::fs::read_to_string(xml).expect("the report");
    let document = roxmltree::Document::parse(&text).expect("XML");
    let suite = document.descendants().find(|node| node.has_tag_name("testsuite")).expect("a suite");
    let count = report["checks"].as_array().map_or(0, Vec::len).to_string();
    assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some(count.as_str()), Some("0")));
    assert_eq!(suite.attribute("skipped"), Some("1"));

    // By a port: everything else is judged. How long its packets may be depends on the release of DPDK.
    let device = "net_af_packet0,iface=far";
    let port = ["--port", device, "--bind", "10.254.11.61/24", "--mtu", "1500", "--memory", "no-huge"];
    let (code, out, err) =
        conform(&namespaces, &[&port[..], &["--json", "--strict", "--skip", "mtu"]].concat());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(not_passed(&report), [""; 0], "{err}");
    assert_eq!((code, &report["full_marks"]), (Some(0), &true.into()));

    // For people; what is asked for and is not reached fails.
    let args = ["--only", "envelope,throughput", "--skip", "envelope.cookie", "--min-kpps", "1000000"];
    let (code, out, err) = conform(&namespaces, &args);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("pass       must   envelope.ports"), "{out}");
    assert!(out.contains("FAIL       must   throughput.rate"), "{out}");
    assert!(!out.contains("envelope.cookie") && !out.contains("health."), "{out}");
    assert!(out.trim_end().ends_with(&format!("{APPLIANCE}: 8 of 9 musts, 0 of 0 shoulds")), "{out}");

    program.signal("INT");
    let stopped = program.line("stopped");
    assert_eq!(program.wait().code(), Some(0), "{stopped}");
    assert_eq!((&stopped["balances"], &stopped["buffers_out"]), (&true.into(), &0.into()), "{stopped}");

    // Nobody is there any more.
    let short = ["--wait", "300ms", "--attempts", "1"];
    let (code, out, _) = conform(&namespaces, &[&short[..], &["--skip", "health"]].concat());
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("0 of 1 musts, 0 of 0 shoulds,"), "{out}");
    let (code, _, err) = conform(&namespaces, &[&port[..], &["--wait", "300ms"]].concat());
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("10.254.11.102 does not answer ARP on this link; is --target right"), "{err}");
    drop(namespaces);
    assert_nothing_left(&own);
    assert_nothing_left("sluicegate-conform");
}
