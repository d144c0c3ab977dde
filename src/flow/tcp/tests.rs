//! Segments in, states out.

use super::*;

/// Smallest: a handshake, a word each way, an orderly end.
#[test]
fn a_connection_from_first_to_last() {
    let a = |flags, sequence, acknowledgment, len| Segment {
        flags,
        sequence,
        acknowledgment,
        len,
        window: 1000,
        scale: (flags & SYN != 0).then_some(7),
        ..Segment::default()
    };
    let b = |flags, sequence, acknowledgment, len| Segment {
        reply: true,
        ..a(flags, sequence, acknowledgment, len)
    };
    let (mut state, mut tracked) = open(&a(SYN, 99, 0, 0)).unwrap();
    assert_eq!(state, State::SynSent);
    for (segment, expected) in [
        (b(SYN | ACK, 499, 100, 0), State::SynReceived),
        (a(ACK, 100, 500, 0), State::Established),
        (a(ACK, 100, 500, 10), State::Established),
        (b(ACK, 500, 110, 20), State::Established),
        (a(FIN | ACK, 110, 520, 0), State::FinSent),
        (b(ACK, 520, 111, 5), State::FinSent),
        (b(FIN | ACK, 525, 111, 0), State::Closing),
        (a(ACK, 111, 526, 0), State::TimeWait),
    ] {
        let step = step(state, &mut tracked, &segment, WindowCheck::Drop);
        assert_eq!(step, Step { state: expected, what: What::Normal }, "{segment:?}");
        state = step.state;
        assert_eq!(Tracked::unpack(tracked.pack()), tracked);
    }
}
