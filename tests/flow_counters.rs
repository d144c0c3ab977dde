//! Every counter of flows can move: here, or in a test that is named here.

mod common;

use std::collections::BTreeSet;

use sluicegate::flow::FlowSnapshot;

use common::inner::{End, tcp, udp, v4, wrap};
use common::{Rig, TUNNEL, plan};

const SECOND: u64 = 1_000_000_000;

/// Counters that several workers, or races and full tables that no capture makes, are needed for; and the tests that move them.
const ELSEWHERE: [(&str, &str, &str); 16] = [
    ("directory_hits", "both_directions_meet_at_one_owner_and_nothing_is_lost", include_str!("handoff.rs")),
    ("handed_out", "both_directions_meet_at_one_owner_and_nothing_is_lost", include_str!("handoff.rs")),
    ("handed_in", "both_directions_meet_at_one_owner_and_nothing_is_lost", include_str!("handoff.rs")),
    ("misaligned", "both_directions_meet_at_one_owner_and_nothing_is_lost", include_str!("handoff.rs")),
    ("ended_taken_over", "flows_of_a_worker_that_hangs_are_taken_over", include_str!("handoff.rs")),
    ("first_fragments", "fragments_and_errors_follow_their_flow_to_its_owner", include_str!("handoff.rs")),
    ("later_fragments", "fragments_and_errors_follow_their_flow_to_its_owner", include_str!("handoff.rs")),
    ("held_fragments", "later_fragments_that_come_first_wait_for_theirs", include_str!("handoff.rs")),
    ("ended_flushed", "a_flush_is_bounded_work", include_str!("../src/flow/view/tests.rs")),
    ("ended_stopped", "a_full_ring_loses_events_and_says_so", include_str!("../src/event/eve/tests.rs")),
    ("events_lost", "a_full_ring_loses_events_and_says_so", include_str!("../src/event/eve/tests.rs")),
    ("astray", "a_packet_that_finds_a_third_owner_is_not_lost", include_str!("handoff.rs")),
    ("ended_early", "connections_that_are_over_make_room_for_others", include_str!("flow.rs")),
    ("fragments_replaced", "a_tenants_flood_of_fragments_costs_another_none", include_str!("flow.rs")),
    (
        "unclaimed",
        "a_crowded_directory_leaves_flows_unclaimed",
        include_str!("../src/flow/counters/tests.rs"),
    ),
    ("refused_crowded", "two_full_buckets_refuse_a_flow", include_str!("../src/flow/counters/tests.rs")),
];

fn rig(flow: &str) -> Rig {
    Rig::new(&plan(&format!("{TUNNEL}\n[flow]\ntracking = true\n{flow}")))
}

fn client(n: u8) -> End {
    v4(10, 1, 0, n, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 443)
}

fn send(rig: &mut Rig, inner: &[u8], cookie: u32) {
    rig.wire.send(wrap(inner, cookie, 60_001));
    rig.worker.poll();
    while rig.wire.receive().is_some() {}
}

fn handshake(rig: &mut Rig, client: End, cookie: u32) {
    send(rig, &tcp(client, server(), "S", 100, 0, &[]), cookie);
    send(rig, &tcp(server(), client, "SA", 500, 101, &[]), cookie);
    send(rig, &tcp(client, server(), "A", 101, 501, &[]), cookie);
}

/// Connections that live and end in every way, and what comes beside them.
fn lives() -> FlowSnapshot {
    let mut rig = rig("window_check = \"drop\"");
    rig.set_clock(SECOND);
    // One that both sides finish.
    handshake(&mut rig, client(1), 1);
    send(&mut rig, &tcp(client(1), server(), "FA", 101, 501, &[]), 1);
    send(&mut rig, &tcp(server(), client(1), "FA", 501, 102, &[]), 1);
    send(&mut rig, &tcp(client(1), server(), "A", 102, 502, &[]), 1);
    // One that is reset, after a segment and a RST that nobody believes.
    handshake(&mut rig, client(2), 2);
    send(&mut rig, &tcp(client(2), server(), "PA", 0x7000_0000, 501, b"x"), 2);
    send(&mut rig, &tcp(client(2), server(), "R", 0x7000_0000, 0, &[]), 2);
    send(&mut rig, &tcp(client(2), server(), "R", 101, 0, &[]), 2);
    // One whose cookie changes and whose tuple is used again; and one from before.
    handshake(&mut rig, client(3), 3);
    send(&mut rig, &tcp(client(3), server(), "PA", 101, 501, b"x"), 4);
    send(&mut rig, &tcp(client(3), server(), "S", 70_000, 0, &[]), 5);
    send(&mut rig, &tcp(server(), client(3), "SA", 900, 70_001, &[]), 5);
    send(&mut rig, &tcp(client(4), server(), "PA", 7, 9, b"x"), 6);
    // ICMP errors about a flow, and about none.
    for about in [udp(client(5), server(), &[0; 8]), udp(client(6), server(), &[0; 8])] {
        if about[15] == 5 {
            send(&mut rig, &about, 7);
        }
        let mut error = Vec::new();
        let ip = etherparse::PacketBuilder::ipv4([10, 2, 0, 9], [10, 1, 0, about[15]], 64);
        ip.icmpv4_raw(3, 3, [0; 4]).write(&mut error, &about[..28]).expect("a packet");
        send(&mut rig, &error, 8);
    }
    for minute in 1..20 {
        rig.set_clock(minute * 60 * SECOND);
        rig.worker.poll();
    }
    rig.settled().flows
}

/// A fragment whose first never comes.
fn orphan() -> FlowSnapshot {
    let mut rig = rig("fragments = { hold_time = \"100ms\" }");
    let mut later = udp(client(1), server(), &[1; 64]);
    later[6..8].copy_from_slice(&8u16.to_be_bytes());
    let sum = etherparse::Ipv4Header::from_slice(&later).expect("IPv4").0.calc_header_checksum();
    later[10..12].copy_from_slice(&sum.to_be_bytes());
    send(&mut rig, &later, 1);
    rig.set_clock(SECOND);
    rig.worker.poll();
    rig.settled().flows
}

/// A connection from before, where such are refused.
fn refused() -> FlowSnapshot {
    let mut rig = rig("pickup = \"drop\"");
    send(&mut rig, &tcp(client(1), server(), "PA", 7, 9, b"x"), 1);
    rig.settled().flows
}

/// A table that is full of established flows, after a flood of half-open ones; packets go on without a flow.
fn full() -> FlowSnapshot {
    let mut rig = rig("capacity = 1024");
    for n in 0..1100u16 {
        let from = v4(10, 9, (n >> 8) as u8, n as u8, 1);
        send(&mut rig, &tcp(from, server(), "S", 1, 0, &[]), 1);
    }
    for n in 0..1100u16 {
        let from = v4(10, 8, (n >> 8) as u8, n as u8, 1);
        handshake(&mut rig, from, 1);
    }
    rig.settled().flows
}

/// A tenant that opens more than it may, and flows that a stage denies.
fn limited() -> FlowSnapshot {
    let mut rig = Rig::new(&plan(&format!(
        "{TUNNEL}\n[[tenant]]\nname = \"default\"\nlimits = {{ new_flows_per_s = 1 }}\n[[stage]]\nuse = \"acl\"\ndefault = \"deny\"\n"
    )));
    for n in 0..3 {
        for _ in 0..2 {
            send(&mut rig, &udp(client(n), server(), &[]), 1);
        }
    }
    rig.settled().flows
}

#[test]
fn every_counter_of_flows_can_move() {
    let moved = [lives(), orphan(), refused(), full(), limited()]
        .into_iter()
        .fold(FlowSnapshot::default(), FlowSnapshot::plus);
    let mut names: BTreeSet<&str> = moved.values().filter(|(_, n)| *n > 0).map(|(name, _)| name).collect();
    for (name, test, source) in ELSEWHERE {
        let body = source.split_once(&format!("#[test]\nfn {test}()")).map(|(_, rest)| rest);
        let body = body.unwrap_or_else(|| panic!("{name}: there is no test {test}"));
        let body = body.split("\n}\n").next().unwrap_or_default();
        assert!(body.contains(name), "{name}: {test} does not look at it");
        names.insert(name);
    }
    let all: BTreeSet<&str> = FlowSnapshot::HELP.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = all.difference(&names).collect();
    assert!(missing.is_empty(), "nobody moves {missing:?}: {moved:#?}");
}
