//! What an instance says of itself.

use serde::{Deserialize, Serialize};

use super::{At, Findings, Level};

/// A queue with so much more than its share is skewed.
const SKEW: f64 = 1.5;
/// Packets before shares say anything.
const ENOUGH: u64 = 10_000;

/// An instance at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// DPDK's name and version.
    pub dpdk: String,
    /// Which memory it has, in one sentence.
    pub memory: Option<String>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// As the plan names it.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Largest IP packet.
    pub mtu: u16,
    /// Hash functions in effect.
    pub rss_functions: Vec<String>,
    /// The plan gives the key.
    pub rss_key_is_fixed: bool,
    /// Queue of each entry of the redirection table, if the driver tells.
    pub rss_reta: Option<Vec<u16>>,
    /// Its queues, and what came by each.
    pub queues: Vec<Queue>,
    /// Counters of the cloud that are not 0: `*_allowance_exceeded`.
    pub allowances: Vec<(String, u64)>,
}

/// A receive queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its number.
    pub queue: u16,
    /// The worker that polls it.
    pub worker: u16,
    /// Frames.
    pub received: u64,
}

pub(super) fn dpdk(at: &At, run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "dpdk";
    let kernel = at.read("/proc/sys/kernel/osrelease").map(|release| format!(", Linux {release}"));
    let kernel = kernel.unwrap_or_default();
    let here = crate::dpdk::library();
    let version = run.map(|run| run.dpdk.clone()).filter(|version| !version.is_empty()).or(here);
    let Some(version) = version else {
        let text = format!("this program was built without DPDK{kernel}");
        return found.add(CHECK, Level::Bad, text, "build with the feature dpdk; `replay` works without");
    };
    let number = version.split(|c: char| !c.is_ascii_digit() && c != '.').find(|part| part.contains('.'));
    let mut parts = number.unwrap_or_default().split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (year, month, patch) =
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match (year, month, patch) {
        (21, 11, 0) => found.add(
            CHECK,
            Level::Bad,
            format!("{version}{kernel}: it maps ENA's memory without write combining"),
            "use 21.11.1 or a later release",
        ),
        (year, month, _) if (year, month) < (22, 11) => {
            found.add(
                CHECK,
                Level::Warning,
                format!("{version}{kernel}: nobody tests with it"),
                "use 22.11 or a later LTS release",
            );
        }
        _ => found.good(CHECK, format!("{version}{kernel}")),
    }
}

pub(super) fn rss(run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "rss";
    let Some(run) = run else {
        return found.add(
            CHECK,
            Level::Unknown,
            "keys and tables are known while an instance runs",
            "start it, and ask again",
        );
    };
    for Port { device, queues, rss_functions, rss_key_is_fixed, rss_reta, driver, .. } in &run.ports {
        if queues.len() < 2 {
            found.good(CHECK, format!("{device}: one queue"));
            continue;
        }
        if rss_functions.is_empty() {
            let text = format!("{device}: {} queues, and no RSS: all frames come by the first", queues.len());
            found.add(CHECK, Level::Bad, text, "queues = 1, or a driver with RSS");
            continue;
        }
        if driver == "net_ena" && !rss_key_is_fixed {
            let text = format!(
                "{device}: the key is another one at each start: flows meet other workers, and few outer ports may meet few"
            );
            found.add(
                CHECK,
                Level::Warning,
                text,
                "set port[].rss_key, for example Microsoft's 6d5a56da255b0ec2...",
            );
        }
        let Some(reta) = rss_reta.as_ref().filter(|reta| !reta.is_empty()) else {
            found.add(
                CHECK,
                Level::Unknown,
                format!("{device}: the driver does not tell its redirection table"),
                "",
            );
            continue;
        };
        let share = |queue: u16| reta.iter().filter(|to| **to == queue).count();
        let shares: Vec<usize> = queues.iter().map(|queue| share(queue.queue)).collect();
        let (least, most) =
            (shares.iter().min().copied().unwrap_or(0), shares.iter().max().copied().unwrap_or(0));
        if most - least > 1 {
            let text = format!(
                "{device}: {} entries of the redirection table give queues {least} to {most} each",
                reta.len()
            );
            found.add(
                CHECK,
                Level::Warning,
                text,
                "leave port[].rss_reta out for an even one, unless that is meant",
            );
        } else {
            let first = reta.first().copied().unwrap_or(0);
            found.good(
                CHECK,
                format!("{device}: {} entries, even; frames without a hash go to queue {first}", reta.len()),
            );
        }
    }
}

pub(super) fn queues(run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "queues";
    let Some(run) = run else {
        return found.add(
            CHECK,
            Level::Unknown,
            "shares of queues are known while an instance runs",
            "start it, and ask again",
        );
    };
    for Port { device, queues, .. } in &run.ports {
        let all: u64 = queues.iter().map(|queue| queue.received).sum();
        if queues.len() < 2 || all < ENOUGH {
            found.good(CHECK, format!("{device}: {all} frames by {} queues", queues.len()));
            continue;
        }
        let most = queues.iter().max_by_key(|queue| queue.received).copied().unwrap_or_default();
        let times = most.received as f64 * queues.len() as f64 / all as f64;
        if times > SKEW {
            let text = format!(
                "{device}: queue {} of worker {} has {times:.1} times its share of {all} frames",
                most.queue, most.worker
            );
            found.add(
                CHECK,
                Level::Warning,
                text,
                "few outer ports, or one large flow: another rss_key, or move entries with port[].rss_reta",
            );
        } else {
            found.good(
                CHECK,
                format!("{device}: no queue has more than {times:.1} times its share of {all} frames"),
            );
        }
    }
}

pub(super) fn allowances(run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "allowances";
    let Some(run) = run else {
        return found.add(
            CHECK,
            Level::Unknown,
            "the cloud's counters are known while an instance runs",
            "start it, and ask again",
        );
    };
    let mut any = false;
    for Port { device, allowances, .. } in &run.ports {
        for (name, n) in allowances.iter().filter(|(_, n)| *n > 0) {
            any = true;
            let remedy = match name.as_str() {
                "bw_in_allowance_exceeded" | "bw_out_allowance_exceeded" => {
                    "a larger instance, or more appliances: its bandwidth was used up"
                }
                "pps_allowance_exceeded" => {
                    "a larger instance, or more appliances: its packets per second were used up"
                }
                "conntrack_allowance_exceeded" => {
                    "security groups that track nothing: allow all, in and out, on this interface"
                }
                "linklocal_allowance_exceeded" => {
                    "fewer requests to DNS, metadata and time services from this instance"
                }
                _ => "see the ENA documentation for this counter",
            };
            found.add(
                CHECK,
                Level::Bad,
                format!("{device}: {name} is {n}: the cloud dropped packets before we saw them"),
                remedy,
            );
        }
    }
    if !any {
        found.good(CHECK, "none was exceeded");
    }
}
