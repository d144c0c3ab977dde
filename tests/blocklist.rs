//! The stage `blocklist` through all hops.

mod common;

use common::inner::{End, tcp, udp, unreachable, v4, v6, wrap};
use common::{Fate, Rig, TUNNEL, plan};
use sluicegate::event::{Alert, Body, Said};

const LISTS: &str = r#"
[[events.sink]]
to = "stdout"
types = ["alert"]

[[stage]]
use = "blocklist"

[[stage.list]]
name = "partners"
action = "allow"
entries = ["203.0.113.5"]

[[stage.list]]
name = "scanners"
entries = ["203.0.113.0/24", "2001:db8:bad::/48"]
severity = 1
id = 77

[[stage.list]]
name = "told"
action = "reject"
entries = ["198.51.100.7-198.51.100.9"]

[[stage.list]]
name = "tor"
action = "alert"
entries = ["192.0.2.128/25"]
"#;

fn rig(stages: &str) -> Rig {
    Rig::new(&plan(&format!("{TUNNEL}{stages}")))
}

fn inside(port: u16) -> End {
    v4(10, 1, 0, 5, port)
}

fn fate(rig: &mut Rig, inner: &[u8]) -> String {
    match rig.fate(&wrap(inner, 7, 60_001)) {
        Fate::Home(_) => "home".into(),
        Fate::Dropped(reason) => reason,
        other => format!("{other:?}"),
    }
}

/// Counters that are not zero.
fn counts(rig: &Rig) -> Vec<(String, u64)> {
    let (_, stage) = rig.pipeline.stages().next().expect("a stage");
    stage.counts().into_iter().filter(|(_, n)| *n > 0).collect()
}

/// The alerts since the last call: the list's name, its number, whether the packet was stopped, and both ends.
fn alerts(rig: &mut Rig) -> Vec<String> {
    let signatures = rig.pipeline.stages().next().expect("a stage").1.signatures();
    let mut out = Vec::new();
    while rig.rings.take(|said| {
        let Said::Event(event) = said else { return };
        let Body::Alert(Alert { rule, blocked }) = event.body else { return };
        let known = &signatures[rule as usize];
        let [(from, _), (to, _)] = event.about.ends().unwrap();
        out.push(format!("{} {} {blocked} {from} {to}", known.signature, known.signature_id));
    }) {}
    out
}

/// Either end, either direction, either family; once for a flow.
#[test]
fn flows_of_both_directions_are_dropped() {
    let mut rig = rig(LISTS);
    let (scanner, server) = (v4(203, 0, 113, 9, 40_000), inside(443));
    assert_eq!(fate(&mut rig, &tcp(scanner, server, "S", 1, 0, &[])), "blocklist.listed");
    assert_eq!(fate(&mut rig, &tcp(scanner, server, "S", 1, 0, &[])), "flow_condemned");
    assert_eq!(alerts(&mut rig), ["scanners 77 true 203.0.113.9 10.1.0.5"]);
    // From inside to it, and what is not on any list.
    assert_eq!(fate(&mut rig, &udp(inside(5), v4(203, 0, 113, 200, 53), b"?")), "blocklist.listed");
    assert_eq!(fate(&mut rig, &udp(inside(5), v4(203, 0, 114, 200, 53), b"?")), "home");
    let (bad, good) = (v6("2001:db8:bad::1", 9), v6("2001:db8:600d::1", 9));
    assert_eq!(fate(&mut rig, &udp(good, bad, b"?")), "blocklist.listed");
    assert_eq!(fate(&mut rig, &udp(good, v6("2001:db8::1", 9), b"?")), "home");
    assert_eq!(counts(&rig), [("scanners drop".to_owned(), 3), ("not listed".to_owned(), 2)]);
    // A flow that was found to be on no list is not looked up again.
    for _ in 0..5 {
        assert_eq!(fate(&mut rig, &udp(v4(203, 0, 114, 200, 53), inside(5), b"!")), "home");
    }
    assert_eq!(counts(&rig)[1].1, 2);
    assert_eq!(rig.settled().stages[0].seen, 5);
}

#[test]
fn allow_wins_alert_passes_and_reject_answers() {
    let mut rig = rig(LISTS);
    assert_eq!(fate(&mut rig, &udp(inside(5), v4(203, 0, 113, 5, 53), b"?")), "home");
    assert_eq!(alerts(&mut rig), Vec::<String>::new());
    assert_eq!(fate(&mut rig, &udp(inside(5), v4(192, 0, 2, 200, 53), b"?")), "home");
    assert_eq!(alerts(&mut rig), ["tor 4 false 10.1.0.5 192.0.2.200"]);
    assert_eq!(fate(&mut rig, &udp(inside(5), v4(192, 0, 2, 127, 53), b"?")), "home");
    assert_eq!(
        fate(&mut rig, &tcp(inside(5), v4(198, 51, 100, 8, 80), "S", 1, 0, &[])),
        "blocklist.rejected"
    );
    assert_eq!(rig.answers.len(), 1);
    assert_eq!(fate(&mut rig, &tcp(inside(5), v4(198, 51, 100, 10, 80), "S", 1, 0, &[])), "home");
    let expected = [("partners allow", 1), ("told reject", 1), ("tor alert", 1), ("not listed", 2)]
        .map(|(l, n)| (l.to_owned(), n));
    assert_eq!(counts(&rig), expected);
}

/// Several packets of one flow in one batch ask once; an ICMP error goes the way of the flow it speaks of.
#[test]
fn a_batch_asks_once_for_a_flow() {
    let mut rig = rig(LISTS);
    let packet = udp(v4(203, 0, 113, 9, 40_000), inside(53), b"?");
    let error = unreachable(inside(0), v4(203, 0, 113, 9, 0), &packet);
    for _ in 0..3 {
        rig.wire.send(wrap(&packet, 7, 60_001));
    }
    rig.wire.send(wrap(&error, 7, 60_001));
    while rig.worker.poll() > 0 {}
    assert_eq!(counts(&rig), [("scanners drop".to_owned(), 1)]);
    assert_eq!(alerts(&mut rig).len(), 1);
    assert_eq!((rig.settled().dropped(), rig.settled().sent), (4, 0));
}

#[test]
fn source_and_destination_are_those_of_the_flow() {
    let text = LISTS.replace("name = \"scanners\"", "name = \"scanners\"\nend = \"source\"");
    let mut rig = rig(&text);
    let (scanner, inside) = (v4(203, 0, 113, 9, 53), inside(5));
    assert_eq!(fate(&mut rig, &udp(inside, scanner, b"?")), "home");
    assert_eq!(fate(&mut rig, &udp(scanner, inside, b"an answer")), "home");
    assert_eq!(fate(&mut rig, &udp(v4(203, 0, 113, 9, 54), inside, b"?")), "blocklist.listed");
}

/// Without flows each packet asks for itself.
#[test]
fn packets_without_a_flow_are_judged_too() {
    let mut rig = rig(&format!(
        "[flow]\ntracking = false\n{}",
        LISTS.replace("\"blocklist\"", "\"blocklist\"\nstateful = false")
    ));
    for _ in 0..2 {
        assert_eq!(fate(&mut rig, &udp(v4(203, 0, 113, 9, 1), inside(5), b"?")), "blocklist.listed");
        assert_eq!(fate(&mut rig, &udp(inside(5), v4(203, 0, 113, 9, 1), b"?")), "blocklist.listed");
        assert_eq!(fate(&mut rig, &udp(inside(5), v4(9, 9, 9, 9, 1), b"?")), "home");
    }
    assert_eq!(counts(&rig), [("scanners drop".to_owned(), 4), ("not listed".to_owned(), 2)]);
}

/// A list that has changed is another stage: flows from before are asked about again; one that is as it was stays, with what it counted.
#[test]
fn a_list_that_changed_is_taken_by_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.txt");
    let text = format!(
        "{TUNNEL}\n[[stage]]\nuse = \"blocklist\"\n[[stage.list]]\nname = \"feed\"\nfile = {:?}\n",
        file.display().to_string()
    );
    let list = |lines: &str| {
        std::fs::write(&file, lines).unwrap();
        plan(&text)
    };
    let mut rig = Rig::new(&list("192.0.2.0/24\n"));
    let [one, other] =
        [[192, 0, 2, 1], [198, 51, 100, 1]].map(|[a, b, c, d]| udp(inside(5), v4(a, b, c, d, 53), b"?"));
    assert_eq!(fate(&mut rig, &one), "blocklist.listed");
    assert_eq!(fate(&mut rig, &other), "home");
    rig.reload(&list("192.0.2.0/24\n"));
    assert_eq!(fate(&mut rig, &other), "home");
    assert_eq!(rig.settled().stages[0].seen, 2, "the same list: nobody asks");
    rig.reload(&list("# other people\n198.51.100.0/24\n"));
    assert_eq!(fate(&mut rig, &other), "blocklist.listed");
    assert_eq!(fate(&mut rig, &one), "home");
}
