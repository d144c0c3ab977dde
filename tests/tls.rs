//! The stage `tls` over real captures: what tshark and others say of their handshakes, whatever the order of segments; and over hellos that lie.
//! The captures need the corpus (`SLUICEGATE_CORPUS`).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sluicegate::config::{self, Settings};
use sluicegate::dpdk::PoolConfig;
use sluicegate::packet::View;
use sluicegate::stage::{Backend, Cx, Make, ParseResult, Parsed, PerStream, Shared, Stage, StageKind};
use sluicegate::stages::tls::{self, Facts, Tell, Tls, version_name};

use common::capture::{corpus, cut, packets};
use common::hello::{client_hello, server_hello};
use common::inner::{End as Host, tcp, udp, v4, wrap};
use common::{ANOMALIES, Fate, Rig, TUNNEL, plan, plan_with, pool_config, say};

/// The stage, and everything it tells.
static TELLING: StageKind = StageKind {
    name: "telling",
    summary: "for tests",
    help: "",
    example: "",
    reasons: tls::KIND.reasons,
    parse: |settings: &Settings<'_>| -> ParseResult {
        Ok(Box::new(Telling(tls::Settings::read(settings)?, Log::default())))
    },
};

type Log = Arc<Mutex<Vec<(String, String)>>>;

#[derive(Clone, Debug)]
struct Telling(tls::Settings, Log);

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
        Box::new(PerStream(Tls::new(&self.0, make, Arc::default(), Writer(self.1.clone()))))
    }

    fn report(&self) -> Vec<(String, String)> {
        self.1.lock().unwrap().clone()
    }
}

struct Writer(Log);

impl Tell for Writer {
    fn tell(&mut self, facts: &Facts<'_>, packet: &View<'_>, _: &mut Cx<'_>) {
        let mut ends = [packet.originator(), packet.responder()];
        ends.sort_by_key(|end| (end.ip().to_string(), end.port()));
        let end = |end: std::net::SocketAddr| format!("{}:{}", end.ip(), end.port());
        let (protocol, kind) = if facts.dtls { ("udp", "dtls") } else { ("tcp", "tls") };
        let key = format!("{protocol} {} {}", end(ends[0]), end(ends[1]));
        let mut log = self.0.lock().unwrap();
        let mut say = |what: &str, value: Value| {
            log.push((key.clone(), json!({ "kind": format!("{kind}.{what}"), "value": value }).to_string()));
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(client) = facts.client {
            let alpn: Vec<String> = client.alpn.iter().map(|name| text(name)).collect();
            say("ch_legacy_version", version_name(client.version).into());
            // The corpus counts published versions only.
            if let Some(version) = client.listed {
                say("ch_max_version", version_name(version).into());
            }
            say("sni", client.sni.as_deref().map(text).unwrap_or_default().into());
            say("alpn_offered", alpn.into());
            if let (Some(ja3), Some(ja4)) = (client.ja3(), client.ja4()) {
                say("ja3", ja3.hex().into());
                say("ja4", ja4.into());
            }
        }
        if let Some(server) = facts.server {
            say("negotiated_version", version_name(server.version).into());
            say("cipher", format!("{:#06x}", server.cipher).into());
            say("ja3s", server.ja3s.as_ref().unwrap().hex().into());
            if let Some(alpn) = &server.alpn {
                say("alpn_selected", text(alpn).into());
            }
        }
    }
}

/// Facts by flow and kind.
type Known = BTreeMap<(String, String), BTreeSet<String>>;

fn rig(stage: &str) -> Rig {
    let text = format!("{TUNNEL}[flow]\ncapacity = 16384\n[[stage]]\nuse = \"telling\"\n{stage}\n");
    let pool = PoolConfig { data_room: 65_000, ..pool_config(512) };
    Rig::with_pool(&plan_with(&text, &[&TELLING]), &pool)
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
    for (key, fact) in rig.pipeline.stages().flat_map(|(_, shared)| shared.report()) {
        let fact: Value = serde_json::from_str(&fact).unwrap();
        let kind = fact["kind"].as_str().unwrap().to_owned();
        known.entry((key, kind)).or_default().insert(fact["value"].to_string());
    }
    known
}

fn expected(folder: &std::path::Path) -> BTreeMap<String, Vec<Value>> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).expect("expected.jsonl");
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let fact: Value = serde_json::from_str(line).expect("JSON");
        let kind = fact["kind"].as_str().unwrap_or_default();
        if (kind.starts_with("tls.") || kind.starts_with("dtls.")) && kind != "tls.obsolete" {
            all.entry(fact["capture"].as_str().unwrap().to_owned()).or_default().push(fact);
        }
    }
    all
}

#[test]
fn facts_of_captures_are_what_others_say() {
    let Some(folder) = corpus("facts_of_captures_are_what_others_say") else { return };
    let mut count: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut lines, mut silent) = (Vec::new(), 0);
    for (capture, wanted) in expected(&folder) {
        let known = facts(&packets(&folder.join("pcap").join(&capture)));
        for fact in wanted {
            let (key, kind) = (fact["key"].as_str().unwrap(), fact["kind"].as_str().unwrap());
            let of = |value: &Value| value.to_string();
            let want = of(&fact["value"]);
            let plain = want.split(" (").next().map(|v| v.trim_end_matches('"').to_owned() + "\"");
            let ours = known.get(&(key.to_owned(), kind.to_owned()));
            let found =
                ours.is_some_and(|ours| ours.contains(&want) || plain.is_some_and(|p| ours.contains(&p)));
            // Of flows that begin in the middle a stateful engine may say nothing; but nothing wrong. (Here: segments without any flag,
            // and TCP inside of GTP.)
            if ours.is_none() && fact["handshake"] == json!(false) {
                silent += 1;
                continue;
            }
            let [all, right, wrong] = count.entry(kind.to_owned()).or_default();
            *all += 1;
            match (found, ours) {
                (true, _) => *right += 1,
                (false, Some(ours)) => {
                    *wrong += 1;
                    lines.push(format!("WRONG {capture} {key} {kind}: {want}, ours {ours:?}"));
                }
                (false, None) => {
                    lines.push(format!("missing {capture} {key} {kind}: {want} {}", fact["handshake"]))
                }
            }
        }
    }
    let sum = |n: usize| count.values().map(|c| c[n]).sum::<usize>();
    say(&format!(
        "{} of {} facts, {} wrong, {silent} of flows without a beginning: {count:?}",
        sum(1),
        sum(0),
        sum(2)
    ));
    assert!(silent <= 25, "{silent}");
    for line in lines.iter().filter(|l| l.starts_with("WRONG")).chain(&lines).take(60) {
        say(line)
    }
    assert!(sum(1) * 100 >= sum(0) * 99 && sum(2) == 0, "{} of {}, {} wrong", sum(1), sum(0), sum(2));
}

/// Captures in which nothing is missing, of all kinds: TLS 1.0 to 1.3, retries, records cut into pieces, DTLS.
const SHUFFLED: [&str; 22] = [
    "gen/ossl_tls13_hrr.pcap",
    "gen/tlslite_tls10_split100.pcap",
    "gen/tlslite_tls11_recfrag.pcap",
    "gen/tlslite_tls12_split1.pcap",
    "gen/tlslite_tls13_split7.pcap",
    "gen/tlslite_ssl3_to_tls12_client.pcap",
    "ndpi/443-curl.pcap",
    "ndpi/443-git.pcap",
    "ndpi/443-safari.pcap",
    "ndpi/dns_dot.pcap",
    "ndpi/dtls_certificate_fragments.pcap",
    "ndpi/firefox.pcap",
    "ndpi/http_connect.pcap",
    "ndpi/imap-starttls.pcap",
    "ndpi/long_tls_certificate.pcap",
    "ndpi/rdp_over_tls.pcap",
    "ndpi/safari.pcap",
    "ndpi/smtps.pcap",
    "ndpi/tls_esni_sni_both.pcap",
    "sv/tls__tls-client-hello-frag-01.pcap",
    "sv/tls__tls-random-6989.pcap",
    "sv/tls__tls13-draft19.pcap",
];

/// Shuffled within a window, doubled, cut to single bytes: the same facts.
#[test]
fn facts_do_not_depend_on_order_or_cuts() {
    let Some(folder) = corpus("facts_do_not_depend_on_order_or_cuts") else { return };
    for (seed, capture) in (1..).zip(SHUFFLED) {
        // A packet every 5 ms: some captures are of people who type.
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

/// One connection through the stage.
struct Line {
    rig: Rig,
    sent: [u32; 2],
}

impl Line {
    fn new(stage: &str) -> Line {
        let mut line = Line { rig: rig(stage), sent: [100, 500] };
        line.handshake(0);
        line
    }

    fn ends(n: u16) -> [Host; 2] {
        [v4(10, 1, (n >> 8) as u8, n as u8, 40_000), v4(192, 0, 2, 1, 443)]
    }

    fn handshake(&mut self, n: u16) {
        let [client, server] = Self::ends(n);
        self.sent = [100, 500];
        for (inner, _) in
            [(tcp(client, server, "S", 99, 0, b""), 0), (tcp(server, client, "SA", 499, 100, b""), 1)]
        {
            assert!(matches!(self.rig.fate(&wrap(&inner, 7, 61_000)), Fate::Home(_)));
        }
    }

    fn say(&mut self, n: u16, reply: bool, bytes: &[u8]) -> Fate {
        let [client, server] = Self::ends(n);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        let [own, other] = if reply { [self.sent[1], self.sent[0]] } else { self.sent };
        let inner = tcp(from, to, "PA", own, other, bytes);
        self.sent[usize::from(reply)] += bytes.len() as u32;
        self.rig.fate(&wrap(&inner, 7, 61_000))
    }
}

fn dropped(why: &str) -> Fate {
    Fate::Dropped(format!("telling.{why}"))
}

#[test]
fn hellos_are_denied_by_what_they_say() {
    let old = client_hello(0x0301, &[], Some("www.example.com"));
    let new = client_hello(0x0303, &[0x0304, 0x0303], Some("www.example.com"));
    let unnamed = client_hello(0x0303, &[], None);
    for (settings, hello, why) in [
        ("deny_below = \"1.2\"", &old, Some("version")),
        ("deny_below = \"1.0\"", &old, None),
        ("deny_below = \"1.3\"", &new, None),
        ("deny_names = [\".example.com\"]", &new, Some("name")),
        ("deny_names = [\"example.com\"]", &new, None),
        ("allow_names = [\"www.example.com\"]", &new, None),
        ("allow_names = [\"www.example.org\"]", &new, Some("name")),
        ("unnamed = \"deny\"", &unnamed, Some("unnamed")),
        ("unnamed = \"deny\"", &new, None),
        ("", &old, None),
    ] {
        let mut line = Line::new(settings);
        let fate = line.say(0, false, hello);
        match why {
            Some(why) => {
                assert_eq!(fate, dropped(why), "{settings}");
                assert_eq!(line.rig.answers.len(), 2, "a reset each way");
                assert_eq!(line.say(0, false, b"more"), Fate::Dropped("flow_condemned".into()));
            }
            None => assert!(matches!(fate, Fate::Home(_)), "{settings}: {fate:?}"),
        }
    }
}

#[test]
fn a_server_that_chooses_an_old_version_is_denied() {
    let mut line = Line::new("deny_below = \"1.2\"");
    assert!(matches!(line.say(0, false, &client_hello(0x0303, &[], None)), Fate::Home(_)));
    assert_eq!(line.say(0, true, &server_hello(0x0302)), dropped("version"));
    let mut line = Line::new("deny_below = \"1.2\"\naction = \"drop\"");
    line.say(0, false, &client_hello(0x0303, &[], None));
    assert_eq!(line.say(0, true, &server_hello(0x0301)), dropped("version"));
    assert!(line.rig.answers.is_empty());
}

#[test]
fn fingerprints_are_denied() {
    let hello = client_hello(0x0303, &[], Some("a.example"));
    let mut line = Line::new("");
    line.say(0, false, &hello);
    line.rig.worker.finish();
    let told: Vec<Value> = line
        .rig
        .pipeline
        .stages()
        .flat_map(|(_, shared)| shared.report())
        .map(|(_, fact)| serde_json::from_str(&fact).unwrap())
        .collect();
    let of = |kind: &str| told.iter().find(|fact| fact["kind"] == kind).unwrap()["value"].to_string();
    for setting in [format!("deny_ja3 = [{}]", of("tls.ja3")), format!("deny_ja4 = [{}]", of("tls.ja4"))] {
        assert_eq!(Line::new(&setting).say(0, false, &hello), dropped("fingerprint"), "{setting}");
        // And where nobody wants to be told, so that fingerprints are made for the rule alone.
        let text = format!("{TUNNEL}[flow]\ncapacity = 1024\n[[stage]]\nuse = \"tls\"\n{setting}\n");
        let mut line = Line { rig: Rig::new(&plan(&text)), sent: [100, 500] };
        line.handshake(0);
        assert_eq!(line.say(0, false, &hello), Fate::Dropped("tls.fingerprint".into()), "{setting}");
    }
}

/// Files of fingerprints, as lists on the net have them.
#[test]
fn fingerprints_come_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| std::fs::write(folder.path().join("ja3.csv"), text).expect("a file");
    let load = |more: &str| {
        let text = format!("{TUNNEL}[[stage]]\nuse = \"tls\"\n{more}\n");
        let options = config::Options { need_ports: false, ..config::Options::default() };
        config::load_text("t.toml", &text, folder.path(), &config::Overrides::default(), &options)
    };
    write(
        "# ja3_md5,Firstseen,Lastseen,Listingreason\n\nE7D705A3286E19EA42F587B344EE6865,2017-07-14,x,Tor\n",
    );
    let mut plan = load("deny_ja3_file = \"ja3.csv\"").expect("a plan");
    let rig = Rig::new(&plan);
    let stage = rig.pipeline.stages().next().expect("a stage").1;
    assert!(stage.report().contains(&("fingerprints denied".to_owned(), "1".to_owned())));
    let before = plan.stages.remove(0).mark;
    write("e7d705a3286e19ea42f587b344ee6866\n");
    assert_ne!(
        load("deny_ja3_file = \"ja3.csv\"").expect("a plan").stages.remove(0).mark,
        before,
        "it is read anew"
    );
    write("t13d1516h2_8daaf6152771_e5627efa2ab1\n");
    load("deny_ja4_file = \"ja3.csv\"").expect("a plan");
    let problems = load("deny_ja3_file = \"ja3.csv\"").expect_err("that is a JA4");
    assert!(problems[0].to_string().contains("ja3.csv:1"), "{problems:?}");
}

/// The far end never gets the first bytes of a hello that is denied at its last, wherever it is cut.
#[test]
fn a_hello_in_pieces_waits_for_its_name() {
    let hello = client_hello(0x0303, &[0x0304], Some("tracker.example"));
    for (name, denied) in [("tracker.example", true), ("other.example", false)] {
        for cut in 1..hello.len() {
            let mut line = Line::new(&format!("deny_names = [{name:?}]"));
            let before = line.rig.settled();
            let frames = [&hello[..cut], &hello[cut..]].map(|part| {
                let inner = tcp(Line::ends(0)[0], Line::ends(0)[1], "PA", line.sent[0], 500, part);
                line.sent[0] += part.len() as u32;
                wrap(&inner, 7, 61_000)
            });
            line.rig.wire.send(frames[0].clone());
            line.rig.worker.poll();
            assert!(line.rig.wire.receive().is_none(), "cut at {cut}: it waits");
            line.rig.wire.send(frames[1].clone());
            line.rig.worker.poll();
            let after = line.rig.settled();
            let (made, sent) = (after.answers.made(), after.sent - before.sent);
            assert_eq!((made, sent), if denied { (2, 2) } else { (0, 2) }, "cut at {cut}");
            assert_eq!(after.held_for_stages, 0);
            while line.rig.wire.receive().is_some() {}
        }
    }
}

#[test]
fn broken_hellos_pass_or_not_as_asked() {
    let good = client_hello(0x0303, &[0x0304], Some("a.example"));
    let mut lists = good.clone();
    lists[45] = 0x7f; // ciphers beyond the end
    let mut record = good.clone();
    record.truncate(20);
    record.extend([22, 9, 9]);
    let mut long = good.clone();
    (long[6], long[7]) = (2, 0x10); // 129 kB and more: nothing that anybody reads
    for (what, hello) in [("lists", &lists), ("long", &long)] {
        assert!(matches!(Line::new("").say(0, false, hello), Fate::Home(_)), "{what}");
    }
    assert_eq!(Line::new("malformed = \"deny\"").say(0, false, &lists), dropped("malformed"));
    assert_eq!(Line::new("on_unread = \"drop\"").say(0, false, &long), unread());
    assert!(matches!(
        Line::new("malformed = \"deny\"").say(0, false, b"GET / HTTP/1.1\r\n\r\n"),
        Fate::Home(_)
    ));
}

fn unread() -> Fate {
    Fate::Dropped("stream_unread".into())
}

/// OpenSSL takes any version in a record header, and any but those of SSL 2 in a hello.
#[test]
fn hellos_of_any_version_are_read() {
    for (record, major, minor) in [(5, 3, 3), (0xff, 3, 3), (0, 3, 3), (1, 4, 3), (1, 0xfe, 0xff), (9, 0, 9)]
    {
        let mut hello = client_hello(0x0303, &[0x0304], Some("a.example"));
        (hello[2], hello[9], hello[10]) = (record, major, minor);
        let mut line = Line::new("deny_names = [\"a.example\"]");
        assert_eq!(line.say(0, false, &hello), dropped("name"), "{record} {major} {minor}");
    }
}

/// Where a client can be denied, a server that answers one whom nobody heard goes by on_unread.
#[test]
fn an_answer_to_what_nobody_heard_is_unread() {
    let ask = "deny_names = [\"a.example\"]";
    for (settings, fate) in [
        (format!("{ask}\non_unread = \"drop\""), Some(unread())),
        (ask.to_owned(), None),
        ("on_unread = \"drop\"".to_owned(), None),
    ] {
        let mut line = Line::new(&settings);
        line.say(0, false, b"something that is no hello and was taken for one");
        let came = line.say(0, true, &server_hello(0x0303));
        match fate {
            Some(fate) => assert_eq!(came, fate, "{settings}"),
            None => assert!(matches!(came, Fate::Home(_)), "{settings}: {came:?}"),
        }
    }
}

/// A hello that is longer than what of a stream is read.
#[test]
fn what_is_behind_the_depth_is_unread() {
    let hello = client_hello(0x0303, &[0x0304], Some(&"a".repeat(1500)));
    for (on_unread, drops) in [("drop", true), ("pass", false)] {
        let mut line = Line::new(&format!("hold = false\non_unread = {on_unread:?}\n[stream]\ndepth_kb = 1"));
        assert!(matches!(line.say(0, false, &hello[..1000]), Fate::Home(_)));
        let fate = line.say(0, false, &hello[1000..]);
        assert_eq!(fate == unread(), drops, "{fate:?}");
        // Commands behind which one may come; and what none comes behind.
        for (said, unread_too) in
            [(&b"NOOP 12\r\n"[..], true), (b"POST /a HTTP/1.1\r\n", false), (b"SSH-2.0-x\r\n\0", false)]
        {
            let settings = format!("deny_below = \"1.2\"\non_unread = {on_unread:?}\n[stream]\ndepth_kb = 1");
            let mut line = Line::new(&settings);
            let fate = line.say(0, false, &said.repeat(1400 / said.len()));
            assert_eq!(fate == unread(), drops && unread_too, "{fate:?}");
        }
        // A hello that was read, and much behind it.
        let mut line = Line::new(&format!("hold = false\non_unread = {on_unread:?}\n[stream]\ndepth_kb = 1"));
        line.say(0, false, &client_hello(0x0303, &[], None));
        let more = [&[22, 3, 3, 8, 0, 11, 0, 7, 0xfc][..], &[7; 2044]].concat();
        assert!(matches!(line.say(0, false, &more), Fate::Home(_)));
    }
}

/// What looks like a hello, said to somebody who speaks no TLS yet, does not end the search for the one that comes behind STARTTLS.
#[test]
fn a_hello_that_is_a_lie_hides_no_other() {
    let bad = client_hello(0x0303, &[0x0304], Some("tracker.example"));
    let good = client_hello(0x0303, &[0x0304], Some("good.example"));
    let line_of = |bytes: &[u8]| [b"HELP ", bytes, b"\r\n"].concat();
    let begins = b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03";
    let alert = b"\x15\x03\x03\x40\x00";
    let data = b"\x17\x03\x03\x00\x20";
    let cipher = b"\x14\x03\x03\x00\x01\x01";
    let lies: [(&str, Vec<u8>); 8] = [
        ("nothing", b"EHLO a.example\r\n".to_vec()),
        ("eleven bytes", line_of(begins)),
        ("and what it announces", line_of(&[&begins[..], &[7; 60]].concat())),
        ("a hello", line_of(&good)),
        ("a hello, and an alert", line_of(&[&good[..], alert].concat())),
        ("a hello, and data", line_of(&[&good[..], data].concat())),
        ("a hello, and a change of ciphers", line_of(&[&good[..], cipher, b"x"].concat())),
        ("much", b"NOOP\r\n".repeat(1500)),
    ];
    for (what, lie) in &lies {
        for cut in [1, 3, 1000] {
            let mut line = Line::new("deny_names = [\"tracker.example\"]\nhold = false");
            let said =
                [lie.as_slice(), b"NOOP this line is here to be as long as what was announced\r\n"].concat();
            let (said, cut) = (said.as_slice(), if said.len() > 1000 { 1000 } else { cut });
            line.say(0, true, b"220 mail.example ESMTP\r\n");
            for part in said.chunks(cut) {
                assert!(matches!(line.say(0, false, part), Fate::Home(_)), "{what}");
            }
            line.say(0, true, b"500 what?\r\n");
            assert!(matches!(line.say(0, false, b"STARTTLS\r\n"), Fate::Home(_)), "{what}");
            line.say(0, true, b"220 go on\r\n");
            assert_eq!(line.say(0, false, &bad), dropped("name"), "{what}, {cut}");
        }
    }
    // One that is not known to be answered is not the one that is told.
    let mut line = Line::new("deny_names = [\"other.example\"]\nhold = false");
    line.say(0, false, &line_of(&good));
    line.say(0, false, &bad);
    line.say(0, true, &server_hello(0x0303));
    let told: Vec<String> =
        line.rig.pipeline.stages().flat_map(|(_, s)| s.report()).map(|(_, t)| t).collect();
    let at = |text: &str| told.iter().position(|fact| fact.contains(text));
    assert!(
        at("good.example") < at("tracker.example") && at("tracker.example") < at("negotiated"),
        "{told:?}"
    );
}

/// A ClientHello of DTLS: of the same words, with a cookie, in fragments.
fn dtls_hello(name: &str, cut: usize) -> Vec<Vec<u8>> {
    let tls = client_hello(0xfefd, &[], Some(name));
    let mut body = tls[9..].to_vec();
    body.insert(35, 0);
    let fragment = |at: usize, part: &[u8]| {
        let word = |n: usize| (n as u16).to_be_bytes();
        let mut out = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        out.extend(word(12 + part.len()));
        out.extend([&[1, 0][..], &word(body.len()), &[0, 0, 0], &word(at), &[0], &word(part.len())].concat());
        [out, part.to_vec()].concat()
    };
    body.chunks(cut).enumerate().map(|(n, part)| fragment(n * cut, part)).collect()
}

#[test]
fn dtls_may_come_late_and_in_pieces() {
    let [client, server] = Line::ends(3);
    let send = |rig: &mut Rig, datagram: &[u8]| rig.fate(&wrap(&udp(client, server, datagram), 7, 61_000));
    let ask = "deny_names = [\"a.example\"]\nhold = false\n";
    let whole = dtls_hello("a.example", 1000).remove(0);
    // However many others come first.
    let mut late = rig(ask);
    let data = [&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 40][..], &[7; 40]].concat();
    for n in 0..200 {
        let other = if n % 2 == 0 { &b"not dtls at all"[..] } else { &data };
        assert!(matches!(send(&mut late, other), Fate::Home(_)));
    }
    assert_eq!(send(&mut late, &whole), dropped("name"));
    // Whatever the record says of its version.
    let mut other = whole.clone();
    other[2] = 0x55;
    assert_eq!(send(&mut rig(ask), &other), dropped("name"));
    // Two copies of a fragment: the first is read, and that they differ is told.
    for (on_unread, drops) in [("drop", true), ("pass", false)] {
        let mut rig = rig(&format!("{ask}on_unread = {on_unread:?}\n{ANOMALIES}"));
        let parts = dtls_hello("b.example", 60);
        let mut changed = parts[1].clone();
        *changed.last_mut().expect("bytes") ^= 1;
        assert!(matches!(send(&mut rig, &parts[1]), Fate::Home(_)));
        assert_eq!(send(&mut rig, &changed) == unread(), drops);
        assert_eq!(rig.anomalies("tls_fragments_differ"), 1);
    }
    // In fragments of IP it is not malformed, but cannot be read.
    for (settings, passes) in [("", true), ("on_unread = \"drop\"", false)] {
        let mut rig = rig(&format!("{ask}malformed = \"deny\"\n{settings}"));
        let packet = udp(client, server, &whole[..64]);
        let first = &common::inner::pieces(&packet, 9)[0];
        let fate = rig.fate(&wrap(first, 7, 61_000));
        assert_eq!(matches!(fate, Fate::Home(_)), passes, "{fate:?}");
        assert!(passes || fate == unread(), "{fate:?}");
    }
}

/// A hello of which the rest does not come is told after a while, one that no server answers is not.
#[test]
fn half_a_hello_is_told_after_a_while() {
    let hello = client_hello(0x0303, &[], Some("slow.example"));
    for (len, told) in [(60, 1), (hello.len(), 0)] {
        let mut line = Line::new(&format!("sessions = 8\n{ANOMALIES}"));
        line.rig.wire.send(wrap(
            &tcp(Line::ends(0)[0], Line::ends(0)[1], "PA", 100, 500, &hello[..len]),
            7,
            61_000,
        ));
        line.rig.worker.poll();
        while line.rig.wire.receive().is_some() {}
        line.handshake(1);
        for second in 0..40 {
            line.rig.set_clock(second * 1_000_000_000);
            line.say(1, false, b"NOOP\r\n");
        }
        assert_eq!(line.rig.anomalies("tls_given_up"), told);
    }
}

/// Ten thousand hellos of which the end never comes: memory stays where it is, whoever comes later is read, and all is given back.
#[test]
fn half_sent_hellos_take_no_more_than_there_is() {
    for (on_unread, settings) in [("pass", ""), ("drop", "deny_below = \"1.2\"")] {
        let stage =
            format!("sessions = 256\nmemory_kb = 64\non_unread = {on_unread:?}\n{settings}\n{ANOMALIES}");
        let mut line = Line::new(&stage);
        let hello = client_hello(0x0303, &[0x0304], Some("slow.example"));
        for n in 1..10_000u16 {
            line.handshake(n);
            let [client, server] = Line::ends(n);
            let inner = tcp(client, server, "PA", 100, 500, &hello[..60]);
            line.rig.wire.send(wrap(&inner, 7, 61_000));
            line.rig.worker.poll();
            while line.rig.wire.receive().is_some() {}
        }
        let fate = {
            line.handshake(10_000);
            line.say(10_000, false, &hello)
        };
        assert!(matches!(fate, Fate::Home(_)), "{fate:?}");
        assert!(matches!(line.say(10_000, true, &server_hello(0x0303)), Fate::Home(_)));
        line.rig.worker.finish();
        assert_eq!(line.rig.settled().held_for_stages, 0);
        assert_eq!(line.rig.pool.available(), line.rig.pool.capacity());
        let given_up = line.rig.anomalies("tls_given_up");
        assert!(given_up > 9_000, "each is told, or counted: {given_up}");
        let told = line.rig.pipeline.stages().flat_map(|(_, shared)| shared.report()).count();
        assert!(told >= 8, "{told}");
    }
}

#[test]
fn other_udp_is_let_go() {
    let mut rig = rig("");
    let [client, server] = Line::ends(3);
    for _ in 0..20 {
        let fate = rig.fate(&wrap(&udp(client, server, b"not dtls at all"), 7, 61_000));
        assert!(matches!(fate, Fate::Home(_)));
    }
    assert_eq!(rig.settled().stages[0].seen, 16, "after sixteen datagrams it is settled");
}
