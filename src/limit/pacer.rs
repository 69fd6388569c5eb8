//! Pacing: requests leave in even steps.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::{Span, earlier, later, scaled};

/// The ground state of the limiter: one request each interval, so that no window of the server, wherever it begins, sees
/// more than the plan.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    window: Duration,
    /// The theoretical arrival time: no request leaves before it. `None` until the first.
    tat: Option<Instant>,
    /// When the last request left.
    last: Option<Instant>,
}

impl Pacer {
    /// Steps that spread `n` requests over a window and [`JITTER`], rounded up.
    pub(super) fn new(n: u32, span: Span) -> Self {
        Self {
            interval: interval(n, span),
            window: span.longest,
            tat: None,
            last: None,
        }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// When the next request may leave, at the earliest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.tat
    }

    /// When an interval has passed since the last one.
    pub(super) fn spaced(&self) -> Option<Instant> {
        self.last.map(|last| later(last, self.interval))
    }

    /// When it may leave if idleness earned nothing.
    pub(super) fn due_without_credit(&self) -> Option<Instant> {
        self.tat.max(self.spaced())
    }

    /// When it may leave if the steps are as long as `step`, which is no shorter than the interval.
    pub(super) fn due_by_steps_of(&self, step: Duration) -> Option<Instant> {
        let more = step.saturating_sub(self.interval);
        self.tat.map(|tat| later(tat, more))
    }

    /// How many may leave at once at `now` where `credit` of the time before counts.
    pub(super) fn fitting(&self, credit: Duration, now: Instant) -> u32 {
        let base = self.base(credit, now);
        let Some(unused) = now.checked_duration_since(base) else {
            return 0;
        };
        let more = unused.as_nanos().checked_div(self.interval.as_nanos());
        more.and_then(|more| u32::try_from(more).ok())
            .map_or(u32::MAX, |more| more.saturating_add(1))
    }

    /// A request leaves at `now`, and `credit` of the time before counts. Returns whether another could follow at once.
    pub(super) fn charge(&mut self, credit: Duration, now: Instant) -> bool {
        let mut base = self.base(credit, now);
        if base > now {
            base = base.min(later(now, self.window));
        }
        let next = later(base, self.interval);
        self.tat = Some(next);
        self.last = Some(now);
        next <= now
    }

    /// Nothing leaves before `until`.
    pub(super) fn push_to(&mut self, until: Instant) {
        self.tat = self.tat.max(Some(until));
    }

    /// All of `credit` is there at `now`.
    pub(super) fn give(&mut self, credit: Duration, now: Instant) {
        self.tat = self.tat.map(|tat| tat.min(earlier(now, credit)));
    }

    pub(super) fn set_rate(&mut self, n: u32, span: Span) {
        let old = self.interval;
        self.interval = interval(n, span);
        self.window = span.longest;
        // The step that was charged last is as long as the new ones.
        self.tat = self.tat.map(|tat| later(earlier(tat, old), self.interval));
    }

    fn base(&self, credit: Duration, now: Instant) -> Instant {
        self.tat
            .map_or(now, |tat| tat.max(earlier(now, credit.max(LATENESS))))
    }
}

fn interval(n: u32, span: Span) -> Duration {
    scaled(span.longest.saturating_add(JITTER), 1, n)
}

/// How much the way to the server may differ from request to request.
const JITTER: Duration = Duration::from_millis(250);
/// A timer fires late, never early; what it is late is not lost.
pub(super) const LATENESS: Duration = Duration::from_millis(5);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    fn pacer(n: u32) -> Pacer {
        Pacer::new(n, Span::new(Duration::from_secs(60)))
    }

    #[test]
    fn the_interval_is_rounded_up() {
        assert_eq!(pacer(1_000).interval().as_nanos(), 60_262_000);
        assert_eq!(pacer(7).interval().as_nanos(), 8_608_857_143);
    }

    #[test]
    fn a_late_timer_costs_nothing_and_idleness_earns_nothing_by_itself() {
        let start = Instant::now();
        let mut pacer = pacer(100);
        let step = pacer.interval();
        assert_eq!(pacer.due(), None);
        assert!(!pacer.charge(Duration::ZERO, start));
        assert_eq!(pacer.due(), Some(start + step));
        assert_eq!(pacer.fitting(Duration::ZERO, start), 0);

        let late = start + step + Duration::from_millis(3);
        assert_eq!(pacer.fitting(Duration::ZERO, late), 1);
        pacer.charge(Duration::ZERO, late);
        assert_eq!(pacer.due(), Some(start + step * 2));

        let idle = start + step * 50;
        pacer.charge(Duration::ZERO, idle);
        assert_eq!(pacer.due(), Some(idle - LATENESS + step));
    }

    #[test]
    fn credit_lets_one_more_leave_for_each_interval_of_it() {
        let start = Instant::now();
        let mut pacer = pacer(100);
        let step = pacer.interval();
        pacer.charge(Duration::ZERO, start);
        let idle = start + step * 50;
        let credit = step * 4;
        for left in (0..5).rev() {
            assert_eq!(pacer.fitting(credit, idle), left + 1);
            assert_eq!(pacer.charge(credit, idle), left > 0);
        }
        assert_eq!(pacer.fitting(credit, idle), 0);
        assert_eq!(pacer.due(), Some(idle + step));
        assert_eq!(pacer.due_without_credit(), Some(idle + step));
    }

    #[test]
    fn a_given_credit_is_there_at_once() {
        let start = Instant::now();
        let mut pacer = pacer(100);
        let credit = pacer.interval() * 24;
        pacer.charge(Duration::ZERO, start);
        pacer.give(credit, start);
        assert_eq!(pacer.fitting(credit, start), 25);
        let spaced = start + pacer.interval();
        assert_eq!(pacer.due_without_credit(), Some(spaced));
    }

    #[test]
    fn debts_are_a_window_at_most_and_a_new_rate_counts_from_the_last_request() {
        let start = Instant::now();
        let mut pacer = pacer(1);
        for _ in 0..10 {
            pacer.charge(Duration::ZERO, start);
        }
        let (window, step) = (Duration::from_millis(60_012), pacer.interval());
        assert_eq!(pacer.due(), Some(start + window + step));
        pacer.set_rate(100, Span::new(Duration::from_secs(60)));
        assert_eq!(pacer.due(), Some(start + window + pacer.interval()));
        let slower = pacer.interval() * 3;
        let steps = pacer.due_by_steps_of(slower);
        assert_eq!(steps, Some(start + window + slower));
    }
}
