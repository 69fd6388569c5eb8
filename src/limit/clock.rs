//! What the server's clock shows, learned from what the server says.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::{drift, later};

/// The server's clock read from below: it shows at least so much. Nothing is assumed of how far it is wrong, nor of how
/// long an answer was on its way: an answer that took long only teaches less.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    /// When the server's clock surely showed this or more, since 1970.
    reading: Option<(Instant, Duration)>,
}

impl ServerClock {
    /// At `now` the server's clock shows `shown` or more. The largest reading holds, aged by what clocks differ.
    pub(super) fn learn(&mut self, shown: Duration, now: Instant) {
        if self.shows(now).is_none_or(|known| known < shown) {
            self.reading = Some((now, shown));
        }
    }

    /// How long after `now` the server's clock shows `time` at the latest.
    pub(super) fn until(&self, time: Duration, now: Instant) -> Option<Duration> {
        self.shows(now).map(|shown| time.saturating_sub(shown))
    }

    /// What the server's clock shows at `now`, at least.
    pub(super) fn shows(&self, now: Instant) -> Option<Duration> {
        let (at, shown) = self.reading?;
        let elapsed = now.saturating_duration_since(at);
        Some(shown.saturating_add(elapsed.saturating_sub(drift(elapsed))))
    }
}

/// When a window ends by our clock, at the latest: where `clock` shows a second after `reset` (which may have been rounded
/// down), and in any case within `longest` from `now`, when it was open.
pub(super) fn end_of_window(
    clock: &ServerClock,
    reset: Option<Duration>,
    longest: Duration,
    now: Instant,
) -> Instant {
    let wait = reset.and_then(|reset| clock.until(reset.saturating_add(RESOLUTION), now));
    later(now, wait.map_or(longest, |wait| wait.min(longest)))
}

/// Servers name whole seconds.
pub(super) const RESOLUTION: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_largest_reading_holds_and_ages() {
        let start = Instant::now();
        let mut clock = ServerClock::default();
        assert_eq!(clock.until(SECOND, start), None);
        clock.learn(1_000 * SECOND, start);
        clock.learn(900 * SECOND, start);
        assert_eq!(clock.until(1_010 * SECOND, start), Some(10 * SECOND));
        let hour = start + 3_600 * SECOND;
        let aged = Duration::from_millis(720);
        assert_eq!(clock.until(4_610 * SECOND, hour), Some(10 * SECOND + aged));
        clock.learn(4_600 * SECOND, hour);
        assert_eq!(clock.until(4_610 * SECOND, hour), Some(10 * SECOND));
    }

    #[test]
    fn a_window_ends_a_second_after_its_reset_or_a_window_after_it_was_open() {
        let now = Instant::now();
        let mut clock = ServerClock::default();
        let end = |clock: &ServerClock, reset| end_of_window(clock, reset, 60 * SECOND, now) - now;
        assert_eq!(end(&clock, Some(SECOND)), 60 * SECOND);
        clock.learn(1_000 * SECOND, now);
        assert_eq!(end(&clock, None), 60 * SECOND);
        assert_eq!(end(&clock, Some(1_020 * SECOND)), 21 * SECOND);
        assert_eq!(end(&clock, Some(1_100 * SECOND)), 60 * SECOND);
        assert_eq!(end(&clock, Some(900 * SECOND)), Duration::ZERO);
        assert_eq!(end(&clock, Some(Duration::MAX)), 60 * SECOND);
    }
}
