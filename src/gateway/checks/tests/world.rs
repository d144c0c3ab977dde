//! Targets that behave well and badly, on a wire in memory, under a clock of its own.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State as Tcp};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, Icmpv4DstUnreachable, Icmpv4Packet,
    Icmpv4Repr, IpCidr, IpProtocol, Ipv4Cidr, Ipv4Packet, Ipv4Repr,
};

use crate::gateway::checks::arp::BROADCAST;
use crate::gateway::checks::{Change, Checked, Checker, HealthCheck, Mac, Stand, stamp};
use crate::gateway::targets::{State, TargetId};
use crate::mgmt::Device;

pub const OURS: Mac = [2, 0, 0, 0, 0, 1];
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The port on which targets listen.
pub const PORT: u16 = 8080;
/// How far the clock goes at a time.
const TICK: Duration = Duration::from_millis(10);

/// What a target does.
#[derive(Clone)]
pub enum Manner {
    /// It is not there at all.
    Away,
    /// It answers ARP, and nothing else.
    Silent,
    /// Nobody listens.
    Refuses,
    /// ICMP "administratively prohibited" for whatever comes.
    Prohibits,
    /// It accepts, and says nothing.
    Mute,
    /// It accepts, and resets the connection when something is said.
    Resets,
    /// It accepts, says this, and closes.
    Says(Vec<u8>),
    /// One byte of this in each tick of the clock.
    Trickles(Vec<u8>),
    /// This again and again, as much as goes out.
    Goes(&'static [u8]),
    /// It says this under TLS.
    Tls(Arc<ServerConfig>, Vec<u8>),
}

pub fn ok() -> Manner {
    Manner::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n".to_vec())
}

/// A target.
pub struct Server {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub manner: Manner,
    iface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    said: usize,
    tls: Option<ServerConnection>,
    /// What it was asked.
    pub heard: Vec<u8>,
    /// SYNs, plain acknowledgments and resets that came.
    pub syns: u32,
    pub acks: u32,
    pub resets: u32,
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 8192]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.listen(PORT).unwrap();
    socket
}

impl Server {
    pub fn new(n: u8, manner: Manner) -> Self {
        let (mac, address) = ([2, 0, 0, 0, 1, n], Ipv4Addr::new(10, 0, 0, n));
        let mut device = Device::new(1500);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = n.into();
        let mut iface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|own| own.push(IpCidr::Ipv4(Ipv4Cidr::new(address, 24))).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket());
        let [syns, acks, resets] = [0; 3];
        Server {
            mac,
            address,
            manner,
            iface,
            device,
            sockets,
            socket,
            said: 0,
            tls: None,
            heard: Vec::new(),
            syns,
            acks,
            resets,
        }
    }

    /// It has another MAC address from now on.
    pub fn move_to(&mut self, mac: Mac) {
        self.mac = mac;
        self.iface.set_hardware_addr(HardwareAddress::Ethernet(EthernetAddress(mac)));
    }

    /// It has this address as well.
    pub fn also(&mut self, address: Ipv4Addr) {
        self.iface.update_ip_addrs(|own| own.push(IpCidr::Ipv4(Ipv4Cidr::new(address, 32))).unwrap());
    }

    /// A frame reaches it, from another wire than the world's.
    pub fn hear(&mut self, frame: &[u8]) {
        self.take(frame);
    }

    /// What it says to that wire.
    pub fn say(&mut self, now: Duration) -> Vec<Vec<u8>> {
        self.act(now);
        let mut frames = Vec::new();
        self.device.drain(|frame| frames.push(frame.to_vec()));
        frames
    }

    /// A frame reaches it.
    fn take(&mut self, frame: &[u8]) {
        let to: Mac = *frame.first_chunk().unwrap();
        if to != self.mac && to != BROADCAST {
            return;
        }
        let is_ip = frame[12..14] == [8, 0];
        if is_ip && frame[23] == 6 {
            self.syns += u32::from(frame[47] & 2 != 0);
            self.acks += u32::from(frame[47] == 0x10);
            self.resets += u32::from(frame[47] & 4 != 0);
        }
        match (&self.manner, is_ip) {
            (Manner::Away, _) | (Manner::Silent, true) => {}
            (Manner::Prohibits, true) => {
                let mut answer = prohibited(frame);
                self.device.put(&mut answer); // it goes out as it is: see `reflect`
                self.reflect();
            }
            _ => self.device.put(&mut frame.to_vec()),
        }
    }

    /// Sends what was put, unread.
    fn reflect(&mut self) {
        use smoltcp::phy::{Device, RxToken, TxToken};
        let (rx, tx) = self.device.receive(smoltcp::time::Instant::ZERO).unwrap();
        rx.consume(|frame| tx.consume(frame.len(), |place| place.copy_from_slice(frame)));
    }

    fn act(&mut self, now: Duration) {
        self.iface.poll(stamp(now), &mut self.device, &mut self.sockets);
        let over = {
            let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
            if matches!(self.manner, Manner::Refuses) {
                socket.abort();
                false
            } else {
                !socket.is_open()
            }
        };
        if over {
            self.sockets.remove(self.socket);
            self.socket = self.sockets.add(socket());
            (self.said, self.tls) = (0, None);
        }
        self.speak();
        self.iface.poll(stamp(now), &mut self.device, &mut self.sockets);
    }

    fn speak(&mut self) {
        let Server { manner, sockets, socket, said, tls, heard, .. } = self;
        let socket = sockets.get_mut::<Socket<'_>>(*socket);
        if !matches!(socket.state(), Tcp::Established | Tcp::CloseWait) {
            return;
        }
        let mut bytes = vec![0; 8192];
        let n = socket.recv_slice(&mut bytes).unwrap_or(0);
        bytes.truncate(n);
        let mut say = |socket: &mut Socket<'static>, text: &[u8], most: usize| {
            let rest = &text[*said..];
            let n = socket.send_slice(&rest[..rest.len().min(most)]).unwrap_or(0);
            *said += n;
            *said == text.len()
        };
        match manner {
            Manner::Resets if n > 0 => socket.abort(),
            Manner::Says(text) => {
                heard.extend(&bytes);
                if heard.ends_with(b"\r\n\r\n") && say(socket, text, text.len()) {
                    socket.close();
                }
            }
            Manner::Trickles(text) => drop(say(socket, text, 1)),
            Manner::Goes(text) => {
                while socket.can_send() {
                    socket.send_slice(text).unwrap();
                }
            }
            Manner::Tls(config, text) => {
                let tls = tls.get_or_insert_with(|| ServerConnection::new(config.clone()).unwrap());
                let mut bytes = &bytes[..];
                while !bytes.is_empty() {
                    tls.read_tls(&mut bytes).unwrap();
                    let _ = tls.process_new_packets(); // an error is told by an alert
                }
                let mut plain = Vec::new();
                let _ = tls.reader().read_to_end(&mut plain);
                heard.extend(&plain);
                if plain.ends_with(b"\r\n\r\n") {
                    tls.writer().write_all(text).unwrap();
                }
                let mut out = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut out).unwrap();
                }
                assert_eq!(socket.send_slice(&out).unwrap(), out.len(), "there is room");
            }
            _ => {}
        }
    }
}

/// ICMP for a frame, to whoever sent it.
fn prohibited(frame: &[u8]) -> Vec<u8> {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let header = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
    let icmp = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::CommProhibited,
        header,
        data: &ip.payload()[..8],
    };
    let outer = Ipv4Repr {
        src_addr: header.dst_addr,
        dst_addr: header.src_addr,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut answer = vec![0; 14 + outer.buffer_len() + icmp.buffer_len()];
    let mut eth = EthernetFrame::new_unchecked(&mut answer[..]);
    eth.set_dst_addr(EthernetAddress(*frame[6..].first_chunk().unwrap()));
    eth.set_src_addr(EthernetAddress(*frame.first_chunk().unwrap()));
    eth.set_ethertype(EthernetProtocol::Ipv4);
    outer.emit(&mut Ipv4Packet::new_unchecked(eth.payload_mut()), &ChecksumCapabilities::default());
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut answer[34..]), &ChecksumCapabilities::default());
    answer
}

/// A key and a certificate of nobody, signed by itself.
pub fn certificate(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap())
}

/// A checker and its targets.
pub struct World {
    pub now: Duration,
    pub checker: Checker,
    pub device: Device,
    pub servers: Vec<Server>,
    pub changes: Vec<(Duration, Change)>,
}

/// How targets are checked here.
pub fn settings(more: &str) -> HealthCheck {
    let text = format!("port = {PORT}\ninterval = \"5s\"\ntimeout = \"2s\"\nhealthy_threshold = 3\n{more}");
    let (check, wrongs, warnings) = toml::from_str::<crate::gateway::checks::Written>(&text).unwrap().check();
    assert!(wrongs.is_empty() && warnings.is_empty(), "{wrongs:?} {warnings:?}");
    check
}

impl World {
    /// Targets with these manners at 10.0.0.10 and on.
    pub fn new(settings: HealthCheck, manners: Vec<Manner>) -> Self {
        let stand = Stand { mac: OURS, net: "10.0.0.1/24".parse().unwrap(), router: None, mtu: 1500 };
        let servers: Vec<Server> =
            manners.into_iter().zip(10..).map(|(manner, n)| Server::new(n, manner)).collect();
        let mut checker = Checker::new(settings, stand, 7);
        let now = Duration::from_secs(100);
        checker.set_targets(
            servers.iter().zip(0..).map(|(server, n)| checked(n, server.address, None)).collect(),
            now,
        );
        World { now, checker, device: Device::new(1500), servers, changes: Vec::new() }
    }

    /// Everything that happens until so much time has passed.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            self.now += TICK;
        }
    }

    /// The targets hear and answer; the checker does not.
    pub fn settle_without_checker(&mut self) {
        let World { now, device, servers, .. } = self;
        device.drain(|frame| servers.iter_mut().for_each(|server| server.take(frame)));
        for server in servers {
            server.act(*now);
            server.device.drain(|frame| device.put(&mut frame.to_vec()));
        }
    }

    /// Frames go back and forth until nobody says anything more, or for a while if somebody never ends.
    pub fn settle(&mut self) {
        let World { now, checker, device, servers, changes } = self;
        for _ in 0..20 {
            changes.extend(checker.poll(*now, device).into_iter().map(|change| (*now, change)));
            let mut moved = false;
            device.drain(|frame| {
                moved = true;
                servers.iter_mut().for_each(|server| server.take(frame));
            });
            for server in &mut *servers {
                server.act(*now);
                server.device.drain(|frame| {
                    moved = true;
                    device.put(&mut frame.to_vec());
                });
            }
            if !moved {
                break;
            }
        }
    }

    /// What the last check of each came to.
    pub fn reasons(&self) -> Vec<String> {
        let targets = self.checker.snapshot(self.now).targets;
        targets.into_iter().map(|target| target.reason.unwrap_or_default()).collect()
    }

    pub fn states(&self) -> Vec<State> {
        self.checker.snapshot(self.now).targets.iter().map(|target| target.state).collect()
    }
}

pub fn checked(id: u16, address: Ipv4Addr, mac: Option<Mac>) -> Checked {
    Checked { id: TargetId(id), address, mac }
}
