//! Packets of each flow of each capture of the corpus, as tshark counted them. Skipped, and says so, without `SLUICEGATE_CORPUS`.
//!
//! Every packet goes through all hops, in the envelope of a load balancer, under a clock that stands still: what tshark calls a flow
//! never ends by time. Incarnations of a tuple are added up, as tshark knows only tuples. Where both differ, each packet that makes the
//! difference must be one that the engine keeps out of every flow by a rule of its own ([`Apart`]).

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use serde_json::Value;
use sluicegate::flow::{Filter, FlowView, Tuple, What};
use sluicegate::path::Clock;

use common::inner::{End, wrap};
use common::{Fate, Rig, TUNNEL, plan, say, skipped};

/// Longest inner packet that AWS's load balancer carries. Hosts that leave segmentation to their card capture longer ones.
const LONGEST: usize = 8500;
const RST: u8 = 4;

/// Why a packet belongs to no flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Apart {
    /// A RST of a connection that is not in the table: to remember it would let anybody fill the table.
    LoneReset,
    /// Flags that no segment of a connection has (RFC 9293 section 3.5: SYN with FIN or RST; none of SYN, ACK, RST) cannot begin a flow.
    NoSegment,
    /// Longer than any frame that a load balancer sends.
    TooLong,
    /// Decap or the inner parser refused it: cut off by the capture, or malformed.
    Broken(String),
}

/// Ends in an order that does not depend on the direction, and the protocol.
type Flow = (End, End, u8);

fn flow(a: End, b: End, protocol: u8) -> Flow {
    (a.min(b), a.max(b), protocol)
}

/// The IP packet in a frame; `None` for what is none.
fn packet(link: DataLink, frame: &[u8]) -> Option<&[u8]> {
    let mut at = match link {
        DataLink::ETHERNET => 12,
        DataLink::LINUX_SLL => 14,
        _ => return matches!(frame.first()? >> 4, 4 | 6).then_some(frame),
    };
    loop {
        match u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?) {
            0x8100 | 0x88a8 | 0x9100 => at += 4,
            0x0800 | 0x86dd => break,
            _ => return None,
        }
    }
    let ip = frame.get(at + 2..)?;
    // Without what pads short Ethernet frames.
    let len = match ip.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])),
        _ => return None,
    };
    ip.get(..len.min(ip.len()))
}

/// Its flow, and its flags if it is TCP; `None` for fragments, which tshark does not count, and what has no ports.
fn about(ip: &[u8]) -> Option<(Flow, Option<u8>)> {
    let sliced = etherparse::LaxSlicedPacket::from_ip(ip).ok()?;
    let (source, destination, fragmented): (IpAddr, IpAddr, bool) = match sliced.net.as_ref()? {
        etherparse::LaxNetSlice::Ipv4(v4) => {
            let header = v4.header();
            (header.source_addr().into(), header.destination_addr().into(), header.is_fragmenting_payload())
        }
        etherparse::LaxNetSlice::Ipv6(v6) => {
            let header = v6.header();
            let fragmented = v6.extensions().is_fragmenting_payload();
            (header.source_addr().into(), header.destination_addr().into(), fragmented)
        }
        etherparse::LaxNetSlice::Arp(_) => return None,
    };
    if fragmented {
        return None;
    }
    // Not its transport: what is left of a header may be enough for tshark, and for us.
    let payload = sliced.net.as_ref()?.ip_payload_ref()?;
    let protocol = payload.ip_number.0;
    let bytes = payload.payload;
    let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (ports, flags) = match protocol {
        6 => ((port(0)?, port(2)?), bytes.get(13).copied()),
        17 => ((port(0)?, port(2)?), None),
        _ => return None,
    };
    Some((flow((source, ports.0), (destination, ports.1), protocol), flags))
}

fn packets(path: &Path) -> (DataLink, Vec<Vec<u8>>) {
    let mut reader = PcapReader::new(File::open(path).expect("a capture")).expect("a pcap file");
    let mut frames = Vec::new();
    // Some captures end in the middle of a packet.
    while let Some(Ok(packet)) = reader.next_packet() {
        frames.push(packet.data.into_owned());
    }
    (reader.header().datalink, frames)
}

/// What the engine made of a capture: packets of each flow, and those that it kept apart.
#[derive(Debug, Default)]
struct Counted {
    flows: HashMap<Flow, u64>,
    apart: HashMap<Flow, Vec<Apart>>,
}

fn count(path: &Path) -> Counted {
    let plan = plan(&format!("{TUNNEL}\n[flow]\ntracking = true\ncapacity = 16384\n"));
    let mut rig = Rig::new(&plan);
    let flows = rig.worker.flows().expect("flows are followed");
    let (shown, mut events) = (flows.show(), flows.listen(1 << 14));
    let view = FlowView::new(&plan, vec![shown], Clock::manual().0);
    let mut counted = Counted::default();
    let key = |tuple: &Tuple| {
        let ends = [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)];
        flow(ends[0], ends[1], tuple.protocol)
    };
    let (link, frames) = packets(path);
    for ip in frames.iter().filter_map(|frame| packet(link, frame)) {
        let Some((flow, flags)) = about(ip) else { continue };
        let mut keep = |why| counted.apart.entry(flow).or_default().push(why);
        if ip.len() > LONGEST {
            keep(Apart::TooLong);
            continue;
        }
        let before = rig.settled().flows.stateless;
        match rig.fate(&wrap(ip, 7, 60_000)) {
            Fate::Home(_) if rig.settled().flows.stateless == before => {}
            // It went home as if it were alone.
            Fate::Home(_) => match flags {
                Some(flags) if flags & RST != 0 => keep(Apart::LoneReset),
                Some(flags) if flags & 0x12 == 0 || flags & 0x03 == 0x03 => keep(Apart::NoSegment),
                _ => panic!("{}: {flow:?} has no flow, flags {flags:?}", path.display()),
            },
            Fate::Dropped(why) => keep(Apart::Broken(why)),
            Fate::Punted => keep(Apart::Broken("punted".into())),
            Fate::Lost(how) => panic!("{}: {how}", path.display()),
        }
    }
    let ended = std::iter::from_fn(|| events.pop().ok()).filter(|event| matches!(event.what, What::End(_)));
    let ended = ended.map(|event| (key(&event.tuple()), event.counts[0].0 + event.counts[1].0));
    let live: Vec<_> = view
        .iter(&Filter::default())
        .map(|flow| (key(&flow.tuple), flow.packets[0] + flow.packets[1]))
        .collect();
    for (flow, packets) in ended.chain(live) {
        *counted.flows.entry(flow).or_default() += packets;
    }
    assert_eq!(rig.settled().flows.events_lost, 0);
    counted
}

#[test]
fn flows_of_the_corpus_have_the_packets_that_tshark_counted() {
    let Some(folder) = std::env::var_os("SLUICEGATE_CORPUS").map(PathBuf::from) else {
        return skipped("flows of the corpus", "SLUICEGATE_CORPUS does not name the corpus folder");
    };
    let lines = std::fs::read_to_string(folder.join("expected.jsonl")).expect("expected.jsonl");
    let facts = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let (mut captures, mut agreed, mut explained, mut inside) = (HashMap::new(), 0, HashMap::new(), 0);
    let mut wrong = Vec::new();
    for fact in facts.filter(|fact| fact["kind"] == "flow.packets") {
        let capture = fact["capture"].as_str().expect("a name").to_owned();
        let end = |side: &str| -> Option<End> {
            let address = fact["flow"][format!("{side}_ip")].as_str()?.parse().ok()?;
            Some((address, fact["flow"][format!("{side}_port")].as_u64()? as u16))
        };
        let protocol = match fact["flow"]["proto"].as_str() {
            Some("tcp") => 6,
            Some("udp") => 17,
            _ => continue,
        };
        let (Some(a), Some(b)) = (end("src"), end("dst")) else { panic!("{fact}") };
        let flow = flow(a, b, protocol);
        let counted =
            captures.entry(capture.clone()).or_insert_with(|| count(&folder.join("pcap").join(&capture)));
        let wanted = fact["value"]["pkts"].as_u64().expect("packets");
        let found = counted.flows.get(&flow).copied().unwrap_or(0);
        let apart = counted.apart.get(&flow).map_or(&[][..], Vec::as_slice);
        if found == wanted {
            agreed += 1;
        } else if found == 0 && apart.is_empty() {
            // Of a tunnel inside ours: what tshark looks into is one packet of another flow to us.
            inside += 1;
        } else if found + apart.len() as u64 == wanted {
            for why in apart.iter().cloned() {
                *explained.entry(why).or_insert(0u32) += 1;
            }
        } else {
            wrong.push(format!("{capture} {flow:?}: {found}, and {apart:?} apart; tshark {wanted}"));
        }
    }
    say(&format!(
        "{} captures: {agreed} flows with tshark's count, {inside} inside other tunnels; packets apart: {explained:?}",
        captures.len()
    ));
    assert!(wrong.is_empty(), "{} flows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(agreed > 800, "{agreed}");
}
