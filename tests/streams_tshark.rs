//! Streams of real captures, byte for byte what tshark puts together of them. Skipped, and says so, without the corpus or tshark.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use sluicegate::config::Settings;
use sluicegate::dpdk::PoolConfig;
use sluicegate::packet::{Verdict, View};
use sluicegate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
};
use sluicegate::stream::Spot;

use common::capture::{corpus, packets};
use common::inner::wrap;
use common::{Rig, TUNNEL, plan_with, pool_config, skipped};

/// Writes everything down.
static SCRIBE: StageKind = StageKind {
    name: "scribe",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[],
    parse: |_: &Settings<'_>| -> ParseResult { Ok(Box::new(Scribe::default())) },
};

/// Streams by connection (0: none yet) and direction, with who sent them.
type Streams = BTreeMap<(u32, bool), (String, Vec<u8>)>;

#[derive(Clone, Debug, Default)]
struct Scribe(Arc<Mutex<Streams>>);

struct Writing {
    streams: Arc<Mutex<Streams>>,
    number: PerFlow<u32>,
    last: u32,
}

impl Parsed for Scribe {
    fn wants_streams(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl Shared for Scribe {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(PerStream(Writing { streams: self.0.clone(), number: PerFlow::new(make), last: 0 }))
    }

    fn report(&self) -> Vec<(String, String)> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        self.0.lock().unwrap().values().map(|(from, bytes)| (from.clone(), hex(bytes))).collect()
    }
}

impl StreamInspect for Writing {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, _: &mut Cx<'_>) -> Verdict {
        let number = self.number.of(packet.meta()).expect("a flow");
        if *number == 0 {
            self.last += 1;
            *number = self.last;
        }
        let ends = [packet.originator(), packet.responder()];
        let from = ends[usize::from(spot.reply)];
        let mut streams = self.streams.lock().unwrap();
        let (_, written) = streams.entry((*number, spot.reply)).or_insert((from.to_string(), Vec::new()));
        written.extend(bytes);
        Verdict::Next
    }

    fn gap(&mut self, _: u32, _: &Spot, _: &View<'_>, _: &mut Cx<'_>) -> Verdict {
        Verdict::Next
    }
}

/// Captures without loss, by size and kind: retransmissions, overlaps, single bytes, IPv6, many connections.
const CAPTURES: [&str; 14] = [
    "gen/tlslite_tls12_split1.pcap",
    "gen/tlslite_tls13_split7.pcap",
    "gen/ossl_tls13_hrr.pcap",
    "ndpi/firefox.pcap",
    "ndpi/443-chrome.pcap",
    "ndpi/443-curl.pcap",
    "ndpi/webdav.pcap",
    "ndpi/ssh.pcap",
    "ndpi/imap.pcap",
    "ndpi/ftp.pcap",
    "ndpi/http_connect.pcap",
    "ndpi/smtps.pcap",
    "ndpi/trickbot.pcap",
    "ndpi/xss.pcap",
];

/// Sender and bytes of each direction; `None` if bytes are missing.
type Connection = Option<Vec<(String, String)>>;

/// What tshark makes of every TCP connection. `None` without an answer.
fn tshark(capture: &Path) -> Option<Vec<Connection>> {
    let fields = ["-T", "fields", "-e", "tcp.stream"];
    let output = Command::new("tshark").arg("-r").arg(capture).args(fields).output().ok()?;
    let numbers = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: usize = numbers.lines().filter_map(|line| line.parse().ok()).max()?;
    let mut command = Command::new("tshark");
    command.args(["-o", "tcp.reassemble_out_of_order:TRUE", "-r"]).arg(capture).arg("-q");
    for number in 0..=last {
        command.args(["-z", &format!("follow,tcp,raw,{number}")]);
    }
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let connections = text.split("Follow: tcp,raw").skip(1).map(|part| {
        let node = |word: &str| part.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
        let nodes = [node("Node 0: ")?, node("Node 1: ")?];
        let mut bytes = [String::new(), String::new()];
        for line in part.lines().skip_while(|line| !line.starts_with("Node 1")).skip(1) {
            let (side, hex) = line.strip_prefix('\t').map_or((0, line), |rest| (1, rest));
            if hex.starts_with("==") {
                break;
            }
            bytes[side] += hex;
        }
        // "[37 bytes missing in capture file].", as hex.
        let missing = "206279746573206d697373696e672069";
        if bytes.iter().any(|hex| hex.contains(missing)) {
            return None;
        }
        Some(nodes.into_iter().zip(bytes).filter(|(_, hex)| !hex.is_empty()).collect())
    });
    Some(connections.collect())
}

#[test]
fn streams_of_captures_are_what_tshark_puts_together() {
    const TEST: &str = "streams_of_captures_are_what_tshark_puts_together";
    let Some(folder) = corpus(TEST) else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        return skipped(TEST, "tshark is not installed");
    }
    let text = format!(
        "{TUNNEL}[flow]\ncapacity = 16384\n[stream]\ndepth_kb = 262144\nflow_kb = 16384\n\
         conflict = \"pass\"\n[[stage]]\nuse = \"scribe\"\n"
    );
    let (mut compared, mut bytes, mut incomplete) = (0, 0, 0);
    for name in CAPTURES {
        let path = folder.join("pcap").join(name);
        let connections = tshark(&path).expect("tshark's answer");
        let pool = PoolConfig { data_room: 65_000, ..pool_config(64) };
        let mut rig = Rig::with_pool(&plan_with(&text, &[&SCRIBE]), &pool);
        for (now, packet) in packets(&path) {
            rig.set_clock(now);
            rig.wire.send(wrap(&packet, 1, 61_000));
            while rig.worker.poll() > 0 {}
            while rig.wire.receive().is_some() {}
        }
        let mut ours: Vec<(String, String)> =
            rig.pipeline.stages().flat_map(|(_, shared)| shared.report()).collect();
        for connection in connections {
            let Some(directions) = connection else {
                incomplete += 1;
                continue;
            };
            for direction in directions {
                let found = ours.iter().position(|ours| *ours == direction);
                let (from, hex) = &direction;
                let near = || {
                    ours.iter()
                        .filter(|o| o.0 == *from)
                        .map(|o| (o.1.len() / 2, o.1 == *hex))
                        .collect::<Vec<_>>()
                };
                let found =
                    found.unwrap_or_else(|| panic!("{name}: {from}, {} bytes: {:?}", hex.len() / 2, near()));
                ours.swap_remove(found);
                (compared, bytes) = (compared + 1, bytes + hex.len() / 2);
            }
        }
    }
    common::say(&format!(
        "{compared} streams of {bytes} bytes compared, {incomplete} connections have holes"
    ));
    assert!(compared > 50 && bytes > 300_000, "{compared} streams, {bytes} bytes");
}
