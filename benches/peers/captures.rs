//! Real captures in a loop: all that `SLUICEGATE_CORPUS` has under `pcap`, one packet of each in turn, so that as many connections are open at a time as there
//! are captures. Each capture is behind an endpoint of its own, since many have the same addresses.
//!
//! The loop is four rounds over them. In each the sequence numbers of TCP lie a quarter of all numbers further on, as in `connections.rs`: so every SYN opens its
//! flow anew, in every lap. Connections that the capture does not have from their SYN on are left out, since nothing of them is newer in the next round; so
//! are fragments, and packets longer than a frame here. UDP goes on from round to round, as flows that have been there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use sluicegate::dpdk::soft::pcap::Writer;

use crate::connections::inner::wrap_from;

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../tests/common/capture.rs"]
mod capture;

/// In tables.
pub const NAME: &str = "real captures in a loop";
/// Rounds of the loop: as often the numbers can be moved on by the same distance.
const ROUNDS: u32 = 4;
/// Longest inner packet.
const LONGEST: usize = 1500;

/// Says that there is no corpus.
fn skipped(what: &str, why: &str) {
    eprintln!("bench: {what}: SKIPPED: {why}");
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loop {
    pub captures: usize,
    pub frames: u32,
    /// Connections that begin in it.
    pub opened: u32,
    /// Frames of TCP.
    pub tcp: u32,
    /// Packets of the captures that are not in it, of one round.
    pub left_out: u32,
}

impl Loop {
    /// For the reader of the table.
    pub fn describe(&self) -> String {
        format!(
            "{} captures of the corpus (its folder pcap, each behind an endpoint of its own, a packet of each in turn), {ROUNDS} rounds with moved sequence numbers: {} packets, {:.0} % of \
             them TCP, {} connections from their SYN on. {} packets of each round are left out: connections without their SYN, fragments, more than {LONGEST} bytes.",
            self.captures,
            self.frames,
            f64::from(self.tcp) / f64::from(self.frames) * 100.0,
            self.opened,
            self.left_out,
        )
    }
}

/// One packet, and where its sequence number stands if it is TCP.
struct Packet {
    inner: Vec<u8>,
    tcp: Option<Tcp>,
}

struct Tcp {
    at: usize,
    /// The first packet of a connection.
    opens: bool,
    acknowledges: bool,
}

/// Writes the loop, if there is a corpus.
pub fn write(path: &Path) -> Result<Option<Loop>, String> {
    let Some(corpus) = capture::corpus(NAME) else { return Ok(None) };
    let mut found = Loop::default();
    let mut captures: Vec<Vec<Packet>> = Vec::new();
    for folder in ["gen", "ndpi", "sv"] {
        let folder = corpus.join("pcap").join(folder);
        let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut files: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "pcap")) {
            let (kept, left_out) = read(file);
            found.left_out += left_out;
            if !kept.is_empty() {
                captures.push(kept);
            }
        }
    }
    found.captures = captures.len();
    let wrong = |e| format!("{}: {e}", path.display());
    let mut writer = Writer::create(path).map_err(wrong)?;
    for round in 0..ROUNDS {
        for turn in 0..captures.iter().map(Vec::len).max().unwrap_or(0) {
            let packets = captures.iter().enumerate().filter_map(|(n, all)| Some((n as u32, all.get(turn)?)));
            for (capture, packet) in packets {
                let mut inner = packet.inner.clone();
                if let Some(tcp) = &packet.tcp {
                    move_on(&mut inner, tcp, round);
                    (found.tcp, found.opened) = (found.tcp + 1, found.opened + u32::from(tcp.opens));
                }
                let frame = wrap_from(u64::from(capture) + 1, &inner, capture, 50_000 + capture as u16);
                writer.write(1_000_000_000 + u64::from(found.frames) * 1_000, &frame).map_err(wrong)?;
                found.frames += 1;
            }
        }
    }
    writer.finish().map_err(wrong)?;
    Ok(Some(found))
}

/// Packets of a capture that can be sent again and again, and how many cannot.
fn read(file: &Path) -> (Vec<Packet>, u32) {
    let mut begun: HashMap<[SocketAddr; 2], bool> = HashMap::new();
    let (mut kept, mut left_out) = (Vec::new(), 0);
    for (_, inner) in capture::packets(file) {
        match look(&inner, &mut begun) {
            Some(tcp) if inner.len() <= LONGEST => kept.push(Packet { inner, tcp }),
            _ => left_out += 1,
        }
    }
    (kept, left_out)
}

/// None if the packet cannot be used.
fn look(inner: &[u8], begun: &mut HashMap<[SocketAddr; 2], bool>) -> Option<Option<Tcp>> {
    let sliced = SlicedPacket::from_ip(inner).ok()?;
    let net = sliced.net?;
    let (source, destination): (std::net::IpAddr, std::net::IpAddr) = match &net {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    if net.ip_payload_ref()?.fragmented {
        return None;
    }
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { return Some(None) };
    let mut ends =
        [SocketAddr::new(source, tcp.source_port()), SocketAddr::new(destination, tcp.destination_port())];
    ends.sort();
    let opens = tcp.syn() && !tcp.ack();
    let first = !begun.contains_key(&ends);
    let known = begun.entry(ends).or_insert(opens);
    let at = inner.len() - tcp.payload().len() - tcp.header_slice().len();
    known.then_some(Some(Tcp { at, opens: opens && first, acknowledges: tcp.ack() }))
}

/// Moves the numbers of a segment; the checksum with them, as RFC 1624 says.
fn move_on(inner: &mut [u8], tcp: &Tcp, round: u32) {
    for at in [Some(tcp.at + 4), tcp.acknowledges.then_some(tcp.at + 8)].into_iter().flatten() {
        let old = u32::from_be_bytes(inner[at..at + 4].try_into().expect("four bytes"));
        let new = old.wrapping_add(round << 30);
        inner[at..at + 4].copy_from_slice(&new.to_be_bytes());
        let sum = &mut inner[tcp.at + 16..tcp.at + 18];
        let word = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let mut total = u32::from(!(word(sum) as u16)) + u32::from(!((old >> 16) as u16)) + (new >> 16);
        total = (total & 0xffff) + (total >> 16);
        total = (total & 0xffff) + (total >> 16);
        sum.copy_from_slice(&(!(total as u16)).to_be_bytes());
    }
}
