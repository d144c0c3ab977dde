//! Another plan for an application at work.
//!
//! ```text
//!  manage() ──load──> thread "plans": reads, checks, builds ──plan and pipeline──> manage(): in force
//!  manage() ──for each worker──> thread: makes its change ──> manage(): posts it, takes back what was ──> thread: drops it
//! ```
//!
//! The loop waits for nothing. Everything slow (rule sets, memory for what stages keep of flows, and giving it back) is done by one ordinary thread,
//! away from the workers' CPUs. A plan is in force when it is built; each worker comes to it by itself. One that hangs keeps what it has, is
//! named after [`PATIENCE`], and gets the plan that is in force then when it lives again.

mod reloaded;
mod prepare;
mod shadow;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

use prepare::{Source, prepare, refused, shadow as prepare_shadow};
pub use reloaded::Reloaded;
use shadow::Loaded;
pub(crate) use shadow::Totals;
pub use shadow::{Judged, ShadowStatus};

use crate::config::reload::Changed;
use crate::config::{Plan, Problem};
use crate::dpdk::{self, Mempool};
use crate::path::{Candidate, Change, Clock, Differences, MailEnd, Pipeline, WorkerCounters};
use crate::stage::Backend;

/// How long a worker may take before it is named.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads and checks the next plan.
pub type Load = Box<dyn FnOnce() -> Result<Plan, Vec<Problem>> + Send>;

/// What the thread is asked for.
enum Job {
    Load {
        source: Source,
        is_shadow: bool,
        plan: Arc<Plan>,
        pipeline: Arc<Pipeline>,
        most_reasons: usize,
    },
    Make {
        worker: usize,
        from: Arc<Pipeline>,
        to: Arc<Pipeline>,
        plan: Arc<Plan>,
        counters: Arc<WorkerCounters>,
    },
    Drop(Box<Change>),
    Forget(Arc<Pipeline>),
}

/// What it has done.
enum Said {
    Refused { problems: Vec<String>, restart: Vec<Changed> },
    Unchanged,
    Ready { plan: Arc<Plan>, pipeline: Box<Pipeline>, stages: Differences, changed: Vec<Changed> },
    Shadowed { candidate: Arc<Candidate>, bytes: u64, stages: Differences, not_judged: Vec<Changed> },
    Made { worker: usize, change: Box<Change>, to: Arc<Pipeline> },
}

/// One worker on its way from plan to plan.
struct Post {
    counters: Arc<WorkerCounters>,
    mail: MailEnd,
    /// What it has.
    has: Arc<Pipeline>,
    on_its_way: OnItsWay,
}

enum OnItsWay {
    Nothing,
    /// The thread is at it.
    Making,
    /// The worker has not given back what it had before this.
    Sent(Arc<Pipeline>),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Another plan.
    Reload,
    /// A candidate beside the plan.
    Shadow,
    /// The candidate as the plan.
    Promote,
    /// No candidate any more.
    Cancel,
}

impl What {
    /// The word in records.
    pub fn word(self) -> &'static str {
        match self {
            What::Reload => "reload",
            What::Shadow => "shadow",
            What::Promote => "promote",
            What::Cancel => "cancel",
        }
    }
}

/// A reload that is not through.
struct UnderWay {
    what: What,
    began: Instant,
    /// Who asked.
    by: String,
    /// The policy that was in force then.
    policy: String,
    /// The stages in force are to be without a candidate, as a first step or as the only one.
    parts: bool,
    /// What is to be put in force when they are.
    then: Option<Arc<Plan>>,
    /// Once it is in force, and all that is left is that workers take it.
    done: Option<Reloaded>,
}

impl UnderWay {
    fn new(what: What, by: String, plan: &Plan) -> Self {
        let (began, policy) = (Instant::now(), plan.policy.clone());
        UnderWay { what, began, by, policy, parts: false, then: None, done: None }
    }
}

/// Reloads of an application.
pub(super) struct Reloads {
    jobs: Option<Sender<Job>>,
    said: Receiver<Said>,
    thread: Option<JoinHandle<()>>,
    posts: Vec<Post>,
    under_way: Option<UnderWay>,
    /// Pipelines that some worker may still have.
    leaving: Vec<Arc<Pipeline>>,
    /// What stages that changed had counted, by stage and label.
    carried: BTreeMap<String, BTreeMap<String, u64>>,
    /// Why the newest plan could not be loaded.
    failed: Option<String>,
    counts: Counts,
    /// Of the last one that is over, until it is taken.
    told: Option<Told>,
    /// The candidate.
    loaded: Option<Loaded>,
    /// What candidates came to that are gone.
    judged: Totals,
}

/// What a record says of a reload beside what became of it.
#[derive(Debug)]
pub(super) struct Told {
    /// What was asked for.
    pub what: What,
    /// Who asked.
    pub by: String,
    /// The policy before.
    pub policy: String,
    /// From the request on.
    pub took: Duration,
}

/// How reloads ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub done: u64,
    pub unchanged: u64,
    pub refused: u64,
    /// Workers that have not got the plan in force.
    pub behind: u64,
    /// How long the last one took.
    pub took: Duration,
}

/// A plan that has been built, to be put in force.
pub(super) struct InForce {
    pub plan: Arc<Plan>,
    pub pipeline: Arc<Pipeline>,
}

impl std::fmt::Debug for Reloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloads").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Reloads {
    /// For these workers, all of which have `pipeline`. Nothing is started before the first reload.
    pub fn new(posts: Vec<(Arc<WorkerCounters>, MailEnd)>, pipeline: &Arc<Pipeline>) -> Self {
        let post =
            |(counters, mail)| Post { counters, mail, has: pipeline.clone(), on_its_way: OnItsWay::Nothing };
        Reloads {
            jobs: None,
            said: crossbeam::channel::never(),
            thread: None,
            posts: posts.into_iter().map(post).collect(),
            under_way: None,
            leaving: Vec::new(),
            carried: BTreeMap::new(),
            failed: None,
            counts: Counts::default(),
            told: None,
            loaded: None,
            judged: Totals::default(),
        }
    }

    /// Begins to load a plan, or a candidate beside it, for somebody. An error in one sentence if there is something under way.
    pub fn begin(
        &mut self,
        (what, load, by): (What, Load, String),
        plan: &Arc<Plan>,
        pipeline: &Arc<Pipeline>,
        (backend, pool, cpus): (Backend, &Mempool, &[u32]),
    ) -> Result<(), String> {
        self.is_free()?;
        if self.thread.is_none() {
            let ((jobs, todo), (say, said)) = (unbounded(), unbounded());
            let (pool, cpus) = (pool.clone(), cpus.to_vec());
            let work = move || {
                dpdk::run_on(&cpus);
                todo.iter().for_each(|job| work(job, backend, &pool, &say));
            };
            let thread = std::thread::Builder::new().name("plans".into()).spawn(work);
            self.thread =
                Some(thread.map_err(|error| format!("no thread: {error}; raise the limit of processes"))?);
            (self.jobs, self.said) = (Some(jobs), said);
        }
        self.under_way = Some(UnderWay::new(what, by, plan));
        self.load(Source::File(load), what == What::Shadow, plan, pipeline);
        Ok(())
    }

    /// Begins to put the candidate in force, or to let it go.
    pub fn end_shadow(&mut self, what: What, by: String, plan: &Arc<Plan>) -> Result<(), String> {
        self.is_free()?;
        let loaded = self.loaded.as_ref().ok_or("no candidate is loaded")?;
        let then = (what == What::Promote).then(|| loaded.candidate.plan().clone());
        self.under_way = Some(UnderWay { parts: true, then, ..UnderWay::new(what, by, plan) });
        Ok(())
    }

    fn is_free(&self) -> Result<(), String> {
        if self.under_way.is_some() { Err("a reload is under way".into()) } else { Ok(()) }
    }

    fn load(&self, source: Source, is_shadow: bool, plan: &Arc<Plan>, pipeline: &Arc<Pipeline>) {
        let most_reasons =
            self.posts.iter().map(|post| post.counters.most_reasons()).min().unwrap_or(usize::MAX);
        let (plan, pipeline) = (plan.clone(), pipeline.clone());
        self.ask(Job::Load { source, is_shadow, plan, pipeline, most_reasons });
    }

    fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job); // it lives as long as its channel
        }
    }

    /// One round: what the thread and the workers have done. Says what is to be in force from now on, if it is something else, and what became of a
    /// reload that is over. `place` says where a worker is.
    pub fn round(
        &mut self,
        pipeline: &Arc<Pipeline>,
        plan: &Arc<Plan>,
        place: impl Fn(&WorkerCounters) -> String,
    ) -> (Option<InForce>, Option<Reloaded>) {
        if self.thread.is_none() {
            return (None, None);
        }
        let mut in_force = None;
        let mut outcome = None;
        while let Ok(said) = self.said.try_recv() {
            match said {
                Said::Refused { problems, restart } => {
                    let first = problems.first().cloned();
                    let first = first.or_else(|| Some(format!("{} needs a restart", restart.first()?)));
                    // The policy in force is what was wanted, whatever becomes of a candidate.
                    if self.is_of_the_plan() {
                        self.failed = first;
                        self.counts.refused += 1;
                    }
                    self.end();
                    outcome = Some(Reloaded::Refused { problems, restart });
                }
                Said::Unchanged => {
                    self.failed = None;
                    self.counts.unchanged += 1;
                    self.end();
                    outcome = Some(Reloaded::Unchanged);
                }
                Said::Ready { plan, pipeline: next, stages, changed } => {
                    if let Some(under_way) = &mut self.under_way {
                        let (warnings, behind) = (plan.warnings.clone(), Vec::new());
                        let done = Reloaded::Done { stages, changed, warnings, took_ms: 0, behind };
                        under_way.done = Some(done);
                    }
                    self.part();
                    self.leaving.push(pipeline.clone());
                    in_force = Some(InForce { plan, pipeline: Arc::from(next) });
                }
                Said::Shadowed { candidate, bytes, stages, not_judged } => {
                    self.part();
                    let next = Arc::new(pipeline.beside(Some(candidate.clone())));
                    if let Some(under_way) = &mut self.under_way {
                        under_way.done = Some(Reloaded::Shadowed {
                            policy: candidate.plan().policy.clone(),
                            stages,
                            not_judged,
                            warnings: candidate.plan().warnings.clone(),
                            bytes,
                            took_ms: 0,
                            behind: Vec::new(),
                        });
                    }
                    self.loaded = Some(Loaded::new(candidate, bytes));
                    self.leaving.push(pipeline.clone());
                    in_force = Some(InForce { plan: plan.clone(), pipeline: next });
                }
                Said::Made { worker, change, to } => {
                    if let Some(post) = self.posts.get_mut(worker) {
                        post.on_its_way = OnItsWay::Sent(to);
                        // There is room: what was there before has come back.
                        if let Err(change) = post.mail.send(change) {
                            self.ask(Job::Drop(change));
                        }
                    }
                }
            }
        }
        if let Some(under_way) = self.under_way.as_mut().filter(|under_way| under_way.parts) {
            under_way.parts = false;
            under_way.done = Some(Reloaded::Cancelled { took_ms: 0, behind: Vec::new() });
            self.part();
            self.leaving.push(pipeline.clone());
            in_force = Some(InForce { plan: plan.clone(), pipeline: Arc::new(pipeline.beside(None)) });
        }
        let (plan, pipeline) = in_force.as_ref().map_or((plan, pipeline), |new| (&new.plan, &new.pipeline));
        self.bring(plan, pipeline);
        self.forget(pipeline);
        let outcome = outcome.or_else(|| self.look(plan, pipeline, place));
        (in_force, outcome)
    }

    /// Takes back what workers had, and sends those on that have something else than what is in force.
    fn bring(&mut self, plan: &Arc<Plan>, pipeline: &Arc<Pipeline>) {
        let mut jobs = Vec::new();
        for (worker, post) in self.posts.iter_mut().enumerate() {
            if let Some(change) = post.mail.take_back() {
                jobs.push(Job::Drop(change));
                if let OnItsWay::Sent(to) = std::mem::replace(&mut post.on_its_way, OnItsWay::Nothing) {
                    post.has = to;
                }
            }
            if matches!(post.on_its_way, OnItsWay::Nothing) && !Arc::ptr_eq(&post.has, pipeline) {
                post.on_its_way = OnItsWay::Making;
                jobs.push(Job::Make {
                    worker,
                    from: post.has.clone(),
                    to: pipeline.clone(),
                    plan: plan.clone(),
                    counters: post.counters.clone(),
                });
            }
        }
        self.counts.behind =
            self.posts.iter().filter(|post| !Arc::ptr_eq(&post.has, pipeline)).count() as u64;
        jobs.into_iter().for_each(|job| self.ask(job));
    }

    /// Pipelines that no worker has any more: what their stages have counted stays, if a stage of that name goes on.
    fn forget(&mut self, pipeline: &Arc<Pipeline>) {
        let had = |old: &Arc<Pipeline>| {
            self.posts.iter().any(|post| {
                let sent = match &post.on_its_way {
                    OnItsWay::Sent(to) => Arc::ptr_eq(to, old),
                    OnItsWay::Making => true,
                    OnItsWay::Nothing => false,
                };
                sent || Arc::ptr_eq(&post.has, old)
            })
        };
        let gone: Vec<Arc<Pipeline>> = self.leaving.extract_if(.., |old| !had(old)).collect();
        let mut gone = gone.into_iter();
        while let Some(old) = gone.next() {
            for (name, shared) in old.changed_since(pipeline) {
                // A stage that outlived a reload is in several pipelines: the last of them to go leaves its counts.
                let stays = |other: &Arc<Pipeline>| is_same(other.shared(name), old.shared(name));
                if gone.as_slice().iter().chain(&self.leaving).any(stays) {
                    continue;
                }
                let Some(now) = pipeline.stages().find(|(other, _)| *other == name) else {
                    self.carried.remove(name);
                    continue;
                };
                let labels: BTreeMap<String, u64> = now.1.counts().into_iter().collect();
                let carried = self.carried.entry(name.to_owned()).or_default();
                for (label, n) in shared.counts() {
                    *carried.entry(label).or_default() += n;
                }
                carried.retain(|label, n| *n > 0 && labels.contains_key(label));
            }
            self.ask(Job::Forget(old));
        }
    }

    /// Is it over?
    fn look(
        &mut self,
        plan: &Arc<Plan>,
        pipeline: &Arc<Pipeline>,
        place: impl Fn(&WorkerCounters) -> String,
    ) -> Option<Reloaded> {
        let under_way = self.under_way.as_ref()?;
        under_way.done.as_ref()?;
        let late = || self.posts.iter().filter(|post| !Arc::ptr_eq(&post.has, pipeline));
        let took = under_way.began.elapsed();
        if late().next().is_some() && took < PATIENCE {
            return None;
        }
        let say = |post: &Post| {
            let counters = &post.counters;
            format!("worker {} has not taken it yet: it is in {}", counters.worker.0, place(counters))
        };
        let behind = late().map(say).collect();
        if under_way.then.is_some() {
            // What the candidate took is free before the same is built as the pipeline; a worker that hangs is not waited for.
            if !self.leaving.is_empty() && took < PATIENCE {
                return None;
            }
            let under_way = self.under_way.as_mut()?;
            under_way.done = None;
            let judged = under_way.then.take()?;
            self.load(Source::Judged(judged), false, plan, pipeline);
            return None;
        }
        if self.is_of_the_plan() {
            self.failed = None;
            self.counts.done += 1;
        }
        Some(self.end()?.done?.after(took, behind))
    }

    /// The one under way is over.
    fn end(&mut self) -> Option<UnderWay> {
        let is_of_the_plan = self.is_of_the_plan();
        let over = self.under_way.take()?;
        let took = over.began.elapsed();
        if is_of_the_plan {
            self.counts.took = took;
        }
        self.told = Some(Told { what: over.what, by: over.by.clone(), policy: over.policy.clone(), took });
        Some(over)
    }

    /// Is what is under way about the plan in force, rather than a candidate?
    fn is_of_the_plan(&self) -> bool {
        let what = self.under_way.as_ref().map(|under_way| under_way.what);
        matches!(what, Some(What::Reload | What::Promote))
    }

    /// The candidate is gone; what it came to goes into the sums.
    fn part(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            self.judged.add(&loaded.totals());
        }
    }

    /// What candidates came to since the start.
    pub fn judged(&self) -> Totals {
        let mut all = self.judged;
        if let Some(loaded) = &self.loaded {
            all.add(&loaded.totals());
            all.loaded = true;
        }
        all
    }

    /// What the candidate has come to.
    pub fn shadow(&self, behind: impl Fn(&WorkerCounters) -> String) -> Option<ShadowStatus> {
        let loaded = self.loaded.as_ref()?;
        let has = |post: &&Post| post.has.candidate().is_none_or(|it| !Arc::ptr_eq(it, &loaded.candidate));
        let behind = self.posts.iter().filter(has).map(|post| behind(&post.counters)).collect();
        Some(loaded.status(behind))
    }

    /// Differences that workers have given as examples since the last call, as records.
    pub fn examples(&mut self, running: &Pipeline, clock: &Clock) -> Vec<serde_json::Value> {
        self.loaded.as_mut().map(|loaded| loaded.examples(running, clock)).unwrap_or_default()
    }

    /// Of the last one that is over, once.
    pub fn told(&mut self) -> Option<Told> {
        self.told.take()
    }

    /// Why the newest plan could not be loaded.
    pub fn failed(&self) -> Option<String> {
        self.failed.clone()
    }

    /// How reloads ended.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What each stage has counted, with what it had counted before it changed.
    pub fn stage_counts(&self, pipeline: &Pipeline) -> Vec<Vec<(String, u64)>> {
        let before = |name: &str, label: &str, shared: &Arc<dyn crate::stage::Shared>| {
            let carried = self.carried.get(name).and_then(|labels| labels.get(label)).copied().unwrap_or(0);
            // Each once, in however many pipelines it is.
            let mut leaving: Vec<&Arc<dyn crate::stage::Shared>> = Vec::new();
            for old in self.leaving.iter().filter_map(|old| old.shared(name)) {
                if ![shared].into_iter().chain(leaving.iter().copied()).any(|other| Arc::ptr_eq(old, other)) {
                    leaving.push(old);
                }
            }
            let leaving =
                leaving.into_iter().flat_map(|old| old.counts()).filter(|(other, _)| other == label);
            carried + leaving.map(|(_, n)| n).sum::<u64>()
        };
        let is_simple = self.carried.is_empty() && self.leaving.is_empty();
        let counts = |(name, shared): (&str, &dyn crate::stage::Shared)| {
            let mut counts = shared.counts();
            if !is_simple && let Some(shared) = pipeline.shared(name) {
                counts.iter_mut().for_each(|(label, n)| *n += before(name, label, shared));
            }
            counts
        };
        pipeline.stages().map(counts).collect()
    }
}

impl Drop for Reloads {
    /// The thread may have what lives on the EAL: it goes first.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // what it was building is nobody's
        }
    }
}

/// Are both there, and one stage?
fn is_same(
    one: Option<&Arc<dyn crate::stage::Shared>>,
    other: Option<&Arc<dyn crate::stage::Shared>>,
) -> bool {
    one.zip(other).is_some_and(|(one, other)| Arc::ptr_eq(one, other))
}

/// One job, on the thread.
fn work(job: Job, backend: Backend, pool: &Mempool, say: &Sender<Said>) {
    let said = match job {
        Job::Load { source, is_shadow, plan, pipeline, most_reasons } => {
            let tried = catch_unwind(AssertUnwindSafe(|| match is_shadow {
                true => prepare_shadow(source, &plan, &pipeline, backend, most_reasons),
                false => prepare(source, &plan, &pipeline, backend, most_reasons),
            }));
            tried.unwrap_or_else(|_| refused("a stage panicked while it was read or built"))
        }
        Job::Make { worker, from, to, plan, counters } => {
            let change = Box::new(Change::new(&from, &to, &plan, pool, &counters));
            Said::Made { worker, change, to }
        }
        Job::Drop(change) => return drop(change),
        Job::Forget(pipeline) => return drop(pipeline),
    };
    let _ = say.send(said); // nobody is there any more
}
