//! What a `[[stage]]` of this kind says.

use std::sync::Arc;

use serde::Deserialize;

use super::head::is_token;
use super::pattern::Pattern;
use super::records::Records;
use super::rules::{Action, HeaderRule, Rule, Rules, Value};
use crate::config::{self, Problem};
use crate::stages::names;
use crate::stages::places::Places;

/// Rules of one stage. Each is asked in turn, so they are few; hosts belong into sets.
const MOST_RULES: usize = 256;
/// Methods, paths, patterns and headers of one rule.
const MOST_OF_RULE: usize = 64;
/// Ports that are listed, at most.
const MOST_PORTS: usize = 16;

pub(super) const EXAMPLE: &str = r#"[[stage]]
use = "http"

[[stage.rule]]
action = "reject"
hosts = [".ads.example", "tracker.example"]
comment = "ads"

[[stage.rule]]
action = "deny"
methods = ["POST", "PUT"]
paths = ["/admin"]
path_regex = ['\.php$']

[[stage.rule]]
action = "log"
header = [{ name = "User-Agent", regex = ["(?i)curl|wget"] }]
"#;

pub(super) const HELP: &str = r#"rule       [[stage.rule]] tables, asked in order of each request; all that a rule names must be so:
  action     allow | deny | reject: the search ends. deny and reject end the connection
             (deny: in silence; reject: by a RST to both ends), and the server never gets
             the request. log makes an alert record (docs/events.md), and the search goes on.
  methods    "GET", ...: as they are written, in capitals; any if missing
  hosts      "www.example.com", or ".example.com" for all names below it (not itself), without
             port: of the request's target if that has one, else of its first Host header
  hosts_file a file of such names, one a line; lines that start with # are comments
  paths      what the path begins with: "/admin" is "/administrator" as well
  path_regex patterns of which one is somewhere in the path
  query_regex  and in what is behind its ?
  header     { name = "...", is = "..." } (in any case), { name = "...", regex = ["..."] },
             { name = "..." } (it is there) or { name = "...", absent = true }; several:
             all of them
  comment    shown beside the rule's counter, and the signature of its alerts
  id         signature_id of its alerts; its place, from 1, if missing
  severity   of its alerts, 1 (worst) to 255, default 3
default    what happens to requests that no rule decides on: allow (default) | deny | reject.
           Of flows that do not begin like HTTP it covers those on `ports` only: what else may
           be spoken is a matter of acl and appid
malformed  heads and chunks that break the rules of HTTP, and what is no HTTP on a port of the
           list: pass (default; counted and told) or deny
ambiguous  messages that can be read in two ways (Content-Length beside Transfer-Encoding,
           lengths or hosts that differ, ...): pass (default; counted and told) or deny
http2      HTTP/2 without TLS, which is not read: pass (default; counted and told) or deny
ports      on which HTTP is spoken, up to 16, default [80, 8080]
detect     true (default): connections to other ports are read as well if they begin like HTTP
hold       true: a frame with the beginning of a head waits until all of that has come.
           Default: true if something can be denied
heads      heads in pieces that each worker gathers at a time, 1 to 65535, default 256;
           beyond that the oldest is passed over and goes by on_unread
head_bytes bytes of the longest head, 1024 to 65535, default 16384; a longer one is malformed
           and goes by on_unread
requests   connections of which each worker keeps requests for their records until they are
           answered, 1 to 65535, default 4096; beyond that the oldest are told without
memory_kb  what these take at most, 64 to 1048576, default 8192

Paths are seen by rules in one form: %41 is A, // and /./ are /, /x/../ is gone, \ is /. Rules
that deny or log match what was written as well. Patterns are those of the crate regex, over
bytes (ASCII); each list becomes one automaton of at most 1 MB.

Rules are asked of every request of a connection. Bodies are counted, not read; both directions
are read to their end, whatever stream.depth_kb says. What cannot be read (gaps in heads, no
room, heads without end, what follows a request whose length nobody knows) goes by on_unread of
the stage where something can be denied. With the answer to CONNECT or Upgrade HTTP ends.
"#;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) rules: Arc<Rules>,
    pub(super) ports: Vec<u16>,
    pub(super) detect: bool,
    pub(super) hold: bool,
    pub(super) heads: u16,
    pub(super) head_bytes: usize,
    pub(super) requests: u16,
    pub(super) memory: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Passes {
    #[default]
    Pass,
    Deny,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeaderTable {
    name: String,
    is: Option<String>,
    regex: Option<Vec<String>>,
    absent: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleTable {
    action: Option<Action>,
    methods: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    hosts_file: Option<String>,
    paths: Option<Vec<String>>,
    path_regex: Option<Vec<String>>,
    query_regex: Option<Vec<String>>,
    header: Vec<HeaderTable>,
    comment: String,
    id: Option<u32>,
    severity: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    rule: Vec<RuleTable>,
    default: Option<Action>,
    malformed: Passes,
    ambiguous: Passes,
    http2: Passes,
    ports: Option<Vec<u16>>,
    detect: Option<bool>,
    hold: Option<bool>,
    heads: Option<u32>,
    head_bytes: Option<u32>,
    requests: Option<u32>,
    memory_kb: Option<u32>,
}

impl Settings {
    /// Reads and checks them.
    pub fn read(settings: &config::Settings<'_>) -> Result<Settings, Vec<Problem>> {
        let table: Table = settings.read()?;
        let mut check = Check { settings, problems: Vec::new() };
        if table.rule.len() > MOST_RULES {
            let what = format!("{} rules are more than {MOST_RULES}", table.rule.len());
            check.wrong("rule", what, "put hosts into sets (hosts, hosts_file)");
        }
        let rules = table.rule.iter().enumerate();
        let list: Vec<Rule> = rules.filter_map(|(n, table)| check.rule(n, table)).collect();
        if let Some((n, other, id)) = same_id(&table.rule) {
            let what = format!("{id} is the id of rule[{other}] as well");
            let remedy = "give each log rule an id of its own; one without has its place, from 1";
            check.wrong(&format!("rule[{n}].id"), what, remedy);
        }
        let default = table.default.unwrap_or(Action::Allow);
        if default == Action::Log {
            check.wrong("default", "\"log\" decides nothing".into(), "write allow, deny or reject");
        }
        let ports = table.ports.unwrap_or_else(|| vec![80, 8080]);
        if ports.is_empty() || ports.len() > MOST_PORTS || ports.contains(&0) {
            let what = format!("{ports:?} are not 1 to {MOST_PORTS} ports");
            check.wrong("ports", what, "ports go from 1 to 65535");
        }
        let most = u32::from(u16::MAX);
        let heads = check.range("heads", table.heads, 256, 1, most) as u16;
        let head_bytes = check.range("head_bytes", table.head_bytes, 16_384, 1024, most) as usize;
        let requests = check.range("requests", table.requests, 4096, 1, most) as u16;
        let memory_kb = check.range("memory_kb", table.memory_kb, 8192, 64, 1 << 20) as usize;
        if !check.problems.is_empty() {
            return Err(check.problems);
        }
        let rules = Rules {
            list,
            default,
            deny_malformed: table.malformed == Passes::Deny,
            deny_ambiguous: table.ambiguous == Passes::Deny,
            deny_http2: table.http2 == Passes::Deny,
        };
        Ok(Settings {
            ports,
            detect: table.detect.unwrap_or(true),
            hold: table.hold.unwrap_or(rules.can_deny()),
            heads,
            head_bytes,
            requests,
            memory: memory_kb << 10,
            rules: Arc::new(rules),
        })
    }

    /// Bytes that each worker takes beside what it keeps of flows.
    pub(super) fn memory(&self) -> usize {
        let records = Records::memory(self.requests, self.memory);
        Places::memory(self.heads, self.head_bytes) + records + 3 * self.head_bytes
    }
}

/// A log rule that has the number of an earlier one.
fn same_id(rules: &[RuleTable]) -> Option<(usize, usize, u32)> {
    let logs = rules.iter().enumerate().filter(|(_, rule)| rule.action == Some(Action::Log));
    let ids: Vec<(usize, u32)> = logs.map(|(n, rule)| (n, rule.id.unwrap_or(n as u32 + 1))).collect();
    ids.iter().enumerate().find_map(|(at, (n, id))| {
        let (other, _) = ids.get(..at)?.iter().find(|(_, other)| other == id)?;
        Some((*n, *other, *id))
    })
}

/// What is being checked, and what is wrong so far.
struct Check<'a, 'b> {
    settings: &'a config::Settings<'b>,
    problems: Vec<Problem>,
}

impl Check<'_, '_> {
    fn wrong(&mut self, key: &str, what: String, remedy: &str) {
        self.problems.push(self.settings.problem(key, what, remedy));
    }

    fn range(&mut self, key: &str, given: Option<u32>, default: u32, least: u32, most: u32) -> u32 {
        let given = given.unwrap_or(default);
        if given < least || given > most {
            self.wrong(key, format!("{given} is not between {least} and {most}"), "");
        }
        given.clamp(least, most)
    }

    /// Is there something in a list, and not too much?
    fn is_list<T>(&mut self, key: &str, list: &[T]) {
        if list.is_empty() {
            self.wrong(key, "names nothing".into(), "leave it out to mean anything");
        } else if list.len() > MOST_OF_RULE {
            self.wrong(key, format!("{} are more than {MOST_OF_RULE}", list.len()), "make several rules");
        }
    }

    fn pattern(&mut self, key: &str, list: &[String]) -> Option<Pattern> {
        self.is_list(key, list);
        let remedy = "docs.rs/regex has the syntax; long repetitions of wide sets make it large";
        // One by one, to name the one that is wrong; then all of them together.
        for (n, text) in list.iter().enumerate() {
            if let Err(error) = Pattern::new(&[text.as_str()]) {
                self.wrong(&format!("{key}[{n}]"), format!("{text:?}: {error}"), remedy);
                return None;
            }
        }
        let all: Vec<&str> = list.iter().map(String::as_str).collect();
        match Pattern::new(&all) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.wrong(key, format!("together: {error}"), "make several rules");
                None
            }
        }
    }

    fn header(&mut self, key: &str, table: &HeaderTable) -> Option<HeaderRule> {
        if !is_token(table.name.as_bytes()) {
            self.wrong(&format!("{key}.name"), format!("{:?} is no name of a header", table.name), "");
        }
        let value = match (&table.is, &table.regex, table.absent) {
            (None, None, false) => Value::Any,
            (None, None, true) => Value::Absent,
            (Some(value), None, false) => Value::Is(value.trim().as_bytes().into()),
            (None, Some(list), false) => {
                Value::Matches(Box::new(self.pattern(&format!("{key}.regex"), list)?))
            }
            _ => {
                self.wrong(key, "says two things of one header".into(), "write is, regex or absent");
                return None;
            }
        };
        Some(HeaderRule { name: table.name.as_bytes().into(), value })
    }

    fn rule(&mut self, n: usize, table: &RuleTable) -> Option<Rule> {
        let place = |key: &str| format!("rule[{n}].{key}");
        let given = table.hosts.is_some() || table.hosts_file.is_some();
        let list = table.hosts.as_deref().unwrap_or(&[]);
        let file = table.hosts_file.as_deref();
        let hosts = names::read(self.settings, &place("hosts"), list, file, &mut self.problems);
        if given && hosts.is_empty() {
            self.wrong(&place("hosts"), "names nothing".into(), "leave it out to mean any host");
        }
        if let Some(methods) = &table.methods {
            self.is_list(&place("methods"), methods);
            for (at, method) in methods.iter().enumerate().filter(|(_, m)| !is_token(m.as_bytes())) {
                self.wrong(&place(&format!("methods[{at}]")), format!("{method:?} is no method"), "");
            }
        }
        if let Some(paths) = &table.paths {
            self.is_list(&place("paths"), paths);
            for (at, path) in paths.iter().enumerate().filter(|(_, path)| !path.starts_with('/')) {
                let what = format!("{path:?} does not begin with /");
                self.wrong(&place(&format!("paths[{at}]")), what, "hosts belong into hosts");
            }
        }
        let path = table.path_regex.as_ref().map(|list| self.pattern(&place("path_regex"), list));
        let query = table.query_regex.as_ref().map(|list| self.pattern(&place("query_regex"), list));
        if table.header.len() > MOST_OF_RULE {
            self.is_list(&place("header"), &table.header);
        }
        let headers = table.header.iter().enumerate();
        let headers: Vec<_> = headers
            .filter_map(|(at, header)| self.header(&place(&format!("header[{at}]")), header))
            .collect();
        if table.severity == Some(0) {
            self.wrong(&place("severity"), "0 is not between 1 and 255".into(), "1 is worst");
        }
        let Some(action) = table.action else {
            self.wrong(&place("action"), "is missing".into(), "write allow, deny, reject or log");
            return None;
        };
        let bytes = |list: &Vec<String>| list.iter().map(|text| text.as_bytes().into()).collect();
        Some(Rule {
            action,
            methods: table.methods.as_ref().map(bytes),
            hosts: given.then_some(hosts),
            paths: table.paths.as_ref().map(bytes),
            path: path.flatten(),
            query: query.flatten(),
            headers,
            comment: table.comment.clone(),
            id: table.id,
            severity: table.severity.unwrap_or(3),
        })
    }
}
