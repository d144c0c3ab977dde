//! Who may have another flow, and who goes when there is no room.
//!
//! Each tenant has a guaranteed share of the table, kept for it alone, and a ceiling. What no guarantee covers is shared, first
//! come, first served. So what one tenant does costs another nothing of its guarantee, neither an old flow nor a new one.
//!
//! Under pressure goes first what will be missed least, oldest first: TCP connections that are over (both FINs, or a RST), of which only
//! what comes late would still be told apart; then flows that nobody has answered: half-open TCP, single packets of other protocols, and
//! last what has lasted for a while in one direction. They are kept on lists through their entries, four per tenant, so that finding the
//! oldest costs nothing. Established flows are on no list and never go. A tenant at its ceiling gives up one of its own; where the shared
//! part is used up, the one with the most flows on its lists of those that borrow from it gives one up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::line::{Lines, NOBODY};

/// Tenants that are looked at for one that can give up a flow.
const LOOKED_AT: usize = 16;

/// What a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Flows kept for it.
    pub guaranteed: u32,
    /// Flows it may have at most.
    pub ceiling: u32,
}

/// A flow that can make room is on one of these lists; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waiting {
    /// A TCP connection that is over. A table holds those of a few seconds only, and who makes many of them does no harm.
    Over,
    /// A TCP handshake that is not complete.
    HalfOpen,
    /// One way so far.
    Unanswered,
    /// One way for a while.
    OneWay,
}

/// The answer to a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room.
    Yes,
    /// There is, if this entry goes.
    Instead(u32),
    /// The table is full for this tenant.
    Full,
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
    len: u32,
}

/// As many as there are kinds of [`Waiting`].
const LISTS: usize = 4;

const EMPTY: List = List { oldest: NOBODY, newest: NOBODY, len: 0 };

#[derive(Clone, Debug)]
struct Tenant {
    share: Share,
    live: u32,
    lists: [List; LISTS],
}

impl Tenant {
    fn borrowed(&self) -> u32 {
        self.live.saturating_sub(self.share.guaranteed)
    }

    /// Flows that can make room.
    fn waiting(&self) -> u32 {
        self.lists.iter().map(|list| list.len).sum()
    }

    fn oldest(&self) -> Option<u32> {
        self.lists.iter().map(|list| list.oldest).find(|&entry| entry != NOBODY)
    }
}

/// The room of one worker's table.
#[derive(Debug)]
pub(super) struct Room {
    tenants: Box<[Tenant]>,
    /// Flows of each tenant, for everybody.
    shown: Arc<[AtomicU32]>,
    /// Entries that no guarantee covers, and how many of them are lent.
    shared: u32,
    lent: u32,
    /// Where the search for a borrower goes on, and who was found last.
    next: usize,
    heaviest: usize,
}

impl Room {
    /// `shares` has one for each tenant, at least one; their guarantees together are at most `entries`.
    pub fn new(entries: u32, shares: &[Share]) -> Self {
        let guaranteed: u32 = shares.iter().map(|s| s.guaranteed).sum();
        let tenant = |share: &Share| Tenant { share: *share, live: 0, lists: [EMPTY; LISTS] };
        Room {
            tenants: shares.iter().map(tenant).collect(),
            shown: shares.iter().map(|_| AtomicU32::new(0)).collect(),
            shared: entries.saturating_sub(guaranteed),
            lent: 0,
            next: 0,
            heaviest: 0,
        }
    }

    /// Flows of each tenant, for other threads to read.
    pub fn shown(&self) -> Arc<[AtomicU32]> {
        self.shown.clone()
    }

    fn show(&self, tenant: u16) {
        if let Some(shown) = self.shown.get(usize::from(tenant)) {
            shown.store(self.live(tenant), Ordering::Relaxed);
        }
    }

    /// Flows of a tenant.
    pub fn live(&self, tenant: u16) -> u32 {
        self.tenants.get(usize::from(tenant)).map_or(0, |t| t.live)
    }

    /// May this tenant have one more?
    pub fn ask(&mut self, tenant: u16) -> Admission {
        let Some(own) = self.tenants.get_mut(usize::from(tenant)) else { return Admission::Full };
        if own.live >= own.share.ceiling {
            return own.oldest().map_or(Admission::Full, Admission::Instead);
        }
        if own.live < own.share.guaranteed || self.lent < self.shared {
            return Admission::Yes;
        }
        self.borrower(tenant).map_or(Admission::Full, Admission::Instead)
    }

    /// The first to go of the tenant that has most flows which can, among some of those that live on borrowed room, the one that was
    /// found last (so that, once found, a flood pays for all who ask), and the one that asks.
    #[cold]
    fn borrower(&mut self, asking: u16) -> Option<u32> {
        let mut best = self.tenants.get(usize::from(asking)).filter(|t| t.borrowed() > 0 || t.waiting() > 0);
        let tenants = self.tenants.len();
        let some = (self.next..self.next + LOOKED_AT.min(tenants)).map(|n| n % tenants);
        for n in some.chain([self.heaviest]) {
            let Some(other) = self.tenants.get(n) else { continue };
            let more = best.is_none_or(|best| other.waiting() > best.waiting());
            if other.borrowed() > 0 && more {
                (best, self.heaviest) = (Some(other), n);
            }
        }
        self.next = (self.next + LOOKED_AT) % tenants;
        best?.oldest()
    }

    /// A flow came in.
    pub fn enter(&mut self, tenant: u16) {
        let Some(own) = self.tenants.get_mut(usize::from(tenant)) else { return };
        own.live += 1;
        self.lent += u32::from(own.live > own.share.guaranteed);
        self.show(tenant);
    }

    /// A flow went. It must be off its list.
    pub fn leave(&mut self, tenant: u16) {
        let Some(own) = self.tenants.get_mut(usize::from(tenant)) else { return };
        self.lent -= u32::from(own.live > own.share.guaranteed);
        own.live -= 1;
        self.show(tenant);
    }

    /// Puts an entry at the young end of a list.
    pub fn wait(&mut self, lines: &Lines, tenant: u16, list: Waiting, entry: u32) {
        let Some(list) = self.list(tenant, list) else { return };
        let before = std::mem::replace(&mut list.newest, entry);
        list.len += 1;
        if before == NOBODY {
            list.oldest = entry;
        } else if let Some(line) = lines.get(before) {
            line.set_links((line.links().0, entry));
        }
        if let Some(line) = lines.get(entry) {
            line.set_links((before, NOBODY));
        }
    }

    /// Takes an entry off the list that it is on.
    pub fn answered(&mut self, lines: &Lines, tenant: u16, list: Waiting, entry: u32) {
        let Some(list) = self.list(tenant, list) else { return };
        let Some((before, after)) = lines.get(entry).map(|line| line.links()) else { return };
        match lines.get(before) {
            Some(line) => line.set_links((line.links().0, after)),
            None => list.oldest = after,
        }
        match lines.get(after) {
            Some(line) => line.set_links((before, line.links().1)),
            None => list.newest = before,
        }
        list.len -= 1;
    }

    fn list(&mut self, tenant: u16, list: Waiting) -> Option<&mut List> {
        self.tenants.get_mut(usize::from(tenant))?.lists.get_mut(list as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn share(guaranteed: u32, ceiling: u32) -> Share {
        Share { guaranteed, ceiling }
    }

    /// A room with entries that are handed out in order.
    struct House {
        room: Room,
        lines: Lines,
        next: u32,
    }

    impl House {
        fn new(entries: u32, shares: &[Share]) -> Self {
            House { room: Room::new(entries, shares), lines: Lines::new(entries as usize + 100), next: 0 }
        }

        fn come(&mut self, tenant: u16, waiting: Option<Waiting>) -> Admission {
            let answer = self.room.ask(tenant);
            match answer {
                Admission::Yes => {
                    self.room.enter(tenant);
                    if let Some(list) = waiting {
                        self.room.wait(&self.lines, tenant, list, self.next);
                    }
                    self.next += 1;
                }
                Admission::Instead(_) | Admission::Full => {}
            }
            answer
        }

        fn go(&mut self, tenant: u16, waiting: Option<Waiting>, entry: u32) {
            if let Some(list) = waiting {
                self.room.answered(&self.lines, tenant, list, entry);
            }
            self.room.leave(tenant);
        }
    }

    #[test]
    fn a_tenants_flood_takes_nothing_of_another_ones_guarantee() {
        let mut house = House::new(100, &[share(0, 100), share(40, 100), share(40, 60)]);
        for _ in 0..60 {
            assert_eq!(house.come(1, None), Admission::Yes);
        }
        assert_eq!(house.come(1, None), Admission::Full, "20 are shared, and gone");
        for _ in 0..40 {
            assert_eq!(house.come(2, None), Admission::Yes, "kept for it");
        }
        assert_eq!(house.come(2, None), Admission::Full);
        assert_eq!(house.come(0, None), Admission::Full);
        house.go(1, None, 0);
        assert_eq!(house.come(0, None), Admission::Yes);
    }

    #[test]
    fn the_oldest_half_open_flow_of_the_biggest_borrower_goes_first() {
        let mut house = House::new(10, &[share(2, 10), share(2, 10), share(2, 6)]);
        for _ in 0..3 {
            house.come(1, Some(Waiting::Unanswered));
        }
        for _ in 0..3 {
            house.come(1, Some(Waiting::HalfOpen));
        }
        // Entries 0 to 5; all that is shared is lent to tenant 1.
        assert_eq!(house.come(0, None), Admission::Yes);
        assert_eq!(house.come(0, None), Admission::Yes);
        assert_eq!(house.come(0, None), Admission::Instead(3), "TCP before others, oldest first");
        house.go(1, Some(Waiting::HalfOpen), 4);
        assert_eq!(house.come(0, None), Admission::Yes);
        assert_eq!(house.come(0, None), Admission::Instead(3));
        house.go(1, Some(Waiting::HalfOpen), 3);
        house.go(1, Some(Waiting::HalfOpen), 5);
        for _ in 0..2 {
            assert_eq!(house.come(0, None), Admission::Yes);
        }
        assert_eq!(house.come(0, None), Admission::Instead(0));
    }

    #[test]
    fn what_is_over_goes_before_what_has_not_begun() {
        let mut house = House::new(4, &[share(0, 4)]);
        for list in [Waiting::OneWay, Waiting::Unanswered, Waiting::HalfOpen, Waiting::Over] {
            assert_eq!(house.come(0, Some(list)), Admission::Yes);
        }
        let order =
            [(3, Waiting::Over), (2, Waiting::HalfOpen), (1, Waiting::Unanswered), (0, Waiting::OneWay)];
        for (entry, list) in order {
            assert_eq!(house.come(0, None), Admission::Instead(entry), "{list:?}");
            house.go(0, Some(list), entry);
            assert_eq!(house.come(0, None), Admission::Yes);
        }
        assert_eq!(house.come(0, None), Admission::Full);
    }

    #[test]
    fn whose_flood_it_is_pays_however_many_tenants_there_are() {
        let shares = vec![share(1, 1000); 1000];
        let mut house = House::new(1500, &shares);
        for _ in 0..501 {
            assert_eq!(house.come(700, Some(Waiting::HalfOpen)), Admission::Yes);
        }
        // Everybody has what is kept for him, and wants one more. The first to ask may not find who has most.
        let mut full = 0;
        for tenant in (0..1000).filter(|&tenant| tenant != 700) {
            assert_eq!(house.come(tenant, None), Admission::Yes);
            match house.come(tenant, None) {
                Admission::Instead(oldest) => assert_eq!(oldest, 0),
                answer => full += u32::from(answer == Admission::Full),
            }
        }
        assert!(full <= 1000 / LOOKED_AT as u32, "{full}");
    }

    #[test]
    fn at_its_ceiling_a_tenant_gives_up_its_own() {
        let mut house = House::new(10, &[share(0, 10), share(0, 2)]);
        house.come(0, Some(Waiting::HalfOpen));
        house.come(1, None);
        house.come(1, Some(Waiting::HalfOpen));
        assert_eq!(house.come(1, None), Admission::Instead(2));
        house.room.answered(&house.lines, 1, Waiting::HalfOpen, 2);
        assert_eq!(house.come(1, None), Admission::Full, "established flows stay");
    }
}
