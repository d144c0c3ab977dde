//! Who means harm: floods that should cost others nothing, packets that speak of other packets' flows, clocks that jump.

mod common;

use common::inner::{End, tcp, udp, v4, wrap, wrap_from};
use common::{Fate, Rig, plan};
use sluicegate::flow::FlowSnapshot;

const SECOND: u64 = 1_000_000_000;

/// Flows without stages.
fn tracker(flow: &str) -> Rig {
    Rig::new(&plan(&format!("{}\n[flow]\ntracking = true\n{flow}", common::TUNNEL)))
}

/// Port 443 inwards is allowed, nothing else.
fn firewall(flow: &str) -> Rig {
    let rule = "[[stage.rule]]\naction = \"allow\"\nprotocol = \"tcp|udp\"\ndestination_port = 443\n";
    let acl = format!("[[stage]]\nuse = \"acl\"\ndefault = \"deny\"\n{rule}");
    Rig::new(&plan(&format!("{}\n[flow]\n{flow}\n{acl}", common::TUNNEL)))
}

fn client() -> End {
    v4(10, 1, 0, 5, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 443)
}

fn stranger(n: u32) -> End {
    v4(10, 9, (n >> 8) as u8, n as u8, 40_000)
}

fn passes(rig: &mut Rig, frame: &[u8]) {
    let fate = rig.fate(frame);
    assert!(matches!(fate, Fate::Home(_)), "{fate:?}");
}

fn dies(rig: &mut Rig, frame: &[u8], reason: &str) {
    assert_eq!(rig.fate(frame), Fate::Dropped(reason.into()));
}

fn handshake(rig: &mut Rig, client: End, server: End) {
    passes(rig, &wrap(&tcp(client, server, "S", 100, 0, &[]), 7, 60_001));
    passes(rig, &wrap(&tcp(server, client, "SA", 500, 101, &[]), 7, 60_001));
    passes(rig, &wrap(&tcp(client, server, "A", 101, 501, &[]), 7, 60_001));
}

/// What a flood at a full table must leave alone: one flow that was there before, one that comes afterwards.
fn unharmed(rig: &mut Rig, flood: impl FnOnce(&mut Rig)) -> FlowSnapshot {
    handshake(rig, client(), server());
    flood(rig);
    let late = v4(10, 1, 0, 6, 40_000);
    handshake(rig, late, server());
    for end in [client(), late] {
        passes(rig, &wrap(&tcp(end, server(), "PA", 101, 501, b"x"), 7, 60_001));
    }
    let flows = rig.settled().flows;
    assert_eq!((flows.refused_full, flows.picked_up, flows.established), (0, 0, 2), "{flows:?}");
    flows
}

#[test]
fn resets_of_nothing_open_no_flows() {
    let mut rig = tracker("capacity = 1024");
    let flows = unharmed(&mut rig, |rig| {
        for n in 0..3000 {
            passes(rig, &wrap(&tcp(stranger(n), server(), "R", n, 0, &[]), n, 60_000));
        }
    });
    assert_eq!((flows.opened, flows.stateless), (2, 3000));
}

#[test]
fn a_port_scan_leaves_room() {
    let mut rig = tracker("capacity = 1024");
    unharmed(&mut rig, |rig| {
        for n in 0..3000 {
            passes(rig, &wrap(&tcp(stranger(n), server(), "S", 1, 0, &[]), n, 60_000));
            passes(rig, &wrap(&tcp(server(), stranger(n), "RA", 0, 2, &[]), n, 60_000));
        }
    });
}

#[test]
fn what_is_denied_makes_room_for_others() {
    let mut rig = firewall("capacity = 1024");
    unharmed(&mut rig, |rig| {
        for n in 0..3000 {
            let probe = wrap(&udp(stranger(n), v4(10, 2, 0, 9, 53), b"x"), n, 60_000);
            dies(rig, &probe, "acl.default_deny");
            rig.set_clock(u64::from(n + 1) * 2 * SECOND / 1000);
            if n >= 600 {
                let again = wrap(&udp(stranger(n - 600), v4(10, 2, 0, 9, 53), b"x"), n, 60_000);
                dies(rig, &again, "flow_condemned");
            }
        }
    });
}

#[test]
fn streams_that_nobody_answers_make_room_for_others() {
    let mut rig = tracker("capacity = 1024");
    let flows = unharmed(&mut rig, |rig| {
        for round in 0..3 {
            rig.set_clock(round * 2 * SECOND);
            for n in 0..1023 {
                passes(rig, &wrap(&udp(stranger(n), server(), b"x"), n, 60_000));
            }
        }
        // A stream that had to go comes back with its next packet.
        passes(rig, &wrap(&udp(stranger(5000), server(), b"x"), 1, 60_000));
        passes(rig, &wrap(&udp(stranger(0), server(), b"x"), 0, 60_000));
    });
    assert_eq!((flows.opened, flows.ended_evicted, flows.stateless), (1 + 1023 + 3, 3, 0));
}

#[test]
fn a_new_connection_on_old_ports_is_the_same_tenants() {
    let mut rig = tracker(
        "capacity = 1024\n[[tenant]]\nname = \"a\"\nendpoints = [1]\n[[tenant]]\nname = \"b\"\nendpoints = [2]\n",
    );
    let mut events = rig.worker.flows().unwrap().listen(64);
    for n in 0..2 {
        let seq = 1_000_000 * n;
        passes(&mut rig, &wrap_from(2, &udp(client(), server(), b"another tenant's"), 3, 60_000));
        for (from, to, flags, seq, ack) in [
            (client(), server(), "S", seq, 0),
            (server(), client(), "SA", seq + 500, seq + 1),
            (client(), server(), "A", seq + 1, seq + 501),
        ] {
            passes(&mut rig, &wrap_from(1, &tcp(from, to, flags, seq, ack, &[]), 7 + n, 60_001));
        }
    }
    assert_eq!(rig.settled().flows.incarnations, 1);
    let tenants: Vec<u16> = std::iter::from_fn(|| events.pop().ok()).map(|event| event.tenant).collect();
    assert_eq!(tenants, [2, 1, 1, 1], "one begins, ends, and another begins");
}

#[test]
fn a_later_fragment_says_nothing_of_the_envelope() {
    let mut rig = tracker("");
    let ends = (client(), server());
    passes(&mut rig, &wrap(&udp(ends.0, ends.1, &[1; 8]), 7, 60_000));
    passes(&mut rig, &wrap(&udp(ends.1, ends.0, &[1; 8]), 7, 60_000));
    let [first, second] = pieces(&udp(ends.0, ends.1, &[1; 64]));
    passes(&mut rig, &wrap(&first, 7, 60_000));
    passes(&mut rig, &wrap(&second, 99, 61_000));
    let flows = rig.settled().flows;
    assert_eq!((flows.later_fragments, flows.refreshed), (1, 0));
}

/// A UDP packet in two fragments.
fn pieces(whole: &[u8]) -> [Vec<u8>; 2] {
    [(20, 44, 0x2000), (44, whole.len(), 3)].map(|(from, to, word)| {
        let mut piece = whole[..20].to_vec();
        piece.extend(&whole[from..to]);
        let len = piece.len() as u16;
        piece[2..4].copy_from_slice(&len.to_be_bytes());
        piece[4..6].copy_from_slice(&77u16.to_be_bytes());
        piece[6..8].copy_from_slice(&(word as u16).to_be_bytes());
        let sum = etherparse::Ipv4Header::from_slice(&piece).unwrap().0.calc_header_checksum();
        piece[10..12].copy_from_slice(&sum.to_be_bytes());
        piece
    })
}

#[test]
fn milliseconds_that_wrap_cost_no_flow() {
    let mut rig = tracker("");
    let wrap_at = (1u64 << 32) * 1_000_000;
    rig.set_clock(wrap_at - 5 * SECOND);
    rig.worker.poll();
    handshake(&mut rig, client(), server());
    passes(&mut rig, &wrap(&udp(client(), server(), b"x"), 8, 60_000));
    for second in 0..110 {
        rig.set_clock(wrap_at + second * SECOND);
        rig.worker.poll();
        assert_eq!(rig.settled().flows.ended_idle, 0, "{second}");
    }
    for second in 110..370 {
        rig.set_clock(wrap_at + second * SECOND);
        rig.worker.poll();
    }
    assert_eq!(rig.settled().flows.ended_idle, 2);
}

#[test]
fn a_clock_that_goes_back_ends_nothing() {
    let mut rig = tracker("");
    rig.set_clock(10 * SECOND);
    handshake(&mut rig, client(), server());
    rig.set_clock(10 * SECOND - 2_000_000);
    for _ in 0..10 {
        rig.worker.poll();
    }
    assert_eq!(rig.settled().flows.ended_idle, 0);
    passes(&mut rig, &wrap(&tcp(client(), server(), "PA", 101, 501, b"x"), 7, 60_001));
}

#[test]
fn endpoints_that_nobody_claims_have_no_other_way_in() {
    let tenants = "[tenants]\nunknown_endpoint = \"drop\"\n[[tenant]]\nname = \"a\"\nendpoints = [1]\n";
    let mut rig = tracker(&format!("fragments = {{ orphans = \"forward\", hold = 0 }}\n{tenants}"));
    let [first, second] = pieces(&udp(client(), server(), &[1; 64]));
    for inner in [&second, &first, &second, &tcp(client(), server(), "R", 1, 0, &[])] {
        dies(&mut rig, &wrap_from(2, inner, 7, 60_000), "unknown_endpoint");
    }
}

#[test]
fn a_packet_without_a_flow_is_not_taken_for_one_of_the_flow_before_it() {
    let mut rig = firewall("");
    for _ in 0..3 {
        handshake(&mut rig, client(), server());
        passes(&mut rig, &wrap(&tcp(client(), server(), "PA", 101, 501, b"x"), 7, 60_001));
        // The rules allow no ICMP, and this quotes nothing that we know.
        let about = udp(stranger(1), stranger(2), &[7; 8]);
        dies(&mut rig, &wrap(&unreachable(stranger(2), stranger(1), &about), 9, 60_003), "acl.default_deny");
        passes(&mut rig, &wrap(&tcp(client(), server(), "PA", 101, 501, b"x"), 7, 60_001));
    }
    let flows = rig.settled().flows;
    assert_eq!((flows.opened, flows.condemned, flows.stateless), (1, 0, 3));
}

/// ICMP port unreachable about a packet.
fn unreachable(from: End, to: End, about: &[u8]) -> Vec<u8> {
    let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) = (from.0, to.0) else { panic!("IPv4") };
    let mut out = Vec::new();
    etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut out, &about[..28])
        .unwrap();
    out
}

#[test]
fn what_is_said_of_a_flow_does_not_reach_the_next_in_its_place() {
    let mut rig = firewall("[[tenant]]\nname = \"a\"\nendpoints = [1]\nlimits = { flows = 8 }\n");
    // One batch: probes push each other out, and the last one makes room for somebody honest.
    for n in 0..20 {
        let probe = udp(stranger(n), v4(10, 2, 0, 9, 53), b"x");
        rig.wire.send(wrap_from(1, &probe, n, 60_000));
    }
    for n in 0..8 {
        rig.wire.send(wrap_from(1, &udp(v4(10, 1, 0, n, 40_000), server(), b"x"), 7, 60_001));
    }
    rig.worker.poll();
    let now = rig.settled();
    assert_eq!((now.flows.opened, now.flows.ended_evicted, now.sent), (28, 20, 8));
    while rig.wire.receive().is_some() {}
    for n in 0..8 {
        passes(&mut rig, &wrap_from(1, &udp(v4(10, 1, 0, n, 40_000), server(), b"x"), 7, 60_001));
    }
}

#[test]
fn fragments_that_find_no_place_to_wait_follow_the_policy() {
    for (orphans, sent) in [("forward", 2), ("drop", 0)] {
        let mut rig =
            tracker(&format!("fragments = {{ orphans = \"{orphans}\", hold = 1, hold_time = \"1s\" }}"));
        for n in 0..3 {
            let [_, second] = pieces(&udp(stranger(n), server(), &[1; 64]));
            rig.wire.send(wrap(&second, 7, 60_000));
        }
        rig.worker.poll();
        let now = rig.worker.counters().snapshot();
        assert_eq!((now.ledger().held, now.sent, now.ledger().dropped), (1, sent, 2 - sent), "{orphans}");
        assert_eq!((now.flows.held_fragments, now.flows.orphan_fragments), (1, 2));
    }
}

#[test]
fn nothing_goes_home_under_an_envelope_that_the_load_balancer_has_forgotten() {
    for (idle, cookie) in [(29, 7), (32, 9)] {
        let mut rig = tracker("other_idle = \"30s\"\nmargin = \"5s\"");
        for (from, to) in [(client(), server()), (server(), client())] {
            passes(&mut rig, &wrap(&udp(from, to, b"x"), 7, 60_000));
        }
        rig.set_clock(idle * SECOND);
        let mut big = udp(client(), server(), &[0; 8600]);
        big[6] = 0x40; // DF
        let sum = etherparse::Ipv4Header::from_slice(&big).unwrap().0.calc_header_checksum();
        big[10..12].copy_from_slice(&sum.to_be_bytes());
        dies(&mut rig, &wrap(&big, 9, 61_000), "too_big");
        assert_eq!(rig.settled().flows.opened, 1, "still the same flow to us");
        assert_eq!(rig.answers[0][78..82], u32::to_be_bytes(cookie), "after {idle} s");
    }
}
