//! What a gateway promises for any frames in any order, as code: each has one fate and is counted once, every buffer comes back, no IP packet gets
//! past the targets, what goes to one is the packet in an envelope, and what it gives back at once leaves by the other leg as it came in.
//!
//! [`session`] plays a sequence of steps: frames into legs and the targets' port, returns that are right or tampered with, time, health. The property test and
//! the fuzz target `gateway_frames` call it; it panics when a promise is broken. Compiled for tests and fuzzing only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balance, Outbox, State, TargetId, Worker};
use crate::app::gateway_worker;
use crate::config::{self, Machine, Options, Overrides};
use crate::dpdk::soft::{self, Setup, Wire};
use crate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use crate::path::{Clock, HostEnd, Lane, WorkerCounters};
use crate::stage::WorkerId;

/// Longest frame: what a port of MTU 9001 carries, with a tag.
const LONGEST: usize = 9001 + 18;
/// Steps of a session.
const STEPS: usize = 64;
const TARGETS: usize = 3;
/// Ports with legs, and their VLANs.
const LEGS: [(usize, Option<u16>); 4] = [(0, None), (1, None), (2, Some(10)), (2, Some(20))];

/// One byte of choices, then steps: a byte that says which, and what it needs. Says what became of each frame; panics if that breaks a promise.
pub fn session(bytes: &[u8]) -> Vec<Fate> {
    let (&choices, mut rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut rig = Rig::new(choices);
    let mut fates = Vec::new();
    for _ in 0..STEPS {
        let Some((&step, more)) = rest.split_first() else { break };
        rest = more;
        let mut take = |n: usize| {
            let (taken, more) = rest.split_at(n.min(rest.len()));
            rest = more;
            taken.to_vec()
        };
        match step % 8 {
            port @ 0..=3 => {
                let len = take(2);
                let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)).min(LONGEST);
                let frame = take(len);
                fates.push(rig.send(port.into(), &frame));
            }
            4 => fates.extend(rig.give_back()),
            5 => {
                let [at, with] = take(2)[..] else { break };
                fates.extend(rig.give_back_tampered(usize::from(at), with));
            }
            6 => rig.wait(u64::from(take(1).first().copied().unwrap_or(0)) * 2_000),
            _ => rig.health(take(1).first().copied().unwrap_or(0)),
        }
    }
    fates
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// From a leg, it left by this port.
    Out(usize),
    /// From a target, it left by this port.
    Back(usize),
    /// It is the host stack's.
    Punted,
    /// It was dropped for the reason of this number.
    Dropped(usize),
}

struct Rig {
    worker: Worker,
    wires: Vec<Wire>,
    pool: Mempool,
    balance: Balance,
    outbox: Outbox,
    _end: HostEnd,
    _ports: Vec<RunningPort>,
    hand: Arc<AtomicU64>,
    /// What went to a target last, from which leg, and as what.
    last: Option<(usize, Vec<u8>, Vec<u8>)>,
    profile: &'static str,
}

impl Rig {
    fn new(choices: u8) -> Rig {
        let of = |words: &[&'static str], shift: u32| words[usize::from(choices >> shift) % words.len()];
        let profile = of(&["aws", "aws", "tencent", "plain"], 0);
        let text = format!(
            "[[port]]\nname = \"wan\"\ndevice = \"net_null0\"\n[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\n\
             [[port]]\nname = \"trunk\"\ndevice = \"net_null2\"\n[[port]]\nname = \"targets\"\ndevice = \"net_null3\"\n\
             [tunnel]\nprofile = {profile:?}\n\
             [gateway]\nport = \"targets\"\naddress = \"10.254.11.107/24\"\nstickiness = {:?}\nfailover = {:?}\nnon_ip = {:?}\ntable = 251\n\
             [flow]\ncapacity = 1024\nunknown_tcp = {:?}\n\
             [[endpoint]]\nid = 7\nlegs = [\"wan\", \"lan\"]\n[[endpoint]]\nid = 8\nlegs = [\"trunk.10\", \"trunk.20\"]\n\
             [[target]]\naddress = \"10.254.11.102\"\nmac = \"02:00:00:00:01:02\"\n\
             [[target]]\naddress = \"10.254.11.103\"\nmac = \"02:00:00:00:01:03\"\n",
            of(&["5-tuple", "5-tuple", "3-tuple", "2-tuple"], 2),
            of(&["no_rebalance", "rebalance"], 4),
            of(&["pass", "drop"], 5),
            of(&["drop", "pick_up"], 6),
        );
        let options = Options { machine: Machine { cpus: vec![0, 1], worth: 2 }, ..Options::default() };
        let plan =
            config::gateway::load_text("g.toml", &text, &Overrides::default(), &options).expect("a plan");
        let pool = PoolConfig { name: "frames".into(), buffers: 8, data_room: 9728, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let (mut wires, mut ports, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..4 {
            let (port, wire) = soft::Port::with(Setup { id, ..Setup::default() });
            let config = PortConfig { mtu: 9001, ..PortConfig::default() };
            let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
            lanes.extend(queues.into_iter().map(Lane));
            ports.push(port);
            wires.push(wire);
        }
        let (clock, hand) = Clock::manual();
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &super::reasons(), 0));
        let balance = Balance::of(&plan).expect("targets");
        let made = gateway_worker(&plan, lanes, [2, 0, 0, 0, 1, 7], &pool, clock, counters);
        let (worker, outbox, end) = made.map_err(|(error, _)| error).expect("a worker");
        Rig { worker, wires, pool, balance, outbox, _end: end, _ports: ports, hand, last: None, profile }
    }

    /// One frame: its only fate.
    fn send(&mut self, port: usize, frame: &[u8]) -> Fate {
        let (fate, out) = self.one(port, frame);
        if let (Fate::Out(to), Some(out)) = (fate, &out) {
            match (port, to) {
                (TARGETS, to) => {
                    self.judge_return(frame, to, out);
                    return Fate::Back(to);
                }
                (from, TARGETS) => {
                    self.judge_wrapped(from, frame, out);
                    self.last = Some((from, frame.to_vec(), out.clone()));
                }
                (from, to) => self.judge_passed(from, to, frame, out),
            }
        }
        fate
    }

    fn one(&mut self, port: usize, frame: &[u8]) -> (Fate, Option<Vec<u8>>) {
        let before = self.worker.counters().snapshot();
        self.wires[port].send_copy(frame);
        let polled = self.worker.poll();
        let after = self.worker.counters().snapshot();
        assert!(polled == 1 && after.received == before.received + 1, "{polled} frames");
        assert!(after.ledger().balances(), "{}", after.ledger());
        assert_eq!(self.pool.available(), self.pool.capacity(), "buffers are out");
        let mut out: Vec<(usize, Vec<u8>)> = Vec::new();
        for (n, wire) in self.wires.iter().enumerate() {
            out.extend(std::iter::from_fn(|| wire.receive()).map(|frame| (n, frame)));
        }
        let drops = before.drops.iter().zip(&after.drops).map(|(a, b)| b - a);
        let dropped: Vec<usize> =
            drops.enumerate().filter(|(_, n)| *n > 0).map(|(reason, _)| reason).collect();
        match (&out[..], after.punted - before.punted, &dropped[..]) {
            ([(port, frame)], 0, []) => (Fate::Out(*port), Some(frame.clone())),
            ([], 1, []) => (Fate::Punted, None),
            ([], 0, [reason]) => (Fate::Dropped(*reason), None),
            other => panic!("no single fate: {other:?}"),
        }
    }

    /// What stands behind the Ethernet header, its type, and the VLAN.
    fn link(frame: &[u8]) -> (&[u8], u16, Option<u16>) {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if word(12) == 0x8100 {
            (&frame[18..], word(16), Some(word(14) & 0xfff))
        } else {
            (&frame[14..], word(12), None)
        }
    }

    /// The IP packet, as long as it says.
    fn packet(frame: &[u8]) -> &[u8] {
        let (behind, kind, _) = Self::link(frame);
        let len = match kind {
            0x86dd => 40 + usize::from(u16::from_be_bytes([behind[4], behind[5]])),
            _ => usize::from(u16::from_be_bytes([behind[2], behind[3]])),
        };
        &behind[..len]
    }

    /// Where the inner packet begins.
    fn inner(frame: &[u8]) -> &[u8] {
        &frame[50 + 4 * usize::from(frame[42] & 0x3f)..]
    }

    fn judge_wrapped(&self, from: usize, frame: &[u8], out: &[u8]) {
        let (_, kind, _) = Self::link(frame);
        assert!(matches!(kind, 0x0800 | 0x86dd), "only IP goes to targets");
        assert_eq!(Self::inner(out), Self::packet(frame), "the packet and nothing else");
        assert_eq!(out[26..30], [10, 254, 11, 107]);
        assert!(matches!(out[30..34], [10, 254, 11, 102 | 103]));
        assert_eq!(out[5], out[33] - 100, "the MAC address of that target");
        assert_eq!(out[44..46], kind.to_be_bytes());
        let id: u8 = if from == 2 { 8 } else { 7 };
        let endpoint = if self.profile == "plain" { out[48] } else { out[61] };
        assert_eq!(endpoint, id);
        assert_eq!(folded(&out[14..34]), 0xffff, "the header's checksum");
        let (source, target) = ([10, 254, 11, 107].into(), std::net::Ipv4Addr::new(10, 254, 11, out[33]));
        assert!(crate::wire::checksum::verify_udp_v4(source, target, &out[34..]), "the datagram's checksum");
    }

    /// What passes by is no IP packet that a target should see, and the same frame behind its tag.
    fn judge_passed(&self, from: usize, to: usize, frame: &[u8], out: &[u8]) {
        let (behind, kind, vlan) = Self::link(frame);
        let (behind_out, kind_out, vlan_out) = Self::link(out);
        let vlan = vlan.filter(|vlan| *vlan > 0);
        let leg =
            |port: usize, vlan: Option<u16>| LEGS.iter().position(|leg| *leg == (port, vlan)).expect("a leg");
        assert_eq!(leg(from, vlan) ^ 1, leg(to, vlan_out.filter(|vlan| *vlan > 0)), "the other leg");
        assert_eq!((behind, kind, &frame[..12]), (behind_out, kind_out, &out[..12]));
        assert!(!matches!(kind, 0x0800 | 0x8100 | 0x88a8), "{kind:x} must not pass by");
        if kind == 0x86dd {
            assert_eq!(behind[7], 255, "neighbour discovery only");
        }
    }

    /// What a target gave back leaves by a leg as the packet that was in the envelope.
    fn judge_return(&self, frame: &[u8], to: usize, out: &[u8]) {
        let (_, kind, vlan) = Self::link(out);
        assert!(LEGS.contains(&(to, vlan)), "{to} {vlan:?}");
        let start = 14 + 4 * usize::from(frame[14] & 15); // a tag on the way in shifts it
        let tag = if frame[12..14] == [0x81, 0] { 4 } else { 0 };
        let start = if tag > 0 { 18 + 4 * usize::from(frame[18] & 15) } else { start } + 8;
        let inner = &frame[start + 8 + 4 * usize::from(frame[start] & 0x3f)..];
        let packet = Self::packet(out);
        assert_eq!(packet, &inner[..packet.len()]);
        assert_eq!(kind, u16::from_be_bytes([frame[start + 2], frame[start + 3]]));
        assert!(out.len() >= 60);
    }

    /// The appliance sends back what it got last: it leaves by the other leg, as it came in.
    fn give_back(&mut self) -> Option<Fate> {
        let (from, frame, sent) = self.last.take()?;
        let (fate, out) = self.one(TARGETS, &turned(&sent));
        let out = out.unwrap_or_else(|| panic!("a good return was refused: {fate:?}"));
        let (_, _, vlan) = Self::link(&frame);
        let leg = LEGS.iter().position(|leg| *leg == (from, vlan.filter(|vlan| *vlan > 0))).expect("a leg");
        let (port, other) = LEGS[leg ^ 1];
        assert_eq!(fate, Fate::Out(port), "the other leg");
        assert_eq!(Self::link(&out).2, other);
        assert_eq!(Self::packet(&out), Self::packet(&frame));
        assert_eq!(out[..12], frame[..12], "its Ethernet header");
        Some(Fate::Back(port))
    }

    /// The same with one byte changed and, so that not all of them die of that, checksums that are right or none.
    fn give_back_tampered(&mut self, at: usize, with: u8) -> Option<Fate> {
        let mut frame = turned(&self.last.as_ref()?.2);
        let place = frame.get_mut(at)?;
        *place ^= with;
        frame[40..42].fill(0);
        frame[24..26].fill(0);
        let sum = folded(&frame[14..34]);
        frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
        Some(self.send(TARGETS, &frame))
    }

    fn wait(&mut self, millis: u64) {
        self.hand.fetch_add(millis * 1_000_000, Ordering::Relaxed);
        self.last = None;
        self.worker.poll();
    }

    fn health(&mut self, which: u8) {
        let state =
            [State::Healthy, State::Unhealthy, State::Initial, State::Draining][usize::from(which >> 1 & 3)];
        let id = TargetId(u16::from(which & 1));
        if state == State::Draining {
            let at = std::time::Duration::from_secs(u64::from(which >> 3) * 100);
            let _ = self.balance.deregister(id, at).expect("a table");
            self.balance.look(at);
        } else {
            self.balance.set_health(id, state);
        }
        self.last = None;
        self.outbox.post(self.balance.news());
        while !self.outbox.look() {
            self.worker.poll();
        }
    }
}

/// The sum of a header's words (RFC 1071).
fn folded(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

/// MAC and outer addresses change places.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[..12].rotate_left(6);
    back[26..34].rotate_left(4);
    back
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of a leg that mostly is one: a header of the wrong kind, length or tag now and then.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let packet = (0u8..4, 0u8..6, any::<u8>(), 0u8..64, proptest::collection::vec(any::<u8>(), 0..80));
        let tag = prop_oneof![3 => Just(None), 1 => Just(Some(10u16)), 1 => Just(Some(20)), 1 => Just(Some(0xa000))];
        (packet, tag, any::<bool>(), 0u8..20, any::<u8>()).prop_map(
            |((host, kind, flags, port, payload), tag, back, odd, byte)| {
                let mut packet = packet_of(host, kind, flags, port, &payload, back);
                if odd == 0 && !packet.is_empty() {
                    let at = usize::from(byte) % packet.len();
                    packet[at] ^= byte | 1;
                }
                let mut frame = vec![2, 0, 0, 0, 0, host, 2, 0, 0, 0, 1, port];
                if let Some(tag) = tag {
                    frame.extend([0x81, 0, (tag >> 8) as u8, tag as u8]);
                }
                frame.extend(match (odd, kind) {
                    (1, _) => [8, 6],
                    (2, _) => [0x81, 0],
                    (3, _) => [0, 0x40],
                    (_, 4 | 5) => [0x86, 0xdd],
                    _ => [8, 0],
                });
                frame.extend(packet);
                frame
            },
        )
    }

    fn packet_of(host: u8, kind: u8, flags: u8, port: u8, payload: &[u8], back: bool) -> Vec<u8> {
        let transport: Vec<u8> = match kind {
            0 | 4 => {
                let mut tcp =
                    vec![0, port, 1, 187, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags & 0x17, 1, 0, 0, 0, 0, 0];
                if back {
                    tcp[..4].rotate_left(2);
                }
                [&tcp, payload].concat()
            }
            1 => {
                let len = (8 + payload.len()) as u16;
                let mut udp = vec![0, port, 0, 53, (len >> 8) as u8, len as u8, 0, 0];
                if back {
                    udp[..4].rotate_left(2);
                }
                [&udp, payload].concat()
            }
            2 => {
                // An ICMP error about a datagram.
                let quoted = packet_of(host, 1, 0, port, &[], !back);
                [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[..]].concat()
            }
            5 => [&[135 + (flags & 1), 0, 0, 0, 0, 0, 0, 0], payload].concat(),
            _ => payload.to_vec(),
        };
        let (client, server) = ([10, 0, 0, host], [10, 0, 9, 9]);
        let (from, to) = if back { (server, client) } else { (client, server) };
        if kind >= 4 {
            let len = transport.len() as u16;
            let next = if kind == 4 { 6 } else { 58 };
            let mut ip =
                vec![0x60, 0, 0, 0, (len >> 8) as u8, len as u8, next, if port > 31 { 255 } else { 64 }];
            for address in [from, to] {
                ip.extend([0xfd; 12]);
                ip.extend(address);
            }
            return [&ip[..], &transport].concat();
        }
        let total = (20 + transport.len()) as u16;
        let protocol = [6, 17, 1, 47][usize::from(kind)];
        let fragment = if port == 63 { 0x20 } else { 0 };
        let mut ip = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 1, fragment, 0, 64, protocol, 0, 0];
        ip.extend(from);
        ip.extend(to);
        [&ip[..], &transport].concat()
    }

    fn step() -> impl Strategy<Value = Vec<u8>> {
        let send = (0u8..3, frame()).prop_map(|(port, frame)| {
            let len = frame.len() as u16;
            [&[port, (len >> 8) as u8, len as u8], &frame[..]].concat()
        });
        prop_oneof![
            8 => send,
            5 => Just(vec![4]),
            3 => (any::<u8>(), 1u8..).prop_map(|(at, with)| vec![5, at, with]),
            1 => any::<u8>().prop_map(|time| vec![6, time]),
            1 => any::<u8>().prop_map(|which| vec![7, which]),
        ]
    }

    proptest! {
        // Each is a gateway of its own, and dozens of frames.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_session_keeps_the_promises(choices: u8, steps in proptest::collection::vec(step(), 1..60)) {
            session(&[&[choices][..], &steps.concat()].concat());
        }

        #[test]
        fn any_bytes_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            session(&bytes);
        }
    }

    /// The strategies reach what they are for.
    #[test]
    fn sessions_go_both_ways() {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let (mut wrapped, mut back, mut passed, mut reasons) = (0, 0, 0, std::collections::BTreeSet::new());
        for _ in 0..100 {
            let steps = proptest::collection::vec(step(), 60).new_tree(&mut runner).unwrap().current();
            let bytes = [&[0][..], &steps.concat()].concat();
            for fate in session(&bytes) {
                match fate {
                    Fate::Out(TARGETS) => wrapped += 1,
                    Fate::Out(_) => passed += 1,
                    Fate::Back(_) => back += 1,
                    Fate::Dropped(reason) => {
                        reasons.insert(reason);
                    }
                    Fate::Punted => {}
                }
            }
        }
        assert!(wrapped > 300 && back > 150 && passed > 60, "{wrapped} {back} {passed}");
        let own = reasons.iter().filter(|reason| **reason >= crate::packet::DropReason::ALL.len()).count();
        assert!(own >= 8, "reasons of the gateway's: {reasons:?}");
    }
}
