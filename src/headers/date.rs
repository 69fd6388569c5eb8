//! Wall time, for the dates in headers.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// One reading of the wall clock beside one of tokio's: dates are told by tokio's clock from there on, so that they
/// follow paused time and no step of the wall clock shortens a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    wall: SystemTime,
    tokio: Instant,
}

impl Wall {
    /// Reads both clocks.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where wall time comes in"
    )]
    pub(crate) fn anchored() -> Self {
        Self {
            wall: SystemTime::now(),
            tokio: Instant::now(),
        }
    }

    /// Says that it was `wall` o'clock at `tokio`.
    #[cfg(any(test, feature = "mock"))]
    pub(crate) const fn set(wall: SystemTime, tokio: Instant) -> Self {
        Self { wall, tokio }
    }

    /// The wall time at `now`.
    pub(crate) fn at(&self, now: Instant) -> SystemTime {
        let past = now.saturating_duration_since(self.tokio);
        self.wall.checked_add(past).unwrap_or(self.wall)
    }

    /// The time from `now` until `date`; `None` where it has passed.
    pub(crate) fn until(&self, date: SystemTime, now: Instant) -> Option<Duration> {
        date.duration_since(self.at(now))
            .ok()
            .filter(|wait| !wait.is_zero())
    }
}

/// Reads an HTTP-date in any of its three forms: [RFC 9110, 5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7).
pub(crate) fn parse(date: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(date).ok()
}

/// The time that is `seconds` after 1970; `None` where no clock reaches it.
pub(crate) fn from_epoch(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_name_one_instant() {
        let forms = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ];
        for form in forms {
            assert_eq!(parse(form), from_epoch(784_111_777), "{form}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "tomorrow",
            "Fri, 32 Dec 1999 23:59:59 GMT",
            "12",
            "\u{b2}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_paused_time() {
        let start = from_epoch(1_000_000).unwrap();
        let wall = Wall::set(start, Instant::now());
        tokio::time::advance(Duration::from_secs(90)).await;
        let now = Instant::now();
        assert_eq!(wall.at(now), start + Duration::from_secs(90));
        assert_eq!(
            wall.until(start + Duration::from_secs(100), now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(wall.until(start, now), None);
    }

    #[test]
    fn an_epoch_beyond_every_clock_is_none() {
        assert_eq!(from_epoch(u64::MAX), None);
    }
}
