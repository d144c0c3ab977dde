//! What the demo shows while it runs: a live table on a terminal, a line a second elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::show::{self, say};
use crate::app::{RunningApp, Snapshot};
use crate::traffic::Report;

/// Between two looks at the figures on a terminal.
const TERMINAL: Duration = Duration::from_millis(250);
/// Between two lines elsewhere.
const LINES: Duration = Duration::from_secs(1);

/// Where figures appear.
pub struct Screen {
    kind: Kind,
    next: Instant,
    before: Option<Snapshot>,
    height: usize,
}

enum Kind {
    Terminal,
    Lines,
    Json,
}

impl Screen {
    /// A table if standard output is a terminal.
    pub fn new(json: bool) -> Self {
        let kind = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Kind::Json,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Lines,
        };
        Screen { kind, next: Instant::now(), before: None, height: 0 }
    }

    /// Shows the figures if it is time to.
    pub fn update(&mut self, app: &RunningApp, sent: u64, found: &Report) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + if matches!(self.kind, Kind::Terminal) { TERMINAL } else { LINES };
        let snapshot = app.snapshot();
        if let Some(before) = &self.before {
            match self.kind {
                Kind::Json => show::interval(before, &snapshot, true),
                Kind::Lines => {
                    show::interval(before, &snapshot, false);
                    say!("          {}", checked(sent, found));
                }
                Kind::Terminal => self.table(before.clone(), &snapshot, app, sent, found),
            }
        } else if matches!(self.kind, Kind::Json) {
            say!("{}", json!({ "event": "demo", "time_ns": show::unix_nanos() }));
        }
        self.before = Some(snapshot);
    }

    /// Leaves the last table standing.
    pub fn done(&mut self) {
        self.height = 0;
    }

    fn table(&mut self, before: Snapshot, now: &Snapshot, app: &RunningApp, sent: u64, found: &Report) {
        let seconds = (now.elapsed - before.elapsed).as_secs_f64().max(1e-9);
        let (old, new) = (before.ledger(), now.ledger());
        let rate = |a: u64, b: u64| format!("{}pps", show::si(b.saturating_sub(a) as f64 / seconds));
        let mut table = show::table(&["hop", "frames", "now", ""]);
        show::align_right(&mut table, &[1, 2]);
        let mut row = |hop: &str, n: u64, before: u64, note: String| {
            table.add_row([hop.to_owned(), show::grouped(n), rate(before, n), note]);
        };
        row("rx", new.received, old.received, checked(sent, found));
        for (stage, (s, b)) in
            app.plan().stages.iter().zip(now.stage_totals().iter().zip(before.stage_totals().iter()))
        {
            let note = format!("passed on {}", show::grouped(s.passed_on()));
            row(&format!("inspect: {} drops", stage.name), s.dropped, b.dropped, note);
        }
        row("tx", new.sent, old.sent, busy(&before, now));
        row("dropped, all reasons", new.dropped, old.dropped, String::new());
        let text = table.to_string();
        let up = if self.height > 0 { format!("\x1b[{}A\x1b[J", self.height) } else { String::new() };
        self.height = text.lines().count();
        say!("{up}{text}");
    }
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
