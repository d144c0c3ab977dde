//! `[[port]]`: devices, queues, descriptors, MTU and what is asked of receive-side scaling.

use std::collections::BTreeMap;

use super::check::Check;
use super::{PortPlan, QueueCount, schema};
use crate::dpdk::{PortConfig, RssConfig};

/// Queue pairs of one port: more than any driver here has.
const MOST_QUEUES: u32 = 128;
/// Entries of a redirection table: the largest that DPDK knows.
const MOST_RETA: usize = 512;
/// Toeplitz keys are 40 bytes (most devices) or 52 (Intel E810 and newer).
const KEY_BYTES: [usize; 2] = [40, 52];

/// Checks every port; `workers` is how many lcores will poll.
pub(super) fn check(check: &mut Check<'_>, ports: &[schema::Port], workers: usize) -> Vec<PortPlan> {
    if ports.is_empty() && check.options.need_ports {
        let remedy =
            "add a [[port]] with device = \"0000:00:06.0\" or device = \"net_af_packet0,iface=eth1\"";
        check.problem("", "no [[port]]: there is nothing to receive from", remedy);
    }
    let plans: Vec<PortPlan> = ports.iter().enumerate().map(|(i, p)| port(check, i, p, workers)).collect();
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (i, plan) in plans.iter().enumerate().filter(|(_, plan)| !plan.device.is_empty()) {
        let same = *first.entry(identity(&plan.device)).or_insert(i);
        if same != i {
            let what = format!("{:?} is port[{same}] already", plan.device);
            let remedy = match is_pci(&identity(&plan.device)) {
                true => "a device is one port",
                false => "number virtual devices: net_null0, net_null1",
            };
            check.problem(&format!("port[{i}].device"), what, remedy);
        }
    }
    plans
}

fn port(check: &mut Check<'_>, i: usize, port: &schema::Port, workers: usize) -> PortPlan {
    let at = |key: &str| format!("port[{i}].{key}");
    let device = match &port.device {
        None => {
            check.problem(
                &format!("port[{i}]"),
                "\"device\" is missing",
                "name a PCI address or a virtual device",
            );
            String::new()
        }
        Some(device) => {
            if let Err((what, remedy)) = device_syntax(device) {
                check.problem(&at("device"), what, remedy);
            }
            device.clone()
        }
    };
    let queues = match port.queues.0 {
        None => QueueCount::Auto,
        given => QueueCount::Exactly(check.range(&at("queues"), given, 1, 1, MOST_QUEUES) as u16),
    };
    let mtu = port.mtu.0.map(|mtu| check.range(&at("mtu"), Some(mtu), 1500, 68, 9001) as u16);
    let descriptors = |check: &mut Check<'_>, key: &str, given| {
        check.range(&at(key), given, u32::from(PortConfig::default().rx_descriptors), 32, 32768) as u16
    };
    let queue_count = match queues {
        QueueCount::Auto => workers.max(1) as u16,
        QueueCount::Exactly(n) => n,
    };
    let config = PortConfig {
        queues: queue_count,
        rx_descriptors: descriptors(check, "rx_descriptors", port.rx_descriptors),
        tx_descriptors: descriptors(check, "tx_descriptors", port.tx_descriptors),
        mtu: mtu.unwrap_or(9001),
        promiscuous: port.promiscuous,
        multicast: false,
        rss: RssConfig {
            key: port.rss_key.as_ref().and_then(|text| rss_key(check, &at("rss_key"), text)),
            reta: port.rss_reta.as_ref().map(|reta| rss_reta(check, &at("rss_reta"), reta, queue_count)),
        },
    };
    if usize::from(queue_count) < workers {
        let what = format!(
            "port[{i}].queues = {queue_count}: of {workers} workers the others never receive from it"
        );
        check.warnings.push(what);
    }
    PortPlan { device, queues, mtu, config }
}

/// What is wrong with a device's name, and what to do.
fn device_syntax(device: &str) -> Result<(), (String, &'static str)> {
    const REMEDY: &str =
        "a kernel interface is \"net_af_packet0,iface=eth1\", a PCI device is \"0000:00:06.0\"";
    let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
    let known = ["net_", "eth_", "virtio_user"].iter().any(|start| name.starts_with(start));
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !is_pci(name) && (!known || !name.bytes().all(word)) {
        return Err((format!("{device:?} is neither a PCI address nor a virtual device"), REMEDY));
    }
    if device.bytes().any(|b| b.is_ascii_control()) || device.len() > 1024 {
        return Err((
            format!("{name:?} has arguments that cannot be passed on"),
            "use up to 1024 printable characters",
        ));
    }
    let mut arguments = arguments.split(',').filter(|_| device.contains(','));
    match arguments.find(|argument| argument.is_empty() || argument.starts_with('=')) {
        Some(_) => Err((format!("{device:?} has an empty argument"), "write name,key=value,key=value")),
        None => Ok(()),
    }
}

/// `0000:00:06.0` or, without the domain, `00:06.0`.
fn is_pci(device: &str) -> bool {
    let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (address, function) = device.split_once('.').unwrap_or((device, ""));
    let function = matches!(function.as_bytes(), [b'0'..=b'7']);
    let parts: Vec<&str> = address.split(':').collect();
    function
        && match parts[..] {
            [domain, bus, slot] => hex(domain, 4) && hex(bus, 2) && hex(slot, 2),
            [bus, slot] => hex(bus, 2) && hex(slot, 2),
            _ => false,
        }
}

/// The same for two spellings of the same device.
fn identity(device: &str) -> String {
    let name = device.split(',').next().unwrap_or(device).to_ascii_lowercase();
    if is_pci(&name) && name.len() < 12 { format!("0000:{name}") } else { name }
}

/// A key in hexadecimal; colons and spaces between the bytes are allowed.
fn rss_key(check: &mut Check<'_>, place: &str, text: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| !matches!(c, ':' | ' ' | '\n')).collect();
    let values: Option<Vec<u32>> = digits.iter().map(|digit| digit.to_digit(16)).collect();
    let Some(values) = values else {
        check.problem(place, "is not hexadecimal", "write 40 or 52 bytes as hexadecimal digits");
        return None;
    };
    let bytes = values.len() / 2;
    if values.len() % 2 != 0 || !KEY_BYTES.contains(&bytes) {
        let what = format!("has {} hexadecimal digits", values.len());
        check.problem(place, what, "a key is 40 bytes (80 digits) or, for some devices, 52 (104)");
        return None;
    }
    Some(values.as_chunks::<2>().0.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

fn rss_reta(check: &mut Check<'_>, place: &str, reta: &[u32], queues: u16) -> Vec<u16> {
    if reta.is_empty() || reta.len() > MOST_RETA {
        let what = format!("has {} entries", reta.len());
        check.problem(place, what, format!("give 1 to {MOST_RETA}; they repeat to fill the device's table"));
    }
    for (i, queue) in
        reta.iter().enumerate().take(MOST_RETA).filter(|(_, queue)| **queue >= u32::from(queues))
    {
        let what = format!("queue {queue} is not there: the port has {queues}");
        check.problem(&format!("{place}[{i}]"), what, "queues count from 0");
    }
    reta.iter().map(|queue| *queue as u16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_from_other_words() {
        for good in [
            "0000:00:06.0",
            "0000:00:06.0,control_poll_interval=1000",
            "00:06.0",
            "net_null0",
            "net_af_packet0,iface=eth1,qpairs=2",
            "net_pcap0,rx_pcap=in file.pcap,infinite_rx=1",
            "virtio_user0,path=/dev/vhost-net",
        ] {
            assert!(device_syntax(good).is_ok(), "{good}");
        }
        for bad in
            ["", "eth1", "0000:00:06", "0000:00:06.8", "net_null0,", "net_null0,,a=1", "Net_null0", "net_x\0"]
        {
            assert!(device_syntax(bad).is_err(), "{bad:?}");
        }
        assert_eq!(identity("00:06.0"), identity("0000:00:06.0"));
        assert_eq!(identity("net_null0"), identity("net_null0,size=64"));
    }
}
