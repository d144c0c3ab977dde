//! Conversations that behave: TCP after its handshake and UDP, both sides at random, every packet numbered. Nobody acknowledges what has not
//! come back through the appliance, so that TCP's windows can be checked on the way.

use std::collections::HashMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use sluicegate::dpdk::soft::toeplitz::{MICROSOFT_KEY, RETA, toeplitz};
use sluicegate::flow::Tuple;
use sluicegate::traffic::Envelope;

use super::inner::{End, pieces, tcp, udp, unreachable, v4, wrap};

/// Bytes of inner packet in front of what a number is written into, whatever the transport: the payload ends the frame.
const NUMBER: usize = 12;
/// Where the inner packet begins.
const INNER: usize = 82;

/// Entry of the redirection table of a frame of the default envelope with this outer source port.
pub fn reta(port: u16) -> usize {
    let Envelope { node, appliance, port: geneve, .. } = Envelope::default();
    let ports = [port.to_be_bytes(), geneve.to_be_bytes()].concat();
    toeplitz(&MICROSOFT_KEY, node.octets().iter().chain(&appliance.octets()).chain(&ports)) as usize % RETA
}

/// A packet that came home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// One that has a number: later ones of its flow and direction came before it, or not.
    Numbered { flow: usize, reply: bool, number: u32, late: bool },
    /// A piece of a datagram.
    Fragment,
    /// An ICMP error.
    Error,
}

/// One conversation.
#[derive(Debug)]
pub struct Line {
    pub ends: [End; 2],
    pub is_tcp: bool,
    /// Outer source ports, one for each direction.
    pub ports: [u16; 2],
    /// TCP: 0 nothing, 1 SYN sent, 2 it came, 3 SYN|ACK sent, 4 it came, 5 on.
    step: u8,
    /// What each side sends next.
    sequence: [u32; 2],
    /// What came from each side, up to here.
    arrived: [u32; 2],
    /// Packets and fragments sent.
    pub sent: [u64; 2],
    /// Packets with a number that came home.
    pub back: [u64; 2],
}

/// All of them.
#[derive(Debug)]
pub struct Talk {
    pub lines: Vec<Line>,
    pub sent: u64,
    pub back: u64,
    /// Packets that came after a later one of their flow and direction.
    pub late: u64,
    newest: HashMap<(usize, bool), u32>,
    datagrams: u16,
}

impl Talk {
    /// So many conversations, every other one TCP. Of each two neighbours of a kind one has, for the way back, an outer port that leads
    /// to another queue (`queue` of an entry of the redirection table), if there is one.
    pub fn new(flows: usize, random: &mut ChaCha8Rng, queue: impl Fn(usize) -> u16) -> Talk {
        let others = (0..RETA).any(|entry| queue(entry) != queue(0));
        let mut line = |n: usize| {
            let client = v4(10, (n >> 16) as u8, (n >> 8) as u8, n as u8, 40_000);
            let there: u16 = random.random_range(60_000..=65_535);
            let mut back = there;
            while others && n / 2 % 2 == 1 && queue(reta(there)) == queue(reta(back)) {
                back = random.random_range(60_000..=65_535);
            }
            let (first, second) = (random.random(), random.random());
            Line {
                ends: [client, v4(192, 0, 2, 1, 443)],
                is_tcp: n.is_multiple_of(2),
                ports: [there, back],
                step: 0,
                sequence: [first, second],
                arrived: [first, second],
                sent: [0; 2],
                back: [0; 2],
            }
        };
        let lines = (0..flows).map(&mut line).collect();
        Talk { lines, sent: 0, back: 0, late: 0, newest: HashMap::new(), datagrams: 0 }
    }

    /// Packets that are on their way.
    pub fn out(&self) -> u64 {
        self.sent - self.back
    }

    /// The next packet of a conversation, with its outer source port; `None` while it waits for an answer.
    pub fn next(&mut self, flow: usize, random: &mut ChaCha8Rng) -> Option<(Vec<u8>, u16)> {
        let number = self.sent as u32;
        let line = &mut self.lines[flow];
        let (flags, reply) = match (line.is_tcp, line.step) {
            (false, _) => ("", random.random()),
            (true, 0) => ("S", false),
            (true, 2) => ("SA", true),
            (true, 4) => ("A", false),
            (true, 5) => ("PA", random.random()),
            (true, _) => return None,
        };
        if line.is_tcp && line.step < 5 {
            line.step += 1;
        }
        let side = usize::from(reply);
        let [from, to] = if reply { [line.ends[1], line.ends[0]] } else { line.ends };
        let payload = payload(flow, reply, number);
        let inner = if line.is_tcp {
            let (sequence, acknowledgment) = (line.sequence[side], line.arrived[1 - side]);
            let syn = u32::from(flags.contains('S'));
            line.sequence[side] = sequence.wrapping_add(syn + NUMBER as u32);
            tcp(from, to, flags, sequence, acknowledgment, &payload)
        } else {
            udp(from, to, &payload)
        };
        line.sent[side] += 1;
        self.sent += 1;
        Some((wrap(&inner, flow as u32, line.ports[side]), line.ports[side]))
    }

    /// The conversation of a flow, and whether its second end is taken for the originator.
    pub fn line_of(&self, tuple: &Tuple) -> (usize, bool) {
        let ends = [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)];
        let of = |end: End| self.lines.iter().position(|line| line.ends[0] == end);
        let plain = of(ends[0]).map(|flow| (flow, false));
        plain.or_else(|| Some((of(ends[1])?, true))).unwrap_or_else(|| panic!("nobody's: {tuple:?}"))
    }

    /// Outer source port of what has another outer tuple than its flow: any, for a flow that is misaligned anyway.
    fn other_port(&self, flow: usize, random: &mut ChaCha8Rng) -> u16 {
        let [there, back] = self.lines[flow].ports;
        if there == back { there } else { random.random_range(60_000..=65_535) }
    }

    /// A datagram of a UDP conversation in three fragments, which may come in anywhere. `None` for TCP.
    pub fn fragments(&mut self, flow: usize, random: &mut ChaCha8Rng) -> Option<[Vec<u8>; 3]> {
        if self.lines[flow].is_tcp {
            return None;
        }
        let ports = [0; 3].map(|_| self.other_port(flow, random));
        let line = &mut self.lines[flow];
        self.datagrams = self.datagrams.wrapping_add(1);
        let whole = udp(line.ends[0], line.ends[1], &[flow as u8; 64]);
        line.sent[0] += 3;
        self.sent += 3;
        let pieces = pieces(&whole, self.datagrams);
        Some(std::array::from_fn(|n| wrap(&pieces[n], 9, ports[n])))
    }

    /// The client tells that it is not listening, about something that came to it. `None` before anything did.
    pub fn error(&mut self, flow: usize, random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
        let line = &self.lines[flow];
        if line.back[1] == 0 {
            return None;
        }
        let about = udp(line.ends[1], line.ends[0], &[7; 8]);
        let about = if line.is_tcp { tcp(line.ends[1], line.ends[0], "A", 1, 1, &[]) } else { about };
        self.sent += 1;
        let inner = unreachable(line.ends[0], line.ends[1], &about);
        Some(wrap(&inner, 11, self.other_port(flow, random)))
    }

    /// A frame came home.
    pub fn came(&mut self, frame: &[u8]) -> Came {
        self.back += 1;
        let inner = &frame[INNER..];
        if inner[9] == 1 {
            return Came::Error;
        }
        if u16::from_be_bytes([inner[6], inner[7]]) & 0x3fff != 0 {
            return Came::Fragment;
        }
        let written = &frame[frame.len() - NUMBER..];
        let word = |at: usize| u32::from_be_bytes(written[at..at + 4].try_into().unwrap());
        let (flow, reply, number) = (word(0) as usize, word(4) != 0, word(8));
        let newest = self.newest.entry((flow, reply)).or_insert(number);
        let late = *newest > number;
        *newest = number.max(*newest);
        self.late += u64::from(late);
        let (line, side) = (&mut self.lines[flow], usize::from(reply));
        line.back[side] += 1;
        if line.is_tcp {
            let at = u32::from_be_bytes(inner[24..28].try_into().unwrap());
            let syn = u32::from(inner[33] & 2 != 0);
            let end = at.wrapping_add(syn + NUMBER as u32);
            if end.wrapping_sub(line.arrived[side]) as i32 > 0 {
                line.arrived[side] = end;
            }
            if matches!(line.step, 1 | 3) {
                line.step += 1;
            }
        }
        Came::Numbered { flow, reply, number, late }
    }
}

fn payload(flow: usize, reply: bool, number: u32) -> [u8; NUMBER] {
    let mut bytes = [0; NUMBER];
    bytes[..4].copy_from_slice(&(flow as u32).to_be_bytes());
    bytes[4..8].copy_from_slice(&u32::from(reply).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}
