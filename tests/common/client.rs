//! A client on the far end of a port: TCP over smoltcp, for checks of the host stack.

use std::time::{Duration, Instant as Wall};

use sluicegate::app::RunningApp;
use sluicegate::dpdk::soft::Wire;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The far end of a port.
pub trait Line {
    fn send(&mut self, frame: Vec<u8>);
    fn receive(&mut self) -> Option<Vec<u8>>;
}

impl Line for Wire {
    fn send(&mut self, frame: Vec<u8>) {
        Wire::send(self, frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        Wire::receive(self)
    }
}

/// What the client is plugged into.
pub struct Cable {
    line: Box<dyn Line>,
    /// Frames that came which are tunnel traffic.
    pub tunnel: Vec<Vec<u8>>,
}

impl phy::Device for Cable {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Send<'_>)> {
        loop {
            let frame = self.line.receive()?;
            // GENEVE from or to its port.
            if frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[0x17, 0xc1]) {
                self.tunnel.push(frame);
                continue;
            }
            return Some((Frame(frame), Send(&mut *self.line)));
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Send<'_>> {
        Some(Send(&mut *self.line))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub struct Frame(Vec<u8>);

impl phy::RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub struct Send<'a>(&'a mut dyn Line);

impl phy::TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.send(frame);
        result
    }
}

/// A host on the wire.
pub struct Client {
    pub cable: Cable,
    iface: Interface,
    sockets: SocketSet<'static>,
    server: Ipv4Address,
    port: u16,
    began: Wall,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was refused.
    Refused,
    /// It was made, and these bytes came before it ended.
    Answer(String),
    /// Nothing came.
    Nothing,
}

impl Came {
    pub fn code(&self) -> Option<u16> {
        match self {
            Came::Answer(text) => text.split(' ').nth(1)?.parse().ok(),
            _ => None,
        }
    }
}

impl Client {
    /// A host with this address in a /24, whose server is that one.
    pub fn new(line: impl Line + 'static, address: [u8; 4], server: [u8; 4]) -> Client {
        let mut cable = Cable { line: Box::new(line), tunnel: Vec::new() };
        let mac = EthernetAddress([2, 0, 0, 0, 9, address[3]]);
        let mut iface =
            Interface::new(Config::new(HardwareAddress::Ethernet(mac)), &mut cable, Instant::ZERO);
        iface.update_ip_addrs(|own| {
            own.push(IpCidr::new(Ipv4Address::from(address).into(), 24)).expect("room");
        });
        let sockets = SocketSet::new(Vec::new());
        Client { cable, iface, sockets, server: server.into(), port: 40_000, began: Wall::now() }
    }

    pub fn poll(&mut self) {
        let now = Instant::from_micros(self.began.elapsed().as_micros() as i64);
        self.iface.poll(now, &mut self.cable, &mut self.sockets);
    }

    /// Begins a connection.
    pub fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.port = if self.port == 65_000 { 40_000 } else { self.port + 1 };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.iface.context(), (self.server, port), self.port).expect("a new socket connects");
        handle
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn forget(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Connects, says this, and reads until the other side closes.
    pub fn ask(&mut self, app: &mut RunningApp, port: u16, request: &str) -> Came {
        let handle = self.connect(port);
        let (deadline, mut said, mut answer) = (Wall::now() + PATIENCE, false, Vec::new());
        let came = loop {
            turn(app, self);
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes))).expect("bytes");
            }
            match socket.state() {
                State::Closed if !said => break Came::Refused,
                State::Closed | State::CloseWait | State::LastAck | State::TimeWait => {
                    break Came::Answer(String::from_utf8_lossy(&answer).into_owned());
                }
                State::Established if !said => {
                    socket.send_slice(request.as_bytes()).expect("room");
                    said = true;
                    if request.is_empty() {
                        socket.close();
                    }
                }
                _ => {}
            }
            if Wall::now() > deadline {
                break Came::Nothing;
            }
        };
        self.sockets.get_mut::<Socket<'_>>(handle).close();
        for _ in 0..3 {
            turn(app, self);
        }
        self.forget(handle);
        came
    }

    /// A GET of this path.
    pub fn get(&mut self, app: &mut RunningApp, port: u16, path: &str) -> Came {
        self.ask(app, port, &format!("GET {path} HTTP/1.1\r\nHost: appliance\r\n\r\n"))
    }
}

/// Both sides do what they have to do.
pub fn turn(app: &mut RunningApp, client: &mut Client) {
    client.poll();
    app.manage();
    std::thread::yield_now();
    client.poll();
}

/// Turns until it is so.
pub fn until(
    what: &str,
    app: &mut RunningApp,
    client: &mut Client,
    mut so: impl FnMut(&mut RunningApp) -> bool,
) {
    let deadline = Wall::now() + PATIENCE;
    while !so(app) {
        turn(app, client);
        assert!(Wall::now() < deadline, "{what}: {:?}", app.health());
    }
}
