//! A stage with `mode = "shadow"`: nothing comes of what it decides, and all of it is counted and told.

mod common;

use std::sync::Arc;

use serde_json::Value;
use sluicegate::config::Settings;
use sluicegate::event::{Eve, Lines, Moment};
use sluicegate::packet::{Batch, Packet, Verdict};
use sluicegate::path::StageSnapshot;
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerPacket, Shared, Stage, StageKind,
};

use common::hello::client_hello;
use common::inner::{End, tcp, udp, v4, wrap};
use common::{Fate, Rig, TUNNEL, plan, plan_with};

/// Does to every packet what its settings say.
static DOES: StageKind = StageKind {
    name: "does",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[("no", "it does not pass")],
    parse: |settings: &Settings<'_>| -> ParseResult { Ok(Box::new(settings.read::<Does>()?)) },
};

#[derive(Clone, Debug, serde::Deserialize)]
struct Does {
    what: String,
    settle: bool,
}

impl Parsed for Does {
    fn wants_flows(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl Shared for Does {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        match self.what.as_str() {
            "turn" => Box::new(Turn),
            _ => Box::new(PerPacket(self.clone())),
        }
    }
}

impl Inspect for Does {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        if self.settle {
            cx.settle();
        }
        match self.what.as_str() {
            "drop" => Verdict::Drop(cx.reason(0)),
            "reject" => Verdict::Reject(cx.reason(0)),
            "send home" => Verdict::Forward,
            "hold" => Verdict::Hold,
            "patch" => {
                assert!(packet.patch(8, &[1]) && !packet.patch(1 << 12, &[1]), "as if it were done");
                Verdict::Next
            }
            "resize" => {
                let len = packet.inner().len();
                assert!(packet.resize(len + 8), "as if it were done");
                Verdict::Next
            }
            "panic" => panic!("a stage of a test"),
            _ => Verdict::Next,
        }
    }
}

struct Turn;

impl Stage for Turn {
    fn run(&mut self, batch: &mut Batch, _: &mut Cx<'_>) {
        for slot in batch.open() {
            batch.turn(slot);
        }
    }
}

fn client() -> End {
    v4(10, 1, 0, 5, 40_000)
}

fn server(port: u16) -> End {
    v4(10, 2, 0, 9, port)
}

fn counts(rig: &Rig) -> [StageSnapshot; 2] {
    rig.settled().stages.try_into().expect("two stages")
}

/// Whatever a stage does to a packet, it goes on to the next stage and home as it came; and so does the next one of its flow.
#[test]
fn nothing_comes_of_what_it_decides() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for (what, would) in [
        ("drop", [1, 0]),
        ("reject", [1, 0]),
        ("send home", [0, 1]),
        ("hold", [0, 0]),
        ("patch", [0, 0]),
        ("resize", [0, 0]),
        ("turn", [0, 0]),
        ("panic", [1, 0]),
    ] {
        for settle in [false, true] {
            let text = |mode: &str| {
                format!(
                    "{TUNNEL}[[stage]]\nuse = \"does\"\nmode = \"{mode}\"\nwhat = \"{what}\"\nsettle = {settle}\n\
                     [[stage]]\nuse = \"does\"\nname = \"behind\"\nwhat = \"nothing\"\nsettle = false\n"
                )
            };
            let mut rig = Rig::new(&plan_with(&text("shadow"), &[&DOES]));
            let mut same = Rig::new(&plan_with(&text("shadow").replace(what, "nothing"), &[&DOES]));
            let packets = [
                wrap(&udp(client(), server(53), b"question"), 7, 60_001),
                wrap(&udp(server(53), client(), b"answer"), 7, 60_001),
                wrap(&tcp(client(), server(80), "S", 1, 0, b""), 7, 60_002),
            ];
            for packet in &packets {
                let fate = rig.fate(packet);
                assert!(matches!(fate, Fate::Home(_)), "{what}: {fate:?}");
                assert_eq!(fate, same.fate(packet), "{what}");
            }
            assert!(rig.answers.is_empty(), "{what}: nobody is told");
            let [stage, behind] = counts(&rig);
            // Of a flow that it settles it is shown one packet; a panic or a turn settles nothing.
            let shown = if settle && !["panic", "turn"].contains(&what) { 2 } else { 3 };
            assert_eq!((stage.seen, behind.seen), (shown, 3), "{what}");
            assert_eq!([stage.would_drop, stage.would_send_home], would.map(|n| n * shown), "{what}");
            assert_eq!((stage.dropped, stage.forwarded, stage.passed_on()), (0, 0, shown), "{what}");
            // In force it is another matter, or the test says nothing.
            if what != "hold" {
                let mut rig = Rig::new(&plan_with(&text("enforce"), &[&DOES]));
                let fates: Vec<Fate> = packets.iter().map(|packet| rig.fate(packet)).collect();
                let as_it_came = packets.iter().map(|packet| same.fate(packet)).eq(fates);
                assert!(!as_it_came || counts(&rig)[1].seen < 3 || what == "turn", "{what}");
            }
        }
    }
    std::panic::set_hook(shown);
}

const FIREWALL: &str = r#"
[events]
[[events.sink]]
to = "stdout"

[[stage]]
use = "acl"
name = "edge"
mode = "MODE"

[[stage.rule]]
action = "log"
protocol = "udp"
destination_port = 53
comment = "dns"

[[stage.rule]]
action = "deny"
protocol = "udp"
destination_port = 53
comment = "no dns"

[[stage.rule]]
action = "allow"
"#;

fn firewall(mode: &str) -> String {
    format!("{TUNNEL}{}", FIREWALL.replace("MODE", mode))
}

/// What a rule would deny is counted by rule and by stage, and told as an example; its alert does not say that it was blocked.
#[test]
fn what_it_would_do_is_counted_and_told() {
    let plan = plan(&firewall("shadow"));
    let mut rig = Rig::new(&plan);
    for n in 0..3 {
        let packet = udp(client(), server(53), b"question");
        assert!(matches!(rig.fate(&wrap(&packet, 7, 60_001)), Fate::Home(_)), "{n}");
    }
    let stage = &rig.settled().stages[0];
    assert_eq!((stage.seen, stage.would_drop, stage.dropped), (1, 1, 0), "one decision for the flow");
    let hits: Vec<(String, u64)> = rig.pipeline.stages().flat_map(|(_, shared)| shared.counts()).collect();
    assert!(hits.iter().any(|(rule, n)| rule.contains("no dns") && *n == 1), "{hits:?}");
    let mut lines = Lines::new(Eve::of(&plan).with_signatures(&rig.pipeline), plan.events.flow_log.clone());
    let mut said = Vec::new();
    while rig.rings.take(|event| said.push(event)) {}
    let records: Vec<Value> = said
        .iter()
        .map(|event| serde_json::from_slice(lines.json(event, Moment::of_capture(0))).expect("JSON"))
        .collect();
    let one = |kind: &str| {
        let mut of = records.iter().filter(|record| record["event_type"] == kind);
        (of.next().unwrap_or_else(|| panic!("no {kind}: {records:?}")), of.next()).0
    };
    let shadow = one("shadow");
    assert_eq!(
        shadow["shadow"],
        serde_json::json!({ "difference": "would_drop", "reason": "edge.deny", "skipped": 0 })
    );
    assert_eq!((&shadow["stage"], &shadow["dest_port"]), (&"edge".into(), &53.into()));
    assert_eq!(one("alert")["alert"]["action"], "allowed");
    assert!(records.iter().all(|record| record["event_type"] != "drop"), "{records:?}");
}

/// More than ten decisions of a second are counted, and told as skipped.
#[test]
fn examples_have_a_rate() {
    let mut rig = Rig::new(&plan(&firewall("shadow")));
    let send = |rig: &mut Rig, port: u16| {
        let packet = udp(v4(10, 1, 0, 5, port), server(53), b"question");
        assert!(matches!(rig.fate(&wrap(&packet, 7, 60_001)), Fate::Home(_)));
    };
    for port in 1000..1025 {
        send(&mut rig, port);
    }
    let kind = sluicegate::event::Type::Shadow as usize;
    let events = rig.settled().events;
    assert_eq!((events.emitted[kind], events.limited[kind]), (10, 15));
    rig.set_clock(2_000_000_000);
    send(&mut rig, 1025);
    assert_eq!(rig.settled().events.emitted[kind], 11);
}

/// A stage that reads streams: hellos pass, and nothing of a stream is dropped for its sake.
#[test]
fn streams_flow_as_if_nobody_read_them() {
    for (mode, passes) in [("shadow", true), ("enforce", false)] {
        let text = format!(
            "{TUNNEL}[[stage]]\nuse = \"tls\"\nmode = \"{mode}\"\ndeny_below = \"1.2\"\non_unread = \"drop\"\n"
        );
        let mut rig = Rig::new(&plan(&text));
        let mut send = |_: u16, inner: Vec<u8>| matches!(rig.fate(&wrap(&inner, 7, 61_000)), Fate::Home(_));
        let hello = client_hello(0x0301, &[], Some("www.example.com"));
        let ends = |port: u16| (v4(10, 1, 0, 5, port), server(443));
        let open = |send: &mut dyn FnMut(u16, Vec<u8>) -> bool, port: u16| {
            let (client, server) = ends(port);
            assert!(send(port, tcp(client, server, "S", 99, 0, b"")));
            assert!(send(port, tcp(server, client, "SA", 499, 100, b"")));
        };
        // A hello that is denied, and what follows it.
        open(&mut send, 1000);
        let (client, server) = ends(1000);
        assert_eq!(send(1000, tcp(client, server, "PA", 100, 500, &hello)), passes, "{mode}");
        let next = 100 + hello.len() as u32;
        assert_eq!(send(1000, tcp(client, server, "PA", next, 500, b"more")), passes, "{mode}");
        // Half of a hello, and another half in its place.
        open(&mut send, 1001);
        let (client, server) = ends(1001);
        assert_eq!(
            send(1001, tcp(client, server, "PA", 100, 500, &hello[..40])),
            passes,
            "{mode}: or it waits"
        );
        let mut other = hello[..40].to_vec();
        other[30] ^= 1;
        assert_eq!(send(1001, tcp(client, server, "PA", 100, 500, &other)), passes, "{mode}");
        let now = rig.settled();
        assert_eq!(now.held_for_stages, u64::from(!passes), "{mode}");
        assert_eq!(now.stages[0].would_drop, u64::from(passes), "{mode}");
    }
}

/// From shadow to force: flows that would have been dropped are asked again, and are.
#[test]
fn put_in_force_it_decides_on_the_flows_that_it_has_seen() {
    let mut rig = Rig::new(&plan(&firewall("shadow")));
    let [bad, good] = [53, 123].map(|port| wrap(&udp(client(), server(port), b"question"), 7, 60_001));
    for packet in [&bad, &good] {
        assert!(matches!(rig.fate(packet), Fate::Home(_)));
    }
    rig.reload(&plan(&firewall("enforce")));
    assert_eq!(rig.fate(&bad), Fate::Dropped("edge.deny".into()));
    assert!(matches!(rig.fate(&good), Fate::Home(_)));
    rig.reload(&plan(&firewall("shadow")));
    assert!(matches!(rig.fate(&bad), Fate::Home(_)), "and back");
}

#[test]
fn plans_say_it() {
    let [shadow, enforce] = ["shadow", "enforce"].map(|mode| plan(&firewall(mode)));
    assert_ne!(shadow.policy, enforce.policy);
    assert!(shadow.to_string().contains("shadow: nothing comes of what it decides"), "{shadow}");
    assert!(!enforce.to_string().contains("nothing comes of"), "{enforce}");
    let closed =
        plan(&format!("{TUNNEL}[[stage]]\nuse = \"count\"\non_error = \"closed\"\non_unread = \"open\"\n"));
    let dropping =
        plan(&format!("{TUNNEL}[[stage]]\nuse = \"count\"\non_error = \"drop\"\non_unread = \"pass\"\n"));
    assert_eq!(closed.policy, dropping.policy, "two words for one thing");
}
