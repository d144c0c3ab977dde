//! Which flows are meant.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::super::line::{Life, Record};
use super::super::{Key, Tuple, state};
use super::{Names, since};
use crate::packet::App;

/// What the stages have made of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// At least one of them still sees its packets.
    Undecided,
    /// All of them are done with it.
    Settled,
    /// One of them drops it.
    Condemned,
}

impl Standing {
    /// All.
    pub const ALL: [Standing; 3] = [Standing::Undecided, Standing::Settled, Standing::Condemned];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Standing::Undecided => "undecided",
            Standing::Settled => "settled",
            Standing::Condemned => "condemned",
        }
    }
}

/// Flows for which everything holds that is said here; the default takes all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this endpoint, or tenant (`flow.scope`).
    pub scope: Option<u64>,
    /// Of the tenant with this number ([`super::FlowView::tenant`]).
    pub tenant: Option<u16>,
    /// Between these two ends, in either order.
    pub tuple: Option<Tuple>,
    /// Of this protocol (IANA number).
    pub protocol: Option<u8>,
    /// The originator is here.
    pub source: Option<IpNet>,
    /// The responder is here.
    pub destination: Option<IpNet>,
    /// One of the two is here.
    pub address: Option<IpNet>,
    /// The originator's port.
    pub source_port: Option<RangeInclusive<u16>>,
    /// The responder's port.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// The port of one of the two.
    pub port: Option<RangeInclusive<u16>>,
    /// In this state, by its word.
    pub state: Option<String>,
    /// What the stages have made of it.
    pub verdict: Option<Standing>,
    /// It speaks this, or has before it changed over to TLS.
    pub app: Option<App>,
    /// At least as old.
    pub age: Duration,
    /// Without a packet for at least so long.
    pub idle: Duration,
}

/// A filter whose constant parts are worked out.
pub(super) struct Prepared<'a> {
    filter: &'a Filter,
    /// The key of the tuple that is wanted, under scope 0; `Some(None)`: no flow has it.
    key: Option<Option<Key>>,
    age: u32,
    idle: u32,
}

impl Filter {
    pub(super) fn prepared(&self) -> Prepared<'_> {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let key = self.tuple.map(|tuple| Key::of_tuple(0, &tuple));
        Prepared { filter: self, key, age: ms(self.age), idle: ms(self.idle) }
    }
}

impl Prepared<'_> {
    /// From what costs least to what costs most.
    pub fn takes(&self, record: &Record, names: &Names, now: u32) -> bool {
        let Record { key, life, birth, spoken, .. } = record;
        let Filter { scope, tenant, protocol, state, verdict, app, .. } = self.filter;
        scope.is_none_or(|scope| scope == key.scope())
            && tenant.is_none_or(|tenant| tenant == birth.tenant)
            && protocol.is_none_or(|protocol| protocol == key.protocol())
            && self.key.is_none_or(|wanted| wanted.is_some_and(|wanted| wanted.same_ends(key)))
            && state.as_ref().is_none_or(|word| word == state::name(life.state()))
            && verdict.is_none_or(|verdict| verdict == names.of_record(record))
            && app.is_none_or(|app| [spoken.app(), spoken.before()].contains(&Some(app)))
            && (self.age == 0 || since(birth.created, now) >= self.age)
            && (self.idle == 0 || since(life.seen(), now) >= self.idle)
            && self.ends(record)
    }

    fn ends(&self, record: &Record) -> bool {
        let Filter { source, destination, address, source_port, destination_port, port, .. } = self.filter;
        let asked = [source, destination, address].iter().any(|net| net.is_some())
            || [source_port, destination_port, port].iter().any(|ports| ports.is_some());
        if !asked {
            return true;
        }
        let tuple = record.key.tuple(record.life.has(Life::FROM_HIGH));
        let at = |net: &IpNet, there| net.contains(there);
        source.as_ref().is_none_or(|net| at(net, &tuple.source))
            && destination.as_ref().is_none_or(|net| at(net, &tuple.destination))
            && address.as_ref().is_none_or(|net| at(net, &tuple.source) || at(net, &tuple.destination))
            && source_port.as_ref().is_none_or(|ports| ports.contains(&tuple.source_port))
            && destination_port.as_ref().is_none_or(|ports| ports.contains(&tuple.destination_port))
            && port.as_ref().is_none_or(|ports| {
                ports.contains(&tuple.source_port) || ports.contains(&tuple.destination_port)
            })
    }
}
