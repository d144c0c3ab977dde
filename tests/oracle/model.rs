//! The reference: what the flow engine promises, written plainly, with a `HashMap`, exact times and no code of the crate.
//!
//! It is told of each packet before the engine sees it and says what becomes of it; and it judges what the engine says on its own account
//! (a flow ended because nothing came). TCP is the small part that well-behaved ends need: packets come one at a time, in order.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Scope, ends in order, protocol.
pub type Key = (u64, [(IpAddr, u16); 2], u8);

/// What a packet is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not TCP.
    Datagram,
    /// With its initial number.
    Syn(u32),
    /// Answers the SYN of that number.
    SynAck(u32),
    /// Data or an acknowledgment.
    Ack { fin: bool },
    /// A RST that continues its sender's numbers.
    Rst,
    /// A RST that refuses the SYN of that number.
    Refuse(u32),
    /// A RST that nobody would believe.
    Spoof,
}

/// What the test's stage does, always the same for a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Passes; `settle`: and does not want to see the flow again.
    Pass { settle: bool },
    /// Drops; `settle`: the whole flow.
    Drop { settle: bool },
}

#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub key: Key,
    /// Which end sends it: 0 or 1, as the conversation numbers them.
    pub side: usize,
    pub part: Part,
    /// `None`: of an endpoint that nobody claims and that is not let in.
    pub tenant: Option<u16>,
    pub cookie: u32,
    pub len: u64,
    pub rule: Rule,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Home,
    Dropped(&'static str),
}

/// What happens to flows because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Start(Key),
    Replaced(Key),
    /// One of these; what is over ends as such.
    Evicted(BTreeMap<Key, State>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    One,
    /// One direction, for a second.
    OneWay,
    Both,
    SynSent,
    PickedUp,
    SynReceived,
    Established,
    FinSent,
    Closing,
    TimeWait,
    Reset,
}

#[derive(Clone, Debug)]
pub struct Flow {
    pub tenant: u16,
    pub originator: usize,
    pub state: State,
    pub picked_up: bool,
    /// Number of the client's SYN, if one was seen or acknowledged.
    isn: Option<u32>,
    /// A SYN that only an answer can confirm.
    pub stray: Option<u32>,
    seen_from: [bool; 2],
    fin: [bool; 2],
    fin_acked: [bool; 2],
    pub cookies: [Option<u32>; 2],
    pub counts: [(u64, u64); 2],
    created: u64,
    pub seen: u64,
    pub condemned: bool,
    settled: bool,
    /// Its place among the unanswered of its tenant: its list, and then by age.
    waits: Option<(u8, u64)>,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub established: u64,
    pub other: u64,
    pub half_open: u64,
    pub closing: u64,
    pub reset: u64,
    pub denied: u64,
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub guaranteed: u64,
    pub ceiling: u64,
    pub rate: Option<u64>,
    pub live: u64,
    waiting: BTreeMap<(u8, u64), Key>,
    /// Thousandths of new flows that it may have now.
    tokens: u64,
    refilled: u64,
}

impl Tenant {
    pub fn new(guaranteed: u64, ceiling: u64, rate: Option<u64>) -> Self {
        let tokens = rate.unwrap_or(0) * 100;
        Tenant { guaranteed, ceiling, rate, live: 0, waiting: BTreeMap::new(), tokens, refilled: 0 }
    }

    fn borrowed(&self) -> u64 {
        self.live.saturating_sub(self.guaranteed)
    }

    fn oldest(&self) -> Option<Key> {
        self.waiting.values().next().copied()
    }

    /// Only who comes in uses up the rate.
    fn pay(&mut self) {
        self.tokens -= if self.rate.is_some() { 1000 } else { 0 };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pickup {
    Policy,
    Allow,
    Refuse,
}

#[derive(Debug)]
pub struct Model {
    pub flows: HashMap<Key, Flow>,
    pub tenants: Vec<Tenant>,
    pub capacity: u64,
    pub times: Times,
    pub pickup: Pickup,
    /// What becomes of a packet whose flow finds no room: `None`, the stage decides.
    pub when_full: Option<Fate>,
    pub refuse_bad: bool,
    /// Until when segments that nobody knows may be of connections that found no room, by tenant.
    away: [u64; 4],
    /// Milliseconds.
    pub now: u64,
    turn: u64,
}

impl Model {
    pub fn new(tenants: Vec<Tenant>, capacity: u64, times: Times) -> Self {
        let (flows, pickup) = (HashMap::new(), Pickup::Policy);
        Model {
            flows,
            tenants,
            capacity,
            times,
            pickup,
            when_full: None,
            refuse_bad: false,
            away: [0; 4],
            now: 0,
            turn: 0,
        }
    }

    /// What becomes of a packet now, and of flows because of it.
    pub fn packet(&mut self, p: &Packet) -> (Fate, Vec<Event>) {
        let mut events = Vec::new();
        let Some(flow) = self.flows.get(&p.key) else { return (self.first(p, &mut events), events) };
        if let Some((state, originator)) = new_incarnation(flow, p) {
            self.remove(&p.key);
            events.push(Event::Replaced(p.key));
            // The tenant is that of the packet; a flow that lives has one.
            let tenant = p.tenant.expect("it was let in before");
            return (self.open(p, tenant, state, originator, false, &mut events), events);
        }
        if p.part == Part::Spoof && self.refuse_bad {
            return (Fate::Dropped("tcp_invalid"), events);
        }
        let now = self.now;
        let flow = self.flows.get_mut(&p.key).expect("it is there");
        let state = flow.step(p, now);
        flow.seen = now;
        flow.counts[p.side].0 += 1;
        flow.counts[p.side].1 += p.len;
        flow.cookies[p.side] = Some(p.cookie);
        // What is dropped is never worth more than what is not.
        let worth = |state| list(state).unwrap_or(u8::MAX);
        if !flow.condemned || list(flow.state).is_none() || worth(state) <= worth(flow.state) {
            flow.state = state;
            self.list(&p.key);
        }
        (self.judge(p), events)
    }

    /// The first packet of a flow, or of none.
    fn first(&mut self, p: &Packet, events: &mut Vec<Event>) -> Fate {
        let Some(tenant) = p.tenant else { return Fate::Dropped("unknown_endpoint") };
        let (state, originator, picked_up) = match p.part {
            Part::Datagram => (State::One, p.side, false),
            Part::Syn(_) => (State::SynSent, p.side, false),
            Part::SynAck(_) => (State::SynReceived, 1 - p.side, true),
            Part::Ack { .. } => (State::PickedUp, p.side, true),
            // What it ends is not here.
            Part::Rst | Part::Refuse(_) | Part::Spoof if self.cuts(tenant) => {
                return Fate::Dropped("pickup");
            }
            Part::Rst | Part::Refuse(_) | Part::Spoof => return of_stage(p.rule),
        };
        if picked_up && self.cuts(tenant) {
            return Fate::Dropped("pickup");
        }
        self.open(p, tenant, state, originator, picked_up, events)
    }

    fn open(
        &mut self,
        p: &Packet,
        tenant: u16,
        state: State,
        originator: usize,
        picked_up: bool,
        events: &mut Vec<Event>,
    ) -> Fate {
        if !self.admitted(tenant, events) {
            if p.part != Part::Datagram {
                self.turned_away(tenant, self.times.established);
            }
            return self.when_full.unwrap_or_else(|| of_stage(p.rule));
        }
        let mut flow = Flow {
            tenant,
            originator,
            state,
            picked_up,
            isn: None,
            stray: None,
            seen_from: [false; 2],
            fin: [false; 2],
            fin_acked: [false; 2],
            cookies: [None; 2],
            counts: [(0, 0); 2],
            created: self.now,
            seen: self.now,
            condemned: false,
            settled: picked_up && self.pickup == Pickup::Allow,
            waits: None,
        };
        match p.part {
            Part::Syn(isn) | Part::SynAck(isn) => flow.isn = Some(isn),
            Part::Ack { fin } => flow.fin[p.side] = fin,
            _ => {}
        }
        flow.seen_from[p.side] = true;
        flow.counts[p.side] = (1, p.len);
        flow.cookies[p.side] = Some(p.cookie);
        self.flows.insert(p.key, flow);
        self.tenants[usize::from(tenant)].live += 1;
        self.list(&p.key);
        events.push(Event::Start(p.key));
        self.judge(p)
    }

    /// Each tenant has what is kept for it, and what is kept for nobody is lent; under pressure who is unanswered goes.
    fn admitted(&mut self, tenant: u16, events: &mut Vec<Event>) -> bool {
        let kept: u64 = self.tenants.iter().map(|t| t.guaranteed).sum();
        let lent: u64 = self.tenants.iter().map(Tenant::borrowed).sum();
        let all_lent = lent >= self.capacity - kept;
        let now = self.now;
        let own = &mut self.tenants[usize::from(tenant)];
        if let Some(rate) = own.rate {
            // A tenth of a second's worth, at least one.
            own.tokens = (own.tokens + (now - own.refilled) * rate).min((rate * 100).max(1000));
            own.refilled = now;
            if own.tokens < 1000 {
                return false;
            }
        }
        let own = &self.tenants[usize::from(tenant)];
        let victims: Vec<Key> = if own.live >= own.ceiling {
            own.oldest().into_iter().collect()
        } else if own.live < own.guaranteed || !all_lent {
            self.tenants[usize::from(tenant)].pay();
            return true;
        } else {
            // Of those that live on borrowed room, and the one that asks, the one with the most; any of them where several have as many.
            let others = self.tenants.iter().enumerate();
            let candidates = others.filter(|(n, t)| *n == usize::from(tenant) || t.borrowed() > 0);
            let candidates: Vec<&Tenant> = candidates.map(|(_, t)| t).collect();
            let most = candidates.iter().map(|t| t.waiting.len()).max().unwrap_or(0);
            let biggest = candidates.iter().filter(|t| t.waiting.len() == most);
            biggest.filter_map(|t| t.oldest()).collect()
        };
        if victims.is_empty() {
            return false;
        }
        self.tenants[usize::from(tenant)].pay();
        let state = |key| (key, self.flows[&key].state);
        events.push(Event::Evicted(victims.iter().copied().map(state).collect()));
        if let [only] = victims.as_slice() {
            self.evict(only);
        }
        true
    }

    /// What nobody saw begin is cut, unless it may be something that found no room and was let through all the same.
    fn cuts(&self, tenant: u16) -> bool {
        let may_have_begun = self.now < self.away[usize::from(tenant)];
        let drops = matches!(self.when_full, Some(Fate::Dropped(_)));
        self.pickup == Pickup::Refuse && (drops || !may_have_begun)
    }

    fn turned_away(&mut self, tenant: u16, time: u64) {
        let until = &mut self.away[usize::from(tenant)];
        *until = (*until).max(self.now + time);
    }

    /// A flow makes room.
    pub fn evict(&mut self, key: &Key) {
        if let Some(flow) = self.remove(key)
            && matches!(flow.state, State::SynSent | State::PickedUp | State::SynReceived)
        {
            self.turned_away(flow.tenant, self.times.half_open);
        }
    }

    fn judge(&mut self, p: &Packet) -> Fate {
        let flow = self.flows.get_mut(&p.key).expect("it is there");
        if flow.condemned {
            return Fate::Dropped("flow_condemned");
        }
        if flow.settled {
            return Fate::Home;
        }
        match p.rule {
            Rule::Pass { settle } => flow.settled = settle,
            Rule::Drop { settle } => flow.condemned = settle,
        }
        of_stage(p.rule)
    }

    /// Takes a flow out, whatever the reason.
    pub fn remove(&mut self, key: &Key) -> Option<Flow> {
        let flow = self.flows.remove(key)?;
        let tenant = &mut self.tenants[usize::from(flow.tenant)];
        tenant.live -= 1;
        if let Some(place) = flow.waits {
            tenant.waiting.remove(&place);
        }
        Some(flow)
    }

    /// Puts a flow on the list that its state belongs to.
    fn list(&mut self, key: &Key) {
        let flow = self.flows.get_mut(key).expect("it is there");
        let list = list(flow.state);
        if flow.waits.map(|(list, _)| list) == list {
            return;
        }
        let waiting = &mut self.tenants[usize::from(flow.tenant)].waiting;
        if let Some(place) = flow.waits.take() {
            waiting.remove(&place);
        }
        if let Some(list) = list {
            self.turn += 1;
            flow.waits = Some((list, self.turn));
            waiting.insert((list, self.turn), *key);
        }
    }

    /// How long the flow may be idle.
    pub fn timeout(&self, flow: &Flow) -> u64 {
        match flow.state {
            _ if flow.condemned => self.times.denied,
            State::One | State::OneWay | State::Both => self.times.other,
            State::SynSent | State::PickedUp | State::SynReceived => self.times.half_open,
            State::Established | State::FinSent => self.times.established,
            State::Closing | State::TimeWait => self.times.closing,
            State::Reset => self.times.reset,
        }
    }
}

/// The list of those that go first under pressure, if the state is on one: TCP that is over before half-open TCP before single packets
/// before what goes one way.
fn list(state: State) -> Option<u8> {
    match state {
        State::Closing | State::TimeWait | State::Reset => Some(0),
        State::SynSent | State::PickedUp | State::SynReceived => Some(1),
        State::One => Some(2),
        State::OneWay => Some(3),
        _ => None,
    }
}

fn of_stage(rule: Rule) -> Fate {
    match rule {
        Rule::Pass { .. } => Fate::Home,
        Rule::Drop { .. } => Fate::Dropped("oracle.rule"),
    }
}

/// Does the packet begin another connection on the same ports? In which state, and who opened it.
fn new_incarnation(flow: &Flow, p: &Packet) -> Option<(State, usize)> {
    let over = matches!(flow.state, State::Closing | State::TimeWait | State::Reset);
    match p.part {
        Part::Syn(isn) if flow.isn == Some(isn) && flow.state != State::Reset => None,
        Part::Syn(_) => {
            let fresh = flow.cookies[p.side].is_some_and(|cookie| cookie != p.cookie);
            (flow.state == State::SynSent || over || fresh).then_some((State::SynSent, p.side))
        }
        Part::SynAck(isn) if flow.stray == Some(isn) => Some((State::SynReceived, 1 - p.side)),
        _ => None,
    }
}

impl Flow {
    /// The state after a packet that belongs to it.
    fn step(&mut self, p: &Packet, now: u64) -> State {
        let side = p.side;
        match (p.part, self.state) {
            (Part::Datagram, State::One | State::OneWay) if side != self.originator => State::Both,
            (Part::Datagram, State::One) if now - self.created >= 1000 => State::OneWay,
            (Part::Datagram, state) => state,
            (Part::Syn(isn), state) if self.isn == Some(isn) => state,
            (Part::Syn(isn), state) => {
                self.stray = Some(isn);
                state
            }
            (Part::SynAck(_), State::SynSent) => {
                self.seen_from[side] = true;
                State::SynReceived
            }
            (Part::SynAck(_), state) => state,
            (Part::Spoof, state) => state,
            (Part::Refuse(isn), state) if self.isn != Some(isn) => state,
            (Part::Rst | Part::Refuse(_), _) if self.stray.is_some() => self.state,
            (Part::Rst | Part::Refuse(_), _) => State::Reset,
            (Part::Ack { .. }, State::Reset) => State::Reset,
            (Part::Ack { fin }, state) => {
                self.seen_from[side] = true;
                self.fin[side] |= fin;
                self.fin_acked[1 - side] |= self.fin[1 - side];
                let half_open = matches!(state, State::PickedUp | State::SynReceived);
                // Both have sent something, and what came last acknowledges the other side.
                let client_spoke = state != State::SynReceived || side == self.originator;
                match (self.fin, self.fin_acked) {
                    _ if half_open && !(self.seen_from == [true; 2] && client_spoke) => state,
                    ([false, false], _) => State::Established,
                    ([true, true], [true, true]) => State::TimeWait,
                    ([true, true], _) => State::Closing,
                    _ => State::FinSent,
                }
            }
        }
    }
}
