//! States of a flow, as a byte: those of TCP, and two for everything else.

use super::event::End;
use super::room::Waiting;
use super::tcp;
use crate::config::FlowPlan;

/// Not TCP: one direction was seen.
pub(super) const FIRST: u8 = 32;
/// Not TCP: both directions were seen.
pub(super) const LASTING: u8 = 33;
/// Not TCP: one direction was seen for longer than [`ESTABLISHED_AFTER`]. Two packets of anybody make such a flow, so under pressure it goes,
/// after all others that nobody has answered; its next packet opens it again.
pub(super) const ONE_WAY: u8 = 34;
const STATES: usize = 64;

/// Milliseconds after which a flow in one direction is one (syslog, streams) and not a probe.
pub(super) const ESTABLISHED_AFTER: u32 = 1000;

/// The state of a TCP connection.
#[inline(always)]
pub(super) fn tcp(state: u8) -> Option<tcp::State> {
    (state < FIRST).then(|| tcp::State::from_u8(state))
}

/// Is the flow one that must go first under pressure, and how? TCP that is over, and what nobody has answered.
#[inline(always)]
pub(super) fn waiting(state: u8) -> Option<Waiting> {
    match state {
        FIRST => Some(Waiting::Unanswered),
        ONE_WAY => Some(Waiting::OneWay),
        LASTING => None,
        state => match tcp::State::from_u8(state).class() {
            tcp::Class::Closing | tcp::Class::Reset => Some(Waiting::Over),
            tcp::Class::HalfOpen => Some(Waiting::HalfOpen),
            tcp::Class::Established => None,
        },
    }
}

/// Have only its first packets been seen? Its claim may be evicted. (So may that of a flow in one direction, which has too many packets to
/// ask at each.)
#[inline(always)]
pub(super) fn is_half_open(state: u8) -> bool {
    state == FIRST || tcp(state).is_some_and(|tcp| tcp.class() == tcp::Class::HalfOpen)
}

/// Has it not been established yet?
pub(super) fn is_new(state: u8) -> bool {
    matches!(state, FIRST | ONE_WAY) || tcp(state).is_some_and(|tcp| tcp.class() == tcp::Class::HalfOpen)
}

/// The words for all states.
pub const WORDS: [&str; 10] = [
    "first",
    "one-way",
    "established",
    "syn-sent",
    "picked-up",
    "syn-received",
    "fin-sent",
    "closing",
    "time-wait",
    "reset",
];

/// A word for people.
pub(crate) fn name(state: u8) -> &'static str {
    match state {
        FIRST => "first",
        ONE_WAY => "one-way",
        LASTING => "established",
        state => tcp::State::from_u8(state).name(),
    }
}

/// Why a flow in this state ends when its time is up.
pub(super) fn end_of(state: u8) -> End {
    match tcp(state).map(tcp::State::class) {
        Some(tcp::Class::Closing) => End::Closed,
        Some(tcp::Class::Reset) => End::Reset,
        _ => End::Idle,
    }
}

/// How long a flow may be idle, by state, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    by_state: [u32; STATES],
    condemned: u32,
    /// The load balancer's own, of TCP and of everything else.
    theirs: [u32; 2],
}

impl Timeouts {
    pub fn new(plan: &FlowPlan) -> Self {
        let ms = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX / 2);
        let mut by_state = [ms(plan.other_idle + plan.margin); STATES];
        for (state, timeout) in by_state.iter_mut().enumerate() {
            let Some(tcp) = tcp(state as u8) else { continue };
            *timeout = match tcp.class() {
                tcp::Class::HalfOpen => ms(plan.half_open),
                tcp::Class::Established => ms(plan.tcp_idle + plan.margin),
                tcp::Class::Closing => ms(plan.closing),
                tcp::Class::Reset => ms(plan.reset),
            };
        }
        Timeouts { by_state, condemned: ms(plan.denied), theirs: [ms(plan.tcp_idle), ms(plan.other_idle)] }
    }

    /// After how long the load balancer has forgotten a flow.
    pub fn theirs(&self, state: u8) -> u32 {
        let [tcp_idle, other_idle] = self.theirs;
        if tcp(state).is_some() { tcp_idle } else { other_idle }
    }

    /// After how long an established TCP connection is forgotten.
    pub fn of_open_tcp(&self) -> u32 {
        self.of(tcp::State::Established as u8, false)
    }

    #[inline(always)]
    pub fn of(&self, state: u8, condemned: bool) -> u32 {
        if condemned {
            return self.condemned;
        }
        self.by_state.get(usize::from(state)).copied().unwrap_or(0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_word_on_the_list() {
        let tcp = (0..FIRST).map(name);
        let all: std::collections::BTreeSet<&str> = tcp.chain([FIRST, ONE_WAY, LASTING].map(name)).collect();
        assert_eq!(all, WORDS.into_iter().collect());
    }
}
