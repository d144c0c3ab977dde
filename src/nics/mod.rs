//! Network cards of this machine: which there are, whose they are, and how they change hands between the kernel and DPDK.
//!
//! ```text
//! /sys, /proc --list--> Nic --obstacles--> why not, in one line each; or --bind / unbind--> driver_override, unbind, drivers_probe
//! ```
//!
//! Machines are read and written below a root ([`Machine`]), so tests have machines of their own. Facts: the kernel's
//! `Documentation/ABI/testing/sysfs-bus-pci` (`driver_override`, `drivers_probe`), `Documentation/driver-api/vfio.rst` (groups), DPDK's Linux
//! guide, "Linux Drivers".

mod bind;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use bind::{Bound, Refused, bind, unbind};

/// Drivers by which a device belongs to user space.
pub const USER_DRIVERS: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];
/// Where modes of vfio are.
const NOIOMMU: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
/// Class codes: network controllers begin with this.
const NETWORK: &str = "0x02";
/// Class code of bridges, which may share an IOMMU group with anything.
const BRIDGE: &str = "0x06";

/// What is read and changed: a machine's files below a root, and its kernel modules.
pub trait Machine {
    /// The folder above `/sys` and `/proc`.
    fn root(&self) -> &Path;
    /// Writes into a file of the machine.
    fn write(&self, path: &str, text: &str) -> std::io::Result<()>;
    /// Loads a kernel module.
    fn load(&self, module: &str) -> Result<(), String>;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here;

impl Machine for Here {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn write(&self, path: &str, text: &str) -> std::io::Result<()> {
        std::fs::write(path, text)
    }

    fn load(&self, module: &str) -> Result<(), String> {
        let output = std::process::Command::new("modprobe").arg(module).output();
        let output = output.map_err(|e| format!("modprobe: {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// PCI address: `0000:00:06.0`.
    pub address: String,
    /// Vendor and device, as PCI numbers them: `1d0f:ec20`.
    pub id: String,
    /// Whose it is.
    pub driver: Option<String>,
    /// The kernel's names for it, while it is the kernel's.
    pub interfaces: Vec<String>,
    /// One of these is up.
    pub up: bool,
    /// The default route leads through it, maybe by way of a bond, a bridge or a VLAN.
    pub default_route: bool,
    /// Its IOMMU group.
    pub iommu_group: Option<String>,
    /// Other devices of the group, which change hands together with it. Bridges do not count.
    pub group: Vec<String>,
    /// NUMA node.
    pub numa: Option<u32>,
    /// MTU, while it is the kernel's.
    pub mtu: Option<u32>,
    /// Receive queues over which the kernel spreads packets by RSS, while it is the kernel's.
    pub queues: Option<usize>,
}

impl Nic {
    /// It belongs to user space, or to nobody.
    pub fn is_free(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// DPDK shares it with the kernel: nothing to bind.
    pub fn is_shared(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| driver.starts_with("mlx"))
    }
}

/// All network cards, by address.
pub fn list(machine: &dyn Machine) -> Vec<Nic> {
    let at = At(machine.root());
    let routes = default_routes(&at);
    let addresses = at.names("/sys/bus/pci/devices").into_iter();
    let network =
        |address: &String| at.read(&device(address, "class")).is_some_and(|class| class.starts_with(NETWORK));
    addresses.filter(network).map(|address| nic(&at, address, &routes)).collect()
}

/// One of them, by its PCI address (the domain may be left out) or by the kernel's name.
pub fn find(machine: &dyn Machine, name: &str) -> Result<Nic, String> {
    let nics = list(machine);
    let full = format!("0000:{name}");
    let is = |nic: &&Nic| {
        nic.address == name || nic.address == full || nic.interfaces.iter().any(|own| own == name)
    };
    if let Some(nic) = nics.iter().find(is) {
        return Ok(nic.clone());
    }
    let there: Vec<&str> = nics.iter().map(|nic| nic.address.as_str()).collect();
    let there =
        if there.is_empty() { "there is none".into() } else { format!("there are {}", there.join(", ")) };
    Err(format!("{name}: no network card has this PCI address or name; {there}"))
}

fn nic(at: &At<'_>, address: String, routes: &BTreeSet<String>) -> Nic {
    let of = |file: &str| device(&address, file);
    let number = |file: &str| at.read(&of(file)).map(|text| text.trim_start_matches("0x").to_owned());
    let interfaces = interfaces(at, &address);
    let of_interface =
        |file: &str| interfaces.first().and_then(|name| at.read(&format!("/sys/class/net/{name}/{file}")));
    let group = at.link(&of("iommu_group"));
    let queues = interfaces.first().map(|name| {
        let queues = at.names(&format!("/sys/class/net/{name}/queues"));
        queues.iter().filter(|queue| queue.starts_with("rx-")).count()
    });
    Nic {
        id: format!("{}:{}", number("vendor").unwrap_or_default(), number("device").unwrap_or_default()),
        driver: at.link(&of("driver")),
        up: interfaces.iter().any(|name| {
            let flags = at.read(&format!("/sys/class/net/{name}/flags"));
            // IFF_UP, include/uapi/linux/if.h.
            flags
                .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok())
                .is_some_and(|f| f & 1 != 0)
        }),
        default_route: interfaces.iter().any(|name| routes.contains(name)),
        group: group.as_deref().map(|group| peers(at, group, &address)).unwrap_or_default(),
        iommu_group: group,
        numa: at.read(&of("numa_node")).and_then(|node| node.parse().ok()),
        mtu: of_interface("mtu").and_then(|mtu| mtu.parse().ok()),
        queues: queues.filter(|queues| *queues > 0),
        interfaces,
        address,
    }
}

/// The kernel's names for a device. Of virtio they stand below the bus of its own that it has there (`virtio0/net/eth0`).
fn interfaces(at: &At<'_>, address: &str) -> Vec<String> {
    let mut names = at.names(&device(address, "net"));
    for below in at.names(&device(address, "")).into_iter().filter(|name| name.starts_with("virtio")) {
        names.extend(at.names(&device(address, &format!("{below}/net"))));
    }
    names
}

/// Who else is in an IOMMU group.
fn peers(at: &At<'_>, group: &str, own: &str) -> Vec<String> {
    let all = at.names(&format!("/sys/kernel/iommu_groups/{group}/devices"));
    let counts = |address: &String| {
        address != own && !at.read(&device(address, "class")).is_some_and(|class| class.starts_with(BRIDGE))
    };
    all.into_iter().filter(counts).collect()
}

/// Interfaces by which packets leave that no other route takes (`/proc/net/route`, `/proc/net/ipv6_route`), and those below them.
fn default_routes(at: &At<'_>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in at.read("/proc/net/route").unwrap_or_default().lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", ..] = words[..]
            && words.get(7) == Some(&"00000000")
        {
            found.insert(name.to_owned());
        }
    }
    for line in at.read("/proc/net/ipv6_route").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Destination and its length; `lo` has one of these that rejects.
        if let [destination, "00", ..] = words[..]
            && destination.bytes().all(|digit| digit == b'0')
            && let Some(name) = words.last().filter(|name| **name != "lo")
        {
            found.insert((*name).to_owned());
        }
    }
    // Bonds, bridges and VLANs have links to what carries them.
    let mut todo: Vec<String> = found.iter().cloned().collect();
    while let Some(name) = todo.pop() {
        for file in at.names(&format!("/sys/class/net/{name}")) {
            let below = file.strip_prefix("lower_").map(str::to_owned);
            todo.extend(below.filter(|below| found.insert(below.clone())));
        }
    }
    found
}

fn device(address: &str, file: &str) -> String {
    format!("/sys/bus/pci/devices/{address}/{file}")
}

/// Files below a root.
struct At<'a>(&'a Path);

impl At<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn link(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}
