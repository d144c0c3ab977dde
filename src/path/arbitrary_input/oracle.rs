//! What should become of a frame, from the standards alone: slow, plain, and without a line of the path or of `wire`.
//!
//! RFC 791 (IPv4), 768 (UDP), 1071 (checksum), 8926 sections 3.3 to 3.5 (GENEVE), 8200 (IPv6), 9293 (TCP), 1122 section 3.2.1
//! (addresses), 1858 and 3128 (fragments), and the load balancers' options. Where these leave a choice it says
//! [`Opinion::Open`]. Its figures are written out here once more: a mistake in the path's tables must not hide in both.

/// Whose options are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Aws,
    Tencent,
    Google,
    Plain,
}

/// What is done about the outer UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// A wrong one passes.
    Ignored,
    /// A wrong one is dropped.
    Verified,
    /// The same, but the driver sums what IP says is there, which need not be what UDP says.
    ByDriver,
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub cloud: Cloud,
    pub checksums: Checksums,
    /// The first three bytes of the load balancer's addresses; `None` lets every unicast source in.
    pub sources: Option<[u8; 3]>,
    /// Our address; `None` means every unicast address.
    pub ours: Option<[u8; 4]>,
    /// Largest inner packet that may go home.
    pub max_return: usize,
}

/// What should become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// A good frame of a usual packet: it must go home.
    Home,
    /// Not tunnel traffic for us.
    Punt,
    /// Tunnel traffic that must not be forwarded, and why.
    Drop(&'static str),
    /// Tunnel traffic that may be forwarded or dropped.
    Open,
}

use Opinion::{Drop, Home, Open, Punt};

/// What should become of this frame under these rules?
pub fn opinion(rules: &Rules, f: &[u8]) -> Opinion {
    let ip = ip_at(f);
    if f.len() < ip {
        return Drop("ends inside the Ethernet header");
    }
    if two(f, ip - 2) != 0x0800 {
        return Punt;
    }
    // The outer IPv4 header.
    if f.len() < ip + 20 {
        return Drop("ends inside the outer header");
    }
    let header = (f[ip] % 16) as usize * 4;
    let total = two(f, ip + 2);
    if f[ip] / 16 != 4 || header < 20 || total < header || f.len() < ip + total {
        return Drop("outer version or length");
    }
    if ones_sum(0, &f[ip..ip + header]) != 0xffff {
        return Drop("outer header checksum");
    }
    let to = &f[ip + 16..ip + 20];
    // Behind 223 are multicast, reserved addresses and broadcast.
    let for_us = rules.ours.map_or(to[0] <= 223, |ours| to == ours);
    if !for_us || f[ip + 9] != 17 {
        return Punt;
    }
    if two(f, ip + 6) & 0x3fff != 0 {
        return Drop("outer fragment");
    }
    // UDP.
    let udp = ip + header;
    if total - header < 8 {
        return Drop("ends inside the UDP header");
    }
    if two(f, udp + 2) != 6081 {
        return Punt;
    }
    let from = &f[ip + 12..ip + 16];
    match rules.sources {
        Some(nodes) if from[..3] != nodes => return Drop("foreign source"),
        // Nobody can have such an address, and what is sent to it reaches many or nobody.
        None if from[0] > 223 || from[0] == 127 || from[0] == 0 => return Drop("source that is no host"),
        _ => {}
    }
    let datagram = two(f, udp + 4);
    if datagram < 8 || datagram > total - header {
        return Drop("UDP length");
    }
    let end = udp + datagram;
    let mut open = rules.ours.is_none() && (to[0] == 0 || to[0] == 127);
    if two(f, udp + 6) != 0 && rules.checksums != Checksums::Ignored {
        let right = datagram_sum(f, ip, udp, datagram) == 0xffff;
        match rules.checksums {
            Checksums::ByDriver if datagram != total - header => open = true,
            _ if !right => return Drop("UDP checksum"),
            _ => {}
        }
    }
    // GENEVE.
    let geneve = udp + 8;
    if end < geneve + 8 {
        return Drop("ends inside the GENEVE header");
    }
    if f[geneve] / 64 != 0 {
        return Drop("GENEVE version");
    }
    let inner = geneve + 8 + (f[geneve] % 64) as usize * 4;
    if end < inner {
        return Drop("ends inside the GENEVE options");
    }
    if f[geneve + 1] >= 0x80 {
        return Drop("GENEVE control");
    }
    match options(rules.cloud, &f[geneve + 8..inner]) {
        Home => {}
        Open => open = true,
        other => return other,
    }
    let packet = &f[inner..end];
    let (found, len) = match two(f, geneve + 2) {
        0x0800 => inner_v4(packet),
        0x86dd => inner_v6(packet),
        _ => return Drop("GENEVE protocol"),
    };
    if len > rules.max_return && !matches!(found, Drop(_)) {
        return Drop("too big");
    }
    if open && found == Home { Open } else { found }
}

/// The frame as it must come home.
pub fn turned(f: &[u8]) -> Vec<u8> {
    let ip = ip_at(f);
    let mut t = f.to_vec();
    t[..6].copy_from_slice(&f[6..12]);
    t[6..12].copy_from_slice(&f[..6]);
    t[ip + 12..ip + 16].copy_from_slice(&f[ip + 16..ip + 20]);
    t[ip + 16..ip + 20].copy_from_slice(&f[ip + 12..ip + 16]);
    t
}

/// Writes outer lengths that reach to the end of the frame, and right outer checksums, as far as the frame has these headers.
pub fn repair(f: &mut [u8], lengths: bool, header: bool, datagram: bool) {
    let ip = ip_at(f);
    if f.len() < ip + 20 {
        return;
    }
    let len = (f[ip] % 16) as usize * 4;
    if len < 20 || f.len() < ip + len {
        return;
    }
    let udp = ip + len;
    if lengths && f.len() >= udp + 8 {
        put(f, ip + 2, (f.len() - ip) as u16);
        put(f, udp + 4, (f.len() - udp) as u16);
    }
    if header {
        put(f, ip + 10, 0);
        put(f, ip + 10, !ones_sum(0, &f[ip..ip + len]));
    }
    if datagram && f.len() >= udp + 8 && two(f, udp + 6) != 0 {
        let bytes = two(f, udp + 4);
        if bytes >= 8 && f.len() >= udp + bytes {
            put(f, udp + 6, 0);
            let sum = !datagram_sum(f, ip, udp, bytes);
            put(f, udp + 6, if sum == 0 { 0xffff } else { sum });
        }
    }
}

/// Class, type and bytes of an option.
type Rule = (usize, u8, usize);

/// Walks over GENEVE options: `Home` if they are as they should be.
fn options(cloud: Cloud, block: &[u8]) -> Opinion {
    // Required ones, then others that are known.
    let (required, known): (&[Rule], &[Rule]) = match cloud {
        Cloud::Aws => (&[(0x0108, 1, 8), (0x0108, 2, 8), (0x0108, 3, 4)], &[]),
        Cloud::Tencent => (&[(0x0167, 1, 8), (0x0167, 2, 8), (0x0167, 3, 4)], &[]),
        Cloud::Google => (&[(0x0132, 2, 16)], &[(0x0132, 1, 4), (0x0132, 3, 8)]),
        Cloud::Plain => (&[], &[]),
    };
    let mut seen: Vec<(usize, u8)> = Vec::new();
    let mut open = false;
    let mut at = 0;
    while at < block.len() {
        if block.len() - at < 4 {
            return Drop("option cut short");
        }
        let (class, kind, len) = (two(block, at), block[at + 2], (block[at + 3] % 32) as usize * 4);
        at += 4 + len;
        if at > block.len() {
            return Drop("option overruns");
        }
        let again = seen.contains(&(class, kind));
        seen.push((class, kind));
        if let Some(rule) = required.iter().find(|r| r.0 == class && r.1 == kind) {
            if len != rule.2 {
                return Drop("option length");
            }
            if again {
                return Drop("option twice");
            }
        } else if let Some(rule) = known.iter().find(|r| r.0 == class && r.1 == kind) {
            // Nothing public says what to do about these.
            open |= again || len != rule.2;
        } else if kind >= 0x80 {
            return Drop("unknown critical option");
        }
    }
    if required.iter().any(|r| !seen.contains(&(r.0, r.1))) {
        return Drop("option missing");
    }
    if open { Open } else { Home }
}

/// An IPv4 packet in the tunnel, and its length.
fn inner_v4(p: &[u8]) -> (Opinion, usize) {
    if p.is_empty() || p.len() < 20 {
        return (Drop("ends inside the inner header"), 0);
    }
    let header = (p[0] % 16) as usize * 4;
    let total = two(p, 2);
    if p[0] / 16 != 4 || header < 20 || total < header || total > p.len() {
        return (Drop("inner version or length"), 0);
    }
    let body = &p[header..total];
    let at = (two(p, 6) & 0x1fff) * 8;
    let more = p[6] & 0x20 != 0;
    if at == 0 && !more {
        return (transport(p[9], body), total);
    }
    let found = if p[9] == 6 && at == 8 {
        Drop("fragment over TCP flags")
    } else if more && !body.len().is_multiple_of(8) {
        Drop("fragment of odd length")
    } else if header + at + body.len() > 65535 {
        Drop("fragment past the largest packet")
    } else if at == 0 && ((p[9] == 6 && body.len() < 20) || (p[9] == 17 && body.len() < 8)) {
        Drop("fragment that hides its ports")
    } else if at == 0 {
        Open
    } else {
        Home
    };
    (found, total)
}

/// An IPv6 packet in the tunnel, and its length.
fn inner_v6(p: &[u8]) -> (Opinion, usize) {
    if p.len() < 40 {
        return (Drop("ends inside the inner header"), 0);
    }
    let len = 40 + two(p, 4);
    if p[0] / 16 != 6 || len > p.len() {
        return (Drop("inner version or length"), 0);
    }
    let found = match p[6] {
        // Extension headers: how many are walked is a choice.
        0 | 43 | 44 | 51 | 60 => Open,
        protocol => transport(protocol, &p[40..len]),
    };
    (found, len)
}

/// What an unfragmented packet carries.
fn transport(protocol: u8, b: &[u8]) -> Opinion {
    match protocol {
        6 if b.len() < 20 => Drop("ends inside the TCP header"),
        6 if b[12] / 16 < 5 || (b[12] / 16) as usize * 4 > b.len() => Drop("TCP header length"),
        17 if b.len() < 8 => Drop("ends inside the inner UDP header"),
        17 if two(b, 4) < 8 || two(b, 4) > b.len() => Drop("inner UDP length"),
        6 | 17 => Home,
        // Others that have a header one could look into: ICMP, DCCP, SCTP, UDP-Lite.
        1 | 33 | 58 | 132 | 136 => Open,
        // A transparent device lets through what it does not know.
        _ => Home,
    }
}

/// Where the outer IP header starts.
fn ip_at(f: &[u8]) -> usize {
    if f.len() >= 14 && f[12] == 0x81 && f[13] == 0 { 18 } else { 14 }
}

fn two(b: &[u8], at: usize) -> usize {
    b[at] as usize * 256 + b[at + 1] as usize
}

fn put(b: &mut [u8], at: usize, value: u16) {
    b[at] = (value / 256) as u8;
    b[at + 1] = (value % 256) as u8;
}

/// The sum of a datagram with its pseudo header: 0xffff if its checksum is right.
fn datagram_sum(f: &[u8], ip: usize, udp: usize, len: usize) -> u16 {
    let addresses = ones_sum(17 + len as u32, &f[ip + 12..ip + 20]);
    ones_sum(addresses.into(), &f[udp..udp + len])
}

/// The ones' complement sum of RFC 1071, word by word.
fn ones_sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for i in (0..bytes.len()).step_by(2) {
        let low = if i + 1 < bytes.len() { bytes[i + 1] } else { 0 };
        sum += bytes[i] as u32 * 256 + low as u32;
        sum = sum % 65536 + sum / 65536;
    }
    (sum % 65536 + sum / 65536) as u16
}
