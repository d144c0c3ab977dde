//! Stages and flows through all hops: who is shown which packet of a flow, in every order of stages, and what `acl` makes of it.

mod common;

use std::fmt;
use std::sync::Arc;

use etherparse::PacketBuilder;
use sluicegate::packet::{Packet, Verdict};
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerFlow, PerPacket, Shared, Stage, StageKind,
};

use common::inner::{End, tcp, udp, v4, v6, wrap};
use common::{Fate, Rig, TUNNEL, plan_with};

/// A stage of the tests: what it says of a packet, and what it keeps of a flow.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Looks at every packet and lets it pass.
    Every,
    /// Sends every flow home and is done with it.
    SendHome,
    /// Lets so many packets of a flow pass.
    Limit(u64),
    /// Drops the first packet of a flow.
    NotTheFirst,
    /// Lets packets pass that know who opened their flow, by the port that it has.
    OpenedFrom(u16),
}

struct Running {
    does: Does,
    seen: PerFlow<u64>,
}

impl Inspect for Running {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        let passes = match self.does {
            Does::Every => true,
            Does::SendHome => {
                cx.settle();
                return Verdict::Forward;
            }
            Does::Limit(most) => self.seen.of(packet.meta()).is_none_or(|seen| {
                *seen += 1;
                *seen <= most
            }),
            Does::NotTheFirst => {
                self.seen.of(packet.meta()).is_some_and(|seen| std::mem::replace(seen, 1) == 1)
            }
            Does::OpenedFrom(port) => packet.originator().port() == port && packet.responder().port() != port,
        };
        if passes { Verdict::Next } else { Verdict::Drop(cx.reason(0)) }
    }
}

impl Parsed for Does {
    fn wants_flows(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<u64>::BYTES
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(*self))
    }
}

impl Shared for Does {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(Running { does: *self, seen: PerFlow::new(make) }))
    }
}

const fn kind(name: &'static str, parse: fn(&sluicegate::config::Settings<'_>) -> ParseResult) -> StageKind {
    StageKind { name, summary: "", help: "", example: "", reasons: &[("no", "it does not pass")], parse }
}

static EVERY: StageKind = kind("every", |_| Ok(Box::new(Does::Every)));
static SEND_HOME: StageKind = kind("send_home", |_| Ok(Box::new(Does::SendHome)));
static LIMIT: StageKind = kind("limit", |_| Ok(Box::new(Does::Limit(3))));
static NOT_FIRST: StageKind = kind("not_first", |_| Ok(Box::new(Does::NotTheFirst)));
static OPENED: StageKind = kind("opened", |_| Ok(Box::new(Does::OpenedFrom(40_000))));

/// Rules that let the client reach the server's port 443 over TCP and 53 over UDP, and nothing else.
const ACL: &str = r#"default = "deny"
rule = [
    { action = "deny", protocol = "tcp", destination_port = 23 },
    { action = "allow", protocol = "tcp", destination = "10.2.0.0/16", destination_port = 443 },
    { action = "allow", protocol = "udp", destination = "10.2.0.0/16", destination_port = 53 },
    { action = "allow", protocol = "tcp", destination = "2001:db8:2::/48", destination_port = 443 },
]
"#;

/// A rig with these stages; more text may follow a stage's name behind a line break.
fn rig(stages: &[&str]) -> Rig {
    rig_with("", stages)
}

fn rig_with(flow: &str, stages: &[&str]) -> Rig {
    let mut text = format!("{TUNNEL}\n[flow]\n{flow}\n");
    for (n, stage) in stages.iter().enumerate() {
        let (name, settings) = stage.split_once('\n').unwrap_or((stage, ""));
        let settings = if name == "acl" { format!("{ACL}{settings}") } else { settings.to_owned() };
        text += &format!("\n[[stage]]\nuse = \"{name}\"\nname = \"s{n}\"\n{settings}\n");
    }
    Rig::new(&plan_with(&text, &[&EVERY, &SEND_HOME, &LIMIT, &NOT_FIRST, &OPENED]))
}

fn client() -> End {
    v4(10, 1, 0, 5, 40_000)
}

fn server(port: u16) -> End {
    v4(10, 2, 0, 9, port)
}

/// What becomes of a packet: home, or the reason of its death.
struct Became(Fate);

impl PartialEq<&str> for Became {
    fn eq(&self, other: &&str) -> bool {
        match &self.0 {
            Fate::Home(_) => *other == "home",
            Fate::Dropped(reason) => reason == other,
            _ => false,
        }
    }
}

impl fmt::Debug for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn send(rig: &mut Rig, inner: &[u8]) -> Became {
    Became(rig.fate(&wrap(inner, 7, 60_001)))
}

/// A connection of six packets, both ways.
fn connection(from: End, to: End) -> [Vec<u8>; 6] {
    [
        tcp(from, to, "S", 100, 0, &[]),
        tcp(to, from, "SA", 500, 101, &[]),
        tcp(from, to, "A", 101, 501, &[]),
        tcp(from, to, "PA", 101, 501, b"question"),
        tcp(to, from, "PA", 501, 109, b"answer"),
        tcp(from, to, "A", 109, 507, &[]),
    ]
}

fn seen(rig: &Rig) -> Vec<u64> {
    rig.settled().stages.iter().map(|stage| stage.seen).collect()
}

/// Hits of the acl that is the n-th stage: telnet, web, name service, web over IPv6, default.
fn hits(rig: &Rig, n: usize) -> Vec<u64> {
    let counts = rig.pipeline.stages().nth(n).map(|(_, shared)| shared.counts()).unwrap_or_default();
    counts.into_iter().map(|(_, hits)| hits).collect()
}

#[test]
fn acl_sees_a_flow_once_and_an_every_packet_stage_all_of_it_in_every_order() {
    for (stages, shown) in [
        (&["acl"][..], &[1][..]),
        (&["acl", "every"], &[1, 6]),
        (&["every", "acl"], &[6, 1]),
        (&["every", "acl", "every"], &[6, 1, 6]),
        (&["acl", "acl"], &[1, 1]),
        (&["acl", "every", "acl"], &[1, 6, 1]),
        // Forward: what is behind sees nothing of the flow, not even of its later packets.
        (&["acl", "send_home", "every"], &[1, 1, 0]),
        (&["every", "send_home", "acl"], &[6, 1, 0]),
        (&["send_home", "every", "acl"], &[1, 0, 0]),
        // Without state every packet asks, and what comes back has no rule: see below.
        (&["every"], &[6]),
    ] {
        let mut rig = rig(stages);
        for packet in connection(client(), server(443)) {
            assert_eq!(send(&mut rig, &packet), "home", "{stages:?}");
        }
        assert_eq!(seen(&rig), shown, "{stages:?}");
    }
}

#[test]
fn a_connection_from_before_passes_acl_by_and_is_shown_to_every_packet_stages() {
    // To a port that no rule allows; nobody has seen its handshake.
    let middle = || connection(client(), server(25)).into_iter().skip(3);
    for (stages, shown) in [
        (&["acl"][..], &[0][..]),
        (&["acl", "every"], &[0, 3]),
        (&["every", "acl"], &[3, 0]),
        (&["every", "acl", "every"], &[3, 0, 3]),
        (&["acl", "count", "sample\none_in = 1\nof = \"packets\""], &[0, 3, 3]),
        // Whoever is behind a stage that sends it home sees nothing of it, as ever.
        (&["acl", "send_home", "every"], &[0, 1, 0]),
        (&["every"], &[3]),
    ] {
        let mut rig = rig_with("tracking = true\npickup = \"allow\"", stages);
        for packet in middle() {
            assert_eq!(send(&mut rig, &packet), "home", "{stages:?}");
        }
        assert_eq!(seen(&rig), shown, "{stages:?}");
        assert_eq!(rig.settled().flows.picked_up, 1);
    }
    // A stage that decides packet by packet goes on deciding.
    let mut rig = rig_with("tracking = true\npickup = \"allow\"", &["acl\nstateful = false"]);
    for packet in middle() {
        assert_eq!(send(&mut rig, &packet), "s0.default_deny");
    }
}

#[test]
fn a_denied_flow_is_shown_once_to_whoever_is_in_front_and_to_nobody_afterwards() {
    for (stages, by, shown) in [
        (&["acl"][..], "s0.deny", &[1][..]),
        (&["acl", "every"], "s0.deny", &[1, 0]),
        (&["every", "acl"], "s1.deny", &[1, 1]),
        (&["every", "acl", "every"], "s1.deny", &[1, 1, 0]),
    ] {
        let mut rig = rig(stages);
        let syn = tcp(client(), server(23), "S", 1, 0, &[]);
        assert_eq!(send(&mut rig, &syn), by, "{stages:?}");
        for _ in 0..3 {
            assert_eq!(send(&mut rig, &syn), "flow_condemned", "{stages:?}");
        }
        assert_eq!(send(&mut rig, &tcp(server(23), client(), "SA", 9, 2, &[])), "flow_condemned");
        assert_eq!(seen(&rig), shown, "{stages:?}");
    }
}

#[test]
fn a_drop_that_settles_nothing_is_one_packets() {
    let mut rig = rig(&["acl", "limit"]);
    let fates: Vec<Became> = connection(client(), server(443)).iter().map(|p| send(&mut rig, p)).collect();
    assert_eq!(fates, ["home", "home", "home", "s1.no", "s1.no", "s1.no"]);
    assert_eq!(seen(&rig), [1, 6]);
    // The next connection on the same tuple begins at nothing.
    assert_eq!(send(&mut rig, &tcp(client(), server(443), "R", 109, 0, &[])), "s1.no");
    let again: Vec<Became> = [tcp(client(), server(443), "S", 0x4000_0000, 0, &[])]
        .iter()
        .chain(&[tcp(server(443), client(), "SA", 0x5000_0000, 0x4000_0001, &[])])
        .map(|p| send(&mut rig, p))
        .collect();
    assert_eq!(again, ["home", "home"]);
    assert_eq!(seen(&rig), [2, 9], "a new flow asks the rules as well");
}

#[test]
fn rules_are_asked_as_the_flow_was_opened() {
    let mut rig = rig(&["acl"]);
    for packet in connection(v6("2001:db8:1::5", 40_000), v6("2001:db8:2::9", 443)) {
        assert_eq!(send(&mut rig, &packet), "home");
    }
    assert_eq!(send(&mut rig, &udp(client(), server(53), b"name?")), "home");
    assert_eq!(send(&mut rig, &udp(server(53), client(), b"address")), "home");
    assert_eq!(hits(&rig, 0), [0, 0, 1, 1, 0], "flows, not packets");
    // The same answer that nobody asked for.
    assert_eq!(send(&mut rig, &udp(server(53), v4(10, 1, 0, 6, 40_000), b"address")), "s0.default_deny");
}

#[test]
fn stateless_rules_ask_for_every_packet_as_it_travels() {
    let mut rig = rig(&["acl\nstateful = false", "every"]);
    let fates: Vec<Became> = connection(client(), server(443)).iter().map(|p| send(&mut rig, p)).collect();
    let denied = "s0.default_deny";
    assert_eq!(fates, ["home", denied, "home", "home", denied, "home"]);
    assert_eq!((seen(&rig), hits(&rig, 0)), (vec![6, 4], vec![0, 4, 0, 0, 2]));
}

#[test]
fn packets_of_a_new_flow_in_one_batch_are_one_question() {
    let mut rig = rig(&["acl", "every"]);
    for packet in connection(client(), server(443)).iter().chain(&connection(client(), server(80))) {
        rig.wire.send(wrap(packet, 7, 60_001));
    }
    assert_eq!(rig.worker.poll(), 12);
    let now = rig.settled();
    assert_eq!((now.sent, now.dropped()), (6, 6));
    assert_eq!(seen(&rig), [12, 6], "all were shown");
    assert_eq!(hits(&rig, 0), [0, 1, 0, 0, 1]);
}

#[test]
fn connections_from_before_a_restart_pass_if_either_end_may_have_opened_them() {
    for (first, port, fate) in
        [(3, 443, "home"), (4, 443, "home"), (3, 80, "s0.default_deny"), (4, 80, "s0.default_deny")]
    {
        let packets = connection(client(), server(port));
        let mut rig = rig(&["acl", "opened"]);
        assert_eq!(send(&mut rig, &packets[first]), fate, "packet {first} to port {port}");
        for packet in &packets[3..] {
            let then = if fate == "home" { "home" } else { "flow_condemned" };
            assert_eq!(send(&mut rig, packet), then, "packet {first} to port {port}, then");
        }
    }
    // The packet that was picked up died on its way to the rules: the next ones are as good.
    let packets = connection(client(), server(443));
    for next in [3, 4] {
        let mut rig = rig(&["not_first", "acl", "opened"]);
        assert_eq!(send(&mut rig, &packets[4]), "s0.no");
        assert_eq!(send(&mut rig, &packets[next]), "home", "packet {next}");
        assert_eq!(send(&mut rig, &packets[5]), "home");
    }
    // A packet that a rule denies as it travels is not saved by rules that speak of neither direction.
    let mut rig = rig(&["acl"]);
    assert_eq!(send(&mut rig, &tcp(client(), server(23), "PA", 1, 1, b"x")), "s0.deny");
}

#[test]
fn an_answer_that_comes_first_does_not_take_its_flow_with_it() {
    let mut rig = rig(&["acl", "opened"]);
    assert_eq!(send(&mut rig, &udp(server(53), client(), b"late")), "s0.default_deny");
    assert_eq!(send(&mut rig, &udp(client(), server(53), b"name?")), "home");
    assert_eq!(send(&mut rig, &udp(server(53), client(), b"address")), "home");
    assert_eq!(hits(&rig, 0), [0, 0, 1, 0, 1]);
    assert_eq!(seen(&rig), [2, 2]);
}

#[test]
fn icmp_errors_go_the_way_of_the_flow_that_they_quote() {
    let unreachable = |about: &[u8]| {
        let mut out = Vec::new();
        let step = PacketBuilder::ipv4([10, 2, 0, 1], [10, 1, 0, 5], 64).icmpv4_raw(3, 1, [0; 4]);
        step.write(&mut out, &about[..28]).unwrap();
        out
    };
    let mut rig = rig(&["acl"]);
    let web = tcp(client(), server(443), "S", 100, 0, &[]);
    assert_eq!(send(&mut rig, &unreachable(&web)), "s0.default_deny", "nobody knows the flow");
    assert_eq!(send(&mut rig, &web), "home");
    assert_eq!(send(&mut rig, &unreachable(&web)), "home");
    let telnet = tcp(client(), server(23), "S", 100, 0, &[]);
    assert_eq!(send(&mut rig, &telnet), "s0.deny");
    assert_eq!(send(&mut rig, &unreachable(&telnet)), "flow_condemned");
    assert_eq!(send(&mut rig, &web), "home", "an error that is denied says nothing of a flow");
}

#[test]
fn echoes_are_flows_and_other_icmp_asks_each_time() {
    let icmp = |from: [u8; 4], to: [u8; 4], kind: u8, id: u16| {
        let mut out = Vec::new();
        let [a, b] = id.to_be_bytes();
        PacketBuilder::ipv4(from, to, 64).icmpv4_raw(kind, 0, [a, b, 0, 1]).write(&mut out, b"x").unwrap();
        out
    };
    let (here, there) = ([10, 1, 0, 5], [10, 2, 0, 9]);
    let text =
        "[[stage]]\nuse = \"acl\"\nrule = [{ action = \"allow\", protocol = \"icmp\", icmp_type = \"8\" }]\n";
    let mut rig = Rig::new(&plan_with(&format!("{TUNNEL}{text}"), &[]));
    assert_eq!(send(&mut rig, &icmp(here, there, 8, 5)), "home");
    assert_eq!(send(&mut rig, &icmp(there, here, 0, 5)), "home");
    assert_eq!(send(&mut rig, &icmp(there, here, 0, 6)), "acl.default_deny", "nobody asked for it");
    assert_eq!(send(&mut rig, &icmp(here, there, 8, 6)), "home", "and that was not the flow's last word");
    // A timestamp, and an echo without an identifier: one flow, but neither decides on the other.
    for _ in 0..2 {
        assert_eq!(send(&mut rig, &icmp(here, there, 13, 0)), "acl.default_deny");
        assert_eq!(send(&mut rig, &icmp(here, there, 8, 0)), "home");
    }
    assert_eq!(hits(&rig, 0), [4, 3]);
}
