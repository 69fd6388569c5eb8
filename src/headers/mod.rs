//! What the server says in its headers: pure parsing, given the time. What can't be read says nothing, and is no error.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::Instant;

pub(crate) mod date;
mod ietf;
mod number;
mod rate_limit;
mod retry_after;
#[cfg(test)]
mod tests;

use self::date::Wall;

/// A wait that the server named, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Longer than zero.
    pub(crate) wait: Duration,
    pub(crate) source: HintSource,
}

/// The header that a hint is from, the first in this order that says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintSource {
    /// `retry-after-ms`
    Milliseconds,
    /// `Retry-After`
    Seconds,
    /// `Retry-After`, as a date or an epoch.
    Date,
    /// `RateLimit`, of any draft.
    RateLimit,
    /// `X-RateLimit-Reset`
    Reset,
}

impl HintSource {
    /// What logs call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "retry-after-ms",
            Self::Seconds => "retry-after",
            Self::Date => "retry-after date",
            Self::RateLimit => "ratelimit",
            Self::Reset => "x-ratelimit-reset",
        }
    }
}

/// The wait that an answer received at `now` asks for. A header that is empty, repeated, unreadable, zero or past says
/// nothing, and the next one is asked. An answer that is 2xx asks for none: some servers send `Retry-After` with each.
pub(crate) fn hint(
    status: StatusCode,
    headers: &HeaderMap,
    wall: &Wall,
    now: Instant,
) -> Option<Hint> {
    if status.is_success() {
        return None;
    }
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    retry_after::milliseconds(headers)
        .or_else(|| retry_after::retry_after(headers, || wall.of_answer(headers, now)))
        .or_else(|| ietf::hint(headers, limited))
        .or_else(|| rate_limit::reset(headers, limited, || wall.of_answer(headers, now)))
}

impl Hint {
    fn new(wait: Duration, source: HintSource) -> Option<Self> {
        (!wait.is_zero()).then_some(Self { wait, source })
    }
}

/// The header's value where it is sent once, and can be read: two would contradict each other.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok().map(str::trim)
}
