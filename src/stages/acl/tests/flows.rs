//! Flows ask once, in the orientation of whoever opened them; the rest of a flow follows.

use super::*;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What the stage said of each packet of a batch.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Said {
    /// It may pass; the flow is settled.
    Pass,
    /// It is dropped for this reason, and so is its flow.
    Condemn(u16),
    /// It may pass, and the other side opened its flow; settled.
    Turn,
    /// It may pass. Nothing is settled.
    PassAlone,
    /// It is dropped. Nothing is settled.
    DropAlone(u16),
}
use Said::{Condemn, DropAlone, Pass, PassAlone, Turn};

const DENIED: u16 = 100;
const REJECTED: u16 = 101;
const BY_DEFAULT: u16 = 102;

fn said(stage: &mut dyn Stage, packets: &[Packet]) -> Vec<Said> {
    let mut batch = batch(packets);
    run(stage, &mut batch);
    let (settling, turning) = batch.take_settling();
    let say = |slot: usize| match (batch.live().has(slot), settling.has(slot), turning.has(slot)) {
        (true, true, true) => Turn,
        (true, true, false) => Pass,
        (true, false, false) => PassAlone,
        (false, true, false) => Condemn(batch.reason(slot).0),
        (false, false, false) => DropAlone(batch.reason(slot).0),
        (live, settled, turned) => panic!("slot {slot}: live {live}, settled {settled}, turned {turned}"),
    };
    (0..packets.len()).map(say).collect()
}

/// What a stage of these rules says of a batch, and its counters.
fn ask(lines: &str, default: Action, packets: &[Packet]) -> (Vec<Said>, Vec<u64>) {
    let shared = built(lines, default);
    let said = said(shared.make(&on(0)).as_mut(), packets);
    (said, shared.counts().into_iter().map(|(_, hits)| hits).collect())
}

fn tcp(from: &str, to: &str, ports: (u16, u16), tcp_flags: u8) -> Packet {
    Packet { tcp_flags, ..packet(6, from, to, Some(ports)) }
}

const WEB: &str = "allow,tcp,,10.0.0.0/8,,443,,web\n";
const NEW: u8 = FlowFlags::NEW;
const REPLY: u8 = FlowFlags::REPLY;
const PICKED_UP: u8 = FlowFlags::NEW | FlowFlags::PICKED_UP;

fn out(tcp_flags: u8) -> Packet {
    tcp("192.0.2.1", "10.0.0.1", (5000, 443), tcp_flags)
}

fn home(tcp_flags: u8) -> Packet {
    tcp("10.0.0.1", "192.0.2.1", (443, 5000), tcp_flags)
}

#[test]
fn a_reply_asks_as_the_packet_that_opened_its_flow() {
    let six = |from, to, ports| packet(17, from, to, Some(ports));
    let rules = "allow,tcp,,10.0.0.0/8,,443,,\nallow,udp,2001:db8::/32,,,53,,\n";
    let packets = [
        out(SYN).of_flow(0, NEW),
        home(SYN | ACK).of_flow(1, REPLY),
        home(SYN | ACK).of_flow(2, NEW),
        home(ACK),
        six("2001:db8::1", "fd00::1", (9, 53)).of_flow(3, NEW),
        six("fd00::1", "2001:db8::1", (53, 9)).of_flow(4, REPLY),
    ];
    let (said, hits) = ask(rules, Action::Deny, &packets);
    assert_eq!(said, [Pass, Pass, DropAlone(BY_DEFAULT), DropAlone(BY_DEFAULT), Pass, Pass]);
    assert_eq!(hits, [2, 2, 2]);
}

#[test]
fn a_flow_asks_once_and_the_rest_of_it_follows() {
    let fragment = packet(6, "192.0.2.1", "10.0.0.1", None);
    let error = packet(1, "10.9.9.9", "192.0.2.1", Some((0x0301, 0)));
    let packets = [
        fragment.of_flow(7, 0),
        out(SYN).of_flow(7, NEW),
        home(SYN | ACK).of_flow(7, REPLY),
        error.of_flow(7, FlowFlags::RELATED),
        fragment.of_flow(7, 0),
    ];
    let (said, hits) = ask(WEB, Action::Deny, &packets);
    assert_eq!(said, [PassAlone, Pass, PassAlone, PassAlone, PassAlone]);
    assert_eq!(hits, [1, 0], "the flow counts once");
    // The same flow, denied: all of it goes, for the one reason.
    for (rules, reason) in [("deny,,,,,,,\n", DENIED), ("reject,,,,,,,\n", REJECTED), ("", BY_DEFAULT)] {
        let (said, hits) = ask(rules, Action::Deny, &packets);
        let gone = DropAlone(reason);
        assert_eq!(said, [gone, Condemn(reason), gone, gone, gone]);
        assert_eq!(hits.iter().sum::<u64>(), 1);
    }
}

#[test]
fn flows_of_one_batch_do_not_mix() {
    // Sixty-four packets of 32 flows, whose entries are far apart; odd flows are allowed.
    let packets: Vec<Packet> = (0..64u32)
        .map(|n| {
            let flow = n % 32;
            let port = if flow % 2 == 1 { 443 } else { 80 };
            tcp("192.0.2.1", "10.0.0.1", (1, port), SYN).of_flow(flow << 20, if n < 32 { NEW } else { 0 })
        })
        .collect();
    let (said, hits) = ask(WEB, Action::Deny, &packets);
    for (n, said) in said.iter().enumerate() {
        let expected = match (n < 32, n % 2 == 1) {
            (true, true) => Pass,
            (true, false) => Condemn(BY_DEFAULT),
            (false, true) => PassAlone,
            (false, false) => DropAlone(BY_DEFAULT),
        };
        assert_eq!(*said, expected, "packet {n}");
    }
    assert_eq!(hits, [16, 16]);
}

#[test]
fn one_entry_may_have_two_flows_in_a_batch() {
    let mut batch =
        batch(&[out(SYN).of_flow(0, NEW), tcp("192.0.2.1", "10.0.0.1", (5, 80), SYN).of_flow(0, NEW)]);
    batch.meta_mut(1).unwrap().incarnation = 1;
    run(built(WEB, Action::Deny).make(&on(0)).as_mut(), &mut batch);
    assert_eq!(batch.live(), Mask::one(0));
}

#[test]
fn what_cannot_speak_for_a_flow_asks_for_itself() {
    let icmp = |first, id| packet(1, "192.0.2.1", "10.0.0.1", Some((first, id)));
    let rules = format!("{WEB}allow,icmp,,,,,8|3,\n");
    let packets = [
        packet(6, "192.0.2.1", "10.0.0.1", None).of_flow(0, 0),
        icmp(0x0301, 0).of_flow(1, FlowFlags::RELATED),
        icmp(0x0b00, 0).of_flow(2, FlowFlags::RELATED),
        icmp(0x0d00, 0).of_flow(3, NEW),
        icmp(0x0800, 0).of_flow(3, 0),
        icmp(0x0800, 9).of_flow(4, NEW),
    ];
    let (said, hits) = ask(&rules, Action::Deny, &packets);
    assert_eq!(
        said,
        [
            DropAlone(BY_DEFAULT), // a fragment whose flow nobody has settled
            PassAlone,             // an error of a type that is allowed
            DropAlone(BY_DEFAULT), // and of one that is not
            DropAlone(BY_DEFAULT), // a timestamp, in the flow that it shares with
            PassAlone,             // an echo without an identifier
            Pass,                  // an echo with one
        ]
    );
    assert_eq!(hits, [0, 3, 3]);
}

#[test]
fn an_answer_to_an_echo_asks_as_the_echo() {
    let rules = "allow,icmp,,10.0.0.0/8,,,8/0,\nallow,icmpv6,,fd00::/8,,,128,\n";
    let packets = [
        packet(1, "10.0.0.1", "192.0.2.1", Some((0x0000, 7))).of_flow(0, REPLY),
        packet(58, "fd00::1", "2001:db8::1", Some((0x8100, 7))).of_flow(1, REPLY),
        packet(58, "2001:db8::1", "fd00::1", Some((0x8000, 8))).of_flow(2, NEW),
    ];
    assert_eq!(ask(rules, Action::Deny, &packets).0, [Pass, Pass, Pass]);
    for Packet { key, .. } in &packets[..2] {
        assert_ne!(key.reversed(), *key);
        assert_eq!(key.reversed().reversed(), *key);
    }
}

// --- the other orientation ---

#[test]
fn tcp_that_was_picked_up_passes_if_either_orientation_is_allowed() {
    let packets = [
        out(ACK).of_flow(0, PICKED_UP),
        home(ACK).of_flow(1, PICKED_UP),
        home(ACK).of_flow(1, 0),
        out(ACK).of_flow(1, REPLY),
        tcp("10.0.0.1", "192.0.2.1", (80, 5000), ACK).of_flow(2, PICKED_UP),
    ];
    let rules = format!("count,,,,,,,all\n{WEB}");
    let (said, hits) = ask(&rules, Action::Deny, &packets);
    assert_eq!(said, [Pass, Turn, PassAlone, PassAlone, Condemn(BY_DEFAULT)]);
    assert_eq!(hits, [3, 2, 1], "each flow counts once, where it was decided");
    // A rule for the other direction stands in front: it speaks of connections that the servers open.
    let (said, _) = ask(&format!("deny,,10.0.0.0/8,,,,,\n{WEB}"), Action::Deny, &packets[1..4]);
    assert_eq!(said, [Turn, PassAlone, PassAlone]);
}

#[test]
fn what_allows_both_ways_does_not_say_who_opened_a_flow() {
    let telnet = tcp("192.0.2.1", "10.0.0.1", (5000, 23), ACK).of_flow(0, PICKED_UP);
    let deny = "deny,tcp,,,,23,,telnet\n";
    assert_eq!(ask(deny, Action::Allow, &[telnet]).0, [Condemn(DENIED)]);
    assert_eq!(ask(&format!("{deny}allow,,,,,,,\n"), Action::Deny, &[telnet]).0, [Condemn(DENIED)]);
    let scanner = tcp("198.51.100.1", "10.0.0.1", (5000, 443), ACK).of_flow(0, PICKED_UP);
    let rules = format!("reject,,198.51.100.0/24,,,,,\n{WEB}");
    assert_eq!(ask(&rules, Action::Deny, &[scanner]).0, [Condemn(REJECTED)]);
}

#[test]
fn a_flow_opened_the_wrong_way_round_is_left_to_the_other_side() {
    let dns = "allow,udp,,10.0.0.0/8,,53,,\n";
    let answer = packet(17, "10.0.0.1", "192.0.2.1", Some((53, 5000)));
    let question = packet(17, "192.0.2.1", "10.0.0.1", Some((5000, 53)));
    // After a restart an answer comes first. It is dropped, as it would be alone, but it does not take the flow with it.
    let shared = built(&format!("{dns}{WEB}"), Action::Deny);
    let mut stage = shared.make(&on(0));
    assert_eq!(said(stage.as_mut(), &[answer.of_flow(0, NEW)]), [DropAlone(BY_DEFAULT)]);
    assert_eq!(said(stage.as_mut(), &[question.of_flow(0, REPLY)]), [Turn]);
    // TCP: a SYN from the wrong side; then the right side's own, and nothing else, opens the connection.
    assert_eq!(said(stage.as_mut(), &[home(SYN).of_flow(1, NEW)]), [DropAlone(BY_DEFAULT)]);
    for flags in [ACK, SYN | ACK, 0x04, 0x01, 0] {
        assert_eq!(said(stage.as_mut(), &[out(flags).of_flow(1, REPLY)]), [DropAlone(BY_DEFAULT)], "{flags}");
    }
    assert_eq!(said(stage.as_mut(), &[out(SYN | 0xc0).of_flow(1, REPLY)]), [Turn], "with ECN");
    let hits: Vec<u64> = shared.counts().into_iter().map(|(_, hits)| hits).collect();
    assert_eq!(hits, [1, 1, 7]);
}

#[test]
fn a_flow_that_no_orientation_allows_is_condemned_at_once() {
    let packets = [out(SYN).of_flow(0, NEW), home(SYN).of_flow(1, NEW)];
    assert_eq!(ask("allow,udp,,,,,,\n", Action::Deny, &packets).0, [Condemn(BY_DEFAULT); 2]);
    assert_eq!(ask("", Action::Reject, &packets).0, [Condemn(REJECTED); 2]);
}

#[test]
fn stateless_rules_are_asked_by_every_packet_as_it_travels() {
    let set = RuleSet::new(rules(WEB), Action::Deny).unwrap();
    let acl = Acl::new(set).stateless();
    assert!(!acl.wants_flows());
    let shared = acl.build(Backend::Soft).unwrap();
    let packets = [out(SYN).of_flow(0, NEW), out(ACK).of_flow(0, 0), home(ACK).of_flow(0, REPLY)];
    let said = said(shared.make(&on(0)).as_mut(), &packets);
    assert_eq!(said, [PassAlone, PassAlone, DropAlone(BY_DEFAULT)]);
    assert_eq!(shared.counts().iter().map(|(_, hits)| *hits).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn rejected_packets_are_to_be_answered_once() {
    let mut batch = batch(&[out(SYN).of_flow(0, NEW), out(SYN).of_flow(0, 0), out(ACK)]);
    run(built("reject,,,,,,,\n", Action::Allow).make(&on(0)).as_mut(), &mut batch);
    assert_eq!(batch.dropped(), Mask::first(3));
    assert_eq!(batch.rejected(), Mask::one(0) | Mask::one(2));
}

#[test]
fn it_is_stateful_unless_told_otherwise() {
    let parse = |text: &str| crate::config::parse_stage(&KIND, text, "".as_ref()).unwrap();
    assert!(parse("default = \"deny\"").wants_flows());
    assert!(parse("stateful = true").wants_flows());
    assert!(!parse("stateful = false").wants_flows());
}

// --- compiled ---

/// Random flows in every state, the same to both stages. The EAL is up.
#[cfg(feature = "dpdk")]
pub(super) fn agree_on_flows(parsed: &Acl) {
    use rand::{Rng, SeedableRng};
    let (soft, eal) = (parsed.build(Backend::Soft).unwrap(), parsed.build(Backend::Eal).unwrap());
    let (mut a, mut b) = (soft.make(&on(0)), eal.make(&on(0)));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(8);
    let mut tally = [0usize; 5];
    for _ in 0..3000 {
        let size = 1 + random.next_u32() as usize % 64;
        let packets: Vec<Packet> = (0..size)
            .map(|_| {
                let mut one = |of: &[u16]| of[random.next_u32() as usize % of.len()];
                let protocol = one(&[6, 6, 17, 1, 58, 50]) as u8;
                let v6 = protocol == 58 || (protocol != 1 && one(&[0, 1]) == 1);
                let pool = if v6 { ["2001:db8::1", "fd00::7"] } else { ["10.0.0.1", "11.0.0.1"] };
                let (from, to) = (pool[one(&[0, 1]) as usize], pool[one(&[0, 1]) as usize]);
                let ports = match protocol {
                    1 => (one(&[0x0800, 0x0000, 0x0301]), one(&[0, 5])),
                    58 => (one(&[0x8000, 0x8100, 0x0100]), one(&[0, 5])),
                    _ => (one(&[4000, 22, 53]), one(&[4000, 22, 53])),
                };
                let shown = protocol != 50 && one(&[0, 1, 2, 3, 4, 5]) != 0;
                let mut packet = packet(protocol, from, to, shown.then_some(ports));
                packet.tcp_flags = [SYN, ACK, SYN | ACK][one(&[0, 1, 2]) as usize];
                packet.flow_flags = one(&[0, 1, 2, 4, 5, 6, 8, 9]) as u8;
                packet.flow =
                    [None, Some(u32::from(one(&[0, 1, 2, 3, 4, 5, 6, 7])))][one(&[0, 1, 1]) as usize];
                packet
            })
            .collect();
        let (x, y) = (said(a.as_mut(), &packets), said(b.as_mut(), &packets));
        assert_eq!(x, y);
        for said in x {
            tally[match said {
                Pass => 0,
                Condemn(_) => 1,
                Turn => 2,
                PassAlone => 3,
                DropAlone(_) => 4,
            }] += 1;
        }
        assert_eq!(soft.counts(), eal.counts());
    }
    assert!(tally.iter().all(|count| *count > 100), "{tally:?}");
}
