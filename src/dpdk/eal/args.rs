//! The argument vector of `rte_eal_init`, and what is checked before it is used.

use std::ffi::CString;

use super::{c_string, device};
use crate::dpdk::Error;
use crate::dpdk::{EalPlan, Memory};

/// Refuses lcores that DPDK or this process cannot have.
pub(super) fn check_lcores(plan: &EalPlan) -> Result<(), Error> {
    if plan.lcores.is_empty() {
        return Err(Error::refused("no lcore is planned", "name at least one CPU in [eal] lcores"));
    }
    let allowed = allowed_cpus();
    for (i, at) in plan.lcores.iter().enumerate() {
        if at.lcore >= dpdk_sys::RTE_MAX_LCORE {
            return Err(Error::refused(
                format!(
                    "lcore {} does not exist: this DPDK numbers them below {}",
                    at.lcore,
                    dpdk_sys::RTE_MAX_LCORE
                ),
                "choose a smaller number; any lcore can run on any CPU (lcore@cpu)",
            ));
        }
        if plan.lcores.iter().take(i).any(|other| other.lcore == at.lcore) {
            return Err(Error::refused(
                format!("lcore {} is planned twice", at.lcore),
                "give each lcore once",
            ));
        }
        if !allowed.contains(&at.cpu) {
            return Err(Error::refused(
                format!("lcore {} is to run on CPU {}, which this process may not use", at.lcore, at.cpu),
                format!("it may use CPUs {} (cgroup cpuset, taskset): choose among these", ranges(&allowed)),
            ));
        }
    }
    Ok(())
}

/// The vector, program name first. `memory` is the choice made, never `Auto`.
pub(super) fn build(plan: &EalPlan, memory: Memory, devices: &[String]) -> Result<Vec<CString>, Error> {
    let lcores: Vec<_> = plan.lcores.iter().map(|at| format!("{}@{}", at.lcore, at.cpu)).collect();
    let mut args = vec![
        "sluicegate".to_string(),
        format!("--lcores={}", lcores.join(",")),
        format!("--file-prefix={}", plan.file_prefix),
        // Warnings and worse; `args` come later and may say otherwise.
        "--log-level=warning".into(),
        "--no-telemetry".into(),
        "-m".into(),
        plan.memory_mb.to_string(),
    ];
    args.extend(plan.lcores.first().map(|main| format!("--main-lcore={}", main.lcore)));
    // One process: no shared configuration, and no file that outlives it.
    args.extend(match memory {
        Memory::NoHuge | Memory::Auto => vec!["--no-huge".to_string(), "--no-shconf".into()],
        Memory::InMemory => vec!["--in-memory".into()],
        Memory::Hugepages => vec!["--no-shconf".into(), "--huge-unlink".into()],
    });
    let (pci, virtual_devices): (Vec<&String>, Vec<_>) =
        devices.iter().partition(|d| device::pci_address(d).is_some());
    if pci.is_empty() {
        args.push("--no-pci".into());
    }
    for device in pci {
        args.extend(["-a".into(), device.clone()]);
    }
    args.extend(virtual_devices.into_iter().map(|device| format!("--vdev={device}")));
    args.extend(plan.args.iter().cloned());
    args.iter().map(|arg| c_string(arg, "EAL argument")).collect()
}

/// CPUs that the calling thread may run on.
fn allowed_cpus() -> Vec<u32> {
    // SAFETY: an all-zero set is valid, and the kernel writes at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &set))
            .map(|cpu| cpu as u32)
            .collect()
    }
}

/// `[0, 1, 2, 5]` as `0-2,5`.
fn ranges(sorted: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &n in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let show = |&(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpdk::LcorePlan;

    fn plan() -> EalPlan {
        EalPlan {
            memory: Memory::NoHuge,
            memory_mb: 64,
            file_prefix: "t".into(),
            lcores: vec![LcorePlan { lcore: 3, cpu: 0 }, LcorePlan { lcore: 1, cpu: 0 }],
            args: vec!["--log-level=debug".into()],
        }
    }

    #[test]
    fn devices_go_where_the_eal_wants_them() {
        let devices = ["0000:00:06.0,x=1".to_string(), "net_null0,copy=1".into()];
        let args = build(&plan(), Memory::InMemory, &devices).unwrap();
        let args: Vec<_> = args.iter().map(|a| a.to_str().unwrap()).collect();
        let expected = [
            "sluicegate",
            "--lcores=3@0,1@0",
            "--file-prefix=t",
            "--log-level=warning",
            "--no-telemetry",
            "-m",
            "64",
            "--main-lcore=3",
            "--in-memory",
            "-a",
            "0000:00:06.0,x=1",
            "--vdev=net_null0,copy=1",
            "--log-level=debug",
        ];
        assert_eq!(args, expected);
    }

    #[test]
    fn an_lcore_twice_is_refused() {
        let mut plan = plan();
        plan.lcores[1].lcore = 3;
        assert!(check_lcores(&plan).unwrap_err().to_string().starts_with("lcore 3 is planned twice"));
    }

    #[test]
    fn cpus_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 8, 9]), "0-2,5,8-9");
        assert_eq!(ranges(&[]), "");
    }
}
