use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::app::{PortReport, Resets};
use crate::config::{Cause, Options, Overrides, Plan, WorkerPlan, load_text};
use crate::dpdk::{LcorePlan, LinkStatus, PortStats};
use crate::event::{FollowSnapshot, SinkSnapshot, Type};
use crate::flow::{FlowView, Flows, FlowsShared, Seed};
use crate::mgmt::{CheckCounts, HostCounts, ManagementSnapshot, State};
use crate::packet::DropReason;
use crate::path::{CYCLES, Clock, Pipeline, TIMES, WorkerCounters};
use crate::stage::{Backend, WorkerId};

const POLICY: &str = "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[flow]\ntracking = true\ncapacity = 1024\n\
    [[tenant]]\nname = \"lab\"\nendpoints = [\"7\"]\n\
    [[stage]]\nuse = \"acl\"\nname = \"edge\"\n\
    [[stage.rule]]\naction = \"deny\"\nsource = \"192.0.2.0/24\"\n\
    [[stage.rule]]\naction = \"allow\"\nid = 7\ncomment = \"all\"\nexport = true\n\
    [[stage]]\nuse = \"count\"\nmode = \"shadow\"\n";

fn plan(text: &str) -> Plan {
    let options = Options { need_ports: false, ..Options::default() };
    let plan = load_text("t.toml", text, Path::new("/"), &Overrides::default(), &options);
    plan.unwrap_or_else(|problems| panic!("{}\n{text}", problems[0]))
}

/// The page, series by series: name with labels, and value.
fn series(page: &[u8]) -> BTreeMap<String, f64> {
    let lines = std::str::from_utf8(page).unwrap().lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// One worker whose every counter has something in it.
fn busy_worker(plan: &Plan, names: &Names) -> WorkerCounters {
    let counters = WorkerCounters::new(WorkerId(3), &plan.reasons, plan.stages.len());
    let counters = counters.with_queues([(5, 0), (5, 1)].into_iter()).with_tenants(names.tenants.len());
    counters.received.add(10);
    counters.received_bytes.add(1000);
    counters.sent.add(7);
    counters.sent_bytes.add(700);
    counters.punted.add(13);
    counters.checksum_unknown.add(14);
    counters.edited.add(15);
    counters.busy_polls.add(16);
    counters.idle_polls.add(17);
    counters.busy_cycles.add(1800);
    for (id, _, _) in plan.reasons.iter() {
        counters.drop(id, 1);
    }
    counters.drop(DropReason::TooBig.into(), 1);
    counters.flows.fill();
    counters.streams.fill();
    for kind in Type::IN_RINGS {
        counters.events.emitted[*kind as usize].add(21);
        counters.events.lost[*kind as usize].add(8);
        counters.events.limited[*kind as usize].add(23);
    }
    let answers = &counters.answers;
    for (n, counter) in (5..).zip([
        &answers.resets,
        &answers.rate_limited,
        &answers.prohibited,
        &answers.too_big,
        &answers.not_answerable,
        &answers.no_buffer,
    ]) {
        counter.add(n);
    }
    counters.held.add(7);
    counters.held_for_stages.add(9);
    counters.stream_blocks.set(19);
    counters.stream_room.set(20);
    let punt = &counters.punt;
    let all =
        [&punt.copied, &punt.refused, &punt.rate_limited, &punt.no_room, &punt.replies, &punt.no_buffer];
    for (n, counter) in (8..).zip(all) {
        counter.add(n);
    }
    counters.samples.polls.add(2);
    counters.samples.times.observe(&TIMES, 1_500, 32);
    counters.samples.times.observe(&TIMES, 2_000, 1);
    counters.queues[0].received.add(6);
    counters.queues[1].received.add(4);
    counters.queues[1].full_polls.add(1);
    let stage = &counters.stages()[0];
    stage.seen.add(9);
    stage.dropped.add(2);
    stage.panics.add(1);
    stage.cycles.observe(&CYCLES, 70, 1);
    stage.cycles.observe(&CYCLES, 90, 1);
    counters.stages()[1].would_drop.add(4);
    counters.stages()[1].would_send_home.add(5);
    let [default, lab] = &stage.tenants[..] else { panic!("two tenants") };
    default.seen.add(4);
    lab.seen.add(5);
    lab.dropped.add(2);
    lab.forwarded.add(1);
    counters
}

/// A management side that has counted.
fn management() -> ManagementSnapshot {
    let checks = CheckCounts {
        connections: 9,
        connects_only: 2,
        requests: [21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
        cut: 3,
        evicted: 4,
        refused: 5,
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
fn flows(plan: &Plan) -> (Flows, FlowView) {
    let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(0)).unwrap();
    let mut flows = Flows::new(WorkerId(3), &plan.flow, &shared, None, Arc::default());
    let view = FlowView::new(plan, vec![flows.show()], Clock::manual().0);
    (flows, view)
}

fn busy_picture(plan: &Plan) -> Picture {
    let pipeline = Pipeline::build(plan, Backend::Soft).unwrap();
    pipeline.make(WorkerId(3)); // its stages count from then on
    let names = Names::of(plan, &pipeline);
    let worker = Arc::new(busy_worker(plan, &names));
    let stats = PortStats {
        rx_packets: 12,
        rx_bytes: 1200,
        tx_packets: 11,
        tx_bytes: 1100,
        rx_missed: 2,
        rx_no_buffer: 3,
        rx_errors: 4,
        tx_errors: 5,
    };
    let link = LinkStatus { up: true, speed_mbps: None };
    let resets = Resets { done: 71, failed: 72 };
    let xstats = [("bw_in_allowance_exceeded", 17), ("rx_q0_packets", 12), ("tx_good_bytes", 0)];
    Picture {
        names: Arc::new(names),
        workers: vec![worker],
        ports: vec![PortReport { id: 5, device: "net_null0".into(), link, stats, resets }],
        xstats: vec![xstats.map(|(name, n)| (name.to_owned(), n)).to_vec()],
        management: Some(management()),
        sinks: vec![SinkSnapshot { name: "eve".into(), written: [1; _], lost: [2; _], bytes: 4, errors: 3 }],
        followers: FollowSnapshot { now: 2, given: [61; _], lost: [62; _] },
        reloads: crate::app::reload::Counts {
            done: 31,
            unchanged: 32,
            refused: 33,
            behind: 1,
            took: Duration::from_millis(40),
        },
        judged: crate::app::reload::Totals {
            loaded: true,
            packets: [51, 52, 53, 54, 55],
            flows: [56, 57, 58],
            skipped: 59,
        },
        flows: None,
        pool: (4, 3),
    }
}

#[test]
fn every_figure_is_published_under_its_name() {
    let plan = plan(POLICY);
    let (_flows, view) = flows(&plan);
    let picture = Picture { flows: Some(view), ..busy_picture(&plan) };
    let exporter = Exporter::new();
    assert!(exporter.page().is_empty());
    exporter.publish(&picture);
    let worker = &picture.workers[0];
    worker.busy_cycles.add(600);
    worker.received.add(6);
    std::thread::sleep(Duration::from_millis(2));
    exporter.publish(&picture);
    let page = exporter.page();
    let seen = series(&page);
    let value = |name: &str| *seen.get(name).unwrap_or_else(|| panic!("{name} is missing: {seen:#?}"));
    for (name, expected) in [
        ("sluicegate_received_packets_total{worker=\"3\"}", 16.0),
        ("sluicegate_sent_packets_total{worker=\"3\"}", 7.0),
        ("sluicegate_worker_cycles_per_packet{worker=\"3\"}", 100.0),
        ("sluicegate_dropped_packets_total{reason=\"edge.deny\"}", 1.0),
        ("sluicegate_dropped_packets_total{reason=\"too_big\"}", 2.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"default\",outcome=\"passed_on\"}", 4.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"lab\",outcome=\"passed_on\"}", 2.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"lab\",outcome=\"sent_home\"}", 1.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"lab\",outcome=\"dropped\"}", 2.0),
        ("sluicegate_stage_would_total{stage=\"count\",decision=\"drop\"}", 4.0),
        ("sluicegate_stage_would_total{stage=\"count\",decision=\"send_home\"}", 5.0),
        ("sluicegate_rule_hits_total{stage=\"edge\",rule=\"7 (all)\"}", 0.0),
        ("sluicegate_rule_hits_total{stage=\"edge\",rule=\"default deny\"}", 0.0),
        ("sluicegate_stage_counts_total{stage=\"count\",count=\"all: packets\"}", 0.0),
        ("sluicegate_stage_packet_cycles_bucket{stage=\"edge\",le=\"64\"}", 0.0),
        ("sluicegate_stage_packet_cycles_bucket{stage=\"edge\",le=\"128\"}", 2.0),
        ("sluicegate_stage_packet_cycles_sum{stage=\"edge\"}", 160.0),
        ("sluicegate_stage_packet_cycles_count{stage=\"edge\"}", 2.0),
        ("sluicegate_residence_seconds_bucket{le=\"0.000001\"}", 0.0),
        ("sluicegate_residence_seconds_bucket{le=\"0.000002\"}", 33.0),
        ("sluicegate_residence_seconds_bucket{le=\"+Inf\"}", 33.0),
        ("sluicegate_timed_polls_total", 2.0),
        ("sluicegate_queue_received_packets_total{port=\"5\",queue=\"1\"}", 4.0),
        ("sluicegate_queue_full_polls_total{port=\"5\",queue=\"1\"}", 1.0),
        ("sluicegate_port_missed_packets_total{port=\"5\"}", 2.0),
        ("sluicegate_port_link_up{port=\"5\"}", 1.0),
        ("sluicegate_port_info{port=\"5\",device=\"net_null0\"}", 1.0),
        ("sluicegate_port_xstats{port=\"5\",name=\"rx_q0_packets\"}", 12.0),
        ("sluicegate_port_allowance_exceeded_total{port=\"5\",allowance=\"bw_in\"}", 17.0),
        ("sluicegate_pool_available_buffers", 3.0),
        ("sluicegate_answers_total{outcome=\"reset\"}", 5.0),
        ("sluicegate_answers_total{outcome=\"rate_limited\"}", 6.0),
        ("sluicegate_answers_total{outcome=\"no_buffer\"}", 10.0),
        ("sluicegate_held_packets", 7.0),
        ("sluicegate_stage_held_packets", 9.0),
        ("sluicegate_punt_frames_total{outcome=\"copied\"}", 8.0),
        ("sluicegate_punt_frames_total{outcome=\"no_buffer\"}", 13.0),
        ("sluicegate_host_frames_total{outcome=\"sent\"}", 11.0),
        ("sluicegate_check_connections_total{on=\"port\",outcome=\"evicted\"}", 4.0),
        ("sluicegate_check_connections_total{on=\"socket\",outcome=\"refused\"}", 5.0),
        ("sluicegate_check_requests_total{on=\"port\",code=\"200\"}", 21.0),
        ("sluicegate_check_requests_total{on=\"port\",code=\"503\"}", 22.0),
        ("sluicegate_check_requests_total{on=\"socket\",code=\"431\"}", 26.0),
        ("sluicegate_check_requests_total{on=\"socket\",code=\"403\"}", 28.0),
        ("sluicegate_health_state{state=\"draining\"}", 1.0),
        ("sluicegate_health_state{state=\"ready\"}", 0.0),
        ("sluicegate_health_cause{cause=\"draining\"}", 1.0),
        ("sluicegate_health_cause{cause=\"pool-empty\"}", 0.0),
        ("sluicegate_health_flips_total", 3.0),
        ("sluicegate_events_lost_total{type=\"alert\"}", 8.0),
        ("sluicegate_event_sink_errors_total{sink=\"eve\"}", 3.0),
        ("sluicegate_event_followers", 2.0),
        ("sluicegate_event_followers_given_total{type=\"drop\"}", 61.0),
        ("sluicegate_event_followers_lost_total{type=\"drop\"}", 62.0),
        ("sluicegate_event_sink_written_total{sink=\"eve\",type=\"flow\"}", 1.0),
        ("sluicegate_flow_opened_total", 7.0),
        ("sluicegate_flow_handed_in_total{worker=\"3\"}", 10.0),
        ("sluicegate_flow_capacity{worker=\"3\"}", 1024.0),
        ("sluicegate_flows{tenant=\"lab\"}", 0.0),
        ("sluicegate_stream_gaps_total", 5.0),
        ("sluicegate_stream_blocks_used", 19.0),
        ("sluicegate_stream_blocks", 20.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!((value("sluicegate_residence_seconds_sum") - 50e-6).abs() < 1e-12);
    let policy = format!("sluicegate_policy_info{{hash=\"{}\"}}", plan.policy);
    assert_eq!(value(&policy), 1.0);
    let busy = value("sluicegate_worker_busy_ratio{worker=\"3\"}");
    assert!(busy > 0.0 && busy <= 1.0, "{busy}");
    let started = value("sluicegate_start_time_seconds");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..60.0).contains(&(now - started)));

    // What is published is what is listed, with these labels, and nothing that is listed is never fed.
    let mut found: BTreeMap<String, (BTreeSet<Vec<String>>, bool)> = BTreeMap::new();
    for (series, value) in &seen {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let labels = labels.split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split('=').next().unwrap().to_owned());
        let labels: Vec<_> = labels.filter(|label| label != "le").collect();
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let figure = found.entry(histogram.unwrap_or(name).to_owned()).or_default();
        figure.0.insert(labels);
        figure.1 |= *value > 0.0;
    }
    let listed = figures();
    for Figure { name, labels, .. } in &listed {
        let (seen, fed) = found.get(name).unwrap_or_else(|| panic!("{name} is listed, and never published"));
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [&labels], "{name}");
        // Flows, hits and the stages' own counts take packets: tests/metrics.rs.
        let by_packets = [
            "sluicegate_flows",
            "sluicegate_worker_flows",
            "sluicegate_rule_hits_total",
            "sluicegate_stage_counts_total",
        ];
        assert!(*fed || by_packets.contains(&name.as_str()), "{name} is never fed");
    }
    let listed: BTreeSet<&String> = listed.iter().map(|figure| &figure.name).collect();
    let unlisted: Vec<_> = found.keys().filter(|name| !listed.contains(name)).collect();
    assert!(unlisted.is_empty(), "published, and not listed: {unlisted:?}");
}

/// The conventions of Prometheus ("Metric and label naming"), as `promtool check metrics` has them, and those of the house.
#[test]
fn names_follow_the_conventions() {
    const UNITS: [&str; 14] = [
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "minutes",
        "hours",
        "kilobytes",
        "megabytes",
        "kib",
        "mib",
        "ms",
        "us",
        "ns",
        "kb",
        "percent",
    ];
    let mut names = BTreeSet::new();
    for Figure { name, kind, labels, help } in figures() {
        assert!(name.starts_with("sluicegate_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(!name.contains("__") && !name.ends_with('_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: {kind}");
        assert!(
            !["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)),
            "{name}: of histograms only"
        );
        assert!(name.split('_').all(|word| !UNITS.contains(&word)), "{name}: base units");
        let types = ["counter", "gauge", "histogram", "summary"];
        assert!(name.split('_').all(|word| !types.contains(&word)), "{name}: {kind} is told apart");
        for label in labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: {label}");
            assert!(
                !["le", "quantile", "job", "instance"].contains(label),
                "{name}: {label} is Prometheus' own"
            );
            assert!(!name.contains(&format!("by_{label}")), "{name}: {label}");
        }
        assert!(labels.len() <= 3, "{name}: {labels:?}");
        assert!(help.ends_with('.'), "{name}: {help}");
        assert!(names.insert(name.clone()), "{name} is listed twice");
    }
}

/// Without flows none of their figures is there; without tenants a stage's counts are those of the first.
#[test]
fn figures_of_flows_need_flows() {
    let text = "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[[stage]]\nuse = \"count\"\n";
    let plan = plan(text);
    let pipeline = Pipeline::build(&plan, Backend::Soft).unwrap();
    let names = Names::of(&plan, &pipeline);
    let counters = WorkerCounters::new(WorkerId(0), &plan.reasons, 1).with_tenants(names.tenants.len());
    counters.stages()[0].seen.add(5);
    assert!(counters.stages()[0].tenants.is_empty(), "nobody to tell apart");
    let picture = Picture {
        judged: Default::default(),
        names: Arc::new(names),
        workers: vec![Arc::new(counters)],
        ports: Vec::new(),
        xstats: Vec::new(),
        management: None,
        sinks: Vec::new(),
        followers: FollowSnapshot::default(),
        reloads: Default::default(),
        flows: None,
        pool: (4, 4),
    };
    let exporter = Exporter::new();
    exporter.publish(&picture);
    let seen = series(&exporter.page());
    assert!(!seen.keys().any(|name| name.starts_with("sluicegate_flow")), "{seen:?}");
    assert!(!seen.keys().any(|name| name.starts_with("sluicegate_stream")), "{seen:?}");
    let one = "sluicegate_stage_packets_total{stage=\"count\",tenant=\"default\",outcome=\"passed_on\"}";
    assert_eq!(seen.get(one), Some(&5.0), "{seen:?}");
}

/// A page is made once for each publication, however often it is asked for.
#[test]
fn pages_are_made_once() {
    let plan = plan(POLICY);
    let picture = busy_picture(&plan);
    let exporter = Exporter::new();
    exporter.publish(&picture);
    let (first, again) = (exporter.page(), exporter.page());
    assert!(Arc::ptr_eq(&first, &again));
    exporter.publish(&picture);
    assert!(!Arc::ptr_eq(&first, &exporter.page()));
}

/// With another plan, what only the old one had is gone; what goes on counting goes on.
#[test]
fn a_new_policy_leaves_nothing_of_the_old_one() {
    let old = busy_picture(&plan(POLICY));
    let exporter = Exporter::new();
    exporter.publish(&old);
    let new_plan = plan(&POLICY.replace("name = \"edge\"", "name = \"border\""));
    let pipeline = Pipeline::build(&new_plan, Backend::Soft).unwrap();
    let names = Arc::new(Names::of(&new_plan, &pipeline));
    exporter.publish(&Picture { names, ..old.clone() });
    let seen = series(&exporter.page());
    let with = |text: &str| seen.keys().filter(|name| name.contains(text)).count();
    assert_eq!((with("stage=\"edge\""), with(&old.names.policy)), (0, 0));
    assert!(with("stage=\"border\"") > 5 && with(&new_plan.policy) == 1);
    assert_eq!(seen["sluicegate_received_packets_total{worker=\"3\"}"], 10.0);
}

/// Histograms get what is new, and begin again with another worker's counters.
#[test]
fn observations_are_published_once() {
    let plan = plan(POLICY);
    let mut picture = busy_picture(&plan);
    let exporter = Exporter::new();
    let count = |exporter: &Exporter| series(&exporter.page())["sluicegate_residence_seconds_count"];
    exporter.publish(&picture);
    exporter.publish(&picture);
    assert_eq!(count(&exporter), 33.0);
    picture.workers[0].samples.times.observe(&TIMES, u64::MAX / 4, 1);
    exporter.publish(&picture);
    let seen = series(&exporter.page());
    assert_eq!(seen["sluicegate_residence_seconds_bucket{le=\"0.1\"}"], 33.0);
    assert_eq!(seen["sluicegate_residence_seconds_bucket{le=\"+Inf\"}"], 34.0);
    picture.workers = busy_picture(&plan).workers;
    exporter.publish(&picture);
    assert_eq!(count(&exporter), 34.0 + 33.0);
}

/// 500 tenants, 12 stages, 16 workers and 30,000 rules: one scrape under 5 MB and a second, as the issue of the management side asks, and
/// what `check` estimated. Each tenant has a label, and every rule is exported.
#[test]
fn a_large_policy_fits_into_a_scrape_alone() {
    use std::fmt::Write as _;
    let mut text = "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[flow]\ntracking = true\n[metrics]\nmax_tenants = 501\n".to_owned();
    for n in 0..500 {
        let _ = write!(text, "[[tenant]]\nname = \"customer-{n:03}\"\nendpoints = [\"{}\"]\n", n + 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let rules: String = (0..30_000)
        .map(|n| format!("deny,10.{}.{}.{}/32,rule {n},true\n", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    std::fs::write(folder.path().join("edge.csv"), format!("action,source,comment,export\n{rules}")).unwrap();
    for n in 0..11 {
        let _ = write!(text, "[[stage]]\nuse = \"count\"\nname = \"count-{n}\"\nby = \"size\"\n");
    }
    text.push_str(
        "[[stage]]\nuse = \"acl\"\nrules = \"edge.csv\"\n[[port]]\ndevice = \"0000:00:06.0\"\nqueues = 16\n",
    );
    let options = Options { need_ports: false, ..Options::default() };
    let mut plan = load_text("t.toml", &text, folder.path(), &Overrides::default(), &options).unwrap();
    let cpu = plan.workers[0].lcore.cpu;
    plan.workers = (0..16)
        .map(|n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } })
        .collect();
    let pipeline = Pipeline::build(&plan, Backend::Soft).unwrap();
    let estimate = Estimate::of(&plan, &pipeline);
    let names = Arc::new(Names::of(&plan, &pipeline));
    assert_eq!(names.tenants.len(), 501);
    let worker = |n: u16| {
        pipeline.make(WorkerId(n));
        let counters = WorkerCounters::new(WorkerId(n), &plan.reasons, plan.stages.len());
        let counters = counters.with_queues([(0, n)].into_iter()).with_tenants(names.tenants.len());
        for stage in &counters.stages() {
            stage.seen.add(123_456_789_012);
            stage.tenants.iter().for_each(|tenant| tenant.seen.add(1_234_567_890));
        }
        Arc::new(counters)
    };
    let shared = FlowsShared::of(&plan.flow, 16, Seed::fixed(0)).unwrap();
    let mut flows: Vec<Flows> =
        (0..16).map(|n| Flows::new(WorkerId(n), &plan.flow, &shared, None, Arc::default())).collect();
    let shown = flows.iter_mut().map(Flows::show).collect();
    let link = LinkStatus { up: true, speed_mbps: None };
    let picture = Picture {
        judged: Default::default(),
        workers: (0..16).map(worker).collect(),
        names,
        ports: vec![PortReport {
            id: 0,
            device: "0000:00:06.0".into(),
            link,
            stats: PortStats::default(),
            resets: Resets::default(),
        }],
        xstats: vec![(0..600).map(|n| (format!("rx_q{n}_some_counter_of_ena"), n)).collect()],
        management: Some(ManagementSnapshot::default()),
        sinks: Vec::new(),
        followers: FollowSnapshot::default(),
        reloads: Default::default(),
        flows: Some(FlowView::new(&plan, shown, Clock::manual().0)),
        pool: (1, 1),
    };
    let exporter = Exporter::new();
    // Time of this thread, since others run beside it; the quickest of three.
    let spent = || -> Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    };
    let round = |_| {
        exporter.publish(&picture);
        let begun = spent();
        let page = exporter.page();
        (spent() - begun, page)
    };
    let (made, page) = (0..3).map(round).min_by_key(|(made, ..)| *made).unwrap();
    let lines = series(&page).len();
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    let most = if cfg!(debug_assertions) { 3 } else { 1 };
    assert!(made < Duration::from_secs(most), "{made:?}");
    assert!(lines > 12 * 501 * 3 + 30_000, "{lines}");
    let near = |a: usize, b: usize| a.abs_diff(b) * 5 < b;
    assert!(near(estimate.series, lines) && near(estimate.bytes, page.len()), "{estimate:?}");
}

/// Stages come and change places by a reload; each goes on with its own figures.
#[test]
fn histograms_are_their_stages_wherever_those_stand() {
    let text = |names: &[&str]| {
        let stage = |name: &&str| format!("[[stage]]\nuse = \"count\"\nname = \"{name}\"\n");
        let stages: String = names.iter().map(stage).collect();
        format!("[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n{stages}")
    };
    let names = |stages: &[&str]| {
        let plan = plan(&text(stages));
        Arc::new(Names::of(&plan, &Pipeline::build(&plan, Backend::Soft).unwrap()))
    };
    let first = plan(&text(&["a", "b"]));
    let counters = Arc::new(WorkerCounters::new(WorkerId(0), &first.reasons, 2));
    counters.show(&["a", "b"], first.reasons.len());
    let observe = |name: &str, n| {
        counters.stage(name).cycles.observe(&CYCLES, 70, n);
        counters.stage(name).seen.add(n);
    };
    observe("a", 5);
    observe("b", 3);
    let picture = |names| Picture { names, workers: vec![counters.clone()], ..busy_picture(&plan(POLICY)) };
    let exporter = Exporter::new();
    let count = |exporter: &Exporter, what: &str, name: &str, more: &str| {
        series(&exporter.page()).get(&format!("sluicegate_stage_{what}{{stage=\"{name}\"{more}}}")).copied()
    };
    let cycles = |name: &str| count(&exporter, "packet_cycles_count", name, "");
    let passed =
        |name: &str| count(&exporter, "packets_total", name, ",tenant=\"default\",outcome=\"passed_on\"");
    let old = names(&["a", "b"]);
    exporter.publish(&picture(old.clone()));
    assert_eq!((cycles("a"), cycles("b")), (Some(5.0), Some(3.0)));
    counters.show(&["new", "b", "a"], first.reasons.len());
    // A picture from before that is published after.
    exporter.publish(&picture(old));
    assert_eq!((passed("a"), passed("b"), passed("new")), (Some(5.0), Some(3.0), None));
    observe("new", 2);
    observe("a", 1);
    exporter.publish(&picture(names(&["new", "b", "a"])));
    assert_eq!((cycles("new"), cycles("b"), cycles("a")), (Some(2.0), Some(3.0), Some(6.0)));
    assert_eq!((passed("new"), passed("b"), passed("a")), (Some(2.0), Some(3.0), Some(6.0)));
}
