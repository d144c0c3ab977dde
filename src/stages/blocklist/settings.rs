//! The stage's table and its lists, read and checked.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::entry::{Entries, MOST_LISTS};
use super::text::{self, Column, Counts, Format, MOST_ENTRIES};
use super::{Action, AllLists, Blocklist, End, List};
use crate::config::{self, Problem};
use crate::stage::ParseResult;
use crate::stages::acl::words;

/// Longest name of a list: it is part of labels.
const LONGEST_NAME: usize = 64;

/// The keys of the stage's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    stateful: bool,
    list: Vec<ListTable>,
}

impl Default for Table {
    fn default() -> Self {
        Table { stateful: true, list: Vec::new() }
    }
}

/// The keys of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListTable {
    name: String,
    action: Action,
    end: End,
    entries: Vec<String>,
    #[serde(deserialize_with = "words::one_or_many")]
    file: Vec<String>,
    format: FormatWord,
    #[serde(deserialize_with = "words::text")]
    column: String,
    separator: Option<String>,
    bad_lines: BadLines,
    alert: Option<bool>,
    id: Option<u32>,
    severity: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormatWord {
    #[default]
    Text,
    Csv,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BadLines {
    #[default]
    Refuse,
    Skip,
}

pub(super) fn parse(settings: &config::Settings<'_>) -> ParseResult {
    let Table { stateful, list } = settings.read()?;
    let mut problems = Vec::new();
    if list.len() > MOST_LISTS {
        let what = format!("{} lists are more than the {MOST_LISTS} that one stage takes", list.len());
        return Err(vec![settings.problem("list", what, "join lists, or use a second stage")]);
    }
    let (mut entries, mut lists, mut warnings) = (Entries::default(), Vec::<List>::new(), Vec::new());
    for (number, table) in list.iter().enumerate() {
        let name = table.name.trim();
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(|c: char| c.is_control()) {
            let what = format!("a list needs a name of 1 to {LONGEST_NAME} characters");
            problems.push(settings.problem(&format!("list[{number}].name"), what, "name = \"scanners\""));
        }
        if lists.iter().any(|other| other.name == name) {
            let what = format!("{name:?} is the name of another list");
            problems.push(settings.problem(&format!("list[{number}].name"), what, "give it another"));
        }
        let before = entries.len();
        let skipped = fill(settings, number, table, &mut entries, &mut problems);
        let size = entries.len() - before;
        if size == 0 {
            warnings.push(format!("the list {name:?} has no entries"));
        }
        if let Some((file, Counts { skipped, first_skipped, .. })) = skipped {
            warnings
                .push(format!("{file}: {skipped} lines cannot be read, the first is line {first_skipped}"));
        }
        let id = table.id.unwrap_or(number as u32 + 1);
        lists.push(List {
            name: name.to_owned(),
            action: table.action,
            end: table.end,
            alert: table.alert.unwrap_or(table.action != Action::Allow),
            id,
            severity: table.severity.unwrap_or(3),
            size,
        });
        for (key, wrong) in [("id", table.id == Some(0)), ("severity", table.severity == Some(0))] {
            if wrong {
                let place = format!("list[{number}].{key}");
                problems.push(settings.problem(&place, "0 is none", "they begin at 1"));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if lists.is_empty() {
        warnings.push("there are no lists: every packet passes".into());
    }
    entries.sort();
    for (v6, everything) in [
        (false, entries.v4.first().filter(|entry| entry.len == 0).map(|entry| entry.lists)),
        (true, entries.v6.first().filter(|entry| entry.len == 0).map(|entry| entry.lists)),
    ] {
        let names = lists.iter().enumerate();
        for (_, list) in names.filter(|(n, _)| everything.unwrap_or(0) >> n & 1 != 0) {
            let family = if v6 { "IPv6" } else { "IPv4" };
            warnings.push(format!("the list {:?} has every {family} address", list.name));
        }
    }
    let lists = Arc::new(AllLists::new(lists));
    Ok(Box::new(Blocklist { entries: Arc::new(entries), lists, stateful, warnings }))
}

/// Reads the entries of one list. Returns what was passed over in its first file that has something wrong in it.
fn fill(
    settings: &config::Settings<'_>,
    number: usize,
    table: &ListTable,
    entries: &mut Entries,
    problems: &mut Vec<Problem>,
) -> Option<(String, Counts)> {
    let place = |key: &str| format!("list[{number}].{key}");
    let mut most = MOST_ENTRIES.saturating_sub(entries.len());
    for (n, entry) in table.entries.iter().enumerate() {
        let read =
            text::read("", entry.as_bytes(), &Format::Text, false, most, |net| entries.add(net, number));
        match read {
            Ok(counts) => most -= counts.entries,
            Err(wrong) => problems.extend(wrong.into_iter().map(|Problem { what, remedy, .. }| {
                settings.problem(&format!("{}[{n}]", place("entries")), what, remedy)
            })),
        }
    }
    let format = match format(table) {
        Ok(format) => format,
        Err((key, what, remedy)) => {
            problems.push(settings.problem(&place(key), what, remedy));
            return None;
        }
    };
    let mut passed_over = None;
    for file in &table.file {
        let path = settings.path(file);
        let name = path.display().to_string();
        let text = match settings.read_file(&path, text::MAX_BYTES as u64 + 1) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot read {name}: {error}");
                let remedy = "paths start at the folder of the configuration file";
                problems.push(settings.problem(&place("file"), what, remedy));
                continue;
            }
        };
        let skip = table.bad_lines == BadLines::Skip;
        match text::read(&name, &text, &format, skip, most, |net: IpNet| entries.add(net, number)) {
            Ok(counts) => {
                most -= counts.entries;
                if counts.skipped > 0 && passed_over.is_none() {
                    passed_over = Some((name, counts));
                }
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    passed_over
}

/// How the files of a list are read; or which key is wrong, what, and what to do.
fn format(table: &ListTable) -> Result<Format, (&'static str, String, &'static str)> {
    let column = table.column.trim();
    let separator = match table.separator.as_deref() {
        None => b',',
        Some(_) if table.format != FormatWord::Csv => {
            let what = "only csv has separators".to_owned();
            return Err(("separator", what, "leave it out, or set format = \"csv\""));
        }
        Some(text) => match text.as_bytes() {
            [one] if one.is_ascii() && !matches!(one, b'"' | b'\r' | b'\n') => *one,
            _ => {
                let what = format!("{text:?} is not one character that can stand between values");
                return Err(("separator", what, "write \",\", \";\" or \"\\t\""));
            }
        },
    };
    match (table.format, column) {
        (FormatWord::Text, "") => Ok(Format::Text),
        (FormatWord::Text, _) => {
            Err(("column", "text has no columns".into(), "set format to csv or json, or leave column out"))
        }
        (FormatWord::Csv, "") => {
            Err(("column", "is missing".into(), "name the column of the entries, or write its number from 1"))
        }
        (FormatWord::Json, "") => Err(("column", "is missing".into(), "name the key that has the entry")),
        (FormatWord::Json, key) => Ok(Format::Json(key.to_owned())),
        (FormatWord::Csv, column) => {
            let column = match column.parse::<usize>() {
                Ok(n @ 1..=1000) => Column::Number(n - 1),
                Ok(n) => {
                    return Err(("column", format!("{n} is no column"), "they are numbered from 1"));
                }
                Err(_) => Column::Named(column.to_owned()),
            };
            Ok(Format::Csv { column, separator })
        }
    }
}
