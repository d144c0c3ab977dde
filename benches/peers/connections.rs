//! Connections that speak something: handshake, protocol, data of an IMIX both ways, FIN from both sides. Each pair of ends has four connections in the
//! capture, whose sequence numbers lie a quarter of all numbers apart: so every SYN is newer than what was there before, in the next lap as well, and
//! opens its flow anew (RFC 6191); a SYN that is merely sent again would not. Of ten connections five are TLS, three HTTP (five requests each), one SSH, and one says nothing that anybody knows.
//!
//! 256 are open at a time, and each sends one packet in its turn, so that their flows are not warm in the first cache.

use std::collections::VecDeque;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::dpdk::soft::pcap::{Error, Writer};

#[path = "../../tests/common/hello.rs"]
mod hello;
#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../tests/common/inner.rs"]
pub mod inner;

use inner::{End, tcp, v4, wrap};

/// In tables.
pub const NAME: &str = "connections, IMIX both ways";
/// Pairs of ends, and connections.
const PAIRS: u32 = 512;
pub const CONNECTIONS: u32 = 4 * PAIRS;
/// Packets of each: three of the handshake, 28 with data, three of the end.
const PACKETS: u32 = 34;
/// Frames of the capture.
pub const FRAMES: u32 = CONNECTIONS * PACKETS;
/// Open at a time.
const OPEN: usize = 256;
/// Payloads of an IMIX of inner packets of 64, 512 and 1400 bytes, seven, four and one of twelve.
const IMIX: [usize; 12] = [24, 472, 24, 24, 472, 24, 1360, 24, 472, 24, 24, 472];

/// One connection: what each side says, in the order in which it is said.
struct Connection {
    ends: [End; 2],
    /// Outer port, and cookie.
    port: u16,
    cookie: u32,
    steps: VecDeque<(bool, &'static str, Vec<u8>)>,
    sequence: [u32; 2],
}

/// Writes the capture.
pub fn write(path: &Path) -> Result<(), Error> {
    let mut writer = Writer::create(path)?;
    let mut written = 0u64;
    for frame in frames() {
        writer.write(1_000_000_000 + written * 1_000, &frame)?;
        written += 1;
    }
    assert_eq!(written, u64::from(FRAMES));
    writer.finish().map(drop)
}

/// Its frames.
pub fn frames() -> impl Iterator<Item = Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut waiting = 0..CONNECTIONS;
    let mut open: VecDeque<Connection> =
        waiting.by_ref().take(OPEN).map(|n| Connection::new(n, &mut random)).collect();
    std::iter::from_fn(move || {
        loop {
            let mut connection = open.pop_front()?;
            if let Some(frame) = connection.next() {
                open.push_back(connection);
                return Some(frame);
            }
            open.extend(waiting.next().map(|n| Connection::new(n, &mut random)));
        }
    })
}

/// What is said on a connection that stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the other bench uses it")]
pub enum Open {
    /// A TLS handshake, then data both ways, a segment of each side in turn.
    Tls,
    /// A request, and an answer whose body does not end: two segments, which the client then acknowledges.
    Body,
}

/// So many connections at a time, each with so many packets; the data is in segments of `len` bytes.
#[allow(dead_code, reason = "the other bench uses it")]
pub fn open(what: Open, connections: u32, packets: usize, len: usize) -> impl Iterator<Item = Vec<u8>> {
    let connection = move |n: u32| {
        let port = if what == Open::Tls { 443 } else { 80 };
        let mut said = match what {
            Open::Tls => tls(n),
            Open::Body => {
                let get = format!("GET /{n} HTTP/1.1\r\nHost: www.host-{n}.example.com\r\n\r\n");
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
                vec![(false, get.into_bytes()), (true, answer.into())]
            }
        };
        for turn in said.len()..packets - 3 {
            said.push(match what {
                Open::Tls => (turn % 2 == 1, vec![0x5a; len]),
                Open::Body if turn % 3 == 2 => (false, Vec::new()),
                Open::Body => (true, vec![b'y'; len]),
            });
        }
        Connection::saying(n, port, said, [n << 12, !n << 12])
    };
    let mut all: Vec<Connection> = (0..connections).map(connection).collect();
    (0..packets).flat_map(move |_| all.iter_mut().filter_map(Connection::next).collect::<Vec<_>>())
}

impl Connection {
    fn new(n: u32, random: &mut ChaCha8Rng) -> Connection {
        let (cookie, turn, n) = (n, n / PAIRS, n % PAIRS);
        let kind = match n % 10 {
            0..5 => 0,
            5..8 => 1,
            8 => 2,
            _ => 3,
        };
        let mut said = match kind {
            0 => tls(n),
            1 => http(n),
            2 => vec![
                (true, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec()),
                (false, b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
            ],
            _ => Vec::new(),
        };
        // The rest is nobody's to read.
        for turn in said.len()..PACKETS as usize - 6 {
            let mut bytes = vec![0; IMIX[(turn + n as usize) % IMIX.len()]];
            random.fill_bytes(&mut bytes);
            said.push((turn % 2 == 1, bytes));
        }
        let sequence = [0x1234_5678u32, 0x0765_4321].map(|first| (first ^ n << 8).wrapping_add(turn << 30));
        let mut connection = Connection::saying(n, [443, 80, 22, 9000][kind], said, sequence);
        connection.cookie = cookie;
        connection.steps.extend([
            (false, "FA", Vec::new()),
            (true, "FA", Vec::new()),
            (false, "A", Vec::new()),
        ]);
        connection
    }

    /// The handshake, and what is said, in its order.
    fn saying(n: u32, server: u16, said: Vec<(bool, Vec<u8>)>, sequence: [u32; 2]) -> Connection {
        let [_, _, c, d] = n.to_be_bytes();
        let client = 20_000 + (n % 30_000) as u16;
        let ends = [v4(10, 0, c, d, client), v4(172, 16, d, c, server)];
        let mut steps =
            VecDeque::from([(false, "S", Vec::new()), (true, "SA", Vec::new()), (false, "A", Vec::new())]);
        steps.extend(said.into_iter().map(|(reply, bytes)| (reply, "PA", bytes)));
        Connection { ends, port: 60_000 + (n % 5_000) as u16, cookie: n, steps, sequence }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let (reply, flags, payload) = self.steps.pop_front()?;
        let side = usize::from(reply);
        let inner = tcp(
            self.ends[side],
            self.ends[1 - side],
            flags,
            self.sequence[side],
            self.sequence[1 - side],
            &payload,
        );
        let one = u32::from(flags.contains(['S', 'F']));
        self.sequence[side] = self.sequence[side].wrapping_add(payload.len() as u32 + one);
        Some(wrap(&inner, self.cookie, self.port))
    }
}

/// A TLS 1.3 handshake as far as it can be read: a hello of 512 bytes or so, and its answer in front of what is encrypted.
fn tls(n: u32) -> Vec<(bool, Vec<u8>)> {
    let name = format!("{}.host-{n}.example.com", "a".repeat(40));
    let hello = hello::client_hello(0x0303, &[0x0304, 0x0303], Some(&name));
    let mut answer = hello::server_hello(0x0303);
    answer.extend([0x17, 3, 3, 4, 0]);
    answer.resize(1360, 0x5a);
    vec![(false, hello), (true, answer)]
}

/// Five requests on one connection, each answered by a head and 1,900 bytes in five segments or less; the last fills what is left.
fn http(n: u32) -> Vec<(bool, Vec<u8>)> {
    let mut said = Vec::new();
    for request in 0..4 {
        let get = format!(
            "GET /images/{n}/{request}.png?size=large HTTP/1.1\r\nHost: www.host-{n}.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: image/avif,image/webp,*/*\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
        );
        said.push((false, get.into_bytes()));
        let sizes = [472usize, 24, 1360, 24, 472];
        let head = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: image/png\r\nContent-Length: ";
        // The head shares the first segment with the body.
        let rest: usize = sizes[1..].iter().sum();
        let first = sizes[0] - head.len() - 4 - 4;
        let mut answer = format!("{head}{}\r\n\r\n", rest + first).into_bytes();
        assert_eq!(answer.len() + first, sizes[0]);
        answer.resize(sizes[0], b'x');
        said.push((true, answer));
        said.extend(sizes[1..].iter().map(|len| (true, vec![b'y'; *len])));
    }
    // What is left of the packets: the client acknowledges.
    said.extend((said.len()..PACKETS as usize - 6).map(|_| (false, Vec::new())));
    said
}
