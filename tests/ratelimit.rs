//! The stage `ratelimit` through all hops, on one worker and on several.

mod common;

use common::inner::{End, tcp, udp, v4, v6, wrap, wrap_from};
use common::team::Team;
use common::{Rig, TUNNEL, plan};
use sluicegate::event::{Alert, Body, Said};
use sluicegate::path::Clock;

const MS: u64 = 1_000_000;
const SINK: &str = "[[events.sink]]\nto = \"stdout\"\ntypes = [\"alert\"]\n";

fn rig(limits: &str) -> Rig {
    Rig::new(&plan(&format!("{TUNNEL}{SINK}[[stage]]\nuse = \"ratelimit\"\n{limits}")))
}

fn client(n: u8) -> End {
    v4(10, 1, 0, n, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 53)
}

/// Sends a frame; did it come home?
fn passes(rig: &mut Rig, frame: &[u8]) -> bool {
    rig.wire.send(frame.to_vec());
    while rig.worker.poll() > 0 {}
    let home = rig.wire.receive().is_some();
    while rig.wire.receive().is_some() {}
    home
}

/// How many of so many tries in each millisecond pass.
fn passing(rig: &mut Rig, ms: std::ops::Range<u64>, tries: usize, frame: &[u8]) -> usize {
    ms.map(|ms| {
        rig.set_clock(ms * MS);
        (0..tries).filter(|_| passes(rig, frame)).count()
    })
    .sum()
}

fn counts(rig: &Rig) -> Vec<(String, u64)> {
    let (_, stage) = rig.pipeline.stages().next().expect("a stage");
    stage.counts().into_iter().filter(|(_, n)| *n > 0).collect()
}

fn drops(rig: &Rig, label: &str) -> u64 {
    let (id, ..) = rig.reasons.iter().find(|(_, name, _)| *name == label).expect("a reason");
    rig.settled().drops[usize::from(id.0)]
}

/// Alerts since the last call: the rule, and whether the packet was stopped.
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

/// A second at 3,000 offered: the rate and the burst of each address, in packets; others are not touched.
#[test]
fn packets_of_a_source_are_policed() {
    let mut rig =
        rig("[[stage.limit]]\nname = \"pps\"\nper = \"source\"\npackets_per_s = 1000\nburst = \"50ms\"\n");
    let (one, other) =
        (wrap(&udp(client(1), server(), b"?"), 7, 60_001), wrap(&udp(client(2), server(), b"?"), 8, 60_001));
    let got = passing(&mut rig, 1000..2000, 3, &one);
    assert!((1049..=1051).contains(&got), "{got}");
    assert_eq!(passing(&mut rig, 2000..2050, 1, &other), 50);
    assert_eq!(drops(&rig, "ratelimit.source"), 3000 - got as u64);
    assert_eq!(counts(&rig), [("pps: packets over".to_owned(), 3000 - got as u64)]);
    // One a second, whatever is dropped.
    assert_eq!(alerts(&mut rig), [(0, true)]);
    // Answers are of who asked: the server has no bucket of its own.
    let back = wrap(&udp(server(), client(2), b"!"), 8, 60_001);
    let got = passing(&mut rig, 2050..2150, 2, &back);
    assert!((100 + 49..=100 + 51).contains(&got), "{got}");
}

/// Bytes of inner packets, of sizes that do not divide the rate.
#[test]
fn bytes_of_a_destination_are_policed() {
    let limits =
        "[[stage.limit]]\nname = \"bps\"\nper = \"destination\"\nbytes_per_s = 1_000_000\nburst = \"20ms\"\n";
    let mut rig = rig(limits);
    let frame = wrap(&udp(client(1), server(), &[0; 701]), 7, 60_001);
    let bytes = 729 * passing(&mut rig, 0..2000, 4, &frame);
    assert!((2_019_000 - 729..=2_019_000 + 729).contains(&bytes), "{bytes}");
    // Another family, another bucket.
    let six = wrap(&udp(v6("2001:db8::1", 5), v6("2001:db8::2", 5), &[0; 701]), 7, 60_001);
    assert!(passing(&mut rig, 2000..2001, 10, &six) == 10);
}

/// A flow too many is dropped with all of its packets, in the same batch as well; those that are let in are not looked at again.
#[test]
fn new_flows_too_many_are_dropped_as_wholes() {
    let mut rig =
        rig("[[stage.limit]]\nname = \"new\"\nper = \"source\"\nnew_flows_per_s = 20\nburst = \"100ms\"\n");
    let syn = |n: u16| wrap(&tcp(v4(10, 1, 0, 1, 1000 + n), server(), "S", 1, 0, &[]), n.into(), 60_001);
    // Two at once are the burst. Each SYN comes twice in one batch.
    for n in 0..4 {
        rig.wire.send(syn(n));
        rig.wire.send(syn(n));
    }
    while rig.worker.poll() > 0 {}
    assert_eq!((rig.settled().sent, rig.settled().dropped()), (4, 4));
    while rig.wire.receive().is_some() {}
    assert_eq!(counts(&rig), [("new: new flows over".to_owned(), 2)]);
    assert_eq!(drops(&rig, "ratelimit.source"), 4);
    rig.set_clock(40 * MS);
    assert!(passes(&mut rig, &syn(0)) && !passes(&mut rig, &syn(3)));
    assert_eq!((drops(&rig, "flow_condemned"), rig.settled().stages[0].seen), (1, 8));
    rig.set_clock(60 * MS);
    assert!(passes(&mut rig, &syn(9)) && !passes(&mut rig, &syn(10)));
    assert_eq!(alerts(&mut rig).len(), 1);
}

#[test]
fn what_is_reported_passes() {
    let mut rig =
        rig("[[stage.limit]]\nname = \"r\"\nper = \"all\"\npackets_per_s = 10\nmode = \"report\"\n");
    let frame = wrap(&udp(client(1), server(), b"?"), 7, 60_001);
    assert_eq!(passing(&mut rig, 0..100, 1, &frame), 100);
    let over = counts(&rig)[0].1;
    assert!((97..=99).contains(&over), "{over}");
    assert_eq!(alerts(&mut rig), [(0, false)]);
    assert_eq!(passing(&mut rig, 1000..1100, 1, &frame), 100);
    assert_eq!(alerts(&mut rig), [(0, false)]);
}

/// A flow's own bucket, one direction of it, and a match.
#[test]
fn flows_directions_and_matches() {
    let limits = "[[stage.limit]]\nname = \"f\"\nper = \"flow\"\npackets_per_s = 100\nburst = \"20ms\"\ndirection = \"to_client\"\n\
                  protocol = \"udp\"\ndestination_port = 53\n";
    let mut rig = rig(limits);
    let there = wrap(&udp(client(1), server(), b"?"), 7, 60_001);
    let back = wrap(&udp(server(), client(1), b"!"), 7, 60_001);
    assert_eq!(passing(&mut rig, 0..50, 1, &there), 50);
    assert_eq!(passing(&mut rig, 50..150, 1, &back), 11);
    assert_eq!(drops(&rig, "ratelimit.flow"), 89);
    // Another flow has another bucket, another port is none of this limit's.
    let other = wrap(&udp(server(), client(2), b"!"), 7, 60_001);
    passes(&mut rig, &wrap(&udp(client(2), server(), b"?"), 7, 60_001));
    assert_eq!(passing(&mut rig, 150..152, 1, &other), 2);
    let to = v4(10, 2, 0, 9, 54);
    passes(&mut rig, &wrap(&udp(client(3), to, b"?"), 7, 60_001));
    assert_eq!(passing(&mut rig, 152..252, 1, &wrap(&udp(to, client(3), b"!"), 7, 60_001)), 100);
}

/// Each tenant has a bucket of its own, a limit may be one tenant's, and a tenant that is not there is a mistake.
#[test]
fn tenants_are_limited_apart() {
    let text = |tenant: &str| {
        format!(
            "{TUNNEL}[[tenant]]\nname = \"a\"\nendpoints = [1]\n[[tenant]]\nname = \"b\"\nendpoints = [2]\n[[stage]]\nuse = \"ratelimit\"\n\
             [[stage.limit]]\nname = \"t\"\nper = \"tenant\"\npackets_per_s = 100\nburst = \"50ms\"\n\
             [[stage.limit]]\nname = \"b's\"\nper = \"all\"\ntenant = \"{tenant}\"\npackets_per_s = 20\nburst = \"50ms\"\n"
        )
    };
    let mut rig = Rig::new(&plan(&text("b")));
    let frame = |endpoint| wrap_from(endpoint, &udp(client(1), server(), b"?"), 7, 60_001);
    assert_eq!(passing(&mut rig, 0..1, 10, &frame(1)), 5);
    assert_eq!(passing(&mut rig, 0..1, 10, &frame(2)), 1);
    assert_eq!((drops(&rig, "ratelimit.tenant"), drops(&rig, "ratelimit.all")), (10, 4));
    let wrong = std::panic::catch_unwind(|| plan(&text("c"))).unwrap_err();
    let wrong = wrong.downcast_ref::<String>().unwrap();
    assert!(wrong.contains("limit[1].tenant: there is no tenant \"c\"; "), "{wrong}");
}

/// More senders near their limits than there are buckets.
#[test]
fn without_a_bucket_packets_pass_or_not_as_the_limit_says() {
    for (when_full, dropped) in [("pass", false), ("drop", true)] {
        let mut rig = rig(&format!(
            "[[stage.limit]]\nname = \"s\"\nper = \"source\"\npackets_per_s = 1\nburst = \"1s\"\nbuckets = 64\nwhen_full = \"{when_full}\"\n"
        ));
        let frame = |n: u8| wrap(&udp(client(n), server(), b"?"), 7, 60_001);
        let passed = (1..=250).filter(|n| passes(&mut rig, &frame(*n))).count() as u64;
        let without = counts(&rig).iter().find(|(label, _)| label == "s: no bucket").unwrap().1;
        assert!((250 - 64..220).contains(&without), "{without}");
        assert_eq!(passed, 250 - if dropped { without } else { 0 });
        assert_eq!(drops(&rig, "ratelimit.no_bucket"), if dropped { without } else { 0 });
        // A second later every bucket is full, and there is one for each again.
        rig.set_clock(1_000 * MS);
        assert!(passes(&mut rig, &frame(251)));
    }
}

/// A reload that leaves the stage as it is leaves its buckets as they are.
#[test]
fn buckets_outlive_a_reload_of_something_else() {
    let text = |more: &str| {
        format!(
            "{TUNNEL}[[stage]]\nuse = \"ratelimit\"\n[[stage.limit]]\nname = \"a\"\nper = \"all\"\npackets_per_s = 10\nburst = \"1s\"\n{more}"
        )
    };
    let mut rig = Rig::new(&plan(&text("")));
    let frame = wrap(&udp(client(1), server(), b"?"), 7, 60_001);
    assert_eq!(passing(&mut rig, 0..1, 15, &frame), 10);
    rig.reload(&plan(&text("[[stage]]\nuse = \"count\"\n")));
    assert_eq!(passing(&mut rig, 1..2, 15, &frame), 0);
    rig.reload(&plan(&text("").replace("= 10", "= 11")));
    assert_eq!(passing(&mut rig, 2..3, 15, &frame), 11);
}

fn two_workers(limits: &str) -> String {
    format!(
        "{TUNNEL}\n[eal]\nidle = \"backoff\"\n[flow]\ntracking = true\n[[stage]]\nuse = \"ratelimit\"\n{limits}"
    )
}

const OF_SOURCE: &str =
    "[[stage.limit]]\nname = \"s\"\nper = \"source\"\npackets_per_s = 10_000\nburst = \"10ms\"\n";

/// Many flows of one source come to two workers: together they get the rate, and the burst once.
#[test]
fn workers_share_the_buckets_of_a_source() {
    let mut team = Team::of(&plan(&two_workers(OF_SOURCE)), 2, 1024);
    let mut home = 0;
    for ms in 0..200u64 {
        team.hand.store(ms * MS, std::sync::atomic::Ordering::Relaxed);
        for n in 0..40u16 {
            let packet = udp(v4(10, 1, 0, 1, 1000 + n), server(), b"?");
            team.wire.send(wrap(&packet, n.into(), 50_000 + n * 7));
        }
        team.settle();
        home += std::iter::from_fn(|| team.wire.receive()).count();
    }
    let shares: Vec<u64> = team.snapshots().iter().map(|worker| worker.received).collect();
    assert!(shares.iter().all(|received| *received > 1000), "{shares:?}");
    assert!((2090..=2100).contains(&home), "{home}");
}

/// The same on threads, under the real clock.
#[test]
fn threads_share_the_buckets_of_a_source() {
    let mut team =
        Team::over(&plan(&two_workers(OF_SOURCE)), 2, 1024, &common::pool_config(4096), Clock::cycles());
    let frames: Vec<Vec<u8>> = (0..40u16)
        .map(|n| wrap(&udp(v4(10, 1, 0, 1, 1000 + n), server(), b"?"), n.into(), 50_000 + n * 7))
        .collect();
    let (home, seconds) = team.run(|wire| {
        let (begun, mut home, mut last) = (std::time::Instant::now(), 0usize, std::time::Instant::now());
        let mut frame = Vec::new();
        while begun.elapsed().as_millis() < 500 {
            frames.iter().for_each(|frame| wire.send_copy(frame));
            while wire.receive_into(&mut frame) {
                (home, last) = (home + 1, std::time::Instant::now());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // What is still on its way.
        while last.elapsed().as_millis() < 200 {
            while wire.receive_into(&mut frame) {
                (home, last) = (home + 1, std::time::Instant::now());
            }
        }
        (home, begun.elapsed().as_secs_f64())
    });
    // Never more than the rate and the burst; a thread that had no CPU for a while may have seen less offered.
    assert!(home as f64 <= 10_000.0 * seconds + 101.0 && home > 1_000, "{home} in {seconds} s");
}
