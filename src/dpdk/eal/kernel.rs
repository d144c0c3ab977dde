//! How large a frame a `net_af_packet` device takes.
//!
//! The driver says 1500 bytes whatever it is given (`eth_dev_info` in rte_eth_af_packet.c has a constant), and DPDK refuses to be told of more. What holds in
//! truth is the interface's MTU, and what a place of the ring has room for. So a larger MTU is not DPDK's to know, and the interface keeps its own.

use std::path::Path;

/// Names of such devices.
const DRIVER: &str = "net_af_packet";
/// A place in the ring, unless `framesz` says otherwise.
const PLACE: u32 = 2048;
/// In front of a frame in it (`tpacket_rcv`: TPACKET2_HDRLEN and a link header, aligned), with the frame's own link header and a tag.
const HEADERS: u32 = 66 + 14 + 4;

/// Largest MTU of such a device; none for others, and for an interface that is not there.
pub(super) fn largest_mtu(device: &str) -> Option<u16> {
    of(device, |interface| {
        let path = Path::new("/sys/class/net").join(interface).join("mtu");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

fn of(device: &str, mtu: impl Fn(&str) -> Option<u32>) -> Option<u16> {
    let (name, arguments) = device.split_once(',')?;
    if !name.starts_with(DRIVER) {
        return None;
    }
    let value =
        |key: &str| arguments.split(',').find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='));
    let place = value("framesz").map_or(Some(PLACE), |text| text.parse().ok())?;
    let room = place.saturating_sub(HEADERS);
    u16::try_from(mtu(value("iface")?)?.min(room)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_ring_and_interface_holds() {
        let with = |device: &str, mtu: u32| of(device, |interface| (interface == "x").then_some(mtu));
        assert_eq!(with("net_af_packet0,iface=x", 9001), Some(1964));
        assert_eq!(with("net_af_packet0,iface=x", 1500), Some(1500));
        assert_eq!(with("net_af_packet1,framesz=9216,blocksz=36864,iface=x", 9001), Some(9001));
        assert_eq!(with("net_af_packet1,iface=x,framesz=9216", 65_535), Some(9132));
        for none in [
            "net_af_packet0,iface=y",
            "net_af_packet0",
            "net_af_packet0,framesz=x,iface=x",
            "net_tap0,iface=x",
            "",
        ] {
            assert_eq!(with(none, 9001), None, "{none}");
        }
    }
}
