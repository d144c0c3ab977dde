//! The stages, one file each, in the order in which pipelines usually have them.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use std::sync::OnceLock;

use crate::stage::StageKind;

pub mod count;
pub mod sample;
pub mod blocklist;
pub mod ratelimit;
pub mod synguard;
pub mod acl;
pub mod tls;
pub mod dns;
pub mod http;
pub mod appid;
pub mod names;
mod places;
mod buckets;
mod whom;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must panic"
)]
pub mod arbitrary_input;

/// Every kind of stage that a pipeline can use.
pub const ALL: &[&StageKind] = &[
    &count::KIND,
    &sample::KIND,
    &blocklist::KIND,
    &ratelimit::KIND,
    &synguard::KIND,
    &acl::KIND,
    &tls::KIND,
    &dns::KIND,
    &http::KIND,
    &appid::KIND,
];

/// Those, and the program's own.
static KINDS: OnceLock<Vec<&'static StageKind>> = OnceLock::new();

/// Every kind of this program: ours, and those that were added.
pub fn all() -> &'static [&'static StageKind] {
    KINDS.get().map_or(ALL, Vec::as_slice)
}

/// Adds kinds from outside the crate, before the first configuration is read: once, at the beginning of `main` ([`crate::cli::main_with`]
/// does it). Refused if a name is taken or cannot be one, or if it was done before.
pub fn add(own: &[&'static StageKind]) -> Result<(), String> {
    let mut kinds: Vec<&'static StageKind> = ALL.to_vec();
    for kind in own {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if kind.name.is_empty() || !kind.name.bytes().all(plain) {
            return Err(format!(
                "a kind of stage cannot be called {:?}: use small letters, digits and `_`",
                kind.name
            ));
        }
        if kinds.iter().any(|known| known.name == kind.name) {
            return Err(format!("two kinds of stages are called {:?}: give yours another name", kind.name));
        }
        kinds.push(kind);
    }
    KINDS.set(kinds).map_err(|_| "kinds of stages can be added once only".to_owned())
}

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static StageKind> {
    all().iter().copied().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is added is found, names are not taken twice, and nothing is added half.
    #[test]
    fn kinds_are_added_once() {
        let own =
            |name: &'static str| -> &'static StageKind { Box::leak(Box::new(StageKind { name, ..*ALL[0] })) };
        assert!(add(&[own("mine"), own(ALL[1].name)]).unwrap_err().contains("give yours another name"));
        assert!(add(&[own("mine"), own("mine")]).unwrap_err().contains("\"mine\""));
        assert!(add(&[own("Mine")]).is_err() && add(&[own("")]).is_err());
        assert!(find("mine").is_none() && all().len() == ALL.len());
        add(&[own("mine")]).unwrap();
        assert!(find("mine").is_some() && all().len() == ALL.len() + 1);
        assert!(add(&[]).is_err());
    }
}
