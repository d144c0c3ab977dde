//! `[events]`: what is told, how much of it, and where it goes.

use std::time::Duration;

use super::check::Check;
use super::flow::{power, range};
use super::schema;
use super::value::known_here;
use super::{EventsPlan, Format, ReportPlan, Rotation, SinkPlan, To};
use crate::event::{FlowLog, Type, Types};
use crate::packet::{DropReason, ReasonTable};

/// Sinks of a plan: each has a thread and a queue.
const MOST_SINKS: usize = 8;
/// A name is a label of metrics.
const LONGEST_NAME: usize = 32;
const MINUTE: Duration = Duration::from_secs(60);

/// The plan of `[events]`; reasons are those of the path and of all stages.
pub(super) fn check(check: &mut Check<'_>, given: &schema::Events, reasons: &ReasonTable) -> EventsPlan {
    let usual = Type::PRODUCED.iter().copied().filter(|kind| *kind != Type::FlowStart).collect();
    let all = Type::PRODUCED.iter().copied().collect();
    let follow = types(check, "events.follow", given.follow.as_deref(), all);
    let types = types(check, "events.types", given.types.as_deref(), usual);
    let ring = power(check, "events.ring", given.ring, 4096, 64, 1 << 20);
    let stats_every =
        range(check, "events.stats_every", given.stats_every, MINUTE, Duration::from_secs(1), 1440 * MINUTE);
    let drop = report(check, "events.drop", &given.drop, reasons, 100, usual_drop);
    let anomaly = report(check, "events.anomaly", &given.anomaly, reasons, 10, is_anomaly);
    let account = given.account.clone().unwrap_or_default();
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    if !account.is_empty() && !is_account {
        check.problem(
            "events.account",
            format!("{account:?} is not an account of AWS"),
            "write its twelve digits",
        );
    }
    let sinks = sinks(check, &given.sink, types);
    EventsPlan { types, ring, stats_every, drop, anomaly, flow_log: FlowLog { account }, follow, sinks }
}

/// Malformed packets are anomalies; so is what cannot belong to its connection.
fn is_anomaly(reason: Option<DropReason>) -> bool {
    reason.is_some_and(|reason| {
        reason.hop() == "decap"
            || matches!(
                reason,
                DropReason::TcpInvalid | DropReason::FragmentOrphan | DropReason::StreamConflict
            )
    })
}

/// Everything else is a drop; but of a flow that a stage drops the first packet tells.
fn usual_drop(reason: Option<DropReason>) -> bool {
    !is_anomaly(reason) && reason != Some(DropReason::FlowCondemned)
}

fn report(
    check: &mut Check<'_>,
    place: &str,
    given: &schema::Report,
    reasons: &ReasonTable,
    per_s: u32,
    usual: fn(Option<DropReason>) -> bool,
) -> ReportPlan {
    let framework = |id: usize| DropReason::ALL.get(id).copied();
    let per_s = check.range(&format!("{place}.per_s"), given.per_s, per_s, 0, 1_000_000);
    let Some(names) = &given.reasons else {
        let ids = reasons.iter().map(|(id, ..)| id).filter(|id| usual(framework(id.0.into())));
        return ReportPlan { reasons: ids.collect(), per_s };
    };
    let mut chosen = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // "acl.*": all of the stage's; "*": all there are.
        let prefix = name.strip_suffix('*');
        let fits = |label: &str| prefix.map_or(label == name, |prefix| label.starts_with(prefix));
        let before = chosen.len();
        chosen.extend(reasons.iter().filter(|(_, label, _)| fits(label)).map(|(id, ..)| id));
        if chosen.len() == before {
            let labels: Vec<&str> = reasons.iter().map(|(_, label, _)| label).collect();
            check.problem(
                &format!("{place}.reasons[{i}]"),
                format!("there is no drop reason {name:?}"),
                known_here(name, &labels),
            );
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    ReportPlan { reasons: chosen, per_s }
}

fn types(check: &mut Check<'_>, place: &str, given: Option<&[String]>, usual: Types) -> Types {
    let Some(words) = given else { return usual };
    let mut types = Types::NONE;
    for (i, word) in words.iter().enumerate() {
        let place = format!("{place}[{i}]");
        match Type::named(word) {
            Some(kind) if Type::PRODUCED.contains(&kind) => types = types.with(kind),
            Some(kind) => check.problem(&place, format!("no stage makes {kind} records yet"), "leave it out"),
            None => {
                let known: Vec<&str> = Type::PRODUCED.iter().map(|kind| kind.word()).collect();
                check.problem(&place, format!("there is no type {word:?}"), known_here(word, &known));
            }
        }
    }
    types
}

fn sinks(check: &mut Check<'_>, given: &[schema::Sink], made: Types) -> Vec<SinkPlan> {
    if given.len() > MOST_SINKS {
        let place = format!("events.sink[{MOST_SINKS}]");
        check.problem(&place, format!("is one too many: there are at most {MOST_SINKS} sinks"), "");
    }
    let mut sinks: Vec<SinkPlan> = Vec::new();
    for (i, sink) in given.iter().enumerate() {
        let place = format!("events.sink[{i}]");
        let Some(plan) = one(check, &place, sink, made) else { continue };
        if sinks.iter().any(|other| other.name == plan.name) {
            let what = format!("{:?} is the name of another sink", plan.name);
            check.problem(&place, what, "give one of them a name of its own: name = \"...\"");
        }
        if sinks.iter().any(|other| other.to == plan.to || same_file(&other.to, &plan.to)) {
            check.problem(&place, "another sink writes to the same place", "give each its own");
        }
        sinks.push(plan);
    }
    sinks
}

fn same_file(a: &To, b: &To) -> bool {
    matches!((a, b), (To::File { path: a, .. }, To::File { path: b, .. }) if a == b)
}

fn one(check: &mut Check<'_>, place: &str, given: &schema::Sink, made: Types) -> Option<SinkPlan> {
    const WORDS: [&str; 3] = ["file", "stdout", "unix"];
    let Some(word) = given.to.as_deref() else {
        check.problem(
            place,
            "\"to\" is missing",
            "say where records go: to = \"file\", \"stdout\" or \"unix\"",
        );
        return None;
    };
    if !WORDS.contains(&word) {
        check.problem(&format!("{place}.to"), format!("there is no sink {word:?}"), known_here(word, &WORDS));
        return None;
    }
    let path = given.path.as_deref().filter(|path| !path.is_empty());
    let path = match (word, path) {
        ("stdout", Some(_)) => {
            check.problem(&format!("{place}.path"), "standard output has no path", "leave it out");
            return None;
        }
        ("stdout", None) => None,
        (_, Some(path)) => Some(check.folder.join(path)),
        (_, None) => {
            check.problem(place, "\"path\" is missing", "say which file or socket it is");
            return None;
        }
    };
    let rotates = given.rotate_mb.is_some() || given.rotate_every.is_some() || given.keep.is_some();
    if rotates && word != "file" {
        check.problem(place, "only a file can be rotated", "leave out rotate_mb, rotate_every and keep");
    }
    let size = check.range(&format!("{place}.rotate_mb"), given.rotate_mb, 100, 1, 1 << 20);
    let age = given.rotate_every.map(|span| {
        range(check, &format!("{place}.rotate_every"), Some(span), MINUTE, MINUTE, 365 * 1440 * MINUTE)
    });
    let keep = check.range(&format!("{place}.keep"), given.keep, 5, 1, 1000);
    let rotation = Rotation {
        // A file is bounded unless only its age was asked for.
        size: (given.rotate_mb.is_some() || age.is_none()).then_some(u64::from(size) << 20),
        age,
        keep,
    };
    let to = match (word, path) {
        ("file", Some(path)) => To::File { path, rotation },
        ("unix", Some(path)) => To::Unix { path },
        _ => To::Stdout,
    };
    let name = given.name.clone().unwrap_or_else(|| word.to_owned());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
        let remedy = format!("use up to {LONGEST_NAME} small letters, digits, `-` or `_`");
        check.problem(&format!("{place}.name"), format!("{name:?} cannot be a label"), remedy);
    }
    let mut types = types(check, &format!("{place}.types"), given.types.as_deref(), made);
    if given.format == Format::VpcFlowLog {
        if given.types.is_some() {
            check.problem(&format!("{place}.types"), "a flow log has flows and nothing else", "leave it out");
        }
        types = Types::NONE.with(Type::Flow);
    }
    for kind in types.iter().filter(|kind| !made.has(*kind)) {
        check
            .warnings
            .push(format!("{place}: it waits for {kind} records, which events.types does not name"));
    }
    Some(SinkPlan { name, to, types, format: given.format })
}

#[cfg(test)]
mod tests;
