//! The same answers on an ordinary socket of the kernel (`management.listen`): for the machine itself, a container's health check, systemd.
//!
//! Never waits: sockets that are not ready are asked again in the next round. At most [`CONNECTIONS`] at a time; who is slower than
//! [`PATIENCE`] is cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::health::Status;
use super::host::CheckCounts;
use super::http::Exchange;
use crate::dpdk::Error;

const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(3);

/// A listening socket with its connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    connections: Vec<Connection>,
    counts: CheckCounts,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    since: Duration,
    exchange: Exchange,
}

enum Fate {
    Wait,
    Over,
    Cut,
}

impl Listener {
    /// Listens there.
    pub fn open(address: SocketAddr) -> Result<Self, Error> {
        let refused = |error: std::io::Error| {
            Error::refused(
                format!("management.listen = {address}: {error}"),
                "another program may have it: choose another port, or leave the setting out",
            )
        };
        let socket = TcpListener::bind(address).map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        Ok(Listener { socket, connections: Vec::new(), counts: CheckCounts::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// What it has counted.
    pub fn counts(&self) -> CheckCounts {
        self.counts
    }

    /// One round. True if somebody is there.
    pub fn poll(&mut self, at: Duration, status: &Status) -> bool {
        while self.connections.len() < CONNECTIONS
            && let Ok((stream, _)) = self.socket.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                self.counts.connections += 1;
                self.connections.push(Connection { stream, since: at, exchange: Exchange::default() });
            }
        }
        let Listener { connections, counts, .. } = self;
        connections.retain_mut(|connection| match connection.serve(at, status, counts) {
            Fate::Wait => true,
            Fate::Over => false,
            Fate::Cut => {
                counts.cut += 1;
                false
            }
        });
        !self.connections.is_empty()
    }
}

impl Connection {
    fn serve(&mut self, at: Duration, status: &Status, counts: &mut CheckCounts) -> Fate {
        let mut bytes = [0; 1024];
        while self.exchange.outcome().is_none() {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    counts.connects_only += u64::from(!self.exchange.has_begun());
                    return Fate::Over;
                }
                Ok(n) => {
                    self.exchange.take(bytes.get(..n).unwrap_or(&[]), status, at);
                    if let Some(outcome) = self.exchange.outcome() {
                        counts.request(outcome);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Over,
            }
        }
        while !self.exchange.pending().is_empty() {
            match self.stream.write(self.exchange.pending()) {
                Ok(0) => return Fate::Over,
                Ok(n) => self.exchange.sent(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Over,
            }
        }
        if self.exchange.is_over() {
            return Fate::Over;
        }
        if at.saturating_sub(self.since) >= PATIENCE { Fate::Cut } else { Fate::Wait }
    }
}
