//! Frames to the host stack and back: copied, counted, limited, and never in the way of the tunnel.

mod common;

use common::golden::cases;
use common::{Rig, plan};
use sluicegate::config::Plan;
use sluicegate::path::{Guests, HostEnd, Punt, PuntSnapshot};
use sluicegate::stage::WorkerId;

const SECOND: u64 = 1_000_000_000;

fn rig(extra: &str) -> (Rig, HostEnd, Plan) {
    let plan = plan(&format!("{}\n[management]\n{extra}", common::TUNNEL));
    let rig = Rig::new(&plan);
    let guests = Guests::new(plan.management.host.allowed_sources.as_deref(), &[]);
    let (punt, end) = Punt::of(&plan.management.host, &guests, &rig.pool, WorkerId(0), vec![0]);
    (rig.with_punt(Some(punt)), end, plan)
}

fn arp(sender: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, sender, 0x08, 0x06]);
    frame.extend([0; 28]);
    frame
}

/// A TCP segment without ports worth mentioning.
fn from(source: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(source);
    frame.extend([10, 254, 11, 102]);
    let sum = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0; 20]);
    frame
}

fn next(end: &mut HostEnd) -> Option<(u16, Vec<u8>)> {
    let (port, len) = end.punted.peek()?;
    let mut frame = vec![0; len];
    assert!(end.punted.take(&mut frame));
    Some((port, frame))
}

fn send(rig: &mut Rig, frames: impl IntoIterator<Item = Vec<u8>>) -> PuntSnapshot {
    let before = rig.settled().punt;
    frames.into_iter().for_each(|frame| rig.wire.send(frame));
    while rig.worker.poll() > 0 {}
    let now = rig.settled().punt;
    PuntSnapshot {
        copied: now.copied - before.copied,
        refused: now.refused - before.refused,
        rate_limited: now.rate_limited - before.rate_limited,
        no_room: now.no_room - before.no_room,
        replies: now.replies - before.replies,
        no_buffer: now.no_buffer - before.no_buffer,
    }
}

/// Tunnel frames go home as ever; of the others a copy goes to the stack, byte for byte, and nothing is held.
#[test]
fn punted_frames_are_copied_and_tunnel_frames_are_not_disturbed() {
    let (mut rig, mut end, _) = rig("allowed_sources = [\"0.0.0.0/0\", \"::/0\"]");
    let cases: Vec<_> = cases()
        .into_iter()
        // Answered by a packet of our own, which would be one more.
        .filter(|case| case.settings.is_empty() && case.verdict != "dropped too_big")
        .collect();
    let said = send(&mut rig, cases.iter().map(|case| case.frame.clone()));
    let home: Vec<Vec<u8>> = std::iter::from_fn(|| rig.wire.receive()).collect();
    let expected: Vec<_> = cases.iter().filter(|c| c.verdict == "home").map(|c| c.back.clone()).collect();
    assert!(home == expected, "{} of {} came home", home.len(), expected.len());
    let punted: Vec<_> = cases.iter().filter(|c| c.verdict == "punted").map(|c| c.frame.clone()).collect();
    let copied: Vec<_> = std::iter::from_fn(|| next(&mut end)).collect();
    assert!(copied.iter().all(|(port, frame)| *port == 0 && punted.contains(frame)));
    assert_eq!(copied.len() as u64, said.copied);
    assert_eq!(said.copied + said.refused, punted.len() as u64, "{said:?}");
    assert!(said.copied >= 5, "{said:?}");
    assert_eq!(rig.settled().punted, punted.len() as u64);
}

/// Without a host stack they are counted and gone, as they were.
#[test]
fn without_a_host_stack_nothing_is_copied() {
    let (rig, mut end, _) = rig("");
    let mut rig = rig.with_punt(None);
    assert_eq!(send(&mut rig, [arp(1)]), PuntSnapshot::default());
    assert_eq!((rig.settled().punted, next(&mut end)), (1, None));
    assert!(end.replies.write(0, &arp(1)), "nobody reads it");
    assert_eq!((rig.worker.poll(), rig.wire.receive()), (0, None));
}

#[test]
fn replies_are_made_here_sent_and_counted() {
    let (mut rig, mut end, _) = rig("");
    for n in 0..40u8 {
        assert!(end.replies.write(0, &vec![n; 60 + usize::from(n)]));
    }
    assert_eq!(rig.worker.poll(), 16, "a bounded number in a poll");
    assert_eq!(rig.settled().ledger().made, 16);
    assert_eq!([rig.worker.poll(), rig.worker.poll(), rig.worker.poll()], [16, 8, 0]);
    let now = rig.settled();
    let ledger = now.ledger();
    assert_eq!((ledger.received, ledger.made, ledger.sent, now.punt.replies), (0, 40, 40, 40));
    for n in 0..40u8 {
        assert_eq!(rig.wire.receive(), Some(vec![n; 60 + usize::from(n)]), "in order, byte for byte");
    }
}

/// What cannot be sent is lost and counted, and does not stop what comes behind it.
#[test]
fn replies_without_a_way_are_counted() {
    let (mut rig, mut end, _) = rig("");
    assert!(end.replies.write(9, &[1; 60]), "no such port");
    assert!(end.replies.write(0, &[2; 9900]), "longer than a buffer");
    assert!(end.replies.write(0, &[3; 60]));
    rig.worker.poll();
    assert_eq!(rig.settled().punt, PuntSnapshot { replies: 1, no_buffer: 2, ..PuntSnapshot::default() });
    assert_eq!((rig.wire.receive(), rig.wire.receive()), (Some(vec![3; 60]), None));
    let all: Vec<_> = std::iter::from_fn(|| rig.pool.alloc()).collect();
    assert!(end.replies.write(0, &[4; 60]));
    rig.worker.poll();
    drop(all);
    assert_eq!(rig.settled().punt.no_buffer, 3);
    rig.wire.set_link(false);
    assert!(end.replies.write(0, &[5; 60]));
    rig.worker.poll();
    let now = rig.settled();
    assert_eq!((now.punt.replies, now.ledger().dropped), (2, 1), "the port did not take it: tx_full");
}

/// One source gets a quarter of the rate, so that another still gets in; strangers use up nobody's.
#[test]
fn a_flood_of_one_source_keeps_out_nobody_else() {
    let (mut rig, mut end, _) = rig("frames_per_s = 1000");
    let empty = |end: &mut HostEnd| while next(end).is_some() {};
    // A tenth of a second's worth at once: 25 of one source, 100 of all.
    let strangers = send(&mut rig, (0..500).map(|_| from([9, 9, 9, 9])));
    assert_eq!((strangers.refused, strangers.copied), (500, 0));
    let flood = send(&mut rig, (0..500).map(|_| from([10, 254, 11, 66])));
    assert_eq!((flood.copied, flood.rate_limited), (25, 475));
    let other = send(&mut rig, (0..20).map(|_| from([10, 254, 11, 67])));
    // One time in 64 the two share a bucket.
    let other =
        if other.copied == 0 { send(&mut rig, (0..20).map(|_| from([10, 254, 11, 68]))) } else { other };
    assert_eq!(other.copied, 20);
    empty(&mut end);
    // Many sources together get what the rate says.
    rig.set_clock(SECOND);
    let all = send(&mut rig, (0..2000u32).map(|n| from([10, 254, 11, n as u8])));
    assert_eq!((all.copied, all.rate_limited), (100, 1900));
    empty(&mut end);
    rig.set_clock(2 * SECOND);
    let later = send(&mut rig, (0..10).map(|_| from([10, 254, 11, 66])));
    assert_eq!(later.copied, 10, "it comes back");
}

#[test]
fn a_ring_that_nobody_empties_costs_no_more_than_its_frames() {
    let (mut rig, mut end, _) = rig("frames_per_s = 1000000");
    let flood = send(&mut rig, (0..4000u32).map(|n| from([10, 254, 11, n as u8])));
    assert_eq!(flood.copied + flood.no_room, 4000, "{flood:?}");
    assert_eq!(flood.copied, (128 << 10) / 58, "54 bytes and a head of 4 each");
    let mut read = 0;
    while next(&mut end).is_some() {
        read += 1;
    }
    assert_eq!(read, flood.copied);
    assert_eq!(send(&mut rig, [arp(1)]).copied, 1);
}
