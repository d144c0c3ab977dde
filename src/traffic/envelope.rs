//! The envelope of a load balancer around a plain packet: AWS GWLB's, or with the options of another profile.

use std::net::Ipv4Addr;

use crate::wire::checksum;
use crate::wire::geneve::{self, Profile, Role, Scope};

/// Bytes in front of the inner packet: Ethernet 14, IPv4 20, UDP 8, GENEVE 8, options 32.
pub const ENVELOPE: usize = 82;
/// Bytes in front of the GENEVE options.
const OPTIONS: usize = 50;
/// First outer source port; the range goes up to 65535, as observed.
const FIRST_PORT: u16 = 60_000;

/// Addresses and ids of one load balancer node, one endpoint and one appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAC address that frames of the load balancer carry.
    pub gateway_mac: [u8; 6],
    /// MAC address of the appliance's port.
    pub appliance_mac: [u8; 6],
    /// Outer source: the node.
    pub node: Ipv4Addr,
    /// Outer destination: the appliance.
    pub appliance: Ipv4Addr,
    /// Option 1: the endpoint.
    pub endpoint: u64,
    /// Option 2: the attachment, 0 in every capture seen.
    pub attachment: u64,
    /// UDP destination port.
    pub port: u16,
    /// Which options it has. With a profile whose scope is the VNI, that is the low 24 bits of the endpoint.
    pub profile: &'static Profile,
    /// Outer ports and cookies of flows come from it.
    pub seed: u64,
}

impl Default for Envelope {
    /// Addresses of a published capture of AWS GWLB; endpoint `vpce-0123456789abcdef0`, as 64 bits.
    fn default() -> Self {
        Envelope {
            gateway_mac: [2, 0, 0, 0, 1, 7],
            appliance_mac: [2, 0, 0, 0, 1, 2],
            node: Ipv4Addr::new(10, 254, 11, 107),
            appliance: Ipv4Addr::new(10, 254, 11, 102),
            endpoint: 0x0123_4567_89ab_cdef,
            attachment: 0,
            port: geneve::PORT,
            profile: &geneve::AWS,
            seed: 0,
        }
    }
}

/// What the load balancer gives a flow: the same for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Outer UDP source port.
    pub port: u16,
    /// Option 3: the flow cookie.
    pub cookie: u32,
}

/// Wraps a plain IP packet as the load balancer would, all checksums valid. `None` if it is neither IPv4 nor IPv6, or
/// too long to be wrapped.
///
/// Both directions of a TCP or UDP flow get the same port and cookie. Everything else, fragments included, is told
/// apart by addresses and protocol only: what AWS does there is not documented.
pub fn wrap(inner: &[u8], envelope: &Envelope) -> Option<Vec<u8>> {
    let identity = envelope.identity(inner)?;
    envelope.wrap_as(inner, identity)
}

impl Envelope {
    /// Wraps a packet under a given identity.
    pub fn wrap_as(&self, inner: &[u8], identity: Identity) -> Option<Vec<u8>> {
        let ethertype = match inner.first()? >> 4 {
            4 => 0x0800,
            6 => 0x86dd,
            _ => return None,
        };
        let options = self.options(identity);
        let header_len = OPTIONS + options.len();
        // Too long for an IPv4 total length: no load balancer can send it.
        let total = u16::try_from(header_len - 14 + inner.len()).ok()?;
        let udp = total - 20;
        let mut frame = Vec::with_capacity(header_len + inner.len());
        frame.extend_from_slice(self.header(identity, ethertype).get(..OPTIONS)?);
        frame.extend_from_slice(&options);
        let header = frame.as_mut_slice();
        header[42] = (options.len() / 4) as u8;
        if self.profile.scope == Scope::Vni {
            header[46..49].copy_from_slice(&self.endpoint.to_be_bytes()[5..]);
        }
        header[16..18].copy_from_slice(&total.to_be_bytes());
        header[38..40].copy_from_slice(&udp.to_be_bytes());
        let ip = finish(u64::from(checksum::sum(&header[14..34])));
        header[24..26].copy_from_slice(&ip.to_be_bytes());
        // Pseudo header: addresses, protocol, length.
        let pseudo = u64::from(checksum::sum(&header[26..34])) + 17 + u64::from(udp);
        let sum = pseudo + u64::from(checksum::sum(&header[34..])) + u64::from(checksum::sum(inner));
        header[40..42].copy_from_slice(&udp_finish(sum).to_be_bytes());
        frame.extend_from_slice(inner);
        Some(frame)
    }

    /// The profile's options in its order; what has no meaning to us is zero.
    fn options(&self, identity: Identity) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENVELOPE - OPTIONS);
        for rule in self.profile.options {
            bytes.extend_from_slice(&rule.class.to_be_bytes());
            bytes.extend_from_slice(&[rule.kind, rule.len / 4]);
            let end = bytes.len() + usize::from(rule.len);
            match rule.role {
                Role::Endpoint => bytes.extend_from_slice(&self.endpoint.to_be_bytes()),
                Role::Attachment => bytes.extend_from_slice(&self.attachment.to_be_bytes()),
                Role::Cookie => bytes.extend_from_slice(&identity.cookie.to_be_bytes()),
                Role::Other => {}
            }
            bytes.resize(end, 0);
        }
        bytes
    }

    /// AWS's envelope with lengths and checksums zero.
    pub(super) fn header(&self, identity: Identity, ethertype: u16) -> [u8; ENVELOPE] {
        let mut bytes = [0; ENVELOPE];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            if let Some((to, behind)) = std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
                to.copy_from_slice(part);
                rest = behind;
            }
        };
        put(&self.appliance_mac);
        put(&self.gateway_mac);
        put(&[0x08, 0x00]);
        put(&[0x45, 0, 0, 0, 0, 0, 0, 0, 255, 17, 0, 0]);
        put(&self.node.octets());
        put(&self.appliance.octets());
        put(&identity.port.to_be_bytes());
        put(&self.port.to_be_bytes());
        put(&[0; 4]);
        put(&[8, 0]); // version 0, eight words of options
        put(&ethertype.to_be_bytes());
        put(&[0; 4]);
        put(&[0x01, 0x08, 1, 2]);
        put(&self.endpoint.to_be_bytes());
        put(&[0x01, 0x08, 2, 2]);
        put(&self.attachment.to_be_bytes());
        put(&[0x01, 0x08, 3, 1]);
        put(&identity.cookie.to_be_bytes());
        bytes
    }

    fn identity(&self, inner: &[u8]) -> Option<Identity> {
        let (source, destination, protocol, transport) = match inner.first()? >> 4 {
            4 => {
                let header = inner.first_chunk::<20>()?;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
                let transport = inner.get(usize::from(header[0] & 15) * 4..).filter(|_| !fragment);
                (wide(&header[12..16]), wide(&header[16..20]), header[9], transport)
            }
            6 => {
                let header = inner.first_chunk::<40>()?;
                let (protocol, transport) = behind_extensions(header[6], &inner[40..]);
                (wide(&header[8..24]), wide(&header[24..40]), protocol, transport)
            }
            _ => return None,
        };
        let ports = transport.filter(|_| matches!(protocol, 6 | 17)).and_then(|t| t.first_chunk::<4>());
        let [a, b, c, d] = ports.copied().unwrap_or_default();
        let ends = [(source, u16::from_be_bytes([a, b])), (destination, u16::from_be_bytes([c, d]))];
        let hash = flow_hash(self.seed ^ self.endpoint, protocol, ends);
        Some(Identity { port: outer_port(hash), cookie: (hash >> 32) as u32 })
    }
}

/// Skips at most eight hop-by-hop, routing and destination headers. No transport behind a fragment header: see [`wrap`].
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    for _ in 0..8 {
        match (next, rest) {
            (0 | 43 | 60, [after, words, ..]) => {
                let len = (usize::from(*words) + 1) * 8;
                next = *after;
                rest = rest.get(len..).unwrap_or(&[]);
            }
            (44, [after, ..]) => return (*after, None),
            _ => break,
        }
    }
    (next, Some(rest))
}

/// The IP packet in a captured Ethernet frame, without VLAN tags and padding; `None` if there is none.
pub fn inner_packet(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame.get(12..)?;
    // Two tags at most (802.1ad).
    for _ in 0..3 {
        let (ethertype, behind) = rest.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*ethertype) {
            0x8100 | 0x88a8 | 0x9100 => rest = behind.get(2..)?,
            0x0800 | 0x86dd => return trimmed(behind),
            _ => return None,
        }
    }
    None
}

/// Cuts what is behind the length that the IP header states. A packet that the capture cut short stays as it is.
fn trimmed(packet: &[u8]) -> Option<&[u8]> {
    let stated = match packet.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes(*packet.get(2..4)?.first_chunk()?)),
        6 => 40 + usize::from(u16::from_be_bytes(*packet.get(4..6)?.first_chunk()?)),
        _ => return None,
    };
    // Zero: the capture was taken above segmentation offload, take what is there.
    Some(packet.get(..stated).filter(|p| p.len() >= 20).unwrap_or(packet))
}

/// Is this Ethernet frame a GENEVE frame over IPv4 already, by its protocol and UDP destination port?
pub fn is_tunnel(frame: &[u8], port: u16) -> bool {
    inner_packet(frame).is_some_and(|packet| {
        let header = packet.first().map_or(0, |b| usize::from(b & 15) * 4);
        packet.first().is_some_and(|b| b >> 4 == 4)
            && packet.get(9) == Some(&17)
            && packet.get(header + 2..header + 4) == Some(&port.to_be_bytes())
    })
}

/// The same for both directions.
pub(super) fn flow_hash(seed: u64, protocol: u8, ends: [(u128, u16); 2]) -> u64 {
    let [a, b] = if ends[0] <= ends[1] { ends } else { [ends[1], ends[0]] };
    let ports = u64::from(a.1) << 32 | u64::from(b.1) << 8 | u64::from(protocol);
    [a.0 as u64, (a.0 >> 64) as u64, b.0 as u64, (b.0 >> 64) as u64, ports]
        .iter()
        .fold(mix64(seed), |h, word| mix64(h ^ word))
}

pub(super) fn outer_port(hash: u64) -> u16 {
    FIRST_PORT + (hash % u64::from(65_535 - FIRST_PORT + 1)) as u16
}

/// Bijective, and every bit of the input reaches every bit of the output (the finalizer of SplitMix64).
pub(super) fn mix64(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn wide(address: &[u8]) -> u128 {
    address.iter().fold(0, |a, b| a << 8 | u128::from(*b))
}

/// Folds a sum of 16-bit words to 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The checksum field for a sum.
pub(super) fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The same for UDP, where zero means "none" (RFC 768).
pub(super) fn udp_finish(sum: u64) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}
