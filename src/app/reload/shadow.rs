//! A candidate on the management side: what it has come to, over all workers, and examples of differences.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::event::{Moment, Type, about_json, record_of};
use crate::packet::ReasonId;
use crate::path::{Candidate, Clock, Comparison, Counter, End, Example, Pipeline, Verdict};

/// Examples that a status has.
const LATEST: usize = 16;

/// A candidate that is loaded.
pub(super) struct Loaded {
    pub candidate: Arc<Candidate>,
    since: Instant,
    bytes: u64,
    latest: VecDeque<Value>,
}

/// How verdicts compared, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// There is a candidate now.
    pub loaded: bool,
    /// Packets: agree, would drop, would pass, waiting, not compared.
    pub packets: [u64; 5],
    /// Flows: judged, would drop, would pass.
    pub flows: [u64; 3],
    /// Differences without an example.
    pub skipped: u64,
}

impl Totals {
    /// Words for [`Self::packets`] and [`Self::flows`].
    pub const PACKETS: [&str; 5] = ["agree", "would_drop", "would_pass", "waiting", "not_compared"];
    /// Likewise.
    pub const FLOWS: [&str; 3] = ["judged", "would_drop", "would_pass"];

    pub fn add(&mut self, other: &Totals) {
        self.packets.iter_mut().zip(other.packets).for_each(|(sum, n)| *sum += n);
        self.flows.iter_mut().zip(other.flows).for_each(|(sum, n)| *sum += n);
        self.skipped += other.skipped;
    }
}

impl From<&Comparison> for Totals {
    fn from(counts: &Comparison) -> Self {
        let Comparison { agree, would_drop, would_pass, waiting, not_compared, .. } = counts;
        let Comparison { flows, flows_would_drop, flows_would_pass, skipped, .. } = counts;
        Totals {
            loaded: false,
            packets: [agree, would_drop, would_pass, waiting, not_compared].map(Counter::get),
            flows: [flows, flows_would_drop, flows_would_pass].map(Counter::get),
            skipped: skipped.get(),
        }
    }
}

/// What a candidate has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowStatus {
    /// The file that was loaded.
    pub file: String,
    /// Its policy's hash.
    pub policy: String,
    /// For how long it has been there.
    pub seconds: u64,
    /// Bytes that it takes beside its rule sets.
    pub bytes: u64,
    /// Packets by how verdicts compared: `agree`, `would_drop`, `would_pass`, `waiting`, `not_compared`.
    pub packets: Map<String, Value>,
    /// Flows: `judged`, and with a packet that `would_drop` or `would_pass`.
    pub flows: Map<String, Value>,
    /// What would be dropped, by the candidate's reason.
    pub would_drop: Map<String, Value>,
    /// What was dropped and would pass, by the reason for which it was.
    pub would_pass: Map<String, Value>,
    /// What each stage of the candidate did, with its own counts (hits of its rules).
    pub stages: Vec<Judged>,
    /// The newest differences, as records have them.
    pub examples: Vec<Value>,
    /// Workers that have not taken it, one sentence each.
    pub behind: Vec<String>,
}

/// What a stage of a candidate did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its name.
    pub stage: String,
    /// Packets that it was shown.
    pub seen: u64,
    /// Those that it would drop.
    pub dropped: u64,
    /// Those that it would send home past the stages behind it.
    pub forwarded: u64,
    /// Batches in which it panicked.
    pub panics: u64,
    /// What it counts itself, where that is not 0.
    pub counts: Map<String, Value>,
}

impl ShadowStatus {
    /// For people, line by line.
    pub fn lines(&self) -> Vec<String> {
        let list = |of: &Map<String, Value>| -> String {
            of.iter()
                .map(|(word, n)| format!("{} {n}", word.replace('_', " ")))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut lines = vec![
            format!("candidate {} (policy {}), for {} s", self.file, self.policy, self.seconds),
            format!("packets: {}", list(&self.packets)),
            format!("flows: {}", list(&self.flows)),
        ];
        for (what, reasons) in [("would drop", &self.would_drop), ("would pass", &self.would_pass)] {
            lines.extend(reasons.iter().map(|(reason, n)| format!("{what} {n}: {reason}")));
        }
        for stage in &self.stages {
            let Judged { stage, seen, dropped, forwarded, panics, counts } = stage;
            lines.push(format!(
                "stage {stage}: seen {seen}, dropped {dropped}, sent home {forwarded}, panics {panics}"
            ));
            lines.extend(counts.iter().map(|(label, n)| format!("  {label}: {n}")));
        }
        for example in &self.examples {
            let end = |ip: &str, port: &str| match (example[ip].as_str(), example[port].as_u64()) {
                (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
                (Some(ip), Some(port)) => format!("{ip}:{port}"),
                (ip, _) => ip.unwrap_or("?").to_owned(),
            };
            let says = |who: &str| {
                let says = &example["shadow"][who];
                let rule = says["rule"].as_str().map(|rule| format!(" ({rule})")).unwrap_or_default();
                format!("{}{rule}", says["reason"].as_str().unwrap_or("pass"))
            };
            lines.push(format!(
                "example: {} {} -> {}: {} now, {} then",
                example["proto"].as_str().unwrap_or("?"),
                end("src_ip", "src_port"),
                end("dest_ip", "dest_port"),
                says("active"),
                says("candidate")
            ));
        }
        lines.extend(self.behind.iter().cloned());
        lines.push(format!("it keeps {} MB beside its rules", self.bytes.div_ceil(1 << 20)));
        lines
    }
}

impl Loaded {
    pub fn new(candidate: Arc<Candidate>, bytes: u64) -> Self {
        Loaded { candidate, since: Instant::now(), bytes, latest: VecDeque::new() }
    }

    pub fn totals(&self) -> Totals {
        let mut all = Totals::default();
        self.candidate.ends().iter().for_each(|end| all.add(&Totals::from(&end.counts)));
        all
    }

    pub fn status(&self, behind: Vec<String>) -> ShadowStatus {
        let (totals, ends) = (self.totals(), self.candidate.ends());
        let plan = self.candidate.plan();
        let named = |words: &[&str], counts: &[u64]| -> Map<String, Value> {
            words.iter().zip(counts).map(|(word, n)| ((*word).to_owned(), json!(n))).collect()
        };
        let by_reason = |which: usize| -> Map<String, Value> {
            let of = |end: &Arc<End>, reason: usize| {
                end.counts
                    .by_reason
                    .get(which)
                    .and_then(|counters| counters.get(reason))
                    .map_or(0, Counter::get)
            };
            let sums = (0..plan.reasons.len())
                .map(|reason| (reason, ends.iter().map(|end| of(end, reason)).sum::<u64>()));
            let moved = sums.filter(|(_, n)| *n > 0);
            moved
                .map(|(reason, n)| (plan.reasons.label(ReasonId(reason as u16)).to_owned(), json!(n)))
                .collect()
        };
        let snapshots: Vec<_> = ends.iter().map(|end| end.stages.snapshot()).collect();
        let stages = self.candidate.pipeline().stages().enumerate().map(|(n, (name, shared))| {
            let sum = |of: fn(&crate::path::StageSnapshot) -> u64| {
                snapshots.iter().filter_map(|worker| worker.stages.get(n)).map(of).sum()
            };
            let counts = shared.counts().into_iter().filter(|(_, n)| *n > 0);
            Judged {
                stage: name.to_owned(),
                seen: sum(|stage| stage.seen),
                dropped: sum(|stage| stage.dropped),
                forwarded: sum(|stage| stage.forwarded),
                panics: sum(|stage| stage.panics),
                counts: counts.map(|(label, n)| (label, json!(n))).collect(),
            }
        });
        ShadowStatus {
            file: plan.file.clone(),
            policy: plan.policy.clone(),
            seconds: self.since.elapsed().as_secs(),
            bytes: self.bytes,
            packets: named(&Totals::PACKETS, &totals.packets),
            flows: named(&Totals::FLOWS, &totals.flows),
            would_drop: by_reason(0),
            would_pass: by_reason(1),
            stages: stages.collect(),
            examples: self.latest.iter().cloned().collect(),
            behind,
        }
    }

    /// What workers have given since the last call.
    pub fn examples(&mut self, running: &Pipeline, clock: &Clock) -> Vec<Value> {
        let now = Moment::now(clock);
        let mut records = Vec::new();
        for end in self.candidate.ends() {
            while let Some(example) = end.example() {
                records.push(self.record(&example, running, now));
            }
        }
        for record in &records {
            self.latest.push_back(record.clone());
            if self.latest.len() > LATEST {
                self.latest.pop_front();
            }
        }
        records
    }

    fn record(&self, example: &Example, running: &Pipeline, now: Moment) -> Value {
        let plan = self.candidate.plan();
        let [was, would] = example.verdicts;
        let says = |verdict: Verdict, pipeline: &Pipeline| {
            let mut says = json!({ "verdict": if verdict.reason.is_some() { "drop" } else { "pass" } });
            let label = verdict.reason.map(|reason| plan.reasons.label(reason));
            if let Some(label) = label {
                says["reason"] = label.into();
            }
            if let Some((stage, rule)) = pipeline.rule(label, verdict.rule) {
                says["stage"] = stage.into();
                if let Some(rule) = rule {
                    says["rule"] = rule.into();
                }
            }
            says
        };
        let difference = if would.reason.is_some() { "would_drop" } else { "would_pass" };
        let shadow = json!({
            "difference": difference,
            "policy": plan.policy,
            "active": says(was, running),
            "candidate": says(would, self.candidate.pipeline()),
            "skipped": example.skipped,
        });
        let mut record = record_of(Type::Shadow, now.wall_of(example.at), shadow);
        if let (Some(record), Value::Object(about)) =
            (record.as_object_mut(), about_json(&example.about, plan))
        {
            record.extend(about);
        }
        record
    }
}
