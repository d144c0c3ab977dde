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

/// TCP segments of one byte each, up to the first `most` bytes of each; other packets as they are.
pub fn cut(packet: &[u8], most: usize) -> Vec<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    let (header, protocol) = if v4 { (usize::from(packet[0] & 15) * 4, packet[9]) } else { (40, packet[6]) };
    if protocol != 6 || packet.len() < header + 20 {
        return vec![packet.to_vec()];
    }
    let data = header + usize::from(packet[header + 12] >> 4) * 4;
    if packet.len() <= data + 1 || packet[header + 13] & 2 != 0 {
        return vec![packet.to_vec()];
    }
    let sequence = u32::from_be_bytes(packet[header + 4..header + 8].try_into().unwrap());
    let piece = |from: usize, to: usize| {
        let mut piece = packet[..data].to_vec();
        piece.extend(&packet[data + from..data + to]);
        let len = piece.len() as u16;
        if v4 {
            piece[2..4].copy_from_slice(&len.to_be_bytes());
            piece[10..12].fill(0);
            let sum = etherparse::Ipv4Header::from_slice(&piece).unwrap().0.calc_header_checksum();
            piece[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            piece[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        }
        piece[header + 4..header + 8].copy_from_slice(&sequence.wrapping_add(from as u32).to_be_bytes());
        if data + to < packet.len() {
            piece[header + 13] &= !1; // the FIN comes with the last
        }
        piece
    };
    let payload = packet.len() - data;
    let most = most.min(payload);
    let mut pieces: Vec<Vec<u8>> = (0..most).map(|n| piece(n, n + 1)).collect();
    if most < payload {
        pieces.push(piece(most, payload));
    }
    pieces
}
