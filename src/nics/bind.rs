//! How a card changes hands: what stands in the way, the four writes that do it, and who may use it then.

use serde::Serialize;

use super::{At, Machine, NOIOMMU, Nic, USER_DRIVERS, device, find, peers};

/// A card that has changed hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Its PCI address.
    pub address: String,
    /// Whose it was.
    pub from: Option<String>,
    /// Whose it is.
    pub to: Option<String>,
    /// Who may use it, and what that takes, in one line.
    pub needs: String,
}

/// Why nothing was changed: each reason with what to do, in one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(pub Vec<String>);

/// Gives a card to user space by this driver. `force`: even if the default route leads through it, or it is up and has an address of its own.
/// `no_iommu`: vfio's unsafe mode is switched on where there is no IOMMU.
pub fn bind(
    machine: &dyn Machine,
    name: &str,
    driver: &str,
    force: bool,
    no_iommu: bool,
) -> Result<Bound, Refused> {
    let one = |text: String| Refused(vec![text]);
    if !USER_DRIVERS.contains(&driver) {
        return Err(one(format!("{driver}: not a driver for user space; use {}", USER_DRIVERS.join(", "))));
    }
    let nic = find(machine, name).map_err(one)?;
    if nic.driver.as_deref() == Some(driver) {
        return Ok(Bound {
            address: nic.address.clone(),
            from: nic.driver.clone(),
            to: nic.driver.clone(),
            needs: needs(machine, &nic, driver),
        });
    }
    let at = At(machine.root());
    if !at.exists(&format!("/sys/bus/pci/drivers/{driver}")) {
        let module = if driver == "igb_uio" { &["uio", "igb_uio"][..] } else { &[driver] };
        for module in module {
            machine.load(module).map_err(|why| {
                one(format!("{driver} is not in this kernel: {why}; {}", how_to_get(driver)))
            })?;
        }
    }
    let obstacles = obstacles(machine, &nic, driver, force, no_iommu);
    if !obstacles.is_empty() {
        return Err(Refused(obstacles));
    }
    if no_iommu && driver == "vfio-pci" && nic.iommu_group.is_none() && !noiommu_is_on(&at) {
        write(machine, NOIOMMU, "1").map_err(one)?;
    }
    match hand_over(machine, &nic, driver) {
        Ok(()) => Ok(Bound {
            from: nic.driver.clone(),
            to: Some(driver.to_owned()),
            needs: needs(machine, &nic, driver),
            address: nic.address,
        }),
        Err(why) => {
            // Back to whose it was, as far as that goes: a card that nobody has is the worst of all.
            let back = give_back(machine, &nic.address)
                .err()
                .map(|e| format!("; and it could not be given back: {e}"));
            Err(one(format!("{}: {why}{}", nic.address, back.unwrap_or_else(|| "; it is as it was".into()))))
        }
    }
}

/// Gives a card back to the kernel's own driver.
pub fn unbind(machine: &dyn Machine, name: &str) -> Result<Bound, Refused> {
    let one = |text: String| Refused(vec![text]);
    let nic = find(machine, name).map_err(one)?;
    if nic.driver.as_deref().is_some_and(|driver| !USER_DRIVERS.contains(&driver)) {
        let to = nic.driver.clone();
        return Ok(Bound { address: nic.address, from: to.clone(), to, needs: "it is the kernel's".into() });
    }
    let to = give_back(machine, &nic.address).map_err(|why| one(format!("{}: {why}", nic.address)))?;
    Ok(Bound { address: nic.address, from: nic.driver, to: Some(to), needs: "it is the kernel's".into() })
}

/// What stands in the way of a driver, one line each with its remedy. Empty: nothing.
fn obstacles(machine: &dyn Machine, nic: &Nic, driver: &str, force: bool, no_iommu: bool) -> Vec<String> {
    let (at, address) = (At(machine.root()), &nic.address);
    let mut found = Vec::new();
    if nic.is_shared() {
        found.push(format!(
            "{address}: DPDK shares a Mellanox card with the kernel; leave it there and name it as a port's device"
        ));
    }
    if nic.default_route && !force {
        found.push(format!(
            "{address} ({}) carries the default route, which ends with it, and maybe your session; take another card, move the route, or --force",
            nic.interfaces.join(", ")
        ));
    }
    if driver == "vfio-pci" {
        match &nic.iommu_group {
            Some(group) => {
                let foreign = |peer: &String| {
                    let owner = at.link(&device(peer, "driver"));
                    owner.filter(|owner| owner != "vfio-pci" && owner != "pci-stub").map(|owner| format!("{peer} ({owner})"))
                };
                let others: Vec<String> = peers(&at, group, address).iter().filter_map(foreign).collect();
                if !others.is_empty() {
                    found.push(format!(
                        "{address}: IOMMU group {group} also has {}, and vfio takes whole groups; bind or unbind these first",
                        others.join(", ")
                    ));
                }
            }
            None if !at.exists(NOIOMMU) => found.push(format!(
                "{address} is behind no IOMMU, and this kernel's vfio has no mode without (CONFIG_VFIO_NOIOMMU; Debian's have none): boot with intel_iommu=on or \
                 amd_iommu=on, take a kernel that has it (Amazon Linux, Ubuntu), or --driver igb_uio, or --driver uio_pci_generic"
            )),
            None if !no_iommu && !noiommu_is_on(&at) => found.push(format!(
                "{address} is behind no IOMMU: boot with intel_iommu=on or amd_iommu=on; in a virtual machine that has none use --no-iommu, which lets the device write to all memory"
            )),
            None => {}
        }
    }
    found
}

fn noiommu_is_on(at: &At<'_>) -> bool {
    at.read(NOIOMMU).is_some_and(|is| is == "Y" || is == "1")
}

/// driver_override, unbind, drivers_probe; and the driver has it.
fn hand_over(machine: &dyn Machine, nic: &Nic, driver: &str) -> Result<(), String> {
    let at = At(machine.root());
    let address = &nic.address;
    write(machine, &device(address, "driver_override"), driver)?;
    if nic.driver.is_some() {
        write(machine, &device(address, "driver/unbind"), address)?;
    }
    write(machine, "/sys/bus/pci/drivers_probe", address)?;
    match at.link(&device(address, "driver")) {
        Some(owner) if owner == driver => Ok(()),
        Some(owner) => Err(format!("{owner} took it instead of {driver}")),
        None => Err(format!("{driver} did not take it; dmesg says why")),
    }
}

/// No override, unbind, drivers_probe: the kernel's own driver has it again, and is named.
fn give_back(machine: &dyn Machine, address: &str) -> Result<String, String> {
    let at = At(machine.root());
    // A newline is no override (sysfs-bus-pci).
    write(machine, &device(address, "driver_override"), "\n")?;
    if at.link(&device(address, "driver")).is_some() {
        write(machine, &device(address, "driver/unbind"), address)?;
    }
    write(machine, "/sys/bus/pci/drivers_probe", address)?;
    at.link(&device(address, "driver"))
        .ok_or_else(|| "no driver of the kernel takes it; is its module loaded?".to_owned())
}

fn write(machine: &dyn Machine, path: &str, text: &str) -> Result<(), String> {
    machine.write(path, text).map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => format!("{path}: {e}; this takes root"),
        _ => format!("{path}: {e}"),
    })
}

fn how_to_get(driver: &str) -> &'static str {
    match driver {
        "igb_uio" => "build it from the package dpdk-kmods-dkms",
        "uio_pci_generic" => "install the kernel's extra modules (linux-modules-extra on Ubuntu)",
        _ => "take a kernel with CONFIG_VFIO_PCI",
    }
}

/// Who may use a card of this driver, and what it takes.
fn needs(machine: &dyn Machine, nic: &Nic, driver: &str) -> String {
    let at = At(machine.root());
    match (driver, &nic.iommu_group) {
        ("vfio-pci", Some(group)) if !noiommu_is_on(&at) => format!(
            "any user who may open /dev/vfio/{group} and lock memory (LimitMEMLOCK=infinity); no capability"
        ),
        ("vfio-pci", _) => {
            "root, or CAP_SYS_RAWIO, CAP_SYS_ADMIN and CAP_IPC_LOCK at the start; hugepages: addresses are physical".into()
        }
        _ => "root at the start (/dev/uio*, /proc/self/pagemap); hugepages: addresses are physical".into(),
    }
}
