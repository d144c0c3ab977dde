//! MAC addresses of the hosts next to us on the way to targets, by ARP.
//!
//! ```text
//!  asking --answer--> known --a minute, or a doubt--> confirming --answer of the known one--> known
//!  broadcast                                           unicast, three times
//!     ^---------------------------------- silence --------'        the old address stays in use meanwhile
//! ```
//!
//! *Who is believed.* ARP proves nothing, so the rule is that nobody can take over a target's address who does not first silence the target:
//! only the answer to a question of ours is learned from. What is known is confirmed by asking its holder alone (unicast; RFC 1122 section
//! 2.3.2.1), and only if it is silent is everybody asked (three times, as RFC 4861 section 10 does it). Whoever else claims the address, by gratuitous ARP, by a
//! question in its name, or by a second answer, is counted and told as a [`News::Claim`], and makes us ask the holder at once: a target that moved
//! is silent at its old address, so its new one is found within three seconds. Where everybody is asked, the first answer counts.
//!
//! Pure: packets and times in, packets and news out. Everything is bounded by the number of neighbours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Change;
use super::arp::{Arp, BROADCAST, Mac};

/// Between two questions to the same neighbour (RFC 1122 section 2.3.2.1: not more than one a second).
const AGAIN: Duration = Duration::from_secs(1);
/// Questions to the known address before everybody is asked.
const CONFIRM: u32 = 3;
/// Questions to everybody at that pace; then they come more rarely.
const EAGER: u32 = 5;
const RARELY: Duration = Duration::from_secs(5);
/// For so long what was learned is not doubted.
const FRESH: Duration = Duration::from_secs(60);
/// Between two claims that are told, and between two doubts that are followed up.
const CLAIMS: Duration = Duration::from_secs(60);
const DOUBTS: Duration = Duration::from_secs(5);

/// What has become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A neighbour's address is this now.
    Learned { neighbour: Ipv4Addr, was: Option<Mac>, mac: Mac },
    /// Somebody else says that it has a neighbour's address.
    Claim { neighbour: Ipv4Addr, mac: Mac },
    /// Somebody else has our address.
    Conflict { mac: Mac },
}

impl News {
    /// What others are told of it; what was learned they are told target by target.
    pub fn into_change(self) -> Option<Change> {
        match self {
            News::Learned { .. } => None,
            News::Claim { neighbour, mac } => Some(Change::Claim { neighbour, mac }),
            News::Conflict { mac } => Some(Change::Conflict { mac }),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ArpCounts {
    /// Questions sent.
    pub asked: u64,
    /// Answers to them that were believed.
    pub answers: u64,
    /// Questions of others that were answered.
    pub answered: u64,
    /// Packets in which somebody claimed the address of a neighbour that has another.
    pub claims: u64,
    /// Packets in which somebody claimed our own address.
    pub conflicts: u64,
}

/// The neighbours that matter.
#[derive(Debug)]
pub(super) struct Neighbours {
    mac: Mac,
    own: Ipv4Addr,
    all: BTreeMap<Ipv4Addr, Neighbour>,
    pub counts: ArpCounts,
    told_conflict: Option<Duration>,
}

/// One of them, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its address, which is used even while it is asked for again.
    pub mac: Option<Mac>,
    /// When it last answered.
    pub confirmed: Duration,
    /// Times it changed.
    pub changes: u64,
    /// Packets in which somebody else claimed it.
    pub claims: u64,
    phase: Phase,
    /// Questions since the phase began.
    tries: u32,
    /// When the last one was sent, and when the next one is due.
    asked: Option<Duration>,
    next: Duration,
    told_claim: Option<Duration>,
    doubted: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everybody is asked.
    Asking,
    Known,
    /// The known one is asked.
    Confirming,
}

impl Neighbours {
    /// Of a host with these addresses.
    pub fn new(mac: Mac, own: Ipv4Addr) -> Self {
        Neighbours { mac, own, all: BTreeMap::new(), counts: ArpCounts::default(), told_conflict: None }
    }

    /// These and no others are wanted. Those that were known stay known.
    pub fn want(&mut self, wanted: impl Iterator<Item = Ipv4Addr>, now: Duration) {
        let mut before = std::mem::take(&mut self.all);
        for address in wanted {
            let neighbour = before.remove(&address);
            if let Some(neighbour) = neighbour {
                self.all.insert(address, neighbour);
            } else {
                self.all.entry(address).or_insert(Neighbour::new(now));
            }
        }
    }

    /// What is known of this one.
    pub fn get(&self, address: Ipv4Addr) -> Option<&Neighbour> {
        self.all.get(&address)
    }

    /// The MAC address of this one.
    pub fn mac(&self, address: Ipv4Addr) -> Option<Mac> {
        self.all.get(&address)?.mac
    }

    /// Something suggests that this one is not where it was: it is asked, if that has not just been done.
    pub fn doubt(&mut self, address: Ipv4Addr, now: Duration) {
        if let Some(neighbour) = self.all.get_mut(&address) {
            neighbour.doubt(now);
        }
    }

    /// When a question is due.
    pub fn due(&self) -> Option<Duration> {
        self.all.values().map(|neighbour| neighbour.next).min()
    }

    /// Asks whom it is time to ask.
    pub fn ask(&mut self, now: Duration, mut send: impl FnMut(Vec<u8>)) {
        let Neighbours { mac, own, all, counts, .. } = self;
        for (address, neighbour) in all.iter_mut().filter(|(_, neighbour)| neighbour.next <= now) {
            let to = neighbour.ask(now);
            counts.asked += 1;
            let arp =
                Arp { asks: true, sender_mac: *mac, sender: *own, target_mac: [0; 6], target: *address };
            send(arp.frame(to));
        }
    }

    /// Takes a packet that came in a frame to `to`. Returns what has become known, and an answer to be sent.
    pub fn take(&mut self, arp: &Arp, to: Mac, now: Duration) -> (Option<News>, Option<Vec<u8>>) {
        if arp.sender_mac == self.mac {
            return (None, None); // our own, come back
        }
        if arp.sender == self.own {
            self.counts.conflicts += 1;
            let tell = is_over(self.told_conflict, CLAIMS, now);
            if tell {
                self.told_conflict = Some(now);
            }
            return (tell.then_some(News::Conflict { mac: arp.sender_mac }), None);
        }
        let answer = (arp.asks && arp.target == self.own).then(|| {
            self.counts.answered += 1;
            let answer = Arp {
                asks: false,
                sender_mac: self.mac,
                sender: self.own,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            answer.frame(arp.sender_mac)
        });
        let Some(neighbour) = self.all.get_mut(&arp.sender) else { return (None, answer) };
        let is_for_us = !arp.asks && to == self.mac && arp.target_mac == self.mac && arp.target == self.own;
        let is_it = neighbour.mac == Some(arp.sender_mac);
        let is_asked = match neighbour.phase {
            Phase::Asking => neighbour.tries > 0,
            Phase::Confirming => neighbour.tries > 0 && is_it,
            Phase::Known => false,
        };
        if is_for_us && is_asked {
            self.counts.answers += 1;
            let was = neighbour.learn(arp.sender_mac, now);
            let learned = News::Learned { neighbour: arp.sender, was, mac: arp.sender_mac };
            return ((!is_it).then_some(learned), answer);
        }
        // What has not been learned yet cannot be claimed by another; whoever has it will answer.
        if is_it || neighbour.mac.is_none() {
            neighbour.hurry(now);
            return (None, answer);
        }
        self.counts.claims += 1;
        neighbour.claims += 1;
        neighbour.doubt(now);
        let tell = is_over(neighbour.told_claim, CLAIMS, now);
        if tell {
            neighbour.told_claim = Some(now);
        }
        (tell.then_some(News::Claim { neighbour: arp.sender, mac: arp.sender_mac }), answer)
    }
}

impl Neighbour {
    fn new(now: Duration) -> Self {
        Neighbour {
            mac: None,
            confirmed: Duration::ZERO,
            changes: 0,
            claims: 0,
            phase: Phase::Asking,
            tries: 0,
            asked: None,
            next: now,
            told_claim: None,
            doubted: None,
        }
    }

    /// Has it left the last questions without an answer?
    pub fn is_silent(&self) -> bool {
        self.phase != Phase::Known && self.tries > 0
    }

    /// The next question, and to whom it goes.
    fn ask(&mut self, now: Duration) -> Mac {
        match (self.phase, self.tries) {
            (Phase::Known, _) => (self.phase, self.tries) = (Phase::Confirming, 0),
            (Phase::Confirming, CONFIRM..) => (self.phase, self.tries) = (Phase::Asking, 0),
            _ => {}
        }
        self.tries = self.tries.saturating_add(1);
        self.asked = Some(now);
        self.next = now + if self.phase == Phase::Asking && self.tries >= EAGER { RARELY } else { AGAIN };
        match (self.phase, self.mac) {
            (Phase::Confirming, Some(mac)) => mac,
            _ => BROADCAST,
        }
    }

    /// It has answered. Returns the address that it had.
    fn learn(&mut self, mac: Mac, now: Duration) -> Option<Mac> {
        let was = self.mac.replace(mac);
        self.changes += u64::from(was.is_some_and(|was| was != mac));
        (self.phase, self.tries) = (Phase::Known, 0);
        (self.confirmed, self.next) = (now, now + FRESH);
        was
    }

    /// Asks at once, but not twice within a second.
    fn soon(&mut self, now: Duration) {
        self.next = self.asked.map_or(now, |asked| now.max(asked + AGAIN));
    }

    fn doubt(&mut self, now: Duration) {
        if self.phase == Phase::Known && is_over(self.doubted, DOUBTS, now) {
            self.doubted = Some(now);
            self.soon(now);
        }
    }

    /// It has shown itself: if it is asked for rarely by now, it is asked again at once.
    fn hurry(&mut self, now: Duration) {
        if self.phase == Phase::Asking && self.tries >= EAGER && is_over(self.doubted, DOUBTS, now) {
            self.doubted = Some(now);
            self.soon(now);
        }
    }
}

/// Has so much time passed since?
fn is_over(since: Option<Duration>, time: Duration, now: Duration) -> bool {
    since.is_none_or(|since| now.saturating_sub(since) >= time)
}

#[cfg(test)]
mod tests;
