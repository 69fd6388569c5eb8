//! What is read from whole answers: the vectors of other libraries and servers, and properties.

mod any_bytes;
mod hints;
mod limits;
mod refusals;
mod vectors;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::{
    date::Wall,
    rate_limit::{self, Said},
    retry_after::{Hint, HintSource},
};

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// The hint where the local clock stands at `clock` seconds since 1970.
fn hint(clock: u64, status: u16, fields: &[(&'static str, &str)]) -> Option<Hint> {
    let now = Instant::now();
    let wall = Wall::set(SystemTime::UNIX_EPOCH + secs(clock), now);
    let status = StatusCode::from_u16(status).unwrap();
    super::hint(status, &headers(fields), &wall, now)
}

/// The wait by `Retry-After` alone, on a 429.
fn retry_after(clock: u64, value: &str) -> Option<Duration> {
    hint(clock, 429, &[("retry-after", value)]).map(|hint| hint.wait)
}

fn said(fields: &[(&'static str, &str)]) -> Option<Said> {
    let now = Instant::now();
    let wall = Wall::set(SystemTime::UNIX_EPOCH + secs(CLOCK), now);
    rate_limit::said(&headers(fields), &wall, now)
}

const fn from(source: HintSource, millis: u64) -> Option<Hint> {
    Some(Hint {
        wait: ms(millis),
        source,
    })
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Sat, 15 Jun 2024 13:51:40 GMT: 32 s before the reset on Ploton's reference page.
const CLOCK: u64 = 1_718_459_500;
