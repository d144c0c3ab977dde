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
mod reasons;
mod legs;
mod flows;
mod envelope;
mod forward;
mod mail;
mod balance;
mod worker;
pub mod checks;
pub mod names;
pub mod simulate;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must panic"
)]
pub mod arbitrary_input;

pub use balance::Balance;
pub use envelope::{Address, Wrapper, source_port, strip};
pub use flows::{Flows, Idle};
pub use forward::{Endpoint, Fate, Forward, News, NonIp, Seat, Terms, UnknownTcp};
pub use legs::{Leg, LegId, Legs};
pub use maglev::{Backend, Bad, LARGEST_TABLE, Maglev, TABLE, is_prime};
pub use mail::{Inbox, Outbox, news};
pub use reasons::{Why, table as reasons};
pub use stickiness::{Balanced, Stickiness, balance_seed};
pub use targets::{Choice, Group, MOST_TARGETS, MOST_WEIGHT, State, Target, TargetId, ZoneName};
pub use worker::{Role, Worker};
