//! The load balancer's side: which target a flow goes to.
//!
//! ```text
//! packet --stickiness--> key --> flow known? its target : Maglev over the targets that may have new flows --> envelope
//! ```
//!
//! Gateways share no state. What they must agree on (to which target a new flow goes) follows from their configuration alone, so any of
//! them can take over for another. [`simulate`] says what is lost when one dies.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod maglev;
mod stickiness;
mod targets;
mod envelope;
pub mod checks;
pub mod names;
pub mod simulate;

pub use envelope::{Address, Wrapper, source_port, strip};
pub use maglev::{Backend, Bad, LARGEST_TABLE, Maglev, TABLE, is_prime};
pub use stickiness::{Balanced, Stickiness, balance_seed};
pub use targets::{Choice, Group, MOST_TARGETS, MOST_WEIGHT, State, Target, TargetId, ZoneName};
