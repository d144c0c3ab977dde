//! `sluicegate conform`: is an appliance as a gateway load balancer wants it?

use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use ipnet::Ipv4Net;

use super::interrupt::Interrupt;
use super::show::say;
use super::{FAILED, Failure, OK, Outcome, show};
use crate::conform::wire::Kernel;
use crate::conform::{
    Check, Found, Health, Level, Profile, Report, Settings, Verdict, Watch, Wire, checks, judge, profile,
    report,
};

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// Judge any GENEVE appliance: play the load balancer, and say what comes back wrong.
#[derive(Debug, Args)]
pub struct Conform {
    /// The appliance's address
    #[arg(long, value_name = "ADDRESS", required_unless_present = "list")]
    target: Option<Ipv4Addr>,
    /// Our address: the load balancer's node. With --port with its subnet, 10.0.8.5/24; without, the one that the kernel would send from
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Send by this device of DPDK instead of the kernel's sockets: a PCI address or a vdev such as net_af_packet0,iface=eth1
    #[arg(long, value_name = "DEVICE", requires = "bind")]
    port: Option<String>,
    /// Largest IP packet of the port
    #[arg(long, value_name = "BYTES", default_value_t = 1600, requires = "port", value_parser = clap::value_parser!(u16).range(576..=9216))]
    mtu: u16,
    /// The router to the appliance, if it is not in the port's subnet
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    gateway: Option<Ipv4Addr>,
    /// MAC address of the appliance or router, instead of asking by ARP
    #[arg(long, value_name = "MAC", requires = "port", value_parser = mac)]
    mac: Option<[u8; 6]>,
    /// The load balancer that is played
    #[arg(long, default_value = "aws", value_parser = profile_of)]
    profile: &'static Profile,
    /// UDP port of the tunnel
    #[arg(long, value_name = "PORT", default_value_t = 6081)]
    tunnel_port: u16,
    /// Only these checks or groups (repeatable, or with commas)
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Not these checks or groups
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    skip: Vec<String>,
    /// Show what is demanded, and by whom, and stop
    #[arg(long)]
    list: bool,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// How often a check is tried if nothing comes back
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// The same seed makes the same packets; without one it is new each time, so that flows of the last run do not matter
    #[arg(long)]
    seed: Option<u64>,
    /// Inner addresses of clients
    #[arg(long, value_name = "PREFIX", default_value = "10.201.0.0/16")]
    clients: Ipv4Net,
    /// Inner addresses of servers
    #[arg(long, value_name = "PREFIX", default_value = "10.202.0.0/16")]
    servers: Ipv4Net,
    /// Inner port of TCP connections, which carry HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    tcp_port: u16,
    /// Inner port of DNS queries
    #[arg(long, value_name = "PORT", default_value_t = 53)]
    dns_port: u16,
    /// Inner port of UDP that is long, in fragments, or many
    #[arg(long, value_name = "PORT", default_value_t = 5001)]
    data_port: u16,
    /// How health is asked for
    #[arg(long, value_enum, default_value_t = HealthBy::Http)]
    health: HealthBy,
    /// TCP port of health checks
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    health_port: u16,
    /// Path of health checks over HTTP
    #[arg(long, value_name = "PATH", default_value = "/")]
    health_path: String,
    /// How long throughput is measured
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    throughput_time: Duration,
    /// Thousands of packets a second below which the appliance fails
    #[arg(long, value_name = "N")]
    min_kpps: Option<f64>,
    /// Exit code 1 also for shoulds, and for what could not be judged
    #[arg(long)]
    strict: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as JUnit XML into this file as well
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Where the port's memory comes from
    #[arg(long, value_name = "KIND", default_value = "auto", requires = "port", value_parser = memory)]
    memory: crate::dpdk::Memory,
}

/// How health is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum HealthBy {
    /// Connections, and a GET
    Http,
    /// Connections only
    Tcp,
    /// Not at all
    None,
}

fn profile_of(name: &str) -> Result<&'static Profile, String> {
    let names: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name).collect();
    profile::Profile::by_name(name).ok_or_else(|| format!("known are: {}", names.join(", ")))
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let six = text.split(':').count() == 6;
    <[u8; 6]>::try_from(bytes)
        .ok()
        .filter(|_| six)
        .ok_or_else(|| "not a MAC address: 02:00:00:00:00:01".into())
}

fn memory(text: &str) -> Result<crate::dpdk::Memory, String> {
    use serde::Deserialize;
    use serde::de::value::{Error, StrDeserializer};
    let text = StrDeserializer::<Error>::new(text);
    crate::dpdk::Memory::deserialize(text).map_err(|error| error.to_string())
}

impl Conform {
    pub(super) fn run(self) -> Outcome {
        let checks = self.checks()?;
        if self.list {
            return list(&checks);
        }
        let target = self.target.ok_or_else(|| Failure::Other("--target: which appliance?".into()))?;
        let settings = self.settings();
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        let mut watch =
            Progress { interrupt, json: self.json, terminal: std::io::stderr().is_terminal(), shown: false };
        if !self.json {
            let Settings { profile, seed, .. } = &settings;
            say!("judging {target} as the load balancer of {}, seed {seed}", profile.name);
        }
        let report = match &self.port {
            None => {
                let us = self.bind.as_deref().map(|text| {
                    let wrong = |_| Failure::Other(format!("--bind {text}: not an IPv4 address"));
                    text.parse::<Ipv4Addr>().map_err(wrong)
                });
                let mut wire = Kernel::open(target, us.transpose()?, self.tunnel_port).map_err(sockets)?;
                run(&mut wire, &settings, &checks, &mut watch)?
            }
            Some(device) => self.over_port(device, target, &settings, &checks, &mut watch)?,
        };
        self.show(&report)
    }

    fn settings(&self) -> Settings {
        let path = (self.health == HealthBy::Http).then(|| self.health_path.clone());
        let health = (self.health != HealthBy::None).then_some(Health { port: self.health_port, path });
        Settings {
            profile: self.profile,
            port: self.tunnel_port,
            wait: self.wait,
            attempts: self.attempts,
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            clients: self.clients,
            servers: self.servers,
            tcp_port: self.tcp_port,
            dns_port: self.dns_port,
            data_port: self.data_port,
            health,
            throughput: self.throughput_time,
            min_kpps: self.min_kpps,
            ..Settings::default()
        }
    }

    /// Those that were asked for. A name that is nobody's is a mistake.
    fn checks(&self) -> Result<Vec<&'static Check>, Failure> {
        let is = |check: &Check, name: &str| {
            check.id == name || check.id.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
        };
        for name in self.only.iter().chain(&self.skip) {
            if !checks::all().any(|check| is(check, name)) {
                let text = format!("{name}: no check and no group has this name; --list shows them");
                return Err(Failure::Other(text));
            }
        }
        let wanted = |check: &&'static Check| {
            (self.only.is_empty() || self.only.iter().any(|name| is(check, name)))
                && !self.skip.iter().any(|name| is(check, name))
        };
        match checks::all().filter(wanted).collect::<Vec<_>>() {
            none if none.is_empty() => Err(Failure::Other("--only and --skip leave no check".into())),
            some => Ok(some),
        }
    }

    #[cfg(not(feature = "dpdk"))]
    fn over_port(
        &self,
        _: &str,
        _: Ipv4Addr,
        _: &Settings,
        _: &[&'static Check],
        _: &mut Progress,
    ) -> Result<Report, Failure> {
        Err(Failure::Other(
            "--port: this program was built without DPDK; leave it out to use the kernel".into(),
        ))
    }

    #[cfg(feature = "dpdk")]
    fn over_port(
        &self,
        device: &str,
        target: Ipv4Addr,
        settings: &Settings,
        checks: &[&'static Check],
        watch: &mut Progress,
    ) -> Result<Report, Failure> {
        use crate::conform::wire::{Ethernet, PortLink};
        use crate::dpdk::eal::{Eal, Port};
        use crate::dpdk::{EalPlan, LcorePlan, PoolConfig, PortConfig};

        let bind = self.bind.as_deref().unwrap_or_default();
        let us: Ipv4Net = bind.parse().map_err(|_| {
            Failure::Other(format!("--bind {bind}: with --port an address and its subnet: 10.0.8.5/24"))
        })?;
        let cpu = crate::config::Machine::here().cpus.first().copied().unwrap_or(0);
        let plan = EalPlan {
            memory: self.memory,
            memory_mb: 128,
            file_prefix: format!("sluicegate-conform-{}", std::process::id()),
            lcores: vec![LcorePlan { lcore: 0, cpu }],
            args: Vec::new(),
        };
        let eal = Eal::init(&plan, &[device.to_owned()])?;
        // A frame with its link header, and what af_packet's own frames hold by default.
        let data_room = (self.mtu + 256).max(2176);
        let pool = PoolConfig { name: "conform".into(), buffers: 4095, data_room, cache: 0, numa: None };
        let pool = eal.pool(&pool)?;
        let config = PortConfig { mtu: self.mtu, ..PortConfig::default() };
        let (port, mut lanes) = Port::open(&eal, device)?.start(&config, &pool)?;
        let lane = lanes.pop().ok_or_else(|| Failure::Other(format!("{device}: it gave no queue")))?;
        show::warnings(port.facts().notes.clone());
        let link = PortLink::new(port.facts().mac, lane, pool);
        let way = Ethernet::open(link, us, target, (self.gateway, self.mac), self.tunnel_port, self.wait);
        let mut wire = way.map_err(|error| {
            Failure::Other(format!("{error}; is --target right, is the link up? --mac names the next hop"))
        })?;
        let report = run(&mut wire, settings, checks, watch);
        port.stop(vec![wire.into_link().into_lane()]).map_err(|e| Failure::Dpdk(e.error))?;
        report
    }

    fn show(&self, report: &Report) -> Outcome {
        if let Some(file) = &self.junit {
            std::fs::write(file, report::junit(report, self.strict))
                .map_err(|error| Failure::Other(format!("--junit {}: {error}", file.display())))?;
        }
        if self.json {
            show::print(format_args!("{}\n", report.json(self.strict)))?;
        } else {
            show::print(format_args!("\n{}\n", report.summary()))?;
        }
        Ok(if report.passes(self.strict) { OK } else { FAILED })
    }
}

fn run(
    wire: &mut dyn Wire,
    settings: &Settings,
    checks: &[&'static Check],
    watch: &mut Progress,
) -> Result<Report, Failure> {
    judge(wire, settings, checks, watch)
        .map_err(|error| Failure::Other(format!("the way to {} is broken: {error}", wire.appliance())))
}

fn sockets(error: std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            ": run it as root, or give the program CAP_NET_RAW (setcap cap_net_raw+ep)"
        }
        _ => "; is there a route to the target? --bind names an address of this machine",
    };
    Failure::Other(format!("raw sockets: {error}{remedy}"))
}

fn list(checks: &[&'static Check]) -> Outcome {
    let mut table = show::table(&["check", "level", "demand", "source"]);
    for check in checks {
        table.add_row([check.id, check.level.word(), check.demand, check.source]);
    }
    show::print(format_args!("{table}\n")).map(|()| OK)
}

/// A line for each check; on a terminal the one that runs as well.
struct Progress {
    interrupt: Interrupt,
    json: bool,
    terminal: bool,
    shown: bool,
}

impl Progress {
    fn wipe(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(anstream::stderr(), "\r\x1b[K");
        }
    }
}

impl Watch for Progress {
    fn begins(&mut self, check: &Check, n: usize, of: usize) {
        if self.terminal {
            self.wipe();
            let _ = write!(anstream::stderr(), "{n}/{of} {} ...", check.id);
            let _ = std::io::stderr().flush();
            self.shown = true;
        }
    }

    fn found(&mut self, found: &Found) {
        self.wipe();
        if self.json {
            return;
        }
        let (style, word) = match (found.verdict, found.level) {
            (Verdict::Passed, Level::Remark) => (DIM, "told"),
            (Verdict::Passed, _) => (GREEN, "pass"),
            (Verdict::Failed, Level::Must) => (RED, "FAIL"),
            (Verdict::Failed, _) => (YELLOW, "fail"),
            (Verdict::NotJudged, _) => (DIM, "not judged"),
        };
        let (id, level, text) = (found.check.id, found.level.word(), found.text.as_str());
        say!("{style}{word:<10}{style:#} {level:<6} {id:<26} {text}");
        if found.verdict == Verdict::Failed {
            say!("{:<18} {DIM}{} ({}){DIM:#}", "", found.check.demand, found.check.source);
        }
    }

    fn stop(&self) -> bool {
        self.interrupt.asked()
    }
}
