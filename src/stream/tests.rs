use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    depth: 1 << 16,
    reach: 1 << 16,
    patience: 100,
    gap_segments: 0,
    wait: 1000,
    last_wins: false,
    refuse_conflicts: true,
    compare: true,
};

/// One flow whose client sends, and what came of it.
struct Flow {
    streams: Reassembly,
    counters: StreamCounters,
    now: u32,
    got: Vec<u8>,
    told: Vec<String>,
}

impl Flow {
    fn new(terms: Terms) -> Self {
        let mb = 64 * BLOCK_BYTES as u64;
        let sizes = Sizes { flows: 8, slab: mb, flow: mb / 2, tenant: mb, tenants: 1, slots: 4 };
        let counters = StreamCounters::default();
        Flow { streams: Reassembly::new(terms, &sizes), counters, now: 0, got: vec![], told: vec![] }
    }

    fn of(reply: bool) -> Of {
        Of { entry: 3, incarnation: 2, tenant: 0, reply }
    }

    fn take(&mut self, reply: bool, segment: Segment<'_>) -> Taken {
        self.streams.begin();
        let taken = self.streams.take(0, Self::of(reply), &segment, self.now, &self.counters);
        for piece in self.streams.pieces(0, segment.payload) {
            match piece.what {
                PieceKind::Data(bytes) => self.got.extend(bytes),
                PieceKind::Gap(len) => self.told.push(format!("gap {len} at {}", piece.spot.offset)),
                PieceKind::End(end) => self.told.push(format!("{end:?} at {}", piece.spot.offset)),
            }
            if !piece.spot.from_syn {
                self.told.push("middle".into());
            }
        }
        self.streams.finish();
        taken
    }

    fn syn(&mut self, sequence: u32) {
        self.take(false, Segment { syn: true, ..data(sequence, b"") });
    }

    fn send(&mut self, sequence: u32, payload: &[u8]) -> Taken {
        self.take(false, data(sequence, payload))
    }

    fn ack(&mut self, number: u32) {
        self.take(true, Segment { acknowledgment: Some(number), ..data(7, b"") });
    }
}

fn data(sequence: u32, payload: &[u8]) -> Segment<'_> {
    Segment { sequence, syn: false, fin: false, acknowledgment: None, payload }
}

#[test]
fn bytes_come_in_order_whatever_order_they_came_in() {
    // 123 have the last numbers, a and b the first.
    let mut flow = Flow::new(TERMS);
    flow.syn(u32::MAX - 3);
    assert!(flow.send(2, b"cd").waits);
    flow.send(u32::MAX - 2, b"123ab");
    assert_eq!(flow.got, b"123abcd");
    assert!(flow.send(u32::MAX - 2, b"123ab").old);
    assert_eq!(flow.got, b"123abcd", "sent again");
    assert_eq!(flow.counters.copied_bytes.get(), 2, "the rest was read where it lay");
}

#[test]
fn a_copy_that_differs_is_refused_until_it_is_acknowledged() {
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    flow.send(10, b"GET /good");
    assert!(flow.send(10, b"GET /evil").refused);
    assert!(!flow.send(10, b"GET /good more").refused);
    assert!(flow.send(30, b"later").waits);
    assert!(flow.send(28, b"XXXX").refused, "against bytes that wait");
    assert_eq!(flow.got, b"GET /good more");
    flow.ack(24);
    flow.send(24 + 2000, b"");
    assert_eq!(flow.counters.conflicts.get(), 2);
}

/// What was read and may be taken again cannot be told from another copy when there is none left: it counts as unread.
#[test]
fn what_is_sent_again_and_has_no_copy_is_unread() {
    let sweep =
        |flow: &mut Flow| (0..2000).step_by(10).for_each(|now| flow.streams.sweep(now, &flow.counters));
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    assert!(!flow.send(10, b"GET /good").uncompared);
    sweep(&mut flow);
    assert_eq!(flow.streams.blocks().0, 0, "it was kept for too long");
    assert!(flow.send(10, b"GET /evil").unread);
    flow.ack(15);
    assert!(flow.send(14, b"/evil").unread);
    assert!(!flow.send(10, b"GOT /").unread, "its receiver has that, and takes no other");
    flow.ack(19);
    assert!(!flow.send(10, b"GET /evil").unread);
    assert!(!flow.send(17, b"od, and more").unread, "new bytes behind them");
    // More than half of the slab is in use: nothing in order is copied.
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    flow.send(10_000, &[1; 40_000]);
    assert!(flow.send(10, b"in turn").uncompared);
    assert!(flow.send(10, b"another").unread);
    assert_eq!((flow.counters.uncompared.get(), flow.counters.unread.get()), (1, 2), "and the early one");
    // Nothing is to be compared.
    let mut flow = Flow::new(Terms { compare: false, ..TERMS });
    flow.syn(9);
    flow.send(10, b"GET /good");
    assert!(!flow.send(10, b"GET /evil").unread);
}

#[test]
fn what_has_ended_is_compared_until_it_is_acknowledged() {
    for (depth, fin) in [(10, false), (TERMS.depth, true)] {
        let mut flow = Flow::new(Terms { depth, ..TERMS });
        flow.syn(9);
        flow.take(true, Segment { syn: true, fin: true, acknowledgment: Some(10), ..data(5, b"") });
        flow.take(false, Segment { fin, acknowledgment: Some(7), ..data(10, b"abcdefghij") });
        assert!(flow.send(12, b"XX").refused && !flow.streams.is_over(3), "{depth}");
        assert!(!flow.send(12, b"cd").unread);
        flow.ack(20);
        assert!(!flow.send(12, b"XX").refused && flow.streams.is_over(3), "{depth}");
        assert_eq!(flow.streams.blocks().0, 0, "nothing is kept");
    }
}

#[test]
fn which_copy_counts_is_a_setting() {
    for (last_wins, want) in [(false, b"abcdef"), (true, b"abXYef")] {
        let mut flow = Flow::new(Terms { last_wins, refuse_conflicts: false, ..TERMS });
        flow.syn(9);
        flow.send(12, b"cd");
        assert!(flow.send(12, b"XYef").conflict);
        flow.send(10, b"ab");
        assert_eq!(flow.got, want);
        assert!(flow.send(10, b"ZZ").conflict, "of what was given on, the first");
        assert_eq!(flow.got, want);
    }
}

#[test]
fn a_gap_is_what_both_sides_have_gone_beyond() {
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    flow.send(10, b"ab");
    flow.send(15, b"fg");
    flow.ack(14);
    flow.now = 500;
    flow.ack(14);
    assert_eq!(flow.got, b"ab", "the hole is not acknowledged");
    flow.ack(17);
    flow.now = 550;
    flow.ack(17);
    assert_eq!(flow.got, b"ab", "the missing segment may still be on its way");
    flow.now = 600;
    flow.ack(17);
    assert_eq!((flow.got.as_slice(), flow.told.as_slice()), (&b"abfg"[..], &["gap 3 at 2".to_owned()][..]));
}

#[test]
fn what_waits_for_too_long_is_given_up() {
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    flow.send(15, b"fg");
    for now in (0..2000).step_by(10) {
        flow.streams.sweep(now, &flow.counters);
    }
    assert_eq!(flow.streams.blocks().0, 0);
    flow.now = 2000;
    flow.send(20, b"more");
    assert_eq!((flow.got.as_slice(), flow.told.as_slice()), (&b"more"[..], &["gap 10 at 0".to_owned()][..]));
}

#[test]
fn a_fin_ends_it_when_its_turn_has_come() {
    let mut flow = Flow::new(TERMS);
    flow.syn(9);
    flow.take(false, Segment { fin: true, ..data(12, b"c") });
    assert!(flow.told.is_empty());
    flow.send(10, b"ab");
    assert_eq!((flow.got.as_slice(), flow.told.as_slice()), (&b"abc"[..], &["Finished at 3".to_owned()][..]));
    flow.send(13, b"d");
    assert_eq!(flow.got, b"abcd", "it was not its end");
}

#[test]
fn depth_ends_it_to_the_byte() {
    for cut in [1, 3, 7, 100] {
        let mut flow = Flow::new(Terms { depth: 10, ..TERMS });
        flow.syn(9);
        let bytes: Vec<u8> = (0..100).collect();
        for (n, part) in bytes.chunks(cut).enumerate() {
            flow.send(10 + (n * cut) as u32, part);
        }
        assert_eq!((flow.got.as_slice(), flow.told.len()), (&bytes[..10], 1), "{:?}", flow.told);
        assert_eq!(flow.streams.is_over(3), cut < 100, "far beyond, and the other side silent");
    }
}

#[test]
fn the_first_segment_seen_begins_it() {
    let mut flow = Flow::new(TERMS);
    flow.send(1000, b"mid");
    assert_eq!((flow.got.as_slice(), flow.told.as_slice()), (&b"mid"[..], &["middle".to_owned()][..]));
    // An acknowledgment may overtake what was said before it; a probe is nothing that was said.
    for (early, want) in [(&b"all"[..], &b"all that"[..]), (b"l", b" that")] {
        let mut flow = Flow::new(TERMS);
        flow.take(false, Segment { acknowledgment: Some(9), ..data(1003, b"") });
        flow.send(1003 - early.len() as u32, early);
        flow.send(1003, b" that");
        assert_eq!(flow.got, want);
    }
    // A SYN|ACK says which of two SYNs counted.
    let mut flow = Flow::new(TERMS);
    flow.syn(50);
    flow.syn(70);
    flow.take(true, Segment { syn: true, acknowledgment: Some(51), ..data(5, b"") });
    flow.send(51, b"yes");
    assert_eq!(flow.got, b"yes");
}

#[test]
fn ten_thousand_half_sent_streams_take_no_more_than_there_is() {
    let slab = 1 << 20;
    let sizes = Sizes { flows: 10_000, slab, flow: 1 << 16, tenant: slab / 2, tenants: 2, slots: 1 };
    let mut streams = Reassembly::new(TERMS, &sizes);
    let (mut unread, counters) = (0, &StreamCounters::default());
    for entry in 0..10_000 {
        for at in [5000u32, 9000, 70_000] {
            streams.begin();
            let of = Of { entry, incarnation: 2, tenant: 1, reply: false };
            let syn = Segment { syn: true, ..data(0, b"") };
            streams.take(0, of, &syn, 0, counters);
            unread += u32::from(streams.take(0, of, &data(at, &[1; 1400]), 0, counters).unread);
            streams.finish();
        }
    }
    let (used, all) = streams.blocks();
    assert!(used <= all / 2 && used > all / 3, "its tenant's share: {used} of {all}");
    assert!(unread > 18_000, "{unread}");
    // The other tenant is not touched by it.
    streams.begin();
    let of = Of { entry: 1, incarnation: 4, tenant: 0, reply: false };
    streams.take(0, of, &Segment { syn: true, ..data(0, b"") }, 0, counters);
    assert!(!streams.take(0, of, &data(100, b"early"), 0, counters).unread);
    for now in 0..20_000 {
        streams.sweep(now, counters);
    }
    assert_eq!(streams.blocks().0, 0, "all of it was given up in time");
}

/// A stream cut into pieces: random cuts, copies, order.
fn cut_up() -> impl Strategy<Value = (Vec<u8>, u32, Vec<(usize, usize)>)> {
    (1usize..6000, any::<u32>(), any::<u64>(), 1usize..1500).prop_perturb(|(len, first, _, most), mut rng| {
        let stream: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < len {
            let end = len.min(at + rng.random_range(1..=most));
            parts.push((at, end));
            if rng.random_range(0..4) == 0 {
                parts.push((at.saturating_sub(rng.random_range(0..50)), len.min(end + 3))); // again, and more
            }
            at = end;
        }
        for n in (1..parts.len()).rev() {
            parts.swap(n, rng.random_range(0..=n));
        }
        (stream, first, parts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any cuts in any order, with copies that overlap: the same bytes.
    #[test]
    fn order_does_not_matter((stream, first, parts) in cut_up()) {
        let mut flow = Flow::new(TERMS);
        flow.syn(first.wrapping_sub(1));
        for (from, to) in parts {
            let taken = flow.send(first.wrapping_add(from as u32), &stream[from..to]);
            prop_assert!(!taken.conflict && !taken.unread, "{:?}", taken);
        }
        for _ in 0..8 {
            flow.send(first, b"");
        }
        let fin = Segment { fin: true, ..data(first.wrapping_add(stream.len() as u32), b"") };
        flow.take(false, fin);
        prop_assert_eq!(&flow.got, &stream);
        prop_assert_eq!(flow.told, vec![format!("Finished at {}", stream.len())]);
    }

    #[test]
    fn any_segments_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        arbitrary_input::segments(&bytes);
    }
}
