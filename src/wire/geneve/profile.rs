//! What a load balancer puts into its GENEVE options. The clouds differ here, in data, and nowhere else.
//!
//! [`Profile::read`] is the receiver: it finds the scope of the flow and the cookie, and refuses what RFC 8926 and the load
//! balancer's own rules refuse. Nearly every frame has the same options in the same order, so it first compares the
//! whole block with a mask ([`FixedShape`], derived from the rules when the program is compiled) and reads both values at fixed
//! places. Everything else takes the bounded walk ([`Profile::walk`]), which alone defines what is right; a
//! hit of the shape gives the walk's answer (a property test holds it to that).
//!
//! Options of a packet that goes home are never changed: encap sends back the bytes that came. A packet that we make ourselves
//! takes the options of the one it answers, with another cookie ([`Profile::rewrite`]).

use crate::packet::DropReason;

use super::{Geneve, Options};

/// Bytes in front of an option's data.
const OPTION_HEADER: usize = 4;

/// Bytes that the widest fixed shape covers.
pub const SHAPE_LEN: usize = 40;
const SHAPE_WORDS: usize = SHAPE_LEN / 8;

/// AWS Gateway Load Balancer. Layout, order and the three required options as seen in captures; largest packet taken back as in
/// the Elastic Load Balancing user guide.
pub static AWS: Profile = Profile::new("aws", Scope::Endpoint, 8500, &AWS_OPTIONS);
const AWS_OPTIONS: [OptionRule; 3] = three_options(0x0108, 0);

/// Tencent Cloud GWLB: the AWS layout under a class of its own. The upper three bits of the cookie are the direction, so the two
/// directions of a flow carry different cookies. No limit on returned packets is published.
///
/// Published is the layout ("3-bit flow-dir | 29-bit Flow Cookie"), not the values of the three bits. We take them for a number
/// that is 0 one way and 1 the other, so the lowest of them turns a cookie around. It matters only for an answer to the first packet of a
/// flow: later ones use the cookie that the other direction has brought.
pub static TENCENT: Profile = Profile::new("tencent", Scope::Endpoint, u16::MAX, &TENCENT_OPTIONS);
const TENCENT_OPTIONS: [OptionRule; 3] = three_options(0x0167, 1 << 29);

/// Google Cloud packet intercept (names and lengths as in Wireshark's dissector). It has no cookie. Only the endpoint is
/// required, since nothing public says that the others are always there. No limit on returned packets is published. The lowest bit
/// of the network id is the direction (out of a machine or into it).
pub static GOOGLE: Profile = Profile::new("google", Scope::Endpoint, u16::MAX, &GOOGLE_OPTIONS);
const GOOGLE_OPTIONS: [OptionRule; 3] = [
    OptionRule { class: 0x0132, kind: 1, len: 4, role: Role::Other, required: false, turn: 1 },
    OptionRule { class: 0x0132, kind: 2, len: 16, role: Role::Endpoint, required: true, turn: 0 },
    OptionRule { class: 0x0132, kind: 3, len: 8, role: Role::Other, required: false, turn: 0 },
];

/// A gateway of one's own that sends plain GENEVE: the VNI is the scope, options are opaque.
pub static PLAIN: Profile = Profile::new("plain", Scope::Vni, u16::MAX, &[]);

const fn three_options(class: u16, turn: u32) -> [OptionRule; 3] {
    [
        OptionRule { class, kind: 1, len: 8, role: Role::Endpoint, required: true, turn: 0 },
        OptionRule { class, kind: 2, len: 8, role: Role::Attachment, required: true, turn: 0 },
        OptionRule { class, kind: 3, len: 4, role: Role::Cookie, required: true, turn },
    ]
}

/// Option classes, types and lengths of one load balancer.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name in `tunnel.profile`.
    pub name: &'static str,
    /// Where the scope of a flow comes from.
    pub scope: Scope,
    /// Largest inner packet that the load balancer takes back, in bytes.
    pub max_return: u16,
    /// The options it knows, in the order in which it sends them; at most 32. Each may appear once.
    pub options: &'static [OptionRule],
    /// The block that all these options make, if it fits.
    pub fixed: Option<FixedShape>,
}

/// Where the scope of a flow comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The option with the role [`Role::Endpoint`].
    Endpoint,
    /// The VNI of the base header.
    Vni,
}

/// One option of a profile. It may appear at most once: all of them identify something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionRule {
    /// Option class.
    pub class: u16,
    /// Option type, critical bit included.
    pub kind: u8,
    /// Bytes of data.
    pub len: u8,
    /// What the data means.
    pub role: Role,
    /// Is a packet without it refused?
    pub required: bool,
    /// Bits of its first four bytes, in network order, that differ between the two directions of a flow.
    pub turn: u32,
}

/// What the data of an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The scope: 8 bytes, or 16 that are folded to 8 by XOR of the halves.
    Endpoint,
    /// The attachment behind the endpoint: checked for its length, otherwise opaque.
    Attachment,
    /// The flow cookie, 4 bytes.
    Cookie,
    /// Checked for its length, otherwise opaque.
    Other,
}

/// The option block of the usual frame: under the mask it equals the value, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedShape {
    /// Bytes of the block: the whole of the options.
    pub len: usize,
    /// Mask and value, eight bytes each in the machine's order. Masked out: option data, R bits, and what lies behind the block.
    pub words: [(u64, u64); SHAPE_WORDS],
    /// Where the endpoint stands in the block, and its bytes (0: the profile has none).
    pub endpoint: (usize, usize),
    /// Where the cookie stands in the block.
    pub cookie_at: Option<usize>,
}

/// What the options said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Scope of the flow.
    pub endpoint: u64,
    /// Flow cookie, 0 where the profile has none.
    pub cookie: u32,
}

impl Profile {
    /// All profiles.
    pub const ALL: [&'static Profile; 4] = [&AWS, &TENCENT, &GOOGLE, &PLAIN];

    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<&'static Profile> {
        Self::ALL.into_iter().find(|p| p.name == name)
    }

    const fn new(
        name: &'static str,
        scope: Scope,
        max_return: u16,
        options: &'static [OptionRule],
    ) -> Profile {
        Profile { name, scope, max_return, options, fixed: FixedShape::of(options) }
    }

    /// Scope and cookie of a packet, or why it is refused.
    #[inline(always)]
    pub fn read(&self, geneve: &Geneve<'_>) -> Result<Found, DropReason> {
        let found = match &self.fixed {
            Some(shape) => shape.read(geneve.options_bytes().len(), geneve.behind()),
            None => None,
        };
        let mut found = match found {
            Some(found) => found,
            None => self.walk(geneve.options_bytes())?,
        };
        if self.scope == Scope::Vni {
            found.endpoint = geneve.vni().into();
        }
        Ok(found)
    }

    /// The general walk over a block of options of any order and number; at most 63 steps, since each option is 4 bytes or
    /// more. Endpoint and cookie are 0 where the profile has none.
    #[cold]
    #[inline(never)]
    pub fn walk(&self, options: &[u8]) -> Result<Found, DropReason> {
        let mut found = Found { endpoint: 0, cookie: 0 };
        let mut seen = 0u32;
        for option in Options::new(options) {
            let Ok(option) = option else { return Err(DropReason::OptionOverrun) };
            let rule =
                self.options.iter().zip(0..).find(|(r, _)| r.class == option.class && r.kind == option.kind);
            let Some((rule, number)) = rule else {
                if option.critical() {
                    return Err(DropReason::OptionCritical);
                }
                continue;
            };
            if option.data.len() != usize::from(rule.len) {
                return Err(DropReason::OptionLength);
            }
            if seen & 1 << number != 0 {
                return Err(DropReason::OptionDuplicate);
            }
            seen |= 1 << number;
            match rule.role {
                Role::Endpoint => found.endpoint = folded(option.data),
                Role::Cookie => {
                    found.cookie = option.data.first_chunk().copied().map_or(0, u32::from_be_bytes)
                }
                Role::Attachment | Role::Other => {}
            }
        }
        match self.options.iter().zip(0..).all(|(rule, number)| !rule.required || seen & 1 << number != 0) {
            true => Ok(found),
            false => Err(DropReason::OptionMissing),
        }
    }

    /// The cookie of the other direction of a flow, as far as one follows from the other.
    pub fn turned_cookie(&self, cookie: u32) -> u32 {
        let rule = self.options.iter().find(|rule| rule.role == Role::Cookie);
        rule.map_or(cookie, |rule| cookie ^ rule.turn)
    }

    /// Makes options that came in into options of a packet that we make ourselves: the cookie is replaced, and if that packet travels
    /// `against` the one whose options these are, so are the direction bits of other options. All other bytes stay. `None` for
    /// a block that [`Self::walk`] would refuse for its form.
    pub fn rewrite(&self, options: &mut [u8], cookie: u32, against: bool) -> Option<()> {
        let mut rest = options;
        while !rest.is_empty() {
            let (&mut [high, low, kind, len], behind) = rest.split_first_chunk_mut::<OPTION_HEADER>()?;
            let (data, behind) = behind.split_at_mut_checked(usize::from(len & 0x1f) * 4)?;
            rest = behind;
            let class = u16::from_be_bytes([high, low]);
            let rule = self.options.iter().find(|rule| rule.class == class && rule.kind == kind);
            let (Some(rule), Some(word)) = (rule, data.first_chunk_mut::<4>()) else { continue };
            match rule.role {
                Role::Cookie => *word = cookie.to_be_bytes(),
                _ if against => *word = (u32::from_be_bytes(*word) ^ rule.turn).to_be_bytes(),
                _ => {}
            }
        }
        Some(())
    }
}

/// Eight-byte pieces in network order, combined by XOR: one piece is itself.
#[inline(always)]
fn folded(data: &[u8]) -> u64 {
    data.as_chunks::<8>().0.iter().fold(0, |all, piece| all ^ u64::from_be_bytes(*piece))
}

impl FixedShape {
    /// The shape of a packet with all options of the rules, once each and in their order; `None` if they are too long.
    #[allow(clippy::indexing_slicing, reason = "runs at compile time, where an overrun is a build error")]
    const fn of(options: &[OptionRule]) -> Option<FixedShape> {
        let mut mask = [0u8; SHAPE_LEN];
        let mut value = [0u8; SHAPE_LEN];
        let mut shape =
            FixedShape { len: 0, words: [(0, 0); SHAPE_WORDS], endpoint: (0, 0), cookie_at: None };
        let mut number = 0;
        while number < options.len() {
            let rule = options[number];
            let at = shape.len;
            shape.len += 4 + rule.len as usize;
            if shape.len > SHAPE_LEN {
                return None;
            }
            (mask[at], value[at]) = (0xff, (rule.class >> 8) as u8);
            (mask[at + 1], value[at + 1]) = (0xff, rule.class as u8);
            (mask[at + 2], value[at + 2]) = (0xff, rule.kind);
            // The R bits above the length are ignored on receive.
            (mask[at + 3], value[at + 3]) = (0x1f, rule.len / 4);
            match rule.role {
                Role::Endpoint => shape.endpoint = (at + 4, rule.len as usize),
                Role::Cookie => shape.cookie_at = Some(at + 4),
                Role::Attachment | Role::Other => {}
            }
            number += 1;
        }
        let mut word = 0;
        while word < SHAPE_WORDS {
            let (mut m, mut v) = ([0; 8], [0; 8]);
            let mut byte = 0;
            while byte < 8 {
                (m[byte], v[byte]) = (mask[word * 8 + byte], value[word * 8 + byte]);
                byte += 1;
            }
            shape.words[word] = (u64::from_ne_bytes(m), u64::from_ne_bytes(v));
            word += 1;
        }
        Some(shape)
    }

    /// Scope and cookie if the options have this shape. `behind` starts with the options and goes on to the end of the packet.
    #[inline(always)]
    pub fn read(&self, options_len: usize, behind: &[u8]) -> Option<Found> {
        // Compared as five words whatever the shape's length: the mask of what lies behind it is zero. A packet too short
        // for that has no room for an IP header and goes the slow way.
        let block = behind.first_chunk::<SHAPE_LEN>()?;
        (options_len == self.len && self.differs(block) == 0).then(|| self.found(block))
    }

    /// Zero if the block has this shape.
    #[inline(always)]
    pub fn differs(&self, block: &[u8; SHAPE_LEN]) -> u64 {
        let mut differs = 0;
        for (word, (mask, value)) in block.as_chunks::<8>().0.iter().zip(&self.words) {
            differs |= (u64::from_ne_bytes(*word) & mask) ^ value;
        }
        differs
    }

    /// Scope and cookie of a block that has this shape.
    #[inline(always)]
    pub fn found(&self, block: &[u8; SHAPE_LEN]) -> Found {
        // Both lie within the block by construction; the masks tell the compiler so, which spares the checks.
        let eight = |at: usize| block.get(at & 31..(at & 31) + 8).and_then(|b| b.first_chunk()).copied();
        let four = |at: usize| block.get(at & 31..(at & 31) + 4).and_then(|b| b.first_chunk()).copied();
        let (at, len) = self.endpoint;
        let first = eight(at).map_or(0, u64::from_be_bytes);
        let endpoint = match len {
            8 => first,
            16 => first ^ eight(at + 8).map_or(0, u64::from_be_bytes),
            _ => 0,
        };
        let cookie = self.cookie_at.map_or(0, |at| four(at).map_or(0, u32::from_be_bytes));
        Found { endpoint, cookie }
    }
}

#[cfg(test)]
mod tests;
