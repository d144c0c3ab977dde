//! The exported figures, through the `metrics` facade: whoever installs a recorder gets them, nobody pays otherwise.
//!
//! Workers count in plain counters of their own; this publishes them from the management side. Names follow the
//! Prometheus conventions: a unit, `_total` for what only grows, and labels of bounded number (workers, ports, reasons,
//! stages).

use metrics::{counter, gauge};

use super::Snapshot;
use crate::dpdk::Mempool;
use crate::packet::ReasonTable;

/// Publishes one snapshot.
pub(super) fn publish(snapshot: &Snapshot, reasons: &ReasonTable, stages: &[String], pool: &Mempool) {
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

#[cfg(test)]
mod tests;
