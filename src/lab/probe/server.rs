//! The server of a lab: bytes over HTTP, and echoes.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::Ports;
use super::sockets::{For, Many, any6, listen};

/// Requests at a time; more are closed at once.
const REQUESTS: usize = 256;
/// For a request to come, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest request.
const HEAD: u64 = 8192;
/// Most bytes that are given: 100 GB.
const MOST: u64 = 100_000_000_000;
/// Bytes made at a time.
const CHUNK: usize = 64 << 10;
/// Bytes of one connection that wait to be echoed; while there are as many nothing is read.
const WAITING: usize = 64 << 10;
/// From one look whether it is time to end to the next.
const LOOK: Duration = Duration::from_millis(200);

/// The numbers of the sockets that everybody comes to; those of connections follow.
const LISTENER: u64 = 0;
const DATAGRAMS: u64 = 1;
const FIRST: u64 = 2;

/// A server whose ports are open.
#[derive(Debug)]
pub struct Server {
    web: TcpListener,
    echo: TcpListener,
    datagrams: UdpSocket,
}

/// A connection, and what it has not been given back.
#[derive(Debug)]
struct Echo {
    stream: TcpStream,
    out: Vec<u8>,
    waits_for: For,
}

impl Server {
    /// Opens the ports; 0 takes any that is free.
    pub fn open(ports: Ports) -> io::Result<Server> {
        let echo = listen(ports.echo)?;
        let port = echo.local_addr()?.port();
        let datagrams = UdpSocket::bind(any6(port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)))?;
        let server = Server { web: listen(ports.web)?, echo, datagrams };
        server.echo.set_nonblocking(true)?;
        server.datagrams.set_nonblocking(true)?;
        Ok(server)
    }

    /// Where it listens.
    pub fn ports(&self) -> io::Result<Ports> {
        Ok(Ports { web: self.web.local_addr()?.port(), echo: self.echo.local_addr()?.port() })
    }

    /// Serves until somebody says stop.
    pub fn run(self, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let web = self.web;
        std::thread::Builder::new().name("web".into()).spawn(move || serve(&web))?;
        let mut many = Many::new()?;
        many.add(&self.echo, LISTENER, For::Reading)?;
        many.add(&self.datagrams, DATAGRAMS, For::Reading)?;
        let mut connections: HashMap<u64, Echo> = HashMap::new();
        let mut next = FIRST;
        let mut buffer = vec![0; CHUNK];
        while !stop() {
            for number in many.wait(LOOK)? {
                match number {
                    LISTENER => {
                        while let Ok((stream, _)) = self.echo.accept() {
                            stream.set_nonblocking(true)?;
                            let _ = stream.set_nodelay(true); // an echo that waits is slower, and right
                            many.add(&stream, next, For::Reading)?;
                            connections
                                .insert(next, Echo { stream, out: Vec::new(), waits_for: For::Reading });
                            next += 1;
                        }
                    }
                    DATAGRAMS => {
                        while let Ok((n, from)) = self.datagrams.recv_from(&mut buffer) {
                            give_back(&self.datagrams, buffer.get(..n).unwrap_or_default(), from);
                        }
                    }
                    number => {
                        let Some(echo) = connections.get_mut(&number) else { continue };
                        let is_there = echo.turn(&mut buffer).and_then(|waits_for| {
                            if waits_for != echo.waits_for {
                                echo.waits_for = waits_for;
                                many.change(&echo.stream, number, waits_for)?;
                            }
                            Ok(())
                        });
                        if is_there.is_err() {
                            connections.remove(&number);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the kernel has no room for is lost, as datagrams are.
fn give_back(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    let _ = socket.send_to(bytes, to);
}

impl Echo {
    /// Reads and writes what there is; an error ends the connection.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<For> {
        if self.out.len() < WAITING {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.out.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match self.out.len() {
            0 => For::Reading,
            n if n < WAITING => For::Both,
            _ => For::Writing,
        })
    }
}

/// Answers requests, each on a thread of its own.
fn serve(web: &TcpListener) {
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in web.incoming().flatten() {
        if busy.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let done = busy.clone();
        let answer = move || {
            let _ = answer(&stream); // whoever asked has gone
            done.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().spawn(answer).is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one request.
fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.take(HEAD));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.trim_end() != "" {
        line.clear();
    }
    let mut stream = stream;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let is_read = matches!(method, "GET" | "HEAD");
    let amount = match path {
        ("bytes" | "sum", amount) if is_read => amount_of(amount),
        _ => None,
    };
    let head = |code: &str, length: u64| {
        format!(
            "HTTP/1.1 {code}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    match (path.0, amount) {
        ("bytes", Some(amount)) => {
            stream.write_all(head("200 OK", amount).as_bytes())?;
            if method == "GET" {
                bytes_of(amount, |bytes| stream.write_all(bytes))?;
            }
        }
        ("sum", Some(amount)) => {
            let sum = sum_of(amount) + "\n";
            stream.write_all((head("200 OK", sum.len() as u64) + &sum).as_bytes())?;
        }
        _ => {
            let text = "ask for /bytes/100M, or for /sum/100M\n";
            stream.write_all((head("404 Not Found", text.len() as u64) + text).as_bytes())?;
        }
    }
    Ok(())
}

/// `1000`, `64K`, `100M`, `2G`: thousands, as disks are sold.
fn amount_of(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let times = match &text[digits.len()..] {
        "" => 1,
        "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(times).filter(|amount| *amount <= MOST)
}

/// So many bytes, which look like chance and are the same every time.
pub fn bytes_of<E>(amount: u64, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut chunk = vec![0; CHUNK];
    ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut chunk);
    let mut left = amount;
    for number in 0u64.. {
        if left == 0 {
            break;
        }
        // No chunk is like another, so none can be missing, come twice or in the place of another.
        if let Some(place) = chunk.first_chunk_mut() {
            *place = number.to_be_bytes();
        }
        let n = left.min(CHUNK as u64) as usize;
        take(chunk.get(..n).unwrap_or_default())?;
        left -= n as u64;
    }
    Ok(())
}

/// The SHA-256 of these bytes, in hexadecimal.
pub fn sum_of(amount: u64) -> String {
    let mut sum = Sha256::new();
    let _: Result<(), std::convert::Infallible> = bytes_of(amount, |bytes| {
        sum.update(bytes);
        Ok(())
    });
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        assert_eq!(
            ["0", "17", "64K", "100M", "2G"].map(amount_of),
            [0, 17, 64_000, 100_000_000, 2_000_000_000].map(Some)
        );
        for wrong in ["", "K", "1KM", "-1", "1.5M", "M1", "101G", "99999999999999999999"] {
            assert_eq!(amount_of(wrong), None, "{wrong}");
        }
    }

    /// The same bytes every time, however many of them one asks for.
    #[test]
    fn fewer_bytes_are_the_beginning_of_more() {
        let take = |amount| {
            let mut all = Vec::new();
            bytes_of(amount, |bytes| {
                all.extend_from_slice(bytes);
                Ok::<_, ()>(())
            })
            .unwrap();
            all
        };
        let (few, many) = (take(100_000), take(200_001));
        assert_eq!((few.len(), many.len()), (100_000, 200_001));
        assert!(many.starts_with(&few));
        // FIPS 180-2: of nothing.
        assert_eq!(sum_of(0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_ne!(sum_of(1000), sum_of(1001));
    }
}
