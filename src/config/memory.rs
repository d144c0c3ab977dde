//! How many buffers a plan needs, and how much memory.
//!
//! Every place where a buffer can be is counted at its fullest: the rings of all queues, the caches of the lcores, the
//! batch a worker holds and the one it could not send yet, the rings between workers, the fragments that wait
//! and the frames that wait for stages. Nothing is rounded up to a power of two: that would
//! save 8 bytes per entry of the pool's ring and cost a buffer of 9 kB for each.

use super::{FlowPlan, PoolPlan, PortPlan};
use crate::dpdk::PoolConfig;

/// Buffers that each lcore may keep; DPDK lets a cache grow to half as much again before it flushes.
const CACHE: u32 = 256;
const CACHE_FULL: u64 = CACHE as u64 * 3 / 2;
/// Ethernet header and one VLAN tag.
const ETHERNET: u16 = 18;
/// A frame check sequence, for devices that keep it.
const CRC: u16 = 4;
/// Hardware is told the size of a buffer in steps (`net_ixgbe` 1024, `net_i40e` and `net_ice` 128 bytes) and uses no more
/// than whole ones: with any other room the longest frames would come in two segments, and be dropped.
const ROOM_STEP: u16 = 1024;
/// Drivers take smaller buffers for a mistake: `net_af_packet` refuses them.
const LEAST_ROOM: u16 = 2048;
/// What DPDK keeps beside the data room of a buffer: mbuf header, headroom, and the pool's own object header and padding.
const BESIDE: u64 = 128 + 128 + 64;
/// The EAL itself, drivers, timers, telemetry and what allocation wastes at page boundaries.
const BASE_MB: u64 = 64;
/// Descriptor of a hardware ring with its software twin.
const DESCRIPTOR: u64 = 64;

/// What goes into the formulas.
pub(super) struct Needs<'a> {
    pub ports: &'a [PortPlan],
    pub workers: usize,
    pub burst: usize,
    pub extra_buffers: u32,
    /// Bytes that stages want from the EAL.
    pub stages: u64,
    pub flow: &'a FlowPlan,
    /// Frames of a worker that wait for stages.
    pub held_for_stages: u32,
}

/// The EAL's memory.
pub(super) struct Memory {
    pub megabytes: u32,
    pub formula: String,
}

/// The pool and the memory of a plan, each with its formula in words and figures.
pub(super) fn plan(needs: &Needs<'_>) -> (PoolPlan, Memory) {
    let Needs { ports, workers, burst, extra_buffers, stages, flow, held_for_stages } = *needs;
    let (workers, burst) = (workers as u64, burst as u64);
    let rings = |port: &PortPlan| {
        let config = &port.config;
        u64::from(config.queues) * (u64::from(config.rx_descriptors) + u64::from(config.tx_descriptors))
    };
    let descriptors: u64 = ports.iter().map(rings).sum();
    let lcores = workers + 1;
    let held = lcores * CACHE_FULL + workers * 2 * burst;
    let spare = (descriptors + held) / 16;
    // A worker has a ring to each other worker, and keeps fragments that came before their first.
    let tracked = if flow.tracking { workers } else { 0 };
    let rings_between = tracked * tracked.saturating_sub(1);
    let handed = rings_between * u64::from(flow.handoff_ring);
    let fragments = tracked * u64::from(flow.fragments.hold);
    let waiting = workers * u64::from(held_for_stages);
    let buffers = descriptors + held + spare + handed + fragments + waiting + u64::from(extra_buffers);
    let mtu = ports.iter().map(|port| port.config.mtu).max().unwrap_or(9001);
    let data_room = (mtu + ETHERNET + CRC).next_multiple_of(ROOM_STEP).max(LEAST_ROOM);

    let mut formula = String::new();
    for (i, port) in ports.iter().enumerate() {
        let PortPlan { config: c, .. } = port;
        let sum = format!("{} x ({} rx + {} tx)", c.queues, c.rx_descriptors, c.tx_descriptors);
        formula += &format!("{:>8}  rings of port[{i}]: {sum}\n", rings(port));
    }
    formula += &format!("{:>8}  caches: {lcores} lcores x {CACHE_FULL}\n", lcores * CACHE_FULL);
    formula += &format!("{:>8}  batches: {workers} workers x 2 x {burst}\n", workers * 2 * burst);
    formula += &format!("{spare:>8}  headroom: 1/16\n");
    if handed > 0 {
        formula += &format!(
            "{handed:>8}  hand-off rings: {rings_between} x flow.handoff_ring, {}\n",
            flow.handoff_ring
        );
    }
    if fragments > 0 {
        let hold = flow.fragments.hold;
        formula +=
            &format!("{fragments:>8}  waiting fragments: {workers} workers x flow.fragments.hold, {hold}\n");
    }
    if waiting > 0 {
        formula += &format!(
            "{waiting:>8}  frames that wait for stages: {workers} workers x stream.hold, {held_for_stages}\n"
        );
    }
    if extra_buffers > 0 {
        formula += &format!("{extra_buffers:>8}  eal.extra_buffers\n");
    }
    let rounded = if data_room == LEAST_ROOM { "at least 2048" } else { "rounded up to 1024" };
    formula +=
        &format!("{buffers:>8}  buffers of {data_room} bytes: MTU {mtu} + {ETHERNET} + {CRC}, {rounded}");

    let pool_bytes = buffers * (u64::from(data_room) + BESIDE);
    let ring_bytes = descriptors * DESCRIPTOR;
    let mb = |bytes: u64| bytes.div_ceil(1 << 20);
    // A reload builds rules while those before them are in force.
    let stages = 2 * stages;
    let total = mb(pool_bytes) + mb(ring_bytes) + mb(stages) + BASE_MB;
    let memory = format!(
        "{:>8}  MB pool: {buffers} x ({data_room} + {BESIDE}) bytes\n\
         {:>8}  MB descriptor rings\n\
         {:>8}  MB stages, twice: a reload builds the next ones beside them\n\
         {BASE_MB:>8}  MB for the EAL and its drivers\n\
         {total:>8}  MB",
        mb(pool_bytes),
        mb(ring_bytes),
        mb(stages)
    );
    let config = PoolConfig {
        name: "frames".into(),
        buffers: u32::try_from(buffers).unwrap_or(u32::MAX),
        data_room,
        cache: CACHE,
        numa: None,
    };
    let megabytes = u32::try_from(total).unwrap_or(u32::MAX);
    (PoolPlan { config, formula }, Memory { megabytes, formula: memory })
}
