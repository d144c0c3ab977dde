//! Medians, ratios and the tables that show them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::live::Window;
use crate::machine::Machine;

/// The windows of one program on one capture, in millions of packets per second.
#[derive(Clone, Debug)]
pub struct Row {
    /// What ran.
    pub program: String,
    /// One rate per window, in the order in which they were taken: packets in the time for which the lcore had its core.
    pub mpps: Vec<f64>,
    /// The share of each window for which it had it: 1 unless something else ran on that core.
    pub shares: Vec<f64>,
    /// Nanoseconds of a cache line's way to the other CPU and back, right behind each window: of two workers only.
    pub round_trips: Vec<f64>,
    /// Packets taken from the port in all windows.
    pub received: u64,
    /// Packets given to it.
    pub sent: u64,
}

impl Row {
    /// No windows yet.
    pub fn new(program: &str) -> Row {
        let (mpps, shares, round_trips) = (Vec::new(), Vec::new(), Vec::new());
        Row { program: program.into(), mpps, shares, round_trips, received: 0, sent: 0 }
    }

    /// One more window.
    pub fn add(&mut self, window: &Window) {
        self.mpps.push(window.received as f64 / (window.nanos as f64 * window.share) * 1e3);
        self.shares.push(window.least_share);
        self.received += window.received;
        self.sent += window.sent;
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.mpps.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle window.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }

    /// In percent.
    fn least_share(&self) -> f64 {
        self.shares.iter().copied().fold(1.0, f64::min) * 100.0
    }

    fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted.first().copied().unwrap_or(0.0), sorted.last().copied().unwrap_or(0.0))
    }
}

/// Of one program to another, over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The worst round.
    pub least: f64,
    /// The best.
    pub most: f64,
}

/// All programs on one capture.
#[derive(Clone, Debug)]
pub struct Table {
    /// The capture: `64 B, 1k frames`.
    pub capture: String,
    /// What is in it, where that has to be said.
    pub note: Option<String>,
    /// In the order of the cases.
    pub rows: Vec<Row>,
    /// Mean bytes of a frame.
    pub frame: f64,
}

impl Table {
    /// One program to another: the median of the ratios of each round, whose windows lie side by side.
    pub fn ratio(&self, program: &str, to: &str) -> Option<Ratio> {
        let row = |name: &str| self.rows.iter().find(|r| r.program == name);
        let rounds = row(program)?.mpps.iter().zip(&row(to)?.mpps);
        let mut ratios: Vec<f64> = rounds.filter(|(_, to)| **to > 0.0).map(|(own, to)| own / to).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |n: usize| ratios.get(n).copied();
        let (least, most) = (at(0)?, at(ratios.len() - 1)?);
        Some(Ratio { median: at(ratios.len() / 2)?, least, most })
    }

    fn median(&self, program: &str) -> Option<f64> {
        self.rows.iter().find(|r| r.program == program).map(Row::median).filter(|m| *m > 0.0)
    }

    /// Two rows of ours compared with the first, which is one worker.
    fn workers_markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.capture);
        text += "| program | Mpps median | min | max | of one worker | min | max | core | round trip, ns |\n";
        text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
        for row in &self.rows {
            let (median, (least, most), core) = (row.median(), row.range(), row.least_share());
            let of = self.ratio(&row.program, ONE_WORKER).map_or_else(
                || "- | - | -".into(),
                |r| format!("{:.2} | {:.2} | {:.2}", r.median, r.least, r.most),
            );
            let mut trips = row.round_trips.clone();
            trips.sort_by(f64::total_cmp);
            let (nearest, farthest) = (trips.first().unwrap_or(&0.0), trips.last().unwrap_or(&0.0));
            let _ = writeln!(
                text,
                "| {} | {median:.2} | {least:.2} | {most:.2} | {of} | {core:.0} % | {nearest:.0} to {farthest:.0} |",
                row.program
            );
        }
        text
    }

    /// One row of ours compared with the first, which nobody watches.
    fn watched_markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.capture);
        text += "| program | Mpps median | min | max | of the first | min | max | core |\n|---|--:|--:|--:|--:|--:|--:|--:|\n";
        for row in &self.rows {
            let (median, (least, most), core) = (row.median(), row.range(), row.least_share());
            let of = self.ratio(&row.program, UNWATCHED).map_or_else(
                || "- | - | -".into(),
                |r| format!("{:.3} | {:.3} | {:.3}", r.median, r.least, r.most),
            );
            let _ = writeln!(
                text,
                "| {} | {median:.2} | {least:.2} | {most:.2} | {of} | {core:.0} % |",
                row.program
            );
        }
        text
    }

    /// As Markdown, which reads well on a terminal too.
    pub fn markdown(&self, machine: &Machine) -> String {
        match self.capture.as_str() {
            WORKERS => return self.workers_markdown(),
            WATCHING => return self.watched_markdown(),
            _ => {}
        }
        let mut text = format!("### {}\n\n", self.capture);
        if let Some(note) = &self.note {
            let _ = writeln!(text, "{note}\n");
        }
        text += "| program | Mpps median | min | max | Gbit/s | cycles | net of io | of io | of 5tswap | core |\n";
        text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
        let cycles = |mpps: f64| machine.tsc_hz / (mpps * 1e6);
        let io = self.median(IO).map_or(0.0, cycles);
        for row in &self.rows {
            let (median, (least, most)) = (row.median(), row.range());
            let own = cycles(median);
            let of = |peer| {
                self.ratio(&row.program, peer).map_or_else(|| "-".into(), |r| format!("{:.2}", r.median))
            };
            let _ = writeln!(
                text,
                "| {} | {median:.2} | {least:.2} | {most:.2} | {:.1} | {own:.0} | {:.0} | {} | {} | {:.0} % |",
                row.program,
                median * self.frame * 8.0 / 1e3,
                own - io,
                of(IO),
                of(SWAP),
                row.least_share(),
            );
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|r| json!({ "program": r.program, "mpps": r.mpps, "core_share": r.shares, "round_trip_ns": r.round_trips }))
            .collect();
        json!({ "capture": self.capture, "note": self.note, "rows": rows })
    }
}

/// Names of the rows that others are compared with.
pub const IO: &str = "testpmd io";
pub const SWAP: &str = "testpmd 5tswap";
pub const CSUM: &str = "testpmd csum parse-tunnel";
pub const PASSTHROUGH: &str = "sluicegate passthrough";
pub const FLOWS: &str = "sluicegate flows acl 1000";
pub const ACL_1000: &str = "sluicegate acl 1000";
pub const TRACKING: &str = "sluicegate tracking";
pub const PROTOCOLS: &str = "sluicegate appid, tls, http, dns";
/// The table of `workers.rs` and its rows.
pub const WORKERS: &str = "two workers, 64 B, 1k flows each";
pub const ONE_WORKER: &str = "one worker";
pub const TWO_WORKERS: &str = "two workers";
/// The table of `gateway.rs` and its row.
pub const FORWARDING: &str = "gateway, 64 B, 64k flows";
pub const GATEWAY: &str = "sluicegate gateway, both directions";
/// The table of `watched.rs` and its rows.
pub const WATCHING: &str = "watched, 64 B, 1M flows";
pub const UNWATCHED: &str = "nobody watches";
pub const WATCHED: &str = "scraped each second, top and flows open";
pub const MISALIGNED: &str = "two workers, half of the flows misaligned";

/// One promise: capture, program, peer, least ratio.
type Target = (&'static str, &'static str, &'static str, f64);

/// What we hold ourselves to.
const TARGETS: [Target; 12] = [
    ("64 B, 1k frames", PASSTHROUGH, SWAP, 0.65),
    ("64 B, 1k frames", PASSTHROUGH, CSUM, 2.0),
    ("64 B, 1k frames", ACL_1000, SWAP, 0.3),
    ("1400 B, 1k frames", PASSTHROUGH, IO, 0.8),
    ("64 B, 1k frames", FLOWS, IO, 0.42),
    ("64 B, 64k frames", FLOWS, IO, 0.30),
    ("64 B, 1M frames", FLOWS, IO, 0.42),
    (WORKERS, TWO_WORKERS, ONE_WORKER, 1.8),
    (WORKERS, MISALIGNED, ONE_WORKER, 1.3),
    (WATCHING, WATCHED, UNWATCHED, 0.97),
    (FORWARDING, GATEWAY, IO, 0.25),
    // 4 Mpps where io takes 15: appid, tls, http and dns over connections that are all new.
    (crate::connections::NAME, PROTOCOLS, IO, 0.27),
];

/// The promises and what became of them; captures that were not run are left out.
pub fn targets(tables: &[Table]) -> String {
    let mut text = String::from(
        "### Targets\n\n| capture | ratio | least | found | rounds | |\n|---|---|--:|--:|--:|---|\n",
    );
    for (capture, program, peer, least) in TARGETS {
        let found = tables.iter().find(|t| t.capture == capture).and_then(|t| t.ratio(program, peer));
        if let Some(Ratio { median: found, least: worst, most: best }) = found {
            let word = if found >= least { "met" } else { "MISSED" };
            let _ = writeln!(
                text,
                "| {capture} | {program} / {peer} | {least:.2} | {found:.2} | {worst:.2} to {best:.2} | {word} |"
            );
        }
    }
    text
}

/// What must stand beside the numbers.
pub fn heading(machine: &Machine, windows: usize, seconds: f64) -> String {
    let mut text = String::from("# One lcore, side by side\n\n");
    for (name, value) in &machine.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(
        text,
        "- clock: TSC at {:.0} MHz; \"cycles\" are its ticks per packet",
        machine.tsc_hz / 1e6
    );
    let _ = writeln!(
        text,
        "- method: {windows} windows of {seconds} s per row. All programs of a table are alive together on one core, all \
         but one stopped by SIGSTOP; windows go round robin, so that a noisy minute hits every row. net_pcap with \
         infinite_rx=1, TX dropped by the driver, 512 descriptors, burst 32, 2176-byte buffers. Rates are packets in \
         the time for which the forwarding lcore had its core; \"core\" is the least share of a window for which it did. \
         \"of io\" and \"of 5tswap\" are medians of the ratios of single rounds."
    );
    let _ = writeln!(
        text,
        "- limits: net_pcap copies each frame just before it hands it over, so headers are warm in the cache; every \
         frame is another flow and none repeats within a lap, but laps go in the order in which flows were opened. Compare rows \
         of one table only."
    );
    let _ = writeln!(
        text,
        "- sluicegate: verify_checksum = auto; this driver does not say whether a checksum is right, so none is computed. \
         Profile aws, one allowed subnet, ledger and verdicts checked after every row. \"acl n\" asks n rules for every packet \
         (stateful = false); \"flows acl n\" follows flows, asks n rules once for each, and is measured when all are settled: \
         flow.capacity is the number of frames, tables on ordinary memory with madvise(MADV_HUGEPAGE)."
    );
    let _ = writeln!(
        text,
        "- two workers: the \"flows acl 1000\" pipeline over net_pcap with {} queues for each worker, a capture for each of them, in which every flow comes \
         along twice a lap; flow.capacity is twice the number of flows. One worker has CPU {} for itself, the second shares CPU {} \
         with the manager. Rates are packets in the mean time for which both had their CPUs, \"core\" is the least. Misaligned flows have every other \
         frame on the queue of a worker that does not own them: a quarter of all packets is handed over, which is checked. \
         \"round trip\": the time of a cache line from one CPU to the other and back, right after each window: tens of ns where they share a cache, hundreds where they do not, which the host decides.",
        crate::workers::QUEUES,
        machine.worker_cpu,
        machine.main_cpu
    );
    let _ = writeln!(
        text,
        "- watched: the \"flows acl 1000\" pipeline twice, with a listener and an admin socket. In the windows of one of them its figures are scraped each second, and \
         `top` (on a terminal of 200x60) and `flows --watch --sort bytes` (a walk over all flows each second) are open, on the manager's CPU; each is checked to have shown something.\n"
    );
    text
}

/// Everything as JSON, raw windows included.
pub fn json(machine: &Machine, seconds: f64, tables: &[Table]) -> Value {
    let facts: serde_json::Map<_, _> =
        machine.facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let tables: Vec<_> = tables.iter().map(Table::json).collect();
    json!({ "machine": facts, "tsc_hz": machine.tsc_hz, "window_seconds": seconds, "tables": tables })
}
