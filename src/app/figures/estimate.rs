//! How large a page of figures will be, before anything runs: what `check` prints.
//!
//! Not a formula that has to be kept true beside the code: what is published of a plan with nothing counted yet is published, to a
//! recorder that counts. What only a running device knows (its xstats) is assumed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde::Serialize;

use super::{Names, Picture, Publisher};
use crate::app::PortReport;
use crate::config::{Plan, QueueCount};
use crate::dpdk::{LinkStatus, PortStats};
use crate::event::SinkSnapshot;
use crate::mgmt::ManagementSnapshot;
use crate::path::{CYCLES, Pipeline, WorkerCounters};
use crate::stage::WorkerId;

/// Xstats of a device, and of each of its queues: what `net_ena` has, rounded up.
const XSTATS: usize = 64;
const XSTATS_PER_QUEUE: usize = 32;
/// Bytes of a scrape beyond which `check` says so.
const LARGE: usize = 5_000_000;
/// Digits of a busy counter.
const DIGITS: usize = 12;
/// Series of a histogram: its buckets, the one above all of them, sum and count.
const OF_HISTOGRAM: usize = CYCLES.len() + 3;

/// What one scrape will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Lines with a value.
    pub series: usize,
    /// Bytes of the page, about.
    pub bytes: usize,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = self.bytes.div_ceil(1000);
        write!(f, "about {} series, {kb} kB", self.series)?;
        if self.bytes > LARGE {
            f.write_str("; that is large: fewer rules with export = true, or a lower metrics.max_tenants")?;
        }
        Ok(())
    }
}

impl Estimate {
    /// Of this plan, whose stages are built.
    pub fn of(plan: &Plan, pipeline: &Pipeline) -> Self {
        let names = Names::of(plan, pipeline);
        let stages = plan.stages.len();
        let workers = plan.workers.len();
        let queues = |port: &crate::config::PortPlan| match port.queues {
            QueueCount::Auto => port.config.queues,
            QueueCount::Exactly(n) => n,
        };
        let tenants = names.tenants.len();
        let mut all_queues =
            (0u16..).zip(&plan.ports).flat_map(|(n, port)| (0..queues(port)).map(move |q| (n, q)));
        let worker = |n| {
            let own: Vec<_> = match n {
                0 => all_queues.by_ref().collect(),
                _ => Vec::new(),
            };
            let counters = WorkerCounters::new(WorkerId(n), &plan.reasons, stages);
            Arc::new(counters.with_queues(own.into_iter()).with_tenants(tenants))
        };
        let counters: Vec<_> = (0..workers as u16).map(worker).collect();
        let port = |(n, port): (usize, &crate::config::PortPlan)| PortReport {
            id: n as u16,
            device: port.device.clone(),
            link: LinkStatus { up: false, speed_mbps: None },
            stats: PortStats::default(),
            resets: Default::default(),
        };
        let xstats = plan.ports.iter().map(|port| {
            let count = XSTATS + usize::from(queues(port)) * XSTATS_PER_QUEUE;
            (0..count).map(|n| (format!("rx_queue_0_some_counter_{n:04}"), 0)).collect()
        });
        let picture = Picture {
            names: Arc::new(names),
            workers: counters,
            ports: plan.ports.iter().enumerate().map(port).collect(),
            xstats: xstats.collect(),
            management: Some(ManagementSnapshot::default()),
            sinks: plan
                .events
                .sinks
                .iter()
                .map(|sink| SinkSnapshot { name: sink.name.clone(), ..SinkSnapshot::default() })
                .collect(),
            followers: Default::default(),
            reloads: Default::default(),
            judged: Default::default(),
            flows: None,
            pool: (0, 0),
        };
        let sum = Sum::default();
        metrics::with_local_recorder(&sum, || {
            Publisher::default().publish(&picture);
            if plan.flow.tracking {
                flows(plan, tenants);
            }
        });
        sum.0.into_inner().unwrap_or_else(PoisonError::into_inner).estimate()
    }
}

/// Flows are published from a table that is not there yet.
fn flows(plan: &Plan, tenants: usize) {
    for figure in super::figures().into_iter().filter(super::Figure::is_of_flows) {
        let times = match figure.labels {
            [] => 1,
            ["tenant"] => tenants,
            _ => plan.workers.len(),
        };
        for n in 0..times {
            let labels: Vec<_> = figure.labels.iter().map(|label| (*label, format!("tenant-{n}"))).collect();
            let _ = metrics::counter!(figure.name.clone(), &labels);
        }
    }
}

/// A recorder that keeps sums only.
#[derive(Default)]
struct Sum(Mutex<Found>);

#[derive(Default)]
struct Found {
    names: BTreeSet<String>,
    series: usize,
    bytes: usize,
}

impl Found {
    fn add(&mut self, key: &Key, times: usize) {
        let labels: usize = key.labels().map(|label| label.key().len() + label.value().len() + 4).sum();
        self.series += times;
        self.bytes += times * (key.name().len() + labels + DIGITS);
        self.names.insert(key.name().to_owned());
    }

    fn estimate(self) -> Estimate {
        let figures = super::figures();
        let help = |figure: &super::Figure| figure.help.len() + 2 * figure.name.len() + 32;
        let told = figures.iter().filter(|figure| self.names.contains(&figure.name));
        Estimate { series: self.series, bytes: self.bytes + told.map(help).sum::<usize>() }
    }
}

impl Sum {
    fn add(&self, key: &Key, times: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(key, times);
    }
}

impl Recorder for Sum {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.add(key, 1);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.add(key, 1);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.add(key, OF_HISTOGRAM);
        Histogram::noop()
    }
}
