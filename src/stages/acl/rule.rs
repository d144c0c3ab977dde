//! One rule: the words people write for it, and what it matches.
//!
//! A rule is a product of sets: protocols, source addresses, destination addresses, source ports and destination
//! ports. ICMP type and code take the place of the source port (`type << 8 | code`), as in [`crate::packet::Meta`].
//! A rule that names ports or ICMP types cannot match a packet that shows none (a later fragment).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::groups::Groups;
use super::linear::Key;

/// Columns of a rule file, and keys of an inline rule.
pub const COLUMNS: [&str; 12] = [
    "action",
    "protocol",
    "source",
    "destination",
    "source_port",
    "destination_port",
    "icmp_type",
    "comment",
    "id",
    "severity",
    "export",
    "tenant",
];

/// Most classifier entries that the lists of one rule may multiply to, for each pair of addresses.
pub const MAX_ENTRIES: usize = 256;

/// Most pairs of addresses that one rule may name.
pub const MAX_PAIRS: usize = 4096;

const ICMP: [u8; 2] = [1, 58];
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
const PROTOCOLS: [(&str, u8); 18] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("esp", 50),
    ("gre", 47),
    ("ah", 51),
    ("dccp", 33),
    ("udplite", 136),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6", 41),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
];

/// What a rule does with the packets that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Goes on to the next stage; the search ends.
    Allow,
    /// Dropped; the search ends.
    Deny,
    /// Dropped under a reason of its own; the search ends.
    Reject,
    /// Counted, and told as an alert; the search goes on.
    Log,
    /// Counted; the search goes on.
    Count,
}

impl Action {
    /// All of them, in the order of the documentation.
    pub const ALL: [Action; 5] = [Action::Allow, Action::Deny, Action::Reject, Action::Log, Action::Count];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
            Action::Log => "log",
            Action::Count => "count",
        }
    }

    /// Does the search end at a rule with this action?
    pub fn decides(self) -> bool {
        matches!(self, Action::Allow | Action::Deny | Action::Reject)
    }

    /// The action of that name.
    pub fn named(word: &str) -> Option<Self> {
        Action::ALL.into_iter().find(|action| action.word() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a rule file; lines count from 1.
    Line(Arc<str>, u32),
    /// The n-th `[[stage.rule]]`, from 0.
    Inline(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{file}:{line}"),
            Place::Inline(n) => write!(f, "rule[{n}]"),
        }
    }
}

/// What is wrong with one value of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// One of [`COLUMNS`].
    pub column: &'static str,
    /// What is wrong, with the value.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// A rule as written, one text per column; blank means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words<'a> {
    /// `allow`, `deny`, `reject`, `log` or `count`.
    pub action: &'a str,
    /// Names or numbers: `tcp`, `tcp|udp`, `50`.
    pub protocol: &'a str,
    /// Addresses, prefixes and groups of them: `10.0.0.0/8`, `servers|192.0.2.1`.
    pub source: &'a str,
    /// As `source`.
    pub destination: &'a str,
    /// Ports, port ranges and groups: `80`, `1000-2000`, `80|443`, `web|8443`.
    pub source_port: &'a str,
    /// As `source_port`.
    pub destination_port: &'a str,
    /// Type or type/code: `8`, `3/4`, `0|8`.
    pub icmp_type: &'a str,
    /// Shown beside the rule's counter, and the text of its alerts.
    pub comment: &'a str,
    /// Number of its alerts; blank: its place among the rules.
    pub id: &'a str,
    /// Severity of its alerts, 1 to 255; blank: 3.
    pub severity: &'a str,
    /// `true` or `false`.
    pub export: &'a str,
    /// Names of tenants: `payments`, `payments|shop`.
    pub tenant: &'a str,
}

/// Inclusive ranges of 16-bit values: sorted, not empty, not touching. No range at all means "any".
pub type Ranges = Vec<(u16, u16)>;

/// The addresses of a rule: both of one family, or any of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nets {
    /// Every IPv4 and IPv6 packet.
    Any,
    /// IPv4, source and destination.
    V4(Ipv4Net, Ipv4Net),
    /// IPv6, source and destination.
    V6(Ipv6Net, Ipv6Net),
}

/// All addresses that a rule names, where these are several: in order, none within another; none at all means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    sources: Vec<IpNet>,
    destinations: Vec<IpNet>,
}

/// A rule that was read and checked. One that names several addresses is one for each pair of them, with the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// IANA protocol numbers, sorted; empty means any.
    pub protocols: Vec<u8>,
    /// Source and destination addresses.
    pub nets: Nets,
    /// All that were written, if it is one of several.
    pub written: Option<Arc<Written>>,
    /// Source ports, or ICMP type and code.
    pub source_ports: Ranges,
    /// Destination ports.
    pub destination_ports: Ranges,
    /// Numbers of tenants, sorted; empty means any.
    pub tenants: Vec<u16>,
    /// The author's words.
    pub comment: String,
    /// Number of its alerts, if one was given.
    pub id: Option<u32>,
    /// Severity of its alerts.
    pub severity: u8,
    /// Its hits are exported as a figure of their own.
    pub export: bool,
    /// Where it stands.
    pub place: Place,
}

impl Rule {
    /// Reads a rule without groups or lists of addresses. Every mistake is found at once.
    pub fn parse(words: &Words<'_>, place: Place) -> Result<Self, Vec<Mistake>> {
        let rules = Self::parse_all(words, place, &Groups::default())?;
        match <[Rule; 1]>::try_from(rules) {
            Ok([rule]) => Ok(rule),
            Err(_) => {
                let what = "one address or prefix can be here".into();
                Err(vec![Mistake { column: "source", what, remedy: "write it as several".into() }])
            }
        }
    }

    /// Reads a rule, which is one for each pair of addresses that it names. Every mistake is found at once.
    pub fn parse_all(words: &Words<'_>, place: Place, groups: &Groups) -> Result<Vec<Self>, Vec<Mistake>> {
        let mut wrong = Vec::new();
        let action = keep(action(words.action), &mut wrong);
        let protocols = keep(protocols(words.protocol), &mut wrong);
        let source = keep(nets("source", words.source, groups), &mut wrong);
        let destination = keep(nets("destination", words.destination, groups), &mut wrong);
        let ports = keep(ports("source_port", words.source_port, groups), &mut wrong);
        let destination_ports =
            keep(self::ports("destination_port", words.destination_port, groups), &mut wrong);
        let icmp = keep(icmp_types(words.icmp_type), &mut wrong);
        let id = keep(id(words.id), &mut wrong);
        let severity = keep(severity(words.severity), &mut wrong);
        let export = keep(export(words.export), &mut wrong);
        let tenants = keep(tenants(words.tenant, groups), &mut wrong);
        let nets = source.zip(destination).and_then(|pair| keep(pairs(pair), &mut wrong));
        if let Some(protocols) = &protocols {
            for (column, text) in
                [("source_port", words.source_port), ("destination_port", words.destination_port)]
            {
                needs(
                    column,
                    text,
                    protocols,
                    &WITH_PORTS,
                    "set protocol to tcp, udp, sctp or tcp|udp",
                    &mut wrong,
                );
            }
            needs(
                "icmp_type",
                words.icmp_type,
                protocols,
                &ICMP,
                "set protocol to icmp or icmpv6",
                &mut wrong,
            );
        }
        let (Some(action), Some(protocols), Some(nets), Some(ports), Some(destination_ports), Some(icmp)) =
            (action, protocols, nets, ports, destination_ports, icmp)
        else {
            return Err(wrong);
        };
        let (Some(id), Some(severity), Some(export), Some(tenants)) = (id, severity, export, tenants) else {
            return Err(wrong);
        };
        let source_ports = if icmp.is_empty() { ports } else { icmp };
        let comment = words.comment.trim().to_owned();
        let (nets, written) = nets;
        let mut rule = Rule {
            action,
            protocols,
            nets: Nets::Any,
            written,
            source_ports,
            destination_ports,
            tenants,
            comment,
            id,
            severity,
            export,
            place,
        };
        if rule.entries() > MAX_ENTRIES {
            let what = format!(
                "the lists of this rule multiply to {} combinations, more than {MAX_ENTRIES}",
                rule.entries()
            );
            wrong.push(Mistake {
                column: "destination_port",
                what,
                remedy: "write it as several rules".into(),
            });
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if let [one] = nets.as_slice() {
            rule.nets = *one;
            return Ok(vec![rule]);
        }
        Ok(nets.into_iter().map(|nets| Rule { nets, ..rule.clone() }).collect())
    }

    /// The same as [`Self::matches`] for the rule as it was written: it, or another of the pairs of addresses.
    pub fn matches_as_written(&self, key: &Key) -> bool {
        let Some(written) = &self.written else { return self.matches(key) };
        has(&written.sources, key.source)
            && has(&written.destinations, key.destination)
            && self.matches_transport(key)
    }

    /// Does it match a packet? The meaning of a rule: every classifier must agree with this.
    pub fn matches(&self, key: &Key) -> bool {
        let nets = match (self.nets, key.source, key.destination) {
            (Nets::Any, _, _) => true,
            (Nets::V4(source, destination), IpAddr::V4(from), IpAddr::V4(to)) => {
                source.contains(&from) && destination.contains(&to)
            }
            (Nets::V6(source, destination), IpAddr::V6(from), IpAddr::V6(to)) => {
                source.contains(&from) && destination.contains(&to)
            }
            _ => false,
        };
        nets && self.matches_transport(key)
    }

    fn matches_transport(&self, key: &Key) -> bool {
        (self.protocols.is_empty() || self.protocols.contains(&key.protocol))
            && self.is_of(key.tenant)
            && match key.ports {
                Some((from, to)) => within(&self.source_ports, from) && within(&self.destination_ports, to),
                None => !self.reads_ports(),
            }
    }

    /// Is it for packets of that tenant?
    pub fn is_of(&self, tenant: u16) -> bool {
        self.tenants.is_empty() || self.tenants.binary_search(&tenant).is_ok()
    }

    /// Does it name ports or ICMP types?
    pub fn reads_ports(&self) -> bool {
        !(self.source_ports.is_empty() && self.destination_ports.is_empty())
    }

    /// Does it match every packet that `other` matches?
    pub fn covers(&self, other: &Rule) -> bool {
        let nets = match (self.nets, other.nets) {
            (Nets::Any, _) => true,
            (Nets::V4(s, d), Nets::V4(s2, d2)) => s.contains(&s2) && d.contains(&d2),
            (Nets::V6(s, d), Nets::V6(s2, d2)) => s.contains(&s2) && d.contains(&d2),
            _ => false,
        };
        nets && (self.protocols.is_empty()
            || (!other.protocols.is_empty() && other.protocols.iter().all(|p| self.protocols.contains(p))))
            && (self.tenants.is_empty()
                || (!other.tenants.is_empty() && other.tenants.iter().all(|t| self.is_of(*t))))
            && covers(&self.source_ports, &other.source_ports)
            && covers(&self.destination_ports, &other.destination_ports)
    }

    /// Can one packet match both?
    pub fn overlaps(&self, other: &Rule) -> bool {
        let nets = match (self.nets, other.nets) {
            (Nets::Any, _) | (_, Nets::Any) => true,
            (Nets::V4(s, d), Nets::V4(s2, d2)) => {
                (s.contains(&s2) || s2.contains(&s)) && (d.contains(&d2) || d2.contains(&d))
            }
            (Nets::V6(s, d), Nets::V6(s2, d2)) => {
                (s.contains(&s2) || s2.contains(&s)) && (d.contains(&d2) || d2.contains(&d))
            }
            _ => false,
        };
        nets && (self.protocols.is_empty()
            || other.protocols.is_empty()
            || self.protocols.iter().any(|p| other.protocols.contains(p)))
            && (self.tenants.is_empty()
                || other.tenants.is_empty()
                || self.tenants.iter().any(|t| other.is_of(*t)))
            && overlap(&self.source_ports, &other.source_ports)
            && overlap(&self.destination_ports, &other.destination_ports)
    }

    /// Classifier entries that it takes in one address family: one for each combination of its lists.
    pub fn entries(&self) -> usize {
        [self.protocols.len(), self.source_ports.len(), self.destination_ports.len()]
            .iter()
            .fold(1, |all, &n| usize::saturating_mul(all, n.max(1)))
    }

    /// The same rule with another name for the file that it stands in.
    pub fn placed_in(mut self, name: &Arc<str>) -> Self {
        if let Place::Line(file, _) = &mut self.place {
            *file = name.clone();
        }
        self
    }

    /// What a counter of this rule is called.
    pub fn label(&self) -> String {
        let Rule { place, action, comment, .. } = self;
        if comment.is_empty() { format!("{place} {action}") } else { format!("{place} {action} ({comment})") }
    }

    /// What its exported figure is called: its id, which stays as other rules come and go, or what [`Self::label`] says.
    pub fn exported_as(&self) -> String {
        match (self.id, self.comment.as_str()) {
            (None, _) => self.label(),
            (Some(id), "") => id.to_string(),
            (Some(id), comment) => format!("{id} ({comment})"),
        }
    }
}

fn keep<T>(read: Result<T, Mistake>, wrong: &mut Vec<Mistake>) -> Option<T> {
    read.map_err(|mistake| wrong.push(mistake)).ok()
}

fn mistake<T>(column: &'static str, what: String, remedy: &str) -> Result<T, Mistake> {
    Err(Mistake { column, what, remedy: remedy.into() })
}

fn action(text: &str) -> Result<Action, Mistake> {
    const REMEDY: &str = "write allow, deny, reject, log or count";
    let word = text.trim().to_ascii_lowercase();
    match Action::named(&word) {
        Some(action) => Ok(action),
        None if word.is_empty() => mistake("action", "there is no action".into(), REMEDY),
        None => mistake("action", format!("{} is not an action", quoted(text)), REMEDY),
    }
}

fn id(text: &str) -> Result<Option<u32>, Mistake> {
    match text.trim() {
        "" => Ok(None),
        number => match number.parse() {
            Ok(id @ 1..) => Ok(Some(id)),
            _ => {
                mistake("id", format!("{} is not a number of a rule", quoted(text)), "write 1 to 4294967295")
            }
        },
    }
}

fn export(text: &str) -> Result<bool, Mistake> {
    match text.trim() {
        "" | "false" => Ok(false),
        "true" => Ok(true),
        _ => {
            mistake("export", format!("{} is not true or false", quoted(text)), "write true, or leave it out")
        }
    }
}

fn tenants(text: &str, groups: &Groups) -> Result<Vec<u16>, Mistake> {
    let mut numbers = Vec::new();
    for name in list(text) {
        match groups.tenant(name) {
            Ok(number) => numbers.push(number),
            Err(remedy) => {
                return mistake("tenant", format!("there is no tenant {}", quoted(name)), &remedy);
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn severity(text: &str) -> Result<u8, Mistake> {
    match text.trim() {
        "" => Ok(3),
        number => match number.parse() {
            Ok(severity @ 1..) => Ok(severity),
            _ => mistake("severity", format!("{} is not a severity", quoted(text)), "write 1 (worst) to 255"),
        },
    }
}

fn protocols(text: &str) -> Result<Vec<u8>, Mistake> {
    let mut numbers = Vec::new();
    for word in list(text) {
        let name = word.to_ascii_lowercase();
        let known = PROTOCOLS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
        match known.or_else(|| name.parse().ok()) {
            Some(number) => numbers.push(number),
            None => {
                let what = format!("{} is not a protocol", quoted(word));
                return mistake(
                    "protocol",
                    what,
                    "write any, tcp, udp, icmp, icmpv6, sctp, esp, gre, ah or a number up to 255",
                );
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The addresses of one side, put together; none means any.
fn nets(column: &'static str, text: &str, groups: &Groups) -> Result<Vec<IpNet>, Mistake> {
    let mut all: Vec<IpNet> = Vec::new();
    let mut count = 0;
    for word in list(text) {
        count += 1;
        if let Some(nets) = groups.addresses(word) {
            all.extend(nets);
            continue;
        }
        match net(column, word) {
            Ok(Some(net)) => all.push(net),
            Ok(None) => {
                let what = format!("{} is in a list, and is every address", quoted(word));
                return mistake(column, what, "leave the rest out");
            }
            Err(Mistake { column, what, remedy }) => {
                let remedy =
                    groups.known(word, true).map_or(remedy.clone(), |known| format!("{remedy}; {known}"));
                return Err(Mistake { column, what, remedy });
            }
        }
    }
    // One address is left as it stands.
    Ok(if count > 1 || all.len() > 1 { IpNet::aggregate(&all) } else { all })
}

/// Every pair of a source and a destination of one family, and all of them as they were written if there are several.
type Pairs = (Vec<Nets>, Option<Arc<Written>>);

fn pairs((sources, destinations): (Vec<IpNet>, Vec<IpNet>)) -> Result<Pairs, Mistake> {
    let side = |nets: &[IpNet]| -> Vec<Option<IpNet>> {
        if nets.is_empty() { vec![None] } else { nets.iter().copied().map(Some).collect() }
    };
    let (from, to) = (side(&sources), side(&destinations));
    if let ([from], [to]) = (from.as_slice(), to.as_slice()) {
        return Ok((vec![family((*from, *to))?], None));
    }
    if from.len().saturating_mul(to.len()) > 2 * MAX_PAIRS {
        return too_many(from.len().saturating_mul(to.len()));
    }
    let all = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
    let nets: Vec<Nets> = all.filter_map(|pair| family(pair).ok()).collect();
    match nets.len() {
        0 => mistake(
            "destination",
            "no address of it is of the same family as one of the source".into(),
            "use IPv4 or IPv6 on both sides",
        ),
        1..=MAX_PAIRS => {
            let written = Written { sources, destinations };
            Ok((nets, Some(Arc::new(written))))
        }
        more => too_many(more),
    }
}

fn too_many<T>(pairs: usize) -> Result<T, Mistake> {
    let what = format!("sources and destinations make {pairs} pairs, and one rule has at most {MAX_PAIRS}");
    mistake("destination", what, "join prefixes, or write it as several rules")
}

/// Is the address in one of these, which are in order and not within each other? In any, if there is none.
fn has(nets: &[IpNet], address: IpAddr) -> bool {
    let behind = nets.partition_point(|net| net.addr() <= address);
    nets.is_empty()
        || behind.checked_sub(1).and_then(|n| nets.get(n)).is_some_and(|net| net.contains(&address))
}

/// One address or prefix; `None` is any.
pub(super) fn net(column: &'static str, text: &str) -> Result<Option<IpNet>, Mistake> {
    let text = text.trim();
    if is_any(text) {
        return Ok(None);
    }
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match net {
        None => {
            let what = format!("{} is neither an address nor a prefix", quoted(text));
            mistake(column, what, "write 10.0.0.0/8, 192.0.2.1, 2001:db8::/32 or any")
        }
        Some(net) if net != net.trunc() => {
            let what = format!("{} has bits behind its prefix length", quoted(text));
            mistake(
                column,
                what,
                &format!("write {} for the prefix or {} for the one address", net.trunc(), net.addr()),
            )
        }
        Some(net) => Ok(Some(net)),
    }
}

fn family((source, destination): (Option<IpNet>, Option<IpNet>)) -> Result<Nets, Mistake> {
    Ok(match (source, destination) {
        (None, None) => Nets::Any,
        (Some(IpNet::V4(s)), Some(IpNet::V4(d))) => Nets::V4(s, d),
        (Some(IpNet::V4(s)), None) => Nets::V4(s, Ipv4Net::default()),
        (None, Some(IpNet::V4(d))) => Nets::V4(Ipv4Net::default(), d),
        (Some(IpNet::V6(s)), Some(IpNet::V6(d))) => Nets::V6(s, d),
        (Some(IpNet::V6(s)), None) => Nets::V6(s, Ipv6Net::default()),
        (None, Some(IpNet::V6(d))) => Nets::V6(Ipv6Net::default(), d),
        (Some(s), Some(d)) => {
            let what = format!("\"{d}\" and the source {s} are not of one family");
            return mistake("destination", what, "use IPv4 or IPv6 on both sides, or two rules");
        }
    })
}

/// Ports of a list; none means any.
pub(super) fn ports(column: &'static str, text: &str, groups: &Groups) -> Result<Ranges, Mistake> {
    let mut ranges = Vec::new();
    for word in list(text) {
        if let Some(group) = groups.ports(word) {
            ranges.extend(group);
            continue;
        }
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) if low <= high => ranges.push((low, high)),
            (Ok(_), Ok(_)) => {
                return mistake(
                    column,
                    format!("{} ends before it starts", quoted(word)),
                    "write the smaller port first",
                );
            }
            _ => {
                let what = format!("{} is not a port", quoted(word));
                let remedy = "write 80, 1000-2000 or 80|443; ports go up to 65535";
                let known = groups.known(word, false).map(|known| format!("{remedy}; {known}"));
                return mistake(column, what, known.as_deref().unwrap_or(remedy));
            }
        }
    }
    Ok(merged(ranges))
}

fn icmp_types(text: &str) -> Result<Ranges, Mistake> {
    let mut ranges = Vec::new();
    for word in list(text) {
        let (kind, code) = match word.split_once('/') {
            Some((kind, code)) => (kind.trim().parse::<u8>(), code.trim().parse::<u8>().map(|c| (c, c))),
            None => (word.parse::<u8>(), Ok((0, u8::MAX))),
        };
        match (kind, code) {
            (Ok(kind), Ok((low, high))) => {
                ranges.push((u16::from_be_bytes([kind, low]), u16::from_be_bytes([kind, high])));
            }
            _ => {
                let what = format!("{} is not an ICMP type", quoted(word));
                return mistake(
                    "icmp_type",
                    what,
                    "write a type such as 8, or type/code such as 3/4, each up to 255",
                );
            }
        }
    }
    Ok(merged(ranges))
}

/// Ports and ICMP types mean something only beside protocols that have them.
fn needs(
    column: &'static str,
    text: &str,
    protocols: &[u8],
    having: &[u8],
    remedy: &str,
    wrong: &mut Vec<Mistake>,
) {
    if list(text).next().is_some() && (protocols.is_empty() || protocols.iter().any(|p| !having.contains(p)))
    {
        let what = format!("{} is set, but not every protocol of the rule has one", quoted(text));
        wrong.push(Mistake { column, what, remedy: remedy.into() });
    }
}

fn is_any(text: &str) -> bool {
    text.is_empty() || text == "*" || text.eq_ignore_ascii_case("any")
}

/// The words of a list that `|` or `,` separates; none for "any".
fn list(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    let words = if is_any(text) { None } else { Some(text.split(['|', ','])) };
    words.into_iter().flatten().map(str::trim)
}

/// Sorts ranges and joins those that touch; all values together are "any".
fn merged(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut out: Ranges = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match out.last_mut() {
            Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
            _ => out.push((low, high)),
        }
    }
    if out == [(0, u16::MAX)] { Vec::new() } else { out }
}

fn within(ranges: &[(u16, u16)], value: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|&(low, high)| (low..=high).contains(&value))
}

fn covers(ranges: &[(u16, u16)], others: &[(u16, u16)]) -> bool {
    // Ranges do not touch each other, so a range that is covered lies inside one of them.
    ranges.is_empty()
        || (!others.is_empty() && others.iter().all(|o| ranges.iter().any(|r| r.0 <= o.0 && o.1 <= r.1)))
}

fn overlap(ranges: &[(u16, u16)], others: &[(u16, u16)]) -> bool {
    ranges.is_empty()
        || others.is_empty()
        || ranges.iter().any(|r| others.iter().any(|o| r.0 <= o.1 && o.0 <= r.1))
}

/// A value in a message: quoted, on one line, and no longer than a line can hold.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}
