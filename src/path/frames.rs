//! Frames as bytes, from one thread to another: a bounded ring of records, each a length, a port and the frame.
//!
//! One writer, one reader (crate `rtrb`), no allocation on either side once it is made. A record is written whole or not at all, and
//! is never cut: what does not fit is the writer's to count.

use rtrb::{Consumer, Producer, RingBuffer};

/// Length (2 bytes) and port (2 bytes) in front of each frame.
const HEAD: usize = 4;

/// A ring of so many bytes.
pub fn ring(bytes: usize) -> (FrameWriter, FrameReader) {
    let (writer, reader) = RingBuffer::new(bytes);
    (FrameWriter(writer), FrameReader(reader))
}

/// Puts frames into the ring.
#[derive(Debug)]
pub struct FrameWriter(Producer<u8>);

impl FrameWriter {
    /// Adds a frame of this port; false, and nothing changed, if there is no room for it.
    pub fn write(&mut self, port: u16, frame: &[u8]) -> bool {
        let Ok(len) = u16::try_from(frame.len()) else { return false };
        let Ok(mut chunk) = self.0.write_chunk(HEAD + frame.len()) else { return false };
        let ([l0, l1], [p0, p1]) = (len.to_ne_bytes(), port.to_ne_bytes());
        let (one, two) = chunk.as_mut_slices();
        // The ring's end may lie in the frame, or in front of it.
        match one.split_first_chunk_mut::<HEAD>() {
            Some((head, body)) => {
                *head = [l0, l1, p0, p1];
                let (first, second) = frame.split_at(body.len());
                body.copy_from_slice(first);
                two.copy_from_slice(second);
            }
            None => {
                let bytes = [l0, l1, p0, p1].into_iter().chain(frame.iter().copied());
                one.iter_mut().chain(two).zip(bytes).for_each(|(place, byte)| *place = byte);
            }
        }
        chunk.commit_all();
        true
    }
}

/// Takes frames out of the ring.
#[derive(Debug)]
pub struct FrameReader(Consumer<u8>);

impl FrameReader {
    /// Is there nothing to read? One relaxed load, and an acquiring one if it looks empty.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Port and length of the next frame.
    pub fn peek(&mut self) -> Option<(u16, usize)> {
        let chunk = self.0.read_chunk(HEAD).ok()?; // dropped without a commit: the bytes stay
        let (one, two) = chunk.as_slices();
        let mut head = [0; HEAD];
        head.iter_mut().zip(one.iter().chain(two)).for_each(|(to, from)| *to = *from);
        let [l0, l1, p0, p1] = head;
        Some((u16::from_ne_bytes([p0, p1]), usize::from(u16::from_ne_bytes([l0, l1]))))
    }

    /// Takes the next frame, as many bytes of it as there are in `frame`; [`Self::peek`] says how many it has. False if there is none.
    pub fn take(&mut self, frame: &mut [u8]) -> bool {
        let Some((_, len)) = self.peek() else { return false };
        let Ok(chunk) = self.0.read_chunk(HEAD + len) else { return false };
        let (one, two) = chunk.as_slices();
        match one.get(HEAD..) {
            Some(body) => {
                let (first, second) = frame.split_at_mut(body.len().min(frame.len()));
                first.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
                second.iter_mut().zip(two).for_each(|(to, from)| *to = *from);
            }
            None => {
                let body = one.iter().chain(two).skip(HEAD);
                frame.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
            }
        }
        chunk.commit_all();
        true
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Whatever is written is read, whole and in order, wherever the ring's end falls.
        #[test]
        fn what_is_written_is_read(
            bytes in 8usize..200,
            steps in proptest::collection::vec((any::<u16>(), 0usize..120, any::<bool>()), 1..200),
        ) {
            let (mut writer, mut reader) = ring(bytes);
            let mut model: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
            for (n, (port, len, write)) in steps.into_iter().enumerate() {
                if write {
                    let frame: Vec<u8> = (0..len).map(|i| (i + n) as u8).collect();
                    let used: usize = model.iter().map(|(_, f)| f.len() + 4).sum();
                    let fits = used + len + 4 <= bytes;
                    prop_assert_eq!(writer.write(port, &frame), fits);
                    if fits {
                        model.push_back((port, frame));
                    }
                } else {
                    let want = model.pop_front();
                    prop_assert_eq!(reader.is_empty(), want.is_none());
                    prop_assert_eq!(reader.peek(), want.as_ref().map(|(port, f)| (*port, f.len())));
                    let mut frame = vec![0; want.as_ref().map_or(1, |(_, f)| f.len())];
                    prop_assert_eq!(reader.take(&mut frame), want.is_some());
                    if let Some((_, bytes)) = want {
                        prop_assert_eq!(frame, bytes);
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_longer_than_a_length_can_say_is_not_written() {
        let (mut writer, mut reader) = ring(1 << 17);
        assert!(!writer.write(1, &[0; 65_536]));
        assert!(writer.write(1, &[7; 65_535]));
        assert_eq!(reader.peek(), Some((1, 65_535)));
        assert!(reader.take(&mut []), "a reader that has no room for it can let it go");
        assert!(reader.is_empty());
    }
}
