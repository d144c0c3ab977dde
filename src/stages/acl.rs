//! First-match firewall rules over addresses, protocol, ports and ICMP type.
//!
//! ```toml
//! [[stage]]
//! use = "acl"
//! default = "deny"                  # allow | deny | reject
//! stateful = true                   # false: every packet asks, and replies need rules of their own
//! # rules = "rules/edge.csv"        # a file, or a list of files, read behind the rules below
//!
//! [[stage.rule]]
//! action = "deny"
//! source = "192.0.2.0/24"
//! comment = "known scanners"
//!
//! [[stage.rule]]
//! action = "allow"
//! protocol = "tcp"
//! destination = "10.0.0.0/8"
//! destination_port = "80|443"
//!
//! [stage.addresses]                 # names for lists of addresses, and of ports, to be used in rules and files
//! servers = ["10.0.1.0/24", "2001:db8:1::/64"]
//! ```
//!
//! Place on the path: any place in the pipeline. Assumes that decap has checked the inner headers. Promises: allow, deny and
//! reject end the search; log and count rules in front of the deciding rule are all counted; whoever asks the rules counts once for the
//! deciding rule or for the default. Stateful, as it is unless told otherwise, a flow asks once, as its first packet travels, and the
//! answer holds for its replies, its fragments and the ICMP errors that speak of it; a flow that is denied is dropped from then on.
//! Packets without a flow, and all packets where `stateful = false`, ask each for itself. `flows.rs` has the details.
//!
//! The rules are compiled once per plan by `rte_acl` and shared by all workers (`compiled`); without DPDK the rules
//! are tried in turn ([`linear`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use crate::config::{self, Problem};
use crate::dpdk::Error;
use crate::event::Signature;
use crate::flow::Tuple;
use crate::packet::{ReasonId, Verdict};
use crate::stage::{Backend, Cx, Judged, Make, Parsed, Shared, Stage, StageKind};

pub mod rule;
pub mod groups;
pub mod csv;
pub mod set;
pub mod linear;
pub(super) mod flows;
mod alerts;
#[cfg(feature = "dpdk")]
pub mod compiled;
#[cfg(feature = "dpdk")]
mod running;
#[cfg(feature = "dpdk")]
mod cost;
pub mod analysis;
pub(super) mod counters;
pub(super) mod words;
#[cfg(test)]
mod tests;

use analysis::{Fault, Finding};
use counters::Workers;
use groups::Groups;
use linear::{Key, Linear};
use rule::{Action, Mistake, Place, Rule, Words};
pub use set::{MAX_RULES, RuleSet};

/// Findings that `check` prints one by one.
const MAX_WARNINGS: usize = 20;

/// Reasons in the order of `KIND.reasons`.
const DENY: usize = 0;
const REJECT: usize = 1;
const DEFAULT_DENY: usize = 2;

/// The kind `acl`.
pub const KIND: StageKind = StageKind {
    name: "acl",
    summary: "first-match firewall rules over addresses, protocol, ports and ICMP type",
    help: HELP,
    example: EXAMPLE,
    reasons: &[
        ("deny", "A rule with action deny matched."),
        ("reject", "A rule with action reject matched, or the default is reject."),
        ("default_deny", "No rule decided, and the default is deny."),
    ],
    parse,
};

const HELP: &str = r#"rules    file or list of files, relative to the configuration; none by default
         CSV with a header line: action,protocol,source,destination,source_port,
         destination_port,icmp_type,comment,id,severity,export,tenant in any order; a missing
         column or an empty value means any; lines that start with # are comments.
rule     [[stage.rule]] tables with the same names as keys; they stand in front of the files
addresses  [stage.addresses]: names for lists of addresses and prefixes, of both families if
         need be: servers = ["10.0.1.0/24", "2001:db8:1::/64"]
ports    [stage.ports]: names for lists of ports: web = "80|443|8000-8099"
default  what happens to flows that no rule decides on: allow | deny (default) | reject
stateful true (default): a flow asks the rules once, as the packet that opened it travels;
         the answer holds for both directions, so that replies come home, and denied flows
         are dropped as flow_condemned before any stage. false: every packet asks for itself,
         and replies need rules of their own.

A rule:
  action            allow | deny | reject | log | count
                    allow, deny and reject end the search. reject tells both ends: TCP by a
                    reset each, anything else its sender by ICMP "administratively
                    prohibited"; at a limited rate (flow.answers_per_s).
                    log and count let the search go on. log also makes an alert record
                    (docs/events.md), one for each flow or packet that asks, of at most 16
                    rules for a packet.
  protocol          any, tcp, udp, icmp, icmpv6, sctp, esp, gre, ah, ... or a number;
                    several as "tcp|udp"
  source            address, prefix or group, IPv4 or IPv6, or any; several as
  destination       "servers|192.0.2.1"; a rule without addresses matches both families
  source_port       80, 1000-2000 or a group, several as "80|443" or "web|8443"; 0-65535 is any
  destination_port
  icmp_type         8, or type/code such as 3/4; several as "0|8"
  tenant            a [[tenant]]'s name, several as "payments|shop": the rule is for their
                    packets only, and in their search as if the others' were not there. Rules
                    may differ for up to 64 sets of tenants, each of which has a classifier of
                    its own, with the rules for all
  comment           shown beside the rule's counter, and the signature of its alerts
  id                signature_id of its alerts, unique among log rules; else the rule's place
                    among all, from 1, which changes as rules come and go
  severity          of its alerts, 1 (worst) to 255; 3 if it is not there
  export            true: its hits are a figure of their own, sluicegate_rule_hits_total,
                    named by its id if it has one, so that the name stays as other rules
                    come and go; rules with the same name share it. Thousands make scrapes
                    large: check prints how large

A rule with several addresses is one for each pair of a source and a destination of one family,
up to 4096, with one counter and one number; what it names twice is there once.

Up to 30,000 rules, each pair counted; of those up to 4,096 log and count rules, of which one packet can match 16.
Each rule counts what asked it: a flow once, however many packets it has; a packet without a
flow (table full, tracking off), or any packet where stateful = false, each time. The packets
of a flow are counted with the flow. `sluicegate check` names rules that can never apply.

Fragments behind the first go the way of their flow. Where they have none they show no ports,
and rules with ports or ICMP types do not match them. ICMP errors go the way of the flow that
they speak of. ICMP other than echo has no flow that is like it, so each message asks.

A TCP connection that is first seen in the middle (after a restart) is allowed if the rules
allow it in either orientation (flow.pickup = "policy"). A reverse orientation counts if a rule
allows it that would not match the other way round as well; a default does not.

A rule file:
  action,protocol,source,destination,destination_port,comment
  deny,,192.0.2.0/24,,,known scanners
  allow,tcp,,10.0.0.0/8,80|443,web
  allow,udp,,2001:db8::53,53,name server
"#;

const EXAMPLE: &str = r#"[[stage]]
use = "acl"
default = "deny"

[[stage.rule]]
action = "deny"
source = "192.0.2.0/24"
comment = "known scanners"

[[stage.rule]]
action = "allow"
protocol = "tcp|udp"
destination = "10.0.0.0/8"
destination_port = "80|443"

[[stage.rule]]
action = "allow"
protocol = "icmp"
icmp_type = "8"
"#;

/// The keys of the stage's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    #[serde(deserialize_with = "words::one_or_many")]
    rules: Vec<String>,
    rule: Vec<Inline>,
    addresses: BTreeMap<String, Vec<String>>,
    ports: BTreeMap<String, String>,
    default: DefaultAction,
    stateful: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            rules: Vec::new(),
            rule: Vec::new(),
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            default: DefaultAction::default(),
            stateful: true,
        }
    }
}

/// A rule as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Inline {
    action: String,
    #[serde(deserialize_with = "words::text")]
    protocol: String,
    source: String,
    destination: String,
    #[serde(deserialize_with = "words::text")]
    source_port: String,
    #[serde(deserialize_with = "words::text")]
    destination_port: String,
    #[serde(deserialize_with = "words::text")]
    icmp_type: String,
    comment: String,
    #[serde(deserialize_with = "words::text")]
    id: String,
    #[serde(deserialize_with = "words::text")]
    severity: String,
    export: bool,
    tenant: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DefaultAction {
    Allow,
    #[default]
    Deny,
    Reject,
}

impl From<DefaultAction> for Action {
    fn from(action: DefaultAction) -> Self {
        match action {
            DefaultAction::Allow => Action::Allow,
            DefaultAction::Deny => Action::Deny,
            DefaultAction::Reject => Action::Reject,
        }
    }
}

fn parse(settings: &config::Settings<'_>) -> Result<Box<dyn Parsed>, Vec<Problem>> {
    let table: Settings = settings.read()?;
    let mut rules = Vec::new();
    let mut problems = Vec::new();
    let groups = Groups::read(settings, &table.addresses, &table.ports, &mut problems);
    for (number, inline) in table.rule.iter().enumerate() {
        match Rule::parse_all(&inline.words(), Place::Inline(number), &groups) {
            Ok(more) => rules.extend(more),
            Err(mistakes) => problems.extend(mistakes.into_iter().map(|Mistake { column, what, remedy }| {
                settings.problem(&format!("rule[{number}].{column}"), what, remedy)
            })),
        }
    }
    for file in &table.rules {
        let path = settings.path(file);
        let name = path.display().to_string();
        match settings.read_file(&path, csv::MAX_BYTES as u64 + 1) {
            Ok(text) => match csv::parse_with(&name, &text, &groups) {
                // Counters bear the name as it is written here: the same on every machine and from every folder.
                Ok(more) => {
                    let written = file.as_str().into();
                    rules.extend(more.into_iter().map(|rule| rule.placed_in(&written)));
                }
                Err(wrong) => problems.extend(wrong),
            },
            Err(error) => {
                let what = format!("cannot read {name}: {error}");
                problems.push(settings.problem(
                    "rules",
                    what,
                    "paths start at the folder of the configuration file",
                ));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let places: Vec<Place> = rules.iter().map(|rule| rule.place.clone()).collect();
    let set = RuleSet::new(rules, table.default.into()).map_err(|refused| {
        let place = places.get(refused.rule).map(|place| format!("{place}: ")).unwrap_or_default();
        vec![settings.problem("rules", format!("{place}{}", refused.what), refused.remedy)]
    })?;
    if let Some((rule, other, id)) = alerts::same_id(&set) {
        let what = format!("{}: {id} is the id of {} as well", rule.place, other.place);
        let remedy = "give each log rule an id of its own; one without has its place, from 1";
        return Err(vec![settings.problem("rules", what, remedy)]);
    }
    Ok(Box::new(Acl { set: Arc::new(set), stateful: table.stateful }))
}

impl Inline {
    fn words(&self) -> Words<'_> {
        Words {
            action: &self.action,
            protocol: &self.protocol,
            source: &self.source,
            destination: &self.destination,
            source_port: &self.source_port,
            destination_port: &self.destination_port,
            icmp_type: &self.icmp_type,
            comment: &self.comment,
            id: &self.id,
            severity: &self.severity,
            export: if self.export { "true" } else { "" },
            tenant: &self.tenant,
        }
    }
}

/// The stage, parsed.
#[derive(Debug)]
pub struct Acl {
    set: Arc<RuleSet>,
    stateful: bool,
}

impl Acl {
    /// A stage with these rules, which each flow asks once.
    pub fn new(set: RuleSet) -> Self {
        Acl { set: Arc::new(set), stateful: true }
    }

    /// The same rules, asked by every packet.
    pub fn stateless(self) -> Self {
        Acl { stateful: false, ..self }
    }
}

impl Parsed for Acl {
    #[cfg(feature = "dpdk")]
    fn eal_memory(&self) -> u64 {
        compiled::memory(&self.set)
    }

    fn wants_flows(&self) -> bool {
        self.stateful || self.set.classes().count() > 1 // whose a packet is, track says
    }

    fn settles(&self) -> bool {
        self.stateful
    }

    fn denies_by_default(&self) -> bool {
        self.set.default_action() != Action::Allow
    }

    fn warnings(&self) -> Vec<String> {
        warnings(&self.set)
    }

    fn build(&self, backend: Backend) -> Result<Arc<dyn Shared>, Error> {
        let (classifier, facts) = match backend {
            Backend::Soft => (Classifier::Linear, vec![("classifier".into(), "linear".into())]),
            #[cfg(feature = "dpdk")]
            Backend::Eal => {
                let rules = compiled::Compiled::build(&self.set)?;
                let facts = rules.report();
                (Classifier::Compiled(Arc::new(rules)), facts)
            }
            #[cfg(not(feature = "dpdk"))]
            Backend::Eal => {
                return Err(Error::refused(
                    "this program is built without DPDK",
                    "build it with the feature dpdk",
                ));
            }
        };
        let (set, stateful) = (self.set.clone(), self.stateful);
        let mut exported: Vec<(String, usize)> = Vec::new();
        let rules = set.rules().iter().enumerate();
        exported.extend(rules.filter(|(_, rule)| rule.export).map(|(n, rule)| (rule.exported_as(), n)));
        exported.push((default_label(&set), set.rules().len()));
        exported.sort();
        Ok(Arc::new(Built { set, stateful, classifier, facts, exported, workers: Mutex::default() }))
    }
}

fn warnings(set: &RuleSet) -> Vec<String> {
    let rules = set.rules();
    if rules.is_empty() {
        return vec![format!(
            "there are no rules: the default, {}, meets every packet",
            set.default_action()
        )];
    }
    let found = analysis::search(rules);
    let place = |n: usize| rules.get(n).map_or(String::new(), |r| format!("{} {}", r.place, r.action));
    // A rule of several pairs of addresses is useless if all of them are.
    let of = |range: std::ops::Range<usize>| {
        let from = found.list.partition_point(|finding| finding.rule < range.start);
        let to = found.list.partition_point(|finding| finding.rule < range.end);
        let first = found.list.get(from..to).filter(|list| list.len() == range.len())?.first()?;
        let (rule, other) = rules.get(first.rule).zip(rules.get(first.by))?;
        // The same pairs of addresses, and others beside them: a rule that decides takes them all, one that counts does not.
        match first.fault {
            Fault::Duplicate if rule.written != other.written => {
                rule.action.decides().then_some(Finding { fault: Fault::Shadowed, ..*first })
            }
            _ => Some(*first),
        }
    };
    let list: Vec<_> = set.written().filter_map(of).collect();
    let mut out: Vec<String> = list
        .iter()
        .take(MAX_WARNINGS)
        .map(|finding| match finding.fault {
            Fault::Duplicate => format!("{}: the same as {}", place(finding.rule), place(finding.by)),
            Fault::Shadowed => {
                format!(
                    "{}: never applies, {} takes all of its packets",
                    place(finding.rule),
                    place(finding.by)
                )
            }
        })
        .collect();
    if list.len() > MAX_WARNINGS {
        out.push(format!("{} rules in all never apply or are there twice", list.len()));
    }
    if found.searched < rules.len() {
        out.push(format!("only the first {} rules were searched for rules that never apply", found.searched));
    }
    out
}

/// What decides which rule a packet matches.
#[derive(Clone)]
enum Classifier {
    Linear,
    #[cfg(feature = "dpdk")]
    Compiled(Arc<compiled::Compiled>),
}

/// The stage, built: shared by all workers.
struct Built {
    set: Arc<RuleSet>,
    stateful: bool,
    classifier: Classifier,
    facts: Vec<(String, String)>,
    /// Names and places of the rules whose hits are exported, and of the default, by name.
    exported: Vec<(String, usize)>,
    workers: Mutex<Workers>,
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let counters = self.workers.lock().of(make.worker, self.set.rules().len() + 1);
        let set = self.set.clone();
        match &self.classifier {
            Classifier::Linear => Box::new(Linear::new(set, self.stateful, counters)),
            #[cfg(feature = "dpdk")]
            Classifier::Compiled(rules) => {
                Box::new(running::Running::new(rules.clone(), set, self.stateful, counters))
            }
        }
    }

    fn report(&self) -> Vec<(String, String)> {
        let (written, pairs) = (self.set.written().count(), self.set.rules().len());
        let rules = match written == pairs {
            true => written.to_string(),
            false => format!("{written}, for {pairs} pairs of addresses"),
        };
        let mut out = vec![("rules".into(), rules)];
        out.push(("default".into(), self.set.default_action().to_string()));
        let asks = if self.stateful { "once for each flow" } else { "for every packet" };
        out.push(("asked".into(), asks.into()));
        out.extend(self.facts.iter().cloned());
        out
    }

    fn signatures(&self) -> Vec<Signature> {
        alerts::signatures(&self.set)
    }

    fn judge(&self, ends: &Tuple) -> Option<Judged> {
        let rules = self.set.rules();
        if self.set.classes().count() > 1 {
            return None; // ends do not tell the tenant
        }
        let key = Key::of_ends(ends);
        let label = |number: usize| rules.get(number).map(Rule::label);
        let mut also = Vec::new();
        let found = linear::search(rules, &key, |number| also.extend(label(number)));
        let action =
            found.and_then(|number| rules.get(number)).map_or(self.set.default_action(), |rule| rule.action);
        let reverse = match action {
            Action::Allow => None,
            _ if !self.stateful => None,
            _ => linear::allows_reverse(rules, &key),
        };
        if let Some(rule) = reverse.and_then(label) {
            return Some(Judged { verdict: "allow, as an answer".into(), rule: Some(rule), also });
        }
        let rule = found.and_then(label).or_else(|| Some(default_label(&self.set)));
        Some(Judged { verdict: action.to_string(), rule, also })
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let sums = self.workers.lock().sums(self.set.rules().len() + 1);
        // Parts of a rule are one.
        let sum = |part: std::ops::Range<usize>| sums.get(part).unwrap_or_default().iter().sum();
        let rule =
            |part: std::ops::Range<usize>| Some((self.set.rules().get(part.start)?.label(), sum(part)));
        let default = (default_label(&self.set), sums.last().copied().unwrap_or_default());
        self.set.written().filter_map(rule).chain([default]).collect()
    }

    /// Rules are exported one by one, if they say so.
    fn exported_counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn exported_rules(&self) -> Vec<(String, u64)> {
        let workers = self.workers.lock();
        let mut out: Vec<(String, u64)> = Vec::with_capacity(self.exported.len());
        for (name, rule) in &self.exported {
            let hits = workers.sum(*rule);
            match out.last_mut() {
                Some((last, sum)) if last == name => *sum += hits,
                _ => out.push((name.clone(), hits)),
            }
        }
        out
    }
}

fn default_label(set: &RuleSet) -> String {
    format!("default {}", set.default_action())
}

/// The ids of the stage's reasons in this plan.
#[derive(Clone, Copy)]
struct Reasons {
    deny: ReasonId,
    reject: ReasonId,
    default_deny: ReasonId,
}

impl Reasons {
    #[inline(always)]
    fn of(cx: &Cx<'_>) -> Self {
        Reasons { deny: cx.reason(DENY), reject: cx.reason(REJECT), default_deny: cx.reason(DEFAULT_DENY) }
    }

    #[inline(always)]
    fn verdict(&self, action: Action, by_default: bool) -> Verdict {
        match action {
            Action::Deny if by_default => Verdict::Drop(self.default_deny),
            Action::Deny => Verdict::Drop(self.deny),
            Action::Reject => Verdict::Reject(self.reject),
            Action::Allow | Action::Log | Action::Count => Verdict::Next,
        }
    }
}
