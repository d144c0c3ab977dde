//! The stage `http` over real captures: what tshark and others say of their requests and answers, whatever the order of segments; and over
//! connections that pipeline, lie, smuggle and never end. The captures need the corpus (`SLUICEGATE_CORPUS`).

mod common;

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sluicegate::dpdk::PoolConfig;
use sluicegate::event::facts::{Http, Text};
use sluicegate::event::{Body, Said, Type};

use common::capture::{corpus, cut, packets};
use common::inner::{End as Host, tcp, v4, wrap};
use common::{Fate, Rig, TUNNEL, plan, pool_config, say};

const SINK: &str =
    "[events]\nring = 65536\ntypes = [\"http\", \"anomaly\", \"alert\"]\n[[events.sink]]\nto = \"stdout\"\n";

fn rig(stage: &str) -> Rig {
    let text = format!("{TUNNEL}{SINK}[flow]\ncapacity = 16384\n[[stage]]\nuse = \"http\"\n{stage}\n");
    Rig::with_pool(&plan(&text), &PoolConfig { data_room: 65_000, ..pool_config(512) })
}

/// As the corpus writes addresses: those of IPv4 within IPv6 in groups.
fn address(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        other => other.to_string(),
    }
}

/// What was told since the last time: flow and record, and words of anomalies and alerts.
fn told(rig: &mut Rig) -> (Vec<(String, Http)>, Vec<String>) {
    let (mut records, mut words) = (Vec::new(), Vec::new());
    while rig.rings.take(|said| {
        let Said::Event(event) = said else { return };
        match event.body {
            Body::Http(http) => {
                let mut ends = event.about.ends().expect("ends");
                ends.sort_by_key(|(address, port)| (address.to_string(), *port));
                let end = |n: usize| format!("{}:{}", address(ends[n].0), ends[n].1.unwrap_or(0));
                records.push((format!("tcp {} {}", end(0), end(1)), *http));
            }
            Body::Anomaly(anomaly) => words.push(anomaly.event.to_owned()),
            Body::Alert(alert) => words.push(format!("alert {} {}", alert.rule, alert.blocked)),
            other => panic!("{other:?}"),
        }
    }) {}
    (records, words)
}

/// Facts by flow and kind, each as often as it was told.
type Known = BTreeMap<(String, String), BTreeMap<String, usize>>;

fn facts(packets: &[(u64, Vec<u8>)]) -> Known {
    let (mut rig, mut records) = (rig(""), Vec::new());
    for (now, packet) in packets {
        rig.set_clock(*now);
        if packet.len() > 60_000 {
            continue;
        }
        rig.wire.send(wrap(packet, 1, 61_000));
        while rig.worker.poll() > 0 {}
        while rig.wire.receive().is_some() {}
        records.extend(told(&mut rig).0);
    }
    rig.worker.finish();
    records.extend(told(&mut rig).0);
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
    let mut known = Known::new();
    for (key, http) in records {
        let mut say = |kind: &str, value: Value| {
            *known
                .entry((key.clone(), kind.to_owned()))
                .or_default()
                .entry(value.to_string())
                .or_default() += 1;
        };
        if http.http_method.is_some() {
            let port = http.http_port.map(|port| format!(":{port}")).unwrap_or_default();
            let (method, host) = (text(&http.http_method), text(&http.hostname) + &port);
            let (uri, agent) = (text(&http.url), text(&http.http_user_agent));
            say("http.request", json!({ "method": method, "host": host, "uri": uri, "user_agent": agent }));
        }
        if let Some(status) = http.status {
            say("http.status", status.into());
        }
    }
    known
}

fn expected(folder: &std::path::Path) -> BTreeMap<String, Vec<Value>> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).expect("expected.jsonl");
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let fact: Value = serde_json::from_str(line).expect("JSON");
        if fact["kind"].as_str().unwrap_or_default().starts_with("http.") {
            all.entry(fact["capture"].as_str().unwrap().to_owned()).or_default().push(fact);
        }
    }
    all
}

/// Each fact of others is told as often as they tell it. Wrong is a fact of a flow and kind of theirs that none of them tells, unless they did not
/// agree on it.
#[test]
fn facts_of_captures_are_what_others_say() {
    let Some(folder) = corpus("facts_of_captures_are_what_others_say") else { return };
    let ambiguous = std::fs::read_to_string(folder.join("ambiguous.jsonl")).expect("ambiguous.jsonl");
    let unsure: BTreeSet<(String, String, String)> = ambiguous
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|fact| {
            let of = |key: &str| fact[key].as_str().unwrap_or_default().to_owned();
            (of("capture"), of("key"), of("kind"))
        })
        .collect();
    let mut count: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut lines, mut within) = (Vec::new(), 0);
    for (capture, wanted) in expected(&folder) {
        let known = facts(&packets(&folder.join("pcap").join(&capture)));
        let mut left = known.clone();
        for fact in &wanted {
            let (key, kind) = (fact["key"].as_str().unwrap(), fact["kind"].as_str().unwrap());
            if fact["tunnelled"] == json!(true) {
                within += 1; // VXLAN: shown to nobody
                continue;
            }
            let want = fact["value"].to_string();
            let [all, right, _] = count.entry(kind.to_owned()).or_default();
            *all += 1;
            let ours = left.get_mut(&(key.to_owned(), kind.to_owned()));
            match ours.and_then(|ours| ours.get_mut(&want)).filter(|times| **times > 0) {
                Some(times) => (*times, *right) = (*times - 1, *right + 1),
                None => lines.push(format!("missing {capture} {key} {kind} {want} {}", fact["handshake"])),
            }
        }
        for ((key, kind), values) in left {
            let theirs = wanted.iter().any(|fact| fact["key"] == *key && fact["kind"] == *kind);
            let unsure = unsure.contains(&(capture.clone(), key.clone(), kind.clone()));
            for (value, times) in values.iter().filter(|(_, times)| **times > 0 && theirs && !unsure) {
                count.entry(kind.clone()).or_default()[2] += times;
                lines.push(format!("WRONG {capture} {key} {kind} {value} {times}x"));
            }
        }
    }
    let sum = |n: usize| count.values().map(|c| c[n]).sum::<usize>();
    say(&format!("{} of {} facts, {} wrong, {within} in VXLAN: {count:?}", sum(1), sum(0), sum(2)));
    lines.sort_unstable();
    lines.iter().take(60).for_each(|line| say(line));
    assert!(within <= 2, "{within}");
    assert!(sum(1) * 100 >= sum(0) * 99 && sum(2) == 0, "{} of {}, {} wrong", sum(1), sum(0), sum(2));
}

/// Captures of all kinds: keep-alive, pipelining, chunks, ranges, heads in pieces, CONNECT.
const SHUFFLED: [&str; 10] = [
    "ndpi/http_ua_splitted_in_two_pkts.pcap",
    "ndpi/ocsp.pcap",
    "ndpi/webdav.pcap",
    "ndpi/http_connect.pcap",
    "ndpi/http-lines-split.pcap",
    "ndpi/KakaoTalk_chat.pcap",
    "ndpi/waze.pcap",
    "sv/http-range-file.pcap",
    "sv/http-brotli-ce.pcap",
    "sv/http-protocol-nodup.pcap",
];

/// Shuffled within a window, doubled, cut to single bytes: the same facts.
#[test]
fn facts_do_not_depend_on_order_or_cuts() {
    let Some(folder) = corpus("facts_do_not_depend_on_order_or_cuts") else { return };
    for (seed, capture) in (1..).zip(SHUFFLED) {
        let plain = packets(&folder.join("pcap").join(capture));
        let plain: Vec<_> =
            (1..).map(|n| n * 5_000_000).zip(plain.into_iter().map(|(_, packet)| packet)).collect();
        let want = facts(&plain);
        assert!(!want.is_empty(), "{capture}");
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
            assert_eq!(facts(&mixed), want, "{capture} shuffled within {window}");
        }
    }
}

/// One client and one server.
struct Line {
    rig: Rig,
    port: u16,
    sent: [u32; 2],
}

impl Line {
    fn new(stage: &str) -> Line {
        Line::at(80, stage)
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
    fn segment(&mut self, n: u16, reply: bool, flags: &str, bytes: &[u8]) -> Vec<u8> {
        let [client, server] = self.ends(n);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        let [own, other] = if reply { [self.sent[1], self.sent[0]] } else { self.sent };
        let inner = tcp(from, to, flags, own, other, bytes);
        self.sent[usize::from(reply)] += bytes.len() as u32;
        wrap(&inner, 7, 61_000)
    }

    fn say(&mut self, n: u16, reply: bool, bytes: impl AsRef<[u8]>) -> Fate {
        let frame = self.segment(n, reply, "PA", bytes.as_ref());
        self.rig.fate(&frame)
    }

    /// What the client says, and what became of it.
    fn asks(&mut self, bytes: impl AsRef<[u8]>) -> Fate {
        self.say(0, false, bytes)
    }

    fn answers(&mut self, bytes: impl AsRef<[u8]>) -> Fate {
        self.say(0, true, bytes)
    }

    /// Frames that come one after the other, with whatever waits.
    fn pass(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            self.rig.wire.send(frame);
            self.rig.worker.poll();
            while self.rig.wire.receive().is_some() {}
        }
    }

    fn records(&mut self) -> Vec<Http> {
        told(&mut self.rig).0.into_iter().map(|(_, http)| http).collect()
    }

    fn words(&mut self) -> Vec<String> {
        told(&mut self.rig).1
    }

    fn count(&self, what: &str) -> u64 {
        let mut counts = self.rig.pipeline.stages().flat_map(|(_, shared)| shared.counts());
        counts.find(|(label, _)| label == what).unwrap_or_else(|| panic!("{what}")).1
    }
}

fn dropped(why: &str) -> Fate {
    Fate::Dropped(format!("http.{why}"))
}

fn is_home(fate: &Fate) -> bool {
    matches!(fate, Fate::Home(_))
}

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tests\r\n\r\n")
}

/// Method, target, status and length of records.
fn lines(records: &[Http]) -> Vec<String> {
    let text = |text: &Option<Text>| text.as_ref().map_or("-", Text::as_str).to_owned();
    let line = |http: &Http| {
        let status = http.status.map_or("-".to_owned(), |status| status.to_string());
        format!("{} {} {status} {}", text(&http.http_method), text(&http.url), http.length)
    };
    records.iter().map(line).collect()
}

/// Requests behind each other, bodies of all kinds, answers that come before their request has ended: each is told with its own answer.
fn conversation() -> ([Vec<u8>; 2], Vec<&'static str>) {
    let asked = [
        "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "HEAD /b HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST /c HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\nGET /no HTTP/1.1\r\n\r\n",
        "PUT /d HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n12;x=y\r\nGET /no HTTP/1.1\r\n\r\n0\r\nT: x\r\n\r\n",
        "GET /e HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /g HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    ];
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/",
        "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n11\r\nHTTP/1.1 500 No\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 404 Not Found\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
    ];
    let told = vec![
        "GET /a 200 5",
        "HEAD /b 200 0",
        "POST /c 201 0",
        "PUT /d 200 27",
        "GET /e 304 0",
        "GET /f 204 0",
        "GET /g 404 19",
    ];
    ([asked.concat().into_bytes(), answers.concat().into_bytes()], told)
}

#[test]
fn pipelined_requests_are_told_with_their_answers() {
    let ([asked, answered], want) = conversation();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for round in 0..40 {
        let mut line = Line::new(["", "malformed = \"deny\"\nambiguous = \"deny\""][round % 2]);
        let most = [1, 20, 200, 5000][round / 2 % 4];
        for (reply, stream) in [(false, &asked), (true, &answered)] {
            let (mut frames, mut rest) = (Vec::new(), &stream[..]);
            while !rest.is_empty() {
                let (part, more) = rest.split_at(random.random_range(1..=most).min(rest.len()));
                frames.push(line.segment(0, reply, "PA", part));
                rest = more;
            }
            for block in frames.chunks_mut(4) {
                for n in (1..block.len()).rev() {
                    block.swap(n, random.random_range(0..=n));
                }
            }
            line.pass(frames);
        }
        let end = line.segment(0, true, "FA", b"");
        line.pass([end]);
        assert_eq!(lines(&line.records()), want, "{round}");
        assert_eq!((line.count("requests"), line.count("answers")), (7, 8), "{round}");
        assert_eq!((line.count("malformed"), line.count("ambiguous")), (0, 0), "{round}");
    }
}

#[test]
fn requests_are_denied_by_what_they_say() {
    let rule = |what: &str| format!("[[stage.rule]]\naction = \"deny\"\n{what}\n");
    let allow = |what: &str| format!("default = \"deny\"\n[[stage.rule]]\naction = \"allow\"\n{what}\n");
    let get = |target: &str| get("www.example.com:80", target);
    let two = "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n".to_owned();
    let proxied = "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned();
    let cases = [
        (rule("methods = [\"GET\"]"), get("/"), Some("denied")),
        (rule("methods = [\"POST\", \"PUT\"]"), get("/"), None),
        (rule("hosts = [\"WWW.example.com\"]"), get("/"), Some("denied")),
        (rule("hosts = [\".example.com\"]"), get("/"), Some("denied")),
        (rule("hosts = [\"example.com\"]"), get("/"), None),
        (rule("hosts = [\"b.example\"]"), two.clone(), Some("denied")),
        (rule("hosts = [\"a.example\"]"), two.clone(), Some("denied")),
        (rule("hosts = [\"b.example\"]"), proxied.clone(), Some("denied")),
        (allow("hosts = [\"a.example\"]"), two, Some("default_deny")),
        (allow("hosts = [\"b.example\"]"), proxied, Some("default_deny")),
        (allow("hosts = [\"www.example.com\"]"), get("/"), None),
        (rule("paths = [\"/admin\"]"), get("/admin/x"), Some("denied")),
        (rule("paths = [\"/admin\"]"), get("/x/..//%61dmin"), Some("denied")),
        (rule("paths = [\"/admin\"]"), get("/x/admin"), None),
        (rule("paths = [\"/x/../\"]"), get("/x/../y"), Some("denied")),
        (allow("paths = [\"/pub/\"]"), get("/pub/../admin"), Some("default_deny")),
        (allow("paths = [\"/pub/\"]"), get("/pub/x?y=/admin"), None),
        (rule("path_regex = ['(?i)\\.php$', '^/x$']"), get("/a.PHP?x=y"), Some("denied")),
        (rule("path_regex = ['\\.php$']"), get("/a?x=b.php"), None),
        (rule("query_regex = ['(?i)union\\s+select']"), get("/?q=UNION%20%20SELECT"), Some("denied")),
        (rule("query_regex = ['(?i)union\\s+select']"), get("/union%20select"), None),
        (rule("header = [{ name = \"user-agent\", regex = ['^tests$'] }]"), get("/"), Some("denied")),
        (rule("header = [{ name = \"User-Agent\", is = \"TESTS\" }]"), get("/"), Some("denied")),
        (rule("header = [{ name = \"Cookie\" }]"), get("/"), None),
        (rule("header = [{ name = \"Cookie\", absent = true }]"), get("/"), Some("denied")),
        (rule("methods = [\"GET\"]\npaths = [\"/y\"]"), get("/x"), None),
        (String::new(), get("/"), None),
        ("default = \"reject\"".into(), get("/"), Some("default_deny")),
        ("default = \"deny\"".into(), "SSH-2.0-x\r\n".into(), Some("default_deny")),
        ("malformed = \"deny\"".into(), "SSH-2.0-x\r\n".into(), Some("malformed")),
        (
            "malformed = \"deny\"".into(),
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n".into(),
            Some("malformed"),
        ),
        ("malformed = \"deny\"".into(), "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some("malformed")),
        ("malformed = \"deny\"".into(), get("/"), None),
        ("http2 = \"deny\"".into(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Some("http2")),
        (String::new(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), None),
    ];
    for (settings, asked, why) in cases {
        let mut line = Line::new(&settings);
        let fate = line.asks(&asked);
        match why {
            Some(why) => {
                assert_eq!(fate, dropped(why), "{settings} {asked}");
                let resets = if settings.contains("reject") { 2 } else { 0 };
                assert_eq!(line.rig.answers.len(), resets, "{settings}");
                assert_eq!(line.asks("more"), Fate::Dropped("flow_condemned".into()), "{settings}");
            }
            None => assert!(is_home(&fate), "{settings} {asked}: {fate:?}"),
        }
    }
}

/// The first rule that speaks of a request decides, on each request of a connection; log rules in front of it tell.
#[test]
fn each_request_of_a_connection_is_decided_on() {
    let rules = "[[stage.rule]]\naction = \"log\"\npaths = [\"/a\"]\n[[stage.rule]]\naction = \"allow\"\npaths = [\"/admin/public\"]\n\
                 [[stage.rule]]\naction = \"reject\"\npaths = [\"/admin\"]\n";
    let mut line = Line::new(rules);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for target in ["/", "/about", "/admin/public"] {
        assert!(is_home(&line.asks(get("a.example", target))), "{target}");
        assert!(is_home(&line.answers(answer)), "{target}");
    }
    assert_eq!(line.asks(get("a.example", "/admin")), dropped("denied"));
    let (records, words) = told(&mut line.rig);
    let records: Vec<Http> = records.into_iter().map(|(_, http)| http).collect();
    assert_eq!(
        lines(&records),
        ["GET / 200 2", "GET /about 200 2", "GET /admin/public 200 2", "GET /admin - 0"]
    );
    assert_eq!(words, ["alert 0 false", "alert 0 false", "alert 0 true"]);
    let rules = ["rule[0] log", "rule[1] allow", "rule[2] reject", "default allow"];
    assert_eq!(rules.map(|rule| line.count(rule)), [3, 1, 1, 2]);
}

/// However large the answer before it was, and the body of the last request: the next request is decided on.
#[test]
fn long_bodies_do_not_hide_what_follows() {
    let mut line = Line::new("[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n");
    let body = vec![b'x'; 8000];
    assert!(is_home(&line.asks("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 800000\r\n\r\n")));
    for _ in 0..100 {
        assert!(is_home(&line.asks(&body)));
    }
    assert!(is_home(&line.answers("HTTP/1.1 200 OK\r\nContent-Length: 1600000\r\n\r\n")));
    for _ in 0..200 {
        assert!(is_home(&line.answers(&body)));
    }
    assert!(is_home(&line.asks(get("a", "/"))));
    assert_eq!(line.asks(get("a", "/admin")), dropped("denied"));
    assert_eq!(lines(&line.records()), ["POST / 200 1600000", "GET / - 0", "GET /admin - 0"]);
}

/// The far end never gets the first bytes of a head that is denied at its last, wherever it is cut.
#[test]
fn a_head_in_pieces_waits_for_its_end() {
    let stream = get("tracker.example", "/x");
    for (host, denied) in [("tracker.example", true), ("other.example", false)] {
        let rule = format!("[[stage.rule]]\naction = \"deny\"\nhosts = [{host:?}]\n");
        // From the first byte that is a beginning of HTTP on.
        for cut in 5..stream.len() {
            let mut line = Line::new(&rule);
            let before = line.rig.settled();
            let (begin, rest) = stream.as_bytes().split_at(cut);
            let frames = [begin, rest].map(|part| line.segment(0, false, "PA", part));
            let [first, second] = frames;
            line.rig.wire.send(first);
            line.rig.worker.poll();
            assert!(line.rig.wire.receive().is_none(), "cut at {cut}: it waits");
            line.pass([second]);
            let after = line.rig.settled();
            assert_eq!(after.sent - before.sent, if denied { 0 } else { 2 }, "cut at {cut}");
            assert_eq!(after.held_for_stages, 0);
        }
    }
}

/// What can be read in two ways is told, and denied where that is wanted.
#[test]
fn smuggling_is_told() {
    let host = "POST / HTTP/1.1\r\nHost: a.example\r\n";
    for (head, event) in [
        (format!("{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Content-Length: +5\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Transfer-Encoding: xchunked\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Transfer-Encoding : chunked\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Transfer-Encoding: chunked, identity\r\n\r\n"), "http_ambiguous_length"),
        (format!("{host}Host: b.example\r\n\r\n"), "http_ambiguous_host"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "http_ambiguous_host"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "http_ambiguous_length"),
    ] {
        let mut line = Line::new("");
        assert!(is_home(&line.asks(&head)), "{head}");
        assert_eq!(line.words(), [event], "{head}");
        let mut line = Line::new("ambiguous = \"deny\"");
        assert_eq!(line.asks(&head), dropped("ambiguous"), "{head}");
    }
    // The coding wins: what is behind the last chunk is a request.
    let rule = "[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n";
    let mut line = Line::new(rule);
    let both = format!(
        "{host}Content-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}",
        get("a", "/admin")
    );
    assert_eq!(line.asks(both), dropped("denied"));
    // A length that nobody knows: what follows is unread.
    let mut line = Line::new(&format!("on_unread = \"drop\"\n{rule}"));
    let unknown = format!("{host}Transfer-Encoding: x\r\n\r\n");
    assert_eq!(line.asks(unknown), Fate::Dropped("stream_unread".into()));
}

#[test]
fn http_on_other_ports_is_found_by_its_beginning() {
    let rule = "[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n";
    for (settings, found) in
        [("", true), ("detect = false\n", false), ("detect = false\nports = [80, 9999]\n", true)]
    {
        let mut line = Line::at(9999, &format!("{settings}{rule}"));
        assert!(is_home(&line.asks(get("a", "/"))));
        let fate = line.asks(get("a", "/admin"));
        assert_eq!(fate == dropped("denied"), found, "{settings} {fate:?}");
    }
    // What is something else is settled at its first bytes.
    let mut line = Line::at(9999, rule);
    for _ in 0..5 {
        assert!(is_home(&line.answers("220 mail.example ESMTP\r\n")));
    }
    assert_eq!(line.rig.settled().stages[0].seen, 2 + 1, "a handshake and a segment");
}

/// With the answer to CONNECT, with Upgrade and with HTTP/2 nothing more is read; and it is told.
#[test]
fn what_is_no_http_any_more_is_settled() {
    let connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let h2c = upgrade.replace("websocket", "h2c");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let (refused, ok) = ("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 200 OK\r\n\r\n");
    for (asked, answers, told, http2) in [
        (connect, &[refused, ok][..1], "CONNECT a.example:443 407 2", None),
        (connect, &[ok], "CONNECT a.example:443 200 0", Some(false)),
        (upgrade, &[switch], "GET /ws 101 0", Some(false)),
        (h2c.as_str(), &["HTTP/1.1 101 Yes\r\nUpgrade: h2c\r\n\r\n"], "GET /ws 101 0", Some(true)),
    ] {
        let mut line = Line::new("");
        assert!(is_home(&line.asks(asked)));
        for answer in answers {
            assert!(is_home(&line.answers(answer)));
        }
        assert!(is_home(&line.asks("\u{16}\u{3}\u{1} something else")));
        assert!(is_home(&line.asks("and more of it")));
        let seen = line.rig.settled().stages[0].seen;
        assert_eq!(seen == 4, http2.is_some(), "{asked}: {seen}");
        let records = line.records();
        assert_eq!(lines(&records)[0], told);
        assert_eq!(line.count("HTTP/2"), u64::from(http2 == Some(true)));
        let protocol = records.last().and_then(|http| http.protocol.as_ref()).map(Text::as_str);
        assert_eq!(protocol == Some("HTTP/2"), http2 == Some(true), "{records:?}");
    }
}

/// A head without end is as good as none: it is told, and goes by on_unread.
#[test]
fn heads_without_end_are_unread() {
    for (on_unread, passes) in [("pass", true), ("drop", false)] {
        let rule = "[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n";
        let mut line =
            Line::new(&format!("hold = false\nhead_bytes = 4096\non_unread = {on_unread:?}\n{rule}"));
        assert!(is_home(&line.asks("GET / HTTP/1.1\r\n")));
        let fates: Vec<Fate> =
            (0..10).map(|n| line.asks(format!("X-{n}: {}\r\n", "x".repeat(1000)))).collect();
        assert!(is_home(&fates[3 - 1]));
        assert_eq!(is_home(&fates[9]), passes, "{fates:?}");
        assert_eq!(line.words(), ["http_head_too_long"]);
        if passes {
            // It goes on where a head begins.
            assert_eq!(line.asks(get("a", "/admin")), dropped("denied"));
        }
    }
}

/// Ten thousand requests of which the end never comes: memory stays where it is, and whoever comes later is read. And ten thousand that nobody answers.
#[test]
fn half_sent_requests_take_no_more_than_there_is() {
    let rule = "[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n";
    for on_unread in ["pass", "drop"] {
        let settings =
            format!("heads = 64\nrequests = 64\nmemory_kb = 64\non_unread = {on_unread:?}\n{rule}");
        let mut line = Line::new(&settings);
        let bad = get("a.example", "/admin");
        for n in 1..10_000u16 {
            line.handshake(n);
            let part = if n % 2 == 0 { bad[..30].to_owned() } else { get("a.example", "/x") };
            let frame = line.segment(n, false, "PA", part.as_bytes());
            line.pass([frame]);
        }
        // What waited for a decision has waited long enough.
        line.rig.set_clock(20_000_000_000);
        line.pass([]);
        line.rig.worker.poll();
        while line.rig.wire.receive().is_some() {}
        let (unanswered, words) = told(&mut line.rig);
        assert!(words.iter().all(|word| word == "http_given_up") && words.len() == 10, "{words:?}");
        assert_eq!(unanswered.len(), 5000 - 64, "the oldest were told without their answers");
        line.handshake(10_000);
        assert_eq!(line.say(10_000, false, &bad), dropped("denied"));
        line.handshake(10_001);
        let frames: Vec<_> =
            get("a.example", "/late").bytes().map(|b| line.segment(10_001, false, "PA", &[b])).collect();
        line.pass(frames);
        line.rig.worker.finish();
        assert!(lines(&line.records()).contains(&"GET /late - 0".to_owned()));
        assert!(line.count("given up") >= 4900, "{}", line.count("given up"));
        let (events, anomaly) = (line.rig.settled().events, Type::Anomaly as usize);
        assert!(events.emitted[anomaly] + events.limited[anomaly] >= 4900, "each is told, or counted");
        assert_eq!(line.rig.settled().held_for_stages, 0);
        assert_eq!(line.rig.pool.available(), line.rig.pool.capacity());
    }
}

/// A gap in a body is counted over; one in a head loses the rest until something begins like a head.
#[test]
fn gaps_in_bodies_are_counted_over() {
    for (length, told) in [(4000, "GET /a 200 4000"), (500, "GET /a 200 0")] {
        let mut line = Line::new("");
        assert!(is_home(&line.asks(get("a", "/a"))));
        assert!(is_home(&line.answers(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))));
        line.sent[1] += 1000; // never seen
        for n in 0..30u64 {
            line.rig.set_clock(n * 1_000_000_000);
            let frame = line.segment(0, true, "PA", &[b'x'; 100]);
            let ack = line.segment(0, false, "A", b"");
            line.pass([frame, ack]);
        }
        let answer = line.segment(0, true, "PA", b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        let ack = line.segment(0, false, "A", b"");
        line.pass([answer, ack]);
        let end = line.segment(0, true, "FA", b"");
        line.pass([end]);
        let found = lines(&line.records());
        assert_eq!(found[0], told, "{length}");
        assert_eq!(found.last().map(String::as_str), Some("- - 404 0"), "{found:?}");
    }
}

/// HTTP/0.9 has no empty line: what it asks for is known when its client has said all.
#[test]
fn requests_end_with_their_connection() {
    let mut line = Line::new("hold = false\n[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n");
    assert!(is_home(&line.asks("GET /admin\r\n")));
    let end = line.segment(0, false, "FA", b"");
    assert_eq!(line.rig.fate(&end), dropped("denied"));
    assert_eq!(lines(&line.records()), ["GET /admin - 0"]);
}
