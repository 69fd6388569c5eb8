//! Tickets in their order.
#![warn(clippy::arithmetic_side_effects)]

use std::collections::{VecDeque, vec_deque::Drain};

/// A set of tickets. Mostly there is one or none, and most that come are the last and most that go are the first: that
/// takes no search, and no allocation once there was one.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// Sorted.
    tickets: VecDeque<u64>,
}

impl Tickets {
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether there is this one, and no other.
    pub(super) fn is_only(&self, ticket: u64) -> bool {
        self.len() == 1 && self.tickets.front() == Some(&ticket)
    }

    pub(super) fn contains(&self, ticket: u64) -> bool {
        self.place(ticket).is_ok()
    }

    /// Whether it is one of the first `count`.
    pub(super) fn is_among_first(&self, ticket: u64, count: usize) -> bool {
        self.place(ticket).is_ok_and(|place| place < count)
    }

    pub(super) fn insert(&mut self, ticket: u64) {
        match self.place(ticket) {
            Ok(_) => {}
            Err(place) if place == self.len() => self.tickets.push_back(ticket),
            Err(place) => self.tickets.insert(place, ticket),
        }
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, ticket: u64) -> bool {
        let removed = match self.place(ticket) {
            Ok(0) => self.tickets.pop_front(),
            Ok(place) => self.tickets.remove(place),
            Err(_) => None,
        };
        removed.is_some()
    }

    pub(super) fn drain(&mut self) -> Drain<'_, u64> {
        self.tickets.drain(..)
    }

    /// Where it is, or would be.
    fn place(&self, ticket: u64) -> Result<usize, usize> {
        match (self.tickets.front(), self.tickets.back()) {
            (Some(&first), _) if first == ticket => Ok(0),
            (_, Some(&last)) if last < ticket => Err(self.len()),
            _ => self.tickets.binary_search(&ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_a_set_in_order(steps in prop::collection::vec((any::<bool>(), 0_u64..8), 0..40)) {
            let mut tickets = Tickets::default();
            let mut set = BTreeSet::new();
            for (comes, ticket) in steps {
                if comes {
                    tickets.insert(ticket);
                    set.insert(ticket);
                } else {
                    prop_assert_eq!(tickets.remove(ticket), set.remove(&ticket));
                }
                prop_assert_eq!(tickets.len(), set.len());
                prop_assert_eq!(tickets.is_empty(), set.is_empty());
                for one in 0..8 {
                    prop_assert_eq!(tickets.contains(one), set.contains(&one));
                    prop_assert_eq!(tickets.is_only(one), set.len() == 1 && set.contains(&one));
                    for count in 0..4 {
                        let first = set.iter().take(count).any(|&other| other == one);
                        prop_assert_eq!(tickets.is_among_first(one, count), first);
                    }
                }
            }
            prop_assert!(tickets.drain().eq(set));
        }
    }
}
