//! From a [`Picture`] to the `metrics` facade.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use metrics::{counter, gauge, histogram};

use super::picture::{Names, Picture};
use super::{has_worker, of_flow, of_stream};
use crate::app::PortReport;
use crate::app::reload::{Counts as ReloadCounts, Totals};
use crate::config::{Cause, Mode};
use crate::dpdk;
use crate::event::{FollowSnapshot, SinkSnapshot, Type, by_type};
use crate::flow::{FlowSnapshot, FlowView};
use crate::mgmt::{CheckCounts, ManagementSnapshot, State};
use crate::path::{Buckets, CYCLES, StageCounters, TIMES, WorkerCounters, WorkerSnapshot};
use crate::stream::StreamSnapshot;

/// Xstats of a port that are published: some drivers have dozens for each of their queues.
pub(super) const MOST_XSTATS: usize = 512;
/// In a second.
pub(super) const NANOSECONDS: f64 = 1e9;
/// How ENA calls what the cloud dropped.
const EXCEEDED: &str = "_allowance_exceeded";

/// Publishes pictures, each to the recorder that is in force when it is called. It remembers the last one: ratios are those of the time
/// in between, and histograms get what was observed since.
#[derive(Debug, Default)]
pub struct Publisher {
    workers: Vec<Known>,
    at: Option<Instant>,
}

/// What was published of one worker.
#[derive(Debug)]
struct Known {
    counters: Arc<WorkerCounters>,
    busy_cycles: u64,
    packets: u64,
    times: [(u64, u64); 15],
    /// By the stage's name: its place changes.
    stages: BTreeMap<String, [(u64, u64); 15]>,
}

impl Known {
    fn new(counters: &Arc<WorkerCounters>) -> Self {
        Known {
            counters: counters.clone(),
            busy_cycles: 0,
            packets: 0,
            times: Default::default(),
            stages: BTreeMap::new(),
        }
    }
}

impl Publisher {
    /// The next recorder has nothing of any histogram: it gets all that was observed.
    pub(crate) fn begin_anew(&mut self) {
        for known in &mut self.workers {
            known.times = Default::default();
            known.stages.clear();
        }
    }

    /// Publishes one picture.
    pub(crate) fn publish(&mut self, picture: &Picture) {
        let names = &*picture.names;
        gauge!("sluicegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("sluicegate_policy_info", "hash" => names.policy.clone()).set(1.0);
        let started = names.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!("sluicegate_start_time_seconds").set(started.as_secs_f64());
        gauge!("sluicegate_cycles_hertz").set(dpdk::cycles_per_second() as f64);
        let snapshots: Vec<WorkerSnapshot> = picture.workers.iter().map(|w| w.snapshot()).collect();
        self.each_worker(picture, &snapshots);
        all_workers(&picture.workers, &snapshots, picture.flows.is_some());
        drops(names, &snapshots);
        stages(names, &picture.workers);
        queues(&picture.workers);
        for (n, port) in picture.ports.iter().enumerate() {
            of_port(port, picture.xstats.get(n).map_or(&[], Vec::as_slice));
        }
        gauge!("sluicegate_pool_buffers").set(f64::from(picture.pool.0));
        gauge!("sluicegate_pool_available_buffers").set(f64::from(picture.pool.1));
        if let Some(flows) = &picture.flows {
            of_flows(flows, names);
        }
        if let Some(management) = &picture.management {
            of_management(management);
        }
        of_sinks(&picture.sinks);
        of_followers(&picture.followers);
        of_reloads(&picture.reloads);
        of_candidates(&picture.judged);
    }

    /// What is published of each worker by itself, and what was observed since the last time.
    fn each_worker(&mut self, picture: &Picture, snapshots: &[WorkerSnapshot]) {
        let now = Instant::now();
        let since = self.at.replace(now).map(|before| now - before).unwrap_or_default();
        // A worker with other counters than before is another one.
        let before = std::mem::take(&mut self.workers);
        let mut before = before.into_iter();
        let residence = histogram!("sluicegate_residence_seconds");
        let mut timed = 0;
        for (counters, now) in picture.workers.iter().zip(snapshots) {
            let known = before.next().filter(|known| Arc::ptr_eq(&known.counters, counters));
            let fresh = known.is_none();
            let mut known = known.unwrap_or_else(|| Known::new(counters));
            let id = now.worker.0.to_string();
            let count = |name: &'static str, n: u64| counter!(name, "worker" => id.clone()).absolute(n);
            count("sluicegate_received_packets_total", now.received);
            count("sluicegate_received_bytes_total", now.received_bytes);
            count("sluicegate_sent_packets_total", now.sent);
            count("sluicegate_sent_bytes_total", now.sent_bytes);
            count("sluicegate_busy_polls_total", now.busy_polls);
            count("sluicegate_idle_polls_total", now.idle_polls);
            count("sluicegate_busy_cycles_total", now.busy_cycles);
            if picture.flows.is_some() {
                for (name, n) in now.flows.values().filter(|(name, _)| has_worker(name)) {
                    counter!(of_flow(name), "worker" => id.clone()).absolute(n);
                }
            }
            let packets = now.received + now.flows.handed_in;
            let cycles = now.busy_cycles.saturating_sub(known.busy_cycles);
            let (busy, each) = match fresh {
                true => (0.0, 0.0),
                false => rates(cycles, packets.saturating_sub(known.packets), since),
            };
            (known.busy_cycles, known.packets) = (now.busy_cycles, packets);
            gauge!("sluicegate_worker_busy_ratio", "worker" => id.clone()).set(busy);
            gauge!("sluicegate_worker_cycles_per_packet", "worker" => id.clone()).set(each);
            timed += counters.samples.polls.get();
            observe(&residence, &mut known.times, &counters.samples.times, &TIMES, NANOSECONDS);
            let names = &picture.names.stages;
            for (name, stage) in names.iter().zip(counters.stages_named(names)) {
                let last = known.stages.entry(name.clone()).or_default();
                let histogram = histogram!("sluicegate_stage_packet_cycles", "stage" => name.clone());
                observe(&histogram, last, &stage.cycles, &CYCLES, 1.0);
            }
            self.workers.push(known);
        }
        counter!("sluicegate_timed_polls_total").absolute(timed);
    }
}

/// Part of the time that was busy, and cycles for each packet.
fn rates(cycles: u64, packets: u64, since: Duration) -> (f64, f64) {
    let all = since.as_secs_f64() * dpdk::cycles_per_second() as f64;
    let busy = if all > 0.0 { (cycles as f64 / all).min(1.0) } else { 0.0 };
    (busy, if packets > 0 { cycles as f64 / packets as f64 } else { 0.0 })
}

/// Gives a histogram what a worker has observed since the last time. Each bucket's mean stands for what fell into it: it lies in the
/// bucket, and the sum comes out right. `unit`: what the worker's numbers are divided by.
fn observe(
    to: &metrics::Histogram,
    last: &mut [(u64, u64); 15],
    buckets: &Buckets,
    ends: &[u64; 14],
    unit: f64,
) {
    let now = buckets.read();
    for (place, ((last_count, last_sum), (count, sum))) in last.iter_mut().zip(now).enumerate() {
        let new = count.saturating_sub(*last_count);
        if new > 0 {
            let mean = sum.saturating_sub(*last_sum) as f64 / new as f64;
            // A sum may have been read after an observation that its count does not have yet.
            let above = place.checked_sub(1).and_then(|n| ends.get(n)).map_or(0.0, |end| *end as f64 + 1.0);
            let end = ends.get(place).map_or(f64::MAX, |end| *end as f64);
            to.record_many(mean.clamp(above.min(end), end) / unit, new as usize);
            (*last_count, *last_sum) = (count, sum);
        }
    }
}

/// What is published as a sum over all workers.
fn all_workers(counters: &[Arc<WorkerCounters>], workers: &[WorkerSnapshot], flows: bool) {
    let sum = |of: fn(&WorkerSnapshot) -> u64| workers.iter().map(of).sum::<u64>();
    counter!("sluicegate_punted_packets_total").absolute(sum(|w| w.punted));
    counter!("sluicegate_edited_packets_total").absolute(sum(|w| w.edited));
    counter!("sluicegate_checksum_unknown_packets_total").absolute(sum(|w| w.checksum_unknown));
    gauge!("sluicegate_held_packets").set(sum(|w| w.held) as f64);
    gauge!("sluicegate_stage_held_packets").set(sum(|w| w.held_for_stages) as f64);
    for (outcome, n) in [
        ("reset", sum(|w| w.answers.resets)),
        ("prohibited", sum(|w| w.answers.prohibited)),
        ("too_big", sum(|w| w.answers.too_big)),
        ("rate_limited", sum(|w| w.answers.rate_limited)),
        ("not_answerable", sum(|w| w.answers.not_answerable)),
        ("no_buffer", sum(|w| w.answers.no_buffer)),
    ] {
        counter!("sluicegate_answers_total", "outcome" => outcome).absolute(n);
    }
    for (outcome, n) in [
        ("copied", sum(|w| w.punt.copied)),
        ("refused", sum(|w| w.punt.refused)),
        ("rate_limited", sum(|w| w.punt.rate_limited)),
        ("no_room", sum(|w| w.punt.no_room)),
        ("reply", sum(|w| w.punt.replies)),
        ("no_buffer", sum(|w| w.punt.no_buffer)),
    ] {
        counter!("sluicegate_punt_frames_total", "outcome" => outcome).absolute(n);
    }
    for kind in Type::IN_RINGS {
        let sum = |of: fn(&WorkerSnapshot) -> &[u64]| {
            workers.iter().filter_map(|w| of(w).get(*kind as usize)).sum::<u64>()
        };
        let word = kind.word();
        counter!("sluicegate_events_total", "type" => word).absolute(sum(|w| &w.events.emitted));
        counter!("sluicegate_events_lost_total", "type" => word).absolute(sum(|w| &w.events.lost));
        counter!("sluicegate_events_limited_total", "type" => word).absolute(sum(|w| &w.events.limited));
    }
    if flows {
        let all = workers.iter().fold(FlowSnapshot::default(), |sum, w| sum.plus(w.flows));
        for (name, n) in all.values().filter(|(name, _)| !has_worker(name)) {
            counter!(of_flow(name)).absolute(n);
        }
        let all = workers.iter().fold(StreamSnapshot::default(), |sum, w| sum.plus(w.streams));
        for (name, n) in all.values() {
            counter!(of_stream(name)).absolute(n);
        }
        let sum = |of: fn(&WorkerCounters) -> u64| counters.iter().map(|w| of(w)).sum::<u64>() as f64;
        gauge!("sluicegate_stream_blocks_used").set(sum(|w| w.stream_blocks.get()));
        gauge!("sluicegate_stream_blocks").set(sum(|w| w.stream_room.get()));
    }
}

fn drops(names: &Names, workers: &[WorkerSnapshot]) {
    for (id, label, _) in names.reasons.iter() {
        let all = workers.iter().filter_map(|w| w.drops.get(usize::from(id.0))).sum();
        counter!("sluicegate_dropped_packets_total", "reason" => label.to_owned()).absolute(all);
    }
}

fn stages(names: &Names, workers: &[Arc<WorkerCounters>]) {
    let workers: Vec<Vec<Arc<StageCounters>>> =
        workers.iter().map(|worker| worker.stages_named(&names.stages)).collect();
    for (n, stage) in names.stages.iter().enumerate() {
        let all: Vec<&StageCounters> = workers.iter().filter_map(|stages| Some(&**stages.get(n)?)).collect();
        let panics = all.iter().map(|stage| stage.panics.get()).sum();
        counter!("sluicegate_stage_panics_total", "stage" => stage.clone()).absolute(panics);
        if names.pipeline.mode(n) == Some(Mode::Shadow) {
            for (decision, of) in [
                ("drop", (|stage| stage.would_drop.get()) as fn(&StageCounters) -> u64),
                ("send_home", |stage| stage.would_send_home.get()),
            ] {
                let packets = all.iter().map(|stage| of(stage)).sum();
                counter!("sluicegate_stage_would_total", "stage" => stage.clone(), "decision" => decision)
                    .absolute(packets);
            }
        }
        for (place, tenant) in names.tenants.names().iter().enumerate() {
            // Where there is one tenant, the stage's counts are its own.
            let of = |stage: &&StageCounters| match stage.tenants.get(place) {
                Some(tenant) => [tenant.seen.get(), tenant.forwarded.get(), tenant.dropped.get()],
                None => [stage.seen.get(), stage.forwarded.get(), stage.dropped.get()],
            };
            let [seen, forwarded, dropped] =
                all.iter().map(of).fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z]);
            let count = |outcome: &'static str, n: u64| {
                let labels = [
                    ("stage", stage.clone().into()),
                    ("tenant", tenant.clone().into()),
                    ("outcome", metrics::SharedString::from(outcome)),
                ];
                counter!("sluicegate_stage_packets_total", &labels).absolute(n);
            };
            count("passed_on", seen.saturating_sub(forwarded).saturating_sub(dropped));
            count("sent_home", forwarded);
            count("dropped", dropped);
        }
    }
    for (stage, shared) in names.pipeline.stages() {
        for (count, n) in shared.exported_counts() {
            counter!("sluicegate_stage_counts_total", "stage" => stage.to_owned(), "count" => count)
                .absolute(n);
        }
        for (rule, n) in shared.exported_rules() {
            counter!("sluicegate_rule_hits_total", "stage" => stage.to_owned(), "rule" => rule).absolute(n);
        }
    }
}

fn queues(workers: &[Arc<WorkerCounters>]) {
    for queue in workers.iter().flat_map(|worker| &worker.queues) {
        let labels = [("port", queue.port.to_string()), ("queue", queue.queue.to_string())];
        counter!("sluicegate_queue_received_packets_total", &labels).absolute(queue.received.get());
        counter!("sluicegate_queue_full_polls_total", &labels).absolute(queue.full_polls.get());
    }
}

fn of_port(port: &PortReport, xstats: &[(String, u64)]) {
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
    for (outcome, n) in [("done", port.resets.done), ("failed", port.resets.failed)] {
        counter!("sluicegate_port_resets_total", "port" => id.clone(), "outcome" => outcome).absolute(n);
    }
    gauge!("sluicegate_port_link_up", "port" => id.clone()).set(f64::from(u8::from(port.link.up)));
    gauge!("sluicegate_port_info", "port" => id.clone(), "device" => port.device.clone()).set(1.0);
    for (name, n) in xstats.iter().take(MOST_XSTATS) {
        gauge!("sluicegate_port_xstats", "port" => id.clone(), "name" => name.clone()).set(*n as f64);
    }
    for (name, n) in xstats {
        if let Some(allowance) = name.strip_suffix(EXCEEDED) {
            let labels = [("port", id.clone()), ("allowance", allowance.to_owned())];
            counter!("sluicegate_port_allowance_exceeded_total", &labels).absolute(*n);
        }
    }
}

fn of_flows(flows: &FlowView, names: &Names) {
    let mut tenants = vec![0u64; names.tenants.len()];
    let mut workers: Vec<(u16, u64)> = flows.capacity().map(|(worker, _)| (worker.0, 0)).collect();
    for (worker, tenant, live) in flows.live_by_number() {
        if let Some(place) = tenants.get_mut(names.tenants.place(tenant)) {
            *place += u64::from(live);
        }
        if let Some((_, sum)) = workers.iter_mut().find(|(id, _)| *id == worker.0) {
            *sum += u64::from(live);
        }
    }
    for (tenant, live) in names.tenants.names().iter().zip(tenants) {
        gauge!("sluicegate_flows", "tenant" => tenant.clone()).set(live as f64);
    }
    for (worker, live) in workers {
        gauge!("sluicegate_worker_flows", "worker" => worker.to_string()).set(live as f64);
    }
    for (worker, entries) in flows.capacity() {
        gauge!("sluicegate_flow_capacity", "worker" => worker.0.to_string()).set(entries as f64);
    }
}

/// What the management side has counted.
fn of_management(now: &ManagementSnapshot) {
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
            ("refused", checks.refused),
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

/// How reloads ended.
fn of_reloads(counts: &ReloadCounts) {
    for (outcome, n) in [("done", counts.done), ("unchanged", counts.unchanged), ("refused", counts.refused)]
    {
        counter!("sluicegate_reloads_total", "outcome" => outcome).absolute(n);
    }
    gauge!("sluicegate_reload_seconds").set(counts.took.as_secs_f64());
    gauge!("sluicegate_reload_workers_behind").set(counts.behind as f64);
}

/// How candidates' verdicts compared.
fn of_candidates(judged: &Totals) {
    gauge!("sluicegate_shadow_loaded").set(f64::from(u8::from(judged.loaded)));
    for (verdict, n) in Totals::PACKETS.into_iter().zip(judged.packets) {
        counter!("sluicegate_shadow_packets_total", "verdict" => verdict).absolute(n);
    }
    for (verdict, n) in Totals::FLOWS.into_iter().zip(judged.flows) {
        counter!("sluicegate_shadow_flows_total", "verdict" => verdict).absolute(n);
    }
}

fn of_followers(followers: &FollowSnapshot) {
    gauge!("sluicegate_event_followers").set(followers.now as f64);
    for (counts, name) in [
        (&followers.given, "sluicegate_event_followers_given_total"),
        (&followers.lost, "sluicegate_event_followers_lost_total"),
    ] {
        for kind in Type::PRODUCED {
            let n = counts.get(*kind as usize).copied().unwrap_or(0);
            counter!(name, "type" => kind.word()).absolute(n);
        }
    }
}

fn of_sinks(sinks: &[SinkSnapshot]) {
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
