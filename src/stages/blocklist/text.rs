//! The text of a list: an entry a line, as public feeds have them.
//!
//! | `format` | a line |
//! |---|---|
//! | `text` | an entry, and behind `#`, `;` or `//` what people say of it: `192.0.2.0/24 ; SBL1` |
//! | `csv` | values between separators, one of which is the entry; quoted or not |
//! | `json` | an object, one of whose keys has the entry; an object without that key is passed over |
//!
//! An entry is an address, a prefix (`192.0.2.0/24`, `192.0.2.0/255.255.255.0`, `2001:db8::/32`) or a range (`192.0.2.1-192.0.2.9`), which becomes
//! the prefixes it consists of. Blank lines and lines that begin with `#`, `;` or `//` are passed over.
//!
//! The text may come from anywhere: reading it never panics, every mistake is reported with its line, and the number of entries and messages is
//! bounded.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

use crate::config::{Origin, Problem};
use crate::stages::acl::rule::quoted;

/// Bytes of the largest file that is read.
pub const MAX_BYTES: usize = 128 << 20;

/// Most entries of one stage, all lists together.
pub const MOST_ENTRIES: usize = 4_000_000;

/// Mistakes after which reading gives up.
pub const MOST_PROBLEMS: usize = 20;

/// How lines are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// An entry and a comment.
    Text,
    /// Values between separators.
    Csv {
        /// Which of them is the entry.
        column: Column,
        /// What stands between two.
        separator: u8,
    },
    /// An object, and the key of the entry.
    Json(String),
}

/// A column of a CSV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Called so in the first line.
    Named(String),
    /// The n-th, from 0; no line names it.
    Number(usize),
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prefixes, addresses among them.
    pub entries: usize,
    /// Lines that were passed over because they could not be read.
    pub skipped: usize,
    /// The first of these, from 1; 0 if there is none.
    pub first_skipped: u32,
}

/// Reads a list, of which at most `most` entries are taken. `file` is its name in messages. With `skip`, lines that cannot be read are counted and
/// passed over.
pub fn read(
    file: &str,
    text: &[u8],
    format: &Format,
    skip: bool,
    most: usize,
    mut take: impl FnMut(IpNet),
) -> Result<Counts, Vec<Problem>> {
    let mut counts = Counts::default();
    let mut problems = Vec::new();
    let origin = |line| Origin::File { file: file.to_owned(), line, column: 0 };
    let problem = |line, what: String, remedy: &str| Problem {
        origin: origin(line),
        place: String::new(),
        what,
        remedy: remedy.into(),
    };
    if text.len() > MAX_BYTES {
        return Err(vec![problem(1, format!("the file has more than {MAX_BYTES} bytes"), "split it")]);
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = Lines::of(format);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let found = match lines.entry(line.trim_ascii()) {
            Ok(None) => continue,
            Ok(Some(found)) => found,
            Err(wrong) if wrong.of_file => {
                return Err(vec![problem(number, wrong.what, &wrong.remedy)]);
            }
            Err(_) if skip => {
                counts.skipped += 1;
                if counts.first_skipped == 0 {
                    counts.first_skipped = number;
                }
                continue;
            }
            Err(wrong) => {
                problems.push(problem(number, wrong.what, &wrong.remedy));
                if problems.len() >= MOST_PROBLEMS {
                    let remedy = "mend those above first, or set bad_lines = \"skip\"";
                    problems.push(problem(number, "too many mistakes to go on".into(), remedy));
                    break;
                }
                continue;
            }
        };
        for net in found {
            if counts.entries == most {
                let what = format!("these are more than the {MOST_ENTRIES} entries that one stage takes");
                return Err(vec![problem(number, what, "join prefixes, or use a second stage")]);
            }
            counts.entries += 1;
            take(net);
        }
    }
    if problems.is_empty() { Ok(counts) } else { Err(problems) }
}

/// What is wrong with a line, and what to do. `of_file`: no other line can be read either.
struct Wrong {
    what: String,
    remedy: String,
    of_file: bool,
}

impl Wrong {
    fn new(what: String, remedy: &str) -> Self {
        Wrong { what, remedy: remedy.into(), of_file: false }
    }
}

/// Finds the entries of lines.
struct Lines<'a> {
    format: &'a Format,
    /// The place of the column in CSV, once it is known.
    place: Option<usize>,
}

impl<'a> Lines<'a> {
    fn of(format: &'a Format) -> Self {
        let place = match format {
            Format::Csv { column: Column::Number(n), .. } => Some(*n),
            _ => None,
        };
        Lines { format, place }
    }

    fn entry(&mut self, line: &[u8]) -> Result<Option<Nets>, Wrong> {
        if line.is_empty() || [b"#".as_slice(), b";", b"//"].iter().any(|mark| line.starts_with(mark)) {
            return Ok(None);
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(Wrong::new("the line is not UTF-8 text".into(), "save the file as UTF-8"));
        };
        match self.format {
            Format::Text => {
                let end = line.find(['#', ';']).unwrap_or(line.len());
                let end = line.find("//").map_or(end, |at| end.min(at));
                nets(line.get(..end).unwrap_or(line).trim()).map(Some)
            }
            Format::Json(key) => {
                let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                    return Err(Wrong::new(
                        format!("{} is no JSON", quoted(line)),
                        "write one object a line",
                    ));
                };
                match value.get(key) {
                    None => Ok(None),
                    Some(serde_json::Value::String(entry)) => nets(entry.trim()).map(Some),
                    Some(other) => {
                        let what = format!("{} is no address", quoted(&other.to_string()));
                        Err(Wrong::new(what, "set column to the key that has the prefix"))
                    }
                }
            }
            Format::Csv { column, separator } => self.value(line, column, *separator),
        }
    }

    fn value(&mut self, line: &str, column: &Column, separator: u8) -> Result<Option<Nets>, Wrong> {
        let Some(place) = self.place else {
            let Column::Named(name) = column else { return Ok(None) };
            let Some(names) = split(line, separator) else {
                return Err(Wrong::new("a quoted value does not end on its line".into(), "close the quote"));
            };
            self.place = names.iter().position(|named| named.eq_ignore_ascii_case(name));
            return match self.place {
                Some(_) => Ok(None),
                None => Err(Wrong {
                    what: format!("the first line does not name a column {}", quoted(name)),
                    remedy: "set column to one of its names, or to a number from 1 if no line names them"
                        .into(),
                    of_file: true,
                }),
            };
        };
        // Most files quote nothing: what a reader of CSV would find, without making one for each line.
        if !line.contains('"') {
            return match line.split(char::from(separator)).nth(place) {
                Some(value) => nets(value.trim()).map(Some),
                None => Err(Wrong::new(format!("the line has no value {}", place + 1), "set column")),
            };
        }
        let Some(values) = split(line, separator) else {
            return Err(Wrong::new("a quoted value does not end on its line".into(), "close the quote"));
        };
        match values.get(place) {
            Some(value) => nets(value.trim()).map(Some),
            None => Err(Wrong::new(format!("the line has no value {}", place + 1), "set column")),
        }
    }
}

/// The values of one line; `None` if a quote stays open.
fn split(line: &str, separator: u8) -> Option<csv::StringRecord> {
    if line.matches('"').count() % 2 == 1 {
        return None;
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .trim(csv::Trim::All)
        .buffer_capacity(line.len())
        .from_reader(line.as_bytes());
    let mut values = csv::StringRecord::new();
    reader.read_record(&mut values).ok().filter(|&read| read).map(|_| values)
}

/// The prefixes of one entry.
#[derive(Debug)]
pub enum Nets {
    /// It is one.
    One(Option<IpNet>),
    /// It is a range of IPv4.
    V4(Ipv4Subnets),
    /// It is a range of IPv6.
    V6(Ipv6Subnets),
}

impl Iterator for Nets {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        match self {
            Nets::One(net) => net.take(),
            Nets::V4(nets) => nets.next().map(IpNet::V4),
            Nets::V6(nets) => nets.next().map(IpNet::V6),
        }
    }
}

/// Reads an entry.
fn nets(text: &str) -> Result<Nets, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Nets::One(Some(address.into())));
    }
    if let Some((first, last)) = text.split_once('-') {
        return range(text, first.trim(), last.trim());
    }
    let masked = || {
        let (address, mask) = text.split_once('/')?;
        let net = Ipv4Net::with_netmask(address.parse().ok()?, mask.parse::<Ipv4Addr>().ok()?);
        net.ok().map(IpNet::V4)
    };
    match text.parse::<IpNet>().ok().or_else(masked) {
        Some(net) if net.trunc() == net => Ok(Nets::One(Some(net))),
        Some(net) => {
            let what = format!("{} has bits behind its prefix length", quoted(text));
            Err(Wrong::new(
                what,
                &format!("write {} for the prefix or {} for the one address", net.trunc(), net.addr()),
            ))
        }
        None => {
            let what = format!("{} is neither an address nor a prefix", quoted(text));
            let remedy = "write 192.0.2.1, 192.0.2.0/24, 192.0.2.1-192.0.2.9 or 2001:db8::/32; for other \
                          values beside it set format and column";
            Err(Wrong::new(what, remedy))
        }
    }
}

fn range(text: &str, first: &str, last: &str) -> Result<Nets, Wrong> {
    let ends = (first.parse::<IpAddr>(), last.parse::<IpAddr>());
    match ends {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
            Ok(Nets::V4(Ipv4Subnets::new(first, last, 0)))
        }
        (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) if first <= last => {
            Ok(Nets::V6(Ipv6Subnets::new(first, last, 0)))
        }
        (Ok(_), Ok(_)) => {
            let what =
                format!("{} is no range: it ends before it starts, or in the other family", quoted(text));
            Err(Wrong::new(what, "write the smaller address first"))
        }
        _ => {
            let what = format!("{} is neither an address nor a prefix", quoted(text));
            Err(Wrong::new(what, "write ranges as 192.0.2.1-192.0.2.9"))
        }
    }
}

/// What the formats promise for any bytes, for property tests and the fuzz target `blocklist_text`. The first byte says which format.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn arbitrary_input(bytes: &[u8]) {
    let (kind, text) = bytes.split_first().unwrap_or((&0, &[]));
    let format = match kind % 4 {
        0 => Format::Text,
        1 => Format::Csv { column: Column::Named("ip".into()), separator: b',' },
        2 => Format::Csv { column: Column::Number(usize::from(kind >> 4)), separator: b';' },
        _ => Format::Json("cidr".into()),
    };
    const MOST: usize = 10_000;
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let mut found = Vec::new();
    let strict = read("any", text, &format, false, MOST, |net| found.push(net));
    match &strict {
        Ok(counts) => {
            assert_eq!((counts.entries, counts.skipped), (found.len(), 0));
            assert!(found.iter().all(|net| net.trunc() == *net), "{found:?}");
            // A range is at most two prefixes of each length.
            assert!(found.len() <= lines * 256);
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= MOST_PROBLEMS + 1);
            for Problem { origin, what, remedy, .. } in problems {
                assert!(!what.is_empty() && !remedy.is_empty() && what.len() < 1000, "{what}; {remedy}");
                assert!(
                    matches!(origin, Origin::File { line, .. } if (1..=lines).contains(&(*line as usize)))
                );
            }
        }
    }
    // Passing over what is wrong finds no less, and nothing else where nothing is.
    let mut lenient = Vec::new();
    match (read("any", text, &format, true, MOST, |net| lenient.push(net)), strict) {
        (Ok(counts), Ok(strict)) => assert_eq!((counts, lenient), (strict, found)),
        (Ok(counts), Err(_)) => {
            assert!(counts.skipped > 0 && (1..=lines).contains(&(counts.first_skipped as usize)));
        }
        (Err(_), strict) => assert!(strict.is_err()),
    }
}
