//! A way over Ethernet: neighbours are asked for by ARP, health checks go over a TCP of our own (smoltcp), everything else is a frame.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use super::{ANSWER, Ask, Asked, Sent, Wire};

/// Ethernet header.
const HEADER: usize = 14;
/// From one question to the next, while a neighbour does not answer.
const ARP_AGAIN: Duration = Duration::from_millis(200);
/// How long connections that are over are waited for.
const GOODBYE: Duration = Duration::from_millis(100);
/// Frames that wait for somebody to look at them, at most.
const WAITING: usize = 8192;
/// Frames that are taken from the link at a time.
const AT_ONCE: usize = 64;

/// What carries frames.
pub trait Link {
    /// Our MAC address.
    fn mac(&self) -> [u8; 6];

    /// Largest IP packet in bytes.
    fn mtu(&self) -> usize;

    /// Sends a frame; false if there is no room for it now.
    fn send(&mut self, frame: &[u8]) -> bool;

    /// The next frame that came.
    fn receive(&mut self) -> Option<Vec<u8>>;

    /// Nothing came: time for others.
    fn idle(&mut self);
}

/// A way over Ethernet.
pub struct Ethernet<L> {
    us: Ipv4Addr,
    appliance: Ipv4Addr,
    port: u16,
    /// MAC address of the appliance, or of the router to it.
    peer: [u8; 6],
    cable: Cable<L>,
    iface: Interface,
    sockets: SocketSet<'static>,
    began: Instant,
    next_port: u16,
}

/// The link, and what waits in front of it.
struct Cable<L> {
    link: L,
    /// For smoltcp.
    others: VecDeque<Vec<u8>>,
    /// Outer IPv4 packets.
    tunnel: VecDeque<Vec<u8>>,
}

impl<L: Link> Ethernet<L> {
    /// A way to this address, from ours (with its subnet), by a router if there is one between; `mac` is the next hop's where ARP is not to
    /// be asked. Fails if nobody answers in that time.
    pub fn open(
        link: L,
        us: Ipv4Net,
        appliance: Ipv4Addr,
        (router, mac): (Option<Ipv4Addr>, Option<[u8; 6]>),
        port: u16,
        wait: Duration,
    ) -> io::Result<Self> {
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(link.mac())));
        let mut cable = Cable { link, others: VecDeque::new(), tunnel: VecDeque::new() };
        let mut iface = Interface::new(config, &mut cable, Moment::ZERO);
        iface.update_ip_addrs(|own| {
            let _ = own.push(IpCidr::Ipv4(Ipv4Cidr::new(us.addr(), us.prefix_len())));
        });
        if let Some(router) = router {
            let _ = iface.routes_mut().add_default_ipv4_route(router);
        }
        let sockets = SocketSet::new(Vec::new());
        let next_port = 32_768 + (std::process::id() % 16_384) as u16;
        let (us, peer) = (us.addr(), mac.unwrap_or_default());
        let mut way =
            Ethernet { us, appliance, port, peer, cable, iface, sockets, began: Instant::now(), next_port };
        if mac.is_none() {
            way.peer = way.find(router.unwrap_or(appliance), wait)?;
        }
        Ok(way)
    }

    /// Gives the link back.
    pub fn into_link(self) -> L {
        self.cable.link
    }

    /// The MAC address of a neighbour (RFC 826).
    fn find(&mut self, neighbour: Ipv4Addr, wait: Duration) -> io::Result<[u8; 6]> {
        let began = Instant::now();
        let mut asked = None::<Instant>;
        loop {
            if asked.is_none_or(|asked| asked.elapsed() > ARP_AGAIN) {
                asked = Some(Instant::now());
                let mut frame = vec![0xff; 6];
                frame.extend(self.cable.link.mac());
                frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend(self.cable.link.mac());
                frame.extend(self.us.octets());
                frame.extend([0; 6]);
                frame.extend(neighbour.octets());
                frame.resize(60, 0);
                self.cable.link.send(&frame);
            }
            for _ in 0..AT_ONCE {
                let Some(frame) = self.cable.link.receive() else { break };
                let reply = frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 2]);
                if reply && frame.get(28..32) == Some(&neighbour.octets()) {
                    return Ok(frame
                        .get(22..28)
                        .and_then(|mac| mac.first_chunk())
                        .copied()
                        .unwrap_or_default());
                }
                self.cable.sort(frame, self.us, self.appliance, self.port);
            }
            self.poll();
            if began.elapsed() > wait {
                let text = format!("{neighbour} does not answer ARP on this link");
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, text));
            }
            self.cable.link.idle();
        }
    }

    /// Takes what came. False if there was nothing.
    fn take(&mut self) -> bool {
        let mut came = false;
        for _ in 0..AT_ONCE {
            let Some(frame) = self.cable.link.receive() else { break };
            came = true;
            self.cable.sort(frame, self.us, self.appliance, self.port);
        }
        if !self.cable.others.is_empty() {
            self.poll();
        }
        came
    }

    fn poll(&mut self) {
        let now = Moment::from_micros(self.began.elapsed().as_micros() as i64);
        self.iface.poll(now, &mut self.cable, &mut self.sockets);
    }

    fn connect(&mut self, port: u16) -> io::Result<SocketHandle> {
        let buffer = || SocketBuffer::new(vec![0; ANSWER]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port = if self.next_port >= 60_000 { 32_768 } else { self.next_port + 1 };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket
            .connect(self.iface.context(), (self.appliance, port), self.next_port)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(handle)
    }
}

impl<L: Link> Cable<L> {
    /// Tunnel traffic and anything over UDP from the appliance is for the judge, the rest for smoltcp.
    fn sort(&mut self, frame: Vec<u8>, us: Ipv4Addr, appliance: Ipv4Addr, port: u16) {
        let to = frame.get(..6);
        if to != Some(&self.link.mac()) && to != Some(&[0xff; 6]) {
            return;
        }
        let packet = frame.get(HEADER..).unwrap_or_default();
        let udp = frame.get(12..14) == Some(&[8, 0]) && packet.get(9) == Some(&super::super::frames::UDP);
        let header = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
        let from = packet.get(12..16) == Some(&appliance.octets());
        if udp && (from || packet.get(header + 2..header + 4) == Some(&port.to_be_bytes())) {
            // Short frames are padded.
            let total = packet.get(2..4).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]));
            let packet = packet.get(..total.max(20)).unwrap_or(packet);
            if self.tunnel.len() < WAITING && packet.get(16..20).is_some_and(|to| to == us.octets() || from) {
                self.tunnel.push_back(packet.to_vec());
            }
        } else if self.others.len() < WAITING {
            self.others.push_back(frame);
        }
    }
}

impl<L: Link> Wire for Ethernet<L> {
    fn us(&self) -> Ipv4Addr {
        self.us
    }

    fn appliance(&self) -> Ipv4Addr {
        self.appliance
    }

    fn keeps_header(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<Sent> {
        if packet.len() > self.cable.link.mtu() {
            return Ok(Sent::TooLong);
        }
        let mut frame = Vec::with_capacity(HEADER + packet.len());
        frame.extend(self.peer);
        frame.extend(self.cable.link.mac());
        frame.extend([8, 0]);
        frame.extend(packet);
        frame.resize(frame.len().max(60), 0);
        Ok(if self.cable.link.send(&frame) { Sent::Yes } else { Sent::Full })
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        let began = Instant::now();
        loop {
            let came = self.take();
            if let Some(packet) = self.cable.tunnel.pop_front() {
                return Ok(Some(packet));
            }
            if began.elapsed() >= wait {
                return Ok(None);
            }
            if !came {
                self.cable.link.idle();
            }
        }
    }

    fn ask(&mut self, ask: Ask<'_>) -> io::Result<Asked> {
        let mut handles = Vec::new();
        let asked = self.ask_all(ask, &mut handles);
        for handle in &handles {
            self.sockets.get_mut::<Socket<'_>>(*handle).close();
        }
        // A FIN of the other side is waited for, but not for long.
        let began = Instant::now();
        let open = |ways: &SocketSet<'_>| {
            let over = |state| matches!(state, State::Closed | State::TimeWait);
            handles.iter().any(|handle| !over(ways.get::<Socket<'_>>(*handle).state()))
        };
        while open(&self.sockets) && began.elapsed() < GOODBYE {
            self.take();
            self.poll();
            self.cable.link.idle();
        }
        for handle in handles {
            self.sockets.get_mut::<Socket<'_>>(handle).abort();
            self.poll();
            self.sockets.remove(handle);
        }
        asked
    }
}

impl<L: Link> Ethernet<L> {
    fn ask_all(&mut self, ask: Ask<'_>, handles: &mut Vec<SocketHandle>) -> io::Result<Asked> {
        let began = Instant::now();
        for last in (0..=ask.beside).map(|n| n == ask.beside) {
            let handle = self.connect(ask.port)?;
            handles.push(handle);
            let (mut said, mut answer) = (false, Vec::new());
            loop {
                self.poll();
                self.take();
                let socket = self.sockets.get_mut::<Socket<'_>>(handle);
                let request = ask.request.filter(|_| last);
                match socket.state() {
                    State::Closed if said && answer.is_empty() => return Ok(Asked::Refused),
                    State::Closed if !said => return Ok(Asked::Refused),
                    State::Established | State::CloseWait if !said => match request {
                        None => break,
                        Some(request) => {
                            let _ = socket.send_slice(request.as_bytes());
                            said = true;
                        }
                    },
                    _ => {}
                }
                while socket.can_recv() && answer.len() < ANSWER {
                    let _ = socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes)));
                }
                let over = matches!(socket.state(), State::CloseWait | State::Closed | State::TimeWait);
                if said && (over || answer.len() >= ANSWER) {
                    return Ok(Asked::Answer(answer));
                }
                if began.elapsed() > ask.wait {
                    return Ok(match (said, answer.is_empty()) {
                        (false, _) => Asked::Silent,
                        (true, true) => Asked::Hangs,
                        (true, false) => Asked::Answer(answer),
                    });
                }
                self.cable.link.idle();
            }
        }
        Ok(Asked::Answer(Vec::new()))
    }
}

impl<L: Link> phy::Device for Cable<L> {
    type RxToken<'a>
        = Incoming
    where
        L: 'a;
    type TxToken<'a>
        = Outgoing<'a, L>
    where
        L: 'a;

    fn receive(&mut self, _: Moment) -> Option<(Incoming, Outgoing<'_, L>)> {
        let frame = self.others.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.link)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Outgoing<'_, L>> {
        Some(Outgoing(&mut self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.link.mtu().min(1500) + HEADER;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Outgoing<'a, L>(&'a mut L);

impl<L: Link> phy::TxToken for Outgoing<'_, L> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        frame.resize(len.max(60), 0);
        // A frame for which there is no room is lost; TCP sends it again.
        self.0.send(&frame);
        result
    }
}
