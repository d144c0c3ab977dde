//! Rule files: comma-separated values, one rule a line.
//!
//! The first line that is neither blank nor a `#` comment names the columns, in any order; a column that is missing is
//! "any" for all rules. A value with commas stands in double quotes. Every mistake is reported, with its line.
//!
//! The text may come from anywhere: reading it never panics, and its size and the number of messages are bounded.

use std::sync::Arc;

use super::groups::Groups;
#[cfg(any(test, fuzzing))]
use super::rule::MAX_PAIRS;
use super::rule::{COLUMNS, Mistake, Place, Rule, Words, quoted};
use super::set::MAX_RULES;
use crate::config::{Origin, Problem};

/// Bytes of the largest rule file that is read.
pub const MAX_BYTES: usize = 16 << 20;

/// Mistakes after which reading gives up.
pub const MAX_PROBLEMS: usize = 100;

/// Reads the rules of a file; `file` is its name in messages and rule places.
pub fn parse(file: &str, text: &[u8]) -> Result<Vec<Rule>, Vec<Problem>> {
    parse_with(file, text, &Groups::default())
}

/// The same for rules that speak of groups.
pub fn parse_with(file: &str, text: &[u8], groups: &Groups) -> Result<Vec<Rule>, Vec<Problem>> {
    let mut reader =
        Reader { file: file.into(), groups, columns: None, rules: Vec::new(), problems: Vec::new() };
    if text.len() > MAX_BYTES {
        reader.problem(1, "", format!("the file has more than {MAX_BYTES} bytes"), "split it");
        return Err(reader.problems);
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        if reader.problems.len() >= MAX_PROBLEMS {
            reader.problem(number, "", "too many mistakes to go on".into(), "mend those above first");
            break;
        }
        if reader.rules.len() > MAX_RULES {
            reader.problem(number, "", format!("more than {MAX_RULES} rules"), "join rules or drop some");
            break;
        }
        reader.line(number, line.trim_ascii());
    }
    if reader.columns.is_none() && reader.problems.is_empty() {
        reader.problem(
            1,
            "",
            "the file names no columns".into(),
            "start it with a line such as: action,protocol,source,destination,destination_port",
        );
    }
    if reader.problems.is_empty() { Ok(reader.rules) } else { Err(reader.problems) }
}

struct Reader<'a> {
    file: Arc<str>,
    groups: &'a Groups,
    /// What each value of a line is: an index into [`COLUMNS`].
    columns: Option<Vec<usize>>,
    rules: Vec<Rule>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn line(&mut self, number: u32, line: &[u8]) {
        if line.is_empty() || line.starts_with(b"#") {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return self.problem(number, "", "the line is not UTF-8 text".into(), "save the file as UTF-8");
        };
        if line.matches('"').count() % 2 == 1 {
            return self.problem(
                number,
                "",
                "a quoted value does not end on its line".into(),
                "close the double quote",
            );
        }
        let Some(values) = split(line) else {
            return self.problem(
                number,
                "",
                format!("{} is not comma-separated", quoted(line)),
                "write one rule a line",
            );
        };
        match self.columns.take() {
            None => self.columns = Some(self.header(number, &values)),
            Some(columns) => {
                self.rule(number, &columns, &values);
                self.columns = Some(columns);
            }
        }
    }

    fn header(&mut self, number: u32, names: &::csv::StringRecord) -> Vec<usize> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            if self.problems.len() >= MAX_PROBLEMS {
                break; // `parse` says so, and reads no further
            }
            let lower = name.to_ascii_lowercase();
            match COLUMNS.iter().position(|column| *column == lower) {
                Some(n) if columns.contains(&n) => {
                    self.problem(number, name, "the column is named twice".into(), "keep one of them");
                    columns.push(usize::MAX);
                }
                Some(n) => columns.push(n),
                None => {
                    let nearest = COLUMNS.iter().min_by_key(|column| strsim::levenshtein(column, &lower));
                    let near = nearest.filter(|column| strsim::levenshtein(column, &lower) <= 3);
                    let remedy = match near {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("the columns are {}", COLUMNS.join(", ")),
                    };
                    self.problem(number, "", format!("{} is not a column", quoted(name)), &remedy);
                    // Keeps the later columns in their places.
                    columns.push(usize::MAX);
                }
            }
        }
        if !columns.contains(&0) && !columns.contains(&usize::MAX) {
            self.problem(
                number,
                "action",
                "the column is missing".into(),
                "add it: every rule needs an action",
            );
        }
        columns
    }

    fn rule(&mut self, number: u32, columns: &[usize], values: &::csv::StringRecord) {
        if values.len() > columns.len() {
            let what = format!("the line has {} values for {} columns", values.len(), columns.len());
            return self.problem(number, "", what, "put values with commas in double quotes");
        }
        let value = |column: usize| {
            columns.iter().position(|&c| c == column).and_then(|n| values.get(n)).unwrap_or_default()
        };
        let [
            action,
            protocol,
            source,
            destination,
            source_port,
            destination_port,
            icmp_type,
            comment,
            id,
            severity,
            export,
            tenant,
        ] = std::array::from_fn(value);
        let words = Words {
            action,
            protocol,
            source,
            destination,
            source_port,
            destination_port,
            icmp_type,
            comment,
            id,
            severity,
            export,
            tenant,
        };
        match Rule::parse_all(&words, Place::Line(self.file.clone(), number), self.groups) {
            Ok(rules) => self.rules.extend(rules),
            Err(mistakes) => {
                for Mistake { column, what, remedy } in mistakes {
                    // A value that cannot be read under a misnamed column is the header's mistake.
                    if columns.contains(&usize::MAX) && value_is_blank(column, columns, values) {
                        continue;
                    }
                    self.problem(number, column, what, &remedy);
                }
            }
        }
    }

    fn problem(&mut self, line: u32, column: &str, what: String, remedy: &str) {
        let origin = Origin::File { file: self.file.to_string(), line, column: 0 };
        self.problems.push(Problem { origin, place: column.to_owned(), what, remedy: remedy.to_owned() });
    }
}

fn value_is_blank(column: &str, columns: &[usize], values: &::csv::StringRecord) -> bool {
    let place = columns.iter().position(|&c| COLUMNS.get(c) == Some(&column));
    place.and_then(|n| values.get(n)).unwrap_or_default().is_empty()
}

/// The values of one line.
fn split(line: &str) -> Option<::csv::StringRecord> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(::csv::Trim::All)
        .buffer_capacity(line.len())
        .from_reader(line.as_bytes());
    let mut values = ::csv::StringRecord::new();
    reader.read_record(&mut values).ok().filter(|&read| read).map(|_| values)
}

/// What the format promises for any bytes, for property tests and the fuzz target `acl_csv`.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    match parse("any.csv", bytes) {
        Ok(rules) => {
            assert!(rules.len() <= MAX_RULES + MAX_PAIRS);
            for rule in &rules {
                assert!((1..=super::rule::MAX_ENTRIES).contains(&rule.entries()), "{rule:?}");
                assert!(rule.covers(rule) && rule.overlaps(rule), "{rule:?}");
                assert!(rule.label().starts_with("any.csv:"));
            }
            let found = super::analysis::search(&rules);
            assert!(
                found.list.iter().all(|f| f.by < f.rule && rules[f.by].covers(&rules[f.rule])),
                "{found:?}"
            );
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= MAX_PROBLEMS + COLUMNS.len() + 1);
            let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
            for Problem { origin, what, remedy, .. } in problems {
                assert!(!what.is_empty() && !remedy.is_empty() && what.len() < 1000, "{what}; {remedy}");
                assert!(
                    matches!(origin, Origin::File { line, .. } if (1..=lines).contains(&(line as usize)))
                );
            }
        }
    }
}
