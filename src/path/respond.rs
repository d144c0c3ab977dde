//! What the ends of dropped packets are told: after inspect and encap, before tx.
//!
//! A rejected TCP segment gets a reset each way, whatever else was rejected an ICMP "administratively prohibited", and a packet too big
//! to go home a "packet too big", since the load balancer sends none (gateway load balancers do not take part in path MTU discovery).

use super::answer::{Answer, AnswerCounters, Answers, Request, Seen};
use crate::config::{Plan, Scope};
use crate::dpdk::{Burst, Mempool};
use crate::flow::Flows;
use crate::packet::{Batch, Mask, Meta};
use crate::wire::transport;

/// Where frames of our own come from, and on what terms.
#[derive(Debug)]
pub struct Respond {
    answers: Answers,
    /// Largest inner packet that the load balancer takes.
    max_return: u16,
    /// A flow's packets all come through one endpoint, so that one direction's envelope tells the other's.
    one_endpoint: bool,
}

impl Respond {
    /// What a plan says; buffers come from this pool.
    pub fn of(plan: &Plan, pool: &Mempool) -> Self {
        let tunnel = &plan.tunnel;
        let answers = Answers::new(pool.clone(), tunnel.profile, tunnel.max_return, plan.flow.answers_per_s);
        Respond::new(answers, tunnel.max_return, plan.flow.scope == Scope::Endpoint)
    }

    /// Answers under these terms; `one_endpoint` if flows do not cross endpoints.
    pub fn new(answers: Answers, max_return: u16, one_endpoint: bool) -> Self {
        Respond { answers, max_return, one_endpoint }
    }

    /// Goes on with the rate of what was in force until now.
    pub(super) fn take_over(&mut self, other: &Respond) {
        self.answers.take_over(&other.answers);
    }

    /// Answers rejected slots and those of `too_big` (for a port, of that MTU). `out` gets the frames.
    #[cold]
    #[inline(never)]
    pub(super) fn run(
        &mut self,
        now: u64,
        batch: &Batch,
        (too_big, mtu): (Mask, u16),
        flows: Option<&Flows>,
        out: &mut Burst,
        counters: &AnswerCounters,
    ) {
        for slot in batch.rejected() {
            let (frame, meta) = (batch.frame(slot), batch.meta(slot));
            let flows = flows.filter(|flows| flows.holds(meta));
            let seen = self.seen(meta, flows);
            let mut say = |what| {
                let request = Request { what, frame, meta, seen };
                let _ = self.answers.answer(now, &request, out, counters); // counted there
            };
            if meta.protocol == transport::TCP {
                let next_sequence = flows.and_then(|flows| flows.expected(meta.flow, meta.is_reply()));
                say(Answer::ResetSender);
                say(Answer::ResetReceiver { next_sequence });
            } else {
                say(Answer::Prohibited);
            }
        }
        for slot in too_big {
            let (frame, meta) = (batch.frame(slot), batch.meta(slot));
            let flows = flows.filter(|flows| flows.holds(meta));
            let around = meta.inner.saturating_sub(meta.outer.into());
            let what = Answer::TooBig { mtu: self.max_return.min(mtu.saturating_sub(around)) };
            let request = Request { what, frame, meta, seen: self.seen(meta, flows) };
            let _ = self.answers.answer(now, &request, out, counters);
        }
    }

    fn seen(&self, meta: &Meta, flows: Option<&Flows>) -> Seen {
        let [originator, responder] = flows.map_or([None; 2], |flows| flows.envelopes(meta.flow));
        let (on, back) = if meta.is_reply() { (responder, originator) } else { (originator, responder) };
        Seen { on, back: back.filter(|_| self.one_endpoint) }
    }
}
