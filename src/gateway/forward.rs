//! What a worker does with frames: those of legs go to targets, those of targets go back to legs.
//!
//! ```text
//! leg:     Ethernet, VLAN -> endpoint; packet -> key -> flow, or a new one of the target that is chosen -> wrapped -> targets' port
//! target:  out of the envelope (decap) -> key -> flow -> is it this target's, under this cookie? -> stripped -> the other leg
//! ```
//!
//! Each batch goes through three passes, as in the flow engine: hash, and ask for the bucket; compare tags, and ask for what is remembered; decide.
//! Frames come from anybody: whatever is wrong with one is a reason, and work is bounded by the frame.
//!
//! Promises: no allocation, lock, log, system call or clock; every frame of a batch has one [`Fate`].

use super::envelope::{Address, Wrapper, source_port, strip};
use super::flows::{End, Flows, Opening};
use super::legs::{Header, Leg, LegId, Legs, pass_by};
use super::reasons::Why;
use super::stickiness::{Balanced, Stickiness};
use super::targets::{Choice, TargetId};
use crate::dpdk::{BURST, Mbuf};
use crate::flow::{Key, Seed, Spot};
use crate::packet::{InnerFlags, Mask, Meta, ReasonId};
use crate::wire::eth::{self, Eth};
use crate::wire::inner::Inner;
use crate::wire::{tcp, transport};

/// EtherTypes of further tags (IEEE 802.1ad, and what was in use before).
const OTHER_TAGS: [u16; 3] = [0x88a8, 0x9100, 0x9200];
/// Neighbour discovery (RFC 4861): types of ICMPv6, and the hop limit that proves it came from this link.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
const FROM_THIS_LINK: u8 = 255;
const FRAGMENT: u8 = InnerFlags::FIRST_FRAGMENT | InnerFlags::LATER_FRAGMENT;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves by this lane.
    Lane(u8),
    /// It is dropped for this reason.
    Drop(ReasonId),
    /// It is the host stack's.
    Punt,
}

impl From<Why> for Fate {
    #[inline(always)]
    fn from(why: Why) -> Self {
        Fate::Drop(why.id())
    }
}

/// What becomes of TCP that opens nothing, of no flow that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownTcp {
    /// It is dropped, as AWS does.
    #[default]
    Drop,
    /// It is taken for a flow that another gateway had: gateways of one configuration choose alike.
    PickUp,
}

/// What becomes of frames that are neither IP nor ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NonIp {
    /// They pass by between the legs.
    #[default]
    Pass,
    /// They are dropped.
    Drop,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its 64-bit id, as it stands in envelopes.
    pub id: u64,
    /// Where its frames come in and go out.
    pub legs: [Leg; 2],
}

/// What a worker knows of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its address, as it stands in a header.
    pub address: [u8; 4],
    /// Its MAC address, or that of the router to it; `None` while nobody knows.
    pub mac: Option<[u8; 6]>,
    /// Its flows are to leave it: `rebalance`, and it is unhealthy or gone.
    pub is_left: bool,
}

/// What changes while a gateway runs.
#[derive(Clone, Debug)]
pub struct News {
    /// To whom new flows go.
    pub choice: Choice,
    /// The targets, by [`TargetId`]. Numbers are not given away again.
    pub seats: Box<[Seat]>,
}

/// What does not change.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What belongs together.
    pub stickiness: Stickiness,
    /// Hash of the choice, the same on all gateways.
    pub balance: Seed,
    /// TCP of unknown flows.
    pub unknown_tcp: UnknownTcp,
    /// Frames that are not IP.
    pub non_ip: NonIp,
    /// The endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// The lane of the targets' port.
    pub targets: u8,
}

/// What pass 1 found of a packet.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    key: Key,
    hash: u64,
    spot: Spot,
    guess: Option<u32>,
    from_high: bool,
    related: bool,
    tcp: Tcp,
    /// The hash by which it is balanced is asked for when it opens a flow only, so what that needs is kept: nothing but the key.
    leg: Option<LegId>,
    /// Bytes of Ethernet header, and of the packet behind it.
    link: u8,
    len: u16,
}

/// What a packet is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Tcp {
    /// It is not TCP, or no flags are in it.
    #[default]
    No,
    /// It may open one.
    Syn,
    /// It opens none.
    Other,
}

/// A worker's part in forwarding.
#[derive(Debug)]
pub struct Forward {
    terms: Terms,
    wrapper: Wrapper,
    flows: Flows,
    news: Box<News>,
    looked: Box<[Looked; BURST]>,
    fates: Box<[Fate; BURST]>,
}

impl Forward {
    /// Allocates what it will ever need.
    pub fn new(terms: Terms, wrapper: Wrapper, flows: Flows, news: Box<News>) -> Self {
        Forward {
            terms,
            wrapper,
            flows,
            news,
            looked: Box::new([Looked::default(); BURST]),
            fates: Box::new([Fate::Punt; BURST]),
        }
    }

    /// What became of each frame of the last batch.
    #[inline(always)]
    pub fn fates(&self) -> &[Fate; BURST] {
        &self.fates
    }

    /// The news change places with others.
    pub fn swap(&mut self, news: &mut Box<News>) {
        std::mem::swap(&mut self.news, news);
    }

    /// Forgets some flows whose time is over.
    #[inline(always)]
    pub fn sweep(&mut self, now: u32) {
        self.flows.sweep(now);
    }

    /// Frames of a port with these legs. `now` is in milliseconds.
    pub fn from_legs(&mut self, legs: &Legs, frames: &mut [Mbuf], now: u32) {
        let mut packets = Mask::NONE;
        for (slot, frame) in frames.iter_mut().enumerate() {
            let (Some(fate), Some(looked)) = (self.fates.get_mut(slot), self.looked.get_mut(slot)) else {
                break;
            };
            match look(&self.terms, legs, frame, looked) {
                None => {
                    (looked.hash, looked.spot) = self.flows.ask(&looked.key);
                    packets.insert(slot);
                }
                Some(other) => *fate = other,
            }
        }
        self.guess(packets);
        for slot in packets {
            let (Some(frame), Some(looked)) = (frames.get_mut(slot), self.looked.get(slot)) else { break };
            let looked = *looked;
            let fate = self.depart(frame, &looked, now).unwrap_or_else(Fate::from);
            if let Some(place) = self.fates.get_mut(slot) {
                *place = fate;
            }
        }
    }

    /// Frames of the targets' port that decap let pass (`live`), with what it found in them.
    pub fn from_targets(&mut self, frames: &mut [Mbuf], metas: &[Meta; BURST], live: Mask, now: u32) {
        let mut packets = Mask::NONE;
        for slot in live {
            let (Some(frame), Some(meta)) = (frames.get(slot), metas.get(slot)) else { break };
            let (Some(fate), Some(looked)) = (self.fates.get_mut(slot), self.looked.get_mut(slot)) else {
                break;
            };
            match look_back(&self.terms, meta, frame.data()) {
                Some(Balanced { key, from_high, related }) => {
                    let (hash, spot) = self.flows.ask(&key);
                    *looked = Looked { key, hash, spot, from_high, related, ..Looked::default() };
                    packets.insert(slot);
                }
                None => *fate = Why::NoFlow.into(),
            }
        }
        self.guess(packets);
        for slot in packets {
            let (Some(frame), Some(meta), Some(looked)) =
                (frames.get_mut(slot), metas.get(slot), self.looked.get(slot))
            else {
                break;
            };
            let looked = *looked;
            let fate = self.come_back(frame, meta, &looked, now).unwrap_or_else(Fate::from);
            if let Some(place) = self.fates.get_mut(slot) {
                *place = fate;
            }
        }
    }

    /// Notes what became of a frame that is not one of these.
    #[inline(always)]
    pub fn decide(&mut self, slot: usize, fate: Fate) {
        if let Some(place) = self.fates.get_mut(slot) {
            *place = fate;
        }
    }

    /// Pass 2.
    #[inline(always)]
    fn guess(&mut self, packets: Mask) {
        for slot in packets {
            if let Some(looked) = self.looked.get_mut(slot) {
                looked.guess = self.flows.guess(looked.spot);
            }
        }
    }

    /// Pass 3 of a packet from a leg.
    #[inline(always)]
    fn depart(&mut self, frame: &mut Mbuf, looked: &Looked, now: u32) -> Result<Fate, Why> {
        let Some(leg) = looked.leg else { return Err(Why::StrangeLeg) };
        // What would not fit opens no flow.
        if looked.len > self.wrapper.max_inner() {
            return Err(Why::TooBig);
        }
        let found = self.flows.find(looked.guess, looked.hash, &looked.key);
        let number = match found {
            Some(number) if !self.is_new(number, looked, now) => number,
            _ => self.open(found, looked, leg, now)?,
        };
        let link = usize::from(looked.link);
        let header = Header::of(frame.data(), link);
        let seat = self.flows.slot(number).and_then(|slot| self.news.seats.get(usize::from(slot.target)));
        let Some(&(mut seat)) = seat else {
            return Err(Why::NoTarget);
        };
        if seat.is_left {
            seat = self.leave(number, looked);
        }
        let Some(slot) = self.flows.slot(number) else { return Err(Why::NoFlow) };
        if looked.related {
            slot.note_related(looked.from_high, leg.side(), header);
        } else {
            slot.note(now, looked.from_high, leg.side(), header, looked.tcp != Tcp::No);
        }
        let Some(mac) = seat.mac else { return Err(Why::Unresolved) };
        let to = Address {
            mac,
            target: seat.address.into(),
            source_port: slot.source_port,
            endpoint: looked.key.scope(),
            cookie: slot.cookie,
            reply: slot.is_reply(looked.from_high),
            ipv6: looked.key.is_ipv6(),
        };
        self.wrapper.wrap(frame, link, looked.len, &to).map_err(|_| Why::TooBig)?;
        frame.clear_offloads();
        Ok(Fate::Lane(self.terms.targets))
    }

    /// Is what is remembered over, so that this packet begins something new, or nothing?
    #[inline(always)]
    fn is_new(&mut self, number: u32, looked: &Looked, now: u32) -> bool {
        if self.flows.is_expired(number, now) {
            return true;
        }
        looked.tcp == Tcp::Syn
            && self.terms.stickiness == Stickiness::FiveTuple
            && self.flows.slot(number).is_some_and(|slot| slot.is_over())
    }

    /// A flow begins, if this packet may begin one. `found` is what is there in its place.
    #[cold]
    #[inline(never)]
    fn open(&mut self, found: Option<u32>, looked: &Looked, leg: LegId, now: u32) -> Result<u32, Why> {
        if let Some(number) = found {
            let renewed = !self.flows.is_expired(number, now);
            self.flows.end(number, if renewed { End::Renewed } else { End::Idle });
        }
        if looked.related {
            return Err(Why::Unrelated);
        }
        if looked.tcp == Tcp::Other && self.terms.unknown_tcp == UnknownTcp::Drop {
            return Err(Why::UnknownTcp);
        }
        let balanced = self.terms.balance.hash(&looked.key.without_scope());
        let Some(target) = self.news.choice.of(balanced) else { return Err(Why::NoTarget) };
        let opening = Opening {
            target,
            source_port: source_port(balanced),
            endpoint: leg.endpoint(),
            from_high: looked.from_high,
        };
        self.flows.open(looked.hash, &looked.key, opening, now).ok_or(Why::TableFull)
    }

    /// A flow leaves its target, if there is another for it.
    #[cold]
    #[inline(never)]
    fn leave(&mut self, number: u32, looked: &Looked) -> Seat {
        const NOWHERE: Seat = Seat { address: [0; 4], mac: None, is_left: true };
        let balanced = self.terms.balance.hash(&looked.key.without_scope());
        let now = self.flows.slot(number).map_or(0, |slot| slot.target);
        let next = self.news.choice.of(balanced).unwrap_or(TargetId(now));
        if next.0 != now {
            self.flows.give(number, next);
        }
        self.news.seats.get(usize::from(next.0)).copied().unwrap_or(NOWHERE)
    }

    /// Pass 3 of a packet from a target.
    #[inline(always)]
    fn come_back(&mut self, frame: &mut Mbuf, meta: &Meta, looked: &Looked, now: u32) -> Result<Fate, Why> {
        let found = self.flows.find(looked.guess, looked.hash, &looked.key);
        let Some(number) = found.filter(|number| !self.flows.is_expired(*number, now)) else {
            return Err(self.stranger(meta).unwrap_or(Why::NoFlow));
        };
        let Some(slot) = self.flows.slot(number) else { return Err(Why::NoFlow) };
        let seat = self.news.seats.get(usize::from(slot.target));
        if seat.is_none_or(|seat| seat.address != meta.node) {
            return Err(self.stranger(meta).unwrap_or(Why::OtherTarget));
        }
        if !self.wrapper.is_cookie(slot.cookie, meta.cookie) {
            return Err(Why::WrongCookie);
        }
        let (leg, header) = slot.way_out(looked.from_high);
        let endpoint = self.terms.endpoints.get(usize::from(leg.endpoint()));
        let Some(leg) = endpoint.and_then(|endpoint| endpoint.legs.get(usize::from(leg.side()))) else {
            return Err(Why::StrangeEndpoint);
        };
        if meta.inner_len > self.wrapper.max_inner().min(leg.mtu) {
            return Err(Why::TooBig);
        }
        if self.terms.stickiness == Stickiness::FiveTuple && !looked.related {
            slot.answered(looked.from_high, meta.tcp_flags);
        } else {
            slot.answered(looked.from_high, 0);
        }
        let ethertype = if looked.key.is_ipv6() { eth::IPV6 } else { eth::IPV4 };
        let (len, head) = header.on(leg, ethertype);
        let head = head.get(..len).unwrap_or(&head);
        if !strip(frame, usize::from(meta.inner), meta.inner_len, head) {
            return Err(Why::TooBig);
        }
        frame.clear_offloads();
        Ok(Fate::Lane(leg.lane))
    }

    /// Does the sender, or what it says of the endpoint, belong to us at all?
    #[cold]
    #[inline(never)]
    fn stranger(&self, meta: &Meta) -> Option<Why> {
        if !self.news.seats.iter().any(|seat| seat.address == meta.node) {
            return Some(Why::StrangeTarget);
        }
        let known = self.terms.endpoints.iter().any(|endpoint| endpoint.id == meta.endpoint);
        (!known).then_some(Why::StrangeEndpoint)
    }
}

/// Pass 1 of a frame from a leg: what it is, or what becomes of it at once.
#[inline(always)]
fn look(terms: &Terms, legs: &Legs, frame: &mut Mbuf, looked: &mut Looked) -> Option<Fate> {
    let data = frame.data();
    let Ok(eth) = Eth::new_checked(data) else {
        return Some(Fate::Drop(crate::packet::DropReason::OuterTruncated.into()));
    };
    let Some(leg) = legs.of(eth.vlan()) else { return Some(Why::StrangeLeg.into()) };
    let Some(endpoint) = terms.endpoints.get(usize::from(leg.endpoint())) else {
        return Some(Why::StrangeLeg.into());
    };
    let other = endpoint.legs.get(usize::from(leg.side() ^ 1)).unwrap_or(&endpoint.legs[0]);
    let ethertype = eth.ethertype();
    if ethertype != eth::IPV4 && ethertype != eth::IPV6 {
        return Some(not_ip(terms, ethertype, frame, other));
    }
    let packet = eth.payload();
    let inner = match Inner::parse(packet, ethertype) {
        Ok(inner) => inner,
        Err(reason) => return Some(Fate::Drop(reason.into())),
    };
    if inner.protocol == transport::ICMPV6 && is_discovery(&inner, packet) {
        return Some(pass(frame, other));
    }
    let Some(Balanced { key, from_high, related }) = terms.stickiness.key(endpoint.id, &inner, packet) else {
        return Some(Why::Unrelated.into());
    };
    let tcp = if inner.protocol != transport::TCP || inner.flags.has(FRAGMENT) {
        Tcp::No
    } else if inner.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN {
        Tcp::Syn
    } else {
        Tcp::Other
    };
    let link = eth.header_len() as u8; // 14 or 18
    *looked =
        Looked { key, from_high, related, tcp, leg: Some(leg), link, len: inner.len, ..Looked::default() };
    None
}

/// The same of a packet that came back.
#[inline(always)]
fn look_back(terms: &Terms, meta: &Meta, frame: &[u8]) -> Option<Balanced> {
    let start = usize::from(meta.inner);
    let packet = frame.get(start..start + usize::from(meta.inner_len))?;
    let inner = Inner {
        len: meta.inner_len,
        transport: meta.transport.saturating_sub(meta.inner),
        transport_len: meta.transport_len,
        source_port: meta.source_port,
        destination_port: meta.destination_port,
        protocol: meta.protocol,
        tcp_flags: meta.tcp_flags,
        flags: meta.flags,
    };
    terms.stickiness.key(meta.endpoint, &inner, packet)
}

/// A frame that is not IP.
#[cold]
#[inline(never)]
fn not_ip(terms: &Terms, ethertype: u16, frame: &mut Mbuf, other: &Leg) -> Fate {
    if ethertype == eth::VLAN || OTHER_TAGS.contains(&ethertype) {
        return Why::StackedTags.into();
    }
    if ethertype != eth::ARP && terms.non_ip == NonIp::Drop {
        return Why::NonIp.into();
    }
    pass(frame, other)
}

/// Out by the other leg.
fn pass(frame: &mut Mbuf, other: &Leg) -> Fate {
    frame.clear_offloads();
    if pass_by(frame, other) { Fate::Lane(other.lane) } else { Why::TooBig.into() }
}

/// Neighbour discovery, which is about this link as ARP is.
#[cold]
#[inline(never)]
fn is_discovery(inner: &Inner, packet: &[u8]) -> bool {
    let kind = (inner.source_port >> 8) as u8;
    inner.flags.has(InnerFlags::IPV6)
        && inner.flags.has(InnerFlags::ICMP)
        && DISCOVERY.contains(&kind)
        && packet.get(7) == Some(&FROM_THIS_LINK)
}

/// For tests and for whoever shows flows: what is remembered, by number.
#[cfg(test)]
impl Forward {
    pub fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}
