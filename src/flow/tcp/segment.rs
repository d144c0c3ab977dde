//! What the state machine wants to know of a segment.

use crate::wire::tcp::{self, ACK, FIN, RST, SYN, Tcp};

/// Window scales are at most this; more means this (RFC 7323 section 2.3).
pub(super) const MAX_SCALE: u8 = 14;
/// Kind of the window scale option.
const WINDOW_SCALE: u8 = 3;

/// A TCP segment as it passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The flags byte (CWR ECE URG ACK PSH RST SYN FIN).
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number; means something only with ACK.
    pub acknowledgment: u32,
    /// Window, not scaled.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
    /// The window scale that a SYN offers, 0 to 14.
    pub scale: Option<u8>,
    /// It travels against the originator.
    pub reply: bool,
    /// It came under another cookie of the load balancer than the connection had.
    pub new_cookie: bool,
    /// The first fragment of a packet: there are more bytes of payload than `len`, but nobody knows how many. The connection's windows
    /// are judged no more, since its sender's numbers cannot be followed.
    pub partial: bool,
}

/// What a segment may be by its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reset,
    Syn,
    SynAck,
    /// Anything with ACK and neither SYN nor RST.
    Ack,
    Bad,
}

impl Segment {
    /// Reads the payload of an IP packet, given exactly. Options are looked at only in a SYN. What is no TCP header becomes a segment
    /// without flags, which no connection has.
    #[inline(always)]
    pub fn read(transport: &[u8], reply: bool) -> Segment {
        let Ok(tcp) = Tcp::new_checked(transport) else { return Segment { reply, ..Segment::default() } };
        Segment {
            flags: tcp.flags(),
            sequence: tcp.sequence(),
            acknowledgment: tcp.acknowledgment(),
            window: tcp.window(),
            len: tcp.payload().len() as u32,
            scale: if tcp.flags() & SYN == 0 { None } else { scale(tcp.options()) },
            reply,
            new_cookie: false,
            partial: false,
        }
    }

    /// The number behind the last that it occupies: SYN and FIN count one each.
    #[inline(always)]
    pub(super) fn end(&self) -> u32 {
        let marks = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence.wrapping_add(self.len).wrapping_add(marks)
    }

    /// The number behind the SYN, in a SYN.
    pub(super) fn first(&self) -> u32 {
        self.sequence.wrapping_add(1)
    }

    pub(super) fn kind(&self) -> Kind {
        match self.flags & (SYN | FIN | RST | ACK) {
            flags if flags & SYN != 0 && flags & (FIN | RST) != 0 => Kind::Bad,
            flags if flags & RST != 0 => Kind::Reset,
            flags if flags & SYN == 0 && flags & ACK == 0 => Kind::Bad,
            flags if flags & SYN == 0 => Kind::Ack,
            flags if flags & ACK == 0 => Kind::Syn,
            _ => Kind::SynAck,
        }
    }
}

/// The window scale among a SYN's options. A broken option ends the search.
#[inline(never)]
fn scale(options: tcp::Options) -> Option<u8> {
    options.map_while(Result::ok).find_map(|option| match *option.data {
        [shift] if option.kind == WINDOW_SCALE => Some(shift.min(MAX_SCALE)),
        _ => None,
    })
}
