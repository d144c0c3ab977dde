//! `[[stage]]`: the pipeline. The framework's keys are read here, the rest by the stage's kind.

use std::cell::RefCell;
use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::check::Check;
use super::schema::{self, STAGE_KEYS};
use super::source::origin_of;
use super::value::{self, known_here};
use super::{DEFAULT_PIPELINE, Mode, NO_PIPELINE, OnError, Problem, Settings, StagePlan, policy};
use crate::packet::ReasonTable;
use crate::stage::{MOST_STAGES, StageKind};

/// A name is a label of metrics and a column of tables.
const LONGEST_NAME: usize = 32;

/// Reads every stage, beside the tenants of these names; the reasons of those that could be read are added in order.
pub(super) fn check(
    check: &mut Check<'_>,
    tenants: Option<&[String]>,
    reasons: &mut ReasonTable,
) -> Vec<StagePlan> {
    let root = check.root;
    let list = match &root.kind {
        ValueKind::Table(table) => table.get("stage").map(|list| &list.kind),
        _ => None,
    };
    let Some(ValueKind::Array(list)) = list else { return Vec::new() };
    let mut plans = Vec::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (i, value) in list.iter().enumerate() {
        let Some((head, name)) = head(check, i, value) else { continue };
        match names.get(&name) {
            Some(other) => {
                let what = format!("{name:?} is the name of stage[{other}] already");
                let remedy = "give one of them a name of its own: name = \"...\"";
                let place = format!("stage[{i}]");
                check.problem(&place, what, remedy);
            }
            None => {
                names.insert(name.clone(), i);
            }
        }
        let Some(kind) = kind(check, i, value, &head) else { continue };
        let settings = without(value, STAGE_KEYS);
        let place = format!("stage[{i}] {name:?}");
        let summary = summary(&settings);
        let given = Settings {
            value: &settings,
            place,
            folder: check.folder,
            files: check.options.files,
            tenants,
            read: RefCell::default(),
        };
        match (kind.parse)(&given) {
            Ok(parsed) => {
                let policy = policy::of_stage(&settings, given.read.borrow().clone());
                check
                    .warnings
                    .extend(parsed.warnings().into_iter().map(|w| format!("stage[{i}] {name:?}: {w}")));
                let reasons = reasons.add(&name, kind.reasons);
                plans.push(StagePlan {
                    name,
                    kind,
                    parsed,
                    reasons,
                    pipelines: pipelines(check, i, &head),
                    mode: head.mode,
                    on_error: head.on_error,
                    on_unread: head.on_unread,
                    on_reload: head.on_reload,
                    mark: given.mark(kind.name, &words(&head)),
                    settings: summary,
                    policy,
                });
            }
            Err(problems) => check.problems.extend(problems),
        }
    }
    warn_of_gaps(check, &plans);
    plans
}

/// What the framework's keys say of what becomes of packets: a stage of which they change is another one.
fn words(head: &schema::Stage) -> String {
    let mode = if head.mode == Mode::Shadow { "shadow " } else { "" };
    let unread = if head.on_unread == OnError::Drop { "drop" } else { "pass" };
    format!("{mode}{unread}")
}

/// The pipelines that a stage is part of, each once.
fn pipelines(check: &mut Check<'_>, i: usize, head: &schema::Stage) -> Vec<String> {
    let place = format!("stage[{i}].pipelines");
    let mut names = head.pipelines.clone().unwrap_or_else(|| vec![DEFAULT_PIPELINE.to_owned()]);
    if names.is_empty() {
        check.problem(&place, "is empty: no packet would come to the stage", "name one, or leave it out");
    }
    for name in &names {
        if name == NO_PIPELINE {
            check.problem(
                &place,
                format!("{NO_PIPELINE:?} is the pipeline without stages"),
                "use another name",
            );
        } else if !is_label(name) {
            let remedy = format!("use up to {LONGEST_NAME} small letters, digits, `-` or `_`");
            check.problem(&place, format!("{name:?} cannot be a name"), remedy);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn is_label(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(plain)
}

/// A stage that protects behind one that lets packets pass it by.
fn warn_of_gaps(check: &mut Check<'_>, plans: &[StagePlan]) {
    let acts = |plan: &StagePlan| plan.mode == Mode::Enforce;
    let Some(gap) = plans.iter().position(|plan| acts(plan) && plan.parsed.passes_by()) else { return };
    let Some(gap_plan) = plans.get(gap) else { return };
    let meet =
        |one: &StagePlan, other: &StagePlan| one.pipelines.iter().any(|name| other.pipelines.contains(name));
    let behind = plans
        .iter()
        .enumerate()
        .skip(gap)
        .find(|(_, plan)| acts(plan) && meet(plan, gap_plan) && plan.parsed.denies_by_default());
    if let Some((i, plan)) = behind {
        check.warnings.push(format!(
            "stage[{gap}] {:?}: what it sends home passes stage[{i}] {:?} by, which denies what no rule allows",
            gap_plan.name, plan.name
        ));
    }
}

/// Where flows are followed, each remembers which stages have settled it, and has room for so many.
pub(super) fn fit_flows(check: &mut Check<'_>, stages: usize) {
    if stages > MOST_STAGES {
        let place = format!("stage[{MOST_STAGES}]");
        let what = format!("is one too many: a pipeline that follows flows has at most {MOST_STAGES} stages");
        check.problem(&place, what, "join stages, or set flow.tracking = false if none decides by flow");
    }
}

/// The framework's keys of a stage, and its name.
fn head(check: &mut Check<'_>, i: usize, value: &Value) -> Option<(schema::Stage, String)> {
    let place = format!("stage[{i}]");
    let ValueKind::Table(table) = &value.kind else {
        check.problem(&place, "is not a table", "write [[stage]] and below it use = \"acl\"");
        return None;
    };
    let own = table.iter().filter(|(key, _)| STAGE_KEYS.contains(&key.as_str()));
    let own = ValueKind::Table(own.map(|(key, value)| (key.clone(), value.clone())).collect());
    let own = Value::new(value.origin().map(str::to_owned).as_ref(), own);
    let head: schema::Stage = match value::read(&own, &place, &[]) {
        Ok(head) => head,
        Err(problems) => {
            check.problems.extend(problems);
            return None;
        }
    };
    let name = head.name.clone().or_else(|| head.kind.clone()).unwrap_or_default();
    if head.name.is_some() && !is_label(&name) {
        let remedy = format!("use up to {LONGEST_NAME} small letters, digits, `-` or `_`");
        check.problem(&format!("{place}.name"), format!("{name:?} cannot be a label"), remedy);
    }
    Some((head, name))
}

/// The kind that `use` names.
fn kind(check: &mut Check<'_>, i: usize, value: &Value, head: &schema::Stage) -> Option<&'static StageKind> {
    let kinds = check.options.kinds;
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let Some(name) = &head.kind else {
        let what = "\"use\" is missing";
        let remedy = format!("say which kind of stage it is: {}", names.join(", "));
        let origin = origin_of(value);
        check.problems.push(Problem { origin, place: format!("stage[{i}]"), what: what.into(), remedy });
        return None;
    };
    let found = kinds.iter().copied().find(|kind| kind.name == name);
    if found.is_none() {
        let what = format!("there is no kind of stage {name:?}");
        check.problem(&format!("stage[{i}].use"), what, known_here(name, &names));
    }
    found
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let mut value = value.clone();
    if let ValueKind::Table(table) = &mut value.kind {
        table.retain(|key, _| !keys.contains(&key.as_str()));
    }
    value
}

/// The settings as a person would like to see them in one line each; long lists as their length.
fn summary(settings: &Value) -> Vec<(String, String)> {
    let ValueKind::Table(table) = &settings.kind else { return Vec::new() };
    let mut lines: Vec<(String, String)> =
        table.iter().map(|(key, value)| (key.clone(), short(value))).collect();
    lines.sort_unstable();
    lines
}

fn short(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(list)
            if list.iter().any(|e| matches!(e.kind, ValueKind::Table(_))) || list.len() > 8 =>
        {
            format!("{} entries", list.len())
        }
        ValueKind::Array(list) => {
            let list: Vec<String> = list.iter().map(short).collect();
            format!("[{}]", list.join(", "))
        }
        ValueKind::Table(table) => {
            let mut list: Vec<String> =
                table.iter().map(|(key, value)| format!("{key} = {}", short(value))).collect();
            list.sort_unstable();
            format!("{{ {} }}", list.join(", "))
        }
        ValueKind::Nil => String::new(),
        other => other.to_string(),
    }
}
