//! What a configuration means: every value in its range, names unique, CPUs and stages there.
//!
//! All mistakes are collected; a section that is wrong gets its default, so that the next one can be checked too. A plan
//! comes out only if there was no mistake.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use config::Value;
use ipnet::Ipv4Net;

use super::machine::{Machine, cpu_list};
use super::schema::{self, Lcores};
use super::settings::find;
use super::source::{in_reading_order, origin_of, overrides};
use super::value::suggestion;
use super::{
    Asked, DEFAULT_PIPELINE, HostKind, Idle, Options, Plan, PortPlan, Problem, Tunnel, WorkerPlan, events,
    flow, management, memory, metrics, policy, ports, stages, stream, tenants,
};
use crate::dpdk::BURST;
use crate::dpdk::{EalPlan, LcorePlan};
use crate::event::Type;
use crate::packet::ReasonTable;
use crate::stage::WorkerId;
use crate::wire::geneve::Profile;

/// DPDK's `RTE_MAX_LCORE` in every distribution's build.
const MOST_LCORES: usize = 128;
/// Groups of descriptors that vector receive paths of DPDK's drivers take at a time.
const LEAST_BURST: usize = 8;
/// Accepted sources are searched one by one for each frame.
const MOST_PREFIXES: usize = 64;
/// What a gateway load balancer sends at most: 8500 bytes inside, 68 around (AWS, "Gateway Load Balancers").
const GWLB_PACKET: u16 = 8568;

/// EAL arguments that the plan sets itself, and the setting to use instead.
const OWN_ARGUMENTS: &[(&str, &str)] = &[
    ("-l", "eal.lcores"),
    ("-c", "eal.lcores"),
    ("--lcores", "eal.lcores"),
    ("--main-lcore", "eal.lcores"),
    ("-m", "eal.memory_mb"),
    ("--socket-mem", "eal.memory_mb"),
    ("--no-huge", "eal.memory"),
    ("--in-memory", "eal.memory"),
    ("--file-prefix", "eal.file_prefix"),
    ("-a", "[[port]] device"),
    ("--allow", "[[port]] device"),
    ("--vdev", "[[port]] device"),
];

/// What a check collects.
pub(super) struct Check<'a> {
    pub root: &'a Value,
    pub folder: &'a Path,
    pub options: &'a Options<'a>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
    /// Digest of the file of tenants, if there is one.
    pub tenants_digest: Option<String>,
}

/// Makes a plan of a file that was read.
pub(super) fn plan(
    name: &str,
    file: schema::File,
    root: &Value,
    folder: &Path,
    options: &Options<'_>,
) -> Result<Plan, Vec<Problem>> {
    let mut check = Check::new(root, folder, options);
    let mut eal = check.eal(&file.eal);
    let workers = workers(&eal.lcores);
    let burst = check.range("eal.burst", file.eal.burst, 32, 1, BURST as u32) as usize;
    if burst < LEAST_BURST {
        check.warnings.push(format!(
            "eal.burst = {burst}: vector receive, which many drivers use, takes frames 4 or 8 at a time and finds none for a \
             smaller burst: give at least {LEAST_BURST}"
        ));
    }
    let mut ports = ports::check(&mut check, &file.port, workers.len());
    let tunnel = check.tunnel(&file.tunnel);
    check.mtu(&ports, tunnel.as_ref());
    let sized = flow::capacity(&mut check, &file.flow, workers.len());
    let profile = tunnel.as_ref().map(|tunnel| tunnel.profile);
    let claims = tenants::claims(&mut check, &file);
    let mut reasons = ReasonTable::framework();
    let stages = stages::check(&mut check, Some(&claims.names()), &mut reasons);
    let (tenants, unknown) = tenants::check(&mut check, &file, claims, &sized, profile, &stages);
    let events = events::check(&mut check, &file.events, &reasons);
    let told = events.wanted().has(Type::Flow) || events.wanted().has(Type::FlowStart);
    let around = flow::Around { tunnel: tunnel.as_ref(), stages: &stages, told };
    let flow = flow::check(&mut check, &file.flow, sized, tenants, unknown, &around);
    if !flow.tracking
        && (flow.tenants.iter().any(|tenant| tenant.pipeline != DEFAULT_PIPELINE)
            || stages.iter().any(|stage| stage.pipelines != [DEFAULT_PIPELINE]))
    {
        let what = "is false, but tenants have pipelines of their own, and flows remember whose they are";
        check.problem("flow.tracking", what, "leave it out, or let all stages be everybody's");
    }
    if flow.tracking {
        stages::fit_flows(&mut check, stages.len());
    }
    let management = management::check(&mut check, name, &file.management, &file.port, tunnel.as_ref());
    for (port, address) in ports.iter_mut().zip(&management.host.ports) {
        let kind = management.host.kind;
        port.config.multicast = kind == HostKind::Tap || (kind == HostKind::Stack && address.v6.is_some());
    }
    let metrics = metrics::check(&mut check, &file.metrics);
    let stream = stream::check(&mut check, &file.stream, flow.tenants.len());
    let (pool, memory) = memory::plan(&memory::Needs {
        ports: &ports,
        workers: workers.len(),
        burst,
        extra_buffers: file.eal.extra_buffers,
        stages: stages.iter().map(|stage| stage.parsed.eal_memory()).sum(),
        flow: &flow,
        // Also where no stage reads streams: one may come by a reload, and the pool does not grow.
        held_for_stages: if flow.tracking { stream.hold } else { 0 },
    });
    eal.memory_mb = match file.eal.memory_mb.0 {
        None => memory.megabytes,
        Some(given) => {
            let given = check.range("eal.memory_mb", Some(given), given, 16, 1 << 20);
            if given < memory.megabytes {
                check.warnings.push(format!(
                    "eal.memory_mb = {given} is less than the {} MB that the plan needs by its formula",
                    memory.megabytes
                ));
            }
            given
        }
    };
    check.lcore_warnings(&eal.lcores, file.eal.idle);
    match tunnel {
        Some(tunnel) if check.problems.is_empty() => {
            let mut plan = Plan {
                file: name.to_owned(),
                eal,
                ports,
                workers,
                pool,
                asked: Asked { memory_mb: file.eal.memory_mb.0, extra_buffers: file.eal.extra_buffers },
                memory_formula: memory.formula,
                tunnel,
                idle: file.eal.idle,
                burst,
                flow,
                stream,
                management,
                events,
                metrics,
                stages,
                reasons,
                policy: String::new(),
                overrides: overrides(root),
                warnings: check.warnings,
            };
            plan.policy = policy::hash(&plan, policy::of_tenants(root, check.tenants_digest));
            Ok(plan)
        }
        _ => Err(in_reading_order(check.problems)),
    }
}

/// The mistakes of the stages, when the rest of the file could not be read.
pub(super) fn stages_only(root: &Value, folder: &Path, options: &Options<'_>) -> Vec<Problem> {
    let mut check = Check::new(root, folder, options);
    stages::check(&mut check, None, &mut ReasonTable::framework());
    check.problems
}

/// The first lcore is the management's, the others are workers; a lone CPU carries both.
pub(super) fn workers(lcores: &[LcorePlan]) -> Vec<WorkerPlan> {
    let workers = lcores.iter().skip(1).enumerate();
    workers.map(|(i, lcore)| WorkerPlan { id: WorkerId(i as u16), lcore: *lcore }).collect()
}

impl<'a> Check<'a> {
    pub(super) fn new(root: &'a Value, folder: &'a Path, options: &'a Options<'a>) -> Self {
        Check { root, folder, options, problems: Vec::new(), warnings: Vec::new(), tenants_digest: None }
    }
}

impl Check<'_> {
    /// Records a mistake in the value at a path, or in the innermost table that is there.
    pub fn problem(&mut self, place: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let origin = origin_of(find(self.root, place));
        let (what, remedy) = (what.into(), remedy.into());
        self.problems.push(Problem { origin, place: place.to_owned(), what, remedy });
    }

    /// A number in its range, or the default.
    pub fn range(&mut self, place: &str, given: Option<u32>, default: u32, min: u32, max: u32) -> u32 {
        match given {
            Some(n) if n < min || n > max => {
                self.problem(place, format!("{n} is not between {min} and {max}"), "");
                default
            }
            Some(n) => n,
            None => default,
        }
    }

    pub(super) fn eal(&mut self, eal: &schema::Eal) -> EalPlan {
        let default_prefix = || format!("sluicegate-{}", std::process::id());
        let file_prefix = eal.file_prefix.clone().unwrap_or_else(default_prefix);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if file_prefix.is_empty() || file_prefix.len() > 64 || !file_prefix.bytes().all(plain) {
            let remedy = "use up to 64 letters, digits, `-`, `_` or `.`";
            self.problem("eal.file_prefix", format!("{file_prefix:?} cannot be part of a file name"), remedy);
        }
        for (i, argument) in eal.args.iter().enumerate() {
            let word = argument.split('=').next().unwrap_or(argument);
            if let Some((_, setting)) = OWN_ARGUMENTS.iter().find(|(own, _)| *own == word) {
                let what = format!("{word} is set by the plan");
                self.problem(&format!("eal.args[{i}]"), what, format!("use {setting} instead"));
            } else if argument.contains('\0') {
                self.problem(&format!("eal.args[{i}]"), "contains a zero byte", "");
            }
        }
        let lcores = self.lcores(&eal.lcores);
        EalPlan { memory: eal.memory, memory_mb: 0, file_prefix, lcores, args: eal.args.clone() }
    }

    /// CPUs for the management lcore and the workers.
    fn lcores(&mut self, lcores: &Lcores) -> Vec<LcorePlan> {
        let machine: &Machine = &self.options.machine;
        let mut cpus = match lcores {
            Lcores::Auto => machine.cpus.iter().copied().take(machine.worth.min(MOST_LCORES)).collect(),
            Lcores::List(cpus) => cpus.clone(),
            Lcores::Text(text) => match cpu_list(text) {
                Ok(cpus) => cpus,
                Err(what) => {
                    let remedy = "write \"auto\", a list such as [0, 1], or \"0-3,5\"";
                    self.problem("eal.lcores", what, remedy);
                    Vec::new()
                }
            },
        };
        let mut missing: Vec<u32> = cpus.iter().copied().filter(|cpu| !machine.cpus.contains(cpu)).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let missing = Machine { cpus: missing, worth: 0 }.list();
            let what = format!("CPU {missing} is not there or not allowed to this process");
            let remedy = format!("it may use {}", machine.list());
            self.problem("eal.lcores", what, remedy);
        }
        if matches!(lcores, Lcores::List(list) if list.is_empty()) {
            self.problem("eal.lcores", "is empty", "name at least one CPU, or leave it at \"auto\"");
        }
        if cpus.len() > MOST_LCORES {
            let what = format!("these are {} lcores", cpus.len());
            self.problem("eal.lcores", what, format!("DPDK has at most {MOST_LCORES}"));
            cpus.truncate(MOST_LCORES);
        }
        if let [one] = cpus[..] {
            cpus.push(one);
        }
        (0..).zip(cpus).map(|(lcore, cpu)| LcorePlan { lcore, cpu }).collect()
    }

    pub(super) fn lcore_warnings(&mut self, lcores: &[LcorePlan], idle: Idle) {
        let mut on: BTreeMap<u32, usize> = BTreeMap::new();
        for lcore in lcores {
            *on.entry(lcore.cpu).or_default() += 1;
        }
        for (cpu, lcores) in on.into_iter().filter(|(_, lcores)| *lcores > 1) {
            let remedy = match idle {
                Idle::Spin => "; eal.idle = \"backoff\" lets them take turns",
                Idle::Backoff => "",
            };
            self.warnings.push(format!("CPU {cpu} carries {lcores} lcores{remedy}"));
        }
    }

    fn tunnel(&mut self, tunnel: &schema::Tunnel) -> Option<Tunnel> {
        let name = tunnel.profile.as_deref().unwrap_or("aws");
        let profile = self.profile(name);
        let port = self.range("tunnel.port", tunnel.port, 6081, 1, u32::from(u16::MAX)) as u16;
        let mut allowed_sources = Vec::new();
        for (i, text) in tunnel.allowed_sources.iter().enumerate() {
            if let Some(prefix) = self.prefix(&format!("tunnel.allowed_sources[{i}]"), text) {
                allowed_sources.push(prefix);
            }
        }
        if allowed_sources.len() > MOST_PREFIXES {
            let what = format!("{} prefixes are too many", allowed_sources.len());
            let remedy = format!("the load balancer's subnets fit in {MOST_PREFIXES}; join neighbours");
            self.problem("tunnel.allowed_sources", what, remedy);
        }
        if tunnel.allowed_sources.is_empty() {
            self.warnings.push(
                "tunnel.allowed_sources is empty: anyone who can reach the port can send through the tunnel; \
                 name the load balancer's subnets"
                    .into(),
            );
        }
        let mut addresses = Vec::new();
        for (i, text) in tunnel.addresses.iter().enumerate() {
            let place = format!("tunnel.addresses[{i}]");
            match text.parse::<Ipv4Addr>() {
                Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() => {
                    self.problem(&place, format!("{a} is not the address of a port"), "");
                }
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let remedy = "write it as \"10.0.8.5\"; the tunnel is IPv4, what is inside may be IPv6";
                    self.problem(&place, format!("{text:?} is not an IPv4 address"), remedy);
                }
            }
        }
        let max_return = match tunnel.max_return {
            None => profile.map_or(u16::MAX, |profile| profile.max_return),
            Some(schema::Limit(None)) => u16::MAX,
            Some(schema::Limit(bytes)) => {
                self.range("tunnel.max_return", bytes, 0, 576, u32::from(u16::MAX)) as u16
            }
        };
        let verify_checksum = tunnel.verify_checksum;
        Some(Tunnel { profile: profile?, port, allowed_sources, addresses, verify_checksum, max_return })
    }

    pub(super) fn profile(&mut self, name: &str) -> Option<&'static Profile> {
        let found = Profile::by_name(name);
        if found.is_none() {
            let names = Profile::ALL.map(|profile| profile.name);
            let what = format!("{name:?} is not one of {}", names.join(", "));
            let remedy = suggestion(name, &names).unwrap_or_default();
            self.problem("tunnel.profile", what, remedy);
        }
        found
    }

    /// An IPv4 prefix or address. Bits behind the prefix are a mistake: it is not known which of the two was meant.
    fn prefix(&mut self, place: &str, text: &str) -> Option<Ipv4Net> {
        let net: Option<Ipv4Net> = text.parse().ok().or_else(|| Some(text.parse::<Ipv4Addr>().ok()?.into()));
        let Some(net) = net else {
            let what = format!("{text:?} is not an IPv4 prefix");
            self.problem(place, what, "write it as \"10.0.8.0/24\"");
            return None;
        };
        if net.trunc() != net {
            let what = format!("{net} has bits set behind the prefix");
            self.problem(place, what, format!("write {} or {}/32", net.trunc(), net.addr()));
        }
        Some(net)
    }

    /// A port that is too small for what the load balancer sends.
    fn mtu(&mut self, ports: &[PortPlan], tunnel: Option<&Tunnel>) {
        if tunnel.is_none_or(|tunnel| tunnel.profile.name != "aws") {
            return;
        }
        for (i, port) in ports.iter().enumerate() {
            if let Some(mtu) = port.mtu.filter(|mtu| *mtu < GWLB_PACKET) {
                self.warnings.push(format!(
                    "port[{i}].mtu = {mtu}: a gateway load balancer of AWS sends packets of up to {GWLB_PACKET} bytes; \
                     larger than the MTU are lost in the driver"
                ));
            }
        }
    }
}
