use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Options, Overrides, load_text};
use crate::flow::{Flows, FlowsShared, Key, Newcomer, Opening, Seed, Tuple};
use crate::packet::DropReason;
use crate::stage::WorkerId;

const PLAN: &str = "
[tunnel]
allowed_sources = [\"10.254.11.0/24\"]
[flow]
tracking = true
[[tenant]]
name = \"payments\"
endpoints = [\"vpce-0123456789abcdef0\"]
";

fn plan(more: &str) -> Plan {
    let options = Options { need_ports: false, ..Options::default() };
    load_text(
        "t.toml",
        &PLAN.replace("[flow]", &format!("[flow]\n{more}")),
        Path::new("/"),
        &Overrides::default(),
        &options,
    )
    .unwrap()
}

fn event(what: What, protocol: u8, state: &'static str) -> FlowEvent {
    let tuple = Tuple {
        source: "10.1.0.5".parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        source_port: 40_000,
        destination_port: 443,
        protocol,
    };
    FlowEvent {
        what,
        worker: WorkerId(3),
        at: 360_500,
        began: 1500,
        seen: 5250,
        key: Key::of_tuple(0x1234_5678_9abc_def0, &tuple).unwrap(),
        place: (5, 4),
        from_high: false,
        picked_up: false,
        state,
        tenant: 1,
        settled: 0,
        condemned: None,
        counts: [(6, 1000), (4, 5000)],
    }
}

/// The worker's clock shows 361 s; it is 2017-04-07T22:24:37 UTC, the second of Suricata's own example.
fn moment() -> Moment {
    Moment { clock: 361_000, wall: Duration::from_millis(1_491_603_877_000) }
}

fn json(eve: &Eve, event: &FlowEvent) -> Value {
    serde_json::to_value(eve.record(event, moment())).unwrap()
}

/// Names, words and the form of times are those of Suricata 7's `output-json-flow.c`; times worked out by hand: the event 0.5 s ago,
/// the flow's begin 359.5 s ago, its last packet 355.75 s ago.
#[test]
fn a_flow_is_a_record_as_suricata_writes_it() {
    let eve = Eve::of(&plan(""));
    let expected = json!({
        "timestamp": "2017-04-07T22:24:36.500000+0000",
        "flow_id": (3u64 << 45) + (5 << 19) + 2,
        "event_type": "flow",
        "src_ip": "10.1.0.5", "src_port": 40000, "dest_ip": "10.2.0.9", "dest_port": 443, "proto": "TCP",
        "flow": {
            "pkts_toserver": 6, "pkts_toclient": 4, "bytes_toserver": 1000, "bytes_toclient": 5000,
            "start": "2017-04-07T22:18:37.500000+0000", "end": "2017-04-07T22:18:41.250000+0000", "age": 3,
            "state": "closed", "reason": "timeout", "alerted": false, "ended": "closed", "verdict": "settled",
        },
        "tcp": { "state": "time_wait" },
        "tenant": "payments", "endpoint": "vpce-0123456789abcdef0", "worker": 3, "picked_up": false,
    });
    assert_eq!(json(&eve, &event(What::End(End::Closed), 6, "time-wait")), expected);
}

#[test]
fn a_flow_that_began_has_no_end() {
    let found =
        json(&Eve::of(&plan("")), &FlowEvent { picked_up: true, ..event(What::Start, 6, "picked-up") });
    assert_eq!(found["event_type"], "flow_start");
    assert_eq!((&found["picked_up"], &found["flow"]["state"]), (&json!(true), &json!("new")));
    for key in ["end", "age", "reason", "ended", "action", "drop_reason"] {
        assert_eq!(found["flow"].get(key), None, "{key}");
    }
}

/// Every end and every state has a word of Suricata's.
#[test]
fn words_are_suricatas() {
    let eve = Eve::of(&plan(""));
    let reasons = [
        (End::Idle, "timeout", "idle"),
        (End::Closed, "timeout", "closed"),
        (End::Reset, "timeout", "reset"),
        (End::Replaced, "tcp_reuse", "replaced"),
        (End::Evicted, "forced", "evicted"),
        (End::Flushed, "forced", "flushed"),
        (End::TakenOver, "forced", "taken-over"),
        (End::Stopped, "shutdown", "stopped"),
    ];
    for (end, reason, word) in reasons {
        let found = json(&eve, &event(What::End(end), 17, "established"));
        assert_eq!((&found["flow"]["reason"], &found["flow"]["ended"]), (&json!(reason), &json!(word)));
    }
    let states = [
        ("syn-sent", "new", "syn_sent"),
        ("syn-received", "new", "syn_recv"),
        ("picked-up", "new", "established"),
        ("established", "established", "established"),
        ("fin-sent", "closed", "fin_wait1"),
        ("closing", "closed", "closing"),
        ("time-wait", "closed", "time_wait"),
        ("reset", "closed", "closed"),
    ];
    for n in 0..8 {
        let word = super::super::state::name(n);
        let (_, expected, tcp) = states.into_iter().find(|(ours, ..)| *ours == word).expect(word);
        let found = json(&eve, &event(What::End(End::Idle), 6, word));
        assert_eq!((&found["flow"]["state"], &found["tcp"]["state"]), (&json!(expected), &json!(tcp)));
    }
    for (word, expected) in [("first", "new"), ("established", "established")] {
        let found = json(&eve, &event(What::End(End::Idle), 17, word));
        assert_eq!((&found["flow"]["state"], found.get("tcp")), (&json!(expected), None));
    }
}

/// Ports where the protocol has them, protocols without a word by number, addresses of IPv6, no endpoint where the scope is a tenant's.
#[test]
fn what_does_not_apply_is_left_out() {
    let eve = Eve::of(&plan("scope = \"tenant\""));
    let found = json(&eve, &event(What::End(End::Idle), 47, "first"));
    assert_eq!((&found["proto"], found.get("src_port"), found.get("dest_port")), (&json!("GRE"), None, None));
    assert_eq!(found.get("endpoint"), None);
    assert_eq!(json(&eve, &event(What::End(End::Idle), 99, "first"))["proto"], "099");
    let tuple = Tuple {
        source: "fd00::2".parse().unwrap(),
        destination: "fd00::1".parse().unwrap(),
        source_port: 5,
        destination_port: 6,
        protocol: 58,
    };
    let key = Key::of_tuple(0, &tuple).unwrap();
    let found = json(&eve, &FlowEvent { key, from_high: true, ..event(What::Start, 58, "first") });
    assert_eq!(
        (&found["src_ip"], &found["dest_ip"], &found["proto"]),
        (&json!("fd00::2"), &json!("fd00::1"), &json!("IPv6-ICMP"))
    );
}

#[test]
fn a_condemned_flow_was_dropped() {
    let condemned = Some(DropReason::TooBig.into());
    let found =
        json(&Eve::of(&plan("")), &FlowEvent { condemned, ..event(What::End(End::Idle), 17, "first") });
    assert_eq!((&found["flow"]["action"], &found["flow"]["verdict"]), (&json!("drop"), &json!("condemned")));
    assert_eq!(found["flow"]["drop_reason"], "too_big");
}

/// The clock of workers wraps every 49 days, and an event may be younger than our look at the clock.
#[test]
fn times_survive_a_wrapped_clock() {
    let wall = Duration::from_secs(1000);
    let before = Moment { clock: 500, wall }.wall(u32::MAX - 499);
    assert_eq!(before, UNIX_EPOCH + Duration::from_secs(999));
    assert_eq!(Moment { clock: 500, wall }.wall(700), UNIX_EPOCH + Duration::from_millis(1_000_200));
    // Forty days back.
    let back = 40 * 86_400_000u32;
    let wall = Duration::from_secs(50 * 86_400);
    assert_eq!(
        Moment { clock: 0, wall }.wall(0u32.wrapping_sub(back)),
        UNIX_EPOCH + Duration::from_secs(10 * 86_400)
    );
}

fn flows(ring: usize) -> (Flows, rtrb::Consumer<FlowEvent>, std::sync::Arc<crate::flow::FlowCounters>) {
    let plan = plan("");
    let shared = FlowsShared::of(&plan.flow, 1, Seed::fixed(3)).unwrap();
    let counters = std::sync::Arc::new(crate::flow::FlowCounters::default());
    let mut flows = Flows::new(WorkerId(0), &plan.flow, 1, &shared, None, counters.clone());
    let events = flows.listen(ring);
    (flows, events, counters)
}

fn open(flows: &mut Flows, n: u64) {
    let tuple = Tuple {
        source: "10.1.0.5".parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        source_port: n as u16,
        destination_port: 443,
        protocol: 17,
    };
    let key = Key::of_tuple(n, &tuple).unwrap();
    let hash = Seed::fixed(3).hash(&key);
    flows.open(&Newcomer { key, hash, from_high: false, tenant: 0, opening: Opening::Other }, false);
}

/// A worker does not wait for a listener: what finds no room is counted, and the flows are what they would be without one.
#[test]
fn a_full_ring_loses_events_and_says_so() {
    let (mut flows, mut events, counters) = flows(8);
    for n in 0..20 {
        open(&mut flows, n);
    }
    assert_eq!((flows.live(), counters.opened.get(), counters.events_lost.get()), (20, 20, 12));
    let ids: Vec<u64> = std::iter::from_fn(|| events.pop().ok()).map(|event| event.key.scope()).collect();
    assert_eq!(ids, (0..8).collect::<Vec<_>>(), "the first ones, in order");
    flows.end_all();
    assert_eq!((flows.live(), counters.ended_stopped.get(), counters.events_lost.get()), (0, 20, 24));
    let ends: Vec<What> = std::iter::from_fn(|| events.pop().ok()).map(|event| event.what).collect();
    assert_eq!(ends, [What::End(End::Stopped); 8]);
}

/// Begin and end of a flow have one id, and no other flow has it.
#[test]
fn a_flow_keeps_its_id() {
    let (mut flows, mut events, _) = flows(64);
    for round in 0..3 {
        for n in 0..5 {
            open(&mut flows, n + 10 * round);
        }
        flows.end_all();
    }
    let eve = Eve::of(&plan(""));
    let mut ids = std::collections::BTreeMap::new();
    for event in std::iter::from_fn(|| events.pop().ok()) {
        let record = json(&eve, &event);
        ids.entry(record["flow_id"].as_u64().unwrap())
            .or_insert(vec![])
            .push((event.key.scope(), event.what));
    }
    assert_eq!(ids.len(), 15);
    for events in ids.values() {
        assert_eq!(events[0].0, events[1].0);
        assert_eq!((events.len(), events[0].1, events[1].1), (2, What::Start, What::End(End::Stopped)));
    }
}
