//! What people and scripts read: lines while it runs, tables at the end, JSON on request.

use std::fmt::{Arguments, Display};
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::json;

use super::Failure;
use crate::app::{Reloaded, Report, RunningApp, Snapshot};
use crate::dpdk::PortFacts;
use crate::mgmt::{Draining, Flip};

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
/// Rules above, below and under the header, none between rows.
const RULES: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// One line for whoever watches. Packets do not wait for a reader: a closed pipe or a full disk is no reason to stop.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::show::line(format_args!($($text)*)) };
}
pub(super) use say;

/// See [`say`].
pub fn line(text: Arguments<'_>) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// The answer of a command whose output is all it does: it must arrive, unless the reader has seen enough.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// One error on standard error.
pub fn error(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{RED}error{RED:#}: {text}");
}

/// Warnings on standard error.
pub fn warnings<T: Display>(texts: impl IntoIterator<Item = T>) {
    for text in texts {
        let _ = writeln!(anstream::stderr(), "{YELLOW}warning{YELLOW:#}: {text}");
    }
}

/// An empty table with this header.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(RULES).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// Right-aligns columns of figures.
pub fn align_right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// `1234567` -> `1 234 567`, readable in every locale.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

/// `12345678.0` -> `12.3 M`.
pub fn si(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e3 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0} "),
    }
}

/// What is in effect, once everything is up.
pub fn started(app: &RunningApp, json: bool) {
    let facts: Vec<&PortFacts> = app.ports().iter().map(|p| p.facts()).collect();
    let notes: Vec<String> = app.notes().collect();
    if json {
        let line = json!({
            "event": "started", "time_ns": unix_nanos(), "file": app.plan().file, "memory": memory_json(app),
            "workers": app.plan().workers.len(), "ports": facts, "notes": notes,
        });
        say!("{line}");
        return;
    }
    let plan = app.plan();
    say!("sluicegate {} running {}", env!("CARGO_PKG_VERSION"), plan.file);
    if let Some(memory) = memory(app) {
        say!("memory   {memory}");
    }
    say!("pool     {} buffers of {} B", app.pool().capacity(), app.pool().data_room());
    for facts in facts {
        port(facts);
    }
    let cpus: Vec<_> = plan.workers.iter().map(|w| format!("{}@cpu{}", w.id.0, w.lcore.cpu)).collect();
    say!("workers  {}", cpus.join(" "));
    let stages: Vec<_> = plan.stages.iter().map(|s| s.name.as_str()).collect();
    let stages = if stages.is_empty() { "none: passthrough".into() } else { stages.join(" -> ") };
    say!("stages   {stages}");
    warnings(notes);
}

/// The same of a gateway.
#[cfg(feature = "dpdk")]
pub fn gateway_started(gateway: &crate::app::RunningGateway, json: bool) {
    let facts: Vec<&PortFacts> = gateway.ports().iter().map(|port| port.facts()).collect();
    let plan = gateway.plan();
    let memory = match gateway.host() {
        crate::app::Host::Eal(eal) => Some(eal.memory().sentence.clone()),
        crate::app::Host::Threads => None,
    };
    if json {
        let line = json!({
            "event": "started", "time_ns": unix_nanos(), "file": plan.file, "memory": memory, "workers": plan.workers.len(),
            "ports": facts, "notes": gateway.notes(), "endpoints": plan.endpoints.len(), "targets": plan.targets.len(),
        });
        say!("{line}");
        return;
    }
    say!("sluicegate {} running the gateway of {}", env!("CARGO_PKG_VERSION"), plan.file);
    if let Some(memory) = memory {
        say!("memory   {memory}");
    }
    say!("pool     {} buffers of {} B", gateway.pool().capacity(), gateway.pool().data_room());
    for facts in facts {
        port(facts);
    }
    let healthy =
        gateway.targets().iter().filter(|target| target.state == crate::gateway::State::Healthy).count();
    say!(
        "gateway  {}, {} endpoints, {healthy} of {} targets healthy",
        plan.address.addr(),
        plan.endpoints.len(),
        plan.targets.len()
    );
    warnings(gateway.notes());
}

fn port(facts: &PortFacts) {
    let mac = facts.mac.map(|b| format!("{b:02x}")).join(":");
    let offload = match (facts.rx_ip_checksum, facts.rx_udp_checksum) {
        (true, true) => "IPv4 and UDP checksums verified by the driver",
        (true, false) => "IPv4 checksums verified by the driver, UDP not",
        (false, true) => "UDP checksums verified by the driver, IPv4 in software",
        (false, false) => "no checksum offload: UDP checksums unknown to the driver",
    };
    say!(
        "port {}   {} ({}), {mac}, MTU {}, {} of {} queues, rings {}/{}",
        facts.id,
        facts.device,
        facts.driver,
        facts.mtu,
        facts.queues,
        facts.max_queues,
        facts.rx_descriptors,
        facts.tx_descriptors
    );
    say!("         {offload}");
    say!("         RSS: {}", rss(facts));
}

fn rss(facts: &PortFacts) -> String {
    let rss = &facts.rss;
    if rss.functions.is_empty() {
        return "none, every frame arrives on queue 0".into();
    }
    let key = rss.key.as_ref().map_or("not told by the driver".into(), |k| {
        k.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>() + &format!("... ({} B)", k.len())
    });
    let reta = rss.reta.as_ref().map_or("not told".into(), |reta| {
        let unhashed = reta.first().copied().unwrap_or(0);
        format!("{} entries, frames without a hash go to queue {unhashed}", reta.len())
    });
    let hash = if rss.hash_delivered { "delivered with frames" } else { "not delivered with frames" };
    format!("{} of the outer header; key {key}; table {reta}; hash {hash}", rss.functions.join(" "))
}

#[cfg(feature = "dpdk")]
fn memory(app: &RunningApp) -> Option<String> {
    match app.host() {
        crate::app::Host::Eal(eal) => Some(eal.memory().sentence.clone()),
        crate::app::Host::Threads => None,
    }
}

#[cfg(not(feature = "dpdk"))]
fn memory(_app: &RunningApp) -> Option<String> {
    None
}

fn memory_json(app: &RunningApp) -> serde_json::Value {
    memory(app).map_or(serde_json::Value::Null, serde_json::Value::String)
}

/// What ports said of themselves.
pub fn events(said: &[String]) {
    for text in said {
        say!("{}", json!({ "event": "port", "time_ns": unix_nanos(), "text": text }));
    }
}

/// The state of health has changed.
pub fn flip(flip: &Flip) {
    let line = json!({
        "event": "health", "time_ns": unix_nanos(), "from": flip.from, "to": flip.to, "reasons": flip.reasons,
    });
    say!("{line}");
}

/// What became of a reload.
pub fn reloaded(reloaded: &Reloaded) {
    let mut line = json!({ "event": "reload", "time_ns": unix_nanos() });
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(reloaded) {
        fields.into_iter().for_each(|(key, value)| line[key] = value);
    }
    say!("{line}");
}

/// How far leaving has come.
pub fn drain(drain: Draining) {
    let mut line = json!({ "event": "drain", "time_ns": unix_nanos() });
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(drain) {
        fields.into_iter().for_each(|(key, value)| line[key] = value);
    }
    say!("{line}");
}

/// The same in a sentence.
pub fn drained(drain: Draining) -> String {
    let left = |flows: Option<u64>| {
        flows.map_or("flows are not followed".into(), |n| format!("{} flows", grouped(n)))
    };
    match drain {
        Draining::Going { flows } => format!("draining: {} left", left(flows)),
        Draining::Done => "drained: nothing is left".into(),
        Draining::Deadline { flows } => format!("the deadline has passed; cut: {}", left(flows)),
    }
}

/// Figures of one interval.
pub fn interval(before: &Snapshot, now: &Snapshot, json: bool) {
    let (old, new) = (before.ledger(), now.ledger());
    if json {
        let line = json!({
            "event": "stats", "time_ns": unix_nanos(), "elapsed_ns": now.elapsed.as_nanos() as u64,
            "received": new.received, "sent": new.sent, "punted": new.punted, "dropped": new.dropped,
            "workers": now.workers, "ports": now.ports,
        });
        say!("{line}");
        return;
    }
    let seconds = (now.elapsed - before.elapsed).as_secs_f64().max(1e-9);
    let bytes = |s: &Snapshot| s.workers.iter().map(|w| w.received_bytes).sum::<u64>();
    let lost = |s: &Snapshot| s.ports.iter().map(|p| p.stats.rx_missed + p.stats.rx_no_buffer).sum::<u64>();
    say!(
        "{:>6.0} s  in {}pps {}bit/s  out {}pps  dropped {}/s  punted {}/s  lost by driver {}/s",
        now.elapsed.as_secs_f64(),
        si((new.received - old.received) as f64 / seconds),
        si((bytes(now) - bytes(before)) as f64 * 8.0 / seconds),
        si((new.sent - old.sent) as f64 / seconds),
        si((new.dropped - old.dropped) as f64 / seconds),
        si((new.punted - old.punted) as f64 / seconds),
        si(lost(now).saturating_sub(lost(before)) as f64 / seconds),
    );
}

/// The account at the end.
pub fn report(report: &Report, json: bool) {
    let ledger = report.snapshot.ledger();
    if json {
        let drops: Vec<_> =
            report.drops().iter().map(|(label, _, n)| json!({ "reason": label, "packets": n })).collect();
        let line = json!({
            "event": "stopped", "time_ns": unix_nanos(), "ledger": ledger, "balances": ledger.balances(),
            "drops": drops, "stages": stages_json(report), "workers": report.snapshot.workers,
            "flows": super::flows::account_json(&report.snapshot), "ports": report.snapshot.ports, "xstats": xstats_json(report), "sinks": report.sinks, "buffers_out": report.buffers_out, "failures": report.failures,
        });
        say!("{line}");
        return;
    }
    let seconds = report.snapshot.elapsed.as_secs_f64();
    say!("\nstopped after {seconds:.1} s");
    stages(report);
    drops(report);
    super::flows::account(&report.snapshot);
    for port in &report.snapshot.ports {
        let s = &port.stats;
        say!(
            "port {} ({}): driver received {}, sent {}, lost {} missed + {} without buffer, {} receive and {} send errors",
            port.id,
            port.device,
            grouped(s.rx_packets),
            grouped(s.tx_packets),
            grouped(s.rx_missed),
            grouped(s.rx_no_buffer),
            grouped(s.rx_errors),
            grouped(s.tx_errors)
        );
    }
    trouble(report);
    say!("ledger: {ledger}");
    if report.buffers_out > 0 {
        say!("{} buffers are still with a driver", report.buffers_out);
    }
    sinks(report);
    warnings(&report.complaints);
    for failure in &report.failures {
        error(failure);
    }
}

/// What became of events, where some are missing.
fn sinks(report: &Report) {
    let workers = &report.snapshot.workers;
    let rings: u64 = workers.iter().map(|w| w.events.lost.iter().sum::<u64>() + w.flows.events_lost).sum();
    if rings > 0 {
        say!("events: {} lost at workers, whose rings were full", grouped(rings));
    }
    for sink in &report.sinks {
        let written: u64 = sink.written.iter().sum();
        let lost = sink.all_lost();
        say!(
            "events to {}: {} written, {} lost, {} errors",
            sink.name,
            grouped(written),
            grouped(lost),
            grouped(sink.errors)
        );
    }
}

/// The drivers' own counters that speak of loss, by the names that drivers use for it (ENA's `*_allowance_exceeded` among
/// them); all of them are in the JSON.
fn trouble(report: &Report) {
    const WORDS: [&str; 7] = ["exceeded", "error", "drop", "miss", "bad", "fail", "nombuf"];
    for (port, xstats) in &report.xstats {
        for (name, n) in xstats.iter().filter(|(name, _)| WORDS.iter().any(|word| name.contains(word))) {
            say!("port {port}: driver's {name} {}", grouped(*n));
        }
    }
}

fn xstats_json(report: &Report) -> serde_json::Value {
    let of_port = |xstats: &Vec<(String, u64)>| {
        xstats.iter().map(|(name, n)| (name.clone(), (*n).into())).collect::<serde_json::Map<_, _>>()
    };
    report.xstats.iter().map(|(port, xstats)| json!({ "port": port, "counters": of_port(xstats) })).collect()
}

/// What each stage did.
pub fn stages(report: &Report) {
    let totals = report.snapshot.stage_totals();
    if totals.is_empty() {
        return;
    }
    let mut heads = vec!["stage", "seen", "passed on", "sent home", "dropped", "panics"];
    // Of stages in shadow mode, where there are any.
    let shadow = totals.iter().any(|s| s.would_drop + s.would_send_home > 0);
    heads.extend(shadow.then_some(["would drop", "would send home"]).into_iter().flatten());
    let mut table = table(&heads);
    align_right(&mut table, &(1..heads.len()).collect::<Vec<_>>());
    for (name, s) in report.names.iter().zip(totals) {
        let passed = s.passed_on();
        let row = [s.seen, passed, s.forwarded, s.dropped, s.panics].map(grouped);
        let would = [s.would_drop, s.would_send_home].map(grouped);
        let would = would.into_iter().filter(|_| shadow);
        table.add_row(std::iter::once(name.clone()).chain(row).chain(would));
    }
    say!("{table}");
}

/// Why packets died.
pub fn drops(report: &Report) {
    let drops = report.drops();
    if drops.is_empty() {
        return;
    }
    let mut table = table(&["dropped as", "packets", "meaning"]);
    align_right(&mut table, &[1]);
    for (label, help, n) in drops {
        table.add_row([label, &grouped(n), help]);
    }
    say!("{table}");
}

/// Stages with their verdicts and own counters.
pub fn stages_json(report: &Report) -> serde_json::Value {
    let totals = report.snapshot.stage_totals();
    let rows = report.names.iter().zip(totals).zip(&report.snapshot.stages).map(|((name, total), counts)| {
        let counts: Vec<_> = counts.iter().map(|(label, n)| json!({ "label": label, "hits": n })).collect();
        json!({ "name": name, "totals": total, "counts": counts })
    });
    rows.collect()
}

/// Wall-clock time for log lines.
pub fn unix_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(12_345_678)],
            ["0", "999", "1 000", "12 345 678"]
        );
        assert_eq!([si(0.0), si(1500.0), si(2.5e6), si(3e9)], ["0 ", "1.5 k", "2.50 M", "3.00 G"]);
    }
}
