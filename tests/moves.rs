//! Entries of the redirection table move under load: flows stay where they are, packets follow by hand-off, nothing is lost, and
//! within a flow only packets that a move sent to another queue overtake each other.

mod common;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use common::talk::{Came, Talk, reta};
use common::team::Team;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::dpdk::soft::toeplitz::RETA;
use sluicegate::flow::Filter;

const FLOWS: usize = 400;

#[test]
fn entries_of_the_redirection_table_move_under_load() {
    for workers in [2u16, 3, 8] {
        let mut random = ChaCha8Rng::seed_from_u64(workers.into());
        let mut team = Team::new(workers.into(), "window_check = \"drop\"", 1024);
        let mut table: [u16; RETA] = std::array::from_fn(|entry| entry as u16 % workers);
        let mut talk = Talk::new(FLOWS, &mut random, |entry| table[entry]);
        // Queue of each packet, and the newest that came home by flow, direction and queue.
        let (mut queues, mut newest) = (Vec::new(), HashMap::new());
        let (mut moves, mut before, mut late_in_calm) = (0, None, 0);
        for round in 0..120u64 {
            // A third of the time nothing moves; first of all, so that all flows are there.
            let calm = round / 20 % 3 == 0;
            for _ in 0..200 {
                let flow = random.random_range(0..FLOWS);
                if let Some((frame, port)) = talk.next(flow, &mut random) {
                    queues.push(table[reta(port)]);
                    team.wire.send(frame);
                }
                if !calm && random.random_ratio(1, 20) {
                    let (entry, queue) = (random.random_range(0..RETA), random.random_range(0..workers));
                    assert!(team.wire.redirect(entry, queue));
                    moves += u32::from(table[entry] != queue);
                    table[entry] = queue;
                }
            }
            for _ in 0..workers * 4 {
                team.workers[usize::from(random.random_range(0..workers))].poll();
            }
            if round % 20 == 19 {
                team.settle();
            }
            team.hand.store(round * 10_000_000, Ordering::Relaxed);
            while let Some(frame) = team.wire.receive() {
                let Came::Numbered { flow, reply, number, late } = talk.came(&frame) else {
                    panic!("{frame:02x?}")
                };
                let at = (flow, reply, queues[number as usize]);
                let last = newest.insert(at, number);
                assert!(last.is_none_or(|last| last < number), "{at:?}: {number} after {last:?}");
                late_in_calm += u32::from(calm && late);
            }
            if round == 39 {
                before = Some(owners(&team, &talk));
            }
        }
        let before = before.expect("rounds");
        let (flows, ledger) = (team.flows(), team.ledger());
        assert_eq!(before.len(), FLOWS);
        assert_eq!(owners(&team, &talk), before, "{workers} workers: nobody changes his owner");
        assert_eq!((talk.out(), ledger.dropped, ledger.sent), (0, 0, talk.sent));
        assert_eq!((flows.opened, flows.astray, flows.stateless, flows.unclaimed), (FLOWS as u64, 0, 0, 0));
        assert_eq!(flows.handed_in, flows.handed_out);
        assert!(moves > 200 && talk.late > 0 && talk.late < talk.sent / 10, "{moves}, {}", talk.late);
        assert_eq!(late_in_calm, 0, "where nothing moves nothing is overtaken");
        common::say(&format!(
            "{workers} workers: {} packets, {moves} moves, {} handed over, {} overtaken",
            talk.sent, flows.handed_in, talk.late
        ));
    }
}

/// Everything that is asked of a port which cannot be done.
#[test]
fn a_move_that_cannot_be_is_refused() {
    let team = Team::new(2, "", 64);
    for (entry, queue, done) in [(0, 1, true), (RETA - 1, 0, true), (RETA, 0, false), (0, 2, false)] {
        assert_eq!(team.wire.redirect(entry, queue), done, "{entry} to {queue}");
    }
    let (_port, wire) = sluicegate::dpdk::soft::Port::new();
    assert!(!wire.redirect(0, 0), "it does not run");
}

/// Worker of each conversation; each is one flow.
fn owners(team: &Team, talk: &Talk) -> HashMap<usize, u16> {
    let mut owners = HashMap::new();
    for flow in team.view.iter(&Filter::default()) {
        let twice = owners.insert(talk.line_of(&flow.tuple).0, flow.worker.0);
        assert_eq!(twice, None, "{flow:?}");
    }
    owners
}
