//! ICMP (RFC 792) and ICMPv6 (RFC 4443).
//!
//! Promises type, code and checksum. Everything behind them is optional, since real stacks and attackers send less than
//! the RFCs ask for. A quoted packet is bytes: it is cut short as a rule, so the views of this module, which insist on
//! stated lengths, do not fit it. The checksum is not looked at.

use super::Malformed;

/// Bytes that every message has.
pub const HEADER_LEN: usize = 4;

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ICMP, protocol 1.
    V4,
    /// ICMPv6, protocol 58.
    V6,
}

/// A checked ICMP message.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<'a> {
    family: Family,
    header: &'a [u8; HEADER_LEN],
    rest: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// A message from its type to the end of the IP payload.
    #[inline(always)]
    pub fn new_checked(family: Family, bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_first_chunk::<HEADER_LEN>() {
            Some((header, rest)) => Ok(Icmp { family, header, rest }),
            None => Err(Malformed::Truncated),
        }
    }

    /// Type.
    #[inline(always)]
    pub fn kind(&self) -> u8 {
        self.header[0]
    }

    /// Code.
    #[inline(always)]
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// The checksum as it stands.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Identifier of an echo request or reply, if the message is long enough to have one.
    #[inline(always)]
    pub fn echo_id(&self) -> Option<u16> {
        let echo = match self.family {
            Family::V4 => matches!(self.kind(), 0 | 8),
            Family::V6 => matches!(self.kind(), 128 | 129),
        };
        let id = self.rest.first_chunk().copied().map(u16::from_be_bytes);
        id.filter(|_| echo)
    }

    /// Does it report an error about another packet (RFC 1122 section 3.2.2; RFC 4443 section 2.1)?
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        match self.family {
            Family::V4 => matches!(self.kind(), 3 | 4 | 5 | 11 | 12),
            Family::V6 => self.kind() < 128,
        }
    }

    /// The four bytes behind the checksum: unused, MTU, pointer or gateway, as the type says.
    #[inline(always)]
    pub fn parameter(&self) -> Option<[u8; 4]> {
        self.rest.first_chunk().copied()
    }

    /// The start of the packet that an error is about, possibly followed by extensions (RFC 4884); `None` for other messages and
    /// for errors that end before it.
    #[inline(always)]
    pub fn quoted(&self) -> Option<&'a [u8]> {
        self.rest.get(4..).filter(|_| self.is_error())
    }

    /// Everything behind the checksum.
    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// The start of a message to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum; 0 if it is to be filled in when the message is whole.
    pub checksum: u16,
    /// The four bytes behind it.
    pub parameter: [u8; 4],
}

impl Fields {
    /// The eight bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN + 4] {
        let [a, b] = self.checksum.to_be_bytes();
        let [c, d, e, f] = self.parameter;
        [self.kind, self.code, a, b, c, d, e, f]
    }
}
