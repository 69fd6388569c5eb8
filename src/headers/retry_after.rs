//! `Retry-After`, and its relative in milliseconds.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, header::RETRY_AFTER};

use super::{
    Hint, HintSource, date,
    number::{self, Time},
    single,
};

/// `retry-after-ms`, as several APIs send it beside `Retry-After`, to be more exact.
pub(super) fn milliseconds(headers: &HeaderMap) -> Option<Hint> {
    let millis = number::seconds(single(headers, &RETRY_AFTER_MS)?)?;
    Hint::new(millis / 1_000, HintSource::Milliseconds)
}

/// `Retry-After`: seconds or a date, by [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3), and, as
/// seen in the wild, fractions and epochs.
pub(super) fn retry_after(headers: &HeaderMap, clock: impl FnOnce() -> SystemTime) -> Option<Hint> {
    let text = single(headers, &RETRY_AFTER)?;
    let at = match number::time(text) {
        Some(Time::In(wait)) => return Hint::new(wait, HintSource::Seconds),
        Some(Time::At(at)) => Some(at),
        None => None,
    };
    let clock = clock();
    let at = at.or_else(|| date::parse(text, clock))?;
    Hint::new(date::until(at, clock)?, HintSource::Date)
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
