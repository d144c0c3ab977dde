//! The exported figures, through the `metrics` facade: whoever installs a recorder gets them, nobody pays otherwise.
//!
//! Workers count in plain counters of their own; this publishes them from the management side. Names follow the
//! Prometheus conventions: a unit, `_total` for what only grows, and labels of bounded number (workers, ports, reasons,
//! stages).

use metrics::{counter, gauge};

use super::Snapshot;
use crate::dpdk::Mempool;
use crate::flow::{FlowSnapshot, FlowView};
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

type Fixed = (&'static str, &'static str, &'static [&'static str], &'static str);

/// In front of the counters of flows, and behind them.
const FIGURES: &[Fixed] = &[
    ("sluicegate_received_packets_total", COUNTER, WORKER, "Frames taken from receive queues."),
    ("sluicegate_received_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_sent_packets_total", COUNTER, WORKER, "Frames that transmit queues took."),
    ("sluicegate_sent_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_punted_packets_total", COUNTER, WORKER, "Frames for the host stack."),
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
    ("sluicegate_port_received_packets_total", COUNTER, PORT, "Frames the driver received."),
    ("sluicegate_port_received_bytes_total", COUNTER, PORT, "Their bytes."),
    ("sluicegate_port_sent_packets_total", COUNTER, PORT, "Frames the driver sent."),
    ("sluicegate_port_sent_bytes_total", COUNTER, PORT, "Their bytes."),
    ("sluicegate_port_missed_packets_total", COUNTER, PORT, "Frames lost because the receive ring was full."),
    ("sluicegate_port_no_buffer_packets_total", COUNTER, PORT, "Frames lost for want of a buffer."),
    ("sluicegate_port_receive_errors_total", COUNTER, PORT, "Frames that arrived broken."),
    ("sluicegate_port_send_errors_total", COUNTER, PORT, "Frames that the driver could not send."),
    ("sluicegate_port_link_up", GAUGE, PORT, "1 if the link is up."),
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
