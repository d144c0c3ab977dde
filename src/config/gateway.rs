//! A gateway's file: ports with names, endpoints with two legs each, targets.
//!
//! It is a file of its own kind: an appliance's pipeline has no endpoints with legs, and a gateway has no stages. What both have (`[eal]`, devices,
//! the tunnel's profile) is read and checked by the same code.

mod display;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use config::Value;
use ipnet::Ipv4Net;

use super::check::{Check, workers};
use super::schema::{self, GatewayFile, Lcores, Span};
use super::source::{in_reading_order, overrides};
use super::value::{known_here, quoted};
use super::{
    EndpointPlan, Failover, FlowPlan, GatewayPlan, LegPlan, Options, Overrides, PortPlan, Problem,
    TargetPlan, endpoint_of, memory, ports,
};
use crate::dpdk::BURST;
use crate::gateway::checks::HealthCheck;
use crate::gateway::{Backend, Bad, LARGEST_TABLE, MOST_TARGETS, MOST_WEIGHT, Maglev, TABLE};
use crate::wire::geneve::Scope;

/// Endpoints of a gateway: as many as pairs of VLANs on some ports.
const MOST_ENDPOINTS: usize = 16_384;
/// A worker's lanes have numbers of eight bits.
const MOST_PORTS: usize = 64;
/// Flows, and what remembers them.
const LEAST_FLOWS: u32 = 1 << 10;
const MOST_FLOWS: u32 = 1 << 26;
const FLOWS: u32 = 1 << 18;
/// AWS's defaults and bounds (Elastic Load Balancing user guide, "Target groups").
const TCP_IDLE: [u64; 3] = [350, 60, 6000];
const OTHER_IDLE: [u64; 3] = [120, 1, 6000];
const DEREGISTRATION: [u64; 3] = [300, 0, 3600];
/// Bytes around a packet: IPv4, UDP, GENEVE, three options.
const AROUND: u16 = 68;
/// MTU of a port that says "auto", if the device can.
const AUTO_MTU: u16 = 9001;

/// Is this the text of a gateway's file? By the tables that only such a file has.
pub fn is_gateway(text: &str) -> bool {
    let (root, _) = super::source::parse("", text);
    let config::ValueKind::Table(table) = &root.kind else { return false };
    ["gateway", "endpoint", "target"].iter().any(|key| table.contains_key(*key))
}

/// Reads and checks a gateway's file. All problems that can be found are returned, in reading order.
pub fn load(path: &Path, overrides: &Overrides, options: &Options<'_>) -> Result<GatewayPlan, Vec<Problem>> {
    let text = super::read(path)?;
    load_text(&path.display().to_string(), &text, overrides, options)
}

/// Reads and checks a text as if it were a file of that name.
pub fn load_text(
    name: &str,
    text: &str,
    overrides: &Overrides,
    options: &Options<'_>,
) -> Result<GatewayPlan, Vec<Problem>> {
    let (root, mut problems) = super::tree(name, text, overrides)?;
    let (file, refused) = super::value::read_partly::<GatewayFile>(&root, "", &[]);
    problems.extend(refused);
    match file.map(|file| plan(name, &file, &root, options)) {
        Some(Ok(plan)) if problems.is_empty() => Ok(plan),
        checked => {
            let more = checked.and_then(Result::err).unwrap_or_default();
            // What could not be read may be what the check misses.
            let follows =
                |problem: &Problem| problems.iter().any(|other| other.place.starts_with(&problem.place));
            let more: Vec<Problem> = more.into_iter().filter(|problem| !follows(problem)).collect();
            problems.extend(more);
            Err(in_reading_order(problems))
        }
    }
}

fn plan(
    name: &str,
    file: &GatewayFile,
    root: &Value,
    options: &Options<'_>,
) -> Result<GatewayPlan, Vec<Problem>> {
    let mut check = Check::new(root, Path::new(""), options);
    let mut eal = check.eal(&file.eal);
    match &file.eal.lcores {
        // Flows would need an owner among several workers; one is what there is.
        Lcores::Auto => eal.lcores.truncate(2),
        _ if eal.lcores.len() > 2 => {
            let what = format!("these are {} workers: a gateway has one so far", eal.lcores.len() - 1);
            check.problem("eal.lcores", what, "name two CPUs: one manages, one works");
        }
        _ => {}
    }
    let workers = workers(&eal.lcores);
    let burst = check.range("eal.burst", file.eal.burst, 32, 1, BURST as u32) as usize;
    let (mut ports, names) = named_ports(&mut check, &file.port, workers.len());
    let profile = check.profile(file.tunnel.profile.as_deref().unwrap_or("aws"));
    let udp_port = check.range("tunnel.port", file.tunnel.port, 6081, 1, u32::from(u16::MAX)) as u16;
    let endpoints = endpoints(&mut check, file, &names, profile.is_some_and(|p| p.scope == Scope::Vni));
    let targets_port = targets_port(&mut check, file, &names, &endpoints);
    // A leg takes frames for any address; the targets' port only its own.
    for leg in endpoints.iter().flat_map(|endpoint| endpoint.legs) {
        if let Some(port) = ports.get_mut(leg.port) {
            port.config.promiscuous = true;
            port.config.multicast = true;
        }
    }
    check.unused(&names, &endpoints, targets_port);
    check.leg_mtu(&ports, &endpoints, targets_port, profile.map_or(u16::MAX, |profile| profile.max_return));
    let address = own_address(&mut check, file);
    let router = router(&mut check, file, address);
    let zone = file.gateway.zone.clone().unwrap_or_default();
    let targets = targets(&mut check, file, &zone);
    check.reachable(&targets, address, router);
    let table = table(&mut check, file, &targets, &zone);
    let health_check = health_check(&mut check, file);
    let mut time = |place: &str, given: Option<Span>, [default, least, most]: [u64; 3]| {
        let [default, least, most] = [default, least, most].map(Duration::from_secs);
        super::flow::range(&mut check, place, given, default, least, most)
    };
    let tcp_idle = time("flow.tcp_idle", file.flow.tcp_idle, TCP_IDLE);
    let other_idle = time("flow.other_idle", file.flow.other_idle, OTHER_IDLE);
    let delay = time("gateway.deregistration_delay", file.gateway.deregistration_delay, DEREGISTRATION);
    let capacity = check.range("flow.capacity", file.flow.capacity, FLOWS, LEAST_FLOWS, MOST_FLOWS);
    let (pool, memory) = memory::plan(&memory::Needs {
        ports: &ports,
        workers: workers.len(),
        burst,
        extra_buffers: file.eal.extra_buffers,
        stages: 0,
        flow: &FlowPlan { tracking: false, ..FlowPlan::default() },
        held_for_stages: 0,
    });
    eal.memory_mb = file.eal.memory_mb.0.unwrap_or(memory.megabytes);
    check.lcore_warnings(&eal.lcores, file.eal.idle);
    let (Some(profile), Some(address), Some(targets_port), true) =
        (profile, address, targets_port, check.problems.is_empty())
    else {
        return Err(in_reading_order(check.problems));
    };
    Ok(GatewayPlan {
        file: name.to_owned(),
        eal,
        ports,
        names,
        workers,
        pool,
        memory_formula: memory.formula,
        idle: file.eal.idle,
        burst,
        profile,
        udp_port,
        checksum: file.tunnel.checksum,
        verify_checksum: file.tunnel.verify_checksum,
        targets_port,
        address,
        router,
        zone,
        cross_zone: file.gateway.cross_zone,
        stickiness: file.gateway.stickiness,
        table,
        seed: file.gateway.seed.unwrap_or(0),
        non_ip: file.gateway.non_ip,
        failover: file.gateway.failover,
        deregistration_delay: delay,
        capacity,
        tcp_idle,
        other_idle,
        unknown_tcp: file.flow.unknown_tcp,
        endpoints,
        targets,
        health_check,
        overrides: overrides(root),
        warnings: check.warnings,
    })
}

/// Ports, and what they are called: `port0`, `port1`, ... where nobody says.
fn named_ports(
    check: &mut Check<'_>,
    given: &[schema::NamedPort],
    workers: usize,
) -> (Vec<PortPlan>, Vec<String>) {
    if given.len() > MOST_PORTS {
        check.problem("", format!("{} ports", given.len()), format!("a gateway has at most {MOST_PORTS}"));
    }
    let plain = |port: &schema::NamedPort| schema::Port {
        device: port.device.clone(),
        queues: schema::Auto(Some(1)),
        rx_descriptors: port.rx_descriptors,
        tx_descriptors: port.tx_descriptors,
        mtu: port.mtu,
        ..schema::Port::default()
    };
    let plans = ports::check(check, &given.iter().map(plain).collect::<Vec<_>>(), workers);
    let mut names: Vec<String> = Vec::new();
    for (i, port) in given.iter().enumerate() {
        let name = port.name.clone().unwrap_or_else(|| format!("port{i}"));
        let place = format!("port[{i}].name");
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if name.is_empty() || !name.bytes().all(letter) {
            let remedy = "use letters, digits, `-` and `_`; what follows a dot is a leg's VLAN";
            check.problem(&place, format!("{} is not a name", quoted(&name)), remedy);
        } else if let Some(same) = names.iter().position(|other| *other == name) {
            check.problem(
                &place,
                format!("{} is port[{same}] already", quoted(&name)),
                "give each a name of its own",
            );
        }
        names.push(name);
    }
    (plans, names)
}

fn endpoints(check: &mut Check<'_>, file: &GatewayFile, names: &[String], is_vni: bool) -> Vec<EndpointPlan> {
    if file.endpoint.is_empty() {
        let remedy = "add one: [[endpoint]] id = \"vpce-0123456789abcdef0\", legs = [\"wan\", \"lan\"]";
        check.problem("", "no [[endpoint]]: there is nothing to forward", remedy);
    }
    if file.endpoint.len() > MOST_ENDPOINTS {
        let what = format!("{} endpoints", file.endpoint.len());
        check.problem("", what, format!("a gateway has at most {MOST_ENDPOINTS}"));
    }
    let mut ids: BTreeMap<u64, usize> = BTreeMap::new();
    let mut taken: BTreeMap<(usize, Option<u16>), usize> = BTreeMap::new();
    let mut plans = Vec::new();
    for (i, endpoint) in file.endpoint.iter().enumerate().take(MOST_ENDPOINTS) {
        let at = |key: &str| format!("endpoint[{i}].{key}");
        let id = match endpoint.id.as_ref().map(|word| endpoint_of(&word.0)) {
            None => {
                check.problem(
                    &format!("endpoint[{i}]"),
                    "\"id\" is missing",
                    "write id = \"vpce-0123456789abcdef0\", or a number",
                );
                0
            }
            Some(Err(what)) => {
                check.problem(&at("id"), what, "");
                0
            }
            Some(Ok(id)) if is_vni && id > 0xff_ffff => {
                check.problem(
                    &at("id"),
                    format!("{id} does not fit into a VNI"),
                    "this profile has 24 bits for it",
                );
                id
            }
            Some(Ok(id)) => {
                let same = *ids.entry(id).or_insert(i);
                if same != i {
                    check.problem(
                        &at("id"),
                        format!("is that of endpoint[{same}]"),
                        "each has an id of its own",
                    );
                }
                id
            }
        };
        let [one, two] = &endpoint.legs[..] else {
            let what = format!("has {} legs", endpoint.legs.len());
            check.problem(
                &at("legs"),
                what,
                "an endpoint has two: legs = [\"wan\", \"lan\"], or [\"trunk.10\", \"trunk.20\"]",
            );
            continue;
        };
        let legs = [(one, 0), (two, 1)]
            .map(|(text, n)| leg(check, &format!("endpoint[{i}].legs[{n}]"), text, names));
        let [Some(one), Some(two)] = legs else { continue };
        for (n, leg) in [one, two].iter().enumerate() {
            let place = format!("endpoint[{i}].legs[{n}]");
            if let Some(same) = taken.insert((leg.port, leg.vlan), i) {
                let what = match same == i {
                    true => "is the other leg, too".to_owned(),
                    false => format!("is a leg of endpoint[{same}]"),
                };
                check.problem(&place, what, "a frame's port and VLAN must say which leg it came in by");
            }
        }
        plans.push(EndpointPlan { id, legs: [one, two] });
    }
    plans
}

/// `wan`, or `wan.10`.
fn leg(check: &mut Check<'_>, place: &str, text: &str, names: &[String]) -> Option<LegPlan> {
    let (name, vlan) = text.split_once('.').map_or((text, None), |(name, vlan)| (name, Some(vlan)));
    let Some(port) = names.iter().position(|other| other == name) else {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        check.problem(place, format!("there is no port {}", quoted(name)), known_here(name, &names));
        return None;
    };
    let vlan = match vlan.map(str::parse::<u16>) {
        None => None,
        Some(Ok(vlan @ 1..=4094)) => Some(vlan),
        Some(_) => {
            check.problem(
                place,
                format!("{} does not end in a VLAN", quoted(text)),
                "write wan.1 to wan.4094",
            );
            return None;
        }
    };
    Some(LegPlan { port, vlan })
}

/// The port on which targets are.
fn targets_port(
    check: &mut Check<'_>,
    file: &GatewayFile,
    names: &[String],
    endpoints: &[EndpointPlan],
) -> Option<usize> {
    let Some(name) = &file.gateway.port else {
        check.problem("gateway", "\"port\" is missing", "name the [[port]] on which targets are");
        return None;
    };
    let Some(port) = names.iter().position(|other| other == name) else {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        check.problem("gateway.port", format!("there is no port {}", quoted(name)), known_here(name, &names));
        return None;
    };
    if let Some(i) = endpoints.iter().position(|endpoint| endpoint.legs.iter().any(|leg| leg.port == port)) {
        let what = format!("{} has legs of endpoint[{i}]", quoted(name));
        check.problem("gateway.port", what, "targets need a port of their own");
    }
    Some(port)
}

fn own_address(check: &mut Check<'_>, file: &GatewayFile) -> Option<Ipv4Net> {
    let remedy =
        "write the gateway's address on the targets' port with its subnet: address = \"10.0.8.2/24\"";
    let Some(text) = &file.gateway.address else {
        check.problem("gateway", "\"address\" is missing", remedy);
        return None;
    };
    let Ok(net) = text.parse::<Ipv4Net>() else {
        check.problem(
            "gateway.address",
            format!("{} is not an address with its subnet", quoted(text)),
            remedy,
        );
        return None;
    };
    if !is_host(net.addr())
        || net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast())
    {
        check.problem("gateway.address", format!("{} is not a host's address", net.addr()), remedy);
    }
    Some(net)
}

fn router(check: &mut Check<'_>, file: &GatewayFile, own: Option<Ipv4Net>) -> Option<Ipv4Addr> {
    let text = file.gateway.router.as_ref()?;
    let Ok(router) = text.parse::<Ipv4Addr>() else {
        check.problem("gateway.router", format!("{} is not an address", quoted(text)), "write \"10.0.8.1\"");
        return None;
    };
    if own.is_some_and(|own| !own.contains(&router) || own.addr() == router) {
        let what = format!("{router} is not another host of gateway.address' subnet");
        check.problem("gateway.router", what, "a router is reached directly");
    }
    Some(router)
}

fn targets(check: &mut Check<'_>, file: &GatewayFile, zone: &str) -> Vec<TargetPlan> {
    if file.target.is_empty() {
        check.problem("", "no [[target]]: nobody to send to", "add one: [[target]] address = \"10.0.8.11\"");
    }
    if file.target.len() > MOST_TARGETS {
        let what = format!("{} targets", file.target.len());
        check.problem("", what, format!("a gateway has at most {MOST_TARGETS}"));
    }
    let mut first: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    let mut plans = Vec::new();
    for (i, target) in file.target.iter().enumerate().take(MOST_TARGETS) {
        let at = |key: &str| format!("target[{i}].{key}");
        let weight = check.range(&at("weight"), target.weight, 1, 0, MOST_WEIGHT);
        let mac = target.mac.as_ref().and_then(|text| {
            let mac = mac_of(text);
            if mac.is_none() {
                let what = format!("{} is not the MAC address of one device", quoted(text));
                check.problem(
                    &at("mac"),
                    what,
                    "write it as \"02:00:00:00:00:0b\", or leave it out: it is asked for then",
                );
            }
            mac
        });
        let Some(text) = &target.address else {
            check.problem(&format!("target[{i}]"), "\"address\" is missing", "write address = \"10.0.8.11\"");
            continue;
        };
        let Some(address) = text.parse::<Ipv4Addr>().ok().filter(|address| is_host(*address)) else {
            let what = format!("{} is not a host's IPv4 address", quoted(text));
            check.problem(&at("address"), what, "the tunnel is IPv4, what is inside may be IPv6");
            continue;
        };
        let same = *first.entry(address).or_insert(i);
        if same != i {
            check.problem(&at("address"), format!("{address} is target[{same}] already"), "");
        }
        let zone = target.zone.clone().unwrap_or_else(|| zone.to_owned());
        plans.push(TargetPlan { address, mac, zone, weight });
    }
    plans
}

/// How targets are checked, if they are.
fn health_check(check: &mut Check<'_>, file: &GatewayFile) -> Option<HealthCheck> {
    let (health_check, wrongs, warnings) = file.health_check.as_ref()?.check();
    for wrong in wrongs {
        check.problem(&format!("health_check.{}", wrong.key), wrong.what, wrong.remedy);
    }
    check.warnings.extend(warnings);
    Some(health_check)
}

/// Unicast (RFC 1112 section 4 for the rest), and not "this network" or loopback.
fn is_host(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 1..=126 | 128..=223)
}

fn mac_of(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split(':').map(|part| match part.len() {
        2 => u8::from_str_radix(part, 16).ok(),
        _ => None,
    });
    let mut mac = [0; 6];
    for place in &mut mac {
        *place = bytes.next()??;
    }
    // The lowest bit of the first byte: a group.
    (bytes.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Slots of the table, and whether everybody who should have one does.
fn table(check: &mut Check<'_>, file: &GatewayFile, targets: &[TargetPlan], zone: &str) -> u32 {
    let size = check.range("gateway.table", file.gateway.table, TABLE, 2, LARGEST_TABLE);
    let here = |target: &TargetPlan| file.gateway.cross_zone || target.zone == zone;
    let names: Vec<[u8; 4]> = targets.iter().map(|target| target.address.octets()).collect();
    let backends: Vec<Backend<'_>> = targets
        .iter()
        .zip(&names)
        .map(|(target, name)| Backend { name, weight: if here(target) { target.weight } else { 0 } })
        .collect();
    match Maglev::build(size, &backends) {
        Ok(_) => {
            if !targets.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
                let what = match file.gateway.cross_zone {
                    true => "no target has a weight above 0: no flow finds one".to_owned(),
                    false => format!(
                        "no target stands in gateway.zone {}, with a weight above 0: no flow finds one",
                        quoted(zone)
                    ),
                };
                check.problem("target", what, "set zone or weight of some, or gateway.cross_zone = true");
            }
        }
        Err(Bad::Size(size)) => {
            check.problem(
                "gateway.table",
                format!("{size} is not a prime number"),
                format!("take {TABLE}, or a larger prime"),
            );
        }
        Err(Bad::Twins(..)) => {} // told with the addresses
        Err(bad @ (Bad::Crowded(..) | Bad::Slotless(..))) => {
            check.problem("gateway.table", bad.to_string(), "make it larger, or the weights less different");
        }
    }
    size
}

impl Check<'_> {
    /// Ports that nothing is said of.
    fn unused(&mut self, names: &[String], endpoints: &[EndpointPlan], targets: Option<usize>) {
        for (i, name) in names.iter().enumerate() {
            let is_leg = endpoints.iter().any(|endpoint| endpoint.legs.iter().any(|leg| leg.port == i));
            if !is_leg && targets != Some(i) && self.problems.is_empty() {
                self.warnings.push(format!(
                    "port[{i}] {} is neither a leg nor the targets' port: all that comes in there is dropped",
                    quoted(name)
                ));
            }
        }
    }

    /// Packets that a leg takes and the targets' port cannot carry.
    fn leg_mtu(&mut self, ports: &[PortPlan], endpoints: &[EndpointPlan], targets: Option<usize>, most: u16) {
        let mtu = |port: usize| ports.get(port).map_or(AUTO_MTU, |port| port.mtu.unwrap_or(AUTO_MTU));
        let Some(carried) = targets.map(|port| mtu(port).saturating_sub(AROUND)) else { return };
        let legs = endpoints.iter().flat_map(|endpoint| endpoint.legs);
        let Some(largest) = legs.map(|leg| mtu(leg.port)).max() else { return };
        if largest.min(most) > carried {
            self.warnings.push(format!(
                "packets of more than {carried} bytes are dropped as gateway.too_big: legs take up to {largest}, and the targets' port has room \
                 for {carried} with an envelope of {AROUND} around them"
            ));
        }
    }

    /// Targets that no frame finds.
    fn reachable(&mut self, targets: &[TargetPlan], own: Option<Ipv4Net>, router: Option<Ipv4Addr>) {
        let Some(own) = own else { return };
        for (i, target) in targets.iter().enumerate() {
            if target.mac.is_none() && router.is_none() && !own.contains(&target.address) {
                let what =
                    format!("{} is not in the subnet of gateway.address, {}", target.address, own.trunc());
                self.problem(
                    &format!("target[{i}].address"),
                    what,
                    "set gateway.router, or the target's mac",
                );
            }
        }
    }
}

/// Names of what can be said of failover, for whoever prints it.
impl std::fmt::Display for Failover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Failover::NoRebalance => "no_rebalance",
            Failover::Rebalance => "rebalance",
        })
    }
}

#[cfg(test)]
mod tests;
