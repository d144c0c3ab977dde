use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Options, Overrides, load_text};
use crate::flow::{End, Flows, FlowsShared, Key, Newcomer, Opening, Seed, Tuple, What};
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
        spoken: Default::default(),
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
    Moment { clock: 361_000_000_000, wall: Duration::from_millis(1_491_603_877_000) }
}

fn json(eve: &Eve, event: &FlowEvent) -> Value {
    serde_json::to_value(eve.flow(event, moment())).unwrap()
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
            "state": "closed", "reason": "timeout", "ended": "closed", "verdict": "settled",
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
        let word = crate::flow::state_name(n);
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
    let before = Moment { clock: 500_000_000, wall }.wall(u32::MAX - 499);
    assert_eq!(before, UNIX_EPOCH + Duration::from_secs(999));
    assert_eq!(Moment { clock: 500_000_000, wall }.wall(700), UNIX_EPOCH + Duration::from_millis(1_000_200));
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
    let mut flows = Flows::new(WorkerId(0), &plan.flow, &shared, None, counters.clone());
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
    flows.end_all(Duration::ZERO);
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
        flows.end_all(Duration::ZERO);
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

/// Events that are no flows.
mod others {
    use super::*;
    use crate::event::{About, Alert, Anomaly, AnomalyKind, Body, Drop, Event, Signature, TcpHeader};
    use crate::packet::{FlowFlags, FlowSlot, InnerFlags, Meta};

    fn eve() -> Eve {
        let mut eve = Eve::of(&plan(""));
        let signatures = vec![Signature {
            signature: "ssh from outside".into(),
            signature_id: 7,
            rev: 2,
            category: "Policy".into(),
            severity: 1,
        }];
        eve.stages.push(("firewall".into(), signatures));
        eve
    }

    /// An answer from 10.2.0.9:443 to 10.1.0.5:40000, in the flow of entry 5.
    fn meta() -> Meta {
        Meta {
            endpoint: 0x1234_5678_9abc_def0,
            protocol: 6,
            flags: InnerFlags(InnerFlags::PORTS),
            source_port: 443,
            destination_port: 40_000,
            tenant: 1,
            flow: FlowSlot::new(5),
            incarnation: 4,
            flow_flags: FlowFlags(FlowFlags::REPLY),
            ..Meta::default()
        }
    }

    fn inner() -> [u8; 20] {
        let mut inner = [0; 20];
        inner[12..].copy_from_slice(&[10, 2, 0, 9, 10, 1, 0, 5]);
        inner
    }

    fn told(about: About, body: impl Into<Body>) -> Value {
        // Half a second ago by the worker's clock.
        let event = Event { at: 360_500_000_000, about, body: body.into() };
        serde_json::to_value(eve().record(&event, moment())).unwrap()
    }

    fn about() -> About {
        About::packet(&meta(), &inner(), WorkerId(3)).by(0)
    }

    /// Ends are the originator's first although the packet is an answer; the number of the flow is that of its flow record.
    #[test]
    fn an_alert_is_as_suricata_writes_it() {
        let found = told(about(), Alert { rule: 0, blocked: true });
        let expected = json!({
            "timestamp": "2017-04-07T22:24:36.500000+0000", "flow_id": (3u64 << 45) + (5 << 19) + 2, "event_type": "alert",
            "src_ip": "10.1.0.5", "src_port": 40000, "dest_ip": "10.2.0.9", "dest_port": 443, "proto": "TCP",
            "direction": "to_client",
            "alert": {
                "action": "blocked", "gid": 1, "signature_id": 7, "rev": 2, "signature": "ssh from outside",
                "category": "Policy", "severity": 1,
            },
            "tenant": "payments", "endpoint": "vpce-0123456789abcdef0", "stage": "firewall", "worker": 3,
        });
        assert_eq!(found, expected);
        let unknown = told(about(), Alert { rule: 9, blocked: false });
        assert_eq!(
            (&unknown["alert"]["action"], &unknown["alert"]["signature_id"]),
            (&json!("allowed"), &json!(10))
        );
    }

    #[test]
    fn a_drop_shows_the_headers() {
        let reason = DropReason::TcpInvalid.into();
        let tcp = TcpHeader { sequence: 1, ack: 2, window: 3, urgent: 4, flags: 0x14 };
        let drop = Drop { reason, skipped: 5, len: 60, tos: 8, ttl: 64, ip_id: Some(9), tcp: Some(tcp) };
        let found = told(about(), drop);
        let expected = json!({
            "len": 60, "tos": 8, "ttl": 64, "ipid": 9, "tcpseq": 1, "tcpack": 2, "tcpwin": 3, "fin": false,
            "syn": false, "rst": true, "psh": false, "ack": true, "urg": false, "tcpurgp": 4,
            "reason": "tcp_invalid", "skipped": 5,
        });
        assert_eq!(found["drop"], expected);
    }

    #[test]
    fn an_anomaly_names_its_layer() {
        let anomaly = Anomaly {
            kind: AnomalyKind::Stream,
            event: "tcp_invalid",
            reason: Some(DropReason::TcpInvalid.into()),
            skipped: 0,
        };
        let found = told(about(), anomaly);
        assert_eq!(found["anomaly"], json!({ "type": "stream", "event": "tcp_invalid", "dropped": true }));
        let passed = Anomaly { kind: AnomalyKind::Applayer, event: "loop", reason: None, skipped: 3 };
        let found = told(about(), passed);
        let expected = json!({ "type": "applayer", "event": "loop", "dropped": false, "skipped": 3 });
        assert_eq!(found["anomaly"], expected);
    }

    /// What a packet does not have is not in its record.
    #[test]
    fn packets_show_what_they_have() {
        let alert = Alert { rule: 0, blocked: false };
        // Type and code of ICMP stay as they are, whoever opened the flow.
        let icmp = Meta {
            protocol: 1,
            flags: InnerFlags(InnerFlags::ICMP),
            source_port: 0x0301,
            destination_port: 0,
            ..meta()
        };
        let found = told(About::packet(&icmp, &inner(), WorkerId(3)), alert);
        assert_eq!((&found["icmp_type"], &found["icmp_code"]), (&json!(3), &json!(1)));
        assert_eq!((found.get("src_port"), &found["src_ip"]), (None, &json!("10.1.0.5")));
        assert_eq!(found.get("stage"), None);
        // An error speaks of a flow and is its sender's.
        let error = Meta { flow_flags: FlowFlags(FlowFlags::REPLY | FlowFlags::RELATED), ..icmp };
        let found = told(About::packet(&error, &inner(), WorkerId(3)), alert);
        assert_eq!((&found["src_ip"], &found["direction"]), (&json!("10.2.0.9"), &json!("to_client")));
        // Without a flow: as it travelled.
        let alone = Meta { flow: FlowSlot::NONE, flow_flags: FlowFlags::default(), ..meta() };
        let found = told(About::packet(&alone, &inner(), WorkerId(3)), alert);
        assert_eq!(
            (found.get("flow_id"), found.get("direction"), &found["src_port"]),
            (None, None, &json!(443))
        );
        let mut v6 = [0; 40];
        v6[8] = 0xfd;
        v6[24..].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let meta = Meta { flags: InnerFlags(InnerFlags::PORTS | InnerFlags::IPV6), ..alone };
        let found = told(About::packet(&meta, &v6, WorkerId(3)), alert);
        assert_eq!((&found["src_ip"], &found["dest_ip"]), (&json!("fd00::"), &json!("fd00::1")));
    }

    /// Of a frame that decap refused, the outer header is all there is.
    #[test]
    fn a_broken_frame_shows_its_outer_header() {
        let anomaly =
            Anomaly { kind: AnomalyKind::Decode, event: "geneve_version", reason: None, skipped: 0 };
        let mut frame = [0; 42];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 17;
        frame[26..38].copy_from_slice(&[10, 0, 8, 1, 10, 0, 8, 2, 0xea, 0x60, 0x17, 0xc1]);
        let found = told(About::frame(&frame, WorkerId(0)), anomaly);
        let outer =
            json!({ "src_ip": "10.0.8.1", "src_port": 60000, "dest_ip": "10.0.8.2", "dest_port": 6081 });
        assert_eq!(found["outer"], outer);
        for key in ["src_ip", "proto", "tenant", "endpoint", "flow_id", "direction"] {
            assert_eq!(found.get(key), None, "{key}");
        }
        // However short it is.
        for len in 0..frame.len() {
            let _ = told(About::frame(&frame[..len], WorkerId(0)), anomaly);
        }
        assert_eq!(told(About::frame(&[], WorkerId(0)), anomaly).get("outer"), None);
    }
}
