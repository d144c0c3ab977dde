//! A gateway at work: ports opened, its worker launched, its targets looked after, and everything accounted for at the end.
//!
//! ```text
//! GatewayPlan --GatewayApp::new--> GatewayApp --start--> RunningGateway --manage*--> --stop--> Report
//! ```
//!
//! `start` runs on the EAL; [`GatewayApp::start_on`] on ports that the caller made, which follow the plan's in order. Management code: nothing here is on
//! the packet path.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::host::{Host, Work};
use super::report::{PortReport, Report, Snapshot};
use super::{Launched, take_back};
use crate::config::{GatewayPlan, HostKind, HostPlan, PortPlan, Tunnel, WorkerPlan};
#[cfg(feature = "dpdk")]
use crate::dpdk::eal;
use crate::dpdk::{Error, Mempool, Port, PortConfig, QueuePair, RunningPort};
use crate::flow::Seed;
use crate::gateway::checks::{Change, Checked, Checker, Snapshot as Checks, Stand, TargetPort};
use crate::gateway::{
    Balance, Endpoint, Flows, Forward, Idle, Leg, LegId, Legs, Outbox, Role, State, Target, TargetId, Terms,
    Worker, Wrapper, balance_seed, news, reasons,
};
use crate::path::{Clock, Decap, Guests, HostEnd, Lane, Punt, Stop, WorkerCounters};
use crate::stage::WorkerId;

/// MTU of a port whose plan says "auto", if the device can: a VPC's jumbo frame.
const LARGEST_MTU: u16 = 9001;
/// Frames for the host stack that are passed on in a second.
const PUNTED: u32 = 20_000;
/// How often the drivers' timers are run.
const TICK: Duration = Duration::from_secs(1);

/// A gateway that is ready to run.
#[derive(Debug)]
pub struct GatewayApp {
    plan: GatewayPlan,
}

impl GatewayApp {
    /// A gateway of this plan.
    pub fn new(plan: GatewayPlan) -> Self {
        GatewayApp { plan }
    }

    /// The plan.
    pub fn plan(&self) -> &GatewayPlan {
        &self.plan
    }

    /// Starts the EAL, opens the plan's ports and runs.
    #[cfg(feature = "dpdk")]
    pub fn start(self) -> Result<RunningGateway, Error> {
        let devices: Vec<String> = self.plan.ports.iter().map(|port| port.device.clone()).collect();
        let eal = eal::Eal::init(&self.plan.eal, &devices)?;
        let pool = eal.pool(&self.plan.pool.config)?;
        let ports =
            devices.iter().map(|device| eal::Port::open(&eal, device)).collect::<Result<Vec<_>, _>>()?;
        self.start_on(Host::Eal(eal), ports, pool, Clock::cycles())
    }

    /// Runs on these ports. If anything fails, what has started is stopped before the error is returned.
    pub fn start_on(
        self,
        host: Host,
        ports: Vec<Port>,
        pool: Mempool,
        clock: Clock,
    ) -> Result<RunningGateway, Error> {
        let balance = Balance::of(&self.plan);
        let balance = balance.map_err(|bad| Error::refused(bad.to_string(), "change gateway.table"))?;
        let mut gateway = RunningGateway {
            plan: self.plan,
            balance,
            outbox: None,
            checks: None,
            workers: Vec::new(),
            ports: Vec::new(),
            stop: Stop::default(),
            pool,
            started: Instant::now(),
            ticked: Instant::now(),
            host,
        };
        match gateway.bring_up(ports, &clock) {
            Ok(()) => Ok(gateway),
            Err((error, idle)) => {
                gateway.take_down(idle);
                Err(error)
            }
        }
    }
}

/// A gateway at work.
#[derive(Debug)]
pub struct RunningGateway {
    plan: GatewayPlan,
    balance: Balance,
    /// There once the worker is.
    outbox: Option<Outbox>,
    /// Who finds targets and checks them, and the way to their port; there once the worker is.
    checks: Option<(Checker, TargetPort)>,
    workers: Vec<Launched>,
    ports: Vec<RunningPort>,
    stop: Stop,
    pool: Mempool,
    started: Instant,
    ticked: Instant,
    // Last: the EAL goes when everything that lives on it is gone.
    host: Host,
}

/// The worker of a plan over queues of its ports, one of each and in their order, with what the management side has of it: the mailbox for news, and the
/// end of the way to the host stack. For tests that poll it by hand, and for whoever launches it.
pub fn gateway_worker(
    plan: &GatewayPlan,
    lanes: Vec<Lane>,
    mac: [u8; 6],
    pool: &Mempool,
    clock: Clock,
    counters: Arc<WorkerCounters>,
) -> Result<(Worker, Outbox, HostEnd), (Error, Vec<Lane>)> {
    let mtu = |port: usize| lanes.get(port).map_or(0, |Lane(queues)| queues.mtu);
    let Some(targets) = lanes.get(plan.targets_port).map(|Lane(queues)| queues.port) else {
        return Err((Error::refused("the targets' port is not there", "open all ports of the plan"), lanes));
    };
    let wrapper =
        Wrapper::new(plan.profile, (mac, plan.address.addr()), plan.udp_port, mtu(plan.targets_port));
    let Some(wrapper) = wrapper else {
        let what = format!("profile {}: its options are too long", plan.profile.name);
        return Err((Error::refused(what, "take another profile"), lanes));
    };
    let wrapper = if plan.checksum { wrapper } else { wrapper.without_checksum() };
    let leg = |leg: crate::config::LegPlan| Leg { lane: leg.port as u8, vlan: leg.vlan, mtu: mtu(leg.port) };
    let endpoints =
        plan.endpoints.iter().map(|plan| Endpoint { id: plan.id, legs: plan.legs.map(leg) }).collect();
    let terms = Terms {
        stickiness: plan.stickiness,
        balance: balance_seed(plan.seed),
        unknown_tcp: plan.unknown_tcp,
        non_ip: plan.non_ip,
        endpoints,
        targets: plan.targets_port as u8,
    };
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX / 2);
    let idle = Idle { tcp: millis(plan.tcp_idle), other: millis(plan.other_idle) };
    let flows =
        Flows::new(plan.capacity as usize, idle, Seed::random(), Seed::random(), counters.flows.clone());
    let balance = match Balance::of(plan) {
        Ok(balance) => balance,
        Err(bad) => return Err((Error::refused(bad.to_string(), "change gateway.table"), lanes)),
    };
    let (inbox, outbox) = news();
    let tunnel = Tunnel {
        profile: plan.profile,
        port: plan.udp_port,
        // Who may send is asked flow by flow.
        allowed_sources: Vec::new(),
        addresses: vec![plan.address.addr()],
        verify_checksum: plan.verify_checksum,
        max_return: plan.profile.max_return,
    };
    let host = HostPlan {
        kind: HostKind::Stack,
        allowed_sources: None,
        frames_per_s: PUNTED,
        tap_name: String::new(),
        ports: Vec::new(),
    };
    let (punt, end) = Punt::of(&host, &Guests::new(None, &[]), pool, counters.worker, vec![targets]);
    let roles = (0..lanes.len()).map(|port| role(plan, port)).collect();
    let forward = Forward::new(terms, wrapper, flows, Box::new(balance.news()));
    let pace = (plan.burst, plan.idle);
    let worker = Worker::new((lanes, roles), Decap::new(tunnel), forward, pace, clock, counters);
    Ok((worker.with_punt(Some(punt)).with_inbox(inbox), outbox, end))
}

/// What comes in by a port.
fn role(plan: &GatewayPlan, port: usize) -> Role {
    if port == plan.targets_port {
        return Role::Targets;
    }
    let mut legs = Legs::none();
    for (endpoint, plan) in (0u16..).zip(&plan.endpoints) {
        for (side, leg) in (0u8..).zip(plan.legs).filter(|(_, leg)| leg.port == port) {
            legs.add(leg.vlan, LegId::new(endpoint, side));
        }
    }
    Role::Legs(legs)
}

impl RunningGateway {
    /// Starts ports, then the worker. An error comes with the queues that nobody has.
    fn bring_up(&mut self, ports: Vec<Port>, clock: &Clock) -> Result<(), (Error, Vec<QueuePair>)> {
        let mut lanes: Vec<Lane> = Vec::new();
        for (plan, port) in self.plan.ports.iter().zip(ports) {
            let config = port_config(plan, &port);
            match port.start(&config, &self.pool) {
                Ok((port, queues)) => {
                    self.ports.push(port);
                    lanes.extend(queues.into_iter().map(Lane));
                }
                Err(error) => return Err((error, bare(lanes))),
            }
        }
        self.started = Instant::now();
        let Some(plan) = self.plan.workers.first().cloned() else {
            return Err((Error::refused("no worker", "give eal.lcores two CPUs"), bare(lanes)));
        };
        let queues = lanes.iter().map(|Lane(queues)| (queues.port, queues.queue)).collect::<Vec<_>>();
        let counters = WorkerCounters::new(WorkerId(0), &reasons(), 0).with_queues(queues.into_iter());
        let counters = Arc::new(counters);
        let mac = self.ports.get(self.plan.targets_port).map_or([0; 6], |port| port.facts().mac);
        let made = gateway_worker(&self.plan, lanes, mac, &self.pool, clock.clone(), counters.clone());
        let (worker, outbox, end) = made.map_err(|(error, lanes)| (error, bare(lanes)))?;
        self.outbox = Some(outbox);
        self.checks = self.checker(end);
        self.launch(&plan, worker, counters).map_err(|(error, lanes)| (error, bare(lanes)))
    }

    /// Who finds the targets, and checks them if the plan says how.
    fn checker(&self, end: HostEnd) -> Option<(Checker, TargetPort)> {
        let facts = self.ports.get(self.plan.targets_port)?.facts();
        let (net, router) = (self.plan.address, self.plan.router);
        let stand = Stand { mac: facts.mac, net, router, mtu: facts.mtu };
        let mut checker = match &self.plan.health_check {
            Some(settings) => Checker::new(settings.clone(), stand, rand::random()),
            None => Checker::without_checks(stand, rand::random()),
        };
        let targets = (0..).zip(&self.plan.targets);
        let targets =
            targets.map(|(n, target)| Checked { id: TargetId(n), address: target.address, mac: target.mac });
        checker.set_targets(targets.collect(), self.started.elapsed());
        Some((checker, TargetPort::new(vec![end], facts.id, facts.mtu)))
    }

    fn launch(
        &mut self,
        plan: &WorkerPlan,
        worker: impl Work,
        counters: Arc<WorkerCounters>,
    ) -> Result<(), (Error, Vec<Lane>)> {
        let handle = self.host.launch(plan, worker, self.stop.clone())?;
        self.workers.push(Launched { counters, handle });
        Ok(())
    }

    /// The plan.
    pub fn plan(&self) -> &GatewayPlan {
        &self.plan
    }

    /// The ports.
    pub fn ports(&self) -> &[RunningPort] {
        &self.ports
    }

    /// The pool of all ports.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// What it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The targets as they are.
    pub fn targets(&self) -> &[Target] {
        self.balance.targets()
    }

    /// Nobody is healthy, and flows go where they would if all were.
    pub fn fails_open(&self) -> bool {
        self.balance.fails_open()
    }

    /// How targets are, what their checks came to, and where they are.
    pub fn checks(&self) -> Option<Checks> {
        self.checks.as_ref().map(|(checker, _)| checker.snapshot(self.started.elapsed()))
    }

    /// Somebody has found a target's MAC address, or lost it. False for an address that is no target's.
    pub fn set_mac(&mut self, address: Ipv4Addr, mac: Option<[u8; 6]>) -> bool {
        let Some(id) = self.balance.find(address) else { return false };
        if self.balance.set_mac(id, mac) {
            self.post();
        }
        true
    }

    /// Health checks have found how a target is. False for an address that is no target's.
    pub fn set_health(&mut self, address: Ipv4Addr, state: State) -> bool {
        let Some(id) = self.balance.find(address) else { return false };
        if self.balance.set_health(id, state) {
            self.post();
        }
        true
    }

    /// A target is taken out: no new flows from now on; after the deregistration delay those that it has may move. False for an address that is no
    /// target's, and for one that is out already.
    pub fn deregister(&mut self, address: Ipv4Addr) -> Result<bool, Error> {
        let Some(id) = self.balance.find(address) else { return Ok(false) };
        let begun = self.balance.deregister(id, self.started.elapsed());
        let begun = begun.map_err(|bad| Error::refused(bad.to_string(), "change gateway.table"))?;
        if begun {
            self.post();
        }
        Ok(begun)
    }

    fn post(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.post(self.balance.news());
        }
    }

    /// One round of the management side, to be called again and again by the thread that started it. It does not wait. What there is to say, one
    /// sentence each.
    pub fn manage(&mut self) -> Vec<String> {
        if self.balance.look(self.started.elapsed()) {
            self.post();
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.look();
        }
        let mut said = self.check();
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            said.extend(self.host.tick().err().map(|error| error.to_string()));
            for port in &self.ports {
                let (events, facts) = (port.events(), port.facts());
                if events.link_changed {
                    let link = if port.link().up { "up" } else { "down" };
                    said.push(format!("port {} ({}): link {link}", facts.id, facts.device));
                }
                if events.reset_wanted {
                    said.push(format!(
                        "port {} ({}): the device asks for a reset and passes nothing until then; restart sluicegate",
                        facts.id, facts.device
                    ));
                }
            }
        }
        said
    }

    /// A round of the checks, and what came of it.
    fn check(&mut self) -> Vec<String> {
        let now = self.started.elapsed();
        let Some((checker, port)) = &mut self.checks else { return Vec::new() };
        let (_, changes) = port.poll(now, checker);
        let mut is_news = false;
        for change in &changes {
            match change {
                Change::State { target, to, .. } => is_news |= self.balance.set_health(*target, *to),
                Change::Mac { target, mac, .. } => {
                    is_news |= self.balance.set_mac(*target, Some(*mac));
                    // Whom nobody checks is taken for healthy.
                    if self.plan.health_check.is_none() {
                        is_news |= self.balance.set_health(*target, State::Healthy);
                    }
                }
                Change::Claim { .. } | Change::Conflict { .. } => {}
            }
        }
        if is_news {
            self.post();
        }
        changes.iter().map(ToString::to_string).collect()
    }

    /// Counters now. Each is exact, but the worker goes on while they are read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: self.started.elapsed(),
            workers: self.workers.iter().map(|worker| worker.counters.snapshot()).collect(),
            ports: self.ports.iter().map(PortReport::of).collect(),
            stages: Vec::new(),
        }
    }

    /// What the plan asked for and did not get, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let of = |port: &RunningPort| {
            let facts = port.facts();
            let say = |note: &String| format!("port {} ({}): {note}", facts.id, facts.device);
            facts.notes.iter().map(say).collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(of).collect()
    }

    /// Has the worker ended by itself? It never should.
    pub fn worker_ended(&self) -> bool {
        self.workers.iter().any(|worker| worker.handle.has_ended())
    }

    /// Stops the worker, then the ports; everything they held is back in its pool afterwards.
    pub fn stop(mut self) -> Report {
        self.take_down(Vec::new())
    }

    fn take_down(&mut self, idle: Vec<QueuePair>) -> Report {
        self.stop.ask();
        let (counters, lanes, mut failures) =
            take_back(std::mem::take(&mut self.workers), idle, |counters| counters.place.place().to_string());
        let snapshot = Snapshot {
            elapsed: self.started.elapsed(),
            workers: counters.iter().map(|counters| counters.snapshot()).collect(),
            ports: self.ports.iter().map(PortReport::of).collect(),
            stages: Vec::new(),
        };
        let xstats = super::moved_xstats(self.ports.iter().map(|port| (port.facts().id, port.xstats())));
        failures.extend(super::stop_ports(std::mem::take(&mut self.ports), lanes));
        Report {
            snapshot,
            xstats,
            failures,
            buffers_out: self.pool.capacity() - self.pool.available(),
            reasons: reasons(),
            names: Vec::new(),
            sinks: Vec::new(),
            complaints: Vec::new(),
        }
    }
}

impl Drop for RunningGateway {
    /// As [`RunningGateway::stop`], without the account.
    fn drop(&mut self) {
        if !self.workers.is_empty() || !self.ports.is_empty() {
            self.take_down(Vec::new());
        }
    }
}

fn bare(lanes: Vec<Lane>) -> Vec<QueuePair> {
    lanes.into_iter().map(|Lane(pair)| pair).collect()
}

/// What the plan asks of a port, within what the device can do where it says "auto".
fn port_config(plan: &PortPlan, port: &Port) -> PortConfig {
    let mtu = plan.mtu.unwrap_or_else(|| LARGEST_MTU.min(port.max_mtu()));
    PortConfig { queues: 1, mtu, ..plan.config.clone() }
}
