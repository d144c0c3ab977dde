//! Comma-separated values beside a configuration, a line at a time: the first line that is neither blank nor a `#` comment names
//! the columns, in any order; a column that is missing is blank on every line. A value with commas stands in double quotes.
//!
//! The text may come from anywhere: reading it never panics, every mistake is reported with its line, and the number of
//! lines and messages is bounded.

use super::value::{known_here, quoted};
use super::{Origin, Problem};

/// Mistakes after which reading gives up.
pub(super) const MOST_PROBLEMS: usize = 100;

/// A mistake in a line: the column, what is wrong, what to do.
pub(super) type Mistake = (&'static str, String, String);

/// A kind of file.
pub(super) struct Format {
    /// The columns, in the order in which a line is handed on.
    pub columns: &'static [&'static str],
    /// What the first line must have.
    pub needed: &'static str,
    /// A first line to start from.
    pub example: &'static str,
    /// Lines that one file may have.
    pub most: usize,
}

/// Hands on the values of every line, with its number; returns all mistakes, those of `line` among them.
pub(super) fn read(
    format: &Format,
    file: &str,
    text: &str,
    mut line: impl FnMut(u32, &[&str]) -> Vec<Mistake>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut columns: Option<Vec<Option<usize>>> = None;
    let mut lines = 0;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, raw) in (1..).zip(text.lines()) {
        let mut wrong = |column: &str, what: String, remedy: String| {
            let origin = Origin::File { file: file.to_owned(), line: number, column: 0 };
            problems.push(Problem { origin, place: column.to_owned(), what, remedy });
        };
        let raw = raw.trim();
        if raw.is_empty() || raw.starts_with('#') {
            continue;
        }
        if lines > format.most {
            wrong("", format!("the file has more than {} lines", format.most), "split it".into());
            break;
        }
        lines += 1;
        let Some(values) = split(raw) else {
            wrong("", "a quoted value does not end on its line".into(), "close the double quote".into());
            continue;
        };
        match &columns {
            None => {
                let found = header(format, &values, &mut wrong);
                let needed = format.columns.iter().position(|column| *column == format.needed);
                let readable = found.contains(&needed);
                columns = Some(found);
                if !readable {
                    break;
                }
            }
            Some(columns) if values.len() > columns.len() => {
                let what = format!("the line has {} values for {} columns", values.len(), columns.len());
                wrong("", what, "put values with commas in double quotes".into());
            }
            Some(columns) => {
                let value = |column: usize| {
                    let place = columns.iter().position(|c| *c == Some(column));
                    place.and_then(|n| values.get(n)).unwrap_or_default()
                };
                let values: Vec<&str> = (0..format.columns.len()).map(value).collect();
                for (column, what, remedy) in line(number, &values) {
                    wrong(column, what, remedy);
                }
            }
        }
        if problems.len() >= MOST_PROBLEMS {
            problems.truncate(MOST_PROBLEMS);
            let origin = Origin::File { file: file.to_owned(), line: number, column: 0 };
            let (what, remedy) = ("too many mistakes to go on".into(), "mend those above first".into());
            problems.push(Problem { origin, place: String::new(), what, remedy });
            break;
        }
    }
    if columns.is_none() && problems.is_empty() {
        let origin = Origin::File { file: file.to_owned(), line: 1, column: 0 };
        let remedy = format!("start it with a line such as: {}", format.example);
        problems.push(Problem {
            origin,
            place: String::new(),
            what: "the file names no columns".into(),
            remedy,
        });
    }
    problems
}

/// What each value of a line is: the number of its column, or nothing known.
fn header(
    format: &Format,
    names: &::csv::StringRecord,
    wrong: &mut impl FnMut(&str, String, String),
) -> Vec<Option<usize>> {
    let mut columns = Vec::with_capacity(names.len());
    for name in names.iter().take(MOST_PROBLEMS) {
        let lower = name.to_ascii_lowercase();
        let found = format.columns.iter().position(|column| *column == lower);
        match found {
            Some(n) if columns.contains(&Some(n)) => {
                wrong(&lower, "the column is named twice".into(), "keep one of them".into());
                columns.push(None);
                continue;
            }
            Some(_) => {}
            None => {
                wrong("", format!("{} is not a column", quoted(name)), known_here(&lower, format.columns))
            }
        }
        columns.push(found);
    }
    let needed = format.columns.iter().position(|column| *column == format.needed);
    if columns.iter().all(|column| column.is_some() && *column != needed) {
        wrong(format.needed, "the column is missing".into(), "add it: every line needs one".into());
    }
    columns
}

/// The values of one line; `None` if a quote stays open.
fn split(line: &str) -> Option<::csv::StringRecord> {
    if !line.contains('"') {
        return Some(line.split(',').map(str::trim).collect()); // what a reader would find, without making one
    }
    if line.matches('"').count() % 2 == 1 {
        return None;
    }
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(::csv::Trim::All)
        .buffer_capacity(line.len())
        .from_reader(line.as_bytes());
    let mut values = ::csv::StringRecord::new();
    reader.read_record(&mut values).ok().filter(|&read| read).map(|_| values)
}
