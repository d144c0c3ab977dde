//! Health checks of targets, and their MAC addresses.
//!
//! ```text
//! frames --link--> ARP ------> neighbours ------> where to send
//!                  packets --> smoltcp --> attempts --result--> health --> changes
//! clock --> who is due: a question, an attempt, a deadline
//! ```
//!
//! A [`Checker`] is the load balancer's host on the port behind which its targets are: it answers ARP and echo for the address from which targets get
//! their packets, as AWS's nodes do, and checks targets from there. It is pure over a [`phy::Device`] and a clock that are passed in: it starts no thread, waits for
//! nothing, and nothing of it runs on a worker.
//!
//! Promises:
//! - Each target has one check at a time, one socket for it, and a time after which it is over; so the checks of others come when they are
//!   due, whatever a target does. A round takes at most [`ROUND`] frames and begins at most [`STARTS`] checks.
//! - A check that fails says why, in words ([`Change::State`], [`Snapshot`]) and by a label.
//! - A time in which nobody called [`Checker::poll`] although it was time is no target's fault: deadlines move by it.
//! - A target's MAC address is what its holder says (`neighbours.rs` has the rule), or what the configuration says, which nothing changes.

mod settings;
mod health;
mod reason;
mod answer;
mod tls;
mod attempt;
mod arp;
mod neighbours;
mod link;
mod change;
mod snapshot;
mod port;
#[cfg(any(test, fuzzing))]
mod arbitrary_input;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustls::ClientConfig;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, RxToken};
use smoltcp::socket::tcp::Socket;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

#[cfg(any(test, fuzzing))]
pub use answer::arbitrary_input as arbitrary_answer;
#[cfg(any(test, fuzzing))]
pub use arbitrary_input::frames as arbitrary_frames;
pub use arp::Mac;
pub use change::Change;
pub use neighbours::ArpCounts;
pub use port::TargetPort;
pub use settings::{HealthCheck, Matcher, Protocol, Written, Wrong};
pub use snapshot::{Snapshot, TargetSnapshot};

use attempt::{Attempt, Finding, Stage, Talk};
use health::Health;
use link::{Brought, Heard, Link};
use neighbours::{Neighbour, Neighbours, News};
use reason::{Reason, Wanted};

use super::targets::{State, TargetId};

/// Frames that one round takes.
pub const ROUND: usize = 256;
/// Checks that one round begins.
pub const STARTS: usize = 64;
/// Ports from which checks go out (RFC 6335 section 6).
const PORTS: [u16; 2] = [49_152, 65_535];
/// First checks are spread over so much time, or over an interval if that is shorter.
const SPREAD: Duration = Duration::from_secs(1);
/// Packets that a socket sends in one round, at most.
const BURSTS: usize = 8;
/// With nothing to do, so long.
const IDLE: Duration = Duration::from_secs(3600);
/// Whoever comes later than this has slept.
const SLEPT: Duration = Duration::from_millis(250);

/// Where the checker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// MAC address of the port.
    pub mac: Mac,
    /// Our address, from which targets also get their packets, with the subnet.
    pub net: Ipv4Net,
    /// The way to targets in other networks.
    pub router: Option<Ipv4Addr>,
    /// MTU of the port.
    pub mtu: u16,
}

/// A target as the checker knows it. Its address is its name: what is known of it stays with it when its number changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its place in the group.
    pub id: TargetId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address, or the router's, if that is configured.
    pub mac: Option<Mac>,
}

/// Checks targets.
pub struct Checker {
    settings: HealthCheck,
    /// Else only ARP is spoken.
    is_checking: bool,
    stand: Stand,
    rows: Vec<Row>,
    by_address: BTreeMap<Ipv4Addr, usize>,
    neighbours: Neighbours,
    link: Link,
    iface: Interface,
    sockets: SocketSet<'static>,
    /// Whose check goes out from which port, by address.
    ports: BTreeMap<u16, Ipv4Addr>,
    next_port: u16,
    /// Sockets whose reset is on its way.
    closing: Vec<SocketHandle>,
    tls: Result<Arc<ClientConfig>, String>,
    random: ChaCha8Rng,
    /// When there is something to do, if no frame comes.
    wake: Duration,
    /// When the last round was.
    polled: Duration,
}

/// One target.
#[derive(Debug)]
struct Row {
    target: Checked,
    health: Health,
    /// When its next check begins.
    due: Duration,
    attempt: Option<Attempt>,
    last: Option<Finding>,
    checks: u64,
    failures: u64,
    failures_by: BTreeMap<&'static str, u64>,
    /// Of the last check that succeeded.
    latency: Option<Duration>,
    /// The MAC address that was told.
    told: Option<Mac>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checker({}, {} targets)", self.stand.net, self.rows.len())
    }
}

/// smoltcp's clock.
fn stamp(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Checker {
    /// One that only finds out where targets are.
    pub fn without_checks(stand: Stand, seed: u64) -> Self {
        Checker { is_checking: false, ..Self::new(HealthCheck::default(), stand, seed) }
    }

    /// A checker without targets. `seed` is for what must not be guessed (sequence numbers, ports), and for the jitter; it comes from the
    /// system's randomness, but in tests.
    pub fn new(settings: HealthCheck, stand: Stand, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let own = stand.net.addr();
        let mut link = Link::new(stand.mac, own, stand.mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random.random();
        let mut iface = Interface::new(config, &mut link.packets, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(own, stand.net.prefix_len()))); // there is room
        });
        // Where a packet goes is decided by the link; smoltcp only has to think that there is a way.
        let _ = iface.routes_mut().add_default_ipv4_route(stand.router.unwrap_or(own));
        Checker {
            neighbours: Neighbours::new(stand.mac, own),
            settings,
            is_checking: true,
            stand,
            rows: Vec::new(),
            by_address: BTreeMap::new(),
            link,
            iface,
            sockets: SocketSet::new(Vec::new()),
            ports: BTreeMap::new(),
            next_port: random.random_range(PORTS[0]..=PORTS[1]),
            closing: Vec::new(),
            tls: tls::config(),
            random,
            wake: Duration::ZERO,
            polled: Duration::ZERO,
        }
    }

    /// These are the targets from now on. What is known of those that were there before stays; of two with one address the first counts.
    pub fn set_targets(&mut self, targets: Vec<Checked>, now: Duration) {
        let stay: BTreeSet<Ipv4Addr> = targets.iter().map(|target| target.address).collect();
        for row in self.rows.iter_mut().filter(|row| !stay.contains(&row.target.address)) {
            if let Some(attempt) = row.attempt.take() {
                close(attempt, &mut self.sockets, &mut self.ports, &mut self.closing);
            }
        }
        self.send(now); // their resets, while it is known where to
        let before = std::mem::take(&mut self.by_address);
        let mut rows: Vec<Option<Row>> = std::mem::take(&mut self.rows).into_iter().map(Some).collect();
        for target in targets {
            let known = before.get(&target.address).and_then(|n| rows.get_mut(*n)?.take());
            if self.by_address.contains_key(&target.address) {
                continue;
            }
            self.by_address.insert(target.address, self.rows.len());
            let spread = SPREAD.min(self.settings.interval);
            self.rows.push(match known {
                Some(row) => Row { target, ..row },
                None if !self.is_checking => Row::new(target, now, Duration::MAX),
                None => Row::new(target, now, now + spread.mul_f64(self.random.random())),
            });
        }
        let asked = self.rows.iter().filter(|row| row.target.mac.is_none());
        let hops: BTreeSet<Ipv4Addr> =
            asked.filter_map(|row| self.stand.next_hop(row.target.address)).collect();
        self.neighbours.want(hops.into_iter(), now);
        self.wake = now;
    }

    /// Checks are made like this from now on; what is under way ends as it began. What is known stays, the runs of results included.
    pub fn set_settings(&mut self, settings: HealthCheck, now: Duration) {
        self.rows.iter_mut().for_each(|row| row.due = row.due.min(now + settings.interval));
        self.settings = settings;
        self.wake = now;
    }

    /// One round at this time, bounded and without waiting: frames in, checks begun, continued and ended, frames out. Returns what has changed.
    pub fn poll<D: phy::Device + ?Sized>(&mut self, now: Duration, device: &mut D) -> Vec<Change> {
        let mut changes = Vec::new();
        let pause = now.saturating_sub(std::mem::replace(&mut self.polled, now));
        let has_slept = now.saturating_sub(self.wake) >= SLEPT;
        let took = self.take_frames(now, device, &mut changes);
        if !took && now < self.wake {
            return changes;
        }
        if has_slept {
            let attempts = self.rows.iter_mut().filter_map(|row| row.attempt.as_mut());
            attempts.for_each(|attempt| attempt.deadline += pause);
        }
        self.neighbours.ask(now, |frame| self.link.push(frame));
        self.tell_macs(&mut changes);
        self.begin(now);
        self.send(now);
        if self.end(now, &mut changes) {
            self.send(now); // the resets
        }
        let is_blocked = self.link.flush(now, device);
        self.wake = if is_blocked { now } else { self.next(now) };
        changes
    }

    /// When to call [`Self::poll`] again, if no frame comes before.
    pub fn wake(&self) -> Duration {
        self.wake
    }

    /// What is known of the target at this address: how it is, and where its frames go. For whoever makes a group anew.
    pub fn known(&self, address: Ipv4Addr) -> Option<(State, Option<Mac>)> {
        let row = self.by_address.get(&address).and_then(|n| self.rows.get(*n))?;
        Some((row.health.state(), row.told))
    }

    /// Connections that are open, or on their way.
    pub fn connections(&self) -> usize {
        self.ports.len()
    }

    /// True if there were any.
    fn take_frames<D: phy::Device + ?Sized>(
        &mut self,
        now: Duration,
        device: &mut D,
        changes: &mut Vec<Change>,
    ) -> bool {
        for n in 0..ROUND {
            let Some((frame, _)) = device.receive(stamp(now)) else { return n > 0 };
            match frame.consume(|frame| self.link.take(frame)) {
                None => {}
                Some(Brought::Arp(arp, to)) => {
                    let (news, answer) = self.neighbours.take(&arp, to, now);
                    answer.into_iter().for_each(|frame| self.link.push(frame));
                    changes.extend(news.and_then(News::into_change));
                }
                Some(Brought::Packet(heard)) => self.take_packet(heard, now),
            }
        }
        true
    }

    /// Gives smoltcp the packet that lies ready, and lets the check go on to which it belongs.
    fn take_packet(&mut self, heard: Heard, now: Duration) {
        let Checker { iface, link, sockets, rows, by_address, neighbours, stand, ports, settings, .. } = self;
        iface.poll_ingress_single(stamp(now), &mut link.packets, sockets);
        // What is answered at once goes to targets where they are, and to others where they spoke from.
        link.wrap(|to| {
            mac_of(rows, by_address, neighbours, stand, to).or((to == heard.source).then_some(heard.mac))
        });
        let quoted = heard.unreachable.filter(|(to, port, _)| ports.get(port) == Some(to));
        let port = heard.port.or(quoted.map(|(_, port, _)| port));
        let address = port.and_then(|port| ports.get(&port));
        let row = address.and_then(|address| by_address.get(address)).and_then(|n| rows.get_mut(*n));
        let Some(Stage::Talking(talk)) = row.and_then(|row| row.attempt.as_mut()).map(|a| &mut a.stage)
        else {
            return;
        };
        talk.unreachable = quoted.map(|(_, _, code)| code).or(talk.unreachable);
        talk.go_on(&settings.matcher, now, sockets);
    }

    /// Tells addresses that are not told yet.
    fn tell_macs(&mut self, changes: &mut Vec<Change>) {
        let Checker { rows, neighbours, stand, .. } = self;
        for row in rows {
            let Checked { id, address, mac } = row.target;
            let mac = mac.or_else(|| neighbours.mac(stand.next_hop(address)?));
            let Some(mac) = mac.filter(|mac| row.told != Some(*mac)) else { continue };
            changes.push(Change::Mac { target: id, address, was: row.told.replace(mac), mac });
        }
    }

    /// Begins checks that are due, and connects as soon as it is known where to.
    fn begin(&mut self, now: Duration) {
        let Checker { settings, stand, rows, iface, sockets, ports, next_port, tls, .. } = self;
        let mut left = STARTS;
        for row in rows {
            let Checked { address, mac, .. } = row.target;
            if row.attempt.is_none() && row.due <= now && left > 0 {
                row.attempt = Some(Attempt::new(now, settings.timeout));
                left -= 1;
            }
            let Some(attempt) = row.attempt.as_mut().filter(|a| matches!(a.stage, Stage::Waiting)) else {
                continue;
            };
            if mac.is_none() && stand.next_hop(address).is_none() {
                attempt.stage = Stage::Failed(Reason::NoWay);
            } else if row.told.is_some() {
                let ends = [stand.net.addr(), address];
                let port = free_port(ports, next_port).ok_or(Reason::NoPort);
                let talk = port.and_then(|port| Talk::begin(settings, tls, ends, port, now, iface, sockets));
                attempt.stage = match talk {
                    Ok(talk) => {
                        ports.insert(talk.port, address);
                        Stage::Talking(Box::new(talk))
                    }
                    Err(reason) => Stage::Failed(reason),
                };
            }
        }
    }

    /// Frames of what sockets have to send.
    fn send(&mut self, now: Duration) {
        let Checker { rows, by_address, neighbours, link, stand, iface, sockets, closing, .. } = self;
        for _ in 0..BURSTS {
            let sent = iface.poll_egress(stamp(now), &mut link.packets, sockets);
            link.wrap(|to| mac_of(rows, by_address, neighbours, stand, to));
            if sent == PollResult::None {
                break;
            }
        }
        closing.retain(|handle| {
            let is_gone = sockets.get::<Socket<'_>>(*handle).remote_endpoint().is_none();
            if is_gone {
                sockets.remove(*handle);
            }
            !is_gone
        });
    }

    /// Ends checks that have come to something, or whose time is over. True if there were any.
    fn end(&mut self, now: Duration, changes: &mut Vec<Change>) -> bool {
        let Checker { settings, stand, rows, neighbours, sockets, ports, closing, random, .. } = self;
        let mut any = false;
        for row in rows {
            let Checked { id, address, mac } = row.target;
            let hop = if mac.is_none() { stand.next_hop(address) } else { None };
            let silent = hop.filter(|hop| neighbours.get(*hop).is_some_and(Neighbour::is_silent));
            let Some(finding) = row.attempt.as_mut().and_then(|attempt| attempt.finding(hop, silent, now))
            else {
                continue;
            };
            any = true;
            let Some(attempt) = row.attempt.take() else { continue };
            let earlier = settings.jitter.mul_f64(random.random());
            row.due = now.max(attempt.started + settings.interval.saturating_sub(earlier));
            close(attempt, sockets, ports, closing);
            if let (Some(hop), Err(Reason::Late { wanted: Wanted::Syn, .. })) = (hop, &finding) {
                neighbours.doubt(hop, now);
            }
            let from = row.health.state();
            let thresholds = [settings.healthy_threshold, settings.unhealthy_threshold];
            if row.health.note(finding.is_ok(), thresholds, now) {
                let (to, reason) = (row.health.state(), reason::words(&finding));
                changes.push(Change::State { target: id, address, from, to, reason });
            }
            row.checks += 1;
            match &finding {
                Ok((_, latency)) => row.latency = Some(*latency),
                Err(reason) => {
                    row.failures += 1;
                    *row.failures_by.entry(reason.kind()).or_default() += 1;
                }
            }
            row.last = Some(finding);
        }
        any
    }

    /// When there will be something to do.
    fn next(&mut self, now: Duration) -> Duration {
        let rows = self.rows.iter().map(|row| match &row.attempt {
            Some(attempt) => attempt.deadline,
            None => row.due,
        });
        let stack = self.iface.poll_at(stamp(now), &self.sockets);
        let stack = stack.map(|at| Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)));
        let all = rows.chain(self.neighbours.due()).chain(stack).min();
        all.map_or(now + IDLE, |at| at.max(now))
    }
}

impl Stand {
    /// The neighbour to whom frames for this address go; `None` if it is in another network and there is no router.
    pub fn next_hop(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.net.contains(&address) { Some(address) } else { self.router }
    }
}

impl Row {
    fn new(target: Checked, now: Duration, due: Duration) -> Self {
        let health = Health::new(now);
        Row {
            target,
            health,
            due,
            attempt: None,
            last: None,
            checks: 0,
            failures: 0,
            failures_by: BTreeMap::new(),
            latency: None,
            told: None,
        }
    }
}

/// The MAC address to which packets for this address go: what is configured for a target, or what is known of its next hop.
fn mac_of(
    rows: &[Row],
    by_address: &BTreeMap<Ipv4Addr, usize>,
    neighbours: &Neighbours,
    stand: &Stand,
    to: Ipv4Addr,
) -> Option<Mac> {
    let row = by_address.get(&to).and_then(|n| rows.get(*n));
    let known = || neighbours.mac(if row.is_some() { stand.next_hop(to)? } else { to });
    row.and_then(|row| row.target.mac).or_else(known)
}

/// The next of our ports that no check uses.
fn free_port(ports: &BTreeMap<u16, Ipv4Addr>, next: &mut u16) -> Option<u16> {
    let [first, last] = PORTS;
    (first..=last).find_map(|_| {
        let port = *next;
        *next = if port == last { first } else { port + 1 };
        (!ports.contains_key(&port)).then_some(port)
    })
}

/// Ends a connection by a reset.
fn close(
    attempt: Attempt,
    sockets: &mut SocketSet<'static>,
    ports: &mut BTreeMap<u16, Ipv4Addr>,
    closing: &mut Vec<SocketHandle>,
) {
    if let Stage::Talking(talk) = attempt.stage {
        sockets.get_mut::<Socket<'_>>(talk.handle).abort();
        ports.remove(&talk.port);
        closing.push(talk.handle);
    }
}

#[cfg(test)]
mod tests;
