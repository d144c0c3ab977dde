//! Ends that behave: each conversation knows what it may send next, and believes to have sent what went home.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::common::inner::{End, tcp, udp};
use super::model::{Flow, Part, Rule, State};

/// Initial numbers are so far from everything that was sent before.
const JUMP: u32 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Conversation {
    pub ends: [End; 2],
    /// Where its packets come from: one, or any.
    pub endpoints: Vec<u64>,
    pub tenant: Option<u16>,
    pub rule: Rule,
    pub cookie: u32,
    /// `None`: UDP.
    tcp: Option<Tcp>,
}

#[derive(Clone, Copy, Debug)]
struct Tcp {
    /// 0: nothing; 1: the SYN went home; 2: the SYN|ACK did; 3: data flows; 4: over.
    step: u8,
    isn: u32,
    /// The SYN did not go home, and may come again.
    again: bool,
    sequence: [u32; 2],
    fin: [bool; 2],
}

/// What to send.
pub struct Sent {
    pub side: usize,
    pub part: Part,
    pub inner: Vec<u8>,
    before: Option<Tcp>,
}

impl Conversation {
    pub fn new(ends: [End; 2], is_tcp: bool, rule: Rule, random: &mut ChaCha8Rng) -> Self {
        let sequence = [random.random(), random.random()];
        let tcp = Tcp { step: 0, isn: sequence[0], again: false, sequence, fin: [false; 2] };
        let cookie = random.random();
        Conversation { ends, endpoints: Vec::new(), tenant: None, rule, cookie, tcp: is_tcp.then_some(tcp) }
    }

    pub fn is_tcp(&self) -> bool {
        self.tcp.is_some()
    }

    /// The next packet. `flow` is what is remembered of it: ends cannot know, but some things are no more than chance where it is
    /// not as they believe.
    pub fn next(&mut self, flow: Option<&Flow>, random: &mut ChaCha8Rng) -> Option<Sent> {
        let [a, b] = self.ends;
        let payload = [0x5a; 40];
        let payload = &payload[..random.random_range(1..40)];
        let Some(now) = self.tcp.as_mut() else {
            let side = usize::from(random.random_ratio(1, 3));
            let [from, to] = if side == 0 { [a, b] } else { [b, a] };
            return Some(Sent { side, part: Part::Datagram, inner: udp(from, to, payload), before: None });
        };
        let before = Some(*now);
        let roll = random.random_range(0..100);
        let passes = matches!(self.rule, Rule::Pass { .. });
        let (side, part) = match now.step {
            1 if roll < 70 => (1, Part::SynAck(now.isn)),
            1 if roll < 85 => (0, Part::Syn(now.isn)),
            1 if roll < 93 && passes => (1, Part::Refuse(now.isn)),
            2 if roll < 60 => (0, Part::Ack { fin: false }),
            2 if roll < 80 => (1, Part::Ack { fin: false }),
            2 if roll < 90 && passes => (usize::from(roll % 2 == 0), Part::Rst),
            3 if roll < 80 || !passes => (usize::from(roll % 2 == 0), Part::Ack { fin: false }),
            3 if roll < 92 => (usize::from(roll % 2 == 0), Part::Ack { fin: true }),
            3 if roll < 95 => (usize::from(roll % 2 == 0), Part::Rst),
            3 if roll < 98 => (usize::from(roll % 2 == 0), Part::Spoof),
            _ => (0, Part::Syn(0)),
        };
        let part = match part {
            Part::Ack { fin: true } if now.fin[side] => Part::Ack { fin: false },
            Part::Syn(0) => {
                if !(now.step == 0 && now.again && random.random()) {
                    // What was picked up has no known windows: whether a new connection is told from it depends on the numbers.
                    let unclear = flow.is_some_and(|flow| {
                        flow.picked_up
                            && !matches!(flow.state, State::Closing | State::TimeWait | State::Reset)
                    });
                    if unclear {
                        return None;
                    }
                    if random.random() {
                        self.cookie = random.random();
                    }
                    let jump = |old: u32, random: &mut ChaCha8Rng| {
                        old.wrapping_add(JUMP).wrapping_add(random.random_range(0..1 << 29))
                    };
                    let sequence = now.sequence.map(|old| jump(old, random));
                    *now = Tcp { step: 0, isn: sequence[0], again: false, sequence, fin: [false; 2] };
                }
                Part::Syn(now.isn)
            }
            Part::Spoof => {
                let fits = flow.is_some_and(|flow| {
                    flow.state == State::Established && !flow.picked_up && flow.stray.is_none()
                });
                if !fits {
                    return None;
                }
                Part::Spoof
            }
            other => other,
        };
        let [from, to] = if side == 0 { [a, b] } else { [b, a] };
        let (seq, ack) = (now.sequence[side], now.sequence[1 - side]);
        let data: &[u8] = if now.fin[side] { &[] } else { payload };
        let (inner, advance) = match part {
            Part::Syn(isn) => (tcp(from, to, "S", isn, 0, &[]), 0),
            Part::SynAck(isn) => (tcp(from, to, "SA", seq, isn.wrapping_add(1), &[]), 1),
            Part::Refuse(isn) => (tcp(from, to, "RA", 0, isn.wrapping_add(1), &[]), 0),
            Part::Ack { fin: true } => (tcp(from, to, "FA", seq, ack, data), data.len() as u32 + 1),
            Part::Ack { fin: false } => (tcp(from, to, "A", seq, ack, data), data.len() as u32),
            Part::Rst => (tcp(from, to, "R", seq, 0, &[]), 0),
            Part::Spoof => (tcp(from, to, "R", seq.wrapping_add(1 << 30), 0, &[]), 0),
            Part::Datagram => unreachable!("TCP"),
        };
        match part {
            Part::Syn(isn) => {
                now.step = 1;
                now.sequence[0] = isn.wrapping_add(1);
            }
            Part::SynAck(_) => now.step = 2,
            Part::Refuse(_) | Part::Rst => now.step = 4,
            Part::Ack { fin } => {
                if side == 0 {
                    now.step = 3;
                }
                now.fin[side] |= fin;
            }
            _ => {}
        }
        if !matches!(part, Part::Syn(_)) {
            now.sequence[side] = now.sequence[side].wrapping_add(advance);
        }
        Some(Sent { side, part, inner, before })
    }

    /// It did not go home: nobody has it.
    pub fn lost(&mut self, sent: &Sent) {
        match sent.part {
            Part::Syn(isn) => {
                let now = self.tcp.as_mut().expect("TCP");
                (now.step, now.again, now.isn) = (0, true, isn);
            }
            _ => self.tcp = sent.before,
        }
    }
}
