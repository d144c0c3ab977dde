//! `ratelimit`: so many packets, bytes and new flows in a second for each flow, source, destination, service or tenant, or for all that a match names.
//!
//! ```toml
//! [[stage]]
//! use = "ratelimit"
//!
//! [[stage.limit]]
//! name = "new flows of a source"
//! per = "source"                     # flow | source | destination | service | tenant | all
//! new_flows_per_s = 200
//!
//! [[stage.limit]]
//! name = "resolvers"
//! per = "all"
//! protocol = "udp"
//! destination_port = "53"
//! packets_per_s = 50_000
//! bytes_per_s = 20_000_000
//! burst = "100ms"
//! mode = "police"                    # police | report
//! ```
//!
//! Place on the path: behind `blocklist`, in front of what costs more. Limits are asked in order; a packet that one of them drops does not use up those
//! behind it. Packets and bytes (of inner packets) are limited packet by packet: such a limit is shown every packet, settles nothing, and the flow goes
//! on. A flow that is one too many is dropped as a whole; where all limits of a stage are of new flows it settles, and sees each flow once.
//!
//! What is promised, and what it is under several workers, is said in `buckets.rs`: never more than rate x time + burst, whichever workers the packets
//! come to; all but one packet of that for whoever asks for more. A flow's own buckets are with its worker, and begin full when it changes hands.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use super::acl::counters::Workers;
use super::acl::words;
use super::buckets::{Rate, Since, Table};
use super::whom::{self, Only, OnlyWords, Per, Whom};
use crate::config::{Problem, Settings};
use crate::dpdk::Error;
use crate::event::Signature;
use crate::stage::{Backend, Make, ParseResult, Parsed, PerFlow, Shared, Stage, StageKind};

mod running;
#[cfg(test)]
mod tests;

use running::{FLOW_WORDS, Running};

/// Most limits of one stage.
const MOST_LIMITS: usize = 16;
const MOST_PER_S: u64 = 1_000_000_000;
const BYTES_PER_S: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
const BUCKETS: std::ops::RangeInclusive<u64> = 64..=16 << 20;
const MS: u64 = 1_000_000;

/// The reasons, by whom a limit is for, in the order of [`Per`]; the last is for want of a bucket.
const REASONS: &[(&str, &str)] = &[
    ("flow", "A flow sent more than a limit per flow lets pass."),
    ("source", "An address opened or sent more than a limit per source lets pass."),
    ("destination", "An address was sent more than a limit per destination lets pass."),
    ("service", "An address and port were sent more than a limit per service lets pass."),
    ("tenant", "A tenant sent more than a limit per tenant lets pass."),
    ("all", "What a limit for all looks at was more than it lets pass."),
    ("no_bucket", "All buckets of a limit were in use, and its when_full is \"drop\"."),
];
const NO_BUCKET: usize = 6;

/// The kind `ratelimit`.
pub const KIND: StageKind = StageKind {
    name: "ratelimit",
    summary: "packets, bytes and new flows a second, per flow, source, destination, service, tenant or in all",
    help: HELP,
    example: EXAMPLE,
    reasons: REASONS,
    parse,
};

const HELP: &str = r#"limit     [[stage.limit]] tables, asked in order; 1 to 16

A limit:
  name             its name in counters and alerts; required
  per              whom it counts together; required
                   flow         each flow; up to four rates of all such limits of a stage
                   source       the address that opened a flow
                   destination  the address that it was opened to
                   service      that address and port, by protocol
                   tenant       each tenant
                   all          all that the limit looks at
  packets_per_s    1 to 1000000000; one of these three at least
  bytes_per_s      bytes of inner packets, 1000 to 1000000000000
  new_flows_per_s  1 to 1000000000: a flow that is too many is dropped, with all of its
                   packets, until it would be forgotten (flow.denied). Of packets without a
                   flow, a SYN counts as one. Connections that are picked up do not count.
  burst            what comes in this time at the rate may come at once: "1ms" to "60s";
                   default "100ms". One packet passes at a time, however small it makes that.
  direction        both (default), to_server or to_client: which packets of a flow count
  mode             police (default): what is too much is dropped
                   report: it is counted and told of, and passes
  prefix_v4        addresses count together by so many first bits: default 32
  prefix_v6        default 64, which is what one host may have
  buckets          of source, destination and service: how many there are for all workers,
                   64 to 16777216; default 65536
  when_full        pass (default): what finds no bucket passes unlimited; drop: it is dropped
  tenant           only packets of this tenant
  protocol         only such packets, in the words of acl's rules (source and destination are
  source           the flow's: who opened it, and to whom)
  destination
  source_port
  destination_port
  severity         of its alerts, 1 (worst) to 255; default 3
stateful  true (default); false: packets speak for themselves, flow tracking is not needed, and
          limits per flow or tenant, of new flows or of a direction cannot be

Whoever keeps below the rate finds a full bucket, and a full bucket can be given to somebody
else without loss. So buckets are short only if more than that many senders are near their
limits at once; counted as "no bucket".

A limit tells of what it drops by an alert, with the packet at hand, once a second and worker.

A packet that one rate of a limit refuses (bytes) has used up the other's (packets).
A limit per flow does not see packets without a flow. A reload that changes the stage fills
all buckets.
"#;

const EXAMPLE: &str = r#"[[stage]]
use = "ratelimit"

[[stage.limit]]
name = "new flows of a source"
per = "source"
new_flows_per_s = 200

[[stage.limit]]
name = "resolvers"
per = "all"
protocol = "udp"
destination_port = "53"
packets_per_s = 50_000
"#;

/// The keys of the stage's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StageTable {
    stateful: bool,
    limit: Vec<LimitTable>,
}

impl Default for StageTable {
    fn default() -> Self {
        StageTable { stateful: true, limit: Vec::new() }
    }
}

/// The keys of a limit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitTable {
    name: String,
    per: Option<Per>,
    packets_per_s: Option<u64>,
    bytes_per_s: Option<u64>,
    new_flows_per_s: Option<u64>,
    burst: Option<String>,
    direction: Direction,
    mode: Mode,
    prefix_v4: Option<u64>,
    prefix_v6: Option<u64>,
    buckets: Option<u64>,
    when_full: WhenFull,
    tenant: Option<String>,
    #[serde(deserialize_with = "words::text")]
    protocol: String,
    source: String,
    destination: String,
    #[serde(deserialize_with = "words::text")]
    source_port: String,
    #[serde(deserialize_with = "words::text")]
    destination_port: String,
    severity: Option<u64>,
}

/// Which packets of a flow count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    #[default]
    Both,
    ToServer,
    ToClient,
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

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Packets,
    Bytes,
    NewFlows,
}

impl What {
    const ALL: [What; 3] = [What::Packets, What::Bytes, What::NewFlows];

    fn words(self) -> &'static str {
        match self {
            What::Packets => "packets",
            What::Bytes => "bytes",
            What::NewFlows => "new flows",
        }
    }
}

/// A limit that was read and checked.
#[derive(Clone, Debug)]
struct Limit {
    name: String,
    per: Per,
    whom: Whom,
    only: Only,
    /// In the order of [`What`].
    rates: Vec<(What, Rate)>,
    /// The first of its words among those of a flow.
    of_flow: usize,
    direction: Direction,
    police: bool,
    buckets: usize,
    drop_when_full: bool,
    severity: u8,
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let StageTable { stateful, limit } = settings.read()?;
    let mut problems = Vec::new();
    let mut limits: Vec<Limit> = Vec::new();
    if limit.is_empty() {
        return Err(vec![settings.problem("", "there is no limit", "add a [[stage.limit]] table")]);
    }
    if limit.len() > MOST_LIMITS {
        let what = format!("{} limits are more than the {MOST_LIMITS} that one stage takes", limit.len());
        return Err(vec![settings.problem("limit", what, "use a second stage")]);
    }
    let mut of_flow = 0;
    for (n, table) in limit.iter().enumerate() {
        let place = format!("limit[{n}]");
        whom::check_name(
            settings,
            &place,
            &table.name,
            limits.iter().map(|l| l.name.as_str()),
            &mut problems,
        );
        let Some(limit) = read_limit(settings, &place, table, of_flow, &mut problems) else { continue };
        if limit.per == Per::Flow {
            of_flow += limit.rates.len();
        }
        let new_flows = limit.rates.iter().any(|(what, _)| *what == What::NewFlows);
        let of_flows = matches!(limit.per, Per::Flow | Per::Tenant);
        if !stateful && (of_flows || new_flows || limit.direction != Direction::Both) {
            let what = "needs flows, and the stage is not stateful";
            problems.push(settings.problem(&place, what, "leave stateful out"));
        }
        limits.push(limit);
    }
    if of_flow > FLOW_WORDS {
        let what = format!("limits per flow have {of_flow} rates, and a flow keeps {FLOW_WORDS}");
        problems.push(settings.problem("limit", what, "use a second stage"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Box::new(RateLimit { limits: limits.into(), stateful, tenants: settings.tenants() }))
}

fn read_limit(
    settings: &Settings<'_>,
    place: &str,
    table: &LimitTable,
    of_flow: usize,
    problems: &mut Vec<Problem>,
) -> Option<Limit> {
    let at = |key: &str| format!("{place}.{key}");
    let Some(per) = table.per else {
        let remedy = "write flow, source, destination, service, tenant or all";
        problems.push(settings.problem(&at("per"), "is missing", remedy));
        return None;
    };
    let burst =
        whom::span(settings, &at("burst"), table.burst.as_deref(), 100 * MS, MS..=60_000 * MS, problems);
    let mut rates = Vec::new();
    for (what, key, given, range) in [
        (What::Packets, "packets_per_s", table.packets_per_s, 1..=MOST_PER_S),
        (What::Bytes, "bytes_per_s", table.bytes_per_s, BYTES_PER_S),
        (What::NewFlows, "new_flows_per_s", table.new_flows_per_s, 1..=MOST_PER_S),
    ] {
        if let Some(per_s) = whom::number(settings, &at(key), given, range, problems) {
            rates.push((what, Rate::new(per_s, burst)));
        }
        if what == What::NewFlows && given.is_some() && per == Per::Flow {
            problems.push(settings.problem(&at(key), "a flow is opened once", "choose another per"));
        }
    }
    if [table.packets_per_s, table.bytes_per_s, table.new_flows_per_s].iter().all(Option::is_none) {
        let remedy = "give packets_per_s, bytes_per_s or new_flows_per_s";
        problems.push(settings.problem(place, "limits nothing", remedy));
    }
    if !per.is_keyed() {
        for (key, given) in
            [("buckets", table.buckets), ("prefix_v4", table.prefix_v4), ("prefix_v6", table.prefix_v6)]
        {
            if given.is_some() {
                let what = format!("means nothing per {}", per.word());
                problems.push(settings.problem(&at(key), what, "leave it out"));
            }
        }
    }
    let mut bits = |key, given, most: u8| {
        let given = whom::number(settings, &at(key), given, 1..=u64::from(most), problems);
        given.and_then(|bits| u8::try_from(bits).ok())
    };
    let prefix_v4 = bits("prefix_v4", table.prefix_v4, 32).unwrap_or(32);
    let prefix_v6 = bits("prefix_v6", table.prefix_v6, 128).unwrap_or(64);
    let buckets = whom::number(settings, &at("buckets"), table.buckets, BUCKETS, problems).unwrap_or(1 << 16);
    let severity = whom::number(settings, &at("severity"), table.severity, 1..=255, problems).unwrap_or(3);
    let words = OnlyWords {
        tenant: table.tenant.as_deref(),
        protocol: &table.protocol,
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
        rates,
        of_flow,
        direction: table.direction,
        police: table.mode == Mode::Police,
        buckets: buckets as usize,
        drop_when_full: table.when_full == WhenFull::Drop,
        severity: severity as u8,
    })
}

/// The stage, parsed.
#[derive(Debug)]
struct RateLimit {
    limits: Arc<[Limit]>,
    stateful: bool,
    tenants: usize,
}

impl RateLimit {
    fn keeps_of_flows(&self) -> bool {
        self.limits.iter().any(|limit| limit.per == Per::Flow)
    }
}

impl Parsed for RateLimit {
    fn wants_flows(&self) -> bool {
        self.stateful
    }

    fn flow_state_bytes(&self) -> u64 {
        if self.keeps_of_flows() { PerFlow::<[u64; FLOW_WORDS]>::BYTES } else { 0 }
    }

    fn settles(&self) -> bool {
        settles(&self.limits)
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        let table = |limit: &Limit| match limit.per {
            Per::Flow => Table::numbered(0, 1),
            Per::Tenant => Table::numbered(self.tenants, limit.rates.len()),
            Per::All => Table::numbered(1, limit.rates.len()),
            _ => Table::keyed(limit.buckets, limit.rates.len()),
        };
        let limits = self.limits.clone();
        let tables = limits.iter().map(table).collect();
        let inner = Inner { tables, since: Since::new(), settles: settles(&limits), limits };
        let keeps_of_flows = self.keeps_of_flows();
        Ok(Arc::new(Built { inner: Arc::new(inner), keeps_of_flows, workers: Mutex::default() }))
    }
}

/// Nothing but new flows is limited: once that is decided of a flow there is nothing more to look at.
fn settles(limits: &[Limit]) -> bool {
    limits.iter().flat_map(|limit| &limit.rates).all(|(what, _)| *what == What::NewFlows)
}

/// What workers share.
struct Inner {
    limits: Arc<[Limit]>,
    /// One for each limit.
    tables: Box<[Table]>,
    since: Since,
    settles: bool,
}

/// The stage, built.
struct Built {
    inner: Arc<Inner>,
    keeps_of_flows: bool,
    workers: Mutex<Workers>,
}

/// Counters of a limit: what was too much, by [`What`], and packets that found no bucket.
const COUNTERS: usize = What::ALL.len() + 1;

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let counters = self.workers.lock().of(make.worker, self.inner.limits.len() * COUNTERS);
        let flows = self.keeps_of_flows.then(|| PerFlow::new(make));
        Box::new(Running::new(self.inner.clone(), flows, counters))
    }

    fn report(&self) -> Vec<(String, String)> {
        let limits = self.inner.limits.iter().zip(&self.inner.tables);
        let row = |(limit, table): (&Limit, &Table)| {
            let mode = if limit.police { "police" } else { "report" };
            let rates: Vec<&str> = limit.rates.iter().map(|(what, _)| what.words()).collect();
            let size = table.bytes() as f64 / 1e6;
            (
                limit.name.clone(),
                format!("per {}, {}, {mode}, {size:.1} MB of buckets", limit.per.word(), rates.join(" and ")),
            )
        };
        limits.map(row).collect()
    }

    fn signatures(&self) -> Vec<Signature> {
        let signature = |(n, limit): (usize, &Limit)| Signature {
            signature: limit.name.clone(),
            signature_id: n as u32 + 1,
            rev: 1,
            category: "rate limit".into(),
            severity: limit.severity,
        };
        self.inner.limits.iter().enumerate().map(signature).collect()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let workers = self.workers.lock();
        let mut out = Vec::new();
        for (n, limit) in self.inner.limits.iter().enumerate() {
            for (what, _) in &limit.rates {
                let sum = workers.sum(n * COUNTERS + *what as usize);
                out.push((format!("{}: {} over", limit.name, what.words()), sum));
            }
            if limit.per.is_keyed() {
                let sum = workers.sum(n * COUNTERS + What::ALL.len());
                out.push((format!("{}: no bucket", limit.name), sum));
            }
        }
        out
    }
}
