//! What finds and opens flows, and says what becomes of a packet.

use std::hint::cold_path;
use std::sync::Arc;

use super::Source;
use super::tenants::Tenants;
use super::terms::Policy;
use crate::config::{Orphans, Pickup, Scope, UnknownEndpoint, WhenFull};
use crate::dpdk::{BURST, Mbuf};
use crate::flow::fragment::{First, Fragments, Inserted, Places, Ports};
use crate::flow::{About, Flows, Followed, Key, Lookup, Newcomer, Opened, Opening, Seed, is_answer, quoted};
use crate::packet::{DropReason, FlowSlot, InnerFlags, Mask, Meta};
use crate::stage::WorkerId;

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
pub enum Fate {
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

/// What finds and opens flows.
#[derive(Debug)]
pub struct Finder {
    pub flows: Flows,
    pub policy: Policy,
    /// Stages that are not for a tenant, by its number; empty where all are for everybody.
    pub foreign: Box<[u16]>,
    pub scope: Scope,
    pub tenants: Tenants,
    pub seed: Seed,
    pub fragments: Arc<Fragments>,
    /// Where fragments wait.
    pub places: Places,
}

impl Finder {
    /// Pass 1.
    #[inline(never)]
    pub fn look(&mut self, live: Mask, frames: &[Mbuf], metas: &[Meta; BURST], lookup: &mut Lookup) {
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
    pub fn hit(&self, source: Source, packets: u64) {
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
    pub fn otherwise(
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
            About::Nothing => return self.without(meta),
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
                    self.without(meta)
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
                self.elsewhere(looked, source).unwrap_or_else(|| self.without(meta))
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
    pub fn astray(&self, meta: &mut Meta) -> Fate {
        self.flows.counters().astray.add(1);
        self.without(meta)
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
            return self.elsewhere(looked, source).unwrap_or_else(|| self.without(meta));
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
                let foreign = self.foreign(meta.tenant);
                if foreign != 0 {
                    self.flows.settle(meta.flow, foreign);
                    meta.settled |= foreign;
                }
                if let (Opening::Tcp { picked_up: true, .. }, Pickup::Allow) = (&opening, self.policy.pickup)
                {
                    self.flows.forward(meta.flow, self.policy.allowed, None);
                    meta.settled |= self.policy.allowed;
                }
                self.passes(meta)
            }
            Opened::Elsewhere(owner) => Fate::Away(owner),
            Opened::Astray => self.astray(meta),
            Opened::NoRoom => match self.policy.when_full {
                WhenFull::Stateless => self.without(meta),
                WhenFull::Drop => Fate::Drop(DropReason::TableFull),
                WhenFull::Forward => Fate::Home,
            },
        }
    }

    /// Stages that are not in the tenant's pipeline: its flows begin as settled by them.
    fn foreign(&self, tenant: u16) -> u16 {
        self.foreign.get(usize::from(tenant)).copied().unwrap_or(0)
    }

    /// The stages look at it as if it were alone.
    fn without(&self, meta: &mut Meta) -> Fate {
        self.flows.counters().stateless.add(1);
        meta.settled = self.foreign(meta.tenant);
        self.passes(meta)
    }
}
