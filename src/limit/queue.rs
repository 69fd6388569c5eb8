//! One queue, first come first served. Pure: it is given the time and the bucket's verdict.

use std::{collections::VecDeque, task::Waker, time::Duration};

use tokio::time::Instant;

use super::rule::Verdict;

/// Those who wait for a token, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: VecDeque<Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    waker: Option<Waker>,
    /// Since when, or from when on, it may take a token; `Some` only of a place that was first at some time.
    due: Option<Instant>,
}

/// Whether it is a place's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Not before this instant, or (`None`) not before it is woken.
    Later(Option<Instant>),
}

/// The answer to a place that asks whether it is its turn. No waker is woken or dropped in here: it is foreign code, and
/// may come back for the lock.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) turn: Turn,
    /// To be woken: the turn has just begun, and the successor watches that it is used.
    pub(super) watcher: Option<Waker>,
    /// To be dropped.
    pub(super) unused: Option<Waker>,
}

impl Polled {
    const fn now(waker: Waker) -> Self {
        Self {
            turn: Turn::Now,
            watcher: None,
            unused: Some(waker),
        }
    }
}

/// Those to wake once the lock is released.
pub(super) type Wakers = [Option<Waker>; 2];

impl Queue {
    /// Takes a place at the end.
    pub(super) fn join(&mut self) -> u64 {
        let ticket = self.next;
        self.next = self.next.wrapping_add(1);
        self.places.push_back(Place {
            ticket,
            waker: None,
            due: None,
        });
        ticket
    }

    /// Gives the place up. Its waker is to be dropped once the lock is released.
    pub(super) fn leave(&mut self, ticket: u64) -> Option<Waker> {
        let index = self.find(ticket).ok()?;
        self.places.remove(index)?.waker
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it is the turn of `ticket`, and if not, who wakes it: `waker`, or its own timer.
    pub(super) fn poll(
        &mut self,
        ticket: u64,
        verdict: Verdict,
        now: Instant,
        waker: Waker,
    ) -> Polled {
        let Ok(index) = self.find(ticket) else {
            return Polled::now(waker);
        };
        let mut ahead = self.places.iter().take(index).filter(|p| !p.is_parked(now));
        let (first_ahead, more_ahead) = (ahead.next().map(|p| p.due), ahead.next().is_some());
        let Some(place) = self.places.get_mut(index) else {
            return Polled::now(waker);
        };
        let unwatched = place.due.is_none();
        let turn = match first_ahead {
            None => place.set_due(verdict, now),
            Some(due) => {
                // It asks again, so it isn't parked any longer: it is woken when its turn comes.
                place.due = None;
                // One timer for the head and one for its successor, in case the head doesn't act.
                Turn::Later(due.filter(|_| !more_ahead).map(|due| due + PARKED))
            }
        };
        let unused = match turn {
            Turn::Now => Some(waker),
            Turn::Later(_) => place.waker.replace(waker),
        };
        let watched_now = unwatched && place.due.is_some();
        let successor = self.places.get_mut(index.saturating_add(1));
        Polled {
            turn,
            watcher: successor
                .filter(|_| watched_now)
                .and_then(|p| p.waker.take()),
            unused,
        }
    }

    /// Something changed: tells the head when its turn is, and wakes it and its successor.
    pub(super) fn wake(&mut self, verdict: Verdict, now: Instant) -> Wakers {
        let mut front = self.places.iter_mut().filter(|p| !p.is_parked(now));
        let head = front.next().and_then(|place| {
            place.set_due(verdict, now);
            place.waker.take()
        });
        [head, front.next().and_then(|place| place.waker.take())]
    }

    fn find(&self, ticket: u64) -> Result<usize, usize> {
        self.places.binary_search_by_key(&ticket, |p| p.ticket)
    }
}

impl Place {
    fn set_due(&mut self, verdict: Verdict, now: Instant) -> Turn {
        match verdict {
            Verdict::Now(_) => {
                self.due = Some(self.due.map_or(now, |due| due.min(now)));
                Turn::Now
            }
            Verdict::Later(_, until) => {
                self.due = until;
                Turn::Later(until)
            }
        }
    }

    /// Whether it could have taken its token for so long that others may pass.
    fn is_parked(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due + PARKED <= now)
    }
}

/// A place whose turn it is and that does nothing for so long stops nobody any longer.
const PARKED: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::rule::Rule;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn paced(until: Instant) -> Verdict {
        Verdict::Later(Rule::Paced, Some(until))
    }

    fn poll(queue: &mut Queue, ticket: u64, verdict: Verdict, now: Instant) -> Turn {
        queue.poll(ticket, verdict, now, Waker::noop().clone()).turn
    }

    #[test]
    fn those_who_came_first_are_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..5).map(|_| queue.join()).collect();
        for (n, &ticket) in tickets.iter().enumerate() {
            for (behind, &other) in tickets[n + 1..].iter().enumerate() {
                let turn = poll(&mut queue, other, Verdict::Now(1), now);
                assert_ne!(turn, Turn::Now, "{behind} behind {n}");
            }
            assert_eq!(poll(&mut queue, ticket, Verdict::Now(1), now), Turn::Now);
            queue.leave(ticket);
        }
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn whoever_leaves_from_the_middle_is_missed_by_nobody() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let [first, middle, last] = [queue.join(), queue.join(), queue.join()];
        queue.leave(middle);
        assert_eq!(
            poll(&mut queue, last, Verdict::Now(1), now),
            Turn::Later(None)
        );
        queue.leave(first);
        assert_eq!(poll(&mut queue, last, Verdict::Now(1), now), Turn::Now);
    }

    #[test]
    fn a_head_that_does_not_act_is_passed_after_50_ms_and_keeps_its_place() {
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        let mut queue = Queue::default();
        let [head, second, third] = [queue.join(), queue.join(), queue.join()];
        assert_eq!(
            poll(&mut queue, head, paced(due), now),
            Turn::Later(Some(due))
        );
        let guard = due + PARKED;
        assert_eq!(
            poll(&mut queue, second, paced(due), now),
            Turn::Later(Some(guard))
        );
        assert_eq!(poll(&mut queue, third, paced(due), now), Turn::Later(None));

        assert_eq!(poll(&mut queue, second, Verdict::Now(1), guard), Turn::Now);
        queue.leave(second);
        let next = guard + Duration::from_secs(1);
        assert_eq!(
            poll(&mut queue, head, paced(next), guard),
            Turn::Later(Some(next))
        );
        assert_eq!(
            poll(&mut queue, third, paced(next), guard),
            Turn::Later(Some(next + PARKED))
        );
    }

    #[test]
    fn one_that_is_passed_to_is_watched_by_its_successor() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let [head, second, third] = [queue.join(), queue.join(), queue.join()];
        poll(&mut queue, head, Verdict::Now(1), now);
        let later = now + PARKED;
        let count = Arc::new(Count::default());
        queue.poll(third, Verdict::Now(1), now, count.clone().into());
        let polled = queue.poll(second, Verdict::Now(1), later, Waker::noop().clone());
        assert_eq!(polled.turn, Turn::Now);
        polled.watcher.expect("the third watches the second").wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let guard = Turn::Later(Some(later + PARKED));
        assert_eq!(poll(&mut queue, third, Verdict::Now(1), later), guard);
    }

    #[test]
    fn a_change_wakes_the_head_and_its_successor_only() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let counts: Vec<_> = (0..5).map(|_| Arc::new(Count::default())).collect();
        for count in &counts {
            let ticket = queue.join();
            let waiting = Verdict::Later(Rule::Ring, None);
            queue.poll(ticket, waiting, now, count.clone().into());
        }
        queue
            .wake(Verdict::Now(1), now)
            .into_iter()
            .flatten()
            .for_each(Waker::wake);
        let woken: Vec<_> = counts.iter().map(|c| c.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [1, 1, 0, 0, 0]);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Join,
        Poll(prop::sample::Index),
        Leave(prop::sample::Index),
        Advance(u64),
        Change(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            3 => Just(Event::Join),
            6 => index().prop_map(Event::Poll),
            2 => index().prop_map(Event::Leave),
            2 => (0_u64..80).prop_map(Event::Advance),
            3 => any::<bool>().prop_map(Event::Change),
        ]
    }

    /// One who waits.
    struct Waiter {
        ticket: u64,
        woken: Arc<Count>,
        timer: Option<Instant>,
        /// It was never asked, or its turn came and it did not leave yet.
        acts: bool,
    }

    impl Waiter {
        fn poll(&mut self, queue: &mut Queue, verdict: Verdict, now: Instant) -> Turn {
            self.woken.0.store(0, Ordering::Relaxed);
            let polled = queue.poll(self.ticket, verdict, now, self.woken.clone().into());
            polled.watcher.into_iter().for_each(Waker::wake);
            (self.acts, self.timer) = match polled.turn {
                Turn::Now => (true, None),
                Turn::Later(timer) => (false, timer),
            };
            polled.turn
        }

        fn is_awake(&self, now: Instant) -> bool {
            let woken = self.woken.0.load(Ordering::Relaxed) > 0;
            self.acts || woken || self.timer.is_some_and(|timer| timer <= now)
        }
    }

    fn wake(queue: &mut Queue, verdict: Verdict, now: Instant) {
        let wakers = queue.wake(verdict, now);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    proptest! {
        /// Whatever happened before: once the token is there, and all act who are woken or whose timer fires, nobody
        /// is left asleep.
        #[test]
        fn nobody_is_forgotten(events in prop::collection::vec(event(), 1..200)) {
            let busy = Verdict::Later(Rule::Ring, None);
            let (mut now, mut verdict) = (Instant::now(), busy);
            let mut queue = Queue::default();
            let mut waiters: Vec<Waiter> = Vec::new();
            for event in events {
                match event {
                    Event::Join => waiters.push(Waiter {
                        ticket: queue.join(),
                        woken: Arc::default(),
                        timer: None,
                        acts: true,
                    }),
                    Event::Poll(i) if !waiters.is_empty() => {
                        let i = i.index(waiters.len());
                        waiters[i].poll(&mut queue, verdict, now);
                    }
                    Event::Leave(i) if !waiters.is_empty() => {
                        let waiter = waiters.swap_remove(i.index(waiters.len()));
                        drop(queue.leave(waiter.ticket));
                        wake(&mut queue, verdict, now);
                    }
                    Event::Advance(millis) => now += Duration::from_millis(millis),
                    Event::Change(free) => {
                        verdict = if free { Verdict::Now(1) } else { busy };
                        wake(&mut queue, verdict, now);
                    }
                    _ => {}
                }
            }
            wake(&mut queue, Verdict::Now(1), now);
            while !waiters.is_empty() {
                let Some(i) = waiters.iter().position(|waiter| waiter.is_awake(now)) else {
                    let next = waiters.iter().filter_map(|waiter| waiter.timer).min();
                    now = next.expect("all asleep, and the token is there");
                    continue;
                };
                if waiters[i].poll(&mut queue, Verdict::Now(1), now) == Turn::Now {
                    drop(queue.leave(waiters.swap_remove(i).ticket));
                    wake(&mut queue, Verdict::Now(1), now);
                }
            }
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
