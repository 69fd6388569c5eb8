//! What the server says about the rate, and what is left by it.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

/// What the rate headers of one answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// When the window ends, or what the server takes for that; since 1970 by the server's clock, whatever that shows.
    pub(super) reset: Option<Duration>,
    /// What the clock by which Reset is told showed then; since 1970. It is ours where Reset was a wait, and the answer had
    /// no `Date`.
    pub(super) date: Option<Duration>,
    /// How long the window is; `Some` where the server says it plainly.
    pub(super) window: Option<Duration>,
}

/// How many requests the server would take now: the last Remaining, less what is on its way. The smaller of two answers
/// counts where their order is not known.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// `Some` while answers carry headers.
    remaining: Option<u32>,
    /// When the answer with this Remaining came.
    since: Option<Instant>,
}

impl Left {
    /// A request that was sent at `sent` is answered at `now`.
    pub(super) fn answered(&mut self, sent: Instant, remaining: u32, now: Instant) {
        let is_later = self.since.is_none_or(|since| sent >= since);
        if is_later || self.remaining.is_none_or(|least| remaining < least) {
            self.set(remaining, now);
        }
    }

    pub(super) const fn set(&mut self, remaining: u32, now: Instant) {
        self.remaining = Some(remaining);
        self.since = Some(now);
    }

    pub(super) const fn forget(&mut self) {
        self.remaining = None;
    }

    pub(super) const fn remaining(&self) -> Option<u32> {
        self.remaining
    }
}

/// Requests that ended without headers: whether they counted is not known before a later request's answer shows it.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    count: u32,
    /// When the last of them had surely arrived.
    until: Option<Instant>,
}

impl Unknown {
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// A request ended without headers, and had reached the server by `until`, if ever.
    pub(super) fn add(&mut self, until: Instant) {
        self.count = self.count.saturating_add(1);
        self.until = self.until.max(Some(until));
    }

    /// An answer with headers came to a request that was sent at `sent`.
    pub(super) fn answered(&mut self, sent: Instant) {
        if self.until.is_none_or(|until| until <= sent) {
            self.count = 0;
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_smaller_remaining_counts_until_a_later_request_shows_more() {
        let start = Instant::now();
        let mut left = Left::default();
        assert_eq!(left.remaining(), None);
        left.answered(start, 50, start + SECOND);
        left.answered(start, 49, start + 2 * SECOND);
        left.answered(start + SECOND, 99, start + 3 * SECOND);
        assert_eq!(left.remaining(), Some(49), "sent before the 49 was known");
        left.answered(start + 2 * SECOND, 99, start + 4 * SECOND);
        assert_eq!(left.remaining(), Some(99));
        left.answered(start + 2 * SECOND, 98, start + 5 * SECOND);
        assert_eq!(left.remaining(), Some(98));
    }

    #[test]
    fn what_ended_without_headers_is_cleared_by_a_later_request_only() {
        let start = Instant::now();
        let mut unknown = Unknown::default();
        unknown.add(start + SECOND);
        unknown.add(start);
        unknown.answered(start);
        assert_eq!(unknown.count(), 2);
        unknown.answered(start + SECOND);
        assert_eq!(unknown.count(), 0);
    }
}
