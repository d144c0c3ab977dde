//! What is remembered: flows, who owns them, and what workers share about them.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sync;
mod envelope;
pub mod directory;
pub mod tcp;

pub use envelope::{Envelope, Home, head_len, seal};
