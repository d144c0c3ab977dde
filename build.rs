//! Passes the DPDK version and the git revision into the program.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    let dpdk = std::env::var("DEP_DPDK_VERSION").unwrap_or_else(|_| "none".into());
    println!("cargo::rustc-env=SLUICEGATE_DPDK={dpdk}");
    let revision = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let revision = revision.ok().filter(|o| o.status.success());
    let revision = revision.and_then(|o| String::from_utf8(o.stdout).ok());
    println!("cargo::rustc-env=SLUICEGATE_REVISION={}", revision.as_deref().unwrap_or("unknown").trim());
}
