//! Where a thread of the management side runs: not where workers do.

/// The calling thread runs on these CPUs from now on, as far as the process may use them. False if nothing changed: the list is empty,
/// or the system refused.
pub fn run_on(cpus: &[u32]) -> bool {
    if cpus.is_empty() {
        return false;
    }
    // SAFETY: an all-zero set is valid; CPU_SET is given numbers below the set's size only; the kernel reads the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as u32) {
            libc::CPU_SET(*cpu as usize, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    #[test]
    fn a_thread_goes_where_it_is_told() {
        let cpu = Machine::here().cpus[0];
        std::thread::spawn(move || {
            assert!(!run_on(&[]) && !run_on(&[100_000]), "nowhere is no place");
            assert!(run_on(&[cpu, 100_000]));
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc");
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            assert_eq!(allowed.map(str::trim), Some(cpu.to_string().as_str()));
        })
        .join()
        .expect("no panic");
    }
}
