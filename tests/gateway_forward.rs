//! The gateway that forwards, over soft ports: what targets get, what comes back, and everything that is refused.

mod common;

use std::time::Duration;

use common::gateway::{
    Gateway, LAN, PLAIN, TARGETS, TRUNK, WAN, Went, alone, echoed, framed, identity, target,
};
use common::inner::{pieces, tcp, udp, unreachable, v4, v6};
use sluicegate::gateway::{State, TargetId};
use sluicegate::traffic::{Envelope, Identity};

const CLIENT: common::inner::End = (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1)), 40_000);
const SERVER: common::inner::End = (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 2)), 443);

/// A packet of a leg goes to a target as AWS would send it, byte for byte what an encoder of its own makes; what comes back leaves by the other leg as it
/// came in. The same in the other direction, under the same cookie and port.
#[test]
fn a_packet_goes_to_a_target_and_leaves_by_the_other_leg() {
    let mut gateway = Gateway::new(&alone(""));
    let syn = tcp(CLIENT, SERVER, "S", 1, 0, b"");
    let there = framed(1, 2, None, &syn);
    let sent = gateway.send(WAN, &there).by(TARGETS);
    let (cookie, port) = identity(&sent);
    assert!(port >= 60_000);
    let expected = Envelope::default().wrap_as(&syn, Identity { port, cookie }).expect("it fits");
    assert_eq!(sent, expected);
    assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(LAN), there);

    let answer = tcp(SERVER, CLIENT, "SA", 9, 2, b"");
    let back = framed(2, 1, None, &answer);
    let sent = gateway.send(LAN, &back).by(TARGETS);
    assert_eq!(identity(&sent), (cookie, port), "one flow");
    assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(WAN), back);
    let flows = gateway.settled().flows;
    assert_eq!((flows.opened, flows.live()), (1, 1));
}

#[test]
fn endpoints_overlap_and_vlans_change() {
    let mut gateway = Gateway::new(&alone(""));
    let packet = udp(CLIENT, SERVER, b"question");
    let one = gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);
    // Priority 5 in VLAN 10.
    let two = gateway.send(TRUNK, &framed(1, 2, Some(0xa000 | 10), &packet)).by(TARGETS);
    assert_ne!(identity(&one).0, identity(&two).0, "two flows");
    assert_eq!(two[54..62], 4711u64.to_be_bytes());
    // One target for both, and one source port: the choice does not ask for the endpoint.
    assert_eq!(identity(&one).1, identity(&two).1);
    assert_eq!(gateway.send(TARGETS, &echoed(&two)).by(TRUNK), framed(1, 2, Some(0xa000 | 20), &packet));
    assert_eq!(gateway.send(TARGETS, &echoed(&one)).by(LAN), framed(1, 2, None, &packet));
    // The other direction comes in by the other VLAN.
    let answer = udp(SERVER, CLIENT, b"answer");
    let back = gateway.send(TRUNK, &framed(2, 1, Some(20), &answer)).by(TARGETS);
    assert_eq!(identity(&back), identity(&two));
    assert_eq!(gateway.send(TARGETS, &echoed(&back)).by(TRUNK), framed(2, 1, Some(10), &answer));
    // With the cookie of the other endpoint's flow it is nobody's.
    let mut stolen = echoed(&back);
    stolen[78..82].copy_from_slice(&identity(&one).0.to_be_bytes());
    stolen[40..42].fill(0);
    gateway.send(TARGETS, &stolen).died_of("gateway.wrong_cookie");
}

/// ARP, neighbour discovery and what is not IP pass by as they are, both ways.
#[test]
fn what_is_not_ip_passes_by() {
    let mut gateway = Gateway::new(PLAIN);
    let frame = |kind: u16, tag: Option<u16>| {
        let mut frame = framed(1, 2, tag, &[0x45; 46]);
        let at = if tag.is_some() { 16 } else { 12 };
        frame[at..at + 2].copy_from_slice(&kind.to_be_bytes());
        frame
    };
    for kind in [0x0806, 0x88cc, 0x0026, 0x88f7] {
        assert_eq!(gateway.send(WAN, &frame(kind, None)).by(LAN), frame(kind, None));
        assert_eq!(gateway.send(LAN, &frame(kind, None)).by(WAN), frame(kind, None));
        assert_eq!(gateway.send(TRUNK, &frame(kind, Some(20))).by(TRUNK), frame(kind, Some(10)));
    }
    let mut solicitation = Vec::new();
    let builder = etherparse::PacketBuilder::ipv6([0xfe; 16], [0xff; 16], 255).icmpv6_raw(135, 0, [0; 4]);
    builder.write(&mut solicitation, &[7; 24]).expect("a packet");
    assert_eq!(
        gateway.send(WAN, &framed(1, 2, None, &solicitation)).by(LAN),
        framed(1, 2, None, &solicitation)
    );
    // One that was forwarded is not about this link (RFC 4861 section 7.1.1).
    solicitation[7] = 254;
    gateway.send(WAN, &framed(1, 2, None, &solicitation)).by(TARGETS);

    let strict = PLAIN.replace("[gateway]", "[gateway]\nnon_ip = \"drop\"");
    let mut gateway = Gateway::new(&strict);
    gateway.send(WAN, &frame(0x0806, None)).by(LAN);
    gateway.send(WAN, &frame(0x88cc, None)).died_of("gateway.non_ip");
}

#[test]
fn each_refusal_of_a_leg_is_counted() {
    let mut gateway = Gateway::new(&alone(""));
    let packet = udp(CLIENT, SERVER, b"question");
    gateway.send(TRUNK, &framed(1, 2, None, &packet)).died_of("gateway.strange_leg");
    gateway.send(TRUNK, &framed(1, 2, Some(11), &packet)).died_of("gateway.strange_leg");
    gateway.send(WAN, &framed(1, 2, Some(10), &packet)).died_of("gateway.strange_leg");
    let mut stacked = framed(1, 2, Some(10), &packet);
    stacked.splice(16..16, [0x81, 0x00, 0, 7]);
    gateway.send(TRUNK, &stacked).died_of("gateway.stacked_tags");
    stacked[16..18].copy_from_slice(&[0x88, 0xa8]);
    gateway.send(TRUNK, &stacked).died_of("gateway.stacked_tags");
    gateway.send(WAN, &[0; 13]).died_of("outer_truncated");
    gateway.send(WAN, &framed(1, 2, None, &[0x45; 20])).died_of("inner_length");
    let mut version = framed(1, 2, None, &packet);
    version[14] = 0x65;
    gateway.send(WAN, &version).died_of("inner_version");
    let error = unreachable(SERVER, CLIENT, &packet);
    gateway.send(LAN, &framed(2, 1, None, &error)).died_of("gateway.unrelated");
    gateway
        .send(WAN, &framed(1, 2, None, &tcp(CLIENT, SERVER, "A", 1, 1, b"data")))
        .died_of("gateway.unknown_tcp");
    gateway.send(WAN, &framed(1, 2, None, &udp(CLIENT, SERVER, &[0; 8473]))).died_of("gateway.too_big");
    // The largest.
    let largest = framed(1, 2, None, &udp(CLIENT, SERVER, &[0; 8472]));
    let sent = gateway.send(WAN, &largest).by(TARGETS);
    assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(LAN), largest);
    assert_eq!(gateway.settled().flows.opened, 1, "nothing that was refused opened a flow");

    let unresolved = alone("").replace("mac = \"02:00:00:00:01:02\"\n", "");
    let mut gateway = Gateway::new(&unresolved);
    gateway.send(WAN, &framed(1, 2, None, &packet)).died_of("gateway.unresolved");
    assert!(gateway.balance.fails_open());
    assert!(gateway.balance.set_mac(TargetId(0), Some([2, 0, 0, 0, 1, 2])));
    gateway.balance.set_health(TargetId(0), State::Healthy);
    gateway.tell();
    gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);

    gateway.balance.deregister(TargetId(0), Duration::ZERO).expect("no table is needed");
    gateway.tell();
    let other = udp(CLIENT, v4(10, 2, 0, 3, 53), b"question");
    gateway.send(WAN, &framed(1, 2, None, &other)).died_of("gateway.no_target");
    gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);
}

#[test]
fn each_refusal_of_what_comes_back_is_counted() {
    let mut gateway = Gateway::new(PLAIN);
    let packet = udp(CLIENT, SERVER, b"question");
    let sent = gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);
    let good = echoed(&sent);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        // A UDP checksum of zero is none; the header's is made anew.
        frame[40..42].fill(0);
        frame[24..26].fill(0);
        let sum =
            etherparse::Ipv4Header::from_slice(&frame[14..]).expect("a header").0.calc_header_checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let other = if target(&sent) == 102 { 103 } else { 102 };
    for (what, frame, reason) in [
        ("a stranger", changed(&|f| f[29] = 9), "gateway.strange_target"),
        ("another target", changed(&|f| f[29] = other), "gateway.other_target"),
        ("another cookie", changed(&|f| f[81] ^= 1), "gateway.wrong_cookie"),
        ("another endpoint", changed(&|f| f[61] ^= 1), "gateway.strange_endpoint"),
        (
            "our other endpoint",
            changed(&|f| f[54..62].copy_from_slice(&4711u64.to_be_bytes())),
            "gateway.no_flow",
        ),
        ("another flow", changed(&|f| f[82 + 21] ^= 1), "gateway.no_flow"),
        ("no option", changed(&|f| f[64] = 9), "option_missing"),
        ("a fragment", changed(&|f| f[20] = 0x20), "outer_fragment"),
    ] {
        assert_eq!(gateway.send(TARGETS, &frame), Went::Dropped(reason.into()), "{what}");
    }
    // To others, or no tunnel traffic: the host stack's.
    assert_eq!(gateway.send(TARGETS, &changed(&|f| f[33] = 9)), Went::Punted);
    assert_eq!(gateway.send(TARGETS, &changed(&|f| f[37] ^= 1)), Went::Punted);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 1, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    assert_eq!(gateway.send(TARGETS, &arp), Went::Punted);
    let (port, len) = std::iter::from_fn(|| {
        let next = gateway.end.punted.peek();
        next.inspect(|(_, len)| {
            let mut frame = vec![0; *len];
            assert!(gateway.end.punted.take(&mut frame));
        })
    })
    .last()
    .expect("a frame");
    assert_eq!((usize::from(port), len), (TARGETS, 60));
    // What the host stack has to say goes out there.
    assert!(gateway.end.replies.write(TARGETS as u16, &arp));
    gateway.worker.poll();
    assert_eq!(gateway.wires[TARGETS].receive(), Some(arp));
    // And after all that the flow is as it was.
    assert_eq!(gateway.send(TARGETS, &good).by(LAN), framed(1, 2, None, &packet));
}

/// A packet that an appliance makes itself goes against the flow before anything came that way: the header is turned around.
#[test]
fn an_appliance_may_answer_for_the_far_end() {
    let mut gateway = Gateway::new(&alone(""));
    let syn = tcp(CLIENT, SERVER, "S", 1, 0, b"");
    let sent = gateway.send(WAN, &framed(1, 2, None, &syn)).by(TARGETS);
    let (cookie, port) = identity(&sent);
    let reset = tcp(SERVER, CLIENT, "RA", 0, 2, b"");
    let answer = echoed(&Envelope::default().wrap_as(&reset, Identity { port, cookie }).expect("it fits"));
    assert_eq!(gateway.send(TARGETS, &answer).by(WAN), framed(2, 1, None, &reset));
    // An error about the flow, too.
    let error = unreachable(SERVER, CLIENT, &syn);
    let answer = echoed(&Envelope::default().wrap_as(&error, Identity { port, cookie }).expect("it fits"));
    assert_eq!(gateway.send(TARGETS, &answer).by(WAN), framed(2, 1, None, &error));
}

#[test]
fn errors_and_fragments_find_their_flows() {
    let mut gateway = Gateway::new(PLAIN);
    let packet = udp(CLIENT, SERVER, &[7; 64]);
    let sent = gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);
    let error = unreachable(v4(10, 9, 9, 9, 0), CLIENT, &packet);
    let about = gateway.send(LAN, &framed(9, 1, None, &error)).by(TARGETS);
    assert_eq!((identity(&about), target(&about)), (identity(&sent), target(&sent)));
    // The sender of the error is no end of the flow, and it leaves as it came in.
    assert_eq!(gateway.send(TARGETS, &echoed(&about)).by(WAN), framed(9, 1, None, &error));
    // Fragments belong together, and go where their endpoint leads.
    let ids: Vec<_> = pieces(&packet, 77)
        .iter()
        .map(|piece| {
            let sent = gateway.send(WAN, &framed(1, 2, None, piece)).by(TARGETS);
            assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(LAN), framed(1, 2, None, piece));
            (identity(&sent), target(&sent))
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn flows_end_when_they_are_idle() {
    let mut gateway = Gateway::new(&alone("tcp_idle = \"60s\"\nother_idle = \"10s\""));
    let syn = framed(1, 2, None, &tcp(CLIENT, SERVER, "S", 1, 0, b""));
    let data = framed(1, 2, None, &tcp(CLIENT, SERVER, "A", 2, 2, b"data"));
    let datagram = framed(1, 2, None, &udp(CLIENT, SERVER, b"question"));
    let mut cookies = Vec::new();
    let mut send = |gateway: &mut Gateway, frame: &[u8]| {
        let sent = gateway.send(WAN, frame).by(TARGETS);
        gateway.send(TARGETS, &echoed(&sent)).by(LAN);
        cookies.push(identity(&sent).0);
        identity(&sent).0
    };
    gateway.at(1_000);
    let first = send(&mut gateway, &syn);
    let question = send(&mut gateway, &datagram);
    gateway.at(11_000);
    assert_eq!(send(&mut gateway, &datagram), question, "to the second");
    gateway.at(21_001);
    assert_ne!(send(&mut gateway, &datagram), question, "one later it is a new flow");
    gateway.at(61_000);
    assert_eq!(send(&mut gateway, &data), first);
    gateway.at(121_000);
    assert_eq!(send(&mut gateway, &data), first, "each packet counts");
    gateway.at(181_001);
    gateway.send(WAN, &data).died_of("gateway.unknown_tcp");
    assert_ne!(send(&mut gateway, &syn), first, "a SYN is a new flow");
    let flows = gateway.settled().flows;
    assert_eq!(flows.ended_idle, 3);

    // What comes back of a flow that is over is refused, swept or not.
    let sent = gateway.send(WAN, &datagram).by(TARGETS);
    gateway.at(191_500);
    gateway.send(TARGETS, &echoed(&sent)).died_of("gateway.no_flow");
    // Nothing else comes: the sweep takes them.
    for second in 0..200 {
        gateway.at(192_000 + second * 1000);
        gateway.worker.poll();
    }
    assert_eq!(gateway.settled().flows.live(), 0);

    let mut gateway = Gateway::new(&alone("unknown_tcp = \"pick_up\""));
    gateway.send(WAN, &data).by(TARGETS);
}

/// A target has thirty seconds to answer a new flow, as with AWS.
#[test]
fn what_nobody_answers_is_forgotten_soon() {
    let mut gateway = Gateway::new(&alone(""));
    let syn = framed(1, 2, None, &tcp(CLIENT, SERVER, "S", 1, 0, b""));
    let first = gateway.send(WAN, &syn).by(TARGETS);
    gateway.at(30_000);
    assert_eq!(gateway.send(WAN, &syn).by(TARGETS), first, "sent again");
    gateway.at(60_001);
    assert_ne!(gateway.send(WAN, &syn).by(TARGETS), first);
    gateway.send(TARGETS, &echoed(&first)).died_of("gateway.wrong_cookie");
}

#[test]
fn a_tuple_that_is_used_again_gets_another_cookie() {
    let mut gateway = Gateway::new(&alone(""));
    let mut send = |from: usize, flags: &str| {
        let (packet, tag) = match from {
            WAN => (tcp(CLIENT, SERVER, flags, 1, 1, b""), (1, 2)),
            _ => (tcp(SERVER, CLIENT, flags, 1, 1, b""), (2, 1)),
        };
        let sent = gateway.send(from, &framed(tag.0, tag.1, None, &packet)).by(TARGETS);
        gateway.send(TARGETS, &echoed(&sent)).by(WAN + LAN - from);
        identity(&sent).0
    };
    let first = send(WAN, "S");
    for (from, flags) in
        [(LAN, "SA"), (WAN, "A"), (WAN, "S"), (WAN, "FA"), (LAN, "A"), (WAN, "S"), (LAN, "FA"), (WAN, "A")]
    {
        assert_eq!(send(from, flags), first, "{from} {flags}");
    }
    let second = send(WAN, "S");
    assert_ne!(second, first, "both had finished");
    assert_eq!(send(LAN, "R"), second);
    assert_ne!(send(WAN, "S"), second, "it was reset");
    let flows = gateway.settled().flows;
    assert_eq!((flows.opened, flows.incarnations, flows.live()), (3, 2, 1));
}

/// A RST that no target lets through ends nothing.
#[test]
fn what_targets_stop_ends_no_flow() {
    let mut gateway = Gateway::new(&alone(""));
    let syn = framed(1, 2, None, &tcp(CLIENT, SERVER, "S", 1, 0, b""));
    let first = gateway.send(WAN, &syn).by(TARGETS);
    gateway.send(TARGETS, &echoed(&first)).by(LAN);
    gateway.send(LAN, &framed(2, 1, None, &tcp(SERVER, CLIENT, "R", 7, 0, b""))).by(TARGETS);
    assert_eq!(gateway.send(WAN, &syn).by(TARGETS), first);
}

/// A flood of new flows finds no room in a table of established ones, and takes none of theirs.
#[test]
fn established_flows_stay_when_the_table_is_full() {
    let mut gateway = Gateway::new(&alone(""));
    let end = |n: u32| v4(10, 3, (n >> 8) as u8, n as u8, 1000);
    let mut established = Vec::new();
    for n in 0..512 {
        let sent = gateway.send(WAN, &framed(1, 2, None, &udp(end(n), SERVER, b"q"))).by(TARGETS);
        let back = gateway.send(LAN, &framed(2, 1, None, &udp(SERVER, end(n), b"a"))).by(TARGETS);
        established.push((sent, back));
    }
    let mut refused = 0;
    for n in 1000..4000 {
        match gateway.send(WAN, &framed(1, 2, None, &udp(end(n), SERVER, b"q"))) {
            Went::Out(TARGETS, _) => {}
            Went::Dropped(reason) if reason == "gateway.table_full" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    let flows = gateway.settled().flows;
    assert!(flows.live() <= 1024 && flows.live() > 1000, "{}", flows.live());
    assert!(flows.ended_evicted > 2000, "the flood makes room for itself: {}", flows.ended_evicted);
    assert_eq!(flows.refused_full, refused);
    for (sent, back) in established {
        gateway.send(TARGETS, &echoed(&sent)).by(LAN);
        gateway.send(TARGETS, &echoed(&back)).by(WAN);
    }
}

fn flow_of_target(gateway: &mut Gateway, wanted: u8) -> (Vec<u8>, Vec<u8>) {
    (0..200u8)
        .find_map(|n| {
            let frame = framed(1, 2, None, &udp(v4(10, 1, 1, n, 1000), SERVER, b"q"));
            let sent = gateway.send(WAN, &frame).by(TARGETS);
            (target(&sent) == wanted).then_some((frame, sent))
        })
        .expect("one in three")
}

/// `no_rebalance`: flows stay with a target that is unhealthy, new ones go to others. Nobody healthy: as if all were.
#[test]
fn flows_stay_unless_told_to_move() {
    let mut gateway = Gateway::new(PLAIN);
    let (frame, sent) = flow_of_target(&mut gateway, 103);
    gateway.balance.set_health(TargetId(1), State::Unhealthy);
    gateway.tell();
    assert_eq!(gateway.send(WAN, &frame).by(TARGETS), sent);
    gateway.send(TARGETS, &echoed(&sent)).by(LAN);
    for n in 0..200 {
        let frame = framed(1, 2, None, &udp(v4(10, 1, 2, n, 1000), SERVER, b"q"));
        assert_ne!(target(&gateway.send(WAN, &frame).by(TARGETS)), 103);
    }
    for id in [0, 2] {
        gateway.balance.set_health(TargetId(id), State::Unhealthy);
    }
    gateway.tell();
    assert!(gateway.balance.fails_open());
    let chosen: std::collections::BTreeSet<u8> = (0..200)
        .map(|n| {
            let frame = framed(1, 2, None, &udp(v4(10, 1, 3, n, 1000), SERVER, b"q"));
            target(&gateway.send(WAN, &frame).by(TARGETS))
        })
        .collect();
    assert_eq!(chosen.into_iter().collect::<Vec<_>>(), [102, 103, 104]);
}

#[test]
fn flows_move_if_told_to() {
    let text =
        PLAIN.replace("[gateway]", "[gateway]\nfailover = \"rebalance\"\nderegistration_delay = \"20s\"");
    let mut gateway = Gateway::new(&text);
    let (frame, sent) = flow_of_target(&mut gateway, 103);
    let (other_frame, other_sent) = flow_of_target(&mut gateway, 104);
    gateway.balance.set_health(TargetId(1), State::Unhealthy);
    gateway.tell();
    let moved = gateway.send(WAN, &frame).by(TARGETS);
    assert_ne!(target(&moved), 103);
    assert_ne!(identity(&moved).0, identity(&sent).0, "another cookie");
    assert_eq!(identity(&moved).1, identity(&sent).1, "the same port");
    assert_eq!(gateway.send(WAN, &frame).by(TARGETS), moved, "once");
    // What the old target still sends is refused.
    gateway.send(TARGETS, &echoed(&sent)).died_of("gateway.other_target");
    gateway.send(TARGETS, &echoed(&moved)).by(LAN);
    assert_eq!(gateway.send(WAN, &other_frame).by(TARGETS), other_sent, "others stay");
    // It stays where it is when the target is well again.
    gateway.balance.set_health(TargetId(1), State::Healthy);
    gateway.tell();
    assert_eq!(gateway.send(WAN, &frame).by(TARGETS), moved);

    // Nobody healthy: nowhere to move to.
    for id in 0..3 {
        gateway.balance.set_health(TargetId(id), State::Unhealthy);
    }
    gateway.tell();
    assert_eq!(gateway.send(WAN, &frame).by(TARGETS), moved);
    for id in 0..3 {
        gateway.balance.set_health(TargetId(id), State::Healthy);
    }

    // One is taken out: its flows stay for the delay, and move then.
    let second = Duration::from_secs(1);
    assert!(gateway.balance.deregister(TargetId(2), 100 * second).expect("a table"));
    assert!(!gateway.balance.deregister(TargetId(2), 100 * second).expect("a table"), "once");
    gateway.tell();
    assert_eq!(gateway.send(WAN, &other_frame).by(TARGETS), other_sent);
    assert!(!gateway.balance.look(119 * second));
    assert!(gateway.balance.look(120 * second) && gateway.balance.is_gone(TargetId(2)));
    assert!(!gateway.balance.look(121 * second), "once");
    gateway.tell();
    assert_ne!(target(&gateway.send(WAN, &other_frame).by(TARGETS)), 104);
}

#[test]
fn stickiness_joins_what_belongs_together() {
    for (stickiness, flows) in [("5-tuple", 4), ("3-tuple", 2), ("2-tuple", 1)] {
        let text = PLAIN.replace("[gateway]", &format!("[gateway]\nstickiness = \"{stickiness}\""));
        let mut gateway = Gateway::new(&text);
        for port in [1000, 1001] {
            let (one, two) = (v4(10, 1, 0, 1, port), v4(10, 2, 0, 2, 443));
            for packet in [tcp(one, two, "S", 1, 0, b""), udp(one, two, b"q")] {
                let sent = gateway.send(WAN, &framed(1, 2, None, &packet)).by(TARGETS);
                assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(LAN), framed(1, 2, None, &packet));
            }
        }
        assert_eq!(gateway.settled().flows.opened, flows, "{stickiness}");
    }
}

#[test]
fn ipv6_goes_in_an_ipv4_envelope() {
    let mut gateway = Gateway::new(PLAIN);
    let packet = udp(v6("fd00::1", 1000), v6("fd00::2", 53), b"question");
    let frame = framed(1, 2, None, &packet);
    let sent = gateway.send(WAN, &frame).by(TARGETS);
    assert_eq!(sent[44..46], [0x86, 0xdd]);
    assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(LAN), frame);
}

/// The targets' port carries less than the legs do: what does not fit is dropped, and said to be.
#[test]
fn what_the_targets_port_cannot_carry_is_too_big() {
    let text = PLAIN.replace("device = \"net_null2\"", "device = \"net_null2\"\nmtu = 1500");
    assert!(common::gateway::plan(&text).warnings.iter().any(|text| text.contains("1432")));
    let mut gateway = Gateway::new(&text);
    gateway.send(WAN, &framed(1, 2, None, &udp(CLIENT, SERVER, &[0; 1404]))).by(TARGETS);
    let other = v4(10, 2, 0, 3, 53);
    gateway.send(WAN, &framed(1, 2, None, &udp(CLIENT, other, &[0; 1405]))).died_of("gateway.too_big");
    assert_eq!(gateway.settled().flows.opened, 1, "nor does it open a flow");
    // And a leg less than what comes back.
    let text = PLAIN.replace("device = \"net_null1\"", "device = \"net_null1\"\nmtu = 1500");
    let mut gateway = Gateway::new(&text);
    let sent = gateway.send(WAN, &framed(1, 2, None, &udp(CLIENT, SERVER, &[0; 1473]))).by(TARGETS);
    gateway.send(TARGETS, &echoed(&sent)).died_of("gateway.too_big");
}

/// Sister clouds' options: the cookie marks the direction, or is none.
#[test]
fn profiles_of_other_clouds_forward() {
    for profile in ["tencent", "google", "plain"] {
        let text = PLAIN.replace("id = \"0x0123456789abcdef\"", "id = 7");
        let mut gateway =
            Gateway::new(&format!("{text}\n[tunnel]\nprofile = \"{profile}\"\nchecksum = false\n"));
        for (from, to, packet) in
            [(WAN, LAN, udp(CLIENT, SERVER, b"question")), (LAN, WAN, udp(SERVER, CLIENT, b"answer"))]
        {
            let frame = framed(1, 2, None, &packet);
            let sent = gateway.send(from, &frame).by(TARGETS);
            assert_eq!(sent[40..42], [0, 0], "no checksum was wanted");
            assert_eq!(gateway.send(TARGETS, &echoed(&sent)).by(to), frame, "{profile}");
        }
        assert_eq!(gateway.settled().flows.opened, 1, "{profile}");
    }
}

/// Whole batches of everything at once: each frame is counted once, and comes out where it should.
#[test]
fn a_batch_goes_several_ways() {
    let mut gateway = Gateway::new(PLAIN);
    let question = |n: u8| framed(1, 2, None, &udp(v4(10, 1, 0, n, 1000), SERVER, b"question"));
    let mut arp = framed(1, 2, None, &[0x45; 46]);
    arp[12..14].copy_from_slice(&[8, 6]);
    for n in 0..60 {
        gateway.wires[WAN].send(match n % 4 {
            0 => arp.clone(),
            1 => vec![0; 13],
            _ => question(n),
        });
    }
    while gateway.worker.poll() > 0 {}
    let now = gateway.settled();
    assert_eq!((now.received, now.sent, now.dropped()), (60, 45, 15));
    assert_eq!(std::iter::from_fn(|| gateway.wires[LAN].receive()).count(), 15);
    let sent: Vec<_> = std::iter::from_fn(|| gateway.wires[TARGETS].receive()).collect();
    assert_eq!(sent.len(), 30);
    sent.iter().for_each(|frame| gateway.wires[TARGETS].send(echoed(frame)));
    while gateway.worker.poll() > 0 {}
    let back: Vec<_> = std::iter::from_fn(|| gateway.wires[LAN].receive()).collect();
    let expected: Vec<_> = (0..60).filter(|n| n % 4 > 1).map(question).collect();
    assert_eq!(back, expected, "in their order");
    gateway.settled();
}
