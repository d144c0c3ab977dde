//! What the demo shows while it runs: a live table on a terminal, a line a second elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{ColumnConstraint, Table, Width};

use super::super::show::{self, say};
use super::flows;
use crate::app::{RunningApp, Snapshot};
use crate::packet::DropReason;
use crate::traffic::Report;

/// Between two looks at the figures on a terminal.
const TERMINAL: Duration = Duration::from_millis(250);
/// Between two lines elsewhere.
const LINES: Duration = Duration::from_secs(1);
/// Columns of a terminal on which no row of the table needs two lines.
const NARROWEST: u16 = 80;

/// Where figures appear.
pub struct Screen {
    kind: Kind,
    next: Instant,
    before: Option<(Snapshot, Vec<Hop>)>,
    height: usize,
    /// Figures of flows, too.
    flows: bool,
}

enum Kind {
    Terminal,
    Lines,
    Json,
}

/// A row of the live table.
struct Hop {
    name: String,
    /// Frames that left it for the next.
    out: u64,
    /// Frames that ended here.
    dropped: u64,
}

impl Screen {
    /// A table if standard output is a terminal that can show it.
    pub fn new(json: bool, flows: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let wide = Table::new().width().is_some_and(|columns| columns >= NARROWEST);
        let kind = match (json, std::io::stdout().is_terminal() && wide && !dumb) {
            (true, _) => Kind::Json,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Lines,
        };
        Screen { kind, next: Instant::now(), before: None, height: 0, flows }
    }

    /// Shows the figures if it is time to.
    pub fn update(&mut self, app: &RunningApp, sent: u64, found: &Report) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + if matches!(self.kind, Kind::Terminal) { TERMINAL } else { LINES };
        let snapshot = app.snapshot();
        let stages = app.plan().stages.iter().map(|stage| stage.name.as_str());
        let hops = hops(&snapshot, stages, sent, found);
        if let Some((before, old)) = &self.before {
            match self.kind {
                Kind::Json => show::interval(before, &snapshot, true),
                Kind::Lines => {
                    show::interval(before, &snapshot, false);
                    say!("          {}", checked(sent, found));
                    if self.flows {
                        say!("          {}", flows::line(&snapshot));
                    }
                }
                Kind::Terminal => {
                    let mut text = table(before, &snapshot, old, &hops);
                    if self.flows {
                        text += &format!("\n {}", flows::line(&snapshot));
                    }
                    let up =
                        if self.height > 0 { format!("\x1b[{}A\x1b[J", self.height) } else { String::new() };
                    self.height = text.lines().count();
                    // Not through anstream: where colour is not wanted it takes the cursor's movements away too.
                    let _ = writeln!(std::io::stdout(), "{up}{text}");
                }
            }
        }
        self.before = Some((snapshot, hops));
    }

    /// Leaves the last table standing.
    pub fn done(&mut self) {
        self.height = 0;
    }
}

/// The way of the frames, from the source through the hops to the checker.
fn hops<'a>(now: &Snapshot, stages: impl Iterator<Item = &'a str>, sent: u64, found: &Report) -> Vec<Hop> {
    let (ledger, drops) = (now.ledger(), now.drops());
    let at = |hop: &str| {
        let here = DropReason::ALL.iter().zip(&drops).filter(|(reason, _)| reason.hop() == hop);
        here.map(|(_, n)| n).sum::<u64>()
    };
    let hop = |name: &str, out: u64, dropped: u64| Hop { name: name.into(), out, dropped };
    let opened = ledger.received.saturating_sub(at("rx") + at("decap") + ledger.punted);
    let mut hops = vec![
        hop("load balancer", sent, 0),
        hop("  rx", ledger.received.saturating_sub(at("rx")), at("rx")),
        hop("  decap", opened, at("decap")),
    ];
    for (name, total) in stages.zip(now.stage_totals()) {
        hops.push(hop(
            &format!("  inspect: {name}"),
            total.seen.saturating_sub(total.dropped),
            total.dropped,
        ));
    }
    hops.push(hop("  encap", ledger.sent + at("tx"), at("encap")));
    hops.push(hop("  tx", ledger.sent, at("tx")));
    hops.push(hop("back, every byte right", found.good, found.wrong()));
    hops
}

fn table(before: &Snapshot, now: &Snapshot, old: &[Hop], new: &[Hop]) -> String {
    let seconds = (now.elapsed - before.elapsed).as_secs_f64().max(1e-9);
    let mut table = show::table(&["hop", "frames", "now", "dropped"]);
    show::align_right(&mut table, &[1, 2, 3]);
    for (n, (hop, was)) in new.iter().zip(old).enumerate() {
        let rate = show::si(hop.out.saturating_sub(was.out) as f64 / seconds);
        let ended = show::grouped(hop.dropped);
        // The checker drops nothing: what came back wrong is a fault.
        let ended = if n + 1 == new.len() { format!("{ended} wrong") } else { ended };
        table.add_row([&hop.name, &show::grouped(hop.out), &format!("{rate}pps"), &ended]);
    }
    // Wide enough from the start: columns that move with their figures cannot be read.
    for (n, width) in [26, 15, 13, 15].into_iter().enumerate() {
        if let Some(column) = table.column_mut(n) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
    }
    let bytes = |s: &Snapshot| s.workers.iter().map(|w| w.received_bytes).sum::<u64>();
    let bits = show::si(bytes(now).saturating_sub(bytes(before)) as f64 * 8.0 / seconds);
    format!("{table}\n {:.0} s   {bits}bit/s   {}", now.elapsed.as_secs_f64(), busy(before, now))
}

fn checked(sent: u64, found: &Report) -> String {
    let (good, wrong) = (show::grouped(found.good), found.wrong());
    format!("sent {}, returned right {good}, wrong {wrong}", show::grouped(sent))
}

/// Cycles of a frame in the worker's busy polls.
fn busy(before: &Snapshot, now: &Snapshot) -> String {
    let sum = |s: &Snapshot| s.workers.iter().fold((0, 0), |(c, r), w| (c + w.busy_cycles, r + w.received));
    let ((c0, r0), (c1, r1)) = (sum(before), sum(now));
    match r1.saturating_sub(r0) {
        0 => String::new(),
        frames => format!("{} cycles a frame in the worker", c1.saturating_sub(c0) / frames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ReasonTable;
    use crate::path::WorkerCounters;
    use crate::stage::WorkerId;

    /// What leaves one hop and does not end at the next leaves that one, whatever happened to the frames.
    #[test]
    fn every_hop_hands_on_what_it_did_not_keep() {
        let mut reasons = ReasonTable::framework();
        let deny = reasons.add("wall", &[("deny", "")]);
        let counters = WorkerCounters::new(WorkerId(0), &reasons, 1);
        counters.received.add(100);
        counters.punted.add(1);
        counters.sent.add(70);
        for (reason, n) in [
            (DropReason::Chained, 2),
            (DropReason::GeneveVersion, 3),
            (DropReason::TooBig, 4),
            (DropReason::TxFull, 5),
        ] {
            counters.drop(reason.into(), n);
        }
        counters.drop(deny[0], 15);
        counters.stages()[0].seen.add(94);
        counters.stages()[0].dropped.add(15);
        let snapshot = Snapshot {
            elapsed: Duration::from_secs(1),
            workers: vec![counters.snapshot()],
            ports: Vec::new(),
            stages: Vec::new(),
        };
        let hops = hops(&snapshot, ["wall"].into_iter(), 100, &Report { good: 70, ..Report::default() });
        let rows: Vec<_> = hops.iter().map(|hop| (hop.name.trim(), hop.out, hop.dropped)).collect();
        let expected = [
            ("load balancer", 100, 0),
            ("rx", 98, 2),
            ("decap", 94, 3),
            ("inspect: wall", 79, 15),
            ("encap", 75, 4),
            ("tx", 70, 5),
            ("back, every byte right", 70, 0),
        ];
        assert_eq!(rows, expected);
    }
}
