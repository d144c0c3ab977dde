//! The stage `appid` over real captures: what nDPI, Suricata and tshark say that flows speak, whatever the order of segments; and over flows that deny, change
//! over to TLS, or say in the clear what they have to say. The captures need the corpus (`SLUICEGATE_CORPUS`).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sluicegate::config::Settings;
use sluicegate::dpdk::PoolConfig;
use sluicegate::packet::{App, Spoken, View};
use sluicegate::stage::{Backend, Cx, Make, ParseResult, Parsed, PerStream, Shared, Stage, StageKind};
use sluicegate::stages::appid::{self, Appid, Tell};

use common::capture::{corpus, cut, packets};
use common::hello::client_hello;
use common::inner::{End as Host, tcp, udp, v4, wrap};
use common::{Fate, Rig, TUNNEL, plan, plan_with, pool_config, say};

/// The stage, and everything it tells.
static TELLING: StageKind = StageKind {
    name: "telling",
    summary: "for tests",
    help: "",
    example: "",
    reasons: appid::KIND.reasons,
    parse: |settings: &Settings<'_>| -> ParseResult {
        Ok(Box::new(Telling(appid::Settings::read(settings)?, Log::default())))
    },
};

type Log = Arc<Mutex<Vec<(String, String)>>>;

#[derive(Clone, Debug)]
struct Telling(appid::Settings, Log);

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
        Box::new(PerStream(Appid::new(&self.0, make, Arc::default(), Writer(self.1.clone()))))
    }

    fn report(&self) -> Vec<(String, String)> {
        self.1.lock().unwrap().clone()
    }
}

struct Writer(Log);

impl Writer {
    fn say(&self, kind: &str, value: Value, packet: &View<'_>) {
        let mut ends = [packet.originator(), packet.responder()];
        ends.sort_by_key(|end| (end.ip().to_string(), end.port()));
        let end = |end: std::net::SocketAddr| format!("{}:{}", end.ip(), end.port());
        let protocol = if packet.meta().protocol == 17 { "udp" } else { "tcp" };
        let key = format!("{protocol} {} {}", end(ends[0]), end(ends[1]));
        self.0.lock().unwrap().push((key, json!({ "kind": kind, "value": value }).to_string()));
    }
}

impl Tell for Writer {
    fn spoken(&mut self, spoken: Spoken, packet: &View<'_>, _: &mut Cx<'_>) {
        let words = [spoken.before(), spoken.app()].map(|app| app.map(App::word));
        let words: Vec<&str> = words.into_iter().flatten().collect();
        self.say("app_proto", words.join(",").into(), packet);
    }

    fn plaintext(&mut self, app: App, _: bool, packet: &View<'_>, _: &mut Cx<'_>) {
        self.say("plaintext", app.word().into(), packet);
    }

    fn ssh(&mut self, lines: [Option<&[u8]>; 2], packet: &View<'_>, _: &mut Cx<'_>) {
        for line in lines.into_iter().flatten() {
            self.say("ssh.banner", String::from_utf8_lossy(line).into(), packet);
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

fn told(rig: &Rig) -> Vec<(String, String, String)> {
    let told = rig.pipeline.stages().flat_map(|(_, shared)| shared.report());
    told.map(|(key, fact)| {
        let fact: Value = serde_json::from_str(&fact).unwrap();
        (key, fact["kind"].as_str().unwrap().to_owned(), fact["value"].as_str().unwrap().to_owned())
    })
    .collect()
}

fn facts(packets: &[(u64, Vec<u8>)]) -> Known {
    let mut rig = rig("plaintext = \"report\"");
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
    for (key, kind, value) in told(&rig) {
        known.entry((key, kind)).or_default().insert(value);
    }
    known
}

fn expected(folder: &std::path::Path) -> BTreeMap<String, Vec<Value>> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).expect("expected.jsonl");
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let fact: Value = serde_json::from_str(line).expect("JSON");
        if ["app_proto", "ssh.banner"].contains(&fact["kind"].as_str().unwrap_or_default()) {
            all.entry(fact["capture"].as_str().unwrap().to_owned()).or_default().push(fact);
        }
    }
    all
}

/// Other words for the same: nDPI's.
fn alias(word: &str) -> &str {
    match word {
        "ipsec" => "ike",
        word => word,
    }
}

/// Of flows whose protocol is one that the stage names, at least 97 % are right; what others say of the rest is hardly ever contradicted.
#[test]
fn protocols_of_captures_are_what_others_say() {
    let Some(folder) = corpus("protocols_of_captures_are_what_others_say") else { return };
    let mut count: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut lines, mut confusion) = (Vec::new(), BTreeMap::<String, usize>::new());
    let (mut other, mut other_wrong) = (0, 0);
    for (capture, wanted) in expected(&folder) {
        let known = facts(&packets(&folder.join("pcap").join(&capture)));
        for fact in wanted {
            let (key, kind) = (fact["key"].as_str().unwrap(), fact["kind"].as_str().unwrap());
            let want = fact["value"].as_str().unwrap();
            // What lies within VXLAN is not ours to see.
            if fact["tunnelled"] == json!(true) || capture == "sv/vxlan-decoder-03.pcap" {
                continue;
            }
            let ours = known.get(&(key.to_owned(), kind.to_owned()));
            if kind == "ssh.banner" {
                let [all, right, _] = count.entry(kind.to_owned()).or_default();
                (*all, *right) =
                    (*all + 1, *right + usize::from(ours.is_some_and(|ours| ours.contains(want))));
                if !ours.is_some_and(|ours| ours.contains(want)) {
                    lines.push(format!("missing {capture} {key} {want}, ours {ours:?}"));
                }
                continue;
            }
            let accept: Vec<&str> =
                fact["accept"].as_array().unwrap().iter().map(|word| alias(word.as_str().unwrap())).collect();
            let words: Vec<&str> =
                ours.iter().flat_map(|ours| ours.iter()).flat_map(|w| w.split(',')).collect();
            let is_known = App::named(accept[0]).is_some();
            let right = words.iter().any(|word| accept.contains(word));
            let silent = words.is_empty() || words == ["failed"];
            if !is_known {
                other += 1;
                if !silent {
                    other_wrong += 1;
                    lines.push(format!("other {capture} {key} {want}, ours {words:?}"));
                }
                continue;
            }
            let [all, good, wrong] = count.entry(want.to_owned()).or_default();
            *all += 1;
            *good += usize::from(right);
            if !right {
                *wrong += usize::from(!silent);
                *confusion.entry(format!("{want} -> {}", words.join(" "))).or_default() += 1;
                lines.push(format!(
                    "{} {capture} {key} {want}, ours {words:?}",
                    if silent { "missing" } else { "WRONG" }
                ));
            }
        }
    }
    let sum =
        |n: usize| count.iter().filter(|(kind, _)| *kind != "ssh.banner").map(|(_, c)| c[n]).sum::<usize>();
    say(&format!(
        "{} of {} flows, {} wrong; {other} of others, {other_wrong} wrong: {count:?}",
        sum(1),
        sum(0),
        sum(2)
    ));
    say(&format!("{confusion:?}"));
    lines.iter().for_each(|line| say(line));
    assert!(sum(1) * 100 >= sum(0) * 97, "{} of {}", sum(1), sum(0));
    assert!(sum(2) * 200 <= sum(0) && other_wrong * 4 <= other, "{} and {other_wrong} wrong", sum(2));
    let [all, right, _] = count["ssh.banner"];
    assert!(right * 100 >= all * 97, "{right} of {all} banners");
}

/// Captures of all kinds, in which nothing is missing: clients and servers that speak first, upgrades, datagrams.
const SHUFFLED: [&str; 20] = [
    "gen/tlslite_tls11_recfrag.pcap",
    "gen/tlslite_tls12_split1.pcap",
    "ndpi/443-curl.pcap",
    "ndpi/cassandra.pcap",
    "ndpi/dnp3.pcap",
    "ndpi/dtls_certificate_fragments.pcap",
    "ndpi/elasticsearch.pcap",
    "ndpi/ftp.pcap",
    "ndpi/http_connect.pcap",
    "ndpi/imap-starttls.pcap",
    "ndpi/memcached.pcap",
    "ndpi/nntp.pcap",
    "ndpi/pgsql.pcap",
    "ndpi/rdp_over_tls.pcap",
    "ndpi/ssh.pcap",
    "ndpi/telnet.pcap",
    "sv/dns__dns-sshfp.pcap",
    "sv/pop3-auth-01.pcap",
    "sv/rfb-rules.pcap",
    "sv/smtp-rejected-ehlo-preserves-envelope.pcap",
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

/// One client and one server, over TCP and over UDP.
struct Line {
    rig: Rig,
    port: u16,
    sent: [u32; 2],
}

impl Line {
    fn new(port: u16, stage: &str) -> Line {
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
            assert!(is_home(&self.rig.fate(&wrap(&inner, 7, 61_000))));
        }
    }

    fn say(&mut self, n: u16, reply: bool, bytes: &[u8]) -> Fate {
        let [client, server] = self.ends(n);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        let [own, other] = if reply { [self.sent[1], self.sent[0]] } else { self.sent };
        let inner = tcp(from, to, "PA", own, other, bytes);
        self.sent[usize::from(reply)] += bytes.len() as u32;
        self.rig.fate(&wrap(&inner, 7, 61_000))
    }

    /// Lines of a conversation: `>` from the client, `<` from the server. The fate of the last.
    fn talk(&mut self, lines: &[&str]) -> Fate {
        let mut fate = Fate::Lost("nothing said".into());
        for (n, line) in lines.iter().enumerate() {
            let (who, what) = line.split_at(1);
            fate = self.say(0, who == "<", format!("{what}\r\n").as_bytes());
            assert!(n + 1 == lines.len() || is_home(&fate), "{line}: {fate:?}");
        }
        fate
    }

    /// A datagram.
    fn send(&mut self, reply: bool, bytes: &[u8]) -> Fate {
        let [client, server] = self.ends(9);
        let (from, to) = if reply { (server, client) } else { (client, server) };
        self.rig.fate(&wrap(&udp(from, to, bytes), 7, 61_000))
    }

    fn told(&self) -> Vec<(String, String)> {
        told(&self.rig).into_iter().map(|(_, kind, value)| (kind, value)).collect()
    }
}

fn is_home(fate: &Fate) -> bool {
    matches!(fate, Fate::Home(_))
}

fn dropped(why: &str) -> Fate {
    Fate::Dropped(format!("telling.{why}"))
}

fn fact(kind: &str, value: &str) -> (String, String) {
    (kind.to_owned(), value.to_owned())
}

#[test]
fn protocols_are_denied_on_any_port() {
    let hello = client_hello(0x0303, &[0x0304], Some("a.example"));
    for (settings, client, why) in [
        ("deny = [\"bittorrent\"]", &b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0"[..], Some("denied")),
        ("deny = [\"bittorrent\"]", b"GET / HTTP/1.1\r\n", None),
        ("deny = [\"http\"]", b"GET / HTTP/1.1\r\n", Some("denied")),
        ("deny = [\"http\"]", &hello, None),
        ("allow = [\"tls\", \"ssh\"]", &hello, None),
        ("allow = [\"tls\", \"ssh\"]", b"SSH-2.0-x\r\n", None),
        ("allow = [\"tls\", \"ssh\"]", b"GET / HTTP/1.1\r\n", Some("not_allowed")),
        ("plaintext = \"deny\"", b"GET / HTTP/1.1\r\n", Some("plaintext")),
        ("plaintext = \"deny\"", &hello, None),
        ("plaintext = \"deny\"\nplaintext_allow = [\"http\"]", b"GET / HTTP/1.1\r\n", None),
        ("plaintext = \"report\"", b"GET / HTTP/1.1\r\n", None),
        ("", b"GET / HTTP/1.1\r\n", None),
    ] {
        for port in [443, 80, 22, 9999] {
            let mut line = Line::new(port, settings);
            let fate = line.say(0, false, client);
            match why {
                Some(why) => {
                    assert_eq!(fate, dropped(why), "{settings}");
                    assert_eq!(line.rig.answers.len(), 2, "a reset each way");
                    assert_eq!(line.say(0, false, b"more"), Fate::Dropped("flow_condemned".into()));
                }
                None => assert!(is_home(&fate), "{settings}: {fate:?}"),
            }
            let mut line = Line::new(port, &format!("{settings}\naction = \"drop\""));
            line.say(0, false, client);
            assert!(line.rig.answers.is_empty());
        }
    }
    // Datagrams.
    let dht = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    assert_eq!(Line::new(53, "deny = [\"bittorrent\"]").send(false, dht), dropped("denied"));
    assert!(is_home(&Line::new(53, "deny = [\"tls\"]").send(false, dht)));
}

/// What nobody knows passes until nobody can know it any more.
#[test]
fn the_unknown_is_denied_when_it_is_known_to_be_that() {
    let noise = [0x07; 40];
    for (settings, denied) in [
        ("unknown = \"deny\"", true),
        ("allow = [\"tls\"]", true),
        ("allow = [\"tls\"]\nunknown = \"pass\"", false),
        ("", false),
    ] {
        let mut line = Line::new(443, settings);
        assert!(is_home(&line.say(0, false, &noise)), "its server may say something");
        let fate = line.say(0, true, &noise);
        assert_eq!(fate == dropped("unknown"), denied, "{settings}: {fate:?}");
        assert_eq!(line.told(), [fact("app_proto", "failed")]);
        // A server that never says anything.
        let mut line = Line::new(443, settings);
        let fates: Vec<Fate> = (0..6).map(|_| line.say(0, false, &[7; 1000])).collect();
        assert!(fates[..4].iter().all(is_home));
        assert_eq!(fates[4] == dropped("unknown"), denied, "{settings}");
        let mut line = Line::new(443, settings);
        let fates: Vec<Fate> = (0..8).map(|_| line.send(false, b"hello")).collect();
        assert!(fates[..7].iter().all(is_home));
        assert_eq!(fates[7] == dropped("unknown"), denied, "{settings}");
    }
}

/// Mail, directories and the like: who begins TLS in time is encrypted, who logs in before that is not, and his password never arrives.
#[test]
fn upgrades_are_followed() {
    const SMTP: [&str; 5] =
        ["<220 mail.example ESMTP", ">EHLO a", "<250-mail.example", "<250 STARTTLS", ">STARTTLS"];
    let hello = client_hello(0x0303, &[0x0304], None);
    for stage in ["plaintext = \"report\"", "plaintext = \"deny\""] {
        let mut line = Line::new(2500, stage);
        line.talk(&SMTP);
        line.talk(&["<220 go ahead"]);
        assert!(is_home(&line.say(0, false, &hello)));
        assert_eq!(line.told(), [fact("app_proto", "smtp"), fact("app_proto", "smtp,tls")], "{stage}");
        let before = line.rig.settled().stages[0].seen;
        assert!(is_home(&line.say(0, true, b"more")));
        assert_eq!(line.rig.settled().stages[0].seen, before, "settled");
    }
    for (conversation, app) in [
        (&["<220 mail.example ESMTP", ">EHLO a", "<250 SIZE", ">AUTH PLAIN AGJvYgBzZWNyZXQ="][..], "smtp"),
        (&["<220 mail.example ESMTP", ">EHLO a", "<250 SIZE", ">MAIL FROM:<a@b.example>"], "smtp"),
        (
            &[
                "<220 mail.example ESMTP",
                ">EHLO a",
                "<250 x",
                ">STARTTLS",
                "<454 not now",
                ">MAIL FROM:<a@b>",
            ],
            "smtp",
        ),
        (&["<220 welcome", ">USER bob"], "ftp"),
        (&["<220 ftp ready (FTP)", ">AUTH TLS", "<500 what", ">USER bob"], "ftp"),
        (&["<* OK ready", ">a CAPABILITY", "<a OK", ">b LOGIN bob secret"], "imap"),
        (&["<+OK ready", ">CAPA", "<+OK", ">USER bob"], "pop3"),
        (&["<200 news ready", ">MODE READER", "<200 ok", ">GROUP misc.test"], "nntp"),
    ] {
        let mut line = Line::new(9999, "plaintext = \"deny\"");
        assert_eq!(line.talk(conversation), dropped("plaintext"), "{conversation:?}");
        assert_eq!(line.told().last(), Some(&fact("plaintext", app)));
        let mut line = Line::new(9999, "plaintext = \"report\"");
        assert!(is_home(&line.talk(conversation)), "{conversation:?}");
        assert_eq!(line.told().last(), Some(&fact("plaintext", app)));
        let fine = format!("plaintext = \"deny\"\nplaintext_allow = [{app:?}]");
        assert!(is_home(&Line::new(9999, &fine).talk(conversation)), "{conversation:?}");
    }
    // Byte by byte, the password never comes through.
    let mut line = Line::new(2500, "plaintext = \"deny\"");
    line.talk(&["<220 mail.example ESMTP", ">EHLO a", "<250 AUTH PLAIN"]);
    let passed: Vec<u8> = b"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n"
        .iter()
        .copied()
        .take_while(|byte| is_home(&line.say(0, false, &[*byte])))
        .collect();
    assert_eq!(passed, b"AUTH");
}

/// PostgreSQL, and TLS within CONNECT.
#[test]
fn upgrades_without_lines_are_followed() {
    let hello = client_hello(0x0303, &[0x0304], None);
    let mut line = Line::new(9999, "plaintext = \"deny\"");
    assert!(is_home(&line.say(0, false, &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f])));
    assert!(is_home(&line.say(0, true, b"S")));
    assert!(is_home(&line.say(0, false, &hello)));
    assert_eq!(line.told(), [fact("app_proto", "pgsql"), fact("app_proto", "pgsql,tls")]);
    let mut line = Line::new(9999, "plaintext = \"deny\"");
    assert!(is_home(&line.say(0, false, &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f])));
    assert!(is_home(&line.say(0, true, b"N")));
    assert_eq!(line.say(0, false, b"\0\0\0\x14\0\x03\0\0user\0bob\0\0\0\0"), dropped("plaintext"));
    let mut line = Line::new(9999, "plaintext = \"deny\"");
    assert!(is_home(&line.say(0, false, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")));
    assert!(is_home(&line.say(0, true, b"HTTP/1.1 200 Connection established\r\n\r\n")));
    assert!(is_home(&line.say(0, false, &hello)));
    assert_eq!(line.told().last(), Some(&fact("app_proto", "http,tls")));
}

/// What both ends of an SSH connection are, in whatever pieces their lines come; and one that ends before that.
#[test]
fn banners_are_told_once() {
    for cut in [1, 5, 100] {
        let mut line = Line::new(9999, "");
        for part in b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n".chunks(cut) {
            line.say(0, true, part);
        }
        for part in b"SSH-2.0-Go\r\n\0\0\x01\x02".chunks(cut) {
            line.say(0, false, part);
        }
        let want = [
            fact("app_proto", "ssh"),
            fact("ssh.banner", "SSH-2.0-Go"),
            fact("ssh.banner", "SSH-2.0-OpenSSH_9.6p1 Debian-3"),
        ];
        assert_eq!(line.told(), want, "{cut}");
    }
    let mut line = Line::new(22, "");
    line.say(0, true, b"SSH-2.0-OpenSSH_9.6p1\r\n");
    let [client, server] = line.ends(0);
    for inner in [tcp(client, server, "FA", 100, 523, b""), tcp(server, client, "FA", 523, 101, b"")] {
        line.rig.fate(&wrap(&inner, 7, 61_000));
    }
    assert_eq!(line.told(), [fact("app_proto", "ssh"), fact("ssh.banner", "SSH-2.0-OpenSSH_9.6p1")]);
}

/// Ten thousand connections that begin and say no more: memory stays where it is, and whoever comes later is known.
#[test]
fn half_said_beginnings_take_no_more_than_there_is() {
    let mut line = Line::new(443, "banners = 16\ndeny = [\"ssh\"]\nplaintext = \"deny\"");
    for n in 1..10_000u16 {
        line.handshake(n);
        let part: &[u8] = if n % 2 == 0 { b"SSH-" } else { b"G" };
        assert!(is_home(&line.say(n, false, part)));
    }
    line.handshake(10_000);
    assert!(is_home(&line.say(10_000, false, b"SS")));
    assert_eq!(line.say(10_000, false, b"H-2.0-x\r\n"), dropped("denied"));
    line.rig.worker.finish();
    assert_eq!(line.rig.pool.available(), line.rig.pool.capacity());
}

#[test]
fn mistakes_in_the_settings_are_named() {
    for (settings, found) in [
        ("deny = [\"htttp\"]", "\"htttp\" is no protocol"),
        ("deny = [\"failed\"]", "\"failed\" is no protocol"),
        ("allow = [\"tls\"]\ndeny = [\"tls\"]", "\"tls\" is allowed and denied"),
        ("plaintext_allow = [\"http\"]", "does nothing while plaintext is off"),
        ("datagrams = 0", "0 is not between 1 and 64"),
        ("depth = 70000", "70000 is not between 64 and 65535"),
        ("banners = 0", "0 is not between 1 and 65535"),
        ("plaintext = \"yes\"", "\"yes\""),
        ("ports = [80]", "ports"),
    ] {
        let text = format!("{TUNNEL}[[stage]]\nuse = \"appid\"\n{settings}\n");
        let options = sluicegate::config::Options { need_ports: false, ..Default::default() };
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let problems = sluicegate::config::load_text("test.toml", &text, root, &Default::default(), &options)
            .unwrap_err();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.contains(found)), "{settings}: {said:?}");
    }
}

/// A reload decides anew on flows of which it is known what they speak: denied ones are cut, and go on when that is taken back. Of those of which
/// nothing is known what was said holds.
#[test]
fn a_reload_decides_by_what_is_known() {
    let text = |more: &str| format!("{TUNNEL}[[stage]]\nuse = \"appid\"\n{more}");
    let (all, none) = (plan(&text("")), plan(&text("deny = [\"ssh\"]\n")));
    let mut line = Line { rig: Rig::new(&all), port: 2222, sent: [100, 500] };
    line.handshake(0);
    assert!(is_home(&line.talk(&["<SSH-2.0-OpenSSH_9.2", ">SSH-2.0-OpenSSH_9.2"])));
    let shell = line.sent;
    // Another one that has not said what it is.
    line.handshake(1);
    let mut sent = [shell, line.sent];
    let mut say = |line: &mut Line, n: usize, reply| {
        line.sent = sent[n];
        let fate = line.say(n as u16, reply, b"more");
        sent[n] = line.sent;
        fate
    };
    assert!(is_home(&say(&mut line, 0, false)));
    for round in 0..2 {
        line.rig.reload(&none);
        assert_eq!(say(&mut line, 0, round == 1), Fate::Dropped("appid.denied".into()), "{round}");
        assert!(is_home(&say(&mut line, 1, false)), "{round}");
        line.rig.reload(&all);
        assert!(is_home(&say(&mut line, 0, false)), "{round}");
    }
}
