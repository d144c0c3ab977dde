//! What reassembly promises for any segments, as code: property tests and the fuzz target `stream_segments` call it; it panics when a
//! promise is broken. Compiled for tests and fuzzing only.
//!
//! The reference is naive: a map from the place of a byte in its stream to the copies that came, the first one first.

use std::collections::BTreeMap;

use super::*;

/// Bytes that describe a segment.
const SEGMENT: usize = 6;
const DEPTH: u32 = 1 << 15;

/// The naive reference of one direction.
#[derive(Debug, Default)]
struct Naive {
    bytes: BTreeMap<u32, Vec<u8>>,
    given: Vec<Option<u8>>,
    over: bool,
}

impl Naive {
    fn contiguous(&self) -> u32 {
        (0..).find(|at| !self.bytes.contains_key(at)).unwrap_or(0)
    }
}

/// Two bytes that choose the terms, four for the first numbers, then segments of six bytes: marks, place (2), length (2), content.
pub fn segments(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<6>() else { return };
    let choice = |bit: u8| head[0] >> bit & 1 != 0;
    let small = choice(4);
    let terms = Terms {
        depth: DEPTH,
        reach: 1 << 16,
        gap_segments: head[1] & 3,
        patience: if choice(3) { 2 } else { u32::MAX },
        wait: if choice(5) { 50 } else { u32::MAX },
        last_wins: choice(0),
        refuse_conflicts: choice(1),
        compare: choice(2),
    };
    // Both directions fit into 70 blocks.
    let slab = if small { 6 } else { 96 } * BLOCK_BYTES as u64;
    let sizes = Sizes { flows: 2, slab, flow: slab, tenant: slab, tenants: 1, slots: 2 };
    let mut streams = Reassembly::new(terms, &sizes);
    let counters = StreamCounters::default();
    let first = [2, 4].map(|at| u32::from_be_bytes([head[at], head[at + 1], 0xff, 0xf0]));
    let mut naive = [Naive::default(), Naive::default()];
    let mut now = 0;
    let of = |reply| Of { entry: 1, incarnation: 2, tenant: 0, reply };
    let mut opened = [false; 2];
    for reply in [false, true] {
        let sequence = first[usize::from(reply)].wrapping_sub(1);
        let segment = Segment { sequence, syn: true, fin: false, acknowledgment: None, payload: &[] };
        let mut run =
            Run { counters: &counters, streams: &mut streams, terms: &terms, first, naive: &mut naive };
        run.one(of(reply), &segment, now);
        opened[usize::from(reply)] = true;
    }
    for chunk in rest.chunks_exact(SEGMENT) {
        let [marks, place_high, place_low, len_high, len_low, content] = *chunk else { return };
        let reply = marks & 1 != 0;
        let place = u32::from(u16::from_be_bytes([place_high, place_low])) % (DEPTH + 2000);
        let len = usize::from(u16::from_be_bytes([len_high & 7, len_low]));
        // Most copies of a byte are alike; `content` makes some differ.
        let odd = if content >= 0xf0 { content } else { 0 };
        let payload: Vec<u8> = (0..len as u32).map(|n| ((place + n) as u8).wrapping_mul(31) ^ odd).collect();
        let acknowledgment =
            (marks & 2 != 0).then(|| first[usize::from(!reply)].wrapping_add(u32::from(content) << 7));
        let sequence = first[usize::from(reply)].wrapping_add(place);
        let fin = marks & 0xf0 == 0xf0;
        let segment = Segment { sequence, syn: false, fin, acknowledgment, payload: &payload };
        now += u32::from(marks >> 2 & 3);
        let mut run =
            Run { counters: &counters, streams: &mut streams, terms: &terms, first, naive: &mut naive };
        run.one(of(reply), &segment, now);
        streams.sweep(now, &counters);
    }
    // What one segment could not set free comes with later ones.
    for _ in 0..64 {
        for reply in [false, true] {
            let sequence = first[usize::from(reply)];
            let segment = Segment { sequence, syn: false, fin: false, acknowledgment: None, payload: &[] };
            let mut run =
                Run { counters: &counters, streams: &mut streams, terms: &terms, first, naive: &mut naive };
            run.one(of(reply), &segment, now);
        }
    }
    if !small && terms.patience == u32::MAX && terms.wait == u32::MAX {
        for side in &naive {
            let expected = side.contiguous().min(DEPTH);
            assert_eq!(side.given.len() as u32, expected, "all that is there without a hole: {terms:?}");
        }
    }
    streams.forget(1);
    assert_eq!(streams.blocks().0, 0, "everything is given back");
}

struct Run<'a> {
    counters: &'a StreamCounters,
    streams: &'a mut Reassembly,
    terms: &'a Terms,
    first: [u32; 2],
    naive: &'a mut [Naive; 2],
}

impl Run<'_> {
    fn one(&mut self, of: Of, segment: &Segment<'_>, now: u32) {
        let Run { counters, streams, terms, first, naive } = self;
        streams.begin();
        let taken = streams.take(1, of, segment, now, counters);
        let side = &mut naive[usize::from(of.reply)];
        let place = segment.sequence.wrapping_sub(first[usize::from(of.reply)]);
        let given = side.given.len() as u32;
        if !segment.syn && !taken.refused {
            for (at, &byte) in (place..).zip(segment.payload) {
                let copies = side.bytes.entry(at).or_default();
                // Bytes that were given on do not change any more.
                if at >= given || copies.is_empty() {
                    copies.push(byte);
                }
            }
        }
        if taken.conflict {
            let mut bytes = (place..).zip(segment.payload);
            let differs =
                bytes.any(|(at, byte)| side.bytes.get(&at).is_some_and(|c| c.iter().any(|b| b != byte)));
            assert!(differs, "a conflict needs two copies");
        }
        assert!(!taken.refused || terms.refuse_conflicts);
        for piece in streams.pieces(1, segment.payload) {
            let side = &mut naive[usize::from(piece.spot.reply)];
            assert_eq!(piece.spot.offset as usize, side.given.len(), "in order, without repetition");
            match piece.what {
                PieceKind::Data(bytes) => {
                    assert!(!bytes.is_empty() && !side.over, "after its depth");
                    for &byte in bytes {
                        let copies = side.bytes.get(&(side.given.len() as u32));
                        let copies = copies.expect("a byte that came");
                        let want = if terms.last_wins { copies.last() } else { copies.first() };
                        // A slab that is full forgets copies, and so does one whose blocks are overdue.
                        let sure = terms.wait == u32::MAX && streams.blocks().1 > 6;
                        assert!(copies.contains(&byte) && (!sure || want == Some(&byte)), "the wrong copy");
                        side.given.push(Some(byte));
                    }
                }
                PieceKind::Gap(len) => {
                    assert!(len > 0 && len < 1 << 17);
                    let end = side.given.len() + len as usize;
                    side.given.resize(end, None);
                }
                PieceKind::End(end) => side.over |= end == End::Depth,
            }
        }
        let (used, all) = streams.blocks();
        assert!(used <= all);
        streams.finish();
    }
}
