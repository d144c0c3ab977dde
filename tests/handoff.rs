//! Several workers on one soft port: every flow has one owner, whatever RSS makes of its packets, and nothing is lost on the way.

mod common;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use common::inner::{End, pieces, tcp, udp, unreachable, v4, wrap, wrap_from};
use common::team::Team;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::path::{Ledger, Worker, WorkerSnapshot};
use sluicegate::stage::WorkerId;

fn client(n: u32) -> End {
    v4(10, (n >> 16) as u8, (n >> 8) as u8, n as u8, 40_000)
}

const SERVER: fn() -> End = || v4(192, 0, 2, 1, 443);

#[test]
fn both_directions_meet_at_one_owner_and_nothing_is_lost() {
    for workers in [2, 3, 8] {
        let mut random = ChaCha8Rng::seed_from_u64(workers as u64);
        let mut team = Team::new(workers, "", 1024);
        // Half of the flows come with another outer port in each direction.
        let ports: Vec<[u16; 2]> = (0..500)
            .map(|n| {
                let there = random.random_range(60_000..=65_535);
                [there, if n % 2 == 0 { there } else { random.random_range(60_000..=65_535) }]
            })
            .collect();
        let mut sent = 0u64;
        let mut last: HashMap<(u32, bool), u32> = HashMap::new();
        let mut back = 0u64;
        for round in 0..60u32 {
            for _ in 0..400 {
                let n = random.random_range(0..500u32);
                let reply = random.random_bool(0.5);
                let (from, to) = if reply { (SERVER(), client(n)) } else { (client(n), SERVER()) };
                let mut payload = [0; 12];
                payload[..4].copy_from_slice(&n.to_be_bytes());
                payload[4..8].copy_from_slice(&u32::from(reply).to_be_bytes());
                payload[8..].copy_from_slice(&(sent as u32).to_be_bytes());
                team.wire.send(wrap(&udp(from, to, &payload), n, ports[n as usize][usize::from(reply)]));
                sent += 1;
            }
            // In any order, now and then not at all.
            for _ in 0..workers * 4 {
                let worker = random.random_range(0..workers);
                team.workers[worker].poll();
                team.ledger();
            }
            team.hand.store(u64::from(round) * 10_000_000, Ordering::Relaxed);
            if round % 10 == 9 {
                team.settle();
            }
            while let Some(frame) = team.wire.receive() {
                let payload = &frame[frame.len() - 12..];
                let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                let flow = (word(0), word(4) != 0);
                let before = last.insert(flow, word(8));
                assert!(before.is_none_or(|before| before < word(8)), "{flow:?} out of order");
                back += 1;
            }
        }
        assert_eq!(back, sent, "{workers} workers");
        let (flows, ledger) = (team.flows(), team.ledger());
        assert_eq!((ledger.dropped, ledger.sent, ledger.received), (0, sent, sent));
        assert_eq!((flows.opened, flows.stateless, flows.astray), (500, 0, 0));
        // Of 250 flows with two ports, all but one in so many come to two workers.
        let expected = 250 * (workers as u64 - 1) / workers as u64;
        assert!(flows.misaligned.abs_diff(expected) < 50, "{} of {expected}", flows.misaligned);
        assert_eq!((flows.handed_in, flows.directory_hits), (flows.handed_out, flows.handed_out));
    }
}

#[test]
fn expiry_and_new_life_on_another_worker() {
    let mut team = Team::new(2, "other_idle = \"1s\"\nmargin = \"0s\"", 1024);
    let (mut owners, mut random) = ([0u64; 2], ChaCha8Rng::seed_from_u64(1));
    for life in 0..40u64 {
        team.hand.store(life * 4_000_000_000, Ordering::Relaxed);
        for _ in 0..50 {
            team.settle();
        }
        assert_eq!(team.workers.iter_mut().map(|w| w.flows().unwrap().live()).sum::<u32>(), 0);
        for _ in 0..20 {
            let port = random.random_range(60_000..=65_535);
            team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, port));
            team.settle();
        }
        let live: Vec<u32> = team.workers.iter_mut().map(|w| w.flows().unwrap().live()).collect();
        assert_eq!(live.iter().sum::<u32>(), 1, "one owner at a time");
        owners[usize::from(live[1] == 1)] += 1;
    }
    assert!(owners.iter().all(|&n| n > 5), "{owners:?}: whoever sees it first");
    assert_eq!(team.ledger().sent, 800);
}

/// A peer with several queues gives as much in a poll as they bring: who takes one burst of it keeps it waiting for room.
#[test]
fn a_worker_takes_as_many_bursts_of_a_peer_as_it_has_queues() {
    let mut team = Team::with_lanes(4, 2, 1024);
    let packet = |n: u32, port: u16| wrap(&udp(client(n), SERVER(), b"x"), 7, port);
    let received = |team: &Team| team.snapshots().iter().map(|worker| worker.received).collect::<Vec<_>>();
    // Which worker an outer port leads to: flows of their own, beyond those below.
    let mut leads_to = |port: u16| {
        let before = received(&team);
        team.wire.send(packet(1_000 + u32::from(port) - 60_000, port));
        team.settle();
        usize::from(received(&team)[0] == before[0])
    };
    let ports: Vec<(usize, u16)> = (60_000..60_064).map(|port| (leads_to(port), port)).collect();
    let port_of = |worker: usize| ports.iter().find(|(n, _)| *n == worker).expect("both have some").1;
    for n in 0..128 {
        team.wire.send(packet(n, port_of(0)));
    }
    team.settle();
    let before = team.flows().handed_in;
    for n in 0..128 {
        team.wire.send(packet(n, port_of(1)));
    }
    for _ in 0..4 {
        team.workers[1].poll();
    }
    assert_eq!(team.workers[0].poll(), 4 * 32);
    assert_eq!(team.flows().handed_in - before, 4 * 32);
    team.settle();
    assert_eq!(team.ledger().dropped, 0);
}

#[test]
fn flows_of_a_worker_that_hangs_are_taken_over() {
    let mut team = Team::new(2, "", 1024);
    let packet = |n: u32, port: u16| wrap(&udp(client(n), SERVER(), b"x"), 7, port);
    let ports: Vec<u16> = (60_000..60_050).collect();
    for n in 0..50 {
        team.wire.send(packet(n, ports[n as usize]));
    }
    team.settle();
    let before: Vec<u64> = team.snapshots().iter().map(|s| s.flows.opened).collect();
    assert!(before.iter().all(|&n| n > 10), "{before:?}");
    // Worker 0 hangs; RSS is moved away from it, and so all flows come to worker 1.
    team.shared.retire(WorkerId(0));
    for _ in 0..4 {
        for n in 0..50 {
            for &port in &ports[..8] {
                team.wire.send(packet(n, port));
            }
        }
        team.workers[1].poll();
    }
    while team.workers[1].poll() > 0 {}
    let one = team.snapshots()[1].flows;
    assert_eq!((one.opened, one.handed_out), (50, 0), "none waits for who hangs");
    // It lives after all, and has nothing any more.
    team.settle();
    let zero = team.snapshots()[0].flows;
    assert_eq!(zero.ended_taken_over, zero.opened.min(before[0]));
    assert_eq!(team.flows().opened, 100 - before[1]);
    assert_eq!(team.ledger().dropped, 0);
}

/// The owner hangs while a packet is on its way to it, and a third worker takes the flow over. Nothing is full then.
#[test]
fn a_packet_that_finds_a_third_owner_is_not_lost() {
    let mut team = Team::new(3, "when_full = \"drop\"", 256);
    let packet = |n: u32, port: u16| wrap(&udp(client(n), SERVER(), b"x"), 7, port);
    for n in 1..=2 {
        team.wire.send(packet(n, 60_000));
        team.settle();
    }
    let owner = team.snapshots().iter().position(|s| s.flows.opened == 2).unwrap();
    let others = [(owner + 1) % 3, (owner + 2) % 3];
    // Outer ports that RSS gives to each of the others.
    let ports = others.map(|worker| {
        let comes = |port: &u16| {
            let before = team.snapshots()[worker].received;
            team.wire.send(packet(1, *port));
            team.settle();
            team.snapshots()[worker].received > before
        };
        (60_001..).find(comes).unwrap()
    });
    // It has more to do than one poll takes, so that it finds out before it comes to the last packet.
    for n in std::iter::repeat_n(2, 100).chain([1]) {
        team.wire.send(packet(n, ports[0]));
    }
    for _ in 0..4 {
        team.workers[others[0]].poll();
    }
    assert_eq!(team.ledger().in_the_rings(), 101);
    team.shared.retire(WorkerId(owner as u16));
    team.wire.send(packet(1, ports[1]));
    team.workers[others[1]].poll();
    team.settle();
    let flows = team.flows();
    assert_eq!((flows.opened, flows.astray, flows.stateless, flows.refused_full), (4, 1, 1, 0));
    assert_eq!(team.ledger().dropped, 0);
}

/// What one worker turns away may go on at another.
#[test]
fn no_worker_cuts_what_another_had_no_room_for() {
    let mut team = Team::new(2, "capacity = 1024\npickup = \"drop\"", 1024);
    let shake = |team: &mut Team, n: u32, ports: [u16; 2]| {
        let client = client(n);
        for (from, to, flags, sequence, heard, port) in [
            (client, SERVER(), "S", 100, 0, ports[0]),
            (SERVER(), client, "SA", 500, 101, ports[1]),
            (client, SERVER(), "A", 101, 501, ports[0]),
        ] {
            team.wire.send(wrap(&tcp(from, to, flags, sequence, heard, &[]), n, port));
            team.settle();
        }
    };
    // Outer ports that RSS gives to each worker.
    let ports = [0, 1].map(|worker| {
        let comes = |port: &u16| {
            let before = team.snapshots()[worker].received;
            team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, *port));
            team.settle();
            team.snapshots()[worker].received > before
        };
        (60_000..).find(comes).unwrap()
    });
    let mut n = 0;
    while team.snapshots()[0].flows.refused_full == 0 {
        n += 1;
        shake(&mut team, n, [ports[0]; 2]);
    }
    assert!(team.workers[1].flows().unwrap().live() < 600, "there is room");
    shake(&mut team, 10_000, ports);
    let ledger = team.ledger();
    assert_eq!((ledger.dropped, team.flows().pickup_refused), (0, 0));
}

/// One worker gets all packets of two tenants: of its table each has its part, whatever the other one does.
#[test]
fn tenants_have_their_parts_of_the_one_table_that_rss_leaves_them() {
    let mut plan = common::plan(&format!(
        "{}\n[flow]\ncapacity = 1024\nwhen_full = \"drop\"\n\
         [[tenant]]\nname = \"a\"\nendpoints = [\"0xa1\"]\nlimits = {{ guaranteed = \"25%\" }}\n\
         [[tenant]]\nname = \"b\"\nendpoints = [\"0xb1\"]\nlimits = {{ guaranteed = \"5%\" }}\n",
        common::TUNNEL
    ));
    let kept = u64::from(plan.flow.tenants.iter().find(|t| t.name == "a").unwrap().guaranteed);
    assert_eq!(kept, 256, "of each table");
    plan.flow.capacity *= 4; // the plan is one worker's; the directory is that of all
    let mut team = Team::of(&plan, 4, 1024);
    let live = |team: &Team, tenant: &str| -> u64 {
        team.view.iter(&sluicegate::flow::Filter::default()).filter(|flow| flow.tenant == tenant).count()
            as u64
    };
    let both_ways = |team: &mut Team, endpoint: u64, n: u32| {
        for (from, to) in [(client(n), SERVER()), (SERVER(), client(n))] {
            team.wire.send(wrap_from(endpoint, &udp(from, to, b"x"), n, 60_000));
        }
        team.settle();
    };
    (0..kept as u32 / 2).for_each(|n| both_ways(&mut team, 0xa1, n));
    (0..3000).for_each(|n| both_ways(&mut team, 0xb1, n));
    assert_eq!(live(&team, "a"), kept / 2, "its old flows");
    let before = team.flows();
    assert!(before.refused_full > 1000 && live(&team, "b") > kept, "{before:?}");
    (1000..1000 + (kept - kept / 2) as u32).for_each(|n| both_ways(&mut team, 0xa1, n));
    assert_eq!(live(&team, "a"), kept, "and its new ones");
    assert_eq!(team.flows().refused_full, before.refused_full);
    let by_worker: Vec<u64> = team.snapshots().iter().map(|s| s.flows.opened).collect();
    assert_eq!(by_worker.iter().filter(|&&opened| opened > 0).count(), 1);
}

/// RSS may give one worker all packets of a tenant: its rate is the process's, and nobody's part of it lies idle elsewhere.
#[test]
fn a_tenant_has_its_rate_wherever_its_packets_come_in() {
    let text = "capacity = 16384\n[[tenant]]\nname = \"a\"\nendpoints = [\"0xa1\"]\n\
                limits = { new_flows_per_s = 1000, flows = \"90%\" }\n";
    for skewed in [true, false] {
        let mut team = Team::new(4, text, 1024);
        let mut random = ChaCha8Rng::seed_from_u64(13);
        let mut n = 0;
        for ms in 0..2000u64 {
            team.hand.store(ms * 1_000_000, Ordering::Relaxed);
            for _ in 0..3 {
                n += 1;
                let port = if skewed { 60_000 } else { random.random_range(60_000..=65_535) };
                team.wire.send(wrap_from(0xa1, &udp(client(n), SERVER(), b"x"), 7, port));
            }
            team.settle();
        }
        let by_worker: Vec<u64> = team.snapshots().iter().map(|s| s.flows.opened).collect();
        assert_eq!(by_worker.iter().filter(|&&opened| opened > 0).count(), if skewed { 1 } else { 4 });
        let flows = team.flows();
        // Two seconds, and a tenth at once.
        assert!((2090..=2101).contains(&flows.opened), "{by_worker:?}");
        assert_eq!(flows.opened + flows.refused_rate, 6000);
    }
}

#[test]
fn a_flood_tears_no_handshake_apart() {
    handshakes_in_a_flood(true);
}

/// There, a flood may take the claim of a handshake; then it is moved to whoever sees the answer.
#[test]
fn a_flood_tears_no_handshake_apart_where_workers_have_other_ports() {
    handshakes_in_a_flood(false);
}

fn handshakes_in_a_flood(same_ports: bool) {
    let text =
        format!("{}\n[flow]\ntracking = true\ncapacity = 1024\nwindow_check = \"drop\"\n", common::TUNNEL);
    let mut team = if same_ports {
        Team::of(&common::plan(&text), 2, 1024)
    } else {
        Team::with_more_ports(&common::plan(&text), 2, 1024)
    };
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut port = || random.random_range(60_000..=65_535);
    // Claims that nobody evicts leave few places for those that may be.
    for n in 0..550 {
        for (from, to) in [(client(n), SERVER()), (SERVER(), client(n))] {
            team.wire.send(wrap(&udp(from, to, b"x"), n, port()));
            team.settle();
        }
    }
    let honest = |n: u32| v4(10, 200, (n >> 8) as u8, n as u8, 40_000);
    let ports: Vec<[u16; 2]> = (0..100).map(|_| [port(), port()]).collect();
    let mut flood = 0;
    // Each step of the handshakes, then a word of either side; a flood before each.
    for (step, flags) in ["S", "SA", "A", "PA", "PA"].into_iter().enumerate() {
        let (reply, word) = (step % 2 == 1, if step > 2 { &b"data"[..] } else { b"" });
        let [sequence, heard] = [[100, 0], [500, 101], [101, 501], [501, 101], [101, 505]][step];
        for n in 0..100 {
            let (from, to) = if reply { (SERVER(), honest(n)) } else { (honest(n), SERVER()) };
            let packet = tcp(from, to, flags, sequence, heard, word);
            team.wire.send(wrap(&packet, n, ports[n as usize][usize::from(reply)]));
            team.settle();
        }
        for _ in 0..100 {
            flood += 1;
            team.wire.send(wrap(&tcp(client(1 << 20 | flood), SERVER(), "S", 1, 0, &[]), flood, port()));
        }
        team.settle();
    }
    let filter = sluicegate::flow::Filter::default();
    let seen: Vec<_> =
        team.view.iter(&filter).filter(|f| f.tuple.protocol == 6 && f.state == "established").collect();
    let flows = team.flows();
    assert_eq!(seen.len(), 100, "each in one place: {flows:?}");
    assert_eq!((flows.picked_up == 0, flows.ended_taken_over == 0), (same_ports, same_ports), "{flows:?}");
    assert!(flows.unclaimed > 0 || !same_ports, "there was a place for each: {flows:?}");
    assert_eq!(team.ledger().dropped, 0);
}

#[test]
fn flows_without_a_place_in_the_directory_have_one_owner_all_the_same() {
    let mut team = Team::new(2, "capacity = 1024", 1024);
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let ports: Vec<[u16; 2]> =
        (0..1150).map(|_| [0; 2].map(|_| random.random_range(60_000..=65_535))).collect();
    for round in 0..3 {
        for (n, ports) in (0..).zip(&ports) {
            for (from, to, port) in [(client(n), SERVER(), ports[0]), (SERVER(), client(n), ports[1])] {
                team.wire.send(wrap(&udp(from, to, b"x"), n, port));
                team.settle();
            }
        }
        team.hand.store(round * 10_000_000, Ordering::Relaxed);
    }
    let flows = team.flows();
    assert!(flows.unclaimed > 10, "{flows:?}");
    assert_eq!((flows.opened, flows.stateless, flows.astray), (1150, 0, 0));
    assert_eq!((flows.ended_taken_over, team.ledger().dropped), (0, 0));
    let seen: Vec<_> = team.view.iter(&sluicegate::flow::Filter::default()).collect();
    assert!(seen.iter().all(|flow| flow.packets == [3, 3]), "each in one place, with all its packets");
}

#[test]
fn a_ring_that_stays_full_loses_what_it_must_and_says_so() {
    let mut team = Team::new(2, "", 64);
    // Worker A owns the flow; B gets its packets and A is not polled.
    let ports: Vec<u16> = (60_000..60_200).collect();
    team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, ports[0]));
    team.settle();
    let owner = usize::from(team.snapshots()[1].flows.opened == 1);
    let mut given = 0;
    for round in 0..40 {
        for &port in &ports {
            team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, port));
        }
        team.hand.store(round * 1_000_000, Ordering::Relaxed);
        for _ in 0..20 {
            team.workers[1 - owner].poll();
        }
        let other = &team.snapshots()[1 - owner];
        let dropped = other.dropped();
        given = other.flows.handed_out;
        assert!(round > 9 || dropped == 0, "for 10 ms frames wait in the queue: round {round}, {dropped}");
    }
    assert!(given <= 64 && team.snapshots()[1 - owner].dropped() > 100);
    team.settle();
    assert_eq!(team.flows().opened, 1);
}

/// SIGSTOP, or a hypervisor that takes all CPUs for a second, while a ring is full: nobody hangs.
#[test]
fn time_for_which_all_stood_still_is_not_held_against_a_peer() {
    let mut team = Team::new(2, "", 64);
    let ports: Vec<u16> = (60_000..60_200).collect();
    team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, ports[0]));
    team.settle();
    let owner = usize::from(team.snapshots()[1].flows.opened == 1);
    for &port in &ports {
        team.wire.send(wrap(&udp(client(1), SERVER(), b"x"), 7, port));
    }
    for _ in 0..20 {
        team.workers[1 - owner].poll();
    }
    let given = team.snapshots()[1 - owner].flows.handed_out;
    assert!(given > 32, "the ring is full: {given}");
    team.hand.fetch_add(1_000_000_000, Ordering::Relaxed);
    for _ in 0..20 {
        team.workers[1 - owner].poll();
    }
    team.settle();
    let ledger = team.ledger();
    assert_eq!((ledger.dropped, ledger.sent), (0, ledger.received));
}

#[test]
fn fragments_and_errors_follow_their_flow_to_its_owner() {
    let mut team = Team::new(3, "", 1024);
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut port = || random.random_range(60_000..=65_535);
    for n in 0..200 {
        team.wire.send(wrap(&udp(client(n), SERVER(), &[1; 40]), 7, port()));
        team.settle();
        let whole = udp(client(n), SERVER(), &[n as u8; 64]);
        for piece in pieces(&whole, n as u16) {
            team.wire.send(wrap(&piece, 9, port()));
        }
        team.settle();
        // The client says that it is not listening (RFC 792), quoting the server's answer.
        let answer = udp(SERVER(), client(n), &[7; 8]);
        team.wire.send(wrap(&unreachable(client(n), SERVER(), &answer), 11, port()));
        team.settle();
    }
    let flows = team.flows();
    assert_eq!((flows.opened, flows.stateless, flows.related, flows.unrelated), (200, 0, 200, 0));
    assert_eq!((flows.first_fragments, flows.later_fragments), (200, 400));
    assert_eq!((flows.refreshed > 0, team.ledger().dropped), (true, 0));
}

#[test]
fn later_fragments_that_come_first_wait_for_theirs() {
    let mut team = Team::new(2, "", 1024);
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for n in 0..100u32 {
        let whole = udp(client(n), SERVER(), &[n as u8; 64]);
        let [first, second, third] = pieces(&whole, n as u16);
        for piece in [third, second] {
            team.wire.send(wrap(&piece, 9, random.random_range(60_000..=65_535)));
            team.settle();
        }
        assert_eq!(team.ledger().held, 2);
        team.wire.send(wrap(&first, 9, random.random_range(60_000..=65_535)));
        team.settle();
        team.settle();
        assert_eq!(team.ledger().held, 0);
    }
    let flows = team.flows();
    assert_eq!((flows.opened, flows.held_fragments, flows.later_fragments), (100, 200, 200));
    assert_eq!(team.ledger().sent, 300);
}

#[test]
fn workers_that_stop_leave_nothing_behind() {
    let mut team = Team::new(2, "", 1024);
    let mut random = ChaCha8Rng::seed_from_u64(4);
    for n in 0..2000 {
        let [_, second, _] = pieces(&udp(client(n), SERVER(), &[0; 64]), n as u16);
        team.wire.send(wrap(&tcp(client(n % 50), SERVER(), "A", n, 1, b"x"), n, random.random()));
        if n % 50 == 0 {
            team.wire.send(wrap(&second, 9, random.random()));
        }
        team.workers[n as usize % 2].poll();
    }
    let Team { workers, wire, pool, .. } = team;
    let ended: Vec<WorkerSnapshot> = std::thread::scope(|scope| {
        let run = |mut worker: Worker| {
            scope.spawn(move || {
                worker.finish();
                worker.counters().snapshot()
            })
        };
        let threads: Vec<_> = workers.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let ledger: Ledger = ended.iter().map(WorkerSnapshot::ledger).sum();
    assert!(ledger.balances() && ledger.in_the_rings() == 0 && ledger.held == 0, "{ledger}");
    assert_eq!(pool.available(), pool.capacity());
    drop(wire);
}
