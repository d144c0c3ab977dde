//! The admin API over its socket, before an application on soft ports: what it says of packets that were counted here.

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::App;
use sluicegate::app::{Host, RunningApp};
use sluicegate::config::{Idle, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::mgmt::admin::client::{Client, Error};
use sluicegate::path::Clock;
use sluicegate::stage::WorkerId;

use common::inner::{End, tcp, udp, v4, wrap_from};
use common::{TUNNEL, pool_config};

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
comment = "telnet"
[[stage.rule]]
action = "allow"
protocol = "udp"
comment = "all UDP"
"#;

/// An application with its socket.
pub struct Lab {
    app: RunningApp,
    wire: Wire,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(management: &str, policy: &str) -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let text = format!(
            "[[port]]\ndevice = \"net_null0\"\n{TUNNEL}[management]\nsocket = {socket:?}\n{management}\n{policy}"
        );
        let mut plan = common::plan(&text);
        plan.idle = Idle::Backoff;
        let cpu = plan.workers[0].lcore.cpu;
        plan.workers = vec![WorkerPlan { id: WorkerId(0), lcore: LcorePlan { lcore: 1, cpu } }];
        let (port, wire) = soft::Port::with(Setup::default());
        let pool = Mempool::soft(&pool_config(512));
        let mut app = App::new(plan);
        assert_eq!(app.open_admin().expect("a socket"), None);
        let app = app.start_on(Host::Threads, vec![port], pool, Clock::cycles()).expect("it starts");
        Lab { app, wire, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Sends frames, each when the one before has been taken.
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
        std::thread::sleep(Duration::from_millis(20)); // until the last is through
    }

    /// Does something as a client while the application goes on.
    fn meanwhile<T: Send + 'static>(&mut self, work: impl FnOnce(Client) -> T + Send + 'static) -> T {
        let client = Client::new(&self.socket());
        let thread = std::thread::spawn(move || work(client));
        while !thread.is_finished() {
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("the client")
    }

    fn get(&mut self, what: &'static str, query: &'static [(&str, &str)]) -> Value {
        self.meanwhile(move |client| client.get(what, query))
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn refused(&mut self, what: &'static str, query: &'static [(&str, &str)]) -> Value {
        match self.meanwhile(move |client| client.get(what, query)) {
            Err(Error::Refused { answer, .. }) => answer,
            other => panic!("{what}: {other:?}"),
        }
    }

    fn post(&mut self, what: &'static str, query: &'static [(&str, &str)], body: &'static str) -> Value {
        match self.meanwhile(move |client| client.post(what, query, body)) {
            Err(Error::Refused { answer, .. }) => answer,
            other => other.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
    }
}

fn client(n: u8) -> End {
    v4(10, 1, 0, n, 40_000)
}

fn server(port: u16) -> End {
    v4(10, 2, 0, 9, port)
}

/// Ten UDP flows of one tenant, of growing size; telnet and a packet that no rule takes of another.
fn traffic() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = (0..10u8)
        .flat_map(|n| (0..=n).map(move |_| wrap_from(1, &udp(client(n), server(53), &[n; 64]), 7, 60_001)))
        .collect();
    frames.push(wrap_from(2, &tcp(client(1), server(23), "S", 1, 0, b""), 8, 60_002));
    frames.push(wrap_from(2, &tcp(client(2), server(80), "S", 1, 0, b""), 9, 60_003));
    frames.push(vec![0; 60]);
    frames
}

/// Status and counters are those of the packets that were sent.
#[test]
fn status_and_stats_say_what_was_counted() {
    let mut lab = Lab::new("", POLICY);
    lab.send(traffic());
    lab.meanwhile(|_| std::thread::sleep(Duration::from_millis(2300)));
    let status = lab.get("status", &[]);
    assert_eq!(
        (&status["version"], &status["ok"], &status["state"]),
        (&json!(1), &json!(true), &json!("ready"))
    );
    assert_eq!((&status["fit"], &status["reasons"]), (&json!(true), &json!([])));
    assert_eq!(status["flows"], json!({ "live": 12, "capacity": 4096 }));
    assert_eq!(status["stages"], json!(["edge"]));
    assert_eq!(status["workers"][0]["received"], json!(58));
    assert_eq!((&status["workers"][0]["sent"], &status["workers"][0]["dropped"]), (&json!(55), &json!(2)));
    assert_eq!(status["workers"][0]["queues"], json!([{ "port": 0, "queue": 0 }]));
    let busy = status["workers"][0]["rate"]["busy_ratio"].as_f64().expect("a ratio");
    assert!((0.0..=1.0).contains(&busy));
    assert_eq!((&status["ports"][0]["link"]["up"], &status["events_lost"]), (&json!(true), &json!(0)));
    assert_eq!(status["reload"]["last"], Value::Null);
    assert!(
        status["policy"].as_str().is_some_and(|hash| hash.len() >= 16)
            && status["uptime_s"].as_f64() > Some(2.0)
    );

    let stats = lab.get("stats", &[]);
    assert_eq!(stats["drops"], json!({ "edge.deny": 1, "edge.default_deny": 1 }));
    let edge = &stats["stages"][0];
    assert_eq!((&edge["stage"], &edge["dropped"], &edge["panics"]), (&json!("edge"), &json!(2), &json!(0)));
    let rules = edge["counts"].as_object().expect("rules");
    assert!(rules.iter().any(|(label, n)| label.contains("all UDP") && n.as_u64() == Some(10)), "{rules:?}");
    assert_eq!((&stats["received"], &stats["sent"], &stats["punted"]), (&json!(58), &json!(55), &json!(1)));
    assert_eq!((&stats["flows"]["opened"], &stats["flows"]["live"]), (&json!(12), &json!(12)));
    let ledger = &stats["ledger"];
    assert_eq!((&ledger["received"], &ledger["dropped"]), (&json!(58), &json!(2)));
    assert_eq!(stats["workers"][0]["drops"], stats["drops"]);
    assert_eq!(stats["ports"][0]["stats"]["rx_packets"], json!(58));
}

/// Flows are found by every term, sorted, limited, counted and flushed.
#[test]
fn flows_are_found_and_flushed() {
    let mut lab = Lab::new("", POLICY);
    lab.send(traffic());
    let all = lab.get("flows", &[]);
    assert_eq!(
        (all["flows"].as_array().map(Vec::len), &all["matching"], &all["more"]),
        (Some(12), &json!(12), &json!(false))
    );
    let top = lab.get("flows", &[("sort", "packets"), ("limit", "3")]);
    let packets: Vec<_> = (0..3).map(|n| top["flows"][n]["packets"][0].as_u64()).collect();
    assert_eq!((packets, &top["more"]), (vec![Some(10), Some(9), Some(8)], &json!(true)));
    assert_eq!(lab.get("flows", &[("sort", "bytes"), ("limit", "1")])["flows"][0]["source"], "10.1.0.9");
    for (filter, n) in [
        (&[("filter", "tenant=payments")], 10),
        (&[("filter", "endpoint=2")], 2),
        (&[("filter", "protocol=tcp verdict=condemned")], 2),
        (&[("filter", "port=23")], 1),
        (&[("filter", "address=10.1.0.0/31")], 3),
        (&[("filter", "src=10.2.0.9")], 0),
        (&[("filter", "state=first age=0s")], 10),
        (&[("filter", "idle=1h")], 0),
    ] {
        assert_eq!(lab.get("flows", filter)["matching"], json!(n), "{filter:?}");
        assert_eq!(lab.get("flows/count", filter)["flows"], json!(n), "{filter:?}");
    }
    let telnet = lab.get("flows", &[("filter", "port=23")]);
    let flow = &telnet["flows"][0];
    assert_eq!(
        (&flow["reason"], &flow["tenant"], &flow["verdict"]),
        (&json!("edge.deny"), &json!("lab"), &json!("condemned"))
    );
    assert_eq!(flow["envelopes"][0]["port"], json!(60_002));
    assert_eq!(lab.get("flows/count", &[])["tenants"], json!({ "payments": 10, "lab": 2 }));

    for (query, error, text) in [
        (&[("filter", "port=99999")][..], "bad-request", "is no port"),
        (&[("filter", "tenant=nobody")], "bad-request", "there is no tenant \"nobody\""),
        (&[("sort", "size")], "bad-request", "is not one of bytes, packets, age, idle"),
        (&[("limit", "0")], "bad-request", "is not a number from 1 to 10000"),
        (&[("limit", "1"), ("wat", "2")], "bad-request", "\"wat\" is not known here"),
    ] {
        let said = lab.meanwhile(move |client| client.get("flows", query));
        let Err(Error::Refused { answer, .. }) = said else { panic!("{query:?}: {said:?}") };
        assert_eq!(answer["error"], error, "{answer}");
        assert!(answer["text"].as_str().is_some_and(|said| said.contains(text)), "{answer}");
    }
    let wrong = lab.refused("flows", &[("filter", "tenant=lab port=99999")]);
    assert_eq!((&wrong["at"], &wrong["length"]), (&json!(16), &json!(5)));

    assert_eq!(lab.refused("flows/flush", &[])["error"], "method");
    assert!(lab.post("flows/flush", &[], "")["text"].as_str().is_some_and(|text| text.contains("all=true")));
    assert_eq!(lab.post("flows/flush", &[("filter", "tenant=lab")], "")["asked"], json!(2));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(lab.get("flows/count", &[])["flows"], json!(10));
    assert_eq!(lab.post("flows/flush", &[("all", "true")], "")["asked"], json!(10));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(lab.get("flows/count", &[])["flows"], json!(0));
}

/// What is not there is named, and so is what is.
#[test]
fn paths_and_commands_that_are_not_known_are_refused() {
    let mut lab = Lab::new("", "");
    let none = lab.refused("nothing", &[]);
    assert_eq!(none["error"], "not-found");
    assert!(none["text"].as_str().is_some_and(|text| text.contains("status, stats, flows")), "{none}");
    let list = lab.get("", &[]);
    assert!(
        list["paths"].as_array().is_some_and(|paths| paths.iter().any(|path| path["path"] == "/v1/status"))
    );
    assert_eq!(lab.refused("flows", &[])["error"], "not-found");
    assert_eq!(lab.get("status", &[])["flows"], Value::Null);
    assert_eq!(lab.refused("status", &[("x", "y")])["error"], "bad-request");
    assert_eq!(lab.post("status", &[], "")["error"], "method");
    assert_eq!(lab.post("command", &[], "{\"version\":1,\"command\":\"sing\"}")["error"], "bad-request");
    let other = lab.meanwhile(|client| client.post("command", &[], "{\"version\":2}"));
    assert!(matches!(other, Err(Error::Foreign { .. })), "{other:?}");
}

/// Where nobody manages, nobody waits for ever; and when it ends, nobody is left.
#[test]
fn a_management_side_that_hangs_is_named() {
    let lab = Lab::new("", POLICY);
    let client = Client::new(&lab.socket());
    let begun = Instant::now();
    match client.get("status", &[]) {
        Err(Error::Refused { error, text, .. }) => {
            assert!(error == "late" && text.contains("it hangs"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(client.get("flows", &[]).is_ok(), "flows are read where they are");
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.get("status", &[])
    });
    std::thread::sleep(Duration::from_millis(200));
    let socket = lab.socket();
    lab.app.stop();
    let said = waiting.join().expect("a client");
    // The answer may be on its way when the connection is cut.
    let is_told = matches!(&said, Err(Error::Refused { error, .. }) if error == "stopping");
    let is_cut = matches!(&said, Err(Error::Io { .. }))
        || matches!(&said, Err(Error::Foreign { what, .. }) if what.contains("breaks off"));
    assert!(is_told || is_cut, "{said:?}");
    assert!(!socket.exists());
}

/// On `management.listen`: only where it is said, only to whom figures are shown, and only what changes nothing.
#[test]
fn over_tcp_one_may_look() {
    let curl = |lab: &mut Lab, more: &'static [&'static str], path: &str| {
        let address = lab.app.management().and_then(|m| m.listens_at()).expect("it listens");
        let url = format!("http://{address}{path}");
        lab.meanwhile(move |_| {
            let mut command = std::process::Command::new("curl");
            let output = command.args(["-s", "--max-time", "20"]).args(more).arg(url).output().expect("curl");
            String::from_utf8(output.stdout).expect("text")
        })
    };
    let mut lab = Lab::new("listen = \"127.0.0.1:0\"\napi = true", POLICY);
    assert!(curl(&mut lab, &[], "/v1/status").contains("\"state\":\"ready\""));
    assert!(curl(&mut lab, &[], "/v1/flows?limit=3").contains("\"matching\":0"));
    assert_eq!(curl(&mut lab, &["-X", "POST"], "/v1/flows/flush?all=true"), "GET or HEAD\n");
    assert_eq!(
        curl(&mut lab, &["-d", "{\"version\":1,\"command\":\"reload\"}"], "/v1/command"),
        "GET or HEAD\n"
    );
    assert!(curl(&mut lab, &[], "/v2/status").starts_with("paths are"));
    drop(lab);
    let mut lab = Lab::new("listen = \"127.0.0.1:0\"", POLICY);
    assert!(curl(&mut lab, &[], "/v1/status").starts_with("paths are"), "nobody said so");
    drop(lab);
    let mut lab = Lab::new("listen = \"0.0.0.0:0\"\napi = true", POLICY);
    assert!(curl(&mut lab, &[], "/v1/status").contains("need management.token_file"));
    drop(lab);
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef").expect("a file");
    let mut lab = Lab::new(&format!("listen = \"0.0.0.0:0\"\napi = true\ntoken_file = {token:?}"), POLICY);
    assert!(curl(&mut lab, &[], "/v1/stats").contains("show the token"));
    assert!(
        curl(&mut lab, &["-H", "Authorization: Bearer 0123456789abcdeX"], "/v1/stats")
            .contains("show the token")
    );
    assert!(
        curl(&mut lab, &["-H", "Authorization: Bearer 0123456789abcdef"], "/v1/stats").contains("\"ledger\"")
    );
}

/// What tshark sees in a capture: side, fate, flow there or not.
fn shown(file: &std::path::Path) -> Vec<(String, String)> {
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"];
    let mut command = std::process::Command::new("tshark");
    let output = command.arg("-r").arg(file).args(fields).output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let cells = |line: &str| line.split_once('\t').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text.lines().filter_map(cells).collect()
}

impl Lab {
    /// What a capture of this traffic comes to.
    fn capture(&mut self, query: &'static [(&str, &str)], frames: Vec<Vec<u8>>) -> PathBuf {
        let path = self.folder.path().join("out.pcapng");
        let (client, file) = (Client::new(&self.socket()), path.clone());
        let thread = std::thread::spawn(move || {
            let mut stream = client.stream("capture", query).expect("a stream");
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut bytes).expect("its end");
            std::fs::write(file, bytes).expect("a file");
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(400) {
            self.app.manage();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.send(frames);
        while !thread.is_finished() {
            self.app.manage();
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("the client");
        path
    }
}

/// Every frame is there as it came and as it left, with what became of it; tshark reads it.
#[test]
fn captures_have_both_sides_and_the_fate() {
    let mut lab = Lab::new("", POLICY);
    let path = lab.capture(&[("at", "both"), ("packets", "113")], traffic());
    let mut reader = sluicegate::dpdk::soft::pcap::Reader::open(&path).expect("a capture");
    let mut frames = Vec::new();
    let mut last = 0;
    while let Some(frame) = reader.next().expect("a frame") {
        assert!(frame.time >= last, "in order");
        last = frame.time;
        frames.push(frame.bytes.to_vec());
    }
    let wall =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos() as u64;
    assert!(wall.abs_diff(last) < 60_000_000_000, "the wall clock's time");
    let home: Vec<Vec<u8>> = std::iter::from_fn(|| lab.wire.receive()).collect();
    let mut expected = [traffic(), home].concat();
    frames.sort();
    expected.sort();
    assert_eq!(frames.len(), 113);
    assert_eq!(frames, expected, "the bytes that were on the wire");
    let seen = shown(&path);
    let count = |side: &str, fate: &str| {
        seen.iter().filter(|(a, b)| a.ends_with(side) && b.starts_with(fate)).count()
    };
    assert_eq!((count("as it came", "home, flow "), count("as it leaves", "home, flow ")), (55, 55));
    assert_eq!(
        (
            count("as it came", "dropped: edge.deny, flow "),
            count("as it came", "dropped: edge.default_deny, flow ")
        ),
        (1, 1)
    );
    assert_eq!(count("as it came", "punted: for the host stack, worker 0"), 1);
    assert!(seen.iter().any(|(_, comment)| comment.contains("tenant payments")), "{seen:?}");
    // The number is the one that lists of flows have.
    let flows = lab.get("flows", &[("filter", "port=23")]);
    let flow = format!("dropped: edge.deny, flow {}, tenant lab, worker 0", flows["flows"][0]["flow_id"]);
    assert!(seen.iter().any(|(_, comment)| *comment == flow), "{flow} in {seen:?}");
}

/// Filters, lengths and limits; one at a time; and the next one gets what the one before had.
#[test]
fn captures_are_bounded() {
    let mut lab = Lab::new("", POLICY);
    let path = lab.capture(
        &[("filter", "fate=dropped tenant=lab dport=23"), ("packets", "1"), ("snap", "64")],
        traffic(),
    );
    let mut reader = sluicegate::dpdk::soft::pcap::Reader::open(&path).expect("a capture");
    let frame = reader.next().expect("a record").expect("a frame");
    assert_eq!((frame.bytes.len(), frame.wire_len as usize), (64, traffic()[55].len()));
    assert_eq!(shown(&path).len(), 1);
    let path = lab.capture(&[("filter", "reason=edge.default_deny"), ("seconds", "1")], traffic());
    assert_eq!(shown(&path).len(), 0, "its flow is dropped by track by now");
    let path = lab.capture(&[("filter", "reason=flow_condemned"), ("seconds", "1")], traffic());
    assert_eq!(shown(&path).len(), 2);
    // Twenty in a second, of which a tenth may come at once: the others are left out, and that is said.
    let path = lab.capture(&[("rate", "20"), ("seconds", "1")], traffic());
    let some = shown(&path).len();
    assert!((2..30).contains(&some), "{some}");
    let text = String::from_utf8_lossy(&std::fs::read(&path).expect("a file")).into_owned();
    assert!(
        text.contains(&format!("{some} written, 0 lost for want of room, {} beyond the rate", 58 - some)),
        "{some}"
    );
    for (query, text) in [
        (&[("filter", "state=first")][..], "there is no \"state\" here"),
        (&[("filter", "reason=nothing")], "there is no drop reason \"nothing\""),
        (&[("filter", "tenant=nobody")], "there is no tenant"),
        (&[("snap", "10000")], "is not a number from 64 to 9216"),
        (&[("at", "once")], "is not one of before, after, both"),
    ] {
        let said = lab.meanwhile(move |client| client.stream("capture", query).map(drop));
        assert!(said.as_ref().is_err_and(|error| error.to_string().contains(text)), "{query:?}: {said:?}");
    }
    let busy = lab.meanwhile(|client| {
        let one = client.stream("capture", &[]).expect("a stream");
        let two = client.stream("capture", &[]).map(drop);
        drop(one);
        std::thread::sleep(Duration::from_millis(800));
        (two, client.stream("capture", &[("seconds", "1")]).map(drop))
    });
    assert!(matches!(&busy, (Err(Error::Refused { error, .. }), Ok(())) if error == "busy"), "{busy:?}");
}

/// Which flow, whose, what each stage is to it, which rule decides, and where its packets go.
#[test]
fn ends_are_explained() {
    let mut lab = Lab::new("", POLICY);
    lab.send(traffic());
    let telnet = &[("protocol", "tcp"), ("source", "10.1.0.1:40000"), ("destination", "10.2.0.9:23")];
    let mut said = lab.get("explain", telnet);
    // One poll in 1,021 is timed, and this stage is asked for the first packet of a flow only.
    let mut port = 1000;
    while said["first_packet"][0]["cycles"].is_null() {
        assert!(port < 30_000, "{said}");
        let fresh = |n: u16| wrap_from(1, &udp(v4(10, 1, 0, 9, port + n), server(53), b"?"), 7, 60_001);
        lab.send((0..600).map(fresh));
        port += 600;
        said = lab.get("explain", telnet);
    }
    let flow = &said["flows"][0];
    assert_eq!((said["flows"].as_array().map(Vec::len), &flow["reason"]), (Some(1), &json!("edge.deny")));
    assert_eq!(
        (&flow["worker"], &flow["tenant"], &flow["state"]),
        (&json!(0), &json!("lab"), &json!("syn-sent"))
    );
    let stage = &flow["stages"][0];
    assert_eq!((&stage["is"], &stage["says"]), (&json!("settled: it drops the flow"), &json!("deny")));
    assert_eq!(stage["reason"], "edge.deny", "the reason stands at the stage whose it is");
    assert!(stage["cycles"].as_u64().is_some_and(|cycles| cycles > 0), "{stage}");
    assert!(stage["rule"].as_str().is_some_and(|rule| rule.contains("telnet")), "{stage}");
    assert_eq!(
        (&flow["goes_back"]["originator"]["port"], &flow["goes_back"]["originator"]["cookie"]),
        (&json!(60_002), &json!(8))
    );
    assert_eq!(flow["goes_back"]["responder"], Value::Null);
    assert_eq!(said["first_packet"][0]["says"], "deny");

    let back = &[
        ("protocol", "udp"),
        ("source", "10.2.0.9:53"),
        ("destination", "10.1.0.3:40000"),
        ("endpoint", "1"),
    ];
    let said = lab.get("explain", back);
    assert_eq!(said["flows"][0]["source"], "10.1.0.3", "as the originator sees it");
    assert_eq!(said["flows"][0]["stages"][0]["is"], "settled: it lets the flow pass");
    let other = &[("protocol", "tcp"), ("source", "10.1.0.3:1"), ("destination", "10.2.0.9:80")];
    let said = lab.get("explain", other);
    assert_eq!((&said["flows"], &said["first_packet"][0]["says"]), (&json!([]), &json!("deny")));
    assert_eq!(said["first_packet"][0]["rule"], "default deny");
    for (query, text) in [
        (&[("protocol", "tcp")][..], "source is missing"),
        (&[("source", "10.1.0.1")], "protocol is missing"),
        (&[("protocol", "tcp"), ("source", "10.1.0.1:x"), ("destination", "10.2.0.9")], "is no end"),
        (&[("protocol", "tcp"), ("source", "10.1.0.1"), ("destination", "::1")], "of two families"),
    ] {
        let said = lab.meanwhile(move |client| client.get("explain", query));
        assert!(said.as_ref().is_err_and(|error| error.to_string().contains(text)), "{query:?}: {said:?}");
    }
}
