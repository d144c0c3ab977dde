//! `synguard`: how many TCP handshakes may be half-open, and how many may begin in a second, for each destination, service, source or tenant.
//!
//! ```toml
//! [[stage]]
//! use = "synguard"
//!
//! [[stage.limit]]
//! name = "a service"
//! per = "service"                    # destination | service | source | tenant | all
//! half_open = 1000
//! syn_per_s = 5000
//!
//! [[stage.limit]]
//! name = "a source network"
//! per = "source"
//! prefix_v4 = 24
//! half_open = 200
//! ```
//!
//! Place on the path: in front of what looks at flows from their beginning; behind `blocklist`. Follows each handshake by its first packets and is done with the flow then
//! (it settles): a connection costs it three or four looks. A SYN beyond a limit is dropped, and nothing else is said of its flow: sent again it asks again, so that honest
//! clients get in as soon as there is room. Until then the flow's other packets are dropped too.
//!
//! | what ends a half-open handshake | believed if |
//! |---|---|
//! | the client's ACK | it acknowledges the server's SYN, whose number only who got it knows |
//! | a RST of the client | it has the number behind the SYN (RFC 5961 section 3.2) |
//! | a RST of the server | it acknowledges the client's SYN, or has the number behind its own |
//! | time | `half_open_time` is over (`half_open.rs`) |
//!
//! What it does not do: answer SYNs for the server (cookies, a proxy), which takes rewriting the numbers of every segment of the connection. It protects servers
//! and what lies behind by dropping; the attacker's SYNs below the limits pass.
//!
//! Workers count together, in tables of fixed size, as `buckets.rs` says; an entry that has nothing half-open and a full bucket goes to whoever asks.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use super::acl::counters::Workers;
use super::acl::words;
use super::buckets::{self, Rate, Since, Table};
use super::whom::{self, Only, OnlyWords, Per, Whom};
use crate::config::{Problem, Settings};
use crate::dpdk::Error;
use crate::event::Signature;
use crate::stage::{Backend, Make, ParseResult, Parsed, PerFlow, Shared, Stage, StageKind};

mod half_open;
mod running;
#[cfg(test)]
mod tests;

use half_open::SPANS;
use running::{Handshake, Running};

/// Most limits of one stage: a flow remembers by which it is counted.
const MOST_LIMITS: usize = 8;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Words of an entry: the spans, a bucket, and the alarm.
const RATE: usize = SPANS;
const ALARM: usize = SPANS + 1;
const WORDS: usize = SPANS + 2;

const HALF_OPEN: usize = 0;
const SYN_RATE: usize = 1;
const NO_BUCKET: usize = 2;
const NOT_OPENED: usize = 3;

/// The kind `synguard`.
pub const KIND: StageKind = StageKind {
    name: "synguard",
    summary: "limits half-open TCP handshakes and SYNs a second, per destination, service, source or tenant",
    help: HELP,
    example: EXAMPLE,
    reasons: &[
        ("half_open", "A SYN, while as many handshakes were half-open as a limit lets be."),
        ("syn_rate", "A SYN beyond what a limit lets begin in a second."),
        ("no_bucket", "A SYN that found all entries of a limit in use, and its when_full is \"drop\"."),
        ("not_opened", "A packet of a connection whose SYN was dropped."),
    ],
    parse,
};

const HELP: &str = r#"limit     [[stage.limit]] tables, all of which a SYN has to keep; 1 to 8

A limit:
  name             its name in counters and alerts; required
  per              whom it counts together; required
                   destination  the address that a connection is opened to
                   service      that address and port
                   source       the address that opens it, or its prefix
                   tenant       each tenant
                   all          all that the limit looks at
  half_open        handshakes that may be half-open, 1 to 10000000; this or syn_per_s
  syn_per_s        SYNs that may begin one in a second, 1 to 1000000000
  burst            of these, what comes in this time may come at once: "1ms" to "60s";
                   default "100ms"
  mode             police (default): a SYN beyond the limit is dropped
                   report: it is counted and told of, and passes
  prefix_v4        addresses count together by so many first bits: default 32
  prefix_v6        default 64 for sources, 128 for others
  buckets          of destination, service and source: how many of them are counted at a
                   time, by all workers, 64 to 4194304; default 16384; 96 bytes each
  when_full        pass (default): who finds no entry is not limited; drop: the SYN is dropped
  tenant           only connections of this tenant
  source           only such connections, in the words of acl's rules
  destination
  source_port
  destination_port
  severity         of its alerts, 1 (worst) to 255; default 3

half_open_time  a handshake that is neither completed nor reset counts for so long, "1s" to
                "300s" (and up to a seventh longer); default "30s"
alert_every     while a limit is passed it is told of so often, for each destination, source,
                ...: "1s" to "1h"; default "10s". Of half_open it is over when there are less
                than three quarters; then the next time is told at once.

A SYN that is sent again is counted once. One that was dropped asks again when it is sent
again; until then nothing else of its connection passes. Connections that are picked up in
the middle are not limited. SYNs without a flow (a full table) keep syn_per_s, and are let in
by half_open as long as there is room, but not counted: nobody could see them complete.

The stage answers no SYN for a server: no cookies, no proxy. flow.when_full, the tenants'
new_flows_per_s and the flow table's own order (half-open flows go first) protect the
appliance; this stage protects what is behind it.
"#;

const EXAMPLE: &str = r#"[[stage]]
use = "synguard"

[[stage.limit]]
name = "a service"
per = "service"
half_open = 1000
syn_per_s = 5000

[[stage.limit]]
name = "a source network"
per = "source"
prefix_v4 = 24
half_open = 200
"#;

/// The keys of the stage's table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StageTable {
    limit: Vec<LimitTable>,
    half_open_time: Option<String>,
    alert_every: Option<String>,
}

/// The keys of a limit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitTable {
    name: String,
    per: Option<Per>,
    half_open: Option<u64>,
    syn_per_s: Option<u64>,
    burst: Option<String>,
    mode: Mode,
    prefix_v4: Option<u64>,
    prefix_v6: Option<u64>,
    buckets: Option<u64>,
    when_full: WhenFull,
    tenant: Option<String>,
    source: String,
    destination: String,
    #[serde(deserialize_with = "words::text")]
    source_port: String,
    #[serde(deserialize_with = "words::text")]
    destination_port: String,
    severity: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Police,
    Report,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WhenFull {
    #[default]
    Pass,
    Drop,
}

/// A limit that was read and checked.
#[derive(Clone, Debug)]
struct Limit {
    name: String,
    per: Per,
    whom: Whom,
    only: Only,
    half_open: Option<u32>,
    rate: Option<Rate>,
    police: bool,
    buckets: usize,
    drop_when_full: bool,
    severity: u8,
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let StageTable { limit, half_open_time, alert_every } = settings.read()?;
    let mut problems = Vec::new();
    if limit.is_empty() {
        return Err(vec![settings.problem("", "there is no limit", "add a [[stage.limit]] table")]);
    }
    if limit.len() > MOST_LIMITS {
        let what = format!("{} limits are more than the {MOST_LIMITS} that one stage takes", limit.len());
        return Err(vec![settings.problem("limit", what, "use a second stage")]);
    }
    let time = half_open_time.as_deref();
    let time =
        whom::span(settings, "half_open_time", time, 30 * SECOND, SECOND..=300 * SECOND, &mut problems);
    let every = alert_every.as_deref();
    let every =
        whom::span(settings, "alert_every", every, 10 * SECOND, SECOND..=3600 * SECOND, &mut problems);
    let mut limits: Vec<Limit> = Vec::new();
    for (n, table) in limit.iter().enumerate() {
        let place = format!("limit[{n}]");
        whom::check_name(
            settings,
            &place,
            &table.name,
            limits.iter().map(|l| l.name.as_str()),
            &mut problems,
        );
        limits.extend(read_limit(settings, &place, table, &mut problems));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Box::new(SynGuard { limits: limits.into(), time, every, tenants: settings.tenants() }))
}

fn read_limit(
    settings: &Settings<'_>,
    place: &str,
    table: &LimitTable,
    problems: &mut Vec<Problem>,
) -> Option<Limit> {
    let at = |key: &str| format!("{place}.{key}");
    let Some(per) = table.per.filter(|per| *per != Per::Flow) else {
        let what = if table.per.is_none() { "is missing" } else { "a flow has one handshake" };
        let remedy = "write destination, service, source, tenant or all";
        problems.push(settings.problem(&at("per"), what, remedy));
        return None;
    };
    if table.half_open.is_none() && table.syn_per_s.is_none() {
        problems.push(settings.problem(place, "limits nothing", "give half_open or syn_per_s"));
    }
    if !per.is_keyed() {
        let keys =
            [("buckets", table.buckets), ("prefix_v4", table.prefix_v4), ("prefix_v6", table.prefix_v6)];
        for (key, _) in keys.iter().filter(|(_, given)| given.is_some()) {
            problems.push(settings.problem(
                &at(key),
                format!("means nothing per {}", per.word()),
                "leave it out",
            ));
        }
    }
    let burst =
        whom::span(settings, &at("burst"), table.burst.as_deref(), 100 * MS, MS..=60 * SECOND, problems);
    let mut number = |key, given, most: u64| whom::number(settings, &at(key), given, 1..=most, problems);
    let half_open = number("half_open", table.half_open, 10_000_000);
    let syn_per_s = number("syn_per_s", table.syn_per_s, 1_000_000_000);
    let prefix_v4 = number("prefix_v4", table.prefix_v4, 32).unwrap_or(32) as u8;
    let whole = if per == Per::Source { 64 } else { 128 };
    let prefix_v6 = number("prefix_v6", table.prefix_v6, 128).unwrap_or(whole) as u8;
    let severity = number("severity", table.severity, 255).unwrap_or(3) as u8;
    let buckets = whom::number(settings, &at("buckets"), table.buckets, 64..=4 << 20, problems);
    let words = OnlyWords {
        tenant: table.tenant.as_deref(),
        protocol: "tcp",
        source: &table.source,
        destination: &table.destination,
        source_port: &table.source_port,
        destination_port: &table.destination_port,
    };
    Some(Limit {
        name: table.name.clone(),
        per,
        whom: Whom::new(per, prefix_v4, prefix_v6),
        only: Only::parse(settings, place, &words, problems),
        half_open: half_open.map(|n| n as u32),
        rate: syn_per_s.map(|n| Rate::new(n, burst)),
        police: table.mode == Mode::Police,
        buckets: buckets.unwrap_or(1 << 14) as usize,
        drop_when_full: table.when_full == WhenFull::Drop,
        severity,
    })
}

/// The stage, parsed.
#[derive(Debug)]
struct SynGuard {
    limits: Arc<[Limit]>,
    /// Nanoseconds for which a handshake counts, and between two alerts.
    time: u64,
    every: u64,
    tenants: usize,
}

impl Parsed for SynGuard {
    fn wants_flows(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<Handshake>::BYTES
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        let table = |limit: &Limit| match limit.per {
            Per::Tenant => Table::numbered(self.tenants, WORDS),
            Per::All | Per::Flow => Table::numbered(1, WORDS),
            _ => Table::keyed(limit.buckets, WORDS),
        };
        let limits = self.limits.clone();
        let inner = Inner {
            tables: limits.iter().map(table).collect(),
            limits,
            since: Since::new(),
            // The last of the spans is the present one, which may have begun a moment ago.
            span: buckets::time(self.time / (SPANS as u64 - 1)),
            every: buckets::time(self.every),
        };
        Ok(Arc::new(Built { inner: Arc::new(inner), workers: Mutex::default() }))
    }
}

/// What workers share.
struct Inner {
    limits: Arc<[Limit]>,
    /// One for each limit.
    tables: Box<[Table]>,
    since: Since,
    /// Length of a span, and of the time between two alerts.
    span: u64,
    every: u64,
}

/// The stage, built.
struct Built {
    inner: Arc<Inner>,
    workers: Mutex<Workers>,
}

/// Counters of the stage, in front of those of its limits.
const BEGUN: usize = 0;
const COMPLETED: usize = 1;
const RESET: usize = 2;
const OF_STAGE: [&str; 3] = ["handshakes begun", "handshakes completed", "handshakes reset"];
/// Counters of a limit: SYNs too many half-open, too many in a second, without an entry; times it was told of.
const OF_LIMIT: [&str; 4] = ["half-open over", "SYN rate over", "no bucket", "alarms"];
const ALARMS: usize = 3;

/// The number of a counter of a limit.
fn counter(limit: usize, which: usize) -> usize {
    OF_STAGE.len() + limit * OF_LIMIT.len() + which
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let counters = self.workers.lock().of(make.worker, counter(self.inner.limits.len(), 0));
        Box::new(Running::new(self.inner.clone(), PerFlow::new(make), counters))
    }

    fn report(&self) -> Vec<(String, String)> {
        let limits = self.inner.limits.iter().zip(&self.inner.tables);
        let row = |(limit, table): (&Limit, &Table)| {
            let mode = if limit.police { "police" } else { "report" };
            let size = table.bytes() as f64 / 1e6;
            (limit.name.clone(), format!("per {}, {mode}, {size:.1} MB of entries", limit.per.word()))
        };
        limits.map(row).collect()
    }

    fn signatures(&self) -> Vec<Signature> {
        let signature = |(n, limit): (usize, &Limit)| Signature {
            signature: limit.name.clone(),
            signature_id: n as u32 + 1,
            rev: 1,
            category: "SYN flood".into(),
            severity: limit.severity,
        };
        self.inner.limits.iter().enumerate().map(signature).collect()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let workers = self.workers.lock();
        let of_stage = OF_STAGE.iter().enumerate().map(|(n, label)| ((*label).to_owned(), workers.sum(n)));
        let mut out: Vec<(String, u64)> = of_stage.collect();
        for (n, limit) in self.inner.limits.iter().enumerate() {
            let there = [limit.half_open.is_some(), limit.rate.is_some(), limit.per.is_keyed(), true];
            for (which, label) in
                OF_LIMIT.iter().enumerate().filter(|(which, _)| there.get(*which) == Some(&true))
            {
                out.push((format!("{}: {label}", limit.name), workers.sum(counter(n, which))));
            }
        }
        out
    }
}
