//! What load balancers put into their envelopes, as the judge knows it: a table of its own, from the same public sources as
//! `crate::wire::geneve` (captures and guides of AWS; Tencent's and Google's documents, Wireshark's dissector).

use super::frames::make::TunnelOption;

/// What an option holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Who the endpoint is, in the last eight bytes.
    Endpoint,
    /// The flow's cookie. The bits of the mask turn with the direction.
    Cookie {
        /// Set in the packets of the second direction.
        reply: u32,
    },
    /// Zero, but for these bits of the first four bytes, which are set in one direction.
    Other {
        /// Set in the packets of the second direction.
        reply: u32,
    },
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Option class.
    pub class: u16,
    /// Option type.
    pub kind: u8,
    /// Bytes of data.
    pub len: usize,
    /// What is in it.
    pub holds: Holds,
}

/// A load balancer's envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As `--profile` names it.
    pub name: &'static str,
    /// The options, in the order in which they are sent.
    pub options: &'static [Known],
    /// Largest inner packet that it takes, and takes back; `None` where nobody says.
    pub most: Option<usize>,
    /// It sends outer UDP checksums.
    pub checksum: bool,
    /// TTL of its outer headers.
    pub ttl: u8,
}

const fn known(class: u16, kind: u8, len: usize, holds: Holds) -> Known {
    Known { class, kind, len, holds }
}

/// AWS Gateway Load Balancer.
pub static AWS: Profile = Profile {
    name: "aws",
    options: &[
        known(0x0108, 1, 8, Holds::Endpoint),
        known(0x0108, 2, 8, Holds::Other { reply: 0 }),
        known(0x0108, 3, 4, Holds::Cookie { reply: 0 }),
    ],
    most: Some(8500),
    checksum: true,
    ttl: 255,
};

/// Tencent Cloud GWLB: three bits of the cookie are the direction.
pub static TENCENT: Profile = Profile {
    name: "tencent",
    options: &[
        known(0x0167, 1, 8, Holds::Endpoint),
        known(0x0167, 2, 8, Holds::Other { reply: 0 }),
        known(0x0167, 3, 4, Holds::Cookie { reply: 1 << 29 }),
    ],
    most: None,
    checksum: true,
    ttl: 255,
};

/// Google Cloud packet intercept: no cookie, a bit of the network id is the direction.
pub static GOOGLE: Profile = Profile {
    name: "google",
    options: &[
        known(0x0132, 1, 4, Holds::Other { reply: 1 }),
        known(0x0132, 2, 16, Holds::Endpoint),
        known(0x0132, 3, 8, Holds::Other { reply: 0 }),
    ],
    most: None,
    checksum: false,
    ttl: 2,
};

/// GENEVE without options: the endpoint is the VNI.
pub static PLAIN: Profile = Profile { name: "plain", options: &[], most: None, checksum: true, ttl: 255 };

impl Profile {
    /// All of them.
    pub const ALL: [&'static Profile; 4] = [&AWS, &TENCENT, &GOOGLE, &PLAIN];

    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<&'static Profile> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// It tells flows apart by a cookie.
    pub fn has_cookie(&self) -> bool {
        self.options.iter().any(|known| matches!(known.holds, Holds::Cookie { .. }))
    }

    /// The option that holds the cookie has this class and type.
    pub fn is_cookie(&self, class: u16, kind: u8) -> bool {
        let of = |known: &&Known| known.class == class && known.kind == kind;
        self.options.iter().find(of).is_some_and(|known| matches!(known.holds, Holds::Cookie { .. }))
    }

    /// The options of a packet of this endpoint and cookie, in the first direction of its flow or the second.
    pub fn options(&self, endpoint: u64, cookie: u32, second: bool) -> Vec<TunnelOption> {
        let option = |known: &Known| {
            let mut data = vec![0; known.len];
            let front = |reply: u32| if second { reply } else { 0 };
            match known.holds {
                Holds::Endpoint => data[known.len - 8..].copy_from_slice(&endpoint.to_be_bytes()),
                Holds::Cookie { reply } => {
                    // Where bits are the direction's, the cookie has those below them.
                    let mask = if reply == 0 { u32::MAX } else { reply - 1 };
                    data[..4].copy_from_slice(&(cookie & mask | front(reply)).to_be_bytes());
                }
                Holds::Other { reply } => data[..4].copy_from_slice(&front(reply).to_be_bytes()),
            }
            TunnelOption::new(known.class, known.kind, &data)
        };
        self.options.iter().map(option).collect()
    }
}
