//! The jump proof: tells a server that counts in windows from all others.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::Span;

/// Compares answers whose order is known. A bucket or a sliding counter gives its requests back evenly, and a log only
/// when it forgets them: no Remaining of theirs rises by more than the rate while our last requests still count. Where it
/// does, a window was reset. (A constant Reset with a falling Remaining proves nothing: all kinds look so from a cold
/// start.)
#[derive(Debug, Default)]
pub(super) struct JumpProof {
    last: Option<Answer>,
}

/// An answer that told a Remaining.
#[derive(Clone, Copy, Debug)]
struct Answer {
    sent: Instant,
    received: Instant,
    remaining: u32,
    window: u64,
}

/// How Remaining changed from one answer to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    /// It fell, or the order of the two is not known.
    No,
    /// It rose although no window was reset.
    Slow,
    /// It rose, and a window was reset.
    Jump,
}

/// What an answer's Remaining is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// The most requests that the server may give back in a window.
    pub(super) rate: u32,
    /// Our other answers within [`surely_counting`].
    pub(super) recent: u32,
    /// The number of its window, by the Resets; 0 where none is known.
    pub(super) window: u64,
    /// That window's Reset is a whole window after the last one's.
    pub(super) is_whole: bool,
}

impl JumpProof {
    /// A request that was sent at `sent` is answered at `now`.
    pub(super) fn compare(
        &mut self,
        sent: Instant,
        count: Count,
        span: Span,
        now: Instant,
    ) -> Rise {
        let rise = match self.last {
            // Sent before the other's answer came: which of the two was counted first is not known.
            Some(last) if sent < last.received => return Rise::No,
            Some(last) => last.rise(count, span, now),
            None => Rise::No,
        };
        self.set(sent, count.remaining, count.window, now);
        rise
    }

    /// The next answers are compared with this one.
    pub(super) const fn set(&mut self, sent: Instant, remaining: u32, window: u64, now: Instant) {
        self.last = Some(Answer {
            sent,
            received: now,
            remaining,
            window,
        });
    }
}

impl Answer {
    fn rise(self, count: Count, span: Span, now: Instant) -> Rise {
        if count.remaining <= self.remaining || self.window == 0 {
            return Rise::No;
        }
        let windows = count.window.saturating_sub(self.window);
        if windows == 0 || windows == 1 && !count.is_whole {
            return Rise::Slow;
        }
        let elapsed = now.saturating_duration_since(self.sent);
        let expected = u64::from(self.remaining)
            .saturating_add(2)
            .saturating_add(given_back(count.rate, elapsed, span.named));
        let of_a_log = count.limit.saturating_sub(count.recent);
        let is_jump = u64::from(count.remaining) >= expected && count.remaining > of_a_log;
        if windows == 1 && is_jump {
            Rise::Jump
        } else {
            Rise::No
        }
    }
}

/// What a server of `rate` requests in a window gives back within `elapsed`, and a tenth more; rounded up.
fn given_back(rate: u32, elapsed: Duration, window: Duration) -> u64 {
    let product = elapsed
        .as_nanos()
        .saturating_mul(u128::from(rate))
        .saturating_mul(11);
    let window = window.as_nanos().saturating_mul(10).max(1);
    u64::try_from(product.div_ceil(window)).unwrap_or(u64::MAX)
}

/// For how long an answered request surely counts on a sliding log.
pub(super) const fn surely_counting(span: Span) -> Duration {
    span.named.saturating_sub(Duration::from_secs(2))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn count(remaining: u32, recent: u32) -> Count {
        Count {
            limit: 100,
            remaining,
            rate: 100,
            recent,
            window: 2,
            is_whole: true,
        }
    }

    /// The rise from 20 to `next`, sent two seconds later and answered after one more.
    fn rise(next: Count) -> Rise {
        let start = Instant::now();
        let span = Span::new(60 * SECOND);
        let mut proof = JumpProof::default();
        let before = Count {
            window: 1,
            ..count(20, 79)
        };
        let first = proof.compare(start, before, span, start + SECOND);
        assert_eq!(first, Rise::No, "nothing to compare with");
        let (sent, now) = (start + 2 * SECOND, start + 3 * SECOND);
        proof.compare(sent, next, span, now)
    }

    #[test]
    fn more_than_a_bucket_gives_and_a_log_forgets_is_a_jump() {
        // In three seconds a bucket gives 5, and a tenth more.
        assert_eq!(rise(count(99, 80)), Rise::Jump);
        assert_eq!(rise(count(28, 80)), Rise::Jump);
        assert_eq!(rise(count(27, 80)), Rise::No);
        assert_eq!(rise(count(20, 80)), Rise::No);
        assert_eq!(rise(count(99, 1)), Rise::No, "an empty log shows as much");
    }

    #[test]
    fn only_a_reset_that_moved_by_a_window_makes_a_jump() {
        let moved = |window, is_whole, remaining| {
            rise(Count {
                window,
                is_whole,
                ..count(remaining, 80)
            })
        };
        assert_eq!(moved(1, true, 99), Rise::Slow);
        assert_eq!(moved(2, false, 99), Rise::Slow);
        assert_eq!(moved(2, false, 20), Rise::No);
        assert_eq!(moved(3, true, 99), Rise::No, "too much happened between");
    }

    #[test]
    fn answers_whose_order_is_not_known_prove_nothing() {
        let start = Instant::now();
        let span = Span::new(60 * SECOND);
        let mut proof = JumpProof::default();
        let before = Count {
            window: 1,
            ..count(20, 80)
        };
        proof.compare(start, before, span, start + SECOND);
        let together = proof.compare(start, count(99, 80), span, start + 2 * SECOND);
        assert_eq!(together, Rise::No);
        let sent = start + 3 * SECOND;
        assert_eq!(
            proof.compare(sent, count(99, 80), span, sent),
            Rise::Jump,
            "it is compared with the first"
        );
    }
}
