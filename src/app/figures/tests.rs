use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;
use crate::app::PortReport;
use crate::dpdk::{LinkStatus, PoolConfig, PortStats};
use crate::packet::DropReason;
use crate::path::WorkerCounters;
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
    counters.stages[0].seen.add(9);
    counters.stages[0].dropped.add(2);
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

    let notebook = Notebook::default();
    metrics::with_local_recorder(&notebook, || publish(&snapshot, &reasons, &["edge".into()], &pool));

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
    for name in seen.keys().map(|key| key.split('{').next().unwrap()) {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        // What has no `_total` is a gauge.
        assert!(name.ends_with("_total") || name.ends_with("_buffers") || name.ends_with("_up"), "{name}");
    }
}
