use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Options, Overrides, load_text};
use crate::flow::event::End;
use crate::flow::{FlowCounters, FlowsShared, Newcomer, Opened, Opening, Seed, tcp};
use crate::packet::{DropReason, FlowSlot};

const PLAN: &str = "
[tunnel]
allowed_sources = [\"10.254.11.0/24\"]
[flow]
tracking = true
capacity = 1024
[[tenant]]
name = \"payments\"
endpoints = [\"vpce-0123456789abcdef0\"]
[[tenant]]
name = \"lab\"
endpoints = [\"7\"]
";

struct House {
    flows: Flows,
    view: FlowView,
    hand: Arc<AtomicU64>,
    counters: Arc<FlowCounters>,
}

impl House {
    fn new(more: &str) -> Self {
        let text = format!("{PLAN}{more}");
        let options = Options { need_ports: false, ..Options::default() };
        let plan = load_text("t.toml", &text, Path::new("/"), &Overrides::default(), &options).unwrap();
        let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(3)).unwrap();
        let counters = Arc::new(FlowCounters::default());
        let mut flows = Flows::new(WorkerId(2), &plan.flow, &shared, None, counters.clone());
        let (clock, hand) = Clock::manual();
        let view = FlowView::new(&plan, vec![flows.show()], clock);
        House { flows, view, hand, counters }
    }

    /// As the worker's poll does, at this millisecond.
    fn poll(&mut self, ms: u64) {
        self.hand.store(ms * 1_000_000, Ordering::Relaxed);
        self.flows.begin(ms * 1_000_000);
        self.flows.age();
    }

    fn open(&mut self, what: &What) -> Option<u32> {
        let key = Key::of_tuple(what.scope, &what.tuple).unwrap();
        let opening = match what.tuple.protocol {
            6 => Opening::Tcp {
                state: tcp::State::SynSent,
                tracked: tcp::Tracked::unpack([0; 3]),
                picked_up: what.picked_up,
            },
            _ => Opening::Other,
        };
        let from_high = key.tuple(true) == what.tuple;
        let hash = Seed::fixed(3).hash(&key);
        if self.flows.find(hash, &key).is_some() {
            return None;
        }
        match self.flows.open(&Newcomer { key, hash, from_high, tenant: what.tenant, opening }, false) {
            Opened::Here(entry) => Some(entry),
            other => panic!("{other:?}"),
        }
    }

    fn all(&self) -> Vec<LiveFlow> {
        self.view.iter(&Filter::default()).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct What {
    scope: u64,
    tuple: Tuple,
    tenant: u16,
    picked_up: bool,
}

fn what(n: u32) -> What {
    let (source, destination): (IpAddr, IpAddr) = if n % 4 == 3 {
        (Ipv6Addr::from(u128::from(n) | 0xfd << 120).into(), Ipv6Addr::from(0xfd_u128 << 120 | 0xffff).into())
    } else {
        (Ipv4Addr::from(0x0a00_0000 + n).into(), Ipv4Addr::new(10, 0, 1, 0).into())
    };
    let protocol = if n.is_multiple_of(2) { 6 } else { 17 };
    let tuple = Tuple { source, destination, source_port: 1000 + n as u16, destination_port: 53, protocol };
    What {
        scope: [0x1234_5678_9abc_def0, 7, 8][n as usize % 3],
        tuple,
        tenant: [1, 2, 0][n as usize % 3],
        picked_up: n.is_multiple_of(10),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Open(u32),
    End(u32),
    Count(u32, bool, u16),
    Condemn(u32),
    Turn(u32),
    Wait(u16),
    FlushOne(u32),
    FlushTenant(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..400u32;
    prop_oneof![
        12 => n.clone().prop_map(Op::Open),
        4 => n.clone().prop_map(Op::End),
        6 => (n.clone(), any::<bool>(), any::<u16>()).prop_map(|(n, reply, bytes)| Op::Count(n, reply, bytes)),
        2 => n.clone().prop_map(Op::Condemn),
        2 => n.clone().prop_map(Op::Turn),
        2 => (1..500u16).prop_map(Op::Wait),
        2 => n.prop_map(Op::FlushOne),
        1 => (0..3u16).prop_map(Op::FlushTenant),
    ]
}

/// What the model knows of a flow.
#[derive(Clone, Debug)]
struct Known {
    entry: u32,
    what: What,
    created: u64,
    seen: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
    condemned: bool,
}

proptest! {
    /// Whatever happens, the view shows what a map of the same flows holds, and finds each of them from both ends.
    #[test]
    fn the_view_is_what_a_map_would_hold(ops in prop::collection::vec(op(), 1..400)) {
        let mut house = House::new("");
        let mut model: HashMap<u32, Known> = HashMap::new();
        let mut now = 0u64;
        let mut flushed = 0;
        for op in ops {
            match op {
                Op::Open(n) => {
                    let what = what(n);
                    if let Some(entry) = house.open(&what) {
                        prop_assert!(!model.contains_key(&n));
                        let known = Known { entry, what, created: now, seen: now, packets: [0; 2], bytes: [0; 2], condemned: false };
                        model.insert(n, known);
                    } else {
                        prop_assert!(model.contains_key(&n));
                    }
                }
                Op::End(n) => {
                    if let Some(known) = model.remove(&n) {
                        house.flows.end(known.entry, End::Closed);
                    }
                }
                Op::Count(n, reply, bytes) => {
                    if let Some(known) = model.get_mut(&n) {
                        let entry = house.flows.entry(known.entry).unwrap();
                        entry.count(reply, bytes.into());
                        entry.set_life(entry.life().at(now as u32));
                        known.seen = now;
                        known.packets[usize::from(reply)] += 1;
                        known.bytes[usize::from(reply)] += u64::from(bytes);
                    }
                }
                Op::Condemn(n) => {
                    if let Some(known) = model.get_mut(&n) {
                        house.flows.condemn(FlowSlot::new(known.entry), DropReason::TooBig.into(), false);
                        known.condemned = true;
                    }
                }
                Op::Turn(n) => {
                    if let Some(known) = model.get_mut(&n) {
                        house.flows.turn(FlowSlot::new(known.entry));
                        known.what.tuple = known.what.tuple.reversed();
                        known.packets.reverse();
                        known.bytes.reverse();
                    }
                }
                Op::Wait(ms) => {
                    // Nothing expires: half-open flows would, after seconds.
                    if now < 2000 {
                        now += u64::from(ms);
                        house.poll(now);
                    }
                }
                Op::FlushOne(n) => {
                    let asked = house.view.flush(&Filter { tuple: Some(what(n).tuple), ..Filter::default() });
                    let there = u64::from(model.remove(&n).is_some());
                    prop_assert_eq!(asked, Flushed { asked: there, left: 0 });
                    flushed += there;
                    now += 1;
                    house.poll(now);
                }
                Op::FlushTenant(tenant) => {
                    let asked = house.view.flush(&Filter { tenant: Some(tenant), ..Filter::default() });
                    let before = model.len();
                    model.retain(|_, known| known.what.tenant != tenant);
                    let gone = (before - model.len()) as u64;
                    prop_assert_eq!(asked, Flushed { asked: gone, left: 0 });
                    flushed += gone;
                    for _ in 0..4 {
                        now += 1;
                        house.poll(now);
                    }
                }
            }
        }
        house.hand.store(now * 1_000_000, Ordering::Relaxed);
        let all = house.all();
        prop_assert_eq!(all.len(), model.len());
        prop_assert_eq!(house.counters.ended_flushed.get(), flushed);
        for known in model.values() {
            let What { scope, tuple, tenant, picked_up } = known.what;
            let version = house.flows.entry(known.entry).unwrap().version();
            let expected = LiveFlow {
                app_proto: None,
                app_proto_orig: None,
                flow_id: flow_id(WorkerId(2), (known.entry, version)),
                worker: WorkerId(2),
                scope,
                endpoint: Some(scope),
                tenant: ["default", "payments", "lab"][usize::from(tenant)].into(),
                tuple,
                state: if tuple.protocol == 6 { "syn-sent" } else { "first" },
                age_ms: (now - known.created) as u32,
                idle_ms: (now - known.seen) as u32,
                packets: known.packets,
                bytes: known.bytes,
                verdict: if known.condemned { Standing::Condemned } else { Standing::Settled },
                reason: known.condemned.then(|| "too_big".to_owned()),
                picked_up: picked_up && tuple.protocol == 6,
                envelopes: [None; 2],
            };
            for asked in [tuple, tuple.reversed()] {
                prop_assert_eq!(house.view.find(Some(scope), &asked), vec![expected.clone()]);
                prop_assert_eq!(house.view.find(Some(scope + 1), &asked), vec![]);
            }
        }
        let live: u32 = house.view.live().map(|(_, _, live)| live).sum();
        prop_assert_eq!(live as usize, model.len());
        for (tenant, name) in ["default", "payments", "lab"].into_iter().enumerate() {
            let of = model.values().filter(|known| usize::from(known.what.tenant) == tenant).count();
            let shown = house.view.live().find(|(_, own, _)| *own == name).unwrap();
            prop_assert_eq!(shown.2 as usize, of);
            let filter = Filter { tenant: house.view.tenant(name), ..Filter::default() };
            prop_assert_eq!(house.view.count(&filter).flows as usize, of);
        }
    }
}

/// Each condition of a filter takes what it says and nothing else.
#[test]
fn filters_take_what_they_say() {
    let mut house = House::new("");
    house.poll(1000);
    for n in 0..40 {
        house.open(&what(n));
    }
    house.poll(1500);
    for n in 40..60 {
        house.open(&what(n));
    }
    let entry = house.view.find(None, &what(45).tuple).len();
    assert_eq!(entry, 1);
    house.poll(1600);
    let numbers = |filter: &Filter| -> Vec<u32> {
        let mut found: Vec<u32> =
            house.view.iter(filter).map(|flow| u32::from(flow.tuple.source_port) - 1000).collect();
        found.sort_unstable();
        found
    };
    let among = |test: &dyn Fn(u32) -> bool| (0..60).filter(|&n| test(n)).collect::<Vec<_>>();
    let all = Filter::default;
    let net = |text: &str| Some(text.parse().unwrap());
    let ms = Duration::from_millis;
    type Test = Box<dyn Fn(u32) -> bool>;
    let cases: Vec<(&str, Filter, Test)> = vec![
        ("all", all(), Box::new(|_| true)),
        ("scope", Filter { scope: Some(7), ..all() }, Box::new(|n| n % 3 == 1)),
        ("tenant", Filter { tenant: Some(2), ..all() }, Box::new(|n| n % 3 == 1)),
        ("protocol", Filter { protocol: Some(6), ..all() }, Box::new(|n| n % 2 == 0)),
        ("source", Filter { source: net("10.0.0.0/29"), ..all() }, Box::new(|n| n < 8 && n % 4 != 3)),
        ("not a source", Filter { source: net("10.0.1.0/24"), ..all() }, Box::new(|_| false)),
        ("destination", Filter { destination: net("10.0.1.0/24"), ..all() }, Box::new(|n| n % 4 != 3)),
        ("address", Filter { address: net("10.0.1.0/32"), ..all() }, Box::new(|n| n % 4 != 3)),
        ("IPv6", Filter { address: net("fd00::/8"), ..all() }, Box::new(|n| n % 4 == 3)),
        ("source port", Filter { source_port: Some(1003..=1004), ..all() }, Box::new(|n| n == 3 || n == 4)),
        ("destination port", Filter { destination_port: Some(1003..=1004), ..all() }, Box::new(|_| false)),
        ("service", Filter { destination_port: Some(53..=53), ..all() }, Box::new(|_| true)),
        ("port", Filter { port: Some(1059..=2000), ..all() }, Box::new(|n| n == 59)),
        ("state", Filter { state: Some("first".into()), ..all() }, Box::new(|n| n % 2 == 1)),
        ("age", Filter { age: ms(101), ..all() }, Box::new(|n| n < 40)),
        ("age, just", Filter { age: ms(600), ..all() }, Box::new(|n| n < 40)),
        ("too old", Filter { age: ms(601), ..all() }, Box::new(|_| false)),
        ("idle", Filter { idle: ms(100), ..all() }, Box::new(|_| true)),
        ("long idle", Filter { idle: ms(101), ..all() }, Box::new(|n| n < 40)),
        ("condemned", Filter { verdict: Some(Standing::Condemned), ..all() }, Box::new(|_| false)),
        ("settled", Filter { verdict: Some(Standing::Settled), ..all() }, Box::new(|_| true)),
        (
            "two",
            Filter { protocol: Some(17), scope: Some(8), ..all() },
            Box::new(|n| n % 3 == 2 && n % 2 == 1),
        ),
    ];
    for (name, filter, test) in cases {
        assert_eq!(numbers(&filter), among(&test), "{name}");
        assert_eq!(house.view.count(&filter).flows as usize, among(&test).len(), "{name}");
    }
    let some = house.view.snapshot(7, &all());
    assert_eq!((some.flows.len(), some.more), (7, true));
    let some = house.view.snapshot(60, &all());
    assert_eq!((some.flows.len(), some.more), (60, false));
    let count = house.view.count(&all());
    assert_eq!(count.states, BTreeMap::from([("first", 30), ("syn-sent", 30)]));
    assert_eq!(count.tenants.values().copied().collect::<Vec<_>>(), [20; 3]);
    assert_eq!(count.verdicts, BTreeMap::from([(Standing::Settled, 60)]));
}

/// With stages in front, a flow is settled when each has its bit.
#[test]
fn a_flow_is_settled_when_all_stages_are_done() {
    let stage = "[[stage]]\nuse = \"acl\"\nname = \"a\"\ndefault = \"allow\"\n";
    let mut house = House::new(&format!("{stage}{}", stage.replace("\"a\"", "\"b\"")));
    let entry = house.open(&what(1)).unwrap();
    let slot = FlowSlot::new(entry);
    let standing = |house: &House| house.all()[0].verdict;
    assert_eq!(standing(&house), Standing::Undecided);
    house.flows.settle(slot, 1);
    assert_eq!(standing(&house), Standing::Undecided);
    house.flows.settle(slot, 2);
    assert_eq!(standing(&house), Standing::Settled);
    house.flows.condemn(slot, DropReason::TooBig.into(), false);
    let flow = &house.all()[0];
    assert_eq!((flow.verdict, flow.reason.as_deref()), (Standing::Condemned, Some("too_big")));
    let flushed = house.view.flush(&Filter { verdict: Some(Standing::Condemned), ..Filter::default() });
    assert_eq!(flushed.asked, 1);
}

/// A command that comes too late ends nobody else's flow.
#[test]
fn a_flush_means_the_flow_that_was_seen() {
    let mut house = House::new("");
    let entry = house.open(&what(1)).unwrap();
    assert_eq!(house.view.flush(&Filter::default()), Flushed { asked: 1, left: 0 });
    house.flows.end(entry, End::Closed);
    assert_eq!(house.open(&what(2)), Some(entry), "the same place");
    house.poll(1);
    assert_eq!(house.all().len(), 1, "the new flow lives");
    assert_eq!(house.counters.ended_flushed.get(), 0);
    // And a place that nobody uses is none.
    house.view.flush(&Filter::default());
    house.flows.end(entry, End::Closed);
    house.poll(2);
    assert_eq!((house.counters.ended_flushed.get(), house.counters.ended_closed.get()), (0, 2));
}

/// A poll obeys a bounded number of commands, and none is forgotten.
#[test]
fn a_flush_is_bounded_work() {
    let mut house = House::new("");
    for n in 0..1000 {
        house.open(&what(n));
    }
    assert_eq!(house.view.flush(&Filter::default()), Flushed { asked: 1000, left: 0 });
    let mut polls = 0;
    while house.counters.ended_flushed.get() < 1000 {
        let before = house.counters.ended_flushed.get();
        polls += 1;
        house.poll(polls);
        let ended = house.counters.ended_flushed.get() - before;
        assert!((1..=128).contains(&ended), "{ended}");
    }
    assert_eq!(polls, 8);
    assert_eq!((house.flows.live(), house.all().len()), (0, 0));
}

/// What finds no room in the ring is said, and can be asked for again.
#[test]
fn a_full_ring_leaves_some() {
    let mut house = House::new("");
    for n in 0..1000 {
        house.open(&what(n));
    }
    for _ in 0..4 {
        assert_eq!(house.view.flush(&Filter::default()).left, 0);
    }
    assert_eq!(house.view.flush(&Filter::default()), Flushed { asked: 96, left: 904 });
    for ms in 1..60 {
        house.poll(ms);
    }
    assert_eq!(house.counters.ended_flushed.get(), 1000);
}

/// A worker that opens, turns, flushes and ends as fast as it can, and views on other threads: each flow they show is one flow.
#[test]
fn a_view_reads_while_the_worker_writes() {
    let mut house = House::new("");
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let (view, done) = (house.view.clone(), done.clone());
            thread::spawn(move || {
                let (mut seen, mut flushed) = (0u64, 0u64);
                while !done.load(Ordering::Relaxed) {
                    for flow in view.iter(&Filter::default()) {
                        let n = u32::from(flow.tuple.source_port) - 1000;
                        let expected = what(n);
                        assert_eq!((flow.tuple, flow.scope), (expected.tuple, expected.scope));
                        assert_eq!(flow.tenant, view.names.tenant(expected.tenant));
                        seen += 1;
                    }
                    if reader == 0 {
                        let filter = Filter { protocol: Some(17), ..Filter::default() };
                        flushed += view.flush(&filter).asked;
                    }
                }
                (seen, flushed)
            })
        })
        .collect();
    let mut random = 1u32;
    let mut entries = HashMap::new();
    for ms in 1..3000u64 {
        for _ in 0..64 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = random >> 22;
            match house.open(&what(n)) {
                Some(entry) => _ = entries.insert(n, entry),
                None if n.is_multiple_of(2) => {
                    if let Some(entry) = entries.remove(&n) {
                        house.flows.end(entry, End::Closed);
                    }
                }
                None => {}
            }
        }
        house.poll(ms);
        if ms % 16 == 0 {
            thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    let found: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(found.iter().all(|(seen, _)| *seen > 0), "{found:?}");
    assert!(house.counters.ended_flushed.get() <= found[0].1);
    let snapshot = house.counters.snapshot();
    let ended = snapshot.ended_flushed + snapshot.ended_closed + snapshot.ended_evicted + snapshot.ended_idle;
    assert_eq!(snapshot.opened - ended, u64::from(house.flows.live()));
}

/// What a list is as JSON.
#[test]
fn flows_are_json() {
    let mut house = House::new("");
    house.poll(1000);
    let entry = house.open(&what(0)).unwrap();
    let line = house.flows.entry(entry).unwrap();
    line.count(false, 60);
    line.refresh(false, Envelope { node: [10, 254, 11, 5], cookie: 9, port: 60_001 });
    house.poll(1250);
    let found = serde_json::to_value(&house.all()[0]).unwrap();
    let expected = serde_json::json!({
        "flow_id": (2u64 << 45) + 1, "worker": 2, "endpoint": "vpce-0123456789abcdef0", "tenant": "payments",
        "source": "10.0.0.0", "destination": "10.0.1.0", "source_port": 1000, "destination_port": 53, "protocol": 6,
        "state": "syn-sent", "age_ms": 250, "idle_ms": 250, "packets": [1, 0], "bytes": [60, 0],
        "verdict": "settled", "reason": null, "picked_up": true,
        "envelopes": [{ "node": "10.254.11.5", "cookie": 9, "port": 60001 }, null],
    });
    assert_eq!(found, expected);
}

/// What flows speak is shown and asked for, also what they spoke before TLS.
#[test]
fn flows_are_found_by_what_they_speak() {
    use crate::packet::{App, FlowSlot, Spoken};
    let mut house = House::new("");
    let entries = [0, 1, 2].map(|n| house.open(&what(n)).expect("a new flow"));
    house.flows.name(FlowSlot::new(entries[0]), Spoken::of(App::Smtp).became(App::Tls));
    house.flows.name(FlowSlot::new(entries[1]), Spoken::of(App::Tls));
    let ports = |app| {
        let filter = Filter { app: Some(app), ..Filter::default() };
        house.view.iter(&filter).map(|flow| flow.tuple.source_port).collect::<Vec<_>>()
    };
    assert_eq!((ports(App::Tls), ports(App::Smtp), ports(App::Ssh)), (vec![1000, 1001], vec![1000], vec![]));
    let shown: Vec<_> = house.all().iter().map(|flow| (flow.app_proto, flow.app_proto_orig)).collect();
    assert_eq!(shown, [(Some("tls"), Some("smtp")), (Some("tls"), None), (None, None)]);
}
