//! Receive-side scaling: asked for as far as the driver offers it, read back as it is.

use dpdk_sys::{rte_eth_dev_info, rte_eth_rss_conf, rte_eth_rss_reta_entry64};

use crate::dpdk::port::RssFacts;
use crate::dpdk::{Errno, Error, RssConfig};

/// Entries per group of DPDK's table.
const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;
/// Longest key that is read back; the longest known is 52 bytes.
const LONGEST_KEY: usize = 256;

/// Hash functions by their names in DPDK.
const NAMES: [(u64, &str); 10] = [
    (dpdk_sys::SG_RSS_IPV4, "ipv4"),
    (dpdk_sys::SG_RSS_FRAG_IPV4, "ipv4-frag"),
    (dpdk_sys::SG_RSS_IPV4_TCP, "ipv4-tcp"),
    (dpdk_sys::SG_RSS_IPV4_UDP, "ipv4-udp"),
    (dpdk_sys::SG_RSS_IPV4_OTHER, "ipv4-other"),
    (dpdk_sys::SG_RSS_IPV6, "ipv6"),
    (dpdk_sys::SG_RSS_FRAG_IPV6, "ipv6-frag"),
    (dpdk_sys::SG_RSS_IPV6_TCP, "ipv6-tcp"),
    (dpdk_sys::SG_RSS_IPV6_UDP, "ipv6-udp"),
    (dpdk_sys::SG_RSS_IPV6_OTHER, "ipv6-other"),
];

/// Refuses a table that names queues which do not exist.
pub(super) fn check(config: &RssConfig, queues: u16) -> Result<(), Error> {
    match config.reta.as_deref() {
        Some([]) => {
            Err(Error::refused("the redirection table is empty", "leave it out to spread queues evenly"))
        }
        Some(reta) => match reta.iter().find(|&&queue| queue >= queues) {
            Some(queue) => Err(Error::refused(
                format!("the redirection table names queue {queue}, and the port has {queues}"),
                "queues count from 0",
            )),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Functions to ask for: those of ours that the driver offers.
pub(super) fn functions(info: &rte_eth_dev_info) -> u64 {
    info.flow_type_rss_offloads & dpdk_sys::SG_RSS_WANTED
}

/// Sets key and table of a started port; what the driver refuses goes to `notes`.
pub(super) fn apply(
    port: u16,
    config: &RssConfig,
    info: &rte_eth_dev_info,
    queues: u16,
    notes: &mut Vec<String>,
) {
    let functions = functions(info);
    if queues < 2 {
        return;
    }
    if functions == 0 {
        notes.push("the driver offers no RSS: how frames spread over queues is the device's choice".into());
        return;
    }
    if let Some(key) = &config.key {
        let offered = info.hash_key_size as usize;
        if offered != 0 && key.len() != offered {
            notes
                .push(format!("the RSS key has {} bytes and the driver takes {offered}: not set", key.len()));
        } else if let Err(errno) = set_key(port, key, functions) {
            notes.push(format!("the driver keeps its RSS key: {errno}"));
        }
    }
    if info.reta_size == 0 {
        if config.reta.is_some() {
            notes.push("the driver has no redirection table: not set".into());
        }
    } else if let Err(errno) = set_reta(port, config, info.reta_size as usize, queues) {
        notes.push(format!("the driver keeps its redirection table: {errno}"));
    }
}

/// What is in effect, as far as the driver tells.
pub(super) fn facts(port: u16, info: &rte_eth_dev_info, rx_offloads: u64) -> RssFacts {
    let (functions, key) = hash_conf(port, info.hash_key_size as usize);
    RssFacts {
        functions: NAMES
            .iter()
            .filter(|(bit, _)| functions & bit != 0)
            .map(|(_, name)| name.to_string())
            .collect(),
        key,
        reta: reta(port, info.reta_size as usize),
        hash_delivered: rx_offloads & dpdk_sys::SG_RX_OFFLOAD_RSS_HASH != 0,
    }
}

fn set_key(port: u16, key: &[u8], functions: u64) -> Result<(), Errno> {
    // Some drivers read as many bytes as their own key has, whatever the length says.
    let len = key.len().min(u8::MAX.into()) as u8;
    let mut key = key.to_vec();
    key.resize(key.len().max(LONGEST_KEY), 0);
    #[allow(clippy::needless_update, reason = "later releases of DPDK have one more field")]
    let mut conf = rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: len,
        rss_hf: functions,
        ..Default::default()
    };
    // SAFETY: the key lives until the call returns and has the length given; DPDK copies it.
    checked(unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(port, &mut conf) })
}

fn set_reta(port: u16, config: &RssConfig, size: usize, queues: u16) -> Result<(), Errno> {
    let mut groups = vec![rte_eth_rss_reta_entry64::default(); size.div_ceil(GROUP)];
    for i in 0..size {
        let queue = match config.reta.as_deref() {
            Some(reta) => reta.get(i % reta.len().max(1)).copied().unwrap_or(0),
            None => (i % queues as usize) as u16,
        };
        if let Some(group) = groups.get_mut(i / GROUP) {
            group.mask |= 1 << (i % GROUP);
            group.reta[i % GROUP] = queue;
        }
    }
    // SAFETY: as many groups as `size` entries need.
    checked(unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), size as u16) })
}

fn hash_conf(port: u16, key_size: usize) -> (u64, Option<Vec<u8>>) {
    let mut key = [0u8; LONGEST_KEY];
    let ask = |key: &mut [u8]| {
        let mut conf = rte_eth_rss_conf::default();
        if !key.is_empty() {
            conf.rss_key = key.as_mut_ptr();
            conf.rss_key_len = key.len().min(u8::MAX.into()) as u8;
        }
        // SAFETY: room for a key of the length given, or a null pointer for "no key".
        let code = unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(port, &mut conf) };
        (code == 0).then_some((conf.rss_hf, conf.rss_key_len as usize))
    };
    if let Some(room) = key.get_mut(..key_size).filter(|room| !room.is_empty())
        && let Some((functions, len)) = ask(room)
    {
        let key = room.get(..len).filter(|key| !key.is_empty()).map(<[u8]>::to_vec);
        return (functions, key);
    }
    (ask(&mut []).map_or(0, |(functions, _)| functions), None)
}

fn reta(port: u16, size: usize) -> Option<Vec<u16>> {
    if size == 0 {
        return None;
    }
    let mut groups =
        vec![rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() }; size.div_ceil(GROUP)];
    // SAFETY: as many groups as `size` entries need.
    let code = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(port, groups.as_mut_ptr(), size as u16) };
    (code == 0).then(|| groups.iter().flat_map(|group| group.reta).take(size).collect())
}

fn checked(code: i32) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_return(code)) }
}
