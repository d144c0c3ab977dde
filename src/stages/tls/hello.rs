//! ClientHello and ServerHello: bytes to fields, as TLS 1.0 to 1.3 (RFC 2246, 5246, 8446), their drafts and DTLS (RFC 6347, 9147) have them.
//!
//! Everything borrows from the message; nothing is allocated, and no length is believed beyond the bytes given. A ClientHello whose lengths contradict
//! each other is read as far as they agree, since servers differ in what they forgive, and says so; a ServerHello is refused.

/// Handshake type of a ClientHello.
pub const CLIENT_HELLO: u8 = 1;
/// Handshake type of a ServerHello.
pub const SERVER_HELLO: u8 = 2;
/// Handshake type of the HelloRetryRequest of TLS 1.3 drafts before 22.
pub const OLD_RETRY: u8 = 6;

/// Extension server_name (RFC 6066 section 3).
pub const SERVER_NAME: u16 = 0;
/// Extension supported_groups (RFC 8422 section 5.1.1).
pub const GROUPS: u16 = 10;
/// Extension ec_point_formats (RFC 8422 section 5.1.2).
pub const POINT_FORMATS: u16 = 11;
/// Extension signature_algorithms (RFC 8446 section 4.2.3).
pub const SIGNATURES: u16 = 13;
/// Extension application_layer_protocol_negotiation (RFC 7301).
pub const ALPN: u16 = 16;
/// Extension supported_versions (RFC 8446 section 4.2.1).
pub const VERSIONS: u16 = 43;
/// Extension encrypted_client_hello (RFC 9849 section 5).
pub const ECH: u16 = 0xfe0d;
/// Extension encrypted_server_name, its forerunner (draft-ietf-tls-esni-02).
pub const ESNI: u16 = 0xffce;

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Its lengths contradict each other, or it ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A value that means nothing and is there to keep others tolerant (RFC 8701).
pub fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Bytes that are taken off their front.
#[derive(Clone, Copy, Debug)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    fn word(&mut self) -> Result<u16, Malformed> {
        self.take(2)?.first_chunk().map(|word| u16::from_be_bytes(*word)).ok_or(Malformed)
    }

    /// What has a length of one byte in front.
    fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.byte()?;
        self.take(len.into())
    }

    /// What has a length of two bytes in front.
    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.word()?;
        self.take(len.into())
    }
}

/// The 16-bit values of a list.
pub fn words(list: &[u8]) -> impl DoubleEndedIterator<Item = u16> + Clone {
    list.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word))
}

/// Extensions one after the other; checked when the hello was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a>(&'a [u8]);

impl<'a> Extensions<'a> {
    /// What is left of a hello, or nothing at all (before TLS 1.2 it may end without). False if that is not a list of whole extensions.
    fn new(rest: &mut Bytes<'a>) -> (Self, bool) {
        if rest.0.is_empty() {
            return (Extensions(&[]), true);
        }
        let Ok(len) = rest.word() else { return (Extensions(&[]), false) };
        let all = Extensions(rest.0.get(..usize::from(len)).unwrap_or(rest.0));
        let mut bytes = Bytes(all.0);
        while !bytes.0.is_empty() {
            if bytes.word().is_err() || bytes.long().is_err() {
                return (all, false);
            }
        }
        (all, all.0.len() == usize::from(len))
    }

    /// Types and contents in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut bytes = Bytes(self.0);
        std::iter::from_fn(move || Some((bytes.word().ok()?, bytes.long().ok()?)))
    }

    /// The first of a type.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, content)| content)
    }

    /// The list in an extension that is one list with a length of two bytes.
    pub fn list(&self, kind: u16) -> &'a [u8] {
        self.get(kind).and_then(|content| Bytes(content).long().ok()).unwrap_or(&[])
    }

    /// Protocols of the extension ALPN, in order.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut bytes = Bytes(self.list(ALPN));
        std::iter::from_fn(move || bytes.short().ok()).filter(|name| !name.is_empty())
    }
}

/// A ClientHello.
#[derive(Clone, Copy, Debug)]
pub struct ClientHello<'a> {
    /// legacy_version.
    pub version: u16,
    /// Cipher suites, two bytes each.
    pub ciphers: &'a [u8],
    /// Extensions.
    pub extensions: Extensions<'a>,
    /// Lengths in it contradict each other; what is here is as far as they agree.
    pub is_malformed: bool,
}

impl<'a> ClientHello<'a> {
    /// Reads the body of the message; DTLS has a cookie in it. Refused if not even version and random are there.
    pub fn read(body: &'a [u8], dtls: bool) -> Result<Self, Malformed> {
        let mut bytes = Bytes(body);
        let version = bytes.word()?;
        bytes.take(32)?;
        let mut hello =
            ClientHello { version, ciphers: &[], extensions: Extensions(&[]), is_malformed: false };
        hello.is_malformed = hello.lists(&mut bytes, dtls) != Ok(true);
        Ok(hello)
    }

    /// What follows the random, as far as it goes. True if nothing is wrong with it.
    fn lists(&mut self, bytes: &mut Bytes<'a>, dtls: bool) -> Result<bool, Malformed> {
        let session = bytes.short()?;
        if dtls {
            bytes.short()?;
        }
        self.ciphers = bytes.long()?;
        bytes.short()?;
        let whole;
        (self.extensions, whole) = Extensions::new(bytes);
        Ok(whole && session.len() <= 32 && self.ciphers.len().is_multiple_of(2))
    }

    /// The server name: the first name of type host_name. Empty where it is there without a name.
    pub fn sni(&self) -> Option<&'a [u8]> {
        let content = self.extensions.get(SERVER_NAME)?;
        let mut bytes = Bytes(Bytes(content).long().ok()?);
        while let (Ok(kind), Ok(name)) = (bytes.byte(), bytes.long()) {
            if kind == 0 {
                return Some(name);
            }
        }
        None
    }

    /// What supported_versions offers, GREASE left out.
    pub fn versions(&self) -> impl Iterator<Item = u16> + use<'a> {
        let content = self.extensions.get(VERSIONS);
        let list = content.and_then(|content| Bytes(content).short().ok()).unwrap_or(&[]);
        words(list).filter(|version| !is_grease(*version))
    }

    /// Has it an encrypted hello, or an encrypted name?
    pub fn is_encrypted(&self) -> bool {
        self.extensions.iter().any(|(kind, _)| matches!(kind, ECH | ESNI))
    }
}

/// A ServerHello, or a HelloRetryRequest.
#[derive(Clone, Copy, Debug)]
pub struct ServerHello<'a> {
    /// legacy_version.
    pub version: u16,
    /// The cipher suite.
    pub cipher: u16,
    /// Extensions.
    pub extensions: Extensions<'a>,
    /// It asks for another ClientHello.
    pub is_retry: bool,
}

impl<'a> ServerHello<'a> {
    /// Reads the body of the message.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(body);
        let version = bytes.word()?;
        let random = bytes.take(32)?;
        // Drafts of TLS 1.3 before 22 have neither session nor compression.
        let old_draft = (0x7f00..0x7f16).contains(&version);
        if !old_draft && bytes.short()?.len() > 32 {
            return Err(Malformed);
        }
        let cipher = bytes.word()?;
        if !old_draft {
            bytes.byte()?;
        }
        let (extensions, true) = Extensions::new(&mut bytes) else { return Err(Malformed) };
        Ok(ServerHello { version, cipher, extensions, is_retry: *random == RETRY })
    }

    /// The version that both will speak.
    pub fn negotiated(&self) -> u16 {
        let chosen = self.extensions.get(VERSIONS).and_then(|content| content.first_chunk());
        chosen.map_or(self.version, |version| u16::from_be_bytes(*version))
    }
}
