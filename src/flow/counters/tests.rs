//! Counters of what rarely happens, moved by making it happen.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::config::FlowPlan;
use crate::flow::directory::Directory;
use crate::flow::{Flows, FlowsShared, Key, Newcomer, Opened, Opening, Seed, Tuple};
use crate::stage::WorkerId;

fn flows(worker: u16, shared: &FlowsShared) -> Flows {
    let mut plan = FlowPlan { tracking: true, capacity: 1024, per_worker: 1024, ..FlowPlan::default() };
    plan.tenants[0].guaranteed = 1024;
    plan.tenants[0].ceiling = 1024;
    Flows::new(WorkerId(worker), &plan, shared, None, Arc::default())
}

fn newcomer(seed: &Seed, n: u32) -> Newcomer {
    let tuple = Tuple {
        source: Ipv4Addr::from(0x0a00_0000 + n).into(),
        destination: Ipv4Addr::new(192, 0, 2, 1).into(),
        source_port: 1,
        destination_port: 2,
        protocol: 17,
    };
    let key = Key::of_tuple(0, &tuple).unwrap();
    Newcomer { key, hash: seed.hash(&key), from_high: false, tenant: 0, opening: Opening::Other }
}

/// Two workers over a directory of one bucket.
fn crowded() -> (FlowsShared, Flows, Flows) {
    let directory = Some(Arc::new(Directory::new(1, 2)));
    let shared = FlowsShared {
        directory,
        ..FlowsShared::of(&FlowPlan { tracking: true, ..FlowPlan::default() }, 1, Seed::fixed(5)).unwrap()
    };
    let (one, other) = (flows(0, &shared), flows(1, &shared));
    (shared, one, other)
}

#[test]
fn a_packet_that_was_handed_on_goes_no_further() {
    let (shared, mut one, mut other) = crowded();
    let new = newcomer(&shared.seed, 1);
    assert!(matches!(one.open(&new, false), Opened::Here(_)));
    assert_eq!(other.open(&new, false), Opened::Elsewhere(WorkerId(0)));
    assert_eq!(other.open(&new, true), Opened::Astray);
    assert_eq!(other.live(), 0);
}

/// More flows than a bucket has places: those whose claim went to others, or that found only established ones, live unclaimed.
#[test]
fn a_crowded_directory_leaves_flows_unclaimed() {
    let (shared, mut one, _) = crowded();
    for n in 0..100 {
        let Opened::Here(entry) = one.open(&newcomer(&shared.seed, n), false) else { panic!("{n}") };
        one.change_state(entry, super::super::state::LASTING);
    }
    let counters = one.counters().snapshot();
    assert_eq!((counters.opened, counters.established, one.live()), (100, 100, 100));
    assert!(counters.unclaimed > 0 && counters.unclaimed < 100, "{}", counters.unclaimed);
}

/// Flows that have one pair of buckets, one more than there are places: nobody in them can move. A bucket has 8 places, and 1024
/// entries have 192 buckets, found by the two halves of the hash (`table.rs`).
#[test]
fn two_full_buckets_refuse_a_flow() {
    let shared =
        FlowsShared::of(&FlowPlan { tracking: true, ..FlowPlan::default() }, 1, Seed::fixed(5)).unwrap();
    let mut flows = flows(0, &shared);
    let bucket = |half: u64| (half * 192) >> 32;
    let pair = |hash: u64| {
        let (a, b) = (bucket(hash & 0xffff_ffff), bucket(hash >> 32));
        (a.min(b), a.max(b))
    };
    let crowd = (0..).map(|n| newcomer(&shared.seed, n)).filter(|new| pair(new.hash) == (7, 100)).take(17);
    let opened: Vec<Opened> = crowd.map(|new| flows.open(&new, false)).collect();
    assert!(opened[..16].iter().all(|opened| matches!(opened, Opened::Here(_))), "{opened:?}");
    assert_eq!(opened[16], Opened::NoRoom);
    assert_eq!((flows.counters().snapshot().refused_crowded, flows.live()), (1, 16));
}
