//! Headers out of bytes, and what must hold whatever stands in them. The property test and the fuzz target share it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::{
    Undated,
    date::Wall,
    hint,
    rate_limit::{self, Said},
    refusal,
    retry_after::Hint,
};

/// Reads the answer that `input` stands for, and panics where a promise is broken.
///
/// Two bytes are the status, eight the clock; then come headers: a byte for the name, and the value up to a zero. A
/// control character, which no value can hold, stands for a piece of a value that chance would not find.
pub(crate) fn check(input: &[u8]) -> (Option<Hint>, Option<Said>) {
    let Some((status, rest)) = input.split_first_chunk() else {
        return (None, None);
    };
    let Some((clock, rest)) = rest.split_first_chunk() else {
        return (None, None);
    };
    let status = status_of(u16::from_be_bytes(*status));
    let now = Instant::now();
    let wall = Wall::set(clock_of(u64::from_be_bytes(*clock)), now);
    let headers = headers_of(rest);

    let hint = hint(status, &headers, &wall, now);
    if let Some(hint) = hint {
        assert!(!status.is_success(), "{status} names a wait: {headers:?}");
        assert!(!hint.wait.is_zero(), "a wait of zero: {headers:?}");
        let until = now.checked_add(hint.wait);
        assert!(until.is_some(), "a wait without end: {headers:?}");
    }
    let undated = Undated {
        shown: wall.since_epoch(now) / 2,
        farthest: Duration::from_secs(62),
    };
    if let Some(hint) = refusal(&headers, &wall, now, undated) {
        assert!(
            !hint.wait.is_zero(),
            "a refusal's wait of zero: {headers:?}"
        );
    }
    let said = rate_limit::said(&headers, &wall, now);
    if let Some(said) = said {
        assert!(said.limit > 0, "{said:?}: {headers:?}");
        assert!(said.remaining <= said.limit, "{said:?}: {headers:?}");
        assert_ne!(said.window, Some(Duration::ZERO), "{headers:?}");
    }
    (hint, said)
}

fn status_of(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
}

fn clock_of(seconds: u64) -> SystemTime {
    let since_epoch = Duration::from_secs(seconds);
    let clock = SystemTime::UNIX_EPOCH.checked_add(since_epoch);
    clock.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn headers_of(mut input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    while let Some((name, rest)) = input.split_first() {
        let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
        let (value, rest) = rest.split_at(end);
        input = rest.get(1..).unwrap_or_default();
        let name = NAMES.get(usize::from(*name) % NAMES.len());
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(&value_of(value))) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}

fn value_of(input: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    for byte in input {
        match PIECES.get(usize::from(*byte)) {
            Some(piece) => value.extend_from_slice(piece.as_bytes()),
            None => value.push(*byte),
        }
    }
    value
}

pub(super) const NAMES: [&str; 13] = [
    "retry-after-ms",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "date",
    "age",
    "content-length",
];

/// By control character; the zero ends a value.
pub(super) const PIECES: [&str; 32] = [
    "",
    "0",
    "1",
    "60",
    "100",
    "1718459532",
    "1718459532123",
    "18446744073709551615",
    "99999999999999999999999",
    "\t",
    "1.5",
    "-",
    "nan",
    "Sat, 15 Jun 2024 13:52:12 GMT",
    "Saturday, 15-Jun-24 13:52:12 GMT",
    "Sat Jun 15 13:51:40 2024",
    "2024-06-15T13:52:12.5Z",
    "+02:00",
    "limit=",
    "remaining=",
    "reset=",
    "\"default\"",
    "\"daily\"",
    ";r=",
    ";t=",
    ";q=",
    ";w=",
    ";qu=\"content-bytes\"",
    ";pk=:cHsdsRa894==:",
    ", ",
    "?1",
    "(",
];
