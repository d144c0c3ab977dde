//! What the state machine promises for any segments, as code. Property tests and the fuzz target `flow_tcp` call it; it panics when a
//! promise is broken. Compiled for tests and fuzzing only.

use super::tracked::Tracked;
use super::*;

/// Bytes of a segment here: marks, flags, lengths, and numbers relative to those of the connection.
const SEGMENT: usize = 8;

/// A byte that chooses the window check and the way in, then segments of 8 bytes each.
pub fn segments(bytes: &[u8]) {
    let Some((choices, bytes)) = bytes.split_first() else { return };
    let check = [WindowCheck::Off, WindowCheck::Log, WindowCheck::Drop][usize::from(choices & 3) % 3];
    let mut connection: Option<(State, Tracked)> = None;
    for bytes in bytes.chunks_exact(SEGMENT) {
        let Ok(bytes) = bytes.try_into() else { return };
        let tracked = connection.map(|(_, tracked)| tracked).unwrap_or_default();
        let segment = segment(bytes, &tracked);
        connection = match connection {
            Some((state, tracked)) => {
                let (next, tracked) = one_step(state, tracked, &segment, check);
                Some((next, tracked))
            }
            None => begin(&segment, choices & 4 != 0),
        };
    }
}

fn begin(segment: &Segment, middle: bool) -> Option<(State, Tracked)> {
    let opened = open(segment);
    let picked_up = pick_up(segment);
    assert!(opened.is_none() || opened == picked_up, "a SYN opens, however it is asked");
    for (state, tracked) in opened.into_iter().chain(picked_up) {
        assert!(state.class() == Class::HalfOpen || state == State::Reset, "one side alone: {state:?}");
        assert_eq!(Tracked::unpack(tracked.pack()), tracked);
    }
    if middle { picked_up } else { opened }
}

fn one_step(state: State, before: Tracked, segment: &Segment, check: WindowCheck) -> (State, Tracked) {
    assert_eq!(State::from_u8(state as u8), state);
    let mut tracked = before;
    let step = step(state, &mut tracked, segment, check);
    let context = || format!("{state:?} {before:?} {segment:?} {check:?} {step:?} {tracked:?}");
    assert_eq!(Tracked::unpack(tracked.pack()), tracked, "{}", context());

    let mut slowly = before;
    let slow = slow::step(state, &mut slowly, segment, check);
    assert!((step, tracked) == (slow, slowly), "the short way and the long one agree: {}", context());

    let expected = |tracked: &Tracked| [tracked.expected(false), tracked.expected(true)];
    match step.what {
        What::Normal | What::Retransmit => {}
        What::Stray => {
            assert!(step.state == state && expected(&tracked) == expected(&before), "{}", context());
        }
        What::BadReset | What::BadFlags => assert!(step.state == state && tracked == before, "{}", context()),
        What::OutOfWindow => {
            assert!(check != WindowCheck::Off, "{}", context());
            let moved = step.state != state || expected(&tracked) != expected(&before);
            assert!(!(moved && check == WindowCheck::Drop), "{}", context());
        }
        What::NewIncarnation { .. } => {
            assert!(matches!(step.state, State::SynSent | State::SynReceived), "{}", context());
            return (step.state, tracked);
        }
    }
    assert!(may_follow(state, step.state), "{}", context());
    (step.state, tracked)
}

/// The edges of the module's drawing.
fn may_follow(from: State, to: State) -> bool {
    use State::*;
    let allowed: &[State] = match from {
        SynSent => &[SynReceived, PickedUp],
        PickedUp | SynReceived => &[Established, FinSent, Closing, TimeWait],
        Established => &[FinSent],
        FinSent => &[Closing, TimeWait],
        Closing => &[TimeWait],
        TimeWait => &[],
        // A forged one.
        Reset => &[Established, FinSent, Closing],
    };
    from == to || to == Reset || allowed.contains(&to)
}

/// Numbers near those of the connection: others have little to say.
fn segment(bytes: [u8; SEGMENT], tracked: &Tracked) -> Segment {
    let [marks, flags, len, window, sequence, far, acknowledgment, more] = bytes;
    let reply = marks & 1 != 0;
    let near = |base: u32, small: u8, scale: u8| {
        let small = i32::from(small as i8);
        base.wrapping_add((small << (scale & 31)) as u32)
    };
    Segment {
        flags,
        sequence: near(tracked.end(reply), sequence, far),
        acknowledgment: near(tracked.end(!reply), acknowledgment, more),
        window: u16::from(window) << (marks >> 4 & 8),
        len: u32::from(len) << (marks >> 3 & 8),
        scale: (marks & 8 != 0).then_some(window % 15),
        reply,
        new_cookie: marks & 2 != 0,
        partial: marks & 0x34 == 0x34,
    }
}

impl Tracked {
    fn end(&self, reply: bool) -> u32 {
        if reply { self.responder.end } else { self.originator.end }
    }
}
