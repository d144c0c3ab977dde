//! Hop 3, track: every packet finds its flow, or opens one, or is given to the worker that owns it.
//!
//! A batch goes through in three passes, so that the memory of one packet arrives while others are worked on:
//!
//! 1. key and hash from the inner headers; ask for the bucket;
//! 2. tags of the bucket; ask for the entry's two lines;
//! 3. compare and follow. A flow with which all stages are done leaves the pipeline here.
//!
//! Pass 3 carries on usual packets by itself (`crate::flow::lookup`) and stops at whatever is more, in the order of the slots. That is
//! searched again, from the start: an earlier packet of the batch may have opened or ended the flow.
//!
//! May drop: [`DropReason::FlowCondemned`], [`DropReason::OnReload`], [`DropReason::TcpInvalid`], [`DropReason::TableFull`], [`DropReason::Pickup`],
//! [`DropReason::UnknownEndpoint`], [`DropReason::FragmentOrphan`], [`DropReason::HandoffFull`].

mod finder;
mod tenants;
mod terms;

use finder::{Fate, Finder};
use tenants::Tenants;
pub(super) use terms::Terms;

use super::counters::WorkerCounters;
use super::inspect::Streams;
use super::mesh::Mesh;
use crate::config::{FlowPlan, Plan};
use crate::dpdk::{BURST, Burst};
use crate::flow::fragment::{Held, Places};
use crate::flow::handoff::Parcel;
use crate::flow::refit::Refit;
use crate::flow::{About, Flows, FlowsShared, Lookup};
use crate::packet::{Batch, DropReason, Mask};
use crate::stage::WorkerId;

/// Where a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A receive queue.
    Queue,
    /// Another worker: such packets stay here, whoever owns their flow by now.
    Peer,
    /// Fragments that have waited, for which there is nothing left to wait for.
    GivenUp,
}

/// The hop on one worker.
#[derive(Debug)]
pub struct Track {
    finder: Finder,
    held: Held,
    mesh: Option<Mesh>,
    lookup: Box<Lookup>,
    /// Where slots that go away go.
    owners: Box<[WorkerId; BURST]>,
}

impl Track {
    /// The hop of one worker of a plan; `mesh` is its way to the others.
    pub fn of(plan: &Plan, shared: &FlowsShared, mesh: Option<Mesh>, counters: &WorkerCounters) -> Self {
        let flows = Flows::new(counters.worker, &plan.flow, shared, None, counters.flows.clone());
        let mut track = Track::new(flows, &plan.flow, shared, mesh, plan.stages.len());
        let Terms { policy, foreign, .. } = Terms::of(plan);
        (track.finder.policy, track.finder.foreign) = (policy, foreign);
        track
    }

    /// The hop over these flows, in front of so many stages.
    pub fn new(
        flows: Flows,
        plan: &FlowPlan,
        shared: &FlowsShared,
        mesh: Option<Mesh>,
        stages: usize,
    ) -> Self {
        let Terms { policy, patience, .. } = Terms::new(plan, stages);
        let finder = Finder {
            flows: flows.with_stand_ins(mesh.as_ref().is_some_and(Mesh::reaches_all)),
            policy,
            foreign: Box::default(),
            scope: plan.scope,
            tenants: Tenants::new(plan),
            seed: shared.seed,
            fragments: shared.fragments.clone(),
            places: Places::new(plan.fragments.hold, plan.tenants.len()),
        };
        Track {
            finder,
            held: Held::new(plan.fragments.hold as usize, patience),
            mesh,
            lookup: Box::new(Lookup::new()),
            owners: Box::new([WorkerId(0); BURST]),
        }
    }

    /// Goes on under other terms; those until now come back. Masks are of another pipeline from now on.
    pub(super) fn change(&mut self, terms: &mut Terms, refit: Option<Box<Refit>>) {
        let Track { finder, held, .. } = self;
        std::mem::swap(&mut finder.policy, &mut terms.policy);
        std::mem::swap(&mut finder.foreign, &mut terms.foreign);
        finder.flows.swap_timeouts(&mut terms.timeouts);
        held.swap_patience(&mut terms.patience);
        if let Some(refit) = refit {
            finder.flows.begin_refit(refit);
        }
    }

    /// The flows.
    #[inline(always)]
    pub fn flows(&mut self) -> &mut Flows {
        &mut self.finder.flows
    }

    /// The way to other workers.
    #[inline(always)]
    pub(super) fn mesh(&mut self) -> Option<&mut Mesh> {
        self.mesh.as_mut()
    }

    /// Finds the flow of every live slot. What is longer than `max_return` may be too big to go home; its sender is told then, under the
    /// envelope of its flow, which is therefore written down even if no stage wants to know it.
    #[inline(always)]
    pub(super) fn run(&mut self, batch: &mut Batch, source: Source, port: u8, max_return: u16) {
        let live = batch.live();
        let Track { finder, mesh, lookup, owners, .. } = self;
        let (frames, metas, reasons) = batch.slots();
        finder.look(live, frames, metas, lookup);
        finder.flows.guess(live, lookup);
        let (mut home, mut dropped, mut rejected) = (Mask::NONE, Mask::NONE, Mask::NONE);
        let (mut away, mut waiting) = (Mask::NONE, Mask::NONE);
        let (mut rest, mut hits) = (live, live.count() as u64);
        // Below, every flow of which a packet came from another worker is marked.
        let quiet = if source == Source::Peer { 0 } else { max_return };
        loop {
            let stages = finder.policy.stages;
            let (done, absent) = finder.flows.carry_on(&mut rest, lookup, frames, metas, stages, quiet);
            home = home | done;
            let Some(slot) = rest.iter().next() else { break };
            rest.remove(slot);
            hits -= 1;
            // Another worker's flow, the most usual of what is not: whatever else there is to say of the packet, its owner says.
            if let (Some(hash), Some(mesh), Source::Queue) = (absent, &*mesh, source)
                && let Some(owner) = finder.flows.owner(hash)
                && mesh.reaches(owner, port)
            {
                away.insert(slot);
                if let Some(place) = owners.get_mut(slot) {
                    *place = owner;
                }
                continue;
            }
            let (Some(frame), Some(meta)) = (frames.get(slot), metas.get_mut(slot)) else { break };
            let fate = finder.otherwise(slot, lookup, meta, frame.data(), source);
            let fate = match fate {
                Fate::Away(owner) if !mesh.as_ref().is_some_and(|mesh| mesh.reaches(owner, port)) => {
                    finder.astray(meta)
                }
                fate => fate,
            };
            match fate {
                Fate::Open => {}
                Fate::Home => home.insert(slot),
                Fate::Drop(reason) | Fate::Reject(reason) => {
                    dropped.insert(slot);
                    if let Some(place) = reasons.get_mut(slot) {
                        *place = reason.into();
                    }
                    if let Fate::Reject(_) = fate {
                        rejected.insert(slot);
                    }
                }
                Fate::Away(owner) => {
                    away.insert(slot);
                    if let Some(place) = owners.get_mut(slot) {
                        *place = owner;
                    }
                }
                Fate::Hold => waiting.insert(slot),
            }
        }
        finder.hit(source, hits);
        batch.forward(home);
        if !dropped.is_empty() {
            batch.lose(dropped, rejected);
        }
        if !(away | waiting).is_empty() {
            batch.part(away, waiting);
        }
        if source == Source::Peer {
            for slot in batch.live() {
                finder.flows.misaligned(batch.meta(slot).flow);
            }
        }
    }

    /// Sends on their way the slots that the hop took out of a batch. `gone` are the frames of all slots that are not live, in order;
    /// what is left in it afterwards is dead. `streams` takes what waits for a stage.
    #[inline(never)]
    pub(super) fn part(
        &mut self,
        batch: &Batch,
        gone: &mut Burst,
        mut streams: Option<&mut Streams>,
        port: u8,
        now: u64,
        counters: &WorkerCounters,
    ) {
        let slots = Mask::first(BURST).without(batch.live());
        let mut dead = Burst::new();
        let mut leaving = [const { None }; BURST];
        let parcel = |slot, frame| Parcel { frame, meta: (*batch.meta(slot)).into(), lane: port };
        for (slot, frame) in slots.into_iter().zip(gone.drain()) {
            if batch.away().has(slot) {
                if let Some(place) = leaving.get_mut(slot) {
                    *place = Some(frame);
                }
                continue;
            }
            let frame = match &mut streams {
                Some(streams) if batch.held().has(slot) => {
                    match streams.hold(slot, frame, batch, (port, now), counters) {
                        Ok(()) => continue,
                        Err(frame) => frame,
                    }
                }
                _ => frame,
            };
            let frame = if batch.held().has(slot)
                && let About::Orphan(datagram) = self.lookup.about(slot)
            {
                match self.held.hold(parcel(slot, frame), datagram, now) {
                    Ok(()) => {
                        counters.flows.held_fragments.add(1);
                        continue;
                    }
                    Err(Parcel { frame, .. }) => {
                        counters.drop(DropReason::FragmentOrphan.into(), 1);
                        frame
                    }
                }
            } else {
                frame
            };
            let _ = dead.push(frame); // there is room: they all came out of one burst
        }
        // To one owner after another; of each flow in its order.
        let (mut given, mut away) = (0, batch.away());
        while let Some(first) = away.iter().next() {
            let owner_of = |slot: usize| self.owners.get(slot).copied().unwrap_or(WorkerId(0));
            let owner = owner_of(first);
            let mut his = Mask::NONE;
            for slot in away {
                if owner_of(slot) == owner {
                    his.insert(slot);
                }
            }
            away = away.without(his);
            let mut parcels =
                his.into_iter().filter_map(|slot| Some(parcel(slot, leaving.get_mut(slot)?.take()?)));
            let taken = self.mesh.as_mut().map_or(0, |mesh| mesh.give(owner, his.count(), &mut parcels));
            given += taken as u64;
            for Parcel { frame, .. } in parcels {
                counters.drop(DropReason::HandoffFull.into(), 1);
                let _ = dead.push(frame);
            }
        }
        counters.flows.handed_out.add(given);
        counters.held.set(self.held.len() as u64);
        *gone = dead;
    }

    /// Fills the (empty) batch with fragments that need not wait any more: such whose first is known by now, or else such that have
    /// waited long enough (`last`: all). All of them go home by the port that is returned.
    #[cold]
    #[inline(never)]
    pub(super) fn unhold(
        &mut self,
        batch: &mut Batch,
        now: u64,
        last: bool,
        counters: &WorkerCounters,
    ) -> Option<(u8, Source)> {
        let Track { finder, held, .. } = self;
        let Finder { fragments, flows, places, .. } = finder;
        let (now_ms, news) = (flows.now(), fragments.news());
        if !last && !held.is_due(now, news) {
            return None;
        }
        let mut kind = None;
        held.ready(
            if last { u64::MAX } else { now },
            news,
            |datagram| fragments.find(datagram, now_ms),
            |parcel, first| {
                let source = if first.is_some() { Source::Queue } else { Source::GivenUp };
                if kind.is_some_and(|kind| kind != (parcel.lane, source)) {
                    return Some(parcel);
                }
                kind = Some((parcel.lane, source));
                let Parcel { frame, meta, lane } = parcel;
                let back = batch.put(frame, meta.into()).err().map(|frame| Parcel { frame, meta, lane });
                if back.is_none() {
                    places.give_back(meta.tenant);
                }
                back
            },
        );
        counters.held.set(held.len() as u64);
        batch.begin();
        kind
    }

    /// From now on fragments without their first go at once.
    pub(super) fn hold_no_more(&mut self) {
        self.finder.policy.holds = false;
    }

    /// Fragments wait.
    #[inline(always)]
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }
}
