//! What a search costs on this machine: random keys, half of them inside rules, searched in batches.
//!
//! It is the search alone, with its tables as warm as these keys leave them; what the stage adds (gathering keys,
//! counting, deciding) is not in it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::compiled::{Compiled, Room, Tables, V4_KEY, V6_KEY, v4_key, v6_key};
use super::rule::Nets;
use super::set::RuleSet;
use crate::dpdk::cycles;

/// Keys that are searched.
pub const SAMPLES: usize = 4096;
/// Keys at a time.
const BATCH: usize = 32;

/// Cycles of a search per packet, for each family that has deciding rules.
pub fn measure(rules: &Compiled, set: &RuleSet) -> Vec<(&'static str, u64)> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut out = Vec::new();
    // Of the class of tenants that no rule names.
    let Some((v4, v6)) = rules.of(0) else { return out };
    if v4.full.deciding.is_some() {
        let keys: Vec<_> = (0..SAMPLES).map(|_| near_v4(set, &mut random)).collect();
        out.push(("IPv4", v4.full.cost(&keys)));
    }
    if v6.full.deciding.is_some() {
        let keys: Vec<_> = (0..SAMPLES).map(|_| near_v6(set, &mut random)).collect();
        out.push(("IPv6", v6.full.cost(&keys)));
    }
    out
}

impl<const KEY: usize> Tables<KEY> {
    /// The best of several rounds over all keys: others may disturb a round, nothing speeds one up.
    fn cost(&self, keys: &[[u8; KEY]]) -> u64 {
        let mut room = Room::default();
        let mut round = || {
            let start = cycles();
            for keys in keys.chunks(BATCH) {
                self.judge(keys, &mut room, |_, _| ());
                std::hint::black_box(&room.answers);
            }
            (cycles() - start) / keys.len().max(1) as u64
        };
        (0..5).map(|_| round()).min().unwrap_or(0)
    }
}

/// A random key: inside a rule half of the time.
fn near_v4(set: &RuleSet, random: &mut ChaCha8Rng) -> [u8; V4_KEY] {
    let (protocol, ports, nets) = near(set, random);
    let (source, destination) = match nets {
        Nets::V4(s, d) => (
            s.addr().to_bits() | random.next_u32() & s.hostmask().to_bits(),
            d.addr().to_bits() | random.next_u32() & d.hostmask().to_bits(),
        ),
        _ => (random.next_u32(), random.next_u32()),
    };
    v4_key(protocol, &(u64::from(source) << 32 | u64::from(destination)).to_be_bytes(), ports)
}

fn near_v6(set: &RuleSet, random: &mut ChaCha8Rng) -> [u8; V6_KEY] {
    let mut any = || u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    let (source, destination) = (any(), any());
    let (protocol, ports, nets) = near(set, random);
    let (source, destination) = match nets {
        Nets::V6(s, d) => (
            s.addr().to_bits() | source & s.hostmask().to_bits(),
            d.addr().to_bits() | destination & d.hostmask().to_bits(),
        ),
        _ => (source, destination),
    };
    let mut addresses = [0; 32];
    addresses[..16].copy_from_slice(&source.to_be_bytes());
    addresses[16..].copy_from_slice(&destination.to_be_bytes());
    v6_key(protocol, &addresses, ports)
}

fn near(set: &RuleSet, random: &mut ChaCha8Rng) -> (u8, (u16, u16), Nets) {
    let number = random.next_u32() as usize;
    let port = random.next_u32();
    let (from, to) = ((port >> 16) as u16, port as u16);
    let rule = set.rules().get(number / 2 % set.rules().len().max(1)).filter(|_| number.is_multiple_of(2));
    let Some(rule) = rule else { return (6, (from, to), Nets::Any) };
    let inside =
        |ranges: &[(u16, u16)], port: u16| ranges.first().map_or(port, |&(low, high)| port.clamp(low, high));
    let protocol = rule.protocols.first().copied().unwrap_or(17);
    (protocol, (inside(&rule.source_ports, from), inside(&rule.destination_ports, to)), rule.nets)
}
