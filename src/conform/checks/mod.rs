//! What is demanded of an appliance, and how it is found out. One group, one file; docs/conform.md is made from this list.
//!
//! Each check judges one thing and overlooks everything else, so that a fault shows where it is. Its own flows are new to the appliance: a check
//! finds no traces of the one before.

mod envelope;
mod inner;
mod options;
mod flow;
mod fragments;
mod icmp;
mod mtu;
mod malformed;
mod health;
mod throughput;

use super::session::{Outcome, Session};

/// How much a check is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Traffic suffers, or a standard is broken.
    Must,
    /// Good appliances do.
    Should,
    /// Told, not judged.
    Remark,
}

impl Level {
    /// As reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Must => "must",
            Level::Should => "should",
            Level::Remark => "remark",
        }
    }
}

/// One check.
#[derive(Debug)]
pub struct Check {
    /// `group.name`.
    pub id: &'static str,
    /// How much it is demanded.
    pub level: Level,
    /// What is demanded, in one sentence.
    pub demand: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// Checks without which this one cannot be judged.
    pub needs: &'static [&'static str],
    /// Finds out.
    pub run: fn(&mut Session<'_>) -> Outcome,
}

/// All checks, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&'static [Check]; 10] = [
        envelope::CHECKS,
        inner::CHECKS,
        options::CHECKS,
        flow::CHECKS,
        fragments::CHECKS,
        icmp::CHECKS,
        mtu::CHECKS,
        malformed::CHECKS,
        health::CHECKS,
        throughput::CHECKS,
    ];
    groups.into_iter().flatten()
}

/// The user guide of AWS's load balancer.
const AWS_GUIDE: &str = "AWS Gateway Load Balancers guide";
