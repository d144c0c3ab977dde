//! Ports without hardware and without C: frames go in and come out through a [`Wire`].
//!
//! A soft port behaves as a card does, as far as a worker can tell: several queues, receive-side scaling of the outer
//! header ([`toeplitz`]), bounded rings, an MTU, checksum verdicts, a link that can go down; and it can be made to
//! misbehave ([`fault`]). What it loses, it counts, by reason: [`Wire::counts`] always balances.
//!
//! A lock stands between wire and queues, taken once per burst. That is for tests, replay and simulation; it is
//! the one place where a packet path of this crate may wait.

pub mod fault;
mod offload;
pub mod pcap;
mod replay;
pub mod toeplitz;

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

pub use fault::{FaultCounts, Faults};
pub use replay::Replay;

use super::port::{
    LinkStatus, PortConfig, PortEvents, PortFacts, PortStats, QueuePair, RssFacts, StartError,
};
use super::raw;
use super::{Burst, Errno, Error, Mempool};
use fault::{Inbound, Local};
use offload::Outer;
use toeplitz::{KEY, MICROSOFT_KEY, RETA, Rss};

/// Bytes in front of the IP packet that the MTU does not count: Ethernet and one VLAN tag.
const LINK_HEADER: usize = 18;
/// Spent buffers that the wire keeps for new frames.
const SPARE: usize = 4096;

/// What a soft port is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its name in facts and messages.
    pub name: String,
    /// Its port number: in a program with several ports, give each its own.
    pub id: u16,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Most queue pairs that can be asked for.
    pub max_queues: u16,
    /// Frames that wait in one receive ring before more are missed; `None` for no end.
    pub rx_depth: Option<usize>,
    /// Frames that wait for the far end before `send` takes no more; `None` for no end.
    pub tx_depth: Option<usize>,
    /// The port verifies outer IPv4, UDP and TCP checksums and says what it found; otherwise they are unknown.
    pub checksums: bool,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for Setup {
    /// `soft0`: up to 64 queues, rings without end, no checksums, no faults.
    fn default() -> Self {
        Setup {
            name: "soft0".into(),
            id: 0,
            mac: [2, 0, 0, 0, 0, 1],
            max_queues: 64,
            rx_depth: None,
            tx_depth: None,
            checksums: false,
            faults: Faults::default(),
        }
    }
}

/// A soft port that is not running.
#[derive(Debug)]
pub struct Port {
    wire: Wire,
    setup: Setup,
}

impl Port {
    /// A port with the default [`Setup`], and the far end of its wire.
    #[allow(clippy::new_ret_no_self, reason = "a port and its wire are made together")]
    pub fn new() -> (super::Port, Wire) {
        Self::with(Setup::default())
    }

    /// A port and the far end of its wire.
    pub fn with(setup: Setup) -> (super::Port, Wire) {
        let wire = Wire(Arc::new(Mutex::new(Cable::new(&setup))));
        (super::Port::Soft(Port { wire: wire.clone(), setup }), wire)
    }

    pub(super) fn max_queues(&self) -> u16 {
        self.setup.max_queues
    }

    /// As long as a buffer can be, whose room is counted in 16 bits.
    pub(super) fn max_mtu(&self) -> u16 {
        u16::MAX - (raw::HEADROOM + LINK_HEADER) as u16
    }

    /// Counted ([`Wire::resets`]), and refused as often as the wire says ([`Wire::refuse`]).
    pub(super) fn reset(&mut self) -> Result<bool, Error> {
        self.wire.0.lock().ask(|asked| &mut asked.resets, &self.setup.name, "reset").map(|()| true)
    }

    pub(super) fn start(
        self,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(RunningPort, Vec<QueuePair>), Box<StartError>> {
        match self.check(config, pool) {
            Ok((facts, rss)) => Ok(self.run(facts, rss, config, pool)),
            Err(error) => Err(Box::new(StartError { port: super::Port::Soft(self), error })),
        }
    }

    /// Can it start like this?
    fn check(&self, config: &PortConfig, pool: &Mempool) -> Result<(PortFacts, Rss), Error> {
        let facts = self.facts(config, pool)?;
        let (Some(key), Some(reta)) = (facts.rss.key.clone(), facts.rss.reta.as_deref()) else {
            return Err(Error::refused(format!("{}: no RSS", self.setup.name), "give a key and a table"));
        };
        self.wire.0.lock().ask(|asked| &mut asked.starts, &self.setup.name, "start")?;
        let reta = std::array::from_fn(|i| reta.get(i).copied().unwrap_or(0));
        Ok((facts, Rss { key, reta }))
    }

    fn run(
        self,
        facts: PortFacts,
        rss: Rss,
        config: &PortConfig,
        pool: &Mempool,
    ) -> (RunningPort, Vec<QueuePair>) {
        let life = self.wire.0.lock().start(config, rss);
        let queues = (0..config.queues).map(|queue| {
            let end = || End { wire: self.wire.clone(), life, queue, _not_sync: PhantomData };
            let (rx, tx) = (1 + 2 * u64::from(queue), 2 + 2 * u64::from(queue));
            let faults = |stream| Box::new(Local::new(self.setup.faults, stream));
            QueuePair {
                queue,
                port: self.setup.id,
                mtu: facts.mtu,
                rx: super::RxQueue::Soft(RxQueue {
                    end: end(),
                    pool: pool.clone(),
                    port: self.setup.id,
                    faults: faults(rx),
                }),
                tx: super::TxQueue::Soft(TxQueue { end: end(), faults: faults(tx) }),
            }
        });
        let queues = queues.collect();
        (RunningPort { wire: self.wire, setup: Box::new(self.setup), facts }, queues)
    }

    fn facts(&self, config: &PortConfig, pool: &Mempool) -> Result<PortFacts, Error> {
        let name = &self.setup.name;
        if config.queues == 0 || config.queues > self.setup.max_queues {
            return Err(Error::refused(
                format!("{name}: {} queues asked for, it has {}", config.queues, self.setup.max_queues),
                "ask for fewer queues",
            ));
        }
        let key = config.rss.key.clone().unwrap_or_else(|| MICROSOFT_KEY.to_vec());
        if key.len() < KEY {
            return Err(Error::refused(
                format!("{name}: an RSS key of {} bytes", key.len()),
                format!("give at least {KEY} bytes"),
            ));
        }
        let pattern = config.rss.reta.clone().unwrap_or_else(|| (0..config.queues).collect());
        if pattern.is_empty() || pattern.len() > RETA || pattern.iter().any(|q| *q >= config.queues) {
            return Err(Error::refused(
                format!("{name}: a redirection table of {} entries", pattern.len()),
                format!("give 1 to {RETA} queues below {}", config.queues),
            ));
        }
        let reta: Vec<u16> = pattern.iter().copied().cycle().take(RETA).collect();
        let mut notes = Vec::new();
        let room = usize::from(pool.data_room());
        if room < usize::from(config.mtu) + LINK_HEADER {
            notes.push(format!(
                "buffers hold {room} bytes: longer frames are lost although the MTU of {} allows them",
                config.mtu
            ));
        }
        let depth = |asked: u16, bound: Option<usize>| bound.map_or(asked, |b| b.min(65_535) as u16);
        Ok(PortFacts {
            device: name.clone(),
            driver: "soft".into(),
            id: self.setup.id,
            mac: self.setup.mac,
            mtu: config.mtu,
            numa: None,
            queues: config.queues,
            max_queues: self.setup.max_queues,
            rx_descriptors: depth(config.rx_descriptors, self.setup.rx_depth),
            tx_descriptors: depth(config.tx_descriptors, self.setup.tx_depth),
            rss: RssFacts {
                functions: ["ipv4-tcp", "ipv4-udp", "ipv6-tcp", "ipv6-udp"].map(String::from).to_vec(),
                key: Some(key),
                reta: Some(reta),
                hash_delivered: true,
            },
            rx_ip_checksum: self.setup.checksums,
            rx_udp_checksum: self.setup.checksums,
            tx_ip_checksum: false,
            tx_udp_checksum: false,
            notes,
        })
    }
}

/// A soft port that is running.
#[derive(Debug)]
pub struct RunningPort {
    wire: Wire,
    setup: Box<Setup>,
    facts: PortFacts,
}

impl RunningPort {
    pub(super) fn facts(&self) -> &PortFacts {
        &self.facts
    }

    pub(super) fn stats(&self) -> PortStats {
        self.wire.0.lock().stats
    }

    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        let counts = self.wire.counts();
        counts.named().map(|(name, n)| (format!("soft_{name}"), n)).to_vec()
    }

    pub(super) fn link(&self) -> LinkStatus {
        LinkStatus { up: self.wire.0.lock().link_up, speed_mbps: None }
    }

    pub(super) fn events(&self) -> PortEvents {
        std::mem::take(&mut self.wire.0.lock().events)
    }

    pub(super) fn want_reset(&self) {
        self.wire.want_reset();
    }

    pub(super) fn stop(self, _queues: Vec<QueuePair>) -> Port {
        self.wire.0.lock().stop();
        Port { wire: self.wire, setup: *self.setup }
    }
}

/// The far end of a soft port. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Wire(Arc<Mutex<Cable>>);

impl Wire {
    /// Puts a frame on the wire towards the port. While the port is stopped, frames wait on the wire.
    pub fn send(&self, frame: Vec<u8>) {
        self.0.lock().enter(frame);
    }

    /// The same for bytes that stay with the caller; uses a spent buffer if there is one.
    pub fn send_copy(&self, frame: &[u8]) {
        let mut cable = self.0.lock();
        let buffer = cable.buffer(frame);
        cable.enter(buffer);
    }

    /// Takes the oldest frame that the port has sent.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.0.lock().from_port.pop_front()
    }

    /// The same into a buffer whose old memory goes back to the wire: in the long run nobody allocates. False, and
    /// nothing changed, if there is no frame.
    pub fn receive_into(&self, frame: &mut Vec<u8>) -> bool {
        let mut cable = self.0.lock();
        let Some(next) = cable.from_port.pop_front() else { return false };
        let spent = std::mem::replace(frame, next);
        cable.recycle(spent);
        true
    }

    /// Lets go of the frames that are held back for reordering. To be called after the last frame.
    pub fn flush(&self) {
        self.0.lock().flush();
    }

    /// Points an entry of the redirection table at another queue, as whoever balances load may do at any time. What waits in a ring
    /// stays there. False, and nothing changed, if the port does not run or has no such entry or queue.
    pub fn redirect(&self, entry: usize, queue: u16) -> bool {
        let mut cable = self.0.lock();
        let Some(Running { rss, rings, .. }) = &mut cable.running else { return false };
        match rss.reta.get_mut(entry) {
            Some(place) if usize::from(queue) < rings.len() => *place = queue,
            _ => return false,
        }
        true
    }

    /// Pulls or plugs the cable: a link that is down carries nothing, either way.
    pub fn set_link(&self, up: bool) {
        let mut cable = self.0.lock();
        cable.events.link_changed |= cable.link_up != up;
        cable.link_up = up;
    }

    /// Lets the port say that it needs a reset.
    pub fn want_reset(&self) {
        self.0.lock().events.reset_wanted = true;
    }

    /// How often the port was reset.
    pub fn resets(&self) -> u64 {
        self.0.lock().asked.resets.done
    }

    /// The next so many resets fail, and then so many starts.
    pub fn refuse(&self, resets: u32, starts: u32) {
        let asked = &mut self.0.lock().asked;
        (asked.resets.refuse, asked.starts.refuse) = (resets, starts);
    }

    /// What became of every frame.
    pub fn counts(&self) -> FaultCounts {
        self.0.lock().counts()
    }
}

/// What wire and queues share.
#[derive(Debug)]
struct Cable {
    /// Counts starts and stops; a queue handle of another life finds nothing and sends nothing.
    life: u64,
    running: Option<Running>,
    on_wire: VecDeque<Vec<u8>>,
    from_port: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    inbound: Inbound,
    counts: FaultCounts,
    stats: PortStats,
    link_up: bool,
    events: PortEvents,
    checksums: bool,
    rx_depth: usize,
    tx_depth: usize,
    asked: Asked,
}

/// What was asked of the port.
#[derive(Debug, Default)]
struct Asked {
    resets: Often,
    starts: Often,
}

#[derive(Debug, Default)]
struct Often {
    done: u64,
    /// So many more are refused.
    refuse: u32,
}

#[derive(Debug)]
struct Running {
    rss: Rss,
    longest: usize,
    rings: Vec<VecDeque<Arrived>>,
}

#[derive(Debug)]
struct Arrived {
    frame: Vec<u8>,
    flags: u64,
    hash: u32,
}

impl Cable {
    fn new(setup: &Setup) -> Self {
        Cable {
            life: 0,
            running: None,
            on_wire: VecDeque::new(),
            from_port: VecDeque::new(),
            spare: Vec::new(),
            inbound: Inbound::new(setup.faults),
            counts: FaultCounts::default(),
            stats: PortStats::default(),
            link_up: true,
            events: PortEvents::default(),
            checksums: setup.checksums,
            rx_depth: setup.rx_depth.unwrap_or(usize::MAX),
            tx_depth: setup.tx_depth.unwrap_or(usize::MAX),
            asked: Asked::default(),
        }
    }

    fn ask(&mut self, what: fn(&mut Asked) -> &mut Often, name: &str, verb: &str) -> Result<(), Error> {
        let often = what(&mut self.asked);
        match often.refuse.checked_sub(1) {
            None => often.done += 1,
            Some(left) => {
                often.refuse = left;
                return Err(Error::call(format!("{verb} {name}"), Errno(libc::EIO)));
            }
        }
        Ok(())
    }

    fn start(&mut self, config: &PortConfig, rss: Rss) -> u64 {
        let rings = (0..config.queues).map(|_| VecDeque::new()).collect();
        self.running = Some(Running { rss, longest: usize::from(config.mtu) + LINK_HEADER, rings });
        self.stats = PortStats::default();
        self.events = PortEvents::default();
        self.life += 1;
        for frame in std::mem::take(&mut self.on_wire) {
            self.arrive(frame);
        }
        self.life
    }

    fn stop(&mut self) {
        self.life += 1;
        let rings = self.running.take().map_or(Vec::new(), |r| r.rings);
        self.counts.stopped += rings.iter().map(|r| r.len() as u64).sum::<u64>();
    }

    fn enter(&mut self, frame: Vec<u8>) {
        self.counts.entered += 1;
        if !self.link_up {
            self.counts.link_down += 1;
            self.recycle(frame);
            return;
        }
        self.strike(|inbound, counts, arrived| inbound.enter(frame, counts, arrived));
    }

    fn flush(&mut self) {
        self.strike(|inbound, counts, arrived| inbound.release(u64::MAX, counts, arrived));
    }

    /// Lets the faults have their way, then takes in what they leave.
    fn strike(
        &mut self,
        faults: impl FnOnce(&mut Inbound, &mut FaultCounts, &mut dyn FnMut(&mut FaultCounts, Vec<u8>)),
    ) {
        let Cable { inbound, counts, on_wire, .. } = self;
        let before = on_wire.len();
        faults(inbound, counts, &mut |_, frame| on_wire.push_back(frame));
        if self.running.is_some() {
            while self.on_wire.len() > before {
                let Some(frame) = self.on_wire.remove(before) else { break };
                self.arrive(frame);
            }
        }
    }

    /// A frame reaches the port.
    fn arrive(&mut self, frame: Vec<u8>) {
        let Some(running) = &mut self.running else { return };
        if frame.len() > running.longest {
            self.counts.too_long += 1;
            self.stats.rx_errors += 1;
            return self.recycle(frame);
        }
        let outer = Outer::parse(&frame);
        let (queue, hash) = running.rss.classify(outer.as_ref());
        let mut flags = if hash.is_some() { raw::RX_RSS_HASH } else { 0 };
        if let (Some(outer), true) = (&outer, self.checksums) {
            flags |= outer.checksum_flags();
        }
        let arrived = Arrived { flags, hash: hash.unwrap_or(0), frame };
        match running.rings.get_mut(usize::from(queue)) {
            Some(ring) if ring.len() < self.rx_depth => ring.push_back(arrived),
            _ => {
                self.counts.missed += 1;
                self.stats.rx_missed += 1;
                self.recycle(arrived.frame);
            }
        }
    }

    fn counts(&self) -> FaultCounts {
        let rings = self.running.as_ref().map_or(&[][..], |r| &r.rings);
        let waiting = self.on_wire.len() + rings.iter().map(VecDeque::len).sum::<usize>();
        FaultCounts { waiting: waiting as u64, held: self.inbound.held(), ..self.counts }
    }

    fn buffer(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE && buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
    }
}

/// The near end of the wire, as one queue has it.
#[derive(Debug)]
struct End {
    wire: Wire,
    life: u64,
    queue: u16,
    /// As the queues of an ethdev (S5).
    _not_sync: PhantomData<Cell<()>>,
}

/// Receive side.
#[derive(Debug)]
pub struct RxQueue {
    end: End,
    pool: Mempool,
    port: u16,
    faults: Box<Local>,
}

impl RxQueue {
    pub(super) fn receive(&mut self, burst: &mut Burst, room: usize) -> usize {
        let mut cable = self.end.wire.0.lock();
        if cable.life != self.end.life {
            return 0;
        }
        let pool_empty = self.faults.pool_empty();
        let mut n = 0;
        while n < room.min(n + burst.room()) {
            let Some(running) = &mut cable.running else { break };
            let ring = running.rings.get_mut(usize::from(self.end.queue));
            let Some(arrived) = ring.and_then(VecDeque::pop_front) else { break };
            let len = arrived.frame.len() as u64;
            let Some(mut frame) = self.pool.alloc().filter(|_| !pool_empty) else {
                cable.counts.no_buffer += 1;
                cable.stats.rx_no_buffer += 1;
                cable.recycle(arrived.frame);
                break;
            };
            if !frame.write(&arrived.frame) {
                cable.counts.too_long += 1;
                cable.stats.rx_errors += 1;
                cable.recycle(arrived.frame);
                continue;
            }
            frame.set_received(self.port, arrived.flags, arrived.hash);
            cable.recycle(arrived.frame);
            if burst.push(frame).is_err() {
                break; // cannot be: room was checked
            }
            cable.counts.delivered += 1;
            cable.stats.rx_packets += 1;
            cable.stats.rx_bytes += len;
            n += 1;
        }
        n
    }
}

/// Transmit side.
#[derive(Debug)]
pub struct TxQueue {
    end: End,
    faults: Box<Local>,
}

impl TxQueue {
    pub(super) fn send(&mut self, burst: &mut Burst) -> usize {
        let offered = burst.len();
        if offered == 0 {
            return 0;
        }
        let mut cable = self.end.wire.0.lock();
        if cable.life != self.end.life || !cable.link_up {
            cable.counts.refused += offered as u64;
            return 0;
        }
        let room = self.faults.room(offered).min(cable.tx_depth.saturating_sub(cable.from_port.len()));
        let taken = room.min(offered);
        for frame in burst.0.drain(..taken) {
            if self.faults.tx_error() {
                cable.counts.tx_lost += 1;
                cable.stats.tx_errors += 1;
                continue;
            }
            let copy = cable.buffer(frame.data());
            cable.stats.tx_packets += 1;
            cable.stats.tx_bytes += copy.len() as u64;
            cable.from_port.push_back(copy);
        }
        cable.counts.taken += taken as u64;
        cable.counts.refused += (offered - taken) as u64;
        taken
    }
}

#[cfg(test)]
mod tests;
