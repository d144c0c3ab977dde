//! Raw sockets: whole outer packets go out by one (`IPPROTO_RAW`), copies of all UDP packets come in by the other. The kernel routes, asks for
//! neighbours, makes outer header checksums right and puts outer fragments together. Needs CAP_NET_RAW.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with, sockopt,
};

use super::{ANSWER, Ask, Asked, Sent, Wire};

/// Asked of the kernel for what comes back; it may give less.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Packets of others that are passed over before anybody looks at the clock.
const STRANGERS: u32 = 64;

/// A way over the kernel's network.
#[derive(Debug)]
pub struct Kernel {
    us: Ipv4Addr,
    appliance: Ipv4Addr,
    port: u16,
    out: OwnedFd,
    back: OwnedFd,
    /// Keeps the kernel from answering "port unreachable" to what comes back.
    _port: Option<UdpSocket>,
    packet: Vec<u8>,
}

impl Kernel {
    /// A way to this address, from that one of ours (without one: whichever the kernel would use).
    pub fn open(appliance: Ipv4Addr, us: Option<Ipv4Addr>, port: u16) -> io::Result<Self> {
        let us = match us {
            Some(us) => us,
            None => own_address(appliance, port)?,
        };
        let raw = |protocol| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol))
        };
        let (out, back) = (raw(ipproto::RAW)?, raw(ipproto::UDP)?);
        // With CAP_NET_ADMIN more than the system's limit, otherwise as much as that.
        let _ = sockopt::set_socket_recv_buffer_size_force(&back, RECEIVE_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&back, RECEIVE_BUFFER));
        // Somebody who listens there already serves as well.
        let taken = UdpSocket::bind((us, port)).ok();
        if let Some(socket) = &taken {
            let _ = sockopt::set_socket_recv_buffer_size(socket, 1);
        }
        Ok(Kernel { us, appliance, port, out, back, _port: taken, packet: vec![0; usize::from(u16::MAX)] })
    }

    /// Tunnel traffic, or anything over UDP from the appliance.
    fn is_ours(&self, packet: &[u8]) -> bool {
        let header = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
        let port = packet.get(header + 2..header + 4);
        packet.get(12..16) == Some(&self.appliance.octets()) || port == Some(&self.port.to_be_bytes())
    }
}

/// The address that the kernel would send from.
fn own_address(appliance: Ipv4Addr, port: u16) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((appliance, port))?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(_) => Err(ErrorKind::AddrNotAvailable.into()),
    }
}

impl Wire for Kernel {
    fn us(&self) -> Ipv4Addr {
        self.us
    }

    fn appliance(&self) -> Ipv4Addr {
        self.appliance
    }

    fn keeps_header(&self) -> bool {
        false
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<Sent> {
        match sendto(&self.out, packet, SendFlags::empty(), &SocketAddrV4::new(self.appliance, 0)) {
            Ok(_) => Ok(Sent::Yes),
            Err(Errno::MSGSIZE) => Ok(Sent::TooLong),
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(Sent::Full),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + wait;
        for strangers in 0.. {
            if strangers >= STRANGERS && Instant::now() > deadline {
                break;
            }
            match recv(&self.back, &mut self.packet[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    let packet = &self.packet[..len.min(self.packet.len())];
                    if self.is_ours(packet) {
                        return Ok(Some(packet.to_vec()));
                    }
                }
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = Timespec::try_from(left).ok();
                    match poll(&mut [PollFd::new(&self.back, PollFlags::IN)], left.as_ref()) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }

    fn ask(&mut self, ask: Ask<'_>) -> io::Result<Asked> {
        let deadline = Instant::now() + ask.wait;
        let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let address = SocketAddr::from((self.appliance, ask.port));
        let mut beside = Vec::new();
        for last in (0..=ask.beside).map(|n| n == ask.beside) {
            let mut stream = match TcpStream::connect_timeout(&address, left()) {
                Ok(stream) => stream,
                Err(error) => return over(error, Asked::Silent),
            };
            let Some(request) = ask.request.filter(|_| last) else {
                beside.push(stream);
                continue;
            };
            let mut answer = Vec::new();
            let mut some = [0; 1024];
            if let Err(error) = stream.write_all(request.as_bytes()) {
                return over(error, Asked::Hangs);
            }
            loop {
                stream.set_read_timeout(Some(left()))?;
                match stream.read(&mut some) {
                    Ok(0) => return Ok(Asked::Answer(answer)),
                    Ok(n) => answer.extend(&some[..n]),
                    // What has come may be all there is to come, if the other side keeps the connection.
                    Err(_) if !answer.is_empty() => return Ok(Asked::Answer(answer)),
                    Err(error) => return over(error, Asked::Hangs),
                }
                if answer.len() >= ANSWER {
                    return Ok(Asked::Answer(answer));
                }
            }
        }
        Ok(Asked::Answer(Vec::new()))
    }
}

/// What an error of a connection says about the appliance, if it does.
fn over(error: io::Error, silent: Asked) -> io::Result<Asked> {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Ok(Asked::Refused)
        }
        ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => Ok(silent),
        _ => Err(error),
    }
}
