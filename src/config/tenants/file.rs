//! `[tenants] file`: a line for each endpoint, many lines for a tenant.
//!
//! ```csv
//! name,endpoint,flows,guaranteed,new_flows_per_s,pipeline
//! payments,vpce-0123456789abcdef0,30%,10%,50000,strict
//! payments,vpce-0123456789abcdef1
//! ```
//!
//! Limits and the pipeline stand on any of a tenant's lines; where they stand on several, they say the same.

use std::collections::HashMap;

use super::super::check::Check;
use super::super::csv::{self, Format, Mistake};
use super::super::value::quoted;
use super::claim::{Claim, Place, endpoint, share};
use super::{MOST_ENDPOINTS, MOST_TENANTS, Origin, Problem};

const FORMAT: Format = Format {
    columns: &["name", "endpoint", "flows", "guaranteed", "new_flows_per_s", "pipeline"],
    needed: "name",
    example: "name,endpoint,flows,guaranteed,new_flows_per_s,pipeline",
    most: MOST_ENDPOINTS + MOST_TENANTS,
};

/// The tenants of a file, in the order in which they are first named.
pub(super) fn read(check: &mut Check<'_>, name: &str) -> Vec<Claim> {
    let path = check.folder.join(name);
    let shown = path.display().to_string();
    let text = match check.options.files {
        true => super::super::read_file(&path).map_err(|problem| problem.what),
        false => Err("files are not read here".into()),
    };
    match text {
        Ok(text) => {
            check.tenants_digest = Some(super::super::policy::digest(text.as_bytes()));
            let (claims, problems) = parse(&shown, &text);
            check.problems.extend(problems);
            claims
        }
        Err(what) => {
            let remedy = "paths start at the folder of the configuration file";
            check.problem("tenants.file", format!("{shown}: {what}"), remedy);
            Vec::new()
        }
    }
}

/// As [`read`], of a text.
pub(super) fn parse(file: &str, text: &str) -> (Vec<Claim>, Vec<Problem>) {
    let mut claims: Vec<Claim> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let problems = csv::read(&FORMAT, file, text, |line, values| {
        let [name, id, flows, guaranteed, rate, pipeline] = *values else { return Vec::new() };
        let at = |column: &str| Place {
            origin: Origin::File { file: file.to_owned(), line, column: 0 },
            path: column.to_owned(),
        };
        if name.is_empty() {
            return vec![("name", "is blank".into(), "say whose the endpoint is".into())];
        }
        let number = *numbers.entry(name.to_owned()).or_insert_with(|| {
            claims.push(Claim::new(name, at("name")));
            claims.len() - 1
        });
        let Some(claim) = claims.get_mut(number) else { return Vec::new() };
        let mut wrong: Vec<Mistake> = Vec::new();
        if !id.is_empty() {
            match endpoint(id) {
                Ok(id) => claim.endpoints.push((id, at("endpoint"))),
                Err((what, remedy)) => wrong.push(("endpoint", what, remedy)),
            }
        }
        for (column, word, into) in
            [("flows", flows, &mut claim.flows), ("guaranteed", guaranteed, &mut claim.guaranteed)]
        {
            if word.is_empty() {
                continue;
            }
            match (share(word), &*into) {
                (Ok(share), None) => *into = Some((share, at(column))),
                (Ok(share), Some((before, place))) if share != *before => {
                    wrong.push((
                        column,
                        format!("{} is not what {} says", quoted(word), place.origin),
                        "say it once".into(),
                    ));
                }
                (Ok(_), Some(_)) => {}
                (Err((what, remedy)), _) => wrong.push((column, what, remedy)),
            }
        }
        if !rate.is_empty() {
            match rate.parse().ok().filter(|rate| *rate > 0) {
                None => {
                    let what = format!("{} is not between 1 and {}", quoted(rate), u32::MAX);
                    wrong.push(("new_flows_per_s", what, "write a number, or nothing".into()));
                }
                Some(rate) if claim.new_flows_per_s.is_some_and(|before| before != rate) => {
                    let what = format!("{rate} is not what a line before says of {name:?}");
                    wrong.push(("new_flows_per_s", what, "say it once".into()));
                }
                Some(rate) => claim.new_flows_per_s = Some(rate),
            }
        }
        match &claim.pipeline {
            _ if pipeline.is_empty() => {}
            None => claim.pipeline = Some((pipeline.to_owned(), at("pipeline"))),
            Some((before, place)) if before != pipeline => {
                let what = format!("{} is not what {} says", quoted(pipeline), place.origin);
                wrong.push(("pipeline", what, "say it once".into()));
            }
            Some(_) => {}
        }
        wrong
    });
    (claims, problems)
}
