//! One end of a connection, after RFC 9293 section 3.10 with RFC 5961 and RFC 7323. Slow and plain: a stream is counted in 64 bits
//! from its SYN, which is byte 0, and becomes sequence numbers only on the wire.

use std::collections::BTreeMap;

use crate::flow::tcp::Segment;
use crate::wire::tcp::{ACK, FIN, RST, SYN};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}
use Phase::*;

#[derive(Clone, Debug)]
pub struct End {
    pub phase: Phase,
    /// Closed by a RST that it believed.
    pub was_reset: bool,
    /// Closed after both FINs.
    pub in_order: bool,
    initial: u32,
    una: u64,
    next: u64,
    /// The most that was ever sent; `next` goes back when it is sent again.
    most: u64,
    pub written: u64,
    pub shut: bool,
    /// Right edge of what the peer allows, and the segment that said so (its place, its acknowledgment).
    limit: u64,
    updated: (u64, u64),
    largest: u64,
    peer: u32,
    pub received: u64,
    pub capacity: u64,
    pub unread: u64,
    /// Right edge of what we allowed: it never goes back.
    edge: u64,
    waiting: BTreeMap<u64, (u64, bool)>,
    offer: Option<u8>,
    peer_offer: Option<u8>,
    pub mss: u64,
}

fn number(initial: u32, offset: u64) -> u32 {
    initial.wrapping_add(offset as u32)
}

/// The offset near `near` in the stream that starts with `initial`; below 0 for what is before its start.
fn offset(initial: u32, near: u64, sequence: u32) -> i64 {
    near as i64 + i64::from(sequence.wrapping_sub(number(initial, near)) as i32)
}

impl End {
    pub fn new(initial: u32, capacity: u64, offer: Option<u8>, mss: u64) -> End {
        End {
            phase: Closed,
            was_reset: false,
            in_order: false,
            initial,
            una: 0,
            next: 0,
            most: 0,
            written: 0,
            shut: false,
            limit: 0,
            updated: (0, 0),
            largest: 0,
            peer: 0,
            received: 0,
            capacity,
            unread: 0,
            edge: 0,
            waiting: BTreeMap::new(),
            offer,
            peer_offer: None,
            mss,
        }
    }

    pub fn connect(&mut self) -> Vec<Segment> {
        self.phase = SynSent;
        (self.next, self.most) = (1, 1);
        self.again()
    }

    /// The application takes bytes out; a window that was small is announced anew.
    pub fn read(&mut self, bytes: u64) -> Vec<Segment> {
        self.unread = self.unread.saturating_sub(bytes);
        if matches!(self.phase, Established | FinWait1 | FinWait2) { vec![self.ack()] } else { vec![] }
    }

    pub fn abort(&mut self) -> Vec<Segment> {
        let speaks = matches!(self.phase, SynReceived | Established | FinWait1 | FinWait2 | CloseWait);
        self.phase = Closed;
        // Behind the window it would be refused.
        let at = self.most.min(self.limit.max(self.una));
        if speaks { vec![self.segment(RST, at, 0)] } else { vec![] }
    }

    pub fn keep_alive(&mut self, garbage: u64) -> Vec<Segment> {
        let idle = self.una == self.most && self.una > 0;
        if idle && matches!(self.phase, Established | CloseWait | FinWait2) {
            vec![self.segment(ACK, self.una - 1, garbage)]
        } else {
            vec![]
        }
    }

    /// Both ends offered a scale: ours, theirs.
    fn scales(&self) -> (u8, u8) {
        self.offer.zip(self.peer_offer).unwrap_or((0, 0))
    }

    fn segment(&mut self, flags: u8, from: u64, len: u64) -> Segment {
        self.edge = self.edge.max(self.received + self.capacity.saturating_sub(self.unread));
        let shift = if flags & SYN != 0 { 0 } else { self.scales().0 };
        let scale = match flags & (SYN | ACK) {
            SYN => self.offer,
            // Only if the SYN had one.
            flags if flags & SYN != 0 => self.peer_offer.and(self.offer),
            _ => None,
        };
        Segment {
            flags,
            sequence: number(self.initial, from),
            acknowledgment: if flags & ACK == 0 { 0 } else { number(self.peer, self.received) },
            window: ((self.edge - self.received) >> shift).min(0xffff) as u16,
            len: len as u32,
            scale,
            ..Segment::default()
        }
    }

    fn ack(&mut self) -> Segment {
        self.segment(ACK, self.most, 0)
    }

    /// What the window allows, at most `count` segments.
    pub fn send(&mut self, count: usize) -> Vec<Segment> {
        let mut out = Vec::new();
        if !matches!(self.phase, Established | CloseWait | FinWait1 | Closing | LastAck) {
            return out;
        }
        while out.len() < count && self.next <= self.written && self.next < self.limit {
            let len = self.mss.min(self.written + 1 - self.next).min(self.limit - self.next);
            let mut segment = self.segment(ACK, self.next, len);
            self.next += len;
            if self.shut
                && self.next == self.written + 1
                && self.next < self.limit
                && self.mss.is_multiple_of(2)
            {
                segment.flags |= FIN;
                self.next += 1;
                self.finish();
            }
            out.push(segment);
        }
        if out.len() < count && self.shut && self.next == self.written + 1 && self.next < self.limit {
            out.push(self.segment(FIN | ACK, self.next, 0));
            self.next += 1;
            self.finish();
        }
        self.most = self.most.max(self.next);
        out
    }

    fn finish(&mut self) {
        self.phase = match self.phase {
            Established => FinWait1,
            CloseWait => LastAck,
            other => other,
        };
    }

    /// The retransmission timer: everything from the first number that is not acknowledged, in other pieces perhaps; or a byte
    /// against a closed window (RFC 9293 section 3.8.6.1).
    pub fn again(&mut self) -> Vec<Segment> {
        let syn = |end: &mut End, flags| vec![end.segment(flags, 0, 0)];
        match self.phase {
            SynSent => syn(self, SYN),
            SynReceived => syn(self, SYN | ACK),
            _ if self.una == 0 => vec![],
            _ => {
                self.next = self.una;
                let out = self.send(4);
                let pending = self.next <= self.written;
                if out.is_empty() && pending && matches!(self.phase, Established | CloseWait) {
                    self.most = self.most.max(self.next + 1);
                    let at = self.next;
                    self.next += 1;
                    return vec![self.segment(ACK, at, 1)];
                }
                if out.is_empty() && self.shut && matches!(self.phase, Established | CloseWait) {
                    // Only the FIN is left: a number that the other side has, which it answers.
                    return vec![self.segment(ACK, self.una - 1, 0)];
                }
                out
            }
        }
    }

    /// A closed end refuses everything (RFC 9293 section 3.10.7.1).
    fn refuse(segment: &Segment) -> Vec<Segment> {
        let answer = if segment.flags & RST != 0 {
            return vec![];
        } else if segment.flags & ACK != 0 {
            Segment { flags: RST, sequence: segment.acknowledgment, ..Segment::default() }
        } else {
            let len = segment.len + u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
            Segment {
                flags: RST | ACK,
                acknowledgment: segment.sequence.wrapping_add(len),
                ..Segment::default()
            }
        };
        vec![answer]
    }

    fn reset(&mut self) -> Vec<Segment> {
        self.phase = Closed;
        self.was_reset = true;
        vec![]
    }

    pub fn receive(&mut self, segment: &Segment, lazy: bool) -> Vec<Segment> {
        let has = |flag| segment.flags & flag != 0;
        match self.phase {
            Closed => return End::refuse(segment),
            Listen if has(RST) => return vec![],
            Listen if has(ACK) => return End::refuse(segment),
            Listen if !has(SYN) => return vec![],
            Listen => {
                self.meet(segment);
                (self.next, self.most) = (1, 1);
                self.phase = SynReceived;
                return self.again();
            }
            SynSent => return self.answer(segment),
            _ => {}
        }

        let start = offset(self.peer, self.received, segment.sequence);
        let end = start + i64::from(segment.len) + i64::from(has(SYN)) + i64::from(has(FIN));
        let (received, edge) = (self.received as i64, self.edge as i64);
        let inside = |at: i64| (received..edge).contains(&at);
        let acceptable = match (end - start, edge - received) {
            (0, 0) => start == received,
            (0, _) => inside(start),
            // The text of a probe is not taken, its acknowledgment is.
            (_, 0) => start == received,
            (_, _) => inside(start) || inside(end - 1),
        };
        if has(RST) {
            return match acceptable {
                true if start == received => self.reset(),
                true => vec![self.ack()],
                false => vec![],
            };
        }
        if !acceptable || has(SYN) {
            return vec![self.ack()];
        }
        if !has(ACK) {
            return vec![];
        }
        let acked = offset(self.initial, self.una, segment.acknowledgment);
        if self.phase == SynReceived {
            if acked <= self.una as i64 || acked > self.most as i64 {
                return End::refuse(segment);
            }
            self.phase = Established;
        } else if acked > self.most as i64 || acked < self.una as i64 - self.largest as i64 {
            return vec![self.ack()];
        }
        self.take_acknowledgment(segment, start.max(0) as u64, acked.max(0) as u64);
        if !matches!(self.phase, Established | FinWait1 | FinWait2) || end == start {
            return vec![];
        }
        let data = (start + i64::from(segment.len)).min(edge);
        if self.edge > self.received {
            // Never past the window, nor a FIN behind it.
            self.waiting.insert(start.max(0) as u64, (data as u64, has(FIN) && end <= edge));
        }
        let before = self.received;
        self.take_data();
        if lazy && self.received > before && self.waiting.is_empty() { vec![] } else { vec![self.ack()] }
    }

    /// A segment to an end that has sent its SYN (RFC 9293 section 3.10.7.3).
    fn answer(&mut self, segment: &Segment) -> Vec<Segment> {
        let has = |flag| segment.flags & flag != 0;
        if has(ACK) && segment.acknowledgment != number(self.initial, 1) {
            return End::refuse(segment);
        }
        if has(RST) {
            return if has(ACK) { self.reset() } else { vec![] };
        }
        if !has(SYN) {
            return vec![];
        }
        self.meet(segment);
        if has(ACK) {
            self.una = 1;
            self.limit = 1 + u64::from(segment.window);
            self.phase = Established;
            return vec![self.ack()];
        }
        self.phase = SynReceived;
        self.again()
    }

    fn meet(&mut self, segment: &Segment) {
        self.peer = segment.sequence;
        self.received = 1;
        self.peer_offer = segment.scale;
        self.largest = segment.window.into();
        self.limit = 1 + u64::from(segment.window);
    }

    fn take_acknowledgment(&mut self, segment: &Segment, start: u64, acked: u64) {
        self.una = self.una.max(acked);
        self.next = self.next.max(self.una);
        if self.updated <= (start, acked) && acked == self.una {
            let window = u64::from(segment.window) << self.scales().1;
            self.updated = (start, acked);
            self.limit = acked + window;
            self.largest = self.largest.max(window);
        }
        if self.shut && self.una == self.written + 2 {
            self.phase = match self.phase {
                FinWait1 => FinWait2,
                Closing => TimeWait,
                LastAck => Closed,
                other => other,
            };
            self.in_order |= self.is_finished();
        }
    }

    fn take_data(&mut self) {
        while let Some((&start, &(data, fin))) = self.waiting.first_key_value() {
            if start > self.received {
                break;
            }
            self.waiting.remove(&start);
            if data > self.received {
                self.unread += data - self.received;
                self.received = data;
            }
            if fin && data == self.received {
                self.received += 1;
                self.waiting.clear();
                self.phase = match self.phase {
                    Established => CloseWait,
                    FinWait1 => Closing,
                    FinWait2 => TimeWait,
                    other => other,
                };
                self.in_order |= self.is_finished();
            }
        }
    }

    /// The number behind the last that it sent.
    pub fn sent(&self) -> u32 {
        number(self.initial, self.most)
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.phase, TimeWait | Closed)
    }
}
