//! What a flow speaks, by its first bytes. Pure: bytes in, an answer out; nothing allocated, and 88 bytes remembered at most.
//!
//! *TCP.* Of each direction the first [`HEAD`] bytes are looked at, in order, however they are cut. What only one protocol begins with decides at once;
//! what several begin with has to fit on both sides, and on one protocol only. When one side has said enough and the other nothing, what fits is
//! taken if the port is that protocol's own, and else nothing. A port never outweighs bytes.
//!
//! *UDP.* Each datagram is looked at whole. One that only one protocol sends decides; one that others could send has to come from both sides, or on that
//! protocol's own port. RTP has nothing but a version and a type: two packets of one source have to follow each other.
//!
//! DNS, mDNS and LLMNR have one form: which it is says the port. So it is with nothing else.
//!
//! *In front.* A PROXY header (v1, v2) and NetBIOS' session request are passed over: what is spoken comes behind them.

use super::fit::Fit::{self, Is, Like, No, NotYet};
use super::fit::HEAD;
use super::media;
use super::table::{DATAGRAMS, Look, MIDDLES, STREAMS, Stream};
use crate::packet::App;

/// Longest PROXY header in text (proxy-protocol.txt section 2.1).
const LONGEST_LINE: u16 = 107;

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is that.
    Is(App),
    /// More has to come.
    NotYet,
    /// It is none of those that are known.
    No,
}

/// The first bytes of both directions of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heads {
    /// The originator's, and the responder's.
    heads: [Head; 2],
}

/// Of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; HEAD],
    len: u8,
    /// Bytes in front of them that are not looked at: so many, or up to the end of a line.
    skip: u16,
    in_line: bool,
    /// They had something in front of them.
    skipped: bool,
    /// Bytes behind that, so far.
    spoken: u32,
    /// No more comes.
    over: bool,
}

/// Where a connection leads to, and whether that is known.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The originator's port, then the responder's.
    pub ports: [u16; 2],
    /// Who opened it is a guess.
    pub is_guess: bool,
}

impl Ends {
    fn have(&self, ports: &[u16]) -> bool {
        ports.contains(&self.ports[1]) || (self.is_guess && ports.contains(&self.ports[0]))
    }
}

impl Heads {
    /// More bytes of a direction. Those of them that do not belong to something in front of what is spoken.
    pub fn take<'a>(&mut self, reply: bool, bytes: &'a [u8]) -> &'a [u8] {
        let head = self.of(reply);
        let (before, was_behind) = (head.spoken, head.skipped);
        head.take(bytes);
        let new = if head.skipped == was_behind { head.spoken - before } else { head.spoken };
        bytes.get(bytes.len().saturating_sub(new as usize)..).unwrap_or(&[])
    }

    /// No more comes of a direction, or nobody can say what.
    pub fn end(&mut self, reply: bool) {
        self.of(reply).over = true;
    }

    /// Nothing more is waited for.
    pub fn give_up(&mut self) {
        self.heads.iter_mut().for_each(|head| head.over = true);
    }

    /// No more comes of it.
    pub fn has_ended(&self, reply: bool) -> bool {
        let [forth, back] = &self.heads;
        if reply { back.over } else { forth.over }
    }

    fn of(&mut self, reply: bool) -> &mut Head {
        let [forth, back] = &mut self.heads;
        if reply { back } else { forth }
    }

    /// The first bytes of a direction but the last `new` that it has said, and how many were between them that nobody kept.
    pub fn before(&self, reply: bool, new: usize) -> (&[u8], u32) {
        let [forth, back] = &self.heads;
        let head = if reply { back } else { forth };
        let old = head.spoken.saturating_sub(new as u32);
        let kept = head.bytes();
        (kept.get(..old as usize).unwrap_or(kept), old.saturating_sub(HEAD as u32))
    }

    /// Nobody has said anything.
    pub fn are_empty(&self) -> bool {
        self.heads.iter().all(|head| head.len == 0)
    }

    /// What is it?
    pub fn answer(&self, ends: &Ends) -> Answer {
        let [client, server] = &self.heads;
        let side = |head: &Head, own: Look, other: Look| {
            let fit = head.fit(own);
            if ends.is_guess { fit.max(head.fit(other)) } else { fit }
        };
        let asks = |head: &Head, shape: &Stream| side(head, shape.client, shape.server);
        let answers = |head: &Head, shape: &Stream| side(head, shape.server, shape.client);
        let certain = certain(client, &asks).or_else(|| certain(server, &answers));
        if let Some(shape) = certain {
            return Answer::Is(shape.app);
        }
        let middle = MIDDLES.iter().find(|(_, look)| {
            ends.is_guess && self.heads.iter().any(|head| head.len > 0 && head.fit(*look) == Is)
        });
        if let Some((app, _)) = middle {
            return Answer::Is(*app);
        }
        let (mut both, mut several, mut one, mut open) = (None, false, None, false);
        for shape in STREAMS {
            let (asks, answers) = (asks(client, shape), answers(server, shape));
            // What one side rules out is not waited for.
            let waits = (client.len > 0 && asks == NotYet) || (server.len > 0 && answers == NotYet);
            open |= waits && asks != No && answers != No;
            match (asks, answers) {
                (Like, Like) => {
                    several |= both.is_some();
                    if both.is_none() || ends.have(shape.ports) {
                        both = Some(shape);
                    }
                }
                (Like, _) if server.len == 0 && ends.have(shape.ports) => one = Some(shape),
                (_, Like) if client.len == 0 && ends.have(shape.ports) => one = Some(shape),
                _ => {}
            }
        }
        match both {
            Some(shape) if !open && (!several || ends.have(shape.ports)) => return Answer::Is(shape.app),
            _ => {}
        }
        if !(client.is_full() && server.is_full()) {
            return Answer::NotYet;
        }
        match one {
            Some(shape) => Answer::Is(shape.app),
            None => Answer::No,
        }
    }
}

/// What a direction alone has decided. If it is several, the one that had to see least, as if bytes had come one by one.
fn certain(head: &Head, fit: &impl Fn(&Head, &Stream) -> Fit) -> Option<&'static Stream> {
    let mut found = STREAMS.iter().filter(|shape| head.len > 0 && fit(head, shape) == Is);
    let first = found.next()?;
    if found.next().is_none() {
        return Some(first);
    }
    let shorter = (1..=head.len).map(|len| Head { len, over: false, ..*head });
    shorter.flat_map(|head| STREAMS.iter().find(|shape| fit(&head, shape) == Is)).next()
}

impl Head {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// No byte more will be looked at.
    fn is_full(&self) -> bool {
        self.over || usize::from(self.len) == HEAD
    }

    fn fit(&self, look: fn(&[u8]) -> Fit) -> Fit {
        match look(self.bytes()) {
            NotYet if self.is_full() && self.len > 0 => No,
            fit => fit,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        loop {
            if self.in_line {
                let line = bytes.get(..usize::from(self.skip)).unwrap_or(bytes);
                let end = line.iter().position(|b| *b == b'\n');
                let len = end.map_or(line.len(), |end| end + 1);
                self.skip -= len as u16;
                self.in_line = end.is_none() && self.skip > 0;
                bytes = bytes.get(len..).unwrap_or(&[]);
                if self.in_line {
                    return;
                }
                self.skip = 0;
            }
            let skip = bytes.len().min(usize::from(self.skip));
            self.skip -= skip as u16;
            bytes = bytes.get(skip..).unwrap_or(&[]);
            let room = self.bytes.iter_mut().skip(self.len.into());
            let n = room.zip(bytes).map(|(to, from)| *to = *from).count();
            self.len += n as u8;
            self.spoken = self.spoken.saturating_add(bytes.len() as u32);
            bytes = bytes.get(n..).unwrap_or(&[]);
            if self.skipped || !self.pass_over() {
                return;
            }
        }
    }

    /// Is there something in front of what is spoken? Then it goes.
    fn pass_over(&mut self) -> bool {
        let (bytes, mut in_line) = (self.bytes(), false);
        let len = match bytes {
            // "PROXY TCP4 ", and the end of its line.
            [b'P', b'R', b'O', b'X', b'Y', b' ', b'T' | b'U', ..] => {
                let end = bytes.iter().position(|b| *b == b'\n');
                in_line = end.is_none();
                end.map_or(usize::from(LONGEST_LINE), |end| end + 1)
            }
            [
                b'\r',
                b'\n',
                b'\r',
                b'\n',
                0,
                b'\r',
                b'\n',
                b'Q',
                b'U',
                b'I',
                b'T',
                b'\n',
                0x20 | 0x21,
                _,
                high,
                low,
                ..,
            ] => 16 + usize::from(u16::from_be_bytes([*high, *low])),
            // Who calls, and who is called; a yes (RFC 1002 section 4.3).
            [0x81, 0, 0, len @ 68..=72, ..] => 4 + usize::from(*len),
            [0x82, 0, 0, 0, ..] => 4,
            _ => return false,
        };
        let had = usize::from(self.len);
        self.skipped = true;
        if let Some(rest) = len.checked_sub(had).filter(|rest| *rest > 0) {
            (self.skip, self.len) = (rest.min(usize::from(u16::MAX)) as u16, 0);
            self.in_line = in_line;
        } else {
            self.bytes.copy_within(len..had, 0);
            self.len = (had - len) as u8;
        }
        self.spoken = self.len.into();
        true
    }
}

/// What datagrams of a flow have shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Datagrams {
    /// What each side's could be: a bit for each line of the table.
    like: [u32; 2],
    /// The last of each side that could be RTP: its header.
    media: [Option<[u8; 12]>; 2],
    seen: u8,
}

impl Datagrams {
    /// The next one. After `most` it is nothing that is known.
    pub fn take(&mut self, reply: bool, bytes: &[u8], ports: [u16; 2], most: u8) -> Answer {
        let known = |own: &[u16]| ports.iter().any(|port| own.contains(port));
        let mut like = 0u32;
        for (n, shape) in DATAGRAMS.iter().enumerate() {
            match (shape.look)(bytes) {
                Is => return Answer::Is(in_place(shape.app, ports)),
                Like => like |= 1 << n,
                No | NotYet => {}
            }
        }
        let [forth, back] = &mut self.like;
        let (own, other) = if reply { (back, forth) } else { (forth, back) };
        *own |= like;
        for (n, shape) in DATAGRAMS.iter().enumerate().filter(|(n, _)| like >> n & 1 != 0) {
            let confirmed = match shape.app {
                App::Rtp => self.media.get_mut(usize::from(reply)).is_some_and(|before| {
                    let follows = before.is_some_and(|before| media::follows(&before, bytes));
                    *before = bytes.first_chunk().copied();
                    follows
                }),
                _ => *other >> n & 1 != 0,
            };
            if confirmed || known(shape.ports) {
                return Answer::Is(in_place(shape.app, ports));
            }
        }
        self.seen = self.seen.saturating_add(1);
        if self.seen >= most { Answer::No } else { Answer::NotYet }
    }
}

/// DNS goes by other names on two ports.
fn in_place(app: App, ports: [u16; 2]) -> App {
    match app {
        App::Dns if ports.contains(&5353) => App::Mdns,
        App::Dns if ports.contains(&5355) => App::Llmnr,
        app => app,
    }
}
