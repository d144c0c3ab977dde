//! The management side of balancing: what is known of the targets, and what workers are told of it.
//!
//! | event | new flows | flows that are there |
//! |---|---|---|
//! | a target fails its checks | go to others | stay; with `rebalance` they move, unless nobody is healthy |
//! | a target is taken out | go to others | stay until the deregistration delay is over; then, with `rebalance`, they move |
//!
//! Pure: time is what the caller says it is.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::forward::{News, Seat};
use super::maglev::Bad;
use super::targets::{Group, State, Target, TargetId};
use crate::config::{Failover, GatewayPlan};

/// The targets of a gateway, and those that are on their way out.
#[derive(Clone, Debug)]
pub struct Balance {
    group: Group,
    failover: Failover,
    delay: Duration,
    /// When the delay of those that drain is over; `None`: it is.
    leaving: Vec<(TargetId, Option<Duration>)>,
}

impl Balance {
    /// As the plan has it. Targets have to be found, and checked if the plan says how; one whose MAC address is given is healthy from the start if it does not.
    pub fn of(plan: &GatewayPlan) -> Result<Self, Bad> {
        let target = |target: &crate::config::TargetPlan| Target {
            address: target.address,
            mac: target.mac,
            zone: target.zone.clone(),
            weight: target.weight,
            state: if target.mac.is_some() && plan.health_check.is_none() {
                State::Healthy
            } else {
                State::Initial
            },
        };
        let targets = plan.targets.iter().map(target).collect();
        let group = Group::new(targets, plan.zone.clone(), plan.cross_zone, plan.table)?;
        Ok(Balance { group, failover: plan.failover, delay: plan.deregistration_delay, leaving: Vec::new() })
    }

    /// The targets.
    pub fn targets(&self) -> &[Target] {
        self.group.targets()
    }

    /// The number of the target with this address.
    pub fn find(&self, address: Ipv4Addr) -> Option<TargetId> {
        let place = self.targets().iter().position(|target| target.address == address)?;
        u16::try_from(place).ok().map(TargetId)
    }

    /// Nobody is healthy, and flows go where they would if all were.
    pub fn fails_open(&self) -> bool {
        self.group.choice().fails_open()
    }

    /// Notes where a target is found. True if workers have to know.
    pub fn set_mac(&mut self, id: TargetId, mac: Option<[u8; 6]>) -> bool {
        self.group.set_mac(id, mac)
    }

    /// Notes what health checks found. True if workers have to know.
    pub fn set_health(&mut self, id: TargetId, state: State) -> bool {
        self.group.set_health(id, state)
    }

    /// A target is taken out: no new flows from now on, and its delay begins. `at` is the time.
    pub fn deregister(&mut self, id: TargetId, at: Duration) -> Result<bool, Bad> {
        if self.targets().get(usize::from(id.0)).is_none_or(|target| target.state == State::Draining) {
            return Ok(false);
        }
        self.group.drain(id)?;
        self.leaving.push((id, Some(at + self.delay)));
        Ok(true)
    }

    /// True if a delay is over since the last time, and workers have to know.
    pub fn look(&mut self, at: Duration) -> bool {
        let mut over = false;
        for (_, until) in &mut self.leaving {
            if until.is_some_and(|until| until <= at) {
                *until = None;
                over = true;
            }
        }
        over
    }

    /// Is the delay of this target over?
    pub fn is_gone(&self, id: TargetId) -> bool {
        self.leaving.iter().any(|(other, until)| *other == id && until.is_none())
    }

    /// What workers are to know.
    pub fn news(&self) -> News {
        let choice = self.group.choice();
        let is_left = |(n, target): (usize, &Target)| {
            let unhealthy = target.state == State::Unhealthy && !choice.fails_open();
            self.failover == Failover::Rebalance && (unhealthy || self.is_gone(TargetId(n as u16)))
        };
        let targets = self.targets().iter().enumerate();
        let seat = |(n, target): (usize, &Target)| Seat {
            address: target.address.octets(),
            mac: target.mac,
            is_left: is_left((n, target)),
        };
        let seats = targets.map(seat).collect();
        News { choice, seats }
    }
}
