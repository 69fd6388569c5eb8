//! The answer ring: what makes pacing exact.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The requests that may count in any window of the server that is open now: those on their way, and those answered
/// within the last window. A request counts at the server somewhere between its sending and its answer, so no assumption
/// on delays is left.
#[derive(Debug)]
pub(super) struct AnswerRing {
    window: Duration,
    in_flight: u32,
    /// Sorted, the oldest first.
    ended: VecDeque<Instant>,
}

impl AnswerRing {
    pub(super) const fn new(window: Duration) -> Self {
        Self {
            window,
            in_flight: 0,
            ended: VecDeque::new(),
        }
    }

    /// The requests that count at `now`.
    pub(super) fn count(&self, now: Instant) -> usize {
        self.in_flight as usize + self.ended.len() - self.first_counting(now)
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When one more request fits beside at most `n - 1` others: `Ok` now, else at an instant, or (`None`) not before
    /// something on its way has ended.
    pub(super) fn fits(&self, n: u32, now: Instant) -> Result<(), Option<Instant>> {
        let Some(over) = self.count(now).checked_sub(n as usize) else {
            return Ok(());
        };
        let leaves = self.ended.get(self.first_counting(now) + over);
        Err(leaves.map(|&ended| ended + self.window))
    }

    pub(super) const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    pub(super) const fn send(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// The server answered: the request counts for a window from now.
    pub(super) fn answered(&mut self, now: Instant) {
        self.end(now, now);
    }

    /// Nobody waits for the answer any more: it may reach the server a little later.
    pub(super) fn lost(&mut self, now: Instant) {
        self.end(now + MAY_STILL_ARRIVE, now);
    }

    /// The server refused it: it does not count.
    pub(super) const fn refused(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn end(&mut self, at: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended.drain(..self.first_counting(now));
        let place = self.ended.partition_point(|&ended| ended <= at);
        self.ended.insert(place, at);
    }

    /// How many at the front have left the window.
    fn first_counting(&self, now: Instant) -> usize {
        self.ended
            .partition_point(|&ended| ended + self.window <= now)
    }
}

const MAY_STILL_ARRIVE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn on_its_way_or_answered_within_the_window_counts() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        ring.send();
        ring.send();
        assert_eq!(
            ring.fits(2, start),
            Err(None),
            "both may still be answered late"
        );
        let answered = start + Duration::from_secs(100);
        ring.answered(answered);
        assert_eq!(ring.fits(2, answered), Err(Some(answered + WINDOW)));
        assert_eq!(ring.fits(2, answered + WINDOW), Ok(()));
        assert_eq!(ring.count(answered + WINDOW), 1);
    }

    #[test]
    fn a_lost_request_counts_a_second_longer_and_a_refused_one_not_at_all() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        for _ in 0..3 {
            ring.send();
        }
        ring.lost(start);
        ring.answered(start);
        ring.refused();
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.count(start), 2);
        assert_eq!(ring.count(start + WINDOW), 1);
        assert_eq!(ring.count(start + WINDOW + MAY_STILL_ARRIVE), 0);
    }

    #[test]
    fn a_smaller_plan_waits_for_as_many_as_are_too_many() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut ring = AnswerRing::new(WINDOW);
        for n in 0..10 {
            ring.send();
            ring.answered(start + second * n);
        }
        let now = start + second * 10;
        assert_eq!(ring.fits(11, now), Ok(()));
        assert_eq!(ring.fits(10, now), Err(Some(start + WINDOW)));
        assert_eq!(ring.fits(4, now), Err(Some(start + second * 6 + WINDOW)));
    }
}
