//! Who talks to whom: the facts of each flow, all from the mix's seed and the flow's number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::envelope::{flow_hash, mix64, outer_port};
use super::{MAX_FLOWS, Mix};

/// TCP services that a firewall is expected to deny: telnet and SMB.
pub const DENIED_TCP: [u16; 2] = [23, 445];
/// UDP services that a firewall is expected to deny: TFTP and SSDP.
pub const DENIED_UDP: [u16; 2] = [69, 1900];

const ALLOWED_TCP: [u16; 4] = [443, 80, 22, 8443];
const ALLOWED_UDP: [u16; 4] = [443, 4433, 123, 5060];

/// One flow, seen from the client that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its number in the mix.
    pub number: u32,
    /// 6 or 17.
    pub protocol: u8,
    /// Who opens it.
    pub client: IpAddr,
    /// Who is called.
    pub server: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The service.
    pub server_port: u16,
    /// The endpoint it comes through.
    pub endpoint: u64,
    /// The node that sends it.
    pub node: Ipv4Addr,
    /// Outer UDP source port.
    pub outer_port: u16,
    /// The service is one of [`DENIED_TCP`] and [`DENIED_UDP`]; nobody answers, so the client's frames are all there is.
    pub denied: bool,
}

impl Flow {
    pub(super) fn new(mix: &Mix, number: u32) -> Self {
        let endpoints = u32::from(mix.endpoints.max(1));
        // The same addresses and ports at every endpoint.
        let pair = number / endpoints;
        let dice = mix64(mix.seed ^ mix64(u64::from(pair)));
        let roll = |shift: u32, percent: u8| (dice >> shift & 0xffff) * 100 < u64::from(percent) << 16;
        let (tcp, v6, denied) =
            (roll(0, mix.tcp_percent), roll(16, mix.ipv6_percent), roll(32, mix.denied_percent));
        let pick =
            |ports: &[u16]| ports.get(dice as usize >> 50 & 3).or(ports.first()).copied().unwrap_or(443);
        let server_port = match (tcp, denied) {
            (true, false) => pick(&ALLOWED_TCP),
            (false, false) => pick(&ALLOWED_UDP),
            (true, true) => DENIED_TCP[dice as usize >> 50 & 1],
            (false, true) => DENIED_UDP[dice as usize >> 50 & 1],
        };
        // Four ports at every client, far apart: no two pairs share address and port.
        let client_port = (1024 + (pair & 3) * 16_000 + pair % 16_000 * 7919 % 16_000) as u16;
        let host = 1 + (pair >> 2);
        let service = pair.wrapping_mul(40_503) & 0xffff;
        let (client, server) = if v6 {
            let at =
                |net: u16, id: u32| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, (id >> 16) as u16, id as u16);
            (IpAddr::V6(at(0xa, host)), IpAddr::V6(at(0xb, service)))
        } else {
            let at = |net: u32, id: u32| Ipv4Addr::from_bits(net + id);
            (IpAddr::V4(at(0x0a00_0000, host)), IpAddr::V4(at(0xac10_0000, service)))
        };
        let protocol = if tcp { 6 } else { 17 };
        let endpoint = mix.envelope.endpoint.wrapping_add(u64::from(number % endpoints));
        let ends = [(bits(client), client_port), (bits(server), server_port)];
        let hash = flow_hash(mix.seed ^ endpoint, protocol, ends);
        let node =
            mix.envelope.node.to_bits().wrapping_add((hash >> 40) as u32 % u32::from(mix.nodes.max(1)));
        Flow {
            number,
            protocol,
            client,
            server,
            client_port,
            server_port,
            endpoint,
            node: Ipv4Addr::from_bits(node),
            outer_port: outer_port(hash),
            denied,
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

const SPREAD: [u32; 2] = [0x9e37_79b1, 0x85eb_ca6b]; // odd, hence invertible

/// The cookie of a flow's `life`-th connection: looks random, and [`from_cookie`] leads back.
pub(super) fn cookie(seed: u64, flow: u32, life: u64) -> u32 {
    let mut x = (flow | (life as u32) << 20) ^ mix64(seed) as u32;
    for odd in SPREAD {
        x = x.wrapping_mul(odd);
        x ^= x >> 16;
    }
    x
}

/// Flow number and the low 12 bits of its life.
pub(super) fn from_cookie(seed: u64, cookie: u32) -> (u32, u32) {
    let mut x = cookie;
    for odd in SPREAD.into_iter().rev() {
        x ^= x >> 16;
        x = x.wrapping_mul(inverse(odd));
    }
    x ^= mix64(seed) as u32;
    (x & (MAX_FLOWS - 1), x >> 20)
}

/// Modulo 2^32, by Newton's iteration: each step doubles the bits that are right, beginning with three.
const fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    let mut step = 0;
    while step < 4 {
        x = x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}
