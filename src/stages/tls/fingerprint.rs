//! JA3 and JA3S (J. Althouse, J. Atkinson, J. Atkins, "TLS Fingerprinting with JA3 and JA3S", 2019) and JA4 (FoxIO, "JA4: TLS Client
//! Fingerprinting", technical_details/JA4.md). GREASE is left out of all lists.

use std::fmt::Write;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::hello::{
    ALPN, ClientHello, GROUPS, POINT_FORMATS, SERVER_NAME, SIGNATURES, ServerHello, is_grease, words,
};

/// Values of a hello that are sorted for JA4. A longer list is not a client's, and is cut.
const MOST_SORTED: usize = 1024;

/// Appends values, as decimal numbers with `-` between them.
fn dashed(text: &mut String, values: impl Iterator<Item = u16>) {
    for (n, value) in values.enumerate() {
        let dash = if n == 0 { "" } else { "-" };
        let _ = write!(text, "{dash}{value}"); // a string takes everything
    }
}

/// The text that JA3 hashes.
pub fn ja3(hello: &ClientHello<'_>, text: &mut String) {
    let plain = |value: &u16| !is_grease(*value);
    text.clear();
    let _ = write!(text, "{},", hello.version);
    dashed(text, words(hello.ciphers).filter(plain));
    text.push(',');
    dashed(text, hello.extensions.iter().map(|(kind, _)| kind).filter(plain));
    text.push(',');
    dashed(text, words(hello.extensions.list(GROUPS)).filter(plain));
    text.push(',');
    let formats = hello.extensions.get(POINT_FORMATS).unwrap_or(&[]);
    let formats =
        formats.split_first().map_or(&[][..], |(len, rest)| rest.get(..usize::from(*len)).unwrap_or(rest));
    dashed(text, formats.iter().map(|format| u16::from(*format)));
}

/// The text that JA3S hashes.
pub fn ja3s(hello: &ServerHello<'_>, text: &mut String) {
    text.clear();
    let _ = write!(text, "{},{},", hello.version, hello.cipher);
    dashed(text, hello.extensions.iter().map(|(kind, _)| kind));
}

/// MD5 of a text.
pub fn md5(text: &str) -> [u8; 16] {
    Md5::digest(text.as_bytes()).into()
}

/// What a hello came over: the first letter of its JA4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// TCP.
    Tcp,
    /// DTLS.
    Datagrams,
}

/// JA4, 36 characters. `hex` and `sorted` are scratch space.
pub fn ja4(hello: &ClientHello<'_>, over: Over, hex: &mut String, sorted: &mut Vec<u16>) -> [u8; 36] {
    let plain = |value: &u16| !is_grease(*value);
    let mut all = [b'0'; 36];
    let version = hello.versions().max().unwrap_or(hello.version);
    let version = match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 | 0x0200 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    };
    let named = if hello.extensions.get(SERVER_NAME).is_some() { 'd' } else { 'i' };
    let letter = if over == Over::Tcp { 't' } else { 'd' };
    let two = |n: usize| n.min(99);
    let ciphers = two(words(hello.ciphers).filter(plain).count());
    let extensions = two(hello.extensions.iter().filter(|(kind, _)| plain(kind)).count());
    let [first, last] = ends(hello.extensions.alpn().next());
    hex.clear();
    let _ = write!(hex, "{letter}{version}{named}{ciphers:02}{extensions:02}{first}{last}_");
    put(&mut all, 0, hex.as_bytes());

    sorted.clear();
    sorted.extend(words(hello.ciphers).filter(plain).take(MOST_SORTED));
    sorted.sort_unstable();
    hex.clear();
    comma(hex, sorted.iter().copied());
    put(&mut all, 11, &twelve(hex));
    put(&mut all, 23, b"_");

    sorted.clear();
    let kinds = hello.extensions.iter().map(|(kind, _)| kind).filter(plain).take(MOST_SORTED);
    sorted.extend(kinds.filter(|kind| !matches!(*kind, SERVER_NAME | ALPN)));
    sorted.sort_unstable();
    hex.clear();
    comma(hex, sorted.iter().copied());
    let mut signatures = words(hello.extensions.list(SIGNATURES)).filter(plain).take(MOST_SORTED).peekable();
    if signatures.peek().is_some() {
        hex.push('_');
        comma(hex, signatures);
    }
    put(&mut all, 24, &twelve(hex));
    all
}

fn put(all: &mut [u8; 36], at: usize, part: &[u8]) {
    if let Some(place) = all.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

/// First and last character of the first ALPN value; their hexadecimal digits if one of them is neither letter nor digit.
fn ends(alpn: Option<&[u8]>) -> [char; 2] {
    let (Some(&first), Some(&last)) = (alpn.and_then(<[u8]>::first), alpn.and_then(<[u8]>::last)) else {
        return ['0'; 2];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first.into(), last.into()];
    }
    let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 15)]
}

/// Appends values as four hexadecimal digits each, with commas.
fn comma(text: &mut String, values: impl Iterator<Item = u16>) {
    for (n, value) in values.enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{value:04x}");
    }
}

/// The first twelve hexadecimal digits of the SHA-256; zeros for an empty text.
fn twelve(text: &str) -> [u8; 12] {
    let mut digits = [b'0'; 12];
    if text.is_empty() {
        return digits;
    }
    let hash = Sha256::digest(text.as_bytes());
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(hash) {
        *pair = [byte >> 4, byte & 15].map(|n| char::from_digit(n.into(), 16).map_or(b'0', |c| c as u8));
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FoxIO's document.
    #[test]
    fn ja4_is_what_its_document_says() {
        let list = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        let ciphers = list(&[
            0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
            0x009c, 0x009d, 0x002f, 0x0035,
        ]);
        let mut extensions = Vec::new();
        let mut add = |kind: u16, content: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend((content.len() as u16).to_be_bytes());
            extensions.extend(content);
        };
        add(0x2a2a, &[]);
        for kind in [0x001b, 0x0000, 0x0033] {
            add(kind, &[]);
        }
        add(0x0010, &[0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1']);
        for kind in [0x4469, 0x0017, 0x002d] {
            add(kind, &[]);
        }
        let signatures = list(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]);
        add(0x000d, &[&[0, 16][..], &signatures].concat());
        add(0x0005, &[]);
        add(0x0023, &[]);
        add(0x0012, &[]);
        add(0x002b, &[6, 0xba, 0xba, 3, 4, 3, 3]);
        for kind in [0xff01, 0x000b, 0x000a, 0x0015] {
            add(kind, &[]);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend((ciphers.len() as u16).to_be_bytes());
        body.extend(&ciphers);
        body.extend([1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(&extensions);
        let hello = ClientHello::read(&body, false).expect("a hello");
        let ja4 = ja4(&hello, Over::Tcp, &mut String::new(), &mut Vec::new());
        assert_eq!(std::str::from_utf8(&ja4).unwrap(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn ends_of_a_protocol() {
        let of = |name: &'static [u8]| ends(Some(name)).iter().collect::<String>();
        assert_eq!((of(b"h2"), of(b"http/1.1"), of(b"x")), ("h2".into(), "h1".into(), "xx".into()));
        assert_eq!((of(b"\xabcd"), of(b"\xab\xcd"), of(b"0\xab")), ("a4".into(), "ad".into(), "3b".into()));
        assert_eq!(ends(None), ['0', '0']);
    }
}
