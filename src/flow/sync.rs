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
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub(crate) use stepped::{AtomicU32, AtomicU64, AtomicUsize};

/// Loom's atomics, with a step before each access that every other step depends on.
///
/// Loom 0.7 leaves out orders that it takes for equal, and errs: of an atomic it remembers the last access only, so when one thread
/// reads a word, and another reads and then swaps it, the other's read hides the race (`rt::atomic::State::last_dependent_access`).
/// A step is a relaxed addition to one common counter: it orders nothing for the program, and no order is left out.
#[cfg(loom)]
mod stepped {
    use super::Ordering;

    loom::lazy_static! {
        static ref STEPS: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
    }

    fn step() {
        STEPS.fetch_add(1, Ordering::Relaxed);
    }

    macro_rules! stepped {
        ($name:ident $of:ident: $($op:ident)*) => {
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "what any user needs")]
            impl $name {
                pub(crate) fn new(value: $of) -> Self {
                    $name(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $of {
                    step();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $of, order: Ordering) {
                    step();
                    self.0.store(value, order);
                }

                pub(crate) fn compare_exchange(&self, from: $of, to: $of, yes: Ordering, no: Ordering) -> Result<$of, $of> {
                    step();
                    self.0.compare_exchange(from, to, yes, no)
                }

                pub(crate) fn fetch_update(&self, yes: Ordering, no: Ordering, mut change: impl FnMut($of) -> Option<$of>) -> Result<$of, $of> {
                    // The standard library's loop, with a step for each access.
                    let mut now = self.load(no);
                    while let Some(next) = change(now) {
                        match self.compare_exchange(now, next, yes, no) {
                            Ok(was) => return Ok(was),
                            Err(other) => now = other,
                        }
                    }
                    Err(now)
                }

                $(pub(crate) fn $op(&self, value: $of, order: Ordering) -> $of {
                    step();
                    self.0.$op(value, order)
                })*
            }
        };
    }
    stepped!(AtomicU32 u32: swap fetch_add fetch_sub fetch_and fetch_or fetch_max);
    stepped!(AtomicU64 u64: swap fetch_add fetch_sub fetch_and fetch_or fetch_max);
    stepped!(AtomicUsize usize: swap fetch_add fetch_sub fetch_and fetch_or fetch_max);
}
