//! A plan at work: ports opened, stages built, workers launched; and at the end, everything put back and accounted for.
//!
//! ```text
//! Plan --App::new--> App --start--> RunningApp --snapshot*--> --stop--> Report
//! ```
//!
//! `App::start` runs on the EAL with the ports of the plan. [`App::start_on`] runs on ports that the caller made: soft
//! ports in a test or a replay, or EAL ports that no configuration can name. Management code: nothing here is on the packet path.

mod events;
mod exporting;
mod figures;
mod gateway;
mod pace;
mod api;
mod host;
mod manage;
mod ports;
mod reset;
mod reload;
mod report;
mod start;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use figures::{Estimate, Exporter, Figure, Publisher, figures};
pub use gateway::{GatewayApp, RunningGateway, gateway_worker};
pub use host::Host;
pub use ports::{AppPort, Resets};
pub use reload::{Judged, Load, Reloaded, ShadowStatus};
pub use report::{PortReport, Report, Snapshot};

use crate::config::Plan;
use crate::doctor::Run;
#[cfg(feature = "dpdk")]
use crate::dpdk::eal;
use crate::dpdk::{Error, Mempool, Port, PortStats, QueuePair, RunningPort};
use crate::event::SinkSnapshot;
use crate::flow::{FlowEvent, FlowView, FlowsShared};
use crate::mgmt::Management;
use crate::mgmt::admin::Admin;
use crate::mgmt::control::Asked;
use crate::path::{Clock, Pipeline, Stop, WorkerCounters};
use api::{Desk, Scene};
use events::Telling;
pub use events::stats;
use exporting::Exporting;
use figures::{Names, Picture};
use host::{Ended, Handle};
use pace::Pace;
use reload::Reloads;
use reset::PortResets;

/// A worker that is well stops between two polls. One that hangs does not keep the program from its end, nor its report from being read.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Requests of the admin API that one round shows how things are.
const WISHES: usize = 8;

/// A plan that is ready to run.
#[derive(Debug)]
pub struct App {
    plan: Plan,
    listens: bool,
    reopen: Arc<AtomicBool>,
    desk: Arc<Desk>,
    admin: Option<Admin>,
    /// CPUs for whoever is no worker, as they are before DPDK pins this thread.
    cpus: Vec<u32>,
}

impl App {
    /// An application of this plan.
    pub fn new(plan: Plan) -> Self {
        let cpus = events::spare_cpus(&plan);
        App { plan, listens: false, reopen: Arc::default(), desk: Desk::new(), admin: None, cpus }
    }

    /// The same, with a ring of flow events from each worker ([`RunningApp::flow_events`]) for the caller. Sinks of the plan get none then.
    pub fn with_flow_events(self) -> Self {
        App { listens: true, ..self }
    }

    /// The same; the files of event sinks are opened anew when the flag is set, which is taken back then.
    pub fn with_reopen(self, reopen: Arc<AtomicBool>) -> Self {
        App { reopen, ..self }
    }

    /// Opens the plan's socket of the admin API: whoever asks is told that the program is starting, until it runs. An error where nobody said where the
    /// socket should be is a note, and nobody can ask then.
    pub fn open_admin(&mut self) -> Result<Option<String>, Error> {
        match Admin::open(&self.plan.management, self.desk.clone(), &self.cpus) {
            Ok(admin) => {
                self.admin = admin;
                Ok(None)
            }
            Err(Ok(error)) => Err(error),
            Err(Err(note)) => Ok(Some(note)),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// CPUs for whoever is no worker; empty if there are none to be had.
    pub fn spare_cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// Starts the EAL, opens the plan's ports and runs.
    #[cfg(feature = "dpdk")]
    pub fn start(self) -> Result<RunningApp, Error> {
        let devices: Vec<String> = self.plan.ports.iter().map(|p| p.device.clone()).collect();
        let eal = eal::Eal::init(&self.plan.eal, &devices)?;
        let pool = eal.pool(&self.plan.pool.config)?;
        let ports =
            devices.iter().map(|device| eal::Port::open(&eal, device)).collect::<Result<Vec<_>, _>>()?;
        self.start_on(Host::Eal(eal), ports, pool, Clock::cycles())
    }

    /// Runs on these ports; they follow the plan's `[[port]]` tables in order, and defaults beyond them. If anything
    /// fails, what has started is stopped before the error is returned.
    pub fn start_on(
        self,
        host: Host,
        ports: Vec<Port>,
        pool: Mempool,
        clock: Clock,
    ) -> Result<RunningApp, Error> {
        let App { plan, listens, reopen, desk, admin, cpus } = self;
        let pipeline = Arc::new(Pipeline::build(&plan, host.backend())?);
        let mut app = RunningApp {
            workers: Vec::new(),
            ports: Vec::new(),
            stop: Stop::default(),
            pool,
            notes: Vec::new(),
            started: Instant::now(),
            flows: None,
            shared: None,
            events: Vec::new(),
            management: None,
            desk,
            pace: Pace::default(),
            reloaded: None,
            resets: PortResets::default(),
            port_stats: Vec::new(),
            shown_ports: Vec::new(),
            telling: None,
            exporting: None,
            names: None,
            reloads: Reloads::new(Vec::new(), &pipeline),
            pipeline,
            cpus: cpus.clone(),
            clock: clock.clone(),
            plan: Arc::new(plan),
            host,
        };
        match app.bring_up(ports, &clock, listens, (reopen, admin, cpus)) {
            Ok(()) => Ok(app),
            Err((error, idle)) => {
                app.take_down(idle);
                Err(error)
            }
        }
    }
}

/// What is shown of a port, with all that its driver counts.
type Shown = (PortReport, Vec<(String, u64)>);

#[derive(Debug)]
struct Launched {
    counters: Arc<WorkerCounters>,
    handle: Handle,
}

/// Workers at work.
#[derive(Debug)]
pub struct RunningApp {
    workers: Vec<Launched>,
    ports: Vec<AppPort>,
    stop: Stop,
    pool: Mempool,
    notes: Vec<String>,
    started: Instant,
    flows: Option<FlowView>,
    shared: Option<FlowsShared>,
    events: Vec<rtrb::Consumer<FlowEvent>>,
    /// There once the workers are.
    management: Option<Management>,
    /// Where requests to the admin API arrive.
    desk: Arc<Desk>,
    pace: Pace,
    /// When the newest reload ended, and how.
    reloaded: Option<(Instant, Reloaded)>,
    /// Resets that devices have asked for.
    resets: PortResets,
    /// The drivers' counters as they were at the last tick.
    port_stats: Vec<PortStats>,
    /// What was shown of the ports then, with all that their drivers count: whoever asks gets that, however often he asks.
    shown_ports: Vec<Shown>,
    telling: Option<Telling>,
    exporting: Option<Exporting>,
    /// What numbers in counters stand for, for whoever publishes them.
    names: Option<Arc<Names>>,
    reloads: Reloads,
    pipeline: Arc<Pipeline>,
    cpus: Vec<u32>,
    /// The workers'.
    clock: Clock,
    plan: Arc<Plan>,
    // Last: the EAL goes when everything that lives on it is gone.
    host: Host,
}

impl RunningApp {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The flows, if the plan follows any.
    pub fn flows(&self) -> Option<&FlowView> {
        self.flows.as_ref()
    }

    /// The workers' flow events, one ring each, if the application was made [`App::with_flow_events`]; nothing the second time. When
    /// the workers stop, each flow that is live ends with an event, too, as far as its ring has room: whoever wants all of them goes
    /// on reading, on another thread, until [`RunningApp::stop`] has returned.
    pub fn flow_events(&mut self) -> Vec<rtrb::Consumer<FlowEvent>> {
        std::mem::take(&mut self.events)
    }

    /// The ports.
    pub fn ports(&self) -> &[AppPort] {
        &self.ports
    }

    /// The built stages.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The pool of all ports.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// What the plan asked for and did not get, one sentence each.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let ports = self.ports.iter().flat_map(|port| {
            let facts = port.facts();
            facts.notes.iter().map(move |note| format!("port {} ({}): {note}", facts.id, facts.device))
        });
        self.notes.iter().cloned().chain(ports)
    }

    /// What `doctor` wants to know of ports, queues and memory.
    pub fn facts(&self) -> Run {
        let memory = match &self.host {
            #[cfg(feature = "dpdk")]
            Host::Eal(eal) => Some(eal.memory().sentence.clone()),
            Host::Threads => None,
        };
        let port = |(port, (_, xstats)): (&AppPort, &Shown)| {
            let facts = port.facts();
            let queues = self.workers.iter().flat_map(|worker| {
                let own = worker.counters.queues.iter().filter(|queue| queue.port == facts.id);
                own.map(|queue| crate::doctor::Queue {
                    queue: queue.queue,
                    worker: worker.counters.worker.0,
                    received: queue.received.get(),
                })
            });
            let planned = self.plan.ports.iter().find(|planned| planned.device == facts.device);
            crate::doctor::Port {
                device: facts.device.clone(),
                driver: facts.driver.clone(),
                mtu: facts.mtu,
                rss_functions: facts.rss.functions.clone(),
                rss_key_is_fixed: planned.is_some_and(|planned| planned.config.rss.key.is_some()),
                rss_reta: facts.rss.reta.clone(),
                queues: queues.collect(),
                allowances: xstats
                    .iter()
                    .filter(|(name, n)| name.ends_with("_allowance_exceeded") && *n > 0)
                    .cloned()
                    .collect(),
            }
        };
        let dpdk = crate::dpdk::library().unwrap_or_default();
        Run { dpdk, memory, ports: self.ports.iter().zip(&self.shown_ports).map(port).collect() }
    }

    /// What it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Counters now. Each is exact, but workers go on while they are read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: self.started.elapsed(),
            workers: self.workers.iter().map(|w| w.counters.snapshot()).collect(),
            ports: self.ports.iter().map(PortReport::new).collect(),
            stages: self.stage_counts(),
        }
    }

    /// Publishes the figures through the `metrics` facade, to the recorder in force: for programs that have one of their own, about once a
    /// second. Where `management.listen` serves them, that is done without being asked. What drivers count is that of the last tick.
    pub fn publish(&self, publisher: &mut Publisher) {
        if let Some(picture) = self.picture() {
            publisher.publish(&picture);
        }
    }

    /// Asks the drivers, for all who will ask until the next time: that may mean asking the device.
    fn look_at_ports(&mut self) {
        self.shown_ports = self.ports.iter().map(|port| (PortReport::new(port), port.xstats())).collect();
        self.port_stats = self.shown_ports.iter().map(|(report, _)| report.stats).collect();
    }

    /// What figures are made of, now.
    fn picture(&self) -> Option<Picture> {
        Some(Picture {
            names: self.names.clone()?,
            workers: self.workers.iter().map(|worker| worker.counters.clone()).collect(),
            ports: self.shown_ports.iter().map(|(report, _)| report.clone()).collect(),
            xstats: self.shown_ports.iter().map(|(_, xstats)| xstats.clone()).collect(),
            management: self.management.as_ref().map(Management::snapshot),
            sinks: self.sinks(),
            followers: self
                .telling
                .as_ref()
                .map(|telling| telling.following().snapshot())
                .unwrap_or_default(),
            reloads: self.reloads.counts(),
            judged: self.reloads.judged(),
            flows: self.flows.clone(),
            pool: (self.pool.capacity(), self.pool.available()),
        })
    }

    /// Gives the exporter something new, if there is one.
    fn export(&self) {
        if let Some(exporting) = &self.exporting
            && let Some(picture) = self.picture()
        {
            exporting.post(picture);
        }
    }

    /// What has to be done about once a second, on the thread that started the application: drivers' timers (ENA's watchdog),
    /// and the exported figures.
    pub fn tick(&self) -> Result<(), Error> {
        self.export();
        if let Some(telling) = &self.telling {
            telling.tick(&self.plan, || self.snapshot());
        }
        self.host.tick()
    }

    /// What the sinks of events did, in the order of the plan.
    pub fn sinks(&self) -> Vec<SinkSnapshot> {
        self.telling.as_ref().map(Telling::snapshot).unwrap_or_default()
    }

    /// The next command that somebody has given by the admin API.
    pub fn asked(&self) -> Option<Asked> {
        self.desk.asked()
    }

    /// Shows how things are to those who have asked.
    fn show(&self) {
        for wish in std::iter::from_fn(|| self.desk.wish()).take(WISHES) {
            let (Some(picture), Some(management)) = (self.picture(), &self.management) else { return };
            wish.grant(Scene {
                picture,
                plan: self.plan.clone(),
                rates: self.pace.rates().to_vec(),
                health: management.status().to_json(management.at()),
                uptime: self.started.elapsed(),
                drain: management.drain_json(),
                reloaded: self.reloaded.clone(),
            });
        }
    }

    /// What the ports' interrupts and the sinks of events have said since the last call, one sentence each.
    pub fn events(&self) -> Vec<String> {
        let mut said = self.telling.as_ref().map(Telling::complaints).unwrap_or_default();
        for port in &self.ports {
            let (events, name) = (port.events(), port.name());
            if events.link_changed {
                said.push(format!("{name}: link {}", if port.link().up { "up" } else { "down" }));
            }
            if events.reset_wanted {
                port.want_reset();
                said.push(format!("{name}: the device asks for a reset and passes nothing until then"));
            }
        }
        said
    }

    /// Lets the port of this number be reset as if its device had asked for it; false if there is none, or it does not run. [`Self::manage`] does it, and
    /// says in [`crate::mgmt::Round::said`] what becomes of it.
    pub fn reset_port(&self, port: u16) -> bool {
        let running = self.ports.iter().find(|own| own.facts().id == port).and_then(AppPort::running);
        running.inspect(|port| port.want_reset()).is_some()
    }

    /// Has a worker ended by itself? It never should.
    pub fn worker_ended(&self) -> bool {
        self.workers.iter().any(|w| w.handle.has_ended())
    }

    /// Stops workers, then ports; everything they held is back in its pool afterwards. A worker that hangs is waited for for ten seconds, named
    /// among the failures, and left alone with what it holds.
    pub fn stop(mut self) -> Report {
        self.take_down(Vec::new())
    }

    /// `lanes` are those that no worker has.
    fn take_down(&mut self, lanes: Vec<QueuePair>) -> Report {
        self.stop.ask();
        self.desk.close();
        if let Some(management) = &mut self.management {
            management.close();
        }
        self.exporting = None;
        let plan = &self.plan;
        let workers = std::mem::take(&mut self.workers);
        let (counters, mut lanes, mut failures) =
            take_back(workers, lanes, |counters| manage::whereabouts(counters, plan));
        let deadline = Instant::now() + STOPS_WITHIN;
        lanes.extend(self.resets.finish(&mut self.ports, deadline, &mut failures));
        lanes.retain(|pair| !pair.is_away());
        let snapshot = Snapshot {
            elapsed: self.started.elapsed(),
            workers: counters.iter().map(|c| c.snapshot()).collect(),
            ports: self.ports.iter().map(PortReport::new).collect(),
            stages: self.stage_counts(),
        };
        let told = self.telling.take().map(|telling| telling.finish(&self.plan, &snapshot));
        let (sinks, complaints) = told.unwrap_or_default();
        let xstats = moved_xstats(self.ports.iter().map(|port| (port.facts().id, port.xstats())));
        let running = std::mem::take(&mut self.ports).into_iter().filter_map(AppPort::into_running);
        failures.extend(stop_ports(running, lanes));
        let buffers_out = self.pool.capacity() - self.pool.available();
        Report {
            snapshot,
            xstats,
            failures,
            buffers_out,
            reasons: self.plan.reasons.clone(),
            names: stage_names(&self.plan),
            sinks,
            complaints,
        }
    }

    fn stage_counts(&self) -> Vec<Vec<(String, u64)>> {
        self.reloads.stage_counts(&self.pipeline)
    }
}

impl Drop for RunningApp {
    /// As [`RunningApp::stop`], without the account: whoever panics while it runs leaves no worker and no file either.
    fn drop(&mut self) {
        if !self.workers.is_empty() || !self.ports.is_empty() {
            self.take_down(Vec::new());
        }
    }
}

fn stage_names(plan: &Plan) -> Vec<String> {
    plan.stages.iter().map(|s| s.name.clone()).collect()
}

/// Waits for workers, which have been asked to stop: their counters, all queues, theirs after these, and what went wrong. One that hangs is left alone with
/// its queues; `place` says where it is.
fn take_back(
    workers: Vec<Launched>,
    mut lanes: Vec<QueuePair>,
    place: impl Fn(&WorkerCounters) -> String,
) -> (Vec<Arc<WorkerCounters>>, Vec<QueuePair>, Vec<String>) {
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + STOPS_WITHIN;
    for Launched { counters, handle } in workers {
        let (id, ended) = (counters.worker.0, handle.join_by(deadline));
        match &ended {
            Some(Ended { panic: Some(panic), .. }) => failures.push(format!("worker {id} panicked: {panic}")),
            Some(_) => {}
            None => failures.push(format!(
                "worker {id} has not stopped within {} s: it is in {}. It is left there, and the ports of its queues are not stopped",
                STOPS_WITHIN.as_secs(),
                place(&counters),
            )),
        }
        lanes.extend(ended.into_iter().flat_map(Ended::pairs));
        all.push(counters);
    }
    (all, lanes, failures)
}

/// The drivers' own counters that are not zero, by port.
fn moved_xstats(ports: impl Iterator<Item = (u16, Vec<(String, u64)>)>) -> Vec<(u16, Vec<(String, u64)>)> {
    let moved = |named: Vec<(String, u64)>| named.into_iter().filter(|(_, n)| *n > 0).collect();
    ports.map(|(id, named)| (id, moved(named))).collect()
}

/// Gives each port its queues back and stops it. Returns what went wrong.
fn stop_ports(ports: impl IntoIterator<Item = RunningPort>, mut lanes: Vec<QueuePair>) -> Vec<String> {
    let mut failures = Vec::new();
    for port in ports {
        let id = port.facts().id;
        let (mut own, rest): (Vec<_>, Vec<_>) = lanes.into_iter().partition(|pair| pair.port == id);
        own.sort_by_key(|pair| pair.queue);
        lanes = rest;
        if let Err(refused) = port.stop(own) {
            failures.push(refused.error.to_string());
        }
    }
    failures
}
