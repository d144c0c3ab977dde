//! The stages, one file each, in the order in which pipelines usually have them.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use crate::stage::StageKind;

pub mod count;
pub mod sample;
pub mod acl;
pub mod tls;
pub mod dns;
pub mod names;

/// Every kind of stage that a pipeline can use.
pub const ALL: &[&StageKind] = &[&count::KIND, &sample::KIND, &acl::KIND, &tls::KIND, &dns::KIND];

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static StageKind> {
    ALL.iter().copied().find(|kind| kind.name == name)
}
