//! The stages `count` and `sample` through all hops.

mod common;

use common::inner::{End, tcp, udp, v4, wrap};
use common::{Rig, TUNNEL, plan};

fn rig(stages: &str) -> Rig {
    Rig::new(&plan(&format!("{TUNNEL}{stages}")))
}

fn client(n: u16) -> End {
    v4(10, 1, (n >> 8) as u8, n as u8, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 53)
}

fn send(rig: &mut Rig, inner: &[u8]) {
    rig.wire.send(wrap(inner, 7, 60_001));
    while rig.worker.poll() > 0 {}
    while rig.wire.receive().is_some() {}
}

/// Counters of the stage of that name that are not zero.
fn counts(rig: &Rig, name: &str) -> Vec<(String, u64)> {
    let stage = rig.pipeline.stages().find(|(stage, _)| *stage == name).expect(name).1;
    stage.counts().into_iter().filter(|(_, n)| *n > 0).collect()
}

fn expect(rig: &Rig, name: &str, expected: &[(&str, u64)]) {
    let found = counts(rig, name);
    let found: Vec<(&str, u64)> = found.iter().map(|(label, n)| (label.as_str(), *n)).collect();
    assert_eq!(found, expected, "{name}");
}

/// Every packet in front of the firewall, those that it lets pass behind it; bytes are the inner packets'.
#[test]
fn count_sees_every_packet_that_reaches_it() {
    let mut rig = rig(r#"
[[stage]]
use = "count"
name = "before"
by = "protocol"

[[stage]]
use = "acl"

[[stage.rule]]
action = "allow"
protocol = "udp"
destination_port = "53"

[[stage]]
use = "count"
name = "behind"
by = "direction"

[[stage]]
use = "count"
name = "sizes"
by = "size"
"#);
    for _ in 0..3 {
        send(&mut rig, &udp(client(1), server(), b"where"));
    }
    send(&mut rig, &udp(server(), client(1), &[0; 100]));
    // Denied, and then dropped before any stage.
    send(&mut rig, &tcp(client(2), server(), "S", 1, 0, &[]));
    send(&mut rig, &tcp(client(2), server(), "S", 1, 0, &[]));
    expect(
        &rig,
        "before",
        &[("TCP: packets", 1), ("TCP: bytes", 40), ("UDP: packets", 4), ("UDP: bytes", 227)],
    );
    let directions = [
        ("to server: packets", 3),
        ("to server: bytes", 99),
        ("to client: packets", 1),
        ("to client: bytes", 128),
    ];
    expect(&rig, "behind", &directions);
    let sizes = [("to 64: packets", 3), ("to 64: bytes", 99), ("to 128: packets", 1), ("to 128: bytes", 128)];
    expect(&rig, "sizes", &sizes);
    rig.settled();
}

/// Of many flows the share that was asked for goes on, each with all of its packets in both directions.
#[test]
fn sample_takes_whole_flows() {
    let mut rig = rig(r#"
[[stage]]
use = "sample"
one_in = 4

[[stage]]
use = "count"
"#);
    let seen = |rig: &Rig| rig.settled().stages[1].seen;
    let mut sampled = 0;
    for n in 0..400 {
        let before = seen(&rig);
        for _ in 0..3 {
            send(&mut rig, &udp(client(n), server(), b"where"));
            send(&mut rig, &udp(server(), client(n), b"there"));
        }
        let packets = seen(&rig) - before;
        assert!(packets == 0 || packets == 6, "flow {n}: {packets} of 6 packets");
        sampled += packets / 6;
    }
    // Five standard deviations around 100.
    assert!((57..=143).contains(&sampled), "{sampled}");
    let now = rig.settled();
    assert_eq!((now.sent, now.dropped()), (2400, 0));
    assert_eq!(now.stages[0].seen, 400, "a flow costs one look");
}

#[test]
fn sample_takes_every_nth_packet() {
    let mut rig =
        rig("[[stage]]\nuse = \"sample\"\none_in = 3\nof = \"packets\"\n[[stage]]\nuse = \"count\"\n");
    for _ in 0..10 {
        send(&mut rig, &udp(client(1), server(), b"where"));
    }
    let now = rig.settled();
    assert_eq!((now.stages[0].seen, now.stages[0].forwarded, now.stages[1].seen, now.sent), (10, 6, 4, 10));
}

/// A firewall behind a sample protects a share of the traffic: `check` says so.
#[test]
fn a_sample_in_front_of_a_firewall_is_warned_of() {
    let acl = "[[stage]]\nuse = \"acl\"\nrule = [{ action = \"allow\", destination = \"10.0.0.0/8\" }]\n";
    let sample = "[[stage]]\nuse = \"sample\"\none_in = 10\n";
    let warnings = |text: String| plan(&format!("{TUNNEL}{text}")).warnings.join("\n");
    let found = warnings(format!("{sample}{acl}"));
    assert!(found.contains("stage[0] \"sample\": what it sends home passes stage[1] \"acl\" by"), "{found}");
    assert!(!warnings(format!("{acl}{sample}")).contains("passes stage"));
}
