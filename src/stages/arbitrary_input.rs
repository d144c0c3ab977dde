//! What the stages that look at packets promise for any packets, as code: [`packets`] sends them through a worker whose pipeline is all of them, and
//! panics when a packet has not one fate, a buffer is missing, or a stage has panicked. The property test and the fuzz target `stages_packets` call
//! it. Stages that read streams have targets of their own. Compiled for tests and fuzzing only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{self, Machine, Options, Overrides};
use crate::dpdk::soft::{self, Setup, Wire};
use crate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use crate::flow::{FlowsShared, Seed};
use crate::path::{Clock, Decap, Lane, Pipeline, Respond, Track, Worker, WorkerCounters};
use crate::stage::{Backend, WorkerId};
use crate::traffic::{Envelope, Identity};
use crate::wire::checksum;

/// All of them, with something of each kind of rule. Few flows and few places, so that everything fills up.
const PLAN: &str = r#"
[tunnel]
allowed_sources = ["10.254.11.0/24"]
addresses = ["10.254.11.102"]
[flow]
tracking = true
capacity = 1024
window_check = "off"
[[stage]]
use = "count"
by = "protocol"
[[stage]]
use = "blocklist"
[[stage.list]]
name = "fine"
action = "allow"
entries = ["10.0.0.1"]
[[stage.list]]
name = "bad"
action = "drop"
entries = ["10.0.0.2", "192.0.2.0/31", "2001:db8::2/127"]
[[stage.list]]
name = "worse"
action = "reject"
entries = ["10.0.0.3"]
[[stage.list]]
name = "told"
action = "alert"
entries = ["10.0.0.4/30"]
[[stage]]
use = "acl"
default = "deny"
[[stage.rule]]
action = "log"
protocol = "tcp"
[[stage.rule]]
action = "reject"
destination_port = "7"
protocol = "tcp|udp"
[[stage.rule]]
action = "allow"
destination_port = "0-1023"
protocol = "tcp|udp"
[[stage.rule]]
action = "allow"
protocol = "icmp"
[[stage]]
use = "synguard"
[[stage.limit]]
name = "a service"
per = "service"
half_open = 2
[[stage.limit]]
name = "a source"
per = "source"
syn_per_s = 20
[[stage]]
use = "ratelimit"
[[stage.limit]]
name = "flows"
per = "source"
new_flows_per_s = 5
[[stage.limit]]
name = "bytes"
per = "flow"
bytes_per_s = 2000
packets_per_s = 50
[[stage]]
use = "sample"
one_in = 2
of = "packets"
[[stage]]
use = "count"
name = "last"
by = "size"
"#;
/// Bytes that describe a packet.
const PACKET: usize = 8;

/// Packets, each of eight bytes: what it is, the ends, flags of TCP, length, milliseconds since the one before, two bytes of its number, fragments. One
/// that is nothing else is made of the bytes that follow.
pub fn packets(bytes: &[u8]) {
    let mut rig = Rig::new();
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<PACKET>() {
        rest = after;
        let [kind, .., len, _, _, _, _] = *head;
        let inner = if kind & 7 == 7 {
            let (raw, after) = rest.split_at(usize::from(len).min(rest.len()));
            rest = after;
            raw.to_vec()
        } else {
            made(head)
        };
        rig.send(&inner, head);
    }
    rig.worker.finish();
    assert_eq!(rig.pool.available(), rig.pool.capacity(), "every buffer is back");
}

/// An inner packet.
fn made(&[kind, ends, flags, len, _, high, low, pieces]: &[u8; PACKET]) -> Vec<u8> {
    let (from, to) = (ends & 7, ends >> 3 & 3);
    let ports = [1000 + u16::from(ends >> 5), [7, 80, 5000, 0][usize::from(kind >> 4 & 3)]];
    let mut payload = vec![kind; len.into()];
    let (protocol, mut transport) = match kind & 3 {
        0 | 3 => {
            let mut tcp = vec![0; 20];
            (tcp[6], tcp[7], tcp[10], tcp[11]) = (high, low, low, high);
            (tcp[12], tcp[13], tcp[14]) = (0x50, flags, 0xff);
            (6, tcp)
        }
        1 => {
            let mut udp = vec![0; 8];
            udp[4..6].copy_from_slice(&(8 + u16::from(len)).to_be_bytes());
            (17, udp)
        }
        _ => (1, vec![flags, high, 0, 0, 0, low, 0, 1]),
    };
    let mut sides = [ports[0], ports[1]];
    let reply = kind & 8 != 0;
    if reply {
        sides.reverse();
    }
    if protocol != 1 {
        transport[..2].copy_from_slice(&sides[0].to_be_bytes());
        transport[2..4].copy_from_slice(&sides[1].to_be_bytes());
    }
    transport.append(&mut payload);
    let total = transport.len() as u16;
    let mut addresses = [[10, 0, 0, from], [192, 0, 2, to]];
    if reply {
        addresses.reverse();
    }
    if kind & 0x40 != 0 && protocol != 1 {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&total.to_be_bytes());
        for [.., host] in addresses {
            ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        return [ip, transport].concat();
    }
    let mut ip = vec![0x45, 0, 0, 0, 0, pieces & 7, 0, 0, 64, protocol, 0, 0];
    ip[2..4].copy_from_slice(&(20 + total).to_be_bytes());
    if pieces & 0x80 != 0 {
        (ip[6], ip[7]) = (pieces & 0x20, pieces >> 3 & 3);
    }
    ip.extend(addresses.concat());
    let sum = checksum::finish(checksum::sum(&ip).into());
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [ip, transport].concat()
}

struct Rig {
    worker: Worker,
    wire: Wire,
    pool: Mempool,
    _port: RunningPort,
    hand: Arc<AtomicU64>,
}

impl Rig {
    fn new() -> Rig {
        let machine = Machine { cpus: vec![0], worth: 1 };
        let options = Options { need_ports: false, machine, kinds: super::ALL, files: false };
        let plan = config::load_text("packets.toml", PLAN, Path::new("/"), &Overrides::default(), &options)
            .expect("a configuration");
        let pool = PoolConfig { name: "packets".into(), buffers: 256, data_room: 2048, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let (port, wire) = soft::Port::with(Setup::default());
        let (port, queues) = port.start(&PortConfig::default(), &pool).expect("a soft port starts");
        let pipeline = Pipeline::build(&plan, Backend::Soft).expect("stages build");
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, plan.stages.len()));
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(1));
        let track = shared.map(|shared| Track::of(&plan, &shared, None, &counters));
        let (clock, hand) = Clock::manual();
        let respond = Respond::of(&plan, &pool);
        let worker = Worker::new(
            queues.into_iter().map(Lane).collect(),
            Decap::new(plan.tunnel),
            pipeline.make(WorkerId(0)),
            plan.burst,
            plan.idle,
            clock,
            counters,
        );
        let worker = worker.with_flows(track).with_answers(respond);
        Rig { worker, wire, pool, _port: port, hand }
    }

    fn send(&mut self, inner: &[u8], &[kind, _, _, _, time, ..]: &[u8; PACKET]) {
        let identity = Identity { port: 61_000, cookie: u32::from(kind & 1) };
        let Some(frame) = Envelope::default().wrap_as(inner, identity) else { return };
        self.hand.fetch_add(u64::from(time) * 1_000_000, Ordering::Relaxed);
        self.wire.send(frame);
        self.worker.poll();
        while self.wire.receive().is_some() {}
        let now = self.worker.counters().snapshot();
        assert!(now.ledger().balances(), "{}", now.ledger());
        assert_eq!(self.pool.available() + now.held as u32, self.pool.capacity(), "a buffer is missing");
        assert!(now.stages.iter().all(|stage| stage.panics == 0), "a stage has panicked: {:?}", now.stages);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_packets_have_one_fate(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
            super::packets(&bytes);
        }
    }
}
