//! GENEVE (RFC 8926): the base header and its options.
//!
//! Promises a version of 0, a base header that is all there, and options that end within the bytes given. Reserved bits are
//! ignored (section 3.4). What the options mean, and which must be there, is the load balancer's [`Profile`]; whether a
//! control packet may pass is the caller's ([`Geneve::control`]).

mod profile;

pub use profile::{
    AWS, FixedShape, Found, GOOGLE, OptionRule, PLAIN, Profile, Role, SHAPE_LEN, Scope, TENCENT,
};

use super::Malformed;

/// Bytes of the base header.
pub const HEADER_LEN: usize = 8;
/// UDP destination port (section 3.3).
pub const PORT: u16 = 6081;

/// A checked GENEVE packet.
#[derive(Clone, Copy, Debug)]
pub struct Geneve<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
    behind: &'a [u8],
}

impl<'a> Geneve<'a> {
    /// A UDP payload from its first byte to its end.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, behind)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        if header[0] >> 6 != 0 {
            return Err(Malformed::Version);
        }
        let Some((options, payload)) = behind.split_at_checked(usize::from(header[0] & 0x3f) * 4) else {
            return Err(Malformed::Truncated);
        };
        Ok(Geneve { header, options, payload, behind })
    }

    /// Bytes in front of the payload: 8 to 260.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// O: a control packet, whose payload must not be forwarded.
    #[inline(always)]
    pub fn control(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    /// C: the sender says that there are critical options. The options themselves say it again; see [`Profile::read`].
    #[inline(always)]
    pub fn critical(&self) -> bool {
        self.header[1] & 0x40 != 0
    }

    /// EtherType of the payload.
    #[inline(always)]
    pub fn protocol(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Virtual network identifier, 24 bits.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        u32::from_be_bytes([0, self.header[4], self.header[5], self.header[6]])
    }

    /// The options as bytes, 0 to 252.
    #[inline(always)]
    pub fn options_bytes(&self) -> &'a [u8] {
        self.options
    }

    /// The options one by one.
    #[inline(always)]
    pub fn options(&self) -> Options<'a> {
        Options { rest: self.options }
    }

    /// The tunnelled packet.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Everything behind the base header: options, then payload.
    #[inline(always)]
    pub fn behind(&self) -> &'a [u8] {
        self.behind
    }
}

/// One option (section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Who defines the type (IANA).
    pub class: u16,
    /// The type, critical bit included.
    pub kind: u8,
    /// The data, 0 to 124 bytes.
    pub data: &'a [u8],
}

impl Opt<'_> {
    /// Must a receiver that does not know it drop the packet?
    #[inline(always)]
    pub fn critical(&self) -> bool {
        self.kind & 0x80 != 0
    }
}

/// The options in their order. An option that reaches beyond the end is an error, and the last item.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// A block of options, as long as the base header says.
    #[inline(always)]
    pub fn new(block: &'a [u8]) -> Self {
        Options { rest: block }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((&[class_high, class_low, kind, len], rest)) = self.rest.split_first_chunk::<4>() else {
            self.rest = &[];
            return Some(Err(Malformed::Truncated));
        };
        let Some((data, rest)) = rest.split_at_checked(usize::from(len & 0x1f) * 4) else {
            self.rest = &[];
            return Some(Err(Malformed::Length));
        };
        self.rest = rest;
        Some(Ok(Opt { class: u16::from_be_bytes([class_high, class_low]), kind, data }))
    }
}

/// A base header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Bytes of options that follow: a multiple of 4, at most 252. The rest is not sent.
    pub options_len: usize,
    /// EtherType of the payload.
    pub protocol: u16,
    /// Virtual network identifier; the upper 8 bits are not sent.
    pub vni: u32,
}

impl Fields {
    /// The header's bytes: version 0, neither control nor critical.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let [a, b] = self.protocol.to_be_bytes();
        let [_, c, d, e] = self.vni.to_be_bytes();
        [(self.options_len / 4) as u8 & 0x3f, 0, a, b, c, d, e, 0]
    }
}
