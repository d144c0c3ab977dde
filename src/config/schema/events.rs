//! `[events]` and what is below it.

use serde::Deserialize;

use super::Span;
use crate::config::Format;

/// `[events]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Events {
    pub types: Option<Vec<String>>,
    pub follow: Option<Vec<String>>,
    pub ring: Option<u32>,
    pub stats_every: Option<Span>,
    pub drop: Report,
    pub anomaly: Report,
    pub account: Option<String>,
    pub sink: Vec<Sink>,
}

/// `[events.drop]` and `[events.anomaly]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Report {
    pub reasons: Option<Vec<String>>,
    pub per_s: Option<u32>,
}

/// `[[events.sink]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Sink {
    pub to: Option<String>,
    pub name: Option<String>,
    pub path: Option<String>,
    pub types: Option<Vec<String>>,
    pub format: Format,
    pub rotate_mb: Option<u32>,
    pub rotate_every: Option<Span>,
    pub keep: Option<u32>,
}
