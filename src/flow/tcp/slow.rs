//! Everything but data and acknowledgments in an established connection.

use super::segment::{Kind, Segment};
use super::tracked::{
    ACKED, FINISHED, Half, RESET, SEEN, Tracked, ack_fits, ack_fits_loosely, ahead, between, later,
    sequence_fits,
};
use super::{Class, State, Step, What, WindowCheck, open};
use crate::wire::tcp::{ACK, FIN};

/// A RST may lie so far behind the last number that was seen of its sender, who may have sent more that was lost before us.
const UNSEEN: i32 = 0xffff;

pub(super) fn pick_up(segment: &Segment) -> Option<(State, Tracked)> {
    match segment.kind() {
        Kind::Bad => None,
        Kind::Syn => open(segment),
        Kind::SynAck => Some((State::SynReceived, Tracked::answered(segment))),
        Kind::Reset => Some((State::Reset, Tracked::picked_up(segment))),
        Kind::Ack => Some(middle(segment)),
    }
}

fn middle(segment: &Segment) -> (State, Tracked) {
    let mut tracked = Tracked::picked_up(segment);
    if segment.flags & FIN != 0 {
        tracked.sides(segment.reply).0.set(FINISHED);
    }
    (State::PickedUp, tracked)
}

#[cold]
#[inline(never)]
pub(super) fn step(state: State, tracked: &mut Tracked, segment: &Segment, check: WindowCheck) -> Step {
    match segment.kind() {
        Kind::Bad => Step { state, what: What::BadFlags },
        Kind::Reset => reset(state, tracked, segment),
        Kind::Syn => syn(state, tracked, segment),
        Kind::SynAck => syn_ack(state, tracked, segment, check),
        Kind::Ack => ack(state, tracked, segment, check),
    }
}

/// A SYN: the first, the same again, a simultaneous one, or another connection's.
fn syn(state: State, tracked: &mut Tracked, segment: &Segment) -> Step {
    let first = segment.first();
    let anew = Step {
        state: State::SynSent,
        what: What::NewIncarnation { reversed: segment.reply, picked_up: false },
    };
    let (sender, _) = tracked.sides(segment.reply);
    match state {
        State::SynSent if segment.reply => {
            tracked.synchronize(segment);
            // Or the originator has gone, and this opens a connection the other way: its SYN|ACK will tell.
            tracked.remember(true, first);
            Step { state: State::SynReceived, what: What::Normal }
        }
        State::SynSent if sender.acked == first => {
            sender.repeat(segment);
            Step { state, what: What::Retransmit }
        }
        State::SynSent => {
            // Either SYN may be a spoof. The answer to the older one is still taken.
            *tracked = Tracked::reopened(segment, sender.acked);
            anew
        }
        // A client that was refused may try again with the same number.
        _ if sender.explains(first) && state != State::Reset => {
            if state == State::SynReceived {
                sender.widen(segment);
            }
            Step { state, what: What::Retransmit }
        }
        _ if segment.new_cookie || matches!(state.class(), Class::Closing | Class::Reset) => {
            *tracked = Tracked::opened(segment);
            anew
        }
        _ => {
            tracked.remember(segment.reply, first);
            Step { state, what: What::Stray }
        }
    }
}

/// A SYN|ACK: the second step of a handshake, the same again, or of another handshake.
fn syn_ack(state: State, tracked: &mut Tracked, segment: &Segment, check: WindowCheck) -> Step {
    let acknowledgment = segment.acknowledgment;
    let (sender, receiver) = tracked.sides(segment.reply);
    let handshake = between(receiver.acked, acknowledgment, receiver.end);
    if state == State::SynSent && segment.reply && handshake {
        receiver.acked = acknowledgment;
        receiver.set(ACKED);
        tracked.synchronize(segment);
        return Step { state: State::SynReceived, what: What::Normal };
    }
    let known = state != State::SynSent
        && sequence_fits(sender, receiver, segment.sequence, segment.end())
        && ack_fits(sender, receiver, acknowledgment);
    if known {
        return accept(state, tracked, segment);
    }
    if tracked.remembers(!segment.reply, acknowledgment) {
        // The SYN that this acknowledges passed a while ago, beside the connection that was followed.
        let older = tracked.expected(!segment.reply);
        let reversed = !segment.reply;
        *tracked = Tracked::answered(&Segment { reply: true, ..*segment });
        // And that one may be the true one after all.
        tracked.remember(false, older);
        let what = What::NewIncarnation { reversed, picked_up: false };
        return Step { state: State::SynReceived, what };
    }
    let (sender, receiver) = tracked.sides(segment.reply);
    match state {
        // The other side's SYN does not come by us, nor does anything else of it.
        _ if segment.new_cookie && !receiver.has(SEEN) && !handshake => {
            let reversed = !segment.reply;
            *tracked = Tracked::answered(&Segment { reply: true, ..*segment });
            let what = What::NewIncarnation { reversed, picked_up: true };
            Step { state: State::SynReceived, what }
        }
        State::SynReceived if handshake && !sender.has(ACKED) => {
            // A server that keeps no state for half-open connections may choose another number when the SYN comes again; or
            // what came first was a SYN that someone else made up.
            let older = sender.acked;
            *sender = Half::answering(segment);
            if !receiver.has(ACKED) && segment.scale.is_some() {
                receiver.loosen();
            }
            receiver.acked = acknowledgment;
            receiver.set(ACKED);
            tracked.remember(segment.reply, older);
            Step { state, what: What::Normal }
        }
        State::SynSent if segment.reply => {
            // A duplicate from before, or the answer to a SYN from before. The originator will refuse it by a RST.
            tracked.remember(false, acknowledgment);
            Step { state, what: outside(check) }
        }
        State::SynSent => ack(state, tracked, segment, check),
        _ => Step { state, what: outside(check) },
    }
}

/// A RST.
fn reset(state: State, tracked: &mut Tracked, segment: &Segment) -> Step {
    let (sequence, acknowledgment) = (segment.sequence, segment.acknowledgment);
    let acknowledges = segment.flags & ACK != 0;
    let (sender, receiver) = tracked.sides(segment.reply);
    let acknowledges_syn = acknowledges && between(receiver.acked, acknowledgment, receiver.end);
    let fits = match state {
        State::SynSent if segment.reply => acknowledges_syn,
        State::SynSent => between(sender.acked.wrapping_sub(1), sequence, sender.end),
        // The answer to a SYN that was sent again, by a server that has already given up.
        State::SynReceived if acknowledges_syn && !sender.has(ACKED) => true,
        _ => {
            let far = receiver.span().max(1);
            // Nobody has acknowledged anything: then its own numbers must do.
            let near = receiver.has(SEEN) || ahead(sender.end, sequence) <= UNSEEN;
            near && (0..=far).contains(&ahead(sequence, sender.acked))
                && ahead(sequence, sender.end) <= UNSEEN
        }
    };
    if fits {
        sender.end = later(sender.end, sequence);
        sender.set(RESET);
        receiver.clear(RESET);
        Step { state: State::Reset, what: What::Normal }
    } else if acknowledges && tracked.remembers(!segment.reply, acknowledgment)
        || tracked.remembers(segment.reply, sequence)
    {
        // It refuses a stray SYN, or the answer to one.
        Step { state, what: What::Stray }
    } else {
        Step { state, what: What::BadReset }
    }
}

/// Data, acknowledgments and FINs.
fn ack(state: State, tracked: &mut Tracked, segment: &Segment, check: WindowCheck) -> Step {
    if state == State::Reset && !tracked.is_synchronized() {
        // It never came about, and one side's numbers may be unknown.
        return Step { state, what: What::Normal };
    }
    let (sender, receiver) = tracked.sides(segment.reply);
    if state == State::SynSent {
        if segment.reply {
            // The responder knows an older connection (RFC 9293 section 3.5.1). The originator will answer by a RST.
            tracked.remember(false, segment.acknowledgment);
            return Step { state, what: What::Stray };
        }
        let behind_syn = (0..=UNSEEN).contains(&ahead(segment.sequence, sender.acked));
        if !behind_syn {
            return Step { state, what: outside(check) };
        }
        // The SYN|ACK went another way. Scales were agreed on without us.
        let (state, anew) = middle(segment);
        *tracked = anew;
        return Step { state, what: What::Normal };
    }
    if segment.partial {
        sender.loosen();
    }
    let sequence = sequence_fits(sender, receiver, segment.sequence, segment.end());
    let acknowledgment = ack_fits_loosely(sender, receiver, segment.acknowledgment);
    if sequence && acknowledgment {
        return accept(state, tracked, segment);
    }
    if state == State::SynReceived {
        if sequence && tracked.remembers(!segment.reply, segment.acknowledgment) {
            // The first of two SYN|ACKs it was that counted.
            let (_, receiver) = tracked.sides(segment.reply);
            receiver.acked = segment.acknowledgment;
            receiver.end = segment.acknowledgment;
            return accept(state, tracked, segment);
        }
        return Step { state, what: outside(check) };
    }
    // One number is right, which nobody guesses, and the other is not: part of the connection has gone another way.
    // Behind its own FIN nobody has sent anything.
    let (sender, _) = tracked.sides(segment.reply);
    if check != WindowCheck::Drop && (sequence || acknowledgment && !sender.has(FINISHED)) {
        if !sequence {
            sender.acked = later(sender.acked, segment.sequence);
        }
        let Step { state, what } = accept(state, tracked, segment);
        return Step { state, what: if check == WindowCheck::Off { what } else { What::OutOfWindow } };
    }
    Step { state, what: outside(check) }
}

fn outside(check: WindowCheck) -> What {
    if check == WindowCheck::Off { What::Normal } else { What::OutOfWindow }
}

/// Takes over what a segment of the connection says.
fn accept(state: State, tracked: &mut Tracked, segment: &Segment) -> Step {
    let end = segment.end();
    let synchronized = tracked.is_synchronized();
    let (sender, receiver) = tracked.sides(segment.reply);
    let progress = ahead(end, sender.end);
    let old = end != segment.sequence && progress <= 0 && sender.has(SEEN);
    // Data behind its RST: the sender never sent that. (A RST may leave out the byte that probed a closed window.)
    let alive =
        synchronized && sender.has(RESET) && !sender.has(FINISHED) && (2..=UNSEEN).contains(&progress);

    if segment.flags & FIN != 0 && !sender.has(FINISHED) && progress >= 0 && ahead(end, sender.acked) > 0 {
        sender.end = end;
        sender.set(FINISHED);
    }
    if !sender.has(FINISHED) {
        sender.end = later(sender.end, end);
    }
    sender.set(SEEN);
    // What was acknowledged without having been seen was sent.
    receiver.end = later(receiver.end, segment.acknowledgment);
    if ahead(segment.acknowledgment, receiver.acked) >= 0 {
        receiver.acked = segment.acknowledgment;
        receiver.set(ACKED);
    }
    if !receiver.has(SEEN) {
        // Nobody acknowledges: keep up, so that a RST can be judged.
        sender.acked = later(sender.acked, segment.sequence);
    }
    sender.widen(segment);

    if state == State::SynReceived && tracked.is_synchronized() {
        tracked.forget();
    }
    let (sender, _) = tracked.sides(segment.reply);
    let state = match state {
        State::Reset if alive => {
            sender.clear(RESET);
            tracked.progress(State::Reset)
        }
        State::Reset => State::Reset,
        _ => tracked.progress(state),
    };
    Step { state, what: if old { What::Retransmit } else { What::Normal } }
}

impl Tracked {
    /// Each side has sent something that the other acknowledged.
    fn is_synchronized(&self) -> bool {
        [&self.originator, &self.responder].iter().all(|half| half.has(SEEN) && half.has(ACKED))
    }

    /// The state that the marks of both sides amount to; `state` as long as one of them is not synchronized.
    fn progress(&self, state: State) -> State {
        let (a, b) = (&self.originator, &self.responder);
        match (a.has(FINISHED), b.has(FINISHED)) {
            _ if !self.is_synchronized() => state,
            (false, false) => State::Established,
            (true, true) if a.is_done() && b.is_done() => State::TimeWait,
            (true, true) => State::Closing,
            _ => State::FinSent,
        }
    }
}
