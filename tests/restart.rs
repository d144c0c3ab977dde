//! Killed and started again under 1,000 TCP connections: what each `flow.pickup` makes of packets from the middle of connections that
//! the engine has never seen, in the order in which they come.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use common::inner::{End, tcp, v4, wrap};
use common::{Fate, Rig, TUNNEL, plan};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::flow::{Filter, FlowView, What};
use sluicegate::path::Clock;

const FLOWS: u32 = 1000;
/// Of these, to a port that no rule allows.
const DENIED: u32 = 200;
/// Packets of each after the start.
const LATER: usize = 6;

/// One packet of a recording.
struct Recorded {
    flow: u32,
    reply: bool,
    sequence: u32,
    acknowledgment: u32,
    frame: Vec<u8>,
}

fn ends(flow: u32) -> [End; 2] {
    let port = if flow < DENIED { 25 } else { 443 };
    [v4(10, 0, (flow >> 8) as u8, flow as u8, 40_000), v4(192, 0, 2, 1, port)]
}

/// Connections from their handshakes on: what came before the kill, and what came after it.
fn recording() -> [Vec<Recorded>; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut sequences: Vec<[u32; 2]> = (0..FLOWS).map(|_| random.random()).collect();
    let mut packet = |flow: u32, reply: bool, flags: &str, payload: &[u8]| {
        let [mut from, mut to] = ends(flow);
        if reply {
            (from, to) = (to, from);
        }
        let numbers = &mut sequences[flow as usize];
        let (sequence, acknowledgment) = (numbers[usize::from(reply)], numbers[usize::from(!reply)]);
        numbers[usize::from(reply)] =
            sequence.wrapping_add(payload.len() as u32 + u32::from(flags.contains('S')));
        let frame =
            wrap(&tcp(from, to, flags, sequence, acknowledgment, payload), flow, 60_000 + flow as u16);
        Recorded { flow, reply, sequence, acknowledgment, frame }
    };
    let mut order: Vec<u32> = (0..FLOWS).collect();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut before = Vec::new();
    for (reply, flags) in [(false, "S"), (true, "SA"), (false, "A")] {
        order.shuffle(&mut random);
        before.extend(order.iter().map(|&flow| packet(flow, reply, flags, &[])));
    }
    let mut after = Vec::new();
    for round in 0..LATER {
        order.shuffle(&mut random);
        // Of an odd one the server speaks first.
        after.extend(order.iter().map(|&flow| {
            packet(flow, if round == 0 { flow % 2 == 1 } else { random.random() }, "PA", b"data")
        }));
    }
    [before, after]
}

fn rig(pickup: &str) -> (Rig, FlowView) {
    let text = format!(
        "{TUNNEL}
[flow]
pickup = \"{pickup}\"
answers_per_s = 1000000
[[stage]]
use = \"acl\"
default = \"deny\"
[[stage.rule]]
action = \"allow\"
protocol = \"tcp\"
source = \"10.0.0.0/8\"
destination_port = 443
"
    );
    let plan = plan(&text);
    let mut rig = Rig::new(&plan);
    let shown = rig.worker.flows().expect("flows").show();
    (rig, FlowView::new(&plan, vec![shown], Clock::manual().0))
}

/// Fates of all packets, and what was made in answer to each.
fn replay(rig: &mut Rig, packets: &[Recorded]) -> Vec<(Fate, Vec<Vec<u8>>)> {
    let mut clock = 0;
    let mut one = |packet: &Recorded| {
        clock += 1_000_000;
        rig.set_clock(clock);
        (rig.fate(&packet.frame), std::mem::take(&mut rig.answers))
    };
    packets.iter().map(&mut one).collect()
}

#[test]
fn without_a_kill_every_connection_goes_on() {
    let [before, after] = recording();
    let (mut rig, view) = rig("drop");
    for (packet, (fate, answers)) in
        [before, after].iter().flat_map(|part| part.iter().zip(replay(&mut rig, part)))
    {
        let expected = packet.flow >= DENIED;
        assert_eq!(
            (matches!(fate, Fate::Home(_)), answers.len()),
            (expected, 0),
            "{}: {fate:?}",
            packet.flow
        );
    }
    assert_eq!(view.iter(&Filter::default()).filter(|flow| flow.picked_up).count(), 0);
}

#[test]
fn policy_takes_up_what_the_rules_allow_in_either_orientation() {
    let [_, after] = recording();
    let (mut rig, view) = rig("policy");
    let mut events = rig.worker.flows().expect("flows").listen(4096);
    let fates = replay(&mut rig, &after);
    for (packet, (fate, answers)) in after.iter().zip(fates) {
        assert_eq!(matches!(fate, Fate::Home(_)), packet.flow >= DENIED, "{}: {fate:?}", packet.flow);
        assert!(answers.is_empty());
    }
    let flows = rig.settled().flows;
    assert_eq!((flows.opened, flows.picked_up, flows.pickup_refused), (1000, 1000, 0));
    // Each asks its rules once; what was denied is dropped before them from then on.
    assert_eq!(rig.settled().stages[0].seen, 1000);
    assert_eq!(flows.condemned, u64::from(DENIED) * (LATER as u64 - 1));
    let begun: Vec<_> =
        std::iter::from_fn(|| events.pop().ok()).filter(|event| event.what == What::Start).collect();
    assert!(begun.len() == 1000 && begun.iter().all(|event| event.picked_up), "marked in events");
    // Whoever spoke first: where rules allow one orientation, that is the one.
    let everything = Filter::default();
    let allowed = view.iter(&everything).filter(|flow| flow.reason.is_none());
    let clients = allowed.filter(|flow| flow.picked_up && flow.tuple.destination_port == 443).count();
    assert_eq!(clients as u32, FLOWS - DENIED);
}

#[test]
fn allow_takes_up_everything() {
    let [_, after] = recording();
    let (mut rig, _) = rig("allow");
    let fates = replay(&mut rig, &after);
    assert!(fates.iter().all(|(fate, answers)| matches!(fate, Fate::Home(_)) && answers.is_empty()));
    let now = rig.settled();
    assert_eq!((now.flows.opened, now.flows.picked_up, now.stages[0].seen), (1000, 1000, 0));
}

#[test]
fn drop_takes_up_nothing() {
    let [before, after] = recording();
    let (mut rig, _) = rig("drop");
    for (fate, answers) in replay(&mut rig, &after) {
        assert_eq!((fate, answers.len()), (Fate::Dropped("pickup".into()), 0));
    }
    let flows = rig.settled().flows;
    assert_eq!((flows.opened, flows.pickup_refused), (0, u64::from(FLOWS) * LATER as u64));
    // Clients that connect again are let in as ever.
    let home =
        replay(&mut rig, &before).into_iter().filter(|(fate, _)| matches!(fate, Fate::Home(_))).count();
    assert_eq!(home as u32, 3 * (FLOWS - DENIED));
}

#[test]
fn reset_tells_both_ends() {
    let [_, after] = recording();
    let (mut rig, _) = rig("reset");
    let fates = replay(&mut rig, &after);
    for (packet, (fate, answers)) in after.iter().zip(fates) {
        assert_eq!(fate, Fate::Dropped("pickup".into()));
        let [client, server] = ends(packet.flow).map(|(address, _)| address);
        let (sender, receiver) = if packet.reply { (server, client) } else { (client, server) };
        let mut told: Vec<(IpAddr, u32)> = answers.iter().map(|frame| reset(frame, packet.flow)).collect();
        told.sort_unstable();
        // Each expects the next number of the other side: what the sender has acknowledged, and where this segment begins.
        let mut expected = vec![(sender, packet.acknowledgment), (receiver, packet.sequence)];
        expected.sort_unstable();
        assert_eq!(told, expected, "{}", packet.flow);
    }
    let now = rig.settled();
    let packets = u64::from(FLOWS) * LATER as u64;
    assert_eq!((now.flows.opened, now.flows.pickup_refused, now.answers.made()), (0, packets, 2 * packets));
}

/// To whom a RST goes, and its number. It travels under the cookie of its flow.
fn reset(frame: &[u8], cookie: u32) -> (IpAddr, u32) {
    assert_eq!(frame[78..82], cookie.to_be_bytes());
    let ip = etherparse::Ipv4Slice::from_slice(&frame[82..]).expect("an inner packet");
    let tcp = etherparse::TcpSlice::from_slice(ip.payload().payload).expect("TCP");
    assert!(tcp.rst(), "{tcp:?}");
    let to: Ipv4Addr = ip.header().destination_addr();
    (to.into(), tcp.sequence_number())
}
