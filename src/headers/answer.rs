//! An answer's headers, and the time by which they are read.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName,
    header::{AGE, DATE},
};
use tokio::time::Instant;

use super::{
    date::{self, Wall},
    when::When,
};

/// The headers of an answer that came at `now`.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) wall: &'a Wall,
    pub(super) now: Instant,
}

impl<'a> Answer<'a> {
    /// The header's text where it is sent once: two would contradict each other.
    pub(super) fn text(self, name: &HeaderName) -> Option<&'a str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Some(value.to_str().ok()?.trim())
    }

    /// What the header names: a delta, an epoch or a date.
    pub(super) fn when(self, name: &HeaderName) -> Option<When> {
        When::parse(self.text(name)?, self.local())
    }

    /// When the server wrote the answer, since 1970 by its own clock. `None` where `Date` is missing, repeated or
    /// unreadable, or the answer has lain in a cache, as `Age` says.
    pub(super) fn date(self) -> Option<Duration> {
        let date = date::parse_http(self.text(&DATE)?, self.local())?;
        let fresh = !self.headers.contains_key(AGE) || self.text(&AGE) == Some("0");
        fresh.then_some(date)
    }

    /// The time left until `when`; `None` where there is none left.
    ///
    /// Both of an answer's dates are by one clock, so their difference is right however wrong the local clock is. Only
    /// an answer without a `Date` is read by that.
    pub(super) fn until(self, when: When) -> Option<Duration> {
        let wait = match when {
            When::In(wait) => wait,
            When::At(time) => {
                let server = self.date().unwrap_or_else(|| self.local());
                let wait = time.checked_sub(server)?;
                if wait.is_zero() {
                    return None;
                }
                wait.checked_add(DATE_RESOLUTION)?
            }
        };
        (!wait.is_zero()).then_some(wait)
    }

    fn local(self) -> Duration {
        self.wall.since_epoch(self.now)
    }
}

/// A date says its instant to the second, rounded in a way that nobody knows.
const DATE_RESOLUTION: Duration = Duration::from_secs(1);
