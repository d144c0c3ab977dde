//! What a checker tells others.

use std::fmt;
use std::net::Ipv4Addr;

use super::arp::{Mac, spelled};
use super::snapshot::word;
use crate::gateway::targets::{State, TargetId};

/// What others want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A target is in another state.
    State {
        /// Its place in the group.
        target: TargetId,
        /// Its address.
        address: Ipv4Addr,
        /// How it was.
        from: State,
        /// How it is.
        to: State,
        /// What the last check came to.
        reason: String,
    },
    /// Where a target's frames go has become known, or is another now.
    Mac {
        /// Its place in the group.
        target: TargetId,
        /// Its address.
        address: Ipv4Addr,
        /// Where they went before.
        was: Option<Mac>,
        /// Where they go.
        mac: Mac,
    },
    /// Somebody else said that it has the address of a target or of the router. It is not believed. Told once a minute.
    Claim {
        /// The address.
        neighbour: Ipv4Addr,
        /// Who said so.
        mac: Mac,
    },
    /// Somebody else has our own address. Told once a minute.
    Conflict {
        /// Who.
        mac: Mac,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::State { address, to, reason, .. } => {
                let to = word(*to);
                write!(f, "target {address} is {to}: {reason}")
            }
            Change::Mac { address, was: None, mac, .. } => {
                write!(f, "target {address} is reached at {}", spelled(*mac))
            }
            Change::Mac { address, was: Some(was), mac, .. } => {
                write!(
                    f,
                    "target {address} is reached at {} now, no longer at {}",
                    spelled(*mac),
                    spelled(*was)
                )
            }
            Change::Claim { neighbour, mac } => {
                write!(
                    f,
                    "{} claims the address {neighbour}; it is not believed while its holder answers",
                    spelled(*mac)
                )
            }
            Change::Conflict { mac } => write!(f, "{} has our own address", spelled(*mac)),
        }
    }
}
