//! The command line: one subcommand, one file.

mod capture;
mod check;
#[cfg(feature = "dpdk")]
mod demo;
mod devices;
mod doctor;
mod drain;
mod events;
mod explain;
mod flows;
mod gateway;
mod health;
mod instance;
mod interrupt;
mod lab;
mod level;
mod panics;
mod reload;
mod replay;
mod run;
mod show;
mod stages;
mod stats;
mod status;
mod top;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, Plan, Problem};
use crate::dpdk;

/// Everything went well.
pub const OK: u8 = 0;
/// It ran, and the answer is no: a checker found errors, a golden file differs, a ledger does not balance.
pub const FAILED: u8 = 1;
/// It did not run: wrong arguments, a wrong configuration, a port or memory that is not there.
pub const BAD_INPUT: u8 = 2;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SLUICEGATE_REVISION"), ")");
const AFTER_HELP: &str = "\
Start here:
  sluicegate demo                            traffic through the whole path, checked byte for byte
  sluicegate check pipelines/edge-firewall.toml
                                             what a pipeline file would do, without doing it
  sluicegate replay FILE --in a.pcap --out b.pcap
                                             a capture through a pipeline, with a table of verdicts
  sluicegate run FILE                        packets, until SIGINT or SIGTERM
  sluicegate status | flows | stats          what the running instance does
  sluicegate reload FILE                     the running instance gets the file as it is now
  sluicegate top                             the same, live
  sluicegate events --follow                 what it tells of packets and flows
  sluicegate drain FILE                      it leaves when its flows are over

Any value of a pipeline file can be set from outside, the command line winning:
  SLUICEGATE_TUNNEL__PROFILE=tencent sluicegate run FILE --set tunnel.port=6081

Exit codes: 0 all went well; 1 it ran and the answer is no (checker errors, a golden file that differs, a ledger that
does not balance); 2 it did not run (arguments, configuration, ports, memory).";

/// A data plane for appliances behind a gateway load balancer (GENEVE), on DPDK.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version = VERSION, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline on its ports until SIGINT or SIGTERM
    Run(run::Run),
    /// Check a pipeline file and print the plan: ports, queues, lcores, memory, stages
    Check(check::Check),
    /// Send a capture through a pipeline, deterministically, and show what became of it
    Replay(replay::Replay),
    /// Make traffic, send it through a real vdev and a firewall, check every frame that returns
    #[cfg(feature = "dpdk")]
    Demo(demo::Demo),
    /// Ask a running instance how it is: health, workers, ports, flows, losses; exit code 1 if it is not fit for traffic
    Status(status::Status),
    /// Find, sort, watch or flush the flows of a running instance
    Flows(flows::Flows),
    /// All counters of a running instance, and how fast they grow
    Stats(stats::Stats),
    /// A running instance on a terminal, live: workers, ports, stages, drops, flows, tenants, events
    Top(top::Top),
    /// How much a running instance logs, or shall log from now on
    Level(level::Level),
    /// What a running instance tells of packets and flows, as it tells it (--follow): drops, alerts, handshakes, flows
    Events(events::Events),
    /// Why packets become what they become: by their ends, of a running instance; or of a capture, stage by stage
    Explain(explain::Explain),
    /// Frames of a running instance, as pcapng, with what became of each
    Capture(capture::Capture),
    /// The load balancer's side: forward frames to appliances and back (gateway FILE); simulate what is lost when targets or gateways die
    Gateway(gateway::Gateway),
    /// A whole network on this machine, client, gateway, appliances and server, and scenarios in it; needs root
    Lab(lab::Lab),
    /// Ask a running instance to load its configuration anew; exit code 1 if it refuses
    Reload(reload::Reload),
    /// Ask a running instance to leave: health says no, flows that are there are served, and it ends with them; exit code 1 if flows were cut
    Drain(drain::Drain),
    /// Show what the candidate of a running instance would do (`reload --shadow` loads one), put it in force, or let it go
    Shadow(reload::Shadow),
    /// Check the machine, and the instance that runs on it; exit code 1 if something is bad
    Doctor(doctor::Doctor),
    /// List network cards: whose they are, IOMMU group, NUMA node, MTU, queues
    Devices(devices::Devices),
    /// Give network cards to DPDK (vfio-pci); never the one that carries the default route, unless forced
    Bind(devices::Bind),
    /// Give network cards back to the kernel
    Unbind(devices::Unbind),
    /// Ask a running instance whether it is fit for traffic; exit code 1 if it is not
    Health(health::Health),
    /// List the stages, or explain one; `stages drops` lists all drop reasons
    Stages(stages::Stages),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print versions: program, revision, DPDK
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    main_with(&[])
}

/// The whole program with kinds of stages from outside the crate: pipelines can use them, and every command knows them. See
/// `examples/custom-stage`.
pub fn main_with(own: &[&'static crate::stage::StageKind]) -> ExitCode {
    panics::limit();
    if !own.is_empty()
        && let Err(text) = crate::stages::add(own)
    {
        show::error(text);
        return ExitCode::from(BAD_INPUT);
    }
    let outcome = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Replay(command) => command.run(),
        #[cfg(feature = "dpdk")]
        Command::Demo(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Flows(command) => command.run(),
        Command::Stats(command) => command.run(),
        Command::Top(command) => command.run(),
        Command::Level(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Capture(command) => command.run(),
        Command::Gateway(command) => command.run(),
        Command::Lab(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Drain(command) => command.run(),
        Command::Shadow(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Bind(command) => command.run(),
        Command::Unbind(command) => command.run(),
        Command::Health(command) => command.run(),
        Command::Stages(command) => command.run(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluicegate", &mut script);
            show::print(String::from_utf8_lossy(&script)).map(|()| OK)
        }
        Command::Version { json } => show::print(version(json)).map(|()| OK),
    };
    ExitCode::from(outcome.unwrap_or_else(|failure| {
        failure.print();
        BAD_INPUT
    }))
}

/// Why a command did not run.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong in these places.
    Config(Vec<Problem>),
    /// Ports, memory, lcores.
    Dpdk(dpdk::Error),
    /// Anything else, as one sentence that says what to do.
    Other(String),
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Failure::Config(problems)
    }
}

impl From<dpdk::Error> for Failure {
    fn from(error: dpdk::Error) -> Self {
        Failure::Dpdk(error)
    }
}

impl Failure {
    fn print(&self) {
        match self {
            Failure::Config(problems) => {
                for problem in problems {
                    show::error(problem);
                }
                let n = problems.len();
                show::error(format_args!(
                    "{n} {} in the configuration",
                    if n == 1 { "mistake" } else { "mistakes" }
                ));
            }
            Failure::Dpdk(error) => show::error(error),
            Failure::Other(text) => show::error(text),
        }
    }
}

type Outcome = Result<u8, Failure>;

/// A pipeline file and what is set over it.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The pipeline file (TOML)
    file: PathBuf,
    /// Set one value over the file, e.g. --set port[0].mtu=9001 (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn plan(&self, need_ports: bool) -> Result<Plan, Failure> {
        let options = config::Options { need_ports, ..config::Options::default() };
        Ok(config::load(&self.file, &config::Overrides::here(&self.set), &options)?)
    }
}

fn version(json: bool) -> String {
    let (program, revision, built) =
        (env!("CARGO_PKG_VERSION"), env!("SLUICEGATE_REVISION"), env!("SLUICEGATE_DPDK"));
    #[cfg(feature = "dpdk")]
    let running = dpdk::eal::version();
    #[cfg(not(feature = "dpdk"))]
    let running = String::from("none");
    if json {
        let dpdk = serde_json::json!({ "built": built, "running": running });
        let version = serde_json::json!({ "sluicegate": program, "revision": revision, "dpdk": dpdk });
        format!("{version}\n")
    } else {
        format!("sluicegate {program} ({revision})\nbuilt with DPDK {built}, running on {running}\n")
    }
}
