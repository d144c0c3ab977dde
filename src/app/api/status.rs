//! How things are: what somebody wants to know first.

use serde_json::{Value, json};

use super::Scene;
use crate::event::by_type;
use crate::path::WorkerSnapshot;

/// The answer to `/v1/status`.
pub(super) fn status(scene: &Scene) -> Value {
    let Scene { picture, plan, rates, health, uptime, drain, reloaded } = scene;
    let snapshots: Vec<WorkerSnapshot> = picture.workers.iter().map(|worker| worker.snapshot()).collect();
    let workers = picture.workers.iter().zip(&snapshots).enumerate().map(|(n, (counters, now))| {
        let lcore = plan.workers.iter().find(|worker| worker.id == now.worker).map(|worker| &worker.lcore);
        let queues = counters.queues.iter().map(|queue| json!({ "port": queue.port, "queue": queue.queue }));
        json!({
            "worker": now.worker, "lcore": lcore.map(|lcore| lcore.lcore), "cpu": lcore.map(|lcore| lcore.cpu),
            "place": counters.place.place().to_string(), "queues": queues.collect::<Vec<_>>(),
            "received": now.received, "sent": now.sent, "dropped": now.dropped(), "rate": rates.get(n),
        })
    });
    let ports = picture.ports.iter().map(|port| {
        json!({
            "port": port.id, "device": port.device, "link": port.link,
            "received": port.stats.rx_packets, "sent": port.stats.tx_packets,
            "missed": port.stats.rx_missed, "no_buffer": port.stats.rx_no_buffer, "errors": port.stats.rx_errors,
        })
    });
    let flows = picture.flows.as_ref().map(|view| {
        let live: u64 = view.live().map(|(_, _, live)| u64::from(live)).sum();
        json!({ "live": live, "capacity": view.capacity().map(|(_, entries)| entries).sum::<usize>() })
    });
    let sum = |of: fn(&super::Rate) -> f64| rates.iter().map(of).sum::<f64>();
    let per_s = json!({
        "received": sum(|rate| rate.received_per_s), "sent": sum(|rate| rate.sent_per_s),
        "dropped": sum(|rate| rate.dropped_per_s),
    });
    let counts = picture.reloads;
    let last = reloaded.as_ref().map(|(when, outcome)| {
        let mut last = serde_json::to_value(outcome).unwrap_or_default(); // plain data: it cannot fail
        last["ago_s"] = when.elapsed().as_secs().into();
        last
    });
    let (program, revision) = (env!("CARGO_PKG_VERSION"), env!("SLUICEGATE_REVISION"));
    let mut status = json!({
        "program": { "sluicegate": program, "revision": revision, "pid": std::process::id() },
        "file": plan.file, "policy": picture.names.policy, "uptime_s": uptime.as_secs_f64(),
        "stages": picture.names.stages,
        "workers": workers.collect::<Vec<_>>(), "ports": ports.collect::<Vec<_>>(), "per_s": per_s,
        "flows": flows, "pool": { "buffers": picture.pool.0, "available": picture.pool.1 },
        "events_lost": events_lost(scene, &snapshots), "drain": drain,
        "reload": {
            "done": counts.done, "unchanged": counts.unchanged, "refused": counts.refused,
            "workers_behind": counts.behind, "last": last,
        },
    });
    #[cfg(feature = "program")]
    {
        status["log_level"] = crate::mgmt::log::level().into();
    }
    if let (Some(status), Value::Object(health)) = (status.as_object_mut(), health) {
        status.extend(health.clone());
    }
    status
}

/// Events for which a ring had no room, and records that a sink did not take.
fn events_lost(scene: &Scene, workers: &[WorkerSnapshot]) -> u64 {
    let rings =
        workers.iter().map(|worker| worker.events.lost.iter().sum::<u64>() + worker.flows.events_lost);
    let sinks = scene.picture.sinks.iter().map(|sink| by_type(&sink.lost).map(|(_, n)| n).sum::<u64>());
    rings.sum::<u64>() + sinks.sum::<u64>()
}
