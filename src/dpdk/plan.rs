//! What the EAL is asked for. Made by the configuration; known without DPDK too, so that every build can check a file.

/// How the EAL is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalPlan {
    /// Where memory comes from.
    pub memory: Memory,
    /// Megabytes of EAL memory: pools, rings and classifiers.
    pub memory_mb: u32,
    /// Keeps this process's files apart from those of other DPDK processes.
    pub file_prefix: String,
    /// The management lcore first, then one for each worker.
    pub lcores: Vec<LcorePlan>,
    /// Arguments passed on as they are, last.
    pub args: Vec<String>,
}

/// One lcore and the CPU it runs on. Several lcores may share a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LcorePlan {
    /// DPDK's number.
    pub lcore: u32,
    /// The kernel's number.
    pub cpu: u32,
}

/// Where EAL memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Hugepages if enough are free, otherwise ordinary pages; says which it took and what that costs.
    #[default]
    Auto,
    /// Hugepages of a mounted hugetlbfs.
    Hugepages,
    /// Hugepages through memfd: leaves no files and needs no mount.
    InMemory,
    /// Ordinary pages: works everywhere, at about half the speed on small packets.
    NoHuge,
}
