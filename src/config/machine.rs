//! The CPUs that this process may use: what an automatic lcore plan is made from.

/// Far more CPUs than a machine has; keeps a list that is written to hurt small.
const MOST_CPUS: u32 = 4096;

/// The CPUs of a machine, as far as this process may use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's numbers, ascending.
    pub cpus: Vec<u32>,
    /// How many of them are worth a thread each: a cgroup may allow all CPUs and the time of two.
    pub worth: usize,
}

impl Machine {
    /// This machine. The affinity is read from `/proc`; without it the CPUs are counted from 0.
    pub fn here() -> Self {
        let worth = num_cpus::get().max(1);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let cpus = allowed.and_then(|list| cpu_list(list).ok()).unwrap_or_default();
        let cpus = if cpus.is_empty() { (0..worth as u32).collect() } else { cpus };
        Machine { cpus, worth }
    }

    /// Bytes of memory that the kernel could give without swapping, within what the cgroup allows; `None` where nobody says.
    pub fn free_memory() -> Option<u64> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        let text = read("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let free = line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
        let most = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
        Some(most.map_or(free, |(most, used)| free.min(most.saturating_sub(used))))
    }

    /// The CPUs as a list: `0-3,5`.
    pub fn list(&self) -> String {
        let mut text = String::new();
        for run in self.cpus.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let separator = if text.is_empty() { "" } else { "," };
            text += &match run {
                [first, .., last] => format!("{separator}{first}-{last}"),
                [one] => format!("{separator}{one}"),
                [] => String::new(),
            };
        }
        text
    }
}

/// Reads `0-3,5` in the order written. The error is the part that is not a CPU or a range of CPUs.
pub(crate) fn cpu_list(text: &str) -> Result<Vec<u32>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse().ok();
        let range: Option<(u32, u32)> = number(first).zip(number(last));
        match range {
            Some((first, last)) if first <= last && last < MOST_CPUS => cpus.extend(first..=last),
            _ => return Err(format!("{part:?} is not a CPU or a range of CPUs")),
        }
        if cpus.len() > MOST_CPUS as usize {
            return Err(format!("these are more than {MOST_CPUS} CPUs"));
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_and_written() {
        for (text, cpus) in [
            ("0", Ok(vec![0])),
            ("0-3,5", Ok(vec![0, 1, 2, 3, 5])),
            (" 7, 2 ", Ok(vec![7, 2])),
            ("1,1", Ok(vec![1, 1])),
            ("3-1", Err("\"3-1\" is not a CPU or a range of CPUs".to_owned())),
            ("0-4294967295", Err("\"0-4294967295\" is not a CPU or a range of CPUs".to_owned())),
            ("", Err("\"\" is not a CPU or a range of CPUs".to_owned())),
            ("0,x", Err("\"x\" is not a CPU or a range of CPUs".to_owned())),
        ] {
            assert_eq!(cpu_list(text), cpus, "{text:?}");
        }
        let machine = Machine { cpus: vec![0, 1, 2, 5, 7, 8], worth: 2 };
        assert_eq!(machine.list(), "0-2,5,7-8");
    }

    #[test]
    fn this_machine_has_a_cpu() {
        let here = Machine::here();
        assert!(!here.cpus.is_empty() && here.worth > 0);
    }
}
