//! The stage `dns` over real captures: what tshark and others say of their messages, whatever the order of segments; and over messages that lie.
//! The captures need the corpus (`SLUICEGATE_CORPUS`).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sluicegate::config::Settings;
use sluicegate::dpdk::PoolConfig;
use sluicegate::packet::View;
use sluicegate::stage::{Backend, Cx, Make, ParseResult, Parsed, PerStream, Shared, Stage, StageKind};
use sluicegate::stages::dns::{self, Counts, Dns, Tell, Told};

use common::capture::{corpus, cut, packets};
use common::dns::{Asked, answer, asked, over_tcp, query};
use common::inner::{End as Host, pieces, tcp, udp, v4, wrap};
use common::{ANOMALIES, Fate, Rig, TUNNEL, plan_with, pool_config, say, skipped};

/// The stage, and everything it tells.
static TELLING: StageKind = StageKind {
    name: "telling",
    summary: "for tests",
    help: "",
    example: "",
    reasons: dns::KIND.reasons,
    parse: |settings: &Settings<'_>| -> ParseResult {
        Ok(Box::new(Telling(dns::Settings::read(settings)?, Log::default())))
    },
};

type Log = Arc<Mutex<Vec<(String, String)>>>;

#[derive(Clone, Debug)]
struct Telling(dns::Settings, Log);

impl Parsed for Telling {
    fn wants_streams(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl Shared for Telling {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let counts = Arc::new(Counts::new(&self.0));
        Box::new(PerStream(Dns::new(&self.0, make, counts, Writer(self.1.clone()))))
    }

    fn report(&self) -> Vec<(String, String)> {
        self.1.lock().unwrap().clone()
    }
}

struct Writer(Log);

fn key(packet: &View<'_>) -> String {
    let mut ends = [packet.originator(), packet.responder()];
    ends.sort_by_key(|end| (end.ip().to_string(), end.port()));
    let end = |end: std::net::SocketAddr| format!("{}:{}", end.ip(), end.port());
    let protocol = if packet.meta().protocol == 17 { "udp" } else { "tcp" };
    format!("{protocol} {} {}", end(ends[0]), end(ends[1]))
}

impl Tell for Writer {
    fn message(&mut self, told: &Told<'_>, packet: &View<'_>, _: &mut Cx<'_>) {
        let header = told.message.header;
        let Some(question) = told.message.question else { return };
        let name = String::from_utf8_lossy(question.name.as_bytes()).into_owned();
        let mut value = json!({ "id": header.id, "rrname": name, "rrtype": question.kind });
        let kind = if header.is_answer() {
            value["rcode"] = header.rcode().into();
            "dns.response"
        } else {
            "dns.query"
        };
        let fact = json!({ "kind": kind, "value": value, "denied": told.denied });
        self.0.lock().unwrap().push((key(packet), fact.to_string()));
    }

    fn sign(&mut self, event: &'static str, packet: &View<'_>) {
        self.0.lock().unwrap().push((key(packet), json!({ "kind": event, "value": "" }).to_string()));
    }
}

/// Facts by flow and kind, each as often as it was told.
type Known = BTreeMap<(String, String), BTreeMap<String, usize>>;

fn rig(stage: &str) -> Rig {
    let text = format!("{TUNNEL}[flow]\ncapacity = 16384\n[[stage]]\nuse = \"telling\"\n{stage}\n");
    let pool = PoolConfig { data_room: 65_000, ..pool_config(512) };
    Rig::with_pool(&plan_with(&text, &[&TELLING]), &pool)
}

fn told(rig: &Rig) -> Vec<(String, Value)> {
    let told = rig.pipeline.stages().flat_map(|(_, shared)| shared.report());
    told.map(|(key, fact)| (key, serde_json::from_str(&fact).unwrap())).collect()
}

fn facts(packets: &[(u64, Vec<u8>)]) -> Known {
    let mut rig = rig("");
    for (now, packet) in packets {
        rig.set_clock(*now);
        if packet.len() > 60_000 {
            continue;
        }
        rig.wire.send(wrap(packet, 1, 61_000));
        while rig.worker.poll() > 0 {}
        while rig.wire.receive().is_some() {}
    }
    rig.worker.finish();
    let mut known = Known::new();
    for (key, fact) in told(&rig) {
        let kind = fact["kind"].as_str().unwrap().to_owned();
        *known.entry((key, kind)).or_default().entry(fact["value"].to_string()).or_default() += 1;
    }
    known
}

fn expected(folder: &std::path::Path) -> BTreeMap<String, Vec<Value>> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).expect("expected.jsonl");
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let fact: Value = serde_json::from_str(line).expect("JSON");
        if fact["kind"].as_str().unwrap_or_default().starts_with("dns.") {
            all.entry(fact["capture"].as_str().unwrap().to_owned()).or_default().push(fact);
        }
    }
    all
}

/// Frames that show an inner packet to nobody: DNS within VXLAN (told apart by the corpus), and within PPPoE behind two VLAN tags.
const PPPOE: (&str, &str) = ("ndpi/dns.pcap", "udp 82.178.113.245:47255 82.178.158.181:53");

/// Each fact of others is told as often as they tell it. Wrong is a message of a flow and number of theirs that says what none of them says; what they
/// left out, because they did not agree or the name cannot be printed, is compared with tshark below.
#[test]
fn facts_of_captures_are_what_others_say() {
    let Some(folder) = corpus("facts_of_captures_are_what_others_say") else { return };
    let mut count: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut lines, mut within) = (Vec::new(), 0);
    let ambiguous = std::fs::read_to_string(folder.join("ambiguous.jsonl")).expect("ambiguous.jsonl");
    for (capture, wanted) in expected(&folder) {
        let known = facts(&packets(&folder.join("pcap").join(&capture)));
        let mut left = known.clone();
        for fact in &wanted {
            let (key, kind) = (fact["key"].as_str().unwrap(), fact["kind"].as_str().unwrap());
            if fact["tunnelled"] == json!(true) || (capture.as_str(), key) == PPPOE {
                within += 1;
                continue;
            }
            let want = fact["value"].to_string();
            let [all, right, _] = count.entry(kind.to_owned()).or_default();
            *all += 1;
            let ours = left.get_mut(&(key.to_owned(), kind.to_owned()));
            match ours.and_then(|ours| ours.get_mut(&want)).filter(|times| **times > 0) {
                Some(times) => (*times, *right) = (*times - 1, *right + 1),
                None => lines.push(format!("missing {capture} {key} {kind} {want}")),
            }
        }
        for ((key, kind), values) in known {
            let theirs = wanted.iter().filter(|fact| fact["key"] == *key && fact["kind"] == *kind);
            let theirs: Vec<&Value> = theirs.map(|fact| &fact["value"]).collect();
            for value in values.keys() {
                let value: Value = serde_json::from_str(value).unwrap();
                let Some(name) = value["rrname"].as_str() else { continue }; // a sign of a tunnel
                let same_number = theirs.iter().any(|their| their["id"] == value["id"]);
                let said = theirs.contains(&&value) || ambiguous.contains(name);
                let printed = name.chars().all(|c| c.is_ascii_graphic());
                if same_number && !said && printed {
                    count.entry(kind.clone()).or_default()[2] += 1;
                    lines.push(format!("WRONG {capture} {key} {kind} {value}"));
                }
            }
        }
    }
    let sum = |n: usize| count.values().map(|c| c[n]).sum::<usize>();
    say(&format!(
        "{} of {} facts, {} wrong, {within} within other tunnels: {count:?}",
        sum(1),
        sum(0),
        sum(2)
    ));
    lines.sort_unstable();
    lines.iter().take(60).for_each(|line| say(line));
    assert!(within <= 18, "{within}");
    assert!(sum(1) * 100 >= sum(0) * 99 && sum(2) == 0, "{} of {}, {} wrong", sum(1), sum(0), sum(2));
}

/// Every message that tshark finds on port 53, in all captures, damaged ones included: number, name, type and outcome, flow by flow.
#[test]
fn messages_are_what_tshark_says() {
    let Some(folder) = corpus("messages_are_what_tshark_says") else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        return skipped("messages_are_what_tshark_says", "it needs tshark");
    }
    let fields = [
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "udp.srcport",
        "udp.dstport",
        "tcp.srcport",
        "tcp.dstport",
        "dns.id",
        "dns.flags.response",
        "dns.qry.name",
        "dns.qry.type",
        "dns.flags.rcode",
        "ip.len",
        "udp.length",
        "frame.len",
    ];
    let (mut theirs, mut found, mut wrong, mut missing) = (0, 0, Vec::new(), Vec::new());
    for capture in expected(&folder).into_keys() {
        let path = folder.join("pcap").join(&capture);
        let mut tshark = Command::new("tshark");
        // One message a line; what lies within VXLAN or PPPoE is not ours to see.
        tshark
            .arg("-r")
            .arg(&path)
            .args(["-Y", "dns && !icmp && !vxlan && !pppoes && (udp.port == 53 || tcp.port == 53)"]);
        tshark.args(["-T", "fields", "-E", "occurrence=f", "-E", "separator=\t"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        let out = tshark.output().expect("tshark");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (mut said, mut lies) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
        for line in text.lines() {
            let of: Vec<&str> = line.split('\t').collect();
            let &[s4, d4, s6, d6, us, ud, ts, td, id, response, name, kind, rcode, ip, udp, frame] = &of[..]
            else {
                panic!("{line}")
            };
            let pick = |a: &'static str, b: &str| if b.is_empty() { a.to_owned() } else { b.to_owned() };
            let (source, destination) = (pick("", s4) + s6, pick("", d4) + d6);
            let protocol = if us.is_empty() { "tcp" } else { "udp" };
            let mut ends = [(source, us.to_owned() + ts), (destination, ud.to_owned() + td)];
            ends.sort_by_key(|(address, port)| (address.clone(), port.parse::<u16>().unwrap_or(0)));
            let [(a, a_port), (b, b_port)] = &ends;
            let Ok(id) = u16::from_str_radix(id.trim_start_matches("0x"), 16) else { continue };
            let name = if name == "<Root>" { "" } else { name };
            if kind.is_empty() || !name.chars().all(|c| c.is_ascii_graphic() && c != '\\') {
                continue;
            }
            let rcode = if response == "1" { rcode } else { "" };
            let message = format!("{protocol} {a}:{a_port} {b}:{b_port} {id} {name} {kind} {rcode}");
            // What is longer than its packet, or than its frame, no stage sees.
            let len = |text: &str| text.parse::<usize>().unwrap_or(0);
            if len(ip) > 0 && (len(udp) + 20 > len(ip) || len(ip) + 14 > len(frame)) {
                lies.insert(message.clone());
            }
            *said.entry(message).or_default() += 1;
        }
        for ((key, kind), values) in facts(&packets(&path)) {
            for (value, times) in values {
                let value: Value = serde_json::from_str(&value).unwrap_or_default();
                let Some(name) = value["rrname"].as_str() else { continue };
                if !name.chars().all(|c| c.is_ascii_graphic() && c != '\\') || !key.contains(":53") {
                    continue;
                }
                let (id, rrtype) = (&value["id"], &value["rrtype"]);
                let rcode = if kind == "dns.response" { value["rcode"].to_string() } else { String::new() };
                let ours = format!("{key} {id} {name} {rrtype} {rcode}");
                let there = said.get(&ours).copied().unwrap_or(0).min(times);
                said.entry(ours.clone()).and_modify(|left| *left -= there);
                (found, theirs) = (found + there, theirs + there);
                if there < times {
                    wrong.push(format!("{capture}: {ours} {times}x, tshark {there}x"));
                }
            }
        }
        for (message, times) in
            said.into_iter().filter(|(message, times)| *times > 0 && !lies.contains(message))
        {
            theirs += times;
            missing.push(format!("missing {capture}: {message} {times}x"));
        }
    }
    say(&format!("{found} of {theirs} messages, {} wrong", wrong.len()));
    missing.iter().for_each(|line| say(line));
    wrong.iter().for_each(|line| say(line));
    assert!(found * 100 >= theirs * 99 && found > 1000 && wrong.is_empty(), "{found} of {theirs}: {wrong:?}");
}

/// Captures of all kinds: queries and answers over UDP and TCP, fragments, damage.
const SHUFFLED: [&str; 7] = [
    "ndpi/dns_fragmented.pcap",
    "ndpi/dns_exfiltration.pcap",
    "ndpi/KakaoTalk_chat.pcap",
    "ndpi/malformed_dns.pcap",
    "ndpi/instagram.pcap",
    "sv/dns__dns-sshfp.pcap",
    "sv/dns-eve-type-filtering.pcap",
];

/// What was said, whoever asked first: a message that came twice is told twice, so only which there are counts.
fn set(known: &Known) -> BTreeSet<(String, String, String)> {
    let all = known.iter().filter(|((_, kind), _)| kind.starts_with("dns."));
    all.flat_map(|((key, kind), values)| {
        values.keys().map(move |value| (key.clone(), kind.clone(), value.clone()))
    })
    .collect()
}

/// Shuffled within a window, doubled, cut to single bytes: the same facts.
#[test]
fn facts_do_not_depend_on_order_or_cuts() {
    let Some(folder) = corpus("facts_do_not_depend_on_order_or_cuts") else { return };
    for (seed, capture) in (1..).zip(SHUFFLED) {
        let plain = packets(&folder.join("pcap").join(capture));
        let plain: Vec<_> =
            (1..).map(|n| n * 5_000_000).zip(plain.into_iter().map(|(_, packet)| packet)).collect();
        let want = facts(&plain);
        assert!(!set(&want).is_empty(), "{capture}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let single: Vec<_> =
            plain.iter().flat_map(|(now, packet)| cut(packet, 2000).into_iter().map(|p| (*now, p))).collect();
        assert_eq!(facts(&single), want, "{capture} in single bytes");
        for window in [2, 4, 8] {
            let mut mixed: Vec<_> =
                plain.iter().flat_map(|p| vec![p.clone(); random.random_range(1..3)]).collect();
            let times: Vec<u64> = mixed.iter().map(|(now, _)| *now).collect();
            for block in mixed.chunks_mut(window) {
                for n in (1..block.len()).rev() {
                    block.swap(n, random.random_range(0..=n));
                }
            }
            mixed.iter_mut().zip(times).for_each(|(packet, now)| packet.0 = now);
            assert_eq!(set(&facts(&mixed)), set(&want), "{capture} shuffled within {window}");
        }
    }
}

/// A hundred queries and answers on one connection, answered in another order than asked, in segments of any size that come in any order.
#[test]
fn pipelined_messages_are_all_read() {
    let names: Vec<String> = (0..100).map(|n| format!("host{n}.example.com")).collect();
    let queries: Vec<Vec<u8>> = (0..).zip(&names).map(|(id, name)| query(asked(id, name))).collect();
    let address = |n: usize| vec![[192, 0, 2, n as u8]; n % 20];
    let mut answers: Vec<Vec<u8>> =
        (0..).zip(&names).map(|(id, name)| answer(asked(id, name), &address(usize::from(id)))).collect();
    answers.reverse();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for round in 0..30 {
        let mut line = Line::new("message_bytes = 2048");
        let mut frames = Vec::new();
        for (reply, stream) in [(false, over_tcp(&queries)), (true, over_tcp(&answers))] {
            let most = [1, 20, 1400, 5000][round % 4];
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (part, more) = rest.split_at(random.random_range(1..=most).min(rest.len()));
                frames.push(line.segment(0, reply, part));
                rest = more;
            }
        }
        if round % 4 > 1 {
            for block in frames.chunks_mut(4) {
                for n in (1..block.len()).rev() {
                    block.swap(n, random.random_range(0..=n));
                }
            }
        }
        for frame in frames {
            line.rig.wire.send(frame);
            line.rig.worker.poll();
            while line.rig.wire.receive().is_some() {}
        }
        let told = told(&line.rig);
        let of = |kind: &str| {
            let ids = told.iter().filter(|(_, fact)| fact["kind"] == kind);
            ids.map(|(_, fact)| fact["value"]["id"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("dns.query"), (0..100).collect::<Vec<_>>(), "{round}");
        assert_eq!(of("dns.response"), (0..100).rev().collect::<Vec<_>>(), "{round}");
    }
}

/// One client and one server, over UDP and over TCP.
struct Line {
    rig: Rig,
    port: u16,
    sent: [u32; 2],
}

impl Line {
    fn new(stage: &str) -> Line {
        Line::at(53, stage)
    }

    fn at(port: u16, stage: &str) -> Line {
        let mut line = Line { rig: rig(stage), port, sent: [100, 500] };
        line.handshake(0);
        line
    }

    fn ends(&self, n: u16) -> [Host; 2] {
        [v4(10, 1, (n >> 8) as u8, n as u8, 40_000), v4(192, 0, 2, 1, self.port)]
    }

    fn handshake(&mut self, n: u16) {
        let [client, server] = self.ends(n);
        self.sent = [100, 500];
        for inner in [tcp(client, server, "S", 99, 0, b""), tcp(server, client, "SA", 499, 100, b"")] {
            assert!(matches!(self.rig.fate(&wrap(&inner, 7, 61_000)), Fate::Home(_)));
        }
    }

    /// The next segment.
    fn segment(&mut self, n: u16, reply: bool, bytes: &[u8]) -> Vec<u8> {
        let [client, server] = self.ends(n);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        let [own, other] = if reply { [self.sent[1], self.sent[0]] } else { self.sent };
        let inner = tcp(from, to, "PA", own, other, bytes);
        self.sent[usize::from(reply)] += bytes.len() as u32;
        wrap(&inner, 7, 61_000)
    }

    fn say(&mut self, n: u16, reply: bool, bytes: &[u8]) -> Fate {
        let frame = self.segment(n, reply, bytes);
        self.rig.fate(&frame)
    }

    /// A datagram.
    fn send(&mut self, reply: bool, bytes: &[u8]) -> Fate {
        let [client, server] = self.ends(9);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        self.rig.fate(&wrap(&udp(from, to, bytes), 7, 61_000))
    }

    fn told(&self) -> Vec<Value> {
        told(&self.rig).into_iter().map(|(_, fact)| fact).collect()
    }
}

fn dropped(why: &str) -> Fate {
    Fate::Dropped(format!("telling.{why}"))
}

fn is_home(fate: &Fate) -> bool {
    matches!(fate, Fate::Home(_))
}

const ADS: &str = "[[stage.rule]]\naction = \"deny\"\nnames = [\".ads.example\"]\n";

/// A datagram that is denied is dropped alone: the flow goes on, and the next query is asked again.
#[test]
fn each_datagram_is_decided_on() {
    let mut line = Line::new(ADS);
    for round in 0..3 {
        assert!(is_home(&line.send(false, &query(asked(1, "www.example.com")))), "{round}");
        assert_eq!(line.send(false, &query(asked(2, "x.ADS.example"))), dropped("denied"), "{round}");
        assert!(line.rig.answers.is_empty(), "deny says nothing");
        assert!(is_home(&line.send(true, &answer(asked(1, "www.example.com"), &[[192, 0, 2, 7]]))));
        assert_eq!(line.send(true, &answer(asked(2, "x.ads.example"), &[])), dropped("denied"));
    }
    let denied = line.told().iter().filter(|fact| fact["denied"] == true).count();
    assert_eq!((line.told().len(), denied), (12, 6), "denied messages are told as well");
    let mut line = Line::new(&ADS.replace("deny", "reject"));
    assert_eq!(line.send(false, &query(asked(2, "x.ads.example"))), dropped("denied"));
    assert_eq!(line.rig.answers.len(), 1, "its sender is told by ICMP");
}

#[test]
fn names_and_types_are_allowed_and_denied() {
    let allow = "default = \"deny\"\n[[stage.rule]]\naction = \"allow\"\nnames = [\".example.com\"]\n";
    let types = "[[stage.rule]]\naction = \"deny\"\ntypes = [\"txt\", \"NULL\", 65]\n";
    let both = "[[stage.rule]]\naction = \"deny\"\ntypes = [\"ANY\"]\nnames = [\"example.com\"]\n";
    let of = |name, kind| query(Asked { id: 3, name, kind });
    for (settings, bytes, why) in [
        (allow, of("www.example.com", 1), None),
        (allow, of("www.example.org", 1), Some("default_deny")),
        (allow, of("", 2), Some("default_deny")),
        (allow, query(asked(3, "a.example.com"))[..20].to_vec(), Some("default_deny")),
        (allow, vec![1, 2, 3], Some("default_deny")),
        (types, of("a.example", 16), Some("denied")),
        (types, of("a.example", 10), Some("denied")),
        (types, of("a.example", 65), Some("denied")),
        (types, of("a.example", 255), None),
        (both, of("EXAMPLE.com", 255), Some("denied")),
        (both, of("example.com", 1), None),
        ("malformed = \"deny\"", vec![1, 2, 3], Some("malformed")),
        ("malformed = \"deny\"", of("a.example", 1)[..20].to_vec(), Some("malformed")),
        ("malformed = \"deny\"", of("a.example", 1), None),
        ("", vec![1, 2, 3], None),
    ] {
        let fate = Line::new(settings).send(false, &bytes);
        match why {
            Some(why) => assert_eq!(fate, dropped(why), "{settings}"),
            None => assert!(is_home(&fate), "{settings}: {fate:?}"),
        }
        let mut line = Line::new(settings);
        let fate = line.say(0, false, &over_tcp(&[bytes]));
        match why {
            Some(why) => {
                assert_eq!(fate, dropped(why), "{settings} over TCP");
                assert_eq!(line.say(0, false, b"more"), Fate::Dropped("flow_condemned".into()));
            }
            None => assert!(is_home(&fate), "{settings} over TCP: {fate:?}"),
        }
    }
    // An answer needs no question where it answers; where it asks it does.
    let empty = |id: u8| [&[0, id, 0x81, 0x80][..], &[0; 8]].concat();
    let mut line = Line::new(allow);
    assert!(is_home(&line.send(false, &query(asked(1, "a.example.com")))));
    assert!(is_home(&line.send(true, &empty(1))));
    assert_eq!(line.send(false, &empty(2)), dropped("default_deny"));
}

/// The far end never gets the last byte of a question that is denied, wherever it is cut, nor its first where that can wait.
#[test]
fn a_question_in_pieces_waits_for_its_end() {
    let stream = over_tcp(&[query(asked(7, "tracker.ads.example"))]);
    for (rule, denied) in
        [(ADS, true), ("[[stage.rule]]\naction = \"deny\"\nnames = [\"x.example\"]\n", false)]
    {
        for cut in 1..stream.len() {
            let mut line = Line::new(rule);
            let before = line.rig.settled();
            let frames = [&stream[..cut], &stream[cut..]].map(|part| line.segment(0, false, part));
            let [first, second] = frames;
            line.rig.wire.send(first);
            line.rig.worker.poll();
            assert!(line.rig.wire.receive().is_none(), "cut at {cut}: it waits");
            line.rig.wire.send(second);
            line.rig.worker.poll();
            let after = line.rig.settled();
            let sent = after.sent - before.sent;
            assert_eq!(sent, if denied { 0 } else { 2 }, "cut at {cut}");
            assert_eq!(after.held_for_stages, 0);
            while line.rig.wire.receive().is_some() {}
        }
    }
}

/// A frame that ends one question and begins the next lets the first go; the next is denied before its end.
#[test]
fn what_waited_goes_when_it_is_decided() {
    let good = over_tcp(&[query(asked(1, "www.example.com"))]);
    let bad = over_tcp(&[query(asked(2, "x.ads.example"))]);
    let mut line = Line::new(ADS);
    let before = line.rig.settled();
    let parts = [&good[..10], &[&good[10..], &bad[..20]].concat()[..], &bad[20..]];
    let frames = parts.map(|part| line.segment(0, false, part));
    for (frame, sent) in frames.into_iter().zip([0, 2, 2]) {
        line.rig.wire.send(frame);
        line.rig.worker.poll();
        assert_eq!(line.rig.settled().sent - before.sent, sent);
        while line.rig.wire.receive().is_some() {}
    }
    assert_eq!(line.say(0, false, b"more"), Fate::Dropped("flow_condemned".into()));
    assert_eq!(line.rig.settled().held_for_stages, 0);
}

/// An answer of 20 kB is decided on at its question, and does not wait for its end.
#[test]
fn long_answers_do_not_wait() {
    let mut line = Line::new(ADS);
    assert!(is_home(&line.say(0, false, &over_tcp(&[query(asked(1, "www.example.com"))]))));
    let answer = over_tcp(&[answer(asked(1, "www.example.com"), &vec![[192, 0, 2, 7]; 1200])]);
    assert!(answer.len() > 19_000);
    for part in answer.chunks(1400) {
        assert!(is_home(&line.say(0, true, part)));
    }
    assert!(is_home(&line.say(0, true, &over_tcp(&[self::answer(asked(2, "b.example.com"), &[])]))));
    let told = line.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1]["value"]["rrname"], "www.example.com", "what is longer than its place is told");
}

#[test]
fn dns_on_other_ports_is_found_by_its_shape() {
    let bad = query(asked(2, "x.ads.example"));
    let good = query(asked(1, "www.example.com"));
    for (port, settings, found) in [
        (5300, "", true),
        (5300, "detect = false\n", false),
        (5300, "detect = false\nports = [53, 5300]\n", true),
        (5353, "", false),
        (5353, "ports = [5353]\n", true),
    ] {
        let mut line = Line::at(port, &format!("{settings}{ADS}"));
        assert!(is_home(&line.send(false, &good)));
        let (fate, stream) =
            (line.send(false, &bad), line.say(0, false, &over_tcp(std::slice::from_ref(&bad))));
        for fate in [fate, stream] {
            if found {
                assert_eq!(fate, dropped("denied"), "{port} {settings}");
            } else {
                assert!(is_home(&fate), "{port} {settings}");
            }
        }
    }
    // What is no DNS is settled, after a few datagrams, or at the first bytes of a stream.
    let mut line = Line::at(5300, ADS);
    for _ in 0..10 {
        assert!(is_home(&line.send(false, b"nothing of the kind, but long enough")));
        assert!(is_home(&line.say(0, false, b"GET / HTTP/1.1\r\n")));
    }
    let seen = line.rig.settled().stages[0].seen;
    assert_eq!(seen, 2 + 1 + 3, "a handshake, a segment, three datagrams");
}

/// Of a message in fragments the first is read; a query in fragments is no one's, and goes by on_unread.
#[test]
fn fragments_are_read_as_far_as_they_go() {
    let long = format!("{}.ads.example", "x".repeat(20));
    let whole = |name: &str| {
        let mut bytes = query(asked(1, name));
        bytes.resize(64, 0);
        let line = Line { rig: rig(""), port: 53, sent: [0; 2] };
        let [client, server] = line.ends(9);
        udp(client, server, &bytes)
    };
    for (on_unread, fate) in [("pass", None), ("drop", Some("stream_unread"))] {
        let mut line = Line::new(&format!("on_unread = {on_unread:?}\n{ADS}"));
        // The question does not fit into the first fragment's 16 bytes.
        for piece in pieces(&whole(&long), 7) {
            let found = line.rig.fate(&wrap(&piece, 7, 61_000));
            match fate {
                None => assert!(is_home(&found), "{found:?}"),
                Some(why) => assert_ne!(found, Fate::Dropped("flow_condemned".into()), "{why}"),
            }
        }
        let first = line.rig.fate(&wrap(&pieces(&whole(&long), 8)[0], 7, 61_000));
        match fate {
            None => assert!(is_home(&first)),
            Some(why) => assert_eq!(first, Fate::Dropped(why.into())),
        }
    }
    // What cannot be denied need not be read.
    let mut line = Line::new("on_unread = \"drop\"");
    assert!(is_home(&line.rig.fate(&wrap(&pieces(&whole(&long), 7)[0], 7, 61_000))));
}

/// A connection that sends garbage is given up, and one that was there before we were is read if it looks like DNS.
#[test]
fn what_cannot_be_read_goes_by_on_unread() {
    let garbage = over_tcp(&vec![b"\x01\x02".to_vec(); 8]);
    for (settings, why) in [
        (format!("on_unread = \"pass\"\n{ADS}"), None),
        (format!("on_unread = \"drop\"\n{ADS}"), Some("stream_unread")),
        ("on_unread = \"drop\"\n".to_owned(), None),
    ] {
        let mut line = Line::new(&settings);
        let fate = line.say(0, false, &garbage);
        match why {
            None => assert!(is_home(&fate), "{settings}: {fate:?}"),
            Some(why) => assert_eq!(fate, Fate::Dropped(why.into()), "{settings}"),
        }
    }
    let middle = |bytes: &[u8]| {
        let mut line = Line { rig: rig(ADS), port: 53, sent: [5000, 9000] };
        line.say(3, false, bytes)
    };
    assert_eq!(middle(&over_tcp(&[query(asked(1, "x.ads.example"))])), dropped("denied"));
    assert!(is_home(&middle(b"in the middle of an answer, of which nobody knows the length")));
}

/// Ten thousand queries of which the end never comes: memory stays where it is, and whoever comes later is read.
#[test]
fn half_sent_queries_take_no_more_than_there_is() {
    for on_unread in ["pass", "drop"] {
        let mut line = Line::new(&format!("messages = 64\non_unread = {on_unread:?}\n{ADS}\n{ANOMALIES}"));
        let bad = over_tcp(&[query(asked(1, "x.ads.example"))]);
        for n in 1..10_000u16 {
            line.handshake(n);
            let frame = line.segment(n, false, &bad[..20]);
            line.rig.wire.send(frame);
            line.rig.worker.poll();
            while line.rig.wire.receive().is_some() {}
        }
        // What waited for a decision has waited long enough.
        line.rig.set_clock(20_000_000_000);
        line.rig.worker.poll();
        while line.rig.wire.receive().is_some() {}
        line.handshake(10_000);
        assert_eq!(line.say(10_000, false, &bad), dropped("denied"));
        line.handshake(10_001);
        let good = over_tcp(&[query(asked(1, "www.example.com"))]);
        for byte in &good {
            let frame = line.segment(10_001, false, &[*byte]);
            line.rig.wire.send(frame);
            line.rig.worker.poll();
            while line.rig.wire.receive().is_some() {}
        }
        assert!(line.told().iter().any(|fact| fact["value"]["rrname"] == "www.example.com"));
        line.rig.worker.finish();
        let given_up = line.rig.anomalies("dns_given_up");
        assert!(given_up > 9_000, "each is told, or counted: {given_up}");
        assert_eq!(line.rig.settled().held_for_stages, 0);
        assert_eq!(line.rig.pool.available(), line.rig.pool.capacity());
    }
}

/// Beyond `stream.depth_kb` a connection is not read, which where something can be denied is as good as unread.
#[test]
fn what_is_behind_the_depth_is_unread() {
    let good = over_tcp(&vec![query(asked(1, "www.example.com")); 30]);
    for (on_unread, passes) in [("pass", true), ("drop", false)] {
        let text = format!(
            "{TUNNEL}[stream]\ndepth_kb = 4\n[[stage]]\nuse = \"telling\"\non_unread = {on_unread:?}\n{ADS}"
        );
        let mut line = Line { rig: Rig::new(&plan_with(&text, &[&TELLING])), port: 53, sent: [100, 500] };
        line.handshake(0);
        let fates: Vec<Fate> = (0..6).map(|_| line.say(0, false, &good)).collect();
        assert!(is_home(&fates[0]));
        assert_eq!(is_home(&fates[5]), passes, "{fates:?}");
    }
}

/// No name that people and programs ask for looks like a tunnel, and the one that is one does: by its length, and by how many there are.
#[test]
fn tunnels_are_seen_and_nothing_else_is() {
    let Some(folder) = corpus("tunnels_are_seen_and_nothing_else_is") else { return };
    let mut signs = BTreeMap::<String, usize>::new();
    for capture in expected(&folder).into_keys() {
        for ((_, kind), values) in facts(&packets(&folder.join("pcap").join(&capture))) {
            if kind.starts_with("dns_tunnel") {
                *signs.entry(format!("{capture} {kind}")).or_default() += values.values().sum::<usize>();
            }
        }
    }
    say(&format!("{signs:?}"));
    assert_eq!(signs.keys().collect::<Vec<_>>(), ["ndpi/dns_exfiltration.pcap dns_tunnel_length"]);
    // Different names below one domain, short ones: from the 200th of a minute on, give or take what the map cannot tell apart.
    let mut line = Line::new("[stage.tunnel]\naction = \"deny\"\n");
    let fate = |line: &mut Line, n: u32| line.send(false, &query(asked(1, &format!("h{n}.example.com"))));
    let first = (0..300).position(|n| fate(&mut line, n) == dropped("tunnel")).expect("a sign");
    assert!((150..250).contains(&first), "{first}");
    assert!(is_home(&line.send(false, &query(asked(1, "www.example.net")))));
    line.rig.set_clock(60_000_000_000);
    assert!(is_home(&fate(&mut line, 1000)), "the next minute");
    let count = line.told().iter().filter(|fact| fact["kind"] == "dns_tunnel_rate").count();
    assert_eq!(count, 1, "it is told once");
    // Who is allowed by name is not looked at.
    let allowed =
        "[stage.tunnel]\naction = \"deny\"\n[[stage.rule]]\naction = \"allow\"\nnames = [\".example.com\"]\n";
    let long = format!("{}.{}.{}.example.com", "x".repeat(60), "y".repeat(60), "z".repeat(60));
    assert!(is_home(&Line::new(allowed).send(false, &query(asked(1, &long)))));
    assert_eq!(
        Line::new("[stage.tunnel]\naction = \"deny\"\n").send(false, &query(asked(1, &long))),
        dropped("tunnel")
    );
    assert!(is_home(&Line::new("").send(false, &query(asked(1, &long)))));
    assert!(Line::new("[stage.tunnel]\naction = \"off\"\n").told().is_empty());
}

/// New rules hold for the next datagram of a flow that was there before, and connections are not read from the middle of a message.
#[test]
fn new_rules_are_for_datagrams_of_old_flows_too() {
    let plan = |rules: &str| plan_with(&format!("{TUNNEL}\n[[stage]]\nuse = \"dns\"\n{rules}"), &[]);
    let first = plan("");
    for swept in [false, true] {
        let mut line = Line { rig: Rig::new(&first), port: 53, sent: [100, 500] };
        line.handshake(0);
        let bad = query(asked(2, "x.ads.example"));
        assert!(is_home(&line.send(false, &bad)));
        let mut next = plan(ADS);
        next.join_reasons(&first.reasons);
        match swept {
            true => line.rig.reload(&next),
            false => line.rig.send(&next),
        }
        assert_eq!(line.send(false, &bad), Fate::Dropped("dns.denied".into()), "{swept}");
        // Unless somebody wants it otherwise.
        let mut line = Line { rig: Rig::new(&first), port: 53, sent: [100, 500] };
        assert!(is_home(&line.send(false, &bad)));
        let mut next = plan(&format!("on_reload = \"keep\"\n{ADS}"));
        next.join_reasons(&first.reasons);
        line.rig.reload(&next);
        assert!(is_home(&line.send(false, &bad)));
    }
}

/// A reload in the middle of a message: what follows is not taken for a beginning.
#[test]
fn the_middle_of_a_message_is_no_beginning() {
    let plan =
        |more: &str| plan_with(&format!("{TUNNEL}\n[[stage]]\nuse = \"dns\"\nhold = false\n{more}"), &[]);
    let first = plan("");
    let mut line = Line { rig: Rig::new(&first), port: 53, sent: [100, 500] };
    line.handshake(0);
    let bytes = over_tcp(&[query(asked(2, "some.name.example"))]);
    let (begin, rest) = bytes.split_at(bytes.len() - 4);
    assert!(is_home(&line.say(0, false, begin)));
    // Read as messages, the rest would be malformed ones.
    let mut next = plan("on_reload = \"redecide\"\nmalformed = \"deny\"\n");
    next.join_reasons(&first.reasons);
    line.rig.reload(&next);
    assert!(is_home(&line.say(0, false, rest)));
}
