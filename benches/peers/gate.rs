//! Sluicegate's side: its pipeline file, its rules, and what it prints.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::Rules;
use crate::live::Reading;
use crate::machine::Machine;
use crate::traffic;

/// The program as this bench run built it, with the optimisations of a release.
pub fn command(pipeline: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.arg("run").arg(pipeline).args(["--json", "--stats-interval", "250ms"]);
    command
}

/// What differs between pipelines.
pub struct Setup<'a> {
    /// Of its files.
    pub name: &'a str,
    /// As the EAL wants it.
    pub device: &'a str,
    /// CPUs of the management and of each worker.
    pub lcores: &'a [u32],
    /// Of the port.
    pub queues: u32,
    /// Beyond what the plan counts.
    pub buffers: u32,
    /// `flow.capacity`, where flows are followed.
    pub flows: u32,
    /// What is asked.
    pub rules: Rules,
}

/// Writes the pipeline and, with rules, their file.
pub fn pipeline(folder: &Path, machine: &Machine, setup: &Setup<'_>) -> Result<PathBuf, String> {
    let Setup { name, device, lcores, queues, buffers, flows, rules } = *setup;
    let memory = if machine.hugepages { "in-memory" } else { "no-huge" };
    let mut text = format!(
        r#"
[eal]
memory = "{memory}"
lcores = {lcores:?}
idle = "spin"
burst = 32
extra_buffers = {buffers}

[[port]]
device = "{device}"
queues = {queues}
rx_descriptors = 512
tx_descriptors = 512
mtu = 1600

[tunnel]
profile = "aws"
allowed_sources = ["{}"]
verify_checksum = "auto"
"#,
        traffic::NODES,
    );
    if let Rules::EachPacket(count) | Rules::EachFlow(count) = rules {
        let file = format!("{name}.csv");
        write(&folder.join(&file), &policy(count))?;
        let stateful = matches!(rules, Rules::EachFlow(_));
        if stateful {
            let _ = write!(text, "\n[flow]\ncapacity = {flows}\n");
        }
        let _ = write!(
            text,
            "\n[[stage]]\nuse = \"acl\"\nrules = \"{file}\"\ndefault = \"deny\"\nstateful = {stateful}\n"
        );
    }
    if let Rules::Stages(stages) = rules {
        let _ = write!(text, "\n[flow]\ntracking = true\ncapacity = {flows}\n");
        for stage in stages {
            let _ = write!(text, "\n[[stage]]\nuse = \"{stage}\"\n");
        }
    }
    let path = folder.join(format!("{name}.toml"));
    write(&path, &text)?;
    Ok(path)
}

/// A policy of `count` rules over the addresses of the traffic, none of which decides on it except the last: every packet
/// goes through all of them. Three of four rules name a port, as policies do; half are about single hosts.
fn policy(count: usize) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut text = String::from("action,protocol,source,destination,destination_port,comment\n");
    for number in 1..count {
        let source = prefix(&mut random, traffic::CLIENTS, 0x3f);
        let destination = prefix(&mut random, traffic::SERVERS, 0xff);
        let protocol = if random.random_bool(0.5) { "tcp" } else { "udp" };
        let port = match random.random_range(0..4) {
            0 => "6000-6999".to_owned(),
            1 => traffic::OTHER_PORTS[random.random_range(0..traffic::OTHER_PORTS.len())].to_string(),
            2 => random.random_range(20_000..30_000_u16).to_string(),
            _ => random.random_range(10_000..19_999_u16).to_string(),
        };
        let action = if random.random_bool(0.3) { "deny" } else { "allow" };
        let _ = writeln!(text, "{action},{protocol},{source},{destination},{port},rule {number}");
    }
    text + "allow,udp,any,any,,the traffic of the bench\n"
}

/// A prefix of 16 to 32 bits inside `space`, every other one a single host. `third` limits the third byte to what the
/// traffic uses.
fn prefix(random: &mut ChaCha8Rng, space: [u8; 2], third: u8) -> String {
    let [a, b] = space;
    let (c, d) = (random.random::<u8>() & third, random.random::<u8>());
    match random.random_range(0..8) {
        0 => format!("{a}.{b}.0.0/16"),
        1 => format!("{a}.{b}.{}.0/20", c & 0xf0),
        2 | 3 => format!("{a}.{b}.{c}.0/24"),
        _ => format!("{a}.{b}.{c}.{d}/32"),
    }
}

/// The counters in one line of `--json`; `None` for any other line.
pub fn reading(line: &str) -> Option<Reading> {
    let value: Value = serde_json::from_str(line).ok()?;
    let total = |name: &str| value.get(name)?.as_u64();
    Some(Reading { at: total("time_ns")?, received: total("received")?, sent: total("sent")? })
}

/// The last line of a run says that nothing was dropped, but for a share of `lost` where rings were full, and everything given back.
pub fn verify(last: &[String], lost: f64) -> Result<(), String> {
    let end = account(last)?;
    let (ledger, drops, failures) = (&end["ledger"], &end["drops"], &end["failures"]);
    let count = |name: &str| ledger[name].as_u64().unwrap_or(0);
    let (received, sent, dropped) = (count("received"), count("sent"), count("dropped"));
    let full = drops.as_array().is_some_and(|d| d.iter().all(|drop| drop["reason"] == "handoff_full"));
    let home = received > 0 && received == sent + dropped && dropped as f64 <= received as f64 * lost && full;
    if home && end["balances"] == true && failures.as_array().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    Err(format!("the pipeline should have sent everything home: {ledger}, {drops}, {failures}"))
}

/// The last line of a run over real captures says that all but a share of `lost` went home, and everything was given back.
pub fn accounted(last: &[String], lost: f64) -> Result<(), String> {
    let end = account(last)?;
    let (ledger, drops, failures) = (&end["ledger"], &end["drops"], &end["failures"]);
    let count = |name: &str| ledger[name].as_u64().unwrap_or(0);
    let (received, dropped) = (count("received"), count("dropped"));
    let home = received > 0 && dropped as f64 <= received as f64 * lost;
    if home && end["balances"] == true && failures.as_array().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    Err(format!("the pipeline should have sent nearly everything home: {ledger}, {drops}, {failures}"))
}

/// At least 95 of a hundred flows were opened anew that should have been: so many of a lap of so many packets.
pub fn opened_anew(last: &[String], flows: u32, packets: u32) -> Result<(), String> {
    let end = account(last)?;
    let count = |value: &Value| value.as_u64().unwrap_or(0) as f64;
    let wanted = count(&end["ledger"]["received"]) * f64::from(flows) / f64::from(packets);
    let opened = count(&end["flows"]["opened"]);
    if opened >= wanted * 0.95 {
        return Ok(());
    }
    Err(format!("{wanted:.0} connections should have been opened, and {opened} were"))
}

/// One flow was opened for every so many packets, give or take one of a hundred.
pub fn opened(last: &[String], packets: u32) -> Result<(), String> {
    let end = account(last)?;
    let count = |value: &Value| value.as_u64().unwrap_or(0) as f64;
    let (opened, wanted) =
        (count(&end["flows"]["opened"]), count(&end["ledger"]["received"]) / f64::from(packets));
    if (opened / wanted - 1.0).abs() < 0.01 {
        return Ok(());
    }
    Err(format!("{wanted:.0} connections should have been opened, and {opened} were"))
}

/// So many flows were there at the end, and no other had been.
pub fn live(last: &[String], flows: u64) -> Result<(), String> {
    let end = account(last)?;
    let (live, opened) = (&end["flows"]["live"], &end["flows"]["opened"]);
    if *live == flows && *opened == flows {
        return Ok(());
    }
    Err(format!("{flows} flows should have been opened and live: {opened}, {live}"))
}

/// The share of the packets that each worker received and gave to another, which is what that one took.
pub fn handed(last: &[String], workers: usize) -> Result<Vec<f64>, String> {
    let end = account(last)?;
    let ledger = &end["ledger"];
    let none = Vec::new();
    let counted = end["workers"].as_array().unwrap_or(&none).iter().filter_map(|worker| {
        let (received, out) = (worker["received"].as_u64()?, worker["flows"]["handed_out"].as_u64()?);
        Some(out as f64 / received as f64)
    });
    let shares: Vec<f64> = counted.collect();
    if shares.len() == workers && ledger["handed_in"] == ledger["handed_out"] {
        return Ok(shares);
    }
    Err(format!("{workers} workers should have given each other what the other took: {ledger}"))
}

fn account(last: &[String]) -> Result<Value, String> {
    let mut lines = last.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find(|v| v["event"] == "stopped").ok_or_else(|| "printed no final account".to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
