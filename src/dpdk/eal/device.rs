//! Names of devices: what a user writes, what DPDK knows, and what to do if the two do not meet.

use std::ffi::c_char;
use std::fs;

use super::{Eal, text};
use crate::dpdk::{Errno, Error};

/// The full PCI address in `0000:00:06.0` or `00:06.0`, with or without arguments behind a comma.
pub(super) fn pci_address(device: &str) -> Option<String> {
    let name = name(device);
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (front, function) = name.rsplit_once('.')?;
    let parts: Vec<&str> = front.split(':').collect();
    let (domain, bus, slot) = match parts.as_slice() {
        [bus, slot] => ("0000", *bus, *slot),
        [domain, bus, slot] => (*domain, *bus, *slot),
        _ => return None,
    };
    let valid = hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && hex(function, 1);
    valid.then(|| format!("{domain}:{bus}:{slot}.{function}").to_ascii_lowercase())
}

/// What stands before the first comma.
fn name(device: &str) -> &str {
    device.split_once(',').map_or(device, |(name, _)| name)
}

/// DPDK's port number of a device.
pub(super) fn find(eal: &Eal, device: &str) -> Result<u16, Error> {
    let wanted = pci_address(device).unwrap_or_else(|| name(device).to_string());
    let c_name = super::c_string(&wanted, "device")?;
    let mut id = 0;
    // SAFETY: a C string and a place for the answer.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) };
    if code == 0 { Ok(id) } else { Err(not_there(&wanted, Errno::from_return(code), eal.said())) }
}

/// Names of all ports.
pub(super) fn names() -> Vec<String> {
    let mut names = Vec::new();
    let mut id = 0;
    loop {
        // SAFETY: any number is accepted.
        id = unsafe { dpdk_sys::rte_eth_find_next(id) };
        if u32::from(id) >= dpdk_sys::RTE_MAX_ETHPORTS {
            return names;
        }
        let mut name: [c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize] = [0; _];
        // SAFETY: DPDK writes at most RTE_ETH_NAME_MAX_LEN bytes, the terminating zero included.
        if unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } == 0 {
            // SAFETY: filled with a C string above.
            names.push(unsafe { text(name.as_ptr()) });
        }
        id += 1;
    }
}

fn not_there(device: &str, errno: Errno, said: &[String]) -> Error {
    let there = names();
    let list = if there.is_empty() {
        "DPDK has no device".into()
    } else {
        format!("DPDK has: {}", there.join(", "))
    };
    let remedy = match pci_address(device) {
        Some(address) => format!("{}; {list}", pci_advice(&address)),
        None => format!("{list}; a vdev must be among the devices the EAL was started with"),
    };
    // A driver that could not open its device does not always stop the start; then its reason is here.
    let said = super::tail(said);
    let remedy = if said.is_empty() { remedy } else { format!("{remedy}; DPDK said at the start: {said}") };
    Error::call(format!("open device {device}"), errno).with_remedy(remedy)
}

/// What the kernel says of a PCI device that DPDK did not take.
fn pci_advice(address: &str) -> String {
    let folder = format!("/sys/bus/pci/devices/{address}");
    if fs::metadata(&folder).is_err() {
        return format!("there is no PCI device {address}: see `lspci -D`");
    }
    let driver = fs::read_link(format!("{folder}/driver")).ok();
    let driver = driver.as_ref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    let iommu = fs::metadata(format!("{folder}/iommu_group")).is_ok();
    let bind = if iommu {
        format!(
            "bind it to vfio-pci: modprobe vfio-pci && driverctl --nosave set-override {address} vfio-pci"
        )
    } else {
        format!(
            "bind it: without an IOMMU vfio-pci needs enable_unsafe_noiommu_mode=1; otherwise modprobe uio_pci_generic \
             && driverctl --nosave set-override {address} uio_pci_generic"
        )
    };
    match driver {
        None => format!("no kernel driver holds it; {bind}"),
        Some(driver @ ("vfio-pci" | "uio_pci_generic" | "igb_uio")) => {
            format!(
                "it is bound to {driver}, but DPDK has no driver for it or could not open it: see DPDK's lines above"
            )
        }
        Some(driver) => format!("the kernel driver {driver} holds it; {bind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_vdevs() {
        for (device, address) in [
            ("0000:00:06.0", Some("0000:00:06.0")),
            ("00:1F.7", Some("0000:00:1f.7")),
            ("0000:00:06.0,large_llq_hdr=1", Some("0000:00:06.0")),
            ("net_null0", None),
            ("net_af_packet0,iface=eth1.0", None),
            ("net_pcap0,rx_pcap=/a:b/c:d.0", None),
            ("0000:00:06", None),
            ("00:zz.0", None),
        ] {
            assert_eq!(pci_address(device).as_deref(), address, "{device}");
        }
    }
}
