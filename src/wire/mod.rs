//! Bytes <-> fields: pure functions over slices, one file per format.
//!
//! Every format has the same shape. `View::new_checked(bytes)` looks at lengths and versions once; behind it every getter
//! reads through a fixed-size array and can neither fail nor panic. A view ends where its own length field says, so that
//! padding behind it is out of sight. `Fields::emit` is the way back. Nothing here allocates, keeps state or decides
//! policy; [`inner`] alone judges, because a bound that fails there is the reason for a drop.
//!
//! What the formats promise for any bytes is written down as code in `arbitrary_input`; property tests and the fuzz
//! targets in `fuzz/` run the same functions.
//!
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod checksum;
pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod udp;
pub mod tcp;
pub mod icmp;
pub mod transport;
pub mod geneve;
pub mod inner;
pub mod answer;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken promise must panic")]
pub mod arbitrary_input;

use thiserror::Error;

/// Why bytes are not a packet of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They end inside the header.
    #[error("the bytes end inside the header")]
    Truncated,
    /// The header has another version.
    #[error("the header has another version")]
    Version,
    /// The header contradicts itself: a length shorter than the header it is in.
    #[error("the header contradicts itself")]
    Header,
    /// The header states more bytes than there are.
    #[error("the header states more bytes than there are")]
    Length,
    /// The chain of extension headers is cut short, repeats its fragment header, or is too long.
    #[error("the chain of extension headers is cut short or too long")]
    Extension,
}

#[cfg(test)]
mod tests;
