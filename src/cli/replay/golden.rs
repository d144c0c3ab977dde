//! The outcome of a replay as a file that can be committed, and the difference to another outcome.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::super::flows::Row;
use super::super::{Failure, show};
use super::Fate;
use crate::app::Report;

/// Most differing lines that are printed.
const MOST_LINES: usize = 40;

/// What became of the capture. Holds nothing that depends on time, machine or run.
pub fn outcome(report: &Report, fates: Option<&[Fate]>, flows: Option<&[Row]>) -> Value {
    let drops: serde_json::Map<String, Value> =
        report.drops().into_iter().map(|(label, _, n)| (label.to_owned(), n.into())).collect();
    let mut outcome = json!({
        "ledger": report.snapshot.ledger(),
        "drops": drops,
        "stages": show::stages_json(report),
    });
    if let (Some(fates), Some(object)) = (fates, outcome.as_object_mut()) {
        let lines = fates.iter().map(|f| Value::String(format!("{}: {}", f.number, f.verdict)));
        object.insert("packets".into(), lines.collect());
    }
    if let (Some(rows), Some(object)) = (flows, outcome.as_object_mut()) {
        object.insert("flows".into(), json!(rows));
        object.insert("flow_counters".into(), super::super::flows::account_json(&report.snapshot));
    }
    outcome
}

/// Writes the outcome, one value a line.
pub fn write(file: &Path, outcome: &Value) -> Result<(), Failure> {
    fs::write(file, format!("{outcome:#}\n")).map_err(|e| Failure::Other(format!("{}: {e}", file.display())))
}

/// The lines that differ from the file, or `None`.
pub fn diff(file: &Path, outcome: &Value) -> Result<Option<String>, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|e| Failure::Other(format!("golden file {}: {e}; make it with --update", file.display())))?;
    let expected: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::Other(format!("golden file {}: {e}; make it anew with --update", file.display()))
    })?;
    let mut lines = Vec::new();
    compare("", &expected, outcome, &mut lines);
    if lines.is_empty() {
        return Ok(None);
    }
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    if more > 0 {
        lines.push(format!("  ... and {more} more"));
    }
    Ok(Some(lines.join("\n")))
}

/// Walks both values and writes a line for every leaf that differs.
fn compare(path: &str, expected: &Value, found: &Value, lines: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(
                    &below,
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                let (a, b) = (a.get(i).unwrap_or(&Value::Null), b.get(i).unwrap_or(&Value::Null));
                compare(&format!("{path}[{i}]"), a, b, lines);
            }
        }
        (a, b) if a == b => {}
        (a, b) => lines.push(format!("  {path}: expected {a}, found {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_place() {
        let (a, b) = (
            json!({"drops": {"acl.deny": 3}, "packets": ["1: home"]}),
            json!({"drops": {}, "packets": ["1: home", "2: home"]}),
        );
        let mut lines = Vec::new();
        compare("", &a, &b, &mut lines);
        assert_eq!(
            lines,
            ["  drops.acl.deny: expected 3, found null", "  packets[1]: expected null, found \"2: home\""]
        );
        lines.clear();
        compare("", &a, &a, &mut lines);
        assert!(lines.is_empty());
    }
}
