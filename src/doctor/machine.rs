//! Memory, CPUs and clocks.

use super::ports::Device;
use super::{At, Findings, Level, Run};
use crate::config::{Idle, Plan, cpu_list};
use crate::dpdk::Memory;

const PAGES: &str = "/sys/kernel/mm/hugepages";

/// Pages that are free, in MB, by the size of a page in kB.
fn free_pages(at: &At) -> Vec<(u64, u64)> {
    let of = |name: String| {
        let kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free = at.number(&format!("{PAGES}/{name}/free_hugepages"))?;
        Some((kb, u64::try_from(free).ok()? * kb / 1024))
    };
    at.names(PAGES).into_iter().filter_map(of).collect()
}

pub(super) fn hugepages(at: &At, plan: Option<&Plan>, run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "hugepages";
    if let Some(memory) = run.and_then(|run| run.memory.as_ref()) {
        let is_slow = memory.contains("ordinary pages");
        let remedy = "reserve hugepages, as below for a machine that runs nothing, and restart";
        return match is_slow {
            true => found.add(CHECK, Level::Warning, memory.clone(), remedy),
            false => found.good(CHECK, memory.clone()),
        };
    }
    let pages = free_pages(at);
    let free: u64 = pages.iter().map(|(_, mb)| mb).sum();
    let need = plan.map_or(1, |plan| u64::from(plan.eal.memory_mb));
    let memory = plan.map_or(Memory::Auto, |plan| plan.eal.memory);
    if memory == Memory::NoHuge {
        let text = "eal.memory asks for ordinary pages: about half the speed on small packets";
        return found.add(CHECK, Level::Note, text, "leave eal.memory out");
    }
    let is_mounted = at.read("/proc/mounts").is_some_and(|mounts| mounts.contains(" hugetlbfs "));
    let wanted = need.div_ceil(2);
    let remedy = format!(
        "echo {wanted} > {PAGES}/hugepages-2048kB/nr_hugepages, or hugepages={wanted} on the kernel's command line"
    );
    let sizes: Vec<String> = pages.iter().map(|(kb, mb)| format!("{mb} MB in pages of {kb} kB")).collect();
    if pages.is_empty() {
        let remedy = "use a kernel with CONFIG_HUGETLBFS, or set eal.memory = \"no-huge\"";
        found.add(CHECK, Level::Warning, "the kernel has no hugepages", remedy);
    } else if free < need {
        let level = if memory == Memory::Auto { Level::Warning } else { Level::Bad };
        found.add(CHECK, level, format!("{need} MB are needed, and free are {}", sizes.join(", ")), &remedy);
    } else if memory == Memory::Hugepages && !is_mounted {
        let remedy = "mount -t hugetlbfs nodev /dev/hugepages, or eal.memory = \"in-memory\"";
        found.add(CHECK, Level::Bad, "no hugetlbfs is mounted", remedy);
    } else {
        found.good(CHECK, format!("free: {}", sizes.join(", ")));
    }
}

/// CPUs of each node.
fn nodes(at: &At) -> Vec<(u32, Vec<u32>)> {
    let of = |name: String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let list = at.read(&format!("/sys/devices/system/node/{name}/cpulist"))?;
        Some((number, cpu_list(&list).ok()?))
    };
    at.names("/sys/devices/system/node").into_iter().filter_map(of).collect()
}

pub(super) fn numa(at: &At, plan: Option<&Plan>, devices: &[Device], found: &mut Findings) {
    const CHECK: &str = "numa";
    let nodes = nodes(at);
    if nodes.len() < 2 {
        return found.good(CHECK, "one node");
    }
    let Some(plan) = plan else {
        let text = format!("{} nodes; which CPUs and ports are used nobody said", nodes.len());
        return found.add(CHECK, Level::Unknown, text, "name the pipeline file");
    };
    let node_of = |cpu: u32| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map(|(node, _)| *node);
    let mut is_good = true;
    for device in devices {
        let Some(home) = device.numa else { continue };
        let far: Vec<String> = plan
            .workers
            .iter()
            .filter(|worker| node_of(worker.lcore.cpu).is_some_and(|node| node != home))
            .map(|worker| worker.lcore.cpu.to_string())
            .collect();
        if !far.is_empty() {
            is_good = false;
            let text =
                format!("{} is on node {home}, and workers on CPUs {} are not", device.name, far.join(", "));
            let near = nodes
                .iter()
                .find(|(node, _)| *node == home)
                .map(|(_, cpus)| cpus.clone())
                .unwrap_or_default();
            let near: Vec<String> = near.iter().map(ToString::to_string).collect();
            found.add(CHECK, Level::Warning, text, &format!("eal.lcores = \"{}\"", near.join(",")));
        }
    }
    if is_good {
        found.good(CHECK, format!("{} nodes; workers are where their ports are", nodes.len()));
    }
}

pub(super) fn isolation(at: &At, plan: Option<&Plan>, found: &mut Findings) {
    const CHECK: &str = "isolation";
    let list = |path: &str| {
        let text = at.read(path)?;
        if text.is_empty() { Some(Vec::new()) } else { cpu_list(&text).ok() }
    };
    let Some(isolated) = list("/sys/devices/system/cpu/isolated") else {
        return found.add(CHECK, Level::Unknown, "the kernel does not say which CPUs are isolated", "");
    };
    let Some(plan) = plan else {
        let text = match isolated.is_empty() {
            true => "no CPU is isolated".to_owned(),
            false => format!("isolated: {isolated:?}"),
        };
        return found.add(CHECK, Level::Note, text, "name the pipeline file to compare with its workers");
    };
    let cpus: Vec<u32> = plan.workers.iter().map(|worker| worker.lcore.cpu).collect();
    for (n, cpu) in cpus.iter().enumerate() {
        let siblings = list(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        let shared = siblings.unwrap_or_default();
        if let Some(other) = cpus.iter().take(n).find(|other| shared.contains(other)) {
            let text = format!("the workers on CPUs {other} and {cpu} share one core");
            found.add(
                CHECK,
                Level::Note,
                text,
                "give each a core of its own in eal.lcores, or count them as less than two",
            );
        }
    }
    let open: Vec<String> =
        cpus.iter().filter(|cpu| !isolated.contains(cpu)).map(ToString::to_string).collect();
    if open.is_empty() {
        return found.good(CHECK, "all workers are on isolated CPUs");
    }
    let level = if plan.idle == Idle::Spin { Level::Warning } else { Level::Note };
    let open = open.join(",");
    let text = format!("the scheduler may run others on the workers' CPUs {open}");
    found.add(
        CHECK,
        level,
        text,
        &format!("isolcpus={open} nohz_full={open} rcu_nocbs={open} on the kernel's command line"),
    );
}

pub(super) fn clock(at: &At, found: &mut Findings) {
    const CHECK: &str = "clock";
    let source = at.read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let info = at.read("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let is_x86 = !flags.is_empty();
    if is_x86 && !has("constant_tsc") && !has("tsc_known_freq") {
        let text = "the time stamp counter does not run at one speed: times of flows and figures are wrong";
        return found.add(
            CHECK,
            Level::Bad,
            text,
            "use another machine type; virtual machines: a CPU model with invariant TSC",
        );
    }
    match source.as_deref() {
        Some(good @ ("tsc" | "kvm-clock" | "arch_sys_counter")) => {
            found.good(CHECK, format!("the kernel's clock is {good}"))
        }
        Some(slow) => found.add(
            CHECK,
            Level::Warning,
            format!(
                "the kernel's clock is {slow}, which is slow to read, or distrusts the time stamp counter"
            ),
            "see dmesg for why; echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        None => found.add(CHECK, Level::Unknown, "the kernel does not say what its clock is", ""),
    }
}
