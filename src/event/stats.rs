//! Counters as a record of the type `stats`.
//!
//! Where Suricata has a counter of the same meaning it has Suricata's place and name (`capture.kernel_packets`, `decoder.pkts`,
//! `flow.total`, ...); the rest is ours, below `sluicegate`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::eve::Time;
use super::kind::Type;
use crate::packet::{DropReason, ReasonId};

/// One stage's counters.
#[derive(Clone, Debug, Default)]
pub struct StageStats {
    /// Its name.
    pub name: String,
    /// Packets that it saw.
    pub seen: u64,
    /// Packets that it sent home past the other stages.
    pub sent_home: u64,
    /// Packets that it dropped.
    pub dropped: u64,
    /// What it counts itself.
    pub counts: Vec<(String, u64)>,
}

/// What a record of counters is made of: sums over all workers and ports, since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Since the start.
    pub uptime: Duration,
    /// Packets that drivers received; none in a replay.
    pub captured: Option<u64>,
    /// Packets that drivers lost or could not give a buffer.
    pub capture_drops: u64,
    /// Packets that arrived broken.
    pub capture_errors: u64,
    /// Frames that workers took, and their bytes.
    pub received: (u64, u64),
    /// Frames that went home.
    pub sent: u64,
    /// Frames for the host stack.
    pub punted: u64,
    /// Answers that were sent because a packet was rejected.
    pub rejected: u64,
    /// Drops by reason, with the reason's label.
    pub drops: Vec<(String, u64)>,
    /// Flows opened, live, and refused for want of room.
    pub flows: Option<(u64, u64, u64)>,
    /// Each stage.
    pub stages: Vec<StageStats>,
    /// Events lost, by type.
    pub lost: Vec<(Type, u64)>,
}

impl Stats {
    /// The record.
    pub fn record(&self, at: SystemTime) -> Value {
        let decap = |label: &str| {
            let mut all = DropReason::ALL.iter();
            all.any(|reason| reason.label() == label && reason.hop() == "decap")
        };
        let invalid: u64 = self.drops.iter().filter(|(label, _)| decap(label)).map(|(_, n)| n).sum();
        let dropped: u64 = self.drops.iter().map(|(_, n)| n).sum();
        let mut stats = Map::new();
        stats.insert("uptime".into(), self.uptime.as_secs().into());
        if let Some(captured) = self.captured {
            let capture = json!({
                "kernel_packets": captured, "kernel_drops": self.capture_drops, "errors": self.capture_errors,
            });
            stats.insert("capture".into(), capture);
        }
        let (packets, bytes) = self.received;
        stats.insert("decoder".into(), json!({ "pkts": packets, "bytes": bytes, "invalid": invalid }));
        stats.insert(
            "ips".into(),
            json!({ "accepted": self.sent, "blocked": dropped, "rejected": self.rejected }),
        );
        if let Some((total, active, memcap)) = self.flows {
            stats.insert("flow".into(), json!({ "total": total, "active": active, "memcap": memcap }));
        }
        let named = |list: &[(String, u64)]| -> Value {
            let moved = list.iter().filter(|(_, n)| *n > 0);
            moved.map(|(label, n)| (label.clone(), Value::from(*n))).collect::<Map<_, _>>().into()
        };
        let stages: Map<String, Value> = self
            .stages
            .iter()
            .map(|stage| {
                let StageStats { name, seen, sent_home, dropped, counts } = stage;
                let counts = named(counts);
                let value =
                    json!({ "seen": seen, "sent_home": sent_home, "dropped": dropped, "counts": counts });
                (name.clone(), value)
            })
            .collect();
        let lost: Map<String, Value> =
            self.lost.iter().map(|(kind, n)| (kind.word().to_owned(), Value::from(*n))).collect();
        stats.insert(
            "sluicegate".into(),
            json!({ "punted": self.punted, "drops": named(&self.drops), "stages": stages, "events_lost": lost }),
        );
        json!({ "timestamp": Time(at), "event_type": Type::Stats.word(), "stats": stats })
    }

    /// The moment of a capture.
    pub fn capture_time(nanos: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }
}

/// A record of the management side's, which is of no packet.
pub(crate) fn record_of(kind: Type, at: SystemTime, body: Value) -> Value {
    json!({ "timestamp": Time(at), "event_type": kind.word(), kind.word(): body })
}

/// So many drops, by the number of the reason.
pub(crate) fn labelled(reasons: &crate::packet::ReasonTable, drops: &[u64]) -> Vec<(String, u64)> {
    let label = |n: usize| reasons.label(ReasonId(n as u16)).to_owned();
    drops.iter().enumerate().map(|(n, count)| (label(n), *count)).collect()
}
