//! Every pipeline that we ship can be used as it is.

mod common;

use std::path::{Path, PathBuf};

use sluicegate::config::{Machine, Options, Overrides, load};

fn pipelines() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).expect("pipelines/").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// A pipeline that says it needs a device gets a virtual one in its place.
fn device(text: &str) -> Vec<String> {
    match text.starts_with("# needs a device") {
        true => vec!["port[0].device=net_null0".to_owned()],
        false => Vec::new(),
    }
}

#[test]
fn every_pipeline_makes_a_plan_without_warnings() {
    let options = Options { machine: Machine { cpus: vec![0, 1], worth: 2 }, ..Options::default() };
    let files = pipelines();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a pipeline");
        let overrides = Overrides { sets: device(&text), ..Overrides::default() };
        let plan = load(&file, &overrides, &options).unwrap_or_else(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", problems.join("\n"))
        });
        assert_eq!(plan.warnings, Vec::<String>::new(), "{}", file.display());
        assert_eq!(plan.workers.len(), 1, "{}", file.display());
    }
}

/// Every pipeline runs for two seconds in the built program, with nothing but ordinary pages, and ends with a ledger that
/// balances.
#[cfg(all(feature = "dpdk", feature = "program"))]
#[test]
fn every_pipeline_runs() {
    use std::process::{Command, Stdio};

    let started = pipelines().into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).expect("a pipeline");
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!("sluicegate-test-pipelines-{name}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.arg("run").arg(&file).args(["--duration", "2s", "--json", "--log-level", "warn"]);
        let own =
            [format!("eal.file_prefix={prefix}"), "eal.memory=no-huge".into(), "eal.idle=backoff".into()];
        for set in own.into_iter().chain(device(&text)) {
            command.args(["--set", &set]);
        }
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        (name, prefix, child)
    });
    // All at once: they wait more than they work.
    for (name, prefix, child) in started.collect::<Vec<_>>() {
        let output = child.wait_with_output().expect("the program ends");
        let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert_eq!(output.status.code(), Some(0), "{name}: {out}{error}");
        assert_eq!(error, "", "{name} complains");
        let last = out.lines().last().unwrap_or_default();
        let report: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(
            (&report["event"], &report["balances"]),
            (&"stopped".into(), &true.into()),
            "{name}: {last}"
        );
        assert!(report["ledger"]["received"].as_u64() > Some(0), "{name}: {last}");
        for base in ["/var/run/dpdk", "/tmp/dpdk"] {
            assert!(!Path::new(base).join(&prefix).exists(), "{name} left {base}/{prefix}");
        }
    }
}

/// Every pipeline goes through the demo, whose checker holds it to the bytes, and through a replay; those that need a device are for one.
#[cfg(all(feature = "dpdk", feature = "program"))]
#[test]
fn every_pipeline_is_for_demo_and_replay() {
    use std::process::{Command, Stdio};

    use sluicegate::traffic::{Envelope, Mix, pcap};

    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("in.pcap");
    // From a subnet that the files allow.
    let envelope =
        Envelope { node: [10, 0, 8, 7].into(), appliance: [10, 0, 8, 20].into(), ..Envelope::default() };
    let mix = Mix { flows: 500, nodes: 1, denied_percent: 0, envelope, ..Mix::default() };
    pcap::write(&capture, &mix, 5000).expect("a capture");
    let files = pipelines().into_iter().filter(|file| {
        let text = std::fs::read_to_string(file).expect("a pipeline");
        device(&text).is_empty() && !file.ends_with("demo.toml")
    });
    let started = files.map(|file| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        demo.arg("demo").arg(&file).args(["--seconds", "1", "--pps", "20000", "--json"]);
        let prefix = format!("eal.file_prefix=sluicegate-test-demo-{name}");
        demo.args(["--set", &prefix, "--set", "eal.memory=no-huge"]);
        let demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts");
        let mut replay = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        replay.arg("replay").arg(&file).arg("--in").arg(&capture).args(["--wrap", "never", "--json"]);
        let replay = replay.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the replay starts");
        (name, demo, replay)
    });
    for (name, demo, replay) in started.collect::<Vec<_>>() {
        let output = demo.wait_with_output().expect("the demo ends");
        let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{name}: {out}");
        let last = out.lines().last().unwrap_or_default();
        let checked: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!((&checked["event"], &checked["errors"]), (&"checked".into(), &0.into()), "{name}: {last}");
        assert!(checked["sent"].as_u64() > Some(500), "{name}: {last}");
        let output = replay.wait_with_output().expect("the replay ends");
        let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{name}: {out}");
        let said: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let ledger = |key: &str| said["ledger"][key].as_u64().expect("a number");
        assert_eq!(ledger("received"), 5000, "{name}");
        assert!(ledger("sent") > 0 && said["drops"]["outer_source"].is_null(), "{name}: {out}");
        if ["observe-only", "passthrough", "plaintext-audit", "tls-audit"].contains(&name.as_str()) {
            assert_eq!(ledger("sent"), 5000, "{name} touches nothing: {out}");
        }
    }
}

/// What the filter of ways out promises, by packets.
#[test]
fn the_egress_filter_lets_pass_what_is_on_its_list_and_nothing_else() {
    use common::dns::{asked, query};
    use common::hello::client_hello;
    use common::inner::{End, tcp, udp, v4, wrap};
    use common::{Fate, Rig};

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/egress-filter.toml");
    let sets = vec!["tunnel.allowed_sources=[\"10.254.11.0/24\"]".to_owned()];
    let overrides = Overrides { sets, ..Overrides::default() };
    let plan = load(&file, &overrides, &Options::default()).expect("a plan");
    let mut rig = Rig::new(&plan);
    let client = |port: u16| v4(10, 1, 0, 5, port);
    let home = |rig: &mut Rig, inner: &[u8]| matches!(rig.fate(&wrap(inner, 7, 60_001)), Fate::Home(_));
    // Names.
    let resolver = v4(10, 0, 0, 2, 53);
    assert!(home(&mut rig, &udp(client(1), resolver, &query(asked(1, "www.debian.org")))));
    assert!(!home(&mut rig, &udp(client(2), resolver, &query(asked(1, "evil.example")))));
    assert!(
        !home(&mut rig, &udp(client(3), v4(8, 8, 8, 8, 53), &query(asked(1, "www.debian.org")))),
        "another resolver"
    );
    assert!(!home(&mut rig, &udp(client(4), v4(192, 0, 2, 1, 443), &[0xc0; 1200])), "QUIC");
    // Connections: what the client says first.
    let first = |rig: &mut Rig, port: u16, said: &[u8]| {
        let (client, server): (End, End) = (client(port), v4(192, 0, 2, 1, 443));
        assert!(
            home(rig, &tcp(client, server, "S", 99, 0, b""))
                && home(rig, &tcp(server, client, "SA", 499, 100, b""))
        );
        home(rig, &tcp(client, server, "PA", 100, 500, said))
    };
    let hello = |name: Option<&str>| client_hello(0x0303, &[0x0304, 0x0303], name);
    assert!(first(&mut rig, 10, &hello(Some("s3.amazonaws.com"))));
    assert!(!first(&mut rig, 11, &hello(Some("evil.example"))));
    assert!(!first(&mut rig, 12, &hello(None)));
    assert!(!first(&mut rig, 13, &client_hello(0x0301, &[], Some("www.debian.org"))), "TLS 1.0");
    assert!(!first(&mut rig, 14, b"SSH-2.0-OpenSSH_9.6\r\n"));
    assert!(!first(&mut rig, 15, b"GET / HTTP/1.1\r\nHost: www.debian.org\r\n\r\n"));
    // And back.
    let mut ping = udp(client(8), v4(192, 0, 2, 1, 0), b"");
    ping[9] = 1;
    ping[20..28].copy_from_slice(&[8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    assert!(home(&mut rig, &ping), "ping");
}
