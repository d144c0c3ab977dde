//! Messages out of one direction of a connection: a head, then a body that its reader says how to count, then the next head.
//!
//! A head that lies whole in the bytes at hand is given on there; one in pieces is gathered in a place ([`Places`]). Bodies are counted as they pass,
//! and never copied.

use memchr::memchr;

use super::shape;
use crate::stages::places::{Places, Ticket};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// RFC 9112 section 7.1.
    Chunked,
    /// All that comes.
    UntilEnd,
    /// What follows is no HTTP (CONNECT, Upgrade).
    Opaque,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Empty lines may come in front of a head (RFC 9112 section 2.2).
    #[default]
    Before,
    Head(Line),
    Skip(u64),
    /// Digits of a chunk's size so far.
    Size(u8, u64),
    /// The rest of its line.
    Extension(u64),
    Data(u64),
    /// The line's end behind it.
    DataEnd,
    Trailer(Line),
    /// A body that ends with the connection.
    Until,
    /// In the middle of something: the next bytes that begin like a head are one.
    Seek,
    /// Nothing more is looked at.
    Rest,
}

/// What there is of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// Nothing but a CR.
    Return,
    Begun,
}

impl Line {
    /// Bytes up to the end of the next empty line, if that is among them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(at) = memchr(b'\n', bytes.get(from..)?) {
            let line = bytes.get(from..from + at).unwrap_or(&[]);
            let empty = match *self {
                Line::Empty => matches!(line, [] | [b'\r']),
                Line::Return => line.is_empty(),
                Line::Begun => false,
            };
            (*self, from) = (Line::Empty, from + at + 1);
            if empty {
                return Some(from);
            }
        }
        *self = match (*self, bytes.get(from..).unwrap_or(&[])) {
            (line, []) => line,
            (Line::Empty, [b'\r']) => Line::Return,
            _ => Line::Begun,
        };
        None
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    state: State,
    ticket: Ticket,
    /// Bytes of the head that were gathered.
    have: u32,
    /// Bytes of the body at hand so far.
    body: u64,
}

/// What the next bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// There are no more bytes.
    Over,
    /// A head. [`Side::body`] has to be told what follows before the next bytes are taken.
    Head(&'a [u8]),
    /// The body at hand has ended.
    End,
    /// A head that is longer than a place.
    TooLong,
    /// A head whose place went to another.
    Lost,
    /// No chunk.
    Broken,
}

impl Side {
    /// Has a head begun that has not ended?
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// What follows the head that was given on.
    pub fn body(&mut self, body: Body) {
        self.body = 0;
        self.state = match body {
            Body::None | Body::Length(0) => State::Before,
            Body::Length(n) => State::Skip(n),
            Body::Chunked => State::Size(0, 0),
            Body::UntilEnd => State::Until,
            Body::Opaque => State::Rest,
        };
    }

    /// Bytes of the body that was read last, without what makes chunks of it.
    pub fn counted(&self) -> u64 {
        self.body
    }

    /// Is a body under way?
    pub fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Before | State::Head(_) | State::Seek | State::Rest)
    }

    /// The body at hand is none after all: what was said of its length was said of another's. False if some of it has come.
    pub fn without_body(&mut self) -> bool {
        let untouched =
            self.body == 0 && matches!(self.state, State::Skip(_) | State::Size(0, _) | State::Until);
        if untouched {
            self.state = State::Before;
        }
        untouched
    }

    /// Nothing more is read.
    pub fn stop(&mut self, places: &mut Places) {
        self.leave(places, State::Rest);
    }

    /// Nobody knows where it stands: it goes on where a head begins.
    pub fn seek(&mut self, places: &mut Places) {
        self.leave(places, State::Seek);
    }

    fn leave(&mut self, places: &mut Places, state: State) {
        if self.have > 0 && places.left_in(self.ticket).is_some() {
            places.end(self.ticket);
        }
        (self.state, self.have) = (state, 0);
    }

    /// The head at hand as far as it has come.
    pub fn begun<'a>(&self, places: &'a Places) -> &'a [u8] {
        if self.have == 0 { &[] } else { places.left_in(self.ticket).unwrap_or(&[]) }
    }

    /// So many bytes were never seen. False if it cannot go on behind them.
    pub fn gap(&mut self, len: u32) -> bool {
        let len = u64::from(len);
        match &mut self.state {
            State::Skip(left) | State::Data(left) if len <= *left => *left -= len,
            State::Until => {}
            State::Rest | State::Seek => return true,
            _ => return false,
        }
        self.body += len;
        true
    }

    /// Takes bytes up to the end of a head or of a body, and leaves the rest in `bytes`.
    pub fn take<'a, 'b: 'a>(&mut self, bytes: &mut &'b [u8], places: &'a mut Places, now: u64) -> Step<'a> {
        loop {
            let all = *bytes;
            let Some((&byte, rest)) = all.split_first() else { return Step::Over };
            match &mut self.state {
                State::Before => match byte {
                    b'\r' | b'\n' => *bytes = rest,
                    _ => self.state = State::Head(Line::Empty),
                },
                State::Head(line) => {
                    let end = line.end(all);
                    let (part, rest) = all.split_at_checked(end.unwrap_or(all.len())).unwrap_or((all, &[]));
                    *bytes = rest;
                    return self.gather(part, end.is_some(), places, now);
                }
                State::Skip(left) => {
                    let before = *left;
                    *bytes = skip(all, left);
                    self.body += before - *left;
                    if *left == 0 {
                        self.state = State::Before;
                        return Step::End;
                    }
                }
                State::Size(digits, size) => {
                    let digit = (byte as char).to_digit(16);
                    match digit {
                        Some(digit) if *digits < 15 => {
                            (*digits, *size) = (*digits + 1, *size << 4 | u64::from(digit));
                            *bytes = rest;
                        }
                        None if *digits > 0 && matches!(byte, b'\r' | b'\n' | b';' | b' ' | b'\t') => {
                            self.state = State::Extension(*size);
                        }
                        _ => return self.broken(),
                    }
                }
                State::Extension(size) => {
                    let end = memchr(b'\n', all);
                    *bytes = end.and_then(|at| all.get(at + 1..)).unwrap_or(&[]);
                    if end.is_some() {
                        self.state =
                            if *size == 0 { State::Trailer(Line::Empty) } else { State::Data(*size) };
                    }
                }
                State::Data(left) => {
                    let before = *left;
                    *bytes = skip(all, left);
                    self.body += before - *left;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                }
                State::DataEnd => {
                    *bytes = rest;
                    match byte {
                        b'\r' => {}
                        b'\n' => self.state = State::Size(0, 0),
                        _ => return self.broken(),
                    }
                }
                State::Trailer(line) => {
                    let end = line.end(all);
                    *bytes = end.and_then(|end| all.get(end..)).unwrap_or(&[]);
                    if end.is_some() {
                        self.state = State::Before;
                        return Step::End;
                    }
                }
                State::Until => {
                    self.body += all.len() as u64;
                    *bytes = &[];
                }
                State::Seek if shape::begins(all) == Some(true) => self.state = State::Before,
                State::Seek | State::Rest => *bytes = &[],
            }
        }
    }

    fn broken(&mut self) -> Step<'static> {
        self.state = State::Rest;
        Step::Broken
    }

    /// The next part of a head, which may be its end.
    fn gather<'a, 'b: 'a>(
        &mut self,
        part: &'b [u8],
        whole: bool,
        places: &'a mut Places,
        now: u64,
    ) -> Step<'a> {
        let all = self.have as usize + part.len();
        if all > places.size() {
            self.stop(places);
            return Step::TooLong;
        }
        if whole && self.have == 0 {
            return Step::Head(part);
        }
        if self.have == 0 {
            self.ticket = places.begin(now);
        }
        if places.left_in(self.ticket).is_none() {
            self.stop(places);
            return Step::Lost;
        }
        places.add(self.ticket, part);
        self.have = all as u32;
        if !whole {
            return Step::Over;
        }
        self.have = 0;
        places.end(self.ticket);
        // Its bytes stay where they are until another head begins.
        places.left_in(self.ticket).map_or(Step::Lost, Step::Head)
    }
}

/// The bytes behind those of `left` that are here.
fn skip<'a>(all: &'a [u8], left: &mut u64) -> &'a [u8] {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(all.len());
    *left -= n as u64;
    all.get(n..).unwrap_or(&[])
}
