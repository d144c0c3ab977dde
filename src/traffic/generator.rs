//! Frames from numbers: flow `f` in lap `l` is always the same frame.
//!
//! Per flow there is one template, the frame of the client's direction with all that changes set to zero, and the
//! checksum sums over it. A frame is the template with lengths, ports, sequence numbers and checksums patched in and
//! payload copied behind. The sums make every checksum a handful of additions: the payload's is a difference of
//! two prefix sums, and the outer UDP checksum needs no payload at all, since an inner IPv4 header sums to zero and
//! an inner segment to minus its pseudo header.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::envelope::{finish, fold, mix64, udp_finish};
use super::flow::{cookie, from_cookie};
use super::{ENVELOPE, Flow, Identity, MAX_FLOWS, MAX_INNER, Mix, Sizes, Tcp};
use crate::wire::checksum;

/// Envelope, IPv6 and TCP header.
const LONGEST_HEADER: usize = ENVELOPE + 40 + 20;
/// Bytes at the start of the payload that name lap and flow, as far as there is room.
const MARK: usize = 8;
/// Shortest payload of a frame with data: the lap.
const LEAST_PAYLOAD: usize = 4;
/// Frames after which sizes and directions repeat: twelve sizes, two directions.
const CYCLE: usize = 24;
const IMIX: [u16; 12] = [64, 512, 64, 64, 512, 64, 1400, 64, 512, 64, 64, 512];

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// All frames of a mix.
#[derive(Debug)]
pub struct Traffic {
    mix: Mix,
    templates: Vec<Template>,
    payload: Vec<u8>,
    /// Sum of the payload's words up to twice the index.
    payload_sums: Vec<u32>,
    /// Payload bytes of the client and of the server in the first `n` data segments, by IP version, phase and `n`.
    tcp_bytes: [[[[u32; 2]; CYCLE + 1]; 12]; 2],
}

#[derive(Debug)]
struct Template {
    header: [u8; LONGEST_HEADER],
    outer_ip_sum: u32,
    /// Outer pseudo header, UDP, GENEVE and, for IPv6, the inner header; without what is patched.
    outer_udp_sum: u32,
    inner_ip_sum: u32,
    /// Inner pseudo header without the length.
    pseudo_sum: u32,
    v6: bool,
    tcp: bool,
    denied: bool,
}

/// What one frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    reply: bool,
    flags: u8,
    seq: u32,
    ack: u32,
    payload: usize,
    life: u64,
}

impl Traffic {
    /// Prepares all flows. A mix out of its bounds is brought back into them.
    pub fn new(mix: &Mix) -> Self {
        let mix = Mix { flows: mix.flows.clamp(1, MAX_FLOWS), ..mix.clone() };
        let mut payload = vec![0; MAX_INNER];
        ChaCha8Rng::seed_from_u64(mix.seed).fill_bytes(&mut payload);
        let mut total = 0;
        let mut payload_sums = vec![0];
        for word in payload.as_chunks::<2>().0 {
            total += u32::from(u16::from_be_bytes(*word));
            payload_sums.push(total);
        }
        let mut tcp_bytes = [[[[0; 2]; CYCLE + 1]; 12]; 2];
        for (ip, phases) in [20, 40].into_iter().zip(&mut tcp_bytes) {
            for (phase, sums) in phases.iter_mut().enumerate() {
                let mut now = [0u32; 2];
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = now;
                    now[n & 1] += payload_len(mix.sizes, phase + n, ip + 20) as u32;
                }
            }
        }
        let templates = (0..mix.flows).map(|n| Template::new(&mix, &Flow::new(&mix, n))).collect();
        Traffic { mix, templates, payload, payload_sums, tcp_bytes }
    }

    /// What it was made from.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// The facts of a flow.
    pub fn flow(&self, number: u32) -> Flow {
        Flow::new(&self.mix, number)
    }

    /// Writes the frame of flow `flow` in lap `lap` and says how long it is; `None` if there is no such flow, or no room.
    pub fn frame(&self, flow: u32, lap: u64, out: &mut [u8]) -> Option<usize> {
        let template = self.templates.get(flow as usize)?;
        let step = self.step(template, flow, lap);
        let header = template.header_len();
        let len = header + step.payload;
        let out = out.get_mut(..len)?;
        let (head, tail) = out.split_at_mut(header);
        head.copy_from_slice(template.header.get(..header)?);
        let mut mark = [0; MARK];
        mark[..4].copy_from_slice(&(lap as u32).to_be_bytes());
        mark[4..].copy_from_slice(&flow.to_be_bytes());
        tail.copy_from_slice(self.payload.get(..step.payload)?);
        let marked = step.payload.min(MARK);
        tail[..marked].copy_from_slice(&mark[..marked]);
        let mut payload_sum = u64::from(checksum::sum(&tail[..marked]));
        if step.payload > MARK {
            payload_sum += u64::from(self.payload_sums[step.payload / 2] - self.payload_sums[MARK / 2]);
            if step.payload % 2 == 1 {
                payload_sum += u64::from(self.payload[step.payload - 1]) << 8;
            }
        }
        template.patch(head, &step, lap, cookie(self.mix.seed, flow, step.life), payload_sum);
        Some(len)
    }

    fn step(&self, template: &Template, flow: u32, lap: u64) -> Step {
        if !template.tcp {
            let reply = self.mix.both_directions && !template.denied && lap & 1 == 1;
            let payload = payload_len(self.mix.sizes, self.phase(flow, lap), template.ip_len() + 8);
            return Step { reply, flags: 0, seq: 0, ack: 0, payload, life: 0 };
        }
        let Tcp::Connections { .. } = self.mix.tcp else { return self.data(template, flow, 0, lap) };
        let life = lap / self.connection();
        let place = lap % self.connection();
        let [client, server] = self.first_sequence(flow, life);
        let bare = |reply, flags, seq, ack| Step { reply, flags, seq, ack, payload: 0, life };
        if template.denied {
            return bare(false, SYN, client, 0);
        }
        let opening = if self.mix.both_directions { 3 } else { 2 };
        let Some(data) = place.checked_sub(opening) else {
            return match (place, self.mix.both_directions) {
                (0, _) => bare(false, SYN, client, 0),
                (1, true) => bare(true, SYN | ACK, server, client.wrapping_add(1)),
                _ => bare(false, ACK, client.wrapping_add(1), server.wrapping_add(1)),
            };
        };
        let sent = self.data_segments();
        if data < sent {
            return self.data(template, flow, life, data);
        }
        let end = self.data(template, flow, life, sent);
        let (c, s) = if end.reply { (end.ack, end.seq) } else { (end.seq, end.ack) };
        match data - sent {
            0 => bare(false, FIN | ACK, c, s),
            1 => bare(true, FIN | ACK, s, c.wrapping_add(1)),
            _ => bare(false, ACK, c.wrapping_add(1), s.wrapping_add(1)),
        }
    }

    /// The `n`-th data segment of a connection.
    fn data(&self, template: &Template, flow: u32, life: u64, n: u64) -> Step {
        let phase = self.phase(flow, 0);
        let sums = &self.tcp_bytes[usize::from(template.v6)][phase];
        let turns = (n / CYCLE as u64) as u32;
        let bytes = |way: usize| {
            sums[CYCLE][way].wrapping_mul(turns).wrapping_add(sums[(n % CYCLE as u64) as usize][way])
        };
        let both = self.mix.both_directions && !template.denied;
        let (to_server, to_client) =
            if both { (bytes(0), bytes(1)) } else { (bytes(0).wrapping_add(bytes(1)), 0) };
        let [client, server] = self.first_sequence(flow, life);
        let (client, server) =
            (client.wrapping_add(1).wrapping_add(to_server), server.wrapping_add(1).wrapping_add(to_client));
        let reply = both && n & 1 == 1;
        let (seq, ack) = if reply { (server, client) } else { (client, server) };
        let payload = payload_len(self.mix.sizes, self.phase(flow, n), template.ip_len() + 20);
        Step { reply, flags: PSH | ACK, seq, ack, payload, life }
    }

    /// Flows begin at different sizes, so that a lap is a mix too.
    fn phase(&self, flow: u32, n: u64) -> usize {
        ((u64::from(flow) + n) % 12) as usize
    }

    fn first_sequence(&self, flow: u32, life: u64) -> [u32; 2] {
        let hash = mix64(self.mix.seed ^ mix64(u64::from(flow) | life << 20));
        [hash as u32, (hash >> 32) as u32]
    }

    fn data_segments(&self) -> u64 {
        match self.mix.tcp {
            Tcp::DataOnly => u64::MAX,
            Tcp::Connections { data } => u64::from(data),
        }
    }

    /// Laps of one connection.
    fn connection(&self) -> u64 {
        let around = if self.mix.both_directions { 6 } else { 3 };
        self.data_segments().saturating_add(around)
    }

    /// Which frame this must be, going by cookie, flags and mark: flow and lap. `near` gives the lap about which a
    /// flow is; what a frame tells of the lap has gaps of 4096 connections, or 2^32 laps.
    pub(super) fn identify(&self, frame: &[u8], near: impl Fn(u32) -> u64) -> Option<(u32, Option<u64>)> {
        let cookie = u32::from_be_bytes(*frame.get(ENVELOPE - 4..)?.first_chunk()?);
        let (flow, life) = from_cookie(self.mix.seed, cookie);
        let template = self.templates.get(flow as usize)?;
        let payload = frame.get(template.header_len()..).and_then(|p| p.first_chunk::<4>());
        if let Some(mark) = payload {
            return Some((flow, Some(nearest(near(flow), u64::from(u32::from_be_bytes(*mark)), 1 << 32))));
        }
        let Tcp::Connections { .. } = self.mix.tcp else { return Some((flow, None)) };
        let start = ENVELOPE + template.ip_len();
        let Some(flags) = frame.get(start + 13).filter(|_| template.tcp) else { return Some((flow, None)) };
        let lives = nearest(near(flow) / self.connection(), u64::from(life), 1 << 12);
        let seq = frame.get(start + 4..).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
        // The few frames without data are told apart by flags and sequence number.
        let (opening, last) = (3.min(self.connection()), self.connection().saturating_sub(3));
        let place = (0..opening).chain(last..self.connection()).find(|place| {
            let step = self.step(template, flow, lives * self.connection() + place);
            step.payload == 0 && step.flags == *flags && Some(step.seq) == seq
        });
        Some((flow, place.map(|place| lives * self.connection() + place)))
    }
}

/// The number that is `low` modulo `gap`, closest to `near`.
fn nearest(near: u64, low: u64, gap: u64) -> u64 {
    let base = near - near % gap + low % gap;
    let below = base.checked_sub(gap).unwrap_or(base);
    [below, base, base + gap].into_iter().min_by_key(|n| n.abs_diff(near)).unwrap_or(base)
}

fn payload_len(sizes: Sizes, phase: usize, headers: usize) -> usize {
    let size = match sizes {
        Sizes::Fixed(size) => size,
        Sizes::Imix => IMIX[phase % 12],
    };
    usize::from(size).clamp(headers + LEAST_PAYLOAD, MAX_INNER) - headers
}

impl Template {
    fn new(mix: &Mix, flow: &Flow) -> Self {
        let envelope = super::Envelope { node: flow.node, endpoint: flow.endpoint, ..mix.envelope };
        let v6 = flow.client.is_ipv6();
        let ethertype = if v6 { 0x86dd } else { 0x0800 };
        let mut header = [0; LONGEST_HEADER];
        let identity = Identity { port: flow.outer_port, cookie: 0 };
        header[..ENVELOPE].copy_from_slice(&envelope.header(identity, ethertype));
        let inner = &mut header[ENVELOPE..];
        match (flow.client, flow.server) {
            (IpAddr::V6(client), IpAddr::V6(server)) => {
                inner[0] = 0x60;
                inner[6..8].copy_from_slice(&[flow.protocol, 64]);
                inner[8..24].copy_from_slice(&client.octets());
                inner[24..40].copy_from_slice(&server.octets());
            }
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                inner[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, flow.protocol]);
                inner[12..16].copy_from_slice(&client.octets());
                inner[16..20].copy_from_slice(&server.octets());
            }
            _ => {} // both ends come from one network
        }
        let ip = if v6 { 40 } else { 20 };
        inner[ip..ip + 2].copy_from_slice(&flow.client_port.to_be_bytes());
        inner[ip + 2..ip + 4].copy_from_slice(&flow.server_port.to_be_bytes());
        let tcp = flow.protocol == 6;
        if tcp {
            inner[ip + 12] = 0x50;
            inner[ip + 14..ip + 16].copy_from_slice(&[0xff, 0xff]); // window
        }
        let addresses = if v6 { &inner[8..40] } else { &inner[12..20] };
        let pseudo_sum = checksum::sum(addresses) + u32::from(flow.protocol);
        let inner_ip_sum = checksum::sum(&inner[..ip]);
        let outer_udp_sum = checksum::sum(&header[26..34])
            + 17
            + checksum::sum(&header[34..ENVELOPE])
            + if v6 { inner_ip_sum } else { 0 };
        let outer_ip_sum = checksum::sum(&header[14..34]);
        let denied = flow.denied;
        Template { header, outer_ip_sum, outer_udp_sum, inner_ip_sum, pseudo_sum, v6, tcp, denied }
    }

    fn ip_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    fn header_len(&self) -> usize {
        ENVELOPE + self.ip_len() + if self.tcp { 20 } else { 8 }
    }

    /// Fills in what differs from frame to frame. `head` is as long as [`Self::header_len`].
    fn patch(&self, head: &mut [u8], step: &Step, lap: u64, cookie: u32, payload_sum: u64) {
        let ip = self.ip_len();
        let segment = head.len() - ENVELOPE - ip + step.payload;
        let (total, udp) = ((68 + ip + segment) as u16, (48 + ip + segment) as u16);
        let (envelope, inner) = head.split_at_mut(ENVELOPE);
        let put = |at: &mut [u8], value: u16| at.copy_from_slice(&value.to_be_bytes());

        let (network, transport) = inner.split_at_mut(ip);
        if self.v6 {
            put(&mut network[4..6], segment as u16);
        } else {
            let (len, id) = ((ip + segment) as u16, lap as u16);
            put(&mut network[2..4], len);
            put(&mut network[4..6], id);
            let sum = finish(u64::from(self.inner_ip_sum) + u64::from(len) + u64::from(id));
            put(&mut network[10..12], sum);
        }
        if step.reply {
            // Sums do not care about the order of words.
            let (start, width) = if self.v6 { (8, 16) } else { (12, 4) };
            let (a, b) = network[start..start + 2 * width].split_at_mut(width);
            a.swap_with_slice(b);
            let (a, b) = transport[..4].split_at_mut(2);
            a.swap_with_slice(b);
        }
        if self.tcp {
            transport[4..8].copy_from_slice(&step.seq.to_be_bytes());
            transport[8..12].copy_from_slice(&step.ack.to_be_bytes());
            transport[13] = step.flags;
        } else {
            put(&mut transport[4..6], segment as u16);
        }
        let pseudo = u64::from(self.pseudo_sum) + segment as u64;
        let sum = pseudo + u64::from(checksum::sum(transport)) + payload_sum;
        if self.tcp {
            put(&mut transport[16..18], finish(sum));
        } else {
            put(&mut transport[6..8], udp_finish(sum));
        }

        put(&mut envelope[16..18], total);
        put(&mut envelope[24..26], finish(u64::from(self.outer_ip_sum) + u64::from(total)));
        put(&mut envelope[38..40], udp);
        envelope[78..].copy_from_slice(&cookie.to_be_bytes());
        let cookie_sum = u64::from(cookie >> 16) + u64::from(cookie & 0xffff);
        let v6_len = if self.v6 { segment as u64 } else { 0 };
        let inner_sum = v6_len + u64::from(!fold(pseudo));
        let sum = u64::from(self.outer_udp_sum) + 2 * u64::from(udp) + cookie_sum + inner_sum;
        put(&mut envelope[40..42], udp_finish(sum));
    }
}

/// Walks through the traffic: one frame of every flow in each lap.
#[derive(Debug)]
pub struct Generator {
    traffic: Arc<Traffic>,
    flow: u32,
    lap: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the frame.
    pub len: usize,
    /// Flow.
    pub flow: u32,
    /// How many frames of the flow came before.
    pub lap: u64,
}

impl Generator {
    /// Starts at the first frame.
    pub fn new(traffic: Arc<Traffic>) -> Self {
        Generator { traffic, flow: 0, lap: 0 }
    }

    /// Frames written so far.
    pub fn sent(&self) -> u64 {
        self.lap * u64::from(self.traffic.mix.flows) + u64::from(self.flow)
    }

    /// Writes the next frame; `None` (and nothing counted) if it does not fit. [`super::MAX_FRAME`] always does.
    #[allow(clippy::should_implement_trait, reason = "it writes into the caller's buffer: no iterator")]
    pub fn next(&mut self, frame: &mut [u8]) -> Option<Sent> {
        let len = self.traffic.frame(self.flow, self.lap, frame)?;
        let sent = Sent { len, flow: self.flow, lap: self.lap };
        self.flow += 1;
        if self.flow == self.traffic.mix.flows {
            (self.flow, self.lap) = (0, self.lap + 1);
        }
        Some(sent)
    }
}
