//! What a tenant's table or lines say, each with the place where it is said.

use std::fmt;

use super::super::check::Check;
use super::super::settings::find;
use super::super::source::origin_of;
use super::super::value::quoted;
use super::{Origin, Problem, schema};

/// One tenant as it is written.
#[derive(Debug)]
pub(super) struct Claim {
    pub name: String,
    /// Where the name is given.
    pub place: Place,
    pub endpoints: Vec<(u64, Place)>,
    /// Most flows.
    pub flows: Option<(Share, Place)>,
    /// Flows that are kept for it.
    pub guaranteed: Option<(Share, Place)>,
    pub new_flows_per_s: Option<u32>,
    /// Name of its pipeline.
    pub pipeline: Option<(String, Place)>,
}

/// Where something is said: a path in the configuration, or a line of the tenants' file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub origin: Origin,
    pub path: String,
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    /// Of the capacity, 0 to 100.
    Percent(f64),
    /// Flows of the process.
    Flows(u64),
}

/// What is wrong with a word, and what to do.
pub(super) type Refused = (String, String);

impl Claim {
    pub fn new(name: &str, place: Place) -> Self {
        Claim {
            name: name.to_owned(),
            place,
            endpoints: Vec::new(),
            flows: None,
            guaranteed: None,
            new_flows_per_s: None,
            pipeline: None,
        }
    }
}

impl Place {
    /// Not written anywhere.
    pub fn nowhere() -> Self {
        Place { origin: Origin::Default, path: String::new() }
    }

    /// A mistake here.
    pub fn problem(&self, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        let (origin, place) = (self.origin.clone(), self.path.clone());
        Problem { origin, place, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}", self.origin),
            path => write!(f, "{}: {path}", self.origin),
        }
    }
}

/// The `[[tenant]]` tables.
pub(super) fn of_tables(check: &mut Check<'_>, tenants: &[schema::Tenant]) -> Vec<Claim> {
    tenants.iter().enumerate().map(|(i, tenant)| of_table(check, i, tenant)).collect()
}

fn of_table(check: &mut Check<'_>, i: usize, tenant: &schema::Tenant) -> Claim {
    let root = check.root;
    let place = |path: String| Place { origin: origin_of(find(root, &path)), path };
    let mut wrong = Vec::new();
    let name = match &tenant.name {
        Some(name) => name.clone(),
        None => {
            let table = place(format!("tenant[{i}]"));
            wrong.push(table.problem("\"name\" is missing", "every tenant needs one: name = \"payments\""));
            // Not a second mistake, and unlike every other.
            format!("tenant-{i}")
        }
    };
    let mut claim = Claim::new(&name, place(format!("tenant[{i}].name")));
    claim.pipeline = tenant.pipeline.clone().map(|name| (name, place(format!("tenant[{i}].pipeline"))));
    for (n, word) in tenant.endpoints.iter().enumerate() {
        let place = place(format!("tenant[{i}].endpoints[{n}]"));
        match endpoint(&word.0) {
            Ok(id) => claim.endpoints.push((id, place)),
            Err((what, remedy)) => wrong.push(place.problem(what, remedy)),
        }
    }
    let limits = &tenant.limits;
    for (key, word, into) in [
        ("flows", &limits.flows, &mut claim.flows),
        ("guaranteed", &limits.guaranteed, &mut claim.guaranteed),
    ] {
        let Some(word) = word else { continue };
        let place = place(format!("tenant[{i}].limits.{key}"));
        match share(&word.0) {
            Ok(share) => *into = Some((share, place)),
            Err((what, remedy)) => wrong.push(place.problem(what, remedy)),
        }
    }
    check.problems.extend(wrong);
    let rate = limits.new_flows_per_s;
    check.range(&format!("tenant[{i}].limits.new_flows_per_s"), rate, 1, 1, u32::MAX);
    claim.new_flows_per_s = rate;
    claim
}

/// An endpoint's id: as AWS shows it (`vpce-` and 8 or 17 hexadecimal digits; the first of 17 is a zero and the others are the
/// 64 bits on the wire), or as a number.
pub(super) fn endpoint(word: &str) -> Result<u64, Refused> {
    const REMEDY: &str = "write \"vpce-0123456789abcdef0\", \"0x123456789abcdef0\" or a number";
    let refused = |what: String| Err((what, REMEDY.to_owned()));
    let hex = |digits: &str| match digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => u64::from_str_radix(digits, 16).ok(),
        false => None,
    };
    if let Some(digits) = word.strip_prefix("vpce-") {
        return match (digits.len(), hex(digits)) {
            (8 | 17, Some(id)) => Ok(id),
            (17, None) if !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                refused(format!(
                    "{} does not fit into 64 bits: an id of 17 digits starts with 0",
                    quoted(word)
                ))
            }
            _ => refused(format!("{} does not have 8 or 17 hexadecimal digits", quoted(word))),
        };
    }
    let id = match word.strip_prefix("0x") {
        Some(digits) => hex(digits),
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok(),
        None => None,
    };
    id.map_or_else(
        || refused(format!("{} is not the id of an endpoint, a number of 64 bits", quoted(word))),
        Ok,
    )
}

/// An id as it could be written.
pub(crate) fn spelled(id: u64) -> String {
    match id {
        // A VNI, as profiles without an endpoint of their own have it.
        0..0x100_0000 => id.to_string(),
        _ => format!("vpce-{id:017x}"),
    }
}

/// An endpoint by what it is called; why not, in a sentence.
pub(crate) fn endpoint_of(word: &str) -> Result<u64, String> {
    endpoint(word).map_err(|(what, remedy)| format!("{what}: {remedy}"))
}

/// `30%`, or a number of flows.
pub(super) fn share(word: &str) -> Result<Share, Refused> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let share = match word.strip_suffix('%').map(str::trim_end) {
        Some(text) if plain(text) => {
            text.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(Share::Percent)
        }
        Some(_) => None,
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok().map(Share::Flows),
        None => None,
    };
    share.ok_or_else(|| {
        let what = format!("{} is neither a number of flows nor a part of flow.capacity", quoted(word));
        (what, "write 50_000, or \"30%\"".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of docs.aws.amazon.com, and the value of a published capture (`wire::geneve::profile`).
    #[test]
    fn endpoints_are_read_as_they_are_shown() {
        for (word, id) in [
            ("vpce-0123456789abcdef0", 0x1234_5678_9abc_def0),
            ("vpce-0FFFFFFFFFFFFFFFF", u64::MAX),
            ("vpce-1a2b3c4d", 0x1a2b_3c4d),
            ("0x123456789abcdef0", 0x1234_5678_9abc_def0),
            ("0x0", 0),
            ("4711", 4711),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(endpoint(word), Ok(id), "{word}");
        }
        for word in [
            "",
            "vpce-",
            "vpce-123",
            "vpce-1123456789abcdef0",
            "vpce-0123456789abcdefg",
            "vpce-+123456",
            "0x",
            "0x+1",
            "0x10000000000000000",
            "18446744073709551616",
            "-1",
            "+1",
            "vpce",
            "eni-0123456789abcdef0",
            "1.5",
        ] {
            assert!(endpoint(word).is_err(), "{word}");
        }
        for id in [0, 5, 0xff_ffff, 0x100_0000, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(endpoint(&spelled(id)), Ok(id));
        }
    }

    #[test]
    fn shares_are_parts_or_numbers() {
        for (word, expected) in [
            ("30%", Share::Percent(30.0)),
            ("0.5 %", Share::Percent(0.5)),
            ("100%", Share::Percent(100.0)),
            ("0%", Share::Percent(0.0)),
            ("50000", Share::Flows(50_000)),
        ] {
            assert_eq!(share(word), Ok(expected), "{word}");
        }
        for word in [
            "",
            "%",
            "101%",
            "-1%",
            "-5",
            "1e3%",
            "NaN%",
            "inf%",
            "1.2.3%",
            "many",
            "1.5",
            "18446744073709551616",
        ] {
            assert!(share(word).is_err(), "{word}");
        }
    }
}
