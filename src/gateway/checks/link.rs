//! Frames around the packets of checks: what smoltcp sends gets the MAC address that our own ARP found.
//!
//! smoltcp speaks IP only here. Its own ARP asks once a second for all neighbours together, keeps a fixed number of them, and learns from whoever
//! speaks; with hundreds of targets, some of them dead, that would hold up the living.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::phy::{self, TxToken};

use super::arp::{Arp, Mac};
use super::stamp;
use crate::mgmt::Device;
use crate::wire::eth::{self, Eth};
use crate::wire::ipv4::Ipv4;

/// Frames that wait for the device.
const WAITING: usize = 512;

/// What a frame brought.
#[derive(Clone, Copy, Debug)]
pub(super) enum Brought {
    /// An ARP packet, in a frame to this address.
    Arp(Arp, Mac),
    /// A packet to us, which lies ready for smoltcp, from this host.
    Packet(Heard),
}

/// Who sent a packet, and what TCP or ICMP says of whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub source: Ipv4Addr,
    pub mac: Mac,
    /// Our port, if it is TCP.
    pub port: Option<u16>,
    /// The host and our port of a TCP packet that was unreachable, and the code.
    pub unreachable: Option<(Ipv4Addr, u16, u8)>,
}

#[derive(Debug)]
pub(super) struct Link {
    mac: Mac,
    own: Ipv4Addr,
    /// Where smoltcp finds and leaves packets.
    pub packets: Device,
    frames: VecDeque<Vec<u8>>,
    /// Packets for which there was no address, or no room.
    pub lost: u64,
}

impl Link {
    pub fn new(mac: Mac, own: Ipv4Addr, mtu: u16) -> Self {
        Link { mac, own, packets: Device::of_packets(mtu), frames: VecDeque::new(), lost: 0 }
    }

    /// Reads a frame. `None` if it is not for us.
    pub fn take(&mut self, frame: &[u8]) -> Option<Brought> {
        let eth = Eth::new_checked(frame).ok().filter(|eth| eth.vlan().is_none())?;
        let to = eth.destination();
        match eth.ethertype() {
            eth::ARP if to == self.mac || to == super::arp::BROADCAST => {
                Some(Brought::Arp(Arp::parse(eth.payload())?, to))
            }
            eth::IPV4 if to == self.mac => {
                let ip = Ipv4::new_checked(eth.payload()).ok()?;
                let is_ours = ip.destination() == self.own && ip.source() != self.own;
                if !is_ours || ip.is_fragment() {
                    return None;
                }
                let port = (ip.protocol() == 6).then(|| destination_port(ip.payload())).flatten();
                let unreachable = (ip.protocol() == 1).then(|| unreachable(ip.payload(), self.own)).flatten();
                let packet = eth.payload().get(..usize::from(ip.total_len()))?;
                self.packets.put(&mut packet.to_vec());
                Some(Brought::Packet(Heard { source: ip.source(), mac: eth.source(), port, unreachable }))
            }
            _ => None,
        }
    }

    /// Makes frames of what smoltcp has sent.
    pub fn wrap(&mut self, mac_of: impl Fn(Ipv4Addr) -> Option<Mac>) {
        let Link { mac, packets, frames, lost, .. } = self;
        packets.drain(|packet| {
            let to = Ipv4::new_checked(packet).ok().and_then(|ip| mac_of(ip.destination()));
            let Some(to) = to.filter(|_| frames.len() < WAITING) else {
                *lost += 1;
                return;
            };
            frames.push_back([&to, &*mac, &eth::IPV4.to_be_bytes()[..], packet].concat());
        });
    }

    /// A frame that is one already.
    pub fn push(&mut self, frame: Vec<u8>) {
        match self.frames.len() < WAITING {
            true => self.frames.push_back(frame),
            false => self.lost += 1,
        }
    }

    /// Gives the device as many frames as it takes. True if some are left.
    pub fn flush<D: phy::Device + ?Sized>(&mut self, now: Duration, device: &mut D) -> bool {
        while !self.frames.is_empty() {
            let Some(token) = device.transmit(stamp(now)) else { return true };
            let Some(frame) = self.frames.pop_front() else { break };
            token.consume(frame.len(), |place| place.copy_from_slice(&frame));
        }
        false
    }
}

fn destination_port(tcp: &[u8]) -> Option<u16> {
    let [_, _, a, b] = tcp.first_chunk::<4>()?;
    Some(u16::from_be_bytes([*a, *b]))
}

/// Reads ICMP "destination unreachable": to whom the packet was that it quotes, from which TCP port of ours, and why.
fn unreachable(icmp: &[u8], own: Ipv4Addr) -> Option<(Ipv4Addr, u16, u8)> {
    let ([kind, code, ..], quoted) = icmp.split_first_chunk::<8>()?;
    let ip = Ipv4::new_quoted(quoted).ok()?;
    let [a, b, _, _] = ip.payload().first_chunk::<4>()?;
    let is_tcp_of_ours = *kind == 3 && ip.source() == own && ip.protocol() == 6;
    is_tcp_of_ours.then_some((ip.destination(), u16::from_be_bytes([*a, *b]), *code))
}
