//! Figures as whoever scrapes them gets them: an application on soft ports, its page over a real socket, and parsers that are not ours.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluicegate::App;
use sluicegate::app::{Host, Publisher, RunningApp};
use sluicegate::config::{Idle, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::path::Clock;
use sluicegate::stage::WorkerId;

use common::inner::{tcp, udp, v4, wrap_from};
use common::promtool::{piped, promtool};
use common::{TUNNEL, pool_config};

/// Two tenants, a firewall with a rule that is exported, and what counts behind it.
const POLICY: &str = r#"
[flow]
tracking = true
capacity = 4096
[[tenant]]
name = "payments"
endpoints = ["1"]
[[tenant]]
name = "lab"
endpoints = ["2"]
[[stage]]
use = "acl"
name = "edge"
[[stage.rule]]
action = "deny"
protocol = "tcp"
destination_port = 23
id = 23
comment = "telnet"
export = true
[[stage.rule]]
action = "allow"
protocol = "udp"
[[stage]]
use = "count"
by = "protocol"
"#;

struct Lab {
    app: RunningApp,
    wire: Wire,
}

impl Lab {
    fn new(workers: u16, management: &str, policy: &str) -> Lab {
        let text = format!("[[port]]\ndevice = \"net_null0\"\n{TUNNEL}[management]\n{management}\n{policy}");
        let mut plan = common::plan(&text);
        plan.idle = Idle::Backoff;
        let cpu = plan.workers[0].lcore.cpu;
        plan.workers = (0..workers)
            .map(|n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } })
            .collect();
        let (port, wire) = soft::Port::with(Setup { max_queues: workers, ..Setup::default() });
        let pool = Mempool::soft(&pool_config(512));
        let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles());
        Lab { app: app.expect("it starts"), wire }
    }

    fn address(&self) -> SocketAddr {
        self.app.management().and_then(|management| management.listens_at()).expect("it listens")
    }

    /// Sends frames one after the other, each when the one before has been taken.
    fn send(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            let before = self.wire.counts().delivered;
            self.wire.send(frame);
            let begun = Instant::now();
            while self.wire.counts().delivered == before {
                assert!(begun.elapsed() < Duration::from_secs(20), "nobody takes it");
                std::thread::yield_now();
            }
        }
    }

    /// Goes on for as long as two publications may take.
    fn tick_twice(&mut self) {
        let end = Instant::now() + Duration::from_millis(2300);
        while Instant::now() < end {
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs a command while the application goes on.
    fn meanwhile(&mut self, command: &mut Command) -> String {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut out = child.stdout.take().expect("a pipe");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).expect("text");
            text
        });
        while child.try_wait().expect("a child").is_none() {
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
        reading.join().expect("text")
    }
}

/// What comes back for these bytes, whatever becomes of the connection.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    let mut bytes = [0; 65_536];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        answer.extend_from_slice(&bytes[..n]);
    }
    String::from_utf8(answer).expect("text")
}

fn get(address: SocketAddr, path: &str, more: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n"))
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

/// Type and help of each figure, as the parser of Prometheus' own client for Python reads them, and samples.
type Types = BTreeMap<String, (String, String)>;
type Samples = BTreeMap<String, f64>;

const PARSER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
out = {}
types = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    types[family.name] = (family.type, family.documentation)
    for sample in family.samples:
        key = sample.name + json.dumps(sample.labels, sort_keys=True)
        assert key not in out, "twice: " + key
        out[key] = sample.value
print(json.dumps([types, out]))
"#;

/// The page, read by prometheus_client; nothing if this machine has none.
fn parsed(page: &str) -> Option<(Types, Samples)> {
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let has = Command::new(python).args(["-c", "import prometheus_client.parser"]).output();
        has.is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        common::skipped("reading the page with prometheus_client", "no python3-prometheus-client here");
        return None;
    };
    let output = piped(Command::new(python).args(["-c", PARSER]), page);
    assert!(output.0, "{}", output.1);
    Some(serde_json::from_str(&output.1).expect("JSON"))
}

/// Known traffic comes out as known figures: curl fetches them, and a parser of somebody else's reads them.
#[test]
fn figures_are_those_of_the_traffic() {
    let mut lab = Lab::new(2, "listen = \"127.0.0.1:0\"", POLICY);
    let (client, server) = (v4(10, 1, 0, 9, 40_000), v4(10, 2, 0, 9, 53));
    let asks = |n: u16| udp((client.0, 40_000 + n), server, b"ask");
    // 40 flows of one tenant, 20 of the other, 5 of nobody, and 7 that the firewall denies.
    lab.send((0..40).map(|n| wrap_from(1, &asks(n), 7, 60_000 + n)));
    lab.send((0..20).map(|n| wrap_from(2, &asks(n), 7, 61_000 + n)));
    lab.send((0..5).map(|n| wrap_from(3, &asks(n), 7, 62_000 + n)));
    let telnet = |n: u16| tcp((client.0, 50_000 + n), (server.0, 23), "S", 1, 0, b"");
    lab.send((0..7).map(|n| wrap_from(1, &telnet(n), 7, 63_000 + n)));
    lab.tick_twice();
    let url = format!("http://{}/metrics", lab.address());
    let page = lab.meanwhile(Command::new("curl").args(["-sS", "--fail", "--max-time", "20", &url]));
    let head = get(lab.address(), "/metrics", "");
    let (head, body) = head.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    let snapshot = lab.app.snapshot();
    assert_eq!(snapshot.workers.iter().map(|worker| worker.received).sum::<u64>(), 72);

    let lines: BTreeMap<&str, f64> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series, value.parse().expect("a number")))
        .collect();
    let value = |series: &str| *lines.get(series).unwrap_or_else(|| panic!("{series} in\n{page}"));
    let sum = |name: &str| -> f64 {
        let of = |series: &&str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        lines.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    };
    for (series, expected) in [
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"payments\",outcome=\"passed_on\"}", 40.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"payments\",outcome=\"dropped\"}", 7.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"lab\",outcome=\"passed_on\"}", 20.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"lab\",outcome=\"dropped\"}", 0.0),
        ("sluicegate_stage_packets_total{stage=\"edge\",tenant=\"default\",outcome=\"passed_on\"}", 5.0),
        ("sluicegate_stage_packets_total{stage=\"count\",tenant=\"payments\",outcome=\"passed_on\"}", 40.0),
        ("sluicegate_rule_hits_total{stage=\"edge\",rule=\"23 (telnet)\"}", 7.0),
        ("sluicegate_rule_hits_total{stage=\"edge\",rule=\"default deny\"}", 0.0),
        ("sluicegate_stage_counts_total{stage=\"count\",count=\"UDP: packets\"}", 65.0),
        ("sluicegate_dropped_packets_total{reason=\"edge.deny\"}", 7.0),
        ("sluicegate_flows{tenant=\"payments\"}", 47.0),
        ("sluicegate_flows{tenant=\"lab\"}", 20.0),
        ("sluicegate_flows{tenant=\"default\"}", 5.0),
        ("sluicegate_flow_opened_total", 72.0),
        ("sluicegate_port_received_packets_total{port=\"0\"}", 72.0),
        ("sluicegate_health_state{state=\"ready\"}", 1.0),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    for (name, expected) in [
        ("sluicegate_received_packets_total", 72.0),
        ("sluicegate_queue_received_packets_total", 72.0),
        ("sluicegate_sent_packets_total", 65.0),
        ("sluicegate_worker_flows", 72.0),
    ] {
        assert_eq!(sum(name), expected, "{name}");
    }
    // One in 1,021 busy polls, beginning with the 17th: each worker that had so many has been timed once.
    let busy = snapshot.workers.iter().filter(|worker| worker.busy_polls >= 17).count() as f64;
    assert!(busy > 0.0);
    assert_eq!(sum("sluicegate_timed_polls_total"), busy);
    let (times, seconds) =
        (value("sluicegate_residence_seconds_count"), value("sluicegate_residence_seconds_sum"));
    assert!(times >= busy && seconds > 0.0, "{times} {seconds}");
    assert!(value("sluicegate_stage_packet_cycles_count{stage=\"edge\"}") >= 1.0);

    if let Some((types, samples)) = parsed(&page) {
        assert_eq!(samples.len(), lines.len(), "each line is a sample");
        let sample = |name: &str| samples.get(name).copied();
        assert_eq!(
            sample("sluicegate_rule_hits_total{\"rule\": \"23 (telnet)\", \"stage\": \"edge\"}"),
            Some(7.0)
        );
        assert_eq!(sample("sluicegate_residence_seconds_count{}"), Some(times));
        let published: BTreeMap<_, _> =
            sluicegate::app::figures().into_iter().map(|f| (f.name.clone(), f)).collect();
        for (name, (kind, help)) in &types {
            // The parser knows a counter by its name without the end.
            let figure = published.get(name).or_else(|| published.get(&format!("{name}_total")));
            let figure = figure.unwrap_or_else(|| panic!("{name} is not listed"));
            assert_eq!(kind, figure.kind, "{name}");
            assert!(help.len() > 5 && !help.contains('`') && !help.contains("]("), "{name}: {help}");
        }
    }
    promtool(&["check", "metrics"], Some(&page));
    // A program with a recorder of its own gets the same.
    let own = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&own, || lab.app.publish(&mut Publisher::default()));
    let own = own.handle().render();
    assert!(own.contains("sluicegate_rule_hits_total{stage=\"edge\",rule=\"23 (telnet)\"} 7\n"), "{own}");
    let report = lab.app.stop();
    assert!(report.is_clean(), "{:?}", report.failures);
}

/// Whoever sends nonsense, too much, or nothing at all is answered as such or cut, and others are served meanwhile.
#[test]
fn wrong_requests_are_refused() {
    let mut lab = Lab::new(1, "listen = \"127.0.0.1:0\"", "");
    lab.tick_twice();
    let address = lab.address();
    assert_eq!(code(&get(address, "/metrics", "")), 200);
    assert_eq!(code(&get(address, "/metrics?name=x", "")), 200);
    assert_eq!(code(&ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n")), 200);
    assert!(ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"), "a head has no body");
    for (request, expected) in [
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        ("GET /metric HTTP/1.1\r\n\r\n", 404),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        ("GET /metrics HTTP/2.0\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1} hello\r\n\r\n", 400),
        ("GET /metrics\r\n\r\n", 400),
    ] {
        assert_eq!(code(&ask(address, request)), expected, "{request:?}");
    }
    let long = "a".repeat(2100);
    assert_eq!(code(&get(address, "/metrics", &format!("X: {long}\r\n"))), 431);
    assert_eq!(code(&ask(address, &format!("GET /{long}"))), 431, "it need not come to an end");
    assert_eq!(code(&get(address, "/metrics", &"A: b\r\n".repeat(40))), 431);

    // More who say nothing than there is room for: whoever asks gets in all the same.
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let begun = Instant::now();
    assert_eq!(code(&get(address, "/metrics", "")), 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // One byte in half a second is no request: after three seconds it is cut, without an answer.
    let mut slow = TcpStream::connect(address).expect("a connection");
    let begun = Instant::now();
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut end = [0; 1];
    let cut = (0..20).find(|n| {
        let byte = "GET /metrics HTTP/1.1\r\n".as_bytes()[*n];
        slow.write_all(&[byte]).is_err() || matches!(slow.read(&mut end), Ok(0)) || {
            matches!(slow.read(&mut end), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
        }
    });
    let took = begun.elapsed();
    assert!(cut.is_some() && (2..6).contains(&took.as_secs()), "{cut:?} after {took:?}");
    drop(idle);
    let counts = lab.app.management().expect("it").snapshot().listener;
    assert!(counts.evicted >= 20 && counts.cut >= 1 && counts.refused == 0, "{counts:?}");
    assert!(lab.app.stop().is_clean());
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// Where other machines can reach it, figures take a token; health does not.
#[test]
fn other_machines_need_a_token() {
    let mut lab = Lab::new(1, "listen = \"0.0.0.0:0\"", "");
    lab.tick_twice();
    let here = |lab: &Lab| SocketAddr::from(([127, 0, 0, 1], lab.address().port()));
    let address = here(&lab);
    assert_eq!(code(&get(address, "/metrics", "")), 403);
    assert_eq!(code(&get(address, "/metrics", "Authorization: Bearer something-or-other\r\n")), 403);
    assert_eq!(code(&get(address, "/healthz", "")), 200);
    assert!(lab.app.stop().is_clean());

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let token = "Zm9yLXRoZS1zY3JhcGVyLW9ubHk=";
    std::fs::write(&path, format!("{token}\n")).expect("a file");
    let mut lab = Lab::new(1, &format!("listen = \"0.0.0.0:0\"\ntoken_file = {:?}", path), "");
    lab.tick_twice();
    let address = here(&lab);
    let refused = get(address, "/metrics", "");
    assert_eq!(code(&refused), 401);
    assert!(
        refused.contains("\r\nWWW-Authenticate: Bearer\r\n") && !refused.contains("sluicegate_"),
        "{refused}"
    );
    for (header, expected) in [
        (format!("Authorization: Bearer {token}"), 200),
        (format!("authorization: bearer   {token}  "), 200),
        (format!("Authorization: Basic {token}"), 401),
        (format!("Authorization: {token}"), 401),
        (format!("Authorization: Bearer {token}x"), 401),
        (format!("Authorization: Bearer {}", &token[1..]), 401),
        ("Authorization: Bearer ".to_owned(), 401),
        (format!("X-Authorization: Bearer {token}"), 401),
    ] {
        assert_eq!(code(&get(address, "/metrics", &format!("{header}\r\n"))), expected, "{header}");
    }
    assert_eq!(code(&get(address, "/livez", "")), 200);
    let answer = lab.meanwhile(
        Command::new("curl")
            .args(["-sS", "--max-time", "20", "--oauth2-bearer", token])
            .arg(format!("http://{address}/metrics")),
    );
    assert!(answer.contains("\nsluicegate_build_info{version="), "{answer}");
    assert!(lab.app.stop().is_clean());
}
