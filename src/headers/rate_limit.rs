//! `X-RateLimit-*`, as the Ploton API and many others send it.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

use super::{
    Hint, HintSource, date,
    number::{self, Time},
    single,
};

/// The time until the server's window ends, by `X-RateLimit-Reset`, where nothing is left of the window: an epoch in seconds
/// or milliseconds, a delta in seconds, each with a fraction or without, or an ISO 8601 date in UTC. `limited` says that the
/// answer was a 429.
pub(super) fn reset(
    headers: &HeaderMap,
    limited: bool,
    clock: impl FnOnce() -> SystemTime,
) -> Option<Hint> {
    let text = single(headers, &X_RATELIMIT_RESET)?;
    if !limited && single(headers, &X_RATELIMIT_REMAINING) != Some("0") {
        return None;
    }
    let at = match number::time(text) {
        Some(Time::In(wait)) => return Hint::new(wait, HintSource::Reset),
        Some(Time::At(at)) => at,
        None => humantime::parse_rfc3339(text).ok()?,
    };
    Hint::new(date::until(at, clock())?, HintSource::Reset)
}

const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
