//! Reading a tree of `config` values into a type, without losing where each value came from.

mod de;
mod error;
mod path;

pub(crate) use error::suggestion;
pub(super) use error::{known_here, quoted};
pub(super) use path::Path;

use config::Value;
use serde::de::DeserializeOwned;

use super::Problem;

/// Mistakes after which reading stops: a file that is wrong throughout should not print pages.
const MOST: usize = 50;

/// Reads a value into a type and reports every mistake that can be told from the others.
///
/// Serde stops at the first value that does not fit. So that a person sees them all, a value that was refused is
/// recorded, left out, and the rest is read again. `also` are keys that are somebody else's and only serve as
/// suggestions.
pub(super) fn read<T: DeserializeOwned>(
    value: &Value,
    place: &str,
    also: &[&str],
) -> Result<T, Vec<Problem>> {
    match read_partly(value, place, also) {
        (Some(read), problems) if problems.is_empty() => Ok(read),
        (_, problems) => Err(problems),
    }
}

/// As [`read`]; beside the mistakes, what the values that were not refused make, if they make anything.
pub(super) fn read_partly<T: DeserializeOwned>(
    value: &Value,
    place: &str,
    also: &[&str],
) -> (Option<T>, Vec<Problem>) {
    let pass = de::Pass::new(also);
    // A pass may record nothing new (a key is missing because it was refused), so passes are bounded too.
    for _ in 0..2 * MOST {
        match T::deserialize(de::Node::root(value, place, &pass)) {
            Ok(read) => return (Some(read), pass.into_problems()),
            Err(error) => {
                if !pass.refuse(error, value, place) || pass.is_full() {
                    break;
                }
            }
        }
    }
    (None, pass.into_problems())
}
