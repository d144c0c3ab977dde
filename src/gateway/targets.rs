//! Targets: who there is, in which zone, with what weight and in what state, and who gets the next flow.
//!
//! | state | flows it has | new flows |
//! |---|---|---|
//! | initial | - | only if nobody else can |
//! | healthy | stay | yes |
//! | unhealthy | stay (`no_rebalance`) | only if nobody else can |
//! | draining | stay until they end or the delay is over | no |
//!
//! A gateway stands in a zone. Across zones it balances only if told to; otherwise each zone decides alone, and one whose targets are all
//! unhealthy fails open within itself, as AWS's does. Targets of weight 0 are as good as draining.
//!
//! [`Group`] belongs to whoever manages; what workers read is its [`Choice`], made anew after each change.

use std::net::Ipv4Addr;

use super::maglev::{Backend, Bad, Maglev};

/// Targets of a group. AWS has 300 per zone; more than this would not be told apart by a table of usual size.
pub const MOST_TARGETS: usize = 1_000;
/// Highest weight.
pub const MOST_WEIGHT: u32 = 1_000;

/// Place of a target in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TargetId(pub u16);

/// Name of a zone.
pub type ZoneName = String;

/// What is known of a target's fitness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not judged yet.
    Initial,
    /// May have new flows.
    Healthy,
    /// Failed its health checks.
    Unhealthy,
    /// On its way out.
    Draining,
}

/// One appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address, which also is its name: the same on every gateway.
    pub address: Ipv4Addr,
    /// Its MAC address, or that of the router to it; `None` while nobody knows.
    pub mac: Option<[u8; 6]>,
    /// Where it stands.
    pub zone: ZoneName,
    /// Its share of new flows.
    pub weight: u32,
    /// How it is.
    pub state: State,
}

/// The targets of one gateway.
#[derive(Clone, Debug)]
pub struct Group {
    targets: Vec<Target>,
    zone: ZoneName,
    cross_zone: bool,
    /// Over those that are configured to have new flows, whatever their health.
    table: Maglev,
}

/// For workers: to whom a new flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    table: Maglev,
    fails_open: bool,
}

impl Group {
    /// A group as seen from `zone`, with a table of `size` slots.
    pub fn new(targets: Vec<Target>, zone: ZoneName, cross_zone: bool, size: u32) -> Result<Self, Bad> {
        let mut group = Group { targets, zone, cross_zone, table: Maglev::build(size, &[])? };
        group.table = group.build(size)?;
        Ok(group)
    }

    fn build(&self, size: u32) -> Result<Maglev, Bad> {
        let octets: Vec<[u8; 4]> = self.targets.iter().map(|target| target.address.octets()).collect();
        let weight = |target: &Target| if self.is_eligible(target) { target.weight } else { 0 };
        let backends = self.targets.iter().zip(&octets);
        let backends: Vec<_> =
            backends.map(|(target, name)| Backend { name: &name[..], weight: weight(target) }).collect();
        Maglev::build(size, &backends)
    }

    /// Does the configuration give it new flows of this gateway?
    fn is_eligible(&self, target: &Target) -> bool {
        (self.cross_zone || target.zone == self.zone) && target.state != State::Draining
    }

    /// The targets.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Notes what health checks found. True if [`Self::choice`] may be another now.
    pub fn set_health(&mut self, id: TargetId, state: State) -> bool {
        let Some(target) = self.targets.get_mut(usize::from(id.0)) else { return false };
        if target.state == State::Draining || state == State::Draining || target.state == state {
            return false;
        }
        target.state = state;
        true
    }

    /// Notes where a target is found. True if that is news.
    pub fn set_mac(&mut self, id: TargetId, mac: Option<[u8; 6]>) -> bool {
        let Some(target) = self.targets.get_mut(usize::from(id.0)) else { return false };
        let was = std::mem::replace(&mut target.mac, mac);
        was != mac
    }

    /// A target drains from now on: the table is made without it, on every gateway that is told so the same.
    pub fn drain(&mut self, id: TargetId) -> Result<(), Bad> {
        if let Some(target) = self.targets.get_mut(usize::from(id.0)) {
            target.state = State::Draining;
        }
        let size = self.table.len() as u32;
        if size > 0 {
            self.table = self.build(size)?;
        }
        Ok(())
    }

    /// To whom new flows go, as things stand.
    pub fn choice(&self) -> Choice {
        let healthy = |n: u16| self.targets.get(usize::from(n)).is_some_and(|t| t.state == State::Healthy);
        let fails_open = !self.table.slots().iter().any(|&n| healthy(n));
        Choice { table: self.table.resolve(healthy), fails_open }
    }
}

impl Choice {
    /// The target for a new flow of this hash. `None` if no target is configured to have any.
    #[inline(always)]
    pub fn of(&self, hash: u64) -> Option<TargetId> {
        self.table.at(hash).map(TargetId)
    }

    /// Nobody is healthy, and flows go where they would if all were.
    pub fn fails_open(&self) -> bool {
        self.fails_open && !self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::TABLE;

    fn target(n: u8, zone: &str, state: State) -> Target {
        Target {
            address: Ipv4Addr::new(10, 0, 1, n),
            mac: Some([2, 0, 0, 0, 0, n]),
            zone: zone.into(),
            weight: 1,
            state,
        }
    }

    fn group(targets: &[(u8, &str, State)], cross_zone: bool) -> Group {
        let targets = targets.iter().map(|(n, zone, state)| target(*n, zone, *state)).collect();
        Group::new(targets, "a".into(), cross_zone, TABLE).unwrap()
    }

    /// Who gets some of 10,000 flows.
    fn chosen(group: &Group) -> Vec<u16> {
        let choice = group.choice();
        let hashes = (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut chosen: Vec<u16> = hashes.filter_map(|hash| choice.of(hash)).map(|id| id.0).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    use State::{Draining, Healthy, Initial, Unhealthy};

    #[test]
    fn zones_are_balanced_alone_unless_told_otherwise() {
        let targets = [(1, "a", Healthy), (2, "b", Healthy), (3, "a", Healthy)];
        assert_eq!(chosen(&group(&targets, false)), [0, 2]);
        assert_eq!(chosen(&group(&targets, true)), [0, 1, 2]);
        assert!(chosen(&group(&targets[1..2], false)).is_empty(), "a zone without targets has none");
    }

    #[test]
    fn only_the_healthy_get_new_flows() {
        let targets = [(1, "a", Healthy), (2, "a", Unhealthy), (3, "a", Initial), (4, "a", Draining)];
        let group = group(&targets, false);
        assert_eq!(chosen(&group), [0]);
        assert!(!group.choice().fails_open());
    }

    #[test]
    fn when_nobody_is_healthy_all_but_the_draining_get_them() {
        let targets = [(1, "a", Unhealthy), (2, "a", Initial), (3, "a", Draining), (4, "b", Healthy)];
        let group = group(&targets, false);
        assert_eq!(chosen(&group), [0, 1], "its own zone only");
        assert!(group.choice().fails_open());
    }

    #[test]
    fn health_moves_only_the_flows_of_who_is_unhealthy() {
        let targets: Vec<_> = (1..=20).map(|n| (n, "a", Healthy)).collect();
        let mut group = group(&targets, false);
        let before = group.choice();
        assert!(group.set_health(TargetId(7), Unhealthy));
        assert!(!group.set_health(TargetId(7), Unhealthy), "no news");
        let after = group.choice();
        for hash in (0..100_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let (then, now) = (before.of(hash).unwrap(), after.of(hash).unwrap());
            assert_ne!(now, TargetId(7));
            assert!(then == TargetId(7) || then == now);
        }
        assert!(group.set_health(TargetId(7), Healthy));
        assert_eq!(group.choice(), before, "as if nothing had been");
    }

    #[test]
    fn who_drains_stays_drained_whatever_its_health() {
        let targets = [(1, "a", Healthy), (2, "a", Healthy)];
        let mut group = group(&targets, false);
        group.drain(TargetId(0)).unwrap();
        assert!(!group.set_health(TargetId(0), Healthy));
        assert_eq!(chosen(&group), [1]);
        group.drain(TargetId(1)).unwrap();
        assert!(chosen(&group).is_empty());
        assert!(!group.choice().fails_open(), "nobody is there to fail open to");
        assert!(!group.set_health(TargetId(9), Healthy), "no such target");
    }
}
