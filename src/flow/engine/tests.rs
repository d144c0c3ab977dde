use std::net::Ipv4Addr;

use super::*;
use crate::flow::Tuple;

/// Smallest that there is.
const ENTRIES: u32 = 1024;

fn plan() -> FlowPlan {
    let mut plan = FlowPlan { tracking: true, capacity: ENTRIES, per_worker: ENTRIES, ..FlowPlan::default() };
    let everyone = plan.tenants.first_mut().unwrap();
    (everyone.guaranteed, everyone.ceiling) = (0, ENTRIES);
    plan
}

fn shared(workers: usize) -> FlowsShared {
    FlowsShared::of(&plan(), workers, Seed::fixed(5)).unwrap()
}

fn flows(worker: u16, shared: &FlowsShared) -> Flows {
    Flows::new(WorkerId(worker), &plan(), shared, None, Arc::default())
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

#[test]
fn nobody_goes_for_a_flow_that_finds_no_place() {
    let shared = shared(1);
    let mut one = flows(0, &shared);
    // Whose two buckets are the same pair: eight of them fill each, and none can move.
    let hash = newcomer(&shared.seed, 0).hash;
    let pair = one.table.both_buckets(hash);
    let mut same = (0..).map(|n| newcomer(&shared.seed, n)).filter(|new| {
        let (a, b) = one.table.both_buckets(new.hash);
        (a, b) == pair || (b, a) == pair
    });
    let same: Vec<Newcomer> = same.by_ref().take(17).collect();
    for new in &same[..16] {
        assert!(matches!(one.open(new, false), Opened::Here(_)));
    }
    let mut n = 1 << 24;
    while one.live() < ENTRIES {
        n += 1;
        one.open(&newcomer(&shared.seed, n), false);
    }
    let before = one.counters.snapshot();
    assert_eq!(one.open(&same[16], false), Opened::NoRoom);
    let now = one.counters.snapshot();
    assert_eq!((now.ended_evicted, now.refused_crowded - before.refused_crowded), (before.ended_evicted, 1));
    assert_eq!(one.live(), ENTRIES);
    // Somebody else finds room, and the oldest goes.
    assert!(matches!(one.open(&newcomer(&shared.seed, 1 << 25), false), Opened::Here(_)));
    assert_eq!(one.counters.snapshot().ended_evicted, before.ended_evicted + 1);
}

#[test]
fn a_claim_without_room_behind_it_is_given_back() {
    let shared = shared(2);
    let (mut one, mut other) = (flows(0, &shared), flows(1, &shared));
    let mut n = 0;
    while one.live() < ENTRIES {
        n += 1;
        if let Opened::Here(entry) = one.open(&newcomer(&shared.seed, n), false) {
            one.change_state(entry, state::LASTING);
        }
    }
    let new = newcomer(&shared.seed, 1 << 24);
    let claims = shared.directory.as_ref().unwrap().count();
    assert_eq!(one.open(&new, false), Opened::NoRoom);
    assert_eq!(one.counters.snapshot().refused_full, 1);
    assert_eq!(shared.directory.as_ref().unwrap().count(), claims);
    assert_eq!(other.owner(new.hash), None, "nobody has it");
    assert!(matches!(other.open(&new, false), Opened::Here(_)));
}
