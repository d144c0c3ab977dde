//! Passes the DPDK version and the git revision into the program.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let dpdk = std::env::var("DEP_DPDK_VERSION").unwrap_or_else(|_| "none".into());
    println!("cargo::rustc-env=SLUICEGATE_DPDK={dpdk}");

    // A build without the repository (container, source archive) names its revision by this variable.
    println!("cargo::rerun-if-env-changed=SLUICEGATE_REVISION");
    let revision = std::env::var("SLUICEGATE_REVISION").ok();
    let revision = revision.or_else(|| git(&["describe", "--always", "--dirty", "--abbrev=12"]));
    println!("cargo::rustc-env=SLUICEGATE_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    // The log of HEAD moves with every commit and checkout. A path that is not there would mean "always build again".
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
