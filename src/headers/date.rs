//! Wall time, for the dates in headers.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap,
    header::{AGE, DATE},
};
use tokio::time::Instant;

use super::single;

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

    /// The time by which the dates in an answer received at `now` are meant: its own `Date`, else this clock. The difference
    /// of two dates of one server is right whatever this machine's clock says, unless a cache kept the answer.
    pub(super) fn of_answer(&self, headers: &HeaderMap, now: Instant) -> SystemTime {
        let local = self.at(now);
        let is_cached = headers.get(AGE).is_some_and(|age| age != "0");
        single(headers, &DATE)
            .filter(|_| !is_cached)
            .and_then(|date| parse(date, local))
            .unwrap_or(local)
    }
}

/// The time from `clock` until `date`, and one second more, as a date says its instant to the second, rounded in a way that
/// nobody knows; `None` where it has passed.
pub(super) fn until(date: SystemTime, clock: SystemTime) -> Option<Duration> {
    let wait = date.duration_since(clock).ok()?;
    (!wait.is_zero()).then(|| wait.saturating_add(RESOLUTION))
}

/// Reads an HTTP-date in any of its three forms, at about `now`:
/// [RFC 9110, 5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7).
pub(super) fn parse(date: &str, now: SystemTime) -> Option<SystemTime> {
    let four_digits = with_century(date, now);
    httpdate::parse_http_date(four_digits.as_deref().unwrap_or(date)).ok()
}

/// A date whose year has two digits, with four: the year that is at most 50 years ahead. `None` where it is another form.
fn with_century(date: &str, now: SystemTime) -> Option<String> {
    let (name, rest) = date.split_once(", ")?;
    let (day, rest) = rest.split_once('-')?;
    let (month, rest) = rest.split_once('-')?;
    let (year, time) = rest.split_once(' ')?;
    let digits: u64 = (year.len() == 2).then(|| year.parse().ok()).flatten()?;
    let last = year_of(now)?.checked_add(50)?;
    let ago = last.checked_sub(digits)?.checked_rem(100)?;
    let year = last.checked_sub(ago)?;
    let name = name.get(..3)?;
    Some(format!("{name}, {day} {month} {year:04} {time}"))
}

fn year_of(time: SystemTime) -> Option<u64> {
    let last = SystemTime::UNIX_EPOCH.checked_add(LAST_DATE)?;
    let text = httpdate::fmt_http_date(time.clamp(SystemTime::UNIX_EPOCH, last));
    text.get(12..16)?.parse().ok()
}

/// The time that is `since` after 1970; `None` where no clock reaches it.
pub(super) fn from_epoch(since: Duration) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(since)
}

const RESOLUTION: Duration = Duration::from_secs(1);
/// The end of the year 9999.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn epoch(seconds: u64) -> SystemTime {
        from_epoch(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn the_three_forms_name_one_instant() {
        let forms = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ];
        for form in forms {
            assert_eq!(
                parse(form, epoch(784_111_000)),
                Some(epoch(784_111_777)),
                "{form}"
            );
        }
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_50_years_ahead() {
        let table = [
            ("1994", "94", "1994"),
            ("1994", "05", "2005"),
            ("1994", "44", "2044"),
            ("2026", "70", "2070"),
            ("2026", "76", "2076"),
            ("2026", "77", "1977"),
            ("2026", "26", "2026"),
            ("2026", "00", "2000"),
        ];
        for (now, digits, year) in table {
            let (_, now) = on_25_november(now);
            let (name, expected) = on_25_november(year);
            let short = format!("{name}day, 25-Nov-{digits} 12:00:00 GMT");
            assert_eq!(parse(&short, now), Some(expected), "{digits} is {year}");
        }
    }

    /// The short name of that day, and noon on it: only the right name is read.
    fn on_25_november(year: &str) -> (&'static str, SystemTime) {
        ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
            .into_iter()
            .find_map(|name| {
                let date = format!("{name}, 25 Nov {year} 12:00:00 GMT");
                httpdate::parse_http_date(&date).ok().map(|at| (name, at))
            })
            .unwrap()
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "tomorrow",
            "Fri, 32 Dec 1999 23:59:59 GMT",
            "Friday, 32-Dec-99 23:59:59 GMT",
            "Friday, -- GMT",
            "Friday, 01-Dec-\u{b2}9 23:59:59 GMT",
            "12",
            "\u{b2}",
        ] {
            assert_eq!(parse(text, epoch(946_684_000)), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_paused_time() {
        let start = epoch(1_000_000);
        let wall = Wall::set(start, Instant::now());
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(wall.at(Instant::now()), epoch(1_000_090));
    }

    #[test]
    fn an_answers_own_date_is_its_clock_unless_a_cache_kept_it() {
        let now = Instant::now();
        let wall = Wall::set(epoch(1_000_000), now);
        let mut headers = HeaderMap::new();
        assert_eq!(wall.of_answer(&headers, now), epoch(1_000_000));
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(DATE, date.clone());
        assert_eq!(wall.of_answer(&headers, now), epoch(784_111_777));
        headers.insert(AGE, HeaderValue::from_static("0"));
        assert_eq!(wall.of_answer(&headers, now), epoch(784_111_777));
        headers.insert(AGE, HeaderValue::from_static("30"));
        assert_eq!(wall.of_answer(&headers, now), epoch(1_000_000));
        headers.remove(AGE);
        headers.append(DATE, date);
        assert_eq!(
            wall.of_answer(&headers, now),
            epoch(1_000_000),
            "two are none"
        );
    }

    #[test]
    fn a_date_gets_a_second_more_and_a_past_one_is_none() {
        let second = Duration::from_secs(1);
        assert_eq!(until(epoch(110), epoch(100)), Some(second * 11));
        assert_eq!(until(epoch(100), epoch(100)), None);
        assert_eq!(until(epoch(99), epoch(100)), None);
    }
}
