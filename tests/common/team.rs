//! Several workers on one soft port, with one queue each or more: polled by hand, or on threads of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sluicegate::config::Plan;
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{Mempool, PoolConfig, PortConfig};
use sluicegate::flow::{FlowSnapshot, FlowView, FlowsShared, Seed};
use sluicegate::path::{
    Clock, Decap, Lane, Ledger, Mesh, Pipeline, Respond, Stop, Track, Worker, WorkerCounters, WorkerSnapshot,
};
use sluicegate::stage::{Backend, WorkerId};

use super::{plan, pool_config};

/// The workers, and everything around them.
pub struct Team {
    pub workers: Vec<Worker>,
    pub wire: Wire,
    pub pool: Mempool,
    pub view: FlowView,
    pub shared: FlowsShared,
    /// Of the clock, where it is moved by hand.
    pub hand: Arc<AtomicU64>,
}

impl Team {
    /// Polled by hand, with these settings of `[flow]`.
    pub fn new(workers: usize, flow: &str, depth: usize) -> Team {
        let text = format!("{}\n[flow]\ntracking = true\n{flow}", super::TUNNEL);
        Team::of(&plan(&text), workers, depth)
    }

    /// Polled by hand.
    pub fn of(plan: &Plan, workers: usize, depth: usize) -> Team {
        let (clock, hand) = Clock::manual();
        Team { hand, ..Team::over(plan, workers, depth, &pool_config(4096), clock) }
    }

    /// The same; the last of the workers believes that it has a port which the others have not, so that not everybody can stand in for
    /// everybody.
    pub fn with_more_ports(plan: &Plan, workers: usize, depth: usize) -> Team {
        let (clock, hand) = Clock::manual();
        Team { hand, ..Team::build(plan, workers, depth, &pool_config(4096), clock, &[60], 1) }
    }

    /// Polled by hand, with so many queues for each.
    pub fn with_lanes(lanes: usize, workers: usize, depth: usize) -> Team {
        let (clock, hand) = Clock::manual();
        let plan = plan(&format!("{}\n[flow]\ntracking = true\n", super::TUNNEL));
        Team { hand, ..Team::build(&plan, workers, depth, &pool_config(4096), clock, &[], lanes) }
    }

    /// Under any clock. `depth`: of the rings between workers.
    pub fn over(plan: &Plan, workers: usize, depth: usize, pool: &PoolConfig, clock: Clock) -> Team {
        Team::build(plan, workers, depth, pool, clock, &[], 1)
    }

    fn build(
        plan: &Plan,
        workers: usize,
        depth: usize,
        pool: &PoolConfig,
        clock: Clock,
        more: &[u16],
        lanes: usize,
    ) -> Team {
        let pool = Mempool::soft(pool);
        let (port, wire) = soft::Port::with(Setup::default());
        let config = PortConfig { queues: (workers * lanes) as u16, mtu: 9001, ..PortConfig::default() };
        let (port, queues) = port.start(&config, &pool).expect("a soft port starts");
        std::mem::forget(port); // the wire outlives the test
        let shared = FlowsShared::of(&plan.flow, workers, Seed::fixed(3)).expect("flows are tracked");
        let mut ports = vec![vec![queues[0].port]; workers];
        ports.last_mut().expect("a worker").extend(more);
        let mut mesh = Mesh::between(&ports, depth, plan.burst).into_iter();
        let pipeline = Pipeline::build(plan, Backend::Soft).expect("stages build");
        let mut queues = queues.into_iter().map(Lane);
        let worker = |n: usize| {
            let id = WorkerId(n as u16);
            let counters = Arc::new(WorkerCounters::new(id, &plan.reasons, plan.stages.len()));
            let track = Track::of(plan, &shared, mesh.next(), &counters);
            let decap = Decap::new(plan.tunnel.clone());
            let (lanes, inspect) = (queues.by_ref().take(lanes).collect(), pipeline.make(id));
            Worker::new(lanes, decap, inspect, plan.burst, plan.idle, clock.clone(), counters)
                .with_flows(Some(track))
                .with_answers(Respond::of(plan, &pool))
        };
        let mut workers: Vec<Worker> = (0..workers).map(worker).collect();
        let shown = workers.iter_mut().map(|w| w.flows().expect("flows").show()).collect();
        let view = FlowView::new(plan, shown, clock);
        Team { workers, wire, pool, view, shared, hand: Arc::default() }
    }

    pub fn snapshots(&self) -> Vec<WorkerSnapshot> {
        self.workers.iter().map(|w| w.counters().snapshot()).collect()
    }

    /// The sum of all workers; each must balance.
    pub fn ledger(&self) -> Ledger {
        let ledgers: Vec<Ledger> = self.snapshots().iter().map(WorkerSnapshot::ledger).collect();
        for ledger in &ledgers {
            assert!(ledger.balances(), "{ledger}");
        }
        ledgers.into_iter().sum()
    }

    pub fn flows(&self) -> FlowSnapshot {
        self.snapshots().into_iter().fold(FlowSnapshot::default(), |sum, one| sum.plus(one.flows))
    }

    /// Polls all until nobody finds anything.
    pub fn settle(&mut self) {
        while self.workers.iter_mut().map(Worker::poll).sum::<usize>() > 0 {}
        let ledger = self.ledger();
        assert_eq!(ledger.in_the_rings(), 0);
        assert_eq!(self.pool.available() + ledger.held as u32, self.pool.capacity());
    }

    /// Every worker on a thread of its own while `feed` sends and receives. Afterwards all have stopped, and nothing is left anywhere.
    pub fn run<T>(&mut self, feed: impl FnOnce(&Wire) -> T) -> T {
        let stop = Stop::default();
        let wire = self.wire.clone();
        let result = std::thread::scope(|scope| {
            for worker in &mut self.workers {
                let stop = &stop;
                scope.spawn(move || worker.run(stop));
            }
            /// Threads end with the feed, even if it panics.
            struct Asks<'a>(&'a Stop);
            impl Drop for Asks<'_> {
                fn drop(&mut self) {
                    self.0.ask();
                }
            }
            let _asks = Asks(&stop);
            feed(&wire)
        });
        let ledger = self.ledger();
        assert!(ledger.in_the_rings() == 0 && ledger.held == 0, "{ledger}");
        assert_eq!(self.pool.available(), self.pool.capacity(), "every buffer is back");
        result
    }
}
