//! Workers on threads of their own, with half of the flows misaligned: nothing lost, nothing out of order, one owner for each flow.

mod common;

use std::time::{Duration, Instant};

use common::talk::{Came, Talk};
use common::team::Team;
use common::{TUNNEL, plan, say};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::dpdk::PoolConfig;
use sluicegate::dpdk::soft::Wire;
use sluicegate::dpdk::soft::toeplitz::RETA;
use sluicegate::flow::Filter;
use sluicegate::packet::{DropReason, ReasonId};
use sluicegate::path::Clock;

const FLOWS: usize = 600;
/// Packets on their way at once: fewer than a ring between workers holds, so that a thread may sleep as long as it likes.
const OUT: u64 = 800;
/// How long nothing may come back: nobody needs as long, on any machine that builds this.
const PATIENCE: Duration = Duration::from_secs(60);

fn team(workers: usize, ring: usize) -> Team {
    // Fragments wait, and their first are remembered, for as long as a thread may sleep, however many others send meanwhile.
    let text = format!(
        "{TUNNEL}\n[eal]\nidle = \"backoff\"\n[flow]\ntracking = true\nwindow_check = \"drop\"\n\
         [flow.fragments]\nhold = 1024\nhold_time = \"10s\"\nlifetime = \"60s\"\nentries = 1048576\n"
    );
    let pool = PoolConfig { name: "threads".into(), buffers: 4096, data_room: 2048, cache: 0, numa: None };
    Team::over(&plan(&text), workers, ring, &pool, Clock::cycles())
}

fn collect(talk: &mut Talk, wire: &Wire, frame: &mut Vec<u8>) -> bool {
    let mut any = false;
    while wire.receive_into(frame) {
        any = true;
        if let Came::Numbered { flow, reply, number, late } = talk.came(frame) {
            assert!(!late, "flow {flow}, reply {reply}: {number} was overtaken");
        }
    }
    any
}

#[test]
fn threads_lose_and_reorder_nothing() {
    for workers in [2, 3, 8] {
        let mut random = ChaCha8Rng::seed_from_u64(workers as u64);
        let mut team = team(workers, 1024);
        let mut talk = Talk::new(FLOWS, &mut random, |entry| (entry % workers) as u16);
        let (mut fragments, mut errors) = (0u64, 0u64);
        let begun = Instant::now();
        let counters: Vec<_> = team.workers.iter().map(|worker| worker.counters().clone()).collect();
        team.run(|wire| {
            let (mut frame, mut came) = (Vec::new(), Instant::now());
            let mut wait = |talk: &mut Talk| {
                if collect(talk, wire, &mut frame) {
                    came = Instant::now();
                } else if came.elapsed() > PATIENCE {
                    let counters: Vec<_> = counters.iter().map(|one| one.snapshot().ledger()).collect();
                    panic!("{} frames are lost: {counters:#?}", talk.out());
                } else if talk.out() + 3 > OUT {
                    std::thread::yield_now();
                }
            };
            while begun.elapsed() < Duration::from_millis(1200) || talk.sent < 30_000 {
                wait(&mut talk);
                while talk.out() + 3 <= OUT {
                    let flow = random.random_range(0..FLOWS);
                    match random.random_range(0..40) {
                        0 => {
                            let Some(mut pieces) = talk.fragments(flow, &mut random) else { continue };
                            pieces.rotate_left(random.random_range(0..3));
                            pieces.into_iter().for_each(|piece| wire.send(piece));
                            fragments += 3;
                        }
                        1 => {
                            let Some(error) = talk.error(flow, &mut random) else { continue };
                            wire.send(error);
                            errors += 1;
                        }
                        _ => {
                            let Some((packet, _)) = talk.next(flow, &mut random) else { continue };
                            wire.send(packet);
                        }
                    }
                }
            }
            while talk.out() > 0 {
                wait(&mut talk);
            }
        });
        let (flows, ledger) = (team.flows(), team.ledger());
        assert_eq!((ledger.received, ledger.sent, ledger.dropped), (talk.sent, talk.sent, 0), "{workers}");
        let strange = [flows.astray, flows.stateless, flows.unclaimed, flows.unrelated];
        assert_eq!((strange, flows.opened), ([0; 4], FLOWS as u64));
        assert_eq!((flows.orphan_fragments, flows.fragments_replaced), (0, 0));
        assert_eq!((flows.misaligned, flows.related), (FLOWS as u64 / 2, errors));
        assert_eq!(flows.first_fragments + flows.later_fragments, fragments);
        // Each flow is in one place, with everything that was sent of it in both directions.
        let seen: Vec<_> = team.view.iter(&Filter::default()).collect();
        assert_eq!(seen.len(), FLOWS);
        for flow in seen {
            // Where a reply came first, its sender is the originator.
            let (line, reversed) = talk.line_of(&flow.tuple);
            let mut sent = talk.lines[line].sent;
            if reversed {
                sent.reverse();
            }
            assert_eq!(flow.packets, sent, "{flow:?}");
        }
        say(&format!(
            "{workers} workers: {} packets, {} handed over, {} of {FLOWS} flows misaligned, {} fragments held",
            talk.sent, flows.handed_in, flows.misaligned, flows.held_fragments
        ));
    }
}

/// RSS is rearranged while everybody works: what is on its way by the old queue may be overtaken, which is counted here (a receiver could count it as
/// well, and no counter of the engine does); nothing is lost, and nobody changes his owner.
#[test]
fn entries_of_the_redirection_table_move_under_threads() {
    for workers in [2u16, 3, 8] {
        let mut random = ChaCha8Rng::seed_from_u64(workers.into());
        let mut team = team(workers.into(), 1024);
        let mut talk = Talk::new(FLOWS, &mut random, |entry| entry as u16 % workers);
        let begun = Instant::now();
        let mut moves = 0u64;
        team.run(|wire| {
            let (mut frame, mut came) = (Vec::new(), Instant::now());
            let mut wait = |talk: &mut Talk| {
                let before = talk.back;
                while wire.receive_into(&mut frame) {
                    talk.came(&frame);
                }
                if talk.back > before {
                    came = Instant::now();
                }
                assert!(came.elapsed() < PATIENCE, "{} frames are lost", talk.out());
                std::thread::yield_now();
            };
            while begun.elapsed() < Duration::from_millis(1000) || talk.sent < 30_000 {
                wait(&mut talk);
                while talk.out() < OUT {
                    let Some((packet, _)) = talk.next(random.random_range(0..FLOWS), &mut random) else {
                        continue;
                    };
                    wire.send(packet);
                    if random.random_ratio(1, 50) {
                        let (entry, queue) = (random.random_range(0..RETA), random.random_range(0..workers));
                        assert!(wire.redirect(entry, queue));
                        moves += 1;
                    }
                }
            }
            while talk.out() > 0 {
                wait(&mut talk);
            }
        });
        let (flows, ledger) = (team.flows(), team.ledger());
        assert_eq!((ledger.received, ledger.sent, ledger.dropped), (talk.sent, talk.sent, 0), "{workers}");
        assert_eq!((flows.opened, flows.astray, flows.stateless, flows.unclaimed), (FLOWS as u64, 0, 0, 0));
        assert_eq!(flows.handed_in, flows.handed_out);
        assert_eq!(team.view.iter(&Filter::default()).count(), FLOWS, "each in one place");
        assert!(moves > 100 && talk.late < talk.sent / 2, "{moves} moves, {} of {}", talk.late, talk.sent);
        say(&format!(
            "{workers} workers: {} packets, {moves} moves, {} handed over, {} overtaken",
            talk.sent, flows.handed_in, talk.late
        ));
    }
}

/// Rings of two bursts and more packets than they hold: a thread that sleeps may cost packets then, and every one is counted.
#[test]
fn threads_with_small_rings_lose_only_what_they_count() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut team = team(3, 64);
    let mut talk = Talk::new(FLOWS, &mut random, |entry| (entry % 3) as u16);
    let begun = Instant::now();
    team.run(|wire| {
        let mut frame = Vec::new();
        while begun.elapsed() < Duration::from_millis(700) {
            for _ in 0..OUT {
                // UDP, which does not wait for what was lost.
                if let Some((packet, _)) = talk.next(random.random_range(0..FLOWS / 2) * 2 + 1, &mut random) {
                    wire.send(packet);
                }
            }
            while talk.out() > 4 * OUT && begun.elapsed() < Duration::from_millis(700) {
                collect(&mut talk, wire, &mut frame);
            }
        }
        // What is not in the port any more has been received; the rest is done while the workers stop.
        while wire.counts().waiting > 0 {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    });
    let wire = team.wire.clone();
    collect(&mut talk, &wire, &mut Vec::new());
    let ledger = team.ledger();
    assert_eq!((ledger.received, ledger.sent, ledger.dropped), (talk.sent, talk.back, talk.out()));
    let full = usize::from(ReasonId::from(DropReason::HandoffFull).0);
    let lost: u64 = team.snapshots().iter().map(|one| one.drops[full]).sum();
    assert_eq!(lost, ledger.dropped, "for no other reason");
    say(&format!("3 workers, small rings: {} packets, {lost} lost", talk.sent));
}
