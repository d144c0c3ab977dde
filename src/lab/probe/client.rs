//! The client of a lab: sends, compares what comes back, and keeps the [ledger](super::figures).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use super::figures::{Broken, Ledger, Patience};
use super::sockets::{For, Many, connect};
use super::{MESSAGE, message, number_of};

/// Longest rest: what is read from standard input waits as long.
const REST: Duration = Duration::from_millis(5);
/// From one look at what nobody waits for any more to the next.
const AGE: Duration = Duration::from_millis(100);
/// Connections that are begun in one round at the start.
const AT_ONCE: usize = 20;
/// What the first window is called.
pub const START: &str = "start";

/// Kinds of sockets, in the upper half of their numbers.
const CONNECTION: u64 = 0;
const FLOW: u64 = 1 << 62;
const OPENING: u64 = 2 << 62;
const KIND: u64 = 3 << 62;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// To whom: flows are dealt out among these.
    pub to: Vec<IpAddr>,
    /// Port of the echo.
    pub port: u16,
    /// TCP connections that stay open.
    pub connections: u32,
    /// Flows of datagrams.
    pub datagrams: u32,
    /// From one message of a connection, or datagram of a flow, to the next.
    pub interval: Duration,
    /// New connections in a second.
    pub opens_per_s: u32,
    /// How long one waits for echoes.
    pub patience: Patience,
}

/// What is asked over standard input.
#[derive(Debug)]
enum Asked {
    Mark(String),
    Settle,
    Stop,
    Unknown(String),
}

/// A TCP connection.
#[derive(Debug)]
struct Tcp {
    stream: TcpStream,
    is_open: bool,
    /// There was no room for all of `out`.
    is_full: bool,
    out: Vec<u8>,
    back: Vec<u8>,
}

/// What happens next, and when.
#[derive(Clone, Copy, Debug)]
enum Due {
    Message(u32),
    Datagram(u32),
}

/// A client at work.
#[derive(Debug)]
pub struct Client {
    load: Load,
    begin: Instant,
    ledger: Ledger,
    many: Many,
    connections: Vec<Option<Tcp>>,
    flows: Vec<UdpSocket>,
    openings: BTreeMap<u64, Tcp>,
    next_opening: u64,
    due: VecDeque<(Duration, Due)>,
    due_opening: Duration,
}

impl Client {
    /// Sends and listens until standard input says stop, or ends.
    pub fn run(load: Load, input: impl io::Read + Send + 'static, mut output: impl Write) -> io::Result<()> {
        let begin = Instant::now();
        let ledger = Ledger::new(
            load.datagrams as usize,
            load.connections as usize,
            load.patience,
            START,
            Duration::ZERO,
        );
        let mut client = Client {
            load,
            begin,
            ledger,
            many: Many::new()?,
            connections: Vec::new(),
            flows: Vec::new(),
            openings: BTreeMap::new(),
            next_opening: 0,
            due: VecDeque::new(),
            due_opening: Duration::ZERO,
        };
        let asked = listen(input)?;
        client.open_flows()?;
        client.open_connections()?;
        say(
            &mut output,
            json!({ "event": "ready", "connections": client.open(), "of": client.load.connections }),
        )?;
        client.schedule();
        client.rounds(&asked, &mut output)
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The address that flows of this number go to.
    fn to(&self, number: u64) -> io::Result<SocketAddr> {
        let to = self.load.to.get(number as usize % self.load.to.len().max(1));
        let to = to.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no address to send to"))?;
        Ok(SocketAddr::new(*to, self.load.port))
    }

    fn open_flows(&mut self) -> io::Result<()> {
        for number in 0..u64::from(self.load.datagrams) {
            let to = self.to(number)?;
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            self.many.add(&socket, FLOW | number, For::Reading)?;
            self.flows.push(socket);
        }
        Ok(())
    }

    /// Opens all connections, a few at a time; those that are not open after the patience are broken.
    fn open_connections(&mut self) -> io::Result<()> {
        let deadline = self.load.patience.connections;
        while self.now() < deadline {
            let begun = self.connections.len() as u32;
            for number in begun..self.load.connections.min(begun + AT_ONCE as u32) {
                let tcp = self.begin_connection(CONNECTION | u64::from(number), u64::from(number));
                if tcp.is_none() {
                    self.ledger.broke(number, Broken::Closed);
                }
                self.connections.push(tcp);
            }
            let settled = self.connections.iter().flatten().all(|tcp| tcp.is_open);
            if settled && self.connections.len() == self.load.connections as usize {
                return Ok(());
            }
            self.listen_once(REST)?;
        }
        let late = self
            .connections
            .iter()
            .enumerate()
            .filter(|(_, tcp)| tcp.as_ref().is_some_and(|tcp| !tcp.is_open));
        let late: Vec<u32> = late.map(|(number, _)| number as u32).collect();
        let never = self.connections.len() as u32..self.load.connections;
        for number in late.into_iter().chain(never) {
            self.ledger.broke(number, Broken::Closed);
            if let Some(place) = self.connections.get_mut(number as usize) {
                *place = None;
            }
        }
        Ok(())
    }

    fn open(&self) -> usize {
        self.connections.iter().flatten().filter(|tcp| tcp.is_open).count()
    }

    fn begin_connection(&self, number: u64, deal: u64) -> Option<Tcp> {
        let stream = connect(self.to(deal).ok()?).ok()?;
        let _ = stream.set_nodelay(true); // messages that wait are slower, and right
        self.many.add(&stream, number, For::Writing).ok()?;
        Some(Tcp { stream, is_open: false, is_full: false, out: Vec::new(), back: Vec::new() })
    }

    /// Everybody's first turn, spread over the interval.
    fn schedule(&mut self) {
        let now = self.now();
        let messages = (0..self.load.connections).map(|n| (n, self.load.connections, Due::Message(n)));
        let datagrams = (0..self.load.datagrams).map(|n| (n, self.load.datagrams, Due::Datagram(n)));
        let at = |(n, of, due): (u32, u32, Due)| (now + self.load.interval * n / of.max(1), due);
        let mut all: Vec<(Duration, Due)> = messages.chain(datagrams).map(at).collect();
        all.sort_by_key(|(at, _)| *at);
        self.due = all.into();
        self.due_opening = now;
    }

    fn rounds(&mut self, asked: &Receiver<Asked>, output: &mut impl Write) -> io::Result<()> {
        // What is to be settled before an answer is given, and whether it is the last.
        let mut settling: Option<(Duration, bool)> = None;
        let mut aged = self.now();
        loop {
            let is_last = settling.is_some_and(|(_, last)| last);
            let rest = if is_last { REST } else { self.send_what_is_due() };
            self.listen_once(rest.min(REST))?;
            let now = self.now();
            if now.saturating_sub(aged) > AGE {
                aged = now;
                self.age(now);
            }
            if let Some((until, last)) = settling {
                if self.ledger.is_settled(until, now) {
                    settling = None;
                    let figures = self.ledger.figures(now);
                    match last {
                        true => return say(output, json!({ "event": "stopped", "windows": figures })),
                        false => say(output, json!({ "event": "settled", "figures": figures.last() }))?,
                    }
                }
                continue;
            }
            match asked.try_recv() {
                Ok(Asked::Mark(name)) => self.ledger.mark(&name, self.now()),
                Ok(Asked::Settle) => settling = Some((self.now(), false)),
                Ok(Asked::Stop) => settling = Some((self.now(), true)),
                Ok(Asked::Unknown(line)) => {
                    let error = format!("{line:?}: write mark NAME, settle or stop");
                    say(output, json!({ "event": "error", "text": error }))?;
                }
                Err(TryRecvError::Empty) => {}
                // Whoever started this is gone.
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// How long there is nothing to send.
    fn send_what_is_due(&mut self) -> Duration {
        let now = self.now();
        while let Some((at, due)) = self.due.front().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_front();
            match due {
                Due::Message(number) => self.send_message(number),
                Due::Datagram(number) => self.send_datagram(number),
            }
            // Who is late does not make up for it with a burst.
            let next = (at + self.load.interval).max(now);
            self.due.push_back((next, due));
        }
        if self.load.opens_per_s > 0 && self.due_opening <= now {
            self.begin_opening();
            let gap = Duration::from_secs(1) / self.load.opens_per_s;
            self.due_opening = (self.due_opening + gap).max(now);
        }
        self.due.front().map_or(REST, |(at, _)| at.saturating_sub(now))
    }

    fn send_message(&mut self, number: u32) {
        let now = self.now();
        let Some(tcp) = self.connections.get_mut(number as usize).and_then(Option::as_mut) else { return };
        let bytes = message(number, self.ledger.message(number, now));
        tcp.out.extend_from_slice(&bytes);
        if let Err(how) = tcp.write(&self.many, CONNECTION | u64::from(number)) {
            self.lose(number, how);
        }
    }

    fn send_datagram(&mut self, number: u32) {
        let now = self.now();
        let bytes = message(number, self.ledger.datagram(number, now));
        if let Some(socket) = self.flows.get(number as usize) {
            let _ = socket.send(&bytes); // an ICMP error, or no room: it is lost
        }
    }

    fn begin_opening(&mut self) {
        let (id, now) = (self.next_opening, self.now());
        self.next_opening += 1;
        self.ledger.opening(id, now);
        match self.begin_connection(OPENING | id, id) {
            Some(tcp) => drop(self.openings.insert(id, tcp)),
            None => self.ledger.not_opened(id),
        }
    }

    fn listen_once(&mut self, longest: Duration) -> io::Result<()> {
        for number in self.many.wait(longest)? {
            let index = number & !KIND;
            match number & KIND {
                FLOW => self.hear_datagrams(index as u32),
                OPENING => self.hear_opening(index),
                _ => self.hear_connection(index as u32),
            }
        }
        Ok(())
    }

    fn hear_datagrams(&mut self, number: u32) {
        let now = self.now();
        let Some(socket) = self.flows.get(number as usize) else { return };
        let mut buffer = [0; 2 * MESSAGE];
        loop {
            match socket.recv(&mut buffer) {
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    // What is not what was sent is as good as lost.
                    if let Some(of) = number_of(bytes).filter(|of| bytes == message(number, *of)) {
                        self.ledger.echoed(number, of, now);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {} // an ICMP error, once
            }
        }
    }

    fn hear_connection(&mut self, number: u32) {
        let now = self.now();
        let Some(tcp) = self.connections.get_mut(number as usize).and_then(Option::as_mut) else { return };
        let mut outcome = tcp.turn(&self.many, CONNECTION | u64::from(number));
        while let Some(bytes) = tcp.next_message() {
            match self.ledger.expected(number) {
                Some(expected) if bytes == message(number, expected) => self.ledger.answered(number, now),
                _ => outcome = Err(Broken::Garbled),
            }
        }
        if let Err(how) = outcome {
            self.lose(number, how);
        }
    }

    fn lose(&mut self, number: u32, how: Broken) {
        self.ledger.broke(number, how);
        if let Some(place) = self.connections.get_mut(number as usize) {
            *place = None;
        }
    }

    fn hear_opening(&mut self, id: u64) {
        let now = self.now();
        let Some(tcp) = self.openings.get_mut(&id) else { return };
        let was_open = tcp.is_open;
        let mut outcome = tcp.turn(&self.many, OPENING | id);
        let expected = message(0, id);
        if outcome.is_ok() && tcp.is_open && !was_open {
            tcp.out.extend_from_slice(&expected);
            outcome = tcp.write(&self.many, OPENING | id);
        }
        match tcp.next_message() {
            Some(bytes) if bytes == expected => self.ledger.opened(id, now),
            Some(_) => self.ledger.not_opened(id),
            None if outcome.is_err() => self.ledger.not_opened(id),
            None => return,
        }
        self.openings.remove(&id);
    }

    fn age(&mut self, now: Duration) {
        self.ledger.age(now);
        for id in self.ledger.overdue(now) {
            self.ledger.not_opened(id);
            self.openings.remove(&id);
        }
    }
}

impl Tcp {
    /// Reads and writes what there is.
    fn turn(&mut self, many: &Many, number: u64) -> Result<(), Broken> {
        if !self.is_open {
            if let Ok(Some(_)) | Err(_) = self.stream.take_error() {
                return Err(Broken::Reset);
            }
            if self.stream.peer_addr().is_err() {
                return Ok(()); // not yet
            }
            self.is_open = true;
            let _ = many.change(&self.stream, number, For::Reading);
        }
        self.write(many, number)?;
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Broken::Closed),
                Ok(n) => self.back.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Broken::Reset),
            }
        }
    }

    fn write(&mut self, many: &Many, number: u64) -> Result<(), Broken> {
        if !self.is_open || self.out.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.out) {
            Ok(n) => drop(self.out.drain(..n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Broken::Reset),
        }
        // What did not fit goes when there is room.
        let is_full = !self.out.is_empty();
        if is_full != self.is_full {
            self.is_full = is_full;
            let what = if is_full { For::Both } else { For::Reading };
            let _ = many.change(&self.stream, number, what);
        }
        Ok(())
    }

    /// The next message that has come back whole.
    fn next_message(&mut self) -> Option<[u8; MESSAGE]> {
        let bytes = *self.back.first_chunk::<MESSAGE>()?;
        self.back.drain(..MESSAGE);
        Some(bytes)
    }
}

/// Reads standard input on a thread of its own, since that waits.
fn listen(input: impl io::Read + Send + 'static) -> io::Result<Receiver<Asked>> {
    let (to, asked) = channel();
    let read = move || {
        for line in io::BufReader::new(input).lines().map_while(Result::ok) {
            let said = match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
                ("mark", name) if !name.is_empty() => Asked::Mark(name.to_owned()),
                ("settle", "") => Asked::Settle,
                ("stop", "") => Asked::Stop,
                _ => Asked::Unknown(line.clone()),
            };
            if to.send(said).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("asked".into()).spawn(read)?;
    Ok(asked)
}

fn say(output: &mut impl Write, line: serde_json::Value) -> io::Result<()> {
    writeln!(output, "{line}")?;
    output.flush()
}
