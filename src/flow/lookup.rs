//! A batch on its way through the table, and the usual packet: one that only carries on a flow that is there.
//!
//! The three passes of track are loops of their own here, without calls in them: what they need of the table stays in registers, and
//! nothing has to be read again because a rare case might have changed it. Together they take about 110 instructions for a UDP packet;
//! written into the poll, with the rare cases in their midst, they took 370. Whatever is more than usual is left to `follow`, untouched.

use std::hint::cold_path;

use super::engine::Flows;
use super::key::Key;
use super::line::{Entry, NOBODY};
use super::table::Spot;
use super::{follow, state, tcp};
use crate::dpdk::{BURST, Mbuf};
use crate::packet::{Mask, Meta};

/// Courses of a flow on which nothing but counters and numbers change.
const LASTING: u16 = state::LASTING as u16;
const ONE_WAY: u16 = state::ONE_WAY as u16;
const ESTABLISHED: u16 = tcp::State::Established as u16;

/// What a packet speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum About {
    /// Its own flow.
    #[default]
    Itself,
    /// Its own flow; later fragments of this datagram will ask for its ports.
    First(u64),
    /// The flow of the packet that it quotes.
    Quoted,
    /// The flow of its first fragment.
    Later,
    /// A flow that only the first fragment of this datagram can tell.
    Orphan(u64),
    /// A datagram whose first fragment was dropped for the reason of this number.
    Refused(u16),
    /// Nothing that we know.
    Nothing,
}

/// What pass 3 can do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Usual {
    /// A packet that speaks of itself, over IPv4.
    #[default]
    Ipv4,
    /// The same over IPv6.
    Ipv6,
    /// Nothing: it speaks of something else.
    No,
}

/// What pass 1 found of one packet, in half a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Looked {
    words: [u64; 3],
    /// The bucket in which to look; pass 2 puts the entry that it found in its place.
    at: u32,
    tag: u16,
    /// 1 if the higher end sent it.
    from_high: u8,
    usual: Usual,
}

const _: () = assert!(size_of::<Looked>() == 32);

impl Looked {
    #[inline(always)]
    fn new(words: [u64; 3], spot: Spot, from_high: bool, usual: Usual) -> Self {
        Looked { words, at: spot.bucket, tag: spot.tag, from_high: from_high.into(), usual }
    }
}

/// The same of a whole batch.
#[derive(Debug)]
pub(crate) struct Lookup {
    looked: [Looked; BURST],
    /// IPv6 addresses, and what the packet is about: of other slots than usual ones over IPv4.
    wide: [[u64; 4]; BURST],
    abouts: [About; BURST],
}

impl Lookup {
    pub fn new() -> Self {
        Lookup { looked: [Looked::default(); BURST], wide: [[0; 4]; BURST], abouts: [About::Nothing; BURST] }
    }

    /// What pass 1 has found of a slot: key, whether the higher end sent it, and what it speaks of.
    pub fn slot(&self, slot: usize) -> (Key, bool, About) {
        let looked = self.looked.get(slot).copied().unwrap_or_default();
        let wide = self.wide.get(slot).copied().unwrap_or_default();
        let about = if looked.usual == Usual::Ipv4 { About::Itself } else { self.about(slot) };
        (Key::of_words(looked.words, wide), looked.from_high != 0, about)
    }

    /// What a packet is about that is not usual.
    pub fn about(&self, slot: usize) -> About {
        self.abouts.get(slot).copied().unwrap_or(About::Nothing)
    }
}

impl Flows {
    /// Pass 1 of a usual packet over IPv4, whose addresses decap has noted.
    #[inline(always)]
    pub(crate) fn look_v4(&self, slot: usize, scope: u64, meta: &Meta, lookup: &mut Lookup) {
        let (words, from_high) = Key::words_v4(scope, meta);
        let spot = self.table().spot(self.table().seed().hash_v4(words));
        self.table().prefetch(spot);
        if let Some(looked) = lookup.looked.get_mut(slot) {
            *looked = Looked::new(words, spot, from_high, Usual::Ipv4);
        }
    }

    /// Pass 1 of any packet.
    pub(crate) fn look_at(&self, slot: usize, found: Option<(Key, bool, About)>, lookup: &mut Lookup) {
        let (key, from_high, about) = found.unwrap_or((Key::default(), false, About::Nothing));
        let spot = self.table().spot(self.table().hash(&key));
        self.table().prefetch(spot);
        let usual = match (about, key.is_ipv6()) {
            (About::Itself, false) => Usual::Ipv4,
            (About::Itself, true) => Usual::Ipv6,
            _ => Usual::No,
        };
        let Lookup { looked, wide, abouts, .. } = lookup;
        let places = (looked.get_mut(slot), wide.get_mut(slot), abouts.get_mut(slot));
        if let (Some(looked), Some(wide), Some(place)) = places {
            *looked = Looked::new(key.words, spot, from_high, usual);
            (*wide, *place) = (key.addresses, about);
        }
    }

    /// Pass 2: tags of the buckets; asks for the lines of the entries.
    #[inline(never)]
    pub(crate) fn guess(&self, live: Mask, lookup: &mut Lookup) {
        let guesser = self.table().guesser();
        for slot in live {
            if let Some(looked) = lookup.looked.get_mut(slot) {
                looked.at = guesser.guess(Spot { bucket: looked.at, tag: looked.tag });
                if looked.at == NOBODY && self.shares() {
                    self.ask_ahead(looked);
                }
            }
        }
    }

    /// What has no flow here may be another worker's: the directory will be asked.
    #[cold]
    #[inline(never)]
    fn ask_ahead(&self, looked: &Looked) {
        if looked.usual == Usual::Ipv4 {
            self.prefetch_owner(self.table().seed().hash_v4(looked.words));
        }
    }

    /// Pass 3 for as long as packets are usual: takes their slots out of `rest`, and returns those of them with whose flow all `stages`
    /// are done. The first slot that is left is of a packet with which nothing has been done yet. Nobody asks for the flow of what goes
    /// home and is not longer than `quiet`, so it is not written down. Also returned is the hash of what that first packet is about, if it is
    /// usual but for having no flow here.
    #[inline(never)]
    pub(crate) fn carry_on(
        &self,
        rest: &mut Mask,
        lookup: &Lookup,
        frames: &[Mbuf],
        metas: &mut [Meta; BURST],
        stages: u16,
        quiet: u16,
    ) -> (Mask, Option<u64>) {
        let (lines, now) = (self.table().lines().entries(), self.now());
        // Flows of the generation before are nobody's usual ones.
        let generation = u16::from(self.generation) << 8;
        let (mut left, mut open, mut absent) = (*rest, Mask::NONE, None);
        while let Some(slot) = left.iter().next() {
            let Some(looked) = lookup.looked.get(slot) else { break };
            let entry = match lines.get(looked.at) {
                Some(entry) if entry.has_words(looked.words) => entry,
                _ => {
                    let number = self.second_look(looked, lookup.wide.get(slot), &mut absent);
                    let Some(entry) = lines.get(number) else { break };
                    entry
                }
            };
            let Some(meta) = metas.get_mut(slot) else { break };
            let same = match looked.usual {
                Usual::Ipv4 => true,
                Usual::Ipv6 => lookup.wide.get(slot).is_some_and(|wide| entry.addresses() == *wide),
                Usual::No => false,
            };
            let life = entry.life();
            let reply = life.is_reply(looked.from_high);
            if !same || !entry.is_from(reply, meta) {
                break;
            }
            let carries_on = match life.course() ^ generation {
                ONE_WAY => !reply,
                LASTING => true,
                ESTABLISHED => frames.get(slot).is_some_and(|frame| segment(entry, reply, meta, frame)),
                _ => false,
            };
            if !carries_on {
                break;
            }
            // Where flows are few, most packets find the millisecond written already.
            if life.seen() != now {
                cold_path();
                entry.set_life(life.at(now));
            }
            entry.count(reply, meta.inner_len.into());
            let home = stages & !life.settled() == 0;
            if !home {
                open.insert(slot);
            }
            if !home || meta.inner_len > quiet {
                follow::name(entry.number(), reply, life, meta);
                follow::place(entry, life, meta);
            }
            left = left.rest();
        }
        let home = rest.without(left | open);
        *rest = left;
        (home, absent)
    }
}

impl Flows {
    /// The entry of a usual packet that pass 2 did not guess: its flow lives in its second bucket (three in a hundred do), or another flow in
    /// the first has its tag. [`NOBODY`] for what is not usual, and for what has no flow; the hash of that is noted.
    #[cold]
    #[inline(never)]
    fn second_look(&self, looked: &Looked, wide: Option<&[u64; 4]>, absent: &mut Option<u64>) -> u32 {
        let key = match (looked.usual, wide) {
            (Usual::Ipv4, _) => Key::of_words(looked.words, [0; 4]),
            (Usual::Ipv6, Some(wide)) => Key::of_words(looked.words, *wide),
            _ => return NOBODY,
        };
        let hash = self.table().hash(&key);
        let found = self.table().find(hash, &key);
        if found.is_none() {
            *absent = Some(hash);
        }
        found.unwrap_or(NOBODY)
    }
}

/// A segment that only moves the numbers of an established connection. False, and nothing changed, if it does more. Out of line: the
/// registers of the loop are few.
#[inline(never)]
fn segment(entry: Entry<'_>, reply: bool, meta: &Meta, frame: &Mbuf) -> bool {
    let Some(words) = follow::quick(entry.tcp(), reply, meta, frame.data()) else { return false };
    entry.set_tcp(words);
    true
}
