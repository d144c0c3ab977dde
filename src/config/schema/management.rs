//! `[management]`.

use serde::Deserialize;

use super::Span;
use crate::config::{HostKind, WhenFailed};

/// `[management]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Management {
    pub host: Option<HostKind>,
    pub allowed_sources: Option<Vec<String>>,
    pub frames_per_s: Option<u32>,
    pub tap_name: Option<String>,
    pub listen: Option<String>,
    pub token_file: Option<String>,
    pub socket: Option<String>,
    pub group: Option<String>,
    pub api: bool,
    pub drain_on_sigterm: bool,
    pub drain_deadline: Option<Span>,
    pub drain_at_least: Option<Span>,
    pub health: Health,
}

/// `[management.health]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Health {
    pub port: Option<u32>,
    pub listen: Option<String>,
    pub when_failed: WhenFailed,
    pub fail_on: Vec<String>,
    pub stuck_after: Option<Span>,
    pub pool_after: Option<Span>,
    pub hold: Option<Span>,
}
