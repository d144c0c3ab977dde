//! The report as JUnit XML, which continuous integration reads. What makes the exit code 1 is a failure there; everything else that did
//! not pass is skipped, with its reason.

use std::fmt::Write as _;

use super::{Found, Report, Verdict};

/// The document.
pub fn junit(report: &Report, strict: bool) -> String {
    let count = |of: fn(&Found, bool) -> bool| report.found.iter().filter(|found| of(found, strict)).count();
    let failures = count(Report::fails);
    let skipped = count(skips);
    let name = escaped(&format!("sluicegate conform {}", report.target));
    let (tests, seconds) = (report.found.len(), report.seconds);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let _ = writeln!(
        text,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">"
    );
    for found in &report.found {
        let group = found.check.id.split('.').next().unwrap_or_default();
        let _ = write!(
            text,
            "    <testcase classname=\"conform.{group}\" name=\"{}\" time=\"{:.3}\">",
            escaped(found.check.id),
            found.seconds
        );
        let (level, why) = (found.level.word(), escaped(&found.text));
        let demand = escaped(&format!("{} ({})", found.check.demand, found.check.source));
        if Report::fails(found, strict) {
            let _ = write!(text, "<failure type=\"{level}\" message=\"{why}\">{demand}</failure>");
        } else if skips(found, strict) {
            let word = if found.verdict == Verdict::NotJudged { "not judged" } else { "failed" };
            let _ = write!(text, "<skipped message=\"{level}, {word}: {why}\"/>");
        } else if !why.is_empty() {
            let _ = write!(text, "<system-out>{why}</system-out>");
        }
        text += "</testcase>\n";
    }
    text + "  </testsuite>\n</testsuites>\n"
}

fn skips(found: &Found, strict: bool) -> bool {
    found.verdict != Verdict::Passed && !Report::fails(found, strict)
}

/// Text for XML: what has a meaning there is written otherwise, and what may not be there at all (XML 1.0 section 2.2) is a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\u{0}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
