//! The management side: who answers for the ports, whether the appliance is fit, and how it leaves.
//!
//! One loop, on the thread (the main lcore) that started the application: [`crate::app::RunningApp::manage`] runs one round of it and
//! never waits. A round takes what the workers have punted, answers, listens, and, at its times, looks at the workers' heartbeats and decides
//! about health. What may take long (printing, building plans) has no place here. No mbuf is touched: frames come and go as bytes.

pub mod health;
pub mod http;
pub mod host;
mod tap;
pub mod admin;
pub mod control;
pub mod server;
pub mod drain;
#[cfg(feature = "program")]
pub mod log;
#[cfg(feature = "program")]
pub mod privileges;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use drain::{Drain, Draining};
pub use health::{Flip, Health, Observation, Reason, State, Status};
pub use host::{CheckCounts, HostCounts};
pub(crate) use host::{Rings, device::Device};

use crate::config::{HostKind, ManagementPlan, PortAddress, WhenFailed};
use crate::dpdk::{Error, PortFacts};
use crate::path::{Guests, HostEnd};
use admin::{Admin, Api};
use host::Host;
use server::{Answers as Serving, Board, Checks, Page, Server};
use tap::Taps;

/// From one look at the heartbeats to the next.
pub const LOOK: Duration = Duration::from_millis(250);
/// From one look at drivers' counters, which may ask the device, to the next; and from one tick to the next.
pub const TICK: Duration = Duration::from_secs(1);

/// What one round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// There was something to do: come again soon.
    pub busy: bool,
    /// The state of health has changed.
    pub flip: Option<Flip>,
    /// What ports and DHCP said, one sentence each.
    pub said: Vec<String>,
    /// How far draining has come, once a second.
    pub draining: Option<Draining>,
    /// What became of a reload.
    pub reloaded: Option<crate::app::Reloaded>,
}

/// What answers for the ports.
#[derive(Debug)]
enum Answers {
    Nobody,
    Stack(Box<Host>),
    Kernel(Taps),
}

/// The management side of a running application.
#[derive(Debug)]
pub struct Management {
    plan: ManagementPlan,
    began: Instant,
    answers: Answers,
    server: Option<Server>,
    /// A socket of the kernel for checks alone.
    checks: Option<Server>,
    /// The admin API's socket.
    admin: Option<Admin>,
    board: Arc<Board>,
    health: Health,
    drain: Option<Drain>,
    next_look: Duration,
    next_tick: Duration,
    /// Workers whose flows were given to the others.
    retired: BTreeSet<u16>,
    flips: u64,
}

/// What of the management side is published.
#[derive(Clone, Debug, Default)]
pub struct ManagementSnapshot {
    /// State of health.
    pub state: State,
    /// Changes of it.
    pub flips: u64,
    /// Causes in force.
    pub causes: Vec<crate::config::Cause>,
    /// The host stack's counts.
    pub host: HostCounts,
    /// Connections that are open on it.
    pub connections: usize,
    /// Counts of the socket of the kernel.
    pub listener: CheckCounts,
}

impl Management {
    /// Opens what the plan asks for. `ends` and `guests` are those of the workers; `ports` are running, in the plan's order. `page` makes
    /// the page of figures, and `api` answers the admin API, on threads that run on `cpus`.
    pub(crate) fn new(
        plan: ManagementPlan,
        stages: Vec<String>,
        ends: Vec<HostEnd>,
        guests: Guests,
        ports: &[&PortFacts],
        (page, api, admin): (Page, Arc<dyn Api>, Option<Admin>),
        cpus: Vec<u32>,
    ) -> Result<Self, Error> {
        let answers = match plan.host.kind {
            HostKind::Off => Answers::Nobody,
            HostKind::Stack => {
                let addresses =
                    plan.host.ports.iter().cloned().chain(std::iter::repeat(PortAddress::default()));
                let ports: Vec<_> = ports.iter().copied().zip(addresses).collect();
                Answers::Stack(Box::new(Host::new(ends, guests, &ports, &plan.health)))
            }
            HostKind::Tap => Answers::Kernel(Taps::new(ends, &plan.host.tap_name, ports)?),
        };
        let health = Health::new(plan.health.clone(), stages);
        let began = Instant::now();
        let board = Arc::new(Board::new(began, health.status().clone()));
        let serving = |listen: std::net::SocketAddr| {
            let (board, token, page) = (board.clone(), plan.token.clone(), page.clone());
            let (open, api) = (listen.ip().is_loopback(), plan.api.then(|| api.clone()));
            Server::open(
                "management.listen",
                listen,
                Box::new(Serving { board, page, token, open, api }),
                cpus.clone(),
            )
        };
        let server = plan.listen.map(serving).transpose()?;
        let checks = plan.health.listen.map(|listen| {
            Server::open("management.health.listen", listen, Box::new(Checks(board.clone())), cpus.clone())
        });
        let checks = checks.transpose()?;
        Ok(Management {
            plan,
            began,
            answers,
            server,
            checks,
            admin,
            board,
            health,
            drain: None,
            next_look: Duration::ZERO,
            next_tick: TICK,
            retired: BTreeSet::new(),
            flips: 0,
        })
    }

    /// What of another plan can be changed without a restart, and what its stages are called.
    pub(crate) fn change(&mut self, plan: &ManagementPlan, stages: Vec<String>) {
        self.plan.health = plan.health.clone();
        self.plan.drain = plan.drain;
        self.health.change(plan.health.clone(), stages);
    }

    /// Where the admin API's socket is.
    pub fn socket(&self) -> Option<&std::path::Path> {
        self.admin.as_ref().map(Admin::path)
    }

    /// Time since the start.
    pub(crate) fn at(&self) -> Duration {
        self.began.elapsed()
    }

    /// State of health, with reasons.
    pub fn status(&self) -> &Status {
        self.health.status()
    }

    /// What answers on the ports, if it is the stack.
    pub fn host(&self) -> Option<&Host> {
        match &self.answers {
            Answers::Stack(host) => Some(host),
            _ => None,
        }
    }

    /// Where the kernel's socket listens.
    pub fn listens_at(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref().and_then(Server::address)
    }

    /// Where the kernel's socket for checks is.
    pub fn checked_at(&self) -> Option<std::net::SocketAddr> {
        self.checks.as_ref().and_then(Server::address)
    }

    /// Nobody is answered on it any more.
    pub(crate) fn close(&mut self) {
        self.server = None;
        self.checks = None;
        self.admin = None;
    }

    /// Frames and connections: one bounded round.
    pub(crate) fn poll(&mut self, at: Duration) -> bool {
        let status = self.health.status();
        let listen = status.state.is_fit() || self.plan.health.when_failed == WhenFailed::Status503;
        if let Some(checks) = &mut self.checks {
            checks.listen(listen);
        }
        match &mut self.answers {
            Answers::Nobody => false,
            Answers::Stack(host) => host.poll(at, status, listen),
            Answers::Kernel(taps) => taps.poll(),
        }
    }

    /// Is it time to look at the heartbeats?
    pub(crate) fn is_look_due(&mut self, at: Duration) -> bool {
        due(&mut self.next_look, at, LOOK)
    }

    /// Is it time for what is done each second?
    pub(crate) fn is_tick_due(&mut self, at: Duration) -> bool {
        due(&mut self.next_tick, at, TICK)
    }

    /// Takes in what was seen. `retire` gets workers that hang, once each time.
    pub(crate) fn observe(&mut self, mut seen: Observation, mut retire: impl FnMut(u16)) -> Option<Flip> {
        seen.draining =
            self.drain.as_ref().map(|_| "the appliance is leaving: no new flows, please".to_owned());
        let flip = self.health.observe(seen);
        self.flips += u64::from(flip.is_some());
        let stuck: BTreeSet<u16> = self.health.stuck().collect();
        stuck.difference(&self.retired).for_each(|worker| retire(*worker));
        self.retired = stuck;
        self.board.say(self.health.status());
        flip
    }

    /// Begins to leave; a second call changes nothing.
    pub(crate) fn drain(&mut self) {
        let at = self.at();
        self.drain.get_or_insert_with(|| Drain::new(self.plan.drain, at));
    }

    /// The same; it is over so long from now, flows or not. For one that has begun this is another deadline.
    pub(crate) fn drain_within(&mut self, deadline: Duration) {
        let at = self.at();
        self.drain();
        self.drain.as_mut().into_iter().for_each(|drain| drain.end_after(at, deadline));
    }

    /// How leaving is, for whoever asks; null if nobody leaves.
    pub(crate) fn drain_json(&self) -> serde_json::Value {
        self.drain.as_ref().map(|drain| drain.to_json(self.at())).unwrap_or_default()
    }

    /// How far leaving has come.
    pub(crate) fn look_at_drain(&mut self, at: Duration, flows: Option<u64>, sent: u64) -> Option<Draining> {
        self.drain.as_mut().map(|drain| drain.look(at, flows, sent))
    }

    /// What DHCP said.
    pub(crate) fn said(&mut self) -> Vec<String> {
        match &mut self.answers {
            Answers::Stack(host) => host.said().collect(),
            _ => Vec::new(),
        }
    }

    /// What is published.
    pub fn snapshot(&self) -> ManagementSnapshot {
        let (host, connections) = match &self.answers {
            Answers::Nobody => (HostCounts::default(), 0),
            Answers::Stack(host) => (host.counts(), host.connections()),
            Answers::Kernel(taps) => (taps.counts(), 0),
        };
        let status = self.health.status();
        ManagementSnapshot {
            state: status.state,
            flips: self.flips,
            causes: status.reasons.iter().map(|reason| reason.cause).collect(),
            host,
            connections,
            listener: [&self.server, &self.checks]
                .into_iter()
                .flatten()
                .map(Server::counts)
                .fold(CheckCounts::default(), |sum, counts| sum.plus(&counts)),
        }
    }
}

/// Has the moment come? Then the next one is set: what was missed is not made up for.
fn due(next: &mut Duration, at: Duration, every: Duration) -> bool {
    let is_due = at >= *next;
    if is_due {
        *next = at + every;
    }
    is_due
}
