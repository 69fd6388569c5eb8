//! One queue, first come first served. Pure: it is given the time and the bucket's verdict.

use std::{collections::VecDeque, task::Waker, time::Duration};

use tokio::time::Instant;

use super::bucket::Verdict;

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

    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(index) = self.find(ticket) {
            self.places.remove(index);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it is the turn of `ticket`, and if not, who wakes it: `waker`, or its own timer. Where its turn has just
    /// begun, its successor is to be woken, to watch that it is used.
    pub(super) fn poll(
        &mut self,
        ticket: u64,
        verdict: Verdict,
        now: Instant,
        waker: &Waker,
    ) -> (Turn, Option<Waker>) {
        let Ok(index) = self.find(ticket) else {
            return (Turn::Now, None);
        };
        let mut ahead = self.places.iter().take(index).filter(|p| !p.is_parked(now));
        let (first_ahead, more_ahead) = (ahead.next().map(|p| p.due), ahead.next().is_some());
        let Some(place) = self.places.get_mut(index) else {
            return (Turn::Now, None);
        };
        let unwatched = place.due.is_none();
        let turn = match first_ahead {
            None => place.set_due(verdict, now),
            // One timer for the head and one for its successor, in case the head doesn't act.
            Some(due) if !more_ahead => Turn::Later(due.map(|due| due + PARKED)),
            Some(_) => Turn::Later(None),
        };
        if turn != Turn::Now && !place.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            place.waker = Some(waker.clone());
        }
        let watched_now = unwatched && place.due.is_some();
        let successor = self.places.get_mut(index.saturating_add(1));
        let watcher = successor
            .filter(|_| watched_now)
            .and_then(|p| p.waker.take());
        (turn, watcher)
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
            Verdict::Now => {
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

    use super::*;
    use crate::limit::bucket::Rule;

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
        queue.poll(ticket, verdict, now, Waker::noop()).0
    }

    #[test]
    fn those_who_came_first_are_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..5).map(|_| queue.join()).collect();
        for (n, &ticket) in tickets.iter().enumerate() {
            for (behind, &other) in tickets[n + 1..].iter().enumerate() {
                let turn = poll(&mut queue, other, Verdict::Now, now);
                assert_ne!(turn, Turn::Now, "{behind} behind {n}");
            }
            assert_eq!(poll(&mut queue, ticket, Verdict::Now, now), Turn::Now);
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
        assert_eq!(poll(&mut queue, last, Verdict::Now, now), Turn::Later(None));
        queue.leave(first);
        assert_eq!(poll(&mut queue, last, Verdict::Now, now), Turn::Now);
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

        assert_eq!(poll(&mut queue, second, Verdict::Now, guard), Turn::Now);
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
        poll(&mut queue, head, Verdict::Now, now);
        let later = now + PARKED;
        let count = Arc::new(Count::default());
        queue.poll(third, Verdict::Now, now, &count.clone().into());
        let (turn, watcher) = queue.poll(second, Verdict::Now, later, Waker::noop());
        assert_eq!(turn, Turn::Now);
        watcher.expect("the third watches the second").wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let guard = Turn::Later(Some(later + PARKED));
        assert_eq!(poll(&mut queue, third, Verdict::Now, later), guard);
    }

    #[test]
    fn a_change_wakes_the_head_and_its_successor_only() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let counts: Vec<_> = (0..5).map(|_| Arc::new(Count::default())).collect();
        for count in &counts {
            let ticket = queue.join();
            let waiting = Verdict::Later(Rule::Ring, None);
            queue.poll(ticket, waiting, now, &count.clone().into());
        }
        queue
            .wake(Verdict::Now, now)
            .into_iter()
            .flatten()
            .for_each(Waker::wake);
        let woken: Vec<_> = counts.iter().map(|c| c.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [1, 1, 0, 0, 0]);
    }
}
