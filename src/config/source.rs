//! Where values come from: the file, then the environment, then `--set`, each laid over what came before.
//!
//! The file is parsed by `toml` with spans, so that every value carries `file:line:column`; `config` lays the
//! assignments of the environment and the command line over it. Each assignment is checked against the tree first: what
//! `config` would resolve by throwing a value away (an index far past the end, a name under a list) is a [`Problem`].
//!
//! Promises: a value's origin can always be told ([`origin_of`]); all mistakes of all sources are reported, not
//! only the first; nothing here knows which keys exist.

use std::ffi::OsString;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Path;
use super::{Origin, Problem};

/// Variables that set values start with this and have `__` between the parts of the path.
const PREFIX: &str = "SLUICEGATE_";
const SEPARATOR: &str = "__";
/// Steps of the longest path that is followed; settings have far fewer, and trees are walked by recursion.
const DEEPEST: usize = 32;

/// Parses a file. On syntax errors the part that could be read is returned too.
pub(super) fn parse(file: &str, text: &str) -> (Value, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let text = Text { file, text, lines: line_starts(text) };
    let problems = in_reading_order(errors.iter().map(|error| text.syntax(error)).collect());
    (text.table(table.get_ref(), &format!("{file}:0:0")), problems)
}

/// One value given outside the file.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    /// `port[0].mtu`.
    path: Vec<Step>,
    text: String,
    origin: Origin,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Assignment {
    /// `a.b[0].c=value`, as given to `--set`.
    pub(super) fn from_set(set: &str) -> Result<Self, Problem> {
        let origin = Origin::CommandLine(set.to_owned());
        let remedy = "write it as --set tunnel.profile=tencent or --set port[0].mtu=9001";
        let Some((path, text)) = set.split_once('=') else {
            return Err(problem(origin, "", "has no `=`", remedy));
        };
        match parse_path(path.trim()).filter(|path| path.len() <= DEEPEST) {
            Some(path) => Ok(Assignment { path, text: text.trim().to_owned(), origin }),
            None => {
                Err(problem(origin, "", format!("`{}` is not the path of a setting", path.trim()), remedy))
            }
        }
    }

    /// `SLUICEGATE_A__0__B=value`; `None` for a variable that is not meant as a setting: without the prefix, or without
    /// `__` in the rest (`SLUICEGATE_CORPUS` and the like).
    pub(super) fn from_environment(variable: OsString, text: OsString) -> Option<Result<Self, Problem>> {
        let variable = variable.into_string().ok()?;
        let rest = variable.strip_prefix(PREFIX)?;
        if !rest.contains(SEPARATOR) {
            return None;
        }
        let steps = rest.split(SEPARATOR).map(|part| match part.parse() {
            Ok(index) => Some(Step::Index(index)),
            Err(_) => key(&part.to_ascii_lowercase()),
        });
        let path: Option<Vec<Step>> = steps.collect();
        let origin = Origin::Environment(variable);
        let path = match path {
            Some(path) if matches!(path.first(), Some(Step::Key(_))) && path.len() <= DEEPEST => path,
            _ => {
                let remedy = "write it as SLUICEGATE_TUNNEL__PROFILE or SLUICEGATE_PORT__0__MTU";
                return Some(Err(problem(origin, "", "is not the path of a setting", remedy)));
            }
        };
        Some(match text.into_string() {
            Ok(text) => Ok(Assignment { path, text: text.trim().to_owned(), origin }),
            Err(_) => Err(problem(origin, "", "the value is not UTF-8", "")),
        })
    }

    /// Lays the value over the tree.
    pub(super) fn apply(&self, tree: &mut Value) -> Result<(), Problem> {
        self.fits(tree)?;
        let failed = |e: config::ConfigError| problem(self.origin.clone(), "", e.to_string(), "");
        config::Source::collect_to(self, tree).map_err(failed)
    }

    /// Walks the tree along the path: the value may be new, but nothing on the way may be of another shape.
    fn fits(&self, tree: &Value) -> Result<(), Problem> {
        let mut at = Some(tree);
        let mut place = String::new();
        for (done, step) in self.path.iter().enumerate() {
            let refused =
                |what: String, remedy: String| Err(problem(self.origin.clone(), &place, what, remedy));
            match (step, at.map(|v| &v.kind)) {
                (Step::Key(name), Some(ValueKind::Array(_))) => {
                    let variable: Vec<String> = self.path.iter().map(Step::variable).collect();
                    let (before, after) = variable.split_at(done);
                    let variable = format!("{}__0__{}", before.join(SEPARATOR), after.join(SEPARATOR));
                    let remedy =
                        format!("say which one: {place}[0].{name} (in the environment {PREFIX}{variable})");
                    return refused("is a list".into(), remedy);
                }
                (Step::Key(_), Some(ValueKind::Table(_) | ValueKind::Nil) | None) => {}
                (Step::Key(name), Some(_)) => {
                    return refused(format!("is a single value and has no `{name}`"), String::new());
                }
                (Step::Index(i), Some(ValueKind::Array(list))) if *i > list.len() => {
                    return refused(
                        format!("[{i}] is past the end of the list: it has {}", list.len()),
                        String::new(),
                    );
                }
                (Step::Index(i), Some(ValueKind::Nil) | None) if *i > 0 => {
                    return refused(format!("[{i}] is past the end of the list: it is empty"), String::new());
                }
                (Step::Index(_), Some(ValueKind::Array(_) | ValueKind::Nil) | None) => {}
                (Step::Index(i), Some(_)) => {
                    return refused(format!("is not a list and has no [{i}]"), String::new());
                }
            }
            at = match (step, at.map(|v| &v.kind)) {
                (Step::Key(name), Some(ValueKind::Table(table))) => table.get(name),
                (Step::Index(i), Some(ValueKind::Array(list))) => list.get(*i),
                _ => None,
            };
            step.push_to(&mut place);
        }
        Ok(())
    }

    /// The text as a value. Lists and tables are read as TOML; anything else stays text with this origin, and the reader
    /// takes it for what the setting wants: `1.2` is a version where a string is wanted and a number where a number is.
    fn value(&self) -> Value {
        let origin = self.origin.to_string();
        match DeValue::parse(&self.text).ok().map(Spanned::into_inner) {
            Some(value @ (DeValue::Array(_) | DeValue::Table(_) | DeValue::String(_))) => {
                plain(&value, &origin)
            }
            _ => Value::new(Some(&origin), self.text.clone()),
        }
    }
}

impl config::Source for Assignment {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut path = String::new();
        self.path.iter().for_each(|step| step.push_to(&mut path));
        Ok(Map::from_iter([(path, self.value())]))
    }
}

/// Reads a scalar that came from outside the file as TOML, where it is TOML.
pub(super) fn reread(value: &Value) -> Option<Value> {
    let ValueKind::String(text) = &value.kind else { return None };
    let origin = value.origin()?;
    if !matches!(decode(origin), Origin::Environment(_) | Origin::CommandLine(_)) {
        return None;
    }
    let read = DeValue::parse(text).ok()?.into_inner();
    (!matches!(read, DeValue::String(_) | DeValue::Datetime(_))).then(|| plain(&read, &origin.to_owned()))
}

/// Where a value came from. A table that `config` made on the way to a value has no origin: its first value's counts.
pub(super) fn origin_of(value: &Value) -> Origin {
    if let Some(origin) = value.origin() {
        return decode(origin);
    }
    let inner: Vec<Origin> = match &value.kind {
        ValueKind::Table(table) => table.values().map(origin_of).collect(),
        ValueKind::Array(list) => list.iter().map(origin_of).collect(),
        _ => Vec::new(),
    };
    inner.into_iter().min_by_key(order).unwrap_or(Origin::Default)
}

/// Paths of the values that did not come from the file, and where they came from.
pub(super) fn overrides(root: &Value) -> Vec<(String, String)> {
    fn walk(value: &Value, path: &Path<'_>, found: &mut Vec<(String, String)>) {
        if let origin @ (Origin::Environment(_) | Origin::CommandLine(_)) = own_origin(value) {
            found.push((path.to_string(), origin.to_string()));
            return;
        }
        match &value.kind {
            ValueKind::Table(table) => table.iter().for_each(|(k, v)| walk(v, &Path::Key(path, k), found)),
            ValueKind::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| walk(v, &Path::Index(path, i), found))
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(root, &Path::Root(""), &mut found);
    found.sort_unstable();
    found
}

fn own_origin(value: &Value) -> Origin {
    value.origin().map_or(Origin::Default, decode)
}

/// Sorts problems by origin, and drops what was said twice.
pub(super) fn in_reading_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_cached_key(|problem| order(&problem.origin));
    problems.dedup();
    problems
}

/// Sorts origins as a person reads: the file from top to bottom, then the environment, then the command line.
fn order(origin: &Origin) -> (u8, u32, u32, String) {
    match origin {
        Origin::File { line, column, .. } => (0, *line, *column, String::new()),
        Origin::Environment(text) => (1, 0, 0, text.clone()),
        Origin::CommandLine(text) => (2, 0, 0, text.clone()),
        Origin::Default => (3, 0, 0, String::new()),
    }
}

/// The inverse of [`Origin`]'s `Display`, which is what `config::Value` can carry.
fn decode(text: &str) -> Origin {
    if let Some(variable) = text.strip_prefix("environment ") {
        return Origin::Environment(variable.to_owned());
    }
    if let Some(set) = text.strip_prefix("--set ") {
        return Origin::CommandLine(set.to_owned());
    }
    let parts = text.rsplit_once(':').and_then(|(rest, column)| {
        let (file, line) = rest.rsplit_once(':')?;
        Some(Origin::File { file: file.to_owned(), line: line.parse().ok()?, column: column.parse().ok()? })
    });
    parts.unwrap_or(Origin::Default)
}

impl Step {
    /// This step in the name of a variable.
    fn variable(&self) -> String {
        match self {
            Step::Key(name) => name.to_uppercase(),
            Step::Index(i) => i.to_string(),
        }
    }

    fn push_to(&self, path: &mut String) {
        match self {
            Step::Key(name) => Path::push_key(path, name),
            Step::Index(i) => Path::push_index(path, *i),
        }
    }
}

fn parse_path(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        steps.push(key(name)?);
        while let Some(rest) = indices.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            steps.push(Step::Index(index.trim().parse().ok()?));
            indices = rest;
        }
        if !indices.is_empty() {
            return None;
        }
    }
    Some(steps)
}

fn key(name: &str) -> Option<Step> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (!name.is_empty() && name.bytes().all(known)).then(|| Step::Key(name.to_owned()))
}

fn problem(origin: Origin, place: &str, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { origin, place: place.to_owned(), what: what.into(), remedy: remedy.into() }
}

/// A value all of whose parts have the same origin.
fn plain(value: &DeValue<'_>, origin: &String) -> Value {
    let kind = match value {
        DeValue::Array(list) => {
            ValueKind::Array(list.iter().map(|element| plain(element.get_ref(), origin)).collect())
        }
        DeValue::Table(table) => {
            let entries = table.iter().map(|(k, v)| (k.get_ref().to_string(), plain(v.get_ref(), origin)));
            ValueKind::Table(entries.collect())
        }
        other => scalar(other),
    };
    Value::new(Some(origin), kind)
}

fn scalar(value: &DeValue<'_>) -> ValueKind {
    match value {
        DeValue::Boolean(b) => ValueKind::Boolean(*b),
        DeValue::Float(f) => f.as_str().parse().map_or_else(|_| f.to_string().into(), ValueKind::Float),
        DeValue::Integer(i) => match i128::from_str_radix(i.as_str(), i.radix()) {
            Ok(n) => i64::try_from(n).map_or(ValueKind::I128(n), ValueKind::I64),
            Err(_) => i.to_string().into(),
        },
        DeValue::String(s) => s.to_string().into(),
        // No setting is a date; where a string is wanted, the text of one will do.
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(_) | DeValue::Table(_) => ValueKind::Nil,
    }
}

/// A file's text, with what it takes to name a place in it.
struct Text<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect()
}

impl Text<'_> {
    /// Line and column, from 1, of a byte.
    fn place(&self, at: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(at);
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line, self.text.get(start..at).map_or(0, |s| s.chars().count()) + 1)
    }

    fn origin(&self, at: usize) -> String {
        let (line, column) = self.place(at);
        format!("{}:{line}:{column}", self.file)
    }

    /// The parser's words, with the line and a mark below the place.
    fn syntax(&self, error: &toml::de::Error) -> Problem {
        let (line, column) = self.place(error.span().map_or(0, |span| span.start));
        let shown = self.text.lines().nth(line - 1).unwrap_or("").replace('\t', " ");
        let margin = line.to_string();
        let mark = " ".repeat(margin.len() + 2 + column);
        // For a word without quotes the parser names the one word it would take there (`nan`).
        let bare = shown.chars().nth(column - 1).is_some_and(char::is_alphabetic);
        let value = shown.chars().take(column - 1).collect::<String>().trim_end().ends_with('=');
        let message = match bare && value {
            true => "a value is a number, true, false, a list or a string in quotes".to_owned(),
            false => error.message().replace('\n', ", "),
        };
        let what = format!("{message}\n  {margin} | {shown}\n  {mark}^");
        let origin = Origin::File { file: self.file.to_owned(), line: line as u32, column: column as u32 };
        problem(origin, "", what, "")
    }

    /// A table; each entry's origin is where its key stands.
    fn table(&self, table: &DeTable<'_>, origin: &String) -> Value {
        let entries = table.iter().map(|(key, value)| {
            (key.get_ref().to_string(), self.value(value, &self.origin(key.span().start)))
        });
        Value::new(Some(origin), ValueKind::Table(entries.collect()))
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, origin: &String) -> Value {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, origin),
            DeValue::Array(list) => {
                let elements = list.iter().map(|e| self.value(e, &self.origin(e.span().start)));
                Value::new(Some(origin), ValueKind::Array(elements.collect()))
            }
            other => Value::new(Some(origin), scalar(other)),
        }
    }
}
