//! A gateway's worker over soft ports, polled by hand: what comes in by a leg, what targets get, and what comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate::app::gateway_worker;
use sluicegate::config::{self, GatewayPlan, Machine, Options, Overrides};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{Mempool, PoolConfig, PortConfig, RunningPort};
use sluicegate::gateway::{self, Balance, Outbox, Worker};
use sluicegate::packet::ReasonTable;
use sluicegate::path::{Clock, HostEnd, Lane, WorkerCounters, WorkerSnapshot};
use sluicegate::stage::WorkerId;

use super::dropped;

/// The gateway's own MAC address on the side of targets; its IP address is that of golden frames' node.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 1, 7];
/// Two endpoints with one pair of ports each, and three targets.
pub const PLAIN: &str = r#"
[[port]]
name = "wan"
device = "net_null0"
[[port]]
name = "lan"
device = "net_null1"
[[port]]
name = "targets"
device = "net_null2"
[[port]]
name = "trunk"
device = "net_null3"

[gateway]
port = "targets"
address = "10.254.11.107/24"

[flow]
capacity = 1024

[[endpoint]]
id = "0x0123456789abcdef"
legs = ["wan", "lan"]
[[endpoint]]
id = 4711
legs = ["trunk.10", "trunk.20"]

[[target]]
address = "10.254.11.102"
mac = "02:00:00:00:01:02"
[[target]]
address = "10.254.11.103"
mac = "02:00:00:00:01:03"
[[target]]
address = "10.254.11.104"
mac = "02:00:00:00:01:04"
"#;
/// The same with one target, and more in the table of the flows.
pub fn alone(flow: &str) -> String {
    let (head, _) = PLAIN.split_once("[[target]]\naddress = \"10.254.11.103\"").expect("three targets");
    head.replace("capacity = 1024", &format!("capacity = 1024\n{flow}"))
}

pub const WAN: usize = 0;
pub const LAN: usize = 1;
pub const TARGETS: usize = 2;
pub const TRUNK: usize = 3;

/// A plan from a text, on a machine of two CPUs.
pub fn plan(text: &str) -> GatewayPlan {
    let machine = Machine { cpus: vec![0, 1], worth: 2 };
    let options = Options { machine, ..Options::default() };
    config::gateway::load_text("gateway.toml", text, &Overrides::default(), &options).unwrap_or_else(
        |problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}\nin\n{text}", lines.join("\n"))
        },
    )
}

/// The worker and the far ends of all wires.
#[derive(Debug)]
pub struct Gateway {
    pub worker: Worker,
    pub wires: Vec<Wire>,
    pub pool: Mempool,
    pub balance: Balance,
    pub outbox: Outbox,
    pub end: HostEnd,
    pub reasons: ReasonTable,
    _ports: Vec<RunningPort>,
    hand: Arc<AtomicU64>,
}

/// What became of a frame that was sent in.
#[derive(Clone, PartialEq, Eq)]
pub enum Went {
    /// It left by this port, as these bytes.
    Out(usize, Vec<u8>),
    Dropped(String),
    Punted,
    /// It vanished, or was counted more than once.
    Lost(String),
}

impl std::fmt::Debug for Went {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Went::Out(port, bytes) => {
                write!(f, "out by {port}, {} B ", bytes.len())?;
                bytes.iter().take(160).try_for_each(|b| write!(f, "{b:02x}"))
            }
            Went::Dropped(reason) => write!(f, "dropped {reason}"),
            Went::Punted => f.write_str("punted"),
            Went::Lost(how) => write!(f, "LOST: {how}"),
        }
    }
}

impl Went {
    /// The bytes that left by the port.
    #[track_caller]
    pub fn by(self, port: usize) -> Vec<u8> {
        match self {
            Went::Out(by, bytes) if by == port => bytes,
            other => panic!("{other:?} instead of out by {port}"),
        }
    }

    /// It was dropped for this reason.
    #[track_caller]
    pub fn died_of(self, reason: &str) {
        assert_eq!(self, Went::Dropped(reason.to_owned()));
    }
}

impl Gateway {
    pub fn new(text: &str) -> Gateway {
        Gateway::of(&plan(text))
    }

    pub fn of(plan: &GatewayPlan) -> Gateway {
        Gateway::over(plan, 9001, |_| Setup::default())
    }

    /// With an MTU on all ports, and ports that misbehave as told.
    pub fn over(plan: &GatewayPlan, mtu: u16, setup: impl Fn(usize) -> Setup) -> Gateway {
        let pool = PoolConfig { name: "test".into(), buffers: 512, data_room: 9728, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let (mut wires, mut ports, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..plan.ports.len() {
            let (port, wire) = soft::Port::with(Setup { id: n as u16, ..setup(n) });
            let config = PortConfig { mtu: plan.ports[n].mtu.unwrap_or(mtu), ..PortConfig::default() };
            let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
            lanes.extend(queues.into_iter().map(Lane));
            ports.push(port);
            wires.push(wire);
        }
        let (clock, hand) = Clock::manual();
        let reasons = gateway::reasons();
        let queues = (0..ports.len()).map(|port| (port as u16, 0));
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &reasons, 0).with_queues(queues));
        let balance = Balance::of(plan).expect("targets");
        let made = gateway_worker(plan, lanes, MAC, &pool, clock, counters);
        let (worker, outbox, end) = made.map_err(|(error, _)| error).expect("a worker");
        Gateway { worker, wires, pool, balance, outbox, end, reasons, _ports: ports, hand }
    }

    /// Sets the clock, in milliseconds.
    pub fn at(&self, millis: u64) {
        self.hand.store(millis * 1_000_000, Ordering::Relaxed);
    }

    /// Tells the worker how its targets are now.
    pub fn tell(&mut self) {
        self.outbox.post(self.balance.news());
        while !self.outbox.look() {
            self.worker.poll();
        }
    }

    /// Counters now; the ledger must balance and no buffer may be out between polls.
    #[track_caller]
    pub fn settled(&self) -> WorkerSnapshot {
        let now = self.worker.counters().snapshot();
        assert!(now.ledger().balances(), "{}", now.ledger());
        assert_eq!(self.pool.available(), self.pool.capacity(), "buffers are out between polls");
        now
    }

    /// Sends one frame in by a port and says what became of it.
    #[track_caller]
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Went {
        let before = self.settled();
        self.wires[port].send(frame.to_vec());
        let found = self.worker.poll();
        let after = self.settled();
        let out = self.wires.iter().enumerate();
        let mut out =
            out.flat_map(|(n, wire)| std::iter::from_fn(move || wire.receive().map(|frame| (n, frame))));
        let (first, second) = (out.next(), out.next());
        let punted = after.punted - before.punted;
        let dropped = dropped(&self.reasons, &before, &after);
        if found != 1 || second.is_some() {
            return Went::Lost(format!("{found} frames found, second {second:?}"));
        }
        match (first, punted, dropped.as_slice()) {
            (Some((port, bytes)), 0, []) => Went::Out(port, bytes),
            (None, 1, []) => Went::Punted,
            (None, 0, [reason]) => Went::Dropped(reason.clone()),
            (out, punted, dropped) => {
                Went::Lost(format!("out {out:?}, punted {punted}, dropped {dropped:?}"))
            }
        }
    }
}

/// A frame of a leg around a packet.
pub fn framed(from: u8, to: u8, tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 2, to, 2, 0, 0, 0, 2, from];
    if let Some(tag) = tag {
        frame.extend([0x81, 0x00, (tag >> 8) as u8, tag as u8]);
    }
    frame.extend(match packet[0] >> 4 {
        6 => [0x86, 0xdd],
        _ => [0x08, 0x00],
    });
    frame.extend(packet);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// What an appliance that changes nothing sends back: MAC and outer addresses change places.
pub fn echoed(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[..12].rotate_left(6);
    back[26..34].rotate_left(4);
    back
}

/// Cookie and source port of a frame to a target, at AWS's places.
pub fn identity(frame: &[u8]) -> (u32, u16) {
    let cookie = u32::from_be_bytes(frame[78..82].try_into().expect("four bytes"));
    (cookie, u16::from_be_bytes([frame[34], frame[35]]))
}

/// The target that a frame goes to: the last byte of its address.
pub fn target(frame: &[u8]) -> u8 {
    frame[33]
}
