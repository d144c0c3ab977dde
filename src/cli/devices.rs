//! `sluicegate devices`, `bind` and `unbind`: network cards, between the kernel and DPDK.

use std::process::Command;

use clap::Args;
use serde_json::json;

use super::{FAILED, Failure, OK, Outcome, show};
use crate::nics::{self, Bound, Here, Nic, Refused, USER_DRIVERS};

/// List network cards.
#[derive(Debug, Args)]
pub struct Devices {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Give network cards to DPDK.
#[derive(Debug, Args)]
pub struct Bind {
    /// PCI addresses (0000:00:06.0, 00:06.0) or names of interfaces (ens6)
    #[arg(required = true)]
    device: Vec<String>,
    /// vfio-pci, igb_uio or uio_pci_generic
    #[arg(long, default_value = USER_DRIVERS[0])]
    driver: String,
    /// Even the card that carries the default route
    #[arg(long)]
    force: bool,
    /// Where there is no IOMMU: let the device write to all memory (vfio's unsafe mode)
    #[arg(long)]
    no_iommu: bool,
    /// After the next start of the machine as well (by driverctl)
    #[arg(long)]
    persistent: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Give network cards back to the kernel.
#[derive(Debug, Args)]
pub struct Unbind {
    /// PCI addresses
    #[arg(required = true)]
    device: Vec<String>,
    /// After the next start of the machine as well (by driverctl)
    #[arg(long)]
    persistent: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub(super) fn run(self) -> Outcome {
        let nics = nics::list(&Here);
        if self.json {
            return show::print(format_args!("{}\n", json!({ "version": 1, "devices": nics }))).map(|()| OK);
        }
        if nics.is_empty() {
            return show::print(
                "no network card on a PCI bus; pipelines can use a vdev such as net_af_packet0,iface=eth1\n",
            )
            .map(|()| OK);
        }
        let mut table = show::table(&[
            "device",
            "id",
            "driver",
            "interface",
            "IOMMU group",
            "NUMA node",
            "MTU",
            "RSS queues",
            "remarks",
        ]);
        for nic in &nics {
            let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
            table.add_row([
                nic.address.clone(),
                nic.id.clone(),
                nic.driver.clone().unwrap_or_else(|| "none".into()),
                if nic.interfaces.is_empty() { "-".into() } else { nic.interfaces.join(", ") },
                nic.iommu_group.clone().unwrap_or_else(|| "none".into()),
                number(nic.numa.map(u64::from)),
                number(nic.mtu.map(u64::from)),
                number(nic.queues.map(|n| n as u64)),
                remarks(nic).join("; "),
            ]);
        }
        show::print(format_args!("{table}\n")).map(|()| OK)
    }
}

/// What whoever chooses a card wants to know.
fn remarks(nic: &Nic) -> Vec<String> {
    let mut said = Vec::new();
    if nic.default_route {
        said.push("default route: not bound without --force".into());
    } else if nic.up {
        said.push("up".into());
    }
    if nic.is_shared() {
        said.push("DPDK shares it with the kernel: do not bind".into());
    }
    if nic.driver.as_deref().is_some_and(|driver| USER_DRIVERS.contains(&driver)) {
        said.push("DPDK's; doctor says more".into());
    }
    if !nic.group.is_empty() {
        said.push(format!("shares its IOMMU group with {}", nic.group.join(", ")));
    }
    said
}

impl Bind {
    pub(super) fn run(self) -> Outcome {
        if self.persistent {
            driverctl(&["--version"])?;
        }
        let bind = |name: &String| nics::bind(&Here, name, &self.driver, self.force, self.no_iommu);
        let done = all(&self.device, self.json, bind)?;
        if self.persistent {
            for bound in &done {
                driverctl(&["set-override", &bound.address, &self.driver])?;
            }
        }
        Ok(if done.len() == self.device.len() { OK } else { FAILED })
    }
}

impl Unbind {
    pub(super) fn run(self) -> Outcome {
        if self.persistent {
            driverctl(&["--version"])?;
        }
        let done = all(&self.device, self.json, |name| nics::unbind(&Here, name))?;
        if self.persistent {
            for bound in &done {
                driverctl(&["unset-override", &bound.address])?;
            }
        }
        Ok(if done.len() == self.device.len() { OK } else { FAILED })
    }
}

/// Each of them, whatever became of the others; those that changed hands, or had them already.
fn all(
    names: &[String],
    json: bool,
    work: impl Fn(&String) -> Result<Bound, Refused>,
) -> Result<Vec<Bound>, Failure> {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        match work(name) {
            Ok(bound) => {
                if !json {
                    let is = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "nobody".into());
                    let (from, to) = (is(&bound.from), is(&bound.to));
                    show::print(format_args!("{}: {from} -> {to}; {}\n", bound.address, bound.needs))?;
                }
                done.push(bound);
            }
            Err(Refused(why)) => {
                if !json {
                    why.iter().for_each(show::error);
                }
                refused.push(json!({ "device": name, "why": why }));
            }
        }
    }
    if json {
        let answer = json!({ "version": 1, "ok": refused.is_empty(), "bound": done, "refused": refused });
        show::print(format_args!("{answer}\n"))?;
    }
    Ok(done)
}

fn driverctl(args: &[&str]) -> Result<(), Failure> {
    let output = Command::new("driverctl").args(args).output().map_err(|e| {
        Failure::Other(format!("driverctl: {e}; install it (package driverctl), or leave out --persistent"))
    })?;
    if output.status.success() || args == ["--version"] {
        return Ok(()); // older ones know no --version, and are there
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Other(format!("driverctl {}: {}", args.join(" "), said.trim())))
}
