//! `[stream]`.

use serde::Deserialize;

use super::Span;
use crate::config::{Conflict, Overlap, Urgent};

/// `[stream]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Stream {
    pub memory_mb: Option<u32>,
    pub flow_kb: Option<u32>,
    pub tenant_percent: Option<u32>,
    pub depth_kb: Option<u32>,
    pub overlap: Overlap,
    pub conflict: Option<Conflict>,
    pub compare: Option<bool>,
    pub urgent: Urgent,
    pub wait: Option<Span>,
    pub gap_time: Option<Span>,
    pub hold: Option<u32>,
    pub hold_time: Option<Span>,
}
