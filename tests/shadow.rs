//! A candidate beside the pipeline in force: what it would do is counted and told, and nothing comes of it; it can be put in force, or let go.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::App;
use sluicegate::app::{Host, Reloaded, RunningApp, ShadowStatus};
use sluicegate::config::{self, Idle, Machine, Options, Overrides, Plan, Problem, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::packet::{Packet, Verdict};
use sluicegate::path::Clock;
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerPacket, Shared, Stage, StageKind, WorkerId};

use common::hello::client_hello;
use common::inner::{End, tcp, udp, v4, wrap};
use common::{TUNNEL, pool_config};

const PATIENCE: Duration = Duration::from_secs(30);

/// A stage of the tests that does what a stage can: edits, rejects, panics, by the destination port.
static WILD: StageKind = StageKind {
    name: "wild",
    summary: "",
    help: "",
    example: "",
    reasons: &[("no", "it does not pass")],
    parse: |_| Ok(Box::new(Wild)),
};

#[derive(Clone, Copy, Debug)]
struct Wild;

impl Inspect for Wild {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        match packet.meta().destination_port {
            1 => {
                assert!(packet.patch(8, &[1]), "the TTL");
                Verdict::Next
            }
            2 => Verdict::Reject(cx.reason(0)),
            3 => panic!("as it may"),
            _ => Verdict::Next,
        }
    }
}

impl Parsed for Wild {
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(Wild))
    }
}

impl Shared for Wild {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(Wild))
    }
}

static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::here);

fn load(text: &str) -> Result<Plan, Vec<Problem>> {
    let text = format!("{TUNNEL}\n[flow]\ntracking = true\ncapacity = 4096\n{text}");
    let kinds: Vec<&'static StageKind> = sluicegate::stages::ALL.iter().copied().chain([&WILD]).collect();
    let options = Options { need_ports: false, kinds: &kinds, machine: MACHINE.clone(), files: true };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = config::load_text("test.toml", &text, root, &Overrides::default(), &options)?;
    let cpu = plan.workers[0].lcore.cpu;
    plan.idle = Idle::Backoff;
    plan.workers = vec![WorkerPlan { id: WorkerId(0), lcore: LcorePlan { lcore: 1, cpu } }];
    Ok(plan)
}

struct House {
    app: RunningApp,
    wire: Wire,
    sent: u64,
}

impl House {
    fn new(text: &str) -> House {
        let (port, wire) = soft::Port::with(Setup::default());
        let plan = load(text).unwrap();
        let pool = Mempool::soft(&pool_config(4096));
        let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles()).unwrap();
        House { app, wire, sent: 0 }
    }

    fn wait(&mut self) -> Reloaded {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE);
            if let Some(reloaded) = self.app.manage().reloaded {
                return reloaded;
            }
            std::thread::yield_now();
        }
    }

    fn reload(&mut self, text: &str) -> Reloaded {
        let text = text.to_owned();
        self.app.reload(Box::new(move || load(&text))).expect("none is under way");
        self.wait()
    }

    fn shadow(&mut self, text: &str) -> Reloaded {
        let text = text.to_owned();
        self.app.shadow("the test", Box::new(move || load(&text))).expect("none is under way");
        self.wait()
    }

    fn shadowed(&mut self, text: &str) {
        let reloaded = self.shadow(text);
        assert!(matches!(&reloaded, Reloaded::Shadowed { behind, .. } if behind.is_empty()), "{reloaded:?}");
    }

    /// One packet at a time, so that what a flow has settled holds for its next one; what came back, if anything.
    fn send(&mut self, inner: &[u8]) -> Option<Vec<u8>> {
        self.wire.send(wrap(inner, 7, 60_001));
        self.sent += 1;
        let begun = Instant::now();
        let counted = |app: &RunningApp| {
            let now = app.snapshot().ledger();
            now.sent - now.made + now.dropped + now.held
        };
        while counted(&self.app) < self.sent {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        self.wire.receive()
    }

    fn udp(&mut self, flow: u8, port: u16) -> bool {
        self.send(&udp(v4(10, 1, 0, flow, 40_000), v4(192, 0, 2, 1, port), b"x")).is_some()
    }

    fn status(&mut self) -> ShadowStatus {
        // Examples are gathered when heartbeats are looked at.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(600) {
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.app.shadow_status().expect("a candidate")
    }

    fn dropped(&self, label: &str) -> u64 {
        let drops = self.app.snapshot().drops();
        let id = self.app.plan().reasons.iter().find(|(_, other, _)| *other == label).map(|reason| reason.0);
        id.map_or(0, |id| drops[usize::from(id.0)])
    }

    fn stop(self) {
        let report = self.app.stop();
        assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
    }
}

fn acl(rules: &[(&str, u16)], default: &str) -> String {
    let rule = |(action, port): &(&str, u16)| {
        format!(
            "    {{ action = \"{action}\", protocol = \"udp\", destination_port = {port}, comment = \"{action} {port}\" }},\n"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    format!("[[stage]]\nuse = \"acl\"\ndefault = \"{default}\"\nrule = [\n{rules}]\n")
}

fn counts(map: &serde_json::Map<String, Value>, words: &[&str]) -> Vec<u64> {
    words.iter().map(|word| map.get(*word).and_then(Value::as_u64).unwrap_or(0)).collect()
}

fn packets(status: &ShadowStatus) -> Vec<u64> {
    counts(&status.packets, &["agree", "would_drop", "would_pass", "waiting", "not_compared"])
}

fn flows(status: &ShadowStatus) -> Vec<u64> {
    counts(&status.flows, &["judged", "would_drop", "would_pass"])
}

#[test]
fn differences_are_counted_by_reason_and_told_with_both_rules() {
    let folder = tempfile::tempdir().unwrap();
    let eve = folder.path().join("eve.json");
    let sink = format!("[[events.sink]]\nto = \"file\"\npath = {eve:?}\ntypes = [\"shadow\", \"reload\"]\n");
    let before = format!("{}{sink}", acl(&[("allow", 443), ("allow", 53)], "deny"));
    let after = format!("{}{sink}", acl(&[("allow", 443), ("deny", 53), ("allow", 123)], "deny"));
    let mut house = House::new(&before);
    assert!(house.app.shadow_status().is_none());
    house.shadowed(&after);
    for flow in 1..=10 {
        // Settled by the first packet: what comes then is not compared any more.
        for _ in 0..3 {
            assert!(house.udp(flow, 443) && house.udp(flow, 53));
            assert!(!house.udp(flow, 123) && !house.udp(flow, 80));
        }
    }
    let status = house.status();
    assert_eq!(packets(&status), [20, 10, 10, 0, 0], "{status:?}");
    assert_eq!(flows(&status), [40, 10, 10]);
    assert_eq!(counts(&status.would_drop, &["acl.deny"]), [10]);
    assert_eq!(counts(&status.would_pass, &["acl.default_deny"]), [10]);
    let stage = &status.stages[0];
    assert_eq!((stage.stage.as_str(), stage.seen, stage.dropped), ("acl", 40, 20));
    assert_eq!(stage.counts.values().filter_map(Value::as_u64).sum::<u64>(), 40, "hits of its rules");
    // What counts is the pipeline in force, and only that.
    let acl = &house.app.snapshot().stage_totals()[0];
    assert_eq!((acl.seen, acl.dropped), (40, 20));
    let hits: u64 = house.app.snapshot().stages[0].iter().map(|(_, n)| n).sum();
    assert_eq!(hits, 40);
    let text = status.lines().join("\n");
    assert!(
        text.contains("would drop 10: acl.deny") && text.contains("would pass 10: acl.default_deny"),
        "{text}"
    );
    assert!(text.contains("-> 192.0.2.1:53: pass (allow 53) now, acl.deny (deny 53) then"), "{text}");
    house.stop();
    let records: Vec<Value> = std::fs::read_to_string(eve)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<&Value> = records.iter().filter(|record| record["event_type"] == "shadow").collect();
    assert!((10..=20).contains(&told.len()), "{}", told.len());
    let of = |word: &str| *told.iter().find(|record| record["shadow"]["difference"] == word).expect(word);
    let (drop, pass) = (of("would_drop"), of("would_pass"));
    assert_eq!(
        (&drop["dest_port"], &drop["proto"], &drop["src_port"]),
        (&53.into(), &"UDP".into(), &40_000.into())
    );
    let says = |record: &Value, who: &str| {
        ["verdict", "reason", "stage", "rule"]
            .map(|key| record["shadow"][who][key].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(says(drop, "active"), ["pass", "", "acl", "allow 53"]);
    assert_eq!(says(drop, "candidate"), ["drop", "acl.deny", "acl", "deny 53"]);
    assert_eq!(says(pass, "active"), ["drop", "acl.default_deny", "acl", "default"]);
    assert_eq!(says(pass, "candidate"), ["pass", "", "acl", "allow 123"]);
    let loaded = records.iter().find(|record| record["event_type"] == "reload").expect("a record");
    assert_eq!(
        (&loaded["reload"]["asked_for"], &loaded["reload"]["outcome"]),
        (&"shadow".into(), &"shadowed".into())
    );
    assert_eq!(loaded["reload"]["policy"], drop["shadow"]["policy"]);
    // Every key of both is explained.
    let document = include_str!("../docs/events.md");
    for record in [drop, loaded] {
        let kind = record["event_type"].as_str().unwrap();
        for (key, below) in record[kind].as_object().unwrap() {
            let keys = below.as_object().into_iter().flat_map(|below| below.keys());
            for key in keys.chain([key]) {
                assert!(document.contains(&format!("`{key}`")), "{kind}: {key}");
            }
        }
    }
}

#[test]
fn nothing_comes_of_a_candidate_whatever_it_does() {
    let pass = "[[stage]]\nuse = \"count\"\nby = \"direction\"\n";
    let mut alone = House::new(pass);
    let mut beside = House::new(pass);
    beside.shadowed(&format!("{pass}[[stage]]\nuse = \"wild\"\n"));
    for port in [1, 2, 3, 4] {
        for _ in 0..3 {
            let inner = udp(v4(10, 1, 0, 1, 40_000), v4(192, 0, 2, 1, port), b"bytes");
            let (one, two) = (alone.send(&inner), beside.send(&inner));
            assert!(one.is_some() && one == two, "port {port}");
        }
    }
    let status = beside.status();
    // Edited packets pass; those of a panic are dropped, as its on_error says.
    assert_eq!(packets(&status), [6, 6, 0, 0, 0], "{status:?}");
    assert_eq!(counts(&status.would_drop, &["wild.no", "stage_panic"]), [3, 3]);
    assert_eq!(status.stages[1].panics, 3);
    let now = beside.app.snapshot();
    assert_eq!((now.ledger().made, now.ledger().dropped, now.ledger().sent), (0, 0, 12));
    alone.stop();
    beside.stop();
}

#[test]
fn a_candidate_reads_streams_of_its_own() {
    let tls = "[[stage]]\nuse = \"tls\"\ndeny_names = [\"x.example\"]\n";
    let ends = |n: u8| -> [End; 2] { [v4(10, 0, 0, n, 40_000), v4(192, 0, 2, 1, 443)] };
    let open = |house: &mut House, n: u8| {
        let [client, server] = ends(n);
        for inner in [
            tcp(client, server, "S", 99, 0, b""),
            tcp(server, client, "SA", 499, 100, b""),
            tcp(client, server, "A", 100, 500, b""),
        ] {
            assert!(house.send(&inner).is_some());
        }
    };
    let hello = client_hello(0x0303, &[0x0304], Some("x.example"));
    let (first, second) = hello.split_at(hello.len() / 2);
    let say = |house: &mut House, n: u8| {
        let [client, server] = ends(n);
        let one = house.send(&tcp(client, server, "PA", 100, 500, first)).is_some();
        let at = 100 + first.len() as u32;
        (one, house.send(&tcp(client, server, "PA", at, 500, second)).is_some())
    };
    let mut house = House::new("");
    open(&mut house, 1);
    house.shadowed(tls);
    // A connection from before is none of its business; of a new one it waits for the second half of the hello.
    assert_eq!(say(&mut house, 1), (true, true));
    assert_eq!(packets(&house.status())[..4], [1, 0, 0, 0], "one packet says that nobody wants to know");
    open(&mut house, 2);
    assert_eq!(say(&mut house, 2), (true, true));
    let status = house.status();
    assert_eq!(packets(&status), [4, 1, 0, 1, 0], "{status:?}");
    assert_eq!(counts(&status.would_drop, &["tls.name"]), [1], "{status:?}");
    assert_eq!(house.app.snapshot().ledger().dropped, 0);
    // In force it does what it said, and what it had half read counts from the beginning for new connections only.
    house.app.promote("the test").unwrap();
    assert!(matches!(house.wait(), Reloaded::Done { .. }));
    open(&mut house, 3);
    let (held, gone) = say(&mut house, 3);
    assert!(!held && !gone || house.dropped("tls.name") >= 1);
    house.stop();
}

#[test]
fn flows_from_before_are_judged_as_a_reload_would_judge_them() {
    let mut house = House::new(&acl(&[("allow", 443), ("allow", 53)], "deny"));
    for flow in 1..=5 {
        assert!(house.udp(flow, 443) && house.udp(flow, 53) && !house.udp(flow, 80));
    }
    house.shadowed(&acl(&[("allow", 443), ("allow", 80)], "deny"));
    for flow in 1..=5 {
        assert!(house.udp(flow, 443) && house.udp(flow, 53) && !house.udp(flow, 80));
    }
    let status = house.status();
    // What is dropped by now is dropped before any stage, and is not compared.
    assert_eq!(packets(&status), [5, 5, 0, 0, 0], "{status:?}");
    assert_eq!(flows(&status), [10, 5, 0]);
    // Kept, as on_reload says: nobody asks them.
    let keep = acl(&[("allow", 443)], "deny").replace("use = \"acl\"", "use = \"acl\"\non_reload = \"keep\"");
    house.shadowed(&keep);
    for flow in 1..=5 {
        assert!(house.udp(flow, 53));
    }
    assert_eq!(packets(&house.status()), [5, 0, 0, 0, 0]);
    house.shadowed(&keep.replace("keep", "drop"));
    for flow in 1..=5 {
        assert!(house.udp(flow, 53));
    }
    let status = house.status();
    assert_eq!(
        (packets(&status), counts(&status.would_drop, &["on_reload"])),
        (vec![0, 5, 0, 0, 0], vec![5])
    );
    house.stop();
}

#[test]
fn it_is_put_in_force_as_it_was_loaded_or_let_go() {
    let first = acl(&[("allow", 443)], "deny");
    let second = acl(&[("allow", 443), ("allow", 53)], "deny");
    let mut house = House::new(&first);
    assert_eq!(house.app.promote("the test").unwrap_err(), "no candidate is loaded");
    assert_eq!(house.app.cancel_shadow("the test").unwrap_err(), "no candidate is loaded");
    let read = Arc::new(AtomicU64::new(0));
    let (text, reads) = (second.clone(), read.clone());
    let once = move || {
        reads.fetch_add(1, Ordering::Relaxed);
        load(&text)
    };
    house.app.shadow("the test", Box::new(once)).unwrap();
    assert!(house.app.reload(Box::new(|| unreachable!())).is_err(), "one thing at a time");
    assert!(matches!(house.wait(), Reloaded::Shadowed { .. }));
    assert!(!house.udp(1, 53));
    let policy = house.app.plan().policy.clone();
    house.app.promote("the test").unwrap();
    let promoted = house.wait();
    let Reloaded::Done { stages, .. } = &promoted else { panic!("{promoted:?}") };
    assert_eq!(stages.changed, ["acl"]);
    assert_ne!(house.app.plan().policy, policy);
    assert!(house.app.shadow_status().is_none() && house.udp(2, 53) && house.udp(1, 53), "asked again");
    assert_eq!(read.load(Ordering::Relaxed), 1);
    let hits: u64 = house.app.snapshot().stages[0].iter().map(|(_, n)| n).sum();
    assert_eq!(hits, 3, "what the candidate counted is not the pipeline's");
    // Let go; and gone with another plan.
    house.shadowed(&first);
    house.app.cancel_shadow("the test").unwrap();
    assert!(matches!(house.wait(), Reloaded::Cancelled { .. }));
    assert!(house.app.shadow_status().is_none() && house.udp(3, 53));
    house.shadowed(&first);
    assert!(matches!(house.reload(&format!("{second}[[stage]]\nuse = \"count\"\n")), Reloaded::Done { .. }));
    assert!(house.app.shadow_status().is_none());
    // The same plan again leaves it where it is.
    house.shadowed(&first);
    assert_eq!(house.reload(&format!("{second}[[stage]]\nuse = \"count\"\n")), Reloaded::Unchanged);
    assert!(house.app.shadow_status().is_some());
    house.stop();
}

#[test]
fn what_cannot_be_judged_is_refused_and_degrades_nothing() {
    let first = acl(&[("allow", 443)], "deny");
    let mut house = House::new(&format!("{first}[management.health]\nhold = \"0s\"\n"));
    let refused = |house: &mut House, text: &str| match house.shadow(text) {
        Reloaded::Refused { problems, restart } => (problems.join("\n"), restart.len()),
        other => panic!("{other:?}"),
    };
    assert!(refused(&mut house, &first.replace("allow", "alow")).0.contains("alow"));
    assert_eq!(refused(&mut house, &format!("handoff_ring = 2048\n{first}")), (String::new(), 1));
    assert!(house.app.shadow_status().is_none());
    let status = house.app.health().unwrap();
    assert!(status.reasons.iter().all(|reason| !reason.text.contains("alow")), "{status:?}");
    // Values that are not of stages are said not to be judged.
    let other = format!("tcp_idle = \"400s\"\n{first}[management.health]\nhold = \"0s\"\n");
    let loaded = house.shadow(&other);
    let Reloaded::Shadowed { not_judged, bytes, .. } = &loaded else { panic!("{loaded:?}") };
    assert!(not_judged[0].key == "flow.tcp_idle" && *bytes > 4096 * 12, "{loaded:?}");
    house.stop();
    // Sixteen stages leave no bit.
    let many: String = (0..16)
        .map(|n| format!("[[stage]]\nuse = \"count\"\nby = \"direction\"\nname = \"c{n}\"\n"))
        .collect();
    let mut house = House::new(&many);
    assert!(refused(&mut house, &first).0.contains("as many stages as there can be"));
    house.stop();
}

/// Candidates that come and go while packets flow: none is lost, and nothing grows.
#[test]
fn a_hundred_candidates_under_load_lose_nothing() {
    let first = acl(&[("allow", 443), ("allow", 53)], "deny");
    let candidates = [
        acl(&[("allow", 443)], "deny"),
        format!("{first}[[stage]]\nuse = \"tls\"\ndeny_below = \"1.2\"\n"),
        "[[stage]]\nuse = \"sample\"\none_in = 2\n".to_owned(),
    ];
    let mut house = House::new(&first);
    let (mut sent, mut back) = (0u64, 0u64);
    let mut feed = |wire: &Wire| {
        while wire.receive().is_some() {
            back += 1;
        }
        while sent < back + 64 {
            let (client, server) =
                (v4(10, 1, (sent / 200 % 250) as u8, (sent % 200) as u8, 40_000), v4(192, 0, 2, 1, 443));
            wire.send(wrap(&udp(client, server, b"x"), 7, 60_001));
            sent += 1;
        }
        (sent, back)
    };
    for n in 0..100 {
        match n % 4 {
            3 => house.app.cancel_shadow("the test").unwrap(),
            n => {
                let text = candidates[n].clone();
                house.app.shadow("the test", Box::new(move || load(&text))).unwrap();
            }
        }
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE);
            feed(&house.wire);
            if let Some(reloaded) = house.app.manage().reloaded {
                assert!(reloaded.is_good(), "{reloaded:?}");
                break;
            }
        }
    }
    let begun = Instant::now();
    let (sent, mut back) = feed(&house.wire);
    while back < sent {
        assert!(begun.elapsed() < PATIENCE, "{} are lost", sent - back);
        back += house.wire.receive().map_or(0, |_| 1);
    }
    assert_eq!(house.app.snapshot().ledger().dropped, 0);
    house.stop();
}

/// A candidate that gives a tenant another pipeline judges by that one.
#[test]
fn a_candidate_has_pipelines_of_tenants_of_its_own() {
    let text = |pipeline: &str| {
        let stage = |name: &str, port: u16| {
            let rule =
                format!("rule = [{{ action = \"deny\", destination_port = {port}, protocol = \"udp\" }}]");
            format!(
                "[[stage]]\nuse = \"acl\"\nname = \"{name}\"\npipelines = [\"{name}\"]\ndefault = \"allow\"\n{rule}\n"
            )
        };
        let tenant = "[[tenant]]\nname = \"b\"\nendpoints = [5]\npipeline = \"two\"\n[[tenant]]\nname = \"c\"\npipeline = \"one\"\n";
        let mine = "endpoints = [\"vpce-0123456789abcdef\"]".replace("vpce-", "vpce-0");
        let mine = format!("[[tenant]]\nname = \"mine\"\n{mine}\npipeline = \"{pipeline}\"\n");
        format!("{mine}{tenant}{}{}", stage("one", 2), stage("two", 3))
    };
    let mut house = House::new(&text("one"));
    let packet = |n: u8, port: u16| udp(v4(10, 1, 0, n, 40_000), v4(192, 0, 2, 1, port), b"bytes");
    assert!(house.send(&packet(1, 2)).is_none() && house.send(&packet(1, 3)).is_some());
    house.shadowed(&text("two"));
    for n in 2..4 {
        assert!(house.send(&packet(n, 2)).is_none() && house.send(&packet(n, 3)).is_some());
        assert!(house.send(&packet(n, 4)).is_some());
    }
    let status = house.status();
    assert_eq!(packets(&status)[..3], [2, 2, 2], "agree, would drop, would pass: {status:?}");
    assert_eq!(counts(&status.would_drop, &["two.deny"]), [2]);
    assert_eq!(counts(&status.would_pass, &["one.deny"]), [2]);
    house.stop();
}
