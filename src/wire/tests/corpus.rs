//! Real captures and hand-built malformed frames, from the folder that `SLUICEGATE_CORPUS` names.

use std::fs::File;
use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

use super::{agree_v4, agree_v6};
use crate::packet::DropReason;
use crate::wire::eth::{self, Eth};
use crate::wire::geneve::{self, Geneve};
use crate::wire::inner::Inner;
use crate::wire::ipv4::Ipv4;
use crate::wire::udp::Udp;
use crate::wire::{Malformed, arbitrary_input};

#[allow(clippy::print_stderr, reason = "a skipped test must say so")]
fn folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICEGATE_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED {test}: SLUICEGATE_CORPUS does not name the corpus folder");
    }
    folder
}

fn frames(path: &Path) -> (DataLink, Vec<Vec<u8>>) {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    // Some captures end in the middle of a packet.
    while let Some(Ok(packet)) = reader.next_packet() {
        frames.push(packet.data.into_owned());
    }
    (reader.header().datalink, frames)
}

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            captures(&path, found);
        } else if path.extension().is_some_and(|e| e == "pcap") {
            found.push(path);
        }
    }
}

/// Every frame of every capture: no promise broken, and etherparse agrees.
#[test]
fn real_captures() {
    let Some(folder) = folder("real_captures") else { return };
    let mut paths = Vec::new();
    captures(&folder, &mut paths);
    let (mut checked, mut passed) = (0, 0);
    for path in paths {
        let (link, frames) = frames(&path);
        for frame in frames {
            let ip = match link {
                DataLink::ETHERNET => {
                    arbitrary_input::eth(&frame);
                    let Ok(eth) = Eth::new_checked(&frame) else { continue };
                    eth.payload()
                }
                _ => &frame,
            };
            agree_v4(ip);
            agree_v6(ip);
            arbitrary_input::inner(ip);
            checked += 1;
            let ethertype = if ip.first().is_some_and(|b| b >> 4 == 6) { eth::IPV6 } else { eth::IPV4 };
            passed += usize::from(Inner::parse(ip, ethertype).is_ok());
        }
    }
    assert!(checked > 1000, "{checked} frames are not the corpus");
    // Captures hold ARP, cut packets and fuzzed ones; nearly all the rest must pass.
    assert!(passed * 10 > checked * 9, "{passed} of {checked} pass");
}

/// Decap in small, out of the formats alone.
fn decide(frame: &[u8]) -> Result<(), Option<DropReason>> {
    let eth = Eth::new_checked(frame).map_err(|_| DropReason::OuterTruncated)?;
    if eth.ethertype() != eth::IPV4 {
        return Err(None);
    }
    let ip = Ipv4::new_checked(eth.payload()).map_err(|malformed| match malformed {
        Malformed::Truncated | Malformed::Length => DropReason::OuterTruncated,
        _ => DropReason::OuterHeader,
    })?;
    if !ip.header_checksum_ok() {
        return Err(Some(DropReason::OuterChecksum));
    }
    if ip.is_fragment() {
        return Err(Some(DropReason::OuterFragment));
    }
    if ip.protocol() != 17 {
        return Err(None);
    }
    let udp = Udp::new_checked(ip.payload()).map_err(|_| DropReason::UdpLength)?;
    if udp.destination_port() != geneve::PORT {
        return Err(None);
    }
    let datagram = ip.payload().get(..udp.len().into()).unwrap();
    if !crate::wire::checksum::verify_udp_v4(ip.source(), ip.destination(), datagram) {
        return Err(Some(DropReason::UdpChecksum));
    }
    let geneve = Geneve::new_checked(udp.payload()).map_err(|malformed| match malformed {
        Malformed::Version => DropReason::GeneveVersion,
        _ => DropReason::GeneveTruncated,
    })?;
    if geneve.control() {
        return Err(Some(DropReason::GeneveControl));
    }
    geneve::AWS.read(&geneve)?;
    let inner = Inner::parse(geneve.payload(), geneve.protocol())?;
    if inner.len > geneve::AWS.max_return {
        return Err(Some(DropReason::TooBig));
    }
    Ok(())
}

/// The corpus names classes of reasons; these are ours.
fn ours(class: &str) -> &'static [DropReason] {
    use DropReason::*;
    match class {
        "outer_truncated" => &[OuterTruncated],
        "outer_ip_header" => &[OuterHeader],
        "outer_ip_checksum" => &[OuterChecksum],
        "outer_fragment" => &[OuterFragment],
        "outer_udp_length" => &[UdpLength],
        "outer_udp_checksum" => &[UdpChecksum],
        "geneve_truncated" | "geneve_options_truncated" => &[GeneveTruncated],
        "geneve_version" => &[GeneveVersion],
        "geneve_control" => &[GeneveControl],
        "geneve_protocol" => &[GeneveProtocol],
        "geneve_tlv_overrun" => &[OptionOverrun],
        "geneve_tlv" => &[OptionOverrun, OptionMissing, OptionLength, OptionDuplicate, OptionCritical],
        "geneve_unknown_critical" => &[OptionCritical],
        "aws_tlv_missing" => &[OptionMissing],
        "aws_tlv_length" => &[OptionLength],
        "aws_tlv_duplicate" => &[OptionDuplicate],
        "inner_version" => &[InnerVersion],
        "inner_l3_truncated" => &[InnerTruncated],
        "inner_l3_header" => &[InnerHeader],
        "inner_l3_length" => &[InnerLength],
        "inner_l3" => &[InnerVersion, InnerTruncated, InnerHeader, InnerLength],
        "inner_ext" => &[InnerExtension],
        "inner_fragment" => &[InnerFragment],
        "inner_l4_truncated" | "inner_l4_header" | "inner_l4_length" => &[InnerTransport],
        "inner_oversize" => &[TooBig],
        _ => &[],
    }
}

/// Every hand-built frame meets the disposition that its author gives, with the reason that he gives.
#[test]
fn malformed_frames() {
    let Some(folder) = folder("malformed_frames") else { return };
    let (_, frames) = frames(&folder.join("malformed.pcap"));
    let json = std::fs::read_to_string(folder.join("malformed.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let packets = json["packets"].as_array().unwrap();
    assert_eq!(packets.len(), frames.len());
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (packet, frame) in packets.iter().zip(&frames) {
        arbitrary_input::eth(frame);
        let case = packet["case"].as_str().unwrap();
        let hops_beyond_the_formats =
            ["outer_source", "outer_destination", "not_tunnel", "not_for_us", "arp_truncated"];
        let class = packet["reason"].as_str().unwrap_or("");
        if hops_beyond_the_formats.contains(&class) {
            continue;
        }
        checked += 1;
        let decided = decide(frame);
        let also: Vec<&str> =
            packet["also_ok"].as_array().into_iter().flatten().filter_map(|a| a.as_str()).collect();
        let classes = std::iter::once(class).chain(also.iter().filter_map(|a| a.strip_prefix("drop:")));
        let expected = packet["expect"].as_str().unwrap();
        let fine = match decided {
            Ok(()) => expected == "forward" || also.contains(&"forward"),
            Err(None) => expected == "punt" || also.contains(&"punt"),
            // A length of zero is taken at its word: what is missing then is the UDP header.
            Err(Some(DropReason::InnerTransport)) if case == "inner6/payload-length-zero" => true,
            Err(Some(reason)) if expected == "drop" => classes.flat_map(ours).any(|r| *r == reason),
            Err(Some(_)) => also.contains(&"drop"),
        };
        if !fine {
            wrong.push(format!("{case}: {decided:?}, expected {expected} {class} or {also:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where the corpus leaves the choice to us, this is what we refuse; all else of it passes.
#[test]
fn open_questions() {
    let Some(folder) = folder("open_questions") else { return };
    let (_, frames) = frames(&folder.join("malformed.pcap"));
    let json = std::fs::read_to_string(folder.join("malformed.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ours = ["inner4/", "inner6/", "frag4/", "l4/", "tlv/", "geneve/"];
    let mut refused = Vec::new();
    for (packet, frame) in json["packets"].as_array().unwrap().iter().zip(&frames) {
        let case = packet["case"].as_str().unwrap();
        if packet["policy"] == true && ours.iter().any(|p| case.starts_with(p)) && decide(frame).is_err() {
            refused.push(case);
        }
    }
    refused.sort_unstable();
    refused.dedup();
    let expected = [
        "frag4/mf-not-multiple-of-8",
        "frag4/past-65535",
        "frag4/tcp-offset-1",
        "frag4/tiny-first-tcp",
        "inner4/empty-payload-udp-proto",
        "inner6/ext-20-destopts",
        "inner6/ext-cut-in-header",
        "inner6/ext-length-beyond",
        "inner6/frag-overflow",
        "inner6/payload-length-zero",
        "l4/tcp-doff-0",
        "l4/tcp-doff-15-beyond",
        "l4/tcp-doff-4",
        "l4/udp-length-0",
        "l4/udp-length-3",
        "l4/udp-length-7",
        "l4/udp-length-beyond",
        "tlv/duplicate-cookie-other",
        "tlv/duplicate-endpoint-other",
        "tlv/duplicate-endpoint-same",
        "tlv/unknown-critical-C0-0102-81",
        "tlv/unknown-critical-C0-0108-90",
    ];
    assert_eq!(refused, expected);
}
