//! `sluicegate conform` as it is called: what it lists, and what it refuses. That it judges is tested where there is somebody to judge
//! (`conform_live.rs`).
#![cfg(feature = "program")]

use std::process::Command;

use sluicegate::conform::checks;

/// Exit code, standard output, standard error.
fn conform(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate")).arg("conform").args(args).output();
    let output = output.expect("it starts");
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (output.status.code(), out, err)
}

#[test]
fn all_checks_are_listed() {
    let (code, out, _) = conform(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(checks::all().all(|check| out.contains(check.id)), "{out}");
    let (_, out, _) = conform(&["--list", "--only", "icmp,mtu.over", "--skip", "icmp.too-big"]);
    let listed: Vec<_> = checks::all().map(|check| check.id).filter(|id| out.contains(id)).collect();
    assert_eq!(listed, ["icmp.unreachable", "icmp.ipv6-too-big", "mtu.over"]);
}

#[test]
fn mistakes_are_named() {
    let target = ["--target", "127.0.0.1"];
    for (args, expected) in [
        (&[][..], "--target"),
        (&["--target", "example"], "invalid value 'example' for '--target <ADDRESS>'"),
        (
            &["--target", "127.0.0.1", "--only", "icmpv6"],
            "icmpv6: no check and no group has this name; --list shows them",
        ),
        (&["--target", "127.0.0.1", "--only", "icmp", "--skip", "icmp"], "--only and --skip leave no check"),
        (&["--target", "127.0.0.1", "--profile", "azure"], "known are: aws, tencent, google, plain"),
        (&["--target", "127.0.0.1", "--bind", "eth0"], "--bind eth0: not an IPv4 address"),
        (&["--target", "127.0.0.1", "--port", "net_null0"], "--bind <ADDRESS>"),
        (&["--target", "127.0.0.1", "--mtu", "1500"], "--port <DEVICE>"),
        (&["--target", "127.0.0.1", "--min-kpps", "fast"], "--min-kpps"),
    ] {
        let (code, out, err) = conform(args);
        assert_eq!((code, err.contains(expected)), (Some(2), true), "{args:?}: {out}{err}");
    }
    let port = [&target[..], &["--port", "net_null0", "--bind", "10.0.0.1"]].concat();
    let (code, _, err) = conform(&port);
    let expected = match cfg!(feature = "dpdk") {
        true => "--bind 10.0.0.1: with --port an address and its subnet: 10.0.8.5/24",
        false => "--port: this program was built without DPDK; leave it out to use the kernel",
    };
    assert_eq!((code, err.contains(expected)), (Some(2), true), "{err}");
}
