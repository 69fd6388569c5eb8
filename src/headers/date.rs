//! Wall time, and the dates in headers.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::when;

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
    #[cfg(any(test, fuzzing, feature = "mock"))]
    pub(crate) const fn set(wall: SystemTime, tokio: Instant) -> Self {
        Self { wall, tokio }
    }

    /// The wall time at `now`.
    pub(crate) fn at(&self, now: Instant) -> SystemTime {
        let past = now.saturating_duration_since(self.tokio);
        self.wall.checked_add(past).unwrap_or(self.wall)
    }

    /// The wall time at `now` since 1970; zero on a clock that is set to before.
    pub(crate) fn since_epoch(&self, now: Instant) -> Duration {
        since_epoch(self.at(now)).unwrap_or_default()
    }
}

/// Reads an HTTP-date or an ISO 8601 date, as the time since 1970.
pub(super) fn parse(date: &str, local: Duration) -> Option<Duration> {
    parse_http(date, local).or_else(|| parse_iso(date))
}

/// Reads an HTTP-date in any of its three forms, in whatever case and spacing:
/// [RFC 9110, 5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7). `local` is the time since 1970 by the local
/// clock, which tells the century of a two-digit year.
pub(super) fn parse_http(date: &str, local: Duration) -> Option<Duration> {
    // The form that servers send today, on every answer, costs no allocation.
    if date.as_bytes().get(3) == Some(&b',') {
        if let Ok(date) = httpdate::parse_http_date(date) {
            return since_epoch(date);
        }
    }
    let mut words = date
        .split([' ', '\t', ',', '-'])
        .filter(|word| !word.is_empty());
    let words: [Option<&str>; 7] = std::array::from_fn(|_| words.next());
    let (weekday, day, month, year, time) = match words {
        [
            Some(weekday),
            Some(day),
            Some(month),
            Some(year),
            Some(time),
            Some(zone),
            None,
        ] if zone.eq_ignore_ascii_case("GMT") || zone.eq_ignore_ascii_case("UTC") => {
            (weekday, day, month, year, time)
        }
        [
            Some(weekday),
            Some(month),
            Some(day),
            Some(time),
            Some(year),
            None,
            None,
        ] => (weekday, day, month, year, time),
        _ => return None,
    };
    let year = match year.len() {
        2 => full_year(year.parse().ok()?, local)?,
        4 => year.parse().ok()?,
        _ => return None,
    };
    // `httpdate` checks all of it, and has a century rule of its own for two digits.
    let (weekday, month) = (capitalised(weekday.get(..3)?)?, capitalised(month)?);
    let date = format!("{weekday}, {day:0>2} {month} {year:0>4} {time} GMT");
    since_epoch(httpdate::parse_http_date(&date).ok()?)
}

/// The latest year with these two digits that is at most 50 years ahead.
fn full_year(two_digits: u64, local: Duration) -> Option<u64> {
    let this_year = 1970_u64.saturating_add(local.as_secs() / SECONDS_PER_YEAR);
    let latest = this_year.saturating_add(50);
    latest.checked_sub(latest.checked_sub(two_digits)? % 100)
}

fn capitalised(word: &str) -> Option<String> {
    let (first, rest) = word.split_at_checked(1)?;
    Some(first.to_ascii_uppercase() + &rest.to_ascii_lowercase())
}

/// Reads an ISO 8601 date with seconds. Without an offset it is UTC.
fn parse_iso(date: &str) -> Option<Duration> {
    let date = date.to_ascii_uppercase();
    let (day, time) = date.split_at_checked("2025-06-15".len())?;
    let zone = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at_checked(zone)?;
    let date = since_epoch(humantime::parse_rfc3339_weak(&format!("{day}{time}")).ok()?)?;
    if let Some(east) = zone.strip_prefix('+') {
        return date.checked_sub(offset(east)?);
    }
    if let Some(west) = zone.strip_prefix('-') {
        return date.checked_add(offset(west)?);
    }
    matches!(zone, "" | "Z").then_some(date)
}

/// Reads `02:00`, `0200` or `02`.
fn offset(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.split_at_checked(2)?;
    let minutes = match minutes.strip_prefix(':').unwrap_or(minutes) {
        "" => "00",
        minutes => minutes,
    };
    let hours = when::seconds(hours).filter(|hours| hours.as_secs() < 24)?;
    let minutes = when::seconds(minutes).filter(|minutes| minutes.as_secs() < 60)?;
    hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)
}

fn since_epoch(time: SystemTime) -> Option<Duration> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// On average in the Gregorian calendar; the hours by which a New Year is missed don't matter half a century away.
const SECONDS_PER_YEAR: u64 = 31_556_952;

#[cfg(test)]
mod tests {
    use super::*;

    /// 15 June 2026, 12:00:00 UTC.
    const IN_2026: Duration = Duration::from_secs(1_781_524_800);

    fn http(date: &str) -> Option<u64> {
        parse_http(date, IN_2026).map(|date| date.as_secs())
    }

    #[test]
    fn the_three_forms_name_one_instant() {
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http(form), Some(784_111_777), "{form}");
        }
        assert_eq!(http("Fri, 31 Dec 1999 23:59:59 GMT"), Some(946_684_799));
    }

    #[test]
    fn case_spacing_and_a_missing_zero_are_no_matter() {
        for form in [
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUN, 06 NOV 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994\t08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "SUNDAY, 06-NOV-94 08:49:37 GMT",
            "sun nov 6 08:49:37 1994",
        ] {
            assert_eq!(http(form), Some(784_111_777), "{form}");
        }
    }

    #[test]
    fn a_two_digit_year_is_at_most_50_years_ahead() {
        // `httpdate` alone reads 76 as 1976.
        let table = [
            ("Sunday, 15-Nov-26 00:00:00 GMT", Some(1_794_700_800)),
            ("Friday, 01-May-76 00:00:00 GMT", Some(3_355_516_800)),
            ("Thursday, 31-Dec-76 00:00:00 GMT", Some(3_376_598_400)),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some(220_924_800)),
            ("Friday, 31-Dec-99 23:59:59 GMT", Some(946_684_799)),
            // The weekday is that of 1976.
            ("Saturday, 01-May-76 00:00:00 GMT", None),
        ];
        for (date, seconds) in table {
            assert_eq!(http(date), seconds, "{date}");
        }
        let in_1999 = Duration::from_secs(946_684_797);
        let next_year = parse_http("Saturday, 01-Jan-00 00:00:00 GMT", in_1999);
        assert_eq!(next_year, Some(Duration::from_secs(946_684_800)));
    }

    #[test]
    fn what_is_no_http_date_is_none() {
        for text in [
            "",
            "tomorrow",
            "12",
            "\u{b2}",
            "Zun, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Fri, 32 Dec 1999 23:59:59 GMT",
            "Sat, 31 Nov 1999 23:59:59 GMT",
            "Sun, 29 Feb 2026 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37 EST",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, 06 Nov 94 08:49:37 +0000",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Fri, 29 Sep 100000 16:26:57 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "\u{a0}\u{a0}n, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(http(text), None, "{text}");
        }
    }

    #[test]
    fn an_iso_date_is_read_with_its_offset() {
        let table = [
            ("2025-06-15T14:22:03Z", 1_749_997_323_000),
            ("2025-06-15t14:22:03z", 1_749_997_323_000),
            ("2025-06-15 14:22:03", 1_749_997_323_000),
            ("2025-06-15T14:22:03.250Z", 1_749_997_323_250),
            ("2025-06-15T14:22:03+00:00", 1_749_997_323_000),
            ("2025-06-15T16:22:03.250+02:00", 1_749_997_323_250),
            ("2025-06-15T10:52:03-0330", 1_749_997_323_000),
            ("2025-06-15T16:22:03+02", 1_749_997_323_000),
        ];
        for (date, millis) in table {
            let parsed = parse(date, IN_2026);
            assert_eq!(parsed, Some(Duration::from_millis(millis)), "{date}");
        }
    }

    #[test]
    fn what_is_no_iso_date_is_none() {
        for text in [
            "2025-06-15",
            "2025-06-15T14:22Z",
            "2025-06-31T14:22:03Z",
            "2025-06-15T25:22:03Z",
            "2025-06-15T14:22:03ZZ",
            "2025-06-15T14:22:03+24:00",
            "2025-06-15T14:22:03+02:60",
            "2025-06-15T14:22:03+2",
            "2025-06-15T14:22:03+ 2:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+02:00",
            "20250615T142203Z",
            "2025-06-1\u{e9}T14:22:03Z",
        ] {
            assert_eq!(parse(text, IN_2026), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_paused_time() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let wall = Wall::set(start, Instant::now());
        tokio::time::advance(Duration::from_secs(90)).await;
        let now = Instant::now();
        assert_eq!(wall.at(now), start + Duration::from_secs(90));
        assert_eq!(wall.since_epoch(now), Duration::from_secs(1_000_090));
    }

    #[test]
    fn a_clock_before_1970_reads_as_1970() {
        let now = Instant::now();
        let wall = Wall::set(SystemTime::UNIX_EPOCH - Duration::from_secs(9), now);
        assert_eq!(wall.since_epoch(now), Duration::ZERO);
    }
}
