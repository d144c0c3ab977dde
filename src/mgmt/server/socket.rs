//! Sockets of the kernel that carry requests: TCP, and unix sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// From this machine or another one.
    Tcp(TcpListener),
    /// From this machine, by the name of a file.
    Unix(UnixListener),
}

/// One connection.
#[derive(Debug)]
pub enum Socket {
    /// Of a [`Listener::Tcp`].
    Tcp(TcpStream),
    /// Of a [`Listener::Unix`].
    Unix(UnixStream),
}

/// The same call on whichever it is.
macro_rules! each {
    ($on:expr, $kind:ident, $socket:ident => $call:expr) => {
        match $on {
            $kind::Tcp($socket) => $call,
            $kind::Unix($socket) => $call,
        }
    };
}

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        each!(self, Listener, socket => socket.set_nonblocking(true))
    }

    /// The next connection; it does not block either.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(socket) => socket.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(socket) => socket.accept().map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, Listener, socket => socket.as_fd())
    }
}

impl Socket {
    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        each!(self, Socket, stream => stream.set_nonblocking(on))
    }

    pub(super) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        each!(self, Socket, stream => stream.set_read_timeout(Some(time)))
    }

    pub(super) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        each!(self, Socket, stream => stream.set_write_timeout(Some(time)))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        each!(self, Socket, stream => stream.shutdown(how))
    }

    pub(super) fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, Socket, stream => stream.as_fd())
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        each!(self, Socket, stream => stream.read(into))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, Socket, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        each!(self, Socket, stream => stream.flush())
    }
}
