//! One small conversation of many protocols through each stage: every record that comes of it, what the stage counts, and what was dropped, line by line
//! as `tests/golden/stages/<stage>.jsonl` has it. After a change that is meant, `SLUICEGATE_BLESS=1 cargo nextest run --test golden_stages` writes them anew.

mod common;

use std::path::Path;

use sluicegate::event::{Eve, Lines, Moment};

use common::dns::{answer, asked, query};
use common::hello::{client_hello, server_hello};
use common::inner::{End, tcp, udp, v4, wrap};
use common::{Rig, TUNNEL, dropped, plan};

const NOON: u64 = 1_795_521_600_000_000_000;
const MS: u64 = 1_000_000;

/// Each kind of stage, with rules that something of the conversation meets.
const STAGES: [(&str, &str); 10] = [
    ("count", "by = \"protocol\""),
    ("sample", "one_in = 1"),
    (
        "blocklist",
        "[[stage.list]]\nname = \"bad\"\naction = \"drop\"\nentries = [\"192.0.2.66\"]\n\
         [[stage.list]]\nname = \"told\"\naction = \"alert\"\nentries = [\"192.0.2.53\"]\n",
    ),
    ("ratelimit", "[[stage.limit]]\nname = \"few\"\nper = \"source\"\nnew_flows_per_s = 3\n"),
    ("synguard", "[[stage.limit]]\nname = \"few\"\nper = \"source\"\nsyn_per_s = 3\n"),
    (
        "acl",
        "default = \"allow\"\n[[stage.rule]]\naction = \"log\"\nprotocol = \"tcp\"\ndestination_port = \"22\"\ncomment = \"ssh\"\n\
         [[stage.rule]]\naction = \"deny\"\nprotocol = \"tcp\"\ndestination_port = \"6667\"\ncomment = \"irc\"\n",
    ),
    ("tls", "report_below = \"1.2\"\ndeny_names = [\".ads.example\"]"),
    ("dns", "[[stage.rule]]\naction = \"deny\"\nnames = [\".ads.example\"]\n"),
    ("http", "[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n"),
    ("appid", "plaintext = \"report\"\ndeny = [\"irc\"]"),
];

/// What a connection says, after its handshake: who, and what.
type Said = Vec<(bool, Vec<u8>)>;

fn connection(n: u16, server: End, said: Said) -> Vec<Vec<u8>> {
    let client = v4(10, 1, 0, 5, 40_000 + n);
    let mut next = [101u32, 501];
    let mut packets = vec![
        tcp(client, server, "S", 100, 0, b""),
        tcp(server, client, "SA", 500, 101, b""),
        tcp(client, server, "A", 101, 501, b""),
    ];
    for (reply, bytes) in said {
        let [forth, back] = next;
        packets.push(match reply {
            false => tcp(client, server, "PA", forth, back, &bytes),
            true => tcp(server, client, "PA", back, forth, &bytes),
        });
        next[usize::from(reply)] += bytes.len() as u32;
    }
    let [forth, back] = next;
    packets.push(tcp(client, server, "FA", forth, back, b""));
    packets.push(tcp(server, client, "FA", back, forth + 1, b""));
    packets.push(tcp(client, server, "A", forth + 1, back + 1, b""));
    packets
}

/// The conversation, one connection after the other.
fn conversation() -> Vec<Vec<u8>> {
    let server = |host: u8, port: u16| v4(192, 0, 2, host, port);
    let text = |reply: bool, line: &str| (reply, line.as_bytes().to_vec());
    let hello = |version, name| (false, client_hello(version, &[version], Some(name)));
    let get = |path: &str| text(false, &format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
    let mut packets = vec![
        udp(v4(10, 1, 0, 5, 41_000), server(53, 53), &query(asked(7, "shop.example"))),
        udp(server(53, 53), v4(10, 1, 0, 5, 41_000), &answer(asked(7, "shop.example"), &[[192, 0, 2, 1]])),
        udp(v4(10, 1, 0, 5, 41_001), server(53, 53), &query(asked(8, "x.ads.example"))),
    ];
    let said = [
        (server(1, 443), vec![hello(0x0303, "shop.example"), (true, server_hello(0x0303))]),
        (server(2, 443), vec![hello(0x0301, "old.example"), (true, server_hello(0x0301))]),
        (server(3, 443), vec![hello(0x0303, "x.ads.example"), (true, server_hello(0x0303))]),
        (server(1, 80), vec![get("/cart"), text(true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]),
        (server(1, 80), vec![get("/admin"), text(true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]),
        (server(4, 22), vec![text(true, "SSH-2.0-OpenSSH_9.6\r\n"), text(false, "SSH-2.0-Go\r\n")]),
        (
            server(5, 25),
            vec![
                text(true, "220 mail ESMTP\r\n"),
                text(false, "EHLO a\r\n"),
                text(false, "MAIL FROM:<a@b>\r\n"),
            ],
        ),
        (
            server(6, 6667),
            vec![
                text(false, "NICK bob\r\nUSER bob 0 * :Bob\r\n"),
                text(true, ":irc.example 001 bob :Welcome\r\n"),
            ],
        ),
        (server(66, 9000), vec![text(false, "what is this\r\n")]),
    ];
    packets.extend((0..).zip(said).flat_map(|(n, (server, said))| connection(n, server, said)));
    packets
}

/// What one stage makes of it.
fn lines_of(stage: &str, settings: &str) -> String {
    let plan = plan(&format!(
        "{TUNNEL}[events]\ntypes = [\"alert\", \"drop\", \"anomaly\", \"tls\", \"http\", \"dns\", \"ssh\"]\n\
         [[events.sink]]\nto = \"stdout\"\n[flow]\ntracking = true\ncapacity = 1024\n[[stage]]\nuse = {stage:?}\n{settings}\n"
    ));
    let mut rig = Rig::new(&plan);
    let eve = Eve::of(&plan).with_signatures(&rig.pipeline);
    let mut lines = Lines::new(eve, plan.events.flow_log.clone());
    let before = rig.settled();
    let mut now = NOON;
    for packet in conversation() {
        rig.set_clock(now);
        rig.wire.send(wrap(&packet, 7, 60_001));
        while rig.worker.poll() > 0 {}
        while rig.wire.receive().is_some() {}
        now += MS;
    }
    rig.worker.finish();
    let mut out = String::new();
    let mut said = Vec::new();
    while rig.rings.take(|event| said.push(event)) {}
    for event in said {
        out += String::from_utf8(lines.json(&event, Moment::of_capture(now)).to_vec())
            .expect("UTF-8")
            .trim_end();
        out.push('\n');
    }
    let after = rig.settled();
    let counts: serde_json::Map<_, _> =
        rig.pipeline.stages().flat_map(|(_, shared)| shared.counts()).map(|(k, v)| (k, v.into())).collect();
    let mut reasons = std::collections::BTreeMap::<String, u64>::new();
    for reason in dropped(&rig.reasons, &before, &after) {
        *reasons.entry(reason).or_default() += 1;
    }
    let stage = &after.stages[0];
    let sum = serde_json::json!({
        "seen": stage.seen, "sent_home": stage.forwarded, "dropped": stage.dropped, "reasons": reasons, "counts": counts,
    });
    out + &sum.to_string() + "\n"
}

#[test]
fn each_stage_says_what_it_is_known_to_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stages");
    for (stage, settings) in STAGES {
        let lines = lines_of(stage, settings);
        let path = folder.join(format!("{stage}.jsonl"));
        if std::env::var_os("SLUICEGATE_BLESS").is_some() {
            std::fs::write(&path, &lines).expect("a file");
        }
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(lines == known, "{stage}: it says\n{lines}\nand is known to say\n{known}");
    }
    let known: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
    assert!(sluicegate::stages::ALL.iter().all(|kind| known.contains(&kind.name)), "{known:?}");
}
