//! The bodies over DPDK: nothing can be made yet, so these types have no values.

use std::ptr::NonNull;

use arrayvec::ArrayVec;

use super::port::{LinkStatus, PortConfig, PortFacts, PortStats, QueuePair};
use super::raw::Header;
use super::{BURST, Burst, Error, Mbuf, Mempool};

#[derive(Clone, Debug)]
pub enum EalPool {}
impl EalPool {
    pub(super) fn alloc(&self) -> Option<Mbuf> {
        match *self {}
    }
    pub(super) fn capacity(&self) -> u32 {
        match *self {}
    }
    pub(super) fn available(&self) -> u32 {
        match *self {}
    }
    pub(super) fn data_room(&self) -> u16 {
        match *self {}
    }
}
/// # Safety
/// The caller owns the buffer.
pub(super) unsafe fn free(_header: NonNull<Header>) {}
pub(super) fn free_bulk(frames: &mut ArrayVec<Mbuf, BURST>) {
    frames.clear();
}
#[derive(Debug)]
pub enum RxQueue {}
impl RxQueue {
    pub(super) fn receive(&mut self, _burst: &mut Burst, _room: usize) -> usize {
        match *self {}
    }
}
#[derive(Debug)]
pub enum TxQueue {}
impl TxQueue {
    pub(super) fn send(&mut self, _burst: &mut Burst) -> usize {
        match *self {}
    }
}
#[derive(Debug)]
pub enum Port {}
impl Port {
    pub(super) fn start(self, _: &PortConfig, _: &Mempool) -> Result<(RunningPort, Vec<QueuePair>), Error> {
        match self {}
    }
}
#[derive(Debug)]
pub enum RunningPort {}
impl RunningPort {
    pub(super) fn facts(&self) -> &PortFacts {
        match *self {}
    }
    pub(super) fn stats(&self) -> PortStats {
        match *self {}
    }
    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        match *self {}
    }
    pub(super) fn link(&self) -> LinkStatus {
        match *self {}
    }
    pub(super) fn stop(self, _: Vec<QueuePair>) -> Port {
        match self {}
    }
}
