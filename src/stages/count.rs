//! `count`: how many packets and bytes pass this place of the pipeline.
//!
//! ```toml
//! [[stage]]
//! use = "count"
//! by = "protocol"                    # all | protocol | direction | size
//! ```
//!
//! Place on the path: any. Sees every packet that reaches it, settles nothing, drops nothing, decides nothing: packets of flows that a
//! stage in front of it has sent home or dropped do not reach it. Bytes are those of inner packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::config::Settings;
use crate::dpdk::Error;
use crate::packet::{Batch, Meta};
use crate::stage::{Backend, Cx, Make, ParseResult, Parsed, Shared, Stage, StageKind, WorkerId};

/// Most counters of one stage.
const MOST: usize = 8;

/// The kind `count`.
pub const KIND: StageKind = StageKind {
    name: "count",
    summary: "counts packets and bytes, and lets them pass",
    help: HELP,
    example: EXAMPLE,
    reasons: &[],
    parse,
};

const HELP: &str = r#"by   what packets are told apart by:
       all        (default) nothing
       protocol   TCP, UDP, ICMP (of either family), SCTP, ESP, GRE, anything else
       direction  away from whoever opened the flow, back, or without a flow; turns flow
                  tracking on
       size       bytes of the inner packet: up to 64, 128, 256, 512, 1024, 1500, 9000, more

Packets and bytes of each are shown with the stage's counters (the final table, stats
records). Every packet that reaches the stage is counted, so a flow that an earlier stage
has sent home or dropped is not. The names of several count stages in a pipeline must
differ: name = "before-firewall".
"#;

const EXAMPLE: &str = r#"[[stage]]
use = "count"
by = "protocol"
"#;

/// The keys of the stage's table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    by: By,
}

/// What packets are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    All,
    Protocol,
    Direction,
    Size,
}

/// Upper ends of the sizes.
const SIZES: [u16; 7] = [64, 128, 256, 512, 1024, 1500, 9000];

impl By {
    fn labels(self) -> &'static [&'static str] {
        match self {
            By::All => &["all"],
            By::Protocol => &["TCP", "UDP", "ICMP", "SCTP", "ESP", "GRE", "other"],
            By::Direction => &["to server", "to client", "no flow"],
            By::Size => {
                &["to 64", "to 128", "to 256", "to 512", "to 1024", "to 1500", "to 9000", "above 9000"]
            }
        }
    }

    /// Which of the labels a packet has.
    #[inline(always)]
    fn of(self, meta: &Meta) -> usize {
        match self {
            By::All => 0,
            By::Protocol => match meta.protocol {
                6 => 0,
                17 => 1,
                1 | 58 => 2,
                132 => 3,
                50 => 4,
                47 => 5,
                _ => 6,
            },
            By::Direction if meta.flow.entry().is_none() => 2,
            By::Direction => usize::from(meta.is_reply()),
            By::Size => SIZES.iter().take_while(|size| meta.inner_len > **size).count(),
        }
    }
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let Table { by } = settings.read()?;
    Ok(Box::new(Count { by }))
}

/// The stage, parsed.
#[derive(Clone, Copy, Debug)]
struct Count {
    by: By,
}

impl Parsed for Count {
    fn wants_flows(&self) -> bool {
        self.by == By::Direction
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(Built { by: self.by, workers: Mutex::default() }))
    }
}

/// One worker's counters, packets and bytes of each label. It alone adds.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters([(AtomicU64, AtomicU64); MOST]);

/// The stage, built: shared by all workers.
struct Built {
    by: By,
    workers: Mutex<Vec<(WorkerId, Arc<Counters>)>>,
}

impl Built {
    /// A stage that is made anew counts on where the old one stopped.
    fn counters(&self, worker: WorkerId) -> Arc<Counters> {
        let mut workers = self.workers.lock();
        if let Some((_, counters)) = workers.iter().find(|(id, _)| *id == worker) {
            return counters.clone();
        }
        let counters = Arc::<Counters>::default();
        workers.push((worker, counters.clone()));
        counters
    }
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(Running { by: self.by, counters: self.counters(make.worker) })
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let workers = self.workers.lock();
        let mut out = Vec::new();
        for (n, label) in self.by.labels().iter().enumerate() {
            let (mut packets, mut bytes) = (0, 0);
            for (more_packets, more_bytes) in workers.iter().filter_map(|(_, counters)| counters.0.get(n)) {
                packets += more_packets.load(Ordering::Relaxed);
                bytes += more_bytes.load(Ordering::Relaxed);
            }
            out.push((format!("{label}: packets"), packets));
            out.push((format!("{label}: bytes"), bytes));
        }
        out
    }
}

/// The stage on one worker.
struct Running {
    by: By,
    counters: Arc<Counters>,
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, _: &mut Cx<'_>) {
        let mut sums = [(0u64, 0u64); MOST];
        for slot in batch.open() {
            let meta = batch.meta(slot);
            if let Some((packets, bytes)) = sums.get_mut(self.by.of(meta)) {
                *packets += 1;
                *bytes += u64::from(meta.inner_len);
            }
        }
        for ((packets, bytes), (more_packets, more_bytes)) in self.counters.0.iter().zip(sums) {
            // One writer: a plain load and store, no locked instruction.
            packets.store(packets.load(Ordering::Relaxed) + more_packets, Ordering::Relaxed);
            bytes.store(bytes.load(Ordering::Relaxed) + more_bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_stage;
    use crate::packet::{FlowFlags, FlowSlot};
    use std::path::Path;

    fn parsed(text: &str) -> Result<Box<dyn Parsed>, String> {
        parse_stage(&KIND, text, Path::new("")).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn settings_are_read() {
        assert!(parsed("").is_ok() && !parsed("by = \"size\"").unwrap().wants_flows());
        assert!(parsed("by = \"direction\"").unwrap().wants_flows());
        assert!(parsed("by = \"colour\"").unwrap_err().contains("colour"));
        assert!(parsed("per = \"size\"").unwrap_err().contains("per"));
    }

    /// Every label can be met, and both sides of every bound.
    #[test]
    fn packets_are_told_apart() {
        let of = |by: By, meta: Meta| by.labels()[by.of(&meta)];
        let protocols = [
            (6, "TCP"),
            (17, "UDP"),
            (1, "ICMP"),
            (58, "ICMP"),
            (132, "SCTP"),
            (50, "ESP"),
            (47, "GRE"),
            (0, "other"),
        ];
        for (protocol, label) in protocols {
            assert_eq!(of(By::Protocol, Meta { protocol, ..Meta::default() }), label);
        }
        for (inner_len, label) in [
            (20, "to 64"),
            (64, "to 64"),
            (65, "to 128"),
            (1500, "to 1500"),
            (1501, "to 9000"),
            (9001, "above 9000"),
        ] {
            assert_eq!(of(By::Size, Meta { inner_len, ..Meta::default() }), label);
        }
        let there = Meta { flow: FlowSlot::new(0), ..Meta::default() };
        let back = Meta { flow_flags: FlowFlags(FlowFlags::REPLY), ..there };
        assert_eq!(
            [there, back, Meta::default()].map(|meta| of(By::Direction, meta)),
            By::Direction.labels()
        );
        for by in [By::All, By::Protocol, By::Direction, By::Size] {
            assert!(by.labels().len() <= MOST);
        }
    }
}
