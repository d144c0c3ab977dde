//! Network cards of machines that are made of files and do what a kernel does.

use std::io;
use std::path::Path;

use sluicegate::nics::{Machine, bind, find, list, unbind};

const ENA: &str = "0000:00:06.0";
const MAIN: &str = "0000:00:05.0";
const DISK: &str = "0000:00:04.0";
const NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// A machine of files. Drivers take what sysfs tells them to take.
struct Fake {
    root: tempfile::TempDir,
    /// Modules that can be loaded.
    modules: Vec<&'static str>,
    /// A driver that takes nothing.
    lame: Option<&'static str>,
    /// Writes are refused.
    guest: bool,
}

impl Machine for Fake {
    fn root(&self) -> &Path {
        self.root.path()
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        if self.guest {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let at = self.root();
        match path.trim_start_matches("/sys/bus/pci/").split('/').collect::<Vec<_>>()[..] {
            ["devices", address, "driver_override"] => self.put(&override_of(address), text.trim()),
            ["devices", address, "driver", "unbind"] => {
                assert_eq!(text, address);
                std::fs::remove_file(at.join(format!("sys/bus/pci/devices/{address}/driver")))?;
            }
            ["drivers_probe"] => {
                let address = text;
                let wish = std::fs::read_to_string(at.join(override_of(address))).unwrap_or_default();
                let own = std::fs::read_to_string(at.join(format!("own/{address}"))).unwrap_or_default();
                let driver = if wish.is_empty() { own } else { wish };
                let is_there = at.join(format!("sys/bus/pci/drivers/{driver}")).exists();
                let link = format!("sys/bus/pci/devices/{address}/driver");
                if is_there && self.lame != Some(driver.as_str()) && !at.join(&link).exists() {
                    self.link(&link, &format!("../../drivers/{driver}"));
                }
            }
            _ => self.put(path.trim_start_matches('/'), text),
        }
        Ok(())
    }

    fn load(&self, module: &str) -> Result<(), String> {
        if !self.modules.contains(&module) {
            return Err(format!("modprobe: FATAL: Module {module} not found"));
        }
        self.put(&format!("sys/bus/pci/drivers/{module}/module"), "");
        Ok(())
    }
}

fn override_of(address: &str) -> String {
    format!("sys/bus/pci/devices/{address}/driver_override")
}

impl Fake {
    /// Two cards, each in an IOMMU group of its own; packets leave by the first, under a VLAN.
    fn new() -> Fake {
        let root = tempfile::tempdir().unwrap();
        let fake = Fake {
            root,
            modules: vec!["vfio-pci", "uio", "igb_uio", "uio_pci_generic"],
            lame: None,
            guest: false,
        };
        fake.card(MAIN, "ens5", "5");
        fake.card(ENA, "ens6", "6");
        fake.put(&format!("sys/bus/pci/devices/{DISK}/class"), "0x010802");
        fake.put("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\nens5.7\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\nens6\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
        fake.put("sys/class/net/ens5.7/lower_ens5", "");
        fake
    }

    fn card(&self, address: &str, name: &str, group: &str) {
        let of = |file: &str| format!("sys/bus/pci/devices/{address}/{file}");
        for (file, text) in
            [("class", "0x020000"), ("vendor", "0x1d0f"), ("device", "0xec20"), ("numa_node", "0")]
        {
            self.put(&of(file), text);
        }
        self.put(&of(&format!("net/{name}/mtu")), "9001");
        for (file, text) in [
            ("mtu", "9001"),
            ("flags", "0x1003"),
            ("queues/rx-0/x", ""),
            ("queues/rx-1/x", ""),
            ("queues/tx-0/x", ""),
        ] {
            self.put(&format!("sys/class/net/{name}/{file}"), text);
        }
        self.put("sys/bus/pci/drivers/ena/module", "");
        self.put(&format!("own/{address}"), "ena");
        self.link(&of("driver"), "../../drivers/ena");
        self.link(&of("iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"));
        self.put(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), "");
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.root().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(&self, file: &str, to: &str) {
        let path = self.root().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(to, path).unwrap();
    }

    fn without_iommu(&self) {
        for address in [MAIN, ENA] {
            std::fs::remove_file(self.root().join(format!("sys/bus/pci/devices/{address}/iommu_group")))
                .unwrap();
        }
    }

    fn driver(&self, address: &str) -> Option<String> {
        find(self, address).unwrap().driver
    }
}

#[test]
fn cards_are_listed_with_what_matters() {
    let fake = Fake::new();
    let nics = list(&fake);
    let [main, ena] = &nics[..] else { panic!("{nics:?}") };
    assert_eq!((main.address.as_str(), ena.address.as_str()), (MAIN, ENA), "the disk is none");
    assert!(main.default_route && !ena.default_route, "the VLAN's card carries it");
    assert_eq!((ena.id.as_str(), ena.driver.as_deref(), ena.numa), ("1d0f:ec20", Some("ena"), Some(0)));
    assert_eq!((ena.mtu, ena.queues, ena.up), (Some(9001), Some(2), true));
    assert_eq!((ena.iommu_group.as_deref(), &ena.interfaces[..]), (Some("6"), &["ens6".to_owned()][..]));
    assert_eq!(find(&fake, "00:06.0").unwrap(), *ena);
    assert_eq!(find(&fake, "ens6").unwrap(), *ena);
    let nothing = find(&fake, "ens9").unwrap_err();
    assert!(nothing.contains(MAIN) && nothing.contains(ENA), "{nothing}");
}

#[test]
fn a_card_goes_to_vfio_and_comes_back() {
    let fake = Fake::new();
    let bound = bind(&fake, "ens6", "vfio-pci", false, false).unwrap();
    assert_eq!((bound.from.as_deref(), bound.to.as_deref()), (Some("ena"), Some("vfio-pci")));
    assert!(bound.needs.contains("/dev/vfio/6") && bound.needs.contains("no capability"), "{}", bound.needs);
    assert_eq!(fake.driver(ENA).as_deref(), Some("vfio-pci"));
    assert_eq!(
        bind(&fake, ENA, "vfio-pci", false, false).unwrap().from.as_deref(),
        Some("vfio-pci"),
        "again"
    );
    let back = unbind(&fake, ENA).unwrap();
    assert_eq!((back.from.as_deref(), back.to.as_deref()), (Some("vfio-pci"), Some("ena")));
    assert_eq!(unbind(&fake, ENA).unwrap().to.as_deref(), Some("ena"), "again");
}

#[test]
fn the_card_of_the_default_route_is_left_alone() {
    let fake = Fake::new();
    let refused = bind(&fake, "ens5", "vfio-pci", false, false).unwrap_err();
    assert!(refused.0.len() == 1 && refused.0[0].contains("default route"), "{refused}");
    assert_eq!(fake.driver(MAIN).as_deref(), Some("ena"));
    bind(&fake, "ens5", "vfio-pci", true, false).unwrap();
    // A virtio card's names stand one bus below.
    let fake = Fake::new();
    let at = |file: &str| format!("sys/bus/pci/devices/{MAIN}/{file}");
    std::fs::remove_dir_all(fake.root().join(at("net"))).unwrap();
    fake.put(&at("virtio1/net/ens5/mtu"), "1500");
    let refused = bind(&fake, MAIN, "vfio-pci", false, false).unwrap_err();
    assert!(refused.to_string().contains("default route"), "{refused}");
    // Over IPv6 alone, too.
    let fake = Fake::new();
    fake.put("proc/net/route", "Iface\tDestination\n");
    let zeros = "0".repeat(32);
    fake.put(
        "proc/net/ipv6_route",
        &format!("{zeros} 00 {zeros} 00 fe80000000000000000000000000fffe 00000400 1 0 00450003 ens6\n{zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo\n"),
    );
    let defaults: Vec<bool> = list(&fake).iter().map(|nic| nic.default_route).collect();
    assert_eq!(defaults, [false, true]);
}

#[test]
fn what_is_missing_is_said_in_one_line_each() {
    let says = |fake: &Fake, driver: &str, no_iommu: bool| {
        let refused = bind(fake, ENA, driver, false, no_iommu).unwrap_err();
        assert!(refused.0.iter().all(|line| !line.contains('\n')), "{refused}");
        assert_eq!(fake.driver(ENA).as_deref(), Some("ena"), "{refused}");
        refused.to_string()
    };
    // A module that is not there.
    let mut fake = Fake::new();
    fake.modules = vec![];
    assert!(says(&fake, "vfio-pci", false).contains("CONFIG_VFIO_PCI"));
    assert!(says(&fake, "igb_uio", false).contains("dpdk-kmods-dkms"));
    assert!(says(&fake, "ixgbe", false).contains("vfio-pci, igb_uio, uio_pci_generic"));
    // No IOMMU, and a kernel that cannot do without.
    let fake = Fake::new();
    fake.without_iommu();
    assert!(says(&fake, "vfio-pci", true).contains("CONFIG_VFIO_NOIOMMU"));
    // One that can: only if told to.
    fake.put(NOIOMMU, "N");
    assert!(says(&fake, "vfio-pci", false).contains("--no-iommu"));
    let bound = bind(&fake, ENA, "vfio-pci", false, true).unwrap();
    assert!(bound.needs.contains("CAP_SYS_RAWIO"), "{}", bound.needs);
    assert_eq!(std::fs::read_to_string(fake.root().join(NOIOMMU)).unwrap(), "1");
    // Others in the group; bridges do not count, nor what vfio has.
    let fake = Fake::new();
    for (address, class) in [(DISK, "0x010802"), ("0000:00:01.0", "0x060400")] {
        fake.put(&format!("sys/kernel/iommu_groups/6/devices/{address}"), "");
        fake.put(&format!("sys/bus/pci/devices/{address}/class"), class);
        fake.link(&format!("sys/bus/pci/devices/{address}/driver"), "../../drivers/other");
    }
    let text = says(&fake, "vfio-pci", false);
    assert!(text.contains("0000:00:04.0 (other)") && !text.contains("00:01.0"), "{text}");
    fake.link(&format!("sys/bus/pci/devices/{DISK}/driver"), "../../drivers/vfio-pci");
    bind(&fake, ENA, "vfio-pci", false, false).unwrap();
    // Not root.
    let mut fake = Fake::new();
    fake.load("vfio-pci").unwrap();
    fake.guest = true;
    assert!(says(&fake, "vfio-pci", false).contains("root"));
}

#[test]
fn a_card_that_a_driver_does_not_take_is_given_back() {
    let mut fake = Fake::new();
    fake.lame = Some("vfio-pci");
    let refused = bind(&fake, ENA, "vfio-pci", false, false).unwrap_err();
    assert!(refused.to_string().contains("dmesg") && refused.to_string().contains("as it was"), "{refused}");
    assert_eq!(fake.driver(ENA).as_deref(), Some("ena"));
    let wish = std::fs::read_to_string(fake.root().join(override_of(ENA))).unwrap();
    assert_eq!(wish, "", "no override is left");
}
