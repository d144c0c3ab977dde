//! Bytes that have to be remembered: blocks of a fixed size, all made at the start, on loan to directions of flows.
//!
//! A block is a window of 1024 sequence numbers, aligned, with a bit for each byte that is there. So a byte lies where its number says,
//! however the segments were cut: what overlaps meets in one place, single bytes do not scatter, and a direction takes no more blocks
//! than the numbers that it spans. Blocks of a direction are a list in the order of their numbers.

/// Sequence numbers in a block.
pub(crate) const BLOCK: usize = 1024;
/// What a block takes, all shares included.
pub(crate) const BLOCK_BYTES: usize = BLOCK + size_of::<Block>();
const SHIFT: u32 = BLOCK.trailing_zeros();
const WORDS: usize = BLOCK / 64;
/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// How far `a` is ahead of `b`.
#[inline(always)]
pub(super) fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Whose a block is: a place in the array of flows, a direction, a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub place: u32,
    pub reply: bool,
    pub tenant: u16,
}

#[derive(Clone, Debug)]
struct Block {
    /// Number of its first byte, in blocks.
    window: u32,
    next: u32,
    /// When it was lent, in milliseconds.
    since: u32,
    owner: Owner,
    used: bool,
    have: [u64; WORDS],
}

/// The blocks of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List {
    head: u32,
    /// The number behind the last byte that was ever put there: nothing lies there from here on. Means nothing of an empty list.
    top: u32,
    pub len: u16,
}

impl Default for List {
    fn default() -> Self {
        List { head: NONE, top: 0, len: 0 }
    }
}

impl List {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Nothing lies there from this number on. Bytes in their turn ask this of what is only kept to be compared, and need no look at any block.
    #[inline(always)]
    pub fn ends_before(&self, at: u32) -> bool {
        self.is_empty() || ahead(at, self.top) >= 0
    }
}

/// Who may have how much, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub flow: u32,
    pub tenant: u32,
}

/// All blocks of a worker.
#[derive(Debug)]
pub(super) struct Slab {
    blocks: Box<[Block]>,
    bytes: Box<[u8]>,
    free: u32,
    used: u32,
    tenants: Box<[u32]>,
    limits: Limits,
    /// Where the search for old blocks goes on.
    hand: u32,
}

/// A part of one block, by places in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub block: u32,
    pub from: u16,
    pub len: u16,
}

impl Slab {
    pub fn new(blocks: usize, tenants: usize, limits: Limits) -> Self {
        let blocks = blocks.min(NONE as usize - 1);
        let chain = |n: usize| if n + 1 < blocks { n as u32 + 1 } else { NONE };
        let owner = Owner::default();
        let block = |n| Block { window: 0, next: chain(n), since: 0, owner, used: false, have: [0; WORDS] };
        Slab {
            blocks: (0..blocks).map(block).collect(),
            bytes: vec![0; blocks * BLOCK].into(),
            free: if blocks == 0 { NONE } else { 0 },
            used: 0,
            tenants: vec![0; tenants.max(1)].into(),
            limits,
            hand: 0,
        }
    }

    /// Blocks on loan.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Less than half is on loan: there is room for what is only kept to be compared.
    pub fn has_plenty(&self) -> bool {
        u64::from(self.used) * 2 < self.blocks.len() as u64
    }

    /// Writes bytes from number `at` on, as far as blocks can be had for them. What is there already stays, but for numbers from
    /// `renew` on (if given). True if all of it found a place.
    pub fn put(&mut self, list: &mut List, at: u32, bytes: &[u8], renew: Option<u32>, lend: &Loan) -> bool {
        let mut all = true;
        let fresh = list.ends_before(at);
        let end = at.wrapping_add(bytes.len() as u32);
        if list.ends_before(end) {
            list.top = end;
        }
        // Most often all of it goes into the block that is there.
        let from = at as usize % BLOCK;
        if from + bytes.len() <= BLOCK
            && let Some(block) = self.blocks.get(list.head as usize)
            && block.window == at >> SHIFT
        {
            self.write(list.head, at, bytes, renew, fresh);
            return true;
        }
        let (mut at, mut rest) = (at, bytes);
        let mut before = NONE;
        while !rest.is_empty() {
            let from = at as usize % BLOCK;
            let len = rest.len().min(BLOCK - from);
            let Some((part, left)) = rest.split_at_checked(len) else { break };
            match self.block_for(list, at >> SHIFT, &mut before, lend) {
                Some(block) => self.write(block, at, part, renew, fresh),
                None => all = false,
            }
            (at, rest) = (at.wrapping_add(len as u32), left);
        }
        all
    }

    /// `fresh`: nothing is there yet.
    fn write(&mut self, number: u32, at: u32, part: &[u8], renew: Option<u32>, fresh: bool) {
        let from = at as usize % BLOCK;
        let Some(block) = self.blocks.get_mut(number as usize) else { return };
        let start = number as usize * BLOCK + from;
        let Some(place) = self.bytes.get_mut(start..start + part.len()) else { return };
        if fresh || !any(&block.have, from, from + part.len()) {
            place.copy_from_slice(part);
        } else {
            for (n, (old, new)) in place.iter_mut().zip(part).enumerate() {
                let there = bit(&block.have, from + n);
                let renewed = || renew.is_some_and(|floor| ahead(at.wrapping_add(n as u32), floor) >= 0);
                if !there || renewed() {
                    *old = *new;
                }
            }
        }
        mark(&mut block.have, from, from + part.len());
    }

    /// Is any of these bytes there with another value?
    pub fn differs(&self, list: &List, at: u32, bytes: &[u8]) -> bool {
        self.overlaps(list, at, bytes.len()).any(|(number, block, from, len, offset)| {
            let start = number as usize * BLOCK;
            let mut runs = runs(&block.have, from, from + len);
            runs.any(|run| {
                let old = self.bytes.get(start + run.start..start + run.end);
                old != bytes.get(offset + run.start - from..offset + run.end - from)
            })
        })
    }

    /// Is any of these numbers there?
    pub fn any(&self, list: &List, at: u32, len: usize) -> bool {
        self.overlaps(list, at, len).any(|(_, block, from, len, _)| any(&block.have, from, from + len))
    }

    /// Are all of these numbers there?
    pub fn all(&self, list: &List, at: u32, len: usize) -> bool {
        let whole =
            |block: &Block, from: usize, len: usize| if ones(&block.have, from) >= len { len } else { 0 };
        len == self
            .overlaps(list, at, len)
            .map(|(_, block, from, len, _)| whole(block, from, len))
            .sum::<usize>()
    }

    /// Blocks that have windows in a range of numbers: number, block, first place, length, and how far that is behind `at`.
    fn overlaps(
        &self,
        list: &List,
        at: u32,
        len: usize,
    ) -> impl Iterator<Item = (u32, &Block, usize, usize, usize)> {
        let end = at.wrapping_add(len as u32);
        self.list(list).filter_map(move |(number, block)| {
            let first = block.window << SHIFT;
            let from = if ahead(at, first) > 0 { at } else { first };
            let block_end = first.wrapping_add(BLOCK as u32);
            let to = if ahead(end, block_end) < 0 { end } else { block_end };
            let len = usize::try_from(ahead(to, from)).ok().filter(|len| (1..=BLOCK).contains(len))?;
            Some((number, block, from as usize % BLOCK, len, ahead(from, at) as usize))
        })
    }

    fn list(&self, list: &List) -> impl Iterator<Item = (u32, &Block)> {
        let get = |number: u32| Some((number, self.blocks.get(number as usize)?));
        std::iter::successors(get(list.head), move |(_, block)| get(block.next))
    }

    /// What is there from a number on without a hole, as far as one block goes.
    pub fn run(&self, list: &List, at: u32) -> Option<Part> {
        let (block, found) = self.list(list).find(|(_, block)| block.window == at >> SHIFT)?;
        let from = at as usize % BLOCK;
        let len = ones(&found.have, from);
        (len > 0).then_some(Part { block, from: from as u16, len: len as u16 })
    }

    /// The first number from `at` on that is there.
    pub fn first(&self, list: &List, at: u32) -> Option<u32> {
        self.list(list).find_map(|(_, block)| {
            let first = block.window << SHIFT;
            let from = ahead(at, first).clamp(0, BLOCK as i32) as usize;
            let place = next_one(&block.have, from)?;
            Some(first.wrapping_add(place as u32))
        })
    }

    /// The bytes of a part.
    pub fn bytes(&self, part: Part) -> &[u8] {
        let start = part.block as usize * BLOCK + usize::from(part.from);
        self.bytes.get(start..start + usize::from(part.len)).unwrap_or(&[])
    }

    /// Takes back the blocks whose numbers all lie before `floor`.
    pub fn trim(&mut self, list: &mut List, floor: u32) {
        while let Some(block) = self.blocks.get(list.head as usize)
            && ahead(floor, (block.window << SHIFT).wrapping_add(BLOCK as u32)) >= 0
        {
            self.take_back(list);
        }
    }

    /// Takes back all blocks of a list.
    pub fn clear(&mut self, list: &mut List) {
        while !list.is_empty() {
            self.take_back(list);
        }
    }

    /// Takes back the first block of a list.
    fn take_back(&mut self, list: &mut List) {
        let number = list.head;
        let Some(block) = self.blocks.get_mut(number as usize) else {
            *list = List::default();
            return;
        };
        list.head = block.next;
        list.len = list.len.saturating_sub(1);
        (block.next, block.used) = (self.free, false);
        self.free = number;
        self.used -= 1;
        if let Some(tenant) = self.tenants.get_mut(usize::from(block.owner.tenant)) {
            *tenant -= 1;
        }
    }

    /// The block of a window, a new one if need be. `before` is a block of the list in front of which the window cannot lie, and moves on.
    fn block_for(&mut self, list: &mut List, window: u32, before: &mut u32, lend: &Loan) -> Option<u32> {
        let mut at = match self.blocks.get(*before as usize) {
            Some(block) => block.next,
            None => list.head,
        };
        while let Some(block) = self.blocks.get(at as usize) {
            match ahead(block.window << SHIFT, window << SHIFT) {
                0 => {
                    return Some(at);
                }
                1.. => break,
                _ => (*before, at) = (at, block.next),
            }
        }
        let tenant = self.tenants.get_mut(usize::from(lend.owner.tenant))?;
        if u32::from(list.len) + lend.elsewhere >= self.limits.flow || *tenant >= self.limits.tenant {
            return None;
        }
        let number = self.free;
        let block = self.blocks.get_mut(number as usize)?;
        self.free = block.next;
        *block = Block { window, next: at, since: lend.now, owner: lend.owner, used: true, have: [0; WORDS] };
        *tenant += 1;
        self.used += 1;
        list.len += 1;
        match self.blocks.get_mut(*before as usize) {
            Some(block) => block.next = number,
            None => list.head = number,
        }
        Some(number)
    }

    /// Owner of the next block, of so many looked at, that has been on loan for `patience` milliseconds.
    pub fn overdue(&mut self, now: u32, patience: u32, look_at: &mut u32) -> Option<Owner> {
        while *look_at > 0 {
            *look_at -= 1;
            self.hand = if (self.hand as usize) < self.blocks.len() { self.hand } else { 0 };
            let block = self.blocks.get(self.hand as usize)?;
            self.hand += 1;
            if block.used && now.wrapping_sub(block.since) >= patience {
                return Some(block.owner);
            }
        }
        None
    }

    /// Blocks there are.
    pub fn capacity(&self) -> u32 {
        self.blocks.len() as u32
    }
}

/// To whom a block is lent, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loan {
    pub owner: Owner,
    /// Blocks of the flow's other direction.
    pub elsewhere: u32,
    pub now: u32,
}

fn bit(have: &[u64; WORDS], n: usize) -> bool {
    have.get(n / 64).is_some_and(|word| word >> (n % 64) & 1 != 0)
}

/// The words that hold a range of places, which is not empty, and the bits of it in the first and in the last of them.
fn words(from: usize, to: usize) -> (std::ops::Range<usize>, u64, u64) {
    (from / 64..to.div_ceil(64), u64::MAX << (from % 64), u64::MAX >> (to.wrapping_neg() % 64))
}

fn any(have: &[u64; WORDS], from: usize, to: usize) -> bool {
    let (range, low, high) = words(from, to);
    match have.get(range) {
        Some([one]) => one & low & high != 0,
        Some([first, between @ .., last]) => {
            first & low != 0 || last & high != 0 || between.iter().any(|word| *word != 0)
        }
        _ => false,
    }
}

fn mark(have: &mut [u64; WORDS], from: usize, to: usize) {
    let (range, low, high) = words(from, to);
    match have.get_mut(range) {
        Some([one]) => *one |= low & high,
        Some([first, between @ .., last]) => {
            *first |= low;
            between.fill(u64::MAX);
            *last |= high;
        }
        _ => {}
    }
}

/// Ones from a place on without a zero.
fn ones(have: &[u64; WORDS], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = have.get(at / 64) {
        let run = (word >> (at % 64)).trailing_ones() as usize;
        at += run;
        if run == 0 || !at.is_multiple_of(64) {
            break;
        }
    }
    at - from
}

/// Runs of ones in a range of places.
fn runs(have: &[u64; WORDS], from: usize, to: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = from;
    std::iter::from_fn(move || {
        let start = next_one(have, at).filter(|start| *start < to)?;
        at = (start + ones(have, start)).min(to);
        Some(start..at)
    })
}

/// The first one from a place on.
fn next_one(have: &[u64; WORDS], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = have.get(at / 64) {
        let rest = word >> (at % 64);
        if rest != 0 {
            return Some(at + rest.trailing_zeros() as usize);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loan(now: u32) -> Loan {
        Loan { owner: Owner::default(), elsewhere: 0, now }
    }

    fn slab(blocks: usize) -> Slab {
        Slab::new(blocks, 1, Limits { flow: 8, tenant: 6 })
    }

    #[test]
    fn bits_of_ranges() {
        let mut have = [0; WORDS];
        mark(&mut have, 60, 130);
        assert_eq!((ones(&have, 60), ones(&have, 59), ones(&have, 129), ones(&have, 130)), (70, 0, 1, 0));
        assert_eq!(
            (next_one(&have, 0), next_one(&have, 61), next_one(&have, 130)),
            (Some(60), Some(61), None)
        );
        let all = |from, to| runs(&have, from, to).map(|run| (run.start, run.end)).collect::<Vec<_>>();
        assert_eq!((all(0, 1024), all(70, 100)), (vec![(60, 130)], vec![(70, 100)]));
        assert_eq!(runs(&have, 130, 1024).next(), None);
        assert!(any(&have, 0, 61) && !any(&have, 0, 60) && !any(&have, 130, 1024));
        for (from, to) in [(0, 1), (63, 64), (63, 65), (64, 128), (1, 1023), (1023, 1024)] {
            let mut have = [0; WORDS];
            mark(&mut have, from, to);
            assert_eq!(
                have.iter().map(|word| word.count_ones() as usize).sum::<usize>(),
                to - from,
                "{from} {to}"
            );
            assert_eq!((ones(&have, from), any(&have, from, from + 1)), (to - from, true), "{from} {to}");
        }
        mark(&mut have, 0, 1024);
        assert_eq!((ones(&have, 0), ones(&have, 1023)), (1024, 1));
    }

    #[test]
    fn numbers_wrap_around() {
        let (mut slab, mut list) = (slab(4), List::default());
        assert!(slab.put(&mut list, 5, b"behind", None, &loan(0)));
        assert!(slab.put(&mut list, u32::MAX - 2, b"before", None, &loan(0)));
        // "befor" up to number 2, "e" at 2; "behind" from 5 on.
        assert_eq!(slab.first(&list, u32::MAX - 9), Some(u32::MAX - 2), "the list is in order");
        let part = slab.run(&list, u32::MAX - 2).expect("three bytes");
        assert_eq!(slab.bytes(part), b"bef");
        assert_eq!(slab.bytes(slab.run(&list, 0).expect("three more")), b"ore");
        assert_eq!(slab.first(&list, 3), Some(5));
        slab.trim(&mut list, 0);
        assert_eq!((list.len, slab.used()), (1, 1));
        slab.clear(&mut list);
        assert_eq!((list.is_empty(), slab.used()), (true, 0));
    }

    #[test]
    fn nobody_gets_more_than_his_share() {
        let mut slab = slab(100);
        let (mut one, mut other) = (List::default(), List::default());
        let bytes = vec![1; 20 * BLOCK];
        assert!(!slab.put(&mut one, 0, &bytes, None, &loan(0)));
        assert_eq!(one.len, 6, "the tenant's");
        assert!(!slab.put(&mut other, 0, &bytes, None, &loan(0)));
        assert_eq!(other.len, 0);
        slab.clear(&mut one);
        assert!(!slab.put(&mut other, 0, &bytes, None, &Loan { elsewhere: 5, ..loan(0) }));
        assert_eq!(other.len, 3, "the flow's, both directions");
    }

    #[test]
    fn first_or_last_wins() {
        let (mut slab, mut list) = (slab(4), List::default());
        slab.put(&mut list, 10, b"abcd", None, &loan(0));
        assert!(slab.differs(&list, 12, b"cX") && !slab.differs(&list, 12, b"cdX"));
        slab.put(&mut list, 12, b"XYZ", None, &loan(0));
        assert_eq!(slab.bytes(slab.run(&list, 10).expect("a run")), b"abcdZ");
        slab.put(&mut list, 10, b"12345", Some(12), &loan(0));
        assert_eq!(slab.bytes(slab.run(&list, 10).expect("a run")), b"ab345");
    }

    #[test]
    fn what_is_overdue_is_found() {
        let (mut slab, mut list) = (slab(4), List::default());
        slab.put(&mut list, 10, b"abcd", None, &loan(100));
        assert_eq!(slab.overdue(150, 100, &mut 9), None);
        assert_eq!(slab.overdue(200, 100, &mut 9), Some(Owner::default()));
    }
}
