//! One frame in one buffer, with one owner.

use std::ptr::NonNull;

use super::mempool;
use super::prefetch::{prefetch, prefetch_to_write};
use super::raw::{self, Header};

/// What the driver says of a checksum it may have verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Not verified: the driver does not do it, or could not for this frame.
    Unknown,
    /// Verified and right.
    Good,
    /// Verified and wrong.
    Bad,
}

/// A frame: sole owner of its buffer, which goes back to its pool on drop.
#[repr(transparent)]
pub struct Mbuf(NonNull<Header>);

// SAFETY: S3, the handle is the only one; pools accept buffers from any thread. Not Sync: nothing shares a buffer.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `header` points to a live mbuf of an EAL or soft pool (S1, S2) that nobody else owns (S3).
    pub(super) unsafe fn from_raw(header: NonNull<Header>) -> Self {
        Mbuf(header)
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        // SAFETY: S3, alive as long as `self`, and shared borrows of `self` cannot change it.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: S3, sole owner.
        unsafe { self.0.as_mut() }
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.header().data_len as usize
    }

    /// True for a frame without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        let h = self.header();
        // SAFETY: S2, `data_off + data_len <= buf_len`, initialised; S3, borrowed from the sole owner.
        unsafe { std::slice::from_raw_parts(h.buf_addr.add(h.data_off as usize), h.data_len as usize) }
    }

    /// The frame, to be changed in place.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let h = self.header_mut();
        // SAFETY: as in `data`; the exclusive borrow of the sole owner makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(h.buf_addr.add(h.data_off as usize), h.data_len as usize) }
    }

    /// Asks the cache for the first line of the frame. No effect on any answer.
    #[inline(always)]
    pub fn prefetch(&self) {
        let h = self.header();
        // SAFETY: S2, inside the buffer (a prefetch never faults anyway).
        let line = unsafe { h.buf_addr.add(h.data_off as usize) };
        prefetch(line);
    }

    /// Asks the cache for the header and for so many lines of the frame, of which the first will be written to. Nothing is read: the frame
    /// is taken to begin where drivers put it.
    #[inline(always)]
    pub fn prefetch_usual<const LINES: usize>(&self) {
        let header: *const u8 = self.0.as_ptr().cast();
        prefetch(header);
        let frame = header.wrapping_add(raw::HEADER + raw::HEADROOM);
        prefetch_to_write(frame);
        for line in 1..LINES {
            prefetch(frame.wrapping_add(64 * line));
        }
    }

    /// Asks the cache for the header's first line, before [`Self::prefetch`] or any field is read.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch(self.0.as_ptr().cast());
    }

    /// Bytes that [`Self::append`] can still add.
    pub fn tailroom(&self) -> usize {
        let h = self.header();
        h.buf_len as usize - h.data_off as usize - h.data_len as usize
    }

    /// Adds `n` zeroed bytes at the end and returns them; `None` if the buffer has no room.
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let old = self.len();
        let h = self.header_mut();
        h.data_len += n as u16; // fits: bounded by buf_len, a u16
        h.pkt_len = h.data_len.into();
        let added = &mut self.data_mut()[old..];
        added.fill(0);
        Some(added)
    }

    /// Cuts the frame to `len` bytes; longer than the frame is no change.
    pub fn truncate(&mut self, len: usize) {
        let h = self.header_mut();
        h.data_len = h.data_len.min(len.min(u16::MAX as usize) as u16);
        h.pkt_len = h.data_len.into();
    }

    /// Bytes that [`Self::prepend`] can still put in front.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.header().data_off.into()
    }

    /// Puts `n` bytes in front of the frame and returns them, to be written: they hold what was there before. `None`, and nothing changed, if the
    /// buffer has no room.
    #[inline(always)]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let h = self.header_mut();
        let off = usize::from(h.data_off).checked_sub(n)?;
        h.data_off = off as u16;
        h.data_len += n as u16; // fits: offset and length together are as before, bounded by buf_len
        h.pkt_len = h.data_len.into();
        self.data_mut().get_mut(..n)
    }

    /// Takes `n` bytes away at the front; more than there are is all of them.
    #[inline(always)]
    pub fn cut_front(&mut self, n: usize) {
        let h = self.header_mut();
        let n = h.data_len.min(n.min(u16::MAX as usize) as u16);
        h.data_off += n; // fits: offset and length together are as before
        h.data_len -= n;
        h.pkt_len = h.data_len.into();
    }

    /// Replaces the frame; false (and nothing changed) if it does not fit behind the headroom.
    pub fn write(&mut self, frame: &[u8]) -> bool {
        let h = self.header_mut();
        let off = raw::HEADROOM.min(h.buf_len as usize);
        if frame.len() > h.buf_len as usize - off {
            return false;
        }
        h.data_off = off as u16;
        h.data_len = frame.len() as u16; // fits: bounded by buf_len
        h.pkt_len = h.data_len.into();
        self.data_mut().copy_from_slice(frame);
        true
    }

    /// Port it was received on.
    pub fn port(&self) -> u16 {
        self.header().port
    }

    /// Segments of the chain; everything but [`super::Burst::drop_chained`] may assume 1 (S6).
    #[inline(always)]
    pub fn segments(&self) -> u16 {
        self.header().nb_segs
    }

    /// What the driver says of the outer IPv4 header checksum.
    #[inline(always)]
    pub fn ip_checksum(&self) -> Checksum {
        status(self.header().ol_flags, raw::RX_IP_CKSUM_GOOD, raw::RX_IP_CKSUM_BAD)
    }

    /// What the driver says of the outer UDP or TCP checksum.
    #[inline(always)]
    pub fn l4_checksum(&self) -> Checksum {
        status(self.header().ol_flags, raw::RX_L4_CKSUM_GOOD, raw::RX_L4_CKSUM_BAD)
    }

    /// The driver says nothing of the outer UDP or TCP checksum: one test for what many drivers say of every frame.
    #[inline(always)]
    pub fn l4_checksum_unknown(&self) -> bool {
        self.header().ol_flags & (raw::RX_L4_CKSUM_GOOD | raw::RX_L4_CKSUM_BAD) == 0
    }

    /// The RSS hash of the outer header, if the driver delivers it.
    pub fn rss_hash(&self) -> Option<u32> {
        let h = self.header();
        (h.ol_flags & raw::RX_RSS_HASH != 0).then_some(h.rss)
    }

    /// Forgets what the driver said on receive, so that it cannot be read as a request on transmit.
    #[inline(always)]
    pub fn clear_offloads(&mut self) {
        self.header_mut().ol_flags = 0;
    }

    pub(super) fn set_received(&mut self, port: u16, ol_flags: u64, rss: u32) {
        let h = self.header_mut();
        h.port = port;
        h.ol_flags = ol_flags;
        h.rss = rss;
    }

    #[cfg(feature = "dpdk")]
    pub(super) fn is_soft(&self) -> bool {
        self.header().pool.addr() & raw::SOFT != 0
    }

    #[cfg(test)]
    pub(super) fn set_segments(&mut self, n: u16) {
        self.header_mut().nb_segs = n;
    }
}

/// Both bits set is DPDK's "the frame is right although the field is not"; neither is "unknown".
#[inline(always)]
fn status(flags: u64, good: u64, bad: u64) -> Checksum {
    match (flags & good != 0, flags & bad != 0) {
        (true, _) => Checksum::Good,
        (false, true) => Checksum::Bad,
        (false, false) => Checksum::Unknown,
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: S3, this is the last use of the only handle.
        unsafe { mempool::free(self.0) }
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mbuf({} B, port {})", self.len(), self.port())
    }
}
