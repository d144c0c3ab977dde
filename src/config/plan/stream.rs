//! How TCP streams are read: what a plan says of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Streams, if some stage reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Bytes of each worker's slab, which takes what comes early and what is kept to be compared.
    pub memory: u64,
    /// Of these, bytes that one flow may have.
    pub per_flow: u32,
    /// And one tenant, in percent; with a single tenant all.
    pub tenant_percent: u32,
    /// Tenants; what [`Self::per_tenant`] depends on.
    pub tenants: usize,
    /// Bytes of each direction that stages are shown.
    pub depth: u32,
    /// Which copy of a byte counts.
    pub overlap: Overlap,
    /// What becomes of a segment that differs from what was seen before.
    pub conflict: Conflict,
    /// Bytes are kept until they are acknowledged, so that a copy that differs is seen.
    pub compare: bool,
    /// What becomes of urgent data.
    pub urgent: Urgent,
    /// How long bytes wait for what is missing before them, or are kept to be compared.
    pub wait: Duration,
    /// How long a hole that its receiver has acknowledged stays a hole before it is a gap.
    pub gap_time: Duration,
    /// Frames of one worker that wait for a stage's decision.
    pub hold: u32,
    /// How long they wait at most.
    pub hold_time: Duration,
}

/// Of two copies of a byte that nobody has read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// The first counts.
    #[default]
    First,
    /// The last.
    Last,
}

/// A segment that differs from bytes of the same numbers seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// Dropped: nobody gets another copy than stages have read.
    #[default]
    Drop,
    /// It is counted and passes.
    Pass,
}

/// TCP's urgent data, of which a receiver may take a byte out of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Urgent {
    /// URG and its pointer are taken away: the receiver reads all of it in its place, as stages do.
    #[default]
    Inline,
    /// Such a segment counts as one that cannot be read.
    Unread,
    /// It passes as it is, and stages read all of it.
    Pass,
}

impl StreamPlan {
    /// Bytes of the slab that one tenant may have.
    pub fn per_tenant(&self) -> u64 {
        let percent = if self.tenants > 1 { self.tenant_percent } else { 100 };
        self.memory * u64::from(percent) / 100
    }
}

impl Default for StreamPlan {
    fn default() -> Self {
        StreamPlan {
            memory: 16 << 20,
            per_flow: 64 << 10,
            tenant_percent: 50,
            tenants: 1,
            depth: 64 << 10,
            overlap: Overlap::default(),
            conflict: Conflict::default(),
            compare: true,
            urgent: Urgent::default(),
            // A segment that was lost is sent again after a second at the latest, then after two and four (RFC 6298 section 2).
            wait: Duration::from_secs(10),
            gap_time: Duration::from_millis(100),
            hold: 256,
            hold_time: Duration::from_millis(500),
        }
    }
}
