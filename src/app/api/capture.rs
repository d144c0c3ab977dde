//! `/v1/capture`: frames of a filter, as pcapng, while they go through.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};

use super::query::Query;
use super::{Here, Scene};
use crate::mgmt::admin::filter::{Fate, Filter, OF_PACKETS};
use crate::mgmt::control::Refusal;
use crate::mgmt::server::{Pipe, Reply};
use crate::packet::{Meta, ReasonId, View};
use crate::path::{
    Became, Capture, CaptureCounts, Choice, Clock, FrameReader, LARGEST, LensEnd, Shot, Wanted,
};

/// The kind of a pcapng file.
const KIND: &str = "application/x-pcapng";
/// Bytes of a worker's ring: some hundred large frames, thousands of small ones.
const RING: usize = 4 << 20;
/// From one look at the rings to the next.
const NAP: Duration = Duration::from_millis(20);
/// How long a worker may take to give back what it has: it does with its next batch.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// Bytes that are put together before they are sent.
const PIECE: usize = 64 << 10;

/// The workers' ends; nothing while somebody captures.
pub(in crate::app) type Lenses = Arc<Mutex<Option<Vec<LensEnd>>>>;

/// The workers' ends, until the capture is over, however that comes.
struct Borrowed {
    lenses: Vec<LensEnd>,
    home: Lenses,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.lenses.iter_mut().for_each(LensEnd::end);
        let begun = Instant::now();
        while !self.lenses.iter_mut().all(LensEnd::is_back) && begun.elapsed() < LAST_WAIT {
            std::thread::sleep(NAP);
        }
        *self.home.lock() = Some(std::mem::take(&mut self.lenses));
    }
}

/// Which frames, as workers ask.
struct Chosen {
    filter: Filter,
    tenant: Option<u16>,
    reason: Option<ReasonId>,
}

impl Choice for Chosen {
    fn wants(&self, packet: Option<View<'_>>) -> bool {
        let Filter { endpoint, tenant, .. } = &self.filter;
        let Some(view) = packet else {
            return endpoint.is_none() && tenant.is_none() && !self.filter.asks_ends();
        };
        let meta = view.meta();
        let ports = match meta.flags.has(crate::packet::InnerFlags::PORTS) {
            true => (meta.source_port, meta.destination_port),
            false => (0, 0),
        };
        endpoint.is_none_or(|own| own == meta.endpoint)
            && self.filter.takes_ends((view.source(), ports.0), (view.destination(), ports.1), meta.protocol)
    }

    fn keeps(&self, meta: &Meta, became: Became) -> bool {
        let fate = match became {
            Became::Home | Became::Made => Fate::Home,
            Became::Dropped(_) => Fate::Dropped,
            Became::Punted => Fate::Punted,
            Became::Held => Fate::Held,
        };
        self.tenant.is_none_or(|tenant| tenant == meta.tenant)
            && self.filter.fate.is_none_or(|wanted| wanted == fate)
            && self.reason.is_none_or(|wanted| became == Became::Dropped(wanted))
    }
}

/// When a capture is over by itself.
struct Limits {
    packets: u64,
    bytes: u64,
    time: Duration,
}

/// The answer: a stream of pcapng, until a limit is reached or the reader has had enough.
pub(super) fn capture(here: &Here, scene: &Scene, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let filter = query.filter(OF_PACKETS)?;
    let at =
        query.word("at", &[("before", (true, false)), ("after", (false, true)), ("both", (true, true))])?;
    let (before, after) = at.unwrap_or((true, false));
    let snap = query.number("snap", 64, LARGEST as u64)?.unwrap_or(LARGEST as u64) as usize;
    let rate = query.number("rate", 1, 10_000_000)?.unwrap_or(10_000) as u32;
    let limits = Limits {
        packets: query.number("packets", 1, u64::MAX)?.unwrap_or(u64::MAX),
        bytes: query.number("bytes", 1, u64::MAX)?.unwrap_or(u64::MAX),
        time: query.number("seconds", 1, 86_400)?.map_or(Duration::MAX, Duration::from_secs),
    };
    query.done()?;
    let bad = |text: String| Refusal::new("bad-request", text);
    let number = |name: &String| {
        let tenants = &scene.plan.flow.tenants;
        let place = tenants.iter().position(|tenant| tenant.name == *name);
        place.map(|n| n as u16).ok_or_else(|| bad(format!("there is no tenant {name:?}")))
    };
    let tenant = filter.tenant.as_ref().map(number).transpose()?;
    let reasons = &scene.picture.names.reasons;
    let id = |name: &String| {
        let found = reasons.iter().find(|(_, label, _)| label == name).map(|(id, ..)| id);
        found.ok_or_else(|| {
            bad(format!("there is no drop reason {name:?}; `sluicegate stages drops` lists them"))
        })
    };
    let reason = filter.reason.as_ref().map(id).transpose()?;
    let lenses = here.lenses.lock().take();
    let lenses = lenses.ok_or_else(|| Refusal::new("busy", "a capture is on; there can be one at a time"))?;
    let mut borrowed = Borrowed { lenses, home: here.lenses.clone() };
    let mut readers = Vec::new();
    for lens in &mut borrowed.lenses {
        let choice = Box::new(Chosen { filter: filter.clone(), tenant, reason });
        let wanted = Wanted { choice, before, after, snap, rate, ring: RING };
        let (capture, reader, counts) = Capture::new(wanted);
        match lens.begin(capture) {
            Ok(()) => readers.push((lens.worker, reader, counts)),
            // It hangs, or has had no frame since: it gives back what it has with its next batch.
            Err(_) => continue,
        }
    }
    let clock = here.clock.clone();
    let ports: Vec<u16> = scene.picture.ports.iter().map(|port| port.id).collect();
    let names: Vec<String> = scene.plan.flow.tenants.iter().map(|tenant| tenant.name.clone()).collect();
    let labels = reasons.clone();
    let told = move |shot: &Shot, worker: u16| {
        let mut text = match shot.became {
            Became::Home => "home".to_owned(),
            Became::Dropped(reason) => format!("dropped: {}", labels.label(reason)),
            Became::Punted => "punted: for the host stack".to_owned(),
            Became::Held => "held: it waits for a stage".to_owned(),
            Became::Made => "made here".to_owned(),
        };
        if shot.edited {
            text += ", edited";
        }
        if let Some(flow) = shot.flow_id {
            text += &format!(", flow {flow}");
        }
        if let Some(name) = names.get(usize::from(shot.tenant)).filter(|_| names.len() > 1) {
            text += &format!(", tenant {name}");
        }
        text + &format!(", worker {worker}")
    };
    let shown = filter.to_string();
    Ok(Reply::Stream(
        KIND,
        Box::new(move |pipe| {
            if let Some(mut file) = File::new(&ports, (before, after), snap, &shown, &clock) {
                let readers: Vec<_> =
                    readers.into_iter().map(|(id, reader, counts)| (id.0, reader, counts)).collect();
                run(pipe, &mut file, readers, &limits, told);
            }
            drop(borrowed);
        }),
    ))
}

/// Takes what the rings have, in the order of time as far as one look sees it.
fn run(
    pipe: &mut Pipe<'_>,
    file: &mut File,
    mut readers: Vec<(u16, FrameReader, Arc<CaptureCounts>)>,
    limits: &Limits,
    told: impl Fn(&Shot, u16) -> String,
) {
    let (begun, mut packets, mut bytes) = (Instant::now(), 0, 0);
    let mut over = false;
    while !over {
        let mut found: Vec<(Shot, u16, Vec<u8>)> = Vec::new();
        for (worker, reader, _) in &mut readers {
            let mut taken = 0;
            while let Some((_, len)) = reader.peek().filter(|_| taken < PIECE) {
                let mut record = vec![0; len];
                taken += len;
                if reader.take(&mut record)
                    && let Some((shot, frame)) = Shot::read(&record)
                {
                    found.push((shot, *worker, frame.to_vec()));
                }
            }
        }
        found.sort_by_key(|(shot, ..)| shot.at);
        let none = found.is_empty();
        for (shot, worker, frame) in found {
            if packets >= limits.packets || bytes >= limits.bytes {
                break;
            }
            packets += 1;
            bytes += frame.len() as u64;
            file.packet(&shot, &frame, told(&shot, worker));
        }
        over = packets >= limits.packets || bytes >= limits.bytes || begun.elapsed() >= limits.time;
        if over {
            let sum =
                |of: fn(&CaptureCounts) -> u64| readers.iter().map(|(.., counts)| of(counts)).sum::<u64>();
            file.end(packets, sum(|c| c.lost.get()), sum(|c| c.limited.get()));
        }
        if !pipe.send(&file.take()) || (none && !over && !pipe.wait(NAP)) {
            return;
        }
    }
}

/// A pcapng file as it is written (draft-ietf-opsawg-pcapng): an interface for each port and side.
struct File {
    writer: PcapNgWriter<Vec<u8>>,
    /// Ports, and for each of them the sides that there are.
    interfaces: Vec<(u16, bool)>,
    /// The wall clock when the workers' was zero, in nanoseconds.
    zero: u64,
}

impl File {
    fn new(
        ports: &[u16],
        (before, after): (bool, bool),
        snap: usize,
        filter: &str,
        clock: &Clock,
    ) -> Option<Self> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let zero = wall.saturating_sub(clock.now());
        let sides =
            [(false, before), (true, after)].into_iter().filter(|(_, is)| *is).map(|(leaves, _)| leaves);
        let interfaces: Vec<(u16, bool)> =
            ports.iter().flat_map(|port| sides.clone().map(move |leaves| (*port, leaves))).collect();
        let mut writer = PcapNgWriter::new(Vec::new()).ok()?;
        for (port, leaves) in &interfaces {
            let name = format!("port {port}, {}", if *leaves { "as it leaves" } else { "as it came" });
            let mut options = vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            if !filter.is_empty() {
                options.push(InterfaceDescriptionOption::Comment(Cow::Owned(format!("filter: {filter}"))));
            }
            let snaplen = snap as u32;
            let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
            writer.write_pcapng_block(block).ok()?;
        }
        Some(File { writer, interfaces, zero })
    }

    fn packet(&mut self, shot: &Shot, frame: &[u8], comment: String) {
        let here = (shot.port, shot.leaves);
        let Some(interface) = self.interfaces.iter().position(|own| *own == here) else { return };
        // Inbound or outbound (section 4.3.1).
        let direction = if shot.leaves { 2 } else { 1 };
        let block = EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: Duration::from_nanos(self.zero.saturating_add(shot.at)),
            original_len: shot.wire_len,
            data: Cow::Borrowed(frame),
            options: vec![
                EnhancedPacketOption::Flags(direction),
                EnhancedPacketOption::Comment(comment.into()),
            ],
        };
        let _ = self.writer.write_pcapng_block(block); // into a vector
    }

    /// What was left out, where readers look for it.
    fn end(&mut self, packets: u64, lost: u64, limited: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let comment = format!("{packets} written, {lost} lost for want of room, {limited} beyond the rate");
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            // The upper half comes first, whatever the order of bytes; the crate writes one number.
            timestamp: if cfg!(target_endian = "little") { now.rotate_left(32) } else { now },
            options: vec![
                InterfaceStatisticsOption::Comment(comment.into()),
                InterfaceStatisticsOption::IsbIfDrop(lost + limited),
            ],
        };
        let _ = self.writer.write_pcapng_block(block); // likewise
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}
