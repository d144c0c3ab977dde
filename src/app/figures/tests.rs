use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;
use crate::app::PortReport;
use crate::config::{Options, Overrides, load_text};
use crate::dpdk::{LinkStatus, PoolConfig, PortStats};
use crate::flow::{Flows, FlowsShared, Seed};
use crate::mgmt::HostCounts;
use crate::packet::DropReason;
use crate::path::{Clock, WorkerCounters};
use crate::stage::WorkerId;

/// Keeps every value under its name and labels.
#[derive(Default)]
struct Notebook(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Notebook {
    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        self.0.lock().unwrap().entry(format!("{}{{{}}}", key.name(), labels.join(","))).or_default().clone()
    }
}

impl Recorder for Notebook {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn every_figure_is_published_under_its_name() {
    let mut reasons = ReasonTable::framework();
    let deny = reasons.add("edge", &[("deny", "")])[0];
    let counters = WorkerCounters::new(WorkerId(3), &reasons, 1);
    counters.received.add(10);
    counters.sent.add(7);
    counters.drop(deny, 2);
    counters.drop(DropReason::TooBig.into(), 1);
    counters.stages()[0].seen.add(9);
    counters.stages()[0].dropped.add(2);
    counters.answers.resets.add(5);
    counters.answers.rate_limited.add(6);
    counters.held.add(7);
    counters.punt.copied.add(8);
    counters.punt.no_buffer.add(2);
    counters.events.lost[Type::Alert as usize].add(8);
    counters.flows.opened.add(4);
    counters.flows.ended_idle.add(1);
    let stats = PortStats { rx_packets: 12, rx_missed: 2, ..PortStats::default() };
    let link = LinkStatus { up: true, speed_mbps: None };
    let snapshot = Snapshot {
        elapsed: Duration::ZERO,
        workers: vec![counters.snapshot()],
        ports: vec![PortReport { id: 5, device: "net_null0".into(), link, stats }],
        stages: Vec::new(),
    };
    let pool = PoolConfig { name: "t".into(), buffers: 4, data_room: 128, cache: 0, numa: None };
    let pool = Mempool::soft(&pool);
    let _out = pool.alloc();

    let (flows, view) = flows();
    let notebook = Notebook::default();
    let stages = ["edge".to_owned()];
    metrics::with_local_recorder(&notebook, || {
        publish(&snapshot, &reasons, &stages, &pool, Some(&view));
        publish_management(&management());
        publish_reloads(&crate::app::reload::Counts { done: 31, unchanged: 32, refused: 33, behind: 1 });
        publish_sinks(&[SinkSnapshot { name: "eve".into(), errors: 3, ..SinkSnapshot::default() }]);
    });
    assert_eq!(flows.live(), 0);

    let seen = notebook.0.into_inner().unwrap();
    let value =
        |name: &str| seen.get(name).unwrap_or_else(|| panic!("{name} is missing")).load(Ordering::Relaxed);
    assert_eq!(value("sluicegate_received_packets_total{worker=3}"), 10);
    assert_eq!(value("sluicegate_sent_packets_total{worker=3}"), 7);
    assert_eq!(value("sluicegate_dropped_packets_total{reason=edge.deny}"), 2);
    assert_eq!(value("sluicegate_dropped_packets_total{reason=too_big}"), 1);
    assert_eq!(value("sluicegate_stage_packets_total{stage=edge,outcome=passed_on}"), 7);
    assert_eq!(value("sluicegate_port_missed_packets_total{port=5}"), 2);
    assert_eq!(f64::from_bits(value("sluicegate_port_link_up{port=5}")), 1.0);
    assert_eq!(f64::from_bits(value("sluicegate_pool_available_buffers{}")), 3.0);
    assert_eq!(value("sluicegate_answers_total{worker=3,outcome=reset}"), 5);
    assert_eq!(value("sluicegate_answers_total{worker=3,outcome=rate_limited}"), 6);
    assert_eq!(value("sluicegate_answers_total{worker=3,outcome=no_buffer}"), 0);
    assert_eq!(f64::from_bits(value("sluicegate_held_packets{worker=3}")), 7.0);
    assert_eq!(value("sluicegate_punt_frames_total{worker=3,outcome=copied}"), 8);
    assert_eq!(value("sluicegate_punt_frames_total{worker=3,outcome=no_buffer}"), 2);
    assert_eq!(value("sluicegate_host_frames_total{outcome=sent}"), 11);
    assert_eq!(value("sluicegate_check_connections_total{on=port,outcome=evicted}"), 4);
    assert_eq!(value("sluicegate_check_connections_total{on=socket,outcome=made}"), 9);
    assert_eq!(value("sluicegate_check_requests_total{on=port,code=200}"), 21);
    assert_eq!(value("sluicegate_check_requests_total{on=port,code=503}"), 22);
    assert_eq!(value("sluicegate_check_requests_total{on=socket,code=431}"), 26);
    assert_eq!(f64::from_bits(value("sluicegate_health_state{state=draining}")), 1.0);
    assert_eq!(f64::from_bits(value("sluicegate_health_state{state=ready}")), 0.0);
    assert_eq!(f64::from_bits(value("sluicegate_health_cause{cause=draining}")), 1.0);
    assert_eq!(f64::from_bits(value("sluicegate_health_cause{cause=pool-empty}")), 0.0);
    assert_eq!(value("sluicegate_health_flips_total{}"), 3);
    assert_eq!(value("sluicegate_events_lost_total{worker=3,type=alert}"), 8);
    assert_eq!(value("sluicegate_event_sink_errors_total{sink=eve}"), 3);
    assert_eq!(value("sluicegate_event_sink_written_total{sink=eve,type=flow}"), 0);
    assert_eq!(value("sluicegate_flow_opened_total{worker=3}"), 4);
    assert_eq!(value("sluicegate_flow_ended_idle_total{worker=3}"), 1);
    assert_eq!(f64::from_bits(value("sluicegate_flow_capacity{worker=3}")), 1024.0);
    assert_eq!(f64::from_bits(value("sluicegate_flows{worker=3,tenant=lab}")), 0.0);

    // What is published is what is listed, with these labels, and by name one can tell a counter from a gauge.
    let found: BTreeSet<(String, Vec<String>)> = seen
        .keys()
        .map(|key| {
            let (name, labels) = key.trim_end_matches('}').split_once('{').unwrap();
            let labels = labels.split(',').filter(|label| !label.is_empty());
            (name.to_owned(), labels.map(|label| label.split('=').next().unwrap().to_owned()).collect())
        })
        .collect();
    let listed = figures();
    let named = |figure: &Figure| {
        (figure.name.clone(), figure.labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(found, listed.iter().map(named).collect());
    for Figure { name, kind, help, .. } in &listed {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        assert!(help.ends_with('.'), "{name}: {help}");
    }
}

/// A management side that has counted.
fn management() -> ManagementSnapshot {
    let checks = CheckCounts {
        connections: 9,
        connects_only: 2,
        requests: [21, 22, 23, 24, 25, 26],
        cut: 3,
        evicted: 4,
    };
    let host = HostCounts { received: 10, sent: 11, no_room: 12, checks };
    ManagementSnapshot {
        state: State::Draining,
        flips: 3,
        causes: vec![Cause::Draining],
        host,
        connections: 5,
        listener: checks,
    }
}

/// One worker's flows, and a view over them.
fn flows() -> (Flows, FlowView) {
    let text = "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[flow]\ntracking = true\ncapacity = 1024\n\
                [[tenant]]\nname = \"lab\"\nendpoints = [\"7\"]\n";
    let options = Options { need_ports: false, ..Options::default() };
    let plan = load_text("t.toml", text, Path::new("/"), &Overrides::default(), &options).unwrap();
    let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(0)).unwrap();
    let mut flows = Flows::new(WorkerId(3), &plan.flow, &shared, None, Arc::default());
    let view = FlowView::new(&plan, vec![flows.show()], Clock::manual().0);
    (flows, view)
}

/// Without flows none of their figures is there.
#[test]
fn figures_of_flows_need_flows() {
    let reasons = ReasonTable::framework();
    let snapshot = Snapshot {
        elapsed: Duration::ZERO,
        workers: vec![WorkerCounters::new(WorkerId(0), &reasons, 0).snapshot()],
        ports: Vec::new(),
        stages: Vec::new(),
    };
    let pool = PoolConfig { name: "t".into(), buffers: 4, data_room: 128, cache: 0, numa: None };
    let notebook = Notebook::default();
    metrics::with_local_recorder(&notebook, || {
        publish(&snapshot, &reasons, &[], &Mempool::soft(&pool), None);
    });
    let seen = notebook.0.into_inner().unwrap();
    assert!(!seen.is_empty() && !seen.keys().any(|name| name.starts_with("sluicegate_flow")));
}
