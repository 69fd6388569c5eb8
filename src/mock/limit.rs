//! How the server limits rates: pure, given the time.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use crate::Plan;

/// How the fake Ploton counts requests. The API page names no kind, so a client must get on with each.
///
/// # Example
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use tower_ploton::{Plan, mock::RateLimitModel};
///
/// let hundred = NonZeroU32::new(100).unwrap();
/// let model = RateLimitModel::fixed_window(hundred, Duration::from_secs(60));
/// assert_eq!(model, RateLimitModel::for_plan(Plan::Prototyping));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitModel {
    kind: Kind,
    limit: NonZeroU32,
    window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    FixedWindow,
    SlidingLog,
    TokenBucket { refill: NonZeroU32 },
}

impl RateLimitModel {
    /// Allows `limit` requests in each `window`; the windows follow one another from the fake's creation on. Reset is the
    /// window's end.
    #[must_use]
    pub fn fixed_window(limit: NonZeroU32, window: Duration) -> Self {
        Self::of(Kind::FixedWindow, limit, window)
    }

    /// Allows a request while fewer than `limit` were allowed in the `window` before it. Reset is when the oldest of
    /// them leaves the window.
    #[must_use]
    pub fn sliding_log(limit: NonZeroU32, window: Duration) -> Self {
        Self::of(Kind::SlidingLog, limit, window)
    }

    /// A bucket that begins with `capacity` tokens and gains `refill` tokens, evenly, in each `window`. Limit is the
    /// capacity, and Reset is when the bucket is full.
    #[must_use]
    pub fn token_bucket(capacity: NonZeroU32, refill: NonZeroU32, window: Duration) -> Self {
        Self::of(Kind::TokenBucket { refill }, capacity, window)
    }

    /// Fixed windows of a minute with the plan's requests.
    #[must_use]
    pub fn for_plan(plan: Plan) -> Self {
        Self::fixed_window(plan.requests_per_minute(), Duration::from_secs(60))
    }

    fn of(kind: Kind, limit: NonZeroU32, window: Duration) -> Self {
        let window = window.max(Duration::from_nanos(1)); // a divisor below
        Self {
            kind,
            limit,
            window,
        }
    }
}

/// What the server says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset: Instant,
    /// The exact wait until a request would be allowed; zero where this one was.
    pub(super) retry_after: Duration,
}

/// Counts by a [`RateLimitModel`]. Refused requests are not counted.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    model: RateLimitModel,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    FixedWindow {
        start: Instant,
        number: u128,
        used: u32,
    },
    SlidingLog(VecDeque<Instant>),
    /// A token is as many units as a window has nanoseconds, and `refill` units come each nanosecond: no rounding.
    TokenBucket {
        refill: u128,
        units: u128,
        at: Instant,
    },
}

impl Limiter {
    pub(super) fn new(model: RateLimitModel, start: Instant) -> Self {
        let state = match model.kind {
            Kind::FixedWindow => State::FixedWindow {
                start,
                number: 0,
                used: 0,
            },
            Kind::SlidingLog => State::SlidingLog(VecDeque::new()),
            Kind::TokenBucket { refill } => State::TokenBucket {
                refill: u128::from(refill.get()),
                units: full(model),
                at: start,
            },
        };
        Self { model, state }
    }

    pub(super) fn limit(&self) -> u32 {
        self.model.limit.get()
    }

    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        let limit = self.limit();
        let window = self.model.window;
        let (allowed, remaining, reset, next) = match &mut self.state {
            State::FixedWindow {
                start,
                number,
                used,
            } => {
                let elapsed = now.saturating_duration_since(*start).as_nanos();
                let current = quotient(elapsed, window.as_nanos());
                if current != *number {
                    *number = current;
                    *used = 0;
                }
                let allowed = *used < limit;
                if allowed {
                    *used = used.saturating_add(1);
                }
                let left = window.as_nanos().saturating_sub(
                    elapsed.saturating_sub(current.saturating_mul(window.as_nanos())),
                );
                let end = later(now, nanoseconds(left));
                (allowed, limit.saturating_sub(*used), end, end)
            }
            State::SlidingLog(log) => {
                while log.front().is_some_and(|at| later(*at, window) <= now) {
                    log.pop_front();
                }
                let used = u32::try_from(log.len()).unwrap_or(u32::MAX);
                let allowed = used < limit;
                if allowed {
                    log.push_back(now);
                }
                let used = used.saturating_add(u32::from(allowed));
                let end = later(log.front().copied().unwrap_or(now), window);
                (allowed, limit.saturating_sub(used), end, end)
            }
            State::TokenBucket { refill, units, at } => {
                let full = full(self.model);
                let token = window.as_nanos();
                let elapsed = now.saturating_duration_since(*at).as_nanos();
                *units = units
                    .saturating_add(elapsed.saturating_mul(*refill))
                    .min(full);
                *at = now;
                let allowed = *units >= token;
                if allowed {
                    *units = units.saturating_sub(token);
                }
                let after = |wanted: u128| {
                    let missing = wanted.saturating_sub(*units);
                    later(now, nanoseconds(missing.div_ceil((*refill).max(1))))
                };
                let remaining = u32::try_from(quotient(*units, token)).unwrap_or(u32::MAX);
                (allowed, remaining, after(full), after(token))
            }
        };
        let retry_after = if allowed {
            Duration::ZERO
        } else {
            next.saturating_duration_since(now)
        };
        Verdict {
            allowed,
            limit,
            remaining,
            reset,
            retry_after,
        }
    }
}

/// The units of a full bucket; fits: 32 bits times 94.
fn full(model: RateLimitModel) -> u128 {
    u128::from(model.limit.get()).saturating_mul(model.window.as_nanos())
}

fn quotient(a: u128, b: u128) -> u128 {
    a.checked_div(b).unwrap_or(0)
}

/// `by` after `at`; further away than a clock reaches, it is a time that does not come.
pub(super) fn later(at: Instant, by: Duration) -> Instant {
    let far = || at.checked_add(FAR);
    at.checked_add(by).or_else(far).unwrap_or(at)
}

/// Thirty years.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

fn nanoseconds(count: u128) -> Duration {
    let second = Duration::from_secs(1).as_nanos();
    let seconds = u64::try_from(quotient(count, second)).unwrap_or(u64::MAX);
    let rest = count.checked_rem(second).unwrap_or(0);
    Duration::new(seconds, u32::try_from(rest).unwrap_or(0))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn n(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// What a check at each of `times` says: allowed, remaining, reset and retry-after in seconds.
    fn dialogue(model: RateLimitModel, times: &[f64]) -> Vec<(bool, u32, f64, f64)> {
        let start = Instant::now();
        let mut limiter = Limiter::new(model, start);
        let say = |at: &f64| {
            let verdict = limiter.check(start + seconds(*at));
            let reset = (verdict.reset - start).as_secs_f64();
            let wait = verdict.retry_after.as_secs_f64();
            (verdict.allowed, verdict.remaining, reset, wait)
        };
        times.iter().map(say).collect()
    }

    #[test]
    fn fixed_windows_follow_one_another_from_the_start() {
        let said = dialogue(
            RateLimitModel::fixed_window(n(2), MINUTE),
            &[10.0, 59.0, 59.5, 60.0, 119.0, 119.999, 305.0],
        );
        assert_eq!(
            said,
            [
                (true, 1, 60.0, 0.0),
                (true, 0, 60.0, 0.0),
                (false, 0, 60.0, 0.5),
                (true, 1, 120.0, 0.0),
                (true, 0, 120.0, 0.0),
                (false, 0, 120.0, 0.001),
                (true, 1, 360.0, 0.0),
            ]
        );
    }

    #[test]
    fn a_sliding_log_forgets_each_request_a_window_after_it() {
        let said = dialogue(
            RateLimitModel::sliding_log(n(2), MINUTE),
            &[10.0, 30.0, 69.0, 70.0, 70.0, 90.0],
        );
        assert_eq!(
            said,
            [
                (true, 1, 70.0, 0.0),
                (true, 0, 70.0, 0.0),
                (false, 0, 70.0, 1.0),
                (true, 0, 90.0, 0.0),
                (false, 0, 90.0, 20.0),
                (true, 0, 130.0, 0.0),
            ]
        );
    }

    #[test]
    fn a_token_bucket_begins_full_and_refills_evenly() {
        // Three at once, then one each 30 s.
        let said = dialogue(
            RateLimitModel::token_bucket(n(3), n(2), MINUTE),
            &[0.0, 0.0, 0.0, 0.0, 29.0, 30.0, 45.0, 600.0],
        );
        assert_eq!(
            said,
            [
                (true, 2, 30.0, 0.0),
                (true, 1, 60.0, 0.0),
                (true, 0, 90.0, 0.0),
                (false, 0, 90.0, 30.0),
                (false, 0, 90.0, 1.0),
                (true, 0, 120.0, 0.0),
                (false, 0, 120.0, 15.0),
                (true, 2, 630.0, 0.0),
            ]
        );
    }

    #[test]
    fn a_bucket_whose_rate_is_no_whole_nanosecond_loses_nothing() {
        let model = RateLimitModel::token_bucket(n(1), n(7), MINUTE);
        let start = Instant::now();
        let mut limiter = Limiter::new(model, start);
        let mut now = start;
        for _ in 0..7_000 {
            assert!(limiter.check(now).allowed);
            let refused = limiter.check(now);
            assert!(!refused.allowed);
            now += refused.retry_after;
        }
        // Each wait is rounded up to a nanosecond, and what it gained too much counts for the next only if it fits.
        let late = (now - start).checked_sub(MINUTE * 1_000).unwrap();
        assert!(late < Duration::from_micros(7), "{late:?}");
    }

    /// The log forgot at once what it was to remember for ever, and a refusal asked for no wait.
    #[test]
    fn a_window_without_end_lets_one_through_once() {
        for model in [
            RateLimitModel::fixed_window(n(1), Duration::MAX),
            RateLimitModel::sliding_log(n(1), Duration::MAX),
        ] {
            let start = Instant::now();
            let mut limiter = Limiter::new(model, start);
            assert!(limiter.check(start).allowed);
            let refused = limiter.check(start + MINUTE * 1_000_000);
            assert!(
                !refused.allowed && refused.retry_after > MINUTE,
                "{refused:?}"
            );
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let most = NonZeroU32::MAX;
        for window in [Duration::ZERO, Duration::MAX] {
            for model in [
                RateLimitModel::fixed_window(most, window),
                RateLimitModel::sliding_log(most, window),
                RateLimitModel::token_bucket(most, most, window),
            ] {
                let start = Instant::now();
                let mut limiter = Limiter::new(model, start);
                assert!(limiter.check(start).allowed);
                assert!(limiter.check(start + MINUTE * 1_000_000).allowed);
            }
        }
    }
}
