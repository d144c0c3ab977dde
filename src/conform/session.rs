//! What checks are written with: flows, their packets, and exchanges with the appliance.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use memchr::memmem;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Settings;
use super::frames::make::{self, Ends, Envelope, Segment};
use super::frames::read::{self, Inner, Seen};
use super::frames::{ICMP, ICMPV6};
use super::wire::{Sent, Wire};

/// How long a full way is tried.
const FULL: Duration = Duration::from_secs(1);
/// Packets that are kept of what comes at once: an appliance that sends without end is no reason to run out of memory.
const MOST: usize = 10_000;
/// Packets that are taken between two that are sent.
const BETWEEN: usize = 256;

/// Why a check did not pass.
#[derive(Debug)]
pub enum Stop {
    /// Something did not come back: perhaps it was lost.
    Silent(String),
    /// Something came back, and is wrong.
    Wrong(String),
    /// It cannot be judged here.
    Unjudged(String),
    /// The way to the appliance is broken.
    Broken(io::Error),
}

/// Passed, with a remark perhaps; or not.
pub type Outcome = Result<Option<String>, Stop>;

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP that carries HTTP.
    Tcp,
    /// UDP that carries DNS.
    Dns,
    /// UDP that carries anything.
    Data,
}

/// A flow as the load balancer knows it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Client and server.
    pub ends: Ends,
    /// The endpoint that it enters by.
    pub endpoint: u64,
    /// Its cookie.
    pub cookie: u32,
    /// Outer source port.
    pub source_port: u16,
    /// Next sequence numbers, the client's and the server's.
    pub sequence: [u32; 2],
}

/// A packet for the appliance, and bytes that nothing else has.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What it is, for the report.
    pub what: String,
    /// The outer packet.
    pub packet: Vec<u8>,
    /// Found in what comes back of it.
    pub token: Vec<u8>,
}

/// A check at work.
pub struct Session<'a> {
    wire: &'a mut dyn Wire,
    /// What is judged, and how.
    pub settings: &'a Settings,
    random: ChaCha8Rng,
}

impl<'a> Session<'a> {
    /// A session of its own random numbers.
    pub fn new(wire: &'a mut dyn Wire, settings: &'a Settings, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
        random.set_stream(stream);
        Session { wire, settings, random }
    }

    /// The way to the appliance.
    pub fn wire(&mut self) -> &mut dyn Wire {
        self.wire
    }

    /// A random number.
    pub fn number<T>(&mut self) -> T
    where
        rand::distr::StandardUniform: rand::distr::Distribution<T>,
    {
        self.random.random()
    }

    /// Where random numbers come from.
    pub fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    /// An outer source port as AWS chooses them.
    pub fn outer_port(&mut self) -> u16 {
        self.random.random_range(60_000..=65_535)
    }

    /// A host of a prefix.
    fn host(&mut self, net: Ipv4Net) -> IpAddr {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        let most = last.saturating_sub(1).max(first);
        std::net::Ipv4Addr::from_bits(self.random.random_range(first.saturating_add(1).min(most)..=most))
            .into()
    }

    /// Somebody in the network of the servers.
    pub fn stranger(&mut self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.host(self.settings.servers),
            IpAddr::V6(_) => self.host6(0x202),
        }
    }

    fn host6(&mut self, net: u16) -> IpAddr {
        let host: [u16; 4] = self.random.random();
        Ipv6Addr::new(0xfd00, net, 0, 0, host[0], host[1], host[2], host[3]).into()
    }

    /// A flow that nobody has seen.
    pub fn flow(&mut self, kind: Kind, ipv6: bool) -> Flow {
        let (client, server) = match ipv6 {
            false => (self.host(self.settings.clients), self.host(self.settings.servers)),
            true => (self.host6(0x201), self.host6(0x202)),
        };
        let port = match kind {
            Kind::Tcp => self.settings.tcp_port,
            Kind::Dns => self.settings.dns_port,
            Kind::Data => self.settings.data_port,
        };
        let from = SocketAddr::new(client, self.random.random_range(20_000..60_000));
        Flow {
            ends: Ends { from, to: SocketAddr::new(server, port) },
            // Endpoints of AWS are 64 bits; 24 of them fit a VNI.
            endpoint: self.random.random(),
            cookie: self.random.random(),
            source_port: self.outer_port(),
            sequence: [self.random.random(), self.random.random()],
        }
    }

    /// The envelope of a packet of this flow, in its first or second direction.
    pub fn envelope(&self, flow: &Flow, second: bool) -> Envelope {
        let profile = self.settings.profile;
        let vni = if profile.options.is_empty() { (flow.endpoint & 0xff_ffff) as u32 } else { 0 };
        Envelope {
            node: self.wire.us(),
            appliance: self.wire.appliance(),
            source_port: flow.source_port,
            port: self.settings.port,
            ttl: profile.ttl,
            checksum: profile.checksum,
            flags: 0,
            protocol: None,
            vni: (vni, 0),
            options: profile.options(flow.endpoint, flow.cookie, second),
        }
    }

    /// An inner packet in the envelope of its flow.
    pub fn wrap(&self, flow: &Flow, second: bool, inner: &[u8]) -> Vec<u8> {
        self.envelope(flow, second).packet(inner)
    }

    /// Sixteen letters that nothing else has.
    pub fn token(&mut self) -> Vec<u8> {
        let number: u64 = self.random.random();
        format!("{number:016x}").into_bytes()
    }

    /// A DNS query (or what looks like an answer to one), with its token.
    pub fn dns(&mut self, flow: &Flow, second: bool) -> (Vec<u8>, Vec<u8>) {
        let token = self.token();
        let mut message = vec![token[0], token[1], if second { 0x81 } else { 1 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.push(token.len() as u8);
        message.extend(&token);
        message.extend(b"\x07conform\x07example\0\0\x01\0\x01");
        let ends = if second { flow.ends.turned() } else { flow.ends };
        (make::udp(ends, &message), token)
    }

    /// A UDP datagram with so many bytes of payload, at least sixteen, and its token, which is in front.
    pub fn data(&mut self, flow: &Flow, second: bool, len: usize) -> (Vec<u8>, Vec<u8>) {
        let token = self.token();
        let mut payload = token.clone();
        payload.extend((payload.len()..len).map(|n| n as u8));
        let ends = if second { flow.ends.turned() } else { flow.ends };
        (make::udp(ends, &payload), token)
    }

    /// A TCP segment, and its token: that of its payload, or its sequence number.
    pub fn segment(&mut self, flow: &mut Flow, second: bool, flags: u8, data: bool) -> (Vec<u8>, Vec<u8>) {
        let side = usize::from(second);
        let [own, other] = [flow.sequence[side], flow.sequence[1 - side]];
        let (mut payload, mut token) = (Vec::new(), own.to_be_bytes().to_vec());
        if data {
            token = self.token();
            let name = String::from_utf8_lossy(&token).into_owned();
            let text = match second {
                false => format!("GET /{name} HTTP/1.1\r\nHost: conform.example\r\n\r\n"),
                true => format!("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{name}"),
            };
            payload = text.into_bytes();
        }
        let acknowledgment = if flags & make::ACK == 0 { 0 } else { other };
        let segment = Segment { flags, sequence: own, acknowledgment, payload: &payload };
        let inner = make::tcp(if second { flow.ends.turned() } else { flow.ends }, segment);
        let takes = payload.len() as u32 + u32::from(flags & (make::SYN | make::FIN) != 0);
        flow.sequence[side] = own.wrapping_add(takes);
        (inner, token)
    }

    /// Sends a segment of the flow, and gives what came back.
    pub fn say(&mut self, flow: &mut Flow, second: bool, flags: u8, data: bool) -> Result<Vec<u8>, Stop> {
        let (inner, token) = self.segment(flow, second, flags, data);
        let what = match (flags, data) {
            (make::SYN, _) => "a SYN",
            (_, true) => "a TCP segment with data",
            (18, _) => "a SYN with ACK",
            (17, _) => "a FIN",
            _ => "a TCP segment",
        };
        let way = if second { "from the server" } else { "from the client" };
        let packet = self.wrap(flow, second, &inner);
        self.exchange(Probe { what: format!("{what} {way}"), packet, token })
    }

    /// The handshake.
    pub fn open(&mut self, flow: &mut Flow) -> Result<(), Stop> {
        self.say(flow, false, make::SYN, false)?;
        self.say(flow, true, make::SYN | make::ACK, false)?;
        self.say(flow, false, make::ACK, false)?;
        Ok(())
    }

    /// Sends one packet, and gives what came back of it.
    pub fn exchange(&mut self, probe: Probe) -> Result<Vec<u8>, Stop> {
        let mut came = self.gather(std::slice::from_ref(&probe.packet), |came| {
            came.iter().any(|back| of(back, &probe.token))
        })?;
        match came.iter().position(|back| of(back, &probe.token)) {
            Some(at) => Ok(came.swap_remove(at)),
            None => Err(Stop::Silent(format!("{} did not come back{}", probe.what, instead(&came, &probe)))),
        }
    }

    /// The same for an ICMP error: what came back is one, and quotes what the token is of.
    pub fn exchange_error(&mut self, probe: Probe) -> Result<Vec<u8>, Stop> {
        let is = |back: &[u8]| contains(back, &probe.token) && error_kind(back).is_some();
        let came =
            self.gather(std::slice::from_ref(&probe.packet), |came| came.iter().any(|back| is(back)))?;
        let back = came.into_iter().find(|back| is(back));
        back.ok_or_else(|| Stop::Silent(format!("{} did not come back", probe.what)))
    }

    /// These have to be dropped: none is back when a packet that was sent behind them is, nor soon after.
    pub fn dropped(&mut self, bad: &[Probe]) -> Result<(), Stop> {
        let flow = self.flow(Kind::Dns, false);
        let (inner, token) = self.dns(&flow, false);
        let mut packets: Vec<Vec<u8>> = bad.iter().map(|probe| probe.packet.clone()).collect();
        packets.push(self.wrap(&flow, false, &inner));
        let mut came = self.gather(&packets, |came| came.iter().any(|back| of(back, &token)))?;
        let alive = came.iter().any(|back| of(back, &token));
        let quiet = self.settings.quiet;
        self.listen(quiet, &mut came, |_| false)?;
        for probe in bad {
            if came.iter().any(|back| of(back, &probe.token)) {
                return Err(Stop::Wrong(format!("{} came back", probe.what)));
            }
        }
        match alive {
            true => Ok(()),
            false => Err(Stop::Silent("plain traffic that was sent behind it did not come back".into())),
        }
    }

    /// Sends packets, and gives everything that comes back until it is enough, or the time is over.
    pub fn gather(
        &mut self,
        packets: &[Vec<u8>],
        enough: impl FnMut(&[Vec<u8>]) -> bool,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        // What is late of an earlier exchange.
        self.listen(Duration::ZERO, &mut Vec::new(), |_| false)?;
        let mut came = Vec::new();
        for packet in packets {
            self.send(packet)?;
            self.listen(Duration::ZERO, &mut came, |_| false)?;
        }
        let wait = self.settings.wait;
        self.listen(wait, &mut came, enough)?;
        Ok(came)
    }

    /// Takes what comes within that time, until it is enough. Without time: what is there.
    pub fn listen(
        &mut self,
        wait: Duration,
        came: &mut Vec<Vec<u8>>,
        mut enough: impl FnMut(&[Vec<u8>]) -> bool,
    ) -> Result<(), Stop> {
        let (began, mut taken) = (Instant::now(), 0);
        let most = if wait.is_zero() { BETWEEN } else { MOST };
        while taken < most && !enough(came) {
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() && !wait.is_zero() {
                break;
            }
            let Some(back) = self.receive(left)? else { break };
            taken += 1;
            if came.len() < MOST {
                came.push(back);
            }
        }
        Ok(())
    }

    /// Sends one packet; waits for room.
    pub fn send(&mut self, packet: &[u8]) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            match self.wire.send(packet).map_err(Stop::Broken)? {
                Sent::Yes => return Ok(()),
                Sent::TooLong => {
                    let len = packet.len();
                    let text =
                        format!("the way to the appliance takes no packet of {len} bytes: raise its MTU");
                    return Err(Stop::Unjudged(text));
                }
                Sent::Full if began.elapsed() > FULL => {
                    return Err(Stop::Broken(io::Error::other("the way to the appliance takes no packets")));
                }
                Sent::Full => std::thread::yield_now(),
            }
        }
    }

    /// What comes next within that time.
    pub fn receive(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, Stop> {
        self.wire.receive(wait).map_err(Stop::Broken)
    }
}

/// Reads the envelope of what came back.
pub fn seen(back: &[u8]) -> Result<Seen<'_>, Stop> {
    read::outer(back).map_err(|why| Stop::Wrong(format!("what came back cannot be read: {why}")))
}

/// Reads what is in it.
pub fn seen_inner<'a>(seen: &Seen<'a>) -> Result<Inner<'a>, Stop> {
    read::inner(seen.inner, seen.protocol)
        .map_err(|why| Stop::Wrong(format!("the inner packet that came back cannot be read: {why}")))
}

/// Somewhere in it are these bytes.
pub fn contains(packet: &[u8], token: &[u8]) -> bool {
    memmem::find(packet, token).is_some()
}

/// It is what was sent with this token, not an ICMP error about it.
pub fn of(packet: &[u8], token: &[u8]) -> bool {
    contains(packet, token) && error_kind(packet).is_none()
}

/// Type and code, if there is an ICMP error in the tunnel.
pub fn error_kind(packet: &[u8]) -> Option<[u8; 2]> {
    let outer = read::outer(packet).ok()?;
    let inner = read::inner(outer.inner, outer.protocol).ok()?;
    let kind = inner.payload.first_chunk::<2>().copied()?;
    let error = match inner.protocol {
        ICMP => matches!(kind[0], 3 | 4 | 5 | 11 | 12),
        ICMPV6 => kind[0] < 128,
        _ => false,
    };
    (error && !inner.later).then_some(kind)
}

/// What came in place of a packet, in words.
fn instead(came: &[Vec<u8>], probe: &Probe) -> String {
    let about = came.iter().filter(|back| contains(back, &probe.token));
    if let Some([kind, code]) = about.filter_map(|back| error_kind(back)).next() {
        return format!(
            ", but an ICMP error about it did (type {kind}, code {code}): is it against a policy?"
        );
    }
    match came.len() {
        0 => String::new(),
        n => format!("; {n} other packets came"),
    }
}
