//! `Retry-After`: [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use tokio::time::Instant;

use super::date::{self, Wall};

/// A wait that the server named, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Longer than zero.
    pub(crate) wait: Duration,
    pub(crate) source: HintSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintSource {
    Seconds,
    Date,
}

impl HintSource {
    /// What logs call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "retry-after",
            Self::Date => "retry-after date",
        }
    }
}

/// The wait that an answer received at `now` asks for. Zero, past, unreadable and repeated ones are none.
pub(crate) fn retry_after(headers: &HeaderMap, wall: &Wall, now: Instant) -> Option<Hint> {
    let value = single(headers, &RETRY_AFTER)?.to_str().ok()?.trim();
    if value.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = value.parse().ok().filter(|&seconds| seconds > 0)?;
        return Some(Hint {
            wait: Duration::from_secs(seconds),
            source: HintSource::Seconds,
        });
    }
    let wait = wall.until(date::parse(value)?, now)?;
    Some(Hint {
        wait: wait.saturating_add(DATE_RESOLUTION),
        source: HintSource::Date,
    })
}

/// The header's value where it is sent once: two would contradict each other.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// A date says its instant to the second, rounded in a way that nobody knows.
pub(super) const DATE_RESOLUTION: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, at `now`.
    fn wall(now: Instant) -> Wall {
        Wall::set(date::from_epoch(784_111_777).unwrap(), now)
    }

    fn parse(values: &[&[u8]]) -> Option<Hint> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        }
        let now = Instant::now();
        retry_after(&headers, &wall(now), now)
    }

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_waits() {
        let table: [(&str, u64, HintSource); 6] = [
            ("1", 1, HintSource::Seconds),
            ("120", 120, HintSource::Seconds),
            ("\t42 ", 42, HintSource::Seconds),
            ("Sun, 06 Nov 1994 08:49:57 GMT", 21, HintSource::Date),
            ("Sunday, 06-Nov-94 08:49:57 GMT", 21, HintSource::Date),
            ("Sun Nov  6 08:49:57 1994", 21, HintSource::Date),
        ];
        for (value, seconds, source) in table {
            let wait = Duration::from_secs(seconds);
            assert_eq!(
                parse(&[value.as_bytes()]),
                Some(Hint { wait, source }),
                "{value}"
            );
        }
    }

    #[test]
    fn what_names_no_wait_is_none() {
        let none: [&[u8]; 13] = [
            b"",
            b"0",
            b"-10",
            b"+1",
            b"soon",
            b"nan",
            b"inf",
            b"99999999999999999999999999999999999",
            b"\xb2",
            b"\xff\xfe",
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:27 GMT",
            b"Zun, 32 Nov 1994 08:49:57 GMT",
        ];
        for value in none {
            assert_eq!(parse(&[value]), None, "{value:?}");
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[b"2", b"3"]), None, "two contradict each other");
    }

    proptest! {
        #[test]
        fn any_bytes_are_none_or_a_wait_above_zero(value in prop::collection::vec((0x20..=0xffu8).prop_filter("no header byte", |b| *b != 0x7f), 0..40)) {
            prop_assert!(parse(&[&value]).is_none_or(|hint| !hint.wait.is_zero()));
        }
    }
}
