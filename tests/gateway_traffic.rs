//! A gateway with appliances of our own behind it, over soft ports: random connections through random endpoints, both ways.

mod common;

use std::collections::BTreeMap;

use common::gateway::{self as rig, Gateway, LAN, PLAIN, TARGETS, TRUNK, WAN, framed, target};
use common::inner::{tcp, udp, v4, v6};
use common::{Fate, Rig, plan};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::gateway::State;
use sluicegate::gateway::TargetId;

/// An appliance of our own, which follows flows.
fn appliance(last: u8) -> Rig {
    let text = format!(
        "[tunnel]\nallowed_sources = [\"10.254.11.107\"]\naddresses = [\"10.254.11.{last}\"]\n\
         [[stage]]\nuse = \"acl\"\ndefault = \"allow\"\n[[stage.rule]]\naction = \"deny\"\nprotocol = \"tcp\"\ndestination_port = 23\n"
    );
    Rig::new(&plan(&text))
}

/// Where an endpoint's packets come in and go out: port and VLAN, for clients and for servers.
const LEGS: [[(usize, Option<u16>); 2]; 2] =
    [[(WAN, None), (LAN, None)], [(TRUNK, Some(10)), (TRUNK, Some(20))]];

/// Every packet that the appliance lets through leaves by the other leg as it came in; both directions of a connection, and all of its packets, meet one
/// appliance, also while others fail and come back; what the appliance denies is gone. Nothing is lost on either side.
#[test]
fn both_directions_meet_one_appliance() {
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let mut gateway = Gateway::new(&PLAIN.replace("capacity = 1024", "capacity = 4096"));
    let mut appliances: BTreeMap<u8, Rig> = (102..=104).map(|last| (last, appliance(last))).collect();
    let mut met: BTreeMap<(usize, u16, bool), u8> = BTreeMap::new();
    let (mut through, mut denied) = (0, 0);
    for round in 0..6000u32 {
        if round % 500 == 499 {
            let id = TargetId(random.random_range(0..3));
            let state = if random.random_bool(0.5) { State::Healthy } else { State::Unhealthy };
            gateway.balance.set_health(id, state);
            gateway.tell();
        }
        let endpoint = random.random_range(0..2usize);
        let port = random.random_range(1000..1400u16);
        let is_v6 = port % 3 == 0;
        let (client, server) = match is_v6 {
            true => (v6("fd00::1", port), v6("fd00::2", if port % 2 == 0 { 23 } else { 443 })),
            false => (v4(10, 1, 0, 1, port), v4(10, 2, 0, 2, if port % 2 == 0 { 23 } else { 443 })),
        };
        let is_tcp = random.random_bool(0.5);
        let flow = (endpoint, port, is_tcp);
        // Nobody answers before he was asked.
        let back = met.contains_key(&flow) && random.random_bool(0.5);
        let (from, to) = if back { (server, client) } else { (client, server) };
        let payload = vec![7; random.random_range(0..1200)];
        let packet = match (is_tcp, met.contains_key(&flow)) {
            (true, false) => tcp(from, to, "S", 1, 0, b""),
            (true, true) => tcp(from, to, "S", 1, 0, b""),
            (false, _) => udp(from, to, &payload),
        };
        if is_tcp && back {
            continue; // a connection that nobody answers: the SYN is sent again
        }
        let side = usize::from(back);
        let (port_in, tag_in) = LEGS[endpoint][side];
        let (port_out, tag_out) = LEGS[endpoint][1 - side];
        let sent = gateway.send(port_in, &framed(3, 4, tag_in, &packet)).by(TARGETS);
        let whose = *met.entry(flow).or_insert(target(&sent));
        assert_eq!(target(&sent), whose, "{flow:?} back {back}");
        match appliances.get_mut(&whose).expect("a target").fate(&sent) {
            Fate::Home(frame) => {
                assert_eq!(gateway.send(TARGETS, &frame).by(port_out), framed(3, 4, tag_out, &packet));
                through += 1;
            }
            Fate::Dropped(_) => denied += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(through > 3000 && denied > 500, "{through} {denied}");
    let share = |last: u8| met.values().filter(|whose| **whose == last).count();
    assert!((102..=104).all(|last| share(last) > 50), "{:?}", [share(102), share(103), share(104)]);
    assert_eq!(gateway.settled().dropped(), 0);
}

/// A RST of the appliance's own reaches both ends, each by its leg and under the header of the other.
#[test]
fn an_appliances_resets_reach_both_ends() {
    let text = "[tunnel]\nallowed_sources = [\"10.254.11.107\"]\naddresses = [\"10.254.11.102\"]\n\
                [[stage]]\nuse = \"acl\"\ndefault = \"allow\"\n[[stage.rule]]\naction = \"reject\"\nprotocol = \"tcp\"\ndestination_port = 25\n";
    let mut appliance = Rig::new(&plan(text));
    let mut gateway = Gateway::new(&rig::alone(""));
    let (client, server) = (v4(10, 1, 0, 1, 1000), v4(10, 2, 0, 2, 25));
    let syn = gateway.send(WAN, &framed(3, 4, None, &tcp(client, server, "S", 1, 0, b""))).by(TARGETS);
    assert!(matches!(appliance.fate(&syn), Fate::Dropped(_)));
    let [reset] = &appliance.answers[..] else { panic!("{} answers", appliance.answers.len()) };
    let came = gateway.send(TARGETS, reset).by(WAN);
    assert_eq!(
        came[..12],
        framed(4, 3, None, &[0x45; 20])[..12],
        "from the server, as far as the client can tell"
    );
    assert_eq!(came[14 + 20 + 13] & 4, 4, "a RST");
}
