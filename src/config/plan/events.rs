//! What is told, and to whom.

use std::path::PathBuf;
use std::time::Duration;

use crate::event::{FlowLog, Types};
use crate::packet::ReasonId;

/// The plan of `[events]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsPlan {
    /// Types that are made, if there is a sink for them.
    pub types: Types,
    /// Events of one type that wait at one worker, a power of two.
    pub ring: u32,
    /// From one record of counters to the next.
    pub stats_every: Duration,
    /// Drops that are told.
    pub drop: ReportPlan,
    /// Anomalies that are told.
    pub anomaly: ReportPlan,
    /// Of flow logs.
    pub flow_log: FlowLog,
    /// Types that can be followed while the program runs, whether a sink takes them or not.
    pub follow: Types,
    /// Where records go. None: records are made only for those who follow.
    pub sinks: Vec<SinkPlan>,
}

impl EventsPlan {
    /// Types that some sink takes.
    pub fn wanted(&self) -> Types {
        self.sinks.iter().fold(Types::NONE, |all, sink| all.and(sink.types)).within(self.types)
    }

    /// Types that have a ring: what sinks take, and what can be followed.
    pub fn rings(&self) -> Types {
        self.wanted().and(self.follow)
    }
}

/// For which reasons a dropped packet makes a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportPlan {
    /// The reasons.
    pub reasons: Vec<ReasonId>,
    /// Records of one reason that one worker makes in a second.
    pub per_s: u32,
}

/// One place where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPlan {
    /// Its name in metrics and messages.
    pub name: String,
    /// Where.
    pub to: To,
    /// Which types.
    pub types: Types,
    /// In which form.
    pub format: Format,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// When it is put aside.
        rotation: Rotation,
    },
    /// Standard output.
    Stdout,
    /// A unix stream socket that somebody listens on.
    Unix {
        /// Its path.
        path: PathBuf,
    },
}

/// When a file is put aside, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Before it would have more bytes.
    pub size: Option<u64>,
    /// When it has been written to for so long.
    pub age: Option<Duration>,
    /// Files that are kept beside the one that is written.
    pub keep: u32,
}

/// The form of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object a line, as Suricata's EVE log.
    #[default]
    Eve,
    /// Flows as text, as AWS's VPC Flow Logs.
    VpcFlowLog,
}
