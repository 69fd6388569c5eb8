//! Burst, earned by idleness only.
#![warn(clippy::arithmetic_side_effects)]

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::{
    cut::Cut,
    pacer::LATENESS,
    time::{Span, later},
};

/// How many requests may leave at once after a time without any: one for each interval of it, up to a quarter of the plan
/// where the server says what is left, up to a twentieth where it does not. A time in which requests waited earns
/// nothing. In the first window after the start nothing is earned either, since an earlier process may have used it, unless
/// the server says that nobody did.
#[derive(Debug)]
pub(super) struct Credit {
    /// The most that is earned; `Some` where the user set it.
    set: Option<NonZeroU32>,
    /// Answers carry rate headers.
    seen: bool,
    start: Start,
    /// How often it was halved, because it was refused soon after it had been used.
    halved: u32,
    cut: Cut,
    used: Option<Instant>,
    /// When the server's first word was that its window is unused: those who waited for it may go at once.
    given: Option<Instant>,
}

#[derive(Debug)]
enum Start {
    NothingSent,
    Since(Instant),
    /// The server said that its window is unused.
    Unused,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self {
            set: None,
            seen: false,
            start: Start::NothingSent,
            halved: 0,
            cut: Cut::default(),
            used: None,
            given: None,
        }
    }

    pub(super) const fn set_most(&mut self, most: NonZeroU32) {
        self.set = Some(most);
    }

    /// The most that may leave at once.
    pub(super) fn most(&self, plan: u32) -> u32 {
        let most = match self.set {
            Some(most) => most.get().min(plan),
            None if self.seen => plan / 4,
            None => plan / 20,
        };
        most.checked_shr(self.halved).unwrap_or(0).max(1)
    }

    /// How much of the time before `now` counts for a request that did not wait.
    pub(super) fn earned(
        &self,
        plan: u32,
        interval: Duration,
        span: Span,
        now: Instant,
    ) -> Duration {
        match self.start {
            Start::NothingSent => return LATENESS,
            Start::Since(start) if now < later(start, span.longest) => return LATENESS,
            Start::Since(_) | Start::Unused => {}
        }
        let more = self.most(plan).saturating_sub(1);
        interval.saturating_mul(more).max(LATENESS)
    }

    pub(super) const fn sees_headers(&self) -> bool {
        self.seen
    }

    /// Whether to have waited since `since` costs nothing: it was for the word that the window is unused.
    pub(super) fn forgives(&self, since: Instant) -> bool {
        self.given.is_some_and(|given| since <= given)
    }

    /// A request left; `more` could follow at once, because of credit.
    pub(super) fn sent(&mut self, more: bool, now: Instant) {
        if let Start::NothingSent = self.start {
            self.start = Start::Since(now);
        }
        if more {
            self.used = Some(now);
        }
        if self.cut.is_over(now) {
            self.halved = self.halved.saturating_sub(1);
            self.cut.gave_back(self.halved > 0, now);
        }
    }

    /// An answer carries headers. Returns whether all credit is there at once: `unused` is whether nobody used the window
    /// before us, as far as they tell.
    pub(super) fn heard(&mut self, unused: bool, span: Span, now: Instant) -> bool {
        let first = !self.seen;
        self.seen = true;
        let Start::Since(start) = self.start else {
            return false;
        };
        let is_given = first && unused && now < later(start, span.longest);
        if is_given {
            self.start = Start::Unused;
            self.given = Some(now);
        }
        is_given
    }

    /// Answers carry headers no longer.
    pub(super) const fn unheard(&mut self) {
        self.seen = false;
    }

    /// The server refused a paced request. Returns whether that was due to credit used within two windows, which is halved
    /// then.
    pub(super) fn refused(&mut self, plan: u32, span: Span, now: Instant) -> bool {
        let blamed = span.longest.saturating_mul(2);
        if self.used.is_none_or(|used| later(used, blamed) <= now) {
            return false;
        }
        if self.most(plan) > 1 {
            self.halved = self.halved.saturating_add(1);
            self.cut.take(now);
        }
        true
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_millis(600);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn span() -> Span {
        Span::new(Duration::from_secs(60))
    }

    #[test]
    fn nothing_is_earned_in_the_first_window_after_the_start() {
        let start = Instant::now();
        let mut credit = Credit::new();
        assert_eq!(credit.earned(100, T, span(), start), LATENESS);
        credit.sent(false, start);
        let end = start + span().longest;
        let before = end - Duration::from_nanos(1);
        assert_eq!(credit.earned(100, T, span(), before), LATENESS);
        assert_eq!(credit.earned(100, T, span(), end), 4 * T);
        credit.heard(false, span(), end);
        assert_eq!(credit.earned(100, T, span(), end), 24 * T);
        assert_eq!(credit.earned(3, T, span(), end), LATENESS);
        credit.unheard();
        assert_eq!(credit.earned(100, T, span(), end), 4 * T);
    }

    #[test]
    fn an_unused_window_gives_all_at_once_at_the_first_word_only() {
        let start = Instant::now();
        let mut credit = Credit::new();
        credit.sent(false, start);
        assert!(credit.heard(true, span(), start));
        assert_eq!(credit.earned(100, T, span(), start), 24 * T);
        assert!(credit.forgives(start));
        assert!(!credit.forgives(start + T), "it waited for something else");
        assert!(!credit.heard(true, span(), start));
    }

    #[test]
    fn the_word_that_the_window_is_used_gives_nothing() {
        let start = Instant::now();
        let mut credit = Credit::new();
        credit.sent(false, start);
        assert!(!credit.heard(false, span(), start));
        assert!(!credit.heard(true, span(), start));
        assert_eq!(credit.earned(100, T, span(), start), LATENESS);
    }

    #[test]
    fn what_is_refused_soon_after_it_was_used_is_halved_for_a_while() {
        let start = Instant::now();
        let mut credit = Credit::new();
        credit.set_most(NonZeroU32::new(9).unwrap());
        assert!(!credit.refused(100, span(), start), "none was used");
        credit.sent(true, start);
        let late = start + 2 * span().longest;
        assert!(!credit.refused(100, span(), late));
        assert_eq!(credit.most(100), 9);
        for most in [4, 2, 1, 1] {
            assert!(credit.refused(100, span(), start));
            assert_eq!(credit.most(100), most);
        }
        for most in [2, 4, 9, 9] {
            credit.sent(false, start + 8 * HOUR * most);
            assert_eq!(credit.most(100), most);
        }
        assert_eq!(credit.most(5), 5, "never more than the plan");
    }
}
