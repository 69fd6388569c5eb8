//! The answer ring: what makes pacing exact.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::time::{earlier, later};

/// The requests that may count in any window of the server that is open now: those on their way, and those answered
/// within the last window. A request counts at the server somewhere between its sending and its answer, so no assumption
/// on delays is left, but that an answer comes within ten windows, or never.
#[derive(Debug)]
pub(super) struct AnswerRing {
    window: Duration,
    /// The longest window there was: it may come back.
    longest: Duration,
    /// Those on their way, by their numbers and when they were sent, the oldest first.
    out: VecDeque<(u64, Instant)>,
    /// Sorted, the oldest first.
    ended: VecDeque<Instant>,
    /// All that are here count until this instant; `None` where that has to be looked up. It saves the usual request the
    /// arithmetic on time.
    settled_until: Option<Instant>,
}

impl AnswerRing {
    pub(super) const fn new(window: Duration) -> Self {
        Self {
            window,
            longest: window,
            out: VecDeque::new(),
            ended: VecDeque::new(),
            settled_until: None,
        }
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
        self.longest = self.longest.max(window);
        self.settled_until = None;
    }

    /// The requests that count at `now`.
    pub(super) fn count(&self, now: Instant) -> u32 {
        let mut all = self.out.len().saturating_add(self.ended.len());
        if !self.is_settled(now) {
            all = all.saturating_sub(self.first_counting(now));
            all = all.saturating_sub(self.first_awaited(now));
        }
        number(all)
    }

    /// Those on their way.
    pub(super) fn in_flight(&self) -> u32 {
        number(self.out.len())
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
        let all = self.out.len().saturating_add(self.ended.len());
        number(all) < n
    }

    /// A request leaves. Returns how many count now, itself among them.
    pub(super) fn send(&mut self, number: u64, now: Instant) -> u32 {
        self.forget_past(now);
        self.out.push_back((number, now));
        self.count(now)
    }

    /// The server answered: the request counts for a window from now.
    pub(super) fn answered(&mut self, number: u64, now: Instant) {
        self.end(number, now, now);
    }

    /// Nobody waits for the answer any more: it may reach the server a little later.
    pub(super) fn lost(&mut self, number: u64, now: Instant) {
        self.end(number, later(now, MAY_STILL_ARRIVE), now);
    }

    /// The server refused it: it does not count.
    pub(super) fn refused(&mut self, number: u64) {
        // Mostly the oldest.
        if self.out.front().is_some_and(|&(out, _)| out == number) {
            self.out.pop_front();
            return;
        }
        let place = self.out.binary_search_by_key(&number, |&(out, _)| out);
        if let Ok(place) = place {
            self.out.remove(place);
        }
    }

    fn end(&mut self, number: u64, at: Instant, now: Instant) {
        self.refused(number);
        self.forget_past(now);
        // Mostly the last of all; one that was lost may come before others that were.
        if self.ended.back().is_some_and(|&last| last <= at) {
            self.ended.push_back(at);
            return;
        }
        let place = self.ended.partition_point(|&ended| ended <= at);
        self.ended.insert(place, at);
        self.settled_until = None;
    }

    fn is_settled(&self, now: Instant) -> bool {
        self.settled_until.is_some_and(|until| now < until)
    }

    /// Forgets those that will count no more.
    fn forget_past(&mut self, now: Instant) {
        if self.is_settled(now) {
            return;
        }
        let leaked = self.first_awaited(now);
        self.out.drain(..leaked);
        let left = self.first_counting(now);
        let spare = left.saturating_sub(SPARE);
        let past = self.first_within(self.longest, now);
        self.ended.drain(..past.max(spare));
        // Whatever is sent after this one is given up later than that.
        let oldest = self.out.front();
        let given_up = oldest.map(|&(_, sent)| later(sent, self.patience()));
        let first = self.ended.front();
        let leaves = first.map(|&ended| later(ended, self.window));
        self.settled_until = given_up.into_iter().chain(leaves).min();
    }

    /// How many of the oldest have been on their way for so long that no answer will come: their futures were leaked.
    fn first_awaited(&self, now: Instant) -> usize {
        let patience = self.patience();
        let leaked = |&(_, sent): &(u64, Instant)| later(sent, patience) <= now;
        // Mostly not even the oldest was.
        if !self.out.front().is_some_and(leaked) {
            return 0;
        }
        self.out.partition_point(leaked)
    }

    fn patience(&self) -> Duration {
        self.window.saturating_mul(10).max(PATIENCE)
    }

    /// How many at the front have left the window.
    fn first_counting(&self, now: Instant) -> usize {
        self.first_within(self.window, now)
    }

    fn first_within(&self, window: Duration, now: Instant) -> usize {
        let left = |ended: Instant| later(ended, window) <= now;
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

/// How many are kept for a longer window that may come back: a megabyte.
const SPARE: usize = 1 << 16;
/// Whoever sends to a window of seconds may still wait for minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long after nobody waits for it any more a request may still reach the server.
pub(super) const MAY_STILL_ARRIVE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn on_its_way_or_answered_within_the_window_counts() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        ring.send(0, start);
        ring.send(1, start);
        assert_eq!(
            ring.fitting(2, start),
            Err(None),
            "both may still be answered late"
        );
        let answered = start + Duration::from_secs(100);
        ring.answered(0, answered);
        assert_eq!(ring.fitting(2, answered), Err(Some(answered + WINDOW)));
        assert_eq!(ring.fitting(2, answered + WINDOW), Ok(1));
        assert_eq!(ring.count(answered + WINDOW), 1);
    }

    #[test]
    fn a_lost_request_counts_a_second_longer_and_a_refused_one_not_at_all() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        for number in 0..3 {
            ring.send(number, start);
        }
        ring.lost(1, start);
        ring.answered(0, start);
        ring.refused(2);
        assert_eq!(ring.in_flight(), 0);
        assert_eq!(ring.count(start), 2);
        assert_eq!(ring.count(start + WINDOW), 1);
        assert_eq!(ring.count(start + WINDOW + MAY_STILL_ARRIVE), 0);
    }

    #[test]
    fn a_longer_window_that_comes_back_finds_all_of_its_requests() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut ring = AnswerRing::new(WINDOW);
        for n in 0..10 {
            if n == 5 {
                ring.set_window(second);
            }
            let at = start + 2 * second * n;
            ring.send(n.into(), at);
            ring.answered(n.into(), at);
        }
        let now = start + 2 * second * 9;
        assert_eq!(ring.count(now), 1);
        ring.set_window(WINDOW);
        assert_eq!(ring.count(now), 10);
        ring.send(10, now);
        ring.answered(10, now + WINDOW);
        assert_eq!(ring.ended.len(), 1, "none is kept for longer");
    }

    #[test]
    fn a_longer_window_that_was_once_costs_a_megabyte_at_most() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        ring.set_window(Duration::from_millis(1));
        let end = u32::try_from(SPARE).unwrap() + 1_000;
        for n in 0..end {
            let at = start + Duration::from_micros(100) * n;
            ring.send(n.into(), at);
            ring.answered(n.into(), at);
        }
        let counting = 10;
        assert_eq!(ring.ended.len(), SPARE + counting);
    }

    #[test]
    fn a_smaller_plan_waits_for_as_many_as_are_too_many() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut ring = AnswerRing::new(WINDOW);
        for n in 0..10 {
            ring.send(n.into(), start);
            ring.answered(n.into(), start + second * n);
        }
        let now = start + second * 10;
        assert_eq!(ring.fitting(11, now), Ok(1));
        assert_eq!(ring.fitting(15, now), Ok(5));
        assert_eq!(ring.ended_within(second * 2, now), 2);
        assert_eq!(ring.fitting(10, now), Err(Some(start + WINDOW)));
        assert_eq!(ring.fitting(4, now), Err(Some(start + second * 6 + WINDOW)));
    }

    /// As many leaked futures as the plan has requests stopped all others for ever.
    #[test]
    fn what_is_not_answered_within_ten_windows_never_is() {
        let start = Instant::now();
        let mut ring = AnswerRing::new(WINDOW);
        ring.send(0, start);
        ring.send(1, start + WINDOW);
        let given_up = start + 10 * WINDOW;
        assert_eq!(
            ring.fitting(2, given_up - Duration::from_nanos(1)),
            Err(None)
        );
        assert_eq!(ring.fitting(2, given_up), Ok(1));
        ring.send(2, given_up);
        assert_eq!((ring.in_flight(), ring.count(given_up)), (2, 2));
        ring.answered(0, given_up);
        assert_eq!(ring.in_flight(), 2, "it was not among them any more");
        assert_eq!(ring.count(given_up), 3, "but it counts");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send,
        Answered(usize),
        Lost(usize),
        Refused(usize),
        Window(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Send),
            2 => any::<usize>().prop_map(Step::Answered),
            1 => any::<usize>().prop_map(Step::Lost),
            1 => any::<usize>().prop_map(Step::Refused),
            // No longer than the first: what was given up does not come back.
            1 => (1_u64..=60).prop_map(Step::Window),
            3 => (0_u64..70_000).prop_map(Step::Wait),
            1 => (0_u64..700_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whether all are known to count is kept from look to look, and must be what looking would show.
        #[test]
        fn it_counts_what_each_request_by_itself_shows(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let start = Instant::now();
            let (mut now, mut window) = (start, WINDOW);
            let mut ring = AnswerRing::new(window);
            let (mut out, mut ended) = (Vec::<(u64, Instant)>::new(), Vec::<Instant>::new());
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Send => {
                        out.push((number, now));
                        ring.send(number, now);
                    }
                    Step::Window(seconds) => {
                        window = Duration::from_secs(seconds);
                        ring.set_window(window);
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Answered(n) | Step::Lost(n) | Step::Refused(n) if !out.is_empty() => {
                        let (number, _) = out.swap_remove(n % out.len());
                        match step {
                            Step::Answered(_) => {
                                ended.push(now);
                                ring.answered(number, now);
                            }
                            Step::Lost(_) => {
                                ended.push(now + MAY_STILL_ARRIVE);
                                ring.lost(number, now);
                            }
                            _ => ring.refused(number),
                        }
                    }
                    _ => {}
                }
                let awaited = out.iter().filter(|(_, sent)| now < *sent + PATIENCE).count();
                let counting = ended.iter().filter(|&&ended| now < ended + window).count();
                prop_assert_eq!(ring.count(now) as usize, awaited + counting);
            }
        }
    }
}
