//! `rte_acl` against the linear reference: the same decision and the same observers for every key of random rule sets,
//! at every batch size.
//!
//! One EAL (ordinary pages) serves the whole file, which therefore has one test and so a process of its own.
#![cfg(feature = "dpdk")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sluicegate::dpdk::BURST;
use sluicegate::dpdk::eal::Eal;
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};
use sluicegate::stage::{Backend, Parsed};
use sluicegate::stages::acl::compiled::Compiled;
use sluicegate::stages::acl::linear::{self, Key};
use sluicegate::stages::acl::rule::{Action, Nets, Place, Rule, Words};
use sluicegate::stages::acl::{Acl, RuleSet};

const SETS: usize = 320;
const KEYS: usize = 400; // 128,000 cases
const SEED: u64 = 0x5eed;

fn start() -> Eal {
    // SAFETY: no precondition.
    let cpu = unsafe { libc::sched_getcpu() } as u32;
    let plan = EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 16,
        file_prefix: "sluicegate-test-acl".into(),
        lcores: vec![LcorePlan { lcore: 0, cpu }],
        args: Vec::new(),
    };
    Eal::init(&plan, &[]).unwrap()
}

/// Small choices, so that rules overlap and keys hit them.
struct Dice(ChaCha8Rng, bool); // and whether rules are tenants'

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.next_u32() as usize % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn v4(&mut self) -> u32 {
        // Few networks, few hosts, and sometimes anything.
        match self.below(4) {
            0 => self.0.next_u32(),
            _ => u32::from_be_bytes([
                10,
                self.one(&[0, 1, 128]),
                self.one(&[0, 7, 255]),
                self.one(&[0, 1, 2, 255]),
            ]),
        }
    }

    fn v6(&mut self) -> u128 {
        let low = u128::from(self.0.next_u64());
        match self.below(4) {
            0 => u128::from(self.0.next_u64()) << 64 | low,
            1 => (0x2001_0db8 << 96) | (low % 3),
            2 => (0x2001_0db8 << 96) | (u128::from(self.one(&[0u64, 1, 0x8000_0000])) << 64) | (low % 4),
            _ => (0xfd00 << 112) | ((low % 3) << 32) | (low % 2),
        }
    }

    fn net(&mut self, v6: bool) -> String {
        if self.below(4) == 0 {
            return String::new();
        }
        if v6 {
            let length = self.one(&[0, 1, 8, 31, 32, 33, 48, 63, 64, 65, 95, 96, 97, 127, 128]);
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            format!("{}/{length}", Ipv6Addr::from_bits(self.v6() & mask))
        } else {
            let length = self.one(&[0, 1, 8, 9, 15, 16, 17, 24, 31, 32]);
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from_bits(self.v4() & mask))
        }
    }

    fn port(&mut self) -> u16 {
        match self.below(5) {
            0 => self.0.next_u32() as u16,
            _ => self.one(&[0, 1, 22, 79, 80, 81, 255, 256, 443, 1023, 1024, 65534, 65535]),
        }
    }

    fn ports(&mut self) -> String {
        let item = |dice: &mut Self| {
            let (a, b) = (dice.port(), dice.port());
            if dice.below(2) == 0 { a.to_string() } else { format!("{}-{}", a.min(b), a.max(b)) }
        };
        match self.below(4) {
            0 | 1 => String::new(),
            2 => item(self),
            _ => [item(self), item(self), item(self)].join("|"),
        }
    }

    fn rule(&mut self, number: usize) -> Rule {
        let v6 = self.below(2) == 0;
        let (source, destination) = (self.net(v6), self.net(v6));
        let protocol = self.one(&["", "tcp", "udp", "tcp|udp", "icmp", "icmpv6", "sctp", "esp", "0", "255"]);
        let with_ports = matches!(protocol, "tcp" | "udp" | "tcp|udp" | "sctp");
        let (from, to) = if with_ports { (self.ports(), self.ports()) } else { Default::default() };
        let icmp = if protocol.starts_with("icmp") {
            self.one(&["", "8", "8/0", "0|8", "3/4|3/13", "255", "128"])
        } else {
            ""
        };
        let action = self.one(&["allow", "deny", "reject", "allow", "deny", "log", "count"]);
        let words = Words {
            action,
            protocol,
            source: &source,
            destination: &destination,
            source_port: &from,
            destination_port: &to,
            icmp_type: icmp,
            comment: "",
            ..Words::default()
        };
        let rule = Rule::parse(&words, Place::Inline(number));
        let rule = rule.unwrap_or_else(|wrong| panic!("{words:?}: {wrong:?}"));
        // Of a quarter of the sets, some rules are some tenants'.
        let tenants: &[u16] = if self.1 { self.one(&[&[], &[], &[1], &[3], &[1, 2], &[0]]) } else { &[] };
        Rule { tenants: tenants.to_vec(), ..rule }
    }

    /// Any key, or one inside a rule with one detail perhaps changed.
    fn key(&mut self, rules: &[Rule]) -> Key {
        let v6 = self.below(2) == 0;
        let address = |dice: &mut Self| match v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(dice.v6())),
            false => IpAddr::V4(Ipv4Addr::from_bits(dice.v4())),
        };
        let protocol = self.one(&[6, 17, 1, 58, 132, 50, 0, 255]);
        let mut key = Key {
            protocol,
            source: address(self),
            destination: address(self),
            ports: None,
            tenant: self.below(5) as u16,
        };
        if matches!(protocol, 6 | 17 | 132) && self.below(6) != 0 {
            key.ports = Some((self.port(), self.port()));
        } else if matches!(protocol, 1 | 58) && self.below(6) != 0 {
            key.ports =
                Some((self.one(&[0x0800, 0x0000, 0x0304, 0x030d, 0x8000, 0xff00, 0x0801]), self.port()));
        }
        if self.below(2) == 0 {
            let rule = &rules[self.below(rules.len())];
            match rule.nets {
                Nets::V4(s, d) => {
                    let inside = |dice: &mut Self, net: ipnet::Ipv4Net| {
                        IpAddr::V4(Ipv4Addr::from_bits(
                            net.addr().to_bits() | dice.0.next_u32() & net.hostmask().to_bits(),
                        ))
                    };
                    (key.source, key.destination) = (inside(self, s), inside(self, d));
                }
                Nets::V6(s, d) => {
                    let inside = |dice: &mut Self, net: ipnet::Ipv6Net| {
                        let low = u128::from(dice.0.next_u64()) << 64 | u128::from(dice.0.next_u64());
                        IpAddr::V6(Ipv6Addr::from_bits(net.addr().to_bits() | low & net.hostmask().to_bits()))
                    };
                    (key.source, key.destination) = (inside(self, s), inside(self, d));
                }
                Nets::Any => {}
            }
            if let Some(&protocol) = rule.protocols.first() {
                key.protocol = protocol;
            }
            let end = |dice: &mut Self, ranges: &[(u16, u16)], port: u16| match ranges.first() {
                Some(&(low, high)) => dice.one(&[low, high, low.wrapping_sub(1), high.wrapping_add(1)]),
                None => port,
            };
            if rule.reads_ports() && self.below(5) != 0 {
                let (from, to) = key.ports.unwrap_or_default();
                key.ports =
                    Some((end(self, &rule.source_ports, from), end(self, &rule.destination_ports, to)));
            }
        }
        key
    }
}

#[test]
fn rte_acl_agrees_with_the_reference() {
    let _eal = start();
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(SEED), false);
    let mut reversed = 0;
    let (mut cases, mut decided, mut observed, mut bare, mut v6) = (0, 0, 0, 0, 0);
    for set_number in 0..SETS {
        dice.1 = set_number % 4 == 3;
        let count = 1 + dice.below(if set_number % 10 == 0 { 120 } else { 30 });
        let rules: Vec<Rule> = (0..count).map(|n| dice.rule(n)).collect();
        // Too many overlapping observers are refused by design; the rest of the set is as good.
        let set = RuleSet::new(rules.clone(), Action::Deny).or_else(|_| {
            let deciding = rules.into_iter().filter(|rule| rule.action.decides()).collect();
            RuleSet::new(deciding, Action::Deny)
        });
        let set = set.unwrap();
        if set.rules().is_empty() {
            continue;
        }
        let compiled = Compiled::build(&set).unwrap();
        let keys: Vec<Key> = (0..KEYS).map(|_| dice.key(set.rules())).collect();
        agree_in_reverse(&compiled, &set, &keys, &mut reversed);
        // Every batch size takes its own way through rte_acl: one at a time, 4, 8, 16, 32.
        let batch = 1 + set_number % BURST;
        let mut seen = vec![Vec::new(); KEYS];
        let got = compiled.search(set.classes(), &keys, batch, |key, rule| seen[key].push(rule));
        for ((key, got), mut seen) in keys.iter().zip(got).zip(seen) {
            let mut expected_seen = Vec::new();
            let expected = linear::search(set.rules(), key, |n| expected_seen.push(n));
            seen.sort_unstable();
            let place = || format!("set {set_number}, batch {batch}, {key:?}, rules {:#?}", set.rules());
            let expected = expected.map(|n| (n, set.rules()[n].action));
            assert_eq!(got, expected, "{}", place());
            assert_eq!(seen, expected_seen, "{}", place());
            cases += 1;
            decided += usize::from(expected.is_some());
            observed += expected_seen.len();
            bare += usize::from(key.ports.is_none());
            v6 += usize::from(key.source.is_ipv6());
        }
    }
    assert!(reversed > 500, "{reversed} flows that only the other side may open");
    // The random cases must be worth something.
    let counts =
        format!("{cases} cases: {decided} decided, {observed} observed, {bare} without ports, {v6} IPv6");
    assert!(cases >= 100_000 && decided > cases / 4 && decided < cases * 9 / 10, "{counts}");
    assert!(observed > cases / 20 && bare > cases / 20 && v6 > cases / 4, "{counts}");
    a_set_that_does_not_fit_says_which_setting_to_raise();
}

/// Answers to denied flows, asked in reverse: the rule that says that the other side opens them.
fn agree_in_reverse(compiled: &Compiled, set: &RuleSet, keys: &[Key], found: &mut usize) {
    let back: Vec<Key> = keys.iter().map(Key::reversed).collect();
    for ((key, back), got) in
        keys.iter().zip(&back).zip(compiled.search(set.classes(), &back, BURST, |_, _| ()))
    {
        assert_eq!(back.reversed(), *key);
        let allows = |&(number, action): &(usize, Action)| {
            action == Action::Allow && !set.rules()[number].matches(key)
        };
        let expected = linear::allows_reverse(set.rules(), key);
        assert_eq!(got.filter(allows).map(|(number, _)| number), expected, "{key:?}");
        if let Some(number) = expected {
            assert_ne!(linear::search(set.rules(), key, |_| ()), Some(number), "{key:?}");
            *found += 1;
        }
    }
}

/// In the same process, because DPDK starts once.
fn a_set_that_does_not_fit_says_which_setting_to_raise() {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(1), false);
    let mut text = String::from("action,protocol,source,destination,destination_port\n");
    for _ in 0..15_000 {
        let net = |dice: &mut Dice| {
            let length = 8 + dice.below(25) as u32;
            format!("{}/{length}", Ipv4Addr::from_bits(dice.0.next_u32() & (u32::MAX << (32 - length))))
        };
        let (a, port) = (net(&mut dice), dice.0.next_u32() as u16);
        let line = if dice.below(2) == 0 { format!("{a},") } else { format!(",{a}") };
        text.push_str(&format!("allow,tcp,{line},{port}\n"));
    }
    let rules = sluicegate::stages::acl::csv::parse("many.csv", text.as_bytes()).unwrap();
    let acl = Acl::new(RuleSet::new(rules, Action::Deny).unwrap());
    assert!(acl.eal_memory() > 16 << 20);
    match acl.build(Backend::Eal) {
        Err(error) => assert!(error.to_string().ends_with("raise memory_mb under [eal]"), "{error}"),
        Ok(built) => panic!("it fitted: {:?}", built.report()),
    }
}
