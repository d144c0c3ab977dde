//! The pipeline has changed: what a flow keeps of what stages said of it.
//!
//! Bits of a flow's mask are places in a pipeline. When a worker gets another pipeline, its generation turns over, and with it
//! what the mask of a settled flow is compared with: a flow of the generation before is no usual packet's any more, at no cost for all others. Its
//! next packet goes the long way (`track`), where the mask is refitted, once; those that have no packets are refitted by a sweep of bounded
//! steps. The pipeline before is given back when the sweep is through, so there are never more than two generations.
//!
//! | the stage | its bit | a flow that it has condemned |
//! |---|---|---|
//! | is as it was, wherever it stands now | stays | stays condemned |
//! | has changed, or is new: `redecide` | is cleared: the flow asks | is pardoned, and asks |
//! | the same: `keep` | is set: what was said holds, or nothing is asked | stays condemned |
//! | the same: `drop` | is cleared, and the flow is condemned | stays condemned |
//! | is gone | is gone | is pardoned |
//!
//! A stage that sent a flow home has set the bits of those behind it as well, which may never have seen the flow. So the entry says which stage
//! that was: if it stays, it speaks for whatever is behind it now; if not, all behind it are asked.

use super::engine::Flows;
use super::line::{Birth, Life};
use super::state;
use crate::packet::{DropReason, Meta, ReasonId};

/// Stages that a mask has bits for.
const STAGES: usize = u16::BITS as usize;
/// Entries that are looked at in one poll.
const MOST_REFITTED: u32 = 128;

/// What flows from before mean to a stage of the pipeline that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReload {
    /// What was said of them holds.
    Keep,
    /// They ask.
    Redecide,
    /// They are dropped.
    Drop,
}

/// A stage of the pipeline that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// It is the one that stood there before.
    Kept(usize),
    /// It has changed, and stood there before; or it is new.
    Changed(Option<usize>, OnReload),
}

/// Who condemns flows in the pipeline that goes.
#[derive(Clone, Debug, Default)]
pub struct Goes {
    /// Reasons of the stage, and those of the framework that it drops for.
    pub reasons: Vec<ReasonId>,
}

/// From the masks of one pipeline to those of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refit {
    /// Bit of each stage that stays, by where it stood.
    to: [u16; STAGES],
    /// For a stage that stays: its bit and those behind it.
    behind: [u16; STAGES],
    /// Bits of stages that do not ask flows from before.
    given: u16,
    /// Those of them that ask flows other than TCP all the same.
    datagrams: u16,
    /// Those of them that ask flows of which it is known what they speak all the same, and the reasons for which they dropped such flows, a bit each.
    named: u16,
    by_name: Box<[u64]>,
    /// Bits of stages that drop them.
    cut: u16,
    /// Bits of all stages.
    all: u16,
    /// Bits of those whose answer is given where connections from before are allowed.
    allowed: u16,
    /// Reasons for which flows are not dropped any more, a bit each.
    pardoned: Box<[u64]>,
    /// Stages that were not for a tenant, and stages that are not, by its number; empty where all are for everybody.
    foreign: [Box<[u16]>; 2],
    /// Of a tenant that gets a stage as it is: bits of stages that do not ask flows from before, and of those that drop them.
    arrives: [u16; 2],
    /// By reason: bits of the stages that come which drop for it.
    speakers: Box<[u16]>,
}

impl Refit {
    /// From a pipeline to the next one, stage by stage.
    pub fn new(goes: &[Goes], comes: &[Comes]) -> Self {
        let mut refit = Refit { all: below(comes.len()), ..Refit::default() };
        let mut stays = [false; STAGES];
        for (n, stage) in comes.iter().enumerate().take(STAGES) {
            let bit = 1 << n;
            let (was, keeps) = match *stage {
                Comes::Kept(was) => {
                    let places = (refit.to.get_mut(was), refit.behind.get_mut(was));
                    if let (Some(to), Some(behind)) = places {
                        (*to, *behind) = (bit, refit.all & !below(n));
                    }
                    (Some(was), true)
                }
                Comes::Changed(was, on_reload) => {
                    refit.given |= if on_reload == OnReload::Keep { bit } else { 0 };
                    refit.cut |= if on_reload == OnReload::Drop { bit } else { 0 };
                    (was, on_reload != OnReload::Redecide)
                }
            };
            if let Some(stays) = was.and_then(|was| stays.get_mut(was)) {
                *stays = keeps;
            }
        }
        let speaks = |reason: ReasonId| {
            goes.iter().zip(stays).any(|(stage, stays)| stays && stage.reasons.contains(&reason))
        };
        let reasons = || goes.iter().flat_map(|stage| &stage.reasons).copied();
        refit.pardoned = bits_of(reasons().filter(|reason| !speaks(*reason)));
        refit
    }

    /// The same, where so many of the stages that keep what was said decide by what a flow speaks, which its entry knows.
    pub fn asking_by_name(self, stages: u16, goes: &[Goes], comes: &[Comes]) -> Self {
        let named = self.given & stages;
        let were = comes.iter().enumerate().take(STAGES).filter_map(|(n, stage)| match stage {
            Comes::Changed(Some(was), _) if named >> n & 1 != 0 => goes.get(*was),
            _ => None,
        });
        let by_name = bits_of(were.flat_map(|stage| stage.reasons.iter().copied()));
        Refit { named, by_name, ..self }
    }

    /// The same, where so many of the stages that come have their answer given where connections from before are allowed.
    pub fn allowing(self, allowed: u16) -> Self {
        Refit { allowed, ..self }
    }

    /// The same, where so many of the stages that keep what was said of connections decide on each datagram by itself.
    pub fn asking_datagrams(self, stages: u16) -> Self {
        Refit { datagrams: self.given & stages, ..self }
    }

    /// The same, where not every stage was for everybody, or is: by tenant, those that were not, and those that are not. Of the stages that come:
    /// what flows from before mean to each, and the reasons for which it drops.
    pub fn between_tenants(self, foreign: [Box<[u16]>; 2], comes: &[(OnReload, &[ReasonId])]) -> Self {
        if foreign.iter().all(|tenants| tenants.is_empty()) {
            return self;
        }
        let bits = |what: OnReload| {
            let stages = comes.iter().enumerate().take(STAGES);
            stages.fold(0, |bits, (n, (on_reload, _))| bits | u16::from(*on_reload == what) << n)
        };
        let reasons = comes.iter().flat_map(|(_, reasons)| reasons.iter());
        let mut speakers = vec![0; reasons.map(|id| usize::from(id.0) + 1).max().unwrap_or(0)];
        for (n, (_, reasons)) in comes.iter().enumerate().take(STAGES) {
            for id in *reasons {
                if let Some(stages) = speakers.get_mut(usize::from(id.0)) {
                    *stages |= 1 << n;
                }
            }
        }
        let arrives = [bits(OnReload::Keep), bits(OnReload::Drop)];
        Refit { foreign, arrives, speakers: speakers.into(), ..self }
    }

    fn foreign(&self, tenant: u16) -> [u16; 2] {
        self.foreign.each_ref().map(|tenants| tenants.get(usize::from(tenant)).copied().unwrap_or(0))
    }

    /// Is a flow dropped for this reason let go? `foreign`: stages that are not for its tenant, whose word does not count any more.
    fn pardons(&self, reason: u16, foreign: u16, is_named: bool) -> bool {
        let has = |words: &[u64]| {
            words.get(usize::from(reason) / 64).is_some_and(|word| word >> (reason % 64) & 1 != 0)
        };
        let speakers = self.speakers.get(usize::from(reason)).copied().unwrap_or(0);
        speakers != 0 && speakers & !foreign == 0 || has(&self.pardoned) || is_named && has(&self.by_name)
    }

    /// The same flow under the next pipeline. `is_named`: it is known what it speaks. True if that condemns it.
    pub(super) fn refit(&self, life: Life, birth: Birth, is_named: bool) -> (Life, Birth, bool) {
        let condemned = life.has(Life::CONDEMNED);
        let is_tcp = state::tcp(life.state()).is_some();
        let asked = if is_tcp { 0 } else { self.datagrams } | if is_named { self.named } else { 0 };
        let (mut own, mut bits) = (life.settled(), self.given & !asked);
        let mut sent_home = None;
        if life.has(Life::FORWARDED) {
            // Who sent it home is not known of one that was condemned afterwards, so nothing is.
            let by = if condemned { 1 } else { birth.condemned };
            match by.checked_sub(1).map(usize::from) {
                None => (bits, sent_home) = (bits | self.allowed, Some(0)),
                Some(by) => {
                    own &= below(by);
                    let behind = self.behind.get(by).copied().filter(|_| !condemned).unwrap_or(0);
                    if behind != 0 {
                        (bits, sent_home) = (bits | behind, Some(behind.trailing_zeros() as u16 + 1));
                    }
                }
            }
        }
        let [was_foreign, is_foreign] = self.foreign(birth.tenant);
        // Stages that were not for its tenant said nothing: those that are now are asked, or not, as if they had come.
        let (mut arrived, mut cut) = (0, self.cut);
        for (n, to) in self.to.iter().enumerate() {
            match own >> n & 1 != 0 {
                _ if was_foreign >> n & 1 != 0 => arrived |= to & !is_foreign,
                true => bits |= to,
                false => {}
            }
        }
        let [keep, drop] = self.arrives;
        cut |= arrived & drop;
        bits |= arrived & keep | is_foreign;
        let mut life = life.without(Life::FORWARDED | Life::GENERATION).unsettled().settle(bits);
        let mut birth = birth;
        if condemned {
            if birth.condemned.checked_sub(1).is_none_or(|reason| self.pardons(reason, is_foreign, is_named))
            {
                life = life.without(Life::CONDEMNED | Life::REJECTED);
                birth.condemned = 0;
            } else {
                return (life, birth, false);
            }
        }
        if cut & !bits != 0 {
            birth.condemned = ReasonId::from(DropReason::OnReload).0 + 1;
            return (life.with(Life::CONDEMNED), birth, true);
        }
        if let Some(by) = sent_home {
            life = life.with(Life::FORWARDED);
            birth.condemned = by;
        }
        (life, birth, false)
    }
}

/// A bit for each of these reasons.
fn bits_of(reasons: impl Iterator<Item = ReasonId>) -> Box<[u64]> {
    let mut words = Vec::new();
    for reason in reasons {
        let word = usize::from(reason.0) / 64;
        words.resize(words.len().max(word + 1), 0u64);
        if let Some(word) = words.get_mut(word) {
            *word |= 1 << (reason.0 % 64);
        }
    }
    words.into()
}

/// The bits of the first `n` stages.
fn below(n: usize) -> u16 {
    u16::MAX.checked_shr(u16::BITS.saturating_sub(n as u32)).unwrap_or(0)
}

/// How far a worker is with a change.
#[derive(Debug, Default)]
pub(super) struct Refitting {
    by: Option<Box<Refit>>,
    hand: u32,
}

impl Flows {
    /// Another pipeline is in force from now on. The change before must be through ([`Self::refit_some`]).
    pub(crate) fn begin_refit(&mut self, by: Box<Refit>) {
        self.generation ^= Life::GENERATION;
        self.refitting = Refitting { by: Some(by), hand: 0 };
    }

    /// The flow in this entry as the pipeline in force has it. True if that condemned it just now.
    #[inline(always)]
    pub(crate) fn refit(&self, number: u32) -> bool {
        let stale = |life: Life| (life.flags() ^ self.generation) & Life::GENERATION != 0;
        self.entry(number).is_some_and(|entry| stale(entry.life())) && self.refit_now(number)
    }

    #[cold]
    fn refit_now(&self, number: u32) -> bool {
        let (Some(by), Some(entry)) = (&self.refitting.by, self.entry(number)) else { return false };
        let (life, birth, condemned) = by.refit(entry.life(), entry.birth(), entry.spoken().app().is_some());
        entry.set_birth(birth);
        entry.set_life(life.with(self.generation));
        condemned
    }

    /// What [`Refit::refit`] would make of a packet's flow: its settled stages, and whether it would be condemned. Nothing changes.
    pub(crate) fn refitted(&self, by: &Refit, meta: &Meta) -> (u16, bool) {
        let entry = meta.flow.entry().and_then(|number| self.entry(number));
        entry.map_or((0, false), |entry| {
            let (life, _, condemned) = by.refit(entry.life(), entry.birth(), entry.spoken().app().is_some());
            (life.settled(), condemned)
        })
    }

    /// Are there flows of the generation before?
    pub(crate) fn is_refitting(&self) -> bool {
        self.refitting.by.is_some()
    }

    /// A bounded number of flows; the refit comes back when no flow is left of the generation before.
    pub(crate) fn refit_some(&mut self) -> Option<Box<Refit>> {
        self.refitting.by.as_ref()?;
        let reach = self.table().reach();
        let until = self.refitting.hand.saturating_add(MOST_REFITTED).min(reach);
        for number in self.refitting.hand..until {
            if self.entry(number).is_some_and(|entry| entry.is_used()) {
                self.refit(number);
            }
        }
        self.refitting.hand = until;
        if until < reach { None } else { self.refitting.by.take() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const BY_TRACK: u16 = 0;

    fn goes(reasons: &[&[u16]]) -> Vec<Goes> {
        let stage = |ids: &&[u16]| Goes { reasons: ids.iter().map(|id| ReasonId(*id)).collect() };
        reasons.iter().map(stage).collect()
    }

    /// A stage that keeps what was said, and knows by its name what a flow may: asked of flows whose name is known, and not of others.
    #[test]
    fn flows_with_a_name_are_asked_by_it() {
        let (goes, comes) = (goes(&[&[5], &[6]]), [Comes::Changed(Some(0), OnReload::Keep), Comes::Kept(1)]);
        let refit = Refit::new(&goes, &comes).asking_by_name(0b11, &goes, &comes);
        let after = |reason: Option<u16>, named| {
            let flags = if reason.is_some() { Life::CONDEMNED } else { 0 };
            let birth = Birth { created: 1, condemned: reason.map_or(0, |id| id + 1), tenant: 0 };
            let (life, ..) = refit.refit(Life::new(7, 33, flags).settle(0b11), birth, named);
            (life.has(Life::CONDEMNED), life.settled())
        };
        assert_eq!((after(None, false), after(None, true)), ((false, 0b11), (false, 0b10)));
        assert_eq!(
            (after(Some(5), false).0, after(Some(5), true)),
            (true, (false, 0b10)),
            "denied by its name"
        );
        assert_eq!((after(Some(6), false).0, after(Some(6), true).0), (true, true), "another stage's word");
    }

    /// Settled stages and who sent it home, before and after.
    fn refitted(refit: &Refit, settled: u16, by: Option<u16>) -> (u16, Option<u16>) {
        let flags = if by.is_some() { Life::FORWARDED } else { 0 };
        let life = Life::new(7, 33, flags | Life::FROM_HIGH).settle(settled);
        let birth = Birth { created: 1, condemned: by.unwrap_or(0), tenant: 3 };
        let (life, birth, condemned) = refit.refit(life, birth, false);
        assert_eq!((life.seen(), life.state(), life.has(Life::FROM_HIGH)), (7, 33, true));
        assert_eq!((birth.created, birth.tenant, condemned), (1, 3, false));
        (life.settled(), life.has(Life::FORWARDED).then_some(birth.condemned))
    }

    /// The reason for which a flow is dropped, before and after.
    fn judged(refit: &Refit, reason: Option<u16>, flags: u8) -> (Option<u16>, u16) {
        let flags = flags | if reason.is_some() { Life::CONDEMNED | Life::REJECTED } else { 0 };
        let birth = Birth { created: 1, condemned: reason.map_or(0, |id| id + 1), tenant: 3 };
        let (life, birth, new) = refit.refit(Life::new(7, 33, flags).settle(0b11), birth, false);
        assert_eq!(new, reason.is_none() && life.has(Life::CONDEMNED));
        let after = life.has(Life::CONDEMNED).then(|| birth.condemned - 1);
        assert_eq!(life.has(Life::REJECTED), after.is_some() && reason.is_some());
        (after, life.settled())
    }

    use Comes::{Changed, Kept};
    use OnReload::{Drop, Keep, Redecide};

    #[test]
    fn stages_that_stay_take_their_bits_along() {
        let same = Refit::new(&goes(&[&[], &[], &[]]), &[Kept(0), Kept(1), Kept(2)]);
        let turned = Refit::new(&goes(&[&[], &[], &[]]), &[Kept(2), Kept(0), Kept(1)]);
        for settled in 0..8 {
            assert_eq!(refitted(&same, settled, None), (settled, None));
            let moved = settled << 1 & 0b110 | settled >> 2;
            assert_eq!(refitted(&turned, settled, None), (moved, None), "{settled:b}");
        }
        let wide: Vec<Comes> = (0..16).rev().map(Kept).collect();
        let wide = Refit::new(&vec![Goes::default(); 16], &wide);
        assert_eq!(refitted(&wide, 0b1000_0000_0000_0110, None), (0b0110_0000_0000_0001, None));
    }

    #[test]
    fn stages_that_changed_are_asked_or_not_as_they_say() {
        let to = |on_reload| Refit::new(&goes(&[&[], &[]]), &[Kept(0), Changed(Some(1), on_reload)]);
        assert_eq!(refitted(&to(Redecide), 0b11, None), (0b01, None));
        assert_eq!(refitted(&to(Keep), 0b00, None), (0b10, None));
        // In front of what was there, and instead of it.
        let new = Refit::new(&goes(&[&[], &[]]), &[Changed(None, Redecide), Kept(1), Changed(None, Keep)]);
        assert_eq!(refitted(&new, 0b11, None), (0b110, None));
        assert_eq!(refitted(&Refit::new(&goes(&[&[], &[]]), &[]), 0b11, None), (0, None));
    }

    #[test]
    fn what_is_decided_by_datagrams_is_asked_of_all_but_tcp() {
        let refit = Refit::new(&goes(&[&[], &[]]), &[Changed(Some(0), Keep), Changed(Some(1), Keep)]);
        assert_eq!(refitted(&refit, 0b11, None), (0b11, None));
        let refit = refit.asking_datagrams(0b01);
        assert_eq!(refitted(&refit, 0b11, None), (0b10, None), "a flow of datagrams");
        let birth = Birth { created: 1, condemned: 0, tenant: 3 };
        let (life, ..) = refit.refit(Life::new(7, 3, 0), birth, false);
        assert_eq!(life.settled(), 0b11, "TCP");
    }

    #[test]
    fn whoever_sent_a_flow_home_speaks_for_what_is_behind_him_and_nobody_else_does() {
        // Stage 1 sent it home: what stands of stage 2 and 3 is his.
        let same = Refit::new(&goes(&[&[], &[], &[], &[]]), &[Kept(0), Kept(1), Kept(2), Kept(3)]);
        assert_eq!(refitted(&same, 0b1111, Some(2)), (0b1111, Some(2)));
        assert_eq!(refitted(&same, 0b1110, Some(2)), (0b1110, Some(2)));
        let gone = Refit::new(&goes(&[&[], &[], &[], &[]]), &[Kept(0), Kept(2), Kept(3)]);
        assert_eq!(refitted(&gone, 0b1111, Some(2)), (0b001, None), "they never saw it");
        let changed = Refit::new(
            &goes(&[&[], &[], &[], &[]]),
            &[Kept(0), Changed(Some(1), Redecide), Kept(2), Kept(3)],
        );
        assert_eq!(refitted(&changed, 0b1111, Some(2)), (0b0001, None));
        // Behind him is whatever is behind him now, and what is not any more is asked.
        let moved =
            Refit::new(&goes(&[&[], &[], &[], &[]]), &[Kept(3), Kept(1), Changed(None, Redecide), Kept(0)]);
        assert_eq!(refitted(&moved, 0b1110, Some(2)), (0b1110, Some(2)));
        assert_eq!(refitted(&moved, 0b1111, Some(2)), (0b1110, Some(2)), "stage 3 never saw it");
        // What was allowed without a question is allowed again.
        let allowed = changed.clone().allowing(0b0010);
        assert_eq!(refitted(&allowed, 0b1011, Some(BY_TRACK)), (0b1011, Some(BY_TRACK)));
        assert_eq!(refitted(&changed, 0b1011, Some(BY_TRACK)), (0b1001, Some(BY_TRACK)));
    }

    #[test]
    fn condemned_flows_are_pardoned_by_the_end_of_who_condemned_them() {
        let pipeline = goes(&[&[70, 71], &[80, 36], &[36]]);
        let same = Refit::new(&pipeline, &[Kept(0), Kept(1), Kept(2)]);
        for reason in [70, 71, 80, 36, 0] {
            assert_eq!(judged(&same, Some(reason), 0), (Some(reason), 0b11));
        }
        for on_reload in [Keep, Drop] {
            let kept = Refit::new(&pipeline, &[Changed(Some(0), on_reload), Kept(1)]);
            assert_eq!(judged(&kept, Some(70), 0).0, Some(70));
        }
        let changed = Refit::new(&pipeline, &[Changed(Some(0), Redecide), Kept(1)]);
        assert_eq!(judged(&changed, Some(70), 0), (None, 0b10));
        assert_eq!(judged(&changed, Some(80), 0), (Some(80), 0b10));
        assert_eq!(judged(&changed, Some(36), 0).0, Some(36), "one who drops for it is still there");
        let gone = Refit::new(&pipeline, &[Kept(0)]);
        assert_eq!((judged(&gone, Some(80), 0).0, judged(&gone, Some(36), 0).0), (None, None));
        // Who sent it home before is not known any more: all that might have are asked.
        assert_eq!(judged(&gone, Some(80), Life::FORWARDED), (None, 0));
        assert_eq!(judged(&same, Some(80), Life::FORWARDED), (Some(80), 0));
    }

    #[test]
    fn a_stage_that_drops_what_it_cannot_judge_leaves_what_it_would_not_have_seen() {
        let on_reload = ReasonId::from(DropReason::OnReload).0;
        let refit = Refit::new(&goes(&[&[70], &[80]]), &[Kept(0), Changed(Some(1), Drop)]);
        assert_eq!(judged(&refit, None, 0).0, Some(on_reload));
        assert_eq!(refitted(&refit, 0b11, Some(1)), (0b11, Some(1)), "sent home in front of it");
        assert_eq!(judged(&refit, Some(on_reload), 0).0, Some(on_reload), "and the next time");
    }
}
