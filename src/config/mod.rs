//! TOML -> `Config` -> [`Plan`]. Every check is here; code that holds a [`Plan`] does not check again.
//!
//! ```text
//! file --toml--> tree of values, each with its origin     source
//! environment, --set  --config-->  laid over it           source
//! tree --serde--> what the file says                      value, schema
//! --> ranges, names, CPUs, stages --> Plan                check, ports, stages, memory
//! ```
//!
//! The environment sets values by variables that start with `SLUICEGATE_` and have `__` between the parts of the path
//! (`SLUICEGATE_TUNNEL__PROFILE=tencent`, `SLUICEGATE_PORT__0__MTU=1500`); variables without `__`
//! (`SLUICEGATE_CORPUS`) are not looked at. `--set tunnel.profile=tencent` and `--set port[0].mtu=1500` come last and win.

mod plan;
mod problem;
mod source;
mod value;
mod settings;
mod schema;
mod machine;
mod check;
mod ports;
mod csv;
mod tenants;
mod flow;
mod stream;
mod management;
mod events;
mod metrics;
mod stages;
mod policy;
mod memory;
mod display;
pub mod gateway;
pub mod reload;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

pub(crate) use flow::span;
pub use machine::Machine;
pub(crate) use machine::cpu_list;
pub use plan::{
    AddressV4, Asked, Cause, Conflict, ControlSocket, DEFAULT_PIPELINE, DrainPlan, EndpointPlan, EventsPlan,
    FLOW_BYTES, Failover, FlowPlan, Format, Fragments, GatewayPlan, Group, HealthPlan, HostKind, HostPlan,
    Idle, LegPlan, ManagementPlan, MetricsPlan, Mode, NO_PIPELINE, OnError, Orphans, Overlap, Pickup, Plan,
    PoolPlan, PortAddress, PortPlan, QueueCount, ReportPlan, Rotation, Scope, SinkPlan, StagePlan,
    StreamPlan, TargetPlan, TenantPlan, To, Token, Tunnel, UnknownEndpoint, Urgent, VerifyChecksum,
    WhenFailed, WhenFull, WindowCheck, WorkerPlan,
};
pub use problem::{Origin, Problem};
pub(crate) use schema::{Span, Word};
pub use settings::Settings;

use crate::stage::{Parsed, StageKind};
use source::Assignment;
pub(crate) use tenants::{endpoint_of, spelled as endpoint_name};
pub(crate) use value::suggestion;

/// A configuration is written by people; what is larger is another kind of file.
const LARGEST_FILE: u64 = 16 << 20;

/// What a configuration is checked against.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// At least one `[[port]]` must be there. A replay needs none.
    pub need_ports: bool,
    /// Where it will run.
    pub machine: Machine,
    /// Kinds of stages that a pipeline can use.
    pub kinds: &'a [&'static StageKind],
    /// Files that the configuration names may be opened. Not for a text from anywhere: it could name any file of the machine,
    /// and some never end.
    pub files: bool,
}

impl Default for Options<'_> {
    /// This machine, all kinds, ports needed.
    fn default() -> Self {
        Options { need_ports: true, machine: Machine::here(), kinds: crate::stages::all(), files: true }
    }
}

/// Values given outside the file, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Environment variables; those that are not settings are skipped.
    pub environment: Vec<(OsString, OsString)>,
    /// Arguments of `--set`.
    pub sets: Vec<String>,
}

impl Overrides {
    /// This process's environment, and what `--set` said.
    pub fn here(sets: &[String]) -> Self {
        Overrides { environment: std::env::vars_os().collect(), sets: sets.to_vec() }
    }
}

/// Reads and checks a file. All problems that can be found are returned, in reading order.
pub fn load(path: &Path, overrides: &Overrides, options: &Options<'_>) -> Result<Plan, Vec<Problem>> {
    let text = read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    load_text(&path.display().to_string(), &text, folder, overrides, options)
}

/// The text of a file, as far as it can be that of a configuration.
pub fn read(path: &Path) -> Result<String, Vec<Problem>> {
    read_file(path).map_err(|problem| vec![problem])
}

/// Reads and checks a text as if it were a file of that name in that folder.
pub fn load_text(
    name: &str,
    text: &str,
    folder: &Path,
    overrides: &Overrides,
    options: &Options<'_>,
) -> Result<Plan, Vec<Problem>> {
    let (root, mut problems) = tree(name, text, overrides)?;
    let (file, refused) = value::read_partly::<schema::File>(&root, "", &[]);
    let checked = match file {
        Some(file) => check::plan(name, file, &root, folder, options),
        None => Err(check::stages_only(&root, folder, options)),
    };
    match checked {
        Ok(plan) if problems.is_empty() && refused.is_empty() => Ok(plan),
        checked => {
            // A value that could not be read was left out for the check: what it misses there is not a second mistake.
            let follows =
                |problem: &Problem| refused.iter().any(|other| other.place.starts_with(&problem.place));
            problems.extend(checked.err().unwrap_or_default().into_iter().filter(|p| !follows(p)));
            problems.extend(refused);
            Err(source::in_reading_order(problems))
        }
    }
}

/// The values of a text with what is laid over them, and what was wrong with that.
fn tree(
    name: &str,
    text: &str,
    overrides: &Overrides,
) -> Result<(::config::Value, Vec<Problem>), Vec<Problem>> {
    let (mut root, mut problems) = source::parse(name, text);
    if !problems.is_empty() {
        // What could not be read may be what the rest misses.
        return Err(problems);
    }
    for assignment in assignments(overrides) {
        if let Err(problem) = assignment.and_then(|assignment| assignment.apply(&mut root)) {
            problems.push(problem);
        }
    }
    Ok((root, problems))
}

/// Parses the settings of one stage from TOML (without `[[stage]]` and `use`): for tests and examples of a kind.
pub fn parse_stage(kind: &StageKind, text: &str, folder: &Path) -> Result<Box<dyn Parsed>, Vec<Problem>> {
    let (value, problems) = source::parse(kind.name, text);
    if !problems.is_empty() {
        return Err(problems);
    }
    let place = format!("stage[0] {:?}", kind.name);
    (kind.parse)(&Settings {
        value: &value,
        place,
        folder,
        files: true,
        tenants: None,
        read: RefCell::default(),
    })
}

/// One case of the fuzz target `config_toml`: any bytes are a plan or problems with words, and both can be printed.
#[doc(hidden)]
pub fn arbitrary_input(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Behind a zero byte the input is what `--set` got.
    let (text, set) = text.split_once('\0').unwrap_or((&text, ""));
    let machine = Machine { cpus: vec![0, 1], worth: 2 };
    let options = Options { need_ports: false, machine, kinds: crate::stages::ALL, files: false };
    let sets = if set.is_empty() { Vec::new() } else { vec![set.to_owned()] };
    let overrides = Overrides { environment: Vec::new(), sets };
    match gateway::load_text("fuzz.toml", text, &overrides, &options) {
        Ok(plan) => assert!(plan.to_string().starts_with("plan of fuzz.toml") && plan.to_json().is_object()),
        Err(problems) => assert!(problems.iter().all(|p| !p.to_string().is_empty()) && !problems.is_empty()),
    }
    match load_text("fuzz.toml", text, Path::new("/nonexistent"), &overrides, &options) {
        Ok(plan) => {
            let text = plan.to_string();
            assert!(text.starts_with("plan of fuzz.toml") && plan.to_json().is_object());
        }
        Err(problems) => {
            assert!(problems.iter().all(|problem| !problem.to_string().is_empty()) && !problems.is_empty())
        }
    }
}

/// The environment in the order of its names, then the command line in its own.
fn assignments(overrides: &Overrides) -> impl Iterator<Item = Result<Assignment, Problem>> {
    let mut environment = overrides.environment.clone();
    environment.sort_unstable();
    let environment =
        environment.into_iter().filter_map(|(name, text)| Assignment::from_environment(name, text));
    environment.chain(overrides.sets.iter().map(|set| Assignment::from_set(set)))
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let problem = |what: String, remedy: &str| Problem {
        origin: Origin::File { file: path.display().to_string(), line: 0, column: 0 },
        place: String::new(),
        what,
        remedy: remedy.to_owned(),
    };
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            problem("there is no such file".into(), "pipelines/ has files to start from")
        }
        _ => problem(format!("cannot be read: {error}"), ""),
    })?;
    if metadata.is_dir() {
        return Err(problem("is a folder".into(), "name a file in it"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(problem(format!("has {} bytes", metadata.len()), "a configuration is at most 16 MiB"));
    }
    // Some files have no length and no end (/dev/zero).
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| problem(format!("cannot be read: {error}"), ""))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(problem("does not end".into(), "a configuration is at most 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        problem(format!("is not UTF-8 text (byte {at})"), "TOML files are UTF-8")
    })
}

#[cfg(test)]
mod tests;
