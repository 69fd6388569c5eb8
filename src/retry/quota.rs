//! How many retries all requests together may make: an outage must not be made worse.
#![warn(clippy::arithmetic_side_effects)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::Outcome;
use crate::plan::Plan;

/// Tokens that every retry pays for, and that successes earn back.
#[derive(Debug)]
pub(super) struct Quota {
    capacity: u32,
    left: AtomicU32,
}

impl Quota {
    /// Full at first.
    pub(super) const fn new(capacity: u32) -> Self {
        Self {
            capacity,
            left: AtomicU32::new(capacity),
        }
    }

    /// Twice the requests of a minute, within bounds: 14 retries after ambiguous outcomes at 100 a minute.
    pub(super) fn for_plan(plan: Plan) -> Self {
        let requests = plan.requests_per_minute().get();
        Self::new(requests.saturating_mul(2).clamp(LEAST, DEFAULT_CAPACITY))
    }

    pub(super) const fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    /// Pays for a retry after `outcome`; `None` where too little is left.
    pub(super) fn pay(self: &Arc<Self>, outcome: Outcome) -> Option<Paid> {
        let cost = match outcome {
            Outcome::Refused => REFUSED,
            // Once for each request, and the server did next to nothing.
            Outcome::Unauthorized => 0,
            Outcome::NotSent | Outcome::Ambiguous | Outcome::Final => FAILED,
        };
        // Where there is no quota, what costs nothing can't be paid either.
        let paid = self.capacity > 0 && self.change(|left| left.checked_sub(cost));
        paid.then(|| Paid {
            quota: self.clone(),
            cost,
        })
    }

    /// A request succeeded without a retry.
    pub(super) fn earn(&self) {
        self.give(FIRST_TRY);
    }

    fn give(&self, tokens: u32) {
        let full = self.capacity;
        // The usual case writes nothing: a full quota is shared by all threads.
        self.change(|left| (left < full).then(|| left.saturating_add(tokens).min(full)));
    }

    /// Whether `change` had something to change. No ordering: the number is all that is shared.
    fn change(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }
}

/// Shows the quota of a [`PlotonRetry`](super::PlotonRetry).
#[derive(Clone, Debug)]
pub struct RetryHandle {
    pub(super) quota: Arc<Quota>,
}

impl RetryHandle {
    /// What is left of the quota.
    #[must_use]
    pub fn quota_left(&self) -> u32 {
        self.quota.left()
    }

    /// The most that the quota holds.
    #[must_use]
    pub fn quota_capacity(&self) -> u32 {
        self.quota.capacity()
    }
}

/// The price of one retry. Dropped before it was spent, it goes back: that retry was never sent.
#[derive(Debug)]
pub(super) struct Paid {
    quota: Arc<Quota>,
    cost: u32,
}

impl Paid {
    /// The retry is sent. What is returned goes back only if it succeeds.
    pub(super) fn spend(mut self) -> Spent {
        Spent {
            quota: self.quota.clone(),
            cost: std::mem::take(&mut self.cost),
        }
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.quota.give(self.cost);
    }
}

/// The price of a retry that was sent.
#[derive(Debug)]
pub(super) struct Spent {
    quota: Arc<Quota>,
    cost: u32,
}

impl Spent {
    /// The retry succeeded.
    pub(super) fn give_back(self) {
        self.quota.give(self.cost);
    }
}

/// A failing server is given less than one that asks to come back later.
const FAILED: u32 = 14;
const REFUSED: u32 = 5;
const FIRST_TRY: u32 = 1;
pub(super) const DEFAULT_CAPACITY: u32 = 500;
const LEAST: u32 = 200;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use std::{num::NonZeroU32, thread};

    use proptest::prelude::*;

    use super::*;

    fn quota(capacity: u32) -> Arc<Quota> {
        Arc::new(Quota::new(capacity))
    }

    #[test]
    fn a_repetition_with_another_key_is_free_but_not_where_nothing_is_sent_again() {
        let quota = Arc::new(Quota::new(1));
        assert!(quota.pay(Outcome::Unauthorized).is_some());
        assert_eq!(quota.left(), 1);
        let none = Arc::new(Quota::new(0));
        assert!(none.pay(Outcome::Unauthorized).is_none());
    }

    #[test]
    fn a_plan_sets_the_capacity_within_bounds() {
        let enterprise = |requests| Plan::Enterprise {
            requests_per_minute: NonZeroU32::new(requests).unwrap(),
            concurrent_tasks: NonZeroU32::MIN,
        };
        for (plan, capacity) in [
            (Plan::Prototyping, 200),
            (Plan::Production, 500),
            (enterprise(1), 200),
            (enterprise(150), 300),
            (enterprise(u32::MAX), 500),
        ] {
            assert_eq!(Quota::for_plan(plan).capacity(), capacity, "{plan:?}");
        }
    }

    #[test]
    fn at_100_a_minute_14_ambiguous_outcomes_in_a_row_are_retried() {
        let quota = Arc::new(Quota::for_plan(Plan::Prototyping));
        let paid: Vec<_> = std::iter::from_fn(|| quota.pay(Outcome::Ambiguous))
            .map(Paid::spend)
            .collect();
        assert_eq!(paid.len(), 14);
        assert_eq!(quota.left(), 4);
        assert!(quota.pay(Outcome::NotSent).is_none());
        assert!(quota.pay(Outcome::Refused).is_none());
    }

    #[test]
    fn a_success_gives_back_what_its_own_retry_cost() {
        let quota = quota(500);
        quota.pay(Outcome::Ambiguous).unwrap().spend();
        let second = quota.pay(Outcome::Refused).unwrap().spend();
        assert_eq!(quota.left(), 481);
        second.give_back();
        assert_eq!(quota.left(), 486);
        quota.earn();
        assert_eq!(quota.left(), 487);
    }

    #[test]
    fn a_retry_that_was_never_sent_costs_nothing() {
        let quota = quota(14);
        drop(quota.pay(Outcome::Ambiguous));
        assert_eq!(quota.left(), 14);
        drop(quota.pay(Outcome::Ambiguous).unwrap().spend());
        assert_eq!(quota.left(), 0);
    }

    /// A load and a store in two steps would lose some of these.
    #[test]
    fn no_update_between_threads_is_lost() {
        const THREADS: u32 = 8;
        const ROUNDS: u32 = 20_000;
        let quota = quota(THREADS * ROUNDS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS / 14 {
                        let spent = quota.pay(Outcome::Ambiguous).unwrap().spend();
                        drop(quota.pay(Outcome::Refused));
                        spent.give_back();
                        quota.pay(Outcome::Ambiguous).unwrap().spend();
                        quota.earn();
                    }
                });
            }
        });
        let spent = THREADS * (ROUNDS / 14) * 13;
        assert_eq!(quota.left(), THREADS * ROUNDS - spent);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pay(Outcome),
        Send,
        Drop,
        Succeed,
        Fail,
        FirstTry,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => prop_oneof![Just(Outcome::Ambiguous), Just(Outcome::Refused), Just(Outcome::NotSent)]
                .prop_map(Event::Pay),
            3 => Just(Event::Send),
            1 => Just(Event::Drop),
            1 => Just(Event::Succeed),
            2 => Just(Event::Fail),
            2 => Just(Event::FirstTry),
        ]
    }

    proptest! {
        /// Never more than the capacity, never less than what was paid and not given back.
        #[test]
        fn the_books_balance(capacity in 0_u32..600, events in prop::collection::vec(event(), 0..200)) {
            let quota = quota(capacity);
            let (mut paid, mut spent) = (Vec::new(), Vec::new());
            let mut expected = capacity;
            for event in events {
                match event {
                    Event::Pay(outcome) => {
                        let cost = if outcome == Outcome::Refused { 5 } else { 14 };
                        let ticket = quota.pay(outcome);
                        prop_assert_eq!(ticket.is_some(), expected >= cost);
                        if let Some(ticket) = ticket {
                            expected -= cost;
                            paid.push((ticket, cost));
                        }
                    }
                    Event::Send => spent.extend(paid.pop().map(|(ticket, cost)| (ticket.spend(), cost))),
                    Event::Drop => if let Some((_, cost)) = paid.pop() {
                        expected = (expected + cost).min(capacity);
                    },
                    Event::Succeed => if let Some((ticket, cost)) = spent.pop() {
                        ticket.give_back();
                        expected = (expected + cost).min(capacity);
                    },
                    Event::Fail => drop(spent.pop()),
                    Event::FirstTry => {
                        quota.earn();
                        expected = (expected + 1).min(capacity);
                    }
                }
                prop_assert_eq!(quota.left(), expected);
            }
        }
    }
}
