//! Ethernet devices: opened once, configured, started, stopped, started again.
//!
//! What the driver must do to be of use is an error if it refuses; what it may do (MTU, RSS, promiscuous mode) becomes a
//! note in [`PortFacts`], which are read back after the start.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use super::{Eal, device, kernel, queue, rss, text};
use crate::dpdk::port::{LinkStatus, PortConfig, PortEvents, PortFacts, PortStats, QueuePair, StopError};
use crate::dpdk::{self, Errno, Error, Mempool};

/// Ethernet header and CRC, which DPDK's drivers leave out of the MTU.
const ETHERNET: u32 = 14 + 4;
/// An 802.1Q tag, for which a buffer must have room as well.
const VLAN_TAG: u32 = 4;

/// A port number that was opened, and what its interrupts have said.
#[derive(Debug)]
pub(super) struct Slot {
    id: u16,
    taken: bool,
    flags: Arc<Flags>,
}

/// Written by DPDK's interrupt thread, read and cleared by whoever asks.
#[derive(Debug, Default)]
struct Flags {
    link_changed: AtomicBool,
    reset_wanted: AtomicBool,
}

impl Slot {
    /// Stops and closes the device. No handle to it is left.
    pub(super) fn close(&self) {
        // SAFETY: S5, all queue handles are gone. Callbacks point to `flags`, which outlives the device.
        unsafe {
            dpdk_sys::rte_eth_dev_stop(self.id);
            dpdk_sys::rte_eth_dev_close(self.id);
        }
    }
}

/// A stopped device. Dropping it lets it be opened again.
#[derive(Debug)]
pub struct Port {
    eal: Eal,
    id: u16,
    device: String,
    flags: Arc<Flags>,
    /// It was started and not stopped: workers may be polling it, so nobody may open it again (S5).
    running: bool,
}

impl Port {
    /// Opens a device that the EAL was started with, by PCI address or vdev string.
    pub fn open(eal: &Eal, device: &str) -> Result<dpdk::Port, Error> {
        let id = device::find(eal, device)?;
        adopt(eal, id, device).map(dpdk::Port::Eal)
    }

    fn stopped(eal: &Eal, id: u16, device: &str, flags: Arc<Flags>) -> Self {
        Port { eal: eal.clone(), id, device: device.into(), flags, running: false }
    }

    /// Most queue pairs that the device offers.
    pub(in crate::dpdk) fn max_queues(&self) -> u16 {
        info(self.id).map_or(1, |info| info.max_rx_queues.min(info.max_tx_queues))
    }

    /// Largest MTU that the device says it takes.
    pub(in crate::dpdk) fn max_mtu(&self) -> u16 {
        info(self.id).map_or(1500, |info| self.largest_mtu(&info))
    }

    fn largest_mtu(&self, info: &rte_eth_dev_info) -> u16 {
        largest_mtu(info).max(kernel::largest_mtu(&self.device).unwrap_or(0))
    }

    /// Resets the device after it asked for it ([`PortEvents::reset_wanted`]).
    pub(in crate::dpdk) fn reset(&mut self) -> Result<(), Error> {
        // SAFETY: S5, the port is stopped and no queue handle is out.
        let code = unsafe { dpdk_sys::rte_eth_dev_reset(self.id) };
        check(code, || format!("reset {}", self.name()))
    }

    pub(in crate::dpdk) fn start(
        mut self,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(RunningPort, Vec<QueuePair>), Error> {
        let facts = self.bring_up(config, pool)?;
        self.running = true;
        let pair = |number| QueuePair {
            queue: number,
            port: self.id,
            mtu: facts.mtu,
            rx: dpdk::RxQueue::Eal(queue::RxQueue::new(&self.eal, self.id, number)),
            tx: dpdk::TxQueue::Eal(queue::TxQueue::new(&self.eal, self.id, number)),
        };
        let queues = (0..facts.queues).map(pair).collect();
        Ok((RunningPort { port: self, facts }, queues))
    }

    fn bring_up(&self, config: &PortConfig, pool: &Mempool) -> Result<PortFacts, Error> {
        let Mempool::Eal(pool) = pool else {
            return Err(Error::refused(
                format!("{} cannot receive into a soft pool", self.name()),
                "make its pool with Eal::pool",
            ));
        };
        let info = info(self.id)
            .map_err(|errno| Error::call(format!("ask {} what it can do", self.name()), errno))?;
        let mut notes = Vec::new();

        let max_queues = info.max_rx_queues.min(info.max_tx_queues);
        let queues = config.queues.clamp(1, max_queues.max(1));
        if queues != config.queues {
            notes.push(format!("{} queue pairs were asked for, the device has {max_queues}", config.queues));
        }
        rss::check(&config.rss, queues)?;

        let mtu = config.mtu.min(self.largest_mtu(&info));
        if mtu != config.mtu {
            notes.push(format!("an MTU of {} was asked for, the device takes at most {mtu}", config.mtu));
        }
        let needed = u32::from(mtu) + ETHERNET + VLAN_TAG;
        if u32::from(pool.data_room()) < needed {
            return Err(Error::refused(
                format!("{}: buffers of {} B cannot hold frames of MTU {mtu}", self.name(), pool.data_room()),
                format!(
                    "frames are never split: make the pool's data room at least {needed} B, or lower the MTU"
                ),
            ));
        }

        // The rest is between the driver and the kernel.
        let told = mtu.min(largest_mtu(&info));
        let rx_offloads = self.configure(&info, queues, told)?;
        let (rx_descriptors, tx_descriptors) = self.set_up_queues(&info, config, queues, pool)?;
        if told == mtu {
            self.set_mtu(mtu, &mut notes);
        }
        self.flags.link_changed.store(false, Ordering::Relaxed);
        self.flags.reset_wanted.store(false, Ordering::Relaxed);
        // SAFETY: configured above; nobody polls a stopped port (S5).
        check(unsafe { dpdk_sys::rte_eth_dev_start(self.id) }, || format!("start {}", self.name()))?;

        rss::apply(self.id, &config.rss, &info, queues, &mut notes);
        if config.promiscuous {
            // SAFETY: any port number is accepted.
            let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) };
            if code != 0 {
                notes.push(format!("promiscuous mode is not in effect: {}", Errno::from_return(code)));
            }
        }
        if config.multicast {
            // SAFETY: any port number is accepted.
            let code = unsafe { dpdk_sys::rte_eth_allmulticast_enable(self.id) };
            if code != 0 {
                notes.push(format!(
                    "not every multicast address is received: {}; neighbour discovery of IPv6 may fail",
                    Errno::from_return(code)
                ));
            }
        }
        // SAFETY: as above. A driver that cannot forget its counters reports them from its own start on.
        unsafe { dpdk_sys::rte_eth_stats_reset(self.id) };

        Ok(PortFacts {
            device: self.device.clone(),
            // SAFETY: a C string of the driver, or null.
            driver: unsafe { text(info.driver_name) },
            id: self.id,
            mac: mac(self.id),
            mtu: if told == mtu { current_mtu(self.id).unwrap_or(mtu) } else { mtu },
            // SAFETY: any port number is accepted; negative for "no node".
            numa: u32::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }).ok(),
            queues,
            max_queues,
            rx_descriptors,
            tx_descriptors,
            rss: rss::facts(self.id, &info, rx_offloads),
            rx_ip_checksum: rx_offloads & dpdk_sys::SG_RX_OFFLOAD_IPV4_CKSUM != 0,
            rx_udp_checksum: rx_offloads & dpdk_sys::SG_RX_OFFLOAD_UDP_CKSUM != 0,
            tx_ip_checksum: info.tx_offload_capa & dpdk_sys::SG_TX_OFFLOAD_IPV4_CKSUM != 0,
            tx_udp_checksum: info.tx_offload_capa & dpdk_sys::SG_TX_OFFLOAD_UDP_CKSUM != 0,
            notes,
        })
    }

    /// Returns the receive offloads in effect. No transmit offload is asked for: fast-free would break S3 with several
    /// pools, checksums are repaired by the path only where a stage edits.
    fn configure(&self, info: &rte_eth_dev_info, queues: u16, mtu: u16) -> Result<u64, Error> {
        let mut wanted = dpdk_sys::SG_RX_OFFLOAD_IPV4_CKSUM | dpdk_sys::SG_RX_OFFLOAD_UDP_CKSUM;
        let mut conf = rte_eth_conf::default();
        let functions = rss::functions(info);
        if queues > 1 && functions != 0 {
            wanted |= dpdk_sys::SG_RX_OFFLOAD_RSS_HASH;
            conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = functions;
        }
        conf.rxmode.mtu = mtu.into();
        conf.rxmode.offloads = wanted & info.rx_offload_capa;
        // SAFETY: null or a pointer to the driver's flags.
        let flags = unsafe { info.dev_flags.as_ref() }.copied().unwrap_or(0);
        conf.intr_conf.set_lsc((flags & dpdk_sys::SG_DEV_INTR_LSC != 0).into());
        // SAFETY: DPDK copies the configuration; the port is stopped (S5).
        let code = unsafe { dpdk_sys::rte_eth_dev_configure(self.id, queues, queues, &conf) };
        check(code, || format!("configure {} ({queues} queue pairs, MTU {mtu})", self.name()))?;
        Ok(conf.rxmode.offloads)
    }

    fn set_up_queues(
        &self,
        info: &rte_eth_dev_info,
        config: &PortConfig,
        queues: u16,
        pool: &super::EalPool,
    ) -> Result<(u16, u16), Error> {
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: two places for the answers.
        let code = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx) };
        check(code, || format!("fit the descriptors of {}", self.name()))?;
        // A driver's own defaults must not bring in what `configure` did not ask for, fast-free least of all.
        let (mut rx_conf, mut tx_conf) = (info.default_rxconf, info.default_txconf);
        (rx_conf.offloads, tx_conf.offloads) = (0, 0);
        // SAFETY: any port number is accepted; SOCKET_ID_ANY is -1 and means any here, too.
        let node = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) } as u32;
        for number in 0..queues {
            // SAFETY: the port is configured for `queues` queues and stopped; the pool outlives it (S4).
            let code = unsafe {
                let pool = pool.as_ptr();
                dpdk_sys::rte_eth_rx_queue_setup(self.id, number, rx, node, &rx_conf, pool)
            };
            check(code, || format!("set up receive queue {number} of {} ({rx} descriptors)", self.name()))?;
            // SAFETY: as above.
            let code = unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, number, tx, node, &tx_conf) };
            check(code, || format!("set up transmit queue {number} of {} ({tx} descriptors)", self.name()))?;
        }
        Ok((rx, tx))
    }

    /// The configuration carries the MTU to drivers that read it there; others want a call, and some have neither.
    fn set_mtu(&self, mtu: u16, notes: &mut Vec<String>) {
        // SAFETY: any port number is accepted.
        let code = unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu) };
        if code != 0 && code != -libc::ENOTSUP {
            notes.push(format!("the driver refused an MTU of {mtu}: {}", Errno::from_return(code)));
        }
    }

    fn name(&self) -> String {
        format!("port {} ({})", self.id, self.device)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.running {
            return;
        }
        if let Some(slot) = self.eal.0.ports.lock().iter_mut().find(|slot| slot.id == self.id) {
            slot.taken = false;
        }
    }
}

/// The handle of a port number, if nobody has it. Its callbacks are registered the first time.
pub(super) fn adopt(eal: &Eal, id: u16, device: &str) -> Result<Port, Error> {
    let mut slots = eal.0.ports.lock();
    if let Some(slot) = slots.iter_mut().find(|slot| slot.id == id) {
        if slot.taken {
            return Err(Error::refused(
                format!("{device} is open already (port {id})"),
                "name each device once",
            ));
        }
        slot.taken = true;
        return Ok(Port::stopped(eal, id, device, slot.flags.clone()));
    }
    let flags = Arc::new(Flags::default());
    watch(id, &flags, device)?;
    slots.push(Slot { id, taken: true, flags: flags.clone() });
    Ok(Port::stopped(eal, id, device, flags))
}

/// Registers the callbacks, all of them or none: DPDK must not keep a pointer to flags that go away.
fn watch(id: u16, flags: &Arc<Flags>, device: &str) -> Result<(), Error> {
    let arg: *mut c_void = Arc::as_ptr(flags).cast_mut().cast();
    let events = [dpdk_sys::RTE_ETH_EVENT_INTR_LSC, dpdk_sys::RTE_ETH_EVENT_INTR_RESET];
    for (done, event) in events.into_iter().enumerate() {
        // SAFETY: the slot keeps the flags until the device is closed; the callback only writes atomics.
        let code = unsafe { dpdk_sys::rte_eth_dev_callback_register(id, event, Some(on_event), arg) };
        if code != 0 {
            for event in events.into_iter().take(done) {
                // SAFETY: registered above with these very arguments.
                unsafe { dpdk_sys::rte_eth_dev_callback_unregister(id, event, Some(on_event), arg) };
            }
            let action = format!("watch the link of port {id} ({device})");
            return Err(Error::call(action, Errno::from_return(code)));
        }
    }
    Ok(())
}

/// # Safety
/// `flags` is what `adopt` registered.
unsafe extern "C" fn on_event(
    _port: u16,
    event: dpdk_sys::rte_eth_event_type,
    flags: *mut c_void,
    _result: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let flags = unsafe { &*flags.cast::<Flags>() };
    match event {
        dpdk_sys::RTE_ETH_EVENT_INTR_LSC => flags.link_changed.store(true, Ordering::Release),
        dpdk_sys::RTE_ETH_EVENT_INTR_RESET => flags.reset_wanted.store(true, Ordering::Release),
        _ => {}
    }
    0
}

/// A started device. Dropping it leaves the device running, and taken, until the EAL ends: its queues are still with
/// the workers.
#[derive(Debug)]
pub struct RunningPort {
    port: Port,
    facts: PortFacts,
}

impl RunningPort {
    pub(in crate::dpdk) fn facts(&self) -> &PortFacts {
        &self.facts
    }

    pub(in crate::dpdk) fn stats(&self) -> PortStats {
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: a place for the answer; zero if the driver has none.
        unsafe { dpdk_sys::rte_eth_stats_get(self.port.id, &mut stats) };
        PortStats {
            rx_packets: stats.ipackets,
            tx_packets: stats.opackets,
            rx_bytes: stats.ibytes,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_no_buffer: stats.rx_nombuf,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
        }
    }

    pub(in crate::dpdk) fn xstats(&self) -> Vec<(String, u64)> {
        let id = self.port.id;
        // SAFETY: null asks for the number.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get_names(id, ptr::null_mut(), 0) };
        let count = usize::try_from(count).unwrap_or(0);
        let mut names = vec![dpdk_sys::rte_eth_xstat_name::default(); count];
        let mut values = vec![dpdk_sys::rte_eth_xstat::default(); count];
        // SAFETY: room for `count` of each; a driver that has more by now answers with their number and writes nothing.
        let got = unsafe {
            let named = dpdk_sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count as u32);
            named.min(dpdk_sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count as u32))
        };
        let got = usize::try_from(got).unwrap_or(0);
        let named = |value: &dpdk_sys::rte_eth_xstat| {
            let name = names.get(value.id as usize)?;
            // SAFETY: DPDK ends names with a zero within the array.
            Some((unsafe { text(name.name.as_ptr()) }, value.value))
        };
        values.iter().take(got).filter_map(named).collect()
    }

    pub(in crate::dpdk) fn link(&self) -> LinkStatus {
        let mut speed = 0;
        // SAFETY: a place for the answer.
        let up = unsafe { dpdk_sys::sg_link(self.port.id, &mut speed) } == 1;
        let known = speed != dpdk_sys::RTE_ETH_SPEED_NUM_NONE && speed != dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN;
        LinkStatus { up, speed_mbps: known.then_some(speed) }
    }

    pub(in crate::dpdk) fn events(&self) -> PortEvents {
        let flags = &self.port.flags;
        PortEvents {
            link_changed: flags.link_changed.swap(false, Ordering::Acquire),
            reset_wanted: flags.reset_wanted.swap(false, Ordering::Acquire),
        }
    }

    /// Stops the device. Numbers have been checked; here the handles themselves are.
    pub(in crate::dpdk) fn stop(self, queues: Vec<QueuePair>) -> Result<Port, Box<StopError>> {
        let id = self.port.id;
        let ours = |pair: &QueuePair| match (&pair.rx, &pair.tx) {
            (dpdk::RxQueue::Eal(rx), dpdk::TxQueue::Eal(tx)) => {
                (rx.port, rx.queue, tx.port, tx.queue) == (id, pair.queue, id, pair.queue)
            }
            _ => false,
        };
        if !queues.iter().all(ours) {
            let what = format!("{}: a queue pair holds a queue of another port or number", self.port.name());
            return Err(self.still_running(queues, Error::Refused { what, remedy: None }));
        }
        // SAFETY: S5, all handles are here, so nobody polls.
        match check(unsafe { dpdk_sys::rte_eth_dev_stop(id) }, || format!("stop {}", self.port.name())) {
            Ok(()) => Ok(self.into_port(queues)),
            Err(error) => Err(self.still_running(queues, error)),
        }
    }

    fn still_running(self, queues: Vec<QueuePair>, error: Error) -> Box<StopError> {
        Box::new(StopError { port: dpdk::RunningPort::Eal(self), queues, error })
    }

    /// The handles end here.
    fn into_port(self, _queues: Vec<QueuePair>) -> Port {
        let RunningPort { mut port, .. } = self;
        port.running = false;
        port
    }
}

fn check(code: c_int, action: impl FnOnce() -> String) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::call(action(), Errno::from_return(code))) }
}

fn info(port: u16) -> Result<rte_eth_dev_info, Errno> {
    let mut info = rte_eth_dev_info::default();
    // SAFETY: a place for the answer.
    let code = unsafe { dpdk_sys::rte_eth_dev_info_get(port, &mut info) };
    if code == 0 { Ok(info) } else { Err(Errno::from_return(code)) }
}

/// As DPDK computes it: what the driver takes off the frame length, or an Ethernet header and CRC if it does not say.
fn largest_mtu(info: &rte_eth_dev_info) -> u16 {
    let says = info.max_mtu != u16::MAX && info.max_rx_pktlen > u32::from(info.max_mtu);
    let overhead = if says { info.max_rx_pktlen - u32::from(info.max_mtu) } else { ETHERNET };
    let by_length = info.max_rx_pktlen.saturating_sub(overhead).min(u16::MAX.into()) as u16;
    if info.max_mtu == 0 { by_length } else { by_length.min(info.max_mtu) }
}

fn current_mtu(port: u16) -> Option<u16> {
    let mut mtu = 0;
    // SAFETY: a place for the answer.
    (unsafe { dpdk_sys::rte_eth_dev_get_mtu(port, &mut mtu) } == 0).then_some(mtu)
}

fn mac(port: u16) -> [u8; 6] {
    let mut address = dpdk_sys::rte_ether_addr::default();
    // SAFETY: a place for the answer.
    unsafe { dpdk_sys::rte_eth_macaddr_get(port, &mut address) };
    address.addr_bytes
}
