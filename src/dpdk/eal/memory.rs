//! Where the EAL's memory comes from: decided before it starts, because a start that fails cannot be repeated.

use std::fs;
use std::path::Path;

use crate::dpdk::Error;
use crate::dpdk::{EalPlan, Memory};

const POOLS: &str = "/sys/kernel/mm/hugepages";
const MOUNTS: &str = "/proc/self/mounts";

/// The EAL's memory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryFacts {
    /// What was taken; never `Auto`.
    pub mode: Memory,
    /// Megabytes, all taken at start.
    pub mb: u32,
    /// What was taken, why, and what it costs.
    pub sentence: String,
}

/// Free hugepages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    kb: u64,
    total: u64,
    free: u64,
}

/// Takes what the plan asks for, or says what is missing and the command that provides it.
pub(super) fn choose(plan: &EalPlan) -> Result<MemoryFacts, Error> {
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    decide(plan.memory, plan.memory_mb, &pools(Path::new(POOLS)), has_hugetlbfs(&mounts))
}

fn decide(asked: Memory, mb: u32, pages: &[Pages], mounted: bool) -> Result<MemoryFacts, Error> {
    let enough = pages.iter().map(|p| p.free * p.kb).sum::<u64>() >= u64::from(mb) * 1024;
    let facts = |mode, sentence: String| Ok(MemoryFacts { mode, mb, sentence });
    match asked {
        Memory::NoHuge => facts(
            Memory::NoHuge,
            format!(
                "{mb} MB of ordinary pages, as asked: about half the speed of hugepages on small packets"
            ),
        ),
        Memory::Auto if enough => {
            facts(Memory::InMemory, format!("{mb} MB of hugepages through memfd: full speed, no files"))
        }
        Memory::Auto => {
            let (free, needed, page) = shortage(mb, pages);
            let why = format!("{free} of the {needed} hugepages of {page} are free");
            facts(
                Memory::NoHuge,
                format!(
                    "{mb} MB of ordinary pages, because {why}: about half the speed on small packets; {}",
                    command(mb, pages)
                ),
            )
        }
        _ if !enough => {
            let (free, needed, page) = shortage(mb, pages);
            Err(Error::refused(
                format!("{mb} MB of EAL memory need {needed} free hugepages of {page}, and {free} are free"),
                format!("{}, or set [eal] memory = \"auto\"", command(mb, pages)),
            ))
        }
        Memory::Hugepages if !mounted => Err(Error::refused(
            "[eal] memory = \"hugepages\" needs a mounted hugetlbfs, and there is none",
            "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages, or set memory = \"in-memory\", which \
             needs no mount",
        )),
        Memory::Hugepages => {
            facts(Memory::Hugepages, format!("{mb} MB of hugepages of hugetlbfs: full speed"))
        }
        Memory::InMemory => {
            facts(Memory::InMemory, format!("{mb} MB of hugepages through memfd: full speed, no files"))
        }
    }
}

/// Free and needed pages of the size that most machines have, and that size in words.
fn shortage(mb: u32, pages: &[Pages]) -> (u64, u64, String) {
    let size = pages.iter().min_by_key(|p| p.kb).copied().unwrap_or(Pages { kb: 2048, total: 0, free: 0 });
    let page =
        if size.kb >= 1 << 20 { format!("{} GB", size.kb >> 20) } else { format!("{} MB", size.kb >> 10) };
    (size.free, (u64::from(mb) * 1024).div_ceil(size.kb.max(1)), page)
}

fn command(mb: u32, pages: &[Pages]) -> String {
    let (free, needed, _) = shortage(mb, pages);
    match pages.iter().min_by_key(|p| p.kb) {
        None => "this kernel has no hugepages (CONFIG_HUGETLBFS)".into(),
        Some(size) => {
            let total = size.total + needed.saturating_sub(free);
            format!("reserve them with: echo {total} > {POOLS}/hugepages-{}kB/nr_hugepages", size.kb)
        }
    }
}

fn pools(folder: &Path) -> Vec<Pages> {
    let read = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut pools: Vec<Pages> = entries
        .filter_map(|entry| {
            let kb =
                entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            // Reserved pages are promised to others although they count as free.
            let reserved: u64 = read(&entry.path().join("resv_hugepages")).unwrap_or(0);
            let free = read(&entry.path().join("free_hugepages")).unwrap_or(0u64);
            let total = read(&entry.path().join("nr_hugepages")).unwrap_or(0);
            Some(Pages { kb, total, free: free.saturating_sub(reserved) })
        })
        .collect();
    pools.sort_by_key(|p| p.kb);
    pools
}

fn has_hugetlbfs(mounts: &str) -> bool {
    mounts.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some("hugetlbfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_mb(total: u64, free: u64) -> Vec<Pages> {
        vec![Pages { kb: 2048, total, free }]
    }

    #[test]
    fn too_few_hugepages_say_how_many_and_how_to_get_them() {
        for asked in [Memory::Hugepages, Memory::InMemory] {
            let text = decide(asked, 300, &two_mb(20, 10), true).unwrap_err().to_string();
            assert_eq!(
                text,
                "300 MB of EAL memory need 150 free hugepages of 2 MB, and 10 are free; reserve them with: echo 160 > \
                 /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, or set [eal] memory = \"auto\""
            );
        }
    }

    #[test]
    fn auto_takes_hugepages_if_they_suffice() {
        assert_eq!(decide(Memory::Auto, 300, &two_mb(150, 150), false).unwrap().mode, Memory::InMemory);
        let facts = decide(Memory::Auto, 300, &two_mb(150, 149), true).unwrap();
        assert_eq!(facts.mode, Memory::NoHuge);
        assert!(facts.sentence.contains("149 of the 150 hugepages of 2 MB are free"), "{}", facts.sentence);
    }

    #[test]
    fn hugepages_want_a_mount_and_memfd_does_not() {
        let text = decide(Memory::Hugepages, 2, &two_mb(1, 1), false).unwrap_err().to_string();
        assert!(text.contains("mount -t hugetlbfs"), "{text}");
        assert!(decide(Memory::InMemory, 2, &two_mb(1, 1), false).is_ok());
        assert!(has_hugetlbfs("none / ext4 rw 0 0\nnone /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n"));
        assert!(!has_hugetlbfs("hugetlbfs /mnt tmpfs rw 0 0\n"));
    }

    #[test]
    fn a_kernel_without_hugepages_says_so() {
        let text = decide(Memory::InMemory, 64, &[], false).unwrap_err().to_string();
        assert!(text.contains("this kernel has no hugepages"), "{text}");
    }

    #[test]
    fn pools_are_read_from_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        for (size, total, free, reserved) in [(1048576, 2, 1, 0), (2048, 64, 32, 2)] {
            let pool = dir.path().join(format!("hugepages-{size}kB"));
            fs::create_dir(&pool).unwrap();
            fs::write(pool.join("nr_hugepages"), format!("{total}\n")).unwrap();
            fs::write(pool.join("free_hugepages"), format!("{free}\n")).unwrap();
            fs::write(pool.join("resv_hugepages"), format!("{reserved}\n")).unwrap();
        }
        let expected = [Pages { kb: 2048, total: 64, free: 30 }, Pages { kb: 1048576, total: 2, free: 1 }];
        assert_eq!(pools(dir.path()), expected);
    }
}
