//! The shape of a configuration file. Meaning is checked in [`super::check`].
//!
//! Every key is optional here, so that a missing one is a sentence of the check and not of serde. Unknown keys are refused
//! by the deserializer for every struct.

mod flow;
mod stream;
mod management;
mod events;
mod gateway;

use std::fmt;

pub(super) use events::{Events, Report, Sink};
pub(super) use flow::{Flow, Fragments, Tenant, Tenants};
pub(crate) use flow::{Span, Word};
pub(super) use gateway::{GatewayFile, NamedPort};
pub(super) use management::{Health, Management};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Unexpected, Visitor};
pub(super) use stream::Stream;

use super::{Idle, Mode, OnError, VerifyChecksum};
use crate::dpdk::Memory;
use crate::flow::refit::OnReload;

/// Keys of a `[[stage]]` that are the framework's; the rest are its kind's.
pub(super) const STAGE_KEYS: &[&str] =
    &["use", "name", "pipelines", "mode", "on_error", "on_unread", "on_reload"];

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub eal: Eal,
    pub port: Vec<Port>,
    pub tunnel: Tunnel,
    pub flow: Flow,
    pub stream: Stream,
    pub tenant: Vec<Tenant>,
    pub tenants: Tenants,
    pub management: Management,
    pub events: Events,
    pub metrics: Metrics,
    /// Read stage by stage, each by its kind.
    #[serde(rename = "stage")]
    _stage: Vec<IgnoredAny>,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    pub max_tenants: Option<u32>,
}

/// `[eal]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Eal {
    pub memory: Memory,
    pub memory_mb: Auto,
    pub file_prefix: Option<String>,
    pub lcores: Lcores,
    pub args: Vec<String>,
    pub idle: Idle,
    pub burst: Option<u32>,
    pub extra_buffers: u32,
}

/// `[[port]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub device: Option<String>,
    pub queues: Auto,
    pub rx_descriptors: Option<u32>,
    pub tx_descriptors: Option<u32>,
    pub mtu: Auto,
    pub promiscuous: bool,
    pub rss_key: Option<String>,
    pub rss_reta: Option<Vec<u32>>,
    pub address: Option<String>,
    pub gateway: Option<String>,
    pub address6: Option<String>,
}

/// `[tunnel]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tunnel {
    pub profile: Option<String>,
    pub port: Option<u32>,
    pub allowed_sources: Vec<String>,
    pub addresses: Vec<String>,
    pub verify_checksum: VerifyChecksum,
    pub max_return: Option<Limit>,
}

/// The framework's part of a `[[stage]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stage {
    #[serde(rename = "use")]
    pub kind: Option<String>,
    pub name: Option<String>,
    pub pipelines: Option<Vec<String>>,
    pub mode: Mode,
    pub on_error: OnError,
    #[serde(default = "OnError::pass")]
    pub on_unread: OnError,
    pub on_reload: Option<OnReload>,
}

/// `"auto"` (`None`) or a number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Auto(pub Option<u32>);

/// `"unlimited"` (`None`) or a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub Option<u32>);

impl<'de> Deserialize<'de> for Auto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOr("auto")).map(Auto)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOr("unlimited")).map(Limit)
    }
}

/// Reads a number, or one word that stands for none.
struct NumberOr(&'static str);

impl<'de> Visitor<'de> for NumberOr {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number or {:?}", self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == self.0 { Ok(None) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let refused = |_| E::invalid_value(Unexpected::Signed(number), &self);
        u32::try_from(number).map(Some).map_err(refused)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let refused = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(Some).map_err(refused)
    }
}

/// CPUs to run on.
#[derive(Clone, Debug, Default)]
pub(super) enum Lcores {
    /// All that this process may use.
    #[default]
    Auto,
    /// `"0-3,5"`.
    Text(String),
    /// `[0, 1, 5]`.
    List(Vec<u32>),
}

impl<'de> Deserialize<'de> for Lcores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LcoresVisitor)
    }
}

struct LcoresVisitor;

impl<'de> Visitor<'de> for LcoresVisitor {
    type Value = Lcores;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\", a list of CPUs such as [0, 1], or \"0-3,5\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lcores, E> {
        Ok(if text == "auto" { Lcores::Auto } else { Lcores::Text(text.to_owned()) })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Lcores, E> {
        let refused = |_| E::invalid_value(Unexpected::Signed(number), &self);
        u32::try_from(number).map(|cpu| Lcores::List(vec![cpu])).map_err(refused)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lcores, A::Error> {
        let mut cpus = Vec::new();
        while let Some(cpu) = list.next_element()? {
            cpus.push(cpu);
        }
        Ok(Lcores::List(cpus))
    }
}
