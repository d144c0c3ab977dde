//! Sockets that do not wait, and who of many has something to say.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// Connections that may wait for the listener.
const BACKLOG: i32 = 4096;
/// Events taken at a time.
const AT_ONCE: usize = 256;

/// What one waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Something to read.
    Reading,
    /// Room to write, or the end of connecting.
    Writing,
    /// Either.
    Both,
}

impl For {
    fn flags(self) -> epoll::EventFlags {
        match self {
            For::Reading => epoll::EventFlags::IN,
            For::Writing => epoll::EventFlags::OUT,
            For::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// Waits for many sockets. A socket that is closed is forgotten.
pub struct Many {
    epoll: OwnedFd,
    events: [epoll::Event; AT_ONCE],
}

impl std::fmt::Debug for Many {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Many({:?})", self.epoll)
    }
}

impl Many {
    pub fn new() -> io::Result<Many> {
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Ok(Many { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: [nothing; AT_ONCE] })
    }

    /// One more socket, known by this number.
    pub fn add(&self, socket: impl AsFd, number: u64, what: For) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number), what.flags())?)
    }

    /// One waits for something else of it.
    pub fn change(&self, socket: impl AsFd, number: u64, what: For) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(number), what.flags())?)
    }

    /// The numbers of those that have something, or of none when the time is over.
    pub fn wait(&mut self, longest: Duration) -> io::Result<Vec<u64>> {
        let time = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        let n = match epoll::wait(&self.epoll, &mut self.events[..], Some(&time)) {
            Err(rustix::io::Errno::INTR) => 0,
            other => other?,
        };
        Ok(self.events.iter().take(n).map(|event| event.data.u64()).collect())
    }
}

/// A connection on its way.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Listens on a port over IPv4 and IPv6, or over IPv4 where there is no IPv6.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let with = |address: SocketAddr| -> io::Result<TcpListener> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            net::sockopt::set_ipv6_v6only(&socket, false)?;
        }
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    with(any6(port)).or_else(|_| with(SocketAddr::from(([0, 0, 0, 0], port))))
}

/// Every address.
pub fn any6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}
