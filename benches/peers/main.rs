//! Sluicegate beside dpdk-testpmd: the same core, driver, capture and minute.
//!
//! For each capture, all programs start and are stopped again; then windows go round robin, in each of which one program
//! has the core. Every row is a median with its range, as a ratio to testpmd's rows in the same table. Rates of
//! two runs are not comparable; ratios of one table are.
//!
//! The last table compares ours with ours: one worker, two, and two with half of the flows misaligned (`workers.rs`).
//!
//! `--quick` takes three short windows on one capture; `--only TEXT` picks captures (or "workers") by name, `--rows TEXT,TEXT` programs;
//! `--record PATH` writes `PATH.md` and `PATH.json`. Run it by `make bench`, which also reserves hugepages.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to its reader")]

mod captures;
mod connections;
mod gate;
mod gateway;
mod live;
mod machine;
mod report;
mod traffic;
mod watched;
mod workers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use gate::Setup;
use live::{Live, Tongue};
use machine::Machine;
use report::{Row, Table};
use traffic::Rows;

/// 2 MB pages that all programs of a table take together, as `ci/bench.sh` reserves them.
const PAGES: u64 = 3072;
/// Buffers beside those that hold the capture: net_pcap parks one for every frame and then needs some to work with.
const WORKING_BUFFERS: u32 = 8192;
/// Megabytes of ordinary pages for one program, where there are no hugepages.
const ORDINARY_MB: usize = 512;
/// How long a program that follows flows runs before its first window. A flow in one direction is established after a second.
const SETTLE: Duration = Duration::from_millis(2500);
/// Least share of the received packets that a program must have sent over all windows of a row. Less than one, because
/// a driver reads its two counters one after the other, and on a busy machine milliseconds may lie between.
const LEAST_SENT: f64 = 0.99;

/// What runs.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// A forwarding mode of testpmd; true parses the tunnel.
    Testpmd(&'static str, bool),
    /// Our program, which may ask so many rules.
    Sluicegate(Rules),
}

/// What our program does with each packet.
#[derive(Clone, Copy, Debug)]
pub enum Rules {
    /// No stage at all.
    None,
    /// So many rules, asked for every packet; no flow is followed.
    EachPacket(usize),
    /// So many rules, asked once for a flow: tracking, settled flows and the way home.
    EachFlow(usize),
    /// Flows are followed, and these stages read what they carry.
    Stages(&'static [&'static str]),
}

const CASES: [(&str, Case); 14] = [
    (report::IO, Case::Testpmd("io", false)),
    (report::SWAP, Case::Testpmd("5tswap", false)),
    (report::CSUM, Case::Testpmd("csum", true)),
    (report::PASSTHROUGH, Case::Sluicegate(Rules::None)),
    (report::FLOWS, Case::Sluicegate(Rules::EachFlow(1_000))),
    ("sluicegate acl 10", Case::Sluicegate(Rules::EachPacket(10))),
    (report::ACL_1000, Case::Sluicegate(Rules::EachPacket(1_000))),
    ("sluicegate acl 30000", Case::Sluicegate(Rules::EachPacket(30_000))),
    (report::TRACKING, Case::Sluicegate(Rules::Stages(&[]))),
    ("sluicegate appid", Case::Sluicegate(Rules::Stages(&["appid"]))),
    ("sluicegate tls", Case::Sluicegate(Rules::Stages(&["tls"]))),
    ("sluicegate http", Case::Sluicegate(Rules::Stages(&["http"]))),
    ("sluicegate dns", Case::Sluicegate(Rules::Stages(&["dns"]))),
    (report::PROTOCOLS, Case::Sluicegate(Rules::Stages(&["appid", "tls", "http", "dns"]))),
];

/// What was asked for on the command line.
struct Options {
    windows: usize,
    seconds: f64,
    only: Option<String>,
    rows: Option<String>,
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("bench: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = Options::parse()?;
    let machine = Machine::find(PAGES)?;
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for captures: {e}"))?;
    let heading = report::heading(&machine, options.windows, options.seconds);
    println!("{heading}");

    let mut tables = Vec::new();
    for capture in &traffic::CAPTURES {
        if options.only.as_ref().is_some_and(|only| !capture.name.contains(only.as_str())) {
            continue;
        }
        let file = capture.write(folder.path())?;
        tables.push(measure(&options, &machine, folder.path(), capture, &file, None)?);
        show(&options, &machine, &heading, &tables)?;
    }
    if options.only.as_ref().is_none_or(|only| captures::NAME.contains(only.as_str())) {
        let file = folder.path().join("real.pcap");
        if let Some(real) = captures::write(&file)? {
            let capture = traffic::Capture::real(real.frames);
            tables.push(measure(&options, &machine, folder.path(), &capture, &file, Some(&real))?);
            show(&options, &machine, &heading, &tables)?;
        }
    }
    if options.only.as_ref().is_none_or(|only| report::WORKERS.contains(only.as_str()))
        && let Some(table) = workers::measure(&options, &machine, folder.path())?
    {
        tables.push(table);
        show(&options, &machine, &heading, &tables)?;
    }
    if options.only.as_ref().is_none_or(|only| report::WATCHING.contains(only.as_str())) {
        let million =
            traffic::CAPTURES.iter().find(|capture| capture.frames == 1 << 20).ok_or("no such capture")?;
        let file = million.write(folder.path())?;
        if let Some(table) = watched::measure(&options, &machine, folder.path(), million, &file)? {
            tables.push(table);
            show(&options, &machine, &heading, &tables)?;
        }
    }
    if options.only.as_ref().is_none_or(|only| report::FORWARDING.contains(only.as_str()))
        && let Some(table) = gateway::measure(&options, &machine, folder.path())?
    {
        tables.push(table);
        show(&options, &machine, &heading, &tables)?;
    }
    println!("{}", report::targets(&tables));
    Ok(())
}

/// Prints the last table and keeps all of them. After every table: a later one that fails takes nothing away.
fn show(options: &Options, machine: &Machine, heading: &str, tables: &[Table]) -> Result<(), String> {
    if let Some(last) = tables.last() {
        println!("{}", last.markdown(machine));
    }
    let Some(record) = &options.record else { return Ok(()) };
    let shown: String = tables.iter().map(|t| t.markdown(machine) + "\n").collect();
    keep(&record.with_extension("md"), &format!("{heading}{shown}{}", report::targets(tables)))?;
    let json = report::json(machine, options.seconds, tables);
    keep(&record.with_extension("json"), &format!("{json:#}\n"))
}

impl Options {
    /// Is the program wanted?
    fn wants(&self, program: &str) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.split(',').any(|part| program.contains(part)))
    }

    fn parse() -> Result<Options, String> {
        let mut options = Options { windows: 7, seconds: 2.0, only: None, rows: None, record: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo says this to every bench.
                "--bench" => {}
                "--quick" => {
                    options = Options { windows: 3, seconds: 1.0, only: Some("64 B, 1k".into()), ..options };
                }
                "--only" => {
                    options.only = Some(args.next().ok_or("--only needs a part of a capture's name")?)
                }
                "--rows" => options.rows = Some(args.next().ok_or("--rows needs parts of names")?),
                "--record" => options.record = Some(args.next().ok_or("--record needs a path")?.into()),
                other => {
                    return Err(format!(
                        "{other}: use --quick, --only TEXT, --rows TEXT,TEXT or --record PATH"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// One table: every case on one capture.
fn measure(
    options: &Options,
    machine: &Machine,
    folder: &Path,
    capture: &traffic::Capture,
    file: &Path,
    real: Option<&captures::Loop>,
) -> Result<Table, String> {
    let mut programs = Vec::new();
    let reads = |case: &Case| matches!(case, Case::Sluicegate(Rules::Stages(_)));
    let wanted = |(name, case): &(&str, Case)| {
        let compared = match capture.rows {
            Rows::Packets => !reads(case),
            Rows::Few => [report::IO, report::FLOWS].contains(name),
            Rows::Connections => reads(case) || [report::IO, report::PASSTHROUGH].contains(name),
            Rows::Captures => {
                [report::IO, report::PASSTHROUGH, report::TRACKING, report::PROTOCOLS].contains(name)
            }
        };
        options.wants(name) && compared
    };
    for (name, case) in CASES.into_iter().filter(wanted) {
        eprintln!("bench: {}: starting {name}", capture.name);
        programs.push((case, start(name, case, machine, folder, capture, file)?, Row::new(name)));
    }
    // Flows open, are seen for longer than a second, and settle. No window shows how.
    for (case, program, _) in &mut programs {
        if let Case::Sluicegate(Rules::EachFlow(_) | Rules::Stages(_)) = case {
            program.window(SETTLE)?;
        }
    }
    let window = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.windows {
        eprintln!("bench: {}: window {round} of {}", capture.name, options.windows);
        for (_, program, row) in &mut programs {
            row.add(&program.window(window)?);
        }
    }
    let mut rows = Vec::new();
    for (case, program, row) in programs {
        let last = program.end()?;
        if (row.sent as f64) < row.received as f64 * LEAST_SENT {
            let (sent, received) = (row.sent, row.received);
            return Err(format!(
                "{}: sent {sent} of {received} packets; its rate would mean nothing",
                row.program
            ));
        }
        if let Case::Sluicegate(_) = case {
            let verified = match real {
                Some(_) => gate::accounted(&last, 1.0 - LEAST_SENT),
                None => gate::verify(&last, 0.0),
            };
            let in_order = verified.and_then(|()| match (real, case) {
                (Some(real), Case::Sluicegate(Rules::Stages(_))) => {
                    gate::opened_anew(&last, real.opened, real.frames)
                }
                (None, Case::Sluicegate(Rules::Stages(_))) if capture.rows == Rows::Connections => {
                    gate::opened(&last, connections::FRAMES / connections::CONNECTIONS)
                }
                _ => Ok(()),
            });
            in_order.map_err(|trouble| format!("{}: {trouble}", row.program))?;
        }
        rows.push(row);
    }
    let bytes = std::fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?.len();
    Ok(Table {
        capture: capture.name.into(),
        note: real.map(captures::Loop::describe),
        rows,
        frame: (bytes - 24) as f64 / f64::from(capture.frames) - 16.0,
    })
}

fn start(
    name: &str,
    case: Case,
    machine: &Machine,
    folder: &Path,
    capture: &traffic::Capture,
    file: &Path,
) -> Result<Live, String> {
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display());
    match case {
        Case::Testpmd(mode, parse_tunnel) => {
            testpmd(name, mode, parse_tunnel, machine, &device, capture.frames + WORKING_BUFFERS)
        }
        Case::Sluicegate(rules) => {
            let setup = Setup {
                name: &name.replace(' ', "-"),
                device: &device,
                lcores: &[machine.main_cpu, machine.worker_cpu],
                queues: 1,
                buffers: capture.frames + WORKING_BUFFERS,
                flows: capture.frames,
                rules,
            };
            let pipeline = gate::pipeline(folder, machine, &setup)?;
            Live::start(name, Tongue::Sluicegate, &mut gate::command(&pipeline), "", 1)
        }
    }
}

/// testpmd in a forwarding mode, over one device.
fn testpmd(
    name: &str,
    mode: &str,
    parse_tunnel: bool,
    machine: &Machine,
    device: &str,
    buffers: u32,
) -> Result<Live, String> {
    // testpmd writes through stdio, which holds back what goes into a pipe.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    command.args(["-l", &format!("{},{}", machine.main_cpu, machine.worker_cpu)]);
    if machine.hugepages {
        command.arg("--in-memory");
    } else {
        command.args(["--no-huge", "-m", &ORDINARY_MB.to_string(), "--no-shconf"]);
    }
    command.args(["--no-pci", "--no-telemetry", "--vdev", device, "--", "-i", "--nb-cores=1"]);
    command.arg(format!("--forward-mode={mode}")).arg(format!("--total-num-mbufs={buffers}"));
    command.args(["--mbuf-size=2176", "--rxd=512", "--txd=512", "--burst=32"]);
    let first = if parse_tunnel { "csum parse-tunnel on 0\nstart\n" } else { "start\n" };
    Live::start(name, Tongue::Testpmd, &mut command, first, 1)
}

fn keep(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    eprintln!("bench: wrote {}", path.display());
    Ok(())
}
