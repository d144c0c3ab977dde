//! What a running instance needs no more is given up: capabilities of all threads, the right to ever get others, and system calls that no packet needs.
//!
//! Opening ports, pages and devices takes rights; passing packets takes none. So this comes after the start, once, and there is no way back: what
//! a reload reads has to be readable for the user as whom the program runs.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, apply_filter_all_threads};

use crate::config::{HostKind, Plan};
use crate::dpdk::privileges::{capability, keep_only};

/// System calls that only somebody else would make: they start programs, change what the system is, look into other processes, or gain rights.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

/// What was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Names of the capabilities that stay.
    pub kept: Vec<&'static str>,
    /// Threads that there were.
    pub threads: usize,
    /// System calls that are refused, or why none are.
    pub refused: Result<usize, String>,
}

/// Gives up what this plan's instance needs no more. Its ports are open and its threads run; those that come later are born like this.
///
/// # Errors
///
/// In one sentence, if some thread keeps its capabilities.
pub fn confine(plan: &Plan) -> Result<Confined, String> {
    let (keep, kept) = needed(plan);
    let threads = keep_only(keep)?;
    Ok(Confined { kept, threads, refused: refuse(uses_xdp(plan)) })
}

/// Capabilities for what ports do until they are closed.
fn needed(plan: &Plan) -> (u64, Vec<&'static str>) {
    let (mut keep, mut names) = (0, Vec::new());
    let is_kernels =
        |device: &str| ["net_af_", "net_tap", "eth_tap"].iter().any(|kind| device.starts_with(kind));
    // An interface that was made promiscuous is to be left as it was.
    if plan.management.host.kind == HostKind::Tap || plan.ports.iter().any(|port| is_kernels(&port.device)) {
        keep |= capability::NET_ADMIN;
        names.push("CAP_NET_ADMIN");
    }
    if uses_xdp(plan) {
        keep |= capability::BPF;
        names.push("CAP_BPF");
    }
    // What a device reads and writes is locked, and rule sets of a reload may be the first in a page.
    if plan.ports.iter().any(|port| port.device.contains(':')) {
        keep |= capability::IPC_LOCK;
        names.push("CAP_IPC_LOCK");
    }
    (keep, names)
}

/// Such ports take their program out of the kernel when they are closed.
fn uses_xdp(plan: &Plan) -> bool {
    plan.ports.iter().any(|port| port.device.starts_with("net_af_xdp"))
}

/// A filter over all threads: what is refused fails with EPERM.
fn refuse(uses_xdp: bool) -> Result<usize, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let calls = REFUSED.iter().filter(|call| !uses_xdp || **call != libc::SYS_bpf);
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|call| (*call, Vec::new())).collect();
    let refused_calls = rules.len();
    let architecture = std::env::consts::ARCH.try_into().map_err(|error| said(&error))?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| said(&error))?;
    apply_filter_all_threads(&program).map_err(|error| said(&error))?;
    Ok(refused_calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Overrides, load_text};

    fn kept(device: &str, more: &str) -> Vec<&'static str> {
        let text =
            format!("[tunnel]\nallowed_sources = [\"10.0.0.0/24\"]\n[[port]]\ndevice = \"{device}\"\n{more}");
        let root = std::path::Path::new(".");
        let plan = load_text("t.toml", &text, root, &Overrides::default(), &Options::default());
        needed(&plan.unwrap_or_else(|problems| panic!("{}", problems[0]))).1
    }

    #[test]
    fn what_is_kept_follows_from_the_ports() {
        assert_eq!(kept("net_pcap0,rx_pcap=a.pcap", ""), Vec::<&str>::new());
        assert_eq!(kept("net_af_packet0,iface=eth1", ""), ["CAP_NET_ADMIN"]);
        assert_eq!(kept("0000:00:06.0", ""), ["CAP_IPC_LOCK"]);
        assert_eq!(kept("net_af_xdp0,iface=eth1", ""), ["CAP_NET_ADMIN", "CAP_BPF"]);
    }
}
