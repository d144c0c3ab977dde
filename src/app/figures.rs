//! The exported figures: their names, labels and meanings. They are published through the `metrics` facade, so whoever gives a recorder
//! gets them, and nobody pays otherwise.
//!
//! ```text
//! workers' counters ──┐
//! main lcore, each s ─┴> Picture ──Publisher──> recorder ──> page ──> whoever scrapes
//! ```
//!
//! Workers count in plain counters of their own, which anybody reads; nothing here is on the packet path, and nothing but the
//! [`Picture`] of what only it can see is made on the main lcore. Names follow the conventions of Prometheus: base units, `_total` for what
//! only grows. Labels are of bounded number: `worker` is on few figures, tenants have `metrics.max_tenants` names and then
//! `other`, rules are there if they say so.
//!
//! A figure more takes a line in `FIGURES`, a line in `publish.rs`, and something to publish in `tests.rs`, which fails for what is listed and never fed; then
//! the documents are made anew (docs/metrics.md).

mod estimate;
mod export;
mod picture;
mod publish;

pub use estimate::Estimate;
pub use export::Exporter;
pub(super) use picture::{Names, Picture};
pub use publish::Publisher;

use crate::flow::FlowSnapshot;
use crate::stream::StreamSnapshot;

/// One exported figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";
const WORKER: &[&str] = &["worker"];
const PORT: &[&str] = &["port"];
const EVENT: &[&str] = &["type"];
const SINK: &[&str] = &["sink", "type"];

type Fixed = (&'static str, &'static str, &'static [&'static str], &'static str);

/// In front of the counters of flows, and behind them.
const FIGURES: &[Fixed] = &[
    ("sluicegate_build_info", GAUGE, &["version"], "1, with the version of the program."),
    (
        "sluicegate_policy_info",
        GAUGE,
        &["hash"],
        "1, with a hash of the policy in force: tunnel, flows, streams, tenants and stages as they were read, and the contents of the files that they name. Appliances of a fleet that differ in it treat packets differently.",
    ),
    ("sluicegate_start_time_seconds", GAUGE, &[], "When the application started, in seconds since 1970."),
    ("sluicegate_cycles_hertz", GAUGE, &[], "Cycles in a second, as figures of cycles count them."),
    ("sluicegate_received_packets_total", COUNTER, WORKER, "Frames taken from receive queues."),
    ("sluicegate_received_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_sent_packets_total", COUNTER, WORKER, "Frames that transmit queues took."),
    ("sluicegate_sent_bytes_total", COUNTER, WORKER, "Their bytes."),
    ("sluicegate_punted_packets_total", COUNTER, &[], "Frames for the host stack."),
    (
        "sluicegate_punt_frames_total",
        COUNTER,
        &["outcome"],
        "What became of punted frames where there is a host stack: `copied` to it, `refused` (a source that may not reach it), `rate_limited`, `no_room`; and of its replies: `reply` went to the port, `no_buffer` did not.",
    ),
    ("sluicegate_edited_packets_total", COUNTER, &[], "Frames sent that a stage has edited."),
    (
        "sluicegate_checksum_unknown_packets_total",
        COUNTER,
        &[],
        "Frames of whose outer UDP checksum nobody knows whether it is right.",
    ),
    ("sluicegate_busy_polls_total", COUNTER, WORKER, "Polls that found frames."),
    ("sluicegate_idle_polls_total", COUNTER, WORKER, "Polls that found none."),
    ("sluicegate_busy_cycles_total", COUNTER, WORKER, "Cycles of the polls that found frames."),
    (
        "sluicegate_worker_busy_ratio",
        GAUGE,
        WORKER,
        "Part of the last second, 0 to 1, that the worker spent in polls that found frames.",
    ),
    (
        "sluicegate_worker_cycles_per_packet",
        GAUGE,
        WORKER,
        "Cycles of busy polls for each packet of the last second; 0 if there was none.",
    ),
    (
        "sluicegate_residence_seconds",
        HISTOGRAM,
        &[],
        "How long frames were in the appliance, from the moment a worker asked for them until the port had them again, for one in 1,021 polls; what they waited in the port's receive ring before is not in it.",
    ),
    ("sluicegate_timed_polls_total", COUNTER, &[], "Polls that were timed."),
    (
        "sluicegate_answers_total",
        COUNTER,
        &["outcome"],
        "Answers of our own that were asked for, by outcome: made were `reset`, `prohibited`, `too_big`; not made `rate_limited`, `not_answerable`, `no_buffer`.",
    ),
    ("sluicegate_held_packets", GAUGE, &[], "Fragments that wait for their first."),
    ("sluicegate_stage_held_packets", GAUGE, &[], "Frames that wait for a stage's decision."),
    (
        "sluicegate_dropped_packets_total",
        COUNTER,
        &["reason"],
        "Frames dropped; the reasons are those of [drops.md](drops.md) and the stages' own.",
    ),
    (
        "sluicegate_stage_packets_total",
        COUNTER,
        &["stage", "tenant", "outcome"],
        "Packets a stage saw, by outcome: `passed_on`, `sent_home`, `dropped`. Packets of flows that the stage has settled do not come to it.",
    ),
    (
        "sluicegate_stage_would_total",
        COUNTER,
        &["stage", "decision"],
        "What a stage with `mode = \"shadow\"` would have done with packets that it was shown: `drop`, `send_home`. One for each flow that it would have settled so.",
    ),
    ("sluicegate_stage_panics_total", COUNTER, &["stage"], "Batches in which a stage panicked."),
    (
        "sluicegate_stage_packet_cycles",
        HISTOGRAM,
        &["stage"],
        "Cycles of a stage for each packet that it was shown, one observation for each batch of one in 1,021 polls.",
    ),
    (
        "sluicegate_stage_counts_total",
        COUNTER,
        &["stage", "count"],
        "What a stage counts itself, such as the protocols of `count` or the handshakes of `tls`.",
    ),
    (
        "sluicegate_rule_hits_total",
        COUNTER,
        &["stage", "rule"],
        "How often a rule was met, for rules with `export = true` and the default: once for each flow or packet that asked.",
    ),
    (
        "sluicegate_queue_received_packets_total",
        COUNTER,
        &["port", "queue"],
        "Frames taken from a receive queue.",
    ),
    (
        "sluicegate_queue_full_polls_total",
        COUNTER,
        &["port", "queue"],
        "Polls of a queue that found as many frames as they asked for: more may have waited.",
    ),
    (
        "sluicegate_events_total",
        COUNTER,
        EVENT,
        "Events that workers put into their rings, by type; flows have counters of their own.",
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
    (
        "sluicegate_event_followers",
        GAUGE,
        &[],
        "Readers that follow events over the admin API at this moment.",
    ),
    (
        "sluicegate_event_followers_given_total",
        COUNTER,
        EVENT,
        "Records that were given to followers, by type.",
    ),
    (
        "sluicegate_event_followers_lost_total",
        COUNTER,
        EVENT,
        "Records that a follower wanted and did not get, because it does not keep up.",
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
    (
        "sluicegate_port_resets_total",
        COUNTER,
        &["port", "outcome"],
        "Resets of a port whose device asked for one: `done`, it runs again and the workers have its queues; `failed`, attempts after which it does not. The counters above go on over a reset.",
    ),
    ("sluicegate_port_link_up", GAUGE, PORT, "1 if the link is up."),
    ("sluicegate_port_info", GAUGE, &["port", "device"], "1, with the device of the port."),
    (
        "sluicegate_port_xstats",
        GAUGE,
        &["port", "name"],
        "The driver's own counters (xstats) under its own names; most of them only grow, and may begin anew when the port is reset. The first 512 of a port.",
    ),
    (
        "sluicegate_port_allowance_exceeded_total",
        COUNTER,
        &["port", "allowance"],
        "Packets that the cloud dropped or held back because the instance had used up an allowance, as ENA tells it: `bw_in`, `bw_out`, `pps`, `conntrack`, `linklocal`. They are in none of our own counters.",
    ),
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
        "Connections to the health answers on the data `port` or on the `socket` of the kernel: all that were `made`, and of those `connect_only` (closed without a byte), `cut` (too slow), `evicted` (made room for others), `refused` (too many at a time).",
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
    (
        "sluicegate_reload_seconds",
        GAUGE,
        &[],
        "How long the last reload took, from the request until all workers had it.",
    ),
    ("sluicegate_reload_workers_behind", GAUGE, &[], "Workers that have not taken the plan in force."),
    ("sluicegate_shadow_loaded", GAUGE, &[], "1 while a candidate judges beside the plan in force."),
    (
        "sluicegate_shadow_packets_total",
        COUNTER,
        &["verdict"],
        "Packets that candidates judged: `agree`, `would_drop`, `would_pass`, `waiting` (one of the two had not decided), `not_compared`.",
    ),
    (
        "sluicegate_shadow_flows_total",
        COUNTER,
        &["verdict"],
        "Flows that candidates were shown (`judged`), and those with a packet that `would_drop` or `would_pass`.",
    ),
    ("sluicegate_pool_buffers", GAUGE, &[], "Buffers of the pool."),
    ("sluicegate_pool_available_buffers", GAUGE, &[], "Those that nobody holds."),
];
const OF_FLOWS: &[Fixed] = &[
    ("sluicegate_flows", GAUGE, &["tenant"], "Flows that are live."),
    ("sluicegate_worker_flows", GAUGE, WORKER, "The same by the worker that owns them."),
    ("sluicegate_flow_capacity", GAUGE, WORKER, "Flows that fit into the table."),
    (
        "sluicegate_stream_blocks_used",
        GAUGE,
        &[],
        "Blocks of the memory of streams, of 1 kB each, that are on loan (`stream.memory_mb`).",
    ),
    ("sluicegate_stream_blocks", GAUGE, &[], "All blocks of that memory; 0 where no stage reads streams."),
];

/// Every figure that is published. Those of flows only where flows are followed, those of tenants, rules and drivers where there are such.
pub fn figures() -> Vec<Figure> {
    let fixed = |(name, kind, labels, help): &Fixed| Figure { name: (*name).into(), kind, labels, help };
    let counters = FlowSnapshot::HELP.iter().map(|(name, help)| Figure {
        name: of_flow(name),
        kind: COUNTER,
        labels: if has_worker(name) { WORKER } else { &[] },
        help,
    });
    let streams = StreamSnapshot::HELP.iter().map(|(name, help)| Figure {
        name: of_stream(name),
        kind: COUNTER,
        labels: &[],
        help,
    });
    let fixed_ones = FIGURES.iter().map(fixed);
    fixed_ones.chain(counters).chain(OF_FLOWS.iter().map(fixed)).chain(streams).collect()
}

impl Figure {
    /// It is there where flows are followed only.
    fn is_of_flows(&self) -> bool {
        let of_flows = OF_FLOWS.iter().any(|(name, ..)| *name == self.name);
        let is = |names: &[(&str, &str)], figure: fn(&str) -> String| {
            names.iter().any(|(name, _)| figure(name) == self.name)
        };
        of_flows || is(FlowSnapshot::HELP, of_flow) || is(StreamSnapshot::HELP, of_stream)
    }
}

/// Counters of flows in which workers differ for a reason that one wants to see.
fn has_worker(counter: &str) -> bool {
    matches!(counter, "handed_out" | "handed_in")
}

/// The figure of a counter of flows.
fn of_flow(counter: &str) -> String {
    format!("sluicegate_flow_{counter}_total")
}

/// The figure of a counter of streams.
fn of_stream(counter: &str) -> String {
    format!("sluicegate_stream_{counter}_total")
}

#[cfg(test)]
mod tests;
