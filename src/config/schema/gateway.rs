//! A gateway's file: `[gateway]`, `[[endpoint]]`, `[[target]]`, and what `[[port]]`, `[tunnel]` and `[flow]` are there.

use serde::Deserialize;

use super::{Auto, Eal, Span, Word};
use crate::config::{Failover, VerifyChecksum};
use crate::gateway::checks::Written;
use crate::gateway::{NonIp, Stickiness, UnknownTcp};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct GatewayFile {
    pub eal: Eal,
    pub port: Vec<NamedPort>,
    pub tunnel: Envelope,
    pub gateway: Gateway,
    pub flow: Remembered,
    pub endpoint: Vec<Endpoint>,
    pub target: Vec<Target>,
    pub health_check: Option<Written>,
}

/// `[[port]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct NamedPort {
    pub name: Option<String>,
    pub device: Option<String>,
    pub rx_descriptors: Option<u32>,
    pub tx_descriptors: Option<u32>,
    pub mtu: Auto,
}

/// `[tunnel]`.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Envelope {
    pub profile: Option<String>,
    pub port: Option<u32>,
    pub verify_checksum: VerifyChecksum,
    pub checksum: bool,
}

impl Default for Envelope {
    fn default() -> Self {
        Envelope { profile: None, port: None, verify_checksum: VerifyChecksum::default(), checksum: true }
    }
}

/// `[gateway]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Gateway {
    pub port: Option<String>,
    pub address: Option<String>,
    pub router: Option<String>,
    pub zone: Option<String>,
    pub cross_zone: bool,
    pub stickiness: Stickiness,
    pub table: Option<u32>,
    pub seed: Option<u64>,
    pub non_ip: NonIp,
    pub failover: Failover,
    pub deregistration_delay: Option<Span>,
}

/// `[flow]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Remembered {
    pub capacity: Option<u32>,
    pub tcp_idle: Option<Span>,
    pub other_idle: Option<Span>,
    pub unknown_tcp: UnknownTcp,
}

/// `[[endpoint]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Endpoint {
    pub id: Option<Word>,
    pub legs: Vec<String>,
}

/// `[[target]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Target {
    pub address: Option<String>,
    pub mac: Option<String>,
    pub zone: Option<String>,
    pub weight: Option<u32>,
}
