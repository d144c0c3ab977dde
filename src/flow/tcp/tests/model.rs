//! Two ends that know nothing of us talk over a wire that loses, duplicates and reorders, with the state machine in the middle.

mod end;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::*;
use end::{End, Phase};

/// What kind of network and what kind of ends.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    /// Chances in 256.
    loss: u8,
    twice: u8,
    /// Ticks that a segment takes between an end and us, at least, and how many more at random.
    delay: u64,
    jitter: u64,
    capacity: [u64; 2],
    offer: [Option<u8>; 2],
    /// Both connect at the same time.
    simultaneous: bool,
    /// Chance in 256 of an abort, per thousand steps.
    abort: u8,
    /// Chance in 256, per step, of a segment by someone who knows addresses and ports only.
    blind: u8,
}

fn plans() -> impl Strategy<Value = Plan> {
    let capacity =
        || prop_oneof![Just(0u64), 1u64..100, 100u64..16_000, 16_000u64..66_000, 66_000u64..2_000_000,];
    let offer = || prop_oneof![Just(None), (0u8..=14).prop_map(Some)];
    let chance = || prop_oneof![Just(0u8), 1u8..80];
    (
        any::<u64>(),
        chance(),
        chance(),
        (1u64..30, 0u64..30),
        [capacity(), capacity()],
        [offer(), offer()],
        any::<bool>(),
        chance(),
        prop_oneof![2 => Just(0u8), 1 => 1u8..100],
    )
        .prop_map(|(seed, loss, twice, (delay, jitter), capacity, offer, simultaneous, abort, blind)| {
            Plan {
                seed,
                loss,
                twice,
                delay,
                // Nothing is overtaken by what was sent a round trip later.
                jitter: jitter.min(delay),
                capacity: capacity.map(|bytes| bytes.max(1)),
                offer,
                simultaneous,
                abort,
                blind,
            }
        })
}

/// A segment on its way from an end, to us or past us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flying {
    from: usize,
    passed_us: bool,
    /// By someone else, who claims to be that end.
    forged: bool,
    segment: Segment,
}

struct World {
    plan: Plan,
    random: ChaCha8Rng,
    ends: [End; 2],
    now: u64,
    sent: u64,
    wire: BinaryHeap<Reverse<(u64, u64)>>,
    flying: Vec<Option<Flying>>,
    lossless: bool,
    originator: usize,
    connection: Option<(State, Tracked)>,
    resets: u32,
    forged: u32,
    early: bool,
    over: bool,
    log: Vec<String>,
}

impl World {
    fn new(plan: Plan) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
        let ends = [0, 1].map(|n| {
            // Often near the place where numbers wrap.
            let initial = if random.random() {
                random.random()
            } else {
                0u32.wrapping_sub(random.random_range(0..3000))
            };
            End::new(initial, plan.capacity[n], plan.offer[n], random.random_range(1..1500))
        });
        World {
            plan,
            random,
            ends,
            now: 0,
            sent: 0,
            wire: BinaryHeap::new(),
            flying: Vec::new(),
            lossless: false,
            originator: 0,
            connection: None,
            resets: 0,
            forged: 0,
            early: false,
            over: false,
            log: Vec::new(),
        }
    }

    fn chance(&mut self, of_256: u8) -> bool {
        self.random.random::<u8>() < of_256
    }

    fn launch(&mut self, flying: Flying) {
        if !self.lossless && self.chance(self.plan.loss) {
            return;
        }
        let copies = 1 + usize::from(!self.lossless && self.chance(self.plan.twice));
        for _ in 0..copies {
            let at = self.now + self.plan.delay + self.random.random_range(0..=self.plan.jitter);
            self.wire.push(Reverse((at, self.sent)));
            self.sent += 1;
            self.flying.push(Some(flying));
        }
    }

    fn from(&mut self, from: usize, segments: Vec<Segment>) {
        for segment in segments {
            self.resets += u32::from(segment.flags & RST != 0);
            self.launch(Flying { from, passed_us: false, forged: false, segment });
        }
    }

    fn state(&self) -> Option<State> {
        self.connection.map(|(state, _)| state)
    }

    /// A segment passes us.
    fn passes(&mut self, flying: Flying) -> Result<(), String> {
        let segment = Segment { reply: flying.from != self.originator, ..flying.segment };
        match self.connection {
            Some(_) if self.over => {}
            _ if flying.forged => self.withstand(&segment)?,
            None => {
                self.originator = flying.from;
                self.connection = open(&Segment { reply: false, ..segment });
                if self.connection.is_none() {
                    return Err(format!("{segment:?} comes first"));
                }
            }
            Some((state, mut tracked)) => {
                let step = step(state, &mut tracked, &segment, WindowCheck::Drop);
                self.connection = Some((step.state, tracked));
                // It overtook the SYN|ACK.
                self.early |= state == State::SynSent && step.what == What::BadReset;
                // It overtook data of its sender, which look to us as if it were forged: a flow that is remembered for longer than it lives.
                self.early |= state == State::Reset && step.state != State::Reset;
                let Segment { flags, sequence, acknowledgment, window, len, reply, .. } = segment;
                self.log.push(format!(
                    "{} {} {flags:#04x} {sequence}+{len} {acknowledgment} {window} {step:?}",
                    self.now,
                    if reply { "<" } else { ">" }
                ));
                if state == State::Reset && matches!(step.what, What::NewIncarnation { .. }) {
                    // A duplicate of the SYN after the end: whatever follows is not this connection.
                    self.over = true;
                } else if let What::OutOfWindow | What::BadFlags | What::NewIncarnation { .. } = step.what {
                    return Err(format!("{:?} for {segment:?} in {tracked:?}", step.what));
                }
            }
        }
        self.launch(Flying { passed_us: true, ..flying });
        Ok(())
    }

    /// A segment by someone who knows addresses and ports, and guesses numbers far from the right ones.
    fn forge(&mut self) {
        let Some(state) = self.state() else { return };
        let from = self.random.random_range(0..2usize);
        let far = |random: &mut ChaCha8Rng, right: u32| {
            let distance = 1 << 24;
            right.wrapping_add(random.random_range(distance..=u32::MAX - distance))
        };
        let sequence = far(&mut self.random, self.ends[from].sent());
        let acknowledgment = far(&mut self.random, self.ends[1 - from].sent());
        let flags = match self.random.random_range(0..6) {
            0 => RST,
            1 => RST | ACK,
            // Before that, a SYN can fool the ends themselves; after that, it may be right.
            // And whoever forges both the SYN and its answer is believed.
            2 if self.plan.seed & 1 == 0 && matches!(state, State::Established | State::FinSent) => SYN,
            3 if self.plan.seed & 1 == 1 => SYN | ACK,
            4 => FIN | ACK,
            _ => ACK,
        };
        let len = if flags & RST == 0 { self.random.random_range(0..100) } else { 0 };
        let window = self.random.random();
        let segment = Segment { flags, sequence, acknowledgment, len, window, ..Segment::default() };
        self.launch(Flying { from, passed_us: false, forged: true, segment });
    }

    /// What a forged segment may do to us: nothing.
    fn withstand(&mut self, segment: &Segment) -> Result<(), String> {
        let Some((state, tracked)) = self.connection else { return Ok(()) };
        if segment.flags & SYN != 0 && !matches!(state, State::Established | State::FinSent) {
            return Ok(());
        }
        let mut after = tracked;
        let step = step(state, &mut after, segment, WindowCheck::Drop);
        self.log.push(format!("{} forged {segment:?} {step:?}", self.now));
        let harmless = match step.what {
            What::OutOfWindow | What::BadReset => after == tracked || state == State::SynSent,
            What::Stray => {
                [false, true].iter().all(|reply| after.expected(*reply) == tracked.expected(*reply))
            }
            // Against a SYN alone there was a RST: of the other side no number is known.
            What::Normal | What::Retransmit => state == State::Reset,
            _ => false,
        };
        self.connection = Some((step.state, after));
        self.forged += 1;
        if harmless && step.state == state {
            Ok(())
        } else {
            Err(format!("{step:?} for a forged {segment:?}"))
        }
    }

    /// The next thing that arrives somewhere.
    fn arrive(&mut self) -> Result<bool, String> {
        let Some(Reverse((at, number))) = self.wire.pop() else { return Ok(false) };
        self.now = at;
        let flying = self.flying[number as usize].take().unwrap();
        if !flying.passed_us {
            self.passes(flying)?;
        } else {
            let to = 1 - flying.from;
            let lazy = !self.lossless && self.chance(60);
            let was_reset = self.ends[to].was_reset;
            let answers = self.ends[to].receive(&flying.segment, lazy);
            self.from(to, answers);
            if !self.over
                && !self.early
                && !was_reset
                && self.ends[to].was_reset
                && self.state() != Some(State::Reset)
            {
                return Err(format!("{:?} was believed", flying.segment));
            }
        }
        self.compare()?;
        Ok(true)
    }

    /// What must be true whenever the ends are where they are.
    fn compare(&self) -> Result<(), String> {
        if self.over {
            return Ok(());
        }
        let state = self.state();
        let phases = [self.ends[0].phase, self.ends[1].phase];
        let told = |expected: State| match state == Some(expected) {
            true => Ok(()),
            false => Err(format!("the ends are {phases:?}")),
        };
        if phases == [Phase::Established; 2] {
            told(State::Established)?;
        }
        if self.ends.iter().all(|end| end.in_order) {
            if self.resets == 0 {
                told(State::TimeWait)?;
            } else if !matches!(state, Some(State::TimeWait | State::Reset)) {
                return Err(format!("the ends are {phases:?}"));
            }
        }
        if state == Some(State::Reset) && self.resets == 0 {
            return Err("nobody sent a RST".into());
        }
        Ok(())
    }

    /// Someone does something.
    fn act(&mut self) {
        let who = self.random.random_range(0..2usize);
        let again = self.random.random_range(1..2000);
        let end = &mut self.ends[who];
        let out = match self.random.random_range(0..100) {
            0..30 => {
                if !end.shut {
                    end.written += self.random.random_range(0..5000);
                }
                end.send(self.random.random_range(1..20))
            }
            30..60 => end.send(self.random.random_range(1..20)),
            60..75 => end.read(self.random.random_range(0..100_000)),
            75..82 => {
                end.mss = again;
                end.again()
            }
            82..86 => end.keep_alive(self.random.random_range(0..2)),
            86..88 => {
                end.shut |= end.phase != Phase::Listen;
                end.send(1)
            }
            88 if self.random.random::<u8>() < self.plan.abort => end.abort(),
            _ => vec![],
        };
        self.from(who, out);
    }

    fn run(&mut self) -> Result<(), String> {
        if self.plan.simultaneous {
            for who in [0, 1] {
                let syn = self.ends[who].connect();
                self.from(who, syn);
            }
        } else {
            self.ends[1].phase = Phase::Listen;
            let syn = self.ends[0].connect();
            self.from(0, syn);
        }
        for _ in 0..self.random.random_range(1..600) {
            if self.chance(self.plan.blind) {
                self.forge();
            }
            if self.random.random_range(0..4) == 0 {
                self.act();
            } else {
                self.arrive()?;
            }
        }
        // Now let it end well.
        self.lossless = true;
        self.ends.iter_mut().for_each(|end| end.capacity = end.capacity.max(60_000));
        for _ in 0..3000 {
            while self.arrive()? {}
            if self.ends.iter().all(End::is_finished) || self.ends.iter().any(|e| e.was_reset) {
                break;
            }
            for who in [0, 1] {
                let end = &mut self.ends[who];
                end.shut |= end.phase != Phase::Listen;
                let unread = end.unread;
                let mut out = end.read(unread);
                out.extend(end.again());
                out.extend(end.send(200));
                self.from(who, out);
            }
        }
        while self.arrive()? {}
        self.finished()
    }

    fn finished(&self) -> Result<(), String> {
        let [a, b] = &self.ends;
        if a.in_order && b.in_order && (a.received != b.written + 2 || b.received != a.written + 2) {
            return Err("the model loses bytes".into());
        }
        if !self.ends.iter().all(|end| end.is_finished() || end.phase == Phase::Listen) {
            return Err("the model hangs".into());
        }
        Ok(())
    }
}

fn run(plan: Plan) -> Result<World, TestCaseError> {
    let mut world = World::new(plan);
    world.run().map_err(|wrong| {
        let tail = world.log.len().saturating_sub(30);
        let (state, now, log) = (world.state(), world.now, world.log[tail..].join("\n"));
        TestCaseError::fail(format!("{wrong}, in {state:?} at {now}\n{:#?}\n{log}", world.ends))
    })?;
    Ok(world)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_ends_are_followed(plan in plans()) {
        run(plan)?;
    }
}

/// An end that is gone answers what is still on its way to it with a RST that its own last data, overtaken, lie beyond.
#[test]
fn data_that_a_reset_overtook_show_no_forgery() {
    for offer in 0..=14 {
        let plan = Plan {
            seed: 13_646_681_335_452_907_227,
            loss: 0,
            twice: 10,
            delay: 6,
            jitter: 6,
            capacity: [2, 1],
            offer: [None, Some(offer).filter(|n| *n > 0)],
            simultaneous: false,
            abort: 14,
            blind: 48,
        };
        run(plan).unwrap();
    }
}
