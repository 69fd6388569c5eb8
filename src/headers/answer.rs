//! An answer's headers, and the time by which they are read.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
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
    /// `Some` for who knows more of the server's clock than the local one tells.
    pub(super) undated: Option<Undated>,
}

/// How a Reset is read that is an epoch, in an answer that does not say what the server's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undated {
    /// What the server's clock shows, as far as is known; since 1970.
    pub(crate) shown: Duration,
    /// A Reset that is farther away by that says nothing.
    pub(crate) farthest: Duration,
}

impl<'a> Answer<'a> {
    pub(super) const fn new(headers: &'a HeaderMap, wall: &'a Wall, now: Instant) -> Self {
        Self {
            headers,
            wall,
            now,
            undated: None,
        }
    }

    /// The header's text where it is sent once: two would contradict each other.
    pub(super) fn text(self, name: &HeaderName) -> Option<&'a str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        text(value)
    }

    /// Every readable text that the header is sent with.
    pub(super) fn texts(self, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers.get_all(name).iter().filter_map(text)
    }

    /// What the header names: a delta, an epoch or a date.
    pub(super) fn when(self, name: &HeaderName) -> Option<When> {
        self.read(self.text(name)?)
    }

    /// What such a text names.
    pub(super) fn read(self, text: &str) -> Option<When> {
        When::parse(text, || self.local())
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
        match when {
            When::In(wait) => (!wait.is_zero()).then_some(wait),
            When::At(time) => left(time, self.date().unwrap_or_else(|| self.local())),
        }
    }

    /// The time left until a Reset.
    pub(super) fn until_reset(self, when: When) -> Option<Duration> {
        match (when, self.undated) {
            (When::At(time), Some(undated)) if self.date().is_none() => {
                left(time, undated.shown).filter(|&wait| wait <= undated.farthest)
            }
            _ => self.until(when),
        }
    }

    fn local(self) -> Duration {
        self.wall.since_epoch(self.now)
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    Some(value.to_str().ok()?.trim_ascii())
}

/// The time left until a date where the clock shows `server`; `None` where there is none left.
fn left(time: Duration, server: Duration) -> Option<Duration> {
    let wait = time.checked_sub(server).filter(|wait| !wait.is_zero())?;
    wait.checked_add(DATE_RESOLUTION)
}

/// A date says its instant to the second, rounded in a way that nobody knows.
const DATE_RESOLUTION: Duration = Duration::from_secs(1);
