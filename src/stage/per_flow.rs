//! What one stage keeps of each flow on one worker: an array beside the flow table, one place for each of its entries.
//!
//! Made when the stage is made, at its full size; nothing is allocated afterwards but by the stage's own type. A place knows which of its
//! entry's flows it was written for, so that no flow ever finds another's state; what is left of an old flow is dropped when the next
//! one asks. After a panic the stage is made anew, and all of it is forgotten.

use super::Make;
use crate::packet::Meta;

/// State of type `T` for each flow of a worker. Private to the stage that made it.
#[derive(Debug)]
pub struct PerFlow<T> {
    places: Box<[Place<T>]>,
}

#[derive(Debug, Default)]
struct Place<T> {
    incarnation: u32,
    state: T,
}

impl<T: Default> PerFlow<T> {
    /// What it costs for each flow, for [`super::Parsed::flow_state_bytes`].
    pub const BYTES: u64 = size_of::<Place<T>>() as u64;

    /// Room for all flows of the worker, each with the default of `T`.
    pub fn new(make: &Make) -> Self {
        PerFlow { places: (0..make.flows).map(|_| Place::default()).collect() }
    }

    /// The state of the packet's flow: what was left there by its last packet, or the default of `T`. `None` for a packet that
    /// belongs to no flow. An ICMP error finds the state of the flow that it speaks of.
    #[inline(always)]
    pub fn of(&mut self, meta: &Meta) -> Option<&mut T> {
        let place = self.places.get_mut(meta.flow.entry()? as usize)?;
        if place.incarnation != meta.incarnation {
            *place = Place { incarnation: meta.incarnation, state: T::default() };
        }
        Some(&mut place.state)
    }

    /// The same for a flow that may be gone: `None` if nothing is there of it.
    #[inline]
    pub fn left_by(&mut self, meta: &Meta) -> Option<&mut T> {
        let place = self.places.get_mut(meta.flow.entry()? as usize)?;
        (place.incarnation == meta.incarnation).then_some(&mut place.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FlowSlot;
    use crate::stage::WorkerId;

    fn packet(entry: u32, incarnation: u32) -> Meta {
        Meta { flow: FlowSlot::new(entry), incarnation, ..Meta::default() }
    }

    #[test]
    fn a_new_flow_never_sees_what_an_old_one_left() {
        let mut seen = PerFlow::<u64>::new(&Make { worker: WorkerId(0), flows: 4 });
        for n in 0..3 {
            let state = seen.of(&packet(2, 7)).unwrap();
            assert_eq!(*state, n);
            *state += 1;
        }
        assert_eq!(seen.of(&packet(3, 7)), Some(&mut 0), "another entry");
        assert_eq!(seen.of(&packet(2, 8)), Some(&mut 0), "the entry's next flow");
        *seen.of(&packet(2, 8)).unwrap() = 5;
        assert_eq!(seen.of(&packet(2, 8)), Some(&mut 5));
        assert_eq!(seen.of(&packet(2, 7)), Some(&mut 0), "no way back either");
    }

    #[test]
    fn packets_without_a_flow_have_no_state() {
        let mut seen = PerFlow::<u64>::new(&Make { worker: WorkerId(0), flows: 4 });
        assert_eq!(seen.of(&Meta::default()), None);
        assert_eq!(seen.of(&packet(4, 1)), None, "behind the table");
        assert_eq!(PerFlow::<u64>::new(&Make { worker: WorkerId(0), flows: 0 }).of(&packet(0, 1)), None);
    }

    #[test]
    fn what_an_old_flow_left_is_dropped_when_the_next_asks() {
        let held = std::rc::Rc::new(());
        let mut seen = PerFlow::<Option<std::rc::Rc<()>>>::new(&Make { worker: WorkerId(0), flows: 1 });
        *seen.of(&packet(0, 1)).unwrap() = Some(held.clone());
        assert_eq!(std::rc::Rc::strong_count(&held), 2);
        assert!(seen.of(&packet(0, 2)).unwrap().is_none());
        assert_eq!(std::rc::Rc::strong_count(&held), 1);
    }
}
