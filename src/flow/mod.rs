//! What is remembered: flows, who owns them, and what workers share about them.

mod sync;
mod envelope;
pub mod tcp;

pub use envelope::{Envelope, Home, head_len, seal};
