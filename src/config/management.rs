//! `[management]`, and the addresses of `[[port]]`.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::check::Check;
use super::flow::range;
use super::value::suggestion;
use super::{
    AddressV4, Cause, ControlSocket, DrainPlan, Group, HealthPlan, HostKind, HostPlan, ManagementPlan,
    PortAddress, Token, Tunnel, schema,
};

/// Sources are searched one by one.
const MOST_SOURCES: usize = 64;
/// Characters of a bearer token: it must fit into a request, and must not be guessed.
const SHORTEST_TOKEN: usize = 16;
const LONGEST_TOKEN: usize = 256;
/// A kernel interface's name has at most 15 bytes, three of which a port's number may need.
const LONGEST_NAME: usize = 12;

/// The whole plan.
pub(super) fn check(
    check: &mut Check<'_>,
    name: &str,
    file: &schema::Management,
    ports: &[schema::Port],
    tunnel: Option<&Tunnel>,
) -> ManagementPlan {
    let host = host(check, file, ports, tunnel);
    let listen = listen(check, "management.listen", file.listen.as_deref());
    let token = file.token_file.as_deref().and_then(|name| token(check, name));
    if token.is_some() && listen.is_none() {
        check
            .warnings
            .push("management.token_file is there, but nothing listens: give management.listen".into());
    }
    if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
        let more = match &token {
            Some(_) => "figures are for those who show the token",
            None => "figures are refused there without a management.token_file",
        };
        check.warnings.push(format!(
            "management.listen = {listen}: anyone who can reach this address is told of health; {more}; 127.0.0.1 is for this machine only"
        ));
    }
    let health = health(check, &file.health);
    if host.kind == HostKind::Tap && health.listen.is_none() {
        check.warnings.push(format!(
            "management.host = tap: the kernel answers on the ports, and management.health.port counts for nothing: give management.health.listen = \"0.0.0.0:{}\" if a load balancer checks this appliance",
            health.port
        ));
    }
    if health.listen.is_some() && health.listen == listen {
        check.problem(
            "management.health.listen",
            "is the address of management.listen",
            "it is closed while the appliance is not fit, figures are not: give it another port",
        );
    }
    let drain = drain(check, file);
    let socket = socket(check, name, file);
    let group = file.group.as_deref().and_then(|name| group(check, name));
    if group.is_some() && socket == ControlSocket::Off {
        check.warnings.push("management.group is there, but management.socket is off".into());
    }
    if file.api && listen.is_none() {
        check.warnings.push("management.api is there, but nothing listens: give management.listen".into());
    }
    ManagementPlan { host, listen, token, api: file.api, socket, group, health, drain }
}

fn listen(check: &mut Check<'_>, at: &str, text: Option<&str>) -> Option<SocketAddr> {
    let text = text?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    check.problem(at, format!("{text:?} is not an address with a port"), "write it as \"127.0.0.1:9100\"");
    None
}

/// A group by its name, or by its number where the name is not known.
fn group(check: &mut Check<'_>, name: &str) -> Option<Group> {
    let file = match check.options.files {
        true => std::fs::read_to_string("/etc/group").unwrap_or_default(),
        false => String::new(),
    };
    let of_line = |line: &str| {
        let mut words = line.split(':');
        (words.next() == Some(name)).then(|| words.nth(1)?.parse().ok()).flatten()
    };
    let number = || name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten();
    let id = file.lines().find_map(of_line).or_else(number);
    if id.is_none() {
        let what = format!("there is no group {name:?}");
        check.problem("management.group", what, "make it (groupadd), or give its number");
    }
    Some(Group { name: name.to_owned(), id: id? })
}

/// Longest path of a unix socket on Linux (`sockaddr_un`), without the zero byte.
const LONGEST_SOCKET: usize = 107;

fn socket(check: &mut Check<'_>, name: &str, file: &schema::Management) -> ControlSocket {
    match file.socket.as_deref() {
        None => ControlSocket::usual(name),
        Some("off") => ControlSocket::Off,
        Some(path) if path.is_empty() || path.contains('\0') => {
            check.problem(
                "management.socket",
                "is no path",
                "write it as \"/run/sluicegate/edge.sock\", or \"off\"",
            );
            ControlSocket::Off
        }
        Some(path) => {
            let path = check.folder.join(path);
            if path.as_os_str().len() > LONGEST_SOCKET {
                let what = format!("{} is too long", path.display());
                check.problem(
                    "management.socket",
                    what,
                    format!("a socket's path has at most {LONGEST_SOCKET} bytes"),
                );
            }
            ControlSocket::At(path)
        }
    }
}

/// The secret in a file: its only line.
fn token(check: &mut Check<'_>, name: &str) -> Option<Token> {
    let path = check.folder.join(name);
    let shown = path.display();
    let place = "management.token_file";
    let text = match check.options.files {
        true => std::fs::File::open(&path).and_then(|file| {
            let mut text = String::new();
            file.take(LONGEST_TOKEN as u64 + 3).read_to_string(&mut text).map(|_| text)
        }),
        false => Err(std::io::Error::other("files are not read here")),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            let remedy = "paths start at the folder of the configuration file";
            check.problem(place, format!("cannot read {shown}: {error}"), remedy);
            return None;
        }
    };
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    // What RFC 6750 section 2.1 lets a token consist of.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&token.len()) || !token.bytes().all(plain) {
        let what = format!(
            "{shown} holds no token: one line of {SHORTEST_TOKEN} to {LONGEST_TOKEN} letters, digits or -._~+/="
        );
        check.problem(place, what, "make one: openssl rand -base64 32");
        return None;
    }
    if std::fs::metadata(&path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0) {
        check.warnings.push(format!(
            "management.token_file: everybody on this machine may read {shown}: chmod o= {shown}"
        ));
    }
    Some(Token::new(token))
}

fn host(
    check: &mut Check<'_>,
    file: &schema::Management,
    ports: &[schema::Port],
    tunnel: Option<&Tunnel>,
) -> HostPlan {
    let addresses: Vec<PortAddress> =
        ports.iter().enumerate().map(|(i, port)| address(check, i, port)).collect();
    let mut first: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for (i, address) in addresses.iter().enumerate() {
        let Some(AddressV4::Static(net)) = address.v4 else { continue };
        let same = *first.entry(net.addr()).or_insert(i);
        if same != i {
            let what = format!("{} is the address of port[{same}] already", net.addr());
            check.problem(&format!("port[{i}].address"), what, "each port has its own");
        }
    }
    let has_address = addresses.iter().any(|address| address.v4.is_some() || address.v6.is_some());
    let kind = match file.host {
        Some(HostKind::Stack) if !has_address => {
            let remedy = "give a [[port]] an address = \"10.0.8.20/24\" or \"dhcp\"";
            check.problem("management.host", "is \"stack\", but no port has an address", remedy);
            HostKind::Off
        }
        None if !has_address => HostKind::Off,
        given => given.unwrap_or_default(),
    };
    if kind == HostKind::Tap && has_address {
        check.warnings.push(
            "management.host = tap: the kernel has addresses of its own (`ip address add`), those of [[port]] are not used"
                .into(),
        );
    }
    let allowed_sources = sources(check, file, kind, &addresses, tunnel);
    let frames_per_s = check.range("management.frames_per_s", file.frames_per_s, 10_000, 100, 1_000_000);
    let tap_name = file.tap_name.clone().unwrap_or_else(|| "sluice".into());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if tap_name.is_empty() || tap_name.len() > LONGEST_NAME || !tap_name.bytes().all(plain) {
        let what = format!("{tap_name:?} cannot be the start of an interface's name");
        check.problem(
            "management.tap_name",
            what,
            format!("use up to {LONGEST_NAME} letters, digits, `-` or `_`"),
        );
    }
    let plan = HostPlan { kind, allowed_sources, frames_per_s, tap_name, ports: addresses };
    unreachable_sources(check, &plan);
    plan
}

fn address(check: &mut Check<'_>, i: usize, port: &schema::Port) -> PortAddress {
    let at = |key: &str| format!("port[{i}].{key}");
    let v4 = match port.address.as_deref() {
        None => None,
        Some("dhcp") => Some(AddressV4::Dhcp),
        Some(text) => match text.parse::<Ipv4Net>() {
            Ok(net) if is_host(net) => Some(AddressV4::Static(net)),
            Ok(net) => {
                let what = format!("{net} is not the address of a host in its subnet");
                check.problem(&at("address"), what, "give the address of the port itself");
                None
            }
            Err(_) => {
                let what = format!("{text:?} is not an IPv4 address with its prefix");
                check.problem(&at("address"), what, "write it as \"10.0.8.20/24\", or \"dhcp\"");
                None
            }
        },
    };
    let gateway = match (port.gateway.as_deref().map(|text| (text, text.parse::<Ipv4Addr>())), v4) {
        (None, _) => None,
        (Some((_, Ok(gateway))), Some(AddressV4::Static(net))) => {
            if !net.contains(&gateway) || gateway == net.addr() {
                let what = format!("{gateway} is not a neighbour in {}", net.trunc());
                check.problem(&at("gateway"), what, "a gateway is another host of the port's subnet");
            }
            Some(gateway)
        }
        (Some((_, Ok(_))), Some(AddressV4::Dhcp)) => {
            check.problem(&at("gateway"), "is told by DHCP", "leave it out, or give an address");
            None
        }
        (Some((_, Ok(_))), None) => {
            if port.address.is_none() {
                check.problem(&at("gateway"), "is there without an address", "give the port an address");
            }
            None
        }
        (Some((text, Err(_))), _) => {
            check.problem(
                &at("gateway"),
                format!("{text:?} is not an IPv4 address"),
                "write it as \"10.0.8.1\"",
            );
            None
        }
    };
    let v6 = port.address6.as_deref().and_then(|text| match text.parse::<Ipv6Net>() {
        Ok(net)
            if !net.addr().is_multicast() && !net.addr().is_unspecified() && !net.addr().is_loopback() =>
        {
            Some(net)
        }
        Ok(net) => {
            check.problem(&at("address6"), format!("{net} is not the address of a host"), "");
            None
        }
        Err(_) => {
            let what = format!("{text:?} is not an IPv6 address with its prefix");
            check.problem(&at("address6"), what, "write it as \"2001:db8::20/64\"");
            None
        }
    });
    PortAddress { v4, gateway, v6 }
}

/// Not the subnet itself, its broadcast address, or what no host can have.
fn is_host(net: Ipv4Net) -> bool {
    let address = net.addr();
    let inside = net.prefix_len() >= 31 || (address != net.network() && address != net.broadcast());
    inside && matches!(address.octets()[0], 1..=126 | 128..=223)
}

/// Who may reach the host stack: who is named, else the tunnel's sources; and the ports' own subnets.
fn sources(
    check: &mut Check<'_>,
    file: &schema::Management,
    kind: HostKind,
    addresses: &[PortAddress],
    tunnel: Option<&Tunnel>,
) -> Option<Vec<IpNet>> {
    let mut sources = Vec::new();
    match &file.allowed_sources {
        // A kernel has a firewall of its own, and what it connects to may be anywhere.
        None if kind == HostKind::Tap => return None,
        None => {
            let tunnel = tunnel.map_or(&[][..], |tunnel| &tunnel.allowed_sources);
            if tunnel.is_empty() {
                return None;
            }
            sources.extend(tunnel.iter().copied().map(IpNet::from));
        }
        Some(given) => {
            if given.len() > MOST_SOURCES {
                let what = format!("{} prefixes are too many", given.len());
                check.problem(
                    "management.allowed_sources",
                    what,
                    format!("{MOST_SOURCES} are enough; join neighbours"),
                );
            }
            for (i, text) in given.iter().enumerate() {
                sources.extend(source(check, &format!("management.allowed_sources[{i}]"), text));
            }
        }
    }
    for address in addresses {
        if let Some(AddressV4::Static(net)) = address.v4 {
            sources.push(net.trunc().into());
        }
        if let Some(net) = address.v6 {
            sources.push(net.trunc().into());
        }
    }
    // Neighbour discovery speaks from link-local addresses, and from none at all (RFC 4861, RFC 4862 section 5.4).
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    sources.extend([IpNet::from(link_local), Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128).into()]);
    sources.sort_unstable();
    sources.dedup();
    Some(sources)
}

fn source(check: &mut Check<'_>, place: &str, text: &str) -> Option<IpNet> {
    let net: Option<IpNet> =
        text.parse().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()));
    let Some(net) = net else {
        let what = format!("{text:?} is not a prefix");
        check.problem(place, what, "write it as \"10.0.8.0/24\" or \"2001:db8::/64\"");
        return None;
    };
    if net.trunc() != net {
        let what = format!("{net} has bits set behind the prefix");
        check.problem(place, what, format!("write {}", net.trunc()));
    }
    Some(net)
}

/// Sources in other networks can be let in and still get no answer.
fn unreachable_sources(check: &mut Check<'_>, plan: &HostPlan) {
    if plan.kind != HostKind::Stack {
        return;
    }
    for (i, port) in plan.ports.iter().enumerate() {
        let Some(AddressV4::Static(own)) = port.v4 else { continue };
        let other = plan.allowed_sources.iter().flatten().find_map(|net| match net {
            IpNet::V4(net) if !own.contains(net) && !plan.ports.iter().any(|other| holds(other, net)) => {
                Some(net)
            }
            _ => None,
        });
        if let (Some(net), None) = (other, port.gateway) {
            check.warnings.push(format!(
                "port[{i}].gateway is missing: {net} may reach the host stack but is in another network, so it gets no answer"
            ));
        }
    }
}

fn holds(port: &PortAddress, net: &Ipv4Net) -> bool {
    matches!(port.v4, Some(AddressV4::Static(own)) if own.contains(net))
}

fn health(check: &mut Check<'_>, file: &schema::Health) -> HealthPlan {
    let default = HealthPlan::default();
    let listen = listen(check, "management.health.listen", file.listen.as_deref());
    let port = check.range("management.health.port", file.port, default.port.into(), 1, 65_535) as u16;
    let mut fail_on = Vec::new();
    for (i, name) in file.fail_on.iter().enumerate() {
        let place = format!("management.health.fail_on[{i}]");
        let found = Cause::ALL.into_iter().find(|cause| cause.name() == name);
        match found {
            Some(cause) if cause.fails() => {
                check.problem(&place, format!("{name:?} always fails"), "leave it out");
            }
            Some(cause) => fail_on.push(cause),
            None => {
                let names: Vec<&str> =
                    Cause::ALL.into_iter().filter(|cause| !cause.fails()).map(Cause::name).collect();
                let what = format!("{name:?} is not one of {}", names.join(", "));
                check.problem(&place, what, suggestion(name, &names).unwrap_or_default());
            }
        }
    }
    let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let mut time = |key: &str, given, default, least, most| {
        range(check, &format!("management.health.{key}"), given, default, least, most)
    };
    HealthPlan {
        port,
        listen,
        when_failed: file.when_failed,
        fail_on,
        stuck_after: time("stuck_after", file.stuck_after, default.stuck_after, 500 * ms, 60 * second),
        pool_after: time("pool_after", file.pool_after, default.pool_after, second, 60 * second),
        hold: time("hold", file.hold, default.hold, Duration::ZERO, 600 * second),
    }
}

fn drain(check: &mut Check<'_>, file: &schema::Management) -> DrainPlan {
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let default = DrainPlan::default();
    let deadline =
        range(check, "management.drain_deadline", file.drain_deadline, default.deadline, second, day);
    let at_least = default.at_least.min(deadline);
    DrainPlan {
        on_sigterm: file.drain_on_sigterm,
        deadline,
        at_least: range(
            check,
            "management.drain_at_least",
            file.drain_at_least,
            at_least,
            Duration::ZERO,
            deadline,
        ),
    }
}

#[cfg(test)]
mod tests;
