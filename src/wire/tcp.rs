//! TCP (RFC 9293).
//!
//! Promises a fixed header that is all there and a data offset between it and the bytes given. The segment has no length of
//! its own: give exactly the IP payload. Options are walked lazily; a broken option ends the walk with an error, which is
//! the reader's to judge. The checksum needs the IP addresses and is not looked at.

use super::Malformed;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// FIN: no more data from the sender.
pub const FIN: u8 = 0x01;
/// SYN: synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// RST: reset.
pub const RST: u8 = 0x04;
/// PSH: push.
pub const PSH: u8 = 0x08;
/// ACK: the acknowledgment number counts.
pub const ACK: u8 = 0x10;
/// URG: the urgent pointer counts.
pub const URG: u8 = 0x20;
/// ECE (RFC 3168).
pub const ECE: u8 = 0x40;
/// CWR (RFC 3168).
pub const CWR: u8 = 0x80;

/// A checked TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// A segment from its source port to the end of the IP payload.
    #[inline(always)]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let Some(options_len) = (usize::from(header[12] >> 4) * 4).checked_sub(HEADER_LEN) else {
            return Err(Malformed::Header);
        };
        let Some((options, payload)) = rest.split_at_checked(options_len) else {
            return Err(Malformed::Length);
        };
        Ok(Tcp { header, options, payload })
    }

    /// Source port.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Sequence number of the first byte of the payload (of the SYN, if it is set).
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// Acknowledgment number; means something only with [`ACK`].
    #[inline(always)]
    pub fn acknowledgment(&self) -> u32 {
        u32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]])
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// The flags: CWR ECE URG ACK PSH RST SYN FIN.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.header[13]
    }

    /// Window, not scaled.
    #[inline(always)]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.header[14], self.header[15]])
    }

    /// The checksum as it stands.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[16], self.header[17]])
    }

    /// Urgent pointer; means something only with [`URG`].
    #[inline(always)]
    pub fn urgent(&self) -> u16 {
        u16::from_be_bytes([self.header[18], self.header[19]])
    }

    /// The options one by one.
    #[inline(always)]
    pub fn options(&self) -> Options<'a> {
        Options { rest: self.options }
    }

    /// What follows the header.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// One option that has data or could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Kind (IANA): 2 maximum segment size, 3 window scale, 4 SACK permitted, 5 SACK, 8 timestamps, ...
    pub kind: u8,
    /// The data, 0 to 38 bytes.
    pub data: &'a [u8],
}

/// The options in their order, without padding. A length that cannot be is an error, and the last item.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // No-operation options are single bytes of padding; at most 40 of them.
        while let [1, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let rest = std::mem::take(&mut self.rest);
        match *rest {
            // The end, or the end of the list: what follows is padding.
            [] | [0, ..] => None,
            [kind, len, ref rest @ ..] => {
                let Some(len) = usize::from(len).checked_sub(2) else { return Some(Err(Malformed::Header)) };
                let Some((data, rest)) = rest.split_at_checked(len) else {
                    return Some(Err(Malformed::Length));
                };
                self.rest = rest;
                Some(Ok(Opt { kind, data }))
            }
            [_] => Some(Err(Malformed::Truncated)),
        }
    }
}

/// A header without options to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Checksum; 0 if it is to be filled in when the payload is known.
    pub checksum: u16,
}

impl Fields {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..2].copy_from_slice(&self.source_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        out[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        out[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        out[12] = (HEADER_LEN as u8 / 4) << 4;
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].copy_from_slice(&self.checksum.to_be_bytes());
        out
    }
}
