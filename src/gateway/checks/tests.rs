mod world;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use State::{Healthy, Initial, Unhealthy};
use world::{Manner, OURS, OWN, Server, World, certificate, checked, ok, settings};

const SECOND: Duration = Duration::from_secs(1);

/// What is known of targets with these manners after a first check and its timeout.
fn reasons(more: &str, manners: Vec<Manner>) -> (World, Vec<String>) {
    let mut world = World::new(settings(more), manners);
    world.run(SECOND * 4);
    let reasons = world.reasons();
    (world, reasons)
}

#[test]
fn connections_succeed_or_fail_for_a_reason() {
    let manners = vec![Manner::Mute, Manner::Refuses, Manner::Silent, Manner::Away, Manner::Prohibits];
    let (world, reasons) = reasons("", manners);
    assert_eq!(
        reasons,
        [
            "connected",
            "connection refused",
            "timed out after 2s: no answer to SYN",
            "timed out after 2s: nobody answers ARP for 10.0.0.13",
            "timed out after 2s: no answer to SYN; ICMP says: administratively prohibited",
        ]
    );
    assert_eq!(world.states(), [Healthy, Initial, Initial, Initial, Initial]);
    let server = &world.servers[0];
    assert_eq!((server.acks, server.resets), (1, 1), "the handshake is completed, then reset");
    assert_eq!(world.checker.connections(), 0);
    assert_eq!(world.checker.sockets.iter().count(), 0, "sockets are given back");
}

#[test]
fn pages_succeed_or_fail_for_a_reason() {
    let says = |text: &str| Manner::Says(text.as_bytes().to_vec());
    let manners = vec![
        ok(),
        says("HTTP/1.1 503 Service Unavailable\r\n\r\n"),
        says("HTTP/1.0 301 Moved\r\nLocation: /elsewhere\r\n\r\n"),
        says("SSH-2.0-OpenSSH_9.2p1\r\n"),
        says("HTTP/1.1 200 OK\r\nContent-"),
        says(""),
        Manner::Mute,
        Manner::Resets,
        Manner::Trickles(b"HTTP/1.1 200 OK\r\nX-Slow: very slow indeed and much, much longer than anybody would wait for it, so that it cannot be over in time, whatever the clock says\r\n".repeat(9)),
        Manner::Goes(b"HTTP/1.1 200 OK\r\n"),
        Manner::Refuses,
    ];
    let (world, reasons) = reasons("protocol = \"http\"\npath = \"/ready\"", manners);
    assert_eq!(
        reasons,
        [
            "HTTP 200",
            "HTTP 503",
            "HTTP 301",
            "not an answer of HTTP/1",
            "connection closed before the answer was complete",
            "connection closed before an answer came",
            "timed out after 2s: connected, but no answer came",
            "connection reset before an answer came",
            "timed out after 2s: the answer is not complete",
            "HTTP: the answer's head is longer than 16 kB",
            "connection refused",
        ]
    );
    let heard = String::from_utf8(world.servers[0].heard.clone()).unwrap();
    let lines: Vec<&str> = heard.split("\r\n").collect();
    assert_eq!(lines[..2], ["GET /ready HTTP/1.1", "Host: 10.0.0.10:8080"]);
    assert!(lines[2].starts_with("User-Agent: Sluicegate-HealthChecker/"), "{heard}");
    assert_eq!(lines[4..], ["Connection: close", "", ""]);
}

#[test]
fn tls_succeeds_or_fails_for_a_reason() {
    let [new, old] = [&rustls::version::TLS13, &rustls::version::TLS12];
    let page = |code: u16| format!("HTTP/1.1 {code} X\r\n\r\n").into_bytes();
    let manners = vec![
        Manner::Tls(certificate(&[new]), page(200)),
        Manner::Tls(certificate(&[old]), page(200)),
        Manner::Tls(certificate(&[new, old]), page(500)),
        Manner::Tls(certificate(&[new]), b"220 mail\r\n".to_vec()),
        Manner::Goes(b"HTTP/1.1 400 this is not TLS\r\n"),
        Manner::Goes(b"\x15\x03\x03\x00\x02\x02\x28"), // an alert: handshake failure
        Manner::Mute,
        Manner::Resets,
        Manner::Refuses,
    ];
    let (world, reasons) = reasons("protocol = \"https\"\npath = \"/ready\"", manners);
    assert_eq!(
        reasons,
        [
            "HTTP 200",
            "HTTP 200",
            "HTTP 500",
            "not an answer of HTTP/1",
            "TLS: what answers does not speak TLS",
            "TLS: received fatal alert: HandshakeFailure",
            "timed out after 2s: connected, but the TLS handshake is not complete",
            "connection reset before the TLS handshake was complete",
            "connection refused",
        ]
    );
    let heard = String::from_utf8(world.servers[0].heard.clone()).unwrap();
    assert!(heard.starts_with("GET /ready HTTP/1.1\r\nHost: 10.0.0.10:8080\r\n"), "{heard}");
}

#[test]
fn a_target_dies_and_recovers_within_its_thresholds() {
    let mut world = World::new(settings("unhealthy_threshold = 2\njitter = \"0s\""), vec![Manner::Mute]);
    world.run(SECOND * 12);
    assert_eq!(world.states(), [Healthy]);
    let died = world.now;
    world.servers[0].manner = Manner::Silent;
    world.run(SECOND * 30);
    let (at, change) = world.changes.pop().unwrap();
    let expected = "timed out after 2s: no answer to SYN";
    assert!(
        matches!(&change, Change::State { from: Healthy, to: Unhealthy, reason, .. } if reason == expected),
        "{change}"
    );
    assert!(at - died <= SECOND * (2 * 5 + 2), "two intervals and a timeout, not {:?}", at - died);
    let back = world.now;
    world.servers[0].manner = Manner::Mute;
    world.run(SECOND * 30);
    let (at, change) = world.changes.pop().unwrap();
    assert_eq!(change.to_string(), "target 10.0.0.10 is healthy: connected");
    assert!(
        at - back > SECOND * 10 && at - back <= SECOND * 15 + SECOND,
        "three successes, not {:?}",
        at - back
    );
}

#[test]
fn bad_targets_do_not_hold_up_good_ones() {
    // A hundred of each kind that costs most, and one good one among them.
    let bad = [Manner::Silent, Manner::Goes(b"HTTP/1.1 100 Continue\r\n\r\n"), Manner::Mute, Manner::Away];
    let mut manners: Vec<Manner> = bad.into_iter().cycle().take(100).collect();
    manners.insert(50, ok());
    let mut world = World::new(settings("protocol = \"http\"\njitter = \"0s\""), manners);
    world.run(SECOND * 21);
    let snapshot = world.checker.snapshot(world.now);
    let good = &snapshot.targets[50];
    assert_eq!((good.state, good.failures, good.checks), (Healthy, 0, 5), "{good:?}");
    assert!(good.latency_ms.unwrap() <= 10.0, "{good:?}");
    assert!(snapshot.targets.iter().all(|target| target.checks >= 4), "everybody's turn comes");
    assert!(snapshot.connections <= 101);
}

#[test]
fn checks_come_at_their_interval_or_a_little_earlier() {
    let starts = |jitter: &str| {
        let mut world = World::new(settings(&format!("jitter = \"{jitter}\"")), vec![Manner::Mute]);
        let mut starts = Vec::new();
        for _ in 0..12_000 {
            let before = world.servers[0].syns;
            world.run(Duration::from_millis(10));
            if world.servers[0].syns > before {
                starts.push(world.now);
            }
        }
        starts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect::<Vec<_>>()
    };
    let even = starts("0s");
    assert!(even.len() >= 22 && even.iter().all(|gap| (5000..=5010).contains(gap)), "{even:?}");
    let uneven = starts("2s");
    assert!(uneven.iter().all(|gap| (2990..=5010).contains(gap)), "{uneven:?}");
    let [least, most] = [uneven.iter().min().unwrap(), uneven.iter().max().unwrap()];
    assert!(most - least > 1000, "{uneven:?}");
}

#[test]
fn first_checks_are_spread() {
    let mut world = World::new(settings(""), vec![Manner::Mute; 50]);
    world.run(SECOND / 2);
    let begun = world.servers.iter().filter(|server| server.syns > 0).count();
    assert!((10..=40).contains(&begun), "{begun} of 50 within half a second");
    world.run(SECOND);
    assert!(world.servers.iter().all(|server| server.syns == 1));
}

#[test]
fn a_pause_of_our_own_is_no_targets_fault() {
    let mut world = World::new(settings("protocol = \"http\""), vec![ok(), Manner::Mute]);
    // Both have been asked, and have not been heard yet.
    while world.checker.connections() < 2 {
        world
            .changes
            .extend(world.checker.poll(world.now, &mut world.device).into_iter().map(|c| (world.now, c)));
        world.settle_without_checker();
        world.now += Duration::from_millis(1);
    }
    world.now += SECOND * 60;
    world.run(SECOND);
    let targets = world.checker.snapshot(world.now).targets;
    assert_eq!(targets[0].failures + targets[1].failures, 0, "{targets:?}");
    assert_eq!(targets[0].state, Healthy);
    world.run(SECOND * 2);
    assert_eq!(world.reasons()[1], "timed out after 2s: connected, but no answer came");
}

#[test]
fn addresses_are_told_and_claims_are_not_believed() {
    let mut world = World::new(settings(""), vec![Manner::Mute, Manner::Mute]);
    world.run(SECOND * 2);
    let macs: Vec<String> = world
        .changes
        .iter()
        .map(|(_, change)| change.to_string())
        .filter(|c| c.contains("reached"))
        .collect();
    assert_eq!(
        macs,
        [
            "target 10.0.0.10 is reached at 02:00:00:00:01:0a",
            "target 10.0.0.11 is reached at 02:00:00:00:01:0b"
        ]
    );
    world.changes.clear();
    let thief = [2, 0, 0, 0, 0, 66];
    let claim = arp::Arp {
        asks: false,
        sender_mac: thief,
        sender: world.servers[0].address,
        target_mac: OURS,
        target: OWN,
    };
    world.device.put(&mut claim.frame(OURS));
    world.run(SECOND * 8);
    let said: Vec<String> = world.changes.iter().map(|(_, change)| change.to_string()).collect();
    assert_eq!(
        said,
        ["02:00:00:00:00:42 claims the address 10.0.0.10; it is not believed while its holder answers"]
    );
    let targets = world.checker.snapshot(world.now).targets;
    assert_eq!((targets[0].mac.as_deref(), targets[0].mac_claims), (Some("02:00:00:00:01:0a"), 1));
    assert_eq!((targets[0].failures, targets[0].mac_changes), (0, 0));
    // It moves: silent where it was, it answers elsewhere.
    world.changes.clear();
    let mut moved = Server::new(10, Manner::Mute);
    moved.manner = Manner::Mute;
    moved.move_to(thief);
    world.servers[0] = moved;
    world.run(SECOND * 20);
    let said: Vec<String> = world.changes.iter().map(|(_, change)| change.to_string()).collect();
    assert!(
        said.iter().any(|said| said
            == "target 10.0.0.10 is reached at 02:00:00:00:00:42 now, no longer at 02:00:00:00:01:0a"),
        "{said:?}"
    );
    assert_eq!(world.reasons()[0], "connected");
}

#[test]
fn a_configured_address_is_never_asked_for_nor_overwritten() {
    let mut world = World::new(settings(""), vec![Manner::Mute, Manner::Mute]);
    let elsewhere: Ipv4Addr = [192, 0, 2, 9].into();
    let targets = vec![
        checked(0, world.servers[0].address, Some(world.servers[0].mac)),
        checked(1, world.servers[1].address, Some([2, 9, 9, 9, 9, 9])), // nobody's
        checked(2, elsewhere, None),
    ];
    world.checker.set_targets(targets, world.now);
    world.run(SECOND * 10);
    let snapshot = world.checker.snapshot(world.now);
    let targets = &snapshot.targets;
    assert_eq!(snapshot.arp.asked, 0);
    assert!(targets[0].mac_fixed && targets[0].mac.as_deref() == Some("02:00:00:00:01:0a"));
    assert_eq!(world.reasons()[0], "connected");
    assert_eq!(targets[1].mac.as_deref(), Some("02:09:09:09:09:09"));
    assert_eq!(world.reasons()[1], "timed out after 2s: no answer to SYN");
    assert_eq!(world.reasons()[2], "it is in another network, and no router to it is configured");
    assert_eq!(targets[2].mac, None);
}

#[test]
fn without_checks_addresses_are_found_and_nothing_else_is_said() {
    let mut world = World::new(settings(""), vec![Manner::Mute, Manner::Away]);
    let targets =
        vec![checked(0, world.servers[0].address, None), checked(1, world.servers[1].address, None)];
    world.checker = Checker::without_checks(world.checker.stand.clone(), 7);
    world.checker.set_targets(targets, world.now);
    world.run(SECOND * 20);
    let said: Vec<String> = world.changes.iter().map(|(_, change)| change.to_string()).collect();
    assert_eq!(said, ["target 10.0.0.10 is reached at 02:00:00:00:01:0a"]);
    let checks: u64 = world.checker.snapshot(world.now).targets.iter().map(|target| target.checks).sum();
    assert_eq!((checks, world.servers[0].syns), (0, 0));
}

#[test]
fn targets_in_other_networks_are_reached_by_the_router() {
    let mut world = World::new(settings(""), vec![Manner::Mute]);
    let stand = Stand { router: Some(world.servers[0].address), ..world.checker.stand.clone() };
    world.checker = Checker::new(settings(""), stand, 7);
    // The router has the target's address beside its own: whoever is behind it, the frames go to it.
    let far: Ipv4Addr = [192, 0, 2, 9].into();
    world.servers[0].also(far);
    world
        .checker
        .set_targets(vec![checked(0, far, None), checked(1, [192, 0, 2, 10].into(), None)], world.now);
    world.run(SECOND * 4);
    assert_eq!(world.reasons(), ["connected", "timed out after 2s: no answer to SYN"]);
    let snapshot = world.checker.snapshot(world.now);
    assert_eq!(snapshot.arp.asked, 2, "the router, once for both, and again when one of them was silent");
    assert!(snapshot.targets.iter().all(|target| target.mac.as_deref() == Some("02:00:00:00:01:0a")));
}

#[test]
fn targets_come_and_go_and_keep_what_is_known_of_them() {
    let mut world = World::new(settings("protocol = \"http\""), vec![Manner::Mute, ok(), ok()]);
    world.run(SECOND * 8);
    assert_eq!(world.states(), [Unhealthy, Healthy, Healthy]);
    let before = world.checker.snapshot(world.now).targets;
    world.run(SECOND * 2);
    world.changes.clear();
    let [a, b, c] = [0, 1, 2].map(|n: usize| world.servers[n].address);
    let resets = world.servers[0].resets;
    let open = world.checker.connections();
    world.checker.set_targets(vec![checked(0, c, None), checked(1, b, None), checked(2, c, None)], world.now);
    world.settle();
    let after = world.checker.snapshot(world.now).targets;
    let addresses: Vec<Ipv4Addr> = after.iter().map(|target| target.address).collect();
    assert_eq!(addresses, [c, b], "the second of one address is left out");
    assert!(after[1].checks >= before[1].checks && after[0].checks >= before[2].checks);
    assert_eq!(world.states(), [Healthy, Healthy]);
    assert_eq!(world.changes, [], "nothing has changed for them");
    assert_eq!(world.checker.known(c), Some((Healthy, Some(world.servers[2].mac))));
    assert_eq!(world.checker.known(a), None);
    assert_eq!(world.servers[0].resets - resets, open as u32, "the check of one that is gone is reset");
    world.servers[1].manner = Manner::Refuses;
    world.run(SECOND * 20);
    let told = world.changes.iter().find(|(_, change)| matches!(change, Change::State { .. })).unwrap();
    assert!(matches!(told.1, Change::State { target: TargetId(1), address, .. } if address == b), "{told:?}");
    world.checker.set_targets(vec![checked(0, a, None), checked(1, b, None)], world.now);
    world.settle();
    assert_eq!(world.states(), [Initial, Unhealthy], "whoever comes back begins anew");
}

#[test]
fn new_settings_hold_from_the_next_check_on() {
    let mut world = World::new(HealthCheck { interval: SECOND * 300, ..settings("") }, vec![ok()]);
    world.run(SECOND * 4);
    assert_eq!(world.reasons(), ["connected"]);
    world.checker.set_settings(settings("protocol = \"http\"\nmatcher = \"204\""), world.now);
    world.run(SECOND * 7);
    assert_eq!((world.reasons(), world.states()), (vec!["HTTP 200".to_owned()], vec![Healthy]));
    world.run(SECOND * 5);
    assert_eq!(world.states(), [Unhealthy], "200 is not 204");
}

/// The checksum of IP (RFC 1071).
fn ones_complement(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn others_are_answered_where_they_spoke_from() {
    let mut world = World::new(settings(""), vec![Manner::Mute]);
    world.run(SECOND * 2);
    // An echo request of a host that nobody has configured, in another network, through some router.
    let router = [2, 0, 0, 0, 0, 99];
    let mut ping = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 192, 0, 2, 50, 10, 0, 0, 1];
    let sum = ones_complement(&ping);
    ping[10..12].copy_from_slice(&sum.to_be_bytes());
    ping.extend([8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    let mut frame = [&OURS[..], &router, &[8, 0], &ping].concat();
    world.device.put(&mut frame);
    world.checker.poll(world.now, &mut world.device);
    let mut frames = Vec::new();
    world.device.drain(|frame| frames.push(frame.to_vec()));
    let [answer] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&answer[..6], answer[34]), (&router[..], 0), "an echo reply, back through the router");
}

/// The rings of two workers with a queue on port 3, and their other ends.
#[test]
fn rings_of_workers_are_a_device() {
    use crate::path::{HostEnd, ring};
    use crate::stage::WorkerId;
    let mut world = World::new(settings(""), vec![Manner::Mute]);
    let (mut ends, mut workers) = (Vec::new(), Vec::new());
    for n in 0..2 {
        let ((writer, punted), (replies, reader)) = (ring(1 << 16), ring(1 << 16));
        ends.push(HostEnd { worker: WorkerId(n), ports: vec![3], punted, replies });
        workers.push((writer, reader));
    }
    let mut port = TargetPort::new(ends, 3, 1500);
    let mut busy = false;
    for _ in 0..600 {
        busy |= port.poll(world.now, &mut world.checker).0;
        // What workers are given is on the wire, and what comes from it the second one punts.
        for (_, reader) in &mut workers {
            while let Some((port, len)) = reader.peek() {
                let mut frame = vec![0; len];
                assert!(reader.take(&mut frame) && port == 3 && len >= 60, "{len} bytes for port {port}");
                world.servers[0].hear(&frame);
            }
        }
        for frame in world.servers[0].say(world.now) {
            assert!(workers[1].0.write(3, &frame));
            assert!(workers[1].0.write(4, &frame), "of another port, which is not looked at");
        }
        world.now += Duration::from_millis(10);
    }
    assert_eq!((world.reasons(), world.states()), (vec!["connected".to_owned()], vec![Healthy]));
    let [received, sent, no_room] = port.counts();
    assert!(busy && received >= 4 && sent >= 4 && no_room == 0, "{received} {sent} {no_room}");
}

proptest::proptest! {
    #[test]
    fn whatever_frames_come_checks_go_on(
        choice in 0u8..3,
        records in proptest::collection::vec((proptest::prelude::any::<u8>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)), 0..60),
    ) {
        let records = records.iter().flat_map(|(what, body)| [&[*what, body.len() as u8], &body[..]].concat());
        arbitrary_frames(&[choice].into_iter().chain(records).collect::<Vec<u8>>());
    }

    /// Whatever frames come, and in whatever order, nothing panics, and nobody gets in the way of a good target for long.
    #[test]
    fn whatever_comes_is_borne(
        frames in proptest::collection::vec((proptest::prelude::any::<bool>(), 0u8..3, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)), 0..40),
    ) {
        let mut world = World::new(settings("protocol = \"http\""), vec![ok()]);
        for (to_us, kind, bytes) in frames {
            let to = if to_us { OURS } else { [0xff; 6] };
            let kind: &[u8] = match kind { 0 => &[8, 0], 1 => &[8, 6], _ => &[] };
            let ip: &[u8] = if kind == [8, 0] { &[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6] } else { &[] };
            world.device.put(&mut [&to[..], &[2, 0, 0, 0, 0, 9], kind, ip, &bytes].concat());
            world.run(Duration::from_millis(20));
        }
        world.run(SECOND * 3);
        proptest::prop_assert_eq!(world.states(), [Healthy]);
    }
}
