//! Hop 3, track: every packet finds its flow, or opens one, or is given to the worker that owns it.
//!
//! A batch goes through in three passes, so that the memory of one packet arrives while others are worked on:
//!
//! 1. key and hash from the inner headers; ask for the bucket;
//! 2. tags of the bucket; ask for the entry's two lines;
//! 3. compare and follow. A flow with which all stages are done leaves the pipeline here.
//!
//! What pass 3 does not find is searched again, from the start: an earlier packet of the batch may have opened or ended the flow.
//!
//! May drop: [`DropReason::FlowCondemned`], [`DropReason::TcpInvalid`], [`DropReason::TableFull`], [`DropReason::Pickup`],
//! [`DropReason::UnknownEndpoint`].

use super::counters::WorkerCounters;
use crate::config::{FlowPlan, Pickup, Plan, Scope, UnknownEndpoint, WhenFull};
use crate::dpdk::{BURST, Mbuf};
use crate::flow::tcp::WindowCheck;
use crate::flow::{Flows, FlowsShared, Followed, Key, Newcomer, Opened, Opening, Seed, is_answer, quoted};
use crate::packet::{Batch, DropReason, InnerFlags, Mask, Meta};

/// Where a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A receive queue.
    Queue,
    /// Another worker: such packets stay here, whoever owns their flow by now.
    Peer,
}

/// What a packet speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum About {
    /// Its own flow.
    #[default]
    Itself,
    /// The flow of the packet that it quotes.
    Quoted,
    /// Nothing that we know.
    Nothing,
}

/// Pass 1's findings, and pass 2's.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    key: Key,
    hash: u64,
    guess: u32,
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
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    when_full: WhenFull,
    pickup: Pickup,
    check: WindowCheck,
    unknown: UnknownEndpoint,
    /// A bit for each stage.
    stages: u16,
}

/// The hop on one worker.
#[derive(Debug)]
pub struct Track {
    finder: Finder,
    looked: Box<[Looked; BURST]>,
}

/// What finds and opens flows.
#[derive(Debug)]
struct Finder {
    flows: Flows,
    policy: Policy,
    scope: Scope,
    tenants: Tenants,
    seed: Seed,
}

impl Track {
    /// The hop of one worker of a plan.
    pub fn of(plan: &Plan, shared: &FlowsShared, counters: &WorkerCounters) -> Self {
        let workers = plan.workers.len();
        let flows = Flows::new(counters.worker, &plan.flow, workers, shared, None, counters.flows.clone());
        Track::new(flows, &plan.flow, shared, plan.stages.len())
    }

    /// The hop over these flows, in front of so many stages.
    pub fn new(flows: Flows, plan: &FlowPlan, shared: &FlowsShared, stages: usize) -> Self {
        let policy = Policy {
            when_full: plan.when_full,
            pickup: plan.pickup,
            check: plan.window_check,
            unknown: plan.unknown_endpoint,
            stages: u16::MAX.checked_shr(16u32.saturating_sub(stages as u32)).unwrap_or(0),
        };
        let finder =
            Finder { flows, policy, scope: plan.scope, tenants: Tenants::new(plan), seed: shared.seed };
        Track { finder, looked: Box::new([Looked::default(); BURST]) }
    }

    /// The flows.
    #[inline(always)]
    pub fn flows(&mut self) -> &mut Flows {
        &mut self.finder.flows
    }

    /// Finds the flow of every live slot.
    #[inline(always)]
    pub(super) fn run(&mut self, batch: &mut Batch, source: Source) {
        let live = batch.live();
        let Track { finder, looked } = self;
        let (frames, metas, reasons) = batch.slots();
        for (slot, ((frame, meta), looked)) in
            frames.iter().zip(metas.iter()).zip(looked.iter_mut()).enumerate()
        {
            if live.has(slot) {
                finder.look(meta, frame, looked);
            }
        }
        for (slot, looked) in looked.iter_mut().take(frames.len()).enumerate() {
            if live.has(slot) {
                looked.guess = finder.flows.guess(looked.hash);
            }
        }
        let (mut home, mut dropped, mut rejected, mut hits) = (Mask::NONE, Mask::NONE, Mask::NONE, 0);
        for (slot, ((frame, meta), looked)) in frames.iter().zip(metas).zip(looked.iter()).enumerate() {
            if !live.has(slot) {
                continue;
            }
            let fate = if looked.about == About::Itself && finder.flows.is(looked.guess, &looked.key) {
                hits += 1;
                finder.follow(looked.guess, looked, meta, frame.data(), source)
            } else {
                finder.otherwise(looked, meta, frame.data(), source)
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
            }
        }
        finder.flows.counters().local_hits.add(hits);
        batch.forward(home);
        if !dropped.is_empty() {
            batch.lose(dropped, rejected);
        }
    }
}

impl Finder {
    /// Pass 1.
    #[inline(always)]
    fn look(&mut self, meta: &Meta, frame: &Mbuf, looked: &mut Looked) {
        let scope = match self.scope {
            Scope::Endpoint => meta.endpoint,
            Scope::Tenant => self.tenants.of(meta.endpoint).map_or(0, u64::from),
        };
        const PLAIN: u8 = InnerFlags::PORTS | InnerFlags::FIRST_FRAGMENT;
        let found = if meta.flags.0 & PLAIN == InnerFlags::PORTS {
            Key::of(scope, meta, frame.data()).map(|(key, from_high)| (key, from_high, About::Itself))
        } else {
            about(scope, meta, frame.data())
        };
        let Some((key, from_high, about)) = found else {
            looked.about = About::Nothing;
            return;
        };
        let hash = self.seed.hash(&key);
        self.flows.prefetch(hash);
        *looked = Looked { key, hash, guess: 0, from_high, about };
    }

    /// Pass 3, for a packet of the flow in entry `number`.
    #[inline(always)]
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

    #[inline(always)]
    fn passes(&self, meta: &Meta) -> Fate {
        if meta.settled & self.policy.stages == self.policy.stages { Fate::Home } else { Fate::Open }
    }

    #[cold]
    #[inline(never)]
    fn unusual(&mut self, followed: Followed, looked: &Looked, meta: &mut Meta, source: Source) -> Fate {
        match followed {
            Followed::Passes => self.passes(meta),
            Followed::Condemned { reject } => {
                self.flows.counters().condemned.add(1);
                let reason = DropReason::FlowCondemned;
                if reject { Fate::Reject(reason) } else { Fate::Drop(reason) }
            }
            Followed::Refused => Fate::Drop(DropReason::TcpInvalid),
            Followed::Begins { opening, from_high } => self.open(opening, from_high, looked, meta, source),
        }
    }

    /// Pass 3, for a packet whose flow pass 2 did not find.
    #[cold]
    #[inline(never)]
    fn otherwise(&mut self, looked: &Looked, meta: &mut Meta, frame: &[u8], source: Source) -> Fate {
        if looked.about == About::Nothing {
            return self.without();
        }
        let found = self.flows.find(looked.hash, &looked.key);
        if let About::Quoted = looked.about {
            // The error travels against the packet that it quotes.
            return match found {
                Some(number) => {
                    let followed = self.flows.relate(number, !looked.from_high, meta);
                    self.unusual(followed, looked, meta, source)
                }
                None => {
                    self.flows.counters().unrelated.add(1);
                    self.without()
                }
            };
        }
        match found {
            Some(number) => {
                self.flows.counters().local_hits.add(1);
                self.follow(number, looked, meta, frame, source)
            }
            None => self.new_flow(looked, meta, frame, source),
        }
    }

    fn new_flow(&mut self, looked: &Looked, meta: &mut Meta, frame: &[u8], source: Source) -> Fate {
        match self.tenants.of(meta.endpoint) {
            Some(tenant) => meta.tenant = tenant,
            None if self.policy.unknown == UnknownEndpoint::Drop => {
                return Fate::Drop(DropReason::UnknownEndpoint);
            }
            None => meta.tenant = 0,
        }
        let opening = Flows::opening(&looked.key, meta, frame);
        let known = matches!(opening, Some(Opening::Other | Opening::Tcp { picked_up: false, .. }));
        if !known {
            match self.policy.pickup {
                Pickup::Policy | Pickup::Allow => {}
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
        let Some(opening) = opening else { return self.without() };
        let from_high = looked.from_high != (!known && is_answer(meta));
        self.open(opening, from_high, looked, meta, source)
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
                    self.flows.settle(meta.flow, self.policy.stages);
                    meta.settled = self.policy.stages;
                }
                self.flows.counters().local_hits.add(1);
                self.passes(meta)
            }
            Opened::Elsewhere(_) => self.without(),
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

/// What a packet is about that is neither TCP nor UDP in one piece.
#[cold]
#[inline(never)]
fn about(scope: u64, meta: &Meta, frame: &[u8]) -> Option<(Key, bool, About)> {
    if quoted::is_error(meta) {
        return quoted::key(scope, meta, frame).map(|(key, from_high)| (key, from_high, About::Quoted));
    }
    if meta.flags.has(InnerFlags::LATER_FRAGMENT) {
        return None;
    }
    Key::of(scope, meta, frame).map(|(key, from_high)| (key, from_high, About::Itself))
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
