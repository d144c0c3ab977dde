//! The next pipeline of a worker: made elsewhere, swapped in between two polls, and what was there before given back.
//!
//! A stage is the same if its name and its mark are. Then its shared part is, and its running part changes places: nothing of it is made
//! anew. Nothing here allocates on the worker's side ([`Inspect::change`]) but what a stage that goes does in its [`Stage::stop`].

use std::sync::Arc;

use super::beside::Beside;
use super::streams::{Moves, Streams};
use super::{Built, Inspect, Pipeline, Running};
use crate::config::{Mode, OnError, Plan, StagePlan};
use crate::dpdk::Error;
use crate::event::Reports;
use crate::flow::refit::{Comes, Goes, OnReload, Refit};
use crate::packet::DropReason;
use crate::path::counters::WorkerCounters;
use crate::stage::{Backend, MOST_STAGES, Make, Shared};

impl Built {
    pub(super) fn new(stage: &StagePlan, number: u8, backend: Backend) -> Result<Self, Error> {
        Ok(Built::around(stage, number, stage.parsed.build(backend)?))
    }

    fn around(stage: &StagePlan, number: u8, shared: Arc<dyn Shared>) -> Self {
        let default = if stage.parsed.judges_any_packet() { OnReload::Redecide } else { OnReload::Keep };
        Built {
            name: stage.name.clone(),
            mark: stage.mark,
            number,
            reads: stage.parsed.wants_streams(),
            settles: stage.parsed.settles(),
            on_reload: stage.on_reload.unwrap_or(default),
            asks_datagrams: stage.on_reload.is_none() && stage.parsed.judges_each_datagram(),
            asks_by_name: stage.on_reload.is_none() && stage.parsed.judges_by_app(),
            shared,
            reasons: stage.reasons.clone().into(),
            on_error: stage.on_error,
            on_unread: stage.on_unread,
            mode: stage.mode,
        }
    }

    fn drops_unread(&self) -> bool {
        self.mode == Mode::Enforce && self.on_unread == OnError::Drop
    }

    /// All reasons for which it condemns flows.
    fn condemns_for(&self) -> Goes {
        let unread = (self.reads && self.drops_unread()).then_some(DropReason::StreamUnread.into());
        Goes { reasons: self.reasons.iter().copied().chain(unread).collect() }
    }
}

/// Are two stages the same?
type Same = fn(&Built, &Built) -> bool;

/// One is the other.
fn is_itself(one: &Built, other: &Built) -> bool {
    Arc::ptr_eq(&one.shared, &other.shared)
}

/// One would take the other's place without being noticed.
pub(super) fn is_alike(one: &Built, other: &Built) -> bool {
    one.name == other.name && one.mark == other.mark
}

impl Pipeline {
    /// The pipeline of a plan that follows this one's. Stages that are the same are taken over, all others are built.
    pub fn next(&self, plan: &Plan, backend: Backend) -> Result<Self, Error> {
        let mut taken: Vec<u8> = self.stages.iter().map(|built| built.number).collect();
        let mut last = taken.iter().copied().max().unwrap_or(0);
        let mut stages = Vec::new();
        for stage in &plan.stages {
            let same = self.stages.iter().find(|built| built.name == stage.name && built.mark == stage.mark);
            stages.push(match same {
                Some(same) => Built::around(stage, same.number, same.shared.clone()),
                None => {
                    // The last number is nobody's (`About`).
                    let free = (1..u8::MAX).map(|n| ((u16::from(last) + u16::from(n)) % 255) as u8);
                    let number = free.into_iter().find(|n| !taken.contains(n)).unwrap_or(last);
                    last = number;
                    taken.push(number);
                    Built::new(stage, number, backend)?
                }
            });
        }
        Ok(Pipeline::of(plan, stages))
    }

    /// Numbers of the stages in events, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u8> {
        self.stages.iter().map(|built| built.number)
    }

    /// The shared part of the stage of this name.
    pub fn shared(&self, name: &str) -> Option<&Arc<dyn Shared>> {
        self.stages.iter().find(|built| built.name == name).map(|built| &built.shared)
    }

    /// The stage that drops for the reason of this label (`stage.reason`), or, where nothing is dropped, the only one whose rules have names; and what
    /// its rule of that number is called.
    pub fn rule(&self, label: Option<&str>, rule: Option<u32>) -> Option<(&str, Option<String>)> {
        let named = |built: &&Built| !built.shared.signatures().is_empty();
        let stage = match label {
            Some(label) => {
                let is_of = |built: &&Built| {
                    label.strip_prefix(built.name.as_str()).is_some_and(|rest| rest.starts_with('.'))
                };
                self.stages.iter().find(is_of)?
            }
            None => {
                let mut with_rules = self.stages.iter().filter(named);
                with_rules.next().filter(|_| rule.is_some() && with_rules.next().is_none())?
            }
        };
        let rules = stage.shared.signatures();
        let name = rule.filter(|_| !rules.is_empty()).map(|rule| {
            rules.get(rule as usize).map_or("default".to_owned(), |known| known.signature.clone())
        });
        Some((stage.name.as_str(), name))
    }

    /// Stages that another pipeline does not have as they are here.
    pub fn changed_since<'a>(
        &'a self,
        other: &'a Pipeline,
    ) -> impl Iterator<Item = (&'a str, &'a dyn Shared)> {
        let is_there =
            |built: &&Built| other.stages.iter().any(|stage| Arc::ptr_eq(&stage.shared, &built.shared));
        self.stages
            .iter()
            .filter(move |built| !is_there(built))
            .map(|built| (built.name.as_str(), &*built.shared))
    }

    /// What the framework does around its stages is the same as in another one's with the same stages.
    pub fn is_the_same(&self, other: &Pipeline) -> bool {
        let words =
            |built: &Built| (built.on_error, built.on_reload, built.asks_datagrams, built.asks_by_name);
        self.stages.len() == other.stages.len()
            && self.foreign == other.foreign
            && self.stages.iter().zip(&other.stages).all(|(one, two)| words(one) == words(two))
    }

    /// Where each stage stood in another pipeline, if it is the same one, and if only its name is.
    fn since<'a>(
        &'a self,
        before: &'a Pipeline,
        same: Same,
    ) -> impl Iterator<Item = (Option<usize>, Option<usize>)> + 'a {
        self.stages.iter().map(move |stage| {
            let named = before.stages.iter().position(|old| old.name == stage.name);
            let is_same = |n: &usize| before.stages.get(*n).is_some_and(|old| same(old, stage));
            (named.filter(is_same), named)
        })
    }

    /// What changed since another pipeline: names of stages that are new, that changed, that moved, and that are gone.
    pub fn differences(&self, before: &Pipeline) -> Differences {
        self.differences_by(before, is_itself)
    }

    /// The same for a pipeline that was built by itself.
    pub fn would_differ(&self, before: &Pipeline) -> Differences {
        self.differences_by(before, is_alike)
    }

    fn differences_by(&self, before: &Pipeline, same: Same) -> Differences {
        let mut said = Differences::default();
        let mut kept = Vec::new();
        for (stage, since) in self.stages.iter().zip(self.since(before, same)) {
            match since {
                (Some(was), _) => kept.push((was, &stage.name)),
                (None, Some(_)) => said.changed.push(stage.name.clone()),
                (None, None) => said.added.push(stage.name.clone()),
            }
        }
        let mut order: Vec<usize> = kept.iter().map(|(was, _)| *was).collect();
        order.sort_unstable();
        let moved = kept.iter().zip(order).filter(|((was, _), place)| was != place);
        said.moved = moved.map(|((_, name), _)| (*name).clone()).collect();
        said.kept = kept.len();
        let gone = before.stages.iter().filter(|old| self.stages.iter().all(|stage| stage.name != old.name));
        said.removed = gone.map(|old| old.name.clone()).collect();
        said
    }

    /// From the masks of flows under another pipeline to those under this one.
    pub(in crate::path) fn refit(&self, before: &Pipeline) -> Refit {
        self.refit_by(before, is_itself)
    }

    /// The same for a pipeline that was built by itself.
    pub(super) fn would_refit(&self, before: &Pipeline) -> Refit {
        self.refit_by(before, is_alike)
    }

    fn refit_by(&self, before: &Pipeline, same: Same) -> Refit {
        let goes: Vec<Goes> = before.stages.iter().map(Built::condemns_for).collect();
        let comes = self.since(before, same).zip(&self.stages).map(|((same, named), stage)| match same {
            Some(was) => Comes::Kept(was),
            None => Comes::Changed(named, stage.on_reload),
        });
        let bits = |picked: &dyn Fn(&Built) -> bool| {
            let stages = self.stages.iter().enumerate().take(MOST_STAGES);
            stages.fold(0, |bits, (n, stage)| bits | u16::from(picked(stage)) << n)
        };
        let own: Vec<Goes> = self.stages.iter().map(Built::condemns_for).collect();
        let own: Vec<_> =
            self.stages.iter().zip(&own).map(|(stage, own)| (stage.on_reload, &own.reasons[..])).collect();
        let foreign = [&before.foreign, &self.foreign].map(|tenants| tenants.iter().copied().collect());
        let comes: Vec<Comes> = comes.collect();
        Refit::new(&goes, &comes)
            .between_tenants(foreign, &own)
            .allowing(bits(&|stage| stage.settles))
            .asking_datagrams(bits(&|stage| stage.asks_datagrams))
            .asking_by_name(bits(&|stage| stage.asks_by_name), &goes, &comes)
    }

    /// What makes this pipeline of a worker's that is `before`.
    pub(in crate::path) fn follow(
        &self,
        before: &Pipeline,
        reports: Option<Reports>,
        counters: &WorkerCounters,
    ) -> Next {
        let make = Make { worker: counters.worker, flows: self.flows };
        let since: Vec<_> = self.since(before, is_itself).map(|(same, _)| same).collect();
        let stages = self.stages.iter().zip(&since).map(|(built, same)| {
            let stage = same.is_none().then(|| built.shared.make(&make));
            Running::new(stage, built, counters.stage(&built.name))
        });
        let mut moves =
            Moves { readers: 0, active: 0, closed: 0, depth: 0, to: [0; MOST_STAGES], cut: false };
        if let Some(setup) = &self.streams {
            (moves.readers, moves.active, moves.closed) = (setup.readers, setup.active, setup.closed);
            moves.depth = setup.plan.depth;
        }
        for (n, (same, stage)) in since.iter().zip(&self.stages).enumerate().take(MOST_STAGES) {
            match same.and_then(|was| moves.to.get_mut(was)) {
                Some(to) => *to = 1 << n,
                None => moves.cut |= stage.on_reload == OnReload::Drop,
            }
        }
        Next {
            streams: match (&self.streams, &before.streams) {
                (Some(setup), None) => Some(Box::new(Streams::new(setup, &make))),
                _ => None,
            },
            stages: stages.collect(),
            since,
            moves,
            reads: self.streams.is_some(),
            reports,
            beside: self.candidate.as_ref().map(|it| Box::new(Beside::new(it, self, counters.worker))),
        }
    }
}

/// What became of the stages.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// Names that were not there.
    pub added: Vec<String>,
    /// Names whose settings, or files, are others now.
    pub changed: Vec<String>,
    /// The same stages in another order.
    pub moved: Vec<String>,
    /// Names that are not there any more.
    pub removed: Vec<String>,
    /// How many are as they were, with all that they know.
    pub kept: usize,
}

impl Differences {
    /// Nothing became of them.
    pub fn is_none(&self) -> bool {
        [&self.added, &self.changed, &self.moved, &self.removed].iter().all(|names| names.is_empty())
    }
}

/// What [`Inspect::change`] swaps in, and afterwards what was there.
pub(in crate::path) struct Next {
    stages: Vec<Running>,
    /// Where those that stay stood.
    since: Vec<Option<usize>>,
    /// If nobody read streams before.
    streams: Option<Box<Streams>>,
    moves: Moves,
    reads: bool,
    reports: Option<Reports>,
    beside: Option<Box<Beside>>,
}

impl Inspect {
    /// Swaps the next pipeline in. Stages that do not stay are told that no more will come; frames that waited for them leave
    /// ([`Streams::has_out`]).
    pub(in crate::path) fn change(&mut self, next: &mut Next, now: u64, counters: &WorkerCounters) {
        let Inspect { make, stages, streams, events, beside, .. } = self;
        for (place, running) in stages.iter_mut().enumerate() {
            match next.since.iter().position(|since| *since == Some(place)) {
                Some(to) => {
                    if let Some(to) = next.stages.get_mut(to) {
                        std::mem::swap(&mut to.stage, &mut running.stage);
                    }
                }
                None => running.call(now, make, events, |stage, cx| stage.stop(cx)),
            }
        }
        std::mem::swap(stages, &mut next.stages);
        if let Some(streams) = streams {
            streams.change(&next.moves, counters);
        }
        if next.streams.is_some() {
            std::mem::swap(streams, &mut next.streams);
        }
        events.report(&mut next.reports);
        std::mem::swap(beside, &mut next.beside);
    }

    /// The second step, when what was let go has been sent: streams that nobody reads any more go back.
    pub(in crate::path) fn part_with_streams(&mut self, next: &mut Next) {
        if !next.reads {
            std::mem::swap(&mut self.streams, &mut next.streams);
        }
    }
}

impl Drop for Next {
    /// A stage's last panic stays here.
    fn drop(&mut self) {
        for running in &mut self.stages {
            super::contained(|| running.stage = None);
        }
    }
}
