//! Captures of the corpus, as packets that a load balancer would send.

use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use sluicegate::traffic;

use super::skipped;

/// The corpus, if `SLUICEGATE_CORPUS` names it.
pub fn corpus(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICEGATE_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        skipped(test, "SLUICEGATE_CORPUS does not name the folder of the corpus");
    }
    folder
}

/// Time in nanoseconds, and inner packet, of every IP packet of a capture.
pub fn packets(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = PcapReader::new(file).expect("a capture");
    let link = reader.header().datalink;
    let mut packets = Vec::new();
    // Some captures end in the middle of a packet.
    while let Some(Ok(packet)) = reader.next_packet() {
        let inner = match link {
            DataLink::ETHERNET => traffic::inner_packet(&packet.data),
            DataLink::LINUX_SLL => packet.data.get(16..),
            _ => Some(&packet.data[..]),
        };
        let Some(inner) = inner.and_then(whole) else { continue };
        packets.push((packet.timestamp.as_nanos() as u64, inner.to_vec()));
    }
    packets
}

/// The packet without padding behind it; none for one that the capture cut short.
fn whole(packet: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let len = match packet.first()? >> 4 {
        4 => word(2)?,
        6 => 40 + word(4)?,
        _ => return None,
    };
    packet.get(..if len == 0 { packet.len() } else { len })
}
