//! Bringing a plan up: ports started, queues dealt out, workers made and launched, and everybody who looks after them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::api::Here;
use super::exporting::Exporting;
use super::figures::Names;
use super::ports::AppPort;
use super::reload::Reloads;
use super::reset::PortResets;
use super::{Exporter, Launched, RunningApp, events, stage_names};
use crate::config::{AddressV4, HostKind, Plan, QueueCount};
use crate::dpdk::{Error, Port, PortConfig, QueuePair};
use crate::flow::{FlowView, FlowsShared, Seed, Shown};
use crate::mgmt::Management;
use crate::mgmt::admin::{Admin, Api};
use crate::mgmt::server::Page;
use crate::path::{
    Clock, Decap, Guests, Lane, MailEnd, Mesh, Punt, Respond, Track, Worker, WorkerCounters, lend, lens,
    mailbox,
};

/// MTU of a port whose plan says "auto", if the device can: a VPC's jumbo frame.
const LARGEST_MTU: u16 = 9001;

impl RunningApp {
    /// Starts ports, then workers. An error comes with the queues that no worker has.
    pub(super) fn bring_up(
        &mut self,
        ports: Vec<Port>,
        clock: &Clock,
        listens: bool,
        (reopen, admin, cpus): (Arc<AtomicBool>, Option<Admin>, Vec<u32>),
    ) -> Result<(), (Error, Vec<QueuePair>)> {
        let mut queues = Vec::new();
        let mut telling = events::Setup::of(&self.plan);
        for (i, port) in ports.into_iter().enumerate() {
            let config = port_config(&self.plan, i, &port);
            match port.start(&config, &self.pool) {
                Ok((port, own)) => {
                    self.ports.push(AppPort::new(port, config));
                    queues.push(own);
                }
                Err(error) => return Err((error, queues.into_iter().flatten().collect())),
            }
        }
        self.started = Instant::now();
        let figure_names = Names::of(&self.plan, &self.pipeline);
        let flows = &self.plan.flow;
        let shared = FlowsShared::of(flows, self.plan.workers.len(), Seed::random());
        let mut shown: Vec<Shown> = Vec::new();
        let shares = share_out(queues, self.plan.workers.len());
        let ports: Vec<Vec<u16>> =
            shares.iter().map(|share| share.iter().map(|queues| queues.port).collect()).collect();
        let depth = flows.handoff_ring as usize;
        let mut mesh = shared.iter().flat_map(|_| Mesh::between(&ports, depth, self.plan.burst));
        let ports_asking = self.ports.iter().zip(&self.plan.management.host.ports);
        let asking: Vec<u16> = ports_asking
            .filter(|(_, address)| address.v4 == Some(AddressV4::Dhcp))
            .map(|(port, _)| port.facts().id)
            .collect();
        let host = &self.plan.management.host;
        let guests = Guests::new(host.allowed_sources.as_deref(), &asking);
        let mut ends = Vec::new();
        // Made first, launched then: tables take their time, and a worker that began earlier would own what others see, too.
        let mut ready = Vec::new();
        let mut posts: Vec<(Arc<WorkerCounters>, MailEnd)> = Vec::new();
        let (mut lenses, mut lends) = (Vec::new(), Vec::new());
        for (plan, share) in self.plan.workers.iter().zip(shares) {
            let id = plan.id;
            let mesh = mesh.next();
            if share.is_empty() {
                self.notes.push(format!(
                    "worker {} has no queue: the ports have fewer queues than there are workers",
                    id.0
                ));
                continue;
            }
            let queues = share.iter().map(|queues| (queues.port, queues.queue));
            let counters = WorkerCounters::new(id, &self.plan.reasons, self.plan.stages.len());
            let counters = Arc::new(counters.with_queues(queues).with_tenants(figure_names.tenants.len()));
            let (mail, end) = mailbox();
            posts.push((counters.clone(), end));
            let (lens, end) = lens(id);
            lenses.push(end);
            let (lend, end) = lend();
            lends.push(end);
            let decap = Decap::new(self.plan.tunnel.clone());
            let (inspect, counting) = (self.pipeline.make(id), counters.clone());
            let own: Vec<u16> = share.iter().map(|queues| queues.port).collect();
            let punt = (host.kind != HostKind::Off).then(|| {
                let (punt, end) = Punt::of(host, &guests, &self.pool, id, own);
                ends.push(end);
                punt
            });
            let lanes = share.into_iter().map(Lane).collect();
            let mut worker =
                Worker::new(lanes, decap, inspect, self.plan.burst, self.plan.idle, clock.clone(), counting)
                    .with_answers(Respond::of(&self.plan, &self.pool))
                    .with_punt(punt)
                    .with_mail(mail)
                    .with_lend(lend)
                    .with_lens(lens)
                    .with_events(telling.worker(&self.plan, &counters))
                    .with_flows(shared.as_ref().map(|shared| Track::of(&self.plan, shared, mesh, &counters)));
            if let Some(flows) = worker.flows() {
                shown.push(flows.show());
                if listens {
                    self.events.push(flows.listen(self.plan.flow.events_ring as usize));
                } else {
                    telling.flows(&self.plan, flows);
                }
            }
            ready.push((plan, worker, counters));
        }
        let mut ready = ready.into_iter();
        while let Some((plan, worker, counters)) = ready.next() {
            match self.host.launch(plan, worker, self.stop.clone()) {
                Ok(handle) => self.workers.push(Launched { counters, handle }),
                Err((error, back)) => {
                    let rest = ready.flat_map(|(_, worker, _)| worker.into_lanes());
                    let idle = back.into_iter().chain(rest);
                    return Err((error, idle.map(|Lane(pair)| pair).collect()));
                }
            }
        }
        self.reloads = Reloads::new(posts, &self.pipeline);
        self.flows = shared.as_ref().map(|_| FlowView::new(&self.plan, shown, clock.clone()));
        self.shared = shared;
        self.resets = PortResets::new(lends, self.ports.len());
        self.look_at_ports();
        let facts: Vec<_> = self.ports.iter().map(AppPort::facts).collect();
        let names = stage_names(&self.plan);
        self.names = Some(Arc::new(figure_names));
        let exporter = Arc::new(Exporter::new());
        let page = exporter.clone();
        let page = Arc::new(move || page.page());
        let management = self.plan.management.clone();
        let answering = (page as Page, self.desk.clone() as Arc<dyn Api>, admin);
        let management = Management::new(management, names, ends, guests, &facts, answering, cpus.clone());
        self.management = Some(management.map_err(|error| (error, Vec::new()))?);
        if self.plan.management.serves_figures() {
            let exporting = Exporting::start(exporter, cpus.clone());
            self.exporting = Some(exporting.map_err(|error| (error, Vec::new()))?);
            self.export();
        }
        let telling = telling.start(&self.plan, &self.pipeline, clock, cpus, reopen);
        self.telling = telling.map_err(|error| (error, Vec::new()))?;
        let lenses = Arc::new(parking_lot::Mutex::new(Some(lenses)));
        let following = self.telling.as_ref().map(|telling| telling.following().clone());
        self.desk.open(Here { flows: self.flows.clone(), clock: clock.clone(), lenses, following });
        Ok(())
    }
}

/// What the plan asks of port `i`, within what the device can do where the plan says "auto".
fn port_config(plan: &Plan, i: usize, port: &Port) -> PortConfig {
    let workers = plan.workers.len() as u16;
    let Some(asked) = plan.ports.get(i) else {
        return PortConfig { queues: workers.min(port.max_queues()).max(1), ..PortConfig::default() };
    };
    let queues = match asked.queues {
        QueueCount::Auto => workers.min(port.max_queues()).max(1),
        QueueCount::Exactly(n) => n,
    };
    let mtu = asked.mtu.unwrap_or_else(|| LARGEST_MTU.min(port.max_mtu()));
    PortConfig { queues, mtu, ..asked.config.clone() }
}

/// Deals queues out: all workers get as many of each port, as far as they go round, and no worker has two while another has none.
/// What a worker has of a port are neighbours: some drivers (`net_pcap`) keep what one queue writes in the cache line of its neighbour.
fn share_out<Q>(ports: Vec<Vec<Q>>, workers: usize) -> Vec<Vec<Q>> {
    let mut shares: Vec<Vec<Q>> = (0..workers).map(|_| Vec::new()).collect();
    let mut next = 0;
    for queues in ports {
        let (each, left) = (queues.len() / workers, queues.len() % workers);
        let mut queues = queues.into_iter();
        for turn in 0..workers {
            let part = each + usize::from(turn < left);
            shares[(next + turn) % workers].extend(queues.by_ref().take(part));
        }
        next += left;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::share_out;

    /// Queues of ports, by number, as they are dealt out.
    fn dealt(ports: &[usize], workers: usize) -> Vec<Vec<(usize, usize)>> {
        let queues = |(port, &count): (usize, &usize)| (0..count).map(|queue| (port, queue)).collect();
        share_out(ports.iter().enumerate().map(queues).collect(), workers)
    }

    #[test]
    fn every_worker_has_its_part_of_each_port() {
        assert_eq!(dealt(&[2, 2], 2), [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]);
        // Neighbours.
        assert_eq!(dealt(&[4], 2), [[(0, 0), (0, 1)], [(0, 2), (0, 3)]]);
        // What does not go round goes on with the next port.
        assert_eq!(dealt(&[1, 1, 1], 2), [vec![(0, 0), (2, 0)], vec![(1, 0)]]);
        assert_eq!(dealt(&[3, 3], 2), [[(0, 0), (0, 1), (1, 2)], [(0, 2), (1, 0), (1, 1)]]);
    }

    #[test]
    fn nobody_has_two_while_another_has_none() {
        for (ports, workers) in
            [(vec![1], 1), (vec![3], 4), (vec![2, 1, 2], 5), (vec![7, 2], 4), (vec![1; 9], 4)]
        {
            let shares = dealt(&ports, workers);
            let counts: Vec<usize> = shares.iter().map(Vec::len).collect();
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{ports:?}: {counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), ports.iter().sum::<usize>());
        }
    }
}
