//! `sluicegate lab`: a whole network on this machine, and scenarios in it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::show::{self, say};
use super::{FAILED, Failure, OK, Outcome};
use crate::lab::files::{self, Settings};
use crate::lab::layout::{self, MOST_APPLIANCES, Room, Shape, Way};
use crate::lab::probe::figures::Patience;
use crate::lab::probe::{Client, Load, Ports, Server, raise_limit};
use crate::lab::state::State;
use crate::lab::{self, Lab as Up, Name, network, play, scenario};
use crate::mgmt::admin;

/// A whole network on this machine: a client, a gateway, appliances and a server.
#[derive(Debug, Args)]
pub struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a lab, which stays until `down`
    Up(Make),
    /// Take a lab down, and clear away whatever one left behind that was killed
    Down {
        #[command(flatten)]
        name: Named,
    },
    /// Namespaces, processes, health and counters of a lab; exit code 1 if something of it is not there
    Status {
        #[command(flatten)]
        name: Named,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a lab, play a scenario in it, take it down; exit code 1 if an expectation did not hold
    Run(Run),
    /// Traffic: what runs in the client and in the server
    #[command(hide = true)]
    Probe {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the lab: several may be up
    #[arg(long, default_value = "lab")]
    name: String,
}

/// What is made.
#[derive(Debug, Args)]
struct Make {
    #[command(flatten)]
    name: Named,
    /// Pipeline file of the appliances; without it they look at nothing
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// How many
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=MOST_APPLIANCES as i64))]
    appliances: u8,
    /// MTU of client and server
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..=9001))]
    mtu: u16,
    /// Set one value over the appliances' file (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Set one value over the gateway's file (repeatable)
    #[arg(long = "gateway-set", value_name = "PATH=VALUE")]
    gateway_set: Vec<String>,
    /// A bridge of the kernel in the place of gateway and appliances, to see what is due to the machine
    #[arg(long)]
    wire: bool,
}

/// A scenario.
#[derive(Debug, Args)]
struct Run {
    /// The scenario (TOML)
    file: PathBuf,
    #[command(flatten)]
    name: Named,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Leave the lab up at the end
    #[arg(long)]
    keep: bool,
    /// Only check the file
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve bytes over HTTP, and echo
    Serve {
        #[arg(long, default_value_t = Ports::default().web)]
        web: u16,
        #[arg(long, default_value_t = Ports::default().echo)]
        echo: u16,
    },
    /// Send, and keep figures; standard input says `mark NAME`, `settle` and `stop`
    Send {
        #[arg(long, required = true)]
        to: Vec<IpAddr>,
        #[arg(long, default_value_t = Ports::default().echo)]
        port: u16,
        #[arg(long, default_value_t = 0)]
        connections: u32,
        #[arg(long, default_value_t = 0)]
        datagrams: u32,
        #[arg(long, default_value_t = 0)]
        opens_per_s: u32,
        #[arg(long, default_value_t = 500)]
        interval_ms: u64,
        #[arg(long, default_value_t = 20_000)]
        patience_ms: u64,
        #[arg(long, default_value_t = 3_000)]
        datagram_patience_ms: u64,
    },
}

impl From<lab::Error> for Failure {
    fn from(error: lab::Error) -> Self {
        Failure::Other(error.to_string())
    }
}

impl Lab {
    pub(super) fn run(self) -> Outcome {
        match self.command {
            Command::Up(make) => make.run(),
            Command::Down { name } => down(&Name::new(&name.name)?),
            Command::Status { name, json } => status(&Name::new(&name.name)?, json),
            Command::Run(run) => run.run(),
            Command::Probe { role } => role.run(),
        }
    }
}

/// Processes of a lab are over DPDK.
fn need_dpdk(way: Way) -> Result<(), Failure> {
    if cfg!(feature = "dpdk") || way == Way::Wire {
        return Ok(());
    }
    Err(Failure::Other("this program was built without DPDK: a lab's gateway and appliances need it".into()))
}

fn interrupt() -> Result<Interrupt, Failure> {
    Interrupt::install().map_err(|error| Failure::Other(format!("signals: {error}")))
}

impl Make {
    fn run(self) -> Outcome {
        let way = if self.wire { Way::Wire } else { Way::Gateway };
        need_dpdk(way)?;
        let name = Name::new(&self.name.name)?;
        let shape =
            Shape { appliances: usize::from(self.appliances), mtu: self.mtu, way, ..Shape::default() };
        let settings = Settings { pipeline: self.pipeline, appliance: self.set, gateway: self.gateway_set };
        let interrupt = interrupt()?;
        let up = Up::up(&name, shape, settings, &|| interrupt.asked())?;
        up.stay()?;
        let room = |room: Room| room.of(&name);
        say!("lab {:?} is up", name.as_str());
        say!("  client  {:<16} ip netns exec {} bash", layout::CLIENT, room(Room::Client));
        say!(
            "  server  {:<16} curl http://{}/bytes/100M; /sum/100M; echo on port {}",
            layout::SERVER,
            layout::SERVER,
            Ports::default().echo
        );
        say!("  logs    {}", name.folder().display());
        say!("sluicegate lab status --name {0} | down --name {0}", name.as_str());
        Ok(OK)
    }
}

fn down(name: &Name) -> Outcome {
    let cleared = network::down(name)?;
    if cleared.was_up {
        say!(
            "lab {:?} is down: {} processes, {} namespaces",
            name.as_str(),
            cleared.processes,
            cleared.namespaces
        );
    } else {
        say!("there is no lab {:?}", name.as_str());
    }
    show::warnings(cleared.notes);
    Ok(OK)
}

/// A part of a lab.
struct Part {
    name: String,
    pid: u32,
    is_alive: bool,
    /// What it says of itself, if it can be asked.
    says: Option<Value>,
}

fn status(name: &Name, json: bool) -> Outcome {
    let Some(state) = State::load(name)? else {
        return Err(lab::Error::Absent(name.as_str().to_owned()).into());
    };
    // A process that was started again stands there again.
    let mut parts: Vec<Part> = Vec::new();
    for process in &state.processes {
        let client = admin::client::Client::new(&files::socket(name, &process.name));
        let part = Part {
            name: process.name.clone(),
            pid: process.identity.pid,
            is_alive: process.identity.is_alive(),
            says: match process.name == network::GATEWAY {
                true => files::last_of(&files::log(name, &process.name), "stats"),
                false => client.get("status", &[]).ok(),
            },
        };
        parts.retain(|other| other.name != part.name);
        parts.push(part);
    }
    let namespaces: Vec<(String, bool)> = state
        .namespaces
        .iter()
        .map(|made| (made.name.clone(), lab::state::inode(&made.name).is_some()))
        .collect();
    let is_whole = namespaces.iter().all(|(_, there)| *there) && parts.iter().all(|part| part.is_alive);
    if json {
        let parts: Vec<Value> = parts
            .iter()
            .map(|part| json!({ "name": part.name, "pid": part.pid, "alive": part.is_alive, "status": part.says }))
            .collect();
        let namespaces: Vec<Value> =
            namespaces.iter().map(|(name, there)| json!({ "name": name, "there": there })).collect();
        let used_by = state.used_by();
        let all = json!({
            "name": state.name, "used_by": used_by, "shape": state.shape, "whole": is_whole, "namespaces": namespaces, "processes": parts,
        });
        show::print(format_args!("{all}\n"))?;
        return Ok(if is_whole { OK } else { FAILED });
    }
    for (name, there) in &namespaces {
        say!("{name}{}", if *there { "" } else { "  is not there" });
    }
    let mut table = show::table(&["process", "pid", "is", "flows", "received", "sent", "dropped"]);
    show::align_right(&mut table, &[1, 3, 4, 5, 6]);
    for part in &parts {
        let says = part.says.clone().unwrap_or_default();
        let sum = |key: &str| {
            let workers = says["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let all = workers.iter().filter_map(|worker| worker[key].as_u64()).sum::<u64>();
            if workers.is_empty() { String::new() } else { show::grouped(all) }
        };
        let is = match (part.is_alive, says["state"].as_str()) {
            (false, _) => "gone",
            (true, Some(state)) => state,
            (true, None) => "running",
        };
        let flows = says["flows"]["live"].as_u64().map_or_else(String::new, show::grouped);
        let row = [part.name.clone(), part.pid.to_string(), is.to_owned(), flows];
        table.add_row(row.into_iter().chain(["received", "sent", "dropped"].map(sum)));
    }
    say!("{table}");
    say!("logs: {}", name.folder().display());
    Ok(if is_whole { OK } else { FAILED })
}

impl Run {
    fn run(self) -> Outcome {
        let name = Name::new(&self.name.name)?;
        let shown = self.file.display().to_string();
        let text =
            std::fs::read_to_string(&self.file).map_err(|error| lab::Error::file(&self.file, error))?;
        let folder = self.file.parent().unwrap_or(std::path::Path::new(""));
        let scenario = match scenario::parse(&shown, &text, folder) {
            Ok(scenario) => scenario,
            Err(problems) => {
                let n = problems.len();
                problems.iter().for_each(show::error);
                let mistakes = if n == 1 { "mistake" } else { "mistakes" };
                return Err(Failure::Other(format!("{n} {mistakes} in the scenario")));
            }
        };
        if self.check {
            for step in &scenario.steps {
                say!("{:>4}  {}", step.line, step.name);
            }
            return Ok(OK);
        }
        need_dpdk(scenario.shape.way)?;
        let interrupt = interrupt()?;
        let stop = || interrupt.asked();
        if !self.json {
            say!("{shown}: {}", scenario.about);
        }
        let up = Up::up(&name, scenario.shape.clone(), scenario.settings.clone(), &stop)?;
        let show_step = |done: &lab::report::Done| {
            if !self.json {
                say!("{done}");
            }
        };
        let (up, report) = play::play(up, &scenario, &stop, &show_step);
        if self.keep {
            up.stay()?;
        } else {
            drop(up);
        }
        match self.json {
            true => show::print(format_args!("{}\n", report.to_json()))?,
            false => show_report(&report),
        }
        Ok(if report.holds() { OK } else { FAILED })
    }
}

fn show_report(report: &lab::report::Report) {
    if !report.windows.is_empty() {
        let mut table = show::table(&[
            "window",
            "for",
            "datagrams",
            "lost",
            "until",
            "outage",
            "connections",
            "broken",
            "slowest",
            "opened",
            "failed",
            "slowest ",
        ]);
        show::align_right(&mut table, &(1..12).collect::<Vec<_>>());
        for w in &report.windows {
            let time = |ms: u64| format!("{ms} ms");
            let figures = [
                time(w.for_ms),
                show::grouped(w.datagrams),
                show::grouped(w.lost),
                time(w.lost_until_ms),
                time(w.outage_ms),
                show::grouped(w.connections),
                show::grouped(w.broken),
                time(w.slowest_ms),
                show::grouped(w.opened),
                show::grouped(w.failed),
                time(w.slowest_open_ms),
            ];
            table.add_row(std::iter::once(w.window.clone()).chain(figures));
        }
        say!("\n{table}");
    }
    show::warnings(report.left_out());
    for (name, said) in &report.said {
        say!("\n{name} said last:\n{}", said.trim_end());
    }
    say!("{}", report.verdict());
}

impl Role {
    fn run(self) -> Outcome {
        raise_limit();
        let failed = |error: std::io::Error| Failure::Other(error.to_string());
        match self {
            Role::Serve { web, echo } => {
                let interrupt = interrupt()?;
                let server = Server::open(Ports { web, echo }).map_err(failed)?;
                let ports = server.ports().map_err(failed)?;
                say!("{}", json!({ "event": "ready", "web": ports.web, "echo": ports.echo }));
                server.run(&|| interrupt.asked()).map_err(failed)?;
            }
            Role::Send {
                to,
                port,
                connections,
                datagrams,
                opens_per_s,
                interval_ms,
                patience_ms,
                datagram_patience_ms,
            } => {
                let ms = Duration::from_millis;
                let patience = Patience { datagrams: ms(datagram_patience_ms), connections: ms(patience_ms) };
                let load = Load {
                    to,
                    port,
                    connections,
                    datagrams,
                    interval: ms(interval_ms),
                    opens_per_s,
                    patience,
                };
                Client::run(load, std::io::stdin(), std::io::stdout()).map_err(failed)?;
            }
        }
        Ok(OK)
    }
}
