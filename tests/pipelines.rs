//! Every pipeline that we ship can be used as it is.

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
