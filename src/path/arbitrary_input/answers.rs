//! What answers promise for any packet that decap lets in: right, small, to the right side, and never themselves answered.

use std::cell::RefCell;
use std::path::Path;

use super::{Machine, Options, Overrides, config};
use crate::dpdk::{Burst, Mempool, PoolConfig};
use crate::flow::Envelope;
use crate::packet::{Batch, Meta, ReasonTable};
use crate::path::{Answer, AnswerCounters, Answers, Decap, Outcome, Request, Seen, WorkerCounters, decap};
use crate::stage::WorkerId;
use crate::traffic;
use crate::wire::geneve::Profile;
use crate::wire::{checksum, tcp};

/// Bytes in front of the inner packet: what to ask, which profile and what was seen, and a number.
pub const QUESTION: usize = 4;
const PROFILES: [&str; 4] = ["aws", "tencent", "google", "plain"];
const POOL: u32 = 4;
/// More than anybody asks for here.
const RATE: u32 = 1_000_000;

/// Four bytes that choose a question, then an inner packet. Returns the answer's frame, if there is one; panics if it breaks a
/// promise.
pub fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        /// One for each profile, kept.
        static BENCHES: RefCell<[Bench; 4]> = RefCell::new(PROFILES.map(|profile| Bench::new(profile, 0)));
    }
    let [_, setting, ..] = *bytes.first_chunk::<QUESTION>()?;
    BENCHES.with_borrow_mut(|benches| answer_on(&mut benches[usize::from(setting & 3)], bytes))
}

fn answer_on(bench: &mut Bench, bytes: &[u8]) -> Option<Vec<u8>> {
    let (question, inner) = bytes.split_first_chunk::<QUESTION>()?;
    let [what, setting, high, low] = *question;
    let number = u16::from_be_bytes([high, low]);
    let what = match what & 7 {
        0 | 1 => Answer::ResetSender,
        2 => Answer::ResetReceiver { next_sequence: None },
        3 => Answer::ResetReceiver { next_sequence: Some(u32::from(number) << 16 | 5) },
        4 | 5 => Answer::Prohibited,
        _ => Answer::TooBig { mtu: number },
    };
    let max_return = if setting & 4 == 0 { u16::MAX } else { number.max(1) };
    let other = Envelope { node: [10, 9, 8, 7], cookie: 0x0bad_cafe, port: number };
    let seen = |bit: u8| (setting & bit != 0).then_some(other);
    let seen = Seen { on: seen(8), back: seen(16) };

    bench.limit(max_return);
    let frame = traffic::wrap(inner, &traffic::Envelope { profile: bench.profile, ..Default::default() })?;
    let (meta, made) = bench.ask(&frame, what, seen)?;
    let made = made?;
    let offending = &frame[usize::from(meta.inner)..][..usize::from(meta.inner_len)];
    let newest = if what.is_back() { seen.back } else { seen.on };
    let outer = &made[14..];
    assert!(outer.len() <= 1500);
    assert_eq!(sum(&outer[..20]), 0xffff, "outer header checksum");
    assert_eq!(outer[12..16], frame[30..34], "from us");
    let node = newest.map_or(meta.node, |seen| seen.node);
    assert_eq!(outer[16..20], node, "to the load balancer");
    assert_eq!(made[..12], [&frame[6..12], &frame[..6]].concat(), "MAC addresses change places");
    let port = newest.map_or(meta.outer_source_port, |seen| seen.port);
    assert_eq!((outer[20..22].to_vec(), &outer[22..24]), (port.to_be_bytes().to_vec(), &frame[36..38]));

    // Our own decap lets it in, whole, with the cookie of its direction.
    bench.limit(u16::MAX);
    let sides = [Answer::ResetSender, Answer::ResetReceiver { next_sequence: Some(1) }];
    let all = [sides[0], sides[1], Answer::Prohibited, Answer::TooBig { mtu: 20 }];
    for more in all {
        let (facts, answered) = bench.ask(&made, more, Seen::default()).expect("decap lets an answer in");
        assert_eq!(answered, None, "{more:?} to an answer");
        assert_eq!(usize::from(facts.inner) + usize::from(facts.inner_len), made.len());
        assert_eq!(facts.endpoint, meta.endpoint);
        match newest {
            Some(seen) if bench.profile.name == "aws" || bench.profile.name == "tencent" => {
                assert_eq!(facts.cookie, seen.cookie)
            }
            _ if what.is_back() && bench.profile.name == "tencent" => {
                assert_eq!(facts.cookie, meta.cookie ^ 0x2000_0000)
            }
            _ => assert_eq!(facts.cookie, meta.cookie),
        }
    }
    let (facts, _) = bench.ask(&made, Answer::Prohibited, Seen::default())?;
    let packet = &made[usize::from(facts.inner)..];
    assert!(packet.len() <= usize::from(max_return));
    inner_is_right(what, offending, packet, &meta);
    Some(made)
}

/// The answer itself, read with nothing but offsets.
fn inner_is_right(what: Answer, offending: &[u8], packet: &[u8], meta: &Meta) {
    let (header, addresses, protocol_at, icmp) = match packet[0] >> 4 {
        4 => (20, 12..20, 9, 1),
        6 => (40, 8..40, 6, 58),
        version => panic!("version {version}"),
    };
    assert_eq!(packet[0] >> 4, offending[0] >> 4);
    let half = addresses.len() / 2;
    let mut ends = offending[addresses.clone()].to_vec();
    if what.is_back() {
        ends.rotate_left(half);
    }
    assert_eq!(packet[addresses.clone()], ends, "its ends");
    assert_eq!(header == 20, !meta.is_ipv6());
    if header == 20 {
        assert_eq!(sum(&packet[..20]), 0xffff, "header checksum");
    }
    let body = &packet[header..];
    let pseudo = u64::from(sum(&packet[addresses])) + u64::from(packet[protocol_at]) + body.len() as u64;
    let reset = matches!(what, Answer::ResetSender | Answer::ResetReceiver { .. });
    if reset {
        assert_eq!((packet[protocol_at], meta.protocol), (6, 6));
        assert_eq!(body.len(), 20);
        assert_eq!(checksum::fold(pseudo + u64::from(sum(body))), 0xffff, "TCP checksum");
        let theirs = &offending[usize::from(meta.transport - meta.inner)..];
        let ports =
            if what.is_back() { [&theirs[2..4], &theirs[..2]] } else { [&theirs[..2], &theirs[2..4]] };
        assert_eq!(body[..4], ports.concat());
        assert!(theirs[13] & tcp::RST == 0, "a RST is never answered");
        let (has_ack, says_ack) = (theirs[13] & tcp::ACK != 0, body[13] & tcp::ACK != 0);
        assert_eq!(body[13] & !tcp::ACK, tcp::RST);
        // RFC 9293 section 3.5.2: the one or the other; onward the segment's own.
        assert_eq!(says_ack, if what.is_back() { !has_ack } else { has_ack });
        if what.is_back() && has_ack {
            assert_eq!(body[4..8], theirs[8..12]);
        }
        return;
    }
    assert_eq!(packet[protocol_at], icmp);
    let most = if header == 20 { 576 } else { 1280 };
    assert!(packet.len() <= most);
    let from = if header == 20 { 0 } else { pseudo };
    assert_eq!(checksum::fold(from + u64::from(sum(body))), 0xffff, "ICMP checksum");
    assert!(offending.starts_with(&body[8..]), "it quotes the packet");
    let whole = body.len() - 8 == offending.len();
    assert!(whole || body.len() - 8 >= 28, "enough to know the flow by");
    match (what, header) {
        (Answer::Prohibited, 20) => assert_eq!(body[..2], [3, 13]),
        (Answer::Prohibited, _) => assert_eq!(body[..2], [1, 1]),
        (_, 20) => {
            assert_eq!(body[..2], [3, 4]);
            assert!(offending[6] & 0x40 != 0, "DF");
        }
        _ => assert_eq!(body[..2], [2, 0]),
    }
    if matches!(what, Answer::TooBig { .. }) {
        let mtu = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
        assert!((offending.len() as u32) > mtu && (header == 20 || mtu >= 1280));
    }
}

/// RFC 1071, one word at a time.
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Decap and a worker's answers, without a worker.
pub(in crate::path) struct Bench {
    pub(in crate::path) profile: &'static Profile,
    pub(in crate::path) pool: Mempool,
    decap: Decap,
    answers: Answers,
    counters: AnswerCounters,
}

impl Bench {
    /// For this profile and limit.
    pub(in crate::path) fn new(profile: &str, max_return: u16) -> Bench {
        let machine = Machine { cpus: vec![0], worth: 1 };
        let options = Options { need_ports: false, machine, kinds: &[], files: false };
        let text = format!("[tunnel]\nprofile = {profile:?}\nallowed_sources = []\naddresses = []\n");
        let plan = config::load_text("bench.toml", &text, Path::new("/"), &Overrides::default(), &options)
            .expect("a configuration");
        let profile = plan.tunnel.profile;
        let pool =
            PoolConfig { name: "answers".into(), buffers: POOL, data_room: 9728, cache: 0, numa: None };
        let pool = Mempool::soft(&pool);
        let answers = Answers::new(pool.clone(), profile, max_return, RATE);
        Bench { profile, pool, decap: Decap::new(plan.tunnel), answers, counters: AnswerCounters::default() }
    }

    /// Another limit, and a full bucket.
    fn limit(&mut self, max_return: u16) {
        self.answers = Answers::new(self.pool.clone(), self.profile, max_return, RATE);
    }

    /// What decap found in the frame and the frame that answers it; `None` if decap did not let it in.
    pub(in crate::path) fn ask(
        &mut self,
        frame: &[u8],
        what: Answer,
        seen: Seen,
    ) -> Option<(Meta, Option<Vec<u8>>)> {
        let mut batch = Batch::new();
        let mut buffer = self.pool.alloc().expect("a buffer");
        assert!(buffer.write(frame), "a frame fits");
        batch.frames.push(buffer).expect("room");
        batch.begin();
        decap::run(
            &mut self.decap,
            &mut batch,
            &WorkerCounters::new(WorkerId(0), &ReasonTable::framework(), 0),
        );
        if batch.live().is_empty() {
            return None;
        }
        let meta = *batch.meta(0);
        let mut out = Burst::new();
        let rows =
            |c: &AnswerCounters| [c.made(), c.rate_limited.get(), c.not_answerable.get(), c.no_buffer.get()];
        let before = rows(&self.counters);
        let request = Request { what, frame: batch.frame(0), meta: &meta, seen };
        let outcome = self.answers.answer(0, &request, &mut out, &self.counters);
        let mut after = rows(&self.counters);
        after.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
        assert!(matches!(outcome, Outcome::Made | Outcome::NotAnswerable), "{outcome:?}");
        let is_made = outcome == Outcome::Made;
        assert_eq!(after, [u64::from(is_made), 0, u64::from(!is_made), 0], "counted once");
        assert_eq!(out.len(), usize::from(is_made));
        assert_eq!(batch.frame(0), frame, "the frame that is answered stays as it is");
        let made = out.as_slice().first().map(|made| made.data().to_vec());
        drop((batch, out));
        assert_eq!(self.pool.available(), POOL, "every buffer is back");
        Some((meta, made))
    }
}
