//! Requests that wait for their answers, to be told together: one `http` record for each, out of bounded memory.
//!
//! A connection of which a request was not answered yet has a place, of which each worker has a fixed number; what is in them has a bound in bytes. When either
//! is used up the oldest connection, roughly, is told as far as it came. So is a request that nobody answers for a while.

use std::collections::VecDeque;

use super::head::{Answer, Request, host_of};
use crate::event::facts::{Http, Text};
use crate::packet::{Meta, View};
use crate::stage::Cx;

/// Requests of one connection that wait; those beyond are told at once.
const MOST_ASKED: usize = 16;
/// What is kept of a packet: its IP header, without options.
const HEAD: usize = 40;
/// A request that is not answered by then is told without, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;

/// One connection.
#[derive(Debug, Default)]
struct Place {
    serial: u32,
    used: bool,
    since: u64,
    asked: VecDeque<Box<Http>>,
    /// Whose body is under way.
    answered: Option<Box<Http>>,
    bytes: usize,
    meta: Meta,
    head: [[u8; HEAD / 2]; 2],
}

/// Where a connection's requests are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Plus one; 0: none.
    place: u16,
    serial: u32,
}

/// Those of a worker.
#[derive(Debug)]
pub struct Records {
    all: Box<[Place]>,
    free: Vec<u16>,
    hand: usize,
    bytes: usize,
    most: usize,
}

fn size(http: &Http) -> usize {
    let texts = [
        &http.hostname,
        &http.url,
        &http.http_user_agent,
        &http.http_content_type,
        &http.http_refer,
        &http.http_method,
        &http.protocol,
        &http.redirect,
    ];
    size_of::<Http>() + texts.into_iter().flatten().map(|text| text.as_str().len()).sum::<usize>()
}

fn text(bytes: Option<&[u8]>) -> Option<Text> {
    bytes.map(Text::new)
}

/// A request as far as it goes. Allocates: for those who know that it is wanted.
pub fn asked(request: &Request<'_>) -> Box<Http> {
    let (name, port) = request.host.map_or((None, None), |host| {
        let (name, port) = host_of(host);
        (Some(name), port)
    });
    Box::new(Http {
        hostname: text(name),
        http_port: port,
        url: text(Some(request.written)),
        http_user_agent: text(request.user_agent),
        http_refer: text(request.referer),
        http_method: text(Some(request.method)),
        protocol: text((!request.version.is_empty()).then_some(request.version)),
        ..Http::default()
    })
}

fn answer_to(mut http: Box<Http>, answer: &Answer<'_>) -> Box<Http> {
    http.status = Some(answer.status);
    http.http_content_type = text(answer.content_type);
    http.redirect = text(answer.location);
    if http.protocol.is_none() {
        http.protocol = text(Some(answer.version));
    }
    http
}

fn emit(http: Box<Http>, packet: &View<'_>, cx: &mut Cx<'_>) {
    cx.emit(packet.meta(), packet.inner(), http);
}

impl Records {
    /// So many connections, and so many bytes of requests.
    pub fn new(count: u16, most: usize) -> Self {
        let all = (0..count).map(|_| Place::default()).collect();
        Records { all, free: (0..count).rev().collect(), hand: 0, bytes: 0, most }
    }

    /// Bytes that they take at most.
    pub fn memory(count: u16, most: usize) -> usize {
        usize::from(count) * (size_of::<Place>() + size_of::<u16>()) + most
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Place> {
        let place = self.all.get_mut(usize::from(ticket.place.checked_sub(1)?))?;
        (place.used && place.serial == ticket.serial).then_some(place)
    }

    /// The connection's place, or a new one.
    fn open(&mut self, ticket: Ticket, packet: &View<'_>, cx: &mut Cx<'_>) -> Option<Ticket> {
        if self.get(ticket).is_some() {
            return Some(ticket);
        }
        if self.free.is_empty() {
            let oldest = self.turn(|place| place.used, self.all.len())?;
            self.close(oldest, cx);
        }
        let at = self.free.pop()?;
        let place = self.all.get_mut(usize::from(at))?;
        (place.used, place.since) = (true, cx.now);
        for (kept, now) in place.head.as_flattened_mut().iter_mut().zip(packet.inner()) {
            *kept = *now;
        }
        let len = packet.inner().len().min(HEAD);
        place.meta =
            Meta { inner: 0, inner_len: len as u16, transport: 0, transport_len: 0, ..*packet.meta() };
        Some(Ticket { place: at + 1, serial: place.serial })
    }

    /// A request that may be answered.
    pub fn request(&mut self, ticket: &mut Ticket, http: Box<Http>, packet: &View<'_>, cx: &mut Cx<'_>) {
        let bytes = size(&http);
        while self.bytes + bytes > self.most
            && let Some(oldest) = self.turn(|place| place.used, self.all.len())
        {
            self.close(oldest, cx);
        }
        let Some(open) = self.open(*ticket, packet, cx) else { return emit(http, packet, cx) };
        *ticket = open;
        let Some(place) = self.get(open) else { return };
        if place.asked.len() >= MOST_ASKED {
            return emit(http, packet, cx);
        }
        place.asked.push_back(http);
        self.weigh(open);
    }

    /// An answer to the oldest request; `matched`: there was one.
    pub fn answer(
        &mut self,
        ticket: &mut Ticket,
        answer: &Answer<'_>,
        matched: bool,
        packet: &View<'_>,
        cx: &mut Cx<'_>,
    ) {
        let Some(open) = self.open(*ticket, packet, cx) else { return };
        *ticket = open;
        let Some(place) = self.get(open) else { return };
        let asked = if matched { place.asked.pop_front() } else { None };
        if let Some(cut) = place.answered.replace(answer_to(asked.unwrap_or_default(), answer)) {
            emit(cut, packet, cx);
        }
        self.weigh(open);
    }

    /// The answer at hand has ended, after so many bytes of its body.
    pub fn end(&mut self, ticket: Ticket, length: u64, packet: &View<'_>, cx: &mut Cx<'_>) {
        let Some(place) = self.get(ticket) else { return };
        let Some(mut http) = place.answered.take() else { return };
        http.length = length;
        emit(http, packet, cx);
        place.since = cx.now;
        let empty = place.asked.is_empty();
        self.weigh(ticket);
        if empty {
            self.give_back(ticket);
        }
    }

    /// Counts anew what a connection has.
    fn weigh(&mut self, ticket: Ticket) {
        let Some(place) = self.get(ticket) else { return };
        let before = place.bytes;
        place.bytes = place.asked.iter().chain(&place.answered).map(|http| size(http)).sum();
        let after = place.bytes;
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// Tells what is left of a connection.
    pub fn close(&mut self, ticket: Ticket, cx: &mut Cx<'_>) {
        let Some(place) = self.get(ticket) else { return };
        let packet = View::new(place.head.as_flattened(), &place.meta);
        for http in place.answered.take().into_iter().chain(place.asked.drain(..)) {
            emit(http, &packet, cx);
        }
        let bytes = place.bytes;
        self.bytes -= bytes.min(self.bytes);
        self.give_back(ticket);
    }

    fn give_back(&mut self, ticket: Ticket) {
        let Some(place) = self.get(ticket) else { return };
        (place.used, place.bytes, place.serial) = (false, 0, place.serial.wrapping_add(1));
        self.free.push(ticket.place - 1);
    }

    /// What nobody answers is told as it is: one of a few that are looked at in turn.
    pub fn expire(&mut self, look_at: usize, cx: &mut Cx<'_>) {
        if self.free.len() == self.all.len() {
            return;
        }
        let before = cx.now.saturating_sub(PATIENCE);
        if let Some(ticket) = self.turn(|place| place.used && place.since < before, look_at) {
            self.close(ticket, cx);
        }
    }

    /// Tells all that is left.
    pub fn stop(&mut self, cx: &mut Cx<'_>) {
        while let Some(ticket) = self.turn(|place| place.used, self.all.len()) {
            self.close(ticket, cx);
        }
    }

    fn turn(&mut self, is_it: impl Fn(&Place) -> bool, look_at: usize) -> Option<Ticket> {
        for _ in 0..look_at {
            self.hand = if self.hand < self.all.len() { self.hand } else { 0 };
            let place = self.all.get(self.hand)?;
            self.hand += 1;
            if is_it(place) {
                return Some(Ticket { place: self.hand as u16, serial: place.serial });
            }
        }
        None
    }
}
