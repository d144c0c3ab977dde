use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::flow::Tuple;

fn key(n: u32) -> Key {
    let source = Ipv4Addr::from(0x0a00_0000 + (n >> 4)).into();
    let destination = Ipv4Addr::new(192, 0, 2, 1).into();
    let tuple = Tuple { source, destination, source_port: n as u16, destination_port: 443, protocol: 17 };
    Key::of_tuple(u64::from(n % 3), &tuple).unwrap()
}

fn wide(n: u32) -> Key {
    let source = std::net::Ipv6Addr::from(u128::from(n) << 40 | 0xfd << 120).into();
    let destination = std::net::Ipv6Addr::LOCALHOST.into();
    let tuple = Tuple { source, destination, source_port: 1, destination_port: 443, protocol: 6 };
    Key::of_tuple(9, &tuple).unwrap()
}

fn put(table: &mut Table, key: &Key) -> Result<u32, Full> {
    let birth = Birth { created: 1, condemned: 0, tenant: 0 };
    table.insert(table.hash(key), key, Life::new(0, 1, 0), birth)
}

/// The batch's way and the whole search agree.
fn look(table: &Table, key: &Key) -> Option<u32> {
    let hash = table.hash(key);
    let spot = table.spot(hash);
    table.prefetch(spot);
    let guess = table.guesser().guess(spot);
    let quick = table.verify(guess, key).map(|_| guess);
    let found = table.find(hash, key);
    assert!(quick.is_none() || quick == found);
    found
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    Find(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..3000u32;
    prop_oneof![
        3 => n.clone().prop_map(Op::Insert),
        2 => n.clone().prop_map(Op::Remove),
        2 => n.prop_map(Op::Find),
    ]
}

fn run(ops: &[Op], seed: u64) {
    let mut table = Table::new(1024, Seed::fixed(seed));
    let mut model: HashMap<Key, u32> = HashMap::new();
    for op in ops {
        let (Op::Insert(n) | Op::Remove(n) | Op::Find(n)) = *op;
        let key = if n % 2 == 0 { key(n) } else { wide(n) };
        assert_eq!(look(&table, &key), model.get(&key).copied());
        match op {
            Op::Insert(_) if !model.contains_key(&key) => match put(&mut table, &key) {
                Ok(entry) => assert!(model.insert(key, entry).is_none()),
                Err(full) => assert_eq!((full, model.len()), (Full::Entries, 1024)),
            },
            Op::Remove(_) => {
                if let Some(entry) = model.remove(&key) {
                    assert!(table.remove(entry));
                    assert!(!table.remove(entry), "an empty entry holds nothing to remove");
                }
            }
            _ => {}
        }
        assert_eq!(table.live() as usize, model.len());
    }
    for (key, entry) in &model {
        assert_eq!(look(&table, key), Some(*entry));
        assert_eq!(Key::of_entry(table.entry(*entry).unwrap()), *key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_answers_like_a_hash_map(ops in proptest::collection::vec(op(), 6000), seed: u64) {
        run(&ops, seed);
    }
}

/// Two million operations at a full table, which random lists of a few thousand hardly reach.
#[test]
fn it_answers_like_a_hash_map_when_full() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let ops: Vec<Op> = (0..2_000_000)
        .map(|_| match random.random_range(0..8) {
            0..5 => Op::Insert(random.random_range(0..1500)),
            5 => Op::Remove(random.random_range(0..1500)),
            _ => Op::Find(random.random_range(0..3000)),
        })
        .collect();
    run(&ops, 11);
}

/// Every entry can be used: the buckets are no smaller than the promise.
#[test]
fn it_holds_what_it_says() {
    for entries in [1 << 10, 100_000] {
        let mut table = Table::new(entries, Seed::random());
        for n in 0..entries as u32 {
            put(&mut table, &key(n)).unwrap();
        }
        assert_eq!(put(&mut table, &key(u32::MAX)), Err(Full::Entries));
        let away = |n: &u32| table.guesser().guess(table.spot(table.hash(&key(*n)))) == NOBODY;
        let second = (0..entries as u32).filter(away).count();
        // 3 %, and as much beside it as chance has ever had: 74 of 1024 in 20,000 tables.
        let most = entries / 20 + 2 * entries.isqrt();
        assert!(second < most, "{second} of {entries} live in their second bucket");
    }
}

#[test]
fn a_flow_takes_no_more_than_it_may() {
    let table = Table::new(1 << 16, Seed::random());
    let lines = table.lines().len() * super::super::line::ENTRY_BYTES;
    let buckets = size_of_val(&*table.buckets.0);
    let directory = super::super::directory::Directory::bytes(1 << 16);
    let each = (lines + buckets + directory).div_ceil(1 << 16) as u64;
    assert!(each <= crate::flow::FLOW_BYTES + 1 && crate::flow::FLOW_BYTES <= 192, "{each}");
}
