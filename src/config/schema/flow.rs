//! `[flow]`, `[[tenant]]` and `[tenants]`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::config::{Orphans, Pickup, Scope, UnknownEndpoint, WhenFull, WindowCheck};

/// `[flow]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Flow {
    pub tracking: Tracking,
    pub capacity: Option<u32>,
    pub scope: Scope,
    pub tcp_idle: Option<Span>,
    pub other_idle: Option<Span>,
    pub margin: Option<Span>,
    pub half_open: Option<Span>,
    pub closing: Option<Span>,
    pub reset: Option<Span>,
    pub denied: Option<Span>,
    pub when_full: WhenFull,
    pub pickup: Pickup,
    pub window_check: WindowCheck,
    pub fragments: Fragments,
    pub handoff_ring: Option<u32>,
    pub events_ring: Option<u32>,
    pub answers_per_s: Option<u32>,
}

/// `[flow.fragments]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Fragments {
    pub hold: Option<u32>,
    pub hold_time: Option<Span>,
    pub lifetime: Option<Span>,
    pub entries: Option<u32>,
    pub orphans: Orphans,
}

/// `[[tenant]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Tenant {
    pub name: Option<String>,
    pub endpoints: Vec<Word>,
    pub limits: Limits,
    /// Not yet; named here so that it is refused with a sentence of its own.
    pub pipeline: Option<String>,
}

/// `limits` of a `[[tenant]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Limits {
    pub flows: Option<Word>,
    pub guaranteed: Option<Word>,
    pub new_flows_per_s: Option<u32>,
}

/// `[tenants]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Tenants {
    pub file: Option<String>,
    pub unknown_endpoint: UnknownEndpoint,
}

/// `"auto"` (`None`), true or false.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::config) struct Tracking(pub Option<bool>);

/// A time with its unit: `"350s"`, `"200ms"`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub Duration);

/// A string or a whole number, as text: what may be written in either way.
#[derive(Clone, Debug)]
pub(crate) struct Word(pub String);

impl<'de> Deserialize<'de> for Tracking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrackingVisitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor)
    }
}

struct TrackingVisitor;

impl Visitor<'_> for TrackingVisitor {
    type Value = Tracking;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or \"auto\"")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Tracking, E> {
        Ok(Tracking(Some(on)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tracking, E> {
        match text {
            "auto" => Ok(Tracking(None)),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with its unit, such as \"350s\" or \"200ms\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        humantime::parse_duration(text).map(Span).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct WordVisitor;

impl Visitor<'_> for WordVisitor {
    type Value = Word;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a whole number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Word, E> {
        Ok(Word(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Word, E> {
        Ok(Word(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Word, E> {
        Ok(Word(number.to_string()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Word, E> {
        Ok(Word(number.to_string()))
    }
}
