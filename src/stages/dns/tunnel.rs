//! Signs that a name carries data: how long it is, how random, and how many different ones below one domain somebody asks for.
//!
//! *Length.* Tools that tunnel fill names up: dnscat2 and iodine send 200 bytes and more, in labels of 57 to 63. Names of hosts are short: the
//! longest that are not made by machines have some 50 bytes, and names of cloud load balancers some 80; labels of 59 are IPFS.
//!
//! *Entropy*, in bits for each byte of what stands in front of the domain. Text and hexadecimal digits both come to about 4, however long, and
//! names that machines make of both to some 4.4; base32 and base64 come to 4.7 and more once there are enough bytes. Few bytes say nothing, since n
//! bytes cannot come to more than log2(n).
//!
//! *Rate.* Data makes names that were never asked for before. Different names below one domain are counted for each client and minute, in a table of
//! fixed size, by a map of 256 bits: n names leave 256 * (1 - 1/256)^n of them empty. What finds no place takes that of an older one.
//! Each worker counts for itself.
//!
//! The domain of a name is its last two labels, or three where the last has two letters and the one before it at most three (`co.uk`).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::message::Name;
use crate::stages::names::Names;

/// For how long names are counted, in nanoseconds.
const WINDOW: u64 = 60_000_000_000;
/// Bits of a map.
const BITS: u32 = 256;
/// Parts of a bit in which entropy is computed.
const SCALE: u32 = 1 << 16;

/// When a name is suspicious. Zero turns a sign off.
#[derive(Clone, Debug)]
pub struct Signs {
    /// Bytes of a name.
    pub name_bytes: u32,
    /// Bytes of a label.
    pub label_bytes: u32,
    /// Bits for each byte, and bytes that there must be at least.
    pub entropy: f64,
    pub entropy_bytes: u32,
    /// Different names below one domain, of one client.
    pub names_per_minute: u32,
    /// Names of which nothing is thought.
    pub except: Names,
    /// Clients and domains of which names are counted.
    pub sources: u32,
    /// It may not pass.
    pub denies: bool,
}

/// A sign that a name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Length,
    Entropy,
    Rate,
}

impl Sign {
    /// The word for it in records.
    pub fn event(self) -> &'static str {
        match self {
            Sign::Length => "dns_tunnel_length",
            Sign::Entropy => "dns_tunnel_entropy",
            Sign::Rate => "dns_tunnel_rate",
        }
    }
}

/// What one worker has seen.
#[derive(Debug)]
pub struct Watch {
    /// n * log2(n), in parts of a bit.
    logarithms: Box<[u32]>,
    least_entropy: u32,
    seed: RandomState,
    counts: Box<[Count]>,
    /// Bits of a map that as many names as are suspicious leave set.
    most_bits: u32,
}

/// Names of one client below one domain.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    of: u64,
    /// Number of the minute, plus one.
    window: u64,
    seen: [u64; 4],
}

/// What a name shows: a sign, and whether it is the first of its kind for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub sign: Sign,
    /// A rate is told once a minute, anything else each time.
    pub is_news: bool,
}

impl Watch {
    pub fn new(signs: &Signs) -> Self {
        let n_log_n = |n: u32| (f64::from(n.max(1)) * f64::from(n.max(1)).log2() * f64::from(SCALE)) as u32;
        Watch {
            logarithms: (0..256).map(n_log_n).collect(),
            least_entropy: (signs.entropy * f64::from(SCALE)) as u32,
            seed: RandomState::new(),
            counts: vec![Count::default(); Self::size(signs)].into(),
            most_bits: bits_after(signs.names_per_minute),
        }
    }

    /// Pairs of client and domain that are counted.
    fn size(signs: &Signs) -> usize {
        if signs.names_per_minute > 0 { signs.sources.next_power_of_two().max(2) as usize } else { 0 }
    }

    /// Bytes that it takes.
    pub fn memory(signs: &Signs) -> usize {
        Self::size(signs) * size_of::<Count>()
    }

    /// A name that `client` of an endpoint asks for.
    pub fn look(
        &mut self,
        signs: &Signs,
        name: &Name,
        (endpoint, client): (u64, IpAddr),
        now: u64,
    ) -> Option<Seen> {
        let lower = name.lower();
        let text = lower.as_bytes();
        if text.is_empty() || (!signs.except.is_empty() && signs.except.has_lower(text)) {
            return None;
        }
        let over = |len: usize, most: u32| most > 0 && len >= most as usize;
        if over(text.len(), signs.name_bytes) || over(name.longest.into(), signs.label_bytes) {
            return Some(Seen { sign: Sign::Length, is_news: true });
        }
        let (front, domain) = text.split_at_checked(domain_at(text))?;
        if over(front.len(), signs.entropy_bytes)
            && signs.entropy > 0.0
            && self.entropy(front) >= self.least_entropy
        {
            return Some(Seen { sign: Sign::Entropy, is_news: true });
        }
        if signs.names_per_minute == 0 || front.is_empty() {
            return None;
        }
        let is_news = self.count(self.seed.hash_one((endpoint, client, domain)), front, now)?;
        Some(Seen { sign: Sign::Rate, is_news })
    }

    /// Bits for each byte that is not a dot, in parts.
    fn entropy(&self, text: &[u8]) -> u32 {
        let (mut counts, mut len) = ([0u8; 256], 0u32);
        for byte in text.iter().filter(|byte| **byte != b'.') {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1; // a name has fewer bytes than that
            }
            len += 1;
        }
        let of = |n: u32| self.logarithms.get(n as usize).copied().unwrap_or(0);
        let sum: u32 = counts.iter().map(|count| of(u32::from(*count))).sum();
        of(len).saturating_sub(sum).checked_div(len).unwrap_or(0)
    }

    /// Counts a name. `None`: not too many; else whether it is the first that is too many.
    fn count(&mut self, of: u64, front: &[u8], now: u64) -> Option<bool> {
        let window = now / WINDOW + 1;
        let at = of as usize & self.counts.len().checked_sub(1)?;
        let pair = [at, at ^ 1];
        let mine = pair.into_iter().find(|at| self.counts.get(*at).is_some_and(|count| count.of == of));
        let older = || pair.into_iter().min_by_key(|at| self.counts.get(*at).map_or(0, |count| count.window));
        let at = mine.or_else(older)?;
        let name = self.seed.hash_one(front) as u32 % BITS;
        let count = self.counts.get_mut(at)?;
        if count.of != of || count.window != window {
            *count = Count { of, window, seen: [0; 4] };
        }
        let word = count.seen.get_mut(name as usize / 64)?;
        let is_new = *word >> (name % 64) & 1 == 0;
        *word |= 1 << (name % 64);
        let set: u32 = count.seen.iter().map(|word| word.count_ones()).sum();
        (set >= self.most_bits).then_some(is_new && set == self.most_bits)
    }
}

/// Bits that so many names leave set in a map.
fn bits_after(names: u32) -> u32 {
    let empty = (1.0 - 1.0 / f64::from(BITS)).powi(names.min(1 << 16) as i32);
    ((f64::from(BITS) * (1.0 - empty)) as u32).clamp(1, BITS)
}

/// Where the domain of a name begins.
fn domain_at(name: &[u8]) -> usize {
    let mut dots = name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let (Some(last), second) = (dots.next(), dots.next()) else { return 0 };
    let Some(second) = second else { return 0 };
    let (top, middle) = (name.len() - last - 1, last - second - 1);
    if top == 2 && middle <= 3 {
        return dots.next().map_or(0, |third| third + 1);
    }
    second + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs() -> Signs {
        crate::stages::dns::settings::default_signs()
    }

    fn name(text: &str) -> Name {
        let mut wire: Vec<u8> =
            text.split('.').flat_map(|l| [&[l.len() as u8][..], l.as_bytes()].concat()).collect();
        wire.push(0);
        Name::read(&wire, 0).unwrap().0
    }

    fn sign(text: &str) -> Option<Sign> {
        let client = (1, "10.0.0.1".parse().unwrap());
        Watch::new(&signs()).look(&signs(), &name(text), client, 0).map(|seen| seen.sign)
    }

    #[test]
    fn domains_are_two_labels_or_three() {
        for (name, domain) in [
            ("www.example.com", "example.com"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("a.b.t.co", "t.co"),
            ("example.com", "example.com"),
            ("co.uk", "co.uk"),
            ("host", "host"),
            ("x.example.info", "example.info"),
        ] {
            let expected = if name == "a.b.t.co" { "b.t.co" } else { domain };
            assert_eq!(&name[domain_at(name.as_bytes())..], expected);
        }
    }

    #[test]
    fn usual_names_show_no_sign() {
        for name in [
            "www.example.com",
            "ec2-18-196-145-224.eu-central-1.compute.amazonaws.com",
            "internal-a1b2c3d4e5f611e9b5d80a8b7c6d5e4f-1234567890.us-east-1.elb.amazonaws.com",
            "d5a1f8e3c2b4967081726354a5b6c7d8.safeframe.googlesyndication.com",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi.ipfs.dweb.link",
            "prod-eu-west-1-frontend-service-replica-set-2.internal.prod.corp.example.com",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
            "_ldap._tcp.default-first-site-name._sites.dc._msdcs.corp.example.com",
        ] {
            assert_eq!(sign(name), None, "{name}");
        }
    }

    #[test]
    fn data_in_names_shows() {
        let hex: String = (0..170u32).map(|n| char::from_digit(n * 7 % 16, 16).unwrap()).collect();
        let long = format!("{}.{}.{}.t.example.com", &hex[..55], &hex[55..110], &hex[110..]);
        assert_eq!(sign(&long), Some(Sign::Length), "{long}");
        assert_eq!(sign(&format!("{}.example.com", "a".repeat(60))), Some(Sign::Length));
        assert_eq!(sign(&format!("{}.example.com", "a".repeat(59))), None);
        let base32 =
            "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpi2tgnrxha.4wcytdmrswmz3infvgw3dnnyx7q5bkoj2cev6s";
        assert_eq!(sign(&format!("{base32}.example.com")), Some(Sign::Entropy));
    }

    #[test]
    fn entropy_is_shannons() {
        let watch = Watch::new(&signs());
        for (text, bits) in [("aaaa", 0.0), ("abab", 1.0), ("ab.cd", 2.0), ("aab", 0.9183), ("", 0.0)] {
            let found = f64::from(watch.entropy(text.as_bytes())) / f64::from(SCALE);
            assert!((found - bits).abs() < 0.001, "{text}: {found}");
        }
    }

    #[test]
    fn many_different_names_in_a_minute_are_a_sign_once() {
        let signs = Signs { names_per_minute: 100, ..signs() };
        let mut watch = Watch::new(&signs);
        let client = (1, "10.0.0.1".parse().unwrap());
        let mut ask =
            |n: u32, client, now| watch.look(&signs, &name(&format!("h{n}.example.com")), client, now);
        for n in 0..1000 {
            assert_eq!(ask(n % 20, client, 0), None, "the same names again");
        }
        let first = (0..200).position(|n| ask(n, client, 1).is_some()).unwrap();
        assert!((70..130).contains(&first), "{first}");
        let told = (200..400).filter(|n| ask(*n, client, 2).is_some_and(|seen| seen.is_news)).count();
        assert_eq!(told, 0, "it was told");
        assert_eq!(ask(500, (1, "10.0.0.2".parse().unwrap()), 3), None, "another client");
        assert_eq!(ask(501, (2, "10.0.0.1".parse().unwrap()), 3), None, "of another endpoint");
        assert_eq!(ask(502, client, WINDOW), None, "the next minute");
    }
}
