//! What the processes of a lab are started with: the gateway's file, and what is set over a pipeline's.
//!
//! An appliance runs a pipeline file as it is, with devices, addresses and the tunnel set over it. It gets a folder of its own in which everything beside
//! the file is linked, so that what the file refers to is found, and so that a reload can put another file in its place.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::layout::{self, FABRIC_MTU, FABRIC_NET, GATEWAY, LEGS, TARGETS};
use super::{Error, Name, Shape};
use crate::config::Machine;

/// An appliance that looks at nothing.
const PASSTHROUGH: &str = include_str!("../../pipelines/passthrough.toml");
/// The endpoint.
const ENDPOINT: &str = "vpce-0123456789abcdef0";
/// How often the gateway tells its counters: it has no socket to ask it.
const GATEWAY_TELLS: &str = "1s";
/// What an appliance's pipeline file is called in its folder.
const FILE: &str = "pipeline.toml";

/// What the processes run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The appliances' pipeline file; none for one that looks at nothing.
    pub pipeline: Option<PathBuf>,
    /// Set over it, `a.b=c`.
    pub appliance: Vec<String>,
    /// Set over the gateway's file.
    pub gateway: Vec<String>,
}

/// Where a process listens for requests.
pub fn socket(lab: &Name, process: &str) -> PathBuf {
    lab.folder().join(format!("{process}.sock"))
}

/// What a process says.
pub fn log(lab: &Name, process: &str) -> PathBuf {
    lab.folder().join(format!("{process}.log"))
}

/// The last line of this event in a log, of those at its end.
pub fn last_of(log: &Path, event: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.into_iter().find(|line| line["event"] == event)
}

/// The last sentences in the gateway's log: of its ports and of its targets' health. Its counters are not what one wants to read when something is wrong.
pub fn told(log: &Path, most: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let sentence = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) if line["event"] == "port" => Some(line["text"].to_string()),
        Ok(_) => None,
        Err(_) => Some(line.to_owned()),
    };
    let mut last: Vec<String> = text.lines().rev().filter_map(sentence).take(most).collect();
    last.reverse();
    last.join("\n")
}

/// Where DPDK keeps what belongs to a process.
pub fn prefix(lab: &Name, process: &str) -> String {
    format!("lab-{}-{process}", lab.as_str())
}

/// Rings of 512 frames (2,048 where frames are small) between the kernel and DPDK. Frames lie in blocks of whole pages.
fn device(number: usize, interface: &str, mtu: u16) -> String {
    let ring = match mtu {
        0..=1900 => "blocksz=4096,framesz=2048,framecnt=2048",
        _ => "blocksz=36864,framesz=9216,framecnt=1024",
    };
    format!("net_af_packet{number},iface={interface},{ring}")
}

/// Who manages and who works: workers are dealt out among the CPUs.
fn lcores(place: usize) -> String {
    dealt(place, &Machine::here().cpus)
}

fn dealt(place: usize, cpus: &[u32]) -> String {
    let cpu = |at: usize| cpus.get(at % cpus.len().max(1)).copied().unwrap_or(0);
    match cpus.len() {
        0 | 1 => format!("[{}]", cpu(0)),
        _ => format!("[{}, {}]", cpu(place + 1), cpu(place)),
    }
}

/// Writes the gateway's file.
pub fn gateway(lab: &Name, shape: &Shape) -> Result<PathBuf, Error> {
    let path = lab.folder().join("gateway.toml");
    std::fs::write(&path, gateway_text(lab, shape)).map_err(|error| Error::file(&path, error))?;
    Ok(path)
}

fn gateway_text(lab: &Name, shape: &Shape) -> String {
    let (prefix, lcores) = (prefix(lab, "gateway"), lcores(0));
    let mut text = format!(
        "# The gateway of lab {:?}.\n\n[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{prefix}\"\nlcores = {lcores}\n",
        lab.as_str()
    );
    let ports = LEGS.map(|leg| (leg, shape.mtu)).into_iter().chain([(TARGETS, FABRIC_MTU)]);
    for (number, (interface, mtu)) in ports.enumerate() {
        let device = device(number, interface, mtu);
        let _ = write!(text, "\n[[port]]\nname = \"{interface}\"\ndevice = \"{device}\"\nmtu = {mtu}\n");
    }
    let [one, two] = LEGS;
    let _ = write!(
        text,
        "\n[gateway]\nport = \"{TARGETS}\"\naddress = \"{GATEWAY}/24\"\n\n[[endpoint]]\nid = \"{ENDPOINT}\"\nlegs = [\"{one}\", \"{two}\"]\n"
    );
    for number in 1..=shape.appliances {
        let (address, mac) = (layout::address(number), layout::mac(number));
        let _ = write!(text, "\n[[target]]\naddress = \"{address}\"\nmac = \"{mac}\"\n");
    }
    text
}

/// What the gateway is started with.
pub fn gateway_arguments(file: &Path, settings: &Settings) -> Vec<String> {
    let mut arguments = vec!["gateway".to_owned(), file.display().to_string()];
    arguments.extend(["--json", "--stats-interval", GATEWAY_TELLS].map(str::to_owned));
    arguments.extend(sets(settings.gateway.iter().cloned()));
    arguments
}

/// Puts a pipeline file into an appliance's folder, in the place of the one that is there.
pub fn pipeline(lab: &Name, number: usize, file: Option<&Path>) -> Result<PathBuf, Error> {
    let folder = lab.folder().join(layout::appliance(number));
    let failed = |error: std::io::Error| Error::file(&folder, error);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        std::fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
    }
    let place = folder.join(FILE);
    let Some(file) = file else {
        std::fs::write(&place, PASSTHROUGH).map_err(failed)?;
        return Ok(place);
    };
    let file = file.canonicalize().map_err(|error| Error::file(file, error))?;
    for entry in std::fs::read_dir(file.parent().unwrap_or(Path::new("/"))).map_err(failed)?.flatten() {
        if entry.file_name() != FILE {
            symlink(entry.path(), folder.join(entry.file_name())).map_err(failed)?;
        }
    }
    symlink(&file, &place).map_err(failed)?;
    Ok(place)
}

/// What an appliance is started with.
pub fn appliance_arguments(lab: &Name, number: usize, file: &Path, settings: &Settings) -> Vec<String> {
    let name = layout::appliance(number);
    let ours = [
        "eal.memory=no-huge".into(),
        "eal.idle=backoff".into(),
        format!("eal.file_prefix={}", prefix(lab, &name)),
        format!("eal.lcores={}", lcores(number)),
        format!("port[0].device={}", device(0, &layout::interface(number), FABRIC_MTU)),
        "port[0].queues=1".into(),
        format!("port[0].mtu={FABRIC_MTU}"),
        format!("port[0].address={}/24", layout::address(number)),
        "tunnel.profile=aws".into(),
        format!("tunnel.allowed_sources=[\"{FABRIC_NET}\"]"),
        format!("management.allowed_sources=[\"{FABRIC_NET}\"]"),
        format!("management.socket={}", socket(lab, &name).display()),
    ];
    let mut arguments = vec!["run".to_owned(), file.display().to_string()];
    arguments.extend(["--stats-interval".to_owned(), "0s".to_owned()]);
    arguments.extend(sets(ours.into_iter().chain(settings.appliance.iter().cloned())));
    arguments
}

fn sets(assignments: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    assignments.flat_map(|assignment| ["--set".to_owned(), assignment])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gateway's file is one.
    #[test]
    fn the_gateways_file_is_a_plan() {
        use crate::config::{Options, Overrides, gateway};

        let lab = Name::new("x").unwrap();
        for cpus in [vec![0, 1], vec![3], vec![0, 1, 2, 3]] {
            let shape = Shape { appliances: 3, mtu: 8500, ..Shape::default() };
            let mut text = gateway_text(&lab, &shape);
            // As on that machine.
            text = text.replace(&lcores(0), &dealt(0, &cpus));
            let one_each = cpus.len() > 1;
            let machine = Machine { worth: cpus.len(), cpus };
            let options = Options { machine, ..Options::default() };
            let plan = gateway::load_text("gateway.toml", &text, &Overrides::default(), &options);
            let plan = plan.unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"));
            assert_eq!((plan.targets.len(), plan.endpoints.len(), plan.ports.len()), (3, 1, 3));
            assert_eq!(plan.ports[0].mtu, Some(8500));
            // A lone CPU does everything, which is said.
            assert_eq!(plan.warnings.is_empty(), one_each, "{:?}", plan.warnings);
        }
    }

    /// What an appliance is started with is a plan, with every pipeline that comes with the program.
    #[test]
    fn pipelines_take_what_is_set_over_them() {
        use crate::config::{Options, Overrides, load};

        let lab = Name::new("x").unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        for name in ["passthrough.toml", "firewall.toml", "tls-audit.toml"] {
            let file = folder.join(name);
            let arguments = appliance_arguments(&lab, 2, &file, &Settings::default());
            let sets: Vec<String> = arguments.iter().skip_while(|word| *word != "--set").cloned().collect();
            let sets: Vec<String> = sets.chunks(2).map(|pair| pair[1].clone()).collect();
            let machine = Machine { cpus: vec![0, 1], worth: 2 };
            let options = Options { machine, ..Options::default() };
            let overrides = Overrides { sets, ..Overrides::default() };
            let plan =
                load(&file, &overrides, &options).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            assert_eq!(plan.ports[0].config.mtu, FABRIC_MTU, "{name}");
        }
    }
}
