//! `X-RateLimit-*`, as the Ploton API sends it.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::{
    date::{self, Wall},
    retry_after::{DATE_RESOLUTION, single},
};

/// The time from `now` until the server's window ends, by `X-RateLimit-Reset`: epoch seconds, or a delta where the
/// number is too small for an epoch. Zero, past and unreadable ones are none.
pub(crate) fn reset(headers: &HeaderMap, wall: &Wall, now: Instant) -> Option<Duration> {
    let seconds: u64 = single(headers, &X_RATELIMIT_RESET)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    if seconds <= LARGEST_DELTA {
        return (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    wall.until(date::from_epoch(seconds)?, now)
        .map(|wait| wait.saturating_add(DATE_RESOLUTION))
}

const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// 31 years as a delta, September 2001 as an epoch.
const LARGEST_DELTA: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(value: &[u8]) -> Option<u64> {
        let now = Instant::now();
        let wall = Wall::set(date::from_epoch(1_718_459_500).unwrap(), now);
        let mut headers = HeaderMap::new();
        headers.insert(X_RATELIMIT_RESET, HeaderValue::from_bytes(value).unwrap());
        reset(&headers, &wall, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_reset_is_an_epoch_or_a_delta() {
        assert_eq!(parse(b"1718459532"), Some(33));
        assert_eq!(parse(b" 12 "), Some(12));
    }

    #[test]
    fn what_names_no_reset_is_none() {
        for value in [
            b"".as_slice(),
            b"0",
            b"-5",
            b"soon",
            b"\xff",
            b"1718459500",
            b"1600000000",
            b"18446744073709551615",
            b"99999999999999999999",
        ] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
