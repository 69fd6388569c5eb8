//! Arithmetic on time that neither overflows nor rounds down.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

/// `by` after `at`.
pub(super) fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

/// `by` before `at`, or `at` where the clock does not go back so far.
pub(super) fn earlier(at: Instant, by: Duration) -> Instant {
    at.checked_sub(by).unwrap_or(at)
}

/// `time · numerator / denominator`, rounded up.
pub(super) fn scaled(time: Duration, numerator: u32, denominator: u32) -> Duration {
    let product = time.as_nanos().saturating_mul(u128::from(numerator));
    let nanos = product.div_ceil(u128::from(denominator.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How long the server's window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// As the server says.
    pub(super) named: Duration,
    /// By our clock, at most: clocks differ by up to 200 parts in a million.
    pub(super) longest: Duration,
}

impl Span {
    pub(super) fn new(named: Duration) -> Self {
        let named = named.clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        Self {
            named,
            longest: named.saturating_add(drift(named)),
        }
    }
}

/// How much two clocks may differ after `elapsed`.
pub(super) fn drift(elapsed: Duration) -> Duration {
    scaled(elapsed, 1, 5_000)
}

const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        let share = scaled(Duration::from_nanos(10), 1, 3);
        assert_eq!(share, Duration::from_nanos(4));
        let most = scaled(Duration::MAX, u32::MAX, 0);
        assert_eq!(most, Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_window_may_last_200_parts_in_a_million_longer_by_our_clock() {
        let minute = Span::new(Duration::from_secs(60));
        assert_eq!(minute.longest, Duration::from_millis(60_012));
        assert_eq!(Span::new(Duration::MAX).named, LONGEST_WINDOW);
        assert_eq!(Span::new(Duration::ZERO).named, SHORTEST_WINDOW);
    }
}
