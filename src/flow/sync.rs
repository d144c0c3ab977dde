//! Atomics of what workers share: the standard library's, or loom's when models run (`--cfg loom`, see `ci/loom.sh`).
//!
//! Loom explores the orders in which threads may meet, weak memory included, so the models check the code that ships and not
//! a copy of it. Its atomics are large and only work inside `loom::model`: nothing else may run under that cfg.
#![allow(unused_imports, reason = "each of the two lists names what any user needs")]

#[cfg(not(loom))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
