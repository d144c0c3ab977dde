//! All counters, by stage, reason, worker and port.

use serde_json::{Map, Value, json};

use super::Scene;
use crate::event::by_type;
use crate::flow::FlowSnapshot;
use crate::packet::ReasonTable;
use crate::path::{Ledger, StageSnapshot, WorkerSnapshot};

/// The answer to `/v1/stats`.
pub(super) fn stats(scene: &Scene) -> Value {
    let (picture, names) = (&scene.picture, &scene.picture.names);
    let snapshots: Vec<WorkerSnapshot> = picture.workers.iter().map(|worker| worker.snapshot()).collect();
    let ledger: Ledger = snapshots.iter().map(WorkerSnapshot::ledger).sum();
    let longest = snapshots.iter().map(|worker| worker.drops.len()).max().unwrap_or(0);
    let drops = (0..longest).map(|n| snapshots.iter().filter_map(|worker| worker.drops.get(n)).sum::<u64>());
    let drops: Vec<u64> = drops.collect();
    let own: Vec<_> = names.pipeline.stages().map(|(_, shared)| shared.counts()).collect();
    let stages = names.stages.iter().enumerate().map(|(n, name)| {
        let of = snapshots.iter().filter_map(|worker| worker.stages.get(n));
        let all = of.fold(StageSnapshot::default(), |all, stage| all.plus(stage));
        let counts: Map<String, Value> =
            own.get(n).into_iter().flatten().map(|(label, n)| (label.clone(), (*n).into())).collect();
        json!({
            "stage": name, "seen": all.seen, "passed_on": all.passed_on(), "sent_home": all.forwarded,
            "dropped": all.dropped, "would_drop": all.would_drop, "would_send_home": all.would_send_home,
            "panics": all.panics, "counts": counts,
        })
    });
    let workers = snapshots.iter().zip(&picture.workers).map(|(worker, counters)| {
        let queues = counters.queues.iter().map(|queue| {
            json!({
                "port": queue.port, "queue": queue.queue, "received": queue.received.get(),
                "full_polls": queue.full_polls.get(),
            })
        });
        json!({
            "worker": worker.worker, "received": worker.received, "received_bytes": worker.received_bytes,
            "sent": worker.sent, "sent_bytes": worker.sent_bytes, "punted": worker.punted, "edited": worker.edited,
            "checksum_unknown": worker.checksum_unknown, "busy_polls": worker.busy_polls,
            "idle_polls": worker.idle_polls, "busy_cycles": worker.busy_cycles,
            "drops": labelled(&names.reasons, &worker.drops), "flows": flows(worker.flows),
            "handed_in": worker.flows.handed_in, "handed_out": worker.flows.handed_out,
            "queues": queues.collect::<Vec<_>>(),
        })
    });
    let ports = picture.ports.iter().zip(&picture.xstats).map(|(port, xstats)| {
        let xstats: Map<String, Value> = xstats.iter().map(|(name, n)| (name.clone(), (*n).into())).collect();
        json!({ "port": port.id, "device": port.device, "link": port.link, "stats": port.stats, "xstats": xstats })
    });
    let sum = |of: fn(&WorkerSnapshot) -> u64| snapshots.iter().map(of).sum::<u64>();
    let all_flows = snapshots.iter().fold(FlowSnapshot::default(), |all, worker| all.plus(worker.flows));
    let add = |values: Vec<Value>| values.into_iter().reduce(plus).unwrap_or_default();
    let each = |of: fn(&WorkerSnapshot) -> Value| add(snapshots.iter().map(of).collect());
    let events: Map<String, Value> = crate::event::Type::PRODUCED
        .iter()
        .map(|kind| {
            let of = |counts: fn(&WorkerSnapshot) -> &[u64]| -> u64 {
                snapshots.iter().filter_map(|worker| counts(worker).get(*kind as usize)).sum()
            };
            let (emitted, lost) = (of(|w| &w.events.emitted), of(|w| &w.events.lost));
            (
                kind.word().to_owned(),
                json!({ "emitted": emitted, "lost": lost, "limited": of(|w| &w.events.limited) }),
            )
        })
        .collect();
    let sinks = picture.sinks.iter().map(|sink| {
        let lost: u64 = by_type(&sink.lost).map(|(_, n)| n).sum();
        let written: u64 = by_type(&sink.written).map(|(_, n)| n).sum();
        json!({ "sink": sink.name, "written": written, "lost": lost })
    });
    let of_followers = |counts: &[u64]| counts.iter().sum::<u64>();
    let followers = &picture.followers;
    let followers = json!({
        "now": followers.now, "given": of_followers(&followers.given), "lost": of_followers(&followers.lost),
    });
    json!({
        "uptime_s": scene.uptime.as_secs_f64(),
        "received": sum(|w| w.received), "received_bytes": sum(|w| w.received_bytes),
        "sent": sum(|w| w.sent), "sent_bytes": sum(|w| w.sent_bytes), "punted": sum(|w| w.punted),
        "edited": sum(|w| w.edited), "dropped": sum(WorkerSnapshot::dropped),
        "held": sum(|w| w.held + w.held_for_stages), "ledger": ledger, "drops": labelled(&names.reasons, &drops),
        "stages": stages.collect::<Vec<_>>(), "workers": workers.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(), "flows": picture.flows.as_ref().map(|_| flows(all_flows)),
        "answers": each(|w| json!(w.answers)), "host": each(|w| json!(w.punt)),
        "streams": each(|w| json!(w.streams)), "events": events, "sinks": sinks.collect::<Vec<_>>(), "followers": followers,
        "events_lost_of_flows": all_flows.events_lost,
        "pool": { "buffers": picture.pool.0, "available": picture.pool.1 },
    })
}

fn flows(snapshot: FlowSnapshot) -> Value {
    let mut flows = json!(snapshot);
    flows["live"] = snapshot.live().into();
    flows
}

/// Drops by the labels of their reasons; those that never happened are left out.
fn labelled(reasons: &ReasonTable, drops: &[u64]) -> Map<String, Value> {
    let named = reasons.iter().filter_map(|(id, label, _)| Some((label, *drops.get(usize::from(id.0))?)));
    named.filter(|(_, n)| *n > 0).map(|(label, n)| (label.to_owned(), n.into())).collect()
}

/// The sum of two values of the same shape.
fn plus(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            for (key, value) in other {
                let sum = match one.remove(&key) {
                    Some(own) => plus(own, value),
                    None => value,
                };
                one.insert(key, sum);
            }
            Value::Object(one)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.into_iter().zip(other).map(|(a, b)| plus(a, b)).collect()
        }
        (one, other) => (one.as_u64().unwrap_or(0) + other.as_u64().unwrap_or(0)).into(),
    }
}
