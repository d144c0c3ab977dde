//! One head: request or status line, and the headers that say whose, what and how long (RFC 9110, RFC 9112).
//!
//! Nothing is allocated. It is read as servers and clients are known to read it, lines that break the rules included; that they do is a [`Sign`], as is
//! what contradicts itself: whoever gets such a message may read it otherwise. The reader is ours, not `httparse`: that one refuses what servers take
//! (two spaces, no version, a colon that is missing), and an attacker writes exactly that. What it accepts both read alike (a property test).

use memchr::memchr;

use super::frame::Body;

/// What is odd about a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sign(pub u8);

impl Sign {
    /// Several hosts that differ: of headers, or of the target and a header (RFC 9112 section 3.2).
    pub const HOSTS: Sign = Sign(1);
    /// Content-Length beside Transfer-Encoding (RFC 9112 section 6.1).
    pub const BOTH_LENGTHS: Sign = Sign(2);
    /// Lengths that differ, or are no numbers.
    pub const LENGTH: Sign = Sign(4);
    /// A request whose last transfer coding is not `chunked`, or one of HTTP/1.0 with a coding.
    pub const CODING: Sign = Sign(8);
    /// White space in front of a colon: some see the header, others do not (RFC 9112 section 5.1).
    pub const COLON: Sign = Sign(16);
    /// A line that breaks the grammar.
    pub const GRAMMAR: Sign = Sign(32);
    /// A request of HTTP/1.1 without a host.
    pub const NO_HOST: Sign = Sign(64);

    /// Is it among them?
    pub fn has(self, sign: Sign) -> bool {
        self.0 & sign.0 != 0
    }

    /// Can it be read in two ways?
    pub fn is_ambiguous(self) -> bool {
        self.has(Sign(1 | 2 | 4 | 8 | 16))
    }

    /// Does it break the rules?
    pub fn is_broken(self) -> bool {
        self.has(Sign(32 | 64))
    }

    fn add(&mut self, sign: Sign) {
        self.0 |= sign.0;
    }
}

/// A request's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a [u8],
    /// The target, as a server finds it: all between method and version.
    pub target: &'a [u8],
    /// The target, as the grammar has it: up to the next space. Between two spaces there is nothing.
    pub written: &'a [u8],
    /// `HTTP/1.1`; empty where the line has none.
    pub version: &'a [u8],
    /// Of the target if that has one, else of the first Host header; with its port.
    pub host: Option<&'a [u8]>,
    /// Another one that it names.
    pub other_host: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    pub headers: Headers<'a>,
    pub signs: Sign,
    pub body: Body,
}

/// An answer's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    pub version: &'a [u8],
    pub content_type: Option<&'a [u8]>,
    pub location: Option<&'a [u8]>,
    /// What follows is HTTP/2.
    pub to_http2: bool,
    pub signs: Sign,
    /// As its headers have it; see [`Answer::body_for`].
    pub body: Body,
}

/// What a request asks for, as far as its answer's body depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    #[default]
    Body,
    Head,
    Connect,
}

/// One header. The value is as it was sent, without white space around it; it goes over several lines if those begin with white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub signs: Sign,
}

impl Header<'_> {
    fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The headers of a head, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

/// The first line, without its end, and what follows it.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..at).unwrap_or(bytes);
    (line.strip_suffix(b"\r").unwrap_or(line), bytes.get(at + 1..).unwrap_or(&[]))
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Characters of names and methods (RFC 9110 section 5.6.2): letters, digits, and !#$%&'*+-.^_`|~
fn is_in_token(byte: &u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

/// A name or a method.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(is_in_token)
}

/// Bytes that no line has in it.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |has, b| has | ((*b < b' ') & (*b != b'\t')) | (*b == 0x7f))
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let all = self.0;
        let (first, mut rest) = line(all);
        if first.is_empty() {
            self.0 = &[];
            return None;
        }
        let mut signs = Sign::default();
        // RFC 9112 section 5.2: a line that begins with white space belongs to the one before it.
        while rest.first().is_some_and(is_blank) {
            rest = line(rest).1;
            signs.add(Sign::GRAMMAR);
        }
        self.0 = rest;
        let whole = all.get(..all.len() - rest.len()).unwrap_or(first);
        let Some(colon) = memchr(b':', first) else {
            signs.add(Sign::GRAMMAR);
            return Some(Header { name: &[], value: whole.trim_ascii(), signs });
        };
        let name = whole.get(..colon).unwrap_or(&[]);
        let value = whole.get(colon + 1..).unwrap_or(&[]).trim_ascii();
        let plain = name.trim_ascii_end();
        if plain.len() < name.len() {
            signs.add(Sign::COLON);
        }
        if !is_token(plain) || (!signs.has(Sign::GRAMMAR) && has_control(value)) {
            signs.add(Sign::GRAMMAR);
        }
        Some(Header { name: plain.trim_ascii(), value, signs })
    }
}

/// Lengths that headers speak of.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    signs: Sign,
}

impl Lengths {
    fn see(&mut self, header: &Header<'_>) {
        self.signs.add(header.signs);
        if header.is(b"content-length") {
            for part in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                match (number(part), self.length) {
                    (Some(n), None) => self.length = Some(n),
                    (Some(n), Some(other)) if n == other => {}
                    _ => self.signs.add(Sign::LENGTH),
                }
            }
        } else if header.is(b"transfer-encoding") {
            self.coded = true;
            let last = header.value.rsplit(|b| *b == b',').next().unwrap_or(&[]);
            self.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
    }

    /// RFC 9112 section 6.3: the coding wins over the length.
    fn body(&mut self, otherwise: Body) -> Body {
        if self.coded && self.length.is_some() {
            self.signs.add(Sign::BOTH_LENGTHS);
        }
        match (self.coded, self.chunked, self.length) {
            (true, true, _) => Body::Chunked,
            (true, false, _) => Body::UntilEnd,
            (false, _, Some(n)) => Body::Length(n),
            (false, _, None) => otherwise,
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |n: u64, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// What stands between `://` and the path of an absolute target.
pub fn authority(target: &[u8]) -> Option<&[u8]> {
    let at = memchr(b':', target)?;
    let (scheme, rest) = (target.get(..at)?, target.get(at..)?.strip_prefix(b"://")?);
    if scheme.is_empty() || !scheme.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.get(..end)
}

/// `HTTP/1.` and a digit: that digit.
fn minor(version: &[u8]) -> Option<u8> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Some(minor - b'0'),
        _ => None,
    }
}

/// Where a word ends.
fn word(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(is_blank).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or(bytes)
}

/// Reads a request's head, from its first byte to the empty line; none if it does not even begin like one: a word and a space.
pub fn request(head: &[u8]) -> Option<Request<'_>> {
    let (first, rest) = line(head);
    let method = word(first);
    let behind = first.get(method.len() + 1..)?;
    if !is_token(method) {
        return None;
    }
    let written = word(behind);
    let plain = behind.trim_ascii();
    let at = plain.iter().rposition(is_blank).map_or(0, |at| at + 1);
    let last = plain.get(at..).unwrap_or(&[]);
    let versioned = last.starts_with(b"HTTP/");
    let (target, version) = match versioned {
        true => (plain.get(..at).unwrap_or(&[]).trim_ascii_end(), last),
        false => (plain, &[][..]),
    };
    let mut request =
        Request { method, target, written, version, headers: Headers(rest), ..Request::default() };
    let (mut lengths, mut named) = (Lengths::default(), false);
    let minor = minor(version);
    if minor.is_none() || target != written || target.is_empty() || has_control(first) {
        lengths.signs.add(Sign::GRAMMAR);
    }
    // RFC 9112 section 3.2.2: the target's host counts, whatever the header says.
    let connects = method == b"CONNECT";
    request.host = if connects { Some(target) } else { authority(target) };
    for header in request.headers {
        lengths.see(&header);
        if header.is(b"host") {
            named = true;
            match request.host {
                None => request.host = Some(header.value),
                Some(host) if host_of(host).0.eq_ignore_ascii_case(host_of(header.value).0) => {}
                Some(_) => {
                    request.other_host = request.other_host.or(Some(header.value));
                    lengths.signs.add(Sign::HOSTS);
                }
            }
        } else if header.is(b"user-agent") {
            request.user_agent = request.user_agent.or(Some(header.value));
        } else if header.is(b"referer") {
            request.referer = request.referer.or(Some(header.value));
        }
    }
    request.body = lengths.body(Body::None);
    if request.body == Body::UntilEnd || (lengths.coded && minor == Some(0)) {
        lengths.signs.add(Sign::CODING);
    }
    if !named && minor > Some(0) {
        lengths.signs.add(Sign::NO_HOST);
    }
    request.signs = lengths.signs;
    Some(request)
}

/// Reads an answer's head; none if it is none.
pub fn answer(head: &[u8]) -> Option<Answer<'_>> {
    let (first, rest) = line(head);
    let version = word(first);
    if !version.starts_with(b"HTTP/") {
        return None;
    }
    let behind = first.get(version.len() + 1..)?;
    let plain = behind.trim_ascii_start();
    let status = number(word(plain).get(..3)?)? as u16;
    let mut answer = Answer { status, version, ..Answer::default() };
    let mut lengths = Lengths::default();
    if minor(version).is_none() || word(plain).len() != 3 || plain.len() != behind.len() || has_control(first)
    {
        lengths.signs.add(Sign::GRAMMAR);
    }
    for header in Headers(rest) {
        lengths.see(&header);
        if header.is(b"content-type") {
            answer.content_type = answer.content_type.or(Some(header.value));
        } else if header.is(b"location") {
            answer.location = answer.location.or(Some(header.value));
        } else if header.is(b"upgrade") {
            answer.to_http2 |= answer.status == 101 && header.value.eq_ignore_ascii_case(b"h2c");
        }
    }
    answer.body = lengths.body(Body::UntilEnd);
    answer.signs = lengths.signs;
    Some(answer)
}

impl Request<'_> {
    /// The first line of HTTP/2 (RFC 9113 section 3.4).
    pub fn is_http2(&self) -> bool {
        self.method == b"PRI" && self.target == b"*" && self.version == b"HTTP/2.0"
    }

    /// What its answer depends on.
    pub fn asked(&self) -> Asked {
        match self.method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Body,
        }
    }
}

impl Answer<'_> {
    /// The body behind it, once it is known what it answers (RFC 9112 section 6.3).
    pub fn body_for(&self, asked: Asked) -> Body {
        match (self.status, asked) {
            (101, _) | (200..=299, Asked::Connect) => Body::Opaque,
            (100..=199 | 204 | 304, _) | (_, Asked::Head) => Body::None,
            _ => self.body,
        }
    }

    /// Another answer to the same request follows.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// The name in `user@name:port`, and the port. Of an address in brackets without these.
pub fn host_of(host: &[u8]) -> (&[u8], Option<u16>) {
    let host = host.rsplit(|b| *b == b'@').next().unwrap_or(host);
    let end = match host.strip_prefix(b"[").and_then(|inside| memchr(b']', inside)) {
        Some(close) => close + 2,
        None => memchr(b':', host).unwrap_or(host.len()),
    };
    let port = host.get(end..).and_then(|rest| rest.strip_prefix(b":")).and_then(number);
    let name = host.get(..end).unwrap_or(host);
    let name = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")).unwrap_or(name);
    (name, port.and_then(|port| u16::try_from(port).ok()))
}
