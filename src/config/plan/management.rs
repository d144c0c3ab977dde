//! The management side's part of a plan: who answers for the ports, to whom, and when the answer is no.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Everything about the management side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementPlan {
    /// The host stack.
    pub host: HostPlan,
    /// Where the same answers are given on an ordinary socket of the kernel, and figures beside them.
    pub listen: Option<SocketAddr>,
    /// What who wants more than health must show there. Needed where other machines can reach it.
    pub token: Option<Token>,
    /// What of the admin API changes nothing is answered there as well, to whom figures are.
    pub api: bool,
    /// Where the admin API is.
    pub socket: ControlSocket,
    /// Whose members may use it, beside root and the user of the program.
    pub group: Option<Group>,
    /// Health.
    pub health: HealthPlan,
    /// Leaving.
    pub drain: DrainPlan,
}

impl ManagementPlan {
    /// Figures are served, and somebody may have them: everybody on this machine, or whoever has the token.
    pub fn serves_figures(&self) -> bool {
        self.listen.is_some_and(|listen| listen.ip().is_loopback())
            || (self.listen.is_some() && self.token.is_some())
    }
}

/// A secret that is shown as `Authorization: Bearer ...` (RFC 6750).
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(in crate::config) fn new(text: &str) -> Self {
        Token(text.to_owned())
    }

    /// Is it this one? Takes the same time for every wrong one of its length.
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differ = own.iter().zip(shown).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
        own.len() == shown.len() && differ == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(...)")
    }
}

/// A group of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// As it is written.
    pub name: String,
    /// Its number.
    pub id: u32,
}

/// A unix socket for commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// None.
    Off,
    /// Nobody said where: the program takes this place if it can have it.
    Usual(PathBuf),
    /// Here.
    At(PathBuf),
}

impl ControlSocket {
    /// Where it would be.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ControlSocket::Off => None,
            ControlSocket::Usual(path) | ControlSocket::At(path) => Some(path),
        }
    }

    /// The usual place for a configuration of this name: `/run/sluicegate/NAME.sock`, without the name's folder and ending.
    pub fn usual(file: &str) -> Self {
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("sluicegate");
        ControlSocket::Usual(Path::new("/run/sluicegate").join(format!("{stem}.sock")))
    }
}

/// Who answers what is not tunnel traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// Who answers. `Off` where the stack was not turned off but has no address to answer for.
    pub kind: HostKind,
    /// Who may reach it: `None` is everybody. Subnets of ports are in it; one that is learned by DHCP comes later.
    pub allowed_sources: Option<Vec<IpNet>>,
    /// Frames that each worker passes on in a second, at most.
    pub frames_per_s: u32,
    /// What kernel interfaces are called; the number of the port follows.
    pub tap_name: String,
    /// Addresses of the ports, in the order of [`super::Plan::ports`].
    pub ports: Vec<PortAddress>,
}

/// Addresses of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortAddress {
    /// IPv4; with `tap` the kernel has its own settings.
    pub v4: Option<AddressV4>,
    /// Where other networks are, in IPv4.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6; a link-local address is there in any case.
    pub v6: Option<Ipv6Net>,
}

/// Where an IPv4 address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressV4 {
    /// Asked for (RFC 2131).
    Dhcp,
    /// Given, with the length of its subnet's prefix.
    Static(Ipv4Net),
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// A small stack of our own: ARP, neighbour discovery, echo, DHCP client, health checks.
    #[default]
    Stack,
    /// The kernel, through a TAP interface for each port.
    Tap,
    /// Nobody.
    Off,
}

/// When the answer is yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// TCP port on the addresses of the ports.
    pub port: u16,
    /// A socket of the kernel that answers checks as the ports do; closed while they are refused.
    pub listen: Option<SocketAddr>,
    /// What a failed appliance answers.
    pub when_failed: WhenFailed,
    /// Causes that only degrade otherwise.
    pub fail_on: Vec<Cause>,
    /// How long a worker may stand still.
    pub stuck_after: Duration,
    /// How long a pool may be empty.
    pub pool_after: Duration,
    /// How long a bad state is kept at least, and how long all must be well before it ends.
    pub hold: Duration,
}

impl Default for HealthPlan {
    fn default() -> Self {
        HealthPlan {
            port: 80,
            listen: None,
            when_failed: WhenFailed::Refuse,
            fail_on: Vec::new(),
            stuck_after: Duration::from_secs(1),
            pool_after: Duration::from_secs(5),
            hold: Duration::from_secs(10),
        }
    }
}

/// What a failed appliance answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFailed {
    /// A reset for each new connection: what a check that only connects understands.
    #[default]
    Refuse,
    /// HTTP status 503.
    #[serde(rename = "503")]
    Status503,
}

/// Leaving without breaking flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// SIGTERM drains first.
    pub on_sigterm: bool,
    /// The end, flows or not.
    pub deadline: Duration,
    /// Flows are not waited for before that: a load balancer needs a while to see that no new ones are wanted.
    pub at_least: Duration,
}

impl Default for DrainPlan {
    fn default() -> Self {
        DrainPlan { on_sigterm: false, deadline: Duration::from_secs(300), at_least: Duration::from_secs(30) }
    }
}

/// Why health is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// There has never been a pipeline.
    NoPolicy,
    /// A worker does not poll.
    WorkerStuck,
    /// A worker has ended by itself.
    WorkerEnded,
    /// A port has no carrier.
    LinkDown,
    /// A device passes nothing before it is reset.
    DeviceReset,
    /// The pool has had no buffer for too long.
    PoolEmpty,
    /// A queue takes no frame any more.
    TxStuck,
    /// New flows are not wanted.
    Draining,
    /// The pool has no buffer, since a moment ago.
    PoolLow,
    /// Frames are lost because workers or ports are too slow.
    Overload,
    /// A stage panics.
    StagePanics,
    /// The newest policy could not be loaded; the one before is in force.
    ReloadFailed,
}

impl Cause {
    /// All, worst first.
    pub const ALL: [Cause; 12] = [
        Cause::NoPolicy,
        Cause::WorkerStuck,
        Cause::WorkerEnded,
        Cause::LinkDown,
        Cause::DeviceReset,
        Cause::PoolEmpty,
        Cause::TxStuck,
        Cause::Draining,
        Cause::PoolLow,
        Cause::Overload,
        Cause::StagePanics,
        Cause::ReloadFailed,
    ];

    /// As it is written in configurations, answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::NoPolicy => "no-policy",
            Cause::WorkerStuck => "worker-stuck",
            Cause::WorkerEnded => "worker-ended",
            Cause::LinkDown => "link-down",
            Cause::DeviceReset => "device-reset",
            Cause::PoolEmpty => "pool-empty",
            Cause::TxStuck => "tx-stuck",
            Cause::Draining => "draining",
            Cause::PoolLow => "pool-low",
            Cause::Overload => "overload",
            Cause::StagePanics => "stage-panics",
            Cause::ReloadFailed => "reload-failed",
        }
    }

    /// Another appliance would do better: it fails whatever the configuration says. The others degrade.
    pub const fn fails(self) -> bool {
        !matches!(self, Cause::PoolLow | Cause::Overload | Cause::StagePanics | Cause::ReloadFailed)
    }
}
