//! What is remembered: flows, who owns them, and what workers share about them.

mod sync;
