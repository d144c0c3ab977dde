//! Devices: how they are bound, how their memory is mapped, how long a packet may be.

use super::{At, Findings, Level, Run};
use crate::config::Plan;

/// Amazon's network cards.
const AMAZON: &str = "0x1d0f";
const ENA: [&str; 4] = ["0x0ec2", "0x1ec2", "0xec20", "0xec21"];
/// An inner packet of 8500 bytes in its envelope.
const FULL: u16 = 8568;
/// The envelope of a load balancer of AWS.
const ENVELOPE: u16 = 68;
const NOIOMMU: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// A port's device.
#[derive(Debug)]
pub(super) struct Device {
    /// As the plan names it.
    pub name: String,
    /// Its PCI address.
    pub address: String,
    pub args: String,
    pub driver: Option<String>,
    pub numa: Option<u32>,
    pub is_ena: bool,
    pub is_there: bool,
}

/// PCI devices of the plan, or of the instance, or those that are bound to a driver for user space.
pub(super) fn devices(at: &At, plan: Option<&Plan>, run: Option<&Run>) -> Vec<Device> {
    let named: Vec<String> = match (plan, run) {
        (Some(plan), _) => plan.ports.iter().map(|port| port.device.clone()).collect(),
        (None, Some(run)) => run.ports.iter().map(|port| port.device.clone()).collect(),
        (None, None) => {
            let user = |address: &String| {
                let driver = at.link(&format!("/sys/bus/pci/devices/{address}/driver"));
                matches!(driver.as_deref(), Some("vfio-pci" | "igb_uio" | "uio_pci_generic"))
            };
            at.names("/sys/bus/pci/devices").into_iter().filter(user).collect()
        }
    };
    let device = |name: String| {
        let (address, args) = name.split_once(',').unwrap_or((&name, ""));
        let is_address = address.contains(':') && address.contains('.');
        let address = if address.len() == 7 { format!("0000:{address}") } else { address.to_owned() };
        let args = args.to_owned();
        let of = |file: &str| format!("/sys/bus/pci/devices/{address}/{file}");
        let is = |file: &str, of_them: &[&str]| {
            at.read(&of(file)).is_some_and(|id| of_them.contains(&id.as_str()))
        };
        is_address.then(|| Device {
            driver: at.link(&of("driver")),
            numa: at.number(&of("numa_node")).and_then(|node| u32::try_from(node).ok()),
            is_ena: is("vendor", &[AMAZON]) && is("device", &ENA),
            is_there: at.path(&format!("/sys/bus/pci/devices/{address}")).exists(),
            name: name.clone(),
            address: address.clone(),
            args,
        })
    };
    named.into_iter().filter_map(device).collect()
}

pub(super) fn iommu(at: &At, devices: &[Device], found: &mut Findings) {
    const CHECK: &str = "iommu";
    if devices.is_empty() {
        return found.good(CHECK, "no port is a PCI device");
    }
    for Device { name, address, driver, is_there, .. } in devices {
        let has_group = at.path(&format!("/sys/bus/pci/devices/{address}/iommu_group")).exists();
        let is_unsafe = at.read(NOIOMMU).is_some_and(|is| is == "Y" || is == "1");
        let bind = format!("modprobe vfio-pci; dpdk-devbind.py -b vfio-pci {address}");
        match driver.as_deref() {
            _ if !is_there => {
                found.add(
                    CHECK,
                    Level::Bad,
                    format!("there is no device {name}"),
                    "see lspci -D, or use a vdev such as net_af_packet0,iface=eth1",
                );
            }
            Some("vfio-pci") if has_group && !is_unsafe => {
                found.good(CHECK, format!("{name}: vfio-pci behind an IOMMU"))
            }
            Some("vfio-pci") if is_unsafe => {
                let text = format!("{name}: vfio-pci without an IOMMU: the device can write to all memory");
                found.add(CHECK, Level::Note, text, "virtual instances have no other way; on metal: intel_iommu=on iommu=pt, and unsafe mode off");
            }
            Some("vfio-pci") => {
                let text = format!("{name}: vfio-pci, and there is neither an IOMMU nor leave to do without");
                found.add(CHECK, Level::Bad, text, &format!("echo 1 > {NOIOMMU}"));
            }
            Some("igb_uio") => {
                let text = format!("{name}: igb_uio: the device can write to all memory");
                found.add(CHECK, Level::Note, text, "vfio-pci where there is an IOMMU");
            }
            Some("uio_pci_generic") => {
                let text = format!("{name}: uio_pci_generic maps no prefetchable memory for write combining");
                found.add(CHECK, Level::Warning, text, &bind);
            }
            Some("mlx5_core") => {
                found.good(CHECK, format!("{name}: mlx5_core, which DPDK shares with the kernel"))
            }
            Some(kernel) => {
                found.add(CHECK, Level::Bad, format!("{name} is the kernel's ({kernel})"), &bind);
            }
            None => found.add(CHECK, Level::Bad, format!("{name} has no driver"), &bind),
        }
    }
}

/// The first prefetchable piece of memory of a device: on ENA what transmit headers are written into.
fn prefetchable(at: &At, address: &str) -> Option<(u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let text = at.read(&format!("/sys/bus/pci/devices/{address}/resource"))?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(number);
        let (first, last, flags) = (words.next()??, words.next()??, words.next()??);
        (flags & 0x2000 != 0 && last > first).then_some((first, last))
    })
}

/// Does a mapping of it combine writes? `None` if the kernel does not say.
fn combines(at: &At, (first, last): (u64, u64)) -> Option<bool> {
    let text = at.read("/sys/kernel/debug/x86/pat_memtype_list")?;
    let mapped = text.lines().filter_map(|line| {
        // "PAT: [mem 0x00000000fe000000-0x00000000fe100000] write-combining", or "write-combining @ 0x..-0x..".
        let from = line.find("0x")?;
        let (begin, rest) = line.get(from + 2..)?.split_once("-0x")?;
        let begin = u64::from_str_radix(begin, 16).ok()?;
        Some((begin, rest, line.contains("write-combining")))
    });
    let mut within =
        mapped.filter(|(begin, ..)| (first..=last).contains(begin)).map(|(.., combines)| combines);
    within.next().map(|one| one || within.any(|other| other))
}

pub(super) fn write_combining(at: &At, devices: &[Device], found: &mut Findings) {
    const CHECK: &str = "write-combining";
    let ena: Vec<&Device> = devices.iter().filter(|device| device.is_ena && device.is_there).collect();
    if ena.is_empty() {
        return found.good(CHECK, "no port needs it (ENA does)");
    }
    for Device { name, address, driver, .. } in ena {
        let patched = "use AWS's vfio with write combining (amzn-drivers, get-vfio-with-wc.sh), or igb_uio with wc_activate=1";
        if driver.as_deref() == Some("igb_uio") {
            let is_on = at.number("/sys/module/igb_uio/parameters/wc_activate") == Some(1);
            match is_on {
                true => found.good(CHECK, format!("{name}: igb_uio with wc_activate=1")),
                false => found.add(
                    CHECK,
                    Level::Bad,
                    format!("{name}: igb_uio without write combining: sending takes many times the cycles"),
                    "modprobe -r igb_uio; modprobe igb_uio wc_activate=1",
                ),
            }
            continue;
        }
        match prefetchable(at, address).and_then(|range| combines(at, range)) {
            Some(true) => found.good(CHECK, format!("{name}: its memory is mapped with write combining")),
            Some(false) => {
                let text = format!(
                    "{name}: its memory is mapped without write combining: sending takes many times the cycles"
                );
                found.add(CHECK, Level::Bad, text, patched);
            }
            None => {
                let text = format!(
                    "{name}: the kernel does not say how its memory is mapped; vfio-pci as it comes does not combine writes"
                );
                found.add(CHECK, Level::Unknown, text, "as root, with debugfs mounted and the instance running; else ena_com_prep_pkts in perf top tells");
            }
        }
    }
}

pub(super) fn llq(devices: &[Device], found: &mut Findings) {
    const CHECK: &str = "llq";
    let ena: Vec<&Device> = devices.iter().filter(|device| device.is_ena).collect();
    if ena.is_empty() {
        return found.good(CHECK, "no port is an ENA");
    }
    for Device { name, args, .. } in ena {
        let has = |word: &str| args.split(',').any(|arg| arg == word);
        if has("llq_policy=0") || has("enable_llq=0") {
            let text = format!("{name}: low-latency queues are off");
            found.add(CHECK, Level::Warning, text, "leave llq_policy out: the device's own choice is right");
        } else if has("llq_policy=3") || has("large_llq_hdr=1") {
            let text = format!(
                "{name}: large headers halve the transmit ring, and an envelope of 82 bytes fits the normal 96"
            );
            found.add(CHECK, Level::Note, text, "leave llq_policy out");
        } else {
            found.good(CHECK, format!("{name}: left to the device; what it chose is in the driver's log"));
        }
    }
}

pub(super) fn mtu(at: &At, plan: Option<&Plan>, run: Option<&Run>, found: &mut Findings) {
    const CHECK: &str = "mtu";
    let mut known: Vec<(String, u16)> = Vec::new();
    if let Some(run) = run {
        known = run.ports.iter().map(|port| (port.device.clone(), port.mtu)).collect();
    } else if let Some(plan) = plan {
        for port in &plan.ports {
            let device = port.device.clone();
            let interface = device.split(',').find_map(|arg| arg.strip_prefix("iface=")).map(str::to_owned);
            let of_kernel = interface
                .and_then(|name| at.number(&format!("/sys/class/net/{name}/mtu")))
                .and_then(|mtu| u16::try_from(mtu).ok());
            let mtu = port.mtu.into_iter().chain(of_kernel).min();
            known.extend(mtu.map(|mtu| (device, mtu)));
        }
    }
    if known.is_empty() {
        return found.add(
            CHECK,
            Level::Unknown,
            "no MTU is known before ports are open",
            "ask again while it runs",
        );
    }
    for (device, mtu) in known {
        if mtu >= FULL {
            found.good(CHECK, format!("{device}: {mtu} bytes"));
        } else {
            let text = format!(
                "{device}: {mtu} bytes; inner packets of more than {} do not fit, and a load balancer sends up to 8500",
                mtu.saturating_sub(ENVELOPE)
            );
            let remedy = format!("port[].mtu = 9001 (at least {FULL}), and the interface's with it");
            found.add(CHECK, Level::Warning, text, &remedy);
        }
    }
}
