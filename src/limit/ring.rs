//! The answer ring: what makes pacing exact.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::time::{earlier, later};

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

    pub(super) const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// The requests that count at `now`.
    pub(super) fn count(&self, now: Instant) -> u32 {
        let ended = self.ended.len().saturating_sub(self.first_counting(now));
        self.in_flight.saturating_add(number(ended))
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests that ended within `time` before `now`.
    pub(super) fn ended_within(&self, time: Duration, now: Instant) -> u32 {
        let since = earlier(now, time);
        let before = self.ended.partition_point(|&ended| ended < since);
        number(self.ended.len().saturating_sub(before))
    }

    /// How many more fit beside `n` at most, at least one: `Ok` now, else one does at an instant, or (`None`) not before
    /// something on its way has ended.
    pub(super) fn fitting(&self, n: u32, now: Instant) -> Result<u32, Option<Instant>> {
        let count = self.count(now);
        if count < n {
            return Ok(n.saturating_sub(count));
        }
        let over = usize::try_from(count.saturating_sub(n)).unwrap_or(usize::MAX);
        let leaves = self.first_counting(now).saturating_add(over);
        Err(self
            .ended
            .get(leaves)
            .map(|&ended| later(ended, self.window)))
    }

    /// Whether one more fits beside `n` at most even if none of the requests has left the window.
    pub(super) fn surely_fits(&self, n: u32) -> bool {
        self.in_flight.saturating_add(number(self.ended.len())) < n
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
        self.end(later(now, MAY_STILL_ARRIVE), now);
    }

    /// The server refused it: it does not count.
    pub(super) const fn refused(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn end(&mut self, at: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended.drain(..self.first_counting(now));
        // Mostly the last of all; one that was lost may come before others that were.
        if self.ended.back().is_none_or(|&last| last <= at) {
            self.ended.push_back(at);
            return;
        }
        let place = self.ended.partition_point(|&ended| ended <= at);
        self.ended.insert(place, at);
    }

    /// How many at the front have left the window.
    fn first_counting(&self, now: Instant) -> usize {
        let left = |ended: Instant| later(ended, self.window) <= now;
        // Mostly none has, or the one at the front: answers that left are taken away with each that comes.
        match (self.ended.front(), self.ended.get(1)) {
            (Some(&first), _) if !left(first) => 0,
            (Some(_), Some(&second)) if !left(second) => 1,
            _ => self.ended.partition_point(|&ended| left(ended)),
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How long after nobody waits for it any more a request may still reach the server.
pub(super) const MAY_STILL_ARRIVE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
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
            ring.fitting(2, start),
            Err(None),
            "both may still be answered late"
        );
        let answered = start + Duration::from_secs(100);
        ring.answered(answered);
        assert_eq!(ring.fitting(2, answered), Err(Some(answered + WINDOW)));
        assert_eq!(ring.fitting(2, answered + WINDOW), Ok(1));
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
        assert_eq!(ring.fitting(11, now), Ok(1));
        assert_eq!(ring.fitting(15, now), Ok(5));
        assert_eq!(ring.ended_within(second * 2, now), 2);
        assert_eq!(ring.fitting(10, now), Err(Some(start + WINDOW)));
        assert_eq!(ring.fitting(4, now), Err(Some(start + second * 6 + WINDOW)));
    }
}
