//! `doctor` on machines that are made of files, on instances that are made up, and on this machine.

mod common;

use std::path::Path;

use sluicegate::config::{self, Idle, Options, Overrides, Plan, WorkerPlan};
use sluicegate::doctor::{CHECKS, Finding, Level, Port, Queue, Run, examine};
use sluicegate::dpdk::LcorePlan;
use sluicegate::stage::WorkerId;

use common::TUNNEL;

const ENA: &str = "0000:00:06.0";

/// A machine as it should be: an ENA behind vfio with write combining, on one of two nodes, pages, isolated CPUs.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    put(at, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1024");
    put(at, "proc/mounts", "nodev /dev/hugepages hugetlbfs rw 0 0");
    put(at, "proc/cpuinfo", "processor : 0\nflags : fpu tsc constant_tsc nonstop_tsc\n");
    put(at, "proc/sys/kernel/osrelease", "6.1.0-test");
    put(at, "sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
    put(at, "sys/devices/system/cpu/isolated", "1-3\n");
    for (node, cpus) in [(0, "0-3"), (1, "4-7")] {
        put(at, &format!("sys/devices/system/node/node{node}/cpulist"), cpus);
    }
    for cpu in 0..8 {
        put(at, &format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &cpu.to_string());
    }
    let device = |file: &str| format!("sys/bus/pci/devices/{ENA}/{file}");
    put(at, &device("vendor"), "0x1d0f");
    put(at, &device("device"), "0xec20");
    put(at, &device("numa_node"), "0");
    put(
        at,
        &device("resource"),
        "0x00000000fe010000 0x00000000fe013fff 0x0000000000040200\n0x0 0x0 0x0\n0x00000000fe800000 0x00000000fe8fffff 0x0000000000042208\n",
    );
    put(
        at,
        "sys/kernel/debug/x86/pat_memtype_list",
        "PAT: [mem 0x00000000fe010000-0x00000000fe014000] uncached-minus\nPAT: [mem 0x00000000fe800000-0x00000000fe900000] write-combining\n",
    );
    link(at, &device("iommu_group"), "../../../../kernel/iommu_groups/7");
    put(at, "sys/kernel/iommu_groups/7/type", "DMA");
    bind(at, Some("vfio-pci"));
    root
}

fn put(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn link(root: &Path, file: &str, to: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&path);
    std::os::unix::fs::symlink(to, path).unwrap();
}

fn bind(root: &Path, driver: Option<&str>) {
    let file = format!("sys/bus/pci/devices/{ENA}/driver");
    let _ = std::fs::remove_file(root.join(&file));
    if let Some(driver) = driver {
        link(root, &file, &format!("../../../../bus/pci/drivers/{driver}"));
    }
}

fn plan(device: &str, cpus: &[u32]) -> Plan {
    let text = format!("{TUNNEL}\n[[port]]\ndevice = \"{device}\"\nmtu = 9001\n");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = config::load_text("t.toml", &text, root, &Overrides::default(), &Options::default())
        .unwrap_or_else(|problems| panic!("{}", problems[0]));
    plan.eal.memory_mb = 512;
    plan.idle = Idle::Spin;
    let worker = |(n, cpu): (usize, &u32)| WorkerPlan {
        id: WorkerId(n as u16),
        lcore: LcorePlan { lcore: n as u32 + 1, cpu: *cpu },
    };
    plan.workers = cpus.iter().enumerate().map(worker).collect();
    plan
}

fn run() -> Run {
    let queues = [0, 1].map(|queue| Queue { queue, worker: queue, received: 50_000 });
    Run {
        dpdk: "DPDK 22.11.7".into(),
        memory: Some("512 MB of hugepages".into()),
        ports: vec![Port {
            device: ENA.into(),
            driver: "net_ena".into(),
            mtu: 9001,
            rss_functions: vec!["ipv4-udp".into()],
            rss_key_is_fixed: true,
            rss_reta: Some((0..128).map(|n| n % 2).collect()),
            queues: queues.to_vec(),
            allowances: Vec::new(),
        }],
    }
}

fn of<'a>(found: &'a [Finding], check: &str) -> Vec<&'a Finding> {
    found.iter().filter(|finding| finding.check == check).collect()
}

#[test]
fn a_machine_as_it_should_be_is_good() {
    let root = machine();
    let found = examine(root.path(), Some(&plan(ENA, &[1, 2])), Some(&run()));
    for finding in &found {
        assert_eq!((finding.level, &finding.remedy), (Level::Good, &None), "{finding:?}");
    }
    let checks: Vec<&str> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, CHECKS, "each once, in order");
}

/// Whatever is wrong with the machine is found by its check alone, and has a remedy of one line.
#[test]
fn each_fault_of_a_machine_is_found_with_its_remedy() {
    type Fault = (&'static str, Level, &'static str, fn(&Path));
    let faults: &[Fault] = &[
        ("hugepages", Level::Warning, "nr_hugepages", |at| {
            put(at, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "255");
        }),
        ("hugepages", Level::Warning, "no-huge", |at| {
            std::fs::remove_dir_all(at.join("sys/kernel/mm/hugepages")).unwrap();
        }),
        ("iommu", Level::Bad, "dpdk-devbind.py -b vfio-pci 0000:00:06.0", |at| bind(at, Some("ena"))),
        ("iommu", Level::Bad, "dpdk-devbind.py", |at| bind(at, None)),
        ("iommu", Level::Bad, "enable_unsafe_noiommu_mode", |at| {
            std::fs::remove_file(at.join(format!("sys/bus/pci/devices/{ENA}/iommu_group"))).unwrap();
        }),
        ("iommu", Level::Note, "no other way", |at| {
            put(at, "sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y")
        }),
        ("write-combining", Level::Bad, "get-vfio-with-wc.sh", |at| {
            put(
                at,
                "sys/kernel/debug/x86/pat_memtype_list",
                "PAT: [mem 0x00000000fe800000-0x00000000fe900000] uncached-minus\n",
            );
        }),
        ("write-combining", Level::Unknown, "debugfs", |at| {
            std::fs::remove_file(at.join("sys/kernel/debug/x86/pat_memtype_list")).unwrap();
        }),
        ("numa", Level::Warning, "eal.lcores = \"4,5,6,7\"", |at| {
            put(at, &format!("sys/bus/pci/devices/{ENA}/numa_node"), "1")
        }),
        ("isolation", Level::Warning, "isolcpus=2", |at| put(at, "sys/devices/system/cpu/isolated", "1\n")),
        ("isolation", Level::Note, "a core of its own", |at| {
            put(at, "sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "1-2");
        }),
        ("clock", Level::Warning, "dmesg", |at| {
            put(at, "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
        }),
        ("clock", Level::Bad, "invariant", |at| put(at, "proc/cpuinfo", "flags : fpu tsc\n")),
    ];
    for (check, level, remedy, fault) in faults {
        let root = machine();
        fault(root.path());
        let found = examine(root.path(), Some(&plan(ENA, &[1, 2])), Some(&Run { memory: None, ..run() }));
        let wrong: Vec<&Finding> = found.iter().filter(|finding| finding.level != Level::Good).collect();
        assert!(
            !wrong.is_empty() && wrong.iter().all(|finding| finding.check == *check),
            "{check}: {wrong:?}"
        );
        let text = wrong[0].remedy.as_deref().unwrap_or_default();
        assert!(
            wrong[0].level == *level && text.contains(remedy) && !text.contains('\n'),
            "{check}: {wrong:?}"
        );
    }
    // igb_uio, by its parameter.
    let root = machine();
    bind(root.path(), Some("igb_uio"));
    let level = |root: &Path| of(&examine(root, Some(&plan(ENA, &[1])), None), "write-combining")[0].level;
    assert_eq!(level(root.path()), Level::Bad);
    put(root.path(), "sys/module/igb_uio/parameters/wc_activate", "1\n");
    assert_eq!(level(root.path()), Level::Good);
}

#[test]
fn what_a_plan_asks_for_is_compared() {
    let root = machine();
    let found = |device: &str| examine(root.path(), Some(&plan(device, &[1])), None);
    assert_eq!(of(&found("0000:00:07.0"), "iommu")[0].level, Level::Bad, "there is none");
    let off = found(&format!("{ENA},llq_policy=0"));
    assert_eq!((of(&off, "llq")[0].level, of(&off, "iommu")[0].level), (Level::Warning, Level::Good));
    assert_eq!(of(&found(&format!("{ENA},large_llq_hdr=1")), "llq")[0].level, Level::Note);
    put(root.path(), "sys/class/net/eth1/mtu", "1500\n");
    let small = found("net_af_packet0,iface=eth1");
    let mtu = of(&small, "mtu")[0];
    assert!(mtu.level == Level::Warning && mtu.found.contains("more than 1432"), "{mtu:?}");
    assert!(of(&small, "rss")[0].level == Level::Unknown, "never good where nobody asked");
}

#[test]
fn what_an_instance_says_is_judged() {
    let root = machine();
    let check = |check: &str, change: &dyn Fn(&mut Run)| {
        let mut run = run();
        change(&mut run);
        let found = examine(root.path(), Some(&plan(ENA, &[1, 2])), Some(&run));
        let all = of(&found, check);
        let worst = all.iter().max_by_key(|finding| finding.level).unwrap();
        (worst.level, worst.found.clone())
    };
    let level = |name: &str, change: &dyn Fn(&mut Run)| check(name, change).0;
    assert_eq!(level("dpdk", &|run| run.dpdk = "DPDK 21.11.0".into()), Level::Bad);
    assert_eq!(level("dpdk", &|run| run.dpdk = "DPDK 21.11.3".into()), Level::Warning);
    assert_eq!(level("dpdk", &|run| run.dpdk = "DPDK 24.11.1".into()), Level::Good);
    assert_eq!(
        level("hugepages", &|run| run.memory = Some("64 MB of ordinary pages, as asked".into())),
        Level::Warning
    );
    assert_eq!(level("mtu", &|run| run.ports[0].mtu = 8567), Level::Warning);
    assert_eq!(level("mtu", &|run| run.ports[0].mtu = 8568), Level::Good);
    assert_eq!(level("rss", &|run| run.ports[0].rss_key_is_fixed = false), Level::Warning);
    assert_eq!(level("rss", &|run| run.ports[0].rss_functions.clear()), Level::Bad);
    assert_eq!(level("rss", &|run| run.ports[0].rss_reta = None), Level::Unknown);
    assert_eq!(level("rss", &|run| run.ports[0].rss_reta = Some(vec![0; 128])), Level::Warning);
    let (skewed, text) = check("queues", &|run| run.ports[0].queues[1].received = 500_000);
    assert!(skewed == Level::Warning && text.contains("queue 1 of worker 1 has 1.8 times"), "{text}");
    assert_eq!(level("queues", &|run| run.ports[0].queues[0].received = 0), Level::Warning);
    let few = |run: &mut Run| {
        run.ports[0].queues.iter_mut().for_each(|queue| queue.received = u64::from(queue.queue))
    };
    assert_eq!(level("queues", &few), Level::Good, "too few to say anything");
    for name in ["bw_in", "bw_out", "pps", "conntrack", "linklocal"] {
        let exceed =
            |run: &mut Run| run.ports[0].allowances = vec![(format!("{name}_allowance_exceeded"), 7)];
        let (level, text) = check("allowances", &exceed);
        assert!(level == Level::Bad && text.contains("is 7"), "{text}");
    }
    let text = serde_json::to_string(&run()).unwrap();
    assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run());
}

/// Files that say anything at all: an answer, and no panic.
#[test]
fn a_machine_of_nonsense_is_not_good() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "sys/kernel/mm/hugepages/hugepages-xkB/free_hugepages",
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/nodeX/cpulist",
        "sys/devices/system/cpu/isolated",
        "sys/kernel/debug/x86/pat_memtype_list",
        "proc/cpuinfo",
        "sys/bus/pci/devices/0000:00:06.0/resource",
        "sys/bus/pci/devices/0000:00:06.0/numa_node",
    ] {
        put(root.path(), file, "0x-0xzz 99999999999999999999 ,,-\u{7f}\n0x");
    }
    for plan in [None, Some(plan(ENA, &[1, 2]))] {
        let found = examine(root.path(), plan.as_ref(), None);
        assert!(found.iter().any(|finding| finding.level > Level::Note), "{found:?}");
        let checks: std::collections::BTreeSet<&str> = found.iter().map(|finding| finding.check).collect();
        assert_eq!(checks.len(), CHECKS.len());
    }
}

/// The program, here: text and JSON say the same, and the exit code follows.
#[cfg(feature = "program")]
#[test]
fn the_program_says_sensible_things_of_this_machine() {
    let doctor = |args: &[&str]| {
        let program =
            std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate")).arg("doctor").args(args).output();
        let output = program.expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, text) = doctor(&["--no-run"]);
    let (json_code, json) = doctor(&["--no-run", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let findings = json["findings"].as_array().expect("a list");
    assert!(findings.len() >= CHECKS.len());
    for finding in findings {
        let found = finding["found"].as_str().expect("a sentence");
        assert!(text.contains(found), "{found}");
    }
    let bad = findings.iter().any(|finding| finding["level"] == "bad");
    assert_eq!((code, json_code, json["ok"] == false), (Some(i32::from(bad)), Some(i32::from(bad)), bad));
    // A good machine, and a plan that asks for more of it.
    let root = machine();
    let folder = root.path().to_str().expect("UTF-8");
    let file = root.path().join("edge.toml");
    std::fs::write(
        &file,
        format!(
            "{TUNNEL}\n[[port]]\ndevice = \"0000:00:06.0,llq_policy=0\"\nmtu = 9001\n[eal]\nmemory_mb = 256\n"
        ),
    )
    .unwrap();
    let file = file.to_str().expect("UTF-8");
    let (code, text) = doctor(&[file, "--no-run", "--root", folder]);
    let has_dpdk = cfg!(feature = "dpdk");
    assert_eq!(code, Some(i32::from(!has_dpdk)), "{text}");
    assert!(
        text.contains("low-latency queues are off") && text.contains("-> leave llq_policy out"),
        "{text}"
    );
    assert_eq!(doctor(&[file, "--no-run", "--strict", "--root", folder]).0, Some(1));
    assert_eq!(doctor(&["--socket", "/nowhere/control.sock"]).0, Some(2));
}
