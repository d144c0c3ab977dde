//! A worker's way to the others: its ends of the hand-off rings, when they are too full to go on, and how everybody stops.
//!
//! A ring that has no room for another burst holds up receiving, so that frames wait in the driver's queue and not here. But one
//! worker that hangs must not stop the others for ever: after [`PATIENCE`] they go on, and what it would have got is dropped and
//! counted (`handoff_full`), until its ring has room again. Nobody who waits stops taking from his own rings, so two cannot wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::flow::handoff::{self, Ends, Parcel};
use crate::packet::Batch;
use crate::stage::WorkerId;

/// How long a full ring holds up receiving, in nanoseconds.
const PATIENCE: u64 = 10_000_000;
/// The most of it that passes between two looks. More is time for which this worker was away itself, and with it, where a hypervisor
/// took the CPUs or somebody stopped the process, the peer: that says nothing about a peer that hangs.
const LONGEST_STEP: u64 = PATIENCE / 10;

/// What all ends of one mesh share.
#[derive(Debug)]
struct Common {
    /// Ports of each worker, a bit each.
    ports: Box<[u64]>,
    /// Workers that may still give something away.
    giving: AtomicUsize,
}

/// One worker's way to the others.
#[derive(Debug)]
pub struct Mesh {
    ends: Ends,
    common: Arc<Common>,
    peers: Box<[WorkerId]>,
    burst: usize,
    /// Room that each peer's ring has at least: to look at what the peer has taken costs a line that it writes.
    known: Box<[usize]>,
    /// Peers whose rings had no room for another burst when they were last given something.
    crowded: Vec<WorkerId>,
    /// How long receiving has been held up, and when that was last looked at.
    waited: u64,
    looked: Option<u64>,
}

impl Mesh {
    /// The ways between workers, in the order of their numbers; `ports` has for each worker the numbers of the ports on which it has a
    /// queue. None for a single worker.
    pub fn between(ports: &[Vec<u16>], depth: usize, burst: usize) -> Vec<Mesh> {
        if ports.len() < 2 {
            return Vec::new();
        }
        let bits = |ports: &Vec<u16>| {
            ports.iter().fold(0, |bits, &port| bits | 1u64.checked_shl(port.into()).unwrap_or(0))
        };
        // A worker without a queue does not run.
        let giving = ports.iter().filter(|ports| !ports.is_empty()).count();
        let common =
            Arc::new(Common { ports: ports.iter().map(bits).collect(), giving: AtomicUsize::new(giving) });
        // Two bursts at least: one that is on its way, and room for the next.
        let ends = handoff::mesh(ports.len(), depth.max(2 * burst));
        ends.into_iter()
            .map(|ends| Mesh {
                peers: ends.peers().collect(),
                known: vec![0; ports.len()].into(),
                crowded: Vec::with_capacity(ports.len()),
                ends,
                common: common.clone(),
                burst,
                waited: 0,
                looked: None,
            })
            .collect()
    }

    /// Can that worker send on this port?
    #[inline(always)]
    pub(super) fn reaches(&self, owner: WorkerId, port: u8) -> bool {
        let ports = self.common.ports.get(usize::from(owner.0)).copied().unwrap_or(0);
        ports.checked_shr(port.into()).unwrap_or(0) & 1 == 1
    }

    /// Can every worker that runs send on every port?
    pub(super) fn reaches_all(&self) -> bool {
        let ports = &self.common.ports;
        ports.first().is_some_and(|first| ports.iter().all(|bits| bits == first))
    }

    /// Gives the first of so many parcels away, as many as there is room for, and says how many.
    #[inline(always)]
    pub(super) fn give(
        &mut self,
        owner: WorkerId,
        count: usize,
        parcels: impl Iterator<Item = Parcel>,
    ) -> usize {
        let given = self.ends.give(owner, count, parcels);
        let Some(known) = self.known.get_mut(usize::from(owner.0)) else { return given };
        *known = known.saturating_sub(count);
        if *known < self.burst {
            *known = self.ends.room(owner);
            if *known < self.burst && !self.crowded.contains(&owner) {
                self.crowded.push(owner);
            }
        }
        given
    }

    /// Should receiving wait?
    #[inline(always)]
    pub(super) fn holds_up(&mut self, now: u64) -> bool {
        !self.crowded.is_empty() && self.still_crowded(now)
    }

    #[cold]
    fn still_crowded(&mut self, now: u64) -> bool {
        let Mesh { ends, crowded, burst, waited, looked, .. } = self;
        crowded.retain(|&peer| ends.room(peer) < *burst);
        if crowded.is_empty() {
            (*waited, *looked) = (0, None);
            return false;
        }
        let step = now.saturating_sub(looked.replace(now).unwrap_or(now));
        *waited = waited.saturating_add(step.min(LONGEST_STEP));
        *waited < PATIENCE
    }

    /// Workers from which something can come.
    #[inline(always)]
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Fills the (empty) batch with what the n-th peer has given, and says by which port it goes home.
    #[inline(always)]
    pub(super) fn take(&mut self, n: usize, batch: &mut Batch, burst: usize) -> Option<u8> {
        let peer = *self.peers.get(n)?;
        let (port, _) = self.ends.take(peer, batch, burst)?;
        Some(port)
    }

    /// Asks the cache for what comes next from everybody, at most so many from each.
    #[inline(always)]
    pub(super) fn ask_for_parcels(&mut self, most: usize) {
        for &peer in &self.peers {
            self.ends.ask_for_parcels(peer, most);
        }
    }

    /// Asks it for the frames of these.
    #[inline(always)]
    pub(super) fn ask_for_frames(&mut self) {
        for &peer in &self.peers {
            self.ends.ask_for_frames(peer);
        }
    }

    /// This worker gives nothing away any more.
    pub(super) fn stop_giving(&self) {
        self.common.giving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Nothing will come any more.
    pub(super) fn is_over(&self) -> bool {
        self.common.giving.load(Ordering::Acquire) == 0 && self.ends.waiting() == 0
    }
}
