//! The exported figures, through the `metrics` facade: whoever installs a recorder gets them, nobody pays otherwise.
//!
//! Workers count in plain counters of their own; this publishes them from the management side. Names follow the
//! Prometheus conventions: a unit, `_total` for what only grows, and labels of bounded number (workers, ports, reasons,
//! stages).

use metrics::{counter, gauge};

use super::Snapshot;
use super::reload::Counts as ReloadCounts;
use crate::config::Cause;
use crate::dpdk::Mempool;
use crate::event::{SinkSnapshot, Type, by_type};
use crate::flow::{FlowSnapshot, FlowView};
use crate::mgmt::{CheckCounts, ManagementSnapshot, State};
use crate::packet::ReasonTable;
use crate::stream::StreamSnapshot;

/// One exported figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const WORKER: &[&str] = &["worker"];
const PORT: &[&str] = &["port"];
const EVENT: &[&str] = &["worker", "type"];
const SINK: &[&str] = &["sink", "type"];

type Fixed = (&'static str, &'static str, &'static [&'static str], &'static str);

/// In front of the counters of flows, and behind them.
const FIGURES: &[Fixed] = &[
    ("sluicegate_received_packets_total", COUNTER, WORKER, "Frames taken from receive queues."),
    ("sluicegate_received_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_sent_packets_total", COUNTER, WORKER, "Frames that transmit queues took."),
    ("sluicegate_sent_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_punted_packets_total", COUNTER, WORKER, "Frames for the host stack."),
    (
        "sluicegate_punt_frames_total",
        COUNTER,
        &["worker", "outcome"],
        "What became of punted frames where there is a host stack: `copied` to it, `refused` (a source that may not reach it), `rate_limited`, `no_room`; and of its replies: `reply` went to the port, `no_buffer` did not.",
    ),
    ("sluicegate_edited_packets_total", COUNTER, WORKER, "Frames sent that a stage has edited."),
    (
        "sluicegate_checksum_unknown_packets_total",
        COUNTER,
        WORKER,
        "Frames of whose outer UDP checksum nobody knows whether it is right.",
    ),
    ("sluicegate_busy_polls_total", COUNTER, WORKER, "Polls that found frames."),
    ("sluicegate_idle_polls_total", COUNTER, WORKER, "Polls that found none."),
    ("sluicegate_busy_cycles_total", COUNTER, WORKER, "Cycles of the polls that found frames."),
    (
        "sluicegate_answers_total",
        COUNTER,
        &["worker", "outcome"],
        "Answers of our own that were asked for, by outcome: made were `reset`, `prohibited`, `too_big`; not made `rate_limited`, `not_answerable`, `no_buffer`.",
    ),
    ("sluicegate_held_packets", GAUGE, WORKER, "Fragments that wait for their first."),
    ("sluicegate_stage_held_packets", GAUGE, WORKER, "Frames that wait for a stage's decision."),
    (
        "sluicegate_dropped_packets_total",
        COUNTER,
        &["reason"],
        "Frames dropped; the reasons are those of [drops.md](drops.md) and the stages' own.",
    ),
    (
        "sluicegate_stage_packets_total",
        COUNTER,
        &["stage", "outcome"],
        "Packets a stage saw, by outcome: `passed_on`, `sent_home`, `dropped`.",
    ),
    ("sluicegate_stage_panics_total", COUNTER, &["stage"], "Batches in which a stage panicked."),
    (
        "sluicegate_events_total",
        COUNTER,
        EVENT,
        "Events that a worker put into a ring, by type; flows have counters of their own.",
    ),
    (
        "sluicegate_events_lost_total",
        COUNTER,
        EVENT,
        "Events that found their ring full: the writer does not keep up.",
    ),
    (
        "sluicegate_events_limited_total",
        COUNTER,
        EVENT,
        "Drops and anomalies of which no event was made, because there were many of them in that second.",
    ),
    ("sluicegate_event_sink_written_total", COUNTER, SINK, "Records that a sink has written."),
    (
        "sluicegate_event_sink_lost_total",
        COUNTER,
        SINK,
        "Records that a sink should have written and could not, or not in time.",
    ),
    ("sluicegate_event_sink_bytes_total", COUNTER, &["sink"], "Bytes that a sink has written."),
    (
        "sluicegate_event_sink_errors_total",
        COUNTER,
        &["sink"],
        "Times that a sink could not write, open or rotate.",
    ),
    ("sluicegate_port_received_packets_total", COUNTER, PORT, "Frames the driver received."),
    ("sluicegate_port_received_bytes_total", COUNTER, PORT, "Their bytes."),
    ("sluicegate_port_sent_packets_total", COUNTER, PORT, "Frames the driver sent."),
    ("sluicegate_port_sent_bytes_total", COUNTER, PORT, "Their bytes."),
    ("sluicegate_port_missed_packets_total", COUNTER, PORT, "Frames lost because the receive ring was full."),
    ("sluicegate_port_no_buffer_packets_total", COUNTER, PORT, "Frames lost for want of a buffer."),
    ("sluicegate_port_receive_errors_total", COUNTER, PORT, "Frames that arrived broken."),
    ("sluicegate_port_send_errors_total", COUNTER, PORT, "Frames that the driver could not send."),
    ("sluicegate_port_link_up", GAUGE, PORT, "1 if the link is up."),
    (
        "sluicegate_host_frames_total",
        COUNTER,
        &["outcome"],
        "Frames of the host stack: `received`, `sent`, and `no_room` for those that no ring or kernel queue took.",
    ),
    (
        "sluicegate_check_connections_total",
        COUNTER,
        &["on", "outcome"],
        "Connections to the health answers on the data `port` or on the `socket` of the kernel: all that were `made`, and of those `connect_only` (closed without a byte), `cut` (too slow), `evicted` (made room for others).",
    ),
    ("sluicegate_check_requests_total", COUNTER, &["on", "code"], "Requests answered, by HTTP status."),
    ("sluicegate_check_open_connections", GAUGE, &[], "Connections on the data ports that are open."),
    (
        "sluicegate_health_state",
        GAUGE,
        &["state"],
        "1 for the state in force: `starting`, `ready`, `degraded`, `draining`, `failed`.",
    ),
    (
        "sluicegate_health_cause",
        GAUGE,
        &["cause"],
        "1 for each cause in force; [configuration.md](configuration.md) lists them.",
    ),
    ("sluicegate_health_flips_total", COUNTER, &[], "Changes of the state."),
    (
        "sluicegate_reloads_total",
        COUNTER,
        &["outcome"],
        "Reloads, by what became of them: `done`, `unchanged`, `refused`.",
    ),
    ("sluicegate_reload_workers_behind", GAUGE, &[], "Workers that have not taken the plan in force."),
    ("sluicegate_pool_buffers", GAUGE, &[], "Buffers of the pool."),
    ("sluicegate_pool_available_buffers", GAUGE, &[], "Those that nobody holds."),
];
const OF_FLOWS: &[Fixed] = &[
    ("sluicegate_flows", GAUGE, &["worker", "tenant"], "Flows that are live."),
    ("sluicegate_flow_capacity", GAUGE, WORKER, "Flows that fit into the table."),
];

/// Every figure that is published. Those of flows only where flows are followed.
pub fn figures() -> Vec<Figure> {
    let fixed = |(name, kind, labels, help): &Fixed| Figure { name: (*name).into(), kind, labels, help };
    let counters = FlowSnapshot::HELP.iter().map(|(name, help)| Figure {
        name: of_flow(name),
        kind: COUNTER,
        labels: WORKER,
        help,
    });
    let streams = StreamSnapshot::HELP.iter().map(|(name, help)| Figure {
        name: of_stream(name),
        kind: COUNTER,
        labels: WORKER,
        help,
    });
    let fixed_ones = FIGURES.iter().map(fixed);
    fixed_ones.chain(counters).chain(OF_FLOWS.iter().map(fixed)).chain(streams).collect()
}

/// The figure of a counter of flows.
fn of_flow(counter: &str) -> String {
    format!("sluicegate_flow_{counter}_total")
}

/// Publishes what sinks of events did.
pub(super) fn publish_sinks(sinks: &[SinkSnapshot]) {
    for sink in sinks {
        for (counts, name) in [
            (&sink.written, "sluicegate_event_sink_written_total"),
            (&sink.lost, "sluicegate_event_sink_lost_total"),
        ] {
            for (kind, n) in by_type(counts) {
                counter!(name, "sink" => sink.name.clone(), "type" => kind.word()).absolute(n);
            }
        }
        counter!("sluicegate_event_sink_bytes_total", "sink" => sink.name.clone()).absolute(sink.bytes);
        counter!("sluicegate_event_sink_errors_total", "sink" => sink.name.clone()).absolute(sink.errors);
    }
}

/// Publishes how reloads ended.
pub(super) fn publish_reloads(counts: &ReloadCounts) {
    for (outcome, n) in [("done", counts.done), ("unchanged", counts.unchanged), ("refused", counts.refused)]
    {
        counter!("sluicegate_reloads_total", "outcome" => outcome).absolute(n);
    }
    gauge!("sluicegate_reload_workers_behind").set(counts.behind as f64);
}

/// The figure of a counter of streams.
fn of_stream(counter: &str) -> String {
    format!("sluicegate_stream_{counter}_total")
}

/// Publishes one snapshot.
pub(super) fn publish(
    snapshot: &Snapshot,
    reasons: &ReasonTable,
    stages: &[String],
    pool: &Mempool,
    flows: Option<&FlowView>,
) {
    for worker in &snapshot.workers {
        let id = worker.worker.0.to_string();
        let count = |name: &'static str, n: u64| counter!(name, "worker" => id.clone()).absolute(n);
        count("sluicegate_received_packets_total", worker.received);
        count("sluicegate_received_bytes_total", worker.received_bytes);
        count("sluicegate_sent_packets_total", worker.sent);
        count("sluicegate_sent_bytes_total", worker.sent_bytes);
        count("sluicegate_punted_packets_total", worker.punted);
        count("sluicegate_edited_packets_total", worker.edited);
        count("sluicegate_checksum_unknown_packets_total", worker.checksum_unknown);
        count("sluicegate_busy_polls_total", worker.busy_polls);
        count("sluicegate_idle_polls_total", worker.idle_polls);
        count("sluicegate_busy_cycles_total", worker.busy_cycles);
        let answers = &worker.answers;
        for (outcome, n) in [
            ("reset", answers.resets),
            ("prohibited", answers.prohibited),
            ("too_big", answers.too_big),
            ("rate_limited", answers.rate_limited),
            ("not_answerable", answers.not_answerable),
            ("no_buffer", answers.no_buffer),
        ] {
            let labels = [("worker", id.clone()), ("outcome", outcome.to_owned())];
            counter!("sluicegate_answers_total", &labels).absolute(n);
        }
        let punt = &worker.punt;
        for (outcome, n) in [
            ("copied", punt.copied),
            ("refused", punt.refused),
            ("rate_limited", punt.rate_limited),
            ("no_room", punt.no_room),
            ("reply", punt.replies),
            ("no_buffer", punt.no_buffer),
        ] {
            let labels = [("worker", id.clone()), ("outcome", outcome.to_owned())];
            counter!("sluicegate_punt_frames_total", &labels).absolute(n);
        }
        let events = &worker.events;
        for (counts, name) in [
            (&events.emitted, "sluicegate_events_total"),
            (&events.lost, "sluicegate_events_lost_total"),
            (&events.limited, "sluicegate_events_limited_total"),
        ] {
            for (kind, n) in by_type(counts).filter(|(kind, _)| Type::IN_RINGS.contains(kind)) {
                counter!(name, "worker" => id.clone(), "type" => kind.word()).absolute(n);
            }
        }
        gauge!("sluicegate_held_packets", "worker" => id.clone()).set(worker.held as f64);
        gauge!("sluicegate_stage_held_packets", "worker" => id.clone()).set(worker.held_for_stages as f64);
        if flows.is_some() {
            for (name, n) in worker.streams.values() {
                counter!(of_stream(name), "worker" => id.clone()).absolute(n);
            }
            for (name, n) in worker.flows.values() {
                counter!(of_flow(name), "worker" => id.clone()).absolute(n);
            }
        }
    }
    if let Some(flows) = flows {
        publish_flows(flows);
    }
    for ((_, label, _), n) in reasons.iter().zip(snapshot.drops()) {
        counter!("sluicegate_dropped_packets_total", "reason" => label.to_owned()).absolute(n);
    }
    for (stage, total) in stages.iter().zip(snapshot.stage_totals()) {
        let count = |outcome: &'static str, n: u64| {
            counter!("sluicegate_stage_packets_total", "stage" => stage.clone(), "outcome" => outcome)
                .absolute(n);
        };
        count("passed_on", total.passed_on());
        count("sent_home", total.forwarded);
        count("dropped", total.dropped);
        counter!("sluicegate_stage_panics_total", "stage" => stage.clone()).absolute(total.panics);
    }
    for port in &snapshot.ports {
        let id = port.id.to_string();
        let count = |name: &'static str, n: u64| counter!(name, "port" => id.clone()).absolute(n);
        count("sluicegate_port_received_packets_total", port.stats.rx_packets);
        count("sluicegate_port_received_bytes_total", port.stats.rx_bytes);
        count("sluicegate_port_sent_packets_total", port.stats.tx_packets);
        count("sluicegate_port_sent_bytes_total", port.stats.tx_bytes);
        count("sluicegate_port_missed_packets_total", port.stats.rx_missed);
        count("sluicegate_port_no_buffer_packets_total", port.stats.rx_no_buffer);
        count("sluicegate_port_receive_errors_total", port.stats.rx_errors);
        count("sluicegate_port_send_errors_total", port.stats.tx_errors);
        gauge!("sluicegate_port_link_up", "port" => id.clone()).set(f64::from(u8::from(port.link.up)));
    }
    gauge!("sluicegate_pool_buffers").set(f64::from(pool.capacity()));
    gauge!("sluicegate_pool_available_buffers").set(f64::from(pool.available()));
}

/// Publishes what the management side has counted.
pub(super) fn publish_management(now: &ManagementSnapshot) {
    let host = &now.host;
    for (outcome, n) in [("received", host.received), ("sent", host.sent), ("no_room", host.no_room)] {
        counter!("sluicegate_host_frames_total", "outcome" => outcome).absolute(n);
    }
    for (on, checks) in [("port", &host.checks), ("socket", &now.listener)] {
        for (outcome, n) in [
            ("made", checks.connections),
            ("connect_only", checks.connects_only),
            ("cut", checks.cut),
            ("evicted", checks.evicted),
        ] {
            counter!("sluicegate_check_connections_total", "on" => on, "outcome" => outcome).absolute(n);
        }
        for (outcome, n) in CheckCounts::OUTCOMES.iter().zip(checks.requests) {
            let code = outcome.code().to_string();
            counter!("sluicegate_check_requests_total", "on" => on, "code" => code).absolute(n);
        }
    }
    gauge!("sluicegate_check_open_connections").set(now.connections as f64);
    for state in State::ALL {
        let is = f64::from(u8::from(state == now.state));
        gauge!("sluicegate_health_state", "state" => state.name()).set(is);
    }
    for cause in Cause::ALL {
        let is = f64::from(u8::from(now.causes.contains(&cause)));
        gauge!("sluicegate_health_cause", "cause" => cause.name()).set(is);
    }
    counter!("sluicegate_health_flips_total").absolute(now.flips);
}

fn publish_flows(flows: &FlowView) {
    for (worker, tenant, live) in flows.live() {
        let (worker, tenant) = (worker.0.to_string(), tenant.to_owned());
        gauge!("sluicegate_flows", "worker" => worker, "tenant" => tenant).set(f64::from(live));
    }
    for (worker, entries) in flows.capacity() {
        gauge!("sluicegate_flow_capacity", "worker" => worker.0.to_string()).set(entries as f64);
    }
}

#[cfg(test)]
mod tests;
