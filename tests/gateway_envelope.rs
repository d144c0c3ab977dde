//! What the gateway sends to its targets, as Wireshark sees it. Skipped, and says so, where tshark is not installed.
#![cfg(feature = "program")]

mod common;

use std::net::Ipv4Addr;
use std::process::Command;

use sluicegate::dpdk::soft::pcap::Writer;
use sluicegate::dpdk::{Mempool, PoolConfig};
use sluicegate::gateway::{Address, Wrapper};
use sluicegate::traffic::{Envelope, Identity};
use sluicegate::wire::geneve::AWS;

use common::skipped;

/// Frames as AWS's are in published captures: IPv4 with ID 0, no flags and TTL 255, both checksums right, three options of class 0x0108 in their
/// order with endpoint, attachment and cookie.
#[test]
fn wireshark_reads_what_is_sent() {
    const TEST: &str = "wireshark_reads_what_is_sent";
    if let Err(error) = Command::new("tshark").arg("--version").output() {
        return skipped(TEST, &format!("tshark: {error}"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("a.pcap");
    let mut writer = Writer::create(&capture).expect("a capture");
    let config = PoolConfig { name: "t".into(), buffers: 1, data_room: 9100, cache: 0, numa: None };
    let pool = Mempool::soft(&config);
    let ours = ([2, 0, 0, 0, 1, 7], Ipv4Addr::new(10, 254, 11, 107));
    let wrapper = Wrapper::new(&AWS, ours, 6081, 9001).expect("it fits");
    // Odd lengths, the shortest, the longest.
    let lengths = [28u16, 29, 60, 1399, 1400, 8499, 8500];
    for (n, &len) in (0..).zip(&lengths) {
        let packet = datagram(len);
        let mut frame = pool.alloc().expect("a buffer");
        assert!(frame.write(&[&[0; 12][..], &[8, 0], &packet].concat()));
        let to = Address {
            mac: [2, 0, 0, 0, 1, 2],
            target: Ipv4Addr::new(10, 254, 11, 102),
            source_port: 60_000 + n,
            endpoint: 0x0123_4567_89ab_cdef,
            cookie: 0xdead_bee0 + u32::from(n),
            reply: n % 2 == 1,
            ipv6: false,
        };
        wrapper.wrap(&mut frame, 14, len, &to).expect("it fits");
        let identity = Identity { port: to.source_port, cookie: to.cookie };
        let other = Envelope::default().wrap_as(&packet, identity).expect("the same by another encoder");
        assert_eq!(frame.data(), other);
        writer.write(u64::from(n), frame.data()).expect("written");
    }
    writer.finish().expect("written");
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&capture).args(["-d", "udp.port==6081,geneve"]);
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
    for field in [
        "ip.ttl",
        "ip.id",
        "ip.flags",
        "ip.dsfield",
        "ip.checksum.status",
        "udp.srcport",
        "udp.checksum.status",
        "geneve.vni",
        "geneve.option.class",
        "geneve.option.type",
        "geneve.option.unknown.data",
    ] {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    // The outer header's values come first; only those of a datagram's own header follow.
    let expected: Vec<String> = (0..lengths.len())
        .map(|n| {
            format!(
                "255,64|0x0000,0x0000|0x00,0x00|0x00,0x00|1,1|6000{n},1000|1,3|0x000000|0x0108,0x0108,0x0108|0x01,0x02,0x03|\
                 0123456789abcdef,0000000000000000,deadbee{n}"
            )
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// An IPv4 datagram of this length without a UDP checksum.
fn datagram(len: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum: u32 = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend(1000u16.to_be_bytes());
    packet.extend(9u16.to_be_bytes()); // discard
    packet.extend((len - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend((28..len).map(|n| n as u8));
    packet
}
