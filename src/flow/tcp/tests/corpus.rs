//! Real captures, from the folder that `SLUICEGATE_CORPUS` names.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

use super::super::*;
use crate::wire::eth::{self, Eth};
use crate::wire::inner::Inner;

#[allow(clippy::print_stderr, reason = "a skipped test must say so")]
fn folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICEGATE_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED {test}: SLUICEGATE_CORPUS does not name the corpus folder");
    }
    folder
}

fn frames(path: &Path) -> (DataLink, Vec<Vec<u8>>) {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    // Some captures end in the middle of a packet.
    while let Some(Ok(packet)) = reader.next_packet() {
        frames.push(packet.data.into_owned());
    }
    (reader.header().datalink, frames)
}

type Side = (IpAddr, u16);

/// The sides of a TCP segment, and its bytes.
fn tcp(link: DataLink, frame: &[u8]) -> Option<(Side, Side, bool, &[u8])> {
    let ip = match link {
        DataLink::ETHERNET => Eth::new_checked(frame).ok()?.payload(),
        _ => frame,
    };
    let is_v6 = ip.first()? >> 4 == 6;
    let inner = Inner::parse(ip, if is_v6 { eth::IPV6 } else { eth::IPV4 }).ok()?;
    if inner.protocol != 6 || inner.transport == 0 {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        Some(match is_v6 {
            true => <[u8; 16]>::try_from(ip.get(8 + at * 16..24 + at * 16)?).ok()?.into(),
            false => <[u8; 4]>::try_from(ip.get(12 + at * 4..16 + at * 4)?).ok()?.into(),
        })
    };
    let start = usize::from(inner.transport);
    let transport = ip.get(start..start + usize::from(inner.transport_len))?;
    let first_fragment = inner.flags.has(crate::packet::InnerFlags::FIRST_FRAGMENT);
    Some(((address(0)?, inner.source_port), (address(1)?, inner.destination_port), first_fragment, transport))
}

/// Captures in which data is acknowledged that is not in them (tshark 4.4: tcp.analysis.ack_lost_segment).
const NOT_ALL_CAPTURED: [&str; 17] = [
    "ndpi/KakaoTalk_chat.pcap",
    "ndpi/fuzz-2006-06-26-2594.pcap",
    "ndpi/fuzz-2006-09-29-28586.pcap",
    "ndpi/instagram.pcap",
    "ndpi/ja3_lots_of_cipher_suites.pcap",
    "ndpi/tls_2_reasms.pcap",
    "ndpi/tls_client_certificate_with_missing_server_one.pcap",
    "ndpi/tls_invalid_reads.pcap",
    "ndpi/ultrasurf.pcap",
    "sv/bug-3286-02-linux-evasion.pcap",
    "sv/bug-3286-03-windows-evasion.pcap",
    "sv/eve-payload-06-tcp-data-leading-gap.pcap",
    "sv/mqtt-events-unintroduced.pcap",
    "sv/pgsql-bug-6080-probe-test-01.pcap",
    "sv/ssh-banner-only.pcap",
    "sv/ssh-hassh-only.pcap",
    "sv/tcp-fastopen-10-syn-data-ignore.pcap",
];
/// Made by hand: 69 KB go into a window of 64 KiB.
const TOO_MUCH: &str = "sv/http2-long-frame.pcap";
/// RSTs that answer an old acknowledgment: one before what their receiver expects, which waits for the RST behind them.
const TOO_LATE: [&str; 4] = [
    "sv/tcp-fastopen-07.pcap frame 19: bad-reset in Closing",
    "sv/tcp-fastopen-08.pcap frame 11: bad-reset in Closing",
    "sv/tls__tls-fin-close-data-01.pcap frame 22: bad-reset in Closing",
    "sv/tls__tls-fin-close-data-01.pcap frame 24: bad-reset in Reset",
];

/// Captures in which tshark finds no segment missing: all of it belongs to its connection.
#[test]
fn healthy_captures_are_in_window() {
    let Some(folder) = folder("healthy_captures_are_in_window") else { return };
    let index = std::fs::read_to_string(folder.join("captures.jsonl")).unwrap();
    let mut judged = HashMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    for line in index.lines() {
        let facts: serde_json::Value = serde_json::from_str(line).unwrap();
        let capture = facts["capture"].as_str().unwrap();
        let (link, frames) = frames(&folder.join("pcap").join(capture));
        let mut connections = HashMap::<(Side, Side), (Side, State, Tracked)>::new();
        for (number, frame) in (1..).zip(&frames) {
            let Some((from, to, partial, transport)) = tcp(link, frame) else { continue };
            let read = |reply| Segment { partial, ..Segment::read(transport, reply) };
            let entry = connections.entry((from.min(to), from.max(to)));
            let std::collections::hash_map::Entry::Occupied(mut entry) = entry else {
                let answers = read(false).flags & (SYN | ACK) == SYN | ACK;
                let Some((state, tracked)) = pick_up(&read(answers)) else { continue };
                entry.insert_entry((if answers { to } else { from }, state, tracked));
                continue;
            };
            let (originator, state, tracked) = entry.get_mut();
            let step = step(*state, tracked, &read(from != *originator), WindowCheck::Drop);
            *state = step.state;
            if matches!(step.what, What::NewIncarnation { reversed: true, .. }) {
                *originator = from;
            }
            let name = super::name(step.what);
            *judged.entry(name).or_default() += 1;
            let whole = facts["tcp_lost_segment"].is_null() && !NOT_ALL_CAPTURED.contains(&capture);
            if whole && capture != TOO_MUCH && step.what.refused(WindowCheck::Drop) {
                wrong.push(format!("{capture} frame {number}: {name} in {state:?}"));
            }
        }
    }
    assert!(judged["normal"] > 10_000, "{judged:?}");
    wrong.sort();
    assert_eq!(wrong, TOO_LATE, "{judged:?}");
}
