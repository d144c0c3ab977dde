//! How bytes fit a protocol, and the few ways of looking at them that all families share.

/// Bytes of each direction of TCP that are looked at.
pub const HEAD: usize = 32;

/// What the beginning of a direction, or a datagram, says of one protocol. Ordered: the higher says more.
///
/// With more bytes `NotYet` becomes anything else, `Like` at most `Is`; `No` and `Is` stay. So what is found out does not depend on how bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is not that.
    No,
    /// Too short to say.
    NotYet,
    /// It could be, as other protocols could: the other direction has to agree.
    Like,
    /// It is that.
    Is,
}

pub use Fit::{Is, Like, No, NotYet};

impl Fit {
    /// The same, but no more than `Like`.
    pub fn at_most_like(self) -> Fit {
        self.min(Like)
    }
}

/// `Is` where a condition holds.
pub fn is(condition: bool) -> Fit {
    if condition { Is } else { No }
}

/// `Like` where a condition holds.
pub fn like(condition: bool) -> Fit {
    if condition { Like } else { No }
}

/// Begins with these bytes: `Is`.
pub fn begins(bytes: &[u8], with: &[u8]) -> Fit {
    match bytes.get(..with.len()) {
        Some(start) => is(start == with),
        None if with.starts_with(bytes) => NotYet,
        None => No,
    }
}

/// The same in any case.
pub fn begins_in_any_case(bytes: &[u8], with: &[u8]) -> Fit {
    // Most often the first letter says it: cases differ in one bit.
    if let (Some(a), Some(b)) = (bytes.first(), with.first())
        && (a ^ b) & !0x20 != 0
    {
        return No;
    }
    let n = bytes.len().min(with.len());
    let same = bytes.iter().zip(with).all(|(a, b)| a.eq_ignore_ascii_case(b));
    match same {
        true if n == with.len() => Is,
        true => NotYet,
        false => No,
    }
}

/// The best of several.
pub fn best(fits: impl IntoIterator<Item = Fit>) -> Fit {
    fits.into_iter().max().unwrap_or(No)
}

/// A command in any case, and behind it a blank or the end of the line: `Is`.
pub fn command(bytes: &[u8], words: &[&str]) -> Fit {
    best(words.iter().map(|word| match begins_in_any_case(bytes, word.as_bytes()) {
        Is => match bytes.get(word.len()) {
            None => NotYet,
            Some(next) => is(matches!(next, b' ' | b'\r' | b'\n')),
        },
        other => other,
    }))
}

/// Are these letters in it, in any case?
pub fn contains(bytes: &[u8], letters: &[u8]) -> bool {
    bytes.windows(letters.len()).any(|part| part.eq_ignore_ascii_case(letters))
}

/// Big-endian numbers at a place.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Of four bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Little-endian.
pub fn u32_le_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A tag and a length of BER (X.690 section 8.1): the length, and what comes behind it. `Err`: no, or not yet.
pub fn ber(bytes: &[u8], tag: u8) -> Result<(usize, &[u8]), Fit> {
    let (first, rest) = bytes.split_first().ok_or(NotYet)?;
    if *first != tag {
        return Err(No);
    }
    let (len, rest) = rest.split_first().ok_or(NotYet)?;
    let more = match len {
        0..=0x7f => return Ok((usize::from(*len), rest)),
        0x81..=0x84 => usize::from(len & 0x7f),
        _ => return Err(No),
    };
    let (digits, rest) = rest.split_at_checked(more).ok_or(NotYet)?;
    let len = digits.iter().fold(0usize, |len, digit| len << 8 | usize::from(*digit));
    if len > 1 << 24 { Err(No) } else { Ok((len, rest)) }
}

/// Of a datagram, which has no more.
pub fn whole(fit: Fit) -> Fit {
    if fit == NotYet { No } else { fit }
}

/// What is there, or not yet.
pub fn need<T>(found: Option<T>) -> Result<T, Fit> {
    found.ok_or(NotYet)
}

/// For functions that give up early.
pub fn either(found: Result<Fit, Fit>) -> Fit {
    match found {
        Ok(fit) | Err(fit) => fit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_compared_as_far_as_they_go() {
        assert_eq!(begins(b"SS", b"SSH-"), NotYet);
        assert_eq!(begins(b"SSH-2", b"SSH-"), Is);
        assert_eq!(begins(b"SSL", b"SSH-"), No);
        assert_eq!(begins(b"", b"SSH-"), NotYet);
        assert_eq!(command(b"ehl", &["EHLO"]), NotYet);
        assert_eq!(command(b"EHLO", &["EHLO"]), NotYet);
        assert_eq!(command(b"ehlo x", &["EHLO"]), Is);
        assert_eq!(command(b"EHLOX", &["EHLO"]), No);
    }

    #[test]
    fn lengths_of_ber_have_short_and_long_forms() {
        assert_eq!(ber(&[0x30, 5, 2], 0x30), Ok((5, &[2u8][..])));
        assert_eq!(ber(&[0x30, 0x84, 0, 0, 0, 9, 2], 0x30), Ok((9, &[2u8][..])));
        assert_eq!(ber(&[0x30, 0x84, 0], 0x30), Err(NotYet));
        assert_eq!(ber(&[0x30, 0x80], 0x30), Err(No));
        assert_eq!(ber(&[0x31, 5], 0x30), Err(No));
        assert_eq!(ber(&[0x30, 0x84, 255, 0, 0, 9, 2], 0x30), Err(No));
    }
}
