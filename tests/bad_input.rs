//! Bad input, given to the built program: a message with the place and what to do, exit code 2, and nothing left behind.
#![cfg(feature = "program")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in a folder with these files, and expects it to refuse: exit code 2, nothing on standard output, and on
/// standard error every one of these texts.
fn refused(name: &str, files: &[(&str, &str)], args: &[&str], texts: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in files {
        std::fs::write(folder.path().join(file), text).expect("a file");
    }
    let prefix = common::prefix(name);
    let output = run(folder.path(), &prefix, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    for text in texts {
        assert!(error.contains(text), "{args:?}: no {text:?} in\n{error}");
    }
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(!error.contains("panicked"), "{error}");
    common::assert_nothing_left(&prefix);
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.retain(|name| !files.iter().any(|(file, _)| name == file));
    assert!(left.is_empty(), "{args:?} left {left:?}");
}

/// A process with a temporary folder of its own: what it leaves there is found by [`refused`].
fn run(folder: &Path, prefix: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(args)
        .current_dir(folder)
        .env("TMPDIR", folder)
        .env("SLUICEGATE_EAL__FILE_PREFIX", prefix)
        .output()
        .expect("the program starts")
}

const GOOD: &str = r#"[eal]
memory = "no-huge"
lcores = [0]

[[port]]
device = "net_null0"

[tunnel]
allowed_sources = ["10.0.8.0/24"]
"#;

#[test]
fn a_wrong_key() {
    let file = GOOD.replace("allowed_sources", "alowed_sources");
    for command in ["check", "run"] {
        let place = "edge.toml:9:1: tunnel.alowed_sources: unknown key";
        refused(
            "a_wrong_key",
            &[("edge.toml", &file)],
            &[command, "edge.toml"],
            &[place, "did you mean \"allowed_sources\"?"],
        );
    }
}

#[test]
fn a_wrong_type() {
    let file = format!("{GOOD}verify_checksum = \"sometimes\"\n");
    let texts = ["edge.toml:10:1: tunnel.verify_checksum", "auto, always, never"];
    refused("a_wrong_type", &[("edge.toml", &file)], &["check", "edge.toml"], &texts);
}

#[test]
fn two_wrong_values_are_reported_together() {
    let file = format!("{GOOD}port = 70000\nprofile = \"awz\"\n");
    let texts = ["edge.toml:10:1: tunnel.port: 70000", "edge.toml:11:1: tunnel.profile", "aws", "2 mistakes"];
    refused("two_wrong_values", &[("edge.toml", &file)], &["check", "edge.toml"], &texts);
}

#[test]
fn a_missing_file() {
    let texts = ["edge.toml", "there is no such file", "pipelines/"];
    refused("a_missing_file", &[], &["check", "edge.toml"], &texts);
    refused("a_missing_file", &[], &["run", "edge.toml"], &texts);
}

#[test]
fn a_missing_rule_file() {
    let file = format!("{GOOD}\n[[stage]]\nuse = \"acl\"\nrules = \"rules/edge.csv\"\n");
    refused(
        "a_missing_rule_file",
        &[("edge.toml", &file)],
        &["check", "edge.toml"],
        &["edge.toml:13", "rules/edge.csv"],
    );
}

#[test]
fn a_rule_file_with_three_mistakes() {
    let rules = "action,protocol,source,destination_port,comment\nallow,tcp,10.0.0.0/33,443,one\n\
                 permit,tcp,,80,two\nallow,tcp,,443,three is right\ndeny,udp,,70000,four\n";
    let file = format!("{GOOD}\n[[stage]]\nuse = \"acl\"\nrules = \"edge.csv\"\n");
    let texts = [
        "edge.csv:2: source: \"10.0.0.0/33\"",
        "edge.csv:3: action: \"permit\"",
        "write allow, deny, reject, log or count",
        "edge.csv:5: destination_port: \"70000\" is not a port",
        "3 mistakes",
    ];
    refused("three_mistakes", &[("edge.toml", &file), ("edge.csv", rules)], &["run", "edge.toml"], &texts);
}

#[test]
fn a_tenants_file_with_mistakes() {
    let tenants = "name,endpoint,flows\npayments,vpce-0123456789abcdef0,30%\nlab,vpce-0123456789abcdef0,\nlab,vpce-12,\n";
    let file = format!("{GOOD}\n[flow]\ntcp_idle = \"59s\"\n\n[tenants]\nfile = \"tenants.csv\"\n");
    let texts = [
        "tenants.csv:3: endpoint: vpce-0123456789abcdef0 is \"payments\"'s already: ",
        "tenants.csv:2: endpoint; an endpoint has one tenant",
        "tenants.csv:4: endpoint: \"vpce-12\" does not have 8 or 17 hexadecimal digits",
        "edge.toml:12:1: flow.tcp_idle: 59s is not between 60s and 6000s",
        "3 mistakes",
    ];
    let files = [("edge.toml", file.as_str()), ("tenants.csv", tenants)];
    refused("a_tenants_file", &files, &["check", "edge.toml"], &texts);
    refused("a_tenants_file_in_run", &files, &["run", "edge.toml"], &texts);
}

#[test]
fn a_missing_tenants_file() {
    let file = format!("{GOOD}\n[tenants]\nfile = \"tenants.csv\"\n");
    let texts =
        ["edge.toml:12:1: tenants.file: ", "tenants.csv: there is no such file; paths start at the folder"];
    refused("a_missing_tenants_file", &[("edge.toml", &file)], &["check", "edge.toml"], &texts);
}

#[test]
fn an_unknown_stage() {
    let file = format!("{GOOD}\n[[stage]]\nuse = \"alc\"\n");
    let texts = ["edge.toml:12", "stage[0].use: there is no kind of stage \"alc\"", "did you mean \"acl\"?"];
    refused("an_unknown_stage", &[("edge.toml", &file)], &["check", "edge.toml"], &texts);
}

#[test]
fn an_lcore_that_is_not_there() {
    let file = GOOD.replace("[0]", "[0, 999]");
    let texts = ["edge.toml:3", "eal.lcores: CPU 999 is not there", "it may use"];
    refused("an_lcore", &[("edge.toml", &file)], &["run", "edge.toml"], &texts);
}

#[cfg(feature = "dpdk")]
mod ports {
    use super::{GOOD, refused};

    #[test]
    fn a_driver_that_does_not_exist() {
        let file = GOOD.replace("net_null0", "net_nul0");
        let texts = ["net_nul0", "No such device", "[[port]] device", "net_af_packet0,iface=eth1"];
        refused("a_driver", &[("edge.toml", &file)], &["run", "edge.toml"], &texts);
    }

    #[test]
    fn a_pci_device_that_does_not_exist() {
        let file = GOOD.replace("net_null0", "0000:77:1f.7");
        let texts = ["open device 0000:77:1f.7", "there is no PCI device 0000:77:1f.7", "lspci"];
        refused("a_pci_device", &[("edge.toml", &file)], &["run", "edge.toml"], &texts);
    }

    #[test]
    fn an_interface_that_does_not_exist() {
        let file = GOOD.replace("net_null0", "net_af_packet0,iface=nowhere0");
        let texts = ["open device net_af_packet0", "No such device"];
        refused("an_interface", &[("edge.toml", &file)], &["run", "edge.toml"], &texts);
    }

    #[test]
    fn a_capture_that_does_not_exist() {
        let file = GOOD.replace("net_null0", "net_pcap0,rx_pcap=nowhere.pcap");
        refused("a_capture", &[("edge.toml", &file)], &["run", "edge.toml"], &["net_pcap0", "nowhere.pcap"]);
    }

    #[test]
    fn too_few_hugepages() {
        let file = GOOD.replace("\"no-huge\"", "\"hugepages\"\nmemory_mb = 1048576");
        let texts = ["1048576 MB of EAL memory need", "hugepages", "are free", "memory = \"auto\""];
        refused("too_few", &[("edge.toml", &file)], &["run", "edge.toml"], &texts);
    }
}

/// Arguments that clap refuses: the same exit code, and usage.
#[test]
fn wrong_arguments() {
    refused("wrong_arguments", &[], &["rum"], &["unrecognized subcommand", "run"]);
    refused("wrong_arguments", &[], &["run"], &["<FILE>", "Usage"]);
    refused(
        "wrong_arguments",
        &[("edge.toml", GOOD)],
        &["check", "edge.toml", "--set", "tunnel.prot=1"],
        &["--set tunnel.prot=1", "did you mean \"port\"?"],
    );
}

/// A capture of no packets.
const CAPTURE: &[u8] =
    &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];

/// Writing the answer over the question would destroy it.
#[test]
fn a_replay_over_its_own_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("edge.toml"), GOOD).expect("a file");
    std::fs::write(path("a.pcap"), CAPTURE).expect("a file");
    std::fs::hard_link(path("a.pcap"), path("b.pcap")).expect("a link");
    let prefix = common::prefix("a_replay_over");
    let replay = ["replay", "edge.toml", "--in", "a.pcap"];
    for more in [
        &["--out", "a.pcap"][..],
        &["--out", "b.pcap"],
        &["--out", "edge.toml"],
        &["--golden", "a.pcap", "--update"],
    ] {
        let args = [&replay[..], more].concat();
        let output = run(folder.path(), &prefix, &args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains("would overwrite"), "{args:?}: {error}");
        assert_eq!(std::fs::read(path("a.pcap")).expect("the capture"), CAPTURE, "{args:?}");
        assert_eq!(std::fs::read_to_string(path("edge.toml")).expect("the pipeline"), GOOD, "{args:?}");
    }
}

/// Output that cannot be written is an error of those commands that have nothing else to give, and never a panic.
#[test]
fn a_full_disk_behind_standard_output() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("edge.toml"), GOOD).expect("a file");
    std::fs::write(folder.path().join("a.pcap"), CAPTURE).expect("a file");
    for args in [
        &["stages"][..],
        &["stages", "acl", "--json"],
        &["version"],
        &["completions", "bash"],
        &["check", "edge.toml"],
        &["replay", "edge.toml", "--in", "a.pcap"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        let output = command.args(args).current_dir(&folder).stdout(full()).output().expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains("standard output: No space left"), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
}

/// Packets do not stop because nobody can read the figures.
#[cfg(feature = "dpdk")]
#[test]
fn a_run_outlives_its_standard_output() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("edge.toml"), GOOD).expect("a file");
    let prefix = common::prefix("a_run_outlives");
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["run", "edge.toml", "--duration", "400ms", "--stats-interval", "100ms"]);
    command.current_dir(&folder).env("SLUICEGATE_EAL__FILE_PREFIX", &prefix).stdout(full()).stderr(full());
    assert_eq!(command.status().expect("it starts").code(), Some(0));
    common::assert_nothing_left(&prefix);
}
