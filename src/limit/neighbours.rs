//! Others who use the same key, seen by what the server counts beyond our own requests.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::{Span, later, scaled};

/// While others are seen, all go more slowly the less is left, each by the same rule and hence in fair shares, and the
/// last few of a window are left to whoever has something on its way.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// How many requests the server counts beyond the most that we can have sent.
    others: u32,
    /// When they were last seen.
    seen: Option<Instant>,
    /// Shared even if none are seen until then.
    shared_until: Option<Instant>,
    /// How many processes there seem to be: what is counted for each request of ours.
    processes: u32,
    /// The highest Remaining ever.
    most: u32,
    /// When the last answer with headers came.
    answered: Option<Instant>,
    /// The server gives its requests back one by one, as far as is known.
    slides_until: Option<Instant>,
    /// When the window ends, as far as `Date` tells: only a hint.
    reset: Option<Instant>,
}

/// What an answer told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// The most requests of ours that the server can have counted.
    pub(super) ours: u32,
    /// When the window ends, as far as is known.
    pub(super) reset: Instant,
}

impl Neighbours {
    /// Whether the key is shared, as far as is known.
    pub(super) fn are_seen(&self, now: Instant) -> bool {
        self.others > 0 || self.shared_until.is_some_and(|until| now < until)
    }

    /// How many requests of others the server counts.
    pub(super) const fn others(&self) -> u32 {
        self.others
    }

    pub(super) fn answered(&mut self, heard: Heard, plan: u32, now: Instant) {
        let counted = heard.limit.saturating_sub(heard.remaining);
        self.set_others(
            heard
                .limit
                .min(plan)
                .saturating_sub(heard.remaining)
                .saturating_sub(heard.ours),
            now,
        );
        self.processes = counted.div_ceil(heard.ours.max(1)).clamp(2, 8);
        self.most = self.most.max(heard.remaining);
        self.answered = Some(now);
        self.reset = Some(heard.reset);
    }

    pub(super) fn refused(&mut self, heard: Heard, now: Instant) {
        let others = heard.limit.saturating_sub(heard.remaining);
        self.set_others(others.saturating_sub(heard.ours), now);
        self.reset = Some(heard.reset);
    }

    fn set_others(&mut self, others: u32, now: Instant) {
        self.others = others;
        if others > 0 {
            self.seen = Some(now);
        }
    }

    /// More was counted in one window than we sent: the key is shared for a while.
    pub(super) fn share(&mut self, span: Span, now: Instant) {
        self.seen = Some(now);
        self.shared_until = Some(later(now, for_a_while(span)));
    }

    /// Whether nobody else was seen for so long that a window may be taken for ours alone.
    pub(super) fn are_gone(&self, span: Span, now: Instant) -> bool {
        self.gone_at(span).is_none_or(|gone| gone <= now)
    }

    /// When they are gone, if they are not seen again; `None` where they never were.
    pub(super) fn gone_at(&self, span: Span) -> Option<Instant> {
        match self.seen {
            Some(at) => self.shared_until.max(Some(later(at, for_a_while(span)))),
            None => self.shared_until,
        }
    }

    /// Whether the last answer fell into a time in which the key was shared for a while.
    pub(super) fn shared_for_a_while(&self, now: Instant) -> bool {
        self.shared_until.is_some_and(|until| now < until)
    }

    /// Remaining rose without a new window.
    pub(super) fn slides(&mut self, span: Span, now: Instant) {
        self.slides_until = Some(later(now, span.longest.saturating_mul(10)));
    }

    /// Answers carry headers no longer.
    pub(super) const fn unheard(&mut self) {
        self.others = 0;
    }

    /// The plan changed, and what is left with it.
    pub(super) const fn forget_most(&mut self) {
        self.most = 0;
    }

    /// How long a step is when `remaining` are left: an interval as long as enough are, eight when none are.
    pub(super) fn step(&self, interval: Duration, plan: u32, remaining: u32) -> Duration {
        let enough = (plan / 20).max(3).min(self.most / 2);
        if enough == 0 {
            return interval;
        }
        let missing = enough.saturating_sub(remaining);
        let weight = enough.saturating_add(missing.saturating_mul(7));
        scaled(interval, weight, enough)
    }

    /// How many must be left for another to be sent.
    pub(super) fn needed(&self) -> u32 {
        if self.is_sliding() {
            return 1;
        }
        self.processes.min(self.most / 2).max(1)
    }

    /// Our share of `requests` that are left for all.
    pub(super) fn share_of(&self, requests: u32) -> u32 {
        requests.checked_div(self.processes).unwrap_or(requests)
    }

    /// When one may be sent although less is left than needed and nothing is on its way: a step after the last answer where
    /// requests are given back one by one, else after the window.
    pub(super) fn retry(&self, step: Duration) -> Option<Instant> {
        if self.is_sliding() {
            self.answered.map(|answered| later(answered, step))
        } else {
            self.reset
        }
    }

    /// Judged when the last answer came, so that time alone makes nothing later.
    pub(super) fn is_sliding(&self) -> bool {
        self.answered < self.slides_until
    }
}

fn for_a_while(span: Span) -> Duration {
    span.longest.saturating_mul(5)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn span() -> Span {
        Span::new(60 * SECOND)
    }

    fn heard(remaining: u32, ours: u32) -> Heard {
        Heard {
            limit: 100,
            remaining,
            ours,
            reset: Instant::now(),
        }
    }

    #[test]
    fn others_are_what_we_cannot_have_sent() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        neighbours.answered(heard(60, 40), 100, now);
        assert!(!neighbours.are_seen(now));
        assert!(neighbours.are_gone(span(), now));
        neighbours.answered(heard(59, 40), 100, now);
        assert_eq!(neighbours.others(), 1);
        assert!(neighbours.are_seen(now));
        neighbours.answered(heard(30, 40), 70, now);
        assert_eq!(neighbours.others(), 0, "of a share of the limit");
        assert!(!neighbours.are_seen(now));
        assert!(!neighbours.are_gone(span(), now), "they were here just now");
        let later = now + 5 * span().longest;
        assert!(neighbours.are_gone(span(), later));
    }

    #[test]
    fn a_window_with_more_than_ours_is_shared_for_five() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        neighbours.share(span(), now);
        let end = now + 5 * span().longest;
        let before = end - Duration::from_nanos(1);
        assert!(neighbours.are_seen(before) && !neighbours.are_gone(span(), before));
        assert!(!neighbours.are_seen(end) && neighbours.are_gone(span(), end));
    }

    #[test]
    fn the_emptier_the_window_the_longer_the_step() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.step(SECOND, 100, 0), SECOND, "nothing is known");
        neighbours.answered(heard(99, 1), 100, now);
        let steps = [5, 4, 3, 0].map(|remaining| neighbours.step(5 * SECOND, 100, remaining));
        assert_eq!(steps, [5 * SECOND, 12 * SECOND, 19 * SECOND, 40 * SECOND]);
    }

    #[test]
    fn as_many_are_left_alone_as_there_are_processes() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        neighbours.answered(heard(99, 1), 100, now);
        assert_eq!(neighbours.needed(), 2);
        neighbours.answered(heard(40, 20), 100, now);
        assert_eq!(neighbours.needed(), 3);
        neighbours.answered(heard(0, 1), 100, now);
        assert_eq!(neighbours.needed(), 8);
        neighbours.slides(span(), now);
        assert_eq!(neighbours.needed(), 1);
        assert_eq!(neighbours.retry(SECOND), Some(now + SECOND));
    }
}
