//! Maglev: a table from hashes to backends that is even, and that changes little when a backend comes or goes.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each backend has a permutation of
//! the table's slots, made from two hashes of its name; the backends take turns, and at its turn each takes the first slot of its
//! permutation that is free. So all have the same number of slots, give or take one, and when one goes, most slots keep their
//! backend. *Most*: when one of a hundred goes, 0.5 % of the slots change hands among the others in the table of usual size
//! (`benches/record/2026-11-25-gateway-simulation.md`). Hence two rules of this gateway:
//!
//! - the table is made anew only when the *configuration* changes (a target is added, removed or starts to drain). Who is unhealthy is stepped
//!   over ([`Maglev::resolve`]), which moves the flows of the unhealthy and nobody else's;
//! - flows that are known do not ask the table.
//!
//! **Weights.** A turn is taken only if the backend has saved enough: each round gives it its weight, each turn costs the highest weight of
//! all. So one of weight 1 beside one of weight 3 has a turn in every third round (as in Envoy and Katran).
//!
//! **The same everywhere.** Backends take turns in the order of their names, whatever the order in the file. The hashes are SHA-256's:
//! nothing depends on a machine, a release or a seed.

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Slots of the usual table: with up to 600 backends of one weight, none has 1 % more than its share.
pub const TABLE: u32 = 65_537;
/// Largest table (a prime): 10 MB. Envoy's bound.
pub const LARGEST_TABLE: u32 = 5_000_011;

/// Places that are tried at random for a slot whose backend cannot have it.
const TRIES: u64 = 32;
/// No backend yet.
const FREE: u16 = u16::MAX;

/// One who can have slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend<'a> {
    /// What makes it this one: the same on every gateway.
    pub name: &'a [u8],
    /// Its share, compared with the others'. 0: none.
    pub weight: u32,
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Bad {
    /// The permutations need a prime.
    #[error("the table has {0} slots, which is not a prime number up to {LARGEST_TABLE}")]
    Size(u32),
    /// Somebody would have no slot.
    #[error("{0} backends do not fit into a table of {1} slots")]
    Crowded(usize, u32),
    /// Somebody has weight and got no slot.
    #[error("a weight is so small beside the others that backend {0} has none of {1} slots")]
    Slotless(usize, u32),
    /// Two of the same name would take the same slots.
    #[error("backends {0} and {1} have one name")]
    Twins(usize, usize),
}

/// From slots to backends, by their places in the list from which it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

struct Turn {
    backend: u16,
    /// Next slot of its permutation, and the way from one to the next.
    next: u64,
    skip: u64,
    weight: u64,
    saved: u64,
}

impl Maglev {
    /// A table of `size` slots. Without backends that have weight it is empty, and [`Self::at`] says `None`.
    pub fn build(size: u32, backends: &[Backend<'_>]) -> Result<Self, Bad> {
        if size > LARGEST_TABLE || !is_prime(size) {
            return Err(Bad::Size(size));
        }
        let mut order: Vec<(usize, &Backend<'_>)> =
            backends.iter().enumerate().filter(|(_, backend)| backend.weight > 0).collect();
        if order.len() > (size as usize).min(usize::from(FREE)) || backends.len() > usize::from(FREE) {
            return Err(Bad::Crowded(backends.len(), size));
        }
        order.sort_unstable_by_key(|(_, backend)| backend.name);
        if let Some([(a, _), (b, _)]) =
            order.array_windows::<2>().find(|[(_, one), (_, other)]| one.name == other.name)
        {
            return Err(Bad::Twins(*a.min(b), *a.max(b)));
        }
        let turns = order.iter().map(|&(n, backend)| {
            let (first, second) = hashes(backend.name);
            let size = u64::from(size);
            let skip = second % (size - 1).max(1) + 1;
            Turn { backend: n as u16, next: first % size, skip, weight: backend.weight.into(), saved: 0 }
        });
        let slots = fill(size, turns.collect());
        let mut has = vec![false; backends.len()];
        for &backend in &slots {
            if let Some(place) = has.get_mut(usize::from(backend)) {
                *place = true;
            }
        }
        match order.iter().find(|(n, _)| has.get(*n) == Some(&false)) {
            Some(&(n, _)) => Err(Bad::Slotless(n, size)),
            None => Ok(Maglev { slots }),
        }
    }

    /// Whose the slot of this hash is.
    #[inline(always)]
    pub fn at(&self, hash: u64) -> Option<u16> {
        self.slots.get(slot_of(hash, self.slots.len())).copied()
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nobody has a slot.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots, in order.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The table for new flows while some cannot have any: each of their slots is lent to the backend of another one, drawn by the slot's
    /// number, so that all who are left have their part of it. Slots of the others stay as they are. If nobody can, all can: what is
    /// lost then is lost anyway, and a health check may be wrong (fail open).
    #[must_use]
    pub fn resolve(&self, can: impl Fn(u16) -> bool) -> Maglev {
        if !self.slots.iter().any(|&backend| can(backend)) {
            return self.clone();
        }
        let lend = |slot: usize| {
            let drawn = (1..=TRIES).map(|n| slot_of(mix((slot as u64) << 8 | n), self.slots.len()));
            // Nearly all cannot: the next who can, from there on.
            let walked = (slot..self.slots.len()).chain(0..slot);
            let mut owners = drawn.chain(walked).filter_map(|slot| self.slots.get(slot).copied());
            owners.find(|&backend| can(backend)).unwrap_or(FREE)
        };
        let slots = self.slots.iter().enumerate();
        Maglev { slots: slots.map(|(n, &backend)| if can(backend) { backend } else { lend(n) }).collect() }
    }

    /// The part of the slots that have another owner in `other`, a table of the same size. `name` and `other_name` say who an owner is.
    pub fn moved<T: PartialEq>(
        &self,
        other: &Maglev,
        name: impl Fn(u16) -> T,
        other_name: impl Fn(u16) -> T,
    ) -> f64 {
        let pairs = self.slots.iter().zip(&other.slots);
        pairs.filter(|&(&a, &b)| name(a) != other_name(b)).count() as f64 / self.slots.len().max(1) as f64
    }
}

/// The slot of a hash: a multiplication instead of a division, by the upper bits.
#[inline(always)]
fn slot_of(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

fn fill(size: u32, mut turns: Vec<Turn>) -> Box<[u16]> {
    let Some(price) = turns.iter().map(|turn| turn.weight).max() else { return Box::default() };
    let mut slots = vec![FREE; size as usize];
    let mut left = slots.len();
    loop {
        for turn in &mut turns {
            turn.saved += turn.weight;
            if turn.saved < price {
                continue;
            }
            turn.saved -= price;
            // A permutation comes by every slot, and one is free.
            while let Some(slot) = slots.get_mut(turn.next as usize) {
                turn.next = (turn.next + turn.skip) % u64::from(size);
                if *slot == FREE {
                    *slot = turn.backend;
                    left -= 1;
                    break;
                }
            }
            if left == 0 {
                return slots.into();
            }
        }
    }
}

/// The two hashes of a name.
fn hashes(name: &[u8]) -> (u64, u64) {
    let digest = Sha256::digest(name);
    let word =
        |at: usize| digest.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b));
    (word(0), word(8))
}

/// splitmix64.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Is it a prime number? By trial: at most a few thousand divisions for what fits in 32 bits.
pub fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d: &u64| d * d <= n.into()).all(|d| !u64::from(n).is_multiple_of(d))
}

#[cfg(test)]
mod tests;
