//! What is compiled against the reference: the same lists for every address, of random lists and of a million entries.
//!
//! One EAL (ordinary pages) serves the whole file, which therefore has one test and so a process of its own.
#![cfg(feature = "dpdk")]
#![allow(clippy::print_stdout, reason = "it measures too")]

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sluicegate::dpdk::eal::Eal;
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};
use sluicegate::stages::blocklist::compiled::{self, Compiled};
use sluicegate::stages::blocklist::entry::{Entries, Lists, MOST_LISTS};
use sluicegate::stages::blocklist::plain::Plain;

fn start() -> Eal {
    // SAFETY: no precondition.
    let cpu = unsafe { libc::sched_getcpu() } as u32;
    let plan = EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 1100,
        file_prefix: "sluicegate-test-blocklist".into(),
        lcores: vec![LcorePlan { lcore: 0, cpu }],
        args: Vec::new(),
    };
    Eal::init(&plan, &[]).unwrap()
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0.next_u32() % n
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())
    }

    /// A prefix, of few networks if they are to nest.
    fn net(&mut self, near: bool) -> IpNet {
        if self.below(2) == 0 {
            let len = if near { self.below(33) } else { 20 + self.below(5) } as u8;
            let address =
                if near { 0x0a00_0000 | self.0.next_u32() & 0x0003_0303 } else { self.0.next_u32() };
            IpNet::V4(Ipv4Net::new(address.into(), len).unwrap().trunc())
        } else {
            let len = if near { self.below(129) } else { 40 + self.below(89) } as u8;
            let few = (0x2001_0db8 << 96) | self.wide() & (3 << 80 | 3 << 64 | 0x303);
            let address = if near { few } else { 0x2000 << 112 | self.wide() >> 3 };
            IpNet::V6(Ipv6Net::new(address.into(), len).unwrap().trunc())
        }
    }
}

/// Addresses in and around entries, and some from anywhere.
fn questions(dice: &mut Dice, entries: &Entries, count: usize) -> (Vec<u32>, Vec<u128>) {
    let four = |dice: &mut Dice| match entries.v4.len() {
        0 => dice.0.next_u32(),
        _ if dice.below(4) == 0 => dice.0.next_u32(),
        len => {
            let entry = &entries.v4[dice.below(len as u32) as usize];
            let inside =
                entry.first | dice.0.next_u32() & u32::MAX.checked_shr(entry.len.into()).unwrap_or(0);
            inside.wrapping_add(dice.below(3)).wrapping_sub(1)
        }
    };
    let v4 = (0..count).map(|_| four(dice)).collect();
    let six = |dice: &mut Dice| match entries.v6.len() {
        0 => dice.wide(),
        _ if dice.below(4) == 0 => dice.wide(),
        len => {
            let entry = &entries.v6[dice.below(len as u32) as usize];
            let inside = entry.first | dice.wide() & u128::MAX.checked_shr(entry.len.into()).unwrap_or(0);
            inside.wrapping_add(dice.below(3).into()).wrapping_sub(1)
        }
    };
    (v4, (0..count).map(|_| six(dice)).collect())
}

/// Asks both, in batches of any size. How many addresses were on a list.
fn agree(dice: &mut Dice, entries: &Entries, count: usize) -> usize {
    let (plain, compiled) = (Plain::new(entries), Compiled::build(entries).unwrap());
    let (v4, v6) = questions(dice, entries, count);
    let mut listed = 0;
    let mut lists = [Lists::MAX; 128];
    let (mut four, mut six) = (v4.as_slice(), v6.as_slice());
    while !four.is_empty() || !six.is_empty() {
        let some = 1 + dice.below(128) as usize;
        let (now, rest) = four.split_at(some.min(four.len()));
        compiled.v4(now, &mut lists[..now.len()]);
        for (address, found) in now.iter().zip(lists) {
            assert_eq!(found, plain.v4(*address), "{}", std::net::Ipv4Addr::from(*address));
            listed += usize::from(found != 0);
        }
        four = rest;
        let (now, rest) = six.split_at(some.min(six.len()));
        compiled.v6(now, &mut lists[..now.len()]);
        for (address, found) in now.iter().zip(lists) {
            assert_eq!(found, plain.v6(*address), "{}", std::net::Ipv6Addr::from(*address));
            listed += usize::from(found != 0);
        }
        six = rest;
    }
    listed
}

#[test]
fn what_is_compiled_agrees_with_the_reference() {
    let eal = start();
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(0x5eed));
    // Many small lists that nest and meet.
    let (mut asked, mut listed) = (0, 0);
    for round in 0..60 {
        let mut entries = Entries::default();
        for _ in 0..dice.below(if round % 10 == 0 { 2 } else { 300 }) {
            entries.add(dice.net(true), dice.below(MOST_LISTS as u32) as usize);
        }
        entries.sort();
        listed += agree(&mut dice, &entries, 2_000);
        asked += 4_000;
    }
    assert!(listed > asked / 4 && listed < asked, "{listed} of {asked}");
    a_million_entries(&mut dice);
    drop(eal);
}

/// A million entries of both families, half of them addresses; a million questions. In the same process, because DPDK starts once.
fn a_million_entries(dice: &mut Dice) {
    let mut entries = Entries::default();
    while entries.len() < 1_000_000 {
        for _ in 0..1_000_000 - entries.len() {
            let net = match dice.below(4) {
                0 | 1 => IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(dice.0.next_u32()))),
                2 => IpNet::V4(
                    Ipv4Net::new(dice.0.next_u32().into(), 20 + dice.below(5) as u8).unwrap().trunc(),
                ),
                // Longer than 24 bits: one in forty, each with a table of its own.
                _ if dice.below(10) == 0 => IpNet::V4(
                    Ipv4Net::new(dice.0.next_u32().into(), 25 + dice.below(7) as u8).unwrap().trunc(),
                ),
                _ => dice.net(false),
            };
            entries.add(net, dice.below(4) as usize);
        }
        entries.sort();
    }
    let estimate = compiled::memory(&entries);
    let compiled = Compiled::build(&entries).unwrap();
    for (name, value) in compiled.report() {
        println!("{name:<12} {value}");
    }
    let taken = compiled.eal_bytes();
    println!("estimate     {:.1} MB of the EAL's", estimate as f64 / 1e6);
    assert!(taken <= estimate && estimate < 2 * taken, "{taken} bytes, {estimate} estimated");
    drop(compiled);
    let listed = agree(dice, &entries, 500_000);
    assert!(listed > 250_000, "{listed}");
}
