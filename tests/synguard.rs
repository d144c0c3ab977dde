//! The stage `synguard` through all hops, on one worker and on two.

mod common;

use common::inner::{End, tcp, udp, v4, v6, wrap};
use common::team::Team;
use common::{Fate, Rig, TUNNEL, plan};
use sluicegate::event::{Alert, Body, Said};

const SECOND: u64 = 1_000_000_000;

fn text(limits: &str) -> String {
    format!(
        "{TUNNEL}[[events.sink]]\nto = \"stdout\"\ntypes = [\"alert\"]\n[[stage]]\nuse = \"synguard\"\n{limits}"
    )
}

fn rig(limits: &str) -> Rig {
    Rig::new(&plan(&text(limits)))
}

const SERVICE: &str = "[[stage.limit]]\nname = \"service\"\nper = \"service\"\nhalf_open = 4\n";

fn client(n: u16) -> End {
    v4(10, 1, (n >> 8) as u8, n as u8, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 443)
}

fn fate(rig: &mut Rig, inner: &[u8]) -> String {
    match rig.fate(&wrap(inner, 7, 60_001)) {
        Fate::Home(_) => "home".into(),
        Fate::Dropped(reason) => reason,
        other => format!("{other:?}"),
    }
}

fn syn(rig: &mut Rig, from: End) -> String {
    fate(rig, &tcp(from, server(), "S", 1000, 0, &[]))
}

fn answer(rig: &mut Rig, to: End) -> String {
    fate(rig, &tcp(server(), to, "SA", 5000, 1001, &[]))
}

/// The client's ACK, of this number of the server's.
fn ack(rig: &mut Rig, from: End, number: u32) -> String {
    fate(rig, &tcp(from, server(), "A", 1001, number, &[]))
}

fn count(rig: &Rig, label: &str) -> u64 {
    let (_, stage) = rig.pipeline.stages().next().expect("a stage");
    stage.counts().into_iter().find(|(found, _)| found == label).expect(label).1
}

fn alerts(rig: &mut Rig) -> Vec<(u32, bool)> {
    let mut out = Vec::new();
    while rig.rings.take(|said| {
        if let Said::Event(event) = said
            && let Body::Alert(Alert { rule, blocked }) = event.body
        {
            out.push((rule, blocked));
        }
    }) {}
    out
}

/// As many as may be half-open pass; then one has to complete before another gets in, which was dropped and asks again.
#[test]
fn a_service_has_no_more_half_open_than_it_may() {
    let mut rig = rig(SERVICE);
    for n in 1..=4 {
        assert_eq!(syn(&mut rig, client(n)), "home");
        // Sent again it is the same handshake.
        assert_eq!(syn(&mut rig, client(n)), "home");
    }
    assert_eq!(syn(&mut rig, client(5)), "synguard.half_open");
    assert_eq!(syn(&mut rig, client(5)), "synguard.half_open");
    // Nothing else of what has not begun passes, and another service is another.
    assert_eq!(ack(&mut rig, client(5), 5001), "synguard.not_opened");
    assert_eq!(fate(&mut rig, &tcp(client(6), v4(10, 2, 0, 9, 80), "S", 1, 0, &[])), "home");
    assert_eq!(fate(&mut rig, &udp(client(6), server(), b"no handshake")), "home");
    assert_eq!(answer(&mut rig, client(1)), "home");
    assert_eq!(syn(&mut rig, client(5)), "synguard.half_open", "an answer is no completion");
    assert_eq!(ack(&mut rig, client(1), 5001), "home");
    assert_eq!(syn(&mut rig, client(5)), "home");
    assert_eq!(syn(&mut rig, client(6)), "synguard.half_open");
    assert_eq!([count(&rig, "handshakes begun"), count(&rig, "handshakes completed")], [6, 1]);
    assert_eq!(count(&rig, "service: half-open over"), 4);
    // Who is through is not looked at any more.
    let before = rig.settled().stages[0].seen;
    assert_eq!(fate(&mut rig, &tcp(client(1), server(), "PA", 1001, 5001, b"GET /")), "home");
    assert_eq!(fate(&mut rig, &tcp(server(), client(1), "PA", 5001, 1006, b"200")), "home");
    assert_eq!(rig.settled().stages[0].seen, before);
}

/// Who sends from an address that is not theirs does not know the server's number, and so completes nothing.
#[test]
fn only_who_got_the_answer_completes() {
    let mut rig = rig(&SERVICE.replace("half_open = 4", "half_open = 1"));
    assert_eq!(syn(&mut rig, client(1)), "home");
    ack(&mut rig, client(1), 5001); // before the answer, whatever it says
    assert_eq!(syn(&mut rig, client(2)), "synguard.half_open");
    answer(&mut rig, client(1));
    for wrong in [0, 5000, 5001 + (1 << 16), 5001u32.wrapping_sub(1 << 31)] {
        ack(&mut rig, client(1), wrong);
        assert_eq!(syn(&mut rig, client(2)), "synguard.half_open", "{wrong}");
    }
    ack(&mut rig, client(1), 5001);
    assert_eq!(syn(&mut rig, client(2)), "home");
}

/// A RST ends a handshake if who gets it would believe it.
#[test]
fn resets_end_handshakes() {
    let one = SERVICE.replace("half_open = 4", "half_open = 1");
    type Reset = fn(End) -> Vec<u8>;
    let believed: [(&str, Reset); 3] = [
        ("the server refuses", |to| tcp(server(), to, "RA", 0, 1001, &[])),
        ("the server gives up", |to| tcp(server(), to, "R", 5001, 0, &[])),
        ("the client gives up", |from| tcp(from, server(), "R", 1001, 0, &[])),
    ];
    for (what, reset) in believed {
        let mut rig = rig(&one);
        syn(&mut rig, client(1));
        if what != "the server refuses" {
            answer(&mut rig, client(1));
        }
        assert_eq!(syn(&mut rig, client(2)), "synguard.half_open");
        fate(&mut rig, &reset(client(1)));
        assert_eq!(
            (count(&rig, "handshakes reset"), syn(&mut rig, client(2)).as_str()),
            (1, "home"),
            "{what}"
        );
    }
    let others: [Reset; 3] = [
        |to| tcp(server(), to, "RA", 0, 77, &[]),
        |from| tcp(from, server(), "R", 1002, 0, &[]),
        |from| tcp(from, server(), "RA", 1000, 5001, &[]),
    ];
    for reset in others {
        let mut rig = rig(&one);
        syn(&mut rig, client(1));
        answer(&mut rig, client(1));
        fate(&mut rig, &reset(client(1)));
        assert_eq!(
            (count(&rig, "handshakes reset"), syn(&mut rig, client(2)).as_str()),
            (0, "synguard.half_open")
        );
    }
}

/// What nobody completes counts for the time that is set, and a seventh more at most.
#[test]
fn handshakes_are_given_up() {
    for (age, expected) in [(6_999, "synguard.half_open"), (8_001, "home")] {
        let mut rig = rig(&format!("half_open_time = \"7s\"\n{SERVICE}"));
        for n in 1..=4 {
            assert_eq!(syn(&mut rig, client(n)), "home");
        }
        rig.set_clock(age * 1_000_000);
        assert_eq!(syn(&mut rig, client(5)), expected, "{age} ms");
    }
}

#[test]
fn sources_count_by_their_prefix_and_families_apart() {
    let mut rig = rig("[[stage.limit]]\nname = \"s\"\nper = \"source\"\nprefix_v4 = 24\nhalf_open = 2\n");
    assert_eq!(syn(&mut rig, client(1)), "home");
    assert_eq!(syn(&mut rig, client(2)), "home");
    assert_eq!(syn(&mut rig, client(3)), "synguard.half_open");
    assert_eq!(syn(&mut rig, client(256)), "home");
    let six = |n: u16| tcp(v6(&format!("2001:db8:0:{n}::{n}"), 5), v6("2001:db8:9::1", 5), "S", 1, 0, &[]);
    assert_eq!([1, 1, 2].map(|n| fate(&mut rig, &six(n))), ["home"; 3]);
}

/// SYNs a second, with a burst; what is too much is told of once in a while, and again at once after it was over.
#[test]
fn rates_and_alarms() {
    let limits = "alert_every = \"10s\"\n[[stage.limit]]\nname = \"r\"\nper = \"destination\"\nsyn_per_s = 50\n\
                  [[stage.limit]]\nname = \"h\"\nper = \"destination\"\nhalf_open = 8\n";
    let mut rig = rig(limits);
    let flood =
        |rig: &mut Rig, from: u16| (from..from + 20).filter(|n| syn(rig, client(*n)) == "home").count();
    assert_eq!(flood(&mut rig, 1), 5);
    assert_eq!(alerts(&mut rig), [(0, true)]);
    rig.set_clock(SECOND);
    assert_eq!(flood(&mut rig, 100), 3, "half-open");
    assert_eq!(alerts(&mut rig), [(1, true)]);
    rig.set_clock(2 * SECOND);
    assert_eq!(flood(&mut rig, 200), 0);
    assert_eq!(alerts(&mut rig), []);
    // Two complete: there is room, and it is not over. Five more: it is.
    for n in [1, 2] {
        answer(&mut rig, client(n));
        ack(&mut rig, client(n), 5001);
    }
    rig.set_clock(3 * SECOND);
    assert_eq!((flood(&mut rig, 300), alerts(&mut rig)), (2, vec![]));
    for n in [3, 4, 5] {
        answer(&mut rig, client(n));
        ack(&mut rig, client(n), 5001);
    }
    rig.set_clock(4 * SECOND);
    assert_eq!((flood(&mut rig, 400), alerts(&mut rig)), (3, vec![(1, true)]));
    rig.set_clock(15 * SECOND);
    assert_eq!((flood(&mut rig, 500), alerts(&mut rig)), (0, vec![(1, true), (0, true)]));
    assert_eq!([count(&rig, "r: alarms"), count(&rig, "h: alarms")], [2, 3]);
}

#[test]
fn what_is_reported_passes() {
    let mut rig = rig(&format!("{SERVICE}mode = \"report\"\n"));
    assert!((1..=20).all(|n| syn(&mut rig, client(n)) == "home"));
    assert_eq!((count(&rig, "service: half-open over"), alerts(&mut rig)), (16, vec![(0, false)]));
}

/// More services under attack than there are entries.
#[test]
fn without_an_entry_a_syn_passes_or_not_as_the_limit_says() {
    for (when_full, dropped) in [("pass", false), ("drop", true)] {
        let mut rig = rig(&format!("{SERVICE}buckets = 64\nwhen_full = \"{when_full}\"\n"));
        let to = |n: u16| v4(10, 2, 0, 9, n);
        let passed =
            (1..=250).filter(|n| fate(&mut rig, &tcp(client(1), to(*n), "S", 1, 0, &[])) == "home").count();
        let without = count(&rig, "service: no bucket");
        assert!((250 - 64..220).contains(&without), "{without}");
        assert_eq!(passed as u64, 250 - if dropped { without } else { 0 });
    }
}

/// Connections from before are let be; what only looks like one is not, and its SYN asks.
#[test]
fn connections_from_before_are_not_limited() {
    let mut rig = rig(&SERVICE.replace("half_open = 4", "half_open = 1"));
    assert_eq!(syn(&mut rig, client(9)), "home");
    assert_eq!(fate(&mut rig, &tcp(client(1), server(), "PA", 70, 90, b"more")), "home");
    assert_eq!(fate(&mut rig, &tcp(server(), client(1), "A", 90, 74, &[])), "home");
    let before = rig.settled().stages[0].seen;
    assert_eq!(fate(&mut rig, &tcp(client(1), server(), "PA", 74, 90, b"more")), "home");
    assert_eq!(rig.settled().stages[0].seen, before);
    // An ACK in front of a SYN does not get it through.
    fate(&mut rig, &tcp(client(2), server(), "A", 999, 1, &[]));
    assert_eq!(syn(&mut rig, client(2)), "synguard.half_open");
    fate(&mut rig, &tcp(client(3), server(), "A", 999, 1, &[]));
    fate(&mut rig, &tcp(server(), client(3), "R", 1, 0, &[]));
    assert_eq!(syn(&mut rig, client(3)), "synguard.half_open");
}

/// Handshakes with one service come to two workers: together they have no more half-open than it may have, and each makes room for the other.
#[test]
fn workers_count_together() {
    let text = text(&SERVICE.replace("half_open = 4", "half_open = 50"));
    let mut team = Team::of(
        &plan(&text.replace("[[events.sink]]\nto = \"stdout\"\ntypes = [\"alert\"]\n", "")),
        2,
        1024,
    );
    let send =
        |team: &mut Team, inner: Vec<u8>, n: u16| team.wire.send(wrap(&inner, n.into(), 50_000 + n * 7));
    let home = |team: &mut Team| {
        team.settle();
        std::iter::from_fn(|| team.wire.receive()).count()
    };
    for n in 0..100 {
        send(&mut team, tcp(client(n), server(), "S", 1000, 0, &[]), n);
    }
    // One more for each worker but one.
    let begun = home(&mut team);
    assert!((50..=51).contains(&begun), "{begun}");
    let shares: Vec<u64> = team.snapshots().iter().map(|worker| worker.received).collect();
    assert!(shares.iter().all(|received| *received > 20), "{shares:?}");
    for n in 0..100 {
        send(&mut team, tcp(server(), client(n), "SA", 5000, 1001, &[]), n);
        send(&mut team, tcp(client(n), server(), "A", 1001, 5001, &[]), n);
    }
    home(&mut team);
    for n in 100..200 {
        send(&mut team, tcp(client(n), server(), "S", 1000, 0, &[]), n);
    }
    let begun = home(&mut team);
    assert!((50..=51).contains(&begun), "{begun}");
}
