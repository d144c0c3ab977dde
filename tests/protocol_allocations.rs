//! What the stages that read protocols ask of the allocator for each flow, with and without records that somebody wants: the table of
//! `benches/record/allocations.md`, which this test compares with what it counts. `SLUICEGATE_RECORD=1` writes it anew.
//!
//! Counts are exact and no machine's: so many calls for this flow. The flows are typical ones; what differs with their content is said there.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::path::Path;

use common::inner::{End, tcp, udp, v4, wrap};
use common::{Rig, TUNNEL, plan};

/// Flows of each kind that are counted, behind as many that are not: what is made once and kept (room in sessions, in the soft wire) is there then.
const FLOWS: u64 = 64;

/// What both sides of a flow say, in order. True: the one that answers.
struct Talk {
    name: &'static str,
    port: u16,
    udp: bool,
    said: Vec<(bool, Vec<u8>)>,
}

impl Talk {
    fn new(name: &'static str, port: u16, said: Vec<(bool, Vec<u8>)>) -> Talk {
        Talk { name, port, udp: false, said }
    }

    /// The same in segments of so many bytes.
    fn cut(self, name: &'static str, len: usize) -> Talk {
        let cut = |(reply, bytes): &(bool, Vec<u8>)| {
            bytes.chunks(len).map(|part| (*reply, part.to_vec())).collect::<Vec<_>>()
        };
        Talk { name, said: self.said.iter().flat_map(cut).collect(), ..self }
    }

    /// The inner packets of a flow, from its SYN to its end.
    fn packets(&self, client: End) -> Vec<Vec<u8>> {
        let server = v4(192, 0, 2, 1, self.port);
        let ends = [client, server];
        let between = |reply: bool| (ends[usize::from(reply)], ends[1 - usize::from(reply)]);
        if self.udp {
            let said = self.said.iter();
            return said.map(|(reply, bytes)| udp(between(*reply).0, between(*reply).1, bytes)).collect();
        }
        let mut sent = [99u32, 499];
        let mut packets = Vec::new();
        let mut say = |reply: bool, flags: &str, bytes: &[u8]| {
            let (from, to) = between(reply);
            let (own, other) = (usize::from(reply), usize::from(!reply));
            packets.push(tcp(from, to, flags, sent[own], sent[other], bytes));
            let one = u32::from(flags.contains(['S', 'F']));
            sent[own] = sent[own].wrapping_add(bytes.len() as u32 + one);
        };
        say(false, "S", b"");
        say(true, "SA", b"");
        for (reply, bytes) in &self.said {
            say(*reply, "PA", bytes);
        }
        say(false, "FA", b"");
        say(true, "FA", b"");
        say(false, "A", b"");
        packets
    }
}

/// A flow of each kind.
fn talks() -> Vec<(&'static str, Talk)> {
    use common::dns::{answer, asked, over_tcp, query};
    use common::hello::{client_hello, server_hello};
    let tls = || {
        let mut answer = server_hello(0x0303);
        answer.extend([&[0x17, 3, 3, 1, 0][..], &[0x5a; 256]].concat());
        vec![(false, client_hello(0x0303, &[0x0304, 0x0303], Some("www.example.com"))), (true, answer)]
    };
    let http = |requests: usize| {
        let get = "GET /index.html?a=b HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nReferer: http://www.example.com/\r\n\r\n";
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello";
        vec![[(false, get.into()), (true, answer.into())]; requests].concat()
    };
    let question = asked(7, "www.example.com");
    let lookup = [query(question), answer(question, &[[192, 0, 2, 9]; 2])];
    let [asks, answers] = lookup.clone();
    let over_tcp = [over_tcp(&lookup[..1]), over_tcp(&lookup[1..])].map(|bytes| bytes.to_vec());
    let ssh = vec![
        (true, b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n".to_vec()),
        (false, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ];
    let mail = vec![
        (true, b"220 mail.example ESMTP\r\n".to_vec()),
        (false, b"EHLO a.example\r\n".to_vec()),
        (true, b"250 STARTTLS\r\n".to_vec()),
        (false, b"STARTTLS\r\n".to_vec()),
    ];
    vec![
        ("tls", Talk::new("a handshake, each hello in one segment", 443, tls())),
        ("tls", Talk::new("", 443, tls()).cut("the same in segments of 20 bytes", 20)),
        ("http", Talk::new("a request and its answer", 80, http(1))),
        ("http", Talk::new("four of them, one after the other", 80, http(4))),
        ("http", Talk::new("", 80, http(1)).cut("one, in segments of 20 bytes", 20)),
        (
            "dns",
            Talk { udp: true, ..Talk::new("a lookup over UDP", 53, vec![(false, asks), (true, answers)]) },
        ),
        (
            "dns",
            Talk::new(
                "a lookup over TCP",
                53,
                vec![(false, over_tcp[0].clone()), (true, over_tcp[1].clone())],
            ),
        ),
        ("appid", Talk::new("TLS", 443, tls())),
        ("appid", Talk::new("HTTP", 80, http(1))),
        ("appid", Talk::new("SMTP up to STARTTLS", 25, mail)),
        ("appid", Talk::new("SSH, whose banners are a record", 22, ssh)),
    ]
}

/// Allocations, bytes of them, and records, of each flow.
fn counted(stage: &str, talk: &Talk, records: bool) -> [f64; 3] {
    let sink = "[events]\ntypes = [\"tls\", \"http\", \"dns\", \"ssh\"]\n[[events.sink]]\nto = \"stdout\"\n";
    let sink = if records { sink } else { "" };
    let text = format!("{TUNNEL}{sink}[flow]\ncapacity = 1024\n[[stage]]\nuse = \"{stage}\"\n");
    let mut rig = Rig::new(&plan(&text));
    let mut back = Vec::with_capacity(9000);
    let (mut spent, mut told) = (counting::Calls::default(), 0u32);
    for flow in 0..2 * FLOWS {
        let client = v4(10, 0, 0, flow as u8, 40_000);
        for packet in talk.packets(client) {
            rig.set_clock(flow * 1_000_000);
            rig.wire.send_copy(&wrap(&packet, flow as u32, 61_000));
            let calls = counting::during(|| while rig.worker.poll() > 0 {});
            if flow >= FLOWS {
                spent.allocations += calls.allocations;
                spent.bytes += calls.bytes;
            }
            while rig.wire.receive_into(&mut back) {}
        }
        let mut of_this = 0;
        while rig.rings.take(|_| of_this += 1) {}
        told += if flow < FLOWS { 0 } else { of_this };
    }
    [spent.allocations as f64, spent.bytes as f64, f64::from(told)].map(|all| all / FLOWS as f64)
}

fn table() -> String {
    let mut text = String::from(
        "| stage | flow | allocations, nobody wants records | allocations, records wanted | bytes of these | records |\n\
         |---|---|--:|--:|--:|--:|\n",
    );
    for (stage, talk) in talks() {
        let [plain, _, none] = counted(stage, &talk, false);
        assert_eq!((plain, none), (0.0, 0.0), "{stage}, {}: allocates for nobody", talk.name);
        let [allocations, bytes, records] = counted(stage, &talk, true);
        text +=
            &format!("| `{stage}` | {} | {plain} | {allocations} | {bytes:.0} | {records} |\n", talk.name);
    }
    text
}

/// What is published is what is counted.
#[test]
fn allocations_of_a_flow_are_those_published() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/record/allocations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (front, rest) = page.split_once("| stage |").expect("a table");
    let behind = rest.split_once("\n\n").map_or("", |(_, behind)| behind);
    let (table, mut new) = (table(), front.to_owned());
    new += &table;
    if !behind.is_empty() {
        new += &format!("\n{behind}");
    }
    if std::env::var_os("SLUICEGATE_RECORD").is_some() {
        std::fs::write(&path, &new).unwrap();
    }
    common::say(&table);
    assert_eq!(new, std::fs::read_to_string(&path).unwrap(), "SLUICEGATE_RECORD=1 writes it anew");
}
