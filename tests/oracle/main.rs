//! The flow engine behind all hops against a plain reference ([`model`]): what becomes of every packet, which flows there are, who
//! makes room for whom, and when what ends.
//!
//! `SLUICEGATE_OPERATIONS=5000000` sets the number of operations, over all scenes; `ci/check-long.sh` runs millions.

#[path = "../common/mod.rs"]
mod common;
mod actors;
mod model;

use std::sync::Arc;

use actors::Conversation;
use common::inner::{v4, v6, wrap_from};
use common::{Rig, TUNNEL, plan_with, say};
use model::{Event, Key, Model, Packet, Pickup, Rule, State, Tenant, Times};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::config::Plan;
use sluicegate::flow::{End, Filter, FlowEvent, FlowView, Tuple, What};
use sluicegate::packet::Verdict;
use sluicegate::path::Clock;
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerPacket, Shared, Stage, StageKind,
};

/// Operations without `SLUICEGATE_OPERATIONS`.
const OPERATIONS: usize = 300_000;
/// Endpoints of tenants "a" (two), "b" and "c", and one that nobody claims.
const ENDPOINTS: [u64; 5] = [0xa1, 0xa2, 0xb1, 0xc1, 0xff];
/// A millisecond, in the clock's unit.
const MS: u64 = 1_000_000;

/// A stage that looks at the server's port only.
#[derive(Debug)]
struct ByPort;

fn rule(port: u16) -> Rule {
    match port % 8 {
        0 => Rule::Drop { settle: true },
        1 => Rule::Drop { settle: false },
        2 | 3 => Rule::Pass { settle: false },
        _ => Rule::Pass { settle: true },
    }
}

impl Inspect for ByPort {
    fn inspect(&mut self, packet: &mut sluicegate::packet::Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        let meta = packet.meta();
        let (Rule::Pass { settle } | Rule::Drop { settle }) =
            rule(meta.source_port.min(meta.destination_port));
        if settle {
            cx.settle();
        }
        match rule(meta.source_port.min(meta.destination_port)) {
            Rule::Pass { .. } => Verdict::Next,
            Rule::Drop { .. } => Verdict::Drop(cx.reason(0)),
        }
    }
}

impl Parsed for ByPort {
    fn wants_flows(&self) -> bool {
        true
    }

    fn settles(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(ByPort))
    }
}

impl Shared for ByPort {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(ByPort))
    }
}

static ORACLE: StageKind = StageKind {
    name: "oracle",
    summary: "decides by the server's port",
    help: "",
    example: "[[stage]]\nuse = \"oracle\"\n",
    reasons: &[("rule", "its port")],
    parse: |_| -> ParseResult { Ok(Box::new(ByPort)) },
};

/// One configuration with its traffic.
struct Scene {
    plan: Plan,
    rig: Rig,
    model: Model,
    events: rtrb::Consumer<FlowEvent>,
    conversations: Vec<Conversation>,
    by_tenant: bool,
    random: ChaCha8Rng,
    /// Milliseconds; begins shortly before 32 bits of them wrap.
    clock: u64,
    /// Packets, starts, ends by ageing, evictions, new incarnations, most flows at once, packets without room.
    seen: [u64; 7],
}

const BEGIN: u64 = (1 << 32) - 200_000;

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let pick = |n: u64, words: &[&'static str]| words[(n as usize) % words.len()];
        let (full, pickup) = (
            pick(seed, &["stateless", "drop", "forward"]),
            pick(seed / 2, &["policy", "allow", "drop", "reset"]),
        );
        let (check, unknown) =
            (pick(seed, &["off", "log", "drop", "drop"]), pick(seed, &["default", "drop"]));
        let scope = pick(seed / 3, &["endpoint", "tenant"]);
        let text = format!(
            "{TUNNEL}
[flow]
capacity = 1024
scope = \"{scope}\"
when_full = \"{full}\"
pickup = \"{pickup}\"
window_check = \"{check}\"
[tenants]
unknown_endpoint = \"{unknown}\"
[[tenant]]
name = \"a\"
endpoints = [\"0xa1\", \"0xa2\"]
limits = {{ guaranteed = 200, flows = 600 }}
[[tenant]]
name = \"b\"
endpoints = [\"0xb1\"]
limits = {{ guaranteed = 100, flows = 150 }}
[[tenant]]
name = \"c\"
endpoints = [\"0xc1\"]
limits = {{ guaranteed = 0, flows = 1000, new_flows_per_s = 40 }}
[[stage]]
use = \"oracle\"
"
        );
        let plan = plan_with(&text, &[&ORACLE]);
        let mut rig = Rig::new(&plan);
        let events = rig.worker.flows().expect("flows").listen(1 << 14);
        let tenants =
            plan.flow.tenants.iter().map(|t| {
                Tenant::new(t.guaranteed.into(), t.ceiling.into(), t.new_flows_per_s.map(u64::from))
            });
        // GWLB's idle times and a margin of 5 s; the rest as documented.
        let times = Times {
            established: 355_000,
            other: 125_000,
            half_open: 20_000,
            closing: 20_000,
            reset: 2_000,
            denied: 10_000,
        };
        let mut model = Model::new(tenants.collect(), 1024, times);
        model.pickup = match pickup {
            "policy" => Pickup::Policy,
            "allow" => Pickup::Allow,
            _ => Pickup::Refuse,
        };
        model.when_full = match full {
            "stateless" => None,
            "drop" => Some(model::Fate::Dropped("table_full")),
            _ => Some(model::Fate::Home),
        };
        model.refuse_bad = check == "drop";
        let by_tenant = scope == "tenant";
        let mut conversations = Vec::new();
        for n in 0..3000u32 {
            // A few addresses and ports, so that endpoints use the same tuples.
            let tuple = n / 4;
            let server = random.random_range(1000..1040);
            let ends = if tuple % 3 == 0 {
                [v6(&format!("2001:db8::{tuple:x}"), 40_000), v6("2001:db8:1::1", server)]
            } else {
                [v4(10, 0, (tuple >> 8) as u8, tuple as u8, 40_000), v4(192, 0, 2, 1, server)]
            };
            let mut one = Conversation::new(ends, random.random_ratio(3, 4), rule(server), &mut random);
            let group = random.random_range(0..ENDPOINTS.len());
            let tenant = [1, 1, 2, 3, 0][group];
            one.tenant = (tenant != 0 || unknown == "default").then_some(tenant);
            one.endpoints = match (by_tenant, tenant) {
                (true, 1) => vec![0xa1, 0xa2],
                _ => vec![ENDPOINTS[group]],
            };
            conversations.push(one);
        }
        // Under one scope a tuple is one conversation.
        let mut known = std::collections::HashSet::new();
        conversations.retain(|one| known.insert(key(by_tenant, one)));
        Scene { plan, rig, model, events, conversations, by_tenant, random, clock: BEGIN, seen: [0; 7] }
    }

    fn packet(&mut self) {
        // Some talk all the time, others now and then.
        let all = self.conversations.len();
        let most = if self.random.random_ratio(1, 3) { 40 } else { all };
        let which = self.random.random_range(0..most);
        let conversation = &mut self.conversations[which];
        let key = key(self.by_tenant, conversation);
        let Some(sent) = conversation.next(self.model.flows.get(&key), &mut self.random) else { return };
        let endpoint = conversation.endpoints[self.random.random_range(0..conversation.endpoints.len())];
        let packet = Packet {
            key,
            side: sent.side,
            part: sent.part,
            tenant: conversation.tenant,
            cookie: conversation.cookie,
            len: sent.inner.len() as u64,
            rule: conversation.rule,
        };
        let frame = wrap_from(endpoint, &sent.inner, packet.cookie, 61_000 + which as u16 % 1000);
        let before = self.model.flows.get(&key).cloned();
        let live = self.model.flows.len();
        self.model.now = self.clock - BEGIN + 1_000_000;
        let (fate, events) = self.model.packet(&packet);
        let got = self.rig.fate(&frame);
        let same = match (&got, fate) {
            (common::Fate::Home(_), model::Fate::Home) => true,
            (common::Fate::Dropped(reason), model::Fate::Dropped(other)) => reason == other,
            _ => false,
        };
        let context =
            || format!("{packet:?}\nflow before: {before:?}\n{live} live, {:?}", self.model.tenants);
        assert!(same, "the engine: {got:?}; the reference: {fate:?}; {}", context());
        if !matches!(got, common::Fate::Home(_)) {
            self.conversations[which].lost(&sent);
        }
        self.seen[0] += 1;
        self.seen[6] += u64::from(before.is_none() && packet.tenant.is_some() && events.is_empty());
        for expected in events {
            let event = self.events.pop().unwrap_or_else(|_| panic!("{expected:?} was expected; {packet:?}"));
            let at = event_key(&event);
            match (event.what, expected) {
                (What::Start, Event::Start(key)) if key == at => self.seen[1] += 1,
                (What::End(End::Replaced), Event::Replaced(key)) if key == at => self.seen[4] += 1,
                (What::End(why), Event::Evicted(flows)) if flows.contains_key(&at) => {
                    assert_eq!(why, end_of(flows[&at], End::Evicted), "{at:?}");
                    // Where several would have done, the reference follows.
                    self.model.evict(&at);
                    self.seen[3] += 1;
                }
                (_, expected) => panic!("{event:?}\nbut {expected:?} was expected; {packet:?}"),
            }
        }
        self.aged();
    }

    /// What the engine has ended on its own account must have been due.
    fn aged(&mut self) {
        self.model.now = self.clock - BEGIN + 1_000_000;
        while let Ok(event) = self.events.pop() {
            let flow =
                self.model.remove(&event_key(&event)).unwrap_or_else(|| panic!("nobody knows {event:?}"));
            assert_eq!(event.what, What::End(end_of(flow.state, End::Idle)), "{flow:?}");
            let idle = self.model.now - flow.seen;
            assert!(idle >= self.model.timeout(&flow), "after {idle} ms: {flow:?}\n{event:?}");
            let mut counts = flow.counts;
            if flow.originator == 1 {
                counts.reverse();
            }
            assert_eq!((event.counts, event.picked_up), (counts, flow.picked_up), "{flow:?}");
            self.seen[2] += 1;
        }
        let live = self.rig.worker.flows().expect("flows").live() as usize;
        assert_eq!(live, self.model.flows.len());
        assert!(live <= 1024);
        self.seen[5] = self.seen[5].max(live as u64);
    }

    /// Time passes; then nothing is left that was due a lap of the sweep ago.
    fn time(&mut self) {
        let step = match self.random.random_range(0..1000) {
            0..800 => self.random.random_range(0..20),
            800..980 => self.random.random_range(20..1000),
            980..999 => self.random.random_range(1000..10_000),
            _ => self.random.random_range(30_000..400_000),
        };
        self.clock += step;
        self.rig.set_clock(self.clock * MS);
        for _ in 0..6 {
            let before = self.rig.worker.counters().flows.swept.get();
            self.rig.worker.poll();
            let swept = self.rig.worker.counters().flows.swept.get() - before;
            assert!(swept <= 256, "{swept} entries in one poll");
        }
        self.aged();
        for flow in self.model.flows.values() {
            let (idle, timeout) = (self.model.now - flow.seen, self.model.timeout(flow));
            assert!(idle < timeout + 1000 + step.min(1000), "{idle} ms idle: {flow:?}");
        }
    }

    /// Every flow, as the management side sees it.
    fn compare(&mut self, view: &FlowView) {
        let mut seen = 0;
        for flow in view.iter(&Filter::default()) {
            let own = self
                .model
                .flows
                .get(&tuple_key(flow.scope, &flow.tuple))
                .unwrap_or_else(|| panic!("{flow:?}"));
            let mut packets = own.counts.map(|(packets, _)| packets);
            if own.originator == 1 {
                packets.reverse();
            }
            let state = match own.state {
                State::One => "first",
                State::OneWay => "one-way",
                State::Both | State::Established => "established",
                State::SynSent => "syn-sent",
                State::PickedUp => "picked-up",
                State::SynReceived => "syn-received",
                State::FinSent => "fin-sent",
                State::Closing => "closing",
                State::TimeWait => "time-wait",
                State::Reset => "reset",
            };
            assert_eq!(
                (flow.packets, flow.state, flow.picked_up),
                (packets, state, own.picked_up),
                "{own:?}"
            );
            assert_eq!(flow.tenant, ["default", "a", "b", "c"][usize::from(own.tenant)]);
            assert_eq!(flow.reason.is_some(), own.condemned);
            let cookies = flow.envelopes.map(|outer| outer.map(|outer| outer.cookie));
            let mut expected = own.cookies;
            if own.originator == 1 {
                expected.reverse();
            }
            assert_eq!(cookies, expected, "the newest of each direction");
            seen += 1;
        }
        assert_eq!(seen, self.model.flows.len());
    }
}

fn key(by_tenant: bool, one: &Conversation) -> Key {
    let scope = if by_tenant { one.tenant.unwrap_or(0).into() } else { one.endpoints[0] };
    let mut ends = one.ends;
    ends.sort_unstable();
    (scope, ends, if one.is_tcp() { 6 } else { 17 })
}

/// What is said of a flow that ends in this state; `otherwise` if that says nothing by itself.
fn end_of(state: State, otherwise: End) -> End {
    match state {
        State::Closing | State::TimeWait => End::Closed,
        State::Reset => End::Reset,
        _ => otherwise,
    }
}

fn tuple_key(scope: u64, tuple: &Tuple) -> Key {
    let mut ends = [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)];
    ends.sort_unstable();
    (scope, ends, tuple.protocol)
}

fn event_key(event: &FlowEvent) -> Key {
    tuple_key(event.key.scope(), &event.tuple())
}

#[test]
fn the_engine_agrees_with_the_reference() {
    let operations =
        std::env::var("SLUICEGATE_OPERATIONS").map_or(OPERATIONS, |n| n.parse().expect("a number"));
    // Twelve have every value of every setting.
    let scenes = if operations > 1_000_000 { 24 } else { 12 };
    let mut total = [0; 7];
    for seed in 0..scenes {
        let mut scene = Scene::new(seed);
        scene.rig.set_clock(scene.clock * MS);
        let shown = scene.rig.worker.flows().expect("flows").show();
        let view = FlowView::new(&scene.plan, vec![shown], Clock::manual().0);
        for n in 0..operations / scenes as usize {
            if scene.random.random_ratio(1, 40) {
                scene.time();
            } else {
                scene.packet();
            }
            if n % 1000 == 999 {
                scene.compare(&view);
            }
        }
        for (total, seen) in total.iter_mut().zip(scene.seen) {
            *total += seen;
        }
    }
    let [packets, starts, aged, evicted, replaced, most, without] = total;
    say(&format!(
        "{packets} packets: {starts} flows began, {aged} aged, {evicted} made room, {replaced} were replaced; at most {} at once; \
         {without} packets without a flow",
        most / scenes
    ));
    assert!(starts > 1000 && aged > 500 && evicted > 100 && replaced > 100 && without > 100);
}
