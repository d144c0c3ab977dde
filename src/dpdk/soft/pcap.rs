//! Capture files: pcap and pcapng in, pcap out.
//!
//! Reading takes one record at a time into one reused buffer, so memory is bounded whatever a file claims:
//! a record is refused above [`MAX_RECORD`], and a buffer only grows as far as the file really goes on.
//! Timestamps come out as nanoseconds since 1970, link types as Ethernet or raw IP; everything else is an
//! error that names the file and the record.
//!
//! pcap-file parses pcap headers and records, and writes. Its readers are not used: they allocate 8 MB, refuse
//! packets that a snap length cut, take every pcapng timestamp for nanoseconds, insist on the optional
//! end-of-options mark, and keep every option of every interface in memory (about ten bytes per byte of file).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapParser, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};

/// Longest record that is read: the largest snap length in use (libpcap: 262144) with room for pcapng options.
pub const MAX_RECORD: u32 = 1 << 20;
/// Snap length in files that are written.
const SNAP_LEN: u32 = 262_144;
/// Interfaces that one pcapng section may describe.
const MAX_INTERFACES: usize = 4096;

const PCAP_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
// Block types of pcapng (draft-ietf-opsawg-pcapng, section 4).
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What a capture file can have wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system said no.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not a capture, or one of a kind that is not read.
    #[error("{file}: {what}; pcap and pcapng with Ethernet or raw IP frames can be read")]
    Foreign {
        /// The file.
        file: String,
        /// What it looks like.
        what: String,
    },
    /// The file ends inside a record.
    #[error(
        "{file}: the file ends inside record {record}; cut it behind record {} (editcap does that) or capture anew",
        record - 1
    )]
    Truncated {
        /// The file.
        file: String,
        /// Number of the record from 1, pcapng blocks counted like packets.
        record: u64,
    },
    /// A record contradicts the format.
    #[error("{file}: record {record}: {what}")]
    Malformed {
        /// The file.
        file: String,
        /// Number of the record from 1, pcapng blocks counted like packets.
        record: u64,
        /// What is wrong.
        what: String,
    },
}

/// What the bytes of a captured frame start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    RawIp,
}

impl Link {
    /// 12 and 14 are the raw IP numbers of BSDs and old files; the upper half of the field holds FCS facts.
    fn from_number(number: u32) -> Result<Self, String> {
        match number & 0xffff {
            1 => Ok(Link::Ethernet),
            12 | 14 | 101 | 228 | 229 => Ok(Link::RawIp),
            other => {
                Err(format!("link type {other} ({:?}) is not Ethernet or raw IP", DataLink::from(other)))
            }
        }
    }
}

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: u64,
    /// What the bytes start with.
    pub link: Link,
    /// Bytes that it had on the wire; more than `bytes` if the capture cut it.
    pub wire_len: u32,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// A capture that is read frame by frame.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    file: String,
    format: Format,
    record: Vec<u8>,
    records: u64,
}

#[derive(Debug)]
enum Format {
    Pcap { parser: PcapParser, link: Link },
    PcapNg { order: Order, interfaces: Vec<Interface> },
}

#[derive(Clone, Debug)]
struct Interface {
    link: Result<Link, String>,
    snap_len: u32,
    ticks: Ticks,
    offset_seconds: i64,
}

/// Timestamp unit (`if_tsresol`): `10^-n` or `2^-n` seconds.
#[derive(Clone, Copy, Debug)]
enum Ticks {
    Decimal(u32),
    Binary(u32),
}

impl Reader<BufReader<File>> {
    /// Opens a capture.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Reader::new(name, BufReader::new(file)),
            Err(source) => Err(Error::Io { file: name, source }),
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads a capture from anywhere; `name` is for messages.
    pub fn new(name: impl Into<String>, mut input: R) -> Result<Self, Error> {
        let file = name.into();
        let mut head = Vec::new();
        let io = |source| Error::Io { file: file.clone(), source };
        input.by_ref().take(PCAP_HEADER as u64).read_to_end(&mut head).map_err(io)?;
        let foreign = |what: String| Error::Foreign { file: file.clone(), what };
        if head.starts_with(&PCAPNG_MAGIC) {
            // The section header is a block like any other; `head` holds its start.
            let format = Format::PcapNg { order: Order::Big, interfaces: Vec::new() };
            let mut reader = Reader { input, file, format, record: head, records: 1 };
            reader.section()?;
            return Ok(reader);
        }
        if head.is_empty() {
            return Err(foreign("the file is empty".into()));
        }
        let Ok((_, parser)) = PcapParser::new(&head) else {
            let what = match head.first_chunk::<4>() {
                Some(m) if is_pcap_magic(*m) => "the file ends inside its header".into(),
                _ => "this is not a capture file".into(),
            };
            return Err(foreign(what));
        };
        let header = parser.header();
        if header.version_major != 2 {
            return Err(foreign(format!("pcap version {} is not known", header.version_major)));
        }
        let link = Link::from_number(header.datalink.into()).map_err(foreign)?;
        Ok(Reader { input, file, format: Format::Pcap { parser, link }, record: head, records: 0 })
    }

    /// The next frame, or `None` at the end of the file.
    #[allow(clippy::should_implement_trait, reason = "the frame borrows the reader's buffer: no iterator")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        match self.format {
            Format::Pcap { .. } => self.next_pcap(),
            Format::PcapNg { .. } => self.next_pcapng(),
        }
    }

    fn next_pcap(&mut self) -> Result<Option<Frame<'_>>, Error> {
        self.record.clear();
        if !self.extend_to(RECORD_HEADER)? {
            return Ok(None);
        }
        let Format::Pcap { parser, .. } = &self.format else { return Ok(None) };
        let order = if parser.header().endianness.is_big() { Order::Big } else { Order::Little };
        let captured = self.field(order, 8)?;
        if captured > MAX_RECORD {
            return Err(
                self.malformed(format!("{captured} bytes in one frame; at most {MAX_RECORD} are read"))
            );
        }
        self.extend_to(RECORD_HEADER + captured as usize)?;
        let Format::Pcap { parser, link } = &self.format else { return Ok(None) };
        let Ok((_, packet)) = parser.next_raw_packet(&self.record) else {
            return Err(self.malformed("the record is not readable"));
        };
        let nanos = parser.header().ts_resolution == TsResolution::NanoSecond;
        // A fraction of a second or more is out of the format, but can only mean one thing.
        let fraction = u64::from(packet.ts_frac) * if nanos { 1 } else { 1000 };
        let time = u64::from(packet.ts_sec) * 1_000_000_000 + fraction;
        let bytes = self.record.get(RECORD_HEADER..).unwrap_or(&[]);
        Ok(Some(Frame { time, link: *link, wire_len: packet.orig_len.max(captured), bytes }))
    }

    fn next_pcapng(&mut self) -> Result<Option<Frame<'_>>, Error> {
        loop {
            self.record.clear();
            if !self.extend_to(12)? {
                return Ok(None);
            }
            if self.record.starts_with(&PCAPNG_MAGIC) {
                self.section()?;
                continue;
            }
            let Format::PcapNg { order, .. } = self.format else { return Ok(None) };
            let (kind, len) = (self.field(order, 0)?, self.field(order, 4)?);
            let needed = [INTERFACE_DESCRIPTION, PACKET, SIMPLE_PACKET, ENHANCED_PACKET].contains(&kind);
            if !needed {
                self.skip(len)?;
                continue;
            }
            self.block(order, len)?;
            if kind == INTERFACE_DESCRIPTION {
                self.interface(order)?;
                continue;
            }
            let (time, link, wire_len, range) = self.packet(order, kind)?;
            let bytes = self.record.get(range).unwrap_or(&[]);
            return Ok(Some(Frame { time, link, wire_len, bytes }));
        }
    }

    /// A section header: `record` holds at least its first 12 bytes. Says the byte order; interfaces start anew.
    fn section(&mut self) -> Result<(), Error> {
        let order = match self.record.get(8..12) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => Order::Big,
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => Order::Little,
            _ => return Err(self.malformed("a section header without byte-order magic")),
        };
        let len = self.field(order, 4)?;
        if len < 28 {
            return Err(self.malformed(format!("a section header of {len} bytes")));
        }
        self.block(order, len)?;
        let major = order.u16(&self.record, 12).unwrap_or(0);
        if major != 1 {
            let what = format!("pcapng version {major} is not known");
            return Err(Error::Foreign { file: self.file.clone(), what });
        }
        self.format = Format::PcapNg { order, interfaces: Vec::new() };
        Ok(())
    }

    /// Reads the rest of a block of `len` bytes; its length stands at both ends.
    fn block(&mut self, order: Order, len: u32) -> Result<(), Error> {
        if len > MAX_RECORD {
            return Err(self.malformed(format!("a block of {len} bytes; at most {MAX_RECORD} are read")));
        }
        if (len as usize) < self.record.len() || !len.is_multiple_of(4) {
            return Err(self.malformed(format!("a block of {len} bytes")));
        }
        self.extend_to(len as usize)?;
        if self.field(order, len as usize - 4)? != len {
            return Err(self.malformed("a block whose two lengths differ"));
        }
        Ok(())
    }

    fn skip(&mut self, len: u32) -> Result<(), Error> {
        if len < 12 || !len.is_multiple_of(4) {
            return Err(self.malformed(format!("a block of {len} bytes")));
        }
        let rest = u64::from(len) - 12;
        let io = |source| Error::Io { file: self.file.clone(), source };
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).map_err(io)?;
        if skipped < rest {
            return Err(Error::Truncated { file: self.file.clone(), record: self.records });
        }
        Ok(())
    }

    fn interface(&mut self, order: Order) -> Result<(), Error> {
        let link = Link::from_number(order.u16(&self.record, 8).unwrap_or(0).into());
        let snap_len = self.field(order, 12)?;
        let mut interface = Interface { link, snap_len, ticks: Ticks::Decimal(6), offset_seconds: 0 };
        let mut options = self.record.get(16..self.record.len().saturating_sub(4)).unwrap_or(&[]);
        while let (Some(code), Some(len)) = (order.u16(options, 0), order.u16(options, 2)) {
            let end = 4 + (len as usize).next_multiple_of(4);
            let (Some(value), true) = (options.get(4..4 + len as usize), code != 0) else { break };
            match (code, value) {
                (9, [n]) if n & 0x80 != 0 => interface.ticks = Ticks::Binary(u32::from(n & 0x7f)),
                (9, [n]) => interface.ticks = Ticks::Decimal(u32::from(*n)),
                (14, _) => interface.offset_seconds = order.u64(value, 0).unwrap_or(0) as i64,
                _ => {}
            }
            options = options.get(end..).unwrap_or(&[]);
        }
        let Format::PcapNg { interfaces, .. } = &mut self.format else { return Ok(()) };
        if interfaces.len() >= MAX_INTERFACES {
            return Err(self.malformed(format!("more than {MAX_INTERFACES} interfaces in one section")));
        }
        interfaces.push(interface);
        Ok(())
    }

    /// Time, link type, length on the wire and place in `record` of the packet in a whole packet block.
    fn packet(&self, order: Order, kind: u32) -> Result<(u64, Link, u32, std::ops::Range<usize>), Error> {
        let end = self.record.len().saturating_sub(4);
        let simple = kind == SIMPLE_PACKET;
        let start: usize = if simple { 12 } else { 28 };
        if end < start {
            return Err(self.malformed("the block is too short for its kind"));
        }
        let id = match kind {
            SIMPLE_PACKET => 0,
            PACKET => order.u16(&self.record, 8).map_or(usize::MAX, usize::from),
            _ => self.field(order, 8)? as usize,
        };
        let Format::PcapNg { interfaces, .. } = &self.format else {
            return Err(self.malformed("no section"));
        };
        let Some(interface) = interfaces.get(id) else {
            return Err(self.malformed(format!("a packet of interface {id}, which was not described")));
        };
        let link = interface.link.clone().map_err(|what| self.malformed(what))?;
        let (captured, wire_len) = if simple {
            let wire_len = self.field(order, 8)?;
            let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
            (wire_len.min(snap_len).min((end - start) as u32), wire_len)
        } else {
            (self.field(order, 20)?, self.field(order, 24)?)
        };
        let range = start..start.saturating_add(captured as usize);
        if range.end > end {
            return Err(self.malformed(format!("a packet of {captured} bytes in a block of {}", end + 4)));
        }
        let time = if simple {
            0 // simple packets carry no time
        } else {
            let ticks = u64::from(self.field(order, 12)?) << 32 | u64::from(self.field(order, 16)?);
            interface.nanoseconds(ticks)
        };
        Ok((time, link, wire_len.max(captured), range))
    }

    /// Reads until `record` holds `len` bytes. False: the file had ended before the record began.
    fn extend_to(&mut self, len: usize) -> Result<bool, Error> {
        let start = self.record.len();
        let fresh = start == 0;
        let missing = len.saturating_sub(start);
        let io = |source| Error::Io { file: self.file.clone(), source };
        let got = self.input.by_ref().take(missing as u64).read_to_end(&mut self.record).map_err(io)?;
        if fresh && got == 0 {
            return Ok(false);
        }
        if fresh {
            self.records += 1;
        }
        if got < missing {
            return Err(Error::Truncated { file: self.file.clone(), record: self.records.max(1) });
        }
        Ok(true)
    }

    fn field(&self, order: Order, at: usize) -> Result<u32, Error> {
        order.u32(&self.record, at).ok_or_else(|| self.malformed("the block is too short for its kind"))
    }

    fn malformed(&self, what: impl Into<String>) -> Error {
        Error::Malformed { file: self.file.clone(), record: self.records.max(1), what: what.into() }
    }
}

impl Interface {
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let nanos = match self.ticks {
            Ticks::Decimal(n) if n <= 9 => ticks * 10u128.pow(9 - n),
            Ticks::Decimal(n) => 10u128.checked_pow(n - 9).map_or(0, |d| ticks / d),
            Ticks::Binary(n) => (ticks * 1_000_000_000).checked_shr(n).unwrap_or(0),
        };
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        let shifted = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(shifted.max(0)).unwrap_or(u64::MAX)
    }
}

fn is_pcap_magic(magic: [u8; 4]) -> bool {
    [0xa1b2_c3d4, 0xa1b2_3c4d, 0xd4c3_b2a1, 0x4d3c_b2a1].contains(&u32::from_be_bytes(magic))
}

/// Reads a whole capture from memory and says how many frames it has. Never panics, whatever the bytes: this is the
/// entrance for fuzzing.
pub fn read_all_bounded(bytes: &[u8]) -> Result<u64, Error> {
    let mut reader = Reader::new("memory", bytes)?;
    let mut frames = 0;
    while reader.next()?.is_some() {
        frames += 1;
    }
    Ok(frames)
}

/// A capture that is written: pcap, Ethernet, nanoseconds, little-endian on every machine.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: PcapWriter<W>,
    file: String,
}

impl Writer<BufWriter<File>> {
    /// Makes a new file, or replaces an old one.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        match File::create(path) {
            Ok(file) => Writer::new(name, BufWriter::with_capacity(1 << 20, file)),
            Err(source) => Err(Error::Io { file: name, source }),
        }
    }
}

impl<W: Write> Writer<W> {
    /// Writes a capture to anywhere; `name` is for messages.
    pub fn new(name: impl Into<String>, output: W) -> Result<Self, Error> {
        let file = name.into();
        let header = PcapHeader {
            endianness: Endianness::Little,
            ts_resolution: TsResolution::NanoSecond,
            snaplen: SNAP_LEN,
            datalink: DataLink::ETHERNET,
            ..PcapHeader::default()
        };
        let output = PcapWriter::with_header(output, header).map_err(|e| write_error(&file, e))?;
        Ok(Writer { output, file })
    }

    /// Adds one Ethernet frame; `time` in nanoseconds since 1970, at most the year 2106.
    pub fn write(&mut self, time: u64, frame: &[u8]) -> Result<(), Error> {
        let packet = PcapPacket::new(Duration::from_nanos(time), frame.len() as u32, frame);
        self.output.write_packet(&packet).map(drop).map_err(|e| write_error(&self.file, e))
    }

    /// Writes out what is buffered and gives the output back.
    pub fn finish(self) -> Result<W, Error> {
        let mut output = self.output.into_writer();
        output.flush().map_err(|source| Error::Io { file: self.file, source })?;
        Ok(output)
    }
}

fn write_error(file: &str, error: pcap_file::PcapError) -> Error {
    let source = match error {
        pcap_file::PcapError::IoError(source) => source,
        other => io::Error::other(other),
    };
    Error::Io { file: file.into(), source }
}

/// Byte order of a pcapng section.
#[derive(Clone, Copy, Debug)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Big => u16::from_be_bytes(raw),
            Order::Little => u16::from_le_bytes(raw),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Big => u32::from_be_bytes(raw),
            Order::Little => u32::from_le_bytes(raw),
        })
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Big => u64::from_be_bytes(raw),
            Order::Little => u64::from_le_bytes(raw),
        })
    }
}

#[cfg(test)]
mod tests;
