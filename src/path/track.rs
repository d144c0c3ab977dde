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

use std::hint::cold_path;
use std::sync::Arc;

use super::counters::WorkerCounters;
use super::inspect::Streams;
use super::mesh::Mesh;
use crate::config::{FlowPlan, Orphans, Pickup, Plan, Scope, UnknownEndpoint, WhenFull};
use crate::dpdk::{BURST, Burst, Mbuf};
use crate::flow::fragment::{First, Fragments, Held, Inserted, Places, Ports};
use crate::flow::handoff::Parcel;
use crate::flow::refit::Refit;
use crate::flow::tcp::WindowCheck;
use crate::flow::{
    About, Flows, FlowsShared, Followed, Key, Lookup, Newcomer, Opened, Opening, Seed, Timeouts, is_answer,
    quoted,
};
use crate::packet::{Batch, DropReason, FlowSlot, InnerFlags, Mask, Meta};
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

/// A packet that is more than usual.
#[derive(Clone, Copy, Debug)]
struct Looked {
    key: Key,
    hash: u64,
    /// The higher end sent it.
    from_high: bool,
    about: About,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// To the stages.
    Open,
    /// Home: every stage is done with its flow, or it goes without having been looked at.
    Home,
    Drop(DropReason),
    /// Dropped, and its sender is told.
    Reject(DropReason),
    /// To the worker that owns its flow.
    Away(WorkerId),
    /// It waits for its first fragment.
    Hold,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    when_full: WhenFull,
    pickup: Pickup,
    check: WindowCheck,
    unknown: UnknownEndpoint,
    orphans: Orphans,
    /// Fragments can wait.
    holds: bool,
    /// A bit for each stage.
    stages: u16,
    /// Those of them whose answer is given where connections from before are allowed.
    allowed: u16,
}

impl Policy {
    #[inline(always)]
    fn nobodys_scope(&self) -> u64 {
        if self.unknown == UnknownEndpoint::Drop { u64::MAX } else { 0 }
    }
}

/// What of the hop can change while it runs.
#[derive(Debug)]
pub(super) struct Terms {
    policy: Policy,
    timeouts: Timeouts,
    /// How long fragments wait.
    patience: u64,
}

impl Terms {
    /// Those of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut terms = Terms::new(&plan.flow, plan.stages.len());
        let settles = plan.stages.iter().enumerate().filter(|(_, stage)| stage.parsed.settles());
        terms.policy.allowed = settles.fold(0, |bits, (n, _)| bits | 1u16.checked_shl(n as u32).unwrap_or(0));
        terms
    }

    /// The same with a candidate beside the pipeline, which is done with a flow by the bit behind the stages'.
    pub fn beside(mut self, is_there: bool) -> Self {
        let stages = self.policy.stages;
        self.policy.stages |= if is_there { stages.wrapping_add(1) } else { 0 };
        self
    }

    fn new(plan: &FlowPlan, stages: usize) -> Self {
        let policy = Policy {
            when_full: plan.when_full,
            pickup: plan.pickup,
            check: plan.window_check,
            unknown: plan.unknown_endpoint,
            orphans: plan.fragments.orphans,
            holds: plan.fragments.hold > 0,
            stages: u16::MAX.checked_shr(16u32.saturating_sub(stages as u32)).unwrap_or(0),
            allowed: 0,
        };
        let patience = plan.fragments.hold_time.as_nanos().try_into().unwrap_or(u64::MAX);
        Terms { policy, timeouts: Timeouts::new(plan), patience }
    }
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

/// What finds and opens flows.
#[derive(Debug)]
struct Finder {
    flows: Flows,
    policy: Policy,
    scope: Scope,
    tenants: Tenants,
    seed: Seed,
    fragments: Arc<Fragments>,
    /// Where fragments wait.
    places: Places,
}

impl Track {
    /// The hop of one worker of a plan; `mesh` is its way to the others.
    pub fn of(plan: &Plan, shared: &FlowsShared, mesh: Option<Mesh>, counters: &WorkerCounters) -> Self {
        let flows = Flows::new(counters.worker, &plan.flow, shared, None, counters.flows.clone());
        let mut track = Track::new(flows, &plan.flow, shared, mesh, plan.stages.len());
        track.finder.policy = Terms::of(plan).policy;
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
                    finder.astray()
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

impl Finder {
    /// Pass 1.
    #[inline(never)]
    fn look(&mut self, live: Mask, frames: &[Mbuf], metas: &[Meta; BURST], lookup: &mut Lookup) {
        const USUAL: u8 = InnerFlags::PORTS | InnerFlags::FIRST_FRAGMENT | InnerFlags::IPV6;
        for slot in live {
            let Some(meta) = metas.get(slot) else { break };
            let scope = match self.scope {
                Scope::Endpoint => meta.endpoint,
                // Whoever is to be dropped has no flow, and finds no other's.
                Scope::Tenant => {
                    cold_path();
                    self.tenants.of(meta.endpoint).map_or(self.policy.nobodys_scope(), u64::from)
                }
            };
            if meta.flags.0 & USUAL == InnerFlags::PORTS {
                self.flows.look_v4(slot, scope, meta, lookup);
            } else if let Some(frame) = frames.get(slot) {
                self.flows.look_at(slot, self.about(scope, meta, frame.data()), lookup);
            }
        }
    }

    /// What a packet is about that is not usual over IPv4.
    #[inline(never)]
    fn about(&self, scope: u64, meta: &Meta, frame: &[u8]) -> Option<(Key, bool, About)> {
        if quoted::is_error(meta) {
            return quoted::key(scope, meta, frame).map(|(key, from_high)| (key, from_high, About::Quoted));
        }
        let pieces = InnerFlags::FIRST_FRAGMENT | InnerFlags::LATER_FRAGMENT;
        if meta.flags.0 & pieces == 0 {
            return Key::of(scope, meta, frame).map(|(key, from_high)| (key, from_high, About::Itself));
        }
        let datagram = quoted::datagram(&self.seed, scope, meta, frame)?;
        if meta.flags.has(InnerFlags::FIRST_FRAGMENT) {
            return Key::of(scope, meta, frame)
                .map(|(key, from_high)| (key, from_high, About::First(datagram)));
        }
        let ports = match self.fragments.find(datagram, self.flows.now()) {
            Some(First::Passed(ports)) => ports,
            Some(First::Refused(reason)) => return Some((Key::default(), false, About::Refused(reason))),
            None => return Some((Key::default(), false, About::Orphan(datagram))),
        };
        let header = frame.get(usize::from(meta.inner)..)?;
        Key::of_ends(scope, meta.is_ipv6(), meta.protocol, header, (ports.source, ports.destination))
            .map(|(key, from_high)| (key, from_high, About::Later))
    }

    /// A packet of the flow in entry `number`.
    fn follow(
        &mut self,
        number: u32,
        looked: &Looked,
        meta: &mut Meta,
        frame: &[u8],
        source: Source,
    ) -> Fate {
        match self.flows.follow(number, looked.from_high, meta, frame, self.policy.check) {
            Followed::Passes => self.passes(meta),
            other => self.unusual(other, looked, meta, source),
        }
    }

    /// Packets that found their flow where they came in. Those of other workers were counted there.
    #[inline(always)]
    fn hit(&self, source: Source, packets: u64) {
        if source != Source::Peer {
            self.flows.counters().local_hits.add(packets);
        }
    }

    #[inline(always)]
    fn passes(&self, meta: &Meta) -> Fate {
        if meta.settled & self.policy.stages == self.policy.stages { Fate::Home } else { Fate::Open }
    }

    fn unusual(&mut self, followed: Followed, looked: &Looked, meta: &mut Meta, source: Source) -> Fate {
        match followed {
            Followed::Passes => self.passes(meta),
            Followed::Condemned { reject } => {
                self.flows.counters().condemned.add(1);
                let reason = DropReason::FlowCondemned;
                if reject { Fate::Reject(reason) } else { Fate::Drop(reason) }
            }
            Followed::Refused => Fate::Drop(DropReason::TcpInvalid),
            Followed::Begins { opening, from_high } => {
                self.alone(meta);
                self.open(opening, from_high, looked, meta, source)
            }
        }
    }

    /// The packet has no flow as yet: what is left in its place is an earlier packet's. False if its endpoint is nobody's.
    fn alone(&mut self, meta: &mut Meta) -> bool {
        let tenant = self.tenants.of(meta.endpoint);
        meta.leave_flow(tenant.unwrap_or(0));
        tenant.is_some()
    }

    /// Pass 3, for a packet that is more than usual, or whose flow pass 2 did not find.
    #[cold]
    #[inline(never)]
    fn otherwise(
        &mut self,
        slot: usize,
        lookup: &Lookup,
        meta: &mut Meta,
        frame: &[u8],
        source: Source,
    ) -> Fate {
        let (key, from_high, about) = lookup.slot(slot);
        let looked = &Looked { key, hash: self.flows.hash(&key), from_high, about };
        if !self.alone(meta) && self.policy.unknown == UnknownEndpoint::Drop {
            return Fate::Drop(DropReason::UnknownEndpoint);
        }
        match looked.about {
            About::Nothing => return self.without(),
            About::Orphan(_)
                if source != Source::GivenUp && self.policy.holds && self.places.take(meta.tenant) =>
            {
                return Fate::Hold;
            }
            About::Orphan(_) => {
                self.flows.counters().orphan_fragments.add(1);
                return match self.policy.orphans {
                    Orphans::Drop => Fate::Drop(DropReason::FragmentOrphan),
                    Orphans::Forward => Fate::Home,
                };
            }
            About::Refused(reason) => {
                self.flows.counters().later_fragments.add(1);
                let reason = DropReason::ALL.get(usize::from(reason)).copied();
                let reason = reason.unwrap_or(DropReason::FragmentOrphan);
                self.flows.counters().condemned.add(u64::from(reason == DropReason::FlowCondemned));
                return Fate::Drop(reason);
            }
            About::Itself | About::First(_) | About::Quoted | About::Later => {}
        }
        let found = self.flows.find(looked.hash, &looked.key);
        if found.is_some_and(|number| self.flows.refit(number)) {
            return Fate::Drop(DropReason::OnReload);
        }
        if let About::Quoted = looked.about {
            // The error travels against the packet that it quotes.
            return match found {
                Some(number) => {
                    let followed = self.flows.relate(number, !looked.from_high, meta);
                    self.unusual(followed, looked, meta, source)
                }
                None => self.elsewhere(looked, source).unwrap_or_else(|| {
                    self.flows.counters().unrelated.add(1);
                    self.without()
                }),
            };
        }
        let fate = match found {
            Some(number)
                if let Some(owner) = self.flows.moved(number, looked.hash, source == Source::Peer) =>
            {
                Fate::Away(owner)
            }
            Some(number) => {
                self.hit(source, 1);
                self.follow(number, looked, meta, frame, source)
            }
            // Nobody learns from a later fragment how a flow begins.
            None if looked.about == About::Later => {
                self.elsewhere(looked, source).unwrap_or_else(|| self.without())
            }
            None => self.new_flow(looked, meta, frame, source),
        };
        if matches!(fate, Fate::Away(_)) {
            return fate; // its owner sees to the rest
        }
        match looked.about {
            // The flow has a place now, so that whoever finds the ports finds the flow.
            About::First(datagram) => self.remember(datagram, meta, fate),
            About::Later => self.flows.counters().later_fragments.add(1),
            _ => {}
        }
        fate
    }

    /// Later fragments of the datagram belong to the flow of this one, or share its fate where it has none.
    fn remember(&self, datagram: u64, meta: &Meta, fate: Fate) {
        // As in the key: an ICMP echo is known by its identifier alone.
        let icmp = meta.flags.has(InnerFlags::ICMP);
        let ports = match (meta.flags.has(InnerFlags::PORTS), icmp) {
            (true, _) => Ports { source: meta.source_port, destination: meta.destination_port },
            (false, true) => Ports { source: meta.destination_port, destination: meta.destination_port },
            (false, false) => Ports { source: 0, destination: 0 },
        };
        let first = match fate {
            Fate::Drop(reason) | Fate::Reject(reason) => First::Refused(reason as u16),
            _ => First::Passed(ports),
        };
        let inserted = self.fragments.insert(datagram, first, meta.tenant, self.flows.now());
        self.flows.counters().first_fragments.add(1);
        self.flows.counters().fragments_replaced.add(u64::from(inserted == Inserted::Replacing));
    }

    /// To the owner of a flow that is not here.
    fn elsewhere(&self, looked: &Looked, source: Source) -> Option<Fate> {
        if source == Source::Peer {
            return None;
        }
        self.flows.owner(looked.hash).map(Fate::Away)
    }

    /// The owner has no queue on the packet's port, or is a third one.
    #[cold]
    fn astray(&self) -> Fate {
        self.flows.counters().astray.add(1);
        self.without()
    }

    fn new_flow(&mut self, looked: &Looked, meta: &mut Meta, frame: &[u8], source: Source) -> Fate {
        let opening = Flows::opening(&looked.key, meta, frame);
        let known = matches!(opening, Some(Opening::Other | Opening::Tcp { picked_up: false, .. }));
        if !known {
            if self.policy.pickup != Pickup::Policy
                && let Some(fate) = self.elsewhere(looked, source)
            {
                return fate;
            }
            match self.policy.pickup {
                Pickup::Policy | Pickup::Allow => {}
                Pickup::Drop | Pickup::Reset if self.may_have_begun(meta) => {}
                Pickup::Drop => {
                    self.flows.counters().pickup_refused.add(1);
                    return Fate::Drop(DropReason::Pickup);
                }
                Pickup::Reset => {
                    self.flows.counters().pickup_refused.add(1);
                    return Fate::Reject(DropReason::Pickup);
                }
            }
        }
        // A RST of an unknown connection, and what no connection has.
        let Some(opening) = opening else {
            return self.elsewhere(looked, source).unwrap_or_else(|| self.without());
        };
        let from_high = looked.from_high != (!known && is_answer(meta));
        let fate = self.open(opening, from_high, looked, meta, source);
        // One that takes the place of an older flow of its tuple was counted when that was found.
        if meta.flow != FlowSlot::NONE {
            self.hit(source, 1);
        }
        fate
    }

    /// May a segment that no flow explains be of a connection that was let through without a flow? What is dropped when the table is full has
    /// not begun.
    fn may_have_begun(&self, meta: &Meta) -> bool {
        self.policy.when_full != WhenFull::Drop && self.flows.has_turned_away(meta.tenant)
    }

    /// Opens a flow with its first packet.
    fn open(
        &mut self,
        opening: Opening,
        from_high: bool,
        looked: &Looked,
        meta: &mut Meta,
        source: Source,
    ) -> Fate {
        let new = Newcomer { key: looked.key, hash: looked.hash, from_high, tenant: meta.tenant, opening };
        match self.flows.open(&new, source == Source::Peer) {
            Opened::Here(number) => {
                self.flows.begin_with(number, looked.from_high, meta);
                if let (Opening::Tcp { picked_up: true, .. }, Pickup::Allow) = (&opening, self.policy.pickup)
                {
                    self.flows.forward(meta.flow, self.policy.allowed, None);
                    meta.settled = self.policy.allowed;
                }
                self.passes(meta)
            }
            Opened::Elsewhere(owner) => Fate::Away(owner),
            Opened::Astray => self.astray(),
            Opened::NoRoom => match self.policy.when_full {
                WhenFull::Stateless => self.without(),
                WhenFull::Drop => Fate::Drop(DropReason::TableFull),
                WhenFull::Forward => Fate::Home,
            },
        }
    }

    /// The stages look at it as if it were alone.
    fn without(&self) -> Fate {
        self.flows.counters().stateless.add(1);
        if self.policy.stages == 0 { Fate::Home } else { Fate::Open }
    }
}

/// Which tenant an endpoint belongs to. Traffic comes in trains, so the last answer is remembered.
#[derive(Debug)]
struct Tenants {
    /// Ascending by endpoint.
    of: Box<[(u64, u16)]>,
    last: (u64, Option<u16>),
}

impl Tenants {
    fn new(plan: &FlowPlan) -> Self {
        let tenants = plan.tenants.iter().enumerate();
        let mut of: Vec<(u64, u16)> =
            tenants.flat_map(|(n, t)| t.endpoints.iter().map(move |&e| (e, n as u16))).collect();
        of.sort_unstable();
        let mut tenants = Tenants { of: of.into(), last: (0, None) };
        tenants.last.1 = tenants.search(0);
        tenants
    }

    /// `None` for an endpoint that nobody claims.
    #[inline(always)]
    fn of(&mut self, endpoint: u64) -> Option<u16> {
        if self.last.0 != endpoint {
            self.last = (endpoint, self.search(endpoint));
        }
        self.last.1
    }

    #[inline(never)]
    fn search(&self, endpoint: u64) -> Option<u16> {
        let at = self.of.binary_search_by_key(&endpoint, |&(e, _)| e).ok()?;
        self.of.get(at).map(|&(_, tenant)| tenant)
    }
}
