//! What is told, seen from outside: records of packets that went through all hops, examples of the documents, sinks of a running
//! application, and the program.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::App;
use sluicegate::app::{Host, Reloaded, Snapshot, stats};
use sluicegate::config::Plan;
use sluicegate::config::reload::Changed;
use sluicegate::dpdk::Mempool;
use sluicegate::dpdk::soft::{self, Setup};
use sluicegate::event::{Eve, Lines, Moment, Said, Stats, Type};
use sluicegate::path::{Clock, Differences};

use common::dns::{answer, asked, over_tcp, query};
use common::hello::{client_hello, server_hello};
use common::inner::{End, tcp, udp, v4, wrap};
use common::{Rig, TUNNEL, plan, pool_config};

/// 2026-11-24T12:00:00Z.
const NOON: u64 = 1_795_521_600_000_000_000;
const MS: u64 = 1_000_000;

const FIREWALL: &str = r#"
[events]
types = ["flow", "flow_start", "alert", "drop", "anomaly", "tls", "http", "dns", "ssh", "stats"]
account = "123456789012"

[[events.sink]]
to = "stdout"

[flow]
window_check = "drop"

[[tenant]]
name = "payments"
endpoints = ["vpce-00123456789abcdef"]

[[stage]]
use = "acl"
name = "firewall"

[[stage.rule]]
action = "log"
protocol = "tcp"
destination_port = "22"
comment = "ssh"
id = 1_000_022
severity = 2

[[stage.rule]]
action = "allow"
protocol = "tcp|udp"
destination = "10.2.0.0/16"
destination_port = "53|80|443"
"#;

fn client() -> End {
    v4(10, 1, 0, 5, 40_000)
}

fn server(port: u16) -> End {
    v4(10, 2, 0, 9, port)
}

/// One worker, and what it says as lines.
struct Teller {
    plan: Plan,
    rig: Rig,
    lines: Lines,
    now: u64,
}

impl Teller {
    fn new(more: &str) -> Self {
        let plan = plan(&format!("{TUNNEL}{FIREWALL}{more}"));
        let rig = Rig::new(&plan);
        let eve = Eve::of(&plan).with_signatures(&rig.pipeline);
        let lines = Lines::new(eve, plan.events.flow_log.clone());
        let mut teller = Teller { plan, rig, lines, now: NOON };
        teller.pass(0);
        teller
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms * MS;
        self.rig.set_clock(self.now);
    }

    fn frame(&mut self, frame: Vec<u8>) {
        self.rig.wire.send(frame);
        while self.rig.worker.poll() > 0 {}
        while self.rig.wire.receive().is_some() {}
        self.rig.settled();
    }

    /// One packet, ten milliseconds after the last.
    fn send(&mut self, inner: &[u8]) {
        self.pass(10);
        self.frame(wrap(inner, 7, 60_001));
    }

    /// What was said since the last call, as it is written.
    fn said(&mut self) -> Vec<(Said, String)> {
        let mut said = Vec::new();
        while self.rig.rings.take(|event| said.push(event)) {}
        let now = Moment::of_capture(self.now);
        let line = |event: Said| {
            let line = String::from_utf8(self.lines.json(&event, now).to_vec()).expect("UTF-8");
            (event, line.trim_end().to_owned())
        };
        said.into_iter().map(line).collect()
    }

    fn records(&mut self) -> Vec<Value> {
        self.said().iter().map(|(_, line)| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn one(&mut self, kind: &str) -> Value {
        let records = self.records();
        let mut found = records.iter().filter(|record| record["event_type"] == kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind} in {records:?}")).clone();
        assert_eq!(found.next(), None, "one {kind}");
        one
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(90),
            workers: vec![self.rig.settled()],
            ports: Vec::new(),
            stages: self.rig.pipeline.stages().map(|(_, shared)| shared.counts()).collect(),
        }
    }
}

/// A connection that is allowed, begun and reset; one that is denied; a frame of GENEVE's next version.
fn story(teller: &mut Teller) {
    let web = server(443);
    teller.send(&tcp(client(), web, "S", 100, 0, &[]));
    teller.send(&tcp(web, client(), "SA", 500, 101, &[]));
    teller.send(&tcp(client(), web, "A", 101, 501, &[]));
    teller.send(&tcp(client(), web, "PA", 101, 501, &[7; 100]));
    teller.send(&tcp(v4(10, 1, 0, 5, 40_001), server(22), "S", 900, 0, &[]));
    let mut frame = wrap(&udp(client(), server(53), b"?"), 7, 60_001);
    frame[42] |= 0x40;
    teller.pass(10);
    teller.frame(frame);
    teller.send(&tcp(client(), web, "R", 201, 0, &[]));
    teller.pass(8000);
    for _ in 0..3 {
        teller.pass(1000);
        teller.rig.worker.poll();
    }
}

/// The same with a stage that reads TLS, and a connection that is there.
fn reader(more: &str) -> Teller {
    let mut teller = Teller::new(&format!("{more}\n[[stage]]\nuse = \"tls\"\n"));
    teller.send(&tcp(client(), server(443), "S", 100, 0, &[]));
    teller.send(&tcp(server(443), client(), "SA", 500, 101, &[]));
    teller.send(&tcp(client(), server(443), "A", 101, 501, &[]));
    teller
}

/// A handshake as it should be.
fn handshake() -> Teller {
    let mut teller = reader("");
    let hello = client_hello(0x0303, &[0x0303], Some("shop.example"));
    let after = 101 + hello.len() as u32;
    teller.send(&tcp(client(), server(443), "PA", 101, 501, &hello));
    teller.send(&tcp(server(443), client(), "PA", 501, after, &server_hello(0x0303)));
    teller
}

/// A name is asked for, and answered.
fn lookup(more: &str) -> Teller {
    let mut teller = Teller::new(&format!("\n[[stage]]\nuse = \"dns\"\n{more}\n"));
    let (question, address) = (asked(16_000, "shop.example"), [203, 0, 113, 9]);
    teller.send(&udp(client(), server(53), &query(question)));
    teller.send(&udp(server(53), client(), &answer(question, &[address])));
    teller
}

/// A connection between programs that speak SSH, with a stage that knows protocols.
fn shell(more: &str) -> Teller {
    let mut teller = Teller::new(&format!("\n[[stage]]\nuse = \"appid\"\n{more}\n"));
    let (client, server) = (client(), server(443));
    teller.send(&tcp(client, server, "S", 100, 0, &[]));
    teller.send(&tcp(server, client, "SA", 500, 101, &[]));
    teller.send(&tcp(server, client, "PA", 501, 101, b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n"));
    teller.send(&tcp(client, server, "PA", 101, 533, b"SSH-2.0-Go\r\n"));
    teller
}

/// Until all flows are gone.
fn fade(teller: &mut Teller) {
    for _ in 0..200 {
        teller.pass(5000);
        teller.rig.worker.poll();
    }
}

/// What a flow speaks is in its record, wherever it was found out; and in alerts, whoever tells them.
#[test]
fn flows_and_alerts_say_what_is_spoken() {
    let mut teller = shell("");
    let records = teller.records();
    let ssh = records.iter().find(|record| record["event_type"] == "ssh").expect("a record");
    assert_eq!((&ssh["direction"], &ssh["dest_port"]), (&"to_server".into(), &443.into()), "{ssh}");
    assert_eq!(ssh["ssh"]["client"]["software_version"], "Go");
    assert!(records.iter().all(|record| record["app_proto"].is_null()), "a flow that begins speaks nothing");
    fade(&mut teller);
    let flow = teller.one("flow");
    assert_eq!((&flow["app_proto"], &flow["app_proto_orig"]), (&"ssh".into(), &Value::Null), "{flow}");

    // Mail that changes over to TLS, and mail that does not.
    for (last, app, before) in [
        (client_hello(0x0303, &[], None), "tls", Some("smtp")),
        (b"MAIL FROM:<a@b.example>\r\n".to_vec(), "smtp", None),
    ] {
        for plaintext in ["report", "deny"] {
            let mut teller =
                Teller::new(&format!("\n[[stage]]\nuse = \"appid\"\nplaintext = {plaintext:?}\n"));
            let (client, server) = (client(), server(443));
            teller.send(&tcp(client, server, "S", 100, 0, &[]));
            teller.send(&tcp(server, client, "SA", 500, 101, &[]));
            teller.send(&tcp(server, client, "PA", 501, 101, b"220 mail ESMTP\r\n"));
            teller.send(&tcp(client, server, "PA", 101, 517, b"EHLO a\r\nSTARTTLS\r\n"));
            teller.send(&tcp(client, server, "PA", 119, 517, &last));
            if before.is_some() {
                let behind = 119 + last.len() as u32;
                teller.send(&tcp(server, client, "PA", 517, behind, &server_hello(0x0303)));
            }
            let records = teller.records();
            let alerts: Vec<&Value> =
                records.iter().filter(|record| record["event_type"] == "alert").collect();
            assert_eq!(alerts.len(), usize::from(before.is_none()), "{records:?}");
            for alert in alerts {
                assert_eq!(
                    (&alert["app_proto"], &alert["stage"]),
                    (&"smtp".into(), &"appid".into()),
                    "{alert}"
                );
                let (signature, action) = (&alert["alert"]["signature"], &alert["alert"]["action"]);
                assert_eq!(signature, "unencrypted smtp");
                assert_eq!(action, if plaintext == "deny" { "blocked" } else { "allowed" });
            }
            fade(&mut teller);
            let flow = teller.one("flow");
            assert_eq!(
                (&flow["app_proto"], &flow["app_proto_orig"]),
                (&app.into(), &before.into()),
                "{flow}"
            );
            let denied = before.is_none() && plaintext == "deny";
            assert_eq!(flow["flow"]["drop_reason"] == "appid.plaintext", denied, "{flow}");
        }
    }
}

/// An alert of a stage behind names what the one before it has found out.
#[test]
fn alerts_of_later_stages_say_what_is_spoken() {
    let stages = "\n[[stage]]\nuse = \"appid\"\n[[stage]]\nuse = \"dns\"\n[[stage.rule]]\naction = \"log\"\ntypes = [\"A\"]\n";
    let mut teller = Teller::new(stages);
    for id in 0..2 {
        teller.send(&udp(client(), server(53), &query(asked(id, "shop.example"))));
        let alert = teller.one("alert");
        assert_eq!((&alert["app_proto"], &alert["stage"]), (&"dns".into(), &"dns".into()), "{alert}");
    }
}

/// A page is asked for, and answered.
fn visit(more: &str, head: &str) -> Teller {
    let mut teller = Teller::new(&format!("\n[[stage]]\nuse = \"http\"\n{more}\n"));
    teller.send(&tcp(client(), server(80), "S", 100, 0, &[]));
    teller.send(&tcp(server(80), client(), "SA", 500, 101, &[]));
    teller.send(&tcp(client(), server(80), "PA", 101, 501, head.as_bytes()));
    let answer = b"HTTP/1.1 302 Found\r\nLocation: /cart/\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nmoved";
    teller.send(&tcp(server(80), client(), "PA", 501, 101 + head.len() as u32, answer));
    teller
}

const PAGE: &str = "GET /cart?id=7 HTTP/1.1\r\nHost: shop.example:80\r\nUser-Agent: curl/8.14.1\r\nReferer: http://shop.example/\r\n\r\n";

/// The records of the documents are those of this story, to the letter, and every key in them is explained there.
#[test]
fn examples_of_the_documents_are_what_is_written() {
    let mut teller = Teller::new("");
    story(&mut teller);
    let said = teller.said();
    let mut examples: Vec<(&str, String)> = Vec::new();
    for kind in ["flow", "flow_start", "alert", "drop", "anomaly"] {
        let wanted = format!("\"event_type\":\"{kind}\"");
        let (_, line) = said.iter().find(|(_, line)| line.contains(&wanted)).expect(kind);
        examples.push((kind, line.clone()));
    }
    let handshake = handshake().said();
    let (_, line) = handshake.iter().find(|(_, line)| line.contains("\"event_type\":\"tls\"")).expect("tls");
    examples.push(("tls", line.clone()));
    let lookup = lookup("").said();
    for (name, kind) in [("dns", "answer"), ("dns-query", "query")] {
        let wanted = "\"dns\":{";
        let of = |line: &str| line.contains(wanted) && line.contains(&format!("\"type\":\"{kind}\""));
        let (_, line) = lookup.iter().find(|(_, line)| of(line)).expect(name);
        examples.push((name, line.clone()));
    }
    let shell = shell("").said();
    let (_, line) = shell.iter().find(|(_, line)| line.contains("\"event_type\":\"ssh\"")).expect("ssh");
    examples.push(("ssh", line.clone()));
    let visit = visit("", PAGE).said();
    let (_, line) = visit.iter().find(|(_, line)| line.contains("\"event_type\":\"http\"")).expect("http");
    examples.push(("http", line.clone()));
    let record = stats(&teller.plan, &teller.snapshot()).record(Stats::capture_time(teller.now));
    examples.push(("stats", record.to_string()));
    examples.push(("reload", reload_record(teller.now).to_string()));
    examples.push(("health", health_record(teller.now).to_string()));
    let ended = said.iter().find(|(_, line)| line.contains("\"event_type\":\"flow\"")).expect("a flow");
    let log = teller.lines.flow_log(&ended.0, Moment::of_capture(teller.now)).to_vec();
    examples.push(("vpc-flow-log", String::from_utf8(log).expect("UTF-8").trim_end().to_owned()));

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let mut document = std::fs::read_to_string(&path).expect("docs/events.md");
    let bless = std::env::var_os("SLUICEGATE_BLESS").is_some();
    for (kind, example) in &examples {
        let mark = format!("<!-- example: {kind} -->\n");
        let (before, rest) = document.split_once(&mark).expect(&mark);
        let (fence, rest) = rest.split_once('\n').expect("a fence");
        let (block, after) = rest.split_once("\n```").expect("a fence");
        if bless {
            document = format!("{before}{mark}{fence}\n{example}\n```{after}");
        } else {
            assert_eq!(block, example, "{kind}: SLUICEGATE_BLESS=1 cargo nextest run --test events");
        }
    }
    if bless {
        std::fs::write(&path, &document).expect("docs/events.md");
    }
    for (kind, example) in examples.iter().filter(|(kind, _)| *kind != "vpc-flow-log") {
        let mut keys = Vec::new();
        gather(&serde_json::from_str(example).expect("JSON"), &mut keys);
        for key in keys {
            assert!(
                document.contains(&format!("`{key}`")),
                "{kind}: {key} is not explained in docs/events.md"
            );
        }
    }
    for kind in Type::ALL {
        let heading = document.contains(&format!("\n## `{kind}`"));
        assert_eq!(heading, Type::PRODUCED.contains(kind), "{kind}: what nobody makes is not documented");
    }
}

/// A reload that came to something, with all keys that such a record can have.
fn reload_record(now: u64) -> Value {
    let changed = vec![Changed { key: "flow.denied".into(), old: "10s".into(), new: "20s".into() }];
    let stages =
        Differences { added: vec!["tls".into()], changed: vec!["acl".into()], kept: 1, ..Default::default() };
    let done = Reloaded::Done { stages, changed, warnings: Vec::new(), took_ms: 12, behind: Vec::new() };
    let policy = ("91fd1a22c0b8d3e7", "0c4f7ab19e5d2286");
    done.record(
        ("reload", "socket, uid 0, pid 4711"),
        policy,
        Duration::from_millis(12),
        Stats::capture_time(now),
    )
}

/// Health that has changed.
fn health_record(now: u64) -> Value {
    use sluicegate::mgmt::{Flip, Reason, State};
    let text = "worker 1 has not polled for 1.3 s; it is in inspect, stage 1 \"tls\"".into();
    let reasons = vec![Reason { cause: sluicegate::config::Cause::WorkerStuck, text }];
    Flip { from: State::Ready, to: State::Failed, reasons }.record(Stats::capture_time(now))
}

/// A file with thousands of mistakes makes one record of bounded size.
#[test]
fn the_record_of_a_refused_reload_is_bounded() {
    let problems = (0..5000).map(|n| format!("rules.csv:{n}: alow is no action")).collect();
    let restart = vec![Changed { key: "flow.capacity".into(), old: "1".into(), new: "2".into() }];
    let refused = Reloaded::Refused { problems, restart };
    let record =
        refused.record(("reload", "SIGHUP"), ("a", "a"), Duration::from_millis(3), Stats::capture_time(0));
    let reload = &record["reload"];
    assert_eq!(
        (&reload["outcome"], &reload["asked_by"], &reload["took_ms"]),
        (&"refused".into(), &"SIGHUP".into(), &3.into())
    );
    assert_eq!(reload["problems"].as_array().map(Vec::len), Some(20));
    assert_eq!(
        (&reload["problems_left_out"], &reload["restart"][0]["key"]),
        (&4980.into(), &"flow.capacity".into())
    );
    assert!(record.to_string().len() < 4096);
}

/// All keys, but those that are names of the plan.
fn gather(value: &Value, keys: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    for (key, below) in object {
        keys.push(key.clone());
        if !["drops", "stages", "counts", "events_lost"].contains(&key.as_str()) {
            gather(below, keys);
        }
    }
}

/// Every record of a flow has its number, and ends in the order of whoever opened it.
#[test]
fn records_of_a_flow_belong_together() {
    let mut teller = Teller::new("");
    teller.send(&tcp(v4(10, 1, 0, 5, 40_001), server(22), "S", 900, 0, &[]));
    let records = teller.records();
    let kinds: Vec<&str> = records.iter().filter_map(|record| record["event_type"].as_str()).collect();
    assert_eq!(kinds, ["flow_start", "alert", "drop"]);
    for record in &records {
        assert_eq!(record["flow_id"], records[0]["flow_id"], "{record}");
        assert_eq!((&record["src_ip"], &record["dest_port"]), (&"10.1.0.5".into(), &22.into()), "{record}");
        assert_eq!((&record["tenant"], &record["timestamp"]), (&"payments".into(), &records[0]["timestamp"]));
    }
    assert_eq!(
        (&records[1]["alert"]["action"], &records[1]["stage"]),
        (&"blocked".into(), &"firewall".into())
    );
    assert_eq!(records[2]["drop"]["reason"], "firewall.default_deny");
    // The flow is dropped from now on, which the first packet has told.
    teller.send(&tcp(v4(10, 1, 0, 5, 40_001), server(22), "S", 900, 0, &[]));
    assert_eq!(teller.records(), Vec::<Value>::new());
}

/// A segment outside the window is an anomaly of the stream, told the way it travelled.
/// What a hello says is told when both sides have said theirs, with the ends of the flow; and once.
#[test]
fn a_handshake_is_told_once() {
    let mut teller = handshake();
    let record = teller.one("tls");
    assert_eq!(
        (&record["src_ip"], &record["dest_port"], &record["direction"], &record["stage"]),
        (&"10.1.0.5".into(), &443.into(), &"to_server".into(), &"tls".into())
    );
    let tls = &record["tls"];
    assert_eq!((&tls["sni"], &tls["version"]), (&"shop.example".into(), &"TLS 1.2".into()), "{tls}");
    assert_eq!((&tls["cipher"], &tls["client_version"]), (&"c02f".into(), &"TLS 1.2".into()), "{tls}");
    teller.rig.worker.finish();
    assert!(teller.records().iter().all(|record| record["event_type"] != "tls"));
    // A connection that ends before the server has answered is told as far as it came.
    let mut teller = reader("");
    let hello = client_hello(0x0301, &[], Some("old.example"));
    teller.send(&tcp(client(), server(443), "PA", 101, 501, &hello));
    assert!(teller.records().iter().all(|record| record["event_type"] != "tls"));
    teller.rig.worker.finish();
    let tls = &teller.one("tls")["tls"];
    assert_eq!((&tls["sni"], &tls["version"]), (&"old.example".into(), &"TLSv1".into()), "{tls}");
    assert!(tls["ja3s"].is_null() && tls["cipher"].is_null(), "{tls}");
}

/// What speaks an old version is told and passes; the answer counts, and without one what the client offers at most.
#[test]
fn old_versions_are_told() {
    for (offered, chosen, signature) in [
        (0x0303, Some(0x0301), Some("TLS 1.0 or older")),
        (0x0303, Some(0x0303), None),
        (0x0302, None, Some("TLS 1.1 or older")),
        (0x0303, None, None),
    ] {
        let mut teller = Teller::new("\n[[stage]]\nuse = \"tls\"\nreport_below = \"1.2\"\n");
        let (client, server) = (client(), server(443));
        teller.send(&tcp(client, server, "S", 100, 0, &[]));
        teller.send(&tcp(server, client, "SA", 500, 101, &[]));
        let hello = client_hello(offered, &[], Some("old.example"));
        teller.send(&tcp(client, server, "PA", 101, 501, &hello));
        if let Some(chosen) = chosen {
            teller.send(&tcp(server, client, "PA", 501, 101 + hello.len() as u32, &server_hello(chosen)));
        }
        teller.rig.worker.finish();
        let records = teller.records();
        let alert = records.iter().find(|record| record["event_type"] == "alert");
        let said = alert.map(|alert| alert["alert"]["signature"].as_str().unwrap());
        assert_eq!(said, signature, "{offered:x} {chosen:x?}");
        assert!(alert.is_none_or(|alert| alert["alert"]["action"] == "allowed" && alert["stage"] == "tls"));
        assert!(records.iter().all(|record| record["event_type"] != "drop"));
    }
}

#[test]
fn a_malformed_hello_is_an_anomaly() {
    let mut hello = client_hello(0x0303, &[0x0304], Some("a.example"));
    hello[45] = 0x7f; // ciphers beyond the end
    for (more, dropped) in [("", false), ("malformed = \"deny\"", true)] {
        let mut teller = reader("");
        if dropped {
            teller = Teller::new(&format!("\n[[stage]]\nuse = \"tls\"\n{more}\n"));
            teller.send(&tcp(client(), server(443), "S", 100, 0, &[]));
        }
        teller.send(&tcp(client(), server(443), "PA", 101, 501, &hello));
        let record = teller.one("anomaly");
        let anomaly = &record["anomaly"];
        assert_eq!((&anomaly["type"], &anomaly["event"]), (&"applayer".into(), &"tls_malformed".into()));
        assert_eq!((&anomaly["dropped"], &record["stage"]), (&dropped.into(), &"tls".into()), "{record}");
    }
}

/// A query and its answer are a record each, with the flow's number and ends.
#[test]
fn queries_and_answers_are_told() {
    let mut teller = lookup("");
    let records: Vec<Value> = teller.records().into_iter().filter(|r| r["event_type"] == "dns").collect();
    let [query, answer] = &records[..] else { panic!("{records:?}") };
    for (record, direction) in [(query, "to_server"), (answer, "to_client")] {
        assert_eq!((&record["src_ip"], &record["dest_port"]), (&"10.1.0.5".into(), &53.into()), "{record}");
        assert_eq!((&record["direction"], &record["stage"]), (&direction.into(), &"dns".into()), "{record}");
        assert_eq!(
            (&record["dns"]["rrname"], &record["dns"]["rrtype"]),
            (&"shop.example".into(), &"A".into())
        );
        assert_eq!(record["flow_id"], query["flow_id"]);
    }
    assert_eq!((&query["dns"]["type"], &query["dns"]["tx_id"]), (&"query".into(), &0.into()));
    assert_eq!((&answer["dns"]["rcode"], &answer["dns"]["flags"]), (&"NOERROR".into(), &"8180".into()));
    assert_eq!(answer["dns"]["grouped"]["A"][0], "203.0.113.9");
}

/// A rule that is to be told of, and one that denies: the alert knows what becomes of the query, which is told as well.
#[test]
fn rules_on_names_are_told() {
    let rules = "[[stage.rule]]\naction = \"log\"\nnames = [\".example\"]\ncomment = \"shops\"\nid = 77\nseverity = 1\n\
                 [[stage.rule]]\naction = \"deny\"\ntypes = [\"A\"]\n";
    let mut teller = lookup(rules);
    let records = teller.records();
    let alerts: Vec<&Value> = records.iter().filter(|record| record["event_type"] == "alert").collect();
    assert_eq!(alerts.len(), 1, "of the query alone: {alerts:?}");
    let alert = &alerts[0]["alert"];
    assert_eq!((&alert["signature"], &alert["signature_id"]), (&"shops".into(), &77.into()));
    assert_eq!((&alert["severity"], &alert["action"]), (&1.into(), &"blocked".into()));
    let drops: Vec<&Value> = records.iter().filter(|record| record["event_type"] == "drop").collect();
    assert!(
        drops.iter().all(|record| record["drop"]["reason"] == "dns.denied") && drops.len() == 2,
        "{drops:?}"
    );
    assert_eq!(records.iter().filter(|record| record["event_type"] == "dns").count(), 2);
}

/// Messages that lie, and names that carry data, are anomalies.
#[test]
fn malformed_messages_and_tunnels_are_anomalies() {
    let long = format!("{0}.{0}.{0}.example", "x".repeat(50));
    let loops = [&query(asked(1, "a"))[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    for (more, bytes, event, dropped) in [
        ("", &loops, "dns_malformed", false),
        ("malformed = \"deny\"", &loops, "dns_malformed", true),
        ("", &query(asked(1, &long)), "dns_tunnel_length", false),
        ("[stage.tunnel]\naction = \"deny\"", &query(asked(1, &long)), "dns_tunnel_length", true),
    ] {
        for tcp_too in [false, true] {
            let mut teller = Teller::new(&format!("\n[[stage]]\nuse = \"dns\"\n{more}\n"));
            if tcp_too {
                teller.send(&tcp(client(), server(53), "S", 100, 0, &[]));
                let stream = over_tcp(std::slice::from_ref(bytes));
                teller.send(&tcp(client(), server(53), "PA", 101, 501, &stream));
            } else {
                teller.send(&udp(client(), server(53), bytes));
            }
            let record = teller.one("anomaly");
            let anomaly = &record["anomaly"];
            assert_eq!((&anomaly["type"], &anomaly["event"]), (&"applayer".into(), &event.into()), "{more}");
            assert_eq!((&anomaly["dropped"], &record["stage"]), (&dropped.into(), &"dns".into()), "{record}");
        }
    }
}

/// A request and its answer are one record, told when the answer has ended.
#[test]
fn requests_are_told_with_their_answers() {
    let record = visit("", PAGE).one("http");
    assert_eq!((&record["direction"], &record["stage"]), (&"to_client".into(), &"http".into()), "{record}");
    assert_eq!((&record["src_ip"], &record["dest_port"]), (&"10.1.0.5".into(), &80.into()), "{record}");
    let http = &record["http"];
    for (key, value) in [
        ("hostname", Value::from("shop.example")),
        ("http_port", 80.into()),
        ("url", "/cart?id=7".into()),
        ("http_user_agent", "curl/8.14.1".into()),
        ("http_content_type", "text/html".into()),
        ("http_refer", "http://shop.example/".into()),
        ("http_method", "GET".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 302.into()),
        ("redirect", "/cart/".into()),
        ("length", 5.into()),
    ] {
        assert_eq!(http[key], value, "{key}");
    }
}

/// Rules on requests: the alert knows what becomes of the request, which is told as well; and so are requests that can be read in two ways.
#[test]
fn rules_on_requests_and_smuggling_are_told() {
    let rules = "[[stage.rule]]\naction = \"log\"\npaths = [\"/cart\"]\ncomment = \"carts\"\nid = 77\n\
                 [[stage.rule]]\naction = \"deny\"\nhosts = [\".example\"]\n";
    let records = visit(rules, PAGE).records();
    let of = |kind: &str| records.iter().filter(|r| r["event_type"] == kind).collect::<Vec<_>>();
    let (alerts, drops) = (of("alert"), of("drop"));
    assert_eq!((alerts.len(), of("http").len()), (1, 1), "{records:?}");
    let alert = &alerts[0]["alert"];
    assert_eq!((&alert["signature"], &alert["action"]), (&"carts".into(), &"blocked".into()));
    assert!(drops.iter().any(|record| record["drop"]["reason"] == "http.denied"), "{drops:?}");
    let two = PAGE.replace("Host:", "Host: a.example\r\nHost:");
    let broken = PAGE.replace("Host:", "Host");
    for (settings, head, event, dropped) in [
        ("", &two, "http_ambiguous_host", false),
        ("ambiguous = \"deny\"", &two, "http_ambiguous_host", true),
        ("", &broken, "http_malformed", false),
        ("malformed = \"deny\"", &broken, "http_malformed", true),
    ] {
        let record = visit(settings, head).one("anomaly");
        let anomaly = &record["anomaly"];
        assert_eq!((&anomaly["type"], &anomaly["event"]), (&"applayer".into(), &event.into()), "{settings}");
        assert_eq!((&anomaly["dropped"], &record["stage"]), (&dropped.into(), &"http".into()), "{record}");
    }
}

/// Bytes that were sent twice, and differ: who does that wants others to read something else than we do.
#[test]
fn copies_that_differ_are_anomalies_and_few_of_a_second() {
    for (conflict, dropped) in [("pass", false), ("drop", true)] {
        let mut teller = reader(&format!("[stream]\nconflict = \"{conflict}\""));
        teller.send(&tcp(client(), server(443), "PA", 101, 501, &[22; 3]));
        teller.records();
        for _ in 0..20 {
            let other = tcp(client(), server(443), "PA", 101, 501, &[23; 3]);
            teller.frame(wrap(&other, 7, 60_001));
        }
        let anomalies: Vec<Value> =
            teller.records().into_iter().filter(|record| record["event_type"] == "anomaly").collect();
        assert_eq!(anomalies.len(), 10, "{conflict}: {anomalies:?}");
        let anomaly = &anomalies[0]["anomaly"];
        assert_eq!((&anomaly["type"], &anomaly["event"]), (&"stream".into(), &"stream_conflict".into()));
        assert_eq!(anomaly["dropped"], dropped, "{anomaly}");
        assert_eq!(teller.rig.settled().events.limited[Type::Anomaly as usize], 10);
        teller.pass(1000);
        teller.send(&tcp(client(), server(443), "PA", 101, 501, &[24; 3]));
        assert_eq!(teller.one("anomaly")["anomaly"]["skipped"], 10);
    }
}

/// Bytes that both ends have and nobody here has seen.
#[test]
fn gaps_are_anomalies() {
    let mut teller = reader("[stream]\ngap_time = \"0s\"");
    let (client, server) = (client(), server(443));
    teller.send(&tcp(client, server, "PA", 101, 501, &[22; 3]));
    teller.send(&tcp(client, server, "PA", 150, 501, &[22; 3]));
    teller.records();
    for _ in 0..10 {
        teller.send(&tcp(server, client, "A", 501, 153, &[]));
    }
    let record = teller.one("anomaly");
    let anomaly = &record["anomaly"];
    assert_eq!((&anomaly["type"], &anomaly["event"]), (&"stream".into(), &"stream_gap".into()));
    assert_eq!((&anomaly["dropped"], &record["flow_id"]), (&false.into(), &1.into()), "{record}");
}

#[test]
fn a_segment_out_of_window_is_an_anomaly() {
    let mut teller = Teller::new("");
    let web = server(443);
    teller.send(&tcp(client(), web, "S", 100, 0, &[]));
    teller.send(&tcp(web, client(), "SA", 500, 101, &[]));
    teller.send(&tcp(client(), web, "A", 101, 501, &[]));
    teller.records();
    teller.send(&tcp(web, client(), "A", 500 + (1 << 30), 101, b"forged"));
    let anomaly = teller.one("anomaly");
    assert_eq!(
        (&anomaly["anomaly"]["type"], &anomaly["anomaly"]["event"]),
        (&"stream".into(), &"tcp_invalid".into())
    );
    assert_eq!((&anomaly["direction"], &anomaly["src_ip"]), (&"to_client".into(), &"10.1.0.5".into()));
}

/// A flood makes a few records a second, and says how many it did not make.
#[test]
fn floods_are_told_in_few_words() {
    let mut teller = Teller::new("[events.drop]\nper_s = 3\n");
    // Each of another flow.
    for port in 0..20 {
        teller.pass(1);
        teller.frame(wrap(&udp(v4(10, 1, 0, 5, 1000 + port), server(9), b"?"), 7, 60_001));
    }
    let of = |records: &[Value]| -> Vec<u64> {
        let drops = records.iter().filter(|record| record["event_type"] == "drop");
        drops.map(|record| record["drop"]["skipped"].as_u64().expect("a number")).collect()
    };
    assert_eq!(of(&teller.records()), [0, 0, 0]);
    teller.pass(1000);
    teller.frame(wrap(&udp(v4(10, 1, 0, 5, 999), server(9), b"?"), 7, 60_001));
    assert_eq!(of(&teller.records()), [17]);
    let events = teller.rig.settled().events;
    let drop = Type::Drop as usize;
    assert_eq!((events.emitted[drop], events.limited[drop], events.lost[drop]), (4, 17, 0));
}

/// A ring that nobody reads fills up; what does not fit is counted, and packets go their way.
#[test]
fn a_full_ring_costs_records_and_no_packets() {
    let mut teller = Teller::new("[events.drop]\nper_s = 1000000\n");
    teller.plan.events.ring = 64;
    teller.rig = Rig::new(&teller.plan);
    teller.pass(0);
    for port in 0..200 {
        teller.frame(wrap(&udp(v4(10, 1, 0, 5, 1000 + port), server(9), b"?"), 7, 60_001));
    }
    teller.frame(wrap(&udp(client(), server(53), b"?"), 7, 60_001));
    let now = teller.rig.settled();
    let drop = Type::Drop as usize;
    assert_eq!((now.events.emitted[drop], now.events.lost[drop]), (64, 136));
    assert_eq!((now.dropped(), now.sent), (200, 1));
    // The flood of drops has cost nothing of the other types.
    teller.send(&tcp(v4(10, 1, 0, 5, 40_001), server(22), "S", 900, 0, &[]));
    assert_eq!(teller.one("alert")["alert"]["signature"], "ssh");
}

/// Of an application on ports of the test, with sinks in a folder.
fn application(sinks: &str, folder: &Path) -> (sluicegate::app::RunningApp, soft::Wire) {
    let stages = FIREWALL.split_once("[flow]").expect("a section").1;
    let text = format!("{TUNNEL}{sinks}[flow]{stages}").replace("FOLDER", &folder.display().to_string());
    let mut plan = plan(&text);
    plan.idle = sluicegate::config::Idle::Backoff;
    let (port, wire) = soft::Port::with(Setup { rx_depth: Some(4096), ..Setup::default() });
    let pool = Mempool::soft(&pool_config(8192));
    let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles()).expect("it starts");
    (app, wire)
}

fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Everything that workers say is in the file when the application has stopped: flows that were live as well, and last counters.
#[test]
fn a_running_application_writes_what_happens() {
    let folder = tempfile::tempdir().expect("a folder");
    let sinks = "[events]\ndrop = { per_s = 1000000 }\n[[events.sink]]\nto = \"file\"\npath = \"FOLDER/eve.json\"\n\
                 [[events.sink]]\nto = \"file\"\nname = \"flows\"\nformat = \"vpc-flow-log\"\npath = \"FOLDER/flows.log\"\n";
    let (app, wire) = application(sinks, folder.path());
    for n in 0..50 {
        wire.send(wrap(&udp(v4(10, 1, 0, 5, 1000 + n), server(53), b"?"), 7, 60_001));
        wire.send(wrap(&udp(v4(10, 1, 0, 5, 1000 + n), server(9), b"?"), 7, 60_001));
    }
    wait("all frames", || app.snapshot().ledger().received == 100);
    app.tick().expect("a tick");
    let report = app.stop();
    assert!(report.is_clean() && report.complaints.is_empty(), "{:?}", report.complaints);
    let records = read(&folder.path().join("eve.json"));
    let count = |kind: &str| records.iter().filter(|record| record["event_type"] == kind).count();
    assert_eq!((count("drop"), count("flow"), count("flow_start"), count("alert")), (50, 100, 0, 0));
    assert!(count("stats") >= 1);
    let last = records.iter().rfind(|record| record["event_type"] == "stats").expect("counters");
    assert_eq!(
        (&last["stats"]["ips"]["accepted"], &last["stats"]["ips"]["blocked"]),
        (&50.into(), &50.into())
    );
    assert_eq!(report.sinks[0].written.iter().sum::<u64>(), records.len() as u64);
    assert_eq!(report.sinks[0].all_lost(), 0);
    let log = std::fs::read_to_string(folder.path().join("flows.log")).expect("a file");
    let actions = |action: &str| log.lines().filter(|line| line.ends_with(&format!(" {action} OK"))).count();
    assert_eq!((actions("ACCEPT"), actions("REJECT"), log.lines().count()), (50, 50, 100), "{log}");
}

/// Each change of health is told, with its reason.
#[test]
fn health_is_told_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sinks = "[[events.sink]]\nto = \"file\"\npath = \"FOLDER/eve.json\"\n";
    let (mut app, _wire) = application(sinks, folder.path());
    let mut until = |state| {
        wait("health", || {
            app.manage();
            app.health().is_some_and(|status| status.state == state)
        });
        app.drain();
    };
    until(sluicegate::mgmt::State::Ready);
    until(sluicegate::mgmt::State::Draining);
    app.stop();
    let records = read(&folder.path().join("eve.json"));
    let told: Vec<&Value> = records.iter().filter(|record| record["event_type"] == "health").collect();
    let of = |key: &str| told.iter().map(|record| record["health"][key].clone()).collect::<Vec<_>>();
    assert_eq!(
        (of("from"), of("to")),
        (vec!["starting".into(), "ready".into()], vec!["ready".into(), "draining".into()])
    );
    assert_eq!(told[1]["health"]["reasons"][0]["cause"], "draining", "{told:?}");
}

/// A peer that never reads: the worker takes every frame at once, and what waits for the peer has a bound.
#[test]
fn a_peer_that_hangs_slows_no_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("eve.sock")).expect("a socket");
    let sinks =
        "[events]\ndrop = { per_s = 1000000 }\n[[events.sink]]\nto = \"unix\"\npath = \"FOLDER/eve.sock\"\n";
    let (app, wire) = application(sinks, folder.path());
    let frames = 30_000u64;
    for n in 0..frames {
        // Each of a flow of its own, dropped.
        let from = v4(10, 3, (n >> 8) as u8, n as u8, 1000);
        wire.send(wrap(&udp(from, server(9), b"?"), 7, 60_001));
        if n % 1024 == 1023 {
            wait("the worker keeps up", || app.snapshot().ledger().received == n + 1);
        }
    }
    wait("all frames", || app.snapshot().ledger().received == frames);
    let begun = Instant::now();
    let report = app.stop();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(report.is_clean(), "{:?}", report.failures);
    let worker = &report.snapshot.workers[0];
    assert_eq!((worker.received, worker.dropped()), (frames, frames));
    // Drops that were told are written, lost at the worker, or lost at the sink, each counted once; but for a batch in its hand.
    let drop = Type::Drop as usize;
    assert_eq!(worker.events.emitted[drop] + worker.events.lost[drop], frames);
    let sink = &report.sinks[0];
    let known = sink.written[drop] + sink.lost[drop];
    assert!(sink.lost[drop] > 1000 && known <= worker.events.emitted[drop], "{sink:?}");
    assert!(known + 1000 > worker.events.emitted[drop], "{sink:?} {:?}", worker.events);
}

#[cfg(feature = "program")]
mod program {
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::{Command, Output};

    use super::*;

    fn sluicegate(folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args(args).current_dir(folder).output().expect("the program starts")
    }

    /// A classic pcap file of raw IP packets, a second apart from noon on.
    fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 101]);
        for (second, packet) in ((NOON / 1_000_000_000) as u32..).zip(packets) {
            let len = packet.len() as u32;
            file.extend(words(&[second, 0, len, len]));
            file.extend(packet);
        }
        file
    }

    fn bench(sinks: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let stages = FIREWALL.split_once("[[tenant]]").expect("a section").1;
        let text = format!("[[port]]\ndevice = \"net_null0\"\n{TUNNEL}{sinks}[[tenant]]{stages}");
        std::fs::write(folder.path().join("edge.toml"), text).expect("a file");
        let packets = [
            udp(client(), server(53), b"where"),
            tcp(client(), server(22), "S", 900, 0, &[]),
            udp(server(53), client(), b"there"),
        ];
        std::fs::write(folder.path().join("a.pcap"), capture(&packets)).expect("a file");
        folder
    }

    /// A capture's records have the capture's time, come in its order, and are the same each time.
    #[test]
    fn a_replay_writes_the_records_of_a_capture() {
        let folder = bench("");
        let args = ["replay", "edge.toml", "--in", "a.pcap", "--events", "eve.jsonl"];
        let texts = [(), ()].map(|()| {
            let output = sluicegate(folder.path(), &args);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::read_to_string(folder.path().join("eve.jsonl")).expect("a file")
        });
        assert_eq!(texts[0], texts[1]);
        let records = read(&folder.path().join("eve.jsonl"));
        let told: Vec<(&str, &str)> = records
            .iter()
            .map(|record| {
                (
                    record["event_type"].as_str().expect("a type"),
                    record["timestamp"].as_str().expect("a time"),
                )
            })
            .collect();
        let second = |n: u32| format!("2026-11-24T12:00:0{n}.000000+0000");
        let (one, two) = (second(1), second(2));
        let expected = [("alert", &one), ("drop", &one), ("flow", &two), ("flow", &two), ("stats", &two)];
        assert_eq!(told, expected.map(|(kind, time)| (kind, time.as_str())));
        let flow = records.iter().find(|record| record["proto"] == "UDP").expect("a flow");
        assert_eq!(
            (&flow["flow"]["pkts_toclient"], &flow["flow"]["reason"]),
            (&1.into(), &"shutdown".into())
        );
        // With --flows too: both hear of the flows.
        let both = sluicegate(folder.path(), &[&args[..], &["--flows", "--json"]].concat());
        let outcome: Value = serde_json::from_slice(&both.stdout).expect("JSON");
        assert_eq!(outcome["flows"].as_array().map(Vec::len), Some(2), "{outcome}");
        assert_eq!(std::fs::read_to_string(folder.path().join("eve.jsonl")).expect("a file"), texts[0]);
        // What is read is not written over.
        let clash =
            sluicegate(folder.path(), &["replay", "edge.toml", "--in", "a.pcap", "--events", "a.pcap"]);
        assert_eq!(clash.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&clash.stderr).contains("--events a.pcap would overwrite a.pcap"));
    }

    /// Keys of Suricata 7 on top of a record, and ours.
    const KEYS: [&str; 26] = [
        "timestamp",
        "flow_id",
        "event_type",
        "src_ip",
        "src_port",
        "dest_ip",
        "dest_port",
        "proto",
        "icmp_type",
        "icmp_code",
        "direction",
        "flow",
        "tcp",
        "alert",
        "drop",
        "anomaly",
        "app_proto",
        "app_proto_orig",
        "tls",
        "stats",
        "tenant",
        "endpoint",
        "stage",
        "worker",
        "picked_up",
        "outer",
    ];

    /// A flow by its protocol and ends, in one spelling: `::ffff:1.2.3.4` is `::ffff:102:304`.
    fn key(proto: &Value, ends: [(&Value, &Value); 2]) -> String {
        let end = |(address, port): (&Value, &Value)| {
            let address: std::net::IpAddr =
                address.as_str().and_then(|text| text.parse().ok()).expect("an address");
            format!(" {address} {port}")
        };
        proto.as_str().expect("a word").to_lowercase() + &end(ends[0]) + &end(ends[1])
    }

    /// Packets of each flow in both directions, under both of its keys.
    fn packets(records: &[Value]) -> BTreeMap<String, [u64; 2]> {
        let mut counted = BTreeMap::<String, [u64; 2]>::new();
        for record in records.iter().filter(|record| record["event_type"] == "flow") {
            let (from, to) =
                ((&record["src_ip"], &record["src_port"]), (&record["dest_ip"], &record["dest_port"]));
            let [there, back] =
                ["pkts_toserver", "pkts_toclient"].map(|key| record["flow"][key].as_u64().expect("a number"));
            let sum = counted.entry(key(&record["proto"], [from, to])).or_default();
            *sum = [sum[0] + there, sum[1] + back];
            if from != to {
                let sum = counted.entry(key(&record["proto"], [to, from])).or_default();
                *sum = [sum[0] + back, sum[1] + there];
            }
        }
        counted
    }

    /// Every capture of the corpus: whole records with known keys, and as many packets in each direction of each flow as tshark counts.
    #[test]
    fn flows_of_the_corpus_have_as_many_packets_as_tshark_counts() {
        let Some(corpus) = std::env::var_os("SLUICEGATE_CORPUS").map(std::path::PathBuf::from) else {
            return common::skipped(
                "flow records",
                "SLUICEGATE_CORPUS does not name the folder of the corpus",
            );
        };
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nmax_return = \"unlimited\"\n[flow]\ntracking = true\n";
        std::fs::write(folder.path().join("all.toml"), text).expect("a file");
        let mut captures = BTreeMap::<String, Vec<Value>>::new();
        for fact in
            read(&corpus.join("expected.jsonl")).into_iter().filter(|fact| fact["kind"] == "flow.packets")
        {
            captures.entry(fact["capture"].as_str().expect("a name").to_owned()).or_default().push(fact);
        }
        let (mut right, mut left_out, mut wrong) = (0, 0, Vec::new());
        for (capture, facts) in &captures {
            let input = corpus.join("pcap").join(capture);
            let input = input.to_str().expect("UTF-8");
            let args = ["replay", "all.toml", "--in", input, "--events", "eve.jsonl", "--flows", "--json"];
            let output = sluicegate(folder.path(), &args);
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("is not Ethernet or raw IP") {
                left_out += facts.len(); // a few come from "any" interfaces
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}");
            let records = read(&folder.path().join("eve.jsonl"));
            for record in &records {
                let object = record.as_object().expect("an object");
                assert!(object.keys().all(|key| KEYS.contains(&key.as_str())), "{record}");
            }
            // Damaged packets are dropped, some (scans, a RST out of nowhere) belong to no flow, and a tunnel's own packets are no flow
            // inside it: tshark counts all of those.
            let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let none = |counter: &Value| counter.as_u64().unwrap_or(0) == 0;
            let dropped = outcome["drops"].as_object().is_none_or(|drops| !drops.is_empty());
            if dropped || !none(&outcome["flow_counters"]["stateless"]) || capture.contains("geneve") {
                left_out += facts.len();
                continue;
            }
            let counted = packets(&records);
            for fact in facts {
                let flow = &fact["flow"];
                let ends = [(&flow["src_ip"], &flow["src_port"]), (&flow["dst_ip"], &flow["dst_port"])];
                let key = key(&flow["proto"], ends);
                let expected =
                    ["src_to_dst", "dst_to_src"].map(|way| fact["value"][way].as_u64().expect("a number"));
                match counted.get(&key) {
                    Some(found) if *found == expected => right += 1,
                    // Behind PPPoE and the like there is a packet that `replay` does not wrap.
                    None if !none(&outcome["ledger"]["punted"]) => left_out += 1,
                    found => wrong.push(format!("{capture} {key}: {found:?}, tshark {expected:?}")),
                }
            }
        }
        common::say(&format!("{right} flows right, {left_out} left out, {} wrong", wrong.len()));
        assert!(right >= 800 && wrong.is_empty(), "{right} right\n{}", wrong.join("\n"));
    }

    /// Every TLS capture of the corpus: one record for a flow, and in it what tshark, nDPI and Suricata read.
    #[test]
    fn handshakes_of_the_corpus_are_what_others_read() {
        let Some(corpus) = common::capture::corpus("handshakes_of_the_corpus_are_what_others_read") else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nmax_return = \"unlimited\"\n[events]\ntypes = [\"tls\"]\n\
                    [[stage]]\nuse = \"tls\"\n";
        std::fs::write(folder.path().join("tls.toml"), text).expect("a file");
        type Known = BTreeMap<(String, &'static str), BTreeSet<String>>;
        let mut captures = BTreeMap::<String, Known>::new();
        for fact in read(&corpus.join("expected.jsonl")) {
            let kind = fact["kind"].as_str().expect("a word");
            let field = match kind.strip_prefix("tls.").or(kind.strip_prefix("dtls.")) {
                Some("sni") => "sni",
                Some("negotiated_version") => "version",
                Some("cipher") => "cipher",
                Some("alpn_selected") => "server_alpns",
                Some("ja3") => "ja3",
                Some("ja3s") => "ja3s",
                Some("ja4") => "ja4",
                _ => continue,
            };
            let value = fact["value"].as_str().expect("a text");
            // Flows that begin in the middle may be told or not; a hello may be without a name.
            if value.is_empty() || fact["handshake"] == false {
                continue;
            }
            let key = (fact["key"].as_str().expect("a key").to_owned(), field);
            let capture = fact["capture"].as_str().expect("a name").to_owned();
            captures.entry(capture).or_default().entry(key).or_default().insert(value.to_owned());
        }
        let (mut right, mut wrong, mut missing) = (0, Vec::new(), Vec::new());
        for (capture, known) in &captures {
            let input = corpus.join("pcap").join(capture);
            let args =
                ["replay", "tls.toml", "--in", input.to_str().expect("UTF-8"), "--events", "eve.jsonl"];
            let output = sluicegate(folder.path(), &args);
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("is not Ethernet or raw IP") {
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}");
            let (mut told, mut flows) = (Known::new(), BTreeSet::new());
            for record in read(&folder.path().join("eve.jsonl")) {
                assert_eq!(record["event_type"], "tls", "{record}");
                assert!(flows.insert(record["flow_id"].to_string()), "{capture}: two of one flow: {record}");
                let end = |address: &str, port: &str| {
                    (
                        record[address].as_str().expect("an address").to_owned(),
                        record[port].as_u64().expect("a port"),
                    )
                };
                let mut ends = [end("src_ip", "src_port"), end("dest_ip", "dest_port")];
                ends.sort();
                let [(a, b), (c, d)] = &ends;
                let key =
                    format!("{} {a}:{b} {c}:{d}", record["proto"].as_str().expect("a word").to_lowercase());
                let tls = &record["tls"];
                for (field, value) in [
                    ("sni", &tls["sni"]),
                    ("version", if tls["cipher"].is_null() { &Value::Null } else { &tls["version"] }),
                    ("cipher", &tls["cipher"]),
                    ("server_alpns", &tls["server_alpns"][0]),
                    ("ja3", &tls["ja3"]["hash"]),
                    ("ja3s", &tls["ja3s"]["hash"]),
                    ("ja4", &tls["ja4"]),
                ] {
                    let Some(value) = value.as_str() else { continue };
                    let value = match value {
                        "SSLv3" => "SSL 3.0".to_owned(),
                        "TLSv1" => "TLS 1.0".to_owned(),
                        value if field == "cipher" => format!("0x{value}"),
                        value => value.split(" draft-").next().unwrap_or_default().to_owned(),
                    };
                    told.entry((key.clone(), field)).or_default().insert(value);
                }
            }
            for (key, values) in known {
                let plain = |value: &str| value.split(" (").next().unwrap_or_default().to_owned();
                let values: BTreeSet<String> =
                    values.iter().flat_map(|value| [value.clone(), plain(value)]).collect();
                match told.get(key) {
                    Some(ours) if ours.is_subset(&values) => right += 1,
                    Some(ours) => wrong.push(format!("{capture} {key:?}: {ours:?}, others {values:?}")),
                    None => missing.push(format!("{capture} {key:?}: {values:?}")),
                }
            }
        }
        common::say(&format!("{right} facts right, {} wrong, {} missing", wrong.len(), missing.len()));
        missing.iter().take(40).for_each(|line| common::say(line));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let all = right + missing.len();
        assert!(right >= 700 && right * 100 >= all * 99, "{right} of {all}\n{}", missing.join("\n"));
    }

    /// What flows of the corpus speak: right in their records for at least 97 of a hundred whose protocol the stage names.
    #[test]
    fn protocols_of_the_corpus_are_what_others_read() {
        let Some(corpus) = common::capture::corpus("protocols_of_the_corpus_are_what_others_read") else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nmax_return = \"unlimited\"\n[events]\ntypes = [\"flow\"]\n\
                    [[stage]]\nuse = \"appid\"\n";
        std::fs::write(folder.path().join("appid.toml"), text).expect("a file");
        let mut captures = BTreeMap::<String, Vec<Value>>::new();
        for fact in read(&corpus.join("expected.jsonl")) {
            // What lies within VXLAN is not looked into.
            let capture = fact["capture"].as_str().expect("a name").to_owned();
            let inside = fact["tunnelled"] == true || capture == "sv/vxlan-decoder-03.pcap";
            if fact["kind"] == "app_proto" && !inside {
                captures.entry(capture).or_default().push(fact);
            }
        }
        let (mut right, mut all, mut missing) = (0, 0, Vec::new());
        for (capture, facts) in &captures {
            let input = corpus.join("pcap").join(capture);
            let args =
                ["replay", "appid.toml", "--in", input.to_str().expect("UTF-8"), "--events", "eve.jsonl"];
            let output = sluicegate(folder.path(), &args);
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("is not Ethernet or raw IP") {
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}");
            let mut told = BTreeMap::<String, BTreeSet<String>>::new();
            for record in read(&folder.path().join("eve.jsonl")) {
                assert_eq!(record["event_type"], "flow", "{record}");
                let ends = [("src_ip", "src_port"), ("dest_ip", "dest_port")]
                    .map(|(address, port)| (&record[address], &record[port]));
                let words =
                    ["app_proto", "app_proto_orig"].map(|key| record[key].as_str().map(str::to_owned));
                for ends in [ends, [ends[1], ends[0]]] {
                    told.entry(key(&record["proto"], ends))
                        .or_default()
                        .extend(words.clone().into_iter().flatten());
                }
            }
            for fact in facts {
                let accept = fact["accept"].as_array().expect("a list").iter();
                let accept: Vec<&str> = accept
                    .map(|word| word.as_str().expect("a word"))
                    .map(|word| if word == "ipsec" { "ike" } else { word })
                    .collect();
                if sluicegate::packet::App::named(accept[0]).is_none() {
                    continue;
                }
                let flow = &fact["flow"];
                let ends = [(&flow["src_ip"], &flow["src_port"]), (&flow["dst_ip"], &flow["dst_port"])];
                let ours = told.get(&key(&flow["proto"], ends));
                all += 1;
                match ours.is_some_and(|ours| ours.iter().any(|word| accept.contains(&word.as_str()))) {
                    true => right += 1,
                    false => missing.push(format!("{capture} {}: {accept:?}, ours {ours:?}", fact["key"])),
                }
            }
        }
        common::say(&format!("{right} of {all} flows, {} missing", missing.len()));
        missing.iter().take(40).for_each(|line| common::say(line));
        assert!(all > 300 && right * 100 >= all * 97, "{right} of {all}\n{}", missing.join("\n"));
    }

    /// Every DNS capture of the corpus: a record for each query and answer that tshark finds, and in it what it reads.
    #[test]
    fn lookups_of_the_corpus_are_what_others_read() {
        let Some(corpus) = common::capture::corpus("lookups_of_the_corpus_are_what_others_read") else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nmax_return = \"unlimited\"\n[events]\ntypes = [\"dns\"]\n\
                    [[stage]]\nuse = \"dns\"\n";
        std::fs::write(folder.path().join("dns.toml"), text).expect("a file");
        let mut captures = BTreeMap::<String, Vec<Value>>::new();
        for fact in read(&corpus.join("expected.jsonl")) {
            let is_dns = fact["kind"].as_str().expect("a word").starts_with("dns.");
            // What lies within VXLAN is not looked into.
            if is_dns && fact["tunnelled"] != true {
                captures.entry(fact["capture"].as_str().expect("a name").to_owned()).or_default().push(fact);
            }
        }
        // Words of the table of types and outcomes, as far as the corpus has them.
        let kinds = [
            (1, "A"),
            (2, "NS"),
            (5, "CNAME"),
            (12, "PTR"),
            (15, "MX"),
            (16, "TXT"),
            (28, "AAAA"),
            (33, "SRV"),
            (35, "NAPTR"),
            (41, "OPT"),
            (44, "SSHFP"),
            (48, "DNSKEY"),
        ];
        let outcomes = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
        let (mut right, mut all, mut missing) = (0, 0, Vec::new());
        for (capture, facts) in &captures {
            let input = corpus.join("pcap").join(capture);
            let args =
                ["replay", "dns.toml", "--in", input.to_str().expect("UTF-8"), "--events", "eve.jsonl"];
            let output = sluicegate(folder.path(), &args);
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("is not Ethernet or raw IP") {
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}");
            let mut told = BTreeMap::<String, usize>::new();
            for record in read(&folder.path().join("eve.jsonl")) {
                assert_eq!(record["event_type"], "dns", "{record}");
                let ends = [("src_ip", "src_port"), ("dest_ip", "dest_port")];
                let key =
                    key(&record["proto"], ends.map(|(address, port)| (&record[address], &record[port])));
                let dns = &record["dns"];
                let (name, rcode) = (dns["rrname"].as_str(), dns["rcode"].as_str());
                let (name, kind) = (name.unwrap_or_default(), dns["rrtype"].as_str().unwrap_or_default());
                *told.entry(format!("{key} {} {name} {kind} {rcode:?}", dns["id"])).or_default() += 1;
            }
            for fact in facts {
                let (flow, value) = (&fact["flow"], &fact["value"]);
                let there = [(&flow["src_ip"], &flow["src_port"]), (&flow["dst_ip"], &flow["dst_port"])];
                let number = value["rrtype"].as_u64().expect("a number");
                let kind = kinds.iter().find(|(known, _)| *known == number);
                let kind = kind.map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned());
                let rcode = value["rcode"].as_u64().map(|rcode| outcomes[rcode as usize]);
                let name = value["rrname"].as_str().expect("a name");
                all += 1;
                let ways = [there, [there[1], there[0]]].map(|ends| {
                    format!("{} {} {name} {kind} {rcode:?}", key(&flow["proto"], ends), value["id"])
                });
                let way = ways.iter().find(|way| told.get(*way).is_some_and(|times| *times > 0));
                match way.and_then(|way| told.get_mut(way)) {
                    Some(times) => (*times, right) = (*times - 1, right + 1),
                    None => missing.push(format!("{capture} {fact}")),
                }
            }
        }
        common::say(&format!("{right} of {all} facts, {} missing", missing.len()));
        missing.iter().take(40).for_each(|line| common::say(line));
        assert!(right * 100 >= all * 99 && right > 900, "{right} of {all}\n{}", missing.join("\n"));
    }

    /// Every HTTP capture of the corpus: a record for each request and answer that others find, and in it what they read.
    #[test]
    fn visits_of_the_corpus_are_what_others_read() {
        let Some(corpus) = common::capture::corpus("visits_of_the_corpus_are_what_others_read") else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nmax_return = \"unlimited\"\n[events]\ntypes = [\"http\"]\n\
                    [[stage]]\nuse = \"http\"\n";
        std::fs::write(folder.path().join("http.toml"), text).expect("a file");
        let mut captures = BTreeMap::<String, Vec<Value>>::new();
        for fact in read(&corpus.join("expected.jsonl")) {
            let is_http = fact["kind"].as_str().expect("a word").starts_with("http.");
            // What lies within VXLAN is not looked into.
            if is_http && fact["tunnelled"] != true {
                captures.entry(fact["capture"].as_str().expect("a name").to_owned()).or_default().push(fact);
            }
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (mut right, mut all, mut missing) = (0, 0, Vec::new());
        for (capture, facts) in &captures {
            let input = corpus.join("pcap").join(capture);
            let args =
                ["replay", "http.toml", "--in", input.to_str().expect("UTF-8"), "--events", "eve.jsonl"];
            let output = sluicegate(folder.path(), &args);
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("is not Ethernet or raw IP") {
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}");
            let mut told = BTreeMap::<String, usize>::new();
            for record in read(&folder.path().join("eve.jsonl")) {
                assert_eq!(record["event_type"], "http", "{record}");
                let http = &record["http"];
                let mut ends = [("src_ip", "src_port"), ("dest_ip", "dest_port")].map(|(address, port)| {
                    let address: std::net::IpAddr = word(&record[address]).parse().expect("an address");
                    (address, record[port].as_u64())
                });
                ends.sort();
                if http["http_method"].is_string() {
                    let port = http["http_port"].as_u64().map(|port| format!(":{port}")).unwrap_or_default();
                    let (method, host) = (word(&http["http_method"]), word(&http["hostname"]) + &port);
                    let (url, agent) = (word(&http["url"]), word(&http["http_user_agent"]));
                    *told.entry(format!("{ends:?} {method} {host} {url} {agent}")).or_default() += 1;
                }
                if let Some(status) = http["status"].as_u64() {
                    *told.entry(format!("{ends:?} {status}")).or_default() += 1;
                }
            }
            for fact in facts {
                let (flow, value) = (&fact["flow"], &fact["value"]);
                let mut ends = [("src_ip", "src_port"), ("dst_ip", "dst_port")].map(|(address, port)| {
                    let address: std::net::IpAddr = word(&flow[address]).parse().expect("an address");
                    (address, flow[port].as_u64())
                });
                ends.sort();
                let wanted = match value.as_u64() {
                    Some(status) => format!("{ends:?} {status}"),
                    None => {
                        let [method, host, url, agent] =
                            ["method", "host", "uri", "user_agent"].map(|key| word(&value[key]));
                        format!("{ends:?} {method} {host} {url} {agent}")
                    }
                };
                all += 1;
                match told.get_mut(&wanted).filter(|times| **times > 0) {
                    Some(times) => (*times, right) = (*times - 1, right + 1),
                    None => missing.push(format!("{capture} {fact}")),
                }
            }
        }
        common::say(&format!("{right} of {all} facts, {} missing", missing.len()));
        missing.iter().take(40).for_each(|line| common::say(line));
        assert!(right * 100 >= all * 99 && right > 1000, "{right} of {all}\n{}", missing.join("\n"));
    }

    /// logrotate's way with the program as it runs: rename, SIGHUP, and a file that begins anew.
    #[cfg(feature = "dpdk")]
    #[test]
    fn a_hangup_reopens_files() {
        let folder =
            bench("[events]\nstats_every = \"1s\"\n[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n");
        let prefix = common::prefix("hangup");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args(["run", "edge.toml", "--set", "eal.memory=no-huge", "--stats-interval", "0s"]);
        command.env("SLUICEGATE_EAL__FILE_PREFIX", &prefix).env("SLUICEGATE_EAL__IDLE", "backoff");
        let mut child = command
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        let send = |signal: &str, pid: u32| {
            let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill");
            assert!(status.success());
        };
        let (path, moved) = (folder.path().join("eve.json"), folder.path().join("eve.json-1"));
        let lines = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
        wait("a record", || lines(&path) > 0);
        std::fs::rename(&path, &moved).expect("a rename");
        send("-HUP", child.id());
        wait("a record in a new file", || lines(&path) > 0);
        let before = lines(&moved);
        wait("another one", || lines(&path) > 1);
        send("-TERM", child.id());
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert_eq!(lines(&moved), before, "the old file is done with");
        let is_known =
            |record: &Value| ["stats", "reload", "health"].iter().any(|kind| record["event_type"] == *kind);
        assert!(read(&path).iter().chain(&read(&moved)).all(is_known));
        common::assert_nothing_left(&prefix);
    }
}
